// SPDX-License-Identifier: GPL-2.0
/*
 * CPU faults on device pages: each ends, and the process gets its data or, if the
 * device cannot copy it, SIGBUS. Drivers in the kernel make the mistakes that these
 * tests look for:
 *
 * ==== ==========================================================================
 * N3   nouveau: copies the folio that the faulting page was in before core split it
 * N4   nouveau: a copy error in a fault leaves the destination to be finalized
 * K4   amdkfd: SIGBUS in a child whose parent is dead
 * K5   amdkfd: SIGBUS after mremap()
 * K6   amdkfd: mremap() and an access of the device: the CPU faults for ever
 * D11  drm_pagemap: a thread that has to wait for a page faults again and again
 * ==== ==========================================================================
 */
#define ONLY_PRIVATE
#include "fixture.h"

#include <pthread.h>
#include <sys/resource.h>

/*
 * Parts of huge pages.
 */

#define PART		100
#define PART_PAGES	50

enum part {
	PART_PROTECTED,
	PART_UNMAPPED,
	PART_DROPPED,
	PART_MOVED,
	NR_PARTS,
};

/* Splits the mapping of huge pages that are mapped as a whole. */
static int part_change(char *ptr, enum part how, char *target)
{
	char *part = ptr + PART * PAGE;

	switch (how) {
	case PART_PROTECTED:
		return mprotect(part, PART_PAGES * PAGE, PROT_READ);
	case PART_UNMAPPED:
		return munmap(part, PART_PAGES * PAGE);
	case PART_DROPPED:
		return madvise(part, PART_PAGES * PAGE, MADV_DONTNEED);
	default:
		return mremap(part, PART_PAGES * PAGE, PART_PAGES * PAGE,
			      MREMAP_MAYMOVE | MREMAP_FIXED, target) != target;
	}
}

/* Number of pages with wrong bytes; touches the pages in a scattered order. */
static long part_wrong(const char *ptr, enum part how, unsigned int seed,
		       const char *target)
{
	unsigned long i, page;
	long count = 0;

	for (i = 0; i < HUGE_PAGES; i++) {
		page = (301 + i * 211) % HUGE_PAGES;
		if (how == PART_PROTECTED || page - PART >= PART_PAGES)
			count += wrong_from(ptr + page * PAGE, seed, page, 1);
		else if (how == PART_DROPPED)
			count += not_zero(ptr + page * PAGE, 1);
		else if (how == PART_MOVED)
			count += wrong_from(target + (page - PART) * PAGE, seed,
					    page, 1);
	}
	return count;
}

/*
 * N3. Verifies that each page of a huge page that is mapped in parts comes back with
 * its own bytes, whichever of them the CPU touches first.
 */
TEST_F(devmem, fault_in_part_of_large_folio_gets_its_own_bytes)
{
	char *ptr, *target;
	enum part how;

	for (how = 0; how < NR_PARTS; how++) {
		ptr = area_filled(HUGE_PAGES, variant->thp, 1 + how);
		target = area_map(PART_PAGES, false);
		ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
		ASSERT_EQ(0, part_change(ptr, how, target));
		EXPECT_EQ(0, part_wrong(ptr, how, 1 + how, target));
		areas_unmap();
		EXPECT_EQ(0, device_used(self->ctl));
	}
}

/*
 * Copies that fail.
 */

static const unsigned int fail_to_ram[] = {
	HMM_DEVMEM_TEST_FAIL_TO_RAM, HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,
	HMM_DEVMEM_TEST_FAIL_WAIT,
};

/* Exit status of a child that touches a page; it is killed if that never ends. */
static int touch_in_child(const char *addr)
{
	return child_run((alarm(HANG_MS / 1000), read_word(addr), 0));
}

/*
 * N4. Verifies that a fault whose copy fails ends with SIGBUS, that the process can
 * exit, and that neither device pages nor the data of other processes are lost.
 */
TEST_F(devmem, copy_error_in_fault_ends_in_sigbus)
{
	char *ptr = area_filled(self->npages, variant->thp, 10);
	size_t i;
	int n;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (i = 0; i < ARRAY_SIZE(fail_to_ram); i++) {
		ASSERT_EQ(0, device_inject(self->fd, fail_to_ram[i], 0, ALWAYS));
		EXPECT_EQ(128 + SIGBUS, touch_in_child(ptr + 300 * PAGE));
		for (n = 0; n < 20; n++)
			ASSERT_EQ(SIGBUS, access_signal(ptr + 300 * PAGE, n % 2));
		EXPECT_EQ(self->npages, device_used_soon(self->ctl, self->npages));
	}
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0));
	EXPECT_EQ(0, touch_in_child(ptr + 300 * PAGE));
	EXPECT_EQ(0, wrong(ptr, 10, self->npages));
}

/*
 * Other processes, other addresses.
 */

/* The grandchild's part of the test below; its parent has been killed. */
static int touch_as_orphan(char *ptr, const struct gate *go)
{
	unsigned long page;

	if (!gate_wait(go))
		return 1;
	alarm(HANG_MS / 1000);
	for (page = HUGE_PAGES + 64; page--; )
		if (wrong_from(ptr + page * PAGE, 40, page, 1))
			return 2;
	fill(ptr, 41, HUGE_PAGES);
	return wrong(ptr, 41, HUGE_PAGES) ? 3 : 0;
}

