// SPDX-License-Identifier: GPL-2.0
/*
 * The processes of the stress test that own memory: each of their threads does one
 * operation after the other with pages of its own, and has a record of their
 * content. Threads also move pages of other threads, which does not change their
 * content.
 */
#include "stress.h"

#include <pthread.h>
#include <sys/uio.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define ARENA_PAGES	(THREADS * AREA_PAGES)

/* Memory and open files of this process. A forked child opens files of its own. */
static char *arena;
static int nodes[NODES];
static struct thread threads[THREADS];
/* All threads have started: before, a stack could be mapped where memory is unmapped */
static pthread_barrier_t all_there;

/*
 * Operations: all return more than 0 if they had an effect.
 */

/**
 * limited() - Limit the length of a span
 * @span: The span.
 * @most: Number of pages, at most.
 *
 * Return: The span, or its first @most pages.
 */
struct span limited(struct span span, unsigned long most)
{
	if (span.npages > most)
		span.npages = most;
	return span;
}

/**
 * node_of() - The device that an operation is about
 * @turn: The operation.
 *
 * Return: Its open file.
 */
int node_of(const struct turn *turn)
{
	return nodes[turn->node];
}

static char *any_of(const struct turn *turn)
{
	return arena + turn->any.first * PAGE;
}

/**
 * own_of() - Address of the memory that an operation is about
 * @turn: The operation.
 *
 * Return: The address.
 */
char *own_of(const struct turn *turn)
{
	return page_of(&turn->thread->owner, turn->own.first);
}

static long op_read(struct turn *turn)
{
	return owner_check(&turn->thread->owner, turn->own.first,
			   turn->own.npages);
}

static long op_write(struct turn *turn)
{
	return owner_write(&turn->thread->owner, turn->own.first,
			   turn->own.npages);
}

static long op_to_device(struct turn *turn)
{
	return tolerate(turn, "to device",
			to_device(node_of(turn), any_of(turn), turn->any.npages));
}

/* As op_to_device(), with the reasons of the pages that do not move. */
static long op_request(struct turn *turn)
{
	struct hmm_devmem_test_migrate migrate;
	long ret;

	ret = device_migrate(nodes[turn->node % NODE_CLASSIC], any_of(turn),
			     turn->any.npages, &migrate);
	if (tolerate(turn, "request", ret))
		return ret;
	if (migrate_sum(&migrate) != turn->any.npages)
		fail(turn->thread->owner.slot, FAILURE_OPERATION,
		     "reasons for %lu of %lu pages",
		     (unsigned long)migrate_sum(&migrate), turn->any.npages);
	return migrate.moved;
}

/* Pages do not stay on a device for long, so move some there first. */
static long op_to_ram(struct turn *turn)
{
	op_to_device(turn);
	return tolerate(turn, "to RAM",
			to_ram(node_of(turn), any_of(turn), turn->any.npages));
}

/* Evict a range where small devices have pages in use, and now and then others. */
static long op_evict(struct turn *turn)
{
	const unsigned long first = rng_below(&turn->rng, 4096);
	long ret = device_evict(nodes[turn->node % NODE_CLASSIC], first,
				turn->any.npages);

	return tolerate(turn, "evict", ret) < 0 ? ret : 1;
}

/* Now and then, have the pages moved to the device by its page faults before. */
static void fault_first(struct turn *turn, unsigned long flags, struct span span)
{
	if (turn->node == NODE_CLASSIC || rng_below(&turn->rng, 2))
		return;
	tolerate(turn, "page fault of the device",
		 device_fault(node_of(turn), own_of(turn),
			      flags | HMM_DEVMEM_TEST_FAULT_MIGRATE, span.npages));
}

/**
 * op_device_read() - Let a device read memory
 * @turn: The operation.
 *
 * Return: More than 0 if it did, or -errno.
 */
long op_device_read(struct turn *turn)
{
	const struct span span = limited(turn->own, BUFFER_PAGES);
	struct thread *thread = turn->thread;
	long ret;

	fault_first(turn, 0, span);
	ret = device_read(node_of(turn), own_of(turn), thread->buffer,
			  span.npages);
	/* The classic device does not take page faults */
	if (turn->node == NODE_CLASSIC && ret == -ENOENT)
		return ret;
	if (tolerate(turn, "read by the device", ret) < 0)
		return ret;
	return owner_check_copy(&thread->owner, "read by the device",
				thread->buffer, span);
}

