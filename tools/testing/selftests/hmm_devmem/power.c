// SPDX-License-Identifier: GPL-2.0
/*
 * Devices that are switched off and on again, by their driver, by the system, or by
 * runtime power management. All data must have moved back to system memory before.
 */
#include "fixture.h"

#include <sys/syscall.h>
#include <sys/uio.h>

/* Verifies that all pages are in system memory, and no CPU fault moves them there. */
static void expect_in_ram(struct __test_metadata *_metadata,
			  struct _test_data_devmem *self, char *ptr,
			  unsigned int seed)
{
	const long faults = SINCE(faults);

	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, wrong(ptr, seed, self->npages));
	EXPECT_EQ(faults, SINCE(faults));
}

/*
 * Verifies that suspend brings all pages back, that no page moves to the device
 * until it is resumed, and that a second suspend or resume does no harm. (amdgpu's
 * suspend frees the memory under live pages: bug K10.)
 */
TEST_F(devmem, suspend)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	char *data = area_map(self->npages, false);
	int round;

	for (round = 1; round <= 3; round++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_suspend(self->ctl));
		EXPECT_EQ(round * self->npages, SINCE(evicted));
		expect_in_ram(_metadata, self, ptr, 1);
		EXPECT_EQ(-EAGAIN, to_device(self->fd, ptr, self->npages));
		EXPECT_EQ(0, to_ram(self->fd, ptr, self->npages));
		EXPECT_EQ(0, device_evict_all(self->fd));
		EXPECT_EQ(0, device_suspend(self->ctl));
		/* The device's page table has no stale entries */
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		EXPECT_EQ(0, wrong(data, 1, self->npages));
		EXPECT_EQ(round * self->npages, SINCE(evicted));
		ASSERT_EQ(0, device_resume(self->ctl));
		ASSERT_EQ(0, device_resume(self->ctl));
	}
	EXPECT_EQ(0, SINCE(faults));
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
}

/*
 * Verifies that the device finds pages that moved to it after a resume at their new
 * place, not at the one before (nouveau's GPU has stale addresses: bug N15).
 */
TEST_F(devmem, resume_elsewhere)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	char *other = area_filled(self->npages, variant->thp, 3);
	char *data = area_map(self->npages, false);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_suspend(self->ctl));
	ASSERT_EQ(0, device_resume(self->ctl));
	ASSERT_EQ(self->npages, all_moved(self->fd, other, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 2, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, other, data, self->npages));
	EXPECT_EQ(0, wrong(data, 3, self->npages));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));
	EXPECT_EQ(0, wrong(other, 3, self->npages));
}

/* Verifies that pages move back that only a child has, with the file closed. */
TEST_F(devmem, suspend_with_child)
{
	struct child heir;

	ASSERT_TRUE(heir_start(&heir, variant->nr, self->npages, variant->thp, 4));
	ASSERT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, child_end(&heir));
	EXPECT_EQ(0, SINCE(faults));
	ASSERT_EQ(0, device_resume(self->ctl));
}

/* Verifies that devices of all kinds can be suspended. */
TEST_F(devmem, suspend_all_kinds)
{
	static const unsigned int kinds[] = {
		HMM_DEVMEM_TEST_ASYNC, HMM_DEVMEM_TEST_SYNC,
		HMM_DEVMEM_TEST_LAZY, HMM_DEVMEM_TEST_DMA,
		HMM_DEVMEM_TEST_LAZY | HMM_DEVMEM_TEST_RECLAIM,
	};
	size_t i;
	char *ptr = area_filled(self->npages, variant->thp, 5);

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		ASSERT_EQ(0, plug_as(self, 0, kinds[i], 100));
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_suspend(self->ctl));
		EXPECT_EQ(-EAGAIN, to_device(self->fd, ptr, self->npages));
		expect_in_ram(_metadata, self, ptr, 5);
		ASSERT_EQ(0, device_resume(self->ctl));
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	}
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
}

/*
 * Verifies that the device works as before after a suspend that has failed, whatever
 * the reason was (nouveau's does not: bug N14).
 */
