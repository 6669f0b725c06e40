// SPDX-License-Identifier: GPL-2.0
/*
 * The memory manager of a test device, with buffers that compete for the memory with
 * pages of processes.
 */

/**
 * DOC: Memory manager of the test device
 *
 * It stands for TTM: it has all memory of a device that was plugged with
 * HMM_DEVMEM_TEST_SHARED, in blocks of 2 MiB. A block is free, is part of a *buffer*, or is
 * lent to the library. Buffers are what graphics has on a GPU. They do not page: a buffer
 * is on the device with all of its blocks, or is evicted to system memory.
 *
 * To get a buffer onto the device the manager uses free blocks, then what the library gives
 * back, and then evicts the buffer that was used least recently. It asks the library by
 * turns for an amount, hmm_devmem_shrink(), and for single blocks, hmm_devmem_withdraw().
 * For the library it evicts buffers only if it may.
 *
 * Every word of a buffer has a known value, so that a check finds a word that anything else
 * has written.
 *
 * &thd_vram.resv is held in all that, as a dma_resv is; &thd_vram.lock, which put_block()
 * takes, is innermost.
 */

#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/hash.h>
#include <linux/hmm_devmem.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "hw.h"
#include "test_hmm_devmem.h"
#include "vram.h"

#define VRAM_BLOCK	((u64)PMD_SIZE)

/**
 * struct thd_vram - the memory manager of a device
 * @resv: Held while blocks change hands; protects @buffers, @nr_buffer_blocks, @lru,
 *	@turn and @evictions. Stands for a dma_resv: the library must be able to give
 *	blocks back to a caller that holds it.
 * @lock: Protects @nr_blocks, @used, @lent and @wrong_puts. Innermost.
 * @hw: The hardware.
 * @max_blocks: Blocks of the hardware.
 * @nr_blocks: Blocks of the device as it was plugged; 0 if the manager has none.
 * @used: A bit for each block of a buffer that is on the device.
 * @lent: A bit for each block that the library has.
 * @buffers: All buffers, by their number.
 * @nr_buffer_blocks: How many blocks they have in all, on the device or not.
 * @lru: Those on the device, the one that was used last first.
 * @turn: Counts the requests to the library: every second one is for a
 *	single block, unless the library would have less than its reserve then.
 * @evictions: How often a buffer was evicted since the device was plugged.
 * @wrong_puts: Blocks that were given back and had not been lent.
 */
struct thd_vram {
	struct mutex resv;	/* see above */
	spinlock_t lock;	/* see above */
	struct thd_hw *hw;
	unsigned int max_blocks;
	unsigned int nr_blocks;
	unsigned long *used;
	unsigned long *lent;
	struct xarray buffers;
	unsigned int nr_buffer_blocks;
	struct list_head lru;
	unsigned int turn;
	u64 evictions;
	u64 wrong_puts;
};

/**
 * struct vram_buffer - a buffer
 * @lru: On &thd_vram.lru; empty if it is evicted.
 * @mirror: The open file that it belongs to.
 * @id: Its number.
 * @version: Counts how often its content was written.
 * @nr: Number of @blocks.
 * @copies: While it is evicted: the content of each block.
 * @blocks: While it is on the device: its blocks.
 */
struct vram_buffer {
	struct list_head lru;
	const struct thd_mirror *mirror;
	u32 id;
	u32 version;
	unsigned int nr;
	void **copies;
	unsigned int blocks[] __counted_by(nr);
};

/**
 * thd_vram_create() - Set up the memory manager of a device
 * @hw: The hardware.
 * @size: Bytes of VRAM.
 *
 * Context: Process context, may sleep.
 * Return: The manager, or NULL if there is no memory.
 */
struct thd_vram *thd_vram_create(struct thd_hw *hw, u64 size)
{
	struct thd_vram *vram = kzalloc_obj(*vram);

