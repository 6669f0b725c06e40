/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What core calls: see pagemap.c.
 */
#ifndef _MM_HMM_DEVMEM_PAGEMAP_H
#define _MM_HMM_DEVMEM_PAGEMAP_H

#include <linux/container_of.h>
#include <linux/memremap.h>

#include "segment.h"

struct folio;
struct hmm_devmem_context;

extern const struct dev_pagemap_ops hmm_devmem_pagemap_ops;

static inline struct hmm_devmem_segment *
hmm_devmem_pagemap_segment(struct dev_pagemap *pagemap)
{
	return container_of(pagemap, struct hmm_devmem_segment, pagemap);
}

#if IS_ENABLED(CONFIG_KUNIT)
struct hmm_devmem_context *hmm_devmem_head_context(const struct folio *head);
#endif

#endif /* _MM_HMM_DEVMEM_PAGEMAP_H */
