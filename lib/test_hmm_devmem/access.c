// SPDX-License-Identifier: GPL-2.0
/*
 * What the device does with the memory of a process, a function for each ioctl; and the other
 * operations of an open file: open, release and mmap.
 */

#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "classic.h"
#include "table.h"
#include "test_hmm_devmem.h"
#include "vram.h"

/* Limits the memory that a mapping of the node takes; tests map a page or two. */
#define THD_MMAP_PAGES		512

/*
 * Reads and writes.
 */

static unsigned long cmd_end(const struct hmm_devmem_test_cmd *cmd)
{
	return cmd->addr + (cmd->npages << PAGE_SHIFT);
}

/**
 * struct thd_transfer - a copy between a mirrored process and a user buffer
 * @access: The accesses of the device to the memory of the process.
 * @buffer: The user buffer for the data of the next page.
 */
struct thd_transfer {
	struct thd_access access;
	char __user *buffer;
};

/* Returns -EAGAIN if the buffer is not mapped at the moment. */
static int transfer_use(const struct thd_access *access, void *page)
{
	const struct thd_transfer *transfer = container_of(access, struct thd_transfer, access);
	long ret;

	if (access->flags & THD_ACCESS_WRITE)
		ret = copy_from_user_nofault(page, transfer->buffer, PAGE_SIZE);
	else
		ret = copy_to_user_nofault(transfer->buffer, page, PAGE_SIZE);
	return ret ? -EAGAIN : 0;
}

static int transfer_fault_in_buffer(const struct thd_transfer *transfer)
{
	size_t left;

	if (transfer->access.flags & THD_ACCESS_WRITE)
		left = fault_in_readable(transfer->buffer, PAGE_SIZE);
	else
		left = fault_in_writeable(transfer->buffer, PAGE_SIZE);
	return left ? -EFAULT : 0;
}

static int transfer_page(struct thd_mirror *mirror, struct thd_transfer *transfer)
{
	int ret;

	ret = thd_table_access(&mirror->table, &transfer->access);
	if (ret == -EAGAIN)
		return transfer_fault_in_buffer(transfer);
	transfer->buffer += PAGE_SIZE;
	return ret;
}

/*
 * Let the device access the range of @cmd; @flags are THD_ACCESS_*. On an error, it has
 * accessed all pages before the failing one. The device counts one fault however many pages
 * it needed; what it finds in VRAM without the process is no fault.
 */
static int transfer_cmd(struct thd_mirror *mirror,
			struct hmm_devmem_test_cmd *cmd, unsigned int flags)
{
	struct thd_transfer transfer = {
		.access = {
			.addr = cmd->addr,
			.end = cmd_end(cmd),
			.flags = flags,
			.use = transfer_use,
		},
		.buffer = u64_to_user_ptr(cmd->ptr),
	};
	struct thd_access *access = &transfer.access;
	int ret = 0;

	while (!ret && access->addr < access->end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = transfer_page(mirror, &transfer);
		cond_resched();
	}
	cmd->cpages = (access->addr - cmd->addr) >> PAGE_SHIFT;
	cmd->faults = flags & THD_ACCESS_VRAM ? 0 : access->faults;
	return ret;
}

static int cmd_read(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	/* The classic device cannot take page faults. */
	return transfer_cmd(mirror, cmd, mirror->tdev->classic ? THD_ACCESS_VRAM : 0);
}

static int cmd_write(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	return transfer_cmd(mirror, cmd, THD_ACCESS_WRITE);
}

/*
 * Migration.
 */

/* Refuse a range with a gap, as lib/test_hmm.c does; the library passes over gaps. */
static int check_readable(struct mm_struct *mm, unsigned long addr,
			  unsigned long end)
{
	VMA_ITERATOR(vmi, mm, addr);
	struct vm_area_struct *vma;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma_range(vmi, vma, end) {
		if (vma->vm_start > addr || !(vma->vm_flags & VM_READ))
			break;
		addr = vma->vm_end;
	}
	mmap_read_unlock(mm);
	return addr < end ? -EINVAL : 0;
}

