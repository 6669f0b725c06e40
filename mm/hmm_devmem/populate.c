// SPDX-License-Identifier: GPL-2.0
/*
 * The pool's part of a segment: the bitmaps and blocks that it has for pages with struct
 * pages. segment.c calls this when it creates and removes the struct pages.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "block.h"

static unsigned int segment_nr_blocks(const struct hmm_devmem_pool *pool,
				      unsigned int idx)
{
	return DIV_ROUND_UP(segment_end(pool, idx) - segment_start(pool, idx),
			    block_size(pool));
}

/* Words of a bitmap with a bit for each page of a segment. */
static size_t segment_words(const struct hmm_devmem_pool *pool, unsigned int idx)
{
	return size_mul(segment_nr_blocks(pool, idx), block_stride(pool));
}

/**
 * hmm_devmem_pool_reserve_bad() - Get memory for the bitmap of retired pages
 * @pool: The pool.
 * @pfn: The page to be retired.
 * @gfp: How to allocate the memory.
 *
 * Context: Any that @gfp can be used in.
 * Return: 0 or -ENOMEM.
 */
int hmm_devmem_pool_reserve_bad(struct hmm_devmem_pool *pool,
				unsigned long pfn, gfp_t gfp)
{
	const unsigned int idx = pfn_segment_idx(pool, pfn);
	unsigned long *map;

	map = kvcalloc(segment_words(pool, idx), sizeof(*map), gfp);
	if (!map)
		return -ENOMEM;
	scoped_guard(spinlock_irqsave, &pool->blocks_lock)
		if (!pool->segments[idx] && !pool->bad[idx])
			swap(pool->bad[idx], map);
	kvfree(map);
	return 0;
}

/**
 * hmm_devmem_pool_segment_free() - Free the memory of a segment
 * @segment: The segment, or NULL.
 *
 * Context: Process context.
 */
void hmm_devmem_pool_segment_free(struct hmm_devmem_pool_segment *segment)
{
	if (!segment)
		return;
	kvfree(segment->taken);
	kvfree(segment->retired);
	kvfree(segment->live);
	kvfree(segment);
}

static struct hmm_devmem_pool_segment *segment_alloc(struct hmm_devmem_pool *pool,
						     unsigned int nr_blocks)
{
	const size_t words = size_mul(nr_blocks, block_stride(pool));
	struct hmm_devmem_pool_segment *segment;

	segment = kvzalloc_flex(*segment, blocks, nr_blocks);
	if (!segment)
		return NULL;
	segment->nr_blocks = nr_blocks;
	INIT_LIST_HEAD(&segment->node);
	segment->taken = kvcalloc(words, sizeof(long), GFP_KERNEL);
	segment->retired = kvcalloc(words, sizeof(long), GFP_KERNEL);
	if (IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG))
		segment->live = kvcalloc(words, sizeof(long), GFP_KERNEL);
	if (segment->taken && segment->retired &&
	    (segment->live || !IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG)))
		return segment;
	hmm_devmem_pool_segment_free(segment);
	return NULL;
}

/* Disable the pages of a new @block that were retired while it had no struct pages. */
static void block_disable_retired(struct hmm_devmem_pool *pool,
				  struct hmm_devmem_pool_segment *segment,
				  struct hmm_devmem_block *block)
{
	const unsigned long *retired = block_map(pool, segment, block, segment->retired);
	const unsigned long pfn = segment->base + ((unsigned long)(block - segment->blocks) <<
						   pool->block_order);
	unsigned int bit, end;

	for_each_set_bitrange(bit, end, retired, block_size(pool))
		hmm_devmem_block_disable(pool, segment, pfn + bit, end - bit);
}

/*
 * Disable the pages of a new @segment that were retired before. Returns a bitmap that is
 * not needed then, for the caller to free without the lock.
 */
static unsigned long *segment_disable_retired(struct hmm_devmem_pool *pool,
					      struct hmm_devmem_pool_segment *segment,
					      unsigned int idx)
{
	unsigned long *unused = segment->retired;
	unsigned int i;

	lockdep_assert_held(&pool->blocks_lock);

	if (!pool->bad[idx])
		return NULL;
	segment->retired = pool->bad[idx];
	pool->bad[idx] = NULL;
	for (i = 0; i < segment->nr_blocks; i++)
		block_disable_retired(pool, segment, &segment->blocks[i]);
	return unused;
}

/* Remember which pages of @segment, which is about to be freed, were retired. */
static void segment_keep_retired(struct hmm_devmem_pool *pool,
				 struct hmm_devmem_pool_segment *segment, unsigned int idx)
{
	const unsigned long end = segment_end(pool, idx);
	const unsigned int over = -end & (block_size(pool) - 1);

	lockdep_assert_held(&pool->blocks_lock);

	if (segment->nr_disabled == segment->nr_absent)
		return;
	/* Except pages that the device does not have: segment_trim() finds those again. */
	if (segment->base < pool->first)
		bitmap_clear(segment->retired, 0, pool->first - segment->base);
	if (over)
		bitmap_clear(block_map(pool, segment, pfn_block(pool, segment, end),
				       segment->retired), pfn_bit(pool, end), over);
	swap(pool->bad[idx], segment->retired);
}

/*
 * Disable pages [@pfn, @pfn + @nr): those at an end of @segment that complete a block, but
 * that the device does not have.
 */
static void segment_trim(struct hmm_devmem_pool *pool,
			 struct hmm_devmem_pool_segment *segment, unsigned long pfn,
			 unsigned int nr)
{
	struct hmm_devmem_block *block;

	if (!nr)
		return;
	block = pfn_block(pool, segment, pfn);
	bitmap_set(block_map(pool, segment, block, segment->retired),
		   pfn_bit(pool, pfn), nr);
	segment->nr_absent += nr;
	pool->nr_absent += nr;
	hmm_devmem_block_disable(pool, segment, pfn, nr);
}

