// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of a process's memory to the test device and back: the bytes must be
 * right, and exactly the pages that the test asked for must move.
 */
#include "fixture.h"

#include <sys/uio.h>

/* Verifies that one call moves all pages of a range to the device, with their data. */
TEST_F(devmem, to_device)
{
	char *ptr = NULL, *data = NULL;
	long ret = 0;
	int tries;

	/* A page to which a task of the kernel's has a reference stays: then move other ones */
	for (tries = 0; tries < 10 && ret != (long)self->npages; tries++) {
		areas_unmap();
		self->before = device_stats(self->ctl);
		ptr = area_filled(self->npages, variant->thp, 1);
		data = area_map(self->npages, false);
		ret = device_pages(self->fd, HMM_DEVMEM_TEST_TO_DEVICE, ptr, data,
				   self->npages);
	}
	ASSERT_EQ(self->npages, ret);
	EXPECT_EQ(0, wrong(data, 1, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, SINCE(to_device));
	EXPECT_EQ(self->npages, device_used(self->ctl));
	EXPECT_EQ(0, SINCE(to_ram));
	EXPECT_EQ(0, SINCE(copy_errors));
}

/* Verifies that the device reads pages that are on it without moving them. */
TEST_F(devmem, read_on_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	char *data = area_map(self->npages, false);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 2, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, SINCE(to_ram));
}

/* Verifies that the kernel's page map shows the pages as device pages. */
TEST_F(devmem, pagemap)
{
	char *ptr = area_filled(self->npages, variant->thp, 3);
	__u64 bit = variant->coherent ? PAGEMAP_PRESENT : PAGEMAP_SWAP;

	ASSERT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages, bit));
	EXPECT_EQ(variant->coherent ? self->npages : 0,
		  pagemap_count(ptr, self->npages, PAGEMAP_PRESENT));
}

/*
 * Verifies that the CPU reads the right bytes: private memory by CPU faults that
 * bring the pages back, coherent memory in place.
 */
TEST_F(devmem, cpu_read)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);
	long back = variant->coherent ? 0 : self->npages;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
	EXPECT_EQ(self->npages - back, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages - back, device_used(self->ctl));
	EXPECT_EQ(back, SINCE(to_ram));
	EXPECT_EQ(back, SINCE(fault_pages));
	EXPECT_EQ(0, SINCE(evicted));
	EXPECT_EQ(variant->coherent, SINCE(faults) == 0);
}

/* Verifies that a CPU write to a device page arrives and the rest stays as it was. */
TEST_F(devmem, cpu_write)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	char *data = area_map(self->npages, false);
	unsigned long i;
	char *page;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (i = 0; i < self->npages; i++)
		write_word(ptr + i * PAGE, i);
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	for (i = 0; i < self->npages; i++) {
		page = data + i * PAGE;
		ASSERT_EQ(i, read_word(page));
		write_word(page, pattern_word(5, i * WORDS));
	}
	EXPECT_EQ(0, wrong(data, 5, self->npages));
}

/* Verifies that what the device writes to its pages is what the CPU reads. */
TEST_F(devmem, device_write)
{
	char *ptr = area_filled(self->npages, variant->thp, 6);
	char *data = area_filled(self->npages, false, 7);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_write(self->fd, ptr, data, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));
}

/* Verifies that the driver can bring pages back without any CPU access. */
TEST_F(devmem, to_ram)
{
	char *ptr = area_filled(self->npages, variant->thp, 8);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(self->npages, SINCE(to_ram));
	EXPECT_EQ(0, SINCE(faults));
	EXPECT_EQ(0, wrong(ptr, 8, self->npages));
	EXPECT_EQ(0, to_ram(self->fd, ptr, self->npages));
}

/* Verifies that a range moves, and nothing around it, however it is aligned. */
TEST_F(devmem, ranges)
{
	static const struct {
		unsigned long first, npages;
	} ranges[] = {
		{ 0, 1 }, { 3, 7 }, { 511, 2 }, { 100, 600 }, { 512, 512 },
		{ 1023, 1 }, { 1000, 280 }, { 1, 1279 },
	};
	unsigned long first, n, i;
	char *ptr;

	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		first = ranges[i].first;
		n = ranges[i].npages;
		ptr = area_filled(self->npages, variant->thp, 10 + i);
		ASSERT_EQ(n, all_moved(self->fd, ptr + first * PAGE, n));
		EXPECT_EQ(n, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(n, resident(self->fd, ptr + first * PAGE, n));
		EXPECT_EQ(n, device_used(self->ctl));
		EXPECT_EQ(0, wrong(ptr, 10 + i, self->npages));
		areas_unmap();
		EXPECT_EQ(0, device_used(self->ctl));
	}
}

