// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of a range of virtual addresses, to the device or back.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/export.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/percpu-rwsem.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/vmalloc.h>

#include <trace/events/hmm_devmem.h>

#include "allocate.h"
#include "borrow.h"
#include "collect.h"
#include "devmem.h"
#include "evict.h"
#include "left.h"
#include "mirror.h"
#include "pool.h"
#include "power.h"
#include "reclaim.h"
#include "resident.h"
#include "segment.h"
#include "txn.h"
#include "use.h"

/*
 * Collect the pages of a window, and start to copy them to the device. With @split, core
 * splits large folios before it unmaps them. Returns 1 if anything was collected, 0 if
 * nothing was, or an errno.
 */
static int window_start_to_device(struct hmm_devmem_txn *txn, unsigned long end,
				  bool split)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long flags = MIGRATE_VMA_SELECT_SYSTEM;
	int ret;

	/* Core supports neither migration back nor pins of large coherent folios. */
	if (devmem->type == MEMORY_DEVICE_PRIVATE && !split)
		flags |= MIGRATE_VMA_SELECT_COMPOUND;
	ret = hmm_devmem_txn_collect_vma(txn, end, &devmem->to_device, flags, NULL);
	if (ret <= 0)
		return ret;
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

/* The same in the other direction. */
static int window_start_to_ram(struct hmm_devmem_txn *txn, unsigned long end,
			       bool split)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long flags = select_device(devmem);
	int ret;

	if (!split)
		flags |= MIGRATE_VMA_SELECT_COMPOUND;
	ret = hmm_devmem_txn_collect_vma(txn, end, devmem->owner, flags, NULL);
	if (ret <= 0)
		return ret;
	txn->no_memory = !hmm_devmem_txn_alloc_ram(txn, 0) && !txn->must_split;
	hmm_devmem_txn_copy_start(txn);
	return 1;
}

static int window_start(struct hmm_devmem_txn *txn, unsigned long end, bool split)
{
	return txn->to ? window_start_to_device(txn, end, split) :
			 window_start_to_ram(txn, end, split);
}

/*
 * Finish a window that was started; returns how many pages have moved. Sets their bits in
 * @own, if there is one: see &struct range_walk.
 */
static unsigned long window_finish(struct hmm_devmem_txn *txn, unsigned long *own)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long moved;

	hmm_devmem_txn_copy_wait(txn);
	moved = hmm_devmem_txn_commit(txn);
	if (txn->window)
		txn->window->migration->moved += moved;
	if (own)
		hmm_devmem_txn_note_pages(txn, own);
	if (txn->to) {
		hmm_devmem_use_brought(txn);
		trace_hmm_devmem_to_device(devmem, txn->start, txn->mig.end, moved);
	} else {
		trace_hmm_devmem_to_ram(devmem, txn->start, txn->mig.end, moved);
	}
	return moved;
}

/*
 * Pages of mappings with these flags do not move to the device. VM_MERGEABLE: KSM maps a
 * page that it merges before rmap finds the mapping, so core would collect the page from
 * the page table, and not find it again to end its migration. VM_MTE: drivers copy no
 * memory tags. VM_UFFD_RWP: userfaultfd is to be told of each access, and would not be told
 * of the device's. VM_SHADOW_STACK: only the CPU's calls and returns use it. A mapping can
 * get these flags when it has pages on the device already; those can come back.
 */
static bool must_stay_in_ram(const struct vm_area_struct *vma)
{
	return vma->vm_flags & HMM_DEVMEM_VM_STAYS;
}

