// SPDX-License-Identifier: GPL-2.0
/*
 * Operations of the stress test on memory that a userfaultfd monitor watches: another
 * thread provides missing pages and lifts write protection, while the page fault of the
 * CPU or of a device waits for that.
 */
#include "stress.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <semaphore.h>

#define ACCESSES	4

/**
 * struct monitor - a thread that resolves faults on memory of another thread
 * @go: Posted when memory is watched.
 * @done: Posted when no more faults are resolved.
 * @stop: The operation of the other thread ends.
 * @turn: That operation.
 * @fd: The userfaultfd.
 * @missing: Pages that get new content when they are asked for; others get zeros.
 * @content: The content of @missing.
 * @resolved: Faults that were resolved.
 * @thread: The thread.
 */
struct monitor {
	sem_t go;
	sem_t done;
	int stop;
	struct turn turn;
	int fd;
	struct span missing;
	char *content;
	unsigned int resolved;
	pthread_t thread;
};

static struct monitor monitors[THREADS];

static struct monitor *monitor_of(const struct turn *turn)
{
	return &monitors[turn->thread->index % THREADS];
}

/*
 * The thread that resolves faults. Faults can be reported several times, for the CPU and
 * for a device, and a mapping can change meanwhile: then the fault is reported again.
 */

static bool is_resolved(int ret)
{
	return !ret || errno == EEXIST || errno == EAGAIN;
}

static bool provide(struct monitor *monitor, __u64 addr)
{
	static const char zeros[PAGE];
	const struct owner *owner = &monitor->turn.thread->owner;
	const unsigned long page = (addr - (uintptr_t)owner->area) / PAGE;
	const unsigned long i = page - monitor->missing.first;
	struct uffdio_copy copy = {
		.dst = addr,
		.src = (uintptr_t)(i < monitor->missing.npages ?
				   monitor->content + i * PAGE : zeros),
		.len = PAGE,
	};

	return must(&monitor->turn, "UFFDIO_COPY",
		    is_resolved(ioctl(monitor->fd, UFFDIO_COPY, &copy)));
}

static bool write_protect(struct turn *turn, int fd, __u64 addr, unsigned long npages,
			  __u64 mode)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = addr, .len = npages * PAGE },
		.mode = mode,
	};

	return must(turn, "UFFDIO_WRITEPROTECT",
		    is_resolved(ioctl(fd, UFFDIO_WRITEPROTECT, &wp)));
}

static void resolve(struct monitor *monitor, const struct uffd_msg *msg)
{
	const __u64 addr = msg->arg.pagefault.address & -PAGE;
	struct uffdio_range range = { .start = addr, .len = PAGE };
	bool ok;

	if (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
		ok = write_protect(&monitor->turn, monitor->fd, addr, 1, 0);
	else
		ok = provide(monitor, addr);
	/* A fault that was not resolved is reported again */
	ioctl(monitor->fd, UFFDIO_WAKE, &range);
	monitor->resolved += ok;
}

static void *monitor_main(void *arg)
{
	struct monitor *monitor = arg;
	struct uffd_msg msg;

	for (;;) {
		sem_wait(&monitor->go);
		while (!__atomic_load_n(&monitor->stop, __ATOMIC_SEQ_CST)) {
			struct pollfd pollfd = { .fd = monitor->fd, .events = POLLIN };

			if (poll(&pollfd, 1, 5) > 0 &&
			    read(monitor->fd, &msg, sizeof(msg)) == sizeof(msg))
				resolve(monitor, &msg);
		}
		sem_post(&monitor->done);
	}
	return NULL;
}

/**
 * monitors_start() - Start the threads that resolve faults, one for each thread
 *
 * They end with the process.
 */
void monitors_start(void)
{
	int i;

	for (i = 0; i < THREADS; i++) {
		struct monitor *monitor = &monitors[i];

		monitor->content = malloc(BUFFER_PAGES * PAGE);
		helper_start(&monitor->go, &monitor->done, &monitor->thread, monitor_main,
			     monitor);
	}
}

/*
 * The thread whose memory is watched.
 */

/* Access a few of the pages. The classic device accesses none that it does not have. */
static void access_part(struct turn *turn)
{
	struct owner *owner = &turn->thread->owner;
	const struct span own = turn->own;

	turn->own.first += rng_below(&turn->rng, own.npages);
	turn->own.npages = 1 + rng_below(&turn->rng, own.first + own.npages -
						     turn->own.first);
	switch (rng_below(&turn->rng, 5)) {
	case 0:
		owner_check(owner, turn->own.first, turn->own.npages);
		break;
	case 1:
		owner_write(owner, turn->own.first, turn->own.npages);
		break;
	case 2:
		own_to_device(turn);
		break;
	case 3:
		op_device_read(turn);
		break;
	default:
		op_device_write(turn);
		break;
	}
	turn->own = own;
}

/* Drop the pages: whoever asks for them gets new content. */
static bool drop_own(struct turn *turn, struct monitor *monitor)
{
	struct owner *owner = &turn->thread->owner;
	__u64 stamps[BUFFER_PAGES];

	owner_fill_copy(owner, monitor->content, stamps, turn->own.npages);
	if (!must(turn, "MADV_DONTNEED", !madvise(own_of(turn), own_size(turn),
						  MADV_DONTNEED)))
		return false;
	owner_written(owner, stamps, turn->own);
	monitor->missing = turn->own;
	return true;
}

static bool protect_own(struct turn *turn, struct monitor *monitor)
{
	return write_protect(turn, monitor->fd, (uintptr_t)own_of(turn), turn->own.npages,
			     UFFDIO_WRITEPROTECT_MODE_WP);
}

static long watch(struct turn *turn, __u64 features, __u64 mode,
		  bool (*prepare)(struct turn *turn, struct monitor *monitor))
{
	struct monitor *monitor = monitor_of(turn);
	bool ok;
	int i;

	turn->own = limited(turn->own, BUFFER_PAGES);
	if (rng_below(&turn->rng, 2) && !own_to_device(turn))
		return 0;
	monitor->fd = register_own(turn, features, mode);
	if (monitor->fd < 0)
		return 0;
	monitor->turn = *turn;
	monitor->stop = 0;
	monitor->resolved = 0;
	monitor->missing = (struct span) { };
	ok = prepare(turn, monitor);
	sem_post(&monitor->go);
	for (i = 0; i < ACCESSES; i++)
		access_part(turn);
	/* Pages that no thread has accessed are still missing */
	ok &= owner_check(&turn->thread->owner, turn->own.first, turn->own.npages);
	__atomic_store_n(&monitor->stop, 1, __ATOMIC_SEQ_CST);
	sem_wait(&monitor->done);
	return unregister_own(turn, monitor->fd) && ok && monitor->resolved;
}

/**
 * op_missing() - Have a monitor provide pages when they are accessed
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_missing(struct turn *turn)
{
	return watch(turn, 0, UFFDIO_REGISTER_MODE_MISSING, drop_own);
}

/**
 * op_protect() - Have a monitor lift write protection when pages are written to
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_protect(struct turn *turn)
{
	return watch(turn, UFFD_FEATURE_WP_UNPOPULATED, UFFDIO_REGISTER_MODE_WP,
		     protect_own);
}
