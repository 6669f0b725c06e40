// SPDX-License-Identifier: GPL-2.0
/*
 * Suspend and resume of devices whose memory loses its content while they are suspended.
 */

/**
 * DOC: Suspend
 *
 * Suspend is eviction: hmm_devmem_suspend() refuses new device pages, waits for
 * migrations that are under way, and brings all pages back to system memory. When it has
 * succeeded no data of a process is on the device, so no CPU fault needs the device, and no
 * data is lost with the content of its memory. When it fails the devmem works as before,
 * and the driver must not suspend the device.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>

#include <trace/events/hmm_devmem.h>

#include "backing.h"
#include "devmem.h"
#include "evict.h"
#include "pool.h"

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

	if (READ_ONCE(priv(devmem)->dead) || !hmm_devmem_pool_freeze(priv(devmem)->pool))
		return -ENODEV;
	hmm_devmem_wait_for_intake(devmem);
	if (hmm_devmem_evict_all(devmem, true, &left)) {
		ret = READ_ONCE(priv(devmem)->dead) ? -ENODEV : suspend_errno(&left);
		hmm_devmem_pool_thaw(priv(devmem)->pool);
		dev_warn(devmem->device,
			 "cannot be suspended: pages left: %lu busy, %lu without system memory, %lu not copied\n",
			 left.busy, left.no_memory, left.not_copied);
	}
	if (!ret)
		hmm_devmem_backing_put_all(devmem);
	priv(devmem)->suspended = !ret;
	return ret;
}

/**
 * hmm_devmem_suspend() - Get ready for the device to lose its memory
 * @devmem: A managed devmem. Nothing happens if it is suspended already.
 *
 * Brings all pages back to system memory. Until hmm_devmem_resume(), migrations to the
 * device fail with -EAGAIN and hmm_devmem_alloc_folio() returns NULL. The driver calls
 * it while the device still works, from a PM callback or before it resets the device.
 *
 * Context: Process context, may sleep. Takes folio locks. As for hmm_devmem_remove(), the
 * caller holds no mmap lock, no folio lock and no lock that a callback of the driver takes.
 * User processes can be frozen.
 * Return:
 * * %0 - there is no data on the device
 * * %-EBUSY - pages were still locked or referenced a second after the last page had come
 *   back, or after ten seconds
 * * %-ENOMEM - there is no system memory for pages
 * * %-EIO - the device did not copy pages, or they could not be mapped for DMA
 * * %-EINTR - the caller is being killed, perhaps while it waited for another suspend
 * * %-ENODEV - the device is dead or being removed
 * * %-EOPNOTSUPP - @devmem is classic
 *
 * A runtime_suspend callback that calls this must return -EBUSY in place of all these
 * errnos: the PM core takes each errno other than -EBUSY and -EAGAIN for a lasting error,
 * after which it neither suspends nor resumes the device.
 *
 * Suspends are not counted: a driver that suspends a devmem for two reasons, system
 * sleep and idleness, resumes it when neither is left.
 *
 * When the result is an errno the devmem is not suspended: pages that have come back
 * stay in system memory, and migrations to the device are possible.
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
	ret = mutex_lock_killable(&priv(devmem)->suspend_lock);
	if (!ret) {
		ret = priv(devmem)->suspended ? 0 : suspend_locked(devmem);
		mutex_unlock(&priv(devmem)->suspend_lock);
	}
	trace_hmm_devmem_suspend(devmem, ret);
	hmm_devmem_ref_put(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_suspend);

/**
 * hmm_devmem_resume() - Use the memory of the device again
 * @devmem: The device memory. Nothing happens if it is not suspended, or was removed.
 *
 * The library moves no pages back to the device that were there before.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_resume(struct hmm_devmem *devmem)
{
	if (!hmm_devmem_managed(devmem) || !hmm_devmem_ref_tryget_live(devmem))
		return;
	scoped_guard(mutex, &priv(devmem)->suspend_lock) {
		if (priv(devmem)->suspended)
			hmm_devmem_pool_thaw(priv(devmem)->pool);
		priv(devmem)->suspended = false;
	}
	hmm_devmem_ref_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_resume);
