"""Encoding a batch in pieces: what makes a 512×512 gradient step fit a CPU, and quick there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dattt_jax.models.dattt import DATTT, Features

Array = jax.Array

# Pixels per encoder call on the CPU, where activations that stay in the caches are worth more than large
# matrix products: one 512×512 image, or as many smaller ones. Measured on 4 cores, MiT-b1, a TTT step on 16
# images of 512²: 1 image per call 6.4 s and 1.8 GB, 2 images 7.9 s and 2.9 GB, all at once above 23 GB.
_CPU_PIXELS = 512 * 512


def images_per_call(height: int, width: int) -> int | None:
    """How many images of that size to encode at once; None for all of them (accelerators)."""
    if jax.default_backend() != "cpu":
        return None
    return max(1, _CPU_PIXELS // (height * width))


def encode(model: DATTT, variables: dict, images: Array, *, method: Callable, train: bool = False,
           keys: Array | None = None, at_once: int | None = None) -> Features:
    """Features of a batch, at most `at_once` images per encoder call.

    The encoders treat images independently and each image has a key of its own, so neither the pieces nor the
    devices a batch is spread over change the features. Each piece is recomputed in the backward pass: memory
    for one piece's activations instead of the batch's.

    Args:
        model: the network.
        variables: its variables.
        images: normalised, [B, H, W, 3].
        method: `model.encode_image` or `model.encode_flow`.
        train: drop-path on.
        keys: PRNG keys [B] of the drop-path coins; needed if `train`.
        at_once: images per call; None encodes the batch in one.

    Returns:
        Four feature maps [B, h_i, w_i, C_i].
    """
    def encode_one(item: tuple[Array, Array | None]) -> Features:
        image, key = item
        rngs = {"drop_path": key} if train else None
        features = model.apply(variables, image[None], train=train, method=method, rngs=rngs)
        return tuple(f[0] for f in features)

    items = (images, keys if train else None)
    if at_once is None or at_once >= images.shape[0]:
        return jax.vmap(encode_one)(items)
    # Inside a scan nothing can merge the recomputation with the first computation, so no barriers are needed.
    return jax.lax.map(jax.checkpoint(encode_one, prevent_cse=False), items, batch_size=at_once)


def apply_in_pieces(model: DATTT, variables: dict, image: Array, flow: Array, keys: Array
                    ) -> tuple[dict[str, Array], dict]:
    """`model.apply` in training mode with `encode` in the place of the encoders.

    Args:
        model: the network.
        variables: its variables.
        image: normalised frames [B, H, W, 3].
        flow: normalised flow renderings [B, H, W, 3].
        keys: PRNG keys [B] of the drop-path coins.

    Returns:
        ({'mask', 'depth'} logits as of `DATTT.__call__`, {'batch_stats': updated}).
    """
    at_once = images_per_call(*image.shape[1:3])
    image_keys, flow_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    image_features = encode(model, variables, image, method=model.encode_image, train=True, keys=image_keys,
                            at_once=at_once)
    flow_features = encode(model, variables, flow, method=model.encode_flow, train=True, keys=flow_keys,
                           at_once=at_once)
    return model.apply(variables, image_features, flow_features, train=True, method=model.decode,
                       mutable=["batch_stats"])
