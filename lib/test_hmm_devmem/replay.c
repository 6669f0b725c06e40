// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctl that replays many accesses of the device and of the CPU to the memory of a
 * process, to compare policies of eviction.
 */

#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/hmm_devmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "test_hmm_devmem.h"

/**
 * struct thd_replay - a replay of accesses
 * @mirror: The mirror of the caller.
 * @arg: The argument of the ioctl.
 */
struct thd_replay {
	struct thd_mirror *mirror;
	struct hmm_devmem_test_replay arg;
};

static unsigned long page_addr(const struct thd_replay *replay, u64 page)
{
	return replay->arg.addr + (page << PAGE_SHIFT);
}

/*
 * Access @nr pages on the device, up to the first one for which it takes a page fault.
 * Returns how many pages that were.
 */
static unsigned int use_local_pages(struct thd_replay *replay, u64 first,
				    unsigned int nr)
{
	struct hmm_devmem_mirror *m = &replay->mirror->m;
	struct page *page;
	unsigned int i;

	guard(mutex)(&m->lock);
	for (i = 0; i < nr; i++) {
		page = thd_mirror_local_page(replay->mirror, page_addr(replay, first + i));
		if (!page)
			break;
		if (replay->arg.flags & HMM_DEVMEM_TEST_REPLAY_HINTS && m->devmem)
			hmm_devmem_mark_used(m->devmem, page_to_pfn(page), 1);
	}
	return i;
}

/* Serve a page fault of the device. Returns -ENOENT if the page is not there afterwards. */
static int device_fault(struct thd_replay *replay, u64 page)
{
	struct thd_mirror *mirror = replay->mirror;
	const unsigned long addr = page_addr(replay, page);
	long ret;

	replay->arg.faults++;
	ret = thd_mirror_fault(mirror, addr, HMM_DEVMEM_MIRROR_MIGRATE);
	if (ret < 0)
		return ret;
	guard(mutex)(&mirror->m.lock);
	return thd_mirror_local_page(mirror, addr) ? 0 : -ENOENT;
}

/* A page that cannot be brought to the device is accessed where it is. */
static int device_access(struct thd_replay *replay, u64 page, unsigned int nr)
{
	unsigned int done;
	int ret;

	while (nr) {
		done = use_local_pages(replay, page, nr);
		page += done;
		nr -= done;
		if (!nr)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = device_fault(replay, page);
		if (ret && ret != -ENOENT)
			return ret;
		page += !!ret;
		nr -= !!ret;
	}
	return 0;
}

/* Let the CPU read a byte of each page. */
static int cpu_access(struct thd_replay *replay, u64 page, unsigned int nr)
{
	const char __user *start = (const char __user *)page_addr(replay, page);

	return fault_in_readable(start, (size_t)nr << PAGE_SHIFT) ? -EFAULT : 0;
}

static int replay_access(struct thd_replay *replay,
			 const struct hmm_devmem_test_access *access)
{
	struct thd_device *tdev = replay->mirror->tdev;
	struct hmm_devmem *devmem;

	if (access->first >= replay->arg.npages ||
	    access->nr > replay->arg.npages - access->first)
		return -EINVAL;
	if (access->op == HMM_DEVMEM_TEST_ACCESS_CPU)
		return cpu_access(replay, access->first, access->nr);
	if (access->op != HMM_DEVMEM_TEST_ACCESS_DEVICE)
		return -EINVAL;
	devmem = thd_enter(tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	/* A fault can wait for the process, which may want to unplug the device. */
	thd_leave(tdev);
	return device_access(replay, access->first, access->nr);
}

static int replay_all(struct thd_replay *replay)
{
	const struct hmm_devmem_test_access __user *next =
		u64_to_user_ptr(replay->arg.accesses);
	struct hmm_devmem_test_access access;
	int ret = 0;
	u32 i;

	for (i = 0; !ret && i < replay->arg.nr; i++) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (copy_from_user(&access, next + i, sizeof(access)))
			return -EFAULT;
		ret = replay_access(replay, &access);
		cond_resched();
	}
	return ret;
}

/**
 * thd_replay() - Replay accesses of the device and of the CPU
 * @mirror: The mirror of the caller.
 * @arg: A struct hmm_devmem_test_replay.
 *
 * Context: Process context, may sleep.
 * Return:
 * * %0 - done
 * * %-EINVAL - an argument is out of range, or @mirror is of another process
 * * %-EFAULT - an argument, or memory that is accessed, is not mapped
 * * %-EINTR - the process is being killed
 * * others - from hmm_devmem_mirror_fault()
 */
int thd_replay(struct thd_mirror *mirror, void __user *arg)
{
	struct thd_replay replay = { .mirror = mirror };
	int ret;

	if (copy_from_user(&replay.arg, arg, sizeof(replay.arg)))
		return -EFAULT;
	if (mirror->m.notifier.mm != current->mm || mirror->tdev->classic ||
	    !PAGE_ALIGNED(replay.arg.addr) ||
	    !thd_range_is_valid(replay.arg.addr, replay.arg.npages) ||
	    replay.arg.flags & ~HMM_DEVMEM_TEST_REPLAY_HINTS)
		return -EINVAL;
	replay.arg.faults = 0;
	ret = replay_all(&replay);
	if (copy_to_user(arg, &replay.arg, sizeof(replay.arg)))
		return -EFAULT;
	return ret;
}
