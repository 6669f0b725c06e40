/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The sample driver, its function and the host, for sample.c.
 */
#ifndef _SELFTESTS_HMM_DEVMEM_SAMPLE_H
#define _SELFTESTS_HMM_DEVMEM_SAMPLE_H

#include <stdarg.h>
#include <sys/syscall.h>

#include "test.h"
#include "ivshmem_devmem_uapi.h"

#define DRIVER		"ivshmem_devmem"
#define FUNCTION	"0000:00:10.0"
#define NODE		"/dev/" DRIVER "-" FUNCTION
#define SYSFS_FUNCTION	"/sys/bus/pci/devices/" FUNCTION
#define SYSFS_DRIVER	"/sys/bus/pci/drivers/" DRIVER

/* A function without a driver, whose BAR contains nothing but ones */
#define ONES		"0000:00:11.0"

/* PCI configuration space: the bit that lets a function have its BARs; BAR 2 */
#define PCI_COMMAND	0x04
#define PCI_MEMORY	0x2
#define PCI_BAR2	0x18

/* Requests to the host, which answers each line with a number of 0 or more. */

static int channel = -1;

static inline int host_open(void)
{
	const char *path = getenv("CHANNEL");

	channel = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	return channel;
}

static inline long host(const char *format, ...)
{
	char line[200], *end = line;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	line[len++] = '\n';
	if (write(channel, line, len) != len)
		return -EIO;
	do {
		if (end == line + sizeof(line) - 1 || read(channel, end, 1) != 1)
			return -EIO;
	} while (*end++ != '\n');
	*end = '\0';
	if (*line >= '0' && *line <= '9')
		return strtol(line, NULL, 10);
	printf("# no number: %s", line);
	return -EREMOTEIO;
}

/* The function and its driver: all return 0 or -errno. */

static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static inline int wait_for(const char *path, bool there)
{
	return soon(!access(path, F_OK) == there) ? 0 : -ETIMEDOUT;
}

static inline int bind_driver(void)
{
	return write_file(SYSFS_DRIVER "/bind", FUNCTION);
}

static inline int unbind_driver(void)
{
	return write_file(SYSFS_DRIVER "/unbind", FUNCTION);
}

static inline int unplug(void)
{
	return host("unplug") ?: wait_for(SYSFS_FUNCTION, false);
}

static inline int plug(void)
{
	return host("plug") ?: wait_for(NODE, true);
}

static inline int load_module(void)
{
	return system("modprobe " DRIVER) ? -EINVAL : 0;
}

static inline int unload_module(void)
{
	return syscall(SYS_delete_module, DRIVER, O_NONBLOCK) ? -errno : 0;
}

static inline int open_config(const char *function)
{
	char path[80];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", function);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Let a function decode the addresses in its BARs, or not. */
static inline int set_decoding(const char *function, bool on)
{
	int fd = open_config(function);
	__u16 command;
	bool ok;

	ok = pread(fd, &command, sizeof(command), PCI_COMMAND) == sizeof(command);
	command = on ? command | PCI_MEMORY : command & ~PCI_MEMORY;
	ok = ok && pwrite(fd, &command, sizeof(command), PCI_COMMAND) ==
		   sizeof(command);
	close(fd);
	return ok ? 0 : -EIO;
}

static inline int copy_bar(const char *from, const char *to)
{
	int from_fd = open_config(from), to_fd = open_config(to);
	__u64 bar;
	bool ok;

	ok = pread(from_fd, &bar, sizeof(bar), PCI_BAR2) == sizeof(bar) &&
	     pwrite(to_fd, &bar, sizeof(bar), PCI_BAR2) == sizeof(bar);
	close(from_fd);
	close(to_fd);
	return ok ? 0 : -EIO;
}

/*
 * Make the function vanish without notice. A read of its BARs then gives ones, as
 * with real hardware; QEMU alone would give zeros.
 */
static inline int vanish(void)
{
	return set_decoding(FUNCTION, false) ?: copy_bar(FUNCTION, ONES) ?:
	       set_decoding(ONES, true);
}

/* Undo that. The function may have been unplugged in the meantime. */
static inline int unvanish(void)
{
	int ret = set_decoding(ONES, false);

	return access(SYSFS_FUNCTION, F_OK) ? ret :
	       ret ?: set_decoding(FUNCTION, true);
}

/* What the CPU can read at the addresses of BAR 2 */
static inline __u64 read_bar(void)
{
	int fd = open(SYSFS_FUNCTION "/resource2_wc", O_RDWR | O_CLOEXEC);
	__u64 *bar = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	__u64 word = bar == MAP_FAILED ? 0xbad : read_word(bar);

	if (bar != MAP_FAILED)
		munmap(bar, PAGE);
	close(fd);
	return word;
}

/* Undo what a failed test may have left */
static inline void restore(void)
{
	unvanish();
	if (access(SYSFS_DRIVER, F_OK))
		load_module();
	if (access(SYSFS_FUNCTION, F_OK))
		plug();
	if (access(NODE, F_OK))
		bind_driver();
}

/* Calls of the driver: they return a number of pages, or -errno. */

static inline int node_open(void)
{
	int fd = open(NODE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static inline long move(int fd, unsigned long request, const void *addr,
			unsigned long npages)
{
	struct ivshmem_devmem_range range = {
		.addr = (uintptr_t)addr,
		.size = npages * PAGE,
	};
	int ret = device_ioctl(fd, request, &range);

	return ret ? ret : (long)range.pages;
}

static inline long move_to_device(int fd, const void *addr, unsigned long npages)
{
	return move(fd, IVSHMEM_DEVMEM_TO_DEVICE, addr, npages);
}

static inline long move_to_ram(int fd, const void *addr, unsigned long npages)
{
	return move(fd, IVSHMEM_DEVMEM_TO_RAM, addr, npages);
}

/* One access of the device: returns how many page faults it took, or -errno. */
static inline long device_access(int fd, const void *addr, __u64 *value, __u32 flags)
{
	struct ivshmem_devmem_access access = {
		.addr = (uintptr_t)addr,
		.value = *value,
		.flags = flags,
	};
	int ret = device_ioctl(fd, IVSHMEM_DEVMEM_ACCESS, &access);

	*value = access.value;
	return ret ? ret : (long)access.faults;
}

/* Number of pages whose first word the device finds to be wrong, or -errno. */
static inline long device_wrong(int fd, const char *ptr, unsigned int seed,
				unsigned long npages, __u32 flags)
{
	long ret, count = 0;
	unsigned long i;
	__u64 value;

	for (i = 0; i < npages; i++) {
		value = 0;
		ret = device_access(fd, ptr + i * PAGE, &value, flags);
		if (ret < 0)
			return ret;
		count += value != pattern_word(seed, i * WORDS);
	}
	return count;
}

/* How many page faults the device takes to read a word of each page, or -errno. */
static inline long device_faults(int fd, const char *ptr, unsigned long npages)
{
	long ret, count = 0;
	unsigned long i;
	__u64 value = 0;

	for (i = 0; i < npages; i++) {
		ret = device_access(fd, ptr + i * PAGE, &value, 0);
		if (ret < 0)
			return ret;
		count += ret;
	}
	return count;
}

static inline long device_write_word(int fd, void *addr, __u64 value, __u32 flags)
{
	return device_access(fd, addr, &value, IVSHMEM_DEVMEM_WRITE | flags);
}

#endif /* _SELFTESTS_HMM_DEVMEM_SAMPLE_H */
