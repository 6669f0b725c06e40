// SPDX-License-Identifier: GPL-2.0
/*
 * Verifies what the tracepoints report.
 */
#define _GNU_SOURCE
#include "fixture.h"

#define TRACEFS "/sys/kernel/tracing/"

static bool trace_write(const char *file, const char *text)
{
	char path[100];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), TRACEFS "%s", file);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

static bool trace_start(void)
{
	return trace_write("trace", "\n") && trace_write("buffer_size_kb", "4096") &&
	       trace_write("events/hmm_devmem/enable", "1");
}

/* Sums of a field over all events of a kind, and the number of these events. */
struct events {
	unsigned long count;
	unsigned long sum;
};

static struct events trace_find(const char *event, const char *field)
{
	struct events found = { 0 };
	char name[60], line[500];
	const char *value;
	FILE *f;

	snprintf(name, sizeof(name), " hmm_devmem_%s: ", event);
	f = fopen(TRACEFS "trace", "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (!strstr(line, name))
			continue;
		found.count++;
		value = strstr(line, field);
		if (value)
			found.sum += strtoul(value + strlen(field), NULL, 0);
	}
	if (f)
		fclose(f);
	return found;
}

static void trace_stop(void)
{
	trace_write("events/hmm_devmem/enable", "0");
	trace_write("trace", "\n");
}

/* Verifies that migrations in both directions are traced, with their pages. */
TEST_F(devmem, trace_migration)
{
	char *ptr = area_filled(self->npages, variant->thp, 1);
	struct events events;

	ASSERT_TRUE(trace_start());
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	events = trace_find("to_device", "nr_pages=");
	EXPECT_EQ(self->npages, events.sum);
	events = trace_find("to_ram", "nr_pages=");
	EXPECT_EQ(self->npages, events.sum);
	/* One event for each folio, and as many for free as for allocate */
	events = trace_find("alloc", "pfn=");
	EXPECT_LE(1, events.count);
	EXPECT_EQ(events.count, trace_find("free", "pfn=").count);
	EXPECT_EQ(events.sum, trace_find("free", "pfn=").sum);
	trace_stop();
	EXPECT_EQ(0, wrong(ptr, 1, self->npages));
}

/*
 * Verifies that CPU faults are traced, with their address and pages. There are none
 * on coherent memory.
 */
TEST_F(devmem, trace_fault)
{
	char *ptr = area_filled(self->npages, variant->thp, 2);
	struct hmm_devmem_test_stats before;
	struct events events;

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	before = device_stats(self->ctl);
	ASSERT_TRUE(trace_start());
	touch(ptr, self->npages);
	events = trace_find("fault", "nr_pages=");
	EXPECT_EQ(variant->coherent ? 0 : self->npages, events.sum);
	EXPECT_EQ(device_stats(self->ctl).faults - before.faults, events.count);
	EXPECT_EQ(0, trace_find("fault", "ret=").sum);
	trace_stop();
}

/* Verifies that evictions, suspends and lost pages are traced. */
TEST_F(devmem, trace_evict)
{
	char *ptr = area_filled(self->npages, variant->thp, 3);

	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_TRUE(trace_start());
	ASSERT_EQ(0, device_evict_all(self->ctl));
	EXPECT_EQ(1, trace_find("evict", "nr_pages=").count);
	EXPECT_EQ(0, trace_find("evict", "nr_pages=").sum);
	ASSERT_EQ(0, device_suspend(self->ctl));
	ASSERT_EQ(0, device_resume(self->ctl));
	EXPECT_EQ(1, trace_find("suspend", "ret=").count);
	ASSERT_EQ(0, device_lose(self->ctl, 3, 2));
	EXPECT_EQ(2, trace_find("poison", "nr_pages=").sum);
	trace_stop();
	/* Plug the device anew, without lost pages. */
	ASSERT_EQ(0, device_unplug(self->ctl));
	ASSERT_EQ(0, device_plug(self->ctl));
}

/* Verifies that adding, removing and pages that outlive a removal are traced. */
TEST_F(devmem, trace_remove)
{
	char *ptr = area_filled(self->npages, variant->thp, 4);

	ASSERT_TRUE(trace_start());
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(1, trace_find("remove", "pfns=").count);
	ASSERT_EQ(0, device_plug(self->ctl));
	EXPECT_EQ(1, trace_find("add", "pfns=").count);
	EXPECT_EQ(0, trace_find("zombie", "nr_pages=").count);
	if (!variant->coherent) {
		ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
		ASSERT_EQ(0, device_mark_dead(self->ctl));
		ASSERT_EQ(0, device_unplug(self->ctl));
		EXPECT_EQ(self->npages, trace_find("zombie", "nr_pages=").sum);
		ASSERT_EQ(0, device_plug(self->ctl));
	}
	trace_stop();
}

TEST_HARNESS_MAIN
