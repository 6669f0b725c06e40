// SPDX-License-Identifier: GPL-2.0
/*
 * Operations of the stress test about state of memory other than its data: that it
 * is mlocked, may be dropped, may not be accessed, was not written to since a
 * certain time, or is zapped while it is being migrated.
 */
#include "stress.h"

#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <semaphore.h>
#include <sys/syscall.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT	1
#endif

#define PAGEMAP_SOFT_DIRTY _BITULL(55)

/**
 * own_size() - Size of the memory that an operation is about
 * @turn: The operation.
 *
 * Return: The size, bytes.
 */
size_t own_size(const struct turn *turn)
{
	return turn->own.npages * PAGE;
}

/**
 * own_to_device() - Move the memory that an operation is about to its device
 * @turn: The operation.
 *
 * Return: Whether nothing has failed. It is no failure if a part or all of it stays.
 */
bool own_to_device(struct turn *turn)
{
	return is_tolerable(tolerate(turn, "to device",
				     to_device(node_of(turn), own_of(turn),
					       turn->own.npages)));
}

/*
 * Locked memory.
 */

/* If there is no memory, or pages cannot move back, they are locked later. */
static bool lock_own(struct turn *turn, unsigned int flags)
{
	return !mlock2(own_of(turn), own_size(turn), flags) ||
	       must(turn, "mlock2", errno == EAGAIN || errno == ENOMEM);
}

static bool unlock_own(struct turn *turn)
{
	return must(turn, "munlock", !munlock(own_of(turn), own_size(turn)));
}

static bool read_or_write(struct turn *turn)
{
	struct owner *owner = &turn->thread->owner;

	switch (rng_below(&turn->rng, 3)) {
	case 0:
		return owner_check(owner, turn->own.first, turn->own.npages);
	case 1:
		return owner_write(owner, turn->own.first, turn->own.npages);
	default:
		return is_tolerable(op_device_write(turn));
	}
}

static long lock_for_a_while(struct turn *turn, unsigned int flags)
{
	if (!lock_own(turn, flags) || !own_to_device(turn) || !read_or_write(turn) ||
	    !own_to_device(turn))
		return 0;
	return unlock_own(turn);
}

/**
 * op_mlock() - Move memory that is locked to a device and back
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_mlock(struct turn *turn)
{
	return lock_for_a_while(turn, 0);
}

/**
 * op_mlock_onfault() - Move memory that is locked when it is touched
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_mlock_onfault(struct turn *turn)
{
	return lock_for_a_while(turn, MLOCK_ONFAULT);
}

/**
 * op_mlock_drop() - Drop memory while it is locked
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_mlock_drop(struct turn *turn)
{
	if (!lock_own(turn, rng_below(&turn->rng, 2) * MLOCK_ONFAULT) ||
	    !own_to_device(turn))
		return 0;
	if (!must(turn, "MADV_DONTNEED_LOCKED",
		  !madvise(own_of(turn), own_size(turn), MADV_DONTNEED_LOCKED)))
		return 0;
	owner_forget(&turn->thread->owner, turn->own);
	return unlock_own(turn);
}

/**
 * op_mlock_unmap() - Unmap memory while it is locked
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_mlock_unmap(struct turn *turn)
{
	if (!lock_own(turn, rng_below(&turn->rng, 2) * MLOCK_ONFAULT) ||
	    !own_to_device(turn))
		return 0;
	return remap_own(turn);
}

/*
 * Memory that may be dropped.
 */

/* Memory that the device has written to must not be dropped any more. */
static bool write_by_device_and_drop(struct turn *turn)
{
	turn->own = limited(turn->own, BUFFER_PAGES);
	if (!is_tolerable(op_device_write(turn)))
		return false;
	if (rng_below(&turn->rng, 2))
		tolerate(turn, "to RAM", to_ram(node_of(turn), own_of(turn),
						turn->own.npages));
	madvise(own_of(turn), own_size(turn), MADV_PAGEOUT);
	return owner_check(&turn->thread->owner, turn->own.first, turn->own.npages);
}

/**
 * op_free() - MADV_FREE
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_free(struct turn *turn)
{
	struct owner *owner = &turn->thread->owner;

	if (!must(turn, "MADV_FREE", !madvise(own_of(turn), own_size(turn), MADV_FREE)))
		return 0;
	owner_may_lose(owner, turn->own);
	if (rng_below(&turn->rng, 2) && !own_to_device(turn))
		return 0;
	return rng_below(&turn->rng, 2) ? write_by_device_and_drop(turn) : 1;
}

/*
 * Memory that may not be touched.
 */

