"""Adaptation frame by frame, with as many steps on each frame as there is time for.

The engine compiles a whole visit, steps and all. A session has three programs, to enter a frame, to take one
gradient step and to predict, and dispatches the second as often as its caller asks: no number of steps
compiles anything. Its random numbers are the engine's, so that as many steps on every frame give the masks
that the engine gives.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dattt_jax.ttt.objectives import Array, Frame, Variables
from dattt_jax.ttt.steps import (
    AdaptState,
    Problem,
    enter_frame,
    frame_step,
    fresh_state,
    label_frames,
    predict_frame,
)
from dattt_jax.ttt.strategies import Strategy


class Session:
    """One endless video.

    For each frame call `enter`, then `step` any number of times, then `predict`.

    Args:
        problem: what to adapt and how to predict.
        variables: source variables of the network; they stay as they are.
        strategy: one that streams; the number of its steps only matters where it is 0 (base).
        key: PRNG key of the video.

    Raises:
        ValueError: the strategy goes through a video more than once (at the first frame).
    """

    def __init__(self, problem: Problem, variables: Variables, strategy: Strategy, key: Array) -> None:
        self._variables, self._strategy, self._key, self._pack = variables, strategy, key, problem.pack
        window = strategy.window
        adapts = strategy.steps > 0
        self._enter = jax.jit(partial(_enter, problem, window=window, adapts=adapts),
                              donate_argnames=("state",))
        self._step = jax.jit(partial(_step, problem, window=window), donate_argnames=("state",))
        self._predict = jax.jit(partial(_predict, problem, adapts=adapts))
        self._label = jax.jit(partial(label_frames, problem))
        self._fresh = partial(fresh_state, problem, variables, window=window, adapts=adapts)
        self._state: AdaptState | None = None
        self.restart()

    def restart(self) -> None:
        """The next frame entered is the first, from the source weights."""
        self._visits = self._strategy.stream(itertools.repeat(1))

    def enter(self, frame: dict[str, np.ndarray]) -> None:
        """Goes on to the next frame; arrays as `Engine.stream` takes them, of the same shapes every time."""
        visit = next(self._visits)
        packed, self._unpack = self._pack({name: array[None] for name, array in frame.items()})
        if self._strategy.steps:
            packed = packed | {"label": self._label(self._variables, packed, np.ones(1, bool))}
        self._frame = jax.tree.map(lambda x: jnp.asarray(x[0]), packed)
        if self._state is None:
            self._state, _ = self._fresh(frame=self._frame)
        self._index, self._steps = np.int32(visit.indices[0]), 0
        self._state = self._enter(variables=self._variables, state=self._state, frame=self._frame,
                                  fresh=visit.fresh[0])

    def step(self) -> tuple[float, bool]:
        """Takes a gradient step on the frame and waits for it.

        Returns:
            (loss, whether it was applied), see `adapt_step`.
        """
        self._state, (loss, applied) = self._step(
            variables=self._variables, state=self._state, frame=self._frame, index=self._index,
            number=np.int32(self._steps), key=self._key)
        self._steps += 1
        return float(loss), bool(applied)

    def predict(self) -> np.ndarray:
        """The frame's probability, float32 [H, W], by the weights as they are now."""
        probability = self._predict(variables=self._variables, state=self._state, frame=self._frame)
        return self._unpack(np.asarray(probability)[None])[0]

    def compile_count(self) -> int:
        """Programs compiled so far: three, or two where no step was taken."""
        return sum(program._cache_size() for program in (self._enter, self._step, self._predict))


def _enter(problem: Problem, *, variables: Variables, state: AdaptState, frame: Frame, fresh: Array,
           window: int, adapts: bool) -> AdaptState:
    source, _ = fresh_state(problem, variables, frame=frame, window=window, adapts=adapts)
    return enter_frame(state, source, frame, fresh, window)


def _step(problem: Problem, *, variables: Variables, state: AdaptState, frame: Frame, index: Array,
          number: Array, key: Array, window: int) -> tuple[AdaptState, tuple[Array, Array]]:
    _, frozen = fresh_state(problem, variables, frame=frame, window=window)
    return frame_step(problem, state, frozen, frame, number, jax.random.fold_in(key, index), window)


def _predict(problem: Problem, *, variables: Variables, state: AdaptState, frame: Frame, adapts: bool
             ) -> Array:
    _, frozen = fresh_state(problem, variables, adapts=adapts)
    return predict_frame(problem, state, frozen, frame, problem.context(variables, frame), adapts=adapts)
