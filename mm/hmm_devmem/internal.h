/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of mm/hmm_devmem/ share with each other.
 */
#ifndef _MM_HMM_DEVMEM_INTERNAL_H
#define _MM_HMM_DEVMEM_INTERNAL_H

#include <linux/align.h>
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/dma-mapping.h>
#include <linux/fault-inject.h>
#include <linux/hmm_devmem.h>
#include <linux/list.h>
#include <linux/migrate.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

/*
 * Large device folios have the size that a page table maps with one PMD entry;
 * that is all that core migrates whole. Without transparent huge pages blocks
 * are 512 pages too, so that the pool is the same everywhere.
 */
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
#define HMM_DEVMEM_BLOCK_ORDER	HPAGE_PMD_ORDER
#else
#define HMM_DEVMEM_BLOCK_ORDER	9
#endif
#define HMM_DEVMEM_BLOCK_NR	BIT(HMM_DEVMEM_BLOCK_ORDER)
#define HMM_DEVMEM_BLOCK_SIZE	(HMM_DEVMEM_BLOCK_NR << PAGE_SHIFT)

/* pool.c */

/**
 * struct hmm_devmem_block - one block of device pages
 * @node: on the list &hmm_devmem_pool.free of @order; on no list when no page is
 *	free, and while the block has never been used.
 * @pfn: First pfn, once it has been used.
 * @nr_taken: Bits set in the block's part of &hmm_devmem_pool_segment.taken.
 * @nr_disabled: How many of those will never be cleared: pages that were retired and
 *	are not in use any more, and pages that the device does not have (the range
 *	need not end with a block).
 * @order: No free, aligned piece is larger than 2^@order pages. -1 if none is free.
 */
struct hmm_devmem_block {
	struct list_head node;
	unsigned long pfn;
	unsigned int nr_taken;
	unsigned short nr_disabled;
	short order;
};

/**
 * struct hmm_devmem_pool_segment - blocks of one segment
 * @node: on &hmm_devmem_pool.fresh while there are blocks never used.
 * @base: First pfn of the first block, a multiple of the block size.
 * @nr_blocks: Number of @blocks.
 * @next_fresh: Blocks from here on were never used, but for those that have a
 *	disabled page.
 * @nr_taken: Sum of &hmm_devmem_block.nr_taken.
 * @nr_disabled: Sum of &hmm_devmem_block.nr_disabled.
 * @nr_absent: How many of those the device does not have.
 * @taken: One bit for each page that is allocated, cached or disabled.
 * @retired: One bit for each page that is never to be handed out again, and for
 *	each that the device does not have.
 * @live: Debug only: one bit for each page that is allocated.
 * @blocks: The blocks.
 *
 * All fields but @base and @nr_blocks: protected by &hmm_devmem_pool.blocks_lock.
 */
struct hmm_devmem_pool_segment {
	struct list_head node;
	unsigned long base;
	unsigned int nr_blocks;
	unsigned int next_fresh;
	unsigned long nr_taken;
	unsigned long nr_disabled;
	unsigned long nr_absent;
	unsigned long *taken;
	unsigned long *retired;
	unsigned long *live;
	struct hmm_devmem_block blocks[] __counted_by(nr_blocks);
};

struct hmm_devmem_pcp;

/* Blocks are not larger than that on any machine, and have bits enough to count. */
#define HMM_DEVMEM_MAX_BLOCK_ORDER	15

/**
 * struct hmm_devmem_pool - the device pages of one devmem
 * @blocks_lock: Protects everything but the per-CPU caches; nests inside their locks.
 *	Taken with interrupts off.
 * @refused: Why nothing can be allocated, an errno, or 0.
 * @block_order: Pages of a block, log2.
 * @segment_shift: Pages of a segment, log2; at least @block_order.
 * @nr_segments: Number of @segments.
 * @first: First pfn.
 * @last: One past the last pfn.
 * @nr_pages: @last - @first.
 * @base: @first, rounded down to a block.
 * @free: Blocks that have been used before and have free pages, by
 *	&hmm_devmem_block.order. Those of @block_order are whole, the others partial.
 * @free_orders: Bit n is set if there are blocks on list n of @free.
 * @fresh: Segments that have blocks never used.
 * @nr_total: Pages of all populated segments, with those that the device does not have.
 * @nr_taken: Sum of &hmm_devmem_block.nr_taken.
 * @nr_disabled: Sum of &hmm_devmem_block.nr_disabled.
 * @nr_absent: How many of those the device does not have.
 * @nr_idle: Populated segments without a page that is allocated or in a cache.
 * @nr_retired: Pages that were retired, in use or not, with or without struct page.
 * @nr_searched: How often a block was searched for a piece that it has not.
 * @nr_drained: How often the caches were emptied: because something was in them, or
 *	so that all CPUs see what has changed.
 * @nr_filled: How many per-CPU caches may have a page.
 * @bad: For each of @segments that is not populated, the bitmap that says which of its
 *	pages were retired; NULL if none was.
 * @pcp: Per-CPU caches of single pages.
 * @cpuhp: Link for CPU hotplug.
 * @segments: Populated segments; NULL where there are no struct pages (yet).
 */
