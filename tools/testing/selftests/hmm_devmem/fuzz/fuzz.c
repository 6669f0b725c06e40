// SPDX-License-Identifier: GPL-2.0
/*
 * System calls that no program should make, for all device nodes: those of the test
 * devices and of the sample driver.
 *
 * Processes, as root and as user nobody with files that root has opened for them,
 * call every ioctl with valid arguments, with one field changed, with values at the
 * edges of ranges, with arguments in memory that is not mapped, or belongs to the
 * kernel, or is read-only, and with numbers that no ioctl has; they read, write, map
 * and open the nodes as well. A process lives only for a while: what it does to a
 * device can make the device lose the process's memory.
 *
 * No call may hang, no memory may change but what a call was to change, arguments
 * that are wrong in any case must be refused with the documented errno, and in the
 * end all devices must work and be empty. The caller of this program has to look for
 * messages of the kernel. It goes on until each ioctl has succeeded and failed,
 * however long that takes.
 *
 * All that is random follows from the seed: with the same one each process calls
 * the same in the same order, but not at the same time as the others.
 */
#include "fuzz.h"
#include "../files.h"

#include <getopt.h>
#include <glob.h>
#include <stdarg.h>
#include <sys/stat.h>

#define NOBODY		65534
/* The first argument of the processes that this program starts */
#define CALLER		"--caller"
/* A call that takes longer hangs, however slow the machine is */
#define LIMIT_MS	HANG_MS
/* After so many processes of each caller, what has not happened yet is given up */
#define MOST_LIVES	2000
#define SAID_MOST	20
#define TRIP_PAGES	(2 * HUGE_PAGES + 100)

struct shared *shared;
int nodes[NODES];
static char sample_path[80];

static const char * const failure_names[NR_FAILURES] = {
	[FAILURE_PERMISSION] = "nodes are for root only, and can be passed on",
	[FAILURE_HUNG] = "every call comes to an end",
	[FAILURE_REFUSAL] = "what is wrong is refused as documented",
	[FAILURE_ERRNO] = "no errors but those that are documented",
	[FAILURE_MEMORY] = "no process loses its memory but to a device, nor gets another's",
	[FAILURE_BROKEN] = "afterwards all devices work",
	[FAILURE_NOT_EMPTY] = "afterwards all devices are empty",
};

/**
 * node_path() - Name of a device node
 * @node: Which one.
 *
 * Return: The path.
 */
const char *node_path(int node)
{
	static const char * const paths[] = {
		"/dev/hmm_devmem_test0", "/dev/hmm_devmem_test1",
		"/dev/hmm_devmem_test2", "/dev/hmm_devmem_test3",
		"/dev/hmm_devmem_classic",
	};

	return node == NODE_SAMPLE ? sample_path : paths[node];
}

static void print_call(const struct call *call)
{
	static const char * const kinds[NR_CALL_KINDS] = {
		"ioctl", "read", "write", "mmap", "open", "poll",
	};
	static const char * const places[NR_PLACES] = {
		"writable", "read only", "at the end of a mapping", "nowhere",
	};
	int i;

	printf("#   %s of %s: %s (%#lx), argument at %#llx (%s), result %ld\n#  ",
	       kinds[call->kind], node_path(call->node),
	       call->command < 0 ? "no such ioctl" : commands[call->command].name,
	       call->request, call->arg, places[call->place], call->ret);
	for (i = 0; i < ARG_WORDS; i++)
		printf(" %#llx", call->words[i]);
	printf("\n");
}

/**
 * fail() - Report that something is wrong
 * @what: The kind of failure.
 * @call: The call that showed it, or NULL.
 * @format: Description, as for printf().
 */
void fail(enum failure what, const struct call *call, const char *format, ...)
{
	va_list args;

	__atomic_fetch_add(&shared->failures[what], 1, __ATOMIC_SEQ_CST);
	/* More output would tell nothing new */
	if (__atomic_fetch_add(&shared->said, 1, __ATOMIC_SEQ_CST) >= SAID_MOST)
		return;
	printf("# %s: ", failure_names[what]);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	if (call)
		print_call(call);
	fflush(stdout);
}

/*
 * Permissions.
 */

