// SPDX-License-Identifier: GPL-2.0
/*
 * Why pages are not on the device after a migration: each reason is made to happen, and
 * the reasons add up to the pages that are left.
 */
#include "fixture.h"
#include "alloc_fail.h"
#include "shared.h"
#include "uffd.h"

#include <sys/uio.h>

/* What a migration is expected to return: 0 for the reasons that are not named. */
#define EXPECT_RESULT(migrate, ...) do {				\
	const struct hmm_devmem_test_migrate _want = { __VA_ARGS__ };	\
	const struct hmm_devmem_test_migrate *_got = (migrate);		\
									\
	EXPECT_EQ(_want.moved, _got->moved);				\
	EXPECT_EQ(_want.busy, _got->busy);				\
	EXPECT_EQ(_want.no_device_memory, _got->no_device_memory);	\
	EXPECT_EQ(_want.no_memory, _got->no_memory);			\
	EXPECT_EQ(_want.not_copied, _got->not_copied);			\
	EXPECT_EQ(_want.not_suitable, _got->not_suitable);		\
	EXPECT_EQ(_got->npages, migrate_sum(_got));			\
} while (0)

/* Verifies that there is no reason if all pages move, or are on the device already. */
TEST_F(devmem, all_move)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	struct hmm_devmem_test_migrate migrate;
	int round;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (round = 0; round < 2; round++) {
		ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
		EXPECT_RESULT(&migrate, .moved = self->npages);
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(0, wrong(ptr, 1, self->npages / 2));
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	}
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
}

/* Verifies that copy and copy_wait, but no other migration's, get the request's priv. */
TEST_F(devmem, callbacks_get_priv)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	struct hmm_devmem_test_migrate migrate;

	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_LT(0, SINCE(copies));
	EXPECT_EQ(2 * SINCE(copies), migrate.callbacks);
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_EQ(0, migrate.callbacks);
}

/* Verifies that a pinned page is busy; of a huge page, all of it. */
TEST_F(devmem, pinned_is_busy)
{
	const long stay = variant->thp ? HUGE_PAGES : 1;
	char *ptr = area_filled(self->npages, variant->thp, 3);
	struct iovec iov = { ptr + 5 * PAGE, PAGE };
	struct hmm_devmem_test_migrate migrate;
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(PAGE, vmsplice(pipefd[1], &iov, 1, 0));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .moved = self->npages - stay, .busy = stay);
	close(pipefd[0]);
	close(pipefd[1]);
	EXPECT_EQ(0, wrong(ptr, 3, self->npages));
}

/* Verifies that pages which the device has no room for are told from others. */
TEST_F(devmem, full_device_has_no_memory)
{
	struct hmm_devmem_test_migrate migrate;
	unsigned long size, rest = HUGE_PAGES;
	char *ptr;

	SMALL_DEVICE();
	size = self->before.size;
	ptr = area_numbered(size + rest, variant->thp);
	ASSERT_EQ(0, device_migrate(self->fd, ptr, size + rest, &migrate));
	EXPECT_RESULT(&migrate, .moved = size, .no_device_memory = rest);
	/* It is full from the start */
	ASSERT_EQ(0, device_migrate(self->fd, ptr + size * PAGE, rest, &migrate));
	EXPECT_RESULT(&migrate, .no_device_memory = rest);
	EXPECT_EQ(0, migrate.callbacks);
	EXPECT_EQ(0, misnumbered(ptr, size + rest));
}

/* Verifies this for the library's own failure to allocate device memory. */
TEST_F(devmem, injected_want_of_device_memory)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);
	struct hmm_devmem_test_migrate migrate;

	ASSERT_TRUE(fail_attr("fail_device", 100, -1));
	ASSERT_TRUE(fail_attr("fail_device_large", 100, -1));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .no_device_memory = self->npages);
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
}

/* Verifies that blocks which the driver does not lend are no device memory. */
TEST_F(devmem, blocks_that_are_not_lent)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	struct hmm_devmem_test_migrate migrate;
	long id = 0;

	self->replug = true;
	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_EQ(0, device_plug_shared(self->ctl, variant->coherent ? 0 : 8 * HUGE, 0, 0));
	/* Coherent memory cannot have buffers */
	if (!variant->coherent)
		id = buffer_alloc(self->ctl, device_owners(self->ctl).nr_blocks);
	ASSERT_LE(0, id);
	ASSERT_TRUE(!variant->coherent || fail_attr("fail_blocks", 100, -1));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .no_device_memory = self->npages);
	if (!variant->coherent)
		ASSERT_EQ(0, buffer_free(self->ctl, id));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
}

/*
 * Verifies that want of memory for what describes device memory is the kernel's; but
 * that of a device that is shared with buffers has no device memory.
 */
