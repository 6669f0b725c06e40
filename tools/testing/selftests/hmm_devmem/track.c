// SPDX-License-Identifier: GPL-2.0
/*
 * Write protection tracks which pages were written to (PAGEMAP_SCAN), as for a
 * checkpoint that copies only pages that have changed. Writes of the device must
 * count, too.
 */
#define ONLY_PRIVATE
#include "fixture.h"
#include "uffd.h"

#include <linux/fs.h>

#define MAX_REGIONS	2048

/* Track writes to a range; returns a file that the caller closes. */
static int track(char *ptr, unsigned long npages)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
	};
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)ptr, .len = npages * PAGE },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &reg))
		return -errno;
	return fd;
}

/*
 * Number of pages that were written to since they were last protected, or -errno. If
 * @protect is set, they are protected again. @which gets one flag for each page.
 */
static long written(char *ptr, unsigned long npages, bool protect, bool *which)
{
	static struct page_region regions[MAX_REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = protect ? PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC : 0,
		.start = (uintptr_t)ptr,
		.end = (uintptr_t)ptr + npages * PAGE,
		.vec = (uintptr_t)regions,
		.vec_len = MAX_REGIONS,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	long i, nr = ioctl(fd, PAGEMAP_SCAN, &arg), count = 0;
	__u64 addr;

	close(fd);
	if (nr < 0)
		return -errno;
	for (i = 0; i < nr; i++)
		for (addr = regions[i].start; addr < regions[i].end;
		     addr += PAGE, count++)
			if (which)
				which[(addr - (uintptr_t)ptr) / PAGE] = true;
	return count;
}

/*
 * Verifies that the device's writes after a scan are reported by the next one, that
 * its reads are not, and that it cannot write without a fault in between.
 */
TEST_F(devmem, writes_of_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	char *data = area_filled(self->npages, false, 2);
	int fd = track(ptr, self->npages);
	bool which[HUGE_PAGES] = { };
	int i;

	ASSERT_LE(0, fd);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_LT(0, written(ptr, self->npages, true, NULL));
		EXPECT_EQ(0, written(ptr, self->npages, false, NULL));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(0, count_states(self->fd, ptr, self->npages,
					  HMM_DEVMEM_TEST_PROT_WRITE));
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		EXPECT_EQ(0, written(ptr, self->npages, false, NULL));

		ASSERT_EQ(1, device_write(self->fd, ptr + 5 * PAGE,
					  data + 5 * PAGE, 1));
		EXPECT_EQ(1, written(ptr, self->npages, false, which));
		EXPECT_TRUE(which[5]);
		fill(data, 3 + i, self->npages);
		ASSERT_EQ(self->npages,
			  device_write(self->fd, ptr, data, self->npages));
		EXPECT_EQ(self->npages,
			  written(ptr, self->npages, false, NULL));
		EXPECT_EQ(0, wrong(ptr, 3 + i, self->npages));
	}
	close(fd);
}

/* Verifies that the CPU's writes are reported after the pages have moved back. */
TEST_F(devmem, writes_of_cpu)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	int fd = track(ptr, self->npages);
	unsigned long i;

	ASSERT_LE(0, fd);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, written(ptr, self->npages, true, NULL));
	touch(ptr, self->npages);
	EXPECT_EQ(0, written(ptr, self->npages, false, NULL));
	for (i = 0; i < self->npages; i++)
		write_word(ptr + i * PAGE, pattern_word(1, i * WORDS));
	EXPECT_EQ(self->npages, written(ptr, self->npages, false, NULL));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
	close(fd);
}

#define CHECKPOINTS	40

/* Write to a page, or read it. */
static long use_page(int fd, char *page, void *data, int how)
{
	switch (how) {
	case 0:
		touch(page, 1);
		return 0;
	case 1:
		write_word(page, *(__u64 *)data);
		return 0;
	default:
		return device_write(fd, page, data, 1);
	}
}

/*
 * Verifies that a copy of the memory, to which each checkpoint copies the pages that
 * are reported, is right after each checkpoint, whether the CPU or the device has
 * written in between and wherever pages are.
 */
TEST_F(devmem, checkpoints)
{
	const unsigned long npages = self->npages;
	char *ptr = area_filled(npages, variant->thp, 1);
	char *copy = area_map(npages, false), *data = area_map(npages, false);
	int fd = track(ptr, npages);
	unsigned int seed = 1;
	unsigned long i, page;
	bool which[npages];
	int round;

	ASSERT_LE(0, fd);
	for (round = 0; round < CHECKPOINTS; round++) {
		if (round % 3 == 0)
			ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
		memset(which, 0, sizeof(which));
		ASSERT_LE(0, written(ptr, npages, true, which));
		ASSERT_EQ(npages, device_read(self->fd, ptr, data, npages));
		for (i = 0; i < npages; i++)
			if (which[i])
				memcpy(copy + i * PAGE, data + i * PAGE, PAGE);
		ASSERT_EQ(0, memcmp(copy, data, npages * PAGE)) {
			TH_LOG("round %d", round);
		}
		for (i = 0; i < 20; i++) {
			seed = seed * 1103515245 + 12345;
			page = seed / 65536 % npages;
			fill(data, seed & 0xff, 1);
			EXPECT_LE(0, use_page(self->fd, ptr + page * PAGE, data,
					      seed >> 20 & 3));
		}
	}
	close(fd);
}

TEST_HARNESS_MAIN
