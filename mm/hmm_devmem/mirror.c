// SPDX-License-Identifier: GPL-2.0
/*
 * Mirrors: page faults of a device, and migrations that also map what they have moved.
 */

/**
 * DOC: Mirror
 *
 * A mirror makes entries in a device's page table in two ways: in a device fault, for
 * what the CPU's page table maps, and in a migration, for pages that have just moved to
 * the device. It has no references to pages. An entry is valid because each
 * invalidation of its address removes it, under the mirror's lock, before the page
 * can go away.
 *
 * A *device fault* walks the CPU's page table, and makes entries if nothing was
 * invalidated since it began, see mmu_interval_read_begin(). Else it starts again.
 *
 * A device fault that moves pages brings those along that the device seems to need soon:
 * see "DOC: Streams" in stream.c. A GPU runs many threads, so a mirror remembers four
 * times as many streams as a CPU. The mirror counts the pages that it brings along, and how
 * many of these the device used: all pages of a window, if the next device fault is on the
 * page behind it.
 *
 * A *migration* cannot begin again, because it invalidates what it moves: see
 * "DOC: Invalidations" in invalidate.c.
 *
 * Several device faults that migrate at the same time would keep each other, and all other
 * faults of the mirror, from ending: an invalidation makes a walk wait and begin again
 * wherever it is, and with many threads there would always be one. So a fault that an
 * invalidation has made begin again lets no other fault of the mirror migrate while it walks.
 */

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/align.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/hmm.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb_inline.h>
#include <linux/jiffies.h>
#include <linux/memremap.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/secretmem.h>
#include <linux/slab.h>

#include "collect.h"
#include "devmem.h"
#include "mirror.h"
#include "pool.h"
#include "power.h"
#include "stats.h"
#include "stream.h"

/*
 * A device fault gives up when it has been tried so many times and for a second. Time
 * alone would not do: a busy machine does not do much in a second.
 */
#define MIRROR_FAULT_TRIES	1000
/* A walk that timed out, after a second of invalidations, counts as so many tries. */
#define MIRROR_WALK_COST	256

#define MIRROR_FLAGS \
	(HMM_DEVMEM_MIRROR_WRITE | HMM_DEVMEM_MIRROR_MIGRATE | \
	 HMM_DEVMEM_MIRROR_PRESENT)

/* The device memory of a mirror with a reference, or NULL. */
static struct hmm_devmem *mirror_get_devmem(struct hmm_devmem_mirror *m)
{
	guard(mutex)(&m->lock);
	if (m->devmem)
		hmm_devmem_get(m->devmem);
	return m->devmem;
}

static void mirror_put_devmem(struct hmm_devmem *devmem)
{
	if (devmem)
		hmm_devmem_put(devmem);
}

/* Move @req->start to @req->end, and set @req->left. */
static long mirror_migrate(struct hmm_devmem_mirror *m,
			   struct hmm_devmem *devmem, struct hmm_devmem_request *req,
			   struct hmm_devmem_mirror_migration *migration)
{
	struct hmm_devmem_request own = {
		.mm = m->notifier.mm,
		.start = req->start,
		.end = req->end,
		.ctx = m->context,
		.priv = req->priv,
	};
	long ret;

	hmm_devmem_mirror_begin(migration, m, devmem, own.start, own.end);
	ret = hmm_devmem_migrate_through(devmem, &own, migration);
	hmm_devmem_mirror_end(migration);
	req->left = own.left;
	return ret;
}

/**
 * hmm_devmem_mirror_request() - Move memory to the device, map it, and report what is left
 * @m: The mirror.
 * @req: What to move: &hmm_devmem_request.start and .end; and &hmm_devmem_request.priv.
 *	&hmm_devmem_request.left is filled in. The process and the context are those of
 *	the mirror, so the other fields need not be set.
 *
 * As hmm_devmem_migrate() with &hmm_devmem_mirror.devmem and &hmm_devmem_mirror.context.
 * Also maps the pages that have moved for the device, as hmm_devmem_mirror_migrate() does.
 *
 * Context: As hmm_devmem_mirror_migrate().
 * Return: As hmm_devmem_migrate(), and %-ENODEV if the mirror has no device memory.
 */
