// SPDX-License-Identifier: GPL-2.0
/*
 * Page faults of a device that many threads serve at once, while device memory comes
 * and goes, while the process does to its mappings what it can, or while the thread that
 * serves one is killed.
 */
#include "fixture.h"
#include "system.h"
#include "uffd.h"

#include <pthread.h>

#ifndef MADV_COLD
#define MADV_COLD	20
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

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

/* Writes of the device, while the process changes its mappings all the time. */

/* A huge page, and small ones. */
#define WRITTEN		(HUGE_PAGES + 64)
#define WRITERS		3
/* Pages that another device wants at a time. */
#define PEER_PAGES	16
/* How often each disturbance comes. */
#define ROUNDS		5
#define SWAP_PAGES	1024

struct writer {
	pthread_t thread;
	unsigned int index;
	int fd;
	char *ptr;
	int *stop;
	unsigned int written[WRITTEN];
	unsigned long count;
	long errors;
};

/* The device cannot access memory that is not there, or not permitted, for a moment. */
static bool comes_again(long ret)
{
	return ret == -EFAULT || ret == -EPERM || ret == -EBUSY;
}

/* Read a page by the device, or as a debugger does, which needs no permission. */
static bool read_page(struct writer *writer, char *page, char *data, bool by_device)
{
	int fd;
	bool done;

	if (by_device)
		return device_read(writer->fd, page, data, 1) == 1;
	fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	done = pread(fd, data, PAGE, (uintptr_t)page) == PAGE;
	close(fd);
	return done;
}

/* Check what the device has written to a page the last time, and write again. */
static void write_page(struct writer *writer, unsigned long i, char *data)
{
	const unsigned long flags = writer->count & 2 ? HMM_DEVMEM_TEST_FAULT_MIGRATE : 0;
	char *page = writer->ptr + i * PAGE;
	long ret;

	if (read_page(writer, page, data, writer->count & 1) &&
	    wrong_from(data, writer->written[i], i, 1)) {
		printf("# page %lu has lost write %u\n", i, writer->written[i]);
		writer->errors++;
	}
	device_fault(writer->fd, page, flags, 1);
	fill_from(data, writer->written[i] + 1, i, 1);
	ret = device_write(writer->fd, page, data, 1);
	if (ret == 1) {
		writer->written[i]++;
		__atomic_add_fetch(&writer->count, 1, __ATOMIC_RELAXED);
	} else if (!comes_again(ret)) {
		printf("# a write got %ld\n", ret);
		writer->errors++;
	}
}

static void *writer_main(void *arg)
{
	struct writer *writer = arg;
	char *data = malloc(PAGE);
	unsigned long i = writer->index;

	while (!__atomic_load_n(writer->stop, __ATOMIC_RELAXED)) {
		write_page(writer, i, data);
		i = (i + WRITERS * (1 + (writer->count & 4))) % (WRITTEN / WRITERS * WRITERS);
		i = i / WRITERS * WRITERS + writer->index;
	}
	free(data);
	return NULL;
}

/* What is disturbed, and the devices that use it. */
struct target {
	char *ptr;
	int fd;
	int peer;
};

#define TARGET_SIZE	(WRITTEN * PAGE)

static void protect(const struct target *target, int prot)
{
	mprotect(target->ptr, TARGET_SIZE, prot);
	sched_yield();
	mprotect(target->ptr, TARGET_SIZE, PROT_READ | PROT_WRITE);
}

static void forbid_writes(const struct target *target)
{
	protect(target, PROT_READ);
}

static void forbid_all(const struct target *target)
{
	protect(target, PROT_NONE);
}

/* Move the mapping elsewhere, and back. */
static void move_away(const struct target *target)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	char *to = mmap(NULL, TARGET_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mremap(target->ptr, TARGET_SIZE, TARGET_SIZE, flags, to) != to)
		abort();
	sched_yield();
	if (mremap(to, TARGET_SIZE, TARGET_SIZE, flags, target->ptr) != target->ptr)
		abort();
}

