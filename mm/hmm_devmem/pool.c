// SPDX-License-Identifier: GPL-2.0
/*
 * Pool for device pages.
 */

/**
 * DOC: Pool
 *
 * Device memory is cut into *blocks*: naturally aligned pieces of the size that
 * core migrates whole (2 MiB on x86). A block has one bit for each of its pages
 * and is in one of four states: fresh (no page was ever taken), empty, partial or
 * full. Fresh blocks follow each other in their segment, which is on a list of
 * segments with such blocks. There is one list of empty blocks, and partial
 * blocks are on one of several lists, by the size of the largest *piece*, a naturally
 * aligned range of 2^n pages, that can be free in them. So single pages and whole blocks
 * are found in constant time.
 *
 * The size of the largest free piece is found out only when a piece is needed: until
 * a search has found less, and again after pages are freed, a block is listed by its
 * number of free pages. A search takes part of a microsecond. At most eight are done
 * with interrupts off; then a whole block is broken up, or, if there is none, the
 * search goes on after the lock was released. One request can search as many blocks
 * as have had pages freed since they were searched last, so it costs no more than a
 * part of what it cost to free those. Migrations ask for no such pieces, but only for
 * single pages and whole blocks.
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
 * before it has one (%HMM_DEVMEM_LAZY): for a segment that is not populated, a bitmap,
 * which exists only if needed, says which of its pages were retired.
 *
 * block.c knows which pages are free, supply.c which of them are handed out next. They
 * are separate, so that a block can be taken off the lists of supply.c without any change
 * to what block.c knows of its pages.
 *
 * The blocks can be the driver's own (%HMM_DEVMEM_SHARED). Then none has free pages until
 * the driver lends it. To get a block back, the pool first withholds its pages: none is
 * handed out any more, and those that are freed go past the caches. When the last page of
 * the block is free, the block is the driver's again.
 *
 * Pages are pfns here. These files know nothing of struct page, of processes or
 * of struct dev_pagemap, so they are tested without any device.
 *
 * Locking: &hmm_devmem_pcp.lock is taken before &hmm_devmem_pool.blocks_lock, both
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
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "block.h"

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
 * @look: The next free to this cache must set @filled, and check for pages not to cache.
 * @filled: There may be a page here; counted in &hmm_devmem_pool.nr_filled.
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

/* Give the @nr pages that have been in the cache longest back to their blocks. */
static void pcp_flush(struct hmm_devmem_pool *pool,
		      struct hmm_devmem_pcp *pcp, unsigned int nr)
{
	lockdep_assert_held(&pcp->lock);
	lockdep_assert_held(&pool->blocks_lock);

	hmm_devmem_block_put_bulk(pool, pcp->pfns, nr);
	pcp->nr -= nr;
	memmove(pcp->pfns, pcp->pfns + nr, pcp->nr * sizeof(pcp->pfns[0]));
}

/* Note that pages are about to get into a cache. */
static void pcp_note_filled(struct hmm_devmem_pool *pool,
			    struct hmm_devmem_pcp *pcp)
{
	lockdep_assert_held(&pcp->lock);

	if (pcp->filled)
		return;
	WRITE_ONCE(pcp->filled, true);
	atomic_inc(&pool->nr_filled);
}

/* Fill a cache, if it is empty, so that it hands out ascending pfns. */
static int pcp_refill(struct hmm_devmem_pool *pool,
		      struct hmm_devmem_pcp *pcp)
{
	unsigned int nr, top = HMM_DEVMEM_PCP_BATCH;
	unsigned long pfn;

	lockdep_assert_held(&pcp->lock);

	guard(spinlock)(&pool->blocks_lock);
	if (pool->refused)
		return pool->refused;
	/* The cache has pages: allocation was refused, and was thawed just now. */
	if (pcp->nr)
		return 0;
	while (top) {
		nr = hmm_devmem_supply_take_run(pool, top, &pfn);
		if (!nr)
			break;
		while (nr--)
			pcp->pfns[--top] = pfn++;
	}
	pcp->nr = HMM_DEVMEM_PCP_BATCH - top;
	if (pcp->nr)
		pcp_note_filled(pool, pcp);
	if (top)
		memmove(pcp->pfns, pcp->pfns + top, pcp->nr * sizeof(pcp->pfns[0]));
	return pcp->nr ? 0 : -ENOMEM;
}

