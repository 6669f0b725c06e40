/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pool of device pages: see pool.c. Nothing here knows of struct page.
 */
#ifndef _MM_HMM_DEVMEM_POOL_H
#define _MM_HMM_DEVMEM_POOL_H

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/types.h>

struct hmm_devmem_pcp;
struct hmm_devmem_pool_segment;

/* No machine has larger blocks, and &hmm_devmem_block.nr_disabled can count their pages. */
#define HMM_DEVMEM_MAX_BLOCK_ORDER	15

/**
 * struct hmm_devmem_supply - the blocks that have free pages
 * @free: Blocks that are not fresh and have free pages, by
 *	&hmm_devmem_block.order. Those of @block_order are whole, the others partial.
 * @orders: Bit n is set if there are blocks on list n of @free.
 * @fresh: Segments that have fresh blocks.
 * @nr_searched: How often a block was searched in vain for a large enough piece. For
 *	tests.
 *
 * Protected by &hmm_devmem_pool.blocks_lock.
 */
struct hmm_devmem_supply {
	struct list_head free[HMM_DEVMEM_MAX_BLOCK_ORDER + 1];
	unsigned long orders;
	struct list_head fresh;
	unsigned long nr_searched;
};

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
 * @supply: Which free pages are handed out next.
 * @nr_total: Pages of all populated segments, including those at the ends that complete
 *	a block but that the device does not have.
 * @nr_taken: Sum of &hmm_devmem_block.nr_taken.
 * @nr_disabled: Sum of &hmm_devmem_block.nr_disabled.
 * @nr_absent: How many of @nr_disabled are pages that the device does not have.
 * @nr_away: Pages of populated segments that are in blocks of the driver's.
 * @nr_away_disabled: How many of those were retired.
 * @nr_withheld: Blocks that are withheld: see hmm_devmem_pool_withhold().
 * @nr_idle: Populated segments without a page that is used or cached.
 * @nr_retired: Pages that were retired, in use or not, with or without struct page.
 * @nr_drained: How often the per-CPU caches of all CPUs, or of those that had filled
 *	theirs, were emptied. For tests.
 * @nr_filled: How many per-CPU caches may have a page.
 * @on_loan: The blocks are the driver's, except those that it has lent; see
 *	hmm_devmem_pool_lend(). Set before the first segment is populated.
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
	struct hmm_devmem_supply supply;
	unsigned long nr_total;
	unsigned long nr_taken;
	unsigned long nr_disabled;
	unsigned long nr_absent;
	unsigned long nr_away;
	unsigned long nr_away_disabled;
	unsigned int nr_withheld;
	unsigned int nr_idle;
	unsigned long nr_retired;
	atomic_long_t nr_drained;
	atomic_t nr_filled;
	struct hmm_devmem_pcp __percpu *pcp;
	struct hlist_node cpuhp;
	bool on_loan;
	unsigned long **bad;
	struct hmm_devmem_pool_segment *segments[] __counted_by(nr_segments);
};

/**
 * struct hmm_devmem_pool_stats - what a pool has, in pages
 * @total: Pages in populated segments, but not those in blocks of the driver's.
 * @used: Pages in use.
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
bool hmm_devmem_pool_segment_is_new(struct hmm_devmem_pool *pool, unsigned int idx);
unsigned long hmm_devmem_pool_segment_used(struct hmm_devmem_pool *pool,
					   unsigned int idx);
int hmm_devmem_pool_block_taken(struct hmm_devmem_pool *pool,
				unsigned long pfn);
bool hmm_devmem_pool_block_has_only(struct hmm_devmem_pool *pool,
				    unsigned long pfn, unsigned int nr);
bool hmm_devmem_pool_has_block(struct hmm_devmem_pool *pool);
bool hmm_devmem_pool_has_page(struct hmm_devmem_pool *pool);
int hmm_devmem_pool_populate(struct hmm_devmem_pool *pool, unsigned int idx);
int hmm_devmem_pool_depopulate(struct hmm_devmem_pool *pool,
			       unsigned int idx);
void hmm_devmem_pool_lend(struct hmm_devmem_pool *pool, unsigned long pfn);
void hmm_devmem_pool_withhold(struct hmm_devmem_pool *pool, unsigned long pfn);
bool hmm_devmem_pool_take_back(struct hmm_devmem_pool *pool,
			       unsigned long pfn);
bool hmm_devmem_pool_block_retired(struct hmm_devmem_pool *pool,
				   unsigned long pfn);
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

#endif /* _MM_HMM_DEVMEM_POOL_H */
