// SPDX-License-Identifier: GPL-2.0
/*
 * What a device fault does with memory of each kind: a table of kinds, each read and
 * written by the device, with and without a migration.
 */
#include "fixture.h"
#include "system.h"

#define NPAGES		4UL
#define SWAP_PAGES	1024

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif

/**
 * struct kind - a kind of memory
 * @name: For messages.
 * @map: Maps two blocks of it, with zeros, or with the pattern of seed 1 in the first pages.
 * @zero: It has zeros.
 * @read_moves: A fault for a read, with migration, moves it to the device.
 * @write_moves: The same for a write.
 * @refuses_write: The errno of a fault for a write.
 * @huge: If it moves, so do all pages of the block.
 * @clean: The process may write to it, and the page table says that it has not. So nothing
 *	but the driver of a device that writes to it can say that it was written to.
 */
struct kind {
	const char *name;
	char *(*map)(void);
	bool zero;
	bool read_moves;
	bool write_moves;
	int refuses_write;
	bool huge;
	bool clean;
};

static char *map_file(int fd, int prot, int flags)
{
	char *ptr = area_map(2 * HUGE_PAGES, false);

	if (fd < 0 || mmap(ptr, 2 * HUGE, prot, flags | MAP_FIXED, fd, 0) == MAP_FAILED)
		return NULL;
	close(fd);
	return ptr;
}

static int memory_file(unsigned int flags)
{
	int fd = syscall(SYS_memfd_create, "hmm_devmem", flags);
	char *page = malloc(NPAGES * PAGE);

	fill(page, 1, NPAGES);
	if (ftruncate(fd, 2 * HUGE) || (!flags && write(fd, page, NPAGES * PAGE) < 0))
		fd = -1;
	free(page);
	return fd;
}

static char *map_untouched(void)
{
	return area_map(2 * HUGE_PAGES, false);
}

static char *map_zero_pages(void)
{
	char *ptr = area_map(2 * HUGE_PAGES, false);

	touch(ptr, NPAGES);
	return ptr;
}

static char *map_huge_zero_page(void)
{
	char *ptr = area_map(2 * HUGE_PAGES, true);

	touch(ptr, 1);
	return ptr;
}

static char *map_shmem(void)
{
	return map_file(memory_file(0), PROT_READ | PROT_WRITE, MAP_SHARED);
}

static char *map_shmem_thp(void)
{
	char *ptr = map_file(memory_file(0), PROT_READ | PROT_WRITE, MAP_SHARED);

	if (ptr)
		madvise(ptr, 2 * HUGE, MADV_COLLAPSE);
	return ptr;
}

