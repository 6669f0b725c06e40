// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_left: the count of why pages did not move to the device.
 */

#include <kunit/test.h>
#include <linux/hmm_devmem.h>
#include <linux/random.h>

#include "../left.h"

static unsigned long sum(const struct hmm_devmem_left *left)
{
	return left->busy + left->no_device_memory + left->no_memory + left->not_copied +
	       left->not_suitable;
}

struct add_param {
	const char *name;
	struct hmm_devmem_left_window window;
	struct hmm_devmem_left left;
};

static const struct add_param add_params[] = {
	{
		.name = "all are on the device",
		.window = { .nr = 8, .here = 8, .fills = true },
	}, {
		.name = "a page is pinned",
		.window = { .nr = 8, .here = 7, .movable = 1, .fills = true },
		.left = { .busy = 1 },
	}, {
		.name = "the device is full",
		.window = { .nr = 8, .here = 2, .movable = 4, .nr_short = 6, .fills = true },
		.left = { .no_device_memory = 6 },
	}, {
		.name = "the kernel has no memory for struct pages",
		.window = { .nr = 8, .movable = 8, .nr_short = 8, .no_memory = true,
			    .fills = true },
		.left = { .no_memory = 8 },
	}, {
		.name = "the copy of some pages failed",
		.window = { .nr = 8, .here = 3, .movable = 5, .nr_not_copied = 4,
			    .fills = true },
		.left = { .busy = 1, .not_copied = 4 },
	}, {
		.name = "core has not filled in missing pages",
		.window = { .nr = 8, .here = 6, .nr_unfilled = 2, .fills = true },
		.left = { .no_memory = 2 },
	}, {
		.name = "a CPU fault has filled one of them in",
		.window = { .nr = 8, .here = 6, .movable = 1, .nr_unfilled = 2,
			    .fills = true },
		.left = { .busy = 1, .no_memory = 1 },
	}, {
		.name = "missing pages must stay missing",
		.window = { .nr = 8, .here = 5, .movable = 1 },
		.left = { .busy = 1, .not_suitable = 2 },
	}, {
		.name = "pages of a file",
		.window = { .nr = 8, .here = 5, .fixed = 3, .fills = true },
		.left = { .not_suitable = 3 },
	}, {
		.name = "all at once",
		.window = { .nr = 100, .here = 10, .movable = 60, .fixed = 12,
			    .nr_short = 20, .nr_not_copied = 15, .nr_unfilled = 3,
			    .fills = true },
		.left = { .busy = 40, .no_device_memory = 20, .no_memory = 3,
			  .not_copied = 15, .not_suitable = 12 },
	}, {
		.name = "numbers that do not agree",
		.window = { .nr = 8, .here = 5, .movable = 8, .fixed = 2, .nr_short = 8,
			    .nr_not_copied = 8, .nr_unfilled = 8 },
		.left = { .not_copied = 1, .not_suitable = 2 },
	}, {
		.name = "more pages than the window has",
		.window = { .nr = 8, .here = 9, .movable = 9, .nr_short = 9 },
	},
};

KUNIT_ARRAY_PARAM_DESC(add, add_params, name);

static void each_page_has_one_reason(struct kunit *test)
{
	const struct add_param *param = test->param_value;
	struct hmm_devmem_left left = { };

	hmm_devmem_left_add(&left, &param->window);
	KUNIT_EXPECT_EQ(test, param->left.busy, left.busy);
	KUNIT_EXPECT_EQ(test, param->left.no_device_memory, left.no_device_memory);
	KUNIT_EXPECT_EQ(test, param->left.no_memory, left.no_memory);
	KUNIT_EXPECT_EQ(test, param->left.not_copied, left.not_copied);
	KUNIT_EXPECT_EQ(test, param->left.not_suitable, left.not_suitable);
}

static void windows_are_added_up(struct kunit *test)
{
	const struct hmm_devmem_left_window window = {
		.nr = 8, .here = 4, .movable = 3, .nr_short = 2, .fills = true,
	};
	struct hmm_devmem_left left = { .busy = 10, .not_suitable = 1 };

	hmm_devmem_left_add(&left, &window);
	hmm_devmem_left_add(&left, &window);
	KUNIT_EXPECT_EQ(test, 14, left.busy);
	KUNIT_EXPECT_EQ(test, 4, left.no_device_memory);
	KUNIT_EXPECT_EQ(test, 19, sum(&left));
}

/* Whatever the numbers are, the reasons are for the pages that are not there. */
static void sum_is_right_for_any_numbers(struct kunit *test)
{
	struct hmm_devmem_left left;
	struct hmm_devmem_left_window window;
	unsigned int i;

	for (i = 0; i < 10000; i++) {
		window = (struct hmm_devmem_left_window) {
			.nr = 512,
			.here = get_random_u32_below(600),
			.movable = get_random_u32_below(600),
			.fixed = get_random_u32_below(600),
			.fills = get_random_u32_below(2),
			.nr_short = get_random_u32_below(600),
			.no_memory = get_random_u32_below(2),
			.nr_not_copied = get_random_u32_below(600),
			.nr_unfilled = get_random_u32_below(600),
		};
		left = (struct hmm_devmem_left) { };
		hmm_devmem_left_add(&left, &window);
		KUNIT_ASSERT_EQ(test, window.nr - min(window.here, window.nr), sum(&left));
	}
}

static const struct hmm_devmem_left some = {
	.busy = 1,
	.no_device_memory = 20,
	.no_memory = 300,
	.not_copied = 4000,
	.not_suitable = 50000,
};

static void settle_changes_nothing_that_adds_up(struct kunit *test)
{
	struct hmm_devmem_left left = some;

	hmm_devmem_left_settle(&left, 54321);
	KUNIT_EXPECT_MEMEQ(test, &left, &some, sizeof(left));
}

static void settle_calls_the_rest_busy(struct kunit *test)
{
	struct hmm_devmem_left left = some;

	hmm_devmem_left_settle(&left, 54321 + 7);
	KUNIT_EXPECT_EQ(test, 8, left.busy);
	left.busy = some.busy;
	KUNIT_EXPECT_MEMEQ(test, &left, &some, sizeof(left));
}

static void settle_drops_busy_pages_first(struct kunit *test)
{
	struct hmm_devmem_left left = some;

	hmm_devmem_left_settle(&left, 54321 - 11);
	KUNIT_EXPECT_EQ(test, 0, left.busy);
	KUNIT_EXPECT_EQ(test, 290, left.no_memory);
	KUNIT_EXPECT_EQ(test, 20, left.no_device_memory);
	hmm_devmem_left_settle(&left, 50001);
	KUNIT_EXPECT_EQ(test, 1, left.not_copied);
	KUNIT_EXPECT_EQ(test, 50000, left.not_suitable);
	hmm_devmem_left_settle(&left, 0);
	KUNIT_EXPECT_EQ(test, 0, sum(&left));
}

static struct kunit_case left_cases[] = {
	KUNIT_CASE_PARAM(each_page_has_one_reason, add_gen_params),
	KUNIT_CASE(windows_are_added_up),
	KUNIT_CASE(sum_is_right_for_any_numbers),
	KUNIT_CASE(settle_changes_nothing_that_adds_up),
	KUNIT_CASE(settle_calls_the_rest_busy),
	KUNIT_CASE(settle_drops_busy_pages_first),
	{ }
};

static struct kunit_suite left_suite = {
	.name = "hmm_devmem_left",
	.test_cases = left_cases,
};

kunit_test_suite(left_suite);
