// SPDX-License-Identifier: GPL-2.0
/*
 * Adding device memory to the kernel, and removing it.
 */

/**
 * DOC: Overview
 *
 * A device's memory that the CPU cannot address gets struct pages, so that pages
 * of a process can live there. hmm_devmem_add() reserves a range of physical
 * addresses that nothing else uses and makes it ZONE_DEVICE memory. A *managed*
 * driver, which says how to copy in &struct hmm_devmem_ops, needs to call
 * nothing else but hmm_devmem_migrate_to_device(): CPU faults bring pages back,
 * and hmm_devmem_remove() brings back all. A *classic* driver uses the range
 * [pfn_first, pfn_last) itself.
 *
 * The life of a devmem::
 *
 *   add ─► live ─remove─► kill ──► evict ──► cleanup ──► removed
 *                                    │
 *                                    └─ pages that cannot be moved:
 *                                       zombie until they are free
 *
 * When an add fails, at whatever step, neither kill nor cleanup is called.
 *
 * Three counts say how long something is there. &hmm_devmem.ref keeps the driver from
 * being told that it may go: removal waits for it. hmm_devmem.kref keeps the physical
 * range, and what is known of its pages, for the driver until removal and for each
 * segment. hmm_devmem.handles keeps the memory of the struct hmm_devmem itself: for
 * the driver until it is detached, for the range, and for each hmm_devmem_get(). So
 * whoever is late has a pointer to something that says -ENODEV, and not to another
 * devmem that was given the same address.
 */

/**
 * DOC: Locking
 *
 * Who removes a devmem is decided by one cmpxchg of hmm_devmem.remover; all others
 * wait for a completion. No lock is held.
 *
 * &hmm_devmem.ref is held around every callback into the driver but kill and
 * cleanup. It is killed after eviction, so that CPU faults bring pages home
 * while eviction is going on; then removal waits until no callback is running.
 *
 * hmm_devmem.intake (a per-CPU rwsem) is held for reading while pages are
 * migrated to the device. Removal and suspend take it for writing, after no more
 * pages can be allocated, so that every migration has come to its end before
 * eviction, and give it back at once. A process can keep its mmap lock for ever, in
 * a fault that a FUSE server or userfaultfd is to serve; so that lock is taken first,
 * and given back together with the intake and the reference on &hmm_devmem.ref
 * whenever a migration pauses.
 *
 * hmm_devmem.handout (a per-CPU rwsem) is held for reading by hmm_devmem_alloc_folio()
 * from before it takes pages out of the allocator until they look like pages in use,
 * and while it gets more struct pages. It is only tried: the caller can have locks that
 * removal waits for. Removal takes it for writing, after eviction, and gives it back at
 * once: from then on it can see which pages are in use, and no more come.
 *
 * hmm_devmem.suspend_lock (a mutex) is held by suspend, during eviction as well,
 * and by resume.
 *
 * hmm_devmem.segments_lock (a rwsem) is held for writing while struct pages come
 * and go, and for reading by what looks for pages by pfn: eviction and poison.
 *
 * ``names_lock`` (a mutex, private to debugfs.c) makes names of folders unique.
 *
 * ``segments_list_lock`` (a mutex, private to segment.c) protects the list of all
 * segments of all devmems. Nothing is taken inside it.
 *
 * The allocator's locks are leaf locks and safe in any context (see Allocator).
 * hmm_devmem.power_lock (a spinlock) protects whether the devmem keeps its device
 * on, and who needs that. The device is never resumed under a lock of the library.
 *
 * CPU faults take no other lock of the library. Core holds the mmap lock for
 * reading and the lock of the faulting folio there. The order is::
 *
 *   hmm_devmem.suspend_lock, or hmm_devmem.handout
 *     hmm_devmem.segments_lock
 *       mmap lock (not together with the two above)
 *         hmm_devmem.intake
 *           folio lock
 *             driver's locks (copy and map callbacks)
 *     hmm_devmem_pcp.lock
 *       hmm_devmem_alloc.lock
 *
 * Memory reclaim, and the MMU notifiers that it calls, come between the mmap lock
 * and the allocator's locks. lockdep.c tells lockdep all that at boot.
 */

