// SPDX-License-Identifier: GPL-2.0
/*
 * A device that is smaller than the memory that is moved to it, the reasons why
 * pages are left on a device, and devices of all kinds that are removed and added
 * again while processes use them.
 */
#include "fixture.h"

#include <sys/uio.h>

#define SMALL	(16UL << 20)

/*
 * Verifies that of a range that is larger than the device as much moves as fits,
 * from the start, and that those pages are not evicted for the rest of the range.
 */
TEST_F(devmem, more_than_fits_stops)
{
	unsigned long there, npages;
	char *ptr;
	int i;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL,
			     HMM_DEVMEM_TEST_RECLAIM, 0));
	there = device_stats(self->ctl).size;
	npages = variant->coherent ? there + 8 * HUGE_PAGES : 3 * there;
	ptr = area_numbered(npages, variant->thp);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(there, moved_soon(self->fd, ptr, npages, there));
		EXPECT_EQ(there, resident(self->fd, ptr, there));
		EXPECT_EQ(there, SINCE(to_device));
		EXPECT_EQ(0, SINCE(evicted));
	}
	EXPECT_EQ(0, misnumbered(ptr, npages));
	EXPECT_EQ(0, SINCE(copy_errors));
}

/* A process whose pages fill the device until @go is open. */
static int fill_until(int nr, unsigned long npages, bool thp,
		      const struct gate *ready, const struct gate *go)
{
	char *ptr = area_numbered(npages, thp);

	if (all_moved(device_open(nr), ptr, npages) != (long)npages ||
	    !gate_open(ready, 1) || !gate_wait(go))
		return 1;
	return misnumbered(ptr, npages) ? 2 : 0;
}

/* Verifies that reclaim evicts each page of others once, and no page of the range. */
TEST_F(devmem, more_than_fits_evicts_others_once)
{
	struct gate ready, go;
	unsigned long there;
	pid_t pid;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL,
			     HMM_DEVMEM_TEST_RECLAIM, 0));
	there = device_stats(self->ctl).size;
	gate_init(&ready);
	gate_init(&go);
	pid = child_start(fill_until(variant->nr, there, variant->thp, &ready, &go));
	ASSERT_TRUE(gate_meet(&ready));

	ptr = area_numbered(there + 8 * HUGE_PAGES, variant->thp);
	EXPECT_EQ(there, moved_soon(self->fd, ptr, there + 8 * HUGE_PAGES, there));
	EXPECT_EQ(there, resident(self->fd, ptr, there));
	EXPECT_EQ(there, SINCE(evicted));
	ASSERT_TRUE(gate_open(&go, 1));
	EXPECT_EQ(0, child_status(pid));
	gate_close(&go);
	EXPECT_EQ(0, misnumbered(ptr, there + 8 * HUGE_PAGES));
}

/*
 * Verifies that pages of others are evicted from a block that also has pages of the
 * range, and that these stay.
 */
TEST_F(devmem, reclaim_beside_own_pages)
{
	enum { OTHERS = 15, OWN = 8, SIZE = OTHERS + 1 };
	char *others, *own;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_as(self, SIZE * PAGE, HMM_DEVMEM_TEST_RECLAIM, 0));
	ASSERT_EQ(SIZE, device_stats(self->ctl).size);
	others = area_numbered(OTHERS, false);
	own = area_numbered(OWN, false);
	ASSERT_EQ(OTHERS, all_moved(self->fd, others, OTHERS));
	ASSERT_EQ(1, all_moved(self->fd, own, 1));
	EXPECT_EQ(0, SINCE(evicted));
	EXPECT_EQ(OWN, all_moved(self->fd, own, OWN));
	EXPECT_EQ(OWN, resident(self->fd, own, OWN));
	EXPECT_EQ(OTHERS + OWN, SINCE(to_device));
	EXPECT_EQ(0, misnumbered(own, OWN));
	EXPECT_EQ(0, misnumbered(others, OTHERS));
}

#define FIGHT_CALLS	300
/* How long the library waits for a page, at least: 50 times, for a millisecond or more */
#define FIGHT_WAIT_MS	50