/* What pcp_alloc() ends with if the cache is empty, or allocation is refused. */
static noinline int pcp_alloc_special(struct hmm_devmem_pool *pool,
				      struct hmm_devmem_pcp *pcp,
				      unsigned long flags, unsigned long *pfn)
	__releases(&pcp->lock)
{
	int ret;

	ret = pcp_refill(pool, pcp);
	if (!ret)
		*pfn = pcp->pfns[--pcp->nr];
	spin_unlock_irqrestore(&pcp->lock, flags);
	return ret;
}

static int pcp_alloc(struct hmm_devmem_pool *pool, unsigned long *pfn)
{
	struct hmm_devmem_pcp *pcp;
	unsigned long flags;

	/* If the task moves to another CPU now, to take this CPU's lock is only slower. */
	pcp = raw_cpu_ptr(pool->pcp);
	spin_lock_irqsave(&pcp->lock, flags);
	if (unlikely(READ_ONCE(pool->refused) || !pcp->nr))
		return pcp_alloc_special(pool, pcp, flags, pfn);
	*pfn = pcp->pfns[--pcp->nr];
	spin_unlock_irqrestore(&pcp->lock, flags);
	return 0;
}

static noinline void free_locked(struct hmm_devmem_pool *pool,
				 unsigned long pfn, unsigned int order)
{
	unsigned long flags;

	spin_lock_irqsave(&pool->blocks_lock, flags);
	hmm_devmem_block_put(pool, pfn, order);
	spin_unlock_irqrestore(&pool->blocks_lock, flags);
}

/*
 * Make room in a cache. Wait for the shared lock only if the cache is full, because CPU
 * faults free pages, and should not wait for other CPUs.
 */
static void pcp_trim(struct hmm_devmem_pool *pool, struct hmm_devmem_pcp *pcp)
{
	lockdep_assert_held(&pcp->lock);

	if (pcp->nr == HMM_DEVMEM_PCP_MAX)
		spin_lock(&pool->blocks_lock);
	else if (!spin_trylock(&pool->blocks_lock))
		return;
	pcp_flush(pool, pcp, pcp->nr - HMM_DEVMEM_PCP_BATCH);
	spin_unlock(&pool->blocks_lock);
}

/* May @pfn be cached? Called after a drain, and for all pages if any was retired. */
static noinline bool pcp_may_cache(struct hmm_devmem_pool *pool,
				   struct hmm_devmem_pcp *pcp, unsigned long pfn)
{
	const unsigned int nr_withheld = READ_ONCE(pool->nr_withheld);

	/* Pages are retired, and blocks withheld, before the drain that sets @look. */
	pcp->look = hmm_devmem_pool_any_retired(pool) || nr_withheld;
	if (hmm_devmem_pool_retired(pool, pfn))
		return false;
	if (nr_withheld && block_is_withheld(pfn_block(pool, pfn_segment(pool, pfn), pfn)))
		return false;
	pcp_note_filled(pool, pcp);
	return true;
}

/* What pcp_free() ends with if the page may be retired, or the cache is full. */
static noinline void pcp_free_special(struct hmm_devmem_pool *pool,
				      struct hmm_devmem_pcp *pcp,
				      unsigned long flags, unsigned long pfn)
	__releases(&pcp->lock)
{
	if (pcp->look && !pcp_may_cache(pool, pcp, pfn)) {
		spin_unlock_irqrestore(&pcp->lock, flags);
		free_locked(pool, pfn, 0);
		return;
	}
	pcp->pfns[pcp->nr++] = pfn;
	if (pcp->nr >= HMM_DEVMEM_PCP_HIGH)
		pcp_trim(pool, pcp);
	spin_unlock_irqrestore(&pcp->lock, flags);
}

static void pcp_free(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	struct hmm_devmem_pcp *pcp;
	unsigned long flags;

	pcp = raw_cpu_ptr(pool->pcp);
	spin_lock_irqsave(&pcp->lock, flags);
	if (unlikely(pcp->look || pcp->nr >= HMM_DEVMEM_PCP_HIGH - 1)) {
		pcp_free_special(pool, pcp, flags, pfn);
		return;
	}
	pcp->pfns[pcp->nr++] = pfn;
	spin_unlock_irqrestore(&pcp->lock, flags);
}

