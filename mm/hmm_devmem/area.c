// SPDX-License-Identifier: GPL-2.0
/*
 * Areas of blocks, which are populated and depopulated along with struct pages.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/align.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "block.h"
#include "internal.h"

static unsigned int area_nr_blocks(const struct hmm_devmem_alloc *alloc,
				   unsigned int idx)
{
	return DIV_ROUND_UP(area_end(alloc, idx) - area_start(alloc, idx),
			    block_size(alloc));
}

/* Words of a bitmap with a bit for each page of an area. */
static size_t area_words(const struct hmm_devmem_alloc *alloc, unsigned int idx)
{
	return size_mul(area_nr_blocks(alloc, idx), block_stride(alloc));
}

/**
 * hmm_devmem_alloc_reserve_bad() - Get memory for the bitmap of retired pages
 * @alloc: The allocator.
 * @pfn: The page to be retired.
 * @gfp: How to allocate the memory.
 *
 * Context: Any that @gfp can be used in.
 * Return: 0 or -ENOMEM.
 */
int hmm_devmem_alloc_reserve_bad(struct hmm_devmem_alloc *alloc,
				 unsigned long pfn, gfp_t gfp)
{
	const unsigned int idx = pfn_area_idx(alloc, pfn);
	unsigned long *map;

	map = kvcalloc(area_words(alloc, idx), sizeof(*map), gfp);
	if (!map)
		return -ENOMEM;
	scoped_guard(spinlock_irqsave, &alloc->lock)
		if (!alloc->areas[idx] && !alloc->bad[idx])
			swap(alloc->bad[idx], map);
	kvfree(map);
	return 0;
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

/* Make those pages of a new @block lost that were retired before it existed. */
static void block_lose_retired(struct hmm_devmem_alloc *alloc,
			       struct hmm_devmem_area *area,
			       struct hmm_devmem_block *block)
{
	const unsigned long *retired = block_map(alloc, area, block, area->retired);
	const unsigned long pfn = area->base + ((unsigned long)(block - area->blocks) <<
						alloc->block_order);
	unsigned int bit, end;

	for_each_set_bitrange(bit, end, retired, block_size(alloc))
		hmm_devmem_area_lose(alloc, area, pfn + bit, end - bit);
}

/* Lose the pages of a new @area that are known as retired. Returns a spare bitmap. */
static unsigned long *area_lose_retired(struct hmm_devmem_alloc *alloc,
					struct hmm_devmem_area *area,
					unsigned int idx)
{
	unsigned long *unused = area->retired;
	unsigned int i;

	lockdep_assert_held(&alloc->lock);

	if (!alloc->bad[idx])
		return NULL;
	area->retired = alloc->bad[idx];
	alloc->bad[idx] = NULL;
	for (i = 0; i < area->nr_blocks; i++)
		block_lose_retired(alloc, area, &area->blocks[i]);
	return unused;
}

/* Remember which pages of @area, which is about to be freed, were retired. */
static void area_keep_retired(struct hmm_devmem_alloc *alloc,
			      struct hmm_devmem_area *area, unsigned int idx)
{
	const unsigned long end = area_end(alloc, idx);
	const unsigned int over = -end & (block_size(alloc) - 1);

	lockdep_assert_held(&alloc->lock);

	if (area->nr_lost == area->nr_absent)
		return;
	/* Except pages that the device does not have: area_trim() finds those again. */
	if (area->base < alloc->first)
		bitmap_clear(area->retired, 0, alloc->first - area->base);
	if (over)
		bitmap_clear(block_map(alloc, area, pfn_block(alloc, area, end),
				       area->retired), pfn_bit(alloc, end), over);
	swap(alloc->bad[idx], area->retired);
}

/* Lose pages [@pfn, @pfn + @nr) at an end of @area, which the device does not have. */
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
	hmm_devmem_area_lose(alloc, area, pfn, nr);
}

/**
 * hmm_devmem_alloc_populate() - Let the pages of an area be allocated
 * @alloc: The allocator.
 * @idx: Which area, less than &hmm_devmem_alloc.nr_areas. It must not be
 *	populated yet, nor by another task at the same time.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -ENOMEM and nothing is changed.
 */
int hmm_devmem_alloc_populate(struct hmm_devmem_alloc *alloc, unsigned int idx)
{
	const unsigned int nr_blocks = area_nr_blocks(alloc, idx);
	const unsigned long start = area_start(alloc, idx);
	const unsigned long end = area_end(alloc, idx);
	struct hmm_devmem_area *area;
	unsigned long *unused, flags;

	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_alloc_populate, alloc, idx);

	area = area_alloc(alloc, nr_blocks);
	if (!area)
		return -ENOMEM;
	area->base = start;

	spin_lock_irqsave(&alloc->lock, flags);
	alloc->areas[idx] = area;
	alloc->nr_total += (unsigned long)nr_blocks << alloc->block_order;
	alloc->nr_idle++;
	list_add_tail(&area->node, &alloc->fresh);
	unused = area_lose_retired(alloc, area, idx);
	area_trim(alloc, area, start, max(start, alloc->first) - start);
	area_trim(alloc, area, end,
		  start + ((unsigned long)nr_blocks << alloc->block_order) - end);
	spin_unlock_irqrestore(&alloc->lock, flags);
	kvfree(unused);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_populate);

/**
 * hmm_devmem_alloc_depopulate() - Take an area with no page in use away
 * @alloc: The allocator.
 * @idx: Which area; it must be populated.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -EBUSY if pages of the area are in use or cached; nothing is changed
 * then. Which of its pages were retired is remembered.
 */
int hmm_devmem_alloc_depopulate(struct hmm_devmem_alloc *alloc,
				unsigned int idx)
{
	struct hmm_devmem_area *area;
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&alloc->lock, flags);
	area = alloc->areas[idx];
	if (area->nr_used != area->nr_lost) {
		spin_unlock_irqrestore(&alloc->lock, flags);
		return -EBUSY;
	}
	for (i = 0; i < area->nr_blocks; i++)
		if (block_is_active(&area->blocks[i]))
			block_set_order(alloc, &area->blocks[i], -1);
	list_del(&area->node);
	alloc->nr_total -= (unsigned long)area->nr_blocks << alloc->block_order;
	alloc->nr_idle--;
	alloc->areas[idx] = NULL;
	area_keep_retired(alloc, area, idx);
	alloc->nr_used -= area->nr_used;
	alloc->nr_lost -= area->nr_lost;
	alloc->nr_absent -= area->nr_absent;
	spin_unlock_irqrestore(&alloc->lock, flags);

	hmm_devmem_area_free(area);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_depopulate);
