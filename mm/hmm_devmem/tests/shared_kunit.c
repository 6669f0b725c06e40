// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_shared: blocks that a memory manager of the driver lends.
 */

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/percpu-rwsem.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/shrinker.h>
#include <linux/workqueue.h>

#include "../fail.h"
#include "../pool.h"
#include "../reclaim.h"
#include "../segment.h"
#include "shared_test.h"

static u64 offset_of(struct folio *folio)
{
	return ALIGN_DOWN(hmm_devmem_page_offset(&folio->page), BLOCK_SIZE_BYTES);
}

/* What can be added */

static void add_needs_callbacks_and_whole_blocks(struct kunit *test)
{
	struct hmm_devmem_desc desc = {
		.ops = &copying_ops,
		.size = 4 * BLOCK_SIZE_BYTES,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = HMM_DEVMEM_SHARED,
		.nid = NUMA_NO_NODE,
	};

	KUNIT_EXPECT_EQ(test, -EINVAL, PTR_ERR(hmm_devmem_add_desc(test_device(test), &desc)));
	desc.ops = &shared_ops;
	desc.size += PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, -EINVAL, PTR_ERR(hmm_devmem_add_desc(test_device(test), &desc)));
	desc.size -= PAGE_SIZE;
	desc.flags = HMM_DEVMEM_LAZY;
	desc.reserve = BLOCK_SIZE_BYTES;
	KUNIT_EXPECT_EQ(test, -EINVAL, PTR_ERR(hmm_devmem_add_desc(test_device(test), &desc)));
	expect_nothing_changed(test);
}

/* Get and put */

static void library_has_nothing_until_it_needs_it(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 2 * SECTION_BLOCKS, 0, 0);
	unsigned long addr;

	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	addr = map_on_device(test, devmem, 3);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 3);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 1);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 3 * HMM_DEVMEM_BLOCK_NR);
	vm_munmap(addr, 3 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
	expect_events(test, "kc");
}

/* The pages go where the manager has free blocks. */
static void struct_pages_are_those_of_the_blocks(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 2 * SECTION_BLOCKS, 0, 0);
	struct manager *manager = test_manager(test);
	struct folio *folio;

	bitmap_fill(manager->buffers, 2 * SECTION_BLOCKS);
	__clear_bit(SECTION_BLOCKS + 5, manager->buffers);
	folio = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);
	KUNIT_EXPECT_EQ(test, offset_of(folio), (SECTION_BLOCKS + 5) * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_pfn_populated(devmem, folio_pfn(folio)));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, devmem->pfn_first));
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
	release(folio);
	remove_shared(test, devmem);
}

static void pages_of_others_are_never_allocated(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct manager *manager = test_manager(test);
	struct hmm_devmem_pool_stats stats;
	struct folio *folios[2];

	bitmap_fill(manager->buffers, 8);
	__clear_bit(2, manager->buffers);
	folios[0] = alloc(test, devmem, 0, NULL);
	folios[1] = alloc(test, devmem, 8, NULL);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 9, NULL));
	KUNIT_EXPECT_EQ(test, offset_of(folios[0]), 2 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, offset_of(folios[1]), 2 * BLOCK_SIZE_BYTES);
	hmm_devmem_pool_drain(priv(devmem)->pool);
	hmm_devmem_pool_get_stats(priv(devmem)->pool, &stats);
	KUNIT_EXPECT_EQ(test, stats.total, HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, stats.used, 257);
	KUNIT_EXPECT_EQ(test, stats.free, HMM_DEVMEM_BLOCK_NR - 257);
	release(folios[0]);
	release(folios[1]);
	remove_shared(test, devmem);
}

static void run_worker(struct hmm_devmem *devmem)
{
	mod_delayed_work(system_dfl_wq, &priv(devmem)->shrink_work, 0);
	flush_delayed_work(&priv(devmem)->shrink_work);
}

/* The worker is faster here than in reality. */
static void worker_puts_blocks_that_are_idle(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	run_worker(devmem);
	run_worker(devmem);
	run_worker(devmem);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	release(folio);
	KUNIT_EXPECT_TRUE(test, soon((run_worker(devmem), !nr_lent(test))));
	/* Nothing is left of the section then. */
	KUNIT_EXPECT_TRUE(test, soon((run_worker(devmem), !READ_ONCE(priv(devmem)->nr_populated))));
	folio = alloc(test, devmem, 0, NULL);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	release(folio);
	remove_shared(test, devmem);
}

