// SPDX-License-Identifier: GPL-2.0
/*
 * A device that finds system memory by its DMA address only, and steps of a
 * migration that fail by chance. tools/hmm_devmem/suites/selftests --dma runs this with
 * bounce buffers, with an IOMMU, and with devices that do not reach all memory.
 */
#include "fixture.h"
#include "system.h"

#define SWIOTLB_PEAK	"/sys/kernel/debug/swiotlb/io_tlb_used_hiwater"
#define MASK_BITS	"/sys/module/test_hmm_devmem/parameters/dma_mask_bits"
#define IOMMU_TYPE	"/sys/bus/pci/devices/0000:00:10.0/iommu_group/type"

/* Verifies that data takes the way for which the guest was booted. */
TEST_F(devmem, dma_goes_there)
{
	const bool bounce = strstr(file_read("/proc/cmdline"), "swiotlb=");
	const bool iommu = strstr(file_read("/proc/cmdline"), "intel_iommu=on");
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 50);
	ASSERT_TRUE(!bounce || file_write(SWIOTLB_PEAK, "0"));
	ASSERT_LT(0, to_device(self->fd, ptr, self->npages));
	EXPECT_TRUE(!bounce || atoi(file_read(SWIOTLB_PEAK)) > 0);
	EXPECT_TRUE(!iommu || !strncmp(file_read(IOMMU_TYPE), "DMA", 3));
	EXPECT_EQ(0, wrong(ptr, 50, self->npages));
}

/* Verifies that data moves to the device and back, in all ways. */
TEST_F(devmem, dma)
{
	char *data = area_map(self->npages, false);
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 1);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 1, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));

	fill(ptr, 2, self->npages);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(self->npages, SINCE(evicted));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));
}

/* Verifies that memory never touched reads as zeros; nothing is mapped for that. */
TEST_F(devmem, dma_of_nothing)
{
	char *data = area_filled(self->npages, false, 3);
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_map(self->npages, variant->thp);
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, not_zero(data, self->npages));
	EXPECT_EQ(0, SINCE(copy_errors));
	fail_attrs_clear();
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/*
 * Verifies that scattered single pages, each of which is a run of its own, and pages
 * in between that are not to move do not get mixed up.
 */
TEST_F(devmem, dma_scattered)
{
	char *ptr = area_map(self->npages, false);
	char *data = area_map(self->npages, false);
	unsigned long i;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	/* Backwards, every second one: neighbours are not contiguous */
	for (i = self->npages; i-- > 0;)
		if (i % 2)
			fill_from(ptr + i * PAGE, 4, i, 1);
	for (i = 0; i < self->npages; i += 2)
		fill_from(ptr + i * PAGE, 4, i, 1);
	for (i = 0; i < self->npages; i += 5)
		ASSERT_EQ(1, all_moved(self->fd, ptr + i * PAGE, 1));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 4, self->npages));
	/* And back to system memory in the same way, from both ends */
	for (i = 0; i < self->npages; i += 7)
		EXPECT_EQ(0, wrong_from(ptr + i * PAGE, 4, i, 1));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
}

/*
 * Verifies that where an IOMMU makes scattered pages contiguous for the device, a copy
 * takes one command, in either direction; and that it takes more of them elsewhere.
 */
TEST_F(devmem, dma_joins_scattered_pages)
{
	const bool iommu = strstr(file_read("/proc/cmdline"), "intel_iommu=on");
	unsigned long i, there, back;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_map(self->npages, false);
	/* Backwards, every second one: neighbours are not contiguous */
	for (i = self->npages; i-- > 0;)
		if (i % 2)
			fill_from(ptr + i * PAGE, 9, i, 1);
	for (i = 0; i < self->npages; i += 2)
		fill_from(ptr + i * PAGE, 9, i, 1);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	there = SINCE(commands);
	ASSERT_EQ(0, device_evict_all(self->fd));
	back = SINCE(commands) - there;
	TH_LOG("%lu pages: %lu commands to the device, %lu to RAM", self->npages,
	       there, back);
	if (iommu) {
		/* Free pages of the device need not be contiguous */
		EXPECT_GE(self->npages / 32, there);
		EXPECT_GE(self->npages / 32, back);
	} else {
		EXPECT_LE(self->npages / 2, there);
	}
	EXPECT_EQ(0, wrong(ptr, 9, self->npages));
}

/* Verifies that only the run that cannot be mapped stays in RAM. */
TEST_F(devmem, dma_fails_to_device)
{
	char *ptr;
	long there;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 5);
	ASSERT_EQ(0, device_fail_next(self->fd, HMM_DEVMEM_TEST_NO_DMA));
	there = to_device(self->fd, ptr, self->npages);
	EXPECT_LT(0, there);
	EXPECT_GT(self->npages, there);
	EXPECT_EQ(there, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(there, device_used(self->ctl));
	EXPECT_EQ(self->npages - there, SINCE(copy_errors));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
}

