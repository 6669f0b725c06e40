/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Files in debugfs: see debugfs.c.
 */
#ifndef _MM_HMM_DEVMEM_DEBUGFS_H
#define _MM_HMM_DEVMEM_DEBUGFS_H

struct hmm_devmem;

#ifdef CONFIG_DEBUG_FS
void hmm_devmem_debugfs_add(struct hmm_devmem *devmem);
void hmm_devmem_debugfs_remove(struct hmm_devmem *devmem);
void hmm_devmem_debugfs_init(void);
#else
static inline void hmm_devmem_debugfs_add(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_debugfs_remove(struct hmm_devmem *devmem)
{
}

static inline void hmm_devmem_debugfs_init(void)
{
}
#endif

#endif /* _MM_HMM_DEVMEM_DEBUGFS_H */