static void segment_stays_while_a_block_is_lent(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);

	release(alloc(test, devmem, 0, NULL));
	hmm_devmem_pool_drain(priv(devmem)->pool);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_pool_depopulate(priv(devmem)->pool, 0));
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, 1), BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	remove_shared(test, devmem);
}

/* Core calls the shrinker when memory is short. */
static void struct_pages_go_when_memory_is_short(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, SECTION_BLOCKS, 0, 0);
	struct shrinker *shrinker = priv(devmem)->shrinker;
	struct shrink_control sc = { .gfp_mask = GFP_KERNEL };

	release(alloc(test, devmem, 0, NULL));
	shrinker->scan_objects(shrinker, &sc);
	flush_delayed_work(&priv(devmem)->shrink_work);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	remove_shared(test, devmem);
}

/* Order on need */

static void own_blocks_go_before_buffers(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, HMM_DEVMEM_RECLAIM, 6);
	struct manager *manager = test_manager(test);
	unsigned long one, two;

	/* Four blocks are free, the others have buffers. */
	bitmap_set(manager->buffers, 4, 4);
	one = map_on_device(test, devmem, 3);
	KUNIT_EXPECT_STREQ(test, manager->gets, "f");
	/* One is free, then one is evicted of the library's, though it is below its reserve. */
	two = map_blocks(test, 2);
	KUNIT_EXPECT_EQ(test, to_device(devmem, two, 2), 2 * HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, manager->gets[1], 'f');
	KUNIT_EXPECT_NULL(test, strchr(manager->gets, 'e'));
	KUNIT_EXPECT_EQ(test, nr_lent(test), 4);
	KUNIT_EXPECT_EQ(test, bitmap_weight(manager->buffers, 8), 4);
	vm_munmap(one, 3 * BLOCK_SIZE_BYTES);
	vm_munmap(two, 2 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void buffers_go_up_to_the_reserve(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, HMM_DEVMEM_RECLAIM, 3);
	struct manager *manager = test_manager(test);
	unsigned long addr = map_blocks(test, 5);

	bitmap_fill(manager->buffers, 8);
	/* All of the range is its own, so nothing of the library's is evicted. */
	KUNIT_EXPECT_EQ(test, to_device(devmem, addr, 5), 3 * HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 3);
	KUNIT_EXPECT_EQ(test, bitmap_weight(manager->buffers, 8), 5);
	KUNIT_EXPECT_EQ(test, manager->gets[0], 'n');
	vm_munmap(addr, 5 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void no_reserve_evicts_no_buffer(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	unsigned long addr = map_blocks(test, 1);

	bitmap_fill(test_manager(test)->buffers, 8);
	KUNIT_EXPECT_EQ(test, to_device(devmem, addr, 1), 0);
	KUNIT_EXPECT_NULL(test, strchr(test_manager(test)->gets, 'e'));
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void get_that_fails_leaves_pages_in_ram(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	unsigned long addr = map_blocks(test, 1);

	if (!IS_ENABLED(CONFIG_FAULT_INJECTION))
		kunit_skip(test, "needs CONFIG_FAULT_INJECTION");
	priv(devmem)->fail_next = BIT(HMM_DEVMEM_FAIL_BLOCKS);
	KUNIT_EXPECT_EQ(test, to_device(devmem, addr, 1), 0);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	KUNIT_EXPECT_EQ(test, to_device(devmem, addr, 1), HMM_DEVMEM_BLOCK_NR);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void *memremap_fails(struct dev_pagemap *pagemap, int nid)
{
	return ERR_PTR(-ENOMEM);
}

static void block_without_struct_pages_is_put(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);

	kunit_activate_static_stub(test, hmm_devmem_memremap, memremap_fails);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
	kunit_deactivate_static_stub(test, hmm_devmem_memremap);
	KUNIT_EXPECT_GT(test, test_manager(test)->puts, 0);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	release(alloc(test, devmem, 0, NULL));
	remove_shared(test, devmem);
}

/* Withdraw */

static void withdraw_moves_pages_back(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, HMM_DEVMEM_RECLAIM, 8);
	unsigned long addr = map_on_device(test, devmem, 2);

	/* The reserve keeps nothing from being withdrawn. */
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	KUNIT_EXPECT_FALSE(test, test_bit(0, test_manager(test)->lent));
	KUNIT_EXPECT_EQ(test, pages_used(devmem), HMM_DEVMEM_BLOCK_NR);
	/* It is the driver's already. */
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), 0);
	KUNIT_EXPECT_EQ(test, test_manager(test)->puts, 1);
	vm_munmap(addr, 2 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void withdraw_of_page_in_use_is_busy(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct folio *folio = alloc(test, devmem, 0, NULL);
	struct hmm_devmem_pool *pool = priv(devmem)->pool;
	unsigned long pfn;

	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	KUNIT_EXPECT_EQ(test, pool->nr_withheld, 0);
	/* Its other pages are handed out again. */
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_alloc(pool, 0, &pfn));
	hmm_devmem_pool_free(pool, pfn, 0);
	release(folio);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), 0);
	remove_shared(test, devmem);
}