/* Verifies that a part of the pages on the device can be brought back. */
TEST_F(devmem, part_back)
{
	char *ptr = area_filled(self->npages, variant->thp, 20);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(300, to_ram(self->fd, ptr + 400 * PAGE, 300));
	EXPECT_EQ(self->npages - 300, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, resident(self->fd, ptr + 400 * PAGE, 300));
	EXPECT_EQ(self->npages - 300, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 20, self->npages));
}

/* Verifies that pages on the device already are counted, but not moved again. */
TEST_F(devmem, already_there)
{
	char *ptr = area_filled(self->npages, variant->thp, 21);

	ASSERT_EQ(700, all_moved(self->fd, ptr, 700));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, SINCE(to_device));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, SINCE(to_device));
	EXPECT_EQ(self->npages, device_used(self->ctl));
	EXPECT_EQ(0, SINCE(to_ram));
	EXPECT_EQ(0, wrong(ptr, 21, self->npages));
}

/*
 * Verifies that memory never touched reads as zeros on the device, also where
 * the device pages held other data before.
 */
TEST_F(devmem, holes)
{
	char *ptr = area_filled(self->npages, variant->thp, 22);
	char *data = area_filled(self->npages, false, 23);
	char *hole;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
	ASSERT_EQ(0, device_used(self->ctl));

	hole = area_map(self->npages, variant->thp);
	ASSERT_EQ(self->npages, all_moved(self->fd, hole, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, hole, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, hole, data, self->npages));
	EXPECT_EQ(0, not_zero(data, self->npages));
	EXPECT_EQ(0, not_zero(hole, self->npages));
}

/* Verifies that memory which maps the zero page reads as zeros on the device. */
TEST_F(devmem, zero_page)
{
	char *data = area_filled(self->npages, false, 24);
	char *ptr = area_map(self->npages, variant->thp);

	touch(ptr, self->npages);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, not_zero(data, self->npages));
	ptr[PAGE] = 1;
	EXPECT_EQ(1, not_zero(ptr, self->npages));
}

/* Verifies migration of a mixture of pages, holes and zero pages. */
TEST_F(devmem, sparse)
{
	char *ptr = area_map(self->npages, false);
	char *data = area_filled(self->npages, false, 25);
	unsigned long i;

	for (i = 0; i < self->npages; i += 3)
		fill_from(ptr + i * PAGE, 26, i, 1);
	for (i = 1; i < self->npages; i += 3)
		touch(ptr + i * PAGE, 1);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	for (i = 0; i < self->npages; i++) {
		if (i % 3) {
			ASSERT_EQ(0, not_zero(data + i * PAGE, 1));
			ASSERT_EQ(0, not_zero(ptr + i * PAGE, 1));
		} else {
			ASSERT_EQ(0, wrong_from(data + i * PAGE, 26, i, 1));
			ASSERT_EQ(0, wrong_from(ptr + i * PAGE, 26, i, 1));
		}
	}
}

/*
 * Verifies that MADV_DONTNEED on device pages frees them and that the device
 * then reads zeros, not the old content.
 */
TEST_F(devmem, dontneed)
{
	char *ptr = area_filled(self->npages, variant->thp, 27);
	char *data = area_filled(self->npages, false, 28);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, madvise(ptr, self->npages * PAGE, MADV_DONTNEED));
	EXPECT_EQ(0, device_used(self->ctl));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, not_zero(data, self->npages));
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/* Verifies that unmapping memory frees its device pages at once. */
TEST_F(devmem, munmap)
{
	char *ptr = area_filled(self->npages, variant->thp, 29);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, munmap(ptr + 300 * PAGE, 500 * PAGE));
	EXPECT_EQ(self->npages - 500,
		  resident(self->fd, ptr, 300) +
		  resident(self->fd, ptr + 800 * PAGE, self->npages - 800));
	EXPECT_EQ(0, wrong(ptr, 29, 300));
	EXPECT_EQ(0, wrong_from(ptr + 800 * PAGE, 29, 800, self->npages - 800));
	ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
	EXPECT_EQ(0, device_used(self->ctl));
}

