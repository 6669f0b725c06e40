/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Runtime power: see power.c.
 */
#ifndef _MM_HMM_DEVMEM_POWER_H
#define _MM_HMM_DEVMEM_POWER_H

struct hmm_devmem;

void hmm_devmem_power_init(struct hmm_devmem *devmem);
int hmm_devmem_power_get(struct hmm_devmem *devmem);
void hmm_devmem_power_put(struct hmm_devmem *devmem);
void hmm_devmem_power_release(struct hmm_devmem *devmem);

#endif /* _MM_HMM_DEVMEM_POWER_H */