static void withdraw_checks_its_arguments(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0), *other;

	other = add(test, &copying_ops, TEST_SIZE);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(other, 0), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(other, 1), 0);
	hmm_devmem_remove(other);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 8 * BLOCK_SIZE_BYTES), -EINVAL);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, U64_MAX), -EINVAL);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, U64_MAX), 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, 0), 0);
	hmm_devmem_get(devmem);
	remove_shared(test, devmem);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), -ENODEV);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, 1), 0);
	hmm_devmem_put(devmem);
}

static int withdrawn_while_got;

static void withdraw_what_is_got(struct hmm_devmem *devmem, u64 *offsets, unsigned int nr)
{
	if (nr)
		withdrawn_while_got = hmm_devmem_withdraw(devmem, offsets[0]);
}

/* The manager has allocated the block, and evicts it before get_blocks() has returned. */
static void block_that_is_being_got_is_busy(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct manager *manager = test_manager(test);
	struct folio *folio;

	withdrawn_while_got = 1;
	manager->hook = withdraw_what_is_got;
	folio = alloc(test, devmem, 0, NULL);
	KUNIT_EXPECT_EQ(test, withdrawn_while_got, -EBUSY);
	KUNIT_EXPECT_EQ(test, manager->puts, 0);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	manager->hook = NULL;
	release(folio);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), 0);
	remove_shared(test, devmem);
}

static u64 shrunk_while_got;

static void shrink_while_getting(struct hmm_devmem *devmem, u64 *offsets, unsigned int nr)
{
	shrunk_while_got += hmm_devmem_shrink(devmem, BLOCK_SIZE_BYTES);
}

/* As a manager that evicts by its own order, of which the library's blocks are a part. */
static void get_blocks_can_give_blocks_back(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	unsigned long one = map_on_device(test, devmem, 2), two;

	shrunk_while_got = 0;
	test_manager(test)->hook = shrink_while_getting;
	two = map_on_device(test, devmem, 1);
	test_manager(test)->hook = NULL;
	KUNIT_EXPECT_EQ(test, shrunk_while_got, BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 2);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 2 * HMM_DEVMEM_BLOCK_NR);
	vm_munmap(one, 2 * BLOCK_SIZE_BYTES);
	vm_munmap(two, BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

/* The caller can hold a lock that a migration, for which removal waits, needs. */
static void alloc_folio_does_not_wait_for_removal(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);

	percpu_down_write(&priv(devmem)->intake);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
	percpu_up_write(&priv(devmem)->intake);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	release(alloc(test, devmem, 0, NULL));
	remove_shared(test, devmem);
}

static int withdrawn_in_copy;

static int withdraw_in_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	withdrawn_in_copy = hmm_devmem_withdraw(devmem, copy->runs->offset);
	return 0;
}

/* The pages are locked, and those on the device are not mapped yet. */
static void block_of_transaction_in_flight_is_busy(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = withdraw_in_copy,
		.copy_to_ram = no_work,
		.get_blocks = manager_get,
		.put_block = manager_put,
	};
	struct hmm_devmem *devmem = add_shared_ops(test, &ops, 8, 0, 0);
	unsigned long addr;

	withdrawn_in_copy = 1;
	addr = map_on_device(test, devmem, 1);
	KUNIT_EXPECT_EQ(test, withdrawn_in_copy, -EBUSY);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), 0);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static struct folio *allocated_in_copy;
static int second_withdraw;

