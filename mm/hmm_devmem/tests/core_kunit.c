// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_core: adding device memory, its pages, removal.
 */

#include <kunit/device.h>
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "../internal.h"

#define TEST_SIZE	SZ_4M

/* What the library called, in order: k(ill), c(leanup), f(ree). */
static char events[64];
static unsigned int nr_events;
static DEFINE_SPINLOCK(events_lock);

static struct page *freed_page;
static unsigned int freed_order;
static struct folio *kill_got;

static void note(char event)
{
	guard(spinlock_irqsave)(&events_lock);
	if (nr_events < sizeof(events) - 1)
		events[nr_events++] = event;
}

static unsigned int count_events(char event)
{
	unsigned int i, nr = 0;

	for (i = 0; i < nr_events; i++)
		nr += events[i] == event;
	return nr;
}

/* Callbacks */

static void note_free(struct hmm_devmem *devmem, struct page *page)
{
	freed_page = page;
	freed_order = folio_order(page_folio(page));
	note('f');
}

static void note_kill(struct hmm_devmem *devmem)
{
	note('k');
}

static void note_cleanup(struct hmm_devmem *devmem)
{
	note('c');
}

/* No process ever maps a page here, so nothing is to be moved. */
static vm_fault_t no_fault(struct hmm_devmem *devmem, struct vm_area_struct *vma,
			   unsigned long addr, const struct page *page,
			   unsigned int flags, pmd_t *pmdp)
{
	note('!');
	return VM_FAULT_SIGBUS;
}

static int no_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	note('!');
	return -EIO;
}

static const struct hmm_devmem_ops managed_ops = {
	.free = note_free,
	.kill = note_kill,
	.cleanup = note_cleanup,
	.copy_to_device = no_copy,
	.copy_to_ram = no_copy,
};

static const struct hmm_devmem_ops minimal_managed_ops = {
	.copy_to_device = no_copy,
	.copy_to_ram = no_copy,
};

static int no_work(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	return 0;
}

static const struct hmm_devmem_ops copying_ops = {
	.free = note_free,
	.kill = note_kill,
	.cleanup = note_cleanup,
	.copy_to_device = no_work,
	.copy_to_ram = no_work,
};

static const struct hmm_devmem_ops classic_ops = {
	.free = note_free,
	.fault = no_fault,
	.kill = note_kill,
	.cleanup = note_cleanup,
};

static const struct hmm_devmem_ops minimal_classic_ops = {
	.free = note_free,
	.fault = no_fault,
};

/* Fixture */

static unsigned int count_regions(void)
{
	const struct resource *res;
	unsigned int nr = 0;

	for (res = iomem_resource.child; res; res = res->sibling)
		nr++;
	return nr;
}

struct fixture {
	struct device *device;
	unsigned int nr_regions;
};

static int core_init(struct kunit *test)
{
	struct fixture *fixture = kunit_kzalloc(test, sizeof(*fixture), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, fixture);
	test->priv = fixture;
	memset(events, 0, sizeof(events));
	nr_events = 0;
	freed_page = NULL;
	kill_got = NULL;
	fixture->device = kunit_device_register(test, "hmm_devmem");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, fixture->device);
	fixture->nr_regions = count_regions();
	return 0;
}

static struct device *test_device(struct kunit *test)
{
	return ((struct fixture *)test->priv)->device;
}

/* As if nothing had happened: no range taken, no callback called. */
static void expect_nothing_changed(struct kunit *test)
{
	const struct fixture *fixture = test->priv;

	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
	KUNIT_EXPECT_STREQ(test, events, "");
}

