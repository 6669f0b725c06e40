// SPDX-License-Identifier: GPL-2.0
/*
 * The processes of the fuzzer that make the calls: which calls, with which
 * arguments, and with which results.
 */
#include "fuzz.h"

#include <grp.h>
#include <poll.h>
#include <pthread.h>

#define NOBODY		65534
/* Calls of a process; it ends then, since it loses more and more of its memory */
#define CALLS		400
#define STRIDE		(4UL << 20)
#define PATTERN		77

/*
 * Memory. Before, after and between the parts there are large ranges that cannot be
 * accessed, so that calls never write to anything but these parts.
 */

enum part {
	PART_SMALL,
	PART_HUGE,
	PART_READ_ONLY,
	PART_NONE,
	PART_SHARED,
	PART_FILE,
	PART_DEVICE,
	PART_HOLE,
	NR_PARTS,
};

static const unsigned long part_pages[NR_PARTS] = {
	[PART_SMALL] = 600,
	[PART_HUGE] = 2 * HUGE_PAGES,
	[PART_READ_ONLY] = 64,
	[PART_NONE] = 64,
	[PART_SHARED] = 64,
	[PART_FILE] = 16,
	[PART_DEVICE] = 16,
	[PART_HOLE] = 16,
};

static char *parts[NR_PARTS];
/* Two pages for arguments of each thread: a writable one and a read-only one */
static char *arg_pages[THREADS];
static int caller_number;
static unsigned int caller_life;

static void *map_part(char *addr, unsigned long npages, int prot, int flags, int fd)
{
	char *ptr = mmap(addr, npages * PAGE, prot, flags | MAP_FIXED, fd, 0);

	/* A mapping of an unplugged device can fail */
	return ptr == addr ? ptr : NULL;
}

static void map_all(void)
{
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
	char *base = mmap(NULL, (NR_PARTS + THREADS + 3) * STRIDE, PROT_NONE,
			  anon | MAP_NORESERVE, -1, 0);
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), i;

	base = (char *)(((uintptr_t)base + HUGE - 1) & ~(HUGE - 1)) + STRIDE;
	for (i = 0; i < NR_PARTS; i++)
		parts[i] = base + i * STRIDE;
	map_part(parts[PART_SMALL], part_pages[PART_SMALL], rw, anon, -1);
	madvise(parts[PART_SMALL], part_pages[PART_SMALL] * PAGE, MADV_NOHUGEPAGE);
	map_part(parts[PART_HUGE], part_pages[PART_HUGE], rw, anon, -1);
	madvise(parts[PART_HUGE], part_pages[PART_HUGE] * PAGE, MADV_HUGEPAGE);
	map_part(parts[PART_READ_ONLY], part_pages[PART_READ_ONLY], rw, anon, -1);
	map_part(parts[PART_SHARED], part_pages[PART_SHARED], rw,
		 MAP_SHARED | MAP_ANONYMOUS, -1);
	map_part(parts[PART_FILE], part_pages[PART_FILE], rw, MAP_PRIVATE, fd);
	map_part(parts[PART_DEVICE], part_pages[PART_DEVICE], rw, MAP_SHARED,
		 nodes[caller_number % NODE_SAMPLE]);
	/* An address at which nothing is mapped unless a program asks for it */
	parts[PART_HOLE] = (char *)0x200000;
	fill(parts[PART_SMALL], 1, part_pages[PART_SMALL]);
	fill(parts[PART_HUGE], 2, part_pages[PART_HUGE]);
	fill(parts[PART_READ_ONLY], PATTERN, part_pages[PART_READ_ONLY]);
	mprotect(parts[PART_READ_ONLY], part_pages[PART_READ_ONLY] * PAGE,
		 PROT_READ);
	for (i = 0; i < THREADS; i++)
		arg_pages[i] = map_part(base + (NR_PARTS + i) * STRIDE, 2, rw,
					anon, -1);
	close(fd);
}

/* Memory that is read-only must have its bytes. */
static void check_read_only(void)
{
	if (wrong(parts[PART_READ_ONLY], PATTERN, part_pages[PART_READ_ONLY]))
		fail(FAILURE_MEMORY, NULL, "read only memory has been written to");
}

