// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_core: adding device memory.
 */

#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sizes.h>

#include "../pool.h"
#include "../segment.h"
#include "core_test.h"

/* Add, bad input */

struct bad_desc {
	const char *name;
	struct hmm_devmem_ops ops;
	struct hmm_devmem_desc desc;
	int error;
};

/* Size in descriptors with another error, which are never added. */
#define DESC_SIZE	SZ_4M
#define DESC(_size, _type, ...)						\
	{ .size = (_size), .type = (_type), .nid = NUMA_NO_NODE, ##__VA_ARGS__ }
#define PRIVATE_DESC	DESC(DESC_SIZE, MEMORY_DEVICE_PRIVATE)
#define MANAGED_OPS	{ .copy_to_device = no_copy, .copy_to_ram = no_copy }

static struct resource some_resource = DEFINE_RES_MEM(SZ_1G, SZ_2M);

static const struct bad_desc bad_descs[] = {
	{ "size 0", MANAGED_OPS, DESC(0, MEMORY_DEVICE_PRIVATE), -ENODATA },
	{ "size overflows to 0", MANAGED_OPS,
	  DESC(ULONG_MAX, MEMORY_DEVICE_PRIVATE), -EOVERFLOW },
	{ "size overflows in sections", MANAGED_OPS,
	  DESC(ULONG_MAX - 2 * PAGE_SIZE, MEMORY_DEVICE_PRIVATE), -EOVERFLOW },
	{ "size beyond physical addresses", MANAGED_OPS,
	  DESC(1UL << 62, MEMORY_DEVICE_PRIVATE), -ERANGE },
	{ "no callbacks", { }, PRIVATE_DESC, -EINVAL },
	{ "only copy_to_device", { .copy_to_device = no_copy }, PRIVATE_DESC,
	  -EINVAL },
	{ "only copy_to_ram", { .copy_to_ram = no_copy }, PRIVATE_DESC, -EINVAL },
	{ "only free", { .free = note_free }, PRIVATE_DESC, -EINVAL },
	{ "only fault", { .fault = no_fault }, PRIVATE_DESC, -EINVAL },
	{ "classic with one copy",
	  { .free = note_free, .fault = no_fault, .copy_to_ram = no_copy },
	  PRIVATE_DESC, -EINVAL },
	{ "type 0", MANAGED_OPS, DESC(DESC_SIZE, 0), -EOPNOTSUPP },
	{ "type of DAX", MANAGED_OPS, DESC(DESC_SIZE, MEMORY_DEVICE_FS_DAX),
	  -EOPNOTSUPP },
	{ "type of P2PDMA", MANAGED_OPS, DESC(DESC_SIZE, MEMORY_DEVICE_PCI_P2PDMA),
	  -EOPNOTSUPP },
	{ "coherent without resource", MANAGED_OPS,
	  DESC(DESC_SIZE, MEMORY_DEVICE_COHERENT), -EINVAL },
	{ "private with resource", MANAGED_OPS,
	  DESC(DESC_SIZE, MEMORY_DEVICE_PRIVATE, .res = &some_resource), -EINVAL },
	{ "negative node", MANAGED_OPS,
	  { .size = DESC_SIZE, .type = MEMORY_DEVICE_PRIVATE, .nid = -2 }, -EINVAL },
	{ "node too large", MANAGED_OPS,
	  { .size = DESC_SIZE, .type = MEMORY_DEVICE_PRIVATE, .nid = MAX_NUMNODES },
	  -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(bad_desc, bad_descs, name);

static void add_bad_desc_returns_error(struct kunit *test)
{
	const struct bad_desc *bad = test->param_value;
	struct hmm_devmem_ops ops = bad->ops;
	struct hmm_devmem_desc desc = bad->desc;
	struct hmm_devmem *devmem;

	ops.kill = note_kill;
	ops.cleanup = note_cleanup;
	desc.ops = &ops;
	devmem = hmm_devmem_add_desc(test_device(test), &desc);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(devmem), bad->error);
	/* If it was added by mistake, remove it before the ops go out of scope. */
	hmm_devmem_remove(devmem);
	expect_nothing_changed(test);
}

static void add_null_device_returns_enodev(struct kunit *test)
{
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_add(&managed_ops, NULL, TEST_SIZE),
			    ERR_PTR(-ENODEV));
	expect_nothing_changed(test);
}

static void add_null_ops_returns_einval(struct kunit *test)
{
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_add(NULL, test_device(test), TEST_SIZE),
			    ERR_PTR(-EINVAL));
	expect_nothing_changed(test);
}

