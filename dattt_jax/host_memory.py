"""The C allocator: keeps what the CPU backend frees between steps, gives back what compiling leaves."""

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
# Largest input it pays for. Measured on CPU cores: a training step at 128×128 takes 0.37 s instead of 0.55 s
# (2 cores, batch 16), but a TTT step at 512×512 7.5 s instead of 6.1 s (4 cores).
_MAX_PIXELS = 256 * 256
# Before and after XLA compiles a program; JAX reports both with their seconds.
_AROUND_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration",
                     "/jax/core/compile/backend_compile_duration")
_MIN_SECONDS = 0.1  # what took less leaves little behind


def set_up_allocator(input_size: tuple[int, int]) -> None:
    """Sets glibc up for XLA's CPU backend; does nothing off Linux or with another C library.

    Call before the first array is made, once per process.

    Args:
        input_size: (height, width) the network sees.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "malloc_trim"):
        return
    if input_size[0] * input_size[1] <= _MAX_PIXELS:
        _keep_freed_memory(libc)
    _trim_around_compiling(libc)


def _keep_freed_memory(libc: ctypes.CDLL) -> None:
    """Freed memory is reused instead of handed back to the kernel.

    XLA's CPU programs allocate their temporaries anew in every call, and by default the kernel then zeroes
    every page again. The process keeps the most memory it ever needed.
    """
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
        libc.mallopt(parameter, value)


def _trim_around_compiling(libc: ctypes.CDLL) -> None:
    """What compiling took, and what reading the weights left, goes back to the kernel.

    Both are made of small pieces, of which glibc keeps hundreds of MB: a frame of MiT-b1 at 512×512 needed
    1.1 GiB with them and 0.8 GiB without.
    """
    import jax

    def trim(event: str, duration: float, **_: object) -> None:
        if event in _AROUND_COMPILING and duration > _MIN_SECONDS:
            libc.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(trim)
