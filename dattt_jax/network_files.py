"""The files that `--mode=convert` makes of the weights of flow and depth networks.

One safetensors file per network: float32 arrays under the paths of the Flax tree
(`params/fnet/conv1/kernel`), and in its header the name of the network and what else is known of it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dattt_jax.errors import UserError
from dattt_jax.variables import Variables
from dattt_jax.weight_files import SAFETENSORS_SUFFIX, TORCH_SUFFIXES
from input_pipeline.writers import write_bytes

Shapes = Mapping[str, tuple[int, ...]]

_HEADER = "dattt_jax_network"
_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class StoredNetwork:
    """What a file holds.

    Attributes:
        variables: {'params': …} and perhaps 'batch_stats', float32 NumPy leaves.
        fields: what else was known of the weights, for example the `height` of the training images.
        digest: hash of the file's bytes, 16 hexadecimal digits.
    """

    variables: Variables
    fields: Mapping[str, Any]
    digest: str


def flat_shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a tree of arrays (or of `jax.eval_shape`'s result) by their paths, parts joined with `/`."""
    return {name: tuple(leaf.shape) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}


def write_network(path: Path | str, network: str, variables: Variables, fields: Mapping[str, Any]) -> None:
    """Writes the file, atomically.

    Args:
        path: a `.safetensors` file.
        network: its name, for example `raft_small`.
        variables: float32 arrays.
        fields: plain values that `read_network` gives back.

    Raises:
        UserError: the file cannot be written.
    """
    flat = traverse_util.flatten_dict(variables, sep="/")
    header = {_HEADER: json.dumps({"network": network, "fields": dict(fields)})}
    write_bytes(path, save({name: np.ascontiguousarray(value) for name, value in flat.items()}, header))


def read_network(path: str, network: str, shapes: Shapes, *, field: str) -> StoredNetwork:
    """Reads the weights of a network.

    Args:
        path: a file that `--mode=convert` wrote.
        network: the network wanted.
        shapes: see `flat_shapes`.
        field: the config field that named the file, for messages.

    Returns:
        The weights.

    Raises:
        UserError: no file is named; it is missing, damaged, a PyTorch file, or of another network.
    """
    if not path:
        raise UserError(f"{field} is empty: {network!r} needs weights; name the file that --mode=convert "
                        "makes of the published ones (--config.convert.input=…)")
    if Path(path).suffix in TORCH_SUFFIXES:
        raise UserError(f"{field}={path} is a PyTorch file: convert it once with --mode=convert "
                        f"--config.convert.input={path} and name what that writes")
    try:
        content = Path(path).read_bytes()
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_HEADER)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
    except SafetensorError as error:
        what = "is not a whole safetensors file" if Path(path).suffix == SAFETENSORS_SUFFIX else (
            f"is no {SAFETENSORS_SUFFIX} file")
        raise UserError(f"{field}={path} {what} ({error}); convert the weights again") from error
    except OSError as error:
        raise UserError(f"{field}={path} cannot be read ({error.strerror})") from error
    if header is None:
        raise UserError(f"{field}={path} was not written by --mode=convert: convert it with "
                        f"--config.convert.input={path}")
    stored = json.loads(header)
    if stored["network"] != network:
        raise UserError(f"{field}={path} holds weights of {stored['network']!r}, and the method is "
                        f"{network!r}: use {field.rpartition('.')[0]}.method={stored['network']} or "
                        "other weights")
    wrong = [name for name in sorted(shapes.keys() | arrays.keys())
             if name not in arrays or arrays[name].shape != shapes.get(name)]
    if wrong:
        raise UserError(f"{field}={path} does not fit {network!r} ({', '.join(wrong[:_NAMES_SHOWN])}"
                        f"{', …' if len(wrong) > _NAMES_SHOWN else ''}): convert the weights again")
    return StoredNetwork(traverse_util.unflatten_dict(arrays, sep="/"), stored["fields"],
                         hashlib.sha256(content).hexdigest()[:16])