/**
 * op_device_write() - Let a device write to memory
 * @turn: The operation.
 *
 * Return: More than 0 if it did, or -errno.
 */
long op_device_write(struct turn *turn)
{
	const struct span span = limited(turn->own, BUFFER_PAGES);
	struct thread *thread = turn->thread;
	__u64 stamps[BUFFER_PAGES];
	long ret;

	fault_first(turn, HMM_DEVMEM_TEST_FAULT_WRITE, span);
	owner_fill_copy(&thread->owner, thread->buffer, stamps, span.npages);
	ret = device_write(node_of(turn), own_of(turn), thread->buffer,
			   span.npages);
	if (ret >= 0) {
		owner_written(&thread->owner, stamps, span);
		return 1;
	}
	owner_find_out(&thread->owner, stamps, span);
	if (turn->node == NODE_CLASSIC && ret == -ENOENT)
		return ret;
	return tolerate(turn, "write by the device", ret);
}

static bool reopen_nodes(struct slot *slot)
{
	int i;

	for (i = 0; i < NODES; i++) {
		nodes[i] = device_open(i == NODE_CLASSIC ? CLASSIC : i);
		if (nodes[i] < 0) {
			fail(slot, FAILURE_OPERATION, "no device %d: %s", i,
			     strerror(-nodes[i]));
			return false;
		}
	}
	return true;
}

/* Runs in a child: check the memory as it was at the fork, then change it. */
static bool child_checks(struct turn *turn)
{
	struct owner *owner = &turn->thread->owner;
	const struct span own = turn->own;

	owner->serial += 1ULL << 32;
	if (!reopen_nodes(owner->slot))
		return false;
	/* To check all of it takes long, which lets the parent go on meanwhile */
	if (rng_below(&turn->rng, 4) ? !owner_check(owner, own.first, own.npages) :
				       !owner_check(owner, 0, owner->npages))
		return false;
	if (!owner_write(owner, own.first, own.npages))
		return false;
	to_device(node_of(turn), owner->area, owner->npages);
	return owner_check(owner, own.first, own.npages);
}

static bool reap(struct thread *thread)
{
	int status;

	if (!thread->child)
		return true;
	status = child_status_within(thread->child, HANG_MS);
	thread->child = 0;
	if (status == 0 || (thread->killed && status == 128 + SIGKILL))
		return true;
	fail(thread->owner.slot, status < 0 ? FAILURE_HUNG : FAILURE_LOST,
	     "child has ended with status %d", status);
	return false;
}

static long fork_child(struct turn *turn)
{
	struct thread *thread = turn->thread;

	if (!reap(thread))
		return 0;
	thread->child = child_start(!child_checks(turn));
	thread->killed = false;
	return 1;
}

/* Fork a child, which runs while the thread goes on. */
static long op_fork(struct turn *turn)
{
	return fork_child(turn);
}

static long op_kill(struct turn *turn)
{
	if (!fork_child(turn))
		return 0;
	sleep_ms(rng_below(&turn->rng, 30));
	turn->thread->killed = true;
	return must(turn, "kill", !kill(turn->thread->child, SIGKILL));
}

static bool map_again(struct turn *turn, struct span span)
{
	char *addr = page_of(&turn->thread->owner, span.first);
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
			  MAP_FIXED_NOREPLACE;

	return must(turn, "mmap", mmap(addr, span.npages * PAGE,
				       PROT_READ | PROT_WRITE, flags, -1, 0) == addr);
}

