// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_lazy: struct pages that are created and removed with the
 * use of pages.
 */

#include <kunit/device.h>
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/percpu-refcount.h>
#include <linux/rwsem.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>
#include <linux/workqueue.h>

#include "../devmem.h"
#include "../pool.h"
#include "../segment.h"
#include "giver_test.h"
#include "wait_test.h"

/* Three segments on x86, the last one half as large. */
#define SEGMENT_SIZE	((unsigned long)PAGES_PER_SECTION << PAGE_SHIFT)
#define TEST_SIZE	(2 * SEGMENT_SIZE + SEGMENT_SIZE / 2)
#define BLOCK_BYTES	((unsigned long)HMM_DEVMEM_BLOCK_NR << PAGE_SHIFT)
#define NR_THREADS	4
#define NR_ALLOCATIONS	100000

static int no_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	return -EIO;
}

static const struct hmm_devmem_ops managed_ops = {
	.copy_to_device = no_copy,
	.copy_to_ram = no_copy,
};

static void no_free(struct hmm_devmem *devmem, struct page *page)
{
}

static vm_fault_t no_fault(struct hmm_devmem *devmem, struct vm_area_struct *vma,
			   unsigned long addr, const struct page *page,
			   unsigned int flags, pmd_t *pmdp)
{
	return VM_FAULT_SIGBUS;
}

static const struct hmm_devmem_ops classic_ops = {
	.free = no_free,
	.fault = no_fault,
};

static int lazy_init(struct kunit *test)
{
	test->priv = kunit_device_register(test, "hmm_devmem_lazy");
	return PTR_ERR_OR_ZERO(test->priv);
}

static struct hmm_devmem *add_lazy(struct kunit *test, unsigned long size)
{
	const struct hmm_devmem_desc desc = {
		.ops = &managed_ops,
		.size = size,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = HMM_DEVMEM_LAZY,
		.nid = NUMA_NO_NODE,
	};
	struct hmm_devmem *devmem = hmm_devmem_add_desc(test->priv, &desc);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

static void free_folio(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

/* Allocate blocks until there are no more. Returns how many there are in @folios. */
static unsigned long take_all_blocks(struct kunit *test,
				     struct hmm_devmem *devmem,
				     struct folio ***folios)
{
	const unsigned long max = (devmem->pfn_last - devmem->pfn_first) /
				  HMM_DEVMEM_BLOCK_NR;
	unsigned long nr;

	*folios = kunit_kcalloc(test, max + 1, sizeof(**folios), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, *folios);
	for (nr = 0; nr <= max; nr++) {
		(*folios)[nr] = hmm_devmem_alloc_folio(devmem,
						       HMM_DEVMEM_BLOCK_ORDER,
						       NULL);
		if (!(*folios)[nr])
			break;
	}
	return nr;
}

static void free_blocks(struct folio **folios, unsigned long nr)
{
	while (nr)
		free_folio(folios[--nr]);
}

static bool wait_for_populated(struct hmm_devmem *devmem, unsigned int nr)
{
	return soon(READ_ONCE(priv(devmem)->nr_populated) == nr);
}

static void add_creates_no_struct_pages(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_segments, 3);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, devmem->pfn_first));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, devmem->pfn_last - 1));
	KUNIT_EXPECT_EQ(test, devmem->pfn_last - devmem->pfn_first,
			TEST_SIZE >> PAGE_SHIFT);
	hmm_devmem_remove(devmem);
}

/* Struct pages for all of this would take more memory than the system has. */
static void add_larger_than_memory_works(struct kunit *test)
{
	const unsigned long size = ALIGN(64 * PFN_PHYS(totalram_pages()),
					 SEGMENT_SIZE);
	struct hmm_devmem *devmem;
	struct folio *folio;

	devmem = hmm_devmem_add(&managed_ops, test->priv, size);
	KUNIT_EXPECT_PTR_EQ(test, (void *)devmem, ERR_PTR(-ENOMEM));

	devmem = add_lazy(test, size);
	folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
	KUNIT_EXPECT_NOT_NULL(test, folio);
	if (folio)
		free_folio(folio);
	hmm_devmem_remove(devmem);
}

static void first_allocation_populates_one_segment(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct folio *folio = hmm_devmem_alloc_folio(devmem, 0, NULL);

	KUNIT_ASSERT_NOT_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 1);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pfn_populated(devmem, folio_pfn(folio)));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, devmem->pfn_last - 1));
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_from_page(&folio->page), devmem);
	KUNIT_EXPECT_EQ(test, hmm_devmem_page_offset(&folio->page),
			PFN_PHYS(folio_pfn(folio) - devmem->pfn_first));
	free_folio(folio);
	hmm_devmem_remove(devmem);
}

