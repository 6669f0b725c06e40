// SPDX-License-Identifier: GPL-2.0
/*
 * Device pages whose data is lost.
 */

/**
 * DOC: Lost memory
 *
 * A driver whose device has lost the content of some of its memory calls
 * hmm_devmem_poison(). The pages are *retired*: the pool never hands them out again.
 * Where they are mapped, the mappings are replaced by PTE markers, and an access gives
 * SIGBUS. The hwpoison entries that core uses for system memory would not do: they name a
 * pfn, and a process can have them for longer than the pfn has a struct page. A large
 * folio is split first, so that its other pages are not affected.
 *
 * Memory can be lost while it has no struct page, and can lose its struct page
 * later: the pool remembers it. A driver that knows of bad pages from the start
 * passes them when it adds the memory.
 *
 * If a folio cannot be split, because the kernel has other references to it, the lost
 * page stays mapped, but is not copied any more. For private memory the effect is the
 * same: an access is a CPU fault, which gives SIGBUS. MMU notifiers tell drivers to
 * invalidate their entries of the folio, and a mirror makes none for lost pages.
 *
 * Pages of private memory that are left when the device is removed stay mapped, and
 * an access by the CPU gives SIGBUS. A peer device can have them in its own page
 * table: when the device that has the pages is removed, MMU notifiers tell the peer's
 * driver to invalidate them, and hmm_range_fault() does not report them any more. While
 * that device is dead but not removed, hmm_range_fault() still reports them.
 *
 * The CPU reads memory of type MEMORY_DEVICE_COHERENT without a fault. When its
 * device is dead, and when it is removed and pages could not be brought back, the
 * mappings of all pages that are left are replaced by PTE markers, too: the memory at
 * those addresses is not the process's any more. A reference that the kernel has to
 * such a page, for a pipe or for DMA for instance, stays valid, as it does for other
 * lost memory; only the owner of the reference can drop it. The library allocates no large
 * folios of such memory; one that a driver has allocated, and that cannot be split, stays
 * mapped, and the log says so.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include <trace/events/hmm_devmem.h>

#include "../internal.h"
#include "devmem.h"
#include "poison.h"
#include "pool.h"
#include "segment.h"
#include "stats.h"

static bool folio_has_page(struct folio *folio, const struct page *page)
{
	return page_to_pfn(page) - folio_pfn(folio) < folio_nr_pages(folio);
}

/*
 * The folio of @page, locked and with a reference; NULL if the page is free. The struct
 * page of a free page can still point to a former head page, which can be in use as
 * another folio.
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
		/* If the folio has changed, it was split: try again. */
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

/* Tell the drivers that mirror the process of @vma to forget @folio there. */
static bool forget_one(struct folio *folio, struct vm_area_struct *vma,
		       unsigned long addr, void *unused)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, vma->vm_mm, addr,
				min(addr + folio_size(folio), vma->vm_end));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	return true;
}

/* Have devices forget a folio, which is locked. */
static void forget_folio(struct folio *folio)
{
	struct rmap_walk_control rwc = {
		.rmap_one = forget_one,
		.anon_lock = folio_lock_anon_vma_read,
	};

	rmap_walk(folio, &rwc);
}

/*
 * Replace all mappings of a page, which is locked, by markers. Returns whether none
 * is left.
 */
static bool unmap_page_as_lost(struct page *page)
{
	struct rmap_walk_control rwc = {
		.rmap_one = mark_lost_one,
		.anon_lock = folio_lock_anon_vma_read,
	};

	/* After the split, lock and reference are those of the part with @page. */
	if (folio_test_large(page_folio(page)) && split_huge_page(page)) {
		/*
		 * The CPU takes a fault when it accesses private memory, and gets SIGBUS.
		 * Devices must drop their entries now.
		 */
		forget_folio(page_folio(page));
		return false;
	}
	rmap_walk(page_folio(page), &rwc);
	return !folio_mapped(page_folio(page));
}

