// SPDX-License-Identifier: GPL-2.0
/*
 * Windows that are smaller than a huge page, as on machines with larger huge pages:
 * the number of pages that move at once is bounded, and larger folios are split, in
 * both directions.
 */
#include "fixture.h"

#define SOME_KB		64
#define SOME_PAGES	(SOME_KB * 1024 / PAGE)

enum way { TO_RAM, TOUCH, EVICT, SUSPEND, UNPLUG, NR_WAYS };

static bool back_to_ram(struct _test_data_devmem *self, char *ptr, enum way way)
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

/*
 * Move pages to the device and back by each way, with a small window in both directions
 * or, if @whole, on the way back only. A direction with a small window takes at least
 * one copy for each window.
 */
static void there_and_back(struct __test_metadata *_metadata,
			   struct _test_data_devmem *self,
			   const struct _fixture_variant_devmem *variant, bool whole)
{
	const unsigned long copies = self->npages / SOME_PAGES;
	char *ptr;
	int way;

	for (way = 0; way < NR_WAYS; way++) {
		/* The CPU reads coherent pages where they are. */
		if (variant->coherent && way == TOUCH)
			continue;
		device_plug(self->ctl);
		ptr = area_filled(self->npages, variant->thp, 1 + way);
		if (!whole)
			ASSERT_TRUE(set_window_kb(self, SOME_KB));
		self->before = device_stats(self->ctl);
		EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		if (!whole)
			EXPECT_LE(copies, SINCE(copies));
		ASSERT_TRUE(set_window_kb(self, SOME_KB));
		self->before = device_stats(self->ctl);
		EXPECT_TRUE(back_to_ram(self, ptr, way));
		if (way != UNPLUG)
			EXPECT_LE(copies, SINCE(copies));
		EXPECT_EQ(0, wrong(ptr, 1 + way, self->npages));
		munmap(ptr, self->npages * PAGE);
		ASSERT_TRUE(set_window_kb(self, self->window_kb));
	}
	device_plug(self->ctl);
}

/* Verifies that no copy is larger than a window, whatever moves the pages. */
TEST_F(devmem, no_copy_is_larger_than_a_window)
{
	there_and_back(_metadata, self, variant, false);
}

/* Verifies that large device folios that do not fit into a window move back. */
TEST_F(devmem, folio_larger_than_a_window_moves_back)
{
	there_and_back(_metadata, self, variant, true);
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
