// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_power: when a device is resumed and kept on, what a migration keeps
 * from going away at its two ends, and a suspend while a page is being copied.
 */

#include <kunit/device.h>
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/device/driver.h>
#include <linux/hmm_devmem_mirror.h>
#include <linux/kref.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pm.h>
#include <linux/pm_runtime.h>
#include <linux/rwsem.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "../devmem.h"
#include "../pool.h"
#include "core_test.h"

/**
 * struct power_test - the device of a test
 * @devmem: its memory, one block with %HMM_DEVMEM_RUNTIME_PM
 * @mm: the process
 * @addr: memory of the process, not touched yet
 * @m: a mirror of the process; only some tests have it
 * @slow: the next runtime_suspend waits for a migration
 * @suspending: completed when that has begun
 * @resumes: calls of runtime_resume
 * @locked: in one of them, a lock was held that the caller must not hold
 * @status: runtime PM status of the device in the last copy to it
 * @usage: references to it in the same copy
 */
static struct power_test {
	struct hmm_devmem *devmem;
	struct mm_struct *mm;
	unsigned long addr;
	struct hmm_devmem_mirror m;
	bool slow;
	struct completion suspending;
	unsigned int resumes;
	bool locked;
	enum rpm_status status;
	int usage;
} power;

static int power_suspend(struct device *device)
{
	if (power.slow) {
		power.slow = false;
		complete(&power.suspending);
		soon(READ_ONCE(priv(power.devmem)->power_users) == 1);
	}
	return 0;
}

/* Other tasks, such as khugepaged, hold the mmap lock now and then, but not for ever. */
static int power_resume(struct device *device)
{
	power.resumes++;
	power.locked |= rwsem_is_locked(&power.m.turn) ||
			!soon(!rwsem_is_locked(&power.mm->mmap_lock));
	return 0;
}

static const struct dev_pm_ops power_pm_ops = {
	RUNTIME_PM_OPS(power_suspend, power_resume, NULL)
};

static int power_copy(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	if (copy->dir == HMM_DEVMEM_TO_RAM)
		return 0;
	power.status = devmem->device->power.runtime_status;
	power.usage = atomic_read(&devmem->device->power.usage_count);
	return 0;
}

static const struct hmm_devmem_ops power_ops = {
	.copy_to_device = power_copy,
	.copy_to_ram = power_copy,
};

/* The device is on, and nothing needs it. */
static int power_init(struct kunit *test)
{
	const struct hmm_devmem_desc desc = {
		.ops = &power_ops,
		.size = BLOCK_SIZE_BYTES,
		.type = MEMORY_DEVICE_PRIVATE,
		.flags = HMM_DEVMEM_RUNTIME_PM,
		.nid = NUMA_NO_NODE,
	};
	struct device *device;

	fixture_init(test);
	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	device = test_device(test);
	KUNIT_ASSERT_NOT_NULL(test, device->driver);
	memset(&power, 0, sizeof(power));
	power.mm = current->mm;
	power.addr = map_blocks(test, 1);
	init_rwsem(&power.m.turn);
	init_completion(&power.suspending);
	device->driver->pm = &power_pm_ops;
	KUNIT_ASSERT_EQ(test, 0, pm_runtime_set_active(device));
	pm_runtime_enable(device);
	power.devmem = hmm_devmem_add_desc(device, &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, power.devmem);
	return 0;
}

/* Detach the driver, which removes the memory, unless the test has done so. */
static void power_exit(struct kunit *test)
{
	if (!IS_ERR_OR_NULL(power.devmem))
		kunit_device_unregister(test, test_device(test));
	power.devmem = NULL;
}

static long to_device(void)
{
	return hmm_devmem_migrate_to_device(power.devmem, power.mm, power.addr,
					    power.addr + PAGE_SIZE, NULL);
}

static long to_ram(void)
{
	return hmm_devmem_migrate_to_ram(power.devmem, power.mm, power.addr,
					 power.addr + PAGE_SIZE);
}

/* A call in another task. */
struct caller {
	struct work_struct work;
	long (*call)(void);
	long ret;
};

static void caller_work(struct work_struct *work)
{
	struct caller *caller = container_of(work, struct caller, work);

	caller->ret = caller->call();
}

