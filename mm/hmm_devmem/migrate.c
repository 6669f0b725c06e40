// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of pages by virtual address: to the device, back, and on CPU faults.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/export.h>
#include <linux/leafops.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagewalk.h>
#include <linux/percpu-rwsem.h>
#include <linux/percpu.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

/* After how long a CPU fault looks again at a page that somebody else holds. */
#define HMM_DEVMEM_FAULT_DELAY_US	100

/* The largest window; core collects no larger piece at once. */
#define HMM_DEVMEM_WINDOW_NR		HMM_DEVMEM_BLOCK_NR
#define HMM_DEVMEM_WINDOW_SIZE		(HMM_DEVMEM_WINDOW_NR << PAGE_SHIFT)

/* Whether anything was collected, or an errno. If so, finalize must follow. */
static int txn_collect(struct hmm_devmem_txn *txn, unsigned long end,
		       void *owner, unsigned long flags, struct page *fault_page)
{
	int ret;

	txn->mig = (struct migrate_vma) {
		.vma = txn->vma,
		.start = txn->start,
		.end = end,
		.src = txn->src,
		.dst = txn->dst,
		.pgmap_owner = owner,
		.flags = flags,
		.fault_page = fault_page,
	};
	ret = migrate_vma_setup(&txn->mig);
	txn->nr = ret ? 0 : txn->mig.npages;
	return ret ?: txn->mig.cpages > 0;
}

/* @split: Core is to split large folios before it unmaps them. */
static int window_start_to_device(struct hmm_devmem_txn *txn, unsigned long end,
				  bool split)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long flags = MIGRATE_VMA_SELECT_SYSTEM;
	int ret;

	/* Core does not bring large coherent folios back, nor pins them. */
	if (devmem->type == MEMORY_DEVICE_PRIVATE && !split)
		flags |= MIGRATE_VMA_SELECT_COMPOUND;
	ret = txn_collect(txn, end, &devmem->to_device_cookie, flags, NULL);
	if (ret <= 0)
		return ret;
	txn->copy.dir = HMM_DEVMEM_TO_DEVICE;
	hmm_devmem_txn_alloc_device(txn);
	hmm_devmem_txn_copy_start(txn);
	return 1;
}

static unsigned long select_device(const struct hmm_devmem *devmem)
{
	return devmem->type == MEMORY_DEVICE_PRIVATE ?
	       MIGRATE_VMA_SELECT_DEVICE_PRIVATE :
	       MIGRATE_VMA_SELECT_DEVICE_COHERENT;
}

static int window_start_to_ram(struct hmm_devmem_txn *txn, unsigned long end,
			       bool split)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long flags = select_device(devmem);
	int ret;

	if (!split)
		flags |= MIGRATE_VMA_SELECT_COMPOUND;
	ret = txn_collect(txn, end, devmem->owner, flags, NULL);
	if (ret <= 0)
		return ret;
	txn->copy.dir = HMM_DEVMEM_TO_RAM;
	txn->no_memory = !hmm_devmem_txn_alloc_ram(txn, 0, true) &&
			 !txn->must_split;
	hmm_devmem_txn_copy_start(txn);
	return 1;
}

/* Finish what was started; returns how many pages moved. */
static unsigned long window_finish(struct hmm_devmem_txn *txn)
{
	const bool to_device = txn->copy.dir == HMM_DEVMEM_TO_DEVICE;
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long moved;

	hmm_devmem_txn_copy_wait(txn);
	migrate_vma_pages(&txn->mig);
	moved = hmm_devmem_txn_committed(txn);
	if (to_device)
		hmm_devmem_txn_map(txn);
	migrate_vma_finalize(&txn->mig);
	hmm_devmem_txn_done(txn);

	hmm_devmem_count(devmem, to_device ? HMM_DEVMEM_MOVED_TO_DEVICE :
					     HMM_DEVMEM_MOVED_TO_RAM, moved);
	if (to_device)
		trace_hmm_devmem_to_device(devmem, txn->start, txn->mig.end, moved);
	else
		trace_hmm_devmem_to_ram(devmem, txn->start, txn->mig.end, moved);
	return moved;
}

