// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_move: migration to a device that has not room for all
 * pages, calls that can be killed while they wait, allocation during a removal, and
 * eviction of pages that are freed and allocated again meanwhile.
 */

#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu-rwsem.h>
#include <linux/rmap.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/uaccess.h>

#include "../collect.h"
#include "../devmem.h"
#include "../fail.h"
#include "../pool.h"
#include "../segment.h"
#include "core_test.h"
#include "giver_test.h"

#define SEGMENT_SIZE	((unsigned long)PAGES_PER_SECTION << PAGE_SHIFT)
#define SEGMENT_BLOCKS	(SEGMENT_SIZE / BLOCK_SIZE_BYTES)
#define NR_MIGRATIONS	300

static struct hmm_devmem *add_flags(struct kunit *test,
				    const struct hmm_devmem_ops *ops,
				    unsigned long size, unsigned long flags)
{
	const struct hmm_devmem_desc desc = {
		.ops = ops,
		.size = size,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = flags,
		.nid = NUMA_NO_NODE,
	};
	struct hmm_devmem *devmem = hmm_devmem_add_desc(test_device(test), &desc);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

static u64 pages_evicted(struct hmm_devmem *devmem)
{
	struct hmm_devmem_stats stats;

	hmm_devmem_get_stats(devmem, &stats);
	return stats.evicted;
}

/* Room */

static void *memremap_fails(struct dev_pagemap *pagemap, int nid)
{
	return ERR_PTR(-ENOMEM);
}

/* Each block has a free page, none is whole, and no struct pages can be created. */
static void nobody_is_evicted_for_a_whole_block(struct kunit *test)
{
	struct hmm_devmem *devmem = add_flags(test, &copying_ops, 2 * SEGMENT_SIZE,
					      HMM_DEVMEM_LAZY | HMM_DEVMEM_RECLAIM);
	unsigned long others, own, addr, i;

	others = map_on_device(test, devmem, SEGMENT_BLOCKS);
	KUNIT_ASSERT_EQ(test, priv(devmem)->nr_populated, 1);
	for (i = 0; i < SEGMENT_BLOCKS; i++) {
		addr = others + i * BLOCK_SIZE_BYTES;
		KUNIT_ASSERT_EQ(test, 1,
				hmm_devmem_migrate_to_ram(devmem, current->mm, addr,
							  addr + PAGE_SIZE));
	}
	own = map_blocks(test, 1);
	kunit_activate_static_stub(test, hmm_devmem_memremap, memremap_fails);
	KUNIT_EXPECT_EQ(test, 8,
			hmm_devmem_migrate_to_device(devmem, current->mm, own,
						     own + 8 * PAGE_SIZE, NULL));
	KUNIT_EXPECT_EQ(test, 0, pages_evicted(devmem));
	kunit_deactivate_static_stub(test, hmm_devmem_memremap);

	/* Nor when struct pages can be created, which is done first. */
	KUNIT_EXPECT_EQ(test, HMM_DEVMEM_BLOCK_NR,
			hmm_devmem_migrate_to_device(devmem, current->mm, own,
						     own + BLOCK_SIZE_BYTES, NULL));
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 2);
	KUNIT_EXPECT_EQ(test, 0, pages_evicted(devmem));

	vm_munmap(others, SEGMENT_SIZE);
	vm_munmap(own, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* Core collects the hole as a whole, for which there is no large device folio. */
static void large_hole_gets_the_small_pages_that_there_are(struct kunit *test)
{
	const unsigned long nr = HMM_DEVMEM_BLOCK_NR / 4;
	struct hmm_devmem *devmem = add(test, &copying_ops, nr << PAGE_SHIFT);
	const unsigned long addr = map_blocks(test, 1);

	KUNIT_EXPECT_EQ(test, nr,
			hmm_devmem_migrate_to_device(devmem, current->mm, addr,
						     addr + BLOCK_SIZE_BYTES, NULL));
	KUNIT_EXPECT_EQ(test, nr, pages_used(devmem));
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* Whether there is memory is not decided by the first page of the window alone. */
static void page_in_ram_does_not_hide_that_memory_is_short(struct kunit *test)
{
	struct hmm_devmem *devmem;
	unsigned long addr;

	if (!IS_ENABLED(CONFIG_FAULT_INJECTION))
		kunit_skip(test, "no allocation can be made to fail");
	devmem = add(test, &copying_ops, BLOCK_SIZE_BYTES);
	addr = map_on_device(test, devmem, 1);
	KUNIT_ASSERT_EQ(test, 1,
			hmm_devmem_migrate_to_ram(devmem, current->mm, addr,
						  addr + PAGE_SIZE));
	priv(devmem)->fail_next = BIT(HMM_DEVMEM_FAIL_RAM);
	KUNIT_EXPECT_EQ(test, -ENOMEM,
			hmm_devmem_migrate_to_ram(devmem, current->mm, addr,
						  addr + 8 * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, priv(devmem)->fail_next, 0);
	KUNIT_EXPECT_EQ(test, 7,
			hmm_devmem_migrate_to_ram(devmem, current->mm, addr,
						  addr + 8 * PAGE_SIZE));
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* Struct pages are created, but as if other tasks had taken all their pages. */
static int populate_for_others(struct hmm_devmem_pool *pool, unsigned int idx)
{
	return 0;
}

static void alloc_folio_gives_up_if_others_are_faster(struct kunit *test)
{
	struct hmm_devmem *devmem = add_flags(test, &copying_ops, 12 * SEGMENT_SIZE,
					      HMM_DEVMEM_LAZY);

	kunit_activate_static_stub(test, hmm_devmem_pool_populate,
				   populate_for_others);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 8);
	kunit_deactivate_static_stub(test, hmm_devmem_pool_populate);
	hmm_devmem_remove(devmem);
}

/* An empty device is not taken for a full one when its last segment has just gone. */
static void migration_finds_pages_while_segments_go(struct kunit *test)
{
	struct hmm_devmem *devmem = add_flags(test, &copying_ops, SEGMENT_SIZE,
					      HMM_DEVMEM_LAZY);
	const unsigned long addr = map_blocks(test, 1);
	struct giver giver;
	long moved = 1;
	unsigned int i;

	giver_start(test, &giver, devmem);
	for (i = 0; i < NR_MIGRATIONS && moved == 1; i++) {
		moved = hmm_devmem_migrate_to_device(devmem, current->mm, addr,
						     addr + PAGE_SIZE, NULL);
		if (moved == 1)
			moved = hmm_devmem_migrate_to_ram(devmem, current->mm, addr,
							  addr + PAGE_SIZE);
	}
	giver_stop(&giver);
	KUNIT_EXPECT_EQ(test, i, NR_MIGRATIONS);
	KUNIT_EXPECT_EQ(test, moved, 1);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* Callers that are killed */

/**
 * struct caller - a thread that is killed in a call
 * @devmem: the argument of the call
 * @call: makes the call
 * @ret: result of the call
 * @started: completed before the call
 * @done: completed after the call
 */
struct caller {
	struct hmm_devmem *devmem;
	long (*call)(struct caller *caller);
	long ret;
	struct completion started;
	struct completion done;
};

static int caller_thread(void *data)
{
	struct caller *caller = data;

	allow_signal(SIGKILL);
	complete(&caller->started);
	caller->ret = caller->call(caller);
	complete(&caller->done);
	return 0;
}

static void start_caller(struct kunit *test, struct caller *caller,
			 struct task_struct **task)
{
	init_completion(&caller->started);
	init_completion(&caller->done);
	*task = kthread_create(caller_thread, caller, "hmm_devmem/caller");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, *task);
	get_task_struct(*task);
	wake_up_process(*task);
	wait_for_completion(&caller->started);
}

/* Kill a caller that waits. Returns whether the call has ended because of that. */
static bool caller_dies(struct kunit *test, struct caller *caller)
{
	struct task_struct *task;
	bool ret;

	start_caller(test, caller, &task);
	send_sig(SIGKILL, task, 1);
	ret = wait_for_completion_timeout(&caller->done, HANG_LIMIT);
	put_task_struct(task);
	return ret;
}

static void expect_death(struct kunit *test, struct caller *caller, bool died,
			 long ret)
{
	KUNIT_EXPECT_TRUE(test, died);
	if (!died)
		wait_for_completion(&caller->done);
	KUNIT_EXPECT_EQ(test, caller->ret, ret);
}

static long call_alloc_folio(struct caller *caller)
{
	struct folio *folio = hmm_devmem_alloc_folio(caller->devmem, 0, NULL);

	if (folio)
		release(folio);
	return folio ? 0 : -ENOMEM;
}

/* The lock is held as it is during an eviction by a slow device. */
static void alloc_folio_can_be_killed(struct kunit *test)
{
	struct hmm_devmem *devmem = add_flags(test, &copying_ops, SEGMENT_SIZE,
					      HMM_DEVMEM_LAZY);
	struct caller caller = { .devmem = devmem, .call = call_alloc_folio };
	bool died;

	down_read(&priv(devmem)->segments_lock);
	died = caller_dies(test, &caller);
	up_read(&priv(devmem)->segments_lock);
	expect_death(test, &caller, died, -ENOMEM);
	hmm_devmem_remove(devmem);
}

static long call_suspend(struct caller *caller)
{
	return hmm_devmem_suspend(caller->devmem);
}

/* The lock is held as by another suspend that evicts. */
static void suspend_can_be_killed(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, TEST_SIZE);
	struct caller caller = { .devmem = devmem, .call = call_suspend };
	bool died;

	mutex_lock(&priv(devmem)->suspend_lock);
	died = caller_dies(test, &caller);
	mutex_unlock(&priv(devmem)->suspend_lock);
	expect_death(test, &caller, died, -EINTR);
	hmm_devmem_remove(devmem);
}

/* Pages that are being allocated */

static long call_remove(struct caller *caller)
{
	hmm_devmem_remove(caller->devmem);
	return 0;
}

/* A page that was just taken from the pool does not look like one in use yet. */
static void remove_waits_for_alloc_folio(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, TEST_SIZE);
	struct caller caller = { .devmem = devmem, .call = call_remove };
	struct task_struct *task;

	hmm_devmem_get(devmem);
	KUNIT_EXPECT_TRUE(test, percpu_down_read_trylock(&priv(devmem)->handout));
	start_caller(test, &caller, &task);
	KUNIT_EXPECT_TRUE(test, soon(percpu_is_write_locked(&priv(devmem)->handout) ||
				     completion_done(&caller.done)));
	KUNIT_EXPECT_FALSE(test, READ_ONCE(priv(devmem)->gone));
	percpu_up_read(&priv(devmem)->handout);
	wait_for_completion(&caller.done);
	KUNIT_EXPECT_TRUE(test, priv(devmem)->gone);
	put_task_struct(task);
	hmm_devmem_put(devmem);
}

/* The caller of hmm_devmem_alloc_folio() can hold a lock that removal waits for. */
static void alloc_folio_does_not_wait_for_remove(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, TEST_SIZE);

	percpu_down_write(&priv(devmem)->handout);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
	percpu_up_write(&priv(devmem)->handout);
	release(alloc(test, devmem, 0, NULL));
	hmm_devmem_remove(devmem);
}

/* Eviction */

#define NR_OTHERS	16

/* Pages that take a large folio's place; references to the first one's anon_vma. */
static struct {
	struct hmm_devmem *devmem;
	unsigned long addr;
	long moved;
	unsigned long pfn;
	int before, during;
} others;

static int mapping_references(unsigned long pfn)
{
	const unsigned long mapping = (unsigned long)pfn_folio(pfn)->mapping;
	const struct anon_vma *anon_vma = (void *)(mapping & ~FOLIO_MAPPING_FLAGS);

	return atomic_read(&anon_vma->refcount);
}

/* Small folios take the place of the large one before core locks the pages. */
static void change_hands(unsigned long *pfns, unsigned int nr)
{
	const unsigned long start = others.addr + BLOCK_SIZE_BYTES;
	const unsigned long end = start + NR_OTHERS * PAGE_SIZE;
	unsigned int i;
	char byte;

	if (!others.moved) {
		others.moved = -EFAULT;
		if (!copy_from_user(&byte, (void __user *)others.addr, 1))
			others.moved = hmm_devmem_migrate_to_device(others.devmem,
								    current->mm, start,
								    end, NULL);
		for (i = 0; i < nr && !others.pfn; i++)
			if (folio_ref_count(pfn_folio(pfns[i])))
				others.pfn = pfns[i];
		others.before = mapping_references(others.pfn);
	}
	migrate_device_pfns(pfns, nr);
}

static int note_references(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	if (others.pfn && !others.during)
		others.during = mapping_references(others.pfn);
	return 0;
}

/* Core holds each page's anon_vma: the process of any of them can exit. */
static void eviction_holds_mappings_of_pages_that_came_meanwhile(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = note_references,
	};
	struct hmm_devmem *devmem = add(test, &ops, BLOCK_SIZE_BYTES);

	memset(&others, 0, sizeof(others));
	others.devmem = devmem;
	others.addr = map_blocks(test, 2);
	KUNIT_ASSERT_EQ(test, HMM_DEVMEM_BLOCK_NR,
			hmm_devmem_migrate_to_device(devmem, current->mm, others.addr,
						     others.addr + BLOCK_SIZE_BYTES, NULL));
	KUNIT_ASSERT_EQ(test, folio_order(pfn_folio(devmem->pfn_first)),
			HMM_DEVMEM_BLOCK_ORDER);
	kunit_activate_static_stub(test, hmm_devmem_collect_pfns, change_hands);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_evict(devmem, devmem->pfn_first,
						  HMM_DEVMEM_BLOCK_NR, NULL));
	kunit_deactivate_static_stub(test, hmm_devmem_collect_pfns);
	KUNIT_EXPECT_EQ(test, others.moved, NR_OTHERS);
	KUNIT_EXPECT_EQ(test, others.during, others.before + NR_OTHERS);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
	vm_munmap(others.addr, 2 * BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/*
 * The references to the anon_vma that a migration by pfn of two pages adds while it lasts.
 * @ram: Where the pages move to, or NULL if they stay.
 */
static int references_of_migration(struct kunit *test, unsigned long pfn, struct folio **ram)
{
	unsigned long src[2] = { pfn, pfn + 1 }, dst[2] = { };
	int before, during, i;

	before = mapping_references(pfn);
	migrate_device_pfns(src, 2);
	during = mapping_references(pfn);
	for (i = 0; i < 2 && ram; i++) {
		ram[i] = folio_alloc(GFP_HIGHUSER_MOVABLE, 0);
		KUNIT_ASSERT_NOT_NULL(test, ram[i]);
		folio_lock(ram[i]);
		folio_zero_range(ram[i], 0, PAGE_SIZE);
		dst[i] = migrate_pfn(folio_pfn(ram[i]));
	}
	migrate_device_pages(src, dst, 2);
	migrate_device_finalize(src, dst, 2);
	return during - before;
}

/*
 * A driver that evicts by itself needs this of core: the last process that maps a page can
 * exit while the page is copied.
 */
static void core_holds_mappings_in_a_migration_by_pfn(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, BLOCK_SIZE_BYTES);
	const unsigned long addr = map_blocks(test, 1), pfn = devmem->pfn_first;
	unsigned long src[2] = { pfn };
	struct folio *ram[2];
	int before;

	KUNIT_ASSERT_EQ(test, 2, hmm_devmem_migrate_to_device(devmem, current->mm, addr,
							      addr + 2 * PAGE_SIZE, NULL));
	before = mapping_references(pfn);
	KUNIT_EXPECT_EQ(test, 2, references_of_migration(test, pfn, NULL));
	KUNIT_EXPECT_EQ(test, before, mapping_references(pfn));

	/* Core lets a page that is in use go at once, or later if it has one reference. */
	folio_ref_add(pfn_folio(pfn), 2);
	KUNIT_EXPECT_EQ(test, 1, references_of_migration(test, pfn, NULL));
	KUNIT_EXPECT_EQ(test, before, mapping_references(pfn));
	folio_put_refs(pfn_folio(pfn), 2);
	folio_get(pfn_folio(pfn + 1));
	KUNIT_EXPECT_EQ(test, 2, references_of_migration(test, pfn, ram));
	KUNIT_EXPECT_EQ(test, 1, folio_mapcount(ram[0]));
	KUNIT_EXPECT_EQ(test, before, mapping_references(pfn + 1));

	/* Its process has unmapped it: its anon_vma can be gone. */
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	src[0] = pfn + 1;
	migrate_device_pfns(src, 1);
	KUNIT_EXPECT_EQ(test, 0, src[0]);
	folio_put(pfn_folio(pfn + 1));
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
	hmm_devmem_remove(devmem);
}

static struct kunit_case move_cases[] = {
	KUNIT_CASE(nobody_is_evicted_for_a_whole_block),
	KUNIT_CASE(large_hole_gets_the_small_pages_that_there_are),
	KUNIT_CASE(page_in_ram_does_not_hide_that_memory_is_short),
	KUNIT_CASE(alloc_folio_gives_up_if_others_are_faster),
	KUNIT_CASE_SLOW(migration_finds_pages_while_segments_go),
	KUNIT_CASE(alloc_folio_can_be_killed),
	KUNIT_CASE(suspend_can_be_killed),
	KUNIT_CASE(remove_waits_for_alloc_folio),
	KUNIT_CASE(alloc_folio_does_not_wait_for_remove),
	KUNIT_CASE(eviction_holds_mappings_of_pages_that_came_meanwhile),
	KUNIT_CASE(core_holds_mappings_in_a_migration_by_pfn),
	{ }
};

static struct kunit_suite move_suite = {
	.name = "hmm_devmem_move",
	.init = fixture_init,
	.test_cases = move_cases,
};

kunit_test_suite(move_suite);
