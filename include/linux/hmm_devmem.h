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
#include <linux/err.h>
#include <linux/memremap.h>
#include <linux/mm_types.h>
#include <linux/mmu_notifier.h>
#include <linux/refcount.h>
#include <linux/types.h>

struct device;
struct hmm_devmem;
struct resource;

/**
 * struct hmm_devmem_context - an object of the driver that device folios belong to
 * @refs: Number of references: one for the creator, and one for each device folio
 *	that was allocated with this context.
 * @release: Called once, when the last reference was dropped. It can run in any
 *	context in which the last reference to a folio can be dropped, so it must
 *	not sleep.
 *
 * A driver typically has one context for each process that uses the device, embedded
 * in a structure of its own. A device folio can still be in use when the process has
 * closed the device file, for example because a forked child shares it. The context
 * stays valid until the last of its folios was freed.
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
 * struct hmm_devmem_run - pages contiguous for the device
 * @device: First device page.
 * @offset: Offset of @device in bytes from the start of device memory, as
 *	hmm_devmem_page_offset() returns it.
 * @ram: First page of system memory. NULL if the driver is to clear the device
 *	pages instead of copying to them (only in direction %HMM_DEVMEM_TO_DEVICE). With
 *	%HMM_DEVMEM_DMA only the first page: hmm_devmem_run_page() gives the others. Without
 *	that flag, the others follow it in physical memory.
 * @addr: User virtual address of the first page; 0 in an eviction, which finds pages by
 *	pfn, not by virtual address.
 * @nr_pages: Length of the run in pages of PAGE_SIZE.
 * @dma_addr: With %HMM_DEVMEM_DMA, the DMA address of @ram. The whole run is
 *	contiguous in DMA addresses. Not set if @ram is NULL.
 * @mpfns: Used by the library only, for hmm_devmem_run_page().
 * @error: 0 when the copy callback is called. If the driver fails to copy this run,
 *	but has copied other runs, it sets an errno here. The pages of this run then
 *	stay where they were.
 *
 * A run is contiguous in device memory, in user virtual addresses and, with
 * %HMM_DEVMEM_DMA, in DMA addresses; without that flag in physical addresses of system
 * memory. So where an IOMMU translates for the device, scattered pages of system memory can
 * be one run. The library puts pages that are not contiguous in physical memory into one run
 * only up to dma_get_max_seg_size(), and not across dma_get_seg_boundary(): a driver whose
 * copy engine can do more than the 64 KiB that PCI devices have by default calls
 * dma_set_max_seg_size() before the add.
 */
struct hmm_devmem_run {
	struct page *device;
	u64 offset;
	struct page *ram;
	unsigned long addr;
	dma_addr_t dma_addr;
	const unsigned long *mpfns;
	unsigned int nr_pages;
	int error;
};

/**
 * struct hmm_devmem_map_entry - pages that a process has mapped, for the device's use
 * @addr: User virtual address of the first page, a multiple of the size.
 * @pfn: First pfn.
 * @order: The size is PAGE_SIZE << @order bytes.
 * @writable: False if the pages are read-only in the CPU's page table.
 *
 * For &hmm_devmem_ops.map the entry is a device folio; for &hmm_devmem_mirror_ops.map it is
 * pages of the device or of system memory.
 */
struct hmm_devmem_map_entry {
	unsigned long addr;
	unsigned long pfn;
	unsigned int order;
	bool writable;
};