static char *map_private_file(void)
{
	return map_file(memory_file(0), PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

static char *map_readonly_file(void)
{
	return map_file(memory_file(0), PROT_READ, MAP_PRIVATE);
}

static char *map_hugetlb(void)
{
	char *ptr;

	if (!file_write_number("/proc/sys/vm/nr_hugepages", 4))
		return NULL;
	ptr = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (ptr == MAP_FAILED)
		return NULL;
	area_remember(ptr, 2 * HUGE);
	fill(ptr, 1, NPAGES);
	return ptr;
}

static char *map_lazily_freed(void)
{
	char *ptr = area_filled(2 * HUGE_PAGES, false, 1);

	return madvise(ptr, 2 * HUGE, MADV_FREE) ? NULL : ptr;
}

static const struct kind kinds[] = {
	{ .name = "never touched", .map = map_untouched, .zero = true, .read_moves = true,
	  .write_moves = true },
	{ .name = "the zero page", .map = map_zero_pages, .zero = true, .read_moves = true,
	  .write_moves = true },
	{ .name = "the huge zero page", .map = map_huge_zero_page, .zero = true, .read_moves = true,
	  .write_moves = true, .huge = true },
	{ .name = "shmem", .map = map_shmem },
	{ .name = "huge pages of shmem", .map = map_shmem_thp },
	{ .name = "a private file", .map = map_private_file, .write_moves = true },
	{ .name = "a read-only file", .map = map_readonly_file, .refuses_write = -EPERM },
	{ .name = "hugetlb", .map = map_hugetlb },
	{ .name = "MADV_FREE", .map = map_lazily_freed, .read_moves = true, .write_moves = true,
	  .clean = true },
};

#define NR_KINDS	(sizeof(kinds) / sizeof(*kinds))

/* Pages of another content than the kind has. */
static long wrong_content(const struct kind *kind, const char *ptr)
{
	return kind->zero ? not_zero(ptr, NPAGES) : wrong(ptr, 1, NPAGES);
}

/* Verifies what a fault for a read does, with and without a migration. */
TEST_F(devmem, read)
{
	char data[NPAGES * PAGE], *ptr;
	unsigned int i, migrate;
	const struct kind *kind;

	for (i = 0; i < 2 * NR_KINDS; i++) {
		kind = &kinds[i / 2];
		migrate = i & 1;
		ptr = kind->map();
		ASSERT_NE(NULL, ptr) TH_LOG("%s", kind->name);
		EXPECT_EQ(0, device_fault(self->fd, ptr, migrate ?
					  HMM_DEVMEM_TEST_FAULT_MIGRATE : 0, NPAGES))
			TH_LOG("%s", kind->name);
		EXPECT_EQ(migrate && kind->read_moves, resident(self->fd, ptr, NPAGES) > 0)
			TH_LOG("%s: %ld pages moved", kind->name,
			       resident(self->fd, ptr, NPAGES));
		if (migrate && kind->huge)
			EXPECT_EQ(HUGE_PAGES, resident(self->fd, ptr, 2 * HUGE_PAGES));
		EXPECT_EQ(NPAGES, mapped(self->fd, ptr, NPAGES))
			TH_LOG("%s", kind->name);
		EXPECT_EQ(NPAGES, device_read(self->fd, ptr, data, NPAGES));
		EXPECT_EQ(0, wrong_content(kind, data)) TH_LOG("%s", kind->name);
		EXPECT_EQ(0, wrong_content(kind, ptr)) TH_LOG("%s", kind->name);
		areas_unmap();
	}
	EXPECT_TRUE(file_write_number("/proc/sys/vm/nr_hugepages", 0));
}

/* Reclaim the pages until all are gone: another CPU can have a reference to some. */
static bool reclaimed(char *ptr)
{
	return soon((page_out(ptr, NPAGES), !pagemap_count(ptr, NPAGES, PAGEMAP_PRESENT)));
}

/*
 * Verifies what a fault for a write does, that the process sees what is written, and that
 * reclaim does not drop it.
 */
TEST_F(devmem, write)
{
	char data[NPAGES * PAGE], *ptr;
	unsigned int i, migrate;
	const struct kind *kind;

	fill(data, 2, NPAGES);
	ASSERT_EQ(0, swap_begin(SWAP_PAGES));
	for (i = 0; i < 2 * NR_KINDS; i++) {
		kind = &kinds[i / 2];
		migrate = i & 1;
		ptr = kind->map();
		ASSERT_NE(NULL, ptr) TH_LOG("%s", kind->name);
		EXPECT_EQ(kind->refuses_write,
			  device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_WRITE |
				       (migrate ? HMM_DEVMEM_TEST_FAULT_MIGRATE : 0), NPAGES))
			TH_LOG("%s", kind->name);
		EXPECT_EQ(migrate && kind->write_moves, resident(self->fd, ptr, NPAGES) > 0)
			TH_LOG("%s: %ld pages moved", kind->name,
			       resident(self->fd, ptr, NPAGES));
		if (migrate && kind->huge)
			EXPECT_EQ(HUGE_PAGES, resident(self->fd, ptr, 2 * HUGE_PAGES));
		if (kind->refuses_write) {
			EXPECT_EQ(0, wrong_content(kind, ptr)) TH_LOG("%s", kind->name);
		} else {
			EXPECT_EQ(NPAGES, device_write(self->fd, ptr, data, NPAGES));
			if (kind->clean && !migrate)
				EXPECT_TRUE(reclaimed(ptr));
			EXPECT_EQ(0, wrong(ptr, 2, NPAGES)) TH_LOG("%s", kind->name);
		}
		areas_unmap();
	}
	EXPECT_EQ(0, swapoff(SWAP_DISK));
	EXPECT_TRUE(file_write_number("/proc/sys/vm/nr_hugepages", 0));
}

TEST_HARNESS_MAIN
