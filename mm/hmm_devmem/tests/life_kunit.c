// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_life: which uses of a devmem are still possible, and for
 * how long, when it is removed.
 */

#include <kunit/device.h>
#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/page_ref.h>
#include <linux/pagemap.h>
#include <linux/percpu-refcount.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/swait.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "../pagemap.h"
#include "../pool.h"
#include "core_test.h"

KUNIT_DEFINE_ACTION_WRAPPER(put_action, hmm_devmem_put, struct hmm_devmem *);

/* Add a devmem to which the test has a reference until it ends. */
static struct hmm_devmem *add_and_get(struct kunit *test, const struct hmm_devmem_ops *ops)
{
	struct hmm_devmem *devmem = add(test, ops, TEST_SIZE);

	hmm_devmem_get(devmem);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, put_action, devmem));
	return devmem;
}

/* Calls with a removed devmem */

static void expect_refused(struct kunit *test, struct hmm_devmem *devmem)
{
	const unsigned long pfn = devmem->pfn_first;
	struct hmm_devmem_left left;

	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	KUNIT_EXPECT_EQ(test, -ENODEV,
			hmm_devmem_migrate_to_device(devmem, current->mm, 0,
						     PAGE_SIZE, NULL));
	KUNIT_EXPECT_EQ(test, -ENODEV,
			hmm_devmem_migrate_to_ram(devmem, current->mm, 0,
						  PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_evict(devmem, pfn, 1, NULL));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_evict(devmem, pfn, 1, &left));
	KUNIT_EXPECT_EQ(test, -ENODEV, hmm_devmem_suspend(devmem));
	hmm_devmem_resume(devmem);
	hmm_devmem_poison(devmem, pfn, 1);
	hmm_devmem_mark_dead(devmem);
	KUNIT_EXPECT_FALSE(test, priv(devmem)->dead);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, 0, NULL));
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_folio(devmem, HMM_DEVMEM_BLOCK_ORDER,
						       NULL));
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, pfn));
}

static void removed_devmem_refuses_everything(struct kunit *test)
{
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add_and_get(test, &managed_ops);
	struct hmm_devmem_stats stats;

	release(alloc(test, devmem, 0, NULL));
	hmm_devmem_remove(devmem);
	expect_refused(test, devmem);
	hmm_devmem_get_stats(devmem, &stats);
	KUNIT_EXPECT_EQ(test, stats.allocated, 1);
	KUNIT_EXPECT_EQ(test, stats.freed, 1);
	hmm_devmem_remove(devmem);
	expect_events(test, "fkc");
	KUNIT_EXPECT_EQ(test, count_regions(), fixture->nr_regions);
}

/* The device is unregistered, and the driver's ops are freed. */
static void detached_devmem_refuses_everything(struct kunit *test)
{
	struct hmm_devmem_ops *ops = kunit_kzalloc(test, sizeof(*ops), GFP_KERNEL);
	struct hmm_devmem *devmem;

	KUNIT_ASSERT_NOT_NULL(test, ops);
	*ops = managed_ops;
	devmem = add_and_get(test, ops);
	kunit_device_unregister(test, test_device(test));
	kunit_kfree(test, ops);
	expect_refused(test, devmem);
	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
}

static void removed_classic_devmem_refuses_everything(struct kunit *test)
{
	struct hmm_devmem *devmem = add_and_get(test, &classic_ops);

	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP, hmm_devmem_suspend(devmem));
	hmm_devmem_mark_dead(devmem);
	KUNIT_EXPECT_FALSE(test, priv(devmem)->dead);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pfn_populated(devmem, devmem->pfn_first));
	hmm_devmem_remove(devmem);
	expect_events(test, "kc");
}

/* A removed devmem's structure is kept, so that a new one gets another address. */
static void remove_of_stale_pointer_removes_no_other(struct kunit *test)
{
	struct hmm_devmem *stale = add(test, &managed_ops, TEST_SIZE), *devmem;
	struct folio *folio;
	unsigned int i;

	hmm_devmem_remove(stale);
	for (i = 0; i < 50; i++) {
		devmem = add(test, &minimal_managed_ops, TEST_SIZE);
		hmm_devmem_remove(stale);
		folio = hmm_devmem_alloc_folio(devmem, 0, NULL);
		KUNIT_ASSERT_NOT_NULL(test, folio);
		release(folio);
		hmm_devmem_remove(devmem);
	}
	expect_events(test, "kc");
}

