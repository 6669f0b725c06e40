// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the choice of the block that is evicted. They need no device.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/hrtimer.h>
#include <linux/hmm_devmem.h>
#include <linux/limits.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "../devmem.h"
#include "../evict.h"
#include "../reclaim.h"
#include "core_test.h"

#define NR_BLOCKS	64U
/* How many blocks the FIFO has then. */
#define NR_RECENT	4U

static void destroy(void *hold)
{
	hmm_devmem_hold_destroy(hold);
}

static struct hmm_devmem_hold *create(struct kunit *test, u32 nr_blocks)
{
	struct hmm_devmem_hold *hold = hmm_devmem_hold_create(nr_blocks);

	KUNIT_ASSERT_NOT_NULL(test, hold);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, destroy, hold));
	return hold;
}

/* The data with a number, of a process that never runs. */
static struct hmm_devmem_hold_data data_nr(unsigned long nr)
{
	return (struct hmm_devmem_hold_data) { .owner = &data_nr, .index = nr };
}

static void bring(struct hmm_devmem_hold *hold, u32 block, unsigned long nr)
{
	const struct hmm_devmem_hold_data data = data_nr(nr);

	hmm_devmem_hold_brought(hold, block, &data);
}

static void evict(struct hmm_devmem_hold *hold, u32 block, unsigned long nr)
{
	const struct hmm_devmem_hold_data data = data_nr(nr);

	hmm_devmem_hold_remember(hold, block, &data);
	hmm_devmem_hold_evicted(hold, block);
}

static bool any_may_go(void *arg, u32 block)
{
	return true;
}

static bool is_another(void *arg, u32 block)
{
	return block != *(u32 *)arg;
}

static u32 victim(struct hmm_devmem_hold *hold, unsigned long nr)
{
	const struct hmm_devmem_hold_data data = data_nr(nr);

	return hmm_devmem_hold_victim(hold, &data, any_may_go, NULL);
}

/* A device that is full with data 0, 1, 2, ...: of each block that of its number. */
static struct hmm_devmem_hold *create_full(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create(test, NR_BLOCKS);
	u32 block;

	for (block = 0; block < NR_BLOCKS; block++)
		bring(hold, block, block);
	return hold;
}

/* All blocks that are held have been used now. */
static void use_all(struct hmm_devmem_hold *hold)
{
	u32 block;

	for (block = 0; block < NR_BLOCKS; block++)
		hmm_devmem_hold_mark(hold, block);
}

/* Let time pass: bring data into the oldest block of the FIFO, and evict it. */
static void pass_time(struct kunit *test, struct hmm_devmem_hold *hold, unsigned int nr)
{
	unsigned long data = 1000;
	u32 block;

	while (nr--) {
		block = hold->recent[hold->nr_recent - 1];
		evict(hold, block, data);
		bring(hold, block, ++data);
	}
	KUNIT_ASSERT_EQ(test, NR_RECENT, hold->nr_recent);
}

static bool is_recent(const struct hmm_devmem_hold *hold, u32 block)
{
	u32 i;

	for (i = 0; i < hold->nr_recent; i++)
		if (hold->recent[i] == block)
			return true;
	return false;
}

/* A block with new data enters the FIFO, and is held when it leaves it. */
static void new_data_goes_through_the_fifo(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	u32 block;

	for (block = 0; block < NR_BLOCKS; block++)
		KUNIT_EXPECT_EQ(test, block >= NR_BLOCKS - NR_RECENT,
				is_recent(hold, block));
}

/* As long as all that is held is used, only the blocks of the FIFO take turns. */
static void fifo_takes_turns(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	unsigned long data = NR_BLOCKS;
	u32 i, block;

	for (i = 0; i < 3 * NR_RECENT; i++) {
		use_all(hold);
		block = victim(hold, data);
		KUNIT_EXPECT_EQ(test, NR_BLOCKS - NR_RECENT + i % NR_RECENT, block);
		evict(hold, block, data - NR_RECENT);
		bring(hold, block, data++);
	}
	/* Whatever the use of those is. */
	use_all(hold);
	for (i = 0; i < NR_RECENT - 1; i++)
		hold->used[hold->recent[i]] -= NR_BLOCKS;
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_EQ(test, hold->recent[NR_RECENT - 1], victim(hold, data));
}