/* A read by a device must fail. */
static bool device_cannot_read(struct turn *turn)
{
	const long ret = device_read(node_of(turn), own_of(turn),
				     turn->thread->buffer, 1);

	if (ret >= 0)
		fail(turn->thread->owner.slot, FAILURE_OPERATION,
		     "the device has read memory that may not be read");
	return ret < 0;
}

/* Memory without access that was dropped must get no pages. */
static bool nothing_is_filled(struct turn *turn)
{
	const char *ptr = own_of(turn);
	long filled;

	if (!must(turn, "MADV_DONTNEED", !madvise(own_of(turn), own_size(turn),
						  MADV_DONTNEED)))
		return false;
	owner_forget(&turn->thread->owner, turn->own);
	if (!own_to_device(turn))
		return false;
	filled = pagemap_count(ptr, turn->own.npages, PAGEMAP_PRESENT) +
		 pagemap_count(ptr, turn->own.npages, PAGEMAP_SWAP);
	if (filled)
		fail(turn->thread->owner.slot, FAILURE_OPERATION,
		     "%ld of %lu pages were filled that may not be accessed", filled,
		     turn->own.npages);
	return !filled;
}

/**
 * op_prot_none() - Take the access to memory away for a while
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_prot_none(struct turn *turn)
{
	bool ok;

	if (!must(turn, "mprotect", !mprotect(own_of(turn), own_size(turn), PROT_NONE)))
		return 0;
	ok = own_to_device(turn) && device_cannot_read(turn) &&
	     (rng_below(&turn->rng, 2) || nothing_is_filled(turn));
	if (!must(turn, "mprotect", !mprotect(own_of(turn), own_size(turn),
					      PROT_READ | PROT_WRITE)) || !ok)
		return 0;
	return owner_check(&turn->thread->owner, turn->own.first, turn->own.npages);
}

/*
 * Memory whose writes are tracked.
 */

/**
 * struct tracker - a way to track writes
 * @name: Its name.
 * @begin: Starts to track writes; returns a file or -1.
 * @look: Fills in which pages were written to; returns false if that failed.
 * @end: Stops to track writes; returns false if that failed.
 */
struct tracker {
	const char *name;
	int (*begin)(struct turn *turn);
	bool (*look)(struct turn *turn, int fd, bool *written);
	bool (*end)(struct turn *turn, int fd);
};

/* Write to small parts of the memory, with the CPU or a device, wherever they are. */
static bool write_parts(struct turn *turn)
{
	struct owner *owner = &turn->thread->owner;
	const struct span own = turn->own;
	bool ok = true;
	int i;

	for (i = 0; ok && i < 3; i++) {
		turn->own.first = own.first + rng_below(&turn->rng, own.npages);
		turn->own.npages = own.first + own.npages - turn->own.first;
		turn->own = limited(turn->own, 1 + rng_below(&turn->rng, 16));
		if (rng_below(&turn->rng, 2))
			ok = is_tolerable(op_device_write(turn));
		else
			ok = owner_write(owner, turn->own.first, turn->own.npages);
		turn->own = own;
		if (ok && rng_below(&turn->rng, 2))
			ok = own_to_device(turn);
		if (!rng_below(&turn->rng, 4))
			madvise(own_of(turn), own_size(turn), MADV_PAGEOUT);
	}
	return ok;
}

static bool compare_written(struct turn *turn, const struct tracker *tracker,
			    const __u64 *before, const bool *written)
{
	const struct owner *owner = &turn->thread->owner;
	unsigned long i;

	for (i = 0; i < turn->own.npages; i++) {
		const unsigned long page = turn->own.first + i;

		/* Pages that were dropped after MADV_FREE are zero without a write */
		if (owner->stamps[page] == before[page] || written[i] ||
		    !owner->stamps[page])
			continue;
		fail(owner->slot, FAILURE_TRACKING,
		     "%s does not tell that page %lu was written to, pagemap has %#llx",
		     tracker->name, page, pagemap_entry(page_of(owner, page)));
		return false;
	}
	return true;
}

static bool track_writes(struct turn *turn, const struct tracker *tracker, int fd)
{
	const struct owner *owner = &turn->thread->owner;
	bool written[AREA_PAGES] = { };
	__u64 before[AREA_PAGES];

	memcpy(before, owner->stamps, sizeof(before));
	return (rng_below(&turn->rng, 2) || own_to_device(turn)) &&
	       write_parts(turn) && tracker->look(turn, fd, written) &&
	       compare_written(turn, tracker, before, written);
}

static long track(struct turn *turn, const struct tracker *tracker)
{
	int fd;
	bool ok;

	if (rng_below(&turn->rng, 2) && !own_to_device(turn))
		return 0;
	fd = tracker->begin(turn);
	if (fd < 0)
		return 0;
	ok = track_writes(turn, tracker, fd);
	return tracker->end(turn, fd) && ok;
}

