/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls of a test device whose memory is shared with buffers.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_SHARED_H
#define _SELFTESTS_HMM_DEVMEM_SHARED_H

#include "test.h"

static inline int device_plug_shared(int fd, __u64 size, __u32 flags, __u64 reserve)
{
	struct hmm_devmem_test_plug plug = {
		.size = size,
		.reserve = reserve,
		.flags = HMM_DEVMEM_TEST_SHARED | flags,
	};

	return device_ioctl(fd, HMM_DEVMEM_TEST_PLUG_AS, &plug);
}

/* All fields have all bits set if the call fails. */
static inline struct hmm_devmem_test_owners device_owners(int fd)
{
	struct hmm_devmem_test_owners owners = { };

	if (device_ioctl(fd, HMM_DEVMEM_TEST_OWNERS, &owners))
		memset(&owners, 0xff, sizeof(owners));
	return owners;
}

/* Returns the number of the buffer, or -errno. */
static inline long buffer_alloc(int fd, unsigned long nr_blocks)
{
	struct hmm_devmem_test_buffer buffer = { .nr_blocks = nr_blocks };
	int ret = device_ioctl(fd, HMM_DEVMEM_TEST_BUFFER_ALLOC, &buffer);

	return ret ? ret : (long)buffer.id;
}

/* Returns the number of wrong words, or -errno. */
static inline long buffer_touch(int fd, long id)
{
	struct hmm_devmem_test_buffer buffer = { .id = id };
	int ret = device_ioctl(fd, HMM_DEVMEM_TEST_BUFFER_TOUCH, &buffer);

	return ret ? ret : (long)buffer.wrong;
}

static inline int buffer_free(int fd, long id)
{
	struct hmm_devmem_test_buffer buffer = { .id = id };

	return device_ioctl(fd, HMM_DEVMEM_TEST_BUFFER_FREE, &buffer);
}

/* Returns how many blocks the library has given back, or -errno. */
static inline long device_shrink(int fd, unsigned long nr_blocks)
{
	__u64 bytes = nr_blocks * HUGE;
	int ret = device_ioctl(fd, HMM_DEVMEM_TEST_SHRINK, &bytes);

	return ret ? ret : (long)(bytes / HUGE);
}

static inline int device_withdraw(int fd, unsigned long block)
{
	__u64 offset = block * HUGE;

	return device_ioctl(fd, HMM_DEVMEM_TEST_WITHDRAW, &offset);
}

#endif /* _SELFTESTS_HMM_DEVMEM_SHARED_H */
