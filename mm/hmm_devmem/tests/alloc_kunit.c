// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_alloc: the allocator for device pages.
 */

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/workqueue.h>

#include "../internal.h"

/* Aligned to every block order used here. Nothing looks at these pages. */
#define TEST_BASE	BIT(30)

/* More pages than all caches of a test's CPUs take at a time. */
#define TEST_BLOCKS	8

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Seed of the random tests, 0 for a new one (printed)");

static int alloc_suite_init(struct kunit_suite *suite)
{
	if (!seed)
		seed = get_random_u32() | 1;
	kunit_info(suite, "replay with seed=%lu\n", seed);
	return 0;
}

static unsigned int random_below(struct rnd_state *rnd, unsigned int end)
{
	return prandom_u32_state(rnd) % end;
}

/**
 * struct geometry - what an allocator is for
 * @desc: for the name of the case
 * @block_order: pages of a block, log2
 * @area_order: blocks of an area, log2
 * @first: first page, relative to TEST_BASE
 * @nr: number of pages
 */
struct geometry {
	const char *desc;
	unsigned int block_order;
	unsigned int area_order;
	unsigned long first;
	unsigned long nr;
};

static const struct geometry geometries[] = {
	{ "block order 3", 3, 10, 0, 1024 },
	{ "block order 6", 6, 10, 0, 1024 },
	{ "block order 9", 9, 10, 0, 2048 },
	{ "block order 13", 13, 10, 0, 2 << 13 },
	{ "unaligned first", 9, 10, 5, 2043 },
	{ "unaligned last", 9, 10, 0, 2047 },
	{ "unaligned ends, tiny blocks", 3, 10, 3, 1002 },
	{ "inside one block", 9, 10, 7, 100 },
	{ "one page", 9, 10, 511, 1 },
	{ "areas of one block", 6, 0, 0, 1024 },
	{ "areas of four blocks, unaligned ends", 6, 2, 61, 900 },
};

KUNIT_ARRAY_PARAM_DESC(geometry, geometries, desc);

KUNIT_DEFINE_ACTION_WRAPPER(destroy_action, hmm_devmem_alloc_destroy,
			    struct hmm_devmem_alloc *);

static struct hmm_devmem_alloc *create(struct kunit *test,
				       const struct geometry *geo)
{
	struct hmm_devmem_alloc *alloc;
	unsigned int i;

	alloc = hmm_devmem_alloc_create(TEST_BASE + geo->first, geo->nr,
					geo->block_order,
					geo->block_order + geo->area_order);
	KUNIT_ASSERT_NOT_NULL(test, alloc);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, destroy_action, alloc));
	for (i = 0; i < alloc->nr_areas; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_populate(alloc, i));
	return alloc;
}

/* What a device with 2 MiB folios has. */
static struct hmm_devmem_alloc *create_blocks(struct kunit *test,
					      unsigned int nr_blocks)
{
	const struct geometry geo = {
		.block_order = 9,
		.area_order = 10,
		.nr = nr_blocks << 9,
	};

	return create(test, &geo);
}

static unsigned long *alloc_pfns(struct kunit *test, unsigned long nr)
{
	unsigned long *pfns = kunit_kcalloc(test, nr, sizeof(*pfns), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, pfns);
	return pfns;
}

static u8 *alloc_bytes(struct kunit *test, unsigned long nr)
{
	u8 *bytes = kunit_kzalloc(test, nr, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, bytes);
	return bytes;
}

static unsigned long get(struct kunit *test, struct hmm_devmem_alloc *alloc,
			 unsigned int order)
{
	unsigned long pfn = 0;

	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_get(alloc, order, &pfn));
	return pfn;
}

static struct hmm_devmem_alloc_stats get_stats(struct hmm_devmem_alloc *alloc)
{
	struct hmm_devmem_alloc_stats stats;

	hmm_devmem_alloc_get_stats(alloc, &stats);
	return stats;
}

static unsigned int count_runs(const unsigned long *pfns, unsigned int nr)
{
	unsigned int i, runs = 0;

	for (i = 0; i < nr; i++)
		runs += !i || pfns[i] != pfns[i - 1] + 1;
	return runs;
}

static unsigned int count_blocks(struct hmm_devmem_alloc *alloc)
{
	unsigned int nr = 0;
	unsigned long pfn;

	while (!hmm_devmem_alloc_get(alloc, alloc->block_order, &pfn))
		nr++;
	return nr;
}

/* Mark 2^@order pages in @seen; they must be ours, aligned, and new. */
static void mark_seen(struct kunit *test, const struct geometry *geo, u8 *seen,
		      unsigned long pfn, unsigned int order)
{
	unsigned long at = pfn - TEST_BASE - geo->first;
	unsigned long i;

	KUNIT_ASSERT_TRUE(test, IS_ALIGNED(pfn, 1UL << order));
	KUNIT_ASSERT_LE(test, at + (1UL << order), geo->nr);
	for (i = at; i < at + (1UL << order); i++) {
		KUNIT_ASSERT_EQ(test, seen[i], 0);
		seen[i] = 1;
	}
}

/* Creation */

static void create_has_all_pages_free(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc_stats stats = get_stats(create(test, geo));

	KUNIT_EXPECT_EQ(test, stats.total, geo->nr);
	KUNIT_EXPECT_EQ(test, stats.free, geo->nr);
	KUNIT_EXPECT_EQ(test, stats.used, 0);
	KUNIT_EXPECT_EQ(test, stats.cached, 0);
	KUNIT_EXPECT_EQ(test, stats.retired, 0);
}

static void destroy_null_ignored(struct kunit *test)
{
	hmm_devmem_alloc_destroy(NULL);
}

static void get_unpopulated_returns_enomem(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc;
	unsigned long pfn;

	alloc = hmm_devmem_alloc_create(TEST_BASE, 512, 9, 9);
	KUNIT_ASSERT_NOT_NULL(test, alloc);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 0, &pfn));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 9, &pfn));
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).total);
	hmm_devmem_alloc_destroy(alloc);
}

/* Single pages */

static void get_until_exhausted_gives_each_page_once(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	u8 *seen = alloc_bytes(test, geo->nr);
	unsigned long pfn, i;

	for (i = 0; i < geo->nr; i++)
		mark_seen(test, geo, seen, get(test, alloc, 0), 0);

	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 0, &pfn));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 1, &pfn));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_get_bulk(alloc, 1, &pfn));
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(alloc).used);
}

