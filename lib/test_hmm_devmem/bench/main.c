// SPDX-License-Identifier: GPL-2.0
/*
 * Measures what the library costs, next to what core costs without it.
 *
 * One character device, /dev/hmm_devmem_bench, which only root may open. It has
 * device memory of one of three kinds: *bare*, core's functions with as little
 * around them as possible; *eager* and *lazy*, the library with a driver that
 * does nothing but copy. All are used by the same ioctls and copied by the same
 * function, so what differs is the library.
 *
 * The program that uses it must not exit or fork with memory on the device: memory
 * of the bare kind could not be removed then.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rwsem.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#include "../../test_hmm_devmem_uapi.h"
#include "bench.h"

/* Device memory is kernel memory, allocated in pieces of this size at first use. */
#define BENCH_PIECE		SZ_2M
#define BENCH_MAX_SIZE		SZ_64G

static const struct bench_kind *const bench_kinds[] = {
	[HMM_DEVMEM_BENCH_BARE] = &bench_bare,
	[HMM_DEVMEM_BENCH_EAGER] = &bench_eager,
	[HMM_DEVMEM_BENCH_LAZY] = &bench_lazy,
};

static DECLARE_RWSEM(bench_lock);	/* for writing: add and remove */
static const struct bench_kind *bench_memory;

static void *bench_pieces[BENCH_MAX_SIZE / BENCH_PIECE];

static void *get_piece(unsigned long i)
{
	void *piece = READ_ONCE(bench_pieces[i]);

	if (likely(piece))
		return piece;
	piece = kvmalloc(BENCH_PIECE, GFP_KERNEL);
	/* Another thread may have allocated the piece in the meantime. */
	if (piece && cmpxchg(&bench_pieces[i], NULL, piece)) {
		kvfree(piece);
		piece = bench_pieces[i];
	}
	return piece;
}

static void free_pieces(void)
{
	unsigned long i;

	for (i = 0; i < ARRAY_SIZE(bench_pieces); i++)
		kvfree(bench_pieces[i]);
}

static void copy_one_page(void *device, struct page *ram,
			  enum hmm_devmem_dir dir)
{
	void *addr;

	if (!ram) {
		clear_page(device);
		return;
	}
	addr = kmap_local_page(ram);
	if (dir == HMM_DEVMEM_TO_DEVICE)
		copy_page(device, addr);
	else
		copy_page(addr, device);
	kunmap_local(addr);
}

/**
 * bench_copy() - The copy engine
 * @offset: In device memory, bytes.
 * @ram: System memory; NULL to clear device memory.
 * @nr: Number of pages.
 * @dir: Direction.
 *
 * Context: Process context, may sleep.
 * Return: 0 or -ENOMEM.
 */
int bench_copy(u64 offset, struct page *ram, unsigned int nr,
	       enum hmm_devmem_dir dir)
{
	for (; nr--; offset += PAGE_SIZE) {
		void *piece = get_piece(offset / BENCH_PIECE);

		if (!piece)
			return -ENOMEM;
		copy_one_page(piece + offset % BENCH_PIECE, ram, dir);
		if (ram)
			ram++;
	}
	return 0;
}

static struct miscdevice bench_device;

static int add(const struct hmm_devmem_bench_add *arg)
{
	int ret;

	if (arg->kind >= ARRAY_SIZE(bench_kinds) || arg->reserved ||
	    arg->size > BENCH_MAX_SIZE)
		return -EINVAL;
	guard(rwsem_write)(&bench_lock);
	if (bench_memory)
		return -EEXIST;
	ret = bench_kinds[arg->kind]->add(bench_device.this_device, arg->size);
	if (!ret)
		bench_memory = bench_kinds[arg->kind];
	return ret;
}

static int remove(void)
{
	guard(rwsem_write)(&bench_lock);
	if (!bench_memory)
		return -ENODEV;
	bench_memory->remove();
	bench_memory = NULL;
	return 0;
}

