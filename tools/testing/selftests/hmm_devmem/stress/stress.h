/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the stress test have in common; see stress.c.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_STRESS_H
#define _SELFTESTS_HMM_DEVMEM_STRESS_H

#include <pthread.h>
#include <semaphore.h>
#include <sys/types.h>

#include "kselftest.h"
#include "../random.h"
#include "../child.h"

/* Two private devices, two coherent ones, and the classic one */
#define NODES		5
#define NODE_COHERENT	2
#define NODE_CLASSIC	4

#define WORKERS		4
#define THREADS		2
#define AREA_PAGES	(2 * HUGE_PAGES + 96)
/* Pages in the buffer of a thread */
#define BUFFER_PAGES	64UL

/* The last operations of each slot, for a report */
#define NOTES		12

/* HANG_MS: how long a process may do nothing at all, however slow the machine is */

enum kind {
	/* Operations of threads, with their own memory */
	KIND_READ,
	KIND_WRITE,
	KIND_TO_DEVICE,
	KIND_REQUEST,
	KIND_TO_RAM,
	KIND_EVICT,
	KIND_DEVICE_READ,
	KIND_DEVICE_WRITE,
	KIND_FORK,
	KIND_KILL,
	KIND_MREMAP,
	KIND_MREMAP_KEEP,
	KIND_REMAP,
	KIND_DONTNEED,
	KIND_COLLAPSE,
	KIND_PAGEOUT,
	KIND_HUGEPAGE,
	KIND_NOHUGEPAGE,
	KIND_MPROTECT,
	KIND_GUP,
	KIND_SNAPSHOT,
	KIND_MLOCK,
	KIND_MLOCK_ONFAULT,
	KIND_MLOCK_DROP,
	KIND_MLOCK_UNMAP,
	KIND_FREE,
	KIND_PROT_NONE,
	KIND_SCAN,
	KIND_SOFT_DIRTY,
	KIND_ZAP,
	KIND_MISSING,
	KIND_PROTECT,
	/* Operations with a device */
	KIND_SUSPEND,
	KIND_UNPLUG,
	KIND_EVICT_ALL,
	KIND_FAIL_TO_DEVICE,
	KIND_FAIL_TO_DEVICE_RUN,
	KIND_FAIL_TO_RAM,
	KIND_FAIL_TO_RAM_RUN,
	KIND_NO_DEVICE,
	KIND_NO_DEVICE_LARGE,
	KIND_NO_RAM,
	KIND_NO_RAM_LARGE,
	KIND_NO_DMA,
	KIND_NO_BLOCKS,
	KIND_BUFFER,
	KIND_SHRINK,
	KIND_WITHDRAW,
	/* Operations with the machine */
	KIND_CPU,
	KIND_SWAPOFF,
	KIND_RECLAIM,
	KIND_COMPACT,
	KIND_LIMIT,
	KIND_OOM,
	/* Events that follow from those */
	KIND_SWAPPED,
	KIND_FAULTS,
	KIND_EVICTED,
	NR_KINDS,
};

enum phase {
	PHASE_RUN,	/* all threads and processes do operations */
	PHASE_CALM,	/* the devices and the machine are left alone */
	PHASE_SETTLE,	/* threads move their memory somewhere and stop */
	PHASE_COUNT,	/* threads count their pages on each device */
	PHASE_END,	/* threads check all of their memory once more and end */
};

enum failure {
	FAILURE_BYTES,
	FAILURE_TRACKING,
	FAILURE_LOST,
	FAILURE_OPERATION,
	FAILURE_COUNTERS,
	FAILURE_NOT_EMPTY,
	FAILURE_LEAK,
	FAILURE_HUNG,
	NR_FAILURES,
};

/**
 * struct note - one operation that was done
 * @number: Its number among all operations of the slot.
 * @kind: The operation.
 * @node: The device that it uses, if any.
 * @first: First page.
 * @npages: Number of pages.
 * @result: What it returned; -EINPROGRESS before.
 */
struct note {
	__u64 number;
	enum kind kind;
	int node;
	unsigned long first;
	unsigned long npages;
	long result;
};

/**
 * struct slot - reports of a thread, or of a process that has no memory of its own
 * @name: Name of the thread or process.
 * @ops: Number of operations so far.
 * @notes: The last of these operations.
 * @resident: Pages of its memory on each device, in %PHASE_COUNT.
 * @failure: What went wrong first, or "".
 */
struct slot {
	char name[32];
	__u64 ops;
	struct note notes[NOTES];
	long resident[NODES];
	char failure[240];
};

#define SLOT_THREADS	0
#define SLOT_NODES	(WORKERS * THREADS)
#define SLOT_MACHINE	(SLOT_NODES + NODES)
#define SLOT_MAIN	(SLOT_MACHINE + 1)
#define NR_SLOTS	(SLOT_MAIN + 1)

/**
 * struct shared - memory that all processes have in common
 * @seed: All random choices follow from it.
 * @round: Number of the round.
 * @phase: Phase of the round.
 * @settled: Threads that have settled.
 * @counted: Threads that have counted.
 * @armed: Devices of which copies to RAM may fail right now.
 * @arm_events: How often @armed was raised.
 * @plug: How each device is plugged, %HMM_DEVMEM_TEST_LAZY and so on.
 * @failures: How often something went wrong.
 * @counts: How often each kind of operation has had an effect.
 * @slots: One for each thread or process that does operations.
 */
