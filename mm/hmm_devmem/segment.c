// SPDX-License-Identifier: GPL-2.0
/*
 * The parts of a devmem's range that have struct pages: creating and removing these.
 */

/**
 * DOC: Segments
 *
 * A segment is a part of the range that has struct pages: memremap_pages() creates them,
 * memunmap_pages() removes them. The latter waits until all pages are free, and that
 * can be never: a process, or a driver that has a reference, can keep a device page
 * for as long as it likes. When a driver goes away and pages are still in use, the
 * segment becomes a *zombie*: it keeps the physical range and the struct pages, CPU
 * faults on them give SIGBUS, and a worker ends it when the last page has been
 * freed. The driver is not called any more and need not wait. There is no polling:
 * each page of a zombie that is freed wakes the worker, which goes on from the page
 * that it found in use last, so that it checks each page only once.
 *
 * The end of a segment takes about 40 ms, however small it is: core waits for grace
 * periods of RCU. So it happens in workers, many at a time and with no lock of the
 * library held; they wait for the same grace periods. A segment that ends is first
 * *unlinked*: it is not found any more, and its part of the range cannot get struct
 * pages until it has ended.
 *
 * Empty segments of a *lazy* devmem (%HMM_DEVMEM_LAZY) are kept for some seconds, or
 * until memory is short. Then a shrinker wakes the worker that ends empty segments,
 * which ends all of them at once, except those from which no page was ever allocated:
 * the task that has just created one is about to. The shrinker does not end them itself,
 * because memory can be short while a task holds the locks that this takes.
 *
 * A devmem that is not lazy has one segment, from the start. A lazy one has many, which are
 * created when pages are needed and ended when none of their pages is in use. To create
 * or end one takes the lock of memory hotplug. Core takes folio locks inside that, so an
 * allocation with pages locked cannot create a segment: a migration checks before each
 * window whether there are enough, and drops the mmap lock to create one.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/memremap.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/range.h>
#include <linux/rcupdate.h>
#include <linux/rwsem.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

#include <trace/events/hmm_devmem.h>

#include "backing.h"
#include "devmem.h"
#include "page.h"
#include "pagemap.h"
#include "poison.h"
#include "pool.h"
#include "reclaim.h"
#include "segment.h"

/*
 * How many segments can end at the same time, which is how many workers are needed:
 * all segments of 16 GiB. Those of larger devices end in rounds.
 */
#define HMM_DEVMEM_MAX_ENDING		128

/* How many pages a zombie names in the log; it can have millions. */
#define HMM_DEVMEM_ZOMBIE_LINES		8

/*
 * A segment of a lazy devmem is one section of the memory model (128 MiB on x86).
 * Core reserves ranges in that unit, and the struct pages of one section are one
 * large page of system memory, so smaller segments would cost more each and
 * larger ones would keep more memory for the last page in use.
 */
#define HMM_DEVMEM_SEGMENT_SHIFT	PFN_SECTION_SHIFT

/*
 * A worker checks all segments of a lazy devmem at this interval while there are any, and
 * ends those that it has found empty HMM_DEVMEM_SHRINK_IDLE times in a row: a process that
 * frees its memory and allocates it again within seconds causes no work. dev_pagemap.ref
 * does not tell when a segment is empty: it does not fall to 0 before it is killed, and then
 * core does not find the pages any more. To check in each free would make each free slower,
 * and the segment is to stay for some seconds anyway. Zombies are not polled, see
 * hmm_devmem_segment_page_freed().
 */
#define HMM_DEVMEM_SHRINK_INTERVAL	round_jiffies_relative(2 * HZ)
#define HMM_DEVMEM_SHRINK_IDLE		3

/*
 * All segments of all devmems, from before core creates their struct pages until
 * core has removed them. While core removes a pagemap, get_dev_pagemap() does not
 * find it any more, but its range still has struct pages.
 */
static LIST_HEAD(segments_list);
static DEFINE_MUTEX(segments_list_lock);

/* Owner of the pages of all zombies. No device has it, so zombies have no peers. */
static char zombie_owner;

static struct workqueue_struct *segments_wq;

/* The device has pages [segment_first(), segment_end()) of a segment. */
static unsigned long segment_first(const struct hmm_devmem_segment *segment)
{
	return PHYS_PFN(segment->pagemap.range.start);
}

