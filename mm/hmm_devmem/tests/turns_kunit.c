// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_turns: which large folios the CPU and the device use by turns,
 * a few pages each time.
 */

#include <kunit/test.h>
#include <linux/mm_types.h>

#include "../turns.h"

/* Only compared, never dereferenced. */
#define SOME_MM(i)	((const struct mm_struct *)(0x1000UL * (1 + (i))))
#define ONE_MM		SOME_MM(0)
/* So many processes that several of them have the same hash. */
#define NR_MMS		200
#define ORDER		9
#define BLOCK		BIT(ORDER)
/* A page that is at neither end of its block. */
#define MIDDLE(block)	((block) * BLOCK + 100)

static struct hmm_devmem_turns *new_turns(struct kunit *test)
{
	struct hmm_devmem_turns *turns;

	turns = kunit_kzalloc(test, sizeof(*turns), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, turns);
	return turns;
}

static bool touch_by(struct hmm_devmem_turns *turns, const struct mm_struct *mm,
		     unsigned long page)
{
	return hmm_devmem_turns_split(turns, mm, page, ORDER);
}

static bool touch(struct hmm_devmem_turns *turns, unsigned long page)
{
	return touch_by(turns, ONE_MM, page);
}

/* Small pages of a block come back. */
static void come_back(struct hmm_devmem_turns *turns, const struct mm_struct *mm,
		      unsigned long page, unsigned int nr)
{
	hmm_devmem_turns_count(turns, mm, page >> ORDER, nr);
}

/* Split a block of a process for a trial, and another one that waits for its result. */
static void begin_trial(struct kunit *test, struct hmm_devmem_turns *turns)
{
	unsigned int i;

	for (i = 0; i < HMM_DEVMEM_TURNS_WHOLE; i++) {
		KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(1)));
		KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(3)));
	}
	KUNIT_EXPECT_TRUE(test, touch(turns, MIDDLE(1)));
	come_back(turns, ONE_MM, MIDDLE(1), 1);
	KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(3)));
}

static void same_page_again_splits(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i;

	for (i = 0; i < HMM_DEVMEM_TURNS_WHOLE; i++)
		KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(1)));
	KUNIT_EXPECT_TRUE(test, touch(turns, MIDDLE(1)));
}

static void other_page_of_the_block_does_not(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i;

	for (i = 0; i < 10; i++)
		KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(1) + i));
}

static void first_and_last_page_do_not(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i;

	for (i = 0; i < 10; i++) {
		KUNIT_EXPECT_FALSE(test, touch(turns, BLOCK));
		KUNIT_EXPECT_FALSE(test, touch(turns, 4 * BLOCK - 1));
	}
}

static void start_of_a_walk_does_not(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i;

	for (i = 0; i < 10; i++) {
		/* Upward, and downward */
		KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(1)));
		KUNIT_EXPECT_FALSE(test, touch(turns, 2 * BLOCK));
		KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(8)));
		KUNIT_EXPECT_FALSE(test, touch(turns, 8 * BLOCK - 1));
	}
}

static void other_mm_is_not_the_same(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i;

	for (i = 0; i < NR_MMS; i++)
		KUNIT_EXPECT_FALSE(test, touch_by(turns, SOME_MM(i), MIDDLE(1)));
}

static void good_trial_splits_others(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);

	begin_trial(test, turns);
	KUNIT_EXPECT_TRUE(test, touch(turns, MIDDLE(3)));
}

static void bad_trial_splits_no_others(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i;

	begin_trial(test, turns);
	come_back(turns, ONE_MM, MIDDLE(1) + 1, BLOCK / 8);
	for (i = 0; i < HMM_DEVMEM_TURNS_PAUSE; i++)
		KUNIT_EXPECT_FALSE(test, touch(turns, MIDDLE(3)));
	/* But after a long time there is another trial. */
	KUNIT_EXPECT_TRUE(test, touch(turns, MIDDLE(3)));
	come_back(turns, ONE_MM, MIDDLE(3), 1);
}

/* Pages of another process, or of other blocks, do not count. */
static void trial_counts_its_own_pages(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i;

	begin_trial(test, turns);
	for (i = 1; i < NR_MMS; i++)
		come_back(turns, SOME_MM(i), MIDDLE(1), BLOCK);
	come_back(turns, ONE_MM, MIDDLE(2), BLOCK);
	KUNIT_EXPECT_TRUE(test, touch(turns, MIDDLE(3)));
}

static void bad_trial_does_not_matter_to_others(struct kunit *test)
{
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int i, n;

	begin_trial(test, turns);
	come_back(turns, ONE_MM, MIDDLE(1) + 1, BLOCK / 8);
	/* Nor does the entry of the block that was not split, after some time. */
	turns->clock += HMM_DEVMEM_TURNS_KEEP;
	for (i = 1; i < NR_MMS; i++) {
		for (n = 0; n < HMM_DEVMEM_TURNS_WHOLE; n++)
			KUNIT_EXPECT_FALSE(test, touch_by(turns, SOME_MM(i),
							  MIDDLE(5)));
		KUNIT_EXPECT_TRUE(test, touch_by(turns, SOME_MM(i), MIDDLE(5)));
	}
}

/* If there are more blocks than entries, they are split one after the other. */
static void more_blocks_than_entries_are_split(struct kunit *test)
{
	const unsigned int nr = 16 * BIT(HMM_DEVMEM_TURNS_BITS), nr_rounds = 200;
	struct hmm_devmem_turns *turns = new_turns(test);
	unsigned int round, i, nr_split = 0;
	bool *split;

	split = kunit_kcalloc(test, nr, sizeof(*split), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, split);
	for (round = 0; round < nr_rounds; round++) {
		for (i = 0; i < nr; i++) {
			if (!split[i])
				split[i] = touch(turns, MIDDLE(2 * i + 1));
			if (split[i])
				come_back(turns, ONE_MM, MIDDLE(2 * i + 1), 1);
		}
	}
	for (i = 0; i < nr; i++)
		nr_split += split[i];
	KUNIT_EXPECT_EQ(test, nr, nr_split);
}

static struct kunit_case turns_cases[] = {
	KUNIT_CASE(same_page_again_splits),
	KUNIT_CASE(other_page_of_the_block_does_not),
	KUNIT_CASE(first_and_last_page_do_not),
	KUNIT_CASE(start_of_a_walk_does_not),
	KUNIT_CASE(other_mm_is_not_the_same),
	KUNIT_CASE(good_trial_splits_others),
	KUNIT_CASE(bad_trial_splits_no_others),
	KUNIT_CASE(trial_counts_its_own_pages),
	KUNIT_CASE(bad_trial_does_not_matter_to_others),
	KUNIT_CASE(more_blocks_than_entries_are_split),
	{}
};

static struct kunit_suite turns_suite = {
	.name = "hmm_devmem_turns",
	.test_cases = turns_cases,
};

kunit_test_suite(turns_suite);
