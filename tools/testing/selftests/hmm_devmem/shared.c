// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory that belongs to a memory manager: buffers, such as graphics has, and pages
 * of processes compete for it.
 */
#include "child.h"
#include "fixture.h"
#include "random.h"
#include "shared.h"

/* Plug a device of so many blocks; the size of coherent memory cannot be chosen. */
static int plug_shared(struct _test_data_devmem *self, bool coherent,
		       unsigned long nr_blocks, __u32 flags, unsigned long reserve)
{
	int ret;

	self->replug = true;
	ret = device_unplug(self->ctl);
	if (!ret)
		ret = device_plug_shared(self->ctl, coherent ? 0 : nr_blocks * HUGE, flags,
					 reserve * HUGE);
	self->before = device_stats(self->ctl);
	return ret;
}

/* Verifies that the library has blocks only while it needs them. */
TEST_F(devmem, blocks_come_and_go)
{
	char *ptr = area_numbered(self->npages, variant->thp);
	struct hmm_devmem_test_owners owners;

	ASSERT_EQ(0, plug_shared(self, variant->coherent, 16, 0, 0));
	EXPECT_EQ(0, device_owners(self->ctl).lent);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(3, device_owners(self->ctl).lent);
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_withdraw(self->ctl, 0));
	EXPECT_EQ(2, device_owners(self->ctl).lent);
	EXPECT_GT(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_EQ(2, device_shrink(self->ctl, 16));
	EXPECT_EQ(0, resident(self->fd, ptr, self->npages));
	owners = device_owners(self->ctl);
	EXPECT_EQ(0, owners.lent);
	EXPECT_EQ(0, owners.wrong_puts);
	EXPECT_EQ(0, misnumbered(ptr, self->npages));
	/* Those that are empty go without being asked for. */
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, to_ram(self->fd, ptr, self->npages));
	EXPECT_EQ(0, misnumbered(ptr, self->npages));
	EXPECT_TRUE(soon(!device_owners(self->ctl).lent));
}

/*
 * Verifies that page faults of the device take blocks, and that the device has no entry
 * for a block that was given back: not by withdrawal, nor by shrinking, nor at a fork.
 */
TEST_F(devmem, no_entry_outlives_a_loan)
{
	const unsigned long flags = HMM_DEVMEM_TEST_FAULT_WRITE |
				    HMM_DEVMEM_TEST_FAULT_MIGRATE;
	char *ptr = area_numbered(self->npages, variant->thp);
	long rest;

	ASSERT_EQ(0, plug_shared(self, variant->coherent, 16, 0, 0));
	ASSERT_EQ(0, device_fault(self->fd, ptr, flags, self->npages));
	EXPECT_EQ(self->npages, resident(self->fd, ptr, self->npages));
	EXPECT_LE(3, device_owners(self->ctl).lent);
	EXPECT_EQ(self->npages, mapped(self->fd, ptr, self->npages));
	EXPECT_EQ(self->npages, mapped_local(self->fd, ptr, self->npages));

	EXPECT_EQ(0, device_withdraw(self->ctl, 0));
	rest = resident(self->fd, ptr, self->npages);
	EXPECT_GT(self->npages, rest);
	EXPECT_EQ(rest, mapped_local(self->fd, ptr, self->npages));
	EXPECT_EQ(0, misnumbered(ptr, self->npages));

	/* The page faults of the device take what it has lost, and share it at a fork. */
	ASSERT_EQ(0, device_fault(self->fd, ptr, flags, self->npages));
	EXPECT_EQ(0, child_run(misnumbered(ptr, self->npages) != 0));
	ASSERT_EQ(0, device_fault(self->fd, ptr, flags, self->npages));
	EXPECT_LT(0, device_shrink(self->ctl, 16));
	EXPECT_EQ(0, device_owners(self->ctl).lent);
	EXPECT_EQ(0, device_owners(self->ctl).wrong_puts);
	EXPECT_EQ(0, mapped_local(self->fd, ptr, self->npages));
	EXPECT_EQ(0, misnumbered(ptr, self->npages));
}