/**
 * DOC: Driver contract
 *
 * - After hmm_devmem_remove() has returned nothing of the driver's is called or
 *   looked at. What races with it, or comes later, fails with -ENODEV, gets no page,
 *   or moves nothing.
 * - hmm_devmem_remove() takes mmap locks of no process but folio locks of all,
 *   and waits for the driver's callbacks: it is not to be called with a lock
 *   that those, or an MMU notifier, take.
 * - The copy callbacks may sleep and wait for the device, but not for a CPU fault
 *   and not for memory that could be reclaimed only by migrating the very pages
 *   that they are called for.
 * - A copy has failed unless it is known to have succeeded. What was not copied
 *   stays where it was; no one ever sees the destination.
 * - MMU notifier invalidations are to be honoured whatever their reason, but see
 *   hmm_devmem_is_migration_to(). What is to be entered into the device's page
 *   table must not have been invalidated meanwhile: see &hmm_devmem_ops.map.
 * - With %HMM_DEVMEM_RUNTIME_PM, removal comes before pm_runtime_disable().
 * - A driver that removes its devmem itself does so before it is detached from
 *   the device, which removes what is left. The pointer is valid until the driver is
 *   detached; whoever may use it later, an open file for instance, has an
 *   hmm_devmem_get() and ends with hmm_devmem_put().
 * - Nothing in a page may point to an object that can go away before the page:
 *   use a context.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/mutex.h>
#include <linux/numa.h>
#include <linux/overflow.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/swap.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

#define HMM_DEVMEM_FLAGS	(HMM_DEVMEM_LAZY | HMM_DEVMEM_DMA | \
				 HMM_DEVMEM_RECLAIM | HMM_DEVMEM_RUNTIME_PM)

static bool ops_are_classic(const struct hmm_devmem_ops *ops,
			    enum memory_type type)
{
	return !ops->copy_to_device && !ops->copy_to_ram && ops->free &&
	       (ops->fault || type == MEMORY_DEVICE_COHERENT);
}

static int check_desc(const struct hmm_devmem_desc *desc)
{
	if (!desc || !desc->ops)
		return -EINVAL;
	if (desc->type != MEMORY_DEVICE_PRIVATE &&
	    desc->type != MEMORY_DEVICE_COHERENT)
		return -EOPNOTSUPP;
	if (desc->flags & ~HMM_DEVMEM_FLAGS)
		return -EOPNOTSUPP;
	if (desc->flags && !hmm_devmem_ops_managed(desc->ops))
		return -EINVAL;
	if (desc->nr_bad_pages &&
	    (!desc->bad_pages || !hmm_devmem_ops_managed(desc->ops)))
		return -EINVAL;
	if (!hmm_devmem_ops_managed(desc->ops) &&
	    !ops_are_classic(desc->ops, desc->type))
		return -EINVAL;
	if (desc->type == MEMORY_DEVICE_PRIVATE ? !!desc->res : !desc->res)
		return -EINVAL;
	if (desc->nid != NUMA_NO_NODE &&
	    (desc->nid < 0 || desc->nid >= MAX_NUMNODES ||
	     !node_online(desc->nid)))
		return -EINVAL;
	return 0;
}

/* Reserve physical addresses that are used by nothing else. */
static int reserve_range(struct hmm_devmem *devmem, u64 size,
			 unsigned long flags)
{
	const struct range limits = mhp_get_pluggable_range(false);
	struct resource *res;
	const char *name;
	u64 rounded;
	int ret;

	if (!size)
		return -ENODATA;
	/* Two steps: to a page what we use, to a section what is reserved. */
	if (check_add_overflow(size, (u64)PAGES_PER_SECTION << PAGE_SHIFT,
			       &rounded))
		return -EOVERFLOW;
	if (rounded > range_len(&limits))
		return -ERANGE;
	ret = flags & HMM_DEVMEM_LAZY ? 0 : hmm_devmem_memmap_fits(rounded);
	if (ret)
		return ret;

	/* A zombie's range outlives the device. */
	name = kstrdup(dev_name(devmem->device), GFP_KERNEL);
	if (!name)
		return -ENOMEM;
	res = request_free_mem_region(&iomem_resource, size, name);
	if (IS_ERR(res)) {
		kfree(name);
		return PTR_ERR(res);
	}

	devmem->resource = res;
	devmem->pfn_first = PHYS_PFN(res->start);
	devmem->pfn_last = devmem->pfn_first + PFN_UP(size);
	return 0;
}