static void start_call(struct caller *caller, long (*call)(void))
{
	caller->call = call;
	INIT_WORK_ONSTACK(&caller->work, caller_work);
	queue_work(system_dfl_wq, &caller->work);
}

static long end_call(struct caller *caller)
{
	flush_work(&caller->work);
	destroy_work_on_stack(&caller->work);
	return caller->ret;
}

static struct mmap_holder holder;

/* Start a call that waits for the mmap lock until unblock_and_end(). */
static void start_and_block(struct kunit *test, struct caller *caller, long (*call)(void))
{
	mmap_holder_init(&holder, power.mm);
	mmap_holder_begin(&holder);
	start_call(caller, call);
	KUNIT_EXPECT_TRUE(test, soon(mmap_lock_is_contended(power.mm)));
}

static long unblock_and_end(struct caller *caller)
{
	mmap_holder_end(&holder);
	return end_call(caller);
}

/* Have the worker check now whether the device must stay on. Returns what it finds. */
static bool check_power(void)
{
	mod_delayed_work(system_dfl_wq, &priv(power.devmem)->power_work, 0);
	flush_delayed_work(&priv(power.devmem)->power_work);
	return READ_ONCE(priv(power.devmem)->powered);
}

/* Resuming */

static long mirror_migrates(void)
{
	return hmm_devmem_mirror_migrate(&power.m, power.addr, power.addr + PAGE_SIZE);
}

static long device_faults(void)
{
	return hmm_devmem_mirror_fault(&power.m, power.addr,
				       HMM_DEVMEM_MIRROR_WRITE | HMM_DEVMEM_MIRROR_MIGRATE);
}

struct mover {
	const char *name;
	long (*move)(void);
};

static const struct mover movers[] = {
	{ "migration", to_device },
	{ "migration through a mirror", mirror_migrates },
	{ "device fault", device_faults },
};

KUNIT_ARRAY_PARAM_DESC(mover, movers, name);

static int map_nothing(struct hmm_devmem_mirror *m,
		       const struct hmm_devmem_map_entry *entries, unsigned int nr)
{
	return 0;
}

static void unmap_nothing(struct hmm_devmem_mirror *m, unsigned long start,
			  unsigned long end, bool keep_local)
{
}

static const struct hmm_devmem_mirror_ops map_nothing_ops = {
	.map = map_nothing,
	.unmap = unmap_nothing,
};

/* The driver's callback may take any lock that is held where those of the library are taken. */
static void device_is_resumed_under_no_lock(struct kunit *test)
{
	const struct mover *mover = test->param_value;

	if (!IS_ENABLED(CONFIG_HMM_DEVMEM_MIRROR))
		kunit_skip(test, "there are no mirrors");
	KUNIT_ASSERT_EQ(test, 0, hmm_devmem_mirror_init(&power.m, power.devmem, power.mm,
							&map_nothing_ops));
	KUNIT_EXPECT_EQ(test, 0, pm_runtime_suspend(test_device(test)));
	KUNIT_EXPECT_EQ(test, 1, mover->move());
	KUNIT_EXPECT_EQ(test, 1, power.resumes);
	KUNIT_EXPECT_FALSE(test, power.locked);
	KUNIT_EXPECT_EQ(test, 1, pages_used(power.devmem));
	hmm_devmem_mirror_fini(&power.m);
}

static long suspend_device(void)
{
	return pm_runtime_suspend(power.devmem->device);
}

/* To take a reference does not suffice: the suspend does not look at it any more. */
static void device_that_is_being_suspended_is_resumed(struct kunit *test)
{
	struct caller caller = { };

	power.slow = true;
	start_call(&caller, suspend_device);
	wait_for_completion(&power.suspending);
	KUNIT_EXPECT_EQ(test, 1, to_device());
	KUNIT_EXPECT_EQ(test, 0, end_call(&caller));
	KUNIT_EXPECT_EQ(test, 1, power.resumes);
	KUNIT_EXPECT_EQ(test, RPM_ACTIVE, power.status);
	KUNIT_EXPECT_GT(test, power.usage, 0);
}

