// SPDX-License-Identifier: GPL-2.0
/*
 * No process may see what another one had in its memory, or on the device, whatever
 * fails. The tests let other processes fill memory with a secret, in RAM and on the
 * device, and free it; and a failing copy of the test device fills its destination
 * with a pattern.
 */
#include "fixture.h"

#define SECRET		0x5ec4e7c0ffee1234ULL
#define SECRET_RAM	(256UL << 20)

/* Words in a row that count; a single one can be a variable of this program. */
#define MANY_WORDS	16

/* Fill free system memory and the device with the secret; returns 0 if it is there. */
static int fill_secret(int nr, unsigned long device_pages)
{
	unsigned long size = device_pages * PAGE, i;
	__u64 *ptr;

	if (size < SECRET_RAM)
		size = SECRET_RAM;
	ptr = (__u64 *)area_map(size / PAGE, false);
	for (i = 0; i < size / sizeof(*ptr); i++)
		ptr[i] = SECRET;
	return all_moved(device_open(nr), ptr, device_pages) != (long)device_pages;
}

/* Leave the secret in memory that is free again. */
static int leave_secret(int nr, unsigned long device_pages)
{
	return child_run(fill_secret(nr, device_pages));
}

static long count_runs(const char *start, const char *end, __u64 value)
{
	const __u64 *p = (const __u64 *)start;
	unsigned int run = 0;
	long count = 0;

	for (; (const char *)p < end; p++) {
		run = *p == value ? run + 1 : 0;
		count += run == MANY_WORDS;
	}
	return count;
}

/* Search all memory that this process can read. */
static long count_runs_everywhere(__u64 value)
{
	const char *line = file_read("/proc/self/maps");
	unsigned long start, end;
	char flags[8], name[40];
	long count = 0;

	for (; line && *line; line = strchr(line, '\n'), line += !!line) {
		name[0] = 0;
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %39[^\n]", &start,
			   &end, flags, name) < 3)
			return -1;
		if (flags[0] == 'r' && strncmp(name, "[v", 2))
			count += count_runs((char *)start, (char *)end, value);
	}
	return count;
}

/* Pages of the area that the test writes to; it never writes to the rest. */
#define WRITTEN		(HUGE_PAGES + 128)

static long wrong_page(const char *ptr, unsigned long page)
{
	if (page < WRITTEN)
		return wrong_from(ptr + page * PAGE, 1, page, 1);
	return not_zero(ptr + page * PAGE, 1);
}

/* Number of wrong pages among those that can be read; looks at one in @step. */
static long wrong_pages(char *ptr, unsigned long npages, unsigned long step)
{
	unsigned long page;
	long count = 0;

	for (page = 0; page < npages; page += step)
		if (!access_signal(ptr + page * PAGE, false))
			count += wrong_page(ptr, page);
	return count;
}

static const unsigned int kinds[] = {
	HMM_DEVMEM_TEST_FAIL_TO_DEVICE, HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN,
	HMM_DEVMEM_TEST_FAIL_TO_RAM, HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,
	HMM_DEVMEM_TEST_FAIL_WAIT,
};

/* Do something at random with the memory. Returns how many pages were wrong. */
static long move_at_random(int fd, char *ptr, unsigned long npages)
{
	const unsigned long first = rand() % npages;

	switch (rand() % 7) {
	case 0:
	case 1:
		to_device(fd, ptr, npages);
		return 0;
	case 2:
		to_device(fd, ptr + first * PAGE, npages - first);
		return 0;
	case 3:
		to_ram(fd, ptr + first * PAGE, npages - first);
		return 0;
	case 4:
		device_evict_all(fd);
		return 0;
	case 5:
		madvise(ptr + WRITTEN * PAGE, 64 * PAGE, MADV_DONTNEED);
		return 0;
	default:
		return wrong_pages(ptr, npages, 1 + first % 50);
	}
}

#define ROUNDS	60

/*
 * Verifies that a process whose memory moves to the device and back, with copies
 * that fail at random, never reads anything but its own data or zeros.
 */
TEST_F(devmem, nothing_uninitialised_is_seen)
{
	const int rounds = rounds_of(ROUNDS);
	long count = 0;
	char *ptr;
	int round;

	ASSERT_EQ(0, leave_secret(variant->nr, self->before.size));
	ASSERT_EQ(0, device_used_soon(self->ctl, 0));
	ptr = area_map(self->npages, variant->thp);
	fill(ptr, 1, WRITTEN);
	srand(variant->nr * 2 + variant->thp);
	/* At least until a copy has failed */
	for (round = 0; round < ROUNDS &&
	     (round < rounds || !SINCE(copy_errors)); round++) {
		device_inject(self->fd, kinds[rand() % ARRAY_SIZE(kinds)],
			      rand() % 6, 1 + rand() % 5);
		count += move_at_random(self->fd, ptr, self->npages);
	}
	EXPECT_LT(0, SINCE(copy_errors));
	EXPECT_EQ(0, count);
	device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	EXPECT_EQ(0, wrong_pages(ptr, self->npages, 1));
	EXPECT_EQ(0, count_runs_everywhere(SECRET));
	EXPECT_EQ(0, count_runs_everywhere(HMM_DEVMEM_TEST_FILL));
}

/* Verifies that the search above finds a secret. */
TEST_F(devmem, search_finds_secret)
{
	char *ptr = area_map(3, false);
	unsigned long i;

	for (i = 0; i < WORDS; i++)
		((__u64 *)(ptr + PAGE))[i] = SECRET;
	EXPECT_EQ(1, count_runs_everywhere(SECRET));
	ASSERT_EQ(3, all_moved(self->fd, ptr, 3));
	EXPECT_EQ(1, count_runs_everywhere(SECRET));
}

/*
 * Verifies this for reads of the device: of memory never written to, when device
 * pages of other processes are used again and clearing some of them fails.
 */
TEST_F(devmem, nothing_uninitialised_is_seen_by_the_device)
{
	char *data, *ptr;
	int round;

	ASSERT_EQ(0, leave_secret(variant->nr, self->before.size));
	ASSERT_EQ(0, device_used_soon(self->ctl, 0));
	data = area_map(self->npages, false);
	for (round = 0; round < 8; round++) {
		ptr = area_map(self->npages, variant->thp);
		device_inject(self->fd, kinds[round % 2], round / 2, 1);
		to_device(self->fd, ptr, self->npages);
		to_device(self->fd, ptr, self->npages);
		memset(data, 0xff, self->npages * PAGE);
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		EXPECT_EQ(0, not_zero(data, self->npages));
		EXPECT_EQ(0, not_zero(ptr, self->npages));
		munmap(ptr, self->npages * PAGE);
	}
	EXPECT_LT(0, SINCE(copy_errors));
}

TEST_HARNESS_MAIN
