/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How many pages a fault should bring: see stream.c. Nothing here knows of struct
 * page; pages are user addresses divided by the page size.
 */
#ifndef _MM_HMM_DEVMEM_STREAM_H
#define _MM_HMM_DEVMEM_STREAM_H

#include <linux/bits.h>
#include <linux/types.h>

struct mm_struct;

/**
 * struct hmm_devmem_window - pages that move together
 * @first: The first page.
 * @end: One past the last page.
 */
struct hmm_devmem_window {
	unsigned long first;
	unsigned long end;
};

static inline struct hmm_devmem_window hmm_devmem_window_one(unsigned long page)
{
	return (struct hmm_devmem_window) { .first = page, .end = page + 1 };
}

static inline unsigned long
hmm_devmem_window_pages(struct hmm_devmem_window window)
{
	return window.end - window.first;
}

/* A loop over more arrays than that gets one page in each fault. */
#define HMM_DEVMEM_NR_STREAMS	8

/* Windows do not grow further; callers have smaller limits. */
#define HMM_DEVMEM_STREAM_MAX	BIT(15)

/**
 * struct hmm_devmem_stream - a walk through the memory of a process
 * @mm: The process. Only compared, never dereferenced: it may be gone, and another
 *	process may have got its address.
 * @first: The first page of the last window.
 * @span: Pages of that window, plus one.
 * @next: How many pages the next window has.
 */
struct hmm_devmem_stream {
	const struct mm_struct *mm;
	unsigned long first;
	unsigned long span;
	unsigned long next;
};

/**
 * struct hmm_devmem_streams - the latest walks, and single faults
 * @order: The numbers of all streams, four bits each, the one used last in the
 *	lowest bits.
 * @stream: The streams.
 */
struct hmm_devmem_streams {
	u32 order;
	struct hmm_devmem_stream stream[HMM_DEVMEM_NR_STREAMS];
};

#define HMM_DEVMEM_STREAMS_INIT	{ .order = 0x76543210 }

struct hmm_devmem_stream *
hmm_devmem_streams_find(struct hmm_devmem_streams *streams,
			const struct mm_struct *mm, unsigned long page);
struct hmm_devmem_window
hmm_devmem_stream_continue(struct hmm_devmem_stream *stream, unsigned long page,
			   struct hmm_devmem_window bounds);
struct hmm_devmem_window
hmm_devmem_stream_drop(struct hmm_devmem_stream *stream, unsigned long page);
void hmm_devmem_streams_pass(struct hmm_devmem_streams *streams,
			     const struct mm_struct *mm,
			     struct hmm_devmem_window window);

#endif /* _MM_HMM_DEVMEM_STREAM_H */
