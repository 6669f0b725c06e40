// SPDX-License-Identifier: GPL-2.0
/*
 * The sample driver, samples/hmm_devmem/, on a PCI function whose memory the host
 * can access, and which it can unplug. Runs in a guest that
 * tools/hmm_devmem/suites/sample has started.
 */
#include "harness.h"
#include "test.h"
#include "worker.h"

#include <pthread.h>
#include <stdarg.h>
#include <sys/syscall.h>

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

static int host_open(void)
{
	const char *path = getenv("CHANNEL");

	channel = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	return channel;
}

static long host(const char *format, ...)
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

static int write_file(const char *path, const char *text)
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

static int wait_for(const char *path, bool there)
{
	return soon(!access(path, F_OK) == there) ? 0 : -ETIMEDOUT;
}

static int bind_driver(void)
{
	return write_file(SYSFS_DRIVER "/bind", FUNCTION);
}

static int unbind_driver(void)
{
	return write_file(SYSFS_DRIVER "/unbind", FUNCTION);
}

static int unplug(void)
{
	return host("unplug") ?: wait_for(SYSFS_FUNCTION, false);
}

static int plug(void)
{
	return host("plug") ?: wait_for(NODE, true);
}

static int load_module(void)
{
	return system("modprobe " DRIVER) ? -EINVAL : 0;
}

static int unload_module(void)
{
	return syscall(SYS_delete_module, DRIVER, O_NONBLOCK) ? -errno : 0;
}

static int open_config(const char *function)
{
	char path[80];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", function);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Let a function decode the addresses in its BARs, or not. */
static int set_decoding(const char *function, bool on)
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

static int copy_bar(const char *from, const char *to)
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
static int vanish(void)
{
	return set_decoding(FUNCTION, false) ?: copy_bar(FUNCTION, ONES) ?:
	       set_decoding(ONES, true);
}

/* Undo that. The function may have been unplugged in the meantime. */
static int unvanish(void)
{
	int ret = set_decoding(ONES, false);

	return access(SYSFS_FUNCTION, F_OK) ? ret :
	       ret ?: set_decoding(FUNCTION, true);
}

/* What the CPU can read at the addresses of BAR 2 */
static __u64 read_bar(void)
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
static void restore(void)
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

static int node_open(void)
{
	int fd = open(NODE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static long move(int fd, unsigned long request, const void *addr,
		 unsigned long npages)
{
	struct ivshmem_devmem_range range = {
		.addr = (uintptr_t)addr,
		.size = npages * PAGE,
	};
	int ret = device_ioctl(fd, request, &range);

	return ret ? ret : (long)range.pages;
}

static long move_to_device(int fd, const void *addr, unsigned long npages)
{
	return move(fd, IVSHMEM_DEVMEM_TO_DEVICE, addr, npages);
}

static long move_to_ram(int fd, const void *addr, unsigned long npages)
{
	return move(fd, IVSHMEM_DEVMEM_TO_RAM, addr, npages);
}

FIXTURE(sample)
{
	int fd;
	unsigned long npages;
};

FIXTURE_VARIANT(sample)
{
	bool thp;
};

FIXTURE_VARIANT_ADD(sample, small)
{
	.thp = false,
};

FIXTURE_VARIANT_ADD(sample, thp)
{
	.thp = true,
};

FIXTURE_SETUP(sample)
{
	self->fd = -1;
	ASSERT_LE(0, host_open())
		TH_LOG("no $CHANNEL: run tools/hmm_devmem/suites/sample");
	restore();
	self->fd = node_open();
	ASSERT_LE(0, self->fd);
	/* Two huge pages and some small ones, less than half of the device */
	self->npages = 2 * HUGE_PAGES + 100;
}

FIXTURE_TEARDOWN(sample)
{
	areas_unmap();
	if (self->fd >= 0)
		close(self->fd);
	close(channel);
}

/* Verifies that the driver has bound to the function, and has made all its files. */
TEST_F(sample, bound)
{
	char link[200] = "";

	EXPECT_LT(0, readlink(SYSFS_FUNCTION "/driver", link, sizeof(link) - 1));
	EXPECT_STREQ(DRIVER, strrchr(link, '/') ? strrchr(link, '/') + 1 : link);
	EXPECT_EQ(0, access("/sys/kernel/debug/hmm_devmem/" FUNCTION, F_OK));
}

/* Verifies that the host finds a process's data in the BAR, and so does the CPU. */
TEST_F(sample, data_is_in_the_bar)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);

	ASSERT_EQ(0, host("find 1 %lu", self->npages));
	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(self->npages, host("find 1 %lu", self->npages));
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
}

/* Verifies that the CPU reads what the host has written into the BAR. */
TEST_F(sample, data_is_from_the_bar)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, host("replace 2 3 %lu", self->npages));
	EXPECT_EQ(0, wrong(ptr, 3, self->npages));
}

