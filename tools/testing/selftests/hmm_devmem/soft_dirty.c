// SPDX-License-Identifier: GPL-2.0
/*
 * Soft-dirty bits tell which pages were written to after a 4 was written to
 * clear_refs, as for a checkpoint by CRIU. Writes of the device must set them, too,
 * and nothing that happens to a page in between may clear them.
 */
#include "fixture.h"

#include <pthread.h>

#define PAGEMAP_SOFT_DIRTY	_BITULL(55)

/* Clear the soft-dirty bits of all pages. */
static bool clear_soft_dirty(void)
{
	return file_write("/proc/self/clear_refs", "4");
}

static long dirty(const char *ptr, unsigned long npages)
{
	return pagemap_count(ptr, npages, PAGEMAP_SOFT_DIRTY);
}

/* Are pages [0, HUGE_PAGES) soft-dirty, and no others? */
static bool is_half_dirty(const char *ptr, unsigned long npages)
{
	return dirty(ptr, npages) == HUGE_PAGES && dirty(ptr, HUGE_PAGES) == HUGE_PAGES;
}

/* Memory on the device whose first half the device has written to since. */
static char *half_dirty(struct _test_data_devmem *self, bool thp)
{
	char *ptr = area_filled(self->npages, thp, 1);
	char *data = area_filled(HUGE_PAGES, false, 2);

	if (all_moved(self->fd, ptr, self->npages) != self->npages ||
	    !clear_soft_dirty() ||
	    device_write(self->fd, ptr, data, HUGE_PAGES) != HUGE_PAGES ||
	    all_moved(self->fd, ptr, self->npages) != self->npages ||
	    !is_half_dirty(ptr, self->npages))
		return NULL;
	return ptr;
}

/* Number of pages without the content that half_dirty() has given them. */
static long half_wrong(const char *ptr, unsigned long npages)
{
	return wrong(ptr, 2, HUGE_PAGES) +
	       wrong_from(ptr + HUGE, 1, HUGE_PAGES, npages - HUGE_PAGES);
}

/*
 * Verifies that writes of the device set the bit, that its reads do not, and that it
 * cannot write without a fault once the bit was cleared.
 */
TEST_F(devmem, writes_of_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	char *data = area_map(self->npages, false);
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_TRUE(clear_soft_dirty());
		EXPECT_EQ(0, dirty(ptr, self->npages));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(0, count_states(self->fd, ptr, self->npages,
					  HMM_DEVMEM_TEST_PROT_WRITE));
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		EXPECT_EQ(0, dirty(ptr, self->npages));

		ASSERT_EQ(1, device_write(self->fd, ptr + 5 * PAGE, data, 1));
		EXPECT_EQ(1, dirty(ptr + 5 * PAGE, 1));
		EXPECT_EQ(0, dirty(ptr + HUGE, self->npages - HUGE_PAGES));
		fill(data, 2 + i, self->npages);
		ASSERT_EQ(self->npages,
			  device_write(self->fd, ptr, data, self->npages));
		EXPECT_EQ(self->npages, dirty(ptr, self->npages));
		EXPECT_EQ(0, wrong(ptr, 2 + i, self->npages));
	}
}

/* Verifies that CPU writes set the bit after the pages have moved back. */
TEST_F(devmem, writes_of_cpu)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	unsigned long i;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(clear_soft_dirty());
	touch(ptr, self->npages);
	EXPECT_EQ(0, dirty(ptr, self->npages));
	write_word(ptr, pattern_word(1, 0));
	EXPECT_EQ(1, dirty(ptr, 1));
	EXPECT_EQ(0, dirty(ptr + HUGE, self->npages - HUGE_PAGES));
	for (i = 0; i < self->npages; i++)
		write_word(ptr + i * PAGE, pattern_word(1, i * WORDS));
	EXPECT_EQ(self->npages, dirty(ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
}

/* Verifies that fork() copies the bits, which are each process's own afterwards. */
TEST_F(devmem, fork)
{
	char *ptr = half_dirty(self, variant->thp);
	pid_t child;

	ASSERT_NE(NULL, ptr);
	child = child_fork();
	if (!child) {
		if (!is_half_dirty(ptr, self->npages) || !clear_soft_dirty())
			_exit(1);
		write_word(ptr + HUGE, pattern_word(1, HUGE_PAGES * WORDS));
		_exit(dirty(ptr, HUGE_PAGES) || !dirty(ptr + HUGE, 1));
	}
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	EXPECT_EQ(0, child_status(child));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	EXPECT_EQ(0, half_wrong(ptr, self->npages));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
}

/* Verifies that a page keeps its bit when its protection changes. */
TEST_F(devmem, protection)
{
	static const int prots[] = { PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE };
	char *ptr = half_dirty(self, variant->thp);
	int i;

	ASSERT_NE(NULL, ptr);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, prots[i]));
		EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	}
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, half_wrong(ptr, self->npages));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
}

