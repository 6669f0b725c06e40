// SPDX-License-Identifier: GPL-2.0
/*
 * Allocator for device pages.
 */

/**
 * DOC: Allocator
 *
 * Device memory is cut into *blocks*: naturally aligned pieces of the size that
 * core migrates whole (2 MiB on x86). A block has one bit for each of its pages
 * and is in one of four states: never used, empty (but used before), partial or
 * full. There is one list for each of the first two, and partial blocks are on one
 * of several lists, by the size of the largest piece that can be free in them. So
 * single pages and whole blocks are found in constant time.
 *
 * The size of the largest free piece is found out only when a piece is needed: until
 * a search has found less, and again after pages are freed, a block is listed by its
 * number of free pages. A search takes part of a microsecond. At most eight are done
 * with interrupts off; then a whole block is broken up, or, if there is none, the
 * search goes on after the lock was released. One request can search as many blocks
 * as have had pages freed since they were searched last, so it costs no more than a
 * part of what it cost to free those. Core does not ask for such pieces.
 *
 * Single pages are taken from partial blocks first, and of those where the pieces
 * are smallest, in ascending order, so that whole blocks and large pieces remain
 * for large folios and the pages of one migration are contiguous. Since a block is
 * a bitmap, freed neighbours are one free piece at once: there is nothing to merge.
 *
 * Single pages go through a per-CPU cache. It is filled and emptied by many pages at
 * a time, so that only few calls take the lock that all CPUs share; a free that
 * finds it taken leaves its pages in the cache. A request that finds no page empties
 * the caches of all CPUs that have filled them since that happened last, and of no
 * others: on a full device it fails at once. Of single pages that are freed, only
 * retired ones go past the caches.
 *
 * A retired page remains retired when its struct page is removed, and can be retired
 * before it has one (%HMM_DEVMEM_LAZY): for an area that is not populated, a bitmap,
 * which exists only if needed, says which of its pages are bad.
 *
 * Pages are pfns here. This file knows nothing of struct page, of processes or
 * of struct dev_pagemap, so it is tested without any device.
 *
 * Locking: &hmm_devmem_pcp.lock is taken before &hmm_devmem_alloc.lock, both
 * with interrupts off; nothing else is taken inside. Freeing can therefore
 * happen wherever the last reference to a folio can be dropped.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/visibility.h>
#include <linux/align.h>
#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/bug.h>
#include <linux/cpuhotplug.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/overflow.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * A cache of one page table's worth of pages would hold back too much of a
 * small device, one of a few pages would take the shared lock too often: with
 * 64, one call in 32 takes it.
 */
#define HMM_DEVMEM_PCP_BATCH	32
#define HMM_DEVMEM_PCP_HIGH	(2 * HMM_DEVMEM_PCP_BATCH)
/* Only reached while the shared lock is contended, see pcp_trim(). */
#define HMM_DEVMEM_PCP_MAX	(2 * HMM_DEVMEM_PCP_HIGH)

/**
 * struct hmm_devmem_pcp - free pages of one CPU
 * @lock: Protects the rest. Only drains take it from another CPU.
 * @look: The next free to this cache must set @filled, and check for retired pages.
 * @filled: There may be a page here; counted in &hmm_devmem_alloc.nr_filled.
 * @nr: Number of @pfns.
 * @pfns: A stack of pfns, the next to be handed out last.
 */
struct hmm_devmem_pcp {
	spinlock_t lock;	/* see above */
	bool look;
	bool filled;
	unsigned int nr;
	unsigned long pfns[HMM_DEVMEM_PCP_MAX];
};

static enum cpuhp_state hmm_devmem_cpuhp;

/* Give the @nr pages that are longest in the cache back to their blocks. */
static void pcp_flush(struct hmm_devmem_alloc *alloc,
		      struct hmm_devmem_pcp *pcp, unsigned int nr)
{
	lockdep_assert_held(&pcp->lock);
	lockdep_assert_held(&alloc->lock);

	hmm_devmem_block_put_bulk(alloc, pcp->pfns, nr);
	pcp->nr -= nr;
	memmove(pcp->pfns, pcp->pfns + nr, pcp->nr * sizeof(pcp->pfns[0]));
}

/* Note that pages are about to get into a cache. */
static void pcp_note_filled(struct hmm_devmem_alloc *alloc,
			    struct hmm_devmem_pcp *pcp)
{
	lockdep_assert_held(&pcp->lock);

