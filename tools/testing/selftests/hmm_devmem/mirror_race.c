// SPDX-License-Identifier: GPL-2.0
/*
 * Page faults of a device that many threads serve at once, while device memory comes
 * and goes, or while the thread that serves one is killed.
 */
#include "fixture.h"
#include "uffd.h"

#include <pthread.h>

#define FAULTERS	32
/* Each thread begins so many pages behind the one before. */
#define STEP		8UL
/* Pages of each thread's walk. */
#define WALK		128UL
#define ALL		(WALK + (FAULTERS - 1) * STEP)
/* How often device memory comes and goes. */
#define PLUGS		20
/* Time for a thread to begin to wait. */
#define BEGIN_MS	100

struct faulter {
	pthread_t thread;
	int fd;
	char *ptr;
	unsigned long flags;
	bool downward;
	int *stop;
	long served;
	long errors;
};

/* One walk through the memory, page by page. */
static void walk(struct faulter *faulter)
{
	unsigned long i, page;
	long ret;

	for (i = 0; i < WALK; i++) {
		page = faulter->downward ? WALK - 1 - i : i;
		/* Migrations by request can make a fault begin again for too long */
		do
			ret = device_fault(faulter->fd, faulter->ptr + page * PAGE,
					   faulter->flags, 1);
		while (ret == -EBUSY && faulter->stop);
		if (ret) {
			printf("# a fault got %ld\n", ret);
			faulter->errors++;
		}
		__atomic_add_fetch(&faulter->served, 1, __ATOMIC_RELAXED);
	}
}

/* Once, or until the thread is stopped. */
static void *faulter_main(void *arg)
{
	struct faulter *faulter = arg;

	do
		walk(faulter);
	while (faulter->stop && !__atomic_load_n(faulter->stop, __ATOMIC_RELAXED));
	return NULL;
}

/* Threads with overlapping walks: upward and downward, reads and writes. */
static void faulters_start(struct faulter *faulters, int nr, int fd, char *ptr, int *stop)
{
	int i;

	for (i = 0; i < nr; i++) {
		faulters[i] = (struct faulter) {
			.fd = fd,
			.ptr = ptr + i * STEP * PAGE,
			.flags = HMM_DEVMEM_TEST_FAULT_MIGRATE |
				 (i & 1 ? HMM_DEVMEM_TEST_FAULT_WRITE : 0),
			.downward = i & 2,
			.stop = stop,
		};
		if (pthread_create(&faulters[i].thread, NULL, faulter_main, &faulters[i]))
			abort();
	}
}

/* Wait for the threads; returns the number of faults that failed. */
static long faulters_join(struct faulter *faulters, int nr)
{
	long errors = 0;
	int i;

	for (i = 0; i < nr; i++) {
		pthread_join(faulters[i].thread, NULL);
		errors += faulters[i].errors;
	}
	return errors;
}

static long faults_served(const struct faulter *faulters, int nr)
{
	long sum = 0;
	int i;

	for (i = 0; i < nr; i++)
		sum += __atomic_load_n(&faulters[i].served, __ATOMIC_RELAXED);
	return sum;
}

/* Verifies that many faults at once on the same pages succeed, and what is counted. */
TEST_F(devmem, many_faults_at_once)
{
	char *ptr = area_filled(ALL, variant->thp, 1);
	struct faulter faulters[FAULTERS];
	long moved;

	faulters_start(faulters, FAULTERS, self->fd, ptr, NULL);
	EXPECT_EQ(0, faulters_join(faulters, FAULTERS));
	/* A page that another thread is moving is mapped where it is */
	moved = resident(self->fd, ptr, ALL);
	EXPECT_LT(0, moved);
	EXPECT_EQ(moved, device_used(self->ctl));
	EXPECT_EQ(moved, SINCE(to_device) - SINCE(to_ram));
	EXPECT_LE(SINCE(device_faults), SINCE(device_fault_pages));
	EXPECT_LE(SINCE(device_fault_used), SINCE(device_fault_pages));
	EXPECT_EQ(SINCE(to_device), SINCE(device_fault_pages));
	EXPECT_EQ(0, wrong(ptr, 1, ALL));
}

/* Verifies the same while pages also move both ways by request. */
TEST_F(devmem, many_faults_and_migrations)
{
	char *ptr = area_filled(ALL, variant->thp, 1);
	struct faulter faulters[FAULTERS];
	int i, stop = 0, plugs = rounds_of(PLUGS);

	faulters_start(faulters, FAULTERS, self->fd, ptr, &stop);
	for (i = 0; i < plugs; i++) {
		EXPECT_LE(0, to_ram(self->fd, ptr, ALL));
		EXPECT_LE(0, to_device(self->fd, ptr + ALL / 4 * PAGE, ALL / 2));
		EXPECT_LE(0, device_evict_all(self->ctl));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	EXPECT_EQ(0, faulters_join(faulters, FAULTERS));
	EXPECT_EQ(resident(self->fd, ptr, ALL), device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 1, ALL));
}

