// SPDX-License-Identifier: GPL-2.0
/*
 * Large folios of which a part is evicted, or for which no large destination can be
 * allocated: their data is not lost, nor is memory when the process zaps them
 * meanwhile, and no folio is split in vain.
 *
 * ==== ==========================================================================
 * C4   core skips a large folio if eviction begins inside of it
 * C5   core cannot evict a large folio to small pages
 * ==== ==========================================================================
 */
#include "fixture.h"
#include "system.h"

#include <linux/kernel-page-flags.h>
#include <pthread.h>

/*
 * Times the zapper must hit a migration; with the bug, each lost 2 MiB of memory. A debug
 * kernel has fewer rounds, in which it would lose less than is tolerated.
 */
#define ROUNDS		50
/* The same for small pages, of which the bug lost none. */
#define SMALL_ROUNDS	4
/* Pages that the kernel may use otherwise meanwhile; a quarter of what was lost. */
#define TOLERATED_PAGES	(ROUNDS * (long)HUGE_PAGES / 4)
#define COPY_US		3000

/**
 * struct zapper - a thread that zaps memory as soon as it is being migrated
 * @ptr: The memory.
 * @size: How much of it is zapped, bytes.
 * @pagemap: The pagemap file of the process.
 * @stay: The entry_kind() of memory that is not being migrated.
 * @stop: Ends the thread.
 * @hits: How often it has zapped memory.
 * @thread: The thread.
 */
struct zapper {
	char *ptr;
	size_t size;
	int pagemap;
	unsigned int stay;
	int stop;
	int hits;
	pthread_t thread;
};

/* The swap type, plus 1, of an entry that is not present; 0 for a present one. */
static unsigned int entry_kind(const struct zapper *zapper)
{
	const off_t offset = (uintptr_t)zapper->ptr / PAGE * sizeof(__u64);
	__u64 entry;

	if (pread(zapper->pagemap, &entry, sizeof(entry), offset) != sizeof(entry))
		abort();
	return entry & PAGEMAP_SWAP ? 1 + (entry & 0x1f) : 0;
}

static void *zapper_main(void *arg)
{
	struct zapper *zapper = arg;
	unsigned int kind;

	while (!__atomic_load_n(&zapper->stop, __ATOMIC_RELAXED)) {
		kind = entry_kind(zapper);
		if (!kind || kind == zapper->stay)
			continue;
		madvise(zapper->ptr, zapper->size, MADV_DONTNEED);
		zapper->hits++;
	}
	return NULL;
}

static void zapper_start(struct zapper *zapper, char *ptr, size_t size)
{
	*zapper = (struct zapper) { .ptr = ptr, .size = size };
	zapper->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	zapper->stay = entry_kind(zapper);
	if (pthread_create(&zapper->thread, NULL, zapper_main, zapper))
		abort();
}

/* Returns whether it has zapped anything. */
static int zapper_stop(struct zapper *zapper)
{
	__atomic_store_n(&zapper->stop, 1, __ATOMIC_RELAXED);
	pthread_join(zapper->thread, NULL);
	close(zapper->pagemap);
	return !!zapper->hits;
}

/* Bytes to zap: all of a huge page, or its first page, which splits the mapping. */
static size_t zapped(int round)
{
	return round % 2 ? PAGE : HUGE;
}

/* Number of pages behind the first @size bytes that have another content. */
static long wrong_behind(const char *ptr, unsigned int seed, size_t size)
{
	const unsigned long first = size / PAGE;

	return wrong_from(ptr + size, seed, first, HUGE_PAGES - first);
}

/* How many more pages than before are in use for nothing that the kernel reports. */
static long lost_pages(long before)
{
	/* Memory that is no longer used can take a moment to become free. */
	soon(memory_unknown() - before < TOLERATED_PAGES);
	return memory_unknown() - before;
}

/*
 * Verifies that no memory is lost when a huge page for which there is no large
 * device folio is zapped, as a whole or a part, while it is copied. Core split such
 * a folio while it was being migrated, and leaked a reference to it if it was not
 * mapped as a whole any more.
 */
