/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Races: threads that do something to the same memory again and again, for a limited
 * time, and until each has done it a few times. Kernels with all checks on, in an
 * emulated machine, can be a hundred times slower than others.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_RACE_H
#define _SELFTESTS_HMM_DEVMEM_RACE_H

#include <pthread.h>

#include "uffd.h"

#define RACE_PAGES	(HUGE_PAGES + 64)
#define RACE_MS		1500
#define RACE_TURNS	3
#define MAX_ACTORS	5

struct race;

/**
 * struct actor - a thread of a race
 * @turn: What the thread does again and again; returns the number of errors.
 * @race: The race that it takes part in.
 * @index: Number that tells actors with the same @turn apart.
 * @turns: How often @turn was called.
 * @errors: Sum of what @turn has returned.
 * @thread: The thread.
 */
struct actor {
	long (*turn)(struct actor *actor);
	struct race *race;
	unsigned int index;
	unsigned int turns;
	long errors;
	pthread_t thread;
};

/**
 * struct race - some actors and the memory that they use
 * @fd: An open file of the device.
 * @ptr: The memory.
 * @npages: Size of the memory, pages.
 * @end: When the race may end, in ms.
 * @nr: Number of @actors.
 * @until_done: The race does not end before @done is set.
 * @done: Set by an actor when something that the test needs has happened.
 * @before: Value at the start of a counter that the test chooses.
 * @faults: Number of CPU faults at the start.
 * @uffd: A userfaultfd, for tests that need one.
 * @actors: The actors.
 */
struct race {
	int fd;
	char *ptr;
	unsigned long npages;
	long end;
	int nr;
	bool until_done;
	int done;
	long before;
	long faults;
	struct uffd *uffd;
	struct actor actors[MAX_ACTORS];
};

static inline void race_add(struct race *race,
			    long (*turn)(struct actor *actor),
			    unsigned int index)
{
	struct actor *actor = &race->actors[race->nr++];

	*actor = (struct actor) { .turn = turn, .race = race, .index = index };
}

static inline unsigned int race_turns(const struct actor *actor)
{
	return __atomic_load_n(&actor->turns, __ATOMIC_RELAXED);
}

static inline bool race_goes_on(const struct race *race)
{
	int i;

	if (now_ms() < race->end)
		return true;
	for (i = 0; i < race->nr; i++)
		if (race_turns(&race->actors[i]) < RACE_TURNS)
			return true;
	return race->until_done && !__atomic_load_n(&race->done, __ATOMIC_RELAXED);
}

static inline void *actor_main(void *arg)
{
	struct actor *actor = arg;

	do {
		actor->errors += actor->turn(actor);
		__atomic_add_fetch(&actor->turns, 1, __ATOMIC_RELAXED);
	} while (race_goes_on(actor->race));
	return NULL;
}

/* Run all actors; returns the number of errors. */
static inline long race_run(struct race *race)
{
	long errors = 0;
	int i;

	race->end = now_ms() + RACE_MS;
	for (i = 0; i < race->nr; i++)
		if (pthread_create(&race->actors[i].thread, NULL, actor_main,
				   &race->actors[i]))
			abort();
	for (i = 0; i < race->nr; i++) {
		pthread_join(race->actors[i].thread, NULL);
		errors += race->actors[i].errors;
	}
	return errors;
}

static inline void note_done(struct race *race)
{
	__atomic_store_n(&race->done, 1, __ATOMIC_RELAXED);
}

static inline long move_errors(long ret)
{
	return ret < 0 && ret != -EBUSY && ret != -EAGAIN;
}

/* Move all of the memory to the device, or all but the first pages. */
static inline long turn_to_device(struct actor *actor)
{
	const unsigned long first = actor->turns % 4 * 37;
	struct race *race = actor->race;

	return move_errors(to_device(race->fd, race->ptr + first * PAGE,
				     race->npages - first));
}

static inline long turn_to_ram(struct actor *actor)
{
	struct race *race = actor->race;

	return move_errors(to_ram(race->fd, race->ptr, race->npages));
}

static inline long turn_evict(struct actor *actor)
{
	struct race *race = actor->race;
	const struct hmm_devmem_test_stats now = device_stats(race->fd);

	if ((long)now.evicted > race->before && (long)now.faults > race->faults)
		note_done(race);
	/* Pause, so that pages stay on the device for CPU faults */
	sleep_ms(actor->turns % 16);
	return device_evict_all(race->fd) < 0;
}

/* Check all words of each page, without writing. */
static inline long turn_check(struct actor *actor)
{
	struct race *race = actor->race;

	return wrong(race->ptr, 1, race->npages);
}

static inline __u64 *counter(struct actor *actor, unsigned long page)
{
	return (__u64 *)(actor->race->ptr + page * PAGE) + actor->index;
}

/* Count up a word in each page; the next turn notices if a write was lost. */
static inline long turn_count(struct actor *actor)
{
	unsigned long page;
	long errors = 0;

	for (page = 0; page < actor->race->npages; page++) {
		errors += read_word(counter(actor, page)) != actor->turns;
		write_word(counter(actor, page), actor->turns + 1);
	}
	return errors;
}

/* After the race: number of words that turn_count() has not left as it should. */
static inline long miscounted(struct race *race)
{
	unsigned long page;
	long count = 0;
	int i;

	for (i = 0; i < race->nr; i++)
		for (page = 0; race->actors[i].turn == turn_count &&
		     page < race->npages; page++)
			count += read_word(counter(&race->actors[i], page)) !=
				 race->actors[i].turns;
	return count;
}

#endif /* _SELFTESTS_HMM_DEVMEM_RACE_H */
