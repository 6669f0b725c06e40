/* SPDX-License-Identifier: GPL-2.0 */
/* <linux/dma-direct.h> of kernels older than 7.3 is not told about attributes here. */
#ifndef _HMM_DEVMEM_COMPAT_DMA_DIRECT_H
#define _HMM_DEVMEM_COMPAT_DMA_DIRECT_H

#define dma_capable(dev, addr, size, is_ram, ...) dma_capable(dev, addr, size, is_ram)

#endif
