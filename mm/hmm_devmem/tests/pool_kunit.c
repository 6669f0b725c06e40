// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_pool: the pool of device pages.
 */

#include <kunit/test.h>
#include <linux/cleanup.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "pool_test.h"

#include "../block.h"

unsigned long hmm_devmem_test_seed;
module_param_named(seed, hmm_devmem_test_seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Seed of the random tests, 0 for a new one (printed)");

int hmm_devmem_test_print_seed(struct kunit_suite *suite)
{
	if (!hmm_devmem_test_seed)
		hmm_devmem_test_seed = get_random_u32() | 1;
	kunit_info(suite, "replay with seed=%lu\n", hmm_devmem_test_seed);
	return 0;
}

KUNIT_ARRAY_PARAM_DESC(geometry, geometries, desc);

static unsigned int count_runs(const unsigned long *pfns, unsigned int nr)
{
	unsigned int i, runs = 0;

	for (i = 0; i < nr; i++)
		runs += !i || pfns[i] != pfns[i - 1] + 1;
	return runs;
}

/* Creation */

static void create_has_all_pages_free(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool_stats stats = get_stats(create(test, geo));

	KUNIT_EXPECT_EQ(test, stats.total, geo->nr);
	KUNIT_EXPECT_EQ(test, stats.free, geo->nr);
	KUNIT_EXPECT_EQ(test, stats.used, 0);
	KUNIT_EXPECT_EQ(test, stats.cached, 0);
	KUNIT_EXPECT_EQ(test, stats.retired, 0);
}

static void destroy_null_ignored(struct kunit *test)
{
	hmm_devmem_pool_destroy(NULL);
}

static void get_unpopulated_returns_enomem(struct kunit *test)
{
	struct hmm_devmem_pool *pool;
	unsigned long pfn;

	pool = hmm_devmem_pool_create(TEST_BASE, 512, 9, 9);
	KUNIT_ASSERT_NOT_NULL(test, pool);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 0, &pfn));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 9, &pfn));
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).total);
	hmm_devmem_pool_destroy(pool);
}

/* Single pages */

static void get_until_exhausted_gives_each_page_once(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	u8 *seen = alloc_bytes(test, geo->nr);
	unsigned long pfn, i;

	for (i = 0; i < geo->nr; i++)
		mark_seen(test, geo, seen, get(test, pool, 0), 0);

	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 0, &pfn));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 1, &pfn));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc_bulk(pool, 1, &pfn));
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(pool).used);
}

static void get_after_exhausted_finds_freed_page(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 9) + 77;

	hmm_devmem_pool_free(pool, pfn, 0);
	KUNIT_EXPECT_EQ(test, pfn, get(test, pool, 0));
}

static void get_singles_ascend_without_gaps(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	unsigned long *pfns = alloc_pfns(test, 1000);
	unsigned int i, nr = 0;

	migrate_disable();
	for (i = 0; i < 1000; i++)
		nr += !hmm_devmem_pool_alloc(pool, 0, &pfns[i]);
	migrate_enable();

	KUNIT_ASSERT_EQ(test, nr, 1000);
	KUNIT_EXPECT_EQ(test, count_runs(pfns, nr), 1);
}

static void put_order_0_is_cached(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 9);

	hmm_devmem_pool_free(pool, pfn, 0);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).cached);
	KUNIT_EXPECT_EQ(test, 511, get_stats(pool).used);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).free);
}

static void drain_empties_caches(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 9);

	hmm_devmem_pool_free(pool, pfn, 0);
	hmm_devmem_pool_drain(pool);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).cached);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).free);
}

/* A CPU's cache keeps few pages, however many are freed on that CPU. */
static void put_many_does_not_hoard(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	unsigned long pfn = get(test, pool, 9);
	unsigned long most = 0;
	unsigned int i;

	migrate_disable();
	for (i = 0; i < 512; i++) {
		hmm_devmem_pool_free(pool, pfn + i, 0);
		most = max(most, get_stats(pool).cached);
	}
	migrate_enable();
	KUNIT_EXPECT_LE(test, most, 64);
}