	if (!vram)
		return NULL;
	mutex_init(&vram->resv);
	spin_lock_init(&vram->lock);
	xa_init_flags(&vram->buffers, XA_FLAGS_ALLOC1);
	INIT_LIST_HEAD(&vram->lru);
	vram->hw = hw;
	vram->max_blocks = size / VRAM_BLOCK;
	vram->used = bitmap_zalloc(vram->max_blocks + 1, GFP_KERNEL);
	vram->lent = bitmap_zalloc(vram->max_blocks + 1, GFP_KERNEL);
	if (vram->used && vram->lent)
		return vram;
	thd_vram_destroy(vram);
	return NULL;
}

/**
 * thd_vram_destroy() - Undo thd_vram_create()
 * @vram: The manager, without buffers; can be NULL.
 *
 * Context: Process context, may sleep.
 */
void thd_vram_destroy(struct thd_vram *vram)
{
	if (!vram)
		return;
	WARN_ON(!xa_empty(&vram->buffers));
	xa_destroy(&vram->buffers);
	mutex_destroy(&vram->resv);
	bitmap_free(vram->used);
	bitmap_free(vram->lent);
	kfree(vram);
}

/*
 * Blocks.
 */

/* Take a free block; returns false if there is none. */
static bool take_free(struct thd_vram *vram, unsigned long *owner, unsigned int *block)
{
	unsigned int i;

	guard(spinlock)(&vram->lock);
	for (i = 0; i < vram->nr_blocks; i++) {
		if (test_bit(i, vram->used) || test_bit(i, vram->lent))
			continue;
		__set_bit(i, owner);
		*block = i;
		return true;
	}
	return false;
}

/* Number of blocks that are the library's, and of those of buffers. */
static void count_blocks(struct thd_vram *vram, unsigned int *lent, unsigned int *used)
{
	guard(spinlock)(&vram->lock);
	*lent = bitmap_weight(vram->lent, vram->nr_blocks);
	*used = bitmap_weight(vram->used, vram->nr_blocks);
}

static void free_blocks(struct thd_vram *vram, const unsigned int *blocks, unsigned int nr)
{
	guard(spinlock)(&vram->lock);
	while (nr)
		__clear_bit(blocks[--nr], vram->used);
}

/*
 * The content of buffers. The CPU writes and reads it in place of the device.
 */

static u64 first_word(const struct vram_buffer *buffer, unsigned int i)
{
	return hash_64(((u64)buffer->id << 40) + ((u64)buffer->version << 10) + i, 64);
}

/* Call @func for each page of block @i of a buffer, with the number of its first word. */
static u64 sum_of_pages(struct thd_vram *vram, const struct vram_buffer *buffer,
			unsigned int i, u64 (*func)(u64 *words, u64 value))
{
	const u64 offset = buffer->blocks[i] * VRAM_BLOCK;
	u64 value = first_word(buffer, i), sum = 0, at;

	for (at = 0; at < VRAM_BLOCK; at += PAGE_SIZE) {
		sum += func(thd_hw_vram(vram->hw, offset + at), value);
		value += PAGE_SIZE / sizeof(u64);
	}
	cond_resched();
	return sum;
}

static u64 write_page(u64 *words, u64 value)
{
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		words[i] = value + i;
	return 0;
}

