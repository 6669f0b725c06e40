/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Transactions: see txn.c.
 */
#ifndef _MM_HMM_DEVMEM_TXN_H
#define _MM_HMM_DEVMEM_TXN_H

#include <linux/hmm_devmem.h>
#include <linux/migrate.h>
#include <linux/types.h>

#include "dma.h"

struct anon_vma;
struct hmm_devmem_mirror_window;
struct vm_area_struct;

/**
 * struct hmm_devmem_txn - one transaction
 * @from: The device memory that pages move from; NULL for system memory.
 * @to: The device memory that they move to; NULL for system memory. One of the two is NULL.
 * @devmem: The one of @from and @to that is not NULL: its driver copies the pages.
 * @vma: The mapping of the pages; NULL in an eviction.
 * @window: The mirror's record of this window, if the migration goes through a mirror;
 *	else NULL.
 * @start: User virtual address of the first entry, if there is a @vma.
 * @nr: Number of entries, one for each page.
 * @max: Number of entries in the arrays.
 * @wanted: In an eviction: how many pages had a destination before the copy.
 * @ns: In an eviction: the nanoseconds that it took to start the copy or, if no page has
 *	a destination, to find that out.
 * @nr_short: In a migration to the device: how many pages got no destination because there
 *	was not enough device memory.
 * @nr_not_copied: How many pages have no destination any more because the copy failed, or
 *	because the device has lost the memory there.
 * @in_fault: A CPU fault waits for the transaction.
 * @keep_holes: Pages that the process does not have get no device page.
 * @small_holes: They get no large folio.
 * @no_memory: There was no system memory for the first page.
 * @must_split: The large folio that was collected has no large destination, and
 *	must be split before it can move.
 * @unmapped: At least one run could not be mapped for DMA.
 * @started: A copy was started, so copy_wait() is to be called.
 * @status: What the call that starts the copy returned.
 * @src: The pages that core has collected (MIGRATE_PFN_*).
 * @dst: Their destinations; 0 for a page that stays.
 * @mappings: In an eviction: references on the anon_vmas of the pages.
 * @runs: Memory for &hmm_devmem_copy.runs.
 * @copy: The copy, as the driver sees it.
 * @dma: How the runs of @copy are mapped.
 * @mig: Arguments for core, if there is a @vma.
 */
struct hmm_devmem_txn {
	struct hmm_devmem *from;
	struct hmm_devmem *to;
	struct hmm_devmem *devmem;
	struct vm_area_struct *vma;
	struct hmm_devmem_mirror_window *window;
	unsigned long start;
	unsigned int nr;
	unsigned int max;
	unsigned int wanted;
	unsigned int nr_short;
	unsigned int nr_not_copied;
	u64 ns;
	bool in_fault;
	bool keep_holes;
	bool small_holes;
	bool no_memory;
	bool must_split;
	bool unmapped;
	bool started;
	int status;
	unsigned long *src;
	unsigned long *dst;
	struct anon_vma **mappings;
	struct hmm_devmem_run *runs;
	struct hmm_devmem_copy copy;
	struct hmm_devmem_dma dma;
	struct migrate_vma mig;
};

/* A transaction of one page, small enough for the stack of a CPU fault. */
struct hmm_devmem_txn_one {
	struct hmm_devmem_txn txn;
	struct hmm_devmem_run run;
	unsigned long src;
	unsigned long dst;
};

int hmm_devmem_txn_init(void);
struct hmm_devmem_txn *hmm_devmem_txn_init_one(struct hmm_devmem_txn_one *one,
					       struct hmm_devmem *from,
					       struct hmm_devmem *to);
struct hmm_devmem_txn *hmm_devmem_txn_get(struct hmm_devmem *from,
					  struct hmm_devmem *to,
					  unsigned int nr);
struct hmm_devmem_txn *hmm_devmem_txn_tryget(struct hmm_devmem *from,
					     struct hmm_devmem *to,
					     unsigned int nr);
struct hmm_devmem_txn *hmm_devmem_txn_get_locked(struct hmm_devmem *from,
						 struct hmm_devmem *to,
						 unsigned int nr);
void hmm_devmem_txn_put(struct hmm_devmem_txn *txn);
void hmm_devmem_txn_note_pages(const struct hmm_devmem_txn *txn,
			       unsigned long *pages);
void hmm_devmem_txn_copy_start(struct hmm_devmem_txn *txn);
int hmm_devmem_txn_copy_wait(struct hmm_devmem_txn *txn);
unsigned long hmm_devmem_txn_commit(struct hmm_devmem_txn *txn);
bool hmm_devmem_txn_has_dst(const struct hmm_devmem_txn *txn, unsigned int i);
bool hmm_devmem_txn_moved(const struct hmm_devmem_txn *txn, unsigned int i);
unsigned long hmm_devmem_txn_nr_dst(const struct hmm_devmem_txn *txn);
unsigned long hmm_devmem_txn_nr_unfilled(const struct hmm_devmem_txn *txn);
#if IS_ENABLED(CONFIG_KUNIT)
void *hmm_devmem_txn_pool_alloc(gfp_t gfp, void *pool_data);
#endif

/* Has core collected all of the window as one entry: a large folio or a hole? */
static inline bool txn_is_compound(const struct hmm_devmem_txn *txn)
{
	return txn->src[0] & MIGRATE_PFN_COMPOUND;
}

/* Has the window one destination, a large folio? */
static inline bool txn_dst_is_large(const struct hmm_devmem_txn *txn)
{
	return txn->dst[0] & MIGRATE_PFN_COMPOUND;
}

/* Make the folio of @order at @pfn the destination of entry @i. */
static inline void txn_set_dst(struct hmm_devmem_txn *txn, unsigned int i,
			       unsigned long pfn, unsigned int order)
{
	txn->dst[i] = migrate_pfn(pfn) | (order ? MIGRATE_PFN_COMPOUND : 0);
}

/* The pfn of the destination of page @i, which has one. */
static inline unsigned long txn_dst_pfn(const struct hmm_devmem_txn *txn,
					unsigned int i)
{
	return txn_dst_is_large(txn) ? (txn->dst[0] >> MIGRATE_PFN_SHIFT) + i :
				       txn->dst[i] >> MIGRATE_PFN_SHIFT;
}

static inline bool txn_is_large_hole(const struct hmm_devmem_txn *txn)
{
	return txn_is_compound(txn) && !migrate_pfn_to_page(txn->src[0]);
}

static inline unsigned long txn_addr(const struct hmm_devmem_txn *txn,
				     unsigned int i)
{
	return txn->vma ? txn->start + ((unsigned long)i << PAGE_SHIFT) : 0;
}

/*
 * The pfn of the source at entry @i; 0, which is no process's page, for a hole. @compound:
 * core has collected the window as one entry.
 */
static inline unsigned long txn_src_pfn(const struct hmm_devmem_txn *txn,
					unsigned int i, bool compound)
{
	const unsigned long src = txn->src[compound ? 0 : i];

	if (!(src & MIGRATE_PFN_VALID))
		return 0;
	return (src >> MIGRATE_PFN_SHIFT) + (compound ? i : 0);
}

#endif /* _MM_HMM_DEVMEM_TXN_H */
