// SPDX-License-Identifier: GPL-2.0
/*
 * Which system memory pages move back to, what happens to other processes when there
 * is none, and how hard the library tries to get some. In a machine with three NUMA
 * nodes, the last of which has little memory and no CPU, so that only memory that is
 * bound to it is there.
 */
#include "fixture.h"
#include "shared.h"
#include "system.h"

#include <sys/prctl.h>
#include <sys/stat.h>

#define PLACE_PAGES	(HUGE_PAGES + 64)

static bool task_bind(int node)
{
	unsigned long nodes = 1UL << node;

	return !syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8 * sizeof(nodes));
}

/* Number of pages that are on a node. */
static long pages_on(char *ptr, unsigned long npages, int node)
{
	void **addrs = calloc(npages, sizeof(*addrs));
	int *nodes = calloc(npages, sizeof(*nodes));
	unsigned long i;
	long count = -1;

	for (i = 0; i < npages; i++)
		addrs[i] = ptr + i * PAGE;
	if (!syscall(SYS_move_pages, 0, npages, addrs, NULL, nodes, 0))
		for (i = 0, count = 0; i < npages; i++)
			count += nodes[i] == node;
	free(addrs);
	free(nodes);
	return count;
}

/* Create a cpuset with the memory of one node. */
#define CPUSET	"/sys/fs/cgroup/hmm_devmem_place"

static bool cpuset_begin(int node)
{
	file_write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset");
	return !mkdir(CPUSET, 0755) &&
	       file_write(CPUSET "/cpuset.mems", node ? "1" : "0") &&
	       file_write(CPUSET "/cgroup.procs", "0");
}

static void cpuset_end(void)
{
	/* The cpuset's last process may take a moment to exit */
	soon(!rmdir(CPUSET) || errno != EBUSY);
}

static int evict_bound(int nr, int node, bool cpuset)
{
	if (cpuset ? !cpuset_begin(node) : !task_bind(node))
		return 1;
	return device_evict_all(device_open(nr)) ? 2 : 0;
}

/* Evict all pages from a process that may use the memory of one node only. */
static int evict_by_other(int nr, int node, bool cpuset)
{
	const int ret = child_run(evict_bound(nr, node, cpuset));

	if (cpuset)
		cpuset_end();
	return ret;
}

/* Verifies that the cpuset of the evicting process does not decide the node. */
TEST_F(devmem, evictor_does_not_decide)
{
	char *ptr = area_filled(PLACE_PAGES, variant->thp, 1);
	long there[4];
	int i;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(PLACE_PAGES, all_moved(self->fd, ptr, PLACE_PAGES));
		ASSERT_EQ(0, evict_by_other(variant->nr, i & 1, i & 2));
		EXPECT_EQ(0, device_used(self->ctl));
		there[i] = pages_on(ptr, PLACE_PAGES, 0);
		EXPECT_TRUE(there[i] == 0 || there[i] == (long)PLACE_PAGES);
		EXPECT_EQ(there[0], there[i]);
		EXPECT_EQ(0, wrong(ptr, 1, PLACE_PAGES));
	}
}

/* Verifies that memory bound to a node moves back to that node. */
TEST_F(devmem, evicted_to_where_it_is_bound)
{
	char *ptr = area_filled(PLACE_PAGES, variant->thp, 2);
	int i;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(PLACE_PAGES, all_moved(self->fd, ptr, PLACE_PAGES));
		ASSERT_TRUE(area_bind(ptr, PLACE_PAGES, i & 1));
		ASSERT_EQ(0, evict_by_other(variant->nr, !(i & 1), i & 2));
		EXPECT_EQ(0, device_used(self->ctl));
		EXPECT_EQ(PLACE_PAGES, pages_on(ptr, PLACE_PAGES, i & 1));
		EXPECT_EQ(0, wrong(ptr, 2, PLACE_PAGES));
	}
}

/* The last node, filled by a process that the OOM killer takes before all others. */

