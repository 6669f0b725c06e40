// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks of device pages: the allocator's bitmaps.
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
#include "internal.h"

/*
 * How many partial blocks are searched for a piece of several pages before an
 * empty block is broken up for it, or, if there is none, the lock is released for
 * a moment. Each of them takes less than a microsecond.
 */
#define HMM_DEVMEM_PARTIAL_TRIES	8

static bool block_is_whole(const struct hmm_devmem_block *block)
{
	return !block->nr_used;
}

/* Put @block on the list of the largest free piece that it can have. */
static void block_relist(struct hmm_devmem_alloc *alloc,
			 struct hmm_devmem_block *block, bool freed)
{
	int order = fls(block_size(alloc) - block->nr_used) - 1;

	/* When pages are taken, the largest free piece does not become larger. */
	if (!freed)
		order = min(order, block->order);
	if (order != block->order)
		block_set_order(alloc, block, order);
}

static bool area_is_idle(const struct hmm_devmem_area *area)
{
	return area->nr_used == area->nr_lost;
}

/* Account for @nr bits of @block that were set (or cleared, if @nr < 0). */
static void block_account(struct hmm_devmem_alloc *alloc,
			  struct hmm_devmem_area *area,
			  struct hmm_devmem_block *block, int nr)
{
	const bool was_idle = area_is_idle(area);

	lockdep_assert_held(&alloc->lock);

	block->nr_used += nr;
	area->nr_used += nr;
	alloc->nr_used += nr;
	alloc->nr_idle += area_is_idle(area) - was_idle;
	block_relist(alloc, block, nr < 0);

	if (IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG))
		WARN_ON_ONCE(block->nr_used !=
			     bitmap_weight(block_map(alloc, area, block, area->used),
					   block_size(alloc)));
}

static void block_take(struct hmm_devmem_alloc *alloc,
		       struct hmm_devmem_area *area,
		       struct hmm_devmem_block *block,
		       unsigned int bit, unsigned int nr)
{
	unsigned long *used = block_map(alloc, area, block, area->used);

	/* A large folio takes a whole block: set words rather than bits. */
	if (nr >= BITS_PER_LONG && nr == block_size(alloc))
		bitmap_fill(used, nr);
	else
		bitmap_set(used, bit, nr);
	block_account(alloc, area, block, nr);
}

/* Make a block that was never used ready for the lists. */
static void block_activate(struct hmm_devmem_alloc *alloc,
			   struct hmm_devmem_area *area,
			   struct hmm_devmem_block *block)
{
	INIT_LIST_HEAD(&block->node);
	block->pfn = area->base + ((unsigned long)(block - area->blocks) <<
				   alloc->block_order);
	block->order = -1;
	block_set_order(alloc, block, alloc->block_order);
}

static struct hmm_devmem_block *fresh_block(struct hmm_devmem_alloc *alloc)
{
	struct hmm_devmem_block *block;
	struct hmm_devmem_area *area;

	while (!list_empty(&alloc->fresh)) {
		area = list_first_entry(&alloc->fresh, struct hmm_devmem_area,
					node);
		block = &area->blocks[area->next_fresh++];
		if (area->next_fresh == area->nr_blocks)
			list_del_init(&area->node);
		if (!block_is_active(block)) {
			block_activate(alloc, area, block);
			return block;
		}
	}
	return NULL;
}

/*
 * Take the first free run of @block, of at most @max pages.
 * Returns its length, which is not 0: the block was not full.
 */
static unsigned int block_take_run(struct hmm_devmem_alloc *alloc,
				   struct hmm_devmem_block *block,
				   unsigned int max, unsigned long *pfn)
{
	struct hmm_devmem_area *area = pfn_area(alloc, block->pfn);
	unsigned long *used = block_map(alloc, area, block, area->used);
	unsigned int first, end;

	first = find_first_zero_bit(used, block_size(alloc));
	end = find_next_bit(used, min(first + max, block_size(alloc)), first);
	block_take(alloc, area, block, first, end - first);
	*pfn = block->pfn + first;
	return end - first;
}

/* A block that may have a free piece of 2^@order pages; a partial one if possible. */
static struct hmm_devmem_block *first_block(struct hmm_devmem_alloc *alloc,
					    unsigned int order)
{
	const unsigned long orders = alloc->free_orders >> order;

	lockdep_assert_held(&alloc->lock);

	if (!orders)
		return fresh_block(alloc);
	return list_first_entry(&alloc->free[order + __ffs(orders)],
				struct hmm_devmem_block, node);
}

