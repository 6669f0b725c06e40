// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_pool_loan: a pool whose blocks are lent and taken back. It needs
 * no device.
 */

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/sched.h>
#include <linux/workqueue.h>

#include "../pool.h"
#include "pool_test.h"

#define LOAN_BLOCKS	8
#define BLOCK_PFNS	512UL

static unsigned long loan_pfn(unsigned int block)
{
	return TEST_BASE + block * BLOCK_PFNS;
}

/* A pool of two segments, of which no block is lent yet. */
static struct hmm_devmem_pool *create_loan(struct kunit *test)
{
	struct hmm_devmem_pool *pool;
	unsigned int i;

	pool = hmm_devmem_pool_create(TEST_BASE, LOAN_BLOCKS * BLOCK_PFNS, 9, 11);
	KUNIT_ASSERT_NOT_NULL(test, pool);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, destroy_action, pool));
	pool->on_loan = true;
	for (i = 0; i < pool->nr_segments; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_populate(pool, i));
	return pool;
}

/* Blocks whose pages are counted. */
static unsigned int nr_lent(struct hmm_devmem_pool *pool)
{
	unsigned int block, nr = 0;

	for (block = 0; block < LOAN_BLOCKS; block++)
		nr += hmm_devmem_pool_block_taken(pool, loan_pfn(block)) >= 0;
	return nr;
}

static void expect_counts(struct kunit *test, struct hmm_devmem_pool *pool,
			  unsigned long total, unsigned long used)
{
	struct hmm_devmem_pool_stats stats;

	hmm_devmem_pool_drain(pool);
	stats = get_stats(pool);
	KUNIT_EXPECT_EQ(test, stats.total, total);
	KUNIT_EXPECT_EQ(test, stats.used, used);
	KUNIT_EXPECT_EQ(test, stats.free, total - used);
	KUNIT_EXPECT_EQ(test, nr_lent(pool) * BLOCK_PFNS, total);
}

static void nothing_is_free_before_it_is_lent(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);
	unsigned long pfn;

	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc(pool, 0, &pfn), -ENOMEM);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc(pool, 9, &pfn), -ENOMEM);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc_bulk(pool, 1, &pfn), 0);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_has_page(pool));
	expect_counts(test, pool, 0, 0);
}

static void lent_block_is_all_that_is_free(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);
	unsigned long pfn;

	hmm_devmem_pool_lend(pool, loan_pfn(5));
	expect_counts(test, pool, BLOCK_PFNS, 0);
	KUNIT_EXPECT_EQ(test, get(test, pool, 9), loan_pfn(5));
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc(pool, 0, &pfn), -ENOMEM);
	expect_counts(test, pool, BLOCK_PFNS, BLOCK_PFNS);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_take_back(pool, loan_pfn(5)));
	hmm_devmem_pool_free(pool, loan_pfn(5), 9);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pool_take_back(pool, loan_pfn(5)));
	expect_counts(test, pool, 0, 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc(pool, 0, &pfn), -ENOMEM);
	hmm_devmem_pool_lend(pool, loan_pfn(5));
	KUNIT_EXPECT_EQ(test, get(test, pool, 9), loan_pfn(5));
}

/* A page in a cache is free, but a block that has one cannot be taken back. */
static void cached_page_keeps_its_block(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);

	hmm_devmem_pool_lend(pool, loan_pfn(0));
	hmm_devmem_pool_free(pool, get(test, pool, 0), 0);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_take_back(pool, loan_pfn(0)));
	hmm_devmem_pool_drain(pool);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pool_take_back(pool, loan_pfn(0)));
}

static void withheld_block_hands_out_nothing(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);
	unsigned long used, large, pfn;

	hmm_devmem_pool_lend(pool, loan_pfn(0));
	/* The cache has pages of the block. */
	used = get(test, pool, 0);
	large = get(test, pool, 4);
	hmm_devmem_pool_withhold(pool, loan_pfn(0));
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc(pool, 0, &pfn), -ENOMEM);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc(pool, 4, &pfn), -ENOMEM);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc_bulk(pool, 1, &pfn), 0);
	/* Nor what is freed from now on, to whatever cache. */
	hmm_devmem_pool_free(pool, large, 4);
	hmm_devmem_pool_free(pool, used, 0);
	KUNIT_EXPECT_EQ(test, get_stats(pool).cached, 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_alloc(pool, 0, &pfn), -ENOMEM);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pool_take_back(pool, loan_pfn(0)));
	KUNIT_EXPECT_EQ(test, pool->nr_withheld, 0);
}