/* The part of the process that is killed. */
static int be_dead_parent(int nr, bool thp, const struct gate *ready,
			  const struct gate *go, int to)
{
	char *ptr = area_filled(HUGE_PAGES + 64, thp, 40);
	int fd = device_open(nr), status;

	if (all_moved(fd, ptr, HUGE_PAGES + 64) != HUGE_PAGES + 64)
		return 1;
	if (!child_fork()) {
		close(fd);
		status = touch_as_orphan(ptr, go);
		_exit(write(to, &status, sizeof(status)) < 0);
	}
	if (!gate_open(ready, 1))
		return 2;
	return pause();
}

/*
 * K4. Verifies that a child gets its device pages by CPU faults when the process
 * that had put them on the device has been killed.
 */
TEST_F(devmem, fault_in_child_of_dead_parent)
{
	int result[2], status = -1;
	struct gate ready, go;
	pid_t pid;

	gate_init(&ready);
	gate_init(&go);
	ASSERT_EQ(0, pipe(result));
	pid = child_start(be_dead_parent(variant->nr, variant->thp, &ready, &go,
					 result[1]));
	close(result[1]);
	ASSERT_TRUE(gate_meet(&ready));
	EXPECT_EQ(128 + SIGKILL, child_kill(pid));
	ASSERT_EQ(HUGE_PAGES + 64, device_used(self->ctl));
	ASSERT_TRUE(gate_open(&go, 1));
	ASSERT_EQ(sizeof(status), read(result[0], &status, sizeof(status)));
	EXPECT_EQ(0, status);
	close(result[0]);
	gate_close(&go);
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_EQ(0, SINCE(contexts));
}

/*
 * K5. Verifies that the CPU finds pages where mremap() has moved them, before the
 * device has used that address; once to where huge pages fit, once to where not.
 */
