// SPDX-License-Identifier: GPL-2.0
/*
 * The transaction that every migration consists of.
 */

/**
 * DOC: Transaction
 *
 * Every migration, in whatever direction and for whatever reason, is a sequence
 * of transactions of at most one window each and each of the same steps::
 *
 *   collect ─► allocate ─► copy ─► status ─► commit ─► map ─► finalize
 *
 * *Collect*: core locks and unmaps the pages that can be moved. *Allocate* gives each of
 * them a destination, or does not: pages without one stay where they are, and that is no
 * error. *Copy* passes the pages to the driver, in runs as long as possible. *Status*:
 * pages that were not copied lose their destination, before core looks at it. *Commit*:
 * core moves the folios that have a destination, and says which it has moved; their data
 * was copied before. The driver gets only these to *map*. *Finalize*: core restores the
 * mappings, to the destination or to the old place, and unlocks the pages. Once pages were
 * collected finalize always follows: there is no other way out of a transaction.
 *
 * The pages to copy are taken from the arrays that core filled when it collected,
 * and never from the page that a CPU fault was about: core may have split its folio.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/init.h>
#include <linux/mempool.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "collect.h"
#include "devmem.h"
#include "dma.h"
#include "mirror.h"
#include "poison.h"
#include "pool.h"
#include "stats.h"
#include "txn.h"

/*
 * Transactions come in two sizes, so that one of up to 16 pages, as in many CPU faults,
 * takes little memory. Each size has a reserve, because an eviction must not fail for want
 * of memory for the arrays. Never wait for a transaction with a folio locked: core waits
 * for that lock when it splits a folio for another transaction, so the two could wait for
 * each other. A CPU fault has a folio locked, so it never waits for a transaction.
 */
#define HMM_DEVMEM_SMALL_NR		16
#define HMM_DEVMEM_TXN_RESERVE		2

static mempool_t *small_pool __read_mostly;
static mempool_t *large_pool __read_mostly;

static_assert(sizeof(struct hmm_devmem_map_entry) <=
	      sizeof(struct hmm_devmem_run));
static_assert(sizeof(struct folio *) <= sizeof(struct hmm_devmem_run));

/* Allocate a transaction of @pool_data pages. */
VISIBLE_IF_KUNIT void *hmm_devmem_txn_pool_alloc(gfp_t gfp, void *pool_data)
{
	const size_t nr = (unsigned long)pool_data;
	struct hmm_devmem_txn *txn;

	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_txn_pool_alloc, gfp, pool_data);
	txn = kvmalloc(sizeof(*txn) + nr * (sizeof(*txn->runs) +
		       sizeof(*txn->src) + sizeof(*txn->dst) +
		       sizeof(*txn->mappings)), gfp);
	if (!txn)
		return NULL;
	txn->max = nr;
	txn->runs = (void *)(txn + 1);
	txn->src = (void *)(txn->runs + nr);
	txn->dst = txn->src + nr;
	txn->mappings = (void *)(txn->dst + nr);
	return txn;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_txn_pool_alloc);

static void txn_pool_free(void *txn, void *pool_data)
{
	kvfree(txn);
}

static struct hmm_devmem_txn *txn_start(struct hmm_devmem_txn *txn,
					struct hmm_devmem *from,
					struct hmm_devmem *to, unsigned int nr)
{
	txn->from = from;
	txn->to = to;
	txn->devmem = to ?: from;
	txn->vma = NULL;
	txn->window = NULL;
	txn->start = 0;
	txn->nr = nr;
	txn->nr_short = 0;
	txn->nr_not_copied = 0;
	txn->in_fault = false;
	txn->keep_holes = false;
	txn->small_holes = false;
	txn->no_memory = false;
	txn->must_split = false;
	txn->unmapped = false;
	/* List all fields: to clear the structure first would double the time of this. */
	txn->copy = (struct hmm_devmem_copy) {
		.dir = to ? HMM_DEVMEM_TO_DEVICE : HMM_DEVMEM_TO_RAM,
		.nr_runs = 0,
		.runs = txn->runs,
		.nr_entries = 0,
		.entries = NULL,
		.context = NULL,
		.priv = NULL,
		.driver_private = NULL,
	};
	return txn;
}

static mempool_t *txn_pool(unsigned int nr)
{
	return nr <= HMM_DEVMEM_SMALL_NR ? small_pool : large_pool;
}

