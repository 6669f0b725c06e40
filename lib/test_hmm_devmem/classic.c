// SPDX-License-Identifier: GPL-2.0
/*
 * A driver in classic mode: it allocates and migrates by itself.
 */

/**
 * DOC: Classic driver
 *
 * The smallest driver with its own allocator, one bit a page, and its own
 * migration, one page at a time. The driver's data of a device page says where in
 * VRAM the page's content is. Since the library cannot move pages of such a driver,
 * the kill callback brings all of them back to system memory.
 *
 * The device node, and the ioctls that it has in common with the managed devices,
 * are in lib/test_hmm_devmem.c.
 */

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/hmm_devmem.h>
#include <linux/memcontrol.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/userfaultfd_k.h>

#include "../test_hmm_devmem_uapi.h"
#include "classic.h"
#include "hw.h"

/* Pages that are migrated together. */
#define THD_CLASSIC_BATCH	64
/* The kill callback waits about one second for pages that are in use for a moment. */
#define THD_CLASSIC_TRIES	100
#define THD_CLASSIC_DELAY_MS	10

/**
 * struct thd_classic_batch - pages that are migrated together
 * @src: The pages to move, as in struct migrate_vma.
 * @dst: Their destinations, as there.
 */
struct thd_classic_batch {
	unsigned long src[THD_CLASSIC_BATCH];
	unsigned long dst[THD_CLASSIC_BATCH];
};

/**
 * struct thd_classic - a classic device
 * @hw: Its hardware.
 * @nr_pages: Pages of device memory.
 * @kills: How often the kill callback ran.
 * @cleanups: How often the cleanup callback ran.
 * @lock: Protects the fields below up to @used. Taken with interrupts off: the last
 *	reference to a page can be dropped anywhere.
 * @killed: Nothing can be allocated any more.
 * @next: Where to search for a free page first.
 * @allocated: Pages allocated since the device memory was added.
 * @freed: Pages freed.
 * @used: One bit for each page that is in use.
 * @evict: Used by the kill callback, so that it need not allocate one.
 */
struct thd_classic {
	struct thd_hw *hw;
	unsigned long nr_pages;
	atomic_long_t kills;
	atomic_long_t cleanups;

	spinlock_t lock; /* see above */
	bool killed;
	unsigned long next;
	u64 allocated;
	u64 freed;
	unsigned long *used;
	struct thd_classic_batch evict;
};

/**
 * thd_classic_create() - Set up a classic device
 * @hw: Its hardware, which has VRAM that the CPU cannot address.
 * @size: Bytes of VRAM.
 *
 * Context: Process context, may sleep.
 * Return: The device, or NULL if there is not enough memory.
 */
struct thd_classic *thd_classic_create(struct thd_hw *hw, u64 size)
{
	struct thd_classic *classic;

	classic = kzalloc_obj(*classic);
	if (!classic)
		return NULL;
	classic->hw = hw;
	classic->nr_pages = size >> PAGE_SHIFT;
	spin_lock_init(&classic->lock);
	classic->used = bitmap_zalloc(classic->nr_pages,
				      GFP_KERNEL | __GFP_NOWARN);
	if (!classic->used) {
		kfree(classic);
		return NULL;
	}
	return classic;
}
EXPORT_SYMBOL_NS_GPL(thd_classic_create, "TEST_HMM_DEVMEM");

/**
 * thd_classic_destroy() - Free a classic device
 * @classic: The device, without device memory; can be NULL.
 *
 * Context: Any context.
 */
void thd_classic_destroy(struct thd_classic *classic)
{
	if (!classic)
		return;
	bitmap_free(classic->used);
	kfree(classic);
}
EXPORT_SYMBOL_NS_GPL(thd_classic_destroy, "TEST_HMM_DEVMEM");

/**
 * thd_classic_get_stats() - Get what the library does not count for a classic device
 * @classic: The device.
 * @stats: The fields that the library leaves 0 are filled in.
 *
 * Context: Any context.
 */
void thd_classic_get_stats(struct thd_classic *classic,
			   struct hmm_devmem_test_stats *stats)
{
	stats->kills = atomic_long_read(&classic->kills);
	stats->cleanups = atomic_long_read(&classic->cleanups);

	guard(spinlock_irqsave)(&classic->lock);
	if (!stats->plugged)
		return;
	stats->allocated = classic->allocated;
	stats->freed = classic->freed;
}
EXPORT_SYMBOL_NS_GPL(thd_classic_get_stats, "TEST_HMM_DEVMEM");

