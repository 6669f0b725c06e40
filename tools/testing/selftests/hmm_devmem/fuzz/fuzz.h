/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the fuzzer have in common; see fuzz.c.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_FUZZ_H
#define _SELFTESTS_HMM_DEVMEM_FUZZ_H

#include "kselftest.h"
#include "../random.h"
#include "../child.h"

#include "ivshmem_devmem_uapi.h"

/* Two private devices, two coherent ones, the classic one, the sample driver's */
#define NODES		6
#define NODE_CLASSIC	4
#define NODE_SAMPLE	5

#define CALLERS		3
#define THREADS		2
#define ARG_WORDS	6

/* The kinds of system calls */
enum call_kind {
	CALL_IOCTL,
	CALL_READ,
	CALL_WRITE,
	CALL_MMAP,
	CALL_OPEN,
	CALL_POLL,
	NR_CALL_KINDS,
};

/* Where the argument of an ioctl is */
enum place {
	PLACE_GOOD,
	PLACE_READ_ONLY,
	PLACE_END,		/* where the last word of the argument is not mapped */
	PLACE_BAD,		/* at an address that the process cannot access */
	NR_PLACES,
};

/**
 * struct call - one system call
 * @kind: The system call.
 * @node: The device.
 * @command: Index of the ioctl, -1 if there is no such ioctl.
 * @request: The number of the ioctl.
 * @arg: The argument of the ioctl.
 * @place: The kind of memory that @arg points to.
 * @words: The content of that memory.
 * @since: When the call began, in ms; 0 if it is not under way.
 * @ret: What the call has returned, or -errno.
 */
struct call {
	enum call_kind kind;
	int node;
	int command;
	unsigned long request;
	__u64 arg;
	enum place place;
	__u64 words[ARG_WORDS];
	long since;
	long ret;
};

#define MAX_COMMANDS	32

enum failure {
	FAILURE_PERMISSION,
	FAILURE_HUNG,
	FAILURE_REFUSAL,
	FAILURE_ERRNO,
	FAILURE_MEMORY,
	FAILURE_BROKEN,
	FAILURE_NOT_EMPTY,
	NR_FAILURES,
};

/**
 * struct shared - memory that all processes have in common
 * @seed: All random choices follow from it.
 * @stop: Tells the callers to end.
 * @failures: How often each kind of failure was found.
 * @said: How many of the failures were reported.
 * @good: How often each ioctl has succeeded.
 * @bad: How often each ioctl has failed.
 * @unknown: How often a number was called that no ioctl has.
 * @kinds: How often each system call was made.
 * @calls: The present call of each thread.
 */
struct shared {
	__u64 seed;
	int stop;
	int failures[NR_FAILURES];
	int said;
	__u64 good[MAX_COMMANDS];
	__u64 bad[MAX_COMMANDS];
	__u64 unknown;
	__u64 kinds[NR_CALL_KINDS];
	struct call calls[CALLERS][THREADS];
};

/**
 * struct command - an ioctl
 * @request: Its number.
 * @name: Its name.
 * @size: Size of its argument.
 * @sample: It belongs to the sample driver.
 * @weight: How often it is called, compared with the others.
 * @has_range: The argument is about a range of user memory.
 */
struct command {
	unsigned long request;
	const char *name;
	unsigned int size;
	bool sample;
	unsigned int weight;
	bool has_range;
};

/* fuzz.c */
extern struct shared *shared;
extern int nodes[NODES];

const char *node_path(int node);
__printf(3, 4)
void fail(enum failure what, const struct call *call, const char *format, ...);

/* calls.c */
extern const struct command commands[];
extern const int nr_commands;

void caller_run(int caller, unsigned int number, bool privileged);

#endif /* _SELFTESTS_HMM_DEVMEM_FUZZ_H */
