// SPDX-License-Identifier: GPL-2.0
/*
 * The policy of eviction: which block of a full device is evicted.
 */

/**
 * DOC: Which block is evicted
 *
 * When a device is full, blocks of its memory have to be evicted for those that are
 * brought in. If programs go through more memory than the device has, again and again,
 * any rule that evicts what was used longest ago evicts what is needed next. The rule
 * here, *hold*, keeps a part of the data on the device instead, and lets the rest
 * take turns in a few blocks.
 *
 * Time is the number of blocks that were brought in. A block with new data enters a
 * short FIFO, and is *held* when it leaves it. A held block has the time of its last
 * use. Data that is needed, and whose last use was D blocks ago, displaces the coldest held
 * block if that has not been used for longer than D, and is held at once. If not, it
 * takes the place of the oldest block in the FIFO. For data that was not on the
 * device before, D is a quarter of the number of blocks: so blocks that are not used any
 * more are evicted one after the other. The coldest block is the coldest of sixteen held
 * blocks chosen at random.
 *
 * For D, times of data that was evicted are kept as *ghosts*, for up to twice as many
 * pieces of data as there are blocks. A ghost is a part of a hash of the data's name.
 * Another piece of data can have the same hash, for example when the memory of
 * a process that has exited is used again. It then has a wrong D, which costs an
 * eviction that is not the best one, and is no error.
 *
 * This takes twelve bytes for each block, and four for each block of the FIFO. Data is
 * named by numbers here: this file knows nothing of struct page, or of processes.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/visibility.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/hash.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "reclaim.h"

/* The coldest of so many held blocks is evicted; so many random numbers may find them. */
#define HOLD_SAMPLES		16
#define HOLD_TRIES		64

/* The FIFO has this part of the blocks, but at least HOLD_MIN_RECENT. */
#define HOLD_RECENT_DIV		64
#define HOLD_MIN_RECENT		4U

/* Data that was not on the device before counts as used number of blocks / this ago. */
#define HOLD_NEW_DIV		4

/*
 * A ghost has 12 bits of the hash, not all 0, and 20 bits of the time. So an age of more
 * than a million blocks (2 TiB that were brought in) is taken for a smaller one, which, like
 * an equal hash, costs no more than an eviction that is not the best one.
 */
#define GHOSTS_PER_SET		8
#define GHOST_TIME_BITS		20
#define GHOST_TIME_MASK		(BIT(GHOST_TIME_BITS) - 1)

/* Where the ghost of some data is, and what identifies it there. */
struct ghost_key {
	u32 *set;
	u32 tag;
};

static struct ghost_key ghost_key(const struct hmm_devmem_hold *hold,
				  const struct hmm_devmem_hold_data *data)
{
	const u64 owner = hash_64((unsigned long)data->owner, 32);
	const u32 hash = hash_64((owner << 32) + data->index, 32);

	return (struct ghost_key) {
		.set = hold->ghosts + GHOSTS_PER_SET *
		       reciprocal_scale(hash, hold->nr_sets),
		.tag = max_t(u32, hash << GHOST_TIME_BITS, BIT(GHOST_TIME_BITS)),
	};
}

/* The ghost of some data, or NULL. */
static u32 *ghost_find(struct ghost_key key)
{
	unsigned int i;

	for (i = 0; i < GHOSTS_PER_SET; i++)
		if ((key.set[i] & ~GHOST_TIME_MASK) == key.tag)
			return &key.set[i];
	return NULL;
}

static u32 ghost_age(const struct hmm_devmem_hold *hold, u32 ghost)
{
	return (hold->now - ghost) & GHOST_TIME_MASK;
}

/* The place for a new ghost: an empty one, or that of the oldest. */
static u32 *ghost_oldest(const struct hmm_devmem_hold *hold, struct ghost_key key)
{
	u32 *oldest = key.set;
	unsigned int i;

	for (i = 0; i < GHOSTS_PER_SET; i++) {
		if (!key.set[i])
			return &key.set[i];
		if (ghost_age(hold, key.set[i]) > ghost_age(hold, *oldest))
			oldest = &key.set[i];
	}
	return oldest;
}

/* How long ago data was used that is not on the device. */
static u32 hold_distance(const struct hmm_devmem_hold *hold,
			 const struct hmm_devmem_hold_data *data)
{
	const u32 *ghost = ghost_find(ghost_key(hold, data));

	return ghost ? ghost_age(hold, *ghost) : hold->nr_blocks / HOLD_NEW_DIV;
}

/* How long ago a block was used. */
static u32 hold_age(const struct hmm_devmem_hold *hold, u32 block)
{
	return hold->now - READ_ONCE(hold->used[block]);
}

/* Xorshift: the same numbers on each device, so that runs can be repeated. */
static u32 hold_random(struct hmm_devmem_hold *hold)
{
	hold->random ^= hold->random << 13;
	hold->random ^= hold->random >> 17;
	hold->random ^= hold->random << 5;
	return reciprocal_scale(hold->random, hold->nr_blocks);
}

