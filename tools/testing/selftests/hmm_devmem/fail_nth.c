// SPDX-License-Identifier: GPL-2.0
/*
 * Lets every memory allocation of an operation fail in turn: first only the
 * first one, then only the second, and so on until the operation gets through
 * without a failure. Each time no data may be lost, nothing may be leaked, and
 * the operation has to work when it is tried again.
 */
#include "alloc_fail.h"
#include "harness.h"
#include "shared.h"
#include "test.h"

#include <dirent.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#define PLENTY	2000

/* Number of small pages in a sweep; few, since each allocation fails once. */
#define SWEEP_PAGES 40

/* The library's own steps can fail, too; they must not log each failure. */
static bool silence_library(void)
{
	static const char * const steps[] = {
		"fail_device", "fail_device_large", "fail_ram", "fail_ram_large",
		"fail_dma", "fail_blocks",
	};
	char path[100];
	unsigned int i;

	for (i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		snprintf(path, sizeof(path), DEBUGFS "hmm_devmem/%s/verbose",
			 steps[i]);
		if (!file_write(path, "0"))
			return false;
	}
	return true;
}

/*
 * Which allocation fails next. The first ones are all different; after that come 512
 * alike, for the pages of a huge page, of which it is enough to let some fail.
 */
#define SWEEP_DENSE	60
#define SWEEP_STEP	29

struct sweep {
	/* How many allocations are all different, if more than SWEEP_DENSE */
	unsigned int dense;
	unsigned int nth;
	unsigned int rounds;
	unsigned int injected;
};

/* Let one allocation of this thread fail: the @sweep->nth from here on. */
static void sweep_arm(struct sweep *sweep)
{
	char text[20];

	sweep->rounds++;
	sweep->nth += sweep->nth < SWEEP_DENSE || sweep->nth < sweep->dense ?
		      1 : SWEEP_STEP;
	snprintf(text, sizeof(text), "%u", sweep->nth);
	if (!file_write("/proc/thread-self/fail-nth", text))
		abort();
}

/* Stop injecting failures. Returns whether the allocation has failed. */
static bool sweep_disarm(struct sweep *sweep, int fd)
{
	char text[20] = "";
	bool failed;

	/* How many allocations are left to the failure; 0 if it has happened */
	failed = pread(fd, text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0;
	if (pwrite(fd, "0", 1, 0) != 1)
		abort();
	sweep->injected += failed;
	return failed;
}

FIXTURE(nth)
{
	int fd;
	int ctl;
	int nth;
	unsigned long npages;
	struct sweep sweep;
	struct hmm_devmem_test_stats before;
};

static bool sweep_setup(void)
{
	return alloc_fail_setup() && silence_library();
}

FIXTURE_VARIANT(nth)
{
	int nr;
	bool thp;
	bool coherent;
	/* HMM_DEVMEM_TEST_LAZY and so on */
	__u32 plug;
	/* The function of core that warns of want of memory when a device is added */
	const char *spare;
};

FIXTURE_VARIANT_ADD(nth, private)
{
	.nr = 0,
	.spare = "add_pages",
};

FIXTURE_VARIANT_ADD(nth, private_thp)
{
	.nr = 0,
	.thp = true,
	.spare = "add_pages",
};

FIXTURE_VARIANT_ADD(nth, coherent)
{
	.nr = 2,
	.coherent = true,
	/* Core is not prepared for a failure to extend the direct map either */
	.spare = "memremap_pages",
};

/* An ordinary device, but with DMA, and with a worker that copies. */
FIXTURE_VARIANT_ADD(nth, private_dma)
{
	.nr = 0,
	.plug = HMM_DEVMEM_TEST_DMA | HMM_DEVMEM_TEST_ASYNC,
	.spare = "add_pages",
};

FIXTURE_SETUP(nth)
{
	self->fd = -1;
	self->ctl = device_open(variant->nr);
	if (self->ctl == -ENOENT)
		SKIP(return, "no device %d", variant->nr);
	ASSERT_GE(self->ctl, 0);
	device_unplug(self->ctl);
	ASSERT_EQ(0, device_plug_as(self->ctl, 0, variant->plug, 0));
	device_inject(self->ctl, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	self->fd = device_open(variant->nr);
	ASSERT_GE(self->fd, 0);
	self->nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (self->nth < 0)
		SKIP(return, "no fault injection");
	ASSERT_TRUE(sweep_setup());
	ASSERT_TRUE(spare_function(variant->spare));
	self->npages = variant->thp ? HUGE_PAGES : SWEEP_PAGES;
	self->before = device_stats(self->ctl);
	ASSERT_EQ(1, self->before.plugged);
	ASSERT_EQ(self->before.allocated, self->before.freed);
}

FIXTURE_TEARDOWN(nth)
{
	if (self->fd < 0)
		return;
	EXPECT_TRUE(only_function(NULL));
	/* The next program needs an ordinary device. */
	device_unplug(self->ctl);
	device_plug(self->ctl);
	areas_unmap();
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	close(self->fd);
	close(self->ctl);
}

/* A sweep that injected fewer failures has not tested what it should. */
#define SWEEP_DONE(min) do {						\
	TH_LOG("%u allocations failed", self->sweep.injected);		\
	EXPECT_LE(min, self->sweep.injected);				\
	EXPECT_GT(PLENTY, self->sweep.nth);				\
} while (0)

static unsigned int iomem_lines(void)
{
	FILE *f = fopen("/proc/iomem", "r");
	unsigned int lines = 0;
	char line[200];

	while (f && fgets(line, sizeof(line), f))
		lines++;
	if (f)
		fclose(f);
	return lines;
}

/* Verifies that a device is added completely or not at all. */
TEST_F(nth, plug)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	unsigned int lines;
	bool failed;
	int ret;

	ASSERT_EQ(0, device_unplug(self->ctl));
	lines = iomem_lines();
	do {
		sweep_arm(&self->sweep);
		ret = device_plug(self->ctl);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(0, ret);
		if (ret) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(0, device_stats(self->ctl).plugged);
			ASSERT_EQ(lines, iomem_lines());
			ASSERT_EQ(0, device_plug(self->ctl));
		}
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_unplug(self->ctl));
		ASSERT_EQ(0, wrong(ptr, 1, self->npages));
		ASSERT_EQ(self->sweep.rounds + 1, SINCE(kills));
		ASSERT_EQ(self->sweep.rounds + 1, SINCE(cleanups));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(5);
}

