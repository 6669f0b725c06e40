// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_remove: removing device memory, also while it is in
 * use, and many devices at once.
 */

#include <kunit/device.h>
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/bitops.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/mutex.h>
#include <linux/percpu-refcount.h>
#include <linux/sched/mm.h>
#include <linux/time64.h>
#include <linux/workqueue.h>

#include "../devmem.h"
#include "../evict.h"
#include "../pool.h"
#include "../segment.h"
#include "core_test.h"
#include "shared_test.h"

/* Removal */

static void remove_calls_kill_then_cleanup(struct kunit *test)
{
	hmm_devmem_remove(add(test, &managed_ops, TEST_SIZE));
	expect_events(test, "kc");
}

static void remove_classic_calls_kill_then_cleanup(struct kunit *test)
{
	hmm_devmem_remove(add(test, &classic_ops, TEST_SIZE));
	expect_events(test, "kc");
}

static void remove_without_hooks_works(struct kunit *test)
{
	hmm_devmem_remove(add(test, &minimal_managed_ops, TEST_SIZE));
	hmm_devmem_remove(add(test, &minimal_classic_ops, TEST_SIZE));
	expect_nothing_changed(test);
}

static void remove_gives_range_back(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions + 1);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
}

static void remove_null_ignored(struct kunit *test)
{
	hmm_devmem_remove(NULL);
	hmm_devmem_remove(ERR_PTR(-ENOMEM));
	expect_nothing_changed(test);
}

static void remove_twice_happens_once(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	hmm_devmem_remove(devmem);
	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
}

static void detach_after_remove_does_nothing(struct kunit *test)
{
	hmm_devmem_remove(add(test, &managed_ops, TEST_SIZE));
	kunit_device_unregister(test, test_device(test));
	expect_events(test, "kc");
}

static void detach_removes(struct kunit *test)
{
	const struct fixture *fixture = test->priv;

	add(test, &managed_ops, TEST_SIZE);
	kunit_device_unregister(test, test_device(test));
	expect_events(test, "kc");
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
}

static void remove_after_detach_does_nothing(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);

	hmm_devmem_get(devmem);
	kunit_device_unregister(test, test_device(test));
	hmm_devmem_remove(devmem);
	hmm_devmem_put(devmem);
	expect_events(test, "kc");
}

static struct folio *kill_got;

static void kill_allocates(struct hmm_devmem *devmem)
{
	kill_got = hmm_devmem_alloc_folio(devmem, 0, NULL);
	note(devmem, 'k');
}

static void alloc_folio_in_kill_returns_null(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.kill = kill_allocates,
		.copy_to_device = no_copy,
		.copy_to_ram = no_copy,
	};

	hmm_devmem_remove(add(test, &ops, TEST_SIZE));
	expect_events(test, "k");
	KUNIT_EXPECT_NULL(test, kill_got);
}

/* A classic driver frees its last page in kill. */
static struct folio *kill_puts;

static void kill_frees(struct hmm_devmem *devmem)
{
	note(devmem, 'k');
	release(kill_puts);
}

static void remove_classic_frees_in_kill(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.free = note_free,
		.fault = no_fault,
		.kill = kill_frees,
		.cleanup = note_cleanup,
	};
	struct hmm_devmem *devmem = add(test, &ops, TEST_SIZE);

	kill_puts = init_classic(devmem, 3, 0);
	hmm_devmem_remove(devmem);
	expect_events(test, "kfc");
}

/**
 * struct mover - a migration and a removal at the same time
 * @devmem: the device memory
 * @mm: the process
 * @migrate: moves some of the process's memory
 * @remove: removes @devmem
 * @ret: result of the migration
 * @migrated: completed after the migration
 * @removed: completed after the removal
 */
struct mover {
	struct hmm_devmem *devmem;
	struct mm_struct *mm;
	struct work_struct migrate;
	struct work_struct remove;
	long ret;
	struct completion migrated;
	struct completion removed;
};

static void mover_migrate(struct work_struct *work)
{
	struct mover *mover = container_of(work, struct mover, migrate);

	mover->ret = hmm_devmem_migrate_to_device(mover->devmem, mover->mm,
						  PAGE_SIZE, 2 * PAGE_SIZE, NULL);
	complete(&mover->migrated);
}

