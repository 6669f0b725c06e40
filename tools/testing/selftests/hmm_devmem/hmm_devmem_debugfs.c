// SPDX-License-Identifier: GPL-2.0
/*
 * The files below hmm_devmem/ in debugfs: what they say is what there is.
 */
#include "hmm_devmem_fixture.h"

/* What a device's files said at one time, in pages. */
struct files {
	long allocated, freed, to_device, to_ram, faults, fault_pages;
	long evicted, copy_errors, lost;
	long total, used, cached, free, retired, large, segments;
	/* From segments: lines, pages in their ranges, pages in use */
	long nr_segments, in_segments, in_use;
	/* From blocks: all blocks, empty and full ones, the least they can hold */
	long nr_blocks, empty, full, at_least;
};

static const char *read_device_file(int nr, const char *name)
{
	char path[100];

	snprintf(path, sizeof(path),
		 "/sys/kernel/debug/hmm_devmem/hmm_devmem_test%d/%s", nr, name);
	return file_read(path);
}

static const char *next_line(const char *line)
{
	line = strchr(line, '\n');
	return line ? line + 1 : "";
}

/* The number after @name, which is the first word of a line; -1 without it. */
static long number_of(const char *text, const char *name)
{
	const size_t len = strlen(name);

	for (; *text; text = next_line(text))
		if (!strncmp(text, name, len) && text[len] == ' ')
			return atol(text + len);
	return -1;
}

static void read_stats(int nr, struct files *files)
{
	const char *text = read_device_file(nr, "stats");

	files->allocated = number_of(text, "allocated");
	files->freed = number_of(text, "freed");
	files->to_device = number_of(text, "to_device");
	files->to_ram = number_of(text, "to_ram");
	files->faults = number_of(text, "faults");
	files->fault_pages = number_of(text, "fault_pages");
	files->evicted = number_of(text, "evicted");
	files->copy_errors = number_of(text, "copy_errors");
	files->lost = number_of(text, "lost");
	files->total = number_of(text, "total");
	files->used = number_of(text, "used");
	files->cached = number_of(text, "cached");
	files->free = number_of(text, "free");
	files->retired = number_of(text, "retired");
	files->large = number_of(text, "large");
	files->segments = number_of(text, "segments");
}

static void read_segments(int nr, struct files *files)
{
	const char *line = read_device_file(nr, "segments");
	unsigned long start, end;
	long in_use;

	for (; *line; line = next_line(line)) {
		if (sscanf(line, "[range 0x%lx-0x%lx] in use %ld idle", &start,
			   &end, &in_use) != 3)
			return;
		files->nr_segments++;
		files->in_segments += (end + 1 - start) / PAGE;
		files->in_use += in_use;
	}
}

static void read_blocks(int nr, struct files *files)
{
	const char *line = read_device_file(nr, "blocks");
	long most, count;

	for (; *line; line = next_line(line)) {
		if (sscanf(line, "<= %ld %ld", &most, &count) != 2)
			return;
		files->nr_blocks += count;
		files->at_least += most / 2 * count;
		if (!most)
			files->empty = count;
		if (most == HUGE_PAGES)
			files->full = count;
	}
}

/* What is wrong with the files, by itself or compared with the ioctl; or NULL. */
static const char *read_files(int fd, int nr, struct files *files)
{
	struct hmm_devmem_test_stats stats = device_stats(fd);

	memset(files, 0, sizeof(*files));
	/* Empties the caches, in which pages are neither used nor in a block */
	read_segments(nr, files);
	read_stats(nr, files);
	read_blocks(nr, files);
	if (files->allocated != stats.allocated || files->freed != stats.freed)
		return "allocated, freed";
	if (files->to_device != stats.to_device || files->to_ram != stats.to_ram)
		return "to_device, to_ram";
	if (files->faults != stats.faults ||
	    files->fault_pages != stats.fault_pages)
		return "faults, fault_pages";
	if (files->evicted != stats.evicted || files->lost != stats.lost ||
	    files->copy_errors != stats.copy_errors)
		return "evicted, lost, copy_errors";
	if (files->used != files->allocated - files->freed)
		return "used is not what was allocated and not freed";
	if (files->total != stats.size)
		return "total is not the size of the device";
	if (files->used + files->cached + files->free + files->retired !=
	    files->total || files->cached || files->retired)
		return "used, cached, free, retired and total do not add up";
	if (files->large > files->used || files->large % HUGE_PAGES)
		return "large";
	if (files->nr_segments != files->segments || files->segments < 1 ||
	    files->in_segments < files->total)
		return "segments";
	if (files->in_use != files->used)
		return "pages in use of the segments";
	if (files->nr_blocks != files->total / HUGE_PAGES)
		return "number of blocks";
	if (files->at_least > files->used ||
	    (files->nr_blocks - files->empty) * HUGE_PAGES < files->used)
		return "pages in use of the blocks";
	return NULL;
}

#define READ_FILES(files) do {						\
	const char *what = read_files(self->ctl, variant->nr, files);	\
									\
	ASSERT_EQ(NULL, what)						\
		TH_LOG("%s", what);					\
} while (0)

/*
 * Verifies that the files agree with each other and with what was moved: after
 * each kind of migration, and in the end nothing is in use.
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

	ASSERT_EQ(npages, to_device(self->fd, ptr, npages));
	READ_FILES(&now);
	EXPECT_EQ(npages, now.used);
	EXPECT_EQ(npages, now.to_device - before.to_device);
	EXPECT_EQ(npages, now.allocated - before.allocated);
	EXPECT_EQ(large, now.large);
	EXPECT_LE(large / HUGE_PAGES, now.full);
	EXPECT_LE(3, now.nr_blocks - now.empty);
	EXPECT_GE(5, now.nr_blocks - now.empty);

	/* A part of a huge page: that is none any more */
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

/* Verifies the same when copies fail, and when a process goes with its pages. */
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
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
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

/* Verifies the same for a device of which no page is free. */
TEST_F_TIMEOUT(devmem, files_of_full_device, 600)
{
	unsigned long size = self->before.size, i;
	char *ptr = area_map(size, variant->thp);
	struct files now;

	for (i = 0; i < size; i++)
		write_word(ptr + i * PAGE, i);
	ASSERT_EQ(size, to_device(self->fd, ptr, size));
	READ_FILES(&now);
	EXPECT_EQ(size, now.used);
	EXPECT_EQ(0, now.free);
	EXPECT_EQ(now.nr_blocks, now.full);
	EXPECT_EQ(variant->thp && !variant->coherent ? size : 0, now.large);
}

TEST_HARNESS_MAIN
