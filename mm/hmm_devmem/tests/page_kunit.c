// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_page: the pages of device memory, their folios and
 * contexts.
 */

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/limits.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/sched.h>

#include "../devmem.h"
#include "core_test.h"

/* Pages */

static void from_page_finds_every_page(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE + PAGE_SIZE);
	unsigned long pfn;

	for (pfn = devmem->pfn_first; pfn < devmem->pfn_last; pfn++)
		KUNIT_ASSERT_PTR_EQ(test, devmem,
				    hmm_devmem_from_page(pfn_to_page(pfn)));
}

static void from_page_beyond_end_returns_null(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE + PAGE_SIZE);

	/* It has a struct page, because core creates those for 2 MiB at a time. */
	KUNIT_EXPECT_NULL(test, hmm_devmem_from_page(pfn_to_page(devmem->pfn_last)));
}

static void from_page_of_ram_returns_null(struct kunit *test)
{
	KUNIT_EXPECT_NULL(test, hmm_devmem_from_page(virt_to_page(test->priv)));
	KUNIT_EXPECT_NULL(test, hmm_devmem_from_page(ZERO_PAGE(0)));
}

static void from_page_of_other_pagemap_returns_null(struct kunit *test)
{
	struct resource *res = get_region(test, TEST_SIZE);
	struct dev_pagemap *pagemap;
	void *ret;

	pagemap = kunit_kzalloc(test, sizeof(*pagemap), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pagemap);
	pagemap->type = MEMORY_DEVICE_GENERIC;
	pagemap->nr_range = 1;
	pagemap->range.start = res->start;
	pagemap->range.end = res->end;
	ret = memremap_pages(pagemap, NUMA_NO_NODE);
	KUNIT_ASSERT_FALSE(test, IS_ERR(ret));
	KUNIT_EXPECT_NULL(test,
			  hmm_devmem_from_page(pfn_to_page(PHYS_PFN(res->start))));
	memunmap_pages(pagemap);
}

static void from_page_tells_devmems_apart(struct kunit *test)
{
	struct hmm_devmem *one = add(test, &managed_ops, TEST_SIZE);
	struct hmm_devmem *two = add(test, &classic_ops, TEST_SIZE);

	KUNIT_EXPECT_PTR_EQ(test, one,
			    hmm_devmem_from_page(pfn_to_page(one->pfn_last - 1)));
	KUNIT_EXPECT_PTR_EQ(test, two,
			    hmm_devmem_from_page(pfn_to_page(two->pfn_first)));
}

static void page_offset_counts_from_first_page(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, 0,
			hmm_devmem_page_offset(pfn_to_page(devmem->pfn_first)));
	KUNIT_EXPECT_EQ(test, TEST_SIZE - PAGE_SIZE,
			hmm_devmem_page_offset(pfn_to_page(devmem->pfn_last - 1)));
}

static void page_offset_of_ram_warns(struct kunit *test)
{
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, 0, hmm_devmem_page_offset(virt_to_page(test->priv)));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
}

static void drvdata_is_kept_per_page(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	unsigned long pfn;

	for (pfn = devmem->pfn_first; pfn < devmem->pfn_last; pfn++)
		hmm_devmem_page_set_drvdata(pfn_to_page(pfn), ~pfn);
	for (pfn = devmem->pfn_first; pfn < devmem->pfn_last; pfn++)
		KUNIT_ASSERT_EQ(test, ~pfn,
				hmm_devmem_page_get_drvdata(pfn_to_page(pfn)));
}

static void drvdata_of_managed_page_warns(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct hmm_devmem_context ctx;
	struct folio *folio;

	hmm_devmem_context_init(&ctx, NULL);
	folio = alloc(test, devmem, 0, &ctx);
	kunit_warning_suppress(test) {
		hmm_devmem_page_set_drvdata(&folio->page, 1);
		KUNIT_EXPECT_EQ(test, 0,
				hmm_devmem_page_get_drvdata(&folio->page));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 2);
	}
	KUNIT_EXPECT_PTR_EQ(test, &ctx, hmm_devmem_page_context(&folio->page));
	release(folio);
}