/* Larger pieces */

static void get_order_gives_all_aligned_pieces(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	const unsigned long first = TEST_BASE + geo->first;
	struct hmm_devmem_pool *pool = create(test, geo);
	unsigned long *pfns = alloc_pfns(test, geo->nr);
	unsigned long nr, step;
	unsigned int order;
	u8 *seen;

	for (order = 0; order <= geo->block_order; order++) {
		seen = alloc_bytes(test, geo->nr);
		step = 1UL << order;
		nr = 0;
		while (nr < geo->nr &&
		       !hmm_devmem_pool_alloc(pool, order, &pfns[nr]))
			mark_seen(test, geo, seen, pfns[nr++], order);
		kunit_kfree(test, seen);

		KUNIT_EXPECT_EQ(test, nr,
				max(ALIGN(first, step),
				    ALIGN_DOWN(first + geo->nr, step)) / step -
				ALIGN(first, step) / step);
		while (nr)
			hmm_devmem_pool_free(pool, pfns[--nr], order);
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_used(pool));
	}
}

static void get_order_too_large_returns_einval(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	unsigned long pfn = 1;

	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_devmem_pool_alloc(pool, geo->block_order + 1, &pfn));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_devmem_pool_alloc(pool, 64, &pfn));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_devmem_pool_alloc(pool, UINT_MAX, &pfn));
	KUNIT_EXPECT_EQ(test, 1, pfn);
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(pool).free);
}

static void shuffle(unsigned long *pfns, unsigned int nr, struct rnd_state *rnd)
{
	while (nr > 1) {
		unsigned int i = random_below(rnd, nr--);

		swap(pfns[i], pfns[nr]);
	}
}

/* A block freed in parts of any size, in any order, is whole: a million times. */
static void put_parts_coalesces(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long *parts = alloc_pfns(test, 512);
	unsigned long pfn = get(test, pool, 9);
	struct rnd_state rnd;
	unsigned int order, nr, i, round;

	prandom_seed_state(&rnd, hmm_devmem_test_seed);
	/* Nine rounds free 1022 parts. */
	for (round = 0; round < 9 * 1000; round++) {
		order = round % 9;
		nr = 512 >> order;
		for (i = 0; i < nr; i++)
			parts[i] = pfn + (i << order);
		shuffle(parts, nr, &rnd);
		for (i = 0; i < nr; i++)
			hmm_devmem_pool_free(pool, parts[i], order);
		KUNIT_ASSERT_EQ(test, pfn, get(test, pool, 9));
	}
}

static void get_pieces_coalesce_with_singles(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long single = get(test, pool, 0);
	unsigned long pair = get(test, pool, 1);
	unsigned long half = get(test, pool, 8);
	unsigned long pfn;

	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 9, &pfn));
	hmm_devmem_pool_free(pool, pair, 1);
	hmm_devmem_pool_free(pool, half, 8);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 9, &pfn));
	hmm_devmem_pool_free(pool, single, 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc(pool, 9, &pfn));
}

static void get_large_drains_caches(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn;

	hmm_devmem_pool_free(pool, get(test, pool, 0), 0);
	KUNIT_ASSERT_GT(test, get_stats(pool).cached, 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc(pool, 9, &pfn));
}

/* Which block */

static void get_small_leaves_whole_blocks(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	unsigned int i;

	for (i = 0; i < 100; i++) {
		get(test, pool, 0);
		get(test, pool, 1);
	}
	KUNIT_EXPECT_EQ(test, count_blocks(pool), TEST_BLOCKS - 1);
}

