// SPDX-License-Identifier: GPL-2.0
/*
 * A copy engine that works while the CPU goes on, with two copies in flight, and
 * the steps before the copy of a migration, which can fail.
 */
#include "fixture.h"

#include <pthread.h>

/* The range has at least so many windows: none is larger than a huge page. */
#define WINDOWS		4
#define MANY		(WINDOWS * HUGE_PAGES)
#define DELAY_US	2000

/* Verifies that over a long range two copies are in flight, and never more. */
TEST_F(devmem, async_two_in_flight)
{
	char *data = area_map(MANY, false);
	char *ptr = area_filled(MANY, variant->thp, 1);
	const long end = now_ms() + HANG_MS;

	/* Repeated, since khugepaged can prevent it when it takes the mmap lock. */
	do {
		ASSERT_GT(end, now_ms());
		ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, DELAY_US));
		ASSERT_EQ(MANY, all_moved(self->fd, ptr, MANY));
		EXPECT_GE(2, device_stats(self->ctl).in_flight);
		EXPECT_EQ(MANY, resident(self->fd, ptr, MANY));
		ASSERT_EQ(MANY, device_read(self->fd, ptr, data, MANY));
		EXPECT_EQ(0, wrong(data, 1, MANY));
	} while (device_stats(self->ctl).in_flight < 2);

	EXPECT_EQ(0, wrong(ptr, 1, MANY));
	ASSERT_EQ(MANY, all_moved(self->fd, ptr, MANY));
	ASSERT_EQ(MANY, to_ram(self->fd, ptr, MANY));
	EXPECT_EQ(0, wrong(ptr, 1, MANY));
	EXPECT_EQ(2, device_stats(self->ctl).in_flight);
	EXPECT_EQ(0, SINCE(copy_errors));
}

/* Verifies this for each of the ways back to system memory by itself. */
TEST_F(devmem, async_to_ram_two_in_flight)
{
	const unsigned long window = window_pages();
	const long end = now_ms() + HANG_MS;
	unsigned long i;
	char *ptr;
	int way;

	for (way = 0; way < 2; ) {
		ASSERT_GT(end, now_ms());
		ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, DELAY_US));
		ptr = area_filled(MANY, variant->thp, 2);
		for (i = 0; i < MANY; i += window)
			ASSERT_EQ(window, all_moved(self->fd, ptr + i * PAGE, window));
		EXPECT_EQ(1, device_stats(self->ctl).in_flight);
		EXPECT_EQ(way ? 0 : MANY,
			  way ? device_evict_all(self->fd) :
				to_ram(self->fd, ptr, MANY));
		EXPECT_EQ(0, wrong(ptr, 2, MANY));
		areas_unmap();
		EXPECT_GE(2, device_stats(self->ctl).in_flight);
		/*
		 * The library starts a second copy only if it need not wait for
		 * that: a lack of memory, or a writer of the mmap lock, can prevent
		 * it at times.
		 */
		if (device_stats(self->ctl).in_flight == 2)
			way++;
	}
}

/* A process with memory on the device that waits to be killed. */
static int victim(int nr, bool thp, const struct gate *ready)
{
	char *ptr = area_filled(HUGE_PAGES, thp, 4);
	int fd = device_open(nr);

	if (fd < 0 || all_moved(fd, ptr, HUGE_PAGES) != HUGE_PAGES ||
	    !gate_open(ready, 1))
		return 1;
	for (;;)
		pause();
}

static void *evict_thread(void *fd)
{
	return (void *)device_evict_all(*(int *)fd);
}

/*
 * Verifies that a process can exit while its memory is migrated back to system
 * memory. Core took the migration entry of a large folio for a mapping, and dropped
 * a reference that did not exist: the folio was freed, and the eviction never ended.
 */
TEST_F(devmem, exit_on_the_way_to_ram)
{
	pthread_t thread;
	struct gate ready;
	void *left;
	pid_t pid;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 400000));
	gate_init(&ready);
	pid = child_start(victim(variant->nr, variant->thp, &ready));
	ASSERT_TRUE(gate_meet(&ready));
	ASSERT_EQ(0, pthread_create(&thread, NULL, evict_thread, &self->fd));
	/* If the copy is over already, the exit is too late to show the bug */
	EXPECT_TRUE(soon(device_stats(self->ctl).copying || SINCE(evicted)));
	EXPECT_EQ(128 + SIGKILL, child_kill(pid));
	ASSERT_EQ(0, pthread_join(thread, &left));
	EXPECT_EQ(0, (long)left);
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_EQ(0, SINCE(lost));
}

