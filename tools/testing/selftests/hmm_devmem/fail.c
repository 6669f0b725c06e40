// SPDX-License-Identifier: GPL-2.0
/*
 * Copies that fail and a device that is full. A failing copy of the test device
 * fills its destination with a pattern first: where a test finds the right bytes, no
 * process has seen the destination of a failed copy.
 */
#include "fixture.h"
#include "system.h"

static const unsigned int whole_to_device[] = {
	HMM_DEVMEM_TEST_FAIL_TO_DEVICE, HMM_DEVMEM_TEST_FAIL_WAIT,
};

static const unsigned int whole_to_ram[] = {
	HMM_DEVMEM_TEST_FAIL_TO_RAM, HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,
	HMM_DEVMEM_TEST_FAIL_WAIT,
};

/* Verifies that after failed copies to the device all pages are in RAM. */
TEST_F(devmem, to_device_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(whole_to_device); i++) {
		ASSERT_EQ(0, device_inject(self->fd, whole_to_device[i], 0,
					   ALWAYS));
		EXPECT_GE(0, to_device(self->fd, ptr, self->npages));
		EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(0, device_used(self->ctl));
		EXPECT_EQ(0, SINCE(to_device));
		EXPECT_EQ((i + 1) * self->npages, SINCE(copy_errors));
		EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
		EXPECT_EQ(0, wrong(ptr, 1, self->npages));
	}
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0));
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
}

/* Verifies that only the runs that failed stay in RAM. */
TEST_F(devmem, to_device_run_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	long there;
	int skip;

	for (skip = 0; skip < 3; skip++) {
		ASSERT_EQ(0, device_inject(self->fd,
					   HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN,
					   skip, 1));
		there = to_device(self->fd, ptr, self->npages);
		ASSERT_LE(0, there);
		EXPECT_GT(self->npages, there);
		EXPECT_EQ(there, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(there, device_used(self->ctl));
		EXPECT_EQ(0, wrong(ptr, 2, self->npages));
		to_ram(self->fd, ptr, self->npages);
		EXPECT_EQ(0, device_used(self->ctl));
	}
	EXPECT_EQ(3 * self->npages, SINCE(to_device) + SINCE(copy_errors));
	EXPECT_LT(0, SINCE(to_device));
	EXPECT_LT(0, SINCE(copy_errors));
}

/* Verifies that memory never touched reads as zeros after clearing it has failed. */
TEST_F(devmem, clear_fails)
{
	char *ptr = area_map(self->npages, variant->thp);
	char *data = area_filled(self->npages, false, 3);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(whole_to_device); i++) {
		ASSERT_EQ(0, device_inject(self->fd, whole_to_device[i], 0,
					   ALWAYS));
		EXPECT_GE(0, to_device(self->fd, ptr, self->npages));
		EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(0, device_used(self->ctl));
	}
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN,
				   0, 1));
	to_device(self->fd, ptr, self->npages);
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, not_zero(data, self->npages));
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/*
 * Verifies that a CPU fault that cannot bring a page back is a SIGBUS, that the
 * page stays on the device, and that it is right once the device works again.
 */
TEST_F(devmem, fault_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);
	size_t i;

	if (variant->coherent)
		return;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (i = 0; i < ARRAY_SIZE(whole_to_ram); i++) {
		ASSERT_EQ(0, device_inject(self->fd, whole_to_ram[i], 0,
					   ALWAYS));
		EXPECT_EQ(SIGBUS, access_signal(ptr + 7 * PAGE, false));
		EXPECT_EQ(SIGBUS, access_signal(ptr + 7 * PAGE, true));
		EXPECT_EQ(SIGBUS, access_signal(ptr + 1200 * PAGE, false));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(self->npages, device_used(self->ctl));
		EXPECT_EQ(0, SINCE(to_ram));
	}
	EXPECT_LT(0, SINCE(copy_errors));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0));
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
}

