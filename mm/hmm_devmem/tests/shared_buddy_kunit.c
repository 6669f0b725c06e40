// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_shared_buddy: blocks that come from the allocator that GPU drivers
 * have, gpu_buddy.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/gpu_buddy.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "core_test.h"

#define BUDDY_BLOCKS	24

/**
 * struct buddy - what a driver has
 * @lock: protects @mm; memory is allocated with it held
 * @mm: the allocator
 * @put_lock: protects @put and @lent. put_block() takes no other lock: it can be called in memory
 *	reclaim, so it must not wait for an allocation under @lock.
 * @put: blocks that the library has given back, and that are still to be freed
 * @lent: by number, each block that is lent
 */
struct buddy {
	struct mutex lock;	/* see above */
	struct gpu_buddy mm;
	spinlock_t put_lock;	/* see above */
	struct list_head put;
	struct gpu_buddy_block *lent[BUDDY_BLOCKS];
};

static struct buddy *devmem_buddy(struct hmm_devmem *devmem)
{
	return devmem_fixture(devmem)->priv;
}

static void buddy_free_put(struct buddy *buddy)
{
	LIST_HEAD(put);

	lockdep_assert_held(&buddy->lock);

	scoped_guard(spinlock, &buddy->put_lock)
		list_splice_init(&buddy->put, &put);
	gpu_buddy_free_list(&buddy->mm, &put, 0);
}

static struct gpu_buddy_block *buddy_alloc(struct buddy *buddy, u64 size)
{
	LIST_HEAD(blocks);

	guard(mutex)(&buddy->lock);
	buddy_free_put(buddy);
	if (gpu_buddy_alloc_blocks(&buddy->mm, 0, buddy->mm.size, size, size, &blocks, 0))
		return NULL;
	return list_first_entry(&blocks, struct gpu_buddy_block, link);
}

static unsigned int buddy_get_blocks(struct hmm_devmem *devmem, u64 *offsets,
				     unsigned int nr, bool may_evict)
{
	struct buddy *buddy = devmem_buddy(devmem);
	struct gpu_buddy_block *block;
	unsigned int got;

	for (got = 0; got < nr; got++) {
		block = buddy_alloc(buddy, BLOCK_SIZE_BYTES);
		if (!block)
			break;
		offsets[got] = gpu_buddy_block_offset(block);
		guard(spinlock)(&buddy->put_lock);
		buddy->lent[offsets[got] / BLOCK_SIZE_BYTES] = block;
	}
	return got;
}

static void buddy_put_block(struct hmm_devmem *devmem, u64 offset)
{
	struct buddy *buddy = devmem_buddy(devmem);

	guard(spinlock)(&buddy->put_lock);
	list_add_tail(&buddy->lent[offset / BLOCK_SIZE_BYTES]->link, &buddy->put);
	buddy->lent[offset / BLOCK_SIZE_BYTES] = NULL;
}

static const struct hmm_devmem_ops buddy_ops = {
	.copy_to_device = no_work,
	.copy_to_ram = no_work,
	.get_blocks = buddy_get_blocks,
	.put_block = buddy_put_block,
};

static void fini_buddy(void *data)
{
	struct buddy *buddy = data;

	scoped_guard(mutex, &buddy->lock)
		buddy_free_put(buddy);
	/* Warns if a block is not free. */
	gpu_buddy_fini(&buddy->mm);
}

static int buddy_init(struct kunit *test)
{
	struct buddy *buddy;
	int ret = fixture_init(test);

	buddy = kunit_kzalloc(test, sizeof(*buddy), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, buddy);
	mutex_init(&buddy->lock);
	spin_lock_init(&buddy->put_lock);
	INIT_LIST_HEAD(&buddy->put);
	KUNIT_ASSERT_EQ(test, 0, gpu_buddy_init(&buddy->mm, BUDDY_BLOCKS * BLOCK_SIZE_BYTES,
						PAGE_SIZE));
	gpu_buddy_driver_set_lock(&buddy->mm, &buddy->lock);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, fini_buddy, buddy));
	((struct fixture *)test->priv)->priv = buddy;
	return ret;
}

static struct buddy *test_buddy(struct kunit *test)
{
	return ((struct fixture *)test->priv)->priv;
}

