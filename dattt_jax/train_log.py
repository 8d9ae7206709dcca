"""The training log: JSON lines, curves drawn from them, and TensorBoard where it is installed."""

import contextlib
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from absl import logging

from dattt_jax.errors import UserError
from dattt_jax.visualize import plot_curves
from input_pipeline.writers import is_disk_full, write_bytes

Line = dict[str, Any]

_LOSSES = ("loss", "bce", "silog")


class TrainLog:
    """Collects the numbers of a run and writes them into its folder; use as a context manager.

    `train_log.jsonl` has a line per `log_steps` steps and one at the end: `step`, the means over the
    steps since the line before of `loss`, `bce`, `silog` (with depth) and `grad_norm`, the last step's
    `learning_rate`, and the speed: `images_per_s`, `step_s` and `data_wait_s` (seconds per step; the
    wait for data is part of `step_s`). The first step of a run, which compiles, is left out (where it
    has a line of its own: of the speed). A validation has a line of its own: `step` and `validation`,
    a dict of fractions `J`, `F`, `JF`, at step 0 also `flow_threshold`, the same of masks made from
    the flow alone.

    On leaving, `train_loss.png` and with a validation `validation.png` are drawn. With tensorboardX
    installed, the same numbers go to `tensorboard/`.

    Attributes:
        note: the newest loss in words, '' at the start.

    Args:
        workdir: the run's folder; made if it does not exist.
        log_steps: steps per line.
        batch_size: samples per step, over all processes.
        learning_rate_fn: number of a step, from 0, -> learning rate.
        write: False for a process that only keeps `note`.
    """

    def __init__(self, workdir: Path, *, log_steps: int, batch_size: int,
                 learning_rate_fn: Callable[[int], float], write: bool = True) -> None:
        self._path = workdir / "train_log.jsonl"
        self._log_steps, self._batch_size = log_steps, batch_size
        self._learning_rate_fn, self._write = learning_rate_fn, write
        self._window: list[dict[str, float]] = []
        self._clock: float | None = None
        self._step = 0
        self._tensorboard: Any = None
        self.note = ""

    def __enter__(self) -> "TrainLog":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._write:
            # What stopped the run is worth more to the user than what keeps its curves from being drawn.
            with contextlib.suppress(UserError) if exc_type else contextlib.nullcontext():
                self._plot()

    def start(self, step: int) -> None:
        """Gets ready for step `step + 1`; lines past `step`, of a run that was cut off, are removed."""
        if not self._write:
            return
        if self._path.exists():
            kept = [line for line in self.lines() if line["step"] <= step]
            write_bytes(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        with contextlib.suppress(ModuleNotFoundError):
            writer = importlib.import_module("tensorboardX").SummaryWriter
            self._tensorboard = writer(str(self._path.with_name("tensorboard")), purge_step=step + 1)

    def add(self, step: int, metrics: dict[str, float], data_wait_s: float, *, last: bool = False) -> None:
        """Takes the numbers of one step, in order; `step` counts it as done.

        The last step of a run comes right after the one before it, so that its line has no speed.

        Raises:
            UserError: the disk is full.
        """
        self.note = f"loss {metrics['loss']:.4f}"
        self._window.append(metrics | {"data_wait_s": data_wait_s})
        self._step = step
        if last:
            self._clock = None
        if step % self._log_steps == 0:
            self._write_window()
        elif self._clock is None and not last:
            self._window, self._clock = [], time.perf_counter()

    def finish(self) -> None:
        """Writes the line of the last steps, where `log_steps` does not divide their number."""
        if self._window:
            self._write_window()

    def _write_window(self) -> None:
        count = len(self._window)
        means = {name: sum(m[name] for m in self._window) / count for name in self._window[0]}
        line = {"step": self._step, "learning_rate": float(self._learning_rate_fn(self._step - 1))} | means
        if self._clock is not None:
            seconds = (time.perf_counter() - self._clock) / count
            line |= {"step_s": seconds, "images_per_s": self._batch_size / seconds}
        self._append(line, "train")
        self._window, self._clock = [], time.perf_counter()

    def add_validation(self, step: int, scores: dict[str, float], seconds: float,
                       flow_threshold: dict[str, float] | None = None) -> None:
        """Takes the scores of a validation after `step` that took `seconds`, which are no step's.

        Raises:
            UserError: the disk is full.
        """
        text = ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items())
        if flow_threshold:
            text += f" (flow alone: J {100 * flow_threshold['J']:.1f})"
        logging.info("validation after step %d: %s", step, text)
        line = {"step": step, "validation": scores, "validation_s": seconds}
        self._append(line | ({"flow_threshold": flow_threshold} if flow_threshold else {}), "validation")
        if self._clock is not None:
            self._clock += seconds

    def lines(self) -> list[Line]:
        """What is on disk; a line that a kill cut short is left out."""
        lines = []
        for text in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
        return lines

    def _append(self, line: Line, label: str) -> None:
        if not self._write:
            return
        line = {name: _rounded(value) for name, value in line.items()}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise UserError(f"no space left on the disk of {self._path}: free some and run the "
                            "same command again, it goes on from the last checkpoint") from error
        if self._tensorboard is not None:
            values = line.get("validation", line)
            for name in values.keys() - {"step"}:
                self._tensorboard.add_scalar(f"{label}/{name}", values[name], line["step"])

    def _plot(self) -> None:
        lines = self.lines()
        trained = [line for line in lines if "loss" in line]
        validated = [line for line in lines if "validation" in line]
        if trained:
            steps = [line["step"] for line in trained]
            curves = {name: (steps, [line[name] for line in trained])
                      for name in _LOSSES if name in trained[0]}
            plot_curves(self._path.with_name("train_loss.png"), curves, "step", "loss", "training")
        if validated:
            steps = [line["step"] for line in validated]
            curves = {name: (steps, [100 * line["validation"][name] for line in validated])
                      for name in ("J", "F")}
            alone = validated[0].get("flow_threshold")
            if alone:
                curves["J of the flow alone"] = (steps, [100 * alone["J"]] * len(steps))
            plot_curves(self._path.with_name("validation.png"), curves, "step", "percent", "validation")


def _rounded(value: Any) -> Any:
    """Numbers with six digits, also inside a dict; whole ones as they are."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return value if isinstance(value, int) else float(f"{value:.6g}")
