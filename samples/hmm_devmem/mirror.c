// SPDX-License-Identifier: GPL-2.0
/*
 * The device's page table and its page faults: how it accesses the memory of a process at
 * the addresses that the process uses.
 *
 * The page table is an xarray. An index is the page number of a user address, and an
 * entry is a pfn, shifted by one bit, and the permission to write. A device that reads
 * its page table by itself has the DMA address of a page there, or its offset in device
 * memory; ivshmem_try() shows which of the two a page has.
 */

#include <linux/cleanup.h>
#include <linux/hmm_devmem.h>
#include <linux/mm.h>

#include "ivshmem.h"

static struct ivshmem_file *file_of(struct hmm_devmem_mirror *m)
{
	return container_of(m, struct ivshmem_file, mirror);
}

/*
 * Reclaim calls this, so it allocates nothing. The device does not access memory
 * without the lock, so there is no TLB to flush either.
 */
static void ivshmem_unmap(struct hmm_devmem_mirror *m, unsigned long start,
			  unsigned long end, bool keep_local)
{
	struct ivshmem_file *file = file_of(m);
	unsigned long index;
	void *pte;

	xa_for_each_range(&file->ptes, index, pte, start >> PAGE_SHIFT,
			  (end - 1) >> PAGE_SHIFT)
		xa_erase(&file->ptes, index);
}

static int ivshmem_map(struct hmm_devmem_mirror *m,
		       const struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	const struct hmm_devmem_map_entry *entry;
	struct ivshmem_file *file = file_of(m);
	unsigned long i, pte;
	int ret = 0;

	for (entry = entries; entry < entries + nr; entry++)
		for (i = 0; i < BIT(entry->order); i++) {
			pte = (entry->pfn + i) << 1;
			pte |= entry->writable ? IVSHMEM_PTE_WRITABLE : 0;
			ret = xa_err(xa_store(&file->ptes,
					      (entry->addr >> PAGE_SHIFT) + i,
					      xa_mk_value(pte),
					      GFP_NOWAIT)) ?: ret;
		}
	return ret;
}

static const struct hmm_devmem_mirror_ops ivshmem_mirror_ops = {
	.unmap = ivshmem_unmap,
	.map = ivshmem_map,
};

void ivshmem_file_init(struct ivshmem_file *file, struct ivshmem *ivshmem)
{
	kref_get(&ivshmem->ref);
	hmm_devmem_get(ivshmem->devmem);
	file->ivshmem = ivshmem;
	file->devmem = ivshmem->devmem;
	mutex_init(&file->lock);
	xa_init(&file->ptes);
}

/* The driver may have been unbound, and the process may have exited, long ago. */
void ivshmem_file_fini(struct ivshmem_file *file)
{
	if (file->mirrored)
		hmm_devmem_mirror_fini(&file->mirror);
	xa_destroy(&file->ptes);
	mutex_destroy(&file->lock);
	hmm_devmem_put(file->devmem);
}

/*
 * Set up the mirror in the first ioctl. The open would be the wrong place: this takes the
 * mmap lock, for which a process can make others wait, and misc_open() holds a lock that
 * all misc devices share.
 */
int ivshmem_mirror(struct ivshmem_file *file)
{
	int ret;

	ACQUIRE(mutex_intr, lock)(&file->lock);
	ret = ACQUIRE_ERR(mutex_intr, &lock);
	if (ret)
		return ret;
	if (file->mirrored)
		return file->mirror.notifier.mm == current->mm ? 0 : -EPERM;
	ret = hmm_devmem_mirror_init(&file->mirror, file->devmem, current->mm,
				     &ivshmem_mirror_ops);
	file->mirrored = !ret;
	return ret;
}

/*
 * Serve a page fault of the device. The caller holds no lock: this can take long, and a
 * process can make it wait. map() cannot wait for memory, so allocate what the entry needs
 * that the fault is about. If map() lacks memory for neighbours, the device takes page
 * faults for them later.
 */
long ivshmem_fault(struct ivshmem_file *file,
		   const struct ivshmem_devmem_access *access)
{
	const unsigned long index = access->addr >> PAGE_SHIFT;
	unsigned int flags = HMM_DEVMEM_MIRROR_READ;
	long ret;

	if (access->flags & IVSHMEM_DEVMEM_WRITE)
		flags |= HMM_DEVMEM_MIRROR_WRITE;
	if (access->flags & IVSHMEM_DEVMEM_MIGRATE)
		flags |= HMM_DEVMEM_MIRROR_MIGRATE;
	ret = xa_reserve(&file->ptes, index, GFP_KERNEL);
	if (ret)
		return ret;
	ret = hmm_devmem_mirror_fault(&file->mirror, access->addr, flags);
	if (ret < 0)
		xa_release(&file->ptes, index);
	return ret;
}
