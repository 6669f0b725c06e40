/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface between lib/test_hmm_devmem.c and the programs that test it.
 * Private to the two: it can change with every version.
 *
 * The first ten ioctls are those of lib/test_hmm.c. What is different:
 *
 * - Data on the device stays there when a file is closed.
 * - A read or write that fails in the middle has accessed the pages before that.
 * - After the migration, TO_DEVICE reads the data from the device only: it fails with
 *   -ENOENT at a page that is not there. TO_DEVICE and TO_RAM refuse a range that is
 *   not all mapped and readable with -EINVAL before they move anything; TO_DEVICE_ONLY
 *   refuses one that is not mapped at all.
 * - An ioctl that does not exist fails with -ENOTTY.
 * - RELEASE removes the device memory, and the next ioctl that needs it adds it again.
 *   After UNPLUG, ioctls that need it fail with -ENODEV until PLUG adds it again.
 * - READ on the classic device, which takes no page faults, reads pages on the device
 *   and fails with -ENOENT at others. FLAGS, EVICT, INJECT, LOSE, FAIL_NEXT, SUSPEND
 *   and MIGRATE fail with -EOPNOTSUPP there, as do the ioctls for buffers and for lent
 *   blocks.
 */
#ifndef _LIB_TEST_HMM_DEVMEM_UAPI_H
#define _LIB_TEST_HMM_DEVMEM_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct hmm_devmem_test_cmd - argument of most ioctls
 * @addr: (in) User address, a multiple of the page size.
 * @ptr: (in) User buffer that data is copied to or from.
 * @npages: (in) Number of pages at @addr.
 * @cpages: (out) Number of pages the call was successful for.
 * @faults: (out) Number of page faults the device took.
 *
 * Same layout as the command of lib/test_hmm_uapi.h, so that the programs
 * written for that driver run on this one.
 */
struct hmm_devmem_test_cmd {
	__u64 addr;
	__u64 ptr;
	__u64 npages;
	__u64 cpages;
	__u64 faults;
};

/* Numbers and meanings of lib/test_hmm_uapi.h. */
#define HMM_DEVMEM_TEST_READ		_IOWR('H', 0x00, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_WRITE		_IOWR('H', 0x01, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_TO_DEVICE	_IOWR('H', 0x02, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_TO_RAM		_IOWR('H', 0x03, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_SNAPSHOT	_IOWR('H', 0x04, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_EXCLUSIVE	_IOWR('H', 0x05, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_CHECK_EXCLUSIVE	_IOWR('H', 0x06, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_RELEASE		_IOWR('H', 0x07, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_FLAGS		_IOWR('H', 0x08, struct hmm_devmem_test_cmd)
#define HMM_DEVMEM_TEST_READ_UNLOCKED	_IOWR('H', 0x09, struct hmm_devmem_test_cmd)

/* For HMM_DEVMEM_TEST_FLAGS, in @npages: the next allocation of a large folio fails. */
#define HMM_DEVMEM_TEST_FLAG_FAIL_ALLOC	0x1ULL

/* One byte a page in the buffer of HMM_DEVMEM_TEST_SNAPSHOT. */
enum {
	HMM_DEVMEM_TEST_PROT_NONE	= 0x00,
	HMM_DEVMEM_TEST_PROT_READ	= 0x01,
	HMM_DEVMEM_TEST_PROT_WRITE	= 0x02,
	HMM_DEVMEM_TEST_PROT_PMD	= 0x04,
	HMM_DEVMEM_TEST_PROT_PUD	= 0x08,
	HMM_DEVMEM_TEST_PROT_ZERO	= 0x10,
	/* The upper four bits are one of these if the page is device memory. */
	HMM_DEVMEM_TEST_PRIVATE_LOCAL	= 0x20,
	HMM_DEVMEM_TEST_PRIVATE_REMOTE	= 0x30,
	HMM_DEVMEM_TEST_COHERENT_LOCAL	= 0x40,
	HMM_DEVMEM_TEST_COHERENT_REMOTE	= 0x50,
	HMM_DEVMEM_TEST_PROT_ERROR	= 0xff,
};