TEST_F(devmem, zap_on_the_way_to_the_device)
{
	const int rounds = variant->thp ? rounds_of(ROUNDS) : SMALL_ROUNDS;
	const long end = now_ms() + HANG_MS;
	struct zapper zapper;
	int round, hits = 0;
	long before;
	char *ptr;

	/* Core splits a folio of coherent memory before the migration begins */
	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, COPY_US));
	ptr = area_map(HUGE_PAGES, variant->thp);
	ASSERT_TRUE(fail_attr("fail_device_large", 100, -1));
	before = memory_unknown();
	/* Whether the zapper is in time depends on the machine: try again. */
	for (round = 0; hits < rounds; round++) {
		ASSERT_GT(end, now_ms());
		madvise(ptr, HUGE, MADV_DONTNEED);
		fill(ptr, 1, HUGE_PAGES);
		zapper_start(&zapper, ptr, zapped(round));
		EXPECT_LE(0, to_device(self->fd, ptr, HUGE_PAGES));
		hits += zapper_stop(&zapper);
		EXPECT_EQ(0, wrong_behind(ptr, 1, zapped(round)));
	}
	madvise(ptr, HUGE, MADV_DONTNEED);
	EXPECT_GT(TOLERATED_PAGES, lost_pages(before));
}

/*
 * Verifies that a page table is collected once. To split a folio that is mapped by PTEs
 * core let go of the page table, and if that had been zapped meanwhile, started again
 * from its beginning: it wrote more entries than there are pages.
 */
TEST_F(devmem, zap_while_a_part_is_collected)
{
	const unsigned long small = 16;
	const int rounds = variant->thp ? rounds_of(2 * ROUNDS) : SMALL_ROUNDS;
	const long end = now_ms() + HANG_MS;
	char *ptr = area_map(HUGE_PAGES, variant->thp);
	long before = memory_unknown();
	struct zapper zapper;
	int hits = 0;

	while (hits < rounds) {
		ASSERT_GT(end, now_ms());
		fill(ptr, 7, HUGE_PAGES);
		/* The zapper sees that these are collected, and core splits the others */
		ASSERT_EQ(0, madvise(ptr, small * PAGE, MADV_DONTNEED));
		fill(ptr, 7, small);
		zapper_start(&zapper, ptr, HUGE);
		EXPECT_LE(0, to_device(self->fd, ptr, HUGE_PAGES));
		hits += zapper_stop(&zapper);
		madvise(ptr, HUGE, MADV_DONTNEED);
	}
	EXPECT_GT(TOLERATED_PAGES, lost_pages(before));
}

/*
 * Zap a huge page of device memory while it is migrated back, by a call or by a CPU
 * fault, until the zapper was in time often enough.
 */
static void zap_on_the_way_back(struct __test_metadata *_metadata,
				struct _test_data_devmem *self, bool thp, bool fault)
{
	const int rounds = thp ? rounds_of(ROUNDS) : SMALL_ROUNDS, seed = 2 + fault;
	char *ptr = area_map(HUGE_PAGES, thp);
	struct zapper zapper;
	int round, hits = 0;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, COPY_US));
	ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
	for (round = 0; hits < rounds; round++) {
		madvise(ptr, HUGE, MADV_DONTNEED);
		fill(ptr, seed, HUGE_PAGES);
		ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
		zapper_start(&zapper, ptr, zapped(round));
		if (fault)
			touch(ptr, HUGE_PAGES);
		else
			EXPECT_LE(0, to_ram(self->fd, ptr, HUGE_PAGES));
		hits += zapper_stop(&zapper);
		EXPECT_EQ(0, wrong_behind(ptr, seed, zapped(round)));
		madvise(ptr, HUGE, MADV_DONTNEED);
		ASSERT_EQ(0, device_used_soon(self->ctl, 0));
	}
}

/* Verifies this for device memory that is migrated back. */
TEST_F(devmem, zap_on_the_way_to_ram)
{
	/* Core splits a folio of coherent memory before the migration begins */
	if (!variant->coherent)
		zap_on_the_way_back(_metadata, self, variant->thp, false);
}

/* Verifies this for a CPU fault, which must end. */
TEST_F(devmem, zap_in_a_fault)
{
	/* There are no CPU faults on coherent memory, either */
	if (!variant->coherent)
		zap_on_the_way_back(_metadata, self, variant->thp, true);
}

/**
 * struct watcher - a thread that looks for holes in the page table
 * @zapper: The memory; the test does not zap it.
 * @holes: How often the page table had no entry for it.
 */
