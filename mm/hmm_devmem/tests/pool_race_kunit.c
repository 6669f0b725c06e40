// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_pool_race: the pool of device pages used from
 * several CPUs, contexts and threads at once.
 */

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "../pool.h"
#include "pool_test.h"
#include "wait_test.h"

/* Other CPUs and contexts */

struct remote {
	struct hmm_devmem_pool *pool;
	unsigned long pfns[200];
	unsigned int nr;
};

static long remote_get(void *data)
{
	struct remote *remote = data;

	while (remote->nr < ARRAY_SIZE(remote->pfns) &&
	       !hmm_devmem_pool_alloc(remote->pool, 0, &remote->pfns[remote->nr]))
		remote->nr++;
	return remote->nr;
}

static long remote_put(void *data)
{
	struct remote *remote = data;

	while (remote->nr)
		hmm_devmem_pool_free(remote->pool, remote->pfns[--remote->nr], 0);
	return 0;
}

static void put_on_other_cpu_frees(struct kunit *test)
{
	struct remote *remote = kunit_kzalloc(test, sizeof(*remote), GFP_KERNEL);
	unsigned int first = cpumask_first(cpu_online_mask), round;
	unsigned int other = cpumask_next(first, cpu_online_mask);

	KUNIT_ASSERT_NOT_NULL(test, remote);
	if (other >= nr_cpu_ids)
		kunit_skip(test, "needs two CPUs");

	remote->pool = create_blocks(test, 1);
	for (round = 0; round < 50; round++) {
		KUNIT_ASSERT_EQ(test, work_on_cpu(first, remote_get, remote),
				ARRAY_SIZE(remote->pfns));
		work_on_cpu(other, remote_put, remote);
		KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_used(remote->pool));
	}
	KUNIT_EXPECT_EQ(test, count_blocks(remote->pool), 1);
}

struct putter {
	struct work_struct work;
	struct completion ready;
	struct hmm_devmem_pool *pool;
	unsigned long pfn;
	unsigned int nr;
	bool go;
};

static void putter_work(struct work_struct *work)
{
	struct putter *putter = container_of(work, struct putter, work);

	/* No other task may run here: it could wait for the CPU that has the lock. */
	guard(preempt)();
	complete(&putter->ready);
	while (!READ_ONCE(putter->go))
		cpu_relax();
	while (putter->nr < 512) {
		hmm_devmem_pool_free(putter->pool, putter->pfn + putter->nr, 0);
		WRITE_ONCE(putter->nr, putter->nr + 1);
	}
}

/*
 * Let another CPU free pages while this one has the lock that all CPUs share.
 * Returns how many it has freed when it waits for the lock, or makes no progress for
 * some time: the host can run it too seldom, or it waits for this CPU to take
 * interrupts.
 */
static unsigned int put_contended(struct putter *putter)
{
	unsigned int other, nr, i;
	unsigned long flags;

	WRITE_ONCE(putter->nr, 0);
	WRITE_ONCE(putter->go, false);
	reinit_completion(&putter->ready);

	migrate_disable();
	other = cpumask_any_but(cpu_online_mask, smp_processor_id());
	queue_work_on(other, system_percpu_wq, &putter->work);
	wait_for_completion(&putter->ready);
	spin_lock_irqsave(&putter->pool->blocks_lock, flags);
	WRITE_ONCE(putter->go, true);
	for (i = 0; i < 500 && READ_ONCE(putter->nr) < 127; i++)
		mdelay(1);
	mdelay(5);
	nr = READ_ONCE(putter->nr);
	spin_unlock_irqrestore(&putter->pool->blocks_lock, flags);
	migrate_enable();

	flush_work(&putter->work);
	return nr;
}

/*
 * While another CPU has the lock that all CPUs share, pages that are freed stay in
 * the cache, as long as there is room.
 */
