// SPDX-License-Identifier: GPL-2.0
/*
 * Page faults of a device about pages that core treats in a special way: pages that NUMA
 * balancing has marked, that userfaultfd has write protected, that KSM has merged, that are
 * mlocked or pinned; and which neighbours a fault maps.
 */
#include "fixture.h"
#include "system.h"
#include "uffd.h"

#include <sys/uio.h>

#define NPAGES		32UL

/* How many faults the device takes to write a page, or to read it; -1 for an error. */
static long faults_of_access(int fd, char *ptr, void *data, bool write)
{
	struct hmm_devmem_test_cmd cmd;

	if (device_cmd(fd, write ? HMM_DEVMEM_TEST_WRITE : HMM_DEVMEM_TEST_READ, ptr, data, 1,
		       &cmd))
		return -1;
	return cmd.faults;
}

/* NUMA balancing. */

static long hint_faults(void)
{
	return vm_events("numa_hint_faults");
}

/*
 * An area of two blocks with pages of one node, all marked by NUMA balancing for a process
 * that runs on another node; or NULL. The last page is touched until it was marked, which
 * is the last that happens to the area. Pages are marked when the process uses the CPU.
 */
static char *area_marked(bool thp)
{
	const long until = now_ms() + HANG_MS;
	char *ptr, *last;
	long before;
	bool marked;

	if (!run_on(0))
		return NULL;
	ptr = area_filled(2 * HUGE_PAGES, thp, 1);
	last = ptr + 2 * HUGE - PAGE;
	if (!run_on(1) || !balancing_begin())
		return NULL;
	do {
		before = hint_faults();
		touch(last, 1);
		marked = hint_faults() > before;
	} while (!marked && now_ms() < until);
	return file_write(NUMA_BALANCING, "0") && marked ? ptr : NULL;
}

/*
 * Verifies that a fault ends the mark, as one of the process does, that a huge page stays
 * one, and that a page which a fault for a write has moved can be written to.
 */
TEST_F(devmem, marked_by_numa_balancing)
{
	const long expected = variant->thp ? HUGE_PAGES : 1;
	char data[PAGE], *ptr, *page;
	unsigned int i;
	bool migrate;
	long before;

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one NUMA node only");
	for (i = 0; i < NR_FLAGS; i++) {
		migrate = all_flags[i] & HMM_DEVMEM_TEST_FAULT_MIGRATE;
		ptr = area_marked(variant->thp);
		ASSERT_NE(NULL, ptr);
		page = ptr + 17 * PAGE;
		before = hint_faults();
		EXPECT_EQ(0, device_fault(self->fd, page, all_flags[i], 1));
		EXPECT_LT(before, hint_faults());
		EXPECT_EQ(expected, mapped(self->fd, ptr, HUGE_PAGES));
		EXPECT_EQ(migrate ? expected : 0, mapped_local(self->fd, ptr, HUGE_PAGES));
		fill_from(data, 1, 17, 1);
		EXPECT_EQ(0, faults_of_access(self->fd, page, data,
					      all_flags[i] & HMM_DEVMEM_TEST_FAULT_WRITE));
		EXPECT_EQ(0, wrong(ptr, 1, 2 * HUGE_PAGES));
		areas_unmap();
	}
}

/* userfaultfd. */

/*
 * Verifies that the monitor is told of each page that the device writes to, before it can,
 * and of none that it reads, wherever the pages are.
 */
TEST_F(devmem, write_protected_by_userfaultfd)
{
	char *data = area_map(NPAGES, false), *ptr;
	struct uffd uffd;
	unsigned int i;

	for (i = 0; i < NR_FLAGS; i++) {
		const bool write = all_flags[i] & HMM_DEVMEM_TEST_FAULT_WRITE;
		const bool migrate = all_flags[i] & HMM_DEVMEM_TEST_FAULT_MIGRATE;

		ptr = area_filled(HUGE_PAGES, variant->thp, 1);
		ASSERT_EQ(0, uffd_open(&uffd, ptr, HUGE_PAGES, UFFDIO_REGISTER_MODE_WP));
		ASSERT_EQ(0, uffd_protect(&uffd, ptr, HUGE_PAGES, true));
		ASSERT_EQ(0, uffd_start(&uffd));
		EXPECT_EQ(0, device_fault(self->fd, ptr, all_flags[i], NPAGES));
		EXPECT_EQ(write ? NPAGES : 0, uffd.wp);
		EXPECT_LE(NPAGES, mapped(self->fd, ptr, HUGE_PAGES));
		EXPECT_EQ(migrate ? NPAGES : 0, mapped_local(self->fd, ptr, NPAGES));
		EXPECT_EQ(NPAGES, device_read(self->fd, ptr, data, NPAGES));
		EXPECT_EQ(0, wrong(data, 1, NPAGES));
		EXPECT_EQ(write ? NPAGES : 0, uffd.wp);
		fill(data, 2, NPAGES);
		EXPECT_EQ(NPAGES, device_write(self->fd, ptr, data, NPAGES));
		EXPECT_EQ(NPAGES, uffd.wp);
		EXPECT_EQ(0, wrong(ptr, 2, NPAGES));
		EXPECT_EQ(0, wrong_from(ptr + NPAGES * PAGE, 1, NPAGES, HUGE_PAGES - NPAGES));
		EXPECT_EQ(NPAGES, uffd.wp);
		EXPECT_EQ(0, uffd_stop(&uffd));
		munmap(ptr, HUGE);
	}
}

