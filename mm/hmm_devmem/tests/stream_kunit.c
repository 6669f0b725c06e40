// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_stream: how many pages a fault should bring.
 */

#include <kunit/test-bug.h>
#include <kunit/test.h>
#include <linux/array_size.h>
#include <linux/mm_types.h>
#include <linux/string.h>

#include "../stream.h"

/* Only compared, never dereferenced. */
#define ONE_MM		((const struct mm_struct *)0x1000)
#define OTHER_MM	((const struct mm_struct *)0x2000)

/* The windows of a walk, page by page. */
static const unsigned long growing[] = { 1, 1, 2, 4, 8, 16, 32, 64 };

static const struct hmm_devmem_window anywhere = { .first = 0, .end = 1UL << 40 };

static struct hmm_devmem_streams *new_streams(struct kunit *test)
{
	const struct hmm_devmem_streams init = HMM_DEVMEM_STREAMS_INIT;
	struct hmm_devmem_streams *streams;

	streams = kunit_kzalloc(test, sizeof(*streams), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, streams);
	*streams = init;
	return streams;
}

/* What a fault on @page brings. */
static struct hmm_devmem_window fault_in(struct hmm_devmem_streams *streams,
					 const struct mm_struct *mm,
					 unsigned long page,
					 struct hmm_devmem_window bounds)
{
	struct hmm_devmem_stream *stream;

	stream = hmm_devmem_streams_find(streams, mm, page);
	if (!stream)
		return hmm_devmem_window_one(page);
	return hmm_devmem_stream_continue(stream, page, bounds);
}

static struct hmm_devmem_window fault(struct hmm_devmem_streams *streams,
				      unsigned long page)
{
	return fault_in(streams, ONE_MM, page, anywhere);
}

static unsigned long fault_nr(struct hmm_devmem_streams *streams,
			      unsigned long page)
{
	return hmm_devmem_window_pages(fault(streams, page));
}

/* Walk upward from @page for @nr faults; returns the page of the next fault. */
static unsigned long walk_up(struct hmm_devmem_streams *streams,
			     unsigned long page, unsigned int nr)
{
	while (nr--)
		page = fault(streams, page).end;
	return page;
}

static void upward_walk_grows(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	struct hmm_devmem_window window;
	unsigned long page = 1000;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(growing); i++) {
		window = fault(streams, page);
		KUNIT_EXPECT_EQ(test, window.first, page);
		KUNIT_EXPECT_EQ(test, window.end, page + growing[i]);
		page = window.end;
	}
}

static void downward_walk_grows(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	struct hmm_devmem_window window;
	unsigned long page = 1000;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(growing); i++) {
		window = fault(streams, page);
		KUNIT_EXPECT_EQ(test, window.end, page + 1);
		KUNIT_EXPECT_EQ(test, window.first, page + 1 - growing[i]);
		page = window.first - 1;
	}
}

/* The first page that a process can have ends a walk downward. */
static void downward_walk_reaches_page_zero(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	struct hmm_devmem_window window = fault(streams, 4);

	while (window.first)
		window = fault(streams, window.first - 1);
	KUNIT_EXPECT_EQ(test, window.end, 1UL);
}

/* From three pages side by side it is not known that there will be a fourth. */
static void pairs_bring_nothing_else(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page;

	for (page = 1000; page < 2000; page += 100) {
		KUNIT_EXPECT_EQ(test, fault_nr(streams, page), 1UL);
		KUNIT_EXPECT_EQ(test, fault_nr(streams, page + 1), 1UL);
	}
}

static void stride_brings_nothing_else(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page;

	for (page = 1000; page < 1100; page += 2)
		KUNIT_EXPECT_EQ(test, fault_nr(streams, page), 1UL);
	for (; page > 1000; page -= 3)
		KUNIT_EXPECT_EQ(test, fault_nr(streams, page), 1UL);
}

static void window_ends_at_bounds(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	const struct hmm_devmem_window bounds = { .first = 900, .end = 1100 };
	unsigned long page = walk_up(streams, 1000, 7);
	struct hmm_devmem_window window;

	/* 64 pages, of which 36 are within the bounds */
	KUNIT_EXPECT_EQ(test, page, 1064UL);
	window = fault_in(streams, ONE_MM, page, bounds);
	KUNIT_EXPECT_EQ(test, window.first, 1064UL);
	KUNIT_EXPECT_EQ(test, window.end, 1100UL);
	/* The next one is not smaller for that. */
	KUNIT_EXPECT_EQ(test, fault_nr(streams, 1100), 128UL);
}

