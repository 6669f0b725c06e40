// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_mirror: which entries a mirror makes and removes, in faults of
 * a device and in migrations, and which invalidations keep pages from being mapped.
 */

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/align.h>
#include <linux/cleanup.h>
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/hmm_devmem_mirror.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmap_lock.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "../devmem.h"
#include "../mirror.h"
#include "core_test.h"

/* Four windows of a device fault. */
#define NR_PAGES	(4 * HMM_DEVMEM_MIRROR_FAULT_NR)

/**
 * struct test_mirror - the mirror of the test's process
 * @m: the mirror
 * @devmem: its device memory
 * @addr: memory of the process, not touched yet
 * @pfns: the entry of each page from @addr on; 0 if there is none
 * @writable: whether it is writable
 * @nr_mapped: entries that were made
 * @nr_told: pages that the map callback of the device memory was called for
 * @unmap_start: what unmap() was called for the last time
 * @unmap_end: the same, exclusive
 * @nr_keep: invalidations in which local entries may stay
 * @fails: what map() returns
 * @fails_at: only if it is called for the page at this address; 0 for any page
 * @during_copy: called when the next copy to the device starts
 * @priv: what the last copy to the device had for its request
 */
struct test_mirror {
	struct hmm_devmem_mirror m;
	struct hmm_devmem *devmem;
	unsigned long addr;
	unsigned long pfns[NR_PAGES];
	bool writable[NR_PAGES];
	unsigned int nr_mapped;
	unsigned int nr_told;
	unsigned long unmap_start;
	unsigned long unmap_end;
	unsigned int nr_keep;
	int fails;
	unsigned long fails_at;
	void (*during_copy)(struct test_mirror *mirror);
	void *priv;
};

static struct test_mirror *the_mirror;
/* Of a fault in another task. */
static long the_result;
/* How often the CPU's page table was walked. */
static unsigned int nr_walks;

static unsigned long page_addr(const struct test_mirror *mirror, unsigned long i)
{
	return mirror->addr + (i << PAGE_SHIFT);
}

static bool in_test(const struct test_mirror *mirror, unsigned long addr)
{
	return addr >= mirror->addr && addr < page_addr(mirror, NR_PAGES);
}

static void mirror_unmap(struct hmm_devmem_mirror *m, unsigned long start,
			 unsigned long end, bool keep_local)
{
	struct test_mirror *mirror = container_of(m, struct test_mirror, m);
	unsigned long i;

	lockdep_assert_held(&m->lock);
	mirror->unmap_start = start;
	mirror->unmap_end = end;
	mirror->nr_keep += keep_local;
	for (i = 0; i < NR_PAGES; i++)
		if (page_addr(mirror, i) >= start && page_addr(mirror, i) < end &&
		    !(keep_local && hmm_devmem_has_pfn(mirror->devmem, mirror->pfns[i])))
			mirror->pfns[i] = 0;
}

static bool map_fails(const struct test_mirror *mirror,
		      const struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	if (!mirror->fails || !mirror->fails_at)
		return mirror->fails;
	for (; nr; nr--, entries++)
		if (entries->addr == mirror->fails_at)
			return true;
	return false;
}

static int mirror_map(struct hmm_devmem_mirror *m,
		      const struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	struct test_mirror *mirror = container_of(m, struct test_mirror, m);
	unsigned long n, addr;
	unsigned int i;

	lockdep_assert_held(&m->lock);
	if (map_fails(mirror, entries, nr))
		return mirror->fails;
	for (i = 0; i < nr; i++) {
		for (n = 0; n < BIT(entries[i].order); n++) {
			addr = entries[i].addr + (n << PAGE_SHIFT);
			if (!in_test(mirror, addr))
				continue;
			addr = (addr - mirror->addr) >> PAGE_SHIFT;
			mirror->pfns[addr] = entries[i].pfn + n;
			mirror->writable[addr] = entries[i].writable;
		}
	}
	mirror->nr_mapped += nr;
	return 0;
}

static const struct hmm_devmem_mirror_ops mirror_ops = {
	.map = mirror_map,
	.unmap = mirror_unmap,
};

static int test_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	void (*during_copy)(struct test_mirror *mirror);

	if (copy->dir == HMM_DEVMEM_TO_RAM)
		return 0;
	the_mirror->priv = copy->priv;
	during_copy = the_mirror->during_copy;
	the_mirror->during_copy = NULL;
	if (during_copy)
		during_copy(the_mirror);
	return 0;
}

