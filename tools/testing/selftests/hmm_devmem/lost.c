// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory whose content the device has lost.
 */
#include "fixture.h"

#define PFN_MASK	(_BITULL(55) - 1)
#define SWAP_TYPE_BITS	5

/* Which page of the device has the data at @addr; -1 if none has. */
static long device_page(struct _test_data_devmem *self, const void *addr)
{
	struct hmm_devmem_test_stats stats = device_stats(self->ctl);
	const __u64 entry = pagemap_entry(addr);
	__u64 pfn = entry & PFN_MASK;

	/* Memory that the CPU cannot address is shown as a kind of swap entry */
	if (entry & PAGEMAP_SWAP)
		pfn >>= SWAP_TYPE_BITS;
	if (pfn < stats.pfn_first || pfn >= stats.pfn_first + stats.size)
		return -1;
	return pfn - stats.pfn_first;
}

static long debugfs_stat(int nr, const char *name)
{
	char path[100];
	const char *line;

	snprintf(path, sizeof(path),
		 "/sys/kernel/debug/hmm_devmem/hmm_devmem_test%d/stats", nr);
	line = strstr(file_read(path), name);
	return line ? atol(line + strlen(name)) : -1;
}

static int last_code;
static void *last_addr;

static void info_handler(int sig, siginfo_t *info, void *context)
{
	last_code = info->si_code;
	last_addr = info->si_addr;
	siglongjmp(access_env, sig);
}

/* Like access_signal(), but returns the si_code of the SIGBUS. */
static int access_code(void *addr)
{
	struct sigaction action = {
		.sa_sigaction = info_handler,
		.sa_flags = SA_SIGINFO,
	}, old;

	last_code = 0;
	sigaction(SIGBUS, &action, &old);
	if (!sigsetjmp(access_env, 1))
		read_word(addr);
	sigaction(SIGBUS, &old, NULL);
	return last_code;
}

/* Number of wrong pages of [0, @end) other than @lost. */
static long wrong_but(const char *ptr, unsigned int seed, unsigned long end,
		      unsigned long lost)
{
	return wrong(ptr, seed, lost) +
	       wrong_from(ptr + (lost + 1) * PAGE, seed, lost + 1,
			  end - lost - 1);
}

/*
 * Verifies that an access to a lost page raises SIGBUS with BUS_MCEERR_AR, in all
 * processes that share the page, and that its neighbours, also in a large folio, are
 * not affected.
 */
TEST_F(devmem, lost_page)
{
	const unsigned long lost[] = { 0, 77, HUGE_PAGES - 1, 2 * HUGE_PAGES + 3 };
	size_t i;

	self->replug = true;
	for (i = 0; i < ARRAY_SIZE(lost); i++) {
		char *ptr = area_filled(self->npages, variant->thp, 1);
		char *page = ptr + lost[i] * PAGE;
		struct gate gate;
		pid_t pid;
		long nr;

		gate_init(&gate);
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		nr = device_page(self, page);
		ASSERT_LE(0, nr);
		pid = child_start(!gate_wait(&gate) ||
				  access_signal(page, false) != SIGBUS ||
				  wrong_but(ptr, 1, self->npages, lost[i]));
		ASSERT_EQ(0, device_lose(self->ctl, nr, 1));
		EXPECT_EQ(i + 1, SINCE(lost));
		ASSERT_TRUE(gate_open(&gate, 1));
		EXPECT_EQ(SIGBUS, access_signal(page, false));
		EXPECT_EQ(SIGBUS, access_signal(page, true));
		EXPECT_EQ(BUS_MCEERR_AR, access_code(page));
		EXPECT_EQ(page, (char *)((uintptr_t)last_addr & ~(PAGE - 1)));
		EXPECT_EQ(0, child_status(pid));
		/* A child that is forked later gets SIGBUS, too */
		EXPECT_EQ(0, child_run(access_signal(page, false) != SIGBUS));
		EXPECT_EQ(0, wrong_but(ptr, 1, self->npages, lost[i]));
		EXPECT_EQ(SIGBUS, access_signal(page, false));
		EXPECT_EQ(i + 1, debugfs_stat(variant->nr, "\nretired "));
		ASSERT_EQ(0, munmap(ptr, self->npages * PAGE));
		EXPECT_EQ(0, device_used_soon(self->ctl, 0));
		gate_close(&gate);
	}
}

