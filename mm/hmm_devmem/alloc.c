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
 * full. The first three are found in constant time, because there is one list
 * for each; nothing ever walks all blocks or all pages to allocate.
 *
 * Single pages are taken from partial blocks first, in ascending order, so that
 * whole blocks remain for large folios and the pages of one migration are
 * contiguous. Since a block is a bitmap, freed neighbours are one free piece at
 * once: there is nothing to merge.
 *
 * Single pages go through a per-CPU cache. It is filled and emptied by many
 * pages at a time, so that only few calls take the lock that all CPUs share; a
 * free that finds it taken leaves its pages in the cache.
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
#include <linux/bug.h>
#include <linux/cpuhotplug.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/overflow.h>
#include <linux/percpu.h>
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
 * @nr: Number of @pfns.
 * @pfns: A stack of pfns, the next to be handed out last.
 */
struct hmm_devmem_pcp {
	spinlock_t lock;	/* see above */
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

/* Fill an empty cache so that it hands out ascending pfns. */
static noinline int pcp_refill(struct hmm_devmem_alloc *alloc,
			       struct hmm_devmem_pcp *pcp)
{
	unsigned int nr, top = HMM_DEVMEM_PCP_BATCH;
	unsigned long pfn;

	lockdep_assert_held(&pcp->lock);

