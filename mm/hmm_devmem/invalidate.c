// SPDX-License-Identifier: GPL-2.0
/*
 * Invalidations: when an entry of a device's page table must be removed, and when it must
 * not be made.
 */

/**
 * DOC: Invalidations
 *
 * A device fault begins again if anything was invalidated while it walked the CPU's page
 * table. A migration cannot do that, because it invalidates what it moves. So it notes the
 * invalidations of each window, from before core collects the window's pages until they
 * are mapped.
 *
 * Invalidations that the migration itself causes do not count. Every other invalidation
 * keeps the pages in its range from being mapped, and the device takes a fault for these
 * later. For example, MADV_DONTNEED does not wait for a migration: the page
 * that it has zapped is free when the migration ends.
 *
 * An invalidation is the migration's own if the task that migrates raises it. Its event
 * does not matter: core raises MMU_NOTIFY_MIGRATE when it collects and when it fills
 * holes, and MMU_NOTIFY_CLEAR when it splits a large folio or unmaps one by rmap. This
 * is right because the pages that are going to be mapped are locked by the migration,
 * source and destination, from before core has collected them until after they are
 * mapped. The task does not change the process's mappings meanwhile: it holds the mmap
 * lock. When it allocates memory, the task may also reclaim or compact memory. Reclaim and
 * compaction find the mappings of a page by rmap, for which they lock the page first, so
 * they never unmap a page of the migration. A migration that evicts pages to make room has
 * no window open then. The migration's own invalidations remove entries of the device's
 * page table like all others; they are only not noted.
 *
 * An invalidation can also have begun before a window is opened, and zap the page only
 * after it was collected. So before a window is opened all such invalidations must have
 * ended. The migration cannot wait for them while another window is in flight, since an
 * invalidation can wait for a folio that is locked for that window. But it has to wait only
 * before the first window, and again after each invalidation of a part of the range that
 * another task raises. In these cases it finishes the window in flight first.
 */

#include <kunit/visibility.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "mirror.h"
#include "stream.h"

/*
 * How often a window waits for invalidations before it is migrated but not mapped, for a
 * second each time. The mmap lock is held meanwhile, so the next windows wait less.
 */
#define MIRROR_OPEN_TRIES	3

static void window_note(struct hmm_devmem_mirror_window *window,
			unsigned long start, unsigned long end)
{
	start = max(start, window->start);
	end = min(end, window->end);
	if (start < end)
		bitmap_set(window->raced, (start - window->start) >> PAGE_SHIFT,
			   (end - start) >> PAGE_SHIFT);
}

/* Note an invalidation by the current task in all migrations of other tasks. */
VISIBLE_IF_KUNIT void hmm_devmem_mirror_note(struct hmm_devmem_mirror *m,
					     unsigned long start,
					     unsigned long end)
{
	struct hmm_devmem_mirror_migration *migration;

	lockdep_assert_held(&m->lock);

	list_for_each_entry(migration, &m->migrations, node) {
		if (migration->task == current || end <= migration->start ||
		    start >= migration->end)
			continue;
		migration->unsettled = true;
		window_note(&migration->windows[0], start, end);
		window_note(&migration->windows[1], start, end);
	}
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_mirror_note);

static void mirror_unmap(struct hmm_devmem_mirror *m, unsigned long start,
			 unsigned long end, bool keep_local)
{
	lockdep_assert_held(&m->lock);

	m->ops->unmap(m, start, end, keep_local);
	hmm_devmem_mirror_debug_unmap(m, start, end, keep_local);
}

static bool mirror_invalidate(struct mmu_interval_notifier *notifier,
			      const struct mmu_notifier_range *range,
			      unsigned long seq)
{
	struct hmm_devmem_mirror *m =
		container_of(notifier, struct hmm_devmem_mirror, notifier);
	const unsigned long end = min(range->end, HMM_DEVMEM_MIRROR_END);
	bool keep_local;

	/* The page stays, and the driver makes the entry: see struct hmm_devmem_mirror. */
	if (range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == m)
		return true;

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&m->lock);
	else if (!mutex_trylock(&m->lock))
		return false;
	mmu_interval_set_seq(notifier, seq);
	/* Whichever task migrates: a migration to the device moves no page that is there. */
	keep_local = m->devmem && hmm_devmem_is_migration_to(m->devmem, range);
	mirror_unmap(m, range->start, end, keep_local);
	hmm_devmem_mirror_note(m, range->start, end);
	mutex_unlock(&m->lock);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_notifier_ops = {
	.invalidate = mirror_invalidate,
};