long hmm_devmem_mirror_request(struct hmm_devmem_mirror *m, struct hmm_devmem_request *req)
{
	struct hmm_devmem_mirror_migration migration = {
		.want = HMM_DEVMEM_MIRROR_END,
	};
	struct hmm_devmem *devmem = mirror_get_devmem(m);
	long ret;

	req->left = (struct hmm_devmem_left) { };
	if (!devmem)
		return -ENODEV;
	ret = mirror_migrate(m, devmem, req, &migration);
	mirror_put_devmem(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_mirror_request);

/**
 * hmm_devmem_mirror_migrate() - Move memory of the process to the device, and map it
 * @m: The mirror.
 * @start: User virtual address, page aligned, inclusive.
 * @end: User virtual address, page aligned, exclusive.
 *
 * As hmm_devmem_migrate_to_device() with &hmm_devmem_mirror.devmem and
 * &hmm_devmem_mirror.context. Also maps the pages that have moved for the device, but
 * not those that were there before, nor those that were invalidated meanwhile:
 * for these the device takes faults. The short form of hmm_devmem_mirror_request().
 *
 * Context: Process context, may sleep. Takes the mmap lock, and
 * &hmm_devmem_mirror.lock. May be called by several tasks at once.
 * Return: As hmm_devmem_migrate_to_device(), and %-ENODEV if the mirror has no device
 * memory.
 */
long hmm_devmem_mirror_migrate(struct hmm_devmem_mirror *m, unsigned long start,
			       unsigned long end)
{
	struct hmm_devmem_request req = {
		.start = start,
		.end = end,
	};

	return hmm_devmem_mirror_request(m, &req);
}
EXPORT_SYMBOL_GPL(hmm_devmem_mirror_migrate);

/*
 * Device faults.
 */

/**
 * struct mirror_fault - a device fault
 * @m: The mirror.
 * @devmem: Its device memory, with a reference during a try; or NULL.
 * @addr: The address that the fault is about, page aligned.
 * @flags: HMM_DEVMEM_MIRROR_*.
 * @may_migrate: The caller has asked for a migration, which is still to be tried.
 * @window: The pages to migrate, if @along is not NULL.
 * @along: Where to note what @window brings along; NULL if that was not decided.
 * @faults: How often the CPU's fault handler was called.
 * @to_ram: The CPU's fault handler has to bring the page back from private memory.
 * @raced: An invalidation has made the fault begin again: let no other fault of the mirror
 *	migrate while this one walks.
 * @guarded: userfaultfd is told of accesses to the mapping: no page of it moves.
 * @marked: NUMA balancing has marked the page: the CPU's fault handler has to end that.
 * @first: Index in @pfns of the first page that is of the same mapping, inclusive.
 * @end: Index in @pfns of the end of the mapping's pages, exclusive.
 * @result: What to return.
 * @range: The last walk of the CPU's page table.
 * @pfns: What that walk has found.
 */
struct mirror_fault {
	struct hmm_devmem_mirror *m;
	struct hmm_devmem *devmem;
	unsigned long addr;
	unsigned int flags;
	bool may_migrate;
	struct hmm_devmem_window window;
	unsigned long *along;
	unsigned int faults;
	bool to_ram;
	bool raced;
	bool guarded;
	bool marked;
	unsigned int first;
	unsigned int end;
	long result;
	struct hmm_range range;
	unsigned long pfns[HMM_DEVMEM_MIRROR_FAULT_NR];
};

/* What to do after a look at the CPU's page table. */
enum fault_step {
	STEP_DONE,	/* nothing: see &mirror_fault.result */
	STEP_AGAIN,	/* look again: it may have changed */
	STEP_MIGRATE,	/* move the page to the device */
	STEP_FAULT,	/* let the CPU's fault handler serve it */
};

/* Tests replace this, to have something invalidated after each walk. */
VISIBLE_IF_KUNIT int hmm_devmem_mirror_walk(struct hmm_range *range)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_mirror_walk, range);
	return hmm_range_fault_unlocked_timeout(range,
			msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT));
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_mirror_walk);

static int fault_walk(struct mirror_fault *fault, unsigned long start,
		      unsigned long end, unsigned long flags, void *owner)
{
	fault->range = (struct hmm_range) {
		.notifier = &fault->m->notifier,
		.start = start,
		.end = end,
		.hmm_pfns = fault->pfns,
		.default_flags = flags,
		.dev_private_owner = owner,
	};
	memset(fault->pfns, 0, sizeof(fault->pfns));
	return hmm_devmem_mirror_walk(&fault->range);
}