struct watcher {
	struct zapper zapper;
	int holes;
};

static void *watcher_main(void *arg)
{
	struct watcher *watcher = arg;
	struct zapper *zapper = &watcher->zapper;
	const off_t offset = (uintptr_t)zapper->ptr / PAGE * sizeof(__u64);
	__u64 entry;

	while (!__atomic_load_n(&zapper->stop, __ATOMIC_RELAXED)) {
		if (pread(zapper->pagemap, &entry, sizeof(entry), offset) != sizeof(entry))
			abort();
		watcher->holes += !(entry & (PAGEMAP_PRESENT | PAGEMAP_SWAP));
	}
	return NULL;
}

/*
 * Verifies that memory that leaves the device has an entry in the page table at all
 * times. Core cleared a huge entry for a moment, in which zap, fork(), mprotect() and
 * mremap(), which look at it without the lock, took the memory for a hole.
 */
TEST_F(devmem, never_a_hole_on_the_way)
{
	struct watcher watcher = { };
	struct zapper *zapper = &watcher.zapper;
	const int rounds = rounds_of(8 * ROUNDS);
	int round;

	/* No other memory is mapped by one entry of a PMD while it is on the device */
	if (!variant->thp || variant->coherent)
		return;
	zapper->ptr = area_filled(HUGE_PAGES, variant->thp, 8);
	zapper->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, zapper->pagemap);
	ASSERT_EQ(0, pthread_create(&zapper->thread, NULL, watcher_main, &watcher));
	for (round = 0; round < rounds; round++) {
		EXPECT_LE(0, to_device(self->fd, zapper->ptr, HUGE_PAGES));
		EXPECT_LE(0, device_evict_all(self->fd));
	}
	zapper_stop(zapper);
	EXPECT_EQ(0, watcher.holes);
	EXPECT_EQ(0, wrong(zapper->ptr, 8, HUGE_PAGES));
}

/* Huge pages in the mapping of @ptr, in kB. */
static long huge_kb(const void *ptr)
{
	unsigned long start, end;
	long kb = -1, found;
	char line[256];
	FILE *f = fopen("/proc/self/smaps", "r");

	while (f && kb < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) != 2 ||
		    (uintptr_t)ptr < start || (uintptr_t)ptr >= end)
			continue;
		while (kb < 0 && fgets(line, sizeof(line), f))
			if (sscanf(line, "AnonHugePages: %ld kB", &found) == 1)
				kb = found;
	}
	if (f)
		fclose(f);
	return kb;
}

#define FULL_PAGES	(32 * HUGE_PAGES)

/* Fill all pages of the device; returns the memory that is on it. */
static char *fill_device(struct _test_data_devmem *self, bool coherent)
{
	unsigned long size;
	char *ptr;

	if (plug_as(self, coherent ? 0 : 4 * HUGE, 0, 0))
		return NULL;
	size = device_stats(self->ctl).size;
	ptr = area_numbered(size, true);
	return all_moved(self->fd, ptr, size) == (long)size ? ptr : NULL;
}

/*
 * Verifies that migration to a full device splits no huge pages, neither writable
 * ones nor read-only ones.
 */
TEST_F(devmem, full_device_splits_nothing)
{
	char *ptr = area_filled(FULL_PAGES, variant->thp, 4);
	long before = huge_kb(ptr);

	ASSERT_EQ(variant->thp ? FULL_PAGES * 4 : 0, before);
	ASSERT_NE(NULL, fill_device(self, variant->coherent));
	EXPECT_EQ(0, to_device(self->fd, ptr, FULL_PAGES));
	EXPECT_EQ(before, huge_kb(ptr));
	ASSERT_EQ(0, mprotect(ptr, FULL_PAGES * PAGE, PROT_READ));
	EXPECT_EQ(0, to_device(self->fd, ptr, FULL_PAGES));
	EXPECT_EQ(0, resident(self->fd, ptr, FULL_PAGES));
	EXPECT_EQ(before, huge_kb(ptr));
	EXPECT_EQ(0, wrong(ptr, 4, FULL_PAGES));
}