/* New data displaces what was not used for a quarter of the number of blocks. */
static void new_data_displaces_what_is_cold(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	u32 block, cold = 0;

	use_all(hold);
	pass_time(test, hold, NR_BLOCKS / 4);
	KUNIT_EXPECT_TRUE(test, is_recent(hold, victim(hold, 2000)));
	pass_time(test, hold, 1);
	block = victim(hold, 2000);
	KUNIT_EXPECT_FALSE(test, is_recent(hold, block));
	/* And is held at once, at the place of what it has displaced. */
	evict(hold, block, block);
	bring(hold, block, 2000);
	KUNIT_EXPECT_FALSE(test, is_recent(hold, block));
	KUNIT_EXPECT_EQ(test, NR_RECENT, hold->nr_recent);
	/* Of those chosen at random, the coldest one goes. */
	use_all(hold);
	hold->used[cold] -= NR_BLOCKS;
	for (block = 1; block < NR_BLOCKS / 2; block++)
		hold->used[block] -= NR_BLOCKS / 2;
	for (block = 0; block < 2000 && victim(hold, 3000) != cold; block++)
		;
	KUNIT_EXPECT_LT(test, block, 2000);
	for (block = 0; block < 100; block++)
		KUNIT_EXPECT_LT(test, victim(hold, 3000), NR_BLOCKS / 2);
}

/* Data that returns after D displaces only what was not used for longer than D. */
static void returning_data_displaces_what_is_colder(struct kunit *test)
{
	const unsigned int distance = 10;
	struct hmm_devmem_hold *hold = create_full(test);
	const u32 gone = hold->recent[NR_RECENT - 1];

	hmm_devmem_hold_mark(hold, gone);
	use_all(hold);
	evict(hold, gone, 7777);
	bring(hold, gone, 7778);
	pass_time(test, hold, distance - 1);
	/* It is as far back as the last use of what is held. */
	KUNIT_EXPECT_TRUE(test, is_recent(hold, victim(hold, 7777)));
	/* Now all that is held was used longer ago than it. */
	for (u32 block = 0; block < NR_BLOCKS; block++)
		hold->used[block]--;
	KUNIT_EXPECT_FALSE(test, is_recent(hold, victim(hold, 7777)));
	/* It is no reason for other data. */
	KUNIT_EXPECT_TRUE(test, is_recent(hold, victim(hold, 7776)));
}

/* Without ghosts, data would return as new data. They cover twice the blocks. */
static void ghosts_cover_twice_the_blocks(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	const u32 block = hold->recent[0];
	unsigned long data;
	unsigned int known = 0;

	for (data = 100; data < 100 + 2 * NR_BLOCKS; data++) {
		evict(hold, block, data);
		bring(hold, block, data + 1000);
	}
	/* With all that is held in use, only data that left after it can displace it. */
	for (data = 100; data < 100 + 2 * NR_BLOCKS; data++) {
		const u32 age = 100 + 2 * NR_BLOCKS - data;

		for (u32 i = 0; i < NR_BLOCKS; i++)
			hold->used[i] = hold->now - age - 2;
		known += !is_recent(hold, victim(hold, data));
		for (u32 i = 0; i < NR_BLOCKS; i++)
			hold->used[i] = hold->now - age + 1;
		known += is_recent(hold, victim(hold, data));
	}
	/* Some sets of ghosts are full earlier than others. */
	KUNIT_EXPECT_GE(test, known, 4 * NR_BLOCKS * 8 / 10);
}

