"""Strategies on videos: one video under every strategy on one device, and many videos on many devices."""

import dataclasses
import functools
import itertools
import json
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dattt_jax.estimators import flow_of_video
from dattt_jax.inference import loss_values, to_mask
from dattt_jax.metrics.background import FrameScorer
from dattt_jax.metrics.protocols import Protocol
from dattt_jax.metrics.scoring import FrameScore, missing_score, score_frame, video_saliency
from dattt_jax.parallax import ParallaxCheck
from dattt_jax.propagation import Propagation
from dattt_jax.stopwatch import Stopwatch, TimedClip
from dattt_jax.ttt import SOURCE, Engine, Frames, Strategy
from dattt_jax.ttt.monitor import summarize
from dattt_jax.ttt.objectives import Variables
from dattt_jax.visualize import overlay
from input_pipeline.background import BackgroundWorker
from input_pipeline.clip import PairClip
from input_pipeline.eval_pairs import evaluated_frames, frame_pairs, uses_stored_flow
from input_pipeline.eval_videos import EvalEntry, EvalVideo
from input_pipeline.flow import FlowMethod, RenderingSource
from input_pipeline.flow.nearby import NearbyFlow
from input_pipeline.images import read_mask
from input_pipeline.writers import VideoWriter, remove_leftovers, write_json, write_mask

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class VideoRunner:
    """Runs strategies on videos and keeps what came of each in `videos/<strategy>/<video>.json`.

    Attributes:
        workdir: folder of the evaluation.
        strategies: by name.
        engine: runs them; safe to use from several threads.
        protocol: says what a frame's mask, target and score are.
        flow: gives the flow that the data set does not bring; safe to use from several threads.
        last_frame: the rule for the flow of the last frame, see `flow_renderings`.
        annotated_only: adapt on and predict the annotated frames only.
        saliency: also measure the saliency of the soft maps.
        overlays: also write overlays/<strategy>/<video>.mp4.
        curves: the engine predicts after every step; keep those scores.
        seed: of the random numbers; every video has its own, whatever was run before it.
        propagation: makes the masks of a video agree over time; None leaves them as predicted.
        parallax: finds out which videos are looked at without parallax, too; None for none.
    """

    workdir: Path
    strategies: Mapping[str, Strategy]
    engine: Engine
    protocol: Protocol
    flow: FlowMethod | NearbyFlow
    last_frame: str
    annotated_only: bool
    saliency: bool
    overlays: bool
    curves: bool
    seed: int
    propagation: Propagation | None = None
    parallax: ParallaxCheck | None = None

    def record_path(self, strategy: str, video: str) -> Path:
        """The file that says that a video is done, and what came of it."""
        return self.workdir / "videos" / strategy / f"{video}.json"

    def _masks_path(self, strategy: str, video: str) -> Path:
        return self.workdir / "masks" / strategy / video

    def _overlay_path(self, strategy: str, video: str) -> Path:
        return self.workdir / "overlays" / strategy / f"{video}.mp4"

    def missing(self, video: str) -> list[str]:
        """Names of the strategies that still are to be run on a video."""
        return [name for name in self.strategies if not self.record_path(name, video).exists()]

    def run(self, entry: EvalEntry, variables: Variables, on_visited: Callable[[int], None]) -> None:
        """Runs the missing strategies on a video, on the device that `jax.default_device` says.

        Args:
            entry: the video.
            variables: of the network, on that device.
            on_visited: called with the number of frames of each visit.
        """
        todo = self.missing(entry.name)
        unseen = [name for name in self.strategies if name not in todo and self.overlays
                  and not self._overlay_path(name, entry.name).exists()]
        if not (todo or unseen):
            return
        video = entry.open()
        for name in unseen:  # run without overlays before
            self._write_overlay(name, video)
        if not todo:
            return
        wanted = evaluated_frames(video, self.last_frame, self.annotated_only)
        learns = self.predicts_first(todo)
        # Frames are decoded, their flow is computed and the source asked once for all strategies.
        streams = len(todo) == 1 and self.strategies[todo[0]].streams and not learns
        flow = flow_of_video(self.flow, video.name, video.frame_names)
        if self.parallax and len(video.frame_names) > 1:
            flow = self.parallax.flow(flow, video.frames, wanted, self.engine, variables)
        pairs = frame_pairs(video, wanted, flow, self.last_frame)
        with ExitStack() as stack:
            clip = stack.enter_context(PairClip(pairs, len(wanted), None if streams else self.workdir))
            if learns:
                results = self.engine.run(variables, clip, SOURCE, _key(self.seed, video),
                                          on_visited=on_visited)
                predicted = stack.enter_context(self.propagation.predicted(
                    clip, results, functools.partial(_those, video, wanted), self.workdir))
            for name in todo:
                reads = predicted if self.predicts_first([name]) else clip
                record = self._run(name, video, wanted, reads, flow, variables, on_visited)
                write_json(self.record_path(name, video.name), record)

    def predicts_first(self, strategies: Sequence[str]) -> bool:
        """Whether any of those strategies learns from what the unadapted network predicts of a video."""
        return self.propagation is not None and any(
            self.engine.learns_predictions(self.strategies[name]) for name in strategies)

    def _run(self, strategy_name: str, video: EvalVideo, wanted: Sequence[int], clip: Frames,
             flow: FlowMethod | RenderingSource, variables: Variables, on_visited: Callable[[int], None]
             ) -> Record:
        start, strategy, losses, reports = time.perf_counter(), self.strategies[strategy_name], {}, {}
        watch = Stopwatch()
        names, annotated = [video.frame_names[i] for i in wanted], set(video.annotated)
        masks = self._masks_path(strategy_name, video.name)
        remove_leftovers(masks, self._overlay_path(strategy_name, video.name),
                         self.record_path(strategy_name, video.name))
        gathering = nullcontext()
        if self.propagation:
            gathering = self.propagation.of_video(len(wanted), self.workdir)
        with BackgroundWorker() as writer, FrameScorer() as scorer, gathering as gathered:
            def judge(name: str, step: int, probability: np.ndarray, final: bool) -> None:
                mask = to_mask(probability, name)  # at the threshold of all protocols
                if name in annotated:
                    soft = probability if self.saliency and final else None
                    scorer.submit(str(step), name, functools.partial(_score, video, name, mask, soft))
                if final:
                    writer.submit(write_mask, masks / f"{name}.png", mask)

            for result in self.engine.run(variables, TimedClip(clip, watch), strategy,
                                          _key(self.seed, video), on_visited=on_visited):
                name = names[result.index]
                if result.final:
                    losses[name], reports[name] = loss_values(result.losses), result.report
                if gathered:
                    gathered.take(result.index, result.probability)
                else:
                    judge(name, result.step, result.probability, result.final)
            if gathered:
                agreeing = gathered.results(lambda: _those(video, wanted))
                for name, probability in zip(names, agreeing, strict=True):
                    judge(name, strategy.steps, probability, True)
            predicted_after = [strategy.steps]
            if self.curves and strategy.steps:
                predicted_after = list(range(1, strategy.steps + 1))
            for name in sorted(annotated - set(names)):  # a last frame that has no flow
                for step in predicted_after:
                    scorer.submit(str(step), name, functools.partial(self._missing_score, video, name))
            by_step = scorer.result()  # {steps before the prediction: {frame: score}}
        if self.overlays:
            self._write_overlay(strategy_name, video)
        final = by_step.get(str(strategy.steps), {})
        profile = video_saliency(final, self.protocol) if self.saliency else None
        return {
            "frames": _scores_as_json(final),
            "steps": {step: _scores_as_json(found) for step, found in by_step.items()} if self.curves else {},
            "saliency": None if profile is None else profile.tolist(),
            "losses": {name: losses[name] for name in sorted(losses)}, "category": video.category,
            "adaptation": summarize(self.engine.policy, [reports[name] for name in names], strategy.steps),
            "flow": "of the data set" if uses_stored_flow(video, flow) else flow.identity,
            "seconds": round(time.perf_counter() - start, 3),
            "input_seconds": round(watch.seconds["wait_input"], 3)}

    def _missing_score(self, video: EvalVideo, name: str) -> FrameScore:
        return missing_score(video.target(name), self.protocol, saliency=self.saliency)

    def _write_overlay(self, strategy: str, video: EvalVideo) -> None:
        """Writes the video with its masks; nothing where no frame has one."""
        masks = self._masks_path(strategy, video.name)
        frames = ((frame, path) for name, frame in zip(video.frame_names, video.frames, strict=True)
                  if (path := masks / f"{name}.png").exists())
        first = next(frames, None)
        if first is None:
            return
        with VideoWriter(self._overlay_path(strategy, video.name), video.fps, first[0].shape[:2]) as writer:
            for frame, path in itertools.chain((first,), frames):
                writer.write(overlay(frame, read_mask(path)))


