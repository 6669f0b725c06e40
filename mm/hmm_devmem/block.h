/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How to get from a page to its block and segment, and back.
 */
#ifndef _MM_HMM_DEVMEM_BLOCK_H
#define _MM_HMM_DEVMEM_BLOCK_H

#include <linux/bitops.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>

#include "internal.h"

static inline unsigned int block_size(const struct hmm_devmem_pool *pool)
{
	return 1U << pool->block_order;
}

/* Blocks have their own words in the bitmaps, also if they are tiny. */
static inline unsigned int block_stride(const struct hmm_devmem_pool *pool)
{
	return BITS_TO_LONGS(block_size(pool));
}

static inline struct hmm_devmem_pool_segment *
pfn_segment(const struct hmm_devmem_pool *pool, unsigned long pfn)
{
	return pool->segments[(pfn - pool->base) >> pool->segment_shift];
}

static inline struct hmm_devmem_block *
pfn_block(const struct hmm_devmem_pool *pool, struct hmm_devmem_pool_segment *segment,
	  unsigned long pfn)
{
	return &segment->blocks[(pfn - segment->base) >> pool->block_order];
}

static inline unsigned int pfn_bit(const struct hmm_devmem_pool *pool,
				   unsigned long pfn)
{
	return pfn & (block_size(pool) - 1);
}

/* The part of @map, a bitmap of @segment, that belongs to @block. */
static inline unsigned long *block_map(const struct hmm_devmem_pool *pool,
				       const struct hmm_devmem_pool_segment *segment,
				       const struct hmm_devmem_block *block,
				       unsigned long *map)
{
	return map + (block - segment->blocks) * block_stride(pool);
}

static inline bool block_is_active(const struct hmm_devmem_block *block)
{
	return block->node.next;
}

static inline unsigned int pfn_segment_idx(const struct hmm_devmem_pool *pool,
					   unsigned long pfn)
{
	return (pfn - pool->base) >> pool->segment_shift;
}

/* First pfn of a segment, and one past the last. */
static inline unsigned long segment_start(const struct hmm_devmem_pool *pool,
					  unsigned int idx)
{
	return pool->base + ((unsigned long)idx << pool->segment_shift);
}

static inline unsigned long segment_end(const struct hmm_devmem_pool *pool,
					unsigned int idx)
{
	return min(segment_start(pool, idx) + (1UL << pool->segment_shift),
		   pool->last);
}

/* Note that @block has no free piece larger than 2^@order pages; -1: none is free. */
static inline void block_set_order(struct hmm_devmem_pool *pool,
				   struct hmm_devmem_block *block, int order)
{
	lockdep_assert_held(&pool->blocks_lock);

	if (block->order >= 0) {
		list_del(&block->node);
		if (list_empty(&pool->free[block->order]))
			pool->free_orders &= ~BIT(block->order);
	}
	block->order = order;
	if (order >= 0) {
		list_add(&block->node, &pool->free[order]);
		pool->free_orders |= BIT(order);
	}
}

void hmm_devmem_block_disable(struct hmm_devmem_pool *pool,
			      struct hmm_devmem_pool_segment *segment, unsigned long pfn,
			      unsigned int nr);

#endif /* _MM_HMM_DEVMEM_BLOCK_H */
