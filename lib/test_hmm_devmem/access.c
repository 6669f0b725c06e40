// SPDX-License-Identifier: GPL-2.0
/*
 * What the device does with the memory of a process: a function for each ioctl.
 */

#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "classic.h"
#include "hw.h"
#include "test_hmm_devmem.h"
#include "vram.h"

/* Limits the memory that a mapping of the node takes; tests map a page or two. */
#define THD_MMAP_PAGES		512
/* Pages that are accessed without dropping the mirror's lock in between. */
#define THD_TRANSFER_PAGES	64

/*
 * Reads and writes.
 */

/**
 * struct thd_transfer - a copy between a mirrored process and a user buffer
 * @addr: Address of the next page in the mirrored process.
 * @end: End of the range there, exclusive.
 * @buffer: The user buffer for the data of the next page.
 * @access: How @addr is accessed.
 */
struct thd_transfer {
	unsigned long addr;
	unsigned long end;
	char __user *buffer;
	enum thd_access access;
};

static unsigned long cmd_end(const struct hmm_devmem_test_cmd *cmd)
{
	return cmd->addr + (cmd->npages << PAGE_SHIFT);
}

static bool may_access(const struct thd_mirror *mirror, enum thd_access access,
		       enum thd_access_tag tag, const struct page *page)
{
	if (access == THD_WRITE && tag != THD_TAG_WRITE)
		return false;
	/* A page can outlive its device memory; then there is nothing to read. */
	if (access == THD_READ_LOCAL || is_device_private_page(page))
		return thd_mirror_is_local(mirror, page);
	return true;
}

static int transfer_data(const struct thd_transfer *transfer, void *data)
{
	if (transfer->access == THD_WRITE)
		return copy_from_user_nofault(data, transfer->buffer, PAGE_SIZE);
	return copy_to_user_nofault(transfer->buffer, data, PAGE_SIZE);
}

/*
 * Mark the page as written, as the CPU's page table does for the CPU's writes: a page
 * that the process has only read so far can be writable, and clean. Device memory is
 * always dirty.
 */
static void finish_write(struct page *page)
{
	flush_dcache_page(page);
	if (!is_zone_device_page(page))
		set_page_dirty(page);
}

/* -ENOENT: the device has no entry for the page; -EFAULT: the buffer is not mapped. */
static int transfer_page(struct thd_mirror *mirror,
			 const struct thd_transfer *transfer)
{
	const unsigned long index = transfer->addr >> PAGE_SHIFT;
	struct thd_device *tdev = mirror->tdev;
	struct page *page;
	void *entry, *data;
	int ret;

	lockdep_assert_held(&mirror->m.lock);

	entry = xa_load(&mirror->table, index);
	if (!entry)
		return -ENOENT;
	page = thd_entry_page(entry, index);
	if (!may_access(mirror, transfer->access, thd_entry_tag(entry), page))
		return -ENOENT;
	if (is_device_private_page(page))
		return transfer_data(transfer, thd_hw_vram(tdev->hw,
						   hmm_devmem_page_offset(page)));

	data = kmap_local_page(page);
	ret = transfer_data(transfer, data);
	kunmap_local(data);
	if (!ret && transfer->access == THD_WRITE)
		finish_write(page);
	return ret;
}

static int transfer_some(struct thd_mirror *mirror,
			 struct thd_transfer *transfer)
{
	unsigned int i;
	int ret = 0;

	guard(mutex)(&mirror->m.lock);
	for (i = 0; i < THD_TRANSFER_PAGES; i++) {
		if (transfer->addr == transfer->end)
			break;
		ret = transfer_page(mirror, transfer);
		if (ret)
			break;
		transfer->addr += PAGE_SIZE;
		transfer->buffer += PAGE_SIZE;
	}
	return ret;
}

/* Let the device take a page fault for each page of the range that needs one. */
static int fault_range(struct thd_mirror *mirror, unsigned long addr,
		       unsigned long end, unsigned int flags)
{
	long ret;

	do {
		ret = thd_mirror_fault(mirror, addr, flags);
		if (ret < 0)
			return ret;
		addr += (unsigned long)ret << PAGE_SHIFT;
		cond_resched();
	} while (addr < end);
	return 0;
}

/* Enter what is on the device; -ENOENT if the page at @addr is not. */
static int find_local(struct thd_mirror *mirror, unsigned long addr)
{
	const unsigned long index = addr >> PAGE_SHIFT;
	void *entry;
	int ret;

	ret = fault_range(mirror, addr, addr + PAGE_SIZE, HMM_DEVMEM_MIRROR_PRESENT);
	if (ret)
		return ret;
	guard(mutex)(&mirror->m.lock);
	entry = xa_load(&mirror->table, index);
	/* If the entry was removed already, the caller tries again. */
	if (entry && !thd_mirror_is_local(mirror, thd_entry_page(entry, index)))
		return -ENOENT;
	return 0;
}

