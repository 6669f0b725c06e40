// SPDX-License-Identifier: GPL-2.0
/*
 * The device's memory: what the library needs to migrate pages there and back.
 */

#include <linux/device.h>
#include <linux/io.h>
#include <linux/mm.h>

#include "ivshmem.h"

/*
 * The interrupt mask in BAR 0. This variant of the device has no interrupts, and
 * the register just keeps what is written to it until the device is reset.
 */
#define IVSHMEM_INTR_MASK	0x00
#define IVSHMEM_ALIVE		0x64766d68

/* Called when the function was enabled, and after a reset. */
void ivshmem_start(struct ivshmem *ivshmem)
{
	writel(IVSHMEM_ALIVE, ivshmem->regs + IVSHMEM_INTR_MASK);
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
int ivshmem_check(struct ivshmem *ivshmem)
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

		/* Private memory exists on 64 bit only, where all RAM has a kernel address. */
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

/*
 * The struct pages of private memory have physical addresses at which there is
 * nothing. The addresses of the BAR are used only for copying; no process can map them.
 */
int ivshmem_add_memory(struct ivshmem *ivshmem, struct device *dev,
		       unsigned long size)
{
	const struct hmm_devmem_desc desc = {
		.ops = &ivshmem_devmem_ops,
		.size = size,
		.type = MEMORY_DEVICE_PRIVATE,
		.nid = NUMA_NO_NODE,
		.driver_data = ivshmem,
	};

	ivshmem->devmem = hmm_devmem_add_desc(dev, &desc);
	return PTR_ERR_OR_ZERO(ivshmem->devmem);
}

/*
 * Device memory loses its content while the system sleeps, and is not in the image that
 * hibernation writes. So all pages move back to system memory first. A device that is gone
 * has no pages to give back, which must not keep the system awake.
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

	ivshmem_start(ivshmem);
	hmm_devmem_resume(ivshmem->devmem);
	return 0;
}

DEFINE_SIMPLE_DEV_PM_OPS(ivshmem_pm_ops, ivshmem_suspend, ivshmem_resume);