/**
 * struct range_walk - the migration of a range
 * @from: The device memory that pages move from; NULL for system memory.
 * @to: The device memory that they move to; NULL for system memory. One of the two is NULL.
 * @devmem: The one of @from and @to that is not NULL.
 * @mm: The process.
 * @ctx: The context that device folios get.
 * @priv: &hmm_devmem_copy.priv of its copies.
 * @mirror: The mirror's part of the migration; NULL if it does not go through a mirror.
 * @start: User virtual address, inclusive.
 * @end: User virtual address, exclusive.
 * @in_flight: A window whose copy was started and not yet waited for.
 * @done: Number of pages to return.
 * @tries: How often the present window was tried again for lack of device memory.
 * @split: The present window is collected as single pages.
 * @full: An errno if there was no way to get more device memory, else 0.
 * @stunted: No memory for more struct pages, or no more blocks on loan: do not try again.
 * @seq: hmm_devmem_segments_seq() from before the present window looked for device memory.
 * @missing: For how many pages more device memory is needed.
 * @data: What the policy of eviction calls the data of the present window.
 * @own: Allocated when other pages have to be evicted for the first time: a bit for each
 *	page of the device, set if the page belongs to the range, or did so earlier in this
 *	migration. Such pages are not evicted.
 * @mlocked: Mlocked pages have stayed in system memory.
 * @keep_holes: Core has not filled in a page, for want of memory or because of the limit of
 *	the cgroup. To try other holes would be in vain, and reclaim memory each time.
 * @small_holes: Holes get no large folio: core has refused one, maybe without reclaim.
 * @again: Core has filled in no page of a large hole, as if the process has got one of them
 *	meanwhile. So the range is to be tried once more, with base pages for holes.
 * @recount: @done may be wrong: pages have been evicted, or moved in an unfinished window.
 * @moved: How many pages moved in the present window before it was tried again. Added
 *	to @done if the mmap lock could not be taken again for a recount.
 * @left: Why pages of the windows that were tried to the end are not on the device.
 * @no_bitmap: There was no memory for @own.
 * @locked: The mmap lock is held.
 * @entered: hmm_devmem_priv.ref is held, and in a migration to the device the intake as well.
 */
struct range_walk {
	struct hmm_devmem *from;
	struct hmm_devmem *to;
	struct hmm_devmem *devmem;
	struct mm_struct *mm;
	struct hmm_devmem_context *ctx;
	void *priv;
	struct hmm_devmem_mirror_migration *mirror;
	unsigned long start;
	unsigned long end;
	struct hmm_devmem_txn *in_flight;
	unsigned long done;
	unsigned int tries;
	bool split;
	int full;
	bool stunted;
	unsigned int seq;
	unsigned long missing;
	struct hmm_devmem_hold_data data;
	unsigned long *own;
	bool mlocked;
	bool keep_holes;
	bool small_holes;
	bool again;
	bool recount;
	unsigned long moved;
	struct hmm_devmem_left left;
	bool no_bitmap;
	bool locked;
	bool entered;
};

/* How often to try a window again: others can take the pages that were evicted for it. */
#define HMM_DEVMEM_WINDOW_TRIES		8

/* How often, and after which delay, a migration tries again to evict pages that are busy. */
#define HMM_DEVMEM_RECLAIM_TRIES	50
#define HMM_DEVMEM_RECLAIM_DELAY_US	1000

/* How many pages of a part of the range are on the device, whichever migration moved them. */
static unsigned long count_resident(const struct range_walk *walk,
				    unsigned long start, unsigned long end)
{
	return hmm_devmem_count_resident(walk->devmem, walk->mm, start, end,
					 walk->to, walk->own);
}

/* Is there no device memory only because the kernel has no memory to manage it? */
static bool kernel_is_short(const struct range_walk *walk)
{
	return walk->no_bitmap || (walk->stunted && !priv(walk->devmem)->backing &&
				   hmm_devmem_can_grow(walk->devmem));
}

/*
 * Look which pages of a window are on the device, and count why the others are not. The
 * caller has set what it knows in @known, of a window that is not tried again.
 */
static noinline unsigned long count_window(struct range_walk *walk,
					   struct vm_area_struct *vma,
					   unsigned long start, unsigned long end,
					   struct hmm_devmem_left_window *known)
{
	struct hmm_devmem_found found;
	unsigned long present;

