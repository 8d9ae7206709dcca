"""The model's variables as a tree: their shapes, and random values for them."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import traverse_util

from dattt_jax.errors import UserError
from dattt_jax.models import create_model

Variables = dict[str, Any]
Shapes = dict[tuple[str, ...], tuple[int, ...]]

# The fields of config.model that decide which weights there are.
_ARCHITECTURE = ("backbone", "depth", "modulation", "decoder_features", "heads")
_INIT_SIZE = 64  # any input size gives the same parameter shapes
_NAMES_SHOWN = 4  # of each kind of mismatch; a wrong backbone has hundreds


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


def leaf_shapes(variables: Variables) -> Shapes:
    """The shape of every array, by its path in the tree."""
    return {key: tuple(leaf.shape) for key, leaf in traverse_util.flatten_dict(dict(variables)).items()}


def check_fit(source: str, found: Shapes, made: Mapping[str, Any],
              model_config: ml_collections.ConfigDict) -> None:
    """Raises a UserError unless stored weights have exactly the names and shapes of the network's.

    Args:
        source: the file or folder they are in, for the error.
        found: their shapes.
        made: `config.model` of the network they were made with.
        model_config: `config.model` of the network they are wanted for.
    """
    wanted = leaf_shapes(variable_shapes(model_config))
    if found == wanted:
        return
    asked = json.loads(json.dumps(model_config.to_dict()))
    fields = [f"it was made with {name} {made[name]}, config.model.{name} is {asked[name]}"
              for name in _ARCHITECTURE
              if name in made and name in asked and made[name] != asked[name]]
    misshaped = [f"{'/'.join(key)} {found[key]} (config.model has {wanted[key]})"
                 for key in wanted if key in found and found[key] != wanted[key]]
    missing = ["/".join(key) for key in wanted if key not in found]
    extra = ["/".join(key) for key in found if key not in wanted]
    kinds = [("wrong shape", misshaped), ("missing", missing), ("not in the network", extra)]
    reasons = fields or [f"{kind}: {_shortened(names)}" for kind, names in kinds if names]
    raise UserError(f"wrong checkpoint: {source} does not fit config.model: {'; '.join(reasons)}; give the "
                    "--config it was made with, or another checkpoint")


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