/*
 * Not pfn_valid(), which is also true for what is near memory that the machine has
 * booted with.
 */
static bool has_struct_page(unsigned long pfn)
{
	struct mem_section *section;

	if (pfn_to_section_nr(pfn) >= NR_MEM_SECTIONS)
		return false;
	section = __pfn_to_section(pfn);
	/* As pfn_valid(): the bitmap goes with the section. */
	guard(preempt)();
	return valid_section(section) && pfn_section_valid(section, pfn);
}

/*
 * Core looks at the ends of a range only, and warns. A pagemap has at least the
 * size of our step. One that is going away is not found any more, but has struct
 * pages until shortly before its end.
 */
static bool range_has_pagemap(const struct range *range)
{
	struct dev_pagemap *pagemap;
	u64 addr;

	for (addr = range->start; addr <= range->end;
	     addr += memremap_compat_align()) {
		if (has_struct_page(PHYS_PFN(addr)))
			return true;
		pagemap = get_dev_pagemap(PHYS_PFN(addr));
		if (pagemap) {
			put_dev_pagemap(pagemap);
			return true;
		}
	}
	return false;
}

/* Use a range that the driver brought along. */
static int check_range(struct hmm_devmem *devmem, struct resource *res,
		       unsigned long flags)
{
	const struct range range = { .start = res->start, .end = res->end };
	const struct range limits = mhp_get_pluggable_range(true);
	const u64 size = resource_size(res);

	if (!size)
		return -ENODATA;
	if (range.end < range.start)
		return -EOVERFLOW;
	if (!IS_ALIGNED(range.start | size, memremap_compat_align()))
		return -EADDRNOTAVAIL;
	if (!range_contains(&limits, &range))
		return -ERANGE;
	if (region_intersects(range.start, size, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_DISJOINT)
		return -ENXIO;
	if (hmm_devmem_range_has_segment(&range) || range_has_pagemap(&range)) {
		/*
		 * If core's batches for mlock have the last reference (see evict.c), it
		 * goes now, and the next try succeeds.
		 */
		lru_add_drain_all();
		return -EBUSY;
	}

	devmem->resource = res;
	devmem->pfn_first = PHYS_PFN(range.start);
	devmem->pfn_last = PHYS_PFN(range.end + 1);
	return flags & HMM_DEVMEM_LAZY ? 0 : hmm_devmem_memmap_fits(size);
}

static void devmem_ref_release(struct percpu_ref *ref)
{
	complete(&container_of(ref, struct hmm_devmem, ref)->completion);
}

/* Undo reserve_range(). */
static void release_range(struct hmm_devmem *devmem)
{
	const char *name;

	if (!devmem->resource || devmem->type != MEMORY_DEVICE_PRIVATE)
		return;
	name = devmem->resource->name;
	release_mem_region(devmem->resource->start,
			   resource_size(devmem->resource));
	kfree(name);
}

/* Nobody has the pointer any more. */
static void free_devmem(struct kref *kref)
{
	struct hmm_devmem *devmem = container_of(kref, struct hmm_devmem, handles);

	hmm_devmem_alloc_destroy(devmem->alloc);
	free_percpu(devmem->stats);
	percpu_free_rwsem(&devmem->handout);
	percpu_free_rwsem(&devmem->intake);
	percpu_ref_exit(&devmem->ref);
	kfree(devmem);
}

/**
 * hmm_devmem_get() - Keep the pointer to a devmem valid
 * @devmem: The device memory. The caller has a reference already, or knows that the
 *	driver cannot be detached from the device at the moment, or has a page of
 *	@devmem in use (see hmm_devmem_from_page()).
 *
 * Keeps the memory of @devmem and nothing else: it can be removed all the same, and
 * its driver detached. What is called then returns -ENODEV, or does nothing.
 *
 * Context: Any.
 */
void hmm_devmem_get(struct hmm_devmem *devmem)
{
	kref_get(&devmem->handles);
}
EXPORT_SYMBOL_GPL(hmm_devmem_get);

/**
 * hmm_devmem_put() - The end of hmm_devmem_get()
 * @devmem: The device memory. Not to be used after this, unless there is another
 *	reference or the driver is attached still.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_put(struct hmm_devmem *devmem)
{
	might_sleep();
	kref_put(&devmem->handles, free_devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_put);

/* The last of driver and segments is done with the range. */
void hmm_devmem_release(struct kref *kref)
{
	struct hmm_devmem *devmem = container_of(kref, struct hmm_devmem, kref);

	/* What is left of it refuses to allocate, as long as there is a pointer. */
	hmm_devmem_alloc_clear(devmem->alloc);
	bitmap_free(devmem->ending);
	devmem->ending = NULL;
	kvfree(devmem->segments);
	devmem->segments = NULL;
	devmem->nr_segments = 0;
	release_range(devmem);
	devmem->resource = NULL;
	hmm_devmem_put(devmem);
}

/**
 * hmm_devmem_create() - Allocate a devmem that has no memory yet
 * @device: Its device.
 * @desc: What it is to be; was checked.
 *
 * Context: Process context, may sleep.
 * Return: The devmem, with one reference on its &hmm_devmem.kref that
 * hmm_devmem_release() ends, or NULL if there is no memory.
 */
struct hmm_devmem *hmm_devmem_create(struct device *device,
				     const struct hmm_devmem_desc *desc)
{
	struct hmm_devmem *devmem;

	devmem = kzalloc_obj(*devmem);
	if (!devmem)
		return NULL;
	kref_init(&devmem->handles);
	kref_init(&devmem->kref);
	init_completion(&devmem->completion);
	init_completion(&devmem->removed);
	devmem->device = device;
	devmem->ops = desc->ops;
	devmem->has_free = desc->ops->free;
	devmem->type = desc->type;
	devmem->owner = desc->owner ?: devmem;
	devmem->driver_data = desc->driver_data;
	devmem->flags = desc->flags;
	mutex_init(&devmem->suspend_lock);
	hmm_devmem_power_init(devmem);

	if (percpu_ref_init(&devmem->ref, devmem_ref_release, 0, GFP_KERNEL))
		goto err_free;
	if (percpu_init_rwsem(&devmem->intake))
		goto err_exit_ref;
	if (percpu_init_rwsem(&devmem->handout))
		goto err_free_intake;
	devmem->stats = alloc_percpu(struct hmm_devmem_stats_pcpu);
	if (!devmem->stats)
		goto err_free_handout;
	return devmem;

err_free_handout:
	percpu_free_rwsem(&devmem->handout);
err_free_intake:
	percpu_free_rwsem(&devmem->intake);
err_exit_ref:
	percpu_ref_exit(&devmem->ref);
err_free:
	kfree(devmem);
	return NULL;
}

static int desc_nid(struct device *device, const struct hmm_devmem_desc *desc)
{
	int nid = desc->nid;

	if (nid == NUMA_NO_NODE)
		nid = dev_to_node(device);
	return nid != NUMA_NO_NODE && node_online(nid) ? nid : NUMA_NO_NODE;
}

static unsigned long bad_pfn(const struct hmm_devmem *devmem, u64 offset)
{
	return devmem->pfn_first + PHYS_PFN(offset);
}

static int check_bad_pages(const struct hmm_devmem *devmem,
			   const struct hmm_devmem_desc *desc)
{
	const u64 size = PFN_PHYS((u64)devmem->pfn_last - devmem->pfn_first);
	unsigned int i;

	for (i = 0; i < desc->nr_bad_pages; i++)
		if (desc->bad_pages[i] >= size)
			return -EINVAL;
	return 0;
}

/* Nobody can have allocated any of them. */
static int retire_bad_pages(struct hmm_devmem *devmem,
			    const struct hmm_devmem_desc *desc)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < desc->nr_bad_pages; i++)
		ret = hmm_devmem_alloc_retire_new(devmem->alloc,
						  bad_pfn(devmem, desc->bad_pages[i]));
	if (ret)
		hmm_devmem_segments_release(devmem);
	return ret;
}

