// SPDX-License-Identifier: GPL-2.0
/*
 * Between struct dev_pagemap_ops, which core calls, and struct hmm_devmem_ops,
 * which drivers implement.
 */

/**
 * DOC: Pages
 *
 * Core finds the owner of a device page by the struct dev_pagemap of its folio.
 * Ours is part of a struct hmm_devmem_segment, which knows the devmem.
 *
 * The one word that core leaves to the owner of a device page, zone_device_data,
 * holds the driver's drvdata in a classic devmem, one for each page. In a managed
 * devmem it holds, in the first page of each folio, the context that the folio
 * was allocated with. The folio has a reference on it, which is dropped when the
 * folio is freed or when the driver goes away, whichever is first: both take the
 * word out with xchg(), so that exactly one of them drops it. RCU keeps the driver
 * until the other one, who may be about to, has done it. The parts of a folio that
 * core splits share its context, but get none from the moment on that a driver goes
 * away: core splits with interrupts off, so RCU tells when the last of the splits
 * that began before has ended.
 *
 * The folio of a managed devmem is dirty from the moment it is allocated. No page
 * table of the CPU sees what the device writes, so the process's entry for the page
 * stays clean. Core copies the flag to whatever the folio is migrated to, by
 * whomever, so that what the device wrote is neither dropped because MADV_FREE was
 * called before nor taken for what swap still has.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/export.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/percpu-rwsem.h>
#include <linux/rcupdate.h>
#include <linux/vmstat.h>

#include <trace/events/hmm_devmem.h>

#include "internal.h"

/* How often struct pages are created for one allocation, if others are faster. */
#define HMM_DEVMEM_GROW_TRIES		8

static struct hmm_devmem_segment *folio_segment(const struct folio *folio)
{
	return hmm_devmem_pagemap_segment(folio->pgmap);
}

static noinline void put_context_of(struct page *page)
{
	/* See hmm_devmem_segments_release(). */
	guard(rcu)();
	hmm_devmem_context_put(xchg(&page->zone_device_data, NULL));
}

/**
 * hmm_devmem_page_drop_context() - A device page forgets its context
 * @page: First page of a folio of a managed devmem.
 *
 * Context: Any context in which a folio can be freed.
 */
void hmm_devmem_page_drop_context(struct page *page)
{
	if (READ_ONCE(page->zone_device_data))
		put_context_of(page);
}

static noinline void call_free(struct hmm_devmem_segment *segment,
			       struct page *page)
{
	struct hmm_devmem *devmem = segment->devmem;

	/* Fails only when the driver has gone, and its ops with it. */
	if (!hmm_devmem_ref_tryget(devmem)) {
		hmm_devmem_segment_page_freed(segment);
		return;
	}
	devmem->ops->free(devmem, page);
	hmm_devmem_ref_put(devmem);
}

static __always_inline void free_pages_of(struct hmm_devmem *devmem,
					  struct folio *folio,
					  unsigned int order)
{
	const unsigned long pfn = folio_pfn(folio);

	trace_hmm_devmem_free(pfn, order);
	/* Who has no context is not to pay for a call. */
	if (READ_ONCE(folio->page.zone_device_data))
		put_context_of(&folio->page);
	hmm_devmem_count(devmem, HMM_DEVMEM_FREED, 1UL << order);
	if (order)
		hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, 1UL << order);
	/* From here on another allocation can have the page. */
	hmm_devmem_alloc_put(devmem->alloc, pfn, order);
}

/*
 * The flag of a page that was mlocked when it came here, and is not any more, is left
 * to whoever frees the page: for all others that is the page allocator, which takes it
 * out of the count. The next user of a device page would find the flag set.
 */
static void forget_mlock(struct folio *folio)
{
	if (folio_test_clear_mlocked(folio))
		zone_stat_mod_folio(folio, NR_MLOCK, -folio_nr_pages(folio));
}

/*
 * What the page allocator clears before it gives a page to its next user. Core does not
 * when it gives out a device page, but for the lowest byte, and yet migrates these flags
 * with whatever comes to the page: what it thought of the last user's page would be
 * said of the next one's. All pages of ZONE_DEVICE are reserved.
 */
#define FLAGS_OF_USER (PAGE_FLAGS_CHECK_AT_PREP & ~(0xffUL | BIT(PG_reserved)))

/* Nobody else has the folio any more. */
static void forget_flags(struct folio *folio)
{
	folio->flags.f &= ~FLAGS_OF_USER;
	/* The order is needed still. */
	if (folio_test_large(folio))
		folio_page(folio, 1)->flags.f &= ~(PAGE_FLAGS_SECOND & ~0xffUL);
}