/* Verifies that a driver without copy_wait() has one copy in flight at a time. */
TEST_F(devmem, sync_one_in_flight)
{
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_SYNC, 0));
	ptr = area_filled(MANY, variant->thp, 3);
	ASSERT_EQ(MANY, all_moved(self->fd, ptr, MANY));
	ASSERT_EQ(MANY, to_ram(self->fd, ptr, MANY));
	ASSERT_EQ(MANY, all_moved(self->fd, ptr, MANY));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(1, device_stats(self->ctl).in_flight);
	EXPECT_EQ(0, wrong(ptr, 3, MANY));
}

/*
 * Verifies that when one copy fails, or cannot be started, while another is in
 * flight, only its own window is taken back; and that no memory is freed that the
 * device still writes to (bug K1 of amdkfd).
 */
TEST_F(devmem, async_fails_with_two_in_flight)
{
	static const unsigned int kinds[] = {
		HMM_DEVMEM_TEST_FAIL_WAIT, HMM_DEVMEM_TEST_FAIL_TO_DEVICE,
		HMM_DEVMEM_TEST_FAIL_TO_RAM,
	};
	const unsigned long window = window_pages();
	unsigned int i, skip;
	char *ptr;
	long ret;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, DELAY_US));
	ptr = area_filled(MANY, variant->thp, 4);
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (skip = 0; skip < WINDOWS; skip++) {
			const bool back = kinds[i] == HMM_DEVMEM_TEST_FAIL_TO_RAM;

			ASSERT_EQ(MANY, back ? to_device(self->fd, ptr, MANY) :
					       MANY);
			ASSERT_EQ(0, device_inject(self->fd, kinds[i], skip, 1));
			ret = back ? to_ram(self->fd, ptr, MANY) :
				     to_device(self->fd, ptr, MANY);
			EXPECT_EQ(MANY - window, ret);
			EXPECT_EQ(back ? window : MANY - window,
				  device_used(self->ctl));
			EXPECT_EQ(0, wrong(ptr, 4, MANY));
			to_ram(self->fd, ptr, MANY);
		}
	}
	EXPECT_EQ(2, device_stats(self->ctl).in_flight);
}

/* Verifies that two slow copies that both fail leave nothing behind. */
TEST_F(devmem, async_always_fails)
{
	struct hmm_devmem_test_evict evict;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 5 * DELAY_US));
	ptr = area_filled(MANY, variant->thp, 5);
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_WAIT, 0, ALWAYS));
	EXPECT_GE(0, to_device(self->fd, ptr, MANY));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 5, MANY));

	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	ASSERT_EQ(MANY, all_moved(self->fd, ptr, MANY));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_WAIT, 0, ALWAYS));
	EXPECT_GE(0, to_ram(self->fd, ptr, MANY));
	evict = device_evict_why(self->fd);
	EXPECT_EQ(MANY, evict.left);
	EXPECT_EQ(MANY, evict.not_copied);
	EXPECT_EQ(MANY, device_used(self->ctl));

	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(0, wrong(ptr, 5, MANY));
}

/* Verifies that a process can be killed with copies of its memory in flight. */
TEST_F(devmem, async_kill)
{
	int fd, i;
	char *ptr;
	pid_t pid;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 10 * DELAY_US));
	for (i = 0; i < 5; i++) {
		const long before = SINCE(to_device);

		pid = child_fork();
		if (!pid) {
			fd = device_open(variant->nr);
			ptr = area_filled(MANY, variant->thp, 6);
			for (;;) {
				to_device(fd, ptr, MANY);
				to_ram(fd, ptr, MANY);
			}
		}
		EXPECT_TRUE(soon(SINCE(to_device) != before));
		sleep_ms(7 * i);
		EXPECT_EQ(128 + SIGKILL, child_kill(pid));
		EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	}
	EXPECT_EQ(0, SINCE(contexts));
}

struct mover {
	pthread_t thread;
	int fd;
	char *ptr;
	int stop;
	int errors;
	long moved;
};

static void *mover_run(void *arg)
{
	struct mover *mover = arg;
	long ret;

	while (!__atomic_load_n(&mover->stop, __ATOMIC_RELAXED)) {
		ret = to_device(mover->fd, mover->ptr, MANY);
		if (ret > 0)
			mover->moved += ret;
		else if (ret < 0 && ret != -EBUSY)
			mover->errors++;
	}
	return NULL;
}

