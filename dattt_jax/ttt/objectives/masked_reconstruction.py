"""TTT-MAE: reconstruct the hidden blocks of crops of the frame (Gandelsman et al., NeurIPS 2022).

The decoder is trained jointly (`config.model.heads`); at test time the image encoder minimises the same loss,
and the decoder stays. See `dattt_jax.pretext` for what is hidden.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from dattt_jax.pretext import hidden_blocks, masked_mse
from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables
from dattt_jax.ttt.objectives.filters import is_image_encoder

if TYPE_CHECKING:
    from dattt_jax.ttt.task import Task


@dataclasses.dataclass(frozen=True)
class MaskedReconstruction(Objective):
    """Mean squared error on hidden blocks, in normalised pixel units.

    Attributes:
        crops: (key, frame) -> normalised crops [B, h, w, 3].
        reconstruct: (variables, images [B, h, w, 3], hidden parts 0) -> pixels [B, h, w, 3].
        moves: path -> whether it is trained.
    """

    crops: Callable[[Array, Frame], Array]
    reconstruct: Callable[[Variables, Array], Array]
    moves: Callable[[Path], bool] = is_image_encoder
    heads = ("reconstruction",)

    def trainable(self, path: Path) -> bool:
        """As `moves` says."""
        return self.moves(path)

    def sample(self, frame: Frame, step: Array, key: Array) -> tuple[Array, Array]:
        """Crops [B, h, w, 3], and what of each is hidden, bool [B, h, w, 1]."""
        del step
        crop_key, hide_key = jax.random.split(key)
        crops = self.crops(crop_key, frame)
        keys = jax.random.split(hide_key, len(crops))
        return crops, jax.vmap(lambda k: hidden_blocks(k, crops.shape[1:3]))(keys)

    def loss(self, variables: Variables, batch: tuple[Array, Array], key: Array) -> Array:
        """Mean squared error over the hidden pixels."""
        del key
        crops, hidden = batch
        return masked_mse(self.reconstruct(variables, jnp.where(hidden, 0.0, crops)), crops, hidden)


def masked_reconstruction(task: "Task") -> MaskedReconstruction:
    """TTT-MAE of DATTT."""
    return MaskedReconstruction(task.crops, task.reconstruct)
