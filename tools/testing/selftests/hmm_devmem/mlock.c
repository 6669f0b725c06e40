// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory that is mlocked. Core counts such pages, and when it unmaps them, it
 * keeps references to them in per-CPU batches for a while.
 */
#include "fixture.h"
#include "system.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>

#include <linux/kernel-page-flags.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif

/* Fewer pages than a batch has room for. */
#define FEW		10

/* Returns a few mlocked pages that are on the device, or NULL. */
static char *few_on_device(int fd, unsigned int seed)
{
	char *ptr = area_filled(FEW, false, seed);

	if (mlock(ptr, FEW * PAGE) || all_moved(fd, ptr, FEW) != FEW)
		return NULL;
	return ptr;
}

/*
 * Verifies that pages move to which another CPU's batch has references: a child had mlocked
 * them, and has unmapped them there.
 */
TEST_F(devmem, mlocked_on_another_cpu)
{
	char *ptr = area_filled(FEW, false, 1);
	pid_t pid = child_fork();

	if (!pid)
		_exit(!run_on(0) || mlock2(ptr, FEW * PAGE, MLOCK_ONFAULT) ||
		      munmap(ptr, FEW * PAGE) || raise(SIGSTOP));
	ASSERT_TRUE(child_stopped(pid));
	ASSERT_TRUE(run_on(1));
	EXPECT_EQ(FEW, to_device(self->fd, ptr, FEW));
	EXPECT_EQ(0, wrong(ptr, 1, FEW));
	kill(pid, SIGCONT);
	EXPECT_EQ(0, child_status(pid));
}

/* Drop the pages while they are mlocked, in one of two ways. */
static int give_up(char *ptr, int how)
{
	return how ? madvise(ptr, FEW * PAGE, MADV_DONTNEED_LOCKED) :
		     munmap(ptr, FEW * PAGE);
}

/* Number of pages that have @flag (KPF_*) in /proc/kpageflags, which needs root. */
static long count_flag(const char *ptr, unsigned long npages, int flag)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	const __u64 pfn_mask = _BITULL(55) - 1;
	unsigned long i;
	long count = 0;
	__u64 flags;

	for (i = 0; i < npages; i++) {
		if (pread(fd, &flags, sizeof(flags),
			  (pagemap_entry(ptr + i * PAGE) & pfn_mask) *
			  sizeof(flags)) != sizeof(flags))
			count = LONG_MIN;
		count += flags >> flag & 1;
	}
	close(fd);
	return count;
}

/* Returns a few pages that core has marked as active, or NULL. */
static char *few_active(unsigned int seed)
{
	char *ptr = area_filled(FEW, false, seed), *other = area_map(1, false);
	int i;

	for (i = 0; i < 3; i++)
		if (madvise(ptr, FEW * PAGE, MADV_POPULATE_READ))
			return NULL;
	/* Empties this CPU's batch of pages that are to become active */
	if (mlock(other, PAGE) || munmap(other, PAGE))
		return NULL;
	return count_flag(ptr, FEW, KPF_ACTIVE) == FEW ? ptr : NULL;
}

/*
 * Verifies that a device page loses its flags when it is freed. Core takes a page
 * that is both active (from its last user) and unevictable (since it is mlocked) for
 * a bug.
 */
TEST_F(devmem, flags_of_the_last_user)
{
	char *ptr;
	int lock;

	ASSERT_TRUE(run_on(0));
	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : FEW * PAGE, 0, 0));
	for (lock = 0; lock < 2; lock++) {
		ptr = few_active(1);
		ASSERT_NE(NULL, ptr);
		ASSERT_EQ(FEW, all_moved(self->fd, ptr, FEW));
		ASSERT_EQ(0, munmap(ptr, FEW * PAGE));

		ptr = area_filled(FEW, false, 2);
		if (lock)
			ASSERT_EQ(0, mlock(ptr, FEW * PAGE));
		ASSERT_EQ(FEW, all_moved(self->fd, ptr, FEW));
		ASSERT_EQ(FEW, to_ram(self->fd, ptr, FEW));
		EXPECT_EQ(0, wrong(ptr, 2, FEW));
		EXPECT_EQ(0, count_flag(ptr, FEW, KPF_ACTIVE));
		ASSERT_EQ(0, munmap(ptr, FEW * PAGE));
	}
}

/*
 * Verifies that mlocked device pages that the process has dropped do not stay in use
 * for eviction, for suspend, or for removal.
 */
