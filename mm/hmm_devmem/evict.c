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
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/rmap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include <trace/events/hmm_devmem.h>

#include "../internal.h"
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

static unsigned long count_destinations(const struct hmm_devmem_txn *txn)
{
	unsigned int i, nr = 0;

	if (txn->dst[0] & MIGRATE_PFN_COMPOUND)
		return HMM_DEVMEM_BLOCK_NR;
	for (i = 0; i < txn->nr; i++)
		nr += !!txn->dst[i];
	return nr;
}

/*
 * Pages that have no data of anybody's: a CPU fault has brought it home and not yet
 * dropped its last reference, or it was allocated and not used yet. Core collects
 * them like others, but a page has to have a charge when that moves.
 */
static void spare_orphans(struct hmm_devmem_txn *txn)
{
	unsigned int i;

	if (mem_cgroup_disabled())
		return;
	for (i = 0; i < txn->nr; i++) {
		struct page *page = migrate_pfn_to_page(txn->src[i]);

		if (page && !folio_memcg_charged(page_folio(page)))
			txn->src[i] &= ~MIGRATE_PFN_MIGRATE;
	}
}

/*
 * What the mappings of @page hang on, with a reference; NULL if nobody maps it, or
 * somebody has its lock. @block is set if its folio is a large one, and all of it.
 */
static struct anon_vma *get_mapping(struct page *page, bool *block)
{
	struct folio *folio = page_folio(page);
	struct anon_vma *anon_vma = NULL;

	*block = false;
	if (!folio_try_get(folio))
		return NULL;
	if (folio_trylock(folio)) {
		/* A free page can still name the folio that it was a part of. */
		if (folio == page_folio(page) && folio_test_anon(folio) &&
		    page_to_pfn(page) - folio_pfn(folio) < folio_nr_pages(folio))
			anon_vma = folio_get_anon_vma(folio);
		*block = anon_vma && page == &folio->page &&
			 folio_order(folio) == HMM_DEVMEM_BLOCK_ORDER;
		folio_unlock(folio);
	}
	folio_put(folio);
	return anon_vma;
}

/*
 * Core looks for the mappings of each page that it has collected when it ends the
 * migration, but has nothing then that keeps the last process from exiting in the
 * meantime, and its anon_vma from being freed. So hold those. Pages without
 * mappings stay out of it altogether.
 */
static void hold_mappings(struct hmm_devmem_txn *txn)
{
	unsigned int i, n, size, nr = 0;
	struct anon_vma *anon_vma;
	bool block;

	for (i = 0; i < txn->nr; i += size) {
		size = 1;
		anon_vma = get_mapping(pfn_to_page(txn->src[i]), &block);
		if (!anon_vma)
			continue;
		/* Its other pages follow, and there is nothing else. */
		if (block)
			size = txn->nr - i;
		for (n = 0; n < size; n++, nr++) {
			txn->src[nr] = txn->src[i + n];
			txn->mappings[nr] = n ? NULL : anon_vma;
		}
	}
	txn->nr = nr;
}

/* The folio can have got another one before it was collected; now it cannot. */
static void hold_new_mapping(struct anon_vma **mapping, struct folio *folio)
{
	struct anon_vma *anon_vma;

	scoped_guard(rcu) {
		anon_vma = folio_anon_vma(folio);
		if (likely(anon_vma == *mapping) || !anon_vma ||
		    !atomic_inc_not_zero(&anon_vma->refcount))
			return;
	}
	swap(*mapping, anon_vma);
	put_anon_vma(anon_vma);
}

static void hold_new_mappings(struct hmm_devmem_txn *txn)
{
	unsigned int i;

	for (i = 0; i < txn->nr; i++) {
		struct page *page = migrate_pfn_to_page(txn->src[i]);

		if (page && txn->mappings[i])
			hold_new_mapping(&txn->mappings[i], page_folio(page));
	}
}

static void put_mappings(struct hmm_devmem_txn *txn)
{
	unsigned int i;

	for (i = 0; i < txn->nr; i++)
		if (txn->mappings[i])
			put_anon_vma(txn->mappings[i]);
}

/*
 * Start to move the device pages whose pfns are in @txn->src; there can be none
 * left in the end. Returns false if that takes a large folio of system memory and
 * there is none.
 */
