// SPDX-License-Identifier: GPL-2.0
/*
 * CPU faults and migrations at the same time: all of them must end, and every page
 * must have its bytes. Races with fork(), mremap() and munmap() are in
 * process.c, those with other parts of memory management in
 * mm.c.
 */
#define ONLY_PRIVATE
#include "fixture.h"
#include "race.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/*
 * Faults against faults.
 */

struct pair {
	pthread_barrier_t barrier;
	char *ptr;
	int fd;
	int stop;
	long errors[2];
};

/* Count up words of this thread's own, in each page at the same time as the other. */
static void *pair_main(void *arg)
{
	struct pair *pair = arg;
	/* Which of the two threads that share a page this one is */
	const bool first = pthread_barrier_wait(&pair->barrier) != 0;
	const long end = now_ms() + RACE_MS;
	unsigned long page;
	__u64 turn, *word;

	for (turn = 0; !pair->stop; turn++) {
		if (first && to_device(pair->fd, pair->ptr, HUGE_PAGES) < 0)
			pair->errors[first]++;
		for (page = 0; page < HUGE_PAGES; page += 16) {
			pthread_barrier_wait(&pair->barrier);
			word = (__u64 *)(pair->ptr + page * PAGE) + first;
			pair->errors[first] += read_word(word) != turn;
			write_word(word, turn + 1);
		}
		pthread_barrier_wait(&pair->barrier);
		if (first)
			pair->stop = turn >= RACE_TURNS && now_ms() > end;
		pthread_barrier_wait(&pair->barrier);
	}
	return NULL;
}

/* Verifies that threads which fault on a page at the same time get the same page. */
TEST_F(devmem, race_two_faults_of_one_page)
{
	struct pair pair = { .fd = self->fd };
	pthread_t threads[2];

	pair.ptr = area_map(HUGE_PAGES, variant->thp);
	memset(pair.ptr, 0, HUGE);
	ASSERT_EQ(0, pthread_barrier_init(&pair.barrier, NULL, 2));
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, pair_main, &pair));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, pair_main, &pair));
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	EXPECT_EQ(0, pair.errors[0] + pair.errors[1]);
	EXPECT_LT(0, SINCE(faults));
}

/* Memory in use that is not memory of processes, KiB. */
static long kernel_memory(void)
{
	static const char * const fields[] = { "Slab:", "VmallocUsed:" };
	const char *text = file_read("/proc/meminfo"), *field;
	long sum = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		field = strstr(text, fields[i]);
		sum += field ? strtol(field + strlen(fields[i]), NULL, 10) : 0;
	}
	return sum;
}

/* Break the mapping of huge pages, so that folios are split later. */
static long turn_break(struct actor *actor)
{
	char *page = actor->race->ptr + (actor->turns % HUGE_PAGES) * PAGE;

	return !!mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) +
	       !!mprotect(page, PAGE, PROT_READ | PROT_WRITE);
}

static bool poisoned_pages_are_kept(void)
{
	return strstr(file_read("/proc/cmdline"), "kasan") || is_debug_kernel();
}

/*
 * Verifies that CPU faults on pages that are being evicted, some of which can
 * collect no page, leak no memory (nouveau leaks its arrays then).
 */
TEST_F(devmem, race_fault_that_collects_nothing)
{
	struct race race = {
		.fd = self->fd,
		.npages = RACE_PAGES,
		.ptr = area_filled(RACE_PAGES, variant->thp, 1),
		.until_done = true,
		.before = self->before.evicted,
		.faults = self->before.faults,
	};
	long before;

	race_add(&race, turn_check, 0);
	race_add(&race, turn_check, 0);
	race_add(&race, turn_evict, 0);
	race_add(&race, turn_to_device, 0);
	race_add(&race, turn_break, 0);
	/* Twice: after the first time, the kernel has filled its caches */
	EXPECT_EQ(0, race_run(&race));
	before = kernel_memory();
	EXPECT_EQ(0, race_run(&race));
	EXPECT_EQ(0, wrong(race.ptr, 1, RACE_PAGES));
	EXPECT_LT(0, SINCE(faults));
	EXPECT_EQ(1, race.done);
	/* Not where freed memory is kept for a while; there kmemleak finds leaks */
	TH_LOG("%ld KiB, %ld faults", kernel_memory() - before, SINCE(faults));
	if (!poisoned_pages_are_kept())
		EXPECT_TRUE(soon(kernel_memory() - before < 2048))
			TH_LOG("%ld KiB", kernel_memory() - before);
}

/*
 * Faults against what core does to pages.
 */

/* Drop pages, which must be zero then, and write them again; no other thread writes. */
static long turn_drop(struct actor *actor)
{
	const unsigned long first = 64 + actor->turns % 7 * 48;
	char *part = actor->race->ptr + first * PAGE;
	long errors = 0;

	errors += !!madvise(part, 48 * PAGE, MADV_DONTNEED);
	errors += not_zero(part, 48);
	fill_from(part, 1, first, 48);
	return errors + wrong_from(part, 1, first, 48);
}

/* Each word must have its value, or be zero if it was dropped. */
static long turn_check_words(struct actor *actor)
{
	const __u64 *p = (__u64 *)actor->race->ptr;
	unsigned long i, nr = actor->race->npages * WORDS;
	long errors = 0;
	__u64 word;

	for (i = 0; i < nr; i += 61) {
		word = read_word(p + i);
		errors += word && word != pattern_word(1, i);
	}
	return errors;
}

/* Verifies that a fault that races with MADV_DONTNEED sees zeros or the old data. */
TEST_F(devmem, race_dontneed)
{
	struct race race = {
		.fd = self->fd,
		.npages = RACE_PAGES,
		.ptr = area_filled(RACE_PAGES, variant->thp, 1),
	};

	race_add(&race, turn_drop, 0);
	race_add(&race, turn_check_words, 0);
	race_add(&race, turn_check_words, 0);
	race_add(&race, turn_to_device, 0);
	EXPECT_EQ(0, race_run(&race));
	EXPECT_EQ(0, wrong(race.ptr, 1, RACE_PAGES));
	EXPECT_LT(0, SINCE(faults));
}

static long turn_collapse(struct actor *actor)
{
	struct race *race = actor->race;

	/* Core collapses no pages that are on a device */
	touch(race->ptr, HUGE_PAGES);
	if (!madvise(race->ptr, HUGE, MADV_COLLAPSE))
		note_done(race);
	return 0;
}

/* Verifies that no write is lost when small pages are collapsed meanwhile. */
TEST_F(devmem, race_collapse)
{
	struct race race = {
		.fd = self->fd,
		.npages = RACE_PAGES,
		.until_done = true,
	};

	race.ptr = area_map(RACE_PAGES, variant->thp);
	/* Core collapses nothing where MADV_NOHUGEPAGE is set */
	madvise(race.ptr, RACE_PAGES * PAGE, MADV_HUGEPAGE);
	race_add(&race, turn_count, 0);
	race_add(&race, turn_count, 1);
	race_add(&race, turn_to_device, 0);
	race_add(&race, turn_collapse, 0);
	race_add(&race, turn_break, 0);
	EXPECT_EQ(0, race_run(&race));
	EXPECT_EQ(0, miscounted(&race));
	EXPECT_EQ(1, race.done);
	EXPECT_LT(0, SINCE(to_device));
}

TEST_HARNESS_MAIN
