/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What mm/hmm_devmem/reclaim.c and stream.c need of the kernel, for a program with one
 * thread.
 */
#ifndef _POLICY_SHIM_H
#define _POLICY_SHIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t u32;
typedef uint64_t u64;
struct mutex { int unused; };

#define U32_MAX				UINT32_MAX
#define BIT(nr)				(1UL << (nr))
#define BIT_ULL(nr)			(1ULL << (nr))
#define min(a, b) \
	({ __typeof__(a) __a = (a); __typeof__(b) __b = (b); __a < __b ? __a : __b; })
#define max(a, b) \
	({ __typeof__(a) __a = (a); __typeof__(b) __b = (b); __a > __b ? __a : __b; })
#define max_t(type, a, b)		max((type)(a), (type)(b))
#define clamp(value, low, high)		min(max(value, low), high)
#define READ_ONCE(x)			(x)
#define WRITE_ONCE(x, value)		((x) = (value))
/* There is one thread. */
#define data_race(expr)			(expr)
#define unrolled_full
#define guard(class)			guard_##class
#define mutex_init(lock)		((lock)->unused = 0)
#define mutex_destroy(lock)		((lock)->unused = 1)
#define GFP_KERNEL			0
#define kzalloc_obj(obj)		calloc(1, sizeof(obj))
#define kvcalloc(nr, size, gfp)		((void)(gfp), calloc(nr, size))
#define kvfree				free
#define kfree				free

static inline void guard_mutex(struct mutex *lock)
{
	(void)lock;
}

static inline u32 DIV_ROUND_UP(u32 n, u32 d)
{
	return (n + d - 1) / d;
}

static inline u32 rol32(u32 value, unsigned int shift)
{
	return value << shift | value >> (32 - shift);
}

static inline u32 hash_64(u64 value, unsigned int bits)
{
	return value * 0x61c8864680b583ebULL >> (64 - bits);
}

static inline u32 reciprocal_scale(u32 value, u32 limit)
{
	return (u64)value * limit >> 32;
}

#endif /* _POLICY_SHIM_H */