/**
 * struct hmm_devmem_copy - one batch of copies
 * @dir: Direction of all runs of this batch.
 * @nr_runs: Number of @runs.
 * @runs: The runs that the driver is to copy or clear.
 * @nr_entries: Number of @entries.
 * @entries: Only in &hmm_devmem_ops.map: the folios that have moved to the device.
 * @context: In direction %HMM_DEVMEM_TO_DEVICE the context that the caller of the
 *	migration has passed, which may be NULL. Otherwise NULL, because the pages of
 *	one eviction can belong to many contexts.
 * @priv: In direction %HMM_DEVMEM_TO_DEVICE the &hmm_devmem_request.priv that the caller
 *	of hmm_devmem_migrate() has passed. NULL in all other migrations.
 * @driver_private: For use by the driver: what copy_to_device() or copy_to_ram() stores here
 *	is there in copy_wait(). NULL when the copy callback is called.
 *
 * The structure is valid from the call of the copy callback until copy_wait(), or
 * map(), returns. With %HMM_DEVMEM_DMA the library maps the runs for DMA before it
 * calls copy_to_device() or copy_to_ram(). It unmaps them when copy_wait() has
 * returned; or, if the copy callback fails or there is no copy_wait(), when the copy
 * callback has returned.
 */
struct hmm_devmem_copy {
	enum hmm_devmem_dir dir;
	unsigned int nr_runs;
	struct hmm_devmem_run *runs;
	unsigned int nr_entries;
	const struct hmm_devmem_map_entry *entries;
	struct hmm_devmem_context *context;
	void *priv;
	void *driver_private;
};

/**
 * struct hmm_devmem_ops - operations of a driver on its device memory
 *
 * A *managed* driver supplies @copy_to_device and @copy_to_ram; the library
 * allocates device pages, migrates them, serves CPU faults and evicts. A *classic*
 * driver supplies @free and @fault instead of these two, and does all of
 * that itself. See "Driver contract" in Documentation/mm/hmm_devmem/.
 */
struct hmm_devmem_ops {
	/**
	 * @free: Called when the last reference to a device folio was dropped.
	 * @page is the first page of the folio, and folio_order() still returns
	 * its order. Nothing else uses the page. The callback must not sleep, and
	 * may run with interrupts off.
	 *
	 * Required for a classic driver, which returns the page to its own
	 * allocator here. Optional for a managed driver: called before the library
	 * returns the page to its pool.
	 */
	void (*free)(struct hmm_devmem *devmem, struct page *page);

	/**
	 * @fault: Called when the CPU, or get_user_pages(), accesses a device page
	 * at @addr in @vma. The callback has to move the page at @addr back to
	 * system memory, and may move neighbouring pages as well. Core has locked
	 * @page and holds a reference to it. The driver uses @page to find its own
	 * data and passes it on as &migrate_vma.fault_page, but must not modify
	 * it. Called with the mmap lock held for reading; may sleep. @flags are
	 * FAULT_FLAG_*, @pmdp is the PMD entry of @addr.
	 *
	 * Required for a classic driver of MEMORY_DEVICE_PRIVATE. Optional for
	 * a managed driver: called instead of hmm_devmem_default_fault(), which
	 * the callback can call itself. Never called for MEMORY_DEVICE_COHERENT,
	 * which the CPU can access without a fault.
	 *
	 * Return: 0 or VM_FAULT_MAJOR when the page has moved back or the CPU shall
	 * fault again, VM_FAULT_OOM when no system page can be allocated,
	 * VM_FAULT_SIGBUS when the device cannot give the data back; later
	 * accesses must then fail too. Or what hmm_devmem_default_fault() has returned.
	 */
	vm_fault_t (*fault)(struct hmm_devmem *devmem, struct vm_area_struct *vma,
			    unsigned long addr, const struct page *page,
			    unsigned int flags, pmd_t *pmdp);

	/**
	 * @kill: Called when removal starts: from now on the driver must not
	 * allocate device pages. A classic driver moves its pages back to system
	 * memory here. Called once, in process context, may sleep. Optional.
	 */
	void (*kill)(struct hmm_devmem *devmem);

	/**
	 * @cleanup: The last callback: no other callback is running or will be
	 * called, and the driver's memory and code may go away after it. Called
	 * once, after @kill, in process context, may sleep. Optional.
	 */
	void (*cleanup)(struct hmm_devmem *devmem);

