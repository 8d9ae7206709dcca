"""The traced part of test-time training: a gradient step, and a visit of a chunk of frames as one program."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util
from jax import lax
from jax.extend.core import jaxpr_as_fun

from dattt_jax.ttt.monitor import Policy, Report, measure
from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Plain, Variables

FlatVariables = dict[Path, Array]
Batch = dict[str, Any]  # arrays of frames, or trees of arrays, with a first axis of the number of frames

_VIEW_KEY = 2**32 - 1  # folded into a frame's key for the monitor's view; steps fold in their number


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is adapted, and how a frame is predicted. All functions are traced.

    Attributes:
        objective: the loss to minimise: an `Objective`, or anything with its `sample` and `loss`.
        context: (variables, frame) -> what prediction needs of the frame and adaptation leaves as it is,
            computed once per frame.
        predict: (variables, frame, context) -> probability, float32 [H, W].
        optimizer: the update rule; its state is part of the carry.
        trainable: path of a variable, e.g. ('params', 'encoder_image', …) -> whether it is trained; None
            leaves it to the objective.
        view: (frame, key) -> the frame as another camera might have seen it, every pixel in its place; needed
            by policies other than `off`.
        pack: on the host, what becomes of frames before they go to the device: (their arrays [n, …]) -> (the
            arrays the traced functions get, a function that takes the predictions [n, …, H, W] back to the
            frames). Frames of several sizes that are packed to one share a program.
    """

    objective: Objective
    context: Callable[[Variables, Frame], Any]
    predict: Callable[[Variables, Frame, Any], Array]
    optimizer: optax.GradientTransformation
    trainable: Callable[[Path], bool] | None = None
    view: Callable[[Frame, Array], Frame] | None = None
    pack: Callable[[Batch], tuple[Batch, Callable[[np.ndarray], np.ndarray]]] = lambda b: (b, np.asarray)

    def __post_init__(self) -> None:
        """Makes an `Objective` of an object with two methods."""
        if not isinstance(self.objective, Objective):
            object.__setattr__(self, "objective", Plain(self.objective))

    def moves(self, path: Path) -> bool:
        """Whether gradient steps change the variable at `path`."""
        return (self.trainable or self.objective.trainable)(path)


@struct.dataclass
class AdaptState:
    """The carry.

    Attributes:
        trainable: trained variables by path.
        opt_state: the optimiser's.
        memory: the objective's.
        window: the last frames and how many there are, where the strategy has a window; else ().
        stopped: bool scalar under the policy stop_early; else ().
    """

    trainable: FlatVariables
    opt_state: optax.OptState
    memory: Any = ()
    window: Any = ()
    stopped: Any = ()


def fresh_state(problem: Problem, variables: Variables, *, frame: Frame | None = None, window: int = 1,
                stops: bool = False, adapts: bool = True) -> tuple[AdaptState, FlatVariables]:
    """What adaptation starts from.

    Args:
        problem: what is adapted.
        variables: of the source.
        frame: any frame, for its shapes; needed with a window.
        window: frames a step is drawn from.
        stops: the policy is stop_early.
        adapts: steps will be taken; without any (the strategy base) nothing is trained or remembered.

    Returns:
        (source weights, an optimiser that has seen nothing, an empty memory and window; variables that are
        not trained).
    """
    flat = traverse_util.flatten_dict(variables)
    # Copies: the state is donated, the source is not.
    trainable = {path: jnp.array(value) for path, value in flat.items() if adapts and problem.moves(path)}
    frozen = {path: value for path, value in flat.items() if path not in trainable}
    empty = ()
    if window > 1:
        empty = (jax.tree.map(lambda x: jnp.zeros((window, *x.shape), x.dtype), frame), jnp.int32(0))
    memory = problem.objective.memory(variables) if adapts else ()
    state = AdaptState(trainable, problem.optimizer.init(trainable), memory, empty,
                       jnp.bool_(False) if stops else ())
    return state, frozen