TEST_F(devmem, suspend_fails)
{
	const unsigned long npages = HUGE_PAGES + 20;
	char *ptr = area_filled(npages, variant->thp, 6);
	char *other = area_filled(npages, variant->thp, 7);
	int reason, expected;

	for (reason = 0; reason < 2; reason++) {
		ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
		if (reason) {
			expected = -ENOMEM;
			ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
			ASSERT_TRUE(fail_attr("fail_ram", 100, -1));
		} else {
			expected = -EIO;
			ASSERT_EQ(0, device_inject(self->fd,
						   HMM_DEVMEM_TEST_FAIL_TO_RAM,
						   0, ALWAYS));
		}
		EXPECT_EQ(expected, device_suspend(self->ctl));
		EXPECT_EQ(npages, resident(self->fd, ptr, npages));
		EXPECT_EQ(npages, all_moved(self->fd, other, npages));

		fail_attrs_clear();
		device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
		EXPECT_EQ(0, wrong(ptr, 6, npages));
		EXPECT_EQ(0, wrong(other, 7, npages));
		ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
		ASSERT_EQ(0, device_suspend(self->ctl));
		EXPECT_EQ(0, device_used(self->ctl));
		EXPECT_EQ(0, wrong(ptr, 6, npages));
		ASSERT_EQ(0, device_resume(self->ctl));
	}
}

/*
 * Verifies that suspend and removal give up on a device that fails each copy,
 * slowly, after a bounded number of copies, but not on one of which only some copies
 * fail.
 */
TEST_F(devmem, device_that_refuses)
{
	/* Sixteen blocks, since the library gives up after sixteen failed copies */
	const unsigned long npages = 16 * HUGE_PAGES;
	const long most = 2 * 16;
	char *ptr = area_filled(npages, variant->thp, 15);

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 50000));
	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	/* A few failures do not make the library give up */
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0, 5));
	EXPECT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 15, npages));
	ASSERT_EQ(0, device_resume(self->ctl));

	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	self->before = device_stats(self->ctl);
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_WAIT, 0, ALWAYS));
	EXPECT_EQ(-EIO, device_suspend(self->ctl));
	EXPECT_GE(most, SINCE(copies));
	EXPECT_EQ(npages, device_used(self->ctl));
	self->before = device_stats(self->ctl);
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_GE(most, SINCE(copies));
	EXPECT_LE(1, SINCE(copies));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	ASSERT_EQ(0, munmap(ptr, npages * PAGE));
	/* The range of a coherent device is free when the last page is */
	ASSERT_EQ(0, plug_soon(self->ctl));
}

/* Wait until the process sleeps uninterruptibly, as it does to take a lock. */
static bool waits_soon(pid_t pid)
{
	const char *state;
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return soon((state = strrchr(file_read(path), ')')) && state[2] == 'D');
}

/*
 * Verifies that the device can be suspended while a process keeps its mmap lock, and
 * that processes which wait for that lock, to move memory in either direction, can
 * be killed.
 */
TEST_F(devmem, mmap_lock_is_kept)
{
	char *ptr = area_filled(self->npages, variant->thp, 17);
	pid_t keeper, movers[2];
	int fd, i, back[2];

	ASSERT_EQ(0, pipe(back));
	keeper = child_fork();
	if (!keeper) {
		fd = device_open(variant->nr);
		to_device(fd, ptr, 10);
		if (write(back[1], &fd, sizeof(fd)) != sizeof(fd))
			_exit(1);
		ioctl(fd, HMM_DEVMEM_TEST_LOCK_MM, getpid());
		_exit(2);
	}
	ASSERT_EQ(sizeof(fd), read(back[0], &fd, sizeof(fd)));
	fd = open_file_of(keeper, fd);
	ASSERT_LE(0, fd);
	ASSERT_TRUE(soon(device_stats(self->ctl).mm_locks));
	for (i = 0; i < 2; i++) {
		movers[i] = child_fork();
		if (!movers[i]) {
			if (i)
				to_ram(fd, ptr, self->npages);
			else
				to_device(fd, ptr, self->npages);
			_exit(0);
		}
		EXPECT_TRUE(waits_soon(movers[i]));
	}

	ASSERT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, device_used(self->ctl));
	ASSERT_EQ(0, device_resume(self->ctl));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(128 + SIGKILL, child_kill(movers[i]));
	EXPECT_EQ(128 + SIGKILL, child_kill(keeper));
	close(fd);
	close(back[0]);
	close(back[1]);
}

