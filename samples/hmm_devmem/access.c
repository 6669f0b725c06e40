// SPDX-License-Identifier: GPL-2.0
/*
 * A substitute for hardware that the function does not have: ivshmem cannot access
 * memory by itself. So for an ioctl this file reads or writes a word as a device would
 * do it: by way of the device's page table, and with a page fault if there is no entry.
 * A driver of a real device does not need this. It has an interrupt handler that calls
 * ivshmem_fault() and then lets the device go on.
 */

#include <linux/cleanup.h>
#include <linux/io.h>
#include <linux/mm.h>

#include "ivshmem.h"

static void access_vram(void __iomem *word, struct ivshmem_devmem_access *access)
{
	if (access->flags & IVSHMEM_DEVMEM_WRITE)
		writeq(access->value, word);
	else
		access->value = readq(word);
}

/* Core does not see that a device writes, and may discard a page that is not dirty. */
static void access_ram(struct page *page, unsigned long offset,
		       struct ivshmem_devmem_access *access)
{
	u64 *word = page_address(page) + offset;

	if (access->flags & IVSHMEM_DEVMEM_WRITE) {
		WRITE_ONCE(*word, access->value);
		folio_mark_dirty(page_folio(page));
	} else {
		access->value = READ_ONCE(*word);
	}
}

/*
 * One access of the device. While the mirror's lock is held, no invalidation can end, so
 * the page stays where the entry says.
 *
 * Return: 0; -EAGAIN if the device takes a page fault; -ENODEV if it is gone, or
 * answers with all ones.
 */
static int ivshmem_try(struct ivshmem_file *file, struct ivshmem_devmem_access *access)
{
	const bool write = access->flags & IVSHMEM_DEVMEM_WRITE;
	const unsigned long offset = offset_in_page(access->addr);
	struct ivshmem *ivshmem = file->ivshmem;
	struct page *page;
	unsigned long pte;

	guard(rwsem_read)(&ivshmem->lock);
	if (!ivshmem->alive)
		return -ENODEV;
	guard(mutex)(&file->mirror.lock);
	pte = xa_to_value(xa_load(&file->ptes, access->addr >> PAGE_SHIFT));
	if (!pte || (write && !(pte & IVSHMEM_PTE_WRITABLE)))
		return -EAGAIN;
	page = pfn_to_page(pte >> 1);
	if (is_device_private_page(page))
		access_vram(ivshmem->vram + hmm_devmem_page_offset(page) + offset,
			    access);
	else
		access_ram(page, offset, access);
	return ivshmem_check(ivshmem);
}

long ivshmem_access(struct ivshmem_file *file, struct ivshmem_devmem_access *access)
{
	long ret, fault = 0;

	if (access->flags & ~(IVSHMEM_DEVMEM_WRITE | IVSHMEM_DEVMEM_MIGRATE) ||
	    !IS_ALIGNED(access->addr, sizeof(access->value)))
		return -EINVAL;
	access->faults = 0;
	/*
	 * Try once more after a fault that failed: map() can have failed for another page
	 * of the same block only.
	 */
	while ((ret = ivshmem_try(file, access)) == -EAGAIN && fault >= 0) {
		fault = ivshmem_fault(file, access);
		access->faults++;
	}
	return ret == -EAGAIN ? fault : ret;
}