static int allocate_in_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	second_withdraw = hmm_devmem_withdraw(devmem, copy->runs->offset);
	allocated_in_copy = hmm_devmem_alloc_folio(devmem, 0, NULL);
	return 0;
}

/* No page of a block is allocated while it is leaving, and it leaves once. */
static void block_that_leaves_is_not_used(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = allocate_in_copy,
		.get_blocks = manager_get,
		.put_block = manager_put,
	};
	struct hmm_devmem *devmem = add_shared_ops(test, &ops, 8, 0, 0);
	struct folio *folio = alloc(test, devmem, 0, NULL);
	unsigned long addr = map_blocks(test, 1);

	bitmap_set(test_manager(test)->buffers, 1, 7);
	KUNIT_ASSERT_EQ(test, 4, hmm_devmem_migrate_to_device(devmem, current->mm, addr,
							      addr + 4 * PAGE_SIZE, NULL));
	allocated_in_copy = folio;
	second_withdraw = 1;
	release(folio);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), 0);
	KUNIT_EXPECT_NULL(test, allocated_in_copy);
	KUNIT_EXPECT_EQ(test, second_withdraw, -EBUSY);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static int refuse_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	return -EIO;
}

static void block_that_cannot_be_copied_stays(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = refuse_copy,
		.get_blocks = manager_get,
		.put_block = manager_put,
	};
	struct hmm_devmem *devmem = add_shared_ops(test, &ops, 8, 0, 0);
	unsigned long addr = map_on_device(test, devmem, 1);

	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

/* Shrink */

static void shrink_gives_empty_blocks_first(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, HMM_DEVMEM_RECLAIM, 0);
	unsigned long addr = map_on_device(test, devmem, 4);

	/* The block in the middle is empty then. */
	vm_munmap(addr + 2 * BLOCK_SIZE_BYTES, BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, 1), BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 3 * HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, 8 * BLOCK_SIZE_BYTES),
			3 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 0);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	vm_munmap(addr, 4 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void shrink_gives_the_coldest_first(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, HMM_DEVMEM_RECLAIM, 0);
	unsigned long addr = map_on_device(test, devmem, 6);
	unsigned int i;

	for (i = 0; i < 6; i++)
		if (i != 4)
			hmm_devmem_mark_used(devmem, devmem->pfn_first +
					     i * HMM_DEVMEM_BLOCK_NR, 1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, BLOCK_SIZE_BYTES), BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_FALSE(test, test_bit(4, test_manager(test)->lent));
	vm_munmap(addr, 6 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void shrink_keeps_the_reserve(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 2);
	unsigned long addr = map_on_device(test, devmem, 5);

	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, U64_MAX), 3 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 2);
	vm_munmap(addr, 5 * BLOCK_SIZE_BYTES);
	/* Blocks without pages in use are no use to the library. */
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, U64_MAX), 2 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void shrink_passes_over_busy_blocks(struct kunit *test, unsigned long flags)
{
	struct hmm_devmem *devmem = add_shared(test, 8, flags, 0);
	struct folio *folio = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);
	unsigned long addr = map_on_device(test, devmem, 3);

	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, U64_MAX), 3 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	release(folio);
	vm_munmap(addr, 3 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void shrink_passes_over_busy_blocks_by_policy(struct kunit *test)
{
	shrink_passes_over_busy_blocks(test, HMM_DEVMEM_RECLAIM);
}

static void shrink_passes_over_busy_blocks_in_order(struct kunit *test)
{
	shrink_passes_over_busy_blocks(test, 0);
}

/* lockdep would report a lock that is held while memory is allocated. */
static void shrink_works_in_direct_reclaim(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, HMM_DEVMEM_RECLAIM, 0);
	unsigned long addr = map_on_device(test, devmem, 2);
	unsigned int flags;
	u64 bytes;

	fs_reclaim_acquire(GFP_KERNEL);
	flags = memalloc_noreclaim_save();
	bytes = hmm_devmem_shrink(devmem, 2 * BLOCK_SIZE_BYTES);
	memalloc_noreclaim_restore(flags);
	fs_reclaim_release(GFP_KERNEL);
	KUNIT_EXPECT_EQ(test, bytes, 2 * BLOCK_SIZE_BYTES);
	vm_munmap(addr, 2 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static struct folio *allocated_by_thread;

static int alloc_thread(void *data)
{
	allocated_by_thread = hmm_devmem_alloc_folio(data, HMM_DEVMEM_BLOCK_ORDER, NULL);
	return 0;
}

/* A lock that get_blocks() takes, as a dma_resv. */
static DEFINE_MUTEX(resv);
static struct completion wants_resv;

static void take_resv(struct hmm_devmem *devmem, u64 *offsets, unsigned int nr)
{
	complete(&wants_resv);
	guard(mutex)(&resv);
}

/* Another CPU is in get_blocks() and waits for the lock that the caller holds. */
static void shrink_under_a_lock_that_get_blocks_waits_for(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	unsigned long addr = map_on_device(test, devmem, 2);
	struct task_struct *task;

	init_completion(&wants_resv);
	allocated_by_thread = NULL;
	mutex_lock(&resv);
	test_manager(test)->hook = take_resv;
	task = kthread_create(alloc_thread, devmem, "hmm_devmem/alloc");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	get_task_struct(task);
	wake_up_process(task);
	wait_for_completion(&wants_resv);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, 1), BLOCK_SIZE_BYTES);
	/* The block that is being got, and all that may be. */
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 2 * BLOCK_SIZE_BYTES), -EBUSY);
	mutex_unlock(&resv);
	kthread_stop_put(task);
	KUNIT_EXPECT_NOT_NULL(test, allocated_by_thread);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	if (allocated_by_thread)
		release(allocated_by_thread);
	vm_munmap(addr, 2 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

/* Managers with errors */

static void manager_that_gives_nothing(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);

	bitmap_fill(test_manager(test)->buffers, 8);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
	KUNIT_EXPECT_EQ(test, priv(devmem)->nr_populated, 0);
	remove_shared(test, devmem);
}

