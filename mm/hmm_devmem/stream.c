// SPDX-License-Identifier: GPL-2.0
/*
 * How many pages a CPU fault should bring back.
 */

/**
 * DOC: Streams
 *
 * A fault costs about as much as it costs to move one page, so a fault should bring back
 * all pages that the CPU will touch soon, and no others. A *stream* is a walk through
 * the memory of a process, page by page, upward or downward. A fault belongs to a
 * stream if it is on the page after the last window of that stream, or on the page
 * before it: then the process has read the window to its end. The window of the first
 * such fault is still one page, because two pages side by side are often touched by
 * chance; from the second on, each window has twice as many pages as the one before.
 * A stream starts again with one page if a fault is within its last window, because then
 * pages of that window did not move, or have moved to the device again; and also if the
 * caller finds that the process has not read the window.
 *
 * A fault that belongs to no stream is taken for the start of one, which replaces the
 * stream that was not used for the longest time. A loop over eight arrays needs as
 * many streams. A device, which can do more at a time than a CPU, has several sets of
 * streams.
 *
 * There are no locks. A task that uses the same streams at the same time as another, or
 * reads half of what it writes, gets a window of another size, but always one that contains
 * the page of the fault and is within the bounds. The same is true for streams of
 * processes that have exited, and for an mm whose address another process gets.
 */

#include <kunit/visibility.h>
#include <linux/bits.h>
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/unroll.h>

#include "stream.h"

static void stream_set(struct hmm_devmem_stream *stream,
		       struct hmm_devmem_window window, unsigned long next)
{
	WRITE_ONCE(stream->first, window.first);
	WRITE_ONCE(stream->span, hmm_devmem_window_pages(window) + 1);
	WRITE_ONCE(stream->next, next);
}

/* Put stream number @idx before all others. Every fault that continues one does so. */
static void streams_use(struct hmm_devmem_streams *streams, unsigned int idx)
{
	const u32 order = READ_ONCE(streams->order);
	unsigned int shift = 0;
	u64 younger;

	if ((order & 0xf) == idx)
		return;
	while (shift < 28 && (order >> shift & 0xf) != idx)
		shift += 4;
	younger = order & (BIT_ULL(shift) - 1);
	WRITE_ONCE(streams->order,
		   (order & ~(BIT_ULL(shift + 4) - 1)) | younger << 4 | idx);
}

static struct hmm_devmem_stream *
streams_found(struct hmm_devmem_streams *streams, unsigned int idx)
{
	streams_use(streams, idx);
	return &streams->stream[idx];
}

static void streams_start(struct hmm_devmem_streams *streams,
			  const struct mm_struct *mm,
			  struct hmm_devmem_window window)
{
	/* The oldest becomes the youngest. */
	const u32 order = rol32(READ_ONCE(streams->order), 4);
	struct hmm_devmem_stream *stream;

	WRITE_ONCE(streams->order, order);
	stream = &streams->stream[order % HMM_DEVMEM_NR_STREAMS];
	WRITE_ONCE(stream->mm, mm);
	stream_set(stream, window, 1);
}

/*
 * Is @page in the last window of the stream, or right beside it? Without READ_ONCE(),
 * with which each load would be an instruction of its own.
 */
static __always_inline bool stream_has(const struct hmm_devmem_stream *stream,
				       const struct mm_struct *mm,
				       unsigned long page)
{
	/* Racy, as said at the top of this file. */
	return data_race(page + 1 - stream->first <= stream->span &&
			 stream->mm == mm);
}

/**
 * hmm_devmem_streams_find() - Find the stream that a fault belongs to
 * @streams: The streams.
 * @mm: The process.
 * @page: The page of the fault.
 *
 * If there is none, a new one starts, and the fault should bring @page alone. This
 * is the only function here that is called in every fault.
 *
 * Context: Any context.
 * Return: The stream, for hmm_devmem_stream_continue(), or NULL.
 */
struct hmm_devmem_stream *
hmm_devmem_streams_find(struct hmm_devmem_streams *streams,
			const struct mm_struct *mm, unsigned long page)
{
	unsigned int i = 0;

	unrolled_full
	do {
		if (stream_has(&streams->stream[i], mm, page))
			return streams_found(streams, i);
	} while (++i < HMM_DEVMEM_NR_STREAMS);
	streams_start(streams, mm, hmm_devmem_window_one(page));
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_streams_find);

/**
 * hmm_devmem_stream_drop() - Start a stream again with one page
 * @stream: The stream; its last window was not read.
 * @page: The page of the fault.
 *
 * Context: Any context.
 * Return: The window to bring, which is @page alone.
 */
struct hmm_devmem_window
hmm_devmem_stream_drop(struct hmm_devmem_stream *stream, unsigned long page)
{
	const struct hmm_devmem_window window = hmm_devmem_window_one(page);

	stream_set(stream, window, 1);
	return window;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_stream_drop);

