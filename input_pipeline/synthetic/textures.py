"""Textures: a pool of detailed patterns, recoloured and mixed anew for every scene.

Estimated flow is only as sharp as the texture is detailed, so each pattern has structure from the
size of the tile down to one texel, and sharp edges. The "leaves" family is the dead-leaves model
(Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001): occluding shapes with a
power law of sizes share the edge and scale statistics of natural images.

A pattern is made once per process from (family, number) alone; whoever uses it only crops and
recolours, so a texture depends on nothing but the generator it is given.
"""

import colorsys
import functools
from collections.abc import Callable

import cv2
import numpy as np

TILE = 512  # side of a pattern, texels
_POOL_KEY = 0x7E87  # keeps the pool's random streams apart from those of the scenes


def _octaves(rng: np.random.Generator, channels: int, slope: float, coarsest: int = 4) -> np.ndarray:
    """Noise float32 [TILE, TILE, channels]; amplitude falls as frequency^-slope per octave."""
    total = np.zeros((TILE, TILE, channels), np.float32)
    cells = coarsest
    while cells <= TILE:
        noise = rng.standard_normal((cells, cells, channels), dtype=np.float32)
        grown = cv2.resize(noise, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
        total += grown.reshape(total.shape) * np.float32((cells / coarsest) ** -slope)
        cells *= 2
    return total


def _noise(rng: np.random.Generator) -> np.ndarray:
    return _octaves(rng, 3, rng.uniform(0.3, 0.8))


def _shape(rng: np.random.Generator, size: float) -> np.ndarray:
    """A random polygon int32 [N, 2] somewhere on the tile: leaf, stone or shard."""
    corners = rng.integers(3, 10)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = size * rng.uniform(0.5, 1.0, corners)
    points = np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.2, 1.0)], 1) * radius[:, None]
    turn = rng.uniform(0, np.pi)
    points = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (points + rng.uniform(0, TILE, 2)).astype(np.int32)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    image = np.zeros((TILE, TILE, 3), np.float32)
    largest = rng.uniform(30, 120)
    sizes = np.sort(largest / rng.uniform(1, 25, 1500) ** 1.1)[::-1]
    for size, colour in zip(sizes, rng.normal(0, 1, (len(sizes), 3)), strict=True):
        cv2.fillPoly(image, [_shape(rng, size)], colour.tolist())
    return image + 0.35 * _octaves(rng, 3, 0.4, 32)


def _cells(rng: np.random.Generator) -> np.ndarray:
    seeds = np.full((TILE, TILE), 255, np.uint8)
    spots = rng.integers(0, TILE, (rng.integers(60, 700), 2))
    seeds[spots[:, 0], spots[:, 1]] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5)
    colours = rng.normal(0, 1, (label.max() + 1, 3)).astype(np.float32)
    shade = 1.2 * (distance / max(distance.max(), 1.0))[..., None]
    return colours[label] - shade + 0.3 * _octaves(rng, 3, 0.3, 32)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:TILE, :TILE].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), rng.uniform(8, 50)
    phase = (rows * np.cos(turn) + columns * np.sin(turn)) / period
    phase += rng.uniform(0, 1.5) * _octaves(rng, 1, 1.2)[..., 0]
    bands = np.sign(np.sin(2 * np.pi * phase) + rng.uniform(-0.6, 0.6))
    tint = rng.normal(0, 1, 3).astype(np.float32)
    return bands[..., None] * tint + 0.4 * _octaves(rng, 3, 0.4, 8)


def _grass(rng: np.random.Generator) -> np.ndarray:
    image = 0.8 * _octaves(rng, 3, 0.6)
    starts = rng.integers(0, TILE, (3500, 2))
    angles = rng.normal(rng.uniform(0, np.pi), rng.uniform(0.1, 0.9), len(starts))
    reach = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(5, 30, (len(starts), 1))
    colours = rng.normal(0, 1, (len(starts), 1)) + rng.normal(0, 0.3, (len(starts), 3))
    for start, end, colour in zip(starts, (starts + reach).astype(int), colours, strict=True):
        cv2.line(image, start.tolist(), end.tolist(), colour.tolist(), int(colour[0] > 1) + 1)
    return image