static void get_after_exhausted_finds_freed_page(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn = get(test, alloc, 9) + 77;

	hmm_devmem_alloc_put(alloc, pfn, 0);
	KUNIT_EXPECT_EQ(test, pfn, get(test, alloc, 0));
}

static void get_singles_ascend_without_gaps(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	unsigned long *pfns = alloc_pfns(test, 1000);
	unsigned int i, nr = 0;

	migrate_disable();
	for (i = 0; i < 1000; i++)
		nr += !hmm_devmem_alloc_get(alloc, 0, &pfns[i]);
	migrate_enable();

	KUNIT_ASSERT_EQ(test, nr, 1000);
	KUNIT_EXPECT_EQ(test, count_runs(pfns, nr), 1);
}

static void put_order_0_is_cached(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn = get(test, alloc, 9);

	hmm_devmem_alloc_put(alloc, pfn, 0);
	KUNIT_EXPECT_EQ(test, 1, get_stats(alloc).cached);
	KUNIT_EXPECT_EQ(test, 511, get_stats(alloc).used);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).free);
}

static void drain_empties_caches(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn = get(test, alloc, 9);

	hmm_devmem_alloc_put(alloc, pfn, 0);
	hmm_devmem_alloc_drain(alloc);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).cached);
	KUNIT_EXPECT_EQ(test, 1, get_stats(alloc).free);
}

/* However many pages are freed on a CPU, its cache keeps few. */
static void put_many_does_not_hoard(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	unsigned long pfn = get(test, alloc, 9);
	unsigned long most = 0;
	unsigned int i;

	migrate_disable();
	for (i = 0; i < 512; i++) {
		hmm_devmem_alloc_put(alloc, pfn + i, 0);
		most = max(most, get_stats(alloc).cached);
	}
	migrate_enable();
	KUNIT_EXPECT_LE(test, most, 64);
}

/* Larger pieces */

static void get_order_gives_all_aligned_pieces(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	const unsigned long first = TEST_BASE + geo->first;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	unsigned long *pfns = alloc_pfns(test, geo->nr);
	unsigned long nr, step;
	unsigned int order;
	u8 *seen;

	for (order = 0; order <= geo->block_order; order++) {
		seen = alloc_bytes(test, geo->nr);
		step = 1UL << order;
		nr = 0;
		while (nr < geo->nr &&
		       !hmm_devmem_alloc_get(alloc, order, &pfns[nr]))
			mark_seen(test, geo, seen, pfns[nr++], order);
		kunit_kfree(test, seen);

		KUNIT_EXPECT_EQ(test, nr,
				max(ALIGN(first, step),
				    ALIGN_DOWN(first + geo->nr, step)) / step -
				ALIGN(first, step) / step);
		while (nr)
			hmm_devmem_alloc_put(alloc, pfns[--nr], order);
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_used(alloc));
	}
}

static void get_order_too_large_returns_einval(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	unsigned long pfn = 1;

	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_devmem_alloc_get(alloc, geo->block_order + 1, &pfn));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_devmem_alloc_get(alloc, 64, &pfn));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_devmem_alloc_get(alloc, UINT_MAX, &pfn));
	KUNIT_EXPECT_EQ(test, 1, pfn);
	KUNIT_EXPECT_EQ(test, geo->nr, get_stats(alloc).free);
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
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long *parts = alloc_pfns(test, 512);
	unsigned long pfn = get(test, alloc, 9);
	struct rnd_state rnd;
	unsigned int order, nr, i, round;

	prandom_seed_state(&rnd, seed);
	/* Nine rounds free 1022 parts. */
	for (round = 0; round < 9 * 1000; round++) {
		order = round % 9;
		nr = 512 >> order;
		for (i = 0; i < nr; i++)
			parts[i] = pfn + (i << order);
		shuffle(parts, nr, &rnd);
		for (i = 0; i < nr; i++)
			hmm_devmem_alloc_put(alloc, parts[i], order);
		KUNIT_ASSERT_EQ(test, pfn, get(test, alloc, 9));
	}
}

static void get_pieces_coalesce_with_singles(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long single = get(test, alloc, 0);
	unsigned long pair = get(test, alloc, 1);
	unsigned long half = get(test, alloc, 8);
	unsigned long pfn;

	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 9, &pfn));
	hmm_devmem_alloc_put(alloc, pair, 1);
	hmm_devmem_alloc_put(alloc, half, 8);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 9, &pfn));
	hmm_devmem_alloc_put(alloc, single, 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_get(alloc, 9, &pfn));
}

static void get_large_drains_caches(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn;

	hmm_devmem_alloc_put(alloc, get(test, alloc, 0), 0);
	KUNIT_ASSERT_GT(test, get_stats(alloc).cached, 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_get(alloc, 9, &pfn));
}

/* Which block */

static void get_small_leaves_whole_blocks(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	unsigned int i;

	for (i = 0; i < 100; i++) {
		get(test, alloc, 0);
		get(test, alloc, 1);
	}
	KUNIT_EXPECT_EQ(test, count_blocks(alloc), TEST_BLOCKS - 1);
}

static void get_small_fills_partial_block(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	unsigned long empty = get(test, alloc, 9);
	unsigned long partial = get(test, alloc, 9);
	unsigned int i;

	hmm_devmem_alloc_put(alloc, empty, 9);
	hmm_devmem_alloc_put(alloc, partial + 256, 8);
	for (i = 0; i < 128; i++)
		KUNIT_EXPECT_EQ(test, partial,
				ALIGN_DOWN(get(test, alloc, 1), 512));
	KUNIT_EXPECT_EQ(test, count_blocks(alloc), TEST_BLOCKS - 1);
}

static void get_large_reuses_empty_block(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	unsigned long pfn = get(test, alloc, 9);

	hmm_devmem_alloc_put(alloc, pfn, 9);
	KUNIT_EXPECT_EQ(test, pfn, get(test, alloc, 9));
}

/* Every second page in use: nothing but single pages is left, but all those. */
static void get_fragmented_finds_every_page(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	const unsigned int nr = TEST_BLOCKS * 512;
	unsigned long pfn, i;

	for (i = 0; i < nr; i++)
		get(test, alloc, 0);
	for (i = 0; i < nr; i += 2)
		hmm_devmem_alloc_put(alloc, TEST_BASE + i, 0);

	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 1, &pfn));
	for (i = 0; i < nr; i += 2)
		KUNIT_ASSERT_TRUE(test, IS_ALIGNED(get(test, alloc, 0), 2));
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 0, &pfn));
}

