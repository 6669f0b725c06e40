// SPDX-License-Identifier: GPL-2.0
/*
 * Measures what device memory costs: the library, upstream's test driver, and
 * the least that core needs, with the same program on the same machine.
 *
 * Prints one "name<TAB>value" a line for tools/hmm_devmem/bench/bench, which makes a
 * table of them. Values are nanoseconds, which are instructions on a machine
 * whose clock counts those, per page of 4 KiB or per operation.
 */
#include <pthread.h>
#include <stdarg.h>

#include "kselftest.h"
#include "test.h"
#include "test_hmm_devmem/bench/uapi.h"

#define MIB		_BITUL(20)
#define GIB		_BITUL(30)
#define BUFFER		(64 * MIB)
#define NPAGES		(BUFFER / PAGE)
/* When pages are touched in random order, one in so many is. */
#define RANDOM_SHARE	8
#define MAX_THREADS	8
/* To touch a page that is in RAM takes less than so many ns. */
#define RAM_TOUCH	500

/**
 * struct target - a driver that can move memory to a device
 * @name: Its name in the output.
 * @path: Its device node.
 * @to_device: The ioctl that moves memory to the device.
 * @kind: Kind of device memory to add, for /dev/hmm_devmem_bench; else -1.
 * @window: Pages that a CPU fault brings back, for kind HMM_DEVMEM_BENCH_BARE.
 * @threads: Measure with several threads, too.
 */
struct target {
	const char *name;
	const char *path;
	unsigned long to_device;
	int kind;
	unsigned int window;
	bool threads;
};

#define BENCH "/dev/hmm_devmem_bench"

static const struct target targets[] = {
	{ "upstream", "/dev/hmm_dmirror0", HMM_DEVMEM_TEST_TO_DEVICE, -1, 0, true },
	{ "ours", "/dev/hmm_devmem_test0", HMM_DEVMEM_TEST_TO_DEVICE, -1, 0, true },
	{ "ours-only", "/dev/hmm_devmem_test0", HMM_DEVMEM_TEST_TO_DEVICE_ONLY, -1, 0, false },
	{ "library", BENCH, HMM_DEVMEM_TEST_TO_DEVICE_ONLY, HMM_DEVMEM_BENCH_EAGER, 0, true },
	{ "bare1", BENCH, HMM_DEVMEM_TEST_TO_DEVICE_ONLY, HMM_DEVMEM_BENCH_BARE, 1, false },
	{ "bare16", BENCH, HMM_DEVMEM_TEST_TO_DEVICE_ONLY, HMM_DEVMEM_BENCH_BARE, 16, false },
	{ "bare512", BENCH, HMM_DEVMEM_TEST_TO_DEVICE_ONLY, HMM_DEVMEM_BENCH_BARE, 512, true },
};

static __noreturn __printf(1, 2) void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "bench: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static __u64 clock_read(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static __u64 now(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

/* Without waiting: a clock that counts instructions jumps while the CPU idles. */
static __u64 cpu_time(void)
{
	return clock_read(CLOCK_THREAD_CPUTIME_ID);
}

static void print(double value, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\t%.6g\n", value);
}

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	return fd;
}

/* Device memory of /dev/hmm_devmem_bench. */

static const char * const kind_names[HMM_DEVMEM_BENCH_NR_KINDS] = {
	[HMM_DEVMEM_BENCH_BARE] = "bare",
	[HMM_DEVMEM_BENCH_EAGER] = "eager",
	[HMM_DEVMEM_BENCH_LAZY] = "lazy",
};

static __u64 memory_add(int fd, int kind, unsigned long size)
{
	struct hmm_devmem_bench_add arg = { .size = size, .kind = kind };
	__u64 start = cpu_time();
	int ret;

	ret = device_ioctl(fd, HMM_DEVMEM_BENCH_ADD, &arg);
	if (ret)
		fail("cannot add %lu MiB, %s: %s", size / MIB, kind_names[kind],
		     strerror(-ret));
	return cpu_time() - start;
}

