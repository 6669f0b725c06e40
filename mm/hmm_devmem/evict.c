// SPDX-License-Identifier: GPL-2.0
/*
 * Eviction: bringing device pages back to system memory by their pfn.
 */

/**
 * DOC: Eviction
 *
 * Eviction starts from the pool, which knows the device pages in use, and
 * lets core find their mappings by rmap. It needs no process and no virtual
 * address, so it reaches pages of processes that have exited and left children,
 * and of ranges that were moved. Core cannot move a large folio to small ones
 * without a vma; where there is no large folio of system memory, the device
 * folio is split first. So is one of which the process has dropped pages, with
 * MADV_DONTNEED for instance: these are freed then, and take no system memory.
 *
 * Pages of mlocked memory that are unmapped stay in use a while: core collects
 * references to them for each CPU, and drops them by the batch. Before eviction
 * reports pages as busy, it makes all CPUs drop these references, and tries again.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/time64.h>
#include <linux/timekeeping.h>

#include <trace/events/hmm_devmem.h>

#include "allocate.h"
#include "collect.h"
#include "devmem.h"
#include "evict.h"
#include "pool.h"
#include "reclaim.h"
#include "segment.h"
#include "stats.h"
#include "txn.h"
#include "use.h"

/*
 * Pages that a CPU fault or the kernel works with can move a moment later. So removal and
 * suspend try again, with a pause in between, until hmm_devmem_evict_wait_s seconds have
 * passed since the last page came back, or HMM_DEVMEM_EVICT_WAITS times as many in all. The
 * time in which pages come back does not count. The number is a file in debugfs, see
 * debugfs.c. 0 counts as 1, because with no time to spend no eviction would try at all.
 */
u32 hmm_devmem_evict_wait_s = 1;
#define HMM_DEVMEM_EVICT_WAIT_MOST_S	3600
#define HMM_DEVMEM_EVICT_WAITS		10
#define HMM_DEVMEM_EVICT_PAUSE_MS	20

/*
 * Eviction gives up on a device that refuses to copy, or is too slow: after so many
 * copies in a row that failed with -EIO and brought no page back, or when it has spent
 * hmm_devmem_evict_wait_s seconds on pages that did not come back.
 */
#define HMM_DEVMEM_EVICT_REFUSALS	16

/*
 * The pages that the device does not copy can all be in one part of its memory. So
 * removal and suspend go on in another place, that is, from another pfn, when one place
 * has used up an eighth of the refusals, or of the time. A copy that brings a page back
 * resets the number of refusals.
 */
#define HMM_DEVMEM_EVICT_PLACES		8

/**
 * struct evict_effort - failed attempts of an eviction so far
 * @refused: Copies in a row that failed with -EIO, and brought no page back.
 * @wasted: Nanoseconds spent on pages that did not come back; of a copy that failed
 *	for a part of its pages, that part of its time. Includes the time to find out
 *	that there was no memory for any page of a transaction.
 * @refused_here: The part of @refused at the present place.
 * @wasted_here: The part of @wasted at the present place.
 * @from: First pfn of the present place. 0 for the start of the range.
 * @nr_places: How many places there were before this one.
 * @moves_on: The eviction tries other places before it gives up.
 * @killable: The eviction ends when the caller is being killed.
 * @in_reclaim: The caller may have a transaction or be in memory reclaim: do not wait for a
 *	transaction. The struct pages cannot go away, although no lock is held.
 */
struct evict_effort {
	unsigned int refused;
	u64 wasted;
	unsigned int refused_here;
	u64 wasted_here;
	unsigned long from;
	unsigned long nr_places;
	bool moves_on;
	bool killable;
	bool in_reclaim;
};

/* The time in nanoseconds, for all that eviction measures. */
VISIBLE_IF_KUNIT u64 hmm_devmem_evict_ns(void)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_evict_ns);
	return ktime_get_ns();
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_evict_ns);

static u64 evict_wait_ns(void)
{
	return clamp(READ_ONCE(hmm_devmem_evict_wait_s), 1, HMM_DEVMEM_EVICT_WAIT_MOST_S) *
	       (u64)NSEC_PER_SEC;
}