static void add_null_desc_returns_einval(struct kunit *test)
{
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_add_desc(test_device(test), NULL),
			    ERR_PTR(-EINVAL));
	expect_nothing_changed(test);
}

static void add_null_resource_returns_einval(struct kunit *test)
{
	KUNIT_EXPECT_PTR_EQ(test,
			    hmm_devmem_add_resource(&managed_ops,
						    test_device(test), NULL),
			    ERR_PTR(-EINVAL));
	expect_nothing_changed(test);
}

/* The struct pages would take eight times as much memory as the system has. */
static void add_without_ram_for_struct_pages_returns_enomem(struct kunit *test)
{
	const struct range limits = mhp_get_pluggable_range(false);
	unsigned long size = 8 * PFN_PHYS(totalram_pages()) *
			     (PAGE_SIZE / sizeof(struct page));
	struct hmm_devmem *devmem;

	if (size > range_len(&limits) / 2)
		size = range_len(&limits) / 2;
	devmem = hmm_devmem_add(&managed_ops, test_device(test), size);
	KUNIT_EXPECT_PTR_EQ(test, devmem, ERR_PTR(-ENOMEM));
	expect_nothing_changed(test);
}

/* There is no free range between two resources. */
static void take_gap(struct kunit *test, resource_size_t start,
		     resource_size_t end)
{
	if (start >= end)
		return;
	KUNIT_ASSERT_NOT_NULL(test, request_mem_region(start, end - start,
						       "hmm_devmem_core"));
	own_region(test, start, end - start);
}

static void add_without_free_range_returns_erange(struct kunit *test)
{
	struct fixture *fixture = test->priv;
	struct resource *res = iomem_resource.child, *next;
	resource_size_t end = iomem_resource.start;

	for (; res; res = next) {
		next = res->sibling;
		take_gap(test, end, res->start);
		end = res->end + 1;
	}
	take_gap(test, end, iomem_resource.end);

	fixture->nr_regions = count_regions();
	KUNIT_EXPECT_PTR_EQ(test,
			    hmm_devmem_add(&managed_ops, test_device(test), SZ_2M),
			    ERR_PTR(-ERANGE));
	expect_nothing_changed(test);
}

static void expect_resource_error(struct kunit *test, struct resource res,
				  int error)
{
	struct hmm_devmem *devmem;

	devmem = hmm_devmem_add_resource(&managed_ops, test_device(test), &res);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(devmem), error);
	hmm_devmem_remove(devmem);
	expect_nothing_changed(test);
}

#define RES(start, size) DEFINE_RES_MEM(start, size)

static void add_resource_empty_returns_enodata(struct kunit *test)
{
	const struct resource *res = get_region(test, TEST_SIZE);

	expect_resource_error(test, RES(res->start, 0), -ENODATA);
}

static void add_resource_backwards_returns_eoverflow(struct kunit *test)
{
	struct resource res = *get_region(test, TEST_SIZE);

	res.end = res.start - SZ_4M - 1;
	expect_resource_error(test, res, -EOVERFLOW);
}

static void add_resource_misaligned_returns_eaddrnotavail(struct kunit *test)
{
	const struct resource *res = get_region(test, 3 * TEST_SIZE);

	expect_resource_error(test, RES(res->start + PAGE_SIZE, TEST_SIZE),
			      -EADDRNOTAVAIL);
	expect_resource_error(test, RES(res->start, TEST_SIZE + PAGE_SIZE),
			      -EADDRNOTAVAIL);
	expect_resource_error(test, RES(res->start, TEST_SIZE - 1),
			      -EADDRNOTAVAIL);
}

