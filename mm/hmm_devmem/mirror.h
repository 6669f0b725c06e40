/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What migration needs of the mirror, and the mirror's debug checks.
 */
#ifndef _MM_HMM_DEVMEM_MIRROR_H
#define _MM_HMM_DEVMEM_MIRROR_H

#include <linux/bitmap.h>
#include <linux/hmm_devmem_mirror.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/sizes.h>
#include <linux/types.h>

struct hmm_range;
struct task_struct;

/* The end of what a mirror covers, exclusive: the last page, which no process has. */
#define HMM_DEVMEM_MIRROR_END		(ULONG_MAX & PAGE_MASK)
/* Pages of a window of a migration, at most. */
#define HMM_DEVMEM_MIRROR_WINDOW_NR	(SZ_2M >> PAGE_SHIFT)
/* Pages that one fault maps without moving them, at most, if the CPU maps single pages. */
#define HMM_DEVMEM_MIRROR_FAULT_NR	MAX(SZ_64K >> PAGE_SHIFT, 1)

/**
 * struct hmm_devmem_mirror_window - a window of a migration through a mirror
 * @migration: The migration.
 * @start: User virtual address, inclusive.
 * @end: User virtual address, exclusive.
 * @raced: A bit for each page, set if anything else than this migration has invalidated
 *	the page since the window was opened. Such a page must not be mapped for the device.
 */
struct hmm_devmem_mirror_window {
	struct hmm_devmem_mirror_migration *migration;
	unsigned long start;
	unsigned long end;
	DECLARE_BITMAP(raced, HMM_DEVMEM_MIRROR_WINDOW_NR);
};

/**
 * struct hmm_devmem_mirror_migration - a migration to the device through a mirror
 * @node: On &hmm_devmem_mirror.migrations.
 * @mirror: The mirror.
 * @devmem: The device memory that pages migrate to.
 * @task: The task that migrates.
 * @start: User virtual address, inclusive.
 * @end: User virtual address, exclusive.
 * @unsettled: An invalidation of a part of the range, not by this migration, may have
 *	begun before the next window is opened, and not end before core collects it.
 * @forced: A window was opened all the same, after a long wait: do not wait for long again.
 * @windows: The two windows that can be in flight.
 * @want: In a device fault: the address that it is about. Else HMM_DEVMEM_MIRROR_END.
 * @want_write: The device fault is a write.
 * @mapped: Number of pages mapped for the device from @want on.
 * @moved: Number of pages that have moved. Only @task accesses it.
 *
 * On the stack of the task. &hmm_devmem_mirror.lock protects @node, @unsettled, @forced,
 * @windows and @mapped. The other fields but @moved do not change while @node is on the list.
 */
struct hmm_devmem_mirror_migration {
	struct list_head node;
	struct hmm_devmem_mirror *mirror;
	struct hmm_devmem *devmem;
	struct task_struct *task;
	unsigned long start;
	unsigned long end;
	bool unsettled;
	bool forced;
	struct hmm_devmem_mirror_window windows[2];
	unsigned long want;
	bool want_write;
	unsigned long mapped;
	unsigned long moved;
};

/* invalidate.c */

#ifdef CONFIG_HMM_DEVMEM_MIRROR
void hmm_devmem_mirror_begin(struct hmm_devmem_mirror_migration *migration,
			     struct hmm_devmem_mirror *m, struct hmm_devmem *devmem,
			     unsigned long start, unsigned long end);
void hmm_devmem_mirror_end(struct hmm_devmem_mirror_migration *migration);
struct hmm_devmem_mirror_window *
hmm_devmem_mirror_open(struct hmm_devmem_mirror_migration *migration,
		       unsigned long start, unsigned long end,
		       const struct hmm_devmem_mirror_window *in_flight,
		       bool may_wait);
void hmm_devmem_mirror_map(struct hmm_devmem_mirror_window *window,
			   struct hmm_devmem_map_entry *entries, unsigned int nr);
int hmm_devmem_mirror_enter(struct hmm_devmem_mirror *m,
			    const struct hmm_devmem_map_entry *entries,
			    unsigned int nr);
unsigned long hmm_devmem_mirror_reach(const struct hmm_devmem_map_entry *entries,
				      unsigned int nr, unsigned long addr,
				      bool write);
void hmm_devmem_mirror_init_locks(struct hmm_devmem_mirror *m);
#if IS_ENABLED(CONFIG_KUNIT)
void hmm_devmem_mirror_note(struct hmm_devmem_mirror *m, unsigned long start,
			    unsigned long end);
unsigned int hmm_devmem_mirror_drop_raced(const struct hmm_devmem_mirror_window *window,
					  struct hmm_devmem_map_entry *entries,
					  unsigned int nr);
#endif
#else
static inline struct hmm_devmem_mirror_window *
hmm_devmem_mirror_open(struct hmm_devmem_mirror_migration *migration,
		       unsigned long start, unsigned long end,
		       const struct hmm_devmem_mirror_window *in_flight,
		       bool may_wait)
{
	return NULL;
}

static inline void
hmm_devmem_mirror_map(struct hmm_devmem_mirror_window *window,
		      struct hmm_devmem_map_entry *entries, unsigned int nr)
{
}
#endif

/* migrate.c */

long hmm_devmem_migrate_through(struct hmm_devmem *devmem,
				struct hmm_devmem_request *req,
				struct hmm_devmem_mirror_migration *mirror);

/* mirror.c */

#if IS_ENABLED(CONFIG_KUNIT)
int hmm_devmem_mirror_walk(struct hmm_range *range);
void hmm_devmem_mirror_present_run(const unsigned long *pfns, unsigned int nr,
				   unsigned int i, unsigned int *first,
				   unsigned int *last);
#endif

/* mirror_debug.c */

#ifdef CONFIG_HMM_DEVMEM_MIRROR_DEBUG
void hmm_devmem_mirror_debug_init(struct hmm_devmem_mirror *m);
void hmm_devmem_mirror_debug_fini(struct hmm_devmem_mirror *m);
void hmm_devmem_mirror_debug_map(struct hmm_devmem_mirror *m,
				 const struct hmm_devmem_map_entry *entries,
				 unsigned int nr);
void hmm_devmem_mirror_debug_unmap(struct hmm_devmem_mirror *m,
				   unsigned long start, unsigned long end,
				   bool keep_local);
void hmm_devmem_mirror_debug_free(unsigned long pfn, unsigned int order);
#else
static inline void hmm_devmem_mirror_debug_init(struct hmm_devmem_mirror *m)
{
}

static inline void hmm_devmem_mirror_debug_fini(struct hmm_devmem_mirror *m)
{
}

static inline void
hmm_devmem_mirror_debug_map(struct hmm_devmem_mirror *m,
			    const struct hmm_devmem_map_entry *entries,
			    unsigned int nr)
{
}

static inline void
hmm_devmem_mirror_debug_unmap(struct hmm_devmem_mirror *m, unsigned long start,
			      unsigned long end, bool keep_local)
{
}

static inline void hmm_devmem_mirror_debug_free(unsigned long pfn,
						unsigned int order)
{
}
#endif

#endif /* _MM_HMM_DEVMEM_MIRROR_H */
