// SPDX-License-Identifier: GPL-2.0
/*
 * A complete driver of a PCI function with device memory, to be copied.
 *
 * The function is QEMU's ivshmem-plain; its BAR 2 is taken for memory that only
 * the device can address, as most of a GPU's memory is. Anonymous memory of a
 * process moves there when the process asks for it in an ioctl, and moves back to
 * system memory when the CPU touches it, in another ioctl, or when the device goes
 * away.
 *
 * What a driver has to do for its memory is ivshmem_copy(), and one call of the
 * library each when it is bound, unbound, suspended, resumed, and asked to move
 * something. The rest is what any driver with a character device needs.
 *
 * Only root may open the node (mode 0600, as misc devices have it if they ask for
 * nothing else), because there is no limit to what a process may move to the device.
 * A process that is handed an open file may move memory of its own.
 */

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hmm_devmem.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/pci.h>
#include <linux/pm.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "ivshmem_devmem_uapi.h"

/*
 * The interrupt mask in BAR 0. This variant of the device has no interrupts, and
 * the register just keeps what is written to it until the device is reset.
 */
#define IVSHMEM_INTR_MASK	0x00
#define IVSHMEM_ALIVE		0x64766d68

/*
 * One function. @ref is for the driver until it is detached, and for each open file.
 * A file can outlive the device: it may use @devmem only with @lock held, and only
 * if it is not NULL. @regs and @vram are for the copy callback, which the library
 * does not call any more when the device memory has been removed.
 */
struct ivshmem {
	struct kref ref;
	struct rw_semaphore lock;
	struct hmm_devmem *devmem;
	void __iomem *regs;
	void __iomem *vram;
	struct miscdevice misc;
	char name[48];
};

static void ivshmem_release(struct kref *ref)
{
	kfree(container_of(ref, struct ivshmem, ref));
}

/*
 * Drops the driver's reference as the last of devres' actions: whatever else devres
 * undoes, an interrupt handler for instance, may use the structure until then.
 */
static void ivshmem_put(void *data)
{
	struct ivshmem *ivshmem = data;

	kref_put(&ivshmem->ref, ivshmem_release);
}

/*
 * Check that the device has received all copies.
 *
 * A function that was pulled out does not fail a read, it answers with all ones,
 * and writes to it vanish. It can be pulled out in the middle of the copies. So read
 * a register whose value is known after the copies, not before. Any register that
 * is never all ones would do for that. One with the driver's own word in it, which a
 * reset clears, also shows a device that is still there but was reset, and has lost
 * its memory, or one that does not decode its BARs any more.
 */
static int ivshmem_check(struct ivshmem *ivshmem)
{
	/* The read must not overtake the copies; it flushes posted writes as well. */
	mb();
	return readl(ivshmem->regs + IVSHMEM_INTR_MASK) == IVSHMEM_ALIVE ? 0 : -ENODEV;
}

/*
 * Both directions of copying, and clearing of pages that were never touched. A run
 * is contiguous on the device and in system memory. A device with a copy engine
 * sets %HMM_DEVMEM_DMA in &hmm_devmem_desc.flags, queues the copies here, with
 * &hmm_devmem_run.dma_addr, and waits for them in &hmm_devmem_ops.copy_wait.
 *
 * An error keeps all pages of @copy where they are: a process that touches one that
 * is on the device gets SIGBUS, and never sees what was copied. -ENODEV tells the
 * library that the device is gone, and that it need not call this again.
 */
static int ivshmem_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	struct ivshmem *ivshmem = devmem->driver_data;
	const struct hmm_devmem_run *run;

	for (run = copy->runs; run < copy->runs + copy->nr_runs; run++) {
		void __iomem *vram = ivshmem->vram + run->offset;
		const size_t size = (size_t)run->nr_pages << PAGE_SHIFT;

		/* Private memory exists on 64 bit only: all RAM has an address. */
		if (!run->ram)
			memset_io(vram, 0, size);
		else if (copy->dir == HMM_DEVMEM_TO_DEVICE)
			memcpy_toio(vram, page_address(run->ram), size);
		else
			memcpy_fromio(page_address(run->ram), vram, size);
	}
	return ivshmem_check(ivshmem);
}

/* With these two, the library allocates, migrates, serves CPU faults and evicts. */
static const struct hmm_devmem_ops ivshmem_devmem_ops = {
	.copy_to_device = ivshmem_copy,
	.copy_to_ram = ivshmem_copy,
};

static int ivshmem_open(struct inode *inode, struct file *file)
{
	/* The misc device cannot be deregistered before this returns. */
	struct ivshmem *ivshmem = container_of(file->private_data, struct ivshmem, misc);

	kref_get(&ivshmem->ref);
	file->private_data = ivshmem;
	return 0;
}

static int ivshmem_close(struct inode *inode, struct file *file)
{
	struct ivshmem *ivshmem = file->private_data;

	kref_put(&ivshmem->ref, ivshmem_release);
	return 0;
}

/*
 * The library takes the mmap lock, so the caller must not hold it. It also refuses
 * ranges that are not aligned or not mapped. Pages that cannot move (pinned ones,
 * say) stay where they are, and count as not moved.
 */
static long ivshmem_migrate(struct ivshmem *ivshmem, unsigned int cmd,
			    unsigned long start, unsigned long end)
{
	guard(rwsem_read)(&ivshmem->lock);
	if (!ivshmem->devmem)
		return -ENODEV;
	if (cmd == IVSHMEM_DEVMEM_TO_RAM)
		return hmm_devmem_migrate_to_ram(ivshmem->devmem, current->mm, start, end);
	return hmm_devmem_migrate_to_device(ivshmem->devmem, current->mm, start, end, NULL);
}

