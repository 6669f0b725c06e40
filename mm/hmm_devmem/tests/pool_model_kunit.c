// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_pool_model: random calls of the pool for device
 * pages, compared with a simple model.
 */

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/string.h>

#include "../pool.h"
#include "pool_test.h"

KUNIT_ARRAY_PARAM_DESC(geometry, geometries, desc);

#define TEST_OPS	10000

enum page_state { PAGE_FREE, PAGE_USED, PAGE_RETIRED_USED, PAGE_RETIRED };

/**
 * struct model - a pool, and the state that it should have
 * @test: the test
 * @geo: geometry of @pool
 * @pool: the pool that is tested
 * @rnd: source of random decisions
 * @state: enum page_state of each page
 * @pieces: the pieces that are allocated
 * @nr_pieces: number of @pieces
 */
struct model {
	struct kunit *test;
	const struct geometry *geo;
	struct hmm_devmem_pool *pool;
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
	model->pool = create(test, model->geo);
	model->state = alloc_bytes(test, model->geo->nr);
	model->pieces = kunit_kcalloc(test, model->geo->nr,
				      sizeof(*model->pieces), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, model->pieces);
	prandom_seed_state(&model->rnd, hmm_devmem_test_seed);
	return model;
}

static bool model_has_free(const struct model *model, unsigned int order)
{
	const unsigned long step = 1UL << order, end = model->pool->last;
	unsigned long pfn;

	for (pfn = ALIGN(model->pool->first, step); pfn + step <= end; pfn += step)
		if (!memchr_inv(&model->state[pfn - model->pool->first],
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
	u8 *state = &model->state[pfn - model->pool->first];
	unsigned long n;

	for (n = 0; n < 1UL << order; n++)
		state[n] = state[n] == PAGE_USED ? PAGE_FREE : PAGE_RETIRED;
	hmm_devmem_pool_free(model->pool, pfn, order);
}

static void model_op_get(struct model *model)
{
	/* Small orders are more frequent, or no large piece would ever be left. */
	unsigned int max = random_below(&model->rnd, model->geo->block_order + 1);
	unsigned int order = random_below(&model->rnd, max + 1);
	unsigned long pfn;
	int ret;

	ret = hmm_devmem_pool_alloc(model->pool, order, &pfn);
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
	unsigned int got = hmm_devmem_pool_alloc_bulk(model->pool, nr, pfns);
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
	hmm_devmem_pool_retire(model->pool, model->pool->first + i);
}

static void model_op(struct model *model, bool may_retire)
{
	switch (random_below(&model->rnd, 1000)) {
	case 0:
		if (may_retire)
			model_op_retire(model);
		break;
	case 1 ... 5:
		hmm_devmem_pool_drain(model->pool);
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
	const struct hmm_devmem_pool_stats stats = get_stats(model->pool);
	const unsigned long retired = model_count(model, PAGE_RETIRED);
	const unsigned long retired_used = model_count(model, PAGE_RETIRED_USED);
	struct kunit *test = model->test;

	KUNIT_ASSERT_EQ(test, stats.total, model->geo->nr);
	KUNIT_ASSERT_EQ(test, stats.used,
			model_count(model, PAGE_USED) + retired_used);
	KUNIT_ASSERT_EQ(test, stats.retired, retired + retired_used);
	KUNIT_ASSERT_EQ(test, stats.used + stats.cached + stats.free + retired,
			stats.total);
	hmm_devmem_pool_drain(model->pool);
	KUNIT_ASSERT_EQ(test, get_stats(model->pool).cached, 0);
	expect_in_use(test, model->pool, model->state, 0, ULONG_MAX);
}

/* Returns the model when all that was allocated is free again. */
static struct model *run_model(struct kunit *test, bool may_retire)
{
	struct model *model = create_model(test);
	unsigned int i;

	for (i = 0; i < TEST_OPS; i++) {
		model_op(model, may_retire);
		if (!(i % 1000))
			model_check(model);
	}
	while (model->nr_pieces)
		model_op_put(model);
	model_check(model);
	return model;
}

static void random_ops_match_model(struct kunit *test)
{
	struct model *model = run_model(test, false);

	KUNIT_EXPECT_EQ(test, get_stats(model->pool).free, model->geo->nr);
}

static void random_ops_with_retired_pages_match_model(struct kunit *test)
{
	struct model *model = run_model(test, true);

	KUNIT_EXPECT_EQ(test, get_stats(model->pool).used, 0);
}

static struct kunit_case pool_model_cases[] = {
	GEOMETRY_CASE(random_ops_match_model),
	GEOMETRY_CASE(random_ops_with_retired_pages_match_model),
	{ }
};

static struct kunit_suite pool_model_suite = {
	.name = "hmm_devmem_pool_model",
	.suite_init = hmm_devmem_test_print_seed,
	.test_cases = pool_model_cases,
};

kunit_test_suite(pool_model_suite);
