/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The memory manager of a test device: see vram.c.
 */
#ifndef _LIB_TEST_HMM_DEVMEM_VRAM_H
#define _LIB_TEST_HMM_DEVMEM_VRAM_H

#include <linux/types.h>

struct thd_hw;
struct thd_mirror;
struct thd_vram;

struct thd_vram *thd_vram_create(struct thd_hw *hw, u64 size);
void thd_vram_destroy(struct thd_vram *vram);
int thd_vram_plug(struct thd_vram *vram, u64 size, bool shared);
void thd_vram_removed(struct thd_vram *vram);
void thd_vram_close(struct thd_vram *vram, const struct thd_mirror *mirror);
unsigned int thd_vram_get_blocks(struct thd_vram *vram, u64 *offsets,
				 unsigned int nr, bool may_evict);
void thd_vram_put_block(struct thd_vram *vram, u64 offset);
int thd_vram_ioctl(struct thd_mirror *mirror, unsigned int nr, void __user *uarg);

#endif /* _LIB_TEST_HMM_DEVMEM_VRAM_H */
