// SPDX-License-Identifier: GPL-2.0
/*
 * The owner of each block of device memory: the driver, or the library.
 */

/**
 * DOC: Blocks on loan
 *
 * With %HMM_DEVMEM_SHARED the device's memory belongs to a memory manager of the driver,
 * such as TTM, and the library has no more of it than it needs. The manager lends *blocks*
 * (2 MiB on x86). Each block is owned by the driver, or by the library. While a block is
 * being got or given back, the library owns it, but no other task can withdraw it. ::
 *
 *   driver --get_blocks()--> being got --struct pages--> library
 *     ^                          |                        |  ^
 *     |                    no struct pages       withdraw |  | pages stay
 *     |                          v                        v  |
 *     +------put_block()---------+----------------------leaving
 *
 * While get_blocks() runs, the library does not know which blocks the driver will lend. So
 * until it has returned, a withdrawal of any block that the library does not have fails
 * with -EBUSY.
 *
 * A block goes back only if none of its pages is in use, or was ever retired: the pool
 * decides both under its lock. &hmm_devmem_backing.lock is held while put_block() is
 * called: so a block that is found to be the driver's has been put, and a manager that
 * gives it out again at once, on another CPU, is not misunderstood.
 *
 * What a driver gives in error, such as a block that the library has already, is
 * refused, is not given back, and is named once in the log.
 *
 * Struct pages exist as with %HMM_DEVMEM_LAZY: those of a section are created before the
 * first of its blocks is used, and are not taken away as long as the library has one.
 *
 * State is kept apart from the pool's blocks, which are read whenever pages are allocated
 * or freed. It takes a byte and two bits for each block.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/lockdep.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "backing.h"
#include "devmem.h"
#include "pool.h"

/* How many blocks are named in the log that removal cannot give back. */
#define HMM_DEVMEM_REPORT_LINES		8

static u64 block_offset(u32 block)
{
	return (u64)block * HMM_DEVMEM_BLOCK_SIZE;
}

/**
 * hmm_devmem_backing_create() - Set up the state of blocks, which are all the driver's
 * @nr_blocks: Number of blocks of the device.
 * @reserve: &hmm_devmem_desc.reserve.
 *
 * Context: Process context, may sleep.
 * Return: The state, or NULL if there is no memory.
 */
struct hmm_devmem_backing *hmm_devmem_backing_create(u32 nr_blocks, u64 reserve)
{
	struct hmm_devmem_backing *backing = kzalloc_obj(*backing);

	if (!backing)
		return NULL;
	mutex_init(&backing->lock);
	backing->nr_blocks = nr_blocks;
	backing->nr_reserve = min_t(u64, nr_blocks,
				    div_u64(reserve, HMM_DEVMEM_BLOCK_SIZE));
	backing->lent = bitmap_zalloc(nr_blocks, GFP_KERNEL);
	backing->busy = bitmap_zalloc(nr_blocks, GFP_KERNEL);
	backing->idle = kvcalloc(nr_blocks, sizeof(*backing->idle), GFP_KERNEL);
	if (backing->lent && backing->busy && backing->idle)
		return backing;
	hmm_devmem_backing_destroy(backing);
	return NULL;
}

/**
 * hmm_devmem_backing_destroy() - Undo hmm_devmem_backing_create()
 * @backing: The state, or NULL.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_backing_destroy(struct hmm_devmem_backing *backing)
{
	if (!backing)
		return;
	mutex_destroy(&backing->lock);
	bitmap_free(backing->lent);
	bitmap_free(backing->busy);
	kvfree(backing->idle);
	kfree(backing);
}

static void set_lent(struct hmm_devmem_backing *backing, u32 block, bool lent)
{
	lockdep_assert_held(&backing->lock);

	assign_bit(block, backing->lent, lent);
	WRITE_ONCE(backing->nr_lent, backing->nr_lent + (lent ? 1 : -1));
	backing->idle[block] = 0;
}

/* The manager can hand the block out again before put_block() has returned. */
static void put_block(struct hmm_devmem *devmem, u32 block)
{
	set_lent(priv(devmem)->backing, block, false);
	devmem->ops->put_block(devmem, block_offset(block));
}

/* Give a block back if all of its pages are free, and can be used. */
static bool put_if_empty(struct hmm_devmem *devmem, u32 block)
{
	lockdep_assert_held(&priv(devmem)->backing->lock);

	if (!hmm_devmem_pool_take_back(priv(devmem)->pool,
				       hmm_devmem_backing_pfn(devmem, block)))
		return false;
	put_block(devmem, block);
	return true;
}

/* Why the driver cannot have given a block; NULL if it can. */
static const char *why_not(const struct hmm_devmem_backing *backing, u64 offset)
{
	u64 block;
	u32 rest;

	block = div_u64_rem(offset, HMM_DEVMEM_BLOCK_SIZE, &rest);
	if (rest)
		return "is not aligned";
	if (block >= backing->nr_blocks)
		return "is out of range";
	return test_bit(block, backing->lent) ? "is lent already" : NULL;
}

/**
 * hmm_devmem_backing_claim() - Take a block that get_blocks() has given
 * @devmem: The device memory; counted in &hmm_devmem_backing.nr_getting.
 * @offset: What the driver has given.
 * @block: Filled in.
 *
 * From now on the block cannot be given again. hmm_devmem_backing_got() follows.
 *
 * Context: Process context, may sleep.
 * Return: False if the driver cannot have given that, which the log says once.
 */
bool hmm_devmem_backing_claim(struct hmm_devmem *devmem, u64 offset, u32 *block)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	const char *why;

	guard(mutex)(&backing->lock);
	why = why_not(backing, offset);
	if (!why) {
		*block = div_u64(offset, HMM_DEVMEM_BLOCK_SIZE);
		set_lent(backing, *block, true);
		set_bit(*block, backing->busy);
		return true;
	}
	if (!backing->complained)
		dev_err(devmem->device, "get_blocks() gave block %#llx, which %s\n",
			offset, why);
	backing->complained = true;
	return false;
}