static void manager_that_gives_fewer(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	unsigned long addr;

	test_manager(test)->max = 1;
	addr = map_on_device(test, devmem, 4);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 4);
	vm_munmap(addr, 4 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

/* A block that cannot be given is refused, and others are used. */
static void expect_refused(struct kunit *test, u64 offset)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct manager *manager = test_manager(test);
	struct folio *first = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL), *second;

	manager->bad = offset;
	manager->give_bad = 3;
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, HMM_DEVMEM_BLOCK_ORDER, NULL));
	KUNIT_EXPECT_TRUE(test, priv(devmem)->backing->complained);
	KUNIT_EXPECT_EQ(test, priv(devmem)->backing->nr_lent, 1);
	manager->give_bad = 0;
	second = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);
	KUNIT_EXPECT_PTR_NE(test, first, second);
	KUNIT_EXPECT_EQ(test, manager->puts, 0);
	release(first);
	release(second);
	remove_shared(test, devmem);
}

static void manager_that_gives_a_lent_block(struct kunit *test)
{
	expect_refused(test, 0);
}

static void manager_that_gives_unaligned_blocks(struct kunit *test)
{
	expect_refused(test, BLOCK_SIZE_BYTES + PAGE_SIZE);
}

static void manager_that_gives_blocks_out_of_range(struct kunit *test)
{
	expect_refused(test, 8 * BLOCK_SIZE_BYTES);
}

static void manager_that_gives_the_last_offset(struct kunit *test)
{
	expect_refused(test, ALIGN_DOWN(U64_MAX, BLOCK_SIZE_BYTES));
}

static unsigned int get_same_twice(struct hmm_devmem *devmem, u64 *offsets,
				   unsigned int nr, bool may_evict)
{
	unsigned int got = manager_get(devmem, offsets, 1, may_evict);

	if (got && nr > 1)
		offsets[got++] = offsets[0];
	return got;
}

static void manager_that_gives_a_block_twice(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = no_work,
		.get_blocks = get_same_twice,
		.put_block = manager_put,
	};
	struct hmm_devmem *devmem = add_shared_ops(test, &ops, 8, 0, 0);
	unsigned long addr = map_on_device(test, devmem, 2);

	KUNIT_EXPECT_EQ(test, pages_used(devmem), 2 * HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 2);
	vm_munmap(addr, 2 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static unsigned int get_too_many(struct hmm_devmem *devmem, u64 *offsets,
				 unsigned int nr, bool may_evict)
{
	return manager_get(devmem, offsets, nr, may_evict) ? UINT_MAX : 0;
}

static void manager_that_gives_too_many(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = no_work,
		.get_blocks = get_too_many,
		.put_block = manager_put,
	};
	struct hmm_devmem *devmem = add_shared_ops(test, &ops, 8, 0, 0);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	KUNIT_EXPECT_EQ(test, priv(devmem)->backing->nr_lent, 1);
	release(folio);
	remove_shared(test, devmem);
}