/* Verifies that fork(), unmapping and mremap() during copies lose no data. */
TEST_F(devmem, async_races)
{
	struct mover mover = { };
	int i, bad = 0;
	char *hole, *source, *target, *to;
	pid_t pid;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, DELAY_US / 4));
	target = area_map(64, false);
	mover.ptr = area_filled(MANY, variant->thp, 7);
	mover.fd = self->fd;
	hole = mover.ptr + 500 * PAGE;
	source = mover.ptr + 1000 * PAGE;
	ASSERT_EQ(0, pthread_create(&mover.thread, NULL, mover_run, &mover));
	for (i = 0; i < 8; i++) {
		pid = child_start(!!wrong(mover.ptr, 7, MANY));
		to = mremap(source, 64 * PAGE, 64 * PAGE,
			    MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			    target);
		bad += to != target || wrong_from(target, 7, 1000, 64);
		to = mremap(target, 64 * PAGE, 64 * PAGE,
			    MREMAP_MAYMOVE | MREMAP_FIXED, source);
		bad += to != source || wrong_from(source, 7, 1000, 64);
		bad += child_status(pid) != 0;
		madvise(hole, 50 * PAGE, MADV_DONTNEED);
		bad += not_zero(hole, 50);
		fill_from(hole, 7, 500, 50);
	}
	__atomic_store_n(&mover.stop, 1, __ATOMIC_RELAXED);
	pthread_join(mover.thread, NULL);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, mover.errors);
	EXPECT_LT(0, mover.moved);
	EXPECT_EQ(0, wrong(mover.ptr, 7, MANY));
}

/*
 * Steps before the copy. The step that a test selects fails once: then everything is
 * as it was, but for what another window has done, and the next try works.
 */

static const unsigned int steps[] = {
	HMM_DEVMEM_TEST_NO_DEVICE, HMM_DEVMEM_TEST_NO_DEVICE_LARGE,
	HMM_DEVMEM_TEST_NO_RAM, HMM_DEVMEM_TEST_NO_RAM_LARGE,
};

/* Verifies this for migration to the device. */
TEST_F(devmem, step_fails_to_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 10);
	size_t i;
	long ret;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, device_fail_next(self->fd, steps[i]));
		ret = to_device(self->fd, ptr, self->npages);
		/* A window without device pages stays; all others have them */
		EXPECT_EQ(steps[i] == HMM_DEVMEM_TEST_NO_DEVICE,
			  ret < (long)self->npages);
		EXPECT_GE(self->npages, ret);
		EXPECT_LE(HUGE_PAGES, ret);
		EXPECT_EQ(ret, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(ret, device_used(self->ctl));
		ASSERT_EQ(0, device_fail_next(self->fd, 0));
		EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		EXPECT_EQ(0, wrong(ptr, 10, self->npages));
		EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		EXPECT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
		EXPECT_EQ(0, device_used(self->ctl));
	}
	EXPECT_EQ(0, SINCE(copy_errors));
}

/* Verifies this for migration back to system memory, and for eviction. */
TEST_F(devmem, step_fails_to_ram)
{
	char *ptr = area_filled(self->npages, variant->thp, 11);
	struct hmm_devmem_test_evict evict;
	size_t i;
	long ret;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		const bool fails = steps[i] == HMM_DEVMEM_TEST_NO_RAM;

		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_fail_next(self->fd, steps[i]));
		ret = to_ram(self->fd, ptr, self->npages);
		EXPECT_EQ(fails, ret < (long)self->npages);
		EXPECT_TRUE(ret <= (long)self->npages);
		ret = ret < 0 ? 0 : ret;
		EXPECT_EQ(self->npages - ret, device_used(self->ctl));
		ASSERT_EQ(0, device_fail_next(self->fd, 0));
		EXPECT_EQ(self->npages - ret,
			  to_ram(self->fd, ptr, self->npages));
		EXPECT_EQ(0, wrong(ptr, 11, self->npages));

		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_fail_next(self->fd, steps[i]));
		evict = device_evict_why(self->fd);
		EXPECT_EQ(fails, evict.left > 0);
		EXPECT_EQ(evict.left, evict.no_memory);
		EXPECT_EQ(evict.left, device_used(self->ctl));
		ASSERT_EQ(0, device_fail_next(self->fd, 0));
		EXPECT_EQ(0, device_evict_all(self->fd));
		EXPECT_EQ(0, wrong(ptr, 11, self->npages));
		EXPECT_EQ(0, device_used(self->ctl));
	}
	EXPECT_EQ(0, SINCE(copy_errors));
}

/* Verifies this for CPU faults, which must get their page nevertheless. */
TEST_F(devmem, step_fails_in_fault)
{
	char *ptr = area_filled(self->npages, variant->thp, 12);
	size_t i;

	if (variant->coherent)
		return;
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_fail_next(self->fd, steps[i]));
		EXPECT_EQ(0, access_signal(ptr + 300 * PAGE, false));
		EXPECT_EQ(0, wrong(ptr, 12, self->npages));
		EXPECT_EQ(0, device_used(self->ctl));
		ASSERT_EQ(0, device_fail_next(self->fd, 0));
	}
	/* Many faults, with windows of all sizes */
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_ram", 50, 100));
	ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
	EXPECT_EQ(0, wrong(ptr, 12, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
}

TEST_HARNESS_MAIN
