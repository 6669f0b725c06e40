// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that was never touched: which of it gets device pages, and which must not.
 *
 * ==== ==========================================================================
 * D1   drm_pagemap counts a huge hole as one page, and fails because of that
 * C2   core wants all pages of a huge hole, and crashes if it gets fewer
 * C3   core collects only the first part of a hole that is larger than a PMD
 * ==== ==========================================================================
 */
#include "fixture.h"
#include "files.h"
#include "uffd.h"

#include <pthread.h>

/*
 * Verifies that a zero page that userfaultfd has write protected does not move, and
 * the next write is reported: a device page in its place would not be protected.
 */
TEST_F(devmem, zero_pages_keep_their_write_protection)
{
	char *ptr = area_map(self->npages, variant->thp);
	struct uffd uffd;
	unsigned long i;

	/* Reading maps the zero page, small or huge */
	touch(ptr, self->npages);
	if (uffd_open(&uffd, ptr, self->npages, UFFDIO_REGISTER_MODE_WP) == -EPERM)
		SKIP(return, "no userfaultfd");
	ASSERT_LE(0, uffd.fd);
	ASSERT_EQ(0, uffd_protect(&uffd, ptr, self->npages, true));
	ASSERT_EQ(0, uffd_start(&uffd));
	EXPECT_EQ(0, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
	for (i = 0; i < self->npages; i++)
		write_word(ptr + i * PAGE, i + 1);
	EXPECT_EQ(self->npages, uffd.wp);
	EXPECT_EQ(0, uffd_stop(&uffd));
	for (i = 0; i < self->npages; i++)
		ASSERT_EQ(i + 1, read_word(ptr + i * PAGE));
	/* It is no hole any more, and userfaultfd does not watch it any more */
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
}

/* Verifies this for the classic driver, which migrates by itself. */
TEST(classic_zero_pages_keep_their_write_protection)
{
	int fd = device_open(CLASSIC);
	char *ptr = area_map(4, false);
	struct uffd uffd;
	int i;

	ASSERT_LE(0, fd);
	touch(ptr, 4);
	if (uffd_open(&uffd, ptr, 4, UFFDIO_REGISTER_MODE_WP) == -EPERM)
		SKIP(return, "no userfaultfd");
	ASSERT_LE(0, uffd.fd);
	ASSERT_EQ(0, uffd_protect(&uffd, ptr, 4, true));
	ASSERT_EQ(0, uffd_start(&uffd));
	EXPECT_EQ(0, to_device(fd, ptr, 4));
	for (i = 0; i < 4; i++)
		write_word(ptr + i * PAGE, i + 1);
	EXPECT_EQ(4, uffd.wp);
	EXPECT_EQ(0, uffd_stop(&uffd));
	/* They are no holes any more, and userfaultfd does not watch them any more */
	EXPECT_EQ(4, all_moved(fd, ptr, 4));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(i + 1, read_word(ptr + i * PAGE));
	areas_unmap();
	close(fd);
}

/* Verifies that missing pages do not move where userfaultfd has to provide them. */
TEST_F(devmem, missing_pages_are_asked_for)
{
	char *ptr = area_map(self->npages, variant->thp);
	struct uffd uffd;

	if (uffd_open(&uffd, ptr, self->npages, UFFDIO_REGISTER_MODE_MISSING) ==
	    -EPERM)
		SKIP(return, "no userfaultfd");
	ASSERT_LE(0, uffd.fd);
	uffd.seed = 3;
	ASSERT_EQ(0, uffd_start(&uffd));
	EXPECT_EQ(0, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, SINCE(allocated));
	EXPECT_EQ(0, wrong(ptr, 3, self->npages));
	EXPECT_EQ(self->npages, uffd.missing);
	EXPECT_EQ(0, uffd_stop(&uffd));
}

/*
 * Verifies that in a mapping without access holes get no device pages, that pages
 * move, and that these can be evicted while the mapping still has no access.
 */
TEST_F(devmem, no_access_fills_no_holes)
{
	char *ptr = area_map(self->npages, variant->thp);
	const unsigned long there = HUGE_PAGES;

	fill(ptr, 4, there);
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_NONE));
	EXPECT_EQ(there, moved_soon(self->fd, ptr, self->npages, there));
	EXPECT_EQ(there, device_used(self->ctl));
	EXPECT_EQ(0, to_device(self->fd, ptr + there * PAGE,
			       self->npages - there));
	EXPECT_EQ(there, moved_soon(self->fd, ptr, self->npages, there));
	EXPECT_EQ(SIGSEGV, access_signal(ptr, false));
	/* Evict, since TO_RAM of the test device refuses a range without access */
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(SIGSEGV, access_signal(ptr, false));
	EXPECT_EQ(0, device_used(self->ctl));

	EXPECT_EQ(there, moved_soon(self->fd, ptr, self->npages, there));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, wrong(ptr, 4, there));
	EXPECT_EQ(0, not_zero(ptr + there * PAGE, self->npages - there));
	/* With access, holes are filled */
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
}

