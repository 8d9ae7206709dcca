"""Weights in the box, by name. The model card, README.md beside this file, says what they are worth."""

import hashlib
from pathlib import Path

from dattt_jax.errors import UserError

# name -> SHA-256 of each of its files in this folder, see `part_paths`: <name>.safetensors, or
# <name>-1-of-4.safetensors and so on.
PRETRAINED = {
    "dattt-synth-b0": ("6e72a4601407141cdf11256c025ce5023ca1f6d8131ea4f6452aed9b79c2d328",),
}


def part_paths(path: Path, count: int) -> list[Path]:
    """The files of weights in `count` parts: `path` itself for one, else …-1-of-4.safetensors and so on."""
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{part}-of-{count}") for part in range(1, count + 1)]


def pretrained_files(name: str) -> list[Path]:
    """The checked files of the weights called `name`, which belong together.

    Raises:
        UserError: there are no such weights, or a file is missing or damaged.
    """
    if name not in PRETRAINED:
        raise UserError(f"no weights are called {name!r}: use one of {', '.join(PRETRAINED)}")
    digests = PRETRAINED[name]
    paths = part_paths(Path(__file__).parent / f"{name}.safetensors", len(digests))
    for path, wanted in zip(paths, digests, strict=True):
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); install dattt_jax again") from error
        if digest != wanted:
            raise UserError(f"{path} is damaged (its SHA-256 is {digest[:12]}…, not {wanted[:12]}…): "
                            "install dattt_jax again")
    return paths
