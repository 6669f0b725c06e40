// SPDX-License-Identifier: GPL-2.0
/*
 * Devices that die before their pages could be brought back, pages that cannot be
 * moved when a device is removed, and what drivers in the kernel do wrong then.
 */
#include "fixture.h"
#include "system.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/uio.h>

/*
 * Removal waits for pages in use about a second, with fifty pauses, and ten seconds at
 * most. For a dead device it does not wait at all, so it sleeps only a few times.
 */
#define BOUNDED_WAITS	1000
#define AT_ONCE_WAITS	25

/* How often this process, and its children that have exited, have slept. */
static long waits(void)
{
	struct rusage own, children;

	getrusage(RUSAGE_SELF, &own);
	getrusage(RUSAGE_CHILDREN, &children);
	return own.ru_nvcsw + children.ru_nvcsw;
}

/* Unplug a device; returns how often that has slept. */
static long counted_unplug(int fd)
{
	const long before = waits();
	const int ret = device_unplug(fd);

	return ret ? ret : waits() - before;
}

/* Verifies that accesses to memory on a dead device raise SIGBUS. */
static void expect_lost(struct __test_metadata *_metadata, char *ptr,
			unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i += npages / 9) {
		EXPECT_EQ(SIGBUS, access_signal(ptr + i * PAGE, false));
		EXPECT_EQ(SIGBUS, access_signal(ptr + i * PAGE, true));
	}
	EXPECT_EQ(0, child_run(access_signal(ptr, false) != SIGBUS));
}

/* A worker unmaps coherent memory of a dead device, whose pages then become free. */
static void expect_lost_soon(struct __test_metadata *_metadata,
			     struct _test_data_devmem *self, bool coherent, char *ptr)
{
	if (coherent)
		EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	expect_lost(_metadata, ptr, self->npages);
}

/*
 * Verifies that when its driver or a copy has found a device dead, accesses to its
 * pages raise SIGBUS, no page moves there any more, and it is removed at once; that
 * it can be added again while the old pages are still mapped; and that the range of
 * these is released in the end.
 */
TEST_F(devmem, dead_device)
{
	char *other = area_filled(self->npages, variant->thp, 2);
	int way;

	self->replug = true;
	for (way = 0; way < 2; way++) {
		char *ptr = area_filled(self->npages, variant->thp, 1);
		long before;

		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		if (way) {
			ASSERT_EQ(0, device_inject(self->fd,
						   HMM_DEVMEM_TEST_FAIL_GONE, 0,
						   ALWAYS));
			EXPECT_GE(0, to_ram(self->fd, ptr, self->npages));
			/* The library does not ask the device again */
			device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
		} else {
			ASSERT_EQ(0, device_mark_dead(self->ctl));
		}
		EXPECT_EQ(-ENODEV, to_device(self->fd, other, self->npages));
		EXPECT_EQ(-ENODEV, device_suspend(self->ctl));
		if (!variant->coherent)
			EXPECT_EQ(self->npages, device_evict_all(self->fd));
		expect_lost_soon(_metadata, self, variant->coherent, ptr);
		before = waits();
		EXPECT_EQ(0, device_unplug(self->ctl));
		EXPECT_GT(AT_ONCE_WAITS, waits() - before);
		expect_lost(_metadata, ptr, self->npages);
		EXPECT_EQ(0, device_plug(self->ctl));
		EXPECT_EQ(variant->coherent ? 0 : 2, ranges(variant->nr));
		EXPECT_EQ(self->npages, all_moved(self->fd, other, self->npages));
		expect_lost(_metadata, ptr, self->npages);
		ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
		EXPECT_EQ(!variant->coherent,
			  ranges_soon(variant->nr, !variant->coherent));
		/* Do not leave these pages on a device that is about to die */
		EXPECT_LE(0, to_ram(self->fd, other, self->npages));
		EXPECT_EQ(0, wrong(other, 2, self->npages));
	}
}

/*
 * Verifies that a page of a dead device is lost at once, whether or not there is
 * memory for it: no process must be killed to make room for what cannot come back.
 */
