// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_populate: segments that are populated and depopulated, and
 * the list of pages in use.
 */

#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/string.h>

#include "../pool.h"
#include "pool_test.h"

KUNIT_ARRAY_PARAM_DESC(geometry, geometries, desc);

/* Segments */

static const struct geometry two_segments = {
	.block_order = 6,
	.segment_order = 1,
	.nr = 256,
};

static void depopulate_used_returns_ebusy(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create(test, &two_segments);
	unsigned long pfn = get(test, pool, 6);

	KUNIT_EXPECT_EQ(test, -EBUSY,
			hmm_devmem_pool_depopulate(pool, pfn >= TEST_BASE + 128));
	KUNIT_EXPECT_EQ(test, 256, get_stats(pool).total);
	hmm_devmem_pool_free(pool, pfn, 6);
}

static void depopulate_cached_returns_ebusy(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create(test, &two_segments);
	unsigned long pfn = get(test, pool, 0);
	unsigned int idx = pfn >= TEST_BASE + 128;

	hmm_devmem_pool_free(pool, pfn, 0);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_pool_depopulate(pool, idx));
	hmm_devmem_pool_drain(pool);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_depopulate(pool, idx));
}

static void depopulate_retired_in_use_returns_ebusy(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create(test, &two_segments);
	unsigned long pfn = get(test, pool, 6);
	unsigned int idx = pfn >= TEST_BASE + 128;

	hmm_devmem_pool_retire(pool, pfn);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_pool_depopulate(pool, idx));
	hmm_devmem_pool_free(pool, pfn, 6);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_depopulate(pool, idx));
}

static void depopulate_takes_pages_away(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create(test, &two_segments);
	unsigned long pfn;
	unsigned int nr = 0;

	/* Segment 0 has a block that was used before, and one that was not. */
	hmm_devmem_pool_free(pool, get(test, pool, 6), 6);
	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_depopulate(pool, 0));
	KUNIT_EXPECT_EQ(test, 128, get_stats(pool).total);
	KUNIT_EXPECT_EQ(test, 128, get_stats(pool).free);
	while (!hmm_devmem_pool_alloc(pool, 0, &pfn)) {
		KUNIT_ASSERT_GE(test, pfn, TEST_BASE + 128);
		nr++;
	}
	KUNIT_EXPECT_EQ(test, nr, 128);
}

static void populate_again_gives_pages_back(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	u8 *seen = alloc_bytes(test, geo->nr);
	unsigned int i;

	for (i = 0; i < pool->nr_segments; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_depopulate(pool, i));
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).total);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).used);
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).free);

	for (i = pool->nr_segments; i--;)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_populate(pool, i));
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(pool).total);
	for (i = 0; i < geo->nr; i++)
		mark_seen(test, geo, seen, get(test, pool, 0), 0);
}

/* Pages are retired with and without struct pages, some twice. */
static void retired_pages_are_remembered(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	u8 *retired = alloc_bytes(test, geo->nr);
	unsigned long i, pfn, nr = 0, way;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, hmm_devmem_test_seed);
	for (way = 0; way < 3; way++) {
		for (i = 0; i < geo->nr; i++) {
			if (prandom_u32_state(&rnd) % 8)
				continue;
			hmm_devmem_pool_retire(pool, pool->first + i);
			nr += !retired[i];
			retired[i] = 1;
		}
		KUNIT_EXPECT_EQ(test, nr, get_stats(pool).retired);
		for (i = 0; i < pool->nr_segments; i++)
			KUNIT_ASSERT_EQ(test, 0, way % 2 ?
					hmm_devmem_pool_populate(pool, i) :
					hmm_devmem_pool_depopulate(pool, i));
	}
	KUNIT_EXPECT_EQ(test, 0, get_stats(pool).total);
	for (i = 0; i < pool->nr_segments; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_populate(pool, i));
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(pool).total);
	KUNIT_EXPECT_EQ(test, geo->nr - nr, get_stats(pool).free);
	for (i = 0; !hmm_devmem_pool_alloc(pool, 0, &pfn); i++)
		KUNIT_ASSERT_FALSE(test, retired[pfn - pool->first]);
	KUNIT_EXPECT_EQ(test, geo->nr - nr, i);
}

/* Pages in use */

static void in_use_empty_lists_nothing(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	unsigned long *pfns = alloc_pfns(test, 1UL << geo->block_order);
	unsigned long pfn = 0;

	KUNIT_EXPECT_EQ(test, 0,
			hmm_devmem_pool_in_use(pool, &pfn, ULONG_MAX, pfns,
					       1 << geo->block_order));
}

static void in_use_lists_exactly_used_pages(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_pool *pool = create(test, geo);
	u8 *seen = alloc_bytes(test, geo->nr);
	struct rnd_state rnd;
	unsigned long i;

	prandom_seed_state(&rnd, hmm_devmem_test_seed);
	for (i = 0; i < geo->nr; i++)
		get(test, pool, 0);
	for (i = 0; i < geo->nr; i++) {
		seen[i] = random_below(&rnd, 2);
		if (!seen[i])
			hmm_devmem_pool_free(pool, pool->first + i, 0);
	}
	hmm_devmem_pool_drain(pool);
	expect_in_use(test, pool, seen, 0, ULONG_MAX);
	expect_in_use(test, pool, seen, pool->first + geo->nr / 3,
		      pool->first + geo->nr / 2);
}

static void in_use_skips_retired_pages(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create_blocks(test, 2);
	u8 *seen = alloc_bytes(test, 1024);

	memset(seen, 1, 512 + 2);
	KUNIT_ASSERT_EQ(test, TEST_BASE, get(test, pool, 9));
	KUNIT_ASSERT_EQ(test, TEST_BASE + 512, get(test, pool, 1));
	hmm_devmem_pool_retire(pool, TEST_BASE + 600);
	expect_in_use(test, pool, seen, 0, ULONG_MAX);
}

static void in_use_skips_unpopulated_segments(struct kunit *test)
{
	struct hmm_devmem_pool *pool = create(test, &two_segments);
	u8 *seen = alloc_bytes(test, 256);

	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_depopulate(pool, 0));
	memset(seen + 128, 1, 64);
	KUNIT_ASSERT_EQ(test, TEST_BASE + 128, get(test, pool, 6));
	expect_in_use(test, pool, seen, 0, ULONG_MAX);
}

static struct kunit_case populate_cases[] = {
	KUNIT_CASE(depopulate_used_returns_ebusy),
	KUNIT_CASE(depopulate_cached_returns_ebusy),
	KUNIT_CASE(depopulate_retired_in_use_returns_ebusy),
	KUNIT_CASE(depopulate_takes_pages_away),
	GEOMETRY_CASE(populate_again_gives_pages_back),
	GEOMETRY_CASE(retired_pages_are_remembered),
	GEOMETRY_CASE(in_use_empty_lists_nothing),
	GEOMETRY_CASE(in_use_lists_exactly_used_pages),
	KUNIT_CASE(in_use_skips_retired_pages),
	KUNIT_CASE(in_use_skips_unpopulated_segments),
	{ }
};

static struct kunit_suite populate_suite = {
	.name = "hmm_devmem_populate",
	.suite_init = hmm_devmem_test_print_seed,
	.test_cases = populate_cases,
};

kunit_test_suite(populate_suite);
