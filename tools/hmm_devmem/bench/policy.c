// SPDX-License-Identifier: GPL-2.0
/*
 * What policies of eviction and of fetching move, for the accesses of some programs
 * to a device of a given size, relative to what has to move. The policy of the library,
 * and how much its faults bring, are its own source files, compiled for this program:
 * mm/hmm_devmem/reclaim.c and stream.c.
 */
#include <stdio.h>
#include <string.h>

#include "policy_shim.h"
#include "reclaim.c"
#include "stream.c"

#include "policy.h"

#define NONE	UINT32_MAX

/* What counts: pages copied to the device and back, and page faults. */
struct cost {
	uint64_t in;
	uint64_t out;
	uint64_t device_faults;
	uint64_t cpu_faults;
};

/*
 * Belady's MIN: the page goes that is needed last, in pages of 4 KiB. A page that the
 * CPU accesses next would have to go in any case, so it goes first.
 */
#define NEXT_IS_CPU	NONE
#define NEVER		(NONE - 1)

/* A heap of the pages that are there, the one that is needed last at the top. */
struct heap {
	struct entry {
		uint32_t next;
		uint32_t page;
	} *entries;
	size_t nr;
};

static void heap_push(struct heap *heap, uint32_t next, uint32_t page)
{
	size_t i = heap->nr++;

	for (; i && heap->entries[(i - 1) / 2].next < next; i = (i - 1) / 2)
		heap->entries[i] = heap->entries[(i - 1) / 2];
	heap->entries[i] = (struct entry) { .next = next, .page = page };
}

static struct entry heap_pop(struct heap *heap)
{
	struct entry top = heap->entries[0], last = heap->entries[--heap->nr];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < heap->nr) {
		if (child + 1 < heap->nr &&
		    heap->entries[child + 1].next > heap->entries[child].next)
			child++;
		if (heap->entries[child].next <= last.next)
			break;
		heap->entries[i] = heap->entries[child];
		i = child;
	}
	heap->entries[i] = last;
	return top;
}

static size_t trace_length(const struct policy_trace *trace)
{
	size_t i, length = 0;

	for (i = 0; i < trace->nr; i++)
		length += trace->accesses[i].nr;
	return length;
}

/* For each access to a page, when the next one to it is. */
static uint32_t *next_accesses(const struct policy_trace *trace, size_t length)
{
	uint32_t *next = policy_alloc(NULL, length * sizeof(*next));
	uint32_t *last = policy_alloc(NULL, trace->pages * sizeof(*last));
	const struct hmm_devmem_test_access *access;
	uint32_t page, k;
	size_t i;

	for (page = 0; page < trace->pages; page++)
		last[page] = NEVER;
	for (i = trace->nr; i--;) {
		access = &trace->accesses[i];
		for (k = access->nr; k--;) {
			page = access->first + k;
			next[--length] = last[page];
			last[page] = access->op == HMM_DEVMEM_TEST_ACCESS_CPU ?
				     NEXT_IS_CPU : length;
		}
	}
	free(last);
	return next;
}

struct min {
	struct heap heap;
	uint32_t *next;		/* of each page, when it is needed next */
	bool *there;
	uint32_t nr_there;
	uint32_t device;
	struct cost cost;
};

static void min_evict(struct min *min)
{
	struct entry entry;

	do
		entry = heap_pop(&min->heap);
	while (!min->there[entry.page] || min->next[entry.page] != entry.next);
	min->there[entry.page] = false;
	min->nr_there--;
	min->cost.out++;
}

static void min_access(struct min *min, uint32_t page, bool by_cpu, uint32_t next)
{
	if (by_cpu) {
		min->cost.out += min->there[page];
		min->cost.cpu_faults += min->there[page];
		min->nr_there -= min->there[page];
		min->there[page] = false;
		return;
	}
	if (!min->there[page]) {
		if (min->nr_there == min->device)
			min_evict(min);
		min->there[page] = true;
		min->nr_there++;
		min->cost.in++;
	}
	min->next[page] = next;
	heap_push(&min->heap, next, page);
}

static struct cost run_min(const struct policy_trace *trace)
{
	const size_t length = trace_length(trace);
	uint32_t *next = next_accesses(trace, length);
	struct min min = { .device = trace->device };
	size_t i, at = 0;
	uint32_t k;

	min.heap.entries = policy_alloc(NULL, length * sizeof(*min.heap.entries));
	min.there = calloc(trace->pages, sizeof(*min.there));
	min.next = calloc(trace->pages, sizeof(*min.next));
	for (i = 0; i < trace->nr; i++)
		for (k = 0; k < trace->accesses[i].nr; k++)
			min_access(&min, trace->accesses[i].first + k,
				   trace->accesses[i].op == HMM_DEVMEM_TEST_ACCESS_CPU,
				   next[at++]);
	free(min.heap.entries);
	free(min.there);
	free(min.next);
	free(next);
	return min.cost;
}

