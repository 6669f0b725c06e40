/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Collecting pages with core: see collect.c.
 */
#ifndef _MM_HMM_DEVMEM_COLLECT_H
#define _MM_HMM_DEVMEM_COLLECT_H

#include <linux/compiler.h>
#include <linux/minmax.h>
#include <linux/types.h>

#include "devmem.h"

struct hmm_devmem_txn;
struct page;

extern unsigned long hmm_devmem_max_window;

/* How many pages are migrated at once, at most; core collects no larger piece. */
static inline unsigned long hmm_devmem_window_nr(void)
{
	return min(READ_ONCE(hmm_devmem_max_window), HMM_DEVMEM_BLOCK_NR);
}

/* Is a window as large as a block? Only then large folios move as a whole. */
static inline bool hmm_devmem_moves_blocks(void)
{
	return hmm_devmem_window_nr() == HMM_DEVMEM_BLOCK_NR;
}

int hmm_devmem_txn_collect_vma(struct hmm_devmem_txn *txn, unsigned long end,
			       void *owner, unsigned long flags,
			       struct page *fault_page);
bool hmm_devmem_split_large_folio(unsigned long pfn, bool always);
void hmm_devmem_txn_collect_pfns(struct hmm_devmem_txn *txn);
void hmm_devmem_txn_put_mappings(struct hmm_devmem_txn *txn);
unsigned long hmm_devmem_txn_nr_collected(const struct hmm_devmem_txn *txn);
#if IS_ENABLED(CONFIG_KUNIT)
void hmm_devmem_collect_pfns(unsigned long *pfns, unsigned int nr);
#endif

#endif /* _MM_HMM_DEVMEM_COLLECT_H */