/*
 * Values.
 */

static const __u64 odd_values[] = {
	0, 1, 2, 3, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, 0x7fffffff,
	0x80000000, 0xffffffff, 0x100000000, 1ULL << 36, 1ULL << 40,
	(1ULL << 51) - 1, 1ULL << 51, 1ULL << 52, 1ULL << 63, (1ULL << 63) - 1,
	-1ULL, -2ULL, -4095ULL, -4096ULL, -4097ULL,
};

/* Addresses at which this process has nothing: low, at the end, of the kernel */
static const __u64 odd_addresses[] = {
	0, 1, PAGE - 1, PAGE, 0x10000, 0x7ffffffff000 - PAGE, 0x7ffffffff000,
	0x7fffffffffff, 0x800000000000, 0x8000000000000000, 0xffff888000000000,
	0xffff888000001000, 0xffffc90000000000, 0xffffea0000000000,
	0xffffffff81000000, 0xffffffffff600000, 0xfffffffffffff000, -1ULL,
};

static __u64 pick(struct rng *rng, const __u64 *values, unsigned long nr)
{
	return values[rng_below(rng, nr)];
}

static __u64 part_address(struct rng *rng)
{
	const int part = rng_below(rng, NR_PARTS);
	const __u64 start = (uintptr_t)parts[part];
	const __u64 page = rng_below(rng, part_pages[part]);

	switch (rng_below(rng, 8)) {
	case 0:
		return start + part_pages[part] * PAGE;
	case 1:
		return start + (part_pages[part] - 1) * PAGE;
	case 2:
		return start - PAGE;
	case 3:
		return start + page * PAGE + rng_below(rng, PAGE);
	case 4:
		return start;
	default:
		return start + page * PAGE;
	}
}

static __u64 random_address(struct rng *rng)
{
	return rng_below(rng, 4) ? part_address(rng) :
		pick(rng, odd_addresses, ARRAY_SIZE(odd_addresses));
}

static __u64 random_value(struct rng *rng)
{
	switch (rng_below(rng, 4)) {
	case 0:
		return pick(rng, odd_values, ARRAY_SIZE(odd_values));
	case 1:
		return random_address(rng);
	case 2:
		return rng_below(rng, 1000);
	default:
		return rng_next(rng) >> rng_below(rng, 64);
	}
}

/*
 * Commands.
 */