/* Fault what is left, or a part of it, into the device's page table. */
static int transfer_fault(struct thd_mirror *mirror,
			  const struct thd_transfer *transfer)
{
	if (transfer->access == THD_READ_LOCAL)
		return find_local(mirror, transfer->addr);
	return fault_range(mirror, transfer->addr, transfer->end,
			   transfer->access == THD_WRITE ? HMM_DEVMEM_MIRROR_WRITE :
							   HMM_DEVMEM_MIRROR_READ);
}

static int transfer_fault_in_buffer(const struct thd_transfer *transfer)
{
	size_t left;

	if (transfer->access == THD_WRITE)
		left = fault_in_readable(transfer->buffer, PAGE_SIZE);
	else
		left = fault_in_writeable(transfer->buffer, PAGE_SIZE);
	return left ? -EFAULT : 0;
}

static int transfer_resolve(struct thd_mirror *mirror,
			    const struct thd_transfer *transfer, int ret,
			    u64 *faults)
{
	if (ret == -EFAULT)
		return transfer_fault_in_buffer(transfer);
	if (ret != -ENOENT || transfer->access == THD_READ_MAPPED)
		return ret;
	if (transfer->access != THD_READ_LOCAL)
		++*faults;
	return transfer_fault(mirror, transfer);
}

/*
 * Access the range of @cmd. On an error, all pages before the failing one have been
 * accessed. The device counts one fault however many pages it needed.
 */
static int transfer_cmd(struct thd_mirror *mirror,
			struct hmm_devmem_test_cmd *cmd, enum thd_access access)
{
	struct thd_transfer transfer = {
		.addr = cmd->addr,
		.end = cmd_end(cmd),
		.buffer = u64_to_user_ptr(cmd->ptr),
		.access = access,
	};
	u64 faults = 0;
	int ret = 0;

	while (!ret && transfer.addr < transfer.end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = transfer_some(mirror, &transfer);
		if (ret)
			ret = transfer_resolve(mirror, &transfer, ret, &faults);
		cond_resched();
	}
	cmd->cpages = (transfer.addr - cmd->addr) >> PAGE_SHIFT;
	cmd->faults = faults;
	return ret;
}

static int cmd_read(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	/* The classic device cannot take page faults. */
	return transfer_cmd(mirror, cmd, mirror->tdev->classic ?
					 THD_READ_LOCAL : THD_READ);
}

static int cmd_write(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	return transfer_cmd(mirror, cmd, THD_WRITE);
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
	return ret ?: transfer_cmd(mirror, cmd, THD_READ_LOCAL);
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
	guard(mutex)(&mirror->m.lock);
	if (mmu_interval_read_retry(&mirror->m.notifier, seq))
		return -EBUSY;
	return thd_mirror_enter(mirror, addr >> PAGE_SHIFT, page, THD_TAG_ATOMIC);
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
		ret = fault_range(mirror, addr, addr + PAGE_SIZE,
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
	return transfer_cmd(mirror, cmd, THD_READ_MAPPED);
}

static int cmd_check_exclusive(struct thd_mirror *mirror,
			       struct hmm_devmem_test_cmd *cmd)
{
	unsigned long index;
	void *entry;

	guard(mutex)(&mirror->m.lock);
	xa_for_each_range(&mirror->table, index, entry, cmd->addr >> PAGE_SHIFT,
			  (cmd_end(cmd) - 1) >> PAGE_SHIFT)
		if (thd_entry_tag(entry) == THD_TAG_ATOMIC)
			return -EPERM;
	return 0;
}

/*
 * The device alone.
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
	return fault_range(mirror, cmd->addr, cmd_end(cmd), flags);
}

/* How many pages of @entry, found at @index, there are up to @last. */
static unsigned long entry_pages(const void *entry, unsigned long index,
				 unsigned long last)
{
	if (!thd_entry_is_large(entry))
		return 1;
	return min(index | (BIT(PMD_ORDER) - 1), last) - index + 1;
}

/* Visits entries, not pages of the range, which can be all of the address space. */
static int cmd_mapped(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	const unsigned long last = (cmd_end(cmd) - 1) >> PAGE_SHIFT;
	unsigned long index, nr;
	void *entry;

	guard(mutex)(&mirror->m.lock);
	xa_for_each_range(&mirror->table, index, entry, cmd->addr >> PAGE_SHIFT, last) {
		nr = entry_pages(entry, index, last);
		cmd->cpages += nr;
		if (thd_mirror_is_local(mirror, thd_entry_page(entry, index)))
			cmd->faults += nr;
	}
	return 0;
}

/*
 * Files.
 */

/**
 * struct thd_cmd - an ioctl with a range of user addresses
 * @nr: The ioctl.
 * @run: Does it. The range is valid, and the address space of the process still
 *	exists. cpages and faults are 0 on entry.
 * @after_exit: It may have been freed: @run is for a process that has exited, too.
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