static void put_contended_waits_when_cache_is_full(struct kunit *test)
{
	struct putter *putter = kunit_kzalloc(test, sizeof(*putter), GFP_KERNEL);
	const unsigned long end = jiffies + HANG_LIMIT;
	unsigned int nr;

	KUNIT_ASSERT_NOT_NULL(test, putter);
	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");
	putter->pool = create_blocks(test, 1);
	init_completion(&putter->ready);
	INIT_WORK(&putter->work, putter_work);
	do {
		putter->pfn = get(test, putter->pool, 9);
		nr = put_contended(putter);
		KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_used(putter->pool));
	} while (nr < 127 && time_before(jiffies, end));
	KUNIT_EXPECT_EQ(test, nr, 127);
	KUNIT_EXPECT_EQ(test, count_blocks(putter->pool), 1);
}

#ifdef CONFIG_HOTPLUG_CPU
static void add_cpu_action(void *cpu)
{
	add_cpu((unsigned long)cpu);
}

static void cpu_offline_empties_its_cache(struct kunit *test)
{
	struct remote *remote = kunit_kzalloc(test, sizeof(*remote), GFP_KERNEL);
	unsigned long cpu = cpumask_last(cpu_online_mask);

	KUNIT_ASSERT_NOT_NULL(test, remote);
	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	remote->pool = create_blocks(test, 1);
	work_on_cpu(cpu, remote_get, remote);
	work_on_cpu(cpu, remote_put, remote);
	KUNIT_ASSERT_GT(test, get_stats(remote->pool).cached, 0);

	KUNIT_ASSERT_EQ(test, 0, remove_cpu(cpu));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, add_cpu_action,
							   (void *)cpu));
	KUNIT_EXPECT_EQ(test, 0, get_stats(remote->pool).cached);
	KUNIT_EXPECT_EQ(test, 512, get_stats(remote->pool).free);
}
#endif

/* Which pages have an owner, for all threads and contexts that use a pool. */
struct owners {
	struct hmm_devmem_pool *pool;
	atomic_t *owned;
};

static struct owners *create_owners(struct kunit *test, unsigned int nr_blocks)
{
	struct owners *owners = kunit_kzalloc(test, sizeof(*owners), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, owners);
	owners->pool = create_blocks(test, nr_blocks);
	owners->owned = kunit_kcalloc(test, nr_blocks << 9,
				      sizeof(*owners->owned), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, owners->owned);
	return owners;
}

/* Make the caller the owner of pages. Returns whether none had an owner before. */
static bool own(struct owners *owners, unsigned long pfn, unsigned int order)
{
	unsigned int i, others = 0;

	for (i = 0; i < 1U << order; i++)
		others += atomic_xchg(&owners->owned[pfn - TEST_BASE + i], 1);
	return !others;
}

static bool own_and_put(struct owners *owners, unsigned long pfn,
			unsigned int order)
{
	unsigned int i, mine = 0;

	for (i = 0; i < 1U << order; i++)
		mine += atomic_xchg(&owners->owned[pfn - TEST_BASE + i], 0);
	hmm_devmem_pool_free(owners->pool, pfn, order);
	return mine == 1U << order;
}

static bool get_and_put(struct owners *owners)
{
	unsigned long single, piece, bulk[3];
	bool ok;

	if (hmm_devmem_pool_alloc(owners->pool, 0, &single) ||
	    hmm_devmem_pool_alloc(owners->pool, 3, &piece) ||
	    hmm_devmem_pool_alloc_bulk(owners->pool, 3, bulk) != 3)
		return false;

	ok = own(owners, single, 0);
	ok &= own(owners, piece, 3);
	ok &= own(owners, bulk[0], 0) && own(owners, bulk[1], 0) &&
	      own(owners, bulk[2], 0);
	ok &= own_and_put(owners, single, 0);
	ok &= own_and_put(owners, piece, 3);
	ok &= own_and_put(owners, bulk[0], 0) &&
	      own_and_put(owners, bulk[1], 0) &&
	      own_and_put(owners, bulk[2], 0);
	return ok;
}

/*
 * kunit_run_irq_test() is no use here: its timer is for code that takes only raw
 * locks. Last references are dropped in interrupts, too, but in those that
 * PREEMPT_RT runs in threads.
 */