/* Lost pages */

static void block_with_a_retired_page_stays(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	unsigned long addr = map_on_device(test, devmem, 2);

	hmm_devmem_poison(devmem, devmem->pfn_first + 7, 1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), -EBUSY);
	/* Nothing was moved in vain. */
	KUNIT_EXPECT_EQ(test, pages_used(devmem), 2 * HMM_DEVMEM_BLOCK_NR - 1);
	vm_munmap(addr, 2 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, U64_MAX), BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, hmm_devmem_suspend(devmem), 0);
	hmm_devmem_resume(devmem);
	remove_shared_but(test, devmem, 1);
	KUNIT_EXPECT_TRUE(test, test_bit(0, test_manager(test)->lent));
}

/* Whether the block's section has struct pages at that time or not. */
static void retired_page_of_the_drivers_is_not_used(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct hmm_devmem_pool *pool = priv(devmem)->pool;
	struct hmm_devmem_pool_stats stats;
	struct folio *folio;

	hmm_devmem_poison(devmem, devmem->pfn_first, 1);
	folio = alloc(test, devmem, 0, NULL);
	KUNIT_EXPECT_EQ(test, folio_pfn(folio), devmem->pfn_first + 1);
	hmm_devmem_poison(devmem, devmem->pfn_first + HMM_DEVMEM_BLOCK_NR, 2);
	hmm_devmem_pool_drain(pool);
	hmm_devmem_pool_get_stats(pool, &stats);
	KUNIT_EXPECT_EQ(test, stats.total, HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, stats.free, HMM_DEVMEM_BLOCK_NR - 2);
	KUNIT_EXPECT_EQ(test, stats.retired, 3);
	release(folio);
	/* The first block with room for it is the third one. */
	folio = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);
	KUNIT_EXPECT_EQ(test, offset_of(folio), 2 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 3);
	release(folio);
	remove_shared_but(test, devmem, 2);
}

/* Suspend and removal */

static void suspend_gives_all_back(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, HMM_DEVMEM_RECLAIM, 4);
	unsigned long addr = map_on_device(test, devmem, 3);

	KUNIT_EXPECT_EQ(test, hmm_devmem_suspend(devmem), 0);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	KUNIT_EXPECT_EQ(test, to_device(devmem, addr, 3), -EAGAIN);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 0);
	hmm_devmem_resume(devmem);
	KUNIT_EXPECT_EQ(test, to_device(devmem, addr, 3), 3 * HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 3);
	vm_munmap(addr, 3 * BLOCK_SIZE_BYTES);
	remove_shared(test, devmem);
}

static void suspend_that_fails_keeps_blocks(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	KUNIT_EXPECT_EQ(test, hmm_devmem_suspend(devmem), -EBUSY);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	release(folio);
	remove_shared(test, devmem);
}

static void removal_puts_all_blocks(struct kunit *test)
{
	struct hmm_devmem *devmem = add_shared(test, 2 * SECTION_BLOCKS, 0, 0);
	unsigned long addr = map_on_device(test, devmem, SECTION_BLOCKS + 2);

	remove_shared(test, devmem);
	expect_events(test, "kc");
	KUNIT_EXPECT_EQ(test, test_manager(test)->puts, SECTION_BLOCKS + 2);
	vm_munmap(addr, (SECTION_BLOCKS + 2) * BLOCK_SIZE_BYTES);
}

/* What is left when cleanup is called is a zombie's, and is not put later. */
static void removal_leaves_blocks_of_zombies(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add_shared(test, 8, 0, 0);
	struct folio *folio = alloc(test, devmem, 0, NULL);
	unsigned long addr = map_on_device(test, devmem, 2);

	remove_shared_but(test, devmem, 1);
	KUNIT_EXPECT_TRUE(test, test_bit(0, test_manager(test)->lent));
	expect_events(test, "kc");
	release(folio);
	wait_for_regions(test, fixture->nr_regions);
	KUNIT_EXPECT_EQ(test, nr_lent(test), 1);
	vm_munmap(addr, 2 * BLOCK_SIZE_BYTES);
}

/* Coherent memory */