	guard(spinlock)(&alloc->lock);
	if (alloc->refused)
		return alloc->refused;
	while (top) {
		nr = hmm_devmem_block_take_run(alloc, top, &pfn);
		if (!nr)
			break;
		while (nr--)
			pcp->pfns[--top] = pfn++;
	}
	pcp->nr = HMM_DEVMEM_PCP_BATCH - top;
	memmove(pcp->pfns, pcp->pfns + top, pcp->nr * sizeof(pcp->pfns[0]));
	return pcp->nr ? 0 : -ENOMEM;
}

static int pcp_get(struct hmm_devmem_alloc *alloc, unsigned long *pfn)
{
	struct hmm_devmem_pcp *pcp;
	unsigned long flags;
	int ret;

	/* Being moved to another CPU after this costs a lock transfer, no more. */
	pcp = raw_cpu_ptr(alloc->pcp);
	spin_lock_irqsave(&pcp->lock, flags);
	ret = READ_ONCE(alloc->refused);
	if (likely(!ret) && !pcp->nr)
		ret = pcp_refill(alloc, pcp);
	if (!ret)
		*pfn = pcp->pfns[--pcp->nr];
	spin_unlock_irqrestore(&pcp->lock, flags);
	return ret;
}

static noinline void put_locked(struct hmm_devmem_alloc *alloc,
				unsigned long pfn, unsigned int order)
{
	unsigned long flags;

	spin_lock_irqsave(&alloc->lock, flags);
	hmm_devmem_block_put(alloc, pfn, order);
	spin_unlock_irqrestore(&alloc->lock, flags);
}

/* Make room, but do not wait for another CPU if there is some: faults free. */
static noinline void pcp_trim(struct hmm_devmem_alloc *alloc, struct hmm_devmem_pcp *pcp)
{
	lockdep_assert_held(&pcp->lock);

	if (pcp->nr == HMM_DEVMEM_PCP_MAX)
		spin_lock(&alloc->lock);
	else if (!spin_trylock(&alloc->lock))
		return;
	pcp_flush(alloc, pcp, pcp->nr - HMM_DEVMEM_PCP_BATCH);
	spin_unlock(&alloc->lock);
}

static void pcp_put(struct hmm_devmem_alloc *alloc, unsigned long pfn)
{
	struct hmm_devmem_pcp *pcp;
	unsigned long flags;

	pcp = raw_cpu_ptr(alloc->pcp);
	spin_lock_irqsave(&pcp->lock, flags);
	/* The caches do not know which pages are retired: blocks do. */
	if (unlikely(READ_ONCE(alloc->nr_retired))) {
		spin_unlock_irqrestore(&pcp->lock, flags);
		put_locked(alloc, pfn, 0);
		return;
	}
	pcp->pfns[pcp->nr++] = pfn;
	if (pcp->nr >= HMM_DEVMEM_PCP_HIGH)
		pcp_trim(alloc, pcp);
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
	spin_unlock_irqrestore(&pcp->lock, flags);
}

/**
 * hmm_devmem_alloc_drain() - Empty the per-CPU caches
 * @alloc: The allocator.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_drain(struct hmm_devmem_alloc *alloc)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		pcp_drain_cpu(alloc, cpu);
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

	spin_lock_irqsave(&alloc->lock, flags);
	ret = alloc->refused;
	if (!ret && !hmm_devmem_block_take_order(alloc, order, pfn))
		ret = -ENOMEM;
	spin_unlock_irqrestore(&alloc->lock, flags);
	return ret;
}

/* What is missing may be in the caches of other CPUs. */
static noinline int get_after_drain(struct hmm_devmem_alloc *alloc,
				    unsigned int order, unsigned long *pfn)
{
	hmm_devmem_alloc_drain(alloc);
	return get_locked(alloc, order, pfn);
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

	if (!order)
		ret = pcp_get(alloc, pfn);
	else if (order <= alloc->block_order)
		ret = get_locked(alloc, order, pfn);
	else
		return -EINVAL;
	if (unlikely(ret == -ENOMEM))
		ret = get_after_drain(alloc, order, pfn);
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
	if (got < nr) {
		hmm_devmem_alloc_drain(alloc);
		got += get_bulk_locked(alloc, nr - got, pfns + got);
	}
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

/* From @from to @to, if that is the state. True if it was. */
static bool alloc_refuse(struct hmm_devmem_alloc *alloc, int from, int to)
{
	unsigned long flags;
	bool ret;

	spin_lock_irqsave(&alloc->lock, flags);
	ret = alloc->refused == from;
	if (ret)
		WRITE_ONCE(alloc->refused, to);
	spin_unlock_irqrestore(&alloc->lock, flags);
	/*
	 * This takes the lock of each cache: whoever has it later sees @refused,
	 * and whoever had it before has got its page.
	 */
	if (ret && to)
		hmm_devmem_alloc_drain(alloc);
	return ret;
}

/**
 * hmm_devmem_alloc_kill() - Let no more pages be allocated
 * @alloc: The allocator.
 *
 * When this returns, every allocation that could still succeed has succeeded.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_kill(struct hmm_devmem_alloc *alloc)
{
	if (!alloc_refuse(alloc, 0, -ENODEV))
		alloc_refuse(alloc, -EAGAIN, -ENODEV);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_kill);

/**
 * hmm_devmem_alloc_freeze() - Let no pages be allocated for a while
 * @alloc: The allocator.
 *
 * As hmm_devmem_alloc_kill(), but hmm_devmem_alloc_thaw() takes it back.
 *
 * Context: Any context. One caller at a time.
 * Return: False if the allocator was killed.
 */
bool hmm_devmem_alloc_freeze(struct hmm_devmem_alloc *alloc)
{
	return alloc_refuse(alloc, 0, -EAGAIN);
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
 * @pfn: The page; may be free or in use, and may have been retired already.
 *
 * A page in use is retired when it is freed.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_retire(struct hmm_devmem_alloc *alloc,
			     unsigned long pfn)
{
	unsigned long flags;

	spin_lock_irqsave(&alloc->lock, flags);
	hmm_devmem_block_retire(alloc, pfn);
	spin_unlock_irqrestore(&alloc->lock, flags);
	/* From here on nothing enters a cache; take out what is there. */
	hmm_devmem_alloc_drain(alloc);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_retire);

/**
 * hmm_devmem_alloc_get_stats() - How many pages are where
 * @alloc: The allocator.
 * @stats: Filled in; derived from the bitmaps' counts, not kept by hand.
 *
 * Context: Any context.
 */
void hmm_devmem_alloc_get_stats(struct hmm_devmem_alloc *alloc,
				struct hmm_devmem_alloc_stats *stats)
{
	unsigned long total = 0, cached = 0, flags;
	unsigned int cpu, i;

	spin_lock_irqsave(&alloc->lock, flags);
	/* Exact if nothing is allocated or freed meanwhile, like all of this. */
	for_each_possible_cpu(cpu)
		cached += READ_ONCE(per_cpu_ptr(alloc->pcp, cpu)->nr);
	for (i = 0; i < alloc->nr_areas; i++)
		if (alloc->areas[i])
			total += (unsigned long)alloc->areas[i]->nr_blocks <<
				 alloc->block_order;

	stats->total = total - alloc->nr_absent;
	stats->used = alloc->nr_used - alloc->nr_lost;
	stats->cached = min(cached, stats->used);
	stats->used -= stats->cached;
	stats->free = total - alloc->nr_used;
	stats->retired = alloc->nr_retired;
	spin_unlock_irqrestore(&alloc->lock, flags);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_get_stats);

/**
 * hmm_devmem_alloc_used() - Number of pages that somebody has allocated
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
 * hmm_devmem_alloc_area_used() - Number of pages of an area that are not free
 * @alloc: The allocator. Its caches are emptied.
 * @idx: Which area.
 *
 * Context: Any context. The area is not depopulated meanwhile.
 * Return: Number of pages, 0 if the area is not populated.
 */
unsigned long hmm_devmem_alloc_area_used(struct hmm_devmem_alloc *alloc,
					 unsigned int idx)
{
	struct hmm_devmem_area *area;
	unsigned long flags, used;

	hmm_devmem_alloc_drain(alloc);
	spin_lock_irqsave(&alloc->lock, flags);
	area = alloc->areas[idx];
	used = area ? area->nr_used - area->nr_lost : 0;
	spin_unlock_irqrestore(&alloc->lock, flags);
	return used;
}

/**
 * hmm_devmem_alloc_has_block() - Is there a whole block?
 * @alloc: The allocator.
 *
 * Context: Any context.
 * Return: A hint: others allocate and free at the same time.
 */
bool hmm_devmem_alloc_has_block(struct hmm_devmem_alloc *alloc)
{
	return !list_empty_careful(&alloc->empty) ||
	       !list_empty_careful(&alloc->fresh);
}

/**
 * hmm_devmem_alloc_create() - Set up an allocator
 * @first: First pfn.
 * @nr_pages: Number of pages, not 0.
 * @block_order: Pages of a block, log2.
 * @area_shift: Pages of an area, log2, at least @block_order. No area is
 *	populated yet.
 *
 * The cost does not depend on @nr_pages but through the number of areas.
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
	unsigned int cpu;

	alloc = kvzalloc_flex(*alloc, areas, nr_areas);
	if (!alloc)
		return NULL;
	alloc->nr_areas = nr_areas;
	alloc->pcp = alloc_percpu(struct hmm_devmem_pcp);
	if (!alloc->pcp)
		goto err_free;
	for_each_possible_cpu(cpu)
		spin_lock_init(&per_cpu_ptr(alloc->pcp, cpu)->lock);

	spin_lock_init(&alloc->lock);
	alloc->block_order = block_order;
	alloc->area_shift = area_shift;
	alloc->first = first;
	alloc->last = first + nr_pages;
	alloc->nr_pages = nr_pages;
	alloc->base = base;
	INIT_LIST_HEAD(&alloc->partial);
	INIT_LIST_HEAD(&alloc->empty);
	INIT_LIST_HEAD(&alloc->fresh);
	if (cpuhp_state_add_instance_nocalls(hmm_devmem_cpuhp, &alloc->cpuhp))
		goto err_free_pcp;
	return alloc;

err_free_pcp:
	free_percpu(alloc->pcp);
err_free:
	kvfree(alloc);
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_alloc_create);

/**
 * hmm_devmem_alloc_destroy() - Undo hmm_devmem_alloc_create()
 * @alloc: The allocator, or NULL. No page is in use, or they will not be freed.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_alloc_destroy(struct hmm_devmem_alloc *alloc)
{
	unsigned int i;

	if (!alloc)
		return;
	cpuhp_state_remove_instance_nocalls(hmm_devmem_cpuhp, &alloc->cpuhp);
	for (i = 0; i < alloc->nr_areas; i++)
		hmm_devmem_area_free(alloc->areas[i]);
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