struct resident_walk {
	struct hmm_devmem *devmem;
	unsigned long nr;
};

static bool entry_is_resident(struct hmm_devmem *devmem, softleaf_t entry)
{
	return softleaf_is_device_private(entry) &&
	       hmm_devmem_from_page(softleaf_to_page(entry)) == devmem;
}

static int resident_pte_entry(pte_t *ptep, unsigned long addr,
			      unsigned long next, struct mm_walk *walk)
{
	struct resident_walk *resident = walk->private;
	const pte_t pte = ptep_get(ptep);
	struct page *page;

	if (!pte_present(pte)) {
		resident->nr += !pte_none(pte) &&
				entry_is_resident(resident->devmem,
						  softleaf_from_pte(pte));
		return 0;
	}
	page = vm_normal_page(walk->vma, addr, pte);
	resident->nr += page && hmm_devmem_from_page(page) == resident->devmem;
	return 0;
}

/* Core would split large entries for us if we did not look at them here. */
static int resident_pmd_entry(pmd_t *pmdp, unsigned long addr,
			      unsigned long next, struct mm_walk *walk)
{
	struct resident_walk *resident = walk->private;
	spinlock_t *ptl = pmd_trans_huge_lock(pmdp, walk->vma);

	if (!ptl)
		return 0;
	if (!pmd_present(*pmdp) &&
	    entry_is_resident(resident->devmem, softleaf_from_pmd(*pmdp)))
		resident->nr += (next - addr) >> PAGE_SHIFT;
	spin_unlock(ptl);
	walk->action = ACTION_CONTINUE;
	return 0;
}

static const struct mm_walk_ops resident_walk_ops = {
	.pmd_entry = resident_pmd_entry,
	.pte_entry = resident_pte_entry,
	.walk_lock = PGWALK_RDLOCK,
};

/* How many pages of a window are on the device, whoever moved them. */
static unsigned long count_resident(struct hmm_devmem *devmem,
				    struct mm_struct *mm, unsigned long start,
				    unsigned long end)
{
	struct resident_walk resident = { .devmem = devmem };

	walk_page_range(mm, start, end, &resident_walk_ops, &resident);
	return resident.nr;
}

static bool vma_is_suitable(const struct vm_area_struct *vma)
{
	/* Only anonymous pages can move; a private file mapping has them too. */
	return !(vma->vm_flags & (VM_SPECIAL | VM_SHARED)) &&
	       !is_vm_hugetlb_page(vma) && !vma_is_dax(vma);
}

/*
 * KSM maps a page that it merges before rmap finds it there. Core collects it from
 * the page table, and would not find it again to end its migration.
 */
static bool may_be_merged(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MERGEABLE;
}

/**
 * struct range_walk - what hmm_devmem_migrate_to_device() was asked for
 * @devmem: "
 * @mm: "
 * @ctx: "
 * @dir: Or hmm_devmem_migrate_to_ram().
 * @start: "
 * @end: "
 * @in_flight: A window whose copy was started and not yet waited for.
 * @done: Number of pages to return.
 * @tries: How often the present window was tried again.
 * @split: The present window is not to be collected as one piece.
 * @full: An errno if no more device memory can be had.
 * @reclaimed: Device memory was taken from others, or from ourselves.
 */
struct range_walk {
	struct hmm_devmem *devmem;
	struct mm_struct *mm;
	struct hmm_devmem_context *ctx;
	enum hmm_devmem_dir dir;
	unsigned long start;
	unsigned long end;
	struct hmm_devmem_txn *in_flight;
	unsigned long done;
	unsigned int tries;
	bool split;
	int full;
	bool reclaimed;
};

/* Others can take what was made room for, but not forever. */
#define HMM_DEVMEM_WINDOW_TRIES		8

