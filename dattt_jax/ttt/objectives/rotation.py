"""TTT-Rot: tell by how many quarter turns a crop is rotated (Sun et al., ICML 2020).

The head is trained jointly (`config.model.heads`); at test time the image encoder minimises the same loss on
crops of the frame, each in all four rotations, and the head stays.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax.numpy as jnp

from dattt_jax.pretext import cross_entropy, rotate
from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables
from dattt_jax.ttt.objectives.filters import is_image_encoder

if TYPE_CHECKING:
    from dattt_jax.ttt.task import Task


@dataclasses.dataclass(frozen=True)
class Rotation(Objective):
    """Mean cross-entropy over four rotations of B crops.

    Attributes:
        crops: (key, frame) -> normalised square crops [B, s, s, 3].
        class_logits: (variables, images [4B, s, s, 3]) -> logits [4B, 4].
        moves: path -> whether it is trained.
    """

    crops: Callable[[Array, Frame], Array]
    class_logits: Callable[[Variables, Array], Array]
    moves: Callable[[Path], bool] = is_image_encoder
    heads = ("rotation",)

    def trainable(self, path: Path) -> bool:
        """As `moves` says."""
        return self.moves(path)

    def sample(self, frame: Frame, step: Array, key: Array) -> Array:
        """[4B, s, s, 3]: the crops turned by 0, then by 1, 2 and 3 quarters."""
        del step
        crops = self.crops(key, frame)
        return jnp.concatenate([rotate(crops, jnp.full(len(crops), k)) for k in range(4)])

    def loss(self, variables: Variables, batch: Array, key: Array) -> Array:
        """Mean cross-entropy, nats; log 4 for a head that knows nothing."""
        del key
        turns = jnp.repeat(jnp.arange(4), len(batch) // 4)
        return cross_entropy(self.class_logits(variables, batch), turns)


def rotation(task: "Task") -> Rotation:
    """TTT-Rot of DATTT."""
    return Rotation(task.crops, task.rotation_logits)