/*
 * Allocator.
 */

/*
 * Pages that could not be brought back to system memory when the device memory was
 * removed were never freed, and are no longer pages of this device.
 */
static void classic_reset(struct thd_classic *classic)
{
	guard(spinlock_irqsave)(&classic->lock);
	bitmap_zero(classic->used, classic->nr_pages);
	classic->killed = false;
	classic->next = 0;
	classic->allocated = 0;
	classic->freed = 0;
}

static long classic_take(struct thd_classic *classic)
{
	unsigned long bit;

	guard(spinlock_irqsave)(&classic->lock);
	if (classic->killed)
		return -ENODEV;
	bit = find_next_zero_bit(classic->used, classic->nr_pages,
				 classic->next);
	if (bit >= classic->nr_pages)
		bit = find_first_zero_bit(classic->used, classic->nr_pages);
	if (bit >= classic->nr_pages)
		return -ENOMEM;
	__set_bit(bit, classic->used);
	classic->next = bit + 1;
	classic->allocated++;
	return bit;
}

static void classic_put(struct thd_classic *classic, unsigned long bit)
{
	guard(spinlock_irqsave)(&classic->lock);
	WARN_ON_ONCE(!__test_and_clear_bit(bit, classic->used));
	classic->freed++;
}

static void classic_free(struct hmm_devmem *devmem, struct page *page)
{
	classic_put(devmem->driver_data, page_to_pfn(page) - devmem->pfn_first);
}

/* Allocates a device page, which is locked and has one reference. */
static struct page *classic_alloc(struct hmm_devmem *devmem)
{
	struct thd_classic *classic = devmem->driver_data;
	struct page *page;
	long bit;
	u64 offset;

	bit = classic_take(classic);
	if (bit < 0)
		return NULL;
	offset = (u64)bit << PAGE_SHIFT;
	if (thd_hw_populate(classic->hw, offset, PAGE_SIZE)) {
		classic_put(classic, bit);
		return NULL;
	}
	page = pfn_to_page(devmem->pfn_first + bit);
	zone_device_page_init(page, page_pgmap(page), 0);
	/* The CPU's page table will not tell that the device has written to it. */
	folio_set_dirty(page_folio(page));
	hmm_devmem_page_set_drvdata(page, (unsigned long)
				    thd_hw_vram(classic->hw, offset));
	return page;
}

/*
 * Migration.
 */

/* Allocates destinations for the pages that migrate_vma_setup() found, and copies. */
typedef void (*classic_fill_fn)(struct hmm_devmem *devmem,
				struct migrate_vma *args);

static void classic_copy_to_device(struct page *device, struct page *ram)
{
	void *data = (void *)hmm_devmem_page_get_drvdata(device);

	if (ram)
		memcpy_from_page(data, ram, 0, PAGE_SIZE);
	else
		clear_page(data);
}

/*
 * Core collects a zero page as a hole, and drops userfaultfd's write protection of
 * it: the process's next write would not be reported.
 */
static bool classic_may_fill(const struct migrate_vma *args, unsigned long i)
{
	return migrate_pfn_to_page(args->src[i]) || !userfaultfd_armed(args->vma);
}

static void classic_fill_device(struct hmm_devmem *devmem,
				struct migrate_vma *args)
{
	unsigned long i;
	struct page *page;

	for (i = 0; i < args->npages; i++) {
		if (!(args->src[i] & MIGRATE_PFN_MIGRATE) ||
		    !classic_may_fill(args, i))
			continue;
		page = classic_alloc(devmem);
		if (!page)
			break;
		classic_copy_to_device(page, migrate_pfn_to_page(args->src[i]));
		args->dst[i] = migrate_pfn(page_to_pfn(page)) |
			       (args->src[i] & MIGRATE_PFN_WRITE);
	}
}

/* Copies the data of @src to @folio (or NULL); returns the folio's migration entry. */
static unsigned long classic_fill_folio(struct folio *folio, unsigned long src)
{
	const struct page *page = migrate_pfn_to_page(src);

	if (!folio)
		return 0;
	folio_lock(folio);
	memcpy_to_page(folio_page(folio, 0), 0,
		       (void *)hmm_devmem_page_get_drvdata(page), PAGE_SIZE);
	return migrate_pfn(folio_pfn(folio));
}

static void classic_fill_ram(struct hmm_devmem *devmem,
			     struct migrate_vma *args)
{
	struct folio *folio;
	unsigned long i;

