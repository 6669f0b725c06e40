// SPDX-License-Identifier: GPL-2.0
/*
 * Walks of the CPU through memory that is on the device: a walk page by page takes few
 * faults, whichever way it goes, and other patterns bring back no page that is not
 * touched. Every byte is checked.
 *
 * What a fault brings depends on earlier faults on the same CPU, so each test decides
 * on which CPU it runs.
 */
#define ONLY_PRIVATE
#include "fixture.h"

#include <pthread.h>
#include <sched.h>
#include <sys/uio.h>

/*
 * More faults than any walk through the memory of a test takes: windows grow from 1
 * to 512 pages in ten, and begin anew with no more than five blocks.
 */
#define FEW		24
#define NR_ARRAYS	8
#define STEP		16

static bool keep_to_one_cpu(void)
{
	return run_on(sched_getcpu());
}

/* Touch one page; returns whether its content is wrong. */
static long check_page(const char *ptr, unsigned int seed, unsigned long page)
{
	return wrong_from(ptr + page * PAGE, seed, page, 1);
}

static long check_pages(const char *ptr, unsigned int seed, unsigned long first,
			unsigned long npages)
{
	return wrong_from(ptr + first * PAGE, seed, first, npages);
}

/* Memory of a test, all of it on the device. */
static char *area_on_device(struct _test_data_devmem *self, bool thp,
			    unsigned int seed)
{
	char *ptr = area_filled(self->npages, thp, seed);

	if (!keep_to_one_cpu() ||
	    all_moved(self->fd, ptr, self->npages) != (long)self->npages)
		return NULL;
	self->before = device_stats(self->ctl);
	return ptr;
}

/* Verifies that a walk upward takes few faults. */
TEST_F(devmem, upward)
{
	char *ptr = area_on_device(self, variant->thp, 1);
	unsigned long page;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	for (page = 0; page < self->npages; page++)
		bad += check_page(ptr, 1, page);
	EXPECT_EQ(0, bad);
	EXPECT_GE(FEW, SINCE(faults));
	EXPECT_EQ(self->npages, SINCE(fault_pages));
}

/* Verifies that a walk downward takes as few. */
TEST_F(devmem, downward)
{
	char *ptr = area_on_device(self, variant->thp, 2);
	unsigned long page;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	for (page = self->npages; page--; )
		bad += check_page(ptr, 2, page);
	EXPECT_EQ(0, bad);
	EXPECT_GE(FEW, SINCE(faults));
	EXPECT_EQ(self->npages, SINCE(fault_pages));
}

/*
 * Verifies that windows that reach downward, into the folio of the fault itself, lose
 * no page: PTEs map the huge pages here, so the fault has to split them.
 */
TEST_F(devmem, downward_through_split_pmds)
{
	char *ptr = area_on_device(self, true, 3);
	unsigned long page;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	for (page = 100; page < self->npages; page += HUGE_PAGES) {
		ASSERT_EQ(0, mprotect(ptr + page * PAGE, PAGE, PROT_READ));
		ASSERT_EQ(0, mprotect(ptr + page * PAGE, PAGE,
				      PROT_READ | PROT_WRITE));
	}
	for (page = self->npages; page--; )
		bad += check_page(ptr, 3, page);
	EXPECT_EQ(0, bad);
	EXPECT_GE(FEW, SINCE(faults));
	EXPECT_EQ(self->npages, SINCE(fault_pages));
	EXPECT_EQ(0, check_pages(ptr, 3, 0, self->npages));
}

/* Verifies that a walk goes on from small pages to a huge page and back, either way. */
TEST_F(devmem, small_and_huge_pages)
{
	char *ptr = area_map(self->npages, variant->thp);
	unsigned long i, page;
	int downward;
	long bad = 0;

	ASSERT_TRUE(keep_to_one_cpu());
	ASSERT_EQ(0, madvise(ptr, HUGE, MADV_NOHUGEPAGE));
	fill(ptr, 14, self->npages);
	for (downward = 0; downward < 2; downward++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		self->before = device_stats(self->ctl);
		for (i = 0; i < self->npages; i++) {
			page = downward ? self->npages - 1 - i : i;
			bad += check_page(ptr, 14, page);
		}
		EXPECT_EQ(0, bad);
		EXPECT_GE(FEW, SINCE(faults));
		EXPECT_EQ(self->npages, SINCE(fault_pages));
	}
}

/*
 * Verifies that a walk which changes the CPU begins with small windows there, and that
 * nothing moves that it does not read.
 */