/*
 * Verifies that the device cannot access pages that moved while their mapping had no
 * access, until it has.
 */
TEST_F(devmem, no_access_for_the_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	char *data = area_map(self->npages, false);

	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_NONE));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(-EFAULT, device_read(self->fd, ptr, data, 1));
	EXPECT_EQ(-EFAULT, device_read(self->fd, ptr + HUGE, data, 1));
	EXPECT_EQ(-EFAULT, device_write(self->fd, ptr, data, 1));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ | PROT_WRITE));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 5, self->npages));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
}

/* Verifies that a reservation of address space gets no device pages. */
TEST_F(devmem, reservations_get_nothing)
{
	const size_t size = 16 * HUGE;
	char *ptr;

	ptr = mmap(NULL, size, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	area_remember(ptr, size);
	EXPECT_EQ(0, to_device(self->fd, ptr, size / PAGE));
	EXPECT_EQ(0, SINCE(allocated));
}

/* D1. Verifies that a huge hole moves, and counts as all of its pages. */
TEST_F(devmem, huge_hole_counts_all_pages)
{
	char *ptr = area_map(HUGE_PAGES, variant->thp);

	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
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
	ASSERT_EQ(size - room, all_moved(self->fd, ptr, size - room));
	ASSERT_EQ(room, moved_soon(self->fd, hole, HUGE_PAGES, room));
	EXPECT_EQ(room, resident(self->fd, hole, HUGE_PAGES));
	EXPECT_EQ(size, device_used(self->ctl));
	EXPECT_EQ(0, not_zero(hole, HUGE_PAGES));

	ASSERT_EQ(0, madvise(hole, HUGE, MADV_DONTNEED));
	for (i = 0; i < HUGE_PAGES - room; i++)
		ASSERT_EQ(0, madvise(ptr + 7 * i * PAGE, PAGE, MADV_DONTNEED));
	ASSERT_EQ(size - HUGE_PAGES, device_used(self->ctl));
	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, hole, HUGE_PAGES));
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
	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	EXPECT_EQ(npages, resident(self->fd, ptr, npages));
	EXPECT_EQ(npages, device_used(self->ctl));
	ASSERT_EQ(npages, device_read(self->fd, ptr, data, npages));
	EXPECT_EQ(0, not_zero(data, npages));
	EXPECT_EQ(0, not_zero(ptr - HUGE, npages + 2 * HUGE_PAGES));
}

#define THP_ENABLED	"/sys/kernel/mm/transparent_hugepage/enabled"

struct migrate_thread {
	int fd;
	char *ptr;
	unsigned long npages;
	int ret;
	struct hmm_devmem_test_migrate migrate;
};

static void *migrate_thread(void *arg)
{
	struct migrate_thread *thread = arg;

	thread->ret = device_migrate(thread->fd, thread->ptr, thread->npages,
				     &thread->migrate);
	return NULL;
}

/*
 * Verifies that a page which the process touches while the huge hole around it is being
 * filled keeps only itself out, neither the rest of that hole nor later ones.
 */
TEST_F(devmem, touched_page_keeps_only_itself_out)
{
	struct migrate_thread thread = { .fd = self->fd, .npages = 4 * HUGE_PAGES };
	pthread_t id;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 400000));
	thread.ptr = area_map(thread.npages, variant->thp);
	ASSERT_EQ(0, pthread_create(&id, NULL, migrate_thread, &thread));
	EXPECT_TRUE(soon(device_stats(self->ctl).copying || SINCE(to_device)));
	/* As if there was no huge page for it */
	EXPECT_TRUE(file_write(THP_ENABLED, "never"));
	write_word(thread.ptr + PAGE, 1);
	EXPECT_TRUE(file_write(THP_ENABLED, "madvise"));
	ASSERT_EQ(0, pthread_join(id, NULL));
	ASSERT_EQ(0, thread.ret);
	EXPECT_LE(thread.npages - 1, thread.migrate.moved);
	EXPECT_EQ(0, thread.migrate.no_memory);
	EXPECT_EQ(thread.npages, migrate_sum(&thread.migrate));
	EXPECT_EQ(1, read_word(thread.ptr + PAGE));
	EXPECT_EQ(0, not_zero(thread.ptr + 2 * PAGE, thread.npages - 2));
}

TEST_HARNESS_MAIN