static void device_stays_on_while_it_is_needed(struct kunit *test)
{
	struct caller caller = { };

	/* A migration that has no page yet. */
	start_and_block(test, &caller, to_device);
	KUNIT_EXPECT_EQ(test, 0, pages_used(power.devmem));
	KUNIT_EXPECT_TRUE(test, check_power());
	KUNIT_EXPECT_EQ(test, -EAGAIN, suspend_device());
	KUNIT_EXPECT_EQ(test, 1, unblock_and_end(&caller));

	/* A page. */
	KUNIT_EXPECT_EQ(test, 0, priv(power.devmem)->power_users);
	KUNIT_EXPECT_TRUE(test, check_power());
	KUNIT_EXPECT_EQ(test, -EAGAIN, suspend_device());

	KUNIT_EXPECT_EQ(test, 1, to_ram());
	KUNIT_EXPECT_FALSE(test, check_power());
	KUNIT_EXPECT_GE(test, suspend_device(), 0);
	KUNIT_EXPECT_EQ(test, 0, power.resumes);
}

/* The two ends of a migration */

static const struct mover directions[] = {
	{ "to the device", to_device },
	{ "to system memory", to_ram },
};

KUNIT_ARRAY_PARAM_DESC(direction, directions, name);

/*
 * The memory goes away while a migration waits: only the migration has a reference then. To
 * the device, it also still needs power, which it gives up after all else but the reference.
 */
static void migration_keeps_what_it_uses(struct kunit *test)
{
	const struct mover *direction = test->param_value;
	struct hmm_devmem *devmem = power.devmem;
	struct kref *handles = &priv(devmem)->handles;
	const unsigned int before = kref_read(handles);
	struct caller caller = { };

	start_and_block(test, &caller, direction->move);
	KUNIT_EXPECT_EQ(test, before + 1, kref_read(handles));
	/* Without that reference, the devmem would be gone after the next line. */
	if (kref_read(handles) > before) {
		power_exit(test);
		KUNIT_EXPECT_EQ(test, 1, kref_read(handles));
		KUNIT_EXPECT_EQ(test, direction->move == to_device,
				priv(devmem)->power_users);
	}
	KUNIT_EXPECT_EQ(test, -ENODEV, unblock_and_end(&caller));
}

/* Suspend */

static struct completion copying, copy_ends;

static int copy_until_told(struct hmm_devmem *devmem, struct hmm_devmem_copy *copy)
{
	complete(&copying);
	wait_for_completion(&copy_ends);
	return 0;
}

/* Its data is lost, so that it is not waited for, but the device may still be reading it. */
static void suspend_fails_while_a_lost_page_is_copied(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.copy_to_device = no_work,
		.copy_to_ram = copy_until_told,
	};
	struct hmm_devmem *devmem = add(test, &ops, BLOCK_SIZE_BYTES), *powered = power.devmem;
	struct caller caller = { };

	init_completion(&copying);
	init_completion(&copy_ends);
	power.devmem = devmem;
	KUNIT_ASSERT_EQ(test, 1, to_device());
	start_call(&caller, to_ram);
	wait_for_completion(&copying);
	hmm_devmem_pool_retire(priv(devmem)->pool, devmem->pfn_first);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_devmem_suspend(devmem));
	complete_all(&copy_ends);
	end_call(&caller);
	KUNIT_EXPECT_EQ(test, 0, hmm_devmem_suspend(devmem));
	hmm_devmem_remove(devmem);
	power.devmem = powered;
}

static struct kunit_case power_cases[] = {
	KUNIT_CASE_PARAM(device_is_resumed_under_no_lock, mover_gen_params),
	KUNIT_CASE(device_that_is_being_suspended_is_resumed),
	KUNIT_CASE(device_stays_on_while_it_is_needed),
	KUNIT_CASE_PARAM(migration_keeps_what_it_uses, direction_gen_params),
	KUNIT_CASE_SLOW(suspend_fails_while_a_lost_page_is_copied),
	{ }
};

static struct kunit_suite power_suite = {
	.name = "hmm_devmem_power",
	.init = power_init,
	.exit = power_exit,
	.test_cases = power_cases,
};

kunit_test_suite(power_suite);