TEST_F(devmem, dead_device_needs_no_memory)
{
	char *ptr = area_filled(self->npages, variant->thp, 15);

	/* The CPU reads coherent memory without a fault */
	if (variant->coherent)
		return;
	self->replug = true;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_mark_dead(self->ctl));
	ASSERT_TRUE(fail_attr("fail_ram", 100, -1));
	ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
	expect_lost(_metadata, ptr, self->npages);
}

static bool on_any_device(unsigned char state, unsigned char unused)
{
	return state_is_device(state);
}

/* Pages that the device of @fd finds on itself or on a peer; or -1. */
static long on_devices(int fd, const void *addr, unsigned long npages)
{
	return count_pages(fd, addr, npages, on_any_device, 0);
}

/*
 * Verifies that neither a peer, which has the same owner, nor the device when it is
 * added again, maps pages that have outlived the device.
 */
TEST_F(devmem, zombie_has_no_peers)
{
	char *ptr = area_filled(self->npages, variant->thp, 14);
	int peer = device_open(variant->peer);
	int ret;

	ASSERT_LE(0, peer);
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_COMMON, 0));
	ASSERT_EQ(0, device_unplug(peer));
	ASSERT_EQ(0, device_plug_as(peer, 0, HMM_DEVMEM_TEST_COMMON, 0));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, on_devices(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, on_devices(peer, ptr, self->npages));
	EXPECT_EQ(0, resident(peer, ptr, self->npages));

	ASSERT_EQ(0, device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(0, on_devices(peer, ptr, self->npages));
	/* The range of a coherent device is free when the last of its pages is */
	soon((ret = device_plug_as(self->ctl, 0, HMM_DEVMEM_TEST_COMMON, 0)) != -EBUSY);
	ASSERT_EQ(0, ret);
	EXPECT_EQ(0, on_devices(self->fd, ptr, self->npages));
	EXPECT_EQ(SIGBUS, access_signal(ptr, false));

	ASSERT_EQ(0, device_unplug(peer));
	ASSERT_EQ(0, device_plug(peer));
	close(peer);
}

/*
 * Verifies that a device that fails all copies is removed in bounded time, that the
 * log tells which pages were left, and that the driver's contexts are released
 * before the pages are free.
 */
TEST_F(devmem, zombie)
{
	char *ptr = area_filled(self->npages, variant->thp, 3);
	char *other = area_filled(self->npages, variant->thp, 4);
	int fd = device_open(variant->nr);
	int log = log_open();
	char pfn[40];
	long nr;

	self->replug = true;
	ASSERT_LE(0, fd);
	ASSERT_LE(0, log);
	ASSERT_EQ(self->npages, all_moved(fd, ptr, self->npages));
	snprintf(pfn, sizeof(pfn), "pfn %#llx:",
		 (unsigned long long)device_stats(self->ctl).pfn_first);
	close(fd);
	EXPECT_EQ(1, SINCE(contexts));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	nr = counted_unplug(self->ctl);
	EXPECT_LE(0, nr);
	EXPECT_GT(BOUNDED_WAITS, nr);
	TH_LOG("unplugged, and waited %ld times", nr);
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_TRUE(log_has(log, variant->coherent ?
			    "1280 pages of device memory are lost to their users" :
			    "1280 pages of device memory are still in use",
			    "hmm_devmem_test"));
	close(log);
	log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	EXPECT_EQ(!variant->coherent,
		  log_has(log, pfn, "1 references, 1 mappings"));
	close(log);
	EXPECT_EQ(1, SINCE(kills));
	EXPECT_EQ(1, SINCE(cleanups));
	EXPECT_EQ(0, SINCE(contexts));

	expect_lost(_metadata, ptr, self->npages);
	ASSERT_EQ(0, device_plug(self->ctl));
	EXPECT_EQ(variant->coherent ? 0 : 2, ranges(variant->nr));
	ASSERT_EQ(self->npages, all_moved(self->fd, other, self->npages));
	/* The new device does not take the old one's pages for its own */
	EXPECT_EQ(self->npages, device_used(self->ctl));
	if (!variant->coherent)
		EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_evict_all(self->fd));
	expect_lost(_metadata, ptr, self->npages);
	ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
	EXPECT_EQ(!variant->coherent,
		  ranges_soon(variant->nr, !variant->coherent));
	EXPECT_EQ(self->npages, all_moved(self->fd, other, self->npages));
	EXPECT_EQ(0, wrong(other, 4, self->npages));
}

