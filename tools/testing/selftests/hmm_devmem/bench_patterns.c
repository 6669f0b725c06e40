// SPDX-License-Identifier: GPL-2.0
/*
 * Measures what it costs when the CPU touches memory that is on a device, in different
 * orders. A fault can bring neighbouring pages back besides its own: this pays only if
 * the program touches those, too.
 *
 * Prints one "name<TAB>value" a line, for tools/hmm_devmem/bench/bench: nanoseconds,
 * which are instructions on a machine whose clock counts those, pages brought back,
 * and copies, for each page of 4 KiB that is touched.
 */
#include <stdarg.h>

#include "kselftest.h"
#include "test.h"
#include "test_hmm_devmem/bench/uapi.h"

#define NPAGES		(16384UL)
#define BENCH		"/dev/hmm_devmem_bench"
#define DEVICE_SIZE	(256UL << 20)
/* A row of a matrix that is read by columns, pages. */
#define ROW		32
#define RUN		8
/* Of sparse patterns, one page in so many is touched. */
#define SHARE		8

/**
 * struct target - a driver that moves pages back when the CPU touches them
 * @name: Its name in the output.
 * @path: Its device node.
 * @to_device: The ioctl that moves memory to the device.
 * @has_stats: It counts what it moves.
 */
struct target {
	const char *name;
	const char *path;
	unsigned long to_device;
	bool has_stats;
};

static const struct target targets[] = {
	{ "upstream", "/dev/hmm_dmirror0", HMM_DEVMEM_TEST_TO_DEVICE, false },
	{ "ours", "/dev/hmm_devmem_test0", HMM_DEVMEM_TEST_TO_DEVICE, true },
	{ "library", BENCH, HMM_DEVMEM_TEST_TO_DEVICE_ONLY, false },
};

static const struct target *target;
static char *buffer, *mirror;
static int device;

static __noreturn __printf(1, 2) void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "bench_patterns: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static __u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static __u64 page_word(unsigned long page)
{
	return page * 0x9e3779b97f4a7c15ULL + 1;
}

/* Orders */

static unsigned int order[NPAGES];
static unsigned int nr_order;

static void visit(unsigned long page)
{
	if (nr_order == NPAGES)
		fail("too many pages");
	order[nr_order++] = page;
}

/* Numbers that look random, the same in each run. */
static unsigned int random_below(unsigned int limit)
{
	static __u64 state;

	if (!nr_order)
		state = 1;
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (state >> 33) % limit;
}

static void forward(unsigned long pages, unsigned int unused)
{
	unsigned long page;

	for (page = 0; page < pages; page++)
		visit(page);
}

static void backward(unsigned long pages, unsigned int unused)
{
	while (pages)
		visit(--pages);
}

static void lockstep(unsigned long pages, unsigned int nr_arrays)
{
	const unsigned long length = pages / nr_arrays;
	unsigned long page, array;

	for (page = 0; page < length; page++)
		for (array = 0; array < nr_arrays; array++)
			visit(array * length + page);
}

static void stride(unsigned long pages, unsigned int step)
{
	unsigned long page;

	for (page = 0; page < pages; page += step)
		visit(page);
}

static void columns(unsigned long pages, unsigned int row)
{
	unsigned long column, page;

	for (column = 0; column < row; column++)
		for (page = column; page < pages; page += row)
			visit(page);
}

/* Three steps of four lead to a page nearby, which is in RAM if it was seen before. */
static void graph(unsigned long pages, unsigned int distance)
{
	unsigned long page = 0;

	while (nr_order < pages / SHARE) {
		visit(page);
		if (random_below(4))
			page += pages + random_below(2 * distance + 1) - distance;
		else
			page = random_below(pages);
		page %= pages;
	}
}

/* This sequence has a period of a power of two: nothing comes twice. */
static unsigned long scatter(unsigned long i, unsigned long nr)
{
	return (i * 1664525 + 1013904223) % nr;
}

static void runs(unsigned long pages, unsigned int length)
{
	const unsigned long nr = pages / length;
	unsigned long run = 0, i, page;

	for (i = 0; i < nr / SHARE; i++) {
		run = scatter(run, nr);
		for (page = 0; page < length; page++)
			visit(run * length + page);
	}
}

static const struct pattern {
	const char *name;
	void (*make)(unsigned long pages, unsigned int arg);
	unsigned int arg;
} patterns[] = {
	{ "forward", forward, 0 },
	{ "backward", backward, 0 },
	{ "lockstep2", lockstep, 2 },
	{ "lockstep3", lockstep, 3 },
	{ "lockstep8", lockstep, 8 },
	{ "runs8", runs, RUN },
	{ "random", runs, 1 },
	{ "stride2", stride, 2 },
	{ "stride16", stride, 16 },
	{ "columns", columns, ROW },
	{ "graph", graph, 8 },
};

