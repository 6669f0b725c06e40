/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fixture that most tests use.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_FIXTURE_H
#define _SELFTESTS_HMM_DEVMEM_FIXTURE_H

#include "child.h"
#include "harness.h"
#include "test.h"

/*
 * One device, used with small or with huge pages. No page may be left on it after a
 * test.
 */
FIXTURE(devmem)
{
	int fd;
	/* A second open file of the device, which tests do not close. */
	int ctl;
	unsigned long npages;
	struct hmm_devmem_test_stats before;
	/* The test has plugged the device with other properties: undo that. */
	bool replug;
	/* The value of window_kb before the test changed it; 0 if it has not. */
	unsigned int window_kb;
};

FIXTURE_VARIANT(devmem)
{
	int nr;
	int peer;
	bool coherent;
	bool thp;
};

FIXTURE_VARIANT_ADD(devmem, private)
{
	.nr = 0,
	.peer = 1,
};

FIXTURE_VARIANT_ADD(devmem, private_thp)
{
	.nr = 0,
	.peer = 1,
	.thp = true,
};

/* Programs define this if they test only memory that the CPU cannot access. */
#ifndef ONLY_PRIVATE
FIXTURE_VARIANT_ADD(devmem, coherent)
{
	.nr = 2,
	.peer = 3,
	.coherent = true,
};

FIXTURE_VARIANT_ADD(devmem, coherent_thp)
{
	.nr = 2,
	.peer = 3,
	.coherent = true,
	.thp = true,
};
#endif

#define WINDOW_KB	"/sys/module/hmm_devmem/parameters/window_kb"

FIXTURE_SETUP(devmem)
{
	self->fd = -1;
	self->ctl = device_open(variant->nr);
	if (self->ctl == -ENOENT)
		SKIP(return, "no device %d", variant->nr);
	ASSERT_GE(self->ctl, 0);
	/* Undo what a failed test may have left */
	device_plug(self->ctl);
	device_resume(self->ctl);
	device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	device_fail_next(self->ctl, 0);
	ASSERT_TRUE(removal_waits(false));
	self->fd = device_open(variant->nr);
	ASSERT_GE(self->fd, 0);
	/* Two and a half huge pages: the last half is always small pages */
	self->npages = 2 * HUGE_PAGES + HUGE_PAGES / 2;
	self->before = device_stats(self->ctl);
	ASSERT_EQ(1, self->before.plugged);
	ASSERT_EQ(self->before.allocated, self->before.freed);
}

FIXTURE_TEARDOWN(devmem)
{
	if (self->ctl < 0)
		return;
	device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	device_fail_next(self->ctl, 0);
	fail_attrs_clear();
	EXPECT_TRUE(removal_waits(false));
	if (self->window_kb)
		EXPECT_TRUE(file_write_number(WINDOW_KB, self->window_kb));
	areas_unmap();
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	if (self->replug) {
		device_unplug(self->ctl);
		EXPECT_EQ(0, device_plug(self->ctl));
	}
	if (self->fd >= 0)
		close(self->fd);
	close(self->ctl);
}

/* How many pages move at once, at most; a huge page can be larger or smaller. */
static inline unsigned long window_pages(void)
{
	const unsigned long pages = atoi(file_read(WINDOW_KB)) * 1024UL / PAGE;

	return pages < HUGE_PAGES ? pages : HUGE_PAGES;
}

/* Let no more than @kb KiB move at once, for the rest of this test. */
static inline bool set_window_kb(struct _test_data_devmem *self, unsigned int kb)
{
	if (!self->window_kb)
		self->window_kb = atoi(file_read(WINDOW_KB));
	return file_write_number(WINDOW_KB, kb);
}

/* Plug the device with other properties, for the rest of this test. */
static inline int plug_as(struct _test_data_devmem *self, __u64 size, __u32 flags,
			  __u32 delay_us)
{
	int ret;

	self->replug = true;
	ret = device_unplug(self->ctl);
	if (!ret)
		ret = device_plug_as(self->ctl, size, flags, delay_us);
	self->before = device_stats(self->ctl);
	return ret;
}

/* Use a part of private memory; the size of coherent memory cannot be chosen. */
#define SMALL_DEVICE() do {						\
	if (!variant->coherent)						\
		ASSERT_EQ(0, plug_as(self, 16 * HUGE, 0, 0));		\
} while (0)

/* Plug a device. Its own physical range may be in use for a moment: then try again. */
static inline int plug_soon(int fd)
{
	int ret;

	soon((ret = device_plug(fd)) != -EBUSY);
	return ret;
}

#endif /* _SELFTESTS_HMM_DEVMEM_FIXTURE_H */