def _select(condition: Array, new: AdaptState, old: AdaptState) -> AdaptState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def adapt_step(problem: Problem, state: AdaptState, frozen: FlatVariables, frame: Frame, step: Array,
               key: Array, observed: Frame | None = None) -> tuple[AdaptState, tuple[Array, Array]]:
    """One gradient step on one frame.

    Args:
        problem: what is adapted.
        state: the carry.
        frozen: variables that are not trained.
        frame: the frame to learn from, with its label as of `label_frames`.
        step: int32 scalar, number of this step among the frame's.
        key: PRNG key of the frame.
        observed: the frame to be predicted, which the objective's memory takes in; None: the same frame.

    Returns:
        (new state, (loss, applied)). A loss of exactly 0 (the authors skip it) and a non-finite loss,
        gradient or memory leave the state as it was, and `applied` is False. An objective that trains nothing
        has loss 0 and is applied.
    """
    sample_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
    now = traverse_util.unflatten_dict({**frozen, **state.trainable})
    memory = problem.objective.observe(state.memory, now, frame if observed is None else observed, step)
    known = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(memory)]
    if not state.trainable:
        applied = jnp.all(jnp.stack([jnp.bool_(True), *known]))
        return _select(applied, state.replace(memory=memory), state), (jnp.zeros(()), applied)
    batch = problem.objective.sample(frame, step, sample_key)

    def loss_fn(trainable: FlatVariables) -> Array:
        variables = traverse_util.unflatten_dict({**frozen, **trainable})
        return problem.objective.loss(variables, batch, loss_key)

    loss, grads = jax.value_and_grad(loss_fn)(state.trainable)
    updates, opt_state = problem.optimizer.update(grads, state.opt_state, state.trainable)
    moved = state.replace(trainable=optax.apply_updates(state.trainable, updates), opt_state=opt_state,
                          memory=memory)
    applied = (loss != 0) & jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
    for finite in known:
        applied &= finite
    return _select(applied, moved, state), (loss, applied)


def label_frames(problem: Problem, variables: Variables, frames: Frame, valid: Array) -> Any:
    """What the objective asks the source network about frames, each by itself: their 'label' in `adapt_step`.

    Args:
        problem: what is adapted.
        variables: of the source.
        frames: arrays [n, …] as the engine's caller handed them in.
        valid: bool [n]; False frames are skipped.

    Returns:
        A tree of arrays [n, …], zeros for skipped frames; without arrays where the objective asks nothing.
    """
    def one(item: tuple[Frame, Array]) -> Any:
        frame, is_valid = item
        return _only_if(is_valid, lambda _: ((), problem.objective.label(variables, frame)), ())[1]

    return lax.map(one, (frames, valid))


def enter_frame(state: AdaptState, source: AdaptState, frame: Frame, fresh: Array, window: int
                ) -> AdaptState:
    """The carry before a frame's steps: `source` where the frame starts afresh, the frame in its window."""
    state = _select(fresh, source, state)
    return state.replace(window=_remember(state.window, frame)) if window > 1 else state


def frame_step(problem: Problem, state: AdaptState, frozen: FlatVariables, frame: Frame, number: Array,
               frame_key: Array, window: int) -> tuple[AdaptState, tuple[Array, Array]]:
    """Step `number` of a frame that was entered, on it or on one drawn from its window; see `adapt_step`."""
    learnt = _draw(state.window, jax.random.fold_in(frame_key, number)) if window > 1 else frame
    return adapt_step(problem, state, frozen, learnt, number, frame_key, frame)


def predict_frame(problem: Problem, state: AdaptState, frozen: FlatVariables, frame: Frame, context: Any, *,
                  adapts: bool) -> Array:
    """Probability [H, W] by the carry's weights; without `adapts` (the strategy base) the source as it is."""
    adapted = traverse_util.unflatten_dict({**frozen, **state.trainable})
    if adapts:
        adapted = problem.objective.ready(adapted, state.memory, frame)
    return problem.predict(adapted, frame, context)