/* PAGEMAP_SCAN, with userfaultfd's protection that resolves itself. */

static bool scan(struct turn *turn, __u64 flags, bool *written)
{
	static __thread struct page_region regions[AREA_PAGES];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = flags,
		.start = (uintptr_t)own_of(turn),
		.end = (uintptr_t)own_of(turn) + own_size(turn),
		.vec = (uintptr_t)regions,
		.vec_len = AREA_PAGES,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	const int nr = ioctl(fd, PAGEMAP_SCAN, &arg);
	__u64 page;
	int i;

	close(fd);
	if (!must(turn, "PAGEMAP_SCAN", nr >= 0))
		return false;
	for (i = 0; written && i < nr; i++)
		for (page = regions[i].start; page < regions[i].end; page += PAGE)
			written[(page - arg.start) / PAGE] = true;
	return true;
}

/**
 * register_own() - Have userfaultfd watch the memory that an operation is about
 * @turn: The operation.
 * @features: UFFD_FEATURE_*.
 * @mode: UFFDIO_REGISTER_MODE_*.
 *
 * Return: The userfaultfd, for unregister_own(); or -1, and the failure was noted.
 */
int register_own(struct turn *turn, __u64 features, __u64 mode)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = features,
	};
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)own_of(turn), .len = own_size(turn) },
		.mode = mode,
	};
	const int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	const bool armed = fd >= 0 && !ioctl(fd, UFFDIO_API, &api) &&
			   !ioctl(fd, UFFDIO_REGISTER, &reg);

	if (must(turn, "userfaultfd", armed))
		return fd;
	close(fd);
	return -1;
}

/**
 * unregister_own() - Undo register_own()
 * @turn: The operation.
 * @fd: The userfaultfd, which is closed.
 *
 * Close alone may do nothing: a child that was forked meanwhile has the file, too.
 *
 * Return: Whether that was possible; if not, the failure was noted.
 */
bool unregister_own(struct turn *turn, int fd)
{
	struct uffdio_range range = {
		.start = (uintptr_t)own_of(turn),
		.len = own_size(turn),
	};
	const bool ok = must(turn, "UFFDIO_UNREGISTER",
			     !ioctl(fd, UFFDIO_UNREGISTER, &range));

	close(fd);
	return ok;
}

static int scan_begin(struct turn *turn)
{
	const int fd = register_own(turn, UFFD_FEATURE_WP_ASYNC |
					  UFFD_FEATURE_WP_UNPOPULATED,
				    UFFDIO_REGISTER_MODE_WP);

	if (fd < 0 || scan(turn, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, NULL))
		return fd;
	unregister_own(turn, fd);
	return -1;
}

static bool scan_look(struct turn *turn, int fd, bool *written)
{
	return scan(turn, rng_below(&turn->rng, 2) * PM_SCAN_WP_MATCHING, written);
}

/**
 * op_scan() - Track writes with PAGEMAP_SCAN
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_scan(struct turn *turn)
{
	static const struct tracker tracker = {
		.name = "PAGEMAP_SCAN",
		.begin = scan_begin,
		.look = scan_look,
		.end = unregister_own,
	};

	return track(turn, &tracker);
}

/* Soft-dirty bits: cleared for the whole process, so one thread at a time uses them. */

static pthread_mutex_t soft_dirty_lock = PTHREAD_MUTEX_INITIALIZER;

static int soft_dirty_begin(struct turn *turn)
{
	pthread_mutex_lock(&soft_dirty_lock);
	if (must(turn, "clear_refs", file_write("/proc/self/clear_refs", "4")))
		return 0;
	pthread_mutex_unlock(&soft_dirty_lock);
	return -1;
}

static bool soft_dirty_look(struct turn *turn, int fd, bool *written)
{
	__u64 entries[AREA_PAGES];
	const size_t size = turn->own.npages * sizeof(*entries);
	const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned long i;
	ssize_t len;

	len = pread(pagemap, entries, size, (uintptr_t)own_of(turn) / PAGE *
					    sizeof(*entries));
	close(pagemap);
	for (i = 0; i < turn->own.npages; i++)
		written[i] = entries[i] & PAGEMAP_SOFT_DIRTY;
	return must(turn, "pagemap", len == (ssize_t)size);
}

static bool soft_dirty_end(struct turn *turn, int fd)
{
	pthread_mutex_unlock(&soft_dirty_lock);
	return true;
}