/**
 * hmm_devmem_txn_get() - Get a transaction
 * @from: The device memory that pages move from; NULL for system memory.
 * @to: The device memory that they move to; NULL for system memory. One of the two is NULL.
 * @nr: For how many pages, at most %HMM_DEVMEM_BLOCK_NR.
 *
 * Context: Process context, may sleep until another transaction has ended. The caller
 * has neither another transaction nor a folio lock.
 * Return: The transaction; never NULL. Give it back with hmm_devmem_txn_put().
 */
struct hmm_devmem_txn *hmm_devmem_txn_get(struct hmm_devmem *from,
					  struct hmm_devmem *to,
					  unsigned int nr)
{
	return txn_start(mempool_alloc(txn_pool(nr), GFP_KERNEL), from, to, nr);
}

/**
 * hmm_devmem_txn_tryget() - Get a second transaction
 * @from: The device memory that pages move from; NULL for system memory.
 * @to: The device memory that they move to; NULL for system memory. One of the two is NULL.
 * @nr: For how many pages, at most %HMM_DEVMEM_BLOCK_NR.
 *
 * For a caller that has a transaction already, and so must not wait for another one: if
 * two tasks did that, each could wait for the transaction that the other has.
 *
 * Context: Any context.
 * Return: The transaction, or NULL if there is no memory.
 */
struct hmm_devmem_txn *hmm_devmem_txn_tryget(struct hmm_devmem *from,
					     struct hmm_devmem *to,
					     unsigned int nr)
{
	struct hmm_devmem_txn *txn;

	txn = mempool_alloc(txn_pool(nr), GFP_NOWAIT);
	return txn ? txn_start(txn, from, to, nr) : NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_txn_tryget);

/**
 * hmm_devmem_txn_get_locked() - Get a transaction with a folio locked
 * @from: The device memory that pages move from; NULL for system memory.
 * @to: The device memory that they move to; NULL for system memory. One of the two is NULL.
 * @nr: For how many pages, at most %HMM_DEVMEM_BLOCK_NR.
 *
 * Context: Process context, may sleep, but not until another transaction has ended.
 * Return: The transaction, or NULL if there is no memory.
 */
struct hmm_devmem_txn *hmm_devmem_txn_get_locked(struct hmm_devmem *from,
						 struct hmm_devmem *to,
						 unsigned int nr)
{
	const size_t max = nr <= HMM_DEVMEM_SMALL_NR ? HMM_DEVMEM_SMALL_NR :
						       HMM_DEVMEM_BLOCK_NR;
	struct hmm_devmem_txn *txn;

	/*
	 * Try without the mempool's reserve first. hmm_devmem_txn_put() is right for such
	 * memory, too: the mempool may keep it as a part of its reserve.
	 */
	txn = hmm_devmem_txn_pool_alloc(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN,
					(void *)max);
	return txn ? txn_start(txn, from, to, nr) :
		     hmm_devmem_txn_tryget(from, to, nr);
}

/**
 * hmm_devmem_txn_init_one() - Set up a transaction of one page
 * @one: Memory for it.
 * @from: The device memory that the page moves from; NULL for system memory.
 * @to: The device memory that it moves to; NULL for system memory. One of the two is NULL.
 *
 * Context: Any context.
 * Return: The transaction. There is nothing to give back.
 */
struct hmm_devmem_txn *hmm_devmem_txn_init_one(struct hmm_devmem_txn_one *one,
					       struct hmm_devmem *from,
					       struct hmm_devmem *to)
{
	one->txn.max = 1;
	one->txn.runs = &one->run;
	one->txn.src = &one->src;
	one->txn.dst = &one->dst;
	return txn_start(&one->txn, from, to, 1);
}

/**
 * hmm_devmem_txn_put() - Give a transaction back
 * @txn: From hmm_devmem_txn_get(), hmm_devmem_txn_tryget() or
 *	hmm_devmem_txn_get_locked().
 *
 * Context: Any context.
 */
void hmm_devmem_txn_put(struct hmm_devmem_txn *txn)
{
	mempool_free(txn, txn_pool(txn->max));
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_txn_put);

/* Number of pages of the destination at entry @i. */
static unsigned int txn_dst_nr(const struct hmm_devmem_txn *txn, unsigned int i)
{
	return txn->dst[i] & MIGRATE_PFN_COMPOUND ? HMM_DEVMEM_BLOCK_NR : 1;
}

/* Make entry @i stay where it is: free its destination. */
static void txn_drop(struct hmm_devmem_txn *txn, unsigned int i)
{
	struct page *page = migrate_pfn_to_page(txn->dst[i]);

	txn->dst[i] = 0;
	if (!page)
		return;
	folio_unlock(page_folio(page));
	folio_put(page_folio(page));
}