/*
 * One of two processes that fight for a page, until it has had success so often; returns
 * the % of calls that failed without having waited for the page. (The process that has it
 * may not run for longer than the library waits.) Each call is for a new page: core does
 * not migrate one that has just come back until the process that evicted it has dropped
 * its reference.
 */
static int fight(int nr, const struct gate *go)
{
	char *ptr = area_numbered(1, false);
	int fd = device_open(nr), calls, moved = 0, nothing = 0;
	const int wanted = rounds_of(FIGHT_CALLS);
	long ret, start;

	if (!gate_wait(go))
		return 101;
	for (calls = 0; moved < wanted; calls++) {
		start = now_ms();
		ret = to_device(fd, ptr, 1);
		if (ret < 0)
			return 102;
		moved += ret;
		nothing += !ret && now_ms() - start < FIGHT_WAIT_MS;
		if (read_word(ptr) != 1)
			return 103;
		if (madvise(ptr, PAGE, MADV_DONTNEED))
			return 104;
		write_word(ptr, 1);
	}
	return nothing * 100 / calls;
}

/*
 * Verifies that a process that needs the only device page waits for it while it is
 * being migrated for the other process: hardly any call fails at once. Each access
 * of the CPU moves the page back.
 */
TEST_F(devmem, fight_for_one_page)
{
	enum { NR = 2 };
	pid_t pids[NR];
	struct gate go;
	int i;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_as(self, PAGE, HMM_DEVMEM_TEST_RECLAIM |
			     HMM_DEVMEM_TEST_ASYNC, 200));
	ASSERT_EQ(1, device_stats(self->ctl).size);
	gate_init(&go);
	for (i = 0; i < NR; i++)
		pids[i] = child_start(fight(variant->nr, &go));
	ASSERT_TRUE(gate_open(&go, NR));
	for (i = 0; i < NR; i++)
		EXPECT_GT(20, child_status(pids[i]));
	gate_close(&go);
	EXPECT_LE(NR * rounds_of(FIGHT_CALLS), SINCE(to_device));
}

/* Verifies that without reclaim the rest stays in RAM, and no page is evicted. */
TEST_F(devmem, no_reclaim)
{
	unsigned long there, npages;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL, 0, 0));
	there = device_stats(self->ctl).size;
	npages = there + 4 * HUGE_PAGES;
	ptr = area_numbered(npages, variant->thp);
	EXPECT_EQ(there, moved_soon(self->fd, ptr, npages, there));
	EXPECT_EQ(there, resident(self->fd, ptr, npages));
	EXPECT_EQ(there, resident(self->fd, ptr, there));
	EXPECT_EQ(0, SINCE(evicted));
	EXPECT_EQ(0, misnumbered(ptr, npages));
}

/* One of several processes that want half of the device. Returns 0 if all is right. */
static int use_twice(int nr, unsigned long npages, bool thp)
{
	char *ptr = area_numbered(npages, thp);
	int fd = device_open(nr), n;

	for (n = 0; n < 2; n++) {
		if (to_device(fd, ptr, npages) <= 0)
			return 1;
		if (misnumbered(ptr, npages))
			return 2;
	}
	return 0;
}

static int use_huge_page(int nr, bool thp)
{
	char *ptr = area_numbered(HUGE_PAGES, thp);

	return all_moved(device_open(nr), ptr, HUGE_PAGES) != (long)HUGE_PAGES;
}

/* Verifies that a process gets room by eviction of others, which lose no data. */
TEST_F(devmem, reclaim_from_others)
{
	enum { NR = 3 };
	unsigned long npages;
	pid_t pids[NR];
	char *ptr;
	int i;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL,
			     HMM_DEVMEM_TEST_RECLAIM, 0));
	npages = device_stats(self->ctl).size / 2;
	for (i = 0; i < NR; i++)
		pids[i] = child_start(use_twice(variant->nr, npages, variant->thp));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	EXPECT_EQ(0, SINCE(copy_errors));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));

	/* One after the other, it is certain whose pages are evicted */
	ptr = area_numbered(2 * npages, variant->thp);
	/* Some pages of the range can be evicted to get a large folio */
	ASSERT_LE(2 * npages - HUGE_PAGES,
		  to_device(self->fd, ptr, 2 * npages));
	EXPECT_EQ(0, child_run(use_huge_page(variant->nr, variant->thp)));
	EXPECT_LE(2 * npages - 3 * HUGE_PAGES,
		  resident(self->fd, ptr, 2 * npages));
	EXPECT_EQ(0, misnumbered(ptr, 2 * npages));
}