/**
 * op_soft_dirty() - Track writes with soft-dirty bits
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_soft_dirty(struct turn *turn)
{
	static const struct tracker tracker = {
		.name = "soft-dirty",
		.begin = soft_dirty_begin,
		.look = soft_dirty_look,
		.end = soft_dirty_end,
	};

	return track(turn, &tracker);
}

/*
 * Memory that is zapped while it is being migrated.
 */

#define ZAPS	6

/**
 * struct zapper - a thread that zaps memory of another thread
 * @go: Posted when there is memory to zap.
 * @done: Posted when it was zapped.
 * @turn: The operation of the other thread.
 * @spans: What to zap.
 * @ok: Zapping has succeeded.
 * @thread: The thread.
 */
struct zapper {
	sem_t go;
	sem_t done;
	struct turn turn;
	struct span spans[ZAPS];
	bool ok;
	pthread_t thread;
};

static struct zapper zappers[THREADS];

static bool zap(struct turn *turn)
{
	sleep_ms(rng_below(&turn->rng, 3));
	if (!rng_below(&turn->rng, 3))
		return remap_own(turn);
	return must(turn, "MADV_DONTNEED", !madvise(own_of(turn), own_size(turn),
						    MADV_DONTNEED));
}

static void *zapper_main(void *arg)
{
	struct zapper *zapper = arg;
	int i;

	for (;;) {
		sem_wait(&zapper->go);
		zapper->ok = true;
		for (i = 0; zapper->ok && i < ZAPS; i++) {
			zapper->turn.own = zapper->spans[i];
			zapper->ok = zap(&zapper->turn);
		}
		sem_post(&zapper->done);
	}
	return NULL;
}

/**
 * helper_start() - Start a thread that works for another one
 * @go: The thread waits for it; gets initialised.
 * @done: The thread posts it; gets initialised.
 * @thread: Gets the thread.
 * @main: What the thread runs.
 * @arg: The argument of @main.
 */
void helper_start(sem_t *go, sem_t *done, pthread_t *thread,
		  void *(*main)(void *arg), void *arg)
{
	sem_init(go, 0, 0);
	sem_init(done, 0, 0);
	if (pthread_create(thread, NULL, main, arg))
		abort();
}

/**
 * helpers_start() - Start the threads that zap, one for each thread
 *
 * They end with the process.
 */
void helpers_start(void)
{
	int i;

	for (i = 0; i < THREADS; i++) {
		struct zapper *zapper = &zappers[i];

		helper_start(&zapper->go, &zapper->done, &zapper->thread, zapper_main,
			     zapper);
	}
}

/* Fill a new huge page. */
static bool fill_huge_page(struct turn *turn)
{
	struct owner *owner = &turn->thread->owner;

	turn->own = huge_span(owner);
	madvise(own_of(turn), own_size(turn), MADV_HUGEPAGE);
	return must(turn, "MADV_DONTNEED", !madvise(own_of(turn), own_size(turn),
						    MADV_DONTNEED)) &&
	       owner_write(owner, turn->own.first, turn->own.npages);
}

/* Move memory to a device and back until the zapper has zapped all its spans. */
static bool move_and_zap(struct turn *turn, struct zapper *zapper)
{
	struct owner *owner = &turn->thread->owner;
	bool ok = true;
	int i;

	sem_post(&zapper->go);
	while (sem_trywait(&zapper->done)) {
		ok &= own_to_device(turn);
		tolerate(turn, "to RAM", to_ram(node_of(turn), own_of(turn),
						turn->own.npages));
	}
	for (i = 0; i < ZAPS; i++)
		owner_forget(owner, zapper->spans[i]);
	return ok && zapper->ok;
}

/**
 * op_zap() - Zap parts of a huge page while it is being migrated
 * @turn: The operation.
 *
 * Return: More than 0 if it had an effect.
 */
long op_zap(struct turn *turn)
{
	struct zapper *zapper = &zappers[turn->thread->index % THREADS];
	int i;

	if (!fill_huge_page(turn) || (rng_below(&turn->rng, 2) && !own_to_device(turn)))
		return 0;
	for (i = 0; i < ZAPS; i++) {
		zapper->spans[i].npages = 1 + rng_below(&turn->rng, 64);
		zapper->spans[i].first = turn->own.first +
			rng_below(&turn->rng, HUGE_PAGES - zapper->spans[i].npages);
		/* Now and then, zap all of it */
		if (!rng_below(&turn->rng, 8))
			zapper->spans[i] = turn->own;
	}
	zapper->turn = *turn;
	zapper->turn.rng = (struct rng) { .state = rng_next(&turn->rng) };
	return move_and_zap(turn, zapper) &&
	       owner_check(&turn->thread->owner, turn->own.first, turn->own.npages);
}
