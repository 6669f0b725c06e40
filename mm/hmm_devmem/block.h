/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the pool share: blocks, and how to get from a page to its block and
 * segment, and back. Included last, see below.
 */
#ifndef _MM_HMM_DEVMEM_BLOCK_H
#define _MM_HMM_DEVMEM_BLOCK_H

#include <linux/bitops.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/types.h>

#include "pool.h"

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

/*
 * The pool deals with pfns. The compiler refuses these words in files that include this
 * header, so that none of them depends on struct page, processes or pagemaps.
 */
#pragma GCC poison page folio dev_pagemap vm_area_struct mm_struct

#endif /* _MM_HMM_DEVMEM_BLOCK_H */
