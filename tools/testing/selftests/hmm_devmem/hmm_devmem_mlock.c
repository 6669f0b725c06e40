// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory that is mlocked. Core counts such pages, and when it unmaps them it
 * collects references to them in batches, one for each CPU.
 */
#include "hmm_devmem_fixture.h"
#include "hmm_devmem_system.h"

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

/* Less than a batch. */
#define FEW		10

static int run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	return sched_setaffinity(0, sizeof(cpus), &cpus) ? -errno : 0;
}

/* A few mlocked pages on the device, or NULL. */
static char *few_on_device(int fd, unsigned int seed)
{
	char *ptr = area_filled(FEW, false, seed);

	if (mlock(ptr, FEW * PAGE) || to_device(fd, ptr, FEW) != FEW)
		return NULL;
	return ptr;
}

/* Two ways to give pages up while they are mlocked. */
static int give_up(char *ptr, int how)
{
	return how ? madvise(ptr, FEW * PAGE, MADV_DONTNEED_LOCKED) :
		     munmap(ptr, FEW * PAGE);
}

/* Pages of which /proc/kpageflags has @flag (KPF_*); for this the process is root. */
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

/* A few pages that core takes for active, or NULL. */
static char *few_active(unsigned int seed)
{
	char *ptr = area_filled(FEW, false, seed), *other = area_map(1, false);
	int i;

	for (i = 0; i < 3; i++)
		if (madvise(ptr, FEW * PAGE, MADV_POPULATE_READ))
			return NULL;
	/* Empties this CPU's batch of those that are to become active */
	if (mlock(other, PAGE) || munmap(other, PAGE))
		return NULL;
	return count_flag(ptr, FEW, KPF_ACTIVE) == FEW ? ptr : NULL;
}

/*
 * Verifies that a device page forgets what core thought of its last user's page. A
 * page that is active and cannot be evicted, both at once, is a bug to core.
 */
TEST_F(devmem, flags_of_the_last_user)
{
	char *ptr;
	int lock;

	ASSERT_EQ(0, run_on(0));
	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : FEW * PAGE, 0, 0));
	for (lock = 0; lock < 2; lock++) {
		ptr = few_active(1);
		ASSERT_NE(NULL, ptr);
		ASSERT_EQ(FEW, to_device(self->fd, ptr, FEW));
		ASSERT_EQ(0, munmap(ptr, FEW * PAGE));

		ptr = area_filled(FEW, false, 2);
		if (lock)
			ASSERT_EQ(0, mlock(ptr, FEW * PAGE));
		ASSERT_EQ(FEW, to_device(self->fd, ptr, FEW));
		ASSERT_EQ(FEW, to_ram(self->fd, ptr, FEW));
		EXPECT_EQ(0, wrong(ptr, 2, FEW));
		EXPECT_EQ(0, count_flag(ptr, FEW, KPF_ACTIVE));
		ASSERT_EQ(0, munmap(ptr, FEW * PAGE));
	}
}

/*
 * Verifies that mlocked pages that are given up on the device do not stay in use
 * there, whoever asks: eviction, suspend, removal.
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
		/* -EBUSY if there was a zombie where the driver has a range */
		ASSERT_EQ(0, device_plug(self->ctl));
	}
}

/* Verifies the same for a device that is dead: there is nothing to bring home. */
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
 * Verifies that a device that is full of what cannot move uses what was given up. (One
 * that is not small is asked too often for all that it has.)
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
	ASSERT_EQ(npages, to_device(self->fd, area_map(npages, false), npages));
	ASSERT_EQ(0, device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	/* Each eviction empties the batch of its own CPU */
	ASSERT_EQ(0, run_on(1));
	ASSERT_EQ(0, give_up(ptr, 0));
	ASSERT_EQ(0, run_on(0));
	EXPECT_EQ(FEW, to_device(self->fd, more, FEW));
	device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(0, wrong(more, 4, FEW));
}

/* Verifies that a zombie's range can be had again when its pages are given up. */
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

/* A fault is tried again when the page is busy; that often means without an end. */
#define MANY_TRIES	200

/*
 * Verifies that a CPU fault ends if another CPU's batch has a reference to the page: a
 * process that has it mlocked has unmapped it there, and does nothing any more.
 */
TEST_F(devmem, fault_of_page_in_batch)
{
	char *ptr = few_on_device(self->fd, 1);
	pid_t pid;
	int i;

	ASSERT_NE(NULL, ptr);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* The parent goes first, and then to sleep */
		if (run_on(1) || raise(SIGSTOP))
			_exit(1);
		_exit(wrong(ptr, 1, FEW) ? 2 : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, NULL, WUNTRACED));
	ASSERT_EQ(0, run_on(0));
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
	/* If it has not ended, nobody else will end it. */
	kill(pid, SIGKILL);
	EXPECT_EQ(0, device_evict_all(self->ctl));
}

struct mover {
	pid_t tid;
	int stop;
};

/* Moves the other thread from CPU to CPU, as a scheduler does that is in a hurry. */
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
 * Returns how many faults one of them took at most.
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
 * while it goes from CPU to CPU.
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
		/* What a batch of the other CPU has a reference to is busy */
		EXPECT_LT(0, to_device(self->fd, ptr, npages));
		tries = most_tries(self->ctl, ptr, npages);
		most = tries > most ? tries : most;
		EXPECT_EQ(0, wrong(ptr, 1, npages));
	}
	__atomic_store_n(&mover.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	TH_LOG("%ld faults, %ld pages, %ld for one at most", SINCE(faults),
	       SINCE(fault_pages), most);
	EXPECT_GE(FEW, most);
	EXPECT_EQ(0, munlockall());
}

/*
 * What core counts as mlocked.
 */

/* In all zones, in pages, without what CPUs have not yet dealt with. */
static long mlocked(void)
{
	/* This empties the batches of all CPUs */
	if (!file_write("/proc/sys/vm/drop_caches", "1") ||
	    !file_write("/proc/sys/vm/stat_refresh", "1"))
		return -EIO;
	return vm_events("nr_mlock");
}

/* What becomes of mlocked pages on the device. */
enum fate {
	HOME_THEN_MUNLOCK,
	MUNLOCK_THEN_HOME,
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

	if (fate == MUNLOCK_THEN_HOME || fate == MUNLOCK_THEN_EVICT ||
	    fate == MUNLOCK_THEN_UNMAP || fate == MUNLOCK_THEN_TWICE)
		if (munlock(ptr, size))
			return -errno;
	if (fate == HALF_UNLOCKED && munlock(ptr + HUGE / 2, size - HUGE))
		return -errno;
	switch (fate) {
	case HOME_THEN_MUNLOCK:
		touch(ptr, self->npages);
		return munlock(ptr, size);
	case MUNLOCK_THEN_TWICE:
		touch(ptr, self->npages);
		return to_device(self->fd, ptr, self->npages) != self->npages ||
		       mlock(ptr, size) || munlock(ptr, size);
	case MUNLOCK_THEN_HOME:
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
 * that none is counted any more when it is neither locked nor mapped, whatever was
 * done first.
 */
TEST_F(devmem, count)
{
	const long before = mlocked();
	enum fate fate;
	char *ptr;

	ASSERT_LE(0, before);
	/* A page that waits in the batch of another CPU is busy, and stays in RAM */
	ASSERT_EQ(0, run_on(0));
	for (fate = 0; fate < NR_FATES; fate++) {
		ptr = area_filled(self->npages, variant->thp, fate);
		ASSERT_EQ(0, mlock(ptr, self->npages * PAGE));
		EXPECT_EQ(before + self->npages, mlocked());
		EXPECT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
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