	if (pcp->filled)
		return;
	WRITE_ONCE(pcp->filled, true);
	atomic_inc(&alloc->nr_filled);
}

/* Fill a cache, if it is empty, so that it hands out ascending pfns. */
static int pcp_refill(struct hmm_devmem_alloc *alloc,
		      struct hmm_devmem_pcp *pcp)
{
	unsigned int nr, top = HMM_DEVMEM_PCP_BATCH;
	unsigned long pfn;

	lockdep_assert_held(&pcp->lock);

	guard(spinlock)(&alloc->lock);
	if (alloc->refused)
		return alloc->refused;
	/* The cache has pages: allocation was refused, and was thawed just now. */
	if (pcp->nr)
		return 0;
	while (top) {
		nr = hmm_devmem_block_take_run(alloc, top, &pfn);
		if (!nr)
			break;
		while (nr--)
			pcp->pfns[--top] = pfn++;
	}
	pcp->nr = HMM_DEVMEM_PCP_BATCH - top;
	if (pcp->nr)
		pcp_note_filled(alloc, pcp);
	if (top)
		memmove(pcp->pfns, pcp->pfns + top, pcp->nr * sizeof(pcp->pfns[0]));
	return pcp->nr ? 0 : -ENOMEM;
}

/* The end of pcp_get() if the cache is empty, or allocation is refused. */
static noinline int pcp_get_special(struct hmm_devmem_alloc *alloc,
				    struct hmm_devmem_pcp *pcp,
				    unsigned long flags, unsigned long *pfn)
	__releases(&pcp->lock)
{
	int ret;

	ret = pcp_refill(alloc, pcp);
	if (!ret)
		*pfn = pcp->pfns[--pcp->nr];
	spin_unlock_irqrestore(&pcp->lock, flags);
	return ret;
}

static int pcp_get(struct hmm_devmem_alloc *alloc, unsigned long *pfn)
{
	struct hmm_devmem_pcp *pcp;
	unsigned long flags;

	/* A move to another CPU after this costs the transfer of a lock, no more. */
	pcp = raw_cpu_ptr(alloc->pcp);
	spin_lock_irqsave(&pcp->lock, flags);
	if (unlikely(READ_ONCE(alloc->refused) || !pcp->nr))
		return pcp_get_special(alloc, pcp, flags, pfn);
	*pfn = pcp->pfns[--pcp->nr];
	spin_unlock_irqrestore(&pcp->lock, flags);
	return 0;
}

static noinline void put_locked(struct hmm_devmem_alloc *alloc,
				unsigned long pfn, unsigned int order)
{
	unsigned long flags;

	spin_lock_irqsave(&alloc->lock, flags);
	hmm_devmem_block_put(alloc, pfn, order);
	spin_unlock_irqrestore(&alloc->lock, flags);
}

/* Make room. Wait for the shared lock only if the cache is full: CPU faults free. */
static void pcp_trim(struct hmm_devmem_alloc *alloc, struct hmm_devmem_pcp *pcp)
{
	lockdep_assert_held(&pcp->lock);

	if (pcp->nr == HMM_DEVMEM_PCP_MAX)
		spin_lock(&alloc->lock);
	else if (!spin_trylock(&alloc->lock))
		return;
	pcp_flush(alloc, pcp, pcp->nr - HMM_DEVMEM_PCP_BATCH);
	spin_unlock(&alloc->lock);
}

/* May @pfn be cached? Called after a drain, and for all pages if any was retired. */
static noinline bool pcp_may_put(struct hmm_devmem_alloc *alloc,
				 struct hmm_devmem_pcp *pcp, unsigned long pfn)
{
	/* Pages are retired before the drain that sets @look. */
	pcp->look = hmm_devmem_alloc_any_retired(alloc);
	if (hmm_devmem_alloc_retired(alloc, pfn))
		return false;
	pcp_note_filled(alloc, pcp);
	return true;
}

