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

static int txn_collect(struct hmm_devmem_txn *txn, struct migrate_vma *mig,
		       unsigned long end)
{
	int ret;

	mig->vma = txn->vma;
	mig->start = txn->start;
	mig->end = end;
	mig->src = txn->src;
	mig->dst = txn->dst;
	ret = migrate_vma_setup(mig);
	txn->nr = ret ? 0 : mig->npages;
	return ret;
}

/* Move one window; returns how many pages moved. */
static long window_to_device(struct hmm_devmem_txn *txn, unsigned long end)
{
	struct hmm_devmem *devmem = txn->devmem;
	struct migrate_vma mig = {
		.pgmap_owner = &devmem->to_device_cookie,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};
	unsigned long moved;
	int ret;

	/* Core does not bring large coherent folios back, nor pins them. */
	if (devmem->type == MEMORY_DEVICE_PRIVATE)
		mig.flags |= MIGRATE_VMA_SELECT_COMPOUND;
	ret = txn_collect(txn, &mig, end);
	if (ret || !mig.cpages)
		return ret;

	txn->copy.dir = HMM_DEVMEM_TO_DEVICE;
	hmm_devmem_txn_alloc_device(txn);
	hmm_devmem_txn_copy(txn);
	migrate_vma_pages(&mig);
	moved = hmm_devmem_txn_committed(txn);
	hmm_devmem_txn_map(txn);
	migrate_vma_finalize(&mig);
	hmm_devmem_count(devmem, HMM_DEVMEM_MOVED_TO_DEVICE, moved);
	trace_hmm_devmem_to_device(devmem, txn->start, end, moved);
	return moved;
}

static unsigned long select_device(const struct hmm_devmem *devmem)
{
	return devmem->type == MEMORY_DEVICE_PRIVATE ?
	       MIGRATE_VMA_SELECT_DEVICE_PRIVATE :
	       MIGRATE_VMA_SELECT_DEVICE_COHERENT;
}

