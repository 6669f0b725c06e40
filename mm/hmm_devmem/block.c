// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks of device pages: the bitmaps that say which pages are taken. supply.c knows which
 * of the free pages are handed out next; block_account() tells it of each change.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/visibility.h>
#include <linux/align.h>
#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/spinlock.h>

#include "block.h"

/* Account for @nr pages of @block whose bits are set and will remain set. */
static void count_disabled(struct hmm_devmem_pool *pool,
			   struct hmm_devmem_pool_segment *segment,
			   struct hmm_devmem_block *block, unsigned int nr)
{
	const bool was_idle = segment_is_idle(segment);

	block->nr_disabled += nr;
	segment->nr_disabled += nr;
	pool->nr_disabled += nr;
	if (block->order == BLOCK_AWAY)
		pool->nr_away_disabled += nr;
	pool->nr_idle += segment_is_idle(segment) - was_idle;
}

/*
 * Are all retired pages of @block disabled, so that none of them can be in use? No bit
 * tells whether a single page is disabled, but comparing the numbers is enough to keep
 * the counts right when a retired page is freed twice.
 */
static bool block_has_disabled_all(const struct hmm_devmem_pool *pool,
				   const struct hmm_devmem_pool_segment *segment,
				   const struct hmm_devmem_block *block)
{
	return block->nr_disabled == bitmap_weight(block_map(pool, segment, block,
							     segment->retired),
						   block_size(pool));
}

/* Clear the bit of a page that is freed. Returns how many were: one or none. */
static unsigned int block_clear_page(struct hmm_devmem_pool *pool,
				     struct hmm_devmem_pool_segment *segment,
				     struct hmm_devmem_block *block,
				     unsigned int bit)
{
	unsigned long *retired = block_map(pool, segment, block, segment->retired);

	if (unlikely(pool->nr_retired && test_bit(bit, retired))) {
		if (!WARN_ON_ONCE(block_has_disabled_all(pool, segment, block)))
			count_disabled(pool, segment, block, 1);
		return 0;
	}
	return !WARN_ON_ONCE(!__test_and_clear_bit(bit, block_map(pool, segment,
								  block,
								  segment->taken)));
}

/* Clear the bits of pages that are freed. Returns how many were. */
static unsigned int block_clear_run(struct hmm_devmem_pool *pool,
				    struct hmm_devmem_pool_segment *segment,
				    struct hmm_devmem_block *block,
				    unsigned int bit, unsigned int nr)
{
	unsigned long *taken = block_map(pool, segment, block, segment->taken);
	const unsigned int end = bit + nr;
	bool retired = false;

	if (unlikely(pool->nr_retired))
		retired = find_next_bit(block_map(pool, segment, block,
						  segment->retired),
					end, bit) < end;
	if (nr >= BITS_PER_LONG && nr == block_size(pool) &&
	    likely(!retired && bitmap_full(taken, nr))) {
		bitmap_zero(taken, nr);
		return nr;
	}
	if (likely(!retired && find_next_zero_bit(taken, end, bit) == end)) {
		bitmap_clear(taken, bit, nr);
		return nr;
	}
	for (nr = 0; bit < end; bit++)
		nr += block_clear_page(pool, segment, block, bit);
	return nr;
}

/**
 * hmm_devmem_block_put() - Give pages back to their block
 * @pool: The pool, locked.
 * @pfn: The first page.
 * @order: 2^@order pages, all of one block.
 *
 * Retired pages are disabled from now on. A page that is free already is left alone,
 * with a warning: it has been freed twice.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 */
void hmm_devmem_block_put(struct hmm_devmem_pool *pool, unsigned long pfn,
			  unsigned int order)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, pfn);
	struct hmm_devmem_block *block = pfn_block(pool, segment, pfn);
	unsigned int nr;

	lockdep_assert_held(&pool->blocks_lock);

	nr = block_clear_run(pool, segment, block, pfn_bit(pool, pfn), 1U << order);
	if (nr)
		block_account(pool, segment, block, -(int)nr);
}