/* The end of pcp_put() if the page may be retired, or the cache is full. */
static noinline void pcp_put_special(struct hmm_devmem_alloc *alloc,
				     struct hmm_devmem_pcp *pcp,
				     unsigned long flags, unsigned long pfn)
	__releases(&pcp->lock)
{
	if (pcp->look && !pcp_may_put(alloc, pcp, pfn)) {
		spin_unlock_irqrestore(&pcp->lock, flags);
		put_locked(alloc, pfn, 0);
		return;
	}
	pcp->pfns[pcp->nr++] = pfn;
	if (pcp->nr >= HMM_DEVMEM_PCP_HIGH)
		pcp_trim(alloc, pcp);
	spin_unlock_irqrestore(&pcp->lock, flags);
}

static void pcp_put(struct hmm_devmem_alloc *alloc, unsigned long pfn)
{
	struct hmm_devmem_pcp *pcp;
	unsigned long flags;

	pcp = raw_cpu_ptr(alloc->pcp);
	spin_lock_irqsave(&pcp->lock, flags);
	if (unlikely(pcp->look || pcp->nr >= HMM_DEVMEM_PCP_HIGH - 1)) {
		pcp_put_special(alloc, pcp, flags, pfn);
		return;
	}
	pcp->pfns[pcp->nr++] = pfn;
	spin_unlock_irqrestore(&pcp->lock, flags);
}

static void pcp_drain_cpu(struct hmm_devmem_alloc *alloc, unsigned int cpu)
{
	struct hmm_devmem_pcp *pcp = per_cpu_ptr(alloc->pcp, cpu);
	unsigned long flags;

	spin_lock_irqsave(&pcp->lock, flags);
	if (pcp->nr) {
		spin_lock(&alloc->lock);
		pcp_flush(alloc, pcp, pcp->nr);
		spin_unlock(&alloc->lock);
	}
	pcp->look = true;
	if (pcp->filled) {
		/* A CPU that reads false here finds the pages in their blocks. */
		smp_store_release(&pcp->filled, false);
		atomic_dec_return_release(&alloc->nr_filled);
	}
	spin_unlock_irqrestore(&pcp->lock, flags);
}

/* A CPU that uses a cache after this sees what was changed before. */
static void pcp_drain_all(struct hmm_devmem_alloc *alloc)
{
	unsigned int cpu;

	atomic_long_inc(&alloc->nr_drained);
	for_each_possible_cpu(cpu)
		pcp_drain_cpu(alloc, cpu);
}

/* Return: Whether there was anything to be emptied. */
static bool pcp_drain_filled(struct hmm_devmem_alloc *alloc)
{
	unsigned int cpu;

	if (!atomic_read_acquire(&alloc->nr_filled))
		return false;
	atomic_long_inc(&alloc->nr_drained);
	for_each_possible_cpu(cpu)
		/* Pairs with pcp_drain_cpu(): false if pages are in their blocks. */
		if (smp_load_acquire(&per_cpu_ptr(alloc->pcp, cpu)->filled))
			pcp_drain_cpu(alloc, cpu);
	return true;
}

/**
 * hmm_devmem_alloc_drain() - Empty the per-CPU caches
 * @alloc: The allocator.
 *
 * Takes locks of those CPUs only that have filled their cache since the last time.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_drain(struct hmm_devmem_alloc *alloc)
{
	pcp_drain_filled(alloc);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_drain);

static int hmm_devmem_cpu_dead(unsigned int cpu, struct hlist_node *node)
{
	pcp_drain_cpu(hlist_entry_safe(node, struct hmm_devmem_alloc, cpuhp),
		      cpu);
	return 0;
}

static noinline int get_locked(struct hmm_devmem_alloc *alloc,
			       unsigned int order, unsigned long *pfn)
{
	unsigned long flags;
	int ret;

	do {
		spin_lock_irqsave(&alloc->lock, flags);
		ret = alloc->refused ?:
		      hmm_devmem_block_take_order(alloc, order, pfn);
		spin_unlock_irqrestore(&alloc->lock, flags);
	} while (unlikely(ret > 0));
	return ret;
}

/* What is missing may be in the caches of other CPUs. */
static noinline int get_after_drain(struct hmm_devmem_alloc *alloc,
				    unsigned int order, unsigned long *pfn)
{
	return pcp_drain_filled(alloc) ? get_locked(alloc, order, pfn) : -ENOMEM;
}

/* A function of its own, so that single pages need few registers. */
static noinline int get_large(struct hmm_devmem_alloc *alloc, unsigned int order,
			      unsigned long *pfn)
{
	int ret;

	if (order > alloc->block_order)
		return -EINVAL;
	ret = get_locked(alloc, order, pfn);
	return ret == -ENOMEM ? get_after_drain(alloc, order, pfn) : ret;
}

