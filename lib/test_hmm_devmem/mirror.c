// SPDX-License-Identifier: GPL-2.0
/*
 * The device's page table of a process.
 */

/**
 * DOC: Mirror
 *
 * Each open file mirrors the address space of the process that opened it (and of
 * no other, even when a child inherits the file): the device has a page table of
 * its own, which the library's mirror has filled by page faults of the device and by
 * migrations to it, and emptied before the process's pages go away.
 *
 * The page table has no references to pages. An entry is valid because the
 * invalidation that precedes the unmapping of the page waits for
 * &hmm_devmem_mirror.lock, so data is read and written under that lock. For the same
 * reason user memory is accessed without page faults there; if it is not mapped,
 * it is faulted in after the lock was dropped. No buffer in between is needed.
 */

#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/rwsem.h>
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
 * Context: The caller has &hmm_devmem_mirror.lock, and nothing was invalidated since
 * the page was found.
 * Return: 0 or -ENOMEM.
 */
int thd_mirror_enter(struct thd_mirror *mirror, unsigned long index,
		     struct page *page, enum thd_access_tag tag)
{
	void *entry;

	lockdep_assert_held(&mirror->m.lock);

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

/* As thd_mirror_enter(), but with @xas, so that it is fast for many pages in a row. */
static void table_enter_page(struct xa_state *xas, unsigned long index, void *entry)
{
	void *old = table_step(xas, index);

	if (unlikely(old && thd_entry_is_large(old))) {
		xas_store(xas, NULL);
		xas_set(xas, index);
	}
	xas_store(xas, entry);
}

static int table_enter_large(struct thd_mirror *mirror, unsigned long index,
			     unsigned int order, void *entry)
{
	XA_STATE_ORDER(xas, &mirror->table, index, order);

	xas_store(&xas, entry);
	return xas_error(&xas);
}

static int mirror_map(struct hmm_devmem_mirror *m,
		      const struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	struct thd_mirror *mirror = container_of(m, struct thd_mirror, m);
	XA_STATE(xas, &mirror->table, 0);
	unsigned int i;
	int ret = 0;

	xas_lock(&xas);
	for (i = 0; !ret && i < nr; i++) {
		const unsigned long index = entries[i].addr >> PAGE_SHIFT;
		void *entry = thd_entry(entries[i].pfn, entries[i].order,
					entries[i].writable ? THD_TAG_WRITE :
							      THD_TAG_READ);

		if (!entries[i].order) {
			table_enter_page(&xas, index, entry);
			ret = xas_error(&xas);
			continue;
		}
		ret = table_enter_large(mirror, index, entries[i].order, entry);
		/* The node that @xas points to may have been freed. */
		xas_reset(&xas);
	}
	xas_unlock(&xas);
	return ret;
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
static void mirror_unmap(struct hmm_devmem_mirror *m, unsigned long start,
			 unsigned long end, bool keep_local)
{
	struct thd_mirror *mirror = container_of(m, struct thd_mirror, m);
	const unsigned long first = start >> PAGE_SHIFT;
	const unsigned long last = (end - 1) >> PAGE_SHIFT;
	XA_STATE(xas, &mirror->table, first);
	void *entry;

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

static const struct hmm_devmem_mirror_ops mirror_ops = {
	.map = mirror_map,
	.unmap = mirror_unmap,
};

/**
 * thd_mirror_set_devmem() - Note which device memory a mirror's device has
 * @mirror: The mirror.
 *
 * The device memory can be removed and added again while files are open.
 *
 * Context: Process context, may sleep. The caller has &thd_device.plug_lock.
 */
void thd_mirror_set_devmem(struct thd_mirror *mirror)
{
	struct thd_device *tdev = mirror->tdev;

	lockdep_assert_held(&tdev->plug_lock);

	/* Another task that changes it meanwhile sets the same value. */
	if (data_race(mirror->m.devmem) != tdev->devmem)
		hmm_devmem_mirror_set_devmem(&mirror->m, tdev->devmem);
}

/**
 * thd_mirror_fault() - Let the device take a page fault
 * @mirror: The mirror.
 * @addr: The address.
 * @flags: HMM_DEVMEM_MIRROR_*.
 *
 * Context: Process context, may sleep. Does not wait for device memory that is being
 * added or removed: then the mirror has what was there before.
 * Return: As hmm_devmem_mirror_fault().
 */
long thd_mirror_fault(struct thd_mirror *mirror, unsigned long addr,
		      unsigned int flags)
{
	struct thd_device *tdev = mirror->tdev;

	if (down_read_trylock(&tdev->plug_lock)) {
		thd_mirror_set_devmem(mirror);
		up_read(&tdev->plug_lock);
	}
	return hmm_devmem_mirror_fault(&mirror->m, addr, flags);
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

	mirror = kzalloc_obj(*mirror);
	if (!mirror)
		return ERR_PTR(-ENOMEM);

	mirror->tdev = tdev;
	xa_init(&mirror->table);
	hmm_devmem_context_init(&mirror->context, mirror_release);
	ret = hmm_devmem_mirror_init(&mirror->m, NULL, mm, &mirror_ops);
	if (ret) {
		kfree(mirror);
		return ERR_PTR(ret);
	}
	mirror->m.context = &mirror->context;
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
	hmm_devmem_mirror_fini(&mirror->m);
	xa_destroy(&mirror->table);
	hmm_devmem_context_put(&mirror->context);
}
