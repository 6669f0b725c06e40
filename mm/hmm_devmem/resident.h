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

/**
 * struct hmm_devmem_found - what is mapped in a range
 * @here: Number of pages that are on the device.
 * @movable: Number of pages of system memory that could move to it, and of those that are
 *	being migrated by another task.
 * @fixed: Number of other pages.
 * @mlocked: A page of system memory is mlocked, which no PMD entry maps.
 *
 * Pages that the process does not have, and zero pages, are not counted.
 */
struct hmm_devmem_found {
	unsigned long here;
	unsigned long movable;
	unsigned long fixed;
	bool mlocked;
};

/* Pages of mappings with one of these flags stay in RAM: see must_stay_in_ram(). */
#define HMM_DEVMEM_VM_STAYS	(VM_MERGEABLE | VM_MTE | VM_UFFD_RWP | VM_SHADOW_STACK)

bool hmm_devmem_vma_is_suitable(const struct vm_area_struct *vma);
void hmm_devmem_find_pages(struct hmm_devmem *devmem, struct mm_struct *mm,
			   unsigned long start, unsigned long end, bool used,
			   unsigned long *pages, struct hmm_devmem_found *found);
unsigned long hmm_devmem_count_resident(struct hmm_devmem *devmem,
					struct mm_struct *mm,
					unsigned long start, unsigned long end,
					bool used, unsigned long *pages);

#endif /* _MM_HMM_DEVMEM_RESIDENT_H */