struct hmm_devmem_pool {
	spinlock_t blocks_lock;	/* see above */
	int refused;
	unsigned int block_order;
	unsigned int segment_shift;
	unsigned int nr_segments;
	unsigned long first;
	unsigned long last;
	unsigned long nr_pages;
	unsigned long base;
	struct list_head free[HMM_DEVMEM_MAX_BLOCK_ORDER + 1];
	unsigned long free_orders;
	struct list_head fresh;
	unsigned long nr_total;
	unsigned long nr_taken;
	unsigned long nr_disabled;
	unsigned long nr_absent;
	unsigned int nr_idle;
	unsigned long nr_retired;
	unsigned long nr_searched;
	atomic_long_t nr_drained;
	atomic_t nr_filled;
	struct hmm_devmem_pcp __percpu *pcp;
	struct hlist_node cpuhp;
	unsigned long **bad;
	struct hmm_devmem_pool_segment *segments[] __counted_by(nr_segments);
};

/**
 * struct hmm_devmem_pool_stats - what a pool has, in pages
 * @total: Pages in populated segments.
 * @used: Pages that are allocated.
 * @cached: Free pages in per-CPU caches.
 * @free: Other free pages.
 * @retired: Pages that will not be handed out again, in populated segments or not.
 */
struct hmm_devmem_pool_stats {
	unsigned long total;
	unsigned long used;
	unsigned long cached;
	unsigned long free;
	unsigned long retired;
};

struct hmm_devmem_pool *hmm_devmem_pool_create(unsigned long first,
					       unsigned long nr_pages,
					       unsigned int block_order,
					       unsigned int segment_shift);
void hmm_devmem_pool_clear(struct hmm_devmem_pool *pool);
void hmm_devmem_pool_destroy(struct hmm_devmem_pool *pool);
int hmm_devmem_pool_alloc(struct hmm_devmem_pool *pool, unsigned int order,
			  unsigned long *pfn);
unsigned int hmm_devmem_pool_alloc_bulk(struct hmm_devmem_pool *pool,
					unsigned int nr, unsigned long *pfns);
void hmm_devmem_pool_free(struct hmm_devmem_pool *pool, unsigned long pfn,
			  unsigned int order);
void hmm_devmem_pool_drain(struct hmm_devmem_pool *pool);
void hmm_devmem_pool_kill(struct hmm_devmem_pool *pool);
bool hmm_devmem_pool_freeze(struct hmm_devmem_pool *pool);
void hmm_devmem_pool_thaw(struct hmm_devmem_pool *pool);
int hmm_devmem_pool_refused(struct hmm_devmem_pool *pool);
void hmm_devmem_pool_retire(struct hmm_devmem_pool *pool, unsigned long pfn);
void hmm_devmem_pool_retire_range(struct hmm_devmem_pool *pool,
				  unsigned long pfn, unsigned long end);
int hmm_devmem_pool_retire_new(struct hmm_devmem_pool *pool,
			       unsigned long pfn);
bool __hmm_devmem_pool_retired(struct hmm_devmem_pool *pool,
			       unsigned long pfn);
unsigned int hmm_devmem_pool_in_use(struct hmm_devmem_pool *pool,
				    unsigned long *pfn, unsigned long end,
				    unsigned long *pfns, unsigned int max);
unsigned int hmm_devmem_pool_not_free(struct hmm_devmem_pool *pool,
				      unsigned long *pfn, unsigned long end,
				      unsigned long *pfns, unsigned int max);
void hmm_devmem_pool_get_stats(struct hmm_devmem_pool *pool,
			       struct hmm_devmem_pool_stats *stats);
