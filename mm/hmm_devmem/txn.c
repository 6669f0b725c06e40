// SPDX-License-Identifier: GPL-2.0
/*
 * The transaction that every migration consists of.
 */

/**
 * DOC: Transaction
 *
 * Every migration, in whatever direction and for whatever reason, is a sequence
 * of transactions of at most one PMD each (core cannot collect larger holes) and
 * each of the same steps::
 *
 *   collect ─► allocate ─► copy ─► status ─► commit ─► map ─► finalize
 *
 * *Collect* is core's: it locks and unmaps the pages that can be moved. *Allocate*
 * gives each of them a destination, or does not: pages without one stay where
 * they are, and that is no error. *Copy* tells the driver about the pages in runs
 * as long as possible. Pages for which the *status* is not success lose their
 * destination there and then, before core could see it. So after *commit* a page
 * that has a destination has its data there, and that alone is what the driver
 * gets to *map*. *Finalize* is core's again and always called once pages were
 * collected; there is no other way out of a transaction.
 *
 * What is copied is read from the arrays that core filled when it collected, and
 * never from the page that a CPU fault was about: core may have split its folio.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/mempool.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * Transactions come in two sizes, so that most CPU faults do with one page of
 * memory. Each size has a reserve: a CPU fault must not fail because there is no
 * memory for the arrays, and transactions end without waiting for each other.
 */
#define HMM_DEVMEM_SMALL_NR		16
#define HMM_DEVMEM_TXN_RESERVE		2

static mempool_t *small_pool __read_mostly;
static mempool_t *large_pool __read_mostly;

static_assert(sizeof(struct hmm_devmem_map_entry) <=
	      sizeof(struct hmm_devmem_run));

static void *txn_pool_alloc(gfp_t gfp, void *pool_data)
{
	const size_t nr = (unsigned long)pool_data;
	struct hmm_devmem_txn *txn;

	txn = kvmalloc(sizeof(*txn) + nr * (sizeof(*txn->runs) +
		       sizeof(*txn->src) + sizeof(*txn->dst)), gfp);
	if (!txn)
		return NULL;
	txn->max = nr;
	txn->runs = (void *)(txn + 1);
	txn->src = (void *)(txn->runs + nr);
	txn->dst = txn->src + nr;
	return txn;
}

static void txn_pool_free(void *txn, void *pool_data)
{
	kvfree(txn);
}

static struct hmm_devmem_txn *txn_start(struct hmm_devmem_txn *txn,
					struct hmm_devmem *devmem,
					unsigned int nr)
{
	txn->devmem = devmem;
	txn->vma = NULL;
	txn->start = 0;
	txn->nr = nr;
	txn->short_of_memory = false;
	txn->copy = (struct hmm_devmem_copy) { .runs = txn->runs };
	return txn;
}

/**
 * hmm_devmem_txn_get() - Get a transaction
 * @devmem: Whose pages it moves.
 * @nr: For how many pages, at most %HMM_DEVMEM_BLOCK_NR.
 *
 * Context: Process context, may sleep until another transaction has ended.
 * Return: The transaction; never NULL. Give it back with hmm_devmem_txn_put().
 */
struct hmm_devmem_txn *hmm_devmem_txn_get(struct hmm_devmem *devmem,
					  unsigned int nr)
{
	return txn_start(mempool_alloc(nr <= HMM_DEVMEM_SMALL_NR ? small_pool :
								   large_pool,
				       GFP_KERNEL), devmem, nr);
}

/**
 * hmm_devmem_txn_init_one() - Set up a transaction of one page
 * @one: Memory for it.
 * @devmem: Whose page it moves.
 *
 * Context: Any context.
 * Return: The transaction. There is nothing to give back.
 */
struct hmm_devmem_txn *hmm_devmem_txn_init_one(struct hmm_devmem_txn_one *one,
					       struct hmm_devmem *devmem)
{
	one->txn.max = 1;
	one->txn.runs = &one->run;
	one->txn.src = &one->src;
	one->txn.dst = &one->dst;
	return txn_start(&one->txn, devmem, 1);
}

/**
 * hmm_devmem_txn_put() - Give a transaction back
 * @txn: From hmm_devmem_txn_get().
 *
 * Context: Any context.
 */
void hmm_devmem_txn_put(struct hmm_devmem_txn *txn)
{
	mempool_free(txn, txn->max <= HMM_DEVMEM_SMALL_NR ? small_pool :
							    large_pool);
}

/* Core collected all of the window as one piece: a large folio or a hole. */
static bool txn_is_compound(const struct hmm_devmem_txn *txn)
{
	return txn->src[0] & MIGRATE_PFN_COMPOUND;
}

static bool txn_is_large_hole(const struct hmm_devmem_txn *txn)
{
	return txn_is_compound(txn) && !migrate_pfn_to_page(txn->src[0]);
}

