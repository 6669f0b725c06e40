// SPDX-License-Identifier: GPL-2.0
/*
 * What core reports about memory that is on the device, and does with it: core
 * files, smaps, MADV_COLLAPSE, access to the memory of another process.
 */
#define ONLY_PRIVATE
#include "fixture.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define BYTE		0x5a

/*
 * Core files.
 */

#define CORE_PATTERN	"/proc/sys/kernel/core_pattern"

/* Pages of a file that consist of @byte. */
static long pages_of(const char *path, int byte)
{
	FILE *file = fopen(path, "r");
	unsigned char page[PAGE];
	long count = 0;
	int i;

	if (!file)
		return -errno;
	while (fread(page, PAGE, 1, file) == 1) {
		for (i = 0; i < PAGE && page[i] == byte; i++)
			;
		count += i == PAGE;
	}
	fclose(file);
	return count;
}

/* Verifies that a process's memory on the device is in its core file. */
TEST_F(devmem, core_file)
{
	const struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	char path[40], *ptr;
	pid_t pid;

	ASSERT_TRUE(file_write(CORE_PATTERN, "/tmp/core.%p"));
	mkdir("/tmp", 0777);
	pid = child_fork();
	if (!pid) {
		signal(SIGABRT, SIG_DFL);
		setrlimit(RLIMIT_CORE, &limit);
		ptr = area_map(self->npages, variant->thp);
		memset(ptr, BYTE, self->npages * PAGE);
		if (all_moved(device_open(variant->nr), ptr, self->npages) !=
		    (long)self->npages)
			_exit(1);
		abort();
	}
	EXPECT_EQ(128 + SIGABRT, child_status(pid));
	snprintf(path, sizeof(path), "/tmp/core.%d", pid);
	EXPECT_EQ(self->npages, pages_of(path, BYTE));
	unlink(path);
	file_write(CORE_PATTERN, "core");
}

/* Verifies that another process can read memory that is on the device. */
TEST_F(devmem, other_process)
{
	char *ptr = area_map(self->npages, variant->thp);
	char *data = area_map(self->npages, false);
	const size_t size = self->npages * PAGE;
	struct iovec local = { data, size }, remote = { ptr, size };
	char path[40];
	pid_t pid;
	int fd;

	pid = child_fork();
	if (!pid) {
		fill(ptr, 2, self->npages);
		if (all_moved(device_open(variant->nr), ptr, self->npages) !=
		    (long)self->npages)
			_exit(1);
		raise(SIGSTOP);
		_exit(all_moved(device_open(variant->nr), ptr, self->npages) !=
		      (long)self->npages || raise(SIGSTOP));
	}
	ASSERT_TRUE(child_stopped(pid));
	EXPECT_EQ(size, process_vm_readv(pid, &local, 1, &remote, 1, 0));
	EXPECT_EQ(0, wrong(data, 2, self->npages));
	kill(pid, SIGCONT);
	ASSERT_TRUE(child_stopped(pid));
	memset(data, 0, size);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	EXPECT_EQ(size, pread(fd, data, size, (uintptr_t)ptr));
	EXPECT_EQ(0, wrong(data, 2, self->npages));
	close(fd);
	kill(pid, SIGCONT);
	EXPECT_EQ(0, child_status(pid));
}

/*
 * smaps.
 */

/* A value in the smaps entry of the mapping that contains @addr, in kB. */
static long smaps_kb(const char *addr, const char *name)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool found = false;
	char line[512];
	long kb = -1;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			found = start <= (uintptr_t)addr && (uintptr_t)addr < end;
		else if (found && !strncmp(line, name, strlen(name)) &&
			 line[strlen(name)] == ':')
			kb = atol(line + strlen(name) + 1);
	}
	if (file)
		fclose(file);
	return kb;
}

/* Verifies that memory on the device is counted like other memory, shared or not. */
TEST_F(devmem, smaps)
{
	char *ptr = area_filled(HUGE_PAGES, variant->thp, 1);
	const long kb = HUGE / 1024;
	struct gate gate;
	pid_t pid;

	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(kb, smaps_kb(ptr, "Rss"));
	EXPECT_EQ(kb, smaps_kb(ptr, "Pss"));
	EXPECT_EQ(kb, smaps_kb(ptr, "Anonymous"));
	EXPECT_EQ(0, smaps_kb(ptr, "Shared_Clean") + smaps_kb(ptr, "Shared_Dirty"));
	EXPECT_EQ(kb, smaps_kb(ptr, "Private_Clean") + smaps_kb(ptr, "Private_Dirty"));
	gate_init(&gate);
	pid = child_start(!gate_wait(&gate));
	EXPECT_EQ(kb, smaps_kb(ptr, "Rss"));
	EXPECT_EQ(kb / 2, smaps_kb(ptr, "Pss"));
	EXPECT_EQ(kb, smaps_kb(ptr, "Shared_Clean") + smaps_kb(ptr, "Shared_Dirty"));
	EXPECT_EQ(HUGE_PAGES, resident(self->fd, ptr, HUGE_PAGES));
	ASSERT_TRUE(gate_open(&gate, 1));
	EXPECT_EQ(0, child_status(pid));
	gate_close(&gate);
}

/*
 * Verifies that MADV_COLLAPSE of a huge page that is on the device causes no warning
 * of the kernel.
 */
TEST_F(devmem, collapse)
{
	char *ptr = area_filled(HUGE_PAGES, variant->thp, 1);

	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
	if (!variant->thp)
		touch(ptr, HUGE_PAGES);
	madvise(ptr, HUGE, MADV_HUGEPAGE);
	EXPECT_EQ(0, madvise(ptr, HUGE, MADV_COLLAPSE));
	EXPECT_EQ(variant->thp ? HUGE_PAGES : 0,
		  resident(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(0, wrong(ptr, 1, HUGE_PAGES));
}

TEST_HARNESS_MAIN
