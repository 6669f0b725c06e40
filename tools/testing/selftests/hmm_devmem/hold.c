// SPDX-License-Identifier: GPL-2.0
/*
 * Which pages stay on a device that is smaller than the memory that it works on. What
 * is compared are numbers of pages that move, which no other process changes.
 */
#include "fixture.h"
#include "policy.h"

#define BLOCKS		16
#define DEVICE		(BLOCKS * HUGE_PAGES)
#define SWEEPS		5

/* A device of BLOCKS blocks that evicts. */
static bool plug_small(struct _test_data_devmem *self)
{
	return !plug_as(self, DEVICE * PAGE, HMM_DEVMEM_TEST_RECLAIM, 0) &&
	       device_stats(self->ctl).size == DEVICE;
}

static char *block_of(char *ptr, unsigned long nr)
{
	return ptr + nr * HUGE_PAGES * PAGE;
}

/* Let the device use pages that it has. */
static bool use(int fd, char *ptr, unsigned long npages, bool by_faults)
{
	if (by_faults)
		return !device_fault(fd, ptr, 0, npages);
	return all_moved(fd, ptr, npages) == (long)npages;
}

/*
 * Use pages again and again while others come, by migrations of what is there already or
 * by page faults of the device.
 */
static void use_hot_set(struct __test_metadata *_metadata, struct _test_data_devmem *self,
			const struct _fixture_variant_devmem *variant, bool by_faults)
{
	const unsigned long hot_pages = DEVICE / 2, others = 2 * BLOCKS;
	char *hot, *cold;
	unsigned long i;

	/* The size of a coherent device is fixed. */
	if (variant->coherent)
		return;
	ASSERT_TRUE(plug_small(self));
	hot = area_filled(hot_pages, variant->thp, 1);
	cold = area_filled(others * HUGE_PAGES, variant->thp, 2);
	ASSERT_EQ(hot_pages, all_moved(self->fd, hot, hot_pages));
	for (i = 0; i < others; i++) {
		ASSERT_TRUE(use(self->fd, hot, hot_pages, by_faults));
		ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, block_of(cold, i), HUGE_PAGES));
		ASSERT_EQ(hot_pages, resident(self->fd, hot, hot_pages));
	}
	EXPECT_EQ(hot_pages + others * HUGE_PAGES, SINCE(to_device));
	EXPECT_EQ(hot_pages + others * HUGE_PAGES - DEVICE, SINCE(evicted));
	EXPECT_EQ(0, wrong(hot, 1, hot_pages));
	EXPECT_EQ(0, wrong(cold, 2, others * HUGE_PAGES));
}

/* Verifies that pages that are asked for again and again stay, whatever else moves. */
TEST_F(devmem, hot_set_stays)
{
	use_hot_set(_metadata, self, variant, false);
}

/* Verifies that pages that the device takes faults for stay in the same way. */
TEST_F(devmem, hot_set_of_device_faults_stays)
{
	use_hot_set(_metadata, self, variant, true);
}

/* Verifies that pages that the process does not use any more are evicted. */
TEST_F(devmem, forgotten_set_goes)
{
	const unsigned long set = DEVICE * 6 / 10 / HUGE_PAGES * HUGE_PAGES;
	char *before, *after;
	unsigned long i, moved;
	int round;

	/* The size of a coherent device is fixed. */
	if (variant->coherent)
		return;
	ASSERT_TRUE(plug_small(self));
	before = area_filled(set, variant->thp, 3);
	after = area_filled(set, variant->thp, 4);
	ASSERT_EQ(set, all_moved(self->fd, before, set));
	for (round = 0; round < SWEEPS; round++) {
		moved = SINCE(to_device);
		for (i = 0; i < set / HUGE_PAGES; i++)
			ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, block_of(after, i),
							HUGE_PAGES));
	}
	/* In the last round all was there. */
	EXPECT_EQ(moved, SINCE(to_device));
	EXPECT_EQ(set, resident(self->fd, after, set));
	EXPECT_EQ(0, wrong(before, 3, set));
	EXPECT_EQ(0, wrong(after, 4, set));
}

/*
 * Verifies that most of a set larger than the device stays when it is swept. If what was
 * used longest ago went, all of it would move in each sweep.
 */
