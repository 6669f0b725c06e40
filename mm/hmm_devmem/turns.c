// SPDX-License-Identifier: GPL-2.0
/*
 * Whether to split a large folio that the CPU touches: if CPU and device use few of its
 * pages by turns.
 */

/**
 * DOC: Turns
 *
 * A folio that a PMD maps comes back as a whole, whichever of its pages the CPU has
 * touched. If the CPU needs a single page of it, and the driver then moves all of it to
 * the device again, 1024 pages are copied for one access. To split the folio avoids that,
 * but is permanent: core does not make one folio of its pages again. If the CPU does work
 * through all of the folio, that costs four times as much with small pages. Page tables do
 * not tell which of the two the CPU does, because a PMD has one accessed bit for all pages.
 *
 * So a folio is split only if the CPU has begun with the same page of it three times in
 * a row, and this is neither the first page of the folio nor the last, where a program
 * begins that works through it, nor the start of a walk that goes on in the folio next
 * to it. And the first folio of a process for which that is true is a trial: the pages
 * of it that come back from then on are counted. When another folio of the process has
 * come back once more meanwhile, and is touched again, the trial is over. If an eighth of
 * the pages or fewer came back, the next 64 such folios are split, else none for a long
 * time.
 *
 * All this is remembered in hash tables of a fixed size, without locks. An entry for a folio
 * is not replaced before that folio is split, or 4096 others have come back since it was
 * touched: so if there are more folios than entries, they are split one after the other.
 * An entry that is overwritten, or that is of a process which has exited, or of an mm whose
 * address another process got, at worst makes a folio move as a whole, or splits one.
 */

#include <kunit/visibility.h>
#include <linux/bits.h>
#include <linux/compiler.h>
#include <linux/export.h>
#include <linux/hash.h>

#include "turns.h"

static struct hmm_devmem_turn *turn_of(struct hmm_devmem_turns *turns,
				       const struct mm_struct *mm,
				       unsigned long block)
{
	return &turns->turn[hash_long((unsigned long)mm + block,
				      HMM_DEVMEM_TURNS_BITS)];
}

/* A walk that began in @block goes on beyond it. */
static void turn_forget(struct hmm_devmem_turns *turns,
			const struct mm_struct *mm, unsigned long block,
			unsigned int order)
{
	struct hmm_devmem_turn *turn = turn_of(turns, mm, block);

	if (READ_ONCE(turn->mm) == mm && READ_ONCE(turn->page) >> order == block)
		WRITE_ONCE(turn->times, 0);
}

/* Is the page the first or last one of its block? A walk may continue from or into it. */
static bool turns_walk(struct hmm_devmem_turns *turns,
		       const struct mm_struct *mm, unsigned long page,
		       unsigned int order)
{
	const unsigned long last = BIT(order) - 1;

	if (page & last && (page & last) != last)
		return false;
	turn_forget(turns, mm, (page >> order) + (page & last ? 1 : -1), order);
	return true;
}

/* How often in a row, before this time, the block came back because of @page. */
static unsigned int turn_times(struct hmm_devmem_turn *turn,
			       const struct mm_struct *mm, unsigned long page)
{
	if (READ_ONCE(turn->mm) != mm || READ_ONCE(turn->page) != page)
		return 0;
	return READ_ONCE(turn->times);
}

/* Is the entry of another block that may be split soon? */
static bool turn_is_kept(const struct hmm_devmem_turn *turn,
			 const struct mm_struct *mm, unsigned long block,
			 unsigned int order, u32 clock)
{
	if (READ_ONCE(turn->mm) == mm && READ_ONCE(turn->page) >> order == block)
		return false;
	return READ_ONCE(turn->times) &&
	       clock - READ_ONCE(turn->last) < HMM_DEVMEM_TURNS_KEEP;
}

static void trial_begin(struct hmm_devmem_trial *trial,
			const struct mm_struct *mm, unsigned long block,
			u32 clock)
{
	WRITE_ONCE(trial->block, block);
	WRITE_ONCE(trial->pages, 0);
	WRITE_ONCE(trial->start, clock);
	WRITE_ONCE(trial->credit, 0);
	WRITE_ONCE(trial->pause, clock);
	WRITE_ONCE(trial->mm, mm);
}

/* Returns whether few pages came back, so that blocks are to be split. */
static bool trial_end(struct hmm_devmem_trial *trial, unsigned int order,
		      u32 clock)
{
	const bool good = READ_ONCE(trial->pages) <= BIT(order) / 8;

	if (good)
		WRITE_ONCE(trial->credit, HMM_DEVMEM_TURNS_CREDIT);
	else
		WRITE_ONCE(trial->pause, clock + HMM_DEVMEM_TURNS_PAUSE);
	WRITE_ONCE(trial->block, HMM_DEVMEM_NO_BLOCK);
	return good;
}

/* May a block that was touched before at the time of @last be split? */
static bool turns_may_split(struct hmm_devmem_turns *turns,
			    const struct mm_struct *mm, unsigned long block,
			    unsigned int order, u32 last)
{
	struct hmm_devmem_trial *trial = hmm_devmem_turns_trial(turns, mm);
	const unsigned int credit = READ_ONCE(trial->credit);
	const u32 clock = READ_ONCE(turns->clock);

	if (READ_ONCE(trial->mm) == mm) {
		if (credit) {
			WRITE_ONCE(trial->credit, credit - 1);
			return true;
		}
		/* The block has come back since the trial began, and is touched again. */
		if (READ_ONCE(trial->block) != HMM_DEVMEM_NO_BLOCK)
			return (s32)(last - READ_ONCE(trial->start)) > 0 &&
			       trial_end(trial, order, clock);
		if ((s32)(clock - READ_ONCE(trial->pause)) < 0)
			return false;
	}
	trial_begin(trial, mm, block, clock);
	return true;
}

/**
 * hmm_devmem_turns_split() - Decide whether a block that the CPU touches is split
 * @turns: What is remembered.
 * @mm: The process.
 * @page: The page that it has touched.
 * @order: Pages of a block, log2.
 *
 * Context: Any context.
 * Return: True if the CPU seems to need few pages of the block.
 */
bool hmm_devmem_turns_split(struct hmm_devmem_turns *turns,
			    const struct mm_struct *mm, unsigned long page,
			    unsigned int order)
{
	const unsigned long block = page >> order;
	const u32 clock = READ_ONCE(turns->clock) + 1;
	struct hmm_devmem_turn *turn;
	unsigned int times;

	WRITE_ONCE(turns->clock, clock);
	if (turns_walk(turns, mm, page, order))
		return false;
	turn = turn_of(turns, mm, block);
	if (turn_is_kept(turn, mm, block, order, clock))
		return false;
	times = turn_times(turn, mm, page);
	if (times >= HMM_DEVMEM_TURNS_WHOLE &&
	    turns_may_split(turns, mm, block, order, READ_ONCE(turn->last))) {
		WRITE_ONCE(turn->times, 0);
		return true;
	}
	WRITE_ONCE(turn->mm, mm);
	WRITE_ONCE(turn->page, page);
	WRITE_ONCE(turn->times, times + 1);
	WRITE_ONCE(turn->last, clock);
	return false;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_turns_split);
