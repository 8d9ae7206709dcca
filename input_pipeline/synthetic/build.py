"""Draws a scene from a config: which surfaces it has, how they look and how they move."""

import dataclasses
import functools

import cv2
import numpy as np

from input_pipeline.synthetic.bodies import SWAYING_KINDS, Body, create_body
from input_pipeline.synthetic.camera import Camera
from input_pipeline.synthetic.config import Range, SyntheticConfig
from input_pipeline.synthetic.scene import Actor, Backdrop, Scene, Still, blurred_texture
from input_pipeline.synthetic.sprites import (
    Sprite,
    body_area,
    body_points,
    flatten_body,
    paint_body,
)
from input_pipeline.synthetic.textures import TILE, paint

_MOST_STILLS = 14
_SKY_DEPTH = 40.0


def log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    """Draws from `bounds` so that every octave is equally likely; both ends above 0."""
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def _signed(rng: np.random.Generator, bounds: Range) -> float:
    return float(rng.uniform(*bounds) * rng.choice((-1.0, 1.0)))


@dataclasses.dataclass
class _Stage:
    """What the steps of `build_scene` share: the view, the ground, and the textures made so far.

    Lengths are in world units: the first object is at depth 1 at time `reference`.
    """

    config: SyntheticConfig
    rng: np.random.Generator
    focal: float  # pixels
    centre: tuple[float, float]  # principal point (x, y), pixels
    reference: float  # frames
    ground: float | None  # height of the ground under the camera, or None
    wall_depth: float
    background: list[np.ndarray]  # textures of wall and ground

    @property
    def size(self) -> tuple[int, int]:
        return self.config.size

    def paint(self, rng: np.random.Generator, side: int) -> np.ndarray:
        config = self.config
        return paint(rng, int(np.clip(side, 32, TILE)), families=config.texture_families,
                     pool=config.texture_pool, mix_probability=config.texture_mix_probability,
                     brightness=config.brightness, contrast=config.contrast,
                     saturation=config.saturation)

    def point(self, x: float, y: float, depth: float) -> np.ndarray:
        """The world point seen at pixel (x, y) and `depth` at time `reference`."""
        return np.array([(x - self.centre[0]) / self.focal * depth,
                         (y - self.centre[1]) / self.focal * depth, depth])


@dataclasses.dataclass(frozen=True)
class _Figure:
    """A body with its size and place in the image, before it gets a place in the world."""

    body: Body
    scale: float  # pixels per body unit
    mirror: float
    low: np.ndarray  # corners of its box, body units
    high: np.ndarray
    x: float  # where the box's centre is seen, pixels
    y: float


def build_scene(config: SyntheticConfig, rng: np.random.Generator) -> Scene:
    """Returns a random scene. All randomness comes from `rng`."""
    height, width = config.size
    counts = np.array(config.object_counts)
    number = 1 + int(rng.choice(len(counts), p=counts / counts.sum()))
    figures = [_draw_figure(config, rng) for _ in range(number)]
    stage = _set_stage(config, rng, figures[0])
    backdrops = _backdrops(stage)
    hedges = [_hedge(stage)] if rng.random() < config.midground_probability else []
    actors = []
    for figure in figures:
        depth = rng.uniform(0.8, max(min(1.4, 0.95 * stage.wall_depth), 0.85)) if actors else 1.0
        actors.append(_actor(stage, figure, depth=depth))
    camera = _camera(stage, actors[0])
    stills = _stills(stage, camera, actors)
    return Scene((height, width), camera, backdrops, hedges, stills, actors + _movers(stage, figures[0]))


def _draw_figure(config: SyntheticConfig, rng: np.random.Generator) -> _Figure:
    height, width = config.size
    body = create_body(config.object_kinds[rng.integers(len(config.object_kinds))], rng)
    points = body_points(body)
    low, high = points.min(0), points.max(0)
    aspect = rng.uniform(*config.object_aspect)
    area = log_uniform(rng, config.object_area) * height * width
    scale = np.sqrt(area / (body_area(body) * aspect))
    # Long thin bodies: no more than 1.3 times the frame across.
    scale = min(scale, 1.3 * width / (aspect * (high - low)[0]), 1.3 * height / (high - low)[1])
    distance, angle = rng.uniform(*config.object_offset) * width, rng.uniform(0, 2 * np.pi)
    x = width / 2 + distance * np.cos(angle)
    y = height / 2 + distance * np.sin(angle) * min(1.0, height / width)
    return _Figure(body, scale, aspect * rng.choice((-1.0, 1.0)), low, high, x, y)