static void withheld_block_can_be_lent_again(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);
	unsigned long used, i;

	hmm_devmem_pool_lend(pool, loan_pfn(0));
	used = get(test, pool, 0);
	hmm_devmem_pool_withhold(pool, loan_pfn(0));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_take_back(pool, loan_pfn(0)));
	hmm_devmem_pool_lend(pool, loan_pfn(0));
	KUNIT_EXPECT_EQ(test, pool->nr_withheld, 0);
	expect_counts(test, pool, BLOCK_PFNS, 1);
	for (i = 1; i < BLOCK_PFNS; i++)
		KUNIT_EXPECT_NE(test, get(test, pool, 0), used);
	expect_counts(test, pool, BLOCK_PFNS, BLOCK_PFNS);
}

/* Pages of other blocks are cached while one is withheld. */
static void other_blocks_are_cached_meanwhile(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);
	unsigned long pfn;

	hmm_devmem_pool_lend(pool, loan_pfn(0));
	hmm_devmem_pool_lend(pool, loan_pfn(1));
	hmm_devmem_pool_withhold(pool, loan_pfn(0));
	pfn = get(test, pool, 0);
	hmm_devmem_pool_drain(pool);
	/* Each CPU has a cache of its own. */
	migrate_disable();
	hmm_devmem_pool_free(pool, pfn, 0);
	KUNIT_EXPECT_EQ(test, get_stats(pool).cached, 1);
	KUNIT_EXPECT_EQ(test, get(test, pool, 0), pfn);
	migrate_enable();
}

static void retired_page_keeps_its_block(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);
	unsigned long pfn;

	/* One that the driver has, and one that it has lent. */
	hmm_devmem_pool_retire(pool, loan_pfn(0) + 3);
	expect_counts(test, pool, 0, 0);
	hmm_devmem_pool_lend(pool, loan_pfn(0));
	KUNIT_EXPECT_EQ(test, get_stats(pool).free, BLOCK_PFNS - 1);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pool_block_retired(pool, loan_pfn(0)));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_take_back(pool, loan_pfn(0)));
	hmm_devmem_pool_lend(pool, loan_pfn(4));
	hmm_devmem_pool_withhold(pool, loan_pfn(4));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_block_retired(pool, loan_pfn(4)));
	hmm_devmem_pool_retire(pool, loan_pfn(4));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_take_back(pool, loan_pfn(4)));
	hmm_devmem_pool_lend(pool, loan_pfn(4));
	while (!hmm_devmem_pool_alloc(pool, 0, &pfn)) {
		KUNIT_EXPECT_NE(test, pfn, loan_pfn(0) + 3);
		KUNIT_EXPECT_NE(test, pfn, loan_pfn(4));
	}
}

static void segment_with_a_lent_block_stays(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);

	hmm_devmem_pool_retire(pool, loan_pfn(1));
	hmm_devmem_pool_lend(pool, loan_pfn(0));
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_depopulate(pool, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_depopulate(pool, 1), 0);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pool_take_back(pool, loan_pfn(0)));
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_depopulate(pool, 0), 0);
	expect_counts(test, pool, 0, 0);
	/* What was retired is remembered. */
	KUNIT_ASSERT_EQ(test, hmm_devmem_pool_populate(pool, 0), 0);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pool_block_retired(pool, loan_pfn(1)));
	expect_counts(test, pool, 0, 0);
}

/* Users of pages, while blocks are taken back and lent again */

#define LOAN_ROUNDS	5000
#define NR_USERS	3

struct loan_user {
	struct work_struct work;
	struct hmm_devmem_pool *pool;
	atomic_t *owned;
	bool *stop;
	unsigned long wrong;
	unsigned long done;
};

