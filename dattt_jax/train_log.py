"""The training log: JSON lines, one per few steps, and the curves drawn from them."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from dattt_jax.errors import UserError
from dattt_jax.visualize import plot_curves
from input_pipeline.writers import is_disk_full, write_bytes

_CURVES = ("loss", "bce", "silog")


class TrainLog:
    """Collects the numbers of every step and writes their means to `<workdir>/train_log.jsonl`.

    A line holds `step`, the means over the steps since the line before of `loss`, `bce`, `silog`
    (with depth) and `grad_norm`, the last step's `learning_rate`, and the speed: `images_per_s`,
    `step_s` and `data_wait_s` (seconds per step; the wait for data is part of `step_s`). The first
    step of a run, which compiles, is left out (where it has a line of its own: of the speed).

    Attributes:
        note: the newest loss in words, '' at the start.

    Args:
        workdir: an existing folder. Lines past `start_step`, of a run that was cut off after its
            last checkpoint, are removed.
        start_step: steps done when the run starts.
        log_steps: steps per line.
        batch_size: samples per step.
        learning_rate_fn: number of a step, from 0, -> learning rate.
    """

    def __init__(self, workdir: Path, *, start_step: int, log_steps: int, batch_size: int,
                 learning_rate_fn: Callable[[int], float]) -> None:
        self._path = workdir / "train_log.jsonl"
        self._log_steps, self._batch_size = log_steps, batch_size
        self._learning_rate_fn = learning_rate_fn
        self._window: list[dict[str, float]] = []
        self._clock: float | None = None
        self.note = ""
        if self._path.exists():
            kept = [line for line in self.lines() if line["step"] <= start_step]
            write_bytes(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def add(self, step: int, metrics: dict[str, float], data_wait_s: float) -> None:
        """Takes the numbers of one step, in order; `step` counts it as done.

        Raises:
            UserError: the disk is full.
        """
        self.note = f"loss {metrics['loss']:.4f}"
        self._window.append(metrics | {"data_wait_s": data_wait_s})
        if step % self._log_steps == 0:
            count = len(self._window)
            means = {name: sum(m[name] for m in self._window) / count for name in self._window[0]}
            line = {"step": step, "learning_rate": float(self._learning_rate_fn(step - 1))} | means
            if self._clock is not None:
                seconds = (time.perf_counter() - self._clock) / count
                line |= {"step_s": seconds, "images_per_s": self._batch_size / seconds}
            rounded = {name: float(f"{value:.6g}") for name, value in line.items()} | {"step": step}
            self._append(json.dumps(rounded) + "\n")
        if step % self._log_steps == 0 or self._clock is None:
            self._window, self._clock = [], time.perf_counter()

    def _append(self, text: str) -> None:
        try:
            with self._path.open("a") as file:
                file.write(text)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise UserError(f"no space left on the disk of {self._path}: free some and run the "
                            "same command again, it goes on from the last checkpoint") from error

    def lines(self) -> list[dict[str, float]]:
        """What is on disk; a line that a kill cut short is left out."""
        lines = []
        for text in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
        return lines

    def plot(self) -> None:
        """Draws the losses over the steps into `train_loss.png` beside the log."""
        lines = self.lines()
        steps = [line["step"] for line in lines]
        curves = {name: (steps, [line[name] for line in lines])
                  for name in _CURVES if lines and name in lines[0]}
        if curves:
            plot_curves(self._path.with_name("train_loss.png"), curves, "step", "loss", "training")
