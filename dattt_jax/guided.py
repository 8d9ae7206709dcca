"""Guided upsampling: the mask's edges where the frame has them. The paper upsamples bilinearly.

In each window of 5×5 logits the probability is fitted by a linear function of the colours there. The means of
the functions that cover a place, upsampled to the frame, are applied to the frame's own colours.

Source: He, Sun, Tang, "Guided Image Filtering", TPAMI 2013; coefficients at a lower resolution than the
image: He, Sun, "Fast Guided Filter", 2015.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dattt_jax.framing import STRIDE

Array = jax.Array

# Chosen on held-out synthetic clips, where radius 3 gives 0.7 J more and 0.7 F less.
_RADIUS = 2  # of a window, in places of the logits
_EPSILON = 2e-3  # added to the variance of normalised colours: below it, windows count as of one colour


def linear_functions(image: Array, probability: Array) -> Array:
    """Coefficients of the functions that make the probability of the colours.

    Args:
        image: the network's input, normalised, float32 [B, H, W, 3].
        probability: float32 [B, ceil(H/4), ceil(W/4)] in 0..1.

    Returns:
        float32 [B, ceil(H/4), ceil(W/4), 4]: three factors of the normalised colours, and what is added.
    """
    height, width = probability.shape[1:]
    guide = _block_means(image, height, width)
    target = probability[..., None]
    products = [guide[..., i, None] * guide[..., i:] for i in range(3)]
    means = _window_means(jnp.concatenate([guide, target, *products, guide * target], axis=-1))
    mean, target_mean, products, along = jnp.split(means, (3, 4, 10), axis=-1)
    rows = jnp.split(products, (3, 5), axis=-1)  # of the upper triangle
    covariance = [[rows[i][..., j - i] - mean[..., i] * mean[..., j] + (_EPSILON if i == j else 0.0)
                   for j in range(i, 3)] for i in range(3)]
    factors = _solve(covariance, [along[..., i] - mean[..., i] * target_mean[..., 0] for i in range(3)])
    added = target_mean - jnp.sum(factors * mean, axis=-1, keepdims=True)
    return _window_means(jnp.concatenate([factors, added], axis=-1))


def apply_functions(functions: Array, image: Array) -> Array:
    """Probability [B, H, W] in 0..1 of functions [B, H, W, 4] of the normalised colours [B, H, W, 3]."""
    return jnp.clip(jnp.sum(functions[..., :3] * image, axis=-1) + functions[..., 3], 0.0, 1.0)


def refine(image: Array, probability: Array) -> Array:
    """The functions applied to the colours on the logits' own grid; arguments as of `linear_functions`.

    Returns:
        float32 [B, ceil(H/4), ceil(W/4)] in 0..1.
    """
    return apply_functions(linear_functions(image, probability), _block_means(image, *probability.shape[1:]))


def _block_means(image: Array, height: int, width: int) -> Array:
    """Means over blocks of 4×4 pixels; where the last block is cut, its last pixel is repeated."""
    rest = [(0, size * STRIDE - side) for size, side in zip((height, width), image.shape[1:3], strict=True)]
    image = jnp.pad(image, ((0, 0), *rest, (0, 0)), mode="edge")
    return image.reshape(-1, height, STRIDE, width, STRIDE, image.shape[-1]).mean((2, 4))


def _window_means(x: Array) -> Array:
    """Means of [B, h, w, C] over the windows around each place, as far as they are inside."""
    rows, columns = (_averaging(size) for size in x.shape[1:3])
    return jnp.einsum("yh,bhwc,xw->byxc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)


def _averaging(size: int) -> np.ndarray:
    places = np.arange(size)
    near = np.abs(places[:, None] - places) <= _RADIUS
    return (near / near.sum(axis=1, keepdims=True)).astype(np.float32)


def _solve(upper: list[list[Array]], y: list[Array]) -> Array:
    """Solutions [..., 3] of symmetric, positive definite systems; `upper` holds the triangle's rows.

    Written out, as LDLᵀ: a library's solver would be called once per place.
    """
    (a, b, c), (d, e), (f,) = upper
    b_a, c_a = b / a, c / a
    d = d - b_a * b
    e_d = (e - c_a * b) / d
    f = f - c_a * c - e_d * e_d * d
    y1 = y[1] - b_a * y[0]
    x2 = (y[2] - c_a * y[0] - e_d * y1) / f
    x1 = y1 / d - e_d * x2
    return jnp.stack([y[0] / a - b_a * x1 - c_a * x2, x1, x2], axis=-1)
