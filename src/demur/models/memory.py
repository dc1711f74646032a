"""What a CPU's allocator does with the memory of a step: keep it for the next one."""

from __future__ import annotations

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
_MOST = (2**31 - 1, 32 * 2**20)
"""Block sizes from which memory is mapped afresh: the first that the library takes (before 2.35 up to 32 MiB)."""


@cache
def keep_freed_memory() -> bool:
    """Makes glibc's allocator keep freed memory, for the life of this process; whether it does.

    Every step allocates the same activations again. By itself glibc gives blocks of some 100 KB to 32 MB back to the
    system at every free, and the system clears each page again when it is touched next: on small models that is up to
    half of the time of a pass. Nothing is set where the environment sets it (``MALLOC_TRIM_THRESHOLD_`` or the like),
    and where the C library is another one. What is computed does not change.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mapped = any(mallopt(_MMAP_THRESHOLD, size) for size in _MOST)
    return bool(mallopt(_TRIM_THRESHOLD, _MOST[0])) and mapped
