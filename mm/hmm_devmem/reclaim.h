/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The policy of eviction: see reclaim.c.
 */
#ifndef _MM_HMM_DEVMEM_RECLAIM_H
#define _MM_HMM_DEVMEM_RECLAIM_H

#include <linux/compiler.h>
#include <linux/mutex.h>
#include <linux/types.h>

/* No block. */
#define HMM_DEVMEM_HOLD_NONE	U32_MAX

/* What &hmm_devmem_hold.used says of a block that has no data. */
#define HMM_DEVMEM_HOLD_EMPTY	0	/* data that comes next goes through the FIFO */
#define HMM_DEVMEM_HOLD_VACATED	1	/* data that comes next displaces held data, so is held */
#define HMM_DEVMEM_HOLD_START	2	/* the first time; no time is one of the two above */

/**
 * struct hmm_devmem_hold - what is known of the use of the blocks of one device
 * @lock: Protects all but @used. Innermost; it can be taken in memory reclaim. A mutex,
 *	because a victim is looked for in a time that grows with the size of the device.
 * @nr_blocks: Number of blocks of the device.
 * @now: The time: how many blocks of data were brought in, from
 *	%HMM_DEVMEM_HOLD_START on.
 * @last: The block that was brought in last.
 * @random: State of the random numbers.
 * @max_recent: Size of @recent.
 * @nr_recent: How many entries of @recent are used.
 * @nr_sets: Number of sets of @ghosts.
 * @used: For each block the time of its last use, or that it is empty. Written without
 *	a lock.
 * @recent: The FIFO: numbers of blocks, the latest first.
 * @ghosts: Sets of entries for data that was evicted: a part of a hash, and the time
 *	of the last use.
 */
struct hmm_devmem_hold {
	struct mutex lock;	/* see above */
	u32 nr_blocks;
	u32 now;
	u32 last;
	u32 random;
	u32 max_recent;
	u32 nr_recent;
	u32 nr_sets;
	u32 *used;
	u32 *recent;
	u32 *ghosts;
};

/**
 * struct hmm_devmem_hold_data - names a piece of data of the size of a block
 * @owner: The root of the data's anon_vmas, see use.c. Only compared, never dereferenced.
 * @index: The number of the piece among those of @owner.
 */
struct hmm_devmem_hold_data {
	const void *owner;
	unsigned long index;
};

/**
 * struct hmm_devmem_hold_walk - where a walk from the coldest block to the hottest is
 * @begun: There was a block.
 * @block: The last one.
 * @used: When it was used.
 */
struct hmm_devmem_hold_walk {
	bool begun;
	u32 block;
	u32 used;
};

struct hmm_devmem_hold *hmm_devmem_hold_create(u32 nr_blocks);
void hmm_devmem_hold_destroy(struct hmm_devmem_hold *hold);
void hmm_devmem_hold_brought(struct hmm_devmem_hold *hold, u32 block,
			     const struct hmm_devmem_hold_data *data);
u32 hmm_devmem_hold_victim(struct hmm_devmem_hold *hold,
			   const struct hmm_devmem_hold_data *data,
			   bool (*may_go)(void *arg, u32 block), void *arg);
u32 hmm_devmem_hold_next(struct hmm_devmem_hold *hold,
			 struct hmm_devmem_hold_walk *walk,
			 bool (*may_go)(void *arg, u32 block), void *arg);
void hmm_devmem_hold_skip(struct hmm_devmem_hold *hold, u32 block);
void hmm_devmem_hold_remember(struct hmm_devmem_hold *hold, u32 block,
			      const struct hmm_devmem_hold_data *data);
void hmm_devmem_hold_evicted(struct hmm_devmem_hold *hold, u32 block);

static inline bool hmm_devmem_hold_is_empty(const struct hmm_devmem_hold *hold,
					    u32 block)
{
	return READ_ONCE(hold->used[block]) < HMM_DEVMEM_HOLD_START;
}

/**
 * hmm_devmem_hold_mark() - Note that a block was used
 * @hold: The policy.
 * @block: The block.
 *
 * A block that is being emptied at the same time can look used afterwards, or the
 * other way round: it is a hint.
 *
 * Context: Any context, no lock.
 */
static inline void hmm_devmem_hold_mark(struct hmm_devmem_hold *hold, u32 block)
{
	const u32 now = READ_ONCE(hold->now);

	/* Most blocks are used more than once before the time changes. */
	if (READ_ONCE(hold->used[block]) != now &&
	    !hmm_devmem_hold_is_empty(hold, block))
		WRITE_ONCE(hold->used[block], now);
}

#endif /* _MM_HMM_DEVMEM_RECLAIM_H */
