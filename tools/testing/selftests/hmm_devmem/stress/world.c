// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to the devices and to the machine while the stress test runs: a
 * process for each device, and one for the rest.
 */
#include "stress.h"
#include "../shared.h"
#include "../system.h"

#include <sys/stat.h>

#define GROUP		"/sys/fs/cgroup/hmm_devmem_stress"
#define SWAP_MIB	16
#define LIMIT_PAGES	400
/* Core charges in advance, for each CPU */
#define LIMIT_SLACK	(4 * 64 * PAGE)
/* Less than the memory of an owner */
#define OOM_LIMIT	"2M"

static void pause_ms(struct rng *rng, unsigned int least, unsigned int most)
{
	sleep_ms(least + rng_below(rng, most - least));
}

/*
 * Control groups: "work" for the processes that own memory, "limit" for a process
 * whose pages move back while it is at its limit, "oom" for a process that is
 * killed.
 */

static const char *group_file(const char *group, const char *name)
{
	static char path[120];

	snprintf(path, sizeof(path), GROUP "/%s/%s", group, name);
	return path;
}

static bool make_group(const char *name)
{
	return !mkdir(group_file(name, ""), 0755) &&
	       !access(group_file(name, "memory.max"), W_OK);
}

static bool remove_group(const char *name)
{
	int i;

	for (i = 0; i < HANG_MS / 10 && rmdir(group_file(name, "")); i++)
		sleep_ms(10);
	return i < HANG_MS / 10;
}

/**
 * join_group() - Move this process to one of the groups
 * @name: Name of the group.
 *
 * Return: Whether that was possible.
 */
bool join_group(const char *name)
{
	return file_write(group_file(name, "cgroup.procs"), "0");
}

/* A RAM disk allocates memory when it is written to: let it do that now. */
static bool fill_swap_disk(void)
{
	static const char zeros[1 << 20];
	int fd = open(SWAP_DISK, O_WRONLY | O_CLOEXEC), i;
	bool ok = fd >= 0;

	for (i = 0; ok && i < SWAP_MIB; i++)
		ok = write(fd, zeros, sizeof(zeros)) == sizeof(zeros);
	ok = ok && !fsync(fd);
	close(fd);
	return ok;
}

/**
 * world_begin() - Prepare what the operations need
 *
 * Return: Whether all of that has succeeded.
 */
bool world_begin(void)
{
	file_write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	return !mkdir(GROUP, 0755) &&
	       file_write(GROUP "/cgroup.subtree_control", "+memory") &&
	       make_group("work") && make_group("limit") && make_group("oom") &&
	       file_write(group_file("oom", "memory.max"), OOM_LIMIT) &&
	       file_write(group_file("oom", "memory.swap.max"), "0") &&
	       fill_swap_disk() && !swap_begin(SWAP_MIB * 256);
}

/**
 * world_end() - Undo world_begin()
 *
 * Return: Whether that was possible.
 */
bool world_end(void)
{
	bool ok = !swapoff(SWAP_DISK);

	ok &= remove_group("work") && remove_group("limit") && remove_group("oom");
	return ok && !rmdir(GROUP);
}

/*
 * One device.
 */