/* Verifies that a read-only mapping moves with its data and stays read-only. */
TEST_F(devmem, read_only)
{
	char *ptr = area_filled(self->npages, variant->thp, 30);
	char *data = area_filled(self->npages, false, 31);

	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(-EPERM, device_write(self->fd, ptr, data, self->npages));
	EXPECT_EQ(SIGSEGV, access_signal(ptr, true));
	EXPECT_EQ(0, wrong(ptr, 30, self->npages));
	EXPECT_EQ(SIGSEGV, access_signal(ptr + PAGE, true));
}

/* Verifies that permissions can change while the pages are on the device. */
TEST_F(devmem, mprotect)
{
	char *ptr = area_filled(self->npages, variant->thp, 32);
	char *data = area_filled(self->npages, false, 33);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ));
	EXPECT_EQ(-EPERM, device_write(self->fd, ptr, data, self->npages));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_NONE));
	EXPECT_EQ(SIGSEGV, access_signal(ptr, false));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_write(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(ptr, 33, self->npages));
}

/* Pages next to a huge page, and how many of those are not invalidated */
#define EDGE_PAGES	64UL
#define KEPT_PAGES	(EDGE_PAGES - 3)

/* Page faults that the device takes to read a range, or -1 if the data is wrong. */
static long read_faults(int fd, const char *ptr, unsigned long first, char *data)
{
	struct hmm_devmem_test_cmd cmd;

	if (device_cmd(fd, HMM_DEVMEM_TEST_READ, ptr + first * PAGE, data,
		       KEPT_PAGES, &cmd) ||
	    wrong_from(data, 14, first, KEPT_PAGES))
		return -1;
	return cmd.faults;
}

/*
 * Verifies that the device drops its entries of what is invalidated and of nothing
 * next to it: a whole huge page, and a few small pages before and after it. All are
 * in one mapping: to split a mapping would invalidate more, and core makes no huge
 * pages at its edges.
 */
TEST_F(devmem, invalidation_leaves_the_neighbours)
{
	const unsigned long npages = HUGE_PAGES + 2 * EDGE_PAGES;
	const unsigned long after = npages - KEPT_PAGES;
	char *area = area_map(3 * HUGE_PAGES, variant->thp);
	char *ptr = area + HUGE - EDGE_PAGES * PAGE;
	char *data = area_map(npages, false);

	munmap(area, ptr - area);
	munmap(ptr + npages * PAGE, ptr - area);
	fill(ptr, 14, npages);
	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	ASSERT_LE(0, read_faults(self->fd, ptr, 0, data));
	ASSERT_LE(0, read_faults(self->fd, ptr, after, data));
	ASSERT_EQ(0, madvise(ptr + KEPT_PAGES * PAGE, (after - KEPT_PAGES) * PAGE,
			     MADV_DONTNEED));

	EXPECT_EQ(0, read_faults(self->fd, ptr, 0, data));
	EXPECT_EQ(0, read_faults(self->fd, ptr, after, data));
	ASSERT_EQ(after - KEPT_PAGES,
		  device_read(self->fd, ptr + KEPT_PAGES * PAGE, data,
			      after - KEPT_PAGES));
	EXPECT_EQ(0, not_zero(data, after - KEPT_PAGES));
}

/* Verifies that the device finds pages where mremap() has moved them to. */
TEST_F(devmem, mremap)
{
	char *ptr = area_filled(self->npages, variant->thp, 34);
	/* Not aligned in the same way: huge pages have to be split */
	char *target = area_map(self->npages + 1, false) + PAGE;
	char *data = area_map(self->npages, false);
	char *moved;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	moved = mremap(ptr, self->npages * PAGE, self->npages * PAGE,
		       MREMAP_MAYMOVE | MREMAP_FIXED, target);
	ASSERT_EQ(moved, target);
	EXPECT_EQ(self->npages, device_used(self->ctl));
	EXPECT_EQ(self->npages, resident(self->fd, moved, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, moved, data, self->npages));
	EXPECT_EQ(0, wrong(data, 34, self->npages));
	EXPECT_EQ(0, wrong(moved, 34, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, moved, self->npages));
	EXPECT_EQ(0, wrong(moved, 34, self->npages));
}

/* Verifies this for a mapping that mremap() moves as whole huge pages. */
TEST_F(devmem, mremap_aligned)
{
	char *ptr = area_filled(self->npages, variant->thp, 35);
	char *target = area_map(self->npages, variant->thp);
	char *moved;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	moved = mremap(ptr, self->npages * PAGE, self->npages * PAGE,
		       MREMAP_MAYMOVE | MREMAP_FIXED, target);
	ASSERT_EQ(moved, target);
	EXPECT_EQ(self->npages, resident(self->fd, moved, self->npages));
	EXPECT_EQ(0, wrong(moved, 35, self->npages));
	EXPECT_EQ(SIGSEGV, access_signal(ptr, false));
}

