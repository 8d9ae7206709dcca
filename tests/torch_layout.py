"""Our variables, or gradients of them, under the names and in the layout of a PyTorch state dict."""

import numpy as np
from flax import traverse_util

from dattt_jax.convert import torch_name


def to_torch(tree, entries):
    """{torch name: array} of a {'params': …} (and 'batch_stats') tree; entries of a golden state dict."""
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in entries}
    result = {}
    for key, value in traverse_util.flatten_dict(tree).items():
        value, name = np.asarray(value), torch_name(key)
        if key[-1] == "kernel":
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        result[name] = value.reshape(shapes[name])  # a 1×1 convolution is a matrix here
    return result
