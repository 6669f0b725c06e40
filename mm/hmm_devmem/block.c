// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks of device pages and the areas they lie in: the allocator's bitmaps.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/align.h>
#include <linux/bitmap.h>
#include <linux/bug.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * How many partial blocks are searched for a piece of several pages before an
 * empty block is broken up for it.
 */
#define HMM_DEVMEM_PARTIAL_TRIES	8

static unsigned int block_size(const struct hmm_devmem_alloc *alloc)
{
	return 1U << alloc->block_order;
}

/* Blocks have their own words in the bitmaps, also if they are tiny. */
static unsigned int block_stride(const struct hmm_devmem_alloc *alloc)
{
	return BITS_TO_LONGS(block_size(alloc));
}

static struct hmm_devmem_area *pfn_area(const struct hmm_devmem_alloc *alloc,
					unsigned long pfn)
{
	return alloc->areas[(pfn - alloc->base) >> alloc->area_shift];
}

static struct hmm_devmem_block *pfn_block(const struct hmm_devmem_alloc *alloc,
					  struct hmm_devmem_area *area,
					  unsigned long pfn)
{
	return &area->blocks[(pfn - area->base) >> alloc->block_order];
}

static unsigned int pfn_bit(const struct hmm_devmem_alloc *alloc,
			    unsigned long pfn)
{
	return pfn & (block_size(alloc) - 1);
}

/* The part of @map, a bitmap of @area, that belongs to @block. */
static unsigned long *block_map(const struct hmm_devmem_alloc *alloc,
				const struct hmm_devmem_area *area,
				const struct hmm_devmem_block *block,
				unsigned long *map)
{
	return map + (block - area->blocks) * block_stride(alloc);
}

static bool block_is_whole(const struct hmm_devmem_block *block)
{
	return !block->nr_used;
}

static bool block_is_full(const struct hmm_devmem_alloc *alloc,
			  const struct hmm_devmem_block *block)
{
	return block->nr_used == block_size(alloc);
}

/* Bits [@bit, @bit + @nr) of @block have been set (or cleared, @nr < 0). */
static void block_account(struct hmm_devmem_alloc *alloc,
			  struct hmm_devmem_area *area,
			  struct hmm_devmem_block *block, int nr)
{
	const bool was_whole = block_is_whole(block);

	lockdep_assert_held(&alloc->lock);

	block->nr_used += nr;
	area->nr_used += nr;
	alloc->nr_used += nr;

	if (block_is_full(alloc, block))
		list_del_init(&block->node);
	else if (block_is_whole(block))
		list_move(&block->node, &alloc->empty);
	else if (was_whole || list_empty(&block->node))
		list_move(&block->node, &alloc->partial);

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

	/* Whole blocks of large folios: words instead of bits. */
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
}