/**
 * hmm_devmem_alloc_get() - Allocate naturally aligned pages
 * @alloc: The allocator.
 * @order: 2^@order pages.
 * @pfn: The first of them.
 *
 * Context: Any context.
 * Return:
 * * %0 - done
 * * %-EINVAL - @order is larger than a block
 * * %-ENOMEM - no such piece is free
 * * %-ENODEV - the allocator was killed
 * * %-EAGAIN - it is frozen
 */
int hmm_devmem_alloc_get(struct hmm_devmem_alloc *alloc,
			 unsigned int order,
			 unsigned long *pfn)
{
	int ret;

	if (likely(!order)) {
		ret = pcp_get(alloc, pfn);
		if (unlikely(ret == -ENOMEM))
			ret = get_after_drain(alloc, 0, pfn);
	} else {
		ret = get_large(alloc, order, pfn);
	}
	if (likely(!ret))
		hmm_devmem_block_set_live(alloc, *pfn, order, true);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_get);

static unsigned int get_bulk_locked(struct hmm_devmem_alloc *alloc,
				    unsigned int nr, unsigned long *pfns)
{
	unsigned int got = 0, run;
	unsigned long flags, pfn;

	spin_lock_irqsave(&alloc->lock, flags);
	while (!alloc->refused && got < nr) {
		run = hmm_devmem_block_take_run(alloc, nr - got, &pfn);
		if (!run)
			break;
		while (run--)
			pfns[got++] = pfn++;
	}
	spin_unlock_irqrestore(&alloc->lock, flags);
	return got;
}

/**
 * hmm_devmem_alloc_get_bulk() - Allocate many single pages
 * @alloc: The allocator.
 * @nr: How many.
 * @pfns: Filled with pfns, in as few contiguous runs as is cheaply possible.
 *
 * Goes past the per-CPU caches, whose pages are scattered. Each page is freed
 * by itself, with order 0.
 *
 * Context: Any context.
 * Return: How many pages there are in @pfns; less than @nr, or 0, when there
 * are no more or the allocator was killed or is frozen.
 */
unsigned int hmm_devmem_alloc_get_bulk(struct hmm_devmem_alloc *alloc,
				       unsigned int nr, unsigned long *pfns)
{
	unsigned int got, i;

	got = get_bulk_locked(alloc, nr, pfns);
	if (got < nr && pcp_drain_filled(alloc))
		got += get_bulk_locked(alloc, nr - got, pfns + got);
	if (IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG))
		for (i = 0; i < got; i++)
			hmm_devmem_block_set_live(alloc, pfns[i], 0, true);
	return got;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_get_bulk);

/**
 * hmm_devmem_alloc_put() - Free pages
 * @alloc: The allocator.
 * @pfn: The first page.
 * @order: 2^@order pages, not more than were allocated in one piece; a larger
 *	piece may be freed in parts.
 *
 * Context: Any context. Does not allocate and cannot fail.
 */
void hmm_devmem_alloc_put(struct hmm_devmem_alloc *alloc,
			  unsigned long pfn,
			  unsigned int order)
{
	/* One comparison for both ends. */
	if (WARN_ON_ONCE(pfn - alloc->first >= alloc->nr_pages))
		return;
	if (!hmm_devmem_block_set_live(alloc, pfn, order, false))
		return;
	if (order)
		put_locked(alloc, pfn, order);
	else
		pcp_put(alloc, pfn);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_put);

/*
 * Change the state from @from to @to; returns false if it was not @from. A killed
 * allocator remains killed: no caller passes -ENODEV as @from.
 */
static bool alloc_refuse(struct hmm_devmem_alloc *alloc, int from, int to)
{
	guard(spinlock_irqsave)(&alloc->lock);
	if (alloc->refused != from)
		return false;
	WRITE_ONCE(alloc->refused, to);
	return true;
}