/*
 * If core collected a hole as one entry, it crashes unless all pages of the hole have a
 * destination, or none: drop all if one is missing. Returns whether it has dropped them.
 */
static bool txn_drop_partial_hole(struct hmm_devmem_txn *txn)
{
	unsigned int i;

	if (!txn_is_large_hole(txn))
		return false;
	for (i = 0; i < txn->nr && txn->dst[i]; i++)
		;
	if (i == txn->nr)
		return false;
	for (i = 0; i < txn->nr; i++)
		txn_drop(txn, i);
	return true;
}

static __always_inline struct hmm_devmem_run *
run_start(struct hmm_devmem_txn *txn, unsigned int i, unsigned long src,
	  unsigned long dst)
{
	const unsigned long device = txn->to ? dst : src;
	const unsigned long ram = txn->to ? src : dst;
	struct hmm_devmem_run *run = &txn->runs[txn->copy.nr_runs++];

	run->device = pfn_to_page(device);
	run->offset = (u64)(device - txn->devmem->pfn_first) << PAGE_SHIFT;
	run->ram = ram ? pfn_to_page(ram) : NULL;
	run->addr = txn_addr(txn, i);
	run->mpfns = NULL;
	run->nr_pages = 1;
	run->error = 0;
	return run;
}

/*
 * Make one run of all pages that are contiguous in device memory, in system memory and in
 * the process. Where a run may have fewer pages because of the DMA mapping, make several.
 */
static void txn_build_runs(struct hmm_devmem_txn *txn)
{
	const unsigned int nr = txn->nr, max = priv(txn->devmem)->max_run;
	const unsigned long *dsts = txn->dst;
	const bool compound = txn_is_compound(txn);
	unsigned long src, dst, next_src = 0, next_dst = 0;
	struct hmm_devmem_run *run = NULL;
	unsigned int i;

	txn->copy.nr_runs = 0;
	/* The case of most CPU faults. */
	if (nr == 1) {
		if (dsts[0])
			run_start(txn, 0, txn_src_pfn(txn, 0, false),
				  dsts[0] >> MIGRATE_PFN_SHIFT);
		return;
	}
	for (i = 0; i < nr; i++) {
		if (!dsts[i]) {
			run = NULL;
			continue;
		}
		src = txn_src_pfn(txn, i, compound);
		dst = dsts[i] >> MIGRATE_PFN_SHIFT;
		if (run && dst == next_dst && src == next_src &&
		    run->nr_pages < max)
			run->nr_pages++;
		else
			run = run_start(txn, i, src, dst);
		next_dst = dst + 1;
		next_src = src ? src + 1 : 0;
	}
}

/* A large folio is copied as a whole: one run, unless DMA needs several. */
static void txn_build_large_runs(struct hmm_devmem_txn *txn)
{
	unsigned long src = txn_src_pfn(txn, 0, true);
	unsigned long dst = txn->dst[0] >> MIGRATE_PFN_SHIFT;
	struct hmm_devmem_run *run;
	unsigned int i;

	txn->copy.nr_runs = 0;
	for (i = 0; i < HMM_DEVMEM_BLOCK_NR; i += run->nr_pages) {
		run = run_start(txn, i, src ? src + i : 0, dst + i);
		run->nr_pages = min(priv(txn->devmem)->max_run,
				    (unsigned int)HMM_DEVMEM_BLOCK_NR - i);
	}
}

/*
 * Make pages stay whose run could not be copied; of a large folio, all pages stay if
 * one run could not be copied. Returns how many pages stay for this reason.
 */
static unsigned int txn_drop_runs(struct hmm_devmem_txn *txn)
{
	unsigned int i = 0, r, n, failed = 0, pages = 0;

	if (txn_dst_is_large(txn)) {
		txn_drop(txn, 0);
		return HMM_DEVMEM_BLOCK_NR;
	}
	for (r = 0; r < txn->copy.nr_runs; r++) {
		const struct hmm_devmem_run *run = &txn->runs[r];

		while (!txn->dst[i])
			i++;
		if (run->error) {
			for (n = 0; n < run->nr_pages; n++)
				txn_drop(txn, i + n);
			failed += run->nr_pages;
		}
		i += run->nr_pages;
		pages += run->nr_pages;
	}
	return failed && txn_drop_partial_hole(txn) ? pages : failed;
}