static void downward_window_ends_at_bounds(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	const struct hmm_devmem_window bounds = { .first = 990, .end = 1100 };
	struct hmm_devmem_window window = fault(streams, 1000);
	unsigned int i;

	for (i = 0; i < 4; i++)
		window = fault_in(streams, ONE_MM, window.first - 1, bounds);
	/* 8 pages, of which 3 are within the bounds */
	KUNIT_EXPECT_EQ(test, window.first, 990UL);
	KUNIT_EXPECT_EQ(test, window.end, 993UL);
	window = fault(streams, 989);
	KUNIT_EXPECT_EQ(test, window.first, 974UL);
	KUNIT_EXPECT_EQ(test, window.end, 990UL);
}

static void as_many_walks_as_streams_grow(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page[HMM_DEVMEM_NR_STREAMS];
	unsigned int i, n;

	for (n = 0; n < ARRAY_SIZE(page); n++)
		page[n] = 10000 * (n + 1);
	for (i = 0; i < ARRAY_SIZE(growing); i++) {
		for (n = 0; n < ARRAY_SIZE(page); n++) {
			KUNIT_EXPECT_EQ(test, fault_nr(streams, page[n]),
					growing[i]);
			page[n] += growing[i];
		}
	}
}

/* A program that touches pages at random, too, keeps the stream that it uses. */
static void least_recently_used_stream_is_replaced(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long used = walk_up(streams, 10000, 4);
	unsigned long unused = walk_up(streams, 20000, 4);
	unsigned int i;

	for (i = 1; i < HMM_DEVMEM_NR_STREAMS; i++) {
		used = walk_up(streams, used, 1);
		KUNIT_EXPECT_EQ(test, fault_nr(streams, 30000 + 100 * i), 1UL);
	}
	KUNIT_EXPECT_GT(test, fault_nr(streams, used), 100UL);
	KUNIT_EXPECT_EQ(test, fault_nr(streams, unused), 1UL);
}

static void unused_stream_stays_until_it_is_the_oldest(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page = walk_up(streams, 10000, 4);
	unsigned int i;

	for (i = 1; i < HMM_DEVMEM_NR_STREAMS; i++)
		fault(streams, 30000 + 100 * i);
	KUNIT_EXPECT_EQ(test, fault_nr(streams, page), 8UL);
}

static void other_mm_has_streams_of_its_own(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page = walk_up(streams, 1000, 5);
	struct hmm_devmem_window window;

	/* The child of a fork, at the same address */
	window = fault_in(streams, OTHER_MM, page, anywhere);
	KUNIT_EXPECT_EQ(test, hmm_devmem_window_pages(window), 1UL);
	/* Does not disturb its parent. */
	KUNIT_EXPECT_EQ(test, fault_nr(streams, page), 16UL);
}

/* A window is known to be read if the next fault is right beside it. */
static void window_is_read_to_its_end(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page = walk_up(streams, 1000, 5);
	const int latest = hmm_devmem_streams_latest(streams);

	KUNIT_EXPECT_EQ(test, page, 1016UL);
	KUNIT_EXPECT_EQ(test, hmm_devmem_streams_read(streams, ONE_MM, 1016), latest);
	KUNIT_EXPECT_EQ(test, hmm_devmem_streams_read(streams, ONE_MM, 1007), latest);
	KUNIT_EXPECT_EQ(test, hmm_devmem_streams_read(streams, ONE_MM, 1006), -1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_streams_read(streams, ONE_MM, 1008), -1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_streams_read(streams, ONE_MM, 1015), -1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_streams_read(streams, ONE_MM, 1017), -1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_streams_read(streams, OTHER_MM, 1016), -1);
	/* To ask has changed nothing. */
	KUNIT_EXPECT_EQ(test, fault_nr(streams, page), 16UL);
}