static void add_resource_out_of_reach_returns_erange(struct kunit *test)
{
	expect_resource_error(test, RES(BIT_ULL(60), TEST_SIZE), -ERANGE);
}

static void add_resource_over_ram_returns_enxio(struct kunit *test)
{
	phys_addr_t ram = ALIGN_DOWN(virt_to_phys(test->priv), TEST_SIZE);

	expect_resource_error(test, RES(ram, TEST_SIZE), -ENXIO);
}

static void add_resource_over_devmem_returns_ebusy(struct kunit *test)
{
	const unsigned long step = memremap_compat_align();
	struct resource *res = get_region(test, 16 * step);
	struct resource used = RES(res->start + 4 * step, 4 * step);
	struct hmm_devmem *devmem;
	u64 at = res->start;

	devmem = hmm_devmem_add_resource(&managed_ops, test_device(test), &used);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);

	/* The same range, across each end, inside, all around, and its last part. */
	expect_resource_error(test, used, -EBUSY);
	expect_resource_error(test, RES(at + 2 * step, 4 * step), -EBUSY);
	expect_resource_error(test, RES(at + 6 * step, 4 * step), -EBUSY);
	expect_resource_error(test, RES(at + 5 * step, step), -EBUSY);
	expect_resource_error(test, RES(at, 16 * step), -EBUSY);
	expect_resource_error(test, RES(at + 7 * step, step), -EBUSY);
	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
}

static void add_resource_over_private_devmem_returns_ebusy(struct kunit *test)
{
	struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	fixture->nr_regions++;
	expect_resource_error(test, RES(PFN_PHYS(devmem->pfn_first), TEST_SIZE),
			      -EBUSY);
	hmm_devmem_remove(devmem);
}

static void add_resource_beside_devmem_works(struct kunit *test)
{
	struct resource *res = get_region(test, 2 * TEST_SIZE);
	struct resource one = RES(res->start, TEST_SIZE);
	struct resource two = RES(res->start + TEST_SIZE, TEST_SIZE);
	struct hmm_devmem *first, *second;

	first = hmm_devmem_add_resource(&managed_ops, test_device(test), &one);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, first);
	second = hmm_devmem_add_resource(&managed_ops, test_device(test), &two);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, second);
	hmm_devmem_remove(second);
	hmm_devmem_remove(first);
}

static void remove_after_failed_add_ignored(struct kunit *test)
{
	hmm_devmem_remove(hmm_devmem_add(&managed_ops, test_device(test), 0));
	expect_nothing_changed(test);
}

/* Core fails: no struct pages may be left, and the range must be free again. */

/* An errno that no check of the library returns. */
static void *memremap_fails(struct dev_pagemap *pagemap, int nid)
{
	return ERR_PTR(-ENOSPC);
}

static int populate_fails(struct hmm_devmem_pool *pool, unsigned int idx)
{
	return -ENOMEM;
}

/* The first pfn of the next devmem of TEST_SIZE. */
static unsigned long next_pfn(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &minimal_managed_ops, TEST_SIZE);
	unsigned long pfn = devmem->pfn_first;

	hmm_devmem_remove(devmem);
	return pfn;
}

static void expect_add_error(struct kunit *test,
			     const struct hmm_devmem_ops *ops, int error)
{
	struct hmm_devmem *devmem;

	devmem = hmm_devmem_add(ops, test_device(test), TEST_SIZE);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(devmem), error);
	/* If it was added by mistake: its callbacks must not run after the test. */
	hmm_devmem_remove(devmem);
	expect_nothing_changed(test);
}

static void add_when_memremap_fails_leaves_nothing(struct kunit *test)
{
	const unsigned long pfn = next_pfn(test);

	kunit_activate_static_stub(test, hmm_devmem_memremap, memremap_fails);
	expect_add_error(test, &managed_ops, -ENOSPC);
	expect_add_error(test, &classic_ops, -ENOSPC);
	kunit_deactivate_static_stub(test, hmm_devmem_memremap);
	KUNIT_EXPECT_EQ(test, next_pfn(test), pfn);
}

