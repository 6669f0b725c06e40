/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Destinations of the pages of a transaction: see allocate.c.
 */
#ifndef _MM_HMM_DEVMEM_ALLOCATE_H
#define _MM_HMM_DEVMEM_ALLOCATE_H

#include <linux/types.h>

struct hmm_devmem;
struct hmm_devmem_txn;
struct page;
struct vm_area_struct;

bool hmm_devmem_may_fill_holes(struct vm_area_struct *vma);
bool hmm_devmem_page_can_go(struct hmm_devmem *devmem, struct page *page);
void hmm_devmem_txn_alloc_device(struct hmm_devmem_txn *txn);
bool hmm_devmem_txn_alloc_ram(struct hmm_devmem_txn *txn, unsigned int first);

#endif /* _MM_HMM_DEVMEM_ALLOCATE_H */
