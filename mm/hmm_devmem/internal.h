/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of mm/hmm_devmem/ share with each other.
 */
#ifndef _MM_HMM_DEVMEM_INTERNAL_H
#define _MM_HMM_DEVMEM_INTERNAL_H

#include <linux/align.h>
#include <linux/bitops.h>
#include <linux/dma-mapping.h>
#include <linux/fault-inject.h>
#include <linux/hmm_devmem.h>
#include <linux/list.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

/*
 * Large device folios have the size that a page table maps with one PMD entry;
 * that is all that core migrates whole. Without transparent huge pages blocks
 * are 512 pages too, so that the allocator is the same everywhere.
 */
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
#define HMM_DEVMEM_BLOCK_ORDER	HPAGE_PMD_ORDER
#else
#define HMM_DEVMEM_BLOCK_ORDER	9
#endif
#define HMM_DEVMEM_BLOCK_NR	BIT(HMM_DEVMEM_BLOCK_ORDER)

/* alloc.c */

/**
 * struct hmm_devmem_block - one block of device pages
 * @node: on &hmm_devmem_alloc.partial or &hmm_devmem_alloc.empty; on no list
 *	when no page is free, and while the block has never been used.
 * @pfn: First pfn, once it has been used.
 * @nr_used: Bits set in the block's part of &hmm_devmem_area.used.
 * @nr_lost: How many of those will never be cleared: retired pages, and pages
 *	that the device does not have (the range need not end with a block).
 */
struct hmm_devmem_block {
	struct list_head node;
	unsigned long pfn;
	unsigned int nr_used;
	unsigned int nr_lost;
};

/**
 * struct hmm_devmem_area - blocks of one contiguous range of pages
 * @node: on &hmm_devmem_alloc.fresh while there are blocks never used.
 * @base: First pfn of the first block, a multiple of the block size.
 * @nr_blocks: Number of @blocks.
 * @next_fresh: Blocks from here on were never used, but for those that have a
 *	lost page.
 * @nr_used: Sum of &hmm_devmem_block.nr_used.
 * @nr_lost: Sum of &hmm_devmem_block.nr_lost.
 * @nr_absent: How many of those the device does not have.
 * @used: One bit for each page that is allocated, cached or lost.
 * @retired: One bit for each page that is never to be handed out again, and for
 *	each that the device does not have.
 * @live: Debug only: one bit for each page that somebody has allocated.
 * @blocks: The blocks.
 *
 * All fields but @base and @nr_blocks: protected by &hmm_devmem_alloc.lock.
 */
struct hmm_devmem_area {
	struct list_head node;
	unsigned long base;
	unsigned int nr_blocks;
	unsigned int next_fresh;
	unsigned long nr_used;
	unsigned long nr_lost;
	unsigned long nr_absent;
	unsigned long *used;
	unsigned long *retired;
	unsigned long *live;
	struct hmm_devmem_block blocks[] __counted_by(nr_blocks);
};

struct hmm_devmem_pcp;

/**
 * struct hmm_devmem_alloc - allocator for pages of one devmem
 * @lock: Protects everything but the per-CPU caches; nests inside their locks.
 *	Taken with interrupts off.
 * @refused: Why nothing can be allocated, an errno, or 0.
 * @block_order: Pages of a block, log2.
 * @area_shift: Pages of an area, log2; at least @block_order.
 * @nr_areas: Number of @areas.
 * @first: First pfn.
 * @last: One past the last pfn.
 * @nr_pages: @last - @first.
 * @base: @first, rounded down to a block.
 * @partial: Blocks with free pages that are not whole.
 * @empty: Whole blocks that have been used before.
 * @fresh: Areas that have blocks never used.
 * @nr_used: Sum of &hmm_devmem_block.nr_used.
 * @nr_lost: Sum of &hmm_devmem_block.nr_lost.
 * @nr_absent: How many of those the device does not have.
 * @nr_retired: Pages that were retired, in use or not.
 * @pcp: Per-CPU caches of single pages.
 * @cpuhp: Link for CPU hotplug.
 * @areas: Populated areas; NULL where there are no struct pages (yet).
 */
struct hmm_devmem_alloc {
	spinlock_t lock;	/* see above */
	int refused;
	unsigned int block_order;
	unsigned int area_shift;
	unsigned int nr_areas;
	unsigned long first;
	unsigned long last;
	unsigned long nr_pages;
	unsigned long base;
	struct list_head partial;
	struct list_head empty;
	struct list_head fresh;
	unsigned long nr_used;
	unsigned long nr_lost;
	unsigned long nr_absent;
	unsigned long nr_retired;
	struct hmm_devmem_pcp __percpu *pcp;
	struct hlist_node cpuhp;
	struct hmm_devmem_area *areas[] __counted_by(nr_areas);
};

