// SPDX-License-Identifier: GPL-2.0
/*
 * Windows that are smaller than a huge page, as on machines with larger huge pages:
 * the number of pages that move at once is bounded, and larger folios are split, in
 * both directions.
 */
#include "hmm_devmem_fixture.h"

#define SOME_KB		64
#define SOME_PAGES	(SOME_KB * 1024 / PAGE)

enum way { TO_RAM, TOUCH, EVICT, SUSPEND, UNPLUG, NR_WAYS };

static bool go_home(struct _test_data_devmem *self, char *ptr, enum way way)
{
	switch (way) {
	case TO_RAM:
		return to_ram(self->fd, ptr, self->npages) == (long)self->npages;
	case TOUCH:
		touch(ptr, self->npages);
		return true;
	case EVICT:
		return !device_evict_all(self->fd);
	case SUSPEND:
		return !device_suspend(self->ctl) && !device_resume(self->ctl);
	default:
		return !device_unplug(self->ctl);
	}
}

/* Verifies that no copy has more pages than a window, in any way of moving. */
TEST_F(devmem, no_copy_is_larger_than_a_window)
{
	char *ptr;
	int way;

	for (way = 0; way < NR_WAYS; way++) {
		/* A CPU access does not move coherent pages */
		if (variant->coherent && way == TOUCH)
			continue;
		device_plug(self->ctl);
		ptr = area_filled(self->npages, variant->thp, 1 + way);
		ASSERT_TRUE(set_window_kb(self, SOME_KB));
		self->before = device_stats(self->ctl);
		EXPECT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
		EXPECT_LE(self->npages / SOME_PAGES, SINCE(copies));
		EXPECT_TRUE(go_home(self, ptr, way));
		if (way != UNPLUG)
			EXPECT_LE(2 * self->npages / SOME_PAGES, SINCE(copies));
		EXPECT_EQ(0, wrong(ptr, 1 + way, self->npages));
		munmap(ptr, self->npages * PAGE);
		ASSERT_TRUE(set_window_kb(self, self->window_kb));
	}
	device_plug(self->ctl);
}

/* Verifies that large device folios that do not fit into a window move back. */
TEST_F(devmem, folio_larger_than_a_window_comes_home)
{
	char *ptr;
	int way;

	for (way = 0; way < NR_WAYS; way++) {
		if (variant->coherent && way == TOUCH)
			continue;
		device_plug(self->ctl);
		ptr = area_filled(self->npages, variant->thp, 11 + way);
		EXPECT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
		self->before = device_stats(self->ctl);
		ASSERT_TRUE(set_window_kb(self, SOME_KB));
		EXPECT_TRUE(go_home(self, ptr, way));
		if (way != UNPLUG)
			EXPECT_LE(self->npages / SOME_PAGES, SINCE(copies));
		EXPECT_EQ(0, wrong(ptr, 11 + way, self->npages));
		munmap(ptr, self->npages * PAGE);
		ASSERT_TRUE(set_window_kb(self, self->window_kb));
	}
	device_plug(self->ctl);
}

/* Verifies that a window is a power of two of pages, and not more than 2 MiB. */
TEST(window_of_odd_sizes_is_refused)
{
	static const char * const odd[] = {
		"0", "2", "96", "4096", "4294967296", "much",
	};
	const int before = atoi(file_read(WINDOW_KB));
	size_t i;

	ASSERT_LT(0, before);
	for (i = 0; i < ARRAY_SIZE(odd); i++)
		EXPECT_FALSE(file_write(WINDOW_KB, odd[i]));
	EXPECT_EQ(before, atoi(file_read(WINDOW_KB)));
}

TEST_HARNESS_MAIN