static void test_map(struct hmm_devmem *devmem, const struct hmm_devmem_copy *copy)
{
	the_mirror->nr_told += copy->nr_entries;
}

static const struct hmm_devmem_ops test_ops = {
	.map = test_map,
	.copy_to_device = test_copy,
	.copy_to_ram = test_copy,
};

static struct test_mirror *init_mirror(struct kunit *test)
{
	struct test_mirror *mirror = kunit_kzalloc(test, sizeof(*mirror), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, mirror);
	mirror->addr = map_blocks(test, 1);
	scoped_guard(mmap_write_lock, current->mm)
		vm_flags_set(find_vma(current->mm, mirror->addr), VM_NOHUGEPAGE);
	mirror->devmem = add(test, &test_ops, TEST_SIZE);
	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_mirror_init(&mirror->m, mirror->devmem,
							current->mm, &mirror_ops));
	the_mirror = mirror;
	return mirror;
}

static void fini_mirror(struct kunit *test, struct test_mirror *mirror)
{
	unsigned int i;

	hmm_devmem_mirror_fini(&mirror->m);
	for (i = 0; i < NR_PAGES; i++)
		KUNIT_EXPECT_EQ(test, 0, mirror->pfns[i]);
	hmm_devmem_remove(mirror->devmem);
}

static void touch(struct kunit *test, const struct test_mirror *mirror,
		  unsigned int first, unsigned int nr)
{
	for (; nr; nr--, first++)
		KUNIT_ASSERT_EQ(test, 0, put_user(1, (char __user *)
						     page_addr(mirror, first)));
}

static long fault(struct test_mirror *mirror, unsigned int i, unsigned int flags)
{
	return hmm_devmem_mirror_fault(&mirror->m, page_addr(mirror, i), flags);
}

static long migrate(struct test_mirror *mirror, unsigned int first, unsigned int nr)
{
	return hmm_devmem_mirror_migrate(&mirror->m, page_addr(mirror, first),
					 page_addr(mirror, first + nr));
}

/*
 * A macro, so that lockdep tells the work of one caller, which takes the mmap lock, from
 * that of another one, which waits for it with the mmap lock held.
 */
#define run_in_kernel_thread(func)					\
do {									\
	struct work_struct __work;					\
									\
	INIT_WORK_ONSTACK(&__work, func);				\
	queue_work(system_dfl_wq, &__work);				\
	flush_work(&__work);						\
	destroy_work_on_stack(&__work);					\
} while (0)

static void expect_mapped(struct kunit *test, const struct test_mirror *mirror,
			  unsigned int first, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < NR_PAGES; i++)
		KUNIT_EXPECT_EQ_MSG(test, i >= first && i < first + nr,
				    !!mirror->pfns[i], "page %u", i);
}

static bool is_local(const struct test_mirror *mirror, unsigned int i)
{
	return hmm_devmem_has_pfn(mirror->devmem, mirror->pfns[i]);
}

/* Faults */

static void fault_refuses_bad_arguments(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	struct hmm_devmem_mirror m;

	KUNIT_EXPECT_EQ(test, -EINVAL, fault(mirror, 0, BIT(7)));
	KUNIT_EXPECT_EQ(test, -EINVAL, fault(mirror, 0, HMM_DEVMEM_MIRROR_MIGRATE |
							HMM_DEVMEM_MIRROR_PRESENT));
	KUNIT_EXPECT_EQ(test, -EFAULT, hmm_devmem_mirror_fault(&mirror->m, ULONG_MAX, 0));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_devmem_mirror_init(&m, NULL, NULL, &mirror_ops));
	fini_mirror(test, mirror);
}

/* It maps the neighbours that the process has, but does not make more. */
static void fault_maps_what_is_there(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	unsigned long i = HMM_DEVMEM_MIRROR_FAULT_NR;

	if (HMM_DEVMEM_MIRROR_FAULT_NR < 8)
		kunit_skip(test, "pages are too large to have neighbours");
	touch(test, mirror, i - 1, 4);
	KUNIT_EXPECT_EQ(test, 2, fault(mirror, i + 1, HMM_DEVMEM_MIRROR_READ));
	/* Only those of the same window. */
	expect_mapped(test, mirror, i, 3);
	KUNIT_EXPECT_EQ(test, -ENOENT, fault(mirror, i + 3, HMM_DEVMEM_MIRROR_PRESENT));
	KUNIT_EXPECT_EQ(test, 1, fault(mirror, i + 3, HMM_DEVMEM_MIRROR_WRITE));
	expect_mapped(test, mirror, i, 4);
	KUNIT_EXPECT_TRUE(test, mirror->writable[i + 3]);
	fini_mirror(test, mirror);
}