static const struct hmm_devmem_test_plug plugs[] = {
	{ .flags = 0 },
	{ .flags = HMM_DEVMEM_TEST_LAZY },
	{ .flags = HMM_DEVMEM_TEST_DMA },
	{ .flags = HMM_DEVMEM_TEST_ASYNC, .delay_us = 200 },
	{ .flags = HMM_DEVMEM_TEST_SYNC },
	{ .flags = HMM_DEVMEM_TEST_RECLAIM, .size = 8 << 20 },
	{ .flags = HMM_DEVMEM_TEST_RUNTIME_PM },
	{ .flags = HMM_DEVMEM_TEST_DMA | HMM_DEVMEM_TEST_ASYNC, .size = 6 << 20 },
	{ .flags = HMM_DEVMEM_TEST_LAZY | HMM_DEVMEM_TEST_RECLAIM |
		   HMM_DEVMEM_TEST_ASYNC, .size = 4 << 20 },
	{ .flags = HMM_DEVMEM_TEST_LAZY | HMM_DEVMEM_TEST_DMA |
		   HMM_DEVMEM_TEST_ASYNC },
	{ .flags = HMM_DEVMEM_TEST_RECLAIM | HMM_DEVMEM_TEST_DMA |
		   HMM_DEVMEM_TEST_RUNTIME_PM, .size = 10 << 20 },
	{ .flags = HMM_DEVMEM_TEST_SHARED },
	{ .flags = HMM_DEVMEM_TEST_SHARED | HMM_DEVMEM_TEST_ASYNC |
		   HMM_DEVMEM_TEST_RECLAIM, .size = 12 << 20, .reserve = 4 << 20 },
	{ .flags = HMM_DEVMEM_TEST_SHARED | HMM_DEVMEM_TEST_DMA, .size = 16 << 20,
	  .reserve = 16 << 20 },
};

#define NR_PLUGS	(sizeof(plugs) / sizeof(*plugs))

/**
 * plug_random() - Plug a device with random properties
 * @node: The device.
 * @fd: Its open file.
 * @rng: For the choice.
 *
 * Return: 0 or -errno.
 */
int plug_random(int node, int fd, struct rng *rng)
{
	struct hmm_devmem_test_plug plug = plugs[rng_below(rng, NR_PLUGS)];

	if (node >= NODE_COHERENT) {
		plug.size = 0;
		plug.flags &= ~HMM_DEVMEM_TEST_LAZY;
	}
	if (node == NODE_CLASSIC) {
		plug.flags = 0;
		plug.reserve = 0;
	}
	__atomic_store_n(&shared->plug[node], plug.flags, __ATOMIC_SEQ_CST);
	return device_ioctl(fd, HMM_DEVMEM_TEST_PLUG_AS, &plug);
}

/**
 * struct device - a device that operations are done with
 * @node: Number of the device.
 * @fd: Its open file.
 * @slot: The slot of the process that does the operations.
 * @buffers: Its buffers, 0 for none.
 * @rng: For random choices of the operation.
 */
struct device {
	int node;
	int fd;
	long buffers[2];
	struct slot *slot;
	struct rng rng;
};

static long device_result(struct device *device, const char *what, long ret)
{
	if (ret < 0)
		fail(device->slot, FAILURE_OPERATION, "%s: %s", what,
		     strerror(-ret));
	return ret < 0 ? ret : 1;
}

/* Suspend and resume the device; no page may be on it in between. */
static long do_suspend(struct device *device)
{
	long ret, used;

	/* Not with runtime PM, which could resume the device in between */
	if (shared->plug[device->node] & HMM_DEVMEM_TEST_RUNTIME_PM)
		return 0;
	ret = device_suspend(device->fd);
	if (ret == -EBUSY || ret == -ENOMEM)
		return ret;
	if (device_result(device, "suspend", ret) < 0)
		return ret;
	pause_ms(&device->rng, 1, 20);
	used = device_used(device->fd);
	if (used)
		fail(device->slot, FAILURE_COUNTERS,
		     "%ld pages are in use of a device that is suspended", used);
	return device_result(device, "resume", device_resume(device->fd));
}

static long do_unplug(struct device *device)
{
	long ret = device_result(device, "unplug", device_unplug(device->fd));

	if (ret < 0)
		return ret;
	pause_ms(&device->rng, 1, 20);
	return device_result(device, "plug", plug_random(device->node, device->fd,
							 &device->rng));
}

static long do_evict_all(struct device *device)
{
	return device_result(device, "evict", device_evict_all(device->fd));
}

/* Let some copies fail for a while, and none after that. */
static long do_inject(struct device *device, enum hmm_devmem_test_fail what)
{
	long ret;

	ret = device_inject(device->fd, what, rng_below(&device->rng, 8),
			    1 + rng_below(&device->rng, 4));
	pause_ms(&device->rng, 5, 50);
	device_inject(device->fd, HMM_DEVMEM_TEST_FAIL_NONE, 0, 0);
	return device_result(device, "inject", ret);
}

