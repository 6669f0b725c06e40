// SPDX-License-Identifier: GPL-2.0
/*
 * Exclusive access of the device to pages in system memory: the CPU, a fork or a migration
 * takes it away, and the device then has no entry any more.
 */
#include "fixture.h"

#include <pthread.h>

#define NPAGES		16UL

/* Pages for which the device got exclusive access, and which it has read, or -errno. */
static long make_exclusive(int fd, char *ptr, unsigned long npages)
{
	char *data = malloc(npages * PAGE);
	long ret = device_pages(fd, HMM_DEVMEM_TEST_EXCLUSIVE, ptr, data, npages);

	free(data);
	return ret;
}

/* Does the device have exclusive access to any page of the range? */
static bool any_exclusive(int fd, const char *ptr, unsigned long npages)
{
	return device_pages(fd, HMM_DEVMEM_TEST_CHECK_EXCLUSIVE, ptr, NULL, npages) == -EPERM;
}

static bool each_exclusive(int fd, const char *ptr, unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		if (!any_exclusive(fd, ptr + i * PAGE, 1))
			return false;
	return true;
}

/* Verifies that the entry goes when the CPU reads or writes, and that of this page only. */
TEST_F(devmem, cpu_takes_it_away)
{
	char *ptr = area_filled(NPAGES, variant->thp, 1);
	unsigned int write;

	for (write = 0; write < 2; write++) {
		EXPECT_EQ(NPAGES, make_exclusive(self->fd, ptr, NPAGES));
		EXPECT_EQ(NPAGES, mapped(self->fd, ptr, NPAGES));
		EXPECT_TRUE(each_exclusive(self->fd, ptr, NPAGES));
		EXPECT_EQ(0, access_signal(ptr + PAGE, write));
		EXPECT_FALSE(any_exclusive(self->fd, ptr + PAGE, 1));
		EXPECT_EQ(0, mapped(self->fd, ptr + PAGE, 1));
		EXPECT_TRUE(each_exclusive(self->fd, ptr + 2 * PAGE, NPAGES - 2));
		EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
		EXPECT_FALSE(any_exclusive(self->fd, ptr, NPAGES));
	}
}

