"""Weights of a wider network that computes what a narrower one does, as a start for its training.

Net2WiderNet (Chen, Goodfellow and Shlens, ICLR 2016) for the networks here. Every channel becomes `ratio`
copies beside each other, an order that concatenations, attention heads and normalisations keep. A layer
that reads them divides each of its weights among the copies, unequally and at random: with equal shares the
copies would have the same gradients and stay copies for ever. `mit_b1` is `mit_b0` with every width doubled.
"""

from pathlib import Path

import ml_collections
import numpy as np
from absl import logging
from flax import traverse_util

from dattt_jax.errors import UserError
from dattt_jax.variables import Variables, leaf_shapes, variable_shapes
from dattt_jax.weights import load_weights, weights_model_config

_WIDTHS = ("backbone", "decoder_features")  # the fields of config.model that widening may change
_SPREAD = 1.0  # shares are this much above or below equal at most: of two, between -0.5 and 1.5


def load_or_widen(init: str | Path, model_config: ml_collections.ConfigDict, *, seed: int) -> Variables:
    """`load_weights` that also takes the weights of a narrower network, and widens them.

    Args:
        init: `config.init`.
        model_config: `config.model` of the network they are wanted for.
        seed: seed of the shares.

    Returns:
        {'params': …, 'batch_stats': …} with float32 NumPy leaves.

    Raises:
        UserError: as `load_weights`; the two networks differ in widths alone, and not by whole multiples.
    """
    made = weights_model_config(init)
    changed = [name for name in _WIDTHS if made.get(name) != model_config[name]]
    if not changed:
        return load_weights(init, model_config)
    variables = load_weights(init)
    if leaf_shapes(variables).keys() != leaf_shapes(variable_shapes(model_config)).keys():
        return load_weights(init, model_config)  # which tells how they differ
    try:
        wide = widen(variables, model_config, seed=seed)
    except UserError as error:
        raise UserError(f"config.init={init}: {error}") from error
    logging.info("%s is widened: %s", init, ", ".join(
        f"{name} {made[name]} to {model_config[name]}" for name in changed))
    return wide


def widen(variables: Variables, model_config: ml_collections.ConfigDict, *, seed: int) -> Variables:
    """Variables of a wider network with the same outputs, up to rounding.

    Training mode too gives the same outputs, and the same running statistics, copied.

    Args:
        variables: {'params': …, 'batch_stats': …} of a network of the same layers, as NumPy arrays.
        model_config: `config.model` of the wider network: every width is a whole multiple of the other's.
        seed: seed of the shares; the same seed gives the same variables.

    Returns:
        {'params': …, 'batch_stats': …} with float32 NumPy leaves.

    Raises:
        UserError: a width is not a multiple (names the first array).
    """
    rng = np.random.default_rng(seed)
    narrow, shapes = traverse_util.flatten_dict(variables), leaf_shapes(variable_shapes(model_config))
    return traverse_util.unflatten_dict(
        {key: _widened(key, np.asarray(narrow[key], np.float32), shapes[key], rng) for key in sorted(shapes)})


def _widened(key: tuple[str, ...], value: np.ndarray, shape: tuple[int, ...],
             rng: np.random.Generator) -> np.ndarray:
    """One array in its wider shape: kernels are [..., in, out], all others [out]."""
    ratios, rests = np.divmod(shape, value.shape)
    if any(rests):
        raise UserError(f"weights are widened by whole multiples, and {'/'.join(key)} {value.shape} would "
                        f"become {shape}: choose another config.model.backbone or decoder_features")
    if key[-2] == "q":
        # The product of queries and keys sums over the copies of both, and is divided by the root of their
        # number. The queries divide what the keys repeat: copies of both would have the same gradients.
        value = np.sqrt(ratios[-1], dtype=np.float32) * _shared(value, -1, ratios[-1], rng)
    else:
        value = np.repeat(value, ratios[-1], axis=-1)
    return _shared(value, -2, ratios[-2], rng) if key[-1] == "kernel" else value


def _shared(value: np.ndarray, axis: int, ratio: int, rng: np.random.Generator) -> np.ndarray:
    """Copies beside each other along `axis` (counted from the end), in random parts that sum to `value`."""
    if ratio == 1:
        return value
    copies = np.expand_dims(value, axis)
    draws = rng.uniform(-_SPREAD, _SPREAD, np.repeat(copies, ratio, axis).shape)
    shares = 1 / ratio + draws - draws.mean(axis, keepdims=True)
    copies = copies * shares.astype(np.float32)
    shape = list(value.shape)
    shape[axis] *= ratio
    return copies.reshape(shape)
