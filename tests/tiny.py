"""The real network with blocks in its two last stages alone: it compiles in seconds."""

import numpy as np
from flax import traverse_util

from configs import base
from dattt_jax.models import mit
from dattt_jax.variables import variable_shapes

SIZES = mit.MiTSizes((8, 16, 20, 32), (0, 0, 1, 1))  # two blocks: the last has drop-path


def tiny_config():
    """Training of a tiny network for six steps of four samples; `mit_b0` must be patched to `SIZES`."""
    config = base.get_config()
    config.input_size = (32, 32)
    config.model.backbone = "mit_b0"
    config.model.decoder_features = 8
    config.train.update({"batch_size": 4, "synthetic_samples": 12, "epochs": 2, "save_steps": 4,
                         "log_steps": 2})
    config.synthetic.texture_pool = 1  # textures are nine tenths of the time that a small sample takes
    return config


def filled(model_config, seed=0, kernels=1.0):
    """Random variables of a sensible size, without compiling the initialisation.

    With `kernels` times as large kernels (3), probabilities depend on the frame, not on biases alone.
    """
    rng = np.random.default_rng(seed)
    flat = {key: rng.normal(1.0 if key[-1] in ("scale", "var") else 0.0, 0.1, s.shape).astype(np.float32)
            for key, s in traverse_util.flatten_dict(variable_shapes(model_config)).items()}
    flat = {key: value * np.float32(kernels) if key[-1] == "kernel" else value for key, value in flat.items()}
    return traverse_util.unflatten_dict(flat)