def _set_stage(config: SyntheticConfig, rng: np.random.Generator, figure: _Figure) -> _Stage:
    """Puts horizon and ground where the first object stands on it (or hovers above)."""
    height, width = config.size
    focal = width * rng.uniform(*config.focal_length)
    centre, ground = (height - 1) / 2, None
    if rng.random() < config.ground_probability:
        feet = figure.y + figure.scale * (figure.high - figure.low)[1] / 2
        if not figure.body.grounded:
            feet += rng.uniform(0.0, 0.4) * height
        centre = min(rng.uniform(*config.horizon) * height, feet - rng.uniform(0.1, 0.3) * height)
        ground = (feet - centre) / focal
    return _Stage(config, rng, focal, ((width - 1) / 2, float(centre)),
                  rng.uniform(0, config.num_frames - 1), ground,
                  log_uniform(rng, config.wall_depth), [])


def _texture_plane(stage: _Stage, depth: float) -> tuple[np.ndarray, float]:
    """A texture for a plane that fills the view, and its texels per world unit if at `depth`."""
    scale = log_uniform(stage.rng, stage.config.texture_scale)
    texture = stage.paint(stage.rng, int(1.4 * max(stage.size) / scale))
    return texture, stage.focal / depth / scale


def _backdrops(stage: _Stage) -> list[Backdrop]:
    config, rng, depth = stage.config, stage.rng, stage.wall_depth
    backdrops = []
    skyline = None
    if rng.random() < config.skyline_probability:
        backdrops.append(_sky(stage))
        low = 0.05 * stage.size[0]
        high = stage.size[0] * 0.5 if stage.ground is None else max(stage.centre[1], 2 * low)
        skyline = _skyline(stage, rng.uniform(low, high), depth)
    # A skyline is part of its wall: such a wall stays.
    drift = _drift(stage) if stage.ground is not None or skyline is None else 0.0
    slant = (0.0, 0.0)
    if stage.ground is None:
        slant = (rng.uniform(*config.wall_slant), rng.uniform(*config.wall_slant))
    plane = np.array([[1, 0, 0], [0, 1, 0], [slant[0], slant[1], depth]])
    texture, density = _texture_plane(stage, depth)
    stage.background.append(texture)
    backdrops.append(Backdrop(texture, plane, _to_texel(rng, density, density), skyline, density,
                              drift=drift if stage.ground is None else 0.0))
    if stage.ground is not None:
        texture, density = _texture_plane(stage, 1.0)
        stage.background.append(texture)
        plane = np.array([[1, 0, 0], [0, 0, stage.ground], [0, 1, 0.0]])
        # Stretched along the view, as tufts and pebbles stand up against foreshortening.
        along = density * np.clip(stage.ground, 0.05, 1) ** 0.6
        backdrops.append(Backdrop(
            texture, plane, _to_texel(rng, density, along), bottom=depth,
            coarse=blurred_texture(texture), coarse_depth=1.2, drift=drift))
    return backdrops


def _drift(stage: _Stage) -> float:
    """Speed at which the ground or the wall flows past, world units per frame; mostly 0."""
    config, rng = stage.config, stage.rng
    if rng.random() >= config.drift_probability:
        return 0.0
    depth = stage.wall_depth if stage.ground is None else 1.0
    return _signed(rng, config.drift_speed) * stage.size[1] / stage.focal * depth


def _to_texel(rng: np.random.Generator, density_u: float, density_v: float) -> np.ndarray:
    offset_u, offset_v = rng.uniform(0, TILE, 2)
    return np.array([[density_u, 0, offset_u], [0, density_v, offset_v], [0, 0, 1]])


