// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once, against a record of what must come out.
 *
 * Processes with several threads do random things with memory of their own, and move
 * it, and each other's, to five devices and back. Each thread has a record of the
 * content of every page, and compares all words with it whenever it reads a page.
 * Other processes suspend and unplug the devices meanwhile, let copies and
 * allocations fail, take CPUs and swap away, and run out of memory.
 *
 * That goes in rounds. A round ends when every thread and process has done each of
 * its operations: all of them stop, and the test compares the library's counters,
 * the bitmaps of its allocator and the number of pages that the processes find on a
 * device. Then the processes check all of their memory and exit, and each device
 * must be empty. In the end the machine must have as much free memory as before.
 *
 * The speed of the machine decides nothing: rounds go on until everything that has
 * to happen has happened, and a process that does nothing at all for a very long
 * time is taken to hang.
 *
 * All random choices follow from the seed. With the same seed, each thread does the
 * same operations with the same pages in the same order in each round; how those of
 * different threads overlap, and how many of them there are before the round ends,
 * differs. A thread that finds something wrong reports its last operations.
 */
#include "stress.h"
#include "../files.h"
#include "../system.h"

#include <getopt.h>
#include <stdarg.h>

/*
 * The least number of rounds, also on a debug kernel, where each takes minutes; and the
 * most if something has not happened yet
 */
#define ROUNDS		3
#define DEBUG_ROUNDS	2
#define MOST_ROUNDS	100
/* How often each thing that has to happen must happen */
#define TIMES		2

/*
 * Pages that the kernel may use for itself in the end, more than in the beginning. A
 * debug kernel uses 3 MiB for its own records.
 */
#define LEAK_SLACK	(8L * 256)

struct shared *shared;

/* Open files of the devices, of this process */
static int nodes[NODES];
static struct slot *main_slot;

const char * const kind_names[NR_KINDS] = {
	[KIND_READ] = "read",
	[KIND_WRITE] = "write",
	[KIND_TO_DEVICE] = "migrate to a device",
	[KIND_REQUEST] = "request with reasons",
	[KIND_TO_RAM] = "migrate to RAM",
	[KIND_EVICT] = "evict a range",
	[KIND_DEVICE_READ] = "read by a device",
	[KIND_DEVICE_WRITE] = "write by a device",
	[KIND_FORK] = "fork",
	[KIND_KILL] = "kill a child",
	[KIND_MREMAP] = "mremap",
	[KIND_MREMAP_KEEP] = "mremap, DONTUNMAP",
	[KIND_REMAP] = "munmap and mmap",
	[KIND_DONTNEED] = "MADV_DONTNEED",
	[KIND_COLLAPSE] = "MADV_COLLAPSE",
	[KIND_PAGEOUT] = "MADV_PAGEOUT",
	[KIND_HUGEPAGE] = "MADV_HUGEPAGE",
	[KIND_NOHUGEPAGE] = "MADV_NOHUGEPAGE",
	[KIND_MPROTECT] = "mprotect",
	[KIND_GUP] = "process_vm_readv",
	[KIND_SNAPSHOT] = "snapshot",
	[KIND_MLOCK] = "mlock",
	[KIND_MLOCK_ONFAULT] = "mlock on fault",
	[KIND_MLOCK_DROP] = "MADV_DONTNEED_LOCKED",
	[KIND_MLOCK_UNMAP] = "munmap of locked memory",
	[KIND_FREE] = "MADV_FREE",
	[KIND_PROT_NONE] = "PROT_NONE",
	[KIND_SCAN] = "PAGEMAP_SCAN",
	[KIND_SOFT_DIRTY] = "soft-dirty",
	[KIND_ZAP] = "zap on the way",
	[KIND_MISSING] = "userfaultfd, missing",
	[KIND_PROTECT] = "userfaultfd, protected",
	[KIND_SUSPEND] = "suspend and resume",
	[KIND_UNPLUG] = "unplug and plug",
	[KIND_EVICT_ALL] = "evict all",
	[KIND_FAIL_TO_DEVICE] = "failed copy to device",
	[KIND_FAIL_TO_DEVICE_RUN] = "failed run to device",
	[KIND_FAIL_TO_RAM] = "failed copy to RAM",
	[KIND_FAIL_TO_RAM_RUN] = "failed run to RAM",
	[KIND_NO_DEVICE] = "no device page",
	[KIND_NO_DEVICE_LARGE] = "no large device folio",
	[KIND_NO_RAM] = "no page of RAM",
	[KIND_NO_RAM_LARGE] = "no large folio of RAM",
	[KIND_NO_DMA] = "no DMA mapping",
	[KIND_NO_BLOCKS] = "no blocks lent",
	[KIND_BUFFER] = "use a buffer",
	[KIND_SHRINK] = "ask for blocks",
	[KIND_WITHDRAW] = "a block withdrawn",
	[KIND_CPU] = "CPU off and on",
	[KIND_SWAPOFF] = "swap off and on",
	[KIND_RECLAIM] = "memory.reclaim",
	[KIND_COMPACT] = "compaction",
	[KIND_LIMIT] = "back to a limit",
	[KIND_OOM] = "killed, out of memory",
	[KIND_SWAPPED] = "(pages swapped out)",
	[KIND_FAULTS] = "(CPU faults on a device)",
	[KIND_EVICTED] = "(pages evicted)",
};