static int populate_devmem(struct hmm_devmem *devmem,
			   const struct hmm_devmem_desc *desc)
{
	int ret;

	ret = hmm_devmem_dma_init(devmem, desc);
	if (ret)
		return ret;
	devmem->nid = desc_nid(devmem->device, desc);
	ret = desc->res ? check_range(devmem, desc->res, desc->flags) :
			  reserve_range(devmem, desc->size, desc->flags);
	if (!ret)
		ret = check_bad_pages(devmem, desc);
	if (!ret)
		ret = hmm_devmem_segments_init(devmem, desc->flags);
	return ret ?: retire_bad_pages(devmem, desc);
}

static void teardown_devmem(struct hmm_devmem *devmem)
{
	const struct hmm_devmem_ops *ops = devmem->ops;
	struct hmm_devmem_left left;

	trace_hmm_devmem_remove(devmem);
	hmm_devmem_debugfs_remove(devmem);
	if (hmm_devmem_managed(devmem))
		hmm_devmem_alloc_kill(devmem->alloc);
	if (ops->kill)
		ops->kill(devmem);
	hmm_devmem_wait_for_intake(devmem);
	hmm_devmem_evict_all(devmem, false, &left);

	percpu_ref_kill(&devmem->ref);
	hmm_devmem_wait_for_handout(devmem);
	wait_for_completion(&devmem->completion);
	hmm_devmem_power_release(devmem);
	hmm_devmem_unmap_lost(devmem);
	/* No callback is running or will run: the pages have no driver any more. */
	WRITE_ONCE(devmem->gone, true);
	hmm_devmem_segments_release(devmem);

	if (ops->cleanup)
		ops->cleanup(devmem);
	kref_put(&devmem->kref, hmm_devmem_release);
}