static void get_small_fills_partial_block(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	unsigned long empty = get(test, pool, 9);
	unsigned long partial = get(test, pool, 9);
	unsigned int i;

	hmm_devmem_pool_free(pool, empty, 9);
	hmm_devmem_pool_free(pool, partial + 256, 8);
	for (i = 0; i < 128; i++)
		KUNIT_EXPECT_EQ(test, partial,
				ALIGN_DOWN(get(test, pool, 1), 512));
	KUNIT_EXPECT_EQ(test, count_blocks(pool), TEST_BLOCKS - 1);
}

static void get_large_reuses_empty_block(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	unsigned long pfn = get(test, pool, 9);

	hmm_devmem_pool_free(pool, pfn, 9);
	KUNIT_EXPECT_EQ(test, pfn, get(test, pool, 9));
}

/* If every second page is in use, all others can be allocated, but no pair. */
static void get_fragmented_finds_every_page(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	const unsigned int nr = TEST_BLOCKS * 512;
	unsigned long pfn, i;

	for (i = 0; i < nr; i++)
		get(test, pool, 0);
	for (i = 0; i < nr; i += 2)
		hmm_devmem_pool_free(pool, TEST_BASE + i, 0);

	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 1, &pfn));
	for (i = 0; i < nr; i += 2)
		KUNIT_ASSERT_TRUE(test, IS_ALIGNED(get(test, pool, 0), 2));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 0, &pfn));
}

/* The only piece of its size is in the last of many partial blocks. */
static void get_order_searches_all_partial_blocks(struct kunit *test)
{
	const struct geometry geo = { .block_order = 3, .segment_order = 10, .nr = 1024 };
	struct hmm_devmem_pool *pool = create(test, &geo);
	unsigned long pfn, i;

	for (i = 0; i < geo.nr / 8; i++)
		get(test, pool, 3);
	for (i = 0; i < geo.nr; i += 8)
		hmm_devmem_pool_free(pool, TEST_BASE + i, 0);
	hmm_devmem_pool_drain(pool);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 1, &pfn));

	hmm_devmem_pool_free(pool, TEST_BASE + 516, 2);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc(pool, 2, &pfn));
	KUNIT_EXPECT_EQ(test, pfn, TEST_BASE + 516);
}

/* Every second page of @nr_blocks blocks of 64 pages is free, and so no pair is. */
static struct hmm_devmem_pool *create_checkerboard(struct kunit *test,
						   unsigned int nr_blocks)
{
	const struct geometry geo = {
		.block_order = 6, .segment_order = 10, .nr = nr_blocks << 6,
	};
	struct hmm_devmem_pool *pool = create(test, &geo);
	unsigned long i;

	for (i = 0; i < nr_blocks; i++)
		get(test, pool, 6);
	for (i = 0; i < geo.nr; i += 2)
		hmm_devmem_pool_free(pool, TEST_BASE + i, 0);
	hmm_devmem_pool_drain(pool);
	return pool;
}

/* A block is not searched again in vain unless pages of it were freed. */
static void get_order_in_vain_searches_blocks_once(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_checkerboard(test, 1000);
	unsigned long pfn;

	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 1, &pfn));
	KUNIT_EXPECT_LE(test, pool->supply.nr_searched, 1000);
	pool->supply.nr_searched = 0;
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 1, &pfn));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 3, &pfn));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 6, &pfn));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc(pool, 0, &pfn));
	KUNIT_EXPECT_EQ(test, pool->supply.nr_searched, 0);

	/* Free the second page of a pair. */
	hmm_devmem_pool_free(pool, TEST_BASE + 700 * 64 + 33, 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc(pool, 1, &pfn));
	KUNIT_EXPECT_EQ(test, pfn, TEST_BASE + 700 * 64 + 32);
	KUNIT_EXPECT_LE(test, pool->supply.nr_searched, 2);
}