TEST_F(devmem, no_memory_for_struct_pages)
{
	char *ptr = area_filled(self->npages, variant->thp, 6);
	struct hmm_devmem_test_migrate migrate;
	bool began;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_LAZY, 0));
	began = alloc_fail_begin("hmm_devmem_pool_populate");
	EXPECT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	ASSERT_TRUE(alloc_fail_end() && began);
	/* A device that was told to be shared by the module's parameter is */
	if (migrate.no_memory)
		EXPECT_RESULT(&migrate, .no_memory = self->npages);
	else
		EXPECT_RESULT(&migrate, .no_device_memory = self->npages);

	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_EQ(0, device_plug_shared(self->ctl, 0, 0, 0));
	began = alloc_fail_begin("hmm_devmem_pool_populate");
	EXPECT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	ASSERT_TRUE(alloc_fail_end() && began);
	EXPECT_RESULT(&migrate, .no_device_memory = self->npages);
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));
}

/* Verifies that so are pages for which core has no page table. */
TEST_F(devmem, no_memory_for_page_tables)
{
	char *ptr = area_map(self->npages, variant->thp);
	struct hmm_devmem_test_migrate migrate;
	bool began;

	began = alloc_fail_begin("hmm_devmem_txn_commit");
	EXPECT_EQ(0, device_migrate(self->fd, ptr, HUGE_PAGES, &migrate));
	ASSERT_TRUE(alloc_fail_end() && began);
	EXPECT_RESULT(&migrate, .no_memory = HUGE_PAGES);
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/* Verifies that pages which the device fails to copy are not copied. */
TEST_F(devmem, copy_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 7);
	struct hmm_devmem_test_migrate migrate;

	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_DEVICE, 0, ALWAYS));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .not_copied = self->npages);
	/* The driver is told to copy, but has nothing to wait for */
	EXPECT_LT(0, migrate.callbacks);

	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN, 1, 1);
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_LT(0, migrate.not_copied);
	EXPECT_RESULT(&migrate, .moved = self->npages - migrate.not_copied,
		      .not_copied = migrate.not_copied);
	EXPECT_EQ(migrate.moved, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));
}

/* Verifies that so are pages that cannot be mapped for DMA. */
TEST_F(devmem, dma_fails)
{
	struct hmm_devmem_test_migrate migrate;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 8);
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .not_copied = self->npages);
	EXPECT_EQ(0, migrate.callbacks);
	EXPECT_EQ(0, wrong(ptr, 8, self->npages));
}

/* Verifies that gaps, and mappings whose pages do not move, are not suitable. */
TEST_F(devmem, mappings_that_are_not_suitable)
{
	const int fixed = MAP_FIXED | MAP_ANONYMOUS;
	char *ptr = area_filled(self->npages, variant->thp, 9);
	char *gap = ptr, *shared = ptr + 10 * PAGE, *mergeable = ptr + 20 * PAGE;
	char *none = ptr + 30 * PAGE, *end = ptr + (self->npages - 7) * PAGE;
	struct hmm_devmem_test_migrate migrate;

	ASSERT_EQ(0, munmap(gap, 3 * PAGE));
	ASSERT_EQ(shared, mmap(shared, 4 * PAGE, PROT_READ | PROT_WRITE,
			       MAP_SHARED | fixed, -1, 0));
	touch(shared, 4);
	ASSERT_EQ(0, madvise(mergeable, 5 * PAGE, MADV_MERGEABLE));
	/* Of memory that the process cannot access, pages that exist do move */
	ASSERT_EQ(none, mmap(none, 6 * PAGE, PROT_NONE, MAP_PRIVATE | fixed, -1, 0));
	ASSERT_EQ(0, mprotect(none + 10 * PAGE, 8 * PAGE, PROT_NONE));
	ASSERT_EQ(0, munmap(end, 7 * PAGE));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .moved = self->npages - 25, .not_suitable = 25);
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .moved = self->npages - 25, .not_suitable = 25);
	EXPECT_EQ(0, wrong_from(ptr + 100 * PAGE, 9, 100, HUGE_PAGES));
}

/* Verifies that pages of files and of hugetlb are not suitable, but copies of them are. */
TEST_F(devmem, files_are_not_suitable)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct hmm_devmem_test_migrate migrate;
	char *ptr;

	ptr = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	area_remember(ptr, 8 * PAGE);
	touch(ptr, 4);
	write_word(ptr + PAGE, 1);
	write_word(ptr + 2 * PAGE, 2);
	ASSERT_EQ(0, device_migrate(self->fd, ptr, 8, &migrate));
	EXPECT_RESULT(&migrate, .moved = 2, .not_suitable = 6);
	close(fd);

	ASSERT_TRUE(file_write_number("/proc/sys/vm/nr_hugepages", 1));
	ptr = mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, ptr);
	area_remember(ptr, HUGE);
	touch(ptr, HUGE_PAGES);
	ASSERT_EQ(0, device_migrate(self->fd, ptr, HUGE_PAGES, &migrate));
	EXPECT_RESULT(&migrate, .not_suitable = HUGE_PAGES);
	areas_unmap();
	EXPECT_TRUE(file_write_number("/proc/sys/vm/nr_hugepages", 0));
}

