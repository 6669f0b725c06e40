/* SPDX-License-Identifier: GPL-2.0 */
/* <linux/swapops.h> of kernels older than 7.3 uses this, but leaves including it to others. */
#ifndef _HMM_DEVMEM_COMPAT_SWAPOPS_H
#define _HMM_DEVMEM_COMPAT_SWAPOPS_H

#include <linux/swap.h>

#endif
