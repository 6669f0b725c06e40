# SPDX-License-Identifier: GPL-2.0
"""The core fixes, which graft makes, where a fault of core breaks the library. Each name
is that of a patch of the series ('fix NAME'), which gives the reason. A patch can change
several places."""

from typing import NamedTuple


class Mend(NamedTuple):
    """One place. graft replaces OLD, which the function has exactly once, by NEW. With
    THROUGH it also replaces the text from OLD to the end of THROUGH."""

    # The name of the patch
    name: str
    file: str
    # The function in whose definition OLD is
    function: str
    # The shortest text that is only at this place
    old: str
    # A text that the function, and what is just before and after it, does not have before
    new: str
    # The file of the library that needs the fix
    need: str
    # A file of the kernel, and a text in it that shows that the kernel has no such fault
    sound: tuple = ()
    through: str = ""


class Older(NamedTuple):
    """Names of an older kernel. If FILE has TEXT, the core fixes are made with those."""

    file: str
    text: str
    # What newer kernels call them
    names: dict


# Linux 7.2
OLDER = (
    Older("mm/huge_memory.c", "pmd_swp_uffd_wp(",
          {f"{level}_swp_{verb}": f"{level}_swp_{verb}_wp"
           for level in ("pte", "pmd") for verb in ("uffd", "mkuffd")}),
    Older("mm/huge_memory.c", "= swp_entry_to_pmd(", {"softleaf_to_pmd": "swp_entry_to_pmd"}),
    Older("mm/huge_memory.c", "VM_BUG_ON(pmd_write(pmde) &&", {"VM_WARN_ON_ONCE": "VM_BUG_ON"}),
    Older("mm/huge_memory.c", "VM_BUG_ON(pmd_present(pmde) &&", {"VM_WARN_ON_ONCE": "VM_BUG_ON"}),
)

