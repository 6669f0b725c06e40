// SPDX-License-Identifier: GPL-2.0
/*
 * The device's view of a process: what the driver does for the library's mirror.
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
 * invalidation that precedes the unmapping of the page waits until it is removed, and
 * until the device does not access the page any more: the hardware sees to that, see
 * thd_table_clear().
 */

#include <linux/array_size.h>
#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "table.h"
#include "test_hmm_devmem.h"

/* Entries that the hardware gets together; they are on the stack. */
#define THD_PTES	8

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

/**
 * thd_mirror_local_page() - Get the device page that the device has an entry for
 * @mirror: The mirror.
 * @addr: The address.
 *
 * Context: The caller has &hmm_devmem_mirror.lock, and the page stays as long.
 * Return: The page; NULL if there is no entry, or one of a page that is not on the device.
 */
struct page *thd_mirror_local_page(struct thd_mirror *mirror, unsigned long addr)
{
	struct thd_pte pte;
	struct page *page;

	lockdep_assert_held(&mirror->m.lock);

	if (!thd_table_find(&mirror->table, addr, &pte))
		return NULL;
	page = pfn_to_page(pte.pfn);
	return thd_mirror_is_local(mirror, page) ? page : NULL;
}

/*
 * The device's page table.
 */

static struct thd_pte make_pte(const struct hmm_devmem_map_entry *entry)
{
	return (struct thd_pte) {
		.addr = entry->addr,
		.pfn = entry->pfn,
		.order = entry->order,
		.permission = entry->writable ? THD_MAY_WRITE : THD_MAY_READ,
	};
}

static int mirror_map(struct hmm_devmem_mirror *m,
		      const struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	struct thd_mirror *mirror = container_of(m, struct thd_mirror, m);
	struct thd_pte ptes[THD_PTES];
	unsigned int i, n;
	int ret = 0;

	for (; !ret && nr; nr -= n, entries += n) {
		n = min(nr, ARRAY_SIZE(ptes));
		for (i = 0; i < n; i++)
			ptes[i] = make_pte(&entries[i]);
		ret = thd_table_enter(&mirror->table, ptes, n);
	}
	return ret;
}

static void mirror_unmap(struct hmm_devmem_mirror *m, unsigned long start,
			 unsigned long end, bool keep_local)
{
	struct thd_mirror *mirror = container_of(m, struct thd_mirror, m);

	thd_table_clear(&mirror->table, start, end, keep_local);
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

/**
 * thd_mirror_fault_range() - Let the device take a page fault for each page that needs one
 * @mirror: The mirror.
 * @addr: The first address.
 * @end: End of the range, exclusive.
 * @flags: HMM_DEVMEM_MIRROR_*.
 *
 * Context: As thd_mirror_fault().
 * Return: 0, or an errno as thd_mirror_fault().
 */
int thd_mirror_fault_range(struct thd_mirror *mirror, unsigned long addr,
			   unsigned long end, unsigned int flags)
{
	long ret;

	do {
		ret = thd_mirror_fault(mirror, addr, flags);
		if (ret < 0)
			return ret;
		addr += (unsigned long)ret << PAGE_SHIFT;
		cond_resched();
	} while (addr < end);
	return 0;
}

/* Have the page at @addr entered if it is on the device; returns -ENOENT if it is not. */
static int find_local(struct thd_mirror *mirror, unsigned long addr)
{
	struct thd_pte pte;
	int ret;

	ret = thd_mirror_fault_range(mirror, addr, addr + PAGE_SIZE,
				     HMM_DEVMEM_MIRROR_PRESENT);
	if (ret)
		return ret;
	guard(mutex)(&mirror->m.lock);
	/* If the entry was removed already, the device tries again. */
	if (!thd_table_find(&mirror->table, addr, &pte) ||
	    thd_mirror_is_local(mirror, pfn_to_page(pte.pfn)))
		return 0;
	return -ENOENT;
}

/* Serve a page fault: provide all pages of @access that are left, or one that is on the device. */
static int mirror_fault(struct thd_table *table, const struct thd_access *access)
{
	struct thd_mirror *mirror = container_of(table, struct thd_mirror, table);

	if (access->flags & THD_ACCESS_VRAM)
		return find_local(mirror, access->addr);
	return thd_mirror_fault_range(mirror, access->addr, access->end,
				      access->flags & THD_ACCESS_WRITE ?
				      HMM_DEVMEM_MIRROR_WRITE : HMM_DEVMEM_MIRROR_READ);
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
	thd_table_init(&mirror->table, tdev->hw, mirror_fault);
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
	thd_table_destroy(&mirror->table);
	hmm_devmem_context_put(&mirror->context);
}