static void *fault_owner(const struct mirror_fault *fault)
{
	return fault->devmem && !fault->guarded ? fault->devmem->owner : NULL;
}

/* The index of a page in &mirror_fault.pfns. */
static unsigned int fault_index_of(const struct mirror_fault *fault, unsigned long addr)
{
	return (addr - fault->range.start) >> PAGE_SHIFT;
}

/* The index of the page that the fault is about. */
static unsigned int fault_index(const struct mirror_fault *fault)
{
	return fault_index_of(fault, fault->addr);
}

/*
 * Does the mapping allow the access that the fault is about? Find out before anything moves.
 * With HMM_DEVMEM_MIRROR_PRESENT nothing moves, and the walk finds no page that the CPU's
 * page table does not map: only shadow stacks must be refused.
 */
static int fault_check_access(const struct mirror_fault *fault, vm_flags_t vm_flags)
{
	if (vm_flags & VM_SHADOW_STACK)
		return -EFAULT;
	if (fault->flags & HMM_DEVMEM_MIRROR_PRESENT)
		return 0;
	if (!(vm_flags & VM_READ))
		return -EFAULT;
	return fault->flags & HMM_DEVMEM_MIRROR_WRITE && !(vm_flags & VM_WRITE) ? -EPERM : 0;
}

/*
 * Is the page there, although hmm_range_fault() does not report it? NUMA balancing marks
 * pages to be told of the next access, and takes the permission to write away. If a page
 * moved like this, the device could not write to it, and of a huge page nothing is known:
 * it would be split, for one page that moves. What the walk did not find may also have come
 * since, which makes no difference.
 */
static bool fault_is_marked(const struct mirror_fault *fault, struct vm_area_struct *vma)
{
	struct folio_walk walk;

	if (!fault->may_migrate || fault->pfns[fault_index(fault)] & HMM_PFN_VALID ||
	    is_vm_hugetlb_page(vma) || !folio_walk_start(&walk, vma, fault->addr, 0))
		return false;
	folio_walk_end(&walk, vma);
	return true;
}

/*
 * Look at the mapping of the address, since hmm_range_fault() does not look at all that
 * matters. Do so after the walk: if the process makes the mapping unreadable, or maps a
 * shadow stack there, it has done so before this look, or an invalidation makes the fault
 * begin again.
 *
 * A shadow stack is only for the CPU's calls and returns. In a mapping for which
 * userfaultfd is told of each access, hmm_range_fault() reports device pages as if they
 * could be accessed: have them brought back to system memory, and leave all pages there.
 */
static int fault_look_at_mapping(struct mirror_fault *fault)
{
	const struct hmm_range *range = &fault->range;
	struct mm_struct *mm = fault->m->notifier.mm;
	struct vm_area_struct *vma;
	int ret = 0;

	fault->first = fault_index(fault);
	fault->end = fault->first + 1;
	fault->guarded = false;
	fault->marked = false;
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, fault->addr);
	if (vma) {
		fault->guarded = vma->vm_flags & VM_UFFD_RWP;
		fault->marked = fault_is_marked(fault, vma);
		fault->first = fault_index_of(fault, max(range->start, vma->vm_start));
		fault->end = fault_index_of(fault, min(range->end, vma->vm_end));
		ret = fault_check_access(fault, vma->vm_flags);
	}
	mmap_read_unlock(mm);
	return ret;
}

/* Walk the aligned 64 KiB around the address, without a CPU fault. */
static int fault_look(struct mirror_fault *fault)
{
	const unsigned long size = HMM_DEVMEM_MIRROR_FAULT_NR << PAGE_SHIFT;
	const unsigned long start = ALIGN_DOWN(fault->addr, size);
	int ret;

	ret = fault_walk(fault, start, start + size, 0, fault_owner(fault));
	return ret ?: fault_look_at_mapping(fault);
}

/* Does one entry of the CPU's page table map a whole block here? */
static bool maps_block(unsigned long pfn)
{
	return pfn & HMM_PFN_VALID &&
	       hmm_pfn_to_map_order(pfn) >= HMM_DEVMEM_BLOCK_ORDER;
}

