/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface between test_hmm_devmem_bench.ko and
 * tools/testing/selftests/hmm_devmem/bench.c. Private to the two.
 *
 * /dev/hmm_devmem_bench has no memory until HMM_DEVMEM_BENCH_ADD adds some of one
 * kind. Then HMM_DEVMEM_TEST_TO_DEVICE_ONLY and HMM_DEVMEM_TEST_TO_RAM migrate
 * memory of the caller, and CPU faults bring it back. All numbers called "time"
 * are nanoseconds of the kernel's clock, which are instructions when the machine
 * is emulated by "guest --icount".
 */
#ifndef _LIB_TEST_HMM_DEVMEM_BENCH_UAPI_H
#define _LIB_TEST_HMM_DEVMEM_BENCH_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Kinds of device memory. */
enum {
	HMM_DEVMEM_BENCH_BARE,		/* nothing but what core has: the reference */
	HMM_DEVMEM_BENCH_EAGER,		/* the library, all struct pages at once */
	HMM_DEVMEM_BENCH_LAZY,		/* the library, HMM_DEVMEM_LAZY */
	HMM_DEVMEM_BENCH_NR_KINDS,
};

/**
 * struct hmm_devmem_bench_add - argument of HMM_DEVMEM_BENCH_ADD
 * @size: (in) Bytes.
 * @kind: (in) HMM_DEVMEM_BENCH_*.
 * @reserved: (in) 0.
 */
struct hmm_devmem_bench_add {
	__u64 size;
	__u32 kind;
	__u32 reserved;
};

/**
 * struct hmm_devmem_bench_alloc - argument of HMM_DEVMEM_BENCH_ALLOC
 * @batches: (in) Batches of each thread, at most. (out) Batches of all threads.
 * @time: (out) How long the slowest thread took.
 * @order: (in) Size of the folios.
 * @batch: (in) Number of folios that one batch allocates and then frees.
 * @threads: (in) Kernel threads, each on a CPU of its own, that do this at the
 *	same time; 0: the caller does it.
 * @limit_ms: (in) No batch is begun after that many milliseconds; 0: no limit.
 */
struct hmm_devmem_bench_alloc {
	__u64 batches;
	__u64 time;
	__u32 order;
	__u32 batch;
	__u32 threads;
	__u32 limit_ms;
};

/**
 * struct hmm_devmem_bench_evict - argument of HMM_DEVMEM_BENCH_EVICT
 * @time: (out) How long it took to evict all memory.
 * @left: (out) Pages that could not be moved.
 */
struct hmm_devmem_bench_evict {
	__u64 time;
	__u64 left;
};

#define HMM_DEVMEM_BENCH_ADD	_IOW('H', 0x40, struct hmm_devmem_bench_add)
#define HMM_DEVMEM_BENCH_REMOVE	_IO('H', 0x41)
#define HMM_DEVMEM_BENCH_ALLOC	_IOWR('H', 0x42, struct hmm_devmem_bench_alloc)
#define HMM_DEVMEM_BENCH_EVICT	_IOWR('H', 0x43, struct hmm_devmem_bench_evict)
/* Argument: how many pages a CPU fault brings back from memory of kind BARE. */
#define HMM_DEVMEM_BENCH_WINDOW	_IO('H', 0x44)

#endif /* _LIB_TEST_HMM_DEVMEM_BENCH_UAPI_H */