static void every_block_can_be_had(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct folio **folios;
	unsigned long nr;

	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_EXPECT_EQ(test, nr, TEST_SIZE / BLOCK_BYTES);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 3);
	free_blocks(folios, nr);

	/* Pages that were freed can be allocated again. */
	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_EXPECT_EQ(test, nr, TEST_SIZE / BLOCK_BYTES);
	free_blocks(folios, nr);
	hmm_devmem_remove(devmem);
}

static void every_page_can_be_had(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, SEGMENT_SIZE + BLOCK_BYTES);
	struct folio *folio, *list = NULL;
	unsigned long nr = 0;

	/* The pages are not mapped, so their context word can serve as a link. */
	while ((folio = hmm_devmem_alloc_folio(devmem, 0, NULL))) {
		folio->page.zone_device_data = list;
		list = folio;
		nr++;
	}
	KUNIT_EXPECT_EQ(test, nr, (SEGMENT_SIZE + BLOCK_BYTES) >> PAGE_SHIFT);
	while (list) {
		folio = list;
		list = folio->page.zone_device_data;
		folio->page.zone_device_data = NULL;
		free_folio(folio);
	}
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_used(priv(devmem)->pool), 0);
	hmm_devmem_remove(devmem);
}

static void empty_segments_are_given_back(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct folio **folios, *folio;
	unsigned long nr;

	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 3);
	/* Free all blocks but one, which keeps its segment. */
	free_blocks(folios + 1, nr - 1);
	KUNIT_EXPECT_TRUE(test, wait_for_populated(devmem, 1));
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pfn_populated(devmem, folio_pfn(folios[0])));
	free_folio(folios[0]);
	KUNIT_EXPECT_TRUE(test, wait_for_populated(devmem, 0));

	/* An allocation creates a segment again. */
	folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
	KUNIT_EXPECT_NOT_NULL(test, folio);
	if (folio)
		free_folio(folio);
	hmm_devmem_remove(devmem);
}

/* A segment of which a page is allocated and freed all the time is kept. */
static void segments_in_use_now_and_then_stay(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, SEGMENT_SIZE);
	const unsigned long end = jiffies + HANG_LIMIT;
	struct hmm_devmem_segment *segment;
	unsigned long expires, last;
	unsigned int passes = 0;
	struct folio *folio;

	folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	segment = READ_ONCE(priv(devmem)->segments[0]);
	last = READ_ONCE(priv(devmem)->shrink_work.timer.expires);
	/* Until the worker has looked more often than it does before a segment goes */
	while (passes < 5 && folio && time_before(jiffies, end)) {
		msleep(100);
		expires = READ_ONCE(priv(devmem)->shrink_work.timer.expires);
		passes += expires != last;
		last = expires;
		free_folio(folio);
		folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
		KUNIT_EXPECT_NOT_NULL(test, folio);
		KUNIT_EXPECT_PTR_EQ(test, READ_ONCE(priv(devmem)->segments[0]), segment);
	}
	KUNIT_EXPECT_EQ(test, passes, 5);
	if (folio)
		free_folio(folio);
	hmm_devmem_remove(devmem);
}

struct taker {
	struct kunit *test;
	struct hmm_devmem *devmem;
	struct folio **folios;
	unsigned long nr;
	struct completion done;
};

static int take_blocks_thread(void *data)
{
	struct taker *taker = data;

	taker->nr = take_all_blocks(taker->test, taker->devmem, &taker->folios);
	complete(&taker->done);
	return 0;
}

static void racing_allocators_share_segments(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct task_struct *task;
	struct taker takers[NR_THREADS] = { };
	unsigned long nr = 0;
	unsigned int i;

	for (i = 0; i < NR_THREADS; i++) {
		takers[i].test = test;
		takers[i].devmem = devmem;
		init_completion(&takers[i].done);
		task = kthread_run(take_blocks_thread, &takers[i],
				   "hmm_lazy/%u", i);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	}
	for (i = 0; i < NR_THREADS; i++) {
		wait_for_completion(&takers[i].done);
		nr += takers[i].nr;
	}
	KUNIT_EXPECT_EQ(test, nr, TEST_SIZE / BLOCK_BYTES);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 3);
	for (i = 0; i < NR_THREADS; i++)
		free_blocks(takers[i].folios, takers[i].nr);
	hmm_devmem_remove(devmem);
}