/*
 * The page at @i. For a large folio of private memory, hmm_range_fault() gives the
 * folio's first pages, wherever in the folio the walk begins. So compute the page from its
 * folio and the address, which stays right if core changes that.
 */
static struct page *fault_page(const struct mirror_fault *fault, unsigned int i)
{
	struct page *page = hmm_pfn_to_page(fault->pfns[i]);
	unsigned long index = (fault->range.start >> PAGE_SHIFT) + i;

	if (!maps_block(fault->pfns[i]) || !is_device_private_page(page))
		return page;
	return folio_page(page_folio(page), index & (HMM_DEVMEM_BLOCK_NR - 1));
}

/* Is @page on the mirror's device memory? */
static bool fault_is_local(const struct mirror_fault *fault, const struct page *page)
{
	return fault->devmem && is_zone_device_page(page) &&
	       hmm_devmem_from_page(page) == fault->devmem;
}

/* Is the data of @page, which is on the mirror's device memory, lost? */
static bool fault_is_lost(const struct mirror_fault *fault, const struct page *page)
{
	return READ_ONCE(priv(fault->devmem)->dead) ||
	       (hmm_devmem_managed(fault->devmem) &&
		hmm_devmem_pool_retired(priv(fault->devmem)->pool, page_to_pfn(page)));
}

/* Can one entry of the device's page table map the block that the page at @i is in? */
static bool fault_maps_block(const struct mirror_fault *fault, unsigned int i)
{
	if (!maps_block(fault->pfns[i]))
		return false;
	/* Any page of the block could be lost. */
	return !fault_is_local(fault, fault_page(fault, i)) ||
	       !hmm_devmem_managed(fault->devmem) ||
	       !hmm_devmem_pool_any_retired(priv(fault->devmem)->pool);
}

/*
 * Is @page one that the device must not have, although hmm_range_fault() reports it? The
 * data of a @local page may be lost. The kernel has no mapping of pages of memfd_secret(),
 * and PCI memory of another device has no DMA address like that of system memory.
 */
static bool fault_is_refused(const struct mirror_fault *fault, struct page *page, bool local)
{
	struct address_space *mapping;

	if (local)
		return fault_is_lost(fault, page);
	if (is_pci_p2pdma_page(page))
		return true;
	if (likely(!secretmem_active()))
		return false;
	mapping = folio_mapping(page_folio(page));
	return mapping && secretmem_mapping(mapping);
}

static bool page_is_zeros(struct page *page)
{
	return is_zero_page(page) || is_huge_zero_folio(page_folio(page));
}

/*
 * Can the page at @i be one that moves? A page of a file does not: a migration would only
 * invalidate the pages around it. A zero page is replaced by a device page.
 */
static bool fault_may_move(const struct mirror_fault *fault, unsigned int i)
{
	struct page *page;

	if (!(fault->pfns[i] & HMM_PFN_VALID))
		return true;
	page = fault_page(fault, i);
	return PageAnon(page) || page_is_zeros(page);
}

/*
 * Can the page at @i be mapped for the device? @asked is the page that the fault is about.
 * The others are not mapped where they are if a later fault can migrate them.
 */
static bool fault_can_map(const struct mirror_fault *fault, unsigned int i,
			  unsigned int asked)
{
	struct page *page;
	bool local;

	if (!(fault->pfns[i] & HMM_PFN_VALID))
		return false;
	page = fault_page(fault, i);
	local = fault_is_local(fault, page);
	/* The device cannot access private memory of another. */
	if ((!local && is_device_private_page(page)) || fault_is_refused(fault, page, local))
		return false;
	if (i == asked)
		return !(fault->flags & HMM_DEVMEM_MIRROR_WRITE) ||
		       fault->pfns[i] & HMM_PFN_WRITE;
	/* With an entry, the device would take no fault that migrates it. */
	return !(fault->flags & HMM_DEVMEM_MIRROR_MIGRATE) || local || !fault_may_move(fault, i);
}

/* An entry for the page at @i, or for all of the block that it is in. */
static struct hmm_devmem_map_entry fault_entry(const struct mirror_fault *fault,
					       unsigned int i)
{
	const bool block = fault_maps_block(fault, i);
	const unsigned long addr = fault->range.start + ((unsigned long)i << PAGE_SHIFT);
	const unsigned long in_block = block ? addr & (HMM_DEVMEM_BLOCK_SIZE - 1) : 0;

	return (struct hmm_devmem_map_entry) {
		.addr = addr - in_block,
		.pfn = page_to_pfn(fault_page(fault, i)) - (in_block >> PAGE_SHIFT),
		.order = block ? HMM_DEVMEM_BLOCK_ORDER : 0,
		.writable = fault->pfns[i] & HMM_PFN_WRITE,
	};
}

