// SPDX-License-Identifier: GPL-2.0
/*
 * The hardware of the test devices, emulated: memory and a copy engine.
 */

/**
 * DOC: Emulated hardware
 *
 * A device has memory, *VRAM*, which a driver addresses by offset, and a copy engine,
 * which a driver gives commands. It accesses the memory of processes by page tables that
 * the driver fills, see table.c. This module uses no function of the library.
 *
 * The CPU cannot address the VRAM of a private device. It is kernel memory that is
 * allocated in pieces of 2 MiB by thd_hw_populate(), and freed only by
 * thd_hw_destroy(): a driver that is unbound and bound again finds the old content,
 * as with a real device. The VRAM of a coherent device is a range of physical
 * addresses. The device itself sees its VRAM and system memory in one address space, by
 * pfn: VRAM is in a window, whose place the driver sets.
 *
 * The engine copies at once or, in asynchronous mode, in a worker. With a DMA device
 * it finds system memory by its DMA address only, as hardware would.
 *
 * A test can ask for failures. A copy that is made to fail overwrites its destination
 * with a pattern, and VRAM that was never used contains the same pattern: no process
 * may ever read it.
 */

#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/dma-direct.h>
#include <linux/errno.h>
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/math.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seqlock.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "../test_hmm_devmem_uapi.h"
#include "hw.h"

#define HW_PIECE	SZ_2M

/**
 * struct thd_hw - the hardware of one device
 * @first: First pfn of VRAM that the CPU can address; otherwise not used.
 * @pieces: The VRAM of a private device; a piece that was never populated is NULL.
 *	NULL for a coherent device.
 * @nr_pieces: Length of @pieces.
 * @window_lock: Protects @window and @window_pages.
 * @window: First pfn of VRAM as the device sees it, see thd_hw_set_window().
 * @window_pages: How many pages of VRAM the device sees there.
 * @mode: See thd_hw_set_mode().
 * @copies: As &thd_hw_stats.copies.
 * @commands: As &thd_hw_stats.commands.
 * @in_flight: As &thd_hw_stats.in_flight.
 * @max_in_flight: As &thd_hw_stats.max_in_flight.
 * @fail_lock: Protects @fail.
 * @fail: Which copies shall fail.
 */
struct thd_hw {
	unsigned long first;
	void **pieces;
	unsigned long nr_pieces;
	seqlock_t window_lock; /* see above */
	unsigned long window;
	unsigned long window_pages;
	struct thd_hw_mode mode;
	atomic_long_t copies;
	atomic_long_t commands;
	atomic_t in_flight;
	atomic_t max_in_flight;
	spinlock_t fail_lock; /* protects @fail */
	struct hmm_devmem_test_inject fail;
};

/**
 * struct thd_hw_job - a copy that a worker does
 * @work: The work.
 * @hw: The hardware.
 * @batch: The commands.
 */
struct thd_hw_job {
	struct work_struct work;
	struct thd_hw *hw;
	struct thd_hw_batch batch;
};

static struct workqueue_struct *hw_engine;

/*
 * Memory.
 */

/**
 * thd_hw_create() - Set up the hardware of a device
 * @size: Bytes of VRAM.
 * @base: Its physical address; 0 if the CPU cannot address it.
 *
 * Context: Process context, may sleep.
 * Return: The hardware, or NULL if there is not enough memory.
 */
struct thd_hw *thd_hw_create(u64 size, phys_addr_t base)
{
	struct thd_hw *hw;

	hw = kzalloc_obj(*hw);
	if (!hw)
		return NULL;
	spin_lock_init(&hw->fail_lock);
	seqlock_init(&hw->window_lock);
	hw->first = PHYS_PFN(base);
	if (base)
		return hw;
	hw->nr_pieces = DIV_ROUND_UP(size, HW_PIECE);
	hw->pieces = kvcalloc(hw->nr_pieces, sizeof(*hw->pieces),
			      GFP_KERNEL | __GFP_NOWARN);
	if (!hw->pieces) {
		kfree(hw);
		return NULL;
	}
	return hw;
}
EXPORT_SYMBOL_NS_GPL(thd_hw_create, "TEST_HMM_DEVMEM");

/**
 * thd_hw_destroy() - Free the hardware of a device, with the content of its VRAM
 * @hw: The hardware, without users; can be NULL.
 *
 * Context: Process context, may sleep.
 */
void thd_hw_destroy(struct thd_hw *hw)
{
	unsigned long i;

	if (!hw)
		return;
	for (i = 0; i < hw->nr_pieces; i++)
		kvfree(hw->pieces[i]);
	kvfree(hw->pieces);
	kfree(hw);
}
EXPORT_SYMBOL_NS_GPL(thd_hw_destroy, "TEST_HMM_DEVMEM");

