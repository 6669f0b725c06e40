// SPDX-License-Identifier: GPL-2.0
/*
 * Allocating system memory for evicted pages, on the right NUMA node.
 */

/**
 * DOC: Where evicted pages go
 *
 * A CPU fault, and hmm_devmem_migrate_to_ram(), allocate as core does for the mapping
 * that they are about. An eviction has no mapping at hand, and the task that evicts is not
 * the pages' process: a worker, a suspending system, a write to ``unbind``. So its memory
 * policy does not count. The page goes where a policy of its mapping (mbind()) says; of
 * several mappings with one, as after a fork, the first that core's rmap finds decides. A
 * policy of a whole process (set_mempolicy()) is not found by rmap. Without a policy
 * the page goes to the node of the device, and to one near it if there is nothing free.
 *
 * A large folio goes to a large one if there is one free. Whether memory is
 * compacted for it is decided as for any huge page of the mapping (thp/defrag); never
 * for an eviction, which splits the device folio.
 *
 * The cpuset of the task that evicts excludes no node. It decides only which one is
 * preferred of those that the rules above leave, as when the node of the device is full. A
 * cpuset of version 1 with ``mem_hardwall`` or ``mem_exclusive`` is the exception: it limits
 * all that its tasks allocate, and so also what they evict.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/gfp.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/rmap.h>

#include "../internal.h"
#include "place.h"

#ifdef CONFIG_NUMA
/*
 * The policy of a mapping, with a reference. A task that replaces the policy holds
 * the mmap lock, which this cannot wait for; RCU keeps the policy readable.
 */
static struct mempolicy *vma_policy_tryget(const struct vm_area_struct *vma)
{
	struct mempolicy *policy;

	guard(rcu)();
	policy = READ_ONCE(vma->vm_policy);
	if (!policy || !atomic_inc_not_zero(&policy->refcnt))
		return NULL;
	return policy;
}

/* The first policy of a mapping of page @pgoff; NULL if there is none. */
static struct mempolicy *find_policy(struct anon_vma *anon_vma, pgoff_t pgoff)
{
	struct mempolicy *policy = NULL;
	struct anon_vma_chain *avc;

	anon_vma_lock_read(anon_vma);
	anon_rmap_tree_foreach(avc, anon_vma, pgoff, pgoff) {
		policy = vma_policy_tryget(avc->vma);
		if (policy)
			break;
	}
	anon_vma_unlock_read(anon_vma);
	return policy;
}

static struct folio *alloc_by_policy(struct mempolicy *policy, pgoff_t pgoff,
				     int nid, unsigned int order, gfp_t gfp)
{
	/*
	 * Core would ignore a strict policy because of the current task's cpuset. It
	 * also ignores one, rightly, for a zone that the policy's nodes need not
	 * have.
	 */
	if (policy->mode == MPOL_BIND && gfp & __GFP_HIGHMEM) {
		if (policy->home_node != NUMA_NO_NODE)
			nid = policy->home_node;
		return __folio_alloc(gfp, order, nid, &policy->nodes);
	}
	return folio_alloc_mpol(gfp, order, policy, pgoff >> order, nid);
}
#else
static struct mempolicy *find_policy(struct anon_vma *anon_vma, pgoff_t pgoff)
{
	return NULL;
}

static struct folio *alloc_by_policy(struct mempolicy *policy, pgoff_t pgoff,
				     int nid, unsigned int order, gfp_t gfp)
{
	return NULL;
}
#endif

/* Allocate on node @nid, or, if there is no memory, on any node. */
static struct folio *alloc_near(int nid, unsigned int order, gfp_t gfp)
{
	struct folio *folio;

	folio = __folio_alloc_node((gfp & ~__GFP_DIRECT_RECLAIM) |
				   __GFP_THISNODE | __GFP_NOWARN, order, nid);
	return folio ?: __folio_alloc_node(gfp, order, nid);
}

/**
 * hmm_devmem_alloc_evicted() - System memory for a device page that is evicted
 * @page: The first page of a folio, collected for migration.
 * @anon_vma: The anon_vma of its mappings, or NULL if that is not known.
 * @order: Order of the folio.
 * @gfp: GFP flags, which say how hard to try, and which zone is needed.
 *
 * Context: Process context, may sleep. The caller has the lock of @page's folio, and
 * a reference on @anon_vma.
 * Return: The folio, or NULL if there is no memory.
 */
struct folio *hmm_devmem_alloc_evicted(struct page *page,
				       struct anon_vma *anon_vma,
				       unsigned int order, gfp_t gfp)
{
	const pgoff_t pgoff = page_pgoff(page_folio(page), page);
	const int nid = page_to_nid(page);
	struct mempolicy *policy = NULL;
	struct folio *folio;

	/*
	 * Not bound to the cpuset of the current process. And a driver can withdraw a
	 * block in memory reclaim: that must not use up what core keeps in reserve.
	 */
	gfp &= ~__GFP_HARDWALL;
	gfp |= __GFP_NOMEMALLOC;
	if (anon_vma && nr_node_ids > 1)
		policy = find_policy(anon_vma, pgoff);
	if (!policy)
		return alloc_near(nid, order, gfp);
	folio = alloc_by_policy(policy, pgoff, nid, order, gfp);
	mpol_put(policy);
	return folio;
}