/*
 * The first to come removes it; all others return when that is over. But for the
 * first one himself, in a callback: he cannot wait for his own end. Should a task of
 * today have the address of a remover that has exited, there is nothing to wait for.
 */
static void remove_once(struct hmm_devmem *devmem)
{
	const struct task_struct *remover = cmpxchg(&devmem->remover, NULL, current);

	if (!remover) {
		teardown_devmem(devmem);
		complete_all(&devmem->removed);
	} else if (remover != current) {
		wait_for_completion(&devmem->removed);
	}
}

static void remove_on_detach(void *data)
{
	remove_once(data);
	hmm_devmem_put(data);
}

/**
 * hmm_devmem_add_desc() - Add device memory, with all there is to choose
 * @device: The device. The memory is removed when its driver is detached, if
 *	hmm_devmem_remove() was not called before.
 * @desc: What to add; not needed after the call.
 *
 * Physical addresses for MEMORY_DEVICE_PRIVATE are found by
 * request_free_mem_region(), which takes the highest free ones that the kernel
 * can map; Documentation/mm/hmm_devmem/design.rst says what follows.
 *
 * Context: Process context, may sleep.
 * Return:
 * * the devmem, or an ERR_PTR() and nothing is changed:
 * * %-ENODEV - @device is NULL
 * * %-EINVAL - @desc or its ops are NULL, a required callback is missing, a
 *   resource is missing or given for the wrong type, no such NUMA node, a flag
 *   or a list of bad pages for managed drivers only, a bad page that the device does
 *   not have, or %HMM_DEVMEM_DMA for a device without a DMA mask
 * * %-EOPNOTSUPP - unknown type or flag
 * * %-ENODATA - size 0
 * * %-EOVERFLOW - size overflows when it is rounded up
 * * %-ERANGE - no free range of that size, or the resource is out of reach
 * * %-EIO - with %HMM_DEVMEM_DMA, the device's DMA mask reaches no memory that pages
 *   could come home to, see there
 * * %-EADDRNOTAVAIL - the resource is not aligned to memremap_compat_align()
 * * %-ENXIO - the resource overlaps system memory
 * * %-EBUSY - the resource has struct pages already
 * * %-ENOMEM - out of memory; struct pages take 1/64 of @desc->size
 */
