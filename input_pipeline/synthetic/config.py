"""Every factor of the procedural clips as one field, and the shifted domain used for evaluation."""

import dataclasses

from dattt_jax.errors import UserError
from input_pipeline.synthetic.bodies import DISTRACTOR_KINDS, OBJECT_KINDS
from input_pipeline.synthetic.textures import TEXTURE_FAMILIES

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Factors of a synthetic clip.

    A `(low, high)` pair is a range from which each clip draws, uniformly unless the comment says
    log-uniform; equal ends fix the factor and `(0, 0)` turns it off. A `*_probability` is the
    chance, per clip or per object, that the factor is present. Lengths in the image are fractions
    of the frame's width or height, so a config means the same motion at any `size`.

    Raises:
        UserError: a field is out of its range or names an unknown kind or family.
    """

    size: tuple[int, int] = (384, 384)  # (height, width) of the frames, pixels
    num_frames: int = 24  # frames of a clip

    # Primary objects: what the mask holds.
    object_counts: tuple[float, ...] = (0.75, 0.18, 0.07)  # weights of 1, 2, 3, ... objects
    # Body plans; one named twice is twice as likely. The default leans to what people film.
    object_kinds: tuple[str, ...] = (*OBJECT_KINDS, *OBJECT_KINDS[:4], *OBJECT_KINDS[:2])
    object_area: Range = (0.02, 0.6)  # silhouette area, fraction of the frame, log-uniform
    object_speed: Range = (0.003, 0.035)  # frame widths per frame over the ground, log-uniform
    object_approach: Range = (-0.006, 0.006)  # relative change of distance per frame
    object_offset: Range = (0.0, 0.25)  # distance from the frame's centre, frame widths
    object_aspect: Range = (0.6, 1.0)  # horizontal squeeze: an object seen from an angle
    object_rocking: Range = (0.0, 8.0)  # amplitude of rocking in the image plane, degrees
    gait_frequency: Range = (0.03, 0.12)  # limb cycles per frame
    articulation: Range = (0.3, 1.2)  # factor on the swing of every joint
    deformation: Range = (0.3, 1.2)  # factor on the bending waves of tails, fish, snakes, necks
    edge_roughness: Range = (0.0, 0.03)  # fur: outline noise, fraction of a part's thickness
    stop_probability: float = 0.12  # the object halts, limbs included, some time in the clip
    camouflage_probability: float = 0.15  # the object wears the texture of the background

    # Scene.
    ground_probability: float = 0.65  # a ground plane under a horizon; else a wall seen head-on
    horizon: Range = (-0.1, 0.5)  # row of the horizon in ground scenes, frame heights
    wall_depth: Range = (1.3, 6.0)  # depth of the far wall, in object depths, log-uniform
    wall_slant: Range = (-0.25, 0.25)  # depth gradient of a wall seen head-on, tan(slant)
    skyline_probability: float = 0.5  # the wall ends in a skyline with sky above
    midground_probability: float = 0.4  # a hedge-like layer between object and wall
    num_distractors: tuple[int, int] = (0, 6)  # static things, both ends included
    distractor_kinds: tuple[str, ...] = DISTRACTOR_KINDS  # their body plans
    distractor_lookalike_probability: float = 0.3  # one is a frozen body of an object kind
    occluder_probability: float = 0.3  # a static thing stands between camera and object
    # Static things nearer than the object, at its sides, both ends included: a camera that goes along moves
    # them most of all.
    num_nearer: tuple[int, int] = (0, 0)
    # What moves and is not the object.
    mover_probability: float = 0.4  # some of: plants swaying in the wind, small figures on their way
    num_movers: tuple[int, int] = (1, 5)  # of them, both ends included
    mover_size: Range = (0.1, 0.45)  # of a figure, relative to the first object; log-uniform
    drift_probability: float = 0.1  # the ground, or a wall that fills the view, flows past like water
    drift_speed: Range = (0.002, 0.015)  # frame widths per frame at the object
    shadow_probability: float = 0.5  # objects on a ground cast a shadow (not in the mask)
    shadow_strength: Range = (0.2, 0.6)  # light taken away in the shadow's core, 0..1

    # Camera. Rates are drawn as magnitudes; their directions are random.
    focal_length: Range = (0.8, 2.0)  # frame widths
    static_camera_probability: float = 0.12  # a tripod: none of the motions below
    tracking_probability: float = 0.6  # the camera follows the first object
    tracking_gain: Range = (0.75, 1.05)  # share of the object's image motion it cancels
    tracking_travel: Range = (0.0, 1.0)  # share followed by moving (parallax), rest by turning
    camera_pan: Range = (0.0, 0.010)  # turning, frame widths per frame
    camera_travel: Range = (0.0, 0.010)  # sideways motion, frame widths per frame at the object
    camera_dolly: Range = (0.0, 0.006)  # forward motion, object depths per frame
    camera_roll: Range = (0.0, 0.4)  # degrees per frame
    camera_zoom: Range = (0.0, 0.006)  # relative change of the focal length per frame
    camera_shake: Range = (0.0, 0.004)  # amplitude of hand shake, frame widths

    # Textures.
    texture_families: tuple[str, ...] = TEXTURE_FAMILIES[:7]  # see textures.TEXTURE_FAMILIES
    texture_pool: int = 10  # distinct patterns kept per family, before recolouring and mixing
    texture_scale: Range = (0.6, 2.0)  # pixels per texel, log-uniform
    texture_mix_probability: float = 0.4  # two patterns in patches instead of one
    brightness: Range = (50.0, 190.0)  # mean of a texture, 0..255
    contrast: Range = (8.0, 55.0)  # standard deviation of a texture's lightness, 0..255
    saturation: Range = (0.0, 0.6)  # of a texture's mean colour, HSV, 0..1

    # Image formation.
    motion_blur_probability: float = 0.25
    shutter: Range = (0.2, 0.8)  # exposure time, frames
    motion_blur_samples: int = 7  # most instants averaged; fast scenes cost that many renderings
    background_defocus: Range = (0.0, 0.004)  # blur sigma behind the object, frame heights
    defocus: Range = (0.0, 0.002)  # blur sigma of the whole frame, frame heights
    haze: Range = (0.0, 0.12)  # extinction per object depth
    exposure: Range = (-0.5, 0.5)  # exposure value (log2 gain)
    exposure_change: Range = (-0.01, 0.01)  # exposure value per frame
    gamma: Range = (0.8, 1.25)  # of the tone curve
    colour_cast: Range = (0.0, 0.08)  # relative gain difference between channels
    noise_std: Range = (0.0, 6.0)  # Gaussian noise, 0..255
    jpeg_probability: float = 0.4
    jpeg_quality: tuple[int, int] = (40, 95)  # libjpeg quality, 1..100
    # Black bars, a logo or a line of text stands still in the image; what bars hide is not in the mask.
    graphics_probability: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # JSON has no tuples
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            if field.name.endswith("_probability") and not 0 <= value <= 1:
                raise UserError(f"synthetic.{field.name}={value}: give a probability in 0..1")
            if _is_range(field) and (len(value) != 2 or value[0] > value[1]):
                raise UserError(f"synthetic.{field.name}={value}: give (low, high), low <= high")
        _check_names("object_kinds", self.object_kinds, OBJECT_KINDS)
        _check_names("distractor_kinds", self.distractor_kinds, DISTRACTOR_KINDS)
        _check_names("texture_families", self.texture_families, TEXTURE_FAMILIES)
        if len(self.size) != 2 or min(self.size) < 16:
            raise UserError(f"synthetic.size={self.size}: give (height, width), 16 or more each")
        for name in ("num_frames", "texture_pool", "motion_blur_samples"):
            if getattr(self, name) < 1:
                raise UserError(f"synthetic.{name}={getattr(self, name)}: give 1 or more")
        for name in ("object_area", "object_speed", "wall_depth", "texture_scale", "focal_length"):
            if getattr(self, name)[0] <= 0:
                raise UserError(f"synthetic.{name}={getattr(self, name)}: give a low above 0")
        if min(self.object_counts, default=-1) < 0 or sum(self.object_counts) <= 0:
            raise UserError(f"synthetic.object_counts={self.object_counts}: give weights >= 0")


def _is_range(field: dataclasses.Field) -> bool:
    return field.type in (Range, tuple[int, int]) and field.name != "size"


def _check_names(field: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        raise UserError(f"synthetic.{field}: unknown or none {unknown}; choose from {list(known)}")


def shifted(config: SyntheticConfig) -> SyntheticConfig:
    """Returns `config` moved to a shifted appearance: dark, hazy, noisy, blurred, other textures.

    Shapes, motions and cameras keep their ranges, so what a held-out clip of this domain adds over
    one of `config` is the shift of appearance alone: the gap that test-time training is to close.
    """
    return dataclasses.replace(
        config,
        texture_families=TEXTURE_FAMILIES[7:],  # patterns that the default domain never shows
        brightness=(60.0, 150.0),
        contrast=(12.0, 40.0),
        saturation=(0.0, 0.9),
        exposure=(-1.2, -0.5),
        gamma=(0.9, 1.3),
        colour_cast=(0.08, 0.3),
        haze=(0.1, 0.35),
        defocus=(0.001, 0.004),
        noise_std=(5.0, 10.0),
        jpeg_probability=0.8,
        jpeg_quality=(30, 60),
    )
