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

/* -ENODEV: the device has gone, for good as far as this open file goes. */
#define IVSHMEM_DEVMEM_TO_DEVICE	_IOWR('I', 0x00, struct ivshmem_devmem_range)
#define IVSHMEM_DEVMEM_TO_RAM		_IOWR('I', 0x01, struct ivshmem_devmem_range)

#endif /* _SAMPLES_IVSHMEM_DEVMEM_UAPI_H */