/*
 * Verifies this for a device with bad pages: for those, the library allocates memory
 * where there are no struct pages yet.
 */
TEST_F(nth, plug_with_bad_pages)
{
	const __u32 flags = variant->plug | HMM_DEVMEM_TEST_LAZY | HMM_DEVMEM_TEST_BAD;
	char *ptr = area_filled(self->npages, variant->thp, 8);
	unsigned int lines, refused = 0;
	bool failed;
	int ret;

	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_TRUE(only_function("hmm_devmem_pool_retire_new"));
	lines = iomem_lines();
	do {
		sweep_arm(&self->sweep);
		ret = device_plug_as(self->ctl, 0, flags, 0);
		failed = sweep_disarm(&self->sweep, self->nth);
		/* Checks of a debug kernel also allocate memory, and cope with failures */
		if (ret) {
			ASSERT_TRUE(failed);
			ASSERT_EQ(-ENOMEM, ret);
			refused++;
			ASSERT_EQ(0, device_stats(self->ctl).plugged);
			ASSERT_EQ(lines, iomem_lines());
			/* A shrinker that the failed add had left would be called */
			ASSERT_TRUE(file_write("/proc/sys/vm/drop_caches", "2"));
			ASSERT_EQ(0, device_plug_as(self->ctl, 0, flags, 0));
		}
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_unplug(self->ctl));
		ASSERT_EQ(0, wrong(ptr, 8, self->npages));
	} while (failed && self->sweep.nth < PLENTY);
	/* At least once: all bad pages are in one segment */
	EXPECT_LT(0, refused);
	SWEEP_DONE(1);
}

/* Verifies migration to a full device, which allocates a bitmap of pages to keep. */
TEST_F(nth, to_full_device)
{
	const __u32 flags = variant->plug | HMM_DEVMEM_TEST_RECLAIM;
	const unsigned long size = 2 * self->npages;
	char *other = area_filled(size, variant->thp, 9);
	char *ptr = area_filled(self->npages, variant->thp, 10);
	bool failed;
	long ret;

	/* The size of a coherent device cannot be chosen */
	if (variant->coherent)
		return;
	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_EQ(0, device_plug_as(self->ctl, size * PAGE, flags, 0));
	do {
		ASSERT_EQ(size, all_moved(self->fd, other, size));
		sweep_arm(&self->sweep);
		ret = to_device(self->fd, ptr, self->npages);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(self->npages, ret);
		ASSERT_LE(0, ret);
		ASSERT_EQ(ret, resident(self->fd, ptr, self->npages));
		ASSERT_EQ(ret + resident(self->fd, other, size), device_used(self->ctl));
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, wrong(ptr, 10, self->npages));
		ASSERT_EQ(0, wrong(other, 9, size));
		ASSERT_EQ(0, device_used(self->ctl));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(2);
}