#define NODE		2
#define NODE_MEMINFO	"/sys/devices/system/node/node2/meminfo"
#define CONSOLE_LEVEL	"/proc/sys/kernel/printk"
#define FULL_KB		(4L << 10)
/* More memory than is left free */
#define OOM_PAGES	(8 * HUGE_PAGES)

static long node_free_kb(void)
{
	const char *text = strstr(file_read(NODE_MEMINFO), "MemFree:");

	return text ? atol(text + strlen("MemFree:")) : -1;
}

/* Allocate small pages of the node until few are left; returns how many, or -1. */
static long node_fill(char **ptr)
{
	long free = node_free_kb(), i = 0, nr;
	const long npages = free / 4;

	*ptr = area_map(npages, false);
	if (!area_bind(*ptr, npages, NODE))
		return -1;
	for (; i < npages && free > FULL_KB; free = node_free_kb())
		for (nr = (free - FULL_KB) / 8 + 1; nr && i < npages; nr--, i++)
			write_word(*ptr + i * PAGE, 1);
	return i;
}

static int victim(const struct gate *ready)
{
	char *ptr;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (file_write("/proc/self/oom_score_adj", "1000") &&
	    node_fill(&ptr) > 0 && gate_open(ready, 1))
		pause();
	return 1;
}

/* The process that the OOM killer takes first; uses all of the node but FULL_KB. */
static pid_t victim_begin(void)
{
	struct gate ready;
	pid_t pid;

	gate_init(&ready);
	pid = child_start(victim(&ready));
	return gate_meet(&ready) ? pid : -1;
}

/*
 * Processes that the OOM killer takes next, rather than this one. On a slow machine,
 * it can look for another process before the memory of the first is free.
 */
#define DECOYS	32

static int decoy(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent)
		pause();
	return 1;
}

static bool decoys_begin(pid_t *pids)
{
	const pid_t parent = getpid();
	int i;

	for (i = 0; i < DECOYS; i++)
		pids[i] = child_start(decoy(parent));
	for (i = 0; i < DECOYS; i++) {
		char path[40];

		snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pids[i]);
		if (!file_write(path, "900"))
			return false;
	}
	return true;
}

static void decoys_end(const pid_t *pids)
{
	int i;

	for (i = 0; i < DECOYS; i++)
		child_kill(pids[i]);
}

/*
 * By default, core would keep as much memory free as the node has, and compact
 * memory in the background, because it is fragmented or might become so.
 */
static struct {
	const char *path;
	long value;
	long old;
} settings[] = {
	{ .path = "/proc/sys/vm/min_free_kbytes", .value = 2048 },
	{ .path = "/proc/sys/vm/compaction_proactiveness", .value = 0 },
	{ .path = "/proc/sys/vm/watermark_boost_factor", .value = 0 },
};

static bool settings_begin(void)
{
	bool ok = true;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		settings[i].old = atol(file_read(settings[i].path));
		ok &= file_write_number(settings[i].path, settings[i].value);
	}
	return ok;
}

static bool settings_end(void)
{
	bool ok = true;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		ok &= file_write_number(settings[i].path, settings[i].old);
	return ok;
}

/* Move pages to the device that are bound to the node, with a pattern. */
static char *area_for_node(int fd, unsigned long npages, bool thp, unsigned int seed)
{
	char *ptr = area_filled(npages, thp, seed);

	if (all_moved(fd, ptr, npages) != (long)npages ||
	    !area_bind(ptr, npages, NODE))
		return NULL;
	return ptr;
}

enum { TO_RAM, EVICT, SUSPEND, NR_WAYS };

/* Bring back what there is memory for; returns whether the rest is reported right. */
static bool back_to_ram(int fd, char *ptr, unsigned long npages, int way)
{
	struct hmm_devmem_test_evict why;
	long ret;

	switch (way) {
	case TO_RAM:
		do {
			ret = to_ram(fd, ptr, npages);
		} while (ret > 0);
		return ret == -ENOMEM;
	case EVICT:
		why = device_evict_why(fd);
		if (why.no_memory != why.left)
			printf("# %llu pages left, %llu for want of memory\n",
			       why.left, why.no_memory);
		return why.left && why.no_memory == why.left;
	default:
		return device_suspend(fd) == -ENOMEM;
	}
}

