"""RAFT's correlation of every pixel with every pixel, and the lookup in it (section 3.2 of the paper).

Features of frame 2 are pooled instead of the correlation itself: the correlation with an average is the
average of the correlations, so the numbers are the same and the pooled levels cost a matrix product each.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

LEVELS = 4


def feature_pyramid(features: Array) -> list[Array]:
    """Averages 2×2 cells again and again; an odd last row or column is dropped.

    Args:
        features: `[B, h, w, D]` of frame 2.

    Returns:
        `LEVELS` arrays `[B, h // 2^i, w // 2^i, D]`.
    """
    levels = [features]
    for _ in range(LEVELS - 1):
        x = levels[-1]
        batch, height, width, channels = x.shape
        x = x[:, : height // 2 * 2, : width // 2 * 2]
        levels.append(x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4)))
    return levels


def correlate(queries: Array, levels: list[Array]) -> list[Array]:
    """Correlation of pixels of frame 1 with all of frame 2, divided by sqrt(D).

    Args:
        queries: `[B, P, D]` features of frame 1.
        levels: see `feature_pyramid`.

    Returns:
        For each level `[B, P, h_i, w_i]`.
    """
    queries = queries / math.sqrt(queries.shape[-1])
    return [jnp.einsum("bpd,bhwd->bphw", queries, level) for level in levels]


def lookup(volumes: list[Array], places: Array, radius: int) -> Array:
    """Bilinear samples of the correlation around the place each pixel is thought to have moved to.

    Level i is sampled at place / 2^i + (ox, oy) for whole ox, oy in [-radius, radius], with zeros outside.

    Args:
        volumes: see `correlate`.
        places: `[B, P, 2]` (x, y) in cells of the finest level.
        radius: of the window, S = 2 · radius + 1.

    Returns:
        `[B, P, LEVELS · S²]`; within a level ox is the slow index and oy the fast one.
    """
    return jnp.concatenate([_window(volume, places / 2**level, radius)
                            for level, volume in enumerate(volumes)], axis=-1)


def _window(volume: Array, places: Array, radius: int) -> Array:
    """One level: volume `[B, P, h, w]`, places `[B, P, 2]` -> `[B, P, S²]`.

    All samples of a window have the same fraction, so (S + 1)² cells are read and blended: four reads per
    sample become little more than one.
    """
    batch, count, height, width = volume.shape
    base = jnp.floor(places)
    fraction = (places - base)[..., None, None]
    # Far outside, a window that is clipped to one that just does not touch the map sees the same zeros.
    limit = jnp.array([width, height], base.dtype) + radius
    base = jnp.clip(base, -radius - 2, limit).astype(jnp.int32)
    offsets = jnp.arange(-radius, radius + 2)
    x, y = (base[..., axis, None] + offsets for axis in range(2))  # [B, P, S + 1] each
    inside = (((x >= 0) & (x < width))[..., :, None] & ((y >= 0) & (y < height))[..., None, :])
    cells = (jnp.clip(y, 0, height - 1)[..., None, :] * width + jnp.clip(x, 0, width - 1)[..., :, None])
    values = jnp.take_along_axis(volume.reshape(batch, count, -1), cells.reshape(batch, count, -1), axis=-1,
                                 mode="promise_in_bounds").reshape(cells.shape)
    values = jnp.where(inside, values, 0)
    blend_x, blend_y = fraction[:, :, 0], fraction[:, :, 1]
    values = (1 - blend_x) * values[..., :-1, :] + blend_x * values[..., 1:, :]
    values = (1 - blend_y) * values[..., :-1] + blend_y * values[..., 1:]
    return values.reshape(batch, count, -1)


def lookup_in_parts(queries: Array, levels: list[Array], places: Array, radius: int, part: int) -> Array:
    """`lookup` that never holds the whole correlation: it is computed anew for `part` pixels at a time.

    Args:
        queries: see `correlate`.
        levels: see `feature_pyramid`.
        places: see `lookup`.
        radius: see `lookup`.
        part: pixels of frame 1 whose correlation is in memory at once.

    Returns:
        As `lookup`.
    """
    batch, count = queries.shape[:2]
    parts = -(-count // part)

    def split(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, parts * part - count), (0, 0)))
        return x.reshape(batch, parts, part, -1).swapaxes(0, 1)

    found = lax.map(lambda inputs: lookup(correlate(inputs[0], levels), inputs[1], radius),
                    (split(queries), split(places)))
    return found.swapaxes(0, 1).reshape(batch, parts * part, -1)[:, :count]


def volume_bytes(height: int, width: int) -> int:
    """Memory of the whole correlation of one pair, float32.

    Args:
        height: of the feature maps (an eighth of the frame's).
        width: of the feature maps.
    """
    return 4 * height * width * sum((height >> level) * (width >> level) for level in range(LEVELS))
