/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Waiting for what must happen, however slow the machine is; often that struct pages go.
 */
#ifndef _HMM_DEVMEM_WAIT_TEST_H
#define _HMM_DEVMEM_WAIT_TEST_H

#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/memremap.h>
#include <linux/sched.h>

/* For how long to wait for what must happen: a wait that takes longer never ends. */
#define HANG_LIMIT	(900 * HZ)

/* Wait until something is true; returns whether it is. */
#define soon(condition)							\
({									\
	const unsigned long __end = jiffies + HANG_LIMIT;		\
	bool __is;							\
									\
	while (!(__is = (condition)) && time_before(jiffies, __end))	\
		msleep(20);						\
	__is;								\
})

/* Does core find struct pages there? */
static inline bool has_pagemap(unsigned long pfn)
{
	struct dev_pagemap *pagemap = get_dev_pagemap(pfn);

	put_dev_pagemap(pagemap);
	return pagemap;
}

/*
 * For code that must not sleep: wait for a second, and until @task has been asleep for half
 * a second, so that it has done all that it can do by itself. The caller can be a reader
 * that RCU waits for, or have no test at hand: so a task that never sleeps gives a warning.
 */
static inline void delay_until_asleep(struct task_struct *task)
{
	const unsigned long end = jiffies + HANG_LIMIT;
	unsigned int i, asleep = 0;

	for (i = 0; (i < 50 || asleep < 25) && time_before(jiffies, end); i++) {
		mdelay(20);
		asleep = task_is_running(task) ? 0 : asleep + 1;
	}
	WARN(asleep < 25, "a task does not fall asleep\n");
}

#endif /* _HMM_DEVMEM_WAIT_TEST_H */
