"""The C allocator, told to keep what the CPU backend frees."""

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
# Largest input it pays for. Measured on CPU cores: a training step at 128×128 takes 0.37 s instead of 0.55 s
# (2 cores, batch 16), but a TTT step at 512×512 7.5 s instead of 6.1 s (4 cores).
_MAX_PIXELS = 256 * 256


def keep_freed_memory(input_size: tuple[int, int]) -> None:
    """Makes glibc reuse freed memory instead of handing it back to the kernel, where that pays.

    XLA's CPU programs allocate their temporaries anew in every call, and by default the kernel then zeroes
    every page again. The process keeps the most memory it ever needed. Call before the first array is made.

    Args:
        input_size: (height, width) the network sees; nothing is done for large ones, nor off Linux.
    """
    if sys.platform != "linux" or input_size[0] * input_size[1] > _MAX_PIXELS:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
        mallopt(parameter, value)
