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
 * *Collect* is core's: it locks and unmaps the pages that can be moved. *Allocate*
 * gives each of them a destination, or does not: pages without one stay where
 * they are, and that is no error. *Copy* tells the driver about the pages in runs
 * as long as possible. Pages for which the *status* is not success lose their
 * destination there and then, before core could see it. So after *commit* a page
 * that has a destination has its data there, and the driver gets only such pages to
 * *map*. *Finalize* is core's again and always called once pages were collected;
 * there is no other way out of a transaction.
 *
 * The pages to copy are taken from the arrays that core filled when it collected,
 * and never from the page that a CPU fault was about: core may have split its folio.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/mempool.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include "collect.h"
#include "devmem.h"
#include "dma.h"
#include "fail.h"
#include "folio.h"
#include "mirror.h"
#include "place.h"
#include "pool.h"
#include "stats.h"
#include "txn.h"

/*
 * Transactions come in two sizes, so that most CPU faults do with one page of
 * memory. Each size has a reserve, because an eviction must not fail for want of
 * memory for the arrays. Never wait for a transaction with a folio locked: core waits
 * for that lock when it splits a folio for another transaction, so the two could wait for
 * each other. A CPU fault has a folio locked, so it never waits for a transaction.
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
	txn->window = NULL;
	txn->start = 0;
	txn->nr = nr;
	txn->short_of_memory = false;
	txn->in_fault = false;
	txn->no_memory = false;
	txn->must_split = false;
	txn->unmapped = false;
	/* All fields: to clear them first would cost each fault as much again. */
	txn->copy = (struct hmm_devmem_copy) {
		.dir = HMM_DEVMEM_TO_DEVICE,
		.nr_runs = 0,
		.runs = txn->runs,
		.nr_entries = 0,
		.entries = NULL,
		.context = NULL,
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
 * @devmem: The device memory whose pages it moves.
 * @nr: For how many pages, at most %HMM_DEVMEM_BLOCK_NR.
 *
 * Context: Process context, may sleep until another transaction has ended. The caller
 * has neither another transaction nor a folio lock.
 * Return: The transaction; never NULL. Give it back with hmm_devmem_txn_put().
 */
struct hmm_devmem_txn *hmm_devmem_txn_get(struct hmm_devmem *devmem,
					  unsigned int nr)
{
	return txn_start(mempool_alloc(txn_pool(nr), GFP_KERNEL), devmem, nr);
}

/**
 * hmm_devmem_txn_tryget() - Get a second transaction
 * @devmem: The device memory whose pages it moves.
 * @nr: For how many pages, at most %HMM_DEVMEM_BLOCK_NR.
 *
 * For a caller that has one already, and must not wait: another one could do the same,
 * and wait for this one.
 *
 * Context: Any context.
 * Return: The transaction, or NULL if there is no memory.
 */
struct hmm_devmem_txn *hmm_devmem_txn_tryget(struct hmm_devmem *devmem,
					     unsigned int nr)
{
	struct hmm_devmem_txn *txn;

	txn = mempool_alloc(txn_pool(nr), GFP_NOWAIT);
	return txn ? txn_start(txn, devmem, nr) : NULL;
}

/**
 * hmm_devmem_txn_get_locked() - Get a transaction with a folio locked
 * @devmem: The device memory whose pages it moves.
 * @nr: For how many pages, at most %HMM_DEVMEM_BLOCK_NR.
 *
 * Context: Process context, may sleep, but not until another transaction has ended.
 * Return: The transaction, or NULL if there is no memory.
 */
struct hmm_devmem_txn *hmm_devmem_txn_get_locked(struct hmm_devmem *devmem,
						 unsigned int nr)
{
	const size_t max = nr <= HMM_DEVMEM_SMALL_NR ? HMM_DEVMEM_SMALL_NR :
						       HMM_DEVMEM_BLOCK_NR;
	struct hmm_devmem_txn *txn;

	/* Not from the mempool, which can take it as its reserve when it is freed. */
	txn = txn_pool_alloc(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN,
			     (void *)max);
	return txn ? txn_start(txn, devmem, nr) : hmm_devmem_txn_tryget(devmem, nr);
}

/**
 * hmm_devmem_txn_init_one() - Set up a transaction of one page
 * @one: Memory for it.
 * @devmem: The device memory whose page it moves.
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
	mempool_free(txn, txn_pool(txn->max));
}

/* Has core collected all of the window as one entry: a large folio or a hole? */
static bool txn_is_compound(const struct hmm_devmem_txn *txn)
{
	return txn->src[0] & MIGRATE_PFN_COMPOUND;
}

static bool txn_is_large_hole(const struct hmm_devmem_txn *txn)
{
	return txn_is_compound(txn) && !migrate_pfn_to_page(txn->src[0]);
}

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
 * For a large hole, core wants all pages or crashes: drop all if one is missing.
 * Returns whether it has dropped them.
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

static unsigned long txn_addr(const struct hmm_devmem_txn *txn, unsigned int i)
{
	return txn->vma ? txn->start + ((unsigned long)i << PAGE_SHIFT) : 0;
}

/* The pfn of the source at entry @i; 0, which is no process's page, for a hole. */
static unsigned long txn_src_pfn(const struct hmm_devmem_txn *txn,
				 unsigned int i, bool compound)
{
	const unsigned long src = txn->src[compound ? 0 : i];

	if (!(src & MIGRATE_PFN_VALID))
		return 0;
	return (src >> MIGRATE_PFN_SHIFT) + (compound ? i : 0);
}

static __always_inline struct hmm_devmem_run *
run_start(struct hmm_devmem_txn *txn, unsigned int i, unsigned long src,
	  unsigned long dst)
{
	const bool to_device = txn->copy.dir == HMM_DEVMEM_TO_DEVICE;
	const unsigned long device = to_device ? dst : src;
	const unsigned long ram = to_device ? src : dst;
	struct hmm_devmem_run *run = &txn->runs[txn->copy.nr_runs++];

	run->device = pfn_to_page(device);
	run->offset = (u64)(device - txn->devmem->pfn_first) << PAGE_SHIFT;
	run->ram = ram ? pfn_to_page(ram) : NULL;
	run->addr = txn_addr(txn, i);
	run->nr_pages = 1;
	run->error = 0;
	return run;
}

/*
 * Make one run of pages that are contiguous on both sides, and in the process as
 * well. If the device can map only a part of it for DMA, make several.
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

static bool txn_dst_is_large(const struct hmm_devmem_txn *txn)
{
	return txn->dst[0] & MIGRATE_PFN_COMPOUND;
}

/*
 * Make pages stay whose run could not be copied; of a large folio, all pages stay if
 * one run could not be copied. A function of its own, as some below, so that the
 * common case needs few registers.
 */
static noinline unsigned int txn_drop_failed_runs(struct hmm_devmem_txn *txn)
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

/* Remove runs that could not be mapped for DMA: the driver does not see them. */
static noinline void txn_forget_failed_runs(struct hmm_devmem_txn *txn)
{
	unsigned int r, nr = 0, pages = 0, failed;

	for (r = 0; r < txn->copy.nr_runs; r++)
		pages += txn->runs[r].nr_pages;
	failed = txn_drop_failed_runs(txn);
	hmm_devmem_count(txn->devmem, HMM_DEVMEM_COPY_ERRORS, failed);
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
	return txn->copy.dir == HMM_DEVMEM_TO_DEVICE ?
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
	if (priv(devmem)->dma_device && txn->copy.nr_runs &&
	    !hmm_devmem_dma_map(txn))
		txn_forget_failed_runs(txn);
	txn->copy.driver_private = NULL;
	txn->status = txn->copy.nr_runs ? txn_call_copy(txn) : 0;
	txn->started = txn->copy.nr_runs && !txn->status;
}

/* Drop device pages that were retired since their allocation: they hold no data. */
static noinline void txn_drop_retired(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem_pool *pool = priv(txn->devmem)->pool;
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
}

/**
 * hmm_devmem_txn_copy_wait() - Wait until a copy is over
 * @txn: The transaction; entries whose copy failed lose their destination.
 *
 * Context: Process context, may sleep. Source and destination are locked.
 * Return: 0, or an errno if at least one page could not be copied: that of the copy,
 * else that of the first run that failed; -EAGAIN if the driver was not asked
 * because the page could not be mapped for DMA.
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
		hmm_devmem_count(devmem, HMM_DEVMEM_COPY_ERRORS,
				 txn_drop_failed_runs(txn));
	if (txn->copy.dir == HMM_DEVMEM_TO_DEVICE &&
	    hmm_devmem_pool_any_retired(priv(devmem)->pool))
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
	/* Use the memory of the runs, which are not needed any more; it is enough. */
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
	const bool to_device = txn->copy.dir == HMM_DEVMEM_TO_DEVICE;
	unsigned long moved;

	if (txn->vma)
		migrate_vma_pages(&txn->mig);
	else
		migrate_device_pages(txn->src, txn->dst, txn->nr);
	moved = txn_nr_committed(txn);
	if (to_device)
		txn_map(txn);
	if (txn->vma) {
		migrate_vma_finalize(&txn->mig);
	} else {
		migrate_device_finalize(txn->src, txn->dst, txn->nr);
		hmm_devmem_txn_put_mappings(txn);
	}
	hmm_devmem_count(txn->devmem, to_device ? HMM_DEVMEM_MOVED_TO_DEVICE :
						  HMM_DEVMEM_MOVED_TO_RAM, moved);
	return moved;
}