/*
 * Verifies that a lost page hinders nothing: other pages move in both directions,
 * the device can be evicted, suspended and unplugged, and the page remains lost.
 */
TEST_F(devmem, lost_page_and_all_else)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	char *data = area_map(self->npages, false);
	const unsigned long lost = 300;
	char *page = ptr + lost * PAGE;
	long start;

	self->replug = true;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_lose(self->ctl, device_page(self, page), 1));
	/* The device cannot read it either */
	EXPECT_GT(0, device_read(self->fd, page, data, 1));
	ASSERT_EQ(lost, device_read(self->fd, ptr, data, lost));
	EXPECT_EQ(0, wrong(data, 2, lost));

	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(SIGBUS, access_signal(page, false));
	EXPECT_EQ(0, wrong_but(ptr, 2, self->npages, lost));
	EXPECT_EQ(self->npages - 1, moved_soon(self->fd, ptr, self->npages, self->npages - 1));
	EXPECT_EQ(self->npages - 1, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages - 1, moved_soon(self->fd, ptr, self->npages, self->npages - 1));
	EXPECT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, wrong_but(ptr, 2, self->npages, lost));
	EXPECT_EQ(0, device_resume(self->ctl));
	EXPECT_EQ(self->npages - 1, moved_soon(self->fd, ptr, self->npages, self->npages - 1));
	start = now_ms();
	EXPECT_EQ(0, device_unplug(self->ctl));
	TH_LOG("unplugged in %ld ms", now_ms() - start);
	EXPECT_EQ(SIGBUS, access_signal(page, false));
	EXPECT_EQ(0, wrong_but(ptr, 2, self->npages, lost));

	/* The address can be used for new memory */
	ASSERT_EQ(page, mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED |
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	EXPECT_EQ(0, not_zero(page, 1));
}

/*
 * Verifies that lost pages, whether in use or free when they were lost, are never
 * allocated again, that all others are, and that all can be used after a new plug.
 */
TEST_F(devmem, lost_pages_are_retired)
{
	unsigned long size = self->before.size, i, nr = 0;
	char *ptr = area_filled(HUGE_PAGES, variant->thp, 3);
	char *all;
	long first;

	self->replug = true;
	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
	first = device_page(self, ptr);
	ASSERT_LE(0, first);
	/* Lose pages in use, */
	ASSERT_EQ(0, device_lose(self->ctl, first + 10, 5));
	nr += 5;
	/* some in use, some free, and some for the second time, */
	ASSERT_EQ(0, device_lose(self->ctl, first + 13, HUGE_PAGES));
	nr += HUGE_PAGES - 2;
	/* and free ones, at the end of the device and elsewhere */
	ASSERT_EQ(0, device_lose(self->ctl, size - 1, 1));
	ASSERT_EQ(0, device_lose(self->ctl, size - 3 * HUGE_PAGES - 5, 30));
	nr += 31;
	EXPECT_EQ(HUGE_PAGES - 10, SINCE(lost));
	EXPECT_EQ(0, wrong(ptr, 3, 10));
	for (i = 10; i < HUGE_PAGES; i += 50)
		EXPECT_EQ(SIGBUS, access_signal(ptr + i * PAGE, i & 1));
	EXPECT_EQ(nr, debugfs_stat(variant->nr, "\nretired "));
	ASSERT_EQ(0, munmap(ptr, HUGE_PAGES * PAGE));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));

	all = area_map(size, variant->thp);
	for (i = 0; i < size; i++)
		write_word(all + i * PAGE, i + 1);
	EXPECT_EQ(size - nr, moved_soon(self->fd, all, size, size - nr));
	EXPECT_EQ(size - nr, device_used(self->ctl));
	for (i = 0; i < size; i++) {
		const long page = device_page(self, all + i * PAGE);

		if (page < 0)
			continue;
		ASSERT_FALSE(page >= first + 10 &&
			     page < first + 13 + (long)HUGE_PAGES);
		ASSERT_NE(size - 1, page);
	}
	for (i = 0; i < size; i++)
		ASSERT_EQ(i + 1, read_word(all + i * PAGE));

	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_EQ(0, device_plug(self->ctl));
	EXPECT_EQ(size, all_moved(self->fd, all, size));
	for (i = 0; i < size; i++)
		ASSERT_EQ(i + 1, read_word(all + i * PAGE));
}