/* Unmap a lost page, whose folio is locked and has a reference: drop both. */
static bool poison_locked(struct page *page)
{
	const bool ret = unmap_page_as_lost(page);
	struct folio *folio = page_folio(page);

	folio_unlock(folio);
	folio_put(folio);
	return ret;
}

/**
 * hmm_devmem_poison_page() - Let no process read a page whose content is lost
 * @devmem: A managed devmem.
 * @pfn: The page, retired before, so that a later copy does not take its content for
 *	data; its struct page cannot go away.
 *
 * Context: Process context, may sleep. Takes the lock of its folio, if that is or was
 * mapped.
 * Return: True if no process can reach the page any more.
 */
bool hmm_devmem_poison_page(struct hmm_devmem *devmem, unsigned long pfn)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *folio = page_folio(page);

	/* Pairs with hmm_devmem_txn_commit(). */
	smp_mb();
	/*
	 * Do not wait for the lock of a folio that no process has: the driver that has
	 * allocated it can keep the lock. If it is the destination of a migration, that
	 * finds after it has moved the page that it was retired.
	 */
	if (!folio_test_anon(folio)) {
		if (folio_ref_count(folio) && folio_has_page(folio, page))
			hmm_devmem_count(devmem, HMM_DEVMEM_LOST, 1);
		return true;
	}
	if (!lock_folio_of(page))
		return true;
	hmm_devmem_count(devmem, HMM_DEVMEM_LOST, 1);
	return poison_locked(page);
}

/**
 * hmm_devmem_poison_folio() - Let no process read the retired pages of a folio
 * @devmem: A managed devmem.
 * @folio: A folio that has just moved to it. The caller has a reference, which this drops.
 *
 * Context: Process context, may sleep. Takes the lock of the folio.
 */
void hmm_devmem_poison_folio(struct hmm_devmem *devmem, struct folio *folio)
{
	unsigned long pfn = folio_pfn(folio);
	const unsigned long end = pfn + folio_nr_pages(folio);
	struct page *first = NULL;

	for (; pfn < end; pfn++) {
		if (!hmm_devmem_pool_retired(priv(devmem)->pool, pfn))
			continue;
		if (!first) {
			/* With the only reference that a split allows. */
			first = pfn_to_page(pfn);
			folio_lock(folio);
			unmap_page_as_lost(first);
			folio_unlock(page_folio(first));
		} else if (lock_folio_of(pfn_to_page(pfn))) {
			poison_locked(pfn_to_page(pfn));
		}
	}
	/* Until now, this keeps the struct pages. */
	folio_put(first ? page_folio(first) : folio);
}

/*
 * Unmap a page. Returns whether it was mapped; @stays is set if it still is. Does not wait
 * for the lock of a folio that was never mapped: the driver that has allocated it can keep
 * the lock.
 */
static bool unmap_if_mapped(struct page *page, bool *stays)
{
	struct folio *folio;
	bool mapped;

	*stays = false;
	if (!folio_test_anon(page_folio(page)))
		return false;
	folio = lock_folio_of(page);
	if (!folio)
		return false;
	mapped = folio_mapped(folio);
	if (mapped)
		*stays = !unmap_page_as_lost(page);
	folio = page_folio(page);
	folio_unlock(folio);
	folio_put(folio);
	return mapped;
}

/**
 * hmm_devmem_forget_page() - Let no device reach a page of a device that has gone
 * @page: A page of private memory, in use or not. &dev_pagemap.owner has been replaced.
 *
 * The CPU's entries for the page stay as they are; MMU notifiers tell drivers to
 * invalidate theirs. A driver whose hmm_range_fault() has read the former owner finds by
 * mmu_interval_read_retry() that it has to walk again.
 *
 * Context: Process context, may sleep. Takes the lock of its folio, if that is mapped.
 */
void hmm_devmem_forget_page(struct page *page)
{
	struct folio *folio;

	/*
	 * The first page stands for all of its folio. Do not wait for the lock of a
	 * folio that is not mapped: the driver that has allocated it can keep the
	 * lock.
	 */
	if (PageTail(page) || !folio_mapped(page_folio(page)))
		return;
	folio = lock_folio_of(page);
	if (!folio)
		return;
	forget_folio(folio);
	folio_unlock(folio);
	folio_put(folio);
}

