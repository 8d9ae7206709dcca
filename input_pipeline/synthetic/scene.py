"""What a scene is made of, and where each of its surfaces is at a time.

A scene is a set of planes: backdrops (sky, walls, ground), upright sprites that stand still, and
actors whose parts move. Everything is a closed-form function of time, so a single pair of frames
costs no more than two frames.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from input_pipeline.synthetic.bodies import Body, pose_body
from input_pipeline.synthetic.camera import Camera
from input_pipeline.synthetic.sprites import Sprite, part_affine


@dataclasses.dataclass(frozen=True)
class Backdrop:
    """A textured plane that fills the view; its coordinates (u, v) are in world units.

    Attributes:
        texture: uint8 [h, w, 4], opaque; repeats mirrored.
        plane: float64 [3, 3], columns: u axis, v axis, origin, in the world.
        to_texel: float64 [3, 3] affine from (u, v) to texels.
        skyline: float32 [N] smallest visible v along u, in world units, or None.
        skyline_density: entries of `skyline` per world unit of u.
        bottom: largest visible v (where a hedge meets the ground, where the ground meets the
            wall), or None.
        coarse: `texture` blurred for use where it recedes, or None.
        coarse_depth: depth from which on the coarse texture starts to take over.
        drift: velocity of the whole plane along its u axis, world units per frame: water.
    """

    texture: np.ndarray
    plane: np.ndarray
    to_texel: np.ndarray
    skyline: np.ndarray | None = None
    skyline_density: float = 1.0
    bottom: float | None = None
    coarse: np.ndarray | None = None
    coarse_depth: float = 1.0
    drift: float = 0.0


@dataclasses.dataclass
class Still:
    """A sprite on a resting plane (a tree, a parked car) or a shadow that follows an actor.

    Attributes:
        paint: makes the sprite; called when it is first seen.
        plane: float64 [3, 3], columns: x axis, y axis, origin of the sprite's plane in the world.
        reach: radius around the origin beyond which the sprite is empty, world units.
        caster: the actor whose shadow this is, or None.
    """

    paint: Callable[[], Sprite]
    plane: np.ndarray
    reach: float
    caster: "Actor | None" = None
    _sprite: Sprite | None = None

    @property
    def sprite(self) -> Sprite:
        """The painted sprite."""
        if self._sprite is None:
            self._sprite = self.paint()
        return self._sprite


@dataclasses.dataclass(frozen=True)
class Actor:
    """An articulated body on an upright plane that moves through the world.

    Attributes:
        body: the parts and their motion.
        sprites: the painted parts; None for a bare joint.
        position: place at time `reference`, world units [3].
        velocity: world units per frame [3].
        wander: amplitude of a slow sway about the straight path, world units [3].
        reference: frames.
        scale: world units per body unit.
        mirror: horizontal factor: -1 faces left; less than 1 in size is seen at an angle.
        halt: time at which it stops, frames; +inf never.
        start: time at which it starts, frames; -inf has always moved.
        gait: limb cycles per frame.
        phase: limb cycles at time 0.
        articulation: factor on the joints' swings.
        deformation: factor on the bending waves.
        rocking: amplitude of rocking in its plane, radians.
        primary: an object of the mask; else a moving distractor.
    """

    body: Body
    sprites: list[Sprite | None]
    position: np.ndarray
    velocity: np.ndarray
    wander: np.ndarray
    reference: float
    scale: float
    mirror: float
    halt: float
    start: float
    gait: float
    phase: float
    articulation: float
    deformation: float
    rocking: float
    primary: bool = True

    def clock(self, time: float) -> float:
        """Returns the actor's own time: it stands still before `start` and after `halt`."""
        # Speeds up and slows down over about two frames.
        if np.isfinite(self.halt):
            time = self.halt - 2 * np.logaddexp(0, (self.halt - time) / 2)
        if np.isfinite(self.start):
            time = self.start + 2 * np.logaddexp(0, (time - self.start) / 2)
        return float(time)

    def cycles(self, time: float) -> float:
        """Returns the gait cycles done at `time`."""
        return self.phase + self.gait * self.clock(time)

    def location(self, time: float) -> np.ndarray:
        """Returns the body's origin in the world at `time`, [3]."""
        elapsed = self.clock(time) - self.clock(self.reference)
        sway = np.sin(2 * np.pi * (0.4 * self.gait * elapsed))
        return self.position + self.velocity * elapsed + self.wander * sway

    def plane(self, time: float) -> np.ndarray:
        """Returns the body's plane in the world, [3, 3]: x axis, y axis, origin."""
        tilt = self.rocking * np.sin(2 * np.pi * 0.6 * self.cycles(time))
        c, s = self.scale * np.cos(tilt), self.scale * np.sin(tilt)
        axes = np.array([[self.mirror * c, -self.mirror * s, 0], [s, c, 0], [0, 0, 0.0]])
        axes[:, 2] = self.location(time)
        return axes

    def frames(self, time: float) -> list[tuple[complex, complex]]:
        """Returns the posed parts at `time`; see `pose_body`."""
        elapsed = self.clock(time) - self.clock(self.reference)
        travel = float(np.hypot(self.velocity[0], self.velocity[2])) * elapsed / self.scale
        return pose_body(self.body, self.cycles(time), travel, self.articulation)