/*
 * Verifies that to lose a free page harms no page in use: the tail pages of a folio
 * that was freed still point to its head page, which can be in use as a small page
 * now.
 */
TEST_F(devmem, lose_free_part_of_old_folio)
{
	char *ptr = area_filled(HUGE_PAGES, variant->thp, 5);
	char *small = area_filled(3, false, 6);
	long first;

	ASSERT_EQ(0, plug_as(self, 0, 0, 0));
	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
	first = device_page(self, ptr);
	ASSERT_EQ(HUGE_PAGES, to_ram(self->fd, ptr, HUGE_PAGES));
	ASSERT_EQ(3, all_moved(self->fd, small, 3));
	ASSERT_EQ(first, device_page(self, small));
	ASSERT_EQ(0, device_lose(self->ctl, first + 3, HUGE_PAGES - 3));
	EXPECT_EQ(0, SINCE(lost));
	EXPECT_EQ(3, resident(self->fd, small, 3));
	EXPECT_EQ(0, wrong(small, 6, 3));
	EXPECT_EQ(0, wrong(ptr, 5, HUGE_PAGES));
}

/* Verifies that nothing happens for ranges that are not there. */
TEST_F(devmem, lose_nothing)
{
	const unsigned long size = self->before.size;

	EXPECT_EQ(-EINVAL, device_lose(self->ctl, size, 1));
	EXPECT_EQ(-EINVAL, device_lose(self->ctl, size - 1, 2));
	EXPECT_EQ(-EINVAL, device_lose(self->ctl, 0, 0));
	EXPECT_EQ(-EINVAL, device_lose(self->ctl, ~0UL, 2));
	EXPECT_EQ(0, debugfs_stat(variant->nr, "\nretired "));

	/* A lazy device need not have any struct pages at that time */
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_LAZY, 0));
	EXPECT_EQ(0, device_lose(self->ctl, 0, size));
	EXPECT_EQ(0, SINCE(lost));
}