static bool effort_is_killed(const struct evict_effort *effort)
{
	return effort->killable && fatal_signal_pending(current);
}

static bool effort_is_over(const struct evict_effort *effort)
{
	return effort->refused >= HMM_DEVMEM_EVICT_REFUSALS ||
	       effort->wasted >= evict_wait_ns() || effort_is_killed(effort);
}

/* Shall the eviction leave this place, to go on at another one or to give up? */
static bool place_is_over(const struct evict_effort *effort)
{
	return effort_is_over(effort) ||
	       (effort->moves_on &&
		(effort->refused_here >=
		 HMM_DEVMEM_EVICT_REFUSALS / HMM_DEVMEM_EVICT_PLACES ||
		 effort->wasted_here >=
		 evict_wait_ns() / HMM_DEVMEM_EVICT_PLACES));
}

/*
 * Note the result of a copy: of @wanted pages that had a destination, @copied were
 * copied there in @ns nanoseconds. If none had, @ns is how long it took to find that
 * out. Of the errors in @err, only -EIO is a refusal; after others, a later copy may
 * succeed.
 */
static void effort_note(struct evict_effort *effort, unsigned long wanted,
			unsigned long copied, int err, u64 ns)
{
	if (copied) {
		effort->refused = 0;
		effort->refused_here = 0;
	} else if (wanted && err == -EIO) {
		effort->refused++;
		effort->refused_here++;
	}
	if (wanted)
		ns = div_u64(ns * (wanted - copied), wanted);
	effort->wasted += ns;
	effort->wasted_here += ns;
}

/*
 * Start to move the device pages whose pfns are in @txn->src; @txn->nr can be 0
 * afterwards. Returns false if there is no large folio of system memory for a large
 * device folio.
 */
static bool evict_start(struct hmm_devmem_txn *txn)
{
	u64 start;
	bool ret;

	hmm_devmem_txn_collect_pfns(txn);
	if (!txn->nr)
		return true;
	txn->unmapped = false;
	txn->must_split = false;
	start = hmm_devmem_evict_ns();
	ret = hmm_devmem_txn_alloc_ram(txn, 0);
	txn->wanted = hmm_devmem_txn_nr_dst(txn);
	if (txn->wanted)
		start = hmm_devmem_evict_ns();
	hmm_devmem_txn_copy_start(txn);
	txn->ns = hmm_devmem_evict_ns() - start;
	return ret;
}

static void evict_finish(struct hmm_devmem_txn *txn,
			 struct evict_effort *effort,
			 struct hmm_devmem_left *left)
{
	unsigned long collected, copied;
	u64 start;
	int err;

	if (!txn->nr)
		return;
	start = hmm_devmem_evict_ns();
	err = hmm_devmem_txn_copy_wait(txn);
	collected = hmm_devmem_txn_nr_collected(txn);
	copied = hmm_devmem_txn_nr_dst(txn);
	/* The caller splits the folio and tries again; if the split fails, it is busy. */
	if (!txn->must_split)
		left->no_memory += collected - txn->wanted;
	left->not_copied += txn->wanted - copied;
	if (collected && !txn->must_split)
		effort_note(effort, txn->wanted, copied, err,
			    txn->ns + hmm_devmem_evict_ns() - start);
	hmm_devmem_use_leaving(txn);
	hmm_devmem_count(txn->devmem, HMM_DEVMEM_EVICTED, hmm_devmem_txn_commit(txn));
}

/*
 * Put the next @max pages of [*@pfn, @end) that are in use into @txn, but none of @keep,
 * if there is one: a bit for each page. Returns their number, 0 if there are no more.
 */
static unsigned int next_in_use(struct hmm_devmem_txn *txn, unsigned long *pfn,
				unsigned long end, const unsigned long *keep,
				unsigned int max)
{
	const unsigned long first = txn->devmem->pfn_first;
	unsigned int i, nr, n;

	do {
		nr = hmm_devmem_pool_in_use(priv(txn->devmem)->pool, pfn, end,
					    txn->src, max);
		if (!keep)
			return nr;
		for (i = 0, n = 0; i < nr; i++)
			if (!test_bit(txn->src[i] - first, keep))
				txn->src[n++] = txn->src[i];
	} while (nr && !n);
	return n;
}