/* The victim is not the block that was brought in last, though it is the coldest. */
static void victim_is_not_the_last_block(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	u32 i, last = hold->recent[0];

	/* It can be the only one that is left of the FIFO. */
	while (hold->nr_recent > 1)
		evict(hold, hold->recent[hold->nr_recent - 1], 500);
	KUNIT_EXPECT_EQ(test, last, hold->recent[0]);
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_NE(test, last, victim(hold, 2000));
	/* Or held, since it has displaced another one. */
	hold = create_full(test);
	evict(hold, 0, 0);
	bring(hold, 0, 2001);
	hold->used[0] = HMM_DEVMEM_HOLD_START;
	for (i = 0; i < 1000; i++)
		KUNIT_EXPECT_NE(test, 0, victim(hold, 2000));
	/* Rather none than that. */
	hold = create(test, 1);
	bring(hold, 0, 0);
	KUNIT_EXPECT_EQ(test, HMM_DEVMEM_HOLD_NONE, victim(hold, 1));
}

static bool only_this_may_go(void *arg, u32 block)
{
	return block == *(u32 *)arg;
}

/* Blocks that cannot go are no victims; one that could not go is no victim again. */
static void victim_may_go(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	const struct hmm_devmem_hold_data data = data_nr(2000);
	u32 recent = hold->recent[2], oldest = hold->recent[3], i;

	KUNIT_EXPECT_EQ(test, recent, hmm_devmem_hold_victim(hold, &data,
							     only_this_may_go, &recent));
	use_all(hold);
	KUNIT_EXPECT_EQ(test, oldest, victim(hold, 2000));
	hmm_devmem_hold_skip(hold, oldest);
	KUNIT_EXPECT_EQ(test, recent, victim(hold, 2000));
	/* An empty block is no victim either. */
	for (i = 0; i < NR_BLOCKS; i++)
		hmm_devmem_hold_evicted(hold, i);
	KUNIT_EXPECT_EQ(test, HMM_DEVMEM_HOLD_NONE, victim(hold, 2000));
}

/* A block that was emptied without an eviction does not enter the FIFO twice. */
static void block_is_in_the_fifo_once(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	const u32 block = hold->recent[1];
	u32 i, nr = 0;

	bring(hold, block, 3000);
	for (i = 0; i < hold->nr_recent; i++)
		nr += hold->recent[i] == block;
	KUNIT_EXPECT_EQ(test, 1, nr);
	KUNIT_EXPECT_EQ(test, NR_RECENT, hold->nr_recent);
}

/*
 * The memory of a process is freed and used by another one: its data can be taken for
 * data of the first. That is no error, whatever the times are, and is over as soon as
 * the data was brought in.
 */
static void ghosts_of_an_earlier_owner_are_harmless(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create_full(test);
	struct hmm_devmem_hold_data data;
	u32 block, i, nr = 0;
	void *owner;

	for (i = 0; i < 3 * NR_BLOCKS; i++) {
		owner = kmalloc(64, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, owner);
		/* The same address for two owners, the same index. */
		data = (struct hmm_devmem_hold_data) { .owner = owner, .index = i / 2 };
		kfree(owner);
		block = hmm_devmem_hold_victim(hold, &data, any_may_go, NULL);
		KUNIT_ASSERT_LT(test, block, NR_BLOCKS);
		hmm_devmem_hold_remember(hold, block, &data);
		hmm_devmem_hold_evicted(hold, block);
		hmm_devmem_hold_brought(hold, block, &data);
	}
	/* No ghost is left of what was brought in. */
	for (i = 0; i < hold->nr_sets * 8; i++)
		nr += !!hold->ghosts[i];
	KUNIT_EXPECT_EQ(test, 0, nr);
	for (i = 0; i < NR_BLOCKS; i++)
		KUNIT_EXPECT_FALSE(test, hmm_devmem_hold_is_empty(hold, i));
}

/* A device of any size has a FIFO, ghosts, and a victim as soon as it has two blocks. */
static void sizes(struct kunit *test)
{
	static const u32 sizes[] = { 1, 2, 3, 4, 7, 16, 17, 100, 1000, 12345 };
	struct hmm_devmem_hold *hold;
	u32 i, block, size;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		size = sizes[i];
		hold = create(test, size);
		for (block = 0; block < size; block++)
			bring(hold, block, block);
		KUNIT_EXPECT_EQ(test, hold->nr_recent, hold->max_recent);
		KUNIT_EXPECT_LE(test, hold->max_recent, max(1, size / 4));
		/* Twelve bytes a block, but for the FIFO and what completes a set. */
		KUNIT_EXPECT_GE(test, hold->nr_sets * 8, 2 * size);
		KUNIT_EXPECT_LT(test, hold->nr_sets * 8, 2 * size + 8);
		block = victim(hold, size);
		KUNIT_EXPECT_EQ(test, size > 1, block < size);
	}
}

