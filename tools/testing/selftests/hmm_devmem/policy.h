/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Accesses of programs that work on a device, for comparing policies. The same
 * arguments give the same accesses, in the program that replays them on the test
 * device and in the one that computes what other policies do.
 */
#ifndef _HMM_DEVMEM_POLICY_H
#define _HMM_DEVMEM_POLICY_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <test_hmm_devmem_uapi.h>

#define POLICY_BLOCK	512U	/* pages */
/* Consecutive pages are one access, of at most so many pages. */
#define POLICY_RUN	64U

/**
 * struct policy_trace - the accesses of a program
 * @accesses: The accesses, in their order.
 * @nr: How many.
 * @room: For how many there is memory.
 * @random: State of the random numbers.
 * @pages: The pages that the program works on.
 * @device: The pages of the device.
 */
struct policy_trace {
	struct hmm_devmem_test_access *accesses;
	size_t nr;
	size_t room;
	uint64_t random;
	uint32_t pages;
	uint32_t device;
};

static inline uint64_t trace_random(struct policy_trace *trace)
{
	trace->random ^= trace->random << 13;
	trace->random ^= trace->random >> 7;
	trace->random ^= trace->random << 17;
	return trace->random;
}

static inline uint32_t trace_below(struct policy_trace *trace, uint32_t limit)
{
	return (trace_random(trace) >> 11) % limit;
}

static inline void *policy_alloc(void *old, size_t size)
{
	void *mem = realloc(old, size);

	if (!mem)
		abort();
	return mem;
}

static inline void trace_access(struct policy_trace *trace, uint32_t op,
				uint32_t page)
{
	struct hmm_devmem_test_access *last = trace->accesses + trace->nr - 1;

	if (trace->nr && last->op == op && last->nr < POLICY_RUN &&
	    last->first + last->nr == page) {
		last->nr++;
		return;
	}
	if (trace->nr == trace->room) {
		trace->room = trace->room ? 2 * trace->room : 1 << 16;
		trace->accesses = policy_alloc(trace->accesses,
					       trace->room * sizeof(*last));
	}
	trace->accesses[trace->nr++] = (struct hmm_devmem_test_access) {
		.first = page, .nr = 1, .op = op,
	};
}

static inline void trace_device(struct policy_trace *trace, uint32_t page)
{
	trace_access(trace, HMM_DEVMEM_TEST_ACCESS_DEVICE, page);
}

static inline void trace_device_range(struct policy_trace *trace, uint32_t first,
				      uint32_t end)
{
	for (; first < end; first++)
		trace_device(trace, first);
}

static inline void trace_cpu_range(struct policy_trace *trace, uint32_t first,
				   uint32_t end)
{
	for (; first < end; first++)
		trace_access(trace, HMM_DEVMEM_TEST_ACCESS_CPU, first);
}

/* Numbers up to @nr, the first ones much more often than the last ones. */
struct policy_zipf {
	double *sums;
	uint32_t *order;
	uint32_t nr;
};

static inline void trace_shuffle(struct policy_trace *trace, uint32_t *order,
				 uint32_t nr)
{
	uint32_t i, j, swap;

	for (i = 0; i < nr; i++)
		order[i] = i;
	for (i = nr; i > 1; i--) {
		j = trace_below(trace, i);
		swap = order[i - 1];
		order[i - 1] = order[j];
		order[j] = swap;
	}
}

static inline void zipf_start(struct policy_trace *trace, struct policy_zipf *zipf,
			      uint32_t nr, double exponent)
{
	double sum = 0;
	uint32_t i;

	zipf->nr = nr;
	zipf->sums = policy_alloc(NULL, nr * sizeof(*zipf->sums));
	zipf->order = policy_alloc(NULL, nr * sizeof(*zipf->order));
	trace_shuffle(trace, zipf->order, nr);
	for (i = 0; i < nr; i++) {
		sum += pow(i + 1, -exponent);
		zipf->sums[i] = sum;
	}
}

static inline void zipf_end(struct policy_zipf *zipf)
{
	free(zipf->sums);
	free(zipf->order);
}

