// SPDX-License-Identifier: GPL-2.0
/*
 * A device that is smaller than what is moved to it, why pages are left on it, and
 * devices of all kinds that go away and come back while processes use them.
 */
#include "hmm_devmem_fixture.h"

#include <sys/uio.h>

#define SMALL	(16UL << 20)

/* Pages in which every page has another word. */
static char *numbered(unsigned long npages, bool thp)
{
	char *ptr = area_map(npages, thp);
	unsigned long i;

	for (i = 0; i < npages; i++)
		write_word(ptr + i * PAGE, i + 1);
	return ptr;
}

static long misnumbered(const char *ptr, unsigned long npages)
{
	unsigned long i;
	long count = 0;

	for (i = 0; i < npages; i++)
		count += read_word(ptr + i * PAGE) != i + 1;
	return count;
}

/*
 * Verifies that with RECLAIM three times the device's size goes through it window
 * by window, and that the result is what is there in the end.
 */
TEST_F_TIMEOUT(devmem, reclaim_more_than_fits, 600)
{
	const unsigned long size = variant->coherent ? 0 : SMALL;
	unsigned long there, npages;
	char *ptr;
	long ret;
	int i;

	ASSERT_EQ(0, plug_as(self, size, HMM_DEVMEM_TEST_RECLAIM, 0));
	there = device_stats(self->ctl).size;
	npages = variant->coherent ? there + 8 * HUGE_PAGES : 3 * there;
	ptr = numbered(npages, variant->thp);
	for (i = 0; i < 2; i++) {
		ret = to_device(self->fd, ptr, npages);
		EXPECT_EQ(ret, resident(self->fd, ptr, npages));
		EXPECT_EQ(ret, device_used(self->ctl));
		EXPECT_GE(there, ret);
		/* A block is made room for at a time */
		EXPECT_LE(there - HUGE_PAGES, ret);
		EXPECT_LE(npages - there, SINCE(evicted));
		/* The last window went last: nobody has taken its place */
		EXPECT_EQ(HUGE_PAGES, resident(self->fd,
					       ptr + (npages - HUGE_PAGES) * PAGE,
					       HUGE_PAGES));
		EXPECT_EQ(0, misnumbered(ptr, npages));
	}
	EXPECT_EQ(0, SINCE(copy_errors));
}

/* Verifies that without it the rest stays in RAM, and nobody has to go. */
TEST_F_TIMEOUT(devmem, no_reclaim, 600)
{
	unsigned long there, npages;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL, 0, 0));
	there = device_stats(self->ctl).size;
	npages = there + 4 * HUGE_PAGES;
	ptr = numbered(npages, variant->thp);
	EXPECT_EQ(there, to_device(self->fd, ptr, npages));
	EXPECT_EQ(there, resident(self->fd, ptr, npages));
	EXPECT_EQ(there, resident(self->fd, ptr, there));
	EXPECT_EQ(0, SINCE(evicted));
	EXPECT_EQ(0, misnumbered(ptr, npages));
}

/* Verifies that a process makes room by evicting others, which lose nothing. */
TEST_F_TIMEOUT(devmem, reclaim_from_others, 600)
{
	enum { NR = 3 };
	unsigned long npages;
	pid_t pids[NR];
	int i, n, fd;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL,
			     HMM_DEVMEM_TEST_RECLAIM, 0));
	npages = device_stats(self->ctl).size / 2;
	for (i = 0; i < NR; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (pids[i])
			continue;
		fd = device_open(variant->nr);
		ptr = numbered(npages, variant->thp);
		for (n = 0; n < 2; n++) {
			if (to_device(fd, ptr, npages) <= 0)
				_exit(1);
			if (misnumbered(ptr, npages))
				_exit(2);
		}
		_exit(0);
	}
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	EXPECT_EQ(0, SINCE(copy_errors));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));

	/* One after the other there is no question who has to go */
	ptr = numbered(2 * npages, variant->thp);
	/* Large pieces are worth some of our own memory */
	ASSERT_LE(2 * npages - HUGE_PAGES,
		  to_device(self->fd, ptr, 2 * npages));
	pids[0] = fork();
	ASSERT_LE(0, pids[0]);
	if (!pids[0]) {
		fd = device_open(variant->nr);
		ptr = numbered(HUGE_PAGES, variant->thp);
		_exit(to_device(fd, ptr, HUGE_PAGES) != (long)HUGE_PAGES);
	}
	EXPECT_EQ(0, child_status(pids[0]));
	EXPECT_LE(2 * npages - 3 * HUGE_PAGES,
		  resident(self->fd, ptr, 2 * npages));
	EXPECT_EQ(0, misnumbered(ptr, 2 * npages));
}

/* Verifies that pages that cannot be evicted are no endless loop. */
TEST_F_TIMEOUT(devmem, reclaim_fails, 600)
{
	unsigned long npages;
	char *ptr, *more;
	long start;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL,
			     HMM_DEVMEM_TEST_RECLAIM, 0));
	npages = device_stats(self->ctl).size;
	ptr = numbered(npages, variant->thp);
	more = area_filled(HUGE_PAGES, variant->thp, 20);
	ASSERT_EQ(npages, to_device(self->fd, ptr, npages));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	start = now_ms();
	EXPECT_GE(0, to_device(self->fd, more, HUGE_PAGES));
	EXPECT_GT(60000, now_ms() - start);
	EXPECT_EQ(npages, resident(self->fd, ptr, npages));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(HUGE_PAGES, to_device(self->fd, more, HUGE_PAGES));
	EXPECT_EQ(0, wrong(more, 20, HUGE_PAGES));
	EXPECT_EQ(0, misnumbered(ptr, npages));
}