/**
 * struct hmm_devmem_test_stats - the library's counters, and the driver's
 * @size: Pages of device memory.
 * @allocated: See &struct hmm_devmem_stats for this and the next seven.
 * @freed: Device pages freed.
 * @to_device: Pages migrated to the device.
 * @to_ram: Pages migrated back to system memory.
 * @faults: CPU faults on device pages.
 * @fault_pages: Pages migrated back by those faults.
 * @evicted: Pages migrated back by their physical address.
 * @copy_errors: Pages not migrated because of a failed copy or DMA mapping.
 * @contexts: Contexts of this device that have not been released.
 * @kills: How often the device's kill callback ran since the module was loaded.
 * @cleanups: How often its cleanup callback ran since then.
 * @plugged: 1 if the device is there, 0 after HMM_DEVMEM_TEST_UNPLUG; then
 *	the fields up to @copy_errors, @lost and @pfn_first are 0.
 * @lost: See &struct hmm_devmem_stats.
 * @pfn_first: First pfn of device memory.
 * @in_flight: The most copies that were in flight at the same time since it was
 *	plugged.
 * @bad_power: Copies that began while the device was, or could have been, suspended.
 * @copies: How often the device was asked to copy, in either direction.
 * @resumes: How often runtime power management has resumed the device.
 * @mm_locks: Processes that are in HMM_DEVMEM_TEST_LOCK_MM.
 * @copying: Copies that are in flight now.
 * @device_faults: See &struct hmm_devmem_stats for this and the next two; 0 if @plugged is.
 * @device_fault_pages: Pages migrated to the device by its page faults.
 * @device_fault_used: Those that the device is known to have used.
 * @commands: Commands of these copies, one for each run.
 */
struct hmm_devmem_test_stats {
	__u64 size;
	__u64 allocated;
	__u64 freed;
	__u64 to_device;
	__u64 to_ram;
	__u64 faults;
	__u64 fault_pages;
	__u64 evicted;
	__u64 copy_errors;
	__u64 contexts;
	__u64 kills;
	__u64 cleanups;
	__u64 plugged;
	__u64 lost;
	__u64 pfn_first;
	__u64 in_flight;
	__u64 bad_power;
	__u64 copies;
	__u64 resumes;
	__u64 mm_locks;
	__u64 copying;
	__u64 device_faults;
	__u64 device_fault_pages;
	__u64 device_fault_used;
	__u64 commands;
};

/**
 * struct hmm_devmem_test_evict - argument of HMM_DEVMEM_TEST_EVICT
 * @first: (in) First page, counted from the start of device memory.
 * @npages: (in) Number of pages.
 * @left: (out) Pages in use in that range that could not be moved.
 * @busy: (out) How many of those were in use, see &struct hmm_devmem_left.
 * @no_memory: (out) How many of those found no system memory.
 * @not_copied: (out) How many of those were not copied by the device.
 */
struct hmm_devmem_test_evict {
	__u64 first;
	__u64 npages;
	__u64 left;
	__u64 busy;
	__u64 no_memory;
	__u64 not_copied;
};

/**
 * struct hmm_devmem_test_migrate - argument of HMM_DEVMEM_TEST_MIGRATE
 * @addr: (in) User address, a multiple of the page size.
 * @npages: (in) Number of pages.
 * @moved: (out) How many are on the device now.
 * @busy: (out) How many are not, because they are in use, see &struct hmm_devmem_left.
 * @no_device_memory: (out) How many found no device memory.
 * @no_memory: (out) For how many the kernel had no memory.
 * @not_copied: (out) How many were not copied by the device.
 * @not_suitable: (out) How many are of a kind that does not move.
 * @callbacks: (out) How many callbacks of the driver have got the request's priv.
 */
