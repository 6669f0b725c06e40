// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit suite hmm_devmem_dma: which runs of a copy are joined, and which pages a run has.
 */

#include <kunit/test.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/sizes.h>

#include "../dma.h"
#include "../txn.h"

#define NR	16
#define NO_BOUNDARY	ULONG_MAX

/**
 * struct fixture - a transaction of up to %NR pages
 * @txn: The transaction.
 * @src: Its sources.
 * @dst: Its destinations.
 * @runs: Its runs.
 * @to: The device memory of a transaction to the device; only compared with NULL.
 */
struct fixture {
	struct hmm_devmem_txn txn;
	unsigned long src[NR];
	unsigned long dst[NR];
	struct hmm_devmem_run runs[NR];
	struct hmm_devmem to;
};

/* Pages are only computed, never accessed. */
static unsigned long ram_pfn(unsigned int i)
{
	return 0x1000 + 7 * i;
}

static int dma_init(struct kunit *test)
{
	struct fixture *fixture = kunit_kzalloc(test, sizeof(*fixture), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, fixture);
	fixture->txn.src = fixture->src;
	fixture->txn.dst = fixture->dst;
	fixture->txn.runs = fixture->runs;
	fixture->txn.copy.runs = fixture->runs;
	fixture->txn.to = &fixture->to;
	test->priv = fixture;
	return 0;
}

/* A run for entry @i, with page @page of device memory and of DMA addresses. */
static struct hmm_devmem_run *add_run(struct fixture *fixture, unsigned int i,
				      unsigned int page)
{
	struct hmm_devmem_txn *txn = &fixture->txn;
	struct hmm_devmem_run *run = &fixture->runs[txn->copy.nr_runs++];

	fixture->src[i] = migrate_pfn(txn->to ? ram_pfn(i) : 0x9000 + page);
	fixture->dst[i] = migrate_pfn(txn->to ? 0x9000 + page : ram_pfn(i));
	*run = (struct hmm_devmem_run) {
		.offset = (u64)page << PAGE_SHIFT,
		.dma_addr = SZ_1M + ((u64)page << PAGE_SHIFT),
		.ram = pfn_to_page(ram_pfn(i)),
		.nr_pages = 1,
	};
	txn->nr = i + 1;
	return run;
}

static void add_runs(struct fixture *fixture, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		add_run(fixture, i, i);
}

/* The lengths of the runs, as a string of digits. */
static void expect_runs(struct kunit *test, const char *lengths)
{
	struct fixture *fixture = test->priv;
	unsigned int r;

	KUNIT_ASSERT_EQ(test, strlen(lengths), fixture->txn.copy.nr_runs);
	for (r = 0; r < fixture->txn.copy.nr_runs; r++)
		KUNIT_EXPECT_EQ(test, lengths[r] - '0', fixture->runs[r].nr_pages);
}

static void scattered_pages_are_one_run(struct kunit *test)
{
	struct fixture *fixture = test->priv;
	unsigned int i;

	add_runs(fixture, 8);
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "8");
	KUNIT_EXPECT_EQ(test, SZ_1M, fixture->runs[0].dma_addr);
	for (i = 0; i < 8; i++)
		KUNIT_EXPECT_PTR_EQ(test, pfn_to_page(ram_pfn(i)),
				    hmm_devmem_run_page(&fixture->runs[0], i));
}

static void so_are_they_on_the_way_back(struct kunit *test)
{
	struct fixture *fixture = test->priv;

	fixture->txn.to = NULL;
	add_runs(fixture, 8);
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "8");
	KUNIT_EXPECT_PTR_EQ(test, pfn_to_page(ram_pfn(7)),
			    hmm_devmem_run_page(&fixture->runs[0], 7));
}

static void page_that_stays_separates_runs(struct kunit *test)
{
	struct fixture *fixture = test->priv;

	add_runs(fixture, 3);
	/* The device's memory and the DMA addresses go on, but not the process's. */
	add_run(fixture, 4, 3);
	add_run(fixture, 5, 4);
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "32");
	KUNIT_EXPECT_PTR_EQ(test, pfn_to_page(ram_pfn(5)),
			    hmm_devmem_run_page(&fixture->runs[1], 1));
}

static void gap_on_the_device_separates_runs(struct kunit *test)
{
	struct fixture *fixture = test->priv;

	add_runs(fixture, 6);
	fixture->runs[2].offset += SZ_1M;
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "213");
}

