// SPDX-License-Identifier: GPL-2.0
/*
 * Counting why pages did not move to the device.
 */

/**
 * DOC: Reasons
 *
 * A window of which all pages have moved needs no count. For another one, the page table is
 * looked at after the migration, which tells what kind of pages are left: core does not
 * tell a page that it could not lock from one of a kind that does not move. The
 * transaction knows for how many there was no device memory, and how many were not
 * copied. What remains is busy. Other tasks change the page table meanwhile, so no reason
 * gets more pages than are left, and in the end the reasons are made to add up.
 */

#include <kunit/visibility.h>
#include <linux/hmm_devmem.h>
#include <linux/minmax.h>

#include "left.h"

/* Give up to @nr of the @rest pages that have no reason yet the reason @reason. */
static void take(unsigned long *rest, unsigned long *reason, unsigned long nr)
{
	nr = min(nr, *rest);
	*rest -= nr;
	*reason += nr;
}

/**
 * hmm_devmem_left_add() - Count the pages of a window that are not on the device
 * @left: The reasons, to which those of the window are added.
 * @window: What is known about the window.
 *
 * Context: Any context.
 */
void hmm_devmem_left_add(struct hmm_devmem_left *left,
			 const struct hmm_devmem_left_window *window)
{
	unsigned long rest = window->nr - min(window->here, window->nr);
	unsigned long holes = rest - min(window->movable + window->fixed, rest);

	take(&rest, &left->not_suitable, window->fixed + (window->fills ? 0 : holes));
	take(&rest, &left->not_copied, window->nr_not_copied);
	take(&rest, window->no_memory ? &left->no_memory : &left->no_device_memory,
	     window->nr_short);
	/* Pages that are still missing: another task has not filled them in meanwhile. */
	take(&rest, &left->no_memory, min(window->nr_unfilled, holes));
	left->busy += rest;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_left_add);

static void give_back(unsigned long *excess, unsigned long *reason)
{
	const unsigned long nr = min(*excess, *reason);

	*excess -= nr;
	*reason -= nr;
}

/**
 * hmm_devmem_left_settle() - Make the reasons add up
 * @left: The reasons for all windows.
 * @nr: How many pages of the range are not on the device in the end.
 *
 * Pages that were not tried, or that have left the device again, are busy. If other
 * tasks have moved pages to the device after they were counted, pages lose their reason,
 * first those that were busy.
 *
 * Context: Any context.
 */
void hmm_devmem_left_settle(struct hmm_devmem_left *left, unsigned long nr)
{
	const unsigned long sum = left->busy + left->no_device_memory + left->no_memory +
				  left->not_copied + left->not_suitable;
	unsigned long excess = sum - min(sum, nr);

	left->busy += nr - min(sum, nr);
	give_back(&excess, &left->busy);
	give_back(&excess, &left->no_memory);
	give_back(&excess, &left->no_device_memory);
	give_back(&excess, &left->not_copied);
	give_back(&excess, &left->not_suitable);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_left_settle);