/* Pages of a window that are to be counted, of which @moved have just moved. */
static unsigned long window_result(struct range_walk *walk, unsigned long start,
				   unsigned long end, unsigned long moved)
{
	/* Those that were there before count as well. */
	if (walk->dir == HMM_DEVMEM_TO_DEVICE &&
	    moved < (end - start) >> PAGE_SHIFT)
		return count_resident(walk->devmem, walk->mm, start, end);
	return moved;
}

/* Finish the window that is in flight, if there is one. */
static int range_drain(struct range_walk *walk)
{
	struct hmm_devmem_txn *txn = walk->in_flight;
	unsigned long moved;
	int ret = 0;

	if (!txn)
		return 0;
	walk->in_flight = NULL;
	moved = window_finish(txn);
	walk->done += window_result(walk, txn->start, txn->mig.end, moved);
	if (!moved && txn->no_memory)
		ret = -ENOMEM;
	hmm_devmem_txn_put(txn);
	return ret;
}

static struct hmm_devmem_txn *range_get_txn(struct range_walk *walk,
					    unsigned int nr, int *ret)
{
	struct hmm_devmem_txn *txn = NULL;

	*ret = 0;
	if (walk->in_flight)
		txn = hmm_devmem_txn_tryget(walk->devmem, nr);
	if (txn)
		return txn;
	/* Who waits for a transaction must not have one. */
	*ret = range_drain(walk);
	return hmm_devmem_txn_get(walk->devmem, nr);
}

/* Device memory can be had by other means than to find it. */
static bool can_get_more(const struct range_walk *walk)
{
	return walk->dir == HMM_DEVMEM_TO_DEVICE && !walk->full &&
	       (hmm_devmem_can_grow(walk->devmem) ||
		walk->devmem->flags & HMM_DEVMEM_RECLAIM);
}

/*
 * -EAGAIN: more would have moved if there had been more device memory, or if the
 * window had not been one piece.
 */
static int window_migrate(struct range_walk *walk, struct vm_area_struct *vma,
			  unsigned long start, unsigned long end)
{
	struct hmm_devmem *devmem = walk->devmem;
	struct hmm_devmem_txn *txn;
	int ret, started;
	bool again;

	if (!vma_is_suitable(vma))
		return 0;
	if (walk->dir == HMM_DEVMEM_TO_DEVICE && may_be_merged(vma)) {
		walk->done += window_result(walk, start, end, 0);
		return 0;
	}
	txn = range_get_txn(walk, (end - start) >> PAGE_SHIFT, &ret);
	if (ret) {
		hmm_devmem_txn_put(txn);
		return ret;
	}
	txn->vma = vma;
	txn->start = start;
	txn->copy.context = walk->ctx;
	started = walk->dir == HMM_DEVMEM_TO_DEVICE ?
		  window_start_to_device(txn, end, walk->split) :
		  window_start_to_ram(txn, end, walk->split);
	/* Two are in flight now; the device works on the second meanwhile. */
	ret = range_drain(walk);
	if (started <= 0) {
		hmm_devmem_txn_put(txn);
		if (!started)
			walk->done += window_result(walk, start, end, 0);
		return started ?: ret;
	}

	again = txn->short_of_memory && can_get_more(walk) &&
		walk->tries < HMM_DEVMEM_WINDOW_TRIES;
	if (again || txn->must_split) {
		walk->split |= txn->must_split;
		/* Counted when it is tried again. */
		window_finish(txn);
		hmm_devmem_txn_put(txn);
		return ret ?: -EAGAIN;
	}
	walk->in_flight = txn;
	if (!devmem->ops->copy_wait)
		return range_drain(walk) ?: ret;
	return ret;
}

/* Get more device memory, without locks. */
static int get_more(struct range_walk *walk)
{
	struct hmm_devmem *devmem = walk->devmem;
	int ret;

	ret = hmm_devmem_alloc_refused(devmem->alloc);
	if (ret)
		return ret;
	if (hmm_devmem_can_grow(devmem) && !hmm_devmem_segments_grow(devmem))
		return 0;
	if (!(devmem->flags & HMM_DEVMEM_RECLAIM))
		return -ENOMEM;
	walk->reclaimed = true;
	return hmm_devmem_reclaim(devmem);
}

