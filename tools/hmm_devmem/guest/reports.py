# SPDX-License-Identifier: GPL-2.0
"""Finds in a kernel log what must not be there."""

import re

# Each starts a report of its own
HEAD = re.compile(r"""
    Kernel\ panic\ -\ not\ syncing | \bWARNING: | \bBUG\b[ :] | kernel\ BUG\ at | \bOops: |
    \bKASAN: | \bKCSAN: | \bUBSAN: | \bKFENCE: |
    INFO:\ possible | possible\ .*\ detected$ | suspicious\ RCU\ usage | inconsistent\ lock\ state |
    DEBUG_LOCKS_WARN_ON | INFO:\ task\ .*\ blocked | rcu:\ INFO:\ .*detected | self-detected\ stall |
    soft\ lockup | hard\ LOCKUP | workqueue\ lockup |
    new\ suspected\ memory\ leaks | ^unreferenced\ object |
    unable\ to\ handle | general\ protection | stack\ segment | double\ fault | invalid\ opcode | divide\ error |
    refcount_t: | Bad\ page\ state | page\ dumped\ because | list_(add|del)\ corruption |
    pagealloc:\ .*(corruption|error) | ODEBUG: | DMA-API:\ .*device\ driver |
    nobody\ cared | segfault\ at\ .*\ in\ init
""", re.VERBOSE)
# A report too, unless it is part of one
TRACE = re.compile(r"Call Trace")
END = re.compile(r"---\[ end (trace|Kernel panic)|^={20,}$|^-{20,}$")
FOLLOWS = re.compile(r"Kernel panic - not syncing: (.*panic_on_warn set|Fatal exception)")
STAMP = re.compile(r"^(\[ *\d+\.\d+\])?(\[ *[TC]\d+\])? ?")
LONGEST = 80


def reports(log):
    """The reports in LOG, each a list of its lines."""
    found, block = [], None
    for line in log.splitlines():
        text = STAMP.sub("", line.rstrip("\r"))
        if HEAD.search(text) or (block is None and TRACE.search(text)):
            block = [line]
            found.append(block)
        elif block is not None:
            block.append(line)
            if END.search(text) and len(block) > 3 or len(block) >= LONGEST:
                block = None
    return found


def unexpected(log, allowed):
    """The reports in LOG that no expression of ALLOWED matches."""
    found = [r for r in reports(log) if not any(a.search("\n".join(r)) for a in allowed)]
    # The panic that panic_on_warn or an oops made out of a report says nothing new
    return [r for i, r in enumerate(found) if not i or not FOLLOWS.search(r[0])]