TEST_F(devmem, fault_after_mremap)
{
	unsigned long page, shift;
	char *ptr, *target;

	for (shift = 0; shift < 2; shift++) {
		ptr = area_filled(self->npages, variant->thp, 50);
		target = area_map(self->npages + 1, false) + shift * PAGE;
		ASSERT_EQ(self->npages,
			  all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(target, mremap(ptr, self->npages * PAGE,
					 self->npages * PAGE,
					 MREMAP_MAYMOVE | MREMAP_FIXED, target));
		for (page = self->npages; page--; )
			ASSERT_EQ(0, wrong_from(target + page * PAGE, 50, page,
						1));
		EXPECT_EQ(0, device_used(self->ctl));
		areas_unmap();
	}
}

/* The child's part of the test below; returns 0 if all was right. */
static int remap_and_touch(int nr, bool thp, unsigned long npages)
{
	int fd = device_open(nr);
	char *ptr = area_filled(npages, thp, 60);
	char *target = area_map(npages, false);
	char *data = area_map(npages, false);

	alarm(HANG_MS / 1000);
	if (all_moved(fd, ptr, npages) != (long)npages)
		return 1;
	if (mremap(ptr + 64 * PAGE, (npages - 64) * PAGE, (npages - 64) * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
		return 2;
	npages -= 64;
	if (device_read(fd, target, data, npages) != (long)npages ||
	    wrong_from(data, 60, 64, npages))
		return 3;
	if (wrong_from(target, 60, 64, npages))
		return 4;
	if (all_moved(fd, target, npages) != (long)npages ||
	    device_write(fd, target, data, npages) != (long)npages)
		return 5;
	return wrong_from(target, 60, 64, npages) ? 6 : 0;
}

/*
 * K6. Verifies that CPU faults come to an end after mremap() and an access of the
 * device.
 */
TEST_F(devmem, fault_after_mremap_and_device_access)
{
	EXPECT_EQ(0, child_run(remap_and_touch(variant->nr, variant->thp,
					       self->npages)));
}

/*
 * Waiting.
 */

enum wait_for { WAIT_FAULT, WAIT_TO_DEVICE, WAIT_TO_RAM, WAIT_EVICT, NR_WAITS };

#define COPY_US		300000
/* Faults during a copy of a thread that waits asleep: the one that it waits in. */
#define FAULTS_AT_MOST	2
#define NR_WAITERS	2

/**
 * struct waiter - one of the threads
 * @wait: What it waits for.
 * @tid: The thread; 0 if it has not started or has the page.
 */
struct waiter {
	struct wait *wait;
	int tid;
};

/**
 * struct wait - threads that need a page while it is being copied
 * @fd: An open file of the device.
 * @addr: The page.
 * @during: Touch the page only when a copy has started.
 * @over: That copy is over.
 * @slept: Number of threads that have slept until they got the page.
 * @waiters: The threads.
 * @faults: The highest number of faults that one of them took during a copy.
 */
struct wait {
	int fd;
	char *addr;
	bool during;
	int over;
	int slept;
	struct waiter waiters[NR_WAITERS];
	long faults;
};

static bool is_over(const struct wait *wait)
{
	return __atomic_load_n(&wait->over, __ATOMIC_RELAXED);
}

static void *touch_and_count(void *arg)
{
	struct waiter *waiter = arg;
	struct wait *wait = waiter->wait;
	struct rusage before, after;

	__atomic_store_n(&waiter->tid, gettid(), __ATOMIC_RELAXED);
	soon(!wait->during || device_stats(wait->fd).copying || is_over(wait));
	getrusage(RUSAGE_THREAD, &before);
	read_word(wait->addr);
	getrusage(RUSAGE_THREAD, &after);
	__atomic_store_n(&waiter->tid, 0, __ATOMIC_RELAXED);
	if (after.ru_nvcsw > before.ru_nvcsw)
		__atomic_add_fetch(&wait->slept, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* Page faults of a thread so far; 0 if it is not there. */
static long faults_of(const struct waiter *waiter)
{
	const int id = __atomic_load_n(&waiter->tid, __ATOMIC_RELAXED);
	char path[60];
	const char *text;
	long faults = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", id);
	text = id ? strrchr(file_read(path), ')') : NULL;
	/* State and five numbers, flags, and then the minor faults */
	if (text)
		sscanf(text, ") %*c %*d %*d %*d %*d %*d %*u %ld", &faults);
	return faults;
}

/* The number of the copy that is in flight; 0 if none is. */
static __u64 present_copy(const struct wait *wait)
{
	const struct hmm_devmem_test_stats stats = device_stats(wait->fd);

	return stats.copying ? stats.copies : 0;
}

/*
 * Compare the faults of the threads at moments of the same copy. Before and after it,
 * while a folio is locked and still mapped, core lets the CPU fault again at once, as
 * often as it can.
 */
static void *watch(void *arg)
{
	struct wait *wait = arg;
	__u64 copies[NR_WAITERS] = { }, copy;
	long first[NR_WAITERS] = { }, now;
	int i;

	while (!is_over(wait)) {
		for (i = 0; i < NR_WAITERS; i++) {
			copy = present_copy(wait);
			now = faults_of(&wait->waiters[i]);
			if (!copy || !now || present_copy(wait) != copy)
				continue;
			if (copies[i] != copy) {
				copies[i] = copy;
				first[i] = now;
			}
			if (now - first[i] > wait->faults)
				wait->faults = now - first[i];
		}
		sleep_ms(1);
	}
	return NULL;
}

/*
 * Let two threads touch a page while it is being copied, or so that a CPU fault copies
 * it. Not both need to sleep: a copy can be over before a thread touches the page.
 */
static void wait_for_page(struct wait *wait, char *ptr, enum wait_for what)
{
	pthread_t threads[NR_WAITERS], watcher;
	int i;

	wait->addr = ptr + 5 * PAGE;
	wait->during = what != WAIT_FAULT;
	wait->over = 0;
	wait->slept = 0;
	for (i = 0; i < NR_WAITERS; i++)
		wait->waiters[i] = (struct waiter){ .wait = wait };
	if (pthread_create(&watcher, NULL, watch, wait))
		abort();
	for (i = 0; i < NR_WAITERS; i++)
		if (pthread_create(&threads[i], NULL, touch_and_count, &wait->waiters[i]))
			abort();
	if (what == WAIT_TO_DEVICE)
		to_device(wait->fd, ptr, HUGE_PAGES);
	else if (what == WAIT_TO_RAM)
		to_ram(wait->fd, ptr, HUGE_PAGES);
	else if (what == WAIT_EVICT)
		device_evict_all(wait->fd);
	/* A thread that has seen no copy begin is not to wait for another one. */
	if (wait->during)
		__atomic_store_n(&wait->over, 1, __ATOMIC_RELAXED);
	for (i = 0; i < NR_WAITERS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&wait->over, 1, __ATOMIC_RELAXED);
	pthread_join(watcher, NULL);
}

/*
 * D11. Verifies that threads which need a page that a slow device copies, for whatever
 * reason, sleep until the copy is over: they do not fault again and again meanwhile.
 */
TEST_F(devmem, waiting_for_a_page_is_not_spinning)
{
	struct wait wait = { .fd = self->ctl };
	enum wait_for what;
	char *ptr;
	long end;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, COPY_US));
	for (what = 0; what < NR_WAITS; what++) {
		ptr = area_filled(HUGE_PAGES, variant->thp, 70);
		end = now_ms() + HANG_MS;
		do {
			ASSERT_GT(end, now_ms());
			if (what == WAIT_TO_DEVICE)
				to_ram(self->fd, ptr, HUGE_PAGES);
			else
				to_device(self->fd, ptr, HUGE_PAGES);
			wait_for_page(&wait, ptr, what);
		} while (wait.slept < NR_WAITERS);
		EXPECT_EQ(0, wrong(ptr, 70, HUGE_PAGES));
		areas_unmap();
	}
	EXPECT_GE(FAULTS_AT_MOST, wait.faults);
}

TEST_HARNESS_MAIN
