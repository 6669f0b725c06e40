// SPDX-License-Identifier: GPL-2.0
/*
 * The step of a transaction that gives pages a destination, on the device or in system
 * memory.
 */

#include <linux/gfp.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/string.h>
#include <linux/userfaultfd_k.h>

#include "allocate.h"
#include "devmem.h"
#include "dma.h"
#include "fail.h"
#include "folio.h"
#include "place.h"
#include "pool.h"
#include "txn.h"

/**
 * hmm_devmem_may_fill_holes() - May pages be allocated where the process has none?
 * @vma: The mapping.
 *
 * Core collects a zero page like a hole, and maps the page that takes its place with all
 * access that the mapping allows. That loses userfaultfd's write protection of a zero
 * page: the next write would not be reported. And missing pages have to be reported to
 * userfaultfd. Memory that the process cannot access needs no pages.
 *
 * Context: The mmap lock is held.
 * Return: True if they may.
 */
bool hmm_devmem_may_fill_holes(struct vm_area_struct *vma)
{
	return !userfaultfd_armed(vma) && vma_is_accessible(vma);
}

/**
 * hmm_devmem_page_can_go() - Can a page of system memory move to the device?
 * @devmem: The device memory.
 * @page: The page, which cannot be freed meanwhile.
 *
 * Context: Process context. Does not sleep: a page table can be locked.
 * Return: True if it is anonymous, no device page, and in the device's reach.
 */
bool hmm_devmem_page_can_go(struct hmm_devmem *devmem, struct page *page)
{
	return PageAnon(page) && !is_zone_device_page(page) &&
	       hmm_devmem_dma_reaches(devmem, page_to_phys(page), PAGE_SIZE);
}

/* Can entry @i move to the device? With @fill, a hole can. */
static bool can_go_to_device(const struct hmm_devmem_txn *txn, unsigned int i,
			     bool fill)
{
	struct page *page = migrate_pfn_to_page(txn->src[i]);

	if (!(txn->src[i] & MIGRATE_PFN_MIGRATE))
		return false;
	if (!page)
		return fill;
	return hmm_devmem_page_can_go(txn->devmem, page);
}

/*
 * Allocate a large device folio for a window that core collected as one entry. Core
 * collects every hole that is large enough as one entry, even where the process has asked
 * for no huge pages.
 */
static bool alloc_large_device_folio(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long pfn;

	if (txn_is_large_hole(txn) &&
	    (txn->small_holes ||
	     !thp_vma_allowable_order(txn->vma, txn->vma->vm_flags,
				      TVA_PAGEFAULT, HMM_DEVMEM_BLOCK_ORDER)))
		return false;
	if (hmm_devmem_should_fail(devmem, HMM_DEVMEM_FAIL_DEVICE_LARGE) ||
	    hmm_devmem_pool_alloc(priv(devmem)->pool, HMM_DEVMEM_BLOCK_ORDER, &pfn))
		return false;
	hmm_devmem_init_folio(devmem, pfn, HMM_DEVMEM_BLOCK_ORDER,
			      txn->copy.context);
	memset(txn->dst, 0, txn->nr * sizeof(txn->dst[0]));
	txn_set_dst(txn, 0, pfn, HMM_DEVMEM_BLOCK_ORDER);
	return true;
}

/*
 * Set the entries of @dst that are to get a device page to 1, the others to 0. If
 * core collected the window as one entry, all pages are wanted, or none.
 */
static unsigned int mark_wanted(struct hmm_devmem_txn *txn)
{
	const bool compound = txn_is_compound(txn);
	const bool fill = !txn->keep_holes && hmm_devmem_may_fill_holes(txn->vma);
	unsigned int i, nr = 0;

	for (i = 0; i < txn->nr; i++) {
		txn->dst[i] = compound && i ? txn->dst[0] :
					      can_go_to_device(txn, i, fill);
		nr += txn->dst[i];
	}
	return nr;
}