def _key(seed: int, video: EvalVideo) -> jax.Array:
    """PRNG key of a video, whatever was run before it."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(video.name.encode(errors="surrogateescape")))


def _those(video: EvalVideo, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames of those numbers."""
    chosen = set(wanted)
    return (frame for index, frame in enumerate(video.frames) if index in chosen)


def _score(video: EvalVideo, name: str, mask: np.ndarray, soft: np.ndarray | None) -> FrameScore:
    return score_frame(mask, video.target(name), soft)


def _scores_as_json(scores: Mapping[str, FrameScore]) -> dict[str, Any]:
    """J, F and emptiness of frames in order of name; NaN, of frames that do not count, becomes None."""
    return {name: {"J": _number(scores[name].J), "F": _number(scores[name].F),
                   "empty_target": scores[name].empty_target} for name in sorted(scores)}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def scores_from_json(frames: Mapping[str, Any]) -> dict[str, FrameScore]:
    """Scores of a record's frames by name."""
    return {name: FrameScore(*(np.nan if score[part] is None else score[part] for part in ("J", "F")),
                             empty_target=score["empty_target"]) for name, score in frames.items()}


def read_record(path: Path) -> Record:
    """What `VideoRunner` kept of a video under a strategy."""
    return json.loads(path.read_text())