static struct hmm_devmem *add(struct kunit *test,
			      const struct hmm_devmem_ops *ops, unsigned long size)
{
	struct hmm_devmem *devmem = hmm_devmem_add(ops, test_device(test), size);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

static struct folio *alloc(struct kunit *test, struct hmm_devmem *devmem,
			   unsigned int order, struct hmm_devmem_context *ctx)
{
	struct folio *folio = hmm_devmem_alloc_folio(devmem, order, ctx);

	KUNIT_ASSERT_NOT_NULL(test, folio);
	return folio;
}

static void release(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

static u64 pages_used(struct hmm_devmem *devmem)
{
	struct hmm_devmem_stats stats;

	hmm_devmem_get_stats(devmem, &stats);
	return stats.allocated - stats.freed;
}

/* Add, bad input */

struct bad_desc {
	const char *name;
	struct hmm_devmem_ops ops;
	struct hmm_devmem_desc desc;
	int error;
};

#define DESC(_size, _type, ...)						\
	{ .size = (_size), .type = (_type), .nid = NUMA_NO_NODE, ##__VA_ARGS__ }
#define PRIVATE_DESC	DESC(TEST_SIZE, MEMORY_DEVICE_PRIVATE)
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
	{ "type 0", MANAGED_OPS, DESC(TEST_SIZE, 0), -EOPNOTSUPP },
	{ "type of DAX", MANAGED_OPS, DESC(TEST_SIZE, MEMORY_DEVICE_FS_DAX),
	  -EOPNOTSUPP },
	{ "type of P2PDMA", MANAGED_OPS, DESC(TEST_SIZE, MEMORY_DEVICE_PCI_P2PDMA),
	  -EOPNOTSUPP },
	{ "coherent without resource", MANAGED_OPS,
	  DESC(TEST_SIZE, MEMORY_DEVICE_COHERENT), -EINVAL },
	{ "private with resource", MANAGED_OPS,
	  DESC(TEST_SIZE, MEMORY_DEVICE_PRIVATE, .res = &some_resource), -EINVAL },
	{ "negative node", MANAGED_OPS,
	  { .size = TEST_SIZE, .type = MEMORY_DEVICE_PRIVATE, .nid = -2 }, -EINVAL },
	{ "node too large", MANAGED_OPS,
	  { .size = TEST_SIZE, .type = MEMORY_DEVICE_PRIVATE, .nid = MAX_NUMNODES },
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
	/* The ops are about to go. */
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

/* Struct pages for eight times more than there is system memory to hold them. */
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

/* Resources that a test has; given back when it ends. */
struct region {
	resource_size_t start;
	resource_size_t size;
};

static void release_region_action(void *data)
{
	struct region *region = data;

	release_mem_region(region->start, region->size);
}

static void own_region(struct kunit *test, resource_size_t start,
		       resource_size_t size)
{
	struct region *region = kunit_kzalloc(test, sizeof(*region), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, region);
	*region = (struct region) { start, size };
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, release_region_action,
						  region));
}

/* Physical addresses that nothing answers to; nothing here accesses them. */
static struct resource *get_region(struct kunit *test, unsigned long size)
{
	struct fixture *fixture = test->priv;
	struct resource *res;

	res = request_free_mem_region(&iomem_resource, size, "hmm_devmem_core");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, res);
	own_region(test, res->start, resource_size(res));
	fixture->nr_regions++;
	return res;
}

/* Between two resources all addresses are taken. */
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

	/* The same, across each end, inside, all around, its last part. */
	expect_resource_error(test, used, -EBUSY);
	expect_resource_error(test, RES(at + 2 * step, 4 * step), -EBUSY);
	expect_resource_error(test, RES(at + 6 * step, 4 * step), -EBUSY);
	expect_resource_error(test, RES(at + 5 * step, step), -EBUSY);
	expect_resource_error(test, RES(at, 16 * step), -EBUSY);
	expect_resource_error(test, RES(at + 7 * step, step), -EBUSY);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_STREQ(test, events, "kc");
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
	KUNIT_EXPECT_FALSE(test, completion_done(&devmem->completion));
	KUNIT_EXPECT_FALSE(test, percpu_ref_is_dying(&devmem->ref));
}

