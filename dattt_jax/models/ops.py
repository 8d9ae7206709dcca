"""Forms of what the network computes, chosen per backend by measurement, equal to the plain ones to rounding.

XLA's CPU backend runs grouped convolutions at below 1 GFLOP/s, the gradients of strided ones at a few percent
of a matrix product, copies whole maps of attention weights to transpose them, and sums over rows at a few
GFLOP/s. There the same is written as shifted multiply-adds and as matrix products, a sum as a product with
ones. GPU and TPU have good kernels for the plain forms. `tests/test_ops.py` holds the equality tests,
`tests/benchmarks/` the timings.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_ROWS = 16  # of a block in the gradient of a depthwise kernel: the best of 4 to 64


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def matmul(x: Array, kernel: Array) -> Array:
    """The product over the last axis: x [..., C], kernel [C, D] -> [..., D], in the dtype of x.

    As one of two matrices: for the kernel's gradient over several axes, XLA's CPU backend first transposes a
    copy of the output's gradient: with it, both gradients take up to three times as long.
    """
    rows = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    return rows.reshape(*x.shape[:-1], kernel.shape[-1])


def conv(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """Plain convolution: x [B, H, W, C], kernel [k, k, C, D] -> [B, h, w, D], torch's explicit padding."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((padding, padding), (padding, padding)),
        dimension_numbers=_DIMENSIONS,
    )


def patch_conv(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """Overlapping strided convolution of the patch embeddings; same contract as `conv`.

    On the CPU as a sum over the kernel's offsets of strided slices, gathered into one matrix product:
    its gradients are matrix products too.
    """
    if not _on_cpu():
        return conv(x, kernel, stride=stride, padding=padding)
    size = kernel.shape[0]
    height = (x.shape[1] + 2 * padding - size) // stride + 1
    width = (x.shape[2] + 2 * padding - size) // stride + 1
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    columns = jnp.concatenate(taps, axis=-1)
    return matmul(columns, kernel.reshape(-1, kernel.shape[-1]))


def block_conv(x: Array, kernel: Array) -> Array:
    """Convolution whose stride equals its kernel size r, without padding: one matrix product.

    x [B, H, W, C], kernel [r, r, C, D] -> [B, H // r, W // r, D]. Rows and columns that do not fill a
    block are dropped, as torch's floor does.
    """
    r = kernel.shape[0]
    batch, height, width, channels = x.shape
    h, w = height // r, width // r
    x = x[:, : h * r, : w * r].reshape(batch, h, r, w, r, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h, w, r * r * channels)
    return matmul(x, kernel.reshape(-1, kernel.shape[-1]))


def depthwise_conv3x3(x: Array, kernel: Array) -> Array:
    """Depthwise 3×3 convolution, stride 1, zero padding 1: x [B, H, W, C], kernel [3, 3, 1, C]."""
    if _on_cpu():
        return _shifted_depthwise(x, kernel[:, :, 0])
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS,
        feature_group_count=x.shape[-1],
    )


@jax.custom_vjp
def _shifted_depthwise(x: Array, kernel: Array) -> Array:
    """Nine shifted multiply-adds; kernel [3, 3, C]."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Fused with what follows, XLA would copy each of the nine views first.
    return _own_loop(sum(x[:, i : i + height, j : j + width] * kernel[i, j] for i, j in np.ndindex(3, 3)))


def _own_loop(x: Array) -> Array:
    """The same x, made by a loop of its own: XLA's CPU backend fuses no comparison into what follows."""
    return lax.select(lax.eq(x, x), x, jnp.full_like(x, jnp.nan))


def _shifted_depthwise_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _shifted_depthwise(x, kernel), (x, kernel)


def _shifted_depthwise_bwd(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # The input gradient is the same convolution with the flipped kernel. JAX's own transpose of the padded
    # slices is several times slower on the CPU.
    x, kernel = saved
    return _shifted_depthwise(g, kernel[::-1, ::-1]), _kernel_gradient(x, g).astype(kernel.dtype)


def _kernel_gradient(x: Array, g: Array) -> Array:
    """Nine reductions of x and g, both [B, H, W, C] -> [3, 3, C].

    XLA on the CPU reduces to the last axis at a few GFLOP/s. Here 16 rows at a time are multiplied and added,
    all channels side by side, and what is left, H / 16 times as much as one row, is summed by a product with
    ones: three to five times as fast on the maps of MiT-b1.
    """
    height, width, channels = x.shape[1:]
    rows = min(_ROWS, height)
    rest = -height % rows
    x = jnp.pad(x, ((0, 0), (1, 1 + rest), (1, 1), (0, 0)))
    g = jnp.pad(g, ((0, 0), (0, rest), (0, 0), (0, 0)))

    def gradient(i: int, j: int) -> Array:
        return _column_sums(sum(x[:, r + i : r + i + height + rest - rows + 1 : rows, j : j + width]
                                * g[:, r::rows] for r in range(rows)))

    return jnp.stack([gradient(i, j) for i, j in np.ndindex(3, 3)]).reshape(3, 3, channels)


_shifted_depthwise.defvjp(_shifted_depthwise_fwd, _shifted_depthwise_bwd)


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """Exact (erf) GELU, as torch's default.

    `jax.nn.gelu` goes by erfc, which takes six times as long on a CPU and is no closer to torch. Fused there
    into the matrix product that follows, its three constants would become maps as large as x: a frame of
    MiT-b1 at 512×512 needed 174 MB beside the weights, and needs 99 MB. (No gradient step needs less by it.)
    """
    return _own_loop(_gelu(x)) if _on_cpu() else _gelu(x)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + lax.erf(x * 0.5**0.5))


@gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return jax.jvp(_gelu, primals, tangents)