/**
 * hmm_devmem_txn_has_dst() - Has a page a destination?
 * @txn: The transaction.
 * @i: Its entry. A page of a large folio need not have an entry of its own in @txn.
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

/*
 * Core cannot tell a hole from a zero page, and maps the page that takes its place
 * with all access that the mapping allows. That loses userfaultfd's write protection
 * of a zero page: the next write would not be reported. And missing pages have to be
 * reported to userfaultfd. Memory that the process cannot access needs no pages.
 */
static bool may_fill_holes(struct vm_area_struct *vma)
{
	return !userfaultfd_armed(vma) && vma_is_accessible(vma);
}

/* Can entry @i move to the device? With @fill, a hole can. */
static bool can_go_to_device(const struct hmm_devmem_txn *txn, unsigned int i,
			     bool fill)
{
	struct page *page = migrate_pfn_to_page(txn->src[i]);

	if (!(txn->src[i] & MIGRATE_PFN_MIGRATE))
		return false;
	if (!page)
		return fill;
	return PageAnon(page) && !is_zone_device_page(page) &&
	       hmm_devmem_dma_reaches(txn->devmem, page_to_phys(page), PAGE_SIZE);
}

/*
 * Allocate a device folio for all of a window that core collected as one entry. Core
 * does so with every hole that is large enough, also where the process has asked for
 * no huge pages.
 */
