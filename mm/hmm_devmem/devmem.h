/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A devmem as the library sees it: what all files of the library use.
 */
#ifndef _MM_HMM_DEVMEM_DEVMEM_H
#define _MM_HMM_DEVMEM_DEVMEM_H

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/container_of.h>
#include <linux/hmm_devmem.h>
#include <linux/kref.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu-refcount.h>
#include <linux/percpu-rwsem.h>
#include <linux/rwsem.h>
#include <linux/seqlock.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct dentry;
struct device;
struct hmm_devmem_backing;
struct hmm_devmem_hold;
struct hmm_devmem_pool;
struct hmm_devmem_segment;
struct hmm_devmem_stats_pcpu;
struct shrinker;
struct task_struct;

/*
 * Large device folios have the size that a page table maps with one PMD entry, the
 * only size of large folio that core migrates as a whole. Without transparent huge
 * pages blocks have 512 pages, so that the pool works in the same way.
 */
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
#define HMM_DEVMEM_BLOCK_ORDER	HPAGE_PMD_ORDER
#else
#define HMM_DEVMEM_BLOCK_ORDER	9
#endif
#define HMM_DEVMEM_BLOCK_NR	BIT(HMM_DEVMEM_BLOCK_ORDER)
#define HMM_DEVMEM_BLOCK_SIZE	(HMM_DEVMEM_BLOCK_NR << PAGE_SHIFT)

/**
 * struct hmm_devmem_priv - what the library knows of a devmem
 * @pub: What drivers see of it; see there.
 * @intake: A rwsem, see DOC: Locking: held for reading while pages are migrated to the
 *	device.
 * @handout: A rwsem as well: hmm_devmem_alloc_folio() holds it for reading while it turns
 *	free pages into folios.
 * @handles: References to this structure. Needs no lock.
 * @kref: References to the range. Needs no lock.
 * @ref: Held around every callback into the driver but kill, cleanup, and put_block during
 *	a removal. hmm_devmem_remove() waits for it to fall to zero before it calls
 *	&hmm_devmem_ops.cleanup. Needs no lock.
 * @idle: Completed when @ref has fallen to zero. Has a lock of its own.
 * @remover: The task that removes the devmem, or did. Changed once, by cmpxchg().
 * @removed: Completed when that task has finished. Has a lock of its own.
 * @segments_lock: A rwsem, see DOC: Locking: protects @segments, @ending and
 *	@nr_populated.
 * @segments: The segments, by number; NULL for those without struct pages. The segment
 *	of a page that the caller has allocated needs no lock.
 * @ending: A bit for each segment whose struct pages are being removed. Set under
 *	@segments_lock, cleared atomically.
 * @nr_ending: Number of bits set in @ending. Changed atomically.
 * @nr_segments: Size of @segments. Set by the add.
 * @nr_populated: Number of @segments that are not NULL. A hint without the lock.
 * @segments_seq: Odd while the pool gets or loses the pages of a segment. Changed under
 *	@segments_lock.
 * @segment_shift: Pages of a segment, log2. Set by the add.
 * @nid: NUMA node of the struct pages. Set by the add.
 * @shrink_work: Takes away segments that are empty. Needs no lock.
 * @shrinker: Wakes @shrink_work when memory is short. Set by the add; freed by removal.
 * @pool: The pages; NULL for a classic driver. Set by the add. Has locks of its own.
 * @stats: Counters, of which each CPU changes its own.
 * @debugfs: The devmem's directory in debugfs. Set by the add, removed by removal, which
 *	begins after the add has ended.
 * @dma_device: With %HMM_DEVMEM_DMA, the device that does the DMA. Set by the add.
 * @dma_max_pfn: max_pfn when @ram_gfp was chosen. Needs no lock: all tasks that find a
 *	larger max_pfn write the same values.
 * @ram_gfp: How to allocate system memory for pages that are brought back. Changed
 *	together with @dma_max_pfn.
 * @flags: HMM_DEVMEM_*. %HMM_DEVMEM_SHARED comes with %HMM_DEVMEM_LAZY. Set by the add.
 * @fail_next: For tests: a bit for each &enum hmm_devmem_fail; the first of these steps
 *	that is tried fails. Set without a lock, cleared by cmpxchg().
 * @backing: The owner of each block; NULL without %HMM_DEVMEM_SHARED. Set by the add. Has a
 *	lock of its own.
 * @hold: The policy of eviction; NULL without %HMM_DEVMEM_RECLAIM. Set by the add. Has a
 *	lock of its own.
 * @reclaim_hand: The block that is tried next if the policy's blocks cannot be evicted.
 *	A hint, without a lock.
 * @suspend_lock: A mutex, see DOC: Locking: held by suspend and resume; protects
 *	@suspended.
 * @max_run: Pages of a run, at most, because of the DMA mapping. Set by the add.
 * @gone: No callback but put_block and cleanup is called any more. Set once, by removal,
 *	after all callbacks have returned.
 * @has_free: The library must look at pages that are freed: the driver has a free
 *	callback, or is gone. Set by the add, and by removal when nothing can be allocated.
 * @shrink_now: @shrink_work is to take away all empty segments. Set by the shrinker without
 *	a lock, cleared by @shrink_work with xchg().
 * @dead: The device is gone: no page is copied any more. Set once, by xchg().
 * @suspended: The devmem is suspended. Protected by @suspend_lock.
 * @powered: The devmem has a runtime PM reference, which keeps its device on. Protected
 *	by @power_lock.
 * @power_users: Number of migrations that need the device on. Protected by @power_lock.
 * @power_lock: A spinlock, see DOC: Locking.
 * @power_work: Drops the runtime PM reference when no migration and no page in use needs
 *	the device on. Needs no lock.
 * @dead_work: Unmaps memory of a dead device that the CPU can address. Needs no lock.
 */