TEST_F(devmem, walk_that_changes_cpu)
{
	const unsigned long turn = HUGE_PAGES / 8;
	char *ptr = area_on_device(self, false, 15);
	const int here = sched_getcpu();
	unsigned long page;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	if (!run_on(!here))
		SKIP(return, "there is only one CPU");
	for (page = 0; page < self->npages / 2; page++) {
		if (page % turn == 0)
			ASSERT_TRUE(run_on(page / turn % 2 ? here : !here));
		bad += check_page(ptr, 15, page);
	}
	EXPECT_EQ(0, bad);
	/* Windows of 1, 1, 2, 4, 8, 16 and 32 pages in each turn. */
	EXPECT_GE(7 * page / turn, SINCE(faults));
	EXPECT_LE(6 * page / turn, SINCE(faults));
	EXPECT_EQ(page, SINCE(fault_pages));
	EXPECT_EQ(0, check_pages(ptr, 15, 0, self->npages));
}

/* Verifies that each of several arrays that are read in lockstep has large windows. */
TEST_F(devmem, lockstep)
{
	const unsigned long length = self->npages / NR_ARRAYS;
	char *ptr = area_on_device(self, variant->thp, 4);
	unsigned long page, array;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	for (page = 0; page < length; page++)
		for (array = 0; array < NR_ARRAYS; array++)
			bad += check_page(ptr, 4, array * length + page);
	EXPECT_EQ(0, bad);
	EXPECT_GE(NR_ARRAYS * 10, SINCE(faults));
	EXPECT_EQ(self->npages, SINCE(fault_pages));
}

/* Verifies that nothing is brought back that a walk with a stride does not touch. */
TEST_F(devmem, stride)
{
	char *ptr = area_on_device(self, false, 5);
	unsigned long page, nr = 0;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	for (page = 0; page < self->npages; page += 2, nr++)
		bad += check_page(ptr, 5, page);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(nr, SINCE(fault_pages));
	EXPECT_EQ(0, check_pages(ptr, 5, 0, self->npages));
}

/*
 * Verifies that windows do not go on growing when a walk page by page turns into one
 * with a stride that meets the end of each window.
 */
TEST_F(devmem, window_that_is_not_read)
{
	char *ptr = area_on_device(self, false, 6);
	unsigned long page, nr = 0;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	for (page = 0; page < STEP; page++)
		bad += check_page(ptr, 6, page);
	for (; page < self->npages; page += STEP, nr++)
		bad += check_page(ptr, 6, page);
	EXPECT_EQ(0, bad);
	/* The pages that were touched, and one window of which one page was. */
	EXPECT_GE(STEP + nr + STEP - 1, SINCE(fault_pages));
	EXPECT_EQ(0, check_pages(ptr, 6, 0, self->npages));
}

/* Verifies the same when the walk turns into touches of both ends of each window. */
TEST_F(devmem, window_of_which_both_ends_are_read)
{
	char *ptr = area_on_device(self, false, 13);
	unsigned long page, nr = 0;
	long bad = 0;

	ASSERT_NE(NULL, ptr);
	for (page = 0; page < STEP; page++, nr++)
		bad += check_page(ptr, 13, page);
	for (page = STEP; page < self->npages; page *= 2, nr += 2) {
		bad += check_page(ptr, 13, page - 1);
		bad += check_page(ptr, 13, page);
	}
	EXPECT_EQ(0, bad);
	/* The pages that were touched, and one window of which two pages were. */
	EXPECT_GE(nr + STEP, SINCE(fault_pages));
	EXPECT_EQ(0, check_pages(ptr, 13, 0, self->npages));
}

/* Verifies that windows grow also when the kernel reads memory for the process. */
TEST_F(devmem, read_by_the_kernel)
{
	char *ptr = area_on_device(self, false, 7);
	char *copy = malloc(self->npages * PAGE);
	struct iovec from = { ptr, self->npages * PAGE };
	struct iovec to = { copy, self->npages * PAGE };

	ASSERT_NE(NULL, ptr);
	ASSERT_NE(NULL, copy);
	EXPECT_EQ(self->npages * PAGE,
		  process_vm_readv(getpid(), &to, 1, &from, 1, 0));
	EXPECT_EQ(0, wrong(copy, 7, self->npages));
	EXPECT_GE(FEW, SINCE(faults));
	free(copy);
}

/*
 * Verifies that a child, which goes on where its parent stopped, does not get its
 * parent's windows.
 */
TEST_F(devmem, child_has_windows_of_its_own)
{
	char *ptr = area_on_device(self, false, 8);
	unsigned long page;
	pid_t pid;

	ASSERT_NE(NULL, ptr);
	/* Windows of 1, 1, 2, 4 and so on pages. */
	for (page = 0; page < HUGE_PAGES / 4; page++)
		EXPECT_EQ(0, check_page(ptr, 8, page));
	EXPECT_EQ(page, SINCE(fault_pages));
	pid = child_start(check_page(ptr, 8, page));
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(page + 1, SINCE(fault_pages));
	EXPECT_EQ(0, check_pages(ptr, 8, 0, self->npages));
}

