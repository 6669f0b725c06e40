// SPDX-License-Identifier: GPL-2.0
/*
 * The sample driver, samples/hmm_devmem/, on a PCI function whose memory the host
 * can access, and which it can unplug. Runs in a guest that
 * tools/hmm_devmem/suites/sample has started.
 */
#include "harness.h"
#include "child.h"
#include "test.h"
#include "worker.h"

#include <pthread.h>

#include "sample.h"

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
	ASSERT_TRUE(removal_waits(false));
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
	long ret, errors;

	if (fd < 0)
		return fd == -ENOENT || fd == -ENODEV || fd == -ENXIO ? 0 : fd;
	ret = move_to_device(fd, worker->ptr, worker->npages);
	errors = device_wrong(fd, worker->ptr, worker->seed, worker->npages,
			      IVSHMEM_DEVMEM_MIGRATE);
	close(fd);
	if (errors && errors != -ENODEV)
		return errors < 0 ? errors : -EBADMSG;
	return ret == -ENODEV ? 0 : ret;
}

/* Verifies that unbinding while threads use the device loses no data. */
TEST_F(sample, unbind_under_fire)
{
	struct worker workers[WORKERS];
	int i;

	ASSERT_TRUE(removal_waits(true));
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

	ASSERT_TRUE(removal_waits(true));
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

/* Verifies that the device reads zeros where nothing was written, and can write there. */
TEST_F(sample, access_untouched)
{
	char *ptr = area_map(2 * HUGE_PAGES, variant->thp);
	char *moved = ptr + HUGE;
	__u64 value = 1;

	EXPECT_LE(1, device_access(self->fd, ptr, &value, 0));
	EXPECT_EQ(0, value);
	EXPECT_EQ(0, pagemap_count(ptr, HUGE_PAGES, PAGEMAP_SWAP));
	EXPECT_LE(1, device_write_word(self->fd, ptr + 8, 7, 0));
	EXPECT_EQ(7, read_word(ptr + 8));
	EXPECT_EQ(0, read_word(ptr));

	value = 1;
	EXPECT_LE(1, device_access(self->fd, moved, &value, IVSHMEM_DEVMEM_MIGRATE));
	EXPECT_EQ(0, value);
	EXPECT_LE(1, pagemap_count(moved, 1, PAGEMAP_SWAP));
	EXPECT_LE(0, device_write_word(self->fd, moved + 8, 8, IVSHMEM_DEVMEM_MIGRATE));
	EXPECT_LE(1, pagemap_count(moved, 1, PAGEMAP_SWAP));
	EXPECT_EQ(8, read_word(moved + 8));
	EXPECT_EQ(0, read_word(moved));
}

/* Verifies that the device accesses pages in RAM there, and faults once for many. */
TEST_F(sample, access_ram)
{
	char *ptr = area_filled(self->npages, variant->thp, 80);
	__u64 value;

	EXPECT_EQ(0, device_wrong(self->fd, ptr, 80, self->npages, 0));
	EXPECT_EQ(0, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(0, device_faults(self->fd, ptr, self->npages));
	/* One faults, and 16 are mapped */
	close(self->fd);
	self->fd = node_open();
	ASSERT_LE(0, self->fd);
	EXPECT_LE(1, device_faults(self->fd, ptr, 1));
	EXPECT_EQ(0, device_faults(self->fd, ptr, 16));
	/* Both see what the other one writes */
	EXPECT_EQ(0, device_write_word(self->fd, ptr, 1, 0));
	EXPECT_EQ(1, read_word(ptr));
	write_word(ptr, 2);
	EXPECT_EQ(0, device_access(self->fd, ptr, &value, 0));
	EXPECT_EQ(2, value);
}

/* Verifies that a page fault moves pages to the device, which accesses them there. */
TEST_F(sample, access_migrates)
{
	char *ptr = area_filled(self->npages, variant->thp, 81);

	EXPECT_EQ(0, device_wrong(self->fd, ptr, 81, self->npages,
				  IVSHMEM_DEVMEM_MIGRATE));
	EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(self->npages, host("find 81 %lu", self->npages));
	EXPECT_EQ(0, device_faults(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_write_word(self->fd, ptr, 3, 0));
	EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
	EXPECT_EQ(self->npages - 1, host("find 81 %lu", self->npages));
	EXPECT_EQ(3, read_word(ptr));
	EXPECT_EQ(1, wrong(ptr, 81, self->npages));
}

#define SHARED_PAGES	8

/*
 * Verifies that what the device writes to memory of the process survives reclaim. The
 * device has read it before, so no page table says that anything was written.
 */
TEST_F(sample, access_shared)
{
	__u64 *ptr = mmap(NULL, SHARED_PAGES * PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	__u64 value = 1;
	unsigned long i;

	ASSERT_NE(MAP_FAILED, ptr);
	area_remember(ptr, SHARED_PAGES * PAGE);
	for (i = 0; i < SHARED_PAGES * WORDS; i += WORDS) {
		EXPECT_LE(0, device_access(self->fd, ptr + i, &value, 0));
		EXPECT_EQ(0, value);
		EXPECT_LE(0, device_write_word(self->fd, ptr + i, i + 1, 0));
	}
	EXPECT_EQ(0, madvise(ptr, SHARED_PAGES * PAGE, MADV_PAGEOUT));
	for (i = 0; i < SHARED_PAGES * WORDS; i += WORDS)
		EXPECT_EQ(i + 1, read_word(ptr + i));
}

/* Verifies that what a process moves by itself is mapped for the device at once. */
TEST_F(sample, access_moved)
{
	char *ptr = area_filled(self->npages, variant->thp, 82);

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_faults(self->fd, ptr, self->npages));
	/* The host's data: the device does not read a copy in RAM */
	ASSERT_EQ(self->npages, host("replace 82 83 %lu", self->npages));
	EXPECT_EQ(0, device_wrong(self->fd, ptr, 83, self->npages, 0));
	EXPECT_EQ(self->npages, pagemap_count(ptr, self->npages, PAGEMAP_SWAP));
}

/* Verifies that the device loses its entry when the CPU touches a page. */
TEST_F(sample, access_after_cpu)
{
	char *ptr = area_filled(self->npages, variant->thp, 84);
	__u64 value = 0;

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	write_word(ptr, 4);
	EXPECT_EQ(0, pagemap_count(ptr, 1, PAGEMAP_SWAP));
	EXPECT_LE(1, device_access(self->fd, ptr, &value, 0));
	EXPECT_EQ(4, value);
	EXPECT_EQ(0, device_write_word(self->fd, ptr, 5, 0));
	EXPECT_EQ(5, read_word(ptr));
	/* The same for all, with the ioctl */
	ASSERT_LE(0, move_to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(1, device_wrong(self->fd, ptr, 84, self->npages, 0));
}

/* Verifies that the device does not access pages that the process has given back. */
TEST_F(sample, access_after_zap)
{
	char *ptr = area_filled(self->npages, variant->thp, 85);
	const __u32 how[] = { 0, IVSHMEM_DEVMEM_MIGRATE };
	__u64 value = 1;
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
		ASSERT_EQ(0, madvise(ptr, self->npages * PAGE, MADV_DONTNEED));
		EXPECT_LE(1, device_access(self->fd, ptr, &value, how[i]));
		EXPECT_EQ(0, value);
		fill(ptr, 85, self->npages);
		ASSERT_EQ(0, device_wrong(self->fd, ptr, 85, self->npages, 0));
		ASSERT_EQ(0, madvise(ptr, self->npages * PAGE, MADV_DONTNEED));
		EXPECT_LE(1, device_access(self->fd, ptr + PAGE, &value, how[i]));
		EXPECT_EQ(0, value);
		fill(ptr, 85, self->npages);
	}
	ASSERT_EQ(0, device_wrong(self->fd, ptr, 85, self->npages, how[1]));
	areas_unmap();
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(-EFAULT, device_access(self->fd, ptr, &value, how[i]));
		EXPECT_EQ(-EFAULT, device_write_word(self->fd, ptr, 1, how[i]));
	}
}

/* Verifies that the device may do what the process may. */
TEST_F(sample, access_permission)
{
	char *ptr = area_filled(self->npages, variant->thp, 86);
	__u64 value = 0;

	ASSERT_LE(0, device_write_word(self->fd, ptr, read_word(ptr), 0));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ));
	EXPECT_EQ(-EPERM, device_write_word(self->fd, ptr, 1, 0));
	EXPECT_EQ(-EPERM, device_write_word(self->fd, ptr, 1, IVSHMEM_DEVMEM_MIGRATE));
	EXPECT_EQ(0, device_wrong(self->fd, ptr, 86, self->npages, 0));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_NONE));
	EXPECT_EQ(-EFAULT, device_access(self->fd, ptr, &value, 0));
	ASSERT_EQ(0, mprotect(ptr, self->npages * PAGE, PROT_READ));
	EXPECT_EQ(0, wrong(ptr, 86, self->npages));
}