/* No more than a few blocks are searched with the lock held. */
static void get_order_in_vain_releases_the_lock(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_checkerboard(test, 1000);
	unsigned int calls = 0;
	unsigned long pfn;
	int ret;

	do {
		pool->supply.nr_searched = 0;
		scoped_guard(spinlock_irqsave, &pool->blocks_lock)
			ret = hmm_devmem_supply_take_order(pool, 1, &pfn);
		KUNIT_ASSERT_LE(test, pool->supply.nr_searched, 8);
		calls++;
	} while (ret > 0);
	KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	KUNIT_EXPECT_GE(test, calls, 1000 / 8);
}

static void get_order_breaks_up_block_before_long_search(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_checkerboard(test, 1000);
	unsigned long pfn, whole = TEST_BASE + 500 * 64;
	unsigned int i;

	for (i = 1; i < 64; i += 2)
		hmm_devmem_pool_free(pool, whole + i, 0);
	hmm_devmem_pool_drain(pool);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc(pool, 1, &pfn));
	KUNIT_EXPECT_EQ(test, pfn, whole);
	KUNIT_EXPECT_LE(test, pool->supply.nr_searched, 8);
}

/* If nothing is free, and nothing was freed, other CPUs' caches are left alone. */
static void get_in_vain_drains_caches_once(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn, other = get(test, pool, 0);
	unsigned int i;
	long drained;

	while (!hmm_devmem_pool_alloc(pool, 0, &pfn))
		;
	drained = atomic_long_read(&pool->nr_drained);
	for (i = 0; i < 10; i++) {
		KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 0, &pfn));
		KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 9, &pfn));
		KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc_bulk(pool, 1, &pfn));
	}
	KUNIT_EXPECT_EQ(test, drained, atomic_long_read(&pool->nr_drained));

	hmm_devmem_pool_free(pool, other, 0);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 9, &pfn));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 9, &pfn));
	KUNIT_EXPECT_EQ(test, drained + 1, atomic_long_read(&pool->nr_drained));
	KUNIT_EXPECT_EQ(test, other, get(test, pool, 0));
}

/* Bulk */

static void bulk_fresh_is_one_run(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	unsigned long *pfns = alloc_pfns(test, 1500);

	KUNIT_ASSERT_EQ(test, 1500, hmm_devmem_pool_alloc_bulk(pool, 1500, pfns));
	KUNIT_EXPECT_EQ(test, count_runs(pfns, 1500), 1);
}

static void bulk_partial_block_takes_its_runs(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, TEST_BLOCKS);
	unsigned long *pfns = alloc_pfns(test, 224);
	unsigned long pfn = get(test, pool, 9);
	unsigned int i;

	/* Free runs of 32, then 64, then 128 pages. */
	hmm_devmem_pool_free(pool, pfn + 32, 5);
	hmm_devmem_pool_free(pool, pfn + 128, 6);
	hmm_devmem_pool_free(pool, pfn + 256, 7);
	KUNIT_ASSERT_EQ(test, 224, hmm_devmem_pool_alloc_bulk(pool, 224, pfns));
	KUNIT_EXPECT_EQ(test, count_runs(pfns, 224), 3);
	for (i = 0; i < 224; i++)
		KUNIT_EXPECT_EQ(test, pfn, ALIGN_DOWN(pfns[i], 512));
}

static void bulk_zero_takes_nothing(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);

	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc_bulk(pool, 0, NULL));
	KUNIT_EXPECT_EQ(test, 512, get_stats(pool).free);
}

static void bulk_exhausted_gives_what_there_is(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	unsigned long *pfns = alloc_pfns(test, geo->nr + 1);
	u8 *seen = alloc_bytes(test, geo->nr);
	unsigned long i;

	KUNIT_ASSERT_EQ(test, geo->nr,
			hmm_devmem_pool_alloc_bulk(pool, geo->nr + 1, pfns));
	for (i = 0; i < geo->nr; i++)
		mark_seen(test, geo, seen, pfns[i], 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc_bulk(pool, 1, pfns));
}