static const char * const failure_names[NR_FAILURES] = {
	[FAILURE_BYTES] = "every byte read is the one that was written last",
	[FAILURE_TRACKING] = "every write is told to who asks for writes",
	[FAILURE_LOST] = "nothing is lost: no signal but where a copy was made to fail",
	[FAILURE_OPERATION] = "no operation fails that has no reason to",
	[FAILURE_COUNTERS] = "counters, bitmaps and processes agree on what is where",
	[FAILURE_NOT_EMPTY] = "the devices are empty when all processes have ended",
	[FAILURE_LEAK] = "the machine has its memory again in the end",
	[FAILURE_HUNG] = "every process comes to an end",
};

/**
 * fail() - Report that something is wrong
 * @slot: The slot of the thread or process that has found it.
 * @what: The kind of failure.
 * @format: Description, as for printf().
 */
void fail(struct slot *slot, enum failure what, const char *format, ...)
{
	char text[sizeof(slot->failure)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* Keep the first failure: others can follow from it */
	if (!*slot->failure)
		memcpy(slot->failure, text, sizeof(text));
	__atomic_fetch_add(&shared->failures[what], 1, __ATOMIC_SEQ_CST);
}

static bool has_failed(void)
{
	int i;

	for (i = 0; i < NR_FAILURES; i++)
		if (__atomic_load_n(&shared->failures[i], __ATOMIC_SEQ_CST))
			return true;
	return false;
}

/**
 * note_begin() - Record an operation that is about to begin
 * @slot: The slot of the thread or process.
 * @kind: The operation.
 * @node: The device that it uses.
 * @first: First page.
 * @npages: Number of pages.
 *
 * Return: The record, for note_end().
 */
struct note *note_begin(struct slot *slot, enum kind kind, int node,
			unsigned long first, unsigned long npages)
{
	struct note *note = &slot->notes[slot->ops % NOTES];

	*note = (struct note) {
		.number = slot->ops++,
		.kind = kind,
		.node = node,
		.first = first,
		.npages = npages,
		.result = -EINPROGRESS,
	};
	return note;
}

/**
 * note_end() - Record the result of an operation
 * @note: The record from note_begin().
 * @result: The result.
 */
void note_end(struct note *note, long result)
{
	note->result = result;
}

/**
 * count() - Count an operation that has had an effect
 * @kind: The operation.
 */
void count(enum kind kind)
{
	__atomic_fetch_add(&shared->counts[kind], 1, __ATOMIC_RELAXED);
}

/**
 * phase() - The present phase of the round
 *
 * Return: The phase. After a failure the round goes to its end.
 */
enum phase phase(void)
{
	return __atomic_load_n(&shared->phase, __ATOMIC_SEQ_CST);
}

static void set_phase(enum phase phase)
{
	__atomic_store_n(&shared->phase, phase, __ATOMIC_SEQ_CST);
}

/**
 * deal() - Choose the next operation
 * @slot: Number of the slot.
 * @number: Number of the operation.
 * @kinds: The operations. Each comes once, in a random order, then all come again in
 *	another order.
 * @nr: Length of @kinds; at most 64.
 *
 * Return: One of @kinds.
 */
enum kind deal(unsigned int slot, __u64 number, const unsigned char *kinds,
	       unsigned int nr)
{
	struct rng rng = rng_of(slot + NR_SLOTS, number / nr);
	unsigned char deck[64];
	unsigned int i, other;

	memcpy(deck, kinds, nr);
	for (i = nr - 1; i; i--) {
		const unsigned char kind = deck[i];

		other = rng_below(&rng, i + 1);
		deck[i] = deck[other];
		deck[other] = kind;
	}
	return deck[number % nr];
}

/*
 * The report in the end.
 */

static void print_slot(const struct slot *slot)
{
	__u64 i = slot->ops > NOTES ? slot->ops - NOTES : 0;

	printf("# %s, round %u: %s\n", slot->name, shared->round, slot->failure);
	for (; i < slot->ops; i++) {
		const struct note *note = &slot->notes[i % NOTES];

		printf("#   %llu: %s, device %d, pages %lu + %lu: %ld\n",
		       note->number, kind_names[note->kind], note->node,
		       note->first, note->npages, note->result);
	}
}

static void print_failures(bool all)
{
	int i;

	for (i = 0; i < NR_SLOTS; i++)
		if (all || *shared->slots[i].failure)
			print_slot(&shared->slots[i]);
}

static int result(int number, bool ok, const char *what)
{
	printf("%sok %d - %s\n", ok ? "" : "not ", number, what);
	return !ok;
}

/* Has each kind of operation had an effect often enough? Else the test fails. */
static bool all_happened(void)
{
	int i;

	for (i = 0; i < NR_KINDS; i++)
		if (shared->counts[i] < TIMES)
			return false;
	return true;
}

static void print_counts(void)
{
	int i;

	for (i = 0; i < NR_KINDS; i++)
		printf("# %-26s %10llu\n", kind_names[i], shared->counts[i]);
}

static int print_results(void)
{
	int i, failed = 0;

	for (i = 0; i < NR_FAILURES; i++)
		failed += result(i + 1, !shared->failures[i], failure_names[i]);
	print_counts();
	failed += result(NR_FAILURES + 1, all_happened(),
			 "every operation has had an effect, and more than once");
	return failed;
}

/*
 * Checks while no page moves.
 */

/* Does only a part of the device have struct pages? */
static bool is_lazy(int node)
{
	return shared->plug[node] & (HMM_DEVMEM_TEST_LAZY | HMM_DEVMEM_TEST_SHARED);
}

/* The files are read one after the other, and a device may suspend in between. */
static const char *read_files_soon(int node, struct files *files)
{
	const char *what = NULL;
	int i;

	for (i = 0; i < HANG_MS / 20; i++) {
		what = read_files(nodes[node], node, is_lazy(node), files);
		if (!what)
			break;
		sleep_ms(20);
	}
	return what;
}

static long resident_sum(int node)
{
	long sum = 0;
	int i;

	for (i = 0; i < WORKERS * THREADS; i++)
		sum += shared->slots[SLOT_THREADS + i].resident[node];
	return sum;
}

/*
 * The number of pages in use must be that of the pages that the processes have, but
 * for large folios: these are in use as a whole even if only a part is still mapped.
 */
static void compare_resident(int node, long used, long large)
{
	const long sum = resident_sum(node);

	if (sum < used - large || sum > used)
		fail(main_slot, FAILURE_COUNTERS,
		     "device %d has %ld pages in use, %ld of them in large folios, processes have %ld",
		     node, used, large, sum);
}

static void compare_counters(int node)
{
	struct hmm_devmem_test_stats stats;
	struct files files = { };
	const char *what;

	if (node == NODE_CLASSIC) {
		compare_resident(node, device_used(nodes[node]), 0);
		return;
	}
	what = read_files_soon(node, &files);
	if (what) {
		fail(main_slot, FAILURE_COUNTERS, "device %d: %s", node, what);
		return;
	}
	compare_resident(node, files.used, files.large);
	stats = device_stats(nodes[node]);
	if (stats.lost || stats.bad_power)
		fail(main_slot, FAILURE_COUNTERS,
		     "device %d: %llu pages lost, %llu copies without power", node,
		     stats.lost, stats.bad_power);
	shared->counts[KIND_FAULTS] += stats.faults;
	shared->counts[KIND_EVICTED] += stats.evicted;
}

/* One open file is that of this process. */
static bool is_empty(int node, const struct hmm_devmem_test_stats *stats,
		     const struct files *files)
{
	if (stats->allocated != stats->freed || stats->contexts != 1)
		return false;
	return node == NODE_CLASSIC ||
	       (!files->used && !files->large && files->nr_blocks == files->empty);
}

static void expect_empty(int node)
{
	struct hmm_devmem_test_stats stats = { };
	struct files files = { };
	const char *what = NULL;
	int i;

	for (i = 0; i < HANG_MS / 20; i++) {
		stats = device_stats(nodes[node]);
		if (node != NODE_CLASSIC)
			what = read_files(nodes[node], node, is_lazy(node),
					  &files);
		if (!what && is_empty(node, &stats, &files))
			return;
		sleep_ms(20);
	}
	fail(main_slot, FAILURE_NOT_EMPTY,
	     "device %d: %llu pages allocated, %llu freed, %llu files, %ld in bitmaps, %s",
	     node, stats.allocated, stats.freed, stats.contexts, files.used,
	     what ?: "files agree");
}

/*
 * Memory of the machine.
 */

/* The test devices keep the memory that emulates theirs: let them allocate it now. */
static bool use_all_memory(void)
{
	int i;

	for (i = 0; i < NODES; i++) {
		const unsigned long npages = device_stats(nodes[i]).size;
		char *ptr = area_filled(npages, false, i);
		const long moved = to_device(nodes[i], ptr, npages);

		areas_unmap();
		if (moved != (long)npages || device_used_soon(nodes[i], 0))
			return false;
	}
	return true;
}

/*
 * Pages that are not accounted for, without those that the kernel keeps while memory
 * is plenty, such as the huge zero page. 7 drops these without a message in the log.
 */
static long unknown_when_dropped(void)
{
	file_write("/proc/sys/vm/drop_caches", "7");
	return memory_unknown();
}

/* Memory that is no longer used can take a moment to become free. */
static void expect_memory(long before)
{
	long lost = 0;
	int i;

	for (i = 0; i < HANG_MS / 100; i++) {
		lost = unknown_when_dropped() - before;
		if (lost <= LEAK_SLACK)
			break;
		sleep_ms(100);
	}
	printf("# %ld pages of memory are not accounted for, more than before\n",
	       lost);
	if (lost > LEAK_SLACK)
		fail(main_slot, FAILURE_LEAK, "%ld pages are lost", lost);
}

/*
 * Rounds.
 */

#define PROCESSES	(WORKERS + NODES + 1)

/**
 * struct round - the processes of a round
 * @pids: The workers, one process for each device, one for the machine; 0 if the
 *	process has ended.
 */
struct round {
	pid_t pids[PROCESSES];
};

static void be_process(int nr)
{
	if (nr < WORKERS)
		worker_run(nr);
	else if (nr < WORKERS + NODES)
		node_run(nr - WORKERS);
	else
		machine_run();
}

static void start_process(struct round *round, int nr)
{
	const pid_t pid = child_fork();

	if (!pid) {
		int i;

		for (i = 0; i < NODES; i++)
			close(nodes[i]);
		be_process(nr);
		_exit(0);
	}
	round->pids[nr] = pid;
}

static void end_process(struct round *round, int nr)
{
	const int status = child_status_within(round->pids[nr], HANG_MS);

	if (status == -ETIMEDOUT) {
		fail(main_slot, FAILURE_HUNG, "process %d does not end", nr);
		print_failures(true);
		return;
	}
	if (status)
		fail(main_slot, FAILURE_LOST,
		     "process %d has ended with status %d", nr, status);
	round->pids[nr] = 0;
}

/* Kill the processes that have not ended by themselves. */
static void kill_rest(struct round *round)
{
	int i;

	for (i = 0; i < PROCESSES; i++)
		if (round->pids[i])
			kill(round->pids[i], SIGKILL);
}

/* Are all workers alive? A dead one would never stop; end_process() reports it. */
static bool workers_are_there(struct round *round)
{
	siginfo_t info = { };
	int i;

	for (i = 0; i < WORKERS; i++)
		if (waitid(P_PID, round->pids[i], &info,
			   WEXITED | WNOHANG | WNOWAIT) || info.si_pid)
			return false;
	return true;
}

/* Wait until all threads have added one to @counter. */
static bool wait_for_threads(struct round *round, const int *counter)
{
	const long end = now_ms() + HANG_MS;

	while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) < WORKERS * THREADS) {
		if (!workers_are_there(round))
			return false;
		if (now_ms() > end) {
			fail(main_slot, FAILURE_HUNG, "not all threads have stopped");
			print_failures(true);
			return false;
		}
		sleep_ms(2);
	}
	return true;
}

