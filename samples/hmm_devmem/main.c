// SPDX-License-Identifier: GPL-2.0
/*
 * A complete driver of a PCI function with device memory, to be copied.
 *
 * The function is QEMU's ivshmem-plain; its BAR 2 is taken for memory that only
 * the device can address, as most of a GPU's memory is. Anonymous memory of a
 * process moves there when the process asks for it in an ioctl, or when the device
 * takes a page fault, and moves back to system memory when the CPU touches it, in
 * another ioctl, or when the device goes away. The device accesses memory of the
 * process, wherever it is, at the addresses that the process uses.
 *
 * What a driver has to do for the memory is in memory.c, and for the device's page table
 * and its page faults in mirror.c. This file has what any driver with a character device
 * needs; access.c stands in for hardware that this function does not have.
 *
 * Only root may open the node (mode 0600, the default of misc devices), because there is no
 * limit to what a process may move to the device. With an open file, the device accesses
 * the memory of the process that makes the first ioctl, which can be another one than the
 * process that has opened the file.
 */

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hmm_devmem.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/pci.h>
#include <linux/pm.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "ivshmem.h"

static void ivshmem_release(struct kref *ref)
{
	kfree(container_of(ref, struct ivshmem, ref));
}

/*
 * Drops the driver's reference, as the last of the devres actions. All that devres undoes
 * before, such as an interrupt handler, may use the structure until it is undone.
 */
static void ivshmem_put(void *data)
{
	struct ivshmem *ivshmem = data;

	kref_put(&ivshmem->ref, ivshmem_release);
}

static int ivshmem_open(struct inode *inode, struct file *f)
{
	/* The misc device cannot be deregistered before this returns. */
	struct ivshmem *ivshmem = container_of(f->private_data, struct ivshmem, misc);
	struct ivshmem_file *file = kzalloc_obj(*file);

	if (!file)
		return -ENOMEM;
	ivshmem_file_init(file, ivshmem);
	f->private_data = file;
	return 0;
}

static int ivshmem_close(struct inode *inode, struct file *f)
{
	struct ivshmem_file *file = f->private_data;

	ivshmem_file_fini(file);
	kref_put(&file->ivshmem->ref, ivshmem_release);
	kfree(file);
	return 0;
}

/*
 * The library takes the mmap lock, so the caller must not hold it. It also refuses
 * ranges that are not aligned or not mapped. Pages that cannot move (pinned ones,
 * say) stay where they are, and count as not moved.
 */
static long ivshmem_move(struct ivshmem_file *file, unsigned int cmd, void __user *arg)
{
	struct ivshmem_devmem_range range;
	unsigned long end;
	long ret;

	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	if (check_add_overflow(range.addr, range.size, &end))
		return -EINVAL;
	ret = ivshmem_mirror(file);
	if (ret)
		return ret;
	if (cmd == IVSHMEM_DEVMEM_TO_RAM)
		ret = hmm_devmem_migrate_to_ram(file->devmem, current->mm, range.addr,
						end);
	else
		ret = hmm_devmem_mirror_migrate(&file->mirror, range.addr, end);
	if (ret < 0)
		return ret;
	range.pages = ret;
	return copy_to_user(arg, &range, sizeof(range)) ? -EFAULT : 0;
}

static long ivshmem_access_user(struct ivshmem_file *file, void __user *arg)
{
	struct ivshmem_devmem_access access;
	long ret;

	if (copy_from_user(&access, arg, sizeof(access)))
		return -EFAULT;
	ret = ivshmem_mirror(file) ?: ivshmem_access(file, &access);
	if (ret)
		return ret;
	return copy_to_user(arg, &access, sizeof(access)) ? -EFAULT : 0;
}

static long ivshmem_ioctl(struct file *f, unsigned int cmd, unsigned long arg)
{
	void __user *ptr = (void __user *)arg;

	switch (cmd) {
	case IVSHMEM_DEVMEM_TO_DEVICE:
	case IVSHMEM_DEVMEM_TO_RAM:
		return ivshmem_move(f->private_data, cmd, ptr);
	case IVSHMEM_DEVMEM_ACCESS:
		return ivshmem_access_user(f->private_data, ptr);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations ivshmem_fops = {
	.owner = THIS_MODULE,
	.open = ivshmem_open,
	.release = ivshmem_close,
	.unlocked_ioctl = ivshmem_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* Enable the function and map its BARs. Devres undoes that after remove, or on failure. */
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
	ivshmem_start(ivshmem);
	return ivshmem_check(ivshmem);
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
	ret = ivshmem_add_memory(ivshmem, &pdev->dev, pci_resource_len(pdev, 2));
	if (ret)
		return ret;
	ivshmem->alive = true;

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
 * opened, then the device does not access memory any more, then its pages move back to
 * system memory. That needs the BARs, which devres unmaps after this has returned.
 */
static void ivshmem_remove(struct pci_dev *pdev)
{
	struct ivshmem *ivshmem = pci_get_drvdata(pdev);

	misc_deregister(&ivshmem->misc);
	scoped_guard(rwsem_write, &ivshmem->lock)
		ivshmem->alive = false;
	hmm_devmem_remove(ivshmem->devmem);
}

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
