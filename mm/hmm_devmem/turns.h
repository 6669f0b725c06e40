/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whether to split a large folio that the CPU touches: see turns.c. Nothing here knows of
 * struct page; a page is a user address divided by the page size.
 */
#ifndef _MM_HMM_DEVMEM_TURNS_H
#define _MM_HMM_DEVMEM_TURNS_H

#include <linux/bits.h>
#include <linux/compiler.h>
#include <linux/hash.h>
#include <linux/types.h>

struct mm_struct;

/* How often a block comes back as a whole before it may be split. */
#define HMM_DEVMEM_TURNS_WHOLE	2
/* How many blocks come back before the entry of one that was not split is replaced. */
#define HMM_DEVMEM_TURNS_KEEP	4096
/* How many blocks are split after a trial in which few pages came back. */
#define HMM_DEVMEM_TURNS_CREDIT	64
/* After a trial in which many came back, how many blocks must come back before the next. */
#define HMM_DEVMEM_TURNS_PAUSE	1024

/**
 * struct hmm_devmem_turn - a block that the CPU has touched
 * @mm: The process. Only compared, never dereferenced: it may be gone, and another
 *	process may have got its address.
 * @page: The page of the block that was touched first.
 * @times: How often in a row the block came back because of this page.
 * @last: &hmm_devmem_turns.clock at the last of these times.
 */
struct hmm_devmem_turn {
	const struct mm_struct *mm;
	unsigned long page;
	unsigned int times;
	u32 last;
};

/* The value of &hmm_devmem_trial.block when the trial is over. */
#define HMM_DEVMEM_NO_BLOCK	(~0UL)

/**
 * struct hmm_devmem_trial - what was learned of a process
 * @mm: The process, as in &struct hmm_devmem_turn.
 * @block: A block that was split to see how much of it the CPU uses, or
 *	%HMM_DEVMEM_NO_BLOCK.
 * @pages: How many of its pages came back since.
 * @start: &hmm_devmem_turns.clock when it was split.
 * @credit: How many blocks may be split without another trial.
 * @pause: No other trial begins before &hmm_devmem_turns.clock has this value.
 */
struct hmm_devmem_trial {
	const struct mm_struct *mm;
	unsigned long block;
	unsigned int pages;
	u32 start;
	unsigned int credit;
	u32 pause;
};

#define HMM_DEVMEM_TURNS_BITS	6
#define HMM_DEVMEM_TRIALS_BITS	3

/**
 * struct hmm_devmem_turns - blocks that have come back as a whole
 * @clock: Number of faults so far on blocks that a PMD maps.
 * @trial: One for each hash of a process: the latest.
 * @turn: One for each hash of process and block: the latest.
 */
struct hmm_devmem_turns {
	u32 clock;
	struct hmm_devmem_trial trial[BIT(HMM_DEVMEM_TRIALS_BITS)];
	struct hmm_devmem_turn turn[BIT(HMM_DEVMEM_TURNS_BITS)];
};

static inline struct hmm_devmem_trial *
hmm_devmem_turns_trial(struct hmm_devmem_turns *turns,
		       const struct mm_struct *mm)
{
	return &turns->trial[hash_long((unsigned long)mm, HMM_DEVMEM_TRIALS_BITS)];
}

bool hmm_devmem_turns_split(struct hmm_devmem_turns *turns,
			    const struct mm_struct *mm, unsigned long page,
			    unsigned int order);

/* Note that small pages of @block come back. Every fault does so. */
static inline void hmm_devmem_turns_count(struct hmm_devmem_turns *turns,
					  const struct mm_struct *mm,
					  unsigned long block, unsigned int nr)
{
	struct hmm_devmem_trial *trial = hmm_devmem_turns_trial(turns, mm);

	/* Racy: what is counted need not be exact. */
	if (unlikely(data_race(trial->mm == mm && trial->block == block)))
		WRITE_ONCE(trial->pages, READ_ONCE(trial->pages) + nr);
}

#endif /* _MM_HMM_DEVMEM_TURNS_H */