static void fault_works_without_device_memory(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	hmm_devmem_mirror_set_devmem(&mirror->m, NULL);
	KUNIT_EXPECT_EQ(test, 1, fault(mirror, 0, HMM_DEVMEM_MIRROR_WRITE |
						  HMM_DEVMEM_MIRROR_MIGRATE));
	KUNIT_EXPECT_FALSE(test, is_local(mirror, 0));
	KUNIT_EXPECT_EQ(test, -ENODEV, migrate(mirror, 0, 1));
	fini_mirror(test, mirror);
}

/* A page that no walk goes by, and a hole, move alone. */
static void fault_migrates(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	unsigned int i;

	if (HMM_DEVMEM_MIRROR_FAULT_NR < 8)
		kunit_skip(test, "pages are too large to have neighbours");
	touch(test, mirror, 1, 2);
	touch(test, mirror, 4, 1);
	KUNIT_EXPECT_EQ(test, 1, fault(mirror, 2, HMM_DEVMEM_MIRROR_MIGRATE));
	expect_mapped(test, mirror, 2, 1);
	KUNIT_EXPECT_EQ(test, 1, fault(mirror, 3, HMM_DEVMEM_MIRROR_WRITE |
						  HMM_DEVMEM_MIRROR_MIGRATE));
	expect_mapped(test, mirror, 2, 2);
	for (i = 2; i < 4; i++)
		KUNIT_EXPECT_TRUE(test, is_local(mirror, i));
	KUNIT_EXPECT_EQ(test, 2, pages_used(mirror->devmem));
	/* All is there: nothing moves. */
	KUNIT_EXPECT_EQ(test, 2, fault(mirror, 2, HMM_DEVMEM_MIRROR_MIGRATE));
	KUNIT_EXPECT_EQ(test, 2, pages_used(mirror->devmem));
	fini_mirror(test, mirror);
}

static void expect_counted(struct kunit *test, struct test_mirror *mirror,
			   u64 faults, u64 pages, u64 used)
{
	struct hmm_devmem_stats stats;

	hmm_devmem_get_stats(mirror->devmem, &stats);
	KUNIT_EXPECT_EQ(test, faults, stats.device_faults);
	KUNIT_EXPECT_EQ(test, pages, stats.device_fault_pages);
	KUNIT_EXPECT_EQ(test, used, stats.device_fault_used);
}

/* Each fault of a walk brings more pages, but none that was never touched. */
static void fault_follows_a_walk(struct kunit *test)
{
	static const unsigned int pages[] = { 0, 1, 2, 4, 8, 16 };
	static const long brings[] = { 1, 1, 2, 4, 8, 4 };
	struct test_mirror *mirror = init_mirror(test);
	unsigned int i;

	if (NR_PAGES < 32)
		kunit_skip(test, "pages are too large for a walk");
	touch(test, mirror, 0, 20);
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		KUNIT_EXPECT_EQ(test, brings[i],
				fault(mirror, pages[i], HMM_DEVMEM_MIRROR_MIGRATE));
	expect_mapped(test, mirror, 0, 20);
	/* It is not known whether the last three were used. */
	expect_counted(test, mirror, 6, 20, 17);
	fini_mirror(test, mirror);
}

static void fault_follows_a_walk_downward(struct kunit *test)
{
	static const unsigned int pages[] = { 31, 30, 29, 27, 23 };
	struct test_mirror *mirror = init_mirror(test);
	unsigned int i;

	if (NR_PAGES < 32)
		kunit_skip(test, "pages are too large for a walk");
	/* The last window has eight pages, six of which were touched. */
	touch(test, mirror, 18, 14);
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		KUNIT_EXPECT_EQ(test, 1,
				fault(mirror, pages[i], HMM_DEVMEM_MIRROR_MIGRATE));
	expect_mapped(test, mirror, 18, 14);
	expect_counted(test, mirror, 5, 14, 9);
	fini_mirror(test, mirror);
}