/**
 * hmm_devmem_mirror_enter() - Make entries
 * @m: The mirror.
 * @entries: The entries, in ascending order of addresses.
 * @nr: Number of @entries.
 *
 * Context: Process context, with the lock of @m held. No page was invalidated since the
 * caller found it.
 * Return: As &hmm_devmem_mirror_ops.map.
 */
int hmm_devmem_mirror_enter(struct hmm_devmem_mirror *m,
			    const struct hmm_devmem_map_entry *entries,
			    unsigned int nr)
{
	lockdep_assert_held(&m->lock);

	/* Before the callback, which can make some of the entries and then fail. */
	hmm_devmem_mirror_debug_map(m, entries, nr);
	return m->ops->map(m, entries, nr);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_mirror_enter);

/**
 * hmm_devmem_mirror_reach() - How many pages are mapped by entries
 * @entries: The entries, in ascending order of addresses.
 * @nr: Number of @entries.
 * @addr: User virtual address, page aligned.
 * @write: Do not count what is read-only, nor anything behind it.
 *
 * Context: Any context.
 * Return: Number of pages that are mapped from @addr on without a gap.
 */
unsigned long hmm_devmem_mirror_reach(const struct hmm_devmem_map_entry *entries,
				      unsigned int nr, unsigned long addr,
				      bool write)
{
	unsigned long end, next = addr;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		end = entries[i].addr + (PAGE_SIZE << entries[i].order);
		if (end <= next)
			continue;
		if (entries[i].addr > next || (write && !entries[i].writable))
			break;
		next = end;
	}
	return (next - addr) >> PAGE_SHIFT;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_mirror_reach);

/*
 * Migrations.
 */

/**
 * hmm_devmem_mirror_begin() - Begin a migration
 * @migration: Memory for it, with @want and @want_write set.
 * @m: The mirror.
 * @devmem: The device memory.
 * @start: User virtual address, inclusive.
 * @end: User virtual address, exclusive.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_mirror_begin(struct hmm_devmem_mirror_migration *migration,
			     struct hmm_devmem_mirror *m, struct hmm_devmem *devmem,
			     unsigned long start, unsigned long end)
{
	migration->mirror = m;
	migration->devmem = devmem;
	migration->task = current;
	migration->start = start;
	migration->end = end;
	migration->unsettled = true;
	migration->forced = false;
	migration->mapped = 0;
	migration->moved = 0;
	/* No window is open: both are empty. */
	memset(migration->windows, 0, sizeof(migration->windows));
	guard(mutex)(&m->lock);
	list_add(&migration->node, &m->migrations);
}

/**
 * hmm_devmem_mirror_end() - End a migration
 * @migration: The migration, with no window in flight.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_mirror_end(struct hmm_devmem_mirror_migration *migration)
{
	guard(mutex)(&migration->mirror->lock);
	list_del(&migration->node);
}

/*
 * Wait until all invalidations that the mirror has been told of have ended. If others begin
 * before these end, that may never be: then stop waiting after @timeout jiffies. What begins
 * later is noted, or is about other memory.
 */
static void migration_settle(struct hmm_devmem_mirror_migration *migration,
			     unsigned long timeout)
{
	struct hmm_devmem_mirror *m = migration->mirror;
	unsigned long seq;

	scoped_guard(mutex, &m->lock)
		migration->unsettled = false;
	seq = mmu_interval_read_begin_timeout(&m->notifier, timeout);
	/* The number is odd if all have ended, and even after the timeout. */
	if (seq & 1)
		return;
	guard(mutex)(&m->lock);
	migration->unsettled = true;
}

/*
 * Open a window if no invalidation can be in progress that the window would not note. With
 * @force, open it anyway, with all pages noted as invalidated: they migrate, but are not
 * mapped.
 */