	hmm_devmem_find_pages(walk->devmem, walk->mm, start, end, true, walk->own, &found);
	present = found.here + found.movable + found.fixed;
	known->nr = (end - start) >> PAGE_SHIFT;
	known->here = found.here;
	known->movable = found.movable;
	known->fixed = must_stay_in_ram(vma) ? known->nr : found.fixed;
	walk->mlocked |= found.mlocked && !must_stay_in_ram(vma);
	known->fills = vma_is_anonymous(vma) && hmm_devmem_may_fill_holes(vma);
	known->no_memory = known->nr_short && kernel_is_short(walk);
	if (walk->keep_holes)
		known->nr_unfilled = known->nr;
	hmm_devmem_left_add(&walk->left, known);
	/* If the process has a page meanwhile, that is why core did not fill it in. */
	walk->again |= known->nr_unfilled && known->large;
	walk->small_holes |= known->nr_unfilled && known->large && !present;
	walk->keep_holes |= known->nr_unfilled && !known->large && present < known->nr;
	return found.here;
}

/* Count a window of which no page was collected; if @is_full, for lack of device memory. */
static void skip_window(struct range_walk *walk, struct vm_area_struct *vma,
			unsigned long start, unsigned long end, bool is_full)
{
	struct hmm_devmem_left_window known = {
		.nr_short = is_full ? (end - start) >> PAGE_SHIFT : 0,
	};

	if (walk->to)
		walk->done += count_window(walk, vma, start, end, &known);
}

/* The number of pages to return for a window of which @moved have just moved. */
static unsigned long window_pages(struct range_walk *walk,
				  const struct hmm_devmem_txn *txn, unsigned long moved)
{
	struct hmm_devmem_left_window known;

	/* Pages that were on the device before count as well. */
	if (!walk->to || moved == (txn->mig.end - txn->start) >> PAGE_SHIFT)
		return moved;
	known = (struct hmm_devmem_left_window) {
		.nr_short = txn->nr_short,
		.nr_not_copied = txn->nr_not_copied,
		.nr_unfilled = hmm_devmem_txn_nr_unfilled(txn),
		.large = txn_dst_is_large(txn),
	};
	return count_window(walk, txn->vma, txn->start, txn->mig.end, &known);
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
	moved = window_finish(txn, walk->own);
	walk->done += window_pages(walk, txn, moved);
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
		txn = hmm_devmem_txn_tryget(walk->from, walk->to, nr);
	if (txn)
		return txn;
	/* Never wait for a transaction while holding one: the reserve could deadlock. */
	*ret = range_drain(walk);
	return hmm_devmem_txn_get(walk->from, walk->to, nr);
}

/*
 * Have the mirror note invalidations of the window from now on. If the mirror has to wait
 * for invalidations to end, first finish the window that is in flight: they can wait for
 * its folios, which are locked.
 */
static int range_open_window(struct range_walk *walk, struct hmm_devmem_txn *txn,
			     unsigned long end)
{
	int ret;

	if (!walk->mirror)
		return 0;
	txn->window = hmm_devmem_mirror_open(walk->mirror, txn->start, end,
					     walk->in_flight ?
					     walk->in_flight->window : NULL,
					     false);
	if (txn->window)
		return 0;
	ret = range_drain(walk);
	txn->window = hmm_devmem_mirror_open(walk->mirror, txn->start, end, NULL,
					     true);
	return ret;
}

/* Can more struct pages, blocks that the driver lends, or eviction give device memory? */
static bool can_get_more(const struct range_walk *walk)
{
	return walk->to && !walk->full &&
	       (hmm_devmem_can_get_more(walk->devmem, walk->seq) ||
		priv(walk->devmem)->flags & HMM_DEVMEM_RECLAIM);
}

/* Shall a whole block get struct pages, or be lent, before the window is collected? */
static bool wants_to_grow(const struct range_walk *walk)
{
	return walk->to && !walk->full &&
	       !walk->stunted && !walk->tries &&
	       hmm_devmem_moves_blocks() && hmm_devmem_can_get_more(walk->devmem, walk->seq) &&
	       !hmm_devmem_pool_has_block(priv(walk->devmem)->pool);
}

/* Is there no free device page, and no way to get one? */
static bool device_is_full(const struct range_walk *walk)
{
	return walk->to && !hmm_devmem_pool_has_page(priv(walk->devmem)->pool) &&
	       !can_get_more(walk);
}

