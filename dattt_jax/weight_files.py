"""Files of PyTorch weights in, names and NumPy arrays out. Nothing here knows a network."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  importing it teaches NumPy, and so safetensors, the name "bfloat16"
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dattt_jax.errors import UserError

Numbers = dict[str, bool | int | float]

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"

# Keys under which training scripts put the state dict inside the saved dictionary.
_WRAPPERS = ("model", "state_dict")
# How torch says that a pickle holds more than tensors and plain containers, and what it is.
_UNSAFE = re.compile(r"(?:GLOBAL|Unsupported class) ([\w.]+)")


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """Reads a file of PyTorch weights without running any code it may hold.

    `.safetensors` needs no torch; `.pth`, `.pt`, `.bin` and `.ckpt` are read by
    `torch.load(weights_only=True)`. A state dict nested under `model` or `state_dict` is taken out,
    and entries that are not tensors are left out.

    Args:
        path: the file.

    Returns:
        Names to arrays in PyTorch's layout. Every float type becomes float32; integers stay.

    Raises:
        UserError: the file is missing, unreadable, damaged, unsafe or holds no tensors, or torch is
            needed and not installed.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: str) -> tuple[dict[str, np.ndarray], Numbers]:
    """As `read_state_dict`, with the plain numbers that the file holds beside the tensors.

    Args:
        path: the file.

    Returns:
        (names to arrays, names to numbers, for example the `height` that a network was trained at).

    Raises:
        UserError: as `read_state_dict`.
    """
    suffix = Path(path).suffix
    if suffix not in (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX):
        raise UserError(f"{path}: weights are read from {', '.join(TORCH_SUFFIXES)} and "
                        f"{SAFETENSORS_SUFFIX} files; rename the file if it is one of them")
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a readable file") from error
    tensors, numbers = ((_read_safetensors(path), {}) if suffix == SAFETENSORS_SUFFIX
                        else _read_torch(path))
    if not tensors:
        raise UserError(f"{path}: holds no state dict (names with tensors); save one with "
                        "torch.save(model.state_dict(), …)")
    return {name: _as_float32(value) for name, value in tensors.items()}, numbers


def _as_float32(value: np.ndarray) -> np.ndarray:
    # ml_dtypes' bfloat16 is of NumPy kind "V", and no other kind of that letter is read.
    return value.astype(np.float32, copy=False) if value.dtype.kind in "fV" else value


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, "safetensors file", error) from error
    except (AttributeError, KeyError, TypeError) as error:  # a number format that NumPy lacks
        raise UserError(f"{path}: holds tensors of a type NumPy cannot read ({_one_line(error)}); "
                        "save them as float32, float16 or bfloat16") from error


def _read_torch(path: str) -> tuple[dict[str, np.ndarray], Numbers]:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path}: reading it needs PyTorch; run `pip install torch`, or give the "
                        "weights as a .safetensors file") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = _UNSAFE.search(str(error))
        if unsafe is None:
            raise _damaged(path, "PyTorch checkpoint", error) from error
        raise UserError(f"{path}: refused, since it holds a Python object ({unsafe[1]}) whose "
                        "loading can run code; save its tensors alone with "
                        "torch.save(model.state_dict(), …) or as .safetensors") from error
    except Exception as error:  # damaged bytes surface as almost any exception
        raise _damaged(path, "PyTorch checkpoint", error) from error
    entries = {name: value for name, value in _unwrap(content).items() if isinstance(name, str)}
    tensors = {name: value.detach() for name, value in entries.items() if isinstance(value, torch.Tensor)}
    numbers = {name: value for name, value in entries.items() if isinstance(value, bool | int | float)}
    return {name: (value.float() if value.is_floating_point() else value).numpy()
            for name, value in tensors.items()}, numbers


def _unwrap(content: Any) -> Mapping[str, Any]:
    """The state dict inside what a training script saved."""
    if not isinstance(content, Mapping):
        return {}
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _unwrap(content[key])
    return content


def _damaged(path: str, what: str, error: Exception) -> UserError:
    return UserError(f"{path}: not a whole {what} ({_one_line(error)}); download or copy it again")


def _one_line(error: Exception) -> str:
    """The telling part of an exception's text: torch puts advice before it and after it."""
    text = str(error).split("WeightsUnpickler error:")[-1].strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".") if text else type(error).__name__
