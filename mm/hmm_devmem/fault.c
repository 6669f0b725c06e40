// SPDX-License-Identifier: GPL-2.0
/*
 * CPU faults on pages that are on the device.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/export.h>
#include <linux/leafops.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>

#include <trace/events/hmm_devmem.h>

#include "../internal.h"
#include "allocate.h"
#include "collect.h"
#include "devmem.h"
#include "dma.h"
#include "pool.h"
#include "stats.h"
#include "stream.h"
#include "turns.h"
#include "txn.h"

/* After how long the CPU faults again on a page that is locked or referenced. */
#define HMM_DEVMEM_FAULT_DELAY_US	100
/* After how long it faults again on a page that the device could not copy. */
#define HMM_DEVMEM_COPY_DELAY_US	1000

/* Needs no lock: if tasks overwrite it, only the size of a window is another one. */
static DEFINE_PER_CPU(struct hmm_devmem_streams, fault_streams) =
	HMM_DEVMEM_STREAMS_INIT;

/* Needs no lock: if tasks overwrite it, a folio is split, or not split, by mistake. */
static struct hmm_devmem_turns fault_turns;

/* The largest window that a fault on @page can have. */
static struct hmm_devmem_window fault_bounds(const struct vm_area_struct *vma,
					     unsigned long page)
{
	const unsigned long max = hmm_devmem_window_nr();
	const unsigned long start = ALIGN_DOWN(page, max);

	return (struct hmm_devmem_window) {
		.first = max(start, vma->vm_start >> PAGE_SHIFT),
		.end = min(start + max, vma->vm_end >> PAGE_SHIFT),
	};
}

/*
 * Has the process touched a page since it came back? Core maps a page that it moves
 * as not accessed. Says yes if that is not known: the page is not present any more, is
 * not mapped by a PTE, or is outside of the mapping.
 */
static bool page_was_touched(const struct vm_area_struct *vma,
			     unsigned long page)
{
	const unsigned long addr = page << PAGE_SHIFT;
	pmd_t *pmdp = NULL;
	pte_t *ptep = NULL;
	pte_t pte;

	if (addr >= vma->vm_start && addr < vma->vm_end)
		pmdp = mm_find_pmd(vma->vm_mm, addr);
	if (pmdp)
		ptep = pte_offset_map(pmdp, addr);
	if (!ptep)
		return true;
	pte = ptep_get(ptep);
	pte_unmap(ptep);
	return !pte_present(pte) || pte_young(pte);
}

/*
 * The next window of a stream. A walk with a stride that is a power of two can meet the
 * end of each window although it touches few of its pages, and a program can use both
 * ends of each and nothing between. So check two pages of the last window: the one that a
 * walk page by page has touched just before, and one in the middle, which is at an odd
 * distance from the start. Do so only for faults of user mode: the kernel need not set the
 * accessed bit when it accesses memory of a process.
 */
static noinline struct hmm_devmem_window
fault_continue(const struct vm_area_struct *vma,
	       struct hmm_devmem_stream *stream, unsigned long page,
	       unsigned int flags)
{
	const unsigned long half = (READ_ONCE(stream->span) - 1) / 2;
	struct hmm_devmem_window window;
	bool up, read;

	window = hmm_devmem_stream_continue(stream, page,
					    fault_bounds(vma, page));
	if (hmm_devmem_window_pages(window) == 1 || !(flags & FAULT_FLAG_USER))
		return window;
	up = window.first == page;
	read = page_was_touched(vma, up ? page - 1 : page + 1) &&
	       page_was_touched(vma, up ? page - 1 - half : page + 1 + half);
	return read ? window : hmm_devmem_stream_drop(stream, page);
}