/* Verifies that buffers take memory from processes, down to the reserve. */
TEST_F(devmem, buffers_take_memory_from_pages)
{
	const unsigned long npages = 8 * HUGE_PAGES;
	long first, second;
	char *ptr;

	if (variant->coherent)
		return;
	ptr = area_numbered(npages, variant->thp);
	ASSERT_EQ(0, plug_shared(self, false, 8, HMM_DEVMEM_TEST_RECLAIM, 2));
	ASSERT_EQ(npages, all_moved(self->fd, ptr, npages));
	EXPECT_EQ(8, device_owners(self->ctl).lent);
	first = buffer_alloc(self->fd, 6);
	ASSERT_LT(0, first);
	EXPECT_EQ(2, device_owners(self->ctl).lent);
	EXPECT_EQ(6, device_owners(self->ctl).buffers);
	EXPECT_EQ(2 * HUGE_PAGES, resident(self->fd, ptr, npages));
	/* Buffers are evicted for each other, but not the reserve. */
	second = buffer_alloc(self->fd, 3);
	ASSERT_LT(0, second);
	EXPECT_EQ(2, device_owners(self->ctl).lent);
	EXPECT_EQ(3, device_owners(self->ctl).buffers);
	EXPECT_EQ(0, buffer_touch(self->fd, first));
	EXPECT_EQ(0, buffer_touch(self->fd, second));
	EXPECT_EQ(3, device_owners(self->ctl).evictions);
	EXPECT_EQ(2 * HUGE_PAGES, resident(self->fd, ptr, npages));
	EXPECT_EQ(-ENOSPC, buffer_alloc(self->fd, 7));
	EXPECT_EQ(0, misnumbered(ptr, npages));
	EXPECT_EQ(0, buffer_free(self->fd, first));
	EXPECT_EQ(-ENOENT, buffer_touch(self->fd, first));
	EXPECT_EQ(0, device_owners(self->ctl).wrong_puts);
}

/* Verifies that processes take memory from buffers, up to the reserve. */
TEST_F(devmem, pages_take_memory_from_buffers)
{
	const unsigned long npages = 6 * HUGE_PAGES;
	long first, second;
	char *ptr;

	if (variant->coherent)
		return;
	ptr = area_numbered(npages, variant->thp);
	ASSERT_EQ(0, plug_shared(self, false, 8, HMM_DEVMEM_TEST_RECLAIM, 4));
	first = buffer_alloc(self->fd, 4);
	second = buffer_alloc(self->fd, 4);
	ASSERT_LT(0, first);
	ASSERT_LT(0, second);
	EXPECT_EQ(4 * HUGE_PAGES, moved_soon(self->fd, ptr, npages, 4 * HUGE_PAGES));
	EXPECT_EQ(4, device_owners(self->ctl).lent);
	EXPECT_EQ(4, device_owners(self->ctl).buffers);
	EXPECT_EQ(1, device_owners(self->ctl).evictions);
	EXPECT_EQ(0, buffer_touch(self->fd, first));
	EXPECT_EQ(0, buffer_touch(self->fd, second));
	EXPECT_EQ(4, device_owners(self->ctl).lent);
	EXPECT_EQ(0, misnumbered(ptr, npages));
}

/* Verifies that free blocks, and the library's own, are used before buffers are evicted. */
TEST_F(devmem, buffers_are_evicted_last)
{
	char *one, *two;

	if (variant->coherent)
		return;
	one = area_numbered(2 * HUGE_PAGES, variant->thp);
	two = area_numbered(2 * HUGE_PAGES, variant->thp);
	ASSERT_EQ(0, plug_shared(self, false, 4, HMM_DEVMEM_TEST_RECLAIM, 3));
	ASSERT_LT(0, buffer_alloc(self->fd, 2));
	ASSERT_EQ(2 * HUGE_PAGES, all_moved(self->fd, one, 2 * HUGE_PAGES));
	ASSERT_EQ(2 * HUGE_PAGES, all_moved(self->fd, two, 2 * HUGE_PAGES));
	EXPECT_EQ(0, device_owners(self->ctl).evictions);
	EXPECT_EQ(2, device_owners(self->ctl).buffers);
	EXPECT_EQ(2 * HUGE_PAGES, SINCE(evicted));
	EXPECT_EQ(0, misnumbered(one, 2 * HUGE_PAGES));
	EXPECT_EQ(0, misnumbered(two, 2 * HUGE_PAGES));
}