/* The page to copy to entry @i; of a large folio core names only the first. */
static struct page *txn_src_page(const struct hmm_devmem_txn *txn,
				 unsigned int i)
{
	struct page *head;

	if (!txn_is_compound(txn))
		return migrate_pfn_to_page(txn->src[i]);
	head = migrate_pfn_to_page(txn->src[0]);
	return head ? head + i : NULL;
}

/* Number of pages of the destination at entry @i. */
static unsigned int txn_dst_nr(const struct hmm_devmem_txn *txn, unsigned int i)
{
	return txn->dst[i] & MIGRATE_PFN_COMPOUND ? HMM_DEVMEM_BLOCK_NR : 1;
}

/* Entry @i does not move. */
static void txn_drop(struct hmm_devmem_txn *txn, unsigned int i)
{
	struct page *page = migrate_pfn_to_page(txn->dst[i]);

	txn->dst[i] = 0;
	if (!page)
		return;
	folio_unlock(page_folio(page));
	folio_put(page_folio(page));
}

static void txn_drop_all(struct hmm_devmem_txn *txn)
{
	unsigned int i;

	for (i = 0; i < txn->nr; i++)
		txn_drop(txn, i);
}

static unsigned long txn_addr(const struct hmm_devmem_txn *txn, unsigned int i)
{
	return txn->vma ? txn->start + ((unsigned long)i << PAGE_SHIFT) : 0;
}

static bool run_extend(struct hmm_devmem_run *run, struct page *device,
		       struct page *ram, unsigned int nr)
{
	if (device != run->device + run->nr_pages)
		return false;
	if (run->ram ? ram != run->ram + run->nr_pages : !!ram)
		return false;
	run->nr_pages += nr;
	return true;
}

static void txn_build_runs(struct hmm_devmem_txn *txn)
{
	const bool to_device = txn->copy.dir == HMM_DEVMEM_TO_DEVICE;
	struct hmm_devmem_run *run = NULL;
	unsigned int i, nr;

	txn->copy.nr_runs = 0;
	for (i = 0; i < txn->nr; i += nr) {
		struct page *src = txn_src_page(txn, i);
		struct page *dst = migrate_pfn_to_page(txn->dst[i]);

		nr = txn_dst_nr(txn, i);
		if (!dst) {
			/* A run is contiguous in the process as well. */
			run = NULL;
			continue;
		}
		if (run && run_extend(run, to_device ? dst : src,
				      to_device ? src : dst, nr))
			continue;
		run = &txn->runs[txn->copy.nr_runs++];
		*run = (struct hmm_devmem_run) {
			.device = to_device ? dst : src,
			.ram = to_device ? src : dst,
			.addr = txn_addr(txn, i),
			.nr_pages = nr,
		};
	}
}

/* Entries of runs that the driver could not copy do not move. */
static unsigned int txn_drop_failed_runs(struct hmm_devmem_txn *txn)
{
	unsigned int i = 0, r, left, failed = 0;

	for (r = 0; r < txn->copy.nr_runs; r++) {
		const struct hmm_devmem_run *run = &txn->runs[r];

		while (!txn->dst[i])
			i++;
		for (left = run->nr_pages; left; ) {
			const unsigned int nr = txn_dst_nr(txn, i);

			if (run->error) {
				txn_drop(txn, i);
				failed += nr;
			}
			left -= nr;
			i += nr;
		}
	}
	return failed;
}

/**
 * hmm_devmem_txn_copy() - Copy what has a destination
 * @txn: The transaction; entries whose copy fails lose their destination.
 *
 * Context: Process context, may sleep. Source and destination are locked.
 * Return: 0, or an errno if at least one page could not be copied.
 */
int hmm_devmem_txn_copy(struct hmm_devmem_txn *txn)
{
	const struct hmm_devmem_ops *ops = txn->devmem->ops;
	unsigned int r, failed = 0;
	int ret;

	txn_build_runs(txn);
	if (!txn->copy.nr_runs)
		return 0;

	ret = txn->copy.dir == HMM_DEVMEM_TO_DEVICE ?
	      ops->copy_to_device(txn->devmem, &txn->copy) :
	      ops->copy_to_ram(txn->devmem, &txn->copy);
	if (!ret && ops->copy_wait)
		ret = ops->copy_wait(txn->devmem, &txn->copy);
	for (r = 0; r < txn->copy.nr_runs; r++) {
		if (ret)
			txn->runs[r].error = ret;
		failed |= txn->runs[r].error;
	}
	if (!failed)
		return 0;

	failed = txn_drop_failed_runs(txn);
	hmm_devmem_count(txn->devmem, HMM_DEVMEM_COPY_ERRORS, failed);
	/* Of a hole that is one piece, core takes all pages or crashes. */
	if (txn_is_large_hole(txn))
		txn_drop_all(txn);
	return -EIO;
}