static long ivshmem_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct ivshmem_devmem_range range;
	unsigned long end;
	long pages;

	if (cmd != IVSHMEM_DEVMEM_TO_DEVICE && cmd != IVSHMEM_DEVMEM_TO_RAM)
		return -ENOTTY;
	if (copy_from_user(&range, (void __user *)arg, sizeof(range)))
		return -EFAULT;
	if (check_add_overflow(range.addr, range.size, &end))
		return -EINVAL;
	pages = ivshmem_migrate(file->private_data, cmd, range.addr, end);
	if (pages < 0)
		return pages;
	range.pages = pages;
	return copy_to_user((void __user *)arg, &range, sizeof(range)) ? -EFAULT : 0;
}

static const struct file_operations ivshmem_fops = {
	.owner = THIS_MODULE,
	.open = ivshmem_open,
	.release = ivshmem_close,
	.unlocked_ioctl = ivshmem_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* Enable the function and map its BARs; that is undone after remove or a failure. */
static int ivshmem_map(struct ivshmem *ivshmem, struct pci_dev *pdev)
{
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	ivshmem->regs = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(ivshmem->regs))
		return PTR_ERR(ivshmem->regs);
	ret = pcim_request_region(pdev, 2, KBUILD_MODNAME);
	if (ret)
		return ret;
	ivshmem->vram = devm_ioremap_wc(&pdev->dev, pci_resource_start(pdev, 2),
					pci_resource_len(pdev, 2));
	if (!ivshmem->vram)
		return -ENOMEM;
	writel(IVSHMEM_ALIVE, ivshmem->regs + IVSHMEM_INTR_MASK);
	return ivshmem_check(ivshmem);
}

/*
 * The struct pages of private memory have physical addresses at which there is
 * nothing. Those of the BAR are only used for copying, and no process can map them.
 */
static int ivshmem_add_memory(struct ivshmem *ivshmem, struct pci_dev *pdev)
{
	const struct hmm_devmem_desc desc = {
		.ops = &ivshmem_devmem_ops,
		.size = pci_resource_len(pdev, 2),
		.type = MEMORY_DEVICE_PRIVATE,
		.nid = NUMA_NO_NODE,
		.driver_data = ivshmem,
	};

	ivshmem->devmem = hmm_devmem_add_desc(&pdev->dev, &desc);
	return PTR_ERR_OR_ZERO(ivshmem->devmem);
}

static int ivshmem_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct ivshmem *ivshmem;
	int ret;

	ivshmem = kzalloc_obj(*ivshmem);
	if (!ivshmem)
		return -ENOMEM;
	kref_init(&ivshmem->ref);
	init_rwsem(&ivshmem->lock);
	/* Registered first, so that it runs last: devres undoes things backwards. */
	ret = devm_add_action_or_reset(&pdev->dev, ivshmem_put, ivshmem);
	if (ret)
		return ret;
	pci_set_drvdata(pdev, ivshmem);
	ret = ivshmem_map(ivshmem, pdev);
	if (ret)
		return ret;
	ret = ivshmem_add_memory(ivshmem, pdev);
	if (ret)
		return ret;

	/* Done last, because from here on processes can open the device. */
	snprintf(ivshmem->name, sizeof(ivshmem->name), "%s-%s", KBUILD_MODNAME,
		 pci_name(pdev));
	ivshmem->misc.minor = MISC_DYNAMIC_MINOR;
	ivshmem->misc.name = ivshmem->name;
	ivshmem->misc.fops = &ivshmem_fops;
	return misc_register(&ivshmem->misc);
}

/*
 * The device is unbound or unplugged, or the module unloaded; files may be open,
 * ioctls in progress and memory of processes on the device. First no new file can be
 * opened, then no ioctl uses the device memory any more, then its pages move back to
 * system memory. That needs the BARs, which devres unmaps after this has returned.
 */
static void ivshmem_remove(struct pci_dev *pdev)
{
	struct ivshmem *ivshmem = pci_get_drvdata(pdev);
	struct hmm_devmem *devmem = ivshmem->devmem;

	misc_deregister(&ivshmem->misc);
	scoped_guard(rwsem_write, &ivshmem->lock)
		ivshmem->devmem = NULL;
	hmm_devmem_remove(devmem);
}

/*
 * Device memory does not survive a system that sleeps, nor is it in the image of
 * one that hibernates: processes get their pages back before. A device that is gone
 * has none to give back, which must not keep the system awake.
 */
static int ivshmem_suspend(struct device *dev)
{
	struct ivshmem *ivshmem = dev_get_drvdata(dev);
	int ret = hmm_devmem_suspend(ivshmem->devmem);

	return ret == -ENODEV ? 0 : ret;
}

static int ivshmem_resume(struct device *dev)
{
	struct ivshmem *ivshmem = dev_get_drvdata(dev);

	writel(IVSHMEM_ALIVE, ivshmem->regs + IVSHMEM_INTR_MASK);
	hmm_devmem_resume(ivshmem->devmem);
	return 0;
}

static DEFINE_SIMPLE_DEV_PM_OPS(ivshmem_pm_ops, ivshmem_suspend, ivshmem_resume);

static const struct pci_device_id ivshmem_ids[] = { { PCI_DEVICE(0x1af4, 0x1110) }, { } };
MODULE_DEVICE_TABLE(pci, ivshmem_ids);

static struct pci_driver ivshmem_driver = {
	.name = KBUILD_MODNAME,
	.id_table = ivshmem_ids,
	.probe = ivshmem_probe,
	.remove = ivshmem_remove,
	.driver.pm = pm_sleep_ptr(&ivshmem_pm_ops),
};
module_pci_driver(ivshmem_driver);

MODULE_DESCRIPTION("HMM device memory on QEMU's ivshmem-plain, a sample");
MODULE_LICENSE("GPL");
