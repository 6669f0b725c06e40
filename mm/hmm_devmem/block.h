/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How to get from a page to its block and area, and back.
 */
#ifndef _MM_HMM_DEVMEM_BLOCK_H
#define _MM_HMM_DEVMEM_BLOCK_H

#include <linux/bitops.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>

#include "internal.h"

static inline unsigned int block_size(const struct hmm_devmem_alloc *alloc)
{
	return 1U << alloc->block_order;
}

/* Blocks have their own words in the bitmaps, also if they are tiny. */
static inline unsigned int block_stride(const struct hmm_devmem_alloc *alloc)
{
	return BITS_TO_LONGS(block_size(alloc));
}

static inline struct hmm_devmem_area *
pfn_area(const struct hmm_devmem_alloc *alloc, unsigned long pfn)
{
	return alloc->areas[(pfn - alloc->base) >> alloc->area_shift];
}

static inline struct hmm_devmem_block *
pfn_block(const struct hmm_devmem_alloc *alloc, struct hmm_devmem_area *area,
	  unsigned long pfn)
{
	return &area->blocks[(pfn - area->base) >> alloc->block_order];
}

static inline unsigned int pfn_bit(const struct hmm_devmem_alloc *alloc,
				   unsigned long pfn)
{
	return pfn & (block_size(alloc) - 1);
}

/* The part of @map, a bitmap of @area, that belongs to @block. */
static inline unsigned long *block_map(const struct hmm_devmem_alloc *alloc,
				       const struct hmm_devmem_area *area,
				       const struct hmm_devmem_block *block,
				       unsigned long *map)
{
	return map + (block - area->blocks) * block_stride(alloc);
}

static inline bool block_is_active(const struct hmm_devmem_block *block)
{
	return block->node.next;
}

static inline unsigned int pfn_area_idx(const struct hmm_devmem_alloc *alloc,
					unsigned long pfn)
{
	return (pfn - alloc->base) >> alloc->area_shift;
}

/* First pfn of an area, and one past the last. */
static inline unsigned long area_start(const struct hmm_devmem_alloc *alloc,
				       unsigned int idx)
{
	return alloc->base + ((unsigned long)idx << alloc->area_shift);
}

static inline unsigned long area_end(const struct hmm_devmem_alloc *alloc,
				     unsigned int idx)
{
	return min(area_start(alloc, idx) + (1UL << alloc->area_shift),
		   alloc->last);
}

/* Note that @block has no free piece larger than 2^@order pages; -1: none is free. */
static inline void block_set_order(struct hmm_devmem_alloc *alloc,
				   struct hmm_devmem_block *block, int order)
{
	lockdep_assert_held(&alloc->lock);

	if (block->order >= 0) {
		list_del(&block->node);
		if (list_empty(&alloc->free[block->order]))
			alloc->free_orders &= ~BIT(block->order);
	}
	block->order = order;
	if (order >= 0) {
		list_add(&block->node, &alloc->free[order]);
		alloc->free_orders |= BIT(order);
	}
}

void hmm_devmem_area_lose(struct hmm_devmem_alloc *alloc,
			  struct hmm_devmem_area *area, unsigned long pfn,
			  unsigned int nr);

#endif /* _MM_HMM_DEVMEM_BLOCK_H */