struct hmm_devmem_test_migrate {
	__u64 addr;
	__u64 npages;
	__u64 moved;
	__u64 busy;
	__u64 no_device_memory;
	__u64 no_memory;
	__u64 not_copied;
	__u64 not_suitable;
	__u64 callbacks;
};

/**
 * struct hmm_devmem_test_range - argument of HMM_DEVMEM_TEST_LOSE
 * @first: (in) First page, counted from the start of device memory.
 * @npages: (in) Number of pages.
 */
struct hmm_devmem_test_range {
	__u64 first;
	__u64 npages;
};

/* How HMM_DEVMEM_TEST_PLUG_AS adds device memory. */
#define HMM_DEVMEM_TEST_LAZY		0x01	/* HMM_DEVMEM_LAZY */
#define HMM_DEVMEM_TEST_DMA		0x02	/* HMM_DEVMEM_DMA */
#define HMM_DEVMEM_TEST_RECLAIM		0x04	/* HMM_DEVMEM_RECLAIM */
#define HMM_DEVMEM_TEST_RUNTIME_PM	0x08	/* HMM_DEVMEM_RUNTIME_PM */
#define HMM_DEVMEM_TEST_ASYNC		0x10	/* a worker copies */
#define HMM_DEVMEM_TEST_SYNC		0x20	/* no copy_wait() */
#define HMM_DEVMEM_TEST_COMMON		0x40	/* devices with this flag have one owner */
#define HMM_DEVMEM_TEST_BAD		0x80	/* some pages are bad from the start */
#define HMM_DEVMEM_TEST_SHARED		0x100	/* HMM_DEVMEM_SHARED: see vram.c */
#define HMM_DEVMEM_TEST_PLUG_FLAGS	0x1ff

/**
 * struct hmm_devmem_test_plug - argument of HMM_DEVMEM_TEST_PLUG_AS
 * @size: (in) Bytes of device memory, a multiple of the page size and not more
 *	than the device has; 0 for all. Only for private memory.
 * @flags: (in) HMM_DEVMEM_TEST_LAZY and so on.
 * @delay_us: (in) With HMM_DEVMEM_TEST_ASYNC, how long a copy takes at least, up
 *	to a second.
 * @reserve: (in) With HMM_DEVMEM_TEST_SHARED, bytes that processes can claim from buffers;
 *	0 without.
 */
struct hmm_devmem_test_plug {
	__u64 size;
	__u64 reserve;
	__u32 flags;
	__u32 delay_us;
};

/* Bits for HMM_DEVMEM_TEST_FAIL_NEXT: the first of these to be tried fails. */
#define HMM_DEVMEM_TEST_NO_DEVICE	0x01	/* device pages */
#define HMM_DEVMEM_TEST_NO_DEVICE_LARGE	0x02	/* a large device folio */
#define HMM_DEVMEM_TEST_NO_RAM		0x04	/* a page of system memory */
#define HMM_DEVMEM_TEST_NO_RAM_LARGE	0x08	/* a large folio of it */
#define HMM_DEVMEM_TEST_NO_DMA		0x10	/* to map a run for DMA */
#define HMM_DEVMEM_TEST_NO_BLOCKS	0x20	/* blocks of the driver's memory manager */
#define HMM_DEVMEM_TEST_FAIL_STEPS	0x3f

/* What HMM_DEVMEM_TEST_INJECT makes fail. */
enum hmm_devmem_test_fail {
	HMM_DEVMEM_TEST_FAIL_NONE,		/* nothing; takes back what was asked for */
	HMM_DEVMEM_TEST_FAIL_TO_DEVICE,		/* copy_to_device() returns an error */
	HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN,	/* one run has an error */
	HMM_DEVMEM_TEST_FAIL_TO_RAM,		/* copy_to_ram() returns an error */
	HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN,	/* one run has an error */
	HMM_DEVMEM_TEST_FAIL_WAIT,		/* copy_wait() returns an error */
	HMM_DEVMEM_TEST_FAIL_GONE,		/* copies return -ENODEV */
	HMM_DEVMEM_TEST_FAIL_MAX,
};