static int hw_add_piece(struct thd_hw *hw, unsigned long i)
{
	u64 *piece;

	piece = kvmalloc(HW_PIECE, GFP_KERNEL);
	if (!piece)
		return -ENOMEM;
	memset64(piece, HMM_DEVMEM_TEST_FILL, HW_PIECE / sizeof(*piece));
	/* Orders the pattern before the pointer; another task may have been faster. */
	if (cmpxchg(&hw->pieces[i], NULL, piece))
		kvfree(piece);
	return 0;
}

/**
 * thd_hw_populate() - Make sure that there is VRAM
 * @hw: The hardware.
 * @offset: Offset in VRAM, bytes.
 * @size: Bytes, at least one.
 *
 * To be called before the first command that copies to this part of VRAM. A real
 * device's memory needs no such call.
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int thd_hw_populate(struct thd_hw *hw, u64 offset, u64 size)
{
	const unsigned long last = (offset + size - 1) / HW_PIECE;
	unsigned long i;
	int ret = 0;

	if (!hw->pieces)
		return 0;
	for (i = offset / HW_PIECE; !ret && i <= last; i++)
		if (!READ_ONCE(hw->pieces[i]))
			ret = hw_add_piece(hw, i);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(thd_hw_populate, "TEST_HMM_DEVMEM");

/**
 * thd_hw_vram() - Get the kernel address of VRAM, to access it as the device does
 * @hw: The hardware.
 * @offset: Offset in VRAM, bytes.
 *
 * Context: Any context.
 * Return: The address, which is good up to the end of the page. NULL if that part of VRAM
 * was not populated.
 */
void *thd_hw_vram(struct thd_hw *hw, u64 offset)
{
	char *piece;

	if (!hw->pieces)
		return page_address(pfn_to_page(hw->first + PHYS_PFN(offset))) +
		       offset_in_page(offset);
	piece = READ_ONCE(hw->pieces[offset / HW_PIECE]);
	return piece ? piece + offset % HW_PIECE : NULL;
}
EXPORT_SYMBOL_NS_GPL(thd_hw_vram, "TEST_HMM_DEVMEM");

/**
 * thd_hw_set_window() - Set by which pfns the device finds its VRAM
 * @hw: The hardware.
 * @first: The pfn that stands for offset 0.
 * @nr_pages: How many pages of VRAM the device can access; 0 for none.
 *
 * For the device, entries of page tables whose pfn was in the window before are as good as
 * none.
 *
 * Context: Process context.
 */
void thd_hw_set_window(struct thd_hw *hw, unsigned long first, unsigned long nr_pages)
{
	write_seqlock(&hw->window_lock);
	hw->window = first;
	hw->window_pages = nr_pages;
	write_sequnlock(&hw->window_lock);
}
EXPORT_SYMBOL_NS_GPL(thd_hw_set_window, "TEST_HMM_DEVMEM");

/**
 * thd_hw_window() - Find VRAM by its pfn
 * @hw: The hardware.
 * @pfn: The pfn, in the device's view.
 *
 * Context: Any context.
 * Return: The kernel address of the page; NULL if @pfn is not in the window, or that part
 * of VRAM was not populated.
 */
void *thd_hw_window(struct thd_hw *hw, unsigned long pfn)
{
	unsigned long offset;
	unsigned int seq;
	bool inside;

	do {
		seq = read_seqbegin(&hw->window_lock);
		offset = pfn - hw->window;
		inside = offset < hw->window_pages;
	} while (read_seqretry(&hw->window_lock, seq));
	return inside ? thd_hw_vram(hw, (u64)offset << PAGE_SHIFT) : NULL;
}

/*
 * Failures on demand.
 */

/**
 * thd_hw_inject() - Make copies fail
 * @hw: The hardware.
 * @fail: Which copies, and with which errno.
 *
 * Context: Process context.
 * Return: 0, or -EINVAL if there is no such kind of copy or no such errno.
 */
int thd_hw_inject(struct thd_hw *hw, const struct hmm_devmem_test_inject *fail)
{
	if (fail->what >= HMM_DEVMEM_TEST_FAIL_MAX || fail->error > MAX_ERRNO)
		return -EINVAL;

	guard(spinlock)(&hw->fail_lock);
	hw->fail = *fail;
	return 0;
}
EXPORT_SYMBOL_NS_GPL(thd_hw_inject, "TEST_HMM_DEVMEM");

