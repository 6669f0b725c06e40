// SPDX-License-Identifier: GPL-2.0
/*
 * The files below hmm_devmem/ in debugfs: what they report must be the truth.
 */
#include "fixture.h"
#include "files.h"
#include "uffd.h"

#define READ_FILES(files) do {						\
	const char *what = read_files(self->ctl, variant->nr, false,	\
				      files);				\
									\
	ASSERT_EQ(NULL, what)						\
		TH_LOG("%s", what);					\
} while (0)

/*
 * Verifies that the files agree with each other and with the pages that were moved,
 * after each kind of migration, and that no page is in use in the end.
 */
TEST_F(devmem, files_say_what_was_moved)
{
	const long large = variant->thp && !variant->coherent ?
			   2 * HUGE_PAGES : 0;
	char *ptr = area_filled(self->npages, variant->thp, 1);
	const long npages = self->npages;
	struct files before, now;
	long touched = 0;

	READ_FILES(&before);
	EXPECT_EQ(0, before.used);
	EXPECT_EQ(0, before.large);
	EXPECT_EQ(before.nr_blocks, before.empty);

	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	READ_FILES(&now);
	EXPECT_EQ(npages, now.used);
	EXPECT_EQ(npages, now.to_device - before.to_device);
	EXPECT_EQ(npages, now.allocated - before.allocated);
	EXPECT_EQ(large, now.large);
	EXPECT_LE(large / HUGE_PAGES, now.full);
	EXPECT_LE(3, now.nr_blocks - now.empty);
	EXPECT_GE(5, now.nr_blocks - now.empty);

	/* A part of a huge page, which is split for that */
	ASSERT_EQ(100, to_ram(self->fd, ptr + 200 * PAGE, 100));
	READ_FILES(&now);
	EXPECT_EQ(npages - 100, now.used);
	EXPECT_EQ(100, now.to_ram - before.to_ram);
	EXPECT_EQ(large ? large - HUGE_PAGES : 0, now.large);

	if (!variant->coherent) {
		touch(ptr + 2 * HUGE, 100);
		READ_FILES(&now);
		touched = now.fault_pages - before.fault_pages;
		EXPECT_LE(100, touched);
		EXPECT_EQ(npages - 100 - touched, now.used);
		EXPECT_LT(before.faults, now.faults);
	}

	ASSERT_EQ(0, device_evict_all(self->ctl));
	READ_FILES(&now);
	EXPECT_EQ(0, now.used);
	EXPECT_EQ(0, now.large);
	EXPECT_EQ(npages, now.to_ram - before.to_ram);
	EXPECT_EQ(npages - 100 - touched, now.evicted - before.evicted);
	EXPECT_EQ(now.nr_blocks, now.empty);
	EXPECT_EQ(now.free, now.total);
}

/* Verifies this after copies that fail, and after the exit of a process with pages. */
TEST_F(devmem, files_say_what_failed)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	struct files before, now;

	READ_FILES(&before);
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_DEVICE, 0, ALWAYS);
	to_device(self->fd, ptr, self->npages);
	READ_FILES(&now);
	EXPECT_EQ(0, now.used);
	EXPECT_EQ(0, now.large);
	EXPECT_EQ(before.to_device, now.to_device);
	EXPECT_EQ(self->npages, now.copy_errors - before.copy_errors);
	EXPECT_EQ(now.allocated - before.allocated, now.freed - before.freed);

	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_TO_RAM, 0, ALWAYS);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, device_evict_all(self->fd));
	READ_FILES(&now);
	EXPECT_EQ(self->npages, now.used);
	EXPECT_EQ(before.to_ram, now.to_ram);
	EXPECT_LE(2 * self->npages, now.copy_errors - before.copy_errors);
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
	READ_FILES(&now);
	EXPECT_EQ(0, now.used);
	EXPECT_EQ(0, now.large);
	EXPECT_EQ(before.to_ram, now.to_ram);
}

/* Verifies this for a device of which no page is free. */
TEST_F(devmem, files_of_full_device)
{
	unsigned long size = self->before.size;
	char *ptr = area_numbered(size, variant->thp);
	struct files now;

	ASSERT_EQ(size, all_moved(self->fd, ptr, size));
	READ_FILES(&now);
	EXPECT_EQ(size, now.used);
	EXPECT_EQ(0, now.free);
	EXPECT_EQ(now.nr_blocks, now.full);
	EXPECT_EQ(variant->thp && !variant->coherent ? size : 0, now.large);
}

struct reader {
	pthread_t thread;
	int fd;
	char *buffer;
	ssize_t len;
};

static void *read_into_buffer(void *arg)
{
	struct reader *reader = arg;

	reader->len = read(reader->fd, reader->buffer, PAGE);
	return NULL;
}

/*
 * Verifies that a device can be removed while the reader of a file waits in a page
 * fault of its buffer (which userfaultfd does not serve yet), and that a file that
 * was opened before then returns -ENODEV.
 */
TEST_F(devmem, unplug_while_reader_waits)
{
	static const char * const names[] = { "stats", "segments", "blocks" };
	struct reader reader;
	struct uffd_msg msg;
	struct uffd uffd;
	char path[100];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path),
			 "/sys/kernel/debug/hmm_devmem/hmm_devmem_test%d/%s",
			 variant->nr, names[i]);
		reader.fd = open(path, O_RDONLY | O_CLOEXEC);
		ASSERT_LE(0, reader.fd);
		reader.buffer = area_map(1, false);
		ASSERT_EQ(0, uffd_open(&uffd, reader.buffer, 1,
				       UFFDIO_REGISTER_MODE_MISSING));
		ASSERT_EQ(0, pthread_create(&reader.thread, NULL, read_into_buffer,
					    &reader));
		ASSERT_TRUE(soon(read(uffd.fd, &msg, sizeof(msg)) == sizeof(msg)));
		ASSERT_EQ(0, device_unplug(self->ctl));
		EXPECT_EQ(1, SINCE(cleanups));
		ASSERT_EQ(0, uffd_start(&uffd));
		ASSERT_EQ(0, uffd_provide(&uffd, reader.buffer));
		pthread_join(reader.thread, NULL);
		EXPECT_LT(0, reader.len);
		EXPECT_EQ(0, uffd_stop(&uffd));
		EXPECT_EQ(-1, pread(reader.fd, reader.buffer, PAGE, 0));
		EXPECT_EQ(ENODEV, errno);
		close(reader.fd);
		ASSERT_EQ(0, device_plug(self->ctl));
		self->before = device_stats(self->ctl);
	}
}

TEST_HARNESS_MAIN
