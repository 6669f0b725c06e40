// SPDX-License-Identifier: GPL-2.0
/*
 * Replays the accesses of programs on a device that is smaller than their memory, and
 * prints how much has moved, one line for each run as tools/hmm_devmem/bench/policy.c.
 */
#include "kselftest.h"
#include "test.h"
#include "policy.h"

#define MIB_PAGES	256U

static void print_run(const char *program, unsigned int percent, bool thp, int ctl,
		      const struct hmm_devmem_test_stats *before, __u64 faults)
{
	const struct hmm_devmem_test_stats now = device_stats(ctl);

	printf("%s\t%u\t%s\t%llu\t%llu\t%llu\t%llu\n", program, percent,
	       thp ? "guest2M" : "guest",
	       (unsigned long long)(now.to_device - before->to_device),
	       (unsigned long long)(now.to_ram - before->to_ram),
	       (unsigned long long)faults,
	       (unsigned long long)(now.faults - before->faults));
	fflush(stdout);
}

/* Returns the number of wrong bytes, or of calls that failed. */
static long run(const struct policy_program *program, uint32_t device,
		unsigned int percent, uint64_t seed, bool thp)
{
	struct policy_trace trace = trace_make(program, device, percent, seed);
	struct hmm_devmem_test_stats before;
	struct hmm_devmem_test_replay replay = {
		.npages = trace.pages,
		.accesses = (uintptr_t)trace.accesses,
		.nr = trace.nr,
		.flags = HMM_DEVMEM_TEST_REPLAY_HINTS,
	};
	char *ptr = area_filled(trace.pages, thp, 1);
	int ctl = device_open(0), fd;
	long bad;

	device_unplug(ctl);
	bad = !!device_plug_as(ctl, device * PAGE, HMM_DEVMEM_TEST_RECLAIM, 0);
	fd = device_open(0);
	before = device_stats(ctl);
	replay.addr = (uintptr_t)ptr;
	bad += !!device_ioctl(fd, HMM_DEVMEM_TEST_REPLAY, &replay);
	print_run(program->name, percent, thp, ctl, &before, replay.faults);
	bad += wrong(ptr, 1, trace.pages);
	areas_unmap();
	close(fd);
	close(ctl);
	trace_free(&trace);
	return bad;
}

/* Is @name one of a list with commas? */
static bool is_listed(const char *list, const char *name)
{
	const size_t len = strlen(name);

	if (!strcmp(list, "all"))
		return true;
	for (; list; list = strchr(list, ',')) {
		list += *list == ',';
		if (!strncmp(list, name, len) && (!list[len] || list[len] == ','))
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	static const unsigned int percents[] = { 50, 110, 150, 200 };
	unsigned int i, k, thp;
	long bad = 0;

	if (argc != 4) {
		fprintf(stderr, "Usage: policy MIB SEED LIST\n");
		return 2;
	}
	for (i = 0; i < POLICY_NR_PROGRAMS; i++)
		for (k = 0; is_listed(argv[3], policy_programs[i].name) && k < 4; k++)
			for (thp = 0; thp < 2; thp++)
				bad += run(&policy_programs[i],
					   strtoul(argv[1], NULL, 0) * MIB_PAGES,
					   percents[k], strtoull(argv[2], NULL, 0), thp);
	return bad ? 1 : 0;
}
