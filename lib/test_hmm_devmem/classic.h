/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The classic driver, see classic.c.
 */
#ifndef _LIB_TEST_HMM_DEVMEM_CLASSIC_H
#define _LIB_TEST_HMM_DEVMEM_CLASSIC_H

#include <linux/types.h>

struct device;
struct hmm_devmem;
struct hmm_devmem_test_stats;
struct mm_struct;
struct thd_classic;
struct thd_hw;

struct thd_classic *thd_classic_create(struct thd_hw *hw, u64 size);
void thd_classic_destroy(struct thd_classic *classic);
struct hmm_devmem *thd_classic_add(struct thd_classic *classic,
				   struct device *dev);
void thd_classic_get_stats(struct thd_classic *classic,
			   struct hmm_devmem_test_stats *stats);

long thd_classic_to_device(struct hmm_devmem *devmem, struct mm_struct *mm,
			   unsigned long start, unsigned long end);
long thd_classic_to_ram(struct hmm_devmem *devmem, struct mm_struct *mm,
			unsigned long start, unsigned long end);

#endif /* _LIB_TEST_HMM_DEVMEM_CLASSIC_H */
