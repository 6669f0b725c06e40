/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of HMM device memory.
 *
 * Addresses, pfns and sizes of ranges are in hex; nr_pages, in decimal, is in
 * pages of PAGE_SIZE; ranges exclude their end. None of these tracepoints shall
 * be considered a stable kernel ABI.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hmm_devmem

#if !defined(_TRACE_HMM_DEVMEM_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_HMM_DEVMEM_H

#include <linux/device.h>
#include <linux/hmm_devmem.h>
#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(hmm_devmem_range,
		    TP_PROTO(const struct hmm_devmem *devmem),
		    TP_ARGS(devmem),
		    TP_STRUCT__entry(__string(device, dev_name(devmem->device))
				     __field(unsigned long, pfn_first)
				     __field(unsigned long, pfn_last)),
		    TP_fast_assign(__assign_str(device);
				   __entry->pfn_first = devmem->pfn_first;
				   __entry->pfn_last = devmem->pfn_last;),
		    TP_printk("%s pfns=[%#lx, %#lx)", __get_str(device),
			      __entry->pfn_first, __entry->pfn_last)
);

DEFINE_EVENT(hmm_devmem_range, hmm_devmem_add,
	     TP_PROTO(const struct hmm_devmem *devmem),
	     TP_ARGS(devmem)
);

DEFINE_EVENT(hmm_devmem_range, hmm_devmem_remove,
	     TP_PROTO(const struct hmm_devmem *devmem),
	     TP_ARGS(devmem)
);

DECLARE_EVENT_CLASS(hmm_devmem_folio,
		    TP_PROTO(unsigned long pfn, unsigned int order),
		    TP_ARGS(pfn, order),
		    TP_STRUCT__entry(__field(unsigned long, pfn)
				     __field(unsigned int, order)),
		    TP_fast_assign(__entry->pfn = pfn;
				   __entry->order = order;),
		    TP_printk("pfn=%#lx order=%u", __entry->pfn, __entry->order)
);

DEFINE_EVENT(hmm_devmem_folio, hmm_devmem_alloc,
	     TP_PROTO(unsigned long pfn, unsigned int order),
	     TP_ARGS(pfn, order)
);

DEFINE_EVENT(hmm_devmem_folio, hmm_devmem_free,
	     TP_PROTO(unsigned long pfn, unsigned int order),
	     TP_ARGS(pfn, order)
);

TRACE_EVENT(hmm_devmem_fault,
	    TP_PROTO(const struct hmm_devmem *devmem, unsigned long addr,
		     unsigned long start, unsigned long end,
		     unsigned long nr_pages, vm_fault_t ret),
	    TP_ARGS(devmem, addr, start, end, nr_pages, ret),
	    TP_STRUCT__entry(__string(device, dev_name(devmem->device))
			     __field(unsigned long, addr)
			     __field(unsigned long, start)
			     __field(unsigned long, end)
			     __field(unsigned long, nr_pages)
			     __field(unsigned int, ret)),
	    TP_fast_assign(__assign_str(device);
			   __entry->addr = addr;
			   __entry->start = start;
			   __entry->end = end;
			   __entry->nr_pages = nr_pages;
			   __entry->ret = (__force unsigned int)ret;),
	    TP_printk("%s addr=%#lx window=[%#lx, %#lx) nr_pages=%lu ret=%#x",
		      __get_str(device), __entry->addr, __entry->start,
		      __entry->end, __entry->nr_pages, __entry->ret)
);

DECLARE_EVENT_CLASS(hmm_devmem_migrate,
		    TP_PROTO(const struct hmm_devmem *devmem, unsigned long start,
			     unsigned long end, unsigned long nr_pages),
		    TP_ARGS(devmem, start, end, nr_pages),
		    TP_STRUCT__entry(__string(device, dev_name(devmem->device))
				     __field(unsigned long, start)
				     __field(unsigned long, end)
				     __field(unsigned long, nr_pages)),
		    TP_fast_assign(__assign_str(device);
				   __entry->start = start;
				   __entry->end = end;
				   __entry->nr_pages = nr_pages;),
		    TP_printk("%s range=[%#lx, %#lx) nr_pages=%lu", __get_str(device),
			      __entry->start, __entry->end, __entry->nr_pages)
);

/* By user virtual address. */
DEFINE_EVENT(hmm_devmem_migrate, hmm_devmem_to_device,
	     TP_PROTO(const struct hmm_devmem *devmem, unsigned long start,
		      unsigned long end, unsigned long nr_pages),
	     TP_ARGS(devmem, start, end, nr_pages)
);

DEFINE_EVENT(hmm_devmem_migrate, hmm_devmem_to_ram,
	     TP_PROTO(const struct hmm_devmem *devmem, unsigned long start,
		      unsigned long end, unsigned long nr_pages),
	     TP_ARGS(devmem, start, end, nr_pages)
);

/* By pfn; nr_pages is what is still in use. */
DEFINE_EVENT(hmm_devmem_migrate, hmm_devmem_evict,
	     TP_PROTO(const struct hmm_devmem *devmem, unsigned long start,
		      unsigned long end, unsigned long nr_pages),
	     TP_ARGS(devmem, start, end, nr_pages)
);

/* By pfn; nr_pages is the length of what the device reported. */
DEFINE_EVENT(hmm_devmem_migrate, hmm_devmem_poison,
	     TP_PROTO(const struct hmm_devmem *devmem, unsigned long start,
		      unsigned long end, unsigned long nr_pages),
	     TP_ARGS(devmem, start, end, nr_pages)
);

/* By pfn; nr_pages is what is still in use. */
DEFINE_EVENT(hmm_devmem_migrate, hmm_devmem_zombie,
	     TP_PROTO(const struct hmm_devmem *devmem, unsigned long start,
		      unsigned long end, unsigned long nr_pages),
	     TP_ARGS(devmem, start, end, nr_pages)
);

TRACE_EVENT(hmm_devmem_suspend,
	    TP_PROTO(const struct hmm_devmem *devmem, int ret),
	    TP_ARGS(devmem, ret),
	    TP_STRUCT__entry(__string(device, dev_name(devmem->device))
			     __field(int, ret)),
	    TP_fast_assign(__assign_str(device);
			   __entry->ret = ret;),
	    TP_printk("%s ret=%d", __get_str(device), __entry->ret)
);

#endif /* _TRACE_HMM_DEVMEM_H */

#include <trace/define_trace.h>