static void remove_with_all_populated(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	const resource_size_t size = resource_size(devmem->resource);
	const resource_size_t start = devmem->resource->start;
	struct folio **folios;
	struct resource *taken;
	unsigned long nr;

	nr = take_all_blocks(test, devmem, &folios);
	free_blocks(folios, nr);
	hmm_devmem_remove(devmem);

	/* The range is free again. */
	taken = request_mem_region(start, size, "kunit");
	KUNIT_EXPECT_NOT_NULL(test, taken);
	if (taken)
		release_mem_region(start, size);
}

/* Segments that end */

#define NR_SEGMENTS	3

/*
 * Core waits for these references before it takes struct pages away, so that the
 * end of a segment lasts until its reference is put.
 */
static void hold_segments(struct hmm_devmem *devmem,
			  struct dev_pagemap *pagemaps[NR_SEGMENTS])
{
	unsigned int i;

	for (i = 0; i < NR_SEGMENTS; i++)
		pagemaps[i] = get_dev_pagemap(devmem->pfn_first +
					      i * PAGES_PER_SECTION);
}

static void populate_all(struct kunit *test, struct hmm_devmem *devmem)
{
	struct folio **folios;
	unsigned long nr;

	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_ASSERT_EQ(test, priv(devmem)->nr_populated, NR_SEGMENTS);
	free_blocks(folios, nr);
}

/* Run the shrink worker as often as it takes to give empty segments back. */
static void shrink_until_idle(struct hmm_devmem *devmem)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		mod_delayed_work(system_dfl_wq, &priv(devmem)->shrink_work, 0);
		flush_delayed_work(&priv(devmem)->shrink_work);
	}
}

struct remover {
	struct hmm_devmem *devmem;
	struct completion done;
};

static int remove_thread(void *data)
{
	struct remover *remover = data;

	hmm_devmem_remove(remover->devmem);
	complete(&remover->done);
	return 0;
}

static bool wait_until_all_die(struct dev_pagemap *pagemaps[NR_SEGMENTS])
{
	unsigned int i;

	for (i = 0; i < NR_SEGMENTS; i++)
		if (!soon(percpu_ref_is_dying(&pagemaps[i]->ref)))
			return false;
	return true;
}

/* The end of a segment does not wait for the end of another one. */
static void remove_ends_all_segments_at_once(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct dev_pagemap *pagemaps[NR_SEGMENTS];
	struct remover remover = { .devmem = devmem };
	struct task_struct *task;
	unsigned int i;

	populate_all(test, devmem);
	hold_segments(devmem, pagemaps);
	init_completion(&remover.done);
	task = kthread_run(remove_thread, &remover, "hmm_lazy/remove");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	KUNIT_EXPECT_TRUE(test, wait_until_all_die(pagemaps));
	KUNIT_EXPECT_FALSE(test, completion_done(&remover.done));
	for (i = 0; i < NR_SEGMENTS; i++)
		put_dev_pagemap(pagemaps[i]);
	wait_for_completion(&remover.done);
}

/* Segments end with no lock held while core waits, and all at the same time. */
static void segments_end_without_lock(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct dev_pagemap *pagemaps[NR_SEGMENTS];
	unsigned int i;
	bool locked;

	populate_all(test, devmem);
	hold_segments(devmem, pagemaps);
	KUNIT_EXPECT_TRUE(test, wait_until_all_die(pagemaps));
	locked = down_write_trylock(&priv(devmem)->segments_lock);
	KUNIT_EXPECT_TRUE(test, locked);
	if (locked)
		up_write(&priv(devmem)->segments_lock);
	for (i = 0; i < NR_SEGMENTS; i++)
		put_dev_pagemap(pagemaps[i]);
	hmm_devmem_remove(devmem);
}

/* A segment cannot be created again before the old one has ended. */
static void growth_waits_for_segment_that_ends(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct dev_pagemap *pagemaps[NR_SEGMENTS];
	struct folio *folio;
	unsigned long idx;

	populate_all(test, devmem);
	hold_segments(devmem, pagemaps);
	shrink_until_idle(devmem);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&priv(devmem)->nr_ending), NR_SEGMENTS);

	/* Let only segment 1 end, so only this one can be created again. */
	put_dev_pagemap(pagemaps[1]);
	folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
	KUNIT_EXPECT_NOT_NULL(test, folio);
	if (folio) {
		idx = (folio_pfn(folio) - devmem->pfn_first) / PAGES_PER_SECTION;
		KUNIT_EXPECT_EQ(test, idx, 1);
		free_folio(folio);
	}
	put_dev_pagemap(pagemaps[0]);
	put_dev_pagemap(pagemaps[2]);
	hmm_devmem_remove(devmem);
}