/* Give others their turn, or get more device memory, without the mmap lock. */
static int range_pause(struct range_walk *walk, bool more)
{
	int ret = range_drain(walk);

	mmap_read_unlock(walk->mm);
	cond_resched();
	if (more)
		walk->full = get_more(walk);
	mmap_read_lock(walk->mm);
	return ret;
}

static int range_migrate_window(struct range_walk *walk, unsigned long *addr)
{
	struct hmm_devmem *devmem = walk->devmem;
	const bool split = walk->split;
	struct vm_area_struct *vma;
	unsigned long start, next;
	int ret;

	/*
	 * Small pieces would do as well, but large ones are worth some memory. They
	 * are not worth the eviction of others.
	 */
	if (can_get_more(walk) && hmm_devmem_can_grow(devmem) && !walk->tries &&
	    !hmm_devmem_alloc_has_block(devmem->alloc)) {
		ret = range_pause(walk, true);
		if (ret)
			return ret;
	}

	vma = find_vma_intersection(walk->mm, *addr, walk->end);
	if (!vma) {
		*addr = walk->end;
		return -EFAULT;
	}
	start = max(*addr, vma->vm_start);
	next = min3(walk->end, vma->vm_end,
		    ALIGN_DOWN(start, HMM_DEVMEM_WINDOW_SIZE) +
		    HMM_DEVMEM_WINDOW_SIZE);
	ret = window_migrate(walk, vma, start, next);
	if (ret == -EAGAIN && walk->split && !split)
		return 0;
	if (ret == -EAGAIN) {
		/* Others were faster: go for it again. */
		walk->tries++;
		return range_pause(walk, true);
	}
	walk->tries = 0;
	walk->split = false;
	*addr = next;
	return ret;
}

static int to_device_refused(struct hmm_devmem *devmem)
{
	return READ_ONCE(devmem->dead) ? -ENODEV :
					 hmm_devmem_alloc_refused(devmem->alloc);
}

static long range_migrate_locked(struct range_walk *walk)
{
	unsigned long addr = walk->start;
	int ret = 0, err;

	mmap_assert_locked(walk->mm);

	while (addr < walk->end && !ret) {
		const unsigned long from = addr;

		ret = range_migrate_window(walk, &addr);
		/* A gap at the end is no error if there was a mapping before. */
		if (ret == -EFAULT && from > walk->start)
			ret = 0;
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		/* Suspend and removal wait for us, and no more can be had. */
		if (!ret && walk->dir == HMM_DEVMEM_TO_DEVICE)
			ret = to_device_refused(walk->devmem);
		/* Others may want this CPU: that alone need not end a copy. */
		cond_resched();
		if (!ret && mmap_lock_is_contended(walk->mm))
			ret = range_pause(walk, false);
	}
	err = range_drain(walk);
	ret = ret ?: err;
	/* Then some may have gone again to make room for others. */
	if (walk->reclaimed)
		walk->done = count_resident(walk->devmem, walk->mm, walk->start,
					    walk->end);
	/* What has moved has moved: partial success is success. */
	return walk->done || !ret ? walk->done : ret;
}

static long range_migrate(struct range_walk *walk)
{
	struct hmm_devmem *devmem = walk->devmem;
	long ret;

	if (walk->start >= walk->end || !PAGE_ALIGNED(walk->start | walk->end))
		return -EINVAL;
	if (!hmm_devmem_tryget_live(devmem))
		return -ENODEV;
	ret = -ESRCH;
	if (mmget_not_zero(walk->mm)) {
		mmap_read_lock(walk->mm);
		ret = range_migrate_locked(walk);
		mmap_read_unlock(walk->mm);
		mmput(walk->mm);
	}
	hmm_devmem_put(devmem);
	return ret;
}