def run_visit(problem: Problem, *, variables: Variables, state: AdaptState, frames: Frame, index: Array,
              valid: Array, fresh: Array, first_step: Array, adapt: Array, final: Array, key: Array,
              steps: int, per_step: bool, window: int, policy: Policy) -> tuple[AdaptState, dict[str, Any]]:
    """Visits a padded chunk of frames.

    Donated: `state`.

    Args:
        problem: bound before compilation.
        variables: source variables.
        state: the carry of the visit before.
        frames: arrays [chunk, …], with labels.
        index: frame numbers in the video, int32 [chunk]; they choose the random numbers.
        valid: bool [chunk]; False frames are padding and skipped.
        fresh: bool [chunk]; start the frame from the source variables.
        first_step: int32 scalar, number of the first step taken now.
        adapt: bool scalar; False leaves the steps out, to time the rest.
        final: bool scalar; predict the frames.
        key: PRNG key of the video.
        steps: static, gradient steps per frame.
        per_step: static, predict after every step too.
        window: static, frames a step is drawn from.
        policy: static; judges each frame after its steps.

    Returns:
        (carry, {'losses': [chunk, steps], 'applied': [chunk, steps],
        'probability': [chunk, H, W] or [chunk, steps, H, W], and with a policy 'report': `Report` of
        [chunk]}); zeros for padded and unpredicted frames.
    """
    source, frozen = fresh_state(problem, variables, frame=jax.tree.map(lambda x: x[0], frames),
                                 window=window, stops=policy.name == "stop_early", adapts=steps > 0)

    def predict(state: AdaptState, frame: Frame, context: Any) -> Array:
        return predict_frame(problem, state, frozen, frame, context, adapts=steps > 0)

    def visit_frame(state: AdaptState, item: tuple[Frame, Array, Array]) -> tuple[AdaptState, Any]:
        frame, frame_index, start_fresh = item
        state = before = enter_frame(state, source, frame, start_fresh, window)
        frame_key = jax.random.fold_in(key, frame_index)
        context = problem.context(variables, frame) if per_step or (policy.watches and steps) else None

        def step(state: AdaptState, number: Array) -> tuple[AdaptState, Any]:
            state, (loss, applied) = frame_step(problem, state, frozen, frame, number, frame_key, window)
            return state, (loss, applied, predict(state, frame, context) if per_step else ())

        outputs = {"losses": jnp.zeros(0), "applied": jnp.zeros(0, bool)}
        if steps:
            take = partial(lax.scan, step, xs=first_step + jnp.arange(steps, dtype=jnp.int32))
            takes = adapt & ~state.stopped if policy.name == "stop_early" else adapt
            state, (outputs["losses"], outputs["applied"], probability) = _only_if(takes, take, state)
        if steps and policy.watches:
            state, probability, outputs["report"] = _judge(
                problem, policy, predict, variables, source, before, state, frame, context,
                jax.random.fold_in(frame_key, _VIEW_KEY))
        elif not per_step:
            def last(state: AdaptState) -> tuple[AdaptState, Array]:
                return state, predict(state, frame, problem.context(variables, frame))

            state, probability = _only_if(final, last, state)
        return state, outputs | {"probability": probability}

    def visit(state: AdaptState, item: tuple[Frame, Array, Array, Array]) -> tuple[AdaptState, Any]:
        frame, frame_index, is_valid, start_fresh = item
        return _only_if(is_valid, partial(visit_frame, item=(frame, frame_index, start_fresh)), state)

    return lax.scan(visit, state, (frames, index, valid, fresh))


def _only_if(condition: Array, function: Callable[[Any], tuple[Any, Any]], state: Any) -> tuple[Any, Any]:
    """`function(state)` where the condition holds, else the state as it is and zeros.

    The function is traced once, for its shapes and for the program: tracing is most of what a program that is
    in the compilation cache costs.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(state)

    def run(state: Any) -> tuple[Any, Any]:
        leaves = jaxpr_as_fun(jaxpr)(*jax.tree.leaves(state))
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[1])
    return lax.cond(condition, run, lambda state: (state, zeros), state)


def _remember(window: tuple[Frame, Array], frame: Frame) -> tuple[Frame, Array]:
    """The window with the frame at its end and without its oldest."""
    frames, count = window
    frames = jax.tree.map(lambda kept, new: jnp.concatenate([kept[1:], new[None]]), frames, frame)
    return frames, jnp.minimum(count + 1, jax.tree.leaves(frames)[0].shape[0])


def _draw(window: tuple[Frame, Array], step_key: Array) -> Frame:
    """One of the frames in the window, each as likely."""
    frames, count = window
    last = jax.tree.leaves(frames)[0].shape[0] - 1
    # The step's own keys are a split of `step_key`: this one must be another.
    chosen = last - jax.random.randint(jax.random.fold_in(step_key, 1), (), 0, count)
    return jax.tree.map(lambda x: x[chosen], frames)


def _judge(problem: Problem, policy: Policy, predict: Callable[[AdaptState, Frame, Any], Array],
           variables: Variables, source: AdaptState, before: AdaptState, state: AdaptState, frame: Frame,
           context: Any, key: Array) -> tuple[AdaptState, Array, Report]:
    """Measures a frame after its steps and does what the policy says.

    Returns:
        (state to go on from, probability to report, report).
    """
    if policy.name == "average":
        w = policy.source_weight
        state = state.replace(trainable={path: (1 - w) * value + w * source.trainable[path]
                                         for path, value in state.trainable.items()})
    view = problem.view(frame, key)
    adapted = predict(state, frame, context), predict(state, view, context)
    unadapted = problem.predict(variables, frame, context), problem.predict(variables, view, context)
    report, bad = measure(adapted, unadapted, state.trainable, source.trainable, policy.margin)
    if policy.name == "keep_better":
        return state, jnp.where(bad, unadapted[0], adapted[0]), report.replace(kept=~bad)
    if policy.name == "reset":
        state = _select(bad, source, state)
        return state, jnp.where(bad, unadapted[0], adapted[0]), report.replace(kept=~bad)
    if policy.name == "stop_early":
        stopped = state.stopped
        bad &= ~stopped
        state = _select(bad, before.replace(stopped=jnp.bool_(True)), state)
        probability = lax.cond(bad, lambda: predict(state, frame, context), lambda: adapted[0])
        return state, probability, report.replace(kept=~(bad | stopped), stopped=stopped)
    return state, adapted[0], report