static void pcp_drain_cpu(struct hmm_devmem_pool *pool, unsigned int cpu)
{
	struct hmm_devmem_pcp *pcp = per_cpu_ptr(pool->pcp, cpu);
	unsigned long flags;

	spin_lock_irqsave(&pcp->lock, flags);
	if (pcp->nr) {
		spin_lock(&pool->blocks_lock);
		pcp_flush(pool, pcp, pcp->nr);
		spin_unlock(&pool->blocks_lock);
	}
	pcp->look = true;
	if (pcp->filled) {
		/* A CPU that reads false here finds the pages in their blocks. */
		smp_store_release(&pcp->filled, false);
		atomic_dec_return_release(&pool->nr_filled);
	}
	spin_unlock_irqrestore(&pcp->lock, flags);
}

/* A CPU that uses a cache after this sees what was changed before. */
static void pcp_drain_all(struct hmm_devmem_pool *pool)
{
	unsigned int cpu;

	atomic_long_inc(&pool->nr_drained);
	for_each_possible_cpu(cpu)
		pcp_drain_cpu(pool, cpu);
}

/* Return: Whether there was anything to be emptied. */
static bool pcp_drain_filled(struct hmm_devmem_pool *pool)
{
	unsigned int cpu;

	if (!atomic_read_acquire(&pool->nr_filled))
		return false;
	atomic_long_inc(&pool->nr_drained);
	for_each_possible_cpu(cpu)
		/* Pairs with pcp_drain_cpu(): false if pages are in their blocks. */
		if (smp_load_acquire(&per_cpu_ptr(pool->pcp, cpu)->filled))
			pcp_drain_cpu(pool, cpu);
	return true;
}

/**
 * hmm_devmem_pool_drain() - Empty the per-CPU caches
 * @pool: The pool.
 *
 * Takes locks of those CPUs only that have filled their cache since the last time.
 *
 * Context: Any context.
 */
void hmm_devmem_pool_drain(struct hmm_devmem_pool *pool)
{
	pcp_drain_filled(pool);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_drain);

static int hmm_devmem_cpu_dead(unsigned int cpu, struct hlist_node *node)
{
	pcp_drain_cpu(hlist_entry_safe(node, struct hmm_devmem_pool, cpuhp),
		      cpu);
	return 0;
}

static noinline int alloc_locked(struct hmm_devmem_pool *pool,
				 unsigned int order, unsigned long *pfn)
{
	unsigned long flags;
	int ret;

	do {
		spin_lock_irqsave(&pool->blocks_lock, flags);
		ret = pool->refused ?:
		      hmm_devmem_supply_take_order(pool, order, pfn);
		spin_unlock_irqrestore(&pool->blocks_lock, flags);
	} while (unlikely(ret > 0));
	return ret;
}

/* Empty the per-CPU caches and try again: free pages can be in those of other CPUs. */
static noinline int alloc_after_drain(struct hmm_devmem_pool *pool,
				      unsigned int order, unsigned long *pfn)
{
	return pcp_drain_filled(pool) ? alloc_locked(pool, order, pfn) : -ENOMEM;
}

/* A function of its own, so that single pages need few registers. */
static noinline int alloc_large(struct hmm_devmem_pool *pool, unsigned int order,
				unsigned long *pfn)
{
	int ret;

	if (order > pool->block_order)
		return -EINVAL;
	ret = alloc_locked(pool, order, pfn);
	return ret == -ENOMEM ? alloc_after_drain(pool, order, pfn) : ret;
}

/**
 * hmm_devmem_pool_alloc() - Allocate naturally aligned pages
 * @pool: The pool.
 * @order: 2^@order pages.
 * @pfn: The first of them.
 *
 * Context: Any context.
 * Return:
 * * %0 - done
 * * %-EINVAL - @order is larger than a block
 * * %-ENOMEM - no such piece is free
 * * %-ENODEV - the pool was killed
 * * %-EAGAIN - it is frozen
 */
int hmm_devmem_pool_alloc(struct hmm_devmem_pool *pool,
			  unsigned int order,
			  unsigned long *pfn)
{
	int ret;

	if (likely(!order)) {
		ret = pcp_alloc(pool, pfn);
		if (unlikely(ret == -ENOMEM))
			ret = alloc_after_drain(pool, 0, pfn);
	} else {
		ret = alloc_large(pool, order, pfn);
	}
	if (likely(!ret))
		hmm_devmem_block_set_live(pool, *pfn, order, true);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_alloc);

