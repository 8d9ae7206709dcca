"""RAFT: optical flow by repeated lookups in an all-pairs correlation (Teed and Deng, ECCV 2020).

Modules and parameters have the names of the authors' checkpoints. Arithmetic is arranged anew where that
saves work and changes nothing but rounding: features are pooled instead of correlations, the part of the
gates that comes from the context is computed once instead of in every iteration, and only the last flow is
upsampled.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.models.layers import BatchNorm
from input_pipeline.flow import correlation
from input_pipeline.nets import Conv, ConvWeights, Dtype, convolve, instance_norm, upsample

Array = jax.Array

STRIDE = 8  # of the feature maps
_FLOW_FEATURES = 2


@dataclasses.dataclass(frozen=True)
class RaftSizes:
    """What tells the two published networks apart; widths are channels.

    Attributes:
        stem: width of the first convolution.
        stages: widths of the three stages of an encoder.
        bottleneck: whether the blocks are bottlenecks.
        features: width of the features that are correlated.
        hidden: width of the recurrent state.
        context: width of what the context encoder tells every iteration.
        context_norm: whether the context encoder has batch normalisation (else it has none).
        radius: of the lookup, cells.
        correlation: widths of the motion encoder's convolutions of the correlation (1×1, then 3×3).
        flow: widths of its convolutions of the flow (7×7, then 3×3).
        motion: width of the motion features without the flow itself.
        gru: (suffix of the names, kernel size) of each recurrent unit of an iteration.
        head: width inside the flow head.
        convex: whether the flow is upsampled by learned convex combinations (else bilinearly).
    """

    stem: int
    stages: tuple[int, int, int]
    bottleneck: bool
    features: int
    hidden: int
    context: int
    context_norm: bool
    radius: int
    correlation: tuple[int, ...]
    flow: tuple[int, int]
    motion: int
    gru: tuple[tuple[str, tuple[int, int]], ...]
    head: int
    convex: bool


RAFT_SIZES = {
    "raft_large": RaftSizes(
        stem=64, stages=(64, 96, 128), bottleneck=False, features=256, hidden=128, context=128,
        context_norm=True, radius=4, correlation=(256, 192), flow=(128, 64), motion=126,
        gru=(("1", (1, 5)), ("2", (5, 1))), head=256, convex=True),
    "raft_small": RaftSizes(
        stem=32, stages=(32, 64, 96), bottleneck=True, features=128, hidden=96, context=64,
        context_norm=False, radius=3, correlation=(96,), flow=(64, 32), motion=80,
        gru=(("", (3, 3)),), head=128, convex=False),
}


class _Block(nn.Module):
    """Residual block of an encoder: two 3×3 convolutions, or 1×1, 3×3, 1×1 through a quarter of the width."""

    features: int
    stride: int
    bottleneck: bool
    norm: str
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.bottleneck:
            inner = self.features // 4
            layers = ((inner, 1, 1), (inner, 3, self.stride), (self.features, 1, 1))
        else:
            layers = ((self.features, 3, self.stride), (self.features, 3, 1))
        y = x
        for number, (features, size, stride) in enumerate(layers, 1):
            y = Conv(features, size, stride, dtype=self.dtype, name=f"conv{number}")(y)
            y = nn.relu(_norm(self.norm, f"norm{number}", self.dtype)(y))
        if self.stride > 1:
            x = Conv(self.features, 1, self.stride, dtype=self.dtype, name="downsample_0")(x)
            x = _norm(self.norm, "downsample_1", self.dtype)(x)
        return nn.relu(x + y)


def _norm(kind: str, name: str, dtype: Dtype) -> Callable[[Array], Array]:
    """The normalisation called `kind`: batch (under `name`), instance or none."""
    if kind == "batch":
        return functools.partial(BatchNorm(name=name, dtype=dtype), train=False)
    return instance_norm if kind == "instance" else lambda x: x


class _Encoder(nn.Module):
    """Feature or context encoder: `[B, H, W, 3]` in [-1, 1] -> `[B, H / 8, W / 8, features]`."""

    sizes: RaftSizes
    features: int
    norm: str
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.sizes.stem, 7, 2, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(_norm(self.norm, "norm1", self.dtype)(x))
        for number, width in enumerate(self.sizes.stages, 1):
            for block, stride in enumerate((1 if number == 1 else 2, 1)):
                x = _Block(width, stride, self.sizes.bottleneck, self.norm, self.dtype,
                           name=f"layer{number}_{block}")(x)
        return Conv(self.features, 1, dtype=self.dtype, name="conv2")(x)


class _MotionEncoder(nn.Module):
    """Correlation samples and flow to motion features, the flow itself last."""

    sizes: RaftSizes
    dtype: Dtype

    @nn.compact
    def __call__(self, samples: Array, flow: Array) -> Array:
        for number, (width, size) in enumerate(zip(self.sizes.correlation, (1, 3), strict=False), 1):
            samples = nn.relu(Conv(width, size, dtype=self.dtype, name=f"convc{number}")(samples))
        x = flow
        for number, (width, size) in enumerate(zip(self.sizes.flow, (7, 3), strict=True), 1):
            x = nn.relu(Conv(width, size, dtype=self.dtype, name=f"convf{number}")(x))
        x = Conv(self.sizes.motion, 3, dtype=self.dtype, name="conv")(jnp.concatenate([samples, x], -1))
        return jnp.concatenate([nn.relu(x), flow.astype(self.dtype)], -1)


class _Recurrence(nn.Module):
    """Convolutional gated recurrent units, one after the other.

    z and r are sigmoids, q the hyperbolic tangent, of convolutions of [hidden, context, motion], in which q
    sees r · hidden; the new state is (1 - z) · hidden + z · q. The kernels are applied by their parts.
    """

    sizes: RaftSizes
    dtype: Dtype

    def setup(self) -> None:
        sizes = self.sizes
        width = sizes.hidden + sizes.context + sizes.motion + _FLOW_FEATURES
        for suffix, kernel_size in sizes.gru:
            for gate in "zrq":
                setattr(self, f"conv{gate}{suffix}", ConvWeights(width, sizes.hidden, kernel_size))

    def _kernel(self, suffix: str, gates: str, start: int, stop: int | None) -> Array:
        """The part of the gates' kernels that sees channels `start` to `stop`, gates side by side."""
        kernels = [getattr(self, f"conv{gate}{suffix}")()[0][:, :, start:stop] for gate in gates]
        return jnp.concatenate(kernels, -1).astype(self.dtype)

    def from_context(self, context: Array) -> list[Array]:
        """What the context adds to the gates z, r and q of each unit, biases included."""
        start, stop = self.sizes.hidden, self.sizes.hidden + self.sizes.context
        result = []
        for suffix, _ in self.sizes.gru:
            bias = jnp.concatenate([getattr(self, f"conv{gate}{suffix}")()[1] for gate in "zrq"])
            gates = convolve(context, self._kernel(suffix, "zrq", start, stop))
            result.append(gates + bias.astype(self.dtype))
        return result

    def __call__(self, hidden: Array, motion: Array, from_context: list[Array]) -> Array:
        start, width = self.sizes.hidden + self.sizes.context, self.sizes.hidden
        for (suffix, _), context in zip(self.sizes.gru, from_context, strict=True):
            given = context + convolve(motion, self._kernel(suffix, "zrq", start, None))
            gates = convolve(hidden, self._kernel(suffix, "zr", 0, width))
            z = nn.sigmoid(gates[..., :width] + given[..., :width])
            r = nn.sigmoid(gates[..., width:] + given[..., width : 2 * width])
            q = convolve(r * hidden, self._kernel(suffix, "q", 0, width)) + given[..., 2 * width :]
            hidden = (1 - z) * hidden + z * nn.tanh(q)
        return hidden