struct hmm_devmem_priv {
	struct hmm_devmem pub;
	struct percpu_rw_semaphore intake;
	struct percpu_rw_semaphore handout;
	struct kref handles;
	struct kref kref;
	struct percpu_ref ref;
	struct completion idle;
	struct task_struct *remover;
	struct completion removed;
	struct rw_semaphore segments_lock;
	struct hmm_devmem_segment **segments;
	unsigned long *ending;
	atomic_t nr_ending;
	unsigned int nr_segments;
	unsigned int nr_populated;
	seqcount_t segments_seq;
	unsigned int segment_shift;
	int nid;
	struct delayed_work shrink_work;
	struct shrinker *shrinker;
	struct hmm_devmem_pool *pool;
	struct hmm_devmem_stats_pcpu __percpu *stats;
	struct dentry *debugfs;
	struct device *dma_device;
	unsigned long dma_max_pfn;
	gfp_t ram_gfp;
	unsigned long flags;
	unsigned long fail_next;
	struct hmm_devmem_backing *backing;
	struct hmm_devmem_hold *hold;
	u32 reclaim_hand;
	struct mutex suspend_lock;	/* see above */
	unsigned int max_run;
	bool gone;
	bool has_free;
	bool shrink_now;
	bool dead;
	bool suspended;
	bool powered;
	unsigned int power_users;
	spinlock_t power_lock;	/* see above */
	struct delayed_work power_work;
	struct work_struct dead_work;
};

/* The library's view of a devmem. */
#define priv(devmem)	container_of_const(devmem, struct hmm_devmem_priv, pub)

static inline bool hmm_devmem_has_pfn(const struct hmm_devmem *devmem,
				      unsigned long pfn)
{
	return pfn >= devmem->pfn_first && pfn < devmem->pfn_last;
}

/* Number of the block of @pfn, counted from the block of the first pfn. */
static inline unsigned long
hmm_devmem_block_index(const struct hmm_devmem *devmem, unsigned long pfn)
{
	return (pfn >> HMM_DEVMEM_BLOCK_ORDER) -
	       (devmem->pfn_first >> HMM_DEVMEM_BLOCK_ORDER);
}

static inline u32 hmm_devmem_nr_blocks(const struct hmm_devmem *devmem)
{
	return hmm_devmem_block_index(devmem, devmem->pfn_last - 1) + 1;
}

/* Note a folio in a bitmap that has a bit for each page of @devmem. */
static inline void hmm_devmem_note_pages(const struct hmm_devmem *devmem,
					 unsigned long *pages,
					 unsigned long pfn, unsigned int nr)
{
	const unsigned long first = pfn - devmem->pfn_first;

	bitmap_set(pages + BIT_WORD(first), first % BITS_PER_LONG, nr);
}

static inline bool hmm_devmem_ops_managed(const struct hmm_devmem_ops *ops)
{
	return ops->copy_to_device && ops->copy_to_ram;
}

static inline bool hmm_devmem_managed(const struct hmm_devmem *devmem)
{
	return priv(devmem)->pool;
}

/*
 * Keep removal from calling cleanup, and so the driver from going away. False if all such
 * references were dropped after the start of a removal.
 */
static inline bool hmm_devmem_ref_tryget(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget(&priv(devmem)->ref);
}

/*
 * The same, but false as soon as removal waits for references: tasks that take new ones
 * again and again could keep it waiting for ever.
 */
static inline bool hmm_devmem_ref_tryget_live(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget_live(&priv(devmem)->ref);
}

static inline void hmm_devmem_ref_put(struct hmm_devmem *devmem)
{
	percpu_ref_put(&priv(devmem)->ref);
}

/*
 * Wait for migrations to the device that have begun. The caller has stopped
 * allocation, so that no more can begin.
 */
static inline void hmm_devmem_wait_for_intake(struct hmm_devmem *devmem)
{
	percpu_down_write(&priv(devmem)->intake);
	percpu_up_write(&priv(devmem)->intake);
}

/*
 * Wait until hmm_devmem_alloc_folio() has made folios of all pages that it has taken
 * from the pool. The caller has stopped allocation, so that it takes no more.
 */
static inline void hmm_devmem_wait_for_handout(struct hmm_devmem *devmem)
{
	percpu_down_write(&priv(devmem)->handout);
	percpu_up_write(&priv(devmem)->handout);
}

struct hmm_devmem *hmm_devmem_create(struct device *device,
				     const struct hmm_devmem_desc *desc);
void hmm_devmem_release(struct kref *kref);

#endif /* _MM_HMM_DEVMEM_DEVMEM_H */