/* Verifies that no page moves, and no data is lost, if no run can be mapped. */
TEST_F(devmem, dma_always_fails)
{
	char *data = area_map(self->npages, false);
	struct hmm_devmem_test_evict evict;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 6);
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	EXPECT_GE(0, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
	EXPECT_EQ(self->npages, SINCE(copy_errors));
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));

	fail_attrs_clear();
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	EXPECT_GE(0, to_ram(self->fd, ptr, self->npages));
	evict = device_evict_why(self->fd);
	EXPECT_EQ(self->npages, evict.left);
	EXPECT_EQ(self->npages, evict.not_copied);
	EXPECT_EQ(0, evict.busy);
	EXPECT_EQ(0, evict.no_memory);
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 6, self->npages));
	/* Suspend fails rather than wait until memory can be mapped */
	EXPECT_EQ(-EIO, device_suspend(self->ctl));

	fail_attrs_clear();
	EXPECT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));
}

/* Verifies that only the run that cannot be mapped stays on the device. */
TEST_F(devmem, dma_fails_to_ram)
{
	char *ptr;
	long back;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 7);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_fail_next(self->fd, HMM_DEVMEM_TEST_NO_DMA));
	back = to_ram(self->fd, ptr, self->npages);
	EXPECT_LT(0, back);
	EXPECT_GT(self->npages, back);
	EXPECT_EQ(self->npages - back, device_used(self->ctl));
	EXPECT_EQ(self->npages - back, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_fail_next(self->fd, HMM_DEVMEM_TEST_NO_DMA));
	back = device_evict_all(self->fd);
	EXPECT_LT(0, back);
	EXPECT_GT(self->npages, back);
	EXPECT_EQ(back, device_used(self->ctl));
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));
}

/*
 * Verifies that a CPU fault succeeds although memory cannot be mapped once, first a
 * fault that brings back one page, then one that brings back many or a large folio.
 */
TEST_F(devmem, dma_fails_in_fault)
{
	unsigned long i;
	char *ptr;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 8);
	for (i = 0; i < self->npages; i += 100) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_fail_next(self->fd, HMM_DEVMEM_TEST_NO_DMA));
		EXPECT_EQ(0, access_signal(ptr + i * PAGE, i & 4));
		EXPECT_EQ(0, wrong_from(ptr + i * PAGE, 8, i, 1));
	}
	EXPECT_LT(0, SINCE(copy_errors));

	/* Windows of sequential faults grow: let a mapping fail in any of them */
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_dma", 50, 200));
	EXPECT_EQ(0, wrong(ptr, 8, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
}

/* Verifies that a fault waits until memory can be mapped, and can be killed. */
TEST_F(devmem, dma_fails_in_fault_for_long)
{
	pid_t pids[2];
	char *ptr;
	int i;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 9);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	for (i = 0; i < 2; i++)
		pids[i] = child_start(!!wrong(ptr, 9, self->npages));
	/* Each process has tried more than once: a single try is one batch of pages */
	EXPECT_TRUE(soon(SINCE(faults) >= 20));
	for (i = 0; i < 2; i++)
		EXPECT_TRUE(child_lives(pids[i]));
	EXPECT_EQ(128 + SIGKILL, child_kill(pids[0]));
	fail_attrs_clear();
	EXPECT_EQ(0, child_status(pids[1]));
	EXPECT_EQ(0, wrong(ptr, 9, self->npages));
}

/*
 * Verifies that whatever fails, in whatever order, no DMA mapping is left and none
 * is undone twice (which DMA_API_DEBUG of a debug kernel would report).
 */
TEST_F(devmem, dma_fails_at_random)
{
	int round, seed = 20;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, seed);
	for (round = 0; round < 16; round++) {
		ASSERT_TRUE(fail_attr("fail_dma", 25, -1));
		/* All kinds of failures but that the device is gone */
		ASSERT_EQ(0, device_inject(self->fd,
					   round % HMM_DEVMEM_TEST_FAIL_GONE,
					   round % 3, 2));
		to_device(self->fd, ptr, self->npages);
		switch (round % 4) {
		case 0:
			device_evict_all(self->fd);
			break;
		case 1:
			to_ram(self->fd, ptr, self->npages);
			break;
		}
		device_inject(self->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
		ASSERT_EQ(0, wrong(ptr, seed, self->npages));
		fill(ptr, ++seed, self->npages);
	}
	fail_attrs_clear();
	EXPECT_LT(0, SINCE(copy_errors));
	EXPECT_LT(0, SINCE(to_device));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, seed, self->npages));
}

