// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_fault: CPU faults when there is no memory for a window, and on a
 * lost page whose folio cannot be split; pages that are lost while they are locked.
 */

#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "../devmem.h"
#include "../pool.h"
#include "../txn.h"
#include "core_test.h"

/* Transactions of a window that are in reserve. */
#define RESERVE		2
/* A caller that waits for memory asks for it again and again. */
#define PATIENCE	8

static unsigned int nr_allocs;

/* There is no memory; only a caller that waits for it gets some in the end. */
static void *no_memory(gfp_t gfp, void *pool_data)
{
	if (++nr_allocs <= PATIENCE)
		return NULL;
	kunit_deactivate_static_stub(kunit_get_current_test(), hmm_devmem_txn_pool_alloc);
	return hmm_devmem_txn_pool_alloc(gfp, pool_data);
}

/* Read a byte of the test's process. Returns whether it can be read. */
static bool can_read(unsigned long addr)
{
	char byte;

	return !copy_from_user(&byte, (void __user *)addr, 1);
}

/* Map a block that is one large folio on the device. */
static unsigned long map_large(struct kunit *test, struct hmm_devmem *devmem)
{
	const unsigned long addr = map_on_device(test, devmem, 1);

	KUNIT_ASSERT_EQ(test, HMM_DEVMEM_BLOCK_ORDER,
			folio_order(pfn_folio(devmem->pfn_first)));
	return addr;
}

/* The task that has the last transaction could wait for the folio that the fault has locked. */
static void fault_does_not_wait_for_a_transaction(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, BLOCK_SIZE_BYTES);
	const unsigned long addr = map_large(test, devmem);
	struct hmm_devmem_txn *txns[RESERVE];
	struct hmm_devmem_stats stats;
	unsigned int i;

	nr_allocs = 0;
	kunit_activate_static_stub(test, hmm_devmem_txn_pool_alloc, no_memory);
	for (i = 0; i < RESERVE; i++) {
		txns[i] = hmm_devmem_txn_tryget(devmem, NULL, HMM_DEVMEM_BLOCK_NR);
		KUNIT_ASSERT_NOT_NULL(test, txns[i]);
	}
	KUNIT_ASSERT_NULL(test, hmm_devmem_txn_tryget(devmem, NULL, HMM_DEVMEM_BLOCK_NR));
	nr_allocs = 0;
	KUNIT_EXPECT_TRUE(test, can_read(addr));
	KUNIT_EXPECT_LE(test, nr_allocs, PATIENCE);
	if (nr_allocs <= PATIENCE)
		kunit_deactivate_static_stub(test, hmm_devmem_txn_pool_alloc);
	for (i = 0; i < RESERVE; i++)
		hmm_devmem_txn_put(txns[i]);
	/* The page has come back alone, with a transaction on the stack. */
	hmm_devmem_get_stats(devmem, &stats);
	KUNIT_EXPECT_EQ(test, 1, stats.fault_pages);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* It is still mapped: a fault on it is told from one on the other pages of the folio. */
static void lost_page_of_a_busy_block_cannot_be_read(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, BLOCK_SIZE_BYTES);
	const unsigned long addr = map_large(test, devmem);
	struct folio *folio = pfn_folio(devmem->pfn_first);

	folio_get(folio);
	hmm_devmem_poison(devmem, devmem->pfn_first + 3, 1);
	KUNIT_EXPECT_EQ(test, HMM_DEVMEM_BLOCK_ORDER, folio_order(folio));
	KUNIT_EXPECT_FALSE(test, can_read(addr + 3 * PAGE_SIZE));
	folio_put(folio);
	KUNIT_EXPECT_TRUE(test, can_read(addr + 4 * PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, can_read(addr + 3 * PAGE_SIZE));
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

struct loss {
	struct work_struct work;
	struct hmm_devmem *devmem;
	struct completion done;
};

static void lose_in_work(struct work_struct *work)
{
	struct loss *loss = container_of(work, struct loss, work);

	hmm_devmem_poison(loss->devmem, loss->devmem->pfn_first, 1);
	complete(&loss->done);
}

/* Else a removal, which waits for the poisoning, would not end either. */
static void poison_waits_for_no_folio_that_its_driver_keeps_locked(struct kunit *test)
{
	struct loss loss = { .devmem = add(test, &copying_ops, TEST_SIZE) };
	struct folio *folio = alloc(test, loss.devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);
	struct hmm_devmem_stats stats;

	KUNIT_ASSERT_EQ(test, folio_pfn(folio), loss.devmem->pfn_first);
	init_completion(&loss.done);
	INIT_WORK_ONSTACK(&loss.work, lose_in_work);
	queue_work(system_dfl_wq, &loss.work);
	KUNIT_EXPECT_TRUE(test, wait_for_completion_timeout(&loss.done, HANG_LIMIT));
	hmm_devmem_get_stats(loss.devmem, &stats);
	KUNIT_EXPECT_EQ(test, 1, stats.lost);
	release(folio);
	flush_work(&loss.work);
	destroy_work_on_stack(&loss.work);
	hmm_devmem_remove(loss.devmem);
}

/* Pages of a block that are lost when their migration has just looked for such pages. */
static const unsigned int lost_pages[] = { 3, 4, 77 };

static void map_loses(struct hmm_devmem *devmem, const struct hmm_devmem_copy *copy)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lost_pages); i++)
		hmm_devmem_pool_retire(priv(devmem)->pool,
				       devmem->pfn_first + lost_pages[i]);
}

static const struct hmm_devmem_ops losing_ops = {
	.copy_to_device = no_work,
	.copy_to_ram = no_work,
	.map = map_loses,
};

static void expect_lost(struct kunit *test, unsigned long size)
{
	struct hmm_devmem *devmem = add(test, &losing_ops, BLOCK_SIZE_BYTES);
	const unsigned long addr = map_blocks(test, 1), nr = size >> PAGE_SHIFT;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, nr,
			hmm_devmem_migrate_to_device(devmem, current->mm, addr,
						     addr + size, NULL));
	KUNIT_EXPECT_EQ(test, nr - ARRAY_SIZE(lost_pages), pages_used(devmem));
	for (i = 0; i < ARRAY_SIZE(lost_pages); i++)
		KUNIT_EXPECT_FALSE(test, can_read(addr + lost_pages[i] * PAGE_SIZE));
	KUNIT_EXPECT_TRUE(test, can_read(addr));
	KUNIT_EXPECT_TRUE(test, can_read(addr + 5 * PAGE_SIZE));
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* hmm_devmem_poison() does not see that a locked page becomes one of a process. */
static void page_lost_on_its_way_is_unmapped(struct kunit *test)
{
	expect_lost(test, BLOCK_SIZE_BYTES);
	expect_lost(test, BLOCK_SIZE_BYTES / 2);
}

static int fault_init(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	return fixture_init(test);
}

static struct kunit_case fault_cases[] = {
	KUNIT_CASE(fault_does_not_wait_for_a_transaction),
	KUNIT_CASE(lost_page_of_a_busy_block_cannot_be_read),
	KUNIT_CASE(poison_waits_for_no_folio_that_its_driver_keeps_locked),
	KUNIT_CASE(page_lost_on_its_way_is_unmapped),
	{ }
};

static struct kunit_suite fault_suite = {
	.name = "hmm_devmem_fault",
	.init = fault_init,
	.test_cases = fault_cases,
};

kunit_test_suite(fault_suite);