TEST_F(devmem, part_of_a_sweep_stays)
{
	const unsigned long blocks = BLOCKS * 3 / 2;
	unsigned long i, all;
	char *ptr;
	int sweep;

	/* The size of a coherent device is fixed. */
	if (variant->coherent)
		return;
	ASSERT_TRUE(plug_small(self));
	ptr = area_filled(blocks * HUGE_PAGES, variant->thp, 5);
	for (sweep = 0; sweep < SWEEPS; sweep++)
		for (i = 0; i < blocks; i++)
			ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, block_of(ptr, i),
							HUGE_PAGES));
	all = SWEEPS * blocks * HUGE_PAGES;
	/* In each sweep a third of the set cannot be there, and much more need not be. */
	EXPECT_LE(all / 2, SINCE(to_device));
	EXPECT_GE(all * 3 / 4, SINCE(to_device));
	EXPECT_EQ(0, wrong(ptr, 5, blocks * HUGE_PAGES));
}

/*
 * Verifies that a set which moves on by a block at a time, for which it would be right to
 * evict what was used longest ago, moves at most twice.
 */
TEST_F(devmem, set_that_moves_on)
{
	const unsigned long set = BLOCKS - 2, blocks = 3 * BLOCKS;
	unsigned long first, i;
	char *ptr;

	/* The size of a coherent device is fixed. */
	if (variant->coherent)
		return;
	ASSERT_TRUE(plug_small(self));
	ptr = area_filled(blocks * HUGE_PAGES, variant->thp, 9);
	for (first = 0; first + set <= blocks; first++)
		for (i = first; i < first + set; i++)
			ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, block_of(ptr, i),
							HUGE_PAGES));
	EXPECT_LE(blocks * HUGE_PAGES, SINCE(to_device));
	EXPECT_GE(2 * blocks * HUGE_PAGES, SINCE(to_device));
	EXPECT_EQ(0, wrong(ptr, 9, blocks * HUGE_PAGES));
}

/* One of several processes that sweep more memory than there is, and exit. */
static int sweep_and_exit(int nr, bool thp, unsigned int seed)
{
	const unsigned long blocks = BLOCKS * 3 / 2;
	char *ptr = area_filled(blocks * HUGE_PAGES, thp, seed);
	int fd = device_open(nr), sweep;
	unsigned long i;

	for (sweep = 0; sweep < 2; sweep++)
		for (i = 0; i < blocks; i++)
			if (all_moved(fd, block_of(ptr, i), HUGE_PAGES) != (long)HUGE_PAGES)
				return 1;
	return wrong(ptr, seed, blocks * HUGE_PAGES) ? 2 : 0;
}

/*
 * Verifies that what is remembered of processes that have exited costs nothing: a process
 * that may get their addresses and keeps to its own set moves that set once.
 */
TEST_F(devmem, memory_of_exited_processes)
{
	const unsigned long set = DEVICE * 6 / 10 / HUGE_PAGES * HUGE_PAGES;
	unsigned long i, moved;
	char *ptr;
	int round;

	/* The size of a coherent device is fixed. */
	if (variant->coherent)
		return;
	ASSERT_TRUE(plug_small(self));
	for (round = 0; round < 4; round++)
		ASSERT_EQ(0, child_run(sweep_and_exit(variant->nr, variant->thp, round)));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	ptr = area_filled(set, variant->thp, 8);
	moved = SINCE(to_device);
	for (round = 0; round < SWEEPS; round++)
		for (i = 0; i < set / HUGE_PAGES; i++)
			ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, block_of(ptr, i), HUGE_PAGES));
	EXPECT_EQ(moved + set, SINCE(to_device));
	EXPECT_EQ(0, wrong(ptr, 8, set));
}

static int replay(int fd, char *ptr, unsigned long npages,
		  const struct policy_trace *trace, unsigned int flags, __u64 *faults)
{
	struct hmm_devmem_test_replay replay = {
		.addr = (uintptr_t)ptr,
		.npages = npages,
		.accesses = (uintptr_t)trace->accesses,
		.nr = trace->nr,
		.flags = flags,
	};
	int ret = device_ioctl(fd, HMM_DEVMEM_TEST_REPLAY, &replay);

	*faults = replay.faults;
	return ret;
}

/* Verifies that accesses end at the end of what is mapped, however many there are. */
TEST_F(devmem, accesses_to_nothing_end)
{
	struct hmm_devmem_test_access access = { .first = 0, .nr = ~0U };
	const struct policy_trace trace = { .accesses = &access, .nr = 1 };
	/* At least the page behind it is not mapped. */
	char *ptr = area_map(HUGE_PAGES, variant->thp);
	__u64 faults;

	EXPECT_EQ(-EFAULT, replay(self->fd, ptr, ~0U, &trace, 0, &faults));
	EXPECT_GE(HUGE_PAGES + 1, faults);
}

