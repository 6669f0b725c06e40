// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_migrate: the number of pages that a migration returns, which
 * pages stay, which pages of a process hmm_devmem_count_resident() counts, why pages stay
 * when an eviction is killed, and how long a migration waits for one that makes room.
 */

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/build_bug.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmap_lock.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "../collect.h"
#include "../devmem.h"
#include "../evict.h"
#include "../pool.h"
#include "../resident.h"
#include "core_test.h"

/* Less than a block, so that it moves as pages of PAGE_SIZE. */
#define MOVED_PAGES	(HMM_DEVMEM_BLOCK_NR / 2)
#define FREE_PAGES	(HMM_DEVMEM_BLOCK_NR / 4)
#define OTHER_PAGES	((TEST_SIZE >> PAGE_SHIFT) - FREE_PAGES)

/**
 * struct interruption - an event while a migration evicts other pages to make room
 * @name: its name, for the log
 * @happens: makes it happen
 */
struct interruption {
	const char *name;
	void (*happens)(struct hmm_devmem *devmem);
};

static const struct interruption *interruption;

/* It wants the mmap lock when the migration wants it again. */
static struct mmap_holder holder;

static void suspend_begins(struct hmm_devmem *devmem)
{
	hmm_devmem_pool_freeze(priv(devmem)->pool);
}

static void removal_begins(struct hmm_devmem *devmem)
{
	hmm_devmem_pool_kill(priv(devmem)->pool);
}

static void caller_is_killed(struct hmm_devmem *devmem)
{
	mmap_holder_begin(&holder);
	send_sig(SIGKILL, current, 1);
}

static const struct interruption interruptions[] = {
	{ "suspend", suspend_begins },
	{ "removal", removal_begins },
	{ "SIGKILL", caller_is_killed },
};

KUNIT_ARRAY_PARAM_DESC(interruption, interruptions, name);

static int interrupted_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	if (interruption)
		interruption->happens(devmem);
	interruption = NULL;
	return 0;
}

static const struct hmm_devmem_ops interrupted_ops = {
	.copy_to_device = no_work,
	.copy_to_ram = interrupted_copy,
};