/* Write protect the pages, and let all writes through. */
static void track(const struct target *target)
{
	struct uffd uffd;

	if (uffd_open(&uffd, target->ptr, WRITTEN, UFFDIO_REGISTER_MODE_WP) || uffd_start(&uffd))
		abort();
	uffd_protect(&uffd, target->ptr, WRITTEN, true);
	sched_yield();
	uffd_protect(&uffd, target->ptr, WRITTEN, false);
	uffd_stop(&uffd);
}

static void track_soft_dirty(const struct target *target)
{
	file_write("/proc/self/clear_refs", "4");
}

static void merge(const struct target *target)
{
	madvise(target->ptr, TARGET_SIZE, MADV_MERGEABLE);
	sched_yield();
	madvise(target->ptr, TARGET_SIZE, MADV_UNMERGEABLE);
}

static void lock(const struct target *target)
{
	mlock(target->ptr, TARGET_SIZE);
	munlock(target->ptr, TARGET_SIZE);
}

static void share(const struct target *target)
{
	child_run(wrong(target->ptr, 0, WRITTEN) < 0);
}

static void advise(const struct target *target)
{
	static const int advices[] = {
		MADV_COLLAPSE, MADV_PAGEOUT, MADV_COLD, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
	};
	unsigned int i;

	for (i = 0; i < sizeof(advices) / sizeof(*advices); i++) {
		madvise(target->ptr, TARGET_SIZE, advices[i]);
		sched_yield();
	}
}

static void move(const struct target *target)
{
	to_device(target->fd, target->ptr, WRITTEN);
	to_ram(target->fd, target->ptr, WRITTEN);
}

static void evict(const struct target *target)
{
	device_evict_all(target->fd);
}

static void fault_on_peer(const struct target *target)
{
	device_fault(target->peer, target->ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, PEER_PAGES);
}

/* What a process, the kernel and other devices do to memory; none of it changes a byte. */
static void (*const disturbances[])(const struct target *target) = {
	forbid_writes, forbid_all, move_away, track, track_soft_dirty, merge, lock, share,
	advise, move, evict, fault_on_peer,
};

#define NR_DISTURBANCES	(sizeof(disturbances) / sizeof(*disturbances))

/*
 * Verifies that nothing that the device writes is lost, and no fault fails for good, whatever
 * happens to the memory meanwhile.
 */
TEST_F(devmem, no_write_is_lost)
{
	static struct writer writers[WRITERS];
	char *ptr = area_map(WRITTEN, variant->thp);
	const struct target target = {
		.ptr = ptr,
		.fd = self->fd,
		.peer = device_open(variant->peer),
	};
	const int rounds = rounds_of(ROUNDS) * NR_DISTURBANCES;
	unsigned long page;
	int i, stop = 0;
	long before;

	ASSERT_LE(0, target.peer);
	ASSERT_EQ(0, swap_begin(SWAP_PAGES));
	for (page = 0; page < WRITTEN; page++)
		fill_from(ptr + page * PAGE, 0, page, 1);
	memset(writers, 0, sizeof(writers));
	for (i = 0; i < WRITERS; i++) {
		writers[i].index = i;
		writers[i].fd = self->fd;
		writers[i].ptr = ptr;
		writers[i].stop = &stop;
		ASSERT_EQ(0, pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]));
	}
	for (i = 0; i < rounds; i++) {
		before = __atomic_load_n(&writers[0].count, __ATOMIC_RELAXED);
		disturbances[i % NR_DISTURBANCES](&target);
		EXPECT_TRUE(soon(__atomic_load_n(&writers[0].count, __ATOMIC_RELAXED) > before));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		EXPECT_EQ(0, writers[i].errors);
	}
	for (page = 0; page < WRITTEN; page++)
		EXPECT_EQ(0, wrong_from(ptr + page * PAGE,
					writers[page % WRITERS].written[page], page, 1));
	areas_unmap();
	EXPECT_EQ(0, device_used_soon(target.peer, 0));
	close(target.peer);
	EXPECT_EQ(0, swapoff(SWAP_DISK));
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