static void mover_remove(struct work_struct *work)
{
	struct mover *mover = container_of(work, struct mover, remove);

	hmm_devmem_remove(mover->devmem);
	complete(&mover->removed);
}

/* Another process can keep its mmap lock for as long as it likes. */
static void remove_does_not_wait_for_mmap_lock(struct kunit *test)
{
	struct mover mover = { };

	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	mover.mm = current->mm;
	mover.devmem = add(test, &managed_ops, TEST_SIZE);
	INIT_WORK_ONSTACK(&mover.migrate, mover_migrate);
	INIT_WORK_ONSTACK(&mover.remove, mover_remove);
	init_completion(&mover.migrated);
	init_completion(&mover.removed);

	mmap_write_lock(mover.mm);
	queue_work(system_dfl_wq, &mover.migrate);
	KUNIT_EXPECT_TRUE(test, soon(mmap_lock_is_contended(mover.mm)));
	queue_work(system_dfl_wq, &mover.remove);
	/* Only a removal that waits for the mmap lock takes so long. */
	KUNIT_EXPECT_TRUE(test, wait_for_completion_timeout(&mover.removed,
							    HANG_LIMIT));
	expect_events(test, "kc");
	mmap_write_unlock(mover.mm);
	flush_work(&mover.migrate);
	flush_work(&mover.remove);
	KUNIT_EXPECT_EQ(test, mover.ret, -ENODEV);
	destroy_work_on_stack(&mover.migrate);
	destroy_work_on_stack(&mover.remove);
}

/* Zombies: pages that are in use for longer than the driver exists */

/* The ops are freed before the page: the library must not use them any more. */
static void remove_with_page_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct counted_context counted = { };
	struct hmm_devmem_ops *ops;
	struct folio *folio;
	struct hmm_devmem *devmem;

	ops = kunit_kzalloc(test, sizeof(*ops), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ops);
	*ops = managed_ops;
	devmem = add(test, ops, TEST_SIZE);
	hmm_devmem_context_init(&counted.ctx, count_release);
	folio = alloc(test, devmem, 0, &counted.ctx);
	hmm_devmem_context_put(&counted.ctx);

	hmm_devmem_remove(devmem);
	kunit_kfree(test, ops);
	expect_events(test, "kc");
	KUNIT_EXPECT_EQ(test, counted.released, 1);
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions + 1);

	release(folio);
	expect_events(test, "kc");
	wait_for_regions(test, fixture->nr_regions);
}

/**
 * struct slow_context - a context that takes its time to be released
 * @ctx: the context
 * @devmem: the devmem of @folio
 * @folio: the only folio with the context
 * @remover: the task that removes the devmem
 * @begun: completed when the release has begun
 * @work: frees @folio
 */
struct slow_context {
	struct hmm_devmem_context ctx;
	struct hmm_devmem *devmem;
	struct folio *folio;
	struct task_struct *remover;
	struct completion begun;
	struct work_struct work;
};

static void release_slowly(struct hmm_devmem_context *ctx)
{
	struct slow_context *slow = container_of(ctx, struct slow_context, ctx);

	complete(&slow->begun);
	/* Removal of a dead device ends meanwhile, if it does not wait for this. */
	delay_until_asleep(slow->remover);
	note(slow->devmem, 'r');
}

static void free_slowly(struct work_struct *work)
{
	release(container_of(work, struct slow_context, work)->folio);
}

/*
 * Another page in use makes a zombie, so that the segment does not wait for the page
 * that is being freed. The device is dead, so that removal does not wait for it
 * either.
 */
static void remove_waits_for_release_of_context(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct slow_context *slow = kunit_kzalloc(test, sizeof(*slow), GFP_KERNEL);
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *in_use = alloc(test, devmem, 0, NULL);

	KUNIT_ASSERT_NOT_NULL(test, slow);
	slow->devmem = devmem;
	slow->remover = current;
	init_completion(&slow->begun);
	INIT_WORK(&slow->work, free_slowly);
	hmm_devmem_context_init(&slow->ctx, release_slowly);
	slow->folio = alloc(test, devmem, 0, &slow->ctx);
	hmm_devmem_context_put(&slow->ctx);

	queue_work(system_dfl_wq, &slow->work);
	wait_for_completion(&slow->begun);
	hmm_devmem_mark_dead(devmem);
	hmm_devmem_remove(devmem);
	flush_work(&slow->work);
	/* On a slow machine, kill can come after the release. */
	KUNIT_EXPECT_EQ(test, fixture->nr_events, 4);
	KUNIT_EXPECT_EQ(test, fixture->events[3], 'c');
	KUNIT_EXPECT_EQ(test, count_events(test, 'r'), 1);

	release(in_use);
	wait_for_regions(test, fixture->nr_regions);
}