/* The child of a fork: its memory is its own, and its parent's file does not help. */
static int access_in_child(int fd, char *ptr, unsigned long npages)
{
	__u64 value = 0;
	int own = node_open();

	if (device_access(fd, ptr, &value, 0) != -EPERM ||
	    move_to_device(fd, ptr, npages) != -EPERM)
		return 1;
	if (device_wrong(own, ptr, 87, npages, IVSHMEM_DEVMEM_MIGRATE))
		return 2;
	return wrong(ptr, 87, npages) ? 3 : 0;
}

/* Verifies that what the device writes after a fork is seen by one process only. */
TEST_F(sample, access_after_fork)
{
	char *ptr = area_filled(self->npages, variant->thp, 87);
	unsigned long i;
	int ends[2];
	pid_t pid;
	char c;

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, pipe(ends));
	pid = child_fork();
	if (!pid) {
		close(ends[1]);
		if (read(ends[0], &c, 1))
			_exit(9);
		_exit(access_in_child(self->fd, ptr, self->npages));
	}
	for (i = 0; i < self->npages; i += 10)
		EXPECT_LE(1, device_write_word(self->fd, ptr + i * PAGE, i,
					       i % 20 ? IVSHMEM_DEVMEM_MIGRATE : 0));
	close(ends[0]);
	close(ends[1]);
	EXPECT_EQ(0, child_status(pid));
	for (i = 0; i < self->npages; i += 10)
		EXPECT_EQ(i, read_word(ptr + i * PAGE));
	EXPECT_EQ((self->npages + 9) / 10, wrong(ptr, 87, self->npages));
}