static bool block_is_active(const struct hmm_devmem_block *block)
{
	return block->node.next;
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

static struct hmm_devmem_block *whole_block(struct hmm_devmem_alloc *alloc)
{
	lockdep_assert_held(&alloc->lock);

	return list_first_entry_or_null(&alloc->empty, struct hmm_devmem_block,
					node) ?: fresh_block(alloc);
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

/**
 * hmm_devmem_block_take_run() - Take contiguous pages
 * @alloc: The allocator, locked.
 * @max: How many pages at most, not 0.
 * @pfn: The first of them.
 *
 * They are of a partial block if there is one.
 *
 * Return: How many pages, 0 if there is none.
 */
unsigned int hmm_devmem_block_take_run(struct hmm_devmem_alloc *alloc,
				       unsigned int max, unsigned long *pfn)
{
	struct hmm_devmem_block *block;

	lockdep_assert_held(&alloc->lock);

	block = list_first_entry_or_null(&alloc->partial,
					 struct hmm_devmem_block, node);
	if (!block)
		block = whole_block(alloc);
	return block ? block_take_run(alloc, block, max, pfn) : 0;
}

static bool block_take_order(struct hmm_devmem_alloc *alloc,
			     struct hmm_devmem_block *block,
			     unsigned int order, unsigned long *pfn)
{
	struct hmm_devmem_area *area = pfn_area(alloc, block->pfn);
	unsigned long *used = block_map(alloc, area, block, area->used);
	const unsigned int nr = 1U << order;
	unsigned long bit = 0;

	if (block_size(alloc) - block->nr_used < nr)
		return false;
	if (!block_is_whole(block))
		bit = bitmap_find_next_zero_area(used, block_size(alloc), 0, nr,
						 nr - 1);
	if (bit >= block_size(alloc))
		return false;
	block_take(alloc, area, block, bit, nr);
	*pfn = block->pfn + bit;
	return true;
}

static bool take_partial_order(struct hmm_devmem_alloc *alloc,
			       unsigned int order, unsigned long *pfn,
			       unsigned int tries)
{
	struct hmm_devmem_block *block;

	list_for_each_entry(block, &alloc->partial, node) {
		if (!tries--)
			break;
		if (block_take_order(alloc, block, order, pfn))
			return true;
	}
	return false;
}

/**
 * hmm_devmem_block_take_order() - Take a naturally aligned piece
 * @alloc: The allocator, locked.
 * @order: 2^@order pages, at most a block.
 * @pfn: The first of them.
 *
 * Return: False if there is none.
 */
bool hmm_devmem_block_take_order(struct hmm_devmem_alloc *alloc,
				 unsigned int order, unsigned long *pfn)
{
	const bool small = order < alloc->block_order;
	struct hmm_devmem_block *block;

	lockdep_assert_held(&alloc->lock);

	if (small && take_partial_order(alloc, order, pfn,
					HMM_DEVMEM_PARTIAL_TRIES))
		return true;
	block = whole_block(alloc);
	if (block)
		return block_take_order(alloc, block, order, pfn);
	return small && take_partial_order(alloc, order, pfn, UINT_MAX);
}

/* @nr pages of @block that are set now will stay so. */
static void count_lost(struct hmm_devmem_alloc *alloc,
		       struct hmm_devmem_area *area,
		       struct hmm_devmem_block *block, unsigned int nr)
{
	block->nr_lost += nr;
	area->nr_lost += nr;
	alloc->nr_lost += nr;
}

/*
 * Are all retired pages of @block lost? No bit tells that of a single page, but
 * their number is enough for the counts to stay right when one is freed twice.
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

	if (nr >= BITS_PER_LONG && nr == block_size(alloc) &&
	    likely(!alloc->nr_retired && bitmap_full(used, nr))) {
		bitmap_zero(used, nr);
		return nr;
	}
	if (likely(!alloc->nr_retired &&
		   find_next_zero_bit(used, end, bit) == end)) {
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

/* A page that is free now will never be handed out (again). */
static void area_lose(struct hmm_devmem_alloc *alloc,
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
 * __hmm_devmem_block_set_live() - Note that somebody has got or freed pages
 * @alloc: The allocator; not locked, @pfn is the caller's.
 * @pfn: The first page.
 * @order: 2^@order pages.
 * @live: True for got, false for freed.
 *
 * For debug kernels: a page that is freed twice must not reach a per-CPU cache,
 * which would hand it out twice.
 *
 * Return: False if that was so already.
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

/**
 * hmm_devmem_block_retire() - A page is not to be handed out again
 * @alloc: The allocator, locked.
 * @pfn: The page. If it is in use or in a per-CPU cache it is lost when it comes
 *	back to its block. If it has no struct page, nothing happens.
 */
void hmm_devmem_block_retire(struct hmm_devmem_alloc *alloc, unsigned long pfn)
{
	struct hmm_devmem_area *area = pfn_area(alloc, pfn);
	const unsigned int bit = pfn_bit(alloc, pfn);
	struct hmm_devmem_block *block;

	lockdep_assert_held(&alloc->lock);

	if (!area)
		return;
	block = pfn_block(alloc, area, pfn);
	if (__test_and_set_bit(bit, block_map(alloc, area, block, area->retired)))
		return;
	WRITE_ONCE(alloc->nr_retired, alloc->nr_retired + 1);
	if (!test_bit(bit, block_map(alloc, area, block, area->used)))
		area_lose(alloc, area, pfn, 1);
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
		*pfn = next;
	}
	return nr;
}

/**
 * hmm_devmem_alloc_in_use() - Find pages that somebody has allocated
 * @alloc: The allocator.
 * @pfn: Where to start; set to where to go on.
 * @end: One past the last pfn of interest.
 * @pfns: Filled with pfns in ascending order, all of one block. Some may be in
 *	a per-CPU cache, unless the caches were drained before. Retired pages are
 *	left out.
 * @max: Size of @pfns; at least a block.
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
 * @alloc: As for hmm_devmem_alloc_in_use(), like all other parameters.
 * @pfn: "
 * @end: "
 * @pfns: Pages in use, and those that were retired, in use or not.
 * @max: "
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
 * hmm_devmem_area_free() - Free the memory of an area
 * @area: The area, or NULL.
 */
void hmm_devmem_area_free(struct hmm_devmem_area *area)
{
	if (!area)
		return;
	kvfree(area->used);
	kvfree(area->retired);
	kvfree(area->live);
	kvfree(area);
}

static struct hmm_devmem_area *area_alloc(struct hmm_devmem_alloc *alloc,
					  unsigned int nr_blocks)
{
	const size_t words = size_mul(nr_blocks, block_stride(alloc));
	struct hmm_devmem_area *area;

	area = kvzalloc_flex(*area, blocks, nr_blocks);
	if (!area)
		return NULL;
	area->nr_blocks = nr_blocks;
	INIT_LIST_HEAD(&area->node);
	area->used = kvcalloc(words, sizeof(long), GFP_KERNEL);
	area->retired = kvcalloc(words, sizeof(long), GFP_KERNEL);
	if (IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG))
		area->live = kvcalloc(words, sizeof(long), GFP_KERNEL);
	if (area->used && area->retired &&
	    (area->live || !IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG)))
		return area;
	hmm_devmem_area_free(area);
	return NULL;
}