/*
 * The device as the library uses it: pages in blocks, of which whole ones are evicted.
 */
enum evicts {
	EVICTS_IN_TURN,
	EVICTS_LRU,		/* knows each access */
	EVICTS_LRU_FAULTS,	/* knows what faults brought */
	EVICTS_HOLD,
	EVICTS_HOLD_BLIND,	/* the driver gives no hints */
};

enum fetches {
	FETCHES_STREAMS,
	FETCHES_TREE,
	FETCHES_BLOCK,
};

static const struct policy {
	const char *name;
	enum evicts evicts;
	enum fetches fetches;
	bool large;
} policies[] = {
	{ "turns", EVICTS_IN_TURN, FETCHES_STREAMS, false },
	{ "LRU", EVICTS_LRU, FETCHES_STREAMS, false },
	{ "tree", EVICTS_LRU_FAULTS, FETCHES_TREE, false },
	{ "hold", EVICTS_HOLD, FETCHES_STREAMS, false },
	{ "blind", EVICTS_HOLD_BLIND, FETCHES_STREAMS, false },
	{ "turns2M", EVICTS_IN_TURN, FETCHES_BLOCK, true },
	{ "LRU2M", EVICTS_LRU, FETCHES_BLOCK, true },
	{ "hold2M", EVICTS_HOLD, FETCHES_BLOCK, true },
	{ "blind2M", EVICTS_HOLD_BLIND, FETCHES_BLOCK, true },
};

#define NR_POLICIES	ARRAY_SIZE(policies)

struct range {
	uint32_t first;
	uint32_t end;
};

struct device {
	const struct policy *policy;
	uint32_t pages;			/* of the program */
	uint32_t nr_blocks;
	uint32_t *slots;		/* of each page of the program, or NONE */
	uint32_t *owners;		/* of each slot, or NONE */
	uint32_t *used;			/* slots of each block */
	uint64_t *stamps;		/* when a block was used last */
	uint64_t *listed;		/* when its free pages changed last */
	uint64_t now;
	uint32_t nr_free;
	uint32_t hand;
	struct range keep;
	struct hmm_devmem_stream_sets device_streams;
	struct hmm_devmem_streams cpu_streams;
	struct hmm_devmem_hold *hold;
	struct cost cost;
};

static bool device_holds(const struct device *device)
{
	return device->policy->evicts == EVICTS_HOLD ||
	       device->policy->evicts == EVICTS_HOLD_BLIND;
}

static void device_start(struct device *device, const struct policy *policy,
			 const struct policy_trace *trace)
{
	*device = (struct device) {
		.policy = policy,
		.pages = trace->pages,
		.nr_blocks = trace->device / POLICY_BLOCK,
		.nr_free = trace->device,
		.cpu_streams = HMM_DEVMEM_STREAMS_INIT,
	};
	device->slots = policy_alloc(NULL, device->pages * sizeof(uint32_t));
	memset(device->slots, 0xff, device->pages * sizeof(uint32_t));
	device->owners = policy_alloc(NULL, trace->device * sizeof(uint32_t));
	memset(device->owners, 0xff, trace->device * sizeof(uint32_t));
	device->used = calloc(device->nr_blocks, sizeof(uint32_t));
	device->stamps = calloc(device->nr_blocks, sizeof(uint64_t));
	device->listed = calloc(device->nr_blocks, sizeof(uint64_t));
	hmm_devmem_stream_sets_init(&device->device_streams);
	if (device_holds(device))
		device->hold = hmm_devmem_hold_create(device->nr_blocks);
}

static void device_end(struct device *device)
{
	hmm_devmem_hold_destroy(device->hold);
	free(device->slots);
	free(device->owners);
	free(device->used);
	free(device->stamps);
	free(device->listed);
}

static void page_leaves(struct device *device, uint32_t page)
{
	const uint32_t slot = device->slots[page];

	device->owners[slot] = NONE;
	device->slots[page] = NONE;
	device->used[slot / POLICY_BLOCK]--;
	device->listed[slot / POLICY_BLOCK] = ++device->now;
	device->nr_free++;
	device->cost.out++;
}

static uint32_t log2_of(uint32_t value)
{
	return 31 - __builtin_clz(value);
}