static bool alloc_large_device_folio(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;
	unsigned long pfn;

	if (txn_is_large_hole(txn) &&
	    !thp_vma_allowable_order(txn->vma, txn->vma->vm_flags,
				     TVA_PAGEFAULT, HMM_DEVMEM_BLOCK_ORDER))
		return false;
	if (hmm_devmem_should_fail(devmem, HMM_DEVMEM_FAIL_DEVICE_LARGE) ||
	    hmm_devmem_pool_alloc(priv(devmem)->pool, HMM_DEVMEM_BLOCK_ORDER, &pfn))
		return false;
	hmm_devmem_init_folio(devmem, pfn, HMM_DEVMEM_BLOCK_ORDER,
			      txn->copy.context);
	memset(txn->dst, 0, txn->nr * sizeof(txn->dst[0]));
	txn->dst[0] = migrate_pfn(pfn) | MIGRATE_PFN_COMPOUND;
	return true;
}

/*
 * Set the entries of @dst that are to get a device page to 1, the others to 0. If
 * core collected the window as one entry, all pages are wanted, or none.
 */
static unsigned int mark_wanted(struct hmm_devmem_txn *txn)
{
	const bool compound = txn_is_compound(txn);
	const bool fill = may_fill_holes(txn->vma);
	unsigned int i, nr = 0;

	for (i = 0; i < txn->nr; i++) {
		txn->dst[i] = compound && i ? txn->dst[0] :
					      can_go_to_device(txn, i, fill);
		nr += txn->dst[i];
	}
	return nr;
}

