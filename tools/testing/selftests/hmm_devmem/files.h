/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The files below hmm_devmem/ in debugfs, compared with each other and with the
 * counters that the device's ioctl returns.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_FILES_H
#define _SELFTESTS_HMM_DEVMEM_FILES_H

#include "test.h"

/* The content of a device's files at one time, in pages. */
struct files {
	long allocated, freed, to_device, to_ram, faults, fault_pages;
	long evicted, copy_errors, lost;
	long device_faults, device_fault_pages, device_fault_used;
	long total, used, cached, free, retired, large, segments;
	/* From file segments: lines, pages in their ranges, pages in use */
	long nr_segments, in_segments, in_use;
	/* From file blocks: all blocks, empty and full ones, the least they can hold */
	long nr_blocks, empty, full, at_least;
};

static inline const char *read_device_file(int nr, const char *name)
{
	char path[100];

	snprintf(path, sizeof(path),
		 "/sys/kernel/debug/hmm_devmem/hmm_devmem_test%d/%s", nr, name);
	return file_read(path);
}

static inline const char *next_line(const char *line)
{
	line = strchr(line, '\n');
	return line ? line + 1 : "";
}

/* The number after @name, the first word of a line; -1 if there is no such line. */
static inline long number_of(const char *text, const char *name)
{
	const size_t len = strlen(name);

	for (; *text; text = next_line(text))
		if (!strncmp(text, name, len) && text[len] == ' ')
			return atol(text + len);
	return -1;
}

static inline void read_stats(int nr, struct files *files)
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
	files->device_faults = number_of(text, "device_faults");
	files->device_fault_pages = number_of(text, "device_fault_pages");
	files->device_fault_used = number_of(text, "device_fault_used");
	files->total = number_of(text, "total");
	files->used = number_of(text, "used");
	files->cached = number_of(text, "cached");
	files->free = number_of(text, "free");
	files->retired = number_of(text, "retired");
	files->large = number_of(text, "large");
	files->segments = number_of(text, "segments");
}

static inline void read_segments(int nr, struct files *files)
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

static inline void read_blocks(int nr, struct files *files)
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

/*
 * Returns what is wrong with the files, alone or compared with the ioctl, or NULL.
 * With @lazy, only parts of the device have struct pages; the rest is not counted.
 */
static inline const char *read_files(int fd, int nr, bool lazy,
				     struct files *files)
{
	struct hmm_devmem_test_stats stats = device_stats(fd);

	memset(files, 0, sizeof(*files));
	/* First: it empties the per-CPU caches, whose pages no other count includes */
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
	if (files->device_faults != stats.device_faults ||
	    files->device_fault_pages != stats.device_fault_pages ||
	    files->device_fault_used != stats.device_fault_used)
		return "device_faults, device_fault_pages, device_fault_used";
	if (files->used != files->allocated - files->freed)
		return "used is not what was allocated and not freed";
	if (lazy ? files->total > stats.size : files->total != stats.size)
		return "total is not the size of the device";
	if (files->used + files->cached + files->free + files->retired !=
	    files->total || files->cached || files->retired)
		return "used, cached, free, retired and total do not add up";
	if (files->large > files->used || files->large % HUGE_PAGES)
		return "large";
	if (files->nr_segments != files->segments ||
	    files->segments < !lazy || files->in_segments < files->total)
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

#endif /* _SELFTESTS_HMM_DEVMEM_FILES_H */