/* Move a mapping from one half of the memory to the other, with its record. */
static long move_mapping(struct turn *turn, int flags)
{
	struct owner *owner = &turn->thread->owner;
	const unsigned long half = owner->npages / 2;
	struct span from = limited(turn->own, half / 2), to;
	char *target;

	from.first = from.first % (half - from.npages);
	to.npages = from.npages;
	to.first = half + rng_below(&turn->rng, half - from.npages);
	if (rng_below(&turn->rng, 2)) {
		struct span other = from;

		from = to;
		to = other;
	}
	target = page_of(owner, to.first);
	if (!must(turn, "mremap",
		  mremap(page_of(owner, from.first), from.npages * PAGE,
			 from.npages * PAGE, flags, target) == target))
		return 0;
	memcpy(owner->stamps + to.first, owner->stamps + from.first,
	       to.npages * sizeof(__u64));
	memcpy(owner->droppable + to.first, owner->droppable + from.first,
	       to.npages);
	owner_forget(owner, from);
	if (!(flags & MREMAP_DONTUNMAP) && !map_again(turn, from))
		return 0;
	return owner_check(owner, to.first, to.npages);
}

static long op_mremap(struct turn *turn)
{
	return move_mapping(turn, MREMAP_MAYMOVE | MREMAP_FIXED);
}

static long op_mremap_keep(struct turn *turn)
{
	return move_mapping(turn, MREMAP_MAYMOVE | MREMAP_FIXED |
				  MREMAP_DONTUNMAP);
}

/**
 * remap_own() - Unmap memory, and map other memory there
 * @turn: The operation.
 *
 * Return: Whether that was possible; if not, the failure was noted.
 */
long remap_own(struct turn *turn)
{
	if (!must(turn, "munmap", !munmap(own_of(turn), turn->own.npages * PAGE)))
		return 0;
	owner_forget(&turn->thread->owner, turn->own);
	return map_again(turn, turn->own);
}

static long op_dontneed(struct turn *turn)
{
	if (!must(turn, "MADV_DONTNEED",
		  !madvise(own_of(turn), turn->own.npages * PAGE, MADV_DONTNEED)))
		return 0;
	owner_forget(&turn->thread->owner, turn->own);
	return owner_check(&turn->thread->owner, turn->own.first, 1);
}

/* Give advice, which the kernel need not follow, about memory of any thread. */
static long advise(char *addr, unsigned long npages, int advice)
{
	return madvise(addr, npages * PAGE, advice) ? -errno : 1;
}

/**
 * huge_span() - Find where there can be a huge page
 * @owner: The owner of the memory.
 *
 * Return: The first such pages.
 */
struct span huge_span(const struct owner *owner)
{
	const uintptr_t at = (uintptr_t)owner->area + HUGE - 1;

	return (struct span) {
		.first = ((at & ~(HUGE - 1)) - (uintptr_t)owner->area) / PAGE,
		.npages = HUGE_PAGES,
	};
}

/* Core does not collapse pages on a device, so read them before. */
static long op_collapse(struct turn *turn)
{
	struct owner *owner = &turn->thread->owner;
	const unsigned long first = huge_span(owner).first;

	advise(page_of(owner, first), HUGE_PAGES, MADV_HUGEPAGE);
	if (!owner_check(owner, first, HUGE_PAGES))
		return 0;
	return advise(page_of(owner, first), HUGE_PAGES, MADV_COLLAPSE);
}

static long op_pageout(struct turn *turn)
{
	return advise(any_of(turn), turn->any.npages, MADV_PAGEOUT);
}

static long op_hugepage(struct turn *turn)
{
	return advise(any_of(turn), turn->any.npages, MADV_HUGEPAGE);
}

static long op_nohugepage(struct turn *turn)
{
	return advise(any_of(turn), turn->any.npages, MADV_NOHUGEPAGE);
}

static long op_mprotect(struct turn *turn)
{
	const size_t size = turn->own.npages * PAGE;

	if (!must(turn, "mprotect", !mprotect(own_of(turn), size, PROT_READ)))
		return 0;
	op_to_device(turn);
	if (!op_read(turn))
		return 0;
	return must(turn, "mprotect", !mprotect(own_of(turn), size,
						PROT_READ | PROT_WRITE));
}

/* Read memory by get_user_pages(), as another process would. */
static long op_gup(struct turn *turn)
{
	const struct span span = limited(turn->own, BUFFER_PAGES);
	struct thread *thread = turn->thread;
	struct iovec from = { own_of(turn), span.npages * PAGE };
	struct iovec to = { thread->buffer, span.npages * PAGE };
	ssize_t len;

	len = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
	if (len != (ssize_t)to.iov_len)
		return len < 0 ? -errno : 0;
	return owner_check_copy(&thread->owner, "process_vm_readv",
				thread->buffer, span);
}

