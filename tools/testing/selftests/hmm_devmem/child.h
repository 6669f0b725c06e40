/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Child processes: most report by their exit status, and some wait at a gate until
 * the test lets them through.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_CHILD_H
#define _SELFTESTS_HMM_DEVMEM_CHILD_H

#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>

#include "test.h"

/* Like fork(), but a failure ends the test. */
static inline pid_t child_fork(void)
{
	const pid_t pid = fork();

	if (pid < 0) {
		perror("fork");
		abort();
	}
	return pid;
}

/* Fork a child that evaluates @result and exits with it. Returns the child's pid. */
#define child_start(result)						\
({									\
	const pid_t child_pid = child_fork();				\
									\
	if (!child_pid)							\
		_exit(result);						\
	child_pid;							\
})

/* Get an open file of another process. */
static inline int open_file_of(pid_t pid, int fd)
{
	const int pidfd = syscall(SYS_pidfd_open, pid, 0);
	const int ret = syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	close(pidfd);
	return ret;
}

/* Exit status of a child, or 128 plus the signal that ended it; -1 for no child. */
static inline int child_exit_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline int child_status(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return child_exit_code(status);
}

/* Like child_status(), but -ETIMEDOUT if the child does not end in time. */
static inline int child_status_within(pid_t pid, long ms)
{
	int status;
	pid_t ret;

	while (!(ret = waitpid(pid, &status, WNOHANG)) && ms-- > 0)
		sleep_ms(1);
	if (!ret)
		return -ETIMEDOUT;
	return ret == pid ? child_exit_code(status) : -1;
}

/* Evaluate @result in a child. Returns the status with which that exits. */
#define child_run(result)	child_status(child_start(result))

/* Returns the status of the child: if it has not ended by itself, 128 + SIGKILL. */
static inline int child_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	return child_status(pid);
}

/* Whether the child has neither ended nor been killed. */
static inline bool child_lives(pid_t pid)
{
	return !waitpid(pid, NULL, WNOHANG);
}

/* Wait until the child has stopped itself; returns whether it has. */
static inline bool child_stopped(pid_t pid)
{
	int status;

	return waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status);
}

/**
 * struct gate - what children wait at until the test opens it
 * @fds: The ends of a pipe.
 */
struct gate {
	int fds[2];
};

static inline void gate_init(struct gate *gate)
{
	if (pipe(gate->fds))
		abort();
}

/* In a child: returns whether the gate was opened, and not just left by the test. */
static inline bool gate_wait(const struct gate *gate)
{
	char byte;

	return read(gate->fds[0], &byte, 1) == 1;
}

/*
 * In the test: wait until a child opens the gate, and close it. Returns whether the
 * child did, and did not just exit.
 */
static inline bool gate_meet(struct gate *gate)
{
	bool open;

	close(gate->fds[1]);
	open = gate_wait(gate);
	close(gate->fds[0]);
	return open;
}

/* Let @nr children through; returns whether that worked. */
static inline bool gate_open(const struct gate *gate, unsigned int nr)
{
	while (nr && write(gate->fds[1], "", 1) == 1)
		nr--;
	return !nr;
}

static inline void gate_close(struct gate *gate)
{
	close(gate->fds[0]);
	close(gate->fds[1]);
}

/**
 * struct child - a child that waits at a gate
 * @gate: Where it waits.
 * @pid: The child.
 */
struct child {
	struct gate gate;
	pid_t pid;
};

/* Let the child through; returns the status with which it exits. */
static inline int child_end(struct child *child)
{
	int status;

	gate_open(&child->gate, 1);
	status = child_status(child->pid);
	gate_close(&child->gate);
	return status;
}

static inline int sharer_main(const struct gate *gate, char *ptr, unsigned int seed,
			      unsigned long npages)
{
	if (!gate_wait(gate))
		return 1;
	if (wrong(ptr, seed, npages))
		return 2;
	fill(ptr, seed + 1, npages);
	return wrong(ptr, seed + 1, npages) ? 3 : 0;
}

/*
 * A child that shares memory with its parent, and writes to it after the gate. It
 * exits with 0 if all pages have their bytes, before and after that.
 */
static inline void sharer_start(struct child *child, char *ptr, unsigned int seed,
				unsigned long npages)
{
	gate_init(&child->gate);
	child->pid = child_start(sharer_main(&child->gate, ptr, seed, npages));
}

static inline int heir_main(const struct gate *gate, int fd, const char *ptr,
			    unsigned int seed, unsigned long npages)
{
	close(fd);
	if (!gate_wait(gate))
		return 1;
	return wrong(ptr, seed, npages) ? 2 : 0;
}

/*
 * A child that alone maps pages on device @nr, which its parent has moved there, and
 * reads them after the gate. It exits with 0 if all have their bytes. Returns whether
 * the pages are there.
 */
static inline bool heir_start(struct child *heir, int nr, unsigned long npages,
			      bool thp, unsigned int seed)
{
	char *ptr = area_filled(npages, thp, seed);
	int fd = device_open(nr);
	bool moved;

	if (fd < 0)
		return false;
	gate_init(&heir->gate);
	moved = all_moved(fd, ptr, npages) == (long)npages;
	heir->pid = child_start(heir_main(&heir->gate, fd, ptr, seed, npages));
	munmap(ptr, npages * PAGE);
	close(fd);
	return moved;
}

/**
 * struct orphan - a child of a process that has exited, with pages on a device that
 *	the process had moved there
 * @gate: Where it waits.
 * @result: A pipe, for the child's result.
 */
struct orphan {
	struct gate gate;
	int result[2];
};

/* In the process that exits; returns 0 in it, and does not return in its child. */
static inline int orphan_leave(struct orphan *orphan, int nr, unsigned long npages,
			       bool thp, unsigned int seed)
{
	char *ptr = area_filled(npages, thp, seed);
	int fd = device_open(nr), result;

	if (all_moved(fd, ptr, npages) != (long)npages)
		return 1;
	if (child_fork())
		return 0;
	/* Not before the test says that the parent is gone */
	result = heir_main(&orphan->gate, fd, ptr, seed, npages);
	_exit(write(orphan->result[1], &result, sizeof(result)) < 0);
}

/* Returns 0 if the process has exited with all pages on device @nr. */
static inline int orphan_start(struct orphan *orphan, int nr, unsigned long npages,
			       bool thp, unsigned int seed)
{
	gate_init(&orphan->gate);
	if (pipe(orphan->result))
		abort();
	return child_run(orphan_leave(orphan, nr, npages, thp, seed));
}

/* Let the orphan read all pages; returns 0 if they have their bytes. */
static inline int orphan_end(struct orphan *orphan)
{
	int result;

	/* Else the read waits for ever if the orphan dies without a result */
	close(orphan->result[1]);
	gate_open(&orphan->gate, 1);
	if (read(orphan->result[0], &result, sizeof(result)) != sizeof(result))
		result = -1;
	close(orphan->result[0]);
	gate_close(&orphan->gate);
	return result;
}

#endif /* _SELFTESTS_HMM_DEVMEM_CHILD_H */