static void bulk_drains_caches(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long *pfns = alloc_pfns(test, 512);

	hmm_devmem_pool_free(pool, get(test, pool, 0), 0);
	KUNIT_EXPECT_EQ(test, 512, hmm_devmem_pool_alloc_bulk(pool, 512, pfns));
}

static void bulk_pages_freed_singly_coalesce(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);
	unsigned long *pfns = alloc_pfns(test, 1024);
	unsigned int i;

	KUNIT_ASSERT_EQ(test, 1024, hmm_devmem_pool_alloc_bulk(pool, 1024, pfns));
	for (i = 0; i < 1024; i++)
		hmm_devmem_pool_free(pool, pfns[i], 0);
	KUNIT_EXPECT_EQ(test, count_blocks(pool), 2);
}

/* Retired pages */

static void expect_never_handed_out(struct kunit *test,
				    struct hmm_devmem_pool *pool,
				    unsigned long retired)
{
	const struct hmm_devmem_pool_stats stats = get_stats(pool);
	unsigned long pfn, nr = 0;

	while (!hmm_devmem_pool_alloc(pool, 0, &pfn)) {
		KUNIT_ASSERT_NE(test, pfn, retired);
		nr++;
	}
	KUNIT_EXPECT_EQ(test, nr, stats.free + stats.cached);
}

static void retire_free_page_never_handed_out(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);

	hmm_devmem_pool_retire(pool, TEST_BASE + 600);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).retired);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).used);
	KUNIT_EXPECT_EQ(test, 1023, get_stats(pool).free);
	expect_never_handed_out(test, pool, TEST_BASE + 600);
}

static void retire_used_page_never_handed_out_again(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);
	unsigned long pfn = get(test, pool, 0);

	hmm_devmem_pool_retire(pool, pfn);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).used);
	hmm_devmem_pool_free(pool, pfn, 0);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).used);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).retired);
	expect_never_handed_out(test, pool, pfn);
}

static void retire_cached_page_never_handed_out(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);
	unsigned long pfn = get(test, pool, 0);

	hmm_devmem_pool_free(pool, pfn, 0);
	KUNIT_ASSERT_GT(test, get_stats(pool).cached, 0);
	hmm_devmem_pool_retire(pool, pfn);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).used);
	expect_never_handed_out(test, pool, pfn);
}

/* Retiring a page does not make frees of other pages take the lock. */
static void retire_leaves_caches_to_others(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);
	unsigned long bad = get(test, pool, 0), good = get(test, pool, 0);

	hmm_devmem_pool_retire(pool, bad);
	/* Each CPU has a cache of its own. */
	migrate_disable();
	hmm_devmem_pool_free(pool, good, 0);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).cached);
	hmm_devmem_pool_free(pool, bad, 0);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).cached);
	KUNIT_EXPECT_EQ(test, good, get(test, pool, 0));
	migrate_enable();
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).used);
}

static void retire_inside_large_piece_loses_one_page(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 9);

	hmm_devmem_pool_retire(pool, pfn + 300);
	KUNIT_EXPECT_EQ(test, 512, get_stats(pool).used);
	hmm_devmem_pool_free(pool, pfn, 9);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).used);
	KUNIT_EXPECT_EQ(test, 511, get_stats(pool).free);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_pool_alloc(pool, 9, &pfn));
	expect_never_handed_out(test, pool, TEST_BASE + 300);
}

static void retire_twice_counts_once(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 0);

	hmm_devmem_pool_retire(pool, pfn);
	hmm_devmem_pool_retire(pool, pfn);
	hmm_devmem_pool_free(pool, pfn, 0);
	hmm_devmem_pool_retire(pool, pfn);
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).retired);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).used);
	KUNIT_EXPECT_EQ(test, 511, get_stats(pool).free);
}

static void retire_whole_block_leaves_others(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 3);
	unsigned int i;

	for (i = 0; i < 512; i++)
		hmm_devmem_pool_retire(pool, TEST_BASE + 512 + i);
	KUNIT_EXPECT_EQ(test, 512, get_stats(pool).retired);
	KUNIT_EXPECT_EQ(test, 1024, get_stats(pool).free);
	KUNIT_EXPECT_EQ(test, count_blocks(pool), 2);
}

