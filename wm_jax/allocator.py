"""How glibc hands out memory in a process that was started without `launch/environment`.

XLA on a CPU takes and frees tens of megabytes a step. Unless told otherwise, glibc returns them to
the kernel each time, and a third of a run may go into faulting pages back in. It reads its settings
before a process starts, so the command starts itself again with them, in the same process.
"""

from __future__ import annotations

import os
import sys

#: Those of `launch/environment`: freed memory is kept, in huge pages where the kernel allows them.
SETTINGS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",  # bytes
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
#: Verbs that compute for long enough.
VERBS = ("train", "evaluate", "compare", "reproduce")


def restart(verb: str) -> None:
    """Runs the command line of this process anew with `SETTINGS`, and does not return; does nothing
    where the first of them is set (to whatever), for other verbs, and without glibc."""
    if verb not in VERBS or next(iter(SETTINGS)) in os.environ or not _has_glibc():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, SETTINGS | os.environ)


def _has_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):
        return False
