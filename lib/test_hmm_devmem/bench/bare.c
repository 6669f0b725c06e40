// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory with core's functions and nothing else: what the library is compared with.
 *
 * This is the least that a driver needs: two stacks of free pages, core's
 * migrate_vma_*() for a window at a time, one copy. There are no checks, no
 * counters, no page table of the device, no way to remove memory that is in use,
 * no eviction, and a copy that fails loses data. Pages that were never used are on
 * no stack: small ones are taken from the start of the range, large ones from its end.
 */

#include <linux/align.h>
#include <linux/err.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/numa.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#include "bench.h"

/**
 * struct bare_memory - the device memory, of which there is one
 * @pagemap: What core knows about it.
 * @resource: The reserved range.
 * @first: First pfn.
 * @lock: Protects what follows.
 * @small: Free pages that have been used before, linked by zone_device_data.
 * @large: Free large folios that have been used before, linked in the same way.
 * @next_small: First pfn of those never used.
 * @next_large: One past the last of them.
 */
static struct bare_memory {
	struct dev_pagemap pagemap;
	struct resource *resource;
	unsigned long first;
	spinlock_t lock; /* protects what follows */
	struct page *small;
	struct page *large;
	unsigned long next_small;
	unsigned long next_large;
} bare;

static unsigned int bare_window = 1;

/**
 * bench_bare_set_window() - How many pages a CPU fault brings back
 * @nr: A power of two, not more than a PMD has.
 *
 * Context: Any context. No page is on the device.
 */
void bench_bare_set_window(unsigned int nr)
{
	bare_window = nr;
}

static struct page *bare_pop(struct page **stack)
{
	struct page *page = *stack;

	if (page)
		*stack = page->zone_device_data;
	return page;
}

static struct page *bare_take(unsigned int order)
{
	struct page *page;

	guard(spinlock)(&bare.lock);
	page = bare_pop(order ? &bare.large : &bare.small);
	if (page)
		return page;
	if (bare.next_large - bare.next_small < 1UL << order)
		return NULL;
	if (!order)
		return pfn_to_page(bare.next_small++);
	bare.next_large -= 1UL << order;
	return pfn_to_page(bare.next_large);
}

static struct folio *bare_alloc(unsigned int order)
{
	struct page *page = bare_take(order);

	if (!page)
		return NULL;
	zone_device_folio_init((struct folio *)page, &bare.pagemap, order);
	return page_folio(page);
}

static void bare_free(struct folio *folio)
{
	struct page **stack = folio_order(folio) ? &bare.large : &bare.small;

	guard(spinlock)(&bare.lock);
	folio->page.zone_device_data = *stack;
	*stack = &folio->page;
}