/* Length of the run of consecutive pages of one block that @pfns begins with. */
static unsigned int pfns_run(const struct hmm_devmem_pool *pool,
			     const unsigned long *pfns, unsigned int nr)
{
	const unsigned int rest = block_size(pool) - pfn_bit(pool, pfns[0]);
	unsigned int run = 1;

	nr = min(nr, rest);
	while (run < nr && pfns[run] == pfns[0] + run)
		run++;
	return run;
}

/**
 * hmm_devmem_block_put_bulk() - Give single pages back to their blocks
 * @pool: The pool, locked.
 * @pfns: The pages. It is faster if neighbours in the array are neighbours.
 * @nr: How many.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 */
void hmm_devmem_block_put_bulk(struct hmm_devmem_pool *pool,
			       const unsigned long *pfns, unsigned int nr)
{
	struct hmm_devmem_block *block = NULL;
	struct hmm_devmem_pool_segment *segment = NULL;
	unsigned int run, cleared = 0;

	lockdep_assert_held(&pool->blocks_lock);

	for (; nr; pfns += run, nr -= run) {
		if (!block || pfns[0] - block->pfn >= block_size(pool)) {
			if (cleared)
				block_account(pool, segment, block, -(int)cleared);
			segment = pfn_segment(pool, pfns[0]);
			block = pfn_block(pool, segment, pfns[0]);
			cleared = 0;
		}
		if (nr == 1 || pfns[1] != pfns[0] + 1) {
			run = 1;
			cleared += block_clear_page(pool, segment, block,
						    pfn_bit(pool, pfns[0]));
			continue;
		}
		run = pfns_run(pool, pfns, nr);
		cleared += block_clear_run(pool, segment, block,
					   pfn_bit(pool, pfns[0]), run);
	}
	if (cleared)
		block_account(pool, segment, block, -(int)cleared);
}

/**
 * hmm_devmem_block_disable() - Never hand out free pages (again)
 * @pool: The pool, locked.
 * @segment: The segment of the pages.
 * @pfn: The first of them.
 * @nr: How many; all of one block.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 */
void hmm_devmem_block_disable(struct hmm_devmem_pool *pool,
			      struct hmm_devmem_pool_segment *segment, unsigned long pfn,
			      unsigned int nr)
{
	struct hmm_devmem_block *block = pfn_block(pool, segment, pfn);

	if (!block_is_active(block))
		hmm_devmem_supply_add_block(pool, segment, block);
	count_disabled(pool, segment, block, nr);
	block_take(pool, segment, block, pfn_bit(pool, pfn), nr);
}

/**
 * __hmm_devmem_block_set_live() - Note that pages were allocated or freed
 * @pool: The pool; not locked, @pfn is the caller's.
 * @pfn: The first page.
 * @order: 2^@order pages.
 * @live: True for allocated, false for freed.
 *
 * For debug kernels: a page that is freed twice must not reach a per-CPU cache,
 * which would hand it out twice.
 *
 * Context: Any context.
 * Return: False if a page was allocated, or free, already.
 */
bool __hmm_devmem_block_set_live(struct hmm_devmem_pool *pool,
				 unsigned long pfn, unsigned int order,
				 bool live)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, pfn);
	unsigned int i;
	bool ok = true;

	for (i = 0; i < 1U << order; i++)
		if (live)
			ok &= !test_and_set_bit(pfn + i - segment->base, segment->live);
		else
			ok &= test_and_clear_bit(pfn + i - segment->base, segment->live);
	return !WARN_ONCE(!ok, "pfn %#lx order %u %s twice\n", pfn, order,
			  live ? "allocated" : "freed");
}

