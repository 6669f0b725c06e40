// SPDX-License-Identifier: GPL-2.0
/*
 * Devices that are switched off, and devices that are gone.
 */

/**
 * DOC: Power
 *
 * Suspend is eviction: hmm_devmem_suspend() refuses new device pages, waits for
 * migrations that are under way, and brings all pages home. When it has succeeded
 * no data of a process is on the device, so that nothing can fault there and
 * nothing is lost with the device's memory. When it fails the devmem works as
 * before, and the suspend has to be given up.
 *
 * With %HMM_DEVMEM_RUNTIME_PM a copy resumes the device. While
 * hmm_devmem_suspend() runs it does not: the caller keeps the device powered, and
 * may well be the runtime_suspend callback that a resume would wait for.
 *
 * A device is *dead* when a copy callback has said -ENODEV, or the driver has
 * called hmm_devmem_mark_dead(). Nothing is copied any more, the data on it is
 * lost, and removal does not wait for what cannot come.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/mutex.h>
#include <linux/pm_runtime.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

/**
 * hmm_devmem_power_on() - Resume the device for a migration
 * @devmem: The device memory.
 * @powered: Set if hmm_devmem_power_put() is to be called.
 *
 * Waits for a runtime suspend that is under way: its end, and not an error, is
 * what the caller wants.
 *
 * Context: Process context, may sleep. The caller has nothing that a suspend
 * waits for.
 * Return: 0 or an errno.
 */
int hmm_devmem_power_on(struct hmm_devmem *devmem, bool *powered)
{
	int ret;

	if (!(devmem->flags & HMM_DEVMEM_RUNTIME_PM))
		return 0;
	ret = pm_runtime_resume_and_get(devmem->device);
	*powered = !ret;
	return ret;
}

/**
 * __hmm_devmem_power_get() - Resume the device for a copy
 * @devmem: The device memory, with %HMM_DEVMEM_RUNTIME_PM.
 * @powered: Set if hmm_devmem_power_put() is to be called.
 *
 * Context: Process context, may sleep.
 * Return: 0 or an errno.
 */
int __hmm_devmem_power_get(struct hmm_devmem *devmem, bool *powered)
{
	/* Then it is on, and what is copied keeps the suspend from succeeding. */
	if (READ_ONCE(devmem->suspending))
		return 0;
	return hmm_devmem_power_on(devmem, powered);
}

/**
 * hmm_devmem_power_put() - The device is not needed any more
 * @devmem: The device memory.
 *
 * Context: Any context.
 */
void hmm_devmem_power_put(struct hmm_devmem *devmem)
{
	pm_runtime_mark_last_busy(devmem->device);
	pm_runtime_put_autosuspend(devmem->device);
}

static int suspend_errno(const struct hmm_devmem_left *left)
{
	if (left->no_memory)
		return -ENOMEM;
	return left->not_copied ? -EIO : -EBUSY;
}

static int suspend_locked(struct hmm_devmem *devmem)
{
	struct hmm_devmem_left left = { };
	int ret = 0;

	if (READ_ONCE(devmem->dead) || !hmm_devmem_alloc_freeze(devmem->alloc))
		return -ENODEV;
	WRITE_ONCE(devmem->suspending, true);
	hmm_devmem_wait_for_intake(devmem);
	if (hmm_devmem_evict_all(devmem, &left)) {
		ret = READ_ONCE(devmem->dead) ? -ENODEV : suspend_errno(&left);
		hmm_devmem_alloc_thaw(devmem->alloc);
		dev_warn(devmem->device,
			 "cannot be suspended: pages left: %lu busy, %lu without system memory, %lu not copied\n",
			 left.busy, left.no_memory, left.not_copied);
	}
	WRITE_ONCE(devmem->suspending, false);
	devmem->suspended = !ret;
	return ret;
}

/**
 * hmm_devmem_suspend() - Get ready for the device to lose its memory
 * @devmem: A managed devmem. Nothing happens if it is suspended already.
 *
 * Brings all pages home. Until hmm_devmem_resume(), migrations to the device fail
 * with -EAGAIN and hmm_devmem_alloc_folio() returns NULL. To be called when the
 * device still works, from a PM callback or wherever a driver is about to reset
 * the device.
 *
 * Context: Process context, may sleep. Takes folio locks; as for
 * hmm_devmem_remove(), the caller has no lock that a callback of the driver
 * takes. User processes can be frozen.
 * Return:
 * * %0 - there is no data on the device
 * * %-EBUSY - pages are locked or referenced, and were for a second
 * * %-ENOMEM - there is no system memory for them
 * * %-EIO - the device did not copy them
 * * %-ENODEV - the device is dead or being removed
 * * %-EOPNOTSUPP - @devmem is classic
 *
 * A runtime_suspend callback must not return all of these: the PM core takes what
 * is neither -EBUSY nor -EAGAIN for an error that lasts, and never resumes the
 * device again. Let it return -EBUSY.
 *
 * Who suspends a devmem for two reasons, system sleep and idleness, resumes it when
 * neither is left: suspends are not counted.
 *
 * When the result is an errno the devmem is not suspended: pages that have come
 * home stay there, and migrations to the device are possible.
 */
int hmm_devmem_suspend(struct hmm_devmem *devmem)
{
	int ret;

	might_sleep();
	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	if (!hmm_devmem_tryget_live(devmem))
		return -ENODEV;
	scoped_guard(mutex, &devmem->suspend_lock)
		ret = devmem->suspended ? 0 : suspend_locked(devmem);
	trace_hmm_devmem_suspend(devmem, ret);
	hmm_devmem_put(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_suspend);

/**
 * hmm_devmem_resume() - The device has memory again
 * @devmem: The device memory. Nothing happens if it is not suspended.
 *
 * What was on the device before does not go there by itself.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_resume(struct hmm_devmem *devmem)
{
	if (!hmm_devmem_managed(devmem))
		return;
	guard(mutex)(&devmem->suspend_lock);
	if (devmem->suspended)
		hmm_devmem_alloc_thaw(devmem->alloc);
	devmem->suspended = false;
}
EXPORT_SYMBOL_GPL(hmm_devmem_resume);

/**
 * hmm_devmem_mark_dead() - The device is gone for good
 * @devmem: The device memory.
 *
 * From now on no copy callback is called: CPU faults give SIGBUS, migrations to
 * the device fail with -ENODEV, and hmm_devmem_remove(), which is still needed,
 * does not try to save anything. A copy callback that returns -ENODEV has the
 * same effect.
 *
 * Context: Any context.
 */
void hmm_devmem_mark_dead(struct hmm_devmem *devmem)
{
	if (!xchg(&devmem->dead, true))
		dev_err(devmem->device, "device memory is gone\n");
}
EXPORT_SYMBOL_GPL(hmm_devmem_mark_dead);
