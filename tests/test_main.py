"""The command line, as a user meets it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import base

ROOT = Path(__file__).parent.parent


def main(*arguments):
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run([sys.executable, ROOT / "main.py", *arguments], cwd=ROOT, env=environment,
                          capture_output=True, text=True, check=False)


def test_help_is_help():
    done = main("--help")
    assert "--workdir" in done.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (["--config.ttt.stpes=3"], 'Did you mean "steps"'),
    (["--config.segmnet.input=x"], 'Did you mean "segment"'),
    (["--config=configs/nothing.py"], "configs/nothing.py cannot be loaded"),
    (["--config.segment.input=nowhere.mp4"], "nowhere.mp4"),
    (["--config.ttt.steps=ten"], "config.ttt.steps"),
    (["clip.mp4"], "'clip.mp4' is not a flag"),
    (["--config.input_size=(0,128)"], "config.input_size=(0, 128): give (height, width)"),
    (["--config.ttt.batch_size=0"], "config.ttt.batch_size=0: give 1 or more"),
    (["--workdir=README.md"], "--workdir=README.md: cannot make the folder"),
    (["--workdir="], "--workdir is empty: name a folder"),
    (["--mode=fly"], "train|segment|eval"),
    (["--colour=red"], "colour"),
    (["--mode=train", "--config.init=nowhere"], "weights nowhere does not exist"),
    (["--num_processes=2", "--process_id=0"], "give --coordinator=host:port too"),
    (["--config.validation.samples=0"], "config.validation.samples=0: give 1 or more"),
    (["--config.seed=9223372036854775808"], "config.seed=9223372036854775808: give 0 or more, below 2**63"),
    (["--config.train.final_learning_rate=-1e-3"], "config.train.final_learning_rate=-0.001: give 0.0 or"),
    (["--config.export.mask_bias=nan"], "config.export.mask_bias=nan: give"),
    (["--config.ttt.learning_rate=inf"], "config.ttt.learning_rate=inf: give"),
    (["--coordinator=localhost:99"], "--coordinator=localhost:99: give host:port, --num_processes and"),
])
def test_a_mistake_gives_one_line_and_status_2(arguments, message, tmp_path):
    if not any(a.startswith("--config=") for a in arguments):
        arguments = ["--config=configs/demo.py", *arguments]
    done = main("--mode=segment", f"--workdir={tmp_path}", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_sigterm_ends_a_run_in_one_line(tmp_path):
    command = [sys.executable, ROOT / "main.py", "--mode=eval", f"--workdir={tmp_path}",
               "--config=configs/dattt_synth_b0.py"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        next(line for line in run.stderr if " × " in line)  # the devices are logged before the mode begins
        run.terminate()
        *_, last = run.stderr.read().splitlines()
    assert (run.returncode, last) == (130, "error: interrupted; what was written so far is complete")


def test_score_runs_from_the_command_line(tmp_path, monkeypatch):
    """A name that is not UTF-8 is shown with a mark."""
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    video = os.fsdecode(b"caf\xe9")
    for folder in ("pred", "gt"):
        (tmp_path / folder / video).mkdir(parents=True)
        for t in range(4):
            mask = np.zeros((20, 30), np.uint8)
            mask[5:15, 5 : 15 + t] = 255
            Image.fromarray(mask).save(tmp_path / folder / video / f"{t:05d}.png")
    done = main("--mode=score", "--config=configs/score.py", f"--config.score.pred={tmp_path / 'pred'}",
                f"--config.score.gt={tmp_path / 'gt'}", "--config.score.protocol=davis16",
                f"--workdir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "caf? " in done.stdout and "100.00" in done.stdout
    assert (tmp_path / "out" / "results.json").exists()
    assert ",caf?," in (tmp_path / "out" / "results.csv").read_text()


def leaves(config, path=()):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def test_segment_starts_without_what_only_training_and_reports_need():
    """Seconds of a short clip, and memory."""
    code = ("import sys, dattt_jax.segment; "
            "print([n for n in ('orbax', 'grain', 'matplotlib', 'tensorflow_datasets') if n in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_field_is_read_somewhere():
    sources = "\n".join(p.read_text() for folder in ("dattt_jax", "input_pipeline")
                        for p in (ROOT / folder).rglob("*.py")) + (ROOT / "main.py").read_text()
    unread = [".".join(path) for path in leaves(base.get_config())
              if path[0] not in ("model", "synthetic") and f".{path[-1]}" not in sources]
    assert unread == []


def test_every_config_loads_and_adds_no_field_of_its_own():
    known = set(leaves(base.get_config()))
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem != "__init__":
            config = importlib.import_module(f"configs.{path.stem}").get_config()
            assert set(leaves(config)) == known, path