/* Make folios of @nr free pages, for the entries that want one. */
static void spread_device_pages(struct hmm_devmem_txn *txn,
				const unsigned long *pfns, unsigned int nr)
{
	unsigned int i, used = 0;

	hmm_devmem_init_pages(txn->devmem, pfns, nr, txn->copy.context);
	for (i = 0; i < txn->nr; i++)
		if (txn->dst[i])
			txn->dst[i] = used < nr ? migrate_pfn(pfns[used++]) : 0;
}

static void put_device_pages(struct hmm_devmem_txn *txn,
			     const unsigned long *pfns, unsigned int nr)
{
	while (nr)
		hmm_devmem_pool_free(priv(txn->devmem)->pool, pfns[--nr], 0);
}

/**
 * hmm_devmem_txn_alloc_device() - Allocate device memory for the pages collected
 * @txn: The transaction. Pages for which there is no memory get no destination. Sets
 *	&hmm_devmem_txn.must_split if there are only small device pages for a window
 *	that was collected as one entry.
 *
 * Context: Process context.
 */
void hmm_devmem_txn_alloc_device(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;
	/* Use the memory of the runs, which are not needed yet; a run is larger than a pfn. */
	unsigned long *pfns = (void *)txn->runs;
	unsigned int got, wanted;

	wanted = mark_wanted(txn);
	if (!wanted || (txn_is_compound(txn) && alloc_large_device_folio(txn)))
		return;
	got = hmm_devmem_should_fail(devmem, HMM_DEVMEM_FAIL_DEVICE) ? 0 :
	      hmm_devmem_pool_alloc_bulk(priv(devmem)->pool, wanted, pfns);
	txn->nr_short = wanted - got;
	/*
	 * Split a folio only if a part of it can move then. A large hole can be
	 * filled with small pages, but core wants all of them or crashes.
	 */
	if (txn_is_compound(txn) && !(txn_is_large_hole(txn) && got == wanted))
		txn->must_split = got;
	if (txn->must_split) {
		put_device_pages(txn, pfns, got);
		got = 0;
	}
	spread_device_pages(txn, pfns, got);
}

/*
 * How hard to look for a large folio: as core does for a huge page of the mapping,
 * by the administrator's choice (thp/defrag) and the process's. An eviction has no
 * mapping, and takes a folio only if one is free: the device folio can be split.
 */
static gfp_t large_ram_gfp(const struct hmm_devmem_txn *txn)
{
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) || !txn->vma)
		return GFP_TRANSHUGE_LIGHT;
	return vma_thp_gfp_mask(txn->vma);
}

/*
 * How hard to look for system memory. @first: the page is the one that a CPU fault is
 * about, or the first of a window. The page of a CPU fault is allocated as for any other
 * fault, so the OOM killer can run. Everything else that brings pages back can leave them
 * on the device, and never starts the OOM killer. Nothing is charged to a memory cgroup: a
 * migration moves the charge of the device page to the new page.
 */
static gfp_t ram_gfp(const struct hmm_devmem_txn *txn, unsigned int order,
		     bool first)
{
	const gfp_t gfp = hmm_devmem_dma_ram_gfp(txn->devmem);

	if (order)
		return (large_ram_gfp(txn) & ~GFP_ZONEMASK) | (gfp & GFP_ZONEMASK);
	if (!first)
		return gfp | __GFP_NORETRY | __GFP_NOWARN;
	return txn->in_fault ? gfp : gfp | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
}

/* Allocate system memory for a device page, on the node that its mapping wants. */
static struct folio *alloc_ram(const struct hmm_devmem_txn *txn,
			       unsigned int i, unsigned int order, gfp_t gfp)
{
	if (!txn->vma)
		return hmm_devmem_alloc_evicted(migrate_pfn_to_page(txn->src[i]),
						txn->mappings[i], order, gfp);
	return vma_alloc_folio(gfp, order, txn->vma, txn_addr(txn, i));
}