/**
 * hmm_devmem_unmap_lost() - Let the CPU reach no memory of a device that has gone
 * @devmem: The device memory; it is dead, or being removed, and no page moves there.
 *
 * Does nothing for memory that the CPU cannot address, nor for a classic
 * devmem, whose driver knows what it has mapped.
 *
 * Context: Process context, may sleep. Takes folio locks, one at a time, which
 * are held while a folio is copied.
 */
void hmm_devmem_unmap_lost(struct hmm_devmem *devmem)
{
	unsigned long pfn = devmem->pfn_first, lost = 0, left = 0, *pfns;
	unsigned int nr, i;
	bool stays;

	if (!hmm_devmem_managed(devmem) || devmem->type != MEMORY_DEVICE_COHERENT)
		return;
	/* Removal cannot fail, so this allocation must not. */
	pfns = kvmalloc_objs(*pfns, HMM_DEVMEM_BLOCK_NR, GFP_KERNEL | __GFP_NOFAIL);
	scoped_guard(rwsem_read, &priv(devmem)->segments_lock) {
		while ((nr = hmm_devmem_pool_not_free(priv(devmem)->pool, &pfn,
						      devmem->pfn_last, pfns,
						      HMM_DEVMEM_BLOCK_NR))) {
			for (i = 0; i < nr; i++) {
				lost += unmap_if_mapped(pfn_to_page(pfns[i]), &stays);
				left += stays;
			}
			cond_resched();
		}
	}
	kvfree(pfns);
	if (lost)
		dev_warn(devmem->device,
			 "%lu pages of device memory are lost to their users, who get SIGBUS\n",
			 lost);
	if (left)
		dev_err(devmem->device, "%lu of them are still mapped\n", left);
}

/**
 * hmm_devmem_poison() - Handle the loss of the content of device memory
 * @devmem: A managed devmem.
 * @pfn: First pfn of the range, inclusive.
 * @nr_pages: Its length, pages of PAGE_SIZE. What is outside of @devmem is ignored.
 *
 * Nothing happens if @devmem is classic or being removed, or if the range overflows.
 *
 * Processes that have pages there get SIGBUS when they access them, also after the
 * device has been removed; their other pages are not affected. The pages are never
 * allocated again, until the memory is removed and added anew: a driver that still
 * knows them then can pass them in &hmm_devmem_desc.bad_pages. With %HMM_DEVMEM_LAZY
 * that holds as well for pages that have no struct page.
 *
 * Context: Process context, may sleep. Takes locks of folios that processes have, and so
 * waits for copies of these pages: not to be called by a copy callback, or with locks held
 * that one takes. Does not wait for a folio that the driver has allocated and keeps locked.
 * The caller holds no mmap lock and no lock of a folio that processes have.
 */
void hmm_devmem_poison(struct hmm_devmem *devmem, unsigned long pfn,
		       unsigned long nr_pages)
{
	unsigned long end;

	might_sleep();
	if (!hmm_devmem_managed(devmem) || check_add_overflow(pfn, nr_pages, &end) ||
	    !hmm_devmem_ref_tryget_live(devmem))
		return;
	trace_hmm_devmem_poison(devmem, pfn, end, nr_pages);
	end = min(end, devmem->pfn_last);
	pfn = max(pfn, devmem->pfn_first);
	/* Retire first, since the pages can get their struct pages at any time. */
	hmm_devmem_pool_retire_range(priv(devmem)->pool, pfn, end);
	for (; pfn < end; pfn++) {
		scoped_guard(rwsem_read, &priv(devmem)->segments_lock) {
			if (hmm_devmem_segment_at(devmem, pfn))
				hmm_devmem_poison_page(devmem, pfn);
		}
		cond_resched();
	}
	hmm_devmem_ref_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_poison);