/* Position of a block in the FIFO, or @nr_recent. */
static u32 recent_find(const struct hmm_devmem_hold *hold, u32 block)
{
	u32 i;

	for (i = 0; i < hold->nr_recent && hold->recent[i] != block; i++)
		;
	return i;
}

static bool recent_remove(struct hmm_devmem_hold *hold, u32 block)
{
	const u32 i = recent_find(hold, block);

	if (i == hold->nr_recent)
		return false;
	hold->nr_recent--;
	memmove(hold->recent + i, hold->recent + i + 1,
		(hold->nr_recent - i) * sizeof(*hold->recent));
	return true;
}

/* Put a block into the FIFO. If that is full, the oldest block is held from now on. */
static void recent_add(struct hmm_devmem_hold *hold, u32 block)
{
	hold->nr_recent = min(hold->nr_recent, hold->max_recent - 1);
	memmove(hold->recent + 1, hold->recent,
		hold->nr_recent * sizeof(*hold->recent));
	hold->recent[0] = block;
	hold->nr_recent++;
}

/**
 * struct hold_filter - which blocks a victim is looked for in
 * @may_go: Can a block be evicted?
 * @arg: Passed to @may_go.
 */
struct hold_filter {
	bool (*may_go)(void *arg, u32 block);
	void *arg;
};

static bool hold_may_go(const struct hmm_devmem_hold *hold,
			const struct hold_filter *filter, u32 block)
{
	return block != hold->last && !hmm_devmem_hold_is_empty(hold, block) &&
	       filter->may_go(filter->arg, block);
}

static u32 hold_coldest(struct hmm_devmem_hold *hold,
			const struct hold_filter *filter)
{
	u32 tries = HOLD_TRIES, samples = HOLD_SAMPLES;
	u32 coldest = HMM_DEVMEM_HOLD_NONE, block;

	while (tries-- && samples) {
		block = hold_random(hold);
		if (!hold_may_go(hold, filter, block) ||
		    recent_find(hold, block) < hold->nr_recent)
			continue;
		samples--;
		if (coldest == HMM_DEVMEM_HOLD_NONE ||
		    hold_age(hold, block) > hold_age(hold, coldest))
			coldest = block;
	}
	return coldest;
}

static u32 hold_oldest_recent(struct hmm_devmem_hold *hold,
			      const struct hold_filter *filter)
{
	u32 i = hold->nr_recent;

	while (i--)
		if (hold_may_go(hold, filter, hold->recent[i]))
			return hold->recent[i];
	return HMM_DEVMEM_HOLD_NONE;
}

/**
 * hmm_devmem_hold_victim() - Choose the block to be evicted
 * @hold: The policy.
 * @data: The data that room is needed for.
 * @may_go: Can a block be evicted? Called with a mutex held.
 * @arg: Passed to @may_go.
 *
 * Changes nothing: hmm_devmem_hold_evicted() or hmm_devmem_hold_skip() follows.
 *
 * Context: Process context, may sleep.
 * Return: A block, not the one that was brought in last. %HMM_DEVMEM_HOLD_NONE if none
 * was found; there can still be one.
 */
u32 hmm_devmem_hold_victim(struct hmm_devmem_hold *hold,
			   const struct hmm_devmem_hold_data *data,
			   bool (*may_go)(void *arg, u32 block), void *arg)
{
	const struct hold_filter filter = { .may_go = may_go, .arg = arg };
	u32 coldest, recent;

	guard(mutex)(&hold->lock);
	coldest = hold_coldest(hold, &filter);
	if (coldest != HMM_DEVMEM_HOLD_NONE &&
	    hold_age(hold, coldest) > hold_distance(hold, data))
		return coldest;
	recent = hold_oldest_recent(hold, &filter);
	return recent != HMM_DEVMEM_HOLD_NONE ? recent : coldest;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_victim);

/* Does a walk from cold to hot come to @block before @other? */
static bool walk_before(const struct hmm_devmem_hold *hold, u32 block, u32 used,
			u32 other, u32 other_used)
{
	if (used == other_used)
		return block < other;
	return hold->now - used > hold->now - other_used;
}

/**
 * hmm_devmem_hold_next() - The next block of a walk from the coldest to the hottest
 * @hold: The policy.
 * @walk: The walk. Zeroed before the first call.
 * @may_go: Can a block be evicted? Called with a mutex held.
 * @arg: Passed to @may_go.
 *
 * Looks at all blocks. One without data is colder than any other. A block that is used
 * during the walk can be found again.
 *
 * Context: Process context, may sleep; also in memory reclaim.
 * Return: The block; %HMM_DEVMEM_HOLD_NONE if there is no other that can be evicted.
 */