/* Several removers */

struct remover {
	struct work_struct work;
	struct hmm_devmem *devmem;
	bool too_early;
};

/* The kill callback ends when another remover waits, not one that returns too early. */
static struct completion killing;
static bool cleaned_up;

static void kill_slowly(struct hmm_devmem *devmem)
{
	note(devmem, 'k');
	complete_all(&killing);
	soon(swait_active(&priv(devmem)->removed.wait));
}

static void cleanup_after_all(struct hmm_devmem *devmem)
{
	note(devmem, 'c');
	WRITE_ONCE(cleaned_up, true);
}

static const struct hmm_devmem_ops slow_ops = {
	.kill = kill_slowly,
	.cleanup = cleanup_after_all,
	.copy_to_device = no_copy,
	.copy_to_ram = no_copy,
};

static void remover_work(struct work_struct *work)
{
	struct remover *remover = container_of(work, struct remover, work);

	hmm_devmem_remove(remover->devmem);
	remover->too_early = !READ_ONCE(cleaned_up);
}

static struct remover *start_remover(struct kunit *test, struct hmm_devmem *devmem)
{
	struct remover *remover = kunit_kzalloc(test, sizeof(*remover), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, remover);
	remover->devmem = devmem;
	INIT_WORK(&remover->work, remover_work);
	queue_work(system_dfl_wq, &remover->work);
	return remover;
}

static void all_removers_return_after_cleanup(struct kunit *test)
{
	struct hmm_devmem *devmem;
	struct remover *removers[3];
	unsigned int i;

	init_completion(&killing);
	cleaned_up = false;
	devmem = add_and_get(test, &slow_ops);
	removers[0] = start_remover(test, devmem);
	wait_for_completion(&killing);
	for (i = 1; i < ARRAY_SIZE(removers); i++)
		removers[i] = start_remover(test, devmem);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(cleaned_up));
	for (i = 0; i < ARRAY_SIZE(removers); i++) {
		flush_work(&removers[i]->work);
		KUNIT_EXPECT_FALSE(test, removers[i]->too_early);
	}
	expect_events(test, "kc");
}

/* An error handler removes the devmem, and the driver is unbound meanwhile. */
static void detach_during_removal_waits_for_cleanup(struct kunit *test)
{
	struct hmm_devmem *devmem;
	struct remover *remover;

	init_completion(&killing);
	cleaned_up = false;
	devmem = add(test, &slow_ops, TEST_SIZE);
	remover = start_remover(test, devmem);
	wait_for_completion(&killing);
	kunit_device_unregister(test, test_device(test));
	KUNIT_EXPECT_TRUE(test, READ_ONCE(cleaned_up));
	flush_work(&remover->work);
	KUNIT_EXPECT_FALSE(test, remover->too_early);
	expect_events(test, "kc");
}

static void kill_and_remove(struct hmm_devmem *devmem)
{
	note(devmem, 'k');
	hmm_devmem_remove(devmem);
}

static void cleanup_and_remove(struct hmm_devmem *devmem)
{
	note(devmem, 'c');
	hmm_devmem_remove(devmem);
}

/* A callback that removes its own devmem must not wait for that removal. */
static void remove_in_own_callback_returns_at_once(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.kill = kill_and_remove,
		.cleanup = cleanup_and_remove,
		.copy_to_device = no_copy,
		.copy_to_ram = no_copy,
	};
	struct hmm_devmem *devmem = add_and_get(test, &ops);
	struct remover *remover = start_remover(test, devmem);

	KUNIT_EXPECT_TRUE(test, soon(!work_busy(&remover->work) ||
				     swait_active(&priv(devmem)->removed.wait)));
	KUNIT_EXPECT_FALSE(test, swait_active(&priv(devmem)->removed.wait));
	if (swait_active(&priv(devmem)->removed.wait))
		complete_all(&priv(devmem)->removed);
	flush_work(&remover->work);
	expect_events(test, "kc");
}

/* A page in use keeps the devmem, but not the driver's part of it */

static bool populated_in_cleanup;
static struct hmm_devmem *of_page_in_cleanup;
static struct page *zombie_page;

