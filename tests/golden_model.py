"""The networks of the golden files: recipe weights put into our models."""

import functools
import json
from pathlib import Path

import jax
import ml_collections
import numpy as np
from golden import recipe

from dattt_jax.convert import from_torch, variable_shapes
from dattt_jax.models import create_model

FOLDER = Path(__file__).parent / "golden"
_BACKBONES = {"mit_b1": "mit_b1", "swin_tiny": "swin_t"}


def load(name):
    """A golden file by name, without the ending."""
    return np.load(FOLDER / f"{name}.npz")


def model_config(backbone, arch):
    """`config.model` of a golden network; drop-path is off in every golden."""
    return ml_collections.ConfigDict({
        "backbone": _BACKBONES[backbone], "depth": arch != "nodepth",
        "modulation": "basic" if arch == "nodepth" else arch, "drop_path": 0.0,
    })


def state_dict(backbone, arch):
    """Torch names to recipe weights."""
    entries = json.loads((FOLDER / f"state_dict_{backbone}_{arch}.json").read_text())["entries"]
    values = {e["name"]: recipe.fill(e["name"], e["shape"]) for e in entries}
    return {name: value for name, value in values.items() if value is not None}


@functools.cache
def golden_model(backbone, arch):
    """(model, variables) of a golden network."""
    config = model_config(backbone, arch)
    return create_model(config), from_torch(state_dict(backbone, arch), config)


def nhwc(array):
    """Torch layout to ours."""
    return np.moveaxis(array, -3, -1)


def random_variables(config, seed=0):
    """Random variables for `create_model(config)`, in no time: compiling the initialisation takes seconds."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name == "kernel":
            return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
        offset = 1.0 if name in ("scale", "var") else 0.0
        return (offset + 0.1 * rng.random(shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes(config))