/**
 * struct hmm_devmem_alloc_stats - what an allocator has, in pages
 * @total: Pages in populated areas.
 * @used: Pages somebody has allocated.
 * @cached: Free pages in per-CPU caches.
 * @free: Other free pages.
 * @retired: Pages that will not be handed out again.
 */
struct hmm_devmem_alloc_stats {
	unsigned long total;
	unsigned long used;
	unsigned long cached;
	unsigned long free;
	unsigned long retired;
};

struct hmm_devmem_alloc *hmm_devmem_alloc_create(unsigned long first,
						 unsigned long nr_pages,
						 unsigned int block_order,
						 unsigned int area_shift);
void hmm_devmem_alloc_destroy(struct hmm_devmem_alloc *alloc);
int hmm_devmem_alloc_get(struct hmm_devmem_alloc *alloc, unsigned int order,
			 unsigned long *pfn);
unsigned int hmm_devmem_alloc_get_bulk(struct hmm_devmem_alloc *alloc,
				       unsigned int nr, unsigned long *pfns);
void hmm_devmem_alloc_put(struct hmm_devmem_alloc *alloc, unsigned long pfn,
			  unsigned int order);
void hmm_devmem_alloc_drain(struct hmm_devmem_alloc *alloc);
void hmm_devmem_alloc_kill(struct hmm_devmem_alloc *alloc);
bool hmm_devmem_alloc_freeze(struct hmm_devmem_alloc *alloc);
void hmm_devmem_alloc_thaw(struct hmm_devmem_alloc *alloc);
int hmm_devmem_alloc_refused(struct hmm_devmem_alloc *alloc);
void hmm_devmem_alloc_retire(struct hmm_devmem_alloc *alloc, unsigned long pfn);
bool __hmm_devmem_alloc_retired(struct hmm_devmem_alloc *alloc,
				unsigned long pfn);
unsigned int hmm_devmem_alloc_in_use(struct hmm_devmem_alloc *alloc,
				     unsigned long *pfn, unsigned long end,
				     unsigned long *pfns, unsigned int max);
unsigned int hmm_devmem_alloc_not_free(struct hmm_devmem_alloc *alloc,
				       unsigned long *pfn, unsigned long end,
				       unsigned long *pfns, unsigned int max);
void hmm_devmem_alloc_get_stats(struct hmm_devmem_alloc *alloc,
				struct hmm_devmem_alloc_stats *stats);
unsigned long hmm_devmem_alloc_used(struct hmm_devmem_alloc *alloc);
unsigned long hmm_devmem_alloc_area_used(struct hmm_devmem_alloc *alloc,
					 unsigned int idx);
int hmm_devmem_alloc_block_used(struct hmm_devmem_alloc *alloc,
				unsigned long pfn);
bool hmm_devmem_alloc_has_block(struct hmm_devmem_alloc *alloc);
int hmm_devmem_alloc_init(void);

/* Is there a page that is never to be handed out again? */
static inline bool
hmm_devmem_alloc_any_retired(const struct hmm_devmem_alloc *alloc)
{
	return unlikely(READ_ONCE(alloc->nr_retired));
}

/* Is @pfn one of those? */
static inline bool hmm_devmem_alloc_retired(struct hmm_devmem_alloc *alloc,
					    unsigned long pfn)
{
	return hmm_devmem_alloc_any_retired(alloc) &&
	       __hmm_devmem_alloc_retired(alloc, pfn);
}

/* block.c */

unsigned int hmm_devmem_block_take_run(struct hmm_devmem_alloc *alloc,
				       unsigned int max, unsigned long *pfn);
bool hmm_devmem_block_take_order(struct hmm_devmem_alloc *alloc,
				 unsigned int order, unsigned long *pfn);
void hmm_devmem_block_put(struct hmm_devmem_alloc *alloc, unsigned long pfn,
			  unsigned int order);
void hmm_devmem_block_put_bulk(struct hmm_devmem_alloc *alloc,
			       const unsigned long *pfns, unsigned int nr);
bool __hmm_devmem_block_set_live(struct hmm_devmem_alloc *alloc,
				 unsigned long pfn, unsigned int order,
				 bool live);
void hmm_devmem_block_retire(struct hmm_devmem_alloc *alloc, unsigned long pfn);
void hmm_devmem_area_free(struct hmm_devmem_area *area);
int hmm_devmem_alloc_populate(struct hmm_devmem_alloc *alloc, unsigned int idx);
int hmm_devmem_alloc_depopulate(struct hmm_devmem_alloc *alloc,
				unsigned int idx);