unsigned long hmm_devmem_pool_used(struct hmm_devmem_pool *pool);
bool hmm_devmem_pool_any_used(struct hmm_devmem_pool *pool);
unsigned int hmm_devmem_pool_idle_segments(struct hmm_devmem_pool *pool);
unsigned long hmm_devmem_pool_segment_used(struct hmm_devmem_pool *pool,
					   unsigned int idx);
int hmm_devmem_pool_block_taken(struct hmm_devmem_pool *pool,
				unsigned long pfn);
bool hmm_devmem_pool_block_has_only(struct hmm_devmem_pool *pool,
				    unsigned long pfn, unsigned int nr);
bool hmm_devmem_pool_has_block(struct hmm_devmem_pool *pool);
bool hmm_devmem_pool_has_page(struct hmm_devmem_pool *pool);
int hmm_devmem_pool_init(void);

/* Was any page retired, that is, must never be allocated again? */
static inline bool
hmm_devmem_pool_any_retired(const struct hmm_devmem_pool *pool)
{
	return unlikely(READ_ONCE(pool->nr_retired));
}

/* Was @pfn retired? */
static inline bool hmm_devmem_pool_retired(struct hmm_devmem_pool *pool,
					   unsigned long pfn)
{
	return hmm_devmem_pool_any_retired(pool) &&
	       __hmm_devmem_pool_retired(pool, pfn);
}

/* block.c */

unsigned int hmm_devmem_block_take_run(struct hmm_devmem_pool *pool,
				       unsigned int max, unsigned long *pfn);
int hmm_devmem_block_take_order(struct hmm_devmem_pool *pool,
				unsigned int order, unsigned long *pfn);
void hmm_devmem_block_put(struct hmm_devmem_pool *pool, unsigned long pfn,
			  unsigned int order);
void hmm_devmem_block_put_bulk(struct hmm_devmem_pool *pool,
			       const unsigned long *pfns, unsigned int nr);
bool __hmm_devmem_block_set_live(struct hmm_devmem_pool *pool,
				 unsigned long pfn, unsigned int order,
				 bool live);
bool hmm_devmem_block_retire(struct hmm_devmem_pool *pool, unsigned long pfn);
int hmm_devmem_pool_reserve_bad(struct hmm_devmem_pool *pool,
				unsigned long pfn, gfp_t gfp);
void hmm_devmem_pool_segment_free(struct hmm_devmem_pool_segment *segment);
int hmm_devmem_pool_populate(struct hmm_devmem_pool *pool, unsigned int idx);
int hmm_devmem_pool_depopulate(struct hmm_devmem_pool *pool,
			       unsigned int idx);

/*
 * Note that pages were allocated, or freed. In debug kernels, returns false if they
 * were allocated, or free, before.
 */
static inline bool hmm_devmem_block_set_live(struct hmm_devmem_pool *pool,
					     unsigned long pfn,
					     unsigned int order, bool live)
{
	return !IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG) ||
	       __hmm_devmem_block_set_live(pool, pfn, order, live);
}

/* stats.c */

/* The first ones are the counters of struct hmm_devmem_stats; see there. */
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

u64 hmm_devmem_large_pages(const struct hmm_devmem *devmem);

/* life.c */

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
	return devmem->pool;
}

/* Keep the driver from being removed; false if it was removed already. */
static inline bool hmm_devmem_ref_tryget(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget(&devmem->ref);
}

/* Fails also while removal waits for references, so that it need not wait for ever. */
static inline bool hmm_devmem_ref_tryget_live(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget_live(&devmem->ref);
}

static inline void hmm_devmem_ref_put(struct hmm_devmem *devmem)
{
	percpu_ref_put(&devmem->ref);
}

/*
 * Wait for migrations to the device that have begun. The caller has stopped
 * allocation, so that no more can begin.
 */
static inline void hmm_devmem_wait_for_intake(struct hmm_devmem *devmem)
{
	percpu_down_write(&devmem->intake);
	percpu_up_write(&devmem->intake);
}

/*
 * Wait until hmm_devmem_alloc_folio() has made folios of all pages that it has taken
 * from the pool. The caller has stopped allocation, so that it takes no more.
 */
static inline void hmm_devmem_wait_for_handout(struct hmm_devmem *devmem)
{
	percpu_down_write(&devmem->handout);
	percpu_up_write(&devmem->handout);
}