/**
 * struct walker - a thread that reads a part of the memory
 * @ptr: The memory.
 * @first: First page.
 * @nr: Number of pages.
 * @down: Read them downward.
 * @bad: Pages with wrong content.
 * @thread: The thread.
 */
struct walker {
	const char *ptr;
	unsigned long first;
	unsigned long nr;
	bool down;
	long bad;
	pthread_t thread;
};

static void *walker_main(void *arg)
{
	struct walker *walker = arg;
	unsigned long i, page;

	for (i = 0; i < walker->nr; i++) {
		page = walker->down ? walker->nr - 1 - i : i;
		walker->bad += check_page(walker->ptr, 9, walker->first + page);
		sched_yield();
	}
	return NULL;
}

/* Verifies that two threads that take turns on one CPU do not disturb each other. */
TEST_F(devmem, two_threads_on_one_cpu)
{
	char *ptr = area_on_device(self, variant->thp, 9);
	struct walker walkers[2];
	int i;

	ASSERT_NE(NULL, ptr);
	for (i = 0; i < 2; i++) {
		walkers[i] = (struct walker) {
			.ptr = ptr,
			.first = i * self->npages / 2,
			.nr = self->npages / 2,
			.down = i,
		};
		ASSERT_EQ(0, pthread_create(&walkers[i].thread, NULL, walker_main,
					    &walkers[i]));
	}
	for (i = 0; i < 2; i++) {
		pthread_join(walkers[i].thread, NULL);
		EXPECT_EQ(0, walkers[i].bad);
	}
	EXPECT_GE(2 * FEW, SINCE(faults));
	EXPECT_EQ(self->npages, SINCE(fault_pages));
}

/* Pages that move when the CPU writes one page, and the device then takes all. */
static long one_turn(struct _test_data_devmem *self, char *ptr, unsigned long page,
		     __u64 value)
{
	self->before = device_stats(self->ctl);
	write_word(ptr + page * PAGE, value);
	to_device(self->fd, ptr, self->npages);
	return SINCE(fault_pages) + SINCE(to_device);
}

/*
 * Verifies that a huge page stops moving as a whole when the CPU and the device use one
 * page of it by turns.
 */
TEST_F(devmem, one_page_by_turns)
{
	const unsigned long page = HUGE_PAGES + HUGE_PAGES / 3;
	char *ptr = area_on_device(self, variant->thp, 10);
	int round;

	ASSERT_NE(NULL, ptr);
	for (round = 0; round < 4; round++)
		one_turn(self, ptr, page, round);
	for (; round < 20; round++)
		EXPECT_EQ(2, one_turn(self, ptr, page, round));
	EXPECT_EQ(round - 1, read_word(ptr + page * PAGE));
	fill_from(ptr + page * PAGE, 10, page, 1);
	EXPECT_EQ(0, check_pages(ptr, 10, 0, self->npages));
}

/*
 * Verifies that a huge page goes on moving as a whole if the CPU uses its first or its
 * last page: a program that goes through all of it begins there as well.
 */
TEST_F(devmem, page_at_an_end_by_turns)
{
	const unsigned long pages[] = { 0, 2 * HUGE_PAGES - 1 };
	char *ptr = area_on_device(self, variant->thp, 12);
	int round, i;

	ASSERT_NE(NULL, ptr);
	for (round = 0; round < 10; round++)
		for (i = 0; i < 2; i++)
			EXPECT_EQ(variant->thp ? 2 * HUGE_PAGES : 2,
				  one_turn(self, ptr, pages[i], round));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(round - 1, read_word(ptr + pages[i] * PAGE));
		fill_from(ptr + pages[i] * PAGE, 12, pages[i], 1);
	}
	EXPECT_EQ(0, check_pages(ptr, 12, 0, self->npages));
}

/* Verifies that a huge page of which the CPU uses all stays one. */
TEST_F(devmem, all_pages_by_turns)
{
	char *ptr = area_on_device(self, variant->thp, 11);
	int round;

	ASSERT_NE(NULL, ptr);
	if (!variant->thp)
		return;
	for (round = 0; round < 6; round++) {
		EXPECT_EQ(0, check_pages(ptr, 11, 0, self->npages));
		EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	}
	EXPECT_EQ(2 * HUGE_PAGES, count_states(self->fd, ptr, 2 * HUGE_PAGES,
					       HMM_DEVMEM_TEST_PROT_PMD));
}

TEST_HARNESS_MAIN
