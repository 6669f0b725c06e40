/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The device's view of one process: page faults of the device, and the removal of
 * entries from the device's page table before the process's pages go away.
 *
 * Optional: a driver can use the library without this, and this without device memory.
 * See Documentation/mm/hmm_devmem/ and "DOC: Mirror" in mm/hmm_devmem/mirror.c.
 */
#ifndef _LINUX_HMM_DEVMEM_MIRROR_H
#define _LINUX_HMM_DEVMEM_MIRROR_H

#include <linux/bits.h>
#include <linux/errno.h>
#include <linux/hmm_devmem.h>
#include <linux/list.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/types.h>
#include <linux/xarray.h>

struct hmm_devmem_mirror;
struct hmm_devmem_mirror_streams;

/**
 * struct hmm_devmem_mirror_ops - how a driver changes the device's page table
 *
 * Both operations are called with &hmm_devmem_mirror.lock held, which is taken in MMU
 * notifiers. So they must neither access user memory, nor take the mmap lock, nor
 * allocate memory with anything that waits for reclaim, such as GFP_KERNEL: use
 * GFP_NOWAIT or GFP_ATOMIC, or memory that was allocated before. The same is true of
 * all other code of the driver that holds this lock. They may wait for the device, if
 * it is certain to answer in bounded time.
 */
struct hmm_devmem_mirror_ops {
	/**
	 * @unmap: Remove all entries of [@start, @end) from the device's page table.
	 * When the callback returns, the device must neither use these entries
	 * any more nor access the pages by means of them: the callback ends with
	 * the invalidation of the device's TLB. Both addresses are page aligned.
	 * There need not be an entry in the range. An entry can be in the range only
	 * in part: then the driver removes all of it, or splits it.
	 *
	 * If @keep_local is true, entries of pages on &hmm_devmem_mirror.devmem may
	 * stay (hmm_devmem_from_page() tells which those are). The driver is free to
	 * remove them as well: it only costs a page fault of the device.
	 *
	 * Called in MMU notifiers, possibly in the OOM reaper or in direct reclaim,
	 * and in hmm_devmem_mirror_fini() and hmm_devmem_mirror_set_devmem() for all
	 * addresses: then @start is 0, and @end the start of the last page of the
	 * address space, which no process has. Cannot fail, and must not wait for any
	 * allocation. The OOM reaper asks not to be blocked: the mirror then does not
	 * wait for its lock, and this is only called if no other task holds it. The
	 * callback may sleep until the device has answered even then. Required.
	 */
	void (*unmap)(struct hmm_devmem_mirror *m, unsigned long start,
		      unsigned long end, bool keep_local);

	/**
	 * @map: Make @nr entries, in ascending order of addresses. The pages are in
	 * system memory, on &hmm_devmem_mirror.devmem (hmm_devmem_from_page()), or in
	 * coherent memory of another device, never in private memory of one. The
	 * device may use an entry at once, and until @unmap is called for its
	 * address; it must not write to pages that are not
	 * &hmm_devmem_map_entry.writable. There can be an entry at the same user
	 * address already, which is to be replaced: it can differ in order and in
	 * permission, but is for the same pages. The callback takes no references to
	 * pages. Required.
	 *
	 * Return: 0, or an errno if not all entries were made, typically %-ENOMEM;
	 * those that were made stay. A device fault then calls this again for the
	 * entry that it is about alone, and hmm_devmem_mirror_fault() returns the
	 * errno of that call. If it is %-ENOMEM, the driver can allocate the memory
	 * without the lock, and call hmm_devmem_mirror_fault() again. If the callback
	 * was called in a migration, the errno is ignored, and the device takes a page
	 * fault later. The callback must not return %-EBUSY: a device fault would begin
	 * again, as after an invalidation.
	 */
	int (*map)(struct hmm_devmem_mirror *m,
		   const struct hmm_devmem_map_entry *entries, unsigned int nr);
};

/**
 * DOC: Flags of a device fault
 *
 * %HMM_DEVMEM_MIRROR_READ: the device reads. %HMM_DEVMEM_MIRROR_WRITE: the device writes.
 * Either is served like a page fault of the process: a page that was never touched is
 * filled with zeros, a page in swap is read in, and a shared page is copied for a write.
 *
 * %HMM_DEVMEM_MIRROR_MIGRATE: pages move to the device before they are mapped. Pages
 * that cannot move are mapped where they are, and that is no error. Without this flag
 * no page moves; pages that are on the device are mapped there.
 *
 * %HMM_DEVMEM_MIRROR_PRESENT: only what the CPU's page table maps already is mapped for
 * the device; the process takes no page faults.
 */
