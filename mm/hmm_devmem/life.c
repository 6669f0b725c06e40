// SPDX-License-Identifier: GPL-2.0
/*
 * References to a devmem: what each of them keeps, and what the last one frees.
 */

/**
 * DOC: Lifetime
 *
 * There are three reference counts. hmm_devmem_priv.ref keeps the driver: removal waits
 * for it before it calls cleanup. hmm_devmem_priv.kref keeps the physical range, and the
 * state of its pages: the driver has a reference until removal, and so has each
 * segment. hmm_devmem_priv.handles keeps the memory of the struct hmm_devmem itself: the
 * driver has a reference until it is detached, and so have the range and each
 * hmm_devmem_get(). So a caller that is late has a pointer to a removed devmem, for
 * which functions return -ENODEV, and not to another devmem at the same address.
 */

#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/export.h>
#include <linux/ioport.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/percpu-refcount.h>
#include <linux/percpu-rwsem.h>
#include <linux/slab.h>

#include "backing.h"
#include "devmem.h"
#include "pool.h"
#include "power.h"
#include "reclaim.h"
#include "stats.h"

/* Undo hmm_devmem_range_reserve(). */
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

/* The last reference to the structure was dropped. */
static void free_devmem(struct kref *kref)
{
	struct hmm_devmem *devmem = &container_of(kref, struct hmm_devmem_priv, handles)->pub;

	hmm_devmem_backing_destroy(priv(devmem)->backing);
	hmm_devmem_hold_destroy(priv(devmem)->hold);
	hmm_devmem_pool_destroy(priv(devmem)->pool);
	free_percpu(priv(devmem)->stats);
	percpu_free_rwsem(&priv(devmem)->handout);
	percpu_free_rwsem(&priv(devmem)->intake);
	percpu_ref_exit(&priv(devmem)->ref);
	kfree(priv(devmem));
}

/**
 * hmm_devmem_get() - Keep the pointer to a devmem valid
 * @devmem: The device memory. The caller has a reference already, or knows that the
 *	driver cannot be detached from the device at the moment, or has a page of
 *	@devmem in use (see hmm_devmem_from_page()).
 *
 * Keeps the structure and nothing else: @devmem can be removed all the same, and its
 * driver detached. A function that is called with it then returns -ENODEV, or does
 * nothing.
 *
 * Context: Any.
 */
void hmm_devmem_get(struct hmm_devmem *devmem)
{
	kref_get(&priv(devmem)->handles);
}
EXPORT_SYMBOL_GPL(hmm_devmem_get);

/**
 * hmm_devmem_put() - Undo hmm_devmem_get()
 * @devmem: The device memory. Not to be used after this, unless there is another
 *	reference or the driver is still attached.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_put(struct hmm_devmem *devmem)
{
	might_sleep();
	kref_put(&priv(devmem)->handles, free_devmem);
}
EXPORT_SYMBOL_GPL(hmm_devmem_put);

/**
 * hmm_devmem_release() - Release the range after the driver and all segments
 * @kref: &hmm_devmem_priv.kref, which is 0 now.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_release(struct kref *kref)
{
	struct hmm_devmem *devmem = &container_of(kref, struct hmm_devmem_priv, kref)->pub;

	/* The pool itself stays until the last hmm_devmem_put(), and refuses. */
	hmm_devmem_pool_clear(priv(devmem)->pool);
	bitmap_free(priv(devmem)->ending);
	priv(devmem)->ending = NULL;
	kvfree(priv(devmem)->segments);
	priv(devmem)->segments = NULL;
	priv(devmem)->nr_segments = 0;
	release_range(devmem);
	devmem->resource = NULL;
	hmm_devmem_put(devmem);
}

static void devmem_ref_release(struct percpu_ref *ref)
{
	complete(&container_of(ref, struct hmm_devmem_priv, ref)->idle);
}

/**
 * hmm_devmem_create() - Allocate a devmem that has no memory yet
 * @device: Its device.
 * @desc: The descriptor; it was checked.
 *
 * Context: Process context, may sleep.
 * Return: The devmem, with one reference on its &hmm_devmem_priv.kref, or NULL if there is
 * no memory. kref_put() with hmm_devmem_release() drops the reference.
 */
struct hmm_devmem *hmm_devmem_create(struct device *device,
				     const struct hmm_devmem_desc *desc)
{
	struct hmm_devmem_priv *priv;
	struct hmm_devmem *devmem;

	priv = kzalloc_obj(*priv);
	if (!priv)
		return NULL;
	devmem = &priv->pub;
	kref_init(&priv->handles);
	kref_init(&priv->kref);
	init_completion(&priv->idle);
	init_completion(&priv->removed);
	devmem->device = device;
	devmem->ops = desc->ops;
	priv->has_free = desc->ops->free;
	devmem->type = desc->type;
	devmem->owner = desc->owner ?: devmem;
	devmem->driver_data = desc->driver_data;
	priv->flags = desc->flags;
	if (priv->flags & HMM_DEVMEM_SHARED)
		priv->flags |= HMM_DEVMEM_LAZY;
	mutex_init(&priv->suspend_lock);
	hmm_devmem_power_init(devmem);

	if (percpu_ref_init(&priv->ref, devmem_ref_release, 0, GFP_KERNEL))
		goto err_free;
	if (percpu_init_rwsem(&priv->intake))
		goto err_exit_ref;
	if (percpu_init_rwsem(&priv->handout))
		goto err_free_intake;
	priv->stats = alloc_percpu(struct hmm_devmem_stats_pcpu);
	if (!priv->stats)
		goto err_free_handout;
	return devmem;

err_free_handout:
	percpu_free_rwsem(&priv->handout);
err_free_intake:
	percpu_free_rwsem(&priv->intake);
err_exit_ref:
	percpu_ref_exit(&priv->ref);
err_free:
	kfree(priv);
	return NULL;
}
