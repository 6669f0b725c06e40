/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory allocations of the kernel that fail, below functions that tests name.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_ALLOC_FAIL_H
#define _SELFTESTS_HMM_DEVMEM_ALLOC_FAIL_H

#include "test.h"

#define DEBUGFS "/sys/kernel/debug/"

static inline bool set_both(const char *file, const char *text)
{
	char path[100];

	snprintf(path, sizeof(path), DEBUGFS "failslab/%s", file);
	if (!file_write(path, text))
		return false;
	snprintf(path, sizeof(path), DEBUGFS "fail_page_alloc/%s", file);
	return file_write(path, text);
}

/* Find the start and the end of the code of a kernel function. */
static inline bool kernel_function(const char *name, unsigned long *start,
				   unsigned long *end)
{
	FILE *f = fopen("/proc/kallsyms", "r");
	unsigned long addr;
	char line[300], symbol[200];

	*start = 0;
	*end = ~0UL;
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx %*c %199s", &addr, symbol) == 2 &&
		    !strcmp(symbol, name))
			*start = addr;
	if (f)
		rewind(f);
	while (f && fgets(line, sizeof(line), f)) {
		addr = strtoul(line, NULL, 16);
		if (addr > *start && addr < *end)
			*end = addr;
	}
	if (f)
		fclose(f);
	return *start && *end != ~0UL;
}

/* Set a range of addresses that fault injection compares callers with. */
static inline bool set_range(const char *range, unsigned long start, unsigned long end)
{
	char file[30], text[30];

	snprintf(file, sizeof(file), "%s-start", range);
	snprintf(text, sizeof(text), "%#lx", start);
	if (!set_both(file, text))
		return false;
	snprintf(file, sizeof(file), "%s-end", range);
	snprintf(text, sizeof(text), "%#lx", end);
	return set_both(file, text);
}

/*
 * Let no allocation fail that is made below function @name. For functions of core
 * that warn when they run out of memory, even if the caller copes with that.
 */
static inline bool spare_function(const char *name)
{
	unsigned long start, end;

	return kernel_function(name, &start, &end) &&
	       set_range("reject", start, end);
}

/* Let only allocations fail that are made below function @name (NULL: any). */
static inline bool only_function(const char *name)
{
	unsigned long start = 0, end = ~0UL;

	return (!name || kernel_function(name, &start, &end)) &&
	       set_range("require", start, end);
}

/* Let allocations that may sleep fail, too, and log no failures. */
static inline bool alloc_fail_setup(void)
{
	return set_both("ignore-gfp-wait", "N") && set_both("verbose", "0") &&
	       file_write(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N") &&
	       file_write(DEBUGFS "fail_page_alloc/min-order", "0");
}

/* Let all allocations of this thread fail that are made below function @name. */
static inline bool alloc_fail_begin(const char *name)
{
	return alloc_fail_setup() && only_function(name) && set_both("task-filter", "Y") &&
	       set_both("times", "-1") && set_both("probability", "100") &&
	       file_write("/proc/thread-self/make-it-fail", "1");
}

/* Undo alloc_fail_begin(). Can be called without. */
static inline bool alloc_fail_end(void)
{
	return file_write("/proc/thread-self/make-it-fail", "0") &&
	       set_both("probability", "0") && set_both("times", "1") &&
	       set_both("task-filter", "N") && only_function(NULL);
}

#endif /* _SELFTESTS_HMM_DEVMEM_ALLOC_FAIL_H */
