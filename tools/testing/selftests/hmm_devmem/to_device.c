// SPDX-License-Identifier: GPL-2.0
/*
 * Migration to the device: which pages count as moved, and what the device finds in
 * its memory. Drivers in the kernel make the mistakes that these tests look for:
 *
 * ==== ==========================================================================
 * N9   nouveau: never maps pages that have moved: the device faults on all of them
 * N10  nouveau: maps pages on the device that core has not moved in the end
 * K3   amdkfd: does not clear device memory that is used again
 * D9   drm_pagemap: one page that cannot move keeps all others from moving
 * U4   powerpc: reports pages as moved that have not moved
 * ==== ==========================================================================
 */
#include "fixture.h"
#include "uffd.h"

#include <sys/uio.h>

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
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
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
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
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
	ASSERT_EQ(npages - stay, moved_soon(self->fd, ptr, npages, npages - stay));
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
	ASSERT_EQ(size, all_moved(self->fd, ptr, size));
	ASSERT_EQ(0, madvise(ptr + HUGE, nr * PAGE, MADV_DONTNEED));
	ASSERT_EQ(nr, all_moved(self->fd, ptr + HUGE, nr));
	ASSERT_EQ(size, device_used(self->ctl));
	ASSERT_EQ(nr, device_read(self->fd, ptr + HUGE, data, nr));
	EXPECT_EQ(0, not_zero(data, nr));
	EXPECT_EQ(0, not_zero(ptr + HUGE, nr));
	EXPECT_EQ(0, misnumbered(ptr, HUGE_PAGES));
}

TEST_HARNESS_MAIN
