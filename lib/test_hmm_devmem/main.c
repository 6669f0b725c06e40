// SPDX-License-Identifier: GPL-2.0
/*
 * A device without hardware, for tests of HMM device memory.
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
 * Mode 0600 is all there is of permissions: a process that is handed an open file
 * may call everything, always for the memory of the process that opened the file.
 *
 * The ioctls are those of lib/test_hmm.c and some more; what they do and which
 * structures they take is in lib/test_hmm_devmem_uapi.h. With compat=1 the first
 * four are /dev/hmm_dmirror0 to 3, and tools/testing/selftests/mm/hmm-tests takes
 * them for that driver's, which must not be loaded then. What is different:
 *
 * - Data on the device stays there when a file is closed.
 * - A read or write that fails in the middle has done what it reached before.
 * - TO_DEVICE reads back only what really is on the device: -ENOENT if a page is
 *   not. TO_DEVICE and TO_RAM refuse a range that is not all mapped and readable
 *   with -EINVAL before they move anything; TO_DEVICE_ONLY one that is not mapped
 *   at all.
 * - An ioctl that does not exist is -ENOTTY.
 * - RELEASE removes the device memory, and its next use adds it again; after
 *   UNPLUG only PLUG does, and until then what needs it fails with -ENODEV.
 * - READ on the classic device, which takes no page faults, reads what is on the
 *   device and fails with -ENOENT elsewhere; EVICT and INJECT are -EOPNOTSUPP.
 */

/**
 * DOC: Test device locking
 *
 * The order is, outermost first::
 *
 *   thd_device.plug_lock          while device memory is used, or comes and goes
 *     mmap lock
 *       folio lock                (copy and map callbacks)
 *         MMU notifier            (invalidations)
 *           thd_mirror.lock       the device's page table and data
 *   thd_classic.lock,             innermost
 *   the locks of the hardware
 *
 * Removal of device memory waits for CPU faults and for invalidations, with the
 * plug lock held for writing. So no callback of the library, no invalidation and
 * no access of the device takes the plug lock, and no task that waits for it holds
 * another of these locks. What an access needs stays without the plug lock: VRAM
 * exists as long as the device, pages as long as the device's page table has entries
 * for them, and &thd_device.devmem is only compared with.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device/class.h>
#include <linux/dma-mapping.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/kdev_t.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/pci.h>
#include <linux/pm.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "../../mm/hmm_devmem/internal.h"
#include "classic.h"
#include "hw.h"
#include "test_hmm_devmem.h"

#define THD_CLASSIC	4	/* number of the classic device; the managed ones are below */
#define THD_NR_DEVICES	(THD_CLASSIC + 1)

/* Tests map a page or two; without a limit this would be a way to eat memory. */
#define THD_MMAP_PAGES	512

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
static_assert(BIT(HMM_DEVMEM_NR_FAIL) - 1 == HMM_DEVMEM_TEST_FAIL_STEPS);

/*
 * Plugging and unplugging.
 */

static unsigned long desc_flags(const struct thd_device *tdev)
{
	const u32 flags = tdev->plug.flags;

	return (lazy || flags & HMM_DEVMEM_TEST_LAZY ? HMM_DEVMEM_LAZY : 0) |
	       (flags & HMM_DEVMEM_TEST_DMA ? HMM_DEVMEM_DMA : 0) |
	       (flags & HMM_DEVMEM_TEST_RECLAIM ? HMM_DEVMEM_RECLAIM : 0) |
	       (flags & HMM_DEVMEM_TEST_RUNTIME_PM ? HMM_DEVMEM_RUNTIME_PM : 0);
}

/* Offsets, bytes; all are in the first segment, whether the device is lazy or not. */
static const u64 thd_bad_pages[] = { 0, SZ_2M };

static unsigned int nr_bad_pages(const struct thd_device *tdev)
{
	const u64 size = tdev->plug.size ?: tdev->size;
	unsigned int nr = 0;

	if (tdev->plug.flags & HMM_DEVMEM_TEST_BAD)
		while (nr < ARRAY_SIZE(thd_bad_pages) && thd_bad_pages[nr] < size)
			nr++;
	return nr;
}

