/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the policy of eviction is told about the use of pages: see use.c.
 */
#ifndef _MM_HMM_DEVMEM_USE_H
#define _MM_HMM_DEVMEM_USE_H

#include "reclaim.h"

struct hmm_devmem_txn;
struct vm_area_struct;

struct hmm_devmem_hold_data hmm_devmem_use_data(const struct vm_area_struct *vma,
						unsigned long addr);
void hmm_devmem_use_brought(const struct hmm_devmem_txn *txn);
void hmm_devmem_use_leaving(const struct hmm_devmem_txn *txn);

#endif /* _MM_HMM_DEVMEM_USE_H */