/**
 * hmm_devmem_backing_got() - Note that a block can be used, or give it back
 * @devmem: The device memory.
 * @block: A block that was claimed.
 * @usable: The block has struct pages, and the pool has it.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_backing_got(struct hmm_devmem *devmem, u32 block, bool usable)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;

	guard(mutex)(&backing->lock);
	clear_bit(block, backing->busy);
	if (!usable)
		put_block(devmem, block);
}

/**
 * hmm_devmem_backing_getting_ends() - Undo an increment of &hmm_devmem_backing.nr_getting
 * @devmem: The device memory.
 *
 * Context: Any context.
 */
void hmm_devmem_backing_getting_ends(struct hmm_devmem *devmem)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;

	/* Orders what was got before the wake-up. */
	if (!atomic_dec_return(&backing->nr_getting))
		wake_up_var(&backing->nr_getting);
}

/**
 * hmm_devmem_backing_leave() - Begin to give a block back
 * @devmem: The device memory.
 * @block: The block.
 *
 * Context: Process context, may sleep; also in memory reclaim.
 * Return:
 * * %0 - the block is the driver's
 * * %-EBUSY - it cannot be given back: it may be being got or is leaving already, or one
 *   of its pages was retired
 * * %1 - pages are in use, and no more are handed out until
 *   hmm_devmem_backing_left(), which must be called
 */
int hmm_devmem_backing_leave(struct hmm_devmem *devmem, u32 block)
{
	const unsigned long pfn = hmm_devmem_backing_pfn(devmem, block);
	struct hmm_devmem_backing *backing = priv(devmem)->backing;

	guard(mutex)(&backing->lock);
	if (!test_bit(block, backing->lent))
		return atomic_read(&backing->nr_getting) ? -EBUSY : 0;
	if (test_bit(block, backing->busy) ||
	    hmm_devmem_pool_block_retired(priv(devmem)->pool, pfn))
		return -EBUSY;
	if (put_if_empty(devmem, block))
		return 0;
	set_bit(block, backing->busy);
	atomic_inc(&backing->nr_leaving);
	hmm_devmem_pool_withhold(priv(devmem)->pool, pfn);
	return 1;
}

/**
 * hmm_devmem_backing_left() - Give a block back, if its pages are free now
 * @devmem: The device memory.
 * @block: A block for which hmm_devmem_backing_leave() has returned 1.
 *
 * Context: Process context, may sleep; also in memory reclaim.
 * Return: 0, or -EBUSY and the library keeps the block.
 */
int hmm_devmem_backing_left(struct hmm_devmem *devmem, u32 block)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	bool put;

	scoped_guard(mutex, &backing->lock) {
		clear_bit(block, backing->busy);
		put = put_if_empty(devmem, block);
		if (!put)
			hmm_devmem_pool_lend(priv(devmem)->pool,
					     hmm_devmem_backing_pfn(devmem, block));
	}
	/* As hmm_devmem_backing_getting_ends(). */
	if (!atomic_dec_return(&backing->nr_leaving))
		wake_up_var(&backing->nr_leaving);
	return put ? 0 : -EBUSY;
}

/**
 * hmm_devmem_backing_put_empty() - Give blocks back that have no page in use
 * @devmem: The device memory.
 * @max: How many at most.
 * @rounds: Only blocks that are found empty in so many calls in a row, at least 1.
 *
 * Context: Process context, may sleep; also in memory reclaim.
 * Return: How many.
 */
u32 hmm_devmem_backing_put_empty(struct hmm_devmem *devmem, u32 max,
				 unsigned int rounds)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	struct hmm_devmem_pool *pool = priv(devmem)->pool;
	u32 block, nr = 0;

	hmm_devmem_pool_drain(pool);
	for (block = 0; block < backing->nr_blocks && nr < max; block++) {
		if (!hmm_devmem_backing_has(backing, block))
			continue;
		guard(mutex)(&backing->lock);
		if (!hmm_devmem_backing_has(backing, block))
			continue;
		if (hmm_devmem_pool_block_taken(pool, hmm_devmem_backing_pfn(devmem, block)))
			backing->idle[block] = 0;
		else if (++backing->idle[block] >= rounds)
			nr += put_if_empty(devmem, block);
	}
	return nr;
}

/**
 * hmm_devmem_backing_put_all() - Give all blocks back
 * @devmem: The device memory; nothing can be allocated, and all that could be evicted was.
 *
 * Waits for blocks that are being got or are leaving. Blocks with a page in use or a
 * retired page stay.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_backing_put_all(struct hmm_devmem *devmem)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;

	if (!backing)
		return;
	wait_var_event(&backing->nr_getting, !atomic_read(&backing->nr_getting));
	wait_var_event(&backing->nr_leaving, !atomic_read(&backing->nr_leaving));
	hmm_devmem_backing_put_empty(devmem, U32_MAX, 1);
}

/**
 * hmm_devmem_backing_report() - Name the blocks that removal cannot give back
 * @devmem: The device memory.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_backing_report(struct hmm_devmem *devmem)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	unsigned int lines = 0;
	u32 block;

	if (!backing || !backing->nr_lent)
		return;
	dev_warn(devmem->device, "%u blocks of device memory are not given back\n",
		 backing->nr_lent);
	for_each_set_bit(block, backing->lent, backing->nr_blocks) {
		dev_warn(devmem->device, "block %#llx\n", block_offset(block));
		if (++lines == HMM_DEVMEM_REPORT_LINES)
			break;
	}
}
