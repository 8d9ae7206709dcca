"""From the frames of a clip to its masks on disk: decoding, flow, the network and writing, side by side."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from dattt_jax.estimators import renderings_shape
from dattt_jax.inference import to_mask
from dattt_jax.progress import Progress
from dattt_jax.propagation import Propagation, VideoPropagation
from dattt_jax.segment_progress import LOGITS, SavedRun, check_save_weights, frame_record, pairs_from
from dattt_jax.stopwatch import Stopwatch, TimedClip
from dattt_jax.ttt import SOURCE, Engine, Frames, Strategy
from dattt_jax.ttt import Progress as EngineProgress
from dattt_jax.ttt.objectives import Variables
from dattt_jax.ttt.steps import AdaptState, Batch
from dattt_jax.ttt.weights import save_difference
from input_pipeline.background import BackgroundWorker
from input_pipeline.clip import PairClip
from input_pipeline.flow import FlowMethod, RenderingSource
from input_pipeline.video_io import Video
from input_pipeline.writers import write_mask, write_probability


def count_masks(config: ConfigDict, video: Video) -> int:
    """How many frames of a video get a mask, the first ones."""
    return len(video) - (config.flow.last_frame == "drop")


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentRun:
    """A clip, what its masks are made with, and where they go.

    Attributes:
        config: of the run.
        workdir: where masks, probabilities and adapted weights are written.
        video: the clip.
        flow: how its flow is made.
        engine: runs the network.
        variables: of the network, unadapted.
        strategy: by which it adapts.
        propagation: how masks are made to agree over time; None if they are not.
        saved: the progress of the run; when masks are written it knows their frames.
        watch: where time goes, under the names of `segment`'s summary.
    """

    config: ConfigDict
    workdir: Path
    video: Video
    flow: FlowMethod | RenderingSource
    engine: Engine
    variables: Variables
    strategy: Strategy
    propagation: Propagation | None
    saved: SavedRun
    watch: Stopwatch

    def check(self) -> None:
        """Raises a UserError where `config.segment.save_weights` cannot be done; nothing is written yet."""
        check_save_weights(self.config, self.strategy, self._shapes)

    def write_masks(self) -> None:
        """Adapts to the video and writes its masks, or what is left to do of both.

        Raises:
            UserError: whatever is wrong with the frames or the disk.
        """
        start = self.saved.restore(self._shapes)
        known = len(self.saved.records)
        with ExitStack() as stack:
            plain = self._open_clip(stack, start.frames if start else 0)
            writer = stack.enter_context(BackgroundWorker())
            clip = self._with_predictions(stack, plain) if self._learns else plain
            gathered = self.propagation and stack.enter_context(
                self.propagation.of_video(self.length, self.workdir, LOGITS))
            end = self._adapt(clip, start, writer, gathered)
            if self.strategy.steps:
                self.watch.seconds["predict"] = (len(self.saved.records) - known) * (
                    self.engine.seconds_per_prediction(self.variables, self._shown, self.strategy))
            if gathered:
                self._propagate(gathered, writer)
        if self.config.segment.save_weights:
            save_difference(self.workdir / "adapted.npz", end.state, self.variables,
                            precision=self.config.segment.save_weights)

    @property
    def length(self) -> int:
        """Frames that get a mask."""
        return count_masks(self.config, self.video)

    @property
    def _learns(self) -> bool:
        """Whether there is a first pass, whose predictions teach the next."""
        return self.propagation is not None and self.engine.learns_predictions(self.strategy)

    @functools.cached_property
    def _shown(self) -> Batch:
        """What the engine is shown of one frame, of zeros."""
        size = self.video.frame_size
        shown = {"image": np.zeros((1, *size, 3), np.uint8),
                 "flow": np.zeros((1, *renderings_shape(self.flow, size)), np.uint8)}
        if self._learns:
            shown["prediction"] = np.zeros((1, *self.propagation.grid), np.float32)
        return shown

    @functools.cached_property
    def _shapes(self) -> AdaptState:
        """Of what adaptation carries."""
        return self.engine.state_shapes(self.variables, self._shown, self.strategy)

    def _open_clip(self, stack: ExitStack, visited: int) -> Frames:
        """The video with its flow, made in a thread; from frame `visited` on if it is read once, in order."""
        streams = self.strategy.streams and not self._learns
        first = visited if streams else 0
        pairs = pairs_from(first, self.watch.iterate("decode", self.video), len(self.video), self.flow,
                           self.config.flow.last_frame)
        return stack.enter_context(PairClip(self.watch.iterate("input", pairs), self.length,
                                            None if streams else self.workdir, first=first))

    def _with_predictions(self, stack: ExitStack, clip: Frames) -> Frames:
        """The clip with what the unadapted network predicts of it."""
        with self.watch.measure("source"), Progress("predict", 2 * self.length) as bar:
            predictions = self.engine.run(self.variables, clip, SOURCE, self._key, on_visited=bar.update)
            return stack.enter_context(self.propagation.predicted(
                clip, predictions, functools.partial(self._frames, bar), self.workdir))

    def _adapt(self, clip: Frames, start: EngineProgress | None, writer: BackgroundWorker,
               gathered: VideoPropagation | None) -> EngineProgress | None:
        """Runs the strategy from `start` on and writes its masks; gives where it ended."""
        progress, saved = start, self.saved

        def keep(now: EngineProgress) -> None:
            nonlocal progress
            progress = now
            if saved.due():
                writer.submit(saved.saving(now))  # after the masks it counts on

        with Progress("segment", self.length * self.strategy.passes,
                      initial=start.frames if start else 0) as bar:
            with self.watch.measure("compile"):  # while the first frames and their flow are made
                self.engine.warm_up(self.variables, self._shown, self.strategy)
            results = self.engine.run(self.variables, TimedClip(clip, self.watch), self.strategy, self._key,
                                      on_visited=bar.update, start=start, on_progress=keep,
                                      progress_due=saved.due)
            for result in self.watch.iterate("network", results):
                name = self.video.frame_names[result.index]
                mask = to_mask(result.probability, name)
                if gathered:
                    gathered.take(result.index, result.probability)
                saved.records[name] = frame_record(result)
                with self.watch.measure("wait_write"):
                    writer.submit(self._write, name, mask, result.probability)
        return progress

    def _propagate(self, gathered: VideoPropagation, writer: BackgroundWorker) -> None:
        """Writes the masks anew, as they agree over time."""
        with self.watch.measure("propagate"), Progress("propagate", 2 * self.length) as bar:
            agreeing = gathered.results(functools.partial(self._frames, bar))
            for name, probability in zip(self.video.frame_names, agreeing, strict=False):
                writer.submit(self._write, name, to_mask(probability, name), probability)

    @property
    def _key(self) -> jax.Array:
        return jax.random.key(self.config.seed)

    def _frames(self, bar: Progress) -> Iterator[np.ndarray]:
        """The frames that get masks, each counted when it has been used."""
        for frame in itertools.islice(self.video, self.length):
            yield frame
            bar.update(1)

    def _write(self, name: str, mask: np.ndarray, probability: np.ndarray) -> None:
        with self.watch.measure("write"):
            write_mask(self.workdir / "masks" / f"{name}.png", mask)
            if self.config.segment.save_probability:
                write_probability(self.workdir / "probability" / f"{name}.png", probability)