/* What a walk has brought along is not known to be used if the walk does not go on. */
static void fault_counts_what_was_used(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	unsigned int i;

	if (NR_PAGES < 64)
		kunit_skip(test, "pages are too large for a walk");
	touch(test, mirror, 0, 64);
	for (i = 0; i < 3; i++)
		fault(mirror, i, HMM_DEVMEM_MIRROR_MIGRATE);
	expect_counted(test, mirror, 3, 4, 3);
	for (i = 10; i < 64; i += 2)
		KUNIT_EXPECT_EQ(test, 1, fault(mirror, i, HMM_DEVMEM_MIRROR_MIGRATE));
	expect_counted(test, mirror, 30, 31, 30);
	/* It does go on. What moves nothing is not counted. */
	fault(mirror, 4, HMM_DEVMEM_MIRROR_MIGRATE);
	fault(mirror, 4, HMM_DEVMEM_MIRROR_MIGRATE);
	expect_counted(test, mirror, 31, 35, 32);
	fini_mirror(test, mirror);
}

static void fault_work(struct work_struct *work)
{
	const unsigned int flags = HMM_DEVMEM_MIRROR_WRITE | HMM_DEVMEM_MIRROR_MIGRATE;

	the_result = current->mm ? 0 : fault(the_mirror, 1, flags);
}

/* As a driver does it that leaves its interrupts to a workqueue. */
static void fault_in_kernel_thread(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	run_in_kernel_thread(fault_work);
	KUNIT_EXPECT_EQ(test, 1, the_result);
	expect_mapped(test, mirror, 1, 1);
	KUNIT_EXPECT_TRUE(test, is_local(mirror, 1));
	fini_mirror(test, mirror);
}

/* Only the first one to watch a process can be interrupted. */
static void init_is_interrupted(struct kunit *test)
{
	struct test_mirror *mirror = kunit_kzalloc(test, sizeof(*mirror), GFP_KERNEL);
	struct hmm_devmem_mirror *m = &mirror->m;
	struct mm_struct *mm = current->mm;
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, mirror);
	map_blocks(test, 1);
	set_thread_flag(TIF_SIGPENDING);
	ret = hmm_devmem_mirror_init(m, NULL, mm, &mirror_ops);
	clear_thread_flag(TIF_SIGPENDING);
	KUNIT_ASSERT_EQ(test, -EINTR, ret);
	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_mirror_init(m, NULL, mm, &mirror_ops));
	hmm_devmem_mirror_fini(m);
	set_thread_flag(TIF_SIGPENDING);
	ret = hmm_devmem_mirror_init(m, NULL, mm, &mirror_ops);
	clear_thread_flag(TIF_SIGPENDING);
	KUNIT_ASSERT_EQ(test, 0, ret);
	hmm_devmem_mirror_fini(m);
}

/* The errno of map() is what the fault returns, and no reason to try again. */
static void fault_reports_errno_of_map(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	mirror->fails = -ENOMEM;
	KUNIT_EXPECT_EQ(test, -ENOMEM, fault(mirror, 0, HMM_DEVMEM_MIRROR_WRITE));
	KUNIT_EXPECT_EQ(test, -ENOMEM, fault(mirror, 0, HMM_DEVMEM_MIRROR_MIGRATE));
	/* hmm_devmem_mirror_migrate() ignores it: the device takes a page fault later. */
	KUNIT_EXPECT_EQ(test, 2, migrate(mirror, 0, 2));
	mirror->fails = 0;
	KUNIT_EXPECT_LE(test, 1, fault(mirror, 0, HMM_DEVMEM_MIRROR_READ));
	KUNIT_EXPECT_TRUE(test, is_local(mirror, 0));
	fini_mirror(test, mirror);
}

/* The device gets the page that it has asked for if map() fails for a neighbour. */
static void fault_needs_only_its_own_entry(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	if (HMM_DEVMEM_MIRROR_FAULT_NR < 4)
		kunit_skip(test, "pages are too large to have neighbours");
	touch(test, mirror, 0, 4);
	mirror->fails = -ENOMEM;
	mirror->fails_at = page_addr(mirror, 3);
	KUNIT_EXPECT_EQ(test, 1, fault(mirror, 1, HMM_DEVMEM_MIRROR_WRITE));
	expect_mapped(test, mirror, 1, 1);
	KUNIT_EXPECT_EQ(test, -ENOMEM, fault(mirror, 3, HMM_DEVMEM_MIRROR_READ));
	expect_mapped(test, mirror, 1, 1);
	mirror->fails = 0;
	KUNIT_EXPECT_EQ(test, 4, fault(mirror, 0, HMM_DEVMEM_MIRROR_READ));
	fini_mirror(test, mirror);
}