/* Verifies that invalid accesses are refused. */
TEST_F(sample, access_bad_arguments)
{
	char *ptr = area_filled(8, false, 88);
	__u64 value = 0;

	EXPECT_EQ(-EINVAL, device_access(self->fd, ptr + 1, &value, 0));
	EXPECT_EQ(-EINVAL, device_access(self->fd, ptr + 4, &value, 0));
	EXPECT_EQ(-EINVAL, device_access(self->fd, ptr, &value, 4));
	EXPECT_EQ(-EFAULT, device_access(self->fd, NULL, &value, 0));
	EXPECT_EQ(-EFAULT, device_access(self->fd, (void *)-8UL, &value, 0));
	EXPECT_EQ(-EFAULT, device_access(self->fd, (void *)(1UL << 63), &value, 0));
	EXPECT_EQ(-EFAULT, device_ioctl(self->fd, IVSHMEM_DEVMEM_ACCESS, NULL));
	EXPECT_EQ(0, wrong(ptr, 88, 8));
}

/* Verifies that a device that is unplugged, or has vanished, accesses nothing. */
TEST_F(sample, access_gone)
{
	char *ptr = area_filled(self->npages, variant->thp, 89);
	char *ram = area_filled(1, false, 90);
	__u64 value = 0;
	int fd;

	ASSERT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_wrong(self->fd, ram, 90, 1, 0));
	ASSERT_EQ(0, unplug());
	EXPECT_EQ(-ENODEV, device_access(self->fd, ptr, &value, 0));
	EXPECT_EQ(-ENODEV, device_access(self->fd, ram, &value, 0));
	EXPECT_EQ(-ENODEV, device_write_word(self->fd, ram, 1, IVSHMEM_DEVMEM_MIGRATE));
	EXPECT_EQ(0, wrong(ptr, 89, self->npages));
	ASSERT_EQ(0, plug());
	EXPECT_EQ(-ENODEV, device_access(self->fd, ptr, &value, 0));

	fd = node_open();
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, device_wrong(fd, ptr, 89, self->npages, IVSHMEM_DEVMEM_MIGRATE));
	ASSERT_EQ(0, vanish());
	EXPECT_EQ(-ENODEV, device_access(fd, ptr, &value, 0));
	EXPECT_EQ(-ENODEV, device_access(fd, ram, &value, IVSHMEM_DEVMEM_MIGRATE));
	EXPECT_EQ(0, wrong(ram, 90, 1));
	close(fd);
	ASSERT_EQ(0, unbind_driver());
	ASSERT_EQ(0, unvanish());
	ASSERT_EQ(0, bind_driver());
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
	EXPECT_EQ(0, device_wrong(self->fd, ptr, 70, self->npages, 0));
	EXPECT_EQ(0, wrong(ptr, 70, self->npages));
	EXPECT_EQ(self->npages, move_to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, host("find 70 %lu", self->npages));
	EXPECT_EQ(0, wrong(ptr, 70, self->npages));
	write_file("/sys/power/pm_test", "none");
}

TEST_HARNESS_MAIN