/* Verifies that migration ends if no page can be evicted. */
TEST_F(devmem, reclaim_fails)
{
	unsigned long npages;
	char *ptr, *more;

	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : SMALL,
			     HMM_DEVMEM_TEST_RECLAIM, 0));
	npages = device_stats(self->ctl).size;
	ptr = area_numbered(npages, variant->thp);
	more = area_filled(HUGE_PAGES, variant->thp, 20);
	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	EXPECT_GE(0, to_device(self->fd, more, HUGE_PAGES));
	EXPECT_EQ(npages, resident(self->fd, ptr, npages));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(HUGE_PAGES, all_moved(self->fd, more, HUGE_PAGES));
	EXPECT_EQ(0, wrong(more, 20, HUGE_PAGES));
	EXPECT_EQ(0, misnumbered(ptr, npages));
}

/* Verifies that eviction reports why pages are left on the device. */
TEST_F(devmem, evict_tells_why)
{
	char *ptr = area_filled(self->npages, variant->thp, 21);
	struct iovec vec = { .iov_base = ptr + 5 * PAGE, .iov_len = 3 * PAGE };
	struct hmm_devmem_test_evict evict;
	int fds[2];

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
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

	/* Memory that the CPU cannot address cannot be pinned */
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

/* A process that uses the device while the test removes and adds it. */
static int user(int nr, bool thp, unsigned int seed, const int *stop)
{
	const unsigned long npages = HUGE_PAGES + 40;
	int fd = device_open(nr), round, status;
	char *ptr = area_filled(npages, thp, seed);
	long ret;

	for (round = 0; !__atomic_load_n(stop, __ATOMIC_RELAXED); round++) {
		ret = to_device(fd, ptr, npages);
		if (ret < 0 && ret != -ENODEV && ret != -EBUSY && ret != -EAGAIN)
			return 1;
		if (round % 4 == 3) {
			status = child_run(wrong(ptr, seed, npages) ? 9 : 0);
			if (status)
				return status;
		}
		if (wrong(ptr, seed, npages))
			return 2;
		fill(ptr, ++seed, npages);
	}
	return 0;
}

/*
 * Verifies that devices of all kinds can be removed, many times, while processes
 * move and touch memory, fork and exit, and that these processes lose no data.
 */
TEST_F(devmem, unplug_all_kinds_under_fire)
{
	static const unsigned int kinds[] = {
		HMM_DEVMEM_TEST_ASYNC, HMM_DEVMEM_TEST_DMA,
		HMM_DEVMEM_TEST_LAZY, HMM_DEVMEM_TEST_RECLAIM,
		HMM_DEVMEM_TEST_SYNC | HMM_DEVMEM_TEST_LAZY,
		HMM_DEVMEM_TEST_ASYNC | HMM_DEVMEM_TEST_DMA |
		HMM_DEVMEM_TEST_LAZY | HMM_DEVMEM_TEST_RECLAIM,
	};
	const int rounds = rounds_of(60);
	enum { NR = 4 };
	long start, ms, longest = 0;
	pid_t pids[NR];
	int *stop, i;

	stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, stop);
	self->replug = true;
	ASSERT_TRUE(removal_waits(true));
	for (i = 0; i < NR; i++)
		pids[i] = child_start(user(variant->nr, variant->thp, 1000 * i, stop));
	for (i = 0; i < rounds; i++) {
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
	EXPECT_EQ(rounds, SINCE(kills));
	EXPECT_EQ(rounds, SINCE(cleanups));
	EXPECT_EQ(0, SINCE(contexts));
	munmap(stop, PAGE);
}

TEST_HARNESS_MAIN
