"""TENT: minimise the entropy of the prediction over the affine parameters of normalisation layers.

Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021. BatchNorm uses the frame's
own statistics, in the loss and in the prediction. `tent_bn` trains BatchNorm's scale and bias, of which DATTT
has two layers, one in each decoder (the mask reads one); `tent_bn_ln` also those of the encoders' LayerNorms.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import traverse_util

from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables
from dattt_jax.ttt.objectives.batch_norm import Statistics
from dattt_jax.ttt.objectives.filters import affine_of

if TYPE_CHECKING:
    from dattt_jax.ttt.task import Task


def binary_entropy(logits: Array) -> Array:
    """Mean entropy of Bernoulli variables with these logits, in nats.

    Args:
        logits: float, any shape; p = sigmoid(logits).

    Returns:
        Scalar in [0, log 2], float32: mean of −p·log p − (1−p)·log(1−p), without overflow.
    """
    x = logits.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(x) - x * jax.nn.sigmoid(x))


@dataclasses.dataclass(frozen=True)
class Tent(Objective):
    """Mean binary entropy of the mask of the plain frame.

    Attributes:
        logits: (variables, frame) -> mask logits, any shape, BatchNorm with the frame's own statistics.
        statistics: (variables, frame) -> {path: array} of those statistics, for the prediction; {} for a
            network without BatchNorm.
        moves: path -> whether it is trained.
    """

    logits: Callable[[Variables, Frame], Array]
    statistics: Callable[[Variables, Frame], Statistics]
    moves: Callable[[Path], bool]

    def trainable(self, path: Path) -> bool:
        """As `moves` says."""
        return self.moves(path)

    def sample(self, frame: Frame, step: Array, key: Array) -> Frame:
        """The frame as it is: TENT adapts to what it predicts."""
        del step, key
        return frame

    def loss(self, variables: Variables, batch: Frame, key: Array) -> Array:
        """Mean binary entropy, nats."""
        del key
        return binary_entropy(self.logits(variables, batch))

    def ready(self, variables: Variables, memory: tuple, frame: Frame) -> Variables:
        """The variables with the frame's own statistics."""
        del memory
        flat = traverse_util.flatten_dict(variables)
        return traverse_util.unflatten_dict({**flat, **self.statistics(variables, frame)})


def tent_bn(task: "Task") -> Tent:
    """TENT on BatchNorm: what the paper's Table 4 can have been."""
    return Tent(task.train_mode_mask_logits, task.biased_statistics, affine_of("bn"))


def tent_bn_ln(task: "Task") -> Tent:
    """TENT on BatchNorm and LayerNorm."""
    return Tent(task.train_mode_mask_logits, task.biased_statistics, affine_of("bn", "norm"))
