/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Device memory with struct pages for drivers of GPUs and accelerators.
 *
 * Overview, locking rules and the contract with drivers:
 * Documentation/mm/hmm_devmem/ and the DOC sections of mm/hmm_devmem/core.c.
 */
#ifndef _LINUX_HMM_DEVMEM_H
#define _LINUX_HMM_DEVMEM_H

#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/kref.h>
#include <linux/memremap.h>
#include <linux/mm_types.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/percpu-refcount.h>
#include <linux/percpu-rwsem.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct dentry;
struct device;
struct shrinker;
struct hmm_devmem;
struct hmm_devmem_alloc;
struct hmm_devmem_segment;
struct hmm_devmem_stats_pcpu;
struct resource;
struct task_struct;

/**
 * struct hmm_devmem_context - a driver's object behind a set of device folios
 * @refs: One reference for its creator and one for each device folio that was
 *	allocated with it.
 * @release: Called once, when the last reference is gone. It can run wherever
 *	the last reference to a folio can be dropped: it must not sleep.
 *
 * Typically one per process that uses the device, embedded in the driver's own
 * structure. A device folio can outlive the file that put it on the device (a
 * forked child has it too); the context stays valid for as long.
 */
struct hmm_devmem_context {
	refcount_t refs;
	void (*release)(struct hmm_devmem_context *ctx);
};

/**
 * enum hmm_devmem_dir - direction of a copy
 * @HMM_DEVMEM_TO_DEVICE: from system memory to the device
 * @HMM_DEVMEM_TO_RAM: from the device to system memory
 */
enum hmm_devmem_dir {
	HMM_DEVMEM_TO_DEVICE,
	HMM_DEVMEM_TO_RAM,
};

/**
 * struct hmm_devmem_run - pages contiguous both on the device and in memory
 * @device: First device page.
 * @offset: Where that is: bytes from the start of device memory, what
 *	hmm_devmem_page_offset() would say.
 * @ram: First page of system memory; NULL if there is none and the device
 *	pages are to be cleared (only in direction %HMM_DEVMEM_TO_DEVICE).
 * @addr: User virtual address of the first page; 0 in an eviction, which does
 *	not look at virtual addresses.
 * @nr_pages: Length, pages of PAGE_SIZE.
 * @dma_addr: With %HMM_DEVMEM_DMA, where the device finds @ram; it is contiguous
 *	for the device for the whole run. Not set where @ram is NULL.
 * @error: 0 on entry. A driver that could not copy this run, but the others,
 *	sets an errno here; the pages of the run then stay where they were.
 */
struct hmm_devmem_run {
	struct page *device;
	u64 offset;
	struct page *ram;
	unsigned long addr;
	dma_addr_t dma_addr;
	unsigned int nr_pages;
	int error;
};

/**
 * struct hmm_devmem_map_entry - a device folio that now belongs to a process
 * @addr: User virtual address of its first page.
 * @pfn: Its first device pfn.
 * @order: Its size, PAGE_SIZE << @order bytes.
 * @writable: False if the CPU's page table has it read-only.
 */
struct hmm_devmem_map_entry {
	unsigned long addr;
	unsigned long pfn;
	unsigned int order;
	bool writable;
};

/**
 * struct hmm_devmem_copy - one batch of copies
 * @dir: Direction; the same for all runs.
 * @nr_runs: Number of @runs.
 * @runs: What to copy or clear.
 * @nr_entries: Number of @entries.
 * @entries: Only in &hmm_devmem_ops.map: what was committed.
 * @context: In direction %HMM_DEVMEM_TO_DEVICE what the migration was called
 *	with, may be NULL; otherwise NULL, because the pages of one eviction
 *	can be of many contexts.
 * @driver_private: For the driver, from copy_to_device() or copy_to_ram() to
 *	copy_wait(); NULL on entry.
 *
 * Lives from the start of the copy until copy_wait(), or map(), returns. With
 * %HMM_DEVMEM_DMA the runs are mapped for DMA from before copy_to_device() or
 * copy_to_ram() is called until copy_wait() has returned, or until that call has
 * if it failed or there is no copy_wait().
 */
struct hmm_devmem_copy {
	enum hmm_devmem_dir dir;
	unsigned int nr_runs;
	struct hmm_devmem_run *runs;
	unsigned int nr_entries;
	const struct hmm_devmem_map_entry *entries;
	struct hmm_devmem_context *context;
	void *driver_private;
};