/* One of several processes on a device. Returns 0 if all is right. */
static int move_by_dma(int nr, unsigned long npages, bool thp, unsigned int seed)
{
	char *ptr = area_filled(npages, thp, seed);
	int fd = device_open(nr), n;

	for (n = 0; n < 4; n++) {
		if (to_device(fd, ptr, npages) < 0)
			return 1;
		if (n % 2)
			to_ram(fd, ptr, npages);
		if (wrong(ptr, seed, npages))
			return 2;
		fill(ptr, ++seed, npages);
	}
	return 0;
}

/*
 * Verifies that if all processes together want more bounce buffers, or IOVA, than
 * there is, pages stay where they are and no process gets wrong data.
 */
TEST_F(devmem, dma_by_many_processes)
{
	enum { NR = 4 };
	pid_t pids[NR];
	int i;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	for (i = 0; i < NR; i++)
		pids[i] = child_start(move_by_dma(variant->nr, self->npages,
						  variant->thp, 100 * i));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	EXPECT_LT(0, SINCE(to_device));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
}

/*
 * Verifies that pages that could not be mapped are reported as not copied, rather
 * than as short of memory, on all ways back to system memory, and that they move
 * when they can be mapped.
 */
TEST_F(devmem, dma_fails_is_blamed_on_copy)
{
	struct hmm_devmem_test_evict why;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	/* Holes can move to the device whatever its DMA mask is */
	ptr = area_map(self->npages, variant->thp);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	why = device_evict_why(self->fd);
	EXPECT_EQ(self->npages, why.left);
	EXPECT_EQ(self->npages, why.not_copied);
	EXPECT_EQ(0, why.no_memory);
	EXPECT_EQ(0, why.busy);
	EXPECT_EQ(-EIO, device_suspend(self->ctl));
	EXPECT_EQ(0, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	fail_attrs_clear();
	EXPECT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, device_resume(self->ctl));
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/* In most guests, the DMA masks reach all memory. */
static unsigned int mask_bits(void)
{
	return atoi(file_read(MASK_BITS));
}

/* Pages in system memory that the device does not reach. */
static long out_of_reach(const char *ptr, unsigned long npages)
{
	const unsigned int bits = mask_bits();
	unsigned long i;
	long count = 0;
	__u64 entry;

	for (i = 0; i < npages && bits < 64; i++) {
		entry = pagemap_entry(ptr + i * PAGE);
		if (entry & PAGEMAP_PRESENT)
			count += ((entry & (_BITULL(55) - 1)) * PAGE) >> bits != 0;
	}
	return count;
}

/* The NUMA node with the highest memory; some guests have only one node. */
static int last_node(void)
{
	char path[60];
	int node = 0;

	do {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", ++node);
	} while (!access(path, F_OK));
	return node - 1;
}

/* Check that pages move back to memory that the device reaches, in all ways. */
static void mask_to_ram(struct __test_metadata *_metadata, struct _test_data_devmem *self,
			const struct _fixture_variant_devmem *variant, int node)
{
	enum { TO_RAM, TOUCH, EVICT, SUSPEND, UNPLUG, NR };
	char *data = area_map(self->npages, false);
	char *ptr;
	int way;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	/* Holes, all of which can move to the device whatever its DMA mask is */
	ptr = area_map(self->npages, variant->thp);
	if (node >= 0)
		ASSERT_TRUE(area_bind(ptr, self->npages, node));
	for (way = 0; way < NR; way++) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		fill(data, 70 + way, self->npages);
		ASSERT_EQ(self->npages,
			  device_write(self->fd, ptr, data, self->npages));
		switch (way) {
		case TO_RAM:
			EXPECT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
			break;
		case EVICT:
			EXPECT_EQ(0, device_evict_all(self->fd));
			break;
		case SUSPEND:
			EXPECT_EQ(0, device_suspend(self->ctl));
			break;
		case UNPLUG:
			EXPECT_EQ(0, device_unplug(self->ctl));
			break;
		}
		EXPECT_EQ(0, wrong(ptr, 70 + way, self->npages));
		/* A CPU access does not move coherent pages */
		EXPECT_TRUE((variant->coherent && way == TOUCH) ||
			    !out_of_reach(ptr, self->npages));
		EXPECT_EQ(0, SINCE(copy_errors));
		EXPECT_GE(self->npages, SINCE(faults));
		device_resume(self->ctl);
	}
}

/* Verifies that pages move back to memory that the device reaches. */
TEST_F(devmem, dma_mask_to_ram)
{
	mask_to_ram(_metadata, self, variant, -1);
}

/* Verifies this for a mapping that is bound to a node without any such memory. */
TEST_F(devmem, dma_mask_bound)
{
	mask_to_ram(_metadata, self, variant, last_node());
}

/*
 * Verifies that pages which the device cannot read stay in RAM, and that no other
 * process's pages are evicted to make room for them.
 */