/* The same in the other direction. */
static long window_to_ram(struct hmm_devmem_txn *txn, unsigned long end)
{
	struct hmm_devmem *devmem = txn->devmem;
	struct migrate_vma mig = {
		.pgmap_owner = devmem->owner,
		.flags = select_device(devmem) | MIGRATE_VMA_SELECT_COMPOUND,
	};
	unsigned long moved;
	int ret;

	ret = txn_collect(txn, &mig, end);
	if (ret || !mig.cpages)
		return ret;

	txn->copy.dir = HMM_DEVMEM_TO_RAM;
	ret = hmm_devmem_txn_alloc_ram(txn, 0, true) ? 0 : -ENOMEM;
	hmm_devmem_txn_copy(txn);
	migrate_vma_pages(&mig);
	moved = hmm_devmem_txn_committed(txn);
	migrate_vma_finalize(&mig);
	hmm_devmem_count(devmem, HMM_DEVMEM_MOVED_TO_RAM, moved);
	trace_hmm_devmem_to_ram(devmem, txn->start, end, moved);
	return moved ?: ret;
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

/**
 * struct range_walk - what hmm_devmem_migrate_to_device() was asked for
 * @devmem: "
 * @mm: "
 * @ctx: "
 * @dir: Or hmm_devmem_migrate_to_ram().
 * @start: "
 * @done: Number of pages to return.
 */
struct range_walk {
	struct hmm_devmem *devmem;
	struct mm_struct *mm;
	struct hmm_devmem_context *ctx;
	enum hmm_devmem_dir dir;
	unsigned long start;
	unsigned long done;
};

/* -EAGAIN: more would have moved if there had been more device memory. */
static int window_migrate(struct range_walk *walk, struct vm_area_struct *vma,
			  unsigned long start, unsigned long end, bool may_grow)
{
	const unsigned long nr = (end - start) >> PAGE_SHIFT;
	struct hmm_devmem *devmem = walk->devmem;
	struct hmm_devmem_txn *txn;
	bool again;
	long moved;

	if (!vma_is_suitable(vma))
		return 0;
	txn = hmm_devmem_txn_get(devmem, nr);
	txn->vma = vma;
	txn->start = start;
	txn->copy.context = walk->ctx;
	moved = walk->dir == HMM_DEVMEM_TO_DEVICE ? window_to_device(txn, end) :
						    window_to_ram(txn, end);
	again = may_grow && txn->short_of_memory && hmm_devmem_can_grow(devmem);
	hmm_devmem_txn_put(txn);
	if (moved < 0 || again)
		return moved < 0 ? moved : -EAGAIN;
	/* Those that were there before count as well. */
	if (walk->dir == HMM_DEVMEM_TO_DEVICE && moved < nr)
		moved = count_resident(devmem, walk->mm, start, end);
	walk->done += moved;
	return 0;
}

/* Give others their turn, and get more device memory, without the mmap lock. */
static int range_pause(struct range_walk *walk, bool grow)
{
	int ret = 0;

	mmap_read_unlock(walk->mm);
	cond_resched();
	if (grow)
		ret = hmm_devmem_segments_grow(walk->devmem);
	mmap_read_lock(walk->mm);
	return ret;
}

static int range_migrate_window(struct range_walk *walk, unsigned long *addr,
				unsigned long end, bool *full)
{
	struct hmm_devmem *devmem = walk->devmem;
	struct vm_area_struct *vma;
	unsigned long start, next;
	int ret;

	/* Small pieces would do as well, but large ones are worth some memory. */
	if (walk->dir == HMM_DEVMEM_TO_DEVICE && !*full &&
	    hmm_devmem_can_grow(devmem) &&
	    !hmm_devmem_alloc_has_block(devmem->alloc))
		*full = range_pause(walk, true);

	vma = find_vma_intersection(walk->mm, *addr, end);
	if (!vma) {
		*addr = end;
		return -EFAULT;
	}
	start = max(*addr, vma->vm_start);
	next = min3(end, vma->vm_end,
		    ALIGN_DOWN(start, HMM_DEVMEM_WINDOW_SIZE) +
		    HMM_DEVMEM_WINDOW_SIZE);
	ret = window_migrate(walk, vma, start, next, !*full);
	if (ret == -EAGAIN) {
		/* Others were faster: go for it again. */
		*full = range_pause(walk, true);
		return 0;
	}
	*addr = next;
	return ret;
}

static long range_migrate_locked(struct range_walk *walk, unsigned long start,
				 unsigned long end)
{
	bool full = false;
	int ret = 0;

	mmap_assert_locked(walk->mm);

	while (start < end && !ret) {
		const unsigned long addr = start;

		ret = range_migrate_window(walk, &start, end, &full);
		/* A gap at the end is no error if there was a mapping before. */
		if (ret == -EFAULT && addr > walk->start)
			ret = 0;
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		if (!ret && (mmap_lock_is_contended(walk->mm) || need_resched()))
			range_pause(walk, false);
	}
	/* What has moved has moved: partial success is success. */
	return walk->done || !ret ? walk->done : ret;
}

static long range_migrate(struct range_walk *walk, unsigned long start,
			  unsigned long end)
{
	struct hmm_devmem *devmem = walk->devmem;
	long ret;

	if (start >= end || !PAGE_ALIGNED(start | end))
		return -EINVAL;
	if (!hmm_devmem_tryget_live(devmem))
		return -ENODEV;
	ret = -ESRCH;
	if (mmget_not_zero(walk->mm)) {
		walk->start = start;
		mmap_read_lock(walk->mm);
		ret = range_migrate_locked(walk, start, end);
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
 * (VM_IO, VM_PFNMAP, shared, hugetlb, DAX), are passed over.
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
 * * %-ENODEV - @devmem is being removed
 * * %-EOPNOTSUPP - @devmem is classic
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
	};
	long ret = -ENODEV;

	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	percpu_down_read(&devmem->intake);
	if (!hmm_devmem_alloc_killed(devmem->alloc))
		ret = range_migrate(&walk, start, end);
	percpu_up_read(&devmem->intake);
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
 * * all others as hmm_devmem_migrate_to_device()
 */
long hmm_devmem_migrate_to_ram(struct hmm_devmem *devmem, struct mm_struct *mm,
			       unsigned long start, unsigned long end)
{
	struct range_walk walk = {
		.devmem = devmem,
		.mm = mm,
		.dir = HMM_DEVMEM_TO_RAM,
	};

	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	return range_migrate(&walk, start, end);
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

/* The page at entry @first has been collected: bring it back, and the others. */
static vm_fault_t fault_copy(struct hmm_devmem_txn *txn, unsigned int first)
{
	if (!hmm_devmem_txn_alloc_ram(txn, first, true))
		return VM_FAULT_OOM;
	hmm_devmem_txn_copy(txn);
	/* Only the page that somebody waits for is owed. */
	return txn->dst[txn->dst[0] & MIGRATE_PFN_COMPOUND ? 0 : first] ?
	       0 : VM_FAULT_SIGBUS;
}

static vm_fault_t fault_window(struct hmm_devmem_txn *txn, unsigned long addr,
			       unsigned long end, const struct page *page,
			       unsigned long flags)
{
	const unsigned int first = (addr - txn->start) >> PAGE_SHIFT;
	struct hmm_devmem *devmem = txn->devmem;
	struct migrate_vma mig = {
		.pgmap_owner = devmem->owner,
		.flags = flags | MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		/* Core has locked it, and has to be told by which name. */
		.fault_page = (struct page *)page,
	};
	vm_fault_t ret = 0;
	unsigned long moved;
	bool retry;

	if (txn_collect(txn, &mig, end))
		return VM_FAULT_SIGBUS;
	if (!mig.cpages) {
		/* Somebody else moves it, or has a reference for a while. */
		usleep_range(HMM_DEVMEM_FAULT_DELAY_US,
			     2 * HMM_DEVMEM_FAULT_DELAY_US);
		return 0;
	}

	txn->copy.dir = HMM_DEVMEM_TO_RAM;
	retry = !hmm_devmem_txn_can_go_to_ram(txn, first);
	if (!retry)
		ret = fault_copy(txn, first);
	migrate_vma_pages(&mig);
	moved = hmm_devmem_txn_committed(txn);
	migrate_vma_finalize(&mig);

	hmm_devmem_count(devmem, HMM_DEVMEM_MOVED_TO_RAM, moved);
	hmm_devmem_count(devmem, HMM_DEVMEM_FAULT_PAGES, moved);
	trace_hmm_devmem_fault(devmem, addr, txn->start, end, moved, ret);
	if (retry)
		usleep_range(HMM_DEVMEM_FAULT_DELAY_US,
			     2 * HMM_DEVMEM_FAULT_DELAY_US);
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
	unsigned long start, end, nr, select = 0;
	struct hmm_devmem_txn_one one;
	struct hmm_devmem_txn *txn;
	vm_fault_t ret;

	addr = PAGE_ALIGN_DOWN(addr);
	if (whole) {
		start = ALIGN_DOWN(addr, HMM_DEVMEM_WINDOW_SIZE);
		end = start + HMM_DEVMEM_WINDOW_SIZE;
		select = MIGRATE_VMA_SELECT_COMPOUND;
	} else {
		start = addr;
		end = fault_window_end(vma, addr);
	}

	nr = (end - start) >> PAGE_SHIFT;
	txn = nr > 1 ? hmm_devmem_txn_get(devmem, nr) :
		       hmm_devmem_txn_init_one(&one, devmem);
	txn->vma = vma;
	txn->start = start;
	ret = fault_window(txn, addr, end, page, select);
	if (nr > 1)
		hmm_devmem_txn_put(txn);
	fault_window_done(vma, start, end);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_default_fault);