/* Verifies that a system call that accesses such a page fails with EFAULT. */
TEST_F(devmem, fault_fails_in_syscall)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	int pipefd[2];

	if (variant->coherent)
		return;
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	EXPECT_EQ(-1, write(pipefd[1], ptr, 100));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0));
	EXPECT_EQ(100, write(pipefd[1], ptr, 100));
	close(pipefd[0]);
	close(pipefd[1]);
}

/* Verifies that pages that the device fails to copy back stay there unchanged. */
TEST_F(devmem, to_ram_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 6);
	char *data = area_map(self->npages, false);
	size_t i;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (i = 0; i < ARRAY_SIZE(whole_to_ram); i++) {
		ASSERT_EQ(0, device_inject(self->fd, whole_to_ram[i], 0,
					   ALWAYS));
		EXPECT_GE(0, to_ram(self->fd, ptr, self->npages));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(self->npages, device_used(self->ctl));
		EXPECT_EQ((i + 1) * self->npages, SINCE(copy_errors));
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		EXPECT_EQ(0, wrong(data, 6, self->npages));
	}
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0));
	EXPECT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));
}

/* Verifies that only the runs that failed stay on the device. */
TEST_F(devmem, to_ram_run_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 7);
	long back;
	int skip;

	for (skip = 0; skip < 3; skip++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_inject(self->fd,
					   HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,
					   skip, 1));
		back = to_ram(self->fd, ptr, self->npages);
		ASSERT_LE(0, back);
		EXPECT_GT(self->npages, back);
		EXPECT_EQ(self->npages - back, device_used(self->ctl));
		EXPECT_EQ(self->npages - back,
			  resident(self->fd, ptr, self->npages));
		EXPECT_EQ(0, wrong(ptr, 7, self->npages));
		to_ram(self->fd, ptr, self->npages);
	}
	EXPECT_LT(0, SINCE(copy_errors));
}

/* Verifies that eviction leaves pages that cannot be copied, and can be repeated. */
TEST_F(devmem, evict_fails)
{
	char *ptr = area_filled(self->npages, variant->thp, 8);
	char *data = area_map(self->npages, false);
	long left;
	size_t i;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (i = 0; i < ARRAY_SIZE(whole_to_ram); i++) {
		ASSERT_EQ(0, device_inject(self->fd, whole_to_ram[i], 0,
					   ALWAYS));
		EXPECT_EQ(self->npages, device_evict_all(self->fd));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		EXPECT_EQ(0, wrong(data, 8, self->npages));
	}
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,
				   1, 1));
	left = device_evict_all(self->fd);
	EXPECT_LE(0, left);
	EXPECT_EQ(left, device_used(self->ctl));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0));
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, 8, self->npages));
}

/*
 * Verifies that eviction and suspend report pages that the device did not copy as
 * such, also if no large folio could be allocated for them before, and pages for
 * which there was no memory as short of memory.
 */
TEST_F(devmem, evict_blames)
{
	char *ptr = area_filled(self->npages, variant->thp, 21);
	struct hmm_devmem_test_evict why;
	int large;
	size_t i;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	for (large = 0; large < 2; large++) {
		ASSERT_TRUE(fail_attr("fail_ram_large", large ? 100 : 0, -1));
		for (i = 0; i < ARRAY_SIZE(whole_to_ram); i++) {
			ASSERT_EQ(0, device_inject(self->fd, whole_to_ram[i], 0,
						   ALWAYS));
			why = device_evict_why(self->fd);
			EXPECT_EQ(self->npages, why.left);
			EXPECT_EQ(self->npages, why.not_copied);
			EXPECT_EQ(0, why.no_memory);
			EXPECT_EQ(-EIO, device_suspend(self->fd));
		}
	}
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	ASSERT_TRUE(fail_attr("fail_ram", 100, -1));
	why = device_evict_why(self->fd);
	EXPECT_EQ(self->npages, why.left);
	EXPECT_EQ(self->npages, why.no_memory);
	EXPECT_EQ(0, why.not_copied);
	EXPECT_EQ(-ENOMEM, device_suspend(self->fd));
	fail_attrs_clear();
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, 21, self->npages));
}

