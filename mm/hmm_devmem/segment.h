/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The parts of a devmem that have struct pages: see segment.c.
 */
#ifndef _MM_HMM_DEVMEM_SEGMENT_H
#define _MM_HMM_DEVMEM_SEGMENT_H

#include <linux/align.h>
#include <linux/compiler.h>
#include <linux/hmm_devmem.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "devmem.h"

/**
 * struct hmm_devmem_segment - a part of the range that has struct pages
 * @pagemap: What core knows of it.
 * @devmem: The device memory; the segment has a reference on &hmm_devmem_priv.kref.
 * @idx: Its index in &hmm_devmem_priv.segments, and in &hmm_devmem_pool.segments.
 * @idle: How often in a row the shrink worker found no page of it in use.
 * @is_zombie: It has outlived its driver, because pages of it are in use.
 * @first_busy: In a zombie: no page before this pfn is in use.
 * @end: The work that ends the segment; it does nothing while a zombie has a page in use.
 * @contexts: In a zombie, until all contexts were dropped: a bit for each page that has
 *	a context.
 * @node: On the list of all segments; protected by segments_list_lock.
 *
 * @pagemap, @devmem and @idx are set when the segment is created; removal replaces the owner
 * in @pagemap, without a lock. @idle belongs to the shrink worker, @first_busy to the @end
 * work, @contexts to removal. @is_zombie is set once, by removal: see zombie_let_go().
 */
struct hmm_devmem_segment {
	struct dev_pagemap pagemap;
	struct hmm_devmem *devmem;
	unsigned int idx;
	unsigned int idle;
	bool is_zombie;
	unsigned long first_busy;
	struct work_struct end;
	unsigned long *contexts;
	struct list_head node;
};

int hmm_devmem_segments_init(struct hmm_devmem *devmem, unsigned long flags);
void hmm_devmem_segments_release(struct hmm_devmem *devmem);
int hmm_devmem_segments_grow(struct hmm_devmem *devmem, unsigned int seq);
int hmm_devmem_segments_add(struct hmm_devmem *devmem, unsigned int i);
void hmm_devmem_segment_page_freed(struct hmm_devmem_segment *segment);
unsigned long hmm_devmem_segment_busy(struct hmm_devmem_segment *segment);
unsigned long hmm_devmem_segments_busy(struct hmm_devmem *devmem);
int hmm_devmem_memmap_fits(u64 size);
bool hmm_devmem_range_has_segment(const struct range *range);
int hmm_devmem_segments_boot(void);
#if IS_ENABLED(CONFIG_KUNIT)
void *hmm_devmem_memremap(struct dev_pagemap *pagemap, int nid);
bool hmm_devmem_page_is_locked(const struct page *page);
bool hmm_devmem_zombie_page_busy(const struct page *page);
#endif

/* Where the first segment begins, which is where the first block begins. */
static inline unsigned long
hmm_devmem_segments_base(const struct hmm_devmem *devmem)
{
	return ALIGN_DOWN(devmem->pfn_first, HMM_DEVMEM_BLOCK_NR);
}

/* The index of the segment of @pfn, which is one of @devmem. */
static inline unsigned long
hmm_devmem_segment_idx(const struct hmm_devmem *devmem, unsigned long pfn)
{
	return (pfn - hmm_devmem_segments_base(devmem)) >> priv(devmem)->segment_shift;
}

/*
 * The segment of any pfn; NULL if the pfn is not of @devmem or has no struct page.
 * The caller has allocated the page, or holds &hmm_devmem_priv.segments_lock.
 */
static inline struct hmm_devmem_segment *
hmm_devmem_segment_at(struct hmm_devmem *devmem, unsigned long pfn)
{
	if (!hmm_devmem_has_pfn(devmem, pfn))
		return NULL;
	return priv(devmem)->segments[hmm_devmem_segment_idx(devmem, pfn)];
}

/* The struct dev_pagemap of a page that the caller has allocated. */
static inline struct dev_pagemap *
hmm_devmem_allocated_pagemap(struct hmm_devmem *devmem, unsigned long pfn)
{
	return &priv(devmem)->segments[hmm_devmem_segment_idx(devmem, pfn)]->pagemap;
}

/* Are there parts of the range for which struct pages can be created? */
static inline bool hmm_devmem_can_grow(struct hmm_devmem *devmem)
{
	return READ_ONCE(priv(devmem)->nr_populated) < priv(devmem)->nr_segments;
}

/*
 * The sequence number to pass to hmm_devmem_segments_grow(). Read it before you look for
 * free pages.
 */
static inline unsigned int hmm_devmem_segments_seq(struct hmm_devmem *devmem)
{
	return raw_seqcount_begin(&priv(devmem)->segments_seq);
}

/*
 * There was no free page: can hmm_devmem_segments_grow() help? True also if a segment was
 * created or removed since @seq was read: the pool and @nr_populated do not change at the
 * same time, so that otherwise an empty device could be taken for a full one.
 */
static inline bool hmm_devmem_may_grow(struct hmm_devmem *devmem, unsigned int seq)
{
	return hmm_devmem_can_grow(devmem) ||
	       read_seqcount_retry(&priv(devmem)->segments_seq, seq);
}

#endif /* _MM_HMM_DEVMEM_SEGMENT_H */
