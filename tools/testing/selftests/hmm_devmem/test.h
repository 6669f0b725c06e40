/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers that the programs of this folder share: calls of the test device, mappings
 * with a pattern in them, and queries of the kernel about where pages are.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_TEST_H
#define _SELFTESTS_HMM_DEVMEM_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/const.h>

#include "test_hmm_devmem_uapi.h"

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define HUGE_PAGES	(HUGE / PAGE)
#define WORDS		(PAGE / sizeof(__u64))

#define CLASSIC		-1

/* Calls of the device: all return a count, or -errno. */

static inline int device_open(int nr)
{
	char path[40];
	int fd;

	if (nr == CLASSIC)
		snprintf(path, sizeof(path), "/dev/hmm_devmem_classic");
	else
		snprintf(path, sizeof(path), "/dev/hmm_devmem_test%d", nr);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static inline int device_ioctl(int fd, unsigned long request, void *arg)
{
	int ret;

	do {
		ret = ioctl(fd, request, arg);
	} while (ret && errno == EINTR);
	return ret ? -errno : 0;
}

static inline int device_cmd(int fd, unsigned long request, const void *addr,
			     void *ptr, unsigned long npages,
			     struct hmm_devmem_test_cmd *cmd)
{
	*cmd = (struct hmm_devmem_test_cmd) {
		.addr = (uintptr_t)addr,
		.ptr = (uintptr_t)ptr,
		.npages = npages,
	};
	return device_ioctl(fd, request, cmd);
}

/* Returns the number of pages the call was successful for, or -errno. */
static inline long device_pages(int fd, unsigned long request, const void *addr,
				void *ptr, unsigned long npages)
{
	struct hmm_devmem_test_cmd cmd;
	int ret = device_cmd(fd, request, addr, ptr, npages, &cmd);

	return ret ? ret : (long)cmd.cpages;
}

static inline long to_device(int fd, const void *addr, unsigned long npages)
{
	return device_pages(fd, HMM_DEVMEM_TEST_TO_DEVICE_ONLY, addr, NULL,
			    npages);
}

static inline long to_ram(int fd, const void *addr, unsigned long npages)
{
	return device_pages(fd, HMM_DEVMEM_TEST_TO_RAM, addr, NULL, npages);
}

static inline long device_read(int fd, const void *addr, void *data,
			       unsigned long npages)
{
	return device_pages(fd, HMM_DEVMEM_TEST_READ, addr, data, npages);
}

static inline long device_write(int fd, const void *addr, void *data,
				unsigned long npages)
{
	return device_pages(fd, HMM_DEVMEM_TEST_WRITE, addr, data, npages);
}

/* All ways to ask for a page fault of the device. */
static const unsigned long all_flags[] = {
	0,
	HMM_DEVMEM_TEST_FAULT_WRITE,
	HMM_DEVMEM_TEST_FAULT_MIGRATE,
	HMM_DEVMEM_TEST_FAULT_WRITE | HMM_DEVMEM_TEST_FAULT_MIGRATE,
};

#define NR_FLAGS	(sizeof(all_flags) / sizeof(*all_flags))

/* Page faults of the device for a range; @flags are HMM_DEVMEM_TEST_FAULT_*. */
static inline long device_fault(int fd, const void *addr, unsigned long flags,
				unsigned long npages)
{
	return device_pages(fd, HMM_DEVMEM_TEST_FAULT, addr, (void *)flags, npages);
}

/* All fields have all bits set if the call fails: no test expects that. */
static inline struct hmm_devmem_test_stats device_stats(int fd)
{
	struct hmm_devmem_test_stats stats;

	if (device_ioctl(fd, HMM_DEVMEM_TEST_STATS, &stats))
		memset(&stats, 0xff, sizeof(stats));
	return stats;
}

static inline long device_used(int fd)
{
	struct hmm_devmem_test_stats stats = device_stats(fd);

	return stats.allocated - stats.freed;
}

/* Returns the number of pages left in the range, or -errno. */
static inline long device_evict(int fd, unsigned long first,
				unsigned long npages)
{
	struct hmm_devmem_test_evict evict = {
		.first = first,
		.npages = npages,
	};
	int ret = device_ioctl(fd, HMM_DEVMEM_TEST_EVICT, &evict);

	return ret ? ret : (long)evict.left;
}

static inline long device_evict_all(int fd)
{
	return device_evict(fd, 0, device_stats(fd).size);
}

/* @error: A positive number; 0 for EIO. */
static inline int device_inject_error(int fd, unsigned int what,
				      unsigned int skip, unsigned int times,
				      unsigned int error)
{
	struct hmm_devmem_test_inject inject = {
		.what = what,
		.skip = skip,
		.times = times,
		.error = error,
	};

	return device_ioctl(fd, HMM_DEVMEM_TEST_INJECT, &inject);
}

static inline int device_inject(int fd, unsigned int what, unsigned int skip,
				unsigned int times)
{
	return device_inject_error(fd, what, skip, times, 0);
}

#define ALWAYS	(~0U)

static inline int device_unplug(int fd)
{
	return device_ioctl(fd, HMM_DEVMEM_TEST_UNPLUG, NULL);
}

static inline int device_plug(int fd)
{
	return device_ioctl(fd, HMM_DEVMEM_TEST_PLUG, NULL);
}

static inline void sleep_ms(unsigned int ms)
{
	struct timespec t = {
		.tv_sec = ms / 1000,
		.tv_nsec = ms % 1000 * 1000000L,
	};

	nanosleep(&t, NULL);
}

static inline long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

/*
 * For how long to wait for what must happen. This is no measurement: a wait that
 * takes longer never ends.
 */
#define HANG_MS		900000

/* Wait until something is true; returns whether it is. */
#define soon(condition)							\
({									\
	const long soon_end = now_ms() + HANG_MS;			\
	bool soon_is;							\
									\
	while (!(soon_is = (condition)) && now_ms() < soon_end)		\
		sleep_ms(5);						\
	soon_is;							\
})

/*
 * Pages in use, after a wait for @expected: the mm of a process that has exited can
 * live a moment longer, if the driver or the kernel holds a reference to it.
 */
static inline long device_used_soon(int fd, long expected)
{
	soon(device_used(fd) == expected);
	return device_used(fd);
}

/* Is this a kernel with all checks on, which takes ten times as long? Only those have this. */
static inline bool is_debug_kernel(void)
{
	return !access("/sys/kernel/debug/kmemleak", F_OK);
}

/* Keep the calling thread to a CPU; returns whether that is possible. */
static inline bool run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	return !sched_setaffinity(0, sizeof(cpus), &cpus);
}