/* Returns the errno of a failure that is due now and counts it, or 0. */
static int take_failure(struct thd_hw *hw, enum hmm_devmem_test_fail what)
{
	struct hmm_devmem_test_inject *fail = &hw->fail;

	guard(spinlock)(&hw->fail_lock);
	if (fail->what != what || !fail->times)
		return 0;
	if (fail->skip) {
		fail->skip--;
		return 0;
	}
	if (fail->times != U32_MAX)
		fail->times--;
	return -(int)(fail->error ?: EIO);
}

/* The errno with which this call, or command, shall fail, or 0. */
static int must_fail(struct thd_hw *hw, enum hmm_devmem_test_fail what)
{
	/* No lock: a test asks for failures before it starts the copies. */
	const bool asked_for = data_race(hw->fail.what) == what;

	if (likely(!asked_for))
		return 0;
	return take_failure(hw, what);
}

/*
 * Copy engine.
 */

/**
 * thd_hw_set_mode() - Set how the copy engine works
 * @hw: The hardware.
 * @mode: The mode.
 *
 * Context: Process context. The engine does not copy meanwhile.
 */
void thd_hw_set_mode(struct thd_hw *hw, const struct thd_hw_mode *mode)
{
	hw->mode = *mode;
	atomic_set(&hw->max_in_flight, 0);
}
EXPORT_SYMBOL_NS_GPL(thd_hw_set_mode, "TEST_HMM_DEVMEM");

/**
 * thd_hw_get_stats() - Read what the copy engine has counted
 * @hw: The hardware.
 * @stats: The counters.
 *
 * Context: Any context.
 */
void thd_hw_get_stats(struct thd_hw *hw, struct thd_hw_stats *stats)
{
	stats->copies = atomic_long_read(&hw->copies);
	stats->commands = atomic_long_read(&hw->commands);
	stats->in_flight = atomic_read(&hw->in_flight);
	stats->max_in_flight = atomic_read(&hw->max_in_flight);
}
EXPORT_SYMBOL_NS_GPL(thd_hw_get_stats, "TEST_HMM_DEVMEM");

/* The page that DMA to @addr reaches: behind an IOMMU, or of a bounce buffer. */
static struct page *dma_page(struct device *dev, dma_addr_t addr)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	return pfn_to_page(PHYS_PFN(domain ? iommu_iova_to_phys(domain, addr) :
					     dma_to_phys(dev, addr)));
}

/**
 * thd_hw_ram_page() - The system memory that the engine finds
 * @hw: The hardware.
 * @cmd: The command.
 * @i: Number of the page.
 *
 * Context: &thd_hw_batch.commands.
 * Return: The page, by the address that the engine uses: with a DMA device, its DMA
 * address.
 */
struct page *thd_hw_ram_page(struct thd_hw *hw, const struct thd_hw_cmd *cmd,
			     unsigned int i)
{
	if (likely(!hw->mode.dma_dev))
		return cmd->ram + i;
	return dma_page(hw->mode.dma_dev,
			cmd->dma_addr + ((u64)i << PAGE_SHIFT));
}
EXPORT_SYMBOL_NS_GPL(thd_hw_ram_page, "TEST_HMM_DEVMEM");

static void copy_one_page(void *vram, struct page *page, bool to_vram)
{
	void *ram = kmap_local_page(page);

	if (to_vram)
		copy_page(vram, ram);
	else
		copy_page(ram, vram);
	kunmap_local(ram);
}

static int copy_pages(struct thd_hw *hw, const struct thd_hw_cmd *cmd)
{
	unsigned int i;
	void *vram;

	for (i = 0; i < cmd->nr_pages; i++) {
		vram = thd_hw_vram(hw, cmd->offset + ((u64)i << PAGE_SHIFT));
		if (WARN_ON_ONCE(!vram))
			return -EIO;
		if (cmd->ram)
			copy_one_page(vram, thd_hw_ram_page(hw, cmd, i), cmd->to_vram);
		else
			clear_page(vram);
	}
	return 0;
}

static void fill_one_page(void *addr)
{
	memset64(addr, HMM_DEVMEM_TEST_FILL, PAGE_SIZE / sizeof(u64));
}

/* Overwrite the destination of a command that is made to fail. */
static void fill_pages(struct thd_hw *hw, const struct thd_hw_cmd *cmd)
{
	unsigned int i;
	void *ram;

	for (i = 0; i < cmd->nr_pages; i++) {
		if (cmd->to_vram) {
			fill_one_page(thd_hw_vram(hw, cmd->offset +
						  ((u64)i << PAGE_SHIFT)));
			continue;
		}
		ram = kmap_local_page(thd_hw_ram_page(hw, cmd, i));
		fill_one_page(ram);
		kunmap_local(ram);
	}
}