/**
 * hmm_devmem_block_take_run() - Take contiguous pages
 * @alloc: The allocator, locked.
 * @max: How many pages at most, not 0.
 * @pfn: The first of them.
 *
 * They are of a partial block if there is one: of those, one with the smallest
 * pieces.
 *
 * Return: How many pages, 0 if there is none.
 */
unsigned int hmm_devmem_block_take_run(struct hmm_devmem_alloc *alloc,
				       unsigned int max, unsigned long *pfn)
{
	struct hmm_devmem_block *block;

	lockdep_assert_held(&alloc->lock);

	block = first_block(alloc, 0);
	return block ? block_take_run(alloc, block, max, pfn) : 0;
}

/* The first bit of each aligned piece of 2^@order clear bits in a word of @used. */
static unsigned long word_find_order(unsigned long used, unsigned int order)
{
	unsigned long free = ~used;
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
static unsigned int map_find_order(const unsigned long *used, unsigned int size,
				   unsigned int order)
{
	const unsigned long beyond = size < BITS_PER_LONG ? GENMASK(BITS_PER_LONG - 1, size) : 0;
	const unsigned int nr = 1U << order;
	unsigned long found;
	unsigned int bit;

	for (bit = 0; bit < size; bit += max(nr, BITS_PER_LONG)) {
		if (nr >= BITS_PER_LONG) {
			if (find_next_bit(used, bit + nr, bit) == bit + nr)
				return bit;
			continue;
		}
		found = word_find_order(used[BIT_WORD(bit)] | beyond, order);
		if (found)
			return bit + __ffs(found);
	}
	return size;
}

/* Take a piece of @block. If it has none, find out how large its largest piece is. */
static bool block_take_order(struct hmm_devmem_alloc *alloc,
			     struct hmm_devmem_block *block,
			     unsigned int order, unsigned long *pfn)
{
	struct hmm_devmem_area *area = pfn_area(alloc, block->pfn);
	unsigned long *used = block_map(alloc, area, block, area->used);
	const unsigned int size = block_size(alloc);
	unsigned int bit = 0;

	if (!block_is_whole(block))
		bit = map_find_order(used, size, order);
	if (bit < size) {
		block_take(alloc, area, block, bit, 1U << order);
		*pfn = block->pfn + bit;
		return true;
	}
	/* This ends, because the block has a free page. */
	while (map_find_order(used, size, --order) == size)
		;
	block_set_order(alloc, block, order);
	alloc->nr_searched++;
	return false;
}

/**
 * hmm_devmem_block_take_order() - Take a naturally aligned piece
 * @alloc: The allocator, locked.
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
int hmm_devmem_block_take_order(struct hmm_devmem_alloc *alloc,
				unsigned int order, unsigned long *pfn)
{
	struct hmm_devmem_block *block;
	unsigned int tries;

	lockdep_assert_held(&alloc->lock);

	for (tries = 0; tries < HMM_DEVMEM_PARTIAL_TRIES; tries++) {
		block = first_block(alloc, order);
		if (!block)
			return -ENOMEM;
		if (block_take_order(alloc, block, order, pfn))
			return 0;
	}
	block = first_block(alloc, alloc->block_order);
	if (!block)
		return 1;
	block_take_order(alloc, block, order, pfn);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_block_take_order);

/* Account for @nr pages of @block whose bits are set and will remain set. */
static void count_lost(struct hmm_devmem_alloc *alloc,
		       struct hmm_devmem_area *area,
		       struct hmm_devmem_block *block, unsigned int nr)
{
	const bool was_idle = area_is_idle(area);

	block->nr_lost += nr;
	area->nr_lost += nr;
	alloc->nr_lost += nr;
	alloc->nr_idle += area_is_idle(area) - was_idle;
}

/*
 * Are all retired pages of @block lost? No bit tells that for a single page, but
 * their number is enough to keep the counts right when one is freed twice.
 */
static bool block_has_lost_all(const struct hmm_devmem_alloc *alloc,
			       const struct hmm_devmem_area *area,
			       const struct hmm_devmem_block *block)
{
	return block->nr_lost == bitmap_weight(block_map(alloc, area, block,
							 area->retired),
					       block_size(alloc));
}

/* Clear the bit of a page that is freed. Returns how many were: one or none. */
static unsigned int block_clear_page(struct hmm_devmem_alloc *alloc,
				     struct hmm_devmem_area *area,
				     struct hmm_devmem_block *block,
				     unsigned int bit)
{
	unsigned long *retired = block_map(alloc, area, block, area->retired);

	if (unlikely(alloc->nr_retired && test_bit(bit, retired))) {
		if (!WARN_ON_ONCE(block_has_lost_all(alloc, area, block)))
			count_lost(alloc, area, block, 1);
		return 0;
	}
	return !WARN_ON_ONCE(!__test_and_clear_bit(bit, block_map(alloc, area,
								  block,
								  area->used)));
}

/* Clear the bits of pages that are freed. Returns how many were. */
static unsigned int block_clear_run(struct hmm_devmem_alloc *alloc,
				    struct hmm_devmem_area *area,
				    struct hmm_devmem_block *block,
				    unsigned int bit, unsigned int nr)
{
	unsigned long *used = block_map(alloc, area, block, area->used);
	const unsigned int end = bit + nr;
	bool retired = false;

	if (unlikely(alloc->nr_retired))
		retired = find_next_bit(block_map(alloc, area, block,
						  area->retired),
					end, bit) < end;
	if (nr >= BITS_PER_LONG && nr == block_size(alloc) &&
	    likely(!retired && bitmap_full(used, nr))) {
		bitmap_zero(used, nr);
		return nr;
	}
	if (likely(!retired && find_next_zero_bit(used, end, bit) == end)) {
		bitmap_clear(used, bit, nr);
		return nr;
	}
	for (nr = 0; bit < end; bit++)
		nr += block_clear_page(alloc, area, block, bit);
	return nr;
}

/**
 * hmm_devmem_block_put() - Give pages back to their block
 * @alloc: The allocator, locked.
 * @pfn: The first page.
 * @order: 2^@order pages, all of one block.
 *
 * Retired pages are lost from now on. A page that is free already is left alone,
 * with a warning: it has been freed twice.
 */
void hmm_devmem_block_put(struct hmm_devmem_alloc *alloc, unsigned long pfn,
			  unsigned int order)
{
	struct hmm_devmem_area *area = pfn_area(alloc, pfn);
	struct hmm_devmem_block *block = pfn_block(alloc, area, pfn);
	unsigned int nr;

	lockdep_assert_held(&alloc->lock);

	nr = block_clear_run(alloc, area, block, pfn_bit(alloc, pfn), 1U << order);
	if (nr)
		block_account(alloc, area, block, -(int)nr);
}

/* Length of the run of consecutive pages of one block that @pfns begins with. */
static unsigned int pfns_run(const struct hmm_devmem_alloc *alloc,
			     const unsigned long *pfns, unsigned int nr)
{
	const unsigned int rest = block_size(alloc) - pfn_bit(alloc, pfns[0]);
	unsigned int run = 1;

	nr = min(nr, rest);
	while (run < nr && pfns[run] == pfns[0] + run)
		run++;
	return run;
}

/**
 * hmm_devmem_block_put_bulk() - Give single pages back to their blocks
 * @alloc: The allocator, locked.
 * @pfns: The pages. It is faster if neighbours in the array are neighbours.
 * @nr: How many.
 */
void hmm_devmem_block_put_bulk(struct hmm_devmem_alloc *alloc,
			       const unsigned long *pfns, unsigned int nr)
{
	struct hmm_devmem_block *block = NULL;
	struct hmm_devmem_area *area = NULL;
	unsigned int run, cleared = 0;

	lockdep_assert_held(&alloc->lock);

	for (; nr; pfns += run, nr -= run) {
		if (!block || pfns[0] - block->pfn >= block_size(alloc)) {
			if (cleared)
				block_account(alloc, area, block, -(int)cleared);
			area = pfn_area(alloc, pfns[0]);
			block = pfn_block(alloc, area, pfns[0]);
			cleared = 0;
		}
		if (nr == 1 || pfns[1] != pfns[0] + 1) {
			run = 1;
			cleared += block_clear_page(alloc, area, block,
						    pfn_bit(alloc, pfns[0]));
			continue;
		}
		run = pfns_run(alloc, pfns, nr);
		cleared += block_clear_run(alloc, area, block,
					   pfn_bit(alloc, pfns[0]), run);
	}
	if (cleared)
		block_account(alloc, area, block, -(int)cleared);
}

/**
 * hmm_devmem_area_lose() - Never hand out free pages (again)
 * @alloc: The allocator, locked.
 * @area: The area of the pages.
 * @pfn: The first of them.
 * @nr: How many; all of one block.
 */
void hmm_devmem_area_lose(struct hmm_devmem_alloc *alloc,
			  struct hmm_devmem_area *area, unsigned long pfn,
			  unsigned int nr)
{
	struct hmm_devmem_block *block = pfn_block(alloc, area, pfn);

	if (!block_is_active(block))
		block_activate(alloc, area, block);
	count_lost(alloc, area, block, nr);
	block_take(alloc, area, block, pfn_bit(alloc, pfn), nr);
}

/**
 * __hmm_devmem_block_set_live() - Note that pages were allocated or freed
 * @alloc: The allocator; not locked, @pfn is the caller's.
 * @pfn: The first page.
 * @order: 2^@order pages.
 * @live: True for allocated, false for freed.
 *
 * For debug kernels: a page that is freed twice must not reach a per-CPU cache,
 * which would hand it out twice.
 *
 * Return: False if a page was allocated, or free, already.
 */
bool __hmm_devmem_block_set_live(struct hmm_devmem_alloc *alloc,
				 unsigned long pfn, unsigned int order,
				 bool live)
{
	struct hmm_devmem_area *area = pfn_area(alloc, pfn);
	unsigned int i;
	bool ok = true;

	for (i = 0; i < 1U << order; i++)
		if (live)
			ok &= !test_and_set_bit(pfn + i - area->base, area->live);
		else
			ok &= test_and_clear_bit(pfn + i - area->base, area->live);
	return !WARN_ONCE(!ok, "pfn %#lx order %u %s twice\n", pfn, order,
			  live ? "allocated" : "freed");
}

/* Retire a page without struct page. False if there is no bitmap to remember it in. */
static bool retire_absent(struct hmm_devmem_alloc *alloc, unsigned long pfn)
{
	const unsigned int idx = pfn_area_idx(alloc, pfn);
	unsigned long *map = alloc->bad[idx];

	if (!map)
		return false;
	map += ((pfn - area_start(alloc, idx)) >> alloc->block_order) *
	       block_stride(alloc);
	if (!__test_and_set_bit(pfn_bit(alloc, pfn), map))
		WRITE_ONCE(alloc->nr_retired, alloc->nr_retired + 1);
	return true;
}

/**
 * hmm_devmem_block_retire() - Never hand a page out again
 * @alloc: The allocator, not locked.
 * @pfn: The page. If it is in use or in a per-CPU cache it is lost when it comes
 *	back to its block. If it has no struct page, it is lost when it gets one.
 *
 * Context: Any context.
 * Return: False if hmm_devmem_alloc_reserve_bad() is to be called first.
 */
bool hmm_devmem_block_retire(struct hmm_devmem_alloc *alloc, unsigned long pfn)
{
	const unsigned int bit = pfn_bit(alloc, pfn);
	struct hmm_devmem_block *block;
	struct hmm_devmem_area *area;

	guard(spinlock_irqsave)(&alloc->lock);
	area = pfn_area(alloc, pfn);
	if (!area)
		return retire_absent(alloc, pfn);
	block = pfn_block(alloc, area, pfn);
	if (__test_and_set_bit(bit, block_map(alloc, area, block, area->retired)))
		return true;
	WRITE_ONCE(alloc->nr_retired, alloc->nr_retired + 1);
	if (!test_bit(bit, block_map(alloc, area, block, area->used)))
		hmm_devmem_area_lose(alloc, area, pfn, 1);
	return true;
}

/**
 * __hmm_devmem_alloc_retired() - Is a page never to be handed out again?
 * @alloc: The allocator.
 * @pfn: A page that is in use.
 *
 * Context: Any context.
 * Return: True if it was retired.
 */
bool __hmm_devmem_alloc_retired(struct hmm_devmem_alloc *alloc,
				unsigned long pfn)
{
	struct hmm_devmem_area *area = pfn_area(alloc, pfn);
	struct hmm_devmem_block *block = pfn_block(alloc, area, pfn);

	return test_bit(pfn_bit(alloc, pfn),
			block_map(alloc, area, block, area->retired));
}

static unsigned int block_in_use(struct hmm_devmem_alloc *alloc,
				 struct hmm_devmem_area *area,
				 struct hmm_devmem_block *block,
				 unsigned long pfn, unsigned long end,
				 unsigned long *pfns, unsigned int max,
				 bool with_retired)
{
	unsigned long *retired = block_map(alloc, area, block, area->retired);
	unsigned long *used = block_map(alloc, area, block, area->used);
	unsigned int nr = 0;
	unsigned long flags;

	spin_lock_irqsave(&alloc->lock, flags);
	for (; pfn < end && nr < max; pfn++)
		if (test_bit(pfn_bit(alloc, pfn), used) &&
		    (with_retired || !test_bit(pfn_bit(alloc, pfn), retired)))
			pfns[nr++] = pfn;
	spin_unlock_irqrestore(&alloc->lock, flags);
	return nr;
}

static unsigned int alloc_in_use(struct hmm_devmem_alloc *alloc,
				 unsigned long *pfn, unsigned long end,
				 unsigned long *pfns, unsigned int max,
				 bool with_retired)
{
	unsigned int nr = 0;

	*pfn = max(*pfn, alloc->first);
	end = min(end, alloc->last);
	while (*pfn < end && !nr) {
		struct hmm_devmem_area *area = pfn_area(alloc, *pfn);
		unsigned long next = ALIGN(*pfn + 1, block_size(alloc));
		struct hmm_devmem_block *block;

		if (!area) {
			next = ((*pfn - alloc->base) >> alloc->area_shift) + 1;
			*pfn = alloc->base + (next << alloc->area_shift);
			continue;
		}
		block = pfn_block(alloc, area, *pfn);
		/* Racy, but so is the state of a page by the time it is used. */
		if (READ_ONCE(block->nr_used) != READ_ONCE(block->nr_lost))
			nr = block_in_use(alloc, area, block, *pfn,
					  min(next, end), pfns, max,
					  with_retired);
		*pfn = nr == max ? pfns[nr - 1] + 1 : next;
	}
	return nr;
}

/**
 * hmm_devmem_alloc_in_use() - Find pages that are allocated
 * @alloc: The allocator.
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
unsigned int hmm_devmem_alloc_in_use(struct hmm_devmem_alloc *alloc,
				     unsigned long *pfn, unsigned long end,
				     unsigned long *pfns, unsigned int max)
{
	return alloc_in_use(alloc, pfn, end, pfns, max, false);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_in_use);

/**
 * hmm_devmem_alloc_not_free() - Find pages that cannot be allocated
 * @alloc: The allocator.
 * @pfn: Where to start; set to where to go on.
 * @end: One past the last pfn of interest.
 * @pfns: Filled with pages in use, and those that were retired, in use or not.
 * @max: Size of @pfns.
 *
 * Context: Any context.
 * Return: As hmm_devmem_alloc_in_use().
 */
unsigned int hmm_devmem_alloc_not_free(struct hmm_devmem_alloc *alloc,
				       unsigned long *pfn, unsigned long end,
				       unsigned long *pfns, unsigned int max)
{
	return alloc_in_use(alloc, pfn, end, pfns, max, true);
}

/**
 * hmm_devmem_alloc_block_used() - Number of pages of a block that are not free
 * @alloc: The allocator.
 * @pfn: A page of the block.
 *
 * Context: Any context. The area is not depopulated meanwhile.
 * Return: Number of pages with cached and lost ones, or -ENOENT if there are no
 * struct pages.
 */
int hmm_devmem_alloc_block_used(struct hmm_devmem_alloc *alloc,
				unsigned long pfn)
{
	struct hmm_devmem_area *area = pfn_area(alloc, pfn);

	return area ? READ_ONCE(pfn_block(alloc, area, pfn)->nr_used) : -ENOENT;
}

/**
 * hmm_devmem_alloc_block_has_only() - Is there nothing else in a block?
 * @alloc: The allocator.
 * @pfn: A page of the block.
 * @nr: Number of pages.
 *
 * Context: Any context.
 * Return: True if no more than @nr pages of the block are in use or cached.
 */
bool hmm_devmem_alloc_block_has_only(struct hmm_devmem_alloc *alloc,
				     unsigned long pfn, unsigned int nr)
{
	struct hmm_devmem_block *block;
	struct hmm_devmem_area *area;

	guard(spinlock_irqsave)(&alloc->lock);
	area = pfn_area(alloc, pfn);
	if (!area)
		return true;
	block = pfn_block(alloc, area, pfn);
	return block->nr_used - block->nr_lost <= nr;
}