/*
 * How many rounds a test has that does something again and again, because what it looks
 * for needs luck: @rounds, but a fifth of that on a debug kernel, whose checks report the
 * first time.
 */
static inline int rounds_of(int rounds)
{
	return is_debug_kernel() ? rounds / 5 : rounds;
}

/* Queries of where pages are. */

static inline bool state_is_device(unsigned char state)
{
	return state != HMM_DEVMEM_TEST_PROT_ERROR && (state & 0xf0) > 0x10;
}

static inline bool state_is_local(unsigned char state)
{
	return state != HMM_DEVMEM_TEST_PROT_ERROR &&
	       ((state & 0xf0) == HMM_DEVMEM_TEST_PRIVATE_LOCAL ||
		(state & 0xf0) == HMM_DEVMEM_TEST_COHERENT_LOCAL);
}

/* Pages of [@addr, @addr + @npages) that the device says it has, or -errno. */
static inline long resident(int fd, const void *addr, unsigned long npages)
{
	unsigned char *states = malloc(npages);
	unsigned long i;
	long ret;

	ret = device_pages(fd, HMM_DEVMEM_TEST_SNAPSHOT, addr, states, npages);
	if (ret >= 0 && ret != (long)npages)
		ret = -EIO;
	if (ret > 0)
		for (i = 0, ret = 0; i < npages; i++)
			ret += state_is_local(states[i]);
	free(states);
	return ret;
}

/* Pages of a range that the device has an entry for, or -errno. */
static inline long mapped(int fd, const void *addr, unsigned long npages)
{
	return device_pages(fd, HMM_DEVMEM_TEST_MAPPED, addr, NULL, npages);
}

/* How many of these are on the device. */
static inline long mapped_local(int fd, const void *addr, unsigned long npages)
{
	struct hmm_devmem_test_cmd cmd;
	int ret = device_cmd(fd, HMM_DEVMEM_TEST_MAPPED, addr, NULL, npages, &cmd);

	return ret ? ret : (long)cmd.faults;
}

/*
 * Move a range in a test that needs @expected pages of it on the device. A task of the
 * kernel's, or one that does not run at the moment, can have a reference to a page; such a
 * page does not move. That this asks again is printed. That one call moves all pages is what
 * to_device of migrate.c is about. The classic device says how many pages it has moved, so
 * count them.
 */
