"""The engine: runs an objective under a strategy over the frames of one video.

A visit (at most a chunk of frames) is one dispatch: a jitted `lax.scan` over frames, inside it a `lax.scan`
over gradient steps; the carry holds the trainable variables and the optimiser state and goes on from
dispatch to dispatch. The last chunk of a video is padded and padded frames are skipped, so the length of a
video neither recompiles nor changes a bit. The engine knows an objective, a prediction function and a
parameter filter; it knows neither DATTT nor files nor configs.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util
from jax import lax

from dattt_jax.ttt.objectives import Array, Frame, Objective, Variables
from dattt_jax.ttt.strategies import Strategy, Visit

Path = tuple[str, ...]
FlatVariables = dict[Path, Array]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is adapted, and how a frame is predicted. All functions are traced.

    Attributes:
        objective: the loss to minimise.
        trainable: path of a variable, e.g. ('params', 'encoder_image', …) -> whether it is trained.
        context: (variables, frame) -> what prediction needs of the frame and adaptation leaves as it is,
            computed once per frame.
        predict: (variables, frame, context) -> probability, float32 [H, W].
        optimizer: the update rule; its state is part of the carry.
    """

    objective: Objective
    trainable: Callable[[Path], bool]
    context: Callable[[Variables, Frame], Any]
    predict: Callable[[Variables, Frame, Any], Array]
    optimizer: optax.GradientTransformation


@struct.dataclass
class AdaptState:
    """The carry: trainable variables by path, and the optimiser's state."""

    trainable: FlatVariables
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class FrameResult:
    """A frame's prediction.

    Attributes:
        index: frame number in the video.
        step: the frame's own gradient steps taken before this prediction.
        probability: float32 [H, W].
        losses: float32 [steps], in the order the steps were taken; zeros for those still to come.
        applied: bool [steps]; False where a zero or non-finite loss or gradient left the weights alone.
    """

    index: int
    step: int
    probability: np.ndarray
    losses: np.ndarray
    applied: np.ndarray

    @property
    def final(self) -> bool:
        """Whether this is the frame's reported prediction: the one after its own last step."""
        return self.step == len(self.losses)


class Frames(Protocol):
    """A video as the engine reads it."""

    def __len__(self) -> int:
        """Number of frames."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays of those frames, stacked along a first axis of len(indices)."""