/**
 * hmm_devmem_pool_populate() - Let the pages of a segment be allocated
 * @pool: The pool.
 * @idx: Which segment, less than &hmm_devmem_pool.nr_segments. It must not be
 *	populated yet, nor by another task at the same time.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -ENOMEM and nothing is changed.
 */
int hmm_devmem_pool_populate(struct hmm_devmem_pool *pool, unsigned int idx)
{
	const unsigned int nr_blocks = segment_nr_blocks(pool, idx);
	const unsigned long start = segment_start(pool, idx);
	const unsigned long end = segment_end(pool, idx);
	struct hmm_devmem_pool_segment *segment;
	unsigned long *unused, flags;

	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_pool_populate, pool, idx);

	segment = segment_alloc(pool, nr_blocks);
	if (!segment)
		return -ENOMEM;
	segment->base = start;

	spin_lock_irqsave(&pool->blocks_lock, flags);
	pool->segments[idx] = segment;
	pool->nr_total += (unsigned long)nr_blocks << pool->block_order;
	pool->nr_idle++;
	if (pool->on_loan)
		pool->nr_away += (unsigned long)nr_blocks << pool->block_order;
	else
		hmm_devmem_supply_add_segment(pool, segment);
	unused = segment_disable_retired(pool, segment, idx);
	segment_trim(pool, segment, start, max(start, pool->first) - start);
	segment_trim(pool, segment, end,
		     start + ((unsigned long)nr_blocks << pool->block_order) - end);
	spin_unlock_irqrestore(&pool->blocks_lock, flags);
	kvfree(unused);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_populate);

/**
 * hmm_devmem_pool_depopulate() - Remove a segment that has no page in use
 * @pool: The pool.
 * @idx: Which segment; it must be populated.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -EBUSY if pages of the segment are in use or cached, or the driver has
 * lent a block of it; nothing is changed then. Which of its pages were retired is
 * remembered.
 */
int hmm_devmem_pool_depopulate(struct hmm_devmem_pool *pool,
			       unsigned int idx)
{
	struct hmm_devmem_pool_segment *segment;
	unsigned long flags;

	spin_lock_irqsave(&pool->blocks_lock, flags);
	segment = pool->segments[idx];
	if (segment->nr_taken != segment->nr_disabled || segment->nr_lent) {
		spin_unlock_irqrestore(&pool->blocks_lock, flags);
		return -EBUSY;
	}
	hmm_devmem_supply_remove_segment(pool, segment);
	pool->nr_total -= (unsigned long)segment->nr_blocks << pool->block_order;
	pool->nr_idle--;
	if (pool->on_loan) {
		pool->nr_away -= (unsigned long)segment->nr_blocks << pool->block_order;
		pool->nr_away_disabled -= segment->nr_disabled;
	}
	pool->segments[idx] = NULL;
	segment_keep_retired(pool, segment, idx);
	pool->nr_taken -= segment->nr_taken;
	pool->nr_disabled -= segment->nr_disabled;
	pool->nr_absent -= segment->nr_absent;
	spin_unlock_irqrestore(&pool->blocks_lock, flags);

	hmm_devmem_pool_segment_free(segment);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_depopulate);

/* Account for @block, which was the driver's and is lent now, or the other way round. */
static void block_account_loan(struct hmm_devmem_pool *pool,
			       struct hmm_devmem_pool_segment *segment,
			       const struct hmm_devmem_block *block, bool lent)
{
	if (lent) {
		segment->nr_lent++;
		pool->nr_away -= block_size(pool);
		pool->nr_away_disabled -= block->nr_disabled;
	} else {
		segment->nr_lent--;
		pool->nr_away += block_size(pool);
		pool->nr_away_disabled += block->nr_disabled;
	}
}

/**
 * hmm_devmem_pool_lend() - Let the pages of a block be allocated
 * @pool: The pool; its blocks are on loan.
 * @pfn: The first page of the block. The block is the driver's, or is withheld. Its
 *	segment is populated, and not depopulated meanwhile.
 *
 * Context: Any context.
 */
void hmm_devmem_pool_lend(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	struct hmm_devmem_pool_segment *segment;
	struct hmm_devmem_block *block;

	guard(spinlock_irqsave)(&pool->blocks_lock);
	segment = pfn_segment(pool, pfn);
	block = pfn_block(pool, segment, pfn);
	if (!block_is_active(block))
		hmm_devmem_supply_add_block(pool, segment, block);
	if (block->order == BLOCK_AWAY)
		block_account_loan(pool, segment, block, true);
	else
		WRITE_ONCE(pool->nr_withheld, pool->nr_withheld - 1);
	block_set_order(pool, block, -1);
	block_relist(pool, block, true);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_lend);

/**
 * hmm_devmem_pool_take_back() - Make a block the driver's again
 * @pool: The pool.
 * @pfn: The first page of the block, which the driver has lent; withheld or not.
 *
 * Context: Any context.
 * Return: False, and nothing is changed, if a page of the block is in use, cached or
 * retired.
 */
bool hmm_devmem_pool_take_back(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	struct hmm_devmem_pool_segment *segment;
	struct hmm_devmem_block *block;

	guard(spinlock_irqsave)(&pool->blocks_lock);
	segment = pfn_segment(pool, pfn);
	block = pfn_block(pool, segment, pfn);
	if (block->nr_taken)
		return false;
	if (block->order == BLOCK_WITHHELD)
		WRITE_ONCE(pool->nr_withheld, pool->nr_withheld - 1);
	block_set_order(pool, block, BLOCK_AWAY);
	block_account_loan(pool, segment, block, false);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_take_back);