/* Core can migrate a page that is mapped nowhere, but that does not free it. */
static void remove_with_movable_page_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &copying_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	folio_unlock(folio);
	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_FALSE(test, folio_test_locked(folio));
	folio_put(folio);
	wait_for_regions(test, fixture->nr_regions);
}

struct removal {
	struct work_struct work;
	struct hmm_devmem *devmem;
	struct completion done;
};

static void remove_in_work(struct work_struct *work)
{
	struct removal *removal = container_of(work, struct removal, work);

	hmm_devmem_remove(removal->devmem);
	complete(&removal->done);
}

/* Memory that the CPU can address is unmapped, but this folio was never mapped. */
static void remove_waits_for_no_folio_that_its_driver_keeps_locked(struct kunit *test)
{
	const struct hmm_devmem_desc desc = {
		.ops = &copying_ops,
		.type = MEMORY_DEVICE_COHERENT,
		.res = get_region(test, TEST_SIZE),
		.nid = NUMA_NO_NODE,
	};
	struct removal removal = { };
	struct folio *folio;

	removal.devmem = hmm_devmem_add_desc(test_device(test), &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, removal.devmem);
	hmm_devmem_get(removal.devmem);
	folio = alloc(test, removal.devmem, 0, NULL);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	init_completion(&removal.done);
	INIT_WORK_ONSTACK(&removal.work, remove_in_work);
	queue_work(system_dfl_wq, &removal.work);
	KUNIT_EXPECT_TRUE(test, wait_for_completion_timeout(&removal.done, HANG_LIMIT));
	release(folio);
	flush_work(&removal.work);
	destroy_work_on_stack(&removal.work);
	/* Core has to be done with the range before another test uses it. */
	KUNIT_EXPECT_TRUE(test, soon(!READ_ONCE(priv(removal.devmem)->segments)));
	hmm_devmem_put(removal.devmem);
}

static void remove_with_large_folio_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, HMM_DEVMEM_BLOCK_ORDER, NULL);

	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	release(folio);
	wait_for_regions(test, fixture->nr_regions);
}

static void remove_classic_with_page_in_use_leaves_zombie(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, 11, 0);

	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
	release(folio);
	expect_events(test, "kc");
	wait_for_regions(test, fixture->nr_regions);
}

static bool wait_for_first_busy(struct hmm_devmem_segment *segment,
				unsigned long pfn)
{
	return soon(READ_ONCE(segment->first_busy) == pfn);
}

/* A zombie's pages are checked only when one of them is freed, each of them once. */
static void zombie_is_looked_at_when_a_page_is_freed(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	const unsigned long pfn = devmem->pfn_first;
	struct hmm_devmem_segment *segment = priv(devmem)->segments[0];
	struct folio *first = init_classic(devmem, 3, 0);
	struct folio *second = init_classic(devmem, HMM_DEVMEM_BLOCK_NR,
					    HMM_DEVMEM_BLOCK_ORDER);

	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_TRUE(test, wait_for_first_busy(segment, pfn + 3));
	flush_work(&segment->end);
	KUNIT_EXPECT_FALSE(test, work_busy(&segment->end));
	release(first);
	KUNIT_EXPECT_TRUE(test, wait_for_first_busy(segment,
						    pfn + HMM_DEVMEM_BLOCK_NR));
	flush_work(&segment->end);
	KUNIT_EXPECT_FALSE(test, work_busy(&segment->end));
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions + 1);
	release(second);
	wait_for_regions(test, fixture->nr_regions);
}

/*
 * A page that is freed goes to the cache of a CPU. Empty the caches as when that CPU
 * goes offline, after the zombie has ended: its last page must not be in one.
 */