/* As when the device has taken pages back before the CPU read them. */
static void fault_within_a_window_drops_growth(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page = walk_up(streams, 1000, 6);

	KUNIT_EXPECT_EQ(test, fault_nr(streams, page - 3), 1UL);
	KUNIT_EXPECT_EQ(test, fault_nr(streams, page - 2), 1UL);
	KUNIT_EXPECT_EQ(test, fault_nr(streams, page - 1), 2UL);
}

static void dropped_stream_starts_again(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	unsigned long page = walk_up(streams, 1000, 6);
	struct hmm_devmem_stream *stream;
	struct hmm_devmem_window window;
	unsigned int i;

	stream = hmm_devmem_streams_find(streams, ONE_MM, page);
	KUNIT_ASSERT_NOT_NULL(test, stream);
	hmm_devmem_stream_continue(stream, page, anywhere);
	window = hmm_devmem_stream_drop(stream, page);
	for (i = 0; i < ARRAY_SIZE(growing); i++) {
		KUNIT_EXPECT_EQ(test, hmm_devmem_window_pages(window),
				growing[i]);
		window = fault(streams, window.end);
	}
}

static void stream_goes_on_beyond_a_large_folio(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	struct hmm_devmem_window folio = { .first = 1024, .end = 1536 };

	KUNIT_EXPECT_EQ(test, walk_up(streams, 1024 - 32, 6), 1024UL);
	hmm_devmem_streams_pass(streams, ONE_MM, folio);
	KUNIT_EXPECT_EQ(test, fault_nr(streams, 1536), 32UL);
}

static void stream_goes_down_beyond_a_large_folio(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	struct hmm_devmem_window folio = { .first = 1024, .end = 1536 };
	struct hmm_devmem_window window = fault(streams, 1536 + 31);

	while (window.first > 1536)
		window = fault(streams, window.first - 1);
	hmm_devmem_streams_pass(streams, ONE_MM, folio);
	window = fault(streams, 1023);
	KUNIT_EXPECT_EQ(test, window.first, 1024UL - 32);
	KUNIT_EXPECT_EQ(test, window.end, 1024UL);
}

/* One page of each huge page is no walk. */
static void large_folios_do_not_make_windows_grow(struct kunit *test)
{
	struct hmm_devmem_streams *streams = new_streams(test);
	struct hmm_devmem_window folio = { .first = 512, .end = 1024 };
	unsigned int i;

	for (i = 0; i < 10; i++) {
		hmm_devmem_streams_pass(streams, ONE_MM, folio);
		folio.first += 512;
		folio.end += 512;
	}
	KUNIT_EXPECT_EQ(test, fault_nr(streams, folio.first), 1UL);
}

/* What concurrent writers can leave behind: every window contains the page. */
static void torn_streams_give_valid_windows(struct kunit *test)
{
	static const unsigned long odd[] = {
		0, 1, 2, 999, 1000, 1001, 1UL << 31, ~1UL, ~0UL
	};
	const struct hmm_devmem_window bounds = { .first = 990, .end = 1010 };
	const unsigned int nr = ARRAY_SIZE(odd);
	unsigned int i;

	for (i = 0; i < nr * nr * nr; i++) {
		struct hmm_devmem_stream stream = {
			.mm = ONE_MM,
			.first = odd[i % nr],
			.span = odd[i / nr % nr],
			.next = odd[i / nr / nr],
		};
		struct hmm_devmem_window window;

		window = hmm_devmem_stream_continue(&stream, 1000, bounds);
		KUNIT_EXPECT_TRUE(test, window.first == 1000 || window.end == 1001);
		KUNIT_EXPECT_LE(test, bounds.first, window.first);
		KUNIT_EXPECT_LE(test, window.first, 1000UL);
		KUNIT_EXPECT_LT(test, 1000UL, window.end);
		KUNIT_EXPECT_LE(test, window.end, bounds.end);
	}
}

/* What a device's fault on @page brings. */
static unsigned long device_fault_nr(struct hmm_devmem_stream_sets *sets,
				     unsigned long page)
{
	const struct hmm_devmem_window window = hmm_devmem_window_one(page);
	const unsigned int set = hmm_devmem_stream_sets_find(sets, ONE_MM, window);

	KUNIT_EXPECT_LT(kunit_get_current_test(), set, HMM_DEVMEM_NR_STREAM_SETS);
	return fault_nr(&sets->set[set], page);
}