/* The device does not have the pages [@pfn, @pfn + @nr), at an end of @area. */
static void area_trim(struct hmm_devmem_alloc *alloc,
		      struct hmm_devmem_area *area, unsigned long pfn,
		      unsigned int nr)
{
	struct hmm_devmem_block *block;

	if (!nr)
		return;
	block = pfn_block(alloc, area, pfn);
	bitmap_set(block_map(alloc, area, block, area->retired),
		   pfn_bit(alloc, pfn), nr);
	area->nr_absent += nr;
	alloc->nr_absent += nr;
	area_lose(alloc, area, pfn, nr);
}

/**
 * hmm_devmem_alloc_populate() - Let the pages of an area be allocated
 * @alloc: The allocator.
 * @idx: Which area, less than &hmm_devmem_alloc.nr_areas. It must not be
 *	populated yet; the caller sees to it that nobody else does it.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -ENOMEM and nothing is changed.
 */
int hmm_devmem_alloc_populate(struct hmm_devmem_alloc *alloc, unsigned int idx)
{
	unsigned long start = alloc->base + ((unsigned long)idx << alloc->area_shift);
	unsigned long end = min(start + (1UL << alloc->area_shift), alloc->last);
	unsigned int nr_blocks = DIV_ROUND_UP(end - start, block_size(alloc));
	struct hmm_devmem_area *area;
	unsigned long flags;

	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_alloc_populate, alloc, idx);

	area = area_alloc(alloc, nr_blocks);
	if (!area)
		return -ENOMEM;
	area->base = start;

	spin_lock_irqsave(&alloc->lock, flags);
	alloc->areas[idx] = area;
	list_add_tail(&area->node, &alloc->fresh);
	area_trim(alloc, area, start, max(start, alloc->first) - start);
	area_trim(alloc, area, end,
		  start + ((unsigned long)nr_blocks << alloc->block_order) - end);
	spin_unlock_irqrestore(&alloc->lock, flags);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_populate);

/**
 * hmm_devmem_alloc_depopulate() - Take an area with no page in use away
 * @alloc: The allocator.
 * @idx: Which area; it must be populated.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -EBUSY if pages of the area are in use, cached or retired;
 * nothing is changed then.
 */
int hmm_devmem_alloc_depopulate(struct hmm_devmem_alloc *alloc,
				unsigned int idx)
{
	struct hmm_devmem_area *area;
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&alloc->lock, flags);
	area = alloc->areas[idx];
	if (area->nr_used != area->nr_absent) {
		spin_unlock_irqrestore(&alloc->lock, flags);
		return -EBUSY;
	}
	for (i = 0; i < area->nr_blocks; i++)
		if (block_is_active(&area->blocks[i]))
			list_del(&area->blocks[i].node);
	list_del(&area->node);
	alloc->areas[idx] = NULL;
	alloc->nr_used -= area->nr_used;
	alloc->nr_lost -= area->nr_lost;
	alloc->nr_absent -= area->nr_absent;
	spin_unlock_irqrestore(&alloc->lock, flags);

	hmm_devmem_area_free(area);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_depopulate);