class _FlowHead(nn.Module):
    """Hidden state to the change of the flow, in cells."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        x = nn.relu(Conv(self.features, 3, dtype=self.dtype, name="conv1")(hidden))
        return Conv(_FLOW_FEATURES, 3, dtype=self.dtype, name="conv2")(x)


class _UpdateBlock(nn.Module):
    """One iteration's network, and the weights of the convex upsampling."""

    sizes: RaftSizes
    dtype: Dtype

    def setup(self) -> None:
        self.encoder = _MotionEncoder(self.sizes, self.dtype)
        self.gru = _Recurrence(self.sizes, self.dtype)
        self.flow_head = _FlowHead(self.sizes.head, self.dtype)
        if self.sizes.convex:
            self.mask_0 = Conv(256, 3, dtype=self.dtype)
            self.mask_2 = Conv(9 * STRIDE**2, 1, dtype=self.dtype)

    def __call__(self, hidden: Array, samples: Array, flow: Array,
                 from_context: list[Array]) -> tuple[Array, Array]:
        """Returns (new hidden state, change of the flow)."""
        hidden = self.gru(hidden, self.encoder(samples, flow), from_context)
        return hidden, self.flow_head(hidden).astype(jnp.float32)

    def upsampling_weights(self, hidden: Array) -> Array:
        """Weights for `convex_upsample`, `[B, h, w, 576]` float32."""
        return 0.25 * self.mask_2(nn.relu(self.mask_0(hidden))).astype(jnp.float32)