def _bricks(rng: np.random.Generator) -> np.ndarray:
    image = np.zeros((TILE, TILE, 3), np.float32)
    height, width = rng.integers(10, 60), rng.integers(16, 90)
    gap, stagger = int(rng.integers(1, 5)), rng.choice([0.0, 0.5])
    spread, tint = rng.uniform(0.1, 1.0), rng.normal(0, 1, 3)
    for row in range(0, TILE, height):
        offset = int(stagger * width * (row // height % 2))
        for column in range(-offset, TILE, width):
            colour = 1.2 * tint + spread * rng.normal(0, 1, 3)
            corner = (column + width - gap, row + height - gap)
            cv2.rectangle(image, (column, row), corner, colour.tolist(), -1)
    return image + 0.4 * _octaves(rng, 3, 0.4, 8)


def _clutter(rng: np.random.Generator) -> np.ndarray:
    """Rectangles inside rectangles: facades, shelves, rooms."""
    image = np.zeros((TILE, TILE, 3), np.float32)
    for size in np.sort(rng.uniform(3, 14, 350) ** 2)[::-1]:
        corner = rng.integers(-20, TILE, 2)
        extent = size * rng.uniform(0.3, 1.0, 2)
        other = (corner + extent + 1).astype(int)
        thickness = -1 if rng.random() < 0.7 else int(rng.integers(1, 4))
        cv2.rectangle(image, corner.tolist(), other.tolist(), rng.normal(0, 1, 3).tolist(),
                      thickness)
    return image + 0.3 * _octaves(rng, 3, 0.4, 8)


def _marble(rng: np.random.Generator) -> np.ndarray:
    veins = np.sin(rng.uniform(3, 8) * _octaves(rng, 3, 0.8))
    return veins + 0.3 * _octaves(rng, 3, 0.3, 16)


def _spots(rng: np.random.Generator) -> np.ndarray:
    image = 0.5 * _octaves(rng, 3, 0.5)
    tint, size = rng.normal(0, 1.3, 3), rng.uniform(3, 16)
    for centre in rng.integers(0, TILE, (int(60000 / size**2), 2)):
        radius = int(size * rng.uniform(0.4, 1.0)) + 1
        cv2.circle(image, centre.tolist(), radius, (tint + rng.normal(0, 0.3, 3)).tolist(), -1)
    return image


def _scratches(rng: np.random.Generator) -> np.ndarray:
    image = 0.7 * _octaves(rng, 3, 0.7)
    for _ in range(700):
        points = np.cumsum(rng.normal(0, 12, (6, 2)), 0) + rng.uniform(0, TILE, 2)
        cv2.polylines(image, [points.astype(np.int32)], False, rng.normal(0, 1.5, 3).tolist(),
                      int(rng.integers(1, 4)))
    return image


_FAMILIES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "noise": _noise, "leaves": _leaves, "cells": _cells, "stripes": _stripes, "grass": _grass,
    "bricks": _bricks, "clutter": _clutter,
    "marble": _marble, "spots": _spots, "scratches": _scratches,
}
TEXTURE_FAMILIES = tuple(_FAMILIES)  # the first seven make the default domain, the rest the shifted


@functools.lru_cache(maxsize=160)
def pattern(family: str, number: int) -> np.ndarray:
    """Returns pattern `number` of `family`: uint8 [TILE, TILE, 3], mean 128, deviation 42.

    The three channels are independent material values, not colours; `paint` turns them into some.
    The array is shared between callers and read-only.
    """
    rng = np.random.default_rng([_POOL_KEY, TEXTURE_FAMILIES.index(family), number])
    values = _FAMILIES[family](rng)
    values = (values - values.mean((0, 1))) / (values.std((0, 1)) + 1e-6)
    image = np.clip(128 + 42 * values, 0, 255).astype(np.uint8)
    image.setflags(write=False)
    return image


def paint(rng: np.random.Generator, side: int, *, families: tuple[str, ...], pool: int,
          mix_probability: float, brightness: tuple[float, float], contrast: tuple[float, float],
          saturation: tuple[float, float]) -> np.ndarray:
    """Returns a new opaque texture uint8 [side, side, 4] RGBA; `side` is 1..TILE texels.

    Args:
        rng: source of every choice.
        side: height and width, texels.
        families: names to choose from.
        pool: patterns per family to choose from.
        mix_probability: chance that two patterns share the texture in patches.
        brightness: range of the mean, 0..255.
        contrast: range of the lightness deviation, 0..255.
        saturation: range of the mean colour's HSV saturation, 0..1.
    """
    texture = _recolour(rng, _crop(rng, side, families, pool), brightness, contrast, saturation)
    if rng.random() < mix_probability:
        other = _recolour(rng, _crop(rng, side, families, pool), brightness, contrast, saturation)
        patches = _crop(rng, side, ("noise",), pool)[..., 0]
        cv2.copyTo(other, (patches > rng.integers(110, 170)).astype(np.uint8), texture)
    return texture


def _crop(rng: np.random.Generator, side: int, families: tuple[str, ...],
          pool: int) -> np.ndarray:
    image = pattern(families[rng.integers(len(families))], int(rng.integers(pool)))
    row, column = rng.integers(0, TILE - side + 1, 2)
    image = image[row:row + side, column:column + side]
    return image[:, ::-1] if rng.random() < 0.5 else image


def _recolour(rng: np.random.Generator, image: np.ndarray, brightness: tuple[float, float],
              contrast: tuple[float, float], saturation: tuple[float, float]) -> np.ndarray:
    """Maps the three material values of `image` linearly to RGBA with a random palette."""
    # Half of all things are of earth, skin, wood or leaf: hues from red over yellow to green.
    hue = rng.uniform(0.0, 0.36) if rng.random() < 0.5 else rng.random()
    mean = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), 1.0))
    mean = np.minimum(mean * rng.uniform(*brightness) / mean.mean(), 225)  # keep room for detail
    lightness = rng.uniform(*contrast)
    # Lightness varies along the texture's own colour, as with shading; hue varies less.
    mixing = rng.normal(0, rng.uniform(0, 0.16), (3, 3)) * lightness
    mixing[:, rng.integers(3)] += lightness * (0.5 + 0.5 * mean / mean.mean())
    mixing /= 42.0
    to_rgba = np.zeros((4, 4))
    to_rgba[:3, :3], to_rgba[:3, 3], to_rgba[3, 3] = mixing, mean - mixing.sum(1) * 128, 255
    return cv2.transform(image, to_rgba)
