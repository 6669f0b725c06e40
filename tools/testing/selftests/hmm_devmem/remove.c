// SPDX-License-Identifier: GPL-2.0
/*
 * Eviction, and devices that are removed while processes have memory on them; then
 * the same for the classic device, whose driver does all of that itself.
 */
#include "fixture.h"
#include "worker.h"

#include <pthread.h>

/* Verifies that eviction brings every page back, with its data. */
TEST_F(devmem, evict_all)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(self->npages, SINCE(evicted));
	EXPECT_EQ(self->npages, SINCE(to_ram));
	EXPECT_EQ(0, SINCE(faults));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
}

/* Verifies that eviction of a part of the device moves no page of another part. */
TEST_F(devmem, evict_part)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	unsigned long size = self->before.size, first;
	long before, after;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	/* The steps cut through huge pages; together they cover the device */
	for (first = 0; first < size; first += 100) {
		before = device_used(self->ctl);
		ASSERT_EQ(0, device_evict(self->fd, first,
					  size - first < 100 ? size - first : 100));
		after = device_used(self->ctl);
		/* Only huge pages may move beyond the range, as a whole */
		ASSERT_LE(before - after, variant->thp ? 2 * HUGE_PAGES : 100);
		if (!after)
			break;
	}
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(self->npages, SINCE(evicted));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));
}

/* Verifies that an empty device, or part of one, is evicted at once. */
TEST_F(devmem, evict_nothing)
{
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, device_evict(self->fd, 17, 1));
	EXPECT_EQ(0, SINCE(evicted));
}

/* Verifies eviction of pages that only a child maps, with the file closed. */
TEST_F(devmem, evict_of_child)
{
	struct child heir;

	ASSERT_TRUE(heir_start(&heir, variant->nr, self->npages, variant->thp, 3));
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(self->npages, SINCE(evicted));
	EXPECT_EQ(0, child_end(&heir));
	/* Only now: the child may still have had the file open before. */
	EXPECT_EQ(0, SINCE(contexts));
}

/* Verifies eviction after mremap(), that is, that it needs no user address. */
TEST_F(devmem, evict_after_mremap)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);
	char *target = area_map(self->npages, false);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(target, mremap(ptr, self->npages * PAGE, self->npages * PAGE,
				 MREMAP_MAYMOVE | MREMAP_FIXED, target));
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(0, wrong(target, 4, self->npages));
}

/* A device that is unplugged, or busy, is no error. */
static long move_if_there(struct worker *worker)
{
	const long ret = to_device(worker->fd, worker->ptr, worker->npages);

	return ret == -ENODEV || ret == -EBUSY ? 0 : ret;
}

/* Verifies that eviction while threads use the device loses no data. */
TEST_F(devmem, evict_under_fire)
{
	struct worker workers[WORKERS];
	int i;

	workers_start(workers, move_if_there, self->fd, variant->thp);
	for (i = 0; i < 20 || !SINCE(evicted); i++) {
		EXPECT_LE(0, device_evict_all(self->ctl));
		sleep_ms(3);
	}
	EXPECT_EQ(0, workers_stop(workers));
	EXPECT_LT(0, workers_moved(workers));
	EXPECT_LT(0, SINCE(evicted));
	EXPECT_EQ(0, device_evict_all(self->ctl));
}

/*
 * Verifies that unplugging the device brings all pages back to system memory, that
 * processes lose no data, and that kill and cleanup are called once each.
 */
TEST_F(devmem, unplug)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(0, device_stats(self->ctl).plugged);
	EXPECT_EQ(1, SINCE(kills));
	EXPECT_EQ(1, SINCE(cleanups));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
	EXPECT_EQ(-ENODEV, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(-ENODEV, device_unplug(self->ctl));
	EXPECT_EQ(1, SINCE(kills));

	ASSERT_EQ(0, device_plug(self->ctl));
	EXPECT_EQ(1, device_stats(self->ctl).plugged);
	EXPECT_EQ(0, device_used(self->ctl));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
	EXPECT_EQ(1, SINCE(cleanups));
}

/* Verifies this when a child has the pages and the file is closed. */
TEST_F(devmem, unplug_with_child)
{
	struct child heir;

	ASSERT_TRUE(heir_start(&heir, variant->nr, self->npages, variant->thp, 6));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(0, SINCE(contexts));
	EXPECT_EQ(0, child_end(&heir));
	ASSERT_EQ(0, device_plug(self->ctl));
}

/* Number of processes in unplug_while_faults_wait */
#define WAITING		32

/*
 * Verifies that a device that cannot copy can be unplugged while many processes wait
 * for it in CPU faults: each fault ends, but at any time there is one under way.
 */
TEST_F(devmem, unplug_while_faults_wait)
{
	char *ptr = area_filled(WAITING, false, 8);
	pid_t pids[WAITING];
	int i;

	/* There are no CPU faults on coherent memory */
	if (variant->coherent)
		return;
	ASSERT_EQ(WAITING, all_moved(self->fd, ptr, WAITING));
	ASSERT_EQ(0, device_inject_error(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM,
					 0, ALWAYS, EAGAIN));
	for (i = 0; i < WAITING; i++)
		pids[i] = child_start(!!wrong_from(ptr + i * PAGE, 8, i, 1));
	ASSERT_EQ(0, munmap(ptr, WAITING * PAGE));
	/* Wait until each process waits for the device */
	EXPECT_TRUE(soon(SINCE(faults) >= 10 * WAITING));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(1, SINCE(cleanups));
	for (i = 0; i < WAITING; i++)
		EXPECT_EQ(128 + SIGBUS, child_status(pids[i]));
	ASSERT_EQ(0, device_plug(self->ctl));
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
}

