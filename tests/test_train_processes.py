"""Training in real processes: two that train together, and one that is killed again and again."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from dattt_jax import parallel
from dattt_jax.checkpoints import load_variables, save_variables
from dattt_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("tiny_backbone")

CHILD = Path(__file__).parent / "training_child.py"


@pytest.fixture
def weights(tmp_path):
    model = tiny.tiny_config().model
    save_variables(tmp_path / "weights", tiny.filled(model), model)
    return str(tmp_path / "weights")


def start(**settings):
    return subprocess.Popen([sys.executable, CHILD, json.dumps(settings)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def lines(workdir):
    return [json.loads(line) for line in (workdir / "train_log.jsonl").read_text().splitlines()]


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), found, expected)


def test_two_processes_train_the_same_model_as_one_and_stop_together(tmp_path, weights):
    """A signal to one stops both; then one process of four devices goes on where the two stopped."""
    model = tiny.tiny_config().model
    settings = {"init": weights, "sgd": True, "save_steps": 1}
    shared = settings | {"workdir": str(tmp_path / "together"), "steps": 100000,
                         "coordinator": f"127.0.0.1:{free_port()}", "processes": 2}
    pair = [start(**shared, process=i) for i in range(2)]
    log = tmp_path / "together" / "train_log.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert time.monotonic() < deadline and pair[0].poll() is None, pair[0].communicate()[0]
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)
    first, second = map(finish, pair)
    assert "stopped by another process after step" in first
    assert "stopped by SIGTERM after step" in second
    steps = [int(output.split("after step ")[1].split()[0]) for output in (first, second)]
    assert steps[0] == steps[1] == max(int(p.name) for p in (tmp_path / "together/checkpoints").iterdir())

    # On four devices as below, which compiles once; that four equal one is tested in test_train_step.
    finish(start(**settings, workdir=str(tmp_path / "alone"), steps=steps[0] + 1, devices=4))
    assert_close(load_variables(tmp_path / "together", model),
                 load_variables(tmp_path / "alone" / "checkpoints" / str(steps[0]), model))
    losses = [[line["loss"] for line in lines(tmp_path / name)] for name in ("alone", "together")]
    np.testing.assert_allclose(losses[1], losses[0][:-1], rtol=1e-5)
    assert len(losses[1]) == steps[0]  # one process of the two writes the log

    # The checkpoint of two processes is read by one on four devices, which goes on with the data they left.
    output = finish(start(**settings, workdir=str(tmp_path / "together"), steps=steps[0] + 1, devices=4))
    assert "resuming from" in output
    assert_close(load_variables(tmp_path / "together", model), load_variables(tmp_path / "alone", model))


def test_a_coordinator_that_nobody_starts_is_told(monkeypatch):
    monkeypatch.setattr(parallel, "_JOIN_S", 0.1)
    with pytest.raises(UserError, match=r"--coordinator=127\.0\.0\.1:\d+: process 0 does not answer"):
        parallel.join_processes(f"127.0.0.1:{free_port()}", 2, 1)


def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path, weights):
    """Kills while it starts, steps, saves and tidies up; the seed only picks the moments."""
    model = tiny.tiny_config().model
    moments = random.Random(0)
    server = subprocess.Popen([sys.executable, CHILD, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    log = tmp_path / "cut" / "train_log.jsonl"

    def run(workdir):
        request = {"workdir": str(workdir), "init": weights, "steps": 12}
        print(json.dumps(request), file=server.stdin, flush=True)
        return int(server.stdout.readline())

    def status():
        return int(server.stdout.readline())

    def logged():
        return len(log.read_text().splitlines()) if log.exists() else 0

    def kill_after(child, new_lines):
        before, deadline = logged(), time.monotonic() + 120
        while new_lines and logged() < before + new_lines and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.04 if new_lines else 2.0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return status() == -signal.SIGKILL

    try:
        run(tmp_path / "whole")
        assert status() == 0
        kills = [kill_after(run(tmp_path / "cut"), new_lines) for new_lines in (0, 3, 2)]
        steps = {p.name for p in (tmp_path / "cut" / "checkpoints").iterdir() if p.name.isdecimal()}
        assert steps
        for step in steps:  # whatever has a step's name can be read
            load_variables(tmp_path / "cut" / "checkpoints" / step, model)
        run(tmp_path / "cut")
        assert status() == 0
    finally:
        server.kill()
        server.communicate()
    assert sum(kills) >= 2
    expected, found = (load_variables(tmp_path / name, model) for name in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    losses = [{(line["step"], line["loss"]) for line in lines(tmp_path / name)} for name in ("whole", "cut")]
    assert {step for step, _ in losses[0]} == set(range(1, 13))
    assert losses[1] <= losses[0]  # a resumed run logs again what it does again, and that was the same
