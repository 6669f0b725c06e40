// SPDX-License-Identifier: GPL-2.0
/*
 * Parts of a devmem's range that have struct pages.
 */

/**
 * DOC: Segments
 *
 * A segment is the lifetime of struct pages: it starts with memremap_pages() and
 * ends with memunmap_pages(). The latter waits until all pages are free, and
 * that can be never: somebody may hold a reference to a device page for as long
 * as he likes. When a driver goes away and pages are still in use, the segment
 * becomes a *zombie*: it keeps the physical range and the struct pages, CPU
 * faults on them give SIGBUS, and a worker ends it when the last page has been
 * freed. The driver is not called any more and need not wait.
 *
 * A devmem has one segment, which is there from the start, or (%HMM_DEVMEM_LAZY)
 * many that come and go with the pages in use. To create or destroy one takes the
 * lock of memory hotplug. Core takes folio locks inside that, so allocations that
 * are done with pages locked cannot do it: a migration looks before each window
 * whether there is enough, and drops the mmap lock to get more.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
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
#include <linux/slab.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

/* How often a zombie is looked at; no one waits for it. */
#define HMM_DEVMEM_REAP_INTERVAL	(HZ / 2)

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
 * Segments are looked at that often while there are any, and given back when
 * they were found empty that many times in a row: a process that frees its
 * memory and allocates it again within seconds causes no work.
 */
#define HMM_DEVMEM_SHRINK_INTERVAL	round_jiffies_relative(2 * HZ)
#define HMM_DEVMEM_SHRINK_IDLE		3

/*
 * Zombies, until nothing is left of them. Core does not know a pagemap any more
 * while it goes away, but has struct pages for its range still.
 */
static LIST_HEAD(zombies);
static DEFINE_MUTEX(zombies_lock);

static unsigned long segments_base(const struct hmm_devmem *devmem)
{
	return ALIGN_DOWN(devmem->pfn_first, HMM_DEVMEM_BLOCK_NR);
}

static unsigned int pfn_segment(const struct hmm_devmem *devmem,
				unsigned long pfn)
{
	return (pfn - segments_base(devmem)) >> devmem->segment_shift;
}

/* Pages [first, end) of a segment are the device's. */
static unsigned long segment_first(const struct hmm_devmem_segment *segment)
{
	return PHYS_PFN(segment->pagemap.range.start);
}

static unsigned long segment_end(const struct hmm_devmem_segment *segment)
{
	return min(PHYS_PFN(segment->pagemap.range.end + 1),
		   segment->devmem->pfn_last);
}

/* A classic driver's pages: only their references tell whether they are free. */
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
 * @segment: The segment.
 *
 * Context: Process context, may sleep.
 * Return: Number of pages, for a classic devmem number of folios.
 */
unsigned long hmm_devmem_segment_busy(struct hmm_devmem_segment *segment)
{
	struct hmm_devmem_alloc *alloc = segment->devmem->alloc;

	return alloc ? hmm_devmem_alloc_area_used(alloc, segment->idx) :
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

	guard(rwsem_read)(&devmem->segments_lock);
	for (i = 0; i < devmem->nr_segments; i++)
		if (devmem->segments[i])
			busy += hmm_devmem_segment_busy(devmem->segments[i]);
	return busy;
}

/* All of its pages are free and will not be allocated again. */
static void segment_destroy(struct hmm_devmem_segment *segment)
{
	struct hmm_devmem *devmem = segment->devmem;

	memunmap_pages(&segment->pagemap);
	scoped_guard(mutex, &zombies_lock)
		list_del(&segment->zombie);
	kfree(segment);
	kref_put(&devmem->kref, hmm_devmem_release);
}

static void segment_reap(struct work_struct *work)
{
	struct hmm_devmem_segment *segment =
		container_of(to_delayed_work(work), struct hmm_devmem_segment,
			     reaper);

	if (hmm_devmem_segment_busy(segment)) {
		queue_delayed_work(system_dfl_wq, &segment->reaper,
				   HMM_DEVMEM_REAP_INTERVAL);
		return;
	}
	pr_info("last page of %pra is free\n", &segment->pagemap.range);
	segment_destroy(segment);
}