/* All but the common case, which needs few registers without this. */
static noinline void free_special(struct hmm_devmem *devmem, struct folio *folio)
{
	forget_mlock(folio);
	forget_flags(folio);
	/* See pagemap_folio_free(). */
	if (data_race(devmem->has_free))
		call_free(folio_segment(folio), &folio->page);
	if (hmm_devmem_managed(devmem))
		free_pages_of(devmem, folio, folio_order(folio));
}

static void pagemap_folio_free(struct folio *folio)
{
	struct hmm_devmem *devmem = folio_segment(folio)->devmem;
	const unsigned long special = BIT(PG_head) | BIT(PG_mlocked);

	/*
	 * Every classic devmem has a free callback. Also set when there is a zombie, which
	 * looks at its pages after that.
	 */
	if (unlikely(folio->flags.f & special || data_race(devmem->has_free))) {
		free_special(devmem, folio);
		return;
	}
	folio->flags.f &= ~FLAGS_OF_USER;
	free_pages_of(devmem, folio, 0);
}

static vm_fault_t pagemap_migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_devmem *devmem = folio_segment(page_folio(vmf->page))->devmem;
	vm_fault_t ret;

	/*
	 * When removal waits for the last callback none begins any more. Else processes
	 * that fault again and again could keep it waiting for ever.
	 */
	if (!hmm_devmem_ref_tryget_live(devmem))
		return VM_FAULT_SIGBUS;

	hmm_devmem_count(devmem, HMM_DEVMEM_FAULTS, 1);
	if (devmem->ops->fault)
		ret = devmem->ops->fault(devmem, vmf->vma, vmf->address,
					 vmf->page, vmf->flags, vmf->pmd);
	else
		ret = hmm_devmem_default_fault(devmem, vmf->vma, vmf->address,
					       vmf->page, vmf->flags, vmf->pmd);
	hmm_devmem_ref_put(devmem);
	return ret;
}

/* Where tests look at the context of a folio that is being split. */
VISIBLE_IF_KUNIT struct hmm_devmem_context *
hmm_devmem_head_context(const struct folio *head)
{
	KUNIT_STATIC_STUB_REDIRECT(hmm_devmem_head_context, head);
	return READ_ONCE(head->page.zone_device_data);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_head_context);

/* Interrupts are off from before the first part until after the last. */
static void share_context(struct hmm_devmem *devmem, struct folio *head,
			  struct folio *tail)
{
	struct hmm_devmem_context *ctx = NULL;

	/* See zombies_drop_contexts(). */
	if (likely(!READ_ONCE(devmem->gone)))
		ctx = hmm_devmem_head_context(head);
	hmm_devmem_context_get(ctx);
	WRITE_ONCE(tail->page.zone_device_data, ctx);
}

/*
 * Called for each new folio that @head was split into, and in the end with
 * @tail NULL. The folios are frozen.
 */
static void pagemap_folio_split(struct folio *head, struct folio *tail)
{
	struct hmm_devmem *devmem = folio_segment(head)->devmem;

	if (!tail) {
		/* The head is split already: it takes its own part away. */
		if (hmm_devmem_managed(devmem))
			hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, 1);
		return;
	}

	tail->pgmap = head->pgmap;
	tail->page.mapping = head->page.mapping;
	if (!hmm_devmem_managed(devmem)) {
		tail->page.zone_device_data = head->page.zone_device_data;
		return;
	}
	share_context(devmem, head, tail);
	hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_GONE, folio_nr_pages(tail));
}

/*
 * Without this callback core would take device memory for that of a DAX device
 * and its anon_vma for an address_space.
 */
static int pagemap_memory_failure(struct dev_pagemap *pagemap,
				  unsigned long pfn, unsigned long nr_pages,
				  int mf_flags)
{
	struct hmm_devmem *devmem = hmm_devmem_pagemap_segment(pagemap)->devmem;
	const unsigned long end = min(pfn + nr_pages, devmem->pfn_last);
	int ret = 0;

	pr_err_ratelimited("memory failure on device pfns [%#lx, %#lx)\n", pfn,
			   pfn + nr_pages);
	/* What is lost of a classic devmem only its driver can know. */
	if (!hmm_devmem_managed(devmem))
		return -EBUSY;
	pfn = max(pfn, devmem->pfn_first);
	hmm_devmem_alloc_retire_range(devmem->alloc, pfn, end);
	/* The caller's reference to the pagemap keeps the struct pages. */
	for (; pfn < end; pfn++)
		if (!hmm_devmem_poison_page(devmem, pfn))
			ret = -EBUSY;
	return ret;
}

const struct dev_pagemap_ops hmm_devmem_pagemap_ops = {
	.folio_free = pagemap_folio_free,
	.migrate_to_ram = pagemap_migrate_to_ram,
	.memory_failure = pagemap_memory_failure,
	.folio_split = pagemap_folio_split,
};

