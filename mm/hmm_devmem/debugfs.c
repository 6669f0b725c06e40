// SPDX-License-Identifier: GPL-2.0
/*
 * The files in debugfs below hmm_devmem/<device>/.
 */

/**
 * DOC: Debugfs
 *
 * Each devmem has a directory below ``hmm_devmem/`` with the name of its device; if
 * a device has several, the names of all but one end in their first pfn. Counts
 * are in pages.
 *
 * stats
 *   One line for each counter of &struct hmm_devmem_stats, and where pages are:
 *   ``used``, ``cached``, ``free`` and ``retired`` add up to ``total`` but for
 *   pages that are both used and retired, and for retired ones that have no
 *   struct page and are not in ``total``; ``large`` of the used ones are in
 *   large folios.
 * segments
 *   One line for each segment that has struct pages: its physical addresses, how many of
 *   its pages are in use, and (``idle``) how often in a row the worker that removes empty
 *   segments has found none in use.
 * blocks
 *   A histogram of the blocks by the number of their pages that are not free: 0, 1, 2,
 *   up to 4, up to 8 and so on. Not free are pages in use, pages in per-CPU caches,
 *   retired pages, and pages that complete a block but that the device does not have.
 *   With %HMM_DEVMEM_SHARED only blocks that the driver has lent.
 *
 * Beside these directories there is one file:
 *
 * evict_wait_s
 *   How many seconds removal and suspend wait for pages in use after the last page has come
 *   back, and spend on a device that does not copy: 1, unless another number is written. 0
 *   counts as 1, and more than 3600 as 3600. They wait ten times as long in all. Other
 *   evictions spend as much on a device that does not copy. Where a task that has a
 *   reference to a page may wait for a CPU for longer than a second, tests write a larger
 *   number.
 *
 * Removal waits for no reader: to read a file that was opened before gives -ENODEV.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/log2.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/seq_file.h>

#include "debugfs.h"
#include "devmem.h"
#include "evict.h"
#include "fail.h"
#include "pool.h"
#include "segment.h"
#include "stats.h"

static struct dentry *hmm_devmem_root;

/* Held while a name is chosen, so that devmems added at the same time get different ones. */
static DEFINE_MUTEX(names_lock);

static void show_count(struct seq_file *file, const char *name, u64 count)
{
	seq_printf(file, "%-12s %llu\n", name, count);
}

static void show_pool_stats(struct seq_file *file, struct hmm_devmem *devmem)
{
	struct hmm_devmem_pool_stats stats;

	hmm_devmem_pool_get_stats(priv(devmem)->pool, &stats);
	show_count(file, "total", stats.total);
	show_count(file, "used", stats.used);
	show_count(file, "cached", stats.cached);
	show_count(file, "free", stats.free);
	show_count(file, "retired", stats.retired);
	show_count(file, "large", hmm_devmem_large_pages(devmem));
}

static void show_stats(struct seq_file *file, struct hmm_devmem *devmem)
{
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
	show_count(file, "device_faults", stats.device_faults);
	show_count(file, "device_fault_pages", stats.device_fault_pages);
	show_count(file, "device_fault_used", stats.device_fault_used);
	show_count(file, "segments", READ_ONCE(priv(devmem)->nr_populated));
	if (priv(devmem)->pool)
		show_pool_stats(file, devmem);
}

static void show_segments(struct seq_file *file, struct hmm_devmem *devmem)
{
	unsigned int i;

	if (priv(devmem)->pool)
		hmm_devmem_pool_drain(priv(devmem)->pool);
	guard(rwsem_read)(&priv(devmem)->segments_lock);
	for (i = 0; i < priv(devmem)->nr_segments; i++) {
		struct hmm_devmem_segment *segment = priv(devmem)->segments[i];

		if (segment)
			seq_printf(file, "%pra in use %lu idle %u\n",
				   &segment->pagemap.range,
				   hmm_devmem_segment_busy(segment),
				   segment->idle);
	}
}

/*
 * Bucket 0 is for no page, bucket n for up to 2^(n-1) pages. A constant, which
 * the size of a block is not everywhere: ppc64 chooses it at boot.
 */
#define HMM_DEVMEM_BUCKETS	(HMM_DEVMEM_MAX_BLOCK_ORDER + 2)

