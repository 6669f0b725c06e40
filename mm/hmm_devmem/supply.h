/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a block is, and which free pages are handed out next: see supply.c. Files include
 * block.h instead.
 */
#ifndef _MM_HMM_DEVMEM_SUPPLY_H
#define _MM_HMM_DEVMEM_SUPPLY_H

#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/types.h>

#include "pool.h"

/**
 * struct hmm_devmem_block - one block of device pages
 * @node: on the list &hmm_devmem_supply.free of @order; on no list when no page is
 *	free, and while the block is fresh.
 * @pfn: First pfn, once the block is not fresh any more.
 * @nr_taken: Bits set in the block's part of &hmm_devmem_pool_segment.taken.
 * @nr_disabled: How many of those will never be cleared: pages that were retired and
 *	are not in use any more, and pages that the device does not have (the range
 *	need not end with a block).
 * @order: No free, aligned piece is larger than 2^@order pages. -1 if none is free. Less
 *	if none is handed out although some may be free: %BLOCK_WITHHELD, %BLOCK_AWAY.
 *
 * @nr_taken and @nr_disabled count pages by their state, and are changed by functions of
 * block.c and block.h only. @node and @order decide which free pages are handed out next,
 * and are changed by functions of supply.c and supply.h only. No page of a block that is on
 * no list is handed out. All are protected by &hmm_devmem_pool.blocks_lock.
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
 * @node: on &hmm_devmem_supply.fresh while there are fresh blocks.
 * @base: First pfn of the first block, a multiple of the block size.
 * @nr_blocks: Number of @blocks.
 * @next_fresh: Blocks from here on are fresh, but for those that have a
 *	disabled page.
 * @nr_taken: Sum of &hmm_devmem_block.nr_taken.
 * @nr_disabled: Sum of &hmm_devmem_block.nr_disabled.
 * @nr_absent: How many of @nr_disabled are pages that the device does not have.
 * @nr_lent: How many blocks the driver has lent, if they are its own.
 * @taken: One bit for each page that is used, cached or disabled.
 * @retired: One bit for each page that is never to be handed out again, and for
 *	each that the device does not have.
 * @live: Debug only: one bit for each page that is used.
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
	unsigned int nr_lent;
	unsigned long *taken;
	unsigned long *retired;
	unsigned long *live;
	struct hmm_devmem_block blocks[] __counted_by(nr_blocks);
};

/* In &hmm_devmem_block.order: the block has pages in use, but no more are handed out. */
#define BLOCK_WITHHELD		(-2)
/* The same: the block is the driver's. */
#define BLOCK_AWAY		(-3)

void hmm_devmem_supply_init(struct hmm_devmem_pool *pool);
void hmm_devmem_supply_add_segment(struct hmm_devmem_pool *pool,
				   struct hmm_devmem_pool_segment *segment);
void hmm_devmem_supply_remove_segment(struct hmm_devmem_pool *pool,
				      struct hmm_devmem_pool_segment *segment);
void hmm_devmem_supply_add_block(struct hmm_devmem_pool *pool,
				 struct hmm_devmem_pool_segment *segment,
				 struct hmm_devmem_block *block);
unsigned int hmm_devmem_supply_take_run(struct hmm_devmem_pool *pool,
					unsigned int max, unsigned long *pfn);
int hmm_devmem_supply_take_order(struct hmm_devmem_pool *pool,
				 unsigned int order, unsigned long *pfn);

static inline unsigned int block_size(const struct hmm_devmem_pool *pool)
{
	return 1U << pool->block_order;
}

static inline bool block_is_active(const struct hmm_devmem_block *block)
{
	return block->node.next;
}

/* Has the driver lent the block? For pools whose blocks are the driver's. */
static inline bool block_is_lent(const struct hmm_devmem_block *block)
{
	return block_is_active(block) && READ_ONCE(block->order) != BLOCK_AWAY;
}

/* Is the block on no list because its pages are not to be handed out? */
static inline bool block_is_withheld(const struct hmm_devmem_block *block)
{
	return READ_ONCE(block->order) <= BLOCK_WITHHELD;
}

/* Note that @block has no free piece larger than 2^@order pages; less than 0: none. */
static inline void block_set_order(struct hmm_devmem_pool *pool,
				   struct hmm_devmem_block *block, int order)
{
	lockdep_assert_held(&pool->blocks_lock);

	if (block->order >= 0) {
		list_del(&block->node);
		if (list_empty(&pool->supply.free[block->order]))
			pool->supply.orders &= ~BIT(block->order);
	}
	WRITE_ONCE(block->order, order);
	if (order >= 0) {
		list_add(&block->node, &pool->supply.free[order]);
		pool->supply.orders |= BIT(order);
	}
}

/* Put @block on the list of the largest free piece that it can have. */
static inline void block_relist(struct hmm_devmem_pool *pool,
				struct hmm_devmem_block *block, bool freed)
{
	int order = fls(block_size(pool) - block->nr_taken) - 1;

	/* When pages are taken, the largest free piece does not become larger. */
	if (!freed || unlikely(block_is_withheld(block)))
		order = min(order, block->order);
	if (order != block->order)
		block_set_order(pool, block, order);
}

#endif /* _MM_HMM_DEVMEM_SUPPLY_H */