/* As the pool: the block with the least free pages, by powers of two. */
static uint32_t block_with_room(const struct device *device)
{
	uint32_t block, best = NONE, order, best_order = NONE;

	for (block = 0; block < device->nr_blocks; block++) {
		if (device->used[block] == POLICY_BLOCK)
			continue;
		order = log2_of(POLICY_BLOCK - device->used[block]);
		if (order < best_order ||
		    (order == best_order &&
		     device->listed[block] > device->listed[best])) {
			best = block;
			best_order = order;
		}
	}
	return best;
}

static uint32_t block_that_is_empty(const struct device *device)
{
	uint32_t block;

	for (block = 0; block < device->nr_blocks; block++)
		if (!device->used[block])
			return block;
	return NONE;
}

/* Only hashed: an address of this program would not be the same in each run. */
#define THE_OWNER	((const void *)0x1000)

static struct hmm_devmem_hold_data data_of(uint32_t page)
{
	return (struct hmm_devmem_hold_data) {
		.owner = THE_OWNER, .index = page / POLICY_BLOCK,
	};
}

static bool may_go(void *arg, uint32_t block)
{
	struct device *device = arg;
	uint32_t i, page;

	for (i = 0; i < POLICY_BLOCK; i++) {
		page = device->owners[block * POLICY_BLOCK + i];
		if (page != NONE && (page < device->keep.first ||
				     page >= device->keep.end))
			return true;
	}
	return false;
}

static uint32_t victim_in_turn(struct device *device)
{
	do
		device->hand = (device->hand + 1) % device->nr_blocks;
	while (!may_go(device, device->hand));
	return device->hand;
}

static uint32_t victim_lru(struct device *device)
{
	uint32_t block, best = NONE;

	for (block = 0; block < device->nr_blocks; block++)
		if ((best == NONE || device->stamps[block] < device->stamps[best]) &&
		    may_go(device, block))
			best = block;
	return best;
}

static uint32_t victim(struct device *device, uint32_t page)
{
	const struct hmm_devmem_hold_data data = data_of(page);
	uint32_t block = NONE;

	if (device->policy->evicts == EVICTS_IN_TURN)
		return victim_in_turn(device);
	if (!device->hold)
		return victim_lru(device);
	block = hmm_devmem_hold_victim(device->hold, &data, may_go, device);
	return block == NONE ? victim_in_turn(device) : block;
}

static void evict_for(struct device *device, uint32_t page)
{
	const uint32_t block = victim(device, page);
	struct hmm_devmem_hold_data data, before = { };
	uint32_t i, owner;

	for (i = block * POLICY_BLOCK; i < (block + 1) * POLICY_BLOCK; i++) {
		owner = device->owners[i];
		if (owner == NONE || (owner >= device->keep.first &&
				      owner < device->keep.end))
			continue;
		data = data_of(owner);
		if (device->hold && (!before.owner || before.index != data.index))
			hmm_devmem_hold_remember(device->hold, block, &data);
		before = data;
		page_leaves(device, owner);
	}
	if (device->hold)
		hmm_devmem_hold_evicted(device->hold, block);
}

/* Put a page into a block. */
static void page_comes(struct device *device, uint32_t page, uint32_t block)
{
	const struct hmm_devmem_hold_data data = data_of(page);
	uint32_t slot = block * POLICY_BLOCK;

	while (device->owners[slot] != NONE)
		slot++;
	device->owners[slot] = page;
	device->slots[page] = slot;
	device->stamps[block] = ++device->now;
	device->listed[block] = device->now;
	device->nr_free--;
	device->cost.in++;
	if (device->hold && !device->used[block])
		hmm_devmem_hold_brought(device->hold, block, &data);
	else if (device->hold)
		hmm_devmem_hold_mark(device->hold, block);
	device->used[block]++;
}

static void bring(struct device *device, struct range range)
{
	uint32_t block = NONE, page;

	device->keep = range;
	if (device->policy->large)
		block = block_that_is_empty(device);
	for (page = range.first; page < range.end; page++) {
		if (device->slots[page] != NONE)
			continue;
		if (block == NONE || device->used[block] == POLICY_BLOCK) {
			if (!device->nr_free)
				evict_for(device, page);
			block = block_with_room(device);
		}
		page_comes(device, page, block);
	}
}

static struct range block_of(uint32_t page)
{
	const uint32_t first = page - page % POLICY_BLOCK;

	return (struct range) { .first = first, .end = first + POLICY_BLOCK };
}

/* Which process it is does not matter: there is one. */
static const struct mm_struct *const mm = (const void *)policies;

