"""What a result was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless", "torch", "torchvision")


def describe():
    """Processor, cores, memory, load and versions; ask at the start, so that a loaded run is seen."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory / 2**30, 1),
            "load_at_start": [round(load, 2) for load in os.getloadavg()], "versions": versions}


def cpu_model():
    """The processor's name as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def peak_memory_gib():
    """Most memory this process has held so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("/proc/self/status has no VmHWM")
