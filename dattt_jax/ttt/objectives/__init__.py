"""Objectives of test-time training: what is minimised on an unlabelled frame. One file each."""

from typing import Any, Protocol

import jax

Array = jax.Array
Variables = dict[str, Any]
Frame = dict[str, Array]


class Objective(Protocol):
    """What the engine asks of an objective. Both methods are traced inside the engine's scan."""

    def sample(self, frame: Frame, step: Array, key: Array) -> Any:
        """Makes the batch of one gradient step from a frame.

        Args:
            frame: arrays of one frame as the engine's caller handed them in, e.g. {'image': uint8 [H, W, 3]}.
            step: int32 scalar, number of this step among the frame's steps.
            key: PRNG key of this step.
        """

    def loss(self, variables: Variables, batch: Any, key: Array) -> Array:
        """Scalar loss of the network with `variables` on what `sample` returned."""
