/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The emulated hardware, as a driver sees it: memory and a copy engine. See hw.c, and
 * table.h for the device's page tables.
 */
#ifndef _LIB_TEST_HMM_DEVMEM_HW_H
#define _LIB_TEST_HMM_DEVMEM_HW_H

#include <linux/types.h>

struct device;
struct hmm_devmem_test_inject;
struct page;
struct thd_hw;
struct thd_hw_job;

/**
 * struct thd_hw_mode - how the copy engine works
 * @dma_dev: The engine finds system memory by its DMA address for this device. If NULL,
 *	by &thd_hw_cmd.ram.
 * @async: A worker copies; thd_hw_start() does not wait for it.
 * @sync: The engine has no fences: a copy is over when thd_hw_start() returns, and
 *	thd_hw_wait() must not be called.
 * @delay_us: With @async, how long a copy takes at least.
 */
struct thd_hw_mode {
	struct device *dma_dev;
	bool async;
	bool sync;
	u32 delay_us;
};

/**
 * struct thd_hw_stats - what the copy engine counts
 * @copies: How often thd_hw_start() was called.
 * @commands: How often thd_hw_exec() was called.
 * @in_flight: Copies that were started and not yet waited for.
 * @max_in_flight: The highest value of @in_flight since thd_hw_set_mode().
 */
struct thd_hw_stats {
	u64 copies;
	u64 commands;
	u64 in_flight;
	u64 max_in_flight;
};

/**
 * struct thd_hw_cmd - a command of the copy engine
 * @offset: Where in VRAM, in bytes; a multiple of the page size.
 * @ram: First page of system memory. NULL to clear VRAM instead.
 * @dma_addr: DMA address of @ram, used instead of it with &thd_hw_mode.dma_dev.
 * @nr_pages: Number of pages, contiguous in VRAM and in system memory.
 * @to_vram: True to copy to VRAM, false to copy from it.
 */
struct thd_hw_cmd {
	u64 offset;
	struct page *ram;
	dma_addr_t dma_addr;
	unsigned int nr_pages;
	bool to_vram;
};

/**
 * struct thd_hw_batch - commands that are started together
 * @commands: Stands for a buffer of commands: calls thd_hw_exec() with each of them
 *	and passes on @error. The engine calls it one or more times, in the context of
 *	thd_hw_start() and thd_hw_wait() or in a worker.
 * @data: Passed to @commands.
 * @to_vram: The direction of all the commands, as &thd_hw_cmd.to_vram.
 * @job: Set by thd_hw_start(); the driver passes it on to thd_hw_wait().
 */
struct thd_hw_batch {
	void (*commands)(struct thd_hw *hw, void *data, int error);
	void *data;
	bool to_vram;
	struct thd_hw_job *job;
};

struct thd_hw *thd_hw_create(u64 size, phys_addr_t base);
void thd_hw_destroy(struct thd_hw *hw);
void thd_hw_set_mode(struct thd_hw *hw, const struct thd_hw_mode *mode);
int thd_hw_inject(struct thd_hw *hw, const struct hmm_devmem_test_inject *fail);
void thd_hw_get_stats(struct thd_hw *hw, struct thd_hw_stats *stats);

int thd_hw_populate(struct thd_hw *hw, u64 offset, u64 size);
void *thd_hw_vram(struct thd_hw *hw, u64 offset);
void thd_hw_set_window(struct thd_hw *hw, unsigned long first, unsigned long nr_pages);
void *thd_hw_window(struct thd_hw *hw, unsigned long pfn);

struct page *thd_hw_ram_page(struct thd_hw *hw, const struct thd_hw_cmd *cmd,
			     unsigned int i);
int thd_hw_exec(struct thd_hw *hw, const struct thd_hw_cmd *cmd, int error);
int thd_hw_start(struct thd_hw *hw, struct thd_hw_batch *batch);
int thd_hw_wait(struct thd_hw *hw, const struct thd_hw_batch *batch);

#endif /* _LIB_TEST_HMM_DEVMEM_HW_H */
