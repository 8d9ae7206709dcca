"""`--mode=segment`: a clip in, one mask per frame out; no ground truth, no flow files."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.estimators import flow_method, flow_of_video
from dattt_jax.inference import Network, load_network, loss_values, to_mask
from dattt_jax.progress import Progress
from dattt_jax.stopwatch import Stopwatch
from dattt_jax.ttt import FrameResult, Report, Strategy, create_strategy
from dattt_jax.ttt.monitor import frame_report, summarize
from dattt_jax.visualize import overlay
from input_pipeline.clip import FlowClip
from input_pipeline.flow import FlowMethod, RenderingSource
from input_pipeline.images import read_mask
from input_pipeline.video_io import Video, open_video
from input_pipeline.writers import VideoWriter, write_json, write_mask, write_probability


def segment(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Segments the video `config.segment.input`.

    Writes under `workdir`:

        masks/<frame>.png        0 and 255, the frame's size
        probability/<frame>.png  255 · p, if `config.segment.save_probability`
        overlay.mp4              the video with its masks, if `config.segment.overlay`
        summary.json             strategy, losses, whether adaptation was kept and why, timings, device
                                 (what this function returns)

    Masks are written as they are computed; those that were written stay if the run is interrupted.

    Raises:
        UserError: whatever is wrong with the input, the weights, a field or the disk.
    """
    with Stopwatch() as watch:
        return _segment(config, Path(workdir), watch)


def _segment(config: ConfigDict, workdir: Path, watch: Stopwatch) -> dict[str, Any]:
    start = time.perf_counter()
    if not config.segment.input:
        raise UserError("config.segment.input is empty: give a video file or a folder of frames")
    video = open_video(config.segment.input)
    if len(video) < 2:
        raise UserError(f"{config.segment.input} has one frame: motion needs at least two")
    strategy = create_strategy(config.ttt.strategy, steps=config.ttt.steps, groups=config.ttt.groups,
                               window=config.ttt.window, reset_every=config.ttt.reset_every)
    flow = flow_of_video(flow_method(config), Path(config.segment.input).stem, video.frame_names)
    network = load_network(config)
    _claim(workdir, str(config.segment.input))
    losses, skipped, reports = _write_masks(config, workdir, video, flow, network, strategy, watch)
    if config.segment.overlay:
        with watch.measure("overlay"):
            write_overlay(video, workdir, set(losses))
    summary = {
        "input": str(config.segment.input), "finished": True, "frames": len(losses),
        "frame_size": list(video.frame_size), "fps": video.fps, "init": str(config.init),
        "input_size": list(config.input_size),
        "objective": config.ttt.objective, "strategy": config.ttt.strategy, "steps": strategy.steps,
        "skipped_steps": skipped,
        "adaptation": summarize(network.policy(config.ttt), list(reports.values()), strategy.steps),
        "monitor": {name: frame_report(report) for name, report in reports.items() if report},
        "flow": config.flow.to_dict() | {"identity": flow.identity}, "seed": config.seed, "losses": losses,
        "seconds": _seconds(watch, network, video, len(losses), strategy, time.perf_counter() - start),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}", "jax": jax.__version__,
    }
    write_json(workdir / "summary.json", summary)
    logging.info("%d masks in %s", len(losses), workdir / "masks")
    return summary


def _claim(workdir: Path, clip: str) -> None:
    """Marks the workdir as this clip's; refuses one that holds another clip's masks."""
    path = workdir / "summary.json"
    if path.exists():
        other = json.loads(path.read_text()).get("input")
        if other != clip:
            raise UserError(f"--workdir={workdir} holds the masks of {other}: give another folder")
    write_json(path, {"input": clip, "finished": False})


def _write_masks(config: ConfigDict, workdir: Path, video: Video, flow: FlowMethod | RenderingSource,
                 network: Network, strategy: Strategy,
                 watch: Stopwatch) -> tuple[dict[str, list[float]], int, dict[str, Report | None]]:
    """Adapts to the video and writes its masks.

    Returns:
        (losses of every frame by its name; number of steps that changed nothing, those not counted that a
        policy left out; what the policy measured of every frame, in the video's order).
    """
    losses, skipped, reports = {}, 0, {}
    clip = FlowClip(watch.iterate("decode", video), len(video), flow, config.flow.last_frame,
                    None if strategy.streams else workdir)
    watch.seconds["compile"] = 0.0  # of what follows
    with watch.measure("network"), clip, \
            Progress("segment", len(clip) * strategy.passes) as progress:
        results = network.engine(config.ttt, adapts=strategy.steps > 0).run(
            network.variables, _TimedReads(clip, watch), strategy, jax.random.key(config.seed),
            on_visited=progress.update)
        for result in results:
            name = video.frame_names[result.index]
            mask = to_mask(result.probability, name)
            losses[name] = loss_values(result.losses)
            skipped += _skipped(result)
            reports[name] = result.report
            with watch.measure("write"):
                write_mask(workdir / "masks" / f"{name}.png", mask)
                if config.segment.save_probability:
                    write_probability(workdir / "probability" / f"{name}.png", result.probability)
    return losses, skipped, {name: reports[name] for name in video.frame_names if name in reports}


def _skipped(result: FrameResult) -> int:
    """Steps of a frame that changed nothing though they were taken."""
    if result.report and result.report.stopped:
        return 0
    return int(np.sum(~result.applied))


class _TimedReads:
    """A clip whose reads are timed."""

    def __init__(self, clip: FlowClip, watch: Stopwatch) -> None:
        self._clip, self._watch = clip, watch

    def __len__(self) -> int:
        return len(self._clip)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        with self._watch.measure("read"):
            return self._clip.read(indices)


def write_overlay(video: Video, workdir: Path, names: set[str]) -> None:
    """Writes `workdir`/overlay.mp4: the frames called `names`, tinted with their masks in `workdir`/masks."""
    with VideoWriter(workdir / "overlay.mp4", video.fps, video.frame_size) as writer:
        for name, frame in zip(video.frame_names, video, strict=True):
            if name in names:
                writer.write(overlay(frame, read_mask(workdir / "masks" / f"{name}.png")))


def _seconds(watch: Stopwatch, network: Network, video: Video, frames: int, strategy: Strategy,
             total: float) -> dict[str, float]:
    """Where the `total` seconds went; what is missing is start-up.

    `decode`, `flow`, `write`, `overlay` and `compile` are measured as they happen. A frame's steps and its
    prediction are one program, so `predict` is the time of one prediction run alone afterwards, times the
    frames, and `ttt` is what remains of the time spent waiting for the network (nothing, without steps).
    """
    spent = watch.seconds.copy()  # before the prediction that is timed below
    waited = max(spent["network"] - spent["read"] - spent["write"] - spent["compile"], 0.0)
    predict = waited
    if strategy.steps:
        predict = min(network.seconds_per_prediction(next(iter(video))) * frames, waited)
    seconds = {"decode": spent["decode"], "flow": spent["read"] - spent["decode"], "ttt": waited - predict,
               "predict": predict, "write": spent["write"], "overlay": spent["overlay"],
               "compile": spent["compile"], "total": total}
    return {name: round(value, 3) for name, value in seconds.items()}