/* KSM. */

/* How many pages of an area are the same page as its last one. */
static unsigned long merged_with_last(const char *ptr, unsigned long npages)
{
	const __u64 pfn = PAGEMAP_PRESENT | (_BITULL(55) - 1);
	const __u64 last = pagemap_entry(ptr + (npages - 1) * PAGE) & pfn;
	unsigned long i, count = 0;

	for (i = 0; i < npages; i++)
		count += (pagemap_entry(ptr + i * PAGE) & pfn) == last;
	return count;
}

/* Pages with the same content, which are one page in the end. */
static char *area_merged(unsigned long npages)
{
	char *ptr = area_map(npages, false);
	unsigned long i;

	for (i = 0; i < npages; i++)
		fill_from(ptr + i * PAGE, 1, 0, 1);
	if (madvise(ptr, npages * PAGE, MADV_MERGEABLE) || !ksm_begin() ||
	    !soon(merged_with_last(ptr, npages) == npages) || !file_write(KSM "run", "0"))
		return NULL;
	return ptr;
}

/*
 * Verifies that the device reads a merged page where it is, and that what it writes is seen
 * in the page that it writes to, and in no other one.
 */
TEST_F(devmem, merged_by_ksm)
{
	char data[PAGE], *ptr;
	unsigned long page;
	unsigned int i;

	for (i = 0; i < NR_FLAGS; i++) {
		const bool write = all_flags[i] & HMM_DEVMEM_TEST_FAULT_WRITE;

		ptr = area_merged(NPAGES);
		ASSERT_NE(NULL, ptr);
		EXPECT_EQ(0, device_fault(self->fd, ptr, all_flags[i], NPAGES / 2));
		EXPECT_EQ(0, device_used(self->ctl));
		/* A fault for a write has unshared what it was about, and no other page */
		EXPECT_EQ(write ? NPAGES / 2 : NPAGES, merged_with_last(ptr, NPAGES));
		EXPECT_EQ(1, device_read(self->fd, ptr, data, 1));
		EXPECT_EQ(0, wrong(data, 1, 1));
		fill(data, 2, 1);
		EXPECT_EQ(write ? 0 : 1, faults_of_access(self->fd, ptr, data, true));
		EXPECT_EQ(0, wrong(ptr, 2, 1));
		for (page = 1; page < NPAGES; page++)
			EXPECT_EQ(0, wrong(ptr + page * PAGE, 1, 1));
		areas_unmap();
	}
	EXPECT_TRUE(file_write(KSM "run", "2"));
	EXPECT_TRUE(file_write(KSM "run", "0"));
}

/* Pages that cannot move, or whose neighbours cannot. */

/* Verifies that faults map and move mlocked pages like others, and that these stay mlocked. */
TEST_F(devmem, mlocked)
{
	char *ptr = area_filled(HUGE_PAGES, variant->thp, 1);
	char *data = area_filled(NPAGES, false, 2);
	const long before = vm_events("nr_mlock");

	ASSERT_EQ(0, mlock(ptr, HUGE));
	EXPECT_EQ(0, device_fault(self->fd, ptr, 0, NPAGES));
	EXPECT_LE(NPAGES, mapped(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, NPAGES));
	EXPECT_EQ(NPAGES, mapped_local(self->fd, ptr, NPAGES));
	EXPECT_EQ(NPAGES, device_write(self->fd, ptr, data, NPAGES));
	EXPECT_EQ(0, wrong(ptr, 2, NPAGES));
	EXPECT_EQ(0, wrong_from(ptr + NPAGES * PAGE, 1, NPAGES, HUGE_PAGES - NPAGES));
	if (!variant->coherent)
		EXPECT_TRUE(soon(vm_events("nr_mlock") == before + (long)HUGE_PAGES));
	ASSERT_EQ(0, munlock(ptr, HUGE));
}

