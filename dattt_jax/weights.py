"""The weights that `config.init` names, in whichever of three forms; and the mode `export`.

    runs/b1                  a folder made by --mode=train or --mode=convert (see `checkpoints`)
    mine.safetensors         made by --mode=export, to keep or to give away; of weights in several files
                             (mine-1-of-4.safetensors, …) any one, which stands for all of them
    dattt-synth-b0           weights in the box (see `pretrained`)

An exported file holds variables by their path, as in `params/encoder_image/…`, and `config.model` as JSON in
its header.
"""

import contextlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import ml_collections
import ml_dtypes
import numpy as np
from absl import logging
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from dattt_jax.errors import UserError
from dattt_jax.pretrained import PRETRAINED, part_paths, pretrained_files
from dattt_jax.variables import Variables, check_fit, leaf_shapes
from input_pipeline.writers import atomic_path

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}

_SUFFIX = ".safetensors"
_MODEL = "config.model"  # key of the header
_PART = re.compile(r"(.+)-\d+-of-(\d+)")  # stem of a file that holds a part, see `part_paths`
_ENTRY_BYTES = 128  # more than the header takes for an array, beside its name


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
    paths = _exported_files(init)
    if not paths:
        return _checkpoints().load_variables(init, model_config)
    made, flat = _header(paths[0]), {}
    for path in paths:
        try:
            flat |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
    variables = traverse_util.unflatten_dict(
        {tuple(name.split("/")): value.astype(np.float32, copy=False) for name, value in flat.items()})
    check_fit(str(paths[0]), leaf_shapes(variables), made, model_config or ml_collections.ConfigDict(made))
    return variables


def weights_model_config(init: str | Path) -> ml_collections.ConfigDict:
    """`config.model` of the network whose weights `init` names; raises as `load_weights`."""
    paths = _exported_files(init)
    return ml_collections.ConfigDict(_header(paths[0])) if paths else _checkpoints().load_model_config(init)


def _checkpoints() -> ModuleType:
    """`dattt_jax.checkpoints`, imported where a folder is read: Orbax takes half a second and 33 MiB."""
    from dattt_jax import checkpoints

    return checkpoints


def weights_identity(init: str | Path) -> str:
    """Tells these weights from others under the same name, for runs that go on; raises as `load_weights`."""
    paths = _exported_files(init)
    if not paths:
        return _checkpoints().checkpoint_identity(init)
    if str(init) in PRETRAINED:
        return f"{init} of sha256 {', '.join(PRETRAINED[str(init)])}"
    return ", ".join(f"{path} written {path.stat().st_mtime_ns} ns after 1970" for path in paths)


def save_weights(path: str | Path, variables: Variables, model_config: ml_collections.ConfigDict, *,
                 dtype: str = "float32", part_mb: float = 0.0) -> list[Path]:
    """Writes what `load_weights` reads: one file, or all its parts together.

    Args:
        path: ends in .safetensors; parts get names of their own, see `pretrained.part_paths`.
        variables: {'params': …, 'batch_stats': …}.
        model_config: `config.model` of the network.
        dtype: 'float32', or 'bfloat16' for half the size and eight bits of mantissa.
        part_mb: the most a file may take, in megabytes (10^6 bytes); 0 = one file of any size.

    Returns:
        The files, at least one; `load_weights` takes any of them.

    Raises:
        UserError: there is no such dtype, a part cannot be that small, or a file cannot be written.
    """
    if dtype not in DTYPES:
        raise UserError(f"config.export.dtype={dtype!r}: use one of {', '.join(DTYPES)}")
    flat = {"/".join(key): np.ascontiguousarray(value, DTYPES[dtype])
            for key, value in traverse_util.flatten_dict(jax.device_get(variables)).items()}
    header = {_MODEL: json.dumps(model_config.to_dict())}
    parts = _divided(flat, part_mb, len(json.dumps(header))) if part_mb else [flat]
    paths = part_paths(Path(path), len(parts))
    with contextlib.ExitStack() as stack:  # files get their names when all of them are written
        temporaries = [stack.enter_context(atomic_path(path)) for path in paths]
        for part, temporary in zip(parts, temporaries, strict=True):
            # safetensors' own save_file makes a file that only its owner can read.
            temporary.write_bytes(save(part, header))
    return paths


def export(config: ml_collections.ConfigDict, workdir: str | Path) -> list[Path]:
    """The mode: the weights of `config.init` as `workdir`/weights.safetensors, the network as it was made.

    `config.export.mask_bias` is added to the bias that the mask's logits end with: another threshold, kept
    with the weights that it was found for.

    Returns:
        The file, or its parts.

    Raises:
        UserError: as `load_weights` and `save_weights`.
    """
    if not config.init:
        raise UserError("config.init is empty: name the weights to export")
    variables = _with_mask_bias(load_weights(config.init), config.export.mask_bias)
    paths = save_weights(Path(workdir) / f"weights{_SUFFIX}", variables, weights_model_config(config.init),
                         dtype=config.export.dtype, part_mb=config.export.part_mb)
    logging.info("%s: %.1f MB in %d file(s); use it as config.init with the same config.model", paths[0],
                 sum(path.stat().st_size for path in paths) / 1e6, len(paths))
    return paths


def _with_mask_bias(variables: Variables, more: float) -> Variables:
    flat = traverse_util.flatten_dict(variables)
    path, = (path for path in flat if path[-2:] == ("linear_pred", "bias") and "depth_head" not in path)
    return traverse_util.unflatten_dict(flat | {path: flat[path] + np.float32(more)})


def _divided(flat: dict[str, np.ndarray], part_mb: float, header_bytes: int) -> list[dict[str, np.ndarray]]:
    """Arrays in their order, in as few parts as `part_mb` allows."""
    parts, room = [], 0.0
    for name, value in flat.items():
        taken = value.nbytes + len(name) + _ENTRY_BYTES
        if not parts or taken > room:
            parts.append({})
            room = part_mb * 1e6 - header_bytes - _ENTRY_BYTES
        if taken > room:
            raise UserError(f"config.export.part_mb={part_mb:g} is too small for {name}, which takes "
                            f"{taken / 1e6:.3f} MB and a header: give more, or 0 for one file")
        parts[-1][name] = value
        room -= taken
    return parts


def _exported_files(init: str | Path) -> list[Path]:
    """The file that `init` means, or all its parts; none where it means a folder."""
    if str(init) in PRETRAINED:
        return pretrained_files(str(init))
    path = Path(init)
    if not path.exists():
        raise UserError(f"weights {init} does not exist: config.init names a folder made by --mode=train or "
                        f"--mode=convert, a file made by --mode=export, or {', '.join(PRETRAINED)}")
    if not path.is_file() or path.suffix != _SUFFIX:
        return []
    part = _PART.fullmatch(path.stem)
    parts = part_paths(path.with_stem(part[1]), int(part[2])) if part else []
    paths = parts if path in parts else [path]
    missing = [other.name for other in paths if not other.exists()]
    if missing:
        raise UserError(f"{path} is one of {len(paths)} files that belong together: put {', '.join(missing)} "
                        "beside it")
    return paths


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