/*
 * Note that somebody has got pages, or freed them. False, in debug kernels, if
 * that was so already.
 */
static inline bool hmm_devmem_block_set_live(struct hmm_devmem_alloc *alloc,
					     unsigned long pfn,
					     unsigned int order, bool live)
{
	return !IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG) ||
	       __hmm_devmem_block_set_live(alloc, pfn, order, live);
}

/* segment.c */

/**
 * struct hmm_devmem_segment - a part of the range that has struct pages
 * @pagemap: What core knows of it.
 * @devmem: Whose it is; has a reference on &hmm_devmem.kref.
 * @idx: Which of &hmm_devmem.segments, and of &hmm_devmem_alloc.areas.
 * @idle: How often in a row it was found without a page in use.
 * @reaper: Gives a segment back that outlived its driver.
 * @zombie: On the list of those that did; empty before.
 */
struct hmm_devmem_segment {
	struct dev_pagemap pagemap;
	struct hmm_devmem *devmem;
	unsigned int idx;
	unsigned int idle;
	struct delayed_work reaper;
	struct list_head zombie;
};

int hmm_devmem_segments_init(struct hmm_devmem *devmem, unsigned long flags);
void hmm_devmem_segments_release(struct hmm_devmem *devmem);
int hmm_devmem_segments_grow(struct hmm_devmem *devmem);
unsigned long hmm_devmem_segment_busy(struct hmm_devmem_segment *segment);
unsigned long hmm_devmem_segments_busy(struct hmm_devmem *devmem);
struct hmm_devmem_segment *hmm_devmem_segment_at(struct hmm_devmem *devmem,
						 unsigned long pfn);
int hmm_devmem_memmap_fits(u64 size);
bool hmm_devmem_range_has_zombie(const struct range *range);
#if IS_ENABLED(CONFIG_KUNIT)
void *hmm_devmem_memremap(struct dev_pagemap *pagemap, int nid);
#endif

/* The struct dev_pagemap of a page that the caller has allocated. */
static inline struct dev_pagemap *
hmm_devmem_allocated_pagemap(struct hmm_devmem *devmem, unsigned long pfn)
{
	const unsigned long base = ALIGN_DOWN(devmem->pfn_first,
					      HMM_DEVMEM_BLOCK_NR);

	return &devmem->segments[(pfn - base) >> devmem->segment_shift]->pagemap;
}

/* More struct pages can be created. */
static inline bool hmm_devmem_can_grow(struct hmm_devmem *devmem)
{
	return READ_ONCE(devmem->nr_populated) < devmem->nr_segments;
}

/* pagemap.c */

extern const struct dev_pagemap_ops hmm_devmem_pagemap_ops;

static inline struct hmm_devmem_segment *
hmm_devmem_pagemap_segment(struct dev_pagemap *pagemap)
{
	return container_of(pagemap, struct hmm_devmem_segment, pagemap);
}

void hmm_devmem_page_drop_context(struct page *page);
struct folio *hmm_devmem_init_folio(struct hmm_devmem *devmem,
				    unsigned long pfn, unsigned int order,
				    struct hmm_devmem_context *ctx);
void hmm_devmem_init_pages(struct hmm_devmem *devmem, const unsigned long *pfns,
			   unsigned int nr, struct hmm_devmem_context *ctx);

/* core.c */

/* First those of struct hmm_devmem_stats; see there. */
enum hmm_devmem_event {
	HMM_DEVMEM_ALLOCATED,
	HMM_DEVMEM_FREED,
	HMM_DEVMEM_MOVED_TO_DEVICE,
	HMM_DEVMEM_MOVED_TO_RAM,
	HMM_DEVMEM_FAULTS,
	HMM_DEVMEM_FAULT_PAGES,
	HMM_DEVMEM_EVICTED,
	HMM_DEVMEM_COPY_ERRORS,
	HMM_DEVMEM_LOST,
	/* Pages of large folios that were allocated, and freed or split. */
	HMM_DEVMEM_LARGE_ALLOCATED,
	HMM_DEVMEM_LARGE_GONE,
	HMM_DEVMEM_NR_EVENTS,
};

struct hmm_devmem_stats_pcpu {
	unsigned long events[HMM_DEVMEM_NR_EVENTS];
};

static inline void hmm_devmem_count(struct hmm_devmem *devmem,
				    enum hmm_devmem_event event,
				    unsigned long nr)
{
	this_cpu_add(devmem->stats->events[event], nr);
}