/* Verifies that pinned pages make suspend fail, until the pin is gone. */
TEST_F(devmem, suspend_pinned)
{
	char *ptr = area_filled(self->npages, variant->thp, 8);
	struct iovec vec = { .iov_base = ptr + 9 * PAGE, .iov_len = 2 * PAGE };
	int fds[2];

	/* Memory that the CPU cannot address cannot be pinned */
	if (!variant->coherent)
		return;
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(2 * PAGE, vmsplice(fds[1], &vec, 1, 0));
	EXPECT_EQ(-EBUSY, device_suspend(self->ctl));
	EXPECT_EQ(2, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 8, self->npages));
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	close(fds[0]);
	close(fds[1]);
	ASSERT_EQ(0, device_suspend(self->ctl));
	expect_in_ram(_metadata, self, ptr, 8);
	ASSERT_EQ(0, device_resume(self->ctl));
}

/* A process that uses the device while the test suspends or removes it. */
static int user(int nr, bool thp, unsigned int seed, const int *stop,
		unsigned int pause_ms)
{
	const unsigned long npages = HUGE_PAGES + 40;
	char *ptr = area_filled(npages, thp, seed);
	int fd = device_open(nr);
	long ret;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
		ret = to_device(fd, ptr, npages);
		if (ret < 0 && ret != -ENODEV && ret != -EBUSY && ret != -EAGAIN)
			return 1;
		if (pause_ms)
			sleep_ms(seed % pause_ms);
		if (wrong(ptr, seed, npages))
			return 2;
		fill(ptr, ++seed, npages);
	}
	return 0;
}

enum { USERS = 3 };

struct users {
	pid_t pids[USERS];
	int *stop;
};

static void users_start(struct users *users, int nr, bool thp,
			unsigned int pause_ms)
{
	int i;

	users->stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < USERS; i++)
		users->pids[i] = child_start(user(nr, thp, 1000 * i,
						  users->stop, pause_ms));
}

/* Stop the processes; returns how many have failed. */
static int users_stop(struct users *users)
{
	int i, failed = 0;

	__atomic_store_n(users->stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < USERS; i++)
		failed += child_status(users->pids[i]) != 0;
	munmap(users->stop, PAGE);
	return failed;
}

/* Verifies suspend and resume while processes use the device. */
TEST_F(devmem, suspend_under_fire)
{
	struct users users;
	int i;

	ASSERT_TRUE(removal_waits(true));
	users_start(&users, variant->nr, variant->thp, 0);
	for (i = 0; i < 25 || !SINCE(evicted); i++) {
		sleep_ms(i % 20);
		ASSERT_EQ(0, device_suspend(self->ctl));
		EXPECT_EQ(0, device_used(self->ctl));
		sleep_ms(i % 3);
		EXPECT_EQ(0, device_used(self->ctl));
		ASSERT_EQ(0, device_resume(self->ctl));
	}
	EXPECT_EQ(0, users_stop(&users));
	EXPECT_LT(0, SINCE(evicted));
}