/* Verifies that suspend gives all blocks back, and that later ones are got again. */
TEST_F(devmem, suspend_gives_blocks_back)
{
	char *ptr = area_numbered(self->npages, variant->thp);

	ASSERT_EQ(0, plug_shared(self, variant->coherent, 16, 0, 8));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_suspend(self->ctl));
	EXPECT_EQ(0, device_owners(self->ctl).lent);
	EXPECT_EQ(-EAGAIN, to_device(self->fd, ptr, self->npages));
	EXPECT_EQ(0, device_owners(self->ctl).lent);
	ASSERT_EQ(0, device_resume(self->ctl));
	EXPECT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, misnumbered(ptr, self->npages));
}

/* Verifies that a block with a lost page is not given back, and others are. */
TEST_F(devmem, block_with_lost_page_stays)
{
	struct hmm_devmem_test_range range = { .first = 1, .npages = 1 };
	char *ptr = area_numbered(self->npages, variant->thp);

	ASSERT_EQ(0, plug_shared(self, variant->coherent, 16, 0, 0));
	ASSERT_EQ(0, device_ioctl(self->ctl, HMM_DEVMEM_TEST_LOSE, &range));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(-EBUSY, device_withdraw(self->ctl, 0));
	EXPECT_LT(0, device_shrink(self->ctl, 16));
	EXPECT_EQ(1, device_owners(self->ctl).lent);
	EXPECT_EQ(0, misnumbered(ptr, self->npages));
}

/* Verifies that buffers survive a driver that is unbound, and one that shares nothing. */
TEST_F(devmem, buffers_survive_removal)
{
	char *ptr = area_numbered(self->npages, variant->thp);
	long id;

	if (variant->coherent)
		return;
	ASSERT_EQ(0, plug_shared(self, false, 16, 0, 0));
	id = buffer_alloc(self->fd, 5);
	ASSERT_LT(0, id);
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	ASSERT_EQ(0, device_unplug(self->ctl));
	EXPECT_EQ(-ENODEV, buffer_touch(self->fd, id));
	ASSERT_EQ(0, device_plug(self->ctl));
	ASSERT_EQ(self->npages, all_moved(self->fd, ptr, self->npages));
	EXPECT_EQ(0, misnumbered(ptr, self->npages));
	ASSERT_EQ(0, plug_shared(self, false, 16, 0, 0));
	EXPECT_EQ(0, buffer_touch(self->fd, id));
	EXPECT_EQ(5, device_owners(self->ctl).buffers);
	EXPECT_EQ(0, device_owners(self->ctl).lent);
}

/* Verifies what the calls say of a device that is not shared. */
TEST_F(devmem, device_that_is_not_shared)
{
	ASSERT_EQ(0, plug_as(self, variant->coherent ? 0 : 3 * HUGE - PAGE, 0, 0));
	if (variant->coherent)
		return;
	EXPECT_EQ(-EOPNOTSUPP, buffer_alloc(self->fd, 1));
	EXPECT_EQ(-EOPNOTSUPP, device_shrink(self->ctl, 1));
	EXPECT_EQ(-EOPNOTSUPP, device_withdraw(self->ctl, 0));
	EXPECT_EQ(~0ULL, device_owners(self->ctl).lent);
}

enum {
	FIGHT_BLOCKS = 8,
	FIGHT_RESERVE = 3,
	FIGHT_PAGES = 6 * HUGE_PAGES,
	FIGHT_ROUNDS = 1000,
	FIGHT_BUFFERS = 3,
	FIGHTS = 100,
};