/* Folios of a managed devmem */

/* Stands for the order of a block, which is not a constant on all machines. */
#define ORDER_BLOCK	UINT_MAX

static const struct order_param {
	const char *name;
	unsigned int order;
} folio_orders[] = {
	{ "one page", 0 },
	{ "four pages", 2 },
	{ "a block", ORDER_BLOCK },
};

static unsigned int param_order(struct kunit *test)
{
	const struct order_param *param = test->param_value;

	return param->order == ORDER_BLOCK ? HMM_DEVMEM_BLOCK_ORDER : param->order;
}

KUNIT_ARRAY_PARAM_DESC(folio_order, folio_orders, name);

static void alloc_folio_is_locked_with_one_reference(struct kunit *test)
{
	const unsigned int order = param_order(test);
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, order, NULL);

	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_EQ(test, folio_order(folio), order);
	KUNIT_EXPECT_TRUE(test, folio_is_device_private(folio));
	KUNIT_EXPECT_TRUE(test, IS_ALIGNED(folio_pfn(folio), 1UL << order));
	KUNIT_EXPECT_PTR_EQ(test, devmem,
			    hmm_devmem_from_page(folio_page(folio, (1 << order) - 1)));
	KUNIT_EXPECT_NULL(test, hmm_devmem_page_context(&folio->page));
	release(folio);
}

static void put_folio_frees_its_pages(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	const unsigned int order = param_order(test);
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, order, NULL);

	KUNIT_EXPECT_EQ(test, pages_used(devmem), 1 << order);
	expect_events(test, "");
	release(folio);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
	expect_events(test, "f");
	KUNIT_EXPECT_PTR_EQ(test, fixture->freed_page, &folio->page);
	KUNIT_EXPECT_EQ(test, fixture->freed_order, order);
}

static void put_folio_without_hook_frees(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &minimal_managed_ops, TEST_SIZE);

	release(alloc(test, devmem, 0, NULL));
	release(alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL));
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
}

static void alloc_folio_order_too_large_returns_null(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, 4 * TEST_SIZE);

	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem,
						       HMM_DEVMEM_BLOCK_ORDER + 1,
						       NULL));
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, UINT_MAX, NULL));
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
}

#ifdef CONFIG_DEBUG_ATOMIC_SLEEP
/* might_sleep() warns in each call, so that wrong callers are found. */
static void alloc_folio_tells_that_it_may_sleep(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, PAGE_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);
	struct folio *other;

	kunit_warning_suppress(test) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		other = hmm_devmem_alloc_folio(devmem, 0, NULL);
		__set_current_state(TASK_RUNNING);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_NULL(test, other);
	release(folio);
}
#endif

static void alloc_folio_of_classic_returns_null(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);

	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
}

static void alloc_folio_large_after_small_ones_works(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, BLOCK_SIZE_BYTES);
	struct folio *folio;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		release(alloc(test, devmem, 0, NULL));
		folio = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);
		KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
		release(folio);
		folio = alloc(test, devmem, 0, NULL);
		KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
		release(folio);
	}
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
}

static void get_stats_counts_pages(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct hmm_devmem_stats stats;

	release(alloc(test, devmem, 0, NULL));
	release(alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL));
	hmm_devmem_get_stats(devmem, &stats);
	KUNIT_EXPECT_EQ(test, stats.allocated, HMM_DEVMEM_BLOCK_NR + 1);
	KUNIT_EXPECT_EQ(test, stats.freed, HMM_DEVMEM_BLOCK_NR + 1);
	KUNIT_EXPECT_EQ(test, stats.to_device, 0);
	KUNIT_EXPECT_EQ(test, stats.to_ram, 0);
	KUNIT_EXPECT_EQ(test, stats.faults, 0);
	KUNIT_EXPECT_EQ(test, stats.fault_pages, 0);
	KUNIT_EXPECT_EQ(test, stats.evicted, 0);
	KUNIT_EXPECT_EQ(test, stats.copy_errors, 0);
}