static struct hmm_devmem *add_with_reclaim(struct kunit *test, unsigned long size)
{
	const struct hmm_devmem_desc desc = {
		.ops = &interrupted_ops,
		.size = size,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = HMM_DEVMEM_RECLAIM,
		.nid = NUMA_NO_NODE,
	};
	struct hmm_devmem *devmem = hmm_devmem_add_desc(test_device(test), &desc);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

/* Map and touch memory in the test's process. */
static unsigned long map_pages(struct kunit *test, unsigned long nr)
{
	unsigned long addr, i;

	addr = kunit_vm_mmap(test, NULL, 0, nr << PAGE_SHIFT, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	scoped_guard(mmap_write_lock, current->mm)
		vm_flags_set(find_vma(current->mm, addr), VM_NOHUGEPAGE);
	for (i = 0; i < nr; i++)
		KUNIT_ASSERT_EQ(test, 0, put_user(1, (char __user *)addr + i * PAGE_SIZE));
	return addr;
}

static long to_device(struct hmm_devmem *devmem, unsigned long addr, unsigned long nr)
{
	return hmm_devmem_migrate_to_device(devmem, current->mm, addr,
					    addr + (nr << PAGE_SHIFT), NULL);
}

/* It returns the number of pages that have moved; an errno would mean none has. */
static void interrupted_migration_returns_what_moved(struct kunit *test)
{
	struct hmm_devmem *devmem = add_with_reclaim(test, TEST_SIZE);
	unsigned long other = map_pages(test, OTHER_PAGES);
	unsigned long addr = map_pages(test, MOVED_PAGES);

	mmap_holder_init(&holder, current->mm);
	interruption = NULL;
	KUNIT_ASSERT_EQ(test, OTHER_PAGES, to_device(devmem, other, OTHER_PAGES));
	allow_signal(SIGKILL);
	interruption = test->param_value;
	KUNIT_EXPECT_EQ(test, FREE_PAGES, to_device(devmem, addr, MOVED_PAGES));
	KUNIT_EXPECT_NULL(test, interruption);
	flush_signals(current);
	disallow_signal(SIGKILL);
	mmap_holder_end(&holder);
	scoped_guard(mmap_read_lock, current->mm)
		KUNIT_EXPECT_EQ(test, FREE_PAGES,
				hmm_devmem_count_resident(devmem, current->mm, addr,
							  addr + MOVED_PAGES * PAGE_SIZE,
							  false, NULL));
	hmm_devmem_pool_thaw(priv(devmem)->pool);
	hmm_devmem_remove(devmem);
}

/* The range has a device page that a driver has mapped, which cannot move. */
static void count_resident_passes_over_what_cannot_move(struct kunit *test)
{
	struct resource *res = get_region(test, TEST_SIZE);
	struct mm_struct *mm;
	struct vm_area_struct *vma;
	struct hmm_devmem *devmem;
	struct folio *folio;
	unsigned long addr;

	devmem = hmm_devmem_add_resource(&managed_ops, test_device(test), res);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	folio = alloc(test, devmem, 0, NULL);
	folio_unlock(folio);
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ,
			     MAP_SHARED | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	mm = current->mm;
	scoped_guard(mmap_write_lock, mm) {
		vma = find_vma(mm, addr);
		KUNIT_EXPECT_EQ(test, 0, vm_insert_page(vma, addr, &folio->page));
		KUNIT_EXPECT_FALSE(test, hmm_devmem_vma_is_suitable(vma));
		KUNIT_EXPECT_EQ(test, 0, hmm_devmem_count_resident(devmem, mm, addr,
								   addr + PAGE_SIZE,
								   false, NULL));
	}
	KUNIT_EXPECT_EQ(test, 0, vm_munmap(addr, PAGE_SIZE));
	folio_put(folio);
	hmm_devmem_remove(devmem);
}

static unsigned int nr_drains;

static void count_drain(void)
{
	nr_drains++;
}

/*
 * A migration empties core's batches for mlock, which takes work on all CPUs, once and only if
 * a mlocked page stays.
 */
static void migration_drains_batches_once(struct kunit *test)
{
	struct hmm_devmem *devmem = add_with_reclaim(test, TEST_SIZE);
	const unsigned long addr = map_pages(test, MOVED_PAGES);
	struct page *page;

	kunit_activate_static_stub(test, hmm_devmem_drain_batches, count_drain);
	KUNIT_ASSERT_EQ(test, 1, get_user_pages_fast(addr, 1, 0, &page));
	nr_drains = 0;
	KUNIT_EXPECT_EQ(test, 0, to_device(devmem, addr, 1));
	KUNIT_EXPECT_EQ(test, 0, nr_drains);
	folio_set_mlocked(page_folio(page));
	KUNIT_EXPECT_EQ(test, 0, to_device(devmem, addr, 1));
	KUNIT_EXPECT_EQ(test, 1, nr_drains);
	KUNIT_EXPECT_EQ(test, MOVED_PAGES - 1, to_device(devmem, addr, MOVED_PAGES));
	KUNIT_EXPECT_EQ(test, 2, nr_drains);
	folio_clear_mlocked(page_folio(page));
	put_page(page);
	KUNIT_EXPECT_EQ(test, MOVED_PAGES, to_device(devmem, addr, MOVED_PAGES));
	KUNIT_EXPECT_EQ(test, 2, nr_drains);
	kunit_deactivate_static_stub(test, hmm_devmem_drain_batches);
	hmm_devmem_remove(devmem);
}

/* Evictions */

static int copy_and_die(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	send_sig(SIGKILL, current, 1);
	return 0;
}

/* The reason of pages that were not tried is not that there was no memory for them. */
static void killed_eviction_leaves_busy_pages(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = copy_and_die,
	};
	const unsigned long left_over = 3 * HMM_DEVMEM_BLOCK_NR;
	struct hmm_devmem *devmem = add(test, &ops, 4 * BLOCK_SIZE_BYTES);
	const unsigned long addr = map_on_device(test, devmem, 4);
	struct hmm_devmem_left left;

	nr_drains = 0;
	kunit_activate_static_stub(test, hmm_devmem_drain_batches, count_drain);
	allow_signal(SIGKILL);
	KUNIT_EXPECT_EQ(test, left_over, hmm_devmem_evict(devmem, devmem->pfn_first,
							  4 * HMM_DEVMEM_BLOCK_NR, &left));
	flush_signals(current);
	disallow_signal(SIGKILL);
	kunit_deactivate_static_stub(test, hmm_devmem_drain_batches);
	KUNIT_EXPECT_EQ(test, left_over, left.busy);
	KUNIT_EXPECT_EQ(test, 0, left.no_memory);
	KUNIT_EXPECT_EQ(test, 0, left.not_copied);
	/* It does not wait for work on all CPUs. */
	KUNIT_EXPECT_EQ(test, 0, nr_drains);
	vm_munmap(addr, 4 * BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* How often the page is in use when an eviction collects it: for some attempts. */
#define BUSY_TIMES	20

static struct {
	struct folio *folio;
	unsigned int times;
} busy;

static void collect_busy(unsigned long *pfns, unsigned int nr)
{
	if (++busy.times == BUSY_TIMES)
		folio_put(busy.folio);
	migrate_device_pfns(pfns, nr);
}

/* As if another task migrated the page that is to make room: it does not take long. */
static void migration_waits_for_a_page_in_use(struct kunit *test)
{
	struct hmm_devmem *devmem = add_with_reclaim(test, PAGE_SIZE);
	const unsigned long other = map_pages(test, 1), addr = map_pages(test, 1);

	interruption = NULL;
	KUNIT_ASSERT_EQ(test, 1, to_device(devmem, other, 1));
	busy.folio = pfn_folio(devmem->pfn_first);
	busy.times = 0;
	folio_get(busy.folio);
	kunit_activate_static_stub(test, hmm_devmem_collect_pfns, collect_busy);
	KUNIT_EXPECT_EQ(test, 1, to_device(devmem, addr, 1));
	kunit_deactivate_static_stub(test, hmm_devmem_collect_pfns);
	KUNIT_EXPECT_GE(test, busy.times, BUSY_TIMES);
	if (busy.times < BUSY_TIMES)
		folio_put(busy.folio);
	hmm_devmem_remove(devmem);
}

#ifdef CONFIG_ARM64_MTE
/* No kernel that runs these tests has memory tags. */
static_assert(HMM_DEVMEM_VM_STAYS & VM_MTE);
#endif

static void set_vm_flags(unsigned long addr, vm_flags_t set, vm_flags_t clear)
{
	guard(mmap_write_lock)(current->mm);
	vm_flags_mod(find_vma(current->mm, addr), set, clear);
}

/* Pages of some mappings stay, and move when the mapping is one of these no more. */
static void pages_of_some_mappings_stay(struct kunit *test)
{
	/* Those that this kernel does not have are VM_NONE. */
	static const vm_flags_t flags[] = {
		VM_MERGEABLE, VM_MTE, VM_UFFD_RWP, VM_SHADOW_STACK,
	};
	struct hmm_devmem *devmem = add_with_reclaim(test, BLOCK_SIZE_BYTES);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct hmm_devmem_request req = { };

		if (flags[i] == VM_NONE)
			continue;
		req.start = map_pages(test, MOVED_PAGES);
		req.mm = current->mm;
		req.end = req.start + (MOVED_PAGES << PAGE_SHIFT);
		set_vm_flags(req.start, flags[i], VM_NONE);
		KUNIT_EXPECT_EQ_MSG(test, 0, hmm_devmem_migrate(devmem, &req),
				    "flag %#llx", (u64)flags[i]);
		KUNIT_EXPECT_EQ(test, MOVED_PAGES, req.left.not_suitable);
		set_vm_flags(req.start, VM_NONE, flags[i]);
		KUNIT_EXPECT_EQ(test, MOVED_PAGES, hmm_devmem_migrate(devmem, &req));
		KUNIT_EXPECT_EQ(test, 0, vm_munmap(req.start, req.end - req.start));
	}
	hmm_devmem_remove(devmem);
}

static struct kunit_case migrate_cases[] = {
	KUNIT_CASE(migration_drains_batches_once),
	KUNIT_CASE_PARAM(interrupted_migration_returns_what_moved,
			 interruption_gen_params),
	KUNIT_CASE(count_resident_passes_over_what_cannot_move),
	KUNIT_CASE(killed_eviction_leaves_busy_pages),
	KUNIT_CASE(migration_waits_for_a_page_in_use),
	KUNIT_CASE(pages_of_some_mappings_stay),
	{ }
};

static struct kunit_suite migrate_suite = {
	.name = "hmm_devmem_migrate",
	.init = fixture_init,
	.test_cases = migrate_cases,
};

kunit_test_suite(migrate_suite);
