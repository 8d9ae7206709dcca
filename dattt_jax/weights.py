"""The weights that `config.init` names, in whichever of three forms; and the mode `export`.

    runs/b1                  a folder made by --mode=train or --mode=convert (see `checkpoints`)
    mine.safetensors         one file made by --mode=export, to keep or to give away
    dattt-synth-b0           weights in the box (see `pretrained`)

An exported file holds the variables by their path, as in `params/encoder_image/…`, and `config.model` as
JSON in its header.
"""

import json
from pathlib import Path
from typing import Any

import jax
import ml_collections
import ml_dtypes
import numpy as np
from absl import logging
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from dattt_jax import checkpoints
from dattt_jax.errors import UserError
from dattt_jax.pretrained import PRETRAINED, pretrained_file
from dattt_jax.variables import Variables, check_fit, leaf_shapes
from input_pipeline.writers import atomic_path

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}

_SUFFIX = ".safetensors"
_MODEL = "config.model"  # key of the header


def load_weights(init: str | Path, model_config: ml_collections.ConfigDict | None = None) -> Variables:
    """The weights that `init` names.

    Args:
        init: `config.init`: a folder, an exported file, or a name of `pretrained.PRETRAINED`.
        model_config: `config.model`; None takes the network from what is stored.

    Returns:
        {'params': …, 'batch_stats': …} with float32 NumPy leaves.

    Raises:
        UserError: there are no such weights; they are damaged; or they do not fit `model_config` (names
            what is missing, extra and of another shape).
    """
    path = _exported_file(init)
    if path is None:
        return checkpoints.load_variables(init, model_config)
    made = _header(path)
    try:
        flat = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    variables = traverse_util.unflatten_dict(
        {tuple(name.split("/")): value.astype(np.float32, copy=False) for name, value in flat.items()})
    check_fit(str(path), leaf_shapes(variables), made, model_config or ml_collections.ConfigDict(made))
    return variables


def weights_model_config(init: str | Path) -> ml_collections.ConfigDict:
    """`config.model` of the network whose weights `init` names; raises as `load_weights`."""
    path = _exported_file(init)
    return (checkpoints.load_model_config(init) if path is None
            else ml_collections.ConfigDict(_header(path)))


def weights_identity(init: str | Path) -> str:
    """Tells these weights from others under the same name, for runs that go on; raises as `load_weights`."""
    path = _exported_file(init)
    if path is None:
        return checkpoints.checkpoint_identity(init)
    return f"{init} of sha256 {PRETRAINED[str(init)]}" if str(init) in PRETRAINED else (
        f"{path} written {path.stat().st_mtime_ns} ns after 1970")


def save_weights(path: str | Path, variables: Variables, model_config: ml_collections.ConfigDict, *,
                 dtype: str = "float32") -> None:
    """Writes one file that `load_weights` reads.

    Args:
        path: ends in .safetensors.
        variables: {'params': …, 'batch_stats': …}.
        model_config: `config.model` of the network.
        dtype: 'float32', or 'bfloat16' for half the size and eight bits of mantissa.

    Raises:
        UserError: there is no such dtype, or the file cannot be written.
    """
    if dtype not in DTYPES:
        raise UserError(f"config.export.dtype={dtype!r}: use one of {', '.join(DTYPES)}")
    flat = {"/".join(key): np.ascontiguousarray(value, DTYPES[dtype])
            for key, value in traverse_util.flatten_dict(jax.device_get(variables)).items()}
    with atomic_path(path) as temporary:
        save_file(flat, temporary, {_MODEL: json.dumps(model_config.to_dict())})


def export(config: ml_collections.ConfigDict, workdir: str | Path) -> Path:
    """The mode: the weights of `config.init` as `workdir`/weights.safetensors, the network as it was made.

    Returns:
        The file.

    Raises:
        UserError: as `load_weights` and `save_weights`.
    """
    if not config.init:
        raise UserError("config.init is empty: name the weights to export")
    path = Path(workdir) / f"weights{_SUFFIX}"
    model_config = weights_model_config(config.init)
    save_weights(path, load_weights(config.init), model_config, dtype=config.export.dtype)
    logging.info("%s: %.1f MB; use it as config.init with the same config.model", path,
                 path.stat().st_size / 1e6)
    return path


def _exported_file(init: str | Path) -> Path | None:
    """The file that `init` means, or None where it means a folder."""
    if str(init) in PRETRAINED:
        return pretrained_file(str(init))
    if not Path(init).exists():
        raise UserError(f"weights {init} does not exist: config.init names a folder made by --mode=train or "
                        f"--mode=convert, a file made by --mode=export, or {', '.join(PRETRAINED)}")
    return Path(init) if Path(init).is_file() and Path(init).suffix == _SUFFIX else None


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if _MODEL not in metadata:
        raise UserError(f"{path} was not made by --mode=export: if it holds PyTorch weights, "
                        "--mode=convert makes a folder of it that config.init can name")
    return json.loads(metadata[_MODEL])


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged ({str(error).splitlines()[0]}): copy or export it again")
