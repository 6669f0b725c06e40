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
 *   add ──► live ──remove──► kill ──► evict ──► cleanup ──► gone
 *                                       │
 *                                       └─ pages that cannot be moved:
 *                                          zombie until they are free
 *
 * When an add fails, at whatever step, neither kill nor cleanup is called.
 */

/**
 * DOC: Locking
 *
 * ``devmem_list_lock`` (a mutex, private to core.c) protects the list of all
 * devmems. Taking a devmem off that list decides who removes it. No callback
 * runs under it.
 *
 * &hmm_devmem.ref is held around every callback into the driver but kill and
 * cleanup. It is killed after eviction, so that CPU faults bring pages home
 * while eviction is going on; then removal waits until no callback is running.
 *
 * hmm_devmem.intake (a per-CPU rwsem) is held for reading while pages are
 * migrated to the device. Removal and suspend take it for writing, after no more
 * pages can be allocated, so that every migration has come to its end before
 * eviction, and give it back at once.
 *
 * hmm_devmem.suspend_lock (a mutex) is held by suspend, during eviction as well,
 * and by resume.
 *
 * hmm_devmem.segments_lock (a rwsem) is held for writing while struct pages come
 * and go, and for reading by what looks for pages by pfn: eviction and poison.
 *
 * ``zombies_lock`` (a mutex, private to segment.c) protects the list of segments
 * that have outlived their driver. Nothing is taken inside it.
 *
 * The allocator's locks are leaf locks and safe in any context (see Allocator).
 * CPU faults take no other lock of the library. Core holds the mmap lock for
 * reading and the lock of the faulting folio there. The order is::
 *
 *   hmm_devmem.suspend_lock
 *     hmm_devmem.intake
 *       hmm_devmem.segments_lock
 *       mmap lock
 *         folio lock
 *         driver's locks (copy and map callbacks)
 *     hmm_devmem_pcp.lock
 *       hmm_devmem_alloc.lock
 *
 * Memory reclaim, and the MMU notifiers that it calls, come between the mmap lock
 * and the allocator's locks. lockdep.c tells lockdep all that at boot.
 */

/**
 * DOC: Driver contract
 *
 * - No device page is to be allocated, and no migration to the device started,
 *   after hmm_devmem_remove() has returned; what races with it fails with
 *   -ENODEV or moves nothing.
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
 *   the device, which removes what is left; the pointer is dead after either.
 * - Nothing in a page may point to an object that can go away before the page:
 *   use a context.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/numa.h>
#include <linux/overflow.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/string.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

#define HMM_DEVMEM_FLAGS	(HMM_DEVMEM_LAZY | HMM_DEVMEM_DMA | \
				 HMM_DEVMEM_RECLAIM | HMM_DEVMEM_RUNTIME_PM)

static DEFINE_MUTEX(devmem_list_lock);
static LIST_HEAD(devmem_list);

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
 * Core looks at the ends of a range only, and warns. A pagemap has at least the
 * size of our step.
 */