	/**
	 * @copy_to_device: Copy (or clear) all runs of @copy, or start to do so.
	 * Called in process context, may sleep. The mmap lock of the process is
	 * held for reading and all pages are locked. So the callback must not
	 * access user memory, and its allocations must not wait for these pages.
	 * GFP_KERNEL does not wait for them, but reclaim calls MMU notifiers: do
	 * not allocate while holding a lock that the driver's notifier takes.
	 * Required for a managed driver.
	 *
	 * If the driver has a @copy_wait, the migration of a long range starts a
	 * second batch before it waits for the first, but never more than two. So
	 * the callback may wait for the device, but must not return with a lock
	 * held that @copy_wait releases.
	 *
	 * Return: 0, or an errno if no copy was started; then the library does not
	 * call @copy_wait, and all pages stay where they were. If a copy was
	 * started, the callback returns 0, and failures are reported in
	 * &hmm_devmem_run.error or by @copy_wait. %-ENODEV says that the device is
	 * gone, see hmm_devmem_mark_dead().
	 */
	int (*copy_to_device)(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy);

	/**
	 * @copy_to_ram: Like @copy_to_device, but from the device to system memory;
	 * &hmm_devmem_run.ram is never NULL. Without a process, as in an eviction,
	 * no mmap lock is held.
	 *
	 * A CPU fault depends on the errno that this callback or @copy_wait
	 * returns, or that is in &hmm_devmem_run.error. %-EIO says, like %-ENODEV,
	 * that the device cannot give the data back: the process gets SIGBUS. All
	 * other errnos, such as -EAGAIN or -ENOMEM, say that the device cannot do
	 * so now: the page stays on the device, and the CPU faults again after a
	 * while, until a copy succeeds or the process is killed.
	 */
	int (*copy_to_ram)(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy);

	/**
	 * @copy_wait: Wait until all copies that were started have ended, even
	 * those that fail. After it has returned the device must not access any of
	 * the pages: if a copy does not end, stop the device's DMA. Optional: not
	 * needed when the two callbacks above are synchronous.
	 *
	 * Return: 0, or an errno if all runs of @copy are to be treated as failed.
	 * %-ENODEV says that the device is gone, as for @copy_to_device.
	 */
	int (*copy_wait)(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy);

	/**
	 * @map: Called when the folios in &hmm_devmem_copy.entries have moved to
	 * the device, so that the driver can enter them into the device's page
	 * table. The same locks are held as for @copy_to_device. Cannot fail: for a
	 * folio that the driver does not enter, the device takes a page fault
	 * later. Not called for a mapping that the process may not read
	 * (PROT_NONE), nor in hmm_devmem_mirror_migrate() and
	 * hmm_devmem_mirror_fault(), which call &hmm_devmem_mirror_ops.map. Optional.
	 *
	 * The process can have unmapped a page since the migration began, because
	 * MADV_DONTNEED does not wait for a migration. Such a page will be freed
	 * soon and must not be entered. So do not enter a page if the MMU notifier
	 * got an invalidation of it at any time from before
	 * hmm_devmem_migrate_to_device() was called until the entry is made under the
	 * lock that the notifier takes, unless hmm_devmem_is_migration_to() is true.
	 * That function does not know all invalidations of a migration. A mirror
	 * does: see &struct hmm_devmem_mirror.
	 */
	void (*map)(struct hmm_devmem *devmem, const struct hmm_devmem_copy *copy);