class Engine:
    """Compiled adaptation of one problem; reuse it for every video of the same frame size.

    Args:
        problem: what to adapt and how to predict.
        chunk: frames per dispatch. Device memory grows with it; results do not depend on it.
        per_step: also predict after every step (the paper's Figure 5); costs a forward pass each.
    """

    def __init__(self, problem: Problem, *, chunk: int, per_step: bool = False) -> None:
        self._problem, self._chunk, self._per_step = problem, chunk, per_step
        self._run_visit = jax.jit(partial(_run_visit, problem), static_argnames=("steps", "per_step"),
                                  donate_argnames=("state",))

    def compile_count(self) -> int:
        """How many programs this engine has compiled: one per (frame size, steps per visit)."""
        return self._run_visit._cache_size()

    def run(self, variables: Variables, frames: Frames, strategy: Strategy, key: Array, *,
            on_visited: Callable[[int], None] = lambda count: None) -> Iterator[FrameResult]:
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

        Yields:
            One `FrameResult` per frame, in the order of prediction (the video's own, unless grouped); with
            `per_step`, one per frame and step.
        """
        per_step = self._per_step and strategy.steps > 0
        state, _ = fresh_state(self._problem, variables)
        losses = np.zeros((len(frames), strategy.steps), np.float32)
        applied = np.zeros((len(frames), strategy.steps), bool)
        pending = None
        for visit in strategy.schedule(len(frames), self._chunk):
            batch = {k: jnp.asarray(_pad(v, self._chunk)) for k, v in frames.read(visit.indices).items()}
            state, outputs = self._run_visit(
                variables=variables, state=state, frames=batch,
                index=_pad(visit.indices.astype(np.int32), self._chunk),
                valid=np.arange(self._chunk) < len(visit.indices),
                fresh=_pad(visit.fresh, self._chunk), first_step=np.int32(visit.first_step),
                final=np.bool_(visit.final), key=key, steps=strategy.steps_per_visit,
                per_step=per_step,
            )
            if pending is not None:
                yield from _collect(*pending, losses, applied, on_visited)
            pending = (visit, outputs)
        if pending is not None:
            yield from _collect(*pending, losses, applied, on_visited)


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    """Zero-pads the first axis to `length`."""
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1))


def _collect(visit: Visit, outputs: dict[str, Array], losses: np.ndarray, applied: np.ndarray,
             on_visited: Callable[[int], None]) -> Iterator[FrameResult]:
    """Files a visit's losses and yields the predictions it made."""
    count = len(visit.indices)
    after = visit.first_step + outputs["losses"].shape[1]
    losses[visit.indices, visit.first_step : after] = np.asarray(outputs["losses"])[:count]
    applied[visit.indices, visit.first_step : after] = np.asarray(outputs["applied"])[:count]
    on_visited(count)
    per_step = outputs["probability"].ndim == 4
    if not (visit.final or per_step):
        return
    probability = np.asarray(outputs["probability"])
    for i, index in enumerate(visit.indices):
        predictions = probability[i] if per_step else probability[i, None]
        first = after - len(predictions) + 1
        for step, prediction in enumerate(predictions, first):
            yield FrameResult(int(index), step, prediction, losses[index].copy(), applied[index].copy())


def fresh_state(problem: Problem, variables: Variables) -> tuple[AdaptState, FlatVariables]:
    """What adaptation starts from.

    Returns:
        (source weights and an optimiser that has seen nothing, variables that are not trained).
    """
    flat = traverse_util.flatten_dict(variables)
    # Copies: the state is donated, the source is not.
    trainable = {path: jnp.array(value) for path, value in flat.items() if problem.trainable(path)}
    frozen = {path: value for path, value in flat.items() if path not in trainable}
    return AdaptState(trainable, problem.optimizer.init(trainable)), frozen


def _select(condition: Array, new: AdaptState, old: AdaptState) -> AdaptState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def adapt_step(problem: Problem, state: AdaptState, frozen: FlatVariables, frame: Frame, step: Array,
               key: Array) -> tuple[AdaptState, tuple[Array, Array]]:
    """One gradient step on one frame.

    Returns:
        (new state, (loss, applied)). A loss of exactly 0 (the authors skip it) and a non-finite loss or
        gradient leave the state as it was, and `applied` is False.
    """
    sample_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
    batch = problem.objective.sample(frame, step, sample_key)

    def loss_fn(trainable: FlatVariables) -> Array:
        variables = traverse_util.unflatten_dict({**frozen, **trainable})
        return problem.objective.loss(variables, batch, loss_key)

    loss, grads = jax.value_and_grad(loss_fn)(state.trainable)
    updates, opt_state = problem.optimizer.update(grads, state.opt_state, state.trainable)
    moved = AdaptState(optax.apply_updates(state.trainable, updates), opt_state)
    applied = (loss != 0) & jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
    return _select(applied, moved, state), (loss, applied)


def _run_visit(problem: Problem, *, variables: Variables, state: AdaptState, frames: Frame, index: Array,
               valid: Array, fresh: Array, first_step: Array, final: Array, key: Array, steps: int,
               per_step: bool) -> tuple[AdaptState, dict[str, Array]]:
    """Visits a padded chunk of frames.

    Donated: `state`.

    Args:
        problem: bound before compilation.
        variables: source variables.
        state: the carry of the visit before.
        frames: arrays [chunk, …].
        index: frame numbers in the video, int32 [chunk]; they choose the random numbers.
        valid: bool [chunk]; False frames are padding and skipped.
        fresh: bool [chunk]; start the frame from the source variables.
        first_step: int32 scalar, number of the first step taken now.
        final: bool scalar; predict the frames.
        key: PRNG key of the video.
        steps: static, gradient steps per frame.
        per_step: static, predict after every step too.

    Returns:
        (carry, {'losses': [chunk, steps], 'applied': [chunk, steps],
        'probability': [chunk, H, W] or [chunk, steps, H, W]}); zeros for padded and unpredicted frames.
    """
    source, frozen = fresh_state(problem, variables)

    def predict(state: AdaptState, frame: Frame, context: Any) -> Array:
        adapted = traverse_util.unflatten_dict({**frozen, **state.trainable})
        return problem.predict(adapted, frame, context)

    def visit_frame(state: AdaptState, item: tuple[Frame, Array, Array]) -> tuple[AdaptState, Any]:
        frame, frame_index, start_fresh = item
        state = _select(start_fresh, source, state)
        frame_key = jax.random.fold_in(key, frame_index)
        context = problem.context(variables, frame) if per_step else None

        def step(state: AdaptState, number: Array) -> tuple[AdaptState, Any]:
            state, (loss, applied) = adapt_step(problem, state, frozen, frame, number, frame_key)
            return state, (loss, applied, predict(state, frame, context) if per_step else ())

        losses, applied = jnp.zeros(0), jnp.zeros(0, bool)
        if steps:
            numbers = first_step + jnp.arange(steps, dtype=jnp.int32)
            state, (losses, applied, probability) = lax.scan(step, state, numbers)
        if not per_step:
            def last(_: None) -> Array:
                return predict(state, frame, problem.context(variables, frame))

            shape = jax.eval_shape(last, None)
            probability = lax.cond(final, last, lambda _: jnp.zeros(shape.shape, shape.dtype), None)
        return state, {"losses": losses, "applied": applied, "probability": probability}

    def visit(state: AdaptState, item: tuple[Frame, Array, Array, Array]) -> tuple[AdaptState, Any]:
        frame, frame_index, is_valid, start_fresh = item
        active = partial(visit_frame, item=(frame, frame_index, start_fresh))
        _, shapes = jax.eval_shape(active, state)
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return lax.cond(is_valid, active, lambda state: (state, nothing), state)

    return lax.scan(visit, state, (frames, index, valid, fresh))