/* Verifies that a second plug is refused, and that plug and unplug can alternate. */
TEST_F(devmem, plug_many_times)
{
	char *ptr = area_filled(100, false, 7);
	int i;

	EXPECT_GT(0, device_plug(self->ctl));
	for (i = 1; i <= 10; i++) {
		ASSERT_EQ(0, device_unplug(self->ctl));
		ASSERT_EQ(0, device_plug(self->ctl));
		ASSERT_EQ(i, SINCE(kills));
		ASSERT_EQ(i, SINCE(cleanups));
		ASSERT_EQ(self->before.size, device_stats(self->ctl).size);
		ASSERT_EQ(100, all_moved(self->fd, ptr, 100));
	}
	EXPECT_EQ(0, wrong(ptr, 7, 100));
}

static void unplug_under_fire(struct __test_metadata *_metadata, int fd, int ctl,
			      bool thp)
{
	const struct hmm_devmem_test_stats before = device_stats(ctl);
	struct hmm_devmem_test_stats now;
	struct worker workers[WORKERS];
	int i;

	ASSERT_TRUE(removal_waits(true));
	workers_start(workers, move_if_there, fd, thp);
	for (i = 1; i <= 10; i++) {
		if (i % 5 == 1)
			ASSERT_TRUE(workers_have_moved(workers));
		sleep_ms(5 + i);
		ASSERT_EQ(0, device_unplug(ctl));
		now = device_stats(ctl);
		ASSERT_EQ(i, now.kills - before.kills);
		ASSERT_EQ(i, now.cleanups - before.cleanups);
		ASSERT_EQ(0, device_plug(ctl));
	}
	EXPECT_EQ(0, workers_stop(workers));
	EXPECT_LT(0, workers_moved(workers));
	EXPECT_TRUE(removal_waits(false));
}

/* Verifies that a device can be unplugged while threads use it. */
TEST_F(devmem, unplug_under_fire)
{
	unplug_under_fire(_metadata, self->fd, self->ctl, variant->thp);
}

/* The classic device. */
FIXTURE(classic)
{
	int fd;
	int ctl;
	unsigned long npages;
	struct hmm_devmem_test_stats before;
};

FIXTURE_SETUP(classic)
{
	self->fd = -1;
	self->ctl = device_open(CLASSIC);
	if (self->ctl == -ENOENT)
		SKIP(return, "no classic device");
	ASSERT_GE(self->ctl, 0);
	device_plug(self->ctl);
	self->fd = device_open(CLASSIC);
	ASSERT_GE(self->fd, 0);
	self->npages = 700;
	self->before = device_stats(self->ctl);
	ASSERT_EQ(1, self->before.plugged);
}

FIXTURE_TEARDOWN(classic)
{
	if (self->ctl < 0)
		return;
	areas_unmap();
	if (self->fd >= 0)
		close(self->fd);
	close(self->ctl);
}

/* Verifies that the driver's own migration puts pages on its device. */
TEST_F(classic, to_device)
{
	char *ptr = area_filled(self->npages, false, 1);
	char *data = area_map(self->npages, false);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages,
		  pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 1, self->npages));
}

/* Verifies that CPU faults go to the driver's own fault callback. */
TEST_F(classic, fault)
{
	char *ptr = area_filled(self->npages, false, 2);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));
	EXPECT_LT(0, SINCE(faults));
	EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	/* The library counts only what it does itself */
	EXPECT_EQ(0, SINCE(to_device));
	EXPECT_EQ(0, SINCE(fault_pages));
}

/* Verifies that the driver's data of each page is kept while the page is in use. */
TEST_F(classic, rounds)
{
	char *ptr = area_filled(self->npages, false, 3);
	char *data = area_map(self->npages, false);
	int i;

	for (i = 0; i < 5; i++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		ASSERT_EQ(0, wrong(data, 3 + i, self->npages));
		ASSERT_EQ(0, wrong(ptr, 3 + i, self->npages));
		fill(ptr, 4 + i, self->npages);
	}
}

/* Verifies that all pages are given back to the driver's allocator. */
TEST_F(classic, free)
{
	unsigned long size = self->before.size;
	unsigned long i;
	char *ptr;
	int round;

	for (round = 0; round < 3; round++) {
		ptr = area_map(size, false);
		for (i = 0; i < size; i++)
			write_word(ptr + i * PAGE, i);
		ASSERT_EQ(size, all_moved(self->fd, ptr, size));
		for (i = 0; i < size; i += 7)
			ASSERT_EQ(i, read_word(ptr + i * PAGE));
		areas_unmap();
	}
}

/* Verifies that a process that exits gives its device pages back. */
TEST_F(classic, exit)
{
	unsigned long size = self->before.size;
	char *ptr = area_map(size, false);
	int i;

	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, child_run(to_device(device_open(CLASSIC), ptr,
						 size) != (long)size));
}

/* Verifies that the driver brings its pages back when the device is removed. */
TEST_F(classic, unplug)
{
	char *ptr = area_filled(self->npages, false, 4);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(1, SINCE(kills));
	EXPECT_EQ(1, SINCE(cleanups));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
	EXPECT_EQ(-ENODEV, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_plug(self->ctl));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
}

/* Verifies that the managed services are refused to a classic driver. */
TEST_F(classic, not_managed)
{
	EXPECT_GT(0, device_evict_all(self->fd));
}

/* Verifies that the device can be removed while threads use it. */
TEST_F(classic, unplug_under_fire)
{
	unplug_under_fire(_metadata, self->fd, self->ctl, false);
}

TEST_HARNESS_MAIN