static void cleanup_looks(struct hmm_devmem *devmem)
{
	populated_in_cleanup = hmm_devmem_pfn_populated(devmem, devmem->pfn_first);
	of_page_in_cleanup = hmm_devmem_from_page(zombie_page);
	note(devmem, 'c');
}

static void zombie_is_no_drivers_page(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.cleanup = cleanup_looks,
		.copy_to_device = no_copy,
		.copy_to_ram = no_copy,
	};
	struct hmm_devmem *devmem = add(test, &ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);
	const u64 offset = hmm_devmem_page_offset(&folio->page);

	zombie_page = &folio->page;
	KUNIT_EXPECT_PTR_EQ(test, devmem, hmm_devmem_from_page(zombie_page));
	hmm_devmem_mark_dead(devmem);
	hmm_devmem_remove(devmem);
	expect_events(test, "c");
	KUNIT_EXPECT_FALSE(test, populated_in_cleanup);
	KUNIT_EXPECT_NULL(test, of_page_in_cleanup);
	KUNIT_EXPECT_NULL(test, hmm_devmem_from_page(zombie_page));
	KUNIT_EXPECT_EQ(test, offset, hmm_devmem_page_offset(zombie_page));
	KUNIT_EXPECT_NULL(test, hmm_devmem_page_context(zombie_page));
	release(folio);
}

/* Else hmm_range_fault() would report a zombie's page as one that may be mapped. */
static void zombie_has_no_owner(struct kunit *test)
{
	struct hmm_devmem *devmem = add_and_get(test, &managed_ops);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	KUNIT_EXPECT_PTR_EQ(test, folio->pgmap->owner, devmem->owner);
	hmm_devmem_mark_dead(devmem);
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_PTR_NE(test, folio->pgmap->owner, devmem->owner);
	KUNIT_EXPECT_NOT_NULL(test, folio->pgmap->owner);
	release(folio);
}

/**
 * struct splitter - a split of a folio that takes its time
 * @ctx: the folio's context
 * @devmem: the devmem of the folio
 * @work: removes @devmem while the split is under way
 * @task: the task that does so
 * @splits: set when the split is under way
 */
struct splitter {
	struct hmm_devmem_context ctx;
	struct hmm_devmem *devmem;
	struct work_struct work;
	struct task_struct *task;
	bool splits;
};

static void splitter_release(struct hmm_devmem_context *ctx)
{
	note(container_of(ctx, struct splitter, ctx)->devmem, 'r');
}

static void splitter_remove(struct work_struct *work)
{
	struct splitter *splitter = container_of(work, struct splitter, work);

	WRITE_ONCE(splitter->task, current);
	hmm_devmem_remove(splitter->devmem);
}

/*
 * Runs as dead_work, which is the last thing that removal waits for before it takes
 * the pages from the driver. Removal has waited for earlier grace periods by then.
 */
static void removal_pauses(struct work_struct *work)
{
	struct hmm_devmem *devmem = &container_of(work, struct hmm_devmem_priv, dead_work)->pub;
	struct fixture *fixture = devmem_fixture(devmem);
	struct splitter *splitter = fixture->priv;

	soon(READ_ONCE(splitter->splits));
}

/* Delays the split between reading the context and taking a reference to it. */
static struct hmm_devmem_context *head_context_slowly(const struct folio *head)
{
	struct hmm_devmem_context *ctx = head->page.zone_device_data;
	struct splitter *splitter = container_of(ctx, struct splitter, ctx);

	WRITE_ONCE(splitter->splits, true);
	/* Removal looks for contexts meanwhile, if it does not wait for this. */
	delay_until_asleep(READ_ONCE(splitter->task));
	return ctx;
}

static struct splitter *create_splitter(struct kunit *test)
{
	struct splitter *splitter = kunit_kzalloc(test, sizeof(*splitter), GFP_KERNEL);
	struct fixture *fixture = test->priv;

	KUNIT_ASSERT_NOT_NULL(test, splitter);
	fixture->priv = splitter;
	splitter->devmem = add_and_get(test, &managed_ops);
	INIT_WORK(&splitter->work, splitter_remove);
	hmm_devmem_context_init(&splitter->ctx, splitter_release);
	return splitter;
}

/*
 * RCU stands for core's split with interrupts off, two pages for the parts of one
 * folio. The device is dead, so that removal does not wait for these pages.
 */
