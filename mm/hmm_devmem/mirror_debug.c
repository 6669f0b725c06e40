// SPDX-License-Identifier: GPL-2.0
/*
 * A shadow of the entries that mirrors have made and not yet removed. Reports an entry
 * that outlives its device page, and one that is replaced by an entry for another page
 * without an invalidation in between.
 */

#include <linux/align.h>
#include <linux/cleanup.h>
#include <linux/mm.h>
#include <linux/rculist.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>

#include "devmem.h"
#include "mirror.h"

static LIST_HEAD(mirrors);
/* Protects changes of the list; see DOC: Locking. */
static DEFINE_SPINLOCK(mirrors_lock);

/*
 * A shadow entry leads from a user pfn (a user address divided by the page size) to the
 * pfn of the page there, or from the pfn of a device page to its user pfn. An entry for a
 * block is stored at its first page only. Entries for which there is no memory have no
 * shadow.
 */
static void *shadow_entry(unsigned long to, bool block)
{
	return xa_mk_value(to << 1 | block);
}

static unsigned long shadow_to(const void *entry)
{
	return xa_to_value(entry) >> 1;
}

static unsigned long shadow_nr(const void *entry)
{
	return xa_to_value(entry) & 1 ? HMM_DEVMEM_BLOCK_NR : 1;
}

/* Look up the entry for @index, alone or in a block, and set @to to its target. */
static bool shadow_find(struct xarray *shadow, unsigned long index, unsigned long *to)
{
	const unsigned long base = ALIGN_DOWN(index, HMM_DEVMEM_BLOCK_NR);
	void *entry = xa_load(shadow, index);

	if (entry) {
		*to = shadow_to(entry);
		return true;
	}
	entry = xa_load(shadow, base);
	if (!entry || shadow_nr(entry) == 1)
		return false;
	*to = shadow_to(entry) + (index - base);
	return true;
}

void hmm_devmem_mirror_debug_init(struct hmm_devmem_mirror *m)
{
	xa_init(&m->debug_addrs);
	xa_init(&m->debug_pfns);
	guard(spinlock_irqsave)(&mirrors_lock);
	list_add_rcu(&m->debug_node, &mirrors);
}

void hmm_devmem_mirror_debug_fini(struct hmm_devmem_mirror *m)
{
	scoped_guard(spinlock_irqsave, &mirrors_lock)
		list_del_rcu(&m->debug_node);
	/* Pages can be freed in any context: see hmm_devmem_mirror_debug_free(). */
	synchronize_rcu();
	WARN_ON_ONCE(!xa_empty(&m->debug_addrs) || !xa_empty(&m->debug_pfns));
	xa_destroy(&m->debug_addrs);
	xa_destroy(&m->debug_pfns);
}

static void shadow_check(struct hmm_devmem_mirror *m, unsigned long index,
			 unsigned long pfn)
{
	unsigned long former;

	WARN_ONCE(shadow_find(&m->debug_addrs, index, &former) && former != pfn,
		  "hmm_devmem: the page of an entry has changed without an invalidation\n");
}

static void shadow_map(struct hmm_devmem_mirror *m,
		       const struct hmm_devmem_map_entry *map)
{
	const unsigned long index = map->addr >> PAGE_SHIFT;
	void *former;

	shadow_check(m, index, map->pfn);
	if (map->order)
		shadow_check(m, index + BIT(map->order) - 1,
			     map->pfn + BIT(map->order) - 1);
	former = xa_load(&m->debug_addrs, index);
	/* Keep the shadow of a block: with a smaller one its other pages would have none. */
	if (former && shadow_nr(former) >= BIT(map->order))
		return;
	if (xa_is_err(xa_store(&m->debug_addrs, index,
			       shadow_entry(map->pfn, map->order), GFP_NOWAIT)))
		return;
	if (m->devmem && hmm_devmem_has_pfn(m->devmem, map->pfn))
		xa_store(&m->debug_pfns, map->pfn, shadow_entry(index, map->order),
			 GFP_NOWAIT);
}

/* Called with the mirror's lock held, as is hmm_devmem_mirror_debug_unmap(). */
void hmm_devmem_mirror_debug_map(struct hmm_devmem_mirror *m,
				 const struct hmm_devmem_map_entry *entries,
				 unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		shadow_map(m, &entries[i]);
}

void hmm_devmem_mirror_debug_unmap(struct hmm_devmem_mirror *m,
				   unsigned long start, unsigned long end,
				   bool keep_local)
{
	const unsigned long first = start >> PAGE_SHIFT;
	unsigned long index, pfn;
	void *entry;

	xa_for_each_range(&m->debug_addrs, index, entry,
			  ALIGN_DOWN(first, HMM_DEVMEM_BLOCK_NR),
			  (end - 1) >> PAGE_SHIFT) {
		pfn = shadow_to(entry);
		if (index + shadow_nr(entry) <= first ||
		    (keep_local && hmm_devmem_has_pfn(m->devmem, pfn)))
			continue;
		xa_erase(&m->debug_addrs, index);
		xa_erase(&m->debug_pfns, pfn);
	}
}

/**
 * hmm_devmem_mirror_debug_free() - Check that no mirror has an entry of a page
 * @pfn: The first pfn of a device folio that is about to be freed.
 * @order: The order of the folio.
 *
 * Context: Any context in which a folio can be freed.
 */
void hmm_devmem_mirror_debug_free(unsigned long pfn, unsigned int order)
{
	const unsigned long last = pfn + BIT(order) - 1;
	struct hmm_devmem_mirror *m;
	unsigned long to;

	guard(rcu)();
	list_for_each_entry_rcu(m, &mirrors, debug_node)
		WARN_ONCE(shadow_find(&m->debug_pfns, pfn, &to) ||
			  shadow_find(&m->debug_pfns, last, &to),
			  "hmm_devmem: a device page is freed that a device has an entry for\n");
}