/* Allocate a destination for every page that core has collected, and copy it. */
static void bare_copy(struct migrate_vma *mig, enum hmm_devmem_dir dir)
{
	unsigned long i, nr;

	for (i = 0; i < mig->npages; i += nr) {
		const unsigned int order = mig->src[i] & MIGRATE_PFN_COMPOUND ?
					   HPAGE_PMD_ORDER : 0;
		struct page *src = migrate_pfn_to_page(mig->src[i]);
		struct page *device;
		struct folio *dst;

		nr = 1UL << order;
		if (!(mig->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (dir == HMM_DEVMEM_TO_DEVICE) {
			dst = bare_alloc(order);
		} else {
			dst = vma_alloc_folio(GFP_HIGHUSER_MOVABLE, order,
					      mig->vma,
					      mig->start + (i << PAGE_SHIFT));
			if (dst)
				__folio_set_locked(dst);
		}
		if (!dst)
			continue;
		device = dir == HMM_DEVMEM_TO_DEVICE ? &dst->page : src;
		bench_copy(PFN_PHYS(page_to_pfn(device) - bare.first),
			   dir == HMM_DEVMEM_TO_DEVICE ? src : &dst->page,
			   nr, dir);
		mig->dst[i] = migrate_pfn(folio_pfn(dst)) |
			      (order ? MIGRATE_PFN_COMPOUND : 0);
	}
}

/* At most one PMD. Returns how many pages have moved, or an errno. */
static long bare_migrate_window(struct migrate_vma *mig, enum hmm_devmem_dir dir)
{
	const unsigned long nr = (mig->end - mig->start) >> PAGE_SHIFT;
	unsigned long i, moved = 0;

	mig->src = kcalloc(2 * nr, sizeof(*mig->src), GFP_KERNEL);
	if (!mig->src)
		return -ENOMEM;
	mig->dst = mig->src + nr;
	mig->pgmap_owner = &bare;
	if (!migrate_vma_setup(mig) && mig->cpages) {
		bare_copy(mig, dir);
		migrate_vma_pages(mig);
		for (i = 0; i < mig->npages; i++)
			if (mig->dst[i] && mig->src[i] & MIGRATE_PFN_MIGRATE)
				moved += mig->dst[i] & MIGRATE_PFN_COMPOUND ?
					 HPAGE_PMD_NR : 1;
		migrate_vma_finalize(mig);
	}
	kfree(mig->src);
	return moved;
}

static long bare_migrate(struct mm_struct *mm, unsigned long start,
			 unsigned long end, enum hmm_devmem_dir dir)
{
	long ret = 0, moved = 0;

	mmap_read_lock(mm);
	while (start < end && ret >= 0) {
		struct migrate_vma mig = {
			.vma = vma_lookup(mm, start),
			.start = start,
			.flags = MIGRATE_VMA_SELECT_COMPOUND |
				 (dir == HMM_DEVMEM_TO_DEVICE ?
				  MIGRATE_VMA_SELECT_SYSTEM :
				  MIGRATE_VMA_SELECT_DEVICE_PRIVATE),
		};

		if (!mig.vma) {
			ret = -EFAULT;
			break;
		}
		mig.end = min3(ALIGN(start + 1, HPAGE_PMD_SIZE), end,
			       mig.vma->vm_end);
		start = mig.end;
		ret = bare_migrate_window(&mig, dir);
		moved += ret;
	}
	mmap_read_unlock(mm);
	return ret < 0 ? ret : moved;
}

static vm_fault_t bare_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	const unsigned int order = folio_order(page_folio(vmf->page));
	const unsigned long size = PAGE_SIZE * (order ? 1UL << order : bare_window);
	struct migrate_vma mig = {
		.vma = vma,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE |
			 (order ? MIGRATE_VMA_SELECT_COMPOUND : 0),
		.fault_page = vmf->page,
	};

	mig.start = max(ALIGN_DOWN(vmf->address, size), vma->vm_start);
	mig.end = min(ALIGN_DOWN(vmf->address, size) + size, vma->vm_end);
	return bare_migrate_window(&mig, HMM_DEVMEM_TO_RAM) < 0 ?
	       VM_FAULT_OOM : 0;
}

static const struct dev_pagemap_ops bare_ops = {
	.folio_free = bare_free,
	.migrate_to_ram = bare_fault,
};

static int bare_add(struct device *device, u64 size)
{
	struct dev_pagemap *pagemap = &bare.pagemap;
	void *ret;

	memset(&bare, 0, sizeof(bare));
	spin_lock_init(&bare.lock);
	bare.resource = request_free_mem_region(&iomem_resource, size,
						"hmm_devmem_bench");
	if (IS_ERR(bare.resource))
		return PTR_ERR(bare.resource);
	pagemap->type = MEMORY_DEVICE_PRIVATE;
	pagemap->range.start = bare.resource->start;
	pagemap->range.end = bare.resource->end;
	pagemap->nr_range = 1;
	pagemap->ops = &bare_ops;
	pagemap->owner = &bare;
	ret = memremap_pages(pagemap, NUMA_NO_NODE);
	if (IS_ERR(ret)) {
		release_mem_region(bare.resource->start,
				   resource_size(bare.resource));
		return PTR_ERR(ret);
	}
	bare.first = PHYS_PFN(bare.resource->start);
	bare.next_small = bare.first;
	bare.next_large = PHYS_PFN(bare.resource->end + 1);
	return 0;
}

static void bare_remove(void)
{
	memunmap_pages(&bare.pagemap);
	release_mem_region(bare.resource->start, resource_size(bare.resource));
}

const struct bench_kind bench_bare = {
	.add = bare_add,
	.remove = bare_remove,
	.alloc = bare_alloc,
	.migrate = bare_migrate,
};