static void add_calls_nothing(struct kunit *test)
{
	add(test, &managed_ops, TEST_SIZE);
	KUNIT_EXPECT_STREQ(test, events, "");
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
	KUNIT_EXPECT_STREQ(test, events, "kc");
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
	KUNIT_EXPECT_STREQ(test, events, "kckckc");
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

/* All pages there are can be allocated, and no more. */
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

	/* Has a struct page, because those come for 2 MiB at a time. */
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

static const struct order_param {
	const char *name;
	unsigned int order;
} folio_orders[] = {
	{ "one page", 0 },
	{ "four pages", 2 },
	{ "a block", HMM_DEVMEM_BLOCK_ORDER },
};

KUNIT_ARRAY_PARAM_DESC(folio_order, folio_orders, name);

static void alloc_folio_is_locked_with_one_reference(struct kunit *test)
{
	const unsigned int order =
		((const struct order_param *)test->param_value)->order;
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
	const unsigned int order =
		((const struct order_param *)test->param_value)->order;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, order, NULL);

	KUNIT_EXPECT_EQ(test, pages_used(devmem), 1 << order);
	KUNIT_EXPECT_STREQ(test, events, "");
	release(folio);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
	KUNIT_EXPECT_STREQ(test, events, "f");
	KUNIT_EXPECT_PTR_EQ(test, freed_page, &folio->page);
	KUNIT_EXPECT_EQ(test, freed_order, order);
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
	struct hmm_devmem *devmem = add(test, &managed_ops, SZ_16M);

	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem,
						       HMM_DEVMEM_BLOCK_ORDER + 1,
						       NULL));
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, UINT_MAX, NULL));
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
}

static void alloc_folio_of_classic_returns_null(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);

	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
}

static void alloc_folio_large_after_small_ones_works(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, SZ_2M);
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

struct counted_context {
	struct hmm_devmem_context ctx;
	unsigned int released;
};

static void count_release(struct hmm_devmem_context *ctx)
{
	container_of(ctx, struct counted_context, ctx)->released++;
}

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

/* Pages of a classic devmem, which its driver initialises itself */

static struct folio *init_classic(struct hmm_devmem *devmem, unsigned long index,
				  unsigned int order)
{
	struct page *page = pfn_to_page(devmem->pfn_first + index);
	struct folio *folio = (struct folio *)page;

	zone_device_folio_init(folio, page_pgmap(page), order);
	return folio;
}

static void put_classic_page_calls_free(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, 7, 0);

	release(folio);
	KUNIT_EXPECT_STREQ(test, events, "f");
	KUNIT_EXPECT_PTR_EQ(test, freed_page, pfn_to_page(devmem->pfn_first + 7));
}

static void put_classic_folio_calls_free_once(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, HMM_DEVMEM_BLOCK_NR,
					   HMM_DEVMEM_BLOCK_ORDER);

	release(folio);
	KUNIT_EXPECT_STREQ(test, events, "f");
	KUNIT_EXPECT_PTR_EQ(test, freed_page, &folio->page);
	KUNIT_EXPECT_EQ(test, freed_order, HMM_DEVMEM_BLOCK_ORDER);
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
						  TEST_SIZE / PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_evict(devmem, 0, 0));
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_evict(devmem, 0, ULONG_MAX));
	KUNIT_EXPECT_STREQ(test, events, "");
}

static void evict_overflowing_range_returns_einval(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_devmem_evict(devmem, 2, ULONG_MAX));
}

static void evict_classic_returns_eopnotsupp(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			hmm_devmem_evict(devmem, devmem->pfn_first, 1));
}