static void gap_in_dma_addresses_separates_runs(struct kunit *test)
{
	struct fixture *fixture = test->priv;

	add_runs(fixture, 6);
	fixture->runs[5].dma_addr += SZ_1M;
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "51");
}

static void pages_to_clear_are_not_joined(struct kunit *test)
{
	struct fixture *fixture = test->priv;

	add_runs(fixture, 5);
	fixture->runs[2].ram = NULL;
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "212");
	KUNIT_EXPECT_NULL(test, hmm_devmem_run_page(&fixture->runs[1], 0));
}

static void largest_segment_limits_runs(struct kunit *test)
{
	struct fixture *fixture = test->priv;

	add_runs(fixture, 8);
	hmm_devmem_dma_join_runs(&fixture->txn, 3 * PAGE_SIZE, NO_BOUNDARY);
	expect_runs(test, "332");
	KUNIT_EXPECT_PTR_EQ(test, pfn_to_page(ram_pfn(7)),
			    hmm_devmem_run_page(&fixture->runs[2], 1));
}

static void segment_smaller_than_a_page_joins_none(struct kunit *test)
{
	struct fixture *fixture = test->priv;

	add_runs(fixture, 3);
	hmm_devmem_dma_join_runs(&fixture->txn, PAGE_SIZE / 2, NO_BOUNDARY);
	expect_runs(test, "111");
}

static void runs_do_not_cross_a_boundary(struct kunit *test)
{
	struct fixture *fixture = test->priv;
	unsigned int i;

	add_runs(fixture, 8);
	for (i = 0; i < 8; i++)
		fixture->runs[i].dma_addr -= PAGE_SIZE;
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, 4 * PAGE_SIZE - 1);
	expect_runs(test, "143");
}

/* Runs can be shorter than their memory is contiguous, as with bounce buffers. */
static void contiguous_pages_stay_contiguous(struct kunit *test)
{
	struct fixture *fixture = test->priv;
	unsigned int i;

	add_runs(fixture, 4);
	for (i = 0; i < 4; i++)
		fixture->runs[i].ram = pfn_to_page(0x1000 + i);
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "4");
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_PTR_EQ(test, pfn_to_page(0x1000 + i),
				    hmm_devmem_run_page(&fixture->runs[0], i));
}

/* Of a large folio, core has only one entry. */
static void large_folio_is_one_run_again(struct kunit *test)
{
	struct fixture *fixture = test->priv;
	unsigned int i;

	add_runs(fixture, 4);
	for (i = 0; i < 4; i++)
		fixture->runs[i].ram = pfn_to_page(0x1000 + i);
	memset(fixture->dst + 1, 0, sizeof(fixture->dst) - sizeof(fixture->dst[0]));
	txn_set_dst(&fixture->txn, 0, fixture->dst[0] >> MIGRATE_PFN_SHIFT,
		    HMM_DEVMEM_BLOCK_ORDER);
	hmm_devmem_dma_join_runs(&fixture->txn, SZ_1M, NO_BOUNDARY);
	expect_runs(test, "4");
	KUNIT_EXPECT_PTR_EQ(test, pfn_to_page(0x1003),
			    hmm_devmem_run_page(&fixture->runs[0], 3));
}

static struct kunit_case dma_cases[] = {
	KUNIT_CASE(scattered_pages_are_one_run),
	KUNIT_CASE(so_are_they_on_the_way_back),
	KUNIT_CASE(page_that_stays_separates_runs),
	KUNIT_CASE(gap_on_the_device_separates_runs),
	KUNIT_CASE(gap_in_dma_addresses_separates_runs),
	KUNIT_CASE(pages_to_clear_are_not_joined),
	KUNIT_CASE(largest_segment_limits_runs),
	KUNIT_CASE(segment_smaller_than_a_page_joins_none),
	KUNIT_CASE(runs_do_not_cross_a_boundary),
	KUNIT_CASE(contiguous_pages_stay_contiguous),
	KUNIT_CASE(large_folio_is_one_run_again),
	{ }
};

static struct kunit_suite dma_suite = {
	.name = "hmm_devmem_dma",
	.init = dma_init,
	.test_cases = dma_cases,
};

kunit_test_suite(dma_suite);