/* Verifies that only one huge page is split to use the last free device pages. */
TEST_F(devmem, nearly_full_device_splits_one)
{
	enum { NR = 10 };
	char *ptr = area_filled(FULL_PAGES, variant->thp, 5), *other;
	long before = huge_kb(ptr);

	ASSERT_EQ(0, mprotect(ptr, FULL_PAGES * PAGE, PROT_READ));
	other = fill_device(self, variant->coherent);
	ASSERT_NE(NULL, other);
	/* TO_RAM, since to drop a part of a large device folio would free no pages */
	to_ram(self->fd, other + HUGE, NR);
	EXPECT_EQ(NR, to_device(self->fd, ptr, FULL_PAGES));
	EXPECT_EQ(NR, resident(self->fd, ptr, FULL_PAGES));
	EXPECT_EQ(variant->thp ? before - 2048 : 0, huge_kb(ptr));
	EXPECT_EQ(0, wrong(ptr, 5, FULL_PAGES));
}

/*
 * Verifies that a device leaves large folios of a peer, which has the same owner,
 * alone: it neither moves nor splits them, whether the range is a whole folio or a
 * part, and whether it is writable or not.
 */
TEST_F(devmem, peers_folios_stay_whole)
{
	char *ptr = area_filled(self->npages, variant->thp, 6);
	int peer = device_open(variant->peer), i;
	long whole;

	ASSERT_LE(0, peer);
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_COMMON, 0));
	ASSERT_EQ(0, device_unplug(peer));
	ASSERT_EQ(0, device_plug_as(peer, 0, HMM_DEVMEM_TEST_COMMON, 0));
	ASSERT_EQ(self->npages, all_moved(peer, ptr, self->npages));
	whole = count_states(peer, ptr, self->npages, HMM_DEVMEM_TEST_PROT_PMD);
	EXPECT_EQ(variant->thp && !variant->coherent ? 2 * HUGE_PAGES : 0, whole);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, to_ram(self->fd, ptr, self->npages));
		EXPECT_EQ(0, to_ram(self->fd, ptr + 10 * PAGE, 10));
		EXPECT_EQ(0, to_device(self->fd, ptr, self->npages));
		EXPECT_EQ(0, to_device(self->fd, ptr + HUGE, 10));
		EXPECT_EQ(whole, count_states(peer, ptr, self->npages,
					      HMM_DEVMEM_TEST_PROT_PMD));
		EXPECT_EQ(self->npages, resident(peer, ptr, self->npages));
		ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ));
	}
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));
	ASSERT_EQ(0, device_unplug(peer));
	ASSERT_EQ(0, device_plug(peer));
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));
	close(peer);
}

/*
 * C4. Verifies that eviction of a range which begins and ends inside of large folios
 * moves all of its pages, and beyond it only the rest of these folios.
 */
TEST_F(devmem, eviction_from_inside_of_a_large_folio)
{
	const unsigned long first = 300, nr = 3 * HUGE_PAGES;
	/* The range has parts of four folios */
	const unsigned long back = variant->thp && !variant->coherent ?
				   4 * HUGE_PAGES : nr;
	unsigned long size;
	char *ptr;

	SMALL_DEVICE();
	size = self->before.size;
	ptr = area_numbered(size, variant->thp);
	ASSERT_EQ(size, all_moved(self->fd, ptr, size));
	EXPECT_EQ(0, device_evict(self->fd, first, nr));
	EXPECT_EQ(size - back, device_used(self->ctl));
	EXPECT_EQ(back, SINCE(evicted));
	EXPECT_EQ(0, device_evict(self->fd, first, size - first));
	EXPECT_EQ(back == nr ? first : 0, device_used(self->ctl));
	EXPECT_EQ(0, misnumbered(ptr, size));
}

/* Pages of the range that are a part of a large folio, in RAM. */
static long pages_of_large_folios(const char *ptr, unsigned long npages)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	const __u64 pfn_mask = _BITULL(55) - 1;
	__u64 entry, flags;
	unsigned long i;
	long count = 0;

	for (i = 0; i < npages; i++) {
		entry = pagemap_entry(ptr + i * PAGE);
		if (!(entry & PAGEMAP_PRESENT))
			continue;
		if (pread(fd, &flags, sizeof(flags),
			  (entry & pfn_mask) * sizeof(flags)) != sizeof(flags))
			abort();
		count += flags >> KPF_THP & 1;
	}
	close(fd);
	return count;
}