/* Verifies that blocks are lent and given back, or not, and that none is lost. */
TEST_F(nth, blocks_on_loan)
{
	const __u32 flags = (variant->plug & ~HMM_DEVMEM_TEST_LAZY) | HMM_DEVMEM_TEST_RECLAIM;
	char *ptr = area_filled(self->npages, variant->thp, 11);
	struct hmm_devmem_test_owners owners;
	bool failed;
	long ret;

	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_EQ(0, device_plug_shared(self->ctl, variant->coherent ? 0 : 8 * HUGE, flags, 0));
	do {
		sweep_arm(&self->sweep);
		ret = to_device(self->fd, ptr, self->npages);
		if (ret >= 0)
			device_shrink(self->ctl, 8);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(self->npages, ret);
		owners = device_owners(self->ctl);
		ASSERT_EQ(0, owners.wrong_puts);
		if (!failed)
			ASSERT_EQ(0, owners.lent);
		ASSERT_EQ(0, wrong(ptr, 11, self->npages));
		ASSERT_LE(0, device_shrink(self->ctl, 8));
		ASSERT_EQ(0, device_owners(self->ctl).lent);
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_LT(0, device_shrink(self->ctl, 8));
		ASSERT_EQ(0, device_owners(self->ctl).lent);
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(2);
}

/* Verifies that pages stay in RAM if memory for their migration is missing. */
TEST_F(nth, to_device)
{
	bool failed;
	char *ptr;
	long ret;

	do {
		ptr = area_filled(self->npages, variant->thp, 2);
		sweep_arm(&self->sweep);
		ret = to_device(self->fd, ptr, self->npages);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(self->npages, ret);
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ret = 0;
		}
		ASSERT_EQ(ret, device_used(self->ctl));
		ASSERT_EQ(ret, resident(self->fd, ptr, self->npages));
		ASSERT_EQ(0, wrong(ptr, 2, self->npages));
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, wrong(ptr, 2, self->npages));
		areas_unmap();
		ASSERT_EQ(0, device_used(self->ctl));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(1);
}

/*
 * Verifies that the reasons for pages that do not move add up, whatever allocation fails:
 * of memory that was touched and memory that was not, and of a device without struct pages.
 */
TEST_F(nth, reasons)
{
	struct hmm_devmem_test_migrate migrate;
	unsigned long no_memory = 0;
	bool failed;
	char *ptr;
	int ret;

	do {
		ASSERT_EQ(0, device_unplug(self->ctl));
		ASSERT_EQ(0, device_plug_as(self->ctl, 0, variant->plug |
					    HMM_DEVMEM_TEST_LAZY, 0));
		ptr = area_map(2 * self->npages, variant->thp);
		fill(ptr, 12, self->npages);
		sweep_arm(&self->sweep);
		ret = device_migrate(self->fd, ptr, 2 * self->npages, &migrate);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (ret) {
			ASSERT_TRUE(failed);
			ASSERT_EQ(-ENOMEM, ret);
		} else {
			ASSERT_EQ(2 * self->npages, migrate_sum(&migrate));
			ASSERT_EQ(migrate.moved, resident(self->fd, ptr, 2 * self->npages));
			ASSERT_EQ(0, migrate.not_suitable);
			no_memory += migrate.no_memory;
		}
		ASSERT_EQ(0, wrong(ptr, 12, self->npages));
		ASSERT_EQ(0, not_zero(ptr + self->npages * PAGE, self->npages));
		areas_unmap();
		ASSERT_EQ(0, device_used_soon(self->ctl, 0));
	} while (failed && self->sweep.nth < PLENTY);
	TH_LOG("%lu pages found no memory", no_memory);
	SWEEP_DONE(1);
}

