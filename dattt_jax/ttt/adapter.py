"""Test-time training in two lines, for DATTT and for any other segmentation network.

    adapter = Adapter(model, variables, objective="depth", strategy="mwi", input_size=(512, 512), flow="dis")
    for mask in adapter(frames):
        ...

Another network comes as a function (variables, image [H, W, C]) -> mask logits [H, W]:

    adapter = Adapter(apply, variables, objective="entropy", trainable=affine_of("norm"))
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dattt_jax.errors import UserError
from dattt_jax.models import DATTT
from dattt_jax.ttt.engine import Engine, FrameResult
from dattt_jax.ttt.monitor import create_policy
from dattt_jax.ttt.objectives import Array, Frame, Path, Variables, create_objective
from dattt_jax.ttt.objectives.tent import Tent
from dattt_jax.ttt.steps import Problem
from dattt_jax.ttt.strategies import create_strategy
from input_pipeline.clip import PairClip
from input_pipeline.flow import FlowMethod, create_flow, flow_renderings

Apply = Callable[[Variables, Array], Array]
Item = np.ndarray | tuple[np.ndarray, np.ndarray]

_VIEW_CONTRAST, _VIEW_BRIGHTNESS = 0.2, 0.1  # of the second view; part of the image's spread


class Adapter:
    """Masks of a video, adapted to it as it comes.

    Every call starts from `variables`, which stay as they are. Programs are compiled at the first frame of a
    size and reused by later calls.

    Args:
        model: a `DATTT`, or for any other network the function (variables, image [H, W, C]) -> logits [H, W].
        variables: of the network, {'params': …, …}.
        objective: for DATTT a text as in `config.ttt.objective`; for another network 'entropy' (of the mask,
            Wang et al., ICLR 2021, without statistics of a batch); or for both an `Objective`, or an
            object with its methods `sample` and `loss`. It gets frames {'image': …} and for DATTT 'flow'.
        strategy: one of `STRATEGIES`.
        trainable: path of a variable -> whether it is trained; None leaves it to the objective. Needed by
            'entropy'.
        steps: gradient steps per frame; for ltv passes.
        learning_rate: of Adam.
        input_size: DATTT: (height, width) the network sees.
        batch_size: DATTT: crops per step.
        upsampling: DATTT: of the mask to the frame, as `config.upsampling`.
        flow: DATTT: by which frames are given their flow, a name as of `create_flow` or a method itself; None
            where they come with it.
        groups: of the grouped strategies.
        window: frames of the strategy window.
        reset_every: frames after which window starts afresh; 0 for never.
        policy: one of `POLICIES`.
        chunk: frames per dispatch; a stream's masks come when so many frames are there.
        seed: of all random numbers.

    Raises:
        UserError: a name is not known, or the network has not what the objective needs.
    """

    def __init__(self, model: DATTT | Apply, variables: Variables, *, objective: str | Any = "depth",
                 strategy: str = "mwi", trainable: Callable[[Path], bool] | None = None, steps: int = 10,
                 learning_rate: float = 1e-5, input_size: tuple[int, int] = (512, 512), batch_size: int = 8,
                 upsampling: str = "bilinear", flow: str | FlowMethod | None = None, groups: int = 10,
                 window: int = 8, reset_every: int = 0, policy: str = "off", chunk: int = 1,
                 seed: int = 0) -> None:
        self._variables = jax.device_put(variables)
        self._strategy = create_strategy(strategy, steps=steps, groups=groups, window=window,
                                         reset_every=reset_every, field="strategy")
        self._takes_flow, self._seed = isinstance(model, DATTT), seed
        if flow is not None and not self._takes_flow:
            raise UserError("flow is for DATTT: give another network what its function takes")
        self._flow = create_flow(flow) if isinstance(flow, str) else flow
        if self._takes_flow:
            problem = _dattt_problem(model, objective, input_size, batch_size, upsampling, learning_rate,
                                     trainable)
        else:
            problem = _network_problem(model, objective, learning_rate, trainable)
        self._engine = Engine(problem, chunk=chunk, policy=create_policy(policy))

    def __call__(self, frames: Iterable[Item]) -> Iterator[np.ndarray]:
        """Masks in the order of the frames.

        Args:
            frames: for DATTT frames, uint8 [H, W, 3] RGB, or without `flow` pairs (frame, flow rendering) of
                such; for another network what its function takes. A strategy that streams (base, n, mwi,
                window) takes any iterable, of unknown length; the others take a sequence. With `flow`, a
                frame's mask comes when the next frame is there, and the last frame has the flow before it.

        Yields:
            bool [H, W], where 255 · p > 128.

        Raises:
            UserError: the strategy needs a sequence, or a frame is not what it should be.
        """
        return (result.probability * 255 > 128 for result in self.results(frames))

    def results(self, frames: Iterable[Item]) -> Iterator[FrameResult]:
        """As a call, with probabilities, losses and the policy's report instead of masks."""
        key = jax.random.key(self._seed)
        if self._strategy.streams:
            arrays = map(self._arrays, self._pairs(frames))
            return self._engine.stream(self._variables, arrays, self._strategy, key)
        if not isinstance(frames, Sequence) and not hasattr(frames, "__getitem__"):
            raise UserError("this strategy goes through the video more than once: give a sequence of frames, "
                            "or use mwi or window")
        if self._flow is not None:
            return self._in_order(self._run_spooled(frames, key))
        return self._in_order(self._engine.run(self._variables, _Reader(frames, self._arrays), self._strategy,
                                               key))

    def _pairs(self, frames: Iterable[Item]) -> Iterable[Item]:
        """Frames with their flow, where they come without."""
        return frames if self._flow is None else flow_renderings(map(_plain, frames), self._flow)

    def _run_spooled(self, frames: Sequence[np.ndarray], key: Array) -> Iterator[FrameResult]:
        """Runs a strategy of several passes; the flow is computed once and kept in a temporary file."""
        pairs = self._pairs(frames[i] for i in range(len(frames)))
        with PairClip(pairs, len(frames), pathlib.Path(tempfile.gettempdir())) as clip:
            yield from self._engine.run(self._variables, clip, self._strategy, key)

    @staticmethod
    def _in_order(results: Iterator[FrameResult]) -> Iterator[FrameResult]:
        """Grouped strategies predict group by group."""
        early, following = {}, 0
        for result in results:
            early[result.index] = result
            while following in early:
                yield early.pop(following)
                following += 1

    def _arrays(self, item: Item) -> dict[str, np.ndarray]:
        if not self._takes_flow:
            return {"image": np.asarray(item)}
        if not isinstance(item, tuple) or len(item) != 2:
            raise UserError("a frame of DATTT is a pair: (frame, flow rendering), both uint8 [H, W, 3]; for "
                            "frames alone make the adapter with flow='dis'")
        image, flow = map(np.asarray, item)
        if image.dtype != np.uint8 or flow.dtype != np.uint8 or image.ndim != 3 or image.shape != flow.shape:
            raise UserError(f"frame {image.dtype} {image.shape}, flow rendering {flow.dtype} {flow.shape}: "
                            "both must be uint8 [H, W, 3] of one size")
        return {"image": image, "flow": flow}

    def compile_count(self) -> int:
        """Programs compiled so far: one per frame size."""
        return self._engine.compile_count()


