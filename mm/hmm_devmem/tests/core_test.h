/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers that the suites that add and remove device memory share.
 */
#ifndef _HMM_DEVMEM_CORE_TEST_H
#define _HMM_DEVMEM_CORE_TEST_H

#include <kunit/device.h>
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "../devmem.h"
#include "wait_test.h"

/* The size of a block is a constant on most machines, but not on all. */
#define BLOCK_SIZE_BYTES	(PAGE_SIZE << HMM_DEVMEM_BLOCK_ORDER)
#define TEST_SIZE		(2 * BLOCK_SIZE_BYTES)

/**
 * struct fixture - state of a test
 * @device: the device that device memory is added to
 * @nr_regions: physical ranges in use when the test began
 * @events: the callbacks that the library called, in order: k(ill), c(leanup) and
 *	f(ree); and r for the release of a context that takes long
 * @nr_events: length of @events
 * @lock: protects @events
 * @freed_page: the page of the last f
 * @freed_order: the folio order of the last f
 * @priv: data of the test for its callbacks
 */
struct fixture {
	struct device *device;
	unsigned int nr_regions;
	char events[64];
	unsigned int nr_events;
	spinlock_t lock;	/* see above */
	struct page *freed_page;
	unsigned int freed_order;
	void *priv;
};

/* Callbacks */

static inline struct fixture *devmem_fixture(struct hmm_devmem *devmem)
{
	return dev_get_drvdata(devmem->device);
}

static inline void note(struct hmm_devmem *devmem, char event)
{
	struct fixture *fixture = devmem_fixture(devmem);

	guard(spinlock_irqsave)(&fixture->lock);
	if (fixture->nr_events < sizeof(fixture->events) - 1)
		fixture->events[fixture->nr_events++] = event;
}

static inline void note_free(struct hmm_devmem *devmem, struct page *page)
{
	struct fixture *fixture = devmem_fixture(devmem);

	fixture->freed_page = page;
	fixture->freed_order = folio_order(page_folio(page));
	note(devmem, 'f');
}

static inline void note_kill(struct hmm_devmem *devmem)
{
	note(devmem, 'k');
}

static inline void note_cleanup(struct hmm_devmem *devmem)
{
	note(devmem, 'c');
}

/* Must not be called: no process maps pages of the tests that use it. */
static inline vm_fault_t no_fault(struct hmm_devmem *devmem,
				  struct vm_area_struct *vma,
				  unsigned long addr, const struct page *page,
				  unsigned int flags, pmd_t *pmdp)
{
	note(devmem, '!');
	return VM_FAULT_SIGBUS;
}

static inline int no_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	note(devmem, '!');
	return -EIO;
}

static const struct hmm_devmem_ops __maybe_unused managed_ops = {
	.free = note_free,
	.kill = note_kill,
	.cleanup = note_cleanup,
	.copy_to_device = no_copy,
	.copy_to_ram = no_copy,
};

static const struct hmm_devmem_ops __maybe_unused minimal_managed_ops = {
	.copy_to_device = no_copy,
	.copy_to_ram = no_copy,
};

static inline int no_work(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	return 0;
}

static const struct hmm_devmem_ops __maybe_unused copying_ops = {
	.free = note_free,
	.kill = note_kill,
	.cleanup = note_cleanup,
	.copy_to_device = no_work,
	.copy_to_ram = no_work,
};

static const struct hmm_devmem_ops __maybe_unused classic_ops = {
	.free = note_free,
	.fault = no_fault,
	.kill = note_kill,
	.cleanup = note_cleanup,
};

static const struct hmm_devmem_ops __maybe_unused minimal_classic_ops = {
	.free = note_free,
	.fault = no_fault,
};

/* Fixture: test->priv */

static inline unsigned int count_regions(void)
{
	const struct resource *res;
	unsigned int nr = 0;

	for (res = iomem_resource.child; res; res = res->sibling)
		nr++;
	return nr;
}

/* Wait for the end of zombies. */
static inline void wait_for_regions(struct kunit *test, unsigned int nr)
{
	soon(count_regions() == nr);
	KUNIT_EXPECT_EQ(test, count_regions(), nr);
}

static inline struct device *register_device(struct kunit *test, const char *name)
{
	struct device *device = kunit_device_register(test, name);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, device);
	dev_set_drvdata(device, test->priv);
	return device;
}

static inline int fixture_init(struct kunit *test)
{
	struct fixture *fixture = kunit_kzalloc(test, sizeof(*fixture), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, fixture);
	spin_lock_init(&fixture->lock);
	test->priv = fixture;
	fixture->device = register_device(test, "hmm_devmem");
	fixture->nr_regions = count_regions();
	return 0;
}

/* A macro, so that a failure is reported where it happened. */
#define expect_events(test, expected)					\
do {									\
	struct kunit *_test = (test);					\
	const struct fixture *_fixture = _test->priv;			\
									\
	KUNIT_EXPECT_STREQ(_test, _fixture->events, expected);		\
} while (0)

