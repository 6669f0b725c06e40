// SPDX-License-Identifier: GPL-2.0
/*
 * Requests to migrate memory: the ioctl that reports why pages are left, and a count of the
 * callbacks that get the request's priv.
 */

#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "test_hmm_devmem.h"

/**
 * struct thd_request - a request
 * @req: As the library sees it; its priv points to this structure.
 * @callbacks: How many callbacks have found it.
 */
struct thd_request {
	struct hmm_devmem_request req;
	atomic_long_t callbacks;
};

/**
 * thd_request_note() - Note that a callback was called for a copy
 * @copy: The copy, for a request or for anything else.
 *
 * Context: The callbacks of the copy.
 */
void thd_request_note(const struct hmm_devmem_copy *copy)
{
	struct thd_request *request = copy->priv;

	if (request)
		atomic_long_inc(&request->callbacks);
}

static long migrate(struct thd_mirror *mirror, struct hmm_devmem_test_migrate *arg)
{
	struct thd_request request = {
		.req = {
			.mm = mirror->m.notifier.mm,
			.start = arg->addr,
			.end = arg->addr + (arg->npages << PAGE_SHIFT),
			.ctx = &mirror->context,
			.priv = &request,
		},
	};
	const struct hmm_devmem_left *left = &request.req.left;
	struct hmm_devmem *devmem;
	long ret;

	devmem = thd_enter(mirror->tdev);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem);
	ret = hmm_devmem_migrate(devmem, &request.req);
	thd_leave(mirror->tdev);
	arg->busy = left->busy;
	arg->no_device_memory = left->no_device_memory;
	arg->no_memory = left->no_memory;
	arg->not_copied = left->not_copied;
	arg->not_suitable = left->not_suitable;
	arg->callbacks = atomic_long_read(&request.callbacks);
	return ret;
}

/**
 * thd_request_ioctl() - Do HMM_DEVMEM_TEST_MIGRATE
 * @mirror: The mirror of the process.
 * @uarg: A struct hmm_devmem_test_migrate.
 *
 * Context: Process context, may sleep.
 * Return:
 * * %0 - done
 * * %-EFAULT - the argument is not mapped, or there is no mapping in the range
 * * %-EINVAL - the range is not valid
 * * others - from thd_enter() or hmm_devmem_migrate()
 */
int thd_request_ioctl(struct thd_mirror *mirror, void __user *uarg)
{
	struct hmm_devmem_test_migrate arg;
	long ret;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	if (!thd_range_is_valid(arg.addr, arg.npages))
		return -EINVAL;
	ret = migrate(mirror, &arg);
	if (ret < 0)
		return ret;
	arg.moved = ret;
	return copy_to_user(uarg, &arg, sizeof(arg)) ? -EFAULT : 0;
}