/* For "all addresses" unmap() gets what the documentation says. */
static void fini_unmaps_all_addresses(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	hmm_devmem_mirror_set_devmem(&mirror->m, NULL);
	KUNIT_EXPECT_EQ(test, 0, mirror->unmap_start);
	KUNIT_EXPECT_EQ(test, ULONG_MAX & PAGE_MASK, mirror->unmap_end);
	fini_mirror(test, mirror);
}

/* Something is invalidated after each walk, before the fault takes the lock. */
static int walk_in_vain(struct hmm_range *range)
{
	nr_walks++;
	range->notifier_seq = range->notifier->invalidate_seq - 2;
	return 0;
}

/* Core gives up a walk that was invalidated for a second. */
static int walk_for_too_long(struct hmm_range *range)
{
	nr_walks++;
	return -EBUSY;
}

static void fault_gives_up(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	unsigned long start;

	nr_walks = 0;
	start = jiffies;
	kunit_activate_static_stub(test, hmm_devmem_mirror_walk, walk_in_vain);
	KUNIT_EXPECT_EQ(test, -EBUSY, fault(mirror, 0, HMM_DEVMEM_MIRROR_WRITE));
	KUNIT_EXPECT_LE(test, 1000, nr_walks);
	KUNIT_EXPECT_TRUE(test, time_after_eq(jiffies, start + HZ));

	nr_walks = 0;
	kunit_activate_static_stub(test, hmm_devmem_mirror_walk, walk_for_too_long);
	KUNIT_EXPECT_EQ(test, -EBUSY, fault(mirror, 0, HMM_DEVMEM_MIRROR_MIGRATE));
	KUNIT_EXPECT_LE(test, 4, nr_walks);

	expect_mapped(test, mirror, 0, 0);
	kunit_deactivate_static_stub(test, hmm_devmem_mirror_walk);
	KUNIT_EXPECT_EQ(test, 1, fault(mirror, 0, HMM_DEVMEM_MIRROR_WRITE));
	fini_mirror(test, mirror);
}

static void set_devmem_removes_entries(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	KUNIT_EXPECT_EQ(test, 2, migrate(mirror, 0, 2));
	expect_mapped(test, mirror, 0, 2);
	hmm_devmem_mirror_set_devmem(&mirror->m, mirror->devmem);
	expect_mapped(test, mirror, 0, 0);
	KUNIT_EXPECT_EQ(test, 2, migrate(mirror, 0, 2));
	/* They were there, and nothing has moved. */
	expect_mapped(test, mirror, 0, 0);
	KUNIT_EXPECT_LE(test, 1, fault(mirror, 0, HMM_DEVMEM_MIRROR_READ));
	expect_mapped(test, mirror, 0, 2);
	fini_mirror(test, mirror);
}

/* What has moved is mapped by the mirror, or by the driver if there is no mirror. */
static void migration_maps_once(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	KUNIT_EXPECT_EQ(test, 2, migrate(mirror, 0, 2));
	KUNIT_EXPECT_EQ(test, 2, mirror->nr_mapped);
	KUNIT_EXPECT_EQ(test, 0, mirror->nr_told);
	KUNIT_EXPECT_EQ(test, 3,
			hmm_devmem_migrate_to_device(mirror->devmem, current->mm,
						     page_addr(mirror, 2),
						     page_addr(mirror, 5), NULL));
	KUNIT_EXPECT_EQ(test, 2, mirror->nr_mapped);
	KUNIT_EXPECT_EQ(test, 3, mirror->nr_told);
	fini_mirror(test, mirror);
}

/* What could not move is reported; the rest is mapped. */
static void request_reports_what_is_left(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	struct hmm_devmem_request req = {
		.start = page_addr(mirror, 0),
		.end = page_addr(mirror, 4),
		.priv = mirror,
	};
	struct page *pinned;

	touch(test, mirror, 0, 4);
	KUNIT_ASSERT_EQ(test, 1, get_user_pages_unlocked(page_addr(mirror, 2), 1, &pinned,
							 FOLL_WRITE));
	KUNIT_EXPECT_EQ(test, 3, hmm_devmem_mirror_request(&mirror->m, &req));
	KUNIT_EXPECT_EQ(test, 1, req.left.busy);
	KUNIT_EXPECT_PTR_EQ(test, (void *)mirror, mirror->priv);
	KUNIT_EXPECT_EQ(test, 3, mirror->nr_mapped);
	KUNIT_EXPECT_EQ(test, 0, mirror->pfns[2]);
	put_page(pinned);
	/* The other fields are those of the mirror, and are left alone. */
	KUNIT_EXPECT_NULL(test, req.mm);
	KUNIT_EXPECT_NULL(test, req.ctx);
	KUNIT_EXPECT_EQ(test, 4, hmm_devmem_mirror_request(&mirror->m, &req));
	KUNIT_EXPECT_EQ(test, 0, req.left.busy);
	expect_mapped(test, mirror, 0, 4);
	req.left.busy = 1;
	hmm_devmem_mirror_set_devmem(&mirror->m, NULL);
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_mirror_request(&mirror->m, &req));
	KUNIT_EXPECT_EQ(test, 0, req.left.busy);
	fini_mirror(test, mirror);
}

