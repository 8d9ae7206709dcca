"""What the C allocator is told, seen in processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the allocator of Linux")

SCRIPT = """
from pathlib import Path

import jax

from dattt_jax import host_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

host_memory.trim_around_compiling()
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


@pytest.mark.parametrize(("min_seconds", "given_back"), [(0, True), (3600, False)])
def test_freed_memory_goes_back_when_a_program_is_compiled(min_seconds, given_back):
    output = subprocess.run([sys.executable, "-c", SCRIPT.format(min_seconds=min_seconds)], check=True,
                            capture_output=True, text=True).stdout
    freed, trimmed = map(float, output.split())
    assert freed < 50
    assert (trimmed > 250) is given_back


ANEW = """
import os, re, sys
from pathlib import Path

from dattt_jax.host_memory import start_with_huge_pages

print("started", flush=True)
start_with_huge_pages()
large = b"x" * 2**26
smaps = Path("/proc/self/smaps_rollup")
found = re.search(r"AnonHugePages: +([0-9]+)", smaps.read_text() if smaps.exists() else "")
print(os.getpid(), sys.argv[1:], os.environ["GLIBC_TUNABLES"], sys.flags.optimize, sys.stdin.read(),
      found.group(1) if found else 0, sep="|")
"""


def start(**environment):
    kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    child = subprocess.Popen([sys.executable, "-O", "-c", ANEW, "--a b", "c"], env=kept | environment,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    *starts, line = child.communicate("input")[0].splitlines()
    assert child.returncode == 0
    pid, arguments, tunables, optimize, streamed, huge_kb = line.split("|")
    assert (int(pid), arguments, optimize, streamed) == (child.pid, "['--a b', 'c']", "1", "input")
    return len(starts), tunables, int(huge_kb)


def test_it_starts_anew_once_with_huge_pages_and_keeps_number_arguments_and_streams():
    starts, tunables, huge_kb = start()
    assert (starts, tunables) == (2, "glibc.malloc.hugetlb=1")
    allowed = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if os.confstr("CS_GNU_LIBC_VERSION") >= "glibc 2.35" and allowed.exists() \
            and re.search(r"\[(madvise|always)\]", allowed.read_text()):
        assert huge_kb >= 2048


def test_what_the_user_told_glibc_stays():
    assert start(GLIBC_TUNABLES="glibc.malloc.tcache_count=7")[:2] == (1, "glibc.malloc.tcache_count=7")