struct contexts {
	struct owners *owners;
	struct hrtimer timer;
	struct work_struct work;
	atomic_t failed;
	unsigned int irqs;
	unsigned int softirqs;
};

static enum hrtimer_restart contexts_timer(struct hrtimer *timer)
{
	struct contexts *contexts = container_of(timer, struct contexts, timer);

	WRITE_ONCE(contexts->irqs, contexts->irqs + 1);
	if (!get_and_put(contexts->owners))
		atomic_inc(&contexts->failed);
	queue_work(system_bh_wq, &contexts->work);
	hrtimer_forward_now(timer, us_to_ktime(100));
	return HRTIMER_RESTART;
}

static void contexts_work(struct work_struct *work)
{
	struct contexts *contexts = container_of(work, struct contexts, work);
	unsigned int i;

	/* Several times, so that interrupts come in between. */
	for (i = 0; i < 10; i++)
		if (!get_and_put(contexts->owners))
			atomic_inc(&contexts->failed);
	WRITE_ONCE(contexts->softirqs, contexts->softirqs + 1);
}

#define TEST_TICKS	500

static void get_and_put_in_any_context_works(struct kunit *test)
{
	struct contexts *contexts;

	contexts = kunit_kzalloc(test, sizeof(*contexts), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, contexts);
	contexts->owners = create_owners(test, TEST_BLOCKS);
	INIT_WORK(&contexts->work, contexts_work);
	hrtimer_setup(&contexts->timer, contexts_timer, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL);
	hrtimer_start(&contexts->timer, us_to_ktime(100), HRTIMER_MODE_REL);
	while (READ_ONCE(contexts->irqs) < TEST_TICKS ||
	       READ_ONCE(contexts->softirqs) < TEST_TICKS) {
		if (!get_and_put(contexts->owners))
			atomic_inc(&contexts->failed);
		cond_resched();
	}
	hrtimer_cancel(&contexts->timer);
	flush_work(&contexts->work);

	KUNIT_EXPECT_EQ(test, atomic_read(&contexts->failed), 0);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_pool_used(contexts->owners->pool));
	KUNIT_EXPECT_EQ(test, count_blocks(contexts->owners->pool), TEST_BLOCKS);
}

/* How often the caches are drained at least, and pages allocated */
#define TEST_DRAINS	1000
#define TEST_ALLOCS	200000

struct drainer {
	struct hmm_devmem_pool *pool;
	unsigned int drains;
	struct hrtimer timer;
};

static enum hrtimer_restart drainer_timer(struct hrtimer *timer)
{
	struct drainer *drainer = container_of(timer, struct drainer, timer);

	hmm_devmem_pool_drain(drainer->pool);
	WRITE_ONCE(drainer->drains, drainer->drains + 1);
	hrtimer_forward_now(timer, us_to_ktime(20));
	return HRTIMER_RESTART;
}

/* The library would let a device without pages in use be switched off. */
static void page_in_use_is_seen_while_caches_are_drained(struct kunit *test)
{
	const unsigned long end = jiffies + HANG_LIMIT;
	unsigned int i, unseen = 0, failed = 0;
	struct drainer *drainer;
	unsigned long pfn, held;

	drainer = kunit_kzalloc(test, sizeof(*drainer), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, drainer);
	drainer->pool = create_owners(test, TEST_BLOCKS)->pool;
	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_pool_alloc(drainer->pool, 0, &held));
	hrtimer_setup(&drainer->timer, drainer_timer, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL);
	hrtimer_start(&drainer->timer, us_to_ktime(20), HRTIMER_MODE_REL);
	for (i = 0; (i < TEST_ALLOCS || READ_ONCE(drainer->drains) < TEST_DRAINS) &&
	     time_before(jiffies, end); i++) {
		failed += !!hmm_devmem_pool_alloc(drainer->pool, 0, &pfn);
		hmm_devmem_pool_free(drainer->pool, pfn, 0);
		unseen += !hmm_devmem_pool_any_used(drainer->pool);
		cond_resched();
	}
	hrtimer_cancel(&drainer->timer);
	hmm_devmem_pool_free(drainer->pool, held, 0);

	KUNIT_EXPECT_LE(test, TEST_DRAINS, drainer->drains);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, unseen, 0);
	KUNIT_EXPECT_FALSE(test, hmm_devmem_pool_any_used(drainer->pool));
}