struct hmm_devmem *hmm_devmem_create(struct device *device,
				     const struct hmm_devmem_desc *desc);
void hmm_devmem_release(struct kref *kref);

/* segment.c */

/**
 * struct hmm_devmem_segment - a part of the range that has struct pages
 * @pagemap: The part of it that core knows.
 * @devmem: The device memory; the segment has a reference on &hmm_devmem.kref.
 * @idx: Its index in &hmm_devmem.segments, and in &hmm_devmem_pool.segments.
 * @idle: How often in a row it was found without a page in use.
 * @is_zombie: It has outlived its driver.
 * @first_busy: In a zombie: no page before this one is in use.
 * @end: Ends the segment; a zombie only if no page is in use.
 * @contexts: In a zombie, until all contexts were dropped: which pages have one.
 * @node: On the list of all segments.
 */
struct hmm_devmem_segment {
	struct dev_pagemap pagemap;
	struct hmm_devmem *devmem;
	unsigned int idx;
	unsigned int idle;
	bool is_zombie;
	unsigned long first_busy;
	struct work_struct end;
	unsigned long *contexts;
	struct list_head node;
};

int hmm_devmem_segments_init(struct hmm_devmem *devmem, unsigned long flags);
void hmm_devmem_segments_release(struct hmm_devmem *devmem);
int hmm_devmem_segments_grow(struct hmm_devmem *devmem);
void hmm_devmem_segment_page_freed(struct hmm_devmem_segment *segment);
unsigned long hmm_devmem_segment_busy(struct hmm_devmem_segment *segment);
unsigned long hmm_devmem_segments_busy(struct hmm_devmem *devmem);
int hmm_devmem_memmap_fits(u64 size);
bool hmm_devmem_range_has_segment(const struct range *range);
int hmm_devmem_segments_boot(void);
#if IS_ENABLED(CONFIG_KUNIT)
void *hmm_devmem_memremap(struct dev_pagemap *pagemap, int nid);
bool hmm_devmem_page_is_locked(const struct page *page);
bool hmm_devmem_zombie_page_busy(const struct page *page);
#endif

/* Where the first segment begins, which is where the first block begins. */
static inline unsigned long
hmm_devmem_segments_base(const struct hmm_devmem *devmem)
{
	return ALIGN_DOWN(devmem->pfn_first, HMM_DEVMEM_BLOCK_NR);
}

/* The index of the segment of @pfn, which is one of @devmem. */
static inline unsigned long
hmm_devmem_segment_idx(const struct hmm_devmem *devmem, unsigned long pfn)
{
	return (pfn - hmm_devmem_segments_base(devmem)) >> devmem->segment_shift;
}

/*
 * The segment of any pfn; NULL if the pfn is not of @devmem or has no struct page.
 * The caller has allocated the page, or holds &hmm_devmem.segments_lock.
 */
static inline struct hmm_devmem_segment *
hmm_devmem_segment_at(struct hmm_devmem *devmem, unsigned long pfn)
{
	if (!hmm_devmem_has_pfn(devmem, pfn))
		return NULL;
	return devmem->segments[hmm_devmem_segment_idx(devmem, pfn)];
}

/* The struct dev_pagemap of a page that the caller has allocated. */
static inline struct dev_pagemap *
hmm_devmem_allocated_pagemap(struct hmm_devmem *devmem, unsigned long pfn)
{
	return &devmem->segments[hmm_devmem_segment_idx(devmem, pfn)]->pagemap;
}

/* Are there parts of the range for which struct pages can be created? */
static inline bool hmm_devmem_can_grow(struct hmm_devmem *devmem)
{
	return READ_ONCE(devmem->nr_populated) < devmem->nr_segments;
}

/* range.c */

int hmm_devmem_range_reserve(struct hmm_devmem *devmem, u64 size,
			     unsigned long flags);
int hmm_devmem_range_check(struct hmm_devmem *devmem, struct resource *res,
			   unsigned long flags);

/* pagemap.c */

extern const struct dev_pagemap_ops hmm_devmem_pagemap_ops;

static inline struct hmm_devmem_segment *
hmm_devmem_pagemap_segment(struct dev_pagemap *pagemap)
{
	return container_of(pagemap, struct hmm_devmem_segment, pagemap);
}

#if IS_ENABLED(CONFIG_KUNIT)
struct hmm_devmem_context *hmm_devmem_head_context(const struct folio *head);
#endif

