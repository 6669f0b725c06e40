/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The harness, with a limit for each test that is there for hangs only: kernels with
 * all checks on, in an emulated machine of which others want something, too, can be a
 * hundred times slower than others.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_HARNESS_H
#define _SELFTESTS_HMM_DEVMEM_HARNESS_H

#include "kselftest_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3600

#endif /* _SELFTESTS_HMM_DEVMEM_HARNESS_H */