Job = tuple[VideoRunner, EvalEntry]


def run_on_devices(jobs: Sequence[Job], variables: Variables, devices: Sequence[jax.Device],
                   on_visited: Callable[[int], None]) -> None:
    """Works through jobs, one thread per device; a device that is free takes the next job.

    A single device works in this thread. Programs are compiled once per device; each device begins when the
    one before it has done its first frames, so that compilations find each other's results in the cache
    (accelerators) and do not need their memory at the same time. Results do not depend on which device ran
    a job.

    Args:
        jobs: in the order they are begun; with several devices the longest should come first.
        variables: of the network.
        devices: local devices.
        on_visited: called with the number of frames of each visit, from one thread at a time.

    Raises:
        Exception: what a job raised; those still running are ended, those waiting are not begun.
    """
    if len(devices) == 1:
        for runner, entry in jobs:
            runner.run(entry, variables, on_visited)
        return
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    lock, failures, stop = threading.Lock(), [], threading.Event()
    may_begin = [threading.Event() for _ in range(len(devices) + 1)]
    may_begin[0].set()

    def visited(number: int, count: int) -> None:
        if stop.is_set():
            raise _Stopped
        may_begin[number + 1].set()
        with lock:
            on_visited(count)

    def work(number: int, device: jax.Device) -> None:
        try:
            may_begin[number].wait()
            with jax.default_device(device):
                own = jax.device_put(variables, device)
                while not stop.is_set():
                    try:
                        runner, entry = waiting.get_nowait()
                    except queue.Empty:
                        return
                    runner.run(entry, own, functools.partial(visited, number))
        except _Stopped:
            return
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            may_begin[number + 1].set()

    threads = [threading.Thread(target=work, args=(number, device), name=f"eval-{number}", daemon=True)
               for number, device in enumerate(devices)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:  # Ctrl-C, too; they end after the visit they are at
        stop.set()
    if failures:
        raise failures[0]


class _Stopped(Exception):
    """Another device's job failed."""