/*
 * Verifies that device memory can go, and other device memory come, while threads serve
 * faults: hmm_devmem_mirror_set_devmem() is called by the first of them that notices.
 */
TEST_F(devmem, devmem_changes_under_faults)
{
	enum { NR = 4 };
	char *ptr = area_filled(ALL, variant->thp, 1);
	struct faulter faulters[NR];
	long before;
	int i, stop = 0, plugs = rounds_of(PLUGS);

	faulters_start(faulters, NR, self->fd, ptr, &stop);
	for (i = 0; i < plugs; i++) {
		before = faults_served(faulters, NR);
		EXPECT_TRUE(soon(faults_served(faulters, NR) > before + 2 * NR));
		EXPECT_EQ(0, device_unplug(self->ctl));
		before = faults_served(faulters, NR);
		EXPECT_TRUE(soon(faults_served(faulters, NR) > before + 2 * NR));
		EXPECT_EQ(0, plug_soon(self->ctl));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	EXPECT_EQ(0, faulters_join(faulters, NR));
	EXPECT_EQ(resident(self->fd, ptr, ALL), device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 1, ALL));
	/* The mirror has the new memory */
	EXPECT_LE(0, to_ram(self->fd, ptr, ALL));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_LE(1, resident(self->fd, ptr, 1));
}

/* What a fault waits for, which does not come. */

static int never_served(int fd, char *ptr, unsigned long flags)
{
	/* Not device_fault(), which would try again after -EINTR */
	struct hmm_devmem_test_cmd cmd = {
		.addr = (uintptr_t)ptr,
		.ptr = flags,
		.npages = 1,
	};

	return ioctl(fd, HMM_DEVMEM_TEST_FAULT, &cmd) ? errno : 0;
}

/*
 * Verifies that SIGKILL ends the wait of a fault for userfaultfd, and that the fault has
 * left nothing behind: the page can be provided, and moved.
 */
TEST_F(devmem, killed_while_userfaultfd_does_not_answer)
{
	static const unsigned long flags[] = {
		0, HMM_DEVMEM_TEST_FAULT_WRITE, HMM_DEVMEM_TEST_FAULT_MIGRATE,
	};
	char *ptr = area_map(2, false);
	struct uffd_msg msg;
	struct uffd uffd;
	unsigned int i;
	pid_t pid;

	ASSERT_EQ(0, uffd_open(&uffd, ptr, 2, UFFDIO_REGISTER_MODE_MISSING));
	for (i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		struct pollfd told = { .fd = uffd.fd, .events = POLLIN };

		/* The file mirrors this process, also when its child has it */
		pid = child_start(never_served(self->fd, ptr, flags[i]));
		EXPECT_EQ(1, poll(&told, 1, HANG_MS));
		EXPECT_EQ(sizeof(msg), read(uffd.fd, &msg, sizeof(msg)));
		EXPECT_TRUE(child_lives(pid));
		EXPECT_EQ(128 + SIGKILL, child_kill(pid));
		EXPECT_EQ(0, mapped(self->fd, ptr, 2));
		EXPECT_EQ(0, device_used(self->ctl));
	}
	ASSERT_EQ(0, uffd_provide(&uffd, ptr));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(1, resident(self->fd, ptr, 1));
	close(uffd.fd);
	EXPECT_EQ(0, wrong(ptr, 0, 1));
	/* No lock of the mm is held any more */
	EXPECT_EQ(0, munmap(ptr, 2 * PAGE));
}

/* A process that keeps its mmap lock; its file is in @back before. */
static int keep_lock(int nr, int back)
{
	int fd = device_open(nr);

	if (write(back, &fd, sizeof(fd)) != sizeof(fd))
		return 1;
	ioctl(fd, HMM_DEVMEM_TEST_LOCK_MM, getpid());
	return 1;
}

/* Verifies that SIGKILL ends the wait of a fault for the mmap lock of the process. */
TEST_F(devmem, killed_while_the_mmap_lock_is_held)
{
	char *ptr = area_filled(1, false, 1);
	int fd, back[2];
	pid_t keeper, pid;

	ASSERT_EQ(0, pipe(back));
	keeper = child_start(keep_lock(variant->nr, back[1]));
	ASSERT_EQ(sizeof(fd), read(back[0], &fd, sizeof(fd)));
	fd = open_file_of(keeper, fd);
	ASSERT_LE(0, fd);
	ASSERT_TRUE(soon(device_stats(self->ctl).mm_locks));
	pid = child_start(never_served(fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE));
	sleep_ms(BEGIN_MS);
	EXPECT_TRUE(child_lives(pid));
	EXPECT_EQ(128 + SIGKILL, child_kill(pid));
	EXPECT_EQ(128 + SIGKILL, child_kill(keeper));
	EXPECT_TRUE(soon(device_fault(fd, ptr, 0, 1) == -ESRCH));
	close(fd);
	close(back[0]);
	close(back[1]);
}

TEST_HARNESS_MAIN