static void evict_locked_folio_leaves_it(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	KUNIT_EXPECT_EQ(test, 1, hmm_devmem_evict(devmem, devmem->pfn_first,
						  TEST_SIZE / PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	release(folio);
}

/* Removal */

static void remove_calls_kill_then_cleanup(struct kunit *test)
{
	hmm_devmem_remove(add(test, &managed_ops, TEST_SIZE));
	KUNIT_EXPECT_STREQ(test, events, "kc");
}

static void remove_classic_calls_kill_then_cleanup(struct kunit *test)
{
	hmm_devmem_remove(add(test, &classic_ops, TEST_SIZE));
	KUNIT_EXPECT_STREQ(test, events, "kc");
}

static void remove_without_hooks_works(struct kunit *test)
{
	hmm_devmem_remove(add(test, &minimal_managed_ops, TEST_SIZE));
	hmm_devmem_remove(add(test, &minimal_classic_ops, TEST_SIZE));
	expect_nothing_changed(test);
}

static void remove_gives_range_back(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions + 1);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
}

static void remove_null_ignored(struct kunit *test)
{
	hmm_devmem_remove(NULL);
	hmm_devmem_remove(ERR_PTR(-ENOMEM));
	expect_nothing_changed(test);
}

static void remove_twice_happens_once(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	hmm_devmem_remove(devmem);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_STREQ(test, events, "kc");
}

static void detach_after_remove_does_nothing(struct kunit *test)
{
	hmm_devmem_remove(add(test, &managed_ops, TEST_SIZE));
	kunit_device_unregister(test, test_device(test));
	KUNIT_EXPECT_STREQ(test, events, "kc");
}

static void detach_removes(struct kunit *test)
{
	const struct fixture *fixture = test->priv;

	add(test, &managed_ops, TEST_SIZE);
	kunit_device_unregister(test, test_device(test));
	KUNIT_EXPECT_STREQ(test, events, "kc");
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
}

static void remove_after_detach_does_nothing(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	kunit_device_unregister(test, test_device(test));
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_STREQ(test, events, "kc");
}

static void kill_allocates(struct hmm_devmem *devmem)
{
	kill_got = hmm_devmem_alloc_folio(devmem, 0, NULL);
	note('k');
}

static void alloc_folio_in_kill_returns_null(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.kill = kill_allocates,
		.copy_to_device = no_copy,
		.copy_to_ram = no_copy,
	};

	hmm_devmem_remove(add(test, &ops, TEST_SIZE));
	KUNIT_EXPECT_STREQ(test, events, "k");
	KUNIT_EXPECT_NULL(test, kill_got);
}

/* A classic driver frees its last page in kill. */
static struct folio *kill_puts;

static void kill_frees(struct hmm_devmem *devmem)
{
	note('k');
	release(kill_puts);
}

static void remove_classic_frees_in_kill(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.free = note_free,
		.fault = no_fault,
		.kill = kill_frees,
		.cleanup = note_cleanup,
	};
	struct hmm_devmem *devmem = add(test, &ops, TEST_SIZE);

	kill_puts = init_classic(devmem, 3, 0);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_STREQ(test, events, "kfc");
}

/* Zombies: pages that somebody has for longer than the driver is there */

static void wait_for_regions(struct kunit *test, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < 100 && count_regions() != nr; i++)
		msleep(50);
	KUNIT_EXPECT_EQ(test, count_regions(), nr);
}

/* The driver is gone when the page is freed: its ops are not to be looked at. */
static void remove_with_page_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct counted_context counted = { };
	struct hmm_devmem_ops *ops;
	struct folio *folio;
	struct hmm_devmem *devmem;

	ops = kunit_kzalloc(test, sizeof(*ops), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ops);
	*ops = managed_ops;
	devmem = add(test, ops, TEST_SIZE);
	hmm_devmem_context_init(&counted.ctx, count_release);
	folio = alloc(test, devmem, 0, &counted.ctx);
	hmm_devmem_context_put(&counted.ctx);

	hmm_devmem_remove(devmem);
	kunit_kfree(test, ops);
	KUNIT_EXPECT_STREQ(test, events, "kc");
	KUNIT_EXPECT_EQ(test, counted.released, 1);
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions + 1);

	release(folio);
	KUNIT_EXPECT_STREQ(test, events, "kc");
	wait_for_regions(test, fixture->nr_regions);
}

