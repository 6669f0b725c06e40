// SPDX-License-Identifier: GPL-2.0
/*
 * Between struct dev_pagemap_ops, which core calls, and struct hmm_devmem_ops,
 * which drivers implement.
 */

/**
 * DOC: Pages
 *
 * Core finds the owner of a device page by the struct dev_pagemap of its folio.
 * Ours is part of a struct hmm_devmem_segment, which knows the devmem.
 *
 * The one word that core leaves to the owner of a device page, zone_device_data,
 * holds the driver's drvdata in a classic devmem, one for each page. In a managed
 * devmem it holds, in the first page of each folio, the context that the folio
 * was allocated with. The folio has a reference on it, which is dropped when the
 * folio is freed or when the driver goes away, whichever is first: both take the
 * word out with xchg(), so that exactly one of them drops it. RCU keeps the driver
 * until the other one, who may be about to, has done it.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/export.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

static struct hmm_devmem_segment *folio_segment(const struct folio *folio)
{
	return hmm_devmem_pagemap_segment(folio->pgmap);
}

/**
 * hmm_devmem_page_drop_context() - A device page forgets its context
 * @page: First page of a folio of a managed devmem.
 *
 * Context: Any context in which a folio can be freed.
 */
void hmm_devmem_page_drop_context(struct page *page)
{
	if (!READ_ONCE(page->zone_device_data))
		return;
	/* See hmm_devmem_segments_release(). */
	guard(rcu)();
	hmm_devmem_context_put(xchg(&page->zone_device_data, NULL));
}

static noinline void call_free(struct hmm_devmem *devmem, struct page *page)
{
	/* Fails only when the driver has gone, and its ops with it. */
	if (!hmm_devmem_tryget(devmem))
		return;
	devmem->ops->free(devmem, page);
	hmm_devmem_put(devmem);
}

static __always_inline void free_pages_of(struct hmm_devmem *devmem,
					  struct folio *folio,
					  unsigned int order)
{
	const unsigned long pfn = folio_pfn(folio);

	trace_hmm_devmem_free(pfn, order);
	hmm_devmem_page_drop_context(&folio->page);
	hmm_devmem_count(devmem, HMM_DEVMEM_FREED, 1UL << order);
	if (order)
		hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, 1UL << order);
	/* From here on the page may be somebody else's. */
	hmm_devmem_alloc_put(devmem->alloc, pfn, order);
}

static void pagemap_folio_free(struct folio *folio)
{
	struct hmm_devmem *devmem = folio_segment(folio)->devmem;

	if (unlikely(devmem->has_free))
		call_free(devmem, &folio->page);
	if (!hmm_devmem_managed(devmem))
		return;
	if (likely(!folio_test_large(folio)))
		free_pages_of(devmem, folio, 0);
	else
		free_pages_of(devmem, folio, folio_order(folio));
}

static vm_fault_t pagemap_migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_devmem *devmem = folio_segment(page_folio(vmf->page))->devmem;
	vm_fault_t ret;

	if (!hmm_devmem_tryget(devmem))
		return VM_FAULT_SIGBUS;

	hmm_devmem_count(devmem, HMM_DEVMEM_FAULTS, 1);
	if (devmem->ops->fault)
		ret = devmem->ops->fault(devmem, vmf->vma, vmf->address,
					 vmf->page, vmf->flags, vmf->pmd);
	else
		ret = hmm_devmem_default_fault(devmem, vmf->vma, vmf->address,
					       vmf->page, vmf->flags, vmf->pmd);
	hmm_devmem_put(devmem);
	return ret;
}

/*
 * Called for each new folio that @head was split into, and in the end with
 * @tail NULL. The folios are frozen.
 */
static void pagemap_folio_split(struct folio *head, struct folio *tail)
{
	struct hmm_devmem *devmem = folio_segment(head)->devmem;

	if (!tail) {
		/* The head is split already: it takes its own part away. */
		if (hmm_devmem_managed(devmem))
			hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, 1);
		return;
	}

	tail->pgmap = head->pgmap;
	tail->page.mapping = head->page.mapping;
	tail->page.zone_device_data = head->page.zone_device_data;
	if (!hmm_devmem_managed(devmem))
		return;
	hmm_devmem_context_get(tail->page.zone_device_data);
	hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, folio_nr_pages(tail));
}