static unsigned int alloc_bulk_locked(struct hmm_devmem_pool *pool,
				      unsigned int nr, unsigned long *pfns)
{
	unsigned int got = 0, run;
	unsigned long flags, pfn;

	spin_lock_irqsave(&pool->blocks_lock, flags);
	while (!pool->refused && got < nr) {
		run = hmm_devmem_supply_take_run(pool, nr - got, &pfn);
		if (!run)
			break;
		while (run--)
			pfns[got++] = pfn++;
	}
	spin_unlock_irqrestore(&pool->blocks_lock, flags);
	return got;
}

/**
 * hmm_devmem_pool_alloc_bulk() - Allocate many single pages
 * @pool: The pool.
 * @nr: How many.
 * @pfns: Filled with pfns, in as few contiguous runs as is cheaply possible.
 *
 * Goes past the per-CPU caches, whose pages are scattered. Each page is freed
 * by itself, with order 0.
 *
 * Context: Any context.
 * Return: How many pages there are in @pfns; less than @nr, or 0, when there
 * are no more or the pool was killed or is frozen.
 */
unsigned int hmm_devmem_pool_alloc_bulk(struct hmm_devmem_pool *pool,
					unsigned int nr, unsigned long *pfns)
{
	unsigned int got, i;

	got = alloc_bulk_locked(pool, nr, pfns);
	if (got < nr && pcp_drain_filled(pool))
		got += alloc_bulk_locked(pool, nr - got, pfns + got);
	if (IS_ENABLED(CONFIG_HMM_DEVMEM_DEBUG))
		for (i = 0; i < got; i++)
			hmm_devmem_block_set_live(pool, pfns[i], 0, true);
	return got;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_alloc_bulk);

/**
 * hmm_devmem_pool_free() - Free pages
 * @pool: The pool.
 * @pfn: The first page.
 * @order: 2^@order pages; at most the order of the allocation, which may be freed in
 *	parts.
 *
 * Context: Any context. Does not allocate and cannot fail.
 */
void hmm_devmem_pool_free(struct hmm_devmem_pool *pool,
			  unsigned long pfn,
			  unsigned int order)
{
	/* One comparison for both ends. */
	if (WARN_ON_ONCE(pfn - pool->first >= pool->nr_pages))
		return;
	if (!hmm_devmem_block_set_live(pool, pfn, order, false))
		return;
	if (order)
		free_locked(pool, pfn, order);
	else
		pcp_free(pool, pfn);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_free);

/*
 * Change the state from @from to @to; returns false if it was not @from. A killed
 * pool remains killed: no caller passes -ENODEV as @from.
 */
static bool pool_refuse(struct hmm_devmem_pool *pool, int from, int to)
{
	guard(spinlock_irqsave)(&pool->blocks_lock);
	if (pool->refused != from)
		return false;
	WRITE_ONCE(pool->refused, to);
	return true;
}

/**
 * hmm_devmem_pool_kill() - Let no more pages be allocated
 * @pool: The pool, in whatever state.
 *
 * When this returns, every allocation that could still succeed has succeeded, and
 * neither hmm_devmem_pool_freeze() nor hmm_devmem_pool_thaw(), also if they run
 * at the same time, changes anything any more.
 *
 * Context: Any context.
 */
void hmm_devmem_pool_kill(struct hmm_devmem_pool *pool)
{
	scoped_guard(spinlock_irqsave, &pool->blocks_lock)
		WRITE_ONCE(pool->refused, -ENODEV);
	/*
	 * This takes the lock of each cache: an allocation that takes it later sees
	 * @refused, and one that took it before has got its page.
	 */
	pcp_drain_all(pool);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_kill);

/**
 * hmm_devmem_pool_freeze() - Let no pages be allocated for a while
 * @pool: The pool.
 *
 * As hmm_devmem_pool_kill(), but hmm_devmem_pool_thaw() undoes it.
 *
 * Context: Any context. One caller at a time.
 * Return: False if the pool was killed.
 */
bool hmm_devmem_pool_freeze(struct hmm_devmem_pool *pool)
{
	if (!pool_refuse(pool, 0, -EAGAIN))
		return false;
	/* Wait for allocations that have not seen @refused: see hmm_devmem_pool_kill(). */
	pcp_drain_all(pool);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_freeze);

/**
 * hmm_devmem_pool_thaw() - Let pages be allocated again
 * @pool: The pool; if it was killed in the meantime it remains so.
 *
 * Context: Any context.
 */