/**
 * struct hmm_devmem_test_inject - argument of HMM_DEVMEM_TEST_INJECT
 * @what: (in) An enum hmm_devmem_test_fail.
 * @skip: (in) How many calls (or runs) shall still succeed.
 * @times: (in) How many fail after that; ~0 for all.
 * @error: (in) Which errno that is, as a positive number; 0 for EIO. Not used for
 *	HMM_DEVMEM_TEST_FAIL_GONE.
 *
 * A failing copy fills its destination with a pattern first: no process may ever
 * see that. The injection is one of the device, whichever open file asks for it.
 */
struct hmm_devmem_test_inject {
	__u32 what;
	__u32 skip;
	__u32 times;
	__u32 error;
};

/* Unused device memory, and the destination of a failed copy, is filled with this. */
#define HMM_DEVMEM_TEST_FILL		0x6b5a7e57d00dfeedULL

#define HMM_DEVMEM_TEST_STATS		_IOR('H', 0x20, struct hmm_devmem_test_stats)
#define HMM_DEVMEM_TEST_EVICT		_IOWR('H', 0x21, struct hmm_devmem_test_evict)
#define HMM_DEVMEM_TEST_INJECT		_IOW('H', 0x22, struct hmm_devmem_test_inject)
#define HMM_DEVMEM_TEST_UNPLUG		_IO('H', 0x23)
#define HMM_DEVMEM_TEST_PLUG		_IO('H', 0x24)
/* Like TO_DEVICE, but without the copy of the data to @ptr. */
#define HMM_DEVMEM_TEST_TO_DEVICE_ONLY	_IOWR('H', 0x25, struct hmm_devmem_test_cmd)

/* As PLUG, but with other properties; the next PLUG is an ordinary one again. */
#define HMM_DEVMEM_TEST_PLUG_AS		_IOW('H', 0x26, struct hmm_devmem_test_plug)
#define HMM_DEVMEM_TEST_SUSPEND		_IO('H', 0x27)
#define HMM_DEVMEM_TEST_RESUME		_IO('H', 0x28)
/* The device has lost the content of these pages. */
#define HMM_DEVMEM_TEST_LOSE		_IOW('H', 0x29, struct hmm_devmem_test_range)
#define HMM_DEVMEM_TEST_MARK_DEAD	_IO('H', 0x2a)
#define HMM_DEVMEM_TEST_FAIL_NEXT	_IOW('H', 0x2b, __u32)
/*
 * Keep the mmap lock of the caller until it is killed. The argument is not a pointer
 * but the caller's process id, so that no program does this by mistake.
 */
#define HMM_DEVMEM_TEST_LOCK_MM		_IO('H', 0x2c)

#define HMM_DEVMEM_TEST_FAULT_WRITE	0x01	/* a write, else a read */
#define HMM_DEVMEM_TEST_FAULT_MIGRATE	0x02	/* pages move to the device */
/*
 * The device takes page faults for the range, from its front to its end, without access
 * to the data. @ptr is HMM_DEVMEM_TEST_FAULT_* flags.
 */
#define HMM_DEVMEM_TEST_FAULT		_IOWR('H', 0x2d, struct hmm_devmem_test_cmd)
/*
 * How many pages of the range the device's page table maps (@cpages), and how many of
 * those are on the device (@faults). Changes nothing.
 */
#define HMM_DEVMEM_TEST_MAPPED		_IOWR('H', 0x2e, struct hmm_devmem_test_cmd)

/**
 * struct hmm_devmem_test_access - one of many accesses
 * @first: Number of the first page, counted from &hmm_devmem_test_replay.addr.
 * @nr: How many pages.
 * @op: Whether the device or the CPU accesses them.
 */
