// SPDX-License-Identifier: GPL-2.0
/*
 * Device pages and other parts of memory management that use or move a process's
 * pages: userfaultfd, swap, KSM, NUMA balancing, memory limits.
 */
#define ONLY_PRIVATE
#include "fixture.h"
#include "race.h"
#include "system.h"

#include <sched.h>
#include <sys/stat.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

/*
 * userfaultfd.
 */

/*
 * Verifies that of a range whose missing pages userfaultfd provides only the present
 * pages move, and that the others are still provided when the CPU touches them.
 */
TEST_F(devmem, userfaultfd_missing)
{
	char *ptr = area_map(self->npages, variant->thp);
	struct uffd uffd;
	long there;

	fill(ptr, 10, 100);
	fill_from(ptr + HUGE, 10, HUGE_PAGES, 50);
	there = pagemap_count(ptr, self->npages, PAGEMAP_PRESENT);
	ASSERT_EQ(0, uffd_open(&uffd, ptr, self->npages,
			       UFFDIO_REGISTER_MODE_MISSING));
	uffd.seed = 10;
	ASSERT_EQ(there, moved_soon(self->fd, ptr, self->npages, there));
	EXPECT_EQ(there, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(there, device_used(self->ctl));
	ASSERT_EQ(0, uffd_start(&uffd));
	/* A huge page is present as a whole, with zeros in the rest */
	EXPECT_EQ(0, wrong(ptr, 10, 100));
	EXPECT_EQ(0, wrong_from(ptr + HUGE, 10, HUGE_PAGES, 50));
	EXPECT_EQ(0, uffd.missing);
	EXPECT_EQ(0, wrong_from(ptr + 2 * HUGE, 10, 2 * HUGE_PAGES,
				HUGE_PAGES / 2));
	EXPECT_EQ(HUGE_PAGES / 2, uffd.missing);
	/* Pages that are dropped while they are on the device are missing again */
	EXPECT_EQ(HUGE_PAGES / 2, all_moved(self->fd, ptr + 2 * HUGE,
					    HUGE_PAGES / 2));
	EXPECT_EQ(0, madvise(ptr + 2 * HUGE, 8 * PAGE, MADV_DONTNEED));
	EXPECT_EQ(0, wrong_from(ptr + 2 * HUGE, 10, 2 * HUGE_PAGES,
				HUGE_PAGES / 2));
	EXPECT_EQ(HUGE_PAGES / 2 + 8, uffd.missing);
	EXPECT_EQ(0, uffd_stop(&uffd));
}

/*
 * Verifies that userfaultfd's write protection survives migration to the device and
 * back, that it can be set for pages on the device, and that writes of the CPU are
 * reported, but reads and migrations are not.
 */
TEST_F(devmem, userfaultfd_wp)
{
	char *ptr = area_filled(self->npages, variant->thp, 20);
	char *data = area_map(self->npages, false);
	struct uffd uffd;
	int on_device;

	ASSERT_EQ(0, uffd_open(&uffd, ptr, self->npages,
			       UFFDIO_REGISTER_MODE_WP));
	ASSERT_EQ(0, uffd_start(&uffd));
	for (on_device = 0; on_device < 2; on_device++) {
		if (on_device)
			ASSERT_EQ(self->npages,
				  all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, uffd_protect(&uffd, ptr, self->npages, true));
		ASSERT_EQ(self->npages,
			  all_moved(self->fd, ptr, self->npages));
		EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages,
						      PAGEMAP_UFFD_WP));
		ASSERT_EQ(self->npages,
			  device_read(self->fd, ptr, data, self->npages));
		EXPECT_EQ(0, wrong(data, 20, self->npages));
		EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
		EXPECT_EQ(0, wrong(ptr, 20, self->npages));
		EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages,
						      PAGEMAP_UFFD_WP));
		EXPECT_EQ(0, uffd.wp);
		ASSERT_EQ(self->npages,
			  all_moved(self->fd, ptr, self->npages));
		write_word(ptr + 5 * PAGE, pattern_word(20, 5 * WORDS));
		write_word(ptr + 1100 * PAGE, pattern_word(20, 1100 * WORDS));
		EXPECT_EQ(2, uffd.wp);
		uffd.wp = 0;
		EXPECT_EQ(0, wrong(ptr, 20, self->npages));
		ASSERT_EQ(0, uffd_protect(&uffd, ptr, self->npages, false));
	}
	fill(ptr, 21, self->npages);
	EXPECT_EQ(0, uffd.wp);
	EXPECT_EQ(0, uffd_stop(&uffd));
}