static inline long moved_soon(int fd, const void *addr, unsigned long npages,
			      unsigned long expected)
{
	long ret = to_device(fd, addr, npages);
	int tries;

	for (tries = 0; ret >= 0 && ret < (long)expected && tries < 100; tries++) {
		printf("# %ld of %lu pages are on the device, asking again\n", ret, expected);
		sched_yield();
		ret = to_device(fd, addr, npages);
		if (ret >= 0)
			ret = resident(fd, addr, npages);
	}
	return ret;
}

/* The same for all pages. */
static inline long all_moved(int fd, const void *addr, unsigned long npages)
{
	return moved_soon(fd, addr, npages, npages);
}

/* Number of pages whose state in a snapshot @holds(state, @bit), or -1. */
static inline long count_pages(int fd, const void *addr, unsigned long npages,
			       bool (*holds)(unsigned char state, unsigned char bit),
			       unsigned char bit)
{
	unsigned char *states = malloc(npages);
	unsigned long i;
	long count = -1;

	if (device_pages(fd, HMM_DEVMEM_TEST_SNAPSHOT, addr, states, npages) ==
	    (long)npages)
		for (i = 0, count = 0; i < npages; i++)
			count += holds(states[i], bit);
	free(states);
	return count;
}

static inline bool state_has(unsigned char state, unsigned char bit)
{
	return state & bit;
}

/* Number of pages whose state in a snapshot has @bit, or -1. */
static inline long count_states(int fd, const void *addr, unsigned long npages,
				unsigned char bit)
{
	return count_pages(fd, addr, npages, state_has, bit);
}

#define PAGEMAP_SWAP	_BITULL(62)
#define PAGEMAP_PRESENT	_BITULL(63)

/* The entry of a page in /proc/self/pagemap. */
static inline __u64 pagemap_entry(const void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	__u64 entry = 0;

	if (pread(fd, &entry, sizeof(entry), (uintptr_t)addr / PAGE * 8) != 8)
		entry = 0;
	close(fd);
	return entry;
}

/* Number of pages whose pagemap entry has all bits of @bits set. */
static inline long pagemap_count(const void *addr, unsigned long npages,
				 __u64 bits)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	__u64 *entries = calloc(npages, sizeof(*entries));
	ssize_t size = npages * sizeof(*entries);
	unsigned long i;
	long count = -1;

	if (pread(fd, entries, size, (uintptr_t)addr / PAGE * 8) == size)
		for (i = 0, count = 0; i < npages; i++)
			count += (entries[i] & bits) == bits;
	free(entries);
	close(fd);
	return count;
}

/*
 * Single accesses. Memory moves without the compiler's knowledge, so it must neither
 * keep values in registers nor leave accesses out.
 */

static inline void barrier(void)
{
	asm volatile("" : : : "memory");
}

static inline __u64 read_word(const void *addr)
{
	__u64 value;

	barrier();
	value = *(const __u64 *)addr;
	asm volatile("" : : "r" (value) : "memory");
	return value;
}

static inline void write_word(void *addr, __u64 value)
{
	*(__u64 *)addr = value;
	barrier();
}

static inline void touch(const char *addr, unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		read_word(addr + i * PAGE);
}

/* Patterns: each word of each page is different. */

static inline __u64 pattern_word(unsigned int seed, unsigned long word)
{
	return ((__u64)seed << 48) + (word + 1) * 0x9e3779b97f4a7c15ULL;
}

/* @first: number of the first page in the pattern. */
static inline void fill_from(void *addr, unsigned int seed, unsigned long first,
			     unsigned long npages)
{
	__u64 *p = addr;
	unsigned long i;

	for (i = 0; i < npages * WORDS; i++)
		p[i] = pattern_word(seed, first * WORDS + i);
	barrier();
}

static inline void fill(void *addr, unsigned int seed, unsigned long npages)
{
	fill_from(addr, seed, 0, npages);
}

/* Number of pages with another content. */
static inline long wrong_from(const void *addr, unsigned int seed,
			      unsigned long first, unsigned long npages)
{
	unsigned long page, i;
	const __u64 *p = addr;
	long count = 0;
	bool ok;

	barrier();
	for (page = 0; page < npages; page++, p += WORDS) {
		for (i = 0, ok = true; i < WORDS; i++)
			ok &= p[i] == pattern_word(seed,
						   (first + page) * WORDS + i);
		count += !ok;
	}
	return count;
}

static inline long wrong(const void *addr, unsigned int seed,
			 unsigned long npages)
{
	return wrong_from(addr, seed, 0, npages);
}