def _plain(frame: Item) -> np.ndarray:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        raise UserError("an adapter with flow takes frames alone, uint8 [H, W, 3]")
    return frame


class _Reader:
    """A sequence of frames as the engine reads it."""

    def __init__(self, frames: Sequence[Item], arrays: Callable[[Item], dict[str, np.ndarray]]) -> None:
        self._frames, self._arrays = frames, arrays

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return jax.tree.map(lambda *x: np.stack(x), *(self._arrays(self._frames[int(i)]) for i in indices))


def _dattt_problem(model: DATTT, objective: str | Any, input_size: tuple[int, int], batch_size: int,
                   upsampling: str, learning_rate: float, trainable: Callable[[Path], bool] | None
                   ) -> Problem:
    from dattt_jax.ttt.task import Task  # DATTT's own; other networks do without

    task = Task(model, tuple(input_size), batch_size, upsampling=upsampling)
    if isinstance(objective, str):
        name, objective = objective, create_objective(objective, task, "objective")
        task.check_heads(objective, name)
    return task.problem(objective, learning_rate, trainable)


def _network_problem(apply: Apply, objective: str | Any, learning_rate: float,
                     trainable: Callable[[Path], bool] | None) -> Problem:
    if objective == "entropy":
        if trainable is None:
            raise UserError("objective='entropy' needs trainable, a function (path) -> whether it is trained")
        objective = Tent(lambda variables, frame: apply(variables, frame["image"]),
                         lambda variables, frame: {}, trainable)
    elif isinstance(objective, str):
        raise UserError(f"objective={objective!r} is one of DATTT's: give 'entropy' or an Objective of the "
                        "network's own")

    def predict(variables: Variables, frame: Frame, context: tuple) -> Array:
        return jax.nn.sigmoid(apply(variables, frame["image"]).astype(jnp.float32))

    return Problem(objective=objective, context=lambda variables, frame: (), predict=predict,
                   optimizer=optax.adam(learning_rate), trainable=trainable, view=_view)


def _view(frame: Frame, key: Array) -> Frame:
    """Another brightness and contrast of an image of any range and type."""
    contrast, brightness = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    image = frame["image"].astype(jnp.float32)
    mean, spread = jnp.mean(image), jnp.std(image)
    image = (image - mean) * (1 + _VIEW_CONTRAST * contrast) + mean + _VIEW_BRIGHTNESS * brightness * spread
    if frame["image"].dtype == jnp.uint8:
        image = jnp.clip(jnp.round(image), 0, 255)
    return frame | {"image": image.astype(frame["image"].dtype)}
