"""What lets `--mode=segment` go on where it was cut off: the adaptation's carry and the frames so far."""

import copy
import dataclasses
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.inference import Network, load_network, loss_values
from dattt_jax.run_settings import first_difference
from dattt_jax.ttt import FrameResult, Progress, Report, Strategy
from dattt_jax.ttt.objectives import Variables
from dattt_jax.ttt.steps import AdaptState
from dattt_jax.ttt.weights import (
    PRECISIONS,
    load_adapted,
    load_notes,
    load_progress,
    save_progress,
)
from input_pipeline.flow import BatchFlowMethod, FlowMethod, RenderingSource, flow_renderings
from input_pipeline.video_io import IMAGE_SUFFIXES, Video

_FILE = "progress.npz"
LOGITS = "predictions.tmp"
"""Name of the file of what is known of predicted frames until the last one is, where masks propagate."""


@dataclasses.dataclass(frozen=True)
class FrameRecord:
    """What is known of a frame that has its mask.

    Attributes:
        losses: of its steps, as of `loss_values`.
        skipped: steps that changed nothing though they were taken.
        report: what a policy measured; None under `off`.
    """

    losses: list[float | None]
    skipped: int
    report: Report | None


def frame_record(result: FrameResult) -> FrameRecord:
    """The record of a prediction. Steps that a policy left out do not count as skipped."""
    stopped = result.report is not None and result.report.stopped
    skipped = 0 if stopped else int(np.sum(~result.applied))
    return FrameRecord(loss_values(result.losses), skipped, result.report)


def start_network(config: ConfigDict) -> Network:
    """The network of `config.init`, with the adaptation `config.segment.adapted` applied where it is named.

    Raises:
        UserError: as `load_network` and `load_adapted`.
    """
    network = load_network(config)
    if not config.segment.adapted:
        return network
    adapted = load_adapted(config.segment.adapted, jax.device_get(network.variables))
    return dataclasses.replace(network, variables=jax.device_put(adapted))


def check_save_weights(config: ConfigDict, strategy: Strategy, shapes: AdaptState) -> None:
    """Raises a UserError, before hours of work, where `config.segment.save_weights` cannot be done."""
    precision = config.segment.save_weights
    if precision and precision not in PRECISIONS:
        raise UserError(f"config.segment.save_weights={precision!r} is none of {', '.join(PRECISIONS)}")
    if precision and not (strategy.steps and shapes.trainable):
        raise UserError(f"config.segment.save_weights={precision!r}: config.ttt.strategy="
                        f"{config.ttt.strategy!r} with config.ttt.objective={config.ttt.objective!r} trains "
                        "no weights")


def clip_path(config: ConfigDict) -> str:
    """The path of `config.segment.input` from the root, which tells clips apart; links are not followed."""
    return os.path.abspath(config.segment.input)


def run_settings(config: ConfigDict, video: Video, flow: FlowMethod | RenderingSource) -> dict[str, Any]:
    """What the masks of a run depend on beside the source weights, by the names of fields of `config`."""
    clip = clip_path(config)
    return {"segment.input": [clip, _stamp(clip), len(video), *video.frame_size],
            "segment.save_probability": config.segment.save_probability,
            "flow": [flow.identity, config.flow.last_frame], "ttt": config.ttt.to_dict() | {"chunk": 0},
            "model": config.model.to_dict(), "input_size": list(config.input_size),
            "upsampling": config.upsampling, "propagation": config.propagation,
            "primary_share": config.primary_share, "seed": config.seed}


