// SPDX-License-Identifier: GPL-2.0
/*
 * Mapping the system memory of a copy for DMA by the device.
 */

/**
 * DOC: DMA
 *
 * With %HMM_DEVMEM_DMA every run of a copy that has system memory gets a DMA address
 * before the driver sees it. Where an IOMMU translates for the device, all runs of a copy
 * are put into one range of IOVA, which is allocated, flushed and given back once, and
 * runs that are neighbours in it and in device memory are joined. Elsewhere each run is
 * mapped by itself. Either way each run is unmapped exactly once: when the copy is over
 * and before any process sees the pages, since the unmapping copies data from a bounce
 * buffer to them.
 *
 * If a run cannot be mapped, only its own pages stay where they are.
 *
 * A device does not reach all memory if its DMA mask, or the bus, is narrower than
 * the machine's physical addresses, no IOMMU translates, and there are no bounce
 * buffers that it reaches. Then pages are brought back to memory that it does reach,
 * of which the page allocator has to have a whole zone: the lowest 4 GiB
 * (ZONE_DMA32) or less (ZONE_DMA), whatever the process's memory policy says. An add
 * fails if there is no such zone. If that memory is short, pages stay on the device
 * as for any want of memory, but no process is killed for it, and CPU faults wait.
 * Pages that the device cannot read do not move to it.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/visibility.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/ioport.h>
#include <linux/iommu-dma.h>
#include <linux/memblock.h>
#include <linux/migrate.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/swiotlb.h>

#include "devmem.h"
#include "dma.h"
#include "fail.h"
#include "txn.h"

/* Does core map for the device by dma-direct, without an IOMMU or dma_map_ops? */
static bool maps_directly(struct device *dev)
{
	return !get_dma_ops(dev) && !use_dma_iommu(dev);
}

/*
 * Can the device address this memory? Check before it is mapped, because core prints a
 * warning for memory that it cannot map.
 */
static bool reaches(struct device *dev, phys_addr_t phys, size_t size)
{
	return dma_capable(dev, phys_to_dma(dev, phys), size, true, 0);
}

/* Is a part of the range out of reach, or is it not contiguous for the device? */
static int ram_out_of_reach(unsigned long pfn, unsigned long nr, void *dev)
{
	const phys_addr_t first = PFN_PHYS(pfn), last = PFN_PHYS(pfn + nr - 1);

	return !reaches(dev, first, PAGE_SIZE) || !reaches(dev, last, PAGE_SIZE) ||
	       phys_to_dma(dev, last) - phys_to_dma(dev, first) != last - first;
}

/* Does the device reach all zones up to @highest, from which allocations can come? */
static bool reaches_zones(struct device *dev, enum zone_type highest)
{
	struct zone *zone;
	bool any = false;

	for_each_populated_zone(zone) {
		if (zone_idx(zone) > highest)
			continue;
		if (walk_system_ram_range(zone->zone_start_pfn,
					  zone->spanned_pages, dev,
					  ram_out_of_reach))
			return false;
		any = true;
	}
	return any;
}

#ifdef CONFIG_SWIOTLB
/* Does the device reach the present bounce buffers, and those that may be added? */
static bool reaches_bounce_buffers(struct device *dev)
{
	const struct io_tlb_mem *mem = dev->dma_io_tlb_mem;
	phys_addr_t last;

	if (!is_swiotlb_active(dev))
		return false;
	last = mem->defpool.end - 1;
#ifdef CONFIG_SWIOTLB_DYNAMIC
	if (mem->can_grow)
		last = max_t(phys_addr_t, last, mem->phys_limit);
#endif
	if (mem->cc_shared)
		return dma_capable(dev, phys_to_dma_unencrypted(dev, last), 1, true,
				   DMA_ATTR_CC_SHARED);
	return reaches(dev, mem->defpool.start, 1) && reaches(dev, last, 1);
}
#else
static bool reaches_bounce_buffers(struct device *dev)
{
	return false;
}
#endif

/* Zone modifiers for pages that are brought back, in the order of how much they allow. */
static const gfp_t ram_zones[] = { 0, GFP_DMA32, GFP_DMA };

static gfp_t ram_gfp_in(gfp_t zone)
{
	return (GFP_HIGHUSER_MOVABLE & ~__GFP_HIGHMEM) | __GFP_NOWARN | zone;
}