/* Verifies that memory can move to the device and back many times without leaks. */
TEST_F(devmem, rounds)
{
	char *ptr = area_filled(self->npages, variant->thp, 36);
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		if (i % 2)
			touch(ptr, self->npages);
		ASSERT_EQ(i % 2 && !variant->coherent ? 0 : self->npages,
			  to_ram(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_used(self->ctl));
	}
	EXPECT_EQ(0, wrong(ptr, 36, self->npages));
	EXPECT_EQ(10 * self->npages, SINCE(to_device));
	EXPECT_EQ(10 * self->npages, SINCE(to_ram));
}

/*
 * Verifies that the same memory can be on two devices in turns, and that a device
 * does not take the other one's pages for its own.
 */
TEST_F(devmem, two_devices)
{
	char *ptr = area_filled(self->npages, variant->thp, 37);
	char *data = area_map(self->npages, false);
	int fd[2] = { self->fd, device_open(variant->peer) };
	int i, here, there;

	if (fd[1] == -ENOENT)
		SKIP(return, "no device %d", variant->peer);
	ASSERT_GE(fd[1], 0);
	for (i = 0; i < 6; i++) {
		here = fd[i % 2];
		there = fd[(i + 1) % 2];
		ASSERT_EQ(self->npages, all_moved(here, ptr, self->npages));
		ASSERT_EQ(self->npages, resident(here, ptr, self->npages));
		ASSERT_EQ(0, resident(there, ptr, self->npages));
		ASSERT_EQ(self->npages,
			  device_read(there, ptr, data, self->npages));
		ASSERT_EQ(0, wrong(data, 37, self->npages));
		ASSERT_EQ(variant->coherent ? self->npages : 0,
			  to_ram(here, ptr, self->npages));
		ASSERT_EQ(0, device_used(here));
	}
	EXPECT_EQ(0, device_used(fd[1]));
	EXPECT_EQ(0, wrong(ptr, 37, self->npages));
	close(fd[1]);
}

/* Verifies that of a private file mapping only the process's own copies move. */
TEST_F(devmem, private_file)
{
	char *data = area_filled(self->npages, false, 38);
	char *ptr;
	int file;

	file = memfd_create("hmm_devmem", MFD_CLOEXEC);
	ASSERT_LE(0, file);
	ASSERT_EQ(self->npages * PAGE, write(file, data, self->npages * PAGE));
	ptr = mmap(NULL, self->npages * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE, file, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	area_remember(ptr, self->npages * PAGE);
	fill(ptr, 39, 64);
	touch(ptr, self->npages);
	ASSERT_EQ(64, moved_soon(self->fd, ptr, self->npages, 64));
	EXPECT_EQ(64, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 39, 64));
	EXPECT_EQ(0, wrong_from(ptr + 64 * PAGE, 38, 64, self->npages - 64));
	close(file);
}

/* Verifies that shared memory does not move and keeps its data. */
TEST_F(devmem, shared)
{
	char *ptr;

	ptr = mmap(NULL, self->npages * PAGE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	area_remember(ptr, self->npages * PAGE);
	fill(ptr, 40, self->npages);
	EXPECT_EQ(0, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 40, self->npages));
}

/*
 * Verifies that a page which is pinned stays in system memory and the others move,
 * and that data that is written through the pin later is not lost.
 */
TEST_F(devmem, pinned)
{
	char *ptr = area_filled(self->npages, variant->thp, 41);
	/* Of a huge page, all pages stay if one is pinned */
	long stay = variant->thp ? HUGE_PAGES : 1;
	struct iovec iov = { ptr + 5 * PAGE, PAGE };
	__u64 data[WORDS];
	int pipefd[2];
	size_t i;

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(PAGE, vmsplice(pipefd[1], &iov, 1, 0));
	ASSERT_EQ(self->npages - stay,
		  to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages - stay, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages - stay, device_used(self->ctl));
	EXPECT_EQ(0, resident(self->fd, ptr + 5 * PAGE, 1));
	write_word(ptr + 5 * PAGE, 12345);
	ASSERT_EQ(PAGE, read(pipefd[0], data, PAGE));
	EXPECT_EQ(12345, data[0]);
	for (i = 1; i < WORDS; i++)
		ASSERT_EQ(pattern_word(41, 5 * WORDS + i), data[i]);
	close(pipefd[0]);
	close(pipefd[1]);
	/* The pin is gone */
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
}