/* Verifies that memory can be lost that has no struct page yet, or none any more. */
TEST_F(devmem, lose_without_struct_page)
{
	char *ptr = area_filled(HUGE_PAGES, variant->thp, 10);
	const unsigned long size = self->before.size;
	unsigned long i;
	long page;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_LAZY, 0));
	ASSERT_EQ(0, debugfs_stat(variant->nr, "\nsegments "));
	ASSERT_EQ(0, device_lose(self->ctl, 1, 5));
	ASSERT_EQ(0, device_lose(self->ctl, 3, 9));
	EXPECT_EQ(11, debugfs_stat(variant->nr, "\nretired "));
	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
	for (i = 0; i < HUGE_PAGES; i++) {
		page = device_page(self, ptr + i * PAGE);
		EXPECT_FALSE(page >= 1 && page < 12);
	}
	EXPECT_EQ(11, debugfs_stat(variant->nr, "\nretired "));
	ASSERT_EQ(HUGE_PAGES, to_ram(self->fd, ptr, HUGE_PAGES));
	/* Lost pages keep no struct pages alive, and are remembered without them */
	EXPECT_TRUE(soon(!debugfs_stat(variant->nr, "\nsegments ")));
	EXPECT_EQ(11, debugfs_stat(variant->nr, "\nretired "));
	ASSERT_EQ(0, device_lose(self->ctl, 0, size));
	EXPECT_EQ(size, debugfs_stat(variant->nr, "\nretired "));
	EXPECT_EQ(0, to_device(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(0, SINCE(lost));
	EXPECT_EQ(0, wrong(ptr, 10, HUGE_PAGES));
}

/*
 * Verifies that no copy from a device is in flight when it has been suspended, not
 * even that of a page that was lost while it was copied.
 */
TEST_F(devmem, suspend_while_lost_page_is_copied)
{
	char *ptr = area_filled(1, false, 9);
	pid_t mover, loser;
	int ret;
	long nr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_ASYNC, 1000000));
	ASSERT_EQ(1, all_moved(self->fd, ptr, 1));
	nr = device_page(self, ptr);
	ASSERT_LE(0, nr);
	/* Fork this one first, since fork() waits for the migration that follows */
	loser = child_start(!soon(device_stats(self->ctl).copying || SINCE(to_ram)) ||
			    device_lose(self->ctl, nr, 1) < 0);
	mover = child_start(to_ram(self->fd, ptr, 1) < 0);
	EXPECT_TRUE(soon(debugfs_stat(variant->nr, "\nretired ") == 1));
	ret = device_suspend(self->ctl);
	EXPECT_EQ(ret ? -EBUSY : 0, ret);
	/* A suspended device has no copy in flight. */
	EXPECT_TRUE(ret || !device_stats(self->ctl).copying);
	EXPECT_EQ(0, child_status(mover));
	EXPECT_EQ(0, child_status(loser));
	EXPECT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, device_resume(self->ctl));
}

#define FIRE_PAGES	(HUGE_PAGES + 30)

/* Reads a page. Of coherent memory, it can be lost even while it is read. */
static int wrong_or_lost(char *page, unsigned int seed, unsigned long i, bool *lost)
{
	struct sigaction action = { .sa_handler = access_handler }, old;
	long wrong = 0;

	sigaction(SIGBUS, &action, &old);
	*lost = sigsetjmp(access_env, 1);
	if (!*lost)
		wrong = wrong_from(page, seed, i, 1);
	sigaction(SIGBUS, &old, NULL);
	return wrong;
}

/* Use memory until @stop; fill lost pages again. Anything else is an error. */
static int use_and_lose(int nr, bool thp, unsigned int seed, const int *stop)
{
	char *ptr = area_filled(FIRE_PAGES, thp, seed);
	int fd = device_open(nr);
	unsigned long i;
	char *page;
	bool lost;
	long ret;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
		ret = to_device(fd, ptr, FIRE_PAGES);
		if (ret < 0 && ret != -EBUSY)
			return 1;
		for (i = 0; i < FIRE_PAGES; i++) {
			page = ptr + i * PAGE;
			if (wrong_or_lost(page, seed, i, &lost))
				return 2;
			if (!lost)
				continue;
			if (mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED |
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != page)
				return 3;
			fill_from(page, seed, i, 1);
		}
	}
	return 0;
}

/* Verifies that an access to pages lost while they move gets right data or SIGBUS. */
TEST_F(devmem, lose_under_fire)
{
	enum { NR = 3, LOSSES = 400 };
	unsigned long size;
	long moved = 0;
	pid_t pids[NR];
	int *stop, i;

	stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, stop);
	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : 8 * HUGE,
			     HMM_DEVMEM_TEST_ASYNC, 100));
	size = variant->coherent ? NR * 2 * HUGE_PAGES : 8 * HUGE_PAGES;
	for (i = 0; i < NR; i++)
		pids[i] = child_start(use_and_lose(variant->nr, variant->thp,
						   100 * i, stop));
	srand(1);
	for (i = 0; i < LOSSES; i++) {
		/* Do not lose everything before the processes have begun to move it */
		if (i % 8 == 0)
			EXPECT_TRUE(soon(SINCE(to_device) > moved));
		moved = SINCE(to_device);
		EXPECT_EQ(0, device_lose(self->ctl, rand() % size, 1));
	}
	__atomic_store_n(stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	EXPECT_LT(0, SINCE(lost));
	EXPECT_GE(LOSSES, SINCE(lost));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	munmap(stop, PAGE);
}