/* Runs as user nobody; returns the number of a node that could be opened, or 0. */
static int open_as_nobody(void)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };
	int node;
	size_t i;

	if (setgid(NOBODY) || setuid(NOBODY))
		return NODES + 1;
	for (node = 0; node < NODES; node++)
		for (i = 0; i < ARRAY_SIZE(modes); i++)
			if (open(node_path(node), modes[i]) >= 0 ||
			    errno != EACCES)
				return node + 1;
	return 0;
}

static void check_permissions(void)
{
	struct stat st;
	int node;

	for (node = 0; node < NODES; node++)
		if (stat(node_path(node), &st) || st.st_uid || st.st_gid ||
		    st.st_mode != (S_IFCHR | 0600))
			fail(FAILURE_PERMISSION, NULL, "%s has mode %#o of %u, %u",
			     node_path(node), st.st_mode, st.st_uid, st.st_gid);
	node = child_run(open_as_nobody());
	if (node)
		fail(FAILURE_PERMISSION, NULL,
		     "user nobody gets another error than EACCES: %d", node);
}

/*
 * The callers.
 */

/**
 * struct caller - a process that makes the calls; a new one follows when it ends
 * @pid: The present process, 0 if there is none.
 * @lives: How many processes there have been.
 */
struct caller {
	pid_t pid;
	unsigned int lives;
};

static struct caller callers[CALLERS];
static int shared_fd;

/*
 * Caller and parent must share no memory but &shared: if a device lost a shared
 * page, both would lose it. So execute the program anew. And the kernel must not
 * write to user memory by itself, as it does for restartable sequences: if that
 * memory is lost, it sends a signal other than SIGBUS.
 */
static void exec_caller(int i, unsigned int number)
{
	char args[3][20];

	snprintf(args[0], sizeof(args[0]), "%d", shared_fd);
	snprintf(args[1], sizeof(args[1]), "%d", i);
	snprintf(args[2], sizeof(args[2]), "%u", number);
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	execl("/proc/self/exe", "fuzz", CALLER, args[0], args[1],
	      args[2], NULL);
	_exit(127);
}

static void start_caller(int i)
{
	struct caller *caller = &callers[i];
	/* Each process has a stream of random numbers of its own */
	const unsigned int number = caller->lives++ * CALLERS + i;
	pid_t pid;

	memset(shared->calls[i], 0, sizeof(shared->calls[i]));
	fflush(stdout);
	pid = child_fork();
	if (!pid)
		exec_caller(i, number);
	caller->pid = pid;
}

/*
 * An access to memory that a device has lost raises SIGBUS. Any memory of a caller
 * can be lost, since all of it can be moved; but no other signal is right.
 */
static void judge_end(int i, int status)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS)
		return;
	fail(FAILURE_MEMORY, &shared->calls[i][0], "caller has ended with status %#x",
	     status);
}

static void reap_caller(int i)
{
	int status;

	if (callers[i].pid &&
	    waitpid(callers[i].pid, &status, WNOHANG) == callers[i].pid) {
		callers[i].pid = 0;
		judge_end(i, status);
	}
}

static bool is_hung(int i)
{
	bool hung = false;
	int t;

	for (t = 0; t < THREADS; t++) {
		const struct call *call = &shared->calls[i][t];
		const long since = __atomic_load_n(&call->since, __ATOMIC_SEQ_CST);

		if (since && now_ms() - since > LIMIT_MS) {
			fail(FAILURE_HUNG, call, "more than %d s", LIMIT_MS / 1000);
			hung = true;
		}
	}
	return hung;
}

/* Without this, a device that is dead, suspended or unplugged would remain so. */
static void replug_some(struct rng *rng)
{
	const int fd = nodes[rng_below(rng, NODE_SAMPLE)];

	device_unplug(fd);
	/* Not every device supports all flags */
	if (device_plug_as(fd, 0, rng_below(rng, HMM_DEVMEM_TEST_PLUG_FLAGS), 0))
		device_plug(fd);
}

/* Runs in a process of its own, because plugging can hang as well. */
static void replugger_run(void)
{
	struct rng rng = rng_from(shared->seed, ~0ULL, 0, 0);

	while (!__atomic_load_n(&shared->stop, __ATOMIC_SEQ_CST)) {
		replug_some(&rng);
		sleep_ms(100 + rng_below(&rng, 200));
	}
}

/* Has each ioctl succeeded and failed, and was each other call made? */
static bool all_happened(void)
{
	bool ok = shared->unknown;
	int i;

	for (i = 0; i < nr_commands; i++)
		ok &= shared->good[i] && shared->bad[i];
	for (i = 0; i < NR_CALL_KINDS; i++)
		ok &= shared->kinds[i] > 0;
	return ok;
}

