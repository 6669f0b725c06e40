/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Random numbers: streams that depend only on the numbers they are seeded with, so
 * that a test can be repeated.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_RANDOM_H
#define _SELFTESTS_HMM_DEVMEM_RANDOM_H

#include <time.h>
#include <unistd.h>

#include <linux/types.h>

struct rng {
	__u64 state;
};

static inline __u64 mix(__u64 x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static inline __u64 rng_next(struct rng *rng)
{
	rng->state += 0x9e3779b97f4a7c15ULL;
	return mix(rng->state);
}

/* From 0 to @limit - 1. */
static inline unsigned long rng_below(struct rng *rng, unsigned long limit)
{
	return rng_next(rng) % limit;
}

/* A stream of its own for each set of numbers. */
static inline struct rng rng_from(__u64 seed, __u64 a, __u64 b, __u64 c)
{
	__u64 state = mix(seed + 1);

	state = mix(state + a);
	state = mix(state + b);
	return (struct rng) { .state = mix(state + c) };
}

/* A seed for when the caller gave none; short enough to be typed again. */
static inline __u64 any_seed(void)
{
	return mix(time(NULL) * 1000003ULL + getpid()) % 1000000000;
}

#endif /* _SELFTESTS_HMM_DEVMEM_RANDOM_H */