/*
 * As txn_drop_runs(), and count the pages. Not inline, like some functions below, so that
 * the common case needs few registers.
 */
static noinline unsigned int txn_drop_failed_runs(struct hmm_devmem_txn *txn)
{
	const unsigned int failed = txn_drop_runs(txn);

	txn->nr_not_copied += failed;
	hmm_devmem_count(txn->devmem, HMM_DEVMEM_COPY_ERRORS, failed);
	return failed;
}

/* Remove the runs that could not be mapped for DMA, so that the driver does not see them. */
static noinline void txn_forget_failed_runs(struct hmm_devmem_txn *txn)
{
	unsigned int r, nr = 0, pages = 0, failed;

	for (r = 0; r < txn->copy.nr_runs; r++)
		pages += txn->runs[r].nr_pages;
	failed = txn_drop_failed_runs(txn);
	txn->unmapped = true;
	for (r = 0; r < txn->copy.nr_runs; r++)
		if (!txn->runs[r].error)
			txn->runs[nr++] = txn->runs[r];
	txn->copy.nr_runs = nr;
	/* If no page is left, as of a large folio, undo the other mappings. */
	if (failed == pages) {
		hmm_devmem_dma_unmap(txn);
		txn->copy.nr_runs = 0;
	}
}

static int txn_call_copy(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;

	if (unlikely(READ_ONCE(priv(devmem)->dead)))
		return -ENODEV;
	return txn->to ?
	       devmem->ops->copy_to_device(devmem, &txn->copy) :
	       devmem->ops->copy_to_ram(devmem, &txn->copy);
}

/**
 * hmm_devmem_txn_copy_start() - Start to copy the pages that have a destination
 * @txn: The transaction.
 *
 * Context: Process context, may sleep. Source and destination are locked.
 */
void hmm_devmem_txn_copy_start(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;

	if (txn_dst_is_large(txn))
		txn_build_large_runs(txn);
	else
		txn_build_runs(txn);
	if (priv(devmem)->dma_device && txn->copy.nr_runs) {
		if (!hmm_devmem_dma_map(txn))
			txn_forget_failed_runs(txn);
		hmm_devmem_dma_join(txn);
	}
	txn->copy.driver_private = NULL;
	txn->status = txn->copy.nr_runs ? txn_call_copy(txn) : 0;
	txn->started = txn->copy.nr_runs && !txn->status;
}

/* Drop device pages that were retired since their allocation: they hold no data. */
static noinline void txn_drop_retired(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem_pool *pool = priv(txn->devmem)->pool;
	const unsigned long before = hmm_devmem_txn_nr_dst(txn);
	const bool large = txn_dst_is_large(txn);
	unsigned int i;

	for (i = 0; i < txn->nr; i++) {
		const unsigned int entry = large ? 0 : i;
		unsigned long pfn = txn->dst[entry] >> MIGRATE_PFN_SHIFT;

		if (txn->dst[entry] &&
		    hmm_devmem_pool_retired(pool, pfn + (large ? i : 0)))
			txn_drop(txn, entry);
	}
	if (!large)
		txn_drop_partial_hole(txn);
	txn->nr_not_copied += before - hmm_devmem_txn_nr_dst(txn);
}

/**
 * hmm_devmem_txn_copy_wait() - Wait until a copy is over
 * @txn: The transaction; entries whose copy failed lose their destination.
 *
 * Context: Process context, may sleep. Source and destination are locked.
 * Return: 0, or an errno if at least one page could not be copied: the errno that the
 * driver's callback has returned, else that of the first run that failed, else -EAGAIN if
 * a run could not be mapped for DMA, so that the driver was not asked to copy it.
 */
int hmm_devmem_txn_copy_wait(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;
	int ret = txn->status, error;
	unsigned int r;

	if (txn->started && devmem->ops->copy_wait)
		ret = devmem->ops->copy_wait(devmem, &txn->copy);
	if (unlikely(ret == -ENODEV))
		hmm_devmem_mark_dead(devmem);
	if (priv(devmem)->dma_device && txn->copy.nr_runs)
		hmm_devmem_dma_unmap(txn);
	error = ret;
	for (r = 0; r < txn->copy.nr_runs; r++) {
		if (unlikely(ret))
			txn->runs[r].error = ret;
		error = error ?: txn->runs[r].error;
	}
	if (unlikely(error))
		txn_drop_failed_runs(txn);
	if (txn->to && hmm_devmem_pool_any_retired(priv(txn->to)->pool))
		txn_drop_retired(txn);
	if (unlikely(txn->unmapped && !error))
		return -EAGAIN;
	return error;
}

