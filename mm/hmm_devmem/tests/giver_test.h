/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A thread that gives empty segments of a devmem with HMM_DEVMEM_LAZY back as soon as
 * there are any, as core's shrinkers do when memory is short.
 */
#ifndef _MM_HMM_DEVMEM_TESTS_GIVER_TEST_H
#define _MM_HMM_DEVMEM_TESTS_GIVER_TEST_H

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/shrinker.h>
#include <linux/workqueue.h>

#include "../devmem.h"

/**
 * struct giver - the thread
 * @devmem: The devmem.
 * @stop: The thread is to end.
 * @done: Completed when it has ended.
 */
struct giver {
	struct hmm_devmem *devmem;
	bool stop;
	struct completion done;
};

static inline int giver_thread(void *data)
{
	struct giver *giver = data;
	struct hmm_devmem_priv *priv = priv(giver->devmem);
	struct shrink_control sc = { .gfp_mask = GFP_KERNEL };

	while (!READ_ONCE(giver->stop)) {
		priv->shrinker->scan_objects(priv->shrinker, &sc);
		flush_delayed_work(&priv->shrink_work);
	}
	complete(&giver->done);
	return 0;
}

static inline void giver_start(struct kunit *test, struct giver *giver,
			       struct hmm_devmem *devmem)
{
	struct task_struct *task;

	giver->devmem = devmem;
	giver->stop = false;
	init_completion(&giver->done);
	task = kthread_run(giver_thread, giver, "hmm_devmem/giver");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
}

static inline void giver_stop(struct giver *giver)
{
	WRITE_ONCE(giver->stop, true);
	wait_for_completion(&giver->done);
}

#endif /* _MM_HMM_DEVMEM_TESTS_GIVER_TEST_H */
