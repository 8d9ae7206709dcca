"""Depth consistency: two photometric views of the same crops must get the same depth (DATTT, section 3.3)."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax

from dattt_jax.losses import silog
from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables
from dattt_jax.ttt.objectives.filters import is_image_encoder

if TYPE_CHECKING:
    from dattt_jax.ttt.task import Task


@dataclasses.dataclass(frozen=True)
class DepthConsistency(Objective):
    """SILog between the depth of view 2 and, as target, the depth of view 1; gradients flow into both.

    Attributes:
        views: (key, frame) -> two normalised views [2, B, h, w, 3] of the same B crops.
        depth_logits: (variables, views, key) -> logits [2, B, h', w', 1], the network in training mode
            with normalisation statistics of each view's own batch.
        moves: path -> whether it is trained.
    """

    views: Callable[[Array, Frame], Array]
    depth_logits: Callable[[Variables, Array, Array], Array]
    moves: Callable[[Path], bool] = is_image_encoder
    heads = ("depth",)

    def trainable(self, path: Path) -> bool:
        """As `moves` says: in the paper the image encoder."""
        return self.moves(path)

    def sample(self, frame: Frame, step: Array, key: Array) -> Array:
        """Two views of B crops of the frame; every step draws its own."""
        del step
        return self.views(key, frame)

    def loss(self, variables: Variables, batch: Array, key: Array) -> Array:
        """SILog(sigmoid(depth of view 2), sigmoid(depth of view 1)) at the logits' own resolution."""
        reference, prediction = jax.nn.sigmoid(self.depth_logits(variables, batch, key))
        return silog(prediction, reference)


def depth_consistency(task: "Task") -> DepthConsistency:
    """The paper's objective for DATTT."""
    return DepthConsistency(views=task.views, depth_logits=task.depth_logits)