/*
 * Verifies that no process is killed for memory of pages that need not move back, in
 * whatever way they are moved; that those that find no memory stay on the device
 * unchanged; and that they move back as soon as there is memory.
 */
TEST_F(devmem, nobody_dies_for_what_is_not_owed)
{
	const long kills = vm_events("oom_kill");
	char *ptr, *data = area_map(OOM_PAGES, false);
	pid_t pid;
	int way;

	ASSERT_TRUE(settings_begin());
	for (way = 0; way < NR_WAYS; way++) {
		ptr = area_for_node(self->fd, OOM_PAGES, variant->thp, 3 + way);
		ASSERT_NE(NULL, ptr);
		pid = victim_begin();
		ASSERT_LT(0, pid);
		EXPECT_TRUE(back_to_ram(self->fd, ptr, OOM_PAGES, way));
		EXPECT_LT(0, device_used(self->ctl));
		EXPECT_TRUE(child_lives(pid));
		EXPECT_EQ(kills, vm_events("oom_kill"));
		ASSERT_EQ(OOM_PAGES, device_read(self->fd, ptr, data, OOM_PAGES));
		EXPECT_EQ(0, wrong(data, 3 + way, OOM_PAGES));
		EXPECT_EQ(128 + SIGKILL, child_kill(pid));
		EXPECT_EQ(0, device_suspend(self->ctl));
		EXPECT_EQ(0, device_resume(self->ctl));
		EXPECT_EQ(OOM_PAGES, pages_on(ptr, OOM_PAGES, NODE));
		EXPECT_EQ(0, wrong(ptr, 3 + way, OOM_PAGES));
		munmap(ptr, OOM_PAGES * PAGE);
	}
	EXPECT_TRUE(settings_end());
}

/* Verifies that no process is killed to make room on the device either. */
TEST_F(devmem, nobody_dies_for_room_on_the_device)
{
	const long kills = vm_events("oom_kill");
	char *ptr, *other;
	pid_t pid;
	long left;

	/* The size of coherent devices cannot be chosen */
	if (variant->coherent)
		return;
	ASSERT_TRUE(settings_begin());
	ASSERT_EQ(0, plug_as(self, OOM_PAGES * PAGE, HMM_DEVMEM_TEST_RECLAIM, 0));
	ptr = area_for_node(self->fd, OOM_PAGES, variant->thp, 7);
	ASSERT_NE(NULL, ptr);
	other = area_filled(OOM_PAGES, variant->thp, 8);
	pid = victim_begin();
	ASSERT_LT(0, pid);
	EXPECT_GT(OOM_PAGES, to_device(self->fd, other, OOM_PAGES));
	left = resident(self->fd, ptr, OOM_PAGES);
	EXPECT_LT(0, left);
	EXPECT_EQ(OOM_PAGES - left, resident(self->fd, other, OOM_PAGES));
	EXPECT_TRUE(child_lives(pid));
	EXPECT_EQ(kills, vm_events("oom_kill"));
	EXPECT_EQ(128 + SIGKILL, child_kill(pid));
	EXPECT_EQ(OOM_PAGES, all_moved(self->fd, other, OOM_PAGES));
	EXPECT_EQ(OOM_PAGES, pages_on(ptr, OOM_PAGES, NODE));
	EXPECT_EQ(0, wrong(ptr, 7, OOM_PAGES));
	EXPECT_EQ(0, wrong(other, 8, OOM_PAGES));
	EXPECT_TRUE(settings_end());
}

/* Number of pages that this process has lost. */
static long lost_pages(char *ptr, unsigned long npages)
{
	unsigned long i;
	long count = 0;

	for (i = 0; i < npages; i++)
		count += access_signal(ptr + i * PAGE, false) == SIGBUS;
	return count;
}