static void coherent_blocks_are_lent(struct kunit *test)
{
	struct resource *res = get_region(test, SECTION_BYTES);
	const struct hmm_devmem_desc desc = {
		.ops = &shared_ops,
		.res = res,
		.type = MEMORY_DEVICE_COHERENT,
		.flags = HMM_DEVMEM_SHARED,
		.nid = NUMA_NO_NODE,
	};
	struct manager *manager = test_manager(test);
	struct hmm_devmem *devmem;
	struct folio *folio;

	manager->nr_blocks = SECTION_BLOCKS;
	__set_bit(0, manager->buffers);
	devmem = hmm_devmem_add_desc(test_device(test), &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	folio = alloc(test, devmem, 0, NULL);
	KUNIT_EXPECT_EQ(test, folio_pfn(folio), PHYS_PFN(res->start) + HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, BLOCK_SIZE_BYTES), -EBUSY);
	release(folio);
	KUNIT_EXPECT_EQ(test, hmm_devmem_withdraw(devmem, BLOCK_SIZE_BYTES), 0);
	remove_shared(test, devmem);
}

static struct kunit_case shared_cases[] = {
	KUNIT_CASE(add_needs_callbacks_and_whole_blocks),
	KUNIT_CASE(library_has_nothing_until_it_needs_it),
	KUNIT_CASE(struct_pages_are_those_of_the_blocks),
	KUNIT_CASE(pages_of_others_are_never_allocated),
	KUNIT_CASE(worker_puts_blocks_that_are_idle),
	KUNIT_CASE(segment_stays_while_a_block_is_lent),
	KUNIT_CASE(struct_pages_go_when_memory_is_short),
	KUNIT_CASE(own_blocks_go_before_buffers),
	KUNIT_CASE(buffers_go_up_to_the_reserve),
	KUNIT_CASE(no_reserve_evicts_no_buffer),
	KUNIT_CASE(get_that_fails_leaves_pages_in_ram),
	KUNIT_CASE(block_without_struct_pages_is_put),
	KUNIT_CASE(withdraw_moves_pages_back),
	KUNIT_CASE(withdraw_of_page_in_use_is_busy),
	KUNIT_CASE(withdraw_checks_its_arguments),
	KUNIT_CASE(block_that_is_being_got_is_busy),
	KUNIT_CASE(get_blocks_can_give_blocks_back),
	KUNIT_CASE(alloc_folio_does_not_wait_for_removal),
	KUNIT_CASE(block_of_transaction_in_flight_is_busy),
	KUNIT_CASE(block_that_leaves_is_not_used),
	KUNIT_CASE(block_that_cannot_be_copied_stays),
	KUNIT_CASE(shrink_gives_empty_blocks_first),
	KUNIT_CASE(shrink_gives_the_coldest_first),
	KUNIT_CASE(shrink_keeps_the_reserve),
	KUNIT_CASE(shrink_passes_over_busy_blocks_by_policy),
	KUNIT_CASE(shrink_passes_over_busy_blocks_in_order),
	KUNIT_CASE(shrink_works_in_direct_reclaim),
	KUNIT_CASE(shrink_under_a_lock_that_get_blocks_waits_for),
	KUNIT_CASE(manager_that_gives_nothing),
	KUNIT_CASE(manager_that_gives_fewer),
	KUNIT_CASE(manager_that_gives_a_lent_block),
	KUNIT_CASE(manager_that_gives_unaligned_blocks),
	KUNIT_CASE(manager_that_gives_blocks_out_of_range),
	KUNIT_CASE(manager_that_gives_the_last_offset),
	KUNIT_CASE(manager_that_gives_a_block_twice),
	KUNIT_CASE(manager_that_gives_too_many),
	KUNIT_CASE(block_with_a_retired_page_stays),
	KUNIT_CASE(retired_page_of_the_drivers_is_not_used),
	KUNIT_CASE(suspend_gives_all_back),
	KUNIT_CASE_SLOW(suspend_that_fails_keeps_blocks),
	KUNIT_CASE(removal_puts_all_blocks),
	KUNIT_CASE_SLOW(removal_leaves_blocks_of_zombies),
	KUNIT_CASE(coherent_blocks_are_lent),
	{ }
};

static struct kunit_suite shared_suite = {
	.name = "hmm_devmem_shared",
	.init = shared_init,
	.test_cases = shared_cases,
};

kunit_test_suite(shared_suite);