/* Verifies that the kernel can read device pages, as a write() from them does. */
TEST_F(devmem, kernel_access)
{
	char *ptr = area_filled(16, false, 42);
	char *data = area_map(16, false);
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(16, all_moved(self->fd, ptr, 16));
	ASSERT_EQ(16 * PAGE, write(pipefd[1], ptr, 16 * PAGE));
	ASSERT_EQ(16, all_moved(self->fd, data, 16));
	ASSERT_EQ(16 * PAGE, read(pipefd[0], data, 16 * PAGE));
	EXPECT_EQ(0, wrong(data, 42, 16));
	close(pipefd[0]);
	close(pipefd[1]);
}

/* Verifies that arguments that make no sense are refused and change nothing. */
TEST_F(devmem, bad_arguments)
{
	char *ptr = area_filled(self->npages, false, 43);
	static const unsigned long requests[] = {
		HMM_DEVMEM_TEST_READ, HMM_DEVMEM_TEST_WRITE,
		HMM_DEVMEM_TEST_TO_DEVICE, HMM_DEVMEM_TEST_TO_DEVICE_ONLY,
		HMM_DEVMEM_TEST_TO_RAM, HMM_DEVMEM_TEST_SNAPSHOT,
	};
	struct hmm_devmem_test_cmd cmd;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(requests); i++) {
		/* Not a page's address; no pages; ends beyond all addresses */
		EXPECT_EQ(-EINVAL, device_cmd(self->fd, requests[i], ptr + 1,
					      ptr, 1, &cmd));
		EXPECT_EQ(-EINVAL, device_cmd(self->fd, requests[i], ptr, ptr,
					      0, &cmd));
		EXPECT_EQ(-EINVAL, device_cmd(self->fd, requests[i], ptr, ptr,
					      ~0UL, &cmd));
		EXPECT_EQ(-EINVAL, device_cmd(self->fd, requests[i], ptr, ptr,
					      1UL << 52, &cmd));
		EXPECT_EQ(-EINVAL, device_cmd(self->fd, requests[i], ptr, ptr,
					      (1UL << 52) + 1, &cmd));
		EXPECT_EQ(-EFAULT, device_ioctl(self->fd, requests[i],
						(void *)8));
	}
	EXPECT_NE(0, device_ioctl(self->fd, _IO('H', 0x7f), NULL));
	EXPECT_EQ(-EINVAL, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_MAX,
					 0, 0));
	EXPECT_GT(0, device_evict(self->fd, ~0UL, 2));
	EXPECT_GT(0, device_evict(self->fd, self->before.size, 1));
	EXPECT_GT(0, device_evict(self->fd, 1, ~0UL));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 43, self->npages));
}

/* Verifies that gaps are passed over, and that a range without mappings is refused. */
TEST_F(devmem, gaps)
{
	char *ptr = area_filled(64, false, 44);
	char *data = area_map(64, false);

	ASSERT_EQ(0, munmap(ptr + 16 * PAGE, 8 * PAGE));
	EXPECT_EQ(-EINVAL, to_device(self->fd, ptr + 16 * PAGE, 8));
	/* TO_DEVICE reads the data back, so all of the range must be mapped */
	EXPECT_EQ(-EINVAL, device_pages(self->fd, HMM_DEVMEM_TEST_TO_DEVICE,
					ptr, data, 64));
	EXPECT_EQ(-EINVAL, to_ram(self->fd, ptr, 64));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(56, moved_soon(self->fd, ptr, 64, 56));
	EXPECT_EQ(56, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 44, 16));
	EXPECT_EQ(0, wrong_from(ptr + 24 * PAGE, 44, 24, 40));
}

/* Verifies that pages the process may not access at the moment keep their data. */
TEST_F(devmem, prot_none)
{
	char *ptr = area_filled(self->npages, variant->thp, 45);

	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_NONE));
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(SIGSEGV, access_signal(ptr, false));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ));
	EXPECT_EQ(0, wrong(ptr, 45, self->npages));
}

/* Verifies that pages that a driver has mapped, which are not anonymous, stay. */
TEST_F(devmem, device_mapping)
{
	char *ptr;

	ptr = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
		   self->fd, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	area_remember(ptr, 8 * PAGE);
	EXPECT_EQ(0, to_device(self->fd, ptr, 8));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, not_zero(ptr, 8));
}

TEST_HARNESS_MAIN