/*
 * Verifies that removal ends although a reference to a page is kept: memunmap_pages()
 * alone would wait for it for ever and without a message (bug C7). The memory stays
 * valid for the holder of the reference, but not for the process.
 */
TEST_F(devmem, unplug_with_reference)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	struct iovec vec = { .iov_base = ptr + 9 * PAGE, .iov_len = 2 * PAGE };
	char data[2 * PAGE];
	int fds[2];
	long nr;

	/* Memory that the CPU cannot address cannot be pinned */
	if (!variant->coherent)
		return;
	self->replug = true;
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(2 * PAGE, vmsplice(fds[1], &vec, 1, 0));
	nr = counted_unplug(self->ctl);
	EXPECT_LE(0, nr);
	EXPECT_GT(BOUNDED_WAITS, nr);
	EXPECT_EQ(1, SINCE(cleanups));
	EXPECT_EQ(-EBUSY, device_plug(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 5, 9));
	EXPECT_EQ(SIGBUS, access_signal(ptr + 9 * PAGE, false));
	EXPECT_EQ(SIGBUS, access_signal(ptr + 10 * PAGE, true));
	EXPECT_EQ(0, wrong_from(ptr + 11 * PAGE, 5, 11, self->npages - 11));
	ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
	EXPECT_EQ(-EBUSY, device_plug(self->ctl));
	/* The memory is valid for as long as there is a reference */
	ASSERT_EQ(2 * PAGE, read(fds[0], data, 2 * PAGE));
	EXPECT_EQ(0, wrong_from(data, 5, 9, 2));
	close(fds[0]);
	close(fds[1]);
	EXPECT_EQ(0, plug_soon(self->ctl));
}

/* The command that loads the module with its present parameters. */
static void module_parameters(char *command, size_t size)
{
	static const char * const names[] = {
		"size_mb", "classic_mb", "spm_addr0", "spm_addr1", "spm_mb",
		"lazy", "dma_device",
	};
	char path[100];
	size_t i, len;

	snprintf(command, size, "modprobe test_hmm_devmem");
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path),
			 "/sys/module/test_hmm_devmem/parameters/%s", names[i]);
		len = strlen(command);
		/* A string parameter that was not given reads as "(null)" */
		if (file_read(path)[0] != '(')
			snprintf(command + len, size - len, " %s=%.40s", names[i],
				 file_read(path));
		command[strcspn(command, "\n")] = 0;
	}
	len = strlen(command);
	snprintf(command + len, size - len, " 2>/dev/null");
}

/*
 * Verifies that the driver's module can be unloaded while processes have pages on
 * its device, and loaded again; afterwards an access to them raises SIGBUS and does
 * not call into memory where the module was.
 */
TEST_F(devmem, unload_with_zombies)
{
	char *ptr = area_filled(self->npages, variant->thp, 6);
	char command[500];
	int log = log_open();
	long before;
	int ret;

	module_parameters(command, sizeof(command));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0,
				   ALWAYS));
	close(self->fd);
	close(self->ctl);
	before = waits();
	ret = system("rmmod test_hmm_devmem");
	EXPECT_EQ(0, ret);
	EXPECT_GT(BOUNDED_WAITS, waits() - before);
	EXPECT_TRUE(log_has(log, variant->coherent ?
			    "pages of device memory are lost to their users" :
			    "pages of device memory are still in use", ""));
	close(log);
	EXPECT_EQ(-ENOENT, device_open(variant->nr));
	expect_lost(_metadata, ptr, self->npages);
	/* A coherent device's range does not have the driver's name any more */
	EXPECT_EQ(!variant->coherent, ranges(variant->nr));
	ASSERT_EQ(0, system(command));
	EXPECT_EQ(variant->coherent ? 0 : 2, ranges(variant->nr));
	expect_lost(_metadata, ptr, self->npages);
	ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
	EXPECT_EQ(!variant->coherent,
		  ranges_soon(variant->nr, !variant->coherent));
	self->ctl = device_open(variant->nr);
	ASSERT_LE(0, self->ctl);
	self->fd = device_open(variant->nr);
	ASSERT_LE(0, self->fd);
	ptr = area_filled(self->npages, variant->thp, 7);
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));
}