/* The only piece of its size is in the last of many partial blocks. */
static void get_order_searches_all_partial_blocks(struct kunit *test)
{
	const struct geometry geo = { .block_order = 3, .area_order = 10, .nr = 1024 };
	struct hmm_devmem_alloc *alloc = create(test, &geo);
	unsigned long pfn, i;

	for (i = 0; i < geo.nr / 8; i++)
		get(test, alloc, 3);
	for (i = 0; i < geo.nr; i += 8)
		hmm_devmem_alloc_put(alloc, TEST_BASE + i, 0);
	hmm_devmem_alloc_drain(alloc);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 1, &pfn));

	hmm_devmem_alloc_put(alloc, TEST_BASE + 516, 2);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_get(alloc, 2, &pfn));
	KUNIT_EXPECT_EQ(test, pfn, TEST_BASE + 516);
}

/* Bulk */

static void bulk_fresh_is_one_run(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	unsigned long *pfns = alloc_pfns(test, 1500);

	KUNIT_ASSERT_EQ(test, 1500, hmm_devmem_alloc_get_bulk(alloc, 1500, pfns));
	KUNIT_EXPECT_EQ(test, count_runs(pfns, 1500), 1);
}

static void bulk_partial_block_takes_its_runs(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, TEST_BLOCKS);
	unsigned long *pfns = alloc_pfns(test, 224);
	unsigned long pfn = get(test, alloc, 9);
	unsigned int i;

	/* Free runs of 32, then 64, then 128 pages. */
	hmm_devmem_alloc_put(alloc, pfn + 32, 5);
	hmm_devmem_alloc_put(alloc, pfn + 128, 6);
	hmm_devmem_alloc_put(alloc, pfn + 256, 7);
	KUNIT_ASSERT_EQ(test, 224, hmm_devmem_alloc_get_bulk(alloc, 224, pfns));
	KUNIT_EXPECT_EQ(test, count_runs(pfns, 224), 3);
	for (i = 0; i < 224; i++)
		KUNIT_EXPECT_EQ(test, pfn, ALIGN_DOWN(pfns[i], 512));
}

static void bulk_zero_takes_nothing(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);

	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_get_bulk(alloc, 0, NULL));
	KUNIT_EXPECT_EQ(test, 512, get_stats(alloc).free);
}

static void bulk_exhausted_gives_what_there_is(struct kunit *test)
{
	const struct geometry *geo = test->param_value;
	struct hmm_devmem_alloc *alloc = create(test, geo);
	unsigned long *pfns = alloc_pfns(test, geo->nr + 1);
	u8 *seen = alloc_bytes(test, geo->nr);
	unsigned long i;

	KUNIT_ASSERT_EQ(test, geo->nr,
			hmm_devmem_alloc_get_bulk(alloc, geo->nr + 1, pfns));
	for (i = 0; i < geo->nr; i++)
		mark_seen(test, geo, seen, pfns[i], 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_get_bulk(alloc, 1, pfns));
}

static void bulk_drains_caches(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long *pfns = alloc_pfns(test, 512);

	hmm_devmem_alloc_put(alloc, get(test, alloc, 0), 0);
	KUNIT_EXPECT_EQ(test, 512, hmm_devmem_alloc_get_bulk(alloc, 512, pfns));
}

static void bulk_pages_freed_singly_coalesce(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 2);
	unsigned long *pfns = alloc_pfns(test, 1024);
	unsigned int i;

	KUNIT_ASSERT_EQ(test, 1024, hmm_devmem_alloc_get_bulk(alloc, 1024, pfns));
	for (i = 0; i < 1024; i++)
		hmm_devmem_alloc_put(alloc, pfns[i], 0);
	KUNIT_EXPECT_EQ(test, count_blocks(alloc), 2);
}

/* Retired pages */

static void expect_never_handed_out(struct kunit *test,
				    struct hmm_devmem_alloc *alloc,
				    unsigned long retired)
{
	const struct hmm_devmem_alloc_stats stats = get_stats(alloc);
	unsigned long pfn, nr = 0;

	while (!hmm_devmem_alloc_get(alloc, 0, &pfn)) {
		KUNIT_ASSERT_NE(test, pfn, retired);
		nr++;
	}
	KUNIT_EXPECT_EQ(test, nr, stats.free + stats.cached);
}

static void retire_free_page_never_handed_out(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 2);

	hmm_devmem_alloc_retire(alloc, TEST_BASE + 600);
	KUNIT_EXPECT_EQ(test, 1, get_stats(alloc).retired);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).used);
	KUNIT_EXPECT_EQ(test, 1023, get_stats(alloc).free);
	expect_never_handed_out(test, alloc, TEST_BASE + 600);
}

static void retire_used_page_never_handed_out_again(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 2);
	unsigned long pfn = get(test, alloc, 0);

	hmm_devmem_alloc_retire(alloc, pfn);
	KUNIT_EXPECT_EQ(test, 1, get_stats(alloc).used);
	hmm_devmem_alloc_put(alloc, pfn, 0);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).used);
	KUNIT_EXPECT_EQ(test, 1, get_stats(alloc).retired);
	expect_never_handed_out(test, alloc, pfn);
}

static void retire_cached_page_never_handed_out(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 2);
	unsigned long pfn = get(test, alloc, 0);

	hmm_devmem_alloc_put(alloc, pfn, 0);
	KUNIT_ASSERT_GT(test, get_stats(alloc).cached, 0);
	hmm_devmem_alloc_retire(alloc, pfn);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).used);
	expect_never_handed_out(test, alloc, pfn);
}

static void retire_inside_large_piece_loses_one_page(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn = get(test, alloc, 9);

	hmm_devmem_alloc_retire(alloc, pfn + 300);
	KUNIT_EXPECT_EQ(test, 512, get_stats(alloc).used);
	hmm_devmem_alloc_put(alloc, pfn, 9);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).used);
	KUNIT_EXPECT_EQ(test, 511, get_stats(alloc).free);
	KUNIT_EXPECT_EQ(test, -ENOMEM, hmm_devmem_alloc_get(alloc, 9, &pfn));
	expect_never_handed_out(test, alloc, TEST_BASE + 300);
}

static void retire_twice_counts_once(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn = get(test, alloc, 0);

	hmm_devmem_alloc_retire(alloc, pfn);
	hmm_devmem_alloc_retire(alloc, pfn);
	hmm_devmem_alloc_put(alloc, pfn, 0);
	hmm_devmem_alloc_retire(alloc, pfn);
	KUNIT_EXPECT_EQ(test, 1, get_stats(alloc).retired);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).used);
	KUNIT_EXPECT_EQ(test, 511, get_stats(alloc).free);
}