void hmm_devmem_pool_thaw(struct hmm_devmem_pool *pool)
{
	pool_refuse(pool, -EAGAIN, 0);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_thaw);

/**
 * hmm_devmem_pool_refused() - Can pages be allocated at all?
 * @pool: The pool.
 *
 * Context: Any context.
 * Return: 0, -ENODEV after hmm_devmem_pool_kill(), -EAGAIN while frozen.
 */
int hmm_devmem_pool_refused(struct hmm_devmem_pool *pool)
{
	return READ_ONCE(pool->refused);
}

/**
 * hmm_devmem_pool_retire() - Never hand a page out again
 * @pool: The pool.
 * @pfn: The page; may be free or in use, and may have been retired already. Its segment
 *	need not be populated: what is retired is remembered.
 *
 * A page in use is retired when it is freed.
 *
 * Context: Process context, may sleep; any context if its segment is populated.
 */
void hmm_devmem_pool_retire(struct hmm_devmem_pool *pool,
			    unsigned long pfn)
{
	hmm_devmem_pool_retire_range(pool, pfn, pfn + 1);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_retire);

/**
 * hmm_devmem_pool_retire_range() - Never hand pages out again
 * @pool: The pool.
 * @pfn: The first page; see hmm_devmem_pool_retire().
 * @end: One past the last.
 *
 * Empties the caches once.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_pool_retire_range(struct hmm_devmem_pool *pool,
				  unsigned long pfn, unsigned long end)
{
	if (pfn >= end)
		return;
	for (; pfn < end; pfn++) {
		/* Allocates memory at most once for each segment: a bit for each page. */
		while (!hmm_devmem_block_retire(pool, pfn))
			hmm_devmem_pool_reserve_bad(pool, pfn,
						    GFP_KERNEL | __GFP_NOFAIL);
		cond_resched();
	}
	/* Retired pages enter no cache from here on; take out those in one. */
	pcp_drain_all(pool);
}

/**
 * hmm_devmem_pool_retire_new() - Never hand a page out at all
 * @pool: The pool; no page of it has been allocated yet.
 * @pfn: The page, as for hmm_devmem_pool_retire().
 *
 * Context: Process context, may sleep.
 * Return: 0, or -ENOMEM and nothing is changed.
 */
int hmm_devmem_pool_retire_new(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	int ret = 0;

	while (!ret && !hmm_devmem_block_retire(pool, pfn))
		ret = hmm_devmem_pool_reserve_bad(pool, pfn, GFP_KERNEL);
	return ret;
}

/**
 * hmm_devmem_pool_withhold() - Hand out no more pages of a block
 * @pool: The pool.
 * @pfn: The first page of the block, which the driver has lent.
 *
 * When this returns, each page of the block that is not free is in use: none is in a
 * per-CPU cache. hmm_devmem_pool_take_back() or hmm_devmem_pool_lend() follows.
 *
 * Context: Any context. One caller at a time for each block.
 */
void hmm_devmem_pool_withhold(struct hmm_devmem_pool *pool, unsigned long pfn)
{
	scoped_guard(spinlock_irqsave, &pool->blocks_lock) {
		block_set_order(pool, pfn_block(pool, pfn_segment(pool, pfn), pfn),
				BLOCK_WITHHELD);
		WRITE_ONCE(pool->nr_withheld, pool->nr_withheld + 1);
	}
	/* Pages of the block enter no cache from here on; take out those in one. */
	pcp_drain_all(pool);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_withhold);

/**
 * hmm_devmem_pool_get_stats() - Count the pages by their state
 * @pool: The pool.
 * @stats: Filled in from the numbers of bits that are set in the bitmaps.
 *
 * Context: Any context.
 */
void hmm_devmem_pool_get_stats(struct hmm_devmem_pool *pool,
			       struct hmm_devmem_pool_stats *stats)
{
	unsigned long cached = 0, flags;
	unsigned int cpu;

	/* Like all counts here, exact if no page is allocated or freed meanwhile. */
	for_each_possible_cpu(cpu)
		cached += READ_ONCE(per_cpu_ptr(pool->pcp, cpu)->nr);
	spin_lock_irqsave(&pool->blocks_lock, flags);
	stats->total = pool->nr_total - pool->nr_absent - pool->nr_away;
	stats->used = pool->nr_taken - pool->nr_disabled;
	stats->cached = min(cached, stats->used);
	stats->used -= stats->cached;
	stats->free = pool->nr_total - pool->nr_taken -
		      (pool->nr_away - pool->nr_away_disabled);
	stats->retired = pool->nr_retired;
	spin_unlock_irqrestore(&pool->blocks_lock, flags);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_get_stats);