/* Verifies that a suspended device can be removed, and is not suspended afterwards. */
TEST_F(devmem, unplug_suspended)
{
	char *ptr = area_filled(self->npages, variant->thp, 9);
	pid_t pid;
	int i;

	self->replug = true;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_suspend(self->ctl));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(-ENODEV, device_suspend(self->ctl));
	EXPECT_EQ(-ENODEV, device_resume(self->ctl));
	EXPECT_EQ(-ENODEV, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_plug(self->ctl));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));

	/* Suspend and removal at the same time, in any order */
	ASSERT_TRUE(removal_waits(true));
	pid = child_fork();
	if (!pid) {
		for (i = 0; i < 30; i++) {
			int ret = device_suspend(self->ctl);

			if (ret && ret != -ENODEV)
				_exit(1);
			ret = to_device(self->fd, ptr, 100);
			if (ret < 0 && ret != -ENODEV && ret != -EAGAIN)
				_exit(2);
			device_resume(self->ctl);
		}
		_exit(!!wrong(ptr, 9, self->npages));
	}
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(0, device_unplug(self->ctl));
		EXPECT_EQ(0, device_plug(self->ctl));
		to_device(self->fd, ptr, self->npages);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, wrong(ptr, 9, self->npages));
}

/* The sleep of the whole system, as far as a guest can: tools/hmm_devmem/guest/init. */
static bool system_sleep(const char *state)
{
	char command[40];

	snprintf(command, sizeof(command), "/init sleep %s 2>/dev/null", state);
	file_write("/sys/module/suspend/parameters/pm_test_delay", "0");
	if (!file_write("/sys/power/pm_test", "devices"))
		return false;
	return !system(command);
}

/* Verifies that all pages move back to system memory before the system sleeps. */
TEST_F(devmem, system_sleep)
{
	char *ptr = area_filled(self->npages, variant->thp, 10);

	if (access("/sys/power/pm_test", W_OK))
		SKIP(return, "no /sys/power/pm_test");
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(system_sleep("freeze"));
	EXPECT_EQ(self->npages, SINCE(evicted));
	expect_in_ram(_metadata, self, ptr, 10);
	/* The device was resumed when the system woke up */
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 10, self->npages));
}

/* Verifies that neither the system nor the device sleeps if pages cannot move back. */
TEST_F(devmem, system_sleep_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 11);

	if (access("/sys/power/pm_test", W_OK))
		SKIP(return, "no /sys/power/pm_test");
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	EXPECT_FALSE(system_sleep("freeze"));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(0, wrong(ptr, 11, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(system_sleep("freeze"));
	expect_in_ram(_metadata, self, ptr, 11);
}

/* Has runtime power management switched the device off? */
static bool is_off(int nr)
{
	char path[100];

	snprintf(path, sizeof(path),
		 "/sys/class/hmm_devmem_test/hmm_devmem_test%d/power/runtime_status",
		 nr);
	return !strncmp(file_read(path), "suspended", 9);
}

/* Wait until it has. */
static bool off_soon(int nr)
{
	return soon(is_off(nr));
}

/*
 * Wait until runtime PM has switched off another device, whose last page was freed after
 * those of this one were moved or evicted: so long that it would have switched off this
 * one, too, if it had no pages.
 */
static bool other_is_off_soon(int peer)
{
	const int fd = device_open(peer);
	char *ptr = area_filled(1, false, 18);
	bool off;

	off = !device_unplug(fd) &&
	      !device_plug_as(fd, 0, HMM_DEVMEM_TEST_RUNTIME_PM, 0) &&
	      all_moved(fd, ptr, 1) == 1 && !device_evict_all(fd) && off_soon(peer);
	off = !device_unplug(fd) && !device_plug(fd) && off;
	munmap(ptr, PAGE);
	close(fd);
	return off;
}

/*
 * Verifies that runtime PM leaves a device on that has pages of a process, and
 * leaves the pages there; that it switches the device off when it has no pages, and
 * on when pages move there; and that no copy is started while the device is off (bug
 * N16).
 */
TEST_F(devmem, runtime_pm)
{
	char *ptr = area_filled(self->npages, variant->thp, 12);
	int i;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_RUNTIME_PM, 0));
	for (i = 1; i <= 3; i++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_TRUE(other_is_off_soon(variant->peer));
		EXPECT_FALSE(is_off(variant->nr));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		/* Not for the first round: a device is on when it is plugged */
		EXPECT_EQ(i - 1, SINCE(resumes));
		EXPECT_EQ(0, device_evict_all(self->fd));
		ASSERT_TRUE(off_soon(variant->nr));
		EXPECT_EQ(i * self->npages, SINCE(evicted));
		expect_in_ram(_metadata, self, ptr, 12);
	}
	for (i = 0; i < 30; i++) {
		EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		sleep_ms(i);
		EXPECT_EQ(0, wrong(ptr, 12, self->npages));
	}
	EXPECT_EQ(0, SINCE(bad_power));
}