/* Make folios of @nr free pages, for the entries that want one. */
static void spread_device_pages(struct hmm_devmem_txn *txn,
				const unsigned long *pfns, unsigned int nr)
{
	unsigned int i, used = 0;

	hmm_devmem_init_pages(txn->devmem, pfns, nr, txn->copy.context);
	for (i = 0; i < txn->nr; i++)
		if (txn->dst[i])
			txn->dst[i] = used < nr ? migrate_pfn(pfns[used++]) : 0;
}

static void put_device_pages(struct hmm_devmem_txn *txn,
			     const unsigned long *pfns, unsigned int nr)
{
	while (nr)
		hmm_devmem_pool_free(priv(txn->devmem)->pool, pfns[--nr], 0);
}

/**
 * hmm_devmem_txn_alloc_device() - Allocate device memory for the pages collected
 * @txn: The transaction. Pages for which there is no memory get no destination. Sets
 *	&hmm_devmem_txn.must_split if there are only small device pages for a window
 *	that was collected as one entry.
 *
 * Context: Process context.
 */
void hmm_devmem_txn_alloc_device(struct hmm_devmem_txn *txn)
{
	struct hmm_devmem *devmem = txn->devmem;
	/* Use the memory of the runs, which are not needed yet; it is enough. */
	unsigned long *pfns = (void *)txn->runs;
	unsigned int got, wanted;

	wanted = mark_wanted(txn);
	if (!wanted || (txn_is_compound(txn) && alloc_large_device_folio(txn)))
		return;
	got = hmm_devmem_should_fail(devmem, HMM_DEVMEM_FAIL_DEVICE) ? 0 :
	      hmm_devmem_pool_alloc_bulk(priv(devmem)->pool, wanted, pfns);
	txn->short_of_memory = got < wanted;
	/*
	 * Split a folio only if a part of it can move then. A large hole can be
	 * filled with small pages, but core wants all of them or crashes.
	 */
	if (txn_is_compound(txn) && !(txn_is_large_hole(txn) && got == wanted))
		txn->must_split = got;
	if (txn->must_split) {
		put_device_pages(txn, pfns, got);
		got = 0;
	}
	spread_device_pages(txn, pfns, got);
}

/*
 * How hard to look for a large folio: as core does for a huge page of the mapping,
 * by the administrator's choice (thp/defrag) and the process's. An eviction has no
 * mapping, and takes a folio only if one is free: the device folio can be split.
 */
static gfp_t large_ram_gfp(const struct hmm_devmem_txn *txn)
{
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) || !txn->vma)
		return GFP_TRANSHUGE_LIGHT;
	return vma_thp_gfp_mask(txn->vma);
}

/*
 * How hard to look for system memory. A CPU fault waits for page @first, and gets it like
 * any other page: if need be, a process is killed for it. Everything else that brings
 * pages back can leave them where they are. No memory cgroup is asked: a migration
 * hands on the charge that the device page has.
 */
static gfp_t ram_gfp(const struct hmm_devmem_txn *txn, unsigned int order,
		     bool first)
{
	const gfp_t gfp = hmm_devmem_dma_ram_gfp(txn->devmem);

	if (order)
		return (large_ram_gfp(txn) & ~GFP_ZONEMASK) | (gfp & GFP_ZONEMASK);
	if (!first)
		return gfp | __GFP_NORETRY | __GFP_NOWARN;
	return txn->in_fault ? gfp : gfp | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
}