/*
 * With the attribute that the documentation names for entries, a page that the device does
 * not reach gets no bounce buffer: that fails. Core warns of an address beyond the mask.
 */
static void entries_get_no_bounce_buffers(struct kunit *test)
{
	struct device *dev = ((struct fixture *)test->priv)->device;
	struct page *page = alloc_page(GFP_KERNEL);
	dma_addr_t dma;

	if (!IS_ENABLED(CONFIG_HAS_DMA))
		kunit_skip(test, "no DMA");
	KUNIT_ASSERT_NOT_NULL(test, page);
	dev->dma_mask = &dev->coherent_dma_mask;
	dev->coherent_dma_mask = DMA_BIT_MASK(64);
	KUNIT_EXPECT_FALSE(test, dma_addressing_limited(dev));
	dma = dma_map_page_attrs(dev, page, 0, PAGE_SIZE, DMA_BIDIRECTIONAL,
				 DMA_ATTR_REQUIRE_COHERENT);
	KUNIT_EXPECT_FALSE(test, dma_mapping_error(dev, dma));
	dma_unmap_page_attrs(dev, dma, PAGE_SIZE, DMA_BIDIRECTIONAL, DMA_ATTR_REQUIRE_COHERENT);
	dev->coherent_dma_mask = DMA_BIT_MASK(PAGE_SHIFT);
	KUNIT_EXPECT_TRUE(test, dma_addressing_limited(dev));
	kunit_warning_suppress(test) {
		dma = dma_map_page_attrs(dev, page, 0, PAGE_SIZE, DMA_BIDIRECTIONAL,
					 DMA_ATTR_REQUIRE_COHERENT);
		KUNIT_EXPECT_TRUE(test, dma_mapping_error(dev, dma));
	}
	dev->dma_mask = NULL;
	put_page(page);
}

/* Invalidations */

static bool invalidate(struct test_mirror *mirror, unsigned int first, unsigned int nr,
		       enum mmu_notifier_event event, void *owner, unsigned int flags)
{
	struct mmu_interval_notifier *notifier = &mirror->m.notifier;
	const struct mmu_notifier_range range = {
		.mm = notifier->mm,
		.start = page_addr(mirror, first),
		.end = page_addr(mirror, first + nr),
		.flags = flags,
		.event = event,
		.owner = owner,
	};

	/* The sequence stays as it is: core must not wait for an end. */
	return notifier->ops->invalidate(notifier, &range, notifier->invalidate_seq);
}

/* Invalidate pages 2 and 3. */
static void invalidate_two(struct test_mirror *mirror)
{
	invalidate(mirror, 2, 2, MMU_NOTIFY_CLEAR, NULL, MMU_NOTIFIER_RANGE_BLOCKABLE);
}

static void invalidate_work(struct work_struct *work)
{
	invalidate_two(the_mirror);
}

/* The same by another task. */
static void other_invalidates_two(struct test_mirror *mirror)
{
	run_in_kernel_thread(invalidate_work);
}

static void own_invalidation_is_no_race(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	touch(test, mirror, 0, 8);
	mirror->during_copy = invalidate_two;
	KUNIT_EXPECT_EQ(test, 8, migrate(mirror, 0, 8));
	expect_mapped(test, mirror, 0, 8);
	fini_mirror(test, mirror);
}

static void race_leaves_out_its_own_range(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	unsigned int i;

	touch(test, mirror, 0, 8);
	mirror->during_copy = other_invalidates_two;
	KUNIT_EXPECT_EQ(test, 8, migrate(mirror, 0, 8));
	for (i = 0; i < 8; i++)
		KUNIT_EXPECT_EQ_MSG(test, i != 2 && i != 3, !!mirror->pfns[i], "page %u", i);
	/* The device takes a fault for them. */
	KUNIT_EXPECT_LE(test, 6, fault(mirror, 2, HMM_DEVMEM_MIRROR_READ));
	expect_mapped(test, mirror, 0, 8);
	fini_mirror(test, mirror);
}

