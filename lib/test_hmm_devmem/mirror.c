// SPDX-License-Identifier: GPL-2.0
/*
 * The device's view of a process: its page table and its page faults.
 */

/**
 * DOC: Mirror
 *
 * Each open file mirrors the address space of the process that opened it (and of
 * no other, even when a child inherits the file): the device has a page table of
 * its own, filled by page faults of the device and by migrations to it, and
 * emptied by MMU notifier invalidations.
 *
 * The page table has no references to pages. An entry is valid because the
 * invalidation that precedes the unmapping of the page waits for
 * &thd_mirror.lock, so data is read and written under that lock. For the same
 * reason user memory is accessed without page faults there; if it is not mapped,
 * it is faulted in after the lock was dropped. No buffer in between is needed.
 *
 * Entries made by a page fault follow the usual protocol: see
 * mmu_interval_read_begin(). A migration cannot, since it invalidates what it
 * moves. But nothing else may have been invalidated from before its start until
 * its pages are entered: a page that was zapped while it was being migrated
 * (MADV_DONTNEED does not wait) is free as soon as the migration has ended, and an
 * entry for it would stay. So the driver notes invalidations of other origin while
 * migrations are in progress, and then enters nothing; the device faults later.
 */

#include <linux/bits.h>
#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "test_hmm_devmem.h"

/**
 * thd_mirror_is_local() - Is a page on the device of a mirror?
 * @mirror: The mirror.
 * @page: Any page that is in use, and stays so.
 *
 * Context: Any context.
 * Return: True if it is.
 */
bool thd_mirror_is_local(const struct thd_mirror *mirror,
			 const struct page *page)
{
	const struct hmm_devmem *devmem = READ_ONCE(mirror->tdev->devmem);

	return devmem && hmm_devmem_from_page(page) == devmem;
}

/*
 * The device page table.
 */

/**
 * thd_mirror_enter() - Make an entry in the device's page table
 * @mirror: The mirror.
 * @index: User pfn.
 * @page: The page at that address.
 * @tag: What the device may do with the page.
 *
 * Context: The caller has &thd_mirror.lock, and nothing was invalidated since
 * the page was found.
 * Return: 0 or -ENOMEM.
 */
int thd_mirror_enter(struct thd_mirror *mirror, unsigned long index,
		     struct page *page, enum thd_access_tag tag)
{
	void *entry;

	lockdep_assert_held(&mirror->lock);

	/* A large entry is dropped as a whole; the device faults the rest in again. */
	entry = xa_load(&mirror->table, index);
	if (entry && thd_entry_is_large(entry))
		xa_erase(&mirror->table, index);
	return xa_err(xa_store(&mirror->table, index,
			       thd_entry(page_to_pfn(page), false, tag),
			       GFP_ATOMIC));
}

/* The entry for @index; cheap if @xas is at @index - 1. */
static void *table_step(struct xa_state *xas, unsigned long index)
{
	if (!xas_not_node(xas->xa_node) && xas->xa_index + 1 == index)
		return xas_next(xas);
	xas_set(xas, index);
	return xas_load(xas);
}

/* Like thd_mirror_enter(), for one of many pages in a row. */
static void table_enter_page(struct xa_state *xas, unsigned long index, void *entry)
{
	void *old = table_step(xas, index);

	if (unlikely(old && thd_entry_is_large(old))) {
		xas_store(xas, NULL);
		xas_set(xas, index);
	}
	xas_store(xas, entry);
}

static void table_enter_large(struct thd_mirror *mirror, unsigned long index,
			      unsigned int order, void *entry)
{
	XA_STATE_ORDER(xas, &mirror->table, index, order);

	xas_store(&xas, entry);
}

/* An entry that there is no memory for is left out: the device takes a fault. */
static void table_enter(struct thd_mirror *mirror,
			const struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	XA_STATE(xas, &mirror->table, 0);
	unsigned int i;

	lockdep_assert_held(&mirror->lock);

	xas_lock(&xas);
	for (i = 0; i < nr; i++) {
		const unsigned long index = entries[i].addr >> PAGE_SHIFT;
		void *entry = thd_entry(entries[i].pfn, entries[i].order,
					entries[i].writable ? THD_TAG_WRITE :
							      THD_TAG_READ);

		if (!entries[i].order) {
			table_enter_page(&xas, index, entry);
			continue;
		}
		table_enter_large(mirror, index, entries[i].order, entry);
		/* The node that @xas points to may have been freed. */
		xas_reset(&xas);
	}
	xas_unlock(&xas);
}

