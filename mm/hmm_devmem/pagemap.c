// SPDX-License-Identifier: GPL-2.0
/*
 * Between struct dev_pagemap_ops, which core calls, and struct hmm_devmem_ops,
 * which drivers implement. Core is the only caller of this file.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/vmstat.h>

#include <trace/events/hmm_devmem.h>

#include "devmem.h"
#include "mirror.h"
#include "page.h"
#include "pagemap.h"
#include "poison.h"
#include "pool.h"
#include "segment.h"
#include "stats.h"

static struct hmm_devmem_segment *folio_segment(const struct folio *folio)
{
	return hmm_devmem_pagemap_segment(folio->pgmap);
}

static noinline void call_free(struct hmm_devmem_segment *segment,
			       struct page *page)
{
	struct hmm_devmem *devmem = segment->devmem;

	/* Fails only after the driver was removed, and its ops with it. */
	if (!hmm_devmem_ref_tryget(devmem)) {
		hmm_devmem_segment_page_freed(segment);
		return;
	}
	devmem->ops->free(devmem, page);
	hmm_devmem_ref_put(devmem);
}

static __always_inline void free_pages_of(struct hmm_devmem *devmem,
					  struct folio *folio,
					  unsigned int order)
{
	const unsigned long pfn = folio_pfn(folio);

	trace_hmm_devmem_free(pfn, order);
	hmm_devmem_mirror_debug_free(pfn, order);
	hmm_devmem_page_drop_context(&folio->page);
	hmm_devmem_count(devmem, HMM_DEVMEM_FREED, 1UL << order);
	if (order)
		hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, 1UL << order);
	/* From here on, the page can be allocated again. */
	hmm_devmem_pool_free(priv(devmem)->pool, pfn, order);
}

/*
 * A page that was mlocked when it moved to the device, and is not any more, has the
 * flag until it is freed. For other memory, the page allocator then clears the flag
 * and corrects the count of mlocked pages, but it does not see device pages: without
 * this, the next user of the page would find the flag set.
 */
static void forget_mlock(struct folio *folio)
{
	if (folio_test_clear_mlocked(folio))
		zone_stat_mod_folio(folio, NR_MLOCK, -folio_nr_pages(folio));
}

/*
 * Flags that the page allocator clears before a page gets its next user. For a
 * device page, core clears only the lowest byte. But it migrates these flags with
 * the page, so that what they said about the last user's page would be taken for the
 * next one's. All pages of ZONE_DEVICE are reserved.
 */
#define FLAGS_OF_USER (PAGE_FLAGS_CHECK_AT_PREP & ~(0xffUL | BIT(PG_reserved)))

/* The caller has the only pointer to the folio. */
static void forget_flags(struct folio *folio)
{
	folio->flags.f &= ~FLAGS_OF_USER;
	/* Keep the lowest byte: it is the order, which is still needed. */
	if (folio_test_large(folio))
		folio_page(folio, 1)->flags.f &= ~(PAGE_FLAGS_SECOND & ~0xffUL);
}

/* All but the common case, which needs fewer registers if this is not inlined. */
static noinline void free_special(struct hmm_devmem *devmem, struct folio *folio)
{
	forget_mlock(folio);
	forget_flags(folio);
	/* See pagemap_folio_free(). */
	if (data_race(priv(devmem)->has_free))
		call_free(folio_segment(folio), &folio->page);
	if (hmm_devmem_managed(devmem))
		free_pages_of(devmem, folio, folio_order(folio));
}

static void pagemap_folio_free(struct folio *folio)
{
	struct hmm_devmem *devmem = folio_segment(folio)->devmem;
	const unsigned long special = BIT(PG_head) | BIT(PG_mlocked);

	/*
	 * has_free is set for a free callback, which every classic devmem has, and
	 * for a zombie, which has to check its pages when one is freed.
	 */
	if (unlikely(folio->flags.f & special || data_race(priv(devmem)->has_free))) {
		free_special(devmem, folio);
		return;
	}
	folio->flags.f &= ~FLAGS_OF_USER;
	free_pages_of(devmem, folio, 0);
}