/* Where tests let core fail. */
VISIBLE_IF_KUNIT void *hmm_devmem_memremap(struct dev_pagemap *pagemap, int nid)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_memremap, pagemap, nid);
	return memremap_pages(pagemap, nid);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_memremap);

/* Create the struct pages of segment @idx; its pages can not be allocated yet. */
static int segment_create(struct hmm_devmem *devmem, unsigned int idx)
{
	unsigned long base = segments_base(devmem) +
			     ((unsigned long)idx << devmem->segment_shift);
	unsigned long first = max(base, devmem->pfn_first);
	unsigned long end = min(base + (1UL << devmem->segment_shift),
				devmem->pfn_last);
	struct hmm_devmem_segment *segment;
	void *ret;

	segment = kzalloc_obj(*segment);
	if (!segment)
		return -ENOMEM;

	segment->devmem = devmem;
	segment->idx = idx;
	INIT_DELAYED_WORK(&segment->reaper, segment_reap);
	INIT_LIST_HEAD(&segment->zombie);
	segment->pagemap.type = devmem->type;
	segment->pagemap.ops = &hmm_devmem_pagemap_ops;
	segment->pagemap.owner = devmem->owner;
	segment->pagemap.nr_range = 1;
	segment->pagemap.range.start = PFN_PHYS(first);
	segment->pagemap.range.end = ALIGN(PFN_PHYS(end),
					   memremap_compat_align()) - 1;

	ret = hmm_devmem_memremap(&segment->pagemap, devmem->nid);
	if (IS_ERR(ret)) {
		kfree(segment);
		return PTR_ERR(ret);
	}
	kref_get(&devmem->kref);
	devmem->segments[idx] = segment;
	return 0;
}

static int segment_populate(struct hmm_devmem *devmem, unsigned int idx)
{
	int ret;

	ret = segment_create(devmem, idx);
	if (ret)
		return ret;
	if (devmem->alloc)
		ret = hmm_devmem_alloc_populate(devmem->alloc, idx);
	if (ret) {
		segment_destroy(devmem->segments[idx]);
		devmem->segments[idx] = NULL;
		return ret;
	}
	WRITE_ONCE(devmem->nr_populated, devmem->nr_populated + 1);
	return 0;
}

/**
 * hmm_devmem_memmap_fits() - Is there memory for struct pages?
 * @size: Of how many bytes of device memory.
 *
 * Core would warn when it finds out that there is not, and have used up what
 * there was.
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
 * hmm_devmem_range_has_zombie() - Does a removed devmem have pages there?
 * @range: Physical addresses.
 *
 * Context: Process context, may sleep.
 * Return: True if it does. Not exact for what is removed at the moment; then
 * core still knows its pagemap.
 */
bool hmm_devmem_range_has_zombie(const struct range *range)
{
	const struct hmm_devmem_segment *segment;

	guard(mutex)(&zombies_lock);
	list_for_each_entry(segment, &zombies, zombie)
		if (range_overlaps(&segment->pagemap.range, range))
			return true;
	return false;
}

/**
 * hmm_devmem_segments_grow() - Create more struct pages
 * @devmem: The device memory.
 *
 * When several callers need more at the same time, one of them creates a segment
 * and the others wait for it.
 *
 * Context: Process context, may sleep. Takes the lock of memory hotplug, inside
 * which core takes folio locks: the caller has none, and no mmap lock.
 * Return:
 * * %0 - there is more now, whoever created it
 * * %-ENOMEM - out of memory, or the device has no more
 * * %-ENODEV - @devmem is being removed
 * * %-EAGAIN - it is suspended
 */
