/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Blocks on loan: the owner of each block of device memory.
 */
#ifndef _MM_HMM_DEVMEM_BACKING_H
#define _MM_HMM_DEVMEM_BACKING_H

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/hmm_devmem.h>
#include <linux/mutex.h>
#include <linux/types.h>

#include "devmem.h"

/**
 * struct hmm_devmem_backing - the owners of the blocks of a devmem with %HMM_DEVMEM_SHARED
 * @lock: Protects all fields except the atomic counters. Held around
 *	&hmm_devmem_ops.put_block. It can be taken in memory reclaim.
 * @nr_blocks: Number of blocks of the device.
 * @nr_reserve: While the library has fewer blocks than this, get_blocks() may evict
 *	buffers of the driver.
 * @nr_lent: Number of blocks that the library has. A hint without the lock.
 * @nr_leaving: How many of those are being given back to the driver. Changed atomically.
 * @nr_getting: Number of calls of &hmm_devmem_ops.get_blocks whose blocks cannot be told
 *	yet from those of the driver. Changed atomically.
 * @complained: The driver has given a block that it cannot give.
 * @lent: A bit for each block that is not the driver's.
 * @busy: A bit for each of those that is being got, or is leaving.
 * @idle: For each block how often in a row it was found empty.
 */
struct hmm_devmem_backing {
	struct mutex lock;	/* see above */
	u32 nr_blocks;
	u32 nr_reserve;
	u32 nr_lent;
	atomic_t nr_leaving;
	atomic_t nr_getting;
	bool complained;
	unsigned long *lent;
	unsigned long *busy;
	u8 *idle;
};

struct hmm_devmem_backing *hmm_devmem_backing_create(u32 nr_blocks, u64 reserve);
void hmm_devmem_backing_destroy(struct hmm_devmem_backing *backing);
bool hmm_devmem_backing_claim(struct hmm_devmem *devmem, u64 offset, u32 *block);
void hmm_devmem_backing_got(struct hmm_devmem *devmem, u32 block, bool usable);
void hmm_devmem_backing_getting_ends(struct hmm_devmem *devmem);
int hmm_devmem_backing_leave(struct hmm_devmem *devmem, u32 block);
int hmm_devmem_backing_left(struct hmm_devmem *devmem, u32 block);
u32 hmm_devmem_backing_put_empty(struct hmm_devmem *devmem, u32 max,
				 unsigned int rounds);
void hmm_devmem_backing_put_all(struct hmm_devmem *devmem);
void hmm_devmem_backing_report(struct hmm_devmem *devmem);

/* First pfn of a block of a devmem with blocks on loan, in which no block is cut off. */
static inline unsigned long
hmm_devmem_backing_pfn(const struct hmm_devmem *devmem, u32 block)
{
	return devmem->pfn_first + ((unsigned long)block << HMM_DEVMEM_BLOCK_ORDER);
}

/* Does the library have a block that is not just being got or given back? A hint. */
static inline bool
hmm_devmem_backing_has(const struct hmm_devmem_backing *backing, u32 block)
{
	return test_bit(block, backing->lent) && !test_bit(block, backing->busy);
}

#endif /* _MM_HMM_DEVMEM_BACKING_H */