/* Allocate system memory for a device page, on the node that its mapping wants. */
static struct folio *alloc_ram(const struct hmm_devmem_txn *txn,
			       unsigned int i, unsigned int order, gfp_t gfp)
{
	if (!txn->vma)
		return hmm_devmem_alloc_evicted(migrate_pfn_to_page(txn->src[i]),
						txn->mappings[i], order, gfp);
	return vma_alloc_folio(gfp, order, txn->vma, txn_addr(txn, i));
}

static __always_inline bool alloc_ram_entry(struct hmm_devmem_txn *txn,
					    unsigned int i, unsigned int order,
					    bool first)
{
	struct folio *folio;

	if (hmm_devmem_should_fail(txn->devmem,
				   order ? HMM_DEVMEM_FAIL_RAM_LARGE :
					   HMM_DEVMEM_FAIL_RAM))
		return false;
	folio = alloc_ram(txn, i, order, ram_gfp(txn, order, first));
	if (!folio)
		return false;
	__folio_set_locked(folio);
	txn->dst[i] = migrate_pfn(folio_pfn(folio));
	if (order)
		txn->dst[i] |= MIGRATE_PFN_COMPOUND;
	return true;
}

/*
 * Is entry @i a page of this device that can move? @compound: the window was
 * collected as one entry.
 */
static __always_inline bool can_go_to_ram(const struct hmm_devmem_txn *txn,
					  unsigned int i, bool compound)
{
	const unsigned long pfn = txn_src_pfn(txn, i, compound);

	if (!(txn->src[compound ? 0 : i] & MIGRATE_PFN_MIGRATE))
		return false;
	/* Peers have the same owner, so core collects their pages as well. */
	return hmm_devmem_has_pfn(txn->devmem, pfn) &&
	       !hmm_devmem_pool_retired(priv(txn->devmem)->pool, pfn);
}

/* Can all pages of a window that was collected as one entry go to system memory? */
static bool txn_is_whole(const struct hmm_devmem_txn *txn)
{
	unsigned int i;

	if (likely(!hmm_devmem_pool_any_retired(priv(txn->devmem)->pool)))
		return can_go_to_ram(txn, 0, true);
	for (i = 0; i < txn->nr; i++)
		if (!can_go_to_ram(txn, i, true))
			return false;
	return true;
}

/**
 * hmm_devmem_txn_alloc_ram() - Allocate system memory for the pages collected
 * @txn: The transaction.
 * @first: An entry that is served before all others; they are only tried for
 *	if that succeeds, and only as long as memory is easily had.
 *
 * A large folio goes to a large one or stays: core must not split it while it moves. Only
 * the page that a CPU fault waits for is worth that another process is killed.
 *
 * Context: Process context, may sleep.
 * Return: False if there is no memory for @first, or for a large folio; then
 * &hmm_devmem_txn.must_split is set. True does not mean that @first can move: it
 * may not have been collected.
 */
bool hmm_devmem_txn_alloc_ram(struct hmm_devmem_txn *txn, unsigned int first)
{
	unsigned int i;

	if (txn_is_compound(txn)) {
		/* Do not split a large folio of a peer. */
		if (!(txn->src[0] & MIGRATE_PFN_MIGRATE) ||
		    !hmm_devmem_has_pfn(txn->devmem, txn_src_pfn(txn, 0, true)))
			return true;
		txn->must_split = !txn_is_whole(txn) ||
				  !alloc_ram_entry(txn, 0, HMM_DEVMEM_BLOCK_ORDER,
						   true);
		return !txn->must_split;
	}
	if (can_go_to_ram(txn, first, false) &&
	    !alloc_ram_entry(txn, first, 0, true))
		return false;
	if (txn->nr == 1)
		return true;
	for (i = 0; i < txn->nr; i++)
		if (!txn->dst[i] && can_go_to_ram(txn, i, false) &&
		    !alloc_ram_entry(txn, i, 0, false))
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
