"""Self-supervised tasks of the auxiliary heads: what they see and what is minimised, in training and in TTT.

Rotation: Sun et al., ICML 2020. Masked reconstruction: Gandelsman et al., NeurIPS 2022; MiT and Swin cannot
drop tokens, so blocks of pixels are hidden instead, each as large as a token of the last stage.
"""

import jax
import jax.numpy as jnp

from dattt_jax.errors import UserError
from dattt_jax.models.dattt import DATTT
from dattt_jax.models.encode import encode_image, images_per_call
from dattt_jax.variables import Variables

Array = jax.Array

BLOCK = 32  # pixels per side of a hidden block: one token of the last stage
HIDDEN = 0.75  # part of the blocks that is hidden


def rotate(images: Array, turns: Array) -> Array:
    """Rotates each image by quarter turns, counter-clockwise.

    Args:
        images: [B, S, S, C], any dtype.
        turns: int [B], in 0..3.

    Returns:
        [B, S, S, C].

    Raises:
        UserError: the images are not square.
    """
    if images.shape[1] != images.shape[2]:
        raise UserError(f"rotations need a square config.input_size, not {tuple(images.shape[1:3])}")
    rotated = jnp.stack([jnp.rot90(images, k, axes=(1, 2)) for k in range(4)], axis=1)
    return rotated[jnp.arange(len(images)), turns]


def hidden_blocks(key: Array, size: tuple[int, int], *, block: int = BLOCK, ratio: float = HIDDEN) -> Array:
    """Chooses square blocks of an image to hide.

    Args:
        key: PRNG key.
        size: (height, width) of the image; blocks at its lower and right border may be cut.
        block: pixels per side.
        ratio: part of the blocks to hide; round(ratio · blocks) are, at least one.

    Returns:
        bool [height, width, 1], True where hidden.
    """
    rows, columns = (-(-side // block) for side in size)
    count = max(1, round(ratio * rows * columns))
    hidden = (jax.random.permutation(key, rows * columns) < count).reshape(rows, columns)
    hidden = jnp.repeat(jnp.repeat(hidden, block, axis=0), block, axis=1)
    return hidden[: size[0], : size[1], None]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross-entropy: logits float [B, K], labels int [B] -> scalar."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def masked_mse(prediction: Array, target: Array, hidden: Array) -> Array:
    """Mean squared error over the hidden pixels and their channels.

    Args:
        prediction: float [B, H, W, C].
        target: the same shape.
        hidden: bool [B, H, W, 1].

    Returns:
        Scalar, float32; 0 where nothing is hidden.
    """
    squares = jnp.where(hidden, jnp.square(prediction - target), 0.0)
    return jnp.sum(squares) / jnp.maximum(jnp.sum(hidden) * target.shape[-1], 1)


def rotation_logits(model: DATTT, variables: Variables, images: Array, keys: Array | None = None) -> Array:
    """Logits [B, 4] of the rotation of normalised images [B, S, S, 3]; `keys` [B] turn drop-path on."""
    return model.apply(variables, _features(model, variables, images, keys), method=model.rotation_logits)


def reconstruct(model: DATTT, variables: Variables, images: Array, keys: Array | None = None) -> Array:
    """Pixels [B, H, W, 3] predicted from normalised images [B, H, W, 3]; `keys` [B] turn drop-path on."""
    pixels = model.apply(variables, _features(model, variables, images, keys), method=model.reconstruct)
    return pixels[:, : images.shape[1], : images.shape[2]]


def auxiliary_losses(model: DATTT, variables: Variables, images: Array, keys: Array) -> dict[str, Array]:
    """Losses of the network's auxiliary heads in training mode.

    Each image is rotated by one angle of its own, and hidden in part by blocks of its own.

    Args:
        model: the network.
        variables: its variables.
        images: normalised frames [B, H, W, 3].
        keys: PRNG keys [B], one per sample; all randomness of a sample comes from its key.

    Returns:
        {name of the head: scalar mean over the samples}; {} without heads.
    """
    found = {}
    choice_keys, drop_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    if "rotation" in model.heads:
        turns = jax.vmap(lambda key: jax.random.randint(key, (), 0, 4))(choice_keys)
        logits = rotation_logits(model, variables, rotate(images, turns), drop_keys)
        found["rotation"] = cross_entropy(logits, turns)
    if "reconstruction" in model.heads:
        hidden = jax.vmap(lambda key: hidden_blocks(key, images.shape[1:3]))(choice_keys)
        pixels = reconstruct(model, variables, jnp.where(hidden, 0.0, images), drop_keys)
        found["reconstruction"] = masked_mse(pixels, images, hidden)
    return found


def _features(model: DATTT, variables: Variables, images: Array, keys: Array | None) -> tuple[Array, ...]:
    return encode_image(model, variables, images, train=keys is not None, keys=keys,
                        at_once=images_per_call(*images.shape[1:3]))
