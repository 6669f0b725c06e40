// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of the test devices, and their copy engine.
 */

/**
 * DOC: VRAM and copies
 *
 * Device pages of a private device have no memory: their data is in the *VRAM* of
 * the device, ordinary kernel memory that is allocated in pieces when it is first
 * written to. It stays until the device is gone, so unplugging takes the struct
 * pages away but not what is behind them, as with a real device. A coherent
 * device needs none: its pages are memory.
 *
 * The engine copies at once, in the callback that starts the copy, or in a worker
 * if the device was plugged like that; copy_wait() gives the result. A device that
 * was plugged with DMA finds system memory by its DMA address only, as hardware
 * would. A copy that is made to fail overwrites its destination with a pattern, and
 * VRAM that was never used is filled with the same: no process may ever read it.
 */

#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/dma-direct.h>
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pm_runtime.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "test_hmm_devmem.h"

/* The largest run spans at most two pieces, and a page lies within one. */
#define THD_VRAM_PIECE	SZ_2M

/**
 * thd_vram_create() - Set up the VRAM of a device
 * @tdev: The device.
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int thd_vram_create(struct thd_device *tdev)
{
	tdev->nr_vram = DIV_ROUND_UP(tdev->size, THD_VRAM_PIECE);
	tdev->vram = kvcalloc(tdev->nr_vram, sizeof(*tdev->vram),
			      GFP_KERNEL | __GFP_NOWARN);
	return tdev->vram ? 0 : -ENOMEM;
}

/**
 * thd_vram_destroy() - Free the VRAM of a device
 * @tdev: The device, without users.
 *
 * Context: Process context, may sleep.
 */
void thd_vram_destroy(struct thd_device *tdev)
{
	unsigned long i;

	for (i = 0; tdev->vram && i < tdev->nr_vram; i++)
		kvfree(tdev->vram[i]);
	kvfree(tdev->vram);
}

static int vram_add_piece(struct thd_device *tdev, unsigned long i)
{
	u64 *piece;

	piece = kvmalloc(THD_VRAM_PIECE, GFP_KERNEL);
	if (!piece)
		return -ENOMEM;
	memset64(piece, HMM_DEVMEM_TEST_FILL, THD_VRAM_PIECE / sizeof(*piece));
	/* Orders the pattern before the pointer; another task may have been faster. */
	if (cmpxchg(&tdev->vram[i], NULL, piece))
		kvfree(piece);
	return 0;
}

/**
 * thd_vram_populate() - Make sure that there is VRAM
 * @tdev: A device with VRAM.
 * @offset: From the start of its memory, bytes.
 * @size: Bytes, at least one.
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int thd_vram_populate(struct thd_device *tdev, u64 offset, u64 size)
{
	const unsigned long last = (offset + size - 1) / THD_VRAM_PIECE;
	unsigned long i;
	int ret = 0;

	for (i = offset / THD_VRAM_PIECE; !ret && i <= last; i++)
		if (!READ_ONCE(tdev->vram[i]))
			ret = vram_add_piece(tdev, i);
	return ret;
}

/**
 * thd_vram_at() - Find VRAM
 * @tdev: A device with VRAM.
 * @offset: From the start of its memory, bytes.
 *
 * Context: Any context.
 * Return: Its kernel address; never NULL if it was populated.
 */
void *thd_vram_at(struct thd_device *tdev, u64 offset)
{
	char *piece = READ_ONCE(tdev->vram[offset / THD_VRAM_PIECE]);

	return piece ? piece + offset % THD_VRAM_PIECE : NULL;
}

static void *vram_page_data(struct thd_device *tdev, const struct page *page)
{
	return thd_vram_at(tdev, hmm_devmem_page_offset(page));
}

/* The VRAM of a run from page @i on, and how many pages of it are contiguous. */
static void *run_vram(struct thd_device *tdev, const struct hmm_devmem_run *run,
		      unsigned int i, unsigned int *nr)
{
	const u64 offset = run->offset + ((u64)i << PAGE_SHIFT);
	const u64 rest = THD_VRAM_PIECE - offset % THD_VRAM_PIECE;

	*nr = min(run->nr_pages - i, (unsigned int)(rest >> PAGE_SHIFT));
	return thd_vram_at(tdev, offset);
}

