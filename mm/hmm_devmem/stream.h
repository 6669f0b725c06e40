/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How many pages a CPU fault should bring back: see stream.c. Nothing here knows of struct
 * page; a page is a user address divided by the page size.
 */
#ifndef _MM_HMM_DEVMEM_STREAM_H
#define _MM_HMM_DEVMEM_STREAM_H

#include <linux/bits.h>
#include <linux/compiler.h>
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

#define HMM_DEVMEM_NR_STREAM_SETS	4

/**
 * struct hmm_devmem_stream_sets - more walks than struct hmm_devmem_streams has
 * @next: Which set the next stream starts in.
 * @set: The sets.
 *
 * For a device, which runs many threads. New streams start in the sets by turns, so at
 * least 28 others, seven in each set, start after the last use of a stream before another
 * one replaces it.
 */
struct hmm_devmem_stream_sets {
	unsigned int next;
	struct hmm_devmem_streams set[HMM_DEVMEM_NR_STREAM_SETS];
};

/**
 * struct hmm_devmem_mirror_streams - the device's walks through a process's memory
 * @sets: The streams of the faults that move pages.
 * @along: For each stream, the pages that its last window has brought along, beside the
 *	one that the fault was about, until it is known that the device has used them.
 *
 * Read and written without a lock. So that no page is counted twice, @along is taken by
 * an exchange.
 */
struct hmm_devmem_mirror_streams {
	struct hmm_devmem_stream_sets sets;
	unsigned long along[HMM_DEVMEM_NR_STREAM_SETS][HMM_DEVMEM_NR_STREAMS];
};

/* The number of the stream that was used last. */
static inline unsigned int
hmm_devmem_streams_latest(const struct hmm_devmem_streams *streams)
{
	return READ_ONCE(streams->order) % HMM_DEVMEM_NR_STREAMS;
}

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
void hmm_devmem_stream_sets_init(struct hmm_devmem_stream_sets *sets);
unsigned int hmm_devmem_stream_sets_find(struct hmm_devmem_stream_sets *sets,
					 const struct mm_struct *mm,
					 struct hmm_devmem_window window);
int hmm_devmem_streams_read(const struct hmm_devmem_streams *streams,
			    const struct mm_struct *mm, unsigned long page);

#endif /* _MM_HMM_DEVMEM_STREAM_H */