static struct hmm_devmem *add_buddy(struct kunit *test)
{
	const struct hmm_devmem_desc desc = {
		.ops = &buddy_ops,
		.size = BUDDY_BLOCKS * BLOCK_SIZE_BYTES,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = HMM_DEVMEM_SHARED | HMM_DEVMEM_RECLAIM,
		.nid = NUMA_NO_NODE,
	};
	struct hmm_devmem *devmem = hmm_devmem_add_desc(test_device(test), &desc);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

static u64 buddy_avail(struct buddy *buddy)
{
	guard(mutex)(&buddy->lock);
	buddy_free_put(buddy);
	return buddy->mm.avail;
}

static void buddy_free(struct buddy *buddy, struct gpu_buddy_block *block)
{
	guard(mutex)(&buddy->lock);
	gpu_buddy_free_block(&buddy->mm, block);
}

static void blocks_come_from_the_buddy_and_go_back(struct kunit *test)
{
	struct hmm_devmem *devmem = add_buddy(test);
	struct buddy *buddy = test_buddy(test);
	unsigned long addr = map_on_device(test, devmem, 5);

	KUNIT_EXPECT_EQ(test, buddy_avail(buddy), (BUDDY_BLOCKS - 5) * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, hmm_devmem_shrink(devmem, 2 * BLOCK_SIZE_BYTES),
			2 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, buddy_avail(buddy), (BUDDY_BLOCKS - 3) * BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, buddy_avail(buddy), BUDDY_BLOCKS * BLOCK_SIZE_BYTES);
	vm_munmap(addr, 5 * BLOCK_SIZE_BYTES);
}

/* Buffers of other sizes: what is left has few pieces of a block, but all are aligned. */
static void buffers_of_other_sizes_are_beside(struct kunit *test)
{
	struct hmm_devmem *devmem = add_buddy(test);
	struct buddy *buddy = test_buddy(test);
	struct gpu_buddy_block *small[BUDDY_BLOCKS], *large;
	unsigned long addr, nr_blocks;
	unsigned int i;

	large = buddy_alloc(buddy, 8 * BLOCK_SIZE_BYTES);
	KUNIT_ASSERT_NOT_NULL(test, large);
	for (i = 0; i < BUDDY_BLOCKS; i++) {
		small[i] = buddy_alloc(buddy, 4 * PAGE_SIZE);
		KUNIT_ASSERT_NOT_NULL(test, small[i]);
	}
	nr_blocks = buddy_avail(buddy) / BLOCK_SIZE_BYTES;
	KUNIT_ASSERT_GE(test, nr_blocks, 8);
	addr = map_on_device(test, devmem, 8);
	/* The pages in use are none of the buffers'. */
	for (i = 0; i < BUDDY_BLOCKS; i++)
		KUNIT_EXPECT_NULL(test, buddy->lent[gpu_buddy_block_offset(small[i]) /
						    BLOCK_SIZE_BYTES]);
	for (i = 0; i < 8; i++)
		KUNIT_EXPECT_NULL(test, buddy->lent[gpu_buddy_block_offset(large) /
						    BLOCK_SIZE_BYTES + i]);
	hmm_devmem_remove(devmem);
	for (i = 0; i < BUDDY_BLOCKS; i++)
		buddy_free(buddy, small[i]);
	buddy_free(buddy, large);
	KUNIT_EXPECT_EQ(test, buddy_avail(buddy), BUDDY_BLOCKS * BLOCK_SIZE_BYTES);
	vm_munmap(addr, 8 * BLOCK_SIZE_BYTES);
}

/* A large buffer needs blocks that the library has; these merge in the buddy. */
static void large_buffer_gets_blocks_of_the_library(struct kunit *test)
{
	struct hmm_devmem *devmem = add_buddy(test);
	struct buddy *buddy = test_buddy(test);
	struct gpu_buddy_block *large;
	unsigned long addr = map_on_device(test, devmem, BUDDY_BLOCKS);
	unsigned int i;

	KUNIT_EXPECT_EQ(test, buddy_avail(buddy), 0);
	KUNIT_EXPECT_NULL(test, buddy_alloc(buddy, 8 * BLOCK_SIZE_BYTES));
	for (i = 0; i < 8; i++)
		KUNIT_EXPECT_EQ(test, 0, hmm_devmem_withdraw(devmem, i * BLOCK_SIZE_BYTES));
	large = buddy_alloc(buddy, 8 * BLOCK_SIZE_BYTES);
	KUNIT_ASSERT_NOT_NULL(test, large);
	KUNIT_EXPECT_EQ(test, gpu_buddy_block_offset(large), 0);
	KUNIT_EXPECT_EQ(test, pages_used(devmem), (BUDDY_BLOCKS - 8) * HMM_DEVMEM_BLOCK_NR);
	hmm_devmem_remove(devmem);
	buddy_free(buddy, large);
	vm_munmap(addr, BUDDY_BLOCKS * BLOCK_SIZE_BYTES);
}

/* The lock that memory is allocated under is not waited for. */
static void put_in_reclaim_does_not_wait_for_the_buddy(struct kunit *test)
{
	struct hmm_devmem *devmem = add_buddy(test);
	struct buddy *buddy = test_buddy(test);
	unsigned long addr = map_on_device(test, devmem, 2);
	unsigned int flags;
	u64 bytes;

	mutex_lock(&buddy->lock);
	fs_reclaim_acquire(GFP_KERNEL);
	flags = memalloc_noreclaim_save();
	bytes = hmm_devmem_shrink(devmem, 2 * BLOCK_SIZE_BYTES);
	memalloc_noreclaim_restore(flags);
	fs_reclaim_release(GFP_KERNEL);
	mutex_unlock(&buddy->lock);
	KUNIT_EXPECT_EQ(test, bytes, 2 * BLOCK_SIZE_BYTES);
	KUNIT_EXPECT_EQ(test, buddy_avail(buddy), BUDDY_BLOCKS * BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
	vm_munmap(addr, 2 * BLOCK_SIZE_BYTES);
}

static struct kunit_case shared_buddy_cases[] = {
	KUNIT_CASE(blocks_come_from_the_buddy_and_go_back),
	KUNIT_CASE(buffers_of_other_sizes_are_beside),
	KUNIT_CASE(large_buffer_gets_blocks_of_the_library),
	KUNIT_CASE(put_in_reclaim_does_not_wait_for_the_buddy),
	{ }
};

static struct kunit_suite shared_buddy_suite = {
	.name = "hmm_devmem_shared_buddy",
	.init = buddy_init,
	.test_cases = shared_buddy_cases,
};

kunit_test_suite(shared_buddy_suite);