/*
 * Verifies that mremap() makes pages soft-dirty. Not if core moves a whole page
 * table: that leaves its entries as they are.
 */
TEST_F(devmem, moved)
{
	const unsigned long npages = variant->thp ? 2 * HUGE_PAGES : HUGE_PAGES / 2;
	char *ptr = area_filled(npages, variant->thp, 1);
	char *to = area_map(npages, variant->thp);
	const size_t size = npages * PAGE;

	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	ASSERT_TRUE(clear_soft_dirty());
	EXPECT_EQ(0, dirty(ptr, npages));
	ASSERT_EQ(to, mremap(ptr, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	if (!variant->thp || !variant->coherent)
		EXPECT_EQ(npages, dirty(to, npages));
	EXPECT_EQ(0, wrong(to, 1, npages));
}

/* Verifies that migration keeps the bits, be it of many or of few pages. */
TEST_F(devmem, migration)
{
	char *ptr = half_dirty(self, variant->thp);
	char *small = ptr + (HUGE_PAGES - 4) * PAGE;

	ASSERT_NE(NULL, ptr);
	ASSERT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	/* The last pages that are soft-dirty, and the first that are not */
	ASSERT_EQ(8, to_ram(self->fd, small, 8));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	ASSERT_EQ(8, all_moved(self->fd, small, 8));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
	EXPECT_EQ(0, half_wrong(ptr, self->npages));
	EXPECT_TRUE(is_half_dirty(ptr, self->npages));
}

/*
 * Verifies that a device page that fills a hole is soft-dirty: the device can write
 * to it without any fault.
 */
TEST_F(devmem, holes)
{
	char *ptr = area_map(self->npages, variant->thp);
	char *read = area_map(self->npages, variant->thp);
	char *data = area_filled(self->npages, false, 2);
	unsigned long i;

	ASSERT_TRUE(clear_soft_dirty());
	EXPECT_EQ(0, dirty(ptr, self->npages));
	/* Map zero pages */
	touch(read, self->npages);
	EXPECT_EQ(0, dirty(read, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_write(self->fd, ptr, data, self->npages));
	EXPECT_EQ(self->npages, dirty(ptr, self->npages));

	ASSERT_EQ(self->npages, all_moved(self->fd, read, self->npages));
	touch(read, self->npages);
	for (i = 0; i < self->npages; i++)
		write_word(read + i * PAGE, i);
	EXPECT_EQ(self->npages, dirty(read, self->npages));
}

static void *evict_all(void *arg)
{
	return (void *)(long)device_evict_all(*(int *)arg);
}

/* Returns whether it was cleared during copies; @evicted: all pages were evicted. */
static bool clear_soft_dirty_on_the_way(int ctl, bool *evicted)
{
	const long before = device_stats(ctl).evicted;
	pthread_t mover;
	bool cleared;
	void *left;

	if (pthread_create(&mover, NULL, evict_all, &ctl))
		abort();
	/* The copies can be over before this looks */
	soon(device_stats(ctl).copying || device_stats(ctl).evicted != before);
	cleared = clear_soft_dirty() && device_stats(ctl).copying;
	pthread_join(mover, &left);
	*evicted = !left;
	return cleared;
}

/*
 * Verifies that bits of pages can be cleared while the pages are migrated back, and
 * that the next write sets them.
 */
TEST_F(devmem, on_their_way)
{
	char *ptr = area_map(HUGE_PAGES, variant->thp);
	bool cleared = false, evicted;
	unsigned long i;
	long end;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 500000));
	for (end = now_ms() + HANG_MS; !cleared; ) {
		ASSERT_GT(end, now_ms());
		fill(ptr, 1, HUGE_PAGES);
		ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
		cleared = clear_soft_dirty_on_the_way(self->ctl, &evicted);
		ASSERT_TRUE(evicted);
	}
	EXPECT_EQ(0, dirty(ptr, HUGE_PAGES));
	for (i = 0; i < HUGE_PAGES; i++)
		write_word(ptr + i * PAGE, pattern_word(1, i * WORDS));
	EXPECT_EQ(HUGE_PAGES, dirty(ptr, HUGE_PAGES));
	EXPECT_EQ(0, wrong(ptr, 1, HUGE_PAGES));
}

TEST_HARNESS_MAIN