static void retire_whole_block_leaves_others(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 3);
	unsigned int i;

	for (i = 0; i < 512; i++)
		hmm_devmem_alloc_retire(alloc, TEST_BASE + 512 + i);
	KUNIT_EXPECT_EQ(test, 512, get_stats(alloc).retired);
	KUNIT_EXPECT_EQ(test, 1024, get_stats(alloc).free);
	KUNIT_EXPECT_EQ(test, count_blocks(alloc), 2);
}

/* Kill */

static void get_after_kill_returns_enodev(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 2);
	unsigned long pfn = get(test, alloc, 0);

	/* Pages are cached, partial blocks and fresh ones are there. */
	hmm_devmem_alloc_put(alloc, pfn, 0);
	hmm_devmem_alloc_kill(alloc);
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_alloc_get(alloc, 0, &pfn));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_alloc_get(alloc, 1, &pfn));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_alloc_get(alloc, 9, &pfn));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_devmem_alloc_get(alloc, 10, &pfn));
}

static void bulk_after_kill_returns_0(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn;

	hmm_devmem_alloc_kill(alloc);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_get_bulk(alloc, 1, &pfn));
}

static void kill_empties_caches(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);

	hmm_devmem_alloc_put(alloc, get(test, alloc, 0), 0);
	hmm_devmem_alloc_kill(alloc);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).cached);
	KUNIT_EXPECT_EQ(test, 512, get_stats(alloc).free);
}

static void put_after_kill_frees(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 2);
	unsigned long single = get(test, alloc, 0);
	unsigned long large = get(test, alloc, 9);
	unsigned long pfn;

	hmm_devmem_alloc_kill(alloc);
	KUNIT_EXPECT_EQ(test, 513, hmm_devmem_alloc_used(alloc));
	hmm_devmem_alloc_put(alloc, single, 0);
	hmm_devmem_alloc_put(alloc, large, 9);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_used(alloc));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_alloc_get(alloc, 0, &pfn));
}

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

static void depopulate_retired_returns_ebusy(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create(test, &two_areas);

	hmm_devmem_alloc_retire(alloc, TEST_BASE + 5);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_alloc_depopulate(alloc, 0));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_depopulate(alloc, 1));
}

static void depopulate_takes_pages_away(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create(test, &two_areas);
	unsigned long pfn;
	unsigned int nr = 0;

	/* One block used before, one never. */
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

/* Pages in use */

/* Compare what in_use lists in [@pfn, @end) with @seen (one byte a page). */
static void expect_in_use(struct kunit *test, struct hmm_devmem_alloc *alloc,
			  const u8 *seen, unsigned long pfn, unsigned long end)
{
	const unsigned int max = 1 << alloc->block_order;
	unsigned long *pfns = alloc_pfns(test, max);
	unsigned long at = max(pfn, alloc->first);
	unsigned int nr, i;

	while ((nr = hmm_devmem_alloc_in_use(alloc, &pfn, end, pfns, max))) {
		KUNIT_ASSERT_LE(test, nr, max);
		for (i = 0; i < nr; i++) {
			while (at < pfns[i])
				KUNIT_ASSERT_NE(test, 1, seen[at++ - alloc->first]);
			KUNIT_ASSERT_EQ(test, at, pfns[i]);
			KUNIT_ASSERT_EQ(test, 1, seen[at++ - alloc->first]);
		}
	}
	for (; at < min(end, alloc->last); at++)
		KUNIT_ASSERT_NE(test, 1, seen[at - alloc->first]);
	kunit_kfree(test, pfns);
}

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

	prandom_seed_state(&rnd, seed);
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

/* Bad input */

static void put_foreign_page_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);

	kunit_warning_suppress(test) {
		hmm_devmem_alloc_put(alloc, TEST_BASE - 1, 0);
		hmm_devmem_alloc_put(alloc, TEST_BASE + 512, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 2);
	}
	KUNIT_EXPECT_EQ(test, 512, get_stats(alloc).free);
	KUNIT_EXPECT_EQ(test, 0, get_stats(alloc).cached);
}

#ifdef CONFIG_HMM_DEVMEM_DEBUG
static void put_page_twice_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn = get(test, alloc, 9);

	hmm_devmem_alloc_put(alloc, pfn + 3, 0);
	kunit_warning_suppress(test) {
		hmm_devmem_alloc_put(alloc, pfn + 3, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, 1, get_stats(alloc).cached);
	KUNIT_EXPECT_EQ(test, 511, get_stats(alloc).used);
}

static void put_block_twice_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);
	unsigned long pfn = get(test, alloc, 9);

	hmm_devmem_alloc_put(alloc, pfn, 9);
	kunit_warning_suppress(test) {
		hmm_devmem_alloc_put(alloc, pfn, 9);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, 512, get_stats(alloc).free);
	KUNIT_EXPECT_EQ(test, pfn, get(test, alloc, 9));
}

static void put_free_page_changes_nothing(struct kunit *test)
{
	struct hmm_devmem_alloc *alloc = create_blocks(test, 1);

	kunit_warning_suppress(test) {
		hmm_devmem_alloc_put(alloc, TEST_BASE + 9, 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, 512, get_stats(alloc).free);
}
#endif

/* Other CPUs and contexts */

struct remote {
	struct hmm_devmem_alloc *alloc;
	unsigned long pfns[200];
	unsigned int nr;
};

static long remote_get(void *data)
{
	struct remote *remote = data;

	while (remote->nr < ARRAY_SIZE(remote->pfns) &&
	       !hmm_devmem_alloc_get(remote->alloc, 0, &remote->pfns[remote->nr]))
		remote->nr++;
	return remote->nr;
}

static long remote_put(void *data)
{
	struct remote *remote = data;

	while (remote->nr)
		hmm_devmem_alloc_put(remote->alloc, remote->pfns[--remote->nr], 0);
	return 0;
}

static void put_on_other_cpu_frees(struct kunit *test)
{
	struct remote *remote = kunit_kzalloc(test, sizeof(*remote), GFP_KERNEL);
	unsigned int first = cpumask_first(cpu_online_mask), round;
	unsigned int other = cpumask_next(first, cpu_online_mask);

	KUNIT_ASSERT_NOT_NULL(test, remote);
	if (other >= nr_cpu_ids)
		kunit_skip(test, "needs two CPUs");

	remote->alloc = create_blocks(test, 1);
	for (round = 0; round < 50; round++) {
		KUNIT_ASSERT_EQ(test, work_on_cpu(first, remote_get, remote),
				ARRAY_SIZE(remote->pfns));
		work_on_cpu(other, remote_put, remote);
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_alloc_used(remote->alloc));
	}
	KUNIT_EXPECT_EQ(test, count_blocks(remote->alloc), 1);
}