static unsigned long segment_end(const struct hmm_devmem_segment *segment)
{
	return min(PHYS_PFN(segment->pagemap.range.end + 1),
		   segment->devmem->pfn_last);
}

/* A classic driver has its own allocator: a page with a reference is in use. */
static unsigned long segment_count_references(struct hmm_devmem_segment *segment)
{
	unsigned long pfn, busy = 0;

	for (pfn = segment_first(segment); pfn < segment_end(segment); pfn++) {
		busy += page_ref_count(pfn_to_page(pfn)) > 0;
		if (!(pfn % HMM_DEVMEM_BLOCK_NR))
			cond_resched();
	}
	return busy;
}

/**
 * hmm_devmem_segment_busy() - Number of pages that are not free
 * @segment: The segment. Pages in per-CPU caches count: the caller drains those.
 *
 * For a classic devmem this looks at every page.
 *
 * Context: Process context, may sleep.
 * Return: Number of pages, for a classic devmem number of folios.
 */
unsigned long hmm_devmem_segment_busy(struct hmm_devmem_segment *segment)
{
	struct hmm_devmem_pool *pool = priv(segment->devmem)->pool;

	return pool ? hmm_devmem_pool_segment_used(pool, segment->idx) :
		       segment_count_references(segment);
}

/**
 * hmm_devmem_segments_busy() - Number of pages that are not free
 * @devmem: The device memory.
 *
 * Context: Process context, may sleep.
 * Return: Number of pages, for a classic devmem number of folios.
 */
unsigned long hmm_devmem_segments_busy(struct hmm_devmem *devmem)
{
	unsigned long busy = 0;
	unsigned int i;

	if (priv(devmem)->pool)
		hmm_devmem_pool_drain(priv(devmem)->pool);
	guard(rwsem_read)(&priv(devmem)->segments_lock);
	for (i = 0; i < priv(devmem)->nr_segments; i++)
		if (priv(devmem)->segments[i])
			busy += hmm_devmem_segment_busy(priv(devmem)->segments[i]);
	return busy;
}

/* Segment @idx has ended: its part of the range can get struct pages again. */
static void slot_ended(struct hmm_devmem *devmem, unsigned int idx)
{
	if (!test_and_clear_bit(idx, priv(devmem)->ending))
		return;
	/* Orders the end of the segment, and the bit, before the wake-up. */
	atomic_dec_return(&priv(devmem)->nr_ending);
	wake_up_var(&priv(devmem)->nr_ending);
}

static void segment_list(struct hmm_devmem_segment *segment)
{
	guard(mutex)(&segments_list_lock);
	list_add(&segment->node, &segments_list);
}

static void segment_unlist(struct hmm_devmem_segment *segment)
{
	guard(mutex)(&segments_list_lock);
	list_del(&segment->node);
}

/* End a segment whose pages are all free, and will not be allocated again. */
static void segment_destroy(struct hmm_devmem_segment *segment)
{
	struct hmm_devmem *devmem = segment->devmem;
	const bool zombie = segment->is_zombie;
	const unsigned int idx = segment->idx;

	memunmap_pages(&segment->pagemap);
	/* The frees of pages have ended, but the last can have queued the work. */
	cancel_work(&segment->end);
	segment_unlist(segment);
	kfree(segment);
	kref_put(&priv(devmem)->kref, hmm_devmem_release);
	/* @devmem is still valid: unless it was a zombie, the driver has a reference. */
	if (!zombie)
		slot_ended(devmem, idx);
}

/* Tests replace this, to let core finish a split just before. */
VISIBLE_IF_KUNIT bool hmm_devmem_page_is_locked(const struct page *page)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_page_is_locked, page);
	/* Core uses a tail page's flags for other data, also after it was freed. */
	return !PageTail(page) && test_bit(PG_locked, &page->flags.f);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_page_is_locked);

/*
 * Is a page of a zombie in use? While core splits a folio, the folio has no
 * references, but it is locked from before core takes these away until after it has
 * given them back. So if there are none because of a split, either the lock is still
 * held when it is checked, or the references are back by then. Core splits a folio
 * to single pages, so it does that once. Should this be wrong nevertheless, core's
 * memunmap_pages() waits for the page.
 */
