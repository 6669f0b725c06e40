// SPDX-License-Identifier: GPL-2.0
/*
 * Runtime power management, and devices that are dead.
 */

/**
 * DOC: Power
 *
 * With %HMM_DEVMEM_RUNTIME_PM the devmem keeps its device on while pages are in use, by a
 * runtime PM reference. So CPU faults and evictions, which copy pages in use, need not
 * resume the device. They could not: they hold the mmap lock or folio locks, and the
 * driver's resume callback may take locks that the driver also holds when it accesses user
 * memory, which waits for those. A migration to the device resumes it before it takes
 * any lock. Freeing the last page must be cheap, so a worker checks twice a second
 * whether a page is still in use.
 *
 * The device is therefore not suspended by runtime power management when processes
 * have memory there, however idle it is. A driver that knows that the device is idle,
 * and wants it off, evicts all of its pages.
 *
 * A device is *dead* when a copy callback has said -ENODEV, or the driver has called
 * hmm_devmem_mark_dead(). No page is copied any more, the data on the device is
 * lost, and removal does not wait for pages that cannot come back. A worker soon
 * unmaps memory that the CPU could still address (see Lost memory).
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/lockdep.h>
#include <linux/pm_runtime.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "devmem.h"
#include "poison.h"
#include "pool.h"
#include "power.h"

/* How often the worker checks whether the device must stay on. */
#define HMM_DEVMEM_POWER_INTERVAL	(HZ / 2)

/* Drop a runtime PM reference, so that the device can suspend if it was the last. */
static void power_off(struct hmm_devmem *devmem)
{
	pm_runtime_mark_last_busy(devmem->device);
	pm_runtime_put_autosuspend(devmem->device);
}

static bool power_is_needed(struct hmm_devmem *devmem)
{
	lockdep_assert_held(&priv(devmem)->power_lock);

	if (priv(devmem)->power_users)
		return true;
	/* No page is copied from a dead device, so it need not be on. */
	return !READ_ONCE(priv(devmem)->dead) && hmm_devmem_pool_any_used(priv(devmem)->pool);
}

static void power_work(struct work_struct *work)
{
	struct hmm_devmem *devmem =
		&container_of(to_delayed_work(work), struct hmm_devmem_priv,
			      power_work)->pub;
	bool needed;

	scoped_guard(spinlock, &priv(devmem)->power_lock) {
		needed = power_is_needed(devmem);
		priv(devmem)->powered = needed;
	}
	if (needed)
		queue_delayed_work(system_dfl_wq, &priv(devmem)->power_work,
				   HMM_DEVMEM_POWER_INTERVAL);
	else
		power_off(devmem);
}

/* Resume the device, and keep a runtime PM reference if the devmem has none yet. */
static int power_on(struct hmm_devmem *devmem)
{
	bool first;
	int ret;

	/* Waits for the end of a suspend that is under way, and resumes after it. */
	ret = pm_runtime_resume_and_get(devmem->device);
	if (ret)
		return ret;
	scoped_guard(spinlock, &priv(devmem)->power_lock) {
		first = !priv(devmem)->powered;
		priv(devmem)->powered = true;
	}
	if (first)
		queue_delayed_work(system_dfl_wq, &priv(devmem)->power_work,
				   HMM_DEVMEM_POWER_INTERVAL);
	else
		power_off(devmem);
	return 0;
}

/* Waits for migrations to the device that have begun, to unmap their pages as well. */
static void dead_work(struct work_struct *work)
{
	struct hmm_devmem *devmem = &container_of(work, struct hmm_devmem_priv, dead_work)->pub;

	hmm_devmem_wait_for_intake(devmem);
	hmm_devmem_unmap_lost(devmem);
}

/**
 * hmm_devmem_power_init() - Set up a devmem's lock and workers for power
 * @devmem: The device memory.
 *
 * Context: Any context.
 */
void hmm_devmem_power_init(struct hmm_devmem *devmem)
{
	spin_lock_init(&priv(devmem)->power_lock);
	INIT_DELAYED_WORK(&priv(devmem)->power_work, power_work);
	INIT_WORK(&priv(devmem)->dead_work, dead_work);
}

/**
 * hmm_devmem_power_get() - Resume the device for a migration
 * @devmem: The device memory. Without %HMM_DEVMEM_RUNTIME_PM nothing happens.
 *
 * From now on the device stays on until hmm_devmem_power_put() has been called and
 * no page is in use any more, or until @devmem is removed.
 *
 * Context: Process context, may sleep. The caller holds nothing that a suspend or a
 * removal waits for, no mmap lock and no folio lock.
 * Return: 0, -ENODEV if @devmem is being removed, or the errno of
 * pm_runtime_resume_and_get().
 */
int hmm_devmem_power_get(struct hmm_devmem *devmem)
{
	bool powered;
	int ret;

	if (!(priv(devmem)->flags & HMM_DEVMEM_RUNTIME_PM))
		return 0;
	/* Without a reference, the device could be removed. */
	if (!hmm_devmem_ref_tryget_live(devmem))
		return -ENODEV;
	scoped_guard(spinlock, &priv(devmem)->power_lock) {
		priv(devmem)->power_users++;
		powered = priv(devmem)->powered;
	}
	ret = powered ? 0 : power_on(devmem);
	if (ret)
		hmm_devmem_power_put(devmem);
	hmm_devmem_ref_put(devmem);
	return ret;
}

/**
 * hmm_devmem_power_put() - Undo hmm_devmem_power_get()
 * @devmem: The device memory; can have been removed.
 *
 * Context: Process context.
 */
void hmm_devmem_power_put(struct hmm_devmem *devmem)
{
	if (!(priv(devmem)->flags & HMM_DEVMEM_RUNTIME_PM))
		return;
	guard(spinlock)(&priv(devmem)->power_lock);
	priv(devmem)->power_users--;
}

/**
 * hmm_devmem_power_release() - Drop what keeps the device on, since it is being removed
 * @devmem: The device memory; no copy callback runs or will run.
 *
 * No worker uses @devmem after this.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_power_release(struct hmm_devmem *devmem)
{
	cancel_work_sync(&priv(devmem)->dead_work);
	cancel_delayed_work_sync(&priv(devmem)->power_work);
	if (priv(devmem)->powered)
		power_off(devmem);
	priv(devmem)->powered = false;
}

/**
 * hmm_devmem_mark_dead() - Note that the device is gone for good
 * @devmem: The device memory. Nothing happens if it was removed.
 *
 * From now on no copy callback is called: CPU faults give SIGBUS, migrations to the
 * device fail with -ENODEV, and hmm_devmem_remove(), which is still needed, does not
 * try to save anything. A copy callback that returns -ENODEV has the same effect.
 * For MEMORY_DEVICE_COHERENT, which the CPU can address, a worker unmaps all pages
 * that processes have mapped; then an access gives SIGBUS, too.
 *
 * Context: Any context.
 */
void hmm_devmem_mark_dead(struct hmm_devmem *devmem)
{
	/* After the removal, the struct device can be freed. */
	if (!hmm_devmem_ref_tryget(devmem))
		return;
	if (!xchg(&priv(devmem)->dead, true)) {
		dev_err(devmem->device, "device memory is gone\n");
		if (devmem->type == MEMORY_DEVICE_COHERENT)
			queue_work(system_dfl_wq, &priv(devmem)->dead_work);
	}
	hmm_devmem_ref_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_mark_dead);
