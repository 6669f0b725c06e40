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
 */

/**
 * DOC: Locking
 *
 * One cmpxchg of hmm_devmem_priv.remover decides which task removes a devmem; all others
 * wait for a completion. No lock is held.
 *
 * hmm_devmem_priv.ref is held around every callback into the driver but kill and
 * cleanup, and put_block during a removal. It is killed after eviction, so that CPU
 * faults bring pages back while eviction is going on; then removal waits until no
 * callback is running.
 *
 * hmm_devmem_priv.intake (a per-CPU rwsem) is held for reading while pages are migrated
 * to the device. Removal and suspend take it for writing, after no more pages can be
 * allocated, so that every migration has come to its end before eviction, and
 * release it at once. A process can keep its mmap lock for ever, in a fault that a
 * FUSE server or userfaultfd is to serve; so a migration takes that lock first, and
 * releases it together with the intake and the reference on hmm_devmem_priv.ref whenever
 * it pauses.
 *
 * hmm_devmem_priv.handout (a per-CPU rwsem) is held for reading by
 * hmm_devmem_alloc_folio() from before it takes pages out of the pool until they look
 * like pages in use, and while it gets more struct pages. It only tries to take it: the
 * caller can hold locks that removal waits for. Removal takes it for writing, after
 * eviction, and releases it at once: from then on it can see which pages are in use, and
 * no more are added.
 *
 * hmm_devmem_priv.suspend_lock (a mutex) is held by suspend, during eviction as well,
 * and by resume.
 *
 * hmm_devmem_priv.segments_lock (a rwsem) is held for writing while struct pages are
 * created or removed, for no longer than one segment takes, and for reading by code that
 * looks for pages by pfn: eviction and poison. It is not taken with the mmap lock or a
 * folio lock held: creating struct pages takes the lock of memory hotplug, inside which
 * core takes folio locks.
 *
 * ``segments_list_lock`` (a mutex, private to segment.c) protects the list of all
 * segments of all devmems.
 *
 * &hmm_devmem_hold.lock (a mutex) protects what the policy of eviction knows.
 *
 * &hmm_devmem_backing.lock (a mutex) protects the owner of each block (%HMM_DEVMEM_SHARED).
 * &hmm_devmem_ops.put_block is called with it held, so the lock of the driver's memory
 * manager is taken inside. hmm_devmem_withdraw() and hmm_devmem_shrink() can be called in
 * memory reclaim. So no memory is allocated under these locks in a way that waits for
 * reclaim, and a block that is withdrawn keeps its struct pages without segments_lock. The
 * intake is held while &hmm_devmem_ops.get_blocks is called, and none of the other locks
 * but hmm_devmem_priv.handout and, in a device fault, &hmm_devmem_mirror.turn.
 *
 * &hmm_devmem_mirror.lock (a mutex) is held around the callbacks of a mirror. MMU
 * notifiers take it. &hmm_devmem_mirror.turn (a rwsem) is held for reading by device faults
 * that migrate, and for writing by one that an invalidation has made begin again, while it
 * looks at the CPU's page table.
 *
 * hmm_devmem_priv.power_lock (a spinlock) protects whether the devmem keeps its device
 * on, and how many migrations need that. A migration takes it before and after all
 * others. The device is never resumed under a lock of the library.
 *
 * &hmm_devmem_pcp.lock and &hmm_devmem_pool.blocks_lock (spinlocks, with interrupts off)
 * protect the free pages that one CPU keeps, and the blocks of the pool. They are safe in
 * any context, see Pool.
 *
 * ``names_lock`` (a mutex, private to debugfs.c) makes names of folders unique, and
 * ``mirrors_lock`` (a spinlock, private to mirror_debug.c) protects the list of the
 * mirrors that are checked. Both are taken alone: no other lock of the library is held
 * then, or taken inside.
 *
 * CPU faults take no other lock of the library than those of the pool and, in MMU
 * notifiers, those of mirrors. Core holds the mmap lock for reading and the lock of the
 * faulting folio there. The order is::
 *
 *   hmm_devmem_priv.suspend_lock, hmm_devmem_priv.handout
 *     hmm_devmem_priv.segments_lock
 *       segments_list_lock
 *       mmap lock
 *         hmm_devmem_priv.intake
 *           folio lock
 *             driver's locks, in copy and map callbacks
 *               memory reclaim
 *                 hmm_devmem_hold.lock
 *                 hmm_devmem_backing.lock
 *                   hmm_devmem_pcp.lock
 *                 MMU notifiers
 *                   hmm_devmem_mirror.lock
 *                   hmm_devmem_pcp.lock
 *                     hmm_devmem_pool.blocks_lock
 *   hmm_devmem_mirror.turn
 *     mmap lock
 *   hmm_devmem_priv.power_lock
 *     hmm_devmem_pcp.lock
 *   names_lock, mirrors_lock
 *
 * lockdep.c takes them in this order at boot, and a check compares it with the list. The
 * check also finds a lock of the library that is not in the list.
 */

