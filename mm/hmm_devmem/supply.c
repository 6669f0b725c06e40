// SPDX-License-Identifier: GPL-2.0
/*
 * Which free pages of the pool are handed out next: lists of blocks that have free pages.
 * block.c knows which pages are free.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/visibility.h>
#include <linux/bitops.h>
#include <linux/export.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>

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

/**
 * hmm_devmem_supply_init() - Set up the lists of a new pool
 * @pool: The pool; its block order is set.
 *
 * Context: Any context.
 */
void hmm_devmem_supply_init(struct hmm_devmem_pool *pool)
{
	unsigned int i;

	for (i = 0; i <= pool->block_order; i++)
		INIT_LIST_HEAD(&pool->supply.free[i]);
	INIT_LIST_HEAD(&pool->supply.fresh);
}

/**
 * hmm_devmem_supply_add_segment() - Hand out the pages of a segment from now on
 * @pool: The pool, locked.
 * @segment: The segment.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 */
void hmm_devmem_supply_add_segment(struct hmm_devmem_pool *pool,
				   struct hmm_devmem_pool_segment *segment)
{
	lockdep_assert_held(&pool->blocks_lock);

	list_add_tail(&segment->node, &pool->supply.fresh);
}

/**
 * hmm_devmem_supply_remove_segment() - Hand out no more pages of a segment
 * @pool: The pool, locked.
 * @segment: The segment.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 */
void hmm_devmem_supply_remove_segment(struct hmm_devmem_pool *pool,
				      struct hmm_devmem_pool_segment *segment)
{
	unsigned int i;

	for (i = 0; i < segment->nr_blocks; i++)
		if (block_is_active(&segment->blocks[i]))
			block_set_order(pool, &segment->blocks[i], -1);
	list_del(&segment->node);
}

/**
 * hmm_devmem_supply_add_block() - Put a fresh block on the lists
 * @pool: The pool, locked.
 * @segment: The segment of the block.
 * @block: The block. If it is the driver's, it is on no list.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 */
void hmm_devmem_supply_add_block(struct hmm_devmem_pool *pool,
				 struct hmm_devmem_pool_segment *segment,
				 struct hmm_devmem_block *block)
{
	INIT_LIST_HEAD(&block->node);
	block->pfn = segment->base + ((unsigned long)(block - segment->blocks) <<
				      pool->block_order);
	block->order = pool->on_loan ? BLOCK_AWAY : -1;
	if (!pool->on_loan)
		block_set_order(pool, block, pool->block_order);
}

static struct hmm_devmem_block *fresh_block(struct hmm_devmem_pool *pool)
{
	struct hmm_devmem_block *block;
	struct hmm_devmem_pool_segment *segment;

	while (!list_empty(&pool->supply.fresh)) {
		segment = list_first_entry(&pool->supply.fresh, struct hmm_devmem_pool_segment,
					   node);
		block = &segment->blocks[segment->next_fresh++];
		if (segment->next_fresh == segment->nr_blocks)
			list_del_init(&segment->node);
		if (!block_is_active(block)) {
			hmm_devmem_supply_add_block(pool, segment, block);
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
	const unsigned long orders = pool->supply.orders >> order;

	lockdep_assert_held(&pool->blocks_lock);

	if (!orders)
		return fresh_block(pool);
	return list_first_entry(&pool->supply.free[order + __ffs(orders)],
				struct hmm_devmem_block, node);
}

/**
 * hmm_devmem_supply_take_run() - Take contiguous pages
 * @pool: The pool, locked.
 * @max: How many pages at most, not 0.
 * @pfn: The first of them.
 *
 * Takes them from a partial block if there is one, of these from one whose largest free
 * piece is smallest.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 * Return: How many pages, 0 if there is none.
 */
unsigned int hmm_devmem_supply_take_run(struct hmm_devmem_pool *pool,
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

/*
 * Take a free piece of 2^@order pages of @block. If it has none, find out how large its
 * largest one is, and return false.
 */
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
	pool->supply.nr_searched++;
	return false;
}

/**
 * hmm_devmem_supply_take_order() - Take a naturally aligned piece
 * @pool: The pool, locked.
 * @order: 2^@order pages, at most a block.
 * @pfn: The first of them.
 *
 * How much this searches does not depend on the number of blocks. The size of a
 * block's largest piece, found by a search in vain, is remembered until pages of the
 * block are freed, so that the next call goes on with other blocks.
 *
 * Context: Any context. The caller holds &hmm_devmem_pool.blocks_lock.
 * Return: 0, -ENOMEM if there is none, or 1 if it is to be called again after the
 * lock has been released for a moment.
 */
int hmm_devmem_supply_take_order(struct hmm_devmem_pool *pool,
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
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_supply_take_order);
