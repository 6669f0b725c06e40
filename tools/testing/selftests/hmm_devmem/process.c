// SPDX-License-Identifier: GPL-2.0
/*
 * Device pages of processes that fork, exit, close the device or are killed, and of
 * many threads that use the same memory.
 */
#include "fixture.h"

#include <pthread.h>

/* Verifies that a child can read its parent's device pages, and both can write. */
TEST_F(devmem, fork_both_write)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	struct child child;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	sharer_start(&child, ptr, 1, self->npages);
	/* Both write at the same time */
	ASSERT_TRUE(gate_open(&child.gate, 1));
	fill(ptr, 3, self->npages / 2);
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(0, wrong(ptr, 3, self->npages / 2));
	EXPECT_EQ(0, wrong_from(ptr + self->npages / 2 * PAGE, 1,
				self->npages / 2, self->npages / 2));
}

/* Verifies that a child keeps the device pages of a parent that has exited. */
TEST_F(devmem, fork_parent_exits)
{
	struct orphan orphan;

	EXPECT_EQ(0, orphan_start(&orphan, variant->nr, self->npages,
				  variant->thp, 4));
	EXPECT_EQ(self->npages, device_used(self->ctl));
	EXPECT_EQ(0, orphan_end(&orphan));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
}

/* Verifies that the exit of a child takes no pages from its parent. */
TEST_F(devmem, fork_child_exits)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	int i;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, child_run(0));
	EXPECT_EQ(self->npages, device_used_soon(self->ctl, self->npages));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
}

/* Verifies that memory shared after fork() moves for all processes that share it. */
TEST_F(devmem, fork_then_migrate)
{
	char *ptr = area_filled(self->npages, variant->thp, 6);
	struct child child;

	sharer_start(&child, ptr, 6, self->npages);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));
}

/* Verifies that a child does not see the device's writes, and that none is lost. */
TEST_F(devmem, fork_device_writes)
{
	char *ptr = area_filled(self->npages, variant->thp, 14);
	char *data = area_filled(self->npages, false, 15);
	struct gate gate;
	pid_t pid;

	gate_init(&gate);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	pid = child_start(!gate_wait(&gate) || wrong(ptr, 14, self->npages));
	EXPECT_EQ(self->npages, device_write(self->fd, ptr, data, self->npages));
	EXPECT_TRUE(gate_open(&gate, 1));
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, wrong(ptr, 15, self->npages));
	gate_close(&gate);
}

/*
 * Verifies that pages outlive the open file that moved them: they can still be read,
 * and the driver's context of that file is released only when they are free.
 */
TEST_F(devmem, close_then_touch)
{
	char *ptr = area_filled(self->npages, variant->thp, 8);
	int fd = device_open(variant->nr);

	ASSERT_LE(0, fd);
	ASSERT_EQ(self->npages, all_moved(fd, ptr, self->npages));
	EXPECT_EQ(1, SINCE(contexts));
	close(fd);
	EXPECT_EQ(self->npages, device_used(self->ctl));
	EXPECT_EQ(1, SINCE(contexts));
	EXPECT_EQ(0, wrong(ptr, 8, self->npages));
	ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, SINCE(contexts));
}

/* Verifies this for pages that only a child still maps. */
TEST_F(devmem, close_then_child_touches)
{
	struct child heir;

	ASSERT_TRUE(heir_start(&heir, variant->nr, self->npages, variant->thp, 9));
	ASSERT_EQ(self->npages, device_used(self->ctl));
	EXPECT_EQ(1, SINCE(contexts));
	EXPECT_EQ(0, child_end(&heir));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_EQ(0, SINCE(contexts));
}

/* Returns 0 if all pages of a new area are on the device. */
static int leave_on_device(int nr, unsigned long npages, bool thp, unsigned int seed)
{
	char *ptr = area_filled(npages, thp, seed);

	return all_moved(device_open(nr), ptr, npages) != (long)npages;
}

/* Verifies that a process that exits leaves no pages on the device. */
TEST_F(devmem, exit)
{
	EXPECT_EQ(0, child_run(leave_on_device(variant->nr, self->npages,
					       variant->thp, 10)));
	EXPECT_EQ(self->npages, SINCE(to_device));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_EQ(0, SINCE(contexts));
}

static int use_for_ever(int nr, unsigned long npages, bool thp,
			const struct gate *ready)
{
	char *ptr = area_filled(npages, thp, 11);
	int fd = device_open(nr);

	if (to_device(fd, ptr, npages) < 0 || !gate_open(ready, 1))
		return 1;
	for (;;) {
		to_device(fd, ptr, npages);
		touch(ptr, npages);
		to_ram(fd, ptr, npages);
	}
}