/**
 * hmm_devmem_alloc_kill() - Let no more pages be allocated
 * @alloc: The allocator, in whatever state.
 *
 * When this returns, every allocation that could still succeed has succeeded, and
 * neither hmm_devmem_alloc_freeze() nor hmm_devmem_alloc_thaw(), also if they run
 * at the same time, changes anything any more.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_kill(struct hmm_devmem_alloc *alloc)
{
	scoped_guard(spinlock_irqsave, &alloc->lock)
		WRITE_ONCE(alloc->refused, -ENODEV);
	/*
	 * This takes the lock of each cache: an allocation that takes it later sees
	 * @refused, and one that took it before has got its page.
	 */
	pcp_drain_all(alloc);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_kill);

/**
 * hmm_devmem_alloc_freeze() - Let no pages be allocated for a while
 * @alloc: The allocator.
 *
 * As hmm_devmem_alloc_kill(), but hmm_devmem_alloc_thaw() undoes it.
 *
 * Context: Any context. One caller at a time.
 * Return: False if the allocator was killed.
 */
bool hmm_devmem_alloc_freeze(struct hmm_devmem_alloc *alloc)
{
	if (!alloc_refuse(alloc, 0, -EAGAIN))
		return false;
	/* See hmm_devmem_alloc_kill(). */
	pcp_drain_all(alloc);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_freeze);

/**
 * hmm_devmem_alloc_thaw() - Let pages be allocated again
 * @alloc: The allocator; if it was killed in the meantime it remains so.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_thaw(struct hmm_devmem_alloc *alloc)
{
	alloc_refuse(alloc, -EAGAIN, 0);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_thaw);

/**
 * hmm_devmem_alloc_refused() - Can pages be allocated at all?
 * @alloc: The allocator.
 *
 * Context: Any context.
 * Return: 0, -ENODEV after hmm_devmem_alloc_kill(), -EAGAIN while frozen.
 */
int hmm_devmem_alloc_refused(struct hmm_devmem_alloc *alloc)
{
	return READ_ONCE(alloc->refused);
}

/**
 * hmm_devmem_alloc_retire() - Never hand a page out again
 * @alloc: The allocator.
 * @pfn: The page; may be free or in use, and may have been retired already. Its area
 *	need not be populated: what is retired is remembered.
 *
 * A page in use is retired when it is freed.
 *
 * Context: Process context, may sleep; any context if its area is populated.
 */
void hmm_devmem_alloc_retire(struct hmm_devmem_alloc *alloc,
			     unsigned long pfn)
{
	hmm_devmem_alloc_retire_range(alloc, pfn, pfn + 1);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_retire);

/**
 * hmm_devmem_alloc_retire_range() - Never hand pages out again
 * @alloc: The allocator.
 * @pfn: The first page; see hmm_devmem_alloc_retire().
 * @end: One past the last.
 *
 * Empties the caches once.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_alloc_retire_range(struct hmm_devmem_alloc *alloc,
				   unsigned long pfn, unsigned long end)
{
	if (pfn >= end)
		return;
	for (; pfn < end; pfn++) {
		/* An area needs this memory, a page of it, only once. */
		while (!hmm_devmem_block_retire(alloc, pfn))
			hmm_devmem_alloc_reserve_bad(alloc, pfn,
						     GFP_KERNEL | __GFP_NOFAIL);
		cond_resched();
	}
	/* Retired pages enter no cache from here on; take out those in one. */
	pcp_drain_all(alloc);
}

/**
 * hmm_devmem_alloc_retire_new() - Never hand a page out at all
 * @alloc: The allocator; no page of it has been allocated yet.
 * @pfn: The page, as for hmm_devmem_alloc_retire().
 *
 * Context: Process context, may sleep.
 * Return: 0, or -ENOMEM and nothing is changed.
 */
int hmm_devmem_alloc_retire_new(struct hmm_devmem_alloc *alloc, unsigned long pfn)
{
	int ret = 0;

	while (!ret && !hmm_devmem_block_retire(alloc, pfn))
		ret = hmm_devmem_alloc_reserve_bad(alloc, pfn, GFP_KERNEL);
	return ret;
}

