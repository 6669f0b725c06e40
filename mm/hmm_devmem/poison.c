// SPDX-License-Identifier: GPL-2.0
/*
 * Device pages whose data is lost.
 */

/**
 * DOC: Lost memory
 *
 * A device that finds out that it has lost the content of some of its memory
 * calls hmm_devmem_poison(). The pages are *retired*: the allocator never hands
 * them out again. Where they are mapped, the mappings are replaced by markers, and
 * an access gives SIGBUS. Not by the entries that core has for its own lost memory:
 * those name a pfn, and processes can have them for longer than the pfn has a
 * struct page. A large folio is split first, so that its other pages are not
 * affected.
 *
 * If a folio cannot be split, because somebody works on it, its page stays mapped
 * but is not copied any more: for private memory that comes to the same, since the
 * CPU fault that needs it gives SIGBUS.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>

#include <trace/events/hmm_devmem.h>

#include "../internal.h"
#include "internal.h"

static bool folio_has_page(struct folio *folio, const struct page *page)
{
	return page_to_pfn(page) - folio_pfn(folio) < folio_nr_pages(folio);
}

/*
 * The folio of @page, locked and with a reference; NULL if the page is free. A free
 * page can still name the folio that it was a part of, which is another one now.
 */
static struct folio *lock_folio_of(struct page *page)
{
	struct folio *folio, *now;

	do {
		folio = page_folio(page);
		if (!folio_try_get(folio))
			return NULL;
		folio_lock(folio);
		now = page_folio(page);
		if (now == folio && folio_has_page(folio, page))
			return folio;
		folio_unlock(folio);
		folio_put(folio);
		/* If it is not the same, it was split. */
	} while (now != folio);
	return NULL;
}

/* Replace the mapping of an order-0 folio in one process. */
static bool mark_lost_one(struct folio *folio, struct vm_area_struct *vma,
			  unsigned long addr, void *unused)
{
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, addr, PVMW_SYNC);
	struct mm_struct *mm = vma->vm_mm;
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, addr,
				addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	while (page_vma_mapped_walk(&pvmw)) {
		if (WARN_ON_ONCE(!pvmw.pte))
			continue;
		if (pte_present(ptep_get(pvmw.pte)))
			ptep_clear_flush(vma, pvmw.address, pvmw.pte);
		else
			pte_clear(mm, pvmw.address, pvmw.pte);
		set_pte_at(mm, pvmw.address, pvmw.pte,
			   make_pte_marker(PTE_MARKER_POISONED));
		dec_mm_counter(mm, mm_counter(folio));
		folio_remove_rmap_pte(folio, &folio->page, vma);
		folio_put(folio);
	}
	mmu_notifier_invalidate_range_end(&range);
	return true;
}

/* Replace all mappings of a page, which is locked. */
static void unmap_page_as_lost(struct page *page)
{
	struct rmap_walk_control rwc = {
		.rmap_one = mark_lost_one,
		.anon_lock = folio_lock_anon_vma_read,
	};

	/* Lock and reference stay with the part that has @page. */
	if (folio_test_large(page_folio(page)) && split_huge_page(page))
		return;
	rmap_walk(page_folio(page), &rwc);
}

/**
 * hmm_devmem_poison_page() - The content of one page is lost
 * @devmem: A managed devmem.
 * @pfn: The page; its struct page cannot go away.
 *
 * Context: Process context, may sleep. Takes the lock of its folio.
 * Return: True if nobody can reach it any more.
 */
bool hmm_devmem_poison_page(struct hmm_devmem *devmem, unsigned long pfn)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *folio;
	bool ret;

	/* First, so that whoever gets the folio next knows. */
	hmm_devmem_alloc_retire(devmem->alloc, pfn);
	folio = lock_folio_of(page);
	if (!folio)
		return true;
	hmm_devmem_count(devmem, HMM_DEVMEM_LOST, 1);
	unmap_page_as_lost(page);
	folio = page_folio(page);
	ret = !folio_mapped(folio);
	folio_unlock(folio);
	folio_put(folio);
	return ret;
}

/**
 * hmm_devmem_poison() - The device has lost the content of some memory
 * @devmem: A managed devmem.
 * @pfn: First pfn of the range, inclusive.
 * @nr_pages: Its length, pages of PAGE_SIZE. What is outside of @devmem, or has no
 *	struct page, is ignored.
 *
 * Processes that have pages there get SIGBUS when they access them, also after
 * the device has been removed; their other pages are not affected. The pages are
 * never allocated again, until the memory is removed and added anew.
 *
 * Context: Process context, may sleep. Takes folio locks: waits for copies of
 * these pages, so not to be called by a copy callback or with locks that it takes.
 */
void hmm_devmem_poison(struct hmm_devmem *devmem, unsigned long pfn,
		       unsigned long nr_pages)
{
	unsigned long end;

	might_sleep();
	if (!hmm_devmem_managed(devmem) || check_add_overflow(pfn, nr_pages, &end) ||
	    !hmm_devmem_tryget_live(devmem))
		return;
	trace_hmm_devmem_poison(devmem, pfn, end, nr_pages);
	end = min(end, devmem->pfn_last);
	for (pfn = max(pfn, devmem->pfn_first); pfn < end; pfn++) {
		scoped_guard(rwsem_read, &devmem->segments_lock) {
			if (hmm_devmem_segment_at(devmem, pfn))
				hmm_devmem_poison_page(devmem, pfn);
		}
		cond_resched();
	}
	hmm_devmem_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_poison);