/* The entry that the fault is about, and those of its neighbours in the same mapping. */
static unsigned int fault_entries(const struct mirror_fault *fault,
				  struct hmm_devmem_map_entry *entries,
				  unsigned int asked)
{
	unsigned int i, nr = 0;

	if (fault_maps_block(fault, asked)) {
		entries[nr++] = fault_entry(fault, asked);
		return nr;
	}
	for (i = fault->first; i < fault->end; i++)
		if (fault_can_map(fault, i, asked))
			entries[nr++] = fault_entry(fault, i);
	return nr;
}

static void fault_map(struct mirror_fault *fault, unsigned int asked)
{
	struct hmm_devmem_map_entry entries[HMM_DEVMEM_MIRROR_FAULT_NR];
	const bool write = fault->flags & HMM_DEVMEM_MIRROR_WRITE;
	struct page *page = fault_page(fault, asked);
	struct hmm_devmem_mirror *m = fault->m;
	unsigned int nr;

	nr = fault_entries(fault, entries, asked);
	fault->result = hmm_devmem_mirror_enter(m, entries, nr);
	if (fault->result && nr > 1) {
		/* The callback may have failed for a neighbour only. */
		entries[0] = fault_entry(fault, asked);
		nr = 1;
		fault->result = hmm_devmem_mirror_enter(m, entries, nr);
	}
	if (fault->result)
		return;
	fault->result = hmm_devmem_mirror_reach(entries, nr, fault->addr, write);
	/* It is not known whether the device uses the other pages. */
	if (fault_is_local(fault, page))
		hmm_devmem_mark_used(fault->devmem, page_to_pfn(page), 1);
}

/*
 * Does a write fault have to get the process its own copy of a shared page first? Else the
 * shared page would move to the device, then back to be copied, and then the copy to the
 * device. A zero page need not be copied.
 */
static bool fault_wants_copy(const struct mirror_fault *fault, unsigned int asked)
{
	const unsigned long pfn = fault->pfns[asked];

	return fault->flags & HMM_DEVMEM_MIRROR_WRITE && pfn & HMM_PFN_VALID &&
	       !(pfn & HMM_PFN_WRITE) && !page_is_zeros(hmm_pfn_to_page(pfn));
}

/*
 * Decide what to do after a walk. If nothing was invalidated until the lock was taken, no
 * page that the walk has found can be invalidated while it is held.
 */
static enum fault_step fault_finish(struct mirror_fault *fault)
{
	const unsigned int asked = fault_index(fault);
	struct hmm_devmem_mirror *m = fault->m;
	struct page *page = NULL;
	bool local = false;

	guard(mutex)(&m->lock);
	if (mmu_interval_read_retry(&m->notifier, fault->range.notifier_seq) ||
	    m->devmem != fault->devmem)
		return STEP_AGAIN;
	/* The walk did not know yet what the mapping is. */
	if (fault->range.dev_private_owner != fault_owner(fault))
		return STEP_AGAIN;
	if (fault->pfns[asked] & HMM_PFN_VALID) {
		page = fault_page(fault, asked);
		local = fault_is_local(fault, page);
	}
	if (page && fault_is_refused(fault, page, local)) {
		fault->result = -EFAULT;
		return STEP_DONE;
	}
	if (fault->may_migrate && !fault->guarded && !fault->marked &&
	    !local && fault_may_move(fault, asked) && !fault_wants_copy(fault, asked))
		return STEP_MIGRATE;
	if (!fault_can_map(fault, asked, asked)) {
		/*
		 * hmm_range_fault() takes no fault for private memory of the owner
		 * it is given: neither for that of a peer, nor to write to what was
		 * shared at a fork. Without an owner the page moves back to system
		 * memory, and is then like any other.
		 */
		fault->to_ram = page && is_device_private_page(page);
		return STEP_FAULT;
	}
	fault_map(fault, asked);
	return STEP_DONE;
}

/*
 * The pages of a window that migrate with page @i: those around it that are mapped without
 * a gap. A page that was never touched gets no memory before a fault is about it.
 */
