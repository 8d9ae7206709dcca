"""Depth consistency: two photometric views of the same crops must get the same depth (DATTT, section 3.3)."""

import dataclasses
from collections.abc import Callable

import jax

from dattt_jax.losses import silog
from dattt_jax.ttt.objectives import Array, Frame, Variables


@dataclasses.dataclass(frozen=True)
class DepthConsistency:
    """SILog between the depth of view 2 and, as target, the depth of view 1; gradients flow into both.

    Attributes:
        views: (key, image uint8 [H, W, 3]) -> two normalised views [2, B, h, w, 3] of the same B crops.
        depth_logits: (variables, views, key) -> logits [2, B, h', w', 1], the network in training mode
            with normalisation statistics of each view's own batch.
    """

    views: Callable[[Array, Array], Array]
    depth_logits: Callable[[Variables, Array, Array], Array]

    def sample(self, frame: Frame, step: Array, key: Array) -> Array:
        """Two views of B crops of `frame['image']`; every step draws its own."""
        del step
        return self.views(key, frame["image"])

    def loss(self, variables: Variables, batch: Array, key: Array) -> Array:
        """SILog(sigmoid(depth of view 2), sigmoid(depth of view 1)) at the logits' own resolution."""
        reference, prediction = jax.nn.sigmoid(self.depth_logits(variables, batch, key))
        return silog(prediction, reference)
