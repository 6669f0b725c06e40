// SPDX-License-Identifier: GPL-2.0
/*
 * What the policy of eviction is told about the use of device pages.
 */

/**
 * DOC: Reported accesses
 *
 * The library sees what is brought to the device and what leaves it, but no access of
 * the device to its own memory. A driver that knows of those, from its page faults or
 * from the jobs that it submits, reports them by hmm_devmem_mark_used(). Besides, a
 * migration to the device reports the pages of its range that it finds there.
 *
 * For the policy to recognize data that returns, the data has a name: the root of its
 * anon_vmas and its index there. An eviction, which goes by pfn, finds both in the folio,
 * and a migration by address finds them in the mapping. The mm would not do as a name,
 * because several processes can share a page.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/export.h>
#include <linux/migrate.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>

#include "devmem.h"
#include "pool.h"
#include "reclaim.h"
#include "txn.h"
#include "use.h"

static struct hmm_devmem_hold_data hold_data(const struct anon_vma *anon_vma,
					     pgoff_t index)
{
	return (struct hmm_devmem_hold_data) {
		.owner = anon_vma ? anon_vma->root : NULL,
		.index = index >> HMM_DEVMEM_BLOCK_ORDER,
	};
}

/**
 * hmm_devmem_use_data() - What the policy calls the data of an address
 * @vma: The mapping.
 * @addr: The address.
 *
 * Context: The mmap lock is held.
 * Return: The name of the data.
 */
struct hmm_devmem_hold_data hmm_devmem_use_data(const struct vm_area_struct *vma,
						unsigned long addr)
{
	return hold_data(READ_ONCE(vma->anon_vma), linear_page_index(vma, addr));
}

/**
 * hmm_devmem_mark_used() - Report that the device uses pages
 * @devmem: The device memory, added or removed.
 * @pfn: First pfn.
 * @nr: Number of pages of PAGE_SIZE. What is outside of @devmem is ignored.
 *
 * With %HMM_DEVMEM_RECLAIM, pages that are used are evicted later than others. Without
 * that flag, this does nothing. It is a hint: pages that are evicted at the same time
 * are evicted all the same. The library distinguishes blocks of 2 MiB, and times
 * between which a block was brought in, so a driver need not report each access. It
 * can report the pages of a job when it submits the job.
 *
 * Context: Any, also NMI. Takes no lock.
 */
void hmm_devmem_mark_used(struct hmm_devmem *devmem, unsigned long pfn,
			  unsigned long nr)
{
	unsigned long first, end;
	u32 block;

	if (!priv(devmem)->hold)
		return;
	first = max(pfn, devmem->pfn_first);
	end = min(pfn + min(nr, ULONG_MAX - pfn), devmem->pfn_last);
	if (first >= end)
		return;
	for (block = hmm_devmem_block_index(devmem, first);
	     block <= hmm_devmem_block_index(devmem, end - 1); block++)
		hmm_devmem_hold_mark(priv(devmem)->hold, block);
}
EXPORT_SYMBOL_GPL(hmm_devmem_mark_used);

/* Note that @nr pages of the block of @pfn have received data. */
static void block_brought(struct hmm_devmem *devmem, unsigned long pfn,
			  unsigned int nr, const struct hmm_devmem_hold_data *data)
{
	const u32 block = hmm_devmem_block_index(devmem, pfn);

	/* Pages also leave a block by CPU faults, or because a process exits. */
	if (hmm_devmem_hold_is_empty(priv(devmem)->hold, block) ||
	    hmm_devmem_pool_block_has_only(priv(devmem)->pool, pfn, nr))
		hmm_devmem_hold_brought(priv(devmem)->hold, block, data);
	else
		hmm_devmem_hold_mark(priv(devmem)->hold, block);
}

/* How many pages from entry @i on have moved to the same block as the page there. */
static unsigned int nr_to_block(const struct hmm_devmem_txn *txn, unsigned int i)
{
	const unsigned long block = txn_dst_pfn(txn, i) >> HMM_DEVMEM_BLOCK_ORDER;
	unsigned int nr = 1;

	while (i + nr < txn->nr && hmm_devmem_txn_moved(txn, i + nr) &&
	       txn_dst_pfn(txn, i + nr) >> HMM_DEVMEM_BLOCK_ORDER == block)
		nr++;
	return nr;
}

/**
 * hmm_devmem_use_brought() - Note what was brought to the device
 * @txn: A transaction to the device, after hmm_devmem_txn_commit().
 *
 * Context: The mmap lock is held.
 */
void hmm_devmem_use_brought(const struct hmm_devmem_txn *txn)
{
	struct hmm_devmem_hold_data data;
	unsigned int i, nr;

	if (!priv(txn->devmem)->hold)
		return;
	for (i = 0; i < txn->nr; i += nr) {
		nr = 1;
		if (!hmm_devmem_txn_moved(txn, i))
			continue;
		nr = nr_to_block(txn, i);
		data = hmm_devmem_use_data(txn->vma, txn->start + i * PAGE_SIZE);
		block_brought(txn->devmem, txn_dst_pfn(txn, i), nr, &data);
	}
}

/**
 * hmm_devmem_use_leaving() - Note what an eviction is about to bring back
 * @txn: A transaction that core has collected by pfn, and not committed.
 *
 * Context: Any context.
 */
void hmm_devmem_use_leaving(const struct hmm_devmem_txn *txn)
{
	struct hmm_devmem_hold_data data, before = { };
	struct hmm_devmem *devmem = txn->devmem;
	struct folio *folio;
	struct page *page;
	unsigned int i;

	if (!priv(devmem)->hold)
		return;
	for (i = 0; i < txn->nr; i++) {
		page = migrate_pfn_to_page(txn->src[i]);
		if (!page || !txn->mappings[i] || !hmm_devmem_txn_has_dst(txn, i))
			continue;
		folio = page_folio(page);
		data = hold_data(txn->mappings[i],
				 folio->index + folio_page_idx(folio, page));
		if (data.owner != before.owner || data.index != before.index)
			hmm_devmem_hold_remember(priv(devmem)->hold,
						 hmm_devmem_block_index(devmem, page_to_pfn(page)),
						 &data);
		before = data;
	}
}