/*
 * A large folio is split before its pages are collected if some of them are lost, since
 * the others could not move then, or if it is larger than a window.
 */
static bool must_split_first(const struct hmm_devmem_txn *txn, unsigned int max)
{
	return txn->nr < HMM_DEVMEM_BLOCK_NR &&
	       (max < HMM_DEVMEM_BLOCK_NR ||
		hmm_devmem_pool_any_retired(priv(txn->devmem)->pool));
}

/**
 * struct evict_walk - bringing the pages of a range back, window by window
 * @pfn: Where to look for the next pages in use.
 * @end: One past the last pfn of the range.
 * @max: Pages of a window. Read once: the administrator can change it at any time.
 * @keep: If not NULL: a bit for each page of the device, set if it is to stay.
 * @effort: What was done in vain so far.
 * @left: Why pages are left.
 * @txn: The transaction of the next window.
 * @spare: A second one for the window after that; NULL if there is none, or while it is
 *	@in_flight.
 * @in_flight: The transaction of a window whose copy was started, but not waited for;
 *	NULL if there is none.
 */
struct evict_walk {
	unsigned long pfn;
	unsigned long end;
	unsigned int max;
	const unsigned long *keep;
	struct evict_effort *effort;
	struct hmm_devmem_left *left;
	struct hmm_devmem_txn *txn;
	struct hmm_devmem_txn *spare;
	struct hmm_devmem_txn *in_flight;
};

/* Find the pages of the next window. Returns false if there are none. */
static bool evict_find(struct evict_walk *walk)
{
	struct hmm_devmem_txn *txn = walk->txn;

	txn->nr = next_in_use(txn, &walk->pfn, walk->end, walk->keep, walk->max);
	return txn->nr;
}

/* Finish the window that is in flight, if there is one. */
static void evict_drain(struct evict_walk *walk)
{
	if (!walk->in_flight)
		return;
	evict_finish(walk->in_flight, walk->effort, walk->left);
	walk->spare = walk->in_flight;
	walk->in_flight = NULL;
}

/*
 * Bring back the window that evict_find() has found, and finish the one in flight.
 * Returns false if its first folio was split, so that the same pages must be tried
 * again.
 */
static bool evict_window(struct evict_walk *walk)
{
	struct hmm_devmem_txn *txn = walk->txn;
	const unsigned long first = txn->src[0];
	bool has_memory;

	if (hmm_devmem_split_large_folio(first, must_split_first(txn, walk->max)))
		return false;
	has_memory = evict_start(txn);
	/* Two windows are in flight; the device copies the second while the first is finished. */
	evict_drain(walk);
	if (has_memory && txn->nr && walk->spare) {
		walk->in_flight = txn;
		walk->txn = walk->spare;
		walk->spare = NULL;
		return true;
	}
	evict_finish(txn, walk->effort, walk->left);
	return has_memory || !hmm_devmem_split_large_folio(first, true);
}

/*
 * Try once to bring back the pages in [@pfn, @end), except those of @keep. Adds to @left
 * why that failed, for the pages for which it is known.
 */
static void evict_range(struct hmm_devmem *devmem, unsigned long pfn,
			unsigned long end, const unsigned long *keep,
			struct evict_effort *effort,
			struct hmm_devmem_left *left)
{
	struct evict_walk walk = {
		.pfn = pfn,
		.end = end,
		.max = hmm_devmem_window_nr(),
		.keep = keep,
		.effort = effort,
		.left = left,
	};
	unsigned long start = pfn;

	if (!effort->in_reclaim)
		lockdep_assert_held_read(&priv(devmem)->segments_lock);

	if (pfn >= end)
		return;
	/* Pages in per-CPU caches are free, but look like pages in use. */
	hmm_devmem_pool_drain(priv(devmem)->pool);
	walk.txn = effort->in_reclaim ?
		   hmm_devmem_txn_get_locked(devmem, NULL, HMM_DEVMEM_BLOCK_NR) :
		   hmm_devmem_txn_get(devmem, NULL, HMM_DEVMEM_BLOCK_NR);
	if (!walk.txn)
		return;
	if (devmem->ops->copy_wait && !effort->in_reclaim)
		walk.spare = hmm_devmem_txn_tryget(devmem, NULL, HMM_DEVMEM_BLOCK_NR);
	while (!place_is_over(effort) && evict_find(&walk)) {
		if (evict_window(&walk))
			start = walk.pfn;
		else
			walk.pfn = start;
		cond_resched();
	}
	evict_drain(&walk);
	hmm_devmem_txn_put(walk.txn);
	if (walk.spare)
		hmm_devmem_txn_put(walk.spare);
}