/* Bring all pages back without a CPU fault, in one of three ways. */
static int all_back(struct _test_data_devmem *self, int way)
{
	if (way == 0)
		return device_evict_all(self->fd);
	if (way == 1)
		return device_suspend(self->ctl) ?: device_resume(self->ctl);
	return device_unplug(self->ctl) ?: device_plug(self->ctl);
}

/*
 * Verifies that of a large folio only the pages move back that the process still has.
 * The memory of the others would be in use for nothing until it drops the last one.
 */
TEST_F(devmem, dropped_part_of_a_large_folio_is_freed)
{
	char *ptr = area_map(HUGE_PAGES, variant->thp);
	int way;

	for (way = 0; way < 3; way++) {
		fill(ptr, 9 + way, HUGE_PAGES);
		ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
		ASSERT_EQ(0, madvise(ptr + PAGE, HUGE - PAGE, MADV_DONTNEED));
		EXPECT_EQ(0, all_back(self, way));
		EXPECT_EQ(1, pagemap_count(ptr, HUGE_PAGES, PAGEMAP_PRESENT));
		EXPECT_EQ(0, pages_of_large_folios(ptr, 1));
		EXPECT_EQ(0, wrong(ptr, 9 + way, 1));
		madvise(ptr, HUGE, MADV_DONTNEED);
	}
}

#define FAIL_PAGE_ALLOC	"/sys/kernel/debug/fail_page_alloc/"

/* With @some false, let this process get no large folios from here on. */
static bool large_folios(bool some)
{
	return file_write("/proc/thread-self/make-it-fail", some ? "0" : "1") &&
	       file_write(FAIL_PAGE_ALLOC "task-filter", some ? "N" : "Y") &&
	       file_write(FAIL_PAGE_ALLOC "ignore-gfp-wait", "N") &&
	       file_write(FAIL_PAGE_ALLOC "ignore-gfp-highmem", "N") &&
	       file_write(FAIL_PAGE_ALLOC "verbose", "0") &&
	       file_write(FAIL_PAGE_ALLOC "min-order", some ? "1" : "9") &&
	       file_write(FAIL_PAGE_ALLOC "times", some ? "1" : "-1") &&
	       file_write(FAIL_PAGE_ALLOC "probability", some ? "0" : "100");
}

#define KHUGEPAGED_SLEEP \
	"/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"

/*
 * Set how long khugepaged, which makes huge pages of small ones, sleeps between
 * scans; returns the previous value.
 */
static long khugepaged_sleeps(long ms)
{
	const long old = atol(file_read(KHUGEPAGED_SLEEP));

	return file_write_number(KHUGEPAGED_SLEEP, ms) ? old : -1;
}

/*
 * C5. Verifies that large folios move back though no large folio of system memory
 * can be allocated: by a CPU fault, by eviction, and when the device is removed.
 */
TEST_F(devmem, large_folios_come_back_as_small_ones)
{
	const long large = variant->thp && !variant->coherent ?
			   2 * HUGE_PAGES : 0;
	char *ptr;
	long sleep;
	int way;

	if (!large_folios(true))
		SKIP(return, "no fault injection");
	/* This wakes khugepaged: do it before there is memory for it */
	sleep = khugepaged_sleeps(1000 * HANG_MS);
	ASSERT_LT(0, sleep);
	ptr = area_map(self->npages, variant->thp);
	for (way = 0; way < 3; way++) {
		fill(ptr, 50 + way, self->npages);
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		EXPECT_EQ(large, count_states(self->fd, ptr, self->npages,
					      HMM_DEVMEM_TEST_PROT_PMD));
		EXPECT_TRUE(large_folios(false));
		if (way == 0)
			touch(ptr, self->npages);
		/* A CPU access has not moved coherent memory */
		EXPECT_EQ(0, way < 2 ? device_evict_all(self->fd) :
				       device_unplug(self->ctl));
		EXPECT_TRUE(large_folios(true));
		EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
		EXPECT_EQ(0, count_states(self->fd, ptr, self->npages,
					  HMM_DEVMEM_TEST_PROT_PMD));
		EXPECT_EQ(0, wrong(ptr, 50 + way, self->npages));
		EXPECT_EQ(0, madvise(ptr, self->npages * PAGE, MADV_DONTNEED));
	}
	EXPECT_EQ(0, device_plug(self->ctl));
	EXPECT_LT(0, khugepaged_sleeps(sleep));
}

TEST_HARNESS_MAIN
