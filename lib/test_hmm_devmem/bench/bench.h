/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Private to the benchmark's module, see main.c.
 */
#ifndef _LIB_TEST_HMM_DEVMEM_BENCH_H
#define _LIB_TEST_HMM_DEVMEM_BENCH_H

#include <linux/hmm_devmem.h>
#include <linux/types.h>

#include "uapi.h"

struct device;
struct folio;
struct mm_struct;
struct page;

/**
 * struct bench_kind - what differs between the kinds of device memory
 * @add: Adds device memory of that many bytes.
 * @remove: Removes it.
 * @alloc: Allocates a folio, locked and with one reference, or returns NULL.
 * @migrate: Moves a range of a process, returns the number of pages moved.
 */
struct bench_kind {
	int (*add)(struct device *device, u64 size);
	void (*remove)(void);
	struct folio *(*alloc)(unsigned int order);
	long (*migrate)(struct mm_struct *mm, unsigned long start,
			unsigned long end, enum hmm_devmem_dir dir);
};

/* main.c */
int bench_copy(u64 offset, struct page *ram, unsigned int nr,
	       enum hmm_devmem_dir dir);

/* alloc.c */
int bench_alloc(const struct bench_kind *kind,
		struct hmm_devmem_bench_alloc *arg);

/* bare.c */
extern const struct bench_kind bench_bare;
void bench_bare_set_window(unsigned int nr);

/* library.c */
extern const struct bench_kind bench_eager;
extern const struct bench_kind bench_lazy;
long bench_library_evict(void);

#endif /* _LIB_TEST_HMM_DEVMEM_BENCH_H */