/**
 * hmm_devmem_of_page() - Of which devmem is a page, removed or not?
 * @page: Any page; the caller has a reference, or a lock that keeps it in use.
 *
 * Context: Any context.
 * Return: The devmem, or NULL if @page is of none.
 */
struct hmm_devmem *hmm_devmem_of_page(const struct page *page)
{
	const unsigned long pfn = page_to_pfn(page);
	struct dev_pagemap *pagemap;
	struct hmm_devmem *devmem;

	if (!is_zone_device_page(page))
		return NULL;
	pagemap = page_pgmap(page);
	if (!pagemap || pagemap->ops != &hmm_devmem_pagemap_ops)
		return NULL;
	devmem = hmm_devmem_pagemap_segment(pagemap)->devmem;
	/* Struct pages come in larger units than device memory. */
	return hmm_devmem_has_pfn(devmem, pfn) ? devmem : NULL;
}

/**
 * hmm_devmem_from_page() - Whose device memory is a page?
 * @page: Any page; the caller has a reference, or a lock that keeps it in use.
 *
 * Context: Any context.
 * Return: The devmem that @page is of; it stays valid memory as long as the caller
 * keeps @page in use, and longer with hmm_devmem_get(). NULL if @page is of none, or
 * of one whose removal has come to its cleanup callback. It can come to that at any
 * time; then whatever is called with the devmem fails.
 */
struct hmm_devmem *hmm_devmem_from_page(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	return devmem && !READ_ONCE(devmem->gone) ? devmem : NULL;
}
EXPORT_SYMBOL_GPL(hmm_devmem_from_page);

/**
 * hmm_devmem_page_offset() - Where in the device's memory is a page?
 * @page: A page of a devmem; that can have been removed.
 *
 * Context: Any context.
 * Return: Offset in bytes from the start of device memory.
 */
u64 hmm_devmem_page_offset(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	if (WARN_ON_ONCE(!devmem))
		return 0;
	return (u64)(page_to_pfn(page) - devmem->pfn_first) << PAGE_SHIFT;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_offset);

/**
 * hmm_devmem_page_set_drvdata() - Set a driver's data of a page
 * @page: A page of a classic devmem; the caller has allocated it. Of a large
 *	folio only the first page has such data.
 * @data: Anything; kept until the page is freed.
 *
 * In a managed devmem the library uses this word; nothing is changed there.
 *
 * Context: Any context.
 */
void hmm_devmem_page_set_drvdata(struct page *page, unsigned long data)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	if (WARN_ON_ONCE(!devmem || hmm_devmem_managed(devmem)))
		return;
	page->zone_device_data = (void *)data;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_set_drvdata);

/**
 * hmm_devmem_page_get_drvdata() - Get a driver's data of a page
 * @page: A page of a classic devmem; see hmm_devmem_page_set_drvdata().
 *
 * Context: Any context.
 * Return: What was set last; undefined if nothing was since the page was
 * allocated; 0 in a managed devmem.
 */
unsigned long hmm_devmem_page_get_drvdata(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	if (WARN_ON_ONCE(!devmem || hmm_devmem_managed(devmem)))
		return 0;
	return (unsigned long)page->zone_device_data;
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_get_drvdata);

/**
 * hmm_devmem_page_context() - Get the context of a page
 * @page: A page of a managed devmem that cannot be freed meanwhile.
 *
 * Context: Any context.
 * Return: The context its folio was allocated with, without a new reference, or
 * NULL if there was none, or the devmem has been removed.
 */
struct hmm_devmem_context *hmm_devmem_page_context(const struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_of_page(page);

	if (WARN_ON_ONCE(!devmem || !hmm_devmem_managed(devmem)))
		return NULL;
	return READ_ONCE(page_folio(page)->page.zone_device_data);
}
EXPORT_SYMBOL_GPL(hmm_devmem_page_context);

/* Inline, since half of what it costs to allocate a page would be the call. */
static __always_inline struct folio *
init_pages(struct hmm_devmem *devmem, unsigned long pfn, unsigned int order,
	   struct hmm_devmem_context *ctx)
{
	struct page *page = pfn_to_page(pfn);

	zone_device_folio_init((struct folio *)page,
			       hmm_devmem_allocated_pagemap(devmem, pfn), order);
	page->zone_device_data = ctx;
	/* See "Pages": no one tells us when the device writes. */
	folio_set_dirty((struct folio *)page);
	trace_hmm_devmem_alloc(pfn, order);
	return (struct folio *)page;
}