/* The library passes over gaps. A range that is nothing but a gap is refused. */
static int cmd_to_device_only(struct thd_mirror *mirror,
			      struct hmm_devmem_test_cmd *cmd)
{
	struct mm_struct *mm = mirror->m.notifier.mm;
	struct thd_device *tdev = mirror->tdev;
	struct hmm_devmem *devmem;
	long ret;

	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	thd_mirror_set_devmem(mirror);
	if (tdev->classic)
		ret = thd_classic_to_device(devmem, mm, cmd->addr, cmd_end(cmd));
	else
		ret = hmm_devmem_mirror_migrate(&mirror->m, cmd->addr, cmd_end(cmd));
	thd_leave(tdev);
	if (ret < 0)
		return ret == -EFAULT ? -EINVAL : ret;
	cmd->cpages = ret;
	return 0;
}

static int cmd_to_device(struct thd_mirror *mirror,
			 struct hmm_devmem_test_cmd *cmd)
{
	int ret;

	ret = check_readable(mirror->m.notifier.mm, cmd->addr, cmd_end(cmd));
	if (!ret)
		ret = cmd_to_device_only(mirror, cmd);
	return ret ?: transfer_cmd(mirror, cmd, THD_ACCESS_VRAM);
}

static int cmd_to_ram(struct thd_mirror *mirror,
		      struct hmm_devmem_test_cmd *cmd)
{
	struct mm_struct *mm = mirror->m.notifier.mm;
	struct thd_device *tdev = mirror->tdev;
	struct hmm_devmem *devmem;
	long ret;

	ret = check_readable(mm, cmd->addr, cmd_end(cmd));
	if (ret)
		return ret;
	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	if (tdev->classic)
		ret = thd_classic_to_ram(devmem, mm, cmd->addr, cmd_end(cmd));
	else
		ret = hmm_devmem_migrate_to_ram(devmem, mm, cmd->addr, cmd_end(cmd));
	thd_leave(tdev);
	if (ret < 0)
		return ret;
	cmd->cpages = ret;
	return 0;
}

/*
 * Exclusive access.
 */

static int exclusive_enter(struct thd_mirror *mirror, unsigned long addr,
			   struct page *page, unsigned long seq)
{
	const struct thd_pte pte = {
		.addr = addr,
		.pfn = page_to_pfn(page),
		.permission = THD_IS_EXCLUSIVE,
	};

	guard(mutex)(&mirror->m.lock);
	if (mmu_interval_read_retry(&mirror->m.notifier, seq))
		return -EBUSY;
	return thd_table_enter(&mirror->table, &pte, 1);
}

static int exclusive_try(struct thd_mirror *mirror, unsigned long addr)
{
	struct mmu_interval_notifier *notifier = &mirror->m.notifier;
	struct mm_struct *mm = notifier->mm;
	struct folio *folio;
	struct page *page;
	unsigned long seq;
	int ret;

	seq = mmu_interval_read_begin_timeout(notifier,
					      msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT));
	if (mmu_interval_check_retry(notifier, seq))
		return -EBUSY;
	ret = mmap_read_lock_killable(mm);
	if (ret)
		return ret;
	/* With the mirror as the owner, the mirror ignores the invalidation. */
	page = make_device_exclusive(mm, addr, &mirror->m, &folio);
	mmap_read_unlock(mm);
	if (IS_ERR(page))
		return PTR_ERR(page);
	ret = exclusive_enter(mirror, addr, page, seq);
	folio_unlock(folio);
	folio_put(folio);
	return ret;
}

static int exclusive_page(struct thd_mirror *mirror, unsigned long addr)
{
	const unsigned long timeout =
		jiffies + msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	unsigned int tries = 0;
	int ret;

	for (;;) {
		ret = exclusive_try(mirror, addr);
		if (ret != -EBUSY || thd_walk_in_vain(timeout, ++tries))
			return ret;
		/*
		 * To make a page exclusive again would invalidate the device's
		 * present entry: fault it in as an ordinary page first.
		 */
		ret = thd_mirror_fault_range(mirror, addr, addr + PAGE_SIZE,
					     HMM_DEVMEM_MIRROR_WRITE);
		if (ret)
			return ret;
	}
}