/*
 * Verifies that a device that is off, and has no pages of processes, is removed
 * without being switched on, and that a device that has pages is on when it is
 * removed.
 */
TEST_F(devmem, runtime_pm_unplug)
{
	char *ptr = area_filled(self->npages, variant->thp, 16);
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_RUNTIME_PM, 0));
		/* Use the device: runtime PM acts only after that */
		ASSERT_EQ(10, all_moved(self->fd, ptr, 10));
		ASSERT_EQ(10, to_ram(self->fd, ptr, 10));
		ASSERT_TRUE(off_soon(variant->nr));
		if (i) {
			ASSERT_EQ(self->npages,
				  all_moved(self->fd, ptr, self->npages));
			ASSERT_TRUE(other_is_off_soon(variant->peer));
		}
		ASSERT_EQ(0, device_unplug(self->ctl));
		EXPECT_EQ(i, SINCE(resumes));
		EXPECT_EQ(0, SINCE(bad_power));
		EXPECT_EQ(0, wrong(ptr, 16, self->npages));
		ASSERT_EQ(0, device_plug(self->ctl));
	}
}

/* Verifies that a device that cannot be emptied stays on, and goes on working. */
TEST_F(devmem, runtime_pm_fails)
{
	char *ptr = area_filled(100, false, 13);
	char *other = area_filled(100, false, 14);

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_RUNTIME_PM, 0));
	ASSERT_EQ(100, all_moved(self->fd, ptr, 100));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	EXPECT_EQ(100, device_evict_all(self->fd));
	ASSERT_TRUE(other_is_off_soon(variant->peer));
	EXPECT_FALSE(is_off(variant->nr));
	EXPECT_EQ(100, all_moved(self->fd, other, 100));
	EXPECT_EQ(100, resident(self->fd, ptr, 100));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(0, wrong(ptr, 13, 100));
	EXPECT_EQ(0, wrong(other, 14, 100));
	EXPECT_EQ(100, all_moved(self->fd, ptr, 100));
	EXPECT_EQ(0, device_evict_all(self->fd));
	ASSERT_TRUE(off_soon(variant->nr));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 13, 100));
	EXPECT_EQ(0, SINCE(bad_power));
}

/* Verifies this with processes that pause longer than an unused device stays on. */
TEST_F(devmem, runtime_pm_under_fire)
{
	struct users users;
	int i;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_RUNTIME_PM |
			     HMM_DEVMEM_TEST_ASYNC, 100));
	users_start(&users, variant->nr, variant->thp, 80);
	for (i = 0; i < 20 || !SINCE(evicted); i++) {
		sleep_ms(50);
		device_evict_all(self->ctl);
	}
	EXPECT_EQ(0, users_stop(&users));
	EXPECT_EQ(0, SINCE(bad_power));
	EXPECT_LT(0, SINCE(to_device));
	ASSERT_TRUE(off_soon(variant->nr));

	ASSERT_TRUE(removal_waits(true));
	/* Remove the device while it is about to be switched on or off */
	users_start(&users, variant->nr, variant->thp, 80);
	for (i = 0; i < 10; i++) {
		sleep_ms(5 * i);
		EXPECT_EQ(0, device_unplug(self->ctl));
		EXPECT_EQ(0, device_plug_as(self->ctl, 0,
					    HMM_DEVMEM_TEST_RUNTIME_PM, 0));
	}
	EXPECT_EQ(0, users_stop(&users));
	EXPECT_EQ(0, SINCE(bad_power));
}

TEST_HARNESS_MAIN
