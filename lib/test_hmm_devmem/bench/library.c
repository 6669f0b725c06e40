// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest managed driver there can be: it only copies, so that what is measured is
 * the library.
 */

#include <linux/err.h>
#include <linux/mm.h>
#include <linux/numa.h>

#include "bench.h"

static struct hmm_devmem *library_devmem;

static int library_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	unsigned int i;

	for (i = 0; i < copy->nr_runs; i++) {
		struct hmm_devmem_run *run = &copy->runs[i];

		run->error = bench_copy(run->offset,
					run->ram, run->nr_pages, copy->dir);
	}
	return 0;
}

static const struct hmm_devmem_ops library_ops = {
	.copy_to_device = library_copy,
	.copy_to_ram = library_copy,
};

static int library_add(struct device *device, u64 size, unsigned long flags)
{
	const struct hmm_devmem_desc desc = {
		.ops = &library_ops,
		.size = size,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = flags,
		.nid = NUMA_NO_NODE,
	};

	library_devmem = hmm_devmem_add_desc(device, &desc);
	return PTR_ERR_OR_ZERO(library_devmem);
}

static int eager_add(struct device *device, u64 size)
{
	return library_add(device, size, 0);
}

static int lazy_add(struct device *device, u64 size)
{
	return library_add(device, size, HMM_DEVMEM_LAZY);
}

static void library_remove(void)
{
	hmm_devmem_remove(library_devmem);
}

static struct folio *library_alloc(unsigned int order)
{
	return hmm_devmem_alloc_folio(library_devmem, order, NULL);
}

static long library_migrate(struct mm_struct *mm, unsigned long start,
			    unsigned long end, enum hmm_devmem_dir dir)
{
	if (dir == HMM_DEVMEM_TO_RAM)
		return hmm_devmem_migrate_to_ram(library_devmem, mm, start, end);
	return hmm_devmem_migrate_to_device(library_devmem, mm, start, end, NULL);
}

/**
 * bench_library_evict() - Evict all memory
 *
 * Context: Process context, may sleep. The device memory is of the kind eager or lazy.
 * Return: Number of pages that are still there, or an errno.
 */
long bench_library_evict(void)
{
	const struct hmm_devmem *devmem = library_devmem;

	return hmm_devmem_evict(library_devmem, devmem->pfn_first,
				devmem->pfn_last - devmem->pfn_first, NULL);
}

const struct bench_kind bench_eager = {
	.add = eager_add,
	.remove = library_remove,
	.alloc = library_alloc,
	.migrate = library_migrate,
};

const struct bench_kind bench_lazy = {
	.add = lazy_add,
	.remove = library_remove,
	.alloc = library_alloc,
	.migrate = library_migrate,
};