static void zombie_leaves_nothing_in_caches(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	hmm_devmem_remove(devmem);
	release(folio);
	wait_for_regions(test, fixture->nr_regions);
	hmm_devmem_pool_drain(priv(devmem)->pool);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_used(priv(devmem)->pool), 0);
}

static void add_beside_zombie_works(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	hmm_devmem_remove(devmem);
	devmem = add(test, &managed_ops, TEST_SIZE);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_has_pfn(devmem, folio_pfn(folio)));
	release(folio);
	hmm_devmem_remove(devmem);
	wait_for_regions(test, fixture->nr_regions);
}

/* Many */

static void add_after_remove_gets_range_again(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	const unsigned long pfn = devmem->pfn_first;
	unsigned int i;

	for (i = 0; i < 200; i++) {
		hmm_devmem_remove(devmem);
		devmem = add(test, i % 2 ? &managed_ops : &classic_ops, TEST_SIZE);
		KUNIT_ASSERT_EQ(test, devmem->pfn_first, pfn);
	}
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
}

static void add_twice_on_one_device_works(struct kunit *test)
{
	struct hmm_devmem *one = add(test, &managed_ops, TEST_SIZE);
	struct hmm_devmem *two = add(test, &managed_ops, TEST_SIZE);

	KUNIT_EXPECT_TRUE(test, one->pfn_last <= two->pfn_first ||
			  two->pfn_last <= one->pfn_first);
	hmm_devmem_remove(one);
	expect_events(test, "kc");
	release(alloc(test, two, 0, NULL));
	kunit_device_unregister(test, test_device(test));
	expect_events(test, "kcfkc");
}

#define NR_DEVICES	10

struct adder {
	struct work_struct work;
	struct device *device;
	struct hmm_devmem *devmem;
};

static void adder_add(struct work_struct *work)
{
	struct adder *adder = container_of(work, struct adder, work);

	adder->devmem = hmm_devmem_add(&managed_ops, adder->device, TEST_SIZE);
}

static void adder_remove(struct work_struct *work)
{
	hmm_devmem_remove(container_of(work, struct adder, work)->devmem);
}

static struct adder *create_adders(struct kunit *test)
{
	struct adder *adders;
	unsigned int i;
	char name[16];

	adders = kunit_kcalloc(test, NR_DEVICES, sizeof(*adders), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, adders);
	for (i = 0; i < NR_DEVICES; i++) {
		snprintf(name, sizeof(name), "adder%u", i);
		adders[i].device = register_device(test, name);
	}
	return adders;
}

static void run_adders(struct adder *adders, work_func_t func)
{
	unsigned int i;

	for (i = 0; i < NR_DEVICES; i++) {
		INIT_WORK(&adders[i].work, func);
		queue_work(system_unbound_wq, &adders[i].work);
	}
	for (i = 0; i < NR_DEVICES; i++)
		flush_work(&adders[i].work);
}

static void expect_disjoint(struct kunit *test, const struct adder *adders)
{
	const struct hmm_devmem *one, *two;
	unsigned int i, j;

	for (i = 0; i < NR_DEVICES; i++) {
		one = adders[i].devmem;
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, one);
		for (j = 0; j < i; j++) {
			two = adders[j].devmem;
			KUNIT_EXPECT_TRUE(test, one->pfn_last <= two->pfn_first ||
					  two->pfn_last <= one->pfn_first);
		}
	}
}

static void add_ten_devices_at_once_works(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct adder *adders = create_adders(test);
	unsigned int round;

	for (round = 0; round < 3; round++) {
		run_adders(adders, adder_add);
		expect_disjoint(test, adders);
		KUNIT_EXPECT_EQ(test, count_regions(),
				fixture->nr_regions + NR_DEVICES);
		run_adders(adders, adder_remove);
		KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
	}
	KUNIT_EXPECT_EQ(test, count_events(test, 'k'), 3 * NR_DEVICES);
	KUNIT_EXPECT_EQ(test, count_events(test, 'c'), 3 * NR_DEVICES);
}

