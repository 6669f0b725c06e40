// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_mirror_entries: how a mirror counts entries, and which pages and
 * entries it leaves out. Nothing here needs a mirror.
 */

#include <kunit/test.h>
#include <linux/array_size.h>
#include <linux/bitops.h>
#include <linux/hmm.h>
#include <linux/hmm_devmem_mirror.h>
#include <linux/mm.h>
#include <linux/string.h>

#include "../mirror.h"

struct reach_case {
	const char *name;
	unsigned int nr;
	unsigned long addr;
	bool write;
	unsigned long pages;
	/* In pages, not bytes. */
	struct hmm_devmem_map_entry entries[3];
};

static const struct reach_case reach_cases[] = {
	{ "nothing", 0, 5, false, 0 },
	{ "one page", 1, 5, false, 1, { { 5 } } },
	{ "another page", 1, 5, false, 0, { { 6 } } },
	{ "a page before it", 2, 5, false, 1, { { 4 }, { 5 } } },
	{ "up to a gap", 3, 5, false, 2, { { 5 }, { 6 }, { 8 } } },
	{ "the middle of a large entry", 1, 5, false, 3, { { 0, 0, 3 } } },
	{ "a large entry and more", 2, 6, false, 3, { { 0, 0, 3 }, { 8 } } },
	{ "a write to what is read-only", 1, 5, true, 0, { { 5 } } },
	{ "a write up to what is read-only", 2, 5, true, 1,
	  { { 5, 0, 0, true }, { 6 } } },
};

KUNIT_ARRAY_PARAM_DESC(reach, reach_cases, name);

static void reach(struct kunit *test)
{
	const struct reach_case *param = test->param_value;
	struct hmm_devmem_map_entry entries[ARRAY_SIZE(param->entries)];
	unsigned int i;

	memcpy(entries, param->entries, sizeof(entries));
	for (i = 0; i < param->nr; i++)
		entries[i].addr <<= PAGE_SHIFT;
	KUNIT_EXPECT_EQ(test, param->pages,
			hmm_devmem_mirror_reach(entries, param->nr,
						param->addr << PAGE_SHIFT,
						param->write));
}

struct run_case {
	const char *name;
	const char *present; /* '#' is a page that is mapped */
	unsigned int i;
	unsigned int first;
	unsigned int last;
};

static const struct run_case run_cases[] = {
	{ "alone", "....", 2, 2, 2 },
	{ "all", "####", 2, 0, 3 },
	{ "a gap on both sides", "#.###.#.", 3, 2, 4 },
	{ "the first one", "##.#", 0, 0, 1 },
	{ "the last one", "#.##", 3, 2, 3 },
	{ "not mapped, between others", "##.##", 2, 0, 4 },
};

KUNIT_ARRAY_PARAM_DESC(run, run_cases, name);

static void present_run(struct kunit *test)
{
	const struct run_case *param = test->param_value;
	const unsigned int nr = strlen(param->present);
	unsigned int i, first, last;
	unsigned long pfns[16];

	for (i = 0; i < nr; i++)
		pfns[i] = param->present[i] == '#' ? HMM_PFN_VALID : 0;
	hmm_devmem_mirror_present_run(pfns, nr, param->i, &first, &last);
	KUNIT_EXPECT_EQ(test, param->first, first);
	KUNIT_EXPECT_EQ(test, param->last, last);
}

/* An entry of many pages goes if one of them has raced. */
static void raced_entries_are_dropped(struct kunit *test)
{
	struct hmm_devmem_mirror_window window = {
		.start = 8 * PAGE_SIZE,
		.end = 24 * PAGE_SIZE,
	};
	struct hmm_devmem_map_entry entries[] = {
		{ .addr = 8 * PAGE_SIZE },
		{ .addr = 9 * PAGE_SIZE },
		{ .addr = 12 * PAGE_SIZE, .order = 2 },
		{ .addr = 16 * PAGE_SIZE, .order = 3 },
	};

	__set_bit(9 - 8, window.raced);
	__set_bit(23 - 8, window.raced);
	KUNIT_ASSERT_EQ(test, 2, hmm_devmem_mirror_drop_raced(&window, entries, 4));
	KUNIT_EXPECT_EQ(test, 8 * PAGE_SIZE, entries[0].addr);
	KUNIT_EXPECT_EQ(test, 12 * PAGE_SIZE, entries[1].addr);
}

static struct kunit_case entries_cases[] = {
	KUNIT_CASE_PARAM(reach, reach_gen_params),
	KUNIT_CASE_PARAM(present_run, run_gen_params),
	KUNIT_CASE(raced_entries_are_dropped),
	{ }
};

static struct kunit_suite entries_suite = {
	.name = "hmm_devmem_mirror_entries",
	.test_cases = entries_cases,
};

kunit_test_suite(entries_suite);
