"""What adaptation made of a video's weights, on disk: the difference from the source, or all to go on from.

`save_difference` keeps what the trained variables have become, in full or as a bfloat16 difference.
`save_progress` keeps the carry exactly, optimiser and memory too: a run that goes on from it gives the masks
of one that was not cut off. Both are one .npz file, written whole or not at all, and say of which source.
Replaying needs no file: a run is its source weights, its settings and its seed.
"""

import hashlib
import json
from collections.abc import Mapping
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
        UserError: there is no such precision, nothing was trained, or the file cannot be written.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if not state.trainable:
        raise UserError(f"{path}: this objective trains nothing, there are no adapted weights to write")
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
    header, arrays = _read(path, "precision")
    _check_source(path, header, source)
    flat = traverse_util.flatten_dict(source)
    for name, value in arrays.items():
        key = tuple(name.split("/"))
        if header["precision"] == "bfloat16":
            value = np.asarray(flat[key]) + value.view(jnp.bfloat16).astype(np.float32)
        flat[key] = value
    return traverse_util.unflatten_dict(flat)


def save_progress(path: str | Path, progress: Progress, source: Variables,
                  notes: Mapping[str, Any] | None = None) -> None:
    """Writes where a run is, exactly.

    Args:
        path: .npz file.
        progress: as `Engine.run` hands to `on_progress`.
        source: the variables it was adapted from.
        notes: what else `load_notes` shall give back, plain values for JSON.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(jax.device_get(progress.state)))}
    if progress.losses:
        losses, applied = zip(*progress.losses.values(), strict=True)
        arrays |= {"frames": np.array(list(progress.losses)), "losses": np.stack(losses),
                   "applied": np.stack(applied)}
    _write(path, {"frames": progress.frames, "source": identity(source), "notes": notes}, arrays)


def load_notes(path: str | Path) -> Any:
    """What `save_progress` was given as notes. Raises a UserError where the file is missing or damaged."""
    return _read(path, "frames")[0]["notes"]


def load_progress(path: str | Path, template: AdaptState, source: Variables) -> Progress:
    """Where a run was.

    Args:
        path: as of `save_progress`.
        template: a state of the same problem and strategy, e.g. of `fresh_state` (shapes are enough).
        source: the variables it was adapted from.

    Raises:
        UserError: the file is damaged, or of another problem or other source weights.
    """
    header, arrays = _read(path, "frames")
    _check_source(path, header, source)
    frames, losses, applied = (arrays.pop(name, ()) for name in ("frames", "losses", "applied"))
    shapes, structure = jax.tree.flatten(template)
    leaves = [arrays.get(str(i)) for i in range(len(arrays))]
    if [x.shape for x in shapes] != [x is not None and x.shape for x in leaves]:
        raise UserError(f"{path} holds the progress of another objective or strategy")
    known = {int(frame): pair for frame, *pair in zip(frames, losses, applied, strict=True)}
    return Progress(header["frames"], jax.tree.unflatten(structure, leaves), known)


def _write(path: str | Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{_HEADER: np.array(json.dumps(header))}, **arrays)


def _read(path: str | Path, field: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with Path(path).open("rb") as content, np.load(content) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        header[field]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except Exception as error:  # by the kind of damage ValueError, KeyError, BadZipFile, …
        raise UserError(f"{path} is damaged, or not what config.segment.save_weights writes") from error
    return header, arrays


def _check_source(path: str | Path, header: dict[str, Any], source: Variables) -> None:
    if header["source"] != identity(source):
        raise UserError(f"{path} was made from other source weights: adapt again")