/**
 * hmm_devmem_pool_used() - Number of pages in use
 * @pool: The pool.
 *
 * Context: Any context.
 * Return: Exact if nothing is allocated or freed meanwhile.
 */
unsigned long hmm_devmem_pool_used(struct hmm_devmem_pool *pool)
{
	struct hmm_devmem_pool_stats stats;

	hmm_devmem_pool_get_stats(pool, &stats);
	return stats.used;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_used);

/**
 * hmm_devmem_pool_any_used() - Is any page in use?
 * @pool: The pool. Its caches are emptied.
 *
 * Does not use hmm_devmem_pool_used(), which can return too few: a page that it
 * counts as cached can have gone back to its block before it counts pages in use.
 *
 * Context: Any context.
 * Return: True if there is a page that has been in use all the time. Can be true as
 * well if there is none, when pages are allocated or freed meanwhile.
 */
bool hmm_devmem_pool_any_used(struct hmm_devmem_pool *pool)
{
	hmm_devmem_pool_drain(pool);
	guard(spinlock_irqsave)(&pool->blocks_lock);
	return pool->nr_taken != pool->nr_disabled;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_any_used);

/**
 * hmm_devmem_pool_segment_used() - Number of pages of a segment that are used or cached
 * @pool: The pool.
 * @idx: Which segment.
 *
 * Context: Any context. The segment is not depopulated meanwhile.
 * Return: Number of pages; 0 if the segment is not populated.
 */
unsigned long hmm_devmem_pool_segment_used(struct hmm_devmem_pool *pool,
					   unsigned int idx)
{
	struct hmm_devmem_pool_segment *segment;
	unsigned long flags, used;

	spin_lock_irqsave(&pool->blocks_lock, flags);
	segment = pool->segments[idx];
	used = segment ? segment->nr_taken - segment->nr_disabled : 0;
	spin_unlock_irqrestore(&pool->blocks_lock, flags);
	return used;
}

/**
 * hmm_devmem_pool_segment_is_new() - Was no page of a segment ever allocated?
 * @pool: The pool.
 * @idx: Which segment.
 *
 * Context: Any context.
 * Return: True if the segment is populated and all of its blocks are fresh. Not
 *	known of blocks on loan, which the driver lends only when they are needed: false.
 */
bool hmm_devmem_pool_segment_is_new(struct hmm_devmem_pool *pool, unsigned int idx)
{
	struct hmm_devmem_pool_segment *segment;

	guard(spinlock_irqsave)(&pool->blocks_lock);
	segment = pool->segments[idx];
	return segment && !pool->on_loan && !segment->next_fresh;
}

/**
 * hmm_devmem_pool_idle_segments() - Number of segments without a page in use
 * @pool: The pool. A segment with a page in a cache does not count.
 *
 * Context: Any context.
 * Return: A hint: other CPUs allocate and free at the same time.
 */
unsigned int hmm_devmem_pool_idle_segments(struct hmm_devmem_pool *pool)
{
	return READ_ONCE(pool->nr_idle);
}

/**
 * hmm_devmem_pool_has_block() - Is there a whole block?
 * @pool: The pool.
 *
 * Context: Any context.
 * Return: A hint: other CPUs allocate and free at the same time.
 */
bool hmm_devmem_pool_has_block(struct hmm_devmem_pool *pool)
{
	return READ_ONCE(pool->supply.orders) & BIT(pool->block_order) ||
	       !list_empty_careful(&pool->supply.fresh);
}

/**
 * hmm_devmem_pool_has_page() - Is there a free page?
 * @pool: The pool.
 *
 * Context: Any context.
 * Return: A hint: other CPUs allocate and free at the same time.
 */
bool hmm_devmem_pool_has_page(struct hmm_devmem_pool *pool)
{
	unsigned int cpu;

	if (READ_ONCE(pool->supply.orders) || !list_empty_careful(&pool->supply.fresh))
		return true;
	for_each_possible_cpu(cpu)
		if (READ_ONCE(per_cpu_ptr(pool->pcp, cpu)->nr))
			return true;
	return false;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_has_page);

