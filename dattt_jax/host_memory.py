"""The C allocator: huge pages for the CPU backend, and what compiling leaves goes back to the system."""

import contextlib
import ctypes
import os
import sys

_TUNABLES = "GLIBC_TUNABLES"
# Before and after XLA compiles a program; JAX reports both with their seconds.
_AROUND_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration",
                     "/jax/core/compile/backend_compile_duration")
_MIN_SECONDS = 0.1  # what took less leaves little behind


def start_with_huge_pages() -> None:
    """Starts the program anew with glibc set to ask for pages of 2 MiB; returns in the new start.

    XLA's CPU programs allocate their temporaries anew in every call, and the kernel zeroes every page when it
    is first touched. For a TTT step of MiT-b1 at 512×512 these are half a million pages of 4 KiB, and 11 to
    16 % of its time (4 cores). glibc reads the setting when a process starts, so that it cannot be changed
    from inside. The process keeps its number, its arguments and its streams.

    Call first in a program's entry point. Does nothing off Linux, or where the environment has
    GLIBC_TUNABLES; older versions of glibc than 2.35 and other C libraries ignore the setting.
    """
    if sys.platform == "linux" and sys.executable and _TUNABLES not in os.environ:
        os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def trim_around_compiling() -> None:
    """From now on, what compiling took, and what reading the weights left, goes back to the kernel.

    Both are made of small pieces, of which glibc keeps hundreds of MB: a frame of MiT-b1 at 512×512 needed
    1.1 GiB with them and 0.8 GiB without. Does nothing off Linux or with another C library.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "malloc_trim"):
        return
    import jax

    def trim(event: str, duration: float, **_: object) -> None:
        if event in _AROUND_COMPILING and duration > _MIN_SECONDS:
            libc.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(trim)