/**
 * thd_hw_exec() - Execute a command
 * @hw: The hardware.
 * @cmd: The command.
 * @error: What &thd_hw_batch.commands was given: if it is not 0 the engine has
 *	failed, and the command's destination is overwritten.
 *
 * Context: &thd_hw_batch.commands.
 * Return: 0 if the pages were copied, or the errno of a failure.
 */
int thd_hw_exec(struct thd_hw *hw, const struct thd_hw_cmd *cmd, int error)
{
	atomic_long_inc(&hw->commands);
	if (likely(!error))
		error = must_fail(hw, cmd->to_vram ?
				  HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN :
				  HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN);
	if (likely(!error))
		return copy_pages(hw, cmd);
	fill_pages(hw, cmd);
	return error;
}
EXPORT_SYMBOL_NS_GPL(thd_hw_exec, "TEST_HMM_DEVMEM");

static void job_work(struct work_struct *work)
{
	struct thd_hw_job *job = container_of(work, struct thd_hw_job, work);
	struct thd_hw *hw = job->hw;

	if (hw->mode.delay_us)
		fsleep(hw->mode.delay_us);
	job->batch.commands(hw, job->batch.data, 0);
}

/* Let a worker copy. Returns NULL if the caller has to copy. */
static struct thd_hw_job *start_job(struct thd_hw *hw,
				    const struct thd_hw_batch *batch)
{
	struct thd_hw_job *job;

	if (!hw->mode.async)
		return NULL;
	job = kmalloc_obj(*job, GFP_KERNEL | __GFP_NOWARN);
	if (!job)
		return NULL;
	INIT_WORK(&job->work, job_work);
	job->hw = hw;
	job->batch = *batch;
	queue_work(hw_engine, &job->work);
	return job;
}

static void note_start(struct thd_hw *hw)
{
	const int now = atomic_inc_return(&hw->in_flight);
	int max = atomic_read(&hw->max_in_flight);

	while (now > max && !atomic_try_cmpxchg(&hw->max_in_flight, &max, now))
		;
}

static int start_failure(struct thd_hw *hw, bool to_vram)
{
	if (must_fail(hw, HMM_DEVMEM_TEST_FAIL_GONE))
		return -ENODEV;
	return must_fail(hw, to_vram ? HMM_DEVMEM_TEST_FAIL_TO_DEVICE :
				       HMM_DEVMEM_TEST_FAIL_TO_RAM);
}

/**
 * thd_hw_start() - Start to copy
 * @hw: The hardware.
 * @batch: The commands; &thd_hw_batch.job is set. What @batch itself points to is
 *	used until the copy is over, but not @batch.
 *
 * Context: Process context, may sleep.
 * Return: 0, or the errno of a failure. After a failure thd_hw_wait() must not be
 * called; the destination of all commands has been overwritten.
 */
int thd_hw_start(struct thd_hw *hw, struct thd_hw_batch *batch)
{
	int ret;

	atomic_long_inc(&hw->copies);
	batch->job = NULL;
	ret = start_failure(hw, batch->to_vram);
	if (ret) {
		batch->commands(hw, batch->data, ret);
		return ret;
	}
	note_start(hw);
	batch->job = start_job(hw, batch);
	if (!batch->job)
		batch->commands(hw, batch->data, 0);
	/* Without fences no thd_hw_wait() follows, which would count this. */
	if (hw->mode.sync)
		atomic_dec(&hw->in_flight);
	return 0;
}
EXPORT_SYMBOL_NS_GPL(thd_hw_start, "TEST_HMM_DEVMEM");

/**
 * thd_hw_wait() - Wait until a copy is over
 * @hw: The hardware.
 * @batch: The commands, as they were passed to thd_hw_start().
 *
 * Context: Process context, may sleep.
 * Return: 0, or the errno of a failure; then the destination of all commands has
 * been overwritten. A command that failed by itself is no failure of this function.
 */
int thd_hw_wait(struct thd_hw *hw, const struct thd_hw_batch *batch)
{
	int ret;

	if (batch->job)
		flush_work(&batch->job->work);
	kfree(batch->job);
	atomic_dec(&hw->in_flight);
	ret = must_fail(hw, HMM_DEVMEM_TEST_FAIL_WAIT);
	if (ret)
		batch->commands(hw, batch->data, ret);
	return ret;
}
EXPORT_SYMBOL_NS_GPL(thd_hw_wait, "TEST_HMM_DEVMEM");

static int __init hw_init(void)
{
	hw_engine = alloc_workqueue("test_hmm_devmem",
				    WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return hw_engine ? 0 : -ENOMEM;
}
module_init(hw_init);

static void __exit hw_exit(void)
{
	destroy_workqueue(hw_engine);
}
module_exit(hw_exit);

MODULE_DESCRIPTION("Emulated hardware for tests of HMM device memory");
MODULE_LICENSE("GPL");