static long op_snapshot(struct turn *turn)
{
	const struct span span = limited(turn->any, HUGE_PAGES);
	unsigned char states[HUGE_PAGES];

	return tolerate(turn, "snapshot",
			device_pages(node_of(turn), HMM_DEVMEM_TEST_SNAPSHOT,
				     any_of(turn), states, span.npages));
}

static long (* const ops[])(struct turn *turn) = {
	[KIND_READ] = op_read,
	[KIND_WRITE] = op_write,
	[KIND_TO_DEVICE] = op_to_device,
	[KIND_REQUEST] = op_request,
	[KIND_TO_RAM] = op_to_ram,
	[KIND_EVICT] = op_evict,
	[KIND_DEVICE_READ] = op_device_read,
	[KIND_DEVICE_WRITE] = op_device_write,
	[KIND_FORK] = op_fork,
	[KIND_KILL] = op_kill,
	[KIND_MREMAP] = op_mremap,
	[KIND_MREMAP_KEEP] = op_mremap_keep,
	[KIND_REMAP] = remap_own,
	[KIND_DONTNEED] = op_dontneed,
	[KIND_COLLAPSE] = op_collapse,
	[KIND_PAGEOUT] = op_pageout,
	[KIND_HUGEPAGE] = op_hugepage,
	[KIND_NOHUGEPAGE] = op_nohugepage,
	[KIND_MPROTECT] = op_mprotect,
	[KIND_GUP] = op_gup,
	[KIND_SNAPSHOT] = op_snapshot,
	[KIND_MLOCK] = op_mlock,
	[KIND_MLOCK_ONFAULT] = op_mlock_onfault,
	[KIND_MLOCK_DROP] = op_mlock_drop,
	[KIND_MLOCK_UNMAP] = op_mlock_unmap,
	[KIND_FREE] = op_free,
	[KIND_PROT_NONE] = op_prot_none,
	[KIND_SCAN] = op_scan,
	[KIND_SOFT_DIRTY] = op_soft_dirty,
	[KIND_ZAP] = op_zap,
	[KIND_MISSING] = op_missing,
	[KIND_PROTECT] = op_protect,
};

/* An operation that is listed more often is done more often. */
static const unsigned char deck[] = {
	KIND_READ, KIND_READ, KIND_READ, KIND_READ, KIND_READ,
	KIND_WRITE, KIND_WRITE, KIND_WRITE, KIND_WRITE, KIND_WRITE,
	KIND_TO_DEVICE, KIND_TO_DEVICE, KIND_TO_DEVICE, KIND_TO_DEVICE,
	KIND_TO_DEVICE, KIND_TO_DEVICE, KIND_TO_DEVICE, KIND_TO_DEVICE,
	KIND_REQUEST, KIND_REQUEST,
	KIND_TO_RAM, KIND_TO_RAM, KIND_EVICT, KIND_DEVICE_READ, KIND_DEVICE_READ,
	KIND_DEVICE_WRITE, KIND_DEVICE_WRITE, KIND_FORK, KIND_KILL, KIND_MREMAP,
	KIND_MREMAP_KEEP, KIND_REMAP, KIND_DONTNEED, KIND_COLLAPSE, KIND_PAGEOUT,
	KIND_HUGEPAGE, KIND_NOHUGEPAGE, KIND_MPROTECT, KIND_GUP, KIND_SNAPSHOT,
	KIND_MLOCK, KIND_MLOCK_ONFAULT, KIND_MLOCK_DROP, KIND_MLOCK_UNMAP, KIND_FREE,
	KIND_PROT_NONE, KIND_SCAN, KIND_SOFT_DIRTY, KIND_ZAP, KIND_MISSING, KIND_PROTECT,
};

/* A random span; small ones are as frequent as large ones. */
static struct span random_span(struct rng *rng, unsigned long total)
{
	const unsigned long most = 1UL << rng_below(rng, 11);
	struct span span;

	span.npages = 1 + rng_below(rng, most);
	span.first = rng_below(rng, total - span.npages);
	return span;
}