static bool txn_entry_committed(const struct hmm_devmem_txn *txn,
				unsigned int i)
{
	return txn->dst[i] && (txn->src[i] & MIGRATE_PFN_MIGRATE);
}

static unsigned long txn_nr_committed(const struct hmm_devmem_txn *txn)
{
	const unsigned int nr = txn->nr;
	unsigned long moved = 0;
	unsigned int i;

	if (txn_dst_is_large(txn))
		return txn_entry_committed(txn, 0) ? HMM_DEVMEM_BLOCK_NR : 0;
	for (i = 0; i < nr; i++)
		moved += txn_entry_committed(txn, i);
	return moved;
}

/* Tell the driver, or the mirror, which pages are on the device now. */
static void txn_map(struct hmm_devmem_txn *txn)
{
	/* Use the memory of the runs, which are not needed any more; see static_assert(). */
	struct hmm_devmem_map_entry *entries = (void *)txn->runs;
	unsigned int i, nr, n = 0;

	/* The device must not access pages that the process cannot read now. */
	if (!(txn->window || txn->devmem->ops->map) ||
	    !(txn->vma->vm_flags & VM_READ))
		return;

	for (i = 0; i < txn->nr; i += nr) {
		nr = txn_dst_nr(txn, i);
		if (!txn_entry_committed(txn, i))
			continue;
		entries[n++] = (struct hmm_devmem_map_entry) {
			.addr = txn_addr(txn, i),
			.pfn = page_to_pfn(migrate_pfn_to_page(txn->dst[i])),
			.order = nr > 1 ? HMM_DEVMEM_BLOCK_ORDER : 0,
			/* Core maps the pages of holes by the vma's flags. */
			.writable = txn->src[i] & MIGRATE_PFN_VALID ?
				    txn->src[i] & MIGRATE_PFN_WRITE :
				    txn->vma->vm_flags & VM_WRITE,
		};
	}
	if (!n)
		return;
	if (txn->window) {
		hmm_devmem_mirror_map(txn->window, entries, n);
		return;
	}
	txn->copy.nr_runs = 0;
	txn->copy.entries = entries;
	txn->copy.nr_entries = n;
	txn->devmem->ops->map(txn->devmem, &txn->copy);
}

/*
 * Pages that were retired after hmm_devmem_txn_copy_wait() has looked for such have become
 * a process's, and hmm_devmem_poison() does not know. Take references to their folios.
 * Returns how many there are, in the memory of the runs.
 */
static noinline unsigned int txn_hold_retired(struct hmm_devmem_txn *txn, struct folio **held)
{
	struct hmm_devmem_pool *pool = priv(txn->devmem)->pool;
	unsigned int i, nr, n = 0;
	unsigned long pfn, end;

	for (i = 0; i < txn->nr; i += nr) {
		nr = txn_dst_nr(txn, i);
		if (!txn_entry_committed(txn, i))
			continue;
		pfn = txn->dst[i] >> MIGRATE_PFN_SHIFT;
		for (end = pfn + nr; pfn < end && !hmm_devmem_pool_retired(pool, pfn); pfn++)
			;
		if (pfn == end)
			continue;
		held[n] = pfn_folio(pfn);
		folio_get(held[n++]);
	}
	return n;
}

/**
 * hmm_devmem_txn_commit() - Let core move pages with a destination, and finalize
 * @txn: The transaction, after hmm_devmem_txn_copy_wait(); or no copy was started, and
 *	no page has a destination.
 *
 * The second half of every transaction. hmm_devmem_txn_moved() tells afterwards
 * which pages have moved, until @txn is given back.
 *
 * Context: Process context, may sleep. Afterwards no page of @txn is locked, except the
 * one that a CPU fault is about.
 * Return: Number of pages that have moved.
 */
