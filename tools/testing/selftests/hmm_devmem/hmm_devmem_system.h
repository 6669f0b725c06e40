/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Parts of the machine that tests use or watch: swap and the kernel's counters.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_SYSTEM_H
#define _SELFTESTS_HMM_DEVMEM_SYSTEM_H

#include <sys/swap.h>

#include "hmm_devmem_test.h"

/* Swap, on a RAM disk. */

#define SWAP_DISK	"/dev/ram0"

static inline int swap_begin(unsigned long npages)
{
	char page[PAGE] = "";
	__u32 *header = (__u32 *)(page + 1024);
	int fd = open(SWAP_DISK, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	header[0] = 1;
	header[1] = npages - 1;
	memcpy(page + PAGE - 10, "SWAPSPACE2", 10);
	if (write(fd, page, PAGE) != PAGE || fsync(fd)) {
		close(fd);
		return -EIO;
	}
	close(fd);
	return swapon(SWAP_DISK, 0) ? -errno : 0;
}

/* An event of /proc/vmstat. */
static inline long vm_events(const char *name)
{
	const char *text = file_read("/proc/vmstat"), *found;

	found = strstr(text, name);
	while (found && (found[-1] != '\n' || found[strlen(name)] != ' '))
		found = strstr(found + 1, name);
	return found ? atol(found + strlen(name)) : -1;
}

#endif /* _SELFTESTS_HMM_DEVMEM_SYSTEM_H */