/*
 * Large folios move as a whole: where @pfn is inside of one, go to its start, or
 * to its end. Should the page be freed meanwhile, more is moved than was asked
 * for, which does no harm.
 */
static unsigned long round_to_folio(struct hmm_devmem *devmem,
				    unsigned long pfn, bool up)
{
	const struct folio *folio;

	lockdep_assert_held_read(&priv(devmem)->segments_lock);

	if (!hmm_devmem_segment_at(devmem, pfn))
		return pfn;
	folio = page_folio(pfn_to_page(pfn));
	if (!folio_test_large(folio) || folio_pfn(folio) == pfn)
		return pfn;
	return up ? ALIGN(pfn, HMM_DEVMEM_BLOCK_NR) :
		    ALIGN_DOWN(pfn, HMM_DEVMEM_BLOCK_NR);
}

/* Number of pages in use that are not in @keep. */
static unsigned long count_in_use(struct hmm_devmem *devmem, unsigned long pfn,
				  unsigned long end, const unsigned long *keep)
{
	struct hmm_devmem_txn *txn;
	unsigned long left = 0;
	unsigned int nr;

	lockdep_assert_held_read(&priv(devmem)->segments_lock);

	/* A page in a per-CPU cache is free, although its bit is set. */
	hmm_devmem_pool_drain(priv(devmem)->pool);
	txn = hmm_devmem_txn_get(devmem, NULL, HMM_DEVMEM_BLOCK_NR);
	while ((nr = next_in_use(txn, &pfn, end, keep, txn->max)))
		left += nr;
	hmm_devmem_txn_put(txn);
	return left;
}

static unsigned long evict_and_count_once(struct hmm_devmem *devmem,
					  unsigned long pfn, unsigned long end,
					  struct evict_effort *effort,
					  struct hmm_devmem_left *left)
{
	unsigned long nr, from;

	*left = (struct hmm_devmem_left) { };
	/* Keep the struct pages and bitmaps that are used here. */
	guard(rwsem_read)(&priv(devmem)->segments_lock);
	from = round_to_folio(devmem, max(pfn, effort->from), false);
	evict_range(devmem, from, round_to_folio(devmem, end, true), NULL, effort,
		    left);
	evict_range(devmem, round_to_folio(devmem, pfn, false), from, NULL, effort,
		    left);
	nr = count_in_use(devmem, pfn, end, NULL);
	/* Pages are freed meanwhile, and not all were in the range. */
	left->no_memory = min(left->no_memory, nr);
	left->not_copied = min(left->not_copied, nr - left->no_memory);
	left->busy = nr - left->no_memory - left->not_copied;
	/* Pages that were not tried have the reason why the eviction gave up, if it did. */
	if (place_is_over(effort) && !effort_is_killed(effort)) {
		if (left->not_copied)
			left->not_copied += left->busy;
		else
			left->no_memory += left->busy;
		left->busy = 0;
	}
	return nr;
}

/**
 * hmm_devmem_drain_batches() - Make all CPUs drop the references in core's batches for mlock
 *
 * That needs work on each CPU, and waits for it.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_drain_batches(void)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_drain_batches);
	lru_add_drain_all();
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_drain_batches);

/*
 * Bring back [@pfn, @end) and count the pages that are left. Pages that core did not
 * collect, or that are new, are busy. With @drain, if pages are busy, empty core's batches
 * for mlock and try again: only these can have references, and an idle system may never
 * empty them.
 */
static unsigned long evict_and_count(struct hmm_devmem *devmem,
				     unsigned long pfn, unsigned long end,
				     struct evict_effort *effort, bool drain,
				     struct hmm_devmem_left *left)
{
	unsigned long nr = evict_and_count_once(devmem, pfn, end, effort, left);