	/**
	 * @get_blocks: Lend blocks of 2 MiB (the size that a PMD maps) to the library:
	 * allocate up to @nr of them in the driver's memory manager, and store the offset
	 * of each, in bytes from the start of device memory, in @offsets. With
	 * @may_evict, evict buffers if there are no free blocks. Blocks need not be
	 * contiguous or cleared.
	 *
	 * Called in process context, may sleep and allocate memory, and may take a
	 * dma_resv. No mmap lock, folio lock or lock of the copy callbacks is held, but
	 * removal and suspend wait until it has returned. It may call
	 * hmm_devmem_withdraw() and hmm_devmem_shrink(). As soon as the manager has
	 * allocated a block it can be asked to evict it; hmm_devmem_withdraw() returns
	 * -EBUSY until the library can give the block back.
	 *
	 * A block that is not aligned, is out of range, or is lent already is an error of
	 * the driver: the library names the first one in the log, and uses and
	 * gives back none of them. Required with %HMM_DEVMEM_SHARED, else not called.
	 *
	 * Return: How many blocks were lent, at most @nr; 0 if there are none.
	 */
	unsigned int (*get_blocks)(struct hmm_devmem *devmem, u64 *offsets,
				   unsigned int nr, bool may_evict);

	/**
	 * @put_block: A block is the driver's again: the block at @offset that
	 * @get_blocks has lent. No page of it is in use, mapped or being copied, and none
	 * was retired. Its content is undefined.
	 *
	 * Called in process context, also in direct reclaim, by hmm_devmem_withdraw(),
	 * hmm_devmem_shrink(), a worker, suspend and removal, with a lock of the library
	 * held that the first two take. So take no lock here that is held when those are
	 * called, and allocate no memory in a way that waits for reclaim. Cannot fail.
	 * Not called any more when @cleanup is: blocks that were not put until then have
	 * pages that processes still have, or that were retired. Required with
	 * %HMM_DEVMEM_SHARED, else not called.
	 */
	void (*put_block)(struct hmm_devmem *devmem, u64 offset);
};

/**
 * DOC: Flags
 *
 * %HMM_DEVMEM_LAZY: the library creates struct pages when a page near them is
 * allocated, and destroys them when they have not been needed for a while or when
 * memory is short. Without this flag an add creates all of them: they take 1/64 of
 * the device's size in system memory, and most of the time that the add takes.
 *
 * %HMM_DEVMEM_DMA: the library maps system memory for DMA by the device, see
 * &hmm_devmem_run.dma_addr. The driver must set the device's DMA mask before the add,
 * and must not make it narrower later. Unless an IOMMU translates for the device, or
 * the device reaches the machine's bounce buffers, the mask must cover all memory or
 * at least all of one zone (ZONE_DMA32 or ZONE_DMA). If it does not cover all memory,
 * pages move back only to such a zone, and pages that the device cannot read are not
 * migrated to it.
 *
 * %HMM_DEVMEM_RECLAIM: when there is not enough device memory for a migration to the
 * device, the library evicts other pages, but none of the range that is migrated. It
 * evicts the pages of 2 MiB of device memory at a time. hmm_devmem_mark_used() helps it
 * to choose those that the device does not need. Pages for which there is still no
 * device memory stay in system memory, as do all such pages without this flag.
 *
 * %HMM_DEVMEM_RUNTIME_PM: hmm_devmem_migrate_to_device() resumes the device before it
 * takes any lock. From then on the library keeps the device from being runtime
 * suspended as long as device pages are in use. So the runtime_suspend callback finds
 * no data on the device, and the copy callbacks find the device resumed. A driver that
 * wants to switch the device off while processes have memory on it that they do not
 * use calls hmm_devmem_evict() first. hmm_devmem_alloc_folio() does not resume the
 * device, and the kill and cleanup callbacks can be called while it is suspended.
 *
 * %HMM_DEVMEM_SHARED: the device's memory belongs to a memory manager of the driver, such as
 * TTM. The library asks for blocks of 2 MiB when it needs them
 * (&hmm_devmem_ops.get_blocks), and gives them back (&hmm_devmem_ops.put_block) when no page
 * of theirs was in use for some seconds, when the driver asks for one
 * (hmm_devmem_withdraw()) or for some (hmm_devmem_shrink()), and at suspend and removal.
 * Offsets and pfns count all of the device's memory, the driver's blocks as well. Struct pages
 * exist as with %HMM_DEVMEM_LAZY, which this flag includes. Size, or resource, must consist
 * of whole blocks. When a migration needs memory, the library uses, in this order: a free
 * block, one that the driver lends without evicting a buffer, one of its own that it
 * evicts (with %HMM_DEVMEM_RECLAIM), and, as long as it has less than
 * &hmm_devmem_desc.reserve, one for which the driver evicts a buffer.
 *
 * All of these flags are for managed drivers only.
 */