static bool plug_all(void)
{
	struct rng rng = rng_of(SLOT_MAIN, 0);
	int i, ret;

	for (i = 0; i < NODES; i++) {
		device_unplug(nodes[i]);
		ret = plug_random(i, nodes[i], &rng);
		if (ret) {
			fail(main_slot, FAILURE_OPERATION, "plug %d: %s", i,
			     strerror(-ret));
			return false;
		}
	}
	return true;
}

static void reset_round(unsigned int number)
{
	int i;

	shared->round = number;
	shared->settled = 0;
	shared->counted = 0;
	set_phase(PHASE_RUN);
	for (i = 0; i < NR_SLOTS; i++) {
		struct slot *slot = &shared->slots[i];

		memset(slot, 0, sizeof(*slot));
		if (i < SLOT_NODES)
			snprintf(slot->name, sizeof(slot->name),
				 "worker %d thread %d", i / THREADS, i % THREADS);
		else if (i < SLOT_MACHINE)
			snprintf(slot->name, sizeof(slot->name), "device %d",
				 i - SLOT_NODES);
		else
			snprintf(slot->name, sizeof(slot->name), "%s",
				 i == SLOT_MACHINE ? "machine" : "main");
	}
}

static __u64 ops_of(int slot)
{
	return __atomic_load_n(&shared->slots[slot].ops, __ATOMIC_RELAXED);
}

