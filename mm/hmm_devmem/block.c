// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks of device pages: the pool's bitmaps.
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

/*
 * How many partial blocks are searched for a piece of several pages before an
 * empty block is broken up for it, or, if there is none, the lock is released for
 * a moment. Each of them takes less than a microsecond.
 */
#define HMM_DEVMEM_PARTIAL_TRIES	8

static bool block_is_whole(const struct hmm_devmem_block *block)
{
	return !block->nr_taken;
}

/* Put @block on the list of the largest free piece that it can have. */
static void block_relist(struct hmm_devmem_pool *pool,
			 struct hmm_devmem_block *block, bool freed)
{
	int order = fls(block_size(pool) - block->nr_taken) - 1;

	/* When pages are taken, the largest free piece does not become larger. */
	if (!freed)
		order = min(order, block->order);
	if (order != block->order)
		block_set_order(pool, block, order);
}

static bool segment_is_idle(const struct hmm_devmem_pool_segment *segment)
{
	return segment->nr_taken == segment->nr_disabled;
}

/* Account for @nr bits of @block that were set (or cleared, if @nr < 0). */
static void block_account(struct hmm_devmem_pool *pool,
			  struct hmm_devmem_pool_segment *segment,
			  struct hmm_devmem_block *block, int nr)
{
	const bool was_idle = segment_is_idle(segment);

	lockdep_assert_held(&pool->blocks_lock);

	block->nr_taken += nr;
	segment->nr_taken += nr;
	pool->nr_taken += nr;
	pool->nr_idle += segment_is_idle(segment) - was_idle;
	block_relist(pool, block, nr < 0);

	if (IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG))
		WARN_ON_ONCE(block->nr_taken !=
			     bitmap_weight(block_map(pool, segment, block, segment->taken),
					   block_size(pool)));
}

static void block_take(struct hmm_devmem_pool *pool,
		       struct hmm_devmem_pool_segment *segment,
		       struct hmm_devmem_block *block,
		       unsigned int bit, unsigned int nr)
{
	unsigned long *taken = block_map(pool, segment, block, segment->taken);

	/* A large folio takes a whole block: set words rather than bits. */
	if (nr >= BITS_PER_LONG && nr == block_size(pool))
		bitmap_fill(taken, nr);
	else
		bitmap_set(taken, bit, nr);
	block_account(pool, segment, block, nr);
}

/* Make a block that was never used ready for the lists. */
static void block_activate(struct hmm_devmem_pool *pool,
			   struct hmm_devmem_pool_segment *segment,
			   struct hmm_devmem_block *block)
{
	INIT_LIST_HEAD(&block->node);
	block->pfn = segment->base + ((unsigned long)(block - segment->blocks) <<
				      pool->block_order);
	block->order = -1;
	block_set_order(pool, block, pool->block_order);
}

static struct hmm_devmem_block *fresh_block(struct hmm_devmem_pool *pool)
{
	struct hmm_devmem_block *block;
	struct hmm_devmem_pool_segment *segment;

	while (!list_empty(&pool->fresh)) {
		segment = list_first_entry(&pool->fresh, struct hmm_devmem_pool_segment,
					   node);
		block = &segment->blocks[segment->next_fresh++];
		if (segment->next_fresh == segment->nr_blocks)
			list_del_init(&segment->node);
		if (!block_is_active(block)) {
			block_activate(pool, segment, block);
			return block;
		}
	}
	return NULL;
}

/*
 * Take the first free run of @block, of at most @max pages.
 * Returns its length, which is not 0: the block was not full.
 */
static unsigned int block_take_run(struct hmm_devmem_pool *pool,
				   struct hmm_devmem_block *block,
				   unsigned int max, unsigned long *pfn)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, block->pfn);
	unsigned long *taken = block_map(pool, segment, block, segment->taken);
	unsigned int first, end;

	first = find_first_zero_bit(taken, block_size(pool));
	end = find_next_bit(taken, min(first + max, block_size(pool)), first);
	block_take(pool, segment, block, first, end - first);
	*pfn = block->pfn + first;
	return end - first;
}

/* A block that may have a free piece of 2^@order pages; a partial one if possible. */
static struct hmm_devmem_block *first_block(struct hmm_devmem_pool *pool,
					    unsigned int order)
{
	const unsigned long orders = pool->free_orders >> order;

	lockdep_assert_held(&pool->blocks_lock);

	if (!orders)
		return fresh_block(pool);
	return list_first_entry(&pool->free[order + __ffs(orders)],
				struct hmm_devmem_block, node);
}

/**
 * hmm_devmem_block_take_run() - Take contiguous pages
 * @pool: The pool, locked.
 * @max: How many pages at most, not 0.
 * @pfn: The first of them.
 *
 * They are of a partial block if there is one: of those, one with the smallest
 * pieces.
 *
 * Return: How many pages, 0 if there is none.
 */
unsigned int hmm_devmem_block_take_run(struct hmm_devmem_pool *pool,
				       unsigned int max, unsigned long *pfn)
{
	struct hmm_devmem_block *block;

	lockdep_assert_held(&pool->blocks_lock);

	block = first_block(pool, 0);
	return block ? block_take_run(pool, block, max, pfn) : 0;
}