static __u64 memory_remove(int fd)
{
	__u64 start = cpu_time();
	int ret;

	ret = device_ioctl(fd, HMM_DEVMEM_BENCH_REMOVE, NULL);
	if (ret)
		fail("cannot remove device memory: %s", strerror(-ret));
	return cpu_time() - start;
}

/* Allocation */

/* Time per folio, of the folios of all threads. */
static double alloc_time(int fd, struct hmm_devmem_bench_alloc arg)
{
	int ret = device_ioctl(fd, HMM_DEVMEM_BENCH_ALLOC, &arg);

	if (ret || !arg.batches)
		fail("cannot allocate folios of order %u: %s", arg.order,
		     strerror(-ret));
	return (double)arg.time / arg.batches / arg.batch;
}

static void bench_alloc_one(int fd, int kind, unsigned int order,
			    unsigned int batch, unsigned int batches)
{
	const struct hmm_devmem_bench_alloc arg = {
		.order = order,
		.batch = batch,
		.batches = batches,
	};

	print(alloc_time(fd, arg), "alloc.%s.order%u.batch%u", kind_names[kind],
	      order, batch);
}

static void bench_alloc(void)
{
	int kind, fd = open_device(BENCH);

	for (kind = HMM_DEVMEM_BENCH_BARE; kind < HMM_DEVMEM_BENCH_NR_KINDS;
	     kind++) {
		memory_add(fd, kind, GIB);
		bench_alloc_one(fd, kind, 0, 1, 100000);
		bench_alloc_one(fd, kind, 0, 512, 200);
		bench_alloc_one(fd, kind, 9, 1, 2000);
		bench_alloc_one(fd, kind, 9, 16, 120);
		memory_remove(fd);
	}
	close(fd);
}

/* Folios per millisecond; only useful where the clock measures time. */
static void bench_throughput(void)
{
	int kind, fd = open_device(BENCH);
	unsigned int threads;

	for (kind = HMM_DEVMEM_BENCH_BARE; kind <= HMM_DEVMEM_BENCH_EAGER; kind++) {
		memory_add(fd, kind, GIB);
		for (threads = 1; threads <= MAX_THREADS; threads *= 2) {
			const struct hmm_devmem_bench_alloc arg = {
				.batch = 64,
				.batches = 1000000,
				.threads = threads,
				.limit_ms = 500,
			};

			if (threads > sysconf(_SC_NPROCESSORS_ONLN))
				break;
			print(1e6 / alloc_time(fd, arg), "throughput.%s.cpus%u",
			      kind_names[kind], threads);
		}
		memory_remove(fd);
	}
	close(fd);
}

/* Adding and removing */

/* An odd number. */
#define ADD_TIMES	5

/* Free pages, with those in the per-CPU lists of the page allocator. */
static long free_pages(void)
{
	FILE *f = fopen("/proc/sys/vm/stat_refresh", "w");
	char line[200];
	long sum = 0, n;

	/* Fold the counters of each CPU into the global ones. */
	if (f) {
		fputs("1", f);
		fclose(f);
	}
	f = fopen("/proc/zoneinfo", "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " nr_free_pages %ld", &n) == 1 ||
		    sscanf(line, " count: %ld", &n) == 1)
			sum += n;
	if (f)
		fclose(f);
	if (sum <= 0)
		fail("cannot read /proc/zoneinfo");
	return sum;
}

static int compare_s64(const void *a, const void *b)
{
	const __s64 x = *(const __s64 *)a, y = *(const __s64 *)b;

	return (x > y) - (x < y);
}

static __s64 median(__s64 values[ADD_TIMES])
{
	qsort(values, ADD_TIMES, sizeof(values[0]), compare_s64);
	return values[ADD_TIMES / 2];
}