/* The library's windows, which do not go beyond a block. */
static struct range fetch_stream(struct hmm_devmem_streams *streams, uint32_t page)
{
	const struct range block = block_of(page);
	struct hmm_devmem_window window = hmm_devmem_window_one(page);
	const struct hmm_devmem_window bounds = { .first = block.first, .end = block.end };
	struct hmm_devmem_stream *stream = hmm_devmem_streams_find(streams, mm, page);

	if (stream)
		window = hmm_devmem_stream_continue(stream, page, bounds);
	return (struct range) { .first = window.first, .end = window.end };
}

/* NVIDIA's: 64 KiB, and each larger piece once more than 51 % of it is there. */
static struct range fetch_tree(const struct device *device, uint32_t page)
{
	struct range range = { .first = page - page % 16, .end = page - page % 16 + 16 };
	uint32_t size, first, i, nr;

	for (size = 32; size <= POLICY_BLOCK; size *= 2) {
		first = page - page % size;
		for (i = first, nr = 0; i < first + size; i++)
			nr += device->slots[i] != NONE ||
			      (i >= range.first && i < range.end);
		if (nr * 100 > size * 51)
			range = (struct range) { .first = first, .end = first + size };
	}
	return range;
}

static struct range device_fetch(struct device *device, uint32_t page)
{
	unsigned int set;

	switch (device->policy->fetches) {
	case FETCHES_TREE:
		return fetch_tree(device, page);
	case FETCHES_BLOCK:
		return block_of(page);
	default:
		set = hmm_devmem_stream_sets_find(&device->device_streams, mm,
						  hmm_devmem_window_one(page));
		return fetch_stream(&device->device_streams.set[set], page);
	}
}

static void device_uses(struct device *device, uint32_t page)
{
	const uint32_t block = device->slots[page] / POLICY_BLOCK;

	if (device->policy->evicts == EVICTS_LRU)
		device->stamps[block] = ++device->now;
	if (device->policy->evicts == EVICTS_HOLD)
		hmm_devmem_hold_mark(device->hold, block);
}

static void device_access(struct device *device, uint32_t page)
{
	if (device->slots[page] == NONE) {
		device->cost.device_faults++;
		bring(device, device_fetch(device, page));
	}
	device_uses(device, page);
}

static void cpu_access(struct device *device, uint32_t page)
{
	struct range range;

	if (device->slots[page] == NONE)
		return;
	device->cost.cpu_faults++;
	range = device->policy->large ? block_of(page) :
		fetch_stream(&device->cpu_streams, page);
	for (; range.first < range.end; range.first++)
		if (device->slots[range.first] != NONE)
			page_leaves(device, range.first);
}

static struct cost run_policy(const struct policy *policy,
			      const struct policy_trace *trace)
{
	const struct hmm_devmem_test_access *access;
	struct device device;
	size_t i;
	uint32_t k;

	device_start(&device, policy, trace);
	for (i = 0; i < trace->nr; i++) {
		access = &trace->accesses[i];
		for (k = 0; k < access->nr; k++) {
			if (access->op == HMM_DEVMEM_TEST_ACCESS_CPU)
				cpu_access(&device, access->first + k);
			else
				device_access(&device, access->first + k);
		}
	}
	device_end(&device);
	return device.cost;
}

static void print_cost(const char *program, unsigned int percent, const char *policy,
		       const struct cost *cost)
{
	printf("%s\t%u\t%s\t%llu\t%llu\t%llu\t%llu\n", program, percent, policy,
	       (unsigned long long)cost->in, (unsigned long long)cost->out,
	       (unsigned long long)cost->device_faults,
	       (unsigned long long)cost->cpu_faults);
	fflush(stdout);
}

static void run_program(const struct policy_program *program, uint32_t device,
			unsigned int percent, uint64_t seed)
{
	struct policy_trace trace = trace_make(program, device, percent, seed);
	struct cost cost = run_min(&trace);
	size_t i;

	print_cost(program->name, percent, "MIN", &cost);
	for (i = 0; i < NR_POLICIES; i++) {
		cost = run_policy(&policies[i], &trace);
		print_cost(program->name, percent, policies[i].name, &cost);
	}
	trace_free(&trace);
}

int main(int argc, char **argv)
{
	static const unsigned int percents[] = { 50, 110, 150, 200 };
	const uint32_t mib = argc > 1 ? strtoul(argv[1], NULL, 0) : 256;
	const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	size_t i, k;

	if (argc > 3 || mib < 2 || mib > 65536) {
		fprintf(stderr, "Usage: policy [MiB of the device [seed]]\n");
		return 2;
	}
	for (i = 0; i < POLICY_NR_PROGRAMS; i++)
		for (k = 0; k < ARRAY_SIZE(percents); k++)
			run_program(&policy_programs[i], mib * 256, percents[k], seed);
	return 0;
}
