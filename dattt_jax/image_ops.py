"""Resizing and normalisation, the same for training, test-time training and inference.

All functions are pure, need static output sizes, and take images as [..., height, width, channels].
Pixels are squares and positions are their centres: row y of an output of `size` rows looks at
source position (y + 0.5) * source_size / size - 0.5, and the border pixel is repeated outside
the image. That is the convention of PyTorch's `align_corners=False`, of OpenCV and of Pillow.
Nothing is antialiased: DATTT evaluates and adapts on plain bilinear frames. Those it trains on are resized
by Pillow, on the host.

A resize is two passes, one per axis, each a weighted sum of a few gathered rows ("taps"). On a CPU
gathering was 5 to 20 times faster than products with the [out, in] weight matrices. Where
gradients matter, in the decoder's upsampling, two things differ: an integer factor k is written as
k shifted sums ("phases") without gathers, and the gradient is given explicitly, since the transpose
of a gather is a scatter, which XLA runs slowly. Hence reverse mode only: `jax.jvp` of a resize is
not defined.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Kernel = Literal["nearest", "bilinear", "bicubic"]
Array = jax.Array | np.ndarray
Taps = tuple[Array, Array]


def normalize(image: jax.Array) -> jax.Array:
    """Scales RGB values to ImageNet's mean 0 and deviation 1, per channel.

    The same for a frame and for a flow rendering, as in DATTT's original code.

    Args:
        image: [..., 3] RGB, 0..255, uint8 or float.

    Returns:
        [..., 3] float32, about -2.1..2.7.
    """
    mean, std = jnp.asarray(IMAGENET_MEAN), jnp.asarray(IMAGENET_STD)
    return (image.astype(jnp.float32) / 255.0 - mean) / std


def crop_taps(out_size: int, in_size: jax.Array | int, kernel: Kernel, resized_size: jax.Array | int,
              offset: jax.Array | int) -> Taps:
    """Which source pixels, with which weights, make each pixel of one resized and cropped axis.

    The axis is resized from `in_size` to `resized_size`, and `out_size` pixels of that are wanted,
    from `offset` on. Positions are integer fractions, so that they are the same however compiled.

    Args:
        out_size: pixels wanted.
        in_size: pixels of the source axis, may be traced; 2 * in_size * resized_size must stay below 2**31.
        kernel: `bicubic` is Keys' with a = -0.75, as in OpenCV and PyTorch.
        resized_size: scalar integer, may be traced.
        offset: scalar integer, the first pixel wanted, may be traced.

    Returns:
        index: [out_size, taps] int32 in 0..in_size-1, and weight: [out_size, taps] float32. There
        are 1 (nearest), 2 (bilinear) or 4 (bicubic) taps; their weights sum to 1.
    """
    unit = 2 * jnp.asarray(resized_size, jnp.int32)  # positions are integers / unit
    position = (2 * (jnp.arange(out_size, dtype=jnp.int32) + offset) + 1) * in_size - unit // 2
    base = position // unit
    fraction = (position - base * unit).astype(jnp.float32) / unit.astype(jnp.float32)
    return _kernel_taps(base, fraction, in_size, kernel)


def resize_taps(out_size: int, in_size: int) -> Taps:
    """Bilinear taps of a whole resized axis, as NumPy arrays, at the positions that PyTorch computes.

    Its scale is a float32, and its position is one fused multiply-add of it, rounded to float32.

    Args:
        out_size: pixels of the result.
        in_size: pixels of the source axis.

    Returns:
        As `crop_taps`.
    """
    scale = float(np.float32(in_size / out_size))
    position = ((np.arange(out_size) + 0.5) * scale - 0.5).astype(np.float32)
    base = np.floor(position)
    return _kernel_taps(base.astype(np.int32), position - base, in_size, "bilinear")


def _kernel_taps(base: Array, fraction: Array, in_size: jax.Array | int, kernel: Kernel) -> Taps:
    """Taps at the positions base + fraction, [out] each, fraction in 0..1; NumPy arrays of NumPy arrays."""
    t = fraction
    xp = np if isinstance(t, np.ndarray) else jnp
    if kernel == "nearest":
        first, weights = 0, (xp.ones_like(t),)
        base = base + (t >= 0.5)
    elif kernel == "bilinear":
        first, weights = 0, (1 - t, t)
    else:
        first, weights = -1, (_cubic_far(1 + t), _cubic_near(t), _cubic_near(1 - t),
                              _cubic_far(2 - t))
    index = base[:, None] + first + xp.arange(len(weights), dtype=np.int32)
    return xp.clip(index, 0, in_size - 1), xp.stack(weights, axis=-1)


def _cubic_near(distance: Array) -> Array:
    """Keys' kernel, a = -0.75, at distances 0..1."""
    return (1.25 * distance - 2.25) * distance * distance + 1


def _cubic_far(distance: Array) -> Array:
    """Keys' kernel, a = -0.75, at distances 1..2."""
    return -0.75 * (((distance - 5) * distance + 8) * distance - 4)