def _sky(stage: _Stage) -> Backdrop:
    """A far plane with clouds, or a plain one: brighter and smoother than all else."""
    rng, config = stage.rng, stage.config
    texture = paint(rng, 128, families=("noise",), pool=config.texture_pool, mix_probability=0.0,
                    brightness=(min(140.0, config.brightness[1]), config.brightness[1] + 30),
                    contrast=(2.0, 0.5 * config.contrast[1]), saturation=(0.0, 0.5))
    texture = cv2.GaussianBlur(texture, (0, 0), rng.uniform(1.0, 6.0))
    density = 128 / (1.5 * max(stage.size)) * stage.focal / _SKY_DEPTH
    plane = np.array([[1, 0, 0], [0, 1, 0], [0, 0, _SKY_DEPTH]])
    return Backdrop(texture, plane, _to_texel(rng, density, density))


def _skyline(stage: _Stage, row: float, depth: float) -> np.ndarray:
    """A random profile around pixel `row` at `depth`: hills, trees or roofs; world heights."""
    rng = stage.rng
    unit = depth / stage.focal  # world units per pixel
    heights = np.zeros((1, 2048), np.float32)
    style = rng.integers(3)
    for cells in (8, 32, 128, 512, 2048)[:rng.integers(1, 6) if style else 2]:
        noise = rng.standard_normal((1, cells), dtype=np.float32)
        way = cv2.INTER_NEAREST if style == 1 else cv2.INTER_CUBIC
        heights += cv2.resize(noise, (2048, 1), interpolation=way) / cells ** 0.4
    amplitude = rng.uniform(0.02, 0.15) * stage.size[0] * unit
    return (row - stage.centre[1]) * unit + amplitude * heights[0]


def _hedge(stage: _Stage) -> Backdrop:
    """A textured layer with a ragged top between the object and the wall."""
    rng = stage.rng
    depth = rng.uniform(1.05, max(0.9 * stage.wall_depth, 1.1))
    lower = stage.size[0] if stage.ground is None else (
        stage.centre[1] + stage.ground * stage.focal / depth)
    row = lower - rng.uniform(0.05, 0.4) * stage.size[0]
    texture, density = _texture_plane(stage, depth)
    plane = np.array([[1, 0, 0], [0, 1, 0], [0, 0, depth]])
    return Backdrop(texture, plane, _to_texel(rng, density, density),
                    _skyline(stage, row, depth), density, bottom=stage.ground)


def _textures(stage: _Stage, rng: np.random.Generator, pixels: float) -> list[np.ndarray]:
    """Three materials for a body `pixels` long; camouflage takes the background's for the first."""
    side = int(np.clip(0.5 * pixels / stage.config.texture_scale[0], 48, 256))
    textures = [stage.paint(rng, side) for _ in range(3)]
    if rng.random() < stage.config.camouflage_probability:
        textures = [stage.background[rng.integers(len(stage.background))]] * 3
    return textures


def _actor(stage: _Stage, figure: _Figure, *, depth: float) -> Actor:
    config, rng, body = stage.config, stage.rng, figure.body
    pixels = figure.scale * max(figure.high - figure.low)
    sprites = paint_body(rng, body, _textures(stage, rng, pixels), min(figure.scale, TILE),
                         rng.uniform(*config.edge_roughness))
    scale = figure.scale / stage.focal * depth
    middle = (figure.low + figure.high) / 2
    position = stage.point(figure.x, figure.y, depth)
    position[:2] -= scale * middle * (figure.mirror, 1)
    if stage.ground is not None and (body.grounded or position[1] > stage.ground):
        position[1] = stage.ground - scale * figure.high[1]
    speed = log_uniform(rng, config.object_speed) * stage.size[1] / stage.focal
    heading = 0.0 if figure.mirror > 0 else np.pi
    heading += rng.normal(0, 0.3) if body.upright else rng.uniform(0, 2 * np.pi)
    velocity = speed * np.array([np.cos(heading), np.sin(heading), 0])
    wander = 0.3 * speed / config.gait_frequency[1] * rng.normal(0, 0.3, 3)
    wander[2] = 0
    if body.grounded and stage.ground is not None:
        velocity[1] = wander[1] = 0
    velocity[2] = _limited(rng.uniform(*config.object_approach), 0.3, config.num_frames) * depth
    halt, start = np.inf, -np.inf
    if rng.random() < config.stop_probability:
        moment = rng.uniform(0, config.num_frames)
        halt, start = (moment, start) if rng.random() < 0.5 else (halt, moment)
    return Actor(body, sprites, position, velocity, wander, stage.reference, scale, figure.mirror,
                 halt, start, rng.uniform(*config.gait_frequency), rng.random(),
                 rng.uniform(*config.articulation), rng.uniform(*config.deformation),
                 np.deg2rad(rng.uniform(*config.object_rocking)))


