// SPDX-License-Identifier: GPL-2.0
/*
 * Allocating and freeing device pages in a loop, on one CPU or on many.
 */

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "bench.h"

#define BENCH_MAX_BATCH		4096

/**
 * struct bench_loop - one thread's work
 * @kind: The kind of device memory to allocate from.
 * @arg: What the user has asked for.
 * @folios: Memory for a batch.
 * @task: The kernel thread; NULL if the caller runs the loop itself.
 * @go: Completed when all threads have been created.
 * @done: Completed by the thread when its loop is over.
 * @batches: Number of batches done.
 * @time: How long they took.
 * @ret: 0 or -ENOMEM.
 */
struct bench_loop {
	const struct bench_kind *kind;
	const struct hmm_devmem_bench_alloc *arg;
	struct folio **folios;
	struct task_struct *task;
	struct completion *go;
	struct completion done;
	u64 batches;
	u64 time;
	int ret;
};

static void free_folio(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

static int run_batch(struct bench_loop *loop)
{
	const unsigned int order = loop->arg->order, nr = loop->arg->batch;
	struct folio *(*alloc)(unsigned int order) = loop->kind->alloc;
	unsigned int i, got;

	for (got = 0; got < nr; got++) {
		loop->folios[got] = alloc(order);
		if (!loop->folios[got])
			break;
	}
	for (i = 0; i < got; i++)
		free_folio(loop->folios[i]);
	return got == nr ? 0 : -ENOMEM;
}

static bool loop_goes_on(const struct bench_loop *loop, u64 start)
{
	const u64 limit = (u64)loop->arg->limit_ms * NSEC_PER_MSEC;

	return !loop->ret && loop->batches < loop->arg->batches &&
	       (!limit || ktime_get_ns() - start < limit);
}

static void run_loop(struct bench_loop *loop)
{
	u64 start;

	/* One batch up front: costs that arise only once are not to be measured. */
	loop->ret = run_batch(loop);
	start = ktime_get_ns();
	while (loop_goes_on(loop, start)) {
		loop->ret = run_batch(loop);
		loop->batches++;
		if (loop->arg->threads)
			cond_resched();
	}
	loop->time = ktime_get_ns() - start;
}

static int loop_thread(void *data)
{
	struct bench_loop *loop = data;

	wait_for_completion(loop->go);
	run_loop(loop);
	complete(&loop->done);
	return 0;
}

static int start_threads(struct bench_loop *loops, unsigned int nr,
			 struct completion *go)
{
	unsigned int cpu, i = 0;

	for_each_online_cpu(cpu) {
		struct task_struct *task;

		if (i == nr)
			break;
		loops[i].go = go;
		init_completion(&loops[i].done);
		task = kthread_create_on_cpu(loop_thread, &loops[i], cpu,
					     "hmm_devmem_bench/%u");
		if (IS_ERR(task))
			return PTR_ERR(task);
		loops[i++].task = get_task_struct(task);
		wake_up_process(task);
	}
	return i == nr ? 0 : -ENXIO;
}

static int run_threads(struct bench_loop *loops, unsigned int nr)
{
	DECLARE_COMPLETION_ONSTACK(go);
	unsigned int i;
	int ret;

	ret = start_threads(loops, nr, &go);
	complete_all(&go);
	for (i = 0; i < nr && loops[i].task; i++) {
		wait_for_completion(&loops[i].done);
		kthread_stop_put(loops[i].task);
		ret = ret ?: loops[i].ret;
	}
	return ret;
}

static int alloc_loops(struct bench_loop *loops, unsigned int nr,
		       const struct bench_kind *kind,
		       const struct hmm_devmem_bench_alloc *arg)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		loops[i].kind = kind;
		loops[i].arg = arg;
		loops[i].folios = kvcalloc(arg->batch, sizeof(struct folio *),
					   GFP_KERNEL);
		if (!loops[i].folios)
			return -ENOMEM;
	}
	return 0;
}

/**
 * bench_alloc() - Measure allocation and free
 * @kind: The kind of device memory; there is memory of that kind.
 * @arg: What the user has asked for, and the result.
 *
 * Context: Process context, may sleep.
 * Return: 0, -EINVAL, -ENOMEM, also if there is not enough device memory, or
 * -ENXIO if there are fewer CPUs than threads.
 */
int bench_alloc(const struct bench_kind *kind,
		struct hmm_devmem_bench_alloc *arg)
{
	const unsigned int nr = max(arg->threads, 1U);
	struct bench_loop *loops;
	unsigned int i;
	int ret;

	if (!arg->batch || arg->batch > BENCH_MAX_BATCH || nr > num_online_cpus())
		return -EINVAL;
	loops = kcalloc(nr, sizeof(*loops), GFP_KERNEL);
	if (!loops)
		return -ENOMEM;
	ret = alloc_loops(loops, nr, kind, arg);
	if (!ret && arg->threads) {
		ret = run_threads(loops, nr);
	} else if (!ret) {
		run_loop(&loops[0]);
		ret = loops[0].ret;
	}
	arg->time = 0;
	arg->batches = 0;
	for (i = 0; i < nr; i++) {
		arg->time = max(arg->time, loops[i].time);
		arg->batches += loops[i].batches;
		kvfree(loops[i].folios);
	}
	kfree(loops);
	return ret;
}