VISIBLE_IF_KUNIT bool hmm_devmem_zombie_page_busy(const struct page *page)
{
	if (page_ref_count(page))
		return true;
	/* Pairs with folio_ref_freeze(), before which core locks the folio. */
	smp_rmb();
	if (hmm_devmem_page_is_locked(page))
		return true;
	/* Pairs with folio_unlock(), before which core calls folio_ref_unfreeze(). */
	smp_rmb();
	return page_ref_count(page);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_zombie_page_busy);

/*
 * Is any page of a zombie in use? No page before @first_busy can get into use again:
 * a split makes folios only of pages behind the folio's first one, which stays in
 * use.
 */
static bool zombie_busy(struct hmm_devmem_segment *segment)
{
	for (; segment->first_busy < segment_end(segment); segment->first_busy++) {
		if (hmm_devmem_zombie_page_busy(pfn_to_page(segment->first_busy)))
			return true;
		if (!(segment->first_busy % HMM_DEVMEM_BLOCK_NR))
			cond_resched();
	}
	return false;
}

static void segment_end_work(struct work_struct *work)
{
	struct hmm_devmem_segment *segment =
		container_of(work, struct hmm_devmem_segment, end);

	if (segment->is_zombie) {
		/* This runs again when the page that is in use is freed. */
		if (zombie_busy(segment))
			return;
		pr_info("last page of %pra is free\n", &segment->pagemap.range);
	}
	segment_destroy(segment);
}

/**
 * hmm_devmem_segment_page_freed() - Note that a page was freed after the removal
 * @segment: The segment of the page, whose last reference was dropped. It does not
 *	end before core's call of the folio_free callback has returned.
 *
 * Context: Any context.
 */
void hmm_devmem_segment_page_freed(struct hmm_devmem_segment *segment)
{
	/*
	 * Pairs with the barrier in zombie_let_go(): either this reads that the
	 * segment is a zombie, or the worker that is queued there finds the page
	 * free.
	 */
	smp_mb();
	if (READ_ONCE(segment->is_zombie))
		queue_work(segments_wq, &segment->end);
}

/* After this, @segment is not found any more; segment_end_work() is to be called. */
static void segment_unlink(struct hmm_devmem_segment *segment)
{
	struct hmm_devmem *devmem = segment->devmem;

	lockdep_assert_held_write(&priv(devmem)->segments_lock);

	priv(devmem)->segments[segment->idx] = NULL;
	WRITE_ONCE(priv(devmem)->nr_populated, priv(devmem)->nr_populated - 1);
	set_bit(segment->idx, priv(devmem)->ending);
	atomic_inc(&priv(devmem)->nr_ending);
}

/* Tests replace this, to let core fail. */
VISIBLE_IF_KUNIT void *hmm_devmem_memremap(struct dev_pagemap *pagemap, int nid)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_memremap, pagemap, nid);
	return memremap_pages(pagemap, nid);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_memremap);

/* Create the struct pages of segment @idx; its pages cannot be allocated yet. */
static int segment_create(struct hmm_devmem *devmem, unsigned int idx)
{
	unsigned long base = hmm_devmem_segments_base(devmem) +
			     ((unsigned long)idx << priv(devmem)->segment_shift);
	unsigned long first = max(base, devmem->pfn_first);
	unsigned long end = min(base + (1UL << priv(devmem)->segment_shift),
				devmem->pfn_last);
	struct hmm_devmem_segment *segment;
	void *ret;

	segment = kzalloc_obj(*segment);
	if (!segment)
		return -ENOMEM;

	segment->devmem = devmem;
	segment->idx = idx;
	segment->first_busy = first;
	INIT_WORK(&segment->end, segment_end_work);
	segment->pagemap.type = devmem->type;
	segment->pagemap.ops = &hmm_devmem_pagemap_ops;
	segment->pagemap.owner = devmem->owner;
	segment->pagemap.nr_range = 1;
	segment->pagemap.range.start = PFN_PHYS(first);
	segment->pagemap.range.end = ALIGN(PFN_PHYS(end),
					   memremap_compat_align()) - 1;

	segment_list(segment);
	ret = hmm_devmem_memremap(&segment->pagemap, priv(devmem)->nid);
	if (IS_ERR(ret)) {
		segment_unlist(segment);
		kfree(segment);
		return PTR_ERR(ret);
	}
	kref_get(&priv(devmem)->kref);
	priv(devmem)->segments[idx] = segment;
	return 0;
}