/* Verifies the ioctl that brings memory back. */
TEST_F(sample, to_ram)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, move_to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, move_to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, wrong(ptr, 4, self->npages));
}

/* Verifies that memory never touched reads as zeros, not as old data of the BAR. */
TEST_F(sample, zeros)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, host("find 5 %lu", self->npages));
	areas_unmap();
	ptr = area_map(self->npages, variant->thp);
	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, not_zero(ptr, self->npages));
}

/* Verifies that invalid arguments are refused. */
TEST_F(sample, bad_arguments)
{
	char *ptr = area_filled(8, false, 6);

	EXPECT_EQ(-EINVAL, move_to_device(self->fd, ptr + 1, 1));
	EXPECT_EQ(-EINVAL, move_to_device(self->fd, ptr, 0));
	EXPECT_EQ(-EINVAL, move_to_device(self->fd, ptr, ~0UL / PAGE));
	EXPECT_EQ(-EINVAL, move_to_ram(self->fd, ptr + 1, 1));
	ASSERT_EQ(0, munmap(ptr + 4 * PAGE, 4 * PAGE));
	EXPECT_EQ(-EFAULT, move_to_device(self->fd, ptr + 4 * PAGE, 4));
	EXPECT_EQ(4, move_to_device(self->fd, ptr, 8));
	EXPECT_EQ(-ENOTTY, move(self->fd, _IO('I', 0x7f), ptr, 4));
	EXPECT_EQ(-EFAULT, device_ioctl(self->fd, IVSHMEM_DEVMEM_TO_DEVICE, NULL));
	EXPECT_EQ(0, wrong(ptr, 6, 4));
}

/* Verifies that unbinding the driver brings all pages back, several times. */
TEST_F(sample, unbind)
{
	char *ptr;
	int i, fd;

	for (i = 0; i < 5; i++) {
		ptr = area_filled(self->npages, variant->thp, 10 + i);
		fd = node_open();
		ASSERT_LE(0, fd);
		ASSERT_EQ(self->npages, move_to_device(fd, ptr, self->npages));
		ASSERT_EQ(self->npages, host("find %d %lu", 10 + i, self->npages));
		ASSERT_EQ(0, unbind_driver());
		EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
		EXPECT_EQ(0, wrong(ptr, 10 + i, self->npages));
		EXPECT_EQ(-ENOENT, node_open());
		EXPECT_EQ(-ENODEV, move_to_device(fd, ptr, self->npages));
		ASSERT_EQ(0, bind_driver());
		/* For a file that was opened before, the new device is another one */
		EXPECT_EQ(-ENODEV, move_to_device(fd, ptr, self->npages));
		EXPECT_EQ(-ENODEV, move_to_ram(fd, ptr, self->npages));
		close(fd);
		areas_unmap();
	}
}

/* Verifies that the module can be unloaded with pages of a process on the device. */
TEST_F(sample, unload)
{
	char *ptr = area_filled(self->npages, variant->thp, 20);

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	/* It cannot be unloaded while a file is open */
	EXPECT_EQ(-EWOULDBLOCK, unload_module());
	EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, unload_module());
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, wrong(ptr, 20, self->npages));
	ASSERT_EQ(0, load_module());
	EXPECT_EQ(0, access(NODE, F_OK));
}

/* Verifies hot-unplug with pages on the device, with a file open, and hot-plug. */
TEST_F(sample, unplug)
{
	char *ptr = area_filled(self->npages, variant->thp, 30);
	int fd;

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, unplug());
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, wrong(ptr, 30, self->npages));
	EXPECT_EQ(-ENODEV, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(-ENOENT, node_open());
	ASSERT_EQ(0, plug());
	EXPECT_EQ(-ENODEV, move_to_device(self->fd, ptr, self->npages));
	fd = node_open();
	ASSERT_LE(0, fd);
	EXPECT_EQ(self->npages, move_to_device(fd, ptr, self->npages));
	EXPECT_EQ(self->npages, host("find 30 %lu", self->npages));
	EXPECT_EQ(0, wrong(ptr, 30, self->npages));
	close(fd);
}

/* Verifies that a file can be closed long after the driver was unbound. */
TEST_F(sample, file_outlives_function)
{
	ASSERT_EQ(0, unplug());
	EXPECT_EQ(-EWOULDBLOCK, unload_module());
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(0, unload_module());
	EXPECT_EQ(0, load_module());
	EXPECT_EQ(0, plug());
}

/* A device that is unbound, or about to be, is no error. */
static long move_if_there(struct worker *worker)
{
	int fd = node_open();
	long ret;

	if (fd < 0)
		return fd == -ENOENT || fd == -ENODEV || fd == -ENXIO ? 0 : fd;
	ret = move_to_device(fd, worker->ptr, worker->npages);
	close(fd);
	return ret == -ENODEV ? 0 : ret;
}