static int cmd_exclusive(struct thd_mirror *mirror,
			 struct hmm_devmem_test_cmd *cmd)
{
	const unsigned long end = cmd_end(cmd);
	unsigned long addr;
	int ret;

	for (addr = cmd->addr; addr < end; addr += PAGE_SIZE) {
		ret = exclusive_page(mirror, addr);
		if (ret)
			return ret;
		cond_resched();
	}
	return transfer_cmd(mirror, cmd, THD_ACCESS_NO_FAULT);
}

static int cmd_check_exclusive(struct thd_mirror *mirror,
			       struct hmm_devmem_test_cmd *cmd)
{
	struct thd_table_count count;

	guard(mutex)(&mirror->m.lock);
	thd_table_count(&mirror->table, cmd->addr, cmd_end(cmd), &count);
	return count.exclusive ? -EPERM : 0;
}

/*
 * The device's page table.
 */

static int cmd_fault(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	const unsigned int known = HMM_DEVMEM_TEST_FAULT_WRITE |
				   HMM_DEVMEM_TEST_FAULT_MIGRATE;
	unsigned int flags = 0;

	if (cmd->ptr & ~(u64)known)
		return -EINVAL;
	if (cmd->ptr & HMM_DEVMEM_TEST_FAULT_WRITE)
		flags |= HMM_DEVMEM_MIRROR_WRITE;
	if (cmd->ptr & HMM_DEVMEM_TEST_FAULT_MIGRATE)
		flags |= HMM_DEVMEM_MIRROR_MIGRATE;
	return thd_mirror_fault_range(mirror, cmd->addr, cmd_end(cmd), flags);
}

static int cmd_mapped(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	struct thd_table_count count;

	guard(mutex)(&mirror->m.lock);
	thd_table_count(&mirror->table, cmd->addr, cmd_end(cmd), &count);
	cmd->cpages = count.pages;
	cmd->faults = count.vram;
	return 0;
}

/*
 * Files.
 */

/**
 * struct thd_cmd - an ioctl with a range of user addresses
 * @nr: The ioctl.
 * @run: Does it. The range is valid, and cpages and faults are 0 on entry. The address
 *	space of the process still exists, unless @after_exit says otherwise.
 * @after_exit: @run is also called when the process has exited, and its address space may
 *	have been freed.
 */
struct thd_cmd {
	unsigned int nr;
	int (*run)(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd);
	bool after_exit;
};

static const struct thd_cmd mirror_cmds[] = {
	{ HMM_DEVMEM_TEST_READ, cmd_read },
	{ HMM_DEVMEM_TEST_WRITE, cmd_write },
	{ HMM_DEVMEM_TEST_TO_DEVICE, cmd_to_device },
	{ HMM_DEVMEM_TEST_TO_RAM, cmd_to_ram },
	{ HMM_DEVMEM_TEST_SNAPSHOT, thd_cmd_snapshot },
	{ HMM_DEVMEM_TEST_EXCLUSIVE, cmd_exclusive },
	{ HMM_DEVMEM_TEST_CHECK_EXCLUSIVE, cmd_check_exclusive },
	/* The library always lets page fault handlers drop the mmap lock. */
	{ HMM_DEVMEM_TEST_READ_UNLOCKED, cmd_read },
	{ HMM_DEVMEM_TEST_TO_DEVICE_ONLY, cmd_to_device_only },
	{ HMM_DEVMEM_TEST_FAULT, cmd_fault, true },
	{ HMM_DEVMEM_TEST_MAPPED, cmd_mapped, true },
};

static const struct thd_cmd *find_cmd(unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(mirror_cmds); i++)
		if (mirror_cmds[i].nr == nr)
			return &mirror_cmds[i];
	return NULL;
}

static int run_cmd(struct thd_mirror *mirror, const struct thd_cmd *op,
		   struct hmm_devmem_test_cmd *cmd)
{
	struct mm_struct *mm = mirror->m.notifier.mm;
	int ret;

	if (!PAGE_ALIGNED(cmd->addr) || !cmd->npages ||
	    !thd_range_is_valid(cmd->addr, cmd->npages))
		return -EINVAL;
	if (op->after_exit)
		return op->run(mirror, cmd);
	/* A child can use the file after the process that opened it has exited. */
	if (!mmget_not_zero(mm))
		return -EINVAL;
	ret = op->run(mirror, cmd);
	mmput(mm);
	return ret;
}