static bool all_had_their_chance(void)
{
	int i;

	for (i = 0; i < CALLERS; i++)
		if (callers[i].lives <= MOST_LIVES)
			return false;
	return true;
}

/* Run callers for at least @ms, and until all_happened(). */
static void run_callers(long ms)
{
	const long start = now_ms();
	bool hung = false;
	int i;

	while (!hung && (now_ms() - start < ms ||
			 (!all_happened() && !all_had_their_chance()))) {
		for (i = 0; i < CALLERS; i++) {
			if (!callers[i].pid)
				start_caller(i);
			reap_caller(i);
			hung |= is_hung(i);
		}
		sleep_ms(5);
	}
}

/* Tell all callers to stop; those that hang are killed, if that is possible. */
static void end_callers(pid_t replugger)
{
	const long end = now_ms() + LIMIT_MS;
	int i, left;

	__atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
	do {
		for (i = left = 0; i < CALLERS; i++) {
			reap_caller(i);
			left += !!callers[i].pid;
		}
		sleep_ms(5);
	} while (left && now_ms() < end);
	for (i = 0; i < CALLERS; i++) {
		if (!callers[i].pid)
			continue;
		fail(FAILURE_HUNG, &shared->calls[i][0], "caller does not end");
		kill(callers[i].pid, SIGKILL);
		child_status_within(callers[i].pid, 10000);
	}
	if (child_status_within(replugger, LIMIT_MS))
		fail(FAILURE_HUNG, NULL, "plugging does not end");
}

/*
 * Afterwards.
 */

/* The physical range of a dead device is free soon after its processes have ended. */
static int plug_soon(int fd)
{
	int i, ret = -EBUSY;

	device_unplug(fd);
	for (i = 0; i < LIMIT_MS / 10 && ret == -EBUSY; i++) {
		if (i)
			sleep_ms(10);
		ret = device_plug(fd);
	}
	device_inject(fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	device_fail_next(fd, 0);
	return ret;
}

static long sample_move(unsigned long request, char *ptr, unsigned long npages)
{
	struct ivshmem_devmem_range range = {
		.addr = (uintptr_t)ptr,
		.size = npages * PAGE,
	};
	const int ret = device_ioctl(nodes[NODE_SAMPLE], request, &range);

	return ret ? ret : (long)range.pages;
}

static long move_there(int node, char *ptr, unsigned long npages)
{
	if (node == NODE_SAMPLE)
		return sample_move(IVSHMEM_DEVMEM_TO_DEVICE, ptr, npages);
	return to_device(nodes[node], ptr, npages);
}

static long in_use(int node)
{
	if (node != NODE_SAMPLE)
		return device_used(nodes[node]);
	return number_of(file_read("/sys/kernel/debug/hmm_devmem/0000:00:10.0/stats"),
			 "used");
}

/* Check that memory can move to the device and back with its data. */
static void check_works(int node)
{
	char *ptr = area_filled(TRIP_PAGES, node != NODE_CLASSIC, node + 1);
	long moved, bad;

	moved = move_there(node, ptr, TRIP_PAGES);
	if (moved != TRIP_PAGES || in_use(node) != TRIP_PAGES)
		fail(FAILURE_BROKEN, NULL, "%s took %ld of %lu pages, has %ld",
		     node_path(node), moved, TRIP_PAGES, in_use(node));
	bad = wrong(ptr, node + 1, TRIP_PAGES);
	if (bad)
		fail(FAILURE_BROKEN, NULL, "%s: %ld pages are wrong",
		     node_path(node), bad);
	areas_unmap();
}

static void check_empty(int node)
{
	struct hmm_devmem_test_stats stats;
	int i;

	for (i = 0; i < LIMIT_MS / 10 && in_use(node); i++)
		sleep_ms(10);
	if (in_use(node))
		fail(FAILURE_NOT_EMPTY, NULL, "%s has %ld pages in use",
		     node_path(node), in_use(node));
	if (node == NODE_SAMPLE)
		return;
	stats = device_stats(nodes[node]);
	for (i = 0; i < LIMIT_MS / 10 && stats.contexts != 1; i++) {
		sleep_ms(10);
		stats = device_stats(nodes[node]);
	}
	if (stats.contexts != 1)
		fail(FAILURE_NOT_EMPTY, NULL, "%s has %llu files open, not 1",
		     node_path(node), stats.contexts);
}

static void check_afterwards(void)
{
	int node, ret;

	for (node = 0; node < NODES; node++) {
		ret = node == NODE_SAMPLE ? 0 : plug_soon(nodes[node]);
		if (ret)
			fail(FAILURE_BROKEN, NULL, "plug %s: %s", node_path(node),
			     strerror(-ret));
		check_empty(node);
		check_works(node);
		check_empty(node);
	}
}

/*
 * Results.
 */

static void print_counts(void)
{
	int i;

	printf("# %-20s %10s %10s\n", "ioctl", "succeeded", "failed");
	for (i = 0; i < nr_commands; i++)
		printf("# %-20s %10llu %10llu\n", commands[i].name, shared->good[i],
		       shared->bad[i]);
	printf("# %-20s %10s %10llu\n", "no such ioctl", "", shared->unknown);
	for (i = 0; i < CALLERS; i++)
		printf("# %u processes%s\n", callers[i].lives,
		       i ? " as nobody" : "");
}

static int print_result(int number, bool ok, const char *what)
{
	printf("%sok %d - %s\n", ok ? "" : "not ", number, what);
	return !ok;
}

static int print_results(void)
{
	int i, failed = 0;

	for (i = 0; i < NR_FAILURES; i++)
		failed += print_result(i + 1, !shared->failures[i],
				       failure_names[i]);
	print_counts();
	failed += print_result(NR_FAILURES + 1, all_happened(),
			       "every call was made, and both succeeded and failed");
	return failed;
}

static bool find_sample(void)
{
	glob_t found;

	if (glob("/dev/ivshmem_devmem-*", 0, NULL, &found))
		return false;
	snprintf(sample_path, sizeof(sample_path), "%s", found.gl_pathv[0]);
	globfree(&found);
	return true;
}

/* Each process opens the nodes itself: a file is about the memory of its opener. */
static bool begin(void)
{
	int i;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED,
		      shared_fd, 0);
	if (shared == MAP_FAILED || !find_sample())
		return false;
	for (i = 0; i < NODES; i++) {
		nodes[i] = open(node_path(i), O_RDWR | O_CLOEXEC);
		if (nodes[i] < 0)
			return false;
	}
	return true;
}