/* Many at once */

#define TEST_THREADS	6
#define TEST_HELD	64

/**
 * struct crowd - threads that use one Pool
 * @owners: the pool, and which of its pages have an owner
 * @killing: hmm_devmem_pool_kill() was called
 * @killed: hmm_devmem_pool_kill() has returned
 * @nr_retired: length of @retired
 * @retired: when each page was retired, 1 for the first; 0 if not yet
 * @calls: allocations that succeeded
 * @taken: pages that were handed out although they had an owner
 * @undead: allocations that succeeded after @killed
 * @wrong: wrong return values
 * @revived: pages that were handed out after they were retired
 */
struct crowd {
	struct owners *owners;
	bool killing;
	bool killed;
	unsigned int nr_retired;
	unsigned int *retired;
	atomic_t calls;
	atomic_t taken;
	atomic_t undead;
	atomic_t wrong;
	atomic_t revived;
};

struct member {
	struct crowd *crowd;
	struct rnd_state rnd;
	struct piece held[TEST_HELD];
	unsigned int nr_held;
};

static struct crowd *create_crowd(struct kunit *test, unsigned int nr_blocks)
{
	struct crowd *crowd = kunit_kzalloc(test, sizeof(*crowd), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, crowd);
	crowd->owners = create_owners(test, nr_blocks);
	crowd->retired = kunit_kcalloc(test, nr_blocks << 9,
				       sizeof(*crowd->retired), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, crowd->retired);
	return crowd;
}

static void member_took(struct member *member, unsigned long pfn,
			unsigned int order, bool dead, unsigned int nr_retired)
{
	struct crowd *crowd = member->crowd;
	unsigned int i, when;

	atomic_inc(&crowd->calls);
	if (dead)
		atomic_inc(&crowd->undead);
	if (!own(crowd->owners, pfn, order))
		atomic_inc(&crowd->taken);
	for (i = 0; i < 1U << order; i++) {
		when = READ_ONCE(crowd->retired[pfn - TEST_BASE + i]);
		if (when && when <= nr_retired)
			atomic_inc(&crowd->revived);
	}
	member->held[member->nr_held++] = (struct piece) { pfn, order };
}

static void member_get(struct member *member)
{
	static const unsigned int orders[] = { 0, 0, 0, 0, 0, 1, 2, 3, 5, 9 };
	unsigned int which = random_below(&member->rnd, ARRAY_SIZE(orders) + 2);
	struct crowd *crowd = member->crowd;
	unsigned int i, nr, nr_retired, room = TEST_HELD - member->nr_held;
	unsigned long pfns[TEST_HELD];
	bool dead;
	int ret;

	/* The state before the call; pairs with the tests' smp_store_release(). */
	dead = smp_load_acquire(&crowd->killed);
	/* The same for @nr_retired. */
	nr_retired = smp_load_acquire(&crowd->nr_retired);

	if (which < ARRAY_SIZE(orders)) {
		ret = hmm_devmem_pool_alloc(crowd->owners->pool, orders[which],
					    &pfns[0]);
		if (!ret)
			member_took(member, pfns[0], orders[which], dead,
				    nr_retired);
		else if (ret != -ENOMEM &&
			 (ret != -ENODEV || !READ_ONCE(crowd->killing)))
			atomic_inc(&crowd->wrong);
		return;
	}
	nr = hmm_devmem_pool_alloc_bulk(crowd->owners->pool, room, pfns);
	for (i = 0; i < nr; i++)
		member_took(member, pfns[i], 0, dead, nr_retired);
}

static void member_put(struct member *member)
{
	unsigned int i = random_below(&member->rnd, member->nr_held);
	struct piece piece = member->held[i];

	member->held[i] = member->held[--member->nr_held];
	if (!own_and_put(member->crowd->owners, piece.pfn, piece.order))
		atomic_inc(&member->crowd->taken);
}