int hmm_devmem_segments_grow(struct hmm_devmem *devmem)
{
	const unsigned int before = READ_ONCE(devmem->nr_populated);
	unsigned int i;
	int ret;

	might_sleep();
	if (!hmm_devmem_can_grow(devmem))
		return -ENOMEM;

	guard(rwsem_write)(&devmem->segments_lock);
	ret = hmm_devmem_alloc_refused(devmem->alloc);
	if (ret)
		return ret;
	if (devmem->nr_populated > before)
		return 0;
	ret = hmm_devmem_memmap_fits((u64)PAGE_SIZE << devmem->segment_shift);
	if (ret)
		return ret;
	for (i = 0; i < devmem->nr_segments; i++)
		if (!devmem->segments[i])
			break;
	if (i == devmem->nr_segments || segment_populate(devmem, i))
		return -ENOMEM;
	queue_delayed_work(system_dfl_wq, &devmem->shrink_work,
			   HMM_DEVMEM_SHRINK_INTERVAL);
	return 0;
}

static void segment_shrink(struct hmm_devmem *devmem, unsigned int idx)
{
	struct hmm_devmem_segment *segment = devmem->segments[idx];

	if (hmm_devmem_segment_busy(segment)) {
		segment->idle = 0;
		return;
	}
	if (++segment->idle < HMM_DEVMEM_SHRINK_IDLE ||
	    hmm_devmem_alloc_depopulate(devmem->alloc, idx))
		return;
	devmem->segments[idx] = NULL;
	WRITE_ONCE(devmem->nr_populated, devmem->nr_populated - 1);
	segment_destroy(segment);
}

static void segments_shrink(struct work_struct *work)
{
	struct hmm_devmem *devmem =
		container_of(to_delayed_work(work), struct hmm_devmem,
			     shrink_work);
	unsigned int i;

	scoped_guard(rwsem_write, &devmem->segments_lock) {
		for (i = 0; i < devmem->nr_segments; i++) {
			if (devmem->segments[i])
				segment_shrink(devmem, i);
			cond_resched();
		}
		if (!devmem->nr_populated)
			return;
	}
	queue_delayed_work(system_dfl_wq, &devmem->shrink_work,
			   HMM_DEVMEM_SHRINK_INTERVAL);
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

/* Contexts are the driver's: none may be released after it has gone. */
static void zombie_drop_contexts(struct hmm_devmem_segment *segment)
{
	struct hmm_devmem_alloc *alloc = segment->devmem->alloc;
	unsigned long pfn = segment_first(segment), *pfns;
	unsigned int nr, i;

	if (!alloc)
		return;
	/* Removal cannot fail, so it needs what it cannot do without. */
	pfns = kvmalloc_objs(*pfns, HMM_DEVMEM_BLOCK_NR, GFP_KERNEL | __GFP_NOFAIL);
	/* Lost pages as well: somebody can still have them. */
	while ((nr = hmm_devmem_alloc_not_free(alloc, &pfn,
					       segment_end(segment), pfns,
					       HMM_DEVMEM_BLOCK_NR))) {
		for (i = 0; i < nr; i++) {
			struct folio *folio = page_folio(pfn_to_page(pfns[i]));

			/* Tail pages have other things in that word. */
			if (folio_pfn(folio) == pfns[i])
				hmm_devmem_page_drop_context(&folio->page);
		}
	}
	kvfree(pfns);
}

/* Return: Whether there is a zombie now. */
static bool segment_release(struct hmm_devmem_segment *segment)
{
	const unsigned long busy = hmm_devmem_segment_busy(segment);

	if (!busy) {
		segment_destroy(segment);
		return false;
	}
	trace_hmm_devmem_zombie(segment->devmem, segment_first(segment),
				segment_end(segment), busy);
	zombie_report(segment, busy);
	zombie_drop_contexts(segment);
	scoped_guard(mutex, &zombies_lock)
		list_add(&segment->zombie, &zombies);
	queue_delayed_work(system_dfl_wq, &segment->reaper,
			   HMM_DEVMEM_REAP_INTERVAL);
	return true;
}

/**
 * hmm_devmem_segments_release() - Give the struct pages back
 * @devmem: Its driver is not called any more and nothing can be allocated.
 *
 * Segments with pages in use are left to their reapers. No context is released
 * after this.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_segments_release(struct hmm_devmem *devmem)
{
	bool zombies = false;
	unsigned int i;

	cancel_delayed_work_sync(&devmem->shrink_work);
	for (i = 0; i < devmem->nr_segments; i++)
		if (devmem->segments[i])
			zombies |= segment_release(devmem->segments[i]);
	/*
	 * A folio that was just being freed has no references, and its context
	 * can have been taken out of it and not been released yet. Segments that
	 * are destroyed have waited for it, zombies have not.
	 */
	if (zombies)
		synchronize_rcu();
}