/* Verifies that calls for a dead device fail, with and without pages in the range. */
TEST_F(devmem, to_ram_of_a_dead_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 22);
	char *other = area_filled(10, false, 23);

	self->replug = true;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_mark_dead(self->fd));
	EXPECT_EQ(-ENODEV, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(-ENODEV, to_ram(self->fd, other, 10));
	EXPECT_EQ(0, wrong(other, 23, 10));
}

/* Verifies this where a copy finds that the device is dead. */
TEST_F(devmem, to_ram_finds_a_dead_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 24);

	self->replug = true;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_inject_error(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM,
					 0, ALWAYS, ENODEV));
	EXPECT_EQ(-ENODEV, to_ram(self->fd, ptr, self->npages));
}

/* Verifies that two processes that share a page keep the same data in it. */
TEST_F(devmem, fork_and_fail)
{
	char *ptr = area_filled(self->npages, variant->thp, 9);
	pid_t pid;

	if (variant->coherent)
		return;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	pid = child_fork();
	if (!pid) {
		if (device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				  ALWAYS))
			_exit(1);
		if (access_signal(ptr, false) != SIGBUS)
			_exit(2);
		if (device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0))
			_exit(3);
		_exit(!!wrong(ptr, 9, self->npages));
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, wrong(ptr, 9, self->npages));
}

/* Verifies that migration succeeds if a large folio cannot be allocated. */
TEST_F(devmem, alloc_fails_once)
{
	char *ptr = area_filled(self->npages, variant->thp, 10);
	struct hmm_devmem_test_cmd cmd;
	long there;

	ASSERT_EQ(0, device_cmd(self->fd, HMM_DEVMEM_TEST_FLAGS, ptr, NULL,
				HMM_DEVMEM_TEST_FLAG_FAIL_ALLOC, &cmd));
	there = to_device(self->fd, ptr, self->npages);
	EXPECT_LT(0, there);
	EXPECT_EQ(there, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(there, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 10, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 10, self->npages));
}

/*
 * Verifies that a device can be filled to its last page, that pages which do not fit
 * stay in RAM, and that all device memory can be used again afterwards.
 */
TEST_F(devmem, full)
{
	unsigned long size = self->before.size;
	unsigned long more = size + 64;
	char *ptr = area_numbered(more, variant->thp);
	int round;

	for (round = 0; round < 2; round++) {
		ASSERT_EQ(size, to_device(self->fd, ptr, more));
		EXPECT_EQ(size, device_used(self->ctl));
		EXPECT_EQ(size, to_device(self->fd, ptr, more));
		EXPECT_EQ(0, SINCE(copy_errors));
		ASSERT_EQ(0, misnumbered(ptr, more));
		to_ram(self->fd, ptr, more);
		EXPECT_EQ(0, device_used(self->ctl));
	}
	EXPECT_EQ(2 * size, SINCE(to_device));
}

/* One of the processes that fill the device together. Returns 0 if all is right. */
static int fill_share(int nr, unsigned long npages, const struct gate *done,
		      const struct gate *go)
{
	int fd = device_open(nr);
	char *ptr = area_filled(npages, false, getpid());
	int status = all_moved(fd, ptr, npages) != (long)npages;

	if (!gate_open(done, 1) || !gate_wait(go))
		return 2;
	return status ?: wrong(ptr, getpid(), npages) ? 3 : 0;
}

/*
 * Verifies that several processes can fill a device to its last page, and that all
 * of it can be allocated as large folios when they have exited.
 */
TEST_F(devmem, full_by_many_processes)
{
	enum { NR = 4 };
	unsigned long size = self->before.size;
	struct gate done, go;
	pid_t pids[NR];
	char *ptr;
	int i;

	gate_init(&done);
	gate_init(&go);
	for (i = 0; i < NR; i++)
		pids[i] = child_start(fill_share(variant->nr, size / NR, &done, &go));
	for (i = 0; i < NR; i++)
		ASSERT_TRUE(gate_wait(&done));
	EXPECT_EQ(size, device_used(self->ctl));
	ASSERT_TRUE(gate_open(&go, NR));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	gate_close(&done);
	gate_close(&go);
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));

	ptr = area_filled(size, true, 12);
	ASSERT_EQ(size, all_moved(self->fd, ptr, size));
	EXPECT_EQ(size, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 12, size));
}