	if (!left->busy || !drain || effort_is_killed(effort))
		return nr;
	hmm_devmem_drain_batches();
	return evict_and_count_once(devmem, pfn, end, effort, left);
}

/* Count the pages in use of a devmem whose pages the library cannot move: classic or dead. */
static unsigned long count_busy(struct hmm_devmem *devmem, bool drain)
{
	unsigned long nr = hmm_devmem_segments_busy(devmem);

	if (!nr || !drain)
		return nr;
	hmm_devmem_drain_batches();
	return hmm_devmem_segments_busy(devmem);
}

/**
 * hmm_devmem_evict() - Bring device pages back by physical address
 * @devmem: A managed devmem.
 * @pfn_first: First pfn of the range, inclusive.
 * @nr_pages: Its length, pages of PAGE_SIZE. What is outside of @devmem is
 *	ignored. Of a large folio that lies in the range partly, all is moved.
 * @left: Filled in, unless the call fails: why pages are still there; NULL if the caller
 *	need not know.
 *
 * Pages go to where a policy of their mapping (mbind()) says, else to the node
 * of the device; the memory policy of the caller does not matter.
 *
 * Tries once: pages that are locked or referenced at the moment stay.
 * Ends early when 16 copies in a row have failed with -EIO, when a second was spent on
 * pages that did not come back, and when the caller is being killed.
 *
 * Context: Process context, may sleep. The caller holds no mmap lock and no folio lock.
 * Return:
 * * number of pages of the range that are still in use
 * * %-EINVAL - the range overflows
 * * %-ENODEV - @devmem is being removed
 * * %-EOPNOTSUPP - @devmem is classic
 *
 * When the result is an errno, nothing was changed. Pages whose data is lost (see
 * hmm_devmem_poison()) cannot come back and do not count.
 */
long hmm_devmem_evict(struct hmm_devmem *devmem, unsigned long pfn_first,
		      unsigned long nr_pages, struct hmm_devmem_left *left)
{
	const unsigned long end = pfn_first + nr_pages;
	struct evict_effort effort = { .killable = true };
	struct hmm_devmem_left unused;
	long nr;

	might_sleep();
	if (!hmm_devmem_managed(devmem))
		return -EOPNOTSUPP;
	if (end < pfn_first)
		return -EINVAL;
	if (!hmm_devmem_ref_tryget_live(devmem))
		return -ENODEV;
	nr = evict_and_count(devmem, pfn_first, end, &effort, true, left ?: &unused);
	trace_hmm_devmem_evict(devmem, pfn_first, end, nr);
	hmm_devmem_ref_put(devmem);
	return nr;
}
EXPORT_SYMBOL_GPL(hmm_devmem_evict);

/*
 * A page whose data is lost does not come back, but a copy of it that had begun before
 * can still be under way; then its folio is locked.
 */
static unsigned long count_lost_in_flight(struct hmm_devmem *devmem)
{
	unsigned long pfn = devmem->pfn_first, in_flight = 0;
	struct hmm_devmem_txn *txn;
	unsigned int nr, i;

	if (!hmm_devmem_pool_any_retired(priv(devmem)->pool))
		return 0;
	guard(rwsem_read)(&priv(devmem)->segments_lock);
	txn = hmm_devmem_txn_get(devmem, NULL, HMM_DEVMEM_BLOCK_NR);
	while ((nr = hmm_devmem_pool_not_free(priv(devmem)->pool, &pfn, devmem->pfn_last,
					      txn->src, txn->max)))
		for (i = 0; i < nr; i++)
			in_flight += hmm_devmem_pool_retired(priv(devmem)->pool,
							     txn->src[i]) &&
				     folio_test_locked(pfn_folio(txn->src[i]));
	hmm_devmem_txn_put(txn);
	return in_flight;
}

/* Try once to bring all pages back. Returns how many are left. */
static unsigned long evict_pass(struct hmm_devmem *devmem,
				struct evict_effort *effort, bool drain,
				struct hmm_devmem_left *left)
{
	unsigned long nr;

