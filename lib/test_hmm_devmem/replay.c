// SPDX-License-Identifier: GPL-2.0
/*
 * Many accesses of the device and of the CPU to the memory of a process, in one call.
 */

#include <linux/align.h>
#include <linux/bits.h>
#include <linux/cleanup.h>
#include <linux/errno.h>
#include <linux/hmm_devmem.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "test_hmm_devmem.h"

#define THD_BLOCK_PAGES		BIT(PMD_ORDER)

/**
 * struct thd_stream - accesses that go on in one of two directions
 * @forward: The page after the last window.
 * @backward: The page before it.
 * @nr: How many pages it had.
 * @continued: How often it was continued.
 */
struct thd_stream {
	u64 forward;
	u64 backward;
	u64 nr;
	unsigned int continued;
};

#define THD_NR_STREAMS		4

/**
 * struct thd_replay - a replay of accesses
 * @mirror: Of the caller.
 * @arg: What the caller wants.
 * @streams: The device's accesses, the latest first.
 */
struct thd_replay {
	struct thd_mirror *mirror;
	struct hmm_devmem_test_replay arg;
	struct thd_stream streams[THD_NR_STREAMS];
};

static unsigned long page_addr(const struct thd_replay *replay, u64 page)
{
	return replay->arg.addr + (page << PAGE_SHIFT);
}

/* The pages [*@first, *@end) that a fault at *@first brings. */
static void fault_window(struct thd_replay *replay, u64 *first, u64 *end)
{
	const u64 page = *first, block = ALIGN_DOWN(page, THD_BLOCK_PAGES);
	struct thd_stream stream = { .nr = 1 };
	bool backward = false;
	unsigned int i;

	for (i = 0; i < THD_NR_STREAMS; i++) {
		const struct thd_stream *known = &replay->streams[i];

		if (page != known->forward && page != known->backward)
			continue;
		backward = page != known->forward;
		stream.continued = known->continued + 1;
		if (stream.continued >= 2)
			stream.nr = min(2 * known->nr, THD_BLOCK_PAGES);
		break;
	}
	*end = backward ? page + 1 : min(block + THD_BLOCK_PAGES, page + stream.nr);
	if (backward)
		*first = max(block + stream.nr, page + 1) - stream.nr;
	stream.nr = *end - *first;
	stream.forward = *end;
	stream.backward = *first - 1;
	memmove(replay->streams + 1, replay->streams,
		min(i, THD_NR_STREAMS - 1U) * sizeof(stream));
	replay->streams[0] = stream;
}

/* The device page at a user page in the device's page table; NULL if there is none. */
static struct page *local_page(struct thd_mirror *mirror, unsigned long index)
{
	struct page *page = NULL;
	void *entry;

	lockdep_assert_held(&mirror->m.lock);

	entry = xa_load(&mirror->table, index);
	if (entry)
		page = thd_entry_page(entry, index);
	return page && thd_mirror_is_local(mirror, page) ? page : NULL;
}

/* How many of @nr pages the device can access without a fault. */
static unsigned int use_local_pages(struct thd_replay *replay,
				    struct hmm_devmem *devmem, u64 first,
				    unsigned int nr)
{
	const unsigned long index = page_addr(replay, first) >> PAGE_SHIFT;
	struct page *page;
	unsigned int i;

	guard(mutex)(&replay->mirror->m.lock);
	for (i = 0; i < nr; i++) {
		page = local_page(replay->mirror, index + i);
		if (!page)
			break;
		if (replay->arg.flags & HMM_DEVMEM_TEST_REPLAY_HINTS)
			hmm_devmem_mark_used(devmem, page_to_pfn(page), 1);
	}
	return i;
}

/* Returns -ENOENT if the page is not on the device then. */
static int device_fault(struct thd_replay *replay, u64 page)
{
	struct thd_mirror *mirror = replay->mirror;
	u64 first = page, end;
	long ret;

	replay->arg.faults++;
	if (replay->arg.flags & HMM_DEVMEM_TEST_REPLAY_BLOCKS) {
		first = ALIGN_DOWN(page, THD_BLOCK_PAGES);
		end = first + THD_BLOCK_PAGES;
	} else {
		fault_window(replay, &first, &end);
	}
	end = min(end, replay->arg.npages);
	ret = hmm_devmem_mirror_migrate(&mirror->m, page_addr(replay, first),
					page_addr(replay, end));
	if (ret < 0)
		return ret;
	/* What was there already is not mapped by a migration. */
	ret = hmm_devmem_mirror_fault(&mirror->m, page_addr(replay, page),
				      HMM_DEVMEM_MIRROR_PRESENT);
	if (ret < 0)
		return ret;
	guard(mutex)(&mirror->m.lock);
	return local_page(mirror, page_addr(replay, page) >> PAGE_SHIFT) ? 0 : -ENOENT;
}

/* Without this, a call for a range that is not mapped would take page by page. */
static int check_mapped(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, addr);
	mmap_read_unlock(mm);
	return vma ? 0 : -EFAULT;
}

/* A page that cannot be brought to the device is accessed where it is. */
static int device_access(struct thd_replay *replay, struct hmm_devmem *devmem,
			 u64 page, unsigned int nr)
{
	unsigned int done;
	int ret;

	while (nr) {
		done = use_local_pages(replay, devmem, page, nr);
		page += done;
		nr -= done;
		if (!nr)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = device_fault(replay, page);
		if (ret == -ENOENT) {
			ret = check_mapped(current->mm, page_addr(replay, page));
			page++;
			nr--;
		}
		if (ret)
			return ret;
	}
	return 0;
}

/* Reads a byte of each page, as a program does. */
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
	int ret;

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
	thd_mirror_set_devmem(replay->mirror);
	ret = device_access(replay, devmem, access->first, access->nr);
	thd_leave(tdev);
	return ret;
}

static bool range_is_valid(const struct hmm_devmem_test_replay *arg)
{
	u64 size, end;

	return PAGE_ALIGNED(arg->addr) &&
	       !check_mul_overflow(arg->npages, (u64)PAGE_SIZE, &size) &&
	       !check_add_overflow(arg->addr, size, &end) && end <= ULONG_MAX;
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
 * * others - from a migration to the device
 */
int thd_replay(struct thd_mirror *mirror, void __user *arg)
{
	struct thd_replay replay = { .mirror = mirror };
	unsigned int i;
	int ret;

	if (copy_from_user(&replay.arg, arg, sizeof(replay.arg)))
		return -EFAULT;
	if (mirror->m.notifier.mm != current->mm || mirror->tdev->classic ||
	    !range_is_valid(&replay.arg) ||
	    replay.arg.flags & ~(HMM_DEVMEM_TEST_REPLAY_HINTS |
				 HMM_DEVMEM_TEST_REPLAY_BLOCKS))
		return -EINVAL;
	for (i = 0; i < THD_NR_STREAMS; i++)
		replay.streams[i] = (struct thd_stream) {
			.forward = U64_MAX, .backward = U64_MAX,
		};
	replay.arg.faults = 0;
	ret = replay_all(&replay);
	if (copy_to_user(arg, &replay.arg, sizeof(replay.arg)))
		return -EFAULT;
	return ret;
}