TEST_F(devmem, dma_mask_stay)
{
	char *ptr, *other;
	long out;

	/* Coherent devices have their own size, which is more than enough */
	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : self->npages * PAGE,
			     HMM_DEVMEM_TEST_DMA | HMM_DEVMEM_TEST_RECLAIM, 0));
	ptr = area_filled(self->npages, variant->thp, 80);
	out = out_of_reach(ptr, self->npages);
	/* The kernel takes the highest memory first */
	ASSERT_EQ(mask_bits() < 64 ? self->npages : 0, out);
	other = area_map(self->npages, variant->thp);
	ASSERT_EQ(self->npages, all_moved(self->fd, other, self->npages));
	EXPECT_EQ(self->npages - out, moved_soon(self->fd, ptr, self->npages, self->npages - out));
	EXPECT_EQ(self->npages - out, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(variant->coherent ? self->npages : out,
		  resident(self->fd, other, self->npages));
	EXPECT_EQ(0, SINCE(copy_errors));
	EXPECT_EQ(0, wrong(ptr, 80, self->npages));
	EXPECT_EQ(0, not_zero(other, self->npages));
}

/* Have so many CPU faults in a row not brought a page back? */
static bool faulted_in_vain(struct _test_data_devmem *self, long faults)
{
	const struct hmm_devmem_test_stats before = device_stats(self->ctl);
	struct hmm_devmem_test_stats now;

	do {
		sleep_ms(1);
		now = device_stats(self->ctl);
	} while (now.faults < before.faults + faults &&
		 now.fault_pages == before.fault_pages);
	return now.fault_pages == before.fault_pages;
}

/* How often a process has slept. */
static long sleeps_of(pid_t pid)
{
	const char *text;
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	text = strstr(file_read(path), "\nvoluntary_ctxt_switches:");
	return text ? atol(strchr(text, ':') + 1) : -1;
}

/*
 * Does a process sleep between two CPU faults in vain? A sleep can end before the CPU has
 * switched to another task, so not each one counts, and it may take more tries.
 */
static bool sleeps_between_faults(struct _test_data_devmem *self, pid_t pid)
{
	enum { FAULTS = 20, MOST_ROUNDS = 20 };
	long before;
	int round;

	for (round = 0; round < MOST_ROUNDS; round++) {
		before = sleeps_of(pid);
		if (!soon(faulted_in_vain(self, FAULTS)))
			return false;
		if (before >= 0 && sleeps_of(pid) >= before + FAULTS / 2)
			return true;
	}
	return false;
}

/*
 * Verifies that pages which do not fit into the memory that the device reaches are
 * reported as short of memory, that a process whose CPU fault waits for memory sleeps and
 * can be killed, and that the pages move back when there is memory again. Only where the
 * device reaches 16 MiB.
 */
TEST_F(devmem, dma_mask_short)
{
	const unsigned long npages = 16 * HUGE_PAGES, rest = npages / 4;
	char *data = area_filled(npages, false, 90);
	struct hmm_devmem_test_evict evict;
	char *ptr;
	pid_t pid;

	if (mask_bits() >= 32)
		return;
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_map(npages, variant->thp);
	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	ASSERT_EQ(npages, device_write(self->fd, ptr, data, npages));
	evict = device_evict_why(self->fd);
	EXPECT_LT(0, evict.left);
	EXPECT_GT(npages, evict.left);
	EXPECT_EQ(evict.left, evict.no_memory);
	EXPECT_EQ(-ENOMEM, device_suspend(self->ctl));
	if (!variant->coherent) {
		const int log = log_open();

		ASSERT_LE(0, log);
		pid = child_start(!!wrong(ptr, 90, npages));
		/* The process waits when CPU faults bring no page back any more */
		EXPECT_TRUE(soon(faulted_in_vain(self, 10)));
		EXPECT_TRUE(sleeps_between_faults(self, pid));
		EXPECT_TRUE(child_lives(pid));
		/* Core would only print that, and make the CPU fault again at once */
		EXPECT_FALSE(log_has(log, "VM_FAULT_OOM leaked", ""));
		close(log);
		EXPECT_EQ(128 + SIGKILL, child_kill(pid));
	}
	ASSERT_EQ(0, madvise(ptr + rest * PAGE, (npages - rest) * PAGE,
			     MADV_DONTNEED));
	EXPECT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, device_resume(self->ctl));
	EXPECT_EQ(0, SINCE(copy_errors));
	EXPECT_EQ(0, wrong(ptr, 90, rest));
	EXPECT_EQ(0, out_of_reach(ptr, rest));
}

/* Verifies that a device whose mask is too narrow to reach any memory is refused. */
TEST_F(devmem, dma_mask_too_narrow)
{
	EXPECT_EQ(mask_bits() < 24 ? -EIO : 0,
		  plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
}

TEST_HARNESS_MAIN
