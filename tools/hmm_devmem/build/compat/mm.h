/* SPDX-License-Identifier: GPL-2.0 */
/* What <linux/mm.h> of kernels older than 7.3 lacks, or calls by another name. */
#ifndef _HMM_DEVMEM_COMPAT_MM_H
#define _HMM_DEVMEM_COMPAT_MM_H

#define anon_rmap_tree_foreach(avc, anon_vma, first, last) \
	anon_vma_interval_tree_foreach(avc, &(anon_vma)->rb_root, first, last)

#define VM_UFFD_RWP	VM_NONE

#endif
