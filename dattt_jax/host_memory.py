"""The C allocator, told to keep what the CPU backend frees."""

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Makes glibc reuse freed memory instead of handing it back to the kernel; nothing elsewhere.

    XLA's CPU programs allocate their temporaries, up to gigabytes, anew in every call, and by default the
    kernel then zeroes every page again: a third of the time of a small training step. The process keeps
    the most memory it ever needed. Call before the first array is made.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
        mallopt(parameter, value)