struct shared {
	__u64 seed;
	unsigned int round;
	enum phase phase;
	int settled;
	int counted;
	int armed;
	int arm_events;
	__u32 plug[NODES];
	int failures[NR_FAILURES];
	__u64 counts[NR_KINDS];
	struct slot slots[NR_SLOTS];
};

extern struct shared *shared;

/* The stream of operation @number of a slot in this round. */
static inline struct rng rng_of(unsigned int slot, __u64 number)
{
	return rng_from(shared->seed, shared->round, slot, number);
}

/**
 * struct owner - memory, and a record of its content
 * @slot: The slot of the owner.
 * @area: The memory.
 * @npages: Size of the memory, pages.
 * @uid: A number that no other owner has, in any round.
 * @serial: Counts the pages written; makes each stamp a new one.
 * @stamps: For each page, the number from which all its words are made; 0 for zeros.
 * @droppable: For each page, whether it may be zero instead, until it is written to.
 */
struct owner {
	struct slot *slot;
	char *area;
	unsigned long npages;
	__u64 uid;
	__u64 serial;
	__u64 stamps[AREA_PAGES];
	bool droppable[AREA_PAGES];
};

/**
 * struct span - some pages of some memory
 * @first: The first one.
 * @npages: Number of pages.
 */
struct span {
	unsigned long first;
	unsigned long npages;
};

/**
 * struct thread - a thread with its memory
 * @owner: Its memory.
 * @index: Number of its slot.
 * @buffer: %BUFFER_PAGES pages.
 * @child: A child with a copy of its memory, or 0.
 * @killed: The thread has killed @child.
 * @thread: The thread.
 */
struct thread {
	struct owner owner;
	unsigned int index;
	char *buffer;
	pid_t child;
	bool killed;
	pthread_t thread;
};

/**
 * struct turn - one operation
 * @thread: The thread that does it.
 * @rng: For its random choices.
 * @note: The record for its result.
 * @node: The device, if it needs one.
 * @own: Pages of the thread's own memory.
 * @any: Pages of any thread's memory.
 */
struct turn {
	struct thread *thread;
	struct rng rng;
	struct note *note;
	int node;
	struct span own;
	struct span any;
};

/* stress.c */
extern const char * const kind_names[NR_KINDS];

__printf(3, 4)
void fail(struct slot *slot, enum failure what, const char *format, ...);
struct note *note_begin(struct slot *slot, enum kind kind, int node,
			unsigned long first, unsigned long npages);
void note_end(struct note *note, long result);
void count(enum kind kind);
enum phase phase(void);
enum kind deal(unsigned int slot, __u64 number, const unsigned char *kinds,
	       unsigned int nr);

/* owner.c */
void catch_faults(void);
char *page_of(const struct owner *owner, unsigned long page);
bool owner_write(struct owner *owner, unsigned long first, unsigned long npages);
bool owner_check(struct owner *owner, unsigned long first, unsigned long npages);
bool owner_check_copy(struct owner *owner, const char *where, char *copy,
		      struct span span);
void owner_forget(struct owner *owner, struct span span);
void owner_may_lose(struct owner *owner, struct span span);
void owner_fill_copy(struct owner *owner, char *copy, __u64 *stamps,
		     unsigned long npages);
void owner_written(struct owner *owner, const __u64 *stamps, struct span span);
bool owner_find_out(struct owner *owner, const __u64 *stamps, struct span span);
bool is_tolerable(long ret);
long tolerate(struct turn *turn, const char *what, long ret);
bool must(struct turn *turn, const char *what, bool ok);

/* worker.c */
struct span limited(struct span span, unsigned long most);
int node_of(const struct turn *turn);
char *own_of(const struct turn *turn);
struct span huge_span(const struct owner *owner);
long op_device_read(struct turn *turn);
long op_device_write(struct turn *turn);
long remap_own(struct turn *turn);
unsigned int worker_deck_size(void);
void worker_run(unsigned int nr);

/* mm.c */
size_t own_size(const struct turn *turn);
bool own_to_device(struct turn *turn);
int register_own(struct turn *turn, __u64 features, __u64 mode);
bool unregister_own(struct turn *turn, int fd);
void helper_start(sem_t *go, sem_t *done, pthread_t *thread,
		  void *(*main)(void *arg), void *arg);
long op_mlock(struct turn *turn);
long op_mlock_onfault(struct turn *turn);
long op_mlock_drop(struct turn *turn);
long op_mlock_unmap(struct turn *turn);
long op_free(struct turn *turn);
long op_prot_none(struct turn *turn);
long op_scan(struct turn *turn);
long op_soft_dirty(struct turn *turn);
long op_zap(struct turn *turn);
void helpers_start(void);

/* monitor.c */
long op_missing(struct turn *turn);
long op_protect(struct turn *turn);
void monitors_start(void);

/* world.c */
bool world_begin(void);
bool world_end(void);
int plug_random(int node, int fd, struct rng *rng);
bool join_group(const char *name);
unsigned int node_deck_size(int node);
unsigned int machine_deck_size(void);
void node_run(int node);
void machine_run(void);

#endif /* _SELFTESTS_HMM_DEVMEM_STRESS_H */