/**
 * struct hmm_devmem_ops - what a driver does for its device memory
 *
 * A *managed* driver supplies @copy_to_device and @copy_to_ram; the library
 * allocates device pages, migrates, serves CPU faults and evicts. A *classic*
 * driver supplies neither of the two but @free and @fault, and does all of
 * that itself. See "Driver contract" in Documentation/mm/hmm_devmem/.
 */
struct hmm_devmem_ops {
	/**
	 * @free: The last reference to a device page is gone; the callback owns
	 * the page alone. Of a folio of several pages it gets the first, and
	 * folio_order() still says how many there are. It must not sleep and may
	 * run with interrupts off.
	 *
	 * Required for a classic driver, which puts the page back into its own
	 * allocator here. Optional for a managed one: called before the library
	 * takes the page back.
	 */
	void (*free)(struct hmm_devmem *devmem, struct page *page);

	/**
	 * @fault: The CPU, or get_user_pages(), touched a device page at @addr
	 * in @vma. The data has to come back to system memory, the page at
	 * @addr first; neighbours may come along. @page is locked and referenced
	 * by the caller, serves to find driver data and as
	 * &migrate_vma.fault_page, and is not to be modified. Called with the
	 * mmap lock held for reading; may sleep. @flags are FAULT_FLAG_*, @pmdp
	 * the PMD of @addr.
	 *
	 * Required for a classic driver of MEMORY_DEVICE_PRIVATE. Optional for
	 * a managed one: called instead of hmm_devmem_default_fault(), which it
	 * can call in turn. Never called for MEMORY_DEVICE_COHERENT, which the
	 * CPU can read where it is.
	 *
	 * Return: 0 or VM_FAULT_MAJOR when the page is back or the fault shall
	 * be retried, VM_FAULT_OOM when no system page can be had,
	 * VM_FAULT_SIGBUS when the device cannot give the data back; later
	 * accesses must then fail too.
	 */
	vm_fault_t (*fault)(struct hmm_devmem *devmem, struct vm_area_struct *vma,
			    unsigned long addr, const struct page *page,
			    unsigned int flags, pmd_t *pmdp);

	/**
	 * @kill: Removal has started and the driver shall hand out no more
	 * device pages. A classic driver brings its pages home here. Called once,
	 * process context, may sleep. Optional.
	 */
	void (*kill)(struct hmm_devmem *devmem);

	/**
	 * @cleanup: The last callback: no other runs or will run, and the
	 * driver's memory and code may go away after it. Called once, after
	 * @kill, process context, may sleep. Optional.
	 */
	void (*cleanup)(struct hmm_devmem *devmem);

	/**
	 * @copy_to_device: Start, or do, the copies (and clears) of @copy.
	 * Process context, may sleep; the mmap lock of the process is held for
	 * reading and all pages are locked, so no user memory may be touched and
	 * no allocation may wait for these pages: GFP_KERNEL does not, but reclaim
	 * calls MMU notifiers, so the driver's locks that those take are not to be
	 * held around it. Required for a managed driver.
	 *
	 * When there is a @copy_wait, a migration of a long range starts a
	 * second batch before it waits for the first, and never more than two. So
	 * this may wait for the device, but keeps no lock until @copy_wait.
	 *
	 * Return: 0, or an errno if nothing was started; then @copy_wait is not
	 * called and all pages stay where they were. Once something was started,
	 * what fails is reported by &hmm_devmem_run.error or @copy_wait. %-ENODEV
	 * says that the device is gone, see hmm_devmem_mark_dead().
	 */
	int (*copy_to_device)(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy);

	/**
	 * @copy_to_ram: The same in the other direction; never has holes.
	 *
	 * For a CPU fault it matters which errno this, @copy_wait or
	 * &hmm_devmem_run.error has: %-EIO says that the device cannot give the
	 * data back, as %-ENODEV does, and the process gets SIGBUS. All others,
	 * -EAGAIN or -ENOMEM for instance, say "not now": the page stays where it
	 * is, and a while later the process faults and is copied for again, until
	 * that succeeds or it is killed.
	 */
	int (*copy_to_ram)(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy);