def resample(image: jax.Array, taps: Taps, axis: int) -> jax.Array:
    """Makes each output pixel along one axis as the weighted sum of its taps.

    Args:
        image: an array of any shape and dtype.
        taps: index and weight, [out, taps] each, from `crop_taps`.
        axis: the axis to resample, 0 or positive.

    Returns:
        `image`'s shape with `out` pixels along `axis`, of the weights' dtype, unrounded.
    """
    index, weight = taps
    shape = [1] * image.ndim
    shape[axis] = -1
    return sum(jnp.take(image, index[:, tap], axis=axis, mode="clip").astype(weight.dtype)
               * weight[:, tap].reshape(shape) for tap in range(index.shape[1]))


def resize_bilinear(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes bilinearly without antialias, as `F.interpolate(..., align_corners=False)`.

    Args:
        image: [..., H, W, C], float (kept) or integer (becomes float32).
        size: (height, width) of the result, any.

    Returns:
        [..., height, width, C].
    """
    return _resize(image, size)


def upsample_bilinear(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`resize_bilinear` for the decoder's feature maps: the name says where the speed comes from.

    Integer factors, x2, x4, x8, avoid gathers in both directions; other sizes work as well.
    """
    return _resize(image, size)


def _resize(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    if not jnp.issubdtype(image.dtype, jnp.floating):
        image = image.astype(jnp.float32)
    # The smaller intermediate first: fewer pixels pass through both.
    axes = [(image.ndim - 3, size[0]), (image.ndim - 2, size[1])]
    for axis, out_size in sorted(axes, key=lambda item: item[1] / image.shape[item[0]]):
        if out_size != image.shape[axis]:
            image = _resize_axis(image, axis, image.shape[axis], out_size)
    return image


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _resize_axis(image: jax.Array, axis: int, in_size: int, out_size: int) -> jax.Array:
    """Resizes one axis of a float image from `in_size` to `out_size`, keeping the dtype."""
    if out_size % in_size == 0:
        return _upsample_phases(image, axis, out_size // in_size)
    return resample(image, resize_taps(out_size, in_size), axis).astype(image.dtype)


def _resize_axis_forward(image: jax.Array, axis: int, in_size: int, out_size: int
                         ) -> tuple[jax.Array, None]:
    return _resize_axis(image, axis, in_size, out_size), None


def _resize_axis_backward(axis: int, in_size: int, out_size: int, _: None, gradient: jax.Array
                          ) -> tuple[jax.Array]:
    if out_size % in_size == 0:
        return (_upsample_phases_transpose(gradient, axis, out_size // in_size),)
    index, weight = resize_taps(out_size, in_size)
    matrix = np.zeros((in_size, out_size), np.float32)
    np.add.at(matrix, (index, np.arange(out_size)[:, None]), weight)
    rows = gradient.reshape(-1, out_size, int(np.prod(gradient.shape[axis + 1:])))
    result = jnp.matmul(matrix, rows, precision=jax.lax.Precision.HIGHEST)
    shape = (*gradient.shape[:axis], in_size, *gradient.shape[axis + 1:])
    return (result.reshape(shape).astype(gradient.dtype),)


_resize_axis.defvjp(_resize_axis_forward, _resize_axis_backward)


def _phase_weights(factor: int) -> np.ndarray:
    """[3, factor] float32 weights of the previous, own and next source pixel for each phase."""
    position = (np.arange(factor) + 0.5) / factor - 0.5
    return np.stack([np.maximum(-position, 0), 1 - np.abs(position),
                     np.maximum(position, 0)]).astype(np.float32)


def _upsample_phases(image: jax.Array, axis: int, factor: int) -> jax.Array:
    """Upsampling by an integer: pixel factor * i + p mixes i-1, i and i+1 with the weights of p."""
    shape = (*image.shape[:axis], image.shape[axis] * factor, *image.shape[axis + 1:])
    rows = image.reshape(-1, image.shape[axis], 1, int(np.prod(image.shape[axis + 1:])))
    previous = jnp.concatenate([rows[:, :1], rows[:, :-1]], axis=1)
    following = jnp.concatenate([rows[:, 1:], rows[:, -1:]], axis=1)
    to_previous, to_own, to_next = _phase_weights(factor)[:, :, None]
    result = previous * to_previous + rows * to_own + following * to_next
    return result.reshape(shape).astype(image.dtype)


def _upsample_phases_transpose(gradient: jax.Array, axis: int, factor: int) -> jax.Array:
    """The gradient of `_upsample_phases`: each phase is a slice, and one loop reads them all."""
    size = gradient.shape[axis] // factor
    shape = (*gradient.shape[:axis], size, *gradient.shape[axis + 1:])
    rows = gradient.reshape(-1, size, factor, int(np.prod(gradient.shape[axis + 1:])))
    to_previous, to_own, to_next = (
        sum(rows[:, :, phase] * weight for phase, weight in enumerate(weights) if weight)
        for weights in _phase_weights(factor))
    if size == 1:
        result = to_previous + to_own + to_next
    else:
        # What would go beyond an end goes to the end pixel, which the forward pass repeats there.
        zero = jnp.zeros_like(to_own[:, :1])
        from_next = jnp.concatenate(
            [to_previous[:, :1] + to_previous[:, 1:2], to_previous[:, 2:], zero], axis=1)
        from_previous = jnp.concatenate(
            [zero, to_next[:, :-2], to_next[:, -2:-1] + to_next[:, -1:]], axis=1)
        result = to_own + from_next + from_previous
    return result.reshape(shape).astype(gradient.dtype)