/* Verifies that no process is killed to give blocks back to the driver. */
TEST_F(devmem, nobody_dies_for_a_shrink)
{
	const long kills = vm_events("oom_kill");
	const long nr_blocks = 2 * OOM_PAGES / HUGE_PAGES;
	char *ptr;
	pid_t pid;

	ASSERT_TRUE(settings_begin());
	self->replug = true;
	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_EQ(0, device_plug_shared(self->ctl, variant->coherent ? 0 : nr_blocks * HUGE,
					0, 0));
	ptr = area_for_node(self->fd, OOM_PAGES, variant->thp, 11);
	ASSERT_NE(NULL, ptr);
	pid = victim_begin();
	ASSERT_LT(0, pid);
	EXPECT_LE(0, device_shrink(self->ctl, nr_blocks));
	EXPECT_LT(0, device_used(self->ctl));
	EXPECT_TRUE(child_lives(pid));
	EXPECT_EQ(kills, vm_events("oom_kill"));
	EXPECT_EQ(128 + SIGKILL, child_kill(pid));
	EXPECT_LT(0, device_shrink(self->ctl, nr_blocks));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(OOM_PAGES, pages_on(ptr, OOM_PAGES, NODE));
	EXPECT_EQ(0, wrong(ptr, 11, OOM_PAGES));
	EXPECT_TRUE(settings_end());
}

/*
 * Verifies that no process is killed for a removal either, although pages that find no
 * memory are lost then.
 */
TEST_F(devmem, nobody_dies_for_a_removal)
{
	const long kills = vm_events("oom_kill");
	long lost;
	char *ptr;
	pid_t pid;

	ASSERT_TRUE(settings_begin());
	self->replug = true;
	ptr = area_for_node(self->fd, OOM_PAGES, variant->thp, 12);
	ASSERT_NE(NULL, ptr);
	pid = victim_begin();
	ASSERT_LT(0, pid);
	EXPECT_EQ(0, device_unplug(self->ctl));
	EXPECT_TRUE(child_lives(pid));
	EXPECT_EQ(kills, vm_events("oom_kill"));
	EXPECT_EQ(128 + SIGKILL, child_kill(pid));
	lost = lost_pages(ptr, OOM_PAGES);
	EXPECT_LT(0, lost);
	EXPECT_EQ(OOM_PAGES - lost, pages_on(ptr, OOM_PAGES, NODE));
	ASSERT_EQ(0, munmap(ptr, OOM_PAGES * PAGE));
	EXPECT_EQ(0, plug_soon(self->ctl));
	EXPECT_TRUE(settings_end());
}

/* Set the console's log level; 4 shows errors only, so no report of the OOM killer. */
static long console_level(long level)
{
	long old = atol(file_read(CONSOLE_LEVEL));

	return file_write_number(CONSOLE_LEVEL, level) ? old : -1;
}

/* Verifies that a CPU fault gets memory like all others, with the OOM killer's help. */
TEST_F(devmem, fault_gets_memory_at_all_costs)
{
	const long kills = vm_events("oom_kill");
	pid_t pid, decoys[DECOYS];
	long level;
	char *ptr;

	/* There are no CPU faults on coherent memory */
	if (variant->coherent)
		return;
	ASSERT_TRUE(settings_begin());
	ptr = area_for_node(self->fd, OOM_PAGES, variant->thp, 9);
	ASSERT_NE(NULL, ptr);
	pid = victim_begin();
	ASSERT_LT(0, pid);
	ASSERT_TRUE(decoys_begin(decoys));
	level = console_level(4);
	EXPECT_EQ(0, wrong(ptr, 9, OOM_PAGES));
	EXPECT_EQ(4, console_level(level));
	EXPECT_LE(kills + 1, vm_events("oom_kill"));
	EXPECT_GE(kills + 1 + DECOYS, vm_events("oom_kill"));
	EXPECT_EQ(128 + SIGKILL, child_status(pid));
	decoys_end(decoys);
	EXPECT_EQ(OOM_PAGES, pages_on(ptr, OOM_PAGES, NODE));
	EXPECT_TRUE(settings_end());
}

