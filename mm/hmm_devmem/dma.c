// SPDX-License-Identifier: GPL-2.0
/*
 * System memory of a copy, mapped for DMA by the device.
 */

/**
 * DOC: DMA
 *
 * With %HMM_DEVMEM_DMA every run of a copy that has system memory gets a DMA
 * address before the driver sees it. Where an IOMMU translates for the device,
 * all runs of a copy are put into one range of IOVA, which is allocated, flushed
 * and given back once; elsewhere each run is mapped by itself. Either way it is
 * unmapped exactly once: when the copy is over and before anybody else sees the
 * pages, so that data in a bounce buffer is where it belongs.
 *
 * A run that cannot be mapped is no failure of the others: its pages stay where
 * they are.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/dma-mapping.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/mm.h>

#include "internal.h"

/**
 * hmm_devmem_dma_init() - Get ready for DMA
 * @devmem: The device memory; its device and flags are set.
 * @desc: What was asked for.
 *
 * Context: Process context.
 * Return: 0, or -EINVAL if the device cannot do DMA.
 */
int hmm_devmem_dma_init(struct hmm_devmem *devmem,
			const struct hmm_devmem_desc *desc)
{
	struct device *dev = desc->dma_device ?: devmem->device;

	devmem->max_run = UINT_MAX;
	if (!(desc->flags & HMM_DEVMEM_DMA))
		return 0;
	if (!dev->dma_mask)
		return -EINVAL;
	devmem->dma_device = dev;
	/* Bounce buffers are small. */
	devmem->max_run = clamp(dma_max_mapping_size(dev) >> PAGE_SHIFT, 1,
				HMM_DEVMEM_BLOCK_NR);
	return 0;
}

static enum dma_data_direction txn_dma_dir(const struct hmm_devmem_txn *txn)
{
	return txn->copy.dir == HMM_DEVMEM_TO_DEVICE ? DMA_TO_DEVICE :
						       DMA_FROM_DEVICE;
}

static size_t run_size(const struct hmm_devmem_run *run)
{
	return (size_t)run->nr_pages << PAGE_SHIFT;
}

/* One IOVA for all runs, if pages can be put next to each other in it. */
static bool dma_try_iova(struct hmm_devmem_txn *txn)
{
	struct device *dev = txn->devmem->dma_device;
	const struct hmm_devmem_run *first = NULL;
	size_t size = 0;
	unsigned int r;

	for (r = 0; r < txn->copy.nr_runs; r++) {
		if (!txn->runs[r].ram)
			continue;
		first = first ?: &txn->runs[r];
		size += run_size(&txn->runs[r]);
	}
	if (!first || dma_get_merge_boundary(dev) >= PAGE_SIZE)
		return false;
	return dma_iova_try_alloc(dev, &txn->dma.iova, page_to_phys(first->ram),
				  size);
}

static int dma_map_run(struct hmm_devmem_txn *txn, struct hmm_devmem_run *run)
{
	struct device *dev = txn->devmem->dma_device;
	const phys_addr_t phys = page_to_phys(run->ram);
	const size_t size = run_size(run);
	int ret;

	if (hmm_devmem_should_fail(txn->devmem, HMM_DEVMEM_FAIL_DMA))
		return -EIO;
	if (!dma_use_iova(&txn->dma.iova)) {
		run->dma_addr = dma_map_phys(dev, phys, size, txn_dma_dir(txn), 0);
		return dma_mapping_error(dev, run->dma_addr);
	}
	ret = dma_iova_link(dev, &txn->dma.iova, phys, txn->dma.size, size,
			    txn_dma_dir(txn), 0);
	if (ret)
		return ret;
	run->dma_addr = txn->dma.iova.addr + txn->dma.size;
	txn->dma.size += size;
	return 0;
}

/**
 * hmm_devmem_dma_map() - Map the runs of a copy
 * @txn: The transaction. Runs that could not be mapped have an error.
 *
 * Context: Process context, may sleep.
 * Return: True if all were mapped.
 */
bool hmm_devmem_dma_map(struct hmm_devmem_txn *txn)
{
	struct device *dev = txn->devmem->dma_device;
	bool all = true;
	unsigned int r;

	txn->dma = (struct hmm_devmem_dma) { };
	dma_try_iova(txn);
	for (r = 0; r < txn->copy.nr_runs; r++) {
		if (!txn->runs[r].ram)
			continue;
		txn->runs[r].error = dma_map_run(txn, &txn->runs[r]);
		all &= !txn->runs[r].error;
	}
	if (!txn->dma.size ||
	    !dma_iova_sync(dev, &txn->dma.iova, 0, txn->dma.size))
		return all;
	for (r = 0; r < txn->copy.nr_runs; r++)
		txn->runs[r].error = -EIO;
	return false;
}

/**
 * hmm_devmem_dma_unmap() - Undo hmm_devmem_dma_map()
 * @txn: The transaction. Its runs that have system memory are mapped: those that
 *	could not be are there no more.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_dma_unmap(struct hmm_devmem_txn *txn)
{
	struct device *dev = txn->devmem->dma_device;
	unsigned int r;

	if (dma_use_iova(&txn->dma.iova)) {
		dma_iova_destroy(dev, &txn->dma.iova, txn->dma.size,
				 txn_dma_dir(txn), 0);
		return;
	}
	for (r = 0; r < txn->copy.nr_runs; r++)
		if (txn->runs[r].ram)
			dma_unmap_phys(dev, txn->runs[r].dma_addr,
				       run_size(&txn->runs[r]), txn_dma_dir(txn),
				       0);
}