#define HMM_DEVMEM_LAZY		BIT(0)
#define HMM_DEVMEM_DMA		BIT(1)
#define HMM_DEVMEM_RECLAIM	BIT(2)
#define HMM_DEVMEM_RUNTIME_PM	BIT(3)
#define HMM_DEVMEM_SHARED	BIT(4)

/**
 * struct hmm_devmem_desc - options for adding device memory
 * @ops: The driver's operations. Required; must stay valid until
 *	&hmm_devmem_ops.cleanup has returned.
 * @size: Size of device memory in bytes, rounded up to whole pages. Ignored if @res
 *	is given.
 * @res: Physical range of memory that the CPU can address coherently
 *	(required for, and only for, MEMORY_DEVICE_COHERENT). It belongs to the
 *	caller: the library neither requests nor releases it.
 * @type: MEMORY_DEVICE_PRIVATE or MEMORY_DEVICE_COHERENT.
 * @flags: HMM_DEVMEM_* flags, or 0.
 * @nid: NUMA node of the struct pages, or NUMA_NO_NODE for the node of the device.
 * @owner: Devmems with the same owner are peers: the device of one may map pages
 *	of the other, and hmm_range_fault() with this
 *	&hmm_range.dev_private_owner does not move them back. NULL: no peers.
 * @driver_data: Initial value of &hmm_devmem.driver_data.
 * @dma_device: With %HMM_DEVMEM_DMA, the device that does the DMA; NULL if it is
 *	the device that the memory is added for. It must exist until the devmem is
 *	removed.
 * @bad_pages: Pages that the library must never allocate, because the device is known
 *	to have lost their content. Each entry is the offset of any byte of such a page,
 *	in bytes from the start of device memory. In any order; not needed after the
 *	call. Only for managed drivers.
 * @nr_bad_pages: Number of entries of @bad_pages.
 * @reserve: With %HMM_DEVMEM_SHARED, how much device memory the library can claim from the
 *	driver's buffers, in bytes, rounded down to whole blocks of 2 MiB. As long as it has
 *	less, &hmm_devmem_ops.get_blocks may evict; as long as it has no more,
 *	hmm_devmem_shrink() evicts nothing. 0 if the library can claim nothing; more than
 *	the device has counts as all of it.
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
	u64 reserve;
};

/**
 * struct hmm_devmem_left - why pages were not migrated, or not evicted
 * @busy: Number of pages that were locked, pinned, or had other references than mappings,
 *	that were changed or moved meanwhile, or that were not tried because the call ended
 *	early (the caller is being killed, or the devmem is suspended or removed). A later
 *	call can succeed.
 * @no_device_memory: Number of pages for which there was no device memory. With
 *	%HMM_DEVMEM_SHARED also those for which there was no memory for struct pages. 0 in
 *	an eviction.
 * @no_memory: Number of pages for which the kernel had no memory. In an eviction: no memory
 *	to move the pages to. In a migration to the device: for pages that were never touched,
 *	no memory for page tables, or the memory cgroup of the process is at its limit; no
 *	memory to note which pages must not be evicted (%HMM_DEVMEM_RECLAIM); or, without
 *	%HMM_DEVMEM_SHARED, no memory for struct pages.
 * @not_copied: Number of pages that the driver failed to copy, that could not be mapped for
 *	DMA, or whose device page was lost meanwhile (hmm_devmem_poison()).
 * @not_suitable: Number of pages that cannot move: those without a mapping, in a mapping
 *	whose pages do not move, or where the process has no page and the library must not
 *	provide one (PROT_NONE, userfaultfd); pages of files, swapped out, out of the device's
 *	reach, on another device, or used by a device exclusively. 0 in an eviction.
 *
 * In pages of PAGE_SIZE. Each page that is left has exactly one reason: the sum is what
 * hmm_devmem_evict() returns, and what hmm_devmem_migrate() returns less than the pages of
 * the range. Where several tasks work on the same pages at the same time, the sum is
 * right, but a page that was left for another reason can count as busy.
 */