static bool range_has_pagemap(const struct range *range)
{
	struct dev_pagemap *pagemap;
	u64 addr;

	for (addr = range->start; addr <= range->end;
	     addr += memremap_compat_align()) {
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
	/* In this order: when core forgets a zombie's pagemap it is on the list. */
	if (range_has_pagemap(&range) || hmm_devmem_range_has_zombie(&range))
		return -EBUSY;

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

/* The last of driver and segments is done with it. */
void hmm_devmem_release(struct kref *kref)
{
	struct hmm_devmem *devmem = container_of(kref, struct hmm_devmem, kref);

	hmm_devmem_alloc_destroy(devmem->alloc);
	kvfree(devmem->segments);
	release_range(devmem);
	free_percpu(devmem->stats);
	percpu_free_rwsem(&devmem->intake);
	percpu_ref_exit(&devmem->ref);
	kfree(devmem);
}

/**
 * hmm_devmem_create() - Allocate a devmem that has no memory yet
 * @device: Its device.
 * @desc: What it is to be; was checked.
 *
 * Context: Process context, may sleep.
 * Return: The devmem, with one reference that hmm_devmem_release() ends, or NULL
 * if there is no memory.
 */
struct hmm_devmem *hmm_devmem_create(struct device *device,
				     const struct hmm_devmem_desc *desc)
{
	struct hmm_devmem *devmem;

	devmem = kzalloc_obj(*devmem);
	if (!devmem)
		return NULL;
	kref_init(&devmem->kref);
	INIT_LIST_HEAD(&devmem->node);
	init_completion(&devmem->completion);
	devmem->device = device;
	devmem->ops = desc->ops;
	devmem->has_free = desc->ops->free;
	devmem->type = desc->type;
	devmem->owner = desc->owner ?: devmem;
	devmem->driver_data = desc->driver_data;
	devmem->flags = desc->flags;
	mutex_init(&devmem->suspend_lock);

	if (percpu_ref_init(&devmem->ref, devmem_ref_release, 0, GFP_KERNEL))
		goto err_free;
	if (percpu_init_rwsem(&devmem->intake))
		goto err_exit_ref;
	devmem->stats = alloc_percpu(struct hmm_devmem_stats_pcpu);
	if (!devmem->stats)
		goto err_free_intake;
	return devmem;

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
	return ret ?: hmm_devmem_segments_init(devmem, desc->flags);
}

/* Whoever takes it off the list removes it. */
static bool unlist_devmem(struct hmm_devmem *devmem)
{
	struct hmm_devmem *pos;

	guard(mutex)(&devmem_list_lock);
	list_for_each_entry(pos, &devmem_list, node) {
		if (pos == devmem) {
			list_del_init(&pos->node);
			return true;
		}
	}
	return false;
}

static void teardown_devmem(struct hmm_devmem *devmem)
{
	const struct hmm_devmem_ops *ops = devmem->ops;
	struct hmm_devmem_left left;
	bool powered = false;

	trace_hmm_devmem_remove(devmem);
	hmm_devmem_debugfs_remove(devmem);
	if (hmm_devmem_managed(devmem))
		hmm_devmem_alloc_kill(devmem->alloc);
	/* Pages come home with power only. */
	if (!READ_ONCE(devmem->dead) && hmm_devmem_power_on(devmem, &powered))
		dev_err(devmem->device, "cannot be resumed to save its memory\n");
	if (ops->kill)
		ops->kill(devmem);
	hmm_devmem_wait_for_intake(devmem);
	hmm_devmem_evict_all(devmem, &left);
	if (powered)
		hmm_devmem_power_put(devmem);

	percpu_ref_kill(&devmem->ref);
	wait_for_completion(&devmem->completion);
	hmm_devmem_segments_release(devmem);

	if (ops->cleanup)
		ops->cleanup(devmem);
	kref_put(&devmem->kref, hmm_devmem_release);
}

static void remove_on_detach(void *data)
{
	if (unlist_devmem(data))
		teardown_devmem(data);
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
 *   for managed drivers only, or %HMM_DEVMEM_DMA for a device without a DMA mask
 * * %-EOPNOTSUPP - unknown type or flag
 * * %-ENODATA - size 0
 * * %-EOVERFLOW - size overflows when it is rounded up
 * * %-ERANGE - no free range of that size, or the resource is out of reach
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

	range = DEFINE_RANGE(PFN_PHYS(devmem->pfn_first),
			     PFN_PHYS(devmem->pfn_last) - 1);
	dev_info(device, "device memory at %pra\n", &range);
	scoped_guard(mutex, &devmem_list_lock) {
		list_add(&devmem->node, &devmem_list);
		hmm_devmem_debugfs_add(devmem);
	}
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
 * @devmem: What an add returned; NULL, an ERR_PTR() and what was removed
 *	before are ignored.
 *
 * Calls &hmm_devmem_ops.kill, brings all pages back to system memory and calls
 * &hmm_devmem_ops.cleanup. Always ends: pages that cannot be moved within about
 * a second (someone has a reference, the device does not copy) are lost to their
 * processes, which get SIGBUS, and the log says which they are. For a dead device
 * (see hmm_devmem_mark_dead()) it does not try.
 *
 * Context: Process context, may sleep. The caller has no lock that a callback
 * of the driver takes.
 */
void hmm_devmem_remove(struct hmm_devmem *devmem)
{
	if (IS_ERR_OR_NULL(devmem) || !unlist_devmem(devmem))
		return;
	/* Not found if the driver core has just taken it to call it. */
	devm_remove_action_nowarn(devmem->device, remove_on_detach, devmem);
	teardown_devmem(devmem);
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
 * @devmem: The device memory.
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
		ret = hmm_devmem_txn_init();
	return ret;
}
subsys_initcall(hmm_devmem_init);