	if (READ_ONCE(priv(devmem)->dead))
		return count_busy(devmem, true);
	if (!hmm_devmem_managed(devmem))
		return count_busy(devmem, drain);
	nr = evict_and_count(devmem, devmem->pfn_first, devmem->pfn_last, effort,
			     drain, left);
	if (nr)
		return nr;
	left->busy = count_lost_in_flight(devmem);
	return left->busy;
}

/* Find the block of the page in use number @nth, and return the block's first page in use. */
static unsigned long find_in_use(struct hmm_devmem *devmem, unsigned long nth)
{
	unsigned long pfn = devmem->pfn_first;
	struct hmm_devmem_txn *txn;
	unsigned int nr;

	guard(rwsem_read)(&priv(devmem)->segments_lock);
	txn = hmm_devmem_txn_get(devmem, NULL, HMM_DEVMEM_BLOCK_NR);
	while ((nr = next_in_use(txn, &pfn, devmem->pfn_last, NULL,
				 txn->max)) && nr <= nth)
		nth -= nr;
	pfn = nr ? txn->src[0] : devmem->pfn_first;
	hmm_devmem_txn_put(txn);
	return pfn;
}

/*
 * Choose the place to go on at when @nr pages are left. The fraction of them that is before
 * the place grows by the golden ratio with each place, modulo 1: so each place is far from
 * all earlier ones.
 */
static void effort_move_on(struct hmm_devmem *devmem, struct evict_effort *effort,
			   unsigned long nr)
{
	effort->refused_here = 0;
	effort->wasted_here = 0;
	effort->nr_places++;
	effort->from = find_in_use(devmem, nr * (effort->nr_places * 618 % 1000) / 1000);
}

/**
 * hmm_devmem_evict_clock_pass() - Note that an eviction has tried all pages once more
 * @clock: The clock. @clock->last was set before the first time.
 * @start: When this pass over all pages began, in nanoseconds.
 * @now: When it ended, in nanoseconds.
 * @progress: Fewer pages are left than after the pass before.
 *
 * Context: Any context.
 */
VISIBLE_IF_KUNIT void
hmm_devmem_evict_clock_pass(struct hmm_devmem_evict_clock *clock,
			    u64 start, u64 now, bool progress)
{
	if (progress) {
		clock->last += now - start;
		clock->deadline = now + evict_wait_ns();
	}
	clock->deadline = min(clock->deadline, clock->last);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_evict_clock_pass);

static void evict_pause(const struct evict_effort *effort)
{
	if (effort->killable)
		schedule_timeout_killable(msecs_to_jiffies(HMM_DEVMEM_EVICT_PAUSE_MS));
	else
		msleep(HMM_DEVMEM_EVICT_PAUSE_MS);
}

/**
 * hmm_devmem_evict_all() - Bring all pages back that can be moved
 * @devmem: The device memory; no page can be allocated at the moment.
 * @killable: End when the caller is being killed.
 * @left: Filled in, for a managed devmem, with the reasons why pages are still there.
 *
 * Takes as long as the device needs for the copies that succeed. Beyond that, this waits
 * for pages that are locked or referenced, until no page has come back for a second, and
 * ten seconds at most. A device that does not copy gets one second, or 16 copies, in
 * several places of its memory. For a dead device this does not wait at all. A classic
 * driver moves its pages itself, in its kill and fault callbacks; this waits for it as for
 * pages that are referenced.
 *
 * Core's batches for mlock are emptied when no page comes back any more, and again
 * before this gives up.
 *
 * Context: Process context, may sleep.
 * Return: Number of pages that are still in use. Those whose data is lost count only
 * while they are being copied.
 */
unsigned long hmm_devmem_evict_all(struct hmm_devmem *devmem, bool killable,
				   struct hmm_devmem_left *left)
{
	struct evict_effort effort = { .killable = killable, .moves_on = true };
	struct hmm_devmem_evict_clock clock = {
		.last = hmm_devmem_evict_ns() + HMM_DEVMEM_EVICT_WAITS * evict_wait_ns(),
	};
	unsigned long nr, before = ULONG_MAX;
	u64 start, now;
	bool over, drain = false, drained = false;

