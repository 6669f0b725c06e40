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
 * With %HMM_DEVMEM_RUNTIME_PM the devmem keeps its device on while pages are in use.
 * To resume it where it is needed, in a CPU fault or an eviction, would be to wait for
 * the driver with the mmap lock and folios locked; what the driver locks to resume it
 * may also lock around accesses to user memory, which wait for those. A migration to
 * the device can resume it before it takes a lock, and all other copies are made
 * from pages in use. That there are none any more is not noticed by who frees the
 * last one, which is to be cheap, but by a worker that looks twice a second.
 *
 * The device is therefore not suspended by runtime power management when processes
 * have memory there, however idle it is. A driver that knows that the device is idle,
 * and wants it off, evicts all of its pages.
 *
 * A device is *dead* when a copy callback has said -ENODEV, or the driver has
 * called hmm_devmem_mark_dead(). Nothing is copied any more, the data on it is
 * lost, and removal does not wait for what cannot come. Memory that the CPU could
 * still address is unmapped soon, by a worker (see Lost memory).
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/pm_runtime.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

/* How often it is looked whether a device that is on is needed. */
#define HMM_DEVMEM_POWER_INTERVAL	(HZ / 2)

static void power_off(struct hmm_devmem *devmem)
{
	pm_runtime_mark_last_busy(devmem->device);
	pm_runtime_put_autosuspend(devmem->device);
}

static bool power_is_needed(struct hmm_devmem *devmem)
{
	lockdep_assert_held(&devmem->power_lock);

	if (devmem->power_users)
		return true;
	/* Nothing is copied from a dead one. */
	return !READ_ONCE(devmem->dead) && hmm_devmem_alloc_any_used(devmem->alloc);
}

static void power_work(struct work_struct *work)
{
	struct hmm_devmem *devmem =
		container_of(to_delayed_work(work), struct hmm_devmem,
			     power_work);
	bool needed;

	scoped_guard(spinlock, &devmem->power_lock) {
		needed = power_is_needed(devmem);
		devmem->powered = needed;
	}
	if (needed)
		queue_delayed_work(system_dfl_wq, &devmem->power_work,
				   HMM_DEVMEM_POWER_INTERVAL);
	else
		power_off(devmem);
}

static int power_on(struct hmm_devmem *devmem)
{
	bool first;
	int ret;

	/* Waits for a suspend that is under way: its end is what is wanted. */
	ret = pm_runtime_resume_and_get(devmem->device);
	if (ret)
		return ret;
	scoped_guard(spinlock, &devmem->power_lock) {
		first = !devmem->powered;
		devmem->powered = true;
	}
	if (first)
		queue_delayed_work(system_dfl_wq, &devmem->power_work,
				   HMM_DEVMEM_POWER_INTERVAL);
	else
		power_off(devmem);
	return 0;
}

/* The migrations to the device that are under way end, and their pages go with all else. */
static void dead_work(struct work_struct *work)
{
	struct hmm_devmem *devmem = container_of(work, struct hmm_devmem, dead_work);

	hmm_devmem_wait_for_intake(devmem);
	hmm_devmem_unmap_lost(devmem);
}

/**
 * hmm_devmem_power_init() - Set up what this file needs
 * @devmem: The device memory.
 *
 * Context: Any context.
 */
void hmm_devmem_power_init(struct hmm_devmem *devmem)
{
	spin_lock_init(&devmem->power_lock);
	INIT_DELAYED_WORK(&devmem->power_work, power_work);
	INIT_WORK(&devmem->dead_work, dead_work);
}

/**
 * hmm_devmem_power_get() - Resume the device for a migration, if that is wanted
 * @devmem: The device memory.
 *
 * From now on it stays on until hmm_devmem_power_put() has been called and no page is
 * in use any more, or until it is removed.
 *
 * Context: Process context, may sleep. The caller has nothing that a suspend or a
 * removal waits for, no mmap lock and no folio locked.
 * Return: 0, -ENODEV if @devmem is being removed, or what the driver says when it is
 * to resume the device.
 */
int hmm_devmem_power_get(struct hmm_devmem *devmem)
{
	bool powered;
	int ret;

	if (!(devmem->flags & HMM_DEVMEM_RUNTIME_PM))
		return 0;
	/* Else the device can be gone. */
	if (!hmm_devmem_ref_tryget_live(devmem))
		return -ENODEV;
	scoped_guard(spinlock, &devmem->power_lock) {
		devmem->power_users++;
		powered = devmem->powered;
	}
	ret = powered ? 0 : power_on(devmem);
	if (ret)
		hmm_devmem_power_put(devmem);
	hmm_devmem_ref_put(devmem);
	return ret;
}