static inline long not_zero(const void *addr, unsigned long npages)
{
	unsigned long page, i;
	const __u64 *p = addr;
	long count = 0;
	__u64 bits;

	barrier();
	for (page = 0; page < npages; page++, p += WORDS) {
		for (i = 0, bits = 0; i < WORDS; i++)
			bits |= p[i];
		count += !!bits;
	}
	return count;
}

/* Numbers: the first word of each page is different, and the rest is not written. */

static inline void number(char *ptr, unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		write_word(ptr + i * PAGE, i + 1);
}

/* Number of pages with another first word; @first: as for wrong_from(). */
static inline long misnumbered_from(const char *ptr, unsigned long first,
				    unsigned long npages)
{
	unsigned long i;
	long count = 0;

	for (i = 0; i < npages; i++)
		count += read_word(ptr + i * PAGE) != first + i + 1;
	return count;
}

static inline long misnumbered(const char *ptr, unsigned long npages)
{
	return misnumbered_from(ptr, 0, npages);
}

/* Accesses that may raise a signal. */

static sigjmp_buf access_env;

static inline void access_handler(int sig)
{
	siglongjmp(access_env, sig);
}

/* The signal that an access raises, or 0. A write does not change the content. */
static inline int access_signal(void *addr, bool write)
{
	struct sigaction action = { .sa_handler = access_handler };
	struct sigaction old_bus, old_segv;
	int sig;

	sigaction(SIGBUS, &action, &old_bus);
	sigaction(SIGSEGV, &action, &old_segv);
	sig = sigsetjmp(access_env, 1);
	if (!sig) {
		if (write)
			__atomic_fetch_or((__u64 *)addr, 0, __ATOMIC_SEQ_CST);
		else
			read_word(addr);
	}
	sigaction(SIGBUS, &old_bus, NULL);
	sigaction(SIGSEGV, &old_segv, NULL);
	return sig;
}

/* Mappings that the fixture's teardown removes. */

#define MAX_AREAS 16

static struct {
	char *ptr;
	size_t size;
} areas[MAX_AREAS];

static inline void area_remember(void *ptr, size_t size)
{
	int i;

	for (i = 0; i < MAX_AREAS && areas[i].ptr; i++)
		;
	if (i == MAX_AREAS)
		abort();
	areas[i].ptr = ptr;
	areas[i].size = size;
}

static inline void areas_unmap(void)
{
	int i;

	for (i = 0; i < MAX_AREAS; i++)
		if (areas[i].ptr)
			munmap(areas[i].ptr, areas[i].size);
	memset(areas, 0, sizeof(areas));
}

/*
 * @npages of anonymous memory, at a multiple of 2 MiB; with @thp the kernel
 * backs it with huge pages, else never.
 */
static inline char *area_map(unsigned long npages, bool thp)
{
	size_t size = npages * PAGE;
	char *ptr, *start;

	ptr = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ptr == MAP_FAILED)
		abort();
	start = (char *)(((uintptr_t)ptr + HUGE - 1) & ~(HUGE - 1));
	if (start != ptr)
		munmap(ptr, start - ptr);
	munmap(start + size, ptr + HUGE - start);
	madvise(start, size, thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	area_remember(start, size);
	return start;
}

/* Like area_map(), filled with the pattern of @seed. */
static inline char *area_filled(unsigned long npages, bool thp,
				unsigned int seed)
{
	char *ptr = area_map(npages, thp);

	fill(ptr, seed, npages);
	return ptr;
}

/* Like area_map(), with a number in each page. */
static inline char *area_numbered(unsigned long npages, bool thp)
{
	char *ptr = area_map(npages, thp);

	number(ptr, npages);
	return ptr;
}

/* Change of a counter since the test began. */
#define SINCE(field)							\
	since(self->ctl, &self->before,					\
	      offsetof(struct hmm_devmem_test_stats, field))

static inline long since(int fd, const struct hmm_devmem_test_stats *before,
			 size_t offset)
{
	struct hmm_devmem_test_stats now = device_stats(fd);

	return *(__u64 *)((char *)&now + offset) -
	       *(const __u64 *)((const char *)before + offset);
}

/* More calls of the device: power, lost memory, injected failures. */

static inline int device_plug_as(int fd, __u64 size, __u32 flags, __u32 delay_us)
{
	struct hmm_devmem_test_plug plug = {
		.size = size,
		.flags = flags,
		.delay_us = delay_us,
	};

	return device_ioctl(fd, HMM_DEVMEM_TEST_PLUG_AS, &plug);
}