def _stamp(clip: str) -> int | str:
    """Tells a clip's contents from others'. Of a folder the frames alone count: the workdir may be in it."""
    if not os.path.isdir(clip):
        return os.stat(clip).st_mtime_ns
    digest = hashlib.sha256()
    for path in sorted(Path(clip).iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            digest.update(f"{path.name!r} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


class SavedRun:
    """The progress of a run in `workdir`/progress.npz, written every `every_s` seconds.

    Args:
        workdir: of the run, with the masks of its frames.
        settings: plain values of everything that masks depend on; progress of other settings is not used.
        source: the variables that the run adapts.
        every_s: seconds between two saves; 0 for none.

    Attributes:
        records: of the frames that have their masks, by name; those of the run before a crash included.
    """

    def __init__(self, workdir: Path, settings: Mapping[str, Any], source: Variables, every_s: float) -> None:
        self._path, self._masks, self._logits = workdir / _FILE, workdir / "masks", workdir / LOGITS
        self._settings = json.loads(json.dumps(settings))  # as a file gives them back
        self._source = jax.device_get(source)
        self._every_s, self._saved = every_s, time.monotonic()
        self.records: dict[str, FrameRecord] = {}

    def restore(self, shapes: AdaptState) -> Progress | None:
        """Where the run before was cut off, or None to start at the first frame; the log says why.

        Progress that is not this run's is removed.

        Args:
            shapes: of the run's carry.
        """
        if not self._path.exists():
            return None
        try:
            notes = load_notes(self._path)
            difference = first_difference(notes["settings"], self._settings)
            if difference:
                raise UserError("config.{} was {!r}, now {!r}".format(*difference))
            lost = [name for name in notes["records"] if not (self._masks / f"{name}.png").exists()]
            if lost:
                raise UserError(f"the mask of frame {lost[0]} is gone")
            gathers = self._settings["propagation"] or self._settings["primary_share"]
            if gathers and not self._logits.exists():
                raise UserError(f"{self._logits} is gone")
            progress = load_progress(self._path, shapes, self._source)
        except UserError as error:
            logging.info("starting at the first frame, not from %s: %s", self._path, error)
            self.remove()  # or it would fit again, when its masks have been overwritten
            return None
        self.records = {name: _from_json(record) for name, record in notes["records"].items()}
        logging.info("going on from %s: %d frames have their masks", self._path, len(self.records))
        return progress

    def due(self) -> bool:
        """Whether it is time to save."""
        return self._every_s > 0 and time.monotonic() - self._saved >= self._every_s

    def saving(self, progress: Progress) -> Callable[[], None]:
        """What will save `progress`, once the masks of all frames in `records` are written.

        Args:
            progress: as `Engine.run` hands to `on_progress`; copied here.
        """
        self._saved = time.monotonic()
        progress = Progress(progress.frames, jax.device_get(progress.state), copy.deepcopy(progress.losses))
        notes = {"settings": self._settings,
                 "records": {name: dataclasses.asdict(record) for name, record in self.records.items()}}
        return lambda: save_progress(self._path, progress, self._source, notes)

    def remove(self) -> None:
        """Ends: the next run is a new one."""
        for path in (self._path, self._logits):
            path.unlink(missing_ok=True)


def _from_json(record: dict[str, Any]) -> FrameRecord:
    report = record["report"]
    return FrameRecord(record["losses"], record["skipped"], report and Report(**report))


def pairs_from(first: int, frames: Iterable[np.ndarray], count: int, method: FlowMethod | RenderingSource,
               last_frame: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `flow_renderings`, from frame `first` on; no flow of earlier frames is computed needlessly.

    Args:
        first: index of the first frame wanted.
        frames: all `count` frames of the video.
        count: their number.
        method: see `flow_renderings`.
        last_frame: see `flow_renderings`.
    """
    if isinstance(method, RenderingSource):
        return method.renderings(frames, last_frame, range(first, count))
    left_out = max(min(first, count - 2), 0)
    if isinstance(method, BatchFlowMethod):  # the same batches, or the flow may differ in its last bit
        left_out -= left_out % method.batch_size
    pairs = flow_renderings(itertools.islice(frames, left_out, None), method, last_frame)
    return itertools.islice(pairs, first - left_out, None)