/* No page is handed out of a block that is the driver's. */
static void loan_user_work(struct work_struct *work)
{
	struct loan_user *user = container_of(work, struct loan_user, work);
	unsigned long pfns[8], pfn;
	unsigned int i, nr;

	while (!READ_ONCE(*user->stop)) {
		for (nr = 0; nr < ARRAY_SIZE(pfns); nr++) {
			if (hmm_devmem_pool_alloc(user->pool, 0, &pfn))
				break;
			pfns[nr] = pfn;
			user->wrong += atomic_read(&user->owned[(pfn - TEST_BASE) / BLOCK_PFNS]);
		}
		for (i = 0; i < nr; i++)
			hmm_devmem_pool_free(user->pool, pfns[i], 0);
		user->done += nr;
		cond_resched();
	}
}

static void loan_round(struct hmm_devmem_pool *pool, atomic_t *owned, unsigned int block,
		       unsigned int *taken)
{
	if (atomic_read(&owned[block])) {
		atomic_set(&owned[block], 0);
		hmm_devmem_pool_lend(pool, loan_pfn(block));
		return;
	}
	hmm_devmem_pool_withhold(pool, loan_pfn(block));
	if (hmm_devmem_pool_take_back(pool, loan_pfn(block))) {
		atomic_set(&owned[block], 1);
		(*taken)++;
	} else {
		hmm_devmem_pool_lend(pool, loan_pfn(block));
	}
	cond_resched();
}

static void no_page_of_a_block_that_was_taken_back(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_loan(test);
	struct loan_user *users = kunit_kcalloc(test, NR_USERS, sizeof(*users), GFP_KERNEL);
	atomic_t *owned = kunit_kcalloc(test, LOAN_BLOCKS, sizeof(*owned), GFP_KERNEL);
	unsigned int i, taken = 0;
	bool stop = false;

	KUNIT_ASSERT_NOT_NULL(test, users);
	KUNIT_ASSERT_NOT_NULL(test, owned);
	for (i = 0; i < LOAN_BLOCKS; i++)
		hmm_devmem_pool_lend(pool, loan_pfn(i));
	for (i = 0; i < NR_USERS; i++) {
		users[i] = (struct loan_user) { .pool = pool, .owned = owned, .stop = &stop };
		INIT_WORK(&users[i].work, loan_user_work);
		queue_work(system_dfl_long_wq, &users[i].work);
	}
	for (i = 0; i < LOAN_ROUNDS; i++)
		loan_round(pool, owned, i % LOAN_BLOCKS, &taken);
	WRITE_ONCE(stop, true);
	for (i = 0; i < NR_USERS; i++) {
		flush_work(&users[i].work);
		KUNIT_EXPECT_EQ(test, users[i].wrong, 0);
	}
	KUNIT_EXPECT_GT(test, taken, 0);
	for (i = 0; i < LOAN_BLOCKS; i++)
		if (atomic_read(&owned[i]))
			hmm_devmem_pool_lend(pool, loan_pfn(i));
	expect_counts(test, pool, LOAN_BLOCKS * BLOCK_PFNS, 0);
	KUNIT_EXPECT_EQ(test, count_blocks(pool), LOAN_BLOCKS);
}

static struct kunit_case pool_loan_cases[] = {
	KUNIT_CASE(nothing_is_free_before_it_is_lent),
	KUNIT_CASE(lent_block_is_all_that_is_free),
	KUNIT_CASE(cached_page_keeps_its_block),
	KUNIT_CASE(withheld_block_hands_out_nothing),
	KUNIT_CASE(withheld_block_can_be_lent_again),
	KUNIT_CASE(other_blocks_are_cached_meanwhile),
	KUNIT_CASE(retired_page_keeps_its_block),
	KUNIT_CASE(segment_with_a_lent_block_stays),
	KUNIT_CASE_SLOW(no_page_of_a_block_that_was_taken_back),
	{ }
};

static struct kunit_suite pool_loan_suite = {
	.name = "hmm_devmem_pool_loan",
	.test_cases = pool_loan_cases,
};

kunit_test_suite(pool_loan_suite);