static __always_inline struct folio *
init_folio(struct hmm_devmem *devmem, unsigned long pfn, unsigned int order,
	   struct hmm_devmem_context *ctx)
{
	hmm_devmem_context_get(ctx);
	hmm_devmem_count(devmem, HMM_DEVMEM_ALLOCATED, 1UL << order);
	if (order)
		hmm_devmem_count(devmem, HMM_DEVMEM_LARGE_ALLOCATED, 1UL << order);
	return init_pages(devmem, pfn, order, ctx);
}

/**
 * hmm_devmem_init_folio() - Make a folio of free device pages
 * @devmem: A managed devmem.
 * @pfn: First of 2^@order pages from its allocator.
 * @order: Size.
 * @ctx: Context, or NULL; the folio takes a reference.
 *
 * Context: Process context, may sleep: core waits for the lock of the page, and
 * whoever looks at pages by pfn, as eviction does, can have got it first. @devmem
 * cannot be removed meanwhile.
 * Return: The folio, locked and with one reference.
 */
struct folio *hmm_devmem_init_folio(struct hmm_devmem *devmem,
				    unsigned long pfn, unsigned int order,
				    struct hmm_devmem_context *ctx)
{
	return init_folio(devmem, pfn, order, ctx);
}

/**
 * hmm_devmem_init_pages() - Make folios of many free device pages
 * @devmem: A managed devmem.
 * @pfns: Pages from its allocator.
 * @nr: How many.
 * @ctx: Context, or NULL; each folio takes a reference.
 *
 * Context: Process context, may sleep, see hmm_devmem_init_folio(). @devmem cannot
 * be removed meanwhile.
 */
void hmm_devmem_init_pages(struct hmm_devmem *devmem, const unsigned long *pfns,
			   unsigned int nr, struct hmm_devmem_context *ctx)
{
	unsigned int i;

	if (!nr)
		return;
	if (ctx)
		refcount_add(nr, &ctx->refs);
	hmm_devmem_count(devmem, HMM_DEVMEM_ALLOCATED, nr);
	for (i = 0; i < nr; i++)
		init_pages(devmem, pfns[i], 0, ctx);
}

/* If there was nothing: with %HMM_DEVMEM_LAZY more struct pages can be created. */
static noinline int grow_and_get(struct hmm_devmem *devmem, unsigned int order,
				 unsigned long *pfn, int ret)
{
	unsigned int tries = HMM_DEVMEM_GROW_TRIES;

	while (ret == -ENOMEM && tries-- && hmm_devmem_can_grow(devmem) &&
	       !hmm_devmem_segments_grow(devmem))
		ret = hmm_devmem_alloc_get(devmem->alloc, order, pfn);
	return ret;
}

/**
 * hmm_devmem_alloc_folio() - Allocate device memory
 * @devmem: A managed devmem.
 * @order: PAGE_SIZE << @order bytes, naturally aligned. Core migrates folios
 *	of order 0 and HPAGE_PMD_ORDER; those of more than 2 MiB are split before.
 * @ctx: Context of the folio, which takes a reference on it; may be NULL.
 *
 * Nothing is cleared: the folio holds what was there before. Free it with
 * folio_unlock() and folio_put().
 *
 * An @order between those two is found in blocks that are partly in use. How long
 * that takes depends on how many of them have had pages freed since they were
 * searched last, but interrupts are not off for more than a few of them.
 *
 * Context: Process context, may sleep. With %HMM_DEVMEM_LAZY the caller has locked
 * no folio and no mmap lock.
 * Return: The folio, locked and with one reference; NULL if there is no such
 * piece, @order is too large, @devmem is classic, being removed or suspended, or, with
 * %HMM_DEVMEM_LAZY, the caller is being killed while it waits for more struct pages or
 * others have taken those eight times.
 */
struct folio *hmm_devmem_alloc_folio(struct hmm_devmem *devmem,
				     unsigned int order,
				     struct hmm_devmem_context *ctx)
{
	struct folio *folio = NULL;
	unsigned long pfn;
	int ret;

	might_sleep();
	/*
	 * Removal waits until a page that is ours looks like one in use. This does not
	 * wait for removal: the caller can have locked folios that it needs.
	 */
	if (!hmm_devmem_managed(devmem) || !percpu_down_read_trylock(&devmem->handout))
		return NULL;
	ret = hmm_devmem_alloc_get(devmem->alloc, order, &pfn);
	if (unlikely(ret))
		ret = grow_and_get(devmem, order, &pfn, ret);
	/* Twice, so that the compiler knows the order of the common case. */
	if (likely(!ret))
		folio = likely(!order) ? init_folio(devmem, pfn, 0, ctx) :
					 init_folio(devmem, pfn, order, ctx);
	percpu_up_read(&devmem->handout);
	return folio;
}
EXPORT_SYMBOL_GPL(hmm_devmem_alloc_folio);
