// SPDX-License-Identifier: GPL-2.0
/*
 * The device's page table: how many pages are mapped for the device when they have
 * moved to it or when it has taken a page fault, and that none is mapped that must not.
 */
#include "fixture.h"
#include "uffd.h"

#include <pthread.h>

#define THP		"/sys/kernel/mm/transparent_hugepage/"
/* Tries to have all pages mapped: the kernel can move a page at any time by itself. */
#define TRIES		1000
#define ROUNDS		4
/* Pages of a range that is as large as possible. */
#define LARGEST		((1UL << 51) - 1)
/* Pages that a thread zaps all the time. */
#define ZAPPED		4

static const unsigned int sizes_kb[] = { 16, 64, 256, 1024 };

#define NR_SIZES	(sizeof(sizes_kb) / sizeof(*sizes_kb))

/*
 * Move a range to the device until all of it is mapped; returns how many pages are, or
 * the negative number of pages that are on the device, if those are fewer.
 */
static long move_and_count(int fd, char *ptr, unsigned long npages)
{
	long ret = 0;
	int i;

	for (i = 0; i < TRIES && ret != (long)npages; i++) {
		/* Only what moves is mapped */
		if (i)
			to_ram(fd, ptr, npages);
		ret = to_device(fd, ptr, npages);
		ret = ret == (long)npages ? mapped_local(fd, ptr, npages) : -ret;
	}
	return ret;
}

/*
 * Verifies that entries are counted in a range of any size: a loop over the pages of the
 * largest would never end.
 */
TEST_F(devmem, entries_in_all_of_the_address_space)
{
	const unsigned long npages = 2 * HUGE_PAGES, largest = LARGEST;
	char *ptr = area_filled(npages, variant->thp, 1);

	ASSERT_EQ(npages, move_and_count(self->fd, ptr, npages));
	EXPECT_EQ(npages, mapped(self->fd, NULL, largest));
	EXPECT_EQ(npages, mapped_local(self->fd, NULL, largest));
	EXPECT_EQ(3, mapped(self->fd, ptr + (HUGE_PAGES - 1) * PAGE, 3));
	EXPECT_EQ(0, wrong(ptr, 1, npages));
}

/* Folios of one size below that of a PMD. */

static char old_setting[2][20];

static const char *setting_path(unsigned int kb, const char *name)
{
	static char path[100];

	snprintf(path, sizeof(path), THP "hugepages-%ukB/%s", kb, name);
	return path;
}

/* The word in brackets is the one that is set. */
static void setting_save(char *setting, const char *path)
{
	const char *word = strchr(file_read(path), '[');

	setting[0] = 0;
	if (word)
		sscanf(word, "[%19[a-z]", setting);
}

static bool set_folio_size(unsigned int kb)
{
	setting_save(old_setting[0], setting_path(HUGE / 1024, "enabled"));
	setting_save(old_setting[1], setting_path(kb, "enabled"));
	return file_write(setting_path(HUGE / 1024, "enabled"), "never") &&
	       file_write(setting_path(kb, "enabled"), "always");
}

static bool restore_folio_size(unsigned int kb)
{
	return file_write(setting_path(HUGE / 1024, "enabled"), old_setting[0]) &&
	       file_write(setting_path(kb, "enabled"), old_setting[1]);
}

static long folios_allocated(unsigned int kb)
{
	return atol(file_read(setting_path(kb, "stats/anon_fault_alloc")));
}

/* A thread that zaps memory and touches it again, all the time. */

static struct {
	char *ptr;
	unsigned long npages;
	int stop;
	int zaps;
	pthread_t thread;
} zapper;

