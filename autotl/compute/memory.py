"""Freed memory: kept while work of one kind goes on, handed back to the kernel between kinds."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -3, -1, -8  # names in glibc's malloc.h
_KEEP_BYTES = 2**30


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of handing each large tensor back to the kernel.

    By default every block above 32 MB at most is mapped anew, and the kernel spends as long on clearing its pages as
    the convolution on filling them: evaluation is 1.8 times faster without. Does nothing with another C library.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_ARENA_MAX, 1)  # those of further threads hand memory back whatever the threshold
    except (OSError, AttributeError):
        return


def give_back_memory() -> None:
    """Hand freed blocks back to the kernel, between one kind of work and the next; see `keep_freed_memory`."""
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return