	/**
	 * @copy_wait: Wait until the copies that were started are over, also
	 * those that fail. After it returns the device must touch none of the
	 * pages any more: stop its DMA if they do not end. Optional; leave it out
	 * when the two callbacks above are synchronous.
	 *
	 * Return: 0, or an errno if no run of @copy may be trusted; %-ENODEV
	 * as above.
	 */
	int (*copy_wait)(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy);

	/**
	 * @map: The pages in &hmm_devmem_copy.entries are on the device and can
	 * be entered into the device's page table. Called under the locks of
	 * @copy_to_device. Cannot fail: a device that has no entry takes a page
	 * fault of its own later. Not called for a mapping that the process may
	 * not read (PROT_NONE). Optional.
	 *
	 * The process can have unmapped one of them since the migration began
	 * (MADV_DONTNEED does not wait for it), and then that page is free soon.
	 * If the MMU notifier got any other invalidation than
	 * hmm_devmem_is_migration_to() in the meantime, enter nothing: that is from
	 * before hmm_devmem_migrate_to_device() was called until the entry is made
	 * under the lock that the notifier takes.
	 */
	void (*map)(struct hmm_devmem *devmem, const struct hmm_devmem_copy *copy);
};

/**
 * DOC: Flags
 *
 * %HMM_DEVMEM_LAZY: struct pages, which take 1/64 of the device's size in system
 * memory and most of the time that an add takes, are created when the first page
 * near them is allocated, and given back when they have not been needed for a
 * while or when memory is short.
 *
 * %HMM_DEVMEM_DMA: the library maps system memory for DMA by the device, see
 * &hmm_devmem_run.dma_addr. The device must have a DMA mask, which is set before the
 * add and not made narrower. Unless an IOMMU translates for it, or it reaches
 * the machine's bounce buffers, the mask must cover all memory or at least all of one
 * zone (ZONE_DMA32 or ZONE_DMA). If it does not cover all memory, pages come home
 * to such a zone only, and those that the device cannot read do not go there.
 *
 * %HMM_DEVMEM_RECLAIM: a migration to the device for which there is not enough
 * device memory makes room by evicting pages that are there, in turn, but none
 * of the range that is migrated. What does not fit then, and without this flag
 * all for which there is no device memory, stays in system memory.
 *
 * %HMM_DEVMEM_RUNTIME_PM: hmm_devmem_migrate_to_device() resumes the device before it
 * takes any lock, and from then on the device is kept from being suspended for as long
 * as device pages are in use. So its runtime_suspend callback finds no data on it, and
 * no other callback has to wait for it to be resumed. A driver that wants it off when
 * processes have memory there and do not use it calls hmm_devmem_evict() then. Folios
 * of hmm_devmem_alloc_folio() do not resume it, and the kill and cleanup callbacks can
 * find it suspended.
 *
 * All of them are for managed drivers only.
 */
#define HMM_DEVMEM_LAZY		BIT(0)
#define HMM_DEVMEM_DMA		BIT(1)
#define HMM_DEVMEM_RECLAIM	BIT(2)
#define HMM_DEVMEM_RUNTIME_PM	BIT(3)

/**
 * struct hmm_devmem_desc - how a devmem is to be set up
 * @ops: Required; must stay valid until &hmm_devmem_ops.cleanup has returned.
 * @size: Bytes of device memory, rounded up to whole pages. Ignored if @res is
 *	given.
 * @res: Physical range of memory that the CPU can address coherently
 *	(required for, and only for, MEMORY_DEVICE_COHERENT). It stays the
 *	caller's: the library neither requests nor releases it.
 * @type: MEMORY_DEVICE_PRIVATE or MEMORY_DEVICE_COHERENT.
 * @flags: HMM_DEVMEM_* flags, or 0.
 * @nid: NUMA node of the struct pages, or NUMA_NO_NODE for the device's.
 * @owner: Devmems with the same owner are peers: a device of one may map pages
 *	of the other, and hmm_range_fault() with this
 *	&hmm_range.dev_private_owner does not fault them back. NULL: no peers.
 * @driver_data: Initial value of &hmm_devmem.driver_data.
 * @dma_device: With %HMM_DEVMEM_DMA, the device that does the DMA; NULL if it is
 *	the device that the memory is added for. It must exist for as long.
 * @bad_pages: Pages that are never to be used, since the device is known to have lost
 *	what was there: for each of them an offset in bytes from the start of device
 *	memory, of any byte in it. In any order; not needed after the call. Only for
 *	managed drivers.
 * @nr_bad_pages: Length of @bad_pages.
 */