/* Core moves a page that is mapped nowhere, and that does not free it. */
static void remove_with_movable_page_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &copying_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	folio_unlock(folio);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_STREQ(test, events, "kc");
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_FALSE(test, folio_test_locked(folio));
	folio_put(folio);
	wait_for_regions(test, fixture->nr_regions);
}

static void remove_with_large_folio_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);

	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_STREQ(test, events, "kc");
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	release(folio);
	wait_for_regions(test, fixture->nr_regions);
}

static void remove_classic_with_page_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, 11, 0);

	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_STREQ(test, events, "kc");
	release(folio);
	KUNIT_EXPECT_STREQ(test, events, "kc");
	wait_for_regions(test, fixture->nr_regions);
}

static void add_beside_zombie_works(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	hmm_devmem_remove(devmem);
	devmem = add(test, &managed_ops, TEST_SIZE);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_has_pfn(devmem, folio_pfn(folio)));
	release(folio);
	hmm_devmem_remove(devmem);
	wait_for_regions(test, fixture->nr_regions);
}

/* Many */

static void add_after_remove_gets_range_again(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	const unsigned long pfn = devmem->pfn_first;
	unsigned int i;

	for (i = 0; i < 200; i++) {
		hmm_devmem_remove(devmem);
		devmem = add(test, i % 2 ? &managed_ops : &classic_ops, TEST_SIZE);
		KUNIT_ASSERT_EQ(test, devmem->pfn_first, pfn);
	}
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
}

static void add_twice_on_one_device_works(struct kunit *test)
{
	struct hmm_devmem *one = add(test, &managed_ops, TEST_SIZE);
	struct hmm_devmem *two = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_TRUE(test, one->pfn_last <= two->pfn_first ||
			  two->pfn_last <= one->pfn_first);
	hmm_devmem_remove(one);
	KUNIT_EXPECT_STREQ(test, events, "kc");
	release(alloc(test, two, 0, NULL));
	kunit_device_unregister(test, test_device(test));
	KUNIT_EXPECT_STREQ(test, events, "kcfkc");
}

#define NR_DEVICES	10

struct adder {
	struct work_struct work;
	struct device *device;
	struct hmm_devmem *devmem;
};

static void adder_add(struct work_struct *work)
{
	struct adder *adder = container_of(work, struct adder, work);

	adder->devmem = hmm_devmem_add(&managed_ops, adder->device, TEST_SIZE);
}

static void adder_remove(struct work_struct *work)
{
	hmm_devmem_remove(container_of(work, struct adder, work)->devmem);
}

static struct adder *create_adders(struct kunit *test)
{
	struct adder *adders;
	unsigned int i;
	char name[16];

	adders = kunit_kcalloc(test, NR_DEVICES, sizeof(*adders), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, adders);
	for (i = 0; i < NR_DEVICES; i++) {
		snprintf(name, sizeof(name), "adder%u", i);
		adders[i].device = kunit_device_register(test, name);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, adders[i].device);
	}
	return adders;
}

static void run_adders(struct adder *adders, work_func_t func)
{
	unsigned int i;

	for (i = 0; i < NR_DEVICES; i++) {
		INIT_WORK(&adders[i].work, func);
		queue_work(system_unbound_wq, &adders[i].work);
	}
	for (i = 0; i < NR_DEVICES; i++)
		flush_work(&adders[i].work);
}

static void expect_disjoint(struct kunit *test, const struct adder *adders)
{
	const struct hmm_devmem *one, *two;
	unsigned int i, j;

	for (i = 0; i < NR_DEVICES; i++) {
		one = adders[i].devmem;
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, one);
		for (j = 0; j < i; j++) {
			two = adders[j].devmem;
			KUNIT_EXPECT_TRUE(test, one->pfn_last <= two->pfn_first ||
					  two->pfn_last <= one->pfn_first);
		}
	}
}

