// SPDX-License-Identifier: GPL-2.0
/*
 * Fault injection: allocations, loans of blocks and DMA mappings can be made to fail.
 */

/**
 * DOC: Fault injection
 *
 * With CONFIG_FAULT_INJECTION the following steps of a transaction can be made to fail:
 * allocating device memory, allocating system memory, mapping it for DMA, and getting
 * blocks that the driver is to lend. They take part in /proc/<pid>/fail-nth, and each has a
 * directory of fault attributes below ``hmm_devmem/`` in debugfs (see
 * Documentation/fault-injection/). Failures of the copy itself are for the driver to inject.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/export.h>
#include <linux/fault-inject.h>

#include "fail.h"

struct fault_attr hmm_devmem_fail_attrs[HMM_DEVMEM_NR_FAIL] = {
	[0 ... HMM_DEVMEM_NR_FAIL - 1] = FAULT_ATTR_INITIALIZER,
};

static const char * const fail_names[HMM_DEVMEM_NR_FAIL] = {
	[HMM_DEVMEM_FAIL_DEVICE] = "fail_device",
	[HMM_DEVMEM_FAIL_DEVICE_LARGE] = "fail_device_large",
	[HMM_DEVMEM_FAIL_RAM] = "fail_ram",
	[HMM_DEVMEM_FAIL_RAM_LARGE] = "fail_ram_large",
	[HMM_DEVMEM_FAIL_DMA] = "fail_dma",
	[HMM_DEVMEM_FAIL_BLOCKS] = "fail_blocks",
};

/**
 * __hmm_devmem_should_fail() - Shall a step fail?
 * @devmem: The device memory.
 * @step: The step.
 *
 * Context: Any context.
 * Return: True if it shall.
 */
bool __hmm_devmem_should_fail(struct hmm_devmem *devmem,
			      enum hmm_devmem_fail step)
{
	const unsigned long next = READ_ONCE(priv(devmem)->fail_next);

	if (unlikely(next & BIT(step)) &&
	    cmpxchg(&priv(devmem)->fail_next, next, 0) == next)
		return true;
	return should_fail(&hmm_devmem_fail_attrs[step], 1);
}

/**
 * hmm_devmem_fail_next() - Let one step fail
 * @devmem: The device memory.
 * @steps: One bit for each &enum hmm_devmem_fail. The first of them to be tried
 *	fails, once; 0 to take back what was asked for before.
 *
 * Context: Any context.
 */
void hmm_devmem_fail_next(struct hmm_devmem *devmem, unsigned long steps)
{
	WRITE_ONCE(priv(devmem)->fail_next, steps);
}
EXPORT_SYMBOL_FOR_MODULES(hmm_devmem_fail_next, "test_hmm_devmem");

/**
 * hmm_devmem_fail_debugfs_init() - Show the fault attributes in debugfs
 * @root: The library's directory in debugfs.
 *
 * Context: Process context, once at boot.
 */
void __init hmm_devmem_fail_debugfs_init(struct dentry *root)
{
	unsigned int i;

	for (i = 0; i < HMM_DEVMEM_NR_FAIL; i++)
		fault_create_debugfs_attr(fail_names[i], root,
					  &hmm_devmem_fail_attrs[i]);
}