static void remove_during_split_drops_contexts_of_parts(struct kunit *test)
{
	struct splitter *splitter = create_splitter(test);
	struct hmm_devmem *devmem = splitter->devmem;
	struct folio *head, *tail;

	head = alloc(test, devmem, 0, &splitter->ctx);
	tail = alloc(test, devmem, 0, NULL);
	hmm_devmem_context_put(&splitter->ctx);
	hmm_devmem_mark_dead(devmem);
	INIT_WORK(&priv(devmem)->dead_work, removal_pauses);
	queue_work(system_dfl_wq, &priv(devmem)->dead_work);
	KUNIT_EXPECT_TRUE(test, soon(!work_pending(&priv(devmem)->dead_work)));
	queue_work(system_dfl_wq, &splitter->work);
	KUNIT_EXPECT_TRUE(test, soon(percpu_ref_is_zero(&priv(devmem)->ref)));

	kunit_activate_static_stub(test, hmm_devmem_head_context, head_context_slowly);
	scoped_guard(rcu)
		head->pgmap->ops->folio_split(head, tail);
	kunit_deactivate_static_stub(test, hmm_devmem_head_context);
	flush_work(&splitter->work);
	expect_events(test, "krc");
	KUNIT_EXPECT_EQ(test, refcount_read(&splitter->ctx.refs), 0);
	KUNIT_EXPECT_NULL(test, tail->page.zone_device_data);
	release(head);
	release(tail);
	expect_events(test, "krc");
}

/*
 * Until the split comes to a part of a folio, its context word is core's. Make it look
 * like a context while removal may read it. Returns whether removal has done so.
 */
static bool split_once(struct hmm_devmem_segment *segment, struct folio *head,
		       struct folio *tail, struct splitter *splitter)
{
	unsigned int i;

	guard(rcu)();
	tail->page.zone_device_data = &splitter->ctx;
	for (i = 0; i < 20 && !READ_ONCE(segment->contexts); i++)
		mdelay(1);
	if (!READ_ONCE(segment->contexts)) {
		tail->page.zone_device_data = NULL;
		return false;
	}
	/* Removal drops contexts meanwhile, if it does not wait for this. */
	delay_until_asleep(READ_ONCE(splitter->task));
	head->pgmap->ops->folio_split(head, tail);
	return true;
}

static void remove_during_split_drops_nothing_of_cores(struct kunit *test)
{
	struct splitter *splitter = create_splitter(test);
	struct hmm_devmem *devmem = splitter->devmem;
	struct hmm_devmem_segment *segment = priv(devmem)->segments[0];
	const unsigned long end = jiffies + HANG_LIMIT;
	struct folio *head, *tail;

	head = alloc(test, devmem, 0, NULL);
	tail = alloc(test, devmem, 0, NULL);
	hmm_devmem_mark_dead(devmem);
	queue_work(system_dfl_wq, &splitter->work);
	while (!split_once(segment, head, tail, splitter) &&
	       work_busy(&splitter->work) && time_before(jiffies, end))
		cond_resched();
	KUNIT_EXPECT_TRUE(test, time_before(jiffies, end));
	flush_work(&splitter->work);
	expect_events(test, "kc");
	KUNIT_EXPECT_EQ(test, refcount_read(&splitter->ctx.refs), 1);
	KUNIT_EXPECT_NULL(test, tail->page.zone_device_data);
	release(head);
	release(tail);
}

static void split_after_removal_shares_no_context(struct kunit *test)
{
	struct counted_context *counted = kunit_kzalloc(test, sizeof(*counted), GFP_KERNEL);
	struct hmm_devmem *devmem = add_and_get(test, &managed_ops);
	struct folio *head = alloc(test, devmem, 0, NULL);
	struct folio *tail = alloc(test, devmem, 0, NULL);

	KUNIT_ASSERT_NOT_NULL(test, counted);
	hmm_devmem_context_init(&counted->ctx, count_release);
	hmm_devmem_mark_dead(devmem);
	hmm_devmem_remove(devmem);
	/* As if the split had begun before the removal dropped contexts. */
	head->page.zone_device_data = &counted->ctx;
	head->pgmap->ops->folio_split(head, tail);
	KUNIT_EXPECT_NULL(test, tail->page.zone_device_data);
	KUNIT_EXPECT_EQ(test, refcount_read(&counted->ctx.refs), 1);
	head->page.zone_device_data = NULL;
	release(head);
	release(tail);
}

