"""PyTorch weights in, Flax variables out: renames and transposes, nothing else.

The rule: in a PyTorch key, a number joins the name before it (`block1.0.attn.q` -> `block1_0/attn/q`,
`layers.0.blocks.1` -> `layers_0/blocks_1`). A `weight` becomes `kernel` (linear [out, in] -> [in, out],
convolution [out, in, kh, kw] -> [kh, kw, in, out]) or `scale` (one axis); `running_mean` and `running_var`
go to the `batch_stats` collection as `mean` and `var`.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from dattt_jax.errors import UserError
from dattt_jax.models import create_model

Variables = dict[str, Any]
Key = tuple[str, ...]

# Entries of a PyTorch state dict that hold no weights: step counters, and buffers computed from sizes.
_NOT_WEIGHTS = ("num_batches_tracked", "relative_position_index", "attn_mask")
_INIT_SIZE = 64  # any input size gives the same parameter shapes


def variable_shapes(model_config: ml_collections.ConfigDict) -> Variables:
    """Shapes and dtypes of the model's variables, without computing them."""
    image = jax.ShapeDtypeStruct((1, _INIT_SIZE, _INIT_SIZE, 3), jnp.float32)
    return jax.eval_shape(create_model(model_config).init, jax.random.key(0), image, image)


def flax_key(torch_key: str, ndim: int) -> Key:
    """The place of a PyTorch entry with `ndim` axes: ('params' or 'batch_stats', module, …, leaf)."""
    parts = re.sub(r"\.(\d+)(?=\.|$)", r"_\1", torch_key).split(".")
    leaf = parts[-1]
    if leaf in ("running_mean", "running_var"):
        return ("batch_stats", *parts[:-1], leaf.removeprefix("running_"))
    if leaf == "weight":
        leaf = "scale" if ndim == 1 else "kernel"
    return ("params", *parts[:-1], leaf)


def _to_flax_layout(value: np.ndarray, key: Key, ndim: int) -> np.ndarray:
    """Transposes a weight to Flax's layout; a 1×1 convolution becomes a matrix where Flax has one."""
    if key[-1] != "kernel":
        return value
    if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
        return value[0, 0] if ndim == 2 and value.shape[:2] == (1, 1) else value
    return value.transpose()


def from_torch(state_dict: Mapping[str, np.ndarray], model_config: ml_collections.ConfigDict,
               *, strict: bool = True) -> Variables:
    """Variables of the model from the state dict of a released DATTT checkpoint.

    Args:
        state_dict: names to arrays, the flat state dict of the whole network (`encoder_image.*`,
            `encoder_flow.*`, `decode_head.*`).
        model_config: what `create_model` takes; it must describe the checkpoint's network.
        strict: fail on missing or extra entries. Otherwise missing ones are zeros and extra ones ignored.
            Wrong shapes always fail.

    Returns:
        {'params': …, 'batch_stats': …} with float32 numpy leaves.

    Raises:
        UserError: names every missing, extra and wrong-shaped entry.
    """
    template = traverse_util.flatten_dict(variable_shapes(model_config))
    found, extra, misshaped = {}, [], []
    for name, value in state_dict.items():
        if name.endswith(_NOT_WEIGHTS):
            continue
        value = np.asarray(value, np.float32)
        key = flax_key(name, value.ndim)
        if key not in template:
            extra.append(name)
            continue
        converted = _to_flax_layout(value, key, len(template[key].shape))
        if converted.shape != template[key].shape:
            expected = template[key].shape
            misshaped.append(f"{name} {tuple(value.shape)} (the model has {expected}, Flax layout)")
        found[key] = np.ascontiguousarray(converted)
    missing = ["/".join(key) for key in template if key not in found]
    problems = [("wrong shape", misshaped)]
    if strict:
        problems += [("missing", missing), ("not in the model", extra)]
    report = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems if names)
    if report:
        raise UserError(f"weights do not fit config.model ({_describe(model_config)}): {report}")
    complete = {k: found.get(k, np.zeros(s.shape, np.float32)) for k, s in template.items()}
    return traverse_util.unflatten_dict(complete)


def _describe(model_config: ml_collections.ConfigDict) -> str:
    modulation = f", modulation {model_config.modulation}" if model_config.depth else ", no depth"
    return f"backbone {model_config.backbone}{modulation}"