MENDS = (
    # A migration entry has no reference to the folio, not even to one on a device
    Mend("zap", "mm/huge_memory.c", "zap_huge_pmd_folio",
         "is_device_private = folio_is_device_private(folio)",
         "is_device_private = pmd_is_device_private_entry(pmdval)",
         need="mm/hmm_devmem/evict.c"),
    # A PMD entry that is not present is no hole: a core dump must fault it in
    Mend("dump", "mm/gup.c", "follow_pmd_mask",
         "	if (!pmd_present(pmdval))\n",
         """	if (pmd_is_valid_softleaf(pmdval))
		return NULL;
	if (!pmd_present(pmdval))
""",
         need="mm/hmm_devmem/migrate.c"),
    Mend("dump", "mm/gup.c", "follow_pmd_mask",
         "		spin_unlock(ptl);\n		return no_page_table(",
         "		spin_unlock(ptl);\n"
         "		return !pmd_none(pmdval) ? NULL : no_page_table(",
         need="mm/hmm_devmem/migrate.c"),
    # If the page table was zapped while a folio was split, go on behind what was collected
    Mend("collect", "mm/migrate_device.c", "migrate_vma_collect_pmd",
         "migrate_vma_collect_huge_pmd(pmdp, start, end,",
         "migrate_vma_collect_huge_pmd(pmdp, addr, end,",
         need="mm/hmm_devmem/migrate.c"),
    Mend("collect", "mm/migrate_device.c", "migrate_vma_collect_pmd",
         "		if (ret == 0)\n			return 0;\n",
         """		if (ret == 0) {
			if (unmapped)
				flush_tlb_range(walk->vma, start, end);
			return 0;
		}
""",
         need="mm/hmm_devmem/migrate.c"),
    # Threads whose invalidations overlap can make mmu_interval_read_begin() wait for ever
    Mend("begin", "mm/mmu_notifier.c", "mn_itree_release",
         "static void mn_itree_release(",
         """/**
 * mmu_interval_read_begin_timeout - Begin to read, or give up
 * @interval_sub: The interval
 * @timeout: How long to wait for invalidations to end, jiffies; 0 for no limit
 *
 * As mmu_interval_read_begin(), but stops waiting after @timeout, and when the task is
 * being killed. mmu_interval_read_retry() is true then for what this has returned.
 *
 * Return: A sequence number for mmu_interval_read_retry(). It is odd if all invalidations
 * that the interval was told of before have ended, and even if this has stopped waiting.
 */
unsigned long mmu_interval_read_begin_timeout(struct mmu_interval_notifier *interval_sub,
					      unsigned long timeout)
{
	struct mmu_notifier_subscriptions *subs = interval_sub->mm->notifier_subscriptions;
	unsigned long seq;
	bool busy;

	spin_lock(&subs->lock);
	seq = READ_ONCE(interval_sub->invalidate_seq);
	busy = seq == subs->invalidate_seq;
	spin_unlock(&subs->lock);

	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
	if (busy && wait_event_killable_timeout(subs->wq,
						READ_ONCE(subs->invalidate_seq) != seq,
						timeout ?: MAX_SCHEDULE_TIMEOUT) <= 0)
		/* That of an interval is always odd, so an even one never matches. */
		seq--;
	return seq;
}
EXPORT_SYMBOL_GPL(mmu_interval_read_begin_timeout);

static void mn_itree_release(""",
         need="mm/hmm_devmem/invalidate.c"),
    Mend("begin", "include/linux/mmu_notifier.h", "mmu_interval_read_retry",
         "	return interval_sub->invalidate_seq != seq;\n}\n",
         """	return interval_sub->invalidate_seq != seq;
}

unsigned long mmu_interval_read_begin_timeout(struct mmu_interval_notifier *interval_sub,
					      unsigned long timeout);
""",
         need="mm/hmm_devmem/invalidate.c"),
    Mend("begin", "mm/hmm.c", "hmm_range_fault_unlocked_timeout",
         "			mmu_interval_read_begin(range->notifier);\n",
         """			mmu_interval_read_begin_timeout(range->notifier, timeout);
		if (fatal_signal_pending(current))
			return -EINTR;
""",
         need="mm/hmm_devmem/invalidate.c",
         # Linux 7.2 does not have the function
         sound=("mm/hmm.c", r"\A(?!(?s:.*)hmm_range_fault_unlocked_timeout)")),
    # A migration by pfn has no mmap lock: the last process can exit, and its anon_vma be freed
    Mend("anon-vma", "mm/migrate_device.c", "migrate_device_unmap",
         "static unsigned long migrate_device_unmap(",
         """/*
 * A migration by pfn holds no mmap lock, so it keeps a reference to the anon_vma of each
 * device folio that it has locked, in the folio's private field. Returns false if the folio
 * is mapped no more: its anon_vma can be gone.
 */
static bool migrate_device_hold_anon_vma(struct folio *folio)
{
	if (!folio_test_anon(folio))
		return true;
	folio->private = folio_get_anon_vma(folio);
	return folio->private;
}

static void migrate_device_drop_anon_vma(struct folio *folio)
{
	struct anon_vma *anon_vma = folio->private;

	if (!folio_is_zone_device(folio) || !anon_vma)
		return;
	folio->private = NULL;
	put_anon_vma(anon_vma);
}

static unsigned long migrate_device_unmap(""",
         need="mm/hmm_devmem/collect.c"),
    Mend("anon-vma", "mm/migrate_device.c", "migrate_device_unmap",
         "		remove_migration_ptes(folio, folio, 0);\n",
         """		remove_migration_ptes(folio, folio, 0);
		migrate_device_drop_anon_vma(folio);
""",
         need="mm/hmm_devmem/collect.c"),
    Mend("anon-vma", "mm/migrate_device.c", "__migrate_device_pages",
         "			if (r)\n				src_pfns[i+j] &= ~MIGRATE_PFN_MIGRATE;\n"
         "			else\n				folio_migrate_flags(newfolio, folio);\n",
         """			if (r) {
				src_pfns[i+j] &= ~MIGRATE_PFN_MIGRATE;
			} else {
				void *private = folio->private;

				folio_migrate_flags(newfolio, folio);
				if (folio_is_zone_device(folio))
					folio->private = private;
			}
""",
         need="mm/hmm_devmem/collect.c"),
    Mend("anon-vma", "mm/migrate_device.c", "__migrate_device_finalize",
         "		remove_migration_ptes(src, dst, 0);\n",
         """		remove_migration_ptes(src, dst, 0);
		migrate_device_drop_anon_vma(src);
""",
         need="mm/hmm_devmem/collect.c"),
    Mend("anon-vma", "mm/migrate_device.c", "migrate_device_pfn_lock",
         "	return migrate_pfn(pfn) | MIGRATE_PFN_MIGRATE;\n",
         """	if (!migrate_device_hold_anon_vma(folio)) {
		folio_unlock(folio);
		folio_put(folio);
		return 0;
	}

	return migrate_pfn(pfn) | MIGRATE_PFN_MIGRATE;
""",
         need="mm/hmm_devmem/collect.c"),
    Mend("anon-vma", "mm/migrate_device.c", "migrate_device_range",
         "				folio_unlock(folio);\n",
         """				migrate_device_drop_anon_vma(folio);
				folio_unlock(folio);
""",
         need="mm/hmm_devmem/collect.c"),
    Mend("anon-vma", "mm/migrate_device.c", "migrate_device_pfns",
         "				folio_unlock(folio);\n",
         """				migrate_device_drop_anon_vma(folio);
				folio_unlock(folio);
""",
         need="mm/hmm_devmem/collect.c"),
    # The page of a hole is no reason to kill a process. Page tables are charged, too, so
    # charge the page before there is one
    Mend("charge", "mm/migrate_device.c", "migrate_vma_insert_page",
         "	pgdp = pgd_offset(mm, addr);\n",
         """	/* At the limit of its cgroup the process does without a page that it has not touched */
	if (!folio_test_large(folio) &&
	    mem_cgroup_charge(folio, mm, GFP_KERNEL | __GFP_NORETRY))
		goto abort;

	pgdp = pgd_offset(mm, addr);
""",
         need="mm/hmm_devmem/migrate.c"),
    Mend("charge", "mm/migrate_device.c", "migrate_vma_insert_page",
         "	if (mem_cgroup_charge(folio, vma->vm_mm, GFP_KERNEL))\n		goto abort;\n",
         "	/* The folio is charged already */\n",
         need="mm/hmm_devmem/migrate.c"),
    # Walkers that do not lock take an entry that is clear for a moment for a hole
    Mend("hole", "mm/huge_memory.c", "set_pmd_migration_entry",
         "		pmdval = pmdp_huge_get_and_clear(vma->vm_mm, address, pvmw->pmd);\n",
         "		pmdval = pmdp_get(pvmw->pmd);\n",
         need="mm/hmm_devmem/evict.c"),
    # smaps must use the mapcount of a large folio on the device; its entry has no
    # young and dirty bits
    Mend("smaps", "fs/proc/task_mmu.c", "smaps_pmd_entry",
         "		if (softleaf_has_pfn(entry))\n",
         "		present = softleaf_is_device_private(entry);\n"
         "		if (softleaf_has_pfn(entry))\n",
         need="mm/hmm_devmem/migrate.c"),
    Mend("smaps", "fs/proc/task_mmu.c", "smaps_pmd_entry",
         "pmd_young(*pmd), pmd_dirty(*pmd),\n		      locked",
         "pmd_present(*pmd) && pmd_young(*pmd),\n"
         "		      pmd_present(*pmd) && pmd_dirty(*pmd), locked",
         need="mm/hmm_devmem/migrate.c"),
    # MADV_COLLAPSE has nothing to do: the memory is a huge page already
    Mend("collapse", "mm/khugepaged.c", "check_pmd_state",
         "if (pmd_is_migration_entry(pmde))",
         "if (pmd_is_valid_softleaf(pmde))",
         need="mm/hmm_devmem/migrate.c"),
    # If PAGEMAP_SCAN is to report the next write, the entry must not allow writes
    Mend("track", "fs/proc/task_mmu.c", "clear_soft_dirty",
         "static inline void clear_soft_dirty(",
         """/* A write through a mapping that is not present here has to come back first. */
static pte_t softleaf_pte_wrprotect(pte_t pte)
{
	softleaf_t entry = softleaf_from_pte(pte);
	pte_t newpte;

	if (softleaf_is_device_private_write(entry))
		entry = make_readable_device_private_entry(swp_offset(entry));
	else if (!softleaf_is_migration_write(entry))
		return pte;
	else if (folio_test_anon(softleaf_to_folio(entry)))
		entry = make_readable_exclusive_migration_entry(swp_offset(entry));
	else
		entry = make_readable_migration_entry(swp_offset(entry));

	newpte = swp_entry_to_pte(entry);
	if (pte_swp_soft_dirty(pte))
		newpte = pte_swp_mksoft_dirty(newpte);
	return pte_swp_uffd(pte) ? pte_swp_mkuffd(newpte) : newpte;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static pmd_t softleaf_pmd_wrprotect(pmd_t pmd)
{
	softleaf_t entry = softleaf_from_pmd(pmd);
	pmd_t newpmd;

	if (softleaf_is_device_private_write(entry))
		entry = make_readable_device_private_entry(swp_offset(entry));
	else if (!softleaf_is_migration_write(entry))
		return pmd;
	else if (folio_test_anon(softleaf_to_folio(entry)))
		entry = make_readable_exclusive_migration_entry(swp_offset(entry));
	else
		entry = make_readable_migration_entry(swp_offset(entry));

	newpmd = softleaf_to_pmd(entry);
	if (pmd_swp_soft_dirty(pmd))
		newpmd = pmd_swp_mksoft_dirty(newpmd);
	return pmd_swp_uffd(pmd) ? pmd_swp_mkuffd(newpmd) : newpmd;
}
#endif

static inline void clear_soft_dirty(""",
         need="mm/hmm_devmem/migrate.c"),
    Mend("track", "fs/proc/task_mmu.c", "make_uffd_wp_pte",
         "ptent = pte_swp_mkuffd(ptent);",
         "ptent = pte_swp_mkuffd(softleaf_pte_wrprotect(ptent));",
         need="mm/hmm_devmem/migrate.c"),
    Mend("track", "fs/proc/task_mmu.c", "make_uffd_wp_pmd",
         """	} else if (pmd_is_migration_entry(pmd)) {
		pmd = pmd_swp_mkuffd(pmd);
""",
         """	} else if (pmd_is_valid_softleaf(pmd)) {
		pmd = pmd_swp_mkuffd(softleaf_pmd_wrprotect(pmd));
""",
         need="mm/hmm_devmem/migrate.c"),
    # The same for soft-dirty bits: an entry whose bit is clear must not allow writes
    Mend("track-soft-dirty", "fs/proc/task_mmu.c", "clear_soft_dirty",
         "ptent = pte_swp_clear_soft_dirty(ptent);",
         "ptent = pte_swp_clear_soft_dirty(softleaf_pte_wrprotect(ptent));",
         need="mm/hmm_devmem/migrate.c"),
    Mend("track-soft-dirty", "fs/proc/task_mmu.c", "clear_soft_dirty_pmd",
         """	} else if (pmd_is_migration_entry(pmd)) {
		pmd = pmd_swp_clear_soft_dirty(pmd);
""",
         """	} else if (pmd_is_valid_softleaf(pmd)) {
		pmd = pmd_swp_clear_soft_dirty(softleaf_pmd_wrprotect(pmd));
""",
         need="mm/hmm_devmem/migrate.c"),
    # fork() and mprotect() must keep the bit when they make a new entry of an old one
    Mend("track-soft-dirty", "mm/memory.c", "copy_nonpresent_pte",
         "		/*\n		 * We do not preserve soft-dirty",
         "		/* COW: the next write, also the device's, is to be a fault */\n",
         need="mm/hmm_devmem/migrate.c", through="*/\n"),
    Mend("track-soft-dirty", "mm/memory.c", "copy_nonpresent_pte",
         "			pte = swp_entry_to_pte(entry);\n",
         """			pte = swp_entry_to_pte(entry);
			if (pte_swp_soft_dirty(orig_pte))
				pte = pte_swp_mksoft_dirty(pte);
""",
         need="mm/hmm_devmem/migrate.c"),
    Mend("track-soft-dirty", "mm/mprotect.c", "change_softleaf_pte",
         "		/*\n		 * We do not preserve soft-dirtiness",
         "		/* The next write, also the device's, is to be a fault */\n",
         need="mm/hmm_devmem/migrate.c", through="*/\n"),
    Mend("track-soft-dirty", "mm/mprotect.c", "change_softleaf_pte",
         "		newpte = swp_entry_to_pte(entry);\n		if (pte_swp_uffd(oldpte))\n",
         """		newpte = swp_entry_to_pte(entry);
		if (pte_swp_soft_dirty(oldpte))
			newpte = pte_swp_mksoft_dirty(newpte);
		if (pte_swp_uffd(oldpte))
""",
         need="mm/hmm_devmem/migrate.c"),
    Mend("track-soft-dirty", "mm/huge_memory.c", "change_non_present_huge_pmd",
         "		newpmd = softleaf_to_pmd(entry);\n		if (pmd_swp_uffd(*pmd))\n",
         """		newpmd = softleaf_to_pmd(entry);
		if (pmd_swp_soft_dirty(*pmd))
			newpmd = pmd_swp_mksoft_dirty(newpmd);
		if (pmd_swp_uffd(*pmd))
""",
         need="mm/hmm_devmem/migrate.c"),
    # mremap() must set the bit also if the page is on a device
    Mend("track-soft-dirty", "mm/huge_memory.c", "move_soft_dirty_pmd",
         "unlikely(pmd_is_migration_entry(pmd))",
         "unlikely(pmd_is_valid_softleaf(pmd))",
         need="mm/hmm_devmem/migrate.c"),
    # On x86 the soft-dirty bit of an entry that is not present is the bit that makes a
    # present entry writable
    Mend("track-soft-dirty", "mm/huge_memory.c", "remove_migration_pmd",
         "	VM_WARN_ON_ONCE(pmd_write(pmde) && ",
         "	VM_WARN_ON_ONCE(pmd_present(pmde) && pmd_write(pmde) &&\n			",
         need="mm/hmm_devmem/migrate.c"),
    # The device can write to a new page without a fault, so set the bit at once
    Mend("track-soft-dirty", "mm/migrate_device.c", "migrate_vma_insert_huge_pmd_page",
         "		entry = softleaf_to_pmd(swp_entry);\n",
         """		entry = softleaf_to_pmd(swp_entry);
		if (pgtable_supports_soft_dirty())
			entry = pmd_swp_mksoft_dirty(entry);
""",
         need="mm/hmm_devmem/migrate.c"),
    Mend("track-soft-dirty", "mm/migrate_device.c", "migrate_vma_insert_page",
         "		entry = swp_entry_to_pte(swp_entry);\n",
         """		entry = swp_entry_to_pte(swp_entry);
		if (pgtable_supports_soft_dirty())
			entry = pte_swp_mksoft_dirty(entry);
""",
         need="mm/hmm_devmem/migrate.c"),
)
