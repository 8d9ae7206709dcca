"""Samples made in worker processes."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dattt_jax.errors import UserError
from input_pipeline.loader import SAMPLE, make_loader
from input_pipeline.processes import InProcesses
from input_pipeline.synthetic import SyntheticConfig, SyntheticTrainSource

_ASKER = """
import sys
from tests.test_processes import Workers
from input_pipeline.processes import InProcesses
if __name__ == "__main__":
    pool = InProcesses(Workers(), 2)
    print(pool[0]["process"], flush=True)
    sys.stdin.read()
"""


@dataclasses.dataclass(frozen=True)
class Workers:
    """Sample i tells which process made it; 5 takes a while, 6 kills its maker, 7 is refused."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 5:
            time.sleep(0.5)
        if index == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 7:
            raise UserError("frame 7 is damaged")
        return {"process": np.int64(os.getpid()), "index": np.int64(index)}

    def name(self, index):
        return f"worker {index}"


def test_batches_are_those_of_threads():
    source = SyntheticTrainSource(SyntheticConfig(size=(48, 48), num_frames=4), 3, 40, "exact")
    with InProcesses(source, 2) as made:
        assert len(made) == 40 and made.name(5) == source.name(5)
        ours, plain = (make_loader(s, batch_size=3, seed=1, num_threads=2) for s in (made, source))
        for _ in range(3):
            found, expected = next(ours), next(plain)
            assert set(found) == set(expected) >= {"image", "flow", "mask", "depth", SAMPLE}
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array)


def test_samples_are_made_elsewhere_and_by_several():
    with InProcesses(Workers(), 2) as made:
        makers = set()
        threads = [threading.Thread(target=lambda: [makers.add(int(made[5]["process"])) for _ in range(6)])
                   for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(makers) == 2 and os.getpid() not in makers


def test_an_error_of_a_sample_is_told_and_a_dead_worker_too():
    with InProcesses(Workers(), 1) as made:
        with pytest.raises(UserError, match="frame 7 is damaged"):
            made[7]
        assert made[1]["index"] == 1
        with pytest.raises(UserError, match=r"killed.*lower config.train.threads"):
            made[6]


def test_workers_leave_signals_to_the_process_that_asks():
    with InProcesses(Workers(), 1) as made:
        worker = int(made[0]["process"])
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, number)
        assert made[1]["process"] == worker


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_asks(sent):
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", _ASKER], cwd=root, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        worker = int(child.stdout.readline())
        child.send_signal(sent)
        child.wait(30)
        for _ in range(300):
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
    pytest.fail("the worker lives on")