static bool evict_start(struct hmm_devmem_txn *txn)
{
	bool ret;

	hold_mappings(txn);
	if (!txn->nr)
		return true;
	txn->unmapped = false;
	memset(txn->dst, 0, txn->nr * sizeof(*txn->dst));
	migrate_device_pfns(txn->src, txn->nr);
	hold_new_mappings(txn);
	spare_orphans(txn);
	txn->copy.dir = HMM_DEVMEM_TO_RAM;
	ret = hmm_devmem_txn_alloc_ram(txn, 0, false);
	txn->wanted = count_destinations(txn);
	hmm_devmem_txn_copy_start(txn);
	return ret;
}

static unsigned long count_collected(const struct hmm_devmem_txn *txn)
{
	unsigned int i, nr = 0;

	if (txn->src[0] & MIGRATE_PFN_COMPOUND)
		return txn->src[0] & MIGRATE_PFN_MIGRATE ? HMM_DEVMEM_BLOCK_NR : 0;
	for (i = 0; i < txn->nr; i++)
		nr += !!(txn->src[i] & MIGRATE_PFN_MIGRATE);
	return nr;
}

static void evict_finish(struct hmm_devmem_txn *txn,
			 struct hmm_devmem_left *left)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long moved;

	if (!txn->nr)
		return;
	hmm_devmem_txn_copy_wait(txn);
	left->no_memory += count_collected(txn) - txn->wanted;
	left->not_copied += txn->wanted - count_destinations(txn);
	migrate_device_pages(txn->src, txn->dst, txn->nr);
	moved = hmm_devmem_txn_committed(txn);
	migrate_device_finalize(txn->src, txn->dst, txn->nr);
	put_mappings(txn);
	hmm_devmem_txn_done(txn);

	hmm_devmem_count(devmem, HMM_DEVMEM_MOVED_TO_RAM, moved);
	hmm_devmem_count(devmem, HMM_DEVMEM_EVICTED, moved);
}

/*
 * Try once to bring the pages in [@pfn, @end) home. @left is why that failed, for
 * those for which it is known.
 */