static void detach_ten_devices_removes_each_once(struct kunit *test)
{
	struct adder *adders = create_adders(test);
	unsigned int i;

	run_adders(adders, adder_add);
	expect_disjoint(test, adders);
	for (i = 0; i < NR_DEVICES; i++)
		kunit_device_unregister(test, adders[i].device);
	KUNIT_EXPECT_EQ(test, count_events(test, 'k'), NR_DEVICES);
	KUNIT_EXPECT_EQ(test, count_events(test, 'c'), NR_DEVICES);
}

/* Ten threads remove the same devmem at the same time. */
static void remove_concurrently_happens_once(struct kunit *test)
{
	struct adder *adders = create_adders(test);
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	unsigned int i;

	for (i = 0; i < NR_DEVICES; i++)
		adders[i].devmem = devmem;
	run_adders(adders, adder_remove);
	expect_events(test, "kc");
}

/* For how long eviction tries */

static void eviction_waits_a_second_after_the_last_page(struct kunit *test)
{
	struct hmm_devmem_evict_clock clock = { .last = 10 * NSEC_PER_SEC };
	u64 now = 0;
	unsigned int i;

	/* Each pass takes two seconds, and brings pages back. */
	for (i = 0; i < 30; i++, now += 2 * NSEC_PER_SEC) {
		hmm_devmem_evict_clock_pass(&clock, now, now + 2 * NSEC_PER_SEC, true);
		KUNIT_EXPECT_EQ(test, clock.deadline, now + 3 * NSEC_PER_SEC);
	}
	hmm_devmem_evict_clock_pass(&clock, now, now, false);
	KUNIT_EXPECT_EQ(test, clock.deadline, now + NSEC_PER_SEC);
}

static void eviction_waits_ten_seconds_in_all(struct kunit *test)
{
	struct hmm_devmem_evict_clock clock = { .last = 10 * NSEC_PER_SEC };
	u64 now;

	/* Each pass brings a page back, so that eviction goes on waiting. */
	for (now = 0; now <= clock.deadline; now += NSEC_PER_SEC / 2)
		hmm_devmem_evict_clock_pass(&clock, now, now, true);
	KUNIT_EXPECT_EQ(test, clock.deadline, 10 * NSEC_PER_SEC);
}

/* Blocks of a device that fails all copies from the first BAD_BLOCKS of them. */
#define BAD_BLOCKS	20
#define GOOD_BLOCKS	6

static unsigned int nr_bad_blocks, nr_refused;

static int copy_from_good_blocks(struct hmm_devmem *devmem,
				 struct hmm_devmem_copy *copy)
{
	if (copy->runs[0].offset >= nr_bad_blocks * BLOCK_SIZE_BYTES)
		return 0;
	nr_refused++;
	return -EIO;
}

static u64 ns_read;

/* A clock on which each reading takes a millisecond, however slow the machine is. */
static u64 count_milliseconds(void)
{
	return ns_read += NSEC_PER_MSEC;
}

/* More blocks that cannot be copied than eviction tries come before the good ones. */
static void eviction_reaches_what_is_behind_bad_blocks(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = copy_from_good_blocks,
	};
	const unsigned int nr_blocks = BAD_BLOCKS + GOOD_BLOCKS;
	struct hmm_devmem *devmem = add(test, &ops, nr_blocks * BLOCK_SIZE_BYTES);
	struct hmm_devmem_stats stats;

	map_on_device(test, devmem, nr_blocks);
	kunit_activate_static_stub(test, hmm_devmem_evict_ns, count_milliseconds);
	nr_refused = 0;
	nr_bad_blocks = BAD_BLOCKS;
	KUNIT_EXPECT_EQ(test, -EIO, hmm_devmem_suspend(devmem));
	hmm_devmem_get_stats(devmem, &stats);
	KUNIT_EXPECT_EQ(test, stats.evicted, GOOD_BLOCKS * HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_GE(test, nr_refused, 16);
	KUNIT_EXPECT_LE(test, nr_refused, (GOOD_BLOCKS + 1) * 16);

	/* If all blocks are bad, the device is asked as often as documented. */
	nr_refused = 0;
	nr_bad_blocks = nr_blocks;
	KUNIT_EXPECT_EQ(test, -EIO, hmm_devmem_suspend(devmem));
	KUNIT_EXPECT_EQ(test, nr_refused, 16);
	nr_bad_blocks = 0;
	hmm_devmem_remove(devmem);
	hmm_devmem_get_stats(devmem, &stats);
	KUNIT_EXPECT_EQ(test, stats.evicted, nr_blocks * HMM_DEVMEM_BLOCK_NR);
}