struct putter {
	struct work_struct work;
	struct hmm_devmem_alloc *alloc;
	unsigned long pfn;
	unsigned int nr;
	bool go;
};

static void putter_work(struct work_struct *work)
{
	struct putter *putter = container_of(work, struct putter, work);

	while (!READ_ONCE(putter->go))
		cond_resched();
	while (putter->nr < 512) {
		hmm_devmem_alloc_put(putter->alloc, putter->pfn + putter->nr, 0);
		WRITE_ONCE(putter->nr, putter->nr + 1);
	}
}

/*
 * While somebody else has the lock that all CPUs share, pages that are freed stay
 * in the cache, as long as there is room.
 */
static void put_contended_waits_when_cache_is_full(struct kunit *test)
{
	struct putter *putter = kunit_kzalloc(test, sizeof(*putter), GFP_KERNEL);
	unsigned int other, nr, i;
	unsigned long flags;

	KUNIT_ASSERT_NOT_NULL(test, putter);
	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");
	putter->alloc = create_blocks(test, 1);
	putter->pfn = get(test, putter->alloc, 9);
	INIT_WORK(&putter->work, putter_work);

	migrate_disable();
	other = cpumask_any_but(cpu_online_mask, smp_processor_id());
	queue_work_on(other, system_percpu_wq, &putter->work);
	spin_lock_irqsave(&putter->alloc->lock, flags);
	WRITE_ONCE(putter->go, true);
	for (i = 0; i < 500 && READ_ONCE(putter->nr) < 127; i++)
		mdelay(1);
	mdelay(5);
	nr = READ_ONCE(putter->nr);
	spin_unlock_irqrestore(&putter->alloc->lock, flags);
	migrate_enable();

	flush_work(&putter->work);
	KUNIT_EXPECT_EQ(test, nr, 127);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_used(putter->alloc));
	KUNIT_EXPECT_EQ(test, count_blocks(putter->alloc), 1);
}

#ifdef CONFIG_HOTPLUG_CPU
static void add_cpu_action(void *cpu)
{
	add_cpu((unsigned long)cpu);
}

static void cpu_offline_empties_its_cache(struct kunit *test)
{
	struct remote *remote = kunit_kzalloc(test, sizeof(*remote), GFP_KERNEL);
	unsigned long cpu = cpumask_last(cpu_online_mask);

	KUNIT_ASSERT_NOT_NULL(test, remote);
	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	remote->alloc = create_blocks(test, 1);
	work_on_cpu(cpu, remote_get, remote);
	work_on_cpu(cpu, remote_put, remote);
	KUNIT_ASSERT_GT(test, get_stats(remote->alloc).cached, 0);

	KUNIT_ASSERT_EQ(test, 0, remove_cpu(cpu));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, add_cpu_action,
							   (void *)cpu));
	KUNIT_EXPECT_EQ(test, 0, get_stats(remote->alloc).cached);
	KUNIT_EXPECT_EQ(test, 512, get_stats(remote->alloc).free);
}
#endif

/* One owner for each page, as all who use an allocator at once see it. */
struct owners {
	struct hmm_devmem_alloc *alloc;
	atomic_t *owned;
};

static struct owners *create_owners(struct kunit *test, unsigned int nr_blocks)
{
	struct owners *owners = kunit_kzalloc(test, sizeof(*owners), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, owners);
	owners->alloc = create_blocks(test, nr_blocks);
	owners->owned = kunit_kcalloc(test, nr_blocks << 9,
				      sizeof(*owners->owned), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, owners->owned);
	return owners;
}

/* Returns whether all pages were nobody's. */
static bool own(struct owners *owners, unsigned long pfn, unsigned int order)
{
	unsigned int i, others = 0;

	for (i = 0; i < 1U << order; i++)
		others += atomic_xchg(&owners->owned[pfn - TEST_BASE + i], 1);
	return !others;
}

static bool own_and_put(struct owners *owners, unsigned long pfn,
			unsigned int order)
{
	unsigned int i, mine = 0;

	for (i = 0; i < 1U << order; i++)
		mine += atomic_xchg(&owners->owned[pfn - TEST_BASE + i], 0);
	hmm_devmem_alloc_put(owners->alloc, pfn, order);
	return mine == 1U << order;
}

static bool get_and_put(struct owners *owners)
{
	unsigned long single, piece, bulk[3];
	bool ok;

	if (hmm_devmem_alloc_get(owners->alloc, 0, &single) ||
	    hmm_devmem_alloc_get(owners->alloc, 3, &piece) ||
	    hmm_devmem_alloc_get_bulk(owners->alloc, 3, bulk) != 3)
		return false;

	ok = own(owners, single, 0);
	ok &= own(owners, piece, 3);
	ok &= own(owners, bulk[0], 0) && own(owners, bulk[1], 0) &&
	      own(owners, bulk[2], 0);
	ok &= own_and_put(owners, single, 0);
	ok &= own_and_put(owners, piece, 3);
	ok &= own_and_put(owners, bulk[0], 0) &&
	      own_and_put(owners, bulk[1], 0) &&
	      own_and_put(owners, bulk[2], 0);
	return ok;
}

/*
 * kunit_run_irq_test() has a timer for code that holds no locks but raw ones: a
 * last reference is dropped in interrupts too, but in those that PREEMPT_RT
 * makes threads.
 */
struct contexts {
	struct owners *owners;
	struct hrtimer timer;
	struct work_struct work;
	atomic_t failed;
	unsigned int irqs;
	unsigned int softirqs;
};

static enum hrtimer_restart contexts_timer(struct hrtimer *timer)
{
	struct contexts *contexts = container_of(timer, struct contexts, timer);

	contexts->irqs++;
	if (!get_and_put(contexts->owners))
		atomic_inc(&contexts->failed);
	queue_work(system_bh_wq, &contexts->work);
	hrtimer_forward_now(timer, us_to_ktime(100));
	return HRTIMER_RESTART;
}

static void contexts_work(struct work_struct *work)
{
	struct contexts *contexts = container_of(work, struct contexts, work);
	unsigned int i;

	/* Some, so that interrupts come in between. */
	for (i = 0; i < 10; i++)
		if (!get_and_put(contexts->owners))
			atomic_inc(&contexts->failed);
	contexts->softirqs++;
}