/**
 * thd_file_access() - Do an ioctl that is about a range of user addresses
 * @mirror: The mirror.
 * @nr: The ioctl.
 * @arg: Its argument, a struct hmm_devmem_test_cmd or hmm_devmem_test_replay.
 *
 * Context: Process context, may sleep.
 * Return:
 * * %0 - done
 * * %-ENOTTY - it is not such an ioctl
 * * %-EFAULT - the argument is not mapped
 * * %-EINVAL - the range is not valid, or its process has exited
 * * others - from the command or thd_replay()
 */
int thd_file_access(struct thd_mirror *mirror, unsigned int nr,
		    void __user *arg)
{
	const struct thd_cmd *op = find_cmd(nr);
	struct hmm_devmem_test_cmd cmd;
	int ret;

	if (nr == HMM_DEVMEM_TEST_REPLAY)
		return thd_replay(mirror, arg);
	if (!op)
		return -ENOTTY;
	if (copy_from_user(&cmd, arg, sizeof(cmd)))
		return -EFAULT;
	cmd.cpages = 0;
	cmd.faults = 0;
	ret = run_cmd(mirror, op, &cmd);
	if (ret)
		return ret;
	return copy_to_user(arg, &cmd, sizeof(cmd)) ? -EFAULT : 0;
}

/**
 * thd_file_open() - Mirror the process that opens a device node
 * @inode: The device node.
 * @file: The file.
 *
 * Context: The open callback of a device node.
 * Return: 0 or an errno.
 */
int thd_file_open(struct inode *inode, struct file *file)
{
	struct thd_device *tdev = container_of(inode->i_cdev, struct thd_device,
					       cdev);
	struct thd_mirror *mirror;

	mirror = thd_mirror_open(tdev, current->mm);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	file->private_data = mirror;
	return 0;
}

/**
 * thd_file_close() - Undo thd_file_open()
 * @inode: The device node.
 * @file: The file.
 *
 * Context: The release callback of a device node.
 * Return: 0.
 */
int thd_file_close(struct inode *inode, struct file *file)
{
	struct thd_mirror *mirror = file->private_data;

	if (mirror->tdev->vram)
		thd_vram_close(mirror->tdev->vram, mirror);
	thd_mirror_close(mirror);
	return 0;
}

static int map_zero_page(struct vm_area_struct *vma, unsigned long addr)
{
	struct page *page;
	int ret;

	page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!page)
		return -ENOMEM;
	ret = vm_insert_page(vma, addr, page);
	put_page(page);
	return ret;
}

/**
 * thd_file_mmap() - Map pages that are neither anonymous nor of a file
 * @file: The file.
 * @vma: Where to map them; for tests of snapshots.
 *
 * Context: The mmap callback of a device node.
 * Return: 0, -EINVAL if that is too much, or -ENOMEM.
 */
int thd_file_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long addr;
	int ret = 0;

	if (vma_pages(vma) > THD_MMAP_PAGES)
		return -EINVAL;
	for (addr = vma->vm_start; !ret && addr < vma->vm_end; addr += PAGE_SIZE)
		ret = map_zero_page(vma, addr);
	return ret;
}

/**
 * thd_file_lock_mm() - Keep the mmap lock of the caller until it is killed
 * @mirror: The mirror.
 * @pid: The process id of the caller.
 *
 * This has the effect of a page fault that another process, such as a FUSE server, has to
 * serve and never does.
 *
 * Context: Process context.
 * Return: -EINTR, or -EINVAL if @pid is wrong.
 */
int thd_file_lock_mm(struct thd_mirror *mirror, unsigned long pid)
{
	struct thd_device *tdev = mirror->tdev;
	struct mm_struct *mm = current->mm;

	if (pid != task_tgid_vnr(current))
		return -EINVAL;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	atomic_long_inc(&tdev->mm_locks);
	while (!fatal_signal_pending(current))
		schedule_timeout_killable(MAX_SCHEDULE_TIMEOUT);
	atomic_long_dec(&tdev->mm_locks);
	mmap_write_unlock(mm);
	return -EINTR;
}