static __u64 ops_of_all(void)
{
	__u64 sum = 0;
	int i;

	for (i = 0; i < SLOT_MAIN; i++)
		sum += ops_of(i);
	return sum;
}

static unsigned int deck_size(int slot)
{
	if (slot < SLOT_NODES)
		return worker_deck_size();
	return slot < SLOT_MACHINE ? node_deck_size(slot - SLOT_NODES) :
				     machine_deck_size();
}

/* Has each thread and process done each of its operations? */
static bool all_had_their_turn(void)
{
	int i;

	for (i = 0; i < SLOT_MAIN; i++)
		if (ops_of(i) < deck_size(i))
			return false;
	return true;
}

/* An operation that ends is progress; one that hangs is found when all stop. */
static void run_until_done(void)
{
	long end = now_ms() + HANG_MS;
	__u64 ops = 0;

	while (!all_had_their_turn() && !has_failed() && now_ms() < end) {
		if (ops != ops_of_all()) {
			ops = ops_of_all();
			end = now_ms() + HANG_MS;
		}
		sleep_ms(10);
	}
}

/* Stop all threads, and compare counters while they wait. */
static void stop_and_compare(struct round *round)
{
	int i;

	set_phase(PHASE_CALM);
	for (i = WORKERS; i < PROCESSES; i++)
		end_process(round, i);
	set_phase(PHASE_SETTLE);
	if (!wait_for_threads(round, &shared->settled))
		return;
	set_phase(PHASE_COUNT);
	if (!wait_for_threads(round, &shared->counted))
		return;
	for (i = 0; i < NODES; i++)
		compare_counters(i);
}

