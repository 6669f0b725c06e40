/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fault injection of HMM device memory, for a test driver: mm/hmm_devmem/fail.c.
 */
#ifndef _LINUX_HMM_DEVMEM_FAIL_H
#define _LINUX_HMM_DEVMEM_FAIL_H

struct hmm_devmem;

/**
 * enum hmm_devmem_fail - steps that can be made to fail
 * @HMM_DEVMEM_FAIL_DEVICE: to allocate device pages for a window
 * @HMM_DEVMEM_FAIL_DEVICE_LARGE: to allocate a large device folio
 * @HMM_DEVMEM_FAIL_RAM: to allocate a page of system memory
 * @HMM_DEVMEM_FAIL_RAM_LARGE: to allocate a large folio of system memory
 * @HMM_DEVMEM_FAIL_DMA: to map a run for DMA
 * @HMM_DEVMEM_FAIL_BLOCKS: to get blocks from the driver
 * @HMM_DEVMEM_NR_FAIL: number of those
 */
enum hmm_devmem_fail {
	HMM_DEVMEM_FAIL_DEVICE,
	HMM_DEVMEM_FAIL_DEVICE_LARGE,
	HMM_DEVMEM_FAIL_RAM,
	HMM_DEVMEM_FAIL_RAM_LARGE,
	HMM_DEVMEM_FAIL_DMA,
	HMM_DEVMEM_FAIL_BLOCKS,
	HMM_DEVMEM_NR_FAIL,
};

#ifdef CONFIG_FAULT_INJECTION
void hmm_devmem_fail_next(struct hmm_devmem *devmem, unsigned long steps);
#else
static inline void hmm_devmem_fail_next(struct hmm_devmem *devmem,
					unsigned long steps)
{
}
#endif

#endif /* _LINUX_HMM_DEVMEM_FAIL_H */