static void get_and_put_in_any_context_works(struct kunit *test)
{
	const unsigned long end = jiffies + HZ / 2;
	struct contexts *contexts;

	contexts = kunit_kzalloc(test, sizeof(*contexts), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, contexts);
	contexts->owners = create_owners(test, TEST_BLOCKS);
	INIT_WORK(&contexts->work, contexts_work);
	hrtimer_setup(&contexts->timer, contexts_timer, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL);
	hrtimer_start(&contexts->timer, us_to_ktime(100), HRTIMER_MODE_REL);
	while (time_before(jiffies, end)) {
		if (!get_and_put(contexts->owners))
			atomic_inc(&contexts->failed);
		cond_resched();
	}
	hrtimer_cancel(&contexts->timer);
	flush_work(&contexts->work);

	KUNIT_EXPECT_GT(test, contexts->irqs, 0);
	KUNIT_EXPECT_GT(test, contexts->softirqs, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&contexts->failed), 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_alloc_used(contexts->owners->alloc));
	KUNIT_EXPECT_EQ(test, count_blocks(contexts->owners->alloc), TEST_BLOCKS);
}

/* Against a model */

#define TEST_OPS	10000

enum page_state { PAGE_FREE, PAGE_USED, PAGE_RETIRED_USED, PAGE_RETIRED };

struct piece {
	unsigned long pfn;
	unsigned int order;
};

/**
 * struct model - an allocator, and what it should look like
 * @test: the test
 * @geo: geometry of @alloc
 * @alloc: what is tested
 * @rnd: where decisions come from
 * @state: enum page_state of each page
 * @pieces: what was allocated
 * @nr_pieces: number of @pieces
 */
struct model {
	struct kunit *test;
	const struct geometry *geo;
	struct hmm_devmem_alloc *alloc;
	struct rnd_state rnd;
	u8 *state;
	struct piece *pieces;
	unsigned int nr_pieces;
};

static struct model *create_model(struct kunit *test)
{
	struct model *model = kunit_kzalloc(test, sizeof(*model), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, model);
	model->test = test;
	model->geo = test->param_value;
	model->alloc = create(test, model->geo);
	model->state = alloc_bytes(test, model->geo->nr);
	model->pieces = kunit_kcalloc(test, model->geo->nr,
				      sizeof(*model->pieces), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, model->pieces);
	prandom_seed_state(&model->rnd, seed);
	return model;
}

static bool model_has_free(const struct model *model, unsigned int order)
{
	const unsigned long step = 1UL << order, end = model->alloc->last;
	unsigned long pfn;

	for (pfn = ALIGN(model->alloc->first, step); pfn + step <= end; pfn += step)
		if (!memchr_inv(&model->state[pfn - model->alloc->first],
				PAGE_FREE, step))
			return true;
	return false;
}

static unsigned long model_count(const struct model *model, enum page_state state)
{
	unsigned long i, nr = 0;

	for (i = 0; i < model->geo->nr; i++)
		nr += model->state[i] == state;
	return nr;
}

static void model_took(struct model *model, unsigned long pfn, unsigned int order)
{
	mark_seen(model->test, model->geo, model->state, pfn, order);
	model->pieces[model->nr_pieces++] = (struct piece) { pfn, order };
}

static void model_put(struct model *model, unsigned long pfn, unsigned int order)
{
	u8 *state = &model->state[pfn - model->alloc->first];
	unsigned long n;

	for (n = 0; n < 1UL << order; n++)
		state[n] = state[n] == PAGE_USED ? PAGE_FREE : PAGE_RETIRED;
	hmm_devmem_alloc_put(model->alloc, pfn, order);
}

static void model_op_get(struct model *model)
{
	/* Small ones more often, or there would never be a piece left. */
	unsigned int max = random_below(&model->rnd, model->geo->block_order + 1);
	unsigned int order = random_below(&model->rnd, max + 1);
	unsigned long pfn;
	int ret;

	ret = hmm_devmem_alloc_get(model->alloc, order, &pfn);
	if (!ret) {
		model_took(model, pfn, order);
		return;
	}
	KUNIT_ASSERT_EQ(model->test, ret, -ENOMEM);
	KUNIT_ASSERT_FALSE(model->test, model_has_free(model, order));
}

static void model_op_bulk(struct model *model)
{
	unsigned long pfns[100];
	unsigned int nr = random_below(&model->rnd, ARRAY_SIZE(pfns));
	unsigned int got = hmm_devmem_alloc_get_bulk(model->alloc, nr, pfns);
	unsigned int i;

	KUNIT_ASSERT_LE(model->test, got, nr);
	for (i = 0; i < got; i++)
		model_took(model, pfns[i], 0);
	if (got < nr)
		KUNIT_ASSERT_FALSE(model->test, model_has_free(model, 0));
}

/* Free a piece, or break it up and free a half of it. */
static void model_op_put(struct model *model)
{
	struct piece *piece, half;

	if (!model->nr_pieces)
		return;
	piece = &model->pieces[random_below(&model->rnd, model->nr_pieces)];
	half = *piece;
	if (!piece->order || random_below(&model->rnd, 2)) {
		*piece = model->pieces[--model->nr_pieces];
	} else {
		half.order = --piece->order;
		if (random_below(&model->rnd, 2))
			half.pfn += 1UL << half.order;
		else
			piece->pfn += 1UL << piece->order;
	}
	model_put(model, half.pfn, half.order);
}

static void model_op_retire(struct model *model)
{
	unsigned long i = random_below(&model->rnd, model->geo->nr);

	if (model->state[i] == PAGE_USED)
		model->state[i] = PAGE_RETIRED_USED;
	else if (model->state[i] == PAGE_FREE)
		model->state[i] = PAGE_RETIRED;
	hmm_devmem_alloc_retire(model->alloc, model->alloc->first + i);
}

static void model_op(struct model *model, bool may_retire)
{
	switch (random_below(&model->rnd, 1000)) {
	case 0:
		if (may_retire)
			model_op_retire(model);
		break;
	case 1 ... 5:
		hmm_devmem_alloc_drain(model->alloc);
		break;
	case 6 ... 99:
		model_op_bulk(model);
		break;
	case 100 ... 499:
		model_op_get(model);
		break;
	default:
		model_op_put(model);
	}
}

