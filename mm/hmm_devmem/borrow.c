// SPDX-License-Identifier: GPL-2.0
/*
 * Getting more device memory: create struct pages for a part of it, or borrow blocks from
 * the driver.
 */

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/kernel.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/percpu-rwsem.h>
#include <linux/rwsem.h>
#include <linux/wait_bit.h>

#include "backing.h"
#include "borrow.h"
#include "devmem.h"
#include "fail.h"
#include "pool.h"
#include "segment.h"

/* How many blocks the driver is asked for at once. */
#define HMM_DEVMEM_BORROW_MAX	16U

/* Return: 0, an errno, or 1 if the segment has to end first. */
static int try_lend(struct hmm_devmem *devmem, unsigned int idx, unsigned long pfn)
{
	int ret;

	/*
	 * A segment is taken away only with the lock held for writing, and only if none of
	 * its blocks is lent.
	 */
	scoped_guard(rwsem_read, &priv(devmem)->segments_lock) {
		if (priv(devmem)->segments[idx]) {
			hmm_devmem_pool_lend(priv(devmem)->pool, pfn);
			return 0;
		}
	}
	ACQUIRE(rwsem_write_kill, lock)(&priv(devmem)->segments_lock);
	ret = ACQUIRE_ERR(rwsem_write_kill, &lock);
	if (ret)
		return ret;
	if (test_bit(idx, priv(devmem)->ending))
		return 1;
	if (!priv(devmem)->segments[idx])
		ret = hmm_devmem_segments_add(devmem, idx);
	if (!ret)
		hmm_devmem_pool_lend(priv(devmem)->pool, pfn);
	return ret;
}

/* Let the pool use the block at @pfn, for which struct pages are created if need be. */
static int lend(struct hmm_devmem *devmem, unsigned long pfn)
{
	const unsigned int idx = hmm_devmem_segment_idx(devmem, pfn);
	int ret;

	while ((ret = try_lend(devmem, idx, pfn)) > 0) {
		ret = wait_var_event_killable(&priv(devmem)->nr_ending,
					      !test_bit(idx, priv(devmem)->ending));
		if (ret)
			break;
	}
	return ret;
}

/*
 * Let the pool use a block that get_blocks() has given. If that fails, give the block back.
 * One that the driver cannot have given is refused and not given back.
 */
static int use_block(struct hmm_devmem *devmem, u64 offset)
{
	u32 block;
	int ret;

	if (!hmm_devmem_backing_claim(devmem, offset, &block))
		return -ENOMEM;
	ret = lend(devmem, hmm_devmem_backing_pfn(devmem, block));
	hmm_devmem_backing_got(devmem, block, !ret);
	return ret;
}

/* Return: The number of @offsets, or an errno. */
static int ask_driver(struct hmm_devmem *devmem, u64 *offsets, unsigned int nr,
		      bool may_evict)
{
	struct hmm_devmem_priv *priv = priv(devmem);
	unsigned int got = 0;
	int ret;

	/*
	 * Removal and suspend refuse more, and then wait for those that were asked for.
	 * Do not wait for them: a caller of hmm_devmem_alloc_folio() can hold a lock that
	 * a migration, for which they wait, needs.
	 */
	if (!percpu_down_read_trylock(&priv->intake))
		return hmm_devmem_pool_refused(priv->pool) ?: -ENODEV;
	ret = hmm_devmem_pool_refused(priv->pool);
	if (!ret && !hmm_devmem_should_fail(devmem, HMM_DEVMEM_FAIL_BLOCKS))
		got = devmem->ops->get_blocks(devmem, offsets, nr, may_evict);
	percpu_up_read(&priv->intake);
	if (got > nr) {
		dev_err_once(devmem->device, "get_blocks() gave %u blocks, not %u\n", got, nr);
		got = nr;
	}
	return ret ?: got;
}

/* Return: 0 if the library has got at least one block, or an errno. */
static int borrow(struct hmm_devmem *devmem, unsigned int nr, bool may_evict)
{
	struct hmm_devmem_backing *backing = priv(devmem)->backing;
	u64 offsets[HMM_DEVMEM_BORROW_MAX];
	int i, got, err, ret = -ENOMEM;

	/* A block that is being got cannot be withdrawn: see hmm_devmem_backing_leave(). */
	atomic_inc(&backing->nr_getting);
	got = ask_driver(devmem, offsets, min(nr, HMM_DEVMEM_BORROW_MAX), may_evict);
	for (i = 0; i < got; i++) {
		err = use_block(devmem, offsets[i]);
		if (!err || ret == -ENOMEM)
			ret = err;
	}
	hmm_devmem_backing_getting_ends(devmem);
	return got < 0 ? got : ret;
}

/**
 * hmm_devmem_can_get_more() - Can more device memory be had without an eviction?
 * @devmem: A managed devmem.
 * @seq: From hmm_devmem_segments_seq(), called before the caller looked for free pages.
 *
 * Context: Any context.
 * Return: A hint: struct pages can be created, or the driver has blocks.
 */
bool hmm_devmem_can_get_more(struct hmm_devmem *devmem, unsigned int seq)
{
	const struct hmm_devmem_backing *backing = priv(devmem)->backing;

	return backing ? READ_ONCE(backing->nr_lent) < backing->nr_blocks :
			 hmm_devmem_may_grow(devmem, seq);
}

/**
 * hmm_devmem_get_more() - Get more device memory, but evict nothing for it
 * @devmem: A managed devmem; the caller keeps it from being removed.
 * @seq: As for hmm_devmem_can_get_more().
 * @nr_pages: For how many pages, not 0. A hint.
 *
 * Context: Process context, may sleep. The caller has no folio lock, no mmap lock,
 * and no lock that &hmm_devmem_ops.get_blocks takes.
 * Return:
 * * %0 - there is more now, or struct pages came or went since @seq was read
 * * %-ENOMEM - there is no memory for struct pages, or the device has no more
 * * others as hmm_devmem_segments_grow()
 */
int hmm_devmem_get_more(struct hmm_devmem *devmem, unsigned int seq,
			unsigned long nr_pages)
{
	if (!priv(devmem)->backing)
		return hmm_devmem_segments_grow(devmem, seq);
	return borrow(devmem, DIV_ROUND_UP(nr_pages, HMM_DEVMEM_BLOCK_NR), false);
}

/**
 * hmm_devmem_get_reserve() - Get more device memory up to the reserve
 * @devmem: A managed devmem; the caller keeps it from being removed.
 * @nr_pages: For how many pages, not 0. A hint.
 *
 * The driver may evict its buffers for it. Can exceed the reserve by what several
 * callers get at the same time.
 *
 * Context: As hmm_devmem_get_more().
 * Return: As hmm_devmem_get_more(); -ENOMEM also if the library has its reserve, or
 * @devmem has none.
 */
int hmm_devmem_get_reserve(struct hmm_devmem *devmem, unsigned long nr_pages)
{
	const struct hmm_devmem_backing *backing = priv(devmem)->backing;
	u32 lent;

	if (!backing)
		return -ENOMEM;
	lent = READ_ONCE(backing->nr_lent);
	if (lent >= backing->nr_reserve)
		return -ENOMEM;
	return borrow(devmem, min(DIV_ROUND_UP(nr_pages, HMM_DEVMEM_BLOCK_NR),
				  backing->nr_reserve - lent), true);
}