static void *zapper_main(void *arg)
{
	while (!__atomic_load_n(&zapper.stop, __ATOMIC_RELAXED)) {
		madvise(zapper.ptr, zapper.npages * PAGE, MADV_DONTNEED);
		touch(zapper.ptr, zapper.npages);
		__atomic_add_fetch(&zapper.zaps, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void zapper_start(char *ptr, unsigned long npages)
{
	memset(&zapper, 0, sizeof(zapper));
	zapper.ptr = ptr;
	zapper.npages = npages;
	if (pthread_create(&zapper.thread, NULL, zapper_main, NULL))
		abort();
}

static int zapper_zaps(void)
{
	return __atomic_load_n(&zapper.zaps, __ATOMIC_RELAXED);
}

static void zapper_stop(void)
{
	__atomic_store_n(&zapper.stop, 1, __ATOMIC_RELAXED);
	pthread_join(zapper.thread, NULL);
}

/* Verifies that every page that moves is mapped for the device. */
TEST_F(devmem, migration_maps_all)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);

	EXPECT_EQ(self->npages, move_and_count(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
	/* What comes back has no entry any more */
	if (!variant->coherent)
		EXPECT_EQ(0, mapped(self->fd, ptr, self->npages));
}

/* Verifies the same of pages that were never touched. */
TEST_F(devmem, migration_maps_holes)
{
	char *ptr = area_map(self->npages, variant->thp);

	EXPECT_EQ(self->npages, move_and_count(self->fd, ptr, self->npages));
}

/*
 * Verifies that pages of large folios are mapped, while a thread zaps other memory for every
 * other size, and the other way round. Core splits these folios for the migration, which are
 * invalidations that look like any others.
 */
TEST_F(devmem, migration_maps_large_folios)
{
	const unsigned long npages = HUGE_PAGES;
	char *ptr, *other = area_map(ZAPPED, false);
	unsigned int i;
	long allocated;

	for (i = 0; i < 2 * NR_SIZES; i++) {
		const unsigned int kb = sizes_kb[i % NR_SIZES];
		const bool zaps = (i + i / NR_SIZES) & 1;

		if (zaps)
			zapper_start(other, ZAPPED);
		ASSERT_TRUE(set_folio_size(kb));
		allocated = folios_allocated(kb);
		ptr = area_map(2 * npages, true);
		fill(ptr, i, 2 * npages);
		EXPECT_LT(allocated, folios_allocated(kb));
		EXPECT_EQ(npages, move_and_count(self->fd, ptr, npages));
		/* A range that begins and ends within a folio */
		EXPECT_EQ(npages - 2, move_and_count(self->fd, ptr + (npages + 1) * PAGE,
						     npages - 2));
		EXPECT_EQ(npages, mapped_local(self->fd, ptr, npages));
		EXPECT_EQ(0, wrong(ptr, i, 2 * npages));
		EXPECT_TRUE(restore_folio_size(kb));
		if (zaps)
			zapper_stop();
	}
}

/* Verifies that invalidations of other memory do not keep pages from being mapped. */
TEST_F(devmem, zaps_elsewhere_do_not_matter)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	char *other = area_map(ZAPPED, false);
	int round, zaps;

	zapper_start(other, ZAPPED);
	for (round = 0; round < ROUNDS; round++) {
		zaps = zapper_zaps();
		EXPECT_EQ(self->npages, move_and_count(self->fd, ptr, self->npages));
		EXPECT_EQ(0, wrong(ptr, 1, self->npages));
		EXPECT_LE(0, to_ram(self->fd, ptr, self->npages));
		/* Some of the rounds must have had zaps */
		EXPECT_TRUE(soon(zapper_zaps() > zaps));
	}
	zapper_stop();
}

/* Verifies that zaps within the range keep only those pages from being mapped. */
TEST_F(devmem, zaps_within_matter_only_there)
{
	/* A huge page of which a part is zapped does not stay one */
	const unsigned long npages = 128, rest = npages - ZAPPED;
	char *ptr = area_filled(npages, false, 1);
	char *behind = ptr + ZAPPED * PAGE;
	int round, tries;

	zapper_start(ptr, ZAPPED);
	for (round = 0; round < ROUNDS; round++) {
		for (tries = 0; tries < TRIES; tries++) {
			EXPECT_LE((long)rest, to_device(self->fd, ptr, npages));
			if (mapped_local(self->fd, behind, rest) == (long)rest)
				break;
			touch(behind, rest);
		}
		EXPECT_GT(TRIES, tries);
		EXPECT_EQ(0, wrong_from(behind, 1, ZAPPED, rest));
		EXPECT_LE(0, to_ram(self->fd, ptr, npages));
	}
	zapper_stop();
}

/*
 * Verifies that pages shared since a fork are mapped, also while a thread zaps other memory,
 * and copied for a write.
 */
TEST_F(devmem, shared_since_fork)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	char *data = malloc(self->npages * PAGE);
	struct child sharer;

	sharer_start(&sharer, ptr, 1, self->npages);
	EXPECT_EQ(self->npages, move_and_count(self->fd, ptr, self->npages));
	EXPECT_LE(0, to_ram(self->fd, ptr, self->npages));
	zapper_start(area_map(ZAPPED, false), ZAPPED);
	EXPECT_EQ(self->npages, move_and_count(self->fd, ptr, self->npages));
	zapper_stop();
	fill(data, 2, self->npages);
	EXPECT_EQ(self->npages, device_write(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));
	EXPECT_EQ(0, child_end(&sharer));
	free(data);
}

/* Verifies the same of a page fault that moves them. */
TEST_F(devmem, write_fault_after_fork)
{
	const unsigned long flags = HMM_DEVMEM_TEST_FAULT_WRITE |
				    HMM_DEVMEM_TEST_FAULT_MIGRATE;
	const unsigned long npages = 64;
	char *ptr = area_filled(npages, false, 1);
	char *data = malloc(npages * PAGE);
	struct child sharer;

	sharer_start(&sharer, ptr, 1, npages);
	EXPECT_EQ(npages, all_moved(self->fd, ptr, npages));
	EXPECT_EQ(0, device_fault(self->fd, ptr, flags, npages));
	EXPECT_EQ(npages, mapped_local(self->fd, ptr, npages));
	fill(data, 2, npages);
	EXPECT_EQ(npages, device_write(self->fd, ptr, data, npages));
	EXPECT_EQ(npages, resident(self->fd, ptr, npages));
	EXPECT_EQ(0, wrong(ptr, 2, npages));
	EXPECT_EQ(0, child_end(&sharer));
	free(data);
}

/* Verifies that a fault in the middle of a huge page maps it as a whole, and right. */
TEST_F(devmem, fault_in_a_huge_page)
{
	char *ptr = area_filled(HUGE_PAGES, true, 1);
	char data[2 * PAGE];
	int second;

	EXPECT_EQ(0, device_fault(self->fd, ptr + 100 * PAGE, 0, 1));
	EXPECT_EQ(HUGE_PAGES, mapped(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(2, device_read(self->fd, ptr + 100 * PAGE, data, 2));
	EXPECT_EQ(0, wrong_from(data, 1, 100, 2));
	if (variant->coherent)
		return;
	EXPECT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
	/* Another file has no entries yet */
	second = device_open(variant->nr);
	ASSERT_LE(0, second);
	EXPECT_EQ(0, device_fault(second, ptr + 100 * PAGE, 0, 1));
	EXPECT_EQ(HUGE_PAGES, mapped_local(second, ptr, HUGE_PAGES));
	EXPECT_EQ(2, device_read(second, ptr + 300 * PAGE, data, 2));
	EXPECT_EQ(0, wrong_from(data, 1, 300, 2));
	EXPECT_EQ(0, close(second));
}

/* Verifies that a fault moves no page along if the device has not gone page by page. */
TEST_F(devmem, fault_moves_one_page)
{
	char *ptr = area_map(64, false);

	fill(ptr + 17 * PAGE, 1, 2);
	fill(ptr + 20 * PAGE, 2, 1);
	EXPECT_EQ(0, device_fault(self->fd, ptr + 17 * PAGE,
				  HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(1, mapped_local(self->fd, ptr, 64));
	EXPECT_EQ(1, mapped(self->fd, ptr, 64));
	EXPECT_EQ(1, device_used(self->ctl));
	/* A hole */
	EXPECT_EQ(0, device_fault(self->fd, ptr + 19 * PAGE,
				  HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(2, device_used(self->ctl));
	EXPECT_EQ(0, wrong(ptr + 17 * PAGE, 1, 2));
	EXPECT_EQ(0, not_zero(ptr + 19 * PAGE, 1));
	EXPECT_EQ(0, wrong(ptr + 20 * PAGE, 2, 1));
}

/*
 * Verifies that the device takes few faults if it goes through memory page by page, and
 * what is counted: all but the last window is known to be used.
 */
TEST_F(devmem, faults_follow_a_walk)
{
	const unsigned long npages = 2 * HUGE_PAGES;
	char *ptr = area_filled(npages, variant->thp, 1);

	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, npages));
	EXPECT_EQ(npages, mapped_local(self->fd, ptr, npages));
	/* 1, 1, 2, 4, ..., 256 pages, then all of the second block */
	EXPECT_EQ(variant->thp ? 2 : 11, SINCE(device_faults));
	EXPECT_EQ(npages, SINCE(device_fault_pages));
	EXPECT_EQ(npages, SINCE(to_device));
	EXPECT_EQ(HUGE_PAGES + 1, SINCE(device_fault_used));
	EXPECT_EQ(0, wrong(ptr, 1, npages));
}

/* Verifies that nothing is brought along where the device skips pages. */
TEST_F(devmem, faults_with_a_stride)
{
	const unsigned long nr = 64;
	char *ptr = area_filled(2 * nr, false, 1);
	unsigned long i;

	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, device_fault(self->fd, ptr + 2 * i * PAGE,
					  HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(nr, SINCE(device_faults));
	EXPECT_EQ(nr, SINCE(device_fault_pages));
	EXPECT_EQ(nr, SINCE(device_fault_used));
	EXPECT_EQ(nr, SINCE(to_device));
	EXPECT_EQ(0, wrong(ptr, 1, 2 * nr));
}

/*
 * Verifies what is brought along, and counted as used, if a walk page by page turns into one
 * whose steps are as large as the windows: each next fault is right behind a window.
 */
TEST_F(devmem, faults_with_the_stride_of_a_window)
{
	const unsigned long nr = 4 * HUGE_PAGES;
	char *ptr = area_filled(nr, false, 1);
	unsigned long page;

	ASSERT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, HUGE_PAGES));
	for (page = HUGE_PAGES; page < nr; page += HUGE_PAGES)
		ASSERT_EQ(0, device_fault(self->fd, ptr + page * PAGE,
					  HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(10 + 3, SINCE(device_faults));
	EXPECT_EQ(nr, SINCE(device_fault_pages));
	EXPECT_EQ(nr - HUGE_PAGES + 1, SINCE(device_fault_used));
	EXPECT_EQ(0, wrong(ptr, 1, nr));
}

/* Verifies that a fault fails where the process has no memory. */
TEST_F(devmem, fault_without_memory)
{
	char *ptr = area_map(3, false);

	ASSERT_EQ(0, munmap(ptr + PAGE, PAGE));
	ASSERT_EQ(0, mprotect(ptr + 2 * PAGE, PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, device_fault(self->fd, ptr + PAGE, 0, 1));
	EXPECT_EQ(-EFAULT, device_fault(self->fd, ptr + PAGE,
					HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(-EPERM, device_fault(self->fd, ptr + 2 * PAGE,
				       HMM_DEVMEM_TEST_FAULT_WRITE, 1));
	EXPECT_EQ(0, device_fault(self->fd, ptr + 2 * PAGE, 0, 1));
}

/* Verifies that a fault which must fail moves nothing to the device. */
TEST_F(devmem, fault_without_permission)
{
	char *ptr = area_filled(1, false, 1), *hole = area_map(1, false);

	ASSERT_EQ(0, mprotect(ptr, PAGE, PROT_NONE));
	ASSERT_EQ(0, mprotect(hole, PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(-EPERM, device_fault(self->fd, hole,
				       HMM_DEVMEM_TEST_FAULT_WRITE |
				       HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	EXPECT_EQ(0, device_used(self->ctl));
	ASSERT_EQ(0, mprotect(ptr, PAGE, PROT_READ));
	EXPECT_EQ(0, wrong(ptr, 1, 1));
}

/*
 * Let the device take faults for a range until it has entries for all pages; with migration,
 * on the device. To bring a page of a peer back, or one that is shared, can remove entries
 * of pages around it. Returns the number of these entries, or an errno.
 */
static long faults_until_mapped(int fd, char *ptr, unsigned int flags, unsigned long npages)
{
	long ret = 0;
	int i;

	for (i = 0; i < TRIES && ret >= 0 && ret != (long)npages; i++) {
		ret = device_fault(fd, ptr, flags, npages);
		if (!ret)
			ret = flags & HMM_DEVMEM_TEST_FAULT_MIGRATE ?
			      mapped_local(fd, ptr, npages) : mapped(fd, ptr, npages);
	}
	return ret;
}

/* Verifies that a page of a peer is mapped where the device can access it. */
TEST_F(devmem, page_of_a_peer)
{
	const unsigned long npages = 32;
	char *ptr = area_filled(npages, false, 1);
	struct child sharer;
	char data[PAGE];
	int peer;

	peer = device_open(variant->peer);
	ASSERT_LE(0, peer);
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_COMMON, 0));
	ASSERT_EQ(0, device_unplug(peer));
	ASSERT_EQ(0, device_plug_as(peer, 0, HMM_DEVMEM_TEST_COMMON, 0));
	EXPECT_EQ(npages, all_moved(peer, ptr, npages));
	EXPECT_EQ(npages, faults_until_mapped(self->fd, ptr, 0, npages));
	EXPECT_EQ(0, mapped_local(self->fd, ptr, npages));
	EXPECT_EQ(variant->coherent ? npages : 0, resident(peer, ptr, npages));
	EXPECT_EQ(1, device_read(self->fd, ptr + PAGE, data, 1));
	EXPECT_EQ(0, wrong_from(data, 1, 1, 1));
	if (!variant->coherent) {
		EXPECT_EQ(npages, all_moved(peer, ptr, npages));
		EXPECT_EQ(npages, faults_until_mapped(self->fd, ptr,
						      HMM_DEVMEM_TEST_FAULT_MIGRATE, npages));
		/* A write, while a child shares the page */
		EXPECT_LE(0, to_ram(self->fd, ptr, npages));
		EXPECT_EQ(npages, all_moved(peer, ptr, npages));
		sharer_start(&sharer, ptr, 1, npages);
		EXPECT_EQ(npages, faults_until_mapped(self->fd, ptr,
						      HMM_DEVMEM_TEST_FAULT_WRITE |
						      HMM_DEVMEM_TEST_FAULT_MIGRATE, npages));
		EXPECT_EQ(0, child_end(&sharer));
	}
	EXPECT_EQ(0, wrong(ptr, 1, npages));
	areas_unmap();
	EXPECT_EQ(0, device_unplug(peer));
	EXPECT_EQ(0, plug_soon(peer));
	close(peer);
}

/* Verifies that faults go on, with new device memory, after the device was unplugged. */
TEST_F(devmem, device_comes_again)
{
	char *ptr = area_filled(32, false, 1);

	EXPECT_EQ(32, move_and_count(self->fd, ptr, 32));
	EXPECT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 32));
	EXPECT_EQ(32, mapped(self->fd, ptr, 32));
	EXPECT_EQ(0, mapped_local(self->fd, ptr, 32));
	EXPECT_EQ(0, plug_soon(self->ctl));
	EXPECT_EQ(0, device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 32));
	EXPECT_EQ(32, mapped_local(self->fd, ptr, 32));
	EXPECT_EQ(0, wrong(ptr, 1, 32));
}

/* A process with memory that the device has entries for, on it and in RAM. */
static int be_mirrored(int nr, char *ptr, unsigned long npages, int back)
{
	const unsigned long half = npages / 2;
	int fd = device_open(nr);

	fill(ptr, 1, npages);
	if (device_fault(fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, half) ||
	    device_fault(fd, ptr + half * PAGE, 0, half) ||
	    write(back, &fd, sizeof(fd)) != sizeof(fd))
		return 1;
	for (;;)
		pause();
}

/*
 * Verifies that the device has no entries of a process that has exited, while its page
 * table is still there, and takes no page faults for it.
 */
TEST_F(devmem, process_exits)
{
	const unsigned long npages = 64;
	char *ptr = area_map(npages, false);
	int fd, back[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(back));
	pid = child_start(be_mirrored(variant->nr, ptr, npages, back[1]));
	ASSERT_EQ(sizeof(fd), read(back[0], &fd, sizeof(fd)));
	fd = open_file_of(pid, fd);
	ASSERT_LE(0, fd);
	EXPECT_EQ(npages, mapped(fd, NULL, LARGEST));
	EXPECT_EQ(npages / 2, mapped_local(fd, NULL, LARGEST));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, child_status(pid));
	EXPECT_TRUE(soon(!mapped(fd, NULL, LARGEST)));
	EXPECT_EQ(-ESRCH, device_fault(fd, ptr, 0, 1));
	EXPECT_EQ(-ESRCH, device_fault(fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1));
	close(fd);
	close(back[0]);
	close(back[1]);
}

/* Verifies that the device loses its entries where a mapping was, and not where it is. */
TEST_F(devmem, mapping_moves)
{
	const unsigned long npages = 64;
	char *ptr = area_filled(npages, false, 1), *to = area_map(npages, false);

	EXPECT_EQ(npages, move_and_count(self->fd, ptr, npages));
	ASSERT_EQ(to, mremap(ptr, npages * PAGE, npages * PAGE,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, mapped(self->fd, NULL, LARGEST));
	EXPECT_EQ(-EFAULT, device_fault(self->fd, ptr, 0, 1));
	EXPECT_EQ(0, device_fault(self->fd, to, 0, npages));
	EXPECT_EQ(npages, mapped_local(self->fd, to, npages));
	EXPECT_EQ(0, wrong(to, 1, npages));
}

/* Verifies that a page which is shared since a fork is copied before it moves, not after. */
TEST_F(devmem, write_fault_moves_once)
{
	const unsigned long flags = HMM_DEVMEM_TEST_FAULT_WRITE |
				    HMM_DEVMEM_TEST_FAULT_MIGRATE;
	char *ptr = area_filled(1, false, 1);
	struct child sharer;

	sharer_start(&sharer, ptr, 1, 1);
	EXPECT_EQ(0, device_fault(self->fd, ptr, flags, 1));
	EXPECT_EQ(1, mapped_local(self->fd, ptr, 1));
	EXPECT_EQ(1, SINCE(to_device));
	EXPECT_EQ(0, SINCE(to_ram));
	EXPECT_EQ(0, child_end(&sharer));
}

#ifdef UFFD_FEATURE_RWP
struct faulter {
	pthread_t thread;
	char *ptr;
	unsigned long flags;
	int fd;
	long ret;
};

static void *faulter_main(void *arg)
{
	struct faulter *faulter = arg;

	faulter->ret = device_fault(faulter->fd, faulter->ptr, faulter->flags, 1);
	return NULL;
}

static int uffd_protect_reads(struct uffd *uffd, char *ptr, bool on)
{
	struct uffdio_rwprotect arg = {
		.range = { .start = (uintptr_t)ptr, .len = PAGE },
		.mode = on ? UFFDIO_RWPROTECT_MODE_RWP : 0,
	};

	return uffd_ioctl(uffd, UFFDIO_RWPROTECT, &arg);
}

/* Let the device read a page; returns 0 if userfaultfd was told of it before it could. */
static long fault_is_told(struct uffd *uffd, int fd, char *ptr, unsigned long flags)
{
	struct faulter faulter = { .fd = fd, .ptr = ptr, .flags = flags };
	struct pollfd told = { .fd = uffd->fd, .events = POLLIN };
	struct uffd_msg msg;
	bool is_told;

	if (uffd_protect_reads(uffd, ptr, true) ||
	    pthread_create(&faulter.thread, NULL, faulter_main, &faulter))
		return -1;
	is_told = poll(&told, 1, -1) == 1 && read(uffd->fd, &msg, sizeof(msg)) == sizeof(msg) &&
		  msg.arg.pagefault.address == (uintptr_t)ptr && !mapped(fd, ptr, 1);
	is_told &= !uffd_protect_reads(uffd, ptr, false);
	pthread_join(faulter.thread, NULL);
	return is_told ? faulter.ret : -1;
}

/*
 * Verifies that userfaultfd is told of a device's access to a page that is protected
 * against reads, in system memory and on the device, and that such pages do not move.
 */
TEST_F(devmem, userfaultfd_is_told_of_reads)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_RWP };
	char *ptr = area_filled(3, false, 1);
	struct uffd uffd = { .ptr = ptr, .npages = 3 };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)ptr, .len = 3 * PAGE },
		.mode = UFFDIO_REGISTER_MODE_RWP,
	};

	ASSERT_EQ(1, all_moved(self->fd, ptr, 1));
	uffd.fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, uffd.fd);
	ASSERT_EQ(0, uffd_ioctl(&uffd, UFFDIO_API, &api));
	ASSERT_EQ(0, uffd_ioctl(&uffd, UFFDIO_REGISTER, &reg));
	EXPECT_EQ(1, to_device(self->fd, ptr, 3));
	EXPECT_EQ(0, fault_is_told(&uffd, self->fd, ptr, 0));
	EXPECT_EQ(0, fault_is_told(&uffd, self->fd, ptr + PAGE, 0));
	EXPECT_EQ(0, fault_is_told(&uffd, self->fd, ptr + 2 * PAGE,
				   HMM_DEVMEM_TEST_FAULT_MIGRATE));
	EXPECT_EQ(3, mapped(self->fd, ptr, 3));
	EXPECT_EQ(0, wrong(ptr, 1, 3));
	close(uffd.fd);
	EXPECT_EQ(3, all_moved(self->fd, ptr, 3));
}
#endif

/* So much memory that one madvise() of all of it takes long. */
#define INVALIDATED	(64 * 1024UL)
#define INVALIDATORS	16
#define MIGRATIONS	20
/* What migrates meanwhile: few pages, each of which makes all CPUs flush their TLB. */
#define MIGRATED	64UL

struct invalidators {
	pthread_t threads[INVALIDATORS];
	char *ptr;
	bool stop;
};

/* Invalidates memory all the time, together with the others without a break. */
static void *invalidator_main(void *arg)
{
	struct invalidators *all = arg;

	while (!__atomic_load_n(&all->stop, __ATOMIC_RELAXED))
		madvise(all->ptr, INVALIDATED * PAGE, MADV_FREE);
	return NULL;
}

/*
 * Verifies that what moves is mapped although a thread invalidates other memory all the
 * time, so that the next invalidation begins as soon as one ends. A few tries may fail: the
 * kernel can move a page by itself.
 */
TEST_F(devmem, invalidations_in_a_row_elsewhere)
{
	char *area = area_filled(2 * HUGE_PAGES, variant->thp, 1);
	/* The end of one window and the beginning of the next */
	char *ptr = area + HUGE - MIGRATED / 2 * PAGE;
	struct invalidators one = { };
	int i, all_mapped = 0;
	long moved;

	if (variant->coherent || variant->thp)
		return;
	one.ptr = area_filled(INVALIDATED, false, 2);
	ASSERT_EQ(0, pthread_create(one.threads, NULL, invalidator_main, &one));
	for (i = 0; i < MIGRATIONS; i++) {
		moved = to_device(self->fd, ptr, MIGRATED);
		EXPECT_LE(0, moved);
		all_mapped += mapped_local(self->fd, ptr, MIGRATED) == moved;
		EXPECT_LE(0, to_ram(self->fd, ptr, MIGRATED));
	}
	__atomic_store_n(&one.stop, true, __ATOMIC_RELAXED);
	pthread_join(one.threads[0], NULL);
	EXPECT_LE(MIGRATIONS - 2, all_mapped);
	EXPECT_EQ(0, wrong(area, 1, 2 * HUGE_PAGES));
}

/*
 * Verifies that faults, migrations, exclusive access and the removal of the device memory
 * end although the process invalidates other memory all the time. Faults and exclusive
 * access may fail.
 */
TEST_F(devmem, invalidations_without_end)
{
	char *ptr = area_filled(MIGRATED, variant->thp, 1), data[PAGE];
	struct hmm_devmem_test_cmd cmd;
	struct invalidators all = { };
	long ret;
	int i;

	if (variant->coherent || variant->thp)
		return;
	all.ptr = area_filled(INVALIDATED, false, 2);
	for (i = 0; i < INVALIDATORS; i++)
		ASSERT_EQ(0, pthread_create(&all.threads[i], NULL, invalidator_main, &all));
	ret = device_fault(self->fd, ptr, 0, 1);
	EXPECT_TRUE(!ret || ret == -EBUSY);
	ret = device_fault(self->fd, ptr, HMM_DEVMEM_TEST_FAULT_MIGRATE, 1);
	EXPECT_TRUE(!ret || ret == -EBUSY);
	EXPECT_LE(0, to_device(self->fd, ptr, MIGRATED));
	ret = device_cmd(self->fd, HMM_DEVMEM_TEST_EXCLUSIVE, ptr, data, 1, &cmd);
	EXPECT_TRUE(!ret || ret == -EBUSY);
	EXPECT_EQ(0, device_unplug(self->ctl));
	__atomic_store_n(&all.stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < INVALIDATORS; i++)
		pthread_join(all.threads[i], NULL);
	EXPECT_EQ(0, device_fault(self->fd, ptr, 0, MIGRATED));
	EXPECT_EQ(0, wrong(ptr, 1, MIGRATED));
	EXPECT_EQ(0, plug_soon(self->ctl));
}

TEST_HARNESS_MAIN