#define COMMAND(name, type, weight)					\
	{ HMM_DEVMEM_TEST_##name, #name, sizeof(type), false, weight, false }
#define COMMAND_NONE(name, weight)					\
	{ HMM_DEVMEM_TEST_##name, #name, 0, false, weight, false }
#define COMMAND_RANGE(name, weight)					\
	{ HMM_DEVMEM_TEST_##name, #name, sizeof(struct hmm_devmem_test_cmd), \
	  false, weight, true }
#define COMMAND_SAMPLE(name, weight)					\
	{ IVSHMEM_DEVMEM_##name, "sample " #name,			\
	  sizeof(struct ivshmem_devmem_range), true, weight, true }

const struct command commands[] = {
	COMMAND_RANGE(READ, 4),
	COMMAND_RANGE(WRITE, 4),
	COMMAND_RANGE(TO_DEVICE, 6),
	COMMAND_RANGE(TO_RAM, 4),
	COMMAND_RANGE(SNAPSHOT, 4),
	COMMAND_RANGE(EXCLUSIVE, 4),
	COMMAND_RANGE(CHECK_EXCLUSIVE, 4),
	COMMAND(RELEASE, struct hmm_devmem_test_cmd, 1),
	COMMAND(FLAGS, struct hmm_devmem_test_cmd, 2),
	COMMAND_RANGE(READ_UNLOCKED, 4),
	COMMAND_RANGE(TO_DEVICE_ONLY, 6),
	COMMAND_RANGE(FAULT, 4),
	COMMAND_RANGE(MAPPED, 2),
	COMMAND(STATS, struct hmm_devmem_test_stats, 3),
	COMMAND(EVICT, struct hmm_devmem_test_evict, 4),
	COMMAND(INJECT, struct hmm_devmem_test_inject, 3),
	COMMAND_NONE(UNPLUG, 2),
	COMMAND_NONE(PLUG, 4),
	COMMAND(PLUG_AS, struct hmm_devmem_test_plug, 8),
	COMMAND_NONE(SUSPEND, 1),
	COMMAND_NONE(RESUME, 6),
	COMMAND(LOSE, struct hmm_devmem_test_range, 1),
	COMMAND_NONE(MARK_DEAD, 1),
	COMMAND(FAIL_NEXT, __u32, 3),
	COMMAND(REPLAY, struct hmm_devmem_test_replay, 3),
	COMMAND(BUFFER_ALLOC, struct hmm_devmem_test_buffer, 6),
	COMMAND(BUFFER_TOUCH, struct hmm_devmem_test_buffer, 10),
	COMMAND(BUFFER_FREE, struct hmm_devmem_test_buffer, 4),
	COMMAND(OWNERS, struct hmm_devmem_test_owners, 2),
	COMMAND(SHRINK, __u64, 2),
	COMMAND(WITHDRAW, __u64, 2),
	COMMAND_SAMPLE(TO_DEVICE, 100),
	COMMAND_SAMPLE(TO_RAM, 100),
	{ IVSHMEM_DEVMEM_ACCESS, "sample ACCESS",
	  sizeof(struct ivshmem_devmem_access), true, 300, false },
};

const int nr_commands = ARRAY_SIZE(commands);

static int random_command(struct rng *rng, bool sample)
{
	unsigned long total = 0, at;
	int i;

	for (i = 0; i < nr_commands; i++)
		total += commands[i].sample == sample ? commands[i].weight : 0;
	at = rng_below(rng, total);
	for (i = 0;; i++) {
		if (commands[i].sample != sample)
			continue;
		if (at < commands[i].weight)
			return i;
		at -= commands[i].weight;
	}
}

/* A range of memory that is mapped, and a buffer for its data. */
static void good_range(struct rng *rng, __u64 *words, bool sample)
{
	const int part = rng_below(rng, 3);
	const unsigned long first = rng_below(rng, part_pages[part]);
	const unsigned long most = part_pages[part] - first;

	words[0] = (uintptr_t)parts[part] + first * PAGE;
	words[1] = (uintptr_t)parts[rng_below(rng, 2)];
	words[2] = 1 + rng_below(rng, most);
	if (sample)
		words[1] = words[2] * PAGE;
}

static void good_access(struct rng *rng, __u64 *words)
{
	const int part = rng_below(rng, 3);
	const unsigned long word = rng_below(rng, part_pages[part] * WORDS);
	const struct ivshmem_devmem_access access = {
		.addr = (uintptr_t)parts[part] + 8 * word,
		.value = rng_next(rng),
		.flags = rng_below(rng, 4),
	};

	memcpy(words, &access, sizeof(access));
}

/* Few pages: a device with a slow engine can take a fault for each. */
static void good_replay(struct rng *rng, __u64 *words)
{
	static struct hmm_devmem_test_access accesses[4];
	const int part = rng_below(rng, 3);
	const struct hmm_devmem_test_replay replay = {
		.addr = (uintptr_t)parts[part],
		.npages = part_pages[part],
		.accesses = (uintptr_t)accesses,
		.nr = rng_below(rng, ARRAY_SIZE(accesses) + 1),
		.flags = rng_below(rng, 2),
	};
	unsigned int i;

	/* The other thread may change them. Some go beyond the part. */
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		accesses[i].first = rng_below(rng, replay.npages);
		accesses[i].nr = 1 + rng_below(rng, 16);
		accesses[i].op = rng_below(rng, 2);
	}
	memcpy(words, &replay, sizeof(replay));
}

static void good_plug(struct rng *rng, __u64 *words)
{
	static const __u64 delays[] = { 0, 1, 1000, 20000 };
	struct hmm_devmem_test_plug plug = {
		.size = rng_below(rng, 2) ? (1 + rng_below(rng, 4000)) * PAGE : 0,
		.flags = rng_below(rng, HMM_DEVMEM_TEST_PLUG_FLAGS + 1),
		.delay_us = pick(rng, delays, ARRAY_SIZE(delays)),
	};
	const bool shared = plug.flags & HMM_DEVMEM_TEST_SHARED;

	/* A device that is shared consists of whole blocks. */
	if (shared) {
		plug.size = rng_below(rng, 2) ? (1 + rng_below(rng, 8)) * HUGE : 0;
		plug.reserve = rng_below(rng, 5) * HUGE;
	}
	memcpy(words, &plug, sizeof(plug));
}

static void good_words(struct rng *rng, const struct command *command, __u64 *words)
{
	const struct hmm_devmem_test_inject inject = {
		.what = rng_below(rng, HMM_DEVMEM_TEST_FAIL_GONE),
		.skip = rng_below(rng, 8),
		.times = rng_below(rng, 8),
	};

	memset(words, 0, ARG_WORDS * sizeof(*words));
	switch (command->request) {
	case HMM_DEVMEM_TEST_EVICT:
	case HMM_DEVMEM_TEST_LOSE:
		words[0] = rng_below(rng, 3000);
		words[1] = 1 + rng_below(rng, 600);
		break;
	case HMM_DEVMEM_TEST_INJECT:
		memcpy(words, &inject, sizeof(inject));
		break;
	case HMM_DEVMEM_TEST_PLUG_AS:
		good_plug(rng, words);
		break;
	case HMM_DEVMEM_TEST_FAIL_NEXT:
		words[0] = 1ULL << rng_below(rng, 6);
		break;
	case HMM_DEVMEM_TEST_FAULT:
		good_range(rng, words, false);
		words[1] = rng_below(rng, 4);
		break;
	case HMM_DEVMEM_TEST_REPLAY:
		good_replay(rng, words);
		break;
	case HMM_DEVMEM_TEST_FLAGS:
		words[2] = rng_below(rng, 2);
		break;
	case HMM_DEVMEM_TEST_BUFFER_ALLOC:
	case HMM_DEVMEM_TEST_BUFFER_TOUCH:
	case HMM_DEVMEM_TEST_BUFFER_FREE:
		/* The first buffers have the lowest numbers. */
		words[0] = 1 + rng_below(rng, 3);
		words[1] = 1 + rng_below(rng, 2);
		break;
	case HMM_DEVMEM_TEST_SHRINK:
	case HMM_DEVMEM_TEST_WITHDRAW:
		words[0] = rng_below(rng, 8) * HUGE;
		break;
	case IVSHMEM_DEVMEM_ACCESS:
		good_access(rng, words);
		break;
	default:
		good_range(rng, words, command->sample);
	}
}

/* A valid argument, one with a wrong field, or one that is random altogether. */
static void random_words(struct rng *rng, const struct command *command,
			 __u64 *words)
{
	const unsigned int nr = (command->size + 7) / 8 ?: 1;
	unsigned int i;

	good_words(rng, command, words);
	switch (rng_below(rng, 5)) {
	case 0:
		for (i = 0; i < ARG_WORDS; i++)
			words[i] = random_value(rng);
		break;
	case 1:
	case 2:
		words[rng_below(rng, nr) % ARG_WORDS] = random_value(rng);
		break;
	case 3:
		words[rng_below(rng, nr) % ARG_WORDS] ^= 1ULL << rng_below(rng, 64);
		break;
	}
}

/* The number of an ioctl, changed in one of its fields or altogether. */
static unsigned long mutated(struct rng *rng, unsigned long request)
{
	switch (rng_below(rng, 5)) {
	case 0:
		return request ^ (1UL << (30 + rng_below(rng, 2)));
	case 1:
		return request ^ (1UL << (16 + rng_below(rng, 14)));
	case 2:
		return request ^ (1UL << rng_below(rng, 8));
	case 3:
		return request ^ (1UL << (8 + rng_below(rng, 8)));
	default:
		return rng_next(rng);
	}
}

static int find_command(unsigned int request, bool sample)
{
	int i;

	for (i = 0; i < nr_commands; i++)
		if (commands[i].request == request && commands[i].sample == sample)
			return i;
	return -1;
}

/*
 * Results that are allowed.
 */

static bool is_unaligned(__u64 value)
{
	return value % PAGE;
}

static bool range_is_wrong(const struct call *call, const struct command *command)
{
	const __u64 *words = call->words;
	__u64 size = words[1], end;

	if (!command->sample &&
	    (!words[2] || __builtin_mul_overflow(words[2], PAGE, &size)))
		return true;
	return is_unaligned(words[0]) || is_unaligned(size) || !size ||
	       __builtin_add_overflow(words[0], size, &end);
}

static bool plug_is_wrong(const struct call *call)
{
	struct hmm_devmem_test_plug plug;
	const __u32 both = HMM_DEVMEM_TEST_SYNC | HMM_DEVMEM_TEST_ASYNC;

	memcpy(&plug, call->words, sizeof(plug));
	return plug.flags & ~HMM_DEVMEM_TEST_PLUG_FLAGS ||
	       (plug.flags & both) == both || is_unaligned(plug.size) ||
	       plug.delay_us > 1000000 || plug.size > 1ULL << 40 ||
	       (plug.reserve && !(plug.flags & HMM_DEVMEM_TEST_SHARED));
}

static bool inject_is_wrong(const struct call *call)
{
	struct hmm_devmem_test_inject inject;

	memcpy(&inject, call->words, sizeof(inject));
	return inject.what >= HMM_DEVMEM_TEST_FAIL_MAX || inject.error > 4095;
}

static bool access_is_wrong(const struct call *call)
{
	struct ivshmem_devmem_access access;

	memcpy(&access, call->words, sizeof(access));
	return access.addr % 8 ||
	       access.flags & ~(IVSHMEM_DEVMEM_WRITE | IVSHMEM_DEVMEM_MIGRATE);
}

/* Does the argument contain a value that no driver may accept? */
static bool words_are_wrong(const struct call *call, const struct command *command)
{
	if (command->has_range)
		return range_is_wrong(call, command);
	switch (call->request) {
	case HMM_DEVMEM_TEST_FLAGS:
		return call->words[2] & ~HMM_DEVMEM_TEST_FLAG_FAIL_ALLOC;
	case HMM_DEVMEM_TEST_PLUG_AS:
		return plug_is_wrong(call);
	case HMM_DEVMEM_TEST_INJECT:
		return inject_is_wrong(call);
	case IVSHMEM_DEVMEM_ACCESS:
		return access_is_wrong(call);
	case HMM_DEVMEM_TEST_EVICT:
	case HMM_DEVMEM_TEST_LOSE:
		return !call->words[1];
	case HMM_DEVMEM_TEST_FAIL_NEXT:
		return (__u32)call->words[0] & ~HMM_DEVMEM_TEST_FAIL_STEPS;
	default:
		return false;
	}
}

/* Is the argument where the kernel cannot read it, or cannot write the result? */
static bool is_out_of_reach(const struct call *call, const struct command *command)
{
	if (!command->size)
		return false;
	if (call->request == HMM_DEVMEM_TEST_STATS &&
	    call->place == PLACE_READ_ONLY)
		return true;
	return call->place == PLACE_BAD || call->place == PLACE_END;
}

/* The only errno that is right; 0 if several results can be right. */
static int required_errno(const struct call *call)
{
	const struct command *command;

	if (call->command < 0)
		return -ENOTTY;
	command = &commands[call->command];
	if (call->node == NODE_CLASSIC &&
	    (call->request == HMM_DEVMEM_TEST_EVICT ||
	     call->request == HMM_DEVMEM_TEST_LOSE ||
	     call->request == HMM_DEVMEM_TEST_INJECT))
		return -EOPNOTSUPP;
	if (is_out_of_reach(call, command))
		return -EFAULT;
	return words_are_wrong(call, command) ? -EINVAL : 0;
}

/*
 * The argument itself can be in memory that a dead device has lost, and an unplugged
 * device may return -ENODEV before it looks at the argument.
 */
static bool refusal_is_right(const struct call *call, int required)
{
	if (call->ret == required || (required == -EINVAL && call->ret == -EFAULT))
		return true;
	return required == -EINVAL && call->ret == -ENODEV &&
	       (call->request == HMM_DEVMEM_TEST_EVICT ||
		call->request == HMM_DEVMEM_TEST_LOSE);
}

/* Is the errno documented for any of the ioctls? */
static bool errno_is_known(long ret)
{
	switch (-ret) {
	case 0:
	case EAGAIN:
	case EBUSY:
	case EEXIST:
	case EFAULT:
	case EINVAL:
	case EIO:
	case ENODEV:
	case ENOENT:
	case ENOMEM:
	case ENOSPC:
	case ENOTTY:
	case EOPNOTSUPP:
	case EPERM:
		return true;
	default:
		return false;
	}
}

static void judge(const struct call *call)
{
	const int required = required_errno(call);

	if (required && !refusal_is_right(call, required))
		fail(FAILURE_REFUSAL, call, "it is to fail with '%s'",
		     strerror(-required));
	if (call->command >= 0 && !errno_is_known(call->ret))
		fail(FAILURE_ERRNO, call, "an error that is not documented");
}

/*
 * Calls.
 */

static __u64 put_arg(struct call *call, int thread, struct rng *rng)
{
	const unsigned int size = call->command < 0 ?
				  sizeof(call->words) : commands[call->command].size;
	char *page = arg_pages[thread];

	switch (call->place) {
	case PLACE_GOOD:
		memcpy(page, call->words, sizeof(call->words));
		return (uintptr_t)page;
	case PLACE_READ_ONLY:
		mprotect(page + PAGE, PAGE, PROT_READ | PROT_WRITE);
		memcpy(page + PAGE, call->words, sizeof(call->words));
		mprotect(page + PAGE, PAGE, PROT_READ);
		return (uintptr_t)page + PAGE;
	case PLACE_END:
		return (uintptr_t)page + 2 * PAGE - (size > 4 ? size - 4 : 0);
	default:
		return pick(rng, odd_addresses, ARRAY_SIZE(odd_addresses));
	}
}

static void count_ioctl(const struct call *call)
{
	__u64 *counter = &shared->unknown;

	if (call->command >= 0)
		counter = call->ret ? &shared->bad[call->command] :
				      &shared->good[call->command];
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static long call_ioctl(struct call *call)
{
	return ioctl(nodes[call->node], call->request, call->arg);
}

static void prepare_ioctl(struct call *call, int thread, struct rng *rng)
{
	const bool sample = call->node == NODE_SAMPLE;
	const struct command *command;

	call->command = random_command(rng, sample);
	command = &commands[call->command];
	call->request = command->request;
	random_words(rng, command, call->words);
	call->place = rng_below(rng, 8) ? PLACE_GOOD : rng_below(rng, NR_PLACES);
	if (!rng_below(rng, 10)) {
		call->request = mutated(rng, command->request);
		/* Numbers with another type can be ioctls that are not the driver's */
		call->request &= ~0xff00UL;
		call->request |= command->request & 0xff00;
		/* It would keep the caller's mmap lock, if the argument is its pid. */
		if (call->request == HMM_DEVMEM_TEST_LOCK_MM)
			call->request = command->request;
		call->command = find_command(call->request, sample);
	}
	call->arg = put_arg(call, thread, rng);
}

static long call_read_write(const struct call *call)
{
	void *buffer = (void *)(uintptr_t)call->arg;
	const size_t size = call->words[0];

	if (call->kind == CALL_READ)
		return call->words[1] % 2 ? read(nodes[call->node], buffer, size) :
			pread(nodes[call->node], buffer, size, call->words[2]);
	return call->words[1] % 2 ? write(nodes[call->node], buffer, size) :
		pwrite(nodes[call->node], buffer, size, call->words[2]);
}

/* Map a part of the node; if that works, use and unmap the memory. */
static long call_mmap(const struct call *call)
{
	const int flags = call->words[2] % 2 ? MAP_SHARED : MAP_PRIVATE;
	const size_t size = call->words[0];
	char *ptr;

	ptr = mmap(NULL, size, call->words[1] % 8, flags, nodes[call->node],
		   call->words[3]);
	if (ptr == MAP_FAILED)
		return -1;
	if (size <= 16 * PAGE && (call->words[1] & (PROT_READ | PROT_WRITE)) ==
	    (PROT_READ | PROT_WRITE))
		memset(ptr, 1, size);
	madvise(ptr, size, call->words[2] % 30);
	return munmap(ptr, size);
}

static long call_open(const struct call *call)
{
	int fd = open(node_path(call->node), call->words[0] & 3);

	if (fd < 0)
		return -1;
	return close(fd);
}

static long call_poll(const struct call *call)
{
	struct pollfd fd = { .fd = nodes[call->node], .events = POLLIN | POLLOUT };

	lseek(nodes[call->node], call->words[0], call->words[1] % 5);
	return poll(&fd, 1, 0) < 0 ? -1 : 0;
}

static void call_do(struct call *call)
{
	long ret;

	errno = 0;
	__atomic_store_n(&call->since, now_ms(), __ATOMIC_SEQ_CST);
	switch (call->kind) {
	case CALL_IOCTL:
		ret = call_ioctl(call);
		break;
	case CALL_READ:
	case CALL_WRITE:
		ret = call_read_write(call);
		break;
	case CALL_MMAP:
		ret = call_mmap(call);
		break;
	case CALL_OPEN:
		ret = call_open(call);
		break;
	default:
		ret = call_poll(call);
	}
	call->ret = ret == -1 ? -errno : ret;
	__atomic_store_n(&call->since, 0, __ATOMIC_SEQ_CST);
}

/* These drivers support neither read() nor write(). */
static void judge_others(const struct call *call, bool privileged)
{
	if ((call->kind == CALL_READ || call->kind == CALL_WRITE) && call->ret >= 0 &&
	    call->words[0])
		fail(FAILURE_REFUSAL, call, "it is to fail");
	if (call->kind == CALL_OPEN && !privileged && call->ret != -EACCES)
		fail(FAILURE_PERMISSION, call, "only root may open it");
	if (call->kind == CALL_MMAP && call->node == NODE_SAMPLE && !call->ret)
		fail(FAILURE_REFUSAL, call, "there is nothing to be mapped");
}

static void random_call(struct call *call, int thread, struct rng *rng,
			bool privileged)
{
	unsigned int i;

	memset(call, 0, sizeof(*call));
	call->kind = rng_below(rng, 12) ? CALL_IOCTL : rng_below(rng, NR_CALL_KINDS);
	call->node = rng_below(rng, NODES);
	if (call->kind == CALL_IOCTL) {
		prepare_ioctl(call, thread, rng);
	} else {
		for (i = 0; i < ARG_WORDS; i++)
			call->words[i] = random_value(rng);
		call->arg = random_address(rng);
	}
	call_do(call);
	__atomic_fetch_add(&shared->kinds[call->kind], 1, __ATOMIC_RELAXED);
	if (call->kind == CALL_IOCTL) {
		count_ioctl(call);
		judge(call);
	} else {
		judge_others(call, privileged);
	}
}

struct caller_thread {
	pthread_t thread;
	int index;
	bool privileged;
};

static void *caller_main(void *arg)
{
	struct caller_thread *thread = arg;
	struct call *call = &shared->calls[caller_number][thread->index];
	struct rng rng;
	int i;

	for (i = 0; i < CALLS; i++) {
		if (__atomic_load_n(&shared->stop, __ATOMIC_SEQ_CST))
			break;
		rng = rng_from(shared->seed, caller_life, thread->index, i);
		random_call(call, thread->index, &rng, thread->privileged);
	}
	return NULL;
}

static void drop_privileges(void)
{
	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		abort();
}

/**
 * caller_run() - Make calls; the process has opened the nodes itself
 * @caller: Number of the caller among those that run at the same time.
 * @number: Number of the process among all callers; selects its random numbers.
 * @privileged: Stay root, rather than become user nobody.
 */
void caller_run(int caller, unsigned int number, bool privileged)
{
	struct caller_thread threads[THREADS];
	int i;

	caller_number = caller;
	caller_life = number;
	map_all();
	if (!privileged)
		drop_privileges();
	for (i = 0; i < THREADS; i++) {
		threads[i].index = i;
		threads[i].privileged = privileged;
		if (pthread_create(&threads[i].thread, NULL, caller_main,
				   &threads[i]))
			abort();
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i].thread, NULL);
	check_read_only();
}