/* To free a page twice by mistake gives a warning, but it is counted once. */
static void put_retired_page_twice_loses_it_once(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	const unsigned long retired = pool->first + geo->nr / 2;
	unsigned long i;

	for (i = 0; i < geo->nr; i++)
		get(test, pool, 0);
	hmm_devmem_pool_retire(pool, retired);
	hmm_devmem_pool_free(pool, retired, 0);
	kunit_warning_suppress(test) {
		hmm_devmem_pool_free(pool, retired, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, geo->nr - 1, get_stats(pool).used);
	for (i = pool->first; i < pool->last; i++)
		if (i != retired)
			hmm_devmem_pool_free(pool, i, 0);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).used);
	hmm_devmem_pool_drain(pool);
	KUNIT_EXPECT_EQ(test, geo->nr - 1, get_stats(pool).free);
}

static void put_one_of_two_retired_pages_twice_loses_two(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 9);

	hmm_devmem_pool_retire(pool, pfn + 3);
	hmm_devmem_pool_retire(pool, pfn + 300);
	kunit_warning_suppress(test) {
		hmm_devmem_pool_free(pool, pfn + 3, 0);
		hmm_devmem_pool_free(pool, pfn + 3, 0);
		hmm_devmem_pool_free(pool, pfn + 300, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, 510, get_stats(pool).used);
	KUNIT_EXPECT_EQ(test, 2, get_stats(pool).retired);
}

/* Kill */

static void get_after_kill_returns_enodev(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);
	unsigned long pfn = get(test, pool, 0);

	/* There are cached pages, partial blocks and fresh blocks. */
	hmm_devmem_pool_free(pool, pfn, 0);
	hmm_devmem_pool_kill(pool);
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_pool_alloc(pool, 0, &pfn));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_pool_alloc(pool, 1, &pfn));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_pool_alloc(pool, 9, &pfn));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_devmem_pool_alloc(pool, 10, &pfn));
}

static void bulk_after_kill_returns_0(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn;

	hmm_devmem_pool_kill(pool);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc_bulk(pool, 1, &pfn));
}

static void kill_empties_caches(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);

	hmm_devmem_pool_free(pool, get(test, pool, 0), 0);
	hmm_devmem_pool_kill(pool);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).cached);
	KUNIT_EXPECT_EQ(test, 512, get_stats(pool).free);
}

static void put_after_kill_frees(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);
	unsigned long single = get(test, pool, 0);
	unsigned long large = get(test, pool, 9);
	unsigned long pfn;

	hmm_devmem_pool_kill(pool);
	KUNIT_EXPECT_EQ(test, 513, hmm_devmem_pool_used(pool));
	hmm_devmem_pool_free(pool, single, 0);
	hmm_devmem_pool_free(pool, large, 9);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_used(pool));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_pool_alloc(pool, 0, &pfn));
}

/* Bad input */

static void put_foreign_page_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);

	kunit_warning_suppress(test) {
		hmm_devmem_pool_free(pool, TEST_BASE - 1, 0);
		hmm_devmem_pool_free(pool, TEST_BASE + 512, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 2);
	}
	KUNIT_EXPECT_EQ(test, 512, get_stats(pool).free);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).cached);
}

#ifdef CONFIG_HMM_DEVMEM_DEBUG
static void put_page_twice_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 9);

	hmm_devmem_pool_free(pool, pfn + 3, 0);
	kunit_warning_suppress(test) {
		hmm_devmem_pool_free(pool, pfn + 3, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, 1, get_stats(pool).cached);
	KUNIT_EXPECT_EQ(test, 511, get_stats(pool).used);
}