static inline uint32_t zipf_next(struct policy_trace *trace,
				 const struct policy_zipf *zipf)
{
	double at = ldexp(trace_random(trace) >> 11, -53) * zipf->sums[zipf->nr - 1];
	uint32_t low = 0, high = zipf->nr - 1, middle;

	while (low < high) {
		middle = (low + high) / 2;
		if (zipf->sums[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return zipf->order[low];
}

/* The part @i of @nr parts of @pages. */
static inline uint32_t policy_part(uint32_t pages, uint32_t i, uint32_t nr)
{
	return (uint64_t)pages * i / nr;
}

#define POLICY_SWEEPS	8

static inline void trace_forward(struct policy_trace *trace)
{
	int sweep;

	for (sweep = 0; sweep < POLICY_SWEEPS; sweep++)
		trace_device_range(trace, 0, trace->pages);
}

static inline void trace_down(struct policy_trace *trace)
{
	uint32_t page;

	for (page = trace->pages; page--;)
		trace_device(trace, page);
}

static inline void trace_backward(struct policy_trace *trace)
{
	int sweep;

	for (sweep = 0; sweep < POLICY_SWEEPS; sweep++)
		trace_down(trace);
}

static inline void trace_zigzag(struct policy_trace *trace)
{
	int sweep;

	for (sweep = 0; sweep < POLICY_SWEEPS; sweep += 2) {
		trace_device_range(trace, 0, trace->pages);
		trace_down(trace);
	}
}

/* From one half to the other and back; the CPU exchanges the ends of the result. */
static inline void trace_stencil(struct policy_trace *trace)
{
	const uint32_t half = trace->pages / 2;
	uint32_t from, to, i;
	int sweep;

	for (sweep = 0; sweep < POLICY_SWEEPS; sweep++) {
		from = sweep & 1 ? half : 0;
		to = half - from;
		for (i = 0; i < half; i++) {
			if (i)
				trace_device(trace, from + i - 1);
			trace_device(trace, from + i);
			if (i + 1 < half)
				trace_device(trace, from + i + 1);
			trace_device(trace, to + i);
		}
		trace_cpu_range(trace, to, to + 4);
		trace_cpu_range(trace, to + half - 4, to + half);
	}
}

/* a[i] = b[i] + s * c[i] */
static inline void trace_triad(struct policy_trace *trace)
{
	const uint32_t third = trace->pages / 3;
	uint32_t i;
	int sweep;

	for (sweep = 0; sweep < POLICY_SWEEPS; sweep++) {
		for (i = 0; i < third; i++) {
			trace_device(trace, third + i);
			trace_device(trace, 2 * third + i);
			trace_device(trace, i);
		}
	}
}

static inline void trace_lockstep(struct policy_trace *trace)
{
	const uint32_t half = trace->pages / 2;
	uint32_t first, i;
	int sweep;

	for (sweep = 0; sweep < POLICY_SWEEPS; sweep++) {
		first = sweep & 1 ? half : 0;
		for (i = 0; i < half; i++) {
			trace_device(trace, first + i);
			trace_device(trace, half - first + i);
		}
	}
}

/* Three matrices of tiles of 1 MiB. */
static inline void trace_gemm(struct policy_trace *trace)
{
	const uint32_t tile = POLICY_BLOCK / 2, third = trace->pages / 3;
	const uint32_t nr = sqrt(third / tile);
	uint32_t i, j, k, page;

	for (i = 0; i < nr; i++) {
		for (j = 0; j < nr; j++) {
			const uint32_t c = 2 * third + (i * nr + j) * tile;

			for (k = 0; k < nr; k++) {
				const uint32_t a = (i * nr + k) * tile;
				const uint32_t b = third + (k * nr + j) * tile;

				for (page = 0; page < tile; page++) {
					trace_device(trace, a + page);
					trace_device(trace, b + page);
				}
				trace_device_range(trace, c, c + tile);
			}
		}
	}
}

/* A fifth is the state of vertices; each of the other pages, edges, is read once. */
static inline void trace_graph(struct policy_trace *trace)
{
	const uint32_t vertices = trace->pages / 5;
	const uint32_t edges = trace->pages - vertices;
	uint32_t *order = policy_alloc(NULL, edges * sizeof(*order)), i;
	struct policy_zipf zipf;
	int sweep;

	zipf_start(trace, &zipf, vertices, 0.8);
	for (sweep = 0; sweep < 3; sweep++) {
		trace_shuffle(trace, order, edges);
		for (i = 0; i < edges; i++) {
			trace_device(trace, vertices + order[i]);
			trace_device(trace, zipf_next(trace, &zipf));
			trace_device(trace, zipf_next(trace, &zipf));
		}
	}
	zipf_end(&zipf);
	free(order);
}

/* Points are read, assignments written, and the CPU reads the centres. */
static inline void trace_kmeans(struct policy_trace *trace)
{
	const uint32_t centres = 64, assigned = trace->pages / 16;
	const uint32_t points = trace->pages - assigned - centres;
	uint32_t i;
	int sweep;

	for (sweep = 0; sweep < POLICY_SWEEPS; sweep++) {
		for (i = 0; i < points; i++) {
			trace_device(trace, centres + assigned + i);
			if (i % 16 == 0)
				trace_device(trace, centres +
					     policy_part(assigned, i, points));
			if (i % 8 == 0)
				trace_device(trace, i / 8 % centres);
		}
		trace_cpu_range(trace, 0, centres);
	}
}

/*
 * A language model: for each token 7/10, the weights, are swept, layer by layer, with
 * what there is so far of the layer's part of the cache. The CPU reads the result.
 */
static inline void trace_decode(struct policy_trace *trace)
{
	enum { TOKENS = 12, LAYERS = 16 };
	const uint32_t result = trace->pages - 4;
	const uint32_t weights = policy_part(result, 7, 10);
	const uint32_t cache = result - weights;
	uint32_t token, layer, first;

	for (token = 1; token <= TOKENS; token++) {
		for (layer = 0; layer < LAYERS; layer++) {
			trace_device_range(trace, policy_part(weights, layer, LAYERS),
					   policy_part(weights, layer + 1, LAYERS));
			first = weights + policy_part(cache, layer, LAYERS);
			trace_device_range(trace, first, first +
					   policy_part(cache / LAYERS, token, TOKENS));
		}
		trace_device(trace, result);
		trace_cpu_range(trace, result, result + 1);
	}
}

/* Embedding tables: four pages of one of the rows of sixteen pages. */
static inline void trace_embed(struct policy_trace *trace)
{
	const uint32_t row = 16;
	struct policy_zipf zipf;
	uint32_t i, k, at;

	zipf_start(trace, &zipf, trace->pages / row, 0.9);
	for (i = 0; i < trace->pages / 2; i++) {
		at = zipf_next(trace, &zipf) * row;
		for (k = 0; k < 4; k++)
			trace_device(trace, at + k * 5 % row);
	}
	zipf_end(&zipf);
}

/* One set after the other, each of which fits. */
static inline void trace_phases(struct policy_trace *trace)
{
	enum { PHASES = 6, ROUNDS = 6 };
	uint32_t set = policy_part(trace->device, 6, 10), phase, round, first;

	if (set > trace->pages)
		set = trace->pages;
	for (phase = 0; phase < PHASES; phase++) {
		first = policy_part(trace->pages - set, phase, PHASES - 1);
		first -= first % POLICY_BLOCK;
		for (round = 0; round < ROUNDS; round++)
			trace_device_range(trace, first, first + set);
	}
}

/* A scan, and a set that is used again after each eighth of the scan. */
static inline void trace_scan(struct policy_trace *trace)
{
	enum { PIECES = 8 };
	uint32_t hot = trace->device / 2, rest, piece;
	int sweep;

	if (hot > trace->pages / 2)
		hot = trace->pages / 2;
	rest = trace->pages - hot;
	for (sweep = 0; sweep < 2; sweep++) {
		for (piece = 0; piece < PIECES; piece++) {
			trace_device_range(trace, 0, hot);
			trace_device_range(trace, hot + policy_part(rest, piece, PIECES),
					   hot + policy_part(rest, piece + 1, PIECES));
		}
	}
}

struct policy_program {
	const char *name;
	void (*trace)(struct policy_trace *trace);
};

static const struct policy_program policy_programs[] = {
	{ "forward", trace_forward },
	{ "backward", trace_backward },
	{ "zigzag", trace_zigzag },
	{ "stencil", trace_stencil },
	{ "triad", trace_triad },
	{ "lockstep", trace_lockstep },
	{ "gemm", trace_gemm },
	{ "graph", trace_graph },
	{ "kmeans", trace_kmeans },
	{ "decode", trace_decode },
	{ "embed", trace_embed },
	{ "phases", trace_phases },
	{ "scan", trace_scan },
};

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))
#endif

#define POLICY_NR_PROGRAMS	ARRAY_SIZE(policy_programs)

/* The accesses of a program to @percent of a device of @device pages. */
static inline struct policy_trace
trace_make(const struct policy_program *program, uint32_t device,
	   unsigned int percent, uint64_t seed)
{
	struct policy_trace trace = {
		.random = seed * 0x9e3779b97f4a7c15ULL | 1,
		.device = device,
	};

	trace.pages = policy_part(device, percent, 100);
	trace.pages -= trace.pages % POLICY_BLOCK;
	program->trace(&trace);
	return trace;
}

static inline void trace_free(struct policy_trace *trace)
{
	free(trace->accesses);
}

#endif /* _HMM_DEVMEM_POLICY_H */