/* Verifies this for a process that is killed while it uses the device. */
TEST_F(devmem, kill)
{
	struct gate ready;
	pid_t pid;
	int i;

	for (i = 0; i < 5; i++) {
		gate_init(&ready);
		pid = child_start(use_for_ever(variant->nr, self->npages,
					       variant->thp, &ready));
		EXPECT_TRUE(gate_meet(&ready));
		EXPECT_EQ(128 + SIGKILL, child_kill(pid));
		EXPECT_EQ(0, device_used_soon(self->ctl, 0));
		EXPECT_EQ(0, SINCE(contexts));
	}
	EXPECT_LE(5 * self->npages, SINCE(to_device));
}

/* Verifies that a process never sees data that another one had on the device. */
TEST_F(devmem, nothing_left_for_others)
{
	char *ptr, *data;

	EXPECT_EQ(0, child_run(leave_on_device(variant->nr, self->npages,
					       variant->thp, 12)));
	ASSERT_EQ(0, device_used_soon(self->ctl, 0));
	ptr = area_map(self->npages, variant->thp);
	data = area_filled(self->npages, false, 13);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, not_zero(data, self->npages));
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/* One of several processes on a device. Returns 0 if all is right. */
static int move_and_write(int nr, unsigned long npages, bool thp, unsigned int seed)
{
	char *ptr = area_filled(npages, thp, seed);
	int fd = device_open(nr), n;

	for (n = 0; n < 5; n++) {
		if (all_moved(fd, ptr, npages) != (long)npages)
			return 1;
		if (wrong(ptr, seed, npages))
			return 2;
		fill(ptr, ++seed, npages);
	}
	return 0;
}

/* Verifies that processes do not disturb each other on one device. */
TEST_F(devmem, many_processes)
{
	enum { NR = 4 };
	pid_t pids[NR];
	int i;

	for (i = 0; i < NR; i++)
		pids[i] = child_start(move_and_write(variant->nr, self->npages,
						     variant->thp, 100 * i));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_EQ(0, SINCE(contexts));
}

/*
 * Threads that use the same memory. Each toucher counts up a word of its own in
 * every page: it notices if one of its writes is lost in a migration.
 */
#define TOUCHERS	2
#define MOVERS		2
#define RACE_PAGES	(HUGE_PAGES + 64)
/* The race goes on until the movers have made so many calls, and moved pages. */
#define RACE_MOVES	150
#define RACE_LIMIT	20000

struct race {
	int fd;
	char *ptr;
	int stop;
	int moves;
	int done;
	int errors;
	int rounds;
	bool back;
	int index;
	int wanted;
	pthread_t thread;
	struct race *shared;
};

static bool race_goes_on(struct race *shared)
{
	int moves = __atomic_load_n(&shared->moves, __ATOMIC_RELAXED);
	int done = __atomic_load_n(&shared->done, __ATOMIC_RELAXED);

	return moves < shared->wanted || (!done && moves < RACE_LIMIT);
}

static void *race_touch(void *arg)
{
	struct race *race = arg;
	unsigned long page;
	__u64 *word;

	do {
		for (page = 0; page < RACE_PAGES; page++) {
			word = (__u64 *)(race->ptr + page * PAGE);
			word += race->index;
			if (read_word(word) != (__u64)race->rounds)
				race->errors++;
			write_word(word, race->rounds + 1);
		}
		race->rounds++;
	} while (race_goes_on(race->shared));
	return NULL;
}

static bool race_error(long ret)
{
	return ret < 0 && ret != -EBUSY && ret != -EAGAIN;
}

static void *race_move(void *arg)
{
	struct race *race = arg;
	unsigned long first = 0;
	const char *ptr;
	long ret;

	while (!__atomic_load_n(&race->shared->stop, __ATOMIC_RELAXED)) {
		ptr = race->ptr + first * PAGE;
		if (race->back)
			ret = to_ram(race->fd, ptr, RACE_PAGES - first);
		else
			ret = to_device(race->fd, ptr, RACE_PAGES - first);
		if (race_error(ret))
			race->errors++;
		if (race->back == race->shared->back && ret > 0)
			__atomic_store_n(&race->shared->done, 1,
					 __ATOMIC_RELAXED);
		__atomic_fetch_add(&race->shared->moves, 1, __ATOMIC_RELAXED);
		first = (first + 37) % RACE_PAGES;
	}
	return NULL;
}