static void model_check(struct model *model)
{
	const struct hmm_devmem_alloc_stats stats = get_stats(model->alloc);
	const unsigned long retired = model_count(model, PAGE_RETIRED);
	const unsigned long retired_used = model_count(model, PAGE_RETIRED_USED);
	struct kunit *test = model->test;

	KUNIT_ASSERT_EQ(test, stats.total, model->geo->nr);
	KUNIT_ASSERT_EQ(test, stats.used,
			model_count(model, PAGE_USED) + retired_used);
	KUNIT_ASSERT_EQ(test, stats.retired, retired + retired_used);
	KUNIT_ASSERT_EQ(test, stats.used + stats.cached + stats.free + retired,
			stats.total);
	hmm_devmem_alloc_drain(model->alloc);
	KUNIT_ASSERT_EQ(test, get_stats(model->alloc).cached, 0);
	expect_in_use(test, model->alloc, model->state, 0, ULONG_MAX);
}

static void random_ops_match_model(struct kunit *test)
{
	struct model *model = create_model(test);
	unsigned int i;

	for (i = 0; i < TEST_OPS; i++) {
		model_op(model, false);
		if (!(i % 1000))
			model_check(model);
	}
	while (model->nr_pieces)
		model_op_put(model);
	model_check(model);
	KUNIT_EXPECT_EQ(test, get_stats(model->alloc).free, model->geo->nr);
}

static void random_ops_with_retired_pages_match_model(struct kunit *test)
{
	struct model *model = create_model(test);
	unsigned int i;

	for (i = 0; i < TEST_OPS; i++) {
		model_op(model, true);
		if (!(i % 1000))
			model_check(model);
	}
	while (model->nr_pieces)
		model_op_put(model);
	model_check(model);
	KUNIT_EXPECT_EQ(test, get_stats(model->alloc).used, 0);
}

/* Many at once */

#define TEST_THREADS	6
#define TEST_HELD	64

/**
 * struct crowd - threads that use one allocator
 * @owners: the allocator, and whose its pages are
 * @killing: hmm_devmem_alloc_kill() was called
 * @killed: hmm_devmem_alloc_kill() has returned
 * @nr_retired: length of @retired
 * @retired: when each page was retired, 1 for the first; 0 if not yet
 * @calls: allocations that succeeded
 * @taken: pages that were handed out although they were somebody's
 * @undead: allocations that succeeded after @killed
 * @wrong: wrong return values
 * @revived: pages that were handed out after they were retired
 */
struct crowd {
	struct owners *owners;
	bool killing;
	bool killed;
	unsigned int nr_retired;
	unsigned int *retired;
	atomic_t calls;
	atomic_t taken;
	atomic_t undead;
	atomic_t wrong;
	atomic_t revived;
};

struct member {
	struct crowd *crowd;
	struct rnd_state rnd;
	struct piece held[TEST_HELD];
	unsigned int nr_held;
};

static struct crowd *create_crowd(struct kunit *test, unsigned int nr_blocks)
{
	struct crowd *crowd = kunit_kzalloc(test, sizeof(*crowd), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, crowd);
	crowd->owners = create_owners(test, nr_blocks);
	crowd->retired = kunit_kcalloc(test, nr_blocks << 9,
				       sizeof(*crowd->retired), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, crowd->retired);
	return crowd;
}

static void member_took(struct member *member, unsigned long pfn,
			unsigned int order, bool dead, unsigned int nr_retired)
{
	struct crowd *crowd = member->crowd;
	unsigned int i, when;

	atomic_inc(&crowd->calls);
	if (dead)
		atomic_inc(&crowd->undead);
	if (!own(crowd->owners, pfn, order))
		atomic_inc(&crowd->taken);
	for (i = 0; i < 1U << order; i++) {
		when = READ_ONCE(crowd->retired[pfn - TEST_BASE + i]);
		if (when && when <= nr_retired)
			atomic_inc(&crowd->revived);
	}
	member->held[member->nr_held++] = (struct piece) { pfn, order };
}

static void member_get(struct member *member)
{
	static const unsigned int orders[] = { 0, 0, 0, 0, 0, 1, 2, 3, 5, 9 };
	unsigned int which = random_below(&member->rnd, ARRAY_SIZE(orders) + 2);
	struct crowd *crowd = member->crowd;
	unsigned int i, nr, nr_retired, room = TEST_HELD - member->nr_held;
	unsigned long pfns[TEST_HELD];
	bool dead;
	int ret;

	/* What had happened before the call: pairs with the tests' releases. */
	dead = smp_load_acquire(&crowd->killed);
	/* Likewise. */
	nr_retired = smp_load_acquire(&crowd->nr_retired);

	if (which < ARRAY_SIZE(orders)) {
		ret = hmm_devmem_alloc_get(crowd->owners->alloc, orders[which],
					   &pfns[0]);
		if (!ret)
			member_took(member, pfns[0], orders[which], dead,
				    nr_retired);
		else if (ret != -ENOMEM &&
			 (ret != -ENODEV || !READ_ONCE(crowd->killing)))
			atomic_inc(&crowd->wrong);
		return;
	}
	nr = hmm_devmem_alloc_get_bulk(crowd->owners->alloc, room, pfns);
	for (i = 0; i < nr; i++)
		member_took(member, pfns[i], 0, dead, nr_retired);
}

static void member_put(struct member *member)
{
	unsigned int i = random_below(&member->rnd, member->nr_held);
	struct piece piece = member->held[i];

	member->held[i] = member->held[--member->nr_held];
	if (!own_and_put(member->crowd->owners, piece.pfn, piece.order))
		atomic_inc(&member->crowd->taken);
}

static int member_thread(void *data)
{
	struct member *member = data;

	while (!kthread_should_stop()) {
		if (member->nr_held < TEST_HELD && random_below(&member->rnd, 2))
			member_get(member);
		else if (member->nr_held)
			member_put(member);
		cond_resched();
	}
	while (member->nr_held)
		member_put(member);
	return 0;
}

static void stop_action(void *task)
{
	kthread_stop(task);
}

static void start_crowd(struct kunit *test, struct crowd *crowd,
			struct task_struct **tasks)
{
	struct member *member;
	unsigned int i;

	for (i = 0; i < TEST_THREADS; i++) {
		member = kunit_kzalloc(test, sizeof(*member), GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, member);
		member->crowd = crowd;
		prandom_seed_state(&member->rnd, seed + i);
		tasks[i] = kthread_run(member_thread, member, "hmm_devmem/%u", i);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, tasks[i]);
		KUNIT_ASSERT_EQ(test, 0,
				kunit_add_action_or_reset(test, stop_action,
							  tasks[i]));
	}
}