/* Verifies that so are pages that userfaultfd has to provide, and those of a peer. */
TEST_F(devmem, pages_that_are_not_suitable)
{
	char *ptr = area_map(self->npages, variant->thp);
	const int peer = device_open(variant->peer);
	struct hmm_devmem_test_migrate migrate;
	struct uffd uffd;

	ASSERT_LE(0, peer);
	fill(ptr, 10, HUGE_PAGES);
	ASSERT_EQ(HUGE_PAGES, all_moved(peer, ptr, HUGE_PAGES));
	ASSERT_EQ(0, uffd_open(&uffd, ptr + HUGE, self->npages - HUGE_PAGES,
			       UFFDIO_REGISTER_MODE_MISSING));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, self->npages, &migrate));
	EXPECT_RESULT(&migrate, .not_suitable = self->npages);
	EXPECT_EQ(0, wrong(ptr, 10, HUGE_PAGES));
	areas_unmap();
	close(peer);
}

/* Verifies that the reasons of one range add up if all of them occur in it. */
TEST_F(devmem, all_reasons_add_up)
{
	struct hmm_devmem_test_migrate migrate;
	unsigned long size, total, hole;
	struct iovec iov;
	int pipefd[2];
	char *ptr;

	SMALL_DEVICE();
	size = self->before.size;
	total = size + 3 * HUGE_PAGES;
	ptr = area_numbered(total, false);
	iov = (struct iovec) { ptr + 100 * PAGE, 2 * PAGE };
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(2 * PAGE, vmsplice(pipefd[1], &iov, 1, 0));
	/* The process needs some page tables again */
	ASSERT_EQ(0, madvise(ptr + HUGE, 2 * HUGE, MADV_DONTNEED));
	ASSERT_EQ(0, munmap(ptr + 200 * PAGE, 3 * PAGE));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN, 1, 1);
	ASSERT_EQ(0, device_migrate(self->fd, ptr, total, &migrate));
	EXPECT_EQ(total, migrate_sum(&migrate));
	EXPECT_EQ(2, migrate.busy);
	EXPECT_EQ(3, migrate.not_suitable);
	EXPECT_LT(0, migrate.not_copied);
	EXPECT_EQ(size, migrate.moved);
	hole = 2 + 3 + migrate.not_copied;
	EXPECT_EQ(total - size - hole, migrate.no_device_memory);
	EXPECT_EQ(0, migrate.no_memory);
	EXPECT_EQ(migrate.moved, device_used(self->ctl));
	close(pipefd[0]);
	close(pipefd[1]);
}

/* Verifies that with RECLAIM a range larger than the device has no room for its end. */
TEST_F(devmem, range_larger_than_the_device)
{
	struct hmm_devmem_test_migrate migrate;
	unsigned long size;
	char *other, *ptr;

	if (variant->coherent)
		return;
	size = 8 * HUGE_PAGES;
	ASSERT_EQ(0, plug_as(self, size * PAGE, HMM_DEVMEM_TEST_RECLAIM, 0));
	other = area_numbered(2 * HUGE_PAGES, variant->thp);
	ptr = area_numbered(size + 100, variant->thp);
	ASSERT_EQ(2 * HUGE_PAGES, all_moved(self->fd, other, 2 * HUGE_PAGES));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, size + 100, &migrate));
	EXPECT_EQ(size + 100, migrate_sum(&migrate));
	EXPECT_EQ(size, migrate.moved);
	EXPECT_EQ(100, migrate.no_device_memory);
	EXPECT_EQ(0, misnumbered(other, 2 * HUGE_PAGES));
	EXPECT_EQ(0, misnumbered(ptr, size + 100));
}

/* Verifies that requests which cannot be served fail, and with which errno. */
TEST_F(devmem, requests_that_fail)
{
	char *ptr = area_filled(8, false, 11);
	struct hmm_devmem_test_migrate migrate;
	const int classic = device_open(CLASSIC);

	ASSERT_EQ(0, munmap(ptr + 4 * PAGE, 4 * PAGE));
	EXPECT_EQ(-EFAULT, device_migrate(self->fd, ptr + 4 * PAGE, 4, &migrate));
	EXPECT_EQ(-EINVAL, device_migrate(self->fd, ptr + 1, 4, &migrate));
	EXPECT_EQ(-EINVAL, device_migrate(self->fd, ptr, 0, &migrate));
	EXPECT_EQ(-EINVAL, device_migrate(self->fd, ptr, ~0UL, &migrate));
	EXPECT_EQ(-EOPNOTSUPP, device_migrate(classic, ptr, 4, &migrate));
	ASSERT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(-EAGAIN, device_migrate(self->fd, ptr, 4, &migrate));
	ASSERT_EQ(0, device_resume(self->ctl));
	ASSERT_EQ(0, device_migrate(self->fd, ptr, 8, &migrate));
	EXPECT_RESULT(&migrate, .moved = 4, .not_suitable = 4);
	close(classic);
}

TEST_HARNESS_MAIN