/* The page that DMA to @addr reaches: behind an IOMMU, or of a bounce buffer. */
static struct page *dma_page(struct device *dev, dma_addr_t addr)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	return pfn_to_page(PHYS_PFN(domain ? iommu_iova_to_phys(domain, addr) :
					     dma_to_phys(dev, addr)));
}

/* Page @i of the system memory of a run, at the address that the device uses. */
static struct page *run_ram(struct thd_device *tdev,
			    const struct hmm_devmem_run *run, unsigned int i)
{
	if (likely(!(tdev->plug.flags & HMM_DEVMEM_TEST_DMA)))
		return run->ram + i;
	return dma_page(tdev->dma_dev ?: &tdev->dev,
			run->dma_addr + ((u64)i << PAGE_SHIFT));
}

static void vram_copy_pages(struct thd_device *tdev, char *vram,
			    const struct hmm_devmem_run *run, unsigned int i,
			    unsigned int nr, enum hmm_devmem_dir dir)
{
	void *addr;

	for (; nr--; vram += PAGE_SIZE, i++) {
		addr = kmap_local_page(run_ram(tdev, run, i));
		if (dir == HMM_DEVMEM_TO_DEVICE)
			copy_page(vram, addr);
		else
			copy_page(addr, vram);
		kunmap_local(addr);
	}
}

static int vram_copy_run(struct thd_device *tdev,
			 const struct hmm_devmem_run *run,
			 enum hmm_devmem_dir dir)
{
	unsigned int i, nr;
	void *vram;

	for (i = 0; i < run->nr_pages; i += nr) {
		vram = run_vram(tdev, run, i, &nr);
		if (WARN_ON_ONCE(!vram))
			return -EIO;
		if (run->ram)
			vram_copy_pages(tdev, vram, run, i, nr, dir);
		else
			memset(vram, 0, (size_t)nr << PAGE_SHIFT);
	}
	return 0;
}

static void coherent_copy_run(struct thd_device *tdev,
			      const struct hmm_devmem_run *run,
			      enum hmm_devmem_dir dir)
{
	unsigned int i;

	for (i = 0; i < run->nr_pages; i++) {
		if (!run->ram)
			clear_highpage(run->device + i);
		else if (dir == HMM_DEVMEM_TO_DEVICE)
			copy_highpage(run->device + i, run_ram(tdev, run, i));
		else
			copy_highpage(run_ram(tdev, run, i), run->device + i);
	}
}

static int copy_run(struct thd_device *tdev, const struct hmm_devmem_run *run,
		    enum hmm_devmem_dir dir)
{
	if (tdev->vram)
		return vram_copy_run(tdev, run, dir);
	coherent_copy_run(tdev, run, dir);
	return 0;
}

static void fill(void *addr)
{
	memset64(addr, HMM_DEVMEM_TEST_FILL, PAGE_SIZE / sizeof(u64));
}

static void fill_page(struct page *page)
{
	void *addr = kmap_local_page(page);

	fill(addr);
	kunmap_local(addr);
}

/* Overwrite the destination of a run that is made to fail. */
static void fill_run(struct thd_device *tdev, const struct hmm_devmem_run *run,
		     enum hmm_devmem_dir dir)
{
	unsigned int i;

	for (i = 0; i < run->nr_pages; i++) {
		if (dir == HMM_DEVMEM_TO_RAM)
			fill_page(run_ram(tdev, run, i));
		else if (!tdev->vram)
			fill_page(run->device + i);
		else
			fill(vram_page_data(tdev, run->device + i));
	}
}

static void fill_copy(struct thd_device *tdev,
		      const struct hmm_devmem_copy *copy)
{
	unsigned int i;

	for (i = 0; i < copy->nr_runs; i++)
		fill_run(tdev, &copy->runs[i], copy->dir);
}