/* How to allocate memory for pages that are brought back; 0 if there is none. */
static gfp_t find_ram_gfp(struct device *dev)
{
	unsigned int i;

	if (!maps_directly(dev) || reaches_bounce_buffers(dev))
		return GFP_HIGHUSER_MOVABLE;
	if (is_swiotlb_force_bounce(dev))
		return 0;
	if (!dma_addressing_limited(dev))
		return GFP_HIGHUSER_MOVABLE;
	for (i = 0; i < ARRAY_SIZE(ram_zones); i++)
		if (reaches_zones(dev, gfp_zone(ram_gfp_in(ram_zones[i]))))
			return ram_gfp_in(ram_zones[i]);
	return 0;
}

/**
 * hmm_devmem_dma_init() - Get ready for DMA
 * @devmem: The device memory; its device and flags are set.
 * @desc: The descriptor that is being added.
 *
 * Context: Process context, may sleep.
 * Return: 0, -EINVAL if the device cannot do DMA, or -EIO if there is no memory that
 * its pages could be brought back to.
 */
int hmm_devmem_dma_init(struct hmm_devmem *devmem,
			const struct hmm_devmem_desc *desc)
{
	struct device *dev = desc->dma_device ?: devmem->device;

	priv(devmem)->max_run = UINT_MAX;
	priv(devmem)->ram_gfp = GFP_HIGHUSER_MOVABLE;
	if (!(desc->flags & HMM_DEVMEM_DMA))
		return 0;
	if (!dev->dma_mask)
		return -EINVAL;
	priv(devmem)->dma_max_pfn = READ_ONCE(max_pfn);
	priv(devmem)->ram_gfp = find_ram_gfp(dev);
	if (!priv(devmem)->ram_gfp) {
		dev_err(devmem->device,
			"a DMA mask of %#llx reaches neither all memory, nor bounce buffers, nor a whole zone\n",
			dma_get_mask(dev));
		return -EIO;
	}
	priv(devmem)->dma_device = dev;
	/* Bounce buffers limit the size of a run. */
	priv(devmem)->max_run = clamp(dma_max_mapping_size(dev) >> PAGE_SHIFT, 1,
				      HMM_DEVMEM_BLOCK_NR);
	return 0;
}

/**
 * __hmm_devmem_dma_ram_gfp() - hmm_devmem_dma_ram_gfp() of a device that does DMA
 * @devmem: A devmem with %HMM_DEVMEM_DMA.
 *
 * Memory that was plugged in since the last time can be out of the device's reach.
 *
 * Context: Process context. Does not sleep: a page table can be locked.
 * Return: GFP flags; without %__GFP_HIGHMEM if there is memory that is out of reach.
 */
gfp_t __hmm_devmem_dma_ram_gfp(struct hmm_devmem *devmem)
{
	const unsigned long now = READ_ONCE(max_pfn);
	gfp_t gfp;

	if (likely(READ_ONCE(priv(devmem)->dma_max_pfn) == now))
		return READ_ONCE(priv(devmem)->ram_gfp);
	/* If no whole zone is in reach, runs out of reach will not be mapped. */
	gfp = find_ram_gfp(priv(devmem)->dma_device) ?: ram_gfp_in(GFP_DMA);
	WRITE_ONCE(priv(devmem)->ram_gfp, gfp);
	WRITE_ONCE(priv(devmem)->dma_max_pfn, now);
	return gfp;
}

/**
 * __hmm_devmem_dma_reaches() - Can the device reach system memory?
 * @devmem: A devmem with %HMM_DEVMEM_DMA.
 * @phys: Physical address of the memory.
 * @size: Its size, bytes.
 *
 * Context: Process context. Does not sleep: a page table can be locked.
 * Return: False if the memory is out of reach.
 */
bool __hmm_devmem_dma_reaches(struct hmm_devmem *devmem, phys_addr_t phys,
			      size_t size)
{
	return likely(__hmm_devmem_dma_ram_gfp(devmem) & __GFP_HIGHMEM) ||
	       reaches(priv(devmem)->dma_device, phys, size);
}

static enum dma_data_direction txn_dma_dir(const struct hmm_devmem_txn *txn)
{
	return txn->to ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
}

static size_t run_size(const struct hmm_devmem_run *run)
{
	return (size_t)run->nr_pages << PAGE_SHIFT;
}

