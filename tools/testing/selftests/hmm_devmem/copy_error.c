// SPDX-License-Identifier: GPL-2.0
/*
 * Copies to system memory that fail: no process sees what a failed copy has written,
 * and no copy goes on when its destination is freed. Drivers in the kernel make the
 * mistakes that these tests look for:
 *
 * ==== ==========================================================================
 * N6   nouveau: eviction ignores the result of the copy
 * K1   amdkfd: frees memory that earlier copies write to when a later copy fails
 * K2   amdkfd: ignores the error that waiting for a copy returns
 * D7   xe: ignores that a part of a copy has failed
 * ==== ==========================================================================
 */
#define ONLY_PRIVATE
#include "fixture.h"

#include <pthread.h>
#include <sched.h>

/*
 * Read all pages while copies may fail: those that can be read must have the right
 * bytes. Returns how many have not.
 */
static long wrong_if_seen(char *ptr, unsigned int seed, unsigned long npages)
{
	unsigned long page;
	long count = 0;

	for (page = 0; page < npages; page++)
		if (!access_signal(ptr + page * PAGE, false))
			count += wrong_from(ptr + page * PAGE, seed, page, 1);
	return count;
}

/*
 * Bring all pages back to system memory in one of three ways, while some copies fail
 * in the way of @what, and read them. Returns how many pages are wrong.
 */
static long move_back_and_look(int fd, char *ptr, unsigned long npages,
			       unsigned int what)
{
	long count = 0;
	int round;

	for (round = 0; round < 9; round++) {
		fill(ptr, 20 + round, npages);
		if (all_moved(fd, ptr, npages) != (long)npages)
			return -1;
		device_inject(fd, what, round % 4, 1 + round % 3);
		if (round % 3 == 0)
			device_evict_all(fd);
		else if (round % 3 == 1)
			to_ram(fd, ptr, npages);
		count += wrong_if_seen(ptr, 20 + round, npages);
		device_inject(fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
		count += wrong(ptr, 20 + round, npages);
	}
	return count;
}

/* N6. Verifies that the process never sees what a failed copy has written. */
TEST_F(devmem, failed_copy_is_never_seen)
{
	char *ptr = area_map(self->npages, variant->thp);

	EXPECT_EQ(0, move_back_and_look(self->fd, ptr, self->npages,
					HMM_DEVMEM_TEST_FAIL_TO_RAM));
	EXPECT_LT(0, SINCE(copy_errors));
}

/* K2. Verifies this for a copy whose failure only copy_wait() reports. */
TEST_F(devmem, failed_wait_is_never_seen)
{
	char *ptr = area_map(self->npages, variant->thp);

	EXPECT_EQ(0, move_back_and_look(self->fd, ptr, self->npages,
					HMM_DEVMEM_TEST_FAIL_WAIT));
	EXPECT_LT(0, SINCE(copy_errors));
}

/* D7. Verifies this for a copy of which only some runs have failed. */
TEST_F(devmem, failed_part_of_copy_is_never_seen)
{
	char *ptr = area_map(self->npages, variant->thp);

	EXPECT_EQ(0, move_back_and_look(self->fd, ptr, self->npages,
					HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN));
	EXPECT_LT(0, SINCE(copy_errors));
}

/* Number of pages that have not what number() writes to fresh memory. */
static long not_just_numbered(const char *ptr, unsigned long npages)
{
	long count = misnumbered(ptr, npages);
	unsigned long i;

	for (i = 1; i <= npages; i++)
		count += !!read_word(ptr + i * PAGE - sizeof(__u64));
	return count;
}

struct grabber {
	pthread_t thread;
	char *ptr;
	unsigned long npages;
	int stop;
	long errors;
};

/* Allocate memory that has just become free, keep it for a while, and free it. */
static void *grab(void *arg)
{
	struct grabber *grabber = arg;

	while (!__atomic_load_n(&grabber->stop, __ATOMIC_RELAXED)) {
		number(grabber->ptr, grabber->npages);
		sleep_ms(10);
		grabber->errors += not_just_numbered(grabber->ptr, grabber->npages);
		madvise(grabber->ptr, grabber->npages * PAGE, MADV_DONTNEED);
	}
	return NULL;
}

/*
 * K1. Verifies that slow copies are over before their memory is freed, also when one
 * that was started later fails: the next user of that memory would find data in it
 * that it has not written.
 */
TEST_F(devmem, failed_copy_leaves_no_other_in_flight)
{
	char *ptr = area_map(self->npages, variant->thp);
	struct grabber grabber = {
		.ptr = area_map(self->npages, variant->thp),
		.npages = self->npages,
	};
	cpu_set_t cpus;
	int skip, evict;

	/* The page allocator caches free pages per CPU, so do all on one CPU */
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(cpus), &cpus));
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 50000));
	ASSERT_EQ(0, pthread_create(&grabber.thread, NULL, grab, &grabber));
	for (skip = 0; skip < 3; skip++) {
		for (evict = 0; evict < 2; evict++) {
			fill(ptr, 30 + skip, self->npages);
			EXPECT_EQ(self->npages,
				  all_moved(self->fd, ptr, self->npages));
			EXPECT_EQ(0, device_inject(self->fd,
						   HMM_DEVMEM_TEST_FAIL_TO_RAM,
						   skip, 1));
			if (evict)
				device_evict_all(self->fd);
			else
				to_ram(self->fd, ptr, self->npages);
			EXPECT_EQ(0, device_evict_all(self->fd));
			EXPECT_EQ(0, wrong(ptr, 30 + skip, self->npages));
		}
	}
	__atomic_store_n(&grabber.stop, 1, __ATOMIC_RELAXED);
	pthread_join(grabber.thread, NULL);
	EXPECT_EQ(0, grabber.errors);
	EXPECT_LT(0, SINCE(copy_errors));
}

TEST_HARNESS_MAIN