static bool window_open(struct hmm_devmem_mirror_window *window,
			struct hmm_devmem_mirror_migration *migration,
			unsigned long start, unsigned long end, bool force)
{
	guard(mutex)(&migration->mirror->lock);
	if (migration->unsettled && !force)
		return false;
	window->migration = migration;
	window->start = start;
	window->end = end;
	if (migration->unsettled) {
		bitmap_fill(window->raced, HMM_DEVMEM_MIRROR_WINDOW_NR);
		migration->forced = true;
	} else {
		bitmap_zero(window->raced, HMM_DEVMEM_MIRROR_WINDOW_NR);
	}
	return true;
}

/**
 * hmm_devmem_mirror_open() - Begin to note the invalidations of a window
 * @migration: The migration.
 * @start: User virtual address, inclusive.
 * @end: User virtual address, exclusive.
 * @in_flight: The window that is in flight, or NULL. This opens the other one.
 * @may_wait: May this wait for invalidations? Not if a window is in flight, since they
 *	can wait for its folios.
 *
 * Context: Process context, may sleep. The caller holds the mmap lock, and has not yet
 * collected the pages.
 * Return: The window, or NULL if @may_wait is false and this would have to wait.
 */
struct hmm_devmem_mirror_window *
hmm_devmem_mirror_open(struct hmm_devmem_mirror_migration *migration,
		       unsigned long start, unsigned long end,
		       const struct hmm_devmem_mirror_window *in_flight,
		       bool may_wait)
{
	struct hmm_devmem_mirror_window *window =
		&migration->windows[in_flight == &migration->windows[0]];
	const bool forced = READ_ONCE(migration->forced);
	unsigned int tries = 0;

	if (!may_wait)
		return window_open(window, migration, start, end, false) ? window : NULL;
	while (!window_open(window, migration, start, end,
			    tries == (forced ? 1 : MIRROR_OPEN_TRIES))) {
		migration_settle(migration, forced ? 1 : HZ);
		tries++;
	}
	return window;
}

/* Was any page of an entry invalidated? */
static bool entry_raced(const struct hmm_devmem_mirror_window *window,
			const struct hmm_devmem_map_entry *entry)
{
	const unsigned long first = (entry->addr - window->start) >> PAGE_SHIFT;
	const unsigned long end = first + BIT(entry->order);

	return find_next_bit(window->raced, end, first) < end;
}

/* Remove the entries of pages that were invalidated; returns how many are left. */
VISIBLE_IF_KUNIT unsigned int
hmm_devmem_mirror_drop_raced(const struct hmm_devmem_mirror_window *window,
			     struct hmm_devmem_map_entry *entries,
			     unsigned int nr)
{
	unsigned int i, left = 0;

	for (i = 0; i < nr; i++)
		if (!entry_raced(window, &entries[i]))
			entries[left++] = entries[i];
	return left;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_mirror_drop_raced);

/**
 * hmm_devmem_mirror_map() - Map pages that have moved to the device
 * @window: The window, from hmm_devmem_mirror_open().
 * @entries: The pages, in ascending order of addresses. Those that were invalidated
 *	meanwhile are removed.
 * @nr: Number of @entries.
 *
 * Context: Process context, may sleep. The pages are locked, and the caller holds the
 * mmap lock.
 */
void hmm_devmem_mirror_map(struct hmm_devmem_mirror_window *window,
			   struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	struct hmm_devmem_mirror_migration *migration = window->migration;
	struct hmm_devmem_mirror *m = migration->mirror;
	unsigned long mapped;

	guard(mutex)(&m->lock);
	if (m->devmem != migration->devmem)
		return;
	nr = hmm_devmem_mirror_drop_raced(window, entries, nr);
	if (!nr || hmm_devmem_mirror_enter(m, entries, nr))
		return;
	mapped = hmm_devmem_mirror_reach(entries, nr, migration->want,
					 migration->want_write);
	migration->mapped = max(migration->mapped, mapped);
}

/*
 * Begin and end.
 */

/**
 * hmm_devmem_mirror_init_locks() - Set up the locks of a mirror
 * @m: The mirror.
 *
 * In one place, so that lockdep knows all mirrors' locks as one class.
 *
 * Context: Any context.
 */
void hmm_devmem_mirror_init_locks(struct hmm_devmem_mirror *m)
{
	mutex_init(&m->lock);
	init_rwsem(&m->turn);
}