static int never_copies(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	nr_refused++;
	return -EAGAIN;
}

/* A clock on which each reading takes 50 ms. There are two of them in the time of a copy. */
static u64 count_slowly(void)
{
	return ns_read += 50 * NSEC_PER_MSEC;
}

/* A second is ten copies. Only the time ends the eviction: the copies are no refusals. */
static void eviction_gives_up_when_time_is_wasted(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = never_copies,
	};
	const unsigned int nr_blocks = BAD_BLOCKS + GOOD_BLOCKS;
	struct hmm_devmem *devmem = add(test, &ops, nr_blocks * BLOCK_SIZE_BYTES);
	const unsigned long addr = map_on_device(test, devmem, nr_blocks);

	kunit_activate_static_stub(test, hmm_devmem_evict_ns, count_slowly);
	nr_refused = 0;
	KUNIT_EXPECT_EQ(test, nr_blocks * HMM_DEVMEM_BLOCK_NR,
			hmm_devmem_evict(devmem, devmem->pfn_first,
					 nr_blocks * HMM_DEVMEM_BLOCK_NR, NULL));
	KUNIT_EXPECT_EQ(test, nr_refused, 10);
	nr_refused = 0;
	KUNIT_EXPECT_EQ(test, -EIO, hmm_devmem_suspend(devmem));
	KUNIT_EXPECT_LE(test, nr_refused, 12);
	kunit_deactivate_static_stub(test, hmm_devmem_evict_ns);
	vm_munmap(addr, nr_blocks * BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

static unsigned int nr_drains;

static void count_drain(void)
{
	nr_drains++;
}

/* Suspend does not empty core's batches again and again while it waits for a page. */
static void eviction_drains_batches_twice_for_a_page_in_use(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	nr_drains = 0;
	kunit_activate_static_stub(test, hmm_devmem_drain_batches, count_drain);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_suspend(devmem));
	kunit_deactivate_static_stub(test, hmm_devmem_drain_batches);
	KUNIT_EXPECT_EQ(test, nr_drains, 2);
	release(folio);
	hmm_devmem_remove(devmem);
}

/* Blocks that the library could give back */

#define LENT_BLOCKS	4

/**
 * struct shrink - hmm_devmem_shrink() for which the device fails all copies
 * @work: calls it
 * @task: the task that does
 * @devmem: the device memory
 * @blocks: the blocks that the device was asked to copy from
 * @copying: completed when the device is asked
 */
static struct shrink {
	struct work_struct work;
	struct task_struct *task;
	struct hmm_devmem *devmem;
	unsigned long blocks;
	struct completion copying;
} shrink;

static void shrink_work(struct work_struct *work)
{
	WRITE_ONCE(shrink.task, current);
	hmm_devmem_shrink(shrink.devmem, LENT_BLOCKS * BLOCK_SIZE_BYTES);
}

/* The first copy lasts until removal waits for hmm_devmem_shrink(). */
static int shrink_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	if (current != READ_ONCE(shrink.task))
		return -EIO;
	__set_bit(hmm_devmem_page_offset(copy->runs[0].device) / BLOCK_SIZE_BYTES,
		  &shrink.blocks);
	complete(&shrink.copying);
	soon(percpu_ref_is_dying(&priv(devmem)->ref));
	return -EIO;
}

/* To try all blocks would take too long for removal to wait for it. */
static void remove_ends_shrink(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = shrink_copy,
		.get_blocks = manager_get,
		.put_block = manager_put,
	};
	struct fixture *fixture = test->priv;
	struct manager manager = { };
	unsigned long addr;

	mutex_init(&manager.lock);
	fixture->priv = &manager;
	shrink = (struct shrink) { };
	init_completion(&shrink.copying);
	INIT_WORK(&shrink.work, shrink_work);
	shrink.devmem = add_shared_ops(test, &ops, LENT_BLOCKS, 0, 0);
	addr = map_on_device(test, shrink.devmem, LENT_BLOCKS);
	KUNIT_EXPECT_EQ(test, nr_lent(test), LENT_BLOCKS);
	queue_work(system_dfl_wq, &shrink.work);
	wait_for_completion(&shrink.copying);
	hmm_devmem_remove(shrink.devmem);
	flush_work(&shrink.work);
	KUNIT_EXPECT_EQ(test, hweight_long(shrink.blocks), 1);
	vm_munmap(addr, LENT_BLOCKS * BLOCK_SIZE_BYTES);
	wait_for_regions(test, fixture->nr_regions);
}