VISIBLE_IF_KUNIT void
hmm_devmem_mirror_present_run(const unsigned long *pfns, unsigned int nr,
			      unsigned int i, unsigned int *first,
			      unsigned int *last)
{
	*first = i;
	*last = i;
	while (*first && pfns[*first - 1] & HMM_PFN_VALID)
		--*first;
	while (*last + 1 < nr && pfns[*last + 1] & HMM_PFN_VALID)
		++*last;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_mirror_present_run);

static unsigned long fault_page_nr(const struct mirror_fault *fault)
{
	return fault->addr >> PAGE_SHIFT;
}

/* Cut a window down to the pages around the fault's that the process maps without a gap. */
static struct hmm_devmem_window window_present(struct mirror_fault *fault,
					       struct hmm_devmem_window window)
{
	const unsigned long page = fault_page_nr(fault);
	const unsigned long nr = hmm_devmem_window_pages(window);
	struct hmm_range range = {
		.notifier = &fault->m->notifier,
		.start = window.first << PAGE_SHIFT,
		.end = window.end << PAGE_SHIFT,
		.dev_private_owner = fault_owner(fault),
	};
	unsigned int first, last;

	if (nr == 1)
		return window;
	/* If there is no memory to look at the others, only the page of the fault moves. */
	range.hmm_pfns = kcalloc(nr, sizeof(*range.hmm_pfns),
				 GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (!range.hmm_pfns || hmm_devmem_mirror_walk(&range)) {
		kfree(range.hmm_pfns);
		return hmm_devmem_window_one(page);
	}
	hmm_devmem_mirror_present_run(range.hmm_pfns, nr, page - window.first,
				      &first, &last);
	kfree(range.hmm_pfns);
	return (struct hmm_devmem_window) {
		.first = window.first + first,
		.end = window.first + last + 1,
	};
}

/* Did the device use what was brought along the last time? Then count it, once. */
static void fault_count_used(struct mirror_fault *fault)
{
	struct hmm_devmem_mirror_streams *streams = fault->m->streams;
	unsigned int set;
	int read;

	for (set = 0; set < HMM_DEVMEM_NR_STREAM_SETS; set++) {
		read = hmm_devmem_streams_read(&streams->sets.set[set],
					       fault->m->notifier.mm,
					       fault_page_nr(fault));
		if (read >= 0)
			hmm_devmem_count(fault->devmem, HMM_DEVMEM_DEVICE_FAULT_USED,
					 xchg(&streams->along[set][read], 0));
	}
}

/* The window that the device accesses next if it continues its stream. */
static struct hmm_devmem_window fault_expect(const struct mirror_fault *fault,
					     struct hmm_devmem_streams *streams,
					     struct hmm_devmem_window bounds)
{
	const unsigned long page = fault_page_nr(fault);
	struct hmm_devmem_stream *stream;