/**
 * hmm_devmem_migrate_to_device() - Move memory of a process to the device
 * @devmem: A managed devmem.
 * @mm: The process; the caller has at least mmgrab()bed it.
 * @start: User virtual address, page aligned, inclusive.
 * @end: The same, exclusive.
 * @ctx: Context for the device folios, each of which takes a reference; or NULL.
 *
 * Pages that were never touched get device pages of zeros. Pages that are
 * pinned, locked or shared with a file stay where they are, as do those on
 * another device, and all for which there is no device memory or the driver's
 * copy fails. Holes in the range, and mappings that cannot have anonymous pages
 * (VM_IO, VM_PFNMAP, shared, hugetlb, DAX) or whose pages KSM may merge
 * (VM_MERGEABLE), are passed over.
 *
 * Context: Process context, may sleep. Takes the mmap lock of @mm for reading,
 * which the caller must not hold.
 * Return:
 * * number of pages of the range that are on @devmem now, with those that were
 *   before
 * * %-EINVAL - @start is not below @end, or one is not page aligned
 * * %-EFAULT - there is no mapping in the range
 * * %-ESRCH - the process has exited
 * * %-EINTR - the caller is being killed, and nothing was moved
 * * %-ENODEV - @devmem is being removed, or dead
 * * %-EAGAIN - @devmem is suspended
 * * %-EOPNOTSUPP - @devmem is classic
 * * others - with %HMM_DEVMEM_RUNTIME_PM, when the device cannot be resumed
 *
 * When the result is an errno, nothing was changed.
 */
