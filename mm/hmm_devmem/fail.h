/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fault injection: see fail.c.
 */
#ifndef _MM_HMM_DEVMEM_FAIL_H
#define _MM_HMM_DEVMEM_FAIL_H

#include <linux/compiler.h>
#include <linux/fault-inject.h>
#include <linux/hmm_devmem_fail.h>
#include <linux/sched.h>
#include <linux/types.h>

#include "devmem.h"

struct dentry;

#ifdef CONFIG_FAULT_INJECTION
extern struct fault_attr hmm_devmem_fail_attrs[HMM_DEVMEM_NR_FAIL];

bool __hmm_devmem_should_fail(struct hmm_devmem *devmem,
			      enum hmm_devmem_fail step);

/* Shall @step fail? Inline, because most kernels with fault injection inject nothing here. */
static inline bool hmm_devmem_should_fail(struct hmm_devmem *devmem,
					  enum hmm_devmem_fail step)
{
	if (likely(!READ_ONCE(current->fail_nth) &&
		   !READ_ONCE(priv(devmem)->fail_next) &&
		   !READ_ONCE(hmm_devmem_fail_attrs[step].probability)))
		return false;
	return __hmm_devmem_should_fail(devmem, step);
}

void hmm_devmem_fail_debugfs_init(struct dentry *root);
#else
static inline bool hmm_devmem_should_fail(struct hmm_devmem *devmem,
					  enum hmm_devmem_fail step)
{
	return false;
}

static inline void hmm_devmem_fail_debugfs_init(struct dentry *root)
{
}
#endif

#endif /* _MM_HMM_DEVMEM_FAIL_H */