static void evict_range(struct hmm_devmem *devmem, unsigned long pfn,
			unsigned long end, struct hmm_devmem_left *left)
{
	struct hmm_devmem_txn *txn, *other = NULL;
	unsigned long start, first;
	bool in_flight = false;

	lockdep_assert_held_read(&devmem->segments_lock);

	*left = (struct hmm_devmem_left) { };
	/* Cached pages are free, but cannot be told from others. */
	hmm_devmem_alloc_drain(devmem->alloc);
	txn = hmm_devmem_txn_get(devmem, HMM_DEVMEM_BLOCK_NR);
	/* A second one, so that the device does not have to wait for us. */
	if (devmem->ops->copy_wait)
		other = hmm_devmem_txn_tryget(devmem, HMM_DEVMEM_BLOCK_NR);
	while (start = pfn,
	       (txn->nr = hmm_devmem_alloc_in_use(devmem->alloc, &pfn, end,
						  txn->src, txn->max))) {
		bool whole;

		first = txn->src[0];
		/* A large folio with lost pages is in the way of the others. */
		if (txn->nr < HMM_DEVMEM_BLOCK_NR &&
		    hmm_devmem_alloc_any_retired(devmem->alloc) &&
		    split_large_folio(first)) {
			pfn = start;
			continue;
		}
		whole = evict_start(txn);
		if (in_flight)
			evict_finish(other, left);
		in_flight = whole && other && txn->nr;
		if (in_flight) {
			swap(txn, other);
		} else {
			evict_finish(txn, left);
			if (!whole && split_large_folio(first))
				pfn = start;
		}
		cond_resched();
	}
	if (in_flight)
		evict_finish(other, left);
	hmm_devmem_txn_put(txn);
	if (other)
		hmm_devmem_txn_put(other);
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

/*
 * Bring [@pfn, @end) home and count what is left there. Pages that were not even
 * collected, or are new, are busy.
 */
static unsigned long evict_and_count(struct hmm_devmem *devmem,
				     unsigned long pfn, unsigned long end,
				     struct hmm_devmem_left *left)
{
	unsigned long nr;

	/* Struct pages and bitmaps that are looked at must not go away. */
	guard(rwsem_read)(&devmem->segments_lock);
	evict_range(devmem, round_to_folio(devmem, pfn, false),
		    round_to_folio(devmem, end, true), left);
	nr = count_in_use(devmem, pfn, end);
	/* Others free pages meanwhile, and not all were of our range. */
	left->no_memory = min(left->no_memory, nr);
	left->not_copied = min(left->not_copied, nr - left->no_memory);
	left->busy = nr - left->no_memory - left->not_copied;
	return nr;
}

/**
 * hmm_devmem_evict_why() - Bring device pages home by physical address
 * @devmem: A managed devmem.
 * @pfn_first: First pfn of the range, inclusive.
 * @nr_pages: Its length, pages of PAGE_SIZE. What is outside of @devmem is
 *	ignored. Of a large folio that lies in the range partly, all is moved.
 * @left: Filled in: why pages are still there.
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
 * When the result is an errno, nothing was changed. Pages whose data is lost (see
 * hmm_devmem_poison()) cannot come home and do not count.
 */
long hmm_devmem_evict_why(struct hmm_devmem *devmem, unsigned long pfn_first,
			  unsigned long nr_pages, struct hmm_devmem_left *left)
{
	const unsigned long end = pfn_first + nr_pages;
	long nr;

	might_sleep();
	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	if (end < pfn_first)
		return -EINVAL;
	if (!hmm_devmem_tryget_live(devmem))
		return -ENODEV;
	nr = evict_and_count(devmem, pfn_first, end, left);
	trace_hmm_devmem_evict(devmem, pfn_first, end, nr);
	hmm_devmem_put(devmem);
	return nr;
}
EXPORT_SYMBOL_GPL(hmm_devmem_evict_why);

/**
 * hmm_devmem_evict() - Bring device pages home by physical address
 * @devmem: See hmm_devmem_evict_why() for this and all other parameters.
 * @pfn_first: "
 * @nr_pages: "
 *
 * Context: As hmm_devmem_evict_why().
 * Return: As hmm_devmem_evict_why().
 */
long hmm_devmem_evict(struct hmm_devmem *devmem, unsigned long pfn_first,
		      unsigned long nr_pages)
{
	struct hmm_devmem_left left;

	return hmm_devmem_evict_why(devmem, pfn_first, nr_pages, &left);
}
EXPORT_SYMBOL_GPL(hmm_devmem_evict);

/**
 * hmm_devmem_evict_all() - Bring all pages home that can be moved
 * @devmem: Nothing can be allocated from it at the moment.
 * @left: Filled in: why pages are still there, if it is managed.
 *
 * Takes about a second at most if pages cannot be moved, and does not wait at all
 * for a dead device. A classic driver moves its pages itself, in its kill callback
 * and its fault callback; for those this waits as long.
 *
 * Context: Process context, may sleep.
 * Return: Number of pages that are still in use.
 */
unsigned long hmm_devmem_evict_all(struct hmm_devmem *devmem,
				   struct hmm_devmem_left *left)
{
	unsigned long nr = 0;
	unsigned int tries;

	for (tries = 0; tries < HMM_DEVMEM_EVICT_TRIES; tries++) {
		if (tries)
			msleep(HMM_DEVMEM_EVICT_PAUSE_MS);
		if (!hmm_devmem_managed(devmem) || READ_ONCE(devmem->dead))
			nr = hmm_devmem_segments_busy(devmem);
		else
			nr = evict_and_count(devmem, devmem->pfn_first,
					     devmem->pfn_last, left);
		if (!nr || READ_ONCE(devmem->dead))
			break;
	}
	return nr;
}

/* True if there is room now that was not there before. */
static bool reclaim_block(struct hmm_devmem *devmem, unsigned long pfn,
			  unsigned long end, struct hmm_devmem_left *left)
{
	unsigned long before;

	guard(rwsem_read)(&devmem->segments_lock);
	before = count_in_use(devmem, pfn, end);
	if (!before)
		return false;
	evict_range(devmem, pfn, end, left);
	return count_in_use(devmem, pfn, end) < before;
}

/**
 * hmm_devmem_reclaim() - Make room on the device
 * @devmem: The device memory.
 *
 * Evicts the pages of one block, of another one each time.
 *
 * Context: Process context, may sleep. Takes folio locks.
 * Return: 0, or -ENOMEM if there is no page that can be evicted.
 */
int hmm_devmem_reclaim(struct hmm_devmem *devmem)
{
	unsigned long from, pfn, end, start;
	struct hmm_devmem_left left;

	/* Racy, but all that depends on it is which block it is. */
	from = clamp(READ_ONCE(devmem->reclaim_hand), devmem->pfn_first,
		     devmem->pfn_last - 1);
	start = from;
	do {
		pfn = from;
		end = min(ALIGN(pfn + 1, HMM_DEVMEM_BLOCK_NR), devmem->pfn_last);
		from = end < devmem->pfn_last ? end : devmem->pfn_first;
		WRITE_ONCE(devmem->reclaim_hand, from);
		if (reclaim_block(devmem, pfn, end, &left))
			return 0;
	} while (from != start && !fatal_signal_pending(current));
	return -ENOMEM;
}