/* An access to a page whose copy fails raises SIGBUS; its data stays on the device. */
static long do_inject_to_ram(struct device *device,
			     enum hmm_devmem_test_fail what)
{
	long ret;

	__atomic_fetch_add(&shared->armed, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&shared->arm_events, 1, __ATOMIC_SEQ_CST);
	ret = do_inject(device, what);
	__atomic_fetch_sub(&shared->armed, 1, __ATOMIC_SEQ_CST);
	return ret;
}

static long do_fail_next(struct device *device, __u32 step)
{
	return device_result(device, "fail next",
			     device_fail_next(device->fd, step));
}

/* What can be, if the memory is used by others, or the device is not shared. */
static bool is_unlucky(long ret)
{
	return ret == -EOPNOTSUPP || ret == -EBUSY || ret == -ENOSPC || ret == -ENOMEM ||
	       ret == -EAGAIN || ret == -EINVAL;
}

/* Use a buffer, which competes with the pages of processes. */
static long do_buffer(struct device *device)
{
	long *id = &device->buffers[rng_below(&device->rng, 2)], ret;

	if (!*id) {
		ret = buffer_alloc(device->fd, 1 + rng_below(&device->rng, 3));
		*id = ret > 0 ? ret : 0;
	} else if (rng_below(&device->rng, 4)) {
		ret = buffer_touch(device->fd, *id);
		if (ret > 0)
			fail(device->slot, FAILURE_BYTES,
			     "%ld words of buffer %ld are wrong", ret, *id);
	} else {
		ret = buffer_free(device->fd, *id);
		*id = is_unlucky(ret) ? *id : 0;
	}
	return is_unlucky(ret) ? 0 : device_result(device, "buffer", ret);
}

static long do_shrink(struct device *device)
{
	long ret = device_shrink(device->fd, 1 + rng_below(&device->rng, 4));

	return is_unlucky(ret) ? 0 : device_result(device, "shrink", ret);
}

static long do_withdraw(struct device *device)
{
	long ret = device_withdraw(device->fd, rng_below(&device->rng, 8));

	return is_unlucky(ret) ? 0 : device_result(device, "withdraw", ret);
}

static long device_do(struct device *device, enum kind kind)
{
	switch (kind) {
	case KIND_SUSPEND:
		return do_suspend(device);
	case KIND_UNPLUG:
		return do_unplug(device);
	case KIND_EVICT_ALL:
		return do_evict_all(device);
	case KIND_FAIL_TO_DEVICE:
		return do_inject(device, HMM_DEVMEM_TEST_FAIL_TO_DEVICE);
	case KIND_FAIL_TO_DEVICE_RUN:
		return do_inject(device, HMM_DEVMEM_TEST_FAIL_TO_DEVICE_RUN);
	case KIND_FAIL_TO_RAM:
		return do_inject_to_ram(device, HMM_DEVMEM_TEST_FAIL_TO_RAM);
	case KIND_FAIL_TO_RAM_RUN:
		return do_inject_to_ram(device, HMM_DEVMEM_TEST_FAIL_TO_RAM_RUN);
	case KIND_NO_DEVICE:
		return do_fail_next(device, HMM_DEVMEM_TEST_NO_DEVICE);
	case KIND_NO_DEVICE_LARGE:
		return do_fail_next(device, HMM_DEVMEM_TEST_NO_DEVICE_LARGE);
	case KIND_NO_RAM:
		return do_fail_next(device, HMM_DEVMEM_TEST_NO_RAM);
	case KIND_NO_RAM_LARGE:
		return do_fail_next(device, HMM_DEVMEM_TEST_NO_RAM_LARGE);
	case KIND_NO_BLOCKS:
		return do_fail_next(device, HMM_DEVMEM_TEST_NO_BLOCKS);
	case KIND_BUFFER:
		return do_buffer(device);
	case KIND_SHRINK:
		return do_shrink(device);
	case KIND_WITHDRAW:
		return do_withdraw(device);
	default:
		return do_fail_next(device, HMM_DEVMEM_TEST_NO_DMA);
	}
}

