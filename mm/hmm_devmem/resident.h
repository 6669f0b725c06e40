/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where a process's pages are: see resident.c.
 */
#ifndef _MM_HMM_DEVMEM_RESIDENT_H
#define _MM_HMM_DEVMEM_RESIDENT_H

#include <linux/types.h>

struct hmm_devmem;
struct mm_struct;
struct vm_area_struct;

bool hmm_devmem_vma_is_suitable(const struct vm_area_struct *vma);
unsigned long hmm_devmem_count_resident(struct hmm_devmem *devmem,
					struct mm_struct *mm,
					unsigned long start, unsigned long end,
					bool used, unsigned long *pages,
					bool *mlocked);

#endif /* _MM_HMM_DEVMEM_RESIDENT_H */
