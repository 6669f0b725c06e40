/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counters: see stats.c.
 */
#ifndef _MM_HMM_DEVMEM_STATS_H
#define _MM_HMM_DEVMEM_STATS_H

#include <linux/percpu.h>
#include <linux/types.h>

#include "devmem.h"

/* Those up to the first comment below are described in struct hmm_devmem_stats. */
enum hmm_devmem_event {
	HMM_DEVMEM_ALLOCATED,
	HMM_DEVMEM_FREED,
	HMM_DEVMEM_MOVED_TO_DEVICE,
	HMM_DEVMEM_MOVED_TO_RAM,
	HMM_DEVMEM_FAULTS,
	HMM_DEVMEM_FAULT_PAGES,
	HMM_DEVMEM_EVICTED,
	HMM_DEVMEM_COPY_ERRORS,
	HMM_DEVMEM_LOST,
	HMM_DEVMEM_DEVICE_FAULTS,
	HMM_DEVMEM_DEVICE_FAULT_PAGES,
	HMM_DEVMEM_DEVICE_FAULT_USED,
	/* Pages of large folios that were allocated, and freed or split. */
	HMM_DEVMEM_LARGE_ALLOCATED,
	HMM_DEVMEM_LARGE_GONE,
	HMM_DEVMEM_NR_EVENTS,
};

struct hmm_devmem_stats_pcpu {
	unsigned long events[HMM_DEVMEM_NR_EVENTS];
};

static inline void hmm_devmem_count(struct hmm_devmem *devmem,
				    enum hmm_devmem_event event,
				    unsigned long nr)
{
	this_cpu_add(priv(devmem)->stats->events[event], nr);
}

u64 hmm_devmem_large_pages(const struct hmm_devmem *devmem);

#endif /* _MM_HMM_DEVMEM_STATS_H */