/* Which pages to bring back, where PTEs map them. */
static struct hmm_devmem_window fault_pages(const struct vm_area_struct *vma,
					    unsigned long page,
					    unsigned int flags)
{
	struct hmm_devmem_window window = hmm_devmem_window_one(page);
	struct hmm_devmem_stream *stream;

	stream = hmm_devmem_streams_find(raw_cpu_ptr(&fault_streams), vma->vm_mm,
					 page);
	if (stream)
		window = fault_continue(vma, stream, page, flags);
	hmm_devmem_turns_count(&fault_turns, vma->vm_mm,
			       page >> HMM_DEVMEM_BLOCK_ORDER,
			       hmm_devmem_window_pages(window));
	return window;
}

/* All pages of the block, which a PMD maps. */
static struct hmm_devmem_window fault_block(const struct vm_area_struct *vma,
					    unsigned long page)
{
	const unsigned long first = ALIGN_DOWN(page, HMM_DEVMEM_BLOCK_NR);
	const struct hmm_devmem_window window = {
		.first = first,
		.end = first + HMM_DEVMEM_BLOCK_NR,
	};

	hmm_devmem_streams_pass(raw_cpu_ptr(&fault_streams), vma->vm_mm, window);
	return window;
}

/* Does the folio of @page, which a PMD maps, come back as a whole? Else it is split. */
static bool fault_is_whole(const struct vm_area_struct *vma, unsigned long page)
{
	return hmm_devmem_moves_blocks() &&
	       !hmm_devmem_turns_split(&fault_turns, vma->vm_mm, page,
				       HMM_DEVMEM_BLOCK_ORDER);
}

/*
 * Apart from 0 and errors, the functions below return VM_FAULT_NOPAGE if the page is
 * locked or has other references at the moment, and VM_FAULT_RETRY if the device did not
 * copy it and may do so later, or if there is no free memory that the device reaches.
 * fault_result() turns both into another fault of the CPU, after a delay.
 */

/*
 * The page must come back to a lower zone, and there is no memory in it: core does not
 * start the OOM killer for that, so after VM_FAULT_OOM it would only print a warning, and
 * make the CPU fault again at once.
 */
static vm_fault_t no_ram_for_fault(struct hmm_devmem *devmem)
{
	return hmm_devmem_dma_ram_gfp(devmem) & __GFP_HIGHMEM ? VM_FAULT_OOM :
								VM_FAULT_RETRY;
}

/* Bring back the pages that were collected. The fault is about the one at entry @first. */
static vm_fault_t fault_copy(struct hmm_devmem_txn *txn, unsigned int first)
{
	bool collected;
	int err;

	if (!hmm_devmem_txn_alloc_ram(txn, first))
		return txn->must_split ? 0 : no_ram_for_fault(txn->devmem);
	collected = hmm_devmem_txn_has_dst(txn, first);
	hmm_devmem_txn_copy_start(txn);
	err = hmm_devmem_txn_copy_wait(txn);
	/* Only the page that the CPU has touched must come back. */
	if (!collected || hmm_devmem_txn_has_dst(txn, first))
		return 0;
	return err == -EIO || err == -ENODEV ? VM_FAULT_SIGBUS : VM_FAULT_RETRY;
}

/*
 * Core has locked the folio, and holds the one reference that a split allows.
 * Returns false if there are other references at the moment, or the process has
 * unmapped the folio meanwhile. After the split, lock and reference are those of the
 * folio of @page, which need not be the first one.
 */
static bool split_faulting_folio(const struct page *page)
{
	return !PageCompound(page) || !split_huge_page((struct page *)page);
}

static vm_fault_t fault_window(struct hmm_devmem_txn *txn, unsigned long addr,
			       unsigned long end, const struct page *page,
			       unsigned long flags)
{
	const unsigned int first = (addr - txn->start) >> PAGE_SHIFT;
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long moved;
	vm_fault_t ret;
	int collected;
	bool retry;

	/* Core has locked the folio of @page, and is told so, not to wait for the lock. */
	flags |= MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
	collected = hmm_devmem_txn_collect_vma(txn, end, devmem->owner, flags,
					       (struct page *)page);
	if (collected <= 0)
		return collected ? VM_FAULT_SIGBUS : VM_FAULT_NOPAGE;

	txn->in_fault = true;
	ret = fault_copy(txn, first);
	moved = hmm_devmem_txn_commit(txn);
	/* The page was not collected, or core has refused to move it. */
	retry = !ret && !txn->must_split && !hmm_devmem_txn_moved(txn, first);
	hmm_devmem_count(devmem, HMM_DEVMEM_FAULT_PAGES, moved);
	trace_hmm_devmem_fault(devmem, addr, txn->start, end, moved, ret);
	/* After a split, the CPU faults again, on a small page. */
	if (txn->must_split && !split_faulting_folio(page))
		retry = true;
	return retry ? VM_FAULT_NOPAGE : ret;
}

