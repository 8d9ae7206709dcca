"""The model's variables as a tree: their shapes, and random values for them."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from dattt_jax.models import create_model

Variables = dict[str, Any]

_INIT_SIZE = 64  # any input size gives the same parameter shapes


def variable_shapes(model_config: ml_collections.ConfigDict) -> Variables:
    """Shapes and dtypes of the model's variables, without computing them."""
    image = jax.ShapeDtypeStruct((1, _INIT_SIZE, _INIT_SIZE, 3), jnp.float32)
    return jax.eval_shape(create_model(model_config).init, jax.random.key(0), image, image)


def random_variables(model_config: ml_collections.ConfigDict, seed: int, *,
                     without: Collection[str] = ()) -> Variables:
    """The model's random initialisation.

    Args:
        model_config: what `create_model` takes.
        seed: seed of every random number.
        without: modules that are left out, for example the encoders; the others have the values they
            have among all. Compiling fewer random numbers takes a sixth of the time.

    Returns:
        {'params': …, 'batch_stats': …} with float32 NumPy leaves.
    """
    model = create_model(model_config)
    image = jnp.zeros((1, _INIT_SIZE, _INIT_SIZE, 3))

    def init(key: jax.Array) -> Variables:
        variables = model.init(key, image, image)
        return {collection: {name: module for name, module in modules.items() if name not in without}
                for collection, modules in variables.items()}

    # Compiled, the forward pass that `init` traces is dropped: only random numbers are computed.
    return jax.device_get(jax.jit(init)(jax.random.key(seed)))