static void add_ten_devices_at_once_works(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct adder *adders = create_adders(test);
	unsigned int round;

	for (round = 0; round < 3; round++) {
		run_adders(adders, adder_add);
		expect_disjoint(test, adders);
		KUNIT_EXPECT_EQ(test, count_regions(),
				fixture->nr_regions + NR_DEVICES);
		run_adders(adders, adder_remove);
		KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
	}
	KUNIT_EXPECT_EQ(test, count_events('k'), 3 * NR_DEVICES);
	KUNIT_EXPECT_EQ(test, count_events('c'), 3 * NR_DEVICES);
}

static void detach_ten_devices_removes_each_once(struct kunit *test)
{
	struct adder *adders = create_adders(test);
	unsigned int i;

	run_adders(adders, adder_add);
	expect_disjoint(test, adders);
	for (i = 0; i < NR_DEVICES; i++)
		kunit_device_unregister(test, adders[i].device);
	KUNIT_EXPECT_EQ(test, count_events('k'), NR_DEVICES);
	KUNIT_EXPECT_EQ(test, count_events('c'), NR_DEVICES);
}

/* All at once remove the same one. */
static void remove_concurrently_happens_once(struct kunit *test)
{
	struct adder *adders = create_adders(test);
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	unsigned int i;

	for (i = 0; i < NR_DEVICES; i++)
		adders[i].devmem = devmem;
	run_adders(adders, adder_remove);
	KUNIT_EXPECT_STREQ(test, events, "kc");
}

#define FOLIO_CASE(name) KUNIT_CASE_PARAM(name, folio_order_gen_params)

static struct kunit_case core_cases[] = {
	KUNIT_CASE_PARAM(add_bad_desc_returns_error, bad_desc_gen_params),
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
	KUNIT_CASE(add_fills_in_fields),
	KUNIT_CASE(add_calls_nothing),
	KUNIT_CASE(add_desc_keeps_owner_and_driver_data),
	KUNIT_CASE(add_resource_uses_the_resource),
	KUNIT_CASE(add_resource_again_after_remove_works),
	KUNIT_CASE(add_resource_without_fault_is_classic),
	KUNIT_CASE_PARAM(add_size_is_rounded_up_to_pages, good_size_gen_params),
	KUNIT_CASE_PARAM(alloc_folio_until_exhausted_gives_all_pages,
			 good_size_gen_params),
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
	KUNIT_CASE(remove_calls_kill_then_cleanup),
	KUNIT_CASE(remove_classic_calls_kill_then_cleanup),
	KUNIT_CASE(remove_without_hooks_works),
	KUNIT_CASE(remove_gives_range_back),
	KUNIT_CASE(remove_null_ignored),
	KUNIT_CASE(remove_twice_happens_once),
	KUNIT_CASE(detach_after_remove_does_nothing),
	KUNIT_CASE(detach_removes),
	KUNIT_CASE(remove_after_detach_does_nothing),
	KUNIT_CASE(alloc_folio_in_kill_returns_null),
	KUNIT_CASE(remove_classic_frees_in_kill),
	KUNIT_CASE_SLOW(remove_with_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_with_movable_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_with_large_folio_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_classic_with_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(add_beside_zombie_works),
	KUNIT_CASE_SLOW(add_after_remove_gets_range_again),
	KUNIT_CASE(add_twice_on_one_device_works),
	KUNIT_CASE_SLOW(add_ten_devices_at_once_works),
	KUNIT_CASE(detach_ten_devices_removes_each_once),
	KUNIT_CASE(remove_concurrently_happens_once),
	{ }
};

static struct kunit_suite core_suite = {
	.name = "hmm_devmem_core",
	.init = core_init,
	.test_cases = core_cases,
};

kunit_test_suite(core_suite);

MODULE_DESCRIPTION("KUnit tests of HMM device memory");
MODULE_LICENSE("GPL");
