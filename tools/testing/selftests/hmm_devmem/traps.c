// SPDX-License-Identifier: GPL-2.0
/*
 * What drivers in the kernel get wrong about migration to the device and about
 * eviction, and what core leaves for drivers to get wrong. Each test fails if the
 * library made the mistake:
 *
 * ==== ==========================================================================
 * N9   nouveau: never maps pages that have moved: the device faults on all of them
 * N10  nouveau: maps pages on the device that core has not moved in the end
 * K3   amdkfd: does not clear device memory that is used again
 * D1   drm_pagemap: counts a huge hole as one page, and fails because of that
 * D9   drm_pagemap: one page that cannot move keeps all others from moving
 * U4   powerpc: reports pages as moved that have not moved
 * C2   core wants all pages of a huge hole, and crashes if it gets fewer
 * C3   core collects only the first part of a hole that is larger than a PMD
 * C4   core skips a large folio if eviction begins inside of it
 * C5   core cannot evict a large folio to small pages
 * C6   core uses destination entries whose pages are free again
 * ==== ==========================================================================
 *
 * CPU faults and copies that fail are in bugs.c.
 */
#include "fixture.h"
#include "system.h"

#include <sys/uio.h>

#include "uffd.h"

/*
 * N9. Verifies that the device takes no page fault on pages that have just moved:
 * small pages, huge pages, and memory that was never touched.
 */
TEST_F(devmem, device_needs_no_fault_after_migration)
{
	char *data = area_filled(self->npages, false, 1);
	struct hmm_devmem_test_cmd cmd;
	char *ptr;
	int hole;

	for (hole = 0; hole < 2; hole++) {
		/* Core splits the huge pages first, and that invalidates them */
		const int faults = !hole && variant->thp && variant->coherent;

		ptr = hole ? area_map(self->npages, variant->thp) :
			     area_filled(self->npages, variant->thp, 1);
		ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_cmd(self->fd, HMM_DEVMEM_TEST_WRITE, ptr,
					data, self->npages, &cmd));
		EXPECT_EQ(self->npages, cmd.cpages);
		EXPECT_LE(cmd.faults, faults);
		ASSERT_EQ(0, device_cmd(self->fd, HMM_DEVMEM_TEST_READ, ptr,
					data, self->npages, &cmd));
		EXPECT_EQ(0, cmd.faults);
		EXPECT_EQ(0, wrong(data, 1, self->npages));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	}
}

/*
 * N10, U4. Verifies that a page which does not move in the end is neither counted
 * nor entered in the device's page table: here a missing page that userfaultfd has
 * to provide.
 */
TEST_F(devmem, what_core_drops_is_not_on_the_device)
{
	char *data = area_map(self->npages, false);
	struct hmm_devmem_test_cmd cmd;
	struct uffd uffd;
	char *ptr;

	ptr = area_map(self->npages, variant->thp);
	ASSERT_EQ(0, uffd_open(&uffd, ptr, self->npages,
			       UFFDIO_REGISTER_MODE_MISSING));
	uffd.seed = 10;
	EXPECT_EQ(0, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, SINCE(to_device));

	/*
	 * The device, too, reads nothing but what userfaultfd provides. A page
	 * fault of the device that may drop the mmap lock can wait for that.
	 */
	ASSERT_EQ(0, uffd_start(&uffd));
	EXPECT_EQ(0, device_cmd(self->fd, HMM_DEVMEM_TEST_READ_UNLOCKED, ptr,
				data, self->npages, &cmd));
	EXPECT_LT(0, cmd.faults);
	EXPECT_EQ(0, wrong(data, 10, self->npages));
	EXPECT_EQ(self->npages, uffd.missing);
	EXPECT_EQ(0, wrong(ptr, 10, self->npages));
	EXPECT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 10, self->npages));
	EXPECT_EQ(0, uffd_stop(&uffd));
}

static int pin(const int *pipefd, char *page)
{
	struct iovec iov = { page, PAGE };

	return vmsplice(pipefd[1], &iov, 1, 0) != PAGE;
}

/*
 * N10, U4, D9. Verifies that of 512 pages all but the one that is pinned move;
 * that one is not counted, and the device reads what the CPU has written to it.
 */
