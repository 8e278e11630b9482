"""Memory that one training step frees stays in the process for the next one."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of glibc's ``malloc.h``."""


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, until the process ends.

    Every step frees its activations and the next one asks for as many again. glibc maps blocks from
    32 MB on anew each time, and the system zeroes their pages as they are touched: networks with
    large activations spend a good part of a step on that, see docs/performance.md. Blocks then come
    from the heap, which only grows, and may take a half more memory where sizes vary.

    Returns:
        Whether it does; other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # musl
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))