/* Report broken memory to core, in the way that core is told of it. */
static bool inject_memory_failure(struct _test_data_devmem *self, unsigned long page)
{
	char text[30];

	snprintf(text, sizeof(text), "%llu",
		 (unsigned long long)device_stats(self->ctl).pfn_first + page);
	return file_write("/sys/kernel/debug/hwpoison/corrupt-pfn", text);
}

/*
 * Verifies that a memory failure that core reports makes a lost page and not an
 * oops: core alone takes the page's anon_vma for a file's address_space (bug C1).
 */
TEST_F(devmem, memory_failure)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);
	const unsigned long lost = 33;
	long nr;

	if (access("/sys/kernel/debug/hwpoison/corrupt-pfn", W_OK) &&
	    system("modprobe hwpoison-inject 2>/dev/null"))
		SKIP(return, "no hwpoison-inject");
	self->replug = true;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	nr = device_page(self, ptr + lost * PAGE);
	ASSERT_LE(0, nr);
	ASSERT_TRUE(inject_memory_failure(self, nr));
	EXPECT_EQ(SIGBUS, access_signal(ptr + lost * PAGE, true));
	EXPECT_EQ(BUS_MCEERR_AR, access_code(ptr + lost * PAGE));
	EXPECT_EQ(0, wrong_but(ptr, 4, self->npages, lost));
	EXPECT_EQ(1, SINCE(lost));
	/* A page that is free, the same one again, and the one that was lost before */
	inject_memory_failure(self, self->before.size - 1);
	inject_memory_failure(self, self->before.size - 1);
	inject_memory_failure(self, nr);
	EXPECT_EQ(2, debugfs_stat(variant->nr, "\nretired "));
	EXPECT_EQ(0, wrong_but(ptr, 4, self->npages, lost));
	/* After the device was removed */
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(SIGBUS, access_signal(ptr + lost * PAGE, false));
}

/* Read what the kernel reports about this process's memory. */
static void read_about(const char *ptr, unsigned long npages)
{
	char text[4096];
	int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);

	while (read(fd, text, sizeof(text)) > 0)
		;
	close(fd);
	pagemap_count(ptr, npages, 0);
}

/*
 * Verifies that the page table entry for a lost page does not depend on the device:
 * it stays valid when the device has been removed, and when it is plugged again.
 */
TEST_F(devmem, lost_page_outlives_its_device)
{
	char *ptr = area_filled(self->npages, variant->thp, 8);
	char *page = ptr + 5 * PAGE;

	self->replug = true;
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_lose(self->ctl, device_page(self, page), 1));
	read_about(ptr, self->npages);
	ASSERT_EQ(0, device_unplug(self->ctl));
	read_about(ptr, self->npages);
	EXPECT_EQ(SIGBUS, access_signal(page, false));
	EXPECT_EQ(0, wrong_but(ptr, 8, self->npages, 5));
	ASSERT_EQ(0, device_plug(self->ctl));
	read_about(ptr, self->npages);
	EXPECT_EQ(SIGBUS, access_signal(page, true));
	/* Pages that other processes had can take a moment until they are free */
	EXPECT_TRUE(soon(to_device(self->fd, ptr, self->npages) >= 0 &&
			 resident(self->fd, ptr, self->npages) == self->npages - 1));
	EXPECT_EQ(0, wrong_but(ptr, 8, self->npages, 5));
}

TEST_HARNESS_MAIN
