"""Memory that comes back: how the C library's allocator is to treat large blocks."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
LARGE_BYTES = 128 << 10


def return_large_blocks() -> bool:
    """Have blocks of ``LARGE_BYTES`` and more taken from the system, and given back when freed.

    glibc raises that limit, up to 32 MB, each time a larger block is freed, and then keeps freed
    ones in the heap of the thread that took them. Every decoder has a thread: after some dozens of
    720p cameras had come and gone, 95 MB of 262 were such heaps. Setting the limit keeps it where
    it is. Returns False where the C library has no such knob (musl, macOS), which is no harm.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