/**
 * worker_deck_size() - After how many operations has a thread done each of them?
 *
 * Return: The number of operations.
 */
unsigned int worker_deck_size(void)
{
	return sizeof(deck);
}

static void turn_run(struct thread *thread)
{
	struct slot *slot = thread->owner.slot;
	struct turn turn = {
		.thread = thread,
		.rng = rng_of(thread->index, slot->ops),
	};
	const enum kind kind = deal(thread->index, slot->ops, deck, sizeof(deck));
	bool whole_arena;
	long ret;

	turn.node = rng_below(&turn.rng, NODES);
	turn.own = random_span(&turn.rng, thread->owner.npages);
	turn.any = random_span(&turn.rng, ARENA_PAGES);
	whole_arena = kind == KIND_TO_DEVICE || kind == KIND_TO_RAM ||
		      kind == KIND_REQUEST ||
		      kind == KIND_PAGEOUT || kind == KIND_HUGEPAGE ||
		      kind == KIND_NOHUGEPAGE || kind == KIND_SNAPSHOT;
	turn.note = note_begin(slot, kind, turn.node,
			       whole_arena ? turn.any.first : turn.own.first,
			       whole_arena ? turn.any.npages : turn.own.npages);
	ret = ops[kind](&turn);
	note_end(turn.note, ret);
	if (ret > 0)
		count(kind);
}

/*
 * The end of a round.
 */

static void wait_for_phase(enum phase wanted)
{
	while (phase() < wanted)
		sleep_ms(2);
}

static void count_resident(struct thread *thread)
{
	struct owner *owner = &thread->owner;
	int i;

	for (i = 0; i < NODES; i++)
		owner->slot->resident[i] = resident(nodes[i], owner->area,
						    owner->npages);
}

/* Move the memory to one of the devices, count its pages there, and check it. */
static void settle(struct thread *thread)
{
	struct owner *owner = &thread->owner;
	struct rng rng = rng_of(thread->index, ~0ULL);

	reap(thread);
	owner_check(owner, 0, owner->npages);
	to_device(nodes[rng_below(&rng, NODES)], owner->area, owner->npages);
	__atomic_fetch_add(&shared->settled, 1, __ATOMIC_SEQ_CST);
	wait_for_phase(PHASE_COUNT);
	count_resident(thread);
	__atomic_fetch_add(&shared->counted, 1, __ATOMIC_SEQ_CST);
	wait_for_phase(PHASE_END);
	owner_check(owner, 0, owner->npages);
}

static void *thread_main(void *arg)
{
	struct thread *thread = arg;

	pthread_barrier_wait(&all_there);
	while (phase() < PHASE_SETTLE && !*thread->owner.slot->failure)
		turn_run(thread);
	wait_for_phase(PHASE_SETTLE);
	settle(thread);
	return NULL;
}

static void *map_memory(unsigned long npages)
{
	char *ptr = mmap(NULL, npages * PAGE + HUGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ptr == MAP_FAILED)
		abort();
	return (void *)(((uintptr_t)ptr + HUGE - 1) & ~(HUGE - 1));
}

static void thread_init(struct thread *thread, unsigned int index, char *area)
{
	struct rng rng = rng_of(index, ~1ULL);

	thread->index = index;
	thread->buffer = map_memory(BUFFER_PAGES);
	thread->owner.slot = &shared->slots[SLOT_THREADS + index];
	thread->owner.area = area;
	thread->owner.npages = AREA_PAGES;
	thread->owner.uid = rng_next(&rng);
}

/**
 * worker_run() - Be one of the processes that own memory, for a round
 * @nr: Number of the process.
 */
void worker_run(unsigned int nr)
{
	int i;

	catch_faults();
	join_group("work");
	arena = map_memory(ARENA_PAGES);
	for (i = 0; i < THREADS; i++)
		thread_init(&threads[i], nr * THREADS + i,
			    arena + i * AREA_PAGES * PAGE);
	if (!reopen_nodes(threads[0].owner.slot))
		return;
	helpers_start();
	monitors_start();
	pthread_barrier_init(&all_there, NULL, THREADS);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i].thread, NULL, thread_main,
				   &threads[i]))
			abort();
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i].thread, NULL);
}