static void race_elsewhere_does_not_matter(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	touch(test, mirror, 0, 8);
	mirror->during_copy = other_invalidates_two;
	KUNIT_EXPECT_EQ(test, 4, migrate(mirror, 4, 4));
	expect_mapped(test, mirror, 4, 4);
	fini_mirror(test, mirror);
}

/* A race before the pages of a window are collected has nothing to do with them. */
static void race_in_a_former_window_does_not_matter(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	touch(test, mirror, 0, 8);
	mirror->during_copy = other_invalidates_two;
	KUNIT_EXPECT_EQ(test, 4, migrate(mirror, 0, 4));
	KUNIT_EXPECT_EQ(test, 8, migrate(mirror, 0, 8));
	KUNIT_EXPECT_NOT_NULL(test, (void *)mirror->pfns[4]);
	KUNIT_EXPECT_NOT_NULL(test, (void *)mirror->pfns[7]);
	fini_mirror(test, mirror);
}

/* Migration of a range does not remove entries that others have made. */
static void own_migration_keeps_other_entries(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	KUNIT_EXPECT_EQ(test, 2, migrate(mirror, 0, 2));
	KUNIT_EXPECT_EQ(test, 2, migrate(mirror, 4, 2));
	/* Over both: those on the device stay, even if they are not mapped again. */
	mirror->nr_mapped = 0;
	KUNIT_EXPECT_EQ(test, 8, migrate(mirror, 0, 8));
	KUNIT_EXPECT_EQ(test, 4, mirror->nr_mapped);
	expect_mapped(test, mirror, 0, 8);
	KUNIT_EXPECT_LE(test, 1, mirror->nr_keep);
	fini_mirror(test, mirror);
}

/* Where it must not sleep, an invalidation fails if another task has the lock. */
static void invalidation_that_must_not_sleep(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	KUNIT_EXPECT_EQ(test, 4, migrate(mirror, 0, 4));
	scoped_guard(mutex, &mirror->m.lock)
		KUNIT_EXPECT_FALSE(test, invalidate(mirror, 0, 4, MMU_NOTIFY_CLEAR,
						    NULL, 0));
	expect_mapped(test, mirror, 0, 4);
	KUNIT_EXPECT_TRUE(test, invalidate(mirror, 0, 4, MMU_NOTIFY_CLEAR, NULL, 0));
	expect_mapped(test, mirror, 0, 0);
	fini_mirror(test, mirror);
}

static void exclusive_access_of_the_mirror_is_ignored(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	const unsigned int flags = MMU_NOTIFIER_RANGE_BLOCKABLE;

	KUNIT_EXPECT_EQ(test, 1, fault(mirror, 0, HMM_DEVMEM_MIRROR_WRITE));
	invalidate(mirror, 0, 1, MMU_NOTIFY_EXCLUSIVE, &mirror->m, flags);
	expect_mapped(test, mirror, 0, 1);
	invalidate(mirror, 0, 1, MMU_NOTIFY_EXCLUSIVE, NULL, flags);
	expect_mapped(test, mirror, 0, 0);
	fini_mirror(test, mirror);
}

#ifdef CONFIG_HMM_DEVMEM_MIRROR_DEBUG
/* The shadow of all entries */

/* An entry that nothing justifies. */
static void enter_wrongly(struct test_mirror *mirror, unsigned int i, unsigned long pfn)
{
	const struct hmm_devmem_map_entry entry = {
		.addr = page_addr(mirror, i),
		.pfn = pfn,
	};

	guard(mutex)(&mirror->m.lock);
	hmm_devmem_mirror_enter(&mirror->m, &entry, 1);
}

static void invalidate_one(struct test_mirror *mirror, unsigned int i)
{
	invalidate(mirror, i, 1, MMU_NOTIFY_CLEAR, NULL, MMU_NOTIFIER_RANGE_BLOCKABLE);
}

static void shadow_warns_of_another_page(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	unsigned long pfn;

	KUNIT_ASSERT_EQ(test, 2, migrate(mirror, 0, 2));
	pfn = mirror->pfns[0];
	kunit_warning_suppress(test) {
		enter_wrongly(mirror, 0, pfn);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
		enter_wrongly(mirror, 0, mirror->pfns[1]);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	invalidate_one(mirror, 0);
	enter_wrongly(mirror, 0, pfn);
	fini_mirror(test, mirror);
}

static void shadow_warns_of_a_freed_page(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	unsigned long pfn;

	KUNIT_ASSERT_EQ(test, 1, migrate(mirror, 0, 1));
	pfn = mirror->pfns[0];
	/* The page has one entry, and not where invalidations will look for it. */
	invalidate_one(mirror, 0);
	enter_wrongly(mirror, 8, pfn);
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, 1,
				hmm_devmem_migrate_to_ram(mirror->devmem, current->mm,
							  page_addr(mirror, 0),
							  page_addr(mirror, 1)));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	invalidate_one(mirror, 8);
	fini_mirror(test, mirror);
}
#endif