	for (i = 0; i < args->npages; i++) {
		if (!(args->src[i] & MIGRATE_PFN_MIGRATE) ||
		    !(args->src[i] & MIGRATE_PFN_VALID))
			continue;
		folio = vma_alloc_folio(GFP_HIGHUSER_MOVABLE, 0, args->vma,
					args->start + (i << PAGE_SHIFT));
		args->dst[i] = classic_fill_folio(folio, args->src[i]);
	}
}

/* Returns how many pages were moved, or an errno. */
static long classic_migrate_batch(struct hmm_devmem *devmem,
				  struct migrate_vma *args,
				  classic_fill_fn fill)
{
	unsigned long i;
	long moved = 0;
	int ret;

	memset(args->dst, 0,
	       ((args->end - args->start) >> PAGE_SHIFT) * sizeof(*args->dst));
	ret = migrate_vma_setup(args);
	if (ret)
		return ret;
	fill(devmem, args);
	migrate_vma_pages(args);
	for (i = 0; i < args->npages; i++)
		moved += args->dst[i] && (args->src[i] & MIGRATE_PFN_MIGRATE);
	migrate_vma_finalize(args);
	return moved;
}

static long classic_migrate_locked(struct hmm_devmem *devmem,
				   struct mm_struct *mm, unsigned long end,
				   struct migrate_vma *args,
				   classic_fill_fn fill)
{
	long ret, moved = 0;

	mmap_assert_locked(mm);

	for (; args->start < end; args->start = args->end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		args->vma = vma_lookup(mm, args->start);
		if (!args->vma || !(args->vma->vm_flags & VM_READ))
			return -EINVAL;
		args->end = min3(end, args->vma->vm_end, args->start +
				 THD_CLASSIC_BATCH * PAGE_SIZE);
		ret = classic_migrate_batch(devmem, args, fill);
		if (ret < 0)
			return ret;
		moved += ret;
		cond_resched();
	}
	return moved;
}

static long classic_migrate(struct hmm_devmem *devmem, struct mm_struct *mm,
			    unsigned long start, unsigned long end,
			    unsigned long flags, classic_fill_fn fill)
{
	struct thd_classic_batch *batch __free(kfree) = kmalloc_obj(*batch);
	struct migrate_vma args = {
		.start = start,
		.pgmap_owner = devmem->owner,
		.flags = flags,
	};

	if (!batch)
		return -ENOMEM;
	args.src = batch->src;
	args.dst = batch->dst;
	guard(mmap_read_lock)(mm);
	return classic_migrate_locked(devmem, mm, end, &args, fill);
}

/**
 * thd_classic_to_device() - Move a range of a process to the device
 * @devmem: The device memory.
 * @mm: The address space of the process.
 * @start: Start of the range, page-aligned.
 * @end: End of the range, exclusive.
 *
 * Context: Process context, may sleep. Takes the mmap lock.
 * Return:
 * * the number of pages moved
 * * %-EINVAL - a part of the range is not mapped, or cannot be read or migrated
 * * %-EINTR - the process is being killed
 * * %-ENOMEM - not enough memory for the call itself
 */
long thd_classic_to_device(struct hmm_devmem *devmem, struct mm_struct *mm,
			   unsigned long start, unsigned long end)
{
	return classic_migrate(devmem, mm, start, end,
			       MIGRATE_VMA_SELECT_SYSTEM, classic_fill_device);
}
EXPORT_SYMBOL_NS_GPL(thd_classic_to_device, "TEST_HMM_DEVMEM");

/**
 * thd_classic_to_ram() - Move a range of a process back to system memory
 * @devmem: The device memory.
 * @mm: The address space of the process.
 * @start: Start of the range, page-aligned.
 * @end: End of the range, exclusive.
 *
 * Context: Process context, may sleep. Takes the mmap lock.
 * Return: The number of pages moved, or an errno as thd_classic_to_device().
 */
long thd_classic_to_ram(struct hmm_devmem *devmem, struct mm_struct *mm,
			unsigned long start, unsigned long end)
{
	return classic_migrate(devmem, mm, start, end,
			       MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
			       classic_fill_ram);
}
EXPORT_SYMBOL_NS_GPL(thd_classic_to_ram, "TEST_HMM_DEVMEM");