static inline int device_suspend(int fd)
{
	return device_ioctl(fd, HMM_DEVMEM_TEST_SUSPEND, NULL);
}

static inline int device_resume(int fd)
{
	return device_ioctl(fd, HMM_DEVMEM_TEST_RESUME, NULL);
}

static inline int device_mark_dead(int fd)
{
	return device_ioctl(fd, HMM_DEVMEM_TEST_MARK_DEAD, NULL);
}

static inline int device_lose(int fd, unsigned long first, unsigned long npages)
{
	struct hmm_devmem_test_range range = {
		.first = first,
		.npages = npages,
	};

	return device_ioctl(fd, HMM_DEVMEM_TEST_LOSE, &range);
}

static inline int device_fail_next(int fd, __u32 steps)
{
	return device_ioctl(fd, HMM_DEVMEM_TEST_FAIL_NEXT, &steps);
}

/* All fields have all bits set if the call fails. */
static inline struct hmm_devmem_test_evict device_evict_why(int fd)
{
	struct hmm_devmem_test_evict evict = {
		.npages = device_stats(fd).size,
	};

	if (device_ioctl(fd, HMM_DEVMEM_TEST_EVICT, &evict))
		memset(&evict, 0xff, sizeof(evict));
	return evict;
}

/* As to_device(), with the reasons. All fields have all bits set if the call fails. */
static inline int device_migrate(int fd, const void *addr, unsigned long npages,
				 struct hmm_devmem_test_migrate *migrate)
{
	int ret;

	*migrate = (struct hmm_devmem_test_migrate) {
		.addr = (uintptr_t)addr,
		.npages = npages,
	};
	ret = device_ioctl(fd, HMM_DEVMEM_TEST_MIGRATE, migrate);
	if (ret)
		memset(migrate, 0xff, sizeof(*migrate));
	return ret;
}

/* Pages of the range for which there is a result: all of them. */
static inline unsigned long migrate_sum(const struct hmm_devmem_test_migrate *migrate)
{
	return migrate->moved + migrate->busy + migrate->no_device_memory +
	       migrate->no_memory + migrate->not_copied + migrate->not_suitable;
}

/* Files of the kernel that take or give a word. */

static inline bool file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t len = strlen(text);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, len) == len;
	close(fd);
	return ok;
}

static inline bool file_write_number(const char *path, long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%ld", number);
	return file_write(path, text);
}

/* The content of a file as a string; empty if it cannot be read. */
static inline const char *file_read(const char *path)
{
	static char text[1 << 16];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = 0, nr;

	do {
		nr = fd < 0 ? 0 : read(fd, text + len, sizeof(text) - 1 - len);
		len += nr > 0 ? nr : 0;
	} while (nr > 0);
	if (fd >= 0)
		close(fd);
	text[len] = 0;
	return text;
}

/* Let a step of the library fail with a probability, so often; -1 for always. */
static inline bool fail_attr(const char *name, int probability, int times)
{
	char path[100], text[20];

	snprintf(path, sizeof(path), "/sys/kernel/debug/hmm_devmem/%s/verbose",
		 name);
	if (!file_write(path, "0"))
		return false;
	snprintf(path, sizeof(path), "/sys/kernel/debug/hmm_devmem/%s/times",
		 name);
	snprintf(text, sizeof(text), "%d", times);
	if (!file_write(path, text))
		return false;
	snprintf(path, sizeof(path),
		 "/sys/kernel/debug/hmm_devmem/%s/probability", name);
	snprintf(text, sizeof(text), "%d", probability);
	return file_write(path, text);
}

/*
 * For how many seconds removal and suspend wait for pages in use: 1, unless a test says
 * otherwise. On a busy machine a task can have a reference to a page, and not run, for
 * longer than that.
 */
#define EVICT_WAIT_S	"/sys/kernel/debug/hmm_devmem/evict_wait_s"

/*
 * Let them wait for as long as it takes, or (@long_enough is false) no longer than they
 * usually do: pages that are still in use at removal then are lost.
 */
static inline bool removal_waits(bool long_enough)
{
	return file_write_number(EVICT_WAIT_S, long_enough ? HANG_MS / 1000 : 1);
}

static inline void fail_attrs_clear(void)
{
	static const char * const names[] = {
		"fail_device", "fail_device_large", "fail_ram",
		"fail_ram_large", "fail_dma", "fail_blocks", NULL,
	};
	const char * const *name;

	for (name = names; *name; name++)
		fail_attr(*name, 0, 1);
}

#endif /* _SELFTESTS_HMM_DEVMEM_TEST_H */