/* Core's split of a folio ends just before the library checks the folio lock. */
static bool locked_after_split(const struct page *page)
{
	struct folio *folio = page_folio((struct page *)page);

	folio_ref_unfreeze(folio, 1);
	folio_unlock(folio);
	return folio_test_locked(folio);
}

static void zombie_page_is_busy_while_it_is_split(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &managed_ops, TEST_SIZE);
	struct folio *folio = alloc(test, devmem, 0, NULL);

	KUNIT_ASSERT_TRUE(test, folio_ref_freeze(folio, 1));
	KUNIT_EXPECT_TRUE(test, hmm_devmem_zombie_page_busy(&folio->page));
	kunit_activate_static_stub(test, hmm_devmem_page_is_locked,
				   locked_after_split);
	KUNIT_EXPECT_TRUE(test, hmm_devmem_zombie_page_busy(&folio->page));
	kunit_deactivate_static_stub(test, hmm_devmem_page_is_locked);
	folio_put(folio);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_zombie_page_busy(&folio->page));
	hmm_devmem_remove(devmem);
}

static void pfn_populated_in_cleanup_is_false(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.cleanup = cleanup_looks,
		.copy_to_device = no_copy,
		.copy_to_ram = no_copy,
	};

	zombie_page = ZERO_PAGE(0);
	hmm_devmem_remove(add(test, &ops, TEST_SIZE));
	expect_events(test, "c");
	KUNIT_EXPECT_FALSE(test, populated_in_cleanup);
}

/* Struct pages that core is about to remove, which cannot be found out */

/* A reference to the pagemap keeps its struct pages while they are being removed. */
static void add_to_range_on_its_way_out_returns_ebusy(struct kunit *test)
{
	struct resource *res = get_region(test, TEST_SIZE);
	struct hmm_devmem *devmem, *other;
	struct dev_pagemap *pagemap;
	struct remover *remover;

	devmem = hmm_devmem_add_resource(&managed_ops, test_device(test), res);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devmem);
	pagemap = get_dev_pagemap(devmem->pfn_first);
	KUNIT_ASSERT_NOT_NULL(test, pagemap);
	remover = start_remover(test, devmem);
	KUNIT_EXPECT_TRUE(test, soon(percpu_ref_is_dying(&pagemap->ref)));

	other = hmm_devmem_add_resource(&managed_ops, test_device(test), res);
	KUNIT_EXPECT_PTR_EQ(test, other, ERR_PTR(-EBUSY));
	put_dev_pagemap(pagemap);
	flush_work(&remover->work);
	hmm_devmem_remove(other);
	expect_events(test, "kc");
}

/**
 * struct others - struct pages that another driver has created
 * @pagemap: their pagemap
 * @end: removes them
 */
struct others {
	struct dev_pagemap pagemap;
	struct work_struct end;
};

static void others_end(struct work_struct *work)
{
	memunmap_pages(&container_of(work, struct others, end)->pagemap);
}

/* get_dev_pagemap() does not find them any more, and core would warn about them. */
static void add_to_range_of_others_on_their_way_out_returns_ebusy(struct kunit *test)
{
	struct others *others = kunit_kzalloc(test, sizeof(*others), GFP_KERNEL);
	struct resource *res = get_region(test, TEST_SIZE);
	struct hmm_devmem *devmem;

	KUNIT_ASSERT_NOT_NULL(test, others);
	INIT_WORK(&others->end, others_end);
	others->pagemap.type = MEMORY_DEVICE_GENERIC;
	others->pagemap.nr_range = 1;
	others->pagemap.range = DEFINE_RANGE(res->start, res->end);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, memremap_pages(&others->pagemap,
							  NUMA_NO_NODE));
	KUNIT_EXPECT_PTR_EQ(test, get_dev_pagemap(PHYS_PFN(res->start)),
			    &others->pagemap);
	queue_work(system_dfl_wq, &others->end);
	KUNIT_EXPECT_TRUE(test, soon(percpu_ref_is_dying(&others->pagemap.ref)));

	devmem = hmm_devmem_add_resource(&managed_ops, test_device(test), res);
	KUNIT_EXPECT_PTR_EQ(test, devmem, ERR_PTR(-EBUSY));
	hmm_devmem_remove(devmem);
	put_dev_pagemap(&others->pagemap);
	flush_work(&others->end);
	expect_events(test, "");
}