/* How many different pages the order has. */
static unsigned long nr_touched(void)
{
	static bool seen[NPAGES];
	unsigned long nr = 0;
	unsigned int i;

	memset(seen, 0, sizeof(seen));
	for (i = 0; i < nr_order; i++) {
		nr += !seen[order[i]];
		seen[order[i]] = true;
	}
	return nr;
}

/* Measurements */

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	return fd;
}

static void buffer_create(unsigned long pages)
{
	unsigned long page;

	buffer = area_map(pages, false);
	for (page = 0; page < pages; page++)
		write_word(buffer + page * PAGE, page_word(page));
}

static void move_to_device(unsigned long pages)
{
	long ret;

	ret = device_pages(device, target->to_device, buffer, mirror, pages);
	if (ret < 0)
		fail("%s: to device: %ld", target->name, ret);
}

/* Touch pages in order; the time that it takes. */
static __u64 walk(void)
{
	__u64 start = now();
	unsigned int i;

	for (i = 0; i < nr_order; i++)
		if (read_word(buffer + order[i] * PAGE) != page_word(order[i]))
			fail("%s: wrong data at page %u", target->name, order[i]);
	return now() - start;
}

static void measure_pattern(const struct pattern *pattern)
{
	struct hmm_devmem_test_stats before = { }, after = { };
	unsigned long touched;
	__u64 time;

	nr_order = 0;
	pattern->make(NPAGES, pattern->arg);
	touched = nr_touched();
	/* All pages must be there, also those that the last pattern did not touch. */
	move_to_device(NPAGES);
	if (target->has_stats)
		before = device_stats(device);
	time = walk();
	printf("pattern.%s.%s\t%.6g\n", target->name, pattern->name,
	       (double)time / touched);
	if (!target->has_stats)
		return;
	after = device_stats(device);
	printf("brought.%s.%s\t%.6g\n", target->name, pattern->name,
	       (double)(after.fault_pages - before.fault_pages) / touched);
}

static void measure_target(const struct target *t)
{
	struct hmm_devmem_bench_add add = {
		.size = DEVICE_SIZE,
		.kind = HMM_DEVMEM_BENCH_EAGER,
	};
	unsigned int i;

	target = t;
	device = open_device(t->path);
	if (!strcmp(t->path, BENCH) && device_ioctl(device, HMM_DEVMEM_BENCH_ADD, &add))
		fail("cannot add device memory");
	buffer_create(NPAGES);
	/* Once up front: costs that only the first time has are not to be measured. */
	nr_order = 0;
	forward(NPAGES, 0);
	move_to_device(NPAGES);
	walk();
	for (i = 0; i < ARRAY_SIZE(patterns); i++)
		measure_pattern(&patterns[i]);
	areas_unmap();
	if (!strcmp(t->path, BENCH))
		device_ioctl(device, HMM_DEVMEM_BENCH_REMOVE, NULL);
	close(device);
}

/*
 * With a copy engine that takes @delay_us for a copy, however small, the number of
 * copies decides. Arrays of the same length: each one has to begin with small windows.
 */
static void measure_copies(unsigned int delay_us)
{
	static const struct pattern walks[] = {
		{ "forward", lockstep, 1 },
		{ "backward", backward, 1 },
		{ "lockstep2", lockstep, 2 },
		{ "lockstep3", lockstep, 3 },
		{ "lockstep8", lockstep, 8 },
	};
	struct hmm_devmem_test_stats before;
	unsigned int i;
	__u64 copies;

	target = &targets[1];
	device = open_device(target->path);
	if (device_unplug(device) ||
	    device_plug_as(device, 0, HMM_DEVMEM_TEST_ASYNC, delay_us))
		fail("cannot plug %s", target->path);
	for (i = 0; i < ARRAY_SIZE(walks); i++) {
		nr_order = 0;
		walks[i].make(NPAGES / 8 * walks[i].arg, walks[i].arg);
		buffer_create(NPAGES / 8 * walks[i].arg);
		move_to_device(nr_order);
		before = device_stats(device);
		walk();
		copies = device_stats(device).copies - before.copies;
		printf("copies.%uus.%s\t%.6g\n", delay_us, walks[i].name,
		       (double)copies / nr_order);
		areas_unmap();
	}
	if (device_unplug(device) || device_plug(device))
		fail("cannot plug %s", target->path);
	close(device);
}

int main(void)
{
	unsigned int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mirror = malloc(NPAGES * PAGE);
	memset(mirror, 1, NPAGES * PAGE);
	for (i = 0; i < ARRAY_SIZE(targets); i++)
		measure_target(&targets[i]);
	measure_copies(20);
	measure_copies(100);
	free(mirror);
	return 0;
}
