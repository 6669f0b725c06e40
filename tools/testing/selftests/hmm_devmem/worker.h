/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Threads that use a device, and check their memory, while a test removes the device
 * or evicts its pages.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_WORKER_H
#define _SELFTESTS_HMM_DEVMEM_WORKER_H

#include <pthread.h>

#include "test.h"

enum { WORKERS = 3, WORK_PAGES = HUGE_PAGES + 30 };

/**
 * struct worker - one of these threads
 * @move: Moves the memory to the device: returns the number of pages, or -errno. A
 *	device that is not there is no error.
 * @fd: An open file of the device, for @move.
 * @ptr: The thread's memory.
 * @npages: Size of the memory, pages.
 * @seed: The pattern that it is filled with.
 * @stop: Ends the thread.
 * @errors: Number of calls that failed and of pages with wrong bytes.
 * @moved: Pages that were moved.
 * @thread: The thread.
 */
struct worker {
	long (*move)(struct worker *worker);
	int fd;
	char *ptr;
	unsigned long npages;
	unsigned int seed;
	int stop;
	long errors;
	long moved;
	pthread_t thread;
};

static inline void *worker_main(void *arg)
{
	struct worker *worker = arg;
	long ret;

	while (!__atomic_load_n(&worker->stop, __ATOMIC_RELAXED)) {
		ret = worker->move(worker);
		if (ret < 0) {
			printf("# a worker got %ld\n", ret);
			worker->errors++;
		} else {
			__atomic_add_fetch(&worker->moved, ret, __ATOMIC_RELAXED);
		}
		worker->errors += wrong(worker->ptr, worker->seed, worker->npages);
		fill(worker->ptr, ++worker->seed, worker->npages);
	}
	return NULL;
}

static inline void workers_start(struct worker *workers,
				 long (*move)(struct worker *worker), int fd, bool thp)
{
	int i;

	for (i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker) {
			.move = move,
			.fd = fd,
			.npages = WORK_PAGES,
			.seed = 1000 * (i + 1),
			.ptr = area_filled(WORK_PAGES, thp, 1000 * (i + 1)),
		};
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			abort();
	}
}

static inline long workers_moved(const struct worker *workers)
{
	long sum = 0;
	int i;

	for (i = 0; i < WORKERS; i++)
		sum += __atomic_load_n(&workers[i].moved, __ATOMIC_RELAXED);
	return sum;
}

/* Wait until one of the threads has moved something since this was called. */
static inline bool workers_have_moved(const struct worker *workers)
{
	const long before = workers_moved(workers);

	return soon(workers_moved(workers) > before);
}

/* End the threads; returns the number of errors. */
static inline long workers_stop(struct worker *workers)
{
	long errors = 0;
	int i;

	for (i = 0; i < WORKERS; i++)
		__atomic_store_n(&workers[i].stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		errors += workers[i].errors;
	}
	return errors;
}

#endif /* _SELFTESTS_HMM_DEVMEM_WORKER_H */