TEST_F(devmem, given_up)
{
	char *ptr;
	int how;

	self->replug = true;
	for (how = 0; how < 2; how++) {
		ptr = few_on_device(self->fd, 1);
		ASSERT_NE(NULL, ptr);
		ASSERT_EQ(0, give_up(ptr, how));
		EXPECT_EQ(0, device_evict_all(self->ctl));
		EXPECT_EQ(0, device_used(self->ctl));

		ptr = few_on_device(self->fd, 2);
		ASSERT_NE(NULL, ptr);
		ASSERT_EQ(0, give_up(ptr, how));
		EXPECT_EQ(0, device_suspend(self->ctl));
		EXPECT_EQ(0, device_resume(self->ctl));

		ptr = few_on_device(self->fd, 3);
		ASSERT_NE(NULL, ptr);
		ASSERT_EQ(0, give_up(ptr, how));
		ASSERT_EQ(0, device_unplug(self->ctl));
		EXPECT_EQ(0, ranges(variant->nr));
		/* A coherent device with a zombie in its range would get -EBUSY */
		ASSERT_EQ(0, device_plug(self->ctl));
	}
}

/* Verifies this for a dead device, whose pages are not brought back. */
TEST_F(devmem, given_up_on_dead_device)
{
	char *ptr = few_on_device(self->fd, 1);

	self->replug = true;
	ASSERT_NE(NULL, ptr);
	ASSERT_EQ(0, device_mark_dead(self->ctl));
	ASSERT_EQ(0, give_up(ptr, 0));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(0, ranges(variant->nr));
	EXPECT_EQ(0, device_plug(self->ctl));
}

/*
 * Verifies that a device which is full of pages that cannot move uses pages that the
 * process has dropped. (It is small: of a larger one, eviction would give up before it
 * has tried all blocks.)
 */
TEST_F(devmem, given_up_on_full_device)
{
	char *ptr, *more = area_filled(FEW, false, 4);
	unsigned long npages;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_as(self, HUGE, HMM_DEVMEM_TEST_RECLAIM, 0));
	ptr = few_on_device(self->fd, 1);
	ASSERT_NE(NULL, ptr);
	npages = device_stats(self->ctl).size - FEW;
	ASSERT_EQ(npages, all_moved(self->fd, area_map(npages, false), npages));
	ASSERT_EQ(0, device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	/* Drop the pages on another CPU: an eviction empties the batch of its own */
	ASSERT_TRUE(run_on(1));
	ASSERT_EQ(0, give_up(ptr, 0));
	ASSERT_TRUE(run_on(0));
	EXPECT_EQ(FEW, all_moved(self->fd, more, FEW));
	device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(0, wrong(more, 4, FEW));
}

/* Verifies that the range of a zombie can be used again once its pages are dropped. */
TEST_F(devmem, given_up_by_zombie)
{
	char *ptr = few_on_device(self->fd, 1);

	self->replug = true;
	ASSERT_NE(NULL, ptr);
	ASSERT_EQ(0, device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	ASSERT_EQ(0, device_unplug(self->ctl));
	device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(!variant->coherent, ranges(variant->nr));
	ASSERT_EQ(0, give_up(ptr, 0));
	EXPECT_EQ(0, plug_soon(self->ctl));
}

/*
 * CPU faults.
 */

/* A fault on a busy page is taken again; one taken so often would never end. */
#define MANY_TRIES	200

/*
 * Verifies that a CPU fault ends if another CPU's batch has a reference to the page: a
 * process that had mlocked the page has unmapped it there, and then only waits.
 */
TEST_F(devmem, fault_of_page_in_batch)
{
	char *ptr = few_on_device(self->fd, 1);
	pid_t pid;
	int i;

	ASSERT_NE(NULL, ptr);
	pid = child_fork();
	if (!pid) {
		/* Wait until the parent has unmapped the page on the other CPU */
		if (!run_on(1) || raise(SIGSTOP))
			_exit(1);
		_exit(wrong(ptr, 1, FEW) ? 2 : 0);
	}
	ASSERT_TRUE(child_stopped(pid));
	ASSERT_TRUE(run_on(0));
	ASSERT_EQ(0, give_up(ptr, 0));
	kill(pid, SIGCONT);
	for (i = 0; SINCE(faults) < MANY_TRIES * FEW; i++) {
		const int status = child_status_within(pid, 10);

		if (status == -ETIMEDOUT)
			continue;
		EXPECT_EQ(0, status);
		break;
	}
	EXPECT_GT(MANY_TRIES * FEW, SINCE(faults));
	/* A fault that has not ended by now would never end. */
	kill(pid, SIGKILL);
	EXPECT_EQ(0, device_evict_all(self->ctl));
}

struct mover {
	pid_t tid;
	int stop;
};

/* Moves the other thread from CPU to CPU as often as possible. */
static void *mover_main(void *arg)
{
	struct mover *mover = arg;
	cpu_set_t cpus;
	int cpu = 0;

	while (!__atomic_load_n(&mover->stop, __ATOMIC_RELAXED)) {
		CPU_ZERO(&cpus);
		CPU_SET(cpu ^= 1, &cpus);
		sched_setaffinity(mover->tid, sizeof(cpus), &cpus);
	}
	return NULL;
}

#define ROUNDS		5

/*
 * Touch all pages from the last to the first, so that each has a fault of its own.
 * Returns the highest number of faults that one page took.
 */
static long most_tries(int fd, const char *ptr, unsigned long npages)
{
	long most = 0, before = device_stats(fd).faults, now;

	while (npages--) {
		touch(ptr + npages * PAGE, 1);
		now = device_stats(fd).faults;
		most = now - before > most ? now - before : most;
		before = now;
	}
	return most;
}

/*
 * Verifies that a process with all of its memory mlocked gets it back from the device
 * while it moves from CPU to CPU.
 */
TEST_F(devmem, faults_on_changing_cpus)
{
	const unsigned long npages = 256;
	struct mover mover = { .tid = gettid() };
	char *ptr = area_filled(npages, false, 1);
	long most = 0, tries;
	pthread_t thread;
	int i;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU only");
	ASSERT_EQ(0, mlockall(MCL_CURRENT));
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover_main, &mover));
	for (i = 0; i < ROUNDS; i++) {
		/* Pages that are in the batch of the other CPU are busy and stay */
		EXPECT_LT(0, to_device(self->fd, ptr, npages));
		tries = most_tries(self->ctl, ptr, npages);
		most = tries > most ? tries : most;
		EXPECT_EQ(0, wrong(ptr, 1, npages));
	}
	__atomic_store_n(&mover.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	TH_LOG("%ld faults, %ld pages, %ld for one at most", SINCE(faults),
	       SINCE(fault_pages), most);
	EXPECT_GT(MANY_TRIES, most);
	EXPECT_EQ(0, munlockall());
}