static void run_round(unsigned int number)
{
	struct round round = { };
	int i;

	reset_round(number);
	if (!plug_all())
		return;
	for (i = 0; i < PROCESSES; i++)
		start_process(&round, i);
	run_until_done();
	stop_and_compare(&round);
	set_phase(PHASE_END);
	for (i = 0; i < WORKERS; i++)
		end_process(&round, i);
	kill_rest(&round);
	for (i = 0; i < NODES && !has_failed(); i++)
		expect_empty(i);
}

/**
 * struct options - the options of the command line
 * @seed: The seed.
 * @seconds: Least duration of all rounds together.
 * @round: The first round.
 */
struct options {
	__u64 seed;
	unsigned int seconds;
	unsigned int round;
};

static bool is_enough(const struct options *options, unsigned int rounds, long ms)
{
	if (rounds < (is_debug_kernel() ? DEBUG_ROUNDS : ROUNDS) ||
	    ms < options->seconds * 1000L)
		return false;
	return all_happened() || rounds >= MOST_ROUNDS;
}

static void run_rounds(const struct options *options)
{
	const long swapped = vm_events("pswpout"), start = now_ms();
	unsigned int round = options->round;

	do {
		run_round(round++);
		shared->counts[KIND_SWAPPED] = vm_events("pswpout") - swapped;
	} while (!has_failed() && !is_enough(options, round - options->round,
					     now_ms() - start));
	printf("# seed %llu, rounds %u to %u, %ld s\n", options->seed, options->round,
	       round - 1, (now_ms() - start) / 1000);
	print_failures(false);
	if (has_failed())
		printf("# again: --seed %llu --round %u\n", options->seed, round - 1);
}