static inline unsigned int count_events(struct kunit *test, char event)
{
	const struct fixture *fixture = test->priv;
	unsigned int i, nr = 0;

	for (i = 0; i < fixture->nr_events; i++)
		nr += fixture->events[i] == event;
	return nr;
}

static inline struct device *test_device(struct kunit *test)
{
	return ((struct fixture *)test->priv)->device;
}

/* Verifies that no range is in use and no callback was called. */
static inline void expect_nothing_changed(struct kunit *test)
{
	const struct fixture *fixture = test->priv;

	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
	expect_events(test, "");
}

static inline struct hmm_devmem *add(struct kunit *test,
				     const struct hmm_devmem_ops *ops,
				     unsigned long size)
{
	struct hmm_devmem *devmem = hmm_devmem_add(ops, test_device(test), size);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

static inline struct folio *alloc(struct kunit *test, struct hmm_devmem *devmem,
				  unsigned int order,
				  struct hmm_devmem_context *ctx)
{
	struct folio *folio = hmm_devmem_alloc_folio(devmem, order, ctx);

	KUNIT_ASSERT_NOT_NULL(test, folio);
	return folio;
}

static inline void release(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

static inline u64 pages_used(struct hmm_devmem *devmem)
{
	struct hmm_devmem_stats stats;

	hmm_devmem_get_stats(devmem, &stats);
	return stats.allocated - stats.freed;
}

/* Map memory in the test's process, without touching it. */
static inline unsigned long map_blocks(struct kunit *test, unsigned long nr_blocks)
{
	unsigned long addr;

	addr = kunit_vm_mmap(test, NULL, 0, (nr_blocks + 1) * BLOCK_SIZE_BYTES,
			     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	return ALIGN(addr, BLOCK_SIZE_BYTES);
}

/* Map memory in the test's process and move all of it to the device. */
static inline unsigned long map_on_device(struct kunit *test,
					  struct hmm_devmem *devmem,
					  unsigned long nr_blocks)
{
	const unsigned long size = nr_blocks * BLOCK_SIZE_BYTES;
	const unsigned long addr = map_blocks(test, nr_blocks);

	KUNIT_ASSERT_EQ(test, size >> PAGE_SHIFT,
			hmm_devmem_migrate_to_device(devmem, current->mm, addr,
						     addr + size, NULL));
	return addr;
}

/* Physical ranges that a test has; released when the test ends. */
struct region {
	resource_size_t start;
	resource_size_t size;
};

static inline void release_region_action(void *data)
{
	struct region *region = data;

	release_mem_region(region->start, region->size);
}

static inline void own_region(struct kunit *test, resource_size_t start,
			      resource_size_t size)
{
	struct region *region = kunit_kzalloc(test, sizeof(*region), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, region);
	*region = (struct region) { start, size };
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, release_region_action,
						  region));
}

/* Reserve physical addresses at which there is no memory; no test accesses them. */
static inline struct resource *get_region(struct kunit *test, unsigned long size)
{
	struct fixture *fixture = test->priv;
	struct resource *res;

	res = request_free_mem_region(&iomem_resource, size, "hmm_devmem_core");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, res);
	own_region(test, res->start, resource_size(res));
	fixture->nr_regions++;
	return res;
}

/* A context that counts how often it is released. */
struct counted_context {
	struct hmm_devmem_context ctx;
	unsigned int released;
};

static inline void count_release(struct hmm_devmem_context *ctx)
{
	container_of(ctx, struct counted_context, ctx)->released++;
}

/* Initialise a folio of a classic devmem, as its driver has to do itself. */
static inline struct folio *init_classic(struct hmm_devmem *devmem,
					 unsigned long index, unsigned int order)
{
	struct page *page = pfn_to_page(devmem->pfn_first + index);
	struct folio *folio = (struct folio *)page;

	zone_device_folio_init(folio, page_pgmap(page), order);
	return folio;
}

/* A worker that holds the mmap lock of a process, which the test's own task must not. */
struct mmap_holder {
	struct work_struct work;
	struct mm_struct *mm;
	struct completion locked;
	struct completion done;
};

static inline void mmap_holder_work(struct work_struct *work)
{
	struct mmap_holder *holder = container_of(work, struct mmap_holder, work);

	mmap_write_lock(holder->mm);
	complete(&holder->locked);
	wait_for_completion(&holder->done);
	mmap_write_unlock(holder->mm);
}

static inline void mmap_holder_init(struct mmap_holder *holder, struct mm_struct *mm)
{
	INIT_WORK(&holder->work, mmap_holder_work);
	init_completion(&holder->locked);
	init_completion(&holder->done);
	holder->mm = mm;
}

/* Returns when the worker has the lock. */
static inline void mmap_holder_begin(struct mmap_holder *holder)
{
	queue_work(system_dfl_wq, &holder->work);
	wait_for_completion(&holder->locked);
}

static inline void mmap_holder_end(struct mmap_holder *holder)
{
	complete(&holder->done);
	flush_work(&holder->work);
}

#endif /* _HMM_DEVMEM_CORE_TEST_H */
