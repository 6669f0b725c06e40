/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The harness, with a time limit for each test that only finds hangs: kernels with
 * all checks on, in an emulated machine on a busy host, can be a hundred times
 * slower than others.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_HARNESS_H
#define _SELFTESTS_HMM_DEVMEM_HARNESS_H

#include "kselftest_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3600

/* Tests of upstream's that have a limit of their own get thirty times as long, too. */
#undef TEST_F_TIMEOUT
#define TEST_F_TIMEOUT(fixture, test, timeout)				\
	__TEST_F_IMPL(fixture, test, -1, 30 * (timeout))

#endif /* _SELFTESTS_HMM_DEVMEM_HARNESS_H */
