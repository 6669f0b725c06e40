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

#include "internal.h"

/* After how long a CPU fault looks again at a page that is locked or referenced. */
#define HMM_DEVMEM_FAULT_DELAY_US	100
/* And after how long it asks again for a copy that the device could not do. */
#define HMM_DEVMEM_COPY_DELAY_US	1000

/*
 * Where this CPU's last fault ended. A process whose next fault is there reads in
 * sequence and gets a larger window each time; any other fault gets one page,
 * because to bring a page back that the CPU does not touch costs as much as a fault.
 * Only the size of a window depends on this, so it need not be exact.
 */
struct fault_hint {
	const struct mm_struct *mm;
	unsigned long next;
	unsigned int nr;
};

static DEFINE_PER_CPU(struct fault_hint, fault_hint);

/* Windows grow by this factor up to the largest: 1, 4, 16, 64, 256, 512 pages. */
#define HMM_DEVMEM_FAULT_GROWTH		4

static unsigned long fault_window_end(const struct vm_area_struct *vma,
				      unsigned long addr)
{
	/* Racy, see above. */
	struct fault_hint hint = data_race(*raw_cpu_ptr(&fault_hint));
	const unsigned long max = hmm_devmem_window_nr();
	const unsigned long size = max << PAGE_SHIFT;
	unsigned long nr = 1;

	if (hint.mm == vma->vm_mm && hint.next == addr)
		nr = min(hint.nr * HMM_DEVMEM_FAULT_GROWTH, max);
	return min3(addr + (nr << PAGE_SHIFT), vma->vm_end,
		    ALIGN_DOWN(addr, size) + size);
}

static void fault_window_done(const struct vm_area_struct *vma,
			      unsigned long start, unsigned long end)
{
	struct fault_hint *hint = raw_cpu_ptr(&fault_hint);

	WRITE_ONCE(hint->mm, vma->vm_mm);
	WRITE_ONCE(hint->next, end);
	WRITE_ONCE(hint->nr, (end - start) >> PAGE_SHIFT);
}

/*
 * The functions below return, beside errors: VM_FAULT_NOPAGE if the page is locked
 * or has other references at the moment, VM_FAULT_RETRY if the device did not copy
 * it and may do so later, or does not reach all memory and there is none free that
 * it reaches. Neither is returned to core.
 */

/*
 * For want of memory in a lower zone core does not kill a process: VM_FAULT_OOM
 * would only give a warning, and make the CPU fault again.
 */
static vm_fault_t no_ram_for_fault(struct hmm_devmem *devmem)
{
	return hmm_devmem_dma_ram_gfp(devmem) & __GFP_HIGHMEM ? VM_FAULT_OOM :
								VM_FAULT_RETRY;
}

/* Bring back the pages that were collected, above all the page at entry @first. */
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

	/* Core has locked @page itself, and must not wait for that lock. */
	flags |= MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
	collected = hmm_devmem_txn_collect_vma(txn, end, devmem->owner, flags,
					       (struct page *)page);
	if (collected <= 0)
		return collected ? VM_FAULT_SIGBUS : VM_FAULT_NOPAGE;

	txn->copy.dir = HMM_DEVMEM_TO_RAM;
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

	txn = hmm_devmem_txn_init_one(&one, devmem);
	txn->vma = vma;
	txn->start = addr;
	return fault_window(txn, addr, addr + PAGE_SIZE, page, 0);
}

/* Bring back the page alone, since the failure can be that of a neighbour. */
static vm_fault_t fault_alone(struct hmm_devmem *devmem,
			      struct vm_area_struct *vma, unsigned long addr,
			      const struct page *page)
{
	if (READ_ONCE(devmem->dead))
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

	txn = hmm_devmem_txn_get_locked(devmem, (end - start) >> PAGE_SHIFT);
	/* The caller then tries the page alone, which needs no memory for that. */
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
 * Let the CPU fault again, after a while. If the kernel has touched the page,
 * nothing else checks whether the process is being killed meanwhile.
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
 * touched: then the caller splits the folio as well, and the next fault is on the
 * page itself.
 */
static bool page_is_lost(struct hmm_devmem *devmem, unsigned long addr,
			 const struct page *page, bool whole)
{
	const unsigned long i = (addr % HMM_DEVMEM_BLOCK_SIZE) >> PAGE_SHIFT;
	unsigned long pfn = page_to_pfn(page);

	if (likely(!hmm_devmem_alloc_any_retired(devmem->alloc)))
		return false;
	if (!whole && i && PageHead(page))
		return false;
	if (whole)
		pfn = ALIGN_DOWN(pfn, HMM_DEVMEM_BLOCK_NR) + i;
	return __hmm_devmem_alloc_retired(devmem->alloc, pfn);
}

/**
 * hmm_devmem_default_fault() - Bring a page back that the CPU has touched
 * @devmem: The device memory that @page is of.
 * @vma: The mapping that was touched.
 * @addr: The address that was touched.
 * @page: The page there, or the first one of its folio; see &hmm_devmem_ops.fault.
 * @flags: FAULT_FLAG_*.
 * @pmdp: The PMD entry.
 *
 * This serves the faults of a managed driver without a fault callback. A folio that
 * is mapped as a whole comes back as a whole, unless it is larger than a window:
 * then it is split. Else the number of pages that come back depends on whether the
 * process goes through its memory in sequence.
 *
 * Context: Process context, may sleep. Core holds the mmap lock for reading and
 * the lock of @page's folio.
 * Return: As &hmm_devmem_ops.fault; VM_FAULT_SIGBUS if @devmem is classic.
 */
vm_fault_t hmm_devmem_default_fault(struct hmm_devmem *devmem,
				    struct vm_area_struct *vma,
				    unsigned long addr, const struct page *page,
				    unsigned int flags, pmd_t *pmdp)
{
	const bool whole = pmd_is_device_private_entry(pmdp_get_lockless(pmdp));
	unsigned long start, end;
	vm_fault_t ret;

	/* Only a classic driver itself can bring its pages back. */
	if (!hmm_devmem_managed(devmem))
		return VM_FAULT_SIGBUS;
	addr = PAGE_ALIGN_DOWN(addr);
	start = addr;
	if (whole) {
		start = ALIGN_DOWN(addr, HMM_DEVMEM_BLOCK_SIZE);
		end = start + HMM_DEVMEM_BLOCK_SIZE;
	} else {
		end = fault_window_end(vma, addr);
	}
	if (page_is_lost(devmem, addr, page, whole))
		return VM_FAULT_HWPOISON;

	/*
	 * Else core splits the folio when it collects, and goes on as if it still
	 * had the lock of the page that the fault is about.
	 */
	if (!whole && !split_faulting_folio(page))
		return fault_result(VM_FAULT_NOPAGE, vma, page);
	if (end - start == PAGE_SIZE) {
		ret = fault_one(devmem, vma, addr, page);
	} else {
		ret = VM_FAULT_RETRY;
		if (!whole || hmm_devmem_moves_blocks())
			ret = fault_many(devmem, vma, addr, page, start, end,
					 whole ? MIGRATE_VMA_SELECT_COMPOUND : 0);
		if (ret & (VM_FAULT_ERROR | VM_FAULT_RETRY)) {
			end = addr + PAGE_SIZE;
			ret = fault_alone(devmem, vma, addr, page);
		}
	}
	fault_window_done(vma, addr, end);
	return fault_result(ret, vma, page);
}
EXPORT_SYMBOL_GPL(hmm_devmem_default_fault);
