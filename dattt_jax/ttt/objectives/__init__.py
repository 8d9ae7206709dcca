"""Objectives of test-time training: what is minimised on an unlabelled frame. One file each.

An objective says which variables move, what the loss of a step is, and what it remembers between frames. To
add one, write a module with a subclass of `Objective` and a function (task) -> objective, and name it in
`OBJECTIVES`; the modules load on first use.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax

from dattt_jax.errors import UserError

Array = jax.Array
Path = tuple[str, ...]
Variables = dict[str, Any]
Frame = dict[str, Array]

# Name in config.ttt.objective -> "module:function", the function (task) -> Objective.
OBJECTIVES = {
    "depth": "dattt_jax.ttt.objectives.depth_consistency:depth_consistency",
    "tent_bn": "dattt_jax.ttt.objectives.tent:tent_bn",
    "tent_bn_ln": "dattt_jax.ttt.objectives.tent:tent_bn_ln",
    "bn": "dattt_jax.ttt.objectives.batch_norm:batch_norm",
    "rotation": "dattt_jax.ttt.objectives.rotation:rotation",
    "self_training": "dattt_jax.ttt.objectives.self_training:self_training",
    "mae": "dattt_jax.ttt.objectives.masked_reconstruction:masked_reconstruction",
}


class Objective:
    """What the engine asks of an objective. All methods but `trainable` are traced inside the engine's scan.

    A class with `sample` and `loss` alone will do where `Problem.trainable` says what moves.

    Attributes:
        heads: parts the network must have: 'depth', or names of `models.auxiliary.HEADS`.
        learns_predictions: whether `label` has a use for what the source predicts of the frame in the light
            of the whole video. Where that is known, frames have it as 'prediction', logits float [h/4, w/4].
    """

    heads: tuple[str, ...] = ()
    learns_predictions: bool = False

    def trainable(self, path: Path) -> bool:
        """Whether gradient steps change the variable at `path`, e.g. ('params', 'encoder_image', …)."""
        raise NotImplementedError

    def label(self, source: Variables, frame: Frame) -> Any:
        """What the unadapted network says of a frame to learn from; None: it is not asked."""
        return None

    def sample(self, frame: Frame, step: Array, key: Array) -> Any:
        """Makes the batch of one gradient step from a frame.

        Args:
            frame: arrays of one frame as the engine's caller handed them in, e.g. {'image': uint8 [H, W, 3]},
                and as 'label' what `label` said of it.
            step: int32 scalar, number of this step among the frame's steps.
            key: PRNG key of this step.
        """
        raise NotImplementedError

    def loss(self, variables: Variables, batch: Any, key: Array) -> Array:
        """Scalar loss of the network with `variables` on what `sample` returned."""
        raise NotImplementedError

    def memory(self, variables: Variables) -> Any:
        """What is known before the first frame, a pytree of arrays, () for nothing; of the source."""
        return ()

    def observe(self, memory: Any, variables: Variables, frame: Frame, step: Array) -> Any:
        """The memory after looking, before step `step` on it, at the frame that is to be predicted."""
        return memory

    def ready(self, variables: Variables, memory: Any, frame: Frame) -> Variables:
        """The variables that predict `frame`, e.g. with other normalisation statistics."""
        return variables


class Plain(Objective):
    """An object with `sample` and `loss` as an objective that remembers nothing."""

    def __init__(self, wrapped: Any) -> None:
        self.sample, self.loss = wrapped.sample, wrapped.loss


def create_objective(text: str, task: Any, field: str = "config.ttt.objective") -> Objective:
    """The objective of a config: a name of `OBJECTIVES`, or a weighted sum of them.

    Args:
        text: for example 'depth' or 'depth + 0.1*tent_bn'.
        task: what the functions of `OBJECTIVES` take, see `ttt.task.Task`.
        field: where the text comes from, for the error.

    Raises:
        UserError: a name is not known or a weight is not a positive number.
    """
    from dattt_jax.ttt.objectives.sum import Sum  # it derives from Objective

    parts = []
    for term in text.split("+"):
        weight, _, name = term.rpartition("*")
        parts.append((_weight(weight, text, field), _constructor(name.strip(), text, field)))
    weights = tuple(weight for weight, _ in parts)
    objectives = tuple(create(task) for _, create in parts)
    return objectives[0] if weights == (1,) else Sum(objectives, weights)


def _weight(text: str, whole: str, field: str) -> float:
    try:
        weight = float(text) if text.strip() else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UserError(f"{field}: {text.strip()!r} in {whole!r} is not a positive number")
    return weight


def _constructor(name: str, whole: str, field: str) -> Callable[[Any], Objective]:
    if name not in OBJECTIVES:
        part = "" if name == whole else f" (in {whole!r})"
        raise UserError(f"{field}: {name!r}{part} is not one of {', '.join(OBJECTIVES)}; sums are written as "
                        "in 'depth + 0.1*tent_bn'")
    module, function = OBJECTIVES[name].split(":")
    return getattr(importlib.import_module(module), function)