/*
 * Verifies that the device cannot write to pages that are write protected, that
 * what it wrote before is not lost, and that its writes are reported and then go on.
 */
TEST_F(devmem, userfaultfd_wp_of_device)
{
	const unsigned char write = HMM_DEVMEM_TEST_PROT_WRITE;
	char *ptr = area_filled(self->npages, variant->thp, 30);
	char *data = area_filled(self->npages, false, 31);
	struct uffd uffd;

	ASSERT_EQ(0, uffd_open(&uffd, ptr, self->npages,
			       UFFDIO_REGISTER_MODE_WP));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_write(self->fd, ptr, data, self->npages));
	EXPECT_EQ(self->npages,
		  count_states(self->fd, ptr, self->npages, write));
	ASSERT_EQ(0, uffd_protect(&uffd, ptr, self->npages, true));
	EXPECT_EQ(0, count_states(self->fd, ptr, self->npages, write));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 31, self->npages));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, count_states(self->fd, ptr, self->npages, write));
	fill(data, 32, self->npages);
	ASSERT_EQ(0, uffd_start(&uffd));
	EXPECT_EQ(self->npages,
		  device_write(self->fd, ptr, data, self->npages));
	EXPECT_LE(self->npages, uffd.wp);
	EXPECT_EQ(0, wrong(ptr, 32, self->npages));
	EXPECT_EQ(0, uffd_stop(&uffd));
}

/*
 * Verifies that faults of the device wait for the pages that a monitor provides, and
 * that a migration provides none in its stead.
 */
TEST_F(devmem, userfaultfd_missing_for_device)
{
	const unsigned long npages = 64, half = npages / 2;
	char *ptr = area_map(npages, false);
	char *data = area_map(npages, false);
	struct uffd uffd;

	ASSERT_EQ(0, uffd_open(&uffd, ptr, npages, UFFDIO_REGISTER_MODE_MISSING));
	uffd.seed = 50;
	ASSERT_EQ(0, uffd_start(&uffd));
	EXPECT_EQ(0, to_device(self->fd, ptr, npages));
	EXPECT_EQ(0, uffd.missing);
	EXPECT_EQ(half, device_read(self->fd, ptr, data, half));
	EXPECT_EQ(half, uffd.missing);
	EXPECT_EQ(0, device_fault(self->fd, ptr + half * PAGE,
				  HMM_DEVMEM_TEST_FAULT_WRITE |
				  HMM_DEVMEM_TEST_FAULT_MIGRATE, half));
	EXPECT_EQ(npages, uffd.missing);
	EXPECT_EQ(half, resident(self->fd, ptr, npages));
	EXPECT_EQ(npages, device_read(self->fd, ptr, data, npages));
	EXPECT_EQ(0, wrong(data, 50, npages));
	EXPECT_EQ(0, wrong(ptr, 50, npages));
	EXPECT_EQ(0, uffd_stop(&uffd));
}

/*
 * Verifies that UFFDIO_MOVE, which core does not support for device pages, leaves
 * them alone, and that it moves them once they are back in system memory.
 */