/* With @back, one of the movers moves pages back rather than to the device. */
static int race_run(int fd, char *ptr, bool back)
{
	struct race shared = { .back = back, .wanted = rounds_of(RACE_MOVES) };
	struct race races[TOUCHERS + MOVERS] = { };
	unsigned long page;
	int i, errors = 0;

	for (i = 0; i < TOUCHERS + MOVERS; i++) {
		races[i].fd = fd;
		races[i].ptr = ptr;
		races[i].shared = &shared;
		races[i].index = i;
		races[i].back = back && i == TOUCHERS;
		if (pthread_create(&races[i].thread, NULL,
				   i < TOUCHERS ? race_touch : race_move,
				   &races[i]))
			abort();
	}
	for (i = 0; i < TOUCHERS + MOVERS; i++) {
		if (i == TOUCHERS)
			__atomic_store_n(&shared.stop, 1, __ATOMIC_RELAXED);
		pthread_join(races[i].thread, NULL);
		errors += races[i].errors;
	}
	for (page = 0; page < RACE_PAGES; page++)
		for (i = 0; i < TOUCHERS; i++)
			errors += ((__u64 *)(ptr + page * PAGE))[i] !=
				  (__u64)races[i].rounds;
	return errors;
}

/* Verifies that no write is lost while other threads migrate the pages. */
TEST_F(devmem, race_touch_migrate)
{
	char *ptr = area_map(RACE_PAGES, variant->thp);

	EXPECT_EQ(0, race_run(self->fd, ptr, false));
	EXPECT_LT(0, SINCE(to_device));
}

/* Verifies this with a thread that brings the pages back by a call. */
TEST_F(devmem, race_both_ways)
{
	char *ptr = area_map(RACE_PAGES, variant->thp);

	EXPECT_EQ(0, race_run(self->fd, ptr, true));
	EXPECT_LT(0, SINCE(to_device));
	EXPECT_LT(0, SINCE(to_ram));
}

static void *mover_until(void *arg)
{
	struct race *race = arg;

	while (!__atomic_load_n(&race->stop, __ATOMIC_RELAXED))
		if (race_error(to_device(race->fd, race->ptr, RACE_PAGES)))
			race->errors++;
	return NULL;
}

/* Verifies that fork() while pages move gives the child all of them. */
TEST_F(devmem, race_fork)
{
	char *ptr = area_filled(RACE_PAGES, variant->thp, 30);
	struct race race = { .fd = self->fd, .ptr = ptr };
	int i, bad = 0;

	ASSERT_EQ(0, pthread_create(&race.thread, NULL, mover_until, &race));
	for (i = 0; i < 20; i++)
		bad += child_run(!!wrong(ptr, 30, RACE_PAGES)) != 0;
	__atomic_store_n(&race.stop, 1, __ATOMIC_RELAXED);
	pthread_join(race.thread, NULL);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, race.errors);
	EXPECT_EQ(0, wrong(ptr, 30, RACE_PAGES));
}

/* Verifies that unmapping and mapping while pages move does no harm. */
TEST_F(devmem, race_unmap)
{
	char *ptr = area_filled(RACE_PAGES, variant->thp, 31);
	char *hole = ptr + 100 * PAGE;
	struct race race = { .fd = self->fd, .ptr = ptr };
	int i, bad = 0;

	ASSERT_EQ(0, pthread_create(&race.thread, NULL, mover_until, &race));
	for (i = 0; i < 50; i++) {
		madvise(hole, 50 * PAGE, MADV_DONTNEED);
		bad += not_zero(hole, 50);
		fill_from(hole, 31, 100, 50);
		mprotect(hole, 50 * PAGE, PROT_READ);
		bad += wrong_from(hole, 31, 100, 50);
		mprotect(hole, 50 * PAGE, PROT_READ | PROT_WRITE);
	}
	__atomic_store_n(&race.stop, 1, __ATOMIC_RELAXED);
	pthread_join(race.thread, NULL);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, race.errors);
	EXPECT_EQ(0, wrong(ptr, 31, RACE_PAGES));
}

/* Verifies that mremap() while pages move loses none of them. */
TEST_F(devmem, race_mremap)
{
	char *ptr = area_filled(RACE_PAGES, variant->thp, 32);
	char *target = area_map(64, false);
	char *source = ptr + 256 * PAGE;
	struct race race = { .fd = self->fd, .ptr = ptr };
	int i, bad = 0;
	char *to;

	ASSERT_EQ(0, pthread_create(&race.thread, NULL, mover_until, &race));
	for (i = 0; i < 50; i++) {
		to = mremap(source, 64 * PAGE, 64 * PAGE,
			    MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			    target);
		bad += to != target || wrong_from(target, 32, 256, 64);
		to = mremap(target, 64 * PAGE, 64 * PAGE,
			    MREMAP_MAYMOVE | MREMAP_FIXED, source);
		bad += to != source || wrong_from(source, 32, 256, 64);
	}
	__atomic_store_n(&race.stop, 1, __ATOMIC_RELAXED);
	pthread_join(race.thread, NULL);
	EXPECT_EQ(0, bad);
	/* Not race.errors: a mover can find a part of the range not mapped */
	EXPECT_EQ(0, wrong(ptr, 32, RACE_PAGES));
}

TEST_HARNESS_MAIN
