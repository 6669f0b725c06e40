// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctl that reports how the CPU's page table maps a range. Uses an MMU notifier of its
 * own, besides the mirror's, so that two notifiers of one range are tested.
 */

#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "test_hmm_devmem.h"

/* Pages of one hmm_range_fault(): as many entries as fit on the stack. */
#define THD_SNAPSHOT_PAGES	32

/**
 * struct thd_snapshot - a look at the CPU's page table
 * @notifier: The MMU notifier for the range.
 * @lock: Taken by invalidations; held while what was found is evaluated.
 * @mirror: The mirror of the process.
 * @range: The argument of hmm_range_fault().
 * @pfns: The pages found, as hmm_range_fault() gives them.
 * @prot: What userspace gets for the pages found: HMM_DEVMEM_TEST_PROT_* bytes.
 */
struct thd_snapshot {
	struct mmu_interval_notifier notifier;
	struct mutex lock; /* see above */
	struct thd_mirror *mirror;
	struct hmm_range range;
	unsigned long pfns[THD_SNAPSHOT_PAGES];
	u8 prot[THD_SNAPSHOT_PAGES];
};

static bool snapshot_invalidate(struct mmu_interval_notifier *notifier,
				const struct mmu_notifier_range *range,
				unsigned long seq)
{
	struct thd_snapshot *snapshot =
		container_of(notifier, struct thd_snapshot, notifier);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&snapshot->lock);
	else if (!mutex_trylock(&snapshot->lock))
		return false;
	mmu_interval_set_seq(notifier, seq);
	mutex_unlock(&snapshot->lock);
	return true;
}

static const struct mmu_interval_notifier_ops snapshot_notifier_ops = {
	.invalidate = snapshot_invalidate,
};

static u8 page_location(const struct thd_mirror *mirror,
			const struct page *page)
{
	const bool local = thd_mirror_is_local(mirror, page);

	if (is_device_private_page(page))
		return local ? HMM_DEVMEM_TEST_PRIVATE_LOCAL :
			       HMM_DEVMEM_TEST_PRIVATE_REMOTE;
	if (is_device_coherent_page(page))
		return local ? HMM_DEVMEM_TEST_COHERENT_LOCAL :
			       HMM_DEVMEM_TEST_COHERENT_REMOTE;
	if (is_zero_pfn(page_to_pfn(page)))
		return HMM_DEVMEM_TEST_PROT_ZERO;
	return HMM_DEVMEM_TEST_PROT_NONE;
}

static u8 pfn_prot(const struct thd_mirror *mirror, unsigned long pfn)
{
	unsigned int order;
	u8 prot;

	if (pfn & HMM_PFN_ERROR)
		return HMM_DEVMEM_TEST_PROT_ERROR;
	if (!(pfn & HMM_PFN_VALID))
		return HMM_DEVMEM_TEST_PROT_NONE;

	prot = page_location(mirror, hmm_pfn_to_page(pfn));
	prot |= pfn & HMM_PFN_WRITE ? HMM_DEVMEM_TEST_PROT_WRITE :
				      HMM_DEVMEM_TEST_PROT_READ;
	order = hmm_pfn_to_map_order(pfn);
	if (order == PMD_ORDER)
		prot |= HMM_DEVMEM_TEST_PROT_PMD;
	else if (order == PUD_ORDER)
		prot |= HMM_DEVMEM_TEST_PROT_PUD;
	return prot;
}

static unsigned int snapshot_nr(const struct thd_snapshot *snapshot)
{
	return (snapshot->range.end - snapshot->range.start) >> PAGE_SHIFT;
}

static int snapshot_try(struct thd_snapshot *snapshot)
{
	struct mm_struct *mm = snapshot->notifier.mm;
	struct hmm_range *range = &snapshot->range;
	unsigned int i;
	int ret;

	range->notifier_seq = mmu_interval_read_begin(range->notifier);
	ret = mmap_read_lock_killable(mm);
	if (ret)
		return ret;
	ret = hmm_range_fault(range);
	mmap_read_unlock(mm);
	if (ret)
		return ret;

	/* No page that was found can be invalidated while the lock is held. */
	guard(mutex)(&snapshot->lock);
	if (mmu_interval_read_retry(range->notifier, range->notifier_seq))
		return -EBUSY;
	for (i = 0; i < snapshot_nr(snapshot); i++)
		snapshot->prot[i] = pfn_prot(snapshot->mirror, snapshot->pfns[i]);
	return 0;
}

/* Look at as many pages as can be done at once. */
static int snapshot_some(struct thd_snapshot *snapshot, unsigned long addr,
			 unsigned long end)
{
	const unsigned long timeout =
		jiffies + msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	unsigned int tries = 0;
	int ret;

	snapshot->range = (struct hmm_range) {
		.notifier = &snapshot->notifier,
		.hmm_pfns = snapshot->pfns,
		.start = addr,
		.end = min(end, addr + THD_SNAPSHOT_PAGES * PAGE_SIZE),
		.dev_private_owner = READ_ONCE(snapshot->mirror->tdev->owner),
	};
	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = snapshot_try(snapshot);
	} while (ret == -EBUSY && !thd_walk_in_vain(timeout, ++tries));
	return ret;
}

static int snapshot_copy(struct thd_snapshot *snapshot,
			 struct hmm_devmem_test_cmd *cmd, unsigned long end)
{
	u8 __user *buffer = u64_to_user_ptr(cmd->ptr);
	unsigned long addr;
	int ret;

	for (addr = cmd->addr; addr < end; addr = snapshot->range.end) {
		ret = snapshot_some(snapshot, addr, end);
		if (ret)
			return ret;
		if (copy_to_user(buffer + cmd->cpages, snapshot->prot,
				 snapshot_nr(snapshot)))
			return -EFAULT;
		cmd->cpages += snapshot_nr(snapshot);
		cond_resched();
	}
	return 0;
}

/**
 * thd_cmd_snapshot() - Report how the CPU's page table maps a range
 * @mirror: The mirror of the process.
 * @cmd: The range, and where the report goes: a byte for each page.
 *
 * Context: Process context, may sleep. Takes the mmap lock.
 * Return: 0 or an errno; then &hmm_devmem_test_cmd.cpages pages were reported.
 */
int thd_cmd_snapshot(struct thd_mirror *mirror, struct hmm_devmem_test_cmd *cmd)
{
	struct thd_snapshot snapshot = { .mirror = mirror };
	const unsigned long size = cmd->npages << PAGE_SHIFT;
	int ret;

	mutex_init(&snapshot.lock);
	ret = mmu_interval_notifier_insert(&snapshot.notifier,
					   mirror->m.notifier.mm, cmd->addr, size,
					   &snapshot_notifier_ops);
	if (ret)
		return ret;
	ret = snapshot_copy(&snapshot, cmd, cmd->addr + size);
	mmu_interval_notifier_remove(&snapshot.notifier);
	return ret;
}