/*
 * Core's count of mlocked pages.
 */

/* Mlocked pages in all zones, with all per-CPU batches and counters flushed. */
static long mlocked(void)
{
	/* This empties the batches of all CPUs */
	if (!file_write("/proc/sys/vm/drop_caches", "1") ||
	    !file_write("/proc/sys/vm/stat_refresh", "1"))
		return -EIO;
	return vm_events("nr_mlock");
}

/* What a test does with mlocked pages that are on the device. */
enum fate {
	BACK_THEN_MUNLOCK,
	MUNLOCK_THEN_BACK,
	MUNLOCK_THEN_EVICT,
	MUNLOCK_THEN_UNMAP,
	MUNLOCK_THEN_TWICE,
	UNMAP,
	DONTNEED,
	EVICT,
	HALF_UNLOCKED,
	REMAP,
	NR_FATES,
};

static long meet_fate(struct _test_data_devmem *self, enum fate fate, char *ptr)
{
	const unsigned long size = self->npages * PAGE;

	if (fate == MUNLOCK_THEN_BACK || fate == MUNLOCK_THEN_EVICT ||
	    fate == MUNLOCK_THEN_UNMAP || fate == MUNLOCK_THEN_TWICE)
		if (munlock(ptr, size))
			return -errno;
	if (fate == HALF_UNLOCKED && munlock(ptr + HUGE / 2, size - HUGE))
		return -errno;
	switch (fate) {
	case BACK_THEN_MUNLOCK:
		touch(ptr, self->npages);
		return munlock(ptr, size);
	case MUNLOCK_THEN_TWICE:
		touch(ptr, self->npages);
		return all_moved(self->fd, ptr, self->npages) != self->npages ||
		       mlock(ptr, size) || munlock(ptr, size);
	case MUNLOCK_THEN_BACK:
	case HALF_UNLOCKED:
		touch(ptr, self->npages);
		return 0;
	case MUNLOCK_THEN_EVICT:
	case EVICT:
		return device_evict_all(self->ctl);
	case DONTNEED:
		return madvise(ptr, size, MADV_DONTNEED_LOCKED);
	case REMAP:
		if (mremap(ptr, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			   area_map(self->npages, false)) == MAP_FAILED)
			return -errno;
		return 0;
	default:
		return 0;
	}
}

/*
 * Verifies that the kernel counts mlocked pages as such on the device as well, and
 * that no page is counted any more when it is neither locked nor mapped, in
 * whichever order that came about.
 */
TEST_F(devmem, count)
{
	const long before = mlocked();
	enum fate fate;
	char *ptr;

	ASSERT_LE(0, before);
	/* On one CPU: a page in the batch of another CPU is busy and stays in RAM */
	ASSERT_TRUE(run_on(0));
	for (fate = 0; fate < NR_FATES; fate++) {
		ptr = area_filled(self->npages, variant->thp, fate);
		ASSERT_EQ(0, mlock(ptr, self->npages * PAGE));
		EXPECT_EQ(before + self->npages, mlocked());
		EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		EXPECT_EQ(before + self->npages, mlocked());
		EXPECT_EQ(0, meet_fate(self, fate, ptr)) {
			TH_LOG("fate %d", fate);
		}
		areas_unmap();
		EXPECT_EQ(before, mlocked()) {
			TH_LOG("fate %d", fate);
		}
		EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	}
}

TEST_HARNESS_MAIN