/* Core calls the shrinker when memory is short, or drop_caches is written to. */
static void shrinker_gives_empty_segments_back(struct kunit *test)
{
	const unsigned long per_segment = PAGES_PER_SECTION * sizeof(struct page) /
					  PAGE_SIZE;
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct shrinker *shrinker = priv(devmem)->shrinker;
	struct shrink_control sc = { .gfp_mask = GFP_KERNEL };
	struct folio *folio;
	long drained;

	KUNIT_EXPECT_TRUE(test, shrinker->flags & SHRINKER_REGISTERED);
	KUNIT_EXPECT_EQ(test, SHRINK_EMPTY, shrinker->count_objects(shrinker, &sc));
	populate_all(test, devmem);
	/* Empty segments must not be given back because of their age. */
	cancel_delayed_work_sync(&priv(devmem)->shrink_work);
	folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	KUNIT_EXPECT_EQ(test, (NR_SEGMENTS - 1) * per_segment,
			shrinker->count_objects(shrinker, &sc));

	KUNIT_EXPECT_EQ(test, SHRINK_STOP, shrinker->scan_objects(shrinker, &sc));
	flush_delayed_work(&priv(devmem)->shrink_work);
	cancel_delayed_work_sync(&priv(devmem)->shrink_work);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 1);
	KUNIT_EXPECT_EQ(test, SHRINK_EMPTY, shrinker->count_objects(shrinker, &sc));
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_from_page(&folio->page), devmem);

	free_folio(folio);
	/* count_objects() does not empty the cache that the page is in. */
	drained = atomic_long_read(&priv(devmem)->pool->nr_drained);
	KUNIT_EXPECT_EQ(test, SHRINK_EMPTY, shrinker->count_objects(shrinker, &sc));
	KUNIT_EXPECT_EQ(test, drained, atomic_long_read(&priv(devmem)->pool->nr_drained));
	hmm_devmem_pool_drain(priv(devmem)->pool);
	KUNIT_EXPECT_EQ(test, per_segment, shrinker->count_objects(shrinker, &sc));
	shrinker->scan_objects(shrinker, &sc);
	flush_delayed_work(&priv(devmem)->shrink_work);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	hmm_devmem_remove(devmem);
}

/* An empty device is not taken for a full one when its last segment has just gone. */
static void allocation_finds_pages_while_segments_go(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, SEGMENT_SIZE);
	struct giver giver;
	struct folio *folio;
	unsigned int i;

	giver_start(test, &giver, devmem);
	for (i = 0; i < NR_ALLOCATIONS; i++) {
		folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
		if (!folio)
			break;
		free_folio(folio);
	}
	giver_stop(&giver);
	KUNIT_EXPECT_EQ(test, i, NR_ALLOCATIONS);
	hmm_devmem_remove(devmem);
}

/* Core cannot create struct pages */

static void *memremap_fails(struct dev_pagemap *pagemap, int nid)
{
	return ERR_PTR(-ENOSPC);
}

static int populate_fails(struct hmm_devmem_pool *pool, unsigned int idx)
{
	return -ENOMEM;
}

static void expect_no_folio(struct kunit *test, struct hmm_devmem *devmem)
{
	struct hmm_devmem_context ctx;

	hmm_devmem_context_init(&ctx, NULL);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, &ctx));
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem,
						       HMM_DEVMEM_BLOCK_ORDER,
						       &ctx));
	KUNIT_EXPECT_EQ(test, refcount_read(&ctx.refs), 1);
}

static void alloc_when_memremap_fails_returns_null(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct folio **folios;
	unsigned long nr;

	kunit_activate_static_stub(test, hmm_devmem_memremap, memremap_fails);
	expect_no_folio(test, devmem);
	/* The caller gets core's errno. */
	KUNIT_EXPECT_EQ(test, -ENOSPC,
			hmm_devmem_segments_grow(devmem,
						 hmm_devmem_segments_seq(devmem)));
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, devmem->pfn_first));
	kunit_deactivate_static_stub(test, hmm_devmem_memremap);

	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_EXPECT_EQ(test, nr, TEST_SIZE / BLOCK_BYTES);
	free_blocks(folios, nr);
	hmm_devmem_remove(devmem);
}

