// SPDX-License-Identifier: GPL-2.0
/*
 * Power management of the test device: system sleep for all managed devices, runtime PM for
 * those that were plugged in with it.
 */

#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/hmm_devmem.h>
#include <linux/pm.h>
#include <linux/pm_runtime.h>
#include <linux/rwsem.h>

#include "test_hmm_devmem.h"

/* Processes are frozen, so no device is plugged or unplugged meanwhile. */
static int thd_suspend(struct device *dev)
{
	struct thd_device *tdev = container_of(dev, struct thd_device, dev);
	int ret;

	guard(rwsem_read)(&tdev->plug_lock);
	if (!tdev->devmem || tdev->classic)
		return 0;
	ret = hmm_devmem_suspend(tdev->devmem);
	/* A device that is gone must not keep the system awake. */
	return ret == -ENODEV ? 0 : ret;
}

static int thd_resume(struct device *dev)
{
	struct thd_device *tdev = container_of(dev, struct thd_device, dev);

	guard(rwsem_read)(&tdev->plug_lock);
	/* A device that runtime PM had suspended before the system slept stays off. */
	if (tdev->plug.flags & HMM_DEVMEM_TEST_RUNTIME_PM &&
	    pm_runtime_status_suspended(dev))
		return 0;
	if (tdev->devmem && !tdev->classic)
		hmm_devmem_resume(tdev->devmem);
	return 0;
}

/* Only tries the lock: a task that holds it to migrate can be waiting for this, to resume. */
static int thd_runtime_suspend(struct device *dev)
{
	struct thd_device *tdev = container_of(dev, struct thd_device, dev);
	int ret = 0;

	if (!down_read_trylock(&tdev->plug_lock))
		return -EBUSY;
	if (tdev->devmem)
		ret = hmm_devmem_suspend(tdev->devmem);
	up_read(&tdev->plug_lock);
	/* The PM core would remember any other errno, and never suspend again. */
	return ret ? -EBUSY : 0;
}

/* Takes no lock: a migration, whose caller holds the lock for reading, may call it. */
static int thd_runtime_resume(struct device *dev)
{
	struct thd_device *tdev = container_of(dev, struct thd_device, dev);
	struct hmm_devmem *devmem = READ_ONCE(tdev->devmem);

	atomic_long_inc(&tdev->resumes);
	if (devmem)
		hmm_devmem_resume(devmem);
	return 0;
}

const struct dev_pm_ops thd_pm_ops = {
	SYSTEM_SLEEP_PM_OPS(thd_suspend, thd_resume)
	RUNTIME_PM_OPS(thd_runtime_suspend, thd_runtime_resume, NULL)
};
