"""Encoding a batch in pieces: what makes a 512×512 gradient step fit a CPU, and quick there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dattt_jax.models.dattt import DATTT, Features

Array = jax.Array

# On the CPU activations that stay in the caches are worth more than large matrix products: one image per
# encoder call, or of small ones as many as have the pixels of one of 512². Measured on 4 cores, MiT-b1, TTT
# steps: on 16 images of 512² 1 image per call 6.4 s and 1.8 GB, 2 images 7.9 s and 2.9 GB, all at once above
# 23 GB; on 2 cores, 16 of 256²: 1 image 4.0 s, 4 images 5.2 s; 16 of 128²: alike, but half again to compile.
_SMALL = 128 * 128
_PIXELS = 512 * 512

# Encoder calls that do not depend on each other, in one piece: XLA's CPU runtime runs one while the other
# waits for its slowest thread. Same step on 8 images: 1 call 3.4 s (2.9 of 4 cores busy), 2 calls 2.9 s (3.6
# busy), 4 calls 3.1 s; each adds half again to compilation.
_CALLS = 2


def images_per_call(height: int, width: int) -> int | None:
    """How many images of that size to encode at once; None for all of them (accelerators)."""
    if jax.default_backend() != "cpu":
        return None
    return 1 if height * width > _SMALL else _PIXELS // (height * width)


def encode_image(model: DATTT, variables: dict, images: Array, *, train: bool = False,
                 keys: Array | None = None, at_once: int | None = None) -> Features:
    """Image features of a batch, at most `at_once` images per encoder call.

    The encoders treat images independently and each image has a key of its own, so neither the pieces nor the
    devices a batch is spread over change the features. Each piece is recomputed in the backward pass: memory
    for one piece's activations instead of the batch's.

    Args:
        model: the network.
        variables: its variables.
        images: normalised, [B, H, W, 3].
        train: drop-path on.
        keys: PRNG keys [B] of the drop-path coins; needed if `train`.
        at_once: images per call; None encodes the batch in one.

    Returns:
        Four feature maps [B, h_i, w_i, C_i].
    """
    def encode_one(item: tuple[Array, Array | None]) -> Features:
        return tuple(f[0] for f in _features(model, variables, *item, model.encode_image))

    return _map_pieces(encode_one, (images, keys if train else None), at_once, calls=_CALLS)


def apply_in_pieces(model: DATTT, variables: dict, image: Array, flow: Array, keys: Array
                    ) -> tuple[dict[str, Array], dict]:
    """`model.apply` in training mode, in pieces as in `encode_image` up to where BatchNorm sees the batch.

    With the decoders in the pieces, a step of MiT-b1 on 8 images of 512² takes 8.2 s instead of 8.9 s on 4
    cores. (A TTT step, whose one decoder is folded and frozen, would lose 4 % by it.)

    Args:
        model: the network.
        variables: its variables.
        image: normalised frames [B, H, W, 3].
        flow: normalised flow renderings [B, H, W, 3].
        keys: PRNG keys [B] of the drop-path coins.

    Returns:
        ({'mask', 'depth'} logits as of `DATTT.__call__`, {'batch_stats': updated}).
    """
    def fuse_one(item: tuple[Array, Array, Array]) -> dict[str, Array]:
        image, flow, key = item
        image_key, flow_key = jax.random.split(key)
        fused = model.apply(variables, _features(model, variables, image, image_key, model.encode_image),
                            _features(model, variables, flow, flow_key, model.encode_flow), method=model.fuse)
        return jax.tree.map(lambda x: x[0], fused)

    # The two encoders are the calls that do not depend on each other.
    fused = _map_pieces(fuse_one, (image, flow, keys), images_per_call(*image.shape[1:3]), calls=1)
    return model.apply(variables, fused, train=True, method=model.predict, mutable=["batch_stats"])


def _features(model: DATTT, variables: dict, image: Array, key: Array | None, method: Callable) -> Features:
    """Features [1, h_i, w_i, C_i] of one image; with a key in training mode."""
    rngs = None if key is None else {"drop_path": key}
    return model.apply(variables, image[None], train=key is not None, method=method, rngs=rngs)


def _map_pieces(function: Callable, items: Any, at_once: int | None, *, calls: int) -> Any:
    """`jax.vmap(function)(items)` in calls of `at_once` items, `calls` of them side by side."""
    count = jax.tree.leaves(items)[0].shape[0]
    if at_once is None or at_once >= count:
        return _mapped(function, items)

    def piece(items: Any) -> Any:
        size = jax.tree.leaves(items)[0].shape[0]
        outputs = [_mapped(function, _cut(items, start, start + at_once))
                   for start in range(0, size, at_once)]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)

    # Inside a scan nothing can merge the recomputation with the first computation, so no barriers are needed.
    run = jax.checkpoint(piece, prevent_cse=False)
    size = calls * at_once
    whole = count // size * size
    outputs = jax.lax.map(run, jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]),
                                            _cut(items, 0, whole)))
    outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
    if whole < count:
        rest = run(_cut(items, whole, count))
        outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, rest)
    return outputs


def _mapped(function: Callable, items: Any) -> Any:
    """`jax.vmap(function)(items)`, without a mapped axis for a single item (see `ops.matmul`)."""
    if jax.tree.leaves(items)[0].shape[0] > 1:
        return jax.vmap(function)(items)
    outputs = function(jax.tree.map(lambda x: x[0], items))
    return jax.tree.map(lambda x: x[None], outputs)


def _cut(items: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda x: x[start:stop], items)
