// SPDX-License-Identifier: GPL-2.0
/*
 * Bringing device pages home by their physical address.
 */

/**
 * DOC: Eviction
 *
 * Eviction starts from the allocator, which knows the device pages in use, and
 * lets core find their mappings by rmap. It needs no process and no virtual
 * address, so it reaches pages of processes that have exited and left children,
 * and of ranges that were moved. Core cannot move a large folio to small ones
 * without a vma; where there is no large folio of system memory, the device
 * folio is split first.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

/*
 * Pages that somebody works with at the moment are free to move a moment later:
 * removal tries that often, with a pause in between, before it gives them up.
 */
#define HMM_DEVMEM_EVICT_TRIES		50
#define HMM_DEVMEM_EVICT_PAUSE_MS	20

/* Split the large folio at @pfn; the caller has no reference to it. */
static bool split_large_folio(unsigned long pfn)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *folio = page_folio(page);
	int ret = -EAGAIN;

	if (!folio_try_get(folio))
		return false;
	if (folio == page_folio(page) && folio_trylock(folio)) {
		if (folio_test_large(folio))
			ret = split_folio(folio);
		folio_unlock(folio);
	}
	folio_put(folio);
	return !ret;
}

/*
 * Move the device pages whose pfns are in @txn->src. Returns false if that takes
 * a large folio of system memory and there is none.
 */
static bool evict_pfns(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long moved;
	bool ret;

	memset(txn->dst, 0, txn->nr * sizeof(*txn->dst));
	migrate_device_pfns(txn->src, txn->nr);
	txn->copy.dir = HMM_DEVMEM_TO_RAM;
	ret = hmm_devmem_txn_alloc_ram(txn, 0, false);
	hmm_devmem_txn_copy(txn);
	migrate_device_pages(txn->src, txn->dst, txn->nr);
	moved = hmm_devmem_txn_committed(txn);
	migrate_device_finalize(txn->src, txn->dst, txn->nr);

	hmm_devmem_count(devmem, HMM_DEVMEM_MOVED_TO_RAM, moved);
	hmm_devmem_count(devmem, HMM_DEVMEM_EVICTED, moved);
	return ret;
}

/* Try once to bring the pages in [@pfn, @end) home. */
static void evict_range(struct hmm_devmem *devmem, unsigned long pfn,
			unsigned long end)
{
	struct hmm_devmem_txn *txn;
	unsigned long start, first;

	lockdep_assert_held_read(&devmem->segments_lock);

	txn = hmm_devmem_txn_get(devmem, HMM_DEVMEM_BLOCK_NR);
	while (start = pfn,
	       (txn->nr = hmm_devmem_alloc_in_use(devmem->alloc, &pfn, end,
						  txn->src, txn->max))) {
		first = txn->src[0];
		if (!evict_pfns(txn) && split_large_folio(first))
			pfn = start;
		cond_resched();
	}
	hmm_devmem_txn_put(txn);
}

/*
 * Large folios move as a whole: where @pfn is inside of one, go to its start, or
 * to its end. Should the page be freed meanwhile, more is moved than was asked
 * for, which does no harm.
 */
static unsigned long round_to_folio(struct hmm_devmem *devmem,
				    unsigned long pfn, bool up)
{
	const struct folio *folio;

	lockdep_assert_held_read(&devmem->segments_lock);

	if (!hmm_devmem_segment_at(devmem, pfn))
		return pfn;
	folio = page_folio(pfn_to_page(pfn));
	if (!folio_test_large(folio) || folio_pfn(folio) == pfn)
		return pfn;
	return up ? ALIGN(pfn, HMM_DEVMEM_BLOCK_NR) :
		    ALIGN_DOWN(pfn, HMM_DEVMEM_BLOCK_NR);
}

static unsigned long count_in_use(struct hmm_devmem *devmem, unsigned long pfn,
				  unsigned long end)
{
	struct hmm_devmem_txn *txn;
	unsigned long left = 0;
	unsigned int nr;

	lockdep_assert_held_read(&devmem->segments_lock);

	/* A cached page is free, although its bit is set. */
	hmm_devmem_alloc_drain(devmem->alloc);
	txn = hmm_devmem_txn_get(devmem, HMM_DEVMEM_BLOCK_NR);
	while ((nr = hmm_devmem_alloc_in_use(devmem->alloc, &pfn, end, txn->src,
					     txn->max)))
		left += nr;
	hmm_devmem_txn_put(txn);
	return left;
}

/**
 * hmm_devmem_evict() - Bring device pages home by physical address
 * @devmem: A managed devmem.
 * @pfn_first: First pfn of the range, inclusive.
 * @nr_pages: Its length, pages of PAGE_SIZE. What is outside of @devmem is
 *	ignored. Of a large folio that lies in the range partly, all is moved.
 *
 * Tries once: pages that are locked or referenced by others at the moment stay.
 *
 * Context: Process context, may sleep. Takes folio locks.
 * Return:
 * * number of pages of the range that are still in use
 * * %-EINVAL - the range overflows
 * * %-ENODEV - @devmem is being removed
 * * %-EOPNOTSUPP - @devmem is classic
 *
 * When the result is an errno, nothing was changed.
 */
long hmm_devmem_evict(struct hmm_devmem *devmem, unsigned long pfn_first,
		      unsigned long nr_pages)
{
	const unsigned long end = pfn_first + nr_pages;
	long left;

	might_sleep();
	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	if (end < pfn_first)
		return -EINVAL;
	if (!hmm_devmem_tryget_live(devmem))
		return -ENODEV;
	/* Struct pages and bitmaps that are looked at must not go away. */
	scoped_guard(rwsem_read, &devmem->segments_lock) {
		evict_range(devmem, round_to_folio(devmem, pfn_first, false),
			    round_to_folio(devmem, end, true));
		left = count_in_use(devmem, pfn_first, end);
	}
	trace_hmm_devmem_evict(devmem, pfn_first, end, left);
	hmm_devmem_put(devmem);
	return left;
}
EXPORT_SYMBOL_GPL(hmm_devmem_evict);

/**
 * hmm_devmem_evict_all() - Bring all pages home that can be moved
 * @devmem: Nothing can be allocated from it any more.
 *
 * Takes about a second at most if pages cannot be moved. A classic driver moves
 * its pages itself, in its kill callback and its fault callback; for those this
 * waits as long.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_evict_all(struct hmm_devmem *devmem)
{
	unsigned int tries;

	for (tries = 0; tries < HMM_DEVMEM_EVICT_TRIES; tries++) {
		if (hmm_devmem_managed(devmem)) {
			guard(rwsem_read)(&devmem->segments_lock);
			evict_range(devmem, devmem->pfn_first, devmem->pfn_last);
		}
		if (!hmm_devmem_segments_busy(devmem))
			return;
		msleep(HMM_DEVMEM_EVICT_PAUSE_MS);
	}
}
