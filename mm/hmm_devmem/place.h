/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where evicted pages go: see place.c.
 */
#ifndef _MM_HMM_DEVMEM_PLACE_H
#define _MM_HMM_DEVMEM_PLACE_H

#include <linux/types.h>

struct anon_vma;
struct folio;
struct page;

struct folio *hmm_devmem_alloc_evicted(struct page *page,
				       struct anon_vma *anon_vma,
				       unsigned int order, gfp_t gfp);

#endif /* _MM_HMM_DEVMEM_PLACE_H */