/**
 * hmm_devmem_pool_create() - Set up a pool
 * @first: First pfn.
 * @nr_pages: Number of pages, not 0.
 * @block_order: Pages of a block, log2, at most HMM_DEVMEM_MAX_BLOCK_ORDER.
 * @segment_shift: Pages of a segment, log2, at least @block_order. No segment is
 *	populated yet.
 *
 * The cost depends only on the number of segments, each of which takes two words.
 *
 * Context: Process context, may sleep.
 * Return: The pool, or NULL if there is no memory.
 */
struct hmm_devmem_pool *hmm_devmem_pool_create(unsigned long first,
					       unsigned long nr_pages,
					       unsigned int block_order,
					       unsigned int segment_shift)
{
	unsigned long base = ALIGN_DOWN(first, 1UL << block_order);
	unsigned long nr_segments = DIV_ROUND_UP(first + nr_pages - base,
						 1UL << segment_shift);
	struct hmm_devmem_pool *pool;
	unsigned int cpu;

	if (WARN_ON_ONCE(block_order > HMM_DEVMEM_MAX_BLOCK_ORDER))
		return NULL;
	pool = kvzalloc_flex(*pool, segments, nr_segments);
	if (!pool)
		return NULL;
	pool->nr_segments = nr_segments;
	pool->bad = kvcalloc(nr_segments, sizeof(*pool->bad), GFP_KERNEL);
	if (!pool->bad)
		goto err_free;
	pool->pcp = alloc_percpu(struct hmm_devmem_pcp);
	if (!pool->pcp)
		goto err_free_bad;
	for_each_possible_cpu(cpu) {
		spin_lock_init(&per_cpu_ptr(pool->pcp, cpu)->lock);
		per_cpu_ptr(pool->pcp, cpu)->look = true;
	}

	spin_lock_init(&pool->blocks_lock);
	pool->block_order = block_order;
	pool->segment_shift = segment_shift;
	pool->first = first;
	pool->last = first + nr_pages;
	pool->nr_pages = nr_pages;
	pool->base = base;
	hmm_devmem_supply_init(pool);
	if (cpuhp_state_add_instance_nocalls(hmm_devmem_cpuhp, &pool->cpuhp))
		goto err_free_pcp;
	return pool;

err_free_pcp:
	free_percpu(pool->pcp);
err_free_bad:
	kvfree(pool->bad);
err_free:
	kvfree(pool);
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_create);

/**
 * hmm_devmem_pool_clear() - Forget about all segments
 * @pool: The pool, or NULL. No page is in use, and it was killed if it can still
 *	be asked for pages.
 *
 * The pool that is left needs little memory. If it was killed, it refuses all requests.
 *
 * Context: Process context.
 */
void hmm_devmem_pool_clear(struct hmm_devmem_pool *pool)
{
	unsigned int i;

	if (!pool)
		return;
	/* Else a CPU that goes offline would give pages back to blocks that were freed. */
	hmm_devmem_pool_drain(pool);
	for (i = 0; i < pool->nr_segments; i++) {
		hmm_devmem_pool_segment_free(pool->segments[i]);
		pool->segments[i] = NULL;
		kvfree(pool->bad[i]);
		pool->bad[i] = NULL;
	}
}

/**
 * hmm_devmem_pool_destroy() - Undo hmm_devmem_pool_create()
 * @pool: The pool, or NULL. No page is in use, or they will not be freed.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_pool_destroy(struct hmm_devmem_pool *pool)
{
	if (!pool)
		return;
	cpuhp_state_remove_instance_nocalls(hmm_devmem_cpuhp, &pool->cpuhp);
	hmm_devmem_pool_clear(pool);
	kvfree(pool->bad);
	free_percpu(pool->pcp);
	kvfree(pool);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_pool_destroy);

/**
 * hmm_devmem_pool_init() - Prepare for CPU hotplug
 *
 * Context: Process context, once at boot.
 * Return: 0 or an errno.
 */
int __init hmm_devmem_pool_init(void)
{
	int ret;

	ret = cpuhp_setup_state_multi(CPUHP_BP_PREPARE_DYN, "mm/hmm_devmem:dead",
				      NULL, hmm_devmem_cpu_dead);
	if (ret < 0)
		return ret;
	hmm_devmem_cpuhp = ret;
	return 0;
}