@dataclasses.dataclass(frozen=True)
class Wave:
    """A shear wave dy = slope * (x - start) * sin(waves * x + phase) in a part's own frame."""

    slope: float
    start: float
    waves: float
    phase: float

    def offset(self, x: np.ndarray) -> np.ndarray:
        """Returns dy at `x`."""
        return self.slope * (x - self.start) * np.sin(self.waves * x + self.phase)


@dataclasses.dataclass(frozen=True)
class Placement:
    """One surface at one time.

    Attributes:
        key: names the surface, the same at all times.
        surface: what it shows.
        to_image: float64 [3, 3] from the surface's plane to pixels; the third coordinate is depth.
        wave: bending of the plane before `to_image`, or None.
        primary: belongs to the mask.
        solid: hides what is behind it (a shadow only darkens it).
    """

    key: tuple[int, int]
    surface: Backdrop | Sprite
    to_image: np.ndarray
    wave: Wave | None = None
    primary: bool = False
    solid: bool = True


@dataclasses.dataclass(frozen=True)
class Scene:
    """Backdrops from far to near, standing things, actors, and the camera that sees them.

    The actors' first are the primary objects; the moving distractors follow.

    `hedges` are backdrops between which the standing things and actors are sorted by depth.
    """

    size: tuple[int, int]
    camera: Camera
    backdrops: list[Backdrop]
    hedges: list[Backdrop]
    stills: list[Still]
    actors: list[Actor]

    def place(self, time: float) -> list[Placement]:
        """Returns the surfaces at `time` in painter's order, far to near."""
        matrix, eye = self.camera.view(time)

        def seen(plane: np.ndarray) -> np.ndarray:
            shifted = plane.copy()
            shifted[:, 2] -= eye
            return matrix @ shifted

        placed = [Placement((0, index), backdrop, seen(_drifted(backdrop, time)))
                  for index, backdrop in enumerate(self.backdrops)]
        groups = [(hedge.plane[2, 2], [Placement((1, index), hedge, seen(hedge.plane))])
                  for index, hedge in enumerate(self.hedges)]
        for index, still in enumerate(self.stills):
            plane = still.plane
            if still.caster is not None:
                plane = plane.copy()
                plane[::2, 2] += still.caster.location(time)[::2]
            to_image = seen(plane)
            if self._visible(to_image, matrix, still.reach):
                placement = Placement((2, index), still.sprite, to_image,
                                      solid=still.caster is None)
                # A shadow lies under its actor, not over it.
                groups.append((plane[2, 2] + 0.01 * (still.caster is not None), [placement]))
        for index, actor in enumerate(self.actors):
            plane = actor.plane(time)
            groups.append((plane[2, 2], _place_actor(actor, seen(plane), 3 + index, time)))
        for _, group in sorted(groups, key=lambda item: -item[0]):
            placed += group
        return placed

    def _visible(self, to_image: np.ndarray, matrix: np.ndarray, reach: float) -> bool:
        x, y, depth = to_image[:, 2]
        if depth < 0.15:
            return False
        margin = reach * np.linalg.norm(matrix[0]) / depth
        return (-margin < x / depth < self.size[1] + margin
                and -margin < y / depth < self.size[0] + margin)


def _drifted(backdrop: Backdrop, time: float) -> np.ndarray:
    """Returns the backdrop's plane at `time`; nothing but its texture moves, since it has no ends along u."""
    plane = backdrop.plane.copy()
    plane[:, 2] += backdrop.drift * time * plane[:, 0]
    return plane


def _place_actor(actor: Actor, to_image: np.ndarray, group: int, time: float) -> list[Placement]:
    frames, cycles, parts = actor.frames(time), actor.cycles(time), actor.body.parts
    placed = []
    for index in sorted(range(len(parts)), key=lambda i: parts[i].layer):
        part, sprite = parts[index], actor.sprites[index]
        if sprite is None:
            continue
        wave = None
        if part.bend * actor.deformation:
            wave = Wave(part.bend * actor.deformation, part.bend_start,
                        2 * np.pi * part.bend_waves, 2 * np.pi * (part.phase - cycles))
        placed.append(Placement((group, index), sprite, to_image @ part_affine(*frames[index]),
                                wave, primary=actor.primary))
    return placed


def blurred_texture(texture: np.ndarray) -> np.ndarray:
    """Returns `texture` without the detail below four texels, at the same size."""
    return cv2.GaussianBlur(texture, (0, 0), 1.6)
