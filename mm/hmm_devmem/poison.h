/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages whose data is lost: see poison.c.
 */
#ifndef _MM_HMM_DEVMEM_POISON_H
#define _MM_HMM_DEVMEM_POISON_H

#include <linux/types.h>

struct folio;
struct hmm_devmem;
struct page;

bool hmm_devmem_poison_page(struct hmm_devmem *devmem, unsigned long pfn);
void hmm_devmem_poison_folio(struct hmm_devmem *devmem, struct folio *folio);
void hmm_devmem_forget_page(struct page *page);
void hmm_devmem_unmap_lost(struct hmm_devmem *devmem);

#endif /* _MM_HMM_DEVMEM_POISON_H */