static int segment_populate(struct hmm_devmem *devmem, unsigned int idx)
{
	int ret;

	ret = segment_create(devmem, idx);
	if (ret)
		return ret;
	raw_write_seqcount_begin(&priv(devmem)->segments_seq);
	if (priv(devmem)->pool)
		ret = hmm_devmem_pool_populate(priv(devmem)->pool, idx);
	if (!ret)
		WRITE_ONCE(priv(devmem)->nr_populated,
			   priv(devmem)->nr_populated + 1);
	raw_write_seqcount_end(&priv(devmem)->segments_seq);
	if (ret) {
		segment_destroy(priv(devmem)->segments[idx]);
		priv(devmem)->segments[idx] = NULL;
	}
	return ret;
}

/**
 * hmm_devmem_memmap_fits() - Is there memory for struct pages?
 * @size: Bytes of device memory that need struct pages.
 *
 * If there is not, core would use up the memory that there is, and then warn.
 *
 * Context: Any context.
 * Return: 0 or -ENOMEM.
 */
int hmm_devmem_memmap_fits(u64 size)
{
	const u64 bytes = (size >> PAGE_SHIFT) * sizeof(struct page);

	return PHYS_PFN(bytes) < si_mem_available() ? 0 : -ENOMEM;
}

/**
 * hmm_devmem_range_has_segment() - Does a devmem have struct pages there?
 * @range: Physical addresses.
 *
 * Context: Process context, may sleep.
 * Return: True if one has, or had and they are being removed.
 */
bool hmm_devmem_range_has_segment(const struct range *range)
{
	const struct hmm_devmem_segment *segment;

	guard(mutex)(&segments_list_lock);
	list_for_each_entry(segment, &segments_list, node)
		if (range_overlaps(&segment->pagemap.range, range))
			return true;
	return false;
}

/* Index of a part of the range that can get struct pages, or nr_segments. */
static unsigned int segments_slot(const struct hmm_devmem *devmem)
{
	unsigned int i;

	for (i = 0; i < priv(devmem)->nr_segments; i++)
		if (!priv(devmem)->segments[i] && !test_bit(i, priv(devmem)->ending))
			break;
	return i;
}

/**
 * hmm_devmem_segments_add() - Create the struct pages of a segment
 * @devmem: The device memory; the caller holds &hmm_devmem_priv.segments_lock for writing.
 * @i: The segment, which has none and is not ending.
 *
 * Context: As hmm_devmem_segments_grow().
 * Return: 0 or an errno.
 */
int hmm_devmem_segments_add(struct hmm_devmem *devmem, unsigned int i)
{
	int ret;

	lockdep_assert_held_write(&priv(devmem)->segments_lock);

	ret = hmm_devmem_memmap_fits((u64)PAGE_SIZE << priv(devmem)->segment_shift);
	if (!ret)
		ret = segment_populate(devmem, i);
	if (!ret)
		queue_delayed_work(system_dfl_wq, &priv(devmem)->shrink_work,
				   HMM_DEVMEM_SHRINK_INTERVAL);
	return ret;
}

/* Return: 0, an errno, or 1 if a segment has to end first. */
static int segments_try_grow(struct hmm_devmem *devmem, unsigned int seq)
{
	unsigned int i;
	int ret;

	/* Killable: an eviction holds the lock for as long as its copies take. */
	ACQUIRE(rwsem_write_kill, lock)(&priv(devmem)->segments_lock);
	ret = ACQUIRE_ERR(rwsem_write_kill, &lock);
	if (ret)
		return ret;
	ret = hmm_devmem_pool_refused(priv(devmem)->pool);
	if (ret)
		return ret;
	if (read_seqcount_retry(&priv(devmem)->segments_seq, seq))
		return 0;
	i = segments_slot(devmem);
	if (i == priv(devmem)->nr_segments)
		return hmm_devmem_can_grow(devmem) ? 1 : -ENOMEM;
	return hmm_devmem_segments_add(devmem, i);
}

static bool segments_have_slot(struct hmm_devmem *devmem)
{
	return READ_ONCE(priv(devmem)->nr_populated) + atomic_read(&priv(devmem)->nr_ending) <
	       priv(devmem)->nr_segments;
}