/*
 * Verifies that a page which cannot move is mapped where it is, of its neighbours only those
 * that are on the device, and that the others move when the device accesses them.
 */
TEST_F(devmem, neighbours_of_what_cannot_move)
{
	char *ptr = area_filled(4, false, 1);
	struct iovec iov = { ptr + PAGE, PAGE };
	int second, pipefd[2];

	EXPECT_EQ(1, all_moved(self->fd, ptr, 1));
	/* Another file has no entries yet */
	second = device_open(variant->nr);
	ASSERT_LE(0, second);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(PAGE, vmsplice(pipefd[1], &iov, 1, 0));
	EXPECT_EQ(0, device_fault(second, ptr + PAGE, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(2, mapped(second, ptr, 4));
	EXPECT_EQ(1, mapped_local(second, ptr, 4));
	EXPECT_EQ(2, mapped(second, ptr, 2));
	EXPECT_EQ(0, device_fault(second, ptr + 2 * PAGE, HMM_DEVMEM_TEST_FAULT_MIGRATE, 2));
	EXPECT_EQ(4, mapped(second, ptr, 4));
	EXPECT_EQ(3, mapped_local(second, ptr, 4));
	close(pipefd[0]);
	close(pipefd[1]);
	EXPECT_EQ(0, close(second));
	EXPECT_EQ(0, wrong(ptr, 1, 4));
}

/*
 * Verifies that a fault that is to move a page maps those of a file along, which do not move,
 * and that one of them moves after all when it is copied for a write.
 */
TEST_F(devmem, neighbours_of_a_file)
{
	const unsigned long flags = HMM_DEVMEM_TEST_FAULT_MIGRATE;
	const int fd = syscall(__NR_memfd_create, "hmm_devmem", 0);
	char *ptr = area_map(HUGE_PAGES, false), *data = area_filled(NPAGES, false, 1);
	static const int kinds[] = { MAP_SHARED, MAP_PRIVATE };
	unsigned int i;

	ASSERT_EQ(NPAGES * PAGE, write(fd, data, NPAGES * PAGE));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(ptr, mmap(ptr, NPAGES * PAGE, PROT_READ | PROT_WRITE,
				    kinds[i] | MAP_FIXED, fd, 0));
		touch(ptr, NPAGES);
		EXPECT_EQ(0, device_fault(self->fd, ptr + 3 * PAGE, flags, 1));
		EXPECT_EQ(16, mapped(self->fd, ptr, NPAGES));
		EXPECT_EQ(0, device_used(self->ctl));
		EXPECT_EQ(0, device_fault(self->fd, ptr + 5 * PAGE,
					  flags | HMM_DEVMEM_TEST_FAULT_WRITE, 1));
		EXPECT_EQ(kinds[i] == MAP_PRIVATE, mapped_local(self->fd, ptr, NPAGES));
		EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
	}
	close(fd);
}

/* Verifies that a fault maps no neighbours of another mapping, which can have other rights. */
TEST_F(devmem, neighbours_in_other_mappings)
{
	char *ptr = area_filled(NPAGES, false, 1);

	ASSERT_EQ(0, mprotect(ptr + 4 * PAGE, 4 * PAGE, PROT_READ));
	EXPECT_EQ(0, device_fault(self->fd, ptr + PAGE, HMM_DEVMEM_TEST_FAULT_WRITE, 1));
	EXPECT_EQ(4, mapped(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, device_fault(self->fd, ptr + 5 * PAGE, 0, 1));
	EXPECT_EQ(8, mapped(self->fd, ptr, NPAGES));
	EXPECT_EQ(-EPERM, device_fault(self->fd, ptr + 5 * PAGE,
				       HMM_DEVMEM_TEST_FAULT_WRITE, 1));
	EXPECT_EQ(0, device_fault(self->fd, ptr + 15 * PAGE, 0, 1));
	/* All of the aligned 64 KiB, and no more */
	EXPECT_EQ(16, mapped(self->fd, ptr, NPAGES));
	EXPECT_EQ(0, wrong(ptr, 1, NPAGES));
}

TEST_HARNESS_MAIN
