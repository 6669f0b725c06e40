/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Getting more device memory: see borrow.c.
 */
#ifndef _MM_HMM_DEVMEM_BORROW_H
#define _MM_HMM_DEVMEM_BORROW_H

#include <linux/types.h>

struct hmm_devmem;

bool hmm_devmem_can_get_more(struct hmm_devmem *devmem, unsigned int seq);
int hmm_devmem_get_more(struct hmm_devmem *devmem, unsigned int seq,
			unsigned long nr_pages);
int hmm_devmem_get_reserve(struct hmm_devmem *devmem, unsigned long nr_pages);

#endif /* _MM_HMM_DEVMEM_BORROW_H */