	for (;;) {
		start = hmm_devmem_evict_ns();
		nr = evict_pass(devmem, &effort, drain, left);
		now = hmm_devmem_evict_ns();
		hmm_devmem_evict_clock_pass(&clock, start, now, nr < before);
		if (!nr || READ_ONCE(priv(devmem)->dead) || effort_is_over(&effort))
			return nr;
		over = now > clock.deadline;
		if (over && drain)
			return nr;
		drained = nr >= before && (drained || drain);
		drain = over || (nr >= before && !drained);
		before = nr;
		if (place_is_over(&effort))
			effort_move_on(devmem, &effort, nr);
		if (!over)
			evict_pause(&effort);
	}
}

/**
 * hmm_devmem_evict_block() - Bring the pages of a block back, once
 * @devmem: The device memory.
 * @pfn: First page of the block, of which none is handed out any more, and which keeps its
 *	struct pages.
 *
 * Context: Process context, may sleep. Takes no mmap lock, and waits for no folio lock. The
 * caller may be in memory reclaim.
 */
void hmm_devmem_evict_block(struct hmm_devmem *devmem, unsigned long pfn)
{
	struct evict_effort effort = { .killable = true, .in_reclaim = true };
	struct hmm_devmem_left left = { };

	evict_range(devmem, pfn, pfn + HMM_DEVMEM_BLOCK_NR, NULL, &effort, &left);
	if (!left.no_memory && !left.not_copied && !(current->flags & PF_MEMALLOC) &&
	    hmm_devmem_pool_block_taken(priv(devmem)->pool, pfn)) {
		/* Core's batches can have the last references, as in evict_and_count(). */
		hmm_devmem_drain_batches();
		evict_range(devmem, pfn, pfn + HMM_DEVMEM_BLOCK_NR, NULL, &effort, &left);
	}
}

/*
 * Evict the pages of one block that are not in @keep. Returns 0 if one has come back,
 * -EBUSY if they are locked or referenced, -ENOMEM if it is no use to try again.
 */
static int reclaim_block(struct hmm_devmem *devmem, unsigned long pfn,
			 unsigned long end, const unsigned long *keep,
			 struct evict_effort *effort)
{
	struct hmm_devmem_left left = { };
	unsigned long before, nr;

	guard(rwsem_read)(&priv(devmem)->segments_lock);
	before = count_in_use(devmem, pfn, end, keep);
	if (!before)
		return -ENOMEM;
	evict_range(devmem, pfn, end, keep, effort, &left);
	nr = count_in_use(devmem, pfn, end, keep);
	if (nr < before)
		return 0;
	return nr > left.no_memory + left.not_copied ? -EBUSY : -ENOMEM;
}

/* Are all pages of a part of the device in @keep, whether they are in use or not? */
static bool keeps_all(const struct hmm_devmem *devmem, const unsigned long *keep,
		      unsigned long pfn, unsigned long end)
{
	const unsigned long nr = end - devmem->pfn_first;

	return find_next_zero_bit(keep, nr, pfn - devmem->pfn_first) >= nr;
}

/* How many blocks of the policy's choice are tried before all blocks are tried in turn. */
#define HMM_DEVMEM_RECLAIM_CHOICES	4

/**
 * struct reclaim - an eviction that makes room
 * @devmem: The device memory.
 * @keep: A bit for each page of the device, set if the page must not be evicted.
 * @effort: What was done in vain so far.
 */
struct reclaim {
	struct hmm_devmem *devmem;
	const unsigned long *keep;
	struct evict_effort effort;
};

/* First page of a block; of the block after the last, where the device ends. */
static unsigned long block_pfn(const struct hmm_devmem *devmem, u32 block)
{
	return clamp(hmm_devmem_segments_base(devmem) +
		     ((unsigned long)block << HMM_DEVMEM_BLOCK_ORDER),
		     devmem->pfn_first, devmem->pfn_last);
}

static bool reclaim_may_go(void *arg, u32 block)
{
	const struct reclaim *reclaim = arg;

	return !keeps_all(reclaim->devmem, reclaim->keep,
			  block_pfn(reclaim->devmem, block),
			  block_pfn(reclaim->devmem, block + 1));
}

/* Shall this give up? Also if a removal or a suspend has begun, which waits for the caller. */
static bool reclaim_is_over(const struct reclaim *reclaim)
{
	return effort_is_over(&reclaim->effort) ||
	       hmm_devmem_pool_refused(priv(reclaim->devmem)->pool);
}

