// SPDX-License-Identifier: GPL-2.0
/*
 * A driver for emulated hardware, for tests of HMM device memory.
 */

/**
 * DOC: Test device
 *
 * Five devices, each a character device that only root may open:
 *
 * - /dev/hmm_devmem_test0 and 1: managed, MEMORY_DEVICE_PRIVATE.
 * - /dev/hmm_devmem_test2 and 3: managed, MEMORY_DEVICE_COHERENT; only if module
 *   parameters spm_addr0 and spm_addr1 say where there is memory for them.
 * - /dev/hmm_devmem_classic: classic, MEMORY_DEVICE_PRIVATE.
 *
 * The mode of the nodes (0600) is the only check of permissions: a process that is handed
 * an open file may call all ioctls, for the memory of the process that opened the file.
 *
 * lib/test_hmm_devmem_uapi.h describes the ioctls, and how they differ from those of
 * lib/test_hmm.c. With compat=1 the first four nodes have the names of that driver's, which
 * must not be loaded then: /dev/hmm_dmirror0 to 3, for tools/testing/selftests/mm/hmm-tests.
 *
 * This file is the driver: copies, adding and removing the memory, ioctls, devices. The ioctls
 * about the memory of a process are in test_hmm_devmem/access.c, except three: replay.c,
 * request.c and snapshot.c there have one each. mirror.c has the device's view of a process,
 * vram.c the memory manager, power.c suspend and resume. Modules of their own are the hardware
 * (hw.c: memory and copy engine, table.c: page tables), which this driver uses as one of real
 * hardware would, the classic driver (classic.c), and the benchmark (bench/).
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device/class.h>
#include <linux/dma-mapping.h>
#include <linux/err.h>
#include <linux/hmm_devmem_fail.h>
#include <linux/kdev_t.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/pci.h>
#include <linux/pm.h>
#include <linux/pm_runtime.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "test_hmm_devmem/classic.h"
#include "test_hmm_devmem/hw.h"
#include "test_hmm_devmem/test_hmm_devmem.h"
#include "test_hmm_devmem/vram.h"

#define THD_CLASSIC	4	/* number of the classic device; the managed ones are below */
#define THD_NR_DEVICES	(THD_CLASSIC + 1)

/* Short, so that tests need not wait long for a suspend. */
#define THD_AUTOSUSPEND_MS	20

static unsigned long size_mb = 512;
module_param(size_mb, ulong, 0444);
MODULE_PARM_DESC(size_mb, "Memory of each private device, MiB (default 512). System memory stands in for what of it has been used");

static unsigned long classic_mb = 64;
module_param(classic_mb, ulong, 0444);
MODULE_PARM_DESC(classic_mb, "Memory of the classic device, MiB (default 64)");

static unsigned long spm_addr0;
module_param(spm_addr0, ulong, 0444);
MODULE_PARM_DESC(spm_addr0, "Physical address of memory that the kernel does not use, for the first coherent device. Without it and spm_addr1 there are none");

static unsigned long spm_addr1;
module_param(spm_addr1, ulong, 0444);
MODULE_PARM_DESC(spm_addr1, "The same for the second coherent device");

static unsigned long spm_mb = 256;
module_param(spm_mb, ulong, 0444);
MODULE_PARM_DESC(spm_mb, "Memory at each of spm_addr0 and spm_addr1, MiB (default 256)");

static bool compat;
module_param(compat, bool, 0444);
MODULE_PARM_DESC(compat, "Use the names of lib/test_hmm.c, /dev/hmm_dmirror*, for the managed devices (default no)");

static bool lazy;
module_param(lazy, bool, 0444);
MODULE_PARM_DESC(lazy, "Create struct pages of the managed devices when they are needed (default no)");

static bool shared;
module_param(shared, bool, 0444);
MODULE_PARM_DESC(shared, "The library gets blocks of the managed devices from a memory manager (default no)");

