// SPDX-License-Identifier: GPL-2.0
/*
 * The page tables of the emulated hardware, and accesses of the device through them.
 */

/**
 * DOC: Device page table
 *
 * The device accesses the memory of a process at the addresses that the process uses. For
 * each process it has a page table, which the driver fills and empties. An entry has the
 * pfn of a page, which is in the VRAM window or in system memory, and what the device may
 * do with the page. There are entries for a page and for a whole PMD.
 *
 * If there is no entry for an access, or one that does not permit it, the device raises a
 * page fault: it calls the driver's fault handler, and tries again if the handler returns
 * 0. A page that is in no VRAM window any more, since its device memory was removed, is
 * faulted on as well.
 *
 * The page table has no references to pages. A device that has found an entry accesses
 * the page under the lock of the page table. thd_table_clear() takes that lock, too. So
 * it waits for the access, as a driver of real hardware waits for the invalidation of
 * a TLB: after it the device does not access these pages.
 */

#include <linux/align.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/memremap.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/xarray.h>

#include "hw.h"
#include "table.h"

/*
 * Entries, as the hardware encodes them: a pfn, whether the entry covers a PMD, and the
 * permission.
 */

#define ENTRY_PERMISSION_BITS	2
#define ENTRY_LARGE		BIT(ENTRY_PERMISSION_BITS)
#define ENTRY_SHIFT		(ENTRY_PERMISSION_BITS + 1)

static void *make_entry(const struct thd_pte *pte)
{
	return xa_mk_value(pte->pfn << ENTRY_SHIFT | (pte->order ? ENTRY_LARGE : 0) |
			   pte->permission);
}

static enum thd_permission entry_permission(const void *entry)
{
	return xa_to_value(entry) & (BIT(ENTRY_PERMISSION_BITS) - 1);
}

static bool entry_is_large(const void *entry)
{
	return xa_to_value(entry) & ENTRY_LARGE;
}

/* The pfn of the page at @index, which is the number of a page of user addresses. */
static unsigned long entry_pfn(const void *entry, unsigned long index)
{
	const unsigned long pfn = xa_to_value(entry) >> ENTRY_SHIFT;

	return pfn + (entry_is_large(entry) ? index & (BIT(PMD_ORDER) - 1) : 0);
}

static bool entry_is_vram(struct thd_table *table, const void *entry, unsigned long index)
{
	return thd_hw_window(table->hw, entry_pfn(entry, index));
}

/* How many pages of @entry, found at @index, there are up to @last. */
static unsigned long entry_pages(const void *entry, unsigned long index, unsigned long last)
{
	if (!entry_is_large(entry))
		return 1;
	return min(index | (BIT(PMD_ORDER) - 1), last) - index + 1;
}

/**
 * thd_table_init() - Set up a page table
 * @table: The page table.
 * @hw: The hardware, which exists as long as the page table.
 * @fault: Serves the faults of accesses by this page table.
 *
 * Context: Any context.
 */
void thd_table_init(struct thd_table *table, struct thd_hw *hw, thd_fault_fn fault)
{
	table->hw = hw;
	table->fault = fault;
	xa_init(&table->entries);
}
EXPORT_SYMBOL_NS_GPL(thd_table_init, "TEST_HMM_DEVMEM");

/**
 * thd_table_destroy() - Free what a page table has allocated
 * @table: The page table, which is not used any more. It can have entries.
 *
 * Context: Process context.
 */
void thd_table_destroy(struct thd_table *table)
{
	xa_destroy(&table->entries);
}
EXPORT_SYMBOL_NS_GPL(thd_table_destroy, "TEST_HMM_DEVMEM");

/*
 * Changes.
 */

/* The entry for @index; cheap if @xas is at @index - 1. */
static void *step_to(struct xa_state *xas, unsigned long index)
{
	if (!xas_not_node(xas->xa_node) && xas->xa_index + 1 == index)
		return xas_next(xas);
	xas_set(xas, index);
	return xas_load(xas);
}

/* A large entry is dropped as a whole; the device faults the rest in again. */
static int enter_page(struct xa_state *xas, unsigned long index, void *entry)
{
	void *old = step_to(xas, index);

	if (unlikely(old && entry_is_large(old))) {
		xas_store(xas, NULL);
		xas_set(xas, index);
	}
	xas_store(xas, entry);
	return xas_error(xas);
}

