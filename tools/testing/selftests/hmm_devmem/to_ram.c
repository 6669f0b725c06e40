// SPDX-License-Identifier: GPL-2.0
/*
 * The way back to system memory: data that the device wrote is kept, whatever the
 * kernel does to the pages afterwards, and pages that cannot move back now do so
 * later.
 */
#include "fixture.h"
#include "system.h"

#include <sys/resource.h>

/* Size of the RAM disk that is used for swap. */
#define NR_PAGES	HUGE_PAGES
#define SWAP_PAGES	1024

enum way {
	BY_FAULT,
	BY_CALL,
	BY_EVICTION,
	BY_SUSPEND,
	BY_REMOVAL,
	NR_WAYS,
};

/* Bring all pages back in the given way. Returns whether that has worked. */
static bool back_to_ram(struct _test_data_devmem *self, char *ptr, enum way way)
{
	bool ok = true;

	switch (way) {
	case BY_FAULT:
		touch(ptr, NR_PAGES);
		break;
	case BY_SUSPEND:
		ok = !device_suspend(self->ctl);
		device_resume(self->ctl);
		break;
	case BY_REMOVAL:
		return !device_unplug(self->ctl) && !device_plug(self->ctl);
	case BY_EVICTION:
		ok = !device_evict_all(self->fd);
		break;
	default:
		break;
	}
	/* CPU accesses do not move coherent memory */
	if (way == BY_CALL || device_used(self->ctl))
		ok = to_ram(self->fd, ptr, NR_PAGES) == (long)NR_PAGES;
	return ok && !device_used(self->ctl);
}

/*
 * Verifies that data that the device wrote after MADV_FREE is not dropped once the
 * memory has moved back, in whatever way.
 */
TEST_F(devmem, free_then_device_write)
{
	char *data = area_map(NR_PAGES, false);
	enum way way;
	char *ptr;

	ASSERT_EQ(0, swap_begin(SWAP_PAGES));
	for (way = 0; way < NR_WAYS; way++) {
		/* Struct pages that were never used before */
		ASSERT_EQ(0, plug_as(self, 0, 0, 0));
		ptr = area_filled(NR_PAGES, variant->thp, 1);
		fill(data, 100 + way, NR_PAGES);
		ASSERT_EQ(0, madvise(ptr, NR_PAGES * PAGE, MADV_FREE));
		ASSERT_EQ(NR_PAGES, all_moved(self->fd, ptr, NR_PAGES));
		ASSERT_EQ(NR_PAGES,
			  device_write(self->fd, ptr, data, NR_PAGES));
		ASSERT_TRUE(back_to_ram(self, ptr, way));
		EXPECT_TRUE(page_out(ptr, NR_PAGES));
		EXPECT_EQ(0, wrong(ptr, 100 + way, NR_PAGES));
		areas_unmap();
		data = area_map(NR_PAGES, false);
	}
	EXPECT_EQ(0, swapoff(SWAP_DISK));
}

/*
 * Verifies this for pages that only the device has ever written to, and for
 * MADV_FREE while the pages are on the device.
 */
TEST_F(devmem, device_write_then_free)
{
	char *data = area_filled(NR_PAGES, false, 2);
	int freed;
	char *ptr;

	ASSERT_EQ(0, swap_begin(SWAP_PAGES));
	for (freed = 0; freed < 2; freed++) {
		ASSERT_EQ(0, plug_as(self, 0, 0, 0));
		ptr = area_map(NR_PAGES, variant->thp);
		ASSERT_EQ(NR_PAGES, all_moved(self->fd, ptr, NR_PAGES));
		if (freed)
			ASSERT_EQ(0, madvise(ptr, NR_PAGES * PAGE, MADV_FREE));
		ASSERT_EQ(NR_PAGES,
			  device_write(self->fd, ptr, data, NR_PAGES));
		ASSERT_TRUE(back_to_ram(self, ptr, BY_EVICTION));
		EXPECT_TRUE(page_out(ptr, NR_PAGES));
		EXPECT_EQ(0, wrong(ptr, 2, NR_PAGES));
	}
	EXPECT_EQ(0, swapoff(SWAP_DISK));
}