/*
 * Drop all entries of the block of @index, a large one or many small ones, with one
 * store. The xa_state is used only here: xas_set() would leave its order.
 */
static void table_drop_block(struct thd_mirror *mirror, unsigned long index)
{
	XA_STATE_ORDER(xas, &mirror->table, index, PMD_ORDER);

	xas_store(&xas, NULL);
}

/* Is all of the block of @index in [@first, @last]? */
static bool has_block(unsigned long index, unsigned long first,
		      unsigned long last)
{
	const unsigned long start = ALIGN_DOWN(index, BIT(PMD_ORDER));

	return start >= first && start + BIT(PMD_ORDER) - 1 <= last;
}

/* With @keep_local, the entries of pages that are on the device stay. */
static void table_drop(struct thd_mirror *mirror, unsigned long start,
		       unsigned long end, bool keep_local)
{
	const unsigned long first = start >> PAGE_SHIFT;
	const unsigned long last = (end - 1) >> PAGE_SHIFT;
	XA_STATE(xas, &mirror->table, first);
	void *entry;

	lockdep_assert_held(&mirror->lock);

	xas_lock(&xas);
	xas_for_each(&xas, entry, last) {
		if (keep_local &&
		    thd_mirror_is_local(mirror, thd_entry_page(entry,
							       xas.xa_index)))
			continue;
		if (keep_local || !has_block(xas.xa_index, first, last)) {
			xas_store(&xas, NULL);
			continue;
		}
		table_drop_block(mirror, xas.xa_index);
		xas_set(&xas, ALIGN(xas.xa_index + 1, BIT(PMD_ORDER)));
	}
	xas_unlock(&xas);
}

/**
 * thd_mirror_lock() - Take the lock of a mirror in an invalidation
 * @mirror: The mirror.
 * @range: What is invalidated.
 *
 * Context: An MMU notifier.
 * Return: False if the notifier must not sleep and another task holds the lock.
 */
bool thd_mirror_lock(struct thd_mirror *mirror,
		     const struct mmu_notifier_range *range)
{
	if (!mmu_notifier_range_blockable(range))
		return mutex_trylock(&mirror->lock);
	mutex_lock(&mirror->lock);
	return true;
}