def _movers(stage: _Stage, figure: _Figure) -> list[Actor]:
    """Moving distractors: plants that sway where they stand, and figures smaller than the first object."""
    config, rng = stage.config, stage.rng
    if rng.random() >= config.mover_probability:
        return []
    low, high = config.num_movers
    plants = rng.random() < 0.5
    return [_plant(stage) if plants else _passer_by(stage, figure)
            for _ in range(rng.integers(low, high + 1))]


def _plant(stage: _Stage) -> Actor:
    config, rng = stage.config, stage.rng
    height, width = stage.size
    body = create_body(SWAYING_KINDS[rng.integers(len(SWAYING_KINDS))], rng)
    depth = rng.uniform(0.7, max(min(2.5, 0.95 * stage.wall_depth), 1.0))
    pixels = rng.uniform(0.08, 0.4) * height
    sprites = paint_body(rng, body, [stage.paint(rng, 64) for _ in range(2)], pixels, 0.0)
    position = stage.point(rng.uniform(-0.1, 1.1) * width, rng.uniform(0.5, 1.1) * height, depth)
    if stage.ground is not None:
        position[1] = stage.ground
    nowhere, scale = np.zeros(3), pixels / stage.focal * depth
    return Actor(body, sprites, position, nowhere, nowhere, stage.reference, scale, 1.0, np.inf,
                 -np.inf, rng.uniform(*config.gait_frequency), rng.random(),
                 rng.uniform(*config.articulation), 1.0, 0.0, primary=False)


def _passer_by(stage: _Stage, first: _Figure) -> Actor:
    """A figure of its own behind the first object, on its way."""
    config, rng = stage.config, stage.rng
    height, width = stage.size
    figure = _draw_figure(config, rng)
    longest = max(first.high - first.low) * first.scale * log_uniform(rng, config.mover_size)
    scale = min(figure.scale, longest / max(figure.high - figure.low))
    figure = dataclasses.replace(figure, scale=scale, x=rng.uniform(0, width),
                                 y=rng.uniform(0.2, 0.9) * height)
    behind = rng.uniform(1.05, max(min(2.0, 0.95 * stage.wall_depth), 1.1))
    return dataclasses.replace(_actor(stage, figure, depth=behind), primary=False)


def _limited(rate: float, most: float, frames: int) -> float:
    """`rate` per frame, held to a total of `most` over half a clip."""
    bound = 2 * most / frames
    return float(np.clip(rate, -bound, bound))


def _camera(stage: _Stage, target: Actor) -> Camera:
    config, rng = stage.config, stage.rng
    moving = rng.random() >= config.static_camera_probability
    tracking = moving and rng.random() < config.tracking_probability
    unit = stage.size[1] / stage.focal  # frame widths to world units at depth 1, or to radians
    angle, frames = rng.uniform(0, 2 * np.pi), config.num_frames
    pan = _limited(rng.uniform(*config.camera_pan) * unit, 0.3, frames)
    drift = _limited(_signed(rng, config.camera_travel) * unit, 0.4, frames)
    travel = np.array([drift, 0.3 * rng.normal() * drift,
                       _limited(_signed(rng, config.camera_dolly), 0.25, frames)])
    roll = np.deg2rad(_signed(rng, config.camera_roll))
    zoom = _limited(_signed(rng, config.camera_zoom), 0.4, frames)
    shake, phases = rng.uniform(*config.camera_shake) * unit, rng.uniform(0, 2 * np.pi, 2)
    gain, share = rng.uniform(*config.tracking_gain), rng.uniform(*config.tracking_travel)
    # Turning alone would soon look along the walls; far goers are travelled with.
    way = np.abs(target.velocity[:2]).max() * frames / 2
    share = max(share, 1 - 0.3 / way) if way > 0.3 else share
    still = float(moving)
    return Camera(stage.focal, stage.centre, stage.reference,
                  (still * pan * np.cos(angle), still * 0.5 * pan * np.sin(angle)), still * travel,
                  still * roll, still * zoom, still * shake, tuple(phases.tolist()),
                  target.location if tracking else None, gain, share)