static const unsigned char node_deck[] = {
	KIND_SUSPEND, KIND_UNPLUG, KIND_UNPLUG, KIND_EVICT_ALL,
	KIND_FAIL_TO_DEVICE, KIND_FAIL_TO_DEVICE_RUN, KIND_FAIL_TO_RAM,
	KIND_FAIL_TO_RAM_RUN, KIND_NO_DEVICE, KIND_NO_DEVICE_LARGE, KIND_NO_RAM,
	KIND_NO_RAM_LARGE, KIND_NO_DMA, KIND_NO_BLOCKS, KIND_BUFFER, KIND_BUFFER,
	KIND_BUFFER, KIND_SHRINK, KIND_WITHDRAW,
};

static const unsigned char classic_deck[] = { KIND_UNPLUG };

/**
 * node_deck_size() - After how many operations was each done with a device?
 * @node: Number of the device.
 *
 * Return: The number of operations.
 */
unsigned int node_deck_size(int node)
{
	return node == NODE_CLASSIC ? sizeof(classic_deck) : sizeof(node_deck);
}

static void device_turn(struct device *device)
{
	const unsigned int index = SLOT_NODES + device->node;
	const bool classic = device->node == NODE_CLASSIC;
	struct slot *slot = device->slot;
	struct note *note;
	enum kind kind;
	long ret;

	device->rng = rng_of(index, slot->ops);
	kind = deal(index, slot->ops, classic ? classic_deck : node_deck,
		    node_deck_size(device->node));
	note = note_begin(slot, kind, device->node, 0, 0);
	ret = device_do(device, kind);
	note_end(note, ret);
	if (ret > 0)
		count(kind);
	/* Pause, so that pages can be moved to the device */
	pause_ms(&device->rng, 10, classic ? 300 : 150);
}

/**
 * node_run() - Be the process that does operations with a device, for a round
 * @node: Number of the device.
 */
void node_run(int node)
{
	struct device device = {
		.node = node,
		.fd = device_open(node == NODE_CLASSIC ? CLASSIC : node),
		.slot = &shared->slots[SLOT_NODES + node],
	};

	while (phase() == PHASE_RUN && !*device.slot->failure)
		device_turn(&device);
}

/*
 * The machine.
 */

/**
 * struct machine - state of the process that does operations with the machine
 * @slot: The slot of the process.
 * @rng: For random choices of the operation.
 */
struct machine {
	struct slot *slot;
	struct rng rng;
};

static long machine_result(struct machine *machine, const char *what, bool ok)
{
	if (!ok)
		fail(machine->slot, FAILURE_OPERATION, "%s: %s", what,
		     strerror(errno));
	return ok;
}

static long do_cpu(struct machine *machine)
{
	const unsigned long nr = sysconf(_SC_NPROCESSORS_CONF);
	char path[80];

	if (nr < 2)
		return 0;
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%lu/online",
		 1 + rng_below(&machine->rng, nr - 1));
	if (!machine_result(machine, "CPU offline", file_write(path, "0")))
		return 0;
	pause_ms(&machine->rng, 5, 100);
	return machine_result(machine, "CPU online", file_write(path, "1"));
}

static long do_swapoff(struct machine *machine)
{
	if (!machine_result(machine, "swapoff", !swapoff(SWAP_DISK)))
		return 0;
	return machine_result(machine, "swapon", !swap_begin(SWAP_MIB * 256));
}

/* It is no failure if less than that can be reclaimed. */
static long do_reclaim(void)
{
	return file_write(group_file("work", "memory.reclaim"), "8M") ||
	       errno == EAGAIN;
}

/*
 * Children that own memory. Their exit status is the number of the step that went
 * wrong; they report by themselves what that was.
 */
static struct owner child_owner;

