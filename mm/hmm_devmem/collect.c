// SPDX-License-Identifier: GPL-2.0
/*
 * The first step of a transaction: core collects pages, by virtual address or by pfn.
 */

/**
 * DOC: Collection
 *
 * Core collects pages in two ways: by virtual address, which needs a vma and the mmap
 * lock, and by pfn, which needs neither and finds the mappings by rmap. A CPU fault and
 * the migration of a range collect by virtual address, an eviction by pfn. Either way
 * core has locked and unmapped the pages that it has collected.
 *
 * Pages are collected by the *window*: 2 MiB, or what the parameter
 * ``hmm_devmem.window_kb`` says (on the kernel's command line, or in sysfs) if that is
 * less, but not more than a block. Where a block is larger than a window, large folios are
 * split before they move, in either direction: the library allocates none on the device
 * then, but drivers can, and those from before ``window_kb`` was lowered still exist.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/kstrtox.h>
#include <linux/log2.h>
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmdebug.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sizes.h>
#include <linux/string.h>

#include "../internal.h"
#include "collect.h"
#include "devmem.h"
#include "txn.h"

/*
 * While a window is copied the process can neither touch its pages nor change its
 * mappings: at 10 GB/s, 2 MiB take a fifth of a millisecond. A PMD entry can map much more
 * (512 MiB on arm64 with pages of 64 KiB).
 */
#define HMM_DEVMEM_WINDOW_MAX	SZ_2M

unsigned long hmm_devmem_max_window __read_mostly = HMM_DEVMEM_WINDOW_MAX >> PAGE_SHIFT;

static int set_window_kb(const char *text, const struct kernel_param *param)
{
	unsigned int kb;
	int ret = kstrtouint(text, 0, &kb);

	if (ret)
		return ret;
	if (kb < PAGE_SIZE / SZ_1K || kb > HMM_DEVMEM_WINDOW_MAX / SZ_1K ||
	    !is_power_of_2(kb))
		return -EINVAL;
	WRITE_ONCE(hmm_devmem_max_window, (unsigned long)kb * SZ_1K >> PAGE_SHIFT);
	return 0;
}

static int get_window_kb(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%lu\n", hmm_devmem_max_window * (PAGE_SIZE / SZ_1K));
}

static const struct kernel_param_ops window_kb_ops = {
	.set = set_window_kb,
	.get = get_window_kb,
};
module_param_cb(window_kb, &window_kb_ops, NULL, 0644);
MODULE_PARM_DESC(window_kb, "How much is migrated at once, KiB");

/**
 * hmm_devmem_txn_collect_vma() - Collect what can move, by virtual address
 * @txn: The transaction, with its vma and start.
 * @end: User virtual address, exclusive.
 * @owner: The owner of device pages to collect: &migrate_vma.pgmap_owner.
 * @flags: What to collect: &migrate_vma.flags.
 * @fault_page: The page that a CPU fault is about, or NULL: &migrate_vma.fault_page.
 *
 * Context: Process context, may sleep. The caller holds the mmap lock for reading.
 * Return: 1 if anything was collected: then hmm_devmem_txn_commit() must follow. 0 if
 * nothing was, or an errno from core's migrate_vma_setup().
 */
int hmm_devmem_txn_collect_vma(struct hmm_devmem_txn *txn, unsigned long end,
			       void *owner, unsigned long flags,
			       struct page *fault_page)
{
	int ret;

	/* List all fields: to clear the structure first would double the time of this. */
	txn->mig = (struct migrate_vma) {
		.vma = txn->vma,
		.dst = txn->dst,
		.src = txn->src,
		.cpages = 0,
		.npages = 0,
		.start = txn->start,
		.end = end,
		.pgmap_owner = owner,
		.flags = flags,
		.fault_page = fault_page,
	};
	ret = migrate_vma_setup(&txn->mig);
	VM_WARN_ON_ONCE(txn->mig.npages > (end - txn->start) >> PAGE_SHIFT);
	txn->nr = ret ? 0 : txn->mig.npages;
	return ret ?: txn->mig.cpages > 0;
}

/*
 * The anon_vma of @page, with a reference; NULL if no process maps it, or its folio is
 * locked. @block is set if @page is the first one of a large folio.
 */
static struct anon_vma *get_mapping(struct page *page, bool *block)
{
	struct folio *folio = page_folio(page);
	struct anon_vma *anon_vma = NULL;

	*block = false;
	if (!folio_try_get(folio))
		return NULL;
	if (folio_trylock(folio)) {
		/* A free page can still point to the folio that it was a part of. */
		if (folio == page_folio(page) && folio_test_anon(folio) &&
		    page_to_pfn(page) - folio_pfn(folio) < folio_nr_pages(folio))
			anon_vma = folio_get_anon_vma(folio);
		*block = anon_vma && page == &folio->page &&
			 folio_order(folio) == HMM_DEVMEM_BLOCK_ORDER;
		folio_unlock(folio);
	}
	folio_put(folio);
	return anon_vma;
}