/* A process whose pages move to the device and back. Returns 0 if all bytes are right. */
static int fight_with_pages(int nr, bool thp, unsigned int seed)
{
	struct rng rng = rng_from(seed, 1, 0, 0);
	char *ptr = area_numbered(FIGHT_PAGES, thp);
	int fd = device_open(nr), i, rounds = rounds_of(FIGHT_ROUNDS);
	unsigned long first, npages;

	for (i = 0; i < rounds; i++) {
		first = rng_below(&rng, FIGHT_PAGES);
		npages = 1 + rng_below(&rng, rng_below(&rng, 4) ? 64 : 2 * HUGE_PAGES);
		npages = npages < FIGHT_PAGES - first ? npages : FIGHT_PAGES - first;
		if (rng_below(&rng, 3)) {
			if (to_device(fd, ptr + first * PAGE, npages) < 0)
				return 1;
		} else if (misnumbered_from(ptr + first * PAGE, first, npages)) {
			return 2;
		}
	}
	return misnumbered(ptr, FIGHT_PAGES) ? 3 : 0;
}

/* What a call for a buffer may say, since the other processes have memory as well. */
static bool is_fair(long ret)
{
	return ret >= 0 || ret == -EBUSY || ret == -ENOSPC || ret == -ENOMEM;
}

/* Use a buffer, or free it. @id is 0 if there is none. Returns whether all is right. */
static bool use_buffer(struct rng *rng, int fd, long *id)
{
	long ret;

	if (!*id) {
		ret = buffer_alloc(fd, 1 + rng_below(rng, 2));
		*id = ret > 0 ? ret : 0;
		return is_fair(ret);
	}
	if (rng_below(rng, 8)) {
		ret = buffer_touch(fd, *id);
		return ret <= 0 && is_fair(ret);
	}
	ret = buffer_free(fd, *id);
	*id = 0;
	return !ret;
}

/* A process that has buffers there. Returns 0 if all words are right. */
static int fight_with_buffers(int nr, unsigned int seed)
{
	struct rng rng = rng_from(seed, 2, 0, 0);
	long ids[FIGHT_BUFFERS] = { };
	int fd = device_open(nr), i, rounds = rounds_of(FIGHT_ROUNDS);
	bool ok = true;

	for (i = 0; i < rounds && ok; i++) {
		switch (rng_below(&rng, 8)) {
		case 0:
			ok = is_fair(device_shrink(fd, 1 + rng_below(&rng, 3)));
			break;
		case 1:
			ok = is_fair(device_withdraw(fd, rng_below(&rng, FIGHT_BLOCKS)));
			break;
		default:
			ok = use_buffer(&rng, fd, &ids[rng_below(&rng, FIGHT_BUFFERS)]);
			break;
		}
	}
	for (i = 0; i < FIGHT_BUFFERS && ok; i++)
		ok = !ids[i] || buffer_touch(fd, ids[i]) <= 0;
	return ok ? 0 : 1;
}

/* Verifies that neither side ever sees what the other one has written. */
TEST_F(devmem, buffers_and_pages_fight)
{
	const unsigned int seed = any_seed();
	enum { NR = 4 };
	pid_t pids[NR];
	int i, round;

	if (variant->coherent)
		return;
	TH_LOG("seed %u", seed);
	ASSERT_EQ(0, plug_shared(self, false, FIGHT_BLOCKS, HMM_DEVMEM_TEST_RECLAIM,
				 FIGHT_RESERVE));
	/* Again if the processes did not run at the same time */
	for (round = 0; round < FIGHTS && (!device_owners(self->ctl).evictions ||
					   !SINCE(evicted)); round++) {
		for (i = 0; i < NR; i++)
			pids[i] = child_start(i % 2 ?
				fight_with_buffers(variant->nr, seed + i + NR * round) :
				fight_with_pages(variant->nr, variant->thp,
						 seed + i + NR * round));
		for (i = 0; i < NR; i++)
			EXPECT_EQ(0, child_status(pids[i]));
	}
	EXPECT_EQ(0, device_owners(self->ctl).wrong_puts);
	/* The kernel can close the file of a process that has exited a moment later */
	EXPECT_TRUE(soon(!device_owners(self->ctl).buffers));
	EXPECT_LT(0, device_owners(self->ctl).evictions);
	EXPECT_LT(0, SINCE(evicted));
	EXPECT_EQ(0, device_used_soon(self->ctl, 0));
	EXPECT_LE(0, device_shrink(self->ctl, FIGHT_BLOCKS));
	EXPECT_EQ(0, device_owners(self->ctl).lent);
}

TEST_HARNESS_MAIN
