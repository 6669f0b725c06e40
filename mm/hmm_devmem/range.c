// SPDX-License-Identifier: GPL-2.0
/*
 * Physical addresses of device memory: find a free range, or check that of the
 * driver.
 */

#include <linux/device.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/overflow.h>
#include <linux/preempt.h>
#include <linux/range.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/swap.h>

#include "range.h"
#include "segment.h"

/**
 * hmm_devmem_range_reserve() - Reserve physical addresses that nothing else uses
 * @devmem: The device memory; gets the range. hmm_devmem_release() gives it back.
 * @size: Bytes of device memory.
 * @flags: %HMM_DEVMEM_LAZY or 0.
 *
 * Context: Process context, may sleep.
 * Return: 0 or an errno, see hmm_devmem_add_desc().
 */
int hmm_devmem_range_reserve(struct hmm_devmem *devmem, u64 size,
			     unsigned long flags)
{
	const struct range limits = mhp_get_pluggable_range(false);
	struct resource *res;
	const char *name;
	u64 rounded;
	int ret;

	if (!size)
		return -ENODATA;
	/* Round up: the device has whole pages, and core reserves whole sections. */
	if (check_add_overflow(size, (u64)PAGES_PER_SECTION << PAGE_SHIFT,
			       &rounded))
		return -EOVERFLOW;
	if (rounded > range_len(&limits))
		return -ERANGE;
	ret = flags & HMM_DEVMEM_LAZY ? 0 : hmm_devmem_memmap_fits(rounded);
	if (ret)
		return ret;

	/* Copy the name, since the range of a zombie outlives the device. */
	name = kstrdup(dev_name(devmem->device), GFP_KERNEL);
	if (!name)
		return -ENOMEM;
	res = request_free_mem_region(&iomem_resource, size, name);
	if (IS_ERR(res)) {
		kfree(name);
		return PTR_ERR(res);
	}

	devmem->resource = res;
	devmem->pfn_first = PHYS_PFN(res->start);
	devmem->pfn_last = devmem->pfn_first + PFN_UP(size);
	return 0;
}

/*
 * Does not use pfn_valid(), which is also true for addresses near the memory that
 * was present at boot.
 */
static bool has_struct_page(unsigned long pfn)
{
	struct mem_section *section;

	if (pfn_to_section_nr(pfn) >= NR_MEM_SECTIONS)
		return false;
	section = __pfn_to_section(pfn);
	/* As in pfn_valid(): the bitmap is freed with the section. */
	guard(preempt)();
	return valid_section(section) && pfn_section_valid(section, pfn);
}

/*
 * Core checks only the ends of a range, and warns. Every pagemap is at least as
 * large as the step here. get_dev_pagemap() does not find a pagemap that is being
 * removed, but that has struct pages until shortly before its end.
 */
static bool range_has_pagemap(const struct range *range)
{
	struct dev_pagemap *pagemap;
	u64 addr;

	for (addr = range->start; addr <= range->end;
	     addr += memremap_compat_align()) {
		if (has_struct_page(PHYS_PFN(addr)))
			return true;
		pagemap = get_dev_pagemap(PHYS_PFN(addr));
		if (pagemap) {
			put_dev_pagemap(pagemap);
			return true;
		}
	}
	return false;
}

/**
 * hmm_devmem_range_check() - Use a range that the driver has reserved
 * @devmem: The device memory; gets the range.
 * @res: The range.
 * @flags: %HMM_DEVMEM_LAZY or 0.
 *
 * Core would warn about much of what this refuses.
 *
 * Context: Process context, may sleep.
 * Return: 0 or an errno, see hmm_devmem_add_desc().
 */
int hmm_devmem_range_check(struct hmm_devmem *devmem, struct resource *res,
			   unsigned long flags)
{
	const struct range range = { .start = res->start, .end = res->end };
	const struct range limits = mhp_get_pluggable_range(true);
	const u64 size = resource_size(res);

	if (!size)
		return -ENODATA;
	if (range.end < range.start)
		return -EOVERFLOW;
	if (!IS_ALIGNED(range.start | size, memremap_compat_align()))
		return -EADDRNOTAVAIL;
	if (!range_contains(&limits, &range))
		return -ERANGE;
	if (region_intersects(range.start, size, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_DISJOINT)
		return -ENXIO;
	if (hmm_devmem_range_has_segment(&range) || range_has_pagemap(&range)) {
		/*
		 * Drop references in core's batches for mlock (see evict.c). If
		 * these were the last ones, the next try succeeds.
		 */
		lru_add_drain_all();
		return -EBUSY;
	}

	devmem->resource = res;
	devmem->pfn_first = PHYS_PFN(range.start);
	devmem->pfn_last = PHYS_PFN(range.end + 1);
	return flags & HMM_DEVMEM_LAZY ? 0 : hmm_devmem_memmap_fits(size);
}
