"""The networks of the golden files: recipe weights put into our models."""

import functools
import json
from pathlib import Path

import ml_collections
import numpy as np
from golden import recipe

from dattt_jax.convert import from_torch
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