struct hmm_devmem *hmm_devmem_add_desc(struct device *device,
				       const struct hmm_devmem_desc *desc)
{
	struct hmm_devmem *devmem;
	struct range range;
	int ret;

	if (!device)
		return ERR_PTR(-ENODEV);
	ret = check_desc(desc);
	if (ret)
		return ERR_PTR(ret);
	devmem = hmm_devmem_create(device, desc);
	if (!devmem)
		return ERR_PTR(-ENOMEM);
	ret = populate_devmem(devmem, desc);
	if (ret)
		goto err_put;
	ret = devm_add_action(device, remove_on_detach, devmem);
	if (ret)
		goto err_release;
	/* For the driver, until it is detached. */
	hmm_devmem_get(devmem);

	range = DEFINE_RANGE(PFN_PHYS(devmem->pfn_first),
			     PFN_PHYS(devmem->pfn_last) - 1);
	dev_info(device, "device memory at %pra\n", &range);
	hmm_devmem_debugfs_add(devmem);
	trace_hmm_devmem_add(devmem);
	return devmem;

err_release:
	hmm_devmem_segments_release(devmem);
err_put:
	kref_put(&devmem->kref, hmm_devmem_release);
	return ERR_PTR(ret);
}
EXPORT_SYMBOL_GPL(hmm_devmem_add_desc);

/**
 * hmm_devmem_add() - Add memory that the CPU cannot address
 * @ops: The driver's operations; must stay valid until cleanup has returned.
 * @device: The device. The memory is removed when its driver is detached, if
 *	hmm_devmem_remove() was not called before.
 * @size: Bytes of device memory, rounded up to whole pages.
 *
 * Finds an empty range of physical addresses, makes it ZONE_DEVICE memory with
 * struct pages, and does nothing else.
 *
 * Context: Process context, may sleep.
 * Return: The devmem or an ERR_PTR(), see hmm_devmem_add_desc().
 */
struct hmm_devmem *hmm_devmem_add(const struct hmm_devmem_ops *ops,
				  struct device *device, unsigned long size)
{
	const struct hmm_devmem_desc desc = {
		.ops = ops,
		.size = size,
		.type = MEMORY_DEVICE_PRIVATE,
		.nid = NUMA_NO_NODE,
	};

	return hmm_devmem_add_desc(device, &desc);
}
EXPORT_SYMBOL_GPL(hmm_devmem_add);

/**
 * hmm_devmem_add_resource() - Add memory that the CPU can address coherently
 * @ops: The driver's operations; must stay valid until cleanup has returned.
 * @device: The device, as for hmm_devmem_add().
 * @res: The physical range. It remains the caller's, who has reserved it and
 *	releases it after cleanup.
 *
 * Context: Process context, may sleep.
 * Return: The devmem or an ERR_PTR(), see hmm_devmem_add_desc().
 */
struct hmm_devmem *hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
					   struct device *device,
					   struct resource *res)
{
	const struct hmm_devmem_desc desc = {
		.ops = ops,
		.res = res,
		.type = MEMORY_DEVICE_COHERENT,
		.nid = NUMA_NO_NODE,
	};

