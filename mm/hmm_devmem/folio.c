// SPDX-License-Identifier: GPL-2.0
/*
 * Folios made of free device pages.
 */

#include <linux/export.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/percpu-rwsem.h>

#include <trace/events/hmm_devmem.h>

#include "borrow.h"
#include "devmem.h"
#include "folio.h"
#include "pool.h"
#include "segment.h"
#include "stats.h"

/* How often an allocation creates struct pages if other tasks use up the new ones. */
#define HMM_DEVMEM_GROW_TRIES		8

/* Inline: a call would make the allocation of a page cost half as much again. */
static __always_inline struct folio *
init_pages(struct hmm_devmem *devmem, unsigned long pfn, unsigned int order,
	   struct hmm_devmem_context *ctx)
{
	struct page *page = pfn_to_page(pfn);

	zone_device_folio_init((struct folio *)page,
			       hmm_devmem_allocated_pagemap(devmem, pfn), order);
	page->zone_device_data = ctx;
	/* See "DOC: Pages": no page table tells when the device writes. */
	folio_set_dirty((struct folio *)page);
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
 * @pfn: First of 2^@order pages from its pool.
 * @order: Order of the folio.
 * @ctx: Context, or NULL; the folio takes a reference.
 *
 * Context: Process context, may sleep: core waits for the lock of the page, which
 * eviction, looking for pages by pfn, can have taken first. The caller keeps @devmem
 * from being removed.
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
 * @pfns: Pages from its pool.
 * @nr: How many.
 * @ctx: Context, or NULL; each folio takes a reference.
 *
 * Context: Process context, may sleep, see hmm_devmem_init_folio(). The caller keeps
 * @devmem from being removed.
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

/* No page was free: with %HMM_DEVMEM_LAZY more struct pages can be created. */
static noinline int grow_and_get(struct hmm_devmem *devmem, unsigned int order,
				 unsigned long *pfn, int ret)
{
	unsigned int seq, tries = HMM_DEVMEM_GROW_TRIES;

	if (ret != -ENOMEM || !(priv(devmem)->flags & HMM_DEVMEM_LAZY))
		return ret;
	for (;;) {
		/* Struct pages can have come or gone while the caller looked. */
		seq = hmm_devmem_segments_seq(devmem);
		ret = hmm_devmem_pool_alloc(priv(devmem)->pool, order, pfn);
		if (ret != -ENOMEM || !tries-- || !hmm_devmem_can_get_more(devmem, seq) ||
		    hmm_devmem_get_more(devmem, seq, 1UL << order))
			return ret;
	}
}

/**
 * hmm_devmem_alloc_folio() - Allocate device memory
 * @devmem: A managed devmem.
 * @order: PAGE_SIZE << @order bytes, naturally aligned. Core migrates folios
 *	of order 0 and HPAGE_PMD_ORDER; those of more than 2 MiB are split before.
 * @ctx: Context of the folio, which takes a reference on it; may be NULL.
 *
 * The folio is not cleared: it has the content that the memory had before. Free it
 * with folio_unlock() and folio_put(). Until a process has it, the driver can keep the
 * lock: neither removal nor hmm_devmem_poison() waits for it.
 *
 * For an @order between 0 and HPAGE_PMD_ORDER, blocks that are partly in use are searched.
 * How long that takes depends on how many of them have had pages freed since they were
 * searched last, but interrupts are off for no more than eight of them at a time.
 *
 * Context: Process context, may sleep. With %HMM_DEVMEM_LAZY the caller has locked
 * no folio and no mmap lock; with %HMM_DEVMEM_SHARED it has no lock either that
 * &hmm_devmem_ops.get_blocks takes.
 * Return: The folio, locked and with one reference. NULL if no free memory of that size is
 * left, @order is too large, or @devmem is classic, being removed or suspended. With
 * %HMM_DEVMEM_LAZY also if there is no system memory for struct pages, if the caller is
 * being killed while it waits for them, or if other tasks have taken the new pages eight
 * times.
 */
struct folio *hmm_devmem_alloc_folio(struct hmm_devmem *devmem,
				     unsigned int order,
				     struct hmm_devmem_context *ctx)
{
	struct folio *folio = NULL;
	unsigned long pfn;
	int ret;

	might_sleep();
	/*
	 * Removal waits until each page that was taken from the pool looks like one
	 * in use. Only try: the caller can have locked folios that removal waits for.
	 */
	if (!hmm_devmem_managed(devmem) || !percpu_down_read_trylock(&priv(devmem)->handout))
		return NULL;
	ret = hmm_devmem_pool_alloc(priv(devmem)->pool, order, &pfn);
	if (unlikely(ret))
		ret = grow_and_get(devmem, order, &pfn, ret);
	/* Two calls, so that order 0 is a constant in the inlined fast path. */
	if (likely(!ret))
		folio = likely(!order) ? init_folio(devmem, pfn, 0, ctx) :
					 init_folio(devmem, pfn, order, ctx);
	percpu_up_read(&priv(devmem)->handout);
	return folio;
}
EXPORT_SYMBOL_GPL(hmm_devmem_alloc_folio);