/**
 * hmm_devmem_segments_grow() - Create more struct pages
 * @devmem: The device memory.
 * @seq: From hmm_devmem_segments_seq(), called before the caller looked for free pages.
 *
 * When several callers need more at the same time, one of them creates a segment
 * and the others wait for it. If each segment has struct pages or is about to lose
 * them, this waits until one has lost them.
 *
 * Context: Process context, may sleep. Takes the lock of memory hotplug, inside
 * which core takes folio locks: the caller has none, and no mmap lock.
 * Return:
 * * %0 - there is more now, or a segment came or went since @seq was read: look again
 * * %-ENOMEM - out of memory, or the device has no more
 * * %-ENODEV - @devmem is being removed
 * * %-EAGAIN - @devmem is suspended
 * * %-ERESTARTSYS, %-EINTR - the caller was killed while it waited
 * * another errno - from core's memremap_pages()
 */
int hmm_devmem_segments_grow(struct hmm_devmem *devmem, unsigned int seq)
{
	int ret;

	might_sleep();
	while ((ret = segments_try_grow(devmem, seq)) > 0) {
		ret = wait_var_event_killable(&priv(devmem)->nr_ending,
					      segments_have_slot(devmem));
		if (ret)
			break;
	}
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_segments_grow);

/*
 * Shall segment @idx end? Yes if it was empty in enough rounds in a row; with @now, if it
 * is empty and a page of it was allocated before.
 */
static bool segment_is_due(struct hmm_devmem *devmem, unsigned int idx, bool now)
{
	struct hmm_devmem_segment *segment;

	guard(rwsem_read)(&priv(devmem)->segments_lock);
	segment = priv(devmem)->segments[idx];
	if (!segment)
		return false;
	if (hmm_devmem_segment_busy(segment)) {
		segment->idle = 0;
		return false;
	}
	if (now)
		return !hmm_devmem_pool_segment_is_new(priv(devmem)->pool, idx);
	return ++segment->idle >= HMM_DEVMEM_SHRINK_IDLE;
}

/* Only the worker that calls this, and removal after it, take segments away. */
static void segment_give_back(struct hmm_devmem *devmem, unsigned int idx)
{
	struct hmm_devmem_segment *segment = priv(devmem)->segments[idx];
	int ret;

	scoped_guard(rwsem_write, &priv(devmem)->segments_lock) {
		raw_write_seqcount_begin(&priv(devmem)->segments_seq);
		/* A page of the segment may have been allocated just now. */
		ret = hmm_devmem_pool_depopulate(priv(devmem)->pool, idx);
		if (!ret)
			segment_unlink(segment);
		raw_write_seqcount_end(&priv(devmem)->segments_seq);
	}
	if (!ret)
		queue_work(segments_wq, &segment->end);
}

static void segments_shrink(struct work_struct *work)
{
	struct hmm_devmem *devmem =
		&container_of(to_delayed_work(work), struct hmm_devmem_priv,
			      shrink_work)->pub;
	const bool now = xchg(&priv(devmem)->shrink_now, false);
	unsigned int i;

	/* In a removal, core.c gives the blocks back. */
	if (priv(devmem)->backing && hmm_devmem_ref_tryget_live(devmem)) {
		hmm_devmem_backing_put_empty(devmem, U32_MAX,
					     now ? 1 : HMM_DEVMEM_SHRINK_IDLE);
		hmm_devmem_ref_put(devmem);
	}
	hmm_devmem_pool_drain(priv(devmem)->pool);
	for (i = 0; i < priv(devmem)->nr_segments; i++) {
		if (segment_is_due(devmem, i, now))
			segment_give_back(devmem, i);
		cond_resched();
	}
	/* If there are none, segments_try_grow() starts this again. */
	guard(rwsem_read)(&priv(devmem)->segments_lock);
	if (priv(devmem)->nr_populated)
		queue_delayed_work(system_dfl_wq, &priv(devmem)->shrink_work,
				   HMM_DEVMEM_SHRINK_INTERVAL);
}

/*
 * Number of pages of system memory that the end of all empty segments would free. Core
 * calls this whenever memory is short, so it looks at no segment: one of which a CPU has
 * cached a page is not counted, until the worker that runs every two seconds has
 * emptied the caches.
 */
