/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The physical addresses of a devmem: see range.c.
 */
#ifndef _MM_HMM_DEVMEM_RANGE_H
#define _MM_HMM_DEVMEM_RANGE_H

#include <linux/types.h>

struct hmm_devmem;
struct resource;

int hmm_devmem_range_reserve(struct hmm_devmem *devmem, u64 size,
			     unsigned long flags);
int hmm_devmem_range_check(struct hmm_devmem *devmem, struct resource *res,
			   unsigned long flags);

#endif /* _MM_HMM_DEVMEM_RANGE_H */