class Raft(nn.Module):
    """The whole network, see `RAFT_SIZES`."""

    sizes: RaftSizes
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        sizes = self.sizes
        self.fnet = _Encoder(sizes, sizes.features, "instance", self.dtype)
        self.cnet = _Encoder(sizes, sizes.hidden + sizes.context, "batch" if sizes.context_norm else "none",
                             self.dtype)
        self.update_block = _UpdateBlock(sizes, self.dtype)

    def __call__(self, images0: Array, images1: Array, *, iterations: int, part: int = 0,
                 initial: Array | None = None) -> tuple[Array, Array]:
        """Flow from `images0` to `images1`.

        Args:
            images0: `[B, H, W, 3]` RGB in 0..255, any numeric type; H and W multiples of 8, at least 128.
            images1: as `images0`.
            iterations: at least 1.
            part: pixels (cells) whose correlation is in memory at once; 0 holds the whole, computed once.
            initial: `[B, H / 8, W / 8, 2]` flow to start from, in cells; zero without it.

        Returns:
            (flow in cells `[B, H / 8, W / 8, 2]`, flow in pixels `[B, H, W, 2]`), float32, (dx, dy). The flow
            in cells after each iteration is sown as `flows` among the `intermediates`.
        """
        images = jnp.concatenate([images0, images1]).astype(jnp.float32) / 255 * 2 - 1
        batch = images0.shape[0]
        # The correlation is float32 whatever the compute type, as in the authors' mixed precision.
        features = self.fnet(images).astype(jnp.float32)
        _, height, width, channels = features.shape
        queries = features[:batch].reshape(batch, -1, channels)
        levels = correlation.feature_pyramid(features[batch:])
        volumes = None if part else correlation.correlate(queries, levels)

        both = self.cnet(images[:batch])
        hidden = nn.tanh(both[..., : self.sizes.hidden])
        from_context = self.update_block.gru.from_context(nn.relu(both[..., self.sizes.hidden :]))
        x, y = jnp.meshgrid(jnp.arange(width), jnp.arange(height))
        cells = jnp.stack([x, y], -1).astype(jnp.float32)

        def iterate(update: _UpdateBlock, state: tuple[Array, Array],
                    _: None) -> tuple[tuple[Array, Array], Array]:
            hidden, flow = state
            places = (cells + flow).reshape(batch, -1, 2)
            if part:
                samples = correlation.lookup_in_parts(queries, levels, places, self.sizes.radius, part)
            else:
                samples = correlation.lookup(volumes, places, self.sizes.radius)
            hidden, change = update(hidden, samples.reshape(batch, height, width, -1), flow, from_context)
            return (hidden, flow + change), flow + change

        flow = jnp.zeros((batch, height, width, 2)) if initial is None else initial
        loop = nn.scan(iterate, variable_broadcast="params", split_rngs={"params": False}, length=iterations)
        (hidden, flow), flows = loop(self.update_block, (hidden, flow), None)
        self.sow("intermediates", "flows", flows)  # dropped from the program unless a caller asks for it
        if self.sizes.convex:
            return flow, convex_upsample(flow, self.update_block.upsampling_weights(hidden))
        return flow, STRIDE * upsample(flow, STRIDE, align_corners=True)


def convex_upsample(flow: Array, weights: Array) -> Array:
    """Upsamples flow by 8; each pixel is a convex combination of the nine cells around it, zero outside.

    Args:
        flow: `[B, h, w, 2]` in cells.
        weights: `[B, h, w, 576]` before the softmax: 9 neighbours (row by row), then the 8×8 pixels of the
            cell.

    Returns:
        `[B, 8h, 8w, 2]` in pixels.
    """
    batch, height, width, _ = flow.shape
    weights = nn.softmax(weights.reshape(batch, height, width, 9, STRIDE, STRIDE), axis=3)
    padded = jnp.pad(STRIDE * flow, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbours = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    fine = jnp.einsum("bhwkyx,bhwkc->bhywxc", weights, jnp.stack(neighbours, axis=3))
    return fine.reshape(batch, STRIDE * height, STRIDE * width, 2)