static int child_begin(struct machine *machine, const char *group,
		       unsigned long npages)
{
	struct owner *owner = &child_owner;

	catch_faults();
	owner->slot = machine->slot;
	owner->uid = rng_next(&machine->rng);
	owner->npages = npages;
	owner->area = area_map(npages, rng_below(&machine->rng, 2));
	if (!join_group(group))
		return -errno;
	return device_open(rng_below(&machine->rng, NODE_CLASSIC));
}

static bool limit_group(void)
{
	long charged = atol(file_read(group_file("limit", "memory.current")));
	char text[30];

	snprintf(text, sizeof(text), "%ld", charged + LIMIT_SLACK);
	return file_write(group_file("limit", "memory.max"), text);
}

/* Bring pages back while their cgroup is at its limit. */
static int limit_child(struct machine *machine)
{
	struct owner *owner = &child_owner;
	int fd = child_begin(machine, "limit", LIMIT_PAGES);

	if (fd < 0 || !owner_write(owner, 0, owner->npages))
		return 1;
	to_device(fd, owner->area, owner->npages);
	if (!limit_group())
		return 2;
	if (!owner_check(owner, 0, owner->npages / 2))
		return 3;
	device_evict_all(fd);
	if (!owner_check(owner, 0, owner->npages))
		return 4;
	return 0;
}

/* Use more memory than the cgroup may: the process is killed before it returns. */
static int oom_child(struct machine *machine)
{
	struct owner *owner = &child_owner;
	int fd = child_begin(machine, "oom", AREA_PAGES);
	unsigned long page;

	for (page = 0; fd >= 0 && page + 64 <= owner->npages; page += 64) {
		if (!owner_write(owner, page, 64))
			return 1;
		to_device(fd, owner->area, page + 64);
	}
	return 2;
}

static long do_child(struct machine *machine, const char *what,
		     int (*run)(struct machine *machine), int expected)
{
	const int status = child_status_within(child_start(run(machine)), HANG_MS);

	if (status == expected)
		return 1;
	fail(machine->slot, status < 0 ? FAILURE_HUNG : FAILURE_OPERATION,
	     "child %s has ended with status %d", what, status);
	return 0;
}

static long do_limit(struct machine *machine)
{
	long ret = do_child(machine, "under a limit", limit_child, 0);

	file_write(group_file("limit", "memory.max"), "max");
	return ret;
}

static long machine_do(struct machine *machine, enum kind kind)
{
	switch (kind) {
	case KIND_CPU:
		return do_cpu(machine);
	case KIND_SWAPOFF:
		return do_swapoff(machine);
	case KIND_RECLAIM:
		return do_reclaim();
	case KIND_COMPACT:
		return file_write("/proc/sys/vm/compact_memory", "1");
	case KIND_LIMIT:
		return do_limit(machine);
	default:
		return do_child(machine, "out of memory", oom_child,
				128 + SIGKILL);
	}
}

static const unsigned char machine_deck[] = {
	KIND_CPU, KIND_CPU, KIND_SWAPOFF, KIND_RECLAIM, KIND_RECLAIM,
	KIND_COMPACT, KIND_LIMIT, KIND_OOM,
};

/**
 * machine_deck_size() - After how many operations was each done with the machine?
 *
 * Return: The number of operations.
 */
unsigned int machine_deck_size(void)
{
	return sizeof(machine_deck);
}

static void machine_turn(struct machine *machine)
{
	struct slot *slot = machine->slot;
	struct note *note;
	enum kind kind;
	long ret;

	machine->rng = rng_of(SLOT_MACHINE, slot->ops);
	kind = deal(SLOT_MACHINE, slot->ops, machine_deck, machine_deck_size());
	note = note_begin(slot, kind, -1, 0, 0);
	ret = machine_do(machine, kind);
	note_end(note, ret);
	if (ret > 0)
		count(kind);
	pause_ms(&machine->rng, 5, 100);
}

/**
 * machine_run() - Be the process that does operations with the machine, for a round
 */
void machine_run(void)
{
	struct machine machine = { .slot = &shared->slots[SLOT_MACHINE] };

	while (phase() == PHASE_RUN && !*machine.slot->failure)
		machine_turn(&machine);
}
