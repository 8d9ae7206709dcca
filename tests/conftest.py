"""Four CPU devices, parsed absl flags and the parity table, for every test and worker of pytest-xdist."""

import contextlib
import ctypes
import gc
import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

import pytest
from absl import flags

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
# Unknown flags are fatal, so these are for the jaxlib that was tried. XLA splits a program to compile parts
# of it side by side, which costs more than it gains where two workers have two cores.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
    # Compiling takes half as long without XLA's newer emitters, but two programs of the same steps may then
    # differ in the last bit: `make test` runs the tests marked `exact` by themselves, without this.
    if os.environ.get("COMPILE_QUICKLY"):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of the suite's time and many tests build the same small networks: programs compiled in
# this session are kept in a folder of its own, for the workers and the commands that tests start too.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="dattt_jax_test_programs_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
# Without LLVM's optimisations compiling takes half as long, and results differ by rounding alone. Tests
# that ask for the programs that users get, whole networks against the authors' among them, take the fixture
# `optimised`.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

# Grain reads absl flags when it starts workers; under pytest nobody parses them.
flags.FLAGS.mark_as_parsed()


# Files of few but long tests: begun first, so that no worker is left with one of them at the end.
_FIRST = ("test_train_processes.py", "test_train_step.py", "test_segment_progress.py",
          "test_train_golden.py", "test_ttt_golden.py", "test_e2e_golden.py", "test_framing.py",
          "test_segment.py", "test_ttt_dattt.py", "test_train.py", "test_models.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Files of `_FIRST` in front, in their order; tests with the programs of users are `exact`."""
    for item in items:
        if "optimised" in item.fixturenames:
            item.add_marker("exact")
    place = {name: i for i, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(_FIRST)))


@pytest.fixture
def tiny_backbone(monkeypatch):
    """'mit_b0' has the sizes of `tiny`."""
    _shrink(monkeypatch)


@pytest.fixture(scope="module")
def tiny_backbones():
    """The same for a whole file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _shrink(monkeypatch)
        yield


def _shrink(monkeypatch):
    import tiny

    from dattt_jax.models import mit

    monkeypatch.setitem(mit.MIT_SIZES, "mit_b0", tiny.SIZES)


@pytest.fixture(scope="module")
def shared_engines():
    """Runs of a file share the programs of what is set alike: each is traced and compiled once.

    On a CPU `config.ttt.chunk` of 0 is 1; what makes a strategy comes with the run, not with the engine.
    """
    from dattt_jax.inference import Network

    made = {}

    def shared(name, *free):
        original = getattr(Network, name)

        def method(self, *args, **kwargs):
            settings = [{k: v for k, v in arg.to_dict().items() if k not in free} | {"chunk": arg.chunk or 1}
                        if hasattr(arg, "to_dict") else arg for arg in args]
            key = (name, self.model, self.input_size, self.upsampling, self.look, str(settings), str(kwargs))
            if key not in made:
                made[key] = original(self, *args, **kwargs)
            return made[key]

        return method

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "engine", shared("engine", "strategy", "steps", "groups", "window"))
        patch.setattr(Network, "propagation", shared("propagation"))
        yield


@pytest.fixture
def optimised():
    """What is compiled in this test is compiled as for users."""
    import jax

    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def _programs_are_forgotten():
    """Compiled programs of a file of tests are dropped after it: all together they take 10 GiB."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def pytest_sessionfinish(session):
    """A worker hands its part of the parity table to the process that prints it."""
    import parity

    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["parity"] = list(parity.LARGEST.items())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Takes a worker's part of the parity table."""
    import parity

    for what, (largest, kind) in getattr(node, "workeroutput", {}).get("parity", ()):
        parity.remember(what, largest, kind)


def pytest_terminal_summary(terminalreporter):
    """Prints the parity table of the tests that ran."""
    import parity

    if parity.LARGEST:
        terminalreporter.section("largest difference from the authors' numbers")
        for what, (error, kind) in sorted(parity.LARGEST.items()):
            terminalreporter.write_line(f"{error:9.2g} {kind}  {what}")
