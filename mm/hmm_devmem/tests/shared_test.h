/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A memory manager of a driver, for the suites of blocks on loan.
 */
#ifndef _HMM_DEVMEM_SHARED_TEST_H
#define _HMM_DEVMEM_SHARED_TEST_H

#include <linux/bitmap.h>
#include <linux/mutex.h>

#include "../backing.h"
#include "core_test.h"

#define MANAGER_BLOCKS		128
#define SECTION_BYTES		((unsigned long)PAGES_PER_SECTION << PAGE_SHIFT)
#define SECTION_BLOCKS		(SECTION_BYTES / BLOCK_SIZE_BYTES)

/**
 * struct manager - a memory manager, first fit
 * @lock: protects what follows
 * @buffers: blocks of the driver's buffers, which it evicts if it may
 * @lent: blocks that it has lent
 * @nr_blocks: number of blocks
 * @gets: calls of get_blocks(), one letter each: f(ree blocks), n(one), e(victed)
 * @nr_gets: length of @gets
 * @puts: number of calls of put_block()
 * @wrong_puts: number of those for a block that was not lent
 * @hook: called at the end of get_blocks(), without the lock
 * @bad: an offset to be given instead of a block, if @give_bad
 * @give_bad: how many of those
 * @max: gives no more blocks at once than that, if not 0
 */
struct manager {
	struct mutex lock;	/* see above */
	DECLARE_BITMAP(buffers, MANAGER_BLOCKS);
	DECLARE_BITMAP(lent, MANAGER_BLOCKS);
	unsigned int nr_blocks;
	char gets[64];
	unsigned int nr_gets;
	unsigned int puts;
	unsigned int wrong_puts;
	void (*hook)(struct hmm_devmem *devmem, u64 *offsets, unsigned int nr);
	u64 bad;
	unsigned int give_bad;
	unsigned int max;
};

static inline struct manager *devmem_manager(struct hmm_devmem *devmem)
{
	return devmem_fixture(devmem)->priv;
}

static inline unsigned int manager_first_free(struct manager *manager)
{
	unsigned int i;

	for (i = 0; i < manager->nr_blocks; i++)
		if (!test_bit(i, manager->buffers) && !test_bit(i, manager->lent))
			break;
	return i;
}

static inline unsigned int manager_get_one(struct manager *manager, bool may_evict, bool *evicted)
{
	unsigned int i = manager_first_free(manager);

	if (i < manager->nr_blocks)
		return i;
	i = find_first_bit(manager->buffers, manager->nr_blocks);
	if (!may_evict || i >= manager->nr_blocks)
		return manager->nr_blocks;
	__clear_bit(i, manager->buffers);
	*evicted = true;
	return i;
}

static inline unsigned int manager_get_locked(struct manager *manager, u64 *offsets,
					      unsigned int nr, bool may_evict)
{
	unsigned int got = 0, i;
	bool evicted = false;

	lockdep_assert_held(&manager->lock);

	while (got < nr && manager->give_bad) {
		manager->give_bad--;
		offsets[got++] = manager->bad;
	}
	while (got < nr && !(manager->max && got >= manager->max)) {
		i = manager_get_one(manager, may_evict, &evicted);
		if (i >= manager->nr_blocks)
			break;
		__set_bit(i, manager->lent);
		offsets[got++] = (u64)i * BLOCK_SIZE_BYTES;
	}
	if (manager->nr_gets < sizeof(manager->gets) - 1)
		manager->gets[manager->nr_gets++] = evicted ? 'e' : got ? 'f' : 'n';
	return got;
}

static inline unsigned int manager_get(struct hmm_devmem *devmem, u64 *offsets,
				       unsigned int nr, bool may_evict)
{
	struct manager *manager = devmem_manager(devmem);
	unsigned int got;

	scoped_guard(mutex, &manager->lock)
		got = manager_get_locked(manager, offsets, nr, may_evict);
	if (manager->hook)
		manager->hook(devmem, offsets, got);
	return got;
}

static inline void manager_put(struct hmm_devmem *devmem, u64 offset)
{
	struct manager *manager = devmem_manager(devmem);

	guard(mutex)(&manager->lock);
	manager->puts++;
	manager->wrong_puts += !test_and_clear_bit(offset / BLOCK_SIZE_BYTES, manager->lent);
}

static const struct hmm_devmem_ops __maybe_unused shared_ops = {
	.kill = note_kill,
	.cleanup = note_cleanup,
	.copy_to_device = no_work,
	.copy_to_ram = no_work,
	.get_blocks = manager_get,
	.put_block = manager_put,
};

static inline int shared_init(struct kunit *test)
{
	struct manager *manager;
	int ret = fixture_init(test);

	manager = kunit_kzalloc(test, sizeof(*manager), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, manager);
	mutex_init(&manager->lock);
	((struct fixture *)test->priv)->priv = manager;
	return ret;
}

static inline struct manager *test_manager(struct kunit *test)
{
	return ((struct fixture *)test->priv)->priv;
}

/* Add memory of @nr_blocks, of which the manager has all. */
static inline struct hmm_devmem *
add_shared_ops(struct kunit *test, const struct hmm_devmem_ops *ops,
	       unsigned int nr_blocks, unsigned long flags, unsigned int reserve)
{
	const struct hmm_devmem_desc desc = {
		.ops = ops,
		.size = nr_blocks * BLOCK_SIZE_BYTES,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = HMM_DEVMEM_SHARED | flags,
		.nid = NUMA_NO_NODE,
		.reserve = (u64)reserve * BLOCK_SIZE_BYTES,
	};
	struct hmm_devmem *devmem;

	KUNIT_ASSERT_LE(test, nr_blocks, MANAGER_BLOCKS);
	test_manager(test)->nr_blocks = nr_blocks;
	devmem = hmm_devmem_add_desc(test_device(test), &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	return devmem;
}

static inline struct hmm_devmem *add_shared(struct kunit *test, unsigned int nr_blocks,
					    unsigned long flags, unsigned int reserve)
{
	return add_shared_ops(test, &shared_ops, nr_blocks, flags, reserve);
}

static inline unsigned int nr_lent(struct kunit *test)
{
	struct manager *manager = test_manager(test);

	guard(mutex)(&manager->lock);
	return bitmap_weight(manager->lent, MANAGER_BLOCKS);
}

/* Remove, and verify that the manager has got all of its blocks but @left of them. */
static inline void remove_shared_but(struct kunit *test, struct hmm_devmem *devmem,
				     unsigned int left)
{
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, nr_lent(test), left);
	KUNIT_EXPECT_EQ(test, test_manager(test)->wrong_puts, 0);
}

static inline void remove_shared(struct kunit *test, struct hmm_devmem *devmem)
{
	remove_shared_but(test, devmem, 0);
}

/* Move whole blocks of the test's process to the device. */
static inline long to_device(struct hmm_devmem *devmem, unsigned long addr,
			     unsigned long nr_blocks)
{
	return hmm_devmem_migrate_to_device(devmem, current->mm, addr,
					    addr + nr_blocks * BLOCK_SIZE_BYTES, NULL);
}

#endif /* _HMM_DEVMEM_SHARED_TEST_H */