static unsigned long segments_count(struct shrinker *shrinker,
				    struct shrink_control *sc)
{
	struct hmm_devmem *devmem = shrinker->private_data;
	const unsigned long bytes = sizeof(struct page) << priv(devmem)->segment_shift;
	unsigned long nr;

	nr = hmm_devmem_pool_idle_segments(priv(devmem)->pool) * PFN_UP(bytes);
	return nr ?: SHRINK_EMPTY;
}

/* Only wakes the worker: no memory is free yet when this returns. */
static unsigned long segments_scan(struct shrinker *shrinker,
				   struct shrink_control *sc)
{
	struct hmm_devmem *devmem = shrinker->private_data;

	WRITE_ONCE(priv(devmem)->shrink_now, true);
	mod_delayed_work(system_dfl_wq, &priv(devmem)->shrink_work, 0);
	return SHRINK_STOP;
}

static int create_shrinker(struct hmm_devmem *devmem)
{
	struct shrinker *shrinker;

	shrinker = shrinker_alloc(0, "hmm_devmem");
	if (!shrinker)
		return -ENOMEM;
	shrinker->count_objects = segments_count;
	shrinker->scan_objects = segments_scan;
	shrinker->private_data = devmem;
	priv(devmem)->shrinker = shrinker;
	shrinker_register(shrinker);
	return 0;
}

static void zombie_report(struct hmm_devmem_segment *segment,
			  unsigned long busy)
{
	struct device *device = segment->devmem->device;
	unsigned int lines = 0;
	unsigned long pfn;

	dev_warn(device,
		 "%lu pages of device memory are still in use; their users get SIGBUS\n",
		 busy);
	for (pfn = segment_first(segment); pfn < segment_end(segment); pfn++) {
		struct page *page = pfn_to_page(pfn);

		if (!(pfn % HMM_DEVMEM_BLOCK_NR))
			cond_resched();
		if (!page_ref_count(page))
			continue;
		dev_warn(device, "pfn %#lx: %d references, %d mappings\n", pfn,
			 page_ref_count(page), folio_mapcount(page_folio(page)));
		if (++lines == HMM_DEVMEM_ZOMBIE_LINES)
			break;
	}
}

/*
 * Peers can have pages of a zombie in their devices' page tables. Invalidate these
 * entries. Peers cannot enter the pages again, since their owner was replaced.
 */
static void zombie_forget_pages(struct hmm_devmem_segment *segment)
{
	const unsigned long end = segment_end(segment);
	unsigned long pfn = segment_first(segment), *pfns;
	unsigned int nr, i;

	if (segment->devmem->type != MEMORY_DEVICE_PRIVATE)
		return;
	pfns = kvmalloc_objs(*pfns, HMM_DEVMEM_BLOCK_NR, GFP_KERNEL | __GFP_NOFAIL);
	while ((nr = hmm_devmem_pool_not_free(priv(segment->devmem)->pool, &pfn, end,
					      pfns, HMM_DEVMEM_BLOCK_NR))) {
		for (i = 0; i < nr; i++)
			hmm_devmem_forget_page(pfn_to_page(pfns[i]));
		cond_resched();
	}
	kvfree(pfns);
}

/*
 * Find the pages of a zombie that have a context: first pages of folios. The result
 * for a folio that is being split can be wrong: see zombies_drop_contexts().
 */
static void zombie_find_contexts(struct hmm_devmem_segment *segment)
{
	const unsigned long first = segment_first(segment);
	const unsigned long end = segment_end(segment);
	unsigned long pfn = first, *pfns;
	unsigned int nr, i;

	/* Removal cannot fail, so these allocations must not. */
	segment->contexts = kvcalloc(BITS_TO_LONGS(end - first), sizeof(long),
				     GFP_KERNEL | __GFP_NOFAIL);
	pfns = kvmalloc_objs(*pfns, HMM_DEVMEM_BLOCK_NR, GFP_KERNEL | __GFP_NOFAIL);
	/* Include lost pages: processes can still have them. */
	while ((nr = hmm_devmem_pool_not_free(priv(segment->devmem)->pool, &pfn, end,
					      pfns, HMM_DEVMEM_BLOCK_NR))) {
		for (i = 0; i < nr; i++) {
			struct page *page = pfn_to_page(pfns[i]);

			/* In tail pages, core uses that word for other data. */
			if (!PageTail(page) && READ_ONCE(page->zone_device_data))
				__set_bit(pfns[i] - first, segment->contexts);
		}
	}
	kvfree(pfns);
}

