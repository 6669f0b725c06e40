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
 * The engine copies at once, in the callback that starts the copy. Only the
 * result can be given later, by copy_wait(). What was to be copied by a copy that
 * is made to fail is overwritten with a pattern, and so is VRAM that was never
 * used: nobody may ever find that.
 */

#include <linux/cleanup.h>
#include <linux/highmem.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "test_hmm_devmem.h"

/* The largest run can be copied in two pieces, and pages stay aligned in them. */
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
	memset64(piece, HMM_DEVMEM_TEST_POISON, THD_VRAM_PIECE / sizeof(*piece));
	/* Orders the pattern before the pointer; somebody may have been faster. */
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
 * Return: Where that is; never NULL if it was populated.
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
	const u64 offset = hmm_devmem_page_offset(run->device) +
			   ((u64)i << PAGE_SHIFT);
	const u64 rest = THD_VRAM_PIECE - offset % THD_VRAM_PIECE;

	*nr = min(run->nr_pages - i, (unsigned int)(rest >> PAGE_SHIFT));
	return thd_vram_at(tdev, offset);
}

static void vram_copy_pages(char *vram, struct page *ram, unsigned int nr,
			    enum hmm_devmem_dir dir)
{
	void *addr;

	for (; nr--; vram += PAGE_SIZE, ram++) {
		addr = kmap_local_page(ram);
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
			vram_copy_pages(vram, run->ram + i, nr, dir);
		else
			memset(vram, 0, (size_t)nr << PAGE_SHIFT);
	}
	return 0;
}

static void coherent_copy_run(const struct hmm_devmem_run *run,
			      enum hmm_devmem_dir dir)
{
	unsigned int i;

	for (i = 0; i < run->nr_pages; i++) {
		if (!run->ram)
			clear_highpage(run->device + i);
		else if (dir == HMM_DEVMEM_TO_DEVICE)
			copy_highpage(run->device + i, run->ram + i);
		else
			copy_highpage(run->ram + i, run->device + i);
	}
}

static int copy_run(struct thd_device *tdev, const struct hmm_devmem_run *run,
		    enum hmm_devmem_dir dir)
{
	if (tdev->vram)
		return vram_copy_run(tdev, run, dir);
	coherent_copy_run(run, dir);
	return 0;
}

static void poison(void *addr)
{
	memset64(addr, HMM_DEVMEM_TEST_POISON, PAGE_SIZE / sizeof(u64));
}

static void poison_pages(struct page *page, unsigned int nr)
{
	void *addr;

	for (; nr--; page++) {
		addr = kmap_local_page(page);
		poison(addr);
		kunmap_local(addr);
	}
}

/* Destroy where a run should have been copied to. */
static void poison_run(struct thd_device *tdev, const struct hmm_devmem_run *run,
		       enum hmm_devmem_dir dir)
{
	unsigned int i;

	if (dir == HMM_DEVMEM_TO_RAM)
		poison_pages(run->ram, run->nr_pages);
	else if (!tdev->vram)
		poison_pages(run->device, run->nr_pages);
	else
		for (i = 0; i < run->nr_pages; i++)
			poison(vram_page_data(tdev, run->device + i));
}

static void poison_copy(struct thd_device *tdev,
			const struct hmm_devmem_copy *copy)
{
	unsigned int i;

	for (i = 0; i < copy->nr_runs; i++)
		poison_run(tdev, &copy->runs[i], copy->dir);
}

/**
 * thd_inject() - Make copies fail
 * @tdev: A managed device.
 * @fail: Which ones.
 *
 * Context: Process context.
 * Return: 0 or -EINVAL.
 */
int thd_inject(struct thd_device *tdev,
	       const struct hmm_devmem_test_inject *fail)
{
	if (fail->what >= HMM_DEVMEM_TEST_FAIL_MAX || fail->reserved)
		return -EINVAL;

	guard(spinlock)(&tdev->fail_lock);
	tdev->fail = *fail;
	return 0;
}

static bool take_failure(struct thd_device *tdev,
			 enum hmm_devmem_test_fail what)
{
	struct hmm_devmem_test_inject *fail = &tdev->fail;

	guard(spinlock)(&tdev->fail_lock);
	if (fail->what != what || !fail->times)
		return false;
	if (fail->skip) {
		fail->skip--;
		return false;
	}
	if (fail->times != U32_MAX)
		fail->times--;
	return true;
}

/* Shall this call, or run, fail? */
static bool must_fail(struct thd_device *tdev, enum hmm_devmem_test_fail what)
{
	/* A look without the lock: whoever asked for it was there before. */
	return unlikely(data_race(tdev->fail.what) == what) &&
	       take_failure(tdev, what);
}

static int copy_runs(struct thd_device *tdev, struct hmm_devmem_copy *copy,
		     enum hmm_devmem_test_fail call,
		     enum hmm_devmem_test_fail run)
{
	unsigned int i;

	if (must_fail(tdev, call)) {
		poison_copy(tdev, copy);
		return -EIO;
	}
	for (i = 0; i < copy->nr_runs; i++) {
		if (must_fail(tdev, run)) {
			poison_run(tdev, &copy->runs[i], copy->dir);
			copy->runs[i].error = -EIO;
		} else {
			copy->runs[i].error = copy_run(tdev, &copy->runs[i],
						       copy->dir);
		}
	}
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
		ret = thd_vram_populate(tdev, hmm_devmem_page_offset(run->device),
					(u64)run->nr_pages << PAGE_SHIFT);
		if (ret)
			return ret;
	}
	return copy_runs(tdev, copy, HMM_DEVMEM_TEST_FAIL_TO_DEVICE,
			 HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN);
}

static int vram_copy_to_ram(struct hmm_devmem *devmem,
			    struct hmm_devmem_copy *copy)
{
	return copy_runs(thd_from_devmem(devmem), copy,
			 HMM_DEVMEM_TEST_FAIL_TO_RAM,
			 HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN);
}

static int vram_copy_wait(struct hmm_devmem *devmem,
			  struct hmm_devmem_copy *copy)
{
	struct thd_device *tdev = thd_from_devmem(devmem);

	if (!must_fail(tdev, HMM_DEVMEM_TEST_FAIL_WAIT))
		return 0;
	poison_copy(tdev, copy);
	return -EIO;
}

static const struct hmm_devmem_ops vram_ops = {
	.kill = thd_count_kill,
	.cleanup = thd_count_cleanup,
	.copy_to_device = vram_copy_to_device,
	.copy_to_ram = vram_copy_to_ram,
	.copy_wait = vram_copy_wait,
	.map = thd_mirror_map,
};

const struct thd_kind thd_private_kind = {
	.ops = &vram_ops,
	.type = MEMORY_DEVICE_PRIVATE,
	.to_device = hmm_devmem_migrate_to_device,
	.to_ram = hmm_devmem_migrate_to_ram,
	.page_data = vram_page_data,
};

const struct thd_kind thd_coherent_kind = {
	.ops = &vram_ops,
	.type = MEMORY_DEVICE_COHERENT,
	.to_device = hmm_devmem_migrate_to_device,
	.to_ram = hmm_devmem_migrate_to_ram,
};