static __always_inline bool alloc_ram_entry(struct hmm_devmem_txn *txn,
					    unsigned int i, unsigned int order,
					    bool first)
{
	struct folio *folio;

	if (hmm_devmem_should_fail(txn->devmem,
				   order ? HMM_DEVMEM_FAIL_RAM_LARGE :
					   HMM_DEVMEM_FAIL_RAM))
		return false;
	folio = alloc_ram(txn, i, order, ram_gfp(txn, order, first));
	if (!folio)
		return false;
	__folio_set_locked(folio);
	txn_set_dst(txn, i, folio_pfn(folio), order);
	return true;
}

/*
 * Is entry @i a page of this device that can move? @compound: the window was
 * collected as one entry.
 */
static __always_inline bool can_go_to_ram(const struct hmm_devmem_txn *txn,
					  unsigned int i, bool compound)
{
	const unsigned long pfn = txn_src_pfn(txn, i, compound);

	if (!(txn->src[compound ? 0 : i] & MIGRATE_PFN_MIGRATE))
		return false;
	/* Peers have the same owner, so core collects their pages as well. */
	return hmm_devmem_has_pfn(txn->from, pfn) &&
	       !hmm_devmem_pool_retired(priv(txn->devmem)->pool, pfn);
}

/* Can all pages of a window that was collected as one entry go to system memory? */
static bool txn_is_whole(const struct hmm_devmem_txn *txn)
{
	unsigned int i;

	if (likely(!hmm_devmem_pool_any_retired(priv(txn->devmem)->pool)))
		return can_go_to_ram(txn, 0, true);
	for (i = 0; i < txn->nr; i++)
		if (!can_go_to_ram(txn, i, true))
			return false;
	return true;
}

/* The first entry that can go to system memory; the last one if none can. */
static unsigned int first_to_ram(const struct hmm_devmem_txn *txn)
{
	unsigned int i;

	for (i = 0; i < txn->nr - 1; i++)
		if (can_go_to_ram(txn, i, false))
			break;
	return i;
}

/**
 * hmm_devmem_txn_alloc_ram() - Allocate system memory for the pages collected
 * @txn: The transaction.
 * @first: In a CPU fault, the entry of the page that the CPU has touched: it gets memory
 *	first. Where no fault waits, the first page that can move does. The others get
 *	memory only if that one does, and only as long as there is some without much
 *	reclaim.
 *
 * A large folio moves to a large one or stays: core must not split it while it moves. The
 * OOM killer can run only for the page that a CPU fault waits for.
 *
 * Context: Process context, may sleep.
 * Return: False if there is no memory for the page that is served first, or for a large
 * folio; then &hmm_devmem_txn.must_split is set. True does not mean that a page can move:
 * maybe none was collected, or, in a fault, not the one that the CPU has touched.
 */
bool hmm_devmem_txn_alloc_ram(struct hmm_devmem_txn *txn, unsigned int first)
{
	unsigned int i;

	if (txn_is_compound(txn)) {
		/* Do not split a large folio of a peer. */
		if (!(txn->src[0] & MIGRATE_PFN_MIGRATE) ||
		    !hmm_devmem_has_pfn(txn->from, txn_src_pfn(txn, 0, true)))
			return true;
		txn->must_split = !txn_is_whole(txn) ||
				  !alloc_ram_entry(txn, 0, HMM_DEVMEM_BLOCK_ORDER,
						   true);
		return !txn->must_split;
	}
	if (!txn->in_fault)
		first = first_to_ram(txn);
	if (can_go_to_ram(txn, first, false) &&
	    !alloc_ram_entry(txn, first, 0, true))
		return false;
	if (txn->nr == 1)
		return true;
	for (i = 0; i < txn->nr; i++)
		if (!txn->dst[i] && can_go_to_ram(txn, i, false) &&
		    !alloc_ram_entry(txn, i, 0, false))
			break;
	return true;
}
