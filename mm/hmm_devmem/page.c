// SPDX-License-Identifier: GPL-2.0
/*
 * From a device page to its devmem, its offset, and its context or drvdata.
 */

/**
 * DOC: Pages
 *
 * Core finds the owner of a device page by the struct dev_pagemap of its folio.
 * Those of the library are part of a struct hmm_devmem_segment, which points to the
 * devmem.
 *
 * The one word that core leaves to the owner of a device page, zone_device_data,
 * holds the driver's drvdata in a classic devmem, one for each page. In a managed
 * devmem it holds, in the first page of each folio, the context that the folio
 * was allocated with. The folio has a reference on it, which is dropped when the
 * folio is freed or when the driver goes away, whichever is first: both take the
 * word out with xchg(), so that exactly one of them drops the reference. A task that frees
 * a folio drops it under rcu_read_lock(), so removal, which waits for a grace period,
 * does not return before such a task has called the driver's release function. The parts
 * of a folio that core splits share its context. Once removal has begun to drop the
 * contexts, parts of folios that are split get none. Core splits with interrupts off, so a
 * grace period of RCU waits for splits that began before.
 *
 * The folio of a managed devmem is dirty from the moment it is allocated. A write of the
 * device does not set the dirty bit in the CPU's page table. Core copies the folio's dirty
 * flag to the new folio in each migration. Without it, core could drop what the device
 * wrote: because MADV_FREE was called before, or because swap has an older copy.
 */

#include <linux/export.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>

#include "devmem.h"
#include "page.h"
#include "pagemap.h"

/**
 * __hmm_devmem_page_drop_context() - The slow part of hmm_devmem_page_drop_context()
 * @page: First page of a folio of a managed devmem.
 *
 * Context: Any context in which a folio can be freed.
 */
void __hmm_devmem_page_drop_context(struct page *page)
{
	/* Removal waits for this task to leave: see zombies_drop_contexts(). */
	guard(rcu)();
	hmm_devmem_context_put(xchg(&page->zone_device_data, NULL));
}

/**
 * hmm_devmem_of_page() - The devmem of a page, removed or not
 * @page: Any page; the caller has a reference, or a lock that keeps it in use.
 *
 * Context: Any context.
 * Return: The devmem, or NULL if @page is of none.
 */
struct hmm_devmem *hmm_devmem_of_page(const struct page *page)
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

/**
 * hmm_devmem_from_page() - The devmem of a page
 * @page: Any page; the caller has a reference, or a lock that keeps it in use.
 *
 * Context: Any context.
 * Return: The devmem that @page is of; it stays valid memory as long as the caller
 * keeps @page in use, and longer with hmm_devmem_get(). NULL if @page is of none, or
 * of one whose removal has come to its cleanup callback. That can happen at any
 * time; then all functions that are called with the devmem fail.
 */
struct hmm_devmem *hmm_devmem_from_page(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	return devmem && !READ_ONCE(priv(devmem)->gone) ? devmem : NULL;
}
EXPORT_SYMBOL_GPL(hmm_devmem_from_page);

/**
 * hmm_devmem_page_offset() - The offset of a page in the device's memory
 * @page: A page of a devmem, which can have been removed.
 *
 * Context: Any context.
 * Return: Offset in bytes from the start of device memory; 0 with a warning if @page is of
 * no devmem.
 */
u64 hmm_devmem_page_offset(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	if (WARN_ON_ONCE(!devmem))
		return 0;
	return (u64)(page_to_pfn(page) - devmem->pfn_first) << PAGE_SHIFT;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_offset);

/**
 * hmm_devmem_page_set_drvdata() - Set a driver's data of a page
 * @page: A page of a classic devmem; the caller has allocated it. Of a large
 *	folio, only the first page has such data.
 * @data: Any value; kept until the page is freed.
 *
 * In a managed devmem the library itself uses this word. If @page is of no classic devmem,
 * this changes nothing and warns.
 *
 * Context: Any context.
 */
void hmm_devmem_page_set_drvdata(struct page *page, unsigned long data)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

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
 * Return: The data that was set last; undefined if none was set since the page was
 * allocated; 0 with a warning if @page is of no classic devmem.
 */
unsigned long hmm_devmem_page_get_drvdata(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

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
 * NULL if there was none, or the devmem has been removed. NULL with a warning if @page is
 * of no managed devmem.
 */
struct hmm_devmem_context *hmm_devmem_page_context(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	if (WARN_ON_ONCE(!devmem || !hmm_devmem_managed(devmem)))
		return NULL;
	return READ_ONCE(page_folio(page)->page.zone_device_data);
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_context);