static void default_fault_on_classic_gives_sigbus(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &classic_ops, TEST_SIZE);
	struct folio *folio = init_classic(devmem, 1, 0);
	struct vm_area_struct vma = { .vm_end = SZ_2M };
	pmd_t pmd = __pmd(0);

	KUNIT_EXPECT_TRUE(test, hmm_devmem_default_fault(devmem, &vma, 0, &folio->page,
							 0, &pmd) == VM_FAULT_SIGBUS);
	release(folio);
	hmm_devmem_remove(devmem);
}

/**
 * struct peer - a driver that mirrors the test's process
 * @notifier: gets invalidations of the process
 * @devmem: the devmem whose page is in the driver's page table
 * @start: first address of the page
 * @end: one past the last
 * @nr: invalidations of all of it after pages of @devmem have lost their owner
 */
struct peer {
	struct mmu_notifier notifier;
	struct hmm_devmem *devmem;
	unsigned long start;
	unsigned long end;
	unsigned int nr;
};

static int peer_invalidate(struct mmu_notifier *notifier,
			   const struct mmu_notifier_range *range)
{
	struct peer *peer = container_of(notifier, struct peer, notifier);

	if (READ_ONCE(priv(peer->devmem)->gone) && range->start <= peer->start &&
	    range->end >= peer->end)
		peer->nr++;
	return 0;
}

static const struct mmu_notifier_ops peer_ops = {
	.invalidate_range_start = peer_invalidate,
};

/* The device fails all copies to RAM, so a page is left when it is removed. */
static void peers_are_told_of_zombies(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = no_copy,
	};
	const struct fixture *fixture = test->priv;
	struct hmm_devmem *devmem = add_and_get(test, &ops);
	struct peer peer = {
		.notifier.ops = &peer_ops,
		.devmem = devmem,
	};

	peer.start = map_on_device(test, devmem, 1);
	peer.end = peer.start + BLOCK_SIZE_BYTES;
	KUNIT_ASSERT_EQ(test, 0, mmu_notifier_register(&peer.notifier, current->mm));
	hmm_devmem_remove(devmem);
	KUNIT_EXPECT_EQ(test, peer.nr, 1);
	mmu_notifier_unregister(&peer.notifier, current->mm);
	vm_munmap(peer.start, BLOCK_SIZE_BYTES);
	/* Wait, so that the next test does not count this range. */
	KUNIT_EXPECT_TRUE(test, soon(count_regions() == fixture->nr_regions));
}

/* A folio that is mapped by PTEs, as after MADV_DONTNEED of a part of it. */
static void fault_on_part_of_large_folio_is_served_at_once(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, BLOCK_SIZE_BYTES);
	const unsigned long addr = map_on_device(test, devmem, 1);
	struct hmm_devmem_stats stats;
	char byte;

	KUNIT_ASSERT_EQ(test, 0, vm_munmap(addr + BLOCK_SIZE_BYTES - PAGE_SIZE,
					   PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, folio_order(pfn_folio(devmem->pfn_first)),
			HMM_DEVMEM_BLOCK_ORDER);
	KUNIT_EXPECT_EQ(test, 0, copy_from_user(&byte,
						(void __user *)(addr + 7 * PAGE_SIZE),
						1));
	hmm_devmem_get_stats(devmem, &stats);
	KUNIT_EXPECT_EQ(test, stats.faults, 1);
	KUNIT_EXPECT_EQ(test, stats.fault_pages, 1);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* The caches are emptied once, however many pages are poisoned. */
static void poison_of_many_pages_drains_caches_once(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, TEST_SIZE);
	struct hmm_devmem_pool_stats stats;
	long drained;

	drained = atomic_long_read(&priv(devmem)->pool->nr_drained);
	hmm_devmem_poison(devmem, devmem->pfn_first, HMM_DEVMEM_BLOCK_NR);
	KUNIT_EXPECT_EQ(test, drained + 1,
			atomic_long_read(&priv(devmem)->pool->nr_drained));
	hmm_devmem_pool_get_stats(priv(devmem)->pool, &stats);
	KUNIT_EXPECT_EQ(test, stats.retired, HMM_DEVMEM_BLOCK_NR);
	hmm_devmem_remove(devmem);
}