/*
 * Without this callback core would take device memory for that of a DAX device
 * and its anon_vma for an address_space.
 */
static int pagemap_memory_failure(struct dev_pagemap *pagemap,
				  unsigned long pfn, unsigned long nr_pages,
				  int mf_flags)
{
	struct hmm_devmem *devmem = hmm_devmem_pagemap_segment(pagemap)->devmem;
	int ret = 0;

	pr_err_ratelimited("memory failure on device pfns [%#lx, %#lx)\n", pfn,
			   pfn + nr_pages);
	/* What is lost of a classic devmem only its driver can know. */
	if (!hmm_devmem_managed(devmem))
		return -EBUSY;
	/* The caller's reference to the pagemap keeps the struct pages. */
	for (; nr_pages--; pfn++)
		if (hmm_devmem_has_pfn(devmem, pfn) &&
		    !hmm_devmem_poison_page(devmem, pfn))
			ret = -EBUSY;
	return ret;
}

const struct dev_pagemap_ops hmm_devmem_pagemap_ops = {
	.folio_free = pagemap_folio_free,
	.migrate_to_ram = pagemap_migrate_to_ram,
	.memory_failure = pagemap_memory_failure,
	.folio_split = pagemap_folio_split,
};

/**
 * hmm_devmem_from_page() - Whose device memory is a page?
 * @page: Any page; the caller has a reference, or a lock that keeps it in use.
 *
 * Context: Any context.
 * Return: The devmem that @page is of, or NULL if it is of none.
 */
struct hmm_devmem *hmm_devmem_from_page(const struct page *page)
{
	const unsigned long pfn = page_to_pfn(page);
	struct dev_pagemap *pagemap;
	struct hmm_devmem *devmem;

	if (!is_zone_device_page(page))
		return NULL;
	pagemap = page_pgmap(page);
	if (!pagemap || pagemap->ops != &hmm_devmem_pagemap_ops)
		return NULL;
	devmem = hmm_devmem_pagemap_segment(pagemap)->devmem;
	/* Struct pages come in larger units than device memory. */
	return hmm_devmem_has_pfn(devmem, pfn) ? devmem : NULL;
}
EXPORT_SYMBOL_GPL(hmm_devmem_from_page);

/**
 * hmm_devmem_page_offset() - Where in the device's memory is a page?
 * @page: A page of a devmem.
 *
 * Context: Any context.
 * Return: Offset in bytes from the start of device memory.
 */
u64 hmm_devmem_page_offset(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_from_page(page);

	if (WARN_ON_ONCE(!devmem))
		return 0;
	return (u64)(page_to_pfn(page) - devmem->pfn_first) << PAGE_SHIFT;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_offset);

/**
 * hmm_devmem_page_set_drvdata() - Set a driver's data of a page
 * @page: A page of a classic devmem; the caller has allocated it. Of a large
 *	folio only the first page has such data.
 * @data: Anything; kept until the page is freed.
 *
 * In a managed devmem the library uses this word; nothing is changed there.
 *
 * Context: Any context.
 */
void hmm_devmem_page_set_drvdata(struct page *page, unsigned long data)
{
	struct hmm_devmem *devmem = hmm_devmem_from_page(page);

	if (WARN_ON_ONCE(!devmem || hmm_devmem_managed(devmem)))
		return;
	page->zone_device_data = (void *)data;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_set_drvdata);

/**
 * hmm_devmem_page_get_drvdata() - Get a driver's data of a page
 * @page: A page of a classic devmem; see hmm_devmem_page_set_drvdata().
 *
 * Context: Any context.
 * Return: What was set last; undefined if nothing was since the page was
 * allocated; 0 in a managed devmem.
 */
unsigned long hmm_devmem_page_get_drvdata(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_from_page(page);

	if (WARN_ON_ONCE(!devmem || hmm_devmem_managed(devmem)))
		return 0;
	return (unsigned long)page->zone_device_data;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_get_drvdata);

/**
 * hmm_devmem_page_context() - Get the context of a page
 * @page: A page of a managed devmem that cannot be freed meanwhile.
 *
 * Context: Any context.
 * Return: The context its folio was allocated with, without a new reference, or
 * NULL if there was none.
 */
struct hmm_devmem_context *hmm_devmem_page_context(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_from_page(page);

	if (WARN_ON_ONCE(!devmem || !hmm_devmem_managed(devmem)))
		return NULL;
	return READ_ONCE(page_folio(page)->page.zone_device_data);
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_context);