/* Verifies that pages freed on a full device make room for as many others. */
TEST_F(devmem, full_then_free)
{
	/* A part of a large device folio cannot be freed alone */
	unsigned long nr = variant->thp ? HUGE_PAGES : 3;
	unsigned long size = self->before.size;
	char *ptr = area_numbered(size, variant->thp);
	char *other = area_filled(nr + 5, false, 11);

	ASSERT_EQ(size, all_moved(self->fd, ptr, size));
	EXPECT_GE(0, to_device(self->fd, other, nr + 5));
	EXPECT_EQ(0, wrong(other, 11, nr + 5));
	ASSERT_EQ(0, madvise(ptr + HUGE, nr * PAGE, MADV_DONTNEED));
	EXPECT_EQ(size - nr, device_used(self->ctl));
	EXPECT_EQ(nr, to_device(self->fd, other, nr + 5));
	EXPECT_EQ(size, device_used(self->ctl));
	EXPECT_EQ(0, wrong(other, 11, nr + 5));
}

/*
 * Verifies that a CPU fault on a large folio ends if each time there is memory for
 * the page that faults, but none for the folio, nor for the folio's first page.
 */
TEST_F(devmem, fault_without_first_page)
{
	const char *interval = "/sys/kernel/debug/hmm_devmem/fail_ram/interval";
	char *ptr = area_filled(self->npages, variant->thp, 14);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
	ASSERT_TRUE(file_write(interval, "2"));
	ASSERT_TRUE(fail_attr("fail_ram", 100, -1));
	EXPECT_EQ(pattern_word(14, 5 * WORDS), read_word(ptr + 5 * PAGE));
	fail_attrs_clear();
	ASSERT_TRUE(file_write(interval, "1"));
	EXPECT_EQ(0, wrong(ptr, 14, self->npages));
}

/*
 * Verifies that neither process loses data when a large folio that both map is
 * migrated to small pages, because no large folio can be allocated. If core is asked
 * to split the folio while it is being migrated, it does so in one of the page
 * tables only.
 */
TEST_F(devmem, fork_then_split_to_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 15);
	struct child child;

	sharer_start(&child, ptr, 15, self->npages);
	ASSERT_TRUE(fail_attr("fail_device_large", 100, -1));
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	fail_attrs_clear();
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(0, wrong(ptr, 15, self->npages));
}

TEST_F(devmem, fork_then_split_to_ram)
{
	char *ptr = area_filled(self->npages, variant->thp, 17);
	struct child child;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	sharer_start(&child, ptr, 17, self->npages);
	ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
	EXPECT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	fail_attrs_clear();
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(0, wrong(ptr, 17, self->npages));
}

TEST_F(devmem, fork_then_split_in_fault)
{
	char *ptr = area_filled(self->npages, variant->thp, 19);
	struct child child;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	sharer_start(&child, ptr, 19, self->npages);
	ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
	EXPECT_EQ(pattern_word(19, 5 * WORDS), read_word(ptr + 5 * PAGE));
	EXPECT_EQ(0, wrong(ptr, 19, self->npages));
	fail_attrs_clear();
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(0, wrong(ptr, 19, self->npages));
}

/* Free memory, MiB. */
static long mem_free(void)
{
	const long kib = number_of(file_read("/proc/meminfo"), "MemFree:");

	return (kib + memory_of_cpus() * (PAGE / 1024)) / 1024;
}

#define DROP_ROUNDS	40

/*
 * Verifies that those of many small runs that fail leak no memory, neither at the
 * destination nor at the source, and that they are not confused with the others:
 * core uses entries of destinations whose pages are free again.
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
			ASSERT_EQ(32, all_moved(self->fd, ptr + i * PAGE, 32));
		ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
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
