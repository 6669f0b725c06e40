// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks on loan that the driver wants back.
 */

#include <linux/export.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/percpu-refcount.h>

#include "backing.h"
#include "devmem.h"
#include "evict.h"
#include "pool.h"
#include "reclaim.h"

/* Give a block back, if need be after its pages have moved to system memory. */
static int withdraw(struct hmm_devmem *devmem, u32 block)
{
	int ret;

	ret = hmm_devmem_backing_leave(devmem, block);
	if (ret <= 0)
		return ret;
	/* The block keeps its struct pages as long as it is leaving. */
	hmm_devmem_evict_block(devmem, hmm_devmem_backing_pfn(devmem, block));
	ret = hmm_devmem_backing_left(devmem, block);
	if (!ret && priv(devmem)->hold)
		hmm_devmem_hold_evicted(priv(devmem)->hold, block);
	return ret;
}

/**
 * hmm_devmem_withdraw() - Give one block back to the driver's memory manager
 * @devmem: A devmem with %HMM_DEVMEM_SHARED.
 * @offset: Offset in bytes of any byte of the block, from the start of device memory.
 *
 * Brings the pages of the block back to system memory and calls
 * &hmm_devmem_ops.put_block. Tries once: pages that are locked or referenced at the moment
 * stay, and the library keeps the block. Does not ask whether the library has more
 * than &hmm_devmem_desc.reserve.
 *
 * Context: Process context, may sleep. Can be called with a dma_resv or another lock of
 * the driver's manager held, if neither a copy callback nor &hmm_devmem_ops.put_block takes
 * it, in &hmm_devmem_ops.get_blocks, and in direct reclaim. Takes no mmap lock, waits for
 * no folio lock, and, in direct reclaim, does not use up the reserves of memory.
 * Return:
 * * %0 - the block is the driver's, put by this or by another caller
 * * %-EBUSY - the library keeps the block: pages are in use for another reason than that
 *   they are mapped, there is no system memory for them, or the device does not copy; a
 *   page of it was retired; or it is just being withdrawn, or got. A block that the library
 *   does not have may be being got as long as any get_blocks callback has not returned.
 * * %-ENODEV - @devmem is being removed
 * * %-EINVAL - @offset is not in device memory
 * * %-EOPNOTSUPP - @devmem does not have %HMM_DEVMEM_SHARED
 *
 * With -EBUSY, pages that have moved to system memory stay there.
 */
int hmm_devmem_withdraw(struct hmm_devmem *devmem, u64 offset)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	const u64 block = div_u64(offset, HMM_DEVMEM_BLOCK_SIZE);
	int ret;

	might_sleep();
	if (!backing)
		return -EOPNOTSUPP;
	if (block >= backing->nr_blocks)
		return -EINVAL;
	if (!hmm_devmem_ref_tryget_live(devmem))
		return -ENODEV;
	ret = withdraw(devmem, block);
	hmm_devmem_ref_put(devmem);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_devmem_withdraw);

static bool is_lent(void *arg, u32 block)
{
	return hmm_devmem_backing_has(arg, block);
}

/* The next block to be given back, the coldest if that is known. */
static u32 next_victim(struct hmm_devmem *devmem, struct hmm_devmem_hold_walk *walk)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	u32 block;

	if (priv(devmem)->hold)
		return hmm_devmem_hold_next(priv(devmem)->hold, walk, is_lent, backing);
	for (block = walk->begun ? walk->block + 1 : 0; block < backing->nr_blocks; block++)
		if (is_lent(backing, block))
			break;
	if (block == backing->nr_blocks)
		return HMM_DEVMEM_HOLD_NONE;
	walk->begun = true;
	walk->block = block;
	return block;
}

/*
 * Evict blocks, one after the other. Each one is tried once at most. Removal waits for this,
 * and an eviction of each block can take a second, so end when removal has begun to wait.
 */
static u32 withdraw_coldest(struct hmm_devmem *devmem, u32 max)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	u32 tries = READ_ONCE(backing->nr_lent);
	struct hmm_devmem_hold_walk walk = { };
	u32 nr = 0, block;

	while (nr < max && tries-- && READ_ONCE(backing->nr_lent) > backing->nr_reserve &&
	       !percpu_ref_is_dying(&priv(devmem)->ref)) {
		block = next_victim(devmem, &walk);
		if (block == HMM_DEVMEM_HOLD_NONE)
			break;
		nr += !withdraw(devmem, block);
		cond_resched();
	}
	return nr;
}

/**
 * hmm_devmem_shrink() - Give memory back to the driver's memory manager
 * @devmem: A devmem with %HMM_DEVMEM_SHARED.
 * @bytes: How much, rounded up to whole blocks of 2 MiB.
 *
 * Gives back blocks without pages in use first. Then it brings pages of other blocks back
 * to system memory, as long as the library has more than &hmm_devmem_desc.reserve: with
 * %HMM_DEVMEM_RECLAIM those of the blocks that were not used for the longest time, see
 * hmm_devmem_mark_used(), otherwise by their offset. Tries each block once, until
 * hmm_devmem_remove() waits for this to end.
 *
 * Context: As hmm_devmem_withdraw().
 * Return: How many bytes &hmm_devmem_ops.put_block has got from this call: more or less
 * than @bytes, or 0, also if @devmem is being removed or does not have
 * %HMM_DEVMEM_SHARED.
 */
u64 hmm_devmem_shrink(struct hmm_devmem *devmem, u64 bytes)
{
	const u64 blocks = div_u64(bytes, HMM_DEVMEM_BLOCK_SIZE) +
			   !!(bytes & (HMM_DEVMEM_BLOCK_SIZE - 1));
	u32 max = min_t(u64, blocks, U32_MAX), nr;

	might_sleep();
	if (!priv(devmem)->backing || !hmm_devmem_ref_tryget_live(devmem))
		return 0;
	nr = hmm_devmem_backing_put_empty(devmem, max, 1);
	nr += withdraw_coldest(devmem, max - nr);
	hmm_devmem_ref_put(devmem);
	return (u64)nr * HMM_DEVMEM_BLOCK_SIZE;
}
EXPORT_SYMBOL_GPL(hmm_devmem_shrink);