/* Verifies that unbinding while threads use the device loses no data. */
TEST_F(sample, unbind_under_fire)
{
	struct worker workers[WORKERS];
	int i;

	workers_start(workers, move_if_there, -1, variant->thp);
	for (i = 0; i < 5; i++) {
		ASSERT_TRUE(workers_have_moved(workers));
		sleep_ms(100);
		EXPECT_EQ(0, unbind_driver());
		EXPECT_EQ(0, bind_driver());
	}
	EXPECT_EQ(0, workers_stop(workers));
}

/* Verifies this for hot-unplug and hot-plug. */
TEST_F(sample, unplug_under_fire)
{
	struct worker workers[WORKERS];
	int i;

	workers_start(workers, move_if_there, -1, variant->thp);
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(workers_have_moved(workers));
		sleep_ms(100);
		EXPECT_EQ(0, unplug());
		EXPECT_EQ(0, plug());
	}
	EXPECT_EQ(0, workers_stop(workers));
}

/* How often pages can be accessed, by the CPU or by a system call */
static long readable(const char *ptr, unsigned long npages)
{
	unsigned long i;
	int ends[2], ret;
	long count = 0;

	if (pipe(ends))
		return -errno;
	for (i = 0; i < npages; i++) {
		count += access_signal((char *)ptr + i * PAGE, i & 1) != SIGBUS;
		/* The kernel's accesses take another path, and must fail, too */
		ret = write(ends[1], ptr + i * PAGE, 8);
		count += ret != -1 || errno != EFAULT;
	}
	close(ends[0]);
	close(ends[1]);
	return count;
}

/*
 * Verifies that reads of a device that has vanished are not taken for data, that its
 * driver can be unbound, and that another device can take its place.
 */
TEST_F(sample, vanished)
{
	char *lost = area_filled(self->npages, variant->thp, 40);
	char *kept = area_filled(self->npages, variant->thp, 41);
	int fd;

	ASSERT_EQ(self->npages, move_to_device(self->fd, lost, self->npages));
	ASSERT_EQ(0, vanish());
	ASSERT_EQ(~0ULL, read_bar());
	EXPECT_EQ(0, readable(lost, self->npages));
	/* Memory that was not on the device is not lost */
	EXPECT_GE(0, move_to_device(self->fd, kept, self->npages));
	EXPECT_EQ(0, wrong(kept, 41, self->npages));

	ASSERT_EQ(0, unbind_driver());
	EXPECT_EQ(0, readable(lost, self->npages));
	EXPECT_EQ(-ENODEV, move_to_device(self->fd, kept, self->npages));

	ASSERT_EQ(0, unvanish());
	ASSERT_EQ(0, bind_driver());
	EXPECT_EQ(0, readable(lost, self->npages));
	fd = node_open();
	ASSERT_LE(0, fd);
	EXPECT_EQ(self->npages, move_to_device(fd, kept, self->npages));
	EXPECT_EQ(0, wrong(kept, 41, self->npages));
	close(fd);
}

/* Verifies that nothing moves to a device that has vanished. */
TEST_F(sample, vanished_before_copy)
{
	char *ptr = area_filled(self->npages, variant->thp, 50);

	ASSERT_EQ(0, vanish());
	EXPECT_GE(0, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, wrong(ptr, 50, self->npages));
	ASSERT_EQ(0, unbind_driver());
	ASSERT_EQ(0, unvanish());
	ASSERT_EQ(0, bind_driver());
}

/* Verifies that a device that has vanished can be hot-unplugged. */
TEST_F(sample, vanished_unplug)
{
	char *lost = area_filled(self->npages, variant->thp, 60);

	ASSERT_EQ(self->npages, move_to_device(self->fd, lost, self->npages));
	ASSERT_EQ(0, vanish());
	ASSERT_EQ(0, unplug());
	EXPECT_EQ(0, readable(lost, self->npages));
	ASSERT_EQ(0, unvanish());
	ASSERT_EQ(0, plug());
	EXPECT_EQ(0, readable(lost, self->npages));
}

/* Verifies that no data is lost when the system sleeps. */
TEST_F(sample, sleep)
{
	char *ptr = area_filled(self->npages, variant->thp, 70);

	ASSERT_EQ(0, write_file("/sys/module/suspend/parameters/pm_test_delay", "0"));
	ASSERT_EQ(0, write_file("/sys/power/pm_test", "devices"));
	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	close(channel);
	EXPECT_EQ(0, system("/init sleep freeze"));
	ASSERT_LE(0, host_open());
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, wrong(ptr, 70, self->npages));
	EXPECT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, host("find 70 %lu", self->npages));
	EXPECT_EQ(0, wrong(ptr, 70, self->npages));
	write_file("/sys/power/pm_test", "none");
}

TEST_HARNESS_MAIN
