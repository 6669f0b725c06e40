// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_alloc_area: areas that are populated and depopulated, and
 * the list of pages in use.
 */

#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/string.h>

#include "alloc_test.h"

KUNIT_ARRAY_PARAM_DESC(geometry, geometries, desc);

/* Areas */

static const struct geometry two_areas = {
	.block_order = 6,
	.area_order = 1,
	.nr = 256,
};

static void depopulate_used_returns_ebusy(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create(test, &two_areas);
	unsigned long pfn = get(test, alloc, 6);

	KUNIT_EXPECT_EQ(test, -EBUSY,
			hmm_devmem_alloc_depopulate(alloc, pfn >= TEST_BASE + 128));
	KUNIT_EXPECT_EQ(test, 256, get_stats(alloc).total);
	hmm_devmem_alloc_put(alloc, pfn, 6);
}

static void depopulate_cached_returns_ebusy(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create(test, &two_areas);
	unsigned long pfn = get(test, alloc, 0);
	unsigned int idx = pfn >= TEST_BASE + 128;

	hmm_devmem_alloc_put(alloc, pfn, 0);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_alloc_depopulate(alloc, idx));
	hmm_devmem_alloc_drain(alloc);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_depopulate(alloc, idx));
}

static void depopulate_retired_in_use_returns_ebusy(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create(test, &two_areas);
	unsigned long pfn = get(test, alloc, 6);
	unsigned int idx = pfn >= TEST_BASE + 128;

	hmm_devmem_alloc_retire(alloc, pfn);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_alloc_depopulate(alloc, idx));
	hmm_devmem_alloc_put(alloc, pfn, 6);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_depopulate(alloc, idx));
}

static void depopulate_takes_pages_away(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create(test, &two_areas);
	unsigned long pfn;
	unsigned int nr = 0;

	/* Area 0 has a block that was used before, and one that was not. */
	hmm_devmem_alloc_put(alloc, get(test, alloc, 6), 6);
	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_depopulate(alloc, 0));
	KUNIT_EXPECT_EQ(test, 128, get_stats(alloc).total);
	KUNIT_EXPECT_EQ(test, 128, get_stats(alloc).free);
	while (!hmm_devmem_alloc_get(alloc, 0, &pfn)) {
		KUNIT_ASSERT_GE(test, pfn, TEST_BASE + 128);
		nr++;
	}
	KUNIT_EXPECT_EQ(test, nr, 128);
}

static void populate_again_gives_pages_back(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	u8 *seen = alloc_bytes(test, geo->nr);
	unsigned int i;

	for (i = 0; i < alloc->nr_areas; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_depopulate(alloc, i));
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).total);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).used);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).free);

	for (i = alloc->nr_areas; i--;)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_populate(alloc, i));
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(alloc).total);
	for (i = 0; i < geo->nr; i++)
		mark_seen(test, geo, seen, get(test, alloc, 0), 0);
}

/* Pages are retired with and without struct pages, some twice. */
static void retired_pages_are_remembered(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	u8 *retired = alloc_bytes(test, geo->nr);
	unsigned long i, pfn, nr = 0, way;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, hmm_devmem_test_seed);
	for (way = 0; way < 3; way++) {
		for (i = 0; i < geo->nr; i++) {
			if (prandom_u32_state(&rnd) % 8)
				continue;
			hmm_devmem_alloc_retire(alloc, alloc->first + i);
			nr += !retired[i];
			retired[i] = 1;
		}
		KUNIT_EXPECT_EQ(test, nr, get_stats(alloc).retired);
		for (i = 0; i < alloc->nr_areas; i++)
			KUNIT_ASSERT_EQ(test, 0, way % 2 ?
					hmm_devmem_alloc_populate(alloc, i) :
					hmm_devmem_alloc_depopulate(alloc, i));
	}
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).total);
	for (i = 0; i < alloc->nr_areas; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_populate(alloc, i));
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(alloc).total);
	KUNIT_EXPECT_EQ(test, geo->nr - nr, get_stats(alloc).free);
	for (i = 0; !hmm_devmem_alloc_get(alloc, 0, &pfn); i++)
		KUNIT_ASSERT_FALSE(test, retired[pfn - alloc->first]);
	KUNIT_EXPECT_EQ(test, geo->nr - nr, i);
}

/* Pages in use */

static void in_use_empty_lists_nothing(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	unsigned long *pfns = alloc_pfns(test, 1UL << geo->block_order);
	unsigned long pfn = 0;

	KUNIT_EXPECT_EQ(test, 0,
			hmm_devmem_alloc_in_use(alloc, &pfn, ULONG_MAX, pfns,
						1 << geo->block_order));
}

static void in_use_lists_exactly_used_pages(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	u8 *seen = alloc_bytes(test, geo->nr);
	struct rnd_state rnd;
	unsigned long i;

	prandom_seed_state(&rnd, hmm_devmem_test_seed);
	for (i = 0; i < geo->nr; i++)
		get(test, alloc, 0);
	for (i = 0; i < geo->nr; i++) {
		seen[i] = random_below(&rnd, 2);
		if (!seen[i])
			hmm_devmem_alloc_put(alloc, alloc->first + i, 0);
	}
	hmm_devmem_alloc_drain(alloc);
	expect_in_use(test, alloc, seen, 0, ULONG_MAX);
	expect_in_use(test, alloc, seen, alloc->first + geo->nr / 3,
		      alloc->first + geo->nr / 2);
}

static void in_use_skips_retired_pages(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 2);
	u8 *seen = alloc_bytes(test, 1024);

	memset(seen, 1, 512 + 2);
	KUNIT_ASSERT_EQ(test, TEST_BASE, get(test, alloc, 9));
	KUNIT_ASSERT_EQ(test, TEST_BASE + 512, get(test, alloc, 1));
	hmm_devmem_alloc_retire(alloc, TEST_BASE + 600);
	expect_in_use(test, alloc, seen, 0, ULONG_MAX);
}

static void in_use_skips_unpopulated_areas(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create(test, &two_areas);
	u8 *seen = alloc_bytes(test, 256);

	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_depopulate(alloc, 0));
	memset(seen + 128, 1, 64);
	KUNIT_ASSERT_EQ(test, TEST_BASE + 128, get(test, alloc, 6));
	expect_in_use(test, alloc, seen, 0, ULONG_MAX);
}

static struct kunit_case alloc_area_cases[] = {
	KUNIT_CASE(depopulate_used_returns_ebusy),
	KUNIT_CASE(depopulate_cached_returns_ebusy),
	KUNIT_CASE(depopulate_retired_in_use_returns_ebusy),
	KUNIT_CASE(depopulate_takes_pages_away),
	GEOMETRY_CASE(populate_again_gives_pages_back),
	GEOMETRY_CASE(retired_pages_are_remembered),
	GEOMETRY_CASE(in_use_empty_lists_nothing),
	GEOMETRY_CASE(in_use_lists_exactly_used_pages),
	KUNIT_CASE(in_use_skips_retired_pages),
	KUNIT_CASE(in_use_skips_unpopulated_areas),
	{ }
};

static struct kunit_suite alloc_area_suite = {
	.name = "hmm_devmem_alloc_area",
	.suite_init = hmm_devmem_test_print_seed,
	.test_cases = alloc_area_cases,
};

kunit_test_suite(alloc_area_suite);