/* page.c */

struct hmm_devmem *hmm_devmem_of_page(const struct page *page);
void __hmm_devmem_page_drop_context(struct page *page);

/*
 * Drop the context of a folio; @page is its first page. Inline, so that freeing a
 * folio without a context does not cost a call.
 */
static inline void hmm_devmem_page_drop_context(struct page *page)
{
	if (READ_ONCE(page->zone_device_data))
		__hmm_devmem_page_drop_context(page);
}

/* folio.c */

struct folio *hmm_devmem_init_folio(struct hmm_devmem *devmem,
				    unsigned long pfn, unsigned int order,
				    struct hmm_devmem_context *ctx);
void hmm_devmem_init_pages(struct hmm_devmem *devmem, const unsigned long *pfns,
			   unsigned int nr, struct hmm_devmem_context *ctx);

/* power.c */

void hmm_devmem_power_init(struct hmm_devmem *devmem);
int hmm_devmem_power_get(struct hmm_devmem *devmem);
void hmm_devmem_power_put(struct hmm_devmem *devmem);
void hmm_devmem_power_release(struct hmm_devmem *devmem);

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
 * @size: How much of @iova is mapped, bytes.
 */
struct hmm_devmem_dma {
	struct dma_iova_state iova;
	size_t size;
};

int hmm_devmem_dma_init(struct hmm_devmem *devmem,
			const struct hmm_devmem_desc *desc);
gfp_t __hmm_devmem_dma_ram_gfp(struct hmm_devmem *devmem);
bool __hmm_devmem_dma_reaches(struct hmm_devmem *devmem, phys_addr_t phys,
			      size_t size);
struct hmm_devmem_txn;
bool hmm_devmem_dma_map(struct hmm_devmem_txn *txn);
void hmm_devmem_dma_unmap(struct hmm_devmem_txn *txn);

/*
 * How to allocate memory for pages that are brought back: without %__GFP_HIGHMEM if
 * some memory is out of the device's reach. Called for every page.
 */
static inline gfp_t hmm_devmem_dma_ram_gfp(struct hmm_devmem *devmem)
{
	return likely(!devmem->dma_device) ? devmem->ram_gfp :
					     __hmm_devmem_dma_ram_gfp(devmem);
}

/* Can the device reach system memory? */
static inline bool hmm_devmem_dma_reaches(struct hmm_devmem *devmem,
					  phys_addr_t phys, size_t size)
{
	return likely(!devmem->dma_device) ||
	       __hmm_devmem_dma_reaches(devmem, phys, size);
}

/* txn.c */

/**
 * struct hmm_devmem_txn - one transaction
 * @devmem: The device memory whose pages move.
 * @vma: The mapping of the pages; NULL in an eviction.
 * @window: Of the mirror that the migration was asked for through; or NULL.
 * @start: Address of the first entry, if there is a @vma.
 * @nr: Number of entries, one for each page.
 * @max: Number of entries in the arrays.
 * @wanted: In an eviction: how many pages had a destination before the copy.
 * @ns: In an eviction: how long it took to start the copy, or to get no destination.
 * @short_of_memory: There was not enough device memory.
 * @in_fault: A CPU fault waits for the transaction.
 * @no_memory: There was no system memory.
 * @must_split: The large folio that was collected has no large destination, and
 *	must be split before it can move.
 * @unmapped: At least one run could not be mapped for DMA.
 * @started: A copy was started, so copy_wait() is to be called.
 * @status: What the call that starts the copy returned.
 * @src: The pages that core has collected (MIGRATE_PFN_*).
 * @dst: Their destinations; 0 for a page that stays.
 * @mappings: In an eviction: references on the anon_vmas of the pages.
 * @runs: Memory for &hmm_devmem_copy.runs.
 * @copy: The copy, as the driver sees it.
 * @dma: How the runs of @copy are mapped.
 * @mig: Arguments for core, if there is a @vma.
 */
