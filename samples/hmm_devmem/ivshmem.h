/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the sample driver share.
 */
#ifndef _SAMPLES_IVSHMEM_H
#define _SAMPLES_IVSHMEM_H

#include <linux/hmm_devmem_mirror.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/pm.h>
#include <linux/rwsem.h>
#include <linux/xarray.h>

#include "ivshmem_devmem_uapi.h"

/* In an entry of the device's page table. */
#define IVSHMEM_PTE_WRITABLE	1UL

/**
 * struct ivshmem - one function
 * @ref: Number of references: one of the driver until it is detached, and one of each open
 *	file.
 * @lock: Held for reading while the device accesses memory for an ioctl.
 * @alive: The driver is bound. Protected by @lock.
 * @devmem: Its memory. Files have references of their own.
 * @regs: BAR 0.
 * @vram: BAR 2.
 * @misc: The node.
 * @name: The node's name.
 *
 * A file can outlive the device. An ioctl uses @regs and @vram only with @lock held and
 * if @alive is true. The copy callback need not check @alive: the library does not call it
 * any more when the device memory has been removed.
 */
struct ivshmem {
	struct kref ref;
	struct rw_semaphore lock;
	bool alive;
	struct hmm_devmem *devmem;
	void __iomem *regs;
	void __iomem *vram;
	struct miscdevice misc;
	char name[48];
};

/**
 * struct ivshmem_file - an open file, and the process that uses the device with it
 * @ivshmem: The function, with a reference.
 * @devmem: Its memory, with a reference: it can be removed at any time.
 * @lock: Protects @mirrored.
 * @mirrored: @mirror was set up, and @ptes is in use.
 * @mirror: The device's view of the process that made the first ioctl.
 * @ptes: The device's page table: see mirror.c. Protected by the lock of @mirror.
 */
struct ivshmem_file {
	struct ivshmem *ivshmem;
	struct hmm_devmem *devmem;
	struct mutex lock; /* see above */
	bool mirrored;
	struct hmm_devmem_mirror mirror;
	struct xarray ptes;
};

extern const struct dev_pm_ops ivshmem_pm_ops;

void ivshmem_start(struct ivshmem *ivshmem);
int ivshmem_check(struct ivshmem *ivshmem);
int ivshmem_add_memory(struct ivshmem *ivshmem, struct device *dev,
		       unsigned long size);

void ivshmem_file_init(struct ivshmem_file *file, struct ivshmem *ivshmem);
void ivshmem_file_fini(struct ivshmem_file *file);
int ivshmem_mirror(struct ivshmem_file *file);
long ivshmem_fault(struct ivshmem_file *file,
		   const struct ivshmem_devmem_access *access);

long ivshmem_access(struct ivshmem_file *file,
		    struct ivshmem_devmem_access *access);

#endif /* _SAMPLES_IVSHMEM_H */