/*
 * The CPU fault is on a page of a folio whose first page is lost, and the PMD that
 * maps the folio is split before the handler runs: core still passes it the first
 * page.
 */
static void fault_beside_lost_page_after_pmd_split(struct kunit *test)
{
	struct hmm_devmem *devmem = add(test, &copying_ops, BLOCK_SIZE_BYTES);
	struct vm_area_struct *vma;
	pmd_t pmd = __pmd(0);
	unsigned long addr;
	struct folio *folio;

	addr = map_on_device(test, devmem, 1);
	folio = pfn_folio(devmem->pfn_first);
	KUNIT_ASSERT_EQ(test, folio_order(folio), HMM_DEVMEM_BLOCK_ORDER);
	hmm_devmem_pool_retire(priv(devmem)->pool, devmem->pfn_first);

	mmap_read_lock(current->mm);
	vma = find_vma(current->mm, addr);
	KUNIT_EXPECT_NOT_NULL(test, vma);
	folio_get(folio);
	folio_lock(folio);
	KUNIT_EXPECT_EQ(test, 0,
			(__force int)hmm_devmem_default_fault(devmem, vma,
							      addr + PAGE_SIZE,
							      &folio->page, 0, &pmd));
	KUNIT_EXPECT_TRUE(test, hmm_devmem_default_fault(devmem, vma, addr,
							 &folio->page, 0, &pmd) ==
				VM_FAULT_HWPOISON);
	release(folio);
	mmap_read_unlock(current->mm);
	vm_munmap(addr, BLOCK_SIZE_BYTES);
	hmm_devmem_remove(devmem);
}

/* Power */

static int suspend_in_kill;

static void kill_suspends_and_resumes(struct hmm_devmem *devmem)
{
	note(devmem, 'k');
	suspend_in_kill = hmm_devmem_suspend(devmem);
	hmm_devmem_resume(devmem);
}

/* kill runs after allocation was stopped, and before removal waits for users. */
static void remove_is_undone_by_no_resume(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.kill = kill_suspends_and_resumes,
		.copy_to_device = no_copy,
		.copy_to_ram = no_copy,
	};
	struct hmm_devmem *devmem;
	unsigned int suspended;

	for (suspended = 0; suspended < 2; suspended++) {
		devmem = add_and_get(test, &ops);
		if (suspended)
			KUNIT_EXPECT_EQ(test, 0, hmm_devmem_suspend(devmem));
		hmm_devmem_remove(devmem);
		KUNIT_EXPECT_EQ(test, suspend_in_kill, suspended ? 0 : -ENODEV);
		KUNIT_EXPECT_EQ(test, priv(devmem)->pool->refused, -ENODEV);
	}
	expect_events(test, "kk");
}

static struct remover suspend_remover;
static bool suspend_copies;

/* A copy of suspend that lasts until a removal has stopped allocation. */
static int copy_until_removed(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	if (xchg(&suspend_copies, true))
		return -EIO;
	queue_work(system_dfl_wq, &suspend_remover.work);
	soon(READ_ONCE(priv(devmem)->pool->refused) == -ENODEV);
	return -EIO;
}

static void remove_is_undone_by_no_suspend_that_fails(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.cleanup = note_cleanup,
		.copy_to_device = no_work,
		.copy_to_ram = copy_until_removed,
	};
	struct hmm_devmem *devmem = add_and_get(test, &ops);
	unsigned long addr;

	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_EQ(test, 1, hmm_devmem_migrate_to_device(devmem, current->mm, addr,
							      addr + PAGE_SIZE, NULL));
	suspend_copies = false;
	suspend_remover = (struct remover) { .devmem = devmem };
	INIT_WORK(&suspend_remover.work, remover_work);
	KUNIT_EXPECT_EQ(test, hmm_devmem_suspend(devmem), -EIO);
	KUNIT_EXPECT_EQ(test, priv(devmem)->pool->refused, -ENODEV);
	flush_work(&suspend_remover.work);
	expect_events(test, "c");
	KUNIT_EXPECT_EQ(test, priv(devmem)->pool->refused, -ENODEV);
}