static void stop_crowd(struct kunit *test, struct crowd *crowd,
		       struct task_struct **tasks)
{
	unsigned int i;

	for (i = 0; i < TEST_THREADS; i++)
		kunit_release_action(test, stop_action, tasks[i]);
	KUNIT_EXPECT_GT(test, atomic_read(&crowd->calls), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&crowd->taken), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&crowd->wrong), 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_alloc_used(crowd->owners->alloc), 0);
}

static void concurrent_users_never_share_a_page(struct kunit *test)
{
	struct crowd *crowd = create_crowd(test, TEST_BLOCKS);
	struct task_struct *tasks[TEST_THREADS];

	start_crowd(test, crowd, tasks);
	msleep(500);
	stop_crowd(test, crowd, tasks);
	KUNIT_EXPECT_EQ(test, count_blocks(crowd->owners->alloc), TEST_BLOCKS);
}

/* So few pages that they have to be fetched from other CPUs' caches. */
static void concurrent_users_of_one_block_never_share_a_page(struct kunit *test)
{
	struct crowd *crowd = create_crowd(test, 1);
	struct task_struct *tasks[TEST_THREADS];

	start_crowd(test, crowd, tasks);
	msleep(500);
	stop_crowd(test, crowd, tasks);
	KUNIT_EXPECT_EQ(test, count_blocks(crowd->owners->alloc), 1);
}

static void kill_with_concurrent_users_lets_none_succeed(struct kunit *test)
{
	struct task_struct *tasks[TEST_THREADS];
	struct crowd *crowd;
	unsigned int round;

	for (round = 0; round < 5; round++) {
		crowd = create_crowd(test, TEST_BLOCKS);
		start_crowd(test, crowd, tasks);
		msleep(20);
		WRITE_ONCE(crowd->killing, true);
		hmm_devmem_alloc_kill(crowd->owners->alloc);
		/* Pairs with member_get(). */
		smp_store_release(&crowd->killed, true);
		msleep(20);
		stop_crowd(test, crowd, tasks);
		KUNIT_EXPECT_EQ(test, atomic_read(&crowd->undead), 0);
	}
}

/* A page that is retired while others use it, or are about to. */
static void retire_with_concurrent_users_holds(struct kunit *test)
{
	struct crowd *crowd = create_crowd(test, TEST_BLOCKS);
	struct task_struct *tasks[TEST_THREADS];
	struct rnd_state rnd;
	unsigned int i, at;

	prandom_seed_state(&rnd, seed);
	start_crowd(test, crowd, tasks);
	for (i = 1; i <= 1000; i++) {
		at = random_below(&rnd, TEST_BLOCKS * 512);
		if (crowd->retired[at])
			continue;
		hmm_devmem_alloc_retire(crowd->owners->alloc, TEST_BASE + at);
		WRITE_ONCE(crowd->retired[at], i);
		/* Pairs with member_get(). */
		smp_store_release(&crowd->nr_retired, i);
		cond_resched();
	}
	msleep(100);
	stop_crowd(test, crowd, tasks);
	KUNIT_EXPECT_EQ(test, atomic_read(&crowd->revived), 0);
}

#define GEOMETRY_CASE(name) KUNIT_CASE_PARAM(name, geometry_gen_params)

static struct kunit_case alloc_cases[] = {
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
	KUNIT_CASE(bulk_fresh_is_one_run),
	KUNIT_CASE(bulk_partial_block_takes_its_runs),
	KUNIT_CASE(bulk_zero_takes_nothing),
	GEOMETRY_CASE(bulk_exhausted_gives_what_there_is),
	KUNIT_CASE(bulk_drains_caches),
	KUNIT_CASE(bulk_pages_freed_singly_coalesce),
	KUNIT_CASE(retire_free_page_never_handed_out),
	KUNIT_CASE(retire_used_page_never_handed_out_again),
	KUNIT_CASE(retire_cached_page_never_handed_out),
	KUNIT_CASE(retire_inside_large_piece_loses_one_page),
	KUNIT_CASE(retire_twice_counts_once),
	KUNIT_CASE(retire_whole_block_leaves_others),
	KUNIT_CASE(get_after_kill_returns_enodev),
	KUNIT_CASE(bulk_after_kill_returns_0),
	KUNIT_CASE(kill_empties_caches),
	KUNIT_CASE(put_after_kill_frees),
	KUNIT_CASE(depopulate_used_returns_ebusy),
	KUNIT_CASE(depopulate_cached_returns_ebusy),
	KUNIT_CASE(depopulate_retired_returns_ebusy),
	KUNIT_CASE(depopulate_takes_pages_away),
	GEOMETRY_CASE(populate_again_gives_pages_back),
	GEOMETRY_CASE(in_use_empty_lists_nothing),
	GEOMETRY_CASE(in_use_lists_exactly_used_pages),
	KUNIT_CASE(in_use_skips_retired_pages),
	KUNIT_CASE(in_use_skips_unpopulated_areas),
	KUNIT_CASE(put_foreign_page_changes_nothing),
#ifdef CONFIG_HMM_DEVMEM_DEBUG
	KUNIT_CASE(put_page_twice_changes_nothing),
	KUNIT_CASE(put_block_twice_changes_nothing),
	KUNIT_CASE(put_free_page_changes_nothing),
#endif
	KUNIT_CASE(put_on_other_cpu_frees),
	KUNIT_CASE(put_contended_waits_when_cache_is_full),
#ifdef CONFIG_HOTPLUG_CPU
	KUNIT_CASE_SLOW(cpu_offline_empties_its_cache),
#endif
	KUNIT_CASE(get_and_put_in_any_context_works),
	GEOMETRY_CASE(random_ops_match_model),
	GEOMETRY_CASE(random_ops_with_retired_pages_match_model),
	KUNIT_CASE_SLOW(concurrent_users_never_share_a_page),
	KUNIT_CASE_SLOW(concurrent_users_of_one_block_never_share_a_page),
	KUNIT_CASE_SLOW(kill_with_concurrent_users_lets_none_succeed),
	KUNIT_CASE_SLOW(retire_with_concurrent_users_holds),
	{ }
};

static struct kunit_suite alloc_suite = {
	.name = "hmm_devmem_alloc",
	.suite_init = alloc_suite_init,
	.test_cases = alloc_cases,
};

kunit_test_suite(alloc_suite);

MODULE_DESCRIPTION("KUnit tests of the allocator for HMM device memory");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_LICENSE("GPL");