/* What else the kernel does meanwhile is measured, too: take a median. */
static void bench_add_one(int fd, int kind, unsigned int gib)
{
	__s64 add[ADD_TIMES], remove[ADD_TIMES], ram[ADD_TIMES];
	unsigned int i;

	for (i = 0; i < ADD_TIMES; i++) {
		const long before = free_pages();

		add[i] = memory_add(fd, kind, gib * GIB);
		ram[i] = (before - free_pages()) * PAGE;
		remove[i] = memory_remove(fd);
	}
	print(median(add), "add.%s.%ug", kind_names[kind], gib);
	print(median(remove), "remove.%s.%ug", kind_names[kind], gib);
	print(median(ram), "ram.%s.%ug", kind_names[kind], gib);
}

static void bench_add(void)
{
	static const unsigned int sizes[] = { 1, 4, 16 };
	int kind, fd = open_device(BENCH);
	unsigned int i;

	/* Once up front: costs that only the first time has are not to be measured. */
	for (kind = 0; kind < HMM_DEVMEM_BENCH_NR_KINDS; kind++) {
		memory_add(fd, kind, 16 * GIB);
		memory_remove(fd);
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		for (kind = 0; kind < HMM_DEVMEM_BENCH_NR_KINDS; kind++)
			bench_add_one(fd, kind, sizes[i]);
	close(fd);
}

/* Migration */

static const struct target *target;
static char *buffer, *mirror;
static int device;

static __u64 page_word(unsigned long page)
{
	return page * 0x9e3779b97f4a7c15ULL + 1;
}

static void touch_page(unsigned long page)
{
	if (read_word(buffer + page * PAGE) != page_word(page))
		fail("%s: wrong data at page %lu", target->name, page);
}

static void buffer_create(bool thp)
{
	unsigned long page;

	buffer = area_map(NPAGES, thp);
	for (page = 0; page < NPAGES; page++)
		write_word(buffer + page * PAGE, page_word(page));
}

static __u64 time_to_device(void)
{
	__u64 start = now();
	long ret;

	ret = device_pages(device, target->to_device, buffer, mirror, NPAGES);
	if (ret != NPAGES)
		fail("%s: to device: %ld", target->name, ret);
	return now() - start;
}

static __u64 time_to_ram(void)
{
	__u64 start = now();
	long ret;

	/*
	 * Not checked for NPAGES: some drivers count a large folio as one page, and
	 * do not count pages that are in RAM already.
	 */
	ret = device_pages(device, HMM_DEVMEM_TEST_TO_RAM, buffer, NULL, NPAGES);
	if (ret < 0)
		fail("%s: to RAM: %ld", target->name, ret);
	return now() - start;
}

static __u64 time_in_order(void)
{
	__u64 start = now();
	unsigned long page;

	for (page = 0; page < NPAGES; page++)
		touch_page(page);
	return now() - start;
}

/*
 * Each call begins elsewhere: all targets have the buffer at the same address, and the
 * library splits a large folio of which a process touches the same page again and again.
 */
static __u64 time_random(void)
{
	static unsigned long calls;
	unsigned long page = ++calls * 97, i;
	__u64 start = now();

	/* This sequence has a period of NPAGES: no page comes twice. */
	for (i = 0; i < NPAGES / RANDOM_SHARE; i++) {
		page = (page * 1664525 + 1013904223) % NPAGES;
		touch_page(page);
	}
	return now() - start;
}

/* Pages that one thread touches; if it goes backwards, each is a fault of its own. */
struct slice {
	pthread_t thread;
	unsigned long first;
	unsigned long nr;
	bool backwards;
};

static void *touch_slice(void *arg)
{
	const struct slice *slice = arg;
	unsigned long i;

	for (i = 0; i < slice->nr; i++)
		touch_page(slice->first + (slice->backwards ? slice->nr - 1 - i : i));
	return NULL;
}

static __u64 time_threads(unsigned int nr, bool backwards)
{
	struct slice slices[MAX_THREADS];
	__u64 start = now();
	unsigned int i;

	for (i = 0; i < nr; i++) {
		slices[i].nr = NPAGES / nr;
		slices[i].first = slices[i].nr * i;
		slices[i].backwards = backwards;
		if (pthread_create(&slices[i].thread, NULL, touch_slice,
				   &slices[i]))
			fail("cannot create a thread");
	}
	for (i = 0; i < nr; i++)
		pthread_join(slices[i].thread, NULL);
	return now() - start;
}

static void target_open(const struct target *t)
{
	target = t;
	device = open_device(t->path);
	if (t->kind >= 0)
		memory_add(device, t->kind, 256 * MIB);
	if (t->window && ioctl(device, HMM_DEVMEM_BENCH_WINDOW, t->window))
		fail("cannot set a window of %u", t->window);
}

static void target_close(void)
{
	areas_unmap();
	if (target->kind >= 0)
		memory_remove(device);
	close(device);
}

static void bench_migrate_target(const struct target *t, bool thp)
{
	const char *size = thp ? "thp" : "4k";
	unsigned int threads;

	target_open(t);
	buffer_create(thp);

	/* Once up front: costs that only the first time has are not to be measured. */
	time_to_device();
	time_in_order();

	print((double)time_to_device() / NPAGES, "%s.%s.to-device", t->name, size);
	print((double)time_in_order() / NPAGES, "%s.%s.in-order", t->name, size);
	time_to_device();
	print((double)time_random() * RANDOM_SHARE / NPAGES, "%s.%s.random",
	      t->name, size);
	time_to_ram();
	time_to_device();
	print((double)time_to_ram() / NPAGES, "%s.%s.to-ram", t->name, size);
	if (time_in_order() > NPAGES * RAM_TOUCH)
		fail("%s: not all came back", t->name);
	for (threads = 2; t->threads && threads <= 4; threads *= 2) {
		time_to_device();
		print((double)time_threads(threads, false) / NPAGES, "%s.%s.threads%u",
		      t->name, size, threads);
	}
	target_close();
}

static void bench_migrate(void)
{
	unsigned int i;

	mirror = malloc(BUFFER);
	memset(mirror, 1, BUFFER);
	for (i = 0; i < ARRAY_SIZE(targets); i++) {
		bench_migrate_target(&targets[i], false);
		bench_migrate_target(&targets[i], true);
	}
	free(mirror);
}

/* Page faults of the device */

/* Runs of pages with nothing around them are so many pages apart. */
#define RUN_DISTANCE	64UL

/**
 * struct runs - memory in which the device takes page faults
 * @name: Its name in the output.
 * @length: Pages of a run, all of which are there.
 * @thp: They are a huge page.
 */
struct runs {
	const char *name;
	unsigned long length;
	bool thp;
};

static const struct runs all_runs[] = {
	{ "1", 1, false },
	{ "16", 16, false },
	{ "512", HUGE_PAGES, false },
	{ "thp", HUGE_PAGES, true },
};

static unsigned long run_distance(const struct runs *runs)
{
	return runs->length > RUN_DISTANCE ? runs->length : RUN_DISTANCE;
}

static unsigned long nr_runs(const struct runs *runs)
{
	return NPAGES / run_distance(runs);
}

static void runs_create(const struct runs *runs)
{
	unsigned long first, page;

	buffer = area_map(NPAGES, runs->thp);
	for (first = 0; first < NPAGES; first += run_distance(runs))
		for (page = first; page < first + runs->length; page++)
			write_word(buffer + page * PAGE, page_word(page));
}

static void runs_verify(const struct runs *runs)
{
	unsigned long first, page;

	for (first = 0; first < NPAGES; first += run_distance(runs))
		for (page = first; page < first + runs->length; page++)
			touch_page(page);
}

/* Time of an ioctl for each run, which is to be done for @pages pages of it. */
static double time_runs(int fd, const struct runs *runs, unsigned long request,
			void *ptr, long pages)
{
	__u64 start = now();
	unsigned long first;
	long ret;

	for (first = 0; first < NPAGES; first += run_distance(runs)) {
		ret = device_pages(fd, request, buffer + first * PAGE, ptr, runs->length);
		if (ret != pages)
			fail("%s: ioctl %#lx for %lu pages: %ld", target->name, request,
			     runs->length, ret);
	}
	return (double)(now() - start) / nr_runs(runs);
}

/*
 * The device reads pages that it has no entry for: an open file begins with none. What
 * is not the fault's is that it reads, which costs the same when it does it again.
 */
static double time_find(const struct runs *runs)
{
	int fd = open_device(target->path);
	double time;

	time = time_runs(fd, runs, HMM_DEVMEM_TEST_READ, mirror, runs->length);
	time -= time_runs(fd, runs, HMM_DEVMEM_TEST_READ, mirror, runs->length);
	close(fd);
	return time;
}

/*
 * Upstream's driver has no page fault that moves pages: what a fault would have to do is
 * what its ioctl does before it reads the pages.
 */
static double time_move(const struct runs *runs)
{
	double time;

	if (target->to_device == HMM_DEVMEM_TEST_FAULT) {
		time = time_runs(device, runs, HMM_DEVMEM_TEST_FAULT,
				 (void *)HMM_DEVMEM_TEST_FAULT_MIGRATE, 0);
		if (device_used(device) != (long)(nr_runs(runs) * runs->length))
			fail("%s: not all pages have moved", target->name);
		return time;
	}
	time = time_runs(device, runs, target->to_device, mirror, runs->length);
	return time - time_runs(device, runs, HMM_DEVMEM_TEST_READ, mirror, runs->length);
}

/* Upstream's driver cannot read what it finds on the device in a page fault: it crashes. */
static bool can_find_local(void)
{
	return target->to_device == HMM_DEVMEM_TEST_FAULT;
}

static void bench_device_one(const struct target *t, const struct runs *runs, bool show)
{
	double ram, move, local = 0;

	target_open(t);
	runs_create(runs);
	ram = time_find(runs);
	move = time_move(runs);
	if (can_find_local())
		local = time_find(runs);
	runs_verify(runs);
	target_close();
	if (!show)
		return;
	print(ram, "fault.%s.ram.%s", t->name, runs->name);
	print(move, "fault.%s.move.%s", t->name, runs->name);
	if (local)
		print(local, "fault.%s.local.%s", t->name, runs->name);
}

static void bench_device(void)
{
	static const struct target faulting[] = {
		{ "upstream", "/dev/hmm_dmirror0", HMM_DEVMEM_TEST_TO_DEVICE, -1, 0, false },
		{ "ours", "/dev/hmm_devmem_test0", HMM_DEVMEM_TEST_FAULT, -1, 0, false },
	};
	unsigned int i, r;

	mirror = malloc(HUGE);
	memset(mirror, 1, HUGE);
	for (i = 0; i < ARRAY_SIZE(faulting); i++) {
		/* Once up front: costs that only the first time has are not to be measured. */
		for (r = 0; r < ARRAY_SIZE(all_runs); r++)
			bench_device_one(&faulting[i], &all_runs[r], false);
		for (r = 0; r < ARRAY_SIZE(all_runs); r++)
			bench_device_one(&faulting[i], &all_runs[r], true);
	}
	free(mirror);
}

/* Eviction */

static const struct target kind_targets[] = {
	[HMM_DEVMEM_BENCH_EAGER] = {
		.to_device = HMM_DEVMEM_TEST_TO_DEVICE_ONLY,
		.kind = -1,
	},
	[HMM_DEVMEM_BENCH_LAZY] = {
		.to_device = HMM_DEVMEM_TEST_TO_DEVICE_ONLY,
		.kind = -1,
	},
};

/* Move all of the buffer to a new device of @size bytes. */
static void evict_prepare(const struct target *t, unsigned long size, bool thp)
{
	target = t;
	device = open_device(BENCH);
	memory_add(device, t - kind_targets, size);
	buffer_create(thp);
	time_to_device();
}

static __u64 time_evict(int kind, unsigned long size, bool thp)
{
	struct hmm_devmem_bench_evict evict = { };
	int ret;

	evict_prepare(&kind_targets[kind], size, thp);
	ret = device_ioctl(device, HMM_DEVMEM_BENCH_EVICT, &evict);
	if (ret || evict.left)
		fail("cannot evict: %d, %llu pages left", ret, evict.left);
	time_in_order();
	areas_unmap();
	memory_remove(device);
	close(device);
	return evict.time;
}

/* Measure the removal of a device, which brings the buffer back to system memory. */
static __u64 time_remove(int kind, unsigned long size, bool thp)
{
	__u64 start;

	evict_prepare(&kind_targets[kind], size, thp);
	start = now();
	memory_remove(device);
	start = now() - start;
	time_in_order();
	areas_unmap();
	close(device);
	return start;
}

/*
 * Measure the removal of a device of @gib GiB, all of which was used once, so that
 * all its struct pages exist, and none of which is in use. The time includes
 * waiting.
 */
static void bench_remove_idle(unsigned int gib)
{
	const struct hmm_devmem_bench_alloc all = {
		.order = 9,
		.batch = gib * GIB / HUGE,
		.batches = 1,
	};
	__u64 start;

	device = open_device(BENCH);
	memory_add(device, HMM_DEVMEM_BENCH_LAZY, gib * GIB);
	alloc_time(device, all);
	start = now();
	memory_remove(device);
	print(now() - start, "remove.idle.%ug", gib);
	close(device);
}

static void print_evict(int kind, bool thp, const char *what,
			__u64 (*time)(int kind, unsigned long size, bool thp))
{
	const char *size = thp ? "thp" : "4k";

	print((double)time(kind, BUFFER, thp) / NPAGES, "%s.%s.%s.64m", what,
	      kind_names[kind], size);
	print((double)time(kind, 16 * GIB, thp) / NPAGES, "%s.%s.%s.16g", what,
	      kind_names[kind], size);
}

static void bench_evict(void)
{
	int kind, thp;

	for (kind = HMM_DEVMEM_BENCH_EAGER; kind <= HMM_DEVMEM_BENCH_LAZY; kind++)
		for (thp = 0; thp < 2; thp++)
			print_evict(kind, thp, "evict", time_evict);
	/* Not for eager devices: core's part of their removal depends on their size. */
	for (thp = 0; thp < 2; thp++)
		print_evict(HMM_DEVMEM_BENCH_LAZY, thp, "unplug", time_remove);
	bench_remove_idle(8);
}

/* CPU faults of many threads at the same time, for a look at contended locks. */
static void bench_faults(void)
{
	static const struct target t = {
		.name = "faults",
		.path = BENCH,
		.to_device = HMM_DEVMEM_TEST_TO_DEVICE_ONLY,
		.kind = HMM_DEVMEM_BENCH_EAGER,
	};
	unsigned int i, rounds = 2;
	__u64 time = 0;

	target_open(&t);
	buffer_create(false);
	for (i = 0; i < rounds; i++) {
		time_to_device();
		time += time_threads(MAX_THREADS, true);
	}
	print(1e6 * rounds * NPAGES / time, "faults.threads%u", MAX_THREADS);
	target_close();
}

static const struct {
	const char *name;
	void (*run)(void);
} parts[] = {
	{ "alloc", bench_alloc },
	{ "add", bench_add },
	{ "migrate", bench_migrate },
	{ "device", bench_device },
	{ "evict", bench_evict },
	{ "throughput", bench_throughput },
	{ "faults", bench_faults },
};

int main(int argc, char **argv)
{
	const unsigned int nr = ARRAY_SIZE(parts);
	unsigned int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (*++argv) {
		for (i = 0; i < nr && strcmp(*argv, parts[i].name); i++)
			;
		if (i == nr) {
			fprintf(stderr, "usage: bench PART...\nparts:");
			for (i = 0; i < nr; i++)
				fprintf(stderr, " %s", parts[i].name);
			fprintf(stderr, "\n");
			return 2;
		}
		parts[i].run();
	}
	return 0;
}
