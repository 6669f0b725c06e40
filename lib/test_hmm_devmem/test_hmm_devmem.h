/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Private to the test device, see lib/test_hmm_devmem.c. "thd" is for test HMM device.
 */
#ifndef _LIB_TEST_HMM_DEVMEM_H
#define _LIB_TEST_HMM_DEVMEM_H

#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/hmm_devmem.h>
#include <linux/hmm_devmem_mirror.h>
#include <linux/ioport.h>
#include <linux/jiffies.h>
#include <linux/limits.h>
#include <linux/overflow.h>
#include <linux/rwsem.h>
#include <linux/types.h>

#include "../test_hmm_devmem_uapi.h"
#include "table.h"

struct thd_classic;
struct thd_hw;
struct thd_vram;

/**
 * DOC: Test device locking
 *
 * The order is, outermost first::
 *
 *   thd_device.plug_lock          while device memory is used, or comes and goes
 *     mmap lock
 *       folio lock                (copy and map callbacks)
 *         MMU notifier            (invalidations)
 *           hmm_devmem_mirror.lock  around changes of the device's page table
 *   thd_vram.resv                 in get_blocks(), and around withdrawals
 *   thd_classic.lock, thd_vram.lock: innermost
 *   the locks of the hardware
 *
 * Removal of device memory waits for CPU faults and for invalidations, with the
 * plug lock held for writing. So no callback of the library, no invalidation and
 * no access of the device takes the plug lock, and no task that waits for it holds
 * another of these locks. What an access uses exists without the plug lock: VRAM
 * as long as the device, and pages as long as the device's page table has entries
 * for them. Without the plug lock, &thd_device.devmem is only compared with, except by
 * the runtime resume. No lock of the driver is held while the device accesses memory.
 */

/**
 * struct thd_device - one test device
 * @dev: The device; its release frees this.
 * @cdev: Its device node.
 * @type: Type of the device memory.
 * @hw: Its hardware, which lives as long as this.
 * @classic: What the classic driver knows of a classic device; NULL for a managed one,
 *	for which the library allocates and migrates.
 * @vram: Its memory manager; NULL for a classic one.
 * @size: Bytes of device memory.
 * @res: Physical range of a coherent device.
 * @plug_lock: Held for writing to add or remove @devmem, for reading to use it.
 * @devmem: The device memory; NULL if unplugged. Written under @plug_lock. Without that
 *	lock it can be removed at any time, but it stays valid memory until @dev is deleted.
 * @owner: &hmm_devmem.owner of @devmem, or NULL. Never dereferenced.
 * @auto_plug: Protected by @plug_lock: the next use adds @devmem again.
 * @plug: How @devmem was added. Does not change while there is a @devmem.
 * @dma_dev: Device that DMA is mapped for, if @plug says so; NULL if it is @dev.
 * @bad_power: Copies while the device might have been suspended.
 * @resumes: How often it was resumed at run time.
 * @mm_locks: Processes whose mmap lock is kept, see HMM_DEVMEM_TEST_LOCK_MM.
 * @contexts: Number of struct thd_mirror.
 * @kills: How often the kill callback of a managed device ran.
 * @cleanups: How often its cleanup callback ran.
 */
struct thd_device {
	struct device dev;
	struct cdev cdev;
	enum memory_type type;
	struct thd_hw *hw;
	struct thd_classic *classic;
	struct thd_vram *vram;
	unsigned long size;
	struct resource res;

	struct rw_semaphore plug_lock;
	struct hmm_devmem *devmem;
	void *owner;
	bool auto_plug;
	struct hmm_devmem_test_plug plug;
	struct device *dma_dev;
	atomic_long_t bad_power;
	atomic_long_t resumes;
	atomic_long_t mm_locks;

	atomic_long_t contexts;
	atomic_long_t kills;
	atomic_long_t cleanups;
};

static inline struct thd_device *thd_from_devmem(struct hmm_devmem *devmem)
{
	return container_of(devmem->device, struct thd_device, dev);
}

/**
 * struct thd_mirror - an open file: the device's view of a process
 * @context: Keeps this alive until the last device page that was allocated for
 *	it is free, which can be long after the file was closed.
 * @tdev: The device.
 * @m: The library's mirror. The driver changes @table under the lock of @m, and reads it
 *	under that lock, so that nothing is changed meanwhile.
 * @table: The device's page table.
 */
struct thd_mirror {
	struct hmm_devmem_context context;
	struct thd_device *tdev;
	struct hmm_devmem_mirror m;
	struct thd_table table;
};

/* How often a walk is tried at least: a busy machine does not do much in a second. */
#define THD_WALK_TRIES		1000

/* Is it time to give up? @deadline is in jiffies, @tries counts what has failed. */
static inline bool thd_walk_in_vain(unsigned long deadline, unsigned int tries)
{
	return tries >= THD_WALK_TRIES && time_after(jiffies, deadline);
}

/* lib/test_hmm_devmem.c */
struct hmm_devmem *thd_enter(struct thd_device *tdev);

/**
 * thd_leave() - End what thd_enter() has started
 * @tdev: The device.
 *
 * Context: Process context.
 */
static inline void thd_leave(struct thd_device *tdev)
{
	up_read(&tdev->plug_lock);
}

/* Are so many pages from @addr on addresses that exist? */
static inline bool thd_range_is_valid(u64 addr, u64 npages)
{
	u64 size, end;

	return !check_mul_overflow(npages, (u64)PAGE_SIZE, &size) &&
	       !check_add_overflow(addr, size, &end) && end <= ULONG_MAX;
}

/* power.c */
extern const struct dev_pm_ops thd_pm_ops;

/* mirror.c */
struct thd_mirror *thd_mirror_open(struct thd_device *tdev,
				   struct mm_struct *mm);
void thd_mirror_close(struct thd_mirror *mirror);
void thd_mirror_set_devmem(struct thd_mirror *mirror);
long thd_mirror_fault(struct thd_mirror *mirror, unsigned long addr,
		      unsigned int flags);
int thd_mirror_fault_range(struct thd_mirror *mirror, unsigned long addr,
			   unsigned long end, unsigned int flags);
bool thd_mirror_is_local(const struct thd_mirror *mirror,
			 const struct page *page);
struct page *thd_mirror_local_page(struct thd_mirror *mirror, unsigned long addr);

/* access.c */
int thd_file_open(struct inode *inode, struct file *file);
int thd_file_close(struct inode *inode, struct file *file);
int thd_file_mmap(struct file *file, struct vm_area_struct *vma);
int thd_file_access(struct thd_mirror *mirror, unsigned int nr,
		    void __user *arg);
int thd_file_lock_mm(struct thd_mirror *mirror, unsigned long pid);

/* replay.c */
int thd_replay(struct thd_mirror *mirror, void __user *arg);

/* request.c */
void thd_request_note(const struct hmm_devmem_copy *copy);
int thd_request_ioctl(struct thd_mirror *mirror, void __user *uarg);

/* snapshot.c */
int thd_cmd_snapshot(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd);

#endif /* _LIB_TEST_HMM_DEVMEM_H */