#define HMM_DEVMEM_MIRROR_READ		0
#define HMM_DEVMEM_MIRROR_WRITE		BIT(0)
#define HMM_DEVMEM_MIRROR_MIGRATE	BIT(1)
#define HMM_DEVMEM_MIRROR_PRESENT	BIT(2)

/**
 * struct hmm_devmem_mirror - the device's view of one process
 * @lock: Held around &hmm_devmem_mirror_ops. A driver whose device does not read its page
 *	table by itself takes it to read the page table for the device. Never allocate
 *	with GFP_KERNEL under it; lockdep reports that.
 * @notifier: The MMU interval notifier, for all addresses. Its mm is that of the
 *	process. A driver that makes entries by itself, for example after
 *	make_device_exclusive(), does so under @lock, and only if
 *	mmu_interval_read_retry() says that nothing was invalidated since
 *	mmu_interval_read_begin_timeout(). Without a timeout, a process can make that
 *	wait last for ever.
 * @ops: The driver's operations.
 * @context: Context for folios that migrate to the device; or NULL, which is what
 *	hmm_devmem_mirror_init() sets. The driver may set it before the first fault or
 *	migration, and has a reference until hmm_devmem_mirror_fini() has returned.
 * @devmem: Where pages migrate to, and which private pages can be mapped; NULL if there
 *	is no device memory. Read it under @lock.
 *
 * Embedded in a structure of the driver, one for each process that uses the device.
 * Exclusive access is left to the driver: an invalidation by make_device_exclusive()
 * whose owner is the mirror (this structure's address) is ignored, because the driver
 * makes the entry for that access itself.
 */
struct hmm_devmem_mirror {
	struct mutex lock; /* see above */
	struct mmu_interval_notifier notifier;
	const struct hmm_devmem_mirror_ops *ops;
	struct hmm_devmem_context *context;
	struct hmm_devmem *devmem;

	/* private: */
	struct rw_semaphore turn; /* for reading: device faults that migrate */
	struct list_head migrations; /* in progress; protected by @lock */
	struct hmm_devmem_mirror_streams *streams; /* not protected: see stream.c */
#ifdef CONFIG_HMM_DEVMEM_MIRROR_DEBUG
	struct list_head debug_node;
	struct xarray debug_addrs; /* entries: user pfn to pfn */
	struct xarray debug_pfns; /* the same for device pages: pfn to user pfn */
#endif
};

#if IS_ENABLED(CONFIG_HMM_DEVMEM_MIRROR)

int hmm_devmem_mirror_init(struct hmm_devmem_mirror *m,
			   struct hmm_devmem *devmem, struct mm_struct *mm,
			   const struct hmm_devmem_mirror_ops *ops);
void hmm_devmem_mirror_fini(struct hmm_devmem_mirror *m);
void hmm_devmem_mirror_set_devmem(struct hmm_devmem_mirror *m,
				  struct hmm_devmem *devmem);
long hmm_devmem_mirror_fault(struct hmm_devmem_mirror *m, unsigned long addr,
			     unsigned int flags);
long hmm_devmem_mirror_migrate(struct hmm_devmem_mirror *m, unsigned long start,
			       unsigned long end);
long hmm_devmem_mirror_request(struct hmm_devmem_mirror *m,
			       struct hmm_devmem_request *req);

#else /* !CONFIG_HMM_DEVMEM_MIRROR */

static inline int hmm_devmem_mirror_init(struct hmm_devmem_mirror *m,
					 struct hmm_devmem *devmem,
					 struct mm_struct *mm,
					 const struct hmm_devmem_mirror_ops *ops)
{
	return -EOPNOTSUPP;
}

static inline void hmm_devmem_mirror_fini(struct hmm_devmem_mirror *m)
{
}

static inline void hmm_devmem_mirror_set_devmem(struct hmm_devmem_mirror *m,
						struct hmm_devmem *devmem)
{
}

static inline long hmm_devmem_mirror_fault(struct hmm_devmem_mirror *m,
					   unsigned long addr,
					   unsigned int flags)
{
	return -EOPNOTSUPP;
}

static inline long hmm_devmem_mirror_migrate(struct hmm_devmem_mirror *m,
					     unsigned long start,
					     unsigned long end)
{
	return -EOPNOTSUPP;
}

static inline long hmm_devmem_mirror_request(struct hmm_devmem_mirror *m,
					     struct hmm_devmem_request *req)
{
	return -EOPNOTSUPP;
}

#endif /* CONFIG_HMM_DEVMEM_MIRROR */

#endif /* _LINUX_HMM_DEVMEM_MIRROR_H */
