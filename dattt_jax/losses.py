"""Losses: pure functions of arrays, computed in float32."""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

# Constants of the scale-invariant log loss as the authors use it (DATTT eq. 3; Eigen et al., 2014):
# offset inside the logarithm and weight of the squared mean.
_LOG_OFFSET = 1e-3
_MEAN_WEIGHT = 0.15


def binary_cross_entropy(logits: Array, target: Array) -> Array:
    """Mean binary cross-entropy with logits.

    Args:
        logits: float [B, H, W, 1].
        target: the same shape, in [0, 1].

    Returns:
        Scalar mean over all pixels (DATTT eq. 2).
    """
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    # max(x, 0) - x·t + log(1 + exp(-|x|)) never overflows.
    return jnp.mean(jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits))))


def soft_jaccard(logits: Array, target: Array) -> Array:
    """One minus the intersection over union of soft masks (Rahman and Wang, ISVC 2016), mean over images.

    What J measures: an object counts the same whatever its size, and the best answer where the network is not
    sure leans towards the object, where that of cross-entropy does not. Images without object cost nothing.

    Args:
        logits: float [B, H, W, 1].
        target: the same shape, in {0, 1}.

    Returns:
        Scalar in 0..1, float32: the sum over the images with an object, divided by B.
    """
    probability, target = jax.nn.sigmoid(logits.astype(jnp.float32)), target.astype(jnp.float32)
    over_pixels = functools.partial(jnp.sum, axis=(1, 2, 3))
    intersection, size = over_pixels(probability * target), over_pixels(target)
    union = over_pixels(probability) + size - intersection
    has_object = size > 0
    return jnp.mean(jnp.where(has_object, 1 - intersection / jnp.where(has_object, union, 1.0), 0.0))


def silog(prediction: Array, target: Array, *, axis_name: str | None = None) -> Array:
    """Scale-invariant logarithmic depth loss over the pixels with target > 0.

    With g = log(p + 1e-3) - log(t + 1e-3): sqrt(var(g) + 0.15 · mean(g)²), where var is the unbiased
    variance over all valid pixels of the whole batch at once (authors' code; DATTT eq. 3 and 4). Gradients
    flow into both arguments. Where the loss is 0, or fewer than two pixels are valid, the loss is 0 and so
    are its gradients (the authors' code skips such a step or yields NaN).

    Args:
        prediction: probabilities in (0, 1), any shape.
        target: the same shape; values <= 0 are left out, values above 1 are kept.
        axis_name: pmap axis; the batch is then what all its devices hold together.

    Returns:
        Scalar, float32.
    """
    prediction, target = prediction.astype(jnp.float32), target.astype(jnp.float32)
    valid = target > 0
    total = functools.partial(_total, axis_name=axis_name)
    count = total(valid)
    # Both logarithms see 1 where the pixel is left out, so that no NaN enters the gradient.
    p = jnp.where(valid, prediction, 1.0)
    t = jnp.where(valid, target, 1.0)
    g = jnp.log(p + _LOG_OFFSET) - jnp.log(t + _LOG_OFFSET)
    mean = total(g) / jnp.maximum(count, 1)  # g is exactly 0 where left out
    deviation = jnp.where(valid, g - mean, 0.0)
    variance = total(jnp.square(deviation)) / jnp.maximum(count - 1, 1)
    square = variance + _MEAN_WEIGHT * jnp.square(mean)
    usable = (square > 0) & (count > 1)
    return jnp.where(usable, jnp.sqrt(jnp.where(usable, square, 1.0)), 0.0)


def _total(x: Array, *, axis_name: str | None) -> Array:
    """Sum over all elements, and over the devices of a pmap axis."""
    total = jnp.sum(x)
    return total if axis_name is None else jax.lax.psum(total, axis_name)
