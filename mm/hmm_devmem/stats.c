// SPDX-License-Identifier: GPL-2.0
/*
 * The counters of a devmem.
 */

#include <linux/cpumask.h>
#include <linux/export.h>
#include <linux/percpu.h>

#include "stats.h"

static u64 sum_events(const struct hmm_devmem *devmem,
		      enum hmm_devmem_event event)
{
	unsigned int cpu;
	u64 sum = 0;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(priv(devmem)->stats, cpu)->events[event]);
	return sum;
}

/**
 * hmm_devmem_large_pages() - Number of pages in large folios
 * @devmem: The device memory.
 *
 * Context: Any context.
 * Return: Number of pages of PAGE_SIZE.
 */
u64 hmm_devmem_large_pages(const struct hmm_devmem *devmem)
{
	return sum_events(devmem, HMM_DEVMEM_LARGE_ALLOCATED) -
	       sum_events(devmem, HMM_DEVMEM_LARGE_GONE);
}

/**
 * hmm_devmem_get_stats() - Read the counters
 * @devmem: The device memory; can have been removed.
 * @stats: Filled in. The counters are read one after the other.
 *
 * Context: Any context.
 */
void hmm_devmem_get_stats(struct hmm_devmem *devmem,
			  struct hmm_devmem_stats *stats)
{
	*stats = (struct hmm_devmem_stats) {
		.allocated = sum_events(devmem, HMM_DEVMEM_ALLOCATED),
		.freed = sum_events(devmem, HMM_DEVMEM_FREED),
		.to_device = sum_events(devmem, HMM_DEVMEM_MOVED_TO_DEVICE),
		.to_ram = sum_events(devmem, HMM_DEVMEM_MOVED_TO_RAM),
		.faults = sum_events(devmem, HMM_DEVMEM_FAULTS),
		.fault_pages = sum_events(devmem, HMM_DEVMEM_FAULT_PAGES),
		.evicted = sum_events(devmem, HMM_DEVMEM_EVICTED),
		.copy_errors = sum_events(devmem, HMM_DEVMEM_COPY_ERRORS),
		.lost = sum_events(devmem, HMM_DEVMEM_LOST),
		.device_faults = sum_events(devmem, HMM_DEVMEM_DEVICE_FAULTS),
		.device_fault_pages = sum_events(devmem, HMM_DEVMEM_DEVICE_FAULT_PAGES),
		.device_fault_used = sum_events(devmem, HMM_DEVMEM_DEVICE_FAULT_USED),
	};
}
EXPORT_SYMBOL_GPL(hmm_devmem_get_stats);