static inline bool hmm_devmem_has_pfn(const struct hmm_devmem *devmem,
				      unsigned long pfn)
{
	return pfn >= devmem->pfn_first && pfn < devmem->pfn_last;
}

static inline bool hmm_devmem_ops_managed(const struct hmm_devmem_ops *ops)
{
	return ops->copy_to_device && ops->copy_to_ram;
}

static inline bool hmm_devmem_managed(const struct hmm_devmem *devmem)
{
	return devmem->alloc;
}

/* Keep the driver from going away; false if it has gone. */
static inline bool hmm_devmem_tryget(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget(&devmem->ref);
}

/* The same for operations that a driver asks for: not once removal ends. */
static inline bool hmm_devmem_tryget_live(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget_live(&devmem->ref);
}

static inline void hmm_devmem_put(struct hmm_devmem *devmem)
{
	percpu_ref_put(&devmem->ref);
}

/* What is on its way to the device arrives. No more can start. */
static inline void hmm_devmem_wait_for_intake(struct hmm_devmem *devmem)
{
	percpu_down_write(&devmem->intake);
	percpu_up_write(&devmem->intake);
}

struct hmm_devmem *hmm_devmem_create(struct device *device,
				     const struct hmm_devmem_desc *desc);
void hmm_devmem_release(struct kref *kref);
u64 hmm_devmem_large_pages(const struct hmm_devmem *devmem);

/* power.c */

int hmm_devmem_power_on(struct hmm_devmem *devmem, bool *powered);
int __hmm_devmem_power_get(struct hmm_devmem *devmem, bool *powered);
void hmm_devmem_power_put(struct hmm_devmem *devmem);

/* Resume the device if that is wanted; @powered: there is something to put. */
static inline int hmm_devmem_power_get(struct hmm_devmem *devmem, bool *powered)
{
	if (likely(!(devmem->flags & HMM_DEVMEM_RUNTIME_PM)))
		return 0;
	return __hmm_devmem_power_get(devmem, powered);
}

/* fail.c */

/**
 * enum hmm_devmem_fail - steps that can be made to fail
 * @HMM_DEVMEM_FAIL_DEVICE: to allocate device pages for a window
 * @HMM_DEVMEM_FAIL_DEVICE_LARGE: to allocate a large device folio
 * @HMM_DEVMEM_FAIL_RAM: to allocate a page of system memory
 * @HMM_DEVMEM_FAIL_RAM_LARGE: to allocate a large folio of system memory
 * @HMM_DEVMEM_FAIL_DMA: to map a run for DMA
 * @HMM_DEVMEM_NR_FAIL: number of those
 */
enum hmm_devmem_fail {
	HMM_DEVMEM_FAIL_DEVICE,
	HMM_DEVMEM_FAIL_DEVICE_LARGE,
	HMM_DEVMEM_FAIL_RAM,
	HMM_DEVMEM_FAIL_RAM_LARGE,
	HMM_DEVMEM_FAIL_DMA,
	HMM_DEVMEM_NR_FAIL,
};

#ifdef CONFIG_FAULT_INJECTION
extern struct fault_attr hmm_devmem_fail_attrs[HMM_DEVMEM_NR_FAIL];

bool __hmm_devmem_should_fail(struct hmm_devmem *devmem,
			      enum hmm_devmem_fail step);

/* Shall @step fail? Inline, because most kernels with this never use it. */
static inline bool hmm_devmem_should_fail(struct hmm_devmem *devmem,
					  enum hmm_devmem_fail step)
{
	if (likely(!READ_ONCE(current->fail_nth) &&
		   !READ_ONCE(devmem->fail_next) &&
		   !READ_ONCE(hmm_devmem_fail_attrs[step].probability)))
		return false;
	return __hmm_devmem_should_fail(devmem, step);
}

void hmm_devmem_fail_next(struct hmm_devmem *devmem, unsigned long steps);
void hmm_devmem_fail_debugfs_init(struct dentry *root);
#else
static inline bool hmm_devmem_should_fail(struct hmm_devmem *devmem,
					  enum hmm_devmem_fail step)
{
	return false;
}

static inline void hmm_devmem_fail_next(struct hmm_devmem *devmem,
					unsigned long steps)
{
}

static inline void hmm_devmem_fail_debugfs_init(struct dentry *root)
{
}
#endif

/* debugfs.c */