TEST_F(devmem, userfaultfd_move)
{
	char *from = area_filled(HUGE_PAGES, variant->thp, 40);
	char *to = area_map(HUGE_PAGES, variant->thp);
	struct uffd uffd;
	long ret;

	ASSERT_EQ(0, uffd_open(&uffd, to, HUGE_PAGES,
			       UFFDIO_REGISTER_MODE_MISSING));
	ASSERT_EQ(HUGE_PAGES, all_moved(self->fd, from, HUGE_PAGES));
	ret = uffd_move(&uffd, to, from, HUGE_PAGES);
	EXPECT_TRUE(ret == -EFAULT || ret == -ENOENT);
	EXPECT_EQ(HUGE_PAGES, resident(self->fd, from, HUGE_PAGES));
	EXPECT_EQ(0, wrong(from, 40, HUGE_PAGES));
	EXPECT_EQ(HUGE_PAGES, uffd_move(&uffd, to, from, HUGE_PAGES));
	EXPECT_EQ(HUGE_PAGES, all_moved(self->fd, to, HUGE_PAGES));
	EXPECT_EQ(0, wrong(to, 40, HUGE_PAGES));
	close(uffd.fd);
}

static long turn_protect(struct actor *actor)
{
	struct race *race = actor->race;
	const unsigned long first = actor->turns % 5 * 64;

	if (__atomic_load_n(&race->uffd->wp, __ATOMIC_RELAXED))
		note_done(race);
	return !!uffd_protect(race->uffd, race->ptr + first * PAGE, 128, true);
}

/* Verifies that no write is lost while pages are write protected again and again. */
TEST_F(devmem, race_userfaultfd_wp)
{
	struct race race = {
		.fd = self->fd,
		.npages = RACE_PAGES,
		.until_done = true,
	};
	struct uffd uffd;

	race.ptr = area_map(RACE_PAGES, variant->thp);
	memset(race.ptr, 0, RACE_PAGES * PAGE);
	race.uffd = &uffd;
	ASSERT_EQ(0, uffd_open(&uffd, race.ptr, RACE_PAGES,
			       UFFDIO_REGISTER_MODE_WP));
	ASSERT_EQ(0, uffd_start(&uffd));
	race_add(&race, turn_count, 0);
	race_add(&race, turn_count, 1);
	race_add(&race, turn_to_device, 0);
	race_add(&race, turn_to_ram, 0);
	race_add(&race, turn_protect, 0);
	EXPECT_EQ(0, race_run(&race));
	EXPECT_EQ(0, miscounted(&race));
	EXPECT_EQ(0, uffd_stop(&uffd));
	EXPECT_EQ(1, race.done);
	EXPECT_LT(0, SINCE(to_device));
}

/*
 * Swap, on a RAM disk.
 */

#define SWAP_PAGES	1024

static long turn_pageout(struct actor *actor)
{
	struct race *race = actor->race;

	if (vm_events("pswpout") > race->before)
		note_done(race);
	return !!madvise(race->ptr, race->npages * PAGE, MADV_PAGEOUT);
}

