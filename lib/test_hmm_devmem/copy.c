// SPDX-License-Identifier: GPL-2.0
/*
 * The managed devices: how the library's copies become commands of the copy engine.
 */

#include <linux/mm.h>
#include <linux/pm_runtime.h>

#include "hw.h"
#include "test_hmm_devmem.h"

/**
 * thd_copy_set_mode() - Tell the hardware how the device was plugged
 * @tdev: A device that is about to be plugged in.
 *
 * Context: Process context; &thd_device.plug_lock held for writing.
 */
void thd_copy_set_mode(struct thd_device *tdev)
{
	const u32 flags = tdev->plug.flags;
	const struct thd_hw_mode mode = {
		.dma_dev = flags & HMM_DEVMEM_TEST_DMA ?
			   tdev->dma_dev ?: &tdev->dev : NULL,
		.async = flags & HMM_DEVMEM_TEST_ASYNC,
		.sync = flags & HMM_DEVMEM_TEST_SYNC,
		.delay_us = tdev->plug.delay_us,
	};

	thd_hw_set_mode(tdev->hw, &mode);
}

/* The commands of a copy: one for each run. */
static void copy_commands(struct thd_hw *hw, void *data, int error)
{
	struct hmm_devmem_copy *copy = data;
	struct hmm_devmem_run *run = copy->runs;

	for (; run < copy->runs + copy->nr_runs; run++) {
		const struct thd_hw_cmd cmd = {
			.offset = run->offset,
			.ram = run->ram,
			.dma_addr = run->dma_addr,
			.nr_pages = run->nr_pages,
			.to_vram = copy->dir == HMM_DEVMEM_TO_DEVICE,
		};

		run->error = thd_hw_exec(hw, &cmd, error);
	}
}

static struct thd_hw_batch copy_batch(struct hmm_devmem_copy *copy)
{
	return (struct thd_hw_batch) {
		.commands = copy_commands,
		.data = copy,
		.to_vram = copy->dir == HMM_DEVMEM_TO_DEVICE,
		.job = copy->driver_private,
	};
}

/* Is the device on, and kept on by a reference of the library or of the PM core? */
static bool has_power(struct thd_device *tdev)
{
#ifdef CONFIG_PM
	const struct dev_pm_info *power = &tdev->dev.power;

	if (!(tdev->plug.flags & HMM_DEVMEM_TEST_RUNTIME_PM))
		return true;
	return pm_runtime_active(&tdev->dev) && atomic_read(&power->usage_count) > 0;
#else
	return true;
#endif
}

static int copy_start(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	struct thd_device *tdev = thd_from_devmem(devmem);
	struct thd_hw_batch batch = copy_batch(copy);
	int ret;

	if (!has_power(tdev))
		atomic_long_inc(&tdev->bad_power);
	ret = thd_hw_start(tdev->hw, &batch);
	copy->driver_private = batch.job;
	return ret;
}

static int copy_to_device(struct hmm_devmem *devmem,
			  struct hmm_devmem_copy *copy)
{
	struct thd_device *tdev = thd_from_devmem(devmem);
	const struct hmm_devmem_run *run = copy->runs;
	int ret;

	for (; run < copy->runs + copy->nr_runs; run++) {
		ret = thd_hw_populate(tdev->hw, run->offset,
				      (u64)run->nr_pages << PAGE_SHIFT);
		if (ret)
			return ret;
	}
	return copy_start(devmem, copy);
}

static int copy_wait(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	const struct thd_hw_batch batch = copy_batch(copy);

	return thd_hw_wait(thd_from_devmem(devmem)->hw, &batch);
}

static void count_kill(struct hmm_devmem *devmem)
{
	atomic_long_inc(&thd_from_devmem(devmem)->kills);
}

static void count_cleanup(struct hmm_devmem *devmem)
{
	atomic_long_inc(&thd_from_devmem(devmem)->cleanups);
}

const struct hmm_devmem_ops thd_copy_ops = {
	.kill = count_kill,
	.cleanup = count_cleanup,
	.copy_to_device = copy_to_device,
	.copy_to_ram = copy_start,
	.copy_wait = copy_wait,
	.map = thd_mirror_map,
};

/* Without copy_wait(), so never with a worker: the library would not wait for it. */
const struct hmm_devmem_ops thd_copy_sync_ops = {
	.kill = count_kill,
	.cleanup = count_cleanup,
	.copy_to_device = copy_to_device,
	.copy_to_ram = copy_start,
	.map = thd_mirror_map,
};