TEST_F(devmem, one_pinned_page_stays_alone)
{
	/* All of a pinned huge page stays; the 512 pages are those behind it then */
	const unsigned long npages = variant->thp ? 2 * HUGE_PAGES : HUGE_PAGES;
	const long stay = variant->thp ? HUGE_PAGES : 1;
	char *ptr = area_filled(npages, variant->thp, 20);
	char *data = area_map(npages, false);
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(0, pin(pipefd, ptr + 300 * PAGE));
	ASSERT_EQ(npages - stay, to_device(self->fd, ptr, npages));
	EXPECT_EQ(npages - stay, resident(self->fd, ptr, npages));
	EXPECT_EQ(npages - stay, device_used(self->ctl));
	EXPECT_EQ(0, resident(self->fd, ptr + 300 * PAGE, 1));
	fill_from(ptr + 300 * PAGE, 21, 300, 1);
	ASSERT_EQ(npages, device_read(self->fd, ptr, data, npages));
	EXPECT_EQ(0, wrong(data, 20, 300));
	EXPECT_EQ(0, wrong_from(data + 300 * PAGE, 21, 300, 1));
	EXPECT_EQ(0, wrong_from(data + 301 * PAGE, 20, 301, npages - 301));
	fill_from(data + 300 * PAGE, 22, 300, 1);
	ASSERT_EQ(1, device_write(self->fd, ptr + 300 * PAGE,
				  data + 300 * PAGE, 1));
	EXPECT_EQ(0, wrong_from(ptr + 300 * PAGE, 22, 300, 1));
	close(pipefd[0]);
	close(pipefd[1]);
}

/* Use a part of the private memory; the size of coherent memory cannot be chosen. */
#define SMALL_DEVICE() do {						\
	if (!variant->coherent)						\
		ASSERT_EQ(0, plug_as(self, 16 * HUGE, 0, 0));		\
} while (0)

/*
 * K3. Verifies that the device reads zeros from memory that the process has dropped
 * and moved again, if the only free device pages are those that the memory had
 * before.
 */
TEST_F(devmem, reused_device_memory_is_zero)
{
	/* A part of a large device folio cannot be freed alone */
	const unsigned long nr = variant->thp ? HUGE_PAGES : 300;
	char *data = area_filled(nr, false, 30), *ptr;
	unsigned long size;

	SMALL_DEVICE();
	size = self->before.size;
	ptr = area_numbered(size, variant->thp);
	fill(ptr + HUGE, 31, nr);
	ASSERT_EQ(size, to_device(self->fd, ptr, size));
	ASSERT_EQ(0, madvise(ptr + HUGE, nr * PAGE, MADV_DONTNEED));
	ASSERT_EQ(nr, to_device(self->fd, ptr + HUGE, nr));
	ASSERT_EQ(size, device_used(self->ctl));
	ASSERT_EQ(nr, device_read(self->fd, ptr + HUGE, data, nr));
	EXPECT_EQ(0, not_zero(data, nr));
	EXPECT_EQ(0, not_zero(ptr + HUGE, nr));
	EXPECT_EQ(0, misnumbered(ptr, HUGE_PAGES));
}

