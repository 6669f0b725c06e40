// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_remove: removing device memory, also while it is in
 * use, and many devices at once.
 */

#include <kunit/device.h>
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/workqueue.h>

#include "core_test.h"

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

	kunit_device_unregister(test, test_device(test));
	hmm_devmem_remove(devmem);
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

/* Zombies: pages that somebody has for longer than the driver is there */

static void wait_for_regions(struct kunit *test, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < 100 && count_regions() != nr; i++)
		msleep(50);
	KUNIT_EXPECT_EQ(test, count_regions(), nr);
}

/* The driver is gone when the page is freed: its ops are not to be looked at. */
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
 * @devmem: whose folio has it
 * @folio: the only one
 * @begun: when it is being released
 * @work: frees @folio
 */
struct slow_context {
	struct hmm_devmem_context ctx;
	struct hmm_devmem *devmem;
	struct folio *folio;
	struct completion begun;
	struct work_struct work;
};

static void release_slowly(struct hmm_devmem_context *ctx)
{
	struct slow_context *slow = container_of(ctx, struct slow_context, ctx);

	complete(&slow->begun);
	/* Far longer than such a removal takes. */
	mdelay(1000);
	note(slow->devmem, 'r');
}

static void free_slowly(struct work_struct *work)
{
	release(container_of(work, struct slow_context, work)->folio);
}

/*
 * Another page makes a zombie, so that nobody waits for the one being freed. A dead
 * device, so that nobody waits for that either.
 */
static void remove_waits_for_release_of_context(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct slow_context *slow = kunit_kzalloc(test, sizeof(*slow), GFP_KERNEL);
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *in_use = alloc(test, devmem, 0, NULL);

	KUNIT_ASSERT_NOT_NULL(test, slow);
	slow->devmem = devmem;
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
	expect_events(test, "fkrc");

	release(in_use);
	wait_for_regions(test, fixture->nr_regions);
}

/* Core moves a page that is mapped nowhere, and that does not free it. */
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

/* All at once remove the same one. */
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

static struct kunit_case remove_cases[] = {
	KUNIT_CASE(remove_calls_kill_then_cleanup),
	KUNIT_CASE(remove_classic_calls_kill_then_cleanup),
	KUNIT_CASE(remove_without_hooks_works),
	KUNIT_CASE(remove_gives_range_back),
	KUNIT_CASE(remove_null_ignored),
	KUNIT_CASE(remove_twice_happens_once),
	KUNIT_CASE(detach_after_remove_does_nothing),
	KUNIT_CASE(detach_removes),
	KUNIT_CASE(remove_after_detach_does_nothing),
	KUNIT_CASE(alloc_folio_in_kill_returns_null),
	KUNIT_CASE(remove_classic_frees_in_kill),
	KUNIT_CASE_SLOW(remove_with_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_waits_for_release_of_context),
	KUNIT_CASE_SLOW(remove_with_movable_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_with_large_folio_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(remove_classic_with_page_in_use_leaves_zombie),
	KUNIT_CASE_SLOW(add_beside_zombie_works),
	KUNIT_CASE_SLOW(add_after_remove_gets_range_again),
	KUNIT_CASE(add_twice_on_one_device_works),
	KUNIT_CASE_SLOW(add_ten_devices_at_once_works),
	KUNIT_CASE(detach_ten_devices_removes_each_once),
	KUNIT_CASE(remove_concurrently_happens_once),
	{ }
};

static struct kunit_suite remove_suite = {
	.name = "hmm_devmem_remove",
	.init = fixture_init,
	.test_cases = remove_cases,
};

kunit_test_suite(remove_suite);
