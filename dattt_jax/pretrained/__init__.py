"""Weights in the box, by name. The model card, README.md beside this file, says what they are worth."""

import hashlib
from pathlib import Path

from dattt_jax.errors import UserError

# name -> SHA-256 of <name>.safetensors in this folder.
PRETRAINED = {
    "dattt-synth-b0": "d35e10b59c4593d76c1ad0a3e79315be113359c5d87b5edfdff5f5e16b0d7df9",
}


def pretrained_file(name: str) -> Path:
    """The checked file of the weights called `name`.

    Raises:
        UserError: there are no such weights, or the file is missing or damaged.
    """
    if name not in PRETRAINED:
        raise UserError(f"no weights are called {name!r}: use one of {', '.join(PRETRAINED)}")
    path = Path(__file__).parent / f"{name}.safetensors"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); install dattt_jax again") from error
    if digest != PRETRAINED[name]:
        raise UserError(f"{path} is damaged (its SHA-256 is {digest[:12]}…, not {PRETRAINED[name][:12]}…): "
                        "install dattt_jax again")
    return path