/**
 * hmm_devmem_segment_at() - The segment of a pfn
 * @devmem: The device memory.
 * @pfn: Any pfn. The caller has allocated it, or &hmm_devmem.segments_lock.
 *
 * Context: Any context.
 * Return: The segment, or NULL if @pfn has no struct page or is not ours.
 */
struct hmm_devmem_segment *hmm_devmem_segment_at(struct hmm_devmem *devmem,
						 unsigned long pfn)
{
	if (!hmm_devmem_has_pfn(devmem, pfn))
		return NULL;
	return devmem->segments[pfn_segment(devmem, pfn)];
}

/**
 * hmm_devmem_pfn_populated() - Does a pfn have a struct page?
 * @devmem: The device memory.
 * @pfn: Any pfn.
 *
 * Without %HMM_DEVMEM_LAZY every pfn of @devmem has one. With it, only those
 * near pages in use: pfn_to_page() must not be used on others.
 *
 * Context: Process context, may sleep. The caller has no folio locked.
 * Return: True if @pfn is one of @devmem and has a struct page. Unless the
 * caller has a reference to a page within the same PMD, that can change.
 */
bool hmm_devmem_pfn_populated(struct hmm_devmem *devmem, unsigned long pfn)
{
	guard(rwsem_read)(&devmem->segments_lock);
	return hmm_devmem_segment_at(devmem, pfn);
}
EXPORT_SYMBOL_GPL(hmm_devmem_pfn_populated);

static int create_alloc(struct hmm_devmem *devmem)
{
	devmem->alloc = hmm_devmem_alloc_create(devmem->pfn_first,
						devmem->pfn_last - devmem->pfn_first,
						HMM_DEVMEM_BLOCK_ORDER,
						devmem->segment_shift);
	return devmem->alloc ? 0 : -ENOMEM;
}

/**
 * hmm_devmem_segments_init() - Set up segments, and struct pages if need be
 * @devmem: Range, type, owner and node are set.
 * @flags: HMM_DEVMEM_LAZY or 0.
 *
 * Context: Process context, may sleep.
 * Return: 0 or an errno; then there are no struct pages, and what else there is
 * goes with the last reference to @devmem.
 */
int hmm_devmem_segments_init(struct hmm_devmem *devmem, unsigned long flags)
{
	const unsigned long nr = devmem->pfn_last - segments_base(devmem);
	int ret;

	init_rwsem(&devmem->segments_lock);
	INIT_DELAYED_WORK(&devmem->shrink_work, segments_shrink);
	devmem->segment_shift = flags & HMM_DEVMEM_LAZY ?
				HMM_DEVMEM_SEGMENT_SHIFT : order_base_2(nr);
	devmem->segment_shift = max(devmem->segment_shift, HMM_DEVMEM_BLOCK_ORDER);
	devmem->nr_segments = pfn_segment(devmem, devmem->pfn_last - 1) + 1;
	devmem->segments = kvzalloc_objs(*devmem->segments, devmem->nr_segments);
	if (!devmem->segments)
		return -ENOMEM;
	if (hmm_devmem_ops_managed(devmem->ops)) {
		ret = create_alloc(devmem);
		if (ret)
			return ret;
	}
	return flags & HMM_DEVMEM_LAZY ? 0 : segment_populate(devmem, 0);
}
