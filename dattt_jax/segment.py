"""`--mode=segment`: a clip in, one mask per frame out; no ground truth, no flow files."""

import json
import time
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.estimators import flow_of_video, video_flow
from dattt_jax.parallax import parallax_check
from dattt_jax.segment_progress import SavedRun, clip_path, run_settings, start_network
from dattt_jax.segment_run import SegmentRun, count_masks
from dattt_jax.stopwatch import Stopwatch
from dattt_jax.ttt import create_strategy
from dattt_jax.ttt.monitor import frame_report, summarize
from dattt_jax.visualize import overlay
from input_pipeline.images import read_mask
from input_pipeline.video_io import Video, open_video
from input_pipeline.writers import VideoWriter, remove_leftovers, write_json


def segment(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Segments the video `config.segment.input`.

    Writes under `workdir`:

        masks/<frame>.png        0 and 255, the frame's size
        probability/<frame>.png  255 · p, if `config.segment.save_probability`
        overlay.mp4              the video with its masks, if `config.segment.overlay`
        adapted.npz              the weights after the last visit, if `config.segment.save_weights`
        summary.json             strategy, losses, whether adaptation was kept and why, timings, device
                                 (what this function returns)

    What an earlier run of the same clip left there and this one does not write is removed, but adapted.npz,
    from which this one may start. Masks are written as they are computed, and with `config.propagation` or
    `config.primary_share` anew when the last one is there. A run that was interrupted, even killed, goes on
    from its last progress.npz with the same masks as if it had not been (`config.segment.save_every_s`).

    Raises:
        UserError: whatever is wrong with the input, the weights, a field or the disk; or `workdir` holds
            masks, probabilities or an overlay of another clip or program, which would be written over.
    """
    start, watch, workdir = time.perf_counter(), Stopwatch(), Path(workdir)
    if not config.segment.input:
        raise UserError("config.segment.input is empty: give a video file or a folder of frames")
    video = open_video(config.segment.input)
    if len(video) < 2:
        raise UserError(f"{config.segment.input} has one frame: motion needs at least two")
    clip = clip_path(config)
    _check_workdir(workdir, clip)
    strategy = create_strategy(config.ttt.strategy, steps=config.ttt.steps, groups=config.ttt.groups,
                               window=config.ttt.window, reset_every=config.ttt.reset_every)
    flow = flow_of_video(video_flow(config), Path(config.segment.input).stem, video.frame_names)
    check = parallax_check(config)
    logging.info("%s: %d frames of %dx%d, %s", config.segment.input, len(video), *video.frame_size[::-1],
                 f"{strategy.steps} steps of {config.ttt.objective} a frame ({config.ttt.strategy})"
                 if strategy.steps else "no adaptation")
    network = start_network(config)
    propagation = network.propagation(config.propagation, config.primary_share)
    engine = network.engine(config.ttt, adapts=strategy.steps > 0)
    count = count_masks(config, video)
    if check:
        with watch.measure("parallax"):
            flow = check.flow(flow, video, range(count), engine, network.variables)
        if flow is check.both:
            logging.info("the camera's motion shows depth: flow without parallax counts, too")
    saved = SavedRun(workdir, run_settings(config, video, flow), network.variables,
                     config.segment.save_every_s)
    run = SegmentRun(config=config, workdir=workdir, video=video, flow=flow, engine=engine,
                     variables=network.variables, strategy=strategy, propagation=propagation, saved=saved,
                     watch=watch)
    run.check()
    write_json(workdir / "summary.json", {"input": clip, "finished": False})
    _remove_stale(workdir, set(video.frame_names[:count]), config.segment.save_probability)
    run.write_masks()
    losses = {name: record.losses for name, record in saved.records.items()}
    reports = {name: saved.records[name].report for name in video.frame_names if name in saved.records}
    if config.segment.overlay:
        with watch.measure("overlay"):
            write_overlay(video, workdir, set(losses))
    summary = {
        "input": clip, "finished": True, "frames": len(losses),
        "frame_size": list(video.frame_size), "fps": video.fps, "init": str(config.init),
        "adapted": str(config.segment.adapted), "input_size": list(config.input_size),
        "upsampling": config.upsampling, "propagation": config.propagation,
        "primary_share": config.primary_share, "objective": config.ttt.objective,
        "strategy": config.ttt.strategy, "steps": strategy.steps,
        "skipped_steps": sum(record.skipped for record in saved.records.values()),
        "adaptation": summarize(network.policy(config.ttt), list(reports.values()), strategy.steps),
        "monitor": {name: frame_report(report) for name, report in reports.items() if report},
        "flow": config.flow.to_dict() | {"identity": flow.identity}, "seed": config.seed, "losses": losses,
        "seconds": _seconds(watch, time.perf_counter() - start),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}", "jax": jax.__version__,
    }
    write_json(workdir / "summary.json", summary)
    saved.remove()
    logging.info("%d masks in %s", len(losses), workdir / "masks")
    return summary


def _check_workdir(workdir: Path, clip: str) -> None:
    """Raises a UserError where files of another clip, or of another program, would be written over."""
    path = workdir / "summary.json"
    if path.exists():
        try:
            other = json.loads(path.read_text()).get("input", "another run")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged: give another folder, or delete the file") from error
        if other != clip:
            raise UserError(f"--workdir={workdir} holds the masks of {other}: give another folder")
        return
    for written in (workdir / "masks", workdir / "probability", workdir / "overlay.mp4"):
        if written.is_file() or (written.is_dir() and any(written.iterdir())):
            raise UserError(f"{written} is not of a run of --mode=segment: give another --workdir")


def _remove_stale(workdir: Path, names: set[str], save_probability: bool) -> None:
    """Removes what an earlier run of this clip left and this one, of frames `names`, does not write."""
    for folder, wanted in ((workdir / "masks", names),
                           (workdir / "probability", names if save_probability else set())):
        remove_leftovers(folder)
        for path in folder.glob("*.png"):
            if path.stem not in wanted:
                path.unlink()
    (workdir / "overlay.mp4").unlink(missing_ok=True)  # written at the end, if at all


def write_overlay(video: Video, workdir: Path, names: set[str]) -> None:
    """Writes `workdir`/overlay.mp4: the frames called `names`, tinted with their masks in `workdir`/masks."""
    with VideoWriter(workdir / "overlay.mp4", video.fps, video.frame_size) as writer:
        for name, frame in zip(video.frame_names, video, strict=True):
            if name in names:
                writer.write(overlay(frame, read_mask(workdir / "masks" / f"{name}.png")))


def _seconds(watch: Stopwatch, total: float) -> dict[str, float]:
    """Where the `total` seconds went.

    `parallax`, `source`, `compile`, `wait_input`, `ttt`, `predict`, `wait_write`, `propagate` and `overlay`
    follow one another and make up the total with start-up; `parallax` is the check of a few frames, `source`
    a first pass, in which the unadapted network predicts what there is to learn. `decode`, `flow` and `write`
    are what two other threads were busy with meanwhile; where the network had to wait for them, that is
    `wait_input` and `wait_write`. A frame's steps and its prediction are one program: `predict` is the time
    of one prediction, run afterwards, times the frames, and `ttt` the rest of the time spent waiting for the
    network (nothing, without steps).
    """
    spent = watch.seconds
    waited = max(spent["network"] - spent["wait_input"], 0.0)
    predict = min(spent.get("predict", waited), waited)
    seconds = {"parallax": spent["parallax"], "source": spent["source"], "compile": spent["compile"],
               "wait_input": spent["wait_input"], "ttt": waited - predict, "predict": predict,
               "wait_write": spent["wait_write"], "propagate": spent["propagate"],
               "overlay": spent["overlay"], "decode": spent["decode"],
               "flow": spent["input"] - spent["decode"], "write": spent["write"], "total": total}
    return {name: round(value, 3) for name, value in seconds.items()}