/*
 * Can no page of a window move? Then do not collect it: core would split a large folio that
 * lies only partly in the window, for nothing. To the device no page can move if the device
 * is full, or the mapping's pages stay. Back from it none can if none is on this device; a
 * large folio there can be a peer's.
 */
static bool window_stays(const struct range_walk *walk,
			 const struct vm_area_struct *vma, unsigned long start,
			 unsigned long end)
{
	if (walk->to)
		return must_stay_in_ram(vma) || device_is_full(walk);
	return end - start < HMM_DEVMEM_BLOCK_SIZE &&
	       !count_resident(walk, start, end);
}

/* What window_migrate() returns if not an errno. */
enum window_result {
	WINDOW_DONE = 0,	/* all that can move has moved, or its copy was started */
	WINDOW_TRY_SPLIT,	/* more can move if it is collected in single pages */
	WINDOW_TRY_MEMORY,	/* more can move if there is more device memory */
};

/* Return: An enum window_result, or an errno. */
static int window_migrate(struct range_walk *walk, struct vm_area_struct *vma,
			  unsigned long start, unsigned long end)
{
	struct hmm_devmem *devmem = walk->devmem;
	struct hmm_devmem_txn *txn;
	unsigned long moved;
	int ret, started;
	bool wants_memory, wants_split;

	if (!hmm_devmem_vma_is_suitable(vma)) {
		walk->left.not_suitable += (end - start) >> PAGE_SHIFT;
		return WINDOW_DONE;
	}
	if (window_stays(walk, vma, start, end)) {
		skip_window(walk, vma, start, end, device_is_full(walk));
		return WINDOW_DONE;
	}
	txn = range_get_txn(walk, (end - start) >> PAGE_SHIFT, &ret);
	txn->vma = vma;
	txn->start = start;
	txn->copy.context = walk->ctx;
	txn->copy.priv = walk->priv;
	txn->keep_holes = walk->keep_holes;
	txn->small_holes = walk->small_holes;
	ret = ret ?: range_open_window(walk, txn, end);
	if (ret) {
		hmm_devmem_txn_put(txn);
		return ret;
	}
	started = window_start(txn, end, walk->split);
	/* Two windows are in flight; the device copies the second while the first is finished. */
	ret = range_drain(walk);
	if (started <= 0) {
		hmm_devmem_txn_put(txn);
		if (!started)
			skip_window(walk, vma, start, end, false);
		return started ?: ret;
	}

	wants_memory = txn->nr_short && can_get_more(walk) &&
		       walk->tries < HMM_DEVMEM_WINDOW_TRIES;
	wants_split = txn->must_split && !walk->split;
	if (wants_memory || txn->must_split) {
		walk->split |= txn->must_split;
		walk->data = hmm_devmem_use_data(vma, start);
		/* These pages are counted when the window is tried again. */
		moved = window_finish(txn, walk->own);
		walk->moved += moved;
		walk->recount |= moved;
		hmm_devmem_txn_put(txn);
		return ret ?: wants_split ? WINDOW_TRY_SPLIT : WINDOW_TRY_MEMORY;
	}
	walk->in_flight = txn;
	if (!devmem->ops->copy_wait)
		return range_drain(walk) ?: ret;
	return ret;
}

