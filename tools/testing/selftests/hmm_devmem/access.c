// SPDX-License-Identifier: GPL-2.0
/*
 * What a device with page faults can access: memory of every kind that a process can
 * have, and nothing that the process itself, or the kernel on its behalf, cannot access.
 */
#include "fixture.h"

#include <sys/syscall.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

#define NPAGES			32UL

/* Number of ways to access a page that do not fail as expected. */
static int not_refused(int fd, const char *ptr, int error)
{
	unsigned int i;
	int count = 0;

	for (i = 0; i < NR_FLAGS; i++)
		count += device_fault(fd, ptr, all_flags[i], 1) != error;
	return count;
}

static char *map_shared(int fd, unsigned long npages)
{
	char *ptr = mmap(NULL, npages * PAGE, PROT_READ | PROT_WRITE,
			 fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	if (ptr == MAP_FAILED)
		return NULL;
	area_remember(ptr, npages * PAGE);
	return ptr;
}

/*
 * Verifies that what a device writes to shared memory is not lost when the page is
 * reclaimed. The page came by a read, so no page table says that it was written to.
 */
TEST_F(devmem, write_to_shared_memory)
{
	char *ptr = map_shared(-1, NPAGES);
	char *data = area_filled(NPAGES, false, 1);

	ASSERT_NE(NULL, ptr);
	EXPECT_EQ(0, device_fault(self->fd, ptr, 0, NPAGES));
	EXPECT_EQ(NPAGES, device_write(self->fd, ptr, data, NPAGES));
	EXPECT_EQ(0, madvise(ptr, NPAGES * PAGE, MADV_PAGEOUT));
	EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
}

/* Verifies that a page that cannot move to the device is mapped where it is. */
TEST_F(devmem, migration_of_what_cannot_move)
{
	const unsigned long migrate = HMM_DEVMEM_TEST_FAULT_MIGRATE |
				      HMM_DEVMEM_TEST_FAULT_WRITE;
	char *shared = map_shared(-1, NPAGES);
	char *merged = area_filled(NPAGES, false, 2);

	ASSERT_NE(NULL, shared);
	ASSERT_EQ(0, madvise(merged, NPAGES * PAGE, MADV_MERGEABLE));
	EXPECT_EQ(0, device_fault(self->fd, shared, migrate, NPAGES));
	EXPECT_EQ(0, device_fault(self->fd, merged, migrate, NPAGES));
	EXPECT_EQ(NPAGES, mapped(self->fd, shared, NPAGES));
	EXPECT_EQ(NPAGES, mapped(self->fd, merged, NPAGES));
	EXPECT_EQ(0, device_used(self->ctl));
}

/*
 * Verifies that a device cannot access memory of memfd_secret(). The kernel has no
 * mapping of it either: a driver that uses one would crash.
 */
TEST_F(devmem, secret_memory)
{
	const int fd = syscall(__NR_memfd_secret, O_CLOEXEC);
	char data[PAGE], *ptr;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NPAGES * PAGE));
	ptr = map_shared(fd, NPAGES);
	ASSERT_NE(NULL, ptr);
	fill(ptr, 1, 1);
	EXPECT_EQ(0, not_refused(self->fd, ptr, -EFAULT));
	EXPECT_EQ(0, not_refused(self->fd, ptr + PAGE, -EFAULT));
	EXPECT_EQ(-EFAULT, device_read(self->fd, ptr, data, 1));
	EXPECT_EQ(0, mapped(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, wrong(ptr, 1, 1));
	close(fd);
}

/* Verifies that guard pages are none for the device either, and get no memory. */
TEST_F(devmem, guard_pages)
{
	char *ptr = area_map(NPAGES, false);

	fill(ptr, 1, 1);
	ASSERT_EQ(0, madvise(ptr + PAGE, PAGE, MADV_GUARD_INSTALL));
	EXPECT_EQ(0, not_refused(self->fd, ptr + PAGE, -EFAULT));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(1, device_used(self->ctl));
	ASSERT_EQ(0, madvise(ptr + PAGE, PAGE, MADV_GUARD_REMOVE));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 2));
	EXPECT_EQ(0, wrong(ptr, 1, 1));
	EXPECT_EQ(0, not_zero(ptr + PAGE, 1));
}

/* Verifies that a device cannot access memory that the process cannot read. */
TEST_F(devmem, protected_memory)
{
	static const int prots[] = { PROT_NONE, PROT_WRITE };
	char *ptr = area_filled(NPAGES, false, 1);
	unsigned int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, mprotect(ptr, NPAGES * PAGE, prots[i]));
		EXPECT_EQ(0, not_refused(self->fd, ptr, -EFAULT));
		EXPECT_EQ(0, mapped(self->fd, ptr, NPAGES));
	}
	ASSERT_EQ(0, mprotect(ptr, NPAGES * PAGE, PROT_READ));
	EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
}

/* Verifies that a stack grows when the process accesses it, not when the device does. */
TEST_F(devmem, below_a_stack)
{
	char *ptr = area_map(NPAGES, false), *stack = ptr + NPAGES / 2 * PAGE;

	ASSERT_EQ(0, munmap(ptr, NPAGES * PAGE));
	ASSERT_EQ(stack, mmap(stack, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			      MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1, 0));
	fill(stack, 1, 1);
	EXPECT_EQ(0, not_refused(self->fd, stack - PAGE, -EFAULT));
	write_word(stack - PAGE, 1);
	EXPECT_EQ(0, device_fault(self->fd, stack - PAGE, 0, 2));
	EXPECT_EQ(0, wrong(stack, 1, 1));
}

/* The start of a mapping that the kernel has made in each process. */
static char *mapping_called(const char *name)
{
	const char *line = file_read("/proc/self/maps");
	const char *end = strstr(line, name);

	while (end && end > line && end[-1] != '\n')
		end--;
	return end ? (char *)strtoul(end, NULL, 16) : NULL;
}

/* Verifies that memory without struct pages is refused. */
TEST_F(devmem, memory_without_pages)
{
	char *ptr = mapping_called("[vvar]");

	ASSERT_NE(NULL, ptr);
	EXPECT_EQ(-EFAULT, device_fault(self->fd, ptr, 0, 1));
	EXPECT_EQ(-EFAULT, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
}

static void nothing(int sig)
{
}

/* Verifies that the device gets an error for a poisoned page, and no other page. */
TEST_F(devmem, poisoned_page)
{
	char *ptr = area_filled(NPAGES, false, 1);
	sighandler_t old = signal(SIGBUS, nothing);

	/* The kernel raises a signal at once */
	ASSERT_EQ(0, madvise(ptr + PAGE, PAGE, MADV_HWPOISON));
	signal(SIGBUS, old);
	EXPECT_EQ(0, not_refused(self->fd, ptr + PAGE, -EFAULT));
	EXPECT_EQ(0, device_fault(self->fd, ptr, 0, 1));
	EXPECT_EQ(0, device_fault(self->fd, ptr + 2 * PAGE, 0, NPAGES - 2));
	EXPECT_EQ(NPAGES - 1, mapped(self->fd, ptr, NPAGES));
}

TEST_HARNESS_MAIN
