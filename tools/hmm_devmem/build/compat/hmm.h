/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What <linux/hmm.h> of kernels older than 7.3 does not have. Only there graft adds this
 * file, and the line that includes it.
 */
#ifndef _HMM_DEVMEM_COMPAT_HMM_H
#define _HMM_DEVMEM_COMPAT_HMM_H

#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/mmap_lock.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/signal.h>

/**
 * hmm_range_fault_unlocked_timeout() - Walk a range, again as long as it is invalidated
 * @range: What to walk. Its notifier_seq is set.
 * @timeout: For how many jiffies to try.
 *
 * Unlike newer kernels this keeps the mmap lock while the CPU's fault handler runs: where
 * that has to wait for a userfaultfd monitor, the walk fails.
 *
 * Context: Process context, may sleep. The caller does not hold the mmap lock.
 * Return: 0; %-EINTR if a fatal signal is pending; %-EBUSY if the range was invalidated
 * until the end; or another errno of hmm_range_fault().
 */
static inline int hmm_range_fault_unlocked_timeout(struct hmm_range *range,
						   unsigned long timeout)
{
	const unsigned long end = jiffies + timeout;
	struct mm_struct *mm = range->notifier->mm;
	int ret;

	do {
		range->notifier_seq = mmu_interval_read_begin_timeout(range->notifier, timeout);
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = mmap_read_lock_killable(mm);
		if (ret)
			return ret;
		ret = hmm_range_fault(range);
		mmap_read_unlock(mm);
	} while (ret == -EBUSY && time_before(jiffies, end));
	return ret;
}

#endif