static void add_when_populate_fails_leaves_nothing(struct kunit *test)
{
	const unsigned long pfn = next_pfn(test);

	kunit_activate_static_stub(test, hmm_devmem_pool_populate,
				   populate_fails);
	expect_add_error(test, &managed_ops, -ENOMEM);
	kunit_deactivate_static_stub(test, hmm_devmem_pool_populate);
	KUNIT_EXPECT_EQ(test, next_pfn(test), pfn);
}

static void add_resource_when_core_fails_can_be_repeated(struct kunit *test)
{
	struct resource *res = get_region(test, TEST_SIZE);
	struct hmm_devmem *devmem;

	kunit_activate_static_stub(test, hmm_devmem_memremap, memremap_fails);
	expect_resource_error(test, *res, -ENOSPC);
	kunit_deactivate_static_stub(test, hmm_devmem_memremap);
	kunit_activate_static_stub(test, hmm_devmem_pool_populate,
				   populate_fails);
	expect_resource_error(test, *res, -ENOMEM);
	kunit_deactivate_static_stub(test, hmm_devmem_pool_populate);

	devmem = hmm_devmem_add_resource(&managed_ops, test_device(test), res);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, devmem);
	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
}

/* Add, good input */

static void add_fills_in_fields(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_PTR_EQ(test, devmem->device, test_device(test));
	KUNIT_EXPECT_PTR_EQ(test, devmem->ops, &managed_ops);
	KUNIT_EXPECT_EQ(test, devmem->type, MEMORY_DEVICE_PRIVATE);
	KUNIT_EXPECT_PTR_EQ(test, devmem->owner, devmem);
	KUNIT_EXPECT_NULL(test, devmem->driver_data);
	KUNIT_EXPECT_EQ(test, devmem->pfn_last - devmem->pfn_first,
			TEST_SIZE / PAGE_SIZE);
	KUNIT_EXPECT_LE(test, devmem->resource->start,
			PFN_PHYS(devmem->pfn_first));
	KUNIT_EXPECT_GE(test, devmem->resource->end,
			PFN_PHYS(devmem->pfn_last) - 1);
	KUNIT_EXPECT_FALSE(test, completion_done(&priv(devmem)->idle));
	KUNIT_EXPECT_FALSE(test, percpu_ref_is_dying(&priv(devmem)->ref));
}

static void add_calls_nothing(struct kunit *test)
{
	add(test, &managed_ops, TEST_SIZE);
	expect_events(test, "");
}

static void add_desc_keeps_owner_and_driver_data(struct kunit *test)
{
	struct hmm_devmem_desc desc = PRIVATE_DESC;
	struct hmm_devmem *devmem;

	desc.ops = &classic_ops;
	desc.owner = &desc;
	desc.driver_data = test;
	devmem = hmm_devmem_add_desc(test_device(test), &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	KUNIT_EXPECT_PTR_EQ(test, devmem->owner, &desc);
	KUNIT_EXPECT_PTR_EQ(test, devmem->driver_data, test);
	KUNIT_EXPECT_PTR_EQ(test, page_pgmap(pfn_to_page(devmem->pfn_first))->owner,
			    &desc);
	hmm_devmem_remove(devmem);
}

static void add_resource_uses_the_resource(struct kunit *test)
{
	struct resource *res = get_region(test, TEST_SIZE);
	struct hmm_devmem *devmem;

	devmem = hmm_devmem_add_resource(&classic_ops, test_device(test), res);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	KUNIT_EXPECT_EQ(test, devmem->type, MEMORY_DEVICE_COHERENT);
	KUNIT_EXPECT_PTR_EQ(test, devmem->resource, res);
	KUNIT_EXPECT_EQ(test, PFN_PHYS(devmem->pfn_first), res->start);
	KUNIT_EXPECT_EQ(test, PFN_PHYS(devmem->pfn_last), res->end + 1);
	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
}

static void add_resource_again_after_remove_works(struct kunit *test)
{
	struct resource *res = get_region(test, TEST_SIZE);
	struct hmm_devmem *devmem;
	unsigned int round;

	for (round = 0; round < 3; round++) {
		devmem = hmm_devmem_add_resource(&managed_ops,
						 test_device(test), res);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
		hmm_devmem_remove(devmem);
	}
	expect_events(test, "kckckc");
}

static void add_resource_without_fault_is_classic(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = { .free = note_free };
	struct resource *res = get_region(test, TEST_SIZE);
	struct hmm_devmem *devmem;

	devmem = hmm_devmem_add_resource(&ops, test_device(test), res);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, devmem);
	hmm_devmem_remove(devmem);
}