/* D1. Verifies that a huge hole moves, and counts as all of its pages. */
TEST_F(devmem, huge_hole_counts_all_pages)
{
	char *ptr = area_map(HUGE_PAGES, variant->thp);

	ASSERT_EQ(HUGE_PAGES, to_device(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(HUGE_PAGES, resident(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(HUGE_PAGES, SINCE(to_device));
	EXPECT_EQ(HUGE_PAGES, SINCE(allocated));
	EXPECT_EQ(0, SINCE(to_ram));
	EXPECT_EQ(0, not_zero(ptr, HUGE_PAGES));
}

/*
 * C2. Verifies that a huge hole for which there are too few free device pages gets
 * all free ones, and that it gets all its pages once enough are free, even if these
 * are scattered over the device.
 */
TEST_F(devmem, huge_hole_gets_the_pages_that_there_are)
{
	const unsigned long room = 100;
	char *hole = area_map(HUGE_PAGES, variant->thp), *ptr;
	unsigned long size, i;

	SMALL_DEVICE();
	size = self->before.size;
	ptr = area_numbered(size - room, false);
	ASSERT_EQ(size - room, to_device(self->fd, ptr, size - room));
	ASSERT_EQ(room, to_device(self->fd, hole, HUGE_PAGES));
	EXPECT_EQ(room, resident(self->fd, hole, HUGE_PAGES));
	EXPECT_EQ(size, device_used(self->ctl));
	EXPECT_EQ(0, not_zero(hole, HUGE_PAGES));

	ASSERT_EQ(0, madvise(hole, HUGE, MADV_DONTNEED));
	for (i = 0; i < HUGE_PAGES - room; i++)
		ASSERT_EQ(0, madvise(ptr + 7 * i * PAGE, PAGE, MADV_DONTNEED));
	ASSERT_EQ(size - HUGE_PAGES, device_used(self->ctl));
	ASSERT_EQ(HUGE_PAGES, to_device(self->fd, hole, HUGE_PAGES));
	EXPECT_EQ(size, device_used(self->ctl));
	EXPECT_EQ(0, not_zero(hole, HUGE_PAGES));
	EXPECT_EQ(0, misnumbered_from(ptr + 7 * HUGE, 7 * HUGE_PAGES,
				      HUGE_PAGES));
}

#define GIB	(512 * HUGE)

/*
 * C3. Verifies that all pages of a range without page tables move, on both sides of
 * an address at which even the PUD entry changes.
 */
TEST_F(devmem, hole_of_many_huge_pages_goes_whole)
{
	const unsigned long npages = 4 * HUGE_PAGES;
	char *data = area_filled(npages, false, 40);
	char *ptr, *area;

	area = mmap(NULL, 3 * GIB, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		    MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	area_remember(area, 3 * GIB);
	madvise(area, 3 * GIB, variant->thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	/* Nothing else is mapped in the two GiB around that address */
	ptr = (char *)(((uintptr_t)area + 2 * GIB - 1) & -GIB);
	ptr -= npages / 2 * PAGE;
	ASSERT_EQ(npages, to_device(self->fd, ptr, npages));
	EXPECT_EQ(npages, resident(self->fd, ptr, npages));
	EXPECT_EQ(npages, device_used(self->ctl));
	ASSERT_EQ(npages, device_read(self->fd, ptr, data, npages));
	EXPECT_EQ(0, not_zero(data, npages));
	EXPECT_EQ(0, not_zero(ptr - HUGE, npages + 2 * HUGE_PAGES));
}

/*
 * C4. Verifies that eviction of a range which begins and ends inside of large folios
 * moves all of its pages, and beyond it only the rest of these folios.
 */
TEST_F(devmem, eviction_from_inside_of_a_large_folio)
{
	const unsigned long first = 300, nr = 3 * HUGE_PAGES;
	/* The range has parts of four folios */
	const unsigned long home = variant->thp && !variant->coherent ?
				   4 * HUGE_PAGES : nr;
	unsigned long size;
	char *ptr;

	SMALL_DEVICE();
	size = self->before.size;
	ptr = area_numbered(size, variant->thp);
	ASSERT_EQ(size, to_device(self->fd, ptr, size));
	EXPECT_EQ(0, device_evict(self->fd, first, nr));
	EXPECT_EQ(size - home, device_used(self->ctl));
	EXPECT_EQ(home, SINCE(evicted));
	EXPECT_EQ(0, device_evict(self->fd, first, size - first));
	EXPECT_EQ(home == nr ? first : 0, device_used(self->ctl));
	EXPECT_EQ(0, misnumbered(ptr, size));
}

#define FAIL_PAGE_ALLOC	"/sys/kernel/debug/fail_page_alloc/"

/* With @some false, let this process get no large folios from here on. */
static bool large_folios(bool some)
{
	return file_write("/proc/thread-self/make-it-fail", some ? "0" : "1") &&
	       file_write(FAIL_PAGE_ALLOC "task-filter", some ? "N" : "Y") &&
	       file_write(FAIL_PAGE_ALLOC "ignore-gfp-wait", "N") &&
	       file_write(FAIL_PAGE_ALLOC "ignore-gfp-highmem", "N") &&
	       file_write(FAIL_PAGE_ALLOC "verbose", "0") &&
	       file_write(FAIL_PAGE_ALLOC "min-order", some ? "1" : "9") &&
	       file_write(FAIL_PAGE_ALLOC "times", some ? "1" : "-1") &&
	       file_write(FAIL_PAGE_ALLOC "probability", some ? "0" : "100");
}

#define KHUGEPAGED_SLEEP \
	"/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"

/*
 * Set how long khugepaged, which makes huge pages of small ones, sleeps between
 * scans; returns the previous value.
 */
static long khugepaged_sleeps(long ms)
{
	const long old = atol(file_read(KHUGEPAGED_SLEEP));

	return file_write_number(KHUGEPAGED_SLEEP, ms) ? old : -1;
}

/*
 * C5. Verifies that large folios move back though no large folio of system memory
 * can be allocated: by a CPU fault, by eviction, and when the device is removed.
 */
TEST_F(devmem, large_folios_come_home_as_small_ones)
{
	const long large = variant->thp && !variant->coherent ?
			   2 * HUGE_PAGES : 0;
	char *ptr = area_map(self->npages, variant->thp);
	long sleep;
	int way;

	if (!large_folios(true))
		SKIP(return, "no fault injection");
	sleep = khugepaged_sleeps(1000 * HANG_MS);
	ASSERT_LT(0, sleep);
	for (way = 0; way < 3; way++) {
		fill(ptr, 50 + way, self->npages);
		ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
		EXPECT_EQ(large, count_states(self->fd, ptr, self->npages,
					      HMM_DEVMEM_TEST_PROT_PMD));
		EXPECT_TRUE(large_folios(false));
		if (way == 0)
			touch(ptr, self->npages);
		/* A CPU access has not moved coherent memory */
		EXPECT_EQ(0, way < 2 ? device_evict_all(self->fd) :
				       device_unplug(self->ctl));
		EXPECT_TRUE(large_folios(true));
		EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
		EXPECT_EQ(0, count_states(self->fd, ptr, self->npages,
					  HMM_DEVMEM_TEST_PROT_PMD));
		EXPECT_EQ(0, wrong(ptr, 50 + way, self->npages));
		EXPECT_EQ(0, madvise(ptr, self->npages * PAGE, MADV_DONTNEED));
	}
	EXPECT_EQ(0, device_plug(self->ctl));
	EXPECT_LT(0, khugepaged_sleeps(sleep));
}

/* Free memory, MiB. */
static long mem_free(void)
{
	const long kib = number_of(file_read("/proc/meminfo"), "MemFree:");

	return (kib + memory_of_cpus() * (PAGE / 1024)) / 1024;
}

#define DROP_ROUNDS	40

/*
 * C6. Verifies that those of many small runs that fail leak no memory, neither at
 * the destination nor at the source, and that they are not confused with the others.
 */
TEST_F(devmem, failed_copies_leave_no_destination)
{
	char *ptr = area_filled(HUGE_PAGES, false, 60);
	unsigned int failed;
	long before = 0;
	unsigned long i;
	int round;

	for (round = 0; round < DROP_ROUNDS; round++) {
		/* Neighbours in memory are not neighbours on the device: many runs */
		for (i = 0; i < HUGE_PAGES; i += 64)
			ASSERT_EQ(32, to_device(self->fd, ptr + i * PAGE, 32));
		ASSERT_EQ(HUGE_PAGES, to_device(self->fd, ptr, HUGE_PAGES));
		failed = 30 + round % 60;
		ASSERT_EQ(0, device_inject(self->fd,
					   HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,
					   round % 5, failed));
		i = to_ram(self->fd, ptr, HUGE_PAGES);
		EXPECT_GT(HUGE_PAGES, i);
		EXPECT_EQ(HUGE_PAGES - i, device_used(self->ctl));
		EXPECT_EQ(HUGE_PAGES - i, resident(self->fd, ptr, HUGE_PAGES));
		ASSERT_EQ(0, device_inject(self->fd,
					   HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN,
					   round % 3, failed));
		i = to_device(self->fd, ptr, HUGE_PAGES);
		EXPECT_EQ(i, device_used(self->ctl));
		EXPECT_EQ(i, resident(self->fd, ptr, HUGE_PAGES));
		ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE,
					   0, 0));
		ASSERT_EQ(0, device_evict_all(self->fd));
		ASSERT_EQ(0, wrong(ptr, 60, HUGE_PAGES));
		if (round == DROP_ROUNDS / 4)
			before = mem_free();
	}
	EXPECT_LT(DROP_ROUNDS * 60, SINCE(copy_errors));
	EXPECT_GT(8, before - mem_free());
}

TEST_HARNESS_MAIN