u32 hmm_devmem_hold_next(struct hmm_devmem_hold *hold,
			 struct hmm_devmem_hold_walk *walk,
			 bool (*may_go)(void *arg, u32 block), void *arg)
{
	u32 next = HMM_DEVMEM_HOLD_NONE, next_used = 0, block, used;

	guard(mutex)(&hold->lock);
	for (block = 0; block < hold->nr_blocks; block++) {
		used = READ_ONCE(hold->used[block]);
		if (walk->begun && !walk_before(hold, walk->block, walk->used, block, used))
			continue;
		if ((next == HMM_DEVMEM_HOLD_NONE ||
		     walk_before(hold, block, used, next, next_used)) && may_go(arg, block)) {
			next = block;
			next_used = used;
		}
	}
	*walk = (struct hmm_devmem_hold_walk) {
		.begun = true,
		.block = next,
		.used = next_used,
	};
	return next;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_next);

/**
 * hmm_devmem_hold_skip() - Note that a block could not be evicted
 * @hold: The policy.
 * @block: A victim. It is held from now on as if it had been used now, so that others
 *	are chosen before it.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_hold_skip(struct hmm_devmem_hold *hold, u32 block)
{
	guard(mutex)(&hold->lock);
	recent_remove(hold, block);
	hmm_devmem_hold_mark(hold, block);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_skip);

/**
 * hmm_devmem_hold_remember() - Note that data is about to leave the device
 * @hold: The policy.
 * @block: The block that has the data.
 * @data: The data.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_hold_remember(struct hmm_devmem_hold *hold, u32 block,
			      const struct hmm_devmem_hold_data *data)
{
	const struct ghost_key key = ghost_key(hold, data);
	u32 *ghost;

	if (hmm_devmem_hold_is_empty(hold, block))
		return;
	guard(mutex)(&hold->lock);
	ghost = ghost_find(key) ?: ghost_oldest(hold, key);
	*ghost = key.tag | (READ_ONCE(hold->used[block]) & GHOST_TIME_MASK);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_remember);

/**
 * hmm_devmem_hold_evicted() - Note that the data of a block was evicted
 * @hold: The policy.
 * @block: The block.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_hold_evicted(struct hmm_devmem_hold *hold, u32 block)
{
	guard(mutex)(&hold->lock);
	WRITE_ONCE(hold->used[block], recent_remove(hold, block) ?
		   HMM_DEVMEM_HOLD_EMPTY : HMM_DEVMEM_HOLD_VACATED);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_evicted);

/**
 * hmm_devmem_hold_brought() - Note that data was brought into an empty block
 * @hold: The policy.
 * @block: The block.
 * @data: The data.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_hold_brought(struct hmm_devmem_hold *hold, u32 block,
			     const struct hmm_devmem_hold_data *data)
{
	u32 *ghost;

	guard(mutex)(&hold->lock);
	WRITE_ONCE(hold->now, hold->now + 1);
	WRITE_ONCE(hold->last, block);
	/* A block that was emptied otherwise can still be in the FIFO. */
	if (READ_ONCE(hold->used[block]) != HMM_DEVMEM_HOLD_VACATED &&
	    recent_find(hold, block) == hold->nr_recent)
		recent_add(hold, block);
	WRITE_ONCE(hold->used[block], hold->now);
	ghost = ghost_find(ghost_key(hold, data));
	if (ghost)
		*ghost = 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_brought);

/**
 * hmm_devmem_hold_create() - Set up the policy of a device
 * @nr_blocks: Number of blocks, not 0.
 *
 * Context: Process context, may sleep.
 * Return: The policy, or NULL if there is no memory.
 */
struct hmm_devmem_hold *hmm_devmem_hold_create(u32 nr_blocks)
{
	struct hmm_devmem_hold *hold = kzalloc_obj(*hold);

	if (!hold)
		return NULL;
	mutex_init(&hold->lock);
	hold->nr_blocks = nr_blocks;
	hold->now = HMM_DEVMEM_HOLD_START;
	hold->last = HMM_DEVMEM_HOLD_NONE;
	hold->random = 1;
	hold->max_recent = clamp(nr_blocks / 4, 1U,
				 max(nr_blocks / HOLD_RECENT_DIV, HOLD_MIN_RECENT));
	hold->nr_sets = DIV_ROUND_UP(2 * nr_blocks, GHOSTS_PER_SET);
	hold->used = kvcalloc(nr_blocks, sizeof(*hold->used), GFP_KERNEL);
	hold->recent = kvcalloc(hold->max_recent, sizeof(*hold->recent), GFP_KERNEL);
	hold->ghosts = kvcalloc(hold->nr_sets, GHOSTS_PER_SET * sizeof(*hold->ghosts),
				GFP_KERNEL);
	if (hold->used && hold->recent && hold->ghosts)
		return hold;
	hmm_devmem_hold_destroy(hold);
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_create);

/**
 * hmm_devmem_hold_destroy() - Undo hmm_devmem_hold_create()
 * @hold: The policy, or NULL.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_hold_destroy(struct hmm_devmem_hold *hold)
{
	if (!hold)
		return;
	mutex_destroy(&hold->lock);
	kvfree(hold->used);
	kvfree(hold->recent);
	kvfree(hold->ghosts);
	kfree(hold);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_hold_destroy);