static int member_thread(void *data)
{
	struct member *member = data;

	while (!kthread_should_stop()) {
		if (member->nr_held < TEST_HELD && random_below(&member->rnd, 2))
			member_get(member);
		else if (member->nr_held)
			member_put(member);
		cond_resched();
	}
	while (member->nr_held)
		member_put(member);
	return 0;
}

static void stop_action(void *task)
{
	kthread_stop(task);
}

static void start_crowd(struct kunit *test, struct crowd *crowd,
			struct task_struct **tasks)
{
	struct member *member;
	unsigned int i;

	for (i = 0; i < TEST_THREADS; i++) {
		member = kunit_kzalloc(test, sizeof(*member), GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, member);
		member->crowd = crowd;
		prandom_seed_state(&member->rnd, hmm_devmem_test_seed + i);
		tasks[i] = kthread_run(member_thread, member, "hmm_devmem/%u", i);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, tasks[i]);
		KUNIT_ASSERT_EQ(test, 0,
				kunit_add_action_or_reset(test, stop_action,
							  tasks[i]));
	}
}

static void stop_crowd(struct kunit *test, struct crowd *crowd,
		       struct task_struct **tasks)
{
	unsigned int i;

	for (i = 0; i < TEST_THREADS; i++)
		kunit_release_action(test, stop_action, tasks[i]);
	KUNIT_EXPECT_EQ(test, atomic_read(&crowd->taken), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&crowd->wrong), 0);
	KUNIT_EXPECT_EQ(test, hmm_devmem_pool_used(crowd->owners->pool), 0);
}

/* Let the threads run until @calls allocations have succeeded. */
static void wait_for_calls(struct crowd *crowd, int calls)
{
	while (atomic_read(&crowd->calls) < calls)
		msleep(20);
}

static void concurrent_users_never_share_a_page(struct kunit *test)
{
	struct crowd *crowd = create_crowd(test, TEST_BLOCKS);
	struct task_struct *tasks[TEST_THREADS];

	start_crowd(test, crowd, tasks);
	wait_for_calls(crowd, 50000);
	stop_crowd(test, crowd, tasks);
	KUNIT_EXPECT_EQ(test, count_blocks(crowd->owners->pool), TEST_BLOCKS);
}

/* One block, so that pages have to be fetched from other CPUs' caches. */
static void concurrent_users_of_one_block_never_share_a_page(struct kunit *test)
{
	struct crowd *crowd = create_crowd(test, 1);
	struct task_struct *tasks[TEST_THREADS];

	start_crowd(test, crowd, tasks);
	wait_for_calls(crowd, 50000);
	stop_crowd(test, crowd, tasks);
	KUNIT_EXPECT_EQ(test, count_blocks(crowd->owners->pool), 1);
}

static void kill_with_concurrent_users_lets_none_succeed(struct kunit *test)
{
	struct task_struct *tasks[TEST_THREADS];
	struct crowd *crowd;
	unsigned int round;

	for (round = 0; round < 5; round++) {
		crowd = create_crowd(test, TEST_BLOCKS);
		start_crowd(test, crowd, tasks);
		wait_for_calls(crowd, 1000);
		WRITE_ONCE(crowd->killing, true);
		hmm_devmem_pool_kill(crowd->owners->pool);
		/* Pairs with member_get(). */
		smp_store_release(&crowd->killed, true);
		msleep(20);
		stop_crowd(test, crowd, tasks);
		KUNIT_EXPECT_EQ(test, atomic_read(&crowd->undead), 0);
	}
}

/**
 * struct freezer - a thread that freezes and thaws a pool again and again
 * @pool: the pool
 * @rounds: how often it did both
 */
struct freezer {
	struct hmm_devmem_pool *pool;
	unsigned long rounds;
};

