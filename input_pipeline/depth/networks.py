"""The depth networks by name."""

from functools import cache

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.network_files import flat_shapes
from input_pipeline.depth.lite_mono import LITE_MONO_SIZES, LiteMono
from input_pipeline.depth.monodepth2 import MonoDepth2
from input_pipeline.nets import Dtype

DEPTH_NETWORKS = (*LITE_MONO_SIZES, "monodepth2")
USUAL_SIZE = (192, 640)  # (height, width) of most of the published weights' training images


def depth_network(network: str, trained_at: tuple[int, int] = USUAL_SIZE,
                  dtype: Dtype = jnp.float32) -> nn.Module:
    """The network of that name.

    Args:
        network: one of `DEPTH_NETWORKS`.
        trained_at: (height, width) of the training images.
        dtype: compute type.
    """
    if network == "monodepth2":
        return MonoDepth2(dtype)
    return LiteMono(LITE_MONO_SIZES[network], trained_at, dtype)


@cache
def depth_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's variables by their paths, see `flat_shapes`."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)  # any size gives the same shapes
    return flat_shapes(jax.eval_shape(depth_network(network).init, jax.random.key(0), image))
