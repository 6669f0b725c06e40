/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Eviction: see evict.c.
 */
#ifndef _MM_HMM_DEVMEM_EVICT_H
#define _MM_HMM_DEVMEM_EVICT_H

#include <linux/types.h>

struct hmm_devmem;
struct hmm_devmem_hold_data;
struct hmm_devmem_left;

/**
 * struct hmm_devmem_evict_clock - how long removal and suspend wait for pages in use
 * @deadline: When they give up, in nanoseconds, if no other page comes back before.
 * @last: The latest possible @deadline. Each pass over all pages that brings pages back
 *	puts it off by the time that the pass takes.
 */
struct hmm_devmem_evict_clock {
	u64 deadline;
	u64 last;
};

#if IS_ENABLED(CONFIG_KUNIT)
void hmm_devmem_evict_clock_pass(struct hmm_devmem_evict_clock *clock,
				 u64 start, u64 now, bool progress);
u64 hmm_devmem_evict_ns(void);
#endif
extern u32 hmm_devmem_evict_wait_s;
void hmm_devmem_drain_batches(void);
unsigned long hmm_devmem_evict_all(struct hmm_devmem *devmem, bool killable,
				   struct hmm_devmem_left *left);
void hmm_devmem_evict_block(struct hmm_devmem *devmem, unsigned long pfn);
int hmm_devmem_reclaim(struct hmm_devmem *devmem,
		       const struct hmm_devmem_hold_data *data,
		       const unsigned long *keep, bool drain);

#endif /* _MM_HMM_DEVMEM_EVICT_H */