static vm_fault_t pagemap_migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_devmem *devmem = folio_segment(page_folio(vmf->page))->devmem;
	vm_fault_t ret;

	/*
	 * No callback begins any more when removal waits for the last one. Else
	 * processes that fault again and again could keep it waiting for ever.
	 */
	if (!hmm_devmem_ref_tryget_live(devmem))
		return VM_FAULT_SIGBUS;

	hmm_devmem_count(devmem, HMM_DEVMEM_FAULTS, 1);
	if (devmem->ops->fault)
		ret = devmem->ops->fault(devmem, vmf->vma, vmf->address,
					 vmf->page, vmf->flags, vmf->pmd);
	else
		ret = hmm_devmem_default_fault(devmem, vmf->vma, vmf->address,
					       vmf->page, vmf->flags, vmf->pmd);
	hmm_devmem_ref_put(devmem);
	return ret;
}

/* Tests replace this, to interfere while the context of a split folio is read. */
VISIBLE_IF_KUNIT struct hmm_devmem_context *
hmm_devmem_head_context(const struct folio *head)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_head_context, head);
	return READ_ONCE(head->page.zone_device_data);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_head_context);

/*
 * Give a part of a folio that core splits the folio's context. Core has interrupts off until
 * the split has ended, which zombies_drop_contexts() relies on.
 */
static void share_context(struct hmm_devmem *devmem, struct folio *head,
			  struct folio *tail)
{
	struct hmm_devmem_context *ctx = NULL;

	/* Removal may drop the folio's context now. */
	if (likely(!READ_ONCE(priv(devmem)->gone)))
		ctx = hmm_devmem_head_context(head);
	hmm_devmem_context_get(ctx);
	WRITE_ONCE(tail->page.zone_device_data, ctx);
}

/*
 * Called for each new folio that @head was split into, and in the end with
 * @tail NULL. The folios are frozen.
 */
static void pagemap_folio_split(struct folio *head, struct folio *tail)
{
	struct hmm_devmem *devmem = folio_segment(head)->devmem;

	if (!tail) {
		/* The head is a page of its own now: one large page less. */
		if (hmm_devmem_managed(devmem))
			hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, 1);
		return;
	}

	tail->pgmap = head->pgmap;
	tail->page.mapping = head->page.mapping;
	if (!hmm_devmem_managed(devmem)) {
		tail->page.zone_device_data = head->page.zone_device_data;
		return;
	}
	share_context(devmem, head, tail);
	hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, folio_nr_pages(tail));
}

/*
 * Without this callback, core would take device memory for that of a DAX device, and
 * the anon_vma of a page for an address_space.
 */
static int pagemap_memory_failure(struct dev_pagemap *pagemap,
				  unsigned long pfn, unsigned long nr_pages,
				  int mf_flags)
{
	struct hmm_devmem *devmem = hmm_devmem_pagemap_segment(pagemap)->devmem;
	const unsigned long end = min(pfn + nr_pages, devmem->pfn_last);
	int ret = 0;

	pr_err_ratelimited("memory failure on device pfns [%#lx, %#lx)\n", pfn,
			   pfn + nr_pages);
	/* Only the driver of a classic devmem can handle the loss of its pages. */
	if (!hmm_devmem_managed(devmem))
		return -EBUSY;
	pfn = max(pfn, devmem->pfn_first);
	hmm_devmem_pool_retire_range(priv(devmem)->pool, pfn, end);
	/* The caller's reference to the pagemap keeps the struct pages. */
	for (; pfn < end; pfn++)
		if (!hmm_devmem_poison_page(devmem, pfn))
			ret = -EBUSY;
	return ret;
}

const struct dev_pagemap_ops hmm_devmem_pagemap_ops = {
	.folio_free = pagemap_folio_free,
	.migrate_to_ram = pagemap_migrate_to_ram,
	.memory_failure = pagemap_memory_failure,
	.folio_split = pagemap_folio_split,
};