struct good_size {
	const char *name;
	unsigned long size;
	unsigned long nr_pages;
};

static const struct good_size good_sizes[] = {
	{ "one byte", 1, 1 },
	{ "one page", PAGE_SIZE, 1 },
	{ "one page and a byte", PAGE_SIZE + 1, 2 },
	{ "a block less a page", SZ_2M - PAGE_SIZE, SZ_2M / PAGE_SIZE - 1 },
	{ "a block and a byte", SZ_2M + 1, SZ_2M / PAGE_SIZE + 1 },
	{ "a section and a page", SZ_128M + PAGE_SIZE, SZ_128M / PAGE_SIZE + 1 },
};

KUNIT_ARRAY_PARAM_DESC(good_size, good_sizes, name);

static void add_size_is_rounded_up_to_pages(struct kunit *test)
{
	const struct good_size *good = test->param_value;
	struct hmm_devmem *devmem = add(test, &managed_ops, good->size);

	KUNIT_EXPECT_EQ(test, devmem->pfn_last - devmem->pfn_first,
			good->nr_pages);
}

/* Exactly as many pages can be allocated as there are. */
static void alloc_folio_until_exhausted_gives_all_pages(struct kunit *test)
{
	const struct good_size *good = test->param_value;
	struct hmm_devmem *devmem = add(test, &managed_ops, good->size);
	struct folio *folio;
	unsigned long nr = 0, pfn;

	while ((folio = hmm_devmem_alloc_folio(devmem, 0, NULL))) {
		nr += hmm_devmem_from_page(&folio->page) == devmem;
		folio_unlock(folio);
		if (nr > good->nr_pages)
			break;
	}
	KUNIT_EXPECT_EQ(test, nr, good->nr_pages);
	for (pfn = devmem->pfn_first; pfn < devmem->pfn_last; pfn++)
		if (page_ref_count(pfn_to_page(pfn)))
			folio_put(page_folio(pfn_to_page(pfn)));
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
}

static const u64 some_bad_pages[] = {
	0, 3 * PAGE_SIZE + 17, DESC_SIZE - 1, 3 * PAGE_SIZE, 700 * PAGE_SIZE,
};

static const struct hmm_devmem_desc bad_pages_desc = {
	.ops = &managed_ops,
	.size = DESC_SIZE,
	.type = MEMORY_DEVICE_PRIVATE,
	.nid = NUMA_NO_NODE,
	.bad_pages = some_bad_pages,
	.nr_bad_pages = ARRAY_SIZE(some_bad_pages),
};

/* Pages in &hmm_devmem_desc.bad_pages are never handed out, with LAZY or without. */
static void add_with_bad_pages_hands_out_others(struct kunit *test)
{
	struct hmm_devmem_desc desc = bad_pages_desc;
	struct hmm_devmem_pool_stats stats;
	struct folio *folio, **folios;
	struct hmm_devmem *devmem;
	unsigned int lazy;
	u64 offset, nr;

	folios = kunit_kcalloc(test, DESC_SIZE >> PAGE_SHIFT, sizeof(*folios),
			       GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, folios);
	for (lazy = 0; lazy < 2; lazy++) {
		desc.flags = lazy ? HMM_DEVMEM_LAZY : 0;
		devmem = hmm_devmem_add_desc(test_device(test), &desc);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
		for (nr = 0; (folio = hmm_devmem_alloc_folio(devmem, 0, NULL)); nr++) {
			offset = hmm_devmem_page_offset(&folio->page) >> PAGE_SHIFT;
			KUNIT_EXPECT_NE(test, offset, 0);
			KUNIT_EXPECT_NE(test, offset, 3);
			KUNIT_EXPECT_NE(test, offset, 700);
			KUNIT_EXPECT_NE(test, offset, (DESC_SIZE >> PAGE_SHIFT) - 1);
			folios[nr] = folio;
		}
		KUNIT_EXPECT_EQ(test, nr, (DESC_SIZE >> PAGE_SHIFT) - 4);
		hmm_devmem_pool_get_stats(priv(devmem)->pool, &stats);
		KUNIT_EXPECT_EQ(test, stats.retired, 4);
		while (nr--)
			release(folios[nr]);
		hmm_devmem_remove(devmem);
	}
}