struct hmm_devmem_left {
	unsigned long busy;
	unsigned long no_device_memory;
	unsigned long no_memory;
	unsigned long not_copied;
	unsigned long not_suitable;
};

/**
 * struct hmm_devmem_request - a request to move memory of a process to the device
 * @mm: The process; the caller has at least mmgrab()bed it.
 * @start: User virtual address, page aligned, inclusive.
 * @end: User virtual address, page aligned, exclusive.
 * @ctx: Context for the device folios, each of which takes a reference; or NULL.
 * @priv: For use by the driver: &hmm_devmem_copy.priv in every callback of this call.
 * @left: Filled in by hmm_devmem_migrate(): why pages of the range are not on the device.
 *
 * The library does not write the other fields, and needs none of them after the call.
 */
struct hmm_devmem_request {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	struct hmm_devmem_context *ctx;
	void *priv;
	struct hmm_devmem_left left;
};

/**
 * struct hmm_devmem_stats - counters of a devmem since it was added
 * @allocated: Device pages allocated, in pages of PAGE_SIZE like the fields below.
 * @freed: Device pages freed. @allocated - @freed are in use.
 * @to_device: Pages migrated to the device, including those that were only cleared.
 * @to_ram: Pages migrated to system memory, for any reason.
 * @faults: CPU faults on device pages (a number of faults, not of pages).
 * @fault_pages: Pages migrated to system memory by these faults; part of @to_ram.
 * @evicted: Pages migrated to system memory by eviction; part of @to_ram.
 * @copy_errors: Pages that were not migrated because the driver failed to copy
 *	them, or because they could not be mapped for DMA.
 * @lost: Pages whose data the device has lost, see hmm_devmem_poison().
 * @device_faults: Page faults of the device that have moved pages to it, as served by
 *	hmm_devmem_mirror_fault() (a number of faults, not of pages).
 * @device_fault_pages: Pages migrated to the device by these faults; part of @to_device.
 *	All but one for each fault were brought along.
 * @device_fault_used: How many of @device_fault_pages the device is known to have used:
 *	the one that each fault was about, and those that a fault brought along if the
 *	device took another fault right behind the last of them. The device can have
 *	used more.
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
	u64 device_faults;
	u64 device_fault_pages;
	u64 device_fault_used;
};

/**
 * struct hmm_devmem - memory of one device, or a part of it that was added separately
 * @device: The device that the memory was added for.
 * @ops: The driver's operations.
 * @resource: The reserved physical range; larger than the device's memory if
 *	the kernel reserves in larger units.
 * @pfn_first: First pfn of device memory.
 * @pfn_last: One past the last pfn, despite its name: the range is
 *	[@pfn_first, @pfn_last).
 * @type: MEMORY_DEVICE_PRIVATE or MEMORY_DEVICE_COHERENT.
 * @owner: For &hmm_range.dev_private_owner and &migrate_vma.pgmap_owner.
 * @driver_data: For use by the driver, which also locks it where it has to. The
 *	library sets it once, in the add, and does not access it afterwards.
 * @to_device: Only its address is used, as &mmu_notifier_range.owner of invalidations by a
 *	migration to this devmem, see hmm_devmem_is_migration_to(). It has no value.
 *
 * The library allocates and frees this structure. It is valid memory from a successful
 * add until the driver is detached from @device and every hmm_devmem_get() was followed
 * by an hmm_devmem_put(). hmm_devmem_remove() does not free it: a function that is called
 * with a removed devmem returns -ENODEV, or does nothing if it returns no errno, and
 * accesses nothing that belongs to the driver.
 *
 * All fields but @driver_data are set by the add and do not change until removal, so
 * reading them needs no lock. They are read-only for drivers. Drivers must not use @device
 * and @resource after removal.
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
	char to_device;
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

long hmm_devmem_migrate(struct hmm_devmem *devmem,
			struct hmm_devmem_request *req);
long hmm_devmem_migrate_to_device(struct hmm_devmem *devmem,
				  struct mm_struct *mm,
				  unsigned long start, unsigned long end,
				  struct hmm_devmem_context *ctx);
long hmm_devmem_migrate_to_ram(struct hmm_devmem *devmem,
			       struct mm_struct *mm,
			       unsigned long start, unsigned long end);
long hmm_devmem_evict(struct hmm_devmem *devmem, unsigned long pfn_first,
		      unsigned long nr_pages, struct hmm_devmem_left *left);
struct page *hmm_devmem_run_page(const struct hmm_devmem_run *run, unsigned int i);
void hmm_devmem_mark_used(struct hmm_devmem *devmem, unsigned long pfn,
			  unsigned long nr);
u64 hmm_devmem_shrink(struct hmm_devmem *devmem, u64 bytes);
int hmm_devmem_withdraw(struct hmm_devmem *devmem, u64 offset);
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
 * hmm_devmem_is_migration_to() - Is an invalidation caused by a migration to a device?
 * @devmem: The device memory.
 * @range: The argument of the MMU notifier.
 *
 * hmm_devmem_migrate_to_device() moves pages of system memory only. If this function
 * returns true, the driver may keep the entries in the device's page table for pages
 * that are on @devmem already, and must remove all other entries of the range. If it
 * returns false, the driver must remove all entries of the range. This function is for
 * drivers with an MMU notifier of their own; a mirror (struct hmm_devmem_mirror) calls it
 * for the driver.
 *
 * Context: Any.
 * Return: True for an invalidation by hmm_devmem_migrate_to_device(@devmem); false for
 * others, and for those that core raises on behalf of the migration when it splits large
 * folios or unmaps pages by rmap.
 */