/**
 * hmm_devmem_stream_continue() - Get the next window of a stream
 * @stream: From hmm_devmem_streams_find().
 * @page: The page of the fault.
 * @bounds: Pages that may be in the window; @page is one of them.
 *
 * Context: Any context.
 * Return: The window to bring. @page is its first page or, if the stream goes
 * downward, its last.
 */
struct hmm_devmem_window
hmm_devmem_stream_continue(struct hmm_devmem_stream *stream, unsigned long page,
			   struct hmm_devmem_window bounds)
{
	const unsigned long max = HMM_DEVMEM_STREAM_MAX;
	const unsigned long nr = clamp(READ_ONCE(stream->next), 1UL, max);
	const unsigned long at = page + 1 - READ_ONCE(stream->first);
	struct hmm_devmem_window window = hmm_devmem_window_one(page);

	if (at && at != READ_ONCE(stream->span))
		return hmm_devmem_stream_drop(stream, page);
	if (at)
		window.end = page + min(nr, bounds.end - page);
	else
		window.first = page - min(nr - 1, page - bounds.first);
	/* Let the size grow even if the bounds cut the window off: the process goes on. */
	stream_set(stream, window, min(2 * nr, max));
	return window;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_stream_continue);

/**
 * hmm_devmem_streams_pass() - Note a window that did not depend on the streams
 * @streams: The streams.
 * @mm: The process.
 * @window: The window, such as all pages of a large folio.
 *
 * A stream that has reached this window continues beyond it, and its next window has the
 * size that it would have had without this one.
 *
 * Context: Any context.
 */
void hmm_devmem_streams_pass(struct hmm_devmem_streams *streams,
			     const struct mm_struct *mm,
			     struct hmm_devmem_window window)
{
	unsigned int i;

	for (i = 0; i < HMM_DEVMEM_NR_STREAMS; i++) {
		struct hmm_devmem_stream *stream = &streams->stream[i];

		if (stream_has(stream, mm, window.first) ||
		    stream_has(stream, mm, window.end - 1)) {
			streams_use(streams, i);
			stream_set(stream, window, READ_ONCE(stream->next));
			return;
		}
	}
	streams_start(streams, mm, window);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_streams_pass);

/**
 * hmm_devmem_streams_read() - Find out which window has been read to its end
 * @streams: The streams.
 * @mm: The process.
 * @page: The page of a fault, before hmm_devmem_streams_find() is called for it.
 *
 * Changes nothing.
 *
 * Context: Any context.
 * Return: Number of the stream whose last window @page is right beside, or -1.
 */
int hmm_devmem_streams_read(const struct hmm_devmem_streams *streams,
			    const struct mm_struct *mm, unsigned long page)
{
	const struct hmm_devmem_stream *stream;
	unsigned long at;
	int i;

	for (i = 0; i < HMM_DEVMEM_NR_STREAMS; i++) {
		stream = &streams->stream[i];
		at = page + 1 - READ_ONCE(stream->first);
		if (READ_ONCE(stream->mm) == mm &&
		    (!at || at == READ_ONCE(stream->span)))
			return i;
	}
	return -1;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_streams_read);

/**
 * hmm_devmem_stream_sets_init() - Set up sets of streams
 * @sets: The sets.
 *
 * Context: Any context.
 */
void hmm_devmem_stream_sets_init(struct hmm_devmem_stream_sets *sets)
{
	unsigned int i;

	sets->next = 0;
	for (i = 0; i < HMM_DEVMEM_NR_STREAM_SETS; i++)
		sets->set[i] = (struct hmm_devmem_streams)HMM_DEVMEM_STREAMS_INIT;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_stream_sets_init);

/**
 * hmm_devmem_stream_sets_find() - Find the set that a fault belongs to
 * @sets: The sets.
 * @mm: The process.
 * @window: The page of the fault, or all pages that it is going to bring.
 *
 * Context: Any context.
 * Return: Number of the set that has the stream of the fault, or in which a new one
 * should start, for hmm_devmem_streams_find() or hmm_devmem_streams_pass().
 */
unsigned int hmm_devmem_stream_sets_find(struct hmm_devmem_stream_sets *sets,
					 const struct mm_struct *mm,
					 struct hmm_devmem_window window)
{
	const struct hmm_devmem_stream *stream;
	unsigned int set, i;

	for (set = 0; set < HMM_DEVMEM_NR_STREAM_SETS; set++) {
		for (i = 0; i < HMM_DEVMEM_NR_STREAMS; i++) {
			stream = &sets->set[set].stream[i];
			if (stream_has(stream, mm, window.first) ||
			    stream_has(stream, mm, window.end - 1))
				return set;
		}
	}
	set = READ_ONCE(sets->next);
	WRITE_ONCE(sets->next, set + 1);
	return set % HMM_DEVMEM_NR_STREAM_SETS;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_stream_sets_find);