/**
 * DOC: Driver contract
 *
 * - After hmm_devmem_remove() has returned, the library neither calls the driver nor
 *   uses its data. A call that races with it, or comes later, fails with -ENODEV,
 *   gets no page, or moves nothing.
 * - hmm_devmem_remove() takes no mmap lock, but locks of folios of any process, and
 *   waits for the driver's callbacks: the driver must not call it with a lock held
 *   that those, or an MMU notifier, take.
 * - The copy callbacks may sleep and wait for the device, but not for a CPU fault
 *   and not for memory that could be reclaimed only by migrating the very pages
 *   that they are called for.
 * - A copy has failed unless it is known to have succeeded. Pages that were not
 *   copied stay where they were; no process ever sees the destination.
 * - The driver must honour MMU notifier invalidations whatever their reason, but see
 *   hmm_devmem_is_migration_to(). It must not enter pages into the device's page
 *   table that were invalidated meanwhile: see &hmm_devmem_ops.map. A mirror does
 *   both for the driver.
 * - With %HMM_DEVMEM_SHARED, the driver owns the blocks that the library does not have. It
 *   must not use others, and lends none that it uses. Blocks that have not been put when
 *   cleanup is called contain a retired page, or pages of a zombie. Private memory of a
 *   zombie is not accessed any more; the driver must not use coherent memory of one.
 * - With %HMM_DEVMEM_RUNTIME_PM, removal comes before pm_runtime_disable().
 * - A driver that removes its devmem itself does so before it is detached from
 *   the device, which removes what is left. The pointer is valid until the driver is
 *   detached; what may use it later, an open file for instance, needs an
 *   hmm_devmem_get(), and an hmm_devmem_put() in the end.
 * - Nothing in a page may point to an object that can go away before the page:
 *   use a context.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/numa.h>

#include <trace/events/hmm_devmem.h>

#include "backing.h"
#include "debugfs.h"
#include "devmem.h"
#include "dma.h"
#include "evict.h"
#include "poison.h"
#include "pool.h"
#include "power.h"
#include "range.h"
#include "segment.h"
#include "txn.h"

#define HMM_DEVMEM_FLAGS	(HMM_DEVMEM_LAZY | HMM_DEVMEM_DMA | \
				 HMM_DEVMEM_RECLAIM | HMM_DEVMEM_RUNTIME_PM | \
				 HMM_DEVMEM_SHARED)

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
	if (desc->flags & HMM_DEVMEM_SHARED ?
	    !desc->ops->get_blocks || !desc->ops->put_block : !!desc->reserve)
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

/* Allocation has not begun, so none of these pages is in use. */
static int retire_bad_pages(struct hmm_devmem *devmem,
			    const struct hmm_devmem_desc *desc)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < desc->nr_bad_pages; i++)
		ret = hmm_devmem_pool_retire_new(priv(devmem)->pool,
						 bad_pfn(devmem, desc->bad_pages[i]));
	if (ret)
		hmm_devmem_segments_release(devmem);
	return ret;
}

/* With blocks on loan, no block must be cut off at an end of the range. */
static int create_backing(struct hmm_devmem *devmem, u64 reserve)
{
	struct hmm_devmem_priv *priv = priv(devmem);

	if (!(priv->flags & HMM_DEVMEM_SHARED))
		return 0;
	if (!IS_ALIGNED(devmem->pfn_first | devmem->pfn_last, HMM_DEVMEM_BLOCK_NR))
		return -EINVAL;
	priv->backing = hmm_devmem_backing_create(hmm_devmem_nr_blocks(devmem), reserve);
	return priv->backing ? 0 : -ENOMEM;
}

static int populate_devmem(struct hmm_devmem *devmem,
			   const struct hmm_devmem_desc *desc)
{
	const unsigned long flags = priv(devmem)->flags;
	int ret;

	ret = hmm_devmem_dma_init(devmem, desc);
	if (ret)
		return ret;
	priv(devmem)->nid = desc_nid(devmem->device, desc);
	ret = desc->res ? hmm_devmem_range_check(devmem, desc->res, flags) :
			  hmm_devmem_range_reserve(devmem, desc->size, flags);
	if (!ret)
		ret = check_bad_pages(devmem, desc);
	if (!ret)
		ret = create_backing(devmem, desc->reserve);
	if (!ret)
		ret = hmm_devmem_segments_init(devmem, flags);
	return ret ?: retire_bad_pages(devmem, desc);
}

