/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Parts of the machine that tests use or watch: swap, physical addresses and the
 * kernel's counters.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_SYSTEM_H
#define _SELFTESTS_HMM_DEVMEM_SYSTEM_H

#include <linux/mempolicy.h>
#include <sys/swap.h>
#include <sys/syscall.h>

#include "files.h"
#include "test.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

/* Swap, on a RAM disk. */

#define SWAP_DISK	"/dev/ram0"

static inline int swap_begin(unsigned long npages)
{
	char page[PAGE] = "";
	__u32 *header = (__u32 *)(page + 1024);
	int fd = open(SWAP_DISK, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	header[0] = 1;
	header[1] = npages - 1;
	memcpy(page + PAGE - 10, "SWAPSPACE2", 10);
	if (write(fd, page, PAGE) != PAGE || fsync(fd)) {
		close(fd);
		return -EIO;
	}
	close(fd);
	return swapon(SWAP_DISK, 0) ? -errno : 0;
}

/* NUMA nodes. */

static inline bool area_bind(void *ptr, unsigned long npages, int node)
{
	unsigned long nodes = 1UL << node;

	return !syscall(SYS_mbind, ptr, npages * PAGE, MPOL_BIND, &nodes,
			8 * sizeof(nodes), 0);
}

#define NUMA_BALANCING	"/proc/sys/kernel/numa_balancing"
#define SCHED_NUMA	"/sys/kernel/debug/sched/numa_balancing/"

/* Let NUMA balancing start soon, and scan often. */
static inline bool balancing_begin(void)
{
	return file_write(SCHED_NUMA "scan_delay_ms", "10") &&
	       file_write(SCHED_NUMA "scan_period_min_ms", "20") &&
	       file_write(SCHED_NUMA "scan_period_max_ms", "40") &&
	       file_write(NUMA_BALANCING, "1");
}

/* KSM. */

#define KSM		"/sys/kernel/mm/ksm/"

/* Let KSM merge as fast as it can. Returns false if there is no KSM. */
static inline bool ksm_begin(void)
{
	return file_write(KSM "sleep_millisecs", "2") &&
	       file_write(KSM "pages_to_scan", "500") &&
	       file_write(KSM "run", "1");
}

/* Number of physical ranges with the name of a device; not of coherent devices. */
static inline int ranges(int nr)
{
	const char *text = file_read("/proc/iomem");
	char name[40];
	int count = 0;

	snprintf(name, sizeof(name), " : hmm_devmem_test%d\n", nr);
	while ((text = strstr(text, name))) {
		text += strlen(name);
		count++;
	}
	return count;
}

/* The same, after a wait: a zombie's range goes some time after its last page. */
static inline int ranges_soon(int nr, int expected)
{
	soon(ranges(nr) == expected);
	return ranges(nr);
}

/* A counter of /proc/vmstat. */
static inline long vm_events(const char *name)
{
	const char *text = file_read("/proc/vmstat"), *found;

	found = strstr(text, name);
	while (found && (found[-1] != '\n' || found[strlen(name)] != ' '))
		found = strstr(found + 1, name);
	return found ? atol(found + strlen(name)) : -1;
}

/*
 * Reclaim pages to swap; returns whether any was written there. Twice: of a page that was
 * marked by MADV_FREE, the first time only finds that it was written to since.
 */
static inline bool page_out(char *ptr, unsigned long npages)
{
	const long out = vm_events("pswpout");
	int i;

	for (i = 0; i < 2; i++)
		if (madvise(ptr, npages * PAGE, MADV_PAGEOUT))
			return false;
	return vm_events("pswpout") > out;
}

/*
 * Free pages that MemFree leaves out because they are in per-CPU lists: thousands of
 * huge pages where the zones' watermarks are high.
 */
static inline long memory_of_cpus(void)
{
	const char *text = file_read("/proc/zoneinfo");
	long sum = 0;

	while ((text = strstr(text, " count:"))) {
		text += strlen(" count:");
		sum += atol(text);
	}
	return sum;
}

/* Pages that are neither free nor in use for anything that the kernel reports. */
static inline long memory_unknown(void)
{
	static const char * const known[] = {
		"MemFree:", "Buffers:", "Cached:", "SwapCached:", "AnonPages:",
		"Slab:", "KernelStack:", "PageTables:", "Percpu:",
	};
	const char *text = file_read("/proc/meminfo");
	long sum = number_of(text, "MemTotal:");
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		sum -= number_of(text, known[i]);
	return sum * 1024 / (long)PAGE - memory_of_cpus();
}

/* Open the kernel's log, at its end. */
static inline int log_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	lseek(fd, 0, SEEK_END);
	return fd;
}

/* Does a line since then have both texts? */
static inline bool log_has(int fd, const char *text, const char *more)
{
	char line[2000];
	bool found = false;
	ssize_t len;

	do {
		len = read(fd, line, sizeof(line) - 1);
		line[len > 0 ? len : 0] = 0;
		found |= strstr(line, text) && strstr(line, more);
	} while (len > 0 || (len < 0 && errno == EPIPE));
	lseek(fd, 0, SEEK_DATA);
	return found;
}

#endif /* _SELFTESTS_HMM_DEVMEM_SYSTEM_H */
