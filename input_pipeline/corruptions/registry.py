"""Corruptions by name and level, and what a config may call them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.corruptions import clip_ops, frame_ops

Setting = tuple[str, int]  # (corruption, level)


@dataclasses.dataclass(frozen=True)
class Corruption:
    """An operator and its levels.

    Attributes:
        apply: (frame, rng, **parameters) -> frame, see `frame_ops`; for a clip operator
            (frames, **parameters) -> frames, see `clip_ops`.
        levels: the parameters of level 1, 2, …, weakest first.
        random: whether it draws random numbers.
        on_clip: whether it is a clip operator.
    """

    apply: Callable[..., np.ndarray] | Callable[..., Iterator[np.ndarray]]
    levels: tuple[dict[str, Any], ...]
    random: bool = False
    on_clip: bool = False


def _levels(**values: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """Parameters by name, a value per level -> parameters of each level."""
    return tuple(dict(zip(values, level, strict=True)) for level in zip(*values.values(), strict=True))


_ROBUST_VOS = {
    "gaussian_noise": Corruption(frame_ops.gaussian_noise, _levels(sigma=(5, 10, 30)), random=True),
    "box_blur": Corruption(frame_ops.box_blur, _levels(kernel=(3, 5, 9))),
    # The release has 1000 points at the middle level too, by mistake it seems; 2000 is our assumption.
    "salt_pepper": Corruption(frame_ops.salt_pepper, _levels(points=(1000, 2000, 5000)), random=True),
}

# DAVIS-C's low, medium and high are the severities 3, 4 and 5 of ImageNet-C, with its constants.
_DAVIS_C = {
    "gaussian_noise_c": Corruption(frame_ops.gaussian_noise,
                                   _levels(sigma=(0.18 * 255, 0.26 * 255, 0.38 * 255)), random=True),
    "contrast": Corruption(frame_ops.contrast, _levels(factor=(0.2, 0.1, 0.05))),
    "brightness": Corruption(frame_ops.brightness, _levels(shift=(0.3, 0.4, 0.5))),
    "saturate": Corruption(frame_ops.saturate, _levels(factor=(2, 5, 20), shift=(0, 0.1, 0.2))),
    "glass_blur": Corruption(frame_ops.glass_blur, _levels(sigma=(1, 1.1, 1.5), distance=(2, 3, 4),
                                                           iterations=(3, 2, 2)), random=True),
    "defocus_blur": Corruption(frame_ops.defocus_blur,
                               _levels(radius=(6, 8, 10), smooth=(0.5, 0.5, 0.5))),
    "pixelate": Corruption(frame_ops.pixelate, _levels(factor=(0.4, 0.3, 0.25))),
    "temporal_motion_blur": Corruption(clip_ops.temporal_motion_blur, _levels(length=(2, 3, 4)),
                                       on_clip=True),
    "crf_compression": Corruption(clip_ops.crf_compression, _levels(crf=(40, 45, 50)), on_clip=True),
}

CORRUPTIONS: dict[str, Corruption] = {
    "identity": Corruption(frame_ops.identity, ({},)), **_ROBUST_VOS, **_DAVIS_C}

# Benchmarks by name -> names of their corruptions. Of DAVIS-C, cartoon and the four styles are left out.
SUITES: dict[str, tuple[str, ...]] = {"robust_vos": tuple(_ROBUST_VOS), "davis_c": tuple(_DAVIS_C),
                                      "all": (*_ROBUST_VOS, *_DAVIS_C)}

# `image_type` 0..9 of the Robust-VOS release.
_AOC: tuple[Setting, ...] = (("identity", 1), *((name, level) for name in _ROBUST_VOS for level in (1, 2, 3)))


def find_corruption(name: str, level: int) -> tuple[Corruption, dict[str, Any]]:
    """The corruption called `name` and the parameters of a level.

    Args:
        name: key of `CORRUPTIONS`.
        level: 1 (weakest) to the number of its levels.

    Returns:
        The corruption, and its parameters by name.

    Raises:
        UserError: there is no such name or level; lists those there are.
    """
    if name not in CORRUPTIONS:
        raise UserError(f"corruption {name!r} is unknown; use one of {', '.join(CORRUPTIONS)}")
    corruption = CORRUPTIONS[name]
    if level not in range(1, len(corruption.levels) + 1):
        valid = ", ".join(str(each + 1) for each in range(len(corruption.levels)))
        raise UserError(f"corruption {name} has no level {level!r}; use one of {valid}")
    return corruption, corruption.levels[level - 1]


def parse_corruptions(texts: Iterable[str]) -> list[Setting]:
    """What a config calls corruptions -> settings, each once, in order.

    Args:
        texts: each `name:level`; `name` for all its levels; a key of `SUITES` for all levels of all its
            corruptions; or `aoc:0` … `aoc:9`, the numbers of the Robust-VOS release (0 is clean).

    Returns:
        (corruption, level) pairs, as `corrupt_video` takes them.

    Raises:
        UserError: a text is none of these.
    """
    settings = [setting for text in texts for setting in _parse(text)]
    return list(dict.fromkeys(settings))


def _parse(text: str) -> list[Setting]:
    if text in SUITES:
        return [setting for name in SUITES[text] for setting in _parse(name)]
    name, colon, level = text.partition(":")
    if colon and not (level.isascii() and level.isdigit()):
        raise UserError(f"corruption {text!r}: the level after the colon is a number, as in gaussian_noise:2")
    if name == "aoc":
        if not colon or int(level) >= len(_AOC):
            raise UserError(f"corruption {text!r} is unknown; use one of aoc:0 … aoc:{len(_AOC) - 1}")
        return [_AOC[int(level)]]
    if name not in CORRUPTIONS:
        raise UserError(f"corruption {text!r} is unknown; use one of {', '.join(CORRUPTIONS)} with or "
                        f"without :level, {' or '.join(SUITES)}, or aoc:0 … aoc:{len(_AOC) - 1}")
    levels = [int(level)] if colon else range(1, len(CORRUPTIONS[name].levels) + 1)
    for each in levels:
        find_corruption(name, each)
    return [(name, each) for each in levels]