/* Add the memory without a descriptor if the plug has no properties of its own. */
static struct hmm_devmem *thd_add(struct thd_device *tdev)
{
	const bool coherent = tdev->type == MEMORY_DEVICE_COHERENT;
	const struct hmm_devmem_desc desc = {
		.ops = tdev->plug.flags & HMM_DEVMEM_TEST_SYNC ?
		       &thd_copy_sync_ops : &thd_copy_ops,
		.size = tdev->plug.size ?: tdev->size,
		.res = coherent ? &tdev->res : NULL,
		.type = tdev->type,
		.flags = desc_flags(tdev),
		.nid = NUMA_NO_NODE,
		.owner = tdev->plug.flags & HMM_DEVMEM_TEST_COMMON ? thd_devices : NULL,
		.dma_device = tdev->dma_dev,
		.bad_pages = thd_bad_pages,
		.nr_bad_pages = nr_bad_pages(tdev),
	};

	if (tdev->classic)
		return thd_classic_add(tdev->classic, &tdev->dev);
	if (lazy || tdev->plug.flags || tdev->plug.size)
		return hmm_devmem_add_desc(&tdev->dev, &desc);
	if (coherent)
		return hmm_devmem_add_resource(&thd_copy_ops, &tdev->dev,
					       &tdev->res);
	return hmm_devmem_add(&thd_copy_ops, &tdev->dev, tdev->size);
}

static int plug_locked(struct thd_device *tdev,
		       const struct hmm_devmem_test_plug *plug)
{
	struct hmm_devmem *devmem;

	lockdep_assert_held_write(&tdev->plug_lock);

	tdev->plug = *plug;
	thd_copy_set_mode(tdev);
	thd_power_enable(tdev);
	devmem = thd_add(tdev);
	if (IS_ERR(devmem)) {
		thd_power_disable(tdev);
		return PTR_ERR(devmem);
	}
	WRITE_ONCE(tdev->owner, devmem->owner);
	WRITE_ONCE(tdev->devmem, devmem);
	tdev->auto_plug = false;
	return 0;
}

static const struct hmm_devmem_test_plug thd_plug_default;

static int thd_plug_as(struct thd_device *tdev,
		       const struct hmm_devmem_test_plug *plug)
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

/* Accesses must stop comparing with the devmem before another can get its address. */
static struct hmm_devmem *forget_devmem(struct thd_device *tdev)
{
	struct hmm_devmem *devmem = tdev->devmem;

	WRITE_ONCE(tdev->devmem, NULL);
	WRITE_ONCE(tdev->owner, NULL);
	return devmem;
}

/**
 * thd_unplug() - Remove the device memory of a device
 * @tdev: The device.
 * @auto_plug: Add it again when it is needed.
 *
 * Context: Process context, may sleep.
 * Return:
 * * %0 - done
 * * %-ENODEV - it was unplugged already
 * * %-EINTR - the process is being killed, nothing is changed
 */
int thd_unplug(struct thd_device *tdev, bool auto_plug)
{
	ACQUIRE(rwsem_write_kill, lock)(&tdev->plug_lock);
	if (ACQUIRE_ERR(rwsem_write_kill, &lock))
		return -EINTR;
	if (!tdev->devmem && (auto_plug || !tdev->auto_plug))
		return -ENODEV;
	if (tdev->devmem) {
		hmm_devmem_remove(forget_devmem(tdev));
		thd_power_disable(tdev);
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

/**
 * thd_leave() - End what thd_enter() has started
 * @tdev: The device.
 *
 * Context: Process context.
 */
void thd_leave(struct thd_device *tdev)
{
	up_read(&tdev->plug_lock);
}

/*
 * Files.
 */

static int thd_open(struct inode *inode, struct file *file)
{
	struct thd_device *tdev = container_of(inode->i_cdev, struct thd_device,
					       cdev);
	struct thd_mirror *mirror;

	mirror = thd_mirror_open(tdev, current->mm);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	file->private_data = mirror;
	return 0;
}

static int thd_close(struct inode *inode, struct file *file)
{
	thd_mirror_close(file->private_data);
	return 0;
}

static int map_zero_page(struct vm_area_struct *vma, unsigned long addr)
{
	struct page *page;
	int ret;

	page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!page)
		return -ENOMEM;
	ret = vm_insert_page(vma, addr, page);
	put_page(page);
	return ret;
}

/* Pages that are neither anonymous nor of a file, for tests of snapshots. */
static int thd_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long addr;
	int ret = 0;

	if (vma_pages(vma) > THD_MMAP_PAGES)
		return -EINVAL;
	for (addr = vma->vm_start; !ret && addr < vma->vm_end; addr += PAGE_SIZE)
		ret = map_zero_page(vma, addr);
	return ret;
}

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