	stream = hmm_devmem_streams_find(streams, fault->m->notifier.mm, page);
	if (!stream)
		return hmm_devmem_window_one(page);
	return hmm_devmem_stream_continue(stream, page, bounds);
}

/* Choose which pages to migrate. */
static void fault_choose(struct mirror_fault *fault)
{
	const bool block = maps_block(fault->pfns[fault_index(fault)]) &&
			   hmm_devmem_moves_blocks();
	const unsigned long page = fault_page_nr(fault), max = hmm_devmem_window_nr();
	struct hmm_devmem_mirror_streams *streams = fault->m->streams;
	const struct mm_struct *mm = fault->m->notifier.mm;
	const struct hmm_devmem_window bounds = {
		.first = ALIGN_DOWN(page, max),
		.end = ALIGN_DOWN(page, max) + max,
	};
	struct hmm_devmem_streams *set;
	unsigned int i;

	/* Once for each fault: looking the same page up again would start its stream again. */
	if (fault->along)
		return;
	fault_count_used(fault);
	i = hmm_devmem_stream_sets_find(&streams->sets, mm,
					block ? bounds : hmm_devmem_window_one(page));
	set = &streams->sets.set[i];
	fault->window = bounds;
	if (block)
		hmm_devmem_streams_pass(set, mm, bounds);
	else
		fault->window = window_present(fault, fault_expect(fault, set, bounds));
	fault->along = &streams->along[i][hmm_devmem_streams_latest(set)];
	/* What the stream brought last was counted just now, or is not known to be used. */
	xchg(fault->along, 0);
}

/* Count what a fault has moved. */
static void fault_count(struct mirror_fault *fault, unsigned long moved)
{
	if (!moved)
		return;
	hmm_devmem_count(fault->devmem, HMM_DEVMEM_DEVICE_FAULTS, 1);
	hmm_devmem_count(fault->devmem, HMM_DEVMEM_DEVICE_FAULT_PAGES, moved);
	hmm_devmem_count(fault->devmem, HMM_DEVMEM_DEVICE_FAULT_USED, 1);
	if (fault->along)
		xchg(fault->along, moved - 1);
}

static long fault_migrate_powered(struct mirror_fault *fault)
{
	struct hmm_devmem_mirror_migration migration = {
		.want = fault->addr,
		.want_write = fault->flags & HMM_DEVMEM_MIRROR_WRITE,
	};
	struct hmm_devmem_window window = hmm_devmem_window_one(fault_page_nr(fault));
	struct hmm_devmem_request req = { };
	long ret;

	/* Where the process has no page, migrate only this address: others get no memory yet. */
	if (fault->pfns[fault_index(fault)] & HMM_PFN_VALID) {
		fault_choose(fault);
		window = fault->window;
	}
	req.start = window.first << PAGE_SHIFT;
	req.end = window.end << PAGE_SHIFT;
	if (down_read_killable(&fault->m->turn))
		return -EINTR;
	ret = mirror_migrate(fault->m, fault->devmem, &req, &migration);
	up_read(&fault->m->turn);
	fault_count(fault, migration.moved);
	return ret == -EINTR ? ret : migration.mapped;
}

/*
 * Return: Number of pages mapped, 0 to look again, or an errno. If pages cannot move,
 * they are mapped where they are.
 */
static long fault_migrate(struct mirror_fault *fault)
{
	long ret;

	fault->may_migrate = false;
	/* Before &hmm_devmem_mirror.turn: other faults can wait for that with any lock held. */
	if (hmm_devmem_power_get(fault->devmem))
		return 0;
	ret = fault_migrate_powered(fault);
	hmm_devmem_power_put(fault->devmem);
	return ret;
}

/* Let the CPU's fault handler provide the page. */
static long fault_serve(struct mirror_fault *fault)
{
	unsigned long flags = HMM_PFN_REQ_FAULT;

	if (fault->flags & HMM_DEVMEM_MIRROR_PRESENT)
		return -ENOENT;
	if (fault->flags & HMM_DEVMEM_MIRROR_WRITE)
		flags |= HMM_PFN_REQ_WRITE;
	/* The page can migrate once the handler has brought it back or copied it. */
	if (!fault->faults++)
		fault->may_migrate = fault->devmem &&
				     fault->flags & HMM_DEVMEM_MIRROR_MIGRATE;
	return fault_walk(fault, fault->addr, fault->addr + PAGE_SIZE, flags,
			  fault->to_ram ? NULL : fault_owner(fault));
}

/* Look, and decide what to do: set @step, or return an errno. */
static int fault_decide(struct mirror_fault *fault, enum fault_step *step)
{
	const bool alone = fault->raced;
	int ret;

	if (alone && down_write_killable(&fault->m->turn))
		return -EINTR;
	ret = fault_look(fault);
	if (!ret)
		*step = fault_finish(fault);
	if (alone)
		up_write(&fault->m->turn);
	fault->raced |= ret == -EBUSY || (!ret && *step == STEP_AGAIN);
	return ret;
}

/* Return: As fault_migrate(); %-EBUSY if a walk was invalidated for a long time. */
static long fault_try(struct mirror_fault *fault)
{
	enum fault_step step;
	long ret;

	ret = fault_decide(fault, &step);
	if (ret)
		return ret;
	switch (step) {
	case STEP_DONE:
		return fault->result;
	case STEP_MIGRATE:
		return fault_migrate(fault);
	case STEP_FAULT:
		return fault_serve(fault);
	case STEP_AGAIN:
		break;
	}
	return 0;
}

static long mirror_fault(struct mirror_fault *fault)
{
	const unsigned long deadline =
		jiffies + msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	unsigned int tries = 0;
	long ret;

	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		fault->devmem = mirror_get_devmem(fault->m);
		fault->may_migrate &= !!fault->devmem;
		ret = fault_try(fault);
		mirror_put_devmem(fault->devmem);
		if (ret && ret != -EBUSY)
			return ret;
		tries += ret ? MIRROR_WALK_COST : 1;
	} while (tries < MIRROR_FAULT_TRIES || time_before(jiffies, deadline));
	return -EBUSY;
}