static vm_fault_t fault_one(struct hmm_devmem *devmem,
			    struct vm_area_struct *vma, unsigned long addr,
			    const struct page *page)
{
	/* 300 bytes, too many to clear in each fault: fields are set before use. */
	struct hmm_devmem_txn_one one __uninitialized;
	struct hmm_devmem_txn *txn;

	txn = hmm_devmem_txn_init_one(&one, devmem, NULL);
	txn->vma = vma;
	txn->start = addr;
	return fault_window(txn, addr, addr + PAGE_SIZE, page, 0);
}

/* Bring back the page alone, after its window has failed because of another page. */
static vm_fault_t fault_alone(struct hmm_devmem *devmem,
			      struct vm_area_struct *vma, unsigned long addr,
			      const struct page *page)
{
	if (READ_ONCE(priv(devmem)->dead))
		return VM_FAULT_SIGBUS;
	if (!split_faulting_folio(page))
		return VM_FAULT_NOPAGE;
	return fault_one(devmem, vma, addr, page);
}

static vm_fault_t fault_many(struct hmm_devmem *devmem,
			     struct vm_area_struct *vma, unsigned long addr,
			     const struct page *page, unsigned long start,
			     unsigned long end, unsigned long flags)
{
	struct hmm_devmem_txn *txn;
	vm_fault_t ret;

	txn = hmm_devmem_txn_get_locked(devmem, NULL, (end - start) >> PAGE_SHIFT);
	/* The caller then tries the page alone, with a transaction on the stack. */
	if (!txn)
		return VM_FAULT_OOM;
	txn->vma = vma;
	txn->start = start;
	ret = fault_window(txn, addr, end, page, flags);
	hmm_devmem_txn_put(txn);
	return ret;
}

/*
 * The page is busy: an eviction or another fault moves it, or the kernel has a
 * reference for a while. That reference can be in another CPU's batch for mlock:
 * core has unmapped the page from mlocked memory on that CPU, even for this very
 * fault, before the task moved here. A batch keeps references until it is full,
 * which may be never. So make all CPUs drop them.
 */
static void fault_drain(const struct vm_area_struct *vma,
			const struct page *page)
{
	if (vma->vm_flags & VM_LOCKED ||
	    folio_test_mlocked(page_folio((struct page *)page)))
		lru_add_drain_all();
}

/*
 * Let the CPU fault again, after a while. Check for a fatal signal: if the kernel has
 * touched the page, no other code does before the next fault.
 */
static vm_fault_t fault_again(unsigned long delay_us)
{
	usleep_range(delay_us, 2 * delay_us);
	return fatal_signal_pending(current) ? VM_FAULT_SIGBUS : 0;
}

static vm_fault_t fault_result(vm_fault_t ret, const struct vm_area_struct *vma,
			       const struct page *page)
{
	if (likely(!ret))
		return 0;
	if (ret & VM_FAULT_NOPAGE) {
		fault_drain(vma, page);
		return fault_again(HMM_DEVMEM_FAULT_DELAY_US);
	}
	if (ret & VM_FAULT_RETRY)
		return fault_again(HMM_DEVMEM_COPY_DELAY_US);
	return ret;
}

/*
 * Is the page at @addr lost, with a mapping that could not be replaced? If a PMD
 * maps the folio (@whole), @page is the folio's first page, whichever was touched.
 * If the PMD has been split since, it is not known which page of the folio was
 * touched, and this returns false: the caller splits the folio as well, and the next
 * fault is on the page itself.
 */