/* Verifies that memory never touched still reads as zeros. */
TEST_F(nth, hole_to_device)
{
	bool failed;
	char *ptr;
	long ret;

	do {
		ptr = area_map(self->npages, variant->thp);
		sweep_arm(&self->sweep);
		ret = to_device(self->fd, ptr, self->npages);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(self->npages, ret);
		if (ret < 0)
			ret = 0;
		ASSERT_EQ(ret, device_used(self->ctl));
		ASSERT_EQ(0, not_zero(ptr, self->npages));
		areas_unmap();
		ASSERT_EQ(0, device_used(self->ctl));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(1);
}

/* Verifies that a process is mirrored by the device or the file is not opened. */
TEST_F(nth, open)
{
	char *ptr = area_filled(self->npages, variant->thp, 11);
	bool failed;
	int fd;

	do {
		sweep_arm(&self->sweep);
		fd = device_open(variant->nr);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_LE(0, fd);
		if (fd < 0) {
			ASSERT_EQ(-ENOMEM, fd);
			continue;
		}
		ASSERT_EQ(self->npages, all_moved(fd, ptr, self->npages));
		ASSERT_EQ(0, wrong(ptr, 11, self->npages));
		ASSERT_EQ(0, close(fd));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(1);
}

/*
 * Verifies that a page fault of the device fails or is served, and that it can be
 * served the next time.
 */
TEST_F(nth, device_fault)
{
	const unsigned long flags = HMM_DEVMEM_TEST_FAULT_WRITE |
				    HMM_DEVMEM_TEST_FAULT_MIGRATE;
	bool failed;
	char *ptr;
	long ret;

	do {
		/* The last page was never touched. */
		ptr = area_map(self->npages, variant->thp);
		fill(ptr, 12, self->npages - 1);
		sweep_arm(&self->sweep);
		ret = device_fault(self->fd, ptr, flags, self->npages);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(0, ret);
		if (ret)
			ASSERT_EQ(-ENOMEM, ret);
		ASSERT_EQ(0, device_fault(self->fd, ptr, flags, self->npages));
		ASSERT_EQ(self->npages, mapped(self->fd, ptr, self->npages));
		ASSERT_EQ(0, wrong(ptr, 12, self->npages - 1));
		areas_unmap();
		ASSERT_EQ(0, device_used(self->ctl));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(2);
}

/*
 * Verifies that a CPU fault gets its page in the end. A fault that found no memory
 * is taken again; no process may be killed for that.
 */
TEST_F(nth, fault)
{
	char *ptr = area_filled(self->npages, variant->thp, 3);
	bool failed;
	int sig;

	if (variant->coherent)
		return;
	do {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		sweep_arm(&self->sweep);
		sig = access_signal(ptr + 7 * PAGE, false);
		failed = sweep_disarm(&self->sweep, self->nth);
		ASSERT_EQ(0, sig);
		ASSERT_EQ(0, resident(self->fd, ptr + 7 * PAGE, 1));
		ASSERT_EQ(0, wrong(ptr, 3, self->npages));
		ASSERT_EQ(0, device_used(self->ctl));
	} while (failed && self->sweep.nth < PLENTY);
	/* A fault of one page allocates that page and nothing else. */
	SWEEP_DONE(1);
}

/* Verifies that pages stay on the device if there is no system memory for them. */
TEST_F(nth, to_ram)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);
	bool failed;
	long ret;

	do {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		sweep_arm(&self->sweep);
		ret = to_ram(self->fd, ptr, self->npages);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(self->npages, ret);
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ret = 0;
		}
		ASSERT_EQ(self->npages - ret, device_used(self->ctl));
		ASSERT_EQ(self->npages - ret,
			  to_ram(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_used(self->ctl));
		ASSERT_EQ(0, wrong(ptr, 4, self->npages));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(2);
}

/* Verifies this for eviction. */
TEST_F(nth, evict)
{
	char *ptr = area_filled(self->npages, variant->thp, 5);
	bool failed;
	long left;

	do {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		sweep_arm(&self->sweep);
		left = device_evict_all(self->fd);
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(0, left);
		ASSERT_LE(0, left);
		ASSERT_EQ(left, device_used(self->ctl));
		ASSERT_EQ(0, device_evict_all(self->fd));
		ASSERT_EQ(0, device_used(self->ctl));
		ASSERT_EQ(0, wrong(ptr, 5, self->npages));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(1);
}

/* Verifies that a device can always be removed, and no data is lost. */
TEST_F(nth, unplug)
{
	char *ptr = area_filled(self->npages, variant->thp, 6);
	bool failed;
	int ret;

	do {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		sweep_arm(&self->sweep);
		ret = device_unplug(self->ctl);
		failed = sweep_disarm(&self->sweep, self->nth);
		ASSERT_EQ(0, ret);
		ASSERT_EQ(self->sweep.rounds, SINCE(kills));
		ASSERT_EQ(self->sweep.rounds, SINCE(cleanups));
		ASSERT_EQ(0, wrong(ptr, 6, self->npages));
		ASSERT_EQ(0, device_plug_as(self->ctl, 0, variant->plug, 0));
		ASSERT_EQ(0, device_used(self->ctl));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(2);
}

/*
 * Verifies that a suspend moves all pages although an allocation fails, and that the
 * next one works, too.
 */
TEST_F(nth, suspend)
{
	char *ptr = area_filled(self->npages, variant->thp, 7);
	bool failed;
	int ret;

	do {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		sweep_arm(&self->sweep);
		ret = device_suspend(self->ctl);
		failed = sweep_disarm(&self->sweep, self->nth);
		/* Suspend tries pages several times: one failure does not stop it. */
		ASSERT_EQ(0, ret);
		ASSERT_EQ(0, device_used(self->ctl));
		ASSERT_EQ(-EAGAIN, to_device(self->fd, ptr, self->npages));
		ASSERT_EQ(0, wrong(ptr, 7, self->npages));
		ASSERT_EQ(0, device_resume(self->ctl));
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(1);
}

#define MODULE	"test_hmm_devmem"

/* The present parameters of the module, as they are given to load it. */
static bool module_parameters(char *params, size_t size)
{
	static const char dir[] = "/sys/module/" MODULE "/parameters";
	char path[300], value[100];
	struct dirent *entry;
	DIR *d = opendir(dir);
	FILE *f;

	*params = '\0';
	while (d && (entry = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		f = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!f)
			continue;
		if (fscanf(f, "%99s", value) == 1 && strcmp(value, "(null)"))
			snprintf(params + strlen(params), size - strlen(params),
				 "%s=%s ", entry->d_name, value);
		fclose(f);
	}
	if (d)
		closedir(d);
	return *params;
}

static int module_open(void)
{
	struct utsname uts;
	char path[300];

	if (uname(&uts))
		return -1;
	snprintf(path, sizeof(path), "/lib/modules/%s/kernel/lib/" MODULE "/" MODULE ".ko",
		 uts.release);
	return open(path, O_RDONLY | O_CLOEXEC);
}

FIXTURE(load)
{
	int file;
	int nth;
	struct sweep sweep;
	char params[1000];
	char few_pages[1100];
};

FIXTURE_SETUP(load)
{
	self->nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (self->nth < 0)
		SKIP(return, "no fault injection");
	self->file = module_open();
	ASSERT_LE(0, self->file);
	ASSERT_TRUE(module_parameters(self->params, sizeof(self->params)));
	/* It is loaded some hundreds of times. The last value of a parameter counts. */
	snprintf(self->few_pages, sizeof(self->few_pages),
		 "%s size_mb=2 classic_mb=2 spm_mb=2", self->params);
	ASSERT_TRUE(sweep_setup());
	ASSERT_TRUE(spare_function("memremap_pages"));
	/* Only allocations of the module's code, not those of the module loader. */
	ASSERT_TRUE(only_function("do_one_initcall"));
}

FIXTURE_TEARDOWN(load)
{
	if (self->nth < 0)
		return;
	EXPECT_TRUE(only_function(NULL));
	/* The next test needs the module loaded. */
	syscall(SYS_finit_module, self->file, self->params, 0);
	EXPECT_EQ(0, access("/sys/module/" MODULE, F_OK));
	close(self->file);
	close(self->nth);
}

/* Verifies that the test driver is loaded with all its devices, or not at all. */
TEST_F(load, module)
{
	unsigned int lines;
	bool failed;
	int ret;

	ASSERT_EQ(0, syscall(SYS_delete_module, MODULE, 0));
	lines = iomem_lines();
	self->sweep.dense = PLENTY;
	do {
		sweep_arm(&self->sweep);
		ret = syscall(SYS_finit_module, self->file, self->few_pages, 0);
		if (ret)
			ret = -errno;
		failed = sweep_disarm(&self->sweep, self->nth);
		if (!failed)
			ASSERT_EQ(0, ret);
		if (ret)
			ASSERT_EQ(-ENOMEM, ret);
		if (!ret)
			ASSERT_EQ(0, syscall(SYS_delete_module, MODULE, 0));
		ASSERT_NE(0, access("/sys/module/" MODULE, F_OK));
		ASSERT_EQ(lines, iomem_lines());
	} while (failed && self->sweep.nth < PLENTY);
	SWEEP_DONE(150);
}

TEST_HARNESS_MAIN