/*
 * Verifies that eviction and removal move pages of a child whose parent has exited:
 * drm_pagemap needs the parent's mm for that (bug D2), amdkfd does not try (K8).
 */
TEST_F(devmem, parent_is_dead)
{
	struct orphan orphan;
	int way;

	for (way = 0; way < 2; way++) {
		EXPECT_EQ(0, orphan_start(&orphan, variant->nr, self->npages,
					  variant->thp, 8));
		ASSERT_EQ(self->npages, device_used(self->ctl));
		if (way) {
			EXPECT_EQ(0, device_unplug(self->ctl));
			EXPECT_EQ(0, device_plug(self->ctl));
		} else {
			EXPECT_EQ(0, device_evict_all(self->ctl));
			EXPECT_EQ(self->npages, SINCE(evicted));
		}
		EXPECT_EQ(0, device_used(self->ctl));
		EXPECT_EQ(0, orphan_end(&orphan));
	}
}

/*
 * Verifies that 2 MiB folios move off a device although there is no large folio of
 * system memory for them: nouveau tries nothing else (bug N1), drm_pagemap tries
 * something that core refuses (D3, C5); and that the failed allocation is not
 * dereferenced (N8).
 */
TEST_F(devmem, large_folios_leave_without_large_ram)
{
	char *ptr;
	int way;

	self->replug = true;
	ptr = area_filled(self->npages, variant->thp, 9);
	for (way = 0; way < 3; way++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_TRUE(fail_attr("fail_ram_large", 100, -1));
		if (way == 0) {
			EXPECT_EQ(0, device_evict_all(self->ctl));
		} else if (way == 1) {
			EXPECT_EQ(0, device_suspend(self->ctl));
			EXPECT_EQ(0, device_resume(self->ctl));
		} else {
			/* And now and then no small page either */
			ASSERT_TRUE(fail_attr("fail_ram", 20, 100));
			EXPECT_EQ(0, device_unplug(self->ctl));
			EXPECT_EQ(0, device_plug(self->ctl));
		}
		fail_attrs_clear();
		EXPECT_EQ(0, device_used(self->ctl));
		EXPECT_EQ(0, wrong(ptr, 9, self->npages));
	}
}

struct mover {
	pthread_t thread;
	int fd;
	char *ptr;
	unsigned long npages;
	int stop;
	int refused;
	int errors;
};

static int mover_refused(const struct mover *mover)
{
	return __atomic_load_n(&mover->refused, __ATOMIC_RELAXED);
}

static void *mover_run(void *arg)
{
	struct mover *mover = arg;
	long ret;

	while (!__atomic_load_n(&mover->stop, __ATOMIC_RELAXED)) {
		ret = to_device(mover->fd, mover->ptr, mover->npages);
		if (ret == -ENODEV)
			__atomic_add_fetch(&mover->refused, 1, __ATOMIC_RELAXED);
		else if (ret < 0)
			mover->errors++;
		to_ram(mover->fd, mover->ptr, mover->npages);
	}
	return NULL;
}

/*
 * Verifies that a migration to the device that races with its removal fails with
 * -ENODEV, and gets no page of a range that does not exist any more (bug N13 of
 * nouveau).
 */
TEST_F(devmem, allocation_races_with_unplug)
{
	struct mover mover = { .fd = self->fd, .npages = self->npages };
	int i, refused;

	self->replug = true;
	ASSERT_TRUE(removal_waits(true));
	mover.ptr = area_filled(self->npages, variant->thp, 10);
	ASSERT_EQ(0, pthread_create(&mover.thread, NULL, mover_run, &mover));
	for (i = 0; i < 20; i++) {
		sleep_ms(i);
		EXPECT_EQ(0, device_unplug(self->ctl));
		EXPECT_EQ(0, pagemap_count(mover.ptr, self->npages, PAGEMAP_SWAP));
		refused = mover_refused(&mover);
		EXPECT_TRUE(soon(mover_refused(&mover) > refused));
		EXPECT_EQ(0, device_plug(self->ctl));
	}
	__atomic_store_n(&mover.stop, 1, __ATOMIC_RELAXED);
	pthread_join(mover.thread, NULL);
	EXPECT_EQ(0, mover.errors);
	EXPECT_EQ(0, wrong(mover.ptr, 10, self->npages));
}

TEST_HARNESS_MAIN
