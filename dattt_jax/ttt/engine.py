"""The engine: runs an objective under a strategy over the frames of one video.

A visit (at most a chunk of frames) is one dispatch: a jitted `lax.scan` over frames, inside it a `lax.scan`
over gradient steps; the carry holds the trainable variables and the optimiser state and goes on from
dispatch to dispatch. The last chunk of a video is padded and padded frames are skipped, so the length of a
video neither recompiles nor changes a bit. The engine knows an objective, a prediction function and a
parameter filter; it knows neither DATTT nor files nor configs.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dattt_jax.ttt.monitor import OFF, Policy, Report
from dattt_jax.ttt.objectives import Array, Variables
from dattt_jax.ttt.steps import AdaptState, Problem, fresh_state, run_visit
from dattt_jax.ttt.strategies import Strategy, Visit

Batch = dict[str, np.ndarray]


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
        visits: visits of the schedule that are done; their number depends on the engine's chunk.
        state: the carry after them.
    """

    visits: int
    state: AdaptState


class Frames(Protocol):
    """A video as the engine reads it."""

    def __len__(self) -> int:
        """Number of frames."""

    def read(self, indices: np.ndarray) -> Batch:
        """Arrays of those frames, stacked along a first axis of len(indices)."""


class Engine:
    """Compiled adaptation of one problem; reuse it for every video of the same frame size.

    Args:
        problem: what to adapt and how to predict.
        chunk: frames per dispatch. Device memory grows with it; results do not depend on it.
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
        self._run_visit = jax.jit(partial(run_visit, problem, policy=policy),
                                  static_argnames=("steps", "per_step", "window"), donate_argnames=("state",))

    def compile_count(self) -> int:
        """How many programs this engine has compiled: one per (frame size, steps per visit, window)."""
        return self._run_visit._cache_size()

    def run(self, variables: Variables, frames: Frames, strategy: Strategy, key: Array, *,
            on_visited: Callable[[int], None] = lambda count: None, start: Progress | None = None,
            on_progress: Callable[[Progress], None] | None = None) -> Iterator[FrameResult]:
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
            start: go on from here instead of from the source; same video, strategy, key and chunk. Losses of
                steps before it are zeros.
            on_progress: called after each visit, when its results have been taken; what it keeps it must copy
                (`jax.device_get`), since the next visit takes the state over.

        Yields:
            One `FrameResult` per frame, in the order of prediction (the video's own, unless grouped); with
            `per_step`, one per frame and step.
        """
        skipped = start.visits if start else 0

        def visits() -> Iterator[tuple[Visit, Batch]]:
            for number, visit in enumerate(strategy.schedule(len(frames), self._chunk)):
                if number >= skipped:
                    yield visit, frames.read(visit.indices)
                elif strategy.streams:
                    frames.read(visit.indices)  # a stream cannot be entered in the middle

        return self._run(variables, visits(), strategy, key, on_visited, start, on_progress,
                         ahead=on_progress is None)

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
        return self._run(variables, visits, strategy, key, lambda count: None, None, None, ahead=False)

    def _run(self, variables: Variables, visits: Iterable[tuple[Visit, Batch]], strategy: Strategy,
             key: Array, on_visited: Callable[[int], None], start: Progress | None,
             on_progress: Callable[[Progress], None] | None, *, ahead: bool) -> Iterator[FrameResult]:
        """Dispatches visits; with `ahead` a visit's results are taken when the next is under way."""
        per_step = self._per_step and strategy.steps > 0
        state = start and jax.tree.map(jnp.array, start.state)
        done, collect, pending = start.visits if start else 0, _Collector(strategy.steps, on_visited), None
        for visit, arrays in visits:
            batch = {k: jnp.asarray(_pad(v, self._chunk)) for k, v in arrays.items()}
            if state is None:
                state, _ = fresh_state(self._problem, variables, frame={k: v[0] for k, v in batch.items()},
                                       window=strategy.window, stops=self.policy.name == "stop_early")
            state, outputs = self._run_visit(
                variables=variables, state=state, frames=batch,
                index=_pad(visit.indices.astype(np.int32), self._chunk),
                valid=np.arange(self._chunk) < len(visit.indices),
                fresh=_pad(visit.fresh, self._chunk), first_step=np.int32(visit.first_step),
                final=np.bool_(visit.final), key=key, steps=strategy.steps_per_visit,
                per_step=per_step, window=strategy.window,
            )
            done += 1
            if not ahead:
                yield from collect(visit, outputs)
                if on_progress:
                    on_progress(Progress(done, state))
                continue
            if pending is not None:
                yield from collect(*pending)
            pending = (visit, outputs)
        if pending is not None:
            yield from collect(*pending)


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    """Zero-pads the first axis to `length`."""
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1))


class _Collector:
    """Files the losses of visits and yields the predictions they made."""

    def __init__(self, steps: int, on_visited: Callable[[int], None]) -> None:
        self._steps, self._on_visited = steps, on_visited
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # of frames that are still to be predicted

    def __call__(self, visit: Visit, outputs: dict[str, Any]) -> Iterator[FrameResult]:
        count, per_step = len(visit.indices), outputs["probability"].ndim == 4
        outputs = jax.tree.map(lambda x: np.asarray(x)[:count],
                               {name: x for name, x in outputs.items()
                                if name != "probability" or visit.final or per_step})
        after = visit.first_step + outputs["losses"].shape[1]
        for i, index in enumerate(visit.indices):
            losses, applied = self._known.setdefault(
                int(index), (np.zeros(self._steps, np.float32), np.zeros(self._steps, bool)))
            losses[visit.first_step : after] = outputs["losses"][i]
            applied[visit.first_step : after] = outputs["applied"][i]
        self._on_visited(count)
        if "probability" not in outputs:
            return
        for i, index in enumerate(visit.indices):
            losses, applied = self._known.pop(int(index)) if visit.final else self._known[int(index)]
            predictions = outputs["probability"][i] if per_step else outputs["probability"][i, None]
            report = jax.tree.map(lambda x, i=i: x[i].item(), outputs.get("report"))
            for step, prediction in enumerate(predictions, after - len(predictions) + 1):
                yield FrameResult(int(index), step, prediction, losses.copy(), applied.copy(), report)
