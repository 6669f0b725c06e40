/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The emulated hardware's page table, and accesses of the device through it, as a driver
 * sees them. See table.c.
 */
#ifndef _LIB_TEST_HMM_DEVMEM_TABLE_H
#define _LIB_TEST_HMM_DEVMEM_TABLE_H

#include <linux/bits.h>
#include <linux/types.h>
#include <linux/xarray.h>

struct thd_access;
struct thd_hw;
struct thd_table;

/**
 * enum thd_permission - what the device may do with a page
 * @THD_MAY_READ: Read.
 * @THD_IS_EXCLUSIVE: Read; the device has exclusive access to the page.
 * @THD_MAY_WRITE: Read and write.
 */
enum thd_permission {
	THD_MAY_READ,
	THD_IS_EXCLUSIVE,
	THD_MAY_WRITE,
};

/**
 * struct thd_pte - an entry of a device page table
 * @addr: The address at which the device accesses the page.
 * @pfn: The page at @addr: in the VRAM window, see thd_hw_set_window(), or in system
 *	memory.
 * @order: 0 for a page; PMD_ORDER for an entry that covers a whole PMD.
 * @permission: What the device may do.
 */
struct thd_pte {
	unsigned long addr;
	unsigned long pfn;
	unsigned int order;
	enum thd_permission permission;
};

/**
 * typedef thd_fault_fn - Serve a page fault of the device
 * @table: The page table that has no entry for the access.
 * @access: The access, which is at the page that lacks the entry.
 *
 * Context: Process context, may sleep. No lock of the hardware is held.
 * Return: 0 to let the device try again; or an errno, with which the access ends.
 */
typedef int (*thd_fault_fn)(struct thd_table *table, const struct thd_access *access);

/**
 * struct thd_table - a page table of the device, for the memory of one process
 *
 * Embedded in a structure of the driver.
 */
struct thd_table {
	/* private: */
	struct thd_hw *hw;
	struct xarray entries;
	thd_fault_fn fault;
};

/**
 * typedef thd_use_fn - Do with a page what the device does with it
 * @access: The access.
 * @page: The page's kernel address.
 *
 * Stands for the work of the device.
 *
 * Context: Does not sleep, nor take page faults: the page table is locked.
 * Return: 0, or an errno with which the access ends; not -ENOENT.
 */
typedef int (*thd_use_fn)(const struct thd_access *access, void *page);

/* The device writes. */
#define THD_ACCESS_WRITE	BIT(0)
/* The access is only for pages in VRAM: any other page is as good as none. */
#define THD_ACCESS_VRAM		BIT(1)
/* The device raises no faults. */
#define THD_ACCESS_NO_FAULT	BIT(2)

/**
 * struct thd_access - accesses of the device to a range of addresses, page by page
 * @addr: The next page. thd_table_access() moves it on.
 * @end: End of the range, exclusive. For the fault handler, which can serve all of the
 *	range at once.
 * @flags: THD_ACCESS_*.
 * @use: What the device does with the pages.
 * @faults: How many faults the device has raised.
 */
struct thd_access {
	unsigned long addr;
	unsigned long end;
	unsigned int flags;
	thd_use_fn use;
	unsigned long faults;
};

/**
 * struct thd_table_count - what is in a range of a page table
 * @pages: Pages that there are entries for.
 * @vram: How many of these are in VRAM.
 * @exclusive: To how many of these the device has exclusive access.
 */
struct thd_table_count {
	unsigned long pages;
	unsigned long vram;
	unsigned long exclusive;
};

void thd_table_init(struct thd_table *table, struct thd_hw *hw, thd_fault_fn fault);
void thd_table_destroy(struct thd_table *table);

int thd_table_enter(struct thd_table *table, const struct thd_pte *ptes, unsigned int nr);
void thd_table_clear(struct thd_table *table, unsigned long start, unsigned long end,
		     bool keep_vram);
bool thd_table_find(struct thd_table *table, unsigned long addr, struct thd_pte *pte);
void thd_table_count(struct thd_table *table, unsigned long start, unsigned long end,
		     struct thd_table_count *count);

int thd_table_access(struct thd_table *table, struct thd_access *access);

#endif /* _LIB_TEST_HMM_DEVMEM_TABLE_H */