static bool page_is_lost(struct hmm_devmem *devmem, unsigned long addr,
			 const struct page *page, bool whole)
{
	const unsigned long i = (addr % HMM_DEVMEM_BLOCK_SIZE) >> PAGE_SHIFT;
	unsigned long pfn = page_to_pfn(page);

	if (likely(!hmm_devmem_pool_any_retired(priv(devmem)->pool)))
		return false;
	if (!whole && i && PageHead(page))
		return false;
	if (whole)
		pfn = ALIGN_DOWN(pfn, HMM_DEVMEM_BLOCK_NR) + i;
	return __hmm_devmem_pool_retired(priv(devmem)->pool, pfn);
}

/**
 * hmm_devmem_default_fault() - Bring a page back that the CPU has touched
 * @devmem: The device memory that @page is of.
 * @vma: The mapping that was touched.
 * @addr: The address that was touched.
 * @page: The page there, or the first one of its folio; see &hmm_devmem_ops.fault.
 * @flags: FAULT_FLAG_*.
 * @pmdp: The PMD entry of @addr.
 *
 * This serves the faults of a managed driver without a fault callback. A folio that
 * is mapped as a whole comes back as a whole. It is split if it is larger than a window,
 * or if the CPU and the device seem to use few of its pages by turns. Else the number of
 * pages that come back depends on whether the process goes through its memory page by
 * page, upward or downward.
 *
 * Context: Process context, may sleep. Core holds the mmap lock for reading and
 * the lock of @page's folio.
 * Return: As &hmm_devmem_ops.fault; VM_FAULT_SIGBUS if @devmem is classic, and
 * VM_FAULT_HWPOISON if the data of the page is lost, see hmm_devmem_poison().
 */
vm_fault_t hmm_devmem_default_fault(struct hmm_devmem *devmem,
				    struct vm_area_struct *vma,
				    unsigned long addr, const struct page *page,
				    unsigned int flags, pmd_t *pmdp)
{
	const bool large = pmd_is_device_private_entry(pmdp_get_lockless(pmdp));
	const bool whole = large && fault_is_whole(vma, addr >> PAGE_SHIFT);
	struct hmm_devmem_window window;
	unsigned long start, end;
	vm_fault_t ret;

	/* Only a classic driver itself can bring its pages back. */
	if (!hmm_devmem_managed(devmem))
		return VM_FAULT_SIGBUS;
	addr = PAGE_ALIGN_DOWN(addr);
	if (page_is_lost(devmem, addr, page, large))
		return VM_FAULT_HWPOISON;
	/* Nothing comes back: wait neither for the page nor for memory. */
	if (READ_ONCE(priv(devmem)->dead))
		return VM_FAULT_SIGBUS;

	/*
	 * Split the folio first: core would split it when it collects, and go on as if
	 * it still had the lock of the page that the fault is about. After the split
	 * @page is a folio of its own, so a window can reach below it.
	 */
	if (!whole && !split_faulting_folio(page))
		return fault_result(VM_FAULT_NOPAGE, vma, page);
	window = whole ? fault_block(vma, addr >> PAGE_SHIFT) :
			 fault_pages(vma, addr >> PAGE_SHIFT, flags);
	start = window.first << PAGE_SHIFT;
	end = window.end << PAGE_SHIFT;
	if (end - start == PAGE_SIZE) {
		ret = fault_one(devmem, vma, addr, page);
	} else {
		ret = fault_many(devmem, vma, addr, page, start, end,
				 whole ? MIGRATE_VMA_SELECT_COMPOUND : 0);
		if (ret & (VM_FAULT_ERROR | VM_FAULT_RETRY))
			ret = fault_alone(devmem, vma, addr, page);
	}
	return fault_result(ret, vma, page);
}
EXPORT_SYMBOL_GPL(hmm_devmem_default_fault);
