/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Making folios of free pages: see folio.c.
 */
#ifndef _MM_HMM_DEVMEM_FOLIO_H
#define _MM_HMM_DEVMEM_FOLIO_H

struct folio;
struct hmm_devmem;
struct hmm_devmem_context;

struct folio *hmm_devmem_init_folio(struct hmm_devmem *devmem,
				    unsigned long pfn, unsigned int order,
				    struct hmm_devmem_context *ctx);
void hmm_devmem_init_pages(struct hmm_devmem *devmem, const unsigned long *pfns,
			   unsigned int nr, struct hmm_devmem_context *ctx);

#endif /* _MM_HMM_DEVMEM_FOLIO_H */
