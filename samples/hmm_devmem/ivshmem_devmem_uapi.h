/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface of the ivshmem_devmem sample driver: the ioctls of its nodes,
 * /dev/ivshmem_devmem-<PCI address>.
 */
#ifndef _SAMPLES_IVSHMEM_DEVMEM_UAPI_H
#define _SAMPLES_IVSHMEM_DEVMEM_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct ivshmem_devmem_range - memory of the caller
 * @addr: (in) User address, a multiple of the page size.
 * @size: (in) Bytes, a multiple of the page size.
 * @pages: (out) For IVSHMEM_DEVMEM_TO_DEVICE how many pages of the range are on
 *	the device now, for IVSHMEM_DEVMEM_TO_RAM how many have come back.
 */
struct ivshmem_devmem_range {
	__u64 addr;
	__u64 size;
	__u64 pages;
};

/**
 * struct ivshmem_devmem_access - one access of the device to memory of the caller
 * @addr: (in) User address, a multiple of 8.
 * @value: (in) With IVSHMEM_DEVMEM_WRITE what the device writes, (out) else what it
 *	has read: 8 bytes.
 * @flags: (in) IVSHMEM_DEVMEM_WRITE and IVSHMEM_DEVMEM_MIGRATE, or 0.
 * @faults: (out) How many page faults the device took.
 */
struct ivshmem_devmem_access {
	__u64 addr;
	__u64 value;
	__u32 flags;
	__u32 faults;
};

/* The device writes; without this flag it reads. */
#define IVSHMEM_DEVMEM_WRITE	0x1
/* A page fault moves the page, and pages around it, to the device. */
#define IVSHMEM_DEVMEM_MIGRATE	0x2

/*
 * These ioctls fail with:
 * -ENODEV: the device has gone; this open file cannot be used any more.
 * -EPERM: another process has used this open file first; or the memory is not writable.
 * -EFAULT: no memory is mapped there.
 */
#define IVSHMEM_DEVMEM_TO_DEVICE	_IOWR('I', 0x00, struct ivshmem_devmem_range)
#define IVSHMEM_DEVMEM_TO_RAM		_IOWR('I', 0x01, struct ivshmem_devmem_range)
#define IVSHMEM_DEVMEM_ACCESS		_IOWR('I', 0x02, struct ivshmem_devmem_access)

#endif /* _SAMPLES_IVSHMEM_DEVMEM_UAPI_H */