/* Verifies that neighbours of device pages can be swapped out and in. */
TEST_F(devmem, swap_neighbours)
{
	char *ptr = area_filled(HUGE_PAGES, variant->thp, 1);
	char *data = area_map(HUGE_PAGES, false);
	long out = vm_events("pswpout");

	ASSERT_EQ(0, swap_begin(SWAP_PAGES));
	EXPECT_EQ(128, all_moved(self->fd, ptr + 64 * PAGE, 128));
	EXPECT_EQ(0, madvise(ptr, HUGE, MADV_PAGEOUT));
	EXPECT_LT(100, vm_events("pswpout") - out);
	EXPECT_EQ(128, resident(self->fd, ptr, HUGE_PAGES));
	/* Pages in swap do not move, and do not keep others from moving */
	EXPECT_GT(HUGE_PAGES, to_device(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(HUGE_PAGES, device_read(self->fd, ptr, data, HUGE_PAGES));
	EXPECT_EQ(0, wrong(data, 1, HUGE_PAGES));
	EXPECT_EQ(HUGE_PAGES, all_moved(self->fd, ptr, HUGE_PAGES));
	EXPECT_EQ(0, wrong(ptr, 1, HUGE_PAGES));
	EXPECT_EQ(0, swapoff(SWAP_DISK));
}

/* Verifies that no write is lost while pages are swapped and moved. */
TEST_F(devmem, race_swap)
{
	struct race race = {
		.fd = self->fd,
		.npages = RACE_PAGES,
		.until_done = true,
		.before = vm_events("pswpout"),
	};

	race.ptr = area_map(RACE_PAGES, variant->thp);
	ASSERT_EQ(0, swap_begin(SWAP_PAGES));
	race_add(&race, turn_count, 0);
	race_add(&race, turn_count, 1);
	race_add(&race, turn_to_device, 0);
	race_add(&race, turn_pageout, 0);
	EXPECT_EQ(0, race_run(&race));
	EXPECT_EQ(0, miscounted(&race));
	EXPECT_EQ(1, race.done);
	EXPECT_EQ(0, swapoff(SWAP_DISK));
}

/*
 * KSM.
 */

static long wait_for_sharing(long wanted)
{
	soon(atol(file_read(KSM "pages_sharing")) >= wanted);
	return atol(file_read(KSM "pages_sharing"));
}

/* Fill each page with one of four contents. */
static char *area_of_copies(unsigned long npages, bool thp)
{
	char *ptr = area_map(npages, thp);
	unsigned long page;

	for (page = 0; page < npages; page++)
		fill_from(ptr + page * PAGE, 1, page % 4, 1);
	return ptr;
}

static long wrong_copies(const char *ptr, unsigned long npages)
{
	unsigned long page;
	long count = 0;

	for (page = 0; page < npages; page++)
		count += wrong_from(ptr + page * PAGE, 1, page % 4, 1);
	return count;
}

/* A thread that makes a page differ from its duplicates and equal again. */
static long turn_change(struct actor *actor)
{
	struct race *race = actor->race;
	char *page = race->ptr + actor->turns * 13 % race->npages * PAGE;
	const __u64 old = read_word(page);
	long errors;

	write_word(page, ~old);
	errors = read_word(page) != ~old;
	write_word(page, old);
	return errors;
}

/* Check all words but the first, which another thread changes. */
static long turn_check_copies(struct actor *actor)
{
	struct race *race = actor->race;
	unsigned long page;
	long errors = 0;

	for (page = 0; page < race->npages; page++)
		errors += read_word(race->ptr + page * PAGE + 8) !=
			  pattern_word(1, page % 4 * WORDS + 1);
	return errors;
}

/*
 * Verifies that memory which KSM has merged, or may merge, keeps its bytes when it
 * is asked to move to the device, and that nothing hangs: core is not prepared for
 * device pages that KSM merges, so such memory does not move.
 */
TEST_F(devmem, race_ksm)
{
	struct race race = { .fd = self->fd, .npages = RACE_PAGES };
	char *data = area_map(RACE_PAGES, false);

	race.ptr = area_of_copies(RACE_PAGES, variant->thp);
	ASSERT_EQ(100, all_moved(self->fd, race.ptr + 64 * PAGE, 100));
	ASSERT_EQ(0, madvise(race.ptr, RACE_PAGES * PAGE, MADV_MERGEABLE));
	ASSERT_TRUE(ksm_begin());
	EXPECT_LE(400, wait_for_sharing(400));
	/* Pages on the device before are counted, and are not merged */
	EXPECT_EQ(100, to_device(self->fd, race.ptr, RACE_PAGES));
	EXPECT_EQ(100, resident(self->fd, race.ptr, RACE_PAGES));
	EXPECT_EQ(RACE_PAGES, device_read(self->fd, race.ptr, data, RACE_PAGES));
	EXPECT_EQ(0, wrong_copies(data, RACE_PAGES));
	race_add(&race, turn_check_copies, 0);
	race_add(&race, turn_change, 0);
	race_add(&race, turn_to_device, 0);
	race_add(&race, turn_to_ram, 0);
	EXPECT_EQ(0, race_run(&race));
	EXPECT_EQ(0, wrong_copies(race.ptr, RACE_PAGES));
	EXPECT_EQ(0, madvise(race.ptr, RACE_PAGES * PAGE, MADV_UNMERGEABLE));
	/* After this, ksmd holds no reference to any page for a moment. */
	EXPECT_TRUE(file_write(KSM "run", "2"));
	EXPECT_EQ(RACE_PAGES, all_moved(self->fd, race.ptr, RACE_PAGES));
	EXPECT_EQ(0, wrong_copies(race.ptr, RACE_PAGES));
	EXPECT_TRUE(file_write(KSM "run", "0"));
}

/*
 * NUMA balancing.
 */

/* Touch from another node each time, if nodes have CPUs of their own. */
static long turn_count_anywhere(struct actor *actor)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET((actor->index + actor->turns / 8) % 2, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	if (!actor->index &&
	    vm_events("numa_hint_faults") > actor->race->before + 20)
		note_done(actor->race);
	return turn_count(actor);
}

/* Pause, so that NUMA balancing finds pages that are not on the device. */
static long turn_to_device_at_times(struct actor *actor)
{
	const struct actor *counter = &actor->race->actors[0];
	const unsigned int before = race_turns(counter);

	while (race_turns(counter) < before + 4 && race_goes_on(actor->race))
		sleep_ms(2);
	return turn_to_device(actor);
}

/* Verifies that no write is lost while pages also move between NUMA nodes. */
TEST_F(devmem, race_numa_balancing)
{
	struct race race = {
		.fd = self->fd,
		.npages = RACE_PAGES,
		.until_done = true,
		.before = vm_events("numa_hint_faults"),
	};

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one NUMA node only");
	race.ptr = area_map(RACE_PAGES, variant->thp);
	ASSERT_TRUE(balancing_begin());
	race_add(&race, turn_count_anywhere, 0);
	race_add(&race, turn_count_anywhere, 1);
	race_add(&race, turn_to_device_at_times, 0);
	EXPECT_EQ(0, race_run(&race));
	EXPECT_TRUE(file_write(NUMA_BALANCING, "0"));
	EXPECT_EQ(0, miscounted(&race));
	EXPECT_EQ(1, race.done);
	EXPECT_LT(0, SINCE(to_device));
}

/*
 * Memory limits.
 */

#define CGROUP		"/sys/fs/cgroup/hmm_devmem_test"

static bool cgroup_begin(void)
{
	file_write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	rmdir(CGROUP);
	return !mkdir(CGROUP, 0755) && !access(CGROUP "/memory.max", W_OK);
}

static bool cgroup_end(void)
{
	return soon(!rmdir(CGROUP));
}

/* Set the limit of the cgroup to @room bytes more than it uses at present. */
static bool cgroup_limit(unsigned long room)
{
	return file_write_number(CGROUP "/memory.max",
				 atol(file_read(CGROUP "/memory.current")) + room);
}

/* How often an event of memory.events has happened; -1 if there is no such event. */
static long cgroup_events(const char *event)
{
	char line[40];
	const char *found;

	snprintf(line, sizeof(line), "\n%s ", event);
	found = strstr(file_read(CGROUP "/memory.events"), line);
	return found ? atol(found + strlen(line)) : -1;
}

/* The child's part of the test below, in its cgroup; returns 0 if all was right. */
static int back_to_ram_under_limit(int nr, bool thp, unsigned long npages)
{
	int fd = device_open(nr), way;
	char *ptr;

	if (!file_write(CGROUP "/cgroup.procs", "0"))
		return 1;
	ptr = area_filled(npages, thp, 50);
	for (way = 0; way < 3; way++) {
		if (!file_write(CGROUP "/memory.max", "max"))
			return 2;
		if (all_moved(fd, ptr, npages) != (long)npages)
			return 3;
		/* Pages on the device are charged as before */
		if (atol(file_read(CGROUP "/memory.current")) <
		    (long)(npages * PAGE) || !cgroup_limit(0))
			return 4;
		if (way == 0 && to_ram(fd, ptr, npages) != (long)npages)
			return 5;
		if (way == 1 && device_evict_all(fd))
			return 6;
		if (wrong(ptr, 50, npages))
			return 7;
	}
	return cgroup_events("oom_kill") ? 8 : 0;
}

/*
 * Verifies that pages move back although their cgroup is at its limit: their charge
 * moves with them, so that neither a fault nor an eviction can fail because of it.
 */
TEST_F(devmem, to_ram_under_memory_limit)
{
	ASSERT_TRUE(cgroup_begin());
	EXPECT_EQ(0, child_run(back_to_ram_under_limit(variant->nr, variant->thp,
						       self->npages)));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_TRUE(cgroup_end());
}

/* The same for the next test: there is room for some of four times @npages. */
static int holes_over_limit(int nr, bool thp, unsigned long npages)
{
	int fd = device_open(nr), limit = open(CGROUP "/memory.max", O_WRONLY), ret;
	struct hmm_devmem_test_migrate migrate;
	char *ptr;

	if (!file_write(CGROUP "/cgroup.procs", "0"))
		return 1;
	ptr = area_map(4 * npages, thp);
	if (!cgroup_limit(npages / 2 * PAGE))
		return 2;
	ret = device_migrate(fd, ptr, 4 * npages, &migrate);
	/* Else the process is killed when it opens a file */
	if (write(limit, "max", 3) != 3 || ret)
		return 3;
	if (!migrate.moved || migrate.moved >= npages ||
	    migrate.no_memory != 4 * npages - migrate.moved)
		return 4;
	if (cgroup_events("oom") || cgroup_events("oom_kill"))
		return 5;
	/* Core reclaims twice for a page that it tries in vain. Two windows are in flight. */
	if (cgroup_events("max") < 1 || cgroup_events("max") > 2 * 2 * HUGE_PAGES)
		return 6;
	if (resident(fd, ptr, 4 * npages) != migrate.moved)
		return 7;
	return not_zero(ptr, npages / 4) ? 8 : 0;
}

/*
 * Verifies that holes for which the cgroup has no room stay holes: no process is killed
 * for memory that it has not touched, and the migration does not try them one by one.
 */
TEST_F(devmem, holes_over_memory_limit)
{
	ASSERT_TRUE(cgroup_begin());
	EXPECT_EQ(0, child_run(holes_over_limit(variant->nr, variant->thp,
						self->npages)));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_TRUE(cgroup_end());
}

#define THP_DEFRAG	"/sys/kernel/mm/transparent_hugepage/defrag"

/* The child's part of the next test: all but some of the room is taken by lazily freed pages. */
static int holes_after_reclaim(int nr, bool thp, unsigned long npages)
{
	int fd = device_open(nr), limit = open(CGROUP "/memory.max", O_WRONLY), ret;
	struct hmm_devmem_test_migrate migrate;
	char *ptr, *lazy;

	if (!file_write(CGROUP "/cgroup.procs", "0"))
		return 1;
	ptr = area_map(npages, thp);
	lazy = area_filled(2 * npages, false, 51);
	if (madvise(lazy, 2 * npages * PAGE, MADV_FREE))
		return 2;
	if (!cgroup_limit(HUGE / 2))
		return 3;
	ret = device_migrate(fd, ptr, npages, &migrate);
	if (write(limit, "max", 3) != 3 || ret)
		return 4;
	if (cgroup_events("oom") || cgroup_events("oom_kill"))
		return 5;
	/* Core drops lazily freed pages only if nothing has a reference to them */
	if (migrate.moved < npages - 64)
		return 6;
	return not_zero(ptr, npages) ? 7 : 0;
}

/*
 * Verifies that holes are filled if the cgroup has no room, but pages that can be
 * reclaimed: also huge ones, for which core reclaims nothing.
 */
TEST_F(devmem, holes_make_the_cgroup_reclaim)
{
	ASSERT_TRUE(cgroup_begin());
	ASSERT_TRUE(file_write(THP_DEFRAG, "never"));
	EXPECT_EQ(0, child_run(holes_after_reclaim(variant->nr, variant->thp,
						   self->npages)));
	EXPECT_TRUE(file_write(THP_DEFRAG, "madvise"));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_TRUE(cgroup_end());
}

TEST_HARNESS_MAIN