static void show_histogram(struct seq_file *file, const unsigned long *buckets,
			   unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		seq_printf(file, "<= %-6lu %lu\n", i ? BIT(i - 1) : 0, buckets[i]);
}

static void show_blocks(struct seq_file *file, struct hmm_devmem *devmem)
{
	unsigned long buckets[HMM_DEVMEM_BUCKETS] = { };
	unsigned long pfn;

	if (!priv(devmem)->pool)
		return;
	guard(rwsem_read)(&priv(devmem)->segments_lock);
	for (pfn = devmem->pfn_first; pfn < devmem->pfn_last;
	     pfn = ALIGN(pfn + 1, HMM_DEVMEM_BLOCK_NR)) {
		int taken = hmm_devmem_pool_block_taken(priv(devmem)->pool, pfn);

		if (taken >= 0)
			buckets[taken ? order_base_2(taken) + 1 : 0]++;
	}
	show_histogram(file, buckets, HMM_DEVMEM_BLOCK_ORDER + 2);
}

/*
 * debugfs would let removal wait until read() has returned, which can take for ever: the
 * process's buffer may be memory that userfaultfd is to provide. So the files are
 * "unsafe", and removal only waits, for hmm_devmem_priv.ref, while the text is written into
 * the buffer of seq_file.
 */
static int show_live(struct seq_file *file,
		     void (*show)(struct seq_file *file, struct hmm_devmem *devmem))
{
	struct hmm_devmem *devmem = file->private;

	if (!hmm_devmem_ref_tryget_live(devmem))
		return -ENODEV;
	show(file, devmem);
	hmm_devmem_ref_put(devmem);
	return 0;
}

/* debugfs_remove() waits for open(), so @devmem is still valid here. */
static int open_file(struct inode *inode, struct file *file,
		     int (*show)(struct seq_file *file, void *unused))
{
	struct hmm_devmem *devmem = inode->i_private;
	int ret = single_open(file, show, devmem);

	if (!ret)
		hmm_devmem_get(devmem);
	return ret;
}

static int release_file(struct inode *inode, struct file *file)
{
	struct seq_file *seq = file->private_data;

	hmm_devmem_put(seq->private);
	return single_release(inode, file);
}

#define DEFINE_FILE(name)						\
static int name##_show(struct seq_file *file, void *unused)		\
{									\
	return show_live(file, show_##name);				\
}									\
									\
static int name##_open(struct inode *inode, struct file *file)		\
{									\
	return open_file(inode, file, name##_show);			\
}									\
									\
static const struct file_operations name##_fops = {			\
	.open = name##_open,						\
	.read = seq_read,						\
	.llseek = seq_lseek,						\
	.release = release_file,					\
}

DEFINE_FILE(stats);
DEFINE_FILE(segments);
DEFINE_FILE(blocks);

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

	guard(mutex)(&names_lock);
	taken = debugfs_lookup(name, hmm_devmem_root);
	if (taken) {
		dput(taken);
		snprintf(unique, sizeof(unique), "%s.%lx", name,
			 devmem->pfn_first);
		name = unique;
	}
	priv(devmem)->debugfs = debugfs_create_dir(name, hmm_devmem_root);
	debugfs_create_file_unsafe("stats", 0400, priv(devmem)->debugfs, devmem,
				   &stats_fops);
	debugfs_create_file_unsafe("segments", 0400, priv(devmem)->debugfs, devmem,
				   &segments_fops);
	debugfs_create_file_unsafe("blocks", 0400, priv(devmem)->debugfs, devmem,
				   &blocks_fops);
}

/**
 * hmm_devmem_debugfs_remove() - Remove a devmem from debugfs
 * @devmem: The device memory.
 *
 * To read a file that was opened before gives -ENODEV from then on.
 *
 * Context: Process context, may sleep until no open() of the files is under way.
 */
void hmm_devmem_debugfs_remove(struct hmm_devmem *devmem)
{
	debugfs_remove(priv(devmem)->debugfs);
}

/**
 * hmm_devmem_debugfs_init() - Create the folder
 *
 * Context: Process context, once at boot.
 */
void __init hmm_devmem_debugfs_init(void)
{
	hmm_devmem_root = debugfs_create_dir("hmm_devmem", NULL);
	debugfs_create_u32("evict_wait_s", 0600, hmm_devmem_root, &hmm_devmem_evict_wait_s);
	hmm_devmem_fail_debugfs_init(hmm_devmem_root);
}