static inline bool
hmm_devmem_is_migration_to(const struct hmm_devmem *devmem,
			   const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_MIGRATE &&
	       range->owner == &devmem->to_device;
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

static inline long hmm_devmem_migrate(struct hmm_devmem *devmem,
				      struct hmm_devmem_request *req)
{
	return -EOPNOTSUPP;
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
				    unsigned long nr_pages,
				    struct hmm_devmem_left *left)
{
	return -EOPNOTSUPP;
}

static inline struct page *hmm_devmem_run_page(const struct hmm_devmem_run *run,
					       unsigned int i)
{
	return NULL;
}

static inline void hmm_devmem_mark_used(struct hmm_devmem *devmem,
					unsigned long pfn, unsigned long nr)
{
}

static inline u64 hmm_devmem_shrink(struct hmm_devmem *devmem, u64 bytes)
{
	return 0;
}

static inline int hmm_devmem_withdraw(struct hmm_devmem *devmem, u64 offset)
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
 * @ctx: The context, embedded in a structure of the caller.
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
 * hmm_devmem_context_get() - Take a reference to a context
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
 * hmm_devmem_context_put() - Drop a reference to a context
 * @ctx: The context, or NULL. The caller must not use it after this.
 *
 * Context: Any.
 */
static inline void hmm_devmem_context_put(struct hmm_devmem_context *ctx)
{
	if (ctx && refcount_dec_and_test(&ctx->refs))
		ctx->release(ctx);
}

#endif /* _LINUX_HMM_DEVMEM_H */
