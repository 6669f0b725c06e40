/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Why pages did not move to the device: see left.c.
 */
#ifndef _MM_HMM_DEVMEM_LEFT_H
#define _MM_HMM_DEVMEM_LEFT_H

#include <linux/types.h>

struct hmm_devmem_left;

/**
 * struct hmm_devmem_left_window - what is known about a window after its migration
 * @nr: Number of pages of the window.
 * @here: How many are on the device.
 * @movable: How many are pages of system memory that could move, or move at the moment.
 * @fixed: How many are pages that cannot move.
 * @fills: The others, which the process does not have, can get a device page.
 * @nr_short: For how many there was no device memory.
 * @no_memory: The reason for that is that the kernel had no memory.
 * @nr_not_copied: How many were not copied.
 * @nr_unfilled: How many core did not fill in, though they were copied.
 * @large: The destination of these was a large folio.
 *
 * All numbers are of pages. Other tasks can have changed the page table between the
 * migration and the look at it, so the numbers need not agree.
 */
struct hmm_devmem_left_window {
	unsigned long nr;
	unsigned long here;
	unsigned long movable;
	unsigned long fixed;
	bool fills;
	unsigned long nr_short;
	bool no_memory;
	unsigned long nr_not_copied;
	unsigned long nr_unfilled;
	bool large;
};

void hmm_devmem_left_add(struct hmm_devmem_left *left,
			 const struct hmm_devmem_left_window *window);
void hmm_devmem_left_settle(struct hmm_devmem_left *left, unsigned long nr);

#endif /* _MM_HMM_DEVMEM_LEFT_H */