/* Inline, since half of what it costs to allocate a page would be the call. */
static __always_inline struct folio *
init_pages(struct hmm_devmem *devmem, unsigned long pfn, unsigned int order,
	   struct hmm_devmem_context *ctx)
{
	struct page *page = pfn_to_page(pfn);

	zone_device_folio_init((struct folio *)page,
			       hmm_devmem_allocated_pagemap(devmem, pfn), order);
	page->zone_device_data = ctx;
	trace_hmm_devmem_alloc(pfn, order);
	return (struct folio *)page;
}

static __always_inline struct folio *
init_folio(struct hmm_devmem *devmem, unsigned long pfn, unsigned int order,
	   struct hmm_devmem_context *ctx)
{
	hmm_devmem_context_get(ctx);
	hmm_devmem_count(devmem, HMM_DEVMEM_ALLOCATED, 1UL << order);
	if (order)
		hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_ALLOCATED, 1UL << order);
	return init_pages(devmem, pfn, order, ctx);
}

/**
 * hmm_devmem_init_folio() - Make a folio of free device pages
 * @devmem: A managed devmem.
 * @pfn: First of 2^@order pages from its allocator.
 * @order: Size.
 * @ctx: Context, or NULL; the folio takes a reference.
 *
 * Context: Any context. @devmem cannot be removed meanwhile.
 * Return: The folio, locked and with one reference.
 */
struct folio *hmm_devmem_init_folio(struct hmm_devmem *devmem,
				    unsigned long pfn, unsigned int order,
				    struct hmm_devmem_context *ctx)
{
	return init_folio(devmem, pfn, order, ctx);
}

/**
 * hmm_devmem_init_pages() - Make folios of many free device pages
 * @devmem: A managed devmem.
 * @pfns: Pages from its allocator.
 * @nr: How many.
 * @ctx: Context, or NULL; each folio takes a reference.
 *
 * Context: Any context. @devmem cannot be removed meanwhile.
 */
void hmm_devmem_init_pages(struct hmm_devmem *devmem, const unsigned long *pfns,
			   unsigned int nr, struct hmm_devmem_context *ctx)
{
	unsigned int i;

	if (!nr)
		return;
	if (ctx)
		refcount_add(nr, &ctx->refs);
	hmm_devmem_count(devmem, HMM_DEVMEM_ALLOCATED, nr);
	for (i = 0; i < nr; i++)
		init_pages(devmem, pfns[i], 0, ctx);
}

/**
 * hmm_devmem_alloc_folio() - Allocate device memory
 * @devmem: A managed devmem.
 * @order: PAGE_SIZE << @order bytes, naturally aligned. Core migrates folios
 *	of order 0 and HPAGE_PMD_ORDER.
 * @ctx: Context of the folio, which takes a reference on it; may be NULL.
 *
 * Nothing is cleared: the folio holds what was there before. Free it with
 * folio_unlock() and folio_put().
 *
 * Context: Any context; with %HMM_DEVMEM_LAZY process context, may sleep, and the
 * caller has locked no folio and no mmap lock.
 * Return: The folio, locked and with one reference; NULL if there is no such
 * piece, @order is too large, or @devmem is classic or being removed.
 */
struct folio *hmm_devmem_alloc_folio(struct hmm_devmem *devmem,
				     unsigned int order,
				     struct hmm_devmem_context *ctx)
{
	unsigned long pfn;
	int ret;

	if (!hmm_devmem_managed(devmem))
		return NULL;
	/*
	 * No reference is needed: removal leaves the struct pages of an area
	 * alone as long as a page of it is allocated.
	 */
	ret = hmm_devmem_alloc_get(devmem->alloc, order, &pfn);
	while (unlikely(ret == -ENOMEM && hmm_devmem_can_grow(devmem))) {
		if (hmm_devmem_segments_grow(devmem))
			break;
		ret = hmm_devmem_alloc_get(devmem->alloc, order, &pfn);
	}
	if (unlikely(ret))
		return NULL;
	/* Twice, so that the compiler knows the order of the common case. */
	return likely(!order) ? init_folio(devmem, pfn, 0, ctx) :
				init_folio(devmem, pfn, order, ctx);
}
EXPORT_SYMBOL_GPL(hmm_devmem_alloc_folio);