static int mirror_test_init(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	return fixture_init(test);
}

/* No entry is left, or made, for a lost page, also if its folio cannot be split. */
static void lost_page_of_a_busy_block(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);
	struct folio *folio;

	scoped_guard(mmap_write_lock, current->mm)
		vm_flags_clear(find_vma(current->mm, mirror->addr), VM_NOHUGEPAGE);
	KUNIT_ASSERT_EQ(test, HMM_DEVMEM_BLOCK_NR, migrate(mirror, 0, HMM_DEVMEM_BLOCK_NR));
	folio = page_folio(pfn_to_page(mirror->pfns[3]));
	folio_get(folio);
	hmm_devmem_poison(mirror->devmem, mirror->pfns[3], 1);
	expect_mapped(test, mirror, 0, 0);
	KUNIT_EXPECT_EQ(test, -EFAULT, fault(mirror, 3, HMM_DEVMEM_MIRROR_READ));
	KUNIT_EXPECT_LE(test, 1, fault(mirror, 4, HMM_DEVMEM_MIRROR_READ));
	KUNIT_EXPECT_EQ(test, 0, mirror->pfns[3]);
	folio_put(folio);
	vm_munmap(mirror->addr, HMM_DEVMEM_BLOCK_SIZE);
	fini_mirror(test, mirror);
}

static void page_of_a_dead_device_is_lost(struct kunit *test)
{
	struct test_mirror *mirror = init_mirror(test);

	KUNIT_ASSERT_EQ(test, 2, migrate(mirror, 0, 2));
	hmm_devmem_mark_dead(mirror->devmem);
	KUNIT_EXPECT_EQ(test, -EFAULT, fault(mirror, 0, HMM_DEVMEM_MIRROR_READ));
	vm_munmap(mirror->addr, HMM_DEVMEM_BLOCK_SIZE);
	fini_mirror(test, mirror);
}

static struct kunit_case mirror_cases[] = {
	KUNIT_CASE(fault_refuses_bad_arguments),
	KUNIT_CASE(fault_maps_what_is_there),
	KUNIT_CASE(fault_works_without_device_memory),
	KUNIT_CASE(fault_migrates),
	KUNIT_CASE(fault_follows_a_walk),
	KUNIT_CASE(fault_follows_a_walk_downward),
	KUNIT_CASE(fault_counts_what_was_used),
	KUNIT_CASE(fault_in_kernel_thread),
	KUNIT_CASE(init_is_interrupted),
	KUNIT_CASE(fault_reports_errno_of_map),
	KUNIT_CASE(fault_needs_only_its_own_entry),
	KUNIT_CASE(fini_unmaps_all_addresses),
	KUNIT_CASE_SLOW(fault_gives_up),
	KUNIT_CASE(set_devmem_removes_entries),
	KUNIT_CASE(lost_page_of_a_busy_block),
	KUNIT_CASE(page_of_a_dead_device_is_lost),
	KUNIT_CASE(migration_maps_once),
	KUNIT_CASE(request_reports_what_is_left),
	KUNIT_CASE(entries_get_no_bounce_buffers),
	KUNIT_CASE(own_invalidation_is_no_race),
	KUNIT_CASE(race_leaves_out_its_own_range),
	KUNIT_CASE(race_elsewhere_does_not_matter),
	KUNIT_CASE(race_in_a_former_window_does_not_matter),
	KUNIT_CASE(own_migration_keeps_other_entries),
	KUNIT_CASE(invalidation_that_must_not_sleep),
	KUNIT_CASE(exclusive_access_of_the_mirror_is_ignored),
#ifdef CONFIG_HMM_DEVMEM_MIRROR_DEBUG
	KUNIT_CASE(shadow_warns_of_another_page),
	KUNIT_CASE(shadow_warns_of_a_freed_page),
#endif
	{ }
};

static struct kunit_suite mirror_suite = {
	.name = "hmm_devmem_mirror",
	.init = mirror_test_init,
	.test_cases = mirror_cases,
};

kunit_test_suite(mirror_suite);