/* Retire a page without struct page. False if there is no bitmap to remember it in. */
static bool retire_absent(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	const unsigned int idx = pfn_segment_idx(pool, pfn);
	unsigned long *map = pool->bad[idx];

	if (!map)
		return false;
	map += ((pfn - segment_start(pool, idx)) >> pool->block_order) *
	       block_stride(pool);
	if (!__test_and_set_bit(pfn_bit(pool, pfn), map))
		WRITE_ONCE(pool->nr_retired, pool->nr_retired + 1);
	return true;
}

/**
 * hmm_devmem_block_retire() - Never hand a page out again
 * @pool: The pool, not locked.
 * @pfn: The page. If it is in use or in a per-CPU cache it is disabled when it
 *	comes back to its block. If it has no struct page, it is disabled when it gets
 *	one.
 *
 * Context: Any context.
 * Return: False if hmm_devmem_pool_reserve_bad() is to be called first.
 */
bool hmm_devmem_block_retire(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	const unsigned int bit = pfn_bit(pool, pfn);
	struct hmm_devmem_block *block;
	struct hmm_devmem_pool_segment *segment;

	guard(spinlock_irqsave)(&pool->blocks_lock);
	segment = pfn_segment(pool, pfn);
	if (!segment)
		return retire_absent(pool, pfn);
	block = pfn_block(pool, segment, pfn);
	if (__test_and_set_bit(bit, block_map(pool, segment, block, segment->retired)))
		return true;
	WRITE_ONCE(pool->nr_retired, pool->nr_retired + 1);
	if (!test_bit(bit, block_map(pool, segment, block, segment->taken)))
		hmm_devmem_block_disable(pool, segment, pfn, 1);
	return true;
}

/**
 * __hmm_devmem_pool_retired() - Is a page never to be handed out again?
 * @pool: The pool.
 * @pfn: A page that is in use.
 *
 * Context: Any context.
 * Return: True if it was retired.
 */
bool __hmm_devmem_pool_retired(struct hmm_devmem_pool *pool,
			       unsigned long pfn)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, pfn);
	struct hmm_devmem_block *block = pfn_block(pool, segment, pfn);

	return test_bit(pfn_bit(pool, pfn),
			block_map(pool, segment, block, segment->retired));
}

static unsigned int block_in_use(struct hmm_devmem_pool *pool,
				 struct hmm_devmem_pool_segment *segment,
				 struct hmm_devmem_block *block,
				 unsigned long pfn, unsigned long end,
				 unsigned long *pfns, unsigned int max,
				 bool with_retired)
{
	unsigned long *retired = block_map(pool, segment, block, segment->retired);
	unsigned long *taken = block_map(pool, segment, block, segment->taken);
	unsigned int nr = 0;
	unsigned long flags;

	spin_lock_irqsave(&pool->blocks_lock, flags);
	for (; pfn < end && nr < max; pfn++)
		if (test_bit(pfn_bit(pool, pfn), taken) &&
		    (with_retired || !test_bit(pfn_bit(pool, pfn), retired)))
			pfns[nr++] = pfn;
	spin_unlock_irqrestore(&pool->blocks_lock, flags);
	return nr;
}

static unsigned int pool_in_use(struct hmm_devmem_pool *pool,
				unsigned long *pfn, unsigned long end,
				unsigned long *pfns, unsigned int max,
				bool with_retired)
{
	unsigned int nr = 0;

	*pfn = max(*pfn, pool->first);
	end = min(end, pool->last);
	while (*pfn < end && !nr) {
		struct hmm_devmem_pool_segment *segment = pfn_segment(pool, *pfn);
		unsigned long next = ALIGN(*pfn + 1, block_size(pool));
		struct hmm_devmem_block *block;

		if (!segment) {
			next = ((*pfn - pool->base) >> pool->segment_shift) + 1;
			*pfn = pool->base + (next << pool->segment_shift);
			continue;
		}
		block = pfn_block(pool, segment, *pfn);
		/* Racy, but so is the state of a page by the time it is used. */
		if (READ_ONCE(block->nr_taken) != READ_ONCE(block->nr_disabled))
			nr = block_in_use(pool, segment, block, *pfn,
					  min(next, end), pfns, max,
					  with_retired);
		*pfn = nr == max ? pfns[nr - 1] + 1 : next;
	}
	return nr;
}