static void teardown_devmem(struct hmm_devmem *devmem)
{
	const struct hmm_devmem_ops *ops = devmem->ops;
	struct hmm_devmem_left left;

	trace_hmm_devmem_remove(devmem);
	hmm_devmem_debugfs_remove(devmem);
	if (hmm_devmem_managed(devmem))
		hmm_devmem_pool_kill(priv(devmem)->pool);
	if (ops->kill)
		ops->kill(devmem);
	hmm_devmem_wait_for_intake(devmem);
	hmm_devmem_evict_all(devmem, false, &left);

	percpu_ref_kill(&priv(devmem)->ref);
	hmm_devmem_wait_for_handout(devmem);
	wait_for_completion(&priv(devmem)->idle);
	hmm_devmem_power_release(devmem);
	hmm_devmem_unmap_lost(devmem);
	/* Of the driver's callbacks, only put_block and cleanup are called from here on. */
	WRITE_ONCE(priv(devmem)->gone, true);
	hmm_devmem_segments_release(devmem);
	hmm_devmem_backing_put_all(devmem);
	hmm_devmem_backing_report(devmem);

	if (ops->cleanup)
		ops->cleanup(devmem);
	kref_put(&priv(devmem)->kref, hmm_devmem_release);
}

/*
 * The first task that calls this removes the devmem; all others return when that is
 * over. In a callback the first task calls it again, and cannot wait for itself. A later
 * task can have the address of a remover that has exited: then the removal is over.
 */
static void remove_once(struct hmm_devmem *devmem)
{
	const struct task_struct *remover = cmpxchg(&priv(devmem)->remover, NULL, current);

	if (!remover) {
		teardown_devmem(devmem);
		complete_all(&priv(devmem)->removed);
	} else if (remover != current) {
		wait_for_completion(&priv(devmem)->removed);
	}
}

static void remove_on_detach(void *data)
{
	remove_once(data);
	hmm_devmem_put(data);
}

/**
 * hmm_devmem_add_desc() - Add device memory, with all properties
 * @device: The device. The memory is removed when its driver is detached, if
 *	hmm_devmem_remove() was not called before.
 * @desc: What to add; not needed after the call.
 *
 * Physical addresses for MEMORY_DEVICE_PRIVATE are found by
 * request_free_mem_region(), which takes the highest free ones that the kernel
 * can map. Documentation/mm/hmm_devmem/design.rst lists the consequences.
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
 *   could be brought back to: see DOC: Flags
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
	kref_put(&priv(devmem)->kref, hmm_devmem_release);
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
 * @res: The physical range. It remains the caller's: reserved
 *	before, and released after cleanup.
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
 * &hmm_devmem_ops.cleanup. Always ends: pages that the driver or the kernel has
 * references to are tried again until no page has come back for a second, for ten
 * seconds at most, not counting the time in which pages come back. This also gives up
 * when 16 copies in a row, in several places of device memory, have failed with -EIO, or
 * when a second was spent on pages that did not come back. Pages that are left then are
 * lost to their processes, which get SIGBUS, and the log says which pages these are. No
 * page of a dead device (see hmm_devmem_mark_dead()) comes back.
 *
 * To bring pages back never starts the OOM killer. If any are left, this allocates the
 * memory to list them in: a few KiB, and a bit for each page of the device. As removal
 * cannot fail, that can start it.
 *
 * Can be called again, and by several tasks at once, also while the driver core
 * detaches the driver, which removes the memory as well: one of them removes the
 * memory, and the others return when cleanup has returned. Only a call from the kill
 * or cleanup callback of this very removal returns at once.
 *
 * Does not free @devmem: a function that is called with it afterwards fails with
 * -ENODEV, or does nothing.
 *
 * Context: Process context, may sleep. The caller holds no lock that a callback
 * of the driver takes, and is in no callback but those two.
 */
void hmm_devmem_remove(struct hmm_devmem *devmem)
{
	if (IS_ERR_OR_NULL(devmem))
		return;
	/* The driver can be detached while this waits for another task's removal. */
	hmm_devmem_get(devmem);
	remove_once(devmem);
	hmm_devmem_put(devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_remove);

static int __init hmm_devmem_init(void)
{
	int ret;

	hmm_devmem_debugfs_init();
	ret = hmm_devmem_pool_init();
	if (!ret)
		ret = hmm_devmem_segments_boot();
	if (!ret)
		ret = hmm_devmem_txn_init();
	return ret;
}
subsys_initcall(hmm_devmem_init);