static bool txn_entry_committed(const struct hmm_devmem_txn *txn,
				unsigned int i)
{
	return txn->dst[i] && (txn->src[i] & MIGRATE_PFN_MIGRATE);
}

/**
 * hmm_devmem_txn_committed() - Number of pages that have moved
 * @txn: The transaction, after core has committed it.
 *
 * Context: Any context.
 * Return: Number of pages.
 */
unsigned long hmm_devmem_txn_committed(const struct hmm_devmem_txn *txn)
{
	unsigned long moved = 0;
	unsigned int i, nr;

	for (i = 0; i < txn->nr; i += nr) {
		nr = txn_dst_nr(txn, i);
		if (txn_entry_committed(txn, i))
			moved += nr;
	}
	return moved;
}

/**
 * hmm_devmem_txn_map() - Tell the driver what is on the device now
 * @txn: A transaction to the device, after core has committed it.
 *
 * Context: Process context, may sleep.
 */
void hmm_devmem_txn_map(struct hmm_devmem_txn *txn)
{
	/* The runs are not needed any more, and there are at least as many. */
	struct hmm_devmem_map_entry *entries = (void *)txn->runs;
	unsigned int i, nr, n = 0;

	if (!txn->devmem->ops->map)
		return;

	for (i = 0; i < txn->nr; i += nr) {
		nr = txn_dst_nr(txn, i);
		if (!txn_entry_committed(txn, i))
			continue;
		entries[n++] = (struct hmm_devmem_map_entry) {
			.addr = txn_addr(txn, i),
			.pfn = page_to_pfn(migrate_pfn_to_page(txn->dst[i])),
			.order = nr > 1 ? HMM_DEVMEM_BLOCK_ORDER : 0,
			/* Core has written entries for holes by the vma's flags. */
			.writable = txn->src[i] & MIGRATE_PFN_VALID ?
				    txn->src[i] & MIGRATE_PFN_WRITE :
				    txn->vma->vm_flags & VM_WRITE,
		};
	}
	if (!n)
		return;
	txn->copy.nr_runs = 0;
	txn->copy.entries = entries;
	txn->copy.nr_entries = n;
	txn->devmem->ops->map(txn->devmem, &txn->copy);
}

/* Is entry @i something that can move to the device? */
static bool can_go_to_device(const struct hmm_devmem_txn *txn, unsigned int i)
{
	struct page *page = migrate_pfn_to_page(txn->src[i]);

	if (!(txn->src[i] & MIGRATE_PFN_MIGRATE))
		return false;
	return !page || (PageAnon(page) && !is_zone_device_page(page));
}

/*
 * A device folio for all of a window that core collected as one piece. Core does
 * so with every hole that is large enough, also where the process has asked for
 * no large pages.
 */
static bool alloc_large_device_folio(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long pfn;

	if (txn_is_large_hole(txn) &&
	    !thp_vma_allowable_order(txn->vma, txn->vma->vm_flags,
				     TVA_PAGEFAULT, HMM_DEVMEM_BLOCK_ORDER))
		return false;
	if (hmm_devmem_alloc_get(devmem->alloc, HMM_DEVMEM_BLOCK_ORDER, &pfn))
		return false;
	hmm_devmem_init_folio(devmem, pfn, HMM_DEVMEM_BLOCK_ORDER,
			      txn->copy.context);
	txn->dst[0] = migrate_pfn(pfn) | MIGRATE_PFN_COMPOUND;
	return true;
}

/* Of what core collected as one piece, all pages are wanted. */
static unsigned int count_wanted(const struct hmm_devmem_txn *txn)
{
	unsigned int i, nr = 0;

	if (txn_is_compound(txn))
		return can_go_to_device(txn, 0) ? txn->nr : 0;
	for (i = 0; i < txn->nr; i++)
		nr += can_go_to_device(txn, i);
	return nr;
}

/*
 * The first @got entries of @dst are pfns: make folios of them and put those
 * where they belong. That is never before their place in the list, so going
 * backwards overwrites none. The last @wanted - @got pages get nothing.
 */
static void spread_device_pages(struct hmm_devmem_txn *txn, unsigned int wanted,
				unsigned int got)
{
	unsigned int i;

	for (i = txn->nr; i--; ) {
		unsigned long pfn;

		if (!txn_is_compound(txn) && !can_go_to_device(txn, i)) {
			txn->dst[i] = 0;
			continue;
		}
		if (--wanted >= got) {
			txn->dst[i] = 0;
			continue;
		}
		pfn = txn->dst[wanted];
		hmm_devmem_init_folio(txn->devmem, pfn, 0, txn->copy.context);
		txn->dst[i] = migrate_pfn(pfn);
	}
}