/*
 * How hard the library tries to get huge pages where only small pages are free:
 * every second page of the node is in use.
 */

/* More huge pages than can be free in spite of that, or in per-CPU lists */
#define FRAG_PAGES	(16 * HUGE_PAGES)
#define THP_DEFRAG	"/sys/kernel/mm/transparent_hugepage/defrag"
#define TRACEFS		"/sys/kernel/tracing/"
#define COMPACTION	"mm_compaction_try_to_compact_pages"

/* Trace when this process compacts memory, or skips that as not worth it. */
static bool compactions_begin(void)
{
	char filter[60];

	snprintf(filter, sizeof(filter), "order == 9 && common_pid == %d", getpid());
	return file_write(TRACEFS "events/compaction/" COMPACTION "/filter", filter) &&
	       file_write(TRACEFS "events/compaction/" COMPACTION "/enable", "1");
}

static long compactions(void)
{
	const char *text = file_read(TRACEFS "trace");
	long nr = 0;

	while ((text = strstr(text, " " COMPACTION ": "))) {
		text++;
		nr++;
	}
	return nr;
}

static bool compactions_end(void)
{
	return file_write(TRACEFS "events/compaction/" COMPACTION "/enable", "0") &&
	       file_write(TRACEFS "events/compaction/" COMPACTION "/filter", "0");
}

static bool node_fragment(char **ptr, long *npages)
{
	long i;

	*npages = node_fill(ptr);
	for (i = 0; i < *npages; i += 2)
		if (madvise(*ptr + i * PAGE, PAGE, MADV_DONTNEED))
			return false;
	return *npages > 2 * (long)FRAG_PAGES;
}

/* The present setting, which is in brackets in the file. */
static const char *thp_defrag(char *choice)
{
	if (sscanf(strchr(file_read(THP_DEFRAG), '['), "[%19[^]]]", choice) != 1)
		abort();
	return choice;
}

/*
 * How often memory was to be compacted to bring pages back as huge pages; -1 if not
 * all pages have moved back, or not with their data.
 */
static long compactions_for(int fd, const char *defrag, int way)
{
	char *ptr = area_for_node(fd, FRAG_PAGES, true, 10);
	long before = compactions();

	if (!ptr || !file_write(THP_DEFRAG, defrag))
		return -1;
	if (way == TO_RAM && to_ram(fd, ptr, FRAG_PAGES) != FRAG_PAGES)
		return -1;
	if (way == EVICT && device_evict_all(fd))
		return -1;
	/* The third way is a CPU fault */
	if (wrong(ptr, 10, FRAG_PAGES) || device_used(fd) ||
	    pages_on(ptr, FRAG_PAGES, NODE) != FRAG_PAGES)
		return -1;
	munmap(ptr, FRAG_PAGES * PAGE);
	return compactions() - before;
}

/*
 * Verifies that memory is compacted for huge pages if the administrator has asked
 * for that in thp/defrag, as for any huge page of the mapping, and never for an
 * eviction.
 */
TEST_F(devmem, compacts_as_asked_for)
{
	char choice[20], *rest;
	long nr, always;
	int way;

	/* The other variants have no huge pages on the device */
	if (variant->coherent || !variant->thp)
		return;
	ASSERT_TRUE(settings_begin());
	ASSERT_TRUE(compactions_begin());
	thp_defrag(choice);
	for (way = 0; way < NR_WAYS; way++) {
		ASSERT_TRUE(node_fragment(&rest, &nr));
		EXPECT_EQ(0, compactions_for(self->fd, "never", way));
		always = compactions_for(self->fd, "always", way);
		EXPECT_LE(0, always);
		EXPECT_EQ(way != EVICT, always > 0);
		munmap(rest, nr * PAGE);
	}
	EXPECT_TRUE(file_write(THP_DEFRAG, choice));
	EXPECT_TRUE(compactions_end());
	EXPECT_TRUE(settings_end());
}

TEST_HARNESS_MAIN