/* Verifies this for a driver that migrates by itself. */
TEST(free_then_classic_device_write)
{
	char *data = area_filled(NR_PAGES, false, 3);
	char *ptr = area_filled(NR_PAGES, false, 4);
	int fd = device_open(CLASSIC);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, swap_begin(SWAP_PAGES));
	ASSERT_EQ(0, device_unplug(fd));
	ASSERT_EQ(0, device_plug(fd));
	ASSERT_EQ(0, madvise(ptr, NR_PAGES * PAGE, MADV_FREE));
	ASSERT_EQ(NR_PAGES, all_moved(fd, ptr, NR_PAGES));
	ASSERT_EQ(NR_PAGES, device_write(fd, ptr, data, NR_PAGES));
	ASSERT_EQ(NR_PAGES, to_ram(fd, ptr, NR_PAGES));
	EXPECT_TRUE(page_out(ptr, NR_PAGES));
	EXPECT_EQ(0, wrong(ptr, 3, NR_PAGES));
	EXPECT_EQ(0, swapoff(SWAP_DISK));
	areas_unmap();
	close(fd);
}

/*
 * Copies that fail now and would succeed later.
 */

static const unsigned int not_now[] = {
	EAGAIN, EINTR, ENOMEM, EBUSY, ETIMEDOUT, 512 /* ERESTARTSYS */,
};

static const unsigned int ways_to_fail[] = {
	HMM_DEVMEM_TEST_FAIL_TO_RAM, HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,
	HMM_DEVMEM_TEST_FAIL_WAIT,
};

/*
 * Verifies that a CPU fault tries again if the device cannot copy for the moment, in
 * whichever callback and with whichever errno, for single pages and for windows, and
 * that no page is lost.
 */
TEST_F(devmem, not_now)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	size_t i, n;

	if (variant->coherent)
		return;
	for (i = 0; i < ARRAY_SIZE(not_now); i++) {
		for (n = 0; n < ARRAY_SIZE(ways_to_fail); n++) {
			ASSERT_EQ(self->npages,
				  all_moved(self->fd, ptr, self->npages));
			ASSERT_EQ(0, device_inject_error(self->fd,
							 ways_to_fail[n], 1, 20,
							 not_now[i]));
			EXPECT_EQ(0, access_signal(ptr + 1200 * PAGE, true));
			EXPECT_EQ(0, access_signal(ptr + 7 * PAGE, false));
			EXPECT_EQ(0, wrong(ptr, 5, self->npages));
			EXPECT_EQ(0, device_used(self->ctl));
		}
	}
	EXPECT_LT(0, SINCE(copy_errors));
}

/* Verifies that a thread which waits for the device sleeps between two tries. */
TEST_F(devmem, not_now_sleeps)
{
	enum { TIMES = 300, MOST_ROUNDS = 20 };
	char *ptr = area_filled(1, false, 6);
	struct rusage before, after;
	long sleeps = 0;
	int round;

	if (variant->coherent)
		return;
	/* A sleep can end before the CPU has switched to another task: it may take more tries */
	for (round = 1; round <= MOST_ROUNDS && sleeps < TIMES / 2; round++) {
		ASSERT_EQ(1, all_moved(self->fd, ptr, 1));
		ASSERT_EQ(0, device_inject_error(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM,
						 0, TIMES, EAGAIN));
		ASSERT_EQ(0, getrusage(RUSAGE_SELF, &before));
		EXPECT_EQ(0, wrong(ptr, 6, 1));
		ASSERT_EQ(0, getrusage(RUSAGE_SELF, &after));
		EXPECT_EQ(round * TIMES, SINCE(copy_errors));
		sleeps += after.ru_nvcsw - before.ru_nvcsw;
	}
	EXPECT_LE(TIMES / 2, sleeps);
}

/* A process that waits for the device, in its own code or in a system call. */
static int waiter(const char *ptr, unsigned long npages, bool in_syscall, int to)
{
	if (in_syscall)
		return write(to, ptr, 100) != 100;
	return !!wrong(ptr, 7, npages);
}

/*
 * Verifies that a CPU fault waits for as long as the device cannot copy, that the
 * process can be killed meanwhile, also if the fault is in a system call, and that
 * the fault ends when the device can copy.
 */
TEST_F(devmem, not_now_for_long)
{
	char *ptr = area_filled(self->npages, variant->thp, 7);
	int i, fds[2];
	pid_t pids[4];
	long errors;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_inject_error(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM,
					 0, ALWAYS, EAGAIN));
	for (i = 0; i < 4; i++) {
		errors = SINCE(copy_errors);
		pids[i] = child_start(waiter(ptr, self->npages, i & 1, fds[1]));
		/* Wait until the process has tried several times */
		EXPECT_TRUE(soon(SINCE(copy_errors) >= errors + 10));
	}
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(child_lives(pids[i]));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(128 + SIGKILL, child_kill(pids[i]));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	for (; i < 4; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));
	close(fds[0]);
	close(fds[1]);
}

TEST_HARNESS_MAIN