/**
 * hmm_devmem_pool_in_use() - Find pages that are allocated
 * @pool: The pool.
 * @pfn: Where to start; set to where to go on.
 * @end: One past the last pfn of interest.
 * @pfns: Filled with pfns in ascending order, all of one block. Some may be in
 *	a per-CPU cache, unless the caches were drained before. Retired pages are
 *	left out.
 * @max: Size of @pfns.
 *
 * Looks at blocks with pages in use only.
 *
 * Context: Any context.
 * Return: Number of @pfns, 0 when there are no more before @end.
 */
unsigned int hmm_devmem_pool_in_use(struct hmm_devmem_pool *pool,
				    unsigned long *pfn, unsigned long end,
				    unsigned long *pfns, unsigned int max)
{
	return pool_in_use(pool, pfn, end, pfns, max, false);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_in_use);

/**
 * hmm_devmem_pool_not_free() - Find pages that cannot be allocated
 * @pool: The pool.
 * @pfn: Where to start; set to where to go on.
 * @end: One past the last pfn of interest.
 * @pfns: Filled as by hmm_devmem_pool_in_use(), and with the retired pages of the same
 *	blocks, in use or not. Blocks with no page in use are left out.
 * @max: Size of @pfns.
 *
 * Context: Any context.
 * Return: As hmm_devmem_pool_in_use().
 */
unsigned int hmm_devmem_pool_not_free(struct hmm_devmem_pool *pool,
				      unsigned long *pfn, unsigned long end,
				      unsigned long *pfns, unsigned int max)
{
	return pool_in_use(pool, pfn, end, pfns, max, true);
}

/**
 * hmm_devmem_pool_block_taken() - Number of pages of a block that are taken
 * @pool: The pool.
 * @pfn: A page of the block.
 *
 * Context: Any context. The segment is not depopulated meanwhile.
 * Return: Number of pages, including those in per-CPU caches and those that were retired
 * or that the device does not have; -ENOENT if there are no struct pages, or the block is
 * the driver's.
 */
int hmm_devmem_pool_block_taken(struct hmm_devmem_pool *pool,
				unsigned long pfn)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, pfn);
	const struct hmm_devmem_block *block;

	if (!segment)
		return -ENOENT;
	block = pfn_block(pool, segment, pfn);
	if (pool->on_loan && !block_is_lent(block))
		return -ENOENT;
	return READ_ONCE(block->nr_taken);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_block_taken);

/**
 * hmm_devmem_pool_block_has_only() - Are no other pages of a block in use?
 * @pool: The pool.
 * @pfn: A page of the block.
 * @nr: Number of pages of the block that the caller has in use.
 *
 * Context: Any context.
 * Return: True if no more than @nr pages of the block are in use or cached, or if there
 * are no struct pages.
 */
bool hmm_devmem_pool_block_has_only(struct hmm_devmem_pool *pool,
				    unsigned long pfn, unsigned int nr)
{
	struct hmm_devmem_block *block;
	struct hmm_devmem_pool_segment *segment;

	guard(spinlock_irqsave)(&pool->blocks_lock);
	segment = pfn_segment(pool, pfn);
	if (!segment)
		return true;
	block = pfn_block(pool, segment, pfn);
	return block->nr_taken - block->nr_disabled <= nr;
}

/**
 * hmm_devmem_pool_block_retired() - Was any page of a block retired?
 * @pool: The pool.
 * @pfn: A page of the block, which has struct pages.
 *
 * Context: Any context. The segment is not depopulated meanwhile.
 * Return: True if one was, whether it is in use or not.
 */
bool hmm_devmem_pool_block_retired(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, pfn);
	const unsigned int size = block_size(pool);

	return find_first_bit(block_map(pool, segment, pfn_block(pool, segment, pfn),
					segment->retired), size) < size;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_block_retired);