static int freezer_thread(void *data)
{
	struct freezer *freezer = data;

	while (!kthread_should_stop()) {
		hmm_devmem_pool_freeze(freezer->pool);
		hmm_devmem_pool_thaw(freezer->pool);
		WRITE_ONCE(freezer->rounds, freezer->rounds + 1);
		cond_resched();
	}
	return 0;
}

/* Wait until the round that was under way has ended, and one more. */
static void wait_for_freezer(struct freezer *freezer)
{
	const unsigned long rounds = READ_ONCE(freezer->rounds);

	while (READ_ONCE(freezer->rounds) - rounds < 2)
		cond_resched();
}

/* A resume, or a suspend that fails, can be under way when a device is removed. */
static void kill_while_freezing_and_thawing_is_for_good(struct kunit *test)
{
	struct freezer *freezer = kunit_kzalloc(test, sizeof(*freezer), GFP_KERNEL);
	unsigned int round, undone = 0;
	struct task_struct *task;
	unsigned long pfn;

	KUNIT_ASSERT_NOT_NULL(test, freezer);
	freezer->pool = create_blocks(test, 1);
	task = kthread_run(freezer_thread, freezer, "hmm_devmem/freezer");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, stop_action, task));
	for (round = 0; round < 2000; round++) {
		hmm_devmem_pool_kill(freezer->pool);
		wait_for_freezer(freezer);
		undone += hmm_devmem_pool_alloc(freezer->pool, 0, &pfn) != -ENODEV;
		/* Undo the kill, which only a test can do. */
		scoped_guard(spinlock_irqsave, &freezer->pool->blocks_lock)
			WRITE_ONCE(freezer->pool->refused, 0);
		wait_for_freezer(freezer);
	}
	kunit_release_action(test, stop_action, task);
	KUNIT_EXPECT_EQ(test, undone, 0);
}

/* Pages are retired while other threads have them, or are about to allocate them. */
static void retire_with_concurrent_users_holds(struct kunit *test)
{
	struct crowd *crowd = create_crowd(test, TEST_BLOCKS);
	struct task_struct *tasks[TEST_THREADS];
	struct rnd_state rnd;
	unsigned int i, at;

	prandom_seed_state(&rnd, hmm_devmem_test_seed);
	start_crowd(test, crowd, tasks);
	for (i = 1; i <= 1000; i++) {
		at = random_below(&rnd, TEST_BLOCKS * 512);
		if (crowd->retired[at])
			continue;
		hmm_devmem_pool_retire(crowd->owners->pool, TEST_BASE + at);
		WRITE_ONCE(crowd->retired[at], i);
		/* Pairs with member_get(). */
		smp_store_release(&crowd->nr_retired, i);
		cond_resched();
	}
	wait_for_calls(crowd, atomic_read(&crowd->calls) + 1000);
	stop_crowd(test, crowd, tasks);
	KUNIT_EXPECT_EQ(test, atomic_read(&crowd->revived), 0);
}

static struct kunit_case pool_race_cases[] = {
	KUNIT_CASE(put_on_other_cpu_frees),
	KUNIT_CASE(put_contended_waits_when_cache_is_full),
#ifdef CONFIG_HOTPLUG_CPU
	KUNIT_CASE_SLOW(cpu_offline_empties_its_cache),
#endif
	KUNIT_CASE(get_and_put_in_any_context_works),
	KUNIT_CASE_SLOW(page_in_use_is_seen_while_caches_are_drained),
	KUNIT_CASE_SLOW(concurrent_users_never_share_a_page),
	KUNIT_CASE_SLOW(concurrent_users_of_one_block_never_share_a_page),
	KUNIT_CASE_SLOW(kill_with_concurrent_users_lets_none_succeed),
	KUNIT_CASE_SLOW(kill_while_freezing_and_thawing_is_for_good),
	KUNIT_CASE_SLOW(retire_with_concurrent_users_holds),
	{ }
};

static struct kunit_suite pool_race_suite = {
	.name = "hmm_devmem_pool_race",
	.suite_init = hmm_devmem_test_print_seed,
	.test_cases = pool_race_cases,
};

kunit_test_suite(pool_race_suite);