/* Drop all contexts now: the driver's release function must not be called later. */
static void zombie_drop_contexts(struct hmm_devmem_segment *segment)
{
	const unsigned long first = segment_first(segment);
	unsigned long i;

	for_each_set_bit(i, segment->contexts, segment_end(segment) - first) {
		hmm_devmem_page_drop_context(pfn_to_page(first + i));
		cond_resched();
	}
	kvfree(segment->contexts);
	segment->contexts = NULL;
}

/*
 * hmm_range_fault() reads the owner without a lock. A walk that has just read the
 * old owner can still report a page as valid; zombie_forget_pages() invalidates that
 * range later. A walk that reads the owner from now on does not report it.
 */
static void segment_make_zombie(struct hmm_devmem_segment *segment,
				unsigned long busy)
{
	WRITE_ONCE(segment->pagemap.owner, &zombie_owner);
	trace_hmm_devmem_zombie(segment->devmem, segment_first(segment),
				segment_end(segment), busy);
	zombie_report(segment, busy);
}

/* Let the zombie end when its last page is freed; at once if all pages are free. */
static void zombie_let_go(struct hmm_devmem_segment *segment)
{
	/* From here on hmm_devmem_segment_page_freed() is called for each page. */
	WRITE_ONCE(priv(segment->devmem)->has_free, true);
	WRITE_ONCE(segment->is_zombie, true);
	/* Pairs with hmm_devmem_segment_page_freed(). */
	smp_mb();
	queue_work(segments_wq, &segment->end);
}

/* Return: Whether there is a zombie now. */
static bool segment_release(struct hmm_devmem_segment *segment)
{
	const unsigned long busy = hmm_devmem_segment_busy(segment);

	if (busy) {
		segment_make_zombie(segment, busy);
		return true;
	}
	scoped_guard(rwsem_write, &priv(segment->devmem)->segments_lock)
		segment_unlink(segment);
	queue_work(segments_wq, &segment->end);
	return false;
}

static void call_for_segments(struct hmm_devmem *devmem,
			      void (*func)(struct hmm_devmem_segment *segment))
{
	unsigned int i;

	for (i = 0; i < priv(devmem)->nr_segments; i++)
		if (priv(devmem)->segments[i])
			func(priv(devmem)->segments[i]);
}

/*
 * A task with a reference to a folio can split it at any time. Splits that begin after
 * &hmm_devmem_priv.gone was set leave the parts without a context; the first grace period
 * waits for splits that began before. In a folio that is being split, zone_device_data of
 * a part can still have data of core's that looks like a context: the second grace period
 * waits for the end of the split, after which it is NULL. The third one waits for tasks
 * that free a folio: they can have taken its context out and not released it yet.
 */
static void zombies_drop_contexts(struct hmm_devmem *devmem)
{
	synchronize_rcu();
	call_for_segments(devmem, zombie_find_contexts);
	synchronize_rcu();
	call_for_segments(devmem, zombie_drop_contexts);
	synchronize_rcu();
}

/**
 * hmm_devmem_segments_release() - Give the struct pages back
 * @devmem: Its driver is not called any more and nothing can be allocated.
 *
 * Segments with pages in use become zombies, which end when their pages are freed.
 * The others have ended when this returns, all at the same time. No context is
 * released after this.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_segments_release(struct hmm_devmem *devmem)
{
	bool zombies = false;
	unsigned int i;

	/* First, because the shrinker starts the work that is cancelled next. */
	shrinker_free(priv(devmem)->shrinker);
	cancel_delayed_work_sync(&priv(devmem)->shrink_work);
	if (priv(devmem)->pool)
		hmm_devmem_pool_drain(priv(devmem)->pool);
	for (i = 0; i < priv(devmem)->nr_segments; i++)
		if (priv(devmem)->segments[i])
			zombies |= segment_release(priv(devmem)->segments[i]);
	wait_var_event(&priv(devmem)->nr_ending, !atomic_read(&priv(devmem)->nr_ending));
	if (zombies && priv(devmem)->pool) {
		call_for_segments(devmem, zombie_forget_pages);
		zombies_drop_contexts(devmem);
	}
	call_for_segments(devmem, zombie_let_go);
}

