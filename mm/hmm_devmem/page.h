/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a page belongs to: see page.c.
 */
#ifndef _MM_HMM_DEVMEM_PAGE_H
#define _MM_HMM_DEVMEM_PAGE_H

#include <linux/compiler.h>
#include <linux/mm_types.h>

struct hmm_devmem;

struct hmm_devmem *hmm_devmem_of_page(const struct page *page);
void __hmm_devmem_page_drop_context(struct page *page);

/*
 * Drop the context of a folio; @page is its first page. Inline, so that freeing a
 * folio without a context does not cost a call.
 */
static inline void hmm_devmem_page_drop_context(struct page *page)
{
	if (READ_ONCE(page->zone_device_data))
		__hmm_devmem_page_drop_context(page);
}

#endif /* _MM_HMM_DEVMEM_PAGE_H */