/* One block after the other, each of which the device goes through with all others. */
static void trace_walks(struct policy_trace *trace, unsigned int nr, bool downward)
{
	unsigned long page;
	unsigned int i;

	for (page = 0; page < HUGE_PAGES; page++)
		for (i = 0; i < nr; i++)
			trace_device(trace, i * HUGE_PAGES +
				     (downward ? HUGE_PAGES - 1 - page : page));
}

/*
 * Verifies that the device takes as few faults for each of twenty walks at the same time
 * as for one, in either direction.
 */
TEST_F(devmem, twenty_walks_of_the_device)
{
	const unsigned int walks = 20;
	char *ptr = area_filled(walks * HUGE_PAGES, variant->thp, 7);
	int downward;

	for (downward = 0; downward < 2; downward++) {
		struct policy_trace trace = { };
		__u64 faults;

		trace_walks(&trace, walks, downward);
		EXPECT_EQ(0, replay(self->fd, ptr, walks * HUGE_PAGES, &trace, 0,
				    &faults));
		/* A coherent device gives small pages back; khugepaged may collapse them. */
		EXPECT_GE(variant->thp && !variant->coherent ? walks : 10 * walks, faults);
		EXPECT_LE(variant->thp ? walks : 10 * walks, faults);
		EXPECT_EQ((downward + 1) * walks * HUGE_PAGES, SINCE(to_device));
		EXPECT_EQ(0, wrong(ptr, 7, walks * HUGE_PAGES));
		/* The CPU has brought them back, unless it can read them there. */
		EXPECT_EQ(variant->coherent ? walks * HUGE_PAGES : 0,
			  to_ram(self->fd, ptr, walks * HUGE_PAGES));
		trace_free(&trace);
	}
}

/* Verifies every byte after the accesses of each of the programs of make bench-policy. */
TEST_F(devmem, accesses_of_programs)
{
	struct policy_trace trace;
	__u64 faults;
	unsigned int i;
	char *ptr;

	/* The size of a coherent device is fixed. */
	if (variant->coherent)
		return;
	ASSERT_TRUE(plug_small(self));
	for (i = 0; i < POLICY_NR_PROGRAMS; i++) {
		trace = trace_make(&policy_programs[i], DEVICE / 4, 150, 1);
		trace.nr = rounds_of(trace.nr);
		ptr = area_filled(trace.pages, variant->thp, i);
		ASSERT_EQ(0, plug_as(self, DEVICE / 4 * PAGE, HMM_DEVMEM_TEST_RECLAIM, 0));
		EXPECT_EQ(0, replay(self->fd, ptr, trace.pages, &trace,
				    HMM_DEVMEM_TEST_REPLAY_HINTS, &faults));
		EXPECT_LT(0, faults);
		EXPECT_LT(0, SINCE(to_device));
		EXPECT_EQ(0, SINCE(copy_errors));
		EXPECT_EQ(0, wrong(ptr, i, trace.pages));
		trace_free(&trace);
		munmap(ptr, trace.pages * PAGE);
	}
}

/*
 * Verifies that hints keep a set that the device accesses: without, the library sees no
 * access to it, since it is on the device.
 */
TEST_F(devmem, hints_keep_a_hot_set)
{
	const unsigned long hot_pages = DEVICE / 2, others = BLOCKS;
	const unsigned long npages = hot_pages + others * HUGE_PAGES;
	struct policy_trace trace = { };
	long moved[2];
	__u64 faults;
	unsigned int i;
	char *ptr;

	/* The size of a coherent device is fixed. */
	if (variant->coherent)
		return;
	ASSERT_TRUE(plug_small(self));
	for (i = 0; i < others; i++) {
		trace_device_range(&trace, 0, hot_pages);
		trace_device_range(&trace, hot_pages + i * HUGE_PAGES,
				   hot_pages + (i + 1) * HUGE_PAGES);
	}
	ptr = area_filled(npages, variant->thp, 6);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, plug_as(self, DEVICE * PAGE, HMM_DEVMEM_TEST_RECLAIM, 0));
		EXPECT_EQ(0, replay(self->fd, ptr, npages, &trace,
				    i ? HMM_DEVMEM_TEST_REPLAY_HINTS : 0, &faults));
		moved[i] = SINCE(to_device);
		EXPECT_EQ(0, wrong(ptr, 6, npages));
	}
	EXPECT_LT(npages, moved[0]);
	EXPECT_EQ(npages, moved[1]);
	trace_free(&trace);
}

TEST_HARNESS_MAIN
