// SPDX-License-Identifier: GPL-2.0
/*
 * Takes the library's locks once at boot, in the order of "DOC: Locking", so that
 * lockdep knows the order before there is a device. A driver that takes them, or its
 * own locks around them, in another order is then reported the first time, not when
 * both orders have been seen.
 */
#include <linux/init.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/percpu-rwsem.h>
#include <linux/range.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>
#include <linux/spinlock.h>

#include "backing.h"
#include "devmem.h"
#include "mirror.h"
#include "pool.h"
#include "reclaim.h"
#include "segment.h"

/* Any pfn that a block begins with: the devmem gets no struct pages. */
#define LOCKDEP_PFN	HMM_DEVMEM_BLOCK_NR

static struct hmm_devmem * __init create_without_memory(void)
{
	static const struct hmm_devmem_ops no_ops;
	const struct hmm_devmem_desc desc = {
		.ops = &no_ops,
		.type = MEMORY_DEVICE_PRIVATE,
	};
	struct hmm_devmem *devmem;

	devmem = hmm_devmem_create(NULL, &desc);
	if (!devmem)
		return NULL;
	devmem->pfn_first = LOCKDEP_PFN;
	devmem->pfn_last = LOCKDEP_PFN + HMM_DEVMEM_BLOCK_NR;
	if (hmm_devmem_segments_init(devmem, HMM_DEVMEM_LAZY))
		goto err_put;
	priv(devmem)->pool = hmm_devmem_pool_create(devmem->pfn_first,
						    HMM_DEVMEM_BLOCK_NR,
						    HMM_DEVMEM_BLOCK_ORDER,
						    HMM_DEVMEM_BLOCK_ORDER);
	priv(devmem)->hold = hmm_devmem_hold_create(1);
	priv(devmem)->backing = hmm_devmem_backing_create(1, 0);
	if (!priv(devmem)->pool || !priv(devmem)->hold || !priv(devmem)->backing)
		goto err_put;
	return devmem;

err_put:
	kref_put(&priv(devmem)->kref, hmm_devmem_release);
	return NULL;
}

/* The lock of a mirror, which notifiers take: no allocation under it may wait. */
static void __init take_mirror_lock(void)
{
#ifdef CONFIG_HMM_DEVMEM_MIRROR
	struct hmm_devmem_mirror m;

	hmm_devmem_mirror_init_locks(&m);
	mutex_lock(&m.lock);
	mutex_unlock(&m.lock);
	mutex_destroy(&m.lock);
#endif
}

/* Device faults that migrate or walk. */
static void __init fault_in_order(struct mm_struct *mm)
{
#ifdef CONFIG_HMM_DEVMEM_MIRROR
	struct hmm_devmem_mirror m;

	hmm_devmem_mirror_init_locks(&m);
	down_read(&m.turn);
	mmap_read_lock(mm);
	mmap_read_unlock(mm);
	up_read(&m.turn);
	mutex_destroy(&m.lock);
#endif
}

/*
 * A driver can withdraw blocks in memory reclaim; the pool gives them up under its locks.
 * This allocation takes those locks and fails: there are no pages.
 */
static void __init withdraw_in_order(struct hmm_devmem *devmem)
{
	unsigned long pfn;

	hmm_devmem_hold_skip(priv(devmem)->hold, 0);
	mutex_lock(&priv(devmem)->backing->lock);
	WARN_ON_ONCE(!hmm_devmem_pool_alloc(priv(devmem)->pool, 0, &pfn));
	mutex_unlock(&priv(devmem)->backing->lock);
}

/* All locks that are held around a migration, and what it may wait for. */
static void __init take_in_order(struct hmm_devmem *devmem, struct mm_struct *mm)
{
	const struct range nowhere = { };
	unsigned long pfn;

	mutex_lock(&priv(devmem)->suspend_lock);
	down_read(&priv(devmem)->segments_lock);
	hmm_devmem_range_has_segment(&nowhere);
	mmap_read_lock(mm);
	percpu_down_read(&priv(devmem)->intake);

	/* Callbacks may allocate memory, notifiers are called from reclaim ... */
	fs_reclaim_acquire(GFP_KERNEL);
	withdraw_in_order(devmem);
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	/* ... and both free pages. This allocation fails: there are no pages. */
	WARN_ON_ONCE(!hmm_devmem_pool_alloc(priv(devmem)->pool, 0, &pfn));
	take_mirror_lock();
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
	fs_reclaim_release(GFP_KERNEL);

	percpu_up_read(&priv(devmem)->intake);
	mmap_read_unlock(mm);
	up_read(&priv(devmem)->segments_lock);
	mutex_unlock(&priv(devmem)->suspend_lock);
}

/* hmm_devmem_alloc_folio() holds the first lock, and may have to create struct pages. */
static void __init grow_in_order(struct hmm_devmem *devmem)
{
	percpu_down_read(&priv(devmem)->handout);
	down_read(&priv(devmem)->segments_lock);
	up_read(&priv(devmem)->segments_lock);
	percpu_up_read(&priv(devmem)->handout);
}

/* The worker that switches the device off asks the pool whether pages are in use. */
static void __init power_in_order(struct hmm_devmem *devmem)
{
	unsigned long pfn;

	spin_lock(&priv(devmem)->power_lock);
	WARN_ON_ONCE(!hmm_devmem_pool_alloc(priv(devmem)->pool, 0, &pfn));
	spin_unlock(&priv(devmem)->power_lock);
}

static int __init hmm_devmem_lockdep(void)
{
	struct hmm_devmem *devmem = create_without_memory();
	struct mm_struct *mm = mm_alloc();

	if (devmem && mm) {
		fault_in_order(mm);
		take_in_order(devmem, mm);
		grow_in_order(devmem);
		power_in_order(devmem);
	}
	if (mm)
		mmput(mm);
	if (devmem)
		kref_put(&priv(devmem)->kref, hmm_devmem_release);
	return devmem && mm ? 0 : -ENOMEM;
}
late_initcall(hmm_devmem_lockdep);