struct interrupt {
	struct hrtimer timer;
	struct hmm_devmem *devmem;
	struct completion done;
	unsigned int left;
};

static enum hrtimer_restart mark_in_interrupt(struct hrtimer *timer)
{
	struct interrupt *interrupt = container_of(timer, struct interrupt, timer);

	hmm_devmem_mark_used(interrupt->devmem, interrupt->devmem->pfn_first, 1);
	if (!--interrupt->left) {
		complete(&interrupt->done);
		return HRTIMER_NORESTART;
	}
	hrtimer_forward_now(timer, us_to_ktime(50));
	return HRTIMER_RESTART;
}

static struct hmm_devmem *add_as(struct kunit *test, unsigned long flags)
{
	const struct hmm_devmem_desc desc = {
		.ops = &managed_ops,
		.size = 8 * HMM_DEVMEM_BLOCK_SIZE,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = flags,
		.nid = NUMA_NO_NODE,
	};
	struct hmm_devmem *devmem = hmm_devmem_add_desc(test_device(test), &desc);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

/* In an interrupt, and while the lock of the policy is held. */
static void mark_used_in_any_context(struct kunit *test)
{
	struct hmm_devmem *devmem = add_as(test, HMM_DEVMEM_RECLAIM);
	struct hmm_devmem_hold *hold = priv(devmem)->hold;
	struct interrupt interrupt = { .devmem = devmem, .left = 20 };

	bring(hold, 0, 0);
	bring(hold, 1, 1);
	KUNIT_EXPECT_NE(test, hold->now, hold->used[0]);
	init_completion(&interrupt.done);
	hrtimer_setup_on_stack(&interrupt.timer, mark_in_interrupt, CLOCK_MONOTONIC,
			       HRTIMER_MODE_REL_HARD);
	hrtimer_start(&interrupt.timer, 0, HRTIMER_MODE_REL_HARD);
	wait_for_completion(&interrupt.done);
	destroy_hrtimer_on_stack(&interrupt.timer);
	KUNIT_EXPECT_EQ(test, hold->now, hold->used[0]);

	hold->used[0] = HMM_DEVMEM_HOLD_START;
	mutex_lock(&hold->lock);
	hmm_devmem_mark_used(devmem, devmem->pfn_first, 1);
	mutex_unlock(&hold->lock);
	KUNIT_EXPECT_EQ(test, hold->now, hold->used[0]);
	hmm_devmem_remove(devmem);
}

/* Ranges that reach over an end of the device, that are empty, or that overflow. */
static void mark_used_outside(struct kunit *test)
{
	struct hmm_devmem *devmem = add_as(test, HMM_DEVMEM_RECLAIM);
	struct hmm_devmem_hold *hold = priv(devmem)->hold;
	u32 block;

	for (block = 0; block < hold->nr_blocks; block++)
		bring(hold, block, block);
	bring(hold, 3, 100);
	hmm_devmem_mark_used(devmem, devmem->pfn_first + HMM_DEVMEM_BLOCK_NR, 0);
	hmm_devmem_mark_used(devmem, 0, devmem->pfn_first);
	hmm_devmem_mark_used(devmem, devmem->pfn_last, ULONG_MAX);
	for (block = 0; block < hold->nr_blocks; block++)
		KUNIT_EXPECT_EQ(test, block == 3, hold->used[block] == hold->now);
	hmm_devmem_mark_used(devmem, devmem->pfn_first - 1, 2);
	hmm_devmem_mark_used(devmem, devmem->pfn_last - 1, ULONG_MAX);
	for (block = 0; block < hold->nr_blocks; block++)
		KUNIT_EXPECT_EQ(test, block == 0 || block == 3 || block == hold->nr_blocks - 1,
				hold->used[block] == hold->now);
	/* An empty block is not used. */
	hmm_devmem_hold_evicted(hold, 5);
	hmm_devmem_mark_used(devmem, 0, ULONG_MAX);
	for (block = 0; block < hold->nr_blocks; block++)
		KUNIT_EXPECT_EQ(test, block != 5, hold->used[block] == hold->now);
	hmm_devmem_remove(devmem);
}

/* A devmem without reclaim has no policy, and a removed one can still be asked. */
static void mark_used_in_any_state(struct kunit *test)
{
	struct hmm_devmem *devmem = add_as(test, 0);

	KUNIT_EXPECT_NULL(test, priv(devmem)->hold);
	hmm_devmem_mark_used(devmem, devmem->pfn_first, 1);
	hmm_devmem_remove(devmem);
	devmem = add_as(test, HMM_DEVMEM_RECLAIM | HMM_DEVMEM_LAZY);
	hmm_devmem_get(devmem);
	hmm_devmem_remove(devmem);
	hmm_devmem_mark_used(devmem, devmem->pfn_first, 1);
	hmm_devmem_put(devmem);
}

/* From cold to hot, and of those that were used at the same time in order. */
static void walk_goes_from_cold_to_hot(struct kunit *test)
{
	static const u32 expected[] = { 6, 7, 0, 1, 5, 2, 4 };
	struct hmm_devmem_hold *hold = create(test, 8);
	struct hmm_devmem_hold_walk walk = { };
	u32 i, not = 3;

	/* Blocks 6 and 7 have no data. */
	for (i = 0; i < 6; i++)
		bring(hold, i, i);
	bring(hold, 4, 9);
	hmm_devmem_hold_mark(hold, 2);
	for (i = 0; i < ARRAY_SIZE(expected); i++)
		KUNIT_EXPECT_EQ(test, hmm_devmem_hold_next(hold, &walk, is_another, &not),
				expected[i]);
	KUNIT_EXPECT_EQ(test, hmm_devmem_hold_next(hold, &walk, is_another, &not),
			HMM_DEVMEM_HOLD_NONE);
}

/* A block that is used during the walk is hotter than the others, once more. */
static void walk_finds_block_again_that_is_used(struct kunit *test)
{
	struct hmm_devmem_hold *hold = create(test, 2);
	struct hmm_devmem_hold_walk walk = { };

	bring(hold, 0, 0);
	bring(hold, 1, 1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_hold_next(hold, &walk, any_may_go, NULL), 0);
	bring(hold, 1, 2);
	hmm_devmem_hold_mark(hold, 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_hold_next(hold, &walk, any_may_go, NULL), 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_hold_next(hold, &walk, any_may_go, NULL), 1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_hold_next(hold, &walk, any_may_go, NULL),
			HMM_DEVMEM_HOLD_NONE);
}

static struct kunit_case reclaim_cases[] = {
	KUNIT_CASE(new_data_goes_through_the_fifo),
	KUNIT_CASE(fifo_takes_turns),
	KUNIT_CASE(new_data_displaces_what_is_cold),
	KUNIT_CASE(returning_data_displaces_what_is_colder),
	KUNIT_CASE(ghosts_cover_twice_the_blocks),
	KUNIT_CASE(victim_is_not_the_last_block),
	KUNIT_CASE(victim_may_go),
	KUNIT_CASE(block_is_in_the_fifo_once),
	KUNIT_CASE(ghosts_of_an_earlier_owner_are_harmless),
	KUNIT_CASE(sizes),
	KUNIT_CASE(mark_used_in_any_context),
	KUNIT_CASE(mark_used_outside),
	KUNIT_CASE(mark_used_in_any_state),
	KUNIT_CASE(walk_goes_from_cold_to_hot),
	KUNIT_CASE(walk_finds_block_again_that_is_used),
	{ }
};

static struct kunit_suite reclaim_suite = {
	.name = "hmm_devmem_reclaim",
	.init = fixture_init,
	.test_cases = reclaim_cases,
};

kunit_test_suite(reclaim_suite);
