/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What all files know of a devmem.
 */
#ifndef _MM_HMM_DEVMEM_DEVMEM_H
#define _MM_HMM_DEVMEM_DEVMEM_H

#include <linux/bitmap.h>
#include <linux/bits.h>
#include <linux/hmm_devmem.h>
#include <linux/mm.h>
#include <linux/percpu-refcount.h>
#include <linux/percpu-rwsem.h>
#include <linux/types.h>

struct kref;

/*
 * Large device folios have the size that a page table maps with one PMD entry;
 * that is all that core migrates whole. Without transparent huge pages blocks
 * are 512 pages too, so that the pool is the same everywhere.
 */
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
#define HMM_DEVMEM_BLOCK_ORDER	HPAGE_PMD_ORDER
#else
#define HMM_DEVMEM_BLOCK_ORDER	9
#endif
#define HMM_DEVMEM_BLOCK_NR	BIT(HMM_DEVMEM_BLOCK_ORDER)
#define HMM_DEVMEM_BLOCK_SIZE	(HMM_DEVMEM_BLOCK_NR << PAGE_SHIFT)

static inline bool hmm_devmem_has_pfn(const struct hmm_devmem *devmem,
				      unsigned long pfn)
{
	return pfn >= devmem->pfn_first && pfn < devmem->pfn_last;
}

/* Number of the block of @pfn, counted from the block of the first pfn. */
static inline unsigned long
hmm_devmem_block_index(const struct hmm_devmem *devmem, unsigned long pfn)
{
	return (pfn >> HMM_DEVMEM_BLOCK_ORDER) -
	       (devmem->pfn_first >> HMM_DEVMEM_BLOCK_ORDER);
}

static inline u32 hmm_devmem_nr_blocks(const struct hmm_devmem *devmem)
{
	return hmm_devmem_block_index(devmem, devmem->pfn_last - 1) + 1;
}

/* Note a folio in a bitmap that has a bit for each page of @devmem. */
static inline void hmm_devmem_note_pages(const struct hmm_devmem *devmem,
					 unsigned long *pages,
					 unsigned long pfn, unsigned int nr)
{
	const unsigned long first = pfn - devmem->pfn_first;

	bitmap_set(pages + BIT_WORD(first), first % BITS_PER_LONG, nr);
}

static inline bool hmm_devmem_ops_managed(const struct hmm_devmem_ops *ops)
{
	return ops->copy_to_device && ops->copy_to_ram;
}

static inline bool hmm_devmem_managed(const struct hmm_devmem *devmem)
{
	return devmem->pool;
}

/* Keep the driver from being removed; false if it was removed already. */
static inline bool hmm_devmem_ref_tryget(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget(&devmem->ref);
}

/* Fails also while removal waits for references, so that it need not wait for ever. */
static inline bool hmm_devmem_ref_tryget_live(struct hmm_devmem *devmem)
{
	return percpu_ref_tryget_live(&devmem->ref);
}

static inline void hmm_devmem_ref_put(struct hmm_devmem *devmem)
{
	percpu_ref_put(&devmem->ref);
}

/*
 * Wait for migrations to the device that have begun. The caller has stopped
 * allocation, so that no more can begin.
 */
static inline void hmm_devmem_wait_for_intake(struct hmm_devmem *devmem)
{
	percpu_down_write(&devmem->intake);
	percpu_up_write(&devmem->intake);
}

/*
 * Wait until hmm_devmem_alloc_folio() has made folios of all pages that it has taken
 * from the pool. The caller has stopped allocation, so that it takes no more.
 */
static inline void hmm_devmem_wait_for_handout(struct hmm_devmem *devmem)
{
	percpu_down_write(&devmem->handout);
	percpu_up_write(&devmem->handout);
}

struct hmm_devmem *hmm_devmem_create(struct device *device,
				     const struct hmm_devmem_desc *desc);
void hmm_devmem_release(struct kref *kref);

#endif /* _MM_HMM_DEVMEM_DEVMEM_H */