/* A block of which a page is in use may have it in one of core's batches. */
static void withdraw_drains_batches_but_not_in_reclaim(struct kunit *test)
{
	struct fixture *fixture = test->priv;
	struct manager manager = { };
	struct hmm_devmem *devmem;
	struct folio *folio;
	unsigned int flags;

	mutex_init(&manager.lock);
	fixture->priv = &manager;
	devmem = add_shared(test, LENT_BLOCKS, 0, 0);
	folio = alloc(test, devmem, 0, NULL);
	nr_drains = 0;
	kunit_activate_static_stub(test, hmm_devmem_drain_batches, count_drain);
	flags = memalloc_noreclaim_save();
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_withdraw(devmem, 0));
	memalloc_noreclaim_restore(flags);
	KUNIT_EXPECT_EQ(test, 0, nr_drains);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_withdraw(devmem, 0));
	KUNIT_EXPECT_EQ(test, 1, nr_drains);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_shrink(devmem, 1));
	KUNIT_EXPECT_EQ(test, 2, nr_drains);
	kunit_deactivate_static_stub(test, hmm_devmem_drain_batches);
	release(folio);
	hmm_devmem_remove(devmem);
}

static struct kunit_case remove_cases[] = {
	KUNIT_CASE(remove_calls_kill_then_cleanup),
	KUNIT_CASE(remove_classic_calls_kill_then_cleanup),
	KUNIT_CASE(remove_without_hooks_works),
	KUNIT_CASE(remove_gives_range_back),
	KUNIT_CASE(remove_null_ignored),
	KUNIT_CASE_SLOW(remove_does_not_wait_for_mmap_lock),
	KUNIT_CASE(remove_twice_happens_once),
	KUNIT_CASE(detach_after_remove_does_nothing),
	KUNIT_CASE(detach_removes),
	KUNIT_CASE(remove_after_detach_does_nothing),
	KUNIT_CASE(alloc_folio_in_kill_returns_null),
	KUNIT_CASE(remove_classic_frees_in_kill),
	KUNIT_CASE_SLOW(remove_with_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_waits_for_release_of_context),
	KUNIT_CASE_SLOW(remove_with_movable_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_waits_for_no_folio_that_its_driver_keeps_locked),
	KUNIT_CASE_SLOW(remove_with_large_folio_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_classic_with_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(zombie_is_looked_at_when_a_page_is_freed),
	KUNIT_CASE_SLOW(zombie_leaves_nothing_in_caches),
	KUNIT_CASE_SLOW(add_beside_zombie_works),
	KUNIT_CASE_SLOW(add_after_remove_gets_range_again),
	KUNIT_CASE(add_twice_on_one_device_works),
	KUNIT_CASE_SLOW(add_ten_devices_at_once_works),
	KUNIT_CASE(detach_ten_devices_removes_each_once),
	KUNIT_CASE(remove_concurrently_happens_once),
	KUNIT_CASE(eviction_waits_a_second_after_the_last_page),
	KUNIT_CASE(eviction_waits_ten_seconds_in_all),
	KUNIT_CASE(eviction_reaches_what_is_behind_bad_blocks),
	KUNIT_CASE(eviction_gives_up_when_time_is_wasted),
	KUNIT_CASE_SLOW(eviction_drains_batches_twice_for_a_page_in_use),
	KUNIT_CASE_SLOW(remove_ends_shrink),
	KUNIT_CASE(withdraw_drains_batches_but_not_in_reclaim),
	{ }
};

static struct kunit_suite remove_suite = {
	.name = "hmm_devmem_remove",
	.init = fixture_init,
	.test_cases = remove_cases,
};

kunit_test_suite(remove_suite);