static bool mirror_invalidate(struct mmu_interval_notifier *notifier,
			      const struct mmu_notifier_range *range,
			      unsigned long seq)
{
	struct thd_mirror *mirror = container_of(notifier, struct thd_mirror,
						 notifier);
	const struct hmm_devmem *devmem = READ_ONCE(mirror->tdev->devmem);
	const bool ours = devmem && hmm_devmem_is_migration_to(devmem, range);

	/* Caused by make_device_exclusive(): the page stays, and so may its entry. */
	if (range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == mirror)
		return true;

	if (!thd_mirror_lock(mirror, range))
		return false;
	mmu_interval_set_seq(notifier, seq);
	table_drop(mirror, range->start, range->end, ours);
	if (mirror->migrations && !ours)
		mirror->raced = true;
	mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_notifier_ops = {
	.invalidate = mirror_invalidate,
};

/**
 * thd_mirror_begin_migration() - Start to note invalidations
 * @mirror: The mirror.
 *
 * Context: Process context, may sleep. Waits for invalidations to end.
 */
void thd_mirror_begin_migration(struct thd_mirror *mirror)
{
	scoped_guard(mutex, &mirror->lock) {
		if (!mirror->migrations++)
			mirror->raced = false;
	}
	/* Wait for invalidations that were noted before and have not ended yet. */
	mmu_interval_read_begin(&mirror->notifier);
}

/**
 * thd_mirror_end_migration() - Undo thd_mirror_begin_migration()
 * @mirror: The mirror.
 *
 * Context: Process context, may sleep.
 */
void thd_mirror_end_migration(struct thd_mirror *mirror)
{
	guard(mutex)(&mirror->lock);
	mirror->migrations--;
}

/**
 * thd_mirror_map() - Enter pages that are on the device now
 * @devmem: The device memory.
 * @copy: The pages; its context says which mirror they belong to.
 *
 * Context: The library's map callback, in a migration that was begun with
 * thd_mirror_begin_migration().
 */
void thd_mirror_map(struct hmm_devmem *devmem,
		    const struct hmm_devmem_copy *copy)
{
	struct thd_mirror *mirror;

	if (!copy->context)
		return;
	mirror = container_of(copy->context, struct thd_mirror, context);

	guard(mutex)(&mirror->lock);
	if (!mirror->raced)
		table_enter(mirror, copy->entries, copy->nr_entries);
}

static void mirror_release(struct hmm_devmem_context *context)
{
	struct thd_mirror *mirror = container_of(context, struct thd_mirror,
						 context);

	atomic_long_dec(&mirror->tdev->contexts);
	kfree(mirror);
}

/**
 * thd_mirror_open() - Mirror a process
 * @tdev: The device.
 * @mm: The address space of the process.
 *
 * Context: Process context, may sleep.
 * Return: The mirror or an ERR_PTR().
 */
struct thd_mirror *thd_mirror_open(struct thd_device *tdev,
				   struct mm_struct *mm)
{
	struct thd_mirror *mirror;
	int ret;

	if (!mm)
		return ERR_PTR(-EINVAL);
	mirror = kzalloc_obj(*mirror);
	if (!mirror)
		return ERR_PTR(-ENOMEM);

	mirror->tdev = tdev;
	mutex_init(&mirror->lock);
	xa_init(&mirror->table);
	hmm_devmem_context_init(&mirror->context, mirror_release);
	ret = mmu_interval_notifier_insert(&mirror->notifier, mm, 0,
					   ULONG_MAX & PAGE_MASK,
					   &mirror_notifier_ops);
	if (ret) {
		kfree(mirror);
		return ERR_PTR(ret);
	}
	atomic_long_inc(&tdev->contexts);
	return mirror;
}

/**
 * thd_mirror_close() - Stop to mirror a process
 * @mirror: The mirror; freed when there are no pages of it on the device.
 *
 * Context: Process context, may sleep.
 */
void thd_mirror_close(struct thd_mirror *mirror)
{
	mmu_interval_notifier_remove(&mirror->notifier);
	xa_destroy(&mirror->table);
	mutex_destroy(&mirror->lock);
	hmm_devmem_context_put(&mirror->context);
}

/*
 * Page faults of the device, and walks of the CPU's page table without a fault.
 */

static unsigned long access_flags(enum thd_access access)
{
	switch (access) {
	case THD_READ:
	case THD_READ_UNLOCKED:
		return HMM_PFN_REQ_FAULT;
	case THD_WRITE:
		return HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
	default:
		return 0;
	}
}

/**
 * thd_walk_init() - Prepare a walk
 * @walk: The walk.
 * @mirror: The mirror of the process.
 * @access: What the device wants the pages for.
 *
 * Context: Any context.
 */
void thd_walk_init(struct thd_walk *walk, struct thd_mirror *mirror,
		   enum thd_access access)
{
	*walk = (struct thd_walk) {
		.access = access,
		.range = {
			.notifier = &mirror->notifier,
			.hmm_pfns = walk->pfns,
			.default_flags = access_flags(access),
		},
	};
}

static u8 page_location(const struct thd_mirror *mirror,
			const struct page *page)
{
	const bool local = thd_mirror_is_local(mirror, page);

	if (is_device_private_page(page))
		return local ? HMM_DEVMEM_TEST_PRIVATE_LOCAL :
			       HMM_DEVMEM_TEST_PRIVATE_REMOTE;
	if (is_device_coherent_page(page))
		return local ? HMM_DEVMEM_TEST_COHERENT_LOCAL :
			       HMM_DEVMEM_TEST_COHERENT_REMOTE;
	if (is_zero_pfn(page_to_pfn(page)))
		return HMM_DEVMEM_TEST_PROT_ZERO;
	return HMM_DEVMEM_TEST_PROT_NONE;
}

static u8 pfn_prot(const struct thd_mirror *mirror, unsigned long pfn)
{
	unsigned int order;
	u8 prot;

	if (pfn & HMM_PFN_ERROR)
		return HMM_DEVMEM_TEST_PROT_ERROR;
	if (!(pfn & HMM_PFN_VALID))
		return HMM_DEVMEM_TEST_PROT_NONE;

	prot = page_location(mirror, hmm_pfn_to_page(pfn));
	prot |= pfn & HMM_PFN_WRITE ? HMM_DEVMEM_TEST_PROT_WRITE :
				      HMM_DEVMEM_TEST_PROT_READ;
	order = hmm_pfn_to_map_order(pfn);
	if (order == PMD_ORDER)
		prot |= HMM_DEVMEM_TEST_PROT_PMD;
	else if (order == PUD_ORDER)
		prot |= HMM_DEVMEM_TEST_PROT_PUD;
	return prot;
}

/*
 * For a large folio of private memory, hmm_range_fault() gives the folio's first
 * pages, wherever in the folio the walk begins. This is right also if core changes
 * that.
 */
static struct page *walk_page(const struct thd_walk *walk, unsigned int i)
{
	const unsigned long index = (walk->range.start >> PAGE_SHIFT) + i;
	struct page *page = hmm_pfn_to_page(walk->pfns[i]);

	if (hmm_pfn_to_map_order(walk->pfns[i]) != PMD_ORDER ||
	    !is_device_private_page(page))
		return page;
	return folio_page(page_folio(page), index & (BIT(PMD_ORDER) - 1));
}

/* A peer has the same owner, but there is no link between the devices. */
static bool is_private_of_peer(const struct thd_mirror *mirror,
			       const struct page *page)
{
	return is_device_private_page(page) && !thd_mirror_is_local(mirror, page);
}

static int walk_enter_page(struct thd_mirror *mirror, struct thd_walk *walk,
			   unsigned int i)
{
	const unsigned long pfn = walk->pfns[i];
	struct page *page;

	if (!(pfn & HMM_PFN_VALID))
		return -ENOENT;
	page = walk_page(walk, i);
	if (walk->access == THD_READ_LOCAL && !thd_mirror_is_local(mirror, page))
		return -ENOENT;
	if ((walk->access == THD_WRITE && !(pfn & HMM_PFN_WRITE)) ||
	    is_private_of_peer(mirror, page)) {
		/*
		 * hmm_range_fault() takes no fault for private memory of the
		 * owner it is given. So try again without an owner: the page
		 * moves back to system memory and is then like any other.
		 */
		walk->range.dev_private_owner = NULL;
		return -EBUSY;
	}
	return thd_mirror_enter(mirror, (walk->range.start >> PAGE_SHIFT) + i, page,
			   pfn & HMM_PFN_WRITE ? THD_TAG_WRITE : THD_TAG_READ);
}

/* No page that was found can be invalidated while the lock is held. */
static int walk_use(struct thd_mirror *mirror, struct thd_walk *walk)
{
	unsigned int i;
	int ret = 0;

	lockdep_assert_held(&mirror->lock);

	for (i = 0; !ret && i < thd_walk_nr(walk); i++) {
		if (walk->access == THD_SNAPSHOT)
			walk->prot[i] = pfn_prot(mirror, walk->pfns[i]);
		else
			ret = walk_enter_page(mirror, walk, i);
	}
	/* The caller comes back for the rest if it has at least the first page. */
	return ret == -ENOENT && i > 1 ? 0 : ret;
}

static int walk_find(struct thd_mirror *mirror, struct thd_walk *walk)
{
	struct mm_struct *mm = mirror->notifier.mm;
	int ret;

	if (walk->access == THD_READ_UNLOCKED)
		return hmm_range_fault_unlocked_timeout(&walk->range, 0);

	walk->range.notifier_seq = mmu_interval_read_begin(walk->range.notifier);
	ret = mmap_read_lock_killable(mm);
	if (ret)
		return ret;
	ret = hmm_range_fault(&walk->range);
	mmap_read_unlock(mm);
	return ret;
}

static int walk_try(struct thd_mirror *mirror, struct thd_walk *walk)
{
	int ret;

	ret = walk_find(mirror, walk);
	if (ret)
		return ret;

	guard(mutex)(&mirror->lock);
	if (mmu_interval_read_retry(walk->range.notifier,
				    walk->range.notifier_seq))
		return -EBUSY;
	return walk_use(mirror, walk);
}

/**
 * thd_walk_some() - Look at, or fault in, as many pages as can be done at once
 * @mirror: The mirror; pages are entered into its table.
 * @walk: How to access them; afterwards, &thd_walk.range is what was done.
 * @addr: Address of the first page.
 * @end: End of the range, exclusive; less of it may be done.
 *
 * Context: Process context, may sleep. Takes the mmap lock.
 * Return:
 * * %0 - done; with %THD_READ_LOCAL, for the first page at least
 * * %-ENOENT - with %THD_READ_LOCAL: the first page is not on the device
 * * %-EBUSY - invalidated again and again, %THD_WALK_TRIES times and for a second
 * * %-EINTR - the process is being killed
 * * others - from hmm_range_fault()
 */
int thd_walk_some(struct thd_mirror *mirror, struct thd_walk *walk,
		  unsigned long addr, unsigned long end)
{
	const unsigned long timeout =
		jiffies + msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	unsigned int tries = 0;
	int ret;

	walk->range.start = addr;
	walk->range.end = min(end, addr + THD_WALK_PAGES * PAGE_SIZE);
	walk->range.dev_private_owner = READ_ONCE(mirror->tdev->owner);
	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = walk_try(mirror, walk);
	} while (ret == -EBUSY && !thd_walk_in_vain(timeout, ++tries));
	return ret;
}