static bool begin(void)
{
	int i;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return false;
	main_slot = &shared->slots[SLOT_MAIN];
	for (i = 0; i < NODES; i++) {
		nodes[i] = device_open(i == NODE_CLASSIC ? CLASSIC : i);
		if (nodes[i] < 0)
			return false;
	}
	return removal_waits(true) && world_begin() && use_all_memory();
}

/* Plug the devices in the usual way again. */
static void end(void)
{
	int i;

	removal_waits(false);
	for (i = 0; i < NODES; i++) {
		device_unplug(nodes[i]);
		device_plug(nodes[i]);
	}
	if (!world_end())
		fail(main_slot, FAILURE_OPERATION, "cannot clean up: %s",
		     strerror(errno));
}

static void usage(FILE *file)
{
	fprintf(file, "Usage: stress [--seed N] [--seconds N] [--round N]\n"
		"\n"
		"--seed N     the seed of all random numbers (default: another each time)\n"
		"--seconds N  how long at least (default: 60)\n"
		"--round N    with which round to begin (default: 0)\n");
}

static bool parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "seed", required_argument, NULL, 'S' },
		{ "seconds", required_argument, NULL, 's' },
		{ "round", required_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", names, NULL)) != -1) {
		switch (option) {
		case 'S':
			options->seed = strtoull(optarg, NULL, 0);
			break;
		case 's':
			options->seconds = strtoul(optarg, NULL, 0);
			break;
		case 'r':
			options->round = strtoul(optarg, NULL, 0);
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return false;
		}
	}
	return optind == argc && options->seconds;
}

int main(int argc, char **argv)
{
	struct options options = { .seconds = 60, .seed = any_seed() };
	long unknown;

	if (!parse(&options, argc, argv)) {
		usage(stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%d\n# seed %llu\n", NR_FAILURES + 1,
	       options.seed);
	if (!begin()) {
		printf("Bail out! no devices, swap or control groups: %s\n",
		       strerror(errno));
		return 1;
	}
	shared->seed = options.seed;
	unknown = unknown_when_dropped();
	run_rounds(&options);
	end();
	if (!has_failed())
		expect_memory(unknown);
	return !!print_results();
}
