/* SPDX-License-Identifier: GPL-2.0 */
/*
 * DMA addresses of a copy: see dma.c.
 */
#ifndef _MM_HMM_DEVMEM_DMA_H
#define _MM_HMM_DEVMEM_DMA_H

#include <linux/compiler.h>
#include <linux/dma-mapping.h>
#include <linux/types.h>

#include "devmem.h"

struct hmm_devmem_txn;

/**
 * struct hmm_devmem_dma - how the runs of a copy are mapped
 * @iova: One range of IOVA for all of them, where there is an IOMMU.
 * @size: How much of @iova is mapped, bytes.
 */
struct hmm_devmem_dma {
	struct dma_iova_state iova;
	size_t size;
};

int hmm_devmem_dma_init(struct hmm_devmem *devmem,
			const struct hmm_devmem_desc *desc);
gfp_t __hmm_devmem_dma_ram_gfp(struct hmm_devmem *devmem);
bool __hmm_devmem_dma_reaches(struct hmm_devmem *devmem, phys_addr_t phys,
			      size_t size);
bool hmm_devmem_dma_map(struct hmm_devmem_txn *txn);
void hmm_devmem_dma_join(struct hmm_devmem_txn *txn);
void hmm_devmem_dma_unmap(struct hmm_devmem_txn *txn);
#if IS_ENABLED(CONFIG_KUNIT)
void hmm_devmem_dma_join_runs(struct hmm_devmem_txn *txn, size_t max,
			      unsigned long boundary);
#endif

/*
 * How to allocate memory for pages that are brought back: without %__GFP_HIGHMEM if
 * some memory is out of the device's reach. Called for every page.
 */
static inline gfp_t hmm_devmem_dma_ram_gfp(struct hmm_devmem *devmem)
{
	return likely(!priv(devmem)->dma_device) ? priv(devmem)->ram_gfp :
					     __hmm_devmem_dma_ram_gfp(devmem);
}

/* Can the device reach system memory? */
static inline bool hmm_devmem_dma_reaches(struct hmm_devmem *devmem,
					  phys_addr_t phys, size_t size)
{
	return likely(!priv(devmem)->dma_device) ||
	       __hmm_devmem_dma_reaches(devmem, phys, size);
}

#endif /* _MM_HMM_DEVMEM_DMA_H */
