"""The engine: runs an objective under a strategy over the frames of one video.

A visit (at most a chunk of frames) is one dispatch: a jitted `lax.scan` over frames, inside it a `lax.scan`
over gradient steps; the carry holds the trainable variables and the optimiser state and goes on from
dispatch to dispatch. The last chunk of a video is padded and padded frames are skipped, so the length of a
video neither recompiles nor changes a bit. The engine knows an objective, a prediction function and a
parameter filter; it knows neither DATTT nor files nor configs.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from dattt_jax.device_memory import is_out_of_memory
from dattt_jax.ttt.monitor import OFF, Policy, Report
from dattt_jax.ttt.objectives import Array, Frame, Variables
from dattt_jax.ttt.steps import AdaptState, Batch, Problem, fresh_state, label_frames, run_visit
from dattt_jax.ttt.strategies import Strategy, Visit


@dataclasses.dataclass(frozen=True)
class FrameResult:
    """A frame's prediction.

    Attributes:
        index: frame number in the video.
        step: the frame's own gradient steps taken before this prediction.
        probability: float32 [H, W].
        losses: float32 [steps], in the order the steps were taken; zeros for those still to come.
        applied: bool [steps]; False where a zero or non-finite loss or gradient left the weights alone.
        report: what the policy measured; None under `off`.
    """

    index: int
    step: int
    probability: np.ndarray
    losses: np.ndarray
    applied: np.ndarray
    report: Report | None = None

    @property
    def final(self) -> bool:
        """Whether this is the frame's reported prediction: the one after its own last step."""
        return self.step == len(self.losses)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is: enough to go on from there.

    Attributes:
        frames: frames visited so far, those of earlier passes and groups included.
        state: the carry after them.
        losses: (losses, applied) as of `FrameResult`, by the index of frames that are still to be predicted.
    """

    frames: int
    state: AdaptState
    losses: Mapping[int, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)


class Frames(Protocol):
    """A video as the engine reads it."""

    def __len__(self) -> int:
        """Number of frames."""

    def read(self, indices: np.ndarray) -> Batch:
        """Arrays of those frames, stacked along a first axis of len(indices)."""


class Engine:
    """Compiled adaptation of one problem; reuse it for every video.

    Args:
        problem: what to adapt and how to predict.
        chunk: frames per dispatch. Device memory grows with it; results do not depend on it. Where the device
            has not enough memory it is halved.
        per_step: also predict after every step (the paper's Figure 5); costs a forward pass each.
        policy: what is done with frames that adaptation made worse; not together with `per_step`.

    Raises:
        ValueError: the policy needs `problem.view` or does not go with `per_step`.
    """

    def __init__(self, problem: Problem, *, chunk: int, per_step: bool = False,
                 policy: Policy = OFF) -> None:
        if policy.watches and (per_step or problem.view is None):
            raise ValueError(f"the policy {policy.name} needs Problem.view and excludes per_step")
        self._problem, self._chunk, self._per_step, self.policy = problem, chunk, per_step, policy
        self._fitting: dict[Any, int] = {}  # chunk by what a program is compiled for
        self._label = jax.jit(partial(label_frames, problem))
        self._start = jax.jit(partial(_start, problem, policy.name == "stop_early"),
                              static_argnames=("window", "adapts"))
        self._run_visit = jax.jit(partial(run_visit, problem, policy=policy),
                                  static_argnames=("steps", "per_step", "window"), donate_argnames=("state",))

    def learns_predictions(self, strategy: Strategy) -> bool:
        """Whether it takes steps whose objective asks for the "prediction" of frames, see `Objective`."""
        return strategy.steps > 0 and self._problem.objective.learns_predictions

    def compile_count(self) -> int:
        """How many programs this engine has compiled.

        One per (frame size as packed, steps per visit, window) and chunk that was tried.
        """
        return self._run_visit._cache_size()

    def warm_up(self, variables: Variables, frames: Batch, strategy: Strategy) -> None:
        """Compiles what a video needs, before its frames are there.

        Args:
            variables: source variables of the network.
            frames: arrays of one frame [1, …], for their shapes.
            strategy: the one the video will be run under.
        """
        packed, _ = self._problem.pack(frames)
        chunk = self._fit(variables, packed, strategy)
        if chunk == 1:  # not tried yet
            self._try(variables, packed, strategy, chunk)

    def state_shapes(self, variables: Variables, frames: Batch, strategy: Strategy) -> AdaptState:
        """Shapes of the carry, for `load_progress`; arguments as of `warm_up`."""
        packed, _ = self._problem.pack(frames)
        return jax.eval_shape(lambda: self._fresh_state(
            variables, self._labelled(variables, packed, np.ones(1, bool), strategy), strategy))

    def seconds_per_prediction(self, variables: Variables, frames: Batch, strategy: Strategy) -> float:
        """Times the prediction of one frame by the program of `warm_up`, without steps; same arguments."""
        packed, _ = self._problem.pack(frames)
        start = time.perf_counter()
        self._try(variables, packed, strategy, self._fit(variables, packed, strategy), predicts=True)
        return time.perf_counter() - start

    def run(self, variables: Variables, frames: Frames, strategy: Strategy, key: Array, *,
            on_visited: Callable[[int], None] = lambda count: None, start: Progress | None = None,
            on_progress: Callable[[Progress], None] | None = None,
            progress_due: Callable[[], bool] = lambda: True) -> Iterator[FrameResult]:
        """Adapts to one video and yields its frames as they are predicted.

        Every video starts from `variables`, which stay as they are. The random numbers of a step depend on
        `key`, the frame's index and the step's number alone. The next chunk is read while the device works.

        Args:
            variables: source variables of the network.
            frames: the video; read in order and once if `strategy.streams`.
            strategy: the order of visits.
            key: PRNG key of this video.
            on_visited: called with the number of frames of each visit when it is done; they add up to the
                frames times the strategy's passes.
            start: go on from here instead of from the source; same video, strategy and key. If
                `strategy.streams`, `frames` are only read from there on.
            on_progress: called after the last visit, and after each visit where `progress_due()`, when the
                results have been taken; what it keeps it must copy (`jax.device_get`), since the next visit
                takes the state over.
            progress_due: where it says no, the next visit begins before this one's results are taken.

        Yields:
            One `FrameResult` per frame, in the order of prediction (the video's own, unless grouped); with
            `per_step`, one per frame and step.
        """
        done = start.frames if start else 0

        def visits() -> Iterator[tuple[Visit, Batch]]:
            seen = 0
            for visit in strategy.schedule(len(frames), self._chunk):
                rest = visit.part(max(done - seen, 0), self._chunk)
                seen += len(visit.indices)
                if len(rest.indices):
                    yield rest, frames.read(rest.indices)

        return self._run(variables, visits(), strategy, key, on_visited, start, on_progress, progress_due,
                         ahead=True)

    def stream(self, variables: Variables, frames: Iterable[Batch], strategy: Strategy, key: Array
               ) -> Iterator[FrameResult]:
        """Adapts to frames as they come, in memory that does not depend on how many there are.

        Args:
            variables: source variables of the network.
            frames: arrays of one frame each, e.g. {'image': uint8 [H, W, 3]}, all of the same shapes; as many
                as the engine's chunk are taken at a time.
            strategy: one that streams.
            key: PRNG key of this video.

        Yields:
            Results in order, those of a chunk before the next chunk is taken.

        Raises:
            ValueError: the strategy goes through the video more than once.
        """
        def batches() -> Iterator[Batch]:
            it = iter(frames)
            while taken := list(itertools.islice(it, self._chunk)):
                yield jax.tree.map(lambda *x: np.stack(x), *taken)

        lengths, contents = itertools.tee(batches())
        counts = (len(jax.tree.leaves(batch)[0]) for batch in lengths)
        visits = zip(strategy.stream(counts), contents, strict=False)
        return self._run(variables, visits, strategy, key, lambda count: None, None, None, lambda: False,
                         ahead=False)

    def _run(self, variables: Variables, visits: Iterable[tuple[Visit, Batch]], strategy: Strategy,
             key: Array, on_visited: Callable[[int], None], start: Progress | None,
             on_progress: Callable[[Progress], None] | None, progress_due: Callable[[], bool], *,
             ahead: bool) -> Iterator[FrameResult]:
        """Dispatches visits; with `ahead` a visit's results are taken when the next is under way."""
        state = start and jax.tree.map(jnp.array, start.state)
        done, told, pending = start.frames if start else 0, None, None
        collect = _Collector(strategy.steps, on_visited, start.losses if start else {})
        labels: dict[Any, Any] = {}  # by chunk and frames, where the strategy comes back to them
        for visit, arrays in visits:
            packed, unpack = self._problem.pack(arrays)
            chunk = self._fit(variables, packed, strategy)
            for first in range(0, len(visit.indices), chunk):
                part = visit.part(first, chunk)
                batch, valid = _padded(_slice(packed, first, chunk), chunk)
                batch = self._labelled(variables, batch, valid, strategy, labels.get((chunk, *part.indices)))
                if strategy.passes > 1:
                    labels[chunk, *part.indices] = batch["label"]
                if state is None:
                    state = self._fresh_state(variables, batch, strategy)
                state, outputs = self._dispatch(variables, state, batch, valid, part, strategy, key)
                if not ahead:
                    yield from collect(part, outputs, unpack)
                    continue
                if pending is not None:
                    yield from collect(*pending)
                pending = (part, outputs, unpack)
            done += len(visit.indices)
            if on_progress and progress_due():
                if pending is not None:
                    yield from collect(*pending)
                pending, told = None, done
                on_progress(Progress(done, state, collect.known))
        if pending is not None:
            yield from collect(*pending)
        if on_progress and told != done:
            on_progress(Progress(done, state, collect.known))

    def _labelled(self, variables: Variables, batch: Batch, valid: np.ndarray, strategy: Strategy,
                  label: Any = None) -> Batch:
        """A padded batch with its label: the one that is known, else the source network is asked."""
        if label is None and strategy.steps:
            label = self._label(variables, batch, valid)
        return batch | {"label": label}

    def _dispatch(self, variables: Variables, state: AdaptState, batch: Batch, valid: np.ndarray,
                  visit: Visit, strategy: Strategy, key: Array, *, adapt: bool = True
                  ) -> tuple[AdaptState, dict[str, Array]]:
        """Starts a visit of a padded and labelled batch."""
        chunk = len(valid)
        return self._run_visit(
            variables=variables, state=state, frames=batch, valid=valid,
            index=_pad(visit.indices.astype(np.int32), chunk), fresh=_pad(visit.fresh, chunk),
            first_step=np.int32(visit.first_step), adapt=np.bool_(adapt), final=np.bool_(visit.final),
            key=key, steps=strategy.steps_per_visit, per_step=self._per_step and strategy.steps > 0,
            window=strategy.window)

    def _fresh_state(self, variables: Variables, batch: Batch, strategy: Strategy) -> AdaptState:
        return self._start(variables, jax.tree.map(lambda x: x[0], batch), window=strategy.window,
                           adapts=strategy.steps > 0)

    def _try(self, variables: Variables, packed: Batch, strategy: Strategy, chunk: int, *,
             predicts: bool = False) -> None:
        """Runs a visit of the first frame that takes no steps, and unless it `predicts` does nothing at all.

        A program's memory is taken before it begins: if there is enough for this, there is for every visit.
        """
        batch, valid = _padded(_slice(packed, 0, 1), chunk)
        valid &= predicts
        batch = self._labelled(variables, batch, valid, strategy)
        visit = Visit(np.zeros(1, np.int64), np.ones(1, bool), 0, final=True)
        outputs = self._dispatch(variables, self._fresh_state(variables, batch, strategy), batch, valid,
                                 visit, strategy, jax.random.key(0), adapt=False)
        jax.block_until_ready(outputs)

    def _fit(self, variables: Variables, packed: Batch, strategy: Strategy) -> int:
        """The chunk for such frames: the engine's, or what the device has memory for."""
        program = (strategy.steps_per_visit, strategy.window, jax.config.jax_default_device,
                   *((x.shape[1:], x.dtype) for x in jax.tree.leaves(packed)))
        chunk = self._fitting.get(program, self._chunk)
        while program not in self._fitting and chunk > 1:
            try:
                self._try(variables, packed, strategy, chunk)
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                logging.warning("no memory for %d frames per dispatch (config.ttt.chunk): trying %d", chunk,
                                chunk // 2)
                chunk //= 2
                continue
            break
        self._fitting[program] = chunk
        return chunk


def _start(problem: Problem, stops: bool, variables: Variables, frame: Frame, *, window: int, adapts: bool
           ) -> AdaptState:
    """The carry before a video. Compiled: copying weights one by one compiles a program per shape."""
    return fresh_state(problem, variables, frame=frame, window=window, stops=stops, adapts=adapts)[0]


def _slice(batch: Batch, start: int, count: int) -> Batch:
    return jax.tree.map(lambda x: x[start : start + count], batch)


def _padded(batch: Batch, length: int) -> tuple[Batch, np.ndarray]:
    """(The batch, on the device, its first axis padded to `length`; bool [length]: what is not padding)."""
    count = len(jax.tree.leaves(batch)[0])
    return jax.tree.map(lambda x: jnp.asarray(_pad(x, length)), batch), np.arange(length) < count


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    """Zero-pads the first axis to `length`."""
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1))


class _Collector:
    """Files the losses of visits and yields the predictions they made."""

    def __init__(self, steps: int, on_visited: Callable[[int], None],
                 known: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        self._steps, self._on_visited = steps, on_visited
        # (losses, applied) of frames that are still to be predicted.
        self.known = {index: (losses.copy(), applied.copy()) for index, (losses, applied) in known.items()}

    def __call__(self, visit: Visit, outputs: dict[str, Any], unpack: Callable[[np.ndarray], np.ndarray]
                 ) -> Iterator[FrameResult]:
        count, per_step = len(visit.indices), outputs["probability"].ndim == 4
        outputs = jax.tree.map(lambda x: np.asarray(x)[:count],
                               {name: x for name, x in outputs.items()
                                if name != "probability" or visit.final or per_step})
        after = visit.first_step + outputs["losses"].shape[1]
        for i, index in enumerate(visit.indices):
            losses, applied = self.known.setdefault(
                int(index), (np.zeros(self._steps, np.float32), np.zeros(self._steps, bool)))
            losses[visit.first_step : after] = outputs["losses"][i]
            applied[visit.first_step : after] = outputs["applied"][i]
        self._on_visited(count)
        if "probability" not in outputs:
            return
        outputs["probability"] = unpack(outputs["probability"])
        for i, index in enumerate(visit.indices):
            losses, applied = self.known.pop(int(index)) if visit.final else self.known[int(index)]
            predictions = outputs["probability"][i] if per_step else outputs["probability"][i, None]
            report = jax.tree.map(lambda x, i=i: x[i].item(), outputs.get("report"))
            for step, prediction in enumerate(predictions, after - len(predictions) + 1):
                yield FrameResult(int(index), step, prediction, losses.copy(), applied.copy(), report)