/**
 * hmm_devmem_alloc_get_stats() - Count the pages by their state
 * @alloc: The allocator.
 * @stats: Filled in; derived from the bitmaps' counts, not kept by hand.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_get_stats(struct hmm_devmem_alloc *alloc,
				struct hmm_devmem_alloc_stats *stats)
{
	unsigned long cached = 0, flags;
	unsigned int cpu;

	/* Like all of this, exact if no page is allocated or freed meanwhile. */
	for_each_possible_cpu(cpu)
		cached += READ_ONCE(per_cpu_ptr(alloc->pcp, cpu)->nr);
	spin_lock_irqsave(&alloc->lock, flags);
	stats->total = alloc->nr_total - alloc->nr_absent;
	stats->used = alloc->nr_used - alloc->nr_lost;
	stats->cached = min(cached, stats->used);
	stats->used -= stats->cached;
	stats->free = alloc->nr_total - alloc->nr_used;
	stats->retired = alloc->nr_retired;
	spin_unlock_irqrestore(&alloc->lock, flags);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_get_stats);

/**
 * hmm_devmem_alloc_used() - Number of pages that are allocated
 * @alloc: The allocator.
 *
 * Context: Any context.
 * Return: Exact if nothing is allocated or freed meanwhile.
 */
unsigned long hmm_devmem_alloc_used(struct hmm_devmem_alloc *alloc)
{
	struct hmm_devmem_alloc_stats stats;

	hmm_devmem_alloc_get_stats(alloc, &stats);
	return stats.used;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_used);

/**
 * hmm_devmem_alloc_any_used() - Is any page allocated?
 * @alloc: The allocator. Its caches are emptied.
 *
 * Does not use hmm_devmem_alloc_used(), which can return too few: a page that it
 * counts as cached can have gone back to its block before it counts pages in use.
 *
 * Context: Any context.
 * Return: True if there is a page that has been in use all the time. Can be true as
 * well if there is none, when pages are allocated or freed meanwhile.
 */
bool hmm_devmem_alloc_any_used(struct hmm_devmem_alloc *alloc)
{
	hmm_devmem_alloc_drain(alloc);
	guard(spinlock_irqsave)(&alloc->lock);
	return alloc->nr_used != alloc->nr_lost;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_any_used);

/**
 * hmm_devmem_alloc_area_used() - Number of pages of an area that are not free
 * @alloc: The allocator.
 * @idx: Which area.
 *
 * Context: Any context. The area is not depopulated meanwhile.
 * Return: Number of pages, with those in per-CPU caches; 0 if the area is not populated.
 */
unsigned long hmm_devmem_alloc_area_used(struct hmm_devmem_alloc *alloc,
					 unsigned int idx)
{
	struct hmm_devmem_area *area;
	unsigned long flags, used;

	spin_lock_irqsave(&alloc->lock, flags);
	area = alloc->areas[idx];
	used = area ? area->nr_used - area->nr_lost : 0;
	spin_unlock_irqrestore(&alloc->lock, flags);
	return used;
}

/**
 * hmm_devmem_alloc_idle_areas() - Number of areas without a page in use
 * @alloc: The allocator. An area with a page in a cache does not count.
 *
 * Context: Any context.
 * Return: A hint: other CPUs allocate and free at the same time.
 */
unsigned int hmm_devmem_alloc_idle_areas(struct hmm_devmem_alloc *alloc)
{
	return READ_ONCE(alloc->nr_idle);
}

/**
 * hmm_devmem_alloc_has_block() - Is there a whole block?
 * @alloc: The allocator.
 *
 * Context: Any context.
 * Return: A hint: other CPUs allocate and free at the same time.
 */
bool hmm_devmem_alloc_has_block(struct hmm_devmem_alloc *alloc)
{
	return READ_ONCE(alloc->free_orders) & BIT(alloc->block_order) ||
	       !list_empty_careful(&alloc->fresh);
}

/**
 * hmm_devmem_alloc_has_page() - Is there a free page?
 * @alloc: The allocator.
 *
 * Context: Any context.
 * Return: A hint: other CPUs allocate and free at the same time.
 */
bool hmm_devmem_alloc_has_page(struct hmm_devmem_alloc *alloc)
{
	unsigned int cpu;

	if (READ_ONCE(alloc->free_orders) || !list_empty_careful(&alloc->fresh))
		return true;
	for_each_possible_cpu(cpu)
		if (READ_ONCE(per_cpu_ptr(alloc->pcp, cpu)->nr))
			return true;
	return false;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_has_page);