/* Verifies that eviction tells why a page is still there. */
TEST_F(devmem, evict_tells_why)
{
	char *ptr = area_filled(self->npages, variant->thp, 21);
	struct iovec vec = { .iov_base = ptr + 5 * PAGE, .iov_len = 3 * PAGE };
	struct hmm_devmem_test_evict evict;
	int fds[2];

	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	evict = device_evict_why(self->fd);
	EXPECT_EQ(self->npages, evict.left);
	EXPECT_EQ(self->npages, evict.not_copied);
	EXPECT_EQ(0, evict.no_memory + evict.busy);

	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
	ASSERT_TRUE(fail_attr("fail_ram", 100, -1));
	evict = device_evict_why(self->fd);
	EXPECT_EQ(self->npages, evict.left);
	EXPECT_EQ(self->npages, evict.no_memory);
	EXPECT_EQ(0, evict.not_copied + evict.busy);
	fail_attrs_clear();

	/* Nobody can have a reference to memory that the CPU does not see */
	if (variant->coherent) {
		ASSERT_EQ(0, pipe(fds));
		ASSERT_EQ(3 * PAGE, vmsplice(fds[1], &vec, 1, 0));
		evict = device_evict_why(self->fd);
		EXPECT_EQ(3, evict.left);
		EXPECT_EQ(3, evict.busy);
		EXPECT_EQ(0, evict.no_memory + evict.not_copied);
		close(fds[0]);
		close(fds[1]);
	}
	evict = device_evict_why(self->fd);
	EXPECT_EQ(0, evict.left);
	EXPECT_EQ(0, evict.busy + evict.no_memory + evict.not_copied);
	EXPECT_EQ(0, wrong(ptr, 21, self->npages));
}

/* One of those who use the device while it comes and goes. */
static int user(int nr, bool thp, unsigned int seed, const int *stop)
{
	const unsigned long npages = HUGE_PAGES + 40;
	int fd = device_open(nr), round, status;
	char *ptr = area_filled(npages, thp, seed);
	pid_t pid;
	long ret;

	for (round = 0; !__atomic_load_n(stop, __ATOMIC_RELAXED); round++) {
		ret = to_device(fd, ptr, npages);
		if (ret < 0 && ret != -ENODEV && ret != -EBUSY && ret != -EAGAIN)
			return 1;
		if (round % 4 == 3) {
			pid = fork();
			if (!pid)
				_exit(wrong(ptr, seed, npages) ? 9 : 0);
			status = child_status(pid);
			if (status)
				return status;
		}
		if (wrong(ptr, seed, npages))
			return 2;
		fill(ptr, ++seed, npages);
	}
	return 0;
}

/* Less than two seconds, on a machine of which nobody else wants anything. */
#define REMOVE_MS	30000

/*
 * Verifies that devices of all kinds can go, many times, in bounded time, while
 * processes move, touch, fork and exit, and that none of them notices.
 */
TEST_F_TIMEOUT(devmem, unplug_all_kinds_under_fire, 900)
{
	static const unsigned int kinds[] = {
		HMM_DEVMEM_TEST_ASYNC, HMM_DEVMEM_TEST_DMA,
		HMM_DEVMEM_TEST_LAZY, HMM_DEVMEM_TEST_RECLAIM,
		HMM_DEVMEM_TEST_SYNC | HMM_DEVMEM_TEST_LAZY,
		HMM_DEVMEM_TEST_ASYNC | HMM_DEVMEM_TEST_DMA |
		HMM_DEVMEM_TEST_LAZY | HMM_DEVMEM_TEST_RECLAIM,
	};
	enum { NR = 4, ROUNDS = 60 };
	long start, ms, longest = 0;
	pid_t pids[NR];
	int *stop, i;

	stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, stop);
	self->replug = true;
	for (i = 0; i < NR; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i])
			_exit(user(variant->nr, variant->thp, 1000 * i, stop));
	}
	for (i = 0; i < ROUNDS; i++) {
		start = now_ms();
		EXPECT_EQ(0, device_unplug(self->ctl));
		ms = now_ms() - start;
		longest = ms > longest ? ms : longest;
		EXPECT_EQ(0, device_plug_as(self->ctl,
					    variant->coherent ? 0 : 4 * HUGE,
					    kinds[i % ARRAY_SIZE(kinds)],
					    i % 500));
		sleep_ms(i % 20);
	}
	__atomic_store_n(stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	TH_LOG("longest removal: %ld ms", longest);
	EXPECT_GT(REMOVE_MS, longest);
	EXPECT_EQ(ROUNDS, SINCE(kills));
	EXPECT_EQ(ROUNDS, SINCE(cleanups));
	EXPECT_EQ(0, SINCE(contexts));
	munmap(stop, PAGE);
}

TEST_HARNESS_MAIN