/* Contexts */

static void context_is_found_from_every_page(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct hmm_devmem_context ctx;
	struct folio *folio;

	hmm_devmem_context_init(&ctx, NULL);
	folio = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, &ctx);
	KUNIT_EXPECT_PTR_EQ(test, &ctx, hmm_devmem_page_context(&folio->page));
	KUNIT_EXPECT_PTR_EQ(test, &ctx,
			    hmm_devmem_page_context(folio_page(folio, 1)));
	KUNIT_EXPECT_PTR_EQ(test, &ctx,
			    hmm_devmem_page_context(folio_page(folio,
							       HMM_DEVMEM_BLOCK_NR - 1)));
	release(folio);
}

static void context_is_released_after_last_folio(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, 2 * TEST_SIZE);
	struct counted_context counted = { };
	struct folio *small, *large;

	hmm_devmem_context_init(&counted.ctx, count_release);
	small = alloc(test, devmem, 0, &counted.ctx);
	large = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, &counted.ctx);
	hmm_devmem_context_put(&counted.ctx);
	release(small);
	KUNIT_EXPECT_EQ(test, counted.released, 0);
	release(large);
	KUNIT_EXPECT_EQ(test, counted.released, 1);
}

static void context_outlives_folios_while_held(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct counted_context counted = { };

	hmm_devmem_context_init(&counted.ctx, count_release);
	hmm_devmem_context_get(&counted.ctx);
	release(alloc(test, devmem, 0, &counted.ctx));
	hmm_devmem_context_put(&counted.ctx);
	KUNIT_EXPECT_EQ(test, counted.released, 0);
	hmm_devmem_context_put(&counted.ctx);
	KUNIT_EXPECT_EQ(test, counted.released, 1);
}

static void context_null_ignored(struct kunit *test)
{
	hmm_devmem_context_get(NULL);
	hmm_devmem_context_put(NULL);
}

static void failed_alloc_takes_no_reference(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, PAGE_SIZE);
	struct hmm_devmem_context ctx;
	struct folio *folio;

	hmm_devmem_context_init(&ctx, NULL);
	folio = alloc(test, devmem, 0, NULL);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, &ctx));
	KUNIT_EXPECT_EQ(test, refcount_read(&ctx.refs), 1);
	release(folio);
}

/* Pages of a classic devmem */

static void put_classic_page_calls_free(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, 7, 0);

	release(folio);
	expect_events(test, "f");
	KUNIT_EXPECT_PTR_EQ(test, fixture->freed_page,
			    pfn_to_page(devmem->pfn_first + 7));
}

static void put_classic_folio_calls_free_once(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, HMM_DEVMEM_BLOCK_NR,
					   HMM_DEVMEM_BLOCK_ORDER);

	release(folio);
	expect_events(test, "f");
	KUNIT_EXPECT_PTR_EQ(test, fixture->freed_page, &folio->page);
	KUNIT_EXPECT_EQ(test, fixture->freed_order, HMM_DEVMEM_BLOCK_ORDER);
}

static void drvdata_is_kept_while_page_is_used(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, 0, 0);

	hmm_devmem_page_set_drvdata(&folio->page, 0x1234);
	folio_unlock(folio);
	KUNIT_EXPECT_EQ(test, 0x1234, hmm_devmem_page_get_drvdata(&folio->page));
	folio_put(folio);
}

/* Eviction of nothing */

static void evict_idle_devmem_returns_0(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_evict(devmem, devmem->pfn_first,
						  TEST_SIZE / PAGE_SIZE, NULL));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_evict(devmem, 0, 0, NULL));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_evict(devmem, 0, ULONG_MAX, NULL));
	expect_events(test, "");
}