/* Walks that removal waits for */

#define WALK_BLOCKS	4

/**
 * struct walker - a migration to system memory for which the device fails all copies
 * @work: runs the migration
 * @task: the task that runs it
 * @devmem: the device memory
 * @mm: the process
 * @start: first address
 * @nr_copies: how often the migration has asked the device to copy
 * @ret: what the migration has returned
 * @copying: completed when the device is asked
 */
static struct walker {
	struct work_struct work;
	struct task_struct *task;
	struct hmm_devmem *devmem;
	struct mm_struct *mm;
	unsigned long start;
	unsigned int nr_copies;
	long ret;
	struct completion copying;
} walker;

static void walker_work(struct work_struct *work)
{
	WRITE_ONCE(walker.task, current);
	walker.ret = hmm_devmem_migrate_to_ram(walker.devmem, walker.mm, walker.start,
					       walker.start +
					       WALK_BLOCKS * BLOCK_SIZE_BYTES);
}

/* The first copy for the walker lasts until removal waits for the walker. */
static int walker_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	if (current != READ_ONCE(walker.task))
		return -EIO;
	complete(&walker.copying);
	if (!walker.nr_copies++)
		soon(percpu_ref_is_dying(&priv(devmem)->ref));
	return -EIO;
}

/* The rest of the migration would take too long for removal to wait for it. */
static void remove_ends_walk_to_ram(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = walker_copy,
	};
	const unsigned long size = WALK_BLOCKS * BLOCK_SIZE_BYTES;

	walker = (struct walker) { };
	init_completion(&walker.copying);
	INIT_WORK(&walker.work, walker_work);
	walker.devmem = add(test, &ops, size);
	walker.start = map_on_device(test, walker.devmem, WALK_BLOCKS);
	walker.mm = current->mm;
	queue_work(system_dfl_wq, &walker.work);
	wait_for_completion(&walker.copying);
	hmm_devmem_remove(walker.devmem);
	flush_work(&walker.work);
	KUNIT_EXPECT_EQ(test, walker.ret, -ENODEV);
	KUNIT_EXPECT_EQ(test, walker.nr_copies, 1);
}

static struct kunit_case life_cases[] = {
	KUNIT_CASE(removed_devmem_refuses_everything),
	KUNIT_CASE(detached_devmem_refuses_everything),
	KUNIT_CASE(removed_classic_devmem_refuses_everything),
	KUNIT_CASE_SLOW(remove_of_stale_pointer_removes_no_other),
	KUNIT_CASE_SLOW(all_removers_return_after_cleanup),
	KUNIT_CASE_SLOW(detach_during_removal_waits_for_cleanup),
	KUNIT_CASE(remove_in_own_callback_returns_at_once),
	KUNIT_CASE_SLOW(zombie_is_no_drivers_page),
	KUNIT_CASE(zombie_has_no_owner),
	KUNIT_CASE_SLOW(remove_during_split_drops_contexts_of_parts),
	KUNIT_CASE_SLOW(remove_during_split_drops_nothing_of_cores),
	KUNIT_CASE(split_after_removal_shares_no_context),
	KUNIT_CASE(zombie_page_is_busy_while_it_is_split),
	KUNIT_CASE(pfn_populated_in_cleanup_is_false),
	KUNIT_CASE_SLOW(add_to_range_on_its_way_out_returns_ebusy),
	KUNIT_CASE_SLOW(add_to_range_of_others_on_their_way_out_returns_ebusy),
	KUNIT_CASE(default_fault_on_classic_gives_sigbus),
	KUNIT_CASE(remove_is_undone_by_no_resume),
	KUNIT_CASE_SLOW(remove_is_undone_by_no_suspend_that_fails),
	KUNIT_CASE(fault_beside_lost_page_after_pmd_split),
	KUNIT_CASE(fault_on_part_of_large_folio_is_served_at_once),
	KUNIT_CASE(poison_of_many_pages_drains_caches_once),
	KUNIT_CASE(peers_are_told_of_zombies),
	KUNIT_CASE_SLOW(remove_ends_walk_to_ram),
	{ }
};

static struct kunit_suite life_suite = {
	.name = "hmm_devmem_life",
	.init = fixture_init,
	.test_cases = life_cases,
};

kunit_test_suite(life_suite);