/**
 * hmm_devmem_txn_alloc_device() - Allocate device memory for what was collected
 * @txn: The transaction. What there is no memory for gets no destination.
 *
 * Context: Process context.
 */
void hmm_devmem_txn_alloc_device(struct hmm_devmem_txn *txn)
{
	unsigned int got, wanted;

	wanted = count_wanted(txn);
	if (!wanted || (txn_is_compound(txn) && alloc_large_device_folio(txn)))
		return;

	got = hmm_devmem_alloc_get_bulk(txn->devmem->alloc, wanted, txn->dst);
	txn->short_of_memory = got < wanted;
	/* Of a hole that is one piece, core takes all pages or crashes. */
	if (got < wanted && txn_is_large_hole(txn)) {
		while (got)
			hmm_devmem_alloc_put(txn->devmem->alloc, txn->dst[--got], 0);
		memset(txn->dst, 0, wanted * sizeof(txn->dst[0]));
		return;
	}
	spread_device_pages(txn, wanted, got);
}

/* System memory for a device page; as core would allocate it for a CPU fault. */
static struct folio *alloc_ram(const struct hmm_devmem_txn *txn,
			       unsigned int i, unsigned int order, gfp_t gfp)
{
	if (order)
		gfp |= __GFP_COMP | __GFP_NORETRY | __GFP_NOWARN;
	if (!txn->vma)
		return folio_alloc(gfp, order);
	return vma_alloc_folio(gfp, order, txn->vma, txn_addr(txn, i));
}

static bool alloc_ram_entry(struct hmm_devmem_txn *txn, unsigned int i,
			    unsigned int order, gfp_t gfp)
{
	struct folio *folio = alloc_ram(txn, i, order, gfp);

	if (!folio)
		return false;
	__folio_set_locked(folio);
	txn->dst[i] = migrate_pfn(folio_pfn(folio));
	if (order)
		txn->dst[i] |= MIGRATE_PFN_COMPOUND;
	return true;
}

/**
 * hmm_devmem_txn_can_go_to_ram() - Was a page of this device collected?
 * @txn: The transaction.
 * @i: Entry.
 *
 * Context: Any context.
 * Return: True if the page at entry @i can move to system memory.
 */
bool hmm_devmem_txn_can_go_to_ram(const struct hmm_devmem_txn *txn, unsigned int i)
{
	struct page *page = txn_src_page(txn, i);

	/* Peers have the same owner, so core collects their pages as well. */
	return page && (txn->src[txn_is_compound(txn) ? 0 : i] & MIGRATE_PFN_MIGRATE) &&
	       hmm_devmem_has_pfn(txn->devmem, page_to_pfn(page));
}

/**
 * hmm_devmem_txn_alloc_ram() - Allocate system memory for what was collected
 * @txn: The transaction.
 * @first: An entry that is served before all others; they are only tried for
 *	if that succeeds, and only as long as memory is easily had.
 * @may_split: A large folio may go to pages of PAGE_SIZE if there is no large
 *	one for it.
 *
 * Context: Process context, may sleep.
 * Return: False if there is no memory for @first. True does not mean that @first
 * can move: it may not have been collected.
 */
bool hmm_devmem_txn_alloc_ram(struct hmm_devmem_txn *txn, unsigned int first,
			      bool may_split)
{
	gfp_t gfp = GFP_HIGHUSER_MOVABLE;
	unsigned int i;

	if (txn_is_compound(txn)) {
		if (!hmm_devmem_txn_can_go_to_ram(txn, 0))
			return true;
		if (alloc_ram_entry(txn, 0, HMM_DEVMEM_BLOCK_ORDER, gfp))
			return true;
		if (!may_split)
			return false;
	}
	if (hmm_devmem_txn_can_go_to_ram(txn, first) && !alloc_ram_entry(txn, first, 0, gfp))
		return false;
	gfp |= __GFP_NORETRY | __GFP_NOWARN;
	for (i = 0; i < txn->nr; i++)
		if (!txn->dst[i] && hmm_devmem_txn_can_go_to_ram(txn, i) &&
		    !alloc_ram_entry(txn, i, 0, gfp))
			break;
	return true;
}

/**
 * hmm_devmem_txn_init() - Set up the reserves
 *
 * Context: Process context, once at boot.
 * Return: 0 or -ENOMEM.
 */
int __init hmm_devmem_txn_init(void)
{
	small_pool = mempool_create(HMM_DEVMEM_TXN_RESERVE, txn_pool_alloc,
				    txn_pool_free, (void *)HMM_DEVMEM_SMALL_NR);
	large_pool = mempool_create(HMM_DEVMEM_TXN_RESERVE, txn_pool_alloc,
				    txn_pool_free, (void *)HMM_DEVMEM_BLOCK_NR);
	return small_pool && large_pool ? 0 : -ENOMEM;
}