/**
 * hmm_devmem_alloc_create() - Set up an allocator
 * @first: First pfn.
 * @nr_pages: Number of pages, not 0.
 * @block_order: Pages of a block, log2, at most HMM_DEVMEM_MAX_BLOCK_ORDER.
 * @area_shift: Pages of an area, log2, at least @block_order. No area is
 *	populated yet.
 *
 * The cost does not depend on @nr_pages but through the number of areas, each of
 * which takes a word.
 *
 * Context: Process context, may sleep.
 * Return: The allocator, or NULL if there is no memory.
 */
struct hmm_devmem_alloc *hmm_devmem_alloc_create(unsigned long first,
						 unsigned long nr_pages,
						 unsigned int block_order,
						 unsigned int area_shift)
{
	unsigned long base = ALIGN_DOWN(first, 1UL << block_order);
	unsigned long nr_areas = DIV_ROUND_UP(first + nr_pages - base,
					      1UL << area_shift);
	struct hmm_devmem_alloc *alloc;
	unsigned int cpu, i;

	if (WARN_ON_ONCE(block_order > HMM_DEVMEM_MAX_BLOCK_ORDER))
		return NULL;
	alloc = kvzalloc_flex(*alloc, areas, nr_areas);
	if (!alloc)
		return NULL;
	alloc->nr_areas = nr_areas;
	alloc->bad = kvcalloc(nr_areas, sizeof(*alloc->bad), GFP_KERNEL);
	if (!alloc->bad)
		goto err_free;
	alloc->pcp = alloc_percpu(struct hmm_devmem_pcp);
	if (!alloc->pcp)
		goto err_free_bad;
	for_each_possible_cpu(cpu) {
		spin_lock_init(&per_cpu_ptr(alloc->pcp, cpu)->lock);
		per_cpu_ptr(alloc->pcp, cpu)->look = true;
	}

	spin_lock_init(&alloc->lock);
	alloc->block_order = block_order;
	alloc->area_shift = area_shift;
	alloc->first = first;
	alloc->last = first + nr_pages;
	alloc->nr_pages = nr_pages;
	alloc->base = base;
	for (i = 0; i <= block_order; i++)
		INIT_LIST_HEAD(&alloc->free[i]);
	INIT_LIST_HEAD(&alloc->fresh);
	if (cpuhp_state_add_instance_nocalls(hmm_devmem_cpuhp, &alloc->cpuhp))
		goto err_free_pcp;
	return alloc;

err_free_pcp:
	free_percpu(alloc->pcp);
err_free_bad:
	kvfree(alloc->bad);
err_free:
	kvfree(alloc);
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_create);

/**
 * hmm_devmem_alloc_clear() - Forget about all areas
 * @alloc: The allocator, or NULL. No page is in use, and it was killed if it can still
 *	be asked for pages.
 *
 * The allocator that is left needs little memory, and refuses all requests.
 *
 * Context: Process context.
 */
void hmm_devmem_alloc_clear(struct hmm_devmem_alloc *alloc)
{
	unsigned int i;

	if (!alloc)
		return;
	/* A CPU that goes offline would give its pages back to blocks that are gone. */
	hmm_devmem_alloc_drain(alloc);
	for (i = 0; i < alloc->nr_areas; i++) {
		hmm_devmem_area_free(alloc->areas[i]);
		alloc->areas[i] = NULL;
		kvfree(alloc->bad[i]);
		alloc->bad[i] = NULL;
	}
}

/**
 * hmm_devmem_alloc_destroy() - Undo hmm_devmem_alloc_create()
 * @alloc: The allocator, or NULL. No page is in use, or they will not be freed.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_alloc_destroy(struct hmm_devmem_alloc *alloc)
{
	if (!alloc)
		return;
	cpuhp_state_remove_instance_nocalls(hmm_devmem_cpuhp, &alloc->cpuhp);
	hmm_devmem_alloc_clear(alloc);
	kvfree(alloc->bad);
	free_percpu(alloc->pcp);
	kvfree(alloc);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_destroy);

/**
 * hmm_devmem_alloc_init() - Prepare for CPU hotplug
 *
 * Context: Process context, once at boot.
 * Return: 0 or an errno.
 */
int __init hmm_devmem_alloc_init(void)
{
	int ret;

	ret = cpuhp_setup_state_multi(CPUHP_BP_PREPARE_DYN, "mm/hmm_devmem:dead",
				      NULL, hmm_devmem_cpu_dead);
	if (ret < 0)
		return ret;
	hmm_devmem_cpuhp = ret;
	return 0;
}
