"""What adaptation made of a video's weights, on disk: the difference from the source, or all to go on from.

`save_difference` keeps what the trained variables have become, in full or as a bfloat16 difference.
`save_progress` keeps the carry exactly, optimiser and memory too: a run that goes on from it gives the masks
of one that was not cut off. Both are one .npz file, written whole or not at all, and say of which source.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from dattt_jax.errors import UserError
from dattt_jax.ttt.engine import Progress
from dattt_jax.ttt.objectives import Variables
from dattt_jax.ttt.steps import AdaptState
from input_pipeline.writers import atomic_path

PRECISIONS = ("full", "bfloat16")
_HEADER = "header"


def identity(variables: Variables) -> str:
    """A hash of all variables: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, value in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        digest.update(path.encode() + np.asarray(value).tobytes())
    return digest.hexdigest()[:16]


def save_difference(path: str | Path, state: AdaptState, source: Variables, *,
                    precision: str = "full") -> None:
    """Writes what the trained variables have become, as their difference from the source.

    Args:
        path: .npz file.
        state: the carry after the video, as `Engine.run` hands to `on_progress`.
        source: the variables it was adapted from.
        precision: 'full' keeps the adapted values bit for bit; 'bfloat16' half the size, the difference
            rounded to eight bits of mantissa.

    Raises:
        UserError: there is no such precision, or the file cannot be written.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    flat, arrays = traverse_util.flatten_dict(source), {}
    for key, value in jax.device_get(state.trainable).items():
        if precision == "bfloat16":
            difference = jnp.asarray(value - np.asarray(flat[key])).astype(jnp.bfloat16)
            value = np.asarray(difference).view(np.uint16)
        arrays["/".join(key)] = value
    _write(path, {"precision": precision, "source": identity(source)}, arrays)


def load_adapted(path: str | Path, source: Variables) -> Variables:
    """The source with a video's adaptation applied; with the precision 'full' exactly the adapted weights.

    Raises:
        UserError: the file is damaged, or belongs to other source weights.
    """
    header, arrays = _read(path, source, "precision")
    flat = traverse_util.flatten_dict(source)
    for name, value in arrays.items():
        key = tuple(name.split("/"))
        if header["precision"] == "bfloat16":
            value = np.asarray(flat[key]) + value.view(jnp.bfloat16).astype(np.float32)
        flat[key] = value
    return traverse_util.unflatten_dict(flat)


def save_progress(path: str | Path, progress: Progress, source: Variables) -> None:
    """Writes where a run is, exactly. Raises a UserError where the file cannot be written."""
    leaves = jax.tree.leaves(jax.device_get(progress.state))
    _write(path, {"visits": progress.visits, "source": identity(source)},
           {str(i): leaf for i, leaf in enumerate(leaves)})


def load_progress(path: str | Path, template: AdaptState, source: Variables) -> Progress:
    """Where a run was.

    Args:
        path: as of `save_progress`.
        template: a state of the same problem and strategy, e.g. of `fresh_state` (shapes are enough).
        source: the variables it was adapted from.

    Raises:
        UserError: the file is damaged, or of another problem or other source weights.
    """
    header, arrays = _read(path, source, "visits")
    shapes, structure = jax.tree.flatten(template)
    leaves = [arrays.get(str(i)) for i in range(len(arrays))]
    if [x.shape for x in shapes] != [x is not None and x.shape for x in leaves]:
        raise UserError(f"{path} holds the progress of another objective or strategy: remove it")
    return Progress(header["visits"], jax.tree.unflatten(structure, leaves))


def _write(path: str | Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{_HEADER: np.array(json.dumps(header))}, **arrays)


def _read(path: str | Path, source: Variables, field: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with Path(path).open("rb") as content, np.load(content) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        header[field]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except Exception as error:  # by the kind of damage ValueError, KeyError, BadZipFile, …
        raise UserError(f"{path} is damaged or no file of adapted weights: remove it") from error
    if header["source"] != identity(source):
        raise UserError(f"{path} was made from other source weights: adapt again")
    return header, arrays