/* Note which pages of the range are on the device, so that they are not evicted. */
static void range_note_own(struct range_walk *walk)
{
	struct hmm_devmem *devmem = walk->devmem;

	if (walk->own || !(priv(devmem)->flags & HMM_DEVMEM_RECLAIM))
		return;
	/* The bitmap can be large: do not start the OOM killer for it. */
	walk->own = __vmalloc(BITS_TO_LONGS(devmem->pfn_last - devmem->pfn_first) *
			      sizeof(*walk->own), GFP_KERNEL | __GFP_ZERO |
			      __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	walk->no_bitmap = !walk->own;
	if (walk->own)
		count_resident(walk, walk->start, walk->end);
}

/*
 * Evict pages that are not of the range. Pages that another task is migrating can be
 * evicted, or are free, a moment later; to try again at once would only take CPU
 * time from that task.
 */
static int range_reclaim(struct range_walk *walk)
{
	struct hmm_devmem_pool *pool = priv(walk->devmem)->pool;
	unsigned int tries = HMM_DEVMEM_RECLAIM_TRIES;
	int ret;

	if (!walk->own)
		return -ENOMEM;
	walk->recount = true;
	for (;;) {
		ret = hmm_devmem_reclaim(walk->devmem, &walk->data, walk->own, !tries);
		if (!ret || hmm_devmem_pool_has_page(pool))
			return 0;
		if (ret != -EBUSY || !tries--)
			return ret;
		usleep_range_state(HMM_DEVMEM_RECLAIM_DELAY_US,
				   2 * HMM_DEVMEM_RECLAIM_DELAY_US,
				   TASK_KILLABLE);
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = hmm_devmem_pool_refused(pool);
		if (ret)
			return ret;
	}
}

/* Why a walk pauses: what it does while it holds no locks. */
enum range_pause {
	PAUSE_FOR_OTHERS,	/* nothing */
	PAUSE_TO_GROW,		/* get more struct pages */
	PAUSE_FOR_MEMORY,	/* get more device memory, if need be by eviction */
	PAUSE_TO_DRAIN,		/* make all CPUs empty core's batches for mlock */
};

/*
 * Get more device memory. When there was once no memory for struct pages, or no block
 * that the driver could lend without an eviction, do not ask for these again. Evict other
 * pages only if there is no free page, not to get a whole block. Last, have the driver
 * evict buffers, but only as long as the library has less than the reserve.
 */
static int __get_more(struct range_walk *walk, enum range_pause why)
{
	struct hmm_devmem *devmem = walk->devmem;
	int ret;

	ret = hmm_devmem_pool_refused(priv(devmem)->pool);
	if (ret)
		return ret;
	if (!walk->stunted && hmm_devmem_can_get_more(devmem, walk->seq) &&
	    !hmm_devmem_get_more(devmem, walk->seq, walk->missing))
		return 0;
	walk->stunted = true;
	if (why == PAUSE_TO_GROW)
		return 0;
	ret = priv(devmem)->flags & HMM_DEVMEM_RECLAIM ? range_reclaim(walk) : -ENOMEM;
	return ret == -ENOMEM ? hmm_devmem_get_reserve(devmem, walk->missing) : ret;
}

/* Get more device memory while the walk pauses, and so holds no reference of its own. */
static int get_more(struct range_walk *walk, enum range_pause why)
{
	int ret;

	if (!hmm_devmem_ref_tryget_live(walk->devmem))
		return -ENODEV;
	ret = __get_more(walk, why);
	hmm_devmem_ref_put(walk->devmem);
	return ret;
}

/* Must the walk end, because of a removal, a suspend, or a dead device? */
static int range_refused(const struct range_walk *walk)
{
	struct hmm_devmem *devmem = walk->devmem;

	/* When removal waits for hmm_devmem_priv.ref, its eviction is over. */
	if (READ_ONCE(priv(devmem)->dead) || percpu_ref_is_dying(&priv(devmem)->ref))
		return -ENODEV;
	return walk->to ?
	       hmm_devmem_pool_refused(priv(devmem)->pool) : 0;
}

/* Make removal wait for this walk and, if it is one to the device, suspend. */
static int range_enter(struct range_walk *walk)
{
	struct hmm_devmem *devmem = walk->devmem;
	int ret;

	if (!hmm_devmem_ref_tryget_live(devmem))
		return -ENODEV;
	if (walk->to)
		percpu_down_read(&priv(devmem)->intake);
	ret = range_refused(walk);
	if (!ret)
		return 0;
	if (walk->to)
		percpu_up_read(&priv(devmem)->intake);
	hmm_devmem_ref_put(devmem);
	return ret;
}

/*
 * A process can hold its mmap lock for as long as it likes. So take it first, before
 * anything that removal or suspend wait for, and let the caller be killed meanwhile.
 */
static int range_lock(struct range_walk *walk)
{
	int ret;

	if (mmap_read_lock_killable(walk->mm))
		return -EINTR;
	walk->locked = true;
	ret = range_enter(walk);
	walk->entered = !ret;
	return ret;
}

static void range_unlock(struct range_walk *walk)
{
	if (walk->entered && walk->to)
		percpu_up_read(&priv(walk->devmem)->intake);
	if (walk->entered)
		hmm_devmem_ref_put(walk->devmem);
	if (walk->locked)
		mmap_read_unlock(walk->mm);
	walk->entered = false;
	walk->locked = false;
}

/* Release all locks for other tasks, or to do what must be done without them. */
static int range_pause(struct range_walk *walk, enum range_pause why)
{
	int err, ret = range_drain(walk);

	if (why == PAUSE_FOR_MEMORY)
		range_note_own(walk);
	range_unlock(walk);
	cond_resched();
	if (why == PAUSE_TO_DRAIN)
		hmm_devmem_drain_batches();
	else if (why != PAUSE_FOR_OTHERS)
		walk->full = get_more(walk, why);
	err = range_lock(walk);
	return ret ?: err;
}

static int range_migrate_window(struct range_walk *walk, unsigned long *addr)
{
	const unsigned long size = hmm_devmem_window_nr() << PAGE_SHIFT;
	struct vm_area_struct *vma;
	unsigned long start, next;
	int ret;

	walk->missing = (walk->end - *addr) >> PAGE_SHIFT;
	walk->seq = hmm_devmem_segments_seq(walk->devmem);
	if (wants_to_grow(walk)) {
		ret = range_pause(walk, PAUSE_TO_GROW);
		if (ret)
			return ret;
		walk->seq = hmm_devmem_segments_seq(walk->devmem);
	}

	vma = find_vma_intersection(walk->mm, *addr, walk->end);
	if (!vma) {
		walk->left.not_suitable += walk->missing;
		*addr = walk->end;
		return -EFAULT;
	}
	start = max(*addr, vma->vm_start);
	next = min3(walk->end, vma->vm_end, ALIGN_DOWN(start, size) + size);
	ret = window_migrate(walk, vma, start, next);
	if (ret == WINDOW_TRY_SPLIT)
		return 0;
	if (ret == WINDOW_TRY_MEMORY) {
		walk->tries++;
		return range_pause(walk, PAUSE_FOR_MEMORY);
	}
	walk->left.not_suitable += (start - *addr) >> PAGE_SHIFT;
	walk->tries = 0;
	walk->moved = 0;
	walk->split = false;
	*addr = next;
	return ret;
}

static int range_migrate_windows(struct range_walk *walk)
{
	unsigned long addr = walk->start;
	int ret = 0, err;

	while (addr < walk->end && !ret) {
		const unsigned long from = addr;

		ret = range_migrate_window(walk, &addr);
		if (!walk->entered)
			break;
		/* A gap at the end is no error if there was a mapping before. */
		if (ret == -EFAULT && from > walk->start)
			ret = 0;
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		/* Suspend and removal wait for this walk, and refuse more pages. */
		if (!ret)
			ret = range_refused(walk);
		/* This gives up the CPU but no lock, so a copy can stay in flight. */
		cond_resched();
		if (!ret && mmap_lock_is_contended(walk->mm))
			ret = range_pause(walk, PAUSE_FOR_OTHERS);
	}
	err = range_drain(walk);
	return ret ?: err;
}

/*
 * Mlocked pages have stayed although there is device memory for them. Core's batches for
 * mlock can have references to them on any CPU, and keep these until they are full, which
 * may be never. So empty all batches, and try the range once more. A page that stays again
 * has a reference of another kind. Also try once more if a large hole was not filled.
 */
static int range_migrate_again(struct range_walk *walk)
{
	const unsigned long done = walk->done;
	int ret;

	if ((!walk->mlocked && (!walk->again || walk->keep_holes)) ||
	    !hmm_devmem_pool_has_page(priv(walk->devmem)->pool))
		return 0;
	ret = range_pause(walk, walk->mlocked ? PAUSE_TO_DRAIN : PAUSE_FOR_OTHERS);
	if (ret)
		return ret;
	walk->small_holes = true;
	walk->recount = true;
	walk->left = (struct hmm_devmem_left) { };
	walk->done = 0;
	ret = range_migrate_windows(walk);
	walk->done = max(walk->done, done);
	return ret;
}

static long range_migrate_locked(struct range_walk *walk)
{
	int ret;

	mmap_assert_locked(walk->mm);

	ret = range_migrate_windows(walk) ?: range_migrate_again(walk);
	if (walk->recount && walk->locked)
		walk->done = count_resident(walk, walk->start, walk->end);
	else
		walk->done += walk->moved;
	/* Partial success is success: an errno would mean that no page has moved. */
	return walk->done || !ret ? walk->done : ret;
}

static long range_migrate(struct range_walk *walk)
{
	long ret;

	if (walk->start >= walk->end || !PAGE_ALIGNED(walk->start | walk->end))
		return -EINVAL;
	if (!mmget_not_zero(walk->mm))
		return -ESRCH;
	ret = range_lock(walk);
	if (!ret)
		ret = range_migrate_locked(walk);
	range_unlock(walk);
	mmput(walk->mm);
	return ret;
}

/**
 * hmm_devmem_migrate_through() - hmm_devmem_migrate(), through a mirror
 * @devmem: A managed devmem.
 * @req: The request.
 * @mirror: The mirror's part of the migration; or NULL.
 *
 * Context: As hmm_devmem_migrate().
 * Return: As hmm_devmem_migrate().
 */
long hmm_devmem_migrate_through(struct hmm_devmem *devmem,
				struct hmm_devmem_request *req,
				struct hmm_devmem_mirror_migration *mirror)
{
	struct range_walk walk = {
		.to = devmem,
		.devmem = devmem,
		.mm = req->mm,
		.ctx = req->ctx,
		.priv = req->priv,
		.mirror = mirror,
		.start = req->start,
		.end = req->end,
	};
	long ret;

	req->left = (struct hmm_devmem_left) { };
	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	/* @devmem may be removed, and its driver detached, while the caller waits. */
	hmm_devmem_get(devmem);
	/*
	 * Before any lock, and before the walk looks whether @devmem is suspended: a driver
	 * with runtime PM may call hmm_devmem_resume() when its device is resumed.
	 */
	ret = hmm_devmem_power_get(devmem);
	if (!ret) {
		ret = range_migrate(&walk);
		vfree(walk.own);
		hmm_devmem_power_put(devmem);
	}
	hmm_devmem_put(devmem);
	if (ret < 0)
		return ret;
	req->left = walk.left;
	hmm_devmem_left_settle(&req->left, ((walk.end - walk.start) >> PAGE_SHIFT) - ret);
	return ret;
}

/**
 * hmm_devmem_migrate() - Move memory of a process to the device, and report what is left
 * @devmem: A managed devmem.
 * @req: What to move. &hmm_devmem_request.left is filled in.
 *
 * Pages that were never touched get device pages of zeros, but not in a mapping
 * that the process cannot access (PROT_NONE), nor in one that userfaultfd watches:
 * of those, only pages that exist already move. Pages that are pinned, locked
 * or part of a file stay where they are, as do those on another device, and all
 * for which there is no device memory or the driver's copy fails. Passed over are gaps
 * between mappings, mappings that cannot have anonymous pages (VM_IO, VM_PFNMAP, shared,
 * hugetlb, DAX), those whose pages KSM may merge (VM_MERGEABLE), those with memory tags
 * (VM_MTE), those for which userfaultfd is told of reads as well (VM_UFFD_RWP), and
 * shadow stacks.
 *
 * Pages of zeros are charged to the memory cgroup of the process. When the cgroup is at its
 * limit, and reclaim does not help, the rest of the range gets none: &hmm_devmem_left.no_memory
 * counts it. The OOM killer is not started for such a page; core can start it for a page table,
 * as for any.
 *
 * Mlocked memory moves, too, and pages that were counted as mlocked still are: mlock()
 * keeps the kernel from taking pages away by itself, and this is a request of the process.
 * A driver that wants no CPU faults on such memory leaves it out.
 *
 * With %HMM_DEVMEM_RECLAIM pages outside of the range are evicted to make room. If
 * these are locked or referenced, this waits for them, a tenth of a second at most
 * each time. Of a range larger than the device, the front moves.
 *
 * Context: Process context, may sleep. Takes the mmap lock of the process for reading,
 * which the caller must not hold. While it waits for that lock @devmem can be
 * suspended and removed, and the caller can be killed.
 * Return:
 * * number of pages of the range that are on @devmem now, including those that were
 *   there before; the reasons in &hmm_devmem_request.left add up to the others
 * * %-EINVAL - the start is not below the end, or one is not page aligned
 * * %-EFAULT - there is no mapping in the range
 * * %-ESRCH - the process has exited
 * * %-EINTR - the caller is being killed, and nothing was moved
 * * %-ENODEV - @devmem is being removed, or dead
 * * %-EAGAIN - @devmem is suspended
 * * %-EOPNOTSUPP - @devmem is classic
 * * others - with %HMM_DEVMEM_RUNTIME_PM, when the device cannot be resumed
 *
 * When the result is an errno, no page of the range has moved, and all reasons are 0.
 * Pages outside of the range can have been evicted by then, and huge pages of the range
 * been split.
 */
long hmm_devmem_migrate(struct hmm_devmem *devmem, struct hmm_devmem_request *req)
{
	return hmm_devmem_migrate_through(devmem, req, NULL);
}
EXPORT_SYMBOL_GPL(hmm_devmem_migrate);

/**
 * hmm_devmem_migrate_to_device() - Move memory of a process to the device
 * @devmem: A managed devmem.
 * @mm: The process; the caller has at least mmgrab()bed it.
 * @start: User virtual address, page aligned, inclusive.
 * @end: User virtual address, page aligned, exclusive.
 * @ctx: Context for the device folios, each of which takes a reference; or NULL.
 *
 * The short form of hmm_devmem_migrate(), for a caller that need not know why pages are
 * left, and whose callbacks need no &hmm_devmem_copy.priv.
 *
 * Context: As hmm_devmem_migrate().
 * Return: As hmm_devmem_migrate().
 */
long hmm_devmem_migrate_to_device(struct hmm_devmem *devmem,
				  struct mm_struct *mm,
				  unsigned long start, unsigned long end,
				  struct hmm_devmem_context *ctx)
{
	struct hmm_devmem_request req = {
		.mm = mm,
		.start = start,
		.end = end,
		.ctx = ctx,
	};

	return hmm_devmem_migrate(devmem, &req);
}
EXPORT_SYMBOL_GPL(hmm_devmem_migrate_to_device);

/**
 * hmm_devmem_migrate_to_ram() - Move memory of a process back from the device
 * @devmem: A managed devmem. Only its pages are moved.
 * @mm: The process; the caller has at least mmgrab()bed it.
 * @start: User virtual address, page aligned, inclusive.
 * @end: User virtual address, page aligned, exclusive.
 *
 * Context: Process context, may sleep. Takes the mmap lock of @mm for reading,
 * which the caller must not hold.
 * Return:
 * * number of pages moved
 * * %-ENOMEM - no system memory, and nothing was moved
 * * %-EINVAL, %-EFAULT, %-ESRCH, %-EINTR, %-ENODEV, %-EOPNOTSUPP - as for
 *   hmm_devmem_migrate_to_device()
 *
 * When the result is an errno, no page has moved.
 */
long hmm_devmem_migrate_to_ram(struct hmm_devmem *devmem, struct mm_struct *mm,
			       unsigned long start, unsigned long end)
{
	struct range_walk walk = {
		.from = devmem,
		.devmem = devmem,
		.mm = mm,
		.start = start,
		.end = end,
	};
	long ret;

	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	hmm_devmem_get(devmem);
	ret = range_migrate(&walk);
	hmm_devmem_put(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_migrate_to_ram);
