"""Body plans: articulated creatures and vehicles as trees of parts, with random proportions.

A body is described in body units (about 1 long or high), x forwards and y down. Its parts swing,
roll and bend as closed-form functions of time, so any instant can be rendered without the ones
before it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from input_pipeline.synthetic import outlines


@dataclasses.dataclass(frozen=True)
class Part:
    """One rigid or bending part of a body.

    Its frame is turned by `angle + swing * sin(2 pi (cycles + phase)) + roll * travel`, where
    `cycles` counts gait cycles and `travel` is the way covered in body units. Within its frame a
    point (x, y) is displaced by `dy = bend * (x - bend_start) * sin(2 pi (bend_waves * x - cycles
    + phase))`; that shear has an exact inverse, which keeps the flow exact.
    """

    contours: list[np.ndarray]  # outlines [N, 2], filled even-odd; none: a bare joint
    parent: int  # index of the parent part, -1 for the body itself
    joint: complex  # x + iy of the joint in the parent's frame
    angle: float = 0.0  # rest direction, radians, +pi/2 hangs down
    swing: float = 0.0  # amplitude, radians
    phase: float = 0.0  # gait cycles
    roll: float = 0.0  # radians per body unit travelled: wheels
    bend: float = 0.0  # slope of the bending wave's envelope
    bend_waves: float = 0.0  # waves per body unit
    bend_start: float = 0.0  # where the envelope is zero, body units
    layer: int = 0  # painter's order within the body, low is far
    shade: float = 1.0  # brightness factor
    material: int = 0  # which of the body's textures


@dataclasses.dataclass(frozen=True)
class Body:
    """A tree of parts, parents before children, and how the body moves as a whole."""

    parts: list[Part]
    grounded: bool  # stands on the ground when there is one
    upright: bool  # walks or rolls forwards: its motion is mostly along its own x axis


class _Builder:
    """Collects parts; `add` returns the new part's index for use as a parent."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def add(self, contours: np.ndarray | list[np.ndarray], parent: int = -1, joint: complex = 0,
            **fields: float) -> int:
        contours = contours if isinstance(contours, list) else [contours]
        self.parts.append(Part(contours, parent, joint, **fields))
        return len(self.parts) - 1

    def leg(self, parent: int, joint: complex, angle: float, lengths: tuple[float, float],
            thickness: float, swing: float, phase: float, knee: float, *, foot: float = 0.0,
            **fields: float) -> None:
        """Two segments and a foot; the lower one lags and stays bent towards `knee` radians."""
        thigh = self.add(outlines.limb(lengths[0], thickness, 0.75 * thickness), parent, joint,
                         angle=angle, swing=swing, phase=phase, **fields)
        shin = self.add(outlines.limb(lengths[1], 0.75 * thickness, 0.5 * thickness), thigh,
                        lengths[0], angle=knee, swing=0.8 * knee, phase=phase + 0.2, **fields)
        if foot > 0:
            self.add(outlines.limb(foot, 0.55 * thickness, 0.4 * thickness), shin, lengths[1],
                     angle=-np.pi / 2, **(fields | {"material": 2}))