static int enter_large(struct thd_table *table, unsigned long index, void *entry)
{
	XA_STATE_ORDER(xas, &table->entries, index, PMD_ORDER);

	xas_store(&xas, entry);
	return xas_error(&xas);
}

/**
 * thd_table_enter() - Make entries
 * @table: The page table.
 * @ptes: The entries, in ascending order of addresses. They replace what is there.
 * @nr: Number of @ptes.
 *
 * Context: Any context but interrupts. Does not sleep.
 * Return: 0 or -ENOMEM; then not all entries were made.
 */
int thd_table_enter(struct thd_table *table, const struct thd_pte *ptes, unsigned int nr)
{
	XA_STATE(xas, &table->entries, 0);
	const struct thd_pte *pte;
	unsigned long index;
	int ret = 0;

	xas_lock(&xas);
	for (pte = ptes; !ret && pte < ptes + nr; pte++) {
		index = pte->addr >> PAGE_SHIFT;
		if (!pte->order) {
			ret = enter_page(&xas, index, make_entry(pte));
			continue;
		}
		ret = enter_large(table, index, make_entry(pte));
		/* The node that @xas points to may have been freed. */
		xas_reset(&xas);
	}
	xas_unlock(&xas);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(thd_table_enter, "TEST_HMM_DEVMEM");

/*
 * Drop all entries of the block of @index, a large one or many small ones, with one
 * store. The xa_state is used only here: xas_set() would leave its order.
 */
static void clear_block(struct thd_table *table, unsigned long index)
{
	XA_STATE_ORDER(xas, &table->entries, index, PMD_ORDER);

	xas_store(&xas, NULL);
}

/* Is all of the block of @index in [@first, @last]? */
static bool has_block(unsigned long index, unsigned long first, unsigned long last)
{
	const unsigned long start = ALIGN_DOWN(index, BIT(PMD_ORDER));

	return start >= first && start + BIT(PMD_ORDER) - 1 <= last;
}

/**
 * thd_table_clear() - Remove entries
 * @table: The page table.
 * @start: First address, page aligned.
 * @end: End of the range, exclusive; page aligned.
 * @keep_vram: Entries of pages in VRAM stay.
 *
 * A large entry that is in the range only in part is removed as a whole. When this
 * returns, the device does not access pages by means of the removed entries.
 *
 * Context: Any context but interrupts. Does not sleep, and allocates nothing.
 */
void thd_table_clear(struct thd_table *table, unsigned long start, unsigned long end,
		     bool keep_vram)
{
	const unsigned long first = start >> PAGE_SHIFT;
	const unsigned long last = (end - 1) >> PAGE_SHIFT;
	XA_STATE(xas, &table->entries, first);
	void *entry;

	xas_lock(&xas);
	xas_for_each(&xas, entry, last) {
		if (keep_vram && entry_is_vram(table, entry, xas.xa_index))
			continue;
		if (keep_vram || !has_block(xas.xa_index, first, last)) {
			xas_store(&xas, NULL);
			continue;
		}
		clear_block(table, xas.xa_index);
		xas_set(&xas, ALIGN(xas.xa_index + 1, BIT(PMD_ORDER)));
	}
	xas_unlock(&xas);
}
EXPORT_SYMBOL_NS_GPL(thd_table_clear, "TEST_HMM_DEVMEM");

/*
 * Queries.
 */

/**
 * thd_table_find() - Look up an entry
 * @table: The page table.
 * @addr: The address.
 * @pte: The entry for the page at @addr. @pte->pfn is that page's, also if the entry is a
 *	large one.
 *
 * Context: Any context. Something else must keep the entry: it can be gone on return.
 * Return: Whether there is an entry.
 */
bool thd_table_find(struct thd_table *table, unsigned long addr, struct thd_pte *pte)
{
	const unsigned long index = addr >> PAGE_SHIFT;
	const void *entry = xa_load(&table->entries, index);

	if (!entry)
		return false;
	*pte = (struct thd_pte) {
		.addr = addr,
		.pfn = entry_pfn(entry, index),
		.order = entry_is_large(entry) ? PMD_ORDER : 0,
		.permission = entry_permission(entry),
	};
	return true;
}
EXPORT_SYMBOL_NS_GPL(thd_table_find, "TEST_HMM_DEVMEM");

/**
 * thd_table_count() - Count the pages that a page table has entries for
 * @table: The page table.
 * @start: First address, page aligned.
 * @end: End of the range, exclusive; page aligned.
 * @count: The numbers.
 *
 * Visits entries, not pages of the range, which can be all of the address space.
 *
 * Context: Any context. The numbers are those of one moment if something else keeps the
 * entries.
 */
void thd_table_count(struct thd_table *table, unsigned long start, unsigned long end,
		     struct thd_table_count *count)
{
	const unsigned long last = (end - 1) >> PAGE_SHIFT;
	unsigned long index, nr;
	void *entry;

	*count = (struct thd_table_count) { };
	xa_for_each_range(&table->entries, index, entry, start >> PAGE_SHIFT, last) {
		nr = entry_pages(entry, index, last);
		count->pages += nr;
		if (entry_is_vram(table, entry, index))
			count->vram += nr;
		if (entry_permission(entry) == THD_IS_EXCLUSIVE)
			count->exclusive += nr;
	}
}
EXPORT_SYMBOL_NS_GPL(thd_table_count, "TEST_HMM_DEVMEM");

/*
 * Accesses.
 */

/*
 * Mark the page as written, as the CPU's page table does for the CPU's writes: a page
 * that the process has only read so far can be writable, and clean. Device memory is
 * always dirty.
 */
static void finish_write(struct page *page)
{
	flush_dcache_page(page);
	if (!is_zone_device_page(page))
		set_page_dirty(page);
}

static int use_ram(const struct thd_access *access, struct page *page)
{
	void *addr = kmap_local_page(page);
	int ret;

	ret = access->use(access, addr);
	kunmap_local(addr);
	if (!ret && access->flags & THD_ACCESS_WRITE)
		finish_write(page);
	return ret;
}

/* Returns -ENOENT if the entry does not permit the access. */
static int use_entry(struct thd_table *table, const struct thd_access *access,
		     const void *entry)
{
	const unsigned long pfn = entry_pfn(entry, access->addr >> PAGE_SHIFT);
	void *vram;

	if (access->flags & THD_ACCESS_WRITE && entry_permission(entry) != THD_MAY_WRITE)
		return -ENOENT;
	vram = thd_hw_window(table->hw, pfn);
	if (vram)
		return access->use(access, vram);
	if (access->flags & THD_ACCESS_VRAM || is_device_private_page(pfn_to_page(pfn)))
		return -ENOENT;
	return use_ram(access, pfn_to_page(pfn));
}

static int use_page(struct thd_table *table, const struct thd_access *access)
{
	const void *entry;
	int ret = -ENOENT;

	xa_lock(&table->entries);
	entry = xa_load(&table->entries, access->addr >> PAGE_SHIFT);
	if (entry)
		ret = use_entry(table, access, entry);
	xa_unlock(&table->entries);
	return ret;
}

/**
 * thd_table_access() - Let the device access a page
 * @table: The page table.
 * @access: The access: the page of &thd_access.addr is next.
 *
 * Context: Process context, may sleep if the device may raise faults. The caller holds no
 * lock that the fault handler takes.
 * Return:
 * * %0 - done; &thd_access.addr is the address of the next page
 * * %-ENOENT - there is no entry that permits this, with %THD_ACCESS_NO_FAULT
 * * %-EINTR - the process is being killed
 * * others - from the fault handler or &thd_access.use
 */
int thd_table_access(struct thd_table *table, struct thd_access *access)
{
	int ret;

	while ((ret = use_page(table, access)) == -ENOENT) {
		if (access->flags & THD_ACCESS_NO_FAULT)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		access->faults++;
		ret = table->fault(table, access);
		if (ret)
			return ret;
		cond_resched();
	}
	if (!ret)
		access->addr += PAGE_SIZE;
	return ret;
}
EXPORT_SYMBOL_NS_GPL(thd_table_access, "TEST_HMM_DEVMEM");
