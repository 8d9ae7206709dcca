"""Weights in the box, by name. The model card, README.md beside this file, says what they are worth."""

import hashlib
from pathlib import Path

from dattt_jax.errors import UserError

# name -> SHA-256 of each of its files in this folder, see `part_paths`: <name>.safetensors, or
# <name>-1-of-4.safetensors and so on.
PRETRAINED = {
    "dattt-synth-b0": ("1e58b4eed10af4696501037c3b3e1a21ed2675c692a5bae2f417244d0059738b",),
    "dattt-synth-b1": (
        "211a7db4ee8a4794d4487f7992234f05b99e9c51299982bd03962548b3eedd44",
        "22e13ab18bbee4e8bd5860f4500b12bec6b98c906632d3986da1122ffed7ca15",
        "0c6950b73ed9ad33b54bec3a9830c60121be6b895caa79243875e8b2c5c5f9f4",
        "612073c2b8a76518ef78df15748bd8cd1c509eec5320978b44088ea9bcf73244",
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