def attention(q: Array, k: Array, v: Array, bias: Array | None = None) -> Array:
    """Softmax attention: q [..., N, heads, d], k and v [..., M, heads, d] -> [..., N, heads, d].

    `bias` broadcasts to the logits [..., heads, N, M]. Softmax in float32, scale 1/sqrt(d).
    """
    k = k * q.shape[-1] ** -0.5  # of the two the smaller, where keys come from a reduced map
    if _on_cpu():
        q, k, v = (jnp.swapaxes(x, -3, -2) for x in (q, k, v))
        return jnp.swapaxes(_attend(q, k, v, bias), -3, -2)
    logits = jnp.einsum("...nhd,...mhd->...hnm", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("...hnm,...mhd->...nhd", weights, v)


def _t(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array, bias: Array | None) -> Array:
    """Attention of q [..., N, d] with keys k, already scaled, and values v [..., M, d] -> [..., N, d].

    The weights [..., N, M], by far the largest array, are nowhere transposed, in the gradient neither.
    """
    return _attend_fwd(q, k, v, bias)[0]


def _attend_fwd(q: Array, k: Array, v: Array, bias: Array | None) -> tuple[Array, tuple]:
    logits = jnp.matmul(q, _t(k), preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    out = weights @ v
    return out, (q, k, v, bias, weights, out)


def _attend_bwd(saved: tuple, g: Array) -> tuple[Array, Array, Array, Array | None]:
    q, k, v, bias, weights, out = saved
    # Of a row, sum(weights · d_weights) = sum(out · g), which is shorter (Dao et al., FlashAttention, 2022).
    along = _row_sums(out.astype(jnp.float32) * g)
    d_logits = weights * (jnp.matmul(g, _t(v), preferred_element_type=jnp.float32) - along)
    d_bias = None if bias is None else _summed_to(d_logits, bias)
    d_logits = d_logits.astype(q.dtype)
    return d_logits @ k, _t(_t(q) @ d_logits), _t(_t(g) @ weights), d_bias


_attend.defvjp(_attend_fwd, _attend_bwd)


def _summed_to(x: Array, like: Array) -> Array:
    """The gradient of `like`, which was broadcast to the shape of `x`."""
    x = jnp.sum(x, axis=tuple(range(x.ndim - like.ndim)))
    axes = tuple(i for i, size in enumerate(like.shape) if size == 1 != x.shape[i])
    return jnp.sum(x, axis=axes, keepdims=True).astype(like.dtype)


def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """Layer normalisation over the last axis, two-pass variance: float32 x [..., C], scale and bias [C]."""
    return (_layer_norm if _on_cpu() else _plain_layer_norm)(x, scale, bias, epsilon)


def _plain_layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    normal, _ = _normalised(x, epsilon)
    return normal * scale + bias


def _normalised(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Rows of mean 0 and variance 1, and what they were multiplied by [..., 1]."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return x * factor, factor


_layer_norm = jax.custom_vjp(_plain_layer_norm, nondiff_argnums=(3,))


def _layer_norm_fwd(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, tuple]:
    normal, factor = _normalised(x, epsilon)
    return normal * scale + bias, (normal, factor, scale)


def _layer_norm_bwd(epsilon: float, saved: tuple, g: Array) -> tuple[Array, Array, Array]:
    normal, factor, scale = saved
    # All sums are products with g and with this one map, the only one made for them.
    along, column, channels = g * normal, scale[:, None], g.shape[-1]
    dx = factor * (g * scale - (g @ column + normal * (along @ column)) / channels)
    return dx, _column_sums(along), _column_sums(g)


_layer_norm.defvjp(_layer_norm_fwd, _layer_norm_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
               ) -> tuple[Array, Array, Array]:
    """Normalisation by the batch's own statistics, all float32; one form for all backends.

    Its gradient goes over the maps less often than the derived one, and needs x alone kept of them.

    Args:
        x: [B, h, w, C].
        scale: [C].
        bias: [C].
        epsilon: added to the variance.
        axis_name: of the pmap whose devices share the batch, or None.

    Returns:
        The maps [B, h, w, C], and mean and biased variance [C], through which no gradient goes.
    """
    return _batch_norm_fwd(x, scale, bias, epsilon, axis_name)[0]


def _batch_norm_fwd(x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
                    ) -> tuple[tuple[Array, Array, Array], tuple]:
    mean = _channel_means(x, axis_name)
    variance = _channel_means(jnp.square(x - mean), axis_name)
    factor = jax.lax.rsqrt(variance + epsilon)
    return ((x - mean) * (factor * scale) + bias, mean, variance), (x, mean, factor, scale)


def _batch_norm_bwd(epsilon: float, axis_name: str | None, saved: tuple, gradients: tuple
                    ) -> tuple[Array, Array, Array]:
    (x, mean, factor, scale), g = saved, gradients[0]
    count = x.size // x.shape[-1]
    d_bias, d_scale = _channel_means(g), _channel_means(g * (x - mean)) * factor
    d_mean, along = (d_bias, d_scale) if axis_name is None else lax.pmean((d_bias, d_scale), axis_name)
    dx = factor * scale * (g - d_mean - (x - mean) * (factor * along))
    return dx, d_scale * count, d_bias * count


batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


def _channel_means(x: Array, axis_name: str | None = None) -> Array:
    mean = jnp.mean(x, axis=tuple(range(x.ndim - 1)))
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _row_sums(x: Array) -> Array:
    """[..., C] -> [..., 1], as a product with ones."""
    return x @ jnp.ones((x.shape[-1], 1), x.dtype)


def _column_sums(x: Array) -> Array:
    """[..., C] -> [C], as a product with ones."""
    rows = x.reshape(-1, x.shape[-1])
    return jnp.ones(len(rows), x.dtype) @ rows