static void evict_overflowing_range_returns_einval(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_devmem_evict(devmem, 2, ULONG_MAX, NULL));
}

static void evict_classic_returns_eopnotsupp(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			hmm_devmem_evict(devmem, devmem->pfn_first, 1, NULL));
}

static void evict_locked_folio_leaves_it(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	KUNIT_EXPECT_EQ(test, 1, hmm_devmem_evict(devmem, devmem->pfn_first,
						  TEST_SIZE / PAGE_SIZE, NULL));
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	release(folio);
}

/* A CPU fault that has moved the data leaves the folio like this for a moment. */
static void evict_folio_without_data_leaves_it(struct kunit *test)
{
	const unsigned int order = param_order(test);
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, order, NULL);
	struct hmm_devmem_left left;

	folio_unlock(folio);
	KUNIT_EXPECT_EQ(test, 1 << order,
			hmm_devmem_evict(devmem, devmem->pfn_first,
					 TEST_SIZE / PAGE_SIZE, &left));
	KUNIT_EXPECT_EQ(test, 1 << order, left.busy);
	/* No page was copied, and the folio was not split. */
	expect_events(test, "");
	KUNIT_EXPECT_EQ(test, order, folio_order(folio));
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	folio_lock(folio);
	release(folio);
}

#define FOLIO_CASE(name) KUNIT_CASE_PARAM(name, folio_order_gen_params)

static struct kunit_case page_cases[] = {
	KUNIT_CASE(from_page_finds_every_page),
	KUNIT_CASE(from_page_beyond_end_returns_null),
	KUNIT_CASE(from_page_of_ram_returns_null),
	KUNIT_CASE(from_page_of_other_pagemap_returns_null),
	KUNIT_CASE(from_page_tells_devmems_apart),
	KUNIT_CASE(page_offset_counts_from_first_page),
	KUNIT_CASE(page_offset_of_ram_warns),
	KUNIT_CASE(drvdata_is_kept_per_page),
	KUNIT_CASE(drvdata_of_managed_page_warns),
	FOLIO_CASE(alloc_folio_is_locked_with_one_reference),
	FOLIO_CASE(put_folio_frees_its_pages),
	KUNIT_CASE(put_folio_without_hook_frees),
	KUNIT_CASE(alloc_folio_order_too_large_returns_null),
#ifdef CONFIG_DEBUG_ATOMIC_SLEEP
	KUNIT_CASE(alloc_folio_tells_that_it_may_sleep),
#endif
	KUNIT_CASE(alloc_folio_of_classic_returns_null),
	KUNIT_CASE(alloc_folio_large_after_small_ones_works),
	KUNIT_CASE(get_stats_counts_pages),
	KUNIT_CASE(context_is_found_from_every_page),
	KUNIT_CASE(context_is_released_after_last_folio),
	KUNIT_CASE(context_outlives_folios_while_held),
	KUNIT_CASE(context_null_ignored),
	KUNIT_CASE(failed_alloc_takes_no_reference),
	KUNIT_CASE(put_classic_page_calls_free),
	KUNIT_CASE(put_classic_folio_calls_free_once),
	KUNIT_CASE(drvdata_is_kept_while_page_is_used),
	KUNIT_CASE(evict_idle_devmem_returns_0),
	KUNIT_CASE(evict_overflowing_range_returns_einval),
	KUNIT_CASE(evict_classic_returns_eopnotsupp),
	KUNIT_CASE(evict_locked_folio_leaves_it),
	FOLIO_CASE(evict_folio_without_data_leaves_it),
	{ }
};

static struct kunit_suite page_suite = {
	.name = "hmm_devmem_page",
	.init = fixture_init,
	.test_cases = page_cases,
};

kunit_test_suite(page_suite);