static long evict_range(struct hmm_devmem *devmem,
			struct hmm_devmem_test_evict *evict)
{
	struct hmm_devmem_left left;
	long ret;

	if (!range_is_on_device(devmem, evict->first, evict->npages))
		return -EINVAL;
	ret = hmm_devmem_evict_why(devmem, devmem->pfn_first + evict->first,
				   evict->npages, &left);
	if (ret < 0)
		return ret;
	evict->left = ret;
	evict->busy = left.busy;
	evict->no_memory = left.no_memory;
	evict->not_copied = left.not_copied;
	return 0;
}

static int ioctl_evict(struct thd_device *tdev, void __user *arg)
{
	struct hmm_devmem_test_evict evict;
	struct hmm_devmem *devmem;
	int ret;

	if (tdev->classic)
		return -EOPNOTSUPP;
	if (copy_from_user(&evict, arg, sizeof(evict)))
		return -EFAULT;
	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	ret = evict_range(devmem, &evict);
	thd_leave(tdev);
	if (ret)
		return ret;
	return copy_to_user(arg, &evict, sizeof(evict)) ? -EFAULT : 0;
}

static int ioctl_lose(struct thd_device *tdev, void __user *arg)
{
	struct hmm_devmem_test_range range;
	struct hmm_devmem *devmem;
	int ret = 0;

	if (tdev->classic)
		return -EOPNOTSUPP;
	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	if (range_is_on_device(devmem, range.first, range.npages))
		hmm_devmem_poison(devmem, devmem->pfn_first + range.first,
				  range.npages);
	else
		ret = -EINVAL;
	thd_leave(tdev);
	return ret;
}

/* The ioctls about power, which take no argument. */
static int ioctl_power(struct thd_device *tdev, unsigned int nr)
{
	struct hmm_devmem *devmem;
	int ret = 0;

	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	if (nr == HMM_DEVMEM_TEST_SUSPEND)
		ret = hmm_devmem_suspend(devmem);
	else if (nr == HMM_DEVMEM_TEST_RESUME)
		hmm_devmem_resume(devmem);
	else
		hmm_devmem_mark_dead(devmem);
	thd_leave(tdev);
	return ret;
}

/* Like a page fault that another process has to serve, and never does. */
static int ioctl_lock_mm(struct thd_device *tdev, unsigned long pid)
{
	struct mm_struct *mm = current->mm;

	if (pid != task_tgid_vnr(current))
		return -EINVAL;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	atomic_long_inc(&tdev->mm_locks);
	while (!fatal_signal_pending(current))
		schedule_timeout_killable(MAX_SCHEDULE_TIMEOUT);
	atomic_long_dec(&tdev->mm_locks);
	mmap_write_unlock(mm);
	return -EINTR;
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
	    (tdev->type == MEMORY_DEVICE_COHERENT && plug.size))
		return -EINVAL;
	if (tdev->classic && (flags || plug.size))
		return -EOPNOTSUPP;
	return thd_plug_as(tdev, &plug);
}

/**
 * thd_fail_next() - Let a step of the library fail
 * @tdev: The device.
 * @steps: HMM_DEVMEM_TEST_NO_*: the first of these to be tried fails.
 *
 * Context: Process context, may sleep.
 * Return: 0 or an errno.
 */
int thd_fail_next(struct thd_device *tdev, u32 steps)
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

static int ioctl_fail_next(struct thd_device *tdev, void __user *arg)
{
	u32 steps;

	if (copy_from_user(&steps, arg, sizeof(steps)))
		return -EFAULT;
	return thd_fail_next(tdev, steps);
}