static struct hmm_devmem_stream_sets *new_sets(struct kunit *test)
{
	struct hmm_devmem_stream_sets *sets;

	sets = kunit_kzalloc(test, sizeof(*sets), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, sets);
	hmm_devmem_stream_sets_init(sets);
	return sets;
}

/* A device that works on all layers of a model goes through more than a CPU does. */
static void sets_have_more_walks(struct kunit *test)
{
	struct hmm_devmem_stream_sets *sets = new_sets(test);
	const unsigned int nr = HMM_DEVMEM_NR_STREAM_SETS * HMM_DEVMEM_NR_STREAMS;
	unsigned long page[HMM_DEVMEM_NR_STREAM_SETS * HMM_DEVMEM_NR_STREAMS];
	unsigned int i, n;

	for (n = 0; n < nr; n++)
		page[n] = 10000 * (n + 1);
	for (i = 0; i < ARRAY_SIZE(growing); i++) {
		for (n = 0; n < nr; n++) {
			KUNIT_EXPECT_EQ(test, device_fault_nr(sets, page[n]),
					growing[i]);
			page[n] += growing[i];
		}
	}
}

/* A walk stays where it is while single faults start streams in all sets by turns. */
static void walk_stays_in_its_set(struct kunit *test)
{
	struct hmm_devmem_stream_sets *sets = new_sets(test);
	unsigned long page = 10000, other = 1000000;
	unsigned int i, n;

	for (i = 0; i < ARRAY_SIZE(growing); i++) {
		KUNIT_EXPECT_EQ(test, device_fault_nr(sets, page), growing[i]);
		page += growing[i];
		for (n = 0; n < HMM_DEVMEM_NR_STREAM_SETS * (HMM_DEVMEM_NR_STREAMS - 1); n++)
			device_fault_nr(sets, other += 100);
	}
}

/* A large folio is found by either of its ends. */
static void set_of_a_large_folio(struct kunit *test)
{
	struct hmm_devmem_stream_sets *sets = new_sets(test);
	struct hmm_devmem_window folio = { .first = 1024, .end = 1536 };
	unsigned int set;

	device_fault_nr(sets, 5000);
	device_fault_nr(sets, 1023);
	set = hmm_devmem_stream_sets_find(sets, ONE_MM, folio);
	KUNIT_EXPECT_EQ(test, set, 1);
	device_fault_nr(sets, 3072);
	folio.first = 2560;
	folio.end = 3072;
	set = hmm_devmem_stream_sets_find(sets, ONE_MM, folio);
	KUNIT_EXPECT_EQ(test, set, 2);
}

static struct kunit_case stream_cases[] = {
	KUNIT_CASE(upward_walk_grows),
	KUNIT_CASE(downward_walk_grows),
	KUNIT_CASE(downward_walk_reaches_page_zero),
	KUNIT_CASE(pairs_bring_nothing_else),
	KUNIT_CASE(stride_brings_nothing_else),
	KUNIT_CASE(window_ends_at_bounds),
	KUNIT_CASE(downward_window_ends_at_bounds),
	KUNIT_CASE(as_many_walks_as_streams_grow),
	KUNIT_CASE(least_recently_used_stream_is_replaced),
	KUNIT_CASE(unused_stream_stays_until_it_is_the_oldest),
	KUNIT_CASE(other_mm_has_streams_of_its_own),
	KUNIT_CASE(window_is_read_to_its_end),
	KUNIT_CASE(fault_within_a_window_drops_growth),
	KUNIT_CASE(dropped_stream_starts_again),
	KUNIT_CASE(stream_goes_on_beyond_a_large_folio),
	KUNIT_CASE(stream_goes_down_beyond_a_large_folio),
	KUNIT_CASE(large_folios_do_not_make_windows_grow),
	KUNIT_CASE(torn_streams_give_valid_windows),
	KUNIT_CASE(sets_have_more_walks),
	KUNIT_CASE(walk_stays_in_its_set),
	KUNIT_CASE(set_of_a_large_folio),
	{}
};

static struct kunit_suite stream_suite = {
	.name = "hmm_devmem_stream",
	.test_cases = stream_cases,
};

kunit_test_suite(stream_suite);