struct hmm_devmem_desc {
	const struct hmm_devmem_ops *ops;
	unsigned long size;
	struct resource *res;
	enum memory_type type;
	unsigned long flags;
	int nid;
	void *owner;
	void *driver_data;
	struct device *dma_device;
	const u64 *bad_pages;
	unsigned int nr_bad_pages;
};

/**
 * struct hmm_devmem_left - why pages were not evicted
 * @busy: They were locked, or somebody has references that are not mappings.
 * @no_memory: There was no system memory for them.
 * @not_copied: The device did not copy them, or they could not be mapped for it.
 *
 * In pages of PAGE_SIZE. The sum is what hmm_devmem_evict_why() returns.
 */
struct hmm_devmem_left {
	unsigned long busy;
	unsigned long no_memory;
	unsigned long not_copied;
};

/**
 * struct hmm_devmem_stats - what happened to a devmem since it was added
 * @allocated: Device pages allocated, in pages of PAGE_SIZE like all below.
 * @freed: Device pages freed. @allocated - @freed are in use.
 * @to_device: Pages migrated to the device, with those that were only cleared.
 * @to_ram: Pages migrated back, for whatever reason.
 * @faults: CPU faults on device pages (a number of faults, not of pages).
 * @fault_pages: Pages that came back in those faults; part of @to_ram.
 * @evicted: Pages that came back by physical address; part of @to_ram.
 * @copy_errors: Pages that were not migrated because the driver could not
 *	copy them, or they could not be mapped for DMA.
 * @lost: Pages whose data the device has lost, see hmm_devmem_poison().
 *
 * All but @faults stay 0 for a classic driver.
 */
struct hmm_devmem_stats {
	u64 allocated;
	u64 freed;
	u64 to_device;
	u64 to_ram;
	u64 faults;
	u64 fault_pages;
	u64 evicted;
	u64 copy_errors;
	u64 lost;
};

/**
 * struct hmm_devmem - memory of one device, or one pool of it
 * @device: The device it was added for.
 * @ops: The driver's operations.
 * @resource: The reserved physical range; larger than the device's memory where
 *	the kernel reserves in larger units.
 * @pfn_first: First pfn of device memory.
 * @pfn_last: One past the last pfn, despite its name: the range is
 *	[@pfn_first, @pfn_last), as it always was.
 * @type: MEMORY_DEVICE_PRIVATE or MEMORY_DEVICE_COHERENT.
 * @owner: For &hmm_range.dev_private_owner and &migrate_vma.pgmap_owner.
 * @driver_data: The driver's own; the library does not look at it.
 * @ref: Held around every callback into the driver; hmm_devmem_remove() waits
 *	for it to fall to zero before it calls &hmm_devmem_ops.cleanup.
 * @completion: Done when @ref has fallen to zero.
 *
 * Belongs to the library: valid memory from a successful add until the driver is
 * detached from @device and every hmm_devmem_get() has had its hmm_devmem_put().
 * hmm_devmem_remove() does not free it: what is called with a removed devmem returns
 * -ENODEV, or does nothing where nothing is returned, and touches nothing of the
 * driver's. All fields but @driver_data are read-only for drivers; @device and
 * @resource are not to be used once it is removed.
 */
struct hmm_devmem {
	struct device *device;
	const struct hmm_devmem_ops *ops;
	struct resource *resource;
	unsigned long pfn_first;
	unsigned long pfn_last;
	enum memory_type type;
	void *owner;
	void *driver_data;
	struct percpu_ref ref;
	struct completion completion;