static int ioctl_inject(struct thd_device *tdev, void __user *arg)
{
	struct hmm_devmem_test_inject fail;

	if (tdev->classic)
		return -EOPNOTSUPP;
	if (copy_from_user(&fail, arg, sizeof(fail)))
		return -EFAULT;
	return thd_hw_inject(tdev->hw, &fail);
}

static bool range_is_valid(const struct hmm_devmem_test_cmd *cmd)
{
	u64 size, end;

	return PAGE_ALIGNED(cmd->addr) && cmd->npages &&
	       !check_mul_overflow(cmd->npages, (u64)PAGE_SIZE, &size) &&
	       !check_add_overflow(cmd->addr, size, &end) && end <= ULONG_MAX;
}

static int run_cmd(struct thd_mirror *mirror, const struct thd_cmd *op,
		   struct hmm_devmem_test_cmd *cmd)
{
	struct mm_struct *mm = mirror->notifier.mm;
	int ret;

	if (!op->has_range)
		return op->run(mirror, cmd);
	/* A child can use the file after the process that opened it has exited. */
	if (!range_is_valid(cmd) || !mmget_not_zero(mm))
		return -EINVAL;
	ret = op->run(mirror, cmd);
	mmput(mm);
	return ret;
}

static int ioctl_cmd(struct thd_mirror *mirror, unsigned int nr,
		     void __user *arg)
{
	const struct thd_cmd *op = thd_find_cmd(nr);
	struct hmm_devmem_test_cmd cmd;
	int ret;

	if (!op)
		return -ENOTTY;
	if (copy_from_user(&cmd, arg, sizeof(cmd)))
		return -EFAULT;
	cmd.cpages = 0;
	cmd.faults = 0;
	ret = run_cmd(mirror, op, &cmd);
	if (ret)
		return ret;
	return copy_to_user(arg, &cmd, sizeof(cmd)) ? -EFAULT : 0;
}

static long thd_ioctl(struct file *file, unsigned int nr, unsigned long arg)
{
	struct thd_mirror *mirror = file->private_data;
	void __user *uarg = (void __user *)arg;

	switch (nr) {
	case HMM_DEVMEM_TEST_STATS:
		return ioctl_stats(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_EVICT:
		return ioctl_evict(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_INJECT:
		return ioctl_inject(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_UNPLUG:
		return thd_unplug(mirror->tdev, false);
	case HMM_DEVMEM_TEST_PLUG:
		return thd_plug_as(mirror->tdev, &thd_plug_default);
	case HMM_DEVMEM_TEST_PLUG_AS:
		return ioctl_plug_as(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_SUSPEND:
	case HMM_DEVMEM_TEST_RESUME:
	case HMM_DEVMEM_TEST_MARK_DEAD:
		return ioctl_power(mirror->tdev, nr);
	case HMM_DEVMEM_TEST_LOSE:
		return ioctl_lose(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_FAIL_NEXT:
		return ioctl_fail_next(mirror->tdev, uarg);
	case HMM_DEVMEM_TEST_LOCK_MM:
		return ioctl_lock_mm(mirror->tdev, arg);
	default:
		return ioctl_cmd(mirror, nr, uarg);
	}
}

static const struct file_operations thd_fops = {
	.owner = THIS_MODULE,
	.open = thd_open,
	.release = thd_close,
	.mmap = thd_mmap,
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
	tdev->res = DEFINE_RES_MEM_NAMED(addr, tdev->size,
					 dev_name(&tdev->dev));
	return 0;
}

static struct device *find_pci_device(const char *name)
{
#ifdef CONFIG_PCI
	return bus_find_device_by_name(&pci_bus_type, NULL, name);
#else
	return NULL;
#endif
}

static int thd_find_dma_device(struct thd_device *tdev)
{
	if (!dma_device)
		return 0;
	tdev->dma_dev = find_pci_device(dma_device);
	return tdev->dma_dev ? 0 : -ENODEV;
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

/* Done last, because a file that a process has opened cannot be taken back. */
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
		thd_power_disable(tdev);
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
	ret = alloc_chrdev_region(&thd_devt, 0, THD_NR_DEVICES,
				  "hmm_devmem_test");
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