/**
 * hmm_devmem_pfn_populated() - Does a pfn have a struct page?
 * @devmem: The device memory.
 * @pfn: Any pfn.
 *
 * Without %HMM_DEVMEM_LAZY every pfn of @devmem has one. With it, only those
 * near pages in use: pfn_to_page() must not be used on others.
 *
 * Context: Process context, may sleep. The caller holds no mmap lock and no folio lock.
 * Return: True if @pfn is one of @devmem and has a struct page. Unless the caller has
 * a reference to a page within the same PMD, that can change. False as soon as removal
 * has evicted what it can: the driver must not use struct pages that are left.
 */
bool hmm_devmem_pfn_populated(struct hmm_devmem *devmem, unsigned long pfn)
{
	bool ret;

	if (!hmm_devmem_ref_tryget_live(devmem))
		return false;
	scoped_guard(rwsem_read, &priv(devmem)->segments_lock)
		ret = hmm_devmem_segment_at(devmem, pfn);
	hmm_devmem_ref_put(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_pfn_populated);

static int create_pool(struct hmm_devmem *devmem)
{
	struct hmm_devmem_priv *priv = priv(devmem);

	priv->pool = hmm_devmem_pool_create(devmem->pfn_first,
					    devmem->pfn_last - devmem->pfn_first,
					    HMM_DEVMEM_BLOCK_ORDER, priv->segment_shift);
	if (!priv->pool)
		return -ENOMEM;
	priv->pool->on_loan = priv->backing;
	if (!(priv->flags & HMM_DEVMEM_RECLAIM))
		return 0;
	priv->hold = hmm_devmem_hold_create(hmm_devmem_nr_blocks(devmem));
	return priv->hold ? 0 : -ENOMEM;
}

/**
 * hmm_devmem_segments_init() - Set up segments and pool; create struct pages if not lazy
 * @devmem: The device memory; its range, type, owner and node are set.
 * @flags: HMM_DEVMEM_LAZY or 0.
 *
 * Context: Process context, may sleep.
 * Return: 0 or an errno; then there are no struct pages, and all else is freed with
 * the last reference to @devmem.
 */
int hmm_devmem_segments_init(struct hmm_devmem *devmem, unsigned long flags)
{
	const unsigned long nr = devmem->pfn_last - hmm_devmem_segments_base(devmem);
	struct hmm_devmem_priv *priv = priv(devmem);
	int ret;

	init_rwsem(&priv->segments_lock);
	seqcount_init(&priv->segments_seq);
	INIT_DELAYED_WORK(&priv->shrink_work, segments_shrink);
	priv->segment_shift = flags & HMM_DEVMEM_LAZY ?
			      HMM_DEVMEM_SEGMENT_SHIFT : order_base_2(nr);
	priv->segment_shift = max(priv->segment_shift, HMM_DEVMEM_BLOCK_ORDER);
	priv->nr_segments = hmm_devmem_segment_idx(devmem, devmem->pfn_last - 1) + 1;
	priv->segments = kvzalloc_objs(*priv->segments, priv->nr_segments);
	priv->ending = bitmap_zalloc(priv->nr_segments, GFP_KERNEL);
	if (!priv->segments || !priv->ending)
		return -ENOMEM;
	if (hmm_devmem_ops_managed(devmem->ops)) {
		ret = create_pool(devmem);
		if (ret)
			return ret;
	}
	if (!(flags & HMM_DEVMEM_LAZY))
		return segment_populate(devmem, 0);
	/* The devmem of lockdep.c has no memory, and so no pool yet. */
	return priv->pool ? create_shrinker(devmem) : 0;
}

/**
 * hmm_devmem_segments_boot() - Prepare for the end of segments
 *
 * Context: Process context, once at boot.
 * Return: 0 or -ENOMEM.
 */
int __init hmm_devmem_segments_boot(void)
{
	segments_wq = alloc_workqueue("hmm_devmem", WQ_UNBOUND,
				      HMM_DEVMEM_MAX_ENDING);
	return segments_wq ? 0 : -ENOMEM;
}