	/* private: */
	struct percpu_rw_semaphore intake;
	struct percpu_rw_semaphore handout;
	struct kref handles; /* of the memory of this */
	struct kref kref; /* of the range */
	struct task_struct *remover;
	struct completion removed;
	struct rw_semaphore segments_lock;
	struct hmm_devmem_segment **segments;
	unsigned long *ending;
	atomic_t nr_ending;
	unsigned int nr_segments;
	unsigned int nr_populated;
	unsigned int segment_shift;
	int nid;
	struct delayed_work shrink_work;
	struct shrinker *shrinker;
	struct hmm_devmem_alloc *alloc;
	struct hmm_devmem_stats_pcpu __percpu *stats;
	struct dentry *debugfs;
	struct device *dma_device;
	unsigned long dma_max_pfn; /* of the system, when ram_gfp was chosen */
	gfp_t ram_gfp;
	unsigned long flags;
	unsigned long fail_next;
	unsigned long reclaim_hand;
	struct mutex suspend_lock; /* held by suspend and resume */
	unsigned int max_run;
	bool gone; /* no callback but cleanup any more */
	bool has_free;
	bool shrink_now;
	bool dead;
	bool suspended;
	bool powered;
	unsigned int power_users;
	spinlock_t power_lock; /* protects powered and power_users */
	struct delayed_work power_work;
	struct work_struct dead_work;
	char to_device_cookie;
};

#if IS_ENABLED(CONFIG_HMM_DEVMEM)

struct hmm_devmem *hmm_devmem_add(const struct hmm_devmem_ops *ops,
				  struct device *device, unsigned long size);
struct hmm_devmem *hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
					   struct device *device,
					   struct resource *res);
struct hmm_devmem *hmm_devmem_add_desc(struct device *device,
				       const struct hmm_devmem_desc *desc);
void hmm_devmem_remove(struct hmm_devmem *devmem);
void hmm_devmem_get(struct hmm_devmem *devmem);
void hmm_devmem_put(struct hmm_devmem *devmem);

struct folio *hmm_devmem_alloc_folio(struct hmm_devmem *devmem,
				     unsigned int order,
				     struct hmm_devmem_context *ctx);
struct hmm_devmem *hmm_devmem_from_page(const struct page *page);
bool hmm_devmem_pfn_populated(struct hmm_devmem *devmem, unsigned long pfn);
u64 hmm_devmem_page_offset(const struct page *page);
void hmm_devmem_page_set_drvdata(struct page *page, unsigned long data);
unsigned long hmm_devmem_page_get_drvdata(const struct page *page);
struct hmm_devmem_context *hmm_devmem_page_context(const struct page *page);

long hmm_devmem_migrate_to_device(struct hmm_devmem *devmem,
				  struct mm_struct *mm,
				  unsigned long start, unsigned long end,
				  struct hmm_devmem_context *ctx);
long hmm_devmem_migrate_to_ram(struct hmm_devmem *devmem,
			       struct mm_struct *mm,
			       unsigned long start, unsigned long end);
long hmm_devmem_evict(struct hmm_devmem *devmem, unsigned long pfn_first,
		      unsigned long nr_pages);
long hmm_devmem_evict_why(struct hmm_devmem *devmem, unsigned long pfn_first,
			  unsigned long nr_pages, struct hmm_devmem_left *left);
int hmm_devmem_suspend(struct hmm_devmem *devmem);
void hmm_devmem_resume(struct hmm_devmem *devmem);
void hmm_devmem_mark_dead(struct hmm_devmem *devmem);
void hmm_devmem_poison(struct hmm_devmem *devmem, unsigned long pfn,
		       unsigned long nr_pages);
vm_fault_t hmm_devmem_default_fault(struct hmm_devmem *devmem,
				    struct vm_area_struct *vma,
				    unsigned long addr, const struct page *page,
				    unsigned int flags, pmd_t *pmdp);
void hmm_devmem_get_stats(struct hmm_devmem *devmem,
			  struct hmm_devmem_stats *stats);

/**
 * hmm_devmem_is_migration_to() - Is an invalidation part of a migration to us?
 * @devmem: The device memory.
 * @range: What the MMU notifier got.
 *
 * hmm_devmem_migrate_to_device() moves pages of system memory only. A driver
 * whose page table has entries for pages that are on @devmem already may leave
 * those in place when this returns true; all other entries of the range, and
 * all entries when it returns false, have to go.
 *
 * Context: Any.
 * Return: True for an invalidation by hmm_devmem_migrate_to_device(@devmem).
 */
static inline bool
hmm_devmem_is_migration_to(const struct hmm_devmem *devmem,
			   const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_MIGRATE &&
	       range->owner == &devmem->to_device_cookie;
}

#else /* !CONFIG_HMM_DEVMEM */

static inline struct hmm_devmem *
hmm_devmem_add(const struct hmm_devmem_ops *ops, struct device *device,
	       unsigned long size)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static inline struct hmm_devmem *
hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
			struct device *device, struct resource *res)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static inline struct hmm_devmem *
hmm_devmem_add_desc(struct device *device, const struct hmm_devmem_desc *desc)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static inline void hmm_devmem_remove(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_get(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_put(struct hmm_devmem *devmem)
{
}

static inline struct folio *
hmm_devmem_alloc_folio(struct hmm_devmem *devmem, unsigned int order,
		       struct hmm_devmem_context *ctx)
{
	return NULL;
}

static inline struct hmm_devmem *hmm_devmem_from_page(const struct page *page)
{
	return NULL;
}

static inline bool hmm_devmem_pfn_populated(struct hmm_devmem *devmem,
					    unsigned long pfn)
{
	return false;
}

static inline u64 hmm_devmem_page_offset(const struct page *page)
{
	return 0;
}

static inline void hmm_devmem_page_set_drvdata(struct page *page,
					       unsigned long data)
{
}

static inline unsigned long
hmm_devmem_page_get_drvdata(const struct page *page)
{
	return 0;
}

static inline struct hmm_devmem_context *
hmm_devmem_page_context(const struct page *page)
{
	return NULL;
}

static inline long
hmm_devmem_migrate_to_device(struct hmm_devmem *devmem, struct mm_struct *mm,
			     unsigned long start, unsigned long end,
			     struct hmm_devmem_context *ctx)
{
	return -EOPNOTSUPP;
}

static inline long
hmm_devmem_migrate_to_ram(struct hmm_devmem *devmem, struct mm_struct *mm,
			  unsigned long start, unsigned long end)
{
	return -EOPNOTSUPP;
}

static inline long hmm_devmem_evict(struct hmm_devmem *devmem,
				    unsigned long pfn_first,
				    unsigned long nr_pages)
{
	return -EOPNOTSUPP;
}

static inline long
hmm_devmem_evict_why(struct hmm_devmem *devmem, unsigned long pfn_first,
		     unsigned long nr_pages, struct hmm_devmem_left *left)
{
	return -EOPNOTSUPP;
}

static inline int hmm_devmem_suspend(struct hmm_devmem *devmem)
{
	return -EOPNOTSUPP;
}

static inline void hmm_devmem_resume(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_mark_dead(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_poison(struct hmm_devmem *devmem,
				     unsigned long pfn, unsigned long nr_pages)
{
}

static inline vm_fault_t
hmm_devmem_default_fault(struct hmm_devmem *devmem, struct vm_area_struct *vma,
			 unsigned long addr, const struct page *page,
			 unsigned int flags, pmd_t *pmdp)
{
	return VM_FAULT_SIGBUS;
}

static inline void hmm_devmem_get_stats(struct hmm_devmem *devmem,
					struct hmm_devmem_stats *stats)
{
	*stats = (struct hmm_devmem_stats) { };
}

static inline bool
hmm_devmem_is_migration_to(const struct hmm_devmem *devmem,
			   const struct mmu_notifier_range *range)
{
	return false;
}

#endif /* CONFIG_HMM_DEVMEM */

/**
 * hmm_devmem_context_init() - Set up a context with one reference
 * @ctx: The context, embedded in memory of the caller's.
 * @release: See &hmm_devmem_context.release.
 *
 * Context: Any.
 */
static inline void
hmm_devmem_context_init(struct hmm_devmem_context *ctx,
			void (*release)(struct hmm_devmem_context *ctx))
{
	refcount_set(&ctx->refs, 1);
	ctx->release = release;
}

/**
 * hmm_devmem_context_get() - Take a reference
 * @ctx: The context, or NULL. The caller must have a reference already.
 *
 * Context: Any.
 */
static inline void hmm_devmem_context_get(struct hmm_devmem_context *ctx)
{
	if (ctx)
		refcount_inc(&ctx->refs);
}

/**
 * hmm_devmem_context_put() - Give a reference back
 * @ctx: The context, or NULL. Not to be used after this.
 *
 * Context: Any.
 */
static inline void hmm_devmem_context_put(struct hmm_devmem_context *ctx)
{
	if (ctx && refcount_dec_and_test(&ctx->refs))
		ctx->release(ctx);
}

#endif /* _LINUX_HMM_DEVMEM_H */