/**
 * thd_inject() - Make copies fail
 * @tdev: A managed device.
 * @fail: Which copies, and with which errno.
 *
 * Context: Process context.
 * Return: 0 or -EINVAL.
 */
int thd_inject(struct thd_device *tdev,
	       const struct hmm_devmem_test_inject *fail)
{
	if (fail->what >= HMM_DEVMEM_TEST_FAIL_MAX || fail->error > MAX_ERRNO)
		return -EINVAL;

	guard(spinlock)(&tdev->fail_lock);
	tdev->fail = *fail;
	return 0;
}

/* Returns the errno of a failure that is due now and counts it, or 0. */
static int take_failure(struct thd_device *tdev, enum hmm_devmem_test_fail what)
{
	struct hmm_devmem_test_inject *fail = &tdev->fail;

	guard(spinlock)(&tdev->fail_lock);
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

/* The errno with which this call, or run, shall fail, or 0. */
static int must_fail(struct thd_device *tdev, enum hmm_devmem_test_fail what)
{
	/* No lock: a test asks for failures before it starts the copies. */
	const bool asked_for = data_race(tdev->fail.what) == what;

	if (likely(!asked_for))
		return 0;
	return take_failure(tdev, what);
}

static void copy_runs(struct thd_device *tdev, struct hmm_devmem_copy *copy)
{
	const enum hmm_devmem_test_fail run =
		copy->dir == HMM_DEVMEM_TO_DEVICE ?
		HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN : HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN;
	unsigned int i;
	int ret;

	for (i = 0; i < copy->nr_runs; i++) {
		ret = must_fail(tdev, run);
		if (ret)
			fill_run(tdev, &copy->runs[i], copy->dir);
		else
			ret = copy_run(tdev, &copy->runs[i], copy->dir);
		copy->runs[i].error = ret;
	}
}

/**
 * struct thd_job - a copy that a worker does
 * @work: The work.
 * @tdev: The device.
 * @copy: The copy.
 */
struct thd_job {
	struct work_struct work;
	struct thd_device *tdev;
	struct hmm_devmem_copy *copy;
};

static struct workqueue_struct *thd_engine;

/**
 * thd_engine_create() - Get a worker for copies
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int thd_engine_create(void)
{
	thd_engine = alloc_workqueue("test_hmm_devmem",
				     WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return thd_engine ? 0 : -ENOMEM;
}

/**
 * thd_engine_destroy() - Undo thd_engine_create()
 *
 * Context: Process context, may sleep.
 */
void thd_engine_destroy(void)
{
	destroy_workqueue(thd_engine);
}

static void job_work(struct work_struct *work)
{
	struct thd_job *job = container_of(work, struct thd_job, work);

	if (job->tdev->plug.delay_us)
		fsleep(job->tdev->plug.delay_us);
	copy_runs(job->tdev, job->copy);
}

/* Let a worker copy. Returns false if the caller has to copy. */
static bool start_job(struct thd_device *tdev, struct hmm_devmem_copy *copy)
{
	struct thd_job *job;

	if (!(tdev->plug.flags & HMM_DEVMEM_TEST_ASYNC))
		return false;
	job = kmalloc_obj(*job, GFP_KERNEL | __GFP_NOWARN);
	if (!job)
		return false;
	INIT_WORK(&job->work, job_work);
	job->tdev = tdev;
	job->copy = copy;
	copy->driver_private = job;
	queue_work(thd_engine, &job->work);
	return true;
}

static void note_start(struct thd_device *tdev)
{
	const int now = atomic_inc_return(&tdev->in_flight);
	int max = atomic_read(&tdev->max_in_flight);

	while (now > max && !atomic_try_cmpxchg(&tdev->max_in_flight, &max, now))
		;
}

/* Is the device on, and kept on by a reference of the library or of the PM core? */
static bool has_power(struct thd_device *tdev)
{
#ifdef CONFIG_PM
	const struct dev_pm_info *power = &tdev->dev.power;

	if (!(tdev->plug.flags & HMM_DEVMEM_TEST_RUNTIME_PM))
		return true;
	return pm_runtime_active(&tdev->dev) && atomic_read(&power->usage_count) > 0;
#else
	return true;
#endif
}

static int start_copy(struct thd_device *tdev, struct hmm_devmem_copy *copy,
		      enum hmm_devmem_test_fail call)
{
	int ret;

	atomic_long_inc(&tdev->copies);
	if (!has_power(tdev))
		atomic_long_inc(&tdev->bad_power);
	if (must_fail(tdev, HMM_DEVMEM_TEST_FAIL_GONE)) {
		fill_copy(tdev, copy);
		return -ENODEV;
	}
	ret = must_fail(tdev, call);
	if (ret) {
		fill_copy(tdev, copy);
		return ret;
	}
	note_start(tdev);
	if (!start_job(tdev, copy))
		copy_runs(tdev, copy);
	/* Without copy_wait(), the copy is over now. */
	if (tdev->plug.flags & HMM_DEVMEM_TEST_SYNC)
		atomic_dec(&tdev->in_flight);
	return 0;
}

static int vram_copy_to_device(struct hmm_devmem *devmem,
			       struct hmm_devmem_copy *copy)
{
	struct thd_device *tdev = thd_from_devmem(devmem);
	const struct hmm_devmem_run *run;
	unsigned int i;
	int ret;

	for (i = 0; tdev->vram && i < copy->nr_runs; i++) {
		run = &copy->runs[i];
		ret = thd_vram_populate(tdev, run->offset,
					(u64)run->nr_pages << PAGE_SHIFT);
		if (ret)
			return ret;
	}
	return start_copy(tdev, copy, HMM_DEVMEM_TEST_FAIL_TO_DEVICE);
}

static int vram_copy_to_ram(struct hmm_devmem *devmem,
			    struct hmm_devmem_copy *copy)
{
	return start_copy(thd_from_devmem(devmem), copy,
			  HMM_DEVMEM_TEST_FAIL_TO_RAM);
}

static int vram_copy_wait(struct hmm_devmem *devmem,
			  struct hmm_devmem_copy *copy)
{
	struct thd_device *tdev = thd_from_devmem(devmem);
	struct thd_job *job = copy->driver_private;
	int ret;

	if (job)
		flush_work(&job->work);
	kfree(job);
	atomic_dec(&tdev->in_flight);
	ret = must_fail(tdev, HMM_DEVMEM_TEST_FAIL_WAIT);
	if (ret)
		fill_copy(tdev, copy);
	return ret;
}

static const struct hmm_devmem_ops vram_ops = {
	.kill = thd_count_kill,
	.cleanup = thd_count_cleanup,
	.copy_to_device = vram_copy_to_device,
	.copy_to_ram = vram_copy_to_ram,
	.copy_wait = vram_copy_wait,
	.map = thd_mirror_map,
};

/* Without copy_wait(), so never with a worker: the library would not wait for it. */
static const struct hmm_devmem_ops vram_sync_ops = {
	.kill = thd_count_kill,
	.cleanup = thd_count_cleanup,
	.copy_to_device = vram_copy_to_device,
	.copy_to_ram = vram_copy_to_ram,
	.map = thd_mirror_map,
};

const struct thd_kind thd_private_kind = {
	.ops = &vram_ops,
	.sync_ops = &vram_sync_ops,
	.type = MEMORY_DEVICE_PRIVATE,
	.to_device = hmm_devmem_migrate_to_device,
	.to_ram = hmm_devmem_migrate_to_ram,
	.page_data = vram_page_data,
};

const struct thd_kind thd_coherent_kind = {
	.ops = &vram_ops,
	.sync_ops = &vram_sync_ops,
	.type = MEMORY_DEVICE_COHERENT,
	.to_device = hmm_devmem_migrate_to_device,
	.to_ram = hmm_devmem_migrate_to_ram,
};
