// SPDX-License-Identifier: GPL-2.0
/*
 * Finding out which pages of a process are on a device.
 */

#include <kunit/visibility.h>
#include <linux/fs.h>
#include <linux/hugetlb_inline.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagewalk.h>

#include "allocate.h"
#include "devmem.h"
#include "resident.h"

/**
 * hmm_devmem_vma_is_suitable() - Can a mapping have pages that move?
 * @vma: The mapping.
 *
 * Context: The mmap lock is held.
 * Return: True if it can.
 */
bool hmm_devmem_vma_is_suitable(const struct vm_area_struct *vma)
{
	/* Only anonymous pages can move; a private file mapping has them too. */
	return !(vma->vm_flags & (VM_SPECIAL | VM_SHARED)) &&
	       !is_vm_hugetlb_page(vma) && !vma_is_dax(vma);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_vma_is_suitable);

/**
 * struct resident_walk - a walk of a page table that counts pages
 * @devmem: The device memory.
 * @pages: See hmm_devmem_count_resident().
 * @found: What was found so far.
 * @used: See hmm_devmem_count_resident().
 */
struct resident_walk {
	struct hmm_devmem *devmem;
	unsigned long *pages;
	struct hmm_devmem_found *found;
	bool used;
};

static void note_page(struct resident_walk *resident, struct page *page, unsigned long nr)
{
	const struct folio *folio = page_folio(page);
	struct hmm_devmem *devmem = resident->devmem;

	if (hmm_devmem_from_page(page) != devmem) {
		if (hmm_devmem_page_can_go(devmem, page))
			resident->found->movable += nr;
		else
			resident->found->fixed += nr;
		return;
	}
	resident->found->here += nr;
	if (resident->used)
		hmm_devmem_mark_used(devmem, page_to_pfn(page), nr);
	/* All of the folio, which moves as a whole even if a part is in the range. */
	if (resident->pages)
		hmm_devmem_note_pages(devmem, resident->pages, folio_pfn(folio),
				      folio_nr_pages(folio));
}

static void note_mlocked(struct resident_walk *resident, const struct page *page)
{
	const struct folio *folio = page_folio(page);

	resident->found->mlocked |= folio_test_mlocked(folio) && !folio_is_zone_device(folio);
}

static void note_entry(struct resident_walk *resident, softleaf_t entry,
		       unsigned long nr)
{
	if (softleaf_is_device_private(entry))
		note_page(resident, softleaf_to_page(entry), nr);
	else if (softleaf_is_migration(entry))
		resident->found->movable += nr;
	else
		resident->found->fixed += nr;
}

static int resident_pte_entry(pte_t *ptep, unsigned long addr,
			      unsigned long next, struct mm_walk *walk)
{
	const pte_t pte = ptep_get(ptep);
	struct page *page;

	if (!pte_present(pte)) {
		if (!pte_none(pte))
			note_entry(walk->private, softleaf_from_pte(pte), 1);
		return 0;
	}
	page = vm_normal_page(walk->vma, addr, pte);
	if (page) {
		note_page(walk->private, page, 1);
		note_mlocked(walk->private, page);
	}
	return 0;
}

/* Without this callback, the walk of core would split large entries. */
static int resident_pmd_entry(pmd_t *pmdp, unsigned long addr,
			      unsigned long next, struct mm_walk *walk)
{
	const unsigned long nr = (next - addr) >> PAGE_SHIFT;
	spinlock_t *ptl = pmd_trans_huge_lock(pmdp, walk->vma);
	struct page *page;

	if (!ptl)
		return 0;
	if (pmd_present(*pmdp)) {
		page = vm_normal_page_pmd(walk->vma, addr, *pmdp);
		if (page)
			note_page(walk->private, page, nr);
	} else {
		note_entry(walk->private, softleaf_from_pmd(*pmdp), nr);
	}
	spin_unlock(ptl);
	walk->action = ACTION_CONTINUE;
	return 0;
}

/* Skip mappings without device pages: the walk would split their large entries. */
static int resident_test_walk(unsigned long addr, unsigned long next,
			      struct mm_walk *walk)
{
	return !hmm_devmem_vma_is_suitable(walk->vma);
}

static const struct mm_walk_ops resident_walk_ops = {
	.test_walk = resident_test_walk,
	.pmd_entry = resident_pmd_entry,
	.pte_entry = resident_pte_entry,
	.walk_lock = PGWALK_RDLOCK,
};

/**
 * hmm_devmem_find_pages() - Where are the pages of a range?
 * @devmem: The device memory.
 * @mm: The process.
 * @start: User virtual address, page aligned, inclusive.
 * @end: User virtual address, page aligned, exclusive.
 * @used: See hmm_devmem_count_resident().
 * @pages: See hmm_devmem_count_resident().
 * @found: Filled in: what was found in mappings that are suitable.
 *
 * Context: The mmap lock of @mm is held.
 */
void hmm_devmem_find_pages(struct hmm_devmem *devmem, struct mm_struct *mm,
			   unsigned long start, unsigned long end, bool used,
			   unsigned long *pages, struct hmm_devmem_found *found)
{
	struct resident_walk resident = {
		.devmem = devmem,
		.used = used,
		.pages = pages,
		.found = found,
	};

	mmap_assert_locked(mm);

	*found = (struct hmm_devmem_found) { };
	walk_page_range(mm, start, end, &resident_walk_ops, &resident);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_find_pages);

/**
 * hmm_devmem_count_resident() - How many pages of a range are on the device?
 * @devmem: The device memory.
 * @mm: The process.
 * @start: User virtual address, page aligned, inclusive.
 * @end: User virtual address, page aligned, exclusive.
 * @used: The device is about to use the range: mark the pages found as used.
 * @pages: A bitmap with a bit for each page of the device, in which all pages of the
 *	folios found are set; or NULL.
 *
 * Context: The mmap lock of @mm is held.
 * Return: Number of pages, by whichever migration they got there.
 */
unsigned long hmm_devmem_count_resident(struct hmm_devmem *devmem,
					struct mm_struct *mm,
					unsigned long start, unsigned long end,
					bool used, unsigned long *pages)
{
	struct hmm_devmem_found found;

	hmm_devmem_find_pages(devmem, mm, start, end, used, pages, &found);
	return found.here;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_devmem_count_resident);