/* The first bit of each aligned piece of 2^@order clear bits in a word of @taken. */
static unsigned long word_find_order(unsigned long taken, unsigned int order)
{
	unsigned long free = ~taken;
	unsigned int i;

	for (i = 0; i < order; i++)
		free &= free >> (1U << i);
	/* Keep only the aligned pieces: one bit in 2^@order. */
	return free & (~0UL / (~0UL >> (BITS_PER_LONG - (1U << order))));
}

/*
 * The first free, aligned piece of 2^@order pages in a bitmap of @size bits, or
 * @size. bitmap_find_next_zero_area() would take a step for each run of free pages,
 * and a hundred times as long.
 */
static unsigned int map_find_order(const unsigned long *taken, unsigned int size,
				   unsigned int order)
{
	const unsigned long beyond = size < BITS_PER_LONG ? GENMASK(BITS_PER_LONG - 1, size) : 0;
	const unsigned int nr = 1U << order;
	unsigned long found;
	unsigned int bit;

	for (bit = 0; bit < size; bit += max(nr, BITS_PER_LONG)) {
		if (nr >= BITS_PER_LONG) {
			if (find_next_bit(taken, bit + nr, bit) == bit + nr)
				return bit;
			continue;
		}
		found = word_find_order(taken[BIT_WORD(bit)] | beyond, order);
		if (found)
			return bit + __ffs(found);
	}
	return size;
}

/* Take a piece of @block. If it has none, find out how large its largest piece is. */
static bool block_take_order(struct hmm_devmem_pool *pool,
			     struct hmm_devmem_block *block,
			     unsigned int order, unsigned long *pfn)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, block->pfn);
	unsigned long *taken = block_map(pool, segment, block, segment->taken);
	const unsigned int size = block_size(pool);
	unsigned int bit = 0;

	if (!block_is_whole(block))
		bit = map_find_order(taken, size, order);
	if (bit < size) {
		block_take(pool, segment, block, bit, 1U << order);
		*pfn = block->pfn + bit;
		return true;
	}
	/* This ends, because the block has a free page. */
	while (map_find_order(taken, size, --order) == size)
		;
	block_set_order(pool, block, order);
	pool->nr_searched++;
	return false;
}

/**
 * hmm_devmem_block_take_order() - Take a naturally aligned piece
 * @pool: The pool, locked.
 * @order: 2^@order pages, at most a block.
 * @pfn: The first of them.
 *
 * How much this searches does not depend on the number of blocks. The size of a
 * block's largest piece, found by a search in vain, is remembered until pages of the
 * block are freed, so that the next call goes on with other blocks.
 *
 * Return: 0, -ENOMEM if there is none, or 1 if it is to be called again after the
 * lock has been released for a moment.
 */
int hmm_devmem_block_take_order(struct hmm_devmem_pool *pool,
				unsigned int order, unsigned long *pfn)
{
	struct hmm_devmem_block *block;
	unsigned int tries;

	lockdep_assert_held(&pool->blocks_lock);

	for (tries = 0; tries < HMM_DEVMEM_PARTIAL_TRIES; tries++) {
		block = first_block(pool, order);
		if (!block)
			return -ENOMEM;
		if (block_take_order(pool, block, order, pfn))
			return 0;
	}
	block = first_block(pool, pool->block_order);
	if (!block)
		return 1;
	block_take_order(pool, block, order, pfn);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_block_take_order);

/* Account for @nr pages of @block whose bits are set and will remain set. */
static void count_disabled(struct hmm_devmem_pool *pool,
			   struct hmm_devmem_pool_segment *segment,
			   struct hmm_devmem_block *block, unsigned int nr)
{
	const bool was_idle = segment_is_idle(segment);

	block->nr_disabled += nr;
	segment->nr_disabled += nr;
	pool->nr_disabled += nr;
	pool->nr_idle += segment_is_idle(segment) - was_idle;
}

/*
 * Are all retired pages of @block disabled? No bit tells that for a single page, but
 * their number is enough to keep the counts right when one is freed twice.
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
 */
void hmm_devmem_block_disable(struct hmm_devmem_pool *pool,
			      struct hmm_devmem_pool_segment *segment, unsigned long pfn,
			      unsigned int nr)
{
	struct hmm_devmem_block *block = pfn_block(pool, segment, pfn);

	if (!block_is_active(block))
		block_activate(pool, segment, block);
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
 * @pfns: Filled with pages in use, and those that were retired, in use or not.
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
 * hmm_devmem_pool_block_taken() - Number of pages of a block that are not free
 * @pool: The pool.
 * @pfn: A page of the block.
 *
 * Context: Any context. The segment is not depopulated meanwhile.
 * Return: Number of pages with cached and disabled ones, or -ENOENT if there are no
 * struct pages.
 */
int hmm_devmem_pool_block_taken(struct hmm_devmem_pool *pool,
				unsigned long pfn)
{
	struct hmm_devmem_pool_segment *segment = pfn_segment(pool, pfn);

	return segment ? READ_ONCE(pfn_block(pool, segment, pfn)->nr_taken) : -ENOENT;
}

/**
 * hmm_devmem_pool_block_has_only() - Is there nothing else in a block?
 * @pool: The pool.
 * @pfn: A page of the block.
 * @nr: Number of pages.
 *
 * Context: Any context.
 * Return: True if no more than @nr pages of the block are in use or cached.
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