static void put_block_twice_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);
	unsigned long pfn = get(test, pool, 9);

	hmm_devmem_pool_free(pool, pfn, 9);
	kunit_warning_suppress(test) {
		hmm_devmem_pool_free(pool, pfn, 9);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, 512, get_stats(pool).free);
	KUNIT_EXPECT_EQ(test, pfn, get(test, pool, 9));
}

static void put_free_page_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 1);

	kunit_warning_suppress(test) {
		hmm_devmem_pool_free(pool, TEST_BASE + 9, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, 512, get_stats(pool).free);
}
#endif

static struct kunit_case pool_cases[] = {
	GEOMETRY_CASE(create_has_all_pages_free),
	KUNIT_CASE(destroy_null_ignored),
	KUNIT_CASE(get_unpopulated_returns_enomem),
	GEOMETRY_CASE(get_until_exhausted_gives_each_page_once),
	KUNIT_CASE(get_after_exhausted_finds_freed_page),
	KUNIT_CASE(get_singles_ascend_without_gaps),
	KUNIT_CASE(put_order_0_is_cached),
	KUNIT_CASE(drain_empties_caches),
	KUNIT_CASE(put_many_does_not_hoard),
	GEOMETRY_CASE(get_order_gives_all_aligned_pieces),
	GEOMETRY_CASE(get_order_too_large_returns_einval),
	KUNIT_CASE_SLOW(put_parts_coalesces),
	KUNIT_CASE(get_pieces_coalesce_with_singles),
	KUNIT_CASE(get_large_drains_caches),
	KUNIT_CASE(get_small_leaves_whole_blocks),
	KUNIT_CASE(get_small_fills_partial_block),
	KUNIT_CASE(get_large_reuses_empty_block),
	KUNIT_CASE(get_fragmented_finds_every_page),
	KUNIT_CASE(get_order_searches_all_partial_blocks),
	KUNIT_CASE(get_order_in_vain_searches_blocks_once),
	KUNIT_CASE(get_order_in_vain_releases_the_lock),
	KUNIT_CASE(get_order_breaks_up_block_before_long_search),
	KUNIT_CASE(get_in_vain_drains_caches_once),
	KUNIT_CASE(bulk_fresh_is_one_run),
	KUNIT_CASE(bulk_partial_block_takes_its_runs),
	KUNIT_CASE(bulk_zero_takes_nothing),
	GEOMETRY_CASE(bulk_exhausted_gives_what_there_is),
	KUNIT_CASE(bulk_drains_caches),
	KUNIT_CASE(bulk_pages_freed_singly_coalesce),
	KUNIT_CASE(retire_free_page_never_handed_out),
	KUNIT_CASE(retire_used_page_never_handed_out_again),
	KUNIT_CASE(retire_cached_page_never_handed_out),
	KUNIT_CASE(retire_leaves_caches_to_others),
	KUNIT_CASE(retire_inside_large_piece_loses_one_page),
	KUNIT_CASE(retire_twice_counts_once),
	KUNIT_CASE(retire_whole_block_leaves_others),
	GEOMETRY_CASE(put_retired_page_twice_loses_it_once),
	KUNIT_CASE(put_one_of_two_retired_pages_twice_loses_two),
	KUNIT_CASE(get_after_kill_returns_enodev),
	KUNIT_CASE(bulk_after_kill_returns_0),
	KUNIT_CASE(kill_empties_caches),
	KUNIT_CASE(put_after_kill_frees),
	KUNIT_CASE(put_foreign_page_changes_nothing),
#ifdef CONFIG_HMM_DEVMEM_DEBUG
	KUNIT_CASE(put_page_twice_changes_nothing),
	KUNIT_CASE(put_block_twice_changes_nothing),
	KUNIT_CASE(put_free_page_changes_nothing),
#endif
	{ }
};

static struct kunit_suite pool_suite = {
	.name = "hmm_devmem_pool",
	.suite_init = hmm_devmem_test_print_seed,
	.test_cases = pool_cases,
};

kunit_test_suite(pool_suite);
