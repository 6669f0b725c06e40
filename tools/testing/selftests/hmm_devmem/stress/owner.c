// SPDX-License-Identifier: GPL-2.0
/*
 * The record that the stress test has of memory: what was written to each page
 * last, and the check whether that is still there.
 */
#include "stress.h"

#define WORD_STEP	0x9e3779b97f4a7c15ULL

/*
 * Accesses. While copies to RAM are made to fail, they may raise SIGBUS, and succeed
 * later.
 */

static __thread sigjmp_buf fault_env;
static __thread sig_atomic_t accessing;

static void fault_handler(int sig)
{
	if (accessing)
		siglongjmp(fault_env, sig);
	/* Not in access_try(): let the signal kill the process */
	signal(sig, SIG_DFL);
}

/**
 * catch_faults() - Catch signals that accesses of owners raise
 */
void catch_faults(void)
{
	const struct sigaction action = {
		.sa_handler = fault_handler,
		.sa_flags = SA_NODEFER,
	};

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

/**
 * struct access - an access to one page
 * @page: The page.
 * @stamp: The stamp that its content is made from.
 * @write: Write that content; else compare with it.
 * @word: The first wrong word, %WORDS if there is none.
 * @found: The content of that word.
 */
struct access {
	char *page;
	__u64 stamp;
	bool write;
	unsigned long word;
	__u64 found;
};

static __u64 word_of(__u64 stamp, unsigned long i)
{
	return stamp ? stamp + i * WORD_STEP : 0;
}

static void access_write(struct access *access)
{
	__u64 *p = (__u64 *)access->page;
	unsigned long i;

	for (i = 0; i < WORDS; i++)
		p[i] = word_of(access->stamp, i);
	barrier();
	access->word = WORDS;
}

static void access_check(struct access *access)
{
	const __u64 *p = (const __u64 *)access->page;
	__u64 found = 0;
	unsigned long i;

	for (i = 0; i < WORDS; i++) {
		/* Read once, so that the word compared is the one reported */
		found = read_word(p + i);
		if (found != word_of(access->stamp, i))
			break;
	}
	access->word = i;
	access->found = found;
}

/* Do the access; returns the signal that it raised, or 0. */
static int access_try(struct access *access)
{
	int sig = sigsetjmp(fault_env, 0);

	if (!sig) {
		__atomic_store_n(&accessing, 1, __ATOMIC_SEQ_CST);
		if (access->write)
			access_write(access);
		else
			access_check(access);
	}
	__atomic_store_n(&accessing, 0, __ATOMIC_SEQ_CST);
	return sig;
}

static int arm_events(void)
{
	return __atomic_load_n(&shared->arm_events, __ATOMIC_SEQ_CST);
}

/* Can the signal come from a copy that was made to fail since @events was read? */
static bool is_ordered(int sig, bool armed, int events)
{
	return sig == SIGBUS && (armed || events != arm_events());
}

/* Returns false, and reports a failure, if the page is lost. */
static bool access_page(struct owner *owner, struct access *access)
{
	const long end = now_ms() + HANG_MS;
	int sig, events;
	bool armed;

	do {
		events = arm_events();
		armed = __atomic_load_n(&shared->armed, __ATOMIC_SEQ_CST);
		sig = access_try(access);
		if (!sig)
			return true;
		if (!is_ordered(sig, armed, events)) {
			fail(owner->slot, FAILURE_LOST,
			     "signal %d at page %lu, and no failure was ordered",
			     sig, (access->page - owner->area) / PAGE);
			return false;
		}
		sleep_ms(1);
	} while (now_ms() < end);
	fail(owner->slot, FAILURE_LOST,
	     "page %lu does not move back after its copy has failed",
	     (access->page - owner->area) / PAGE);
	return false;
}

/*
 * Owners.
 */

static __u64 next_stamp(struct owner *owner)
{
	/* Never 0 */
	return mix(owner->uid + ++owner->serial) | 1;
}

/**
 * page_of() - Address of a page of an owner
 * @owner: The owner.
 * @page: Number of the page.
 *
 * Return: The address.
 */
char *page_of(const struct owner *owner, unsigned long page)
{
	return owner->area + page * PAGE;
}

static void page_written(struct owner *owner, unsigned long page, __u64 stamp)
{
	owner->stamps[page] = stamp;
	owner->droppable[page] = false;
}

/**
 * owner_write() - Write something new to some pages
 * @owner: The owner.
 * @first: First page.
 * @npages: How many.
 *
 * Return: Whether that was possible; if not, the failure was noted.
 */
bool owner_write(struct owner *owner, unsigned long first, unsigned long npages)
{
	struct access access = { .write = true };
	unsigned long i;

	for (i = first; i < first + npages; i++) {
		page_written(owner, i, next_stamp(owner));
		access.page = page_of(owner, i);
		access.stamp = owner->stamps[i];
		if (!access_page(owner, &access))
			return false;
	}
	return true;
}

static bool fail_bytes(struct owner *owner, const char *where, unsigned long page,
		       unsigned long word, __u64 stamp, __u64 found)
{
	fail(owner->slot, FAILURE_BYTES,
	     "%s: page %lu of %lu, word %lu is %#llx, not %#llx (stamp %#llx)%s",
	     where, page, owner->npages, word, found, word_of(stamp, word), stamp,
	     found == HMM_DEVMEM_TEST_FILL ? ": of a failed copy" : "");
	return false;
}

/*
 * The page does not have its recorded content: may the kernel have dropped it? If
 * so, record zeros, since the page was read and thus has zeros from now on.
 */
static bool is_dropped(struct owner *owner, unsigned long page)
{
	const bool dropped = owner->droppable[page];

	if (dropped)
		page_written(owner, page, 0);
	return dropped;
}

/**
 * owner_check() - Compare every word of some pages with the record
 * @owner: The owner.
 * @first: First page.
 * @npages: How many.
 *
 * Return: Whether all is right; if not, the failure was noted.
 */
bool owner_check(struct owner *owner, unsigned long first, unsigned long npages)
{
	struct access access = { };
	unsigned long i;

	for (i = first; i < first + npages; i++) {
		access.page = page_of(owner, i);
		access.stamp = owner->stamps[i];
		if (!access_page(owner, &access))
			return false;
		if (access.word == WORDS)
			continue;
		if (!is_dropped(owner, i))
			return fail_bytes(owner, "read", i, access.word,
					  access.stamp, access.found);
		/* Check again: it can have been dropped while it was read */
		i--;
	}
	return true;
}

/**
 * owner_check_copy() - Compare a copy of some pages with the record
 * @owner: The owner.
 * @where: Where the copy comes from, for the report.
 * @copy: The copy.
 * @span: The pages that were copied.
 *
 * Return: Whether all is right; if not, the failure was noted.
 */
bool owner_check_copy(struct owner *owner, const char *where, char *copy,
		      struct span span)
{
	struct access access = { };
	unsigned long i;

	for (i = 0; i < span.npages; i++) {
		access.page = copy + i * PAGE;
		access.stamp = owner->stamps[span.first + i];
		access_check(&access);
		if (access.word == WORDS)
			continue;
		if (!is_dropped(owner, span.first + i))
			return fail_bytes(owner, where, span.first + i, access.word,
					  access.stamp, access.found);
		i--;
	}
	return true;
}

/**
 * owner_forget() - Record that pages are zero now
 * @owner: The owner.
 * @span: The pages.
 */
void owner_forget(struct owner *owner, struct span span)
{
	memset(owner->stamps + span.first, 0, span.npages * sizeof(__u64));
	memset(owner->droppable + span.first, 0, span.npages);
}

/**
 * owner_may_lose() - Record that pages may become zero until they are written to
 * @owner: The owner.
 * @span: The pages.
 */
void owner_may_lose(struct owner *owner, struct span span)
{
	memset(owner->droppable + span.first, true, span.npages);
}

/**
 * is_tolerable() - May an ioctl that moves memory return this at any time?
 * @ret: What it has returned.
 *
 * The device may be unplugged or suspended, other tasks may hold references to the
 * pages or have them unmapped for a moment, and allocations may have been made to
 * fail.
 *
 * Return: Whether that is no failure.
 */
bool is_tolerable(long ret)
{
	switch (ret) {
	case -EAGAIN:
	case -EBUSY:
	case -EFAULT:
	case -EINVAL:
	case -EINTR:
	case -ENODEV:
	case -ENOMEM:
		return true;
	default:
		return ret >= 0;
	}
}

/**
 * tolerate() - Report an ioctl that returned what it may not
 * @turn: The operation.
 * @what: Name of the ioctl.
 * @ret: What it has returned; a failure is noted unless is_tolerable().
 *
 * Return: @ret.
 */
long tolerate(struct turn *turn, const char *what, long ret)
{
	if (!is_tolerable(ret))
		fail(turn->thread->owner.slot, FAILURE_OPERATION, "%s: %s", what,
		     strerror(-ret));
	return ret;
}

/**
 * must() - Report a system call that failed without reason
 * @turn: The operation.
 * @what: Name of the call.
 * @ok: Whether it has succeeded; if not, the failure is noted.
 *
 * Return: @ok.
 */
bool must(struct turn *turn, const char *what, bool ok)
{
	if (!ok)
		fail(turn->thread->owner.slot, FAILURE_OPERATION, "%s: %s", what,
		     strerror(errno));
	return ok;
}

/**
 * owner_fill_copy() - Make new content for some pages, in a buffer
 * @owner: The owner.
 * @copy: The buffer.
 * @stamps: Gets the stamps of the new content, which is not in the pages yet.
 * @npages: Number of pages.
 */
void owner_fill_copy(struct owner *owner, char *copy, __u64 *stamps,
		     unsigned long npages)
{
	struct access access = { };
	unsigned long i;

	for (i = 0; i < npages; i++) {
		stamps[i] = next_stamp(owner);
		access.page = copy + i * PAGE;
		access.stamp = stamps[i];
		access_write(&access);
	}
}

/**
 * owner_written() - Record that content of owner_fill_copy() was written to pages
 * @owner: The owner.
 * @stamps: The stamps of the content.
 * @span: The pages.
 */
void owner_written(struct owner *owner, const __u64 *stamps, struct span span)
{
	unsigned long i;

	for (i = 0; i < span.npages; i++)
		page_written(owner, span.first + i, stamps[i]);
}

/**
 * owner_find_out() - Find out which pages were written to before a write has failed
 * @owner: The owner.
 * @stamps: The stamps of the content that was to be written.
 * @span: The pages that it was to be written to.
 *
 * Return: Whether all is right; if not, the failure was noted.
 */
bool owner_find_out(struct owner *owner, const __u64 *stamps, struct span span)
{
	struct access access = { };
	unsigned long i;

	for (i = 0; i < span.npages; i++) {
		access.page = page_of(owner, span.first + i);
		access.stamp = stamps[i];
		if (!access_page(owner, &access))
			return false;
		if (access.word == WORDS)
			page_written(owner, span.first + i, stamps[i]);
	}
	return owner_check(owner, span.first, span.npages);
}