/**
 * hmm_devmem_mirror_init() - Begin to mirror a process
 * @m: The mirror, embedded in a structure of the driver.
 * @devmem: The device memory, or NULL. The caller has a reference to it, or knows that
 *	the driver is not detached during the call. The mirror takes a reference of its own;
 *	@devmem may be removed at any time.
 * @mm: The process, which has not exited: typically current->mm.
 * @ops: The driver's operations, which can be called from now on.
 *
 * Context: Process context, may sleep. Takes the mmap lock of @mm for writing.
 * Return:
 * * %0 - done; hmm_devmem_mirror_fini() must follow
 * * %-EINVAL - @mm is NULL, as in a kernel thread, or an operation is missing
 * * %-ENOMEM - no memory
 * * %-EINTR - a signal is pending, and nothing of @mm is mirrored yet by any driver
 *
 * When the result is an errno, nothing was changed.
 */
int hmm_devmem_mirror_init(struct hmm_devmem_mirror *m,
			   struct hmm_devmem *devmem, struct mm_struct *mm,
			   const struct hmm_devmem_mirror_ops *ops)
{
	int ret;

	if (!mm || !ops->map || !ops->unmap)
		return -EINVAL;
	m->streams = kzalloc_obj(*m->streams);
	if (!m->streams)
		return -ENOMEM;
	hmm_devmem_stream_sets_init(&m->streams->sets);
	m->ops = ops;
	m->context = NULL;
	m->devmem = devmem;
	INIT_LIST_HEAD(&m->migrations);
	hmm_devmem_mirror_init_locks(m);
	hmm_devmem_mirror_debug_init(m);
	ret = mmu_interval_notifier_insert(&m->notifier, mm, 0, HMM_DEVMEM_MIRROR_END,
					   &mirror_notifier_ops);
	if (ret) {
		hmm_devmem_mirror_debug_fini(m);
		mutex_destroy(&m->lock);
		kfree(m->streams);
		return ret;
	}
	if (devmem)
		hmm_devmem_get(devmem);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_devmem_mirror_init);

/**
 * hmm_devmem_mirror_fini() - Stop to mirror a process
 * @m: The mirror. No fault or migration is in progress or begins any more.
 *
 * Removes all entries with &hmm_devmem_mirror_ops.unmap. When this returns no operation
 * is running or will be called. The process may have exited long ago.
 *
 * Context: Process context, may sleep. Waits for invalidations to end, so the caller
 * holds no lock that MMU notifiers take, nor the mmap lock. A process whose threads
 * invalidate memory all the time makes this wait until they stop or the process is killed;
 * a signal to the caller does not end it.
 */
void hmm_devmem_mirror_fini(struct hmm_devmem_mirror *m)
{
	/* Remove the entries while the notifier still works: none may exist without it. */
	hmm_devmem_mirror_set_devmem(m, NULL);
	mmu_interval_notifier_remove(&m->notifier);
	WARN_ON_ONCE(!list_empty(&m->migrations));
	hmm_devmem_mirror_debug_fini(m);
	mutex_destroy(&m->lock);
	kfree(m->streams);
}
EXPORT_SYMBOL_GPL(hmm_devmem_mirror_fini);

/**
 * hmm_devmem_mirror_set_devmem() - Give a mirror another device memory
 * @m: The mirror.
 * @devmem: The device memory, or NULL.
 *
 * For a driver that removes device memory and adds it again, as in a reset, while
 * processes use the device. Removes all entries. What migrates meanwhile to the former
 * device memory is not mapped.
 *
 * Context: Process context, may sleep, as &hmm_devmem_mirror_ops.unmap.
 */
void hmm_devmem_mirror_set_devmem(struct hmm_devmem_mirror *m,
				  struct hmm_devmem *devmem)
{
	struct hmm_devmem *former;

	if (devmem)
		hmm_devmem_get(devmem);
	scoped_guard(mutex, &m->lock) {
		mirror_unmap(m, 0, HMM_DEVMEM_MIRROR_END, false);
		former = m->devmem;
		m->devmem = devmem;
	}
	if (former)
		hmm_devmem_put(former);
}
EXPORT_SYMBOL_GPL(hmm_devmem_mirror_set_devmem);
