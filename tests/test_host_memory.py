"""Memory that goes back to the kernel, seen in a process of its own."""

import subprocess
import sys

import pytest

SCRIPT = """
from pathlib import Path

import jax

from dattt_jax import host_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

host_memory.set_up_allocator((512, 512))
host_memory._MIN_SECONDS = {min_seconds}
jax.numpy.zeros(3)
small = [bytes(1000) for _ in range(300_000)]
last = bytes(1000)  # above all of them: glibc keeps what is free below
before = resident_mb()
del small
kept = resident_mb()
jax.jit(lambda x: jax.numpy.sin(x) * 3)(1.0)
print(before - kept, kept - resident_mb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of Linux")
@pytest.mark.parametrize(("min_seconds", "given_back"), [(0, True), (3600, False)])
def test_freed_memory_goes_back_when_a_program_is_compiled(min_seconds, given_back):
    output = subprocess.run([sys.executable, "-c", SCRIPT.format(min_seconds=min_seconds)], check=True,
                            capture_output=True, text=True).stdout
    freed, trimmed = map(float, output.split())
    assert freed < 50
    assert (trimmed > 250) is given_back
