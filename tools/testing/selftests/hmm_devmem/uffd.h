/* SPDX-License-Identifier: GPL-2.0 */
/*
 * userfaultfd, with a thread that resolves the faults that are reported.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_UFFD_H
#define _SELFTESTS_HMM_DEVMEM_UFFD_H

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "test.h"

#define PAGEMAP_UFFD_WP	_BITULL(57)

/**
 * struct uffd - a range that is registered with userfaultfd
 * @fd: The userfaultfd, or -errno.
 * @ptr: Start of the range.
 * @npages: Length of the range.
 * @seed: Missing pages get this pattern, counted from @ptr.
 * @missing: Pages that the thread has provided.
 * @wp: Faults on write protected pages that were reported to the thread.
 * @told: One flag for each page, set when a write to it is reported, before that
 *	goes on; or NULL.
 * @errors: Number of faults that the thread could not resolve.
 * @stop: Ends the thread.
 * @thread: The thread.
 */
struct uffd {
	int fd;
	char *ptr;
	unsigned long npages;
	unsigned int seed;
	int missing;
	int wp;
	bool *told;
	int errors;
	int stop;
	pthread_t thread;
};

static inline int uffd_ioctl(struct uffd *uffd, unsigned long request, void *arg)
{
	return ioctl(uffd->fd, request, arg) ? -errno : 0;
}

/* @mode: UFFDIO_REGISTER_MODE_*. */
static inline int uffd_open(struct uffd *uffd, char *ptr, unsigned long npages,
			    __u64 mode)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)ptr, .len = npages * PAGE },
		.mode = mode,
	};
	int ret;

	*uffd = (struct uffd) { .ptr = ptr, .npages = npages };
	uffd->fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd->fd < 0)
		return -errno;
	ret = uffd_ioctl(uffd, UFFDIO_API, &api);
	return ret ?: uffd_ioctl(uffd, UFFDIO_REGISTER, &reg);
}

static inline int uffd_protect(struct uffd *uffd, const char *ptr,
			       unsigned long npages, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)ptr, .len = npages * PAGE },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	int ret;

	do {
		ret = uffd_ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
	} while (ret == -EAGAIN);
	return ret;
}

/* Returns the number of pages moved, or -errno. */
static inline long uffd_move(struct uffd *uffd, char *to, char *from,
			     unsigned long npages)
{
	struct uffdio_move move = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)from,
		.len = npages * PAGE,
	};
	int ret = uffd_ioctl(uffd, UFFDIO_MOVE, &move);

	return ret && move.move <= 0 ? ret : (long)(move.move / PAGE);
}

static inline int uffd_provide(struct uffd *uffd, char *addr)
{
	static __thread char page[PAGE];
	struct uffdio_copy copy = {
		.dst = (uintptr_t)addr,
		.src = (uintptr_t)page,
		.len = PAGE,
	};
	int ret;

	fill_from(page, uffd->seed, (addr - uffd->ptr) / PAGE, 1);
	ret = uffd_ioctl(uffd, UFFDIO_COPY, &copy);
	/* The page was provided for another thread's fault */
	return ret == -EEXIST ? 0 : ret;
}

static inline void uffd_resolve(struct uffd *uffd, const struct uffd_msg *msg)
{
	char *addr = (char *)(uintptr_t)(msg->arg.pagefault.address & -PAGE);
	struct uffdio_range range = { .start = (uintptr_t)addr, .len = PAGE };
	int ret;

	if (msg->event != UFFD_EVENT_PAGEFAULT) {
		ret = -EINVAL;
	} else if (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
		__atomic_fetch_add(&uffd->wp, 1, __ATOMIC_SEQ_CST);
		if (uffd->told)
			uffd->told[(addr - uffd->ptr) / PAGE] = true;
		ret = uffd_protect(uffd, addr, 1, false);
	} else {
		__atomic_fetch_add(&uffd->missing, 1, __ATOMIC_SEQ_CST);
		ret = uffd_provide(uffd, addr);
	}
	if (ret == -EAGAIN || !ret)
		uffd_ioctl(uffd, UFFDIO_WAKE, &range);
	else
		uffd->errors++;
}

static inline void *uffd_main(void *arg)
{
	struct uffd *uffd = arg;
	struct pollfd pollfd = { .fd = uffd->fd, .events = POLLIN };
	struct uffd_msg msg;

	while (!__atomic_load_n(&uffd->stop, __ATOMIC_RELAXED))
		if (poll(&pollfd, 1, 10) > 0 &&
		    read(uffd->fd, &msg, sizeof(msg)) == sizeof(msg))
			uffd_resolve(uffd, &msg);
	return NULL;
}

static inline int uffd_start(struct uffd *uffd)
{
	return pthread_create(&uffd->thread, NULL, uffd_main, uffd);
}

/* End the thread; returns the number of faults that it could not resolve. */
static inline int uffd_stop(struct uffd *uffd)
{
	__atomic_store_n(&uffd->stop, 1, __ATOMIC_RELAXED);
	pthread_join(uffd->thread, NULL);
	close(uffd->fd);
	return uffd->errors;
}

#endif /* _SELFTESTS_HMM_DEVMEM_UFFD_H */