/* Allocate one range of IOVA for all runs, if it can map them page by page. */
static bool dma_try_iova(struct hmm_devmem_txn *txn)
{
	struct device *dev = priv(txn->devmem)->dma_device;
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
	struct device *dev = priv(txn->devmem)->dma_device;
	const phys_addr_t phys = page_to_phys(run->ram);
	const size_t size = run_size(run);
	int ret;

	if (hmm_devmem_should_fail(txn->devmem, HMM_DEVMEM_FAIL_DMA) ||
	    !hmm_devmem_dma_reaches(txn->devmem, phys, size))
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
	struct device *dev = priv(txn->devmem)->dma_device;
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

/*
 * Is @next a neighbour of @run on the device and in DMA addresses, and are both together no
 * larger than @max bytes, and on one side of all multiples of @boundary + 1?
 */
static bool run_joins(const struct hmm_devmem_run *run, const struct hmm_devmem_run *next,
		      size_t max, unsigned long boundary)
{
	const size_t size = run_size(run);
	const dma_addr_t last = next->dma_addr + run_size(next) - 1;

	return run->ram && next->ram && run->offset + size == next->offset &&
	       run->dma_addr + size == next->dma_addr && size + run_size(next) <= max &&
	       !((run->dma_addr ^ last) & ~(u64)boundary);
}

/* Append @next, whose first page is @mpfn in an array of core's, to @run. */
static void run_join(struct hmm_devmem_run *run, const struct hmm_devmem_run *next,
		     const unsigned long *mpfn)
{
	if (!run->mpfns && page_to_pfn(next->ram) != page_to_pfn(run->ram) + run->nr_pages)
		run->mpfns = mpfn - run->nr_pages;
	run->nr_pages += next->nr_pages;
}

/**
 * hmm_devmem_dma_join_runs() - Join runs that are contiguous for the device
 * @txn: The transaction; its runs are mapped.
 * @max: Size of the largest run, bytes.
 * @boundary: Runs do not cross addresses that are a multiple of @boundary + 1.
 *
 * Runs are not joined across a page that stays, so that a run is still contiguous in the
 * process, and in core's arrays.
 *
 * Context: Any context.
 */
VISIBLE_IF_KUNIT void hmm_devmem_dma_join_runs(struct hmm_devmem_txn *txn, size_t max,
					       unsigned long boundary)
{
	const unsigned long *mpfns = txn->to ? txn->src : txn->dst;
	const bool large = txn_dst_is_large(txn);
	struct hmm_devmem_run *run = NULL;
	unsigned int i = 0, end = 0, r, nr = 0;

	for (r = 0; r < txn->copy.nr_runs; r++) {
		const struct hmm_devmem_run *next = &txn->runs[r];

		while (!large && !txn->dst[i])
			i++;
		if (run && i == end && run_joins(run, next, max, boundary)) {
			run_join(run, next, &mpfns[i]);
		} else {
			run = &txn->runs[nr++];
			if (run != next)
				*run = *next;
		}
		i += txn->runs[r].nr_pages;
		end = i;
	}
	txn->copy.nr_runs = nr;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_dma_join_runs);

/**
 * hmm_devmem_dma_join() - Make the runs of a copy as long as possible
 * @txn: The transaction, after hmm_devmem_dma_map(); runs that could not be mapped were
 *	removed.
 *
 * Runs that were mapped one by one are also unmapped one by one, so they stay.
 *
 * Context: Any context.
 */
void hmm_devmem_dma_join(struct hmm_devmem_txn *txn)
{
	struct device *dev = priv(txn->devmem)->dma_device;

	if (dma_use_iova(&txn->dma.iova))
		hmm_devmem_dma_join_runs(txn, dma_get_max_seg_size(dev),
					 dma_get_seg_boundary(dev));
}

/**
 * hmm_devmem_run_page() - A page of system memory of a run
 * @run: The run, from a copy callback or copy_wait().
 * @i: Number of the page, less than &hmm_devmem_run.nr_pages.
 *
 * Context: Any context, until copy_wait() returns.
 * Return: The page; NULL if the driver is to clear device pages.
 */
struct page *hmm_devmem_run_page(const struct hmm_devmem_run *run, unsigned int i)
{
	if (run->mpfns)
		return migrate_pfn_to_page(run->mpfns[i]);
	return run->ram ? pfn_to_page(page_to_pfn(run->ram) + i) : NULL;
}
EXPORT_SYMBOL_GPL(hmm_devmem_run_page);

/**
 * hmm_devmem_dma_unmap() - Undo hmm_devmem_dma_map()
 * @txn: The transaction. Its runs that have system memory are mapped: those that
 *	could not be mapped were removed.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_dma_unmap(struct hmm_devmem_txn *txn)
{
	struct device *dev = priv(txn->devmem)->dma_device;
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