unsigned long hmm_devmem_txn_commit(struct hmm_devmem_txn *txn)
{
	/* In the memory of the runs, which are not needed any more; see static_assert(). */
	struct folio **held = (void *)txn->runs;
	unsigned int nr_held = 0;
	unsigned long moved;

	if (txn->vma)
		migrate_vma_pages(&txn->mig);
	else
		migrate_device_pages(txn->src, txn->dst, txn->nr);
	moved = txn_nr_committed(txn);
	if (txn->to) {
		txn_map(txn);
		/* Pairs with hmm_devmem_poison_page(), which looks if the page has moved. */
		smp_mb();
		if (hmm_devmem_pool_any_retired(priv(txn->to)->pool))
			nr_held = txn_hold_retired(txn, held);
	}
	if (txn->vma) {
		migrate_vma_finalize(&txn->mig);
	} else {
		migrate_device_finalize(txn->src, txn->dst, txn->nr);
		hmm_devmem_txn_put_mappings(txn);
	}
	while (nr_held)
		hmm_devmem_poison_folio(txn->devmem, held[--nr_held]);
	hmm_devmem_count(txn->devmem, txn->to ? HMM_DEVMEM_MOVED_TO_DEVICE :
						HMM_DEVMEM_MOVED_TO_RAM, moved);
	return moved;
}

/**
 * hmm_devmem_txn_has_dst() - Has a page a destination?
 * @txn: The transaction.
 * @i: Its entry. All pages of a large destination have the same result.
 *
 * Context: Any context.
 * Return: True if it has, and no copy of it has failed.
 */
bool hmm_devmem_txn_has_dst(const struct hmm_devmem_txn *txn, unsigned int i)
{
	return txn->dst[txn_dst_is_large(txn) ? 0 : i];
}

/**
 * hmm_devmem_txn_moved() - Has a page moved?
 * @txn: The transaction, after hmm_devmem_txn_commit().
 * @i: Its entry, as for hmm_devmem_txn_has_dst().
 *
 * Context: Any context.
 * Return: True if it has.
 */
bool hmm_devmem_txn_moved(const struct hmm_devmem_txn *txn, unsigned int i)
{
	return txn_entry_committed(txn, txn_dst_is_large(txn) ? 0 : i);
}

/**
 * hmm_devmem_txn_nr_dst() - Number of pages that have a destination
 * @txn: The transaction.
 *
 * Context: Any context.
 * Return: Number of pages.
 */
unsigned long hmm_devmem_txn_nr_dst(const struct hmm_devmem_txn *txn)
{
	unsigned int i, nr = 0;

	if (txn_dst_is_large(txn))
		return HMM_DEVMEM_BLOCK_NR;
	for (i = 0; i < txn->nr; i++)
		nr += !!txn->dst[i];
	return nr;
}

/**
 * hmm_devmem_txn_nr_unfilled() - Number of pages that core has not filled in
 * @txn: A transaction to the device, after hmm_devmem_txn_commit().
 *
 * Context: Any context.
 * Return: How many pages the process did not have, and does not get although a
 * destination was ready: core had no memory, or the process has one meanwhile.
 */
unsigned long hmm_devmem_txn_nr_unfilled(const struct hmm_devmem_txn *txn)
{
	unsigned int i, nr;
	unsigned long unfilled = 0;

	for (i = 0; i < txn->nr; i += nr) {
		nr = txn_dst_nr(txn, i);
		if (txn->dst[i] && !txn_entry_committed(txn, i) &&
		    !(txn->src[i] & MIGRATE_PFN_VALID))
			unfilled += nr;
	}
	return unfilled;
}

/**
 * hmm_devmem_txn_note_pages() - Note which pages have moved to the device
 * @txn: A transaction to the device, after hmm_devmem_txn_commit().
 * @pages: Bitmap with a bit for each page of the device, which are set.
 *
 * Context: Any context.
 */
void hmm_devmem_txn_note_pages(const struct hmm_devmem_txn *txn,
			       unsigned long *pages)
{
	unsigned int i, nr;

	for (i = 0; i < txn->nr; i += nr) {
		nr = txn_dst_nr(txn, i);
		if (txn_entry_committed(txn, i))
			hmm_devmem_note_pages(txn->devmem, pages,
					      txn->dst[i] >> MIGRATE_PFN_SHIFT,
					      nr);
	}
}

/**
 * hmm_devmem_txn_init() - Set up the reserves
 *
 * Context: Process context, once at boot.
 * Return: 0 or -ENOMEM.
 */
int __init hmm_devmem_txn_init(void)
{
	small_pool = mempool_create(HMM_DEVMEM_TXN_RESERVE, hmm_devmem_txn_pool_alloc,
				    txn_pool_free, (void *)HMM_DEVMEM_SMALL_NR);
	large_pool = mempool_create(HMM_DEVMEM_TXN_RESERVE, hmm_devmem_txn_pool_alloc,
				    txn_pool_free, (void *)HMM_DEVMEM_BLOCK_NR);
	return small_pool && large_pool ? 0 : -ENOMEM;
}