/**
 * hmm_devmem_mirror_fault() - Serve a page fault of the device
 * @m: The mirror.
 * @addr: The address that the device has accessed; it need not be aligned.
 * @flags: How, and what is to be done: HMM_DEVMEM_MIRROR_*.
 *
 * Provides the page as for an access of the process, moves it to the device if @flags
 * say so, and has it mapped for the device by &hmm_devmem_mirror_ops.map. What moves is
 * mapped; the process takes no page faults for what moves, or is mapped, along.
 *
 * With %HMM_DEVMEM_MIRROR_MIGRATE, pages move along if the device takes faults page by
 * page, upward or downward: see "DOC: Streams" in mm/hmm_devmem/stream.c. These are
 * pages of the same aligned 2 MiB that the process maps. If the page does not move,
 * pages of the same vma and the same aligned 64 KiB are mapped along: without
 * %HMM_DEVMEM_MIRROR_MIGRATE all that the process maps there, with it those that are on
 * the device or part of a file. If a PMD entry of the CPU's page table maps a whole
 * block, that moves as a whole, and the device gets one entry for all of it, unless the
 * device has lost pages.
 *
 * A page in private memory of another device, or one on this device that has to be
 * copied for a write, moves back to system memory first. A page that is mapped where it
 * is on this device counts as used, as by hmm_devmem_mark_used().
 *
 * Context: Process context, may sleep. Takes the mmap lock, locks of folios, and
 * &hmm_devmem_mirror.lock, and allocates with GFP_KERNEL. So the caller holds none of
 * these, nor any lock that MMU notifiers, memory reclaim or &hmm_devmem_ops.get_blocks take:
 * it can wait for a fault that migrates. May be called by several tasks at once, in any
 * process or kernel thread, also while hmm_devmem_mirror_set_devmem() is called. With
 * %HMM_DEVMEM_MIRROR_MIGRATE, it can resume the device (%HMM_DEVMEM_RUNTIME_PM), but not with
 * one of these locks held.
 * Return:
 * * number of pages that are mapped for this access of the device now, from the page of
 *   @addr on, at least 1
 * * %-EINVAL - @flags are not valid: unknown bits, or %HMM_DEVMEM_MIRROR_MIGRATE together
 *   with %HMM_DEVMEM_MIRROR_PRESENT
 * * %-ESRCH - the process has exited
 * * %-EFAULT - there is no mapping that can be read, or the page is one that the device
 *   must not have (of memfd_secret(), a shadow stack, or another device's PCI memory), or
 *   is poisoned or lost
 * * %-EPERM - the mapping cannot be written
 * * %-ENOENT - with %HMM_DEVMEM_MIRROR_PRESENT: the page is not mapped for this access
 * * %-ENOMEM - no memory for the page
 * * %-EBUSY - invalidated again and again, for a second at least
 * * %-EINTR - the caller is being killed
 * * others - from &hmm_devmem_mirror_ops.map, about the page of @addr
 *
 * After an errno, the page may have moved, and neighbours of it may have been mapped or
 * moved. An access that the mapping does not allow moves nothing.
 */
long hmm_devmem_mirror_fault(struct hmm_devmem_mirror *m, unsigned long addr,
			     unsigned int flags)
{
	const bool migrate = flags & HMM_DEVMEM_MIRROR_MIGRATE;
	struct mm_struct *mm = m->notifier.mm;
	struct mirror_fault fault = {
		.m = m,
		.addr = PAGE_ALIGN_DOWN(addr),
		.flags = flags,
		.may_migrate = migrate,
	};
	long ret;

	might_sleep();
	if (flags & ~MIRROR_FLAGS || (migrate && flags & HMM_DEVMEM_MIRROR_PRESENT))
		return -EINVAL;
	if (addr >= mm->task_size)
		return -EFAULT;
	if (!mmget_not_zero(mm))
		return -ESRCH;
	ret = mirror_fault(&fault);
	mmput(mm);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_mirror_fault);
