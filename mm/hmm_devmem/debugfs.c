// SPDX-License-Identifier: GPL-2.0
/*
 * What can be seen in debugfs below hmm_devmem/<device>/.
 */

/**
 * DOC: Debugfs
 *
 * Each devmem has a folder below ``hmm_devmem/`` with the name of its device; if
 * a device has several, the name of the others ends in their first pfn. Counts
 * are in pages.
 *
 * stats
 *   One line for each counter of &struct hmm_devmem_stats, and where pages are:
 *   ``used``, ``cached``, ``free`` and ``retired`` add up to ``total`` but for
 *   pages that are both used and retired; ``large`` of the used ones are in
 *   large folios. They are counted in the allocator's bitmaps, or by it.
 * segments
 *   One line for each segment that has struct pages: its pfns, how many of its
 *   pages are in use.
 * blocks
 *   How many blocks there are with how many pages in use: a histogram.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/log2.h>
#include <linux/rwsem.h>
#include <linux/seq_file.h>

#include "internal.h"

static struct dentry *hmm_devmem_root;

static void show_count(struct seq_file *file, const char *name, u64 count)
{
	seq_printf(file, "%-12s %llu\n", name, count);
}

static void show_alloc_stats(struct seq_file *file, struct hmm_devmem *devmem)
{
	struct hmm_devmem_alloc_stats stats;

	hmm_devmem_alloc_get_stats(devmem->alloc, &stats);
	show_count(file, "total", stats.total);
	show_count(file, "used", stats.used);
	show_count(file, "cached", stats.cached);
	show_count(file, "free", stats.free);
	show_count(file, "retired", stats.retired);
	show_count(file, "large", hmm_devmem_large_pages(devmem));
}

static int stats_show(struct seq_file *file, void *unused)
{
	struct hmm_devmem *devmem = file->private;
	struct hmm_devmem_stats stats;

	hmm_devmem_get_stats(devmem, &stats);
	show_count(file, "allocated", stats.allocated);
	show_count(file, "freed", stats.freed);
	show_count(file, "to_device", stats.to_device);
	show_count(file, "to_ram", stats.to_ram);
	show_count(file, "faults", stats.faults);
	show_count(file, "fault_pages", stats.fault_pages);
	show_count(file, "evicted", stats.evicted);
	show_count(file, "copy_errors", stats.copy_errors);
	show_count(file, "lost", stats.lost);
	show_count(file, "segments", READ_ONCE(devmem->nr_populated));
	if (devmem->alloc)
		show_alloc_stats(file, devmem);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int segments_show(struct seq_file *file, void *unused)
{
	struct hmm_devmem *devmem = file->private;
	unsigned int i;

	guard(rwsem_read)(&devmem->segments_lock);
	for (i = 0; i < devmem->nr_segments; i++) {
		struct hmm_devmem_segment *segment = devmem->segments[i];

		if (segment)
			seq_printf(file, "%pra in use %lu idle %u\n",
				   &segment->pagemap.range,
				   hmm_devmem_segment_busy(segment),
				   segment->idle);
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(segments);

/* Bucket 0 is for no page, bucket n for up to 2^(n-1) pages. */
static void show_histogram(struct seq_file *file, const unsigned long *buckets,
			   unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		seq_printf(file, "<= %-6lu %lu\n", i ? BIT(i - 1) : 0, buckets[i]);
}

static int blocks_show(struct seq_file *file, void *unused)
{
	unsigned long buckets[HMM_DEVMEM_BLOCK_ORDER + 2] = { };
	struct hmm_devmem *devmem = file->private;
	unsigned long pfn;

	if (!devmem->alloc)
		return 0;
	guard(rwsem_read)(&devmem->segments_lock);
	for (pfn = devmem->pfn_first; pfn < devmem->pfn_last;
	     pfn = ALIGN(pfn + 1, HMM_DEVMEM_BLOCK_NR)) {
		int used = hmm_devmem_alloc_block_used(devmem->alloc, pfn);

		if (used >= 0)
			buckets[used ? order_base_2(used) + 1 : 0]++;
	}
	show_histogram(file, buckets, ARRAY_SIZE(buckets));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(blocks);

/**
 * hmm_devmem_debugfs_add() - Show a devmem in debugfs
 * @devmem: The device memory.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_debugfs_add(struct hmm_devmem *devmem)
{
	const char *name = dev_name(devmem->device);
	struct dentry *taken;
	char unique[64];

	taken = debugfs_lookup(name, hmm_devmem_root);
	if (taken) {
		dput(taken);
		snprintf(unique, sizeof(unique), "%s.%lx", name,
			 devmem->pfn_first);
		name = unique;
	}
	devmem->debugfs = debugfs_create_dir(name, hmm_devmem_root);
	debugfs_create_file("stats", 0400, devmem->debugfs, devmem, &stats_fops);
	debugfs_create_file("segments", 0400, devmem->debugfs, devmem,
			    &segments_fops);
	debugfs_create_file("blocks", 0400, devmem->debugfs, devmem, &blocks_fops);
}

/**
 * hmm_devmem_debugfs_remove() - Show it no longer
 * @devmem: The device memory.
 *
 * Context: Process context, may sleep until nobody reads the files any more.
 */
void hmm_devmem_debugfs_remove(struct hmm_devmem *devmem)
{
	debugfs_remove(devmem->debugfs);
}

/**
 * hmm_devmem_debugfs_init() - Create the folder
 *
 * Context: Process context, once at boot.
 */
void __init hmm_devmem_debugfs_init(void)
{
	hmm_devmem_root = debugfs_create_dir("hmm_devmem", NULL);
	hmm_devmem_fail_debugfs_init(hmm_devmem_root);
}