static int reclaim_try(struct reclaim *reclaim, u32 block)
{
	struct hmm_devmem *devmem = reclaim->devmem;
	int ret;

	if (!reclaim_may_go(reclaim, block))
		return -ENOMEM;
	ret = reclaim_block(devmem, block_pfn(devmem, block),
			    block_pfn(devmem, block + 1), reclaim->keep,
			    &reclaim->effort);
	if (!ret)
		hmm_devmem_hold_evicted(priv(devmem)->hold, block);
	return ret;
}

/* Evict a block that the policy chooses for @data. */
static int reclaim_chosen(struct reclaim *reclaim,
			  const struct hmm_devmem_hold_data *data)
{
	struct hmm_devmem_hold *hold = priv(reclaim->devmem)->hold;
	unsigned int tries = HMM_DEVMEM_RECLAIM_CHOICES;
	u32 block;

	while (tries-- && !reclaim_is_over(reclaim)) {
		block = hmm_devmem_hold_victim(hold, data, reclaim_may_go, reclaim);
		if (block == HMM_DEVMEM_HOLD_NONE)
			break;
		if (!reclaim_try(reclaim, block))
			return 0;
		hmm_devmem_hold_skip(hold, block);
	}
	return -ENOMEM;
}

/* Evict the next block in the order of pfns. The block that was brought in last is tried last. */
static int reclaim_in_turn(struct reclaim *reclaim)
{
	struct hmm_devmem *devmem = reclaim->devmem;
	const u32 nr = hmm_devmem_nr_blocks(devmem), last = READ_ONCE(priv(devmem)->hold->last);
	u32 block, tries = nr;
	int ret = -ENOMEM, err;

	while (tries-- && !reclaim_is_over(reclaim)) {
		/* Racy, but it only decides which block is next. */
		block = READ_ONCE(priv(devmem)->reclaim_hand) % nr;
		WRITE_ONCE(priv(devmem)->reclaim_hand, block + 1);
		err = block == last ? -ENOMEM : reclaim_try(reclaim, block);
		if (!err)
			return 0;
		if (err == -EBUSY)
			ret = err;
	}
	if (last < nr && !reclaim_is_over(reclaim)) {
		err = reclaim_try(reclaim, last);
		if (!err || err == -EBUSY)
			ret = err;
	}
	return effort_is_over(&reclaim->effort) ? -ENOMEM : ret;
}

static int reclaim_once(struct reclaim *reclaim,
			const struct hmm_devmem_hold_data *data)
{
	return reclaim_chosen(reclaim, data) ? reclaim_in_turn(reclaim) : 0;
}

/**
 * hmm_devmem_reclaim() - Make room on the device
 * @devmem: The device memory; it has %HMM_DEVMEM_RECLAIM.
 * @data: The data that the room is needed for.
 * @keep: A bit for each page of the device, set if the page must not be evicted.
 * @drain: Empty core's batches for mlock before pages are reported as busy.
 *
 * Evicts the other pages of one block. The policy chooses it; if none of its choices
 * can be evicted, blocks are tried in turn.
 *
 * Context: Process context, may sleep. Takes folio locks.
 * Return:
 * * %0 - done
 * * %-EBUSY - there are only pages that are locked or referenced at the moment
 * * %-ENOMEM - there is no page that can be evicted
 */
int hmm_devmem_reclaim(struct hmm_devmem *devmem,
		       const struct hmm_devmem_hold_data *data,
		       const unsigned long *keep, bool drain)
{
	struct reclaim reclaim = {
		.devmem = devmem,
		.keep = keep,
		.effort = { .killable = true },
	};
	unsigned long used;
	int ret;

	ret = reclaim_once(&reclaim, data);
	if (ret != -EBUSY || !drain)
		return ret;
	/* Core's batches can have the last references, as for evict_and_count(). */
	used = hmm_devmem_pool_used(priv(devmem)->pool);
	hmm_devmem_drain_batches();
	if (hmm_devmem_pool_used(priv(devmem)->pool) < used)
		return 0;
	return reclaim_once(&reclaim, data);
}