long hmm_devmem_migrate_to_device(struct hmm_devmem *devmem,
				  struct mm_struct *mm,
				  unsigned long start, unsigned long end,
				  struct hmm_devmem_context *ctx)
{
	struct range_walk walk = {
		.devmem = devmem,
		.mm = mm,
		.ctx = ctx,
		.dir = HMM_DEVMEM_TO_DEVICE,
		.start = start,
		.end = end,
	};
	bool powered = false;
	long ret;

	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	/* Not only for the copies: it may be suspended without power. */
	ret = hmm_devmem_power_on(devmem, &powered);
	if (ret)
		return ret;
	percpu_down_read(&devmem->intake);
	ret = to_device_refused(devmem);
	if (!ret)
		ret = range_migrate(&walk);
	percpu_up_read(&devmem->intake);
	if (powered)
		hmm_devmem_power_put(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_migrate_to_device);

/**
 * hmm_devmem_migrate_to_ram() - Move memory of a process back from the device
 * @devmem: A managed devmem. Only its pages are moved.
 * @mm: The process; the caller has at least mmgrab()bed it.
 * @start: User virtual address, page aligned, inclusive.
 * @end: The same, exclusive.
 *
 * Context: Process context, may sleep. Takes the mmap lock of @mm for reading,
 * which the caller must not hold.
 * Return:
 * * number of pages moved
 * * %-ENOMEM - no system memory, and nothing was moved
 * * all others as hmm_devmem_migrate_to_device(); %-EAGAIN does not occur
 */
long hmm_devmem_migrate_to_ram(struct hmm_devmem *devmem, struct mm_struct *mm,
			       unsigned long start, unsigned long end)
{
	struct range_walk walk = {
		.devmem = devmem,
		.mm = mm,
		.dir = HMM_DEVMEM_TO_RAM,
		.start = start,
		.end = end,
	};

	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	return range_migrate(&walk);
}
EXPORT_SYMBOL_GPL(hmm_devmem_migrate_to_ram);

/*
 * Where this CPU's last fault ended. A process that goes on there reads in
 * sequence and gets a larger window each time; all others get one page, because
 * bringing a page back that nobody touches costs as much as a fault. Nothing
 * but the size of a window depends on it: it need not be exact.
 */
struct fault_hint {
	const struct mm_struct *mm;
	unsigned long next;
	unsigned int nr;
};

static DEFINE_PER_CPU(struct fault_hint, fault_hint);

/* Windows grow by this factor up to a PMD: 1, 4, 16, 64, 256, 512 pages. */
#define HMM_DEVMEM_FAULT_GROWTH		4

static unsigned long fault_window_end(const struct vm_area_struct *vma,
				      unsigned long addr)
{
	/* Racy, see above. */
	struct fault_hint hint = data_race(*raw_cpu_ptr(&fault_hint));
	unsigned long nr = 1;

	if (hint.mm == vma->vm_mm && hint.next == addr)
		nr = min(hint.nr * HMM_DEVMEM_FAULT_GROWTH, HMM_DEVMEM_WINDOW_NR);
	return min3(addr + (nr << PAGE_SHIFT), vma->vm_end,
		    ALIGN_DOWN(addr, HMM_DEVMEM_WINDOW_SIZE) +
		    HMM_DEVMEM_WINDOW_SIZE);
}

static void fault_window_done(const struct vm_area_struct *vma,
			      unsigned long start, unsigned long end)
{
	struct fault_hint *hint = raw_cpu_ptr(&fault_hint);

	WRITE_ONCE(hint->mm, vma->vm_mm);
	WRITE_ONCE(hint->next, end);
	WRITE_ONCE(hint->nr, (end - start) >> PAGE_SHIFT);
}

/* The entry that decides about entry @i: large folios have one. */
static bool fault_has_dst(const struct hmm_devmem_txn *txn, unsigned int i)
{
	return txn->dst[txn->dst[0] & MIGRATE_PFN_COMPOUND ? 0 : i];
}

/*
 * Bring back what was collected, first of all the page at entry @first; @retry is
 * set if that was not.
 */
static vm_fault_t fault_copy(struct hmm_devmem_txn *txn, unsigned int first,
			     bool *retry)
{
	if (!hmm_devmem_txn_alloc_ram(txn, first, true))
		return txn->must_split ? 0 : VM_FAULT_OOM;
	/* Not collected, or it is the fault of another page of its folio. */
	if (!fault_has_dst(txn, first) && txn->src[0] & MIGRATE_PFN_COMPOUND &&
	    txn->src[0] & MIGRATE_PFN_MIGRATE)
		return VM_FAULT_SIGBUS;
	*retry = !fault_has_dst(txn, first);
	hmm_devmem_txn_copy_start(txn);
	hmm_devmem_txn_copy_wait(txn);
	/* Only the page that somebody waits for is owed. */
	if (*retry || fault_has_dst(txn, first))
		return 0;
	/* What cannot be mapped for DMA now can be later; core tries again. */
	return txn->unmapped ? VM_FAULT_OOM : VM_FAULT_SIGBUS;
}

/* Somebody else moves the page, or has a reference for a while. */
static void fault_pause(void)
{
	usleep_range(HMM_DEVMEM_FAULT_DELAY_US, 2 * HMM_DEVMEM_FAULT_DELAY_US);
}

static vm_fault_t fault_window(struct hmm_devmem_txn *txn, unsigned long addr,
			       unsigned long end, const struct page *page,
			       unsigned long flags)
{
	const unsigned int first = (addr - txn->start) >> PAGE_SHIFT;
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long moved;
	bool retry = false;
	vm_fault_t ret;
	int collected;

	/* Core has locked @page, and has to be told by which name. */
	collected = txn_collect(txn, end, devmem->owner,
				flags | MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
				(struct page *)page);
	if (collected < 0)
		return VM_FAULT_SIGBUS;
	if (!collected) {
		fault_pause();
		return 0;
	}

	txn->copy.dir = HMM_DEVMEM_TO_RAM;
	ret = fault_copy(txn, first, &retry);
	migrate_vma_pages(&txn->mig);
	moved = hmm_devmem_txn_committed(txn);
	migrate_vma_finalize(&txn->mig);
	hmm_devmem_txn_done(txn);

	hmm_devmem_count(devmem, HMM_DEVMEM_MOVED_TO_RAM, moved);
	hmm_devmem_count(devmem, HMM_DEVMEM_FAULT_PAGES, moved);
	trace_hmm_devmem_fault(devmem, addr, txn->start, end, moved, ret);
	/* Then the next fault, which is sure to come, is about a page. */
	if (txn->must_split && split_folio(page_folio((struct page *)page)))
		retry = true;
	if (retry)
		fault_pause();
	return ret;
}

static vm_fault_t fault_one(struct hmm_devmem *devmem,
			    struct vm_area_struct *vma, unsigned long addr,
			    const struct page *page)
{
	/* 300 bytes for every fault; what is not set below is set when used. */
	struct hmm_devmem_txn_one one __uninitialized;
	struct hmm_devmem_txn *txn;

	txn = hmm_devmem_txn_init_one(&one, devmem);
	txn->vma = vma;
	txn->start = addr;
	return fault_window(txn, addr, addr + PAGE_SIZE, page, 0);
}

/*
 * What is wrong with one page is not the fault of its neighbours. Core has the
 * only reference and the lock that it takes to split a folio.
 */
static bool can_fault_alone(struct hmm_devmem *devmem, const struct page *page,
			    bool whole)
{
	struct folio *folio = page_folio((struct page *)page);

	if (READ_ONCE(devmem->dead))
		return false;
	/* Core may have split it for us. */
	return !whole || !folio_test_large(folio) || !split_folio(folio);
}

static vm_fault_t fault_many(struct hmm_devmem *devmem,
			     struct vm_area_struct *vma, unsigned long addr,
			     const struct page *page, unsigned long start,
			     unsigned long end, unsigned long flags)
{
	struct hmm_devmem_txn *txn;
	vm_fault_t ret;

	txn = hmm_devmem_txn_get(devmem, (end - start) >> PAGE_SHIFT);
	txn->vma = vma;
	txn->start = start;
	ret = fault_window(txn, addr, end, page, flags);
	hmm_devmem_txn_put(txn);
	return ret;
}

/**
 * hmm_devmem_default_fault() - Bring a page back that the CPU has touched
 * @devmem: See &hmm_devmem_ops.fault for this and all other parameters.
 * @vma: "
 * @addr: "
 * @page: "
 * @flags: "
 * @pmdp: "
 *
 * What a managed driver without a fault callback gets. A folio that is mapped
 * as a whole comes back as a whole; else how many pages come back depends on
 * whether the process goes through its memory in sequence.
 *
 * Context: Process context, may sleep. Core holds the mmap lock for reading and
 * the lock of @page's folio.
 * Return: As &hmm_devmem_ops.fault.
 */
vm_fault_t hmm_devmem_default_fault(struct hmm_devmem *devmem,
				    struct vm_area_struct *vma,
				    unsigned long addr, const struct page *page,
				    unsigned int flags, pmd_t *pmdp)
{
	const bool whole = pmd_is_device_private_entry(pmdp_get_lockless(pmdp));
	unsigned long start, end, pfn = page_to_pfn(page);
	vm_fault_t ret;

	addr = PAGE_ALIGN_DOWN(addr);
	start = addr;
	if (whole) {
		start = ALIGN_DOWN(addr, HMM_DEVMEM_WINDOW_SIZE);
		end = start + HMM_DEVMEM_WINDOW_SIZE;
		pfn = ALIGN_DOWN(pfn, HMM_DEVMEM_BLOCK_NR) +
		      ((addr - start) >> PAGE_SHIFT);
	} else {
		end = fault_window_end(vma, addr);
	}
	/* Lost, and its mapping could not be replaced. */
	if (hmm_devmem_alloc_retired(devmem->alloc, pfn))
		return VM_FAULT_HWPOISON;

	if (end - start == PAGE_SIZE) {
		ret = fault_one(devmem, vma, addr, page);
	} else {
		ret = fault_many(devmem, vma, addr, page, start, end,
				 whole ? MIGRATE_VMA_SELECT_COMPOUND : 0);
		if (ret && can_fault_alone(devmem, page, whole)) {
			end = addr + PAGE_SIZE;
			ret = fault_one(devmem, vma, addr, page);
		}
	}
	fault_window_done(vma, addr, end);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_default_fault);