/* Verifies that an ordinary entry of the mirror is replaced, and the other way round. */
TEST_F(devmem, entry_of_the_mirror)
{
	char *ptr = area_filled(NPAGES, variant->thp, 1);

	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_WRITE, NPAGES));
	EXPECT_EQ(NPAGES, make_exclusive(self->fd, ptr, NPAGES));
	EXPECT_TRUE(each_exclusive(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_WRITE, NPAGES));
	EXPECT_EQ(NPAGES, mapped(self->fd, ptr, NPAGES));
	EXPECT_FALSE(any_exclusive(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
}

/* Verifies that a page of the device is brought back for exclusive access. */
TEST_F(devmem, page_on_the_device)
{
	char *ptr = area_filled(NPAGES, variant->thp, 1);

	EXPECT_EQ(NPAGES, all_moved(self->fd, ptr, NPAGES));
	EXPECT_EQ(NPAGES, make_exclusive(self->fd, ptr, NPAGES));
	EXPECT_TRUE(each_exclusive(self->fd, ptr, NPAGES));
	if (!variant->coherent)
		EXPECT_EQ(0, resident(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
	EXPECT_FALSE(any_exclusive(self->fd, ptr, NPAGES));
}

/* Verifies that a fork takes exclusive access away: the child shares the pages. */
TEST_F(devmem, fork)
{
	char *ptr = area_filled(NPAGES, variant->thp, 1);
	struct child sharer;

	EXPECT_EQ(NPAGES, make_exclusive(self->fd, ptr, NPAGES));
	sharer_start(&sharer, ptr, 1, NPAGES);
	EXPECT_FALSE(any_exclusive(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, mapped(self->fd, ptr, NPAGES));
	/* Now the process gets pages of its own */
	EXPECT_EQ(NPAGES, make_exclusive(self->fd, ptr, NPAGES));
	EXPECT_TRUE(each_exclusive(self->fd, ptr, NPAGES));
	fill(ptr, 2, NPAGES);
	EXPECT_EQ(0, child_end(&sharer));
	EXPECT_EQ(0, wrong(ptr, 2, NPAGES));
}

/* Verifies that neighbours move to the device and back, and exclusive access stays. */
TEST_F(devmem, migration_beside)
{
	char *ptr = area_filled(3 * NPAGES, false, 1), *middle = ptr + NPAGES * PAGE;

	/* The first use of the device memory gives it to the mirror, without entries */
	EXPECT_EQ(1, all_moved(self->fd, ptr, 1));
	EXPECT_EQ(NPAGES, make_exclusive(self->fd, middle, NPAGES));
	EXPECT_EQ(NPAGES, all_moved(self->fd, ptr, NPAGES));
	EXPECT_EQ(NPAGES, all_moved(self->fd, middle + NPAGES * PAGE, NPAGES));
	EXPECT_TRUE(each_exclusive(self->fd, middle, NPAGES));
	EXPECT_EQ(3 * NPAGES, mapped(self->fd, ptr, 3 * NPAGES));
	EXPECT_EQ(NPAGES, to_ram(self->fd, ptr, NPAGES));
	EXPECT_TRUE(each_exclusive(self->fd, middle, NPAGES));
	EXPECT_EQ(0, wrong(ptr, 1, 3 * NPAGES));
}

/* Verifies that a migration of such pages leaves no entry of the pages that they were. */
TEST_F(devmem, migration_of_exclusive_pages)
{
	char *ptr = area_filled(NPAGES, false, 1);
	long moved;

	EXPECT_EQ(NPAGES, make_exclusive(self->fd, ptr, NPAGES));
	moved = to_device(self->fd, ptr, NPAGES);
	EXPECT_LE(0, moved);
	EXPECT_EQ(moved, resident(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, NPAGES));
	EXPECT_FALSE(any_exclusive(self->fd, ptr, NPAGES));
	EXPECT_EQ(NPAGES, all_moved(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
}

/* Verifies that no entry outlives its mapping. */
TEST_F(devmem, mapping_goes)
{
	char *ptr = area_filled(NPAGES, variant->thp, 1), *to = area_map(NPAGES, false);

	EXPECT_EQ(NPAGES, make_exclusive(self->fd, ptr, NPAGES));
	ASSERT_EQ(to, mremap(ptr, NPAGES * PAGE, NPAGES * PAGE,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, mapped(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, mapped(self->fd, to, NPAGES));
	EXPECT_EQ(0, wrong(to, 1, NPAGES));
	EXPECT_EQ(NPAGES, make_exclusive(self->fd, to, NPAGES));
	ASSERT_EQ(0, madvise(to, NPAGES * PAGE, MADV_DONTNEED));
	EXPECT_EQ(0, mapped(self->fd, to, NPAGES));
	EXPECT_EQ(0, not_zero(to, NPAGES));
}

/* A thread that adds to a word of each page, which the device reads exclusively. */

static struct {
	char *ptr;
	int stop;
} adder;

static void *adder_main(void *arg)
{
	unsigned long i, count = 0;

	while (!__atomic_load_n(&adder.stop, __ATOMIC_RELAXED)) {
		for (i = 0; i < NPAGES; i++)
			__atomic_fetch_add((__u64 *)(adder.ptr + i * PAGE), 1,
					   __ATOMIC_RELAXED);
		count++;
	}
	return (void *)count;
}

/* Verifies that nothing is lost while the CPU, the device and a migration compete. */
TEST_F(devmem, race)
{
	char *ptr = area_map(NPAGES, variant->thp);
	pthread_t thread;
	unsigned long i;
	void *count;
	long ret;

	adder.ptr = ptr;
	adder.stop = 0;
	ASSERT_EQ(0, pthread_create(&thread, NULL, adder_main, NULL));
	for (i = 0; i < 50; i++) {
		/* The CPU can take the page away before the device has read it */
		ret = make_exclusive(self->fd, ptr, NPAGES);
		EXPECT_TRUE(ret >= 0 || ret == -EBUSY || ret == -ENOENT);
		ret = to_device(self->fd, ptr, NPAGES);
		EXPECT_LE(0, ret);
	}
	__atomic_store_n(&adder.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, &count);
	for (i = 0; i < NPAGES; i++)
		EXPECT_EQ((unsigned long)count, read_word(ptr + i * PAGE));
}

TEST_HARNESS_MAIN