def _stills(stage: _Stage, camera: Camera, actors: list[Actor]) -> list[Still]:
    config, rng = stage.config, stage.rng
    # The more the camera travels, the more room there is to fill.
    ends = [camera.view(time)[1][0] for time in (0, config.num_frames)]
    span = (min(ends), max(ends))
    view = stage.size[1] / stage.focal
    low, high = config.num_distractors
    number = rng.integers(low, high + 1) * (1 + (span[1] - span[0]) / (2 * view))
    stills = []
    for _ in range(min(int(number), _MOST_STILLS)):
        depth = rng.uniform(1.02, max(min(0.95 * stage.wall_depth, 4.0), 1.05))
        stills.append(_still(stage, depth, rng.uniform(span[0] - 0.6 * view * depth,
                                                       span[1] + 0.6 * view * depth)))
    if rng.random() < config.occluder_probability:
        depth = rng.uniform(0.55, 0.9)
        way = 0.5 * actors[0].velocity[0] * config.num_frames
        x = actors[0].position[0] * depth + rng.uniform(-0.5, 0.5) * (abs(way) + 0.5 * view)
        stills.append(_still(stage, depth, x))
    low, high = config.num_nearer
    for _ in range(rng.integers(low, high + 1)):
        depth = rng.uniform(0.35, 0.95)
        aside = _signed(rng, (0.2, 0.6)) * view
        stills.append(_still(stage, depth, (actors[0].position[0] + aside) * depth))
    if stage.ground is not None:
        stills += [_shadow(stage, actor) for actor in actors
                   if rng.random() < config.shadow_probability]
    return stills


def _still(stage: _Stage, depth: float, x: float) -> Still:
    """A standing thing at (x, depth), painted when first seen."""
    config, rng = stage.config, stage.rng
    lookalike = rng.random() < config.distractor_lookalike_probability
    kinds = config.object_kinds if lookalike else config.distractor_kinds
    body = create_body(kinds[rng.integers(len(kinds))], rng)
    points = body_points(body)
    low, high = points.min(0), points.max(0)
    extent = rng.uniform(0.12, 0.6) * stage.size[0] / stage.focal * depth ** 0.7
    scale = extent / max(high - low)
    y = stage.point(0, rng.uniform(0.2, 0.9) * stage.size[0], depth)[1]
    if stage.ground is not None:
        y = stage.ground - scale * high[1]
    density = scale * stage.focal / depth
    painter = functools.partial(_paint_still, stage, int(rng.integers(2**62)), body, density)
    plane = np.array([[scale * rng.choice((-1.0, 1.0)), 0, x], [0, scale, y], [0, 0, depth]])
    return Still(painter, plane, scale * float(np.abs(points).max()) * 1.3)


def _paint_still(stage: _Stage, key: int, body: Body, density: float) -> Sprite:
    # Its own stream: the picture must not depend on which things were painted before.
    rng = np.random.default_rng(key)
    textures = [stage.paint(rng, 64) for _ in range(2)]
    sprites = paint_body(rng, body, textures, density, rng.uniform(*stage.config.edge_roughness))
    return flatten_body(body, sprites, rng.random(), density)


def _shadow(stage: _Stage, actor: Actor) -> Still:
    """A soft dark ellipse on the ground under `actor`."""
    strength = 255 * stage.rng.uniform(*stage.config.shadow_strength)
    rows, columns = np.mgrid[-1:1:33j, -1:1:33j]
    image = np.zeros((33, 33, 4), np.uint8)
    image[..., 3] = strength * np.clip(1.6 * (1 - np.hypot(rows, columns)), 0, 1)
    points = body_points(actor.body)
    length = 0.55 * float(np.ptp(points[:, 0])) * actor.scale
    to_texel = np.array([[16, 0, 16], [0, 16, 16], [0, 0, 1.0]])
    plane = np.array([[length, 0, 0.5 * points[:, 0].mean() * actor.scale],
                      [0, 0, stage.ground], [0, 0.5 * length, 0]])
    return Still(lambda: Sprite(image, to_texel), plane, length, caster=actor)
