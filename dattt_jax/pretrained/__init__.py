"""Weights in the box, by name. The model card, README.md beside this file, says what they are worth."""

import hashlib
from pathlib import Path

from dattt_jax.errors import UserError

# name -> SHA-256 of each of its files in this folder, see `part_paths`: <name>.safetensors, or
# <name>-1-of-4.safetensors and so on.
PRETRAINED = {
    "dattt-synth-b0": ("1e58b4eed10af4696501037c3b3e1a21ed2675c692a5bae2f417244d0059738b",),
    "dattt-synth-b1": (
        "720a10ce357ee5329d55662875298414eca3f9ac65c69338058222b3a92fe359",
        "6abec5e74cbf1423dab83c90c97e843367a30eeb935e51a34ffc7ba06e9b0f28",
        "cce8817854928f68d7d69b3a9b87d167655a63bbca0ab3f3fa46568cd7a0a9ea",
        "a20bbcedc01e56e9d8ed641ab7997e69a2b69f0fb129bd590989a09d9a1e3338",
    ),
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