static char *dma_device;
module_param(dma_device, charp, 0444);
MODULE_PARM_DESC(dma_device, "PCI function (0000:00:04.0) whose IOMMU the devices share when they are plugged with DMA. Without it they have none");

static unsigned int dma_mask_bits = 64;
module_param(dma_mask_bits, uint, 0444);
MODULE_PARM_DESC(dma_mask_bits, "Width of the devices' own DMA mask, bits, 1 to 64 (default 64)");

static dev_t thd_devt;
static struct thd_device *thd_devices[THD_NR_DEVICES];

/* The ioctl takes the steps of the library's fault injection by their own numbers. */
#define CHECK_STEP(name)	\
	static_assert(HMM_DEVMEM_TEST_NO_##name == BIT(HMM_DEVMEM_FAIL_##name))

CHECK_STEP(DEVICE);
CHECK_STEP(DEVICE_LARGE);
CHECK_STEP(RAM);
CHECK_STEP(RAM_LARGE);
CHECK_STEP(DMA);
CHECK_STEP(BLOCKS);
static_assert(BIT(HMM_DEVMEM_NR_FAIL) - 1 == HMM_DEVMEM_TEST_FAIL_STEPS);

/*
 * Copies.
 */

/* Does an engine behind an IOMMU find the page that the library means? */
static void check_run(struct thd_hw *hw, const struct thd_hw_cmd *cmd,
		      const struct hmm_devmem_run *run)
{
	const unsigned int last = run->nr_pages - 1;
	struct page *page = hmm_devmem_run_page(run, last);

	WARN_ON_ONCE(page && page != run->ram + last &&
		     page != thd_hw_ram_page(hw, cmd, last));
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

		check_run(hw, &cmd, run);
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
	if (tdev->plug.flags & HMM_DEVMEM_TEST_RUNTIME_PM)
		return pm_runtime_active(&tdev->dev) &&
		       atomic_read(&tdev->dev.power.usage_count) > 0;
#endif
	return true;
}

static int copy_start(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	struct thd_device *tdev = thd_from_devmem(devmem);
	struct thd_hw_batch batch = copy_batch(copy);
	int ret;

	thd_request_note(copy);
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

	thd_request_note(copy);
	return thd_hw_wait(thd_from_devmem(devmem)->hw, &batch);
}

static void count_kill(struct hmm_devmem *devmem)
{
	atomic_long_inc(&thd_from_devmem(devmem)->kills);
}

static void count_cleanup(struct hmm_devmem *devmem)
{
	thd_vram_removed(thd_from_devmem(devmem)->vram);
	atomic_long_inc(&thd_from_devmem(devmem)->cleanups);
}

static unsigned int get_blocks(struct hmm_devmem *devmem, u64 *offsets,
			       unsigned int nr, bool may_evict)
{
	return thd_vram_get_blocks(thd_from_devmem(devmem)->vram, offsets, nr, may_evict);
}

static void put_block(struct hmm_devmem *devmem, u64 offset)
{
	thd_vram_put_block(thd_from_devmem(devmem)->vram, offset);
}

static const struct hmm_devmem_ops thd_ops = {
	.kill = count_kill,
	.cleanup = count_cleanup,
	.copy_to_device = copy_to_device,
	.copy_to_ram = copy_start,
	.copy_wait = copy_wait,
	.get_blocks = get_blocks,
	.put_block = put_block,
};

/* Without copy_wait(), so the copy callbacks must copy and not leave that to a worker. */
static const struct hmm_devmem_ops thd_sync_ops = {
	.kill = count_kill,
	.cleanup = count_cleanup,
	.copy_to_device = copy_to_device,
	.copy_to_ram = copy_start,
	.get_blocks = get_blocks,
	.put_block = put_block,
};

/*
 * Plugging and unplugging.
 */

/* The parameter is for tests of all kinds, also with devices that cannot be shared. */
static bool is_shared(const struct thd_device *tdev)
{
	const u64 size = tdev->plug.size ?: tdev->size;

	return tdev->plug.flags & HMM_DEVMEM_TEST_SHARED ||
	       (shared && !tdev->classic && IS_ALIGNED(size, PMD_SIZE));
}

static unsigned long desc_flags(const struct thd_device *tdev)
{
	const u32 flags = tdev->plug.flags;

	return (lazy || flags & HMM_DEVMEM_TEST_LAZY ? HMM_DEVMEM_LAZY : 0) |
	       (is_shared(tdev) ? HMM_DEVMEM_SHARED : 0) |
	       (flags & HMM_DEVMEM_TEST_DMA ? HMM_DEVMEM_DMA : 0) |
	       (flags & HMM_DEVMEM_TEST_RECLAIM ? HMM_DEVMEM_RECLAIM : 0) |
	       (flags & HMM_DEVMEM_TEST_RUNTIME_PM ? HMM_DEVMEM_RUNTIME_PM : 0);
}

/* Offsets in bytes. All are in the first segment, whether the device is lazy or not. */
static const u64 thd_bad_pages[] = { 0, SZ_2M };

/* Add the memory without a descriptor if the plug has no properties of its own. */
static struct hmm_devmem *thd_add(struct thd_device *tdev)
{
	const bool coherent = tdev->type == MEMORY_DEVICE_COHERENT;
	const u64 size = tdev->plug.size ?: tdev->size;
	const u32 flags = tdev->plug.flags;
	const struct hmm_devmem_desc desc = {
		.ops = flags & HMM_DEVMEM_TEST_SYNC ? &thd_sync_ops : &thd_ops,
		.size = size,
		.res = coherent ? &tdev->res : NULL,
		.type = tdev->type,
		.flags = desc_flags(tdev),
		.nid = NUMA_NO_NODE,
		.owner = flags & HMM_DEVMEM_TEST_COMMON ? thd_devices : NULL,
		.dma_device = tdev->dma_dev,
		.bad_pages = thd_bad_pages,
		.nr_bad_pages = !(flags & HMM_DEVMEM_TEST_BAD) ? 0 :
				size > thd_bad_pages[1] ? 2 : 1,
		.reserve = tdev->plug.reserve,
	};

	if (tdev->classic)
		return thd_classic_add(tdev->classic, &tdev->dev);
	if (lazy || desc.flags || flags || tdev->plug.size)
		return hmm_devmem_add_desc(&tdev->dev, &desc);
	if (coherent)
		return hmm_devmem_add_resource(&thd_ops, &tdev->dev,
					       &tdev->res);
	return hmm_devmem_add(&thd_ops, &tdev->dev, tdev->size);
}

static void power_enable(struct thd_device *tdev)
{
	if (!(tdev->plug.flags & HMM_DEVMEM_TEST_RUNTIME_PM))
		return;
	pm_runtime_set_active(&tdev->dev);
	pm_runtime_set_autosuspend_delay(&tdev->dev, THD_AUTOSUSPEND_MS);
	pm_runtime_use_autosuspend(&tdev->dev);
	pm_runtime_enable(&tdev->dev);
}

static void power_disable(struct thd_device *tdev)
{
	if (!(tdev->plug.flags & HMM_DEVMEM_TEST_RUNTIME_PM))
		return;
	pm_runtime_dont_use_autosuspend(&tdev->dev);
	pm_runtime_disable(&tdev->dev);
}

static int plug_locked(struct thd_device *tdev, const struct hmm_devmem_test_plug *plug)
{
	struct hmm_devmem *devmem;

	lockdep_assert_held_write(&tdev->plug_lock);

	tdev->plug = *plug;
	thd_hw_set_mode(tdev->hw, &(struct thd_hw_mode) {
		.dma_dev = plug->flags & HMM_DEVMEM_TEST_DMA ?
			   tdev->dma_dev ?: &tdev->dev : NULL,
		.async = plug->flags & HMM_DEVMEM_TEST_ASYNC,
		.sync = plug->flags & HMM_DEVMEM_TEST_SYNC,
		.delay_us = plug->delay_us,
	});
	if (tdev->vram && thd_vram_plug(tdev->vram, plug->size ?: tdev->size, is_shared(tdev)))
		return -ENOMEM;
	power_enable(tdev);
	devmem = thd_add(tdev);
	if (IS_ERR(devmem)) {
		power_disable(tdev);
		return PTR_ERR(devmem);
	}
	thd_hw_set_window(tdev->hw, devmem->pfn_first, devmem->pfn_last - devmem->pfn_first);
	WRITE_ONCE(tdev->owner, devmem->owner);
	WRITE_ONCE(tdev->devmem, devmem);
	tdev->auto_plug = false;
	return 0;
}

static const struct hmm_devmem_test_plug thd_plug_default;

static int thd_plug_as(struct thd_device *tdev, const struct hmm_devmem_test_plug *plug)
{
	ACQUIRE(rwsem_write_kill, lock)(&tdev->plug_lock);
	if (ACQUIRE_ERR(rwsem_write_kill, &lock))
		return -EINTR;
	return tdev->devmem ? -EEXIST : plug_locked(tdev, plug);
}

static int thd_plug_again(struct thd_device *tdev)
{
	ACQUIRE(rwsem_write_kill, lock)(&tdev->plug_lock);
	if (ACQUIRE_ERR(rwsem_write_kill, &lock))
		return -EINTR;
	return tdev->auto_plug ? plug_locked(tdev, &thd_plug_default) : 0;
}

/* Before removal: accesses compare pages' devmems with this pointer, so it must be valid. */
static struct hmm_devmem *forget_devmem(struct thd_device *tdev)
{
	struct hmm_devmem *devmem = tdev->devmem;

	WRITE_ONCE(tdev->devmem, NULL);
	WRITE_ONCE(tdev->owner, NULL);
	thd_hw_set_window(tdev->hw, 0, 0);
	return devmem;
}

/* With @auto_plug, the next use of the device memory adds it again. */
static int thd_unplug(struct thd_device *tdev, bool auto_plug)
{
	ACQUIRE(rwsem_write_kill, lock)(&tdev->plug_lock);
	if (ACQUIRE_ERR(rwsem_write_kill, &lock))
		return -EINTR;
	if (!tdev->devmem && (auto_plug || !tdev->auto_plug))
		return -ENODEV;
	if (tdev->devmem) {
		hmm_devmem_remove(forget_devmem(tdev));
		power_disable(tdev);
	}
	tdev->auto_plug = auto_plug;
	return 0;
}

/**
 * thd_enter() - Start to use the device memory of a device
 * @tdev: The device.
 *
 * Context: Process context, may sleep. The caller holds no other lock of this driver
 * and no mmap lock.
 * Return: The device memory, which stays until thd_leave(), or an ERR_PTR().
 */
struct hmm_devmem *thd_enter(struct thd_device *tdev)
{
	int ret;

	for (;;) {
		if (down_read_killable(&tdev->plug_lock))
			return ERR_PTR(-EINTR);
		if (tdev->devmem)
			return tdev->devmem;
		ret = tdev->auto_plug ? 0 : -ENODEV;
		up_read(&tdev->plug_lock);
		if (!ret)
			ret = thd_plug_again(tdev);
		if (ret)
			return ERR_PTR(ret);
	}
}

/*
 * Ioctls.
 */

static void get_devmem_stats(struct thd_device *tdev,
			     struct hmm_devmem_test_stats *stats)
{
	struct hmm_devmem *devmem = tdev->devmem;
	struct hmm_devmem_stats s;

	lockdep_assert_held(&tdev->plug_lock);

	hmm_devmem_get_stats(devmem, &s);
	*stats = (struct hmm_devmem_test_stats) {
		.size = devmem->pfn_last - devmem->pfn_first,
		.allocated = s.allocated,
		.freed = s.freed,
		.to_device = s.to_device,
		.to_ram = s.to_ram,
		.faults = s.faults,
		.fault_pages = s.fault_pages,
		.evicted = s.evicted,
		.copy_errors = s.copy_errors,
		.plugged = 1,
		.lost = s.lost,
		.device_faults = s.device_faults,
		.device_fault_pages = s.device_fault_pages,
		.device_fault_used = s.device_fault_used,
		.pfn_first = devmem->pfn_first,
	};
}

static int ioctl_stats(struct thd_device *tdev, void __user *arg)
{
	struct hmm_devmem_test_stats stats = { };
	struct thd_hw_stats hw;

	if (down_read_killable(&tdev->plug_lock))
		return -EINTR;
	if (tdev->devmem)
		get_devmem_stats(tdev, &stats);
	up_read(&tdev->plug_lock);

	stats.contexts = atomic_long_read(&tdev->contexts);
	stats.kills = atomic_long_read(&tdev->kills);
	stats.cleanups = atomic_long_read(&tdev->cleanups);
	if (tdev->classic)
		thd_classic_get_stats(tdev->classic, &stats);
	thd_hw_get_stats(tdev->hw, &hw);
	stats.in_flight = hw.max_in_flight;
	stats.copying = hw.in_flight;
	stats.copies = hw.copies;
	stats.commands = hw.commands;
	stats.bad_power = atomic_long_read(&tdev->bad_power);
	stats.resumes = atomic_long_read(&tdev->resumes);
	stats.mm_locks = atomic_long_read(&tdev->mm_locks);
	return copy_to_user(arg, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static bool range_is_on_device(const struct hmm_devmem *devmem, u64 first,
			       u64 npages)
{
	const u64 size = devmem->pfn_last - devmem->pfn_first;

	return npages && first < size && npages <= size - first;
}

static int evict_range(struct hmm_devmem *devmem,
		       struct hmm_devmem_test_evict *evict)
{
	struct hmm_devmem_left left;
	long ret;

	if (!range_is_on_device(devmem, evict->first, evict->npages))
		return -EINVAL;
	ret = hmm_devmem_evict(devmem, devmem->pfn_first + evict->first,
			       evict->npages, &left);
	if (ret < 0)
		return ret;
	evict->left = ret;
	evict->busy = left.busy;
	evict->no_memory = left.no_memory;
	evict->not_copied = left.not_copied;
	return 0;
}

static int lose_range(struct hmm_devmem *devmem,
		      const struct hmm_devmem_test_range *range)
{
	if (!range_is_on_device(devmem, range->first, range->npages))
		return -EINVAL;
	hmm_devmem_poison(devmem, devmem->pfn_first + range->first,
			  range->npages);
	return 0;
}

/* The argument of an ioctl of ioctl_devmem(). */
union thd_arg {
	struct hmm_devmem_test_inject inject;
	struct hmm_devmem_test_evict evict;
	struct hmm_devmem_test_range range;
};

static int use_devmem(struct hmm_devmem *devmem, unsigned int nr,
		      union thd_arg *arg)
{
	switch (nr) {
	case HMM_DEVMEM_TEST_EVICT:
		return evict_range(devmem, &arg->evict);
	case HMM_DEVMEM_TEST_LOSE:
		return lose_range(devmem, &arg->range);
	case HMM_DEVMEM_TEST_SUSPEND:
		return hmm_devmem_suspend(devmem);
	case HMM_DEVMEM_TEST_RESUME:
		hmm_devmem_resume(devmem);
		return 0;
	default:
		hmm_devmem_mark_dead(devmem);
		return 0;
	}
}

/* The classic device has only those of these ioctls that take no argument. */
static int ioctl_devmem(struct thd_device *tdev, unsigned int nr,
			void __user *uarg)
{
	const size_t size = _IOC_SIZE(nr);
	struct hmm_devmem *devmem;
	union thd_arg arg;
	int ret;

	if (tdev->classic && size)
		return -EOPNOTSUPP;
	if (size && copy_from_user(&arg, uarg, size))
		return -EFAULT;
	if (nr == HMM_DEVMEM_TEST_INJECT)
		return thd_hw_inject(tdev->hw, &arg.inject);
	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	ret = use_devmem(devmem, nr, &arg);
	thd_leave(tdev);
	if (ret || !(_IOC_DIR(nr) & _IOC_READ))
		return ret;
	return copy_to_user(uarg, &arg, size) ? -EFAULT : 0;
}

static int fail_next(struct thd_device *tdev, u32 steps)
{
	struct hmm_devmem *devmem;

	if (steps & ~HMM_DEVMEM_TEST_FAIL_STEPS)
		return -EINVAL;
	if (tdev->classic)
		return -EOPNOTSUPP;
	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	hmm_devmem_fail_next(devmem, steps);
	thd_leave(tdev);
	return 0;
}

static int ioctl_flags(struct thd_device *tdev,
		       struct hmm_devmem_test_cmd __user *cmd)
{
	u64 flags;

	if (get_user(flags, &cmd->npages) || put_user(0, &cmd->cpages) ||
	    put_user(0, &cmd->faults))
		return -EFAULT;
	if (flags & ~HMM_DEVMEM_TEST_FLAG_FAIL_ALLOC)
		return -EINVAL;
	return fail_next(tdev, flags ? HMM_DEVMEM_TEST_NO_DEVICE_LARGE |
				       HMM_DEVMEM_TEST_NO_RAM_LARGE : 0);
}

static int ioctl_release(struct thd_device *tdev,
			 struct hmm_devmem_test_cmd __user *cmd)
{
	int ret;

	if (put_user(0, &cmd->cpages) || put_user(0, &cmd->faults))
		return -EFAULT;
	ret = thd_unplug(tdev, true);
	return ret == -ENODEV ? 0 : ret;
}

static int ioctl_plug_as(struct thd_device *tdev, void __user *arg)
{
	struct hmm_devmem_test_plug plug;
	u32 flags;

	if (copy_from_user(&plug, arg, sizeof(plug)))
		return -EFAULT;
	flags = plug.flags;
	if (flags & ~HMM_DEVMEM_TEST_PLUG_FLAGS || plug.size > tdev->size ||
	    !PAGE_ALIGNED(plug.size) || plug.delay_us > USEC_PER_SEC ||
	    (flags & HMM_DEVMEM_TEST_SYNC && flags & HMM_DEVMEM_TEST_ASYNC) ||
	    (tdev->type == MEMORY_DEVICE_COHERENT && plug.size) ||
	    (plug.reserve && !(flags & HMM_DEVMEM_TEST_SHARED)))
		return -EINVAL;
	if (tdev->classic && (flags || plug.size))
		return -EOPNOTSUPP;
	return thd_plug_as(tdev, &plug);
}

static long thd_ioctl(struct file *file, unsigned int nr, unsigned long arg)
{
	struct thd_mirror *mirror = file->private_data;
	void __user *uarg = (void __user *)arg;
	u32 steps;

	switch (nr) {
	case HMM_DEVMEM_TEST_STATS:
		return ioctl_stats(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_UNPLUG:
		return thd_unplug(mirror->tdev, false);
	case HMM_DEVMEM_TEST_PLUG:
		return thd_plug_as(mirror->tdev, &thd_plug_default);
	case HMM_DEVMEM_TEST_PLUG_AS:
		return ioctl_plug_as(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_RELEASE:
		return ioctl_release(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_FLAGS:
		return ioctl_flags(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_FAIL_NEXT:
		return get_user(steps, (u32 __user *)uarg) ? -EFAULT :
		       fail_next(mirror->tdev, steps);
	case HMM_DEVMEM_TEST_INJECT:
	case HMM_DEVMEM_TEST_EVICT:
	case HMM_DEVMEM_TEST_LOSE:
	case HMM_DEVMEM_TEST_SUSPEND:
	case HMM_DEVMEM_TEST_RESUME:
	case HMM_DEVMEM_TEST_MARK_DEAD:
		return ioctl_devmem(mirror->tdev, nr, uarg);
	case HMM_DEVMEM_TEST_MIGRATE:
		return thd_request_ioctl(mirror, uarg);
	case HMM_DEVMEM_TEST_LOCK_MM:
		return thd_file_lock_mm(mirror, arg);
	case HMM_DEVMEM_TEST_BUFFER_ALLOC:
	case HMM_DEVMEM_TEST_BUFFER_TOUCH:
	case HMM_DEVMEM_TEST_BUFFER_FREE:
	case HMM_DEVMEM_TEST_OWNERS:
	case HMM_DEVMEM_TEST_SHRINK:
	case HMM_DEVMEM_TEST_WITHDRAW:
		return thd_vram_ioctl(mirror, nr, uarg);
	default:
		return thd_file_access(mirror, nr, uarg);
	}
}

static const struct file_operations thd_fops = {
	.owner = THIS_MODULE,
	.open = thd_file_open,
	.release = thd_file_close,
	.mmap = thd_file_mmap,
	.unlocked_ioctl = thd_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/*
 * Devices.
 */

static const struct class thd_class = {
	.name = "hmm_devmem_test",
	.pm = pm_ptr(&thd_pm_ops),
};

static void thd_release(struct device *dev)
{
	struct thd_device *tdev = container_of(dev, struct thd_device, dev);

	thd_classic_destroy(tdev->classic);
	thd_vram_destroy(tdev->vram);
	thd_hw_destroy(tdev->hw);
	put_device(tdev->dma_dev);
	kfree(tdev);
}

/* The caller gives it back with put_device(), also when a later step fails. */
static struct thd_device *thd_alloc(enum memory_type type, unsigned int id)
{
	struct thd_device *tdev;

	tdev = kzalloc_obj(*tdev);
	if (!tdev)
		return NULL;
	tdev->type = type;
	init_rwsem(&tdev->plug_lock);
	cdev_init(&tdev->cdev, &thd_fops);
	tdev->cdev.owner = THIS_MODULE;
	device_initialize(&tdev->dev);
	tdev->dev.class = &thd_class;
	tdev->dev.release = thd_release;
	tdev->dev.coherent_dma_mask = DMA_BIT_MASK(dma_mask_bits);
	tdev->dev.dma_mask = &tdev->dev.coherent_dma_mask;
	tdev->dev.devt = MKDEV(MAJOR(thd_devt), MINOR(thd_devt) + id);
	return tdev;
}

static int thd_set_name(struct thd_device *tdev, unsigned int id)
{
	if (id == THD_CLASSIC)
		return dev_set_name(&tdev->dev, "hmm_devmem_classic");
	return dev_set_name(&tdev->dev, "%s%u",
			    compat ? "hmm_dmirror" : "hmm_devmem_test", id);
}

static int thd_set_size(struct thd_device *tdev, unsigned long size_mib,
			unsigned long addr)
{
	if (check_mul_overflow(size_mib, (unsigned long)SZ_1M, &tdev->size))
		return -EOVERFLOW;
	if (!tdev->size)
		return -EINVAL;
	if (addr > ULONG_MAX - tdev->size)
		return -EOVERFLOW;
	tdev->res = DEFINE_RES_MEM_NAMED(addr, tdev->size, dev_name(&tdev->dev));
	return 0;
}

static int thd_find_dma_device(struct thd_device *tdev)
{
#ifdef CONFIG_PCI
	if (dma_device)
		tdev->dma_dev = bus_find_device_by_name(&pci_bus_type, NULL,
							dma_device);
	if (tdev->dma_dev)
		dma_set_max_seg_size(tdev->dma_dev, PMD_SIZE); /* all of a copy */
#endif
	return dma_device && !tdev->dma_dev ? -ENODEV : 0;
}

static int thd_setup(struct thd_device *tdev, unsigned int id,
		     unsigned long size_mib, unsigned long addr)
{
	int ret;

	ret = thd_set_name(tdev, id);
	if (!ret)
		ret = thd_find_dma_device(tdev);
	if (!ret)
		ret = thd_set_size(tdev, size_mib, addr);
	if (!ret)
		tdev->hw = thd_hw_create(tdev->size, tdev->res.start);
	if (!ret && !tdev->hw)
		ret = -ENOMEM;
	if (!ret && id == THD_CLASSIC) {
		tdev->classic = thd_classic_create(tdev->hw, tdev->size);
		ret = tdev->classic ? 0 : -ENOMEM;
	} else if (!ret) {
		tdev->vram = thd_vram_create(tdev->hw, tdev->size);
		ret = tdev->vram ? 0 : -ENOMEM;
	}
	if (!ret)
		ret = thd_plug_as(tdev, &thd_plug_default);
	return ret;
}

static int __init thd_create(unsigned int id, unsigned long size_mib,
			     unsigned long addr)
{
	struct thd_device *tdev;
	int ret;

	tdev = thd_alloc(addr ? MEMORY_DEVICE_COHERENT : MEMORY_DEVICE_PRIVATE,
			 id);
	if (!tdev)
		return -ENOMEM;
	ret = thd_setup(tdev, id, size_mib, addr);
	if (ret) {
		pr_err("no device %u of %lu MiB: %pe\n", id, size_mib,
		       ERR_PTR(ret));
		put_device(&tdev->dev);
		return ret;
	}
	thd_devices[id] = tdev;
	return 0;
}

static int __init thd_create_all(void)
{
	int ret;

	ret = thd_create(0, size_mb, 0);
	if (!ret)
		ret = thd_create(1, size_mb, 0);
	if (!ret && spm_addr0 && spm_addr1)
		ret = thd_create(2, spm_mb, spm_addr0);
	if (!ret && spm_addr0 && spm_addr1)
		ret = thd_create(3, spm_mb, spm_addr1);
	if (!ret)
		ret = thd_create(THD_CLASSIC, classic_mb, 0);
	return ret;
}

/* Called last, because nothing can be undone while a process has a node open. */
static int __init thd_register_all(void)
{
	unsigned int id;
	int ret = 0;

	for (id = 0; !ret && id < THD_NR_DEVICES; id++)
		if (thd_devices[id])
			ret = cdev_device_add(&thd_devices[id]->cdev,
					      &thd_devices[id]->dev);
	return ret;
}

/*
 * No file is open. Pages of processes can still be on the device; bring them back
 * before the device is deleted, which would remove its memory, too.
 */
static void thd_destroy(struct thd_device *tdev)
{
	if (tdev->devmem) {
		hmm_devmem_remove(forget_devmem(tdev));
		power_disable(tdev);
	}
	if (device_is_registered(&tdev->dev))
		cdev_device_del(&tdev->cdev, &tdev->dev);
	put_device(&tdev->dev);
}

static void thd_destroy_all(void)
{
	unsigned int id;

	for (id = 0; id < THD_NR_DEVICES; id++)
		if (thd_devices[id])
			thd_destroy(thd_devices[id]);
}

static int __init thd_init(void)
{
	int ret;

	if (!dma_mask_bits || dma_mask_bits > 64)
		return -EINVAL;
	ret = alloc_chrdev_region(&thd_devt, 0, THD_NR_DEVICES, "hmm_devmem_test");
	if (ret)
		return ret;
	ret = class_register(&thd_class);
	if (ret)
		goto err_region;
	ret = thd_create_all();
	if (!ret)
		ret = thd_register_all();
	if (ret)
		goto err_devices;
	return 0;

err_devices:
	thd_destroy_all();
	class_unregister(&thd_class);
err_region:
	unregister_chrdev_region(thd_devt, THD_NR_DEVICES);
	return ret;
}
module_init(thd_init);

static void __exit thd_exit(void)
{
	thd_destroy_all();
	class_unregister(&thd_class);
	unregister_chrdev_region(thd_devt, THD_NR_DEVICES);
}
module_exit(thd_exit);

MODULE_DESCRIPTION("Software device on HMM device memory, for testing");
MODULE_IMPORT_NS("TEST_HMM_DEVMEM");
MODULE_LICENSE("GPL");
