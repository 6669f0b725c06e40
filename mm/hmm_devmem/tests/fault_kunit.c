// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_fault: CPU faults when there is no memory for a window, and on a
 * lost page whose folio cannot be split.
 */

#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "../devmem.h"
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

static int fault_init(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	return fixture_init(test);
}

static struct kunit_case fault_cases[] = {
	KUNIT_CASE(fault_does_not_wait_for_a_transaction),
	KUNIT_CASE(lost_page_of_a_busy_block_cannot_be_read),
	{ }
};

static struct kunit_suite fault_suite = {
	.name = "hmm_devmem_fault",
	.init = fault_init,
	.test_cases = fault_cases,
};

kunit_test_suite(fault_suite);
