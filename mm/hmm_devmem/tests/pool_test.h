/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers that the suites of the pool of device pages share.
 */
#ifndef _HMM_DEVMEM_POOL_TEST_H
#define _HMM_DEVMEM_POOL_TEST_H

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/align.h>
#include <linux/minmax.h>
#include <linux/prandom.h>
#include <linux/slab.h>

#include "../pool.h"

/* First pfn; aligned to every block order used here. No test touches these pages. */
#define TEST_BASE	BIT(30)

/* More pages than the caches of all CPUs of a test take at a time. */
#define TEST_BLOCKS	8

/* Seed of the random tests; set before the first test. */
extern unsigned long hmm_devmem_test_seed;

int hmm_devmem_test_print_seed(struct kunit_suite *suite);

static inline unsigned int random_below(struct rnd_state *rnd, unsigned int end)
{
	return prandom_u32_state(rnd) % end;
}

/**
 * struct geometry - the pages that a pool is for
 * @desc: part of the name of the case
 * @block_order: pages of a block, log2
 * @segment_order: blocks of a segment, log2
 * @first: first page, relative to TEST_BASE
 * @nr: number of pages
 */
struct geometry {
	const char *desc;
	unsigned int block_order;
	unsigned int segment_order;
	unsigned long first;
	unsigned long nr;
};

static const struct geometry __maybe_unused geometries[] = {
	{ "block order 3", 3, 10, 0, 1024 },
	{ "block order 6", 6, 10, 0, 1024 },
	{ "block order 9", 9, 10, 0, 2048 },
	{ "block order 13", 13, 10, 0, 2 << 13 },
	{ "unaligned first", 9, 10, 5, 2043 },
	{ "unaligned last", 9, 10, 0, 2047 },
	{ "unaligned ends, tiny blocks", 3, 10, 3, 1002 },
	{ "inside one block", 9, 10, 7, 100 },
	{ "one page", 9, 10, 511, 1 },
	{ "segments of one block", 6, 0, 0, 1024 },
	{ "segments of four blocks, unaligned ends", 6, 2, 61, 900 },
};

/* Needs KUNIT_ARRAY_PARAM_DESC(geometry, geometries, desc) in the same file. */
#define GEOMETRY_CASE(name)	KUNIT_CASE_PARAM(name, geometry_gen_params)

KUNIT_DEFINE_ACTION_WRAPPER(destroy_action, hmm_devmem_pool_destroy,
			    struct hmm_devmem_pool *);

static inline struct hmm_devmem_pool *create(struct kunit *test,
					     const struct geometry *geo)
{
	struct hmm_devmem_pool *pool;
	unsigned int i;

	pool = hmm_devmem_pool_create(TEST_BASE + geo->first, geo->nr,
				      geo->block_order,
				      geo->block_order + geo->segment_order);
	KUNIT_ASSERT_NOT_NULL(test, pool);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, destroy_action, pool));
	for (i = 0; i < pool->nr_segments; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_populate(pool, i));
	return pool;
}

/* The geometry of a device with folios of 2 MiB. */
static inline struct hmm_devmem_pool *create_blocks(struct kunit *test,
						    unsigned int nr_blocks)
{
	const struct geometry geo = {
		.block_order = 9,
		.segment_order = 10,
		.nr = nr_blocks << 9,
	};

	return create(test, &geo);
}

static inline unsigned long *alloc_pfns(struct kunit *test, unsigned long nr)
{
	unsigned long *pfns = kunit_kcalloc(test, nr, sizeof(*pfns), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, pfns);
	return pfns;
}

static inline u8 *alloc_bytes(struct kunit *test, unsigned long nr)
{
	u8 *bytes = kunit_kzalloc(test, nr, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, bytes);
	return bytes;
}

static inline unsigned long get(struct kunit *test,
				struct hmm_devmem_pool *pool,
				unsigned int order)
{
	unsigned long pfn = 0;

	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_alloc(pool, order, &pfn));
	return pfn;
}

static inline struct hmm_devmem_pool_stats
get_stats(struct hmm_devmem_pool *pool)
{
	struct hmm_devmem_pool_stats stats;

	hmm_devmem_pool_get_stats(pool, &stats);
	return stats;
}

static inline unsigned int count_blocks(struct hmm_devmem_pool *pool)
{
	unsigned int nr = 0;
	unsigned long pfn;

	while (!hmm_devmem_pool_alloc(pool, pool->block_order, &pfn))
		nr++;
	return nr;
}

/* Mark 2^@order pages in @seen; they must be of @geo, aligned, and not marked yet. */
static inline void mark_seen(struct kunit *test, const struct geometry *geo,
			     u8 *seen, unsigned long pfn, unsigned int order)
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

/* Compare what hmm_devmem_pool_in_use() lists in [@pfn, @end) with @seen. */
static inline void expect_in_use_by(struct kunit *test,
				    struct hmm_devmem_pool *pool, const u8 *seen,
				    unsigned long pfn, unsigned long end,
				    unsigned int max)
{
	unsigned long *pfns = alloc_pfns(test, max);
	unsigned long at = max(pfn, pool->first);
	unsigned int nr, i;

	while ((nr = hmm_devmem_pool_in_use(pool, &pfn, end, pfns, max))) {
		KUNIT_ASSERT_LE(test, nr, max);
		for (i = 0; i < nr; i++) {
			while (at < pfns[i])
				KUNIT_ASSERT_NE(test, 1, seen[at++ - pool->first]);
			KUNIT_ASSERT_EQ(test, at, pfns[i]);
			KUNIT_ASSERT_EQ(test, 1, seen[at++ - pool->first]);
		}
	}
	for (; at < min(end, pool->last); at++)
		KUNIT_ASSERT_NE(test, 1, seen[at - pool->first]);
	kunit_kfree(test, pfns);
}

/* Up to a block at a time, and in smaller parts. */
static inline void expect_in_use(struct kunit *test,
				 struct hmm_devmem_pool *pool, const u8 *seen,
				 unsigned long pfn, unsigned long end)
{
	expect_in_use_by(test, pool, seen, pfn, end, 1 << pool->block_order);
	expect_in_use_by(test, pool, seen, pfn, end, 7);
}

/* Pages that were allocated in one call. */
struct piece {
	unsigned long pfn;
	unsigned int order;
};

#endif /* _HMM_DEVMEM_POOL_TEST_H */
