/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages are taken: bitmaps of blocks, and how to get from a page to its block and
 * segment, and back. Included last, because it poisons identifiers: see its end.
 */
#ifndef _MM_HMM_DEVMEM_BLOCK_H
#define _MM_HMM_DEVMEM_BLOCK_H

#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/types.h>

#include "pool.h"
#include "supply.h"

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

/* Words of a block in a bitmap. No word is shared, even if a block has fewer bits. */
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

static inline bool segment_is_idle(const struct hmm_devmem_pool_segment *segment)
{
	return segment->nr_taken == segment->nr_disabled;
}

/* Account for @nr bits of @block that were set (or cleared, if @nr < 0). */
static inline void block_account(struct hmm_devmem_pool *pool,
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

/* Set the bits of pages that are free. */
static inline void block_take(struct hmm_devmem_pool *pool,
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

void hmm_devmem_block_disable(struct hmm_devmem_pool *pool,
			      struct hmm_devmem_pool_segment *segment, unsigned long pfn,
			      unsigned int nr);

/*
 * The pool deals with pfns. The compiler refuses these words in files that include this
 * header, so that none of them depends on struct page, processes or pagemaps.
 */
#pragma GCC poison page folio dev_pagemap vm_area_struct mm_struct

#endif /* _MM_HMM_DEVMEM_BLOCK_H */
