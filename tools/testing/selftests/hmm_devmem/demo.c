// SPDX-License-Identifier: GPL-2.0
/*
 * A process fills memory, moves it to the test device, and reads it back by
 * plain CPU access; at each step the kernel is asked where the memory is.
 */
#include "test.h"

#define MIB _BITUL(20)

/* What the kernel says about the memory. */
struct view {
	unsigned long present;
	unsigned long device;
	unsigned long rss;
	unsigned long swap;
	unsigned long used;
};

/* Physical addresses of the device memory, as in /proc/iomem. */
static unsigned long range_start, range_end;

static int failures;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	failures++;
	printf("FAILED: %s\n", what);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void find_range(const char *name)
{
	FILE *f = fopen("/proc/iomem", "r");
	char line[200], *end;

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		end = strstr(line, " : ");
		if (!end || strcmp(end + 3, name))
			continue;
		range_start = strtoul(line, &end, 16);
		range_end = strtoul(end + 1, NULL, 16);
	}
	if (f)
		fclose(f);
}

/* A number from the smaps entry of the mapping at @ptr, in pages. */
static unsigned long smaps_pages(const void *ptr, const char *name)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	size_t len = strlen(name);
	unsigned long kib = 0;
	bool ours = false;
	char line[400];

	while (f && fgets(line, sizeof(line), f)) {
		char *end;
		unsigned long start = strtoul(line, &end, 16);

		if (*end == '-')
			ours = start <= (uintptr_t)ptr &&
			       (uintptr_t)ptr < strtoul(end + 1, NULL, 16);
		else if (ours && !strncmp(line, name, len) && line[len] == ':')
			kib = strtoul(line + len + 1, NULL, 10);
	}
	if (f)
		fclose(f);
	return kib / 4;
}

/*
 * A page in device memory that the CPU cannot address has no present page table
 * entry. Like a swapped page it has a swap entry, in which the pfn follows the five
 * bits of the type.
 */
static bool entry_is_device(__u64 entry)
{
	unsigned long addr = (entry & (_BITULL(55) - 1)) >> 5 << 12;

	return !(entry & PAGEMAP_PRESENT) && entry & PAGEMAP_SWAP &&
	       addr >= range_start && addr < range_end;
}

static struct view look(int fd, const char *ptr, unsigned long npages)
{
	struct view view = {
		.rss = smaps_pages(ptr, "Rss"),
		.swap = smaps_pages(ptr, "Swap"),
		.used = device_used(fd),
	};
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	__u64 entries[512];
	unsigned long page, n, i;

	for (page = 0; page < npages; page += n) {
		n = npages - page < 512 ? npages - page : 512;
		if (pread(pagemap, entries, n * 8,
			  ((uintptr_t)ptr / PAGE + page) * 8) !=
		    (ssize_t)(n * 8))
			break;
		for (i = 0; i < n; i++) {
			view.present += !!(entries[i] & PAGEMAP_PRESENT);
			view.device += entry_is_device(entries[i]);
		}
	}
	close(pagemap);
	return view;
}

static void print_row(const char *what, const struct view *views, size_t offset)
{
	int i;

	printf("  %-36s", what);
	for (i = 0; i < 3; i++)
		printf(" %13lu", *(const unsigned long *)
				 ((const char *)&views[i] + offset));
	printf("\n");
}

static void print_views(const struct view *views)
{
	printf("\n  %-36s %13s %13s %13s\n", "pages, as seen by", "filled",
	       "on the device", "read back");
	print_row("pagemap: present in RAM", views,
		  offsetof(struct view, present));
	print_row("pagemap: entry with a device address", views,
		  offsetof(struct view, device));
	print_row("smaps: Rss (counts both)", views, offsetof(struct view, rss));
	print_row("smaps: Swap", views, offsetof(struct view, swap));
	print_row("hmm_devmem: device pages in use", views,
		  offsetof(struct view, used));
	printf("\n");
}

static void print_rate(const char *what, double seconds, unsigned long npages)
{
	printf("  %-36s %7.2f s %8.0f MiB/s\n", what, seconds,
	       npages * PAGE / MIB / seconds);
}

int main(int argc, char **argv)
{
	unsigned long mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
	unsigned long npages = mib * MIB / PAGE;
	struct hmm_devmem_test_stats stats;
	struct view views[3];
	double t[4];
	char *ptr;
	long ret;
	int fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	fd = device_open(0);
	if (!npages || fd < 0) {
		fprintf(stderr, "usage: demo [MiB], with test_hmm_devmem loaded\n");
		return 2;
	}
	find_range("hmm_devmem_test0");
	printf("%lu MiB of a process to a device and back, by hmm_devmem\n\n", mib);
	printf("  device memory: %llu MiB of struct pages at %#lx-%#lx\n",
	       device_stats(fd).size * PAGE / MIB, range_start, range_end);
	printf("  (the device is software and the machine is emulated: rates tell\n");
	printf("  that it works, not how fast it is)\n\n");
	check(range_end, "the device's range is in /proc/iomem");

	ptr = area_map(npages, true);
	t[0] = now();
	fill(ptr, 1, npages);
	t[1] = now();
	print_rate("filled with a pattern", t[1] - t[0], npages);
	views[0] = look(fd, ptr, npages);

	t[1] = now();
	ret = to_device(fd, ptr, npages);
	t[2] = now();
	print_rate("moved to the device", t[2] - t[1], npages);
	check(ret == (long)npages, "all pages moved");
	views[1] = look(fd, ptr, npages);

	t[2] = now();
	ret = wrong(ptr, 1, npages);
	t[3] = now();
	print_rate("read by the CPU, every byte compared", t[3] - t[2], npages);
	check(!ret, "all bytes are right");
	views[2] = look(fd, ptr, npages);

	print_views(views);
	stats = device_stats(fd);
	printf("  hmm_devmem's counters: %llu pages to the device, %llu to RAM,\n",
	       stats.to_device, stats.to_ram);
	printf("  %llu CPU faults, %.1f pages each; %llu allocated, %llu freed,\n",
	       stats.faults, (double)stats.fault_pages / (stats.faults ?: 1),
	       stats.allocated, stats.freed);
	printf("  %llu copy errors\n\n", stats.copy_errors);

	check(views[0].present == npages && !views[0].device,
	      "at first all pages are in RAM");
	check(!views[1].present && views[1].device == npages,
	      "then all are on the device");
	check(views[1].used == npages, "the library agrees");
	check(views[2].present == npages && !views[2].device && !views[2].used,
	      "in the end all are in RAM and the device is empty");
	check(!stats.copy_errors && stats.to_device == npages &&
	      stats.to_ram == npages && stats.allocated == stats.freed,
	      "the counters say the same");
	if (!failures)
		printf("%lu MiB verified: every byte is right\n", mib);
	return !!failures;
}