static void add_with_wrong_bad_pages_returns_einval(struct kunit *test)
{
	const u64 beyond[] = { 0, DESC_SIZE };
	struct hmm_devmem_desc desc = bad_pages_desc;

	desc.bad_pages = NULL;
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_add_desc(test_device(test), &desc),
			    ERR_PTR(-EINVAL));
	desc.bad_pages = beyond;
	desc.nr_bad_pages = ARRAY_SIZE(beyond);
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_add_desc(test_device(test), &desc),
			    ERR_PTR(-EINVAL));
	desc.ops = &classic_ops;
	desc.bad_pages = some_bad_pages;
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_add_desc(test_device(test), &desc),
			    ERR_PTR(-EINVAL));
	expect_nothing_changed(test);
}

static struct kunit_case core_cases[] = {
	KUNIT_CASE_PARAM(add_bad_desc_returns_error, bad_desc_gen_params),
	KUNIT_CASE(add_with_bad_pages_hands_out_others),
	KUNIT_CASE(add_with_wrong_bad_pages_returns_einval),
	KUNIT_CASE(add_null_device_returns_enodev),
	KUNIT_CASE(add_null_ops_returns_einval),
	KUNIT_CASE(add_null_desc_returns_einval),
	KUNIT_CASE(add_null_resource_returns_einval),
	KUNIT_CASE(add_without_ram_for_struct_pages_returns_enomem),
	KUNIT_CASE(add_without_free_range_returns_erange),
	KUNIT_CASE(add_resource_empty_returns_enodata),
	KUNIT_CASE(add_resource_backwards_returns_eoverflow),
	KUNIT_CASE(add_resource_misaligned_returns_eaddrnotavail),
	KUNIT_CASE(add_resource_out_of_reach_returns_erange),
	KUNIT_CASE(add_resource_over_ram_returns_enxio),
	KUNIT_CASE(add_resource_over_devmem_returns_ebusy),
	KUNIT_CASE(add_resource_over_private_devmem_returns_ebusy),
	KUNIT_CASE(add_resource_beside_devmem_works),
	KUNIT_CASE(remove_after_failed_add_ignored),
	KUNIT_CASE(add_when_memremap_fails_leaves_nothing),
	KUNIT_CASE(add_when_populate_fails_leaves_nothing),
	KUNIT_CASE(add_resource_when_core_fails_can_be_repeated),
	KUNIT_CASE(add_fills_in_fields),
	KUNIT_CASE(add_calls_nothing),
	KUNIT_CASE(add_desc_keeps_owner_and_driver_data),
	KUNIT_CASE(add_resource_uses_the_resource),
	KUNIT_CASE(add_resource_again_after_remove_works),
	KUNIT_CASE(add_resource_without_fault_is_classic),
	KUNIT_CASE_PARAM(add_size_is_rounded_up_to_pages, good_size_gen_params),
	KUNIT_CASE_PARAM(alloc_folio_until_exhausted_gives_all_pages,
			 good_size_gen_params),
	{ }
};

static struct kunit_suite core_suite = {
	.name = "hmm_devmem_core",
	.init = fixture_init,
	.test_cases = core_cases,
};

kunit_test_suite(core_suite);

MODULE_DESCRIPTION("KUnit tests of HMM device memory");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_LICENSE("GPL");