static vm_fault_t classic_fault(struct hmm_devmem *devmem,
				struct vm_area_struct *vma, unsigned long addr,
				const struct page *page, unsigned int flags,
				pmd_t *pmdp)
{
	unsigned long src = 0, dst = 0;
	struct migrate_vma args = {
		.vma = vma,
		.start = PAGE_ALIGN_DOWN(addr),
		.end = PAGE_ALIGN_DOWN(addr) + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.pgmap_owner = devmem->owner,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = (struct page *)page,
	};
	bool oom;

	if (migrate_vma_setup(&args))
		return VM_FAULT_SIGBUS;
	classic_fill_ram(devmem, &args);
	oom = (src & MIGRATE_PFN_MIGRATE) && !dst;
	migrate_vma_pages(&args);
	migrate_vma_finalize(&args);
	/* A page that did not move has other references: the CPU faults again. */
	return oom ? VM_FAULT_OOM : 0;
}

/* Collects the next pages in use from @bit on; returns how many. */
static unsigned int classic_find_used(struct hmm_devmem *devmem,
				      unsigned long *bit)
{
	struct thd_classic *classic = devmem->driver_data;
	unsigned int nr = 0;

	guard(spinlock_irqsave)(&classic->lock);
	for_each_set_bit_from(*bit, classic->used, classic->nr_pages) {
		if (nr == THD_CLASSIC_BATCH)
			break;
		classic->evict.src[nr++] = devmem->pfn_first + *bit;
	}
	return nr;
}

/*
 * A page that is just being allocated or freed is charged to no memory cgroup. If it
 * moved, its new page would have no charge either, and core loops for ever when it puts
 * such a page on an LRU list.
 */
static bool classic_is_orphan(unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	return !mem_cgroup_disabled() && page &&
	       !folio_memcg_charged(page_folio(page));
}

static void classic_evict_batch(struct thd_classic_batch *batch,
				unsigned int nr)
{
	struct folio *folio;
	unsigned int i;

	migrate_device_pfns(batch->src, nr);
	for (i = 0; i < nr; i++) {
		batch->dst[i] = 0;
		if (classic_is_orphan(batch->src[i]))
			batch->src[i] &= ~MIGRATE_PFN_MIGRATE;
		if (!(batch->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		folio = folio_alloc(GFP_HIGHUSER_MOVABLE, 0);
		batch->dst[i] = classic_fill_folio(folio, batch->src[i]);
	}
	migrate_device_pages(batch->src, batch->dst, nr);
	migrate_device_finalize(batch->src, batch->dst, nr);
}

/* Returns whether pages were found. */
static bool classic_evict_pass(struct hmm_devmem *devmem)
{
	struct thd_classic *classic = devmem->driver_data;
	unsigned long bit = 0;
	unsigned int nr;
	bool found = false;

	while ((nr = classic_find_used(devmem, &bit))) {
		classic_evict_batch(&classic->evict, nr);
		found = true;
		cond_resched();
	}
	return found;
}

static void classic_kill(struct hmm_devmem *devmem)
{
	struct thd_classic *classic = devmem->driver_data;
	unsigned int tries;

	atomic_long_inc(&classic->kills);
	scoped_guard(spinlock_irqsave, &classic->lock)
		classic->killed = true;
	for (tries = 0; tries < THD_CLASSIC_TRIES; tries++) {
		if (!classic_evict_pass(devmem))
			return;
		/* No pause after the first pass: all pages that it found can have moved. */
		if (tries)
			msleep(THD_CLASSIC_DELAY_MS);
	}
}

static void classic_cleanup(struct hmm_devmem *devmem)
{
	struct thd_classic *classic = devmem->driver_data;

	atomic_long_inc(&classic->cleanups);
}

static const struct hmm_devmem_ops classic_ops = {
	.free = classic_free,
	.fault = classic_fault,
	.kill = classic_kill,
	.cleanup = classic_cleanup,
};

/**
 * thd_classic_add() - Add the device memory of a classic device
 * @classic: The device, without device memory.
 * @dev: Its struct device.
 *
 * Context: Process context, may sleep.
 * Return: The device memory or an ERR_PTR(), see hmm_devmem_add().
 */
struct hmm_devmem *thd_classic_add(struct thd_classic *classic,
				   struct device *dev)
{
	struct hmm_devmem *devmem;

	classic_reset(classic);
	devmem = hmm_devmem_add(&classic_ops, dev,
				(u64)classic->nr_pages << PAGE_SHIFT);
	if (!IS_ERR(devmem))
		devmem->driver_data = classic;
	return devmem;
}
EXPORT_SYMBOL_NS_GPL(thd_classic_add, "TEST_HMM_DEVMEM");

MODULE_DESCRIPTION("Classic driver on HMM device memory, for testing");
MODULE_IMPORT_NS("TEST_HMM_DEVMEM");
MODULE_LICENSE("GPL");