static int alloc(struct hmm_devmem_bench_alloc *arg)
{
	guard(rwsem_read)(&bench_lock);
	return bench_memory ? bench_alloc(bench_memory, arg) : -ENODEV;
}

static int evict(struct hmm_devmem_bench_evict *arg)
{
	u64 start;
	long left;

	guard(rwsem_read)(&bench_lock);
	if (!bench_memory || bench_memory == &bench_bare)
		return -ENODEV;
	start = ktime_get_ns();
	left = bench_library_evict();
	arg->time = ktime_get_ns() - start;
	if (left < 0)
		return left;
	arg->left = left;
	return 0;
}

static int migrate(struct hmm_devmem_test_cmd *cmd, enum hmm_devmem_dir dir)
{
	const unsigned long end = cmd->addr + (cmd->npages << PAGE_SHIFT);
	long ret;

	if (!PAGE_ALIGNED(cmd->addr) || end <= cmd->addr || end > TASK_SIZE)
		return -EINVAL;
	guard(rwsem_read)(&bench_lock);
	if (!bench_memory)
		return -ENODEV;
	ret = bench_memory->migrate(current->mm, cmd->addr, end, dir);
	if (ret < 0)
		return ret;
	cmd->cpages = ret;
	cmd->faults = 0;
	return 0;
}

static int set_window(unsigned long nr)
{
	if (!is_power_of_2(nr) || nr > HPAGE_PMD_NR)
		return -EINVAL;
	bench_bare_set_window(nr);
	return 0;
}

/* The argument of any of the ioctls. */
union bench_arg {
	struct hmm_devmem_bench_add add;
	struct hmm_devmem_bench_alloc alloc;
	struct hmm_devmem_bench_evict evict;
	struct hmm_devmem_test_cmd cmd;
};

static int run(unsigned int nr, union bench_arg *arg)
{
	switch (nr) {
	case HMM_DEVMEM_BENCH_ADD:
		return add(&arg->add);
	case HMM_DEVMEM_BENCH_REMOVE:
		return remove();
	case HMM_DEVMEM_BENCH_ALLOC:
		return alloc(&arg->alloc);
	case HMM_DEVMEM_BENCH_EVICT:
		return evict(&arg->evict);
	case HMM_DEVMEM_TEST_TO_DEVICE_ONLY:
		return migrate(&arg->cmd, HMM_DEVMEM_TO_DEVICE);
	case HMM_DEVMEM_TEST_TO_RAM:
		return migrate(&arg->cmd, HMM_DEVMEM_TO_RAM);
	default:
		return -ENOTTY;
	}
}

static long bench_ioctl(struct file *file, unsigned int nr, unsigned long uarg)
{
	const size_t size = _IOC_SIZE(nr);
	union bench_arg arg = { };
	int ret;

	if (nr == HMM_DEVMEM_BENCH_WINDOW)
		return set_window(uarg);
	if (size > sizeof(arg))
		return -ENOTTY;
	if (size && copy_from_user(&arg, (void __user *)uarg, size))
		return -EFAULT;
	ret = run(nr, &arg);
	if (ret || !(_IOC_DIR(nr) & _IOC_READ))
		return ret;
	return copy_to_user((void __user *)uarg, &arg, size) ? -EFAULT : 0;
}

static const struct file_operations bench_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = bench_ioctl,
};

static struct miscdevice bench_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hmm_devmem_bench",
	.fops = &bench_fops,
	.mode = 0600,
};

static int __init bench_init(void)
{
	return misc_register(&bench_device);
}
module_init(bench_init);

static void __exit bench_exit(void)
{
	if (bench_memory)
		bench_memory->remove();
	misc_deregister(&bench_device);
	free_pieces();
}
module_exit(bench_exit);

MODULE_DESCRIPTION("Benchmark of HMM device memory");
MODULE_LICENSE("GPL");