#ifdef CONFIG_DEBUG_FS
void hmm_devmem_debugfs_add(struct hmm_devmem *devmem);
void hmm_devmem_debugfs_remove(struct hmm_devmem *devmem);
void hmm_devmem_debugfs_init(void);
#else
static inline void hmm_devmem_debugfs_add(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_debugfs_remove(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_debugfs_init(void)
{
}
#endif

/* dma.c */

/**
 * struct hmm_devmem_dma - how the runs of a copy are mapped
 * @iova: One range of IOVA for all of them, where there is an IOMMU.
 * @size: How much of it is mapped, bytes.
 */
struct hmm_devmem_dma {
	struct dma_iova_state iova;
	size_t size;
};

int hmm_devmem_dma_init(struct hmm_devmem *devmem,
			const struct hmm_devmem_desc *desc);
struct hmm_devmem_txn;
bool hmm_devmem_dma_map(struct hmm_devmem_txn *txn);
void hmm_devmem_dma_unmap(struct hmm_devmem_txn *txn);

/* txn.c */

/**
 * struct hmm_devmem_txn - one transaction
 * @devmem: Whose device pages move.
 * @vma: Where they are mapped; NULL in an eviction.
 * @start: Address of the first entry, if there is a @vma.
 * @nr: Number of entries, one for each page.
 * @max: Size of the arrays.
 * @wanted: In an eviction: how many pages had a destination before the copy.
 * @short_of_memory: There was not enough device memory.
 * @no_memory: There was no system memory.
 * @must_split: What was collected as one piece must be split, and must not be
 *	as long as it is on the way.
 * @powered: The device is kept from being suspended.
 * @unmapped: Something could not be mapped for DMA.
 * @started: copy_wait() is to be called.
 * @status: What the call that starts the copy returned.
 * @src: What core has collected (MIGRATE_PFN_*).
 * @dst: Where it goes; 0 for what stays.
 * @mappings: In an eviction: what keeps core's way to the mappings alive.
 * @runs: Memory for &hmm_devmem_copy.runs.
 * @copy: What the driver gets to see.
 * @dma: How that is mapped.
 * @mig: What core works with, if there is a @vma.
 */
struct hmm_devmem_txn {
	struct hmm_devmem *devmem;
	struct vm_area_struct *vma;
	unsigned long start;
	unsigned int nr;
	unsigned int max;
	unsigned int wanted;
	bool short_of_memory;
	bool no_memory;
	bool must_split;
	bool powered;
	bool unmapped;
	bool started;
	int status;
	unsigned long *src;
	unsigned long *dst;
	struct anon_vma **mappings;
	struct hmm_devmem_run *runs;
	struct hmm_devmem_copy copy;
	struct hmm_devmem_dma dma;
	struct migrate_vma mig;
};

/* A transaction of one page, small enough for the stack of a CPU fault. */
struct hmm_devmem_txn_one {
	struct hmm_devmem_txn txn;
	struct hmm_devmem_run run;
	unsigned long src;
	unsigned long dst;
};

int hmm_devmem_txn_init(void);
struct hmm_devmem_txn *hmm_devmem_txn_init_one(struct hmm_devmem_txn_one *one,
					       struct hmm_devmem *devmem);
struct hmm_devmem_txn *hmm_devmem_txn_get(struct hmm_devmem *devmem,
					  unsigned int nr);
struct hmm_devmem_txn *hmm_devmem_txn_tryget(struct hmm_devmem *devmem,
					     unsigned int nr);
void hmm_devmem_txn_put(struct hmm_devmem_txn *txn);
void hmm_devmem_txn_alloc_device(struct hmm_devmem_txn *txn);
bool hmm_devmem_txn_alloc_ram(struct hmm_devmem_txn *txn, unsigned int first,
			      bool may_split);
void hmm_devmem_txn_map(struct hmm_devmem_txn *txn);
void hmm_devmem_txn_copy_start(struct hmm_devmem_txn *txn);
int hmm_devmem_txn_copy_wait(struct hmm_devmem_txn *txn);
unsigned long hmm_devmem_txn_committed(const struct hmm_devmem_txn *txn);

/* The last step: the device is not needed any more. */
static inline void hmm_devmem_txn_done(struct hmm_devmem_txn *txn)
{
	if (unlikely(txn->powered))
		hmm_devmem_power_put(txn->devmem);
	txn->powered = false;
}

/* evict.c */

unsigned long hmm_devmem_evict_all(struct hmm_devmem *devmem,
				   struct hmm_devmem_left *left);
int hmm_devmem_reclaim(struct hmm_devmem *devmem);

/* poison.c */

bool hmm_devmem_poison_page(struct hmm_devmem *devmem, unsigned long pfn);

#endif /* _MM_HMM_DEVMEM_INTERNAL_H */