struct hmm_devmem_test_access {
	__u64 first;
	__u32 nr;
	__u32 op;
#define HMM_DEVMEM_TEST_ACCESS_DEVICE	0
#define HMM_DEVMEM_TEST_ACCESS_CPU	1
};

/**
 * struct hmm_devmem_test_replay - argument of HMM_DEVMEM_TEST_REPLAY
 * @addr: (in) Start of memory of the caller, a multiple of the page size.
 * @npages: (in) Its size.
 * @accesses: (in) Pointer to an array of struct hmm_devmem_test_access.
 * @nr: (in) Its length.
 * @flags: (in) HMM_DEVMEM_TEST_REPLAY_* flags.
 * @faults: (out) Number of page faults of the device.
 *
 * The device accesses memory on the device only: if a page is not there, it takes a
 * page fault, for which the library's mirror migrates the pages that it chooses.
 */
struct hmm_devmem_test_replay {
	__u64 addr;
	__u64 npages;
	__u64 accesses;
	__u32 nr;
	__u32 flags;
	__u64 faults;
};

/* The driver reports by hmm_devmem_mark_used() which pages the device uses. */
#define HMM_DEVMEM_TEST_REPLAY_HINTS	0x1

#define HMM_DEVMEM_TEST_REPLAY		_IOWR('H', 0x2f, struct hmm_devmem_test_replay)

/**
 * struct hmm_devmem_test_buffer - argument of HMM_DEVMEM_TEST_BUFFER_*
 * @id: (out of ALLOC, in for the others) Number of the buffer.
 * @nr_blocks: (in for ALLOC) Its size, in blocks of 2 MiB.
 * @wrong: (out of TOUCH) How many words are not what was written before.
 *
 * Buffers compete with pages of processes for the memory of a device that was plugged
 * with HMM_DEVMEM_TEST_SHARED. They are freed with the open file.
 */
struct hmm_devmem_test_buffer {
	__u64 id;
	__u64 nr_blocks;
	__u64 wrong;
};

/**
 * struct hmm_devmem_test_owners - argument of HMM_DEVMEM_TEST_OWNERS
 * @nr_blocks: (out) Number of blocks of the device.
 * @lent: (out) How many of those the library has.
 * @buffers: (out) How many have buffers.
 * @evictions: (out) How often a buffer was evicted since the device was plugged.
 * @wrong_puts: (out) How many blocks the library gave back that it did not have.
 */
struct hmm_devmem_test_owners {
	__u64 nr_blocks;
	__u64 lent;
	__u64 buffers;
	__u64 evictions;
	__u64 wrong_puts;
};

#define HMM_DEVMEM_TEST_BUFFER_ALLOC	_IOWR('H', 0x30, struct hmm_devmem_test_buffer)
/* Get it onto the device, compare its content, and write another one. */
#define HMM_DEVMEM_TEST_BUFFER_TOUCH	_IOWR('H', 0x31, struct hmm_devmem_test_buffer)
#define HMM_DEVMEM_TEST_BUFFER_FREE	_IOW('H', 0x32, struct hmm_devmem_test_buffer)
#define HMM_DEVMEM_TEST_OWNERS		_IOR('H', 0x33, struct hmm_devmem_test_owners)
/* In: how many bytes the library is to give back. Out: how many it has given back. */
#define HMM_DEVMEM_TEST_SHRINK		_IOWR('H', 0x34, __u64)
/* Offset of the block that the library is to give back, in bytes. */
#define HMM_DEVMEM_TEST_WITHDRAW	_IOW('H', 0x35, __u64)
/*
 * Like TO_DEVICE_ONLY, but without the mirror, so that the device takes page faults
 * afterwards, and with the reasons why pages did not move.
 */
#define HMM_DEVMEM_TEST_MIGRATE		_IOWR('H', 0x36, struct hmm_devmem_test_migrate)

#endif /* _LIB_TEST_HMM_DEVMEM_UAPI_H */