static u64 check_page(u64 *words, u64 value)
{
	unsigned int i;
	u64 wrong = 0;

	for (i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		wrong += words[i] != value + i;
	return wrong;
}

static void write_content(struct thd_vram *vram, struct vram_buffer *buffer)
{
	unsigned int i;

	buffer->version++;
	for (i = 0; i < buffer->nr; i++)
		sum_of_pages(vram, buffer, i, write_page);
}

static u64 check_content(struct thd_vram *vram, const struct vram_buffer *buffer)
{
	u64 wrong = 0;
	unsigned int i;

	for (i = 0; i < buffer->nr; i++)
		wrong += sum_of_pages(vram, buffer, i, check_page);
	return wrong;
}

/* Copy a block of VRAM to system memory, or back. */
static void copy_block(struct thd_vram *vram, unsigned int block, void *copy, bool to_vram)
{
	u64 at;
	void *page;

	for (at = 0; at < VRAM_BLOCK; at += PAGE_SIZE) {
		page = thd_hw_vram(vram->hw, block * VRAM_BLOCK + at);
		if (to_vram)
			memcpy(page, copy + at, PAGE_SIZE);
		else
			memcpy(copy + at, page, PAGE_SIZE);
	}
	cond_resched();
}

static void free_copies(struct vram_buffer *buffer)
{
	unsigned int i;

	for (i = 0; buffer->copies && i < buffer->nr; i++)
		kvfree(buffer->copies[i]);
	kvfree(buffer->copies);
	buffer->copies = NULL;
}

static int alloc_copies(struct vram_buffer *buffer)
{
	unsigned int i;

	buffer->copies = kvcalloc(buffer->nr, sizeof(*buffer->copies), GFP_KERNEL);
	for (i = 0; buffer->copies && i < buffer->nr; i++) {
		buffer->copies[i] = kvmalloc(VRAM_BLOCK, GFP_KERNEL | __GFP_NORETRY);
		if (!buffer->copies[i])
			free_copies(buffer);
	}
	return buffer->copies ? 0 : -ENOMEM;
}

/*
 * Eviction.
 */

static int evict_buffer(struct thd_vram *vram, struct vram_buffer *buffer)
{
	unsigned int i;
	int ret;

	lockdep_assert_held(&vram->resv);

	ret = alloc_copies(buffer);
	if (ret)
		return ret;
	for (i = 0; i < buffer->nr; i++)
		copy_block(vram, buffer->blocks[i], buffer->copies[i], false);
	free_blocks(vram, buffer->blocks, buffer->nr);
	list_del_init(&buffer->lru);
	vram->evictions++;
	return 0;
}

/* Evict the buffer that was used least recently. */
static int evict_oldest(struct thd_vram *vram)
{
	if (list_empty(&vram->lru))
		return -ENOSPC;
	return evict_buffer(vram, list_last_entry(&vram->lru, struct vram_buffer, lru));
}

/* Withdraw a block that is lent; returns whether one was. */
static bool withdraw_any(struct thd_vram *vram, struct hmm_devmem *devmem)
{
	unsigned int block = 0;

	for (;;) {
		scoped_guard(spinlock, &vram->lock)
			block = find_next_bit(vram->lent, vram->nr_blocks, block);
		if (block >= vram->nr_blocks)
			return false;
		if (!hmm_devmem_withdraw(devmem, block * VRAM_BLOCK))
			return true;
		block++;
	}
}

/* Ask the library for blocks, but leave it its reserve. Returns whether it gave any. */
static bool ask_library(struct thd_vram *vram, struct hmm_devmem *devmem, u64 reserve,
			unsigned int nr)
{
	unsigned int lent, used;

	count_blocks(vram, &lent, &used);
	if (vram->turn++ % 2 && lent > reserve / VRAM_BLOCK)
		return withdraw_any(vram, devmem);
	return hmm_devmem_shrink(devmem, nr * VRAM_BLOCK);
}

/* Get the blocks of a buffer that is not on the device. */
static int get_buffer_blocks(struct thd_vram *vram, struct hmm_devmem *devmem,
			     u64 reserve, struct vram_buffer *buffer)
{
	unsigned int got = 0;
	int ret = 0;

	lockdep_assert_held(&vram->resv);

	while (got < buffer->nr && !ret) {
		if (take_free(vram, vram->used, &buffer->blocks[got])) {
			ret = thd_hw_populate(vram->hw, buffer->blocks[got] * VRAM_BLOCK,
					      VRAM_BLOCK);
			got++;
		} else if (!ask_library(vram, devmem, reserve, buffer->nr - got)) {
			ret = evict_oldest(vram);
		}
		if (fatal_signal_pending(current))
			ret = -EINTR;
	}
	if (ret)
		free_blocks(vram, buffer->blocks, got);
	return ret;
}

static int make_resident(struct thd_vram *vram, struct hmm_devmem *devmem, u64 reserve,
			 struct vram_buffer *buffer)
{
	unsigned int i;
	int ret;

	if (!list_empty(&buffer->lru)) {
		list_move(&buffer->lru, &vram->lru);
		return 0;
	}
	ret = get_buffer_blocks(vram, devmem, reserve, buffer);
	if (ret)
		return ret;
	for (i = 0; buffer->copies && i < buffer->nr; i++)
		copy_block(vram, buffer->blocks[i], buffer->copies[i], true);
	free_copies(buffer);
	list_add(&buffer->lru, &vram->lru);
	return 0;
}

static void free_buffer(struct thd_vram *vram, struct vram_buffer *buffer)
{
	lockdep_assert_held(&vram->resv);

	xa_erase(&vram->buffers, buffer->id);
	if (!list_empty(&buffer->lru))
		free_blocks(vram, buffer->blocks, buffer->nr);
	list_del(&buffer->lru);
	vram->nr_buffer_blocks -= buffer->nr;
	free_copies(buffer);
	kvfree(buffer);
}

/*
 * What the library calls.
 */

/**
 * thd_vram_get_blocks() - Lend blocks to the library
 * @vram: The manager.
 * @offsets: Filled in.
 * @nr: How many.
 * @may_evict: Evict buffers.
 *
 * Context: &hmm_devmem_ops.get_blocks.
 * Return: How many were lent.
 */
unsigned int thd_vram_get_blocks(struct thd_vram *vram, u64 *offsets,
				 unsigned int nr, bool may_evict)
{
	unsigned int got = 0, block;

	if (mutex_lock_killable(&vram->resv))
		return 0;
	while (got < nr) {
		if (take_free(vram, vram->lent, &block))
			offsets[got++] = block * VRAM_BLOCK;
		else if (!may_evict || evict_oldest(vram))
			break;
	}
	mutex_unlock(&vram->resv);
	return got;
}

/**
 * thd_vram_put_block() - Take a block back from the library
 * @vram: The manager.
 * @offset: The block.
 *
 * Context: &hmm_devmem_ops.put_block.
 */
void thd_vram_put_block(struct thd_vram *vram, u64 offset)
{
	guard(spinlock)(&vram->lock);
	vram->wrong_puts += !__test_and_clear_bit(offset / VRAM_BLOCK, vram->lent);
}

/**
 * thd_vram_plug() - Prepare for device memory to be added
 * @vram: The manager.
 * @size: Bytes of device memory.
 * @shared: The library gets blocks from the manager; else it has all memory, and
 *	buffers are evicted.
 *
 * Context: Process context, may sleep. There is no device memory.
 * Return: 0 or -ENOMEM.
 */
int thd_vram_plug(struct thd_vram *vram, u64 size, bool shared)
{
	int ret = 0;

	guard(mutex)(&vram->resv);
	while (!ret && !list_empty(&vram->lru))
		ret = evict_oldest(vram);
	if (ret)
		return ret;
	vram->evictions = 0;
	guard(spinlock)(&vram->lock);
	vram->nr_blocks = shared ? min_t(u64, size / VRAM_BLOCK, vram->max_blocks) : 0;
	return 0;
}

/**
 * thd_vram_removed() - Note that device memory was removed
 * @vram: The manager.
 *
 * The blocks that are still lent have pages of zombies, or pages that were retired. They can
 * be given to others: no CPU and no copy reaches private memory of a zombie, and coherent
 * memory cannot be added again before the zombie has ended.
 *
 * Context: &hmm_devmem_ops.cleanup.
 */
void thd_vram_removed(struct thd_vram *vram)
{
	guard(spinlock)(&vram->lock);
	bitmap_zero(vram->lent, vram->max_blocks);
	vram->nr_blocks = 0;
}

/**
 * thd_vram_close() - Free the buffers of a file
 * @vram: The manager.
 * @mirror: The file.
 *
 * Context: Process context, may sleep.
 */
void thd_vram_close(struct thd_vram *vram, const struct thd_mirror *mirror)
{
	struct vram_buffer *buffer;
	unsigned long id;

	guard(mutex)(&vram->resv);
	xa_for_each(&vram->buffers, id, buffer)
		if (buffer->mirror == mirror)
			free_buffer(vram, buffer);
}

/*
 * Ioctls.
 */

/**
 * struct vram_call - what an ioctl works with
 * @mirror: The open file.
 * @vram: The memory manager.
 * @devmem: The device memory.
 * @reserve: &hmm_devmem_desc.reserve of @devmem, bytes.
 */
struct vram_call {
	struct thd_mirror *mirror;
	struct thd_vram *vram;
	struct hmm_devmem *devmem;
	u64 reserve;
};

union vram_arg {
	struct hmm_devmem_test_buffer buffer;
	struct hmm_devmem_test_owners owners;
	__u64 value;
};

static int buffer_alloc(struct vram_call *call, struct hmm_devmem_test_buffer *arg)
{
	struct thd_vram *vram = call->vram;
	struct vram_buffer *buffer;
	int ret;

	if (!arg->nr_blocks || arg->nr_blocks > vram->nr_blocks)
		return -EINVAL;
	/* Evicted buffers take system memory. */
	if (arg->nr_blocks > vram->max_blocks - vram->nr_buffer_blocks)
		return -ENOSPC;
	buffer = kvzalloc_flex(*buffer, blocks, arg->nr_blocks);
	if (!buffer)
		return -ENOMEM;
	buffer->nr = arg->nr_blocks;
	buffer->mirror = call->mirror;
	INIT_LIST_HEAD(&buffer->lru);
	ret = xa_alloc(&vram->buffers, &buffer->id, buffer, xa_limit_31b, GFP_KERNEL);
	if (ret) {
		kvfree(buffer);
		return ret;
	}
	vram->nr_buffer_blocks += buffer->nr;
	ret = make_resident(vram, call->devmem, call->reserve, buffer);
	if (ret) {
		free_buffer(vram, buffer);
		return ret;
	}
	write_content(vram, buffer);
	arg->id = buffer->id;
	return 0;
}

/* The content is what was written last, wherever the buffer was meanwhile. */
static int buffer_touch(struct vram_call *call, struct hmm_devmem_test_buffer *arg,
			struct vram_buffer *buffer)
{
	int ret;

	ret = make_resident(call->vram, call->devmem, call->reserve, buffer);
	if (ret)
		return ret;
	arg->wrong = check_content(call->vram, buffer);
	write_content(call->vram, buffer);
	return 0;
}

static int use_buffer(struct vram_call *call, unsigned int nr,
		      struct hmm_devmem_test_buffer *arg)
{
	struct vram_buffer *buffer;

	if (nr == HMM_DEVMEM_TEST_BUFFER_ALLOC)
		return buffer_alloc(call, arg);
	buffer = arg->id > U32_MAX ? NULL : xa_load(&call->vram->buffers, arg->id);
	if (!buffer || buffer->mirror != call->mirror)
		return -ENOENT;
	if (nr == HMM_DEVMEM_TEST_BUFFER_TOUCH)
		return buffer_touch(call, arg, buffer);
	free_buffer(call->vram, buffer);
	return 0;
}

static void get_owners(struct thd_vram *vram, struct hmm_devmem_test_owners *owners)
{
	unsigned int lent, used;

	count_blocks(vram, &lent, &used);
	*owners = (struct hmm_devmem_test_owners) {
		.nr_blocks = vram->nr_blocks,
		.lent = lent,
		.buffers = used,
		.evictions = vram->evictions,
		.wrong_puts = vram->wrong_puts,
	};
}

static int vram_call_locked(struct vram_call *call, unsigned int nr, union vram_arg *arg)
{
	switch (nr) {
	case HMM_DEVMEM_TEST_OWNERS:
		get_owners(call->vram, &arg->owners);
		return 0;
	case HMM_DEVMEM_TEST_SHRINK:
		arg->value = hmm_devmem_shrink(call->devmem, arg->value);
		return 0;
	case HMM_DEVMEM_TEST_WITHDRAW:
		return hmm_devmem_withdraw(call->devmem, arg->value);
	default:
		return use_buffer(call, nr, &arg->buffer);
	}
}

/* The VRAM of a coherent device has an address only where it has struct pages. */
static bool is_supported(const struct thd_device *tdev, unsigned int nr)
{
	if (!tdev->vram || !tdev->vram->nr_blocks)
		return false;
	return tdev->type == MEMORY_DEVICE_PRIVATE ||
	       (nr != HMM_DEVMEM_TEST_BUFFER_ALLOC && nr != HMM_DEVMEM_TEST_BUFFER_TOUCH);
}

static int vram_call(struct thd_mirror *mirror, unsigned int nr, union vram_arg *arg)
{
	struct thd_device *tdev = mirror->tdev;
	struct vram_call call = { .mirror = mirror, .vram = tdev->vram };
	int ret = -EOPNOTSUPP;

	call.devmem = thd_enter(tdev);
	if (IS_ERR(call.devmem))
		return PTR_ERR(call.devmem);
	call.reserve = tdev->plug.reserve;
	if (is_supported(tdev, nr)) {
		ret = mutex_lock_killable(&call.vram->resv);
		if (!ret) {
			ret = vram_call_locked(&call, nr, arg);
			mutex_unlock(&call.vram->resv);
		}
	}
	thd_leave(tdev);
	return ret;
}

/**
 * thd_vram_ioctl() - Do an ioctl that is about buffers, or blocks that are lent
 * @mirror: The open file.
 * @nr: The ioctl.
 * @uarg: Its argument.
 *
 * Context: Process context, may sleep.
 * Return:
 * * %0 - done
 * * %-ENOTTY - it is not such an ioctl
 * * %-EOPNOTSUPP - the device was not plugged with HMM_DEVMEM_TEST_SHARED, or is coherent
 *   and cannot have buffers
 * * %-EFAULT - the argument is not mapped
 * * %-EINVAL - the buffer is empty, or larger than the device
 * * %-ENOENT - there is no such buffer
 * * %-ENOSPC - there are too many buffers, or the library does not give enough back
 * * %-ENOMEM, %-EINTR, and others of the library
 */
int thd_vram_ioctl(struct thd_mirror *mirror, unsigned int nr, void __user *uarg)
{
	const size_t size = _IOC_SIZE(nr);
	union vram_arg arg = { };
	int ret;

	switch (nr) {
	case HMM_DEVMEM_TEST_BUFFER_ALLOC:
	case HMM_DEVMEM_TEST_BUFFER_TOUCH:
	case HMM_DEVMEM_TEST_BUFFER_FREE:
	case HMM_DEVMEM_TEST_OWNERS:
	case HMM_DEVMEM_TEST_SHRINK:
	case HMM_DEVMEM_TEST_WITHDRAW:
		break;
	default:
		return -ENOTTY;
	}
	if (copy_from_user(&arg, uarg, size))
		return -EFAULT;
	ret = vram_call(mirror, nr, &arg);
	if (ret || !(_IOC_DIR(nr) & _IOC_READ))
		return ret;
	return copy_to_user(uarg, &arg, size) ? -EFAULT : 0;
}