static int caller(char **args)
{
	const int number = strtol(args[1], NULL, 10);

	shared_fd = strtol(args[0], NULL, 10);
	if (!begin())
		return 126;
	caller_run(number, strtoul(args[2], NULL, 10), !number);
	return 0;
}

static void run(long seconds)
{
	pid_t replugger;

	check_permissions();
	fflush(stdout);
	replugger = child_fork();
	if (!replugger) {
		replugger_run();
		_exit(0);
	}
	run_callers(seconds * 1000);
	end_callers(replugger);
	check_afterwards();
}

static void usage(FILE *file)
{
	fprintf(file, "Usage: fuzz [--seed N] [--seconds N]\n"
		"\n"
		"--seed N     the seed of all random numbers (default: another each time)\n"
		"--seconds N  how long at least (default: 30)\n");
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{ "seed", required_argument, NULL, 'S' },
		{ "seconds", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	__u64 seed = any_seed();
	long seconds = 30;
	int option;

	if (argc == 5 && !strcmp(argv[1], CALLER))
		return caller(argv + 2);
	while ((option = getopt_long(argc, argv, "h", names, NULL)) != -1) {
		if (option == 'S')
			seed = strtoull(optarg, NULL, 0);
		else if (option == 's')
			seconds = strtol(optarg, NULL, 0);
		else
			break;
	}
	if (option != -1 || optind != argc || seconds <= 0) {
		usage(option == 'h' ? stdout : stderr);
		return option == 'h' ? 0 : 2;
	}
	printf("TAP version 13\n1..%d\n# seed %llu\n", NR_FAILURES + 1, seed);
	shared_fd = memfd_create("shared", 0);
	if (shared_fd < 0 || ftruncate(shared_fd, sizeof(*shared)) || !begin()) {
		printf("Bail out! not all devices are there: %s\n", strerror(errno));
		return 1;
	}
	shared->seed = seed;
	run(seconds);
	printf("# seed %llu\n", seed);
	return !!print_results();
}