/*
 * Hold the anon_vma of each page: place.c chooses a NUMA node by it, and use.c the name by
 * which data that was evicted is recognised when it returns. Leave out pages without one:
 * they hold no data of a process.
 */
static void hold_mappings(struct hmm_devmem_txn *txn)
{
	unsigned int i, n, size, nr = 0;
	struct anon_vma *anon_vma;
	bool block;

	for (i = 0; i < txn->nr; i += size) {
		size = 1;
		anon_vma = get_mapping(pfn_to_page(txn->src[i]), &block);
		if (!anon_vma)
			continue;
		/* The folio is a whole block, so all further entries are pages of it. */
		if (block)
			size = txn->nr - i;
		for (n = 0; n < size; n++, nr++) {
			txn->src[nr] = txn->src[i + n];
			txn->mappings[nr] = n ? NULL : anon_vma;
		}
	}
	txn->nr = nr;
}

/* Tests replace this, to change which pages are in use before core locks them. */
VISIBLE_IF_KUNIT void hmm_devmem_collect_pfns(unsigned long *pfns, unsigned int nr)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_collect_pfns, pfns, nr);
	migrate_device_pfns(pfns, nr);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_collect_pfns);

/*
 * Skip device pages that hold no data of a process because they were allocated and not used
 * yet. Core collects these pages, too, but they are not charged to a memory cgroup, and core
 * cannot handle a system page that replaces one without a charge.
 */
static void spare_orphans(struct hmm_devmem_txn *txn)
{
	unsigned int i;

	if (mem_cgroup_disabled())
		return;
	for (i = 0; i < txn->nr; i++) {
		struct page *page = migrate_pfn_to_page(txn->src[i]);

		if (page && !folio_memcg_charged(page_folio(page)))
			txn->src[i] &= ~MIGRATE_PFN_MIGRATE;
	}
}

/*
 * Has the process dropped pages of a large folio? A split frees these. Core has a list of
 * such folios to split when memory is short, but only for folios of system memory.
 */
static bool is_partly_mapped(const struct folio *folio)
{
	return folio_mapcount(folio) < folio_nr_pages(folio) && !folio_entire_mapcount(folio);
}

/**
 * hmm_devmem_split_large_folio() - Split a large folio before it is collected by pfn
 * @pfn: Any page of the device, in use or not; its struct page cannot go away.
 * @always: Split it even if all of it is mapped.
 *
 * Context: Process context, may sleep. Does not wait for the lock of the folio.
 * Return: True if there was a large folio, and it was split.
 */
bool hmm_devmem_split_large_folio(unsigned long pfn, bool always)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *folio = page_folio(page);
	int ret = -EAGAIN;

	if (!PageCompound(page) || !folio_try_get(folio))
		return false;
	if (folio == page_folio(page) && folio_trylock(folio)) {
		/* A folio that a driver has allocated and not mapped is not anon. */
		if (folio_test_large(folio) && folio_test_anon(folio) &&
		    (always || is_partly_mapped(folio)))
			ret = split_folio(folio);
		folio_unlock(folio);
	}
	folio_put(folio);
	return !ret;
}

/**
 * hmm_devmem_txn_collect_pfns() - Collect what can move, by pfn
 * @txn: The transaction, with @txn->nr pfns of device pages in its @txn->src.
 *
 * Leaves out pages that no process maps: @txn->nr can be less afterwards, even 0.
 * Unless it is 0, hmm_devmem_txn_commit() must follow.
 *
 * Context: Process context, may sleep. The struct pages cannot go away meanwhile.
 */
void hmm_devmem_txn_collect_pfns(struct hmm_devmem_txn *txn)
{
	hold_mappings(txn);
	if (!txn->nr)
		return;
	memset(txn->dst, 0, txn->nr * sizeof(*txn->dst));
	hmm_devmem_collect_pfns(txn->src, txn->nr);
	spare_orphans(txn);
}

/**
 * hmm_devmem_txn_put_mappings() - Drop what hmm_devmem_txn_collect_pfns() holds
 * @txn: The transaction, after core has finalized it.
 *
 * Context: Process context.
 */
void hmm_devmem_txn_put_mappings(struct hmm_devmem_txn *txn)
{
	unsigned int i;

	for (i = 0; i < txn->nr; i++)
		if (txn->mappings[i])
			put_anon_vma(txn->mappings[i]);
}

/**
 * hmm_devmem_txn_nr_collected() - Number of pages that core has collected
 * @txn: The transaction, before core has committed it.
 *
 * Context: Any context.
 * Return: Number of pages.
 */
unsigned long hmm_devmem_txn_nr_collected(const struct hmm_devmem_txn *txn)
{
	unsigned int i, nr = 0;

	if (txn_is_compound(txn))
		return txn->src[0] & MIGRATE_PFN_MIGRATE ? HMM_DEVMEM_BLOCK_NR : 0;
	for (i = 0; i < txn->nr; i++)
		nr += !!(txn->src[i] & MIGRATE_PFN_MIGRATE);
	return nr;
}