def _quadruped(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    height, legs, leg_width = u(0.22, 0.5), u(0.22, 0.75), u(0.06, 0.16)
    thickness = height * np.array([0.5, 0.95, 1.0, u(0.7, 1.0), u(0.85, 1.1), u(0.7, 0.95), 0.5])
    torso = b.add(outlines.spine(1.0, thickness), layer=2, swing=u(0, 0.08), phase=u(0, 1))
    swing, knee, material = u(0.3, 0.7), u(0.15, 0.6), int(rng.integers(2))
    # Trot: diagonal pairs; gallop: front pair against hind pair.
    phases = ((0, 0.5, 0.5, 0) if rng.random() < 0.6 else (0, 0.1, 0.5, 0.6))
    for far in (0, 1):
        for hind in (0, 1):
            x = (-0.36 if hind else 0.36) + 0.03 * far
            b.leg(torso, complex(x, 0.2 * height), np.pi / 2 + (0.1 if hind else -0.1),
                  (0.5 * legs + 0.15 * height, 0.5 * legs), leg_width * (1.25 if hind else 1),
                  swing, phases[2 * far + hind], knee if hind else -knee * 0.7, foot=leg_width * 0.7,
                  layer=1 - far if far else 3, shade=0.65 if far else 1.0, material=material)
    neck_length, neck_width = u(0.05, 0.6), u(0.16, 0.34) * (0.5 + height)
    neck_angle = -u(0.1, 1.3)
    neck = b.add(outlines.limb(neck_length, 1.3 * neck_width, 0.8 * neck_width), torso,
                 complex(0.42, -0.2 * height), angle=neck_angle, swing=u(0, 0.25), phase=u(0, 1),
                 layer=2)
    size = u(0.09, 0.16)
    head = b.add(outlines.blob(rng, 1.2 * size, size, 0.06), neck, neck_length + 0.5 * size,
                 angle=-neck_angle + u(-0.1, 0.5), swing=u(0, 0.15), phase=u(0, 1), layer=3)
    b.add(outlines.limb(u(0.6, 1.8) * size, 1.2 * size, 0.7 * size), head, complex(0.5 * size, 0.2 * size),
          layer=3)
    for far in (0, 1):  # ears or horns
        b.add(outlines.limb(u(0.6, 1.6) * size, 0.6 * size, 0.15 * size), head,
              complex(-0.4 * size, -0.6 * size), angle=-np.pi / 2 - u(-0.4, 0.8), swing=0.15,
              layer=4 - 3 * far, shade=1 - 0.3 * far, material=int(rng.integers(3)))
    b.add(outlines.limb(u(0.15, 0.7), u(0.04, 0.14), u(0.02, 0.1)), torso,
          complex(-0.47, -0.25 * height), angle=np.pi - u(-0.7, 0.9), swing=u(0.1, 0.6),
          bend=u(0, 0.3), bend_waves=1.0, layer=1)
    return Body(b.parts, True, True)


def _add_person(b: _Builder, rng: np.random.Generator, parent: int, hip: complex, lean: float,
                stride: float, *, seated: bool = False) -> None:
    """Adds a person about 1.75 high, hip at `hip`; `seated` legs pedal or rest."""
    u = rng.uniform
    width, length, swing = u(0.2, 0.36), u(0.42, 0.55), stride * u(0.4, 0.9)
    torso = b.add(outlines.limb(length, 0.85 * width, u(0.9, 1.2) * width), parent, hip,
                  angle=-np.pi / 2 + lean, swing=u(0, 0.06), phase=u(0, 1), layer=4, material=1)
    neck = b.add(outlines.limb(0.1, 0.1, 0.1), torso, length + 0.12, layer=3, material=2)
    head = b.add(outlines.ellipse(u(0.11, 0.15), u(0.09, 0.13)), neck, 0.16, angle=-0.7 * lean,
                 swing=0.06, layer=5, material=2)
    if rng.random() < 0.6:  # hair, hat or helmet
        b.add(outlines.blob(rng, 0.1, u(0.12, 0.17), 0.08), head, complex(0.06, -0.03), layer=6,
              shade=u(0.3, 0.9), material=int(rng.integers(3)))
    sleeve, arm_width, leg_width = int(rng.integers(1, 3)), u(0.08, 0.14), u(0.12, 0.2)
    reach = np.pi - lean - (u(0.5, 1.1) if seated else u(-0.3, 0.4))
    for far in (0, 1):
        shade = 0.7 if far else 1.0
        b.leg(torso, complex(length, 0), reach, (u(0.28, 0.34), u(0.26, 0.32)), arm_width,
              0.1 if seated else swing, 0.5 * far + 0.5, -u(0.1, 0.9), material=sleeve,
              layer=2 if far else 7, shade=shade)
        b.leg(parent, hip, np.pi / 2 - (u(0.5, 1.0) if seated else 0),
              (u(0.4, 0.48), u(0.4, 0.46)), leg_width, swing, 0.5 * far,
              u(0.6, 1.0) if seated else u(0.15, 0.6), foot=0.12, layer=1 if far else 3, shade=shade)


def _person(rng: np.random.Generator) -> Body:
    b = _Builder()
    pelvis = b.add(outlines.ellipse(0.13, 0.11), swing=0.04, layer=3)
    _add_person(b, rng, pelvis, 0j, rng.uniform(-0.1, 0.35), rng.choice([0.4, 1.0]))
    return Body(b.parts, True, True)


def _two_wheeler(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    radius, half, thick = u(0.24, 0.34), u(0.42, 0.58), u(0.05, 0.12)
    root = b.add([], swing=0.03)
    for x in (-half, half):
        b.add(outlines.wheel(rng, radius), root, complex(x, 0), roll=1 / radius, layer=1, shade=0.6,
              material=2)
    bars = [(-half, 0, 0, -0.05), (0, 0, half - 0.15, -0.45), (half, 0, half - 0.15, -0.55),
            (0, 0, -0.15, -0.5), (-half, 0, -0.15, -0.45), (-0.15, -0.45, half - 0.15, -0.45)]
    for x0, y0, x1, y1 in bars:
        way = complex(x1 - x0, y1 - y0)
        b.add(outlines.limb(abs(way), thick, thick), root, complex(x0, y0),
              angle=float(np.angle(way)), layer=2, material=1)
    if rng.random() < 0.5:  # an engine and a tank: a motorcycle
        b.add(outlines.blob(rng, u(0.2, 0.4), u(0.12, 0.25), 0.1), root, complex(0, -0.25), layer=3,
              material=1)
    _add_person(b, rng, root, complex(-0.15, -0.5), u(0.2, 0.9), 0.6, seated=True)
    return Body(b.parts, True, True)


def _car(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    height, roof, radius = u(0.2, 0.34), u(0.14, 0.34), u(0.085, 0.13)
    front, back = u(0.05, 0.35), u(-0.48, -0.25)
    hull = b.add(outlines.polygon((-0.5, 0), (-0.5, -0.8 * height), (-0.47, -height),
                                  (front + 0.1, -height), (0.46, -u(0.6, 0.95) * height),
                                  (0.5, -0.4 * height), (0.5, 0)), swing=0.01, layer=2)
    cabin = outlines.polygon((back - 0.05, -height + 0.01), (back + u(0, 0.12), -height - roof),
                             (front - u(0, 0.2), -height - roof), (front + 0.1, -height + 0.01))
    b.add(cabin, hull, layer=2)
    centre = np.array([(back + front) / 2, -height - 0.45 * roof], np.float32)
    glass = (cabin - cabin.mean(0)) * (0.85, 0.7) + centre
    for part in (-1, 1):
        pane = glass.copy()
        pane[:, 0] = np.clip(part * pane[:, 0], part * centre[0] + 0.015, None) * part
        b.add(pane.astype(np.float32), hull, layer=3, shade=0.5, material=1)
    b.add(outlines.polygon((-0.5, -0.3 * height), (0.5, -0.3 * height), (0.5, -0.2 * height),
                           (-0.5, -0.2 * height)), hull, layer=3, shade=0.6, material=2)
    for x in (-u(0.25, 0.34), u(0.25, 0.34)):
        b.add(outlines.ellipse(1.15 * radius, 1.15 * radius), hull, complex(x, -0.02), layer=3,
              shade=0.25, material=2)
        b.add(outlines.wheel(rng, radius), hull, complex(x, 0), roll=1 / radius, layer=4,
              shade=0.7, material=2)
    return Body(b.parts, True, True)


def _bird(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    height = u(0.16, 0.34)
    torso = b.add(outlines.spine(0.7, height * np.array([0.2, 0.6, 1.0, 1.0, 0.6])), layer=2,
                  swing=0.06, angle=-u(0, 0.3))
    b.add(outlines.polygon((0, -0.04), (u(0.15, 0.4), -0.12), (u(0.15, 0.4), 0.12), (0, 0.04)),
          torso, -0.32 + 0j, angle=np.pi + u(-0.2, 0.2), swing=0.15, layer=1, material=1)
    for far in (0, 1):
        inner, chord, tip = u(0.25, 0.5), u(0.14, 0.3), u(0.25, 0.55)
        fields = {"layer": 0 if far else 4, "shade": 0.7 if far else 1.0, "material": 1}
        arm = b.add(outlines.limb(inner, chord, chord), torso, complex(0.05, -0.3 * height),
                    angle=-np.pi / 2 - u(-0.3, 0.6), swing=u(0.4, 0.9), phase=0.03 * far, **fields)
        b.add(outlines.polygon((0, -chord / 2), (tip, -0.1), (tip, 0), (0, chord / 2)), arm, inner,
              angle=-u(0, 0.5), swing=u(0.2, 0.6), phase=-0.15, **fields)
    _add_bird_head(b, rng, torso, complex(0.3, -0.1 * height), u(0.05, 0.3))
    return Body(b.parts, False, True)


def _add_bird_head(b: _Builder, rng: np.random.Generator, torso: int, joint: complex,
                   neck_length: float) -> None:
    u, angle = rng.uniform, -rng.uniform(0.1, 1.3)
    lower = b.add(outlines.limb(neck_length, 0.12, 0.08), torso, joint, angle=angle,
                  swing=u(0.05, 0.25), layer=2)
    upper = b.add(outlines.limb(neck_length, 0.08, 0.07), lower, neck_length, angle=u(-0.5, 0.5),
                  swing=u(0.05, 0.25), phase=0.3, layer=2)
    head = b.add(outlines.ellipse(0.1, 0.075), upper, neck_length + 0.03, angle=-angle, layer=3)
    b.add(outlines.limb(u(0.08, 0.25), 0.06, 0.015), head, 0.07 + 0.01j, layer=3, material=2)


def _wader(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    height, legs = u(0.25, 0.45), u(0.2, 0.9)
    root = b.add([], swing=0.03)
    torso = b.add(outlines.spine(0.75, height * np.array([0.1, 0.5, 0.9, 1.0, 0.7])), root, layer=2,
                  angle=-u(0, 0.5), swing=0.05)
    b.add(outlines.spine(0.6, 0.7 * height * np.array([0.1, 0.5, 0.9, 0.6])), torso,
          complex(-0.1, -0.1 * height), layer=3, swing=0.04, material=1)
    for far in (0, 1):
        b.leg(root, complex(0, 0.3 * height), np.pi / 2, (legs / 2, legs / 2), u(0.05, 0.1),
              u(0.3, 0.7), 0.5 * far, u(0.1, 0.7), foot=0.1, layer=1, shade=0.7 if far else 1.0, material=2)
    _add_bird_head(b, rng, torso, complex(0.32, -0.2 * height), u(0.08, 0.45))
    return Body(b.parts, True, True)


def _fish(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    height = u(0.16, 0.5)
    profile = height * np.array([0.12, 0.2, 0.6, 0.9, 1.0, 0.9, 0.6, 0.15])
    waves, bend = -u(0.3, 0.9), u(0.1, 0.3)
    wave = {"bend": bend, "bend_waves": waves, "bend_start": 0.5}
    torso = b.add(outlines.spine(1.0, profile), layer=2, **wave)
    b.add(outlines.polygon((-0.45, 0), (-0.75, -u(0.12, 0.3)), (-0.68, 0), (-0.75, u(0.12, 0.3))),
          torso, layer=1, material=1, **wave)
    b.add(outlines.polygon((-0.2, -0.4 * height), (-0.1, -u(0.6, 0.9) * height),
                           (0.2, -0.45 * height)), torso, layer=1, material=1, **wave)
    b.add(outlines.limb(u(0.15, 0.4), 0.14, 0.05), torso, complex(0.15, 0.2 * height),
          angle=u(1.6, 2.4), swing=u(0.2, 0.6), layer=3, material=1)
    return Body(b.parts, False, True)


def _snake(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    thickness = u(0.05, 0.13) * np.array([0.2, 0.6, 0.9] + [1.0] * 25 + [0.8, 0.7, 1.1, 1.1, 0.5])
    b.add(outlines.spine(1.6, thickness), bend=u(0.08, 0.2), bend_waves=u(0.8, 1.6),
          bend_start=1.2)
    return Body(b.parts, True, True)


def _boat(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    depth = u(0.1, 0.24)
    hull = b.add(outlines.polygon((-0.5, -depth), (0.6, -depth * u(1, 1.6)), (0.4, 0), (-0.42, 0)),
                 swing=0.06, layer=2)
    if rng.random() < 0.6:
        top = -u(0.8, 1.4)
        b.add(outlines.polygon((0.03, -depth), (0, top), (-0.03, -depth)), hull, layer=1)
        b.add(outlines.polygon((0.06, -1.2 * depth), (0.02, top), (u(0.3, 0.5), -1.2 * depth)), hull,
              layer=2, material=1)
        b.add(outlines.polygon((-0.05, -1.2 * depth), (-0.02, 0.9 * top), (-u(0.25, 0.4), -1.2 * depth)),
              hull, layer=2, material=int(rng.integers(3)))
    else:
        b.add(outlines.polygon((-0.3, -depth), (-0.25, -depth - u(0.1, 0.3)), (u(-0.1, 0.2), -2 * depth),
                               (0.2, -depth)), hull, layer=3, material=2)
        _add_person(b, rng, hull, complex(u(-0.2, 0.2), -1.3 * depth), u(-0.2, 0.4), 0.4, seated=True)
    return Body(b.parts, True, True)


def _plane(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    hull = b.add(outlines.spine(1.2, u(0.12, 0.2) * np.array([0.2, 0.7, 1, 1, 1, 1, 0.9, 0.4])),
                 swing=0.05, angle=-u(-0.1, 0.4), layer=2)
    b.add(outlines.polygon((-0.45, 0), (-0.65, -u(0.2, 0.35)), (-0.5, -0.3), (-0.3, 0)), hull, layer=1,
          material=1)
    for far in (0, 1):
        reach = u(0.3, 0.7) * (-0.5 if far else 1)
        b.add(outlines.polygon((0.15, 0), (-0.15, reach), (-0.3, reach), (-0.12, 0)), hull,
              layer=1 if far else 3, shade=0.7 if far else 0.9, material=1)
    b.add(outlines.wheel(rng, u(0.08, 0.2)), hull, 0.6 + 0j, roll=u(5, 20), layer=3, material=2)
    return Body(b.parts, False, True)


def _blob(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    width, height = u(0.3, 0.5), u(0.2, 0.5)
    root = b.add(outlines.blob(rng, width, height, u(0.05, 0.3)), swing=u(0, 0.5), layer=1,
                 bend=u(0, 0.25), bend_waves=u(0.3, 1.0))
    for _ in range(rng.integers(0, 4)):
        angle = u(0, 2 * np.pi)
        b.add(outlines.blob(rng, u(0.1, 0.3), u(0.1, 0.3), u(0.05, 0.3)), root,
              complex(width * np.cos(angle), height * np.sin(angle)), swing=u(0, 0.8), phase=u(0, 1),
              angle=angle, layer=int(rng.integers(3)), material=int(rng.integers(3)))
    return Body(b.parts, False, False)


def _hydra(rng: np.random.Generator) -> Body:
    """A random tree of limbs: whatever the other plans do not cover."""
    b, u = _Builder(), rng.uniform
    root = b.add(outlines.blob(rng, u(0.2, 0.45), u(0.15, 0.35), 0.12), layer=3, swing=u(0, 0.2))
    for _ in range(rng.integers(2, 8)):
        parent, angle = root, u(0, 2 * np.pi)
        joint, width = 0.2 * np.exp(1j * angle), u(0.05, 0.2)
        phase, swing = u(0, 1), u(0.1, 0.7)
        for _ in range(rng.integers(1, 4)):
            length = u(0.15, 0.45)
            fields = {"layer": int(rng.integers(6)), "shade": u(0.6, 1.1)}
            parent = b.add(outlines.limb(length, width, 0.7 * width), parent, joint, angle=angle,
                           swing=swing, phase=phase, material=int(rng.integers(3)), **fields)
            joint, width, angle, phase = length, 0.7 * width, u(-0.8, 0.8), phase - 0.15
    return Body(b.parts, False, False)


def _tree(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    trunk = b.add(outlines.limb(u(0.5, 1.1), u(0.06, 0.18), 0.05), angle=-np.pi / 2, layer=1)
    for _ in range(rng.integers(1, 5)):
        b.add(outlines.blob(rng, u(0.2, 0.4), u(0.2, 0.4), 0.2), trunk,
              complex(u(0.4, 1.0), u(-0.25, 0.25)), layer=int(rng.integers(3)), material=1,
              shade=u(0.7, 1.1))
    return Body(b.parts, True, False)


def _pole(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    pole = b.add(outlines.limb(1.2, u(0.03, 0.12), u(0.03, 0.1)), angle=-np.pi / 2)
    if rng.random() < 0.5:  # a sign, a lamp, a second bar
        b.add(outlines.blob(rng, u(0.05, 0.2), u(0.05, 0.25), 0.1), pole, complex(u(0.7, 1.2), 0),
              layer=1, material=1)
    return Body(b.parts, True, False)


def _rock(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    for _ in range(rng.integers(1, 4)):
        b.add(outlines.blob(rng, u(0.15, 0.4), u(0.1, 0.35), 0.15), -1, complex(u(-0.4, 0.4), u(0, 0.1)),
              shade=u(0.7, 1.1), material=int(rng.integers(2)))
    return Body(b.parts, True, False)


def _box(rng: np.random.Generator) -> Body:
    b, u = _Builder(), rng.uniform
    for _ in range(rng.integers(1, 4)):
        x, width, height = u(-0.4, 0.4), u(0.1, 0.4), u(0.2, 0.9)
        b.add(outlines.polygon((x - width, 0), (x - width, -height), (x + width, -height), (x + width, 0)),
              shade=u(0.6, 1.1), material=int(rng.integers(3)))
    return Body(b.parts, True, False)


def _plant(rng: np.random.Generator) -> Body:
    """A tuft of blades or twigs that sway about their feet: grass, reeds, a bush in the wind."""
    b, u = _Builder(), rng.uniform
    width, leaves, phase = u(0.1, 0.6), rng.random() < 0.5, u(0, 1)
    for _ in range(rng.integers(4, 12)):
        x, length = u(-width, width), u(0.4, 1.1)
        blade = b.add(outlines.limb(length, u(0.02, 0.09), 0.015), -1, complex(x, 0),
                      angle=-np.pi / 2 + 0.6 * x + u(-0.2, 0.2), swing=u(0.03, 0.25),
                      phase=phase + 0.3 * x + u(-0.1, 0.1), layer=int(rng.integers(6)), shade=u(0.7, 1.1))
        if leaves:
            b.add(outlines.blob(rng, u(0.08, 0.25), u(0.05, 0.15), 0.15), blade,
                  complex(u(0.5, 1) * length, 0), angle=u(-0.8, 0.8), swing=u(0, 0.3),
                  phase=phase + u(-0.2, 0.2), layer=int(rng.integers(6)), shade=u(0.7, 1.1), material=1)
    return Body(b.parts, True, False)


_PLANS: dict[str, Callable[[np.random.Generator], Body]] = {
    "quadruped": _quadruped, "person": _person, "two_wheeler": _two_wheeler, "car": _car,
    "bird": _bird, "wader": _wader, "fish": _fish, "snake": _snake, "boat": _boat,
    "plane": _plane, "blob": _blob, "hydra": _hydra,
}
_STATIC_PLANS: dict[str, Callable[[np.random.Generator], Body]] = {
    "tree": _tree, "pole": _pole, "rock": _rock, "box": _box,
}
_SWAYING_PLANS: dict[str, Callable[[np.random.Generator], Body]] = {"plant": _plant}
OBJECT_KINDS = tuple(_PLANS)
DISTRACTOR_KINDS = tuple(_STATIC_PLANS)
SWAYING_KINDS = tuple(_SWAYING_PLANS)


def create_body(kind: str, rng: np.random.Generator) -> Body:
    """Returns a body of `kind` (of OBJECT_KINDS, DISTRACTOR_KINDS or SWAYING_KINDS) of random proportions."""
    return (_PLANS | _STATIC_PLANS | _SWAYING_PLANS)[kind](rng)


def pose_body(body: Body, cycles: float, travel: float,
              articulation: float) -> list[tuple[complex, complex]]:
    """Returns (position, rotation) of each part in the body's frame, as complex numbers.

    A point p of a part, as x + iy in the part's frame, lies at `position + rotation * p`.

    Args:
        body: the body.
        cycles: gait cycles since the start.
        travel: way covered, body units.
        articulation: factor on every swing.
    """
    frames: list[tuple[complex, complex]] = []
    for part in body.parts:
        angle = part.angle + part.roll * travel
        angle += articulation * part.swing * np.sin(2 * np.pi * (cycles + part.phase))
        position, rotation = frames[part.parent] if part.parent >= 0 else (0j, 1 + 0j)
        frames.append((position + rotation * part.joint, rotation * np.exp(1j * angle)))
    return frames