	return hmm_devmem_add_desc(device, &desc);
}
EXPORT_SYMBOL_GPL(hmm_devmem_add_resource);

/**
 * hmm_devmem_remove() - Remove device memory
 * @devmem: What an add returned; NULL and an ERR_PTR() are ignored.
 *
 * Calls &hmm_devmem_ops.kill, brings all pages back to system memory and calls
 * &hmm_devmem_ops.cleanup. Always ends: a page that a driver or the kernel has a
 * reference to is tried again for a second after the last page that came home, ten
 * seconds at most, without those in which pages come home. A device that fails 16 copies
 * in a row with -EIO, in several places of its memory, or takes a second for pages that
 * do not come home, is not asked any more. What is left then is lost to its processes, which
 * get SIGBUS, and the log says which pages these are. For a dead device (see
 * hmm_devmem_mark_dead()) it does not try.
 *
 * Can be called again, and by several at once, also while the driver core detaches
 * the driver, which does the same: one of them removes the memory, and the others
 * return when cleanup has returned. Only a call from the kill or cleanup callback of
 * this very removal returns at once.
 *
 * Does not free @devmem, see there: what is called with it afterwards fails with
 * -ENODEV, or does nothing.
 *
 * Context: Process context, may sleep. The caller has no lock that a callback
 * of the driver takes, and is in no callback but those two.
 */
void hmm_devmem_remove(struct hmm_devmem *devmem)
{
	if (IS_ERR_OR_NULL(devmem))
		return;
	/* The driver can be detached while this waits for the end of it. */
	hmm_devmem_get(devmem);
	remove_once(devmem);
	hmm_devmem_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_remove);

static u64 sum_events(const struct hmm_devmem *devmem,
		      enum hmm_devmem_event event)
{
	unsigned int cpu;
	u64 sum = 0;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(devmem->stats, cpu)->events[event]);
	return sum;
}

/**
 * hmm_devmem_large_pages() - Number of pages in large folios
 * @devmem: The device memory.
 *
 * Context: Any context.
 * Return: Number of pages of PAGE_SIZE.
 */
u64 hmm_devmem_large_pages(const struct hmm_devmem *devmem)
{
	return sum_events(devmem, HMM_DEVMEM_LARGE_ALLOCATED) -
	       sum_events(devmem, HMM_DEVMEM_LARGE_GONE);
}

/**
 * hmm_devmem_get_stats() - Read the counters
 * @devmem: The device memory; can have been removed.
 * @stats: Filled in. The counters are read one after the other.
 *
 * Context: Any context.
 */
void hmm_devmem_get_stats(struct hmm_devmem *devmem,
			  struct hmm_devmem_stats *stats)
{
	*stats = (struct hmm_devmem_stats) {
		.allocated = sum_events(devmem, HMM_DEVMEM_ALLOCATED),
		.freed = sum_events(devmem, HMM_DEVMEM_FREED),
		.to_device = sum_events(devmem, HMM_DEVMEM_MOVED_TO_DEVICE),
		.to_ram = sum_events(devmem, HMM_DEVMEM_MOVED_TO_RAM),
		.faults = sum_events(devmem, HMM_DEVMEM_FAULTS),
		.fault_pages = sum_events(devmem, HMM_DEVMEM_FAULT_PAGES),
		.evicted = sum_events(devmem, HMM_DEVMEM_EVICTED),
		.copy_errors = sum_events(devmem, HMM_DEVMEM_COPY_ERRORS),
		.lost = sum_events(devmem, HMM_DEVMEM_LOST),
	};
}
EXPORT_SYMBOL_GPL(hmm_devmem_get_stats);

static int __init hmm_devmem_init(void)
{
	int ret;

	hmm_devmem_debugfs_init();
	ret = hmm_devmem_alloc_init();
	if (!ret)
		ret = hmm_devmem_segments_boot();
	if (!ret)
		ret = hmm_devmem_txn_init();
	return ret;
}
subsys_initcall(hmm_devmem_init);