struct hmm_devmem_txn {
	struct hmm_devmem *devmem;
	struct vm_area_struct *vma;
	struct hmm_devmem_mirror_window *window;
	unsigned long start;
	unsigned int nr;
	unsigned int max;
	unsigned int wanted;
	u64 ns;
	bool short_of_memory;
	bool in_fault;
	bool no_memory;
	bool must_split;
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
struct hmm_devmem_txn *hmm_devmem_txn_get_locked(struct hmm_devmem *devmem,
						 unsigned int nr);
void hmm_devmem_txn_put(struct hmm_devmem_txn *txn);
void hmm_devmem_txn_alloc_device(struct hmm_devmem_txn *txn);
bool hmm_devmem_txn_alloc_ram(struct hmm_devmem_txn *txn, unsigned int first);
void hmm_devmem_txn_note_pages(const struct hmm_devmem_txn *txn,
			       unsigned long *pages);
void hmm_devmem_txn_copy_start(struct hmm_devmem_txn *txn);
int hmm_devmem_txn_copy_wait(struct hmm_devmem_txn *txn);
unsigned long hmm_devmem_txn_commit(struct hmm_devmem_txn *txn);
bool hmm_devmem_txn_has_dst(const struct hmm_devmem_txn *txn, unsigned int i);
bool hmm_devmem_txn_moved(const struct hmm_devmem_txn *txn, unsigned int i);
unsigned long hmm_devmem_txn_nr_dst(const struct hmm_devmem_txn *txn);

/* collect.c */

extern unsigned long hmm_devmem_max_window;

/* How many pages are migrated at once, at most; core collects no larger piece. */
static inline unsigned long hmm_devmem_window_nr(void)
{
	return min(READ_ONCE(hmm_devmem_max_window), HMM_DEVMEM_BLOCK_NR);
}

/* Large folios can move as a whole; else they are split. */
static inline bool hmm_devmem_moves_blocks(void)
{
	return hmm_devmem_window_nr() == HMM_DEVMEM_BLOCK_NR;
}

int hmm_devmem_txn_collect_vma(struct hmm_devmem_txn *txn, unsigned long end,
			       void *owner, unsigned long flags,
			       struct page *fault_page);
void hmm_devmem_txn_collect_pfns(struct hmm_devmem_txn *txn);
void hmm_devmem_txn_put_mappings(struct hmm_devmem_txn *txn);
unsigned long hmm_devmem_txn_nr_collected(const struct hmm_devmem_txn *txn);
#if IS_ENABLED(CONFIG_KUNIT)
void hmm_devmem_collect_pfns(unsigned long *pfns, unsigned int nr);
#endif

/* resident.c */

bool hmm_devmem_vma_is_suitable(const struct vm_area_struct *vma);
unsigned long hmm_devmem_count_resident(struct hmm_devmem *devmem,
					struct mm_struct *mm,
					unsigned long start, unsigned long end,
					bool used, unsigned long *pages);

/* use.c */

struct hmm_devmem_hold_data;
struct hmm_devmem_hold_data hmm_devmem_use_data(const struct vm_area_struct *vma,
						unsigned long addr);
void hmm_devmem_use_brought(const struct hmm_devmem_txn *txn);
void hmm_devmem_use_leaving(const struct hmm_devmem_txn *txn);

/* evict.c */

/**
 * struct hmm_devmem_evict_clock - how long removal and suspend wait for pages in use
 * @deadline: When they give up, in nanoseconds, if no other page comes back before.
 * @last: The latest @deadline. Each try that brings pages back puts it off by the
 *	time that the try takes.
 */
struct hmm_devmem_evict_clock {
	u64 deadline;
	u64 last;
};

#if IS_ENABLED(CONFIG_KUNIT)
void hmm_devmem_evict_clock_pass(struct hmm_devmem_evict_clock *clock,
				 u64 start, u64 now, bool progress);
u64 hmm_devmem_evict_ns(void);
void hmm_devmem_drain_batches(void);
#endif
unsigned long hmm_devmem_evict_all(struct hmm_devmem *devmem, bool killable,
				   struct hmm_devmem_left *left);
int hmm_devmem_reclaim(struct hmm_devmem *devmem,
		       const struct hmm_devmem_hold_data *data,
		       const unsigned long *keep, bool drain);

/* place.c */

struct folio *hmm_devmem_alloc_evicted(struct page *page,
				       struct anon_vma *anon_vma,
				       unsigned int order, gfp_t gfp);

/* poison.c */

bool hmm_devmem_poison_page(struct hmm_devmem *devmem, unsigned long pfn);
void hmm_devmem_forget_page(struct page *page);
void hmm_devmem_unmap_lost(struct hmm_devmem *devmem);

#endif /* _MM_HMM_DEVMEM_INTERNAL_H */