static void alloc_when_populate_fails_returns_null(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct folio **folios;
	unsigned long nr;

	kunit_activate_static_stub(test, hmm_devmem_pool_populate,
				   populate_fails);
	expect_no_folio(test, devmem);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, devmem->pfn_first));
	KUNIT_EXPECT_FALSE(test, has_pagemap(devmem->pfn_first));
	kunit_deactivate_static_stub(test, hmm_devmem_pool_populate);

	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_EXPECT_EQ(test, nr, TEST_SIZE / BLOCK_BYTES);
	KUNIT_EXPECT_TRUE(test, has_pagemap(devmem->pfn_first));
	free_blocks(folios, nr);
	hmm_devmem_remove(devmem);
}

/* Existing segments can be used while no more can be created. */
static void failing_to_grow_leaves_other_segments(struct kunit *test)
{
	const unsigned long max = SEGMENT_SIZE / BLOCK_BYTES;
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	struct folio *first, **folios;
	unsigned long nr;

	first = hmm_devmem_alloc_folio(devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);
	KUNIT_ASSERT_NOT_NULL(test, first);
	kunit_activate_static_stub(test, hmm_devmem_memremap, memremap_fails);
	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_EXPECT_EQ(test, nr, max - 1);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 1);
	expect_no_folio(test, devmem);
	free_blocks(folios, nr);
	nr = take_all_blocks(test, devmem, &folios);
	KUNIT_EXPECT_EQ(test, nr, max - 1);
	kunit_deactivate_static_stub(test, hmm_devmem_memremap);

	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_from_page(&first->page), devmem);
	KUNIT_EXPECT_EQ(test, folio_ref_count(first), 1);
	free_blocks(folios, nr);
	free_folio(first);
	hmm_devmem_remove(devmem);
}

static void remove_after_failing_to_grow_gives_range_back(struct kunit *test)
{
	struct hmm_devmem *devmem = add_lazy(test, TEST_SIZE);
	const u64 start = devmem->resource->start;

	kunit_activate_static_stub(test, hmm_devmem_pool_populate,
				   populate_fails);
	expect_no_folio(test, devmem);
	hmm_devmem_remove(devmem);
	kunit_deactivate_static_stub(test, hmm_devmem_pool_populate);

	devmem = add_lazy(test, TEST_SIZE);
	KUNIT_EXPECT_EQ(test, devmem->resource->start, start);
	hmm_devmem_remove(devmem);
}

static void flags_are_checked(struct kunit *test)
{
	struct hmm_devmem_desc desc = {
		.ops = &classic_ops,
		.size = SEGMENT_SIZE,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = HMM_DEVMEM_LAZY,
		.nid = NUMA_NO_NODE,
	};

	KUNIT_EXPECT_PTR_EQ(test, (void *)hmm_devmem_add_desc(test->priv, &desc),
			    ERR_PTR(-EINVAL));
	desc.ops = &managed_ops;
	desc.flags = ~0UL;
	KUNIT_EXPECT_PTR_EQ(test, (void *)hmm_devmem_add_desc(test->priv, &desc),
			    ERR_PTR(-EOPNOTSUPP));
}

static struct kunit_case lazy_cases[] = {
	KUNIT_CASE(add_creates_no_struct_pages),
	KUNIT_CASE(add_larger_than_memory_works),
	KUNIT_CASE(first_allocation_populates_one_segment),
	KUNIT_CASE(every_block_can_be_had),
	KUNIT_CASE(every_page_can_be_had),
	KUNIT_CASE_SLOW(empty_segments_are_given_back),
	KUNIT_CASE_SLOW(segments_in_use_now_and_then_stay),
	KUNIT_CASE(racing_allocators_share_segments),
	KUNIT_CASE(remove_with_all_populated),
	KUNIT_CASE(remove_ends_all_segments_at_once),
	KUNIT_CASE(segments_end_without_lock),
	KUNIT_CASE(growth_waits_for_segment_that_ends),
	KUNIT_CASE(shrinker_gives_empty_segments_back),
	KUNIT_CASE_SLOW(allocation_finds_pages_while_segments_go),
	KUNIT_CASE(alloc_when_memremap_fails_returns_null),
	KUNIT_CASE(alloc_when_populate_fails_returns_null),
	KUNIT_CASE(failing_to_grow_leaves_other_segments),
	KUNIT_CASE(remove_after_failing_to_grow_gives_range_back),
	KUNIT_CASE(flags_are_checked),
	{ }
};

static struct kunit_suite lazy_suite = {
	.name = "hmm_devmem_lazy",
	.init = lazy_init,
	.test_cases = lazy_cases,
};

kunit_test_suite(lazy_suite);