/**
 * hmm_devmem_power_put() - A migration is over
 * @devmem: The device memory; can have been removed.
 *
 * Context: Process context.
 */
void hmm_devmem_power_put(struct hmm_devmem *devmem)
{
	if (!(devmem->flags & HMM_DEVMEM_RUNTIME_PM))
		return;
	guard(spinlock)(&devmem->power_lock);
	devmem->power_users--;
}

/**
 * hmm_devmem_power_release() - The device is not needed any more at all
 * @devmem: The device memory; removal is waiting for nobody any more.
 *
 * Nothing of this file works on @devmem by itself any more after this.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_power_release(struct hmm_devmem *devmem)
{
	cancel_work_sync(&devmem->dead_work);
	cancel_delayed_work_sync(&devmem->power_work);
	if (devmem->powered)
		power_off(devmem);
	devmem->powered = false;
}

static int suspend_errno(const struct hmm_devmem_left *left)
{
	if (fatal_signal_pending(current))
		return -EINTR;
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
	hmm_devmem_wait_for_intake(devmem);
	if (hmm_devmem_evict_all(devmem, true, &left)) {
		ret = READ_ONCE(devmem->dead) ? -ENODEV : suspend_errno(&left);
		hmm_devmem_alloc_thaw(devmem->alloc);
		dev_warn(devmem->device,
			 "cannot be suspended: pages left: %lu busy, %lu without system memory, %lu not copied\n",
			 left.busy, left.no_memory, left.not_copied);
	}
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
 * * %-EBUSY - pages are locked or referenced, and were for a second after the last
 *   page that came home, or for ten seconds
 * * %-ENOMEM - there is no system memory for them
 * * %-EIO - the device did not copy them, or they could not be mapped for it
 * * %-EINTR - the caller is being killed, perhaps while it waited for another suspend
 * * %-ENODEV - the device is dead or being removed
 * * %-EOPNOTSUPP - @devmem is classic
 *
 * A runtime_suspend callback that calls this must not return all of these: the PM
 * core takes what is neither -EBUSY nor -EAGAIN for an error that lasts, and never
 * resumes the device again. Let it return -EBUSY.
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
	if (!hmm_devmem_ref_tryget_live(devmem))
		return -ENODEV;
	/* Another suspend holds it for as long as it takes to evict all pages. */
	ret = mutex_lock_killable(&devmem->suspend_lock);
	if (!ret) {
		ret = devmem->suspended ? 0 : suspend_locked(devmem);
		mutex_unlock(&devmem->suspend_lock);
	}
	trace_hmm_devmem_suspend(devmem, ret);
	hmm_devmem_ref_put(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_suspend);

/**
 * hmm_devmem_resume() - The device has memory again
 * @devmem: The device memory. Nothing happens if it is not suspended, or removed.
 *
 * What was on the device before does not go there by itself.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_resume(struct hmm_devmem *devmem)
{
	if (!hmm_devmem_managed(devmem) || !hmm_devmem_ref_tryget_live(devmem))
		return;
	scoped_guard(mutex, &devmem->suspend_lock) {
		if (devmem->suspended)
			hmm_devmem_alloc_thaw(devmem->alloc);
		devmem->suspended = false;
	}
	hmm_devmem_ref_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_resume);

/**
 * hmm_devmem_mark_dead() - The device is gone for good
 * @devmem: The device memory. Nothing happens if it is removed.
 *
 * From now on no copy callback is called: CPU faults give SIGBUS, migrations to
 * the device fail with -ENODEV, and hmm_devmem_remove(), which is still needed,
 * does not try to save anything. A copy callback that returns -ENODEV has the
 * same effect. Of MEMORY_DEVICE_COHERENT, which the CPU can address, all that
 * processes have mapped is unmapped by a worker; then an access gives SIGBUS, too.
 *
 * Context: Any context.
 */
void hmm_devmem_mark_dead(struct hmm_devmem *devmem)
{
	/* The device can be gone altogether once the memory is removed. */
	if (!hmm_devmem_ref_tryget(devmem))
		return;
	if (!xchg(&devmem->dead, true)) {
		dev_err(devmem->device, "device memory is gone\n");
		if (devmem->type == MEMORY_DEVICE_COHERENT)
			queue_work(system_dfl_wq, &devmem->dead_work);
	}
	hmm_devmem_ref_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_mark_dead);
