// SPDX-License-Identifier: GPL-2.0
/*
 * A device that finds system memory by its DMA address only, and steps of a
 * migration that fail by chance. tools/hmm_devmem/selftests --dma runs this with
 * bounce buffers and with an IOMMU.
 */
#include "hmm_devmem_fixture.h"

#define SWIOTLB_PEAK	"/sys/kernel/debug/swiotlb/io_tlb_used_hiwater"
#define IOMMU_TYPE	"/sys/bus/pci/devices/0000:00:10.0/iommu_group/type"

/* Verifies that this guest is one where data takes the way it was booted for. */
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

/* Verifies that data goes to the device and home again, by all ways. */
TEST_F(devmem, dma)
{
	char *data = area_map(self->npages, false);
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 1);
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 1, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));

	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));

	fill(ptr, 2, self->npages);
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(self->npages, SINCE(evicted));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));

	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(0, wrong(ptr, 2, self->npages));
}

/* Verifies that memory never touched is zeros: there is nothing to map. */
TEST_F(devmem, dma_of_nothing)
{
	char *data = area_filled(self->npages, false, 3);
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_map(self->npages, variant->thp);
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, not_zero(data, self->npages));
	EXPECT_EQ(0, SINCE(copy_errors));
	fail_attrs_clear();
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/*
 * Verifies that single pages all over the place, each a run of its own, and
 * pages that are not to move in between do not get mixed up.
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
		ASSERT_EQ(1, to_device(self->fd, ptr + i * PAGE, 1));
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, device_read(self->fd, ptr, data, self->npages));
	EXPECT_EQ(0, wrong(data, 4, self->npages));
	/* And home again in the same way, from both ends */
	for (i = 0; i < self->npages; i += 7)
		EXPECT_EQ(0, wrong_from(ptr + i * PAGE, 4, i, 1));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
}

/* Verifies that a run that cannot be mapped stays in RAM, and no other does. */
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

	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 5, self->npages));
}

/* Verifies that nothing moves, and nothing is lost, if no run can be mapped. */
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
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
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
	/* Not for long: a device can be plugged in that can do it */
	EXPECT_EQ(-EIO, device_suspend(self->ctl));

	fail_attrs_clear();
	EXPECT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 6, self->npages));
}

/* Verifies that a run that cannot be mapped stays on the device. */
TEST_F(devmem, dma_fails_to_ram)
{
	char *ptr;
	long back;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 7);
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_fail_next(self->fd, HMM_DEVMEM_TEST_NO_DMA));
	back = to_ram(self->fd, ptr, self->npages);
	EXPECT_LT(0, back);
	EXPECT_GT(self->npages, back);
	EXPECT_EQ(self->npages - back, device_used(self->ctl));
	EXPECT_EQ(self->npages - back, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));

	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_fail_next(self->fd, HMM_DEVMEM_TEST_NO_DMA));
	back = device_evict_all(self->fd);
	EXPECT_LT(0, back);
	EXPECT_GT(self->npages, back);
	EXPECT_EQ(back, device_used(self->ctl));
	EXPECT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, 7, self->npages));
}

/*
 * Verifies that a CPU fault gets over it if memory cannot be mapped once, first
 * where it wants one page, then where it wants many or a large folio.
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
		ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_fail_next(self->fd, HMM_DEVMEM_TEST_NO_DMA));
		EXPECT_EQ(0, access_signal(ptr + i * PAGE, i & 4));
		EXPECT_EQ(0, wrong_from(ptr + i * PAGE, 8, i, 1));
	}
	EXPECT_LT(0, SINCE(copy_errors));

	/* In a sequence windows grow: any of them can fail */
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_dma", 50, 200));
	EXPECT_EQ(0, wrong(ptr, 8, self->npages));
	EXPECT_EQ(0, device_used(self->ctl));
}

/* Verifies that a fault waits until it can be mapped, and can be killed. */
TEST_F(devmem, dma_fails_in_fault_for_long)
{
	pid_t pids[2];
	char *ptr;
	int i;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, 9);
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_TRUE(fail_attr("fail_dma", 100, -1));
	for (i = 0; i < 2; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i])
			_exit(!!wrong(ptr, 9, self->npages));
	}
	sleep_ms(200);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, waitpid(pids[i], NULL, WNOHANG));
	kill(pids[0], SIGKILL);
	EXPECT_EQ(128 + SIGKILL, child_status(pids[0]));
	fail_attrs_clear();
	EXPECT_EQ(0, child_status(pids[1]));
	EXPECT_EQ(0, wrong(ptr, 9, self->npages));
}

/*
 * Verifies that whatever fails, in whatever order, no mapping is left and none is
 * undone twice (which DMA_API_DEBUG of a debug kernel would tell).
 */
TEST_F(devmem, dma_fails_at_random)
{
	int round, seed = 20;
	char *ptr;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	ptr = area_filled(self->npages, variant->thp, seed);
	for (round = 0; round < 16; round++) {
		ASSERT_TRUE(fail_attr("fail_dma", 25, -1));
		/* All but a device that is gone */
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
	ASSERT_EQ(self->npages, to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_evict_all(self->fd));
	EXPECT_EQ(0, wrong(ptr, seed, self->npages));
}

/*
 * Verifies that where all processes together want more bounce buffers, or IOVA,
 * than there is, pages stay where they are and nobody gets wrong data.
 */
TEST_F(devmem, dma_by_many_processes)
{
	enum { NR = 4, ROUNDS = 4 };
	pid_t pids[NR];
	int i, n, fd;
	char *ptr;
	long ret;

	ASSERT_EQ(0, plug_as(self, 0, HMM_DEVMEM_TEST_DMA, 0));
	for (i = 0; i < NR; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (pids[i])
			continue;
		fd = device_open(variant->nr);
		ptr = area_filled(self->npages, variant->thp, 60 + i);
		for (n = 0; n < ROUNDS; n++) {
			ret = to_device(fd, ptr, self->npages);
			if (ret < 0)
				_exit(1);
			if (n % 2)
				to_ram(fd, ptr, self->npages);
			if (wrong(ptr, 60 + i + n * NR, self->npages))
				_exit(2);
			fill(ptr, 60 + i + (n + 1) * NR, self->npages);
		}
		_exit(0);
	}
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, child_status(pids[i]));
	EXPECT_LT(0, SINCE(to_device));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
}

TEST_HARNESS_MAIN
