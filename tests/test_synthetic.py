import dataclasses
import hashlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from dattt_jax.errors import UserError
from input_pipeline.flow import create_flow, flow_to_rgb
from input_pipeline.synthetic import (
    SyntheticConfig,
    SyntheticTrainSource,
    SyntheticVideos,
    generate_clip,
    shifted,
)
from input_pipeline.synthetic.bodies import DISTRACTOR_KINDS, OBJECT_KINDS, create_body, pose_body
from input_pipeline.synthetic.build import build_scene
from input_pipeline.synthetic.camera import Camera
from input_pipeline.synthetic.clip import ClipRenderer
from input_pipeline.synthetic.effects import Effects, apply_effects
from input_pipeline.synthetic.render import render
from input_pipeline.synthetic.scene import Backdrop, Scene
from input_pipeline.synthetic.textures import TEXTURE_FAMILIES, pattern

# No effect of the camera: frames are the rendered surfaces themselves.
CLEAN = {"motion_blur_probability": 0.0, "background_defocus": (0, 0), "defocus": (0, 0),
         "haze": (0, 0), "exposure": (0, 0), "exposure_change": (0, 0), "gamma": (1, 1),
         "colour_cast": (0, 0), "noise_std": (0, 0), "jpeg_probability": 0.0,
         "shadow_probability": 0.0}
STILL_CAMERA = {"static_camera_probability": 1.0}
TINY = {"size": (48, 64), "num_frames": 3, "texture_pool": 1}


def warped(image, flow):
    """image sampled at x + flow(x), and where that lies inside the frame."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x, y = (columns + flow[..., 0]).astype(np.float32), (rows + flow[..., 1]).astype(np.float32)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR), inside


def pan_scene(shift):
    """A wall that moves by `shift` (dx, dy) whole pixels per frame under a travelling camera."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (64, 64, 4), dtype=np.uint8)
    focal, depth = 40.0, 2.0
    plane = np.array([[1, 0, 0], [0, 1, 0], [0, 0, depth]])
    # One texel is one pixel, texel centres on pixel centres.
    to_texel = np.array([[focal / depth, 0, 24.0], [0, focal / depth, 20.0], [0, 0, 1]])
    travel = -np.array([*shift, 0]) * depth / focal
    camera = Camera(focal, (16.0, 12.0), 0.0, (0, 0), travel, 0.0, 0.0, 0.0, (0, 0), None, 1, 0)
    return Scene((24, 32), camera, [Backdrop(texture, plane, to_texel)], [], [], []), texture


def test_whole_pixel_translation_is_exact():
    scene, texture = pan_scene((3, -2))
    now, following = render(scene, 0, next_time=1), render(scene, 1)
    np.testing.assert_array_equal(now.image, texture[8:32, 8:40, :3])
    np.testing.assert_allclose(now.flow, np.broadcast_to((3, -2), (24, 32, 2)), atol=1e-5)
    np.testing.assert_array_equal(now.image[2:, :-3], following.image[:-2, 3:])
    np.testing.assert_allclose(now.inverse_depth, 0.5, atol=1e-6)
    assert not now.mask.any()


def test_camera_turns_zooms_and_rolls_by_the_pinhole_model():
    def seen(point, **motion):
        fields = {"pan": (0, 0), "travel": np.zeros(3), "roll": 0.0, "zoom": 0.0} | motion
        camera = Camera(100.0, (50.0, 40.0), 0.0, shake=0.0, shake_phase=(0, 0), target=None,
                        gain=1.0, travel_share=0.0, **fields)
        matrix, eye = camera.view(1.0)
        x, y, depth = matrix @ (np.array(point) - eye)
        return x / depth, y / depth, depth

    assert seen((0, 0, 2)) == pytest.approx((50, 40, 2))
    assert seen((1, 0.5, 2)) == pytest.approx((100, 65, 2))
    assert seen((np.sin(0.3), 0, np.cos(0.3)), pan=(0.3, 0)) == pytest.approx((50, 40, 1))
    assert seen((0, np.sin(0.3), np.cos(0.3)), pan=(0, 0.3)) == pytest.approx((50, 40, 1))
    assert seen((1, 0, 2), roll=np.pi / 2) == pytest.approx((50, 90, 2))
    assert seen((1, 0, 2), zoom=np.log(1.2)) == pytest.approx((110, 40, 2))
    assert seen((1, 0, 2), travel=np.array([0.5, 0, 1])) == pytest.approx((100, 40, 1))


@pytest.mark.parametrize("travel_share", [0.0, 0.4, 1.0])
def test_a_tracking_camera_holds_its_target_still(travel_share):
    def target(time):
        return np.array([0.2 + 0.05 * time, 0.0, 1.0])

    camera = Camera(100.0, (50.0, 40.0), 1.0, (0, 0), np.array([0.01, 0, 0.0]), 0.0, 0.0, 0.0,
                    (0, 0), target, 1.0, travel_share)
    places = []
    for time in (1.0, 6.0):
        matrix, eye = camera.view(time)
        x, _, depth = matrix @ (target(time) - eye)
        places.append(x / depth)
    assert places[1] == pytest.approx(places[0], abs=1e-9)


@pytest.mark.parametrize("index", range(6))
def test_flow_carries_frame_and_mask_to_the_next(index):
    # Smooth surfaces: what warping then leaves is occlusion, not interpolation.
    config = SyntheticConfig(size=(96, 96), num_frames=3, texture_pool=1, contrast=(40, 40),
                             texture_families=("noise",), texture_scale=(2, 2),
                             texture_mix_probability=0.0, static_camera_probability=0.0,
                             camera_pan=(0.01, 0.02), skyline_probability=0.0, **CLEAN)
    clip = generate_clip(config, 11, index)
    for frame in range(2):
        image, inside = warped(clip.frames[frame + 1], clip.flow[frame])
        error = np.abs(image.astype(float) - clip.frames[frame]).mean(-1)[inside]
        still = np.abs(clip.frames[frame + 1].astype(float) - clip.frames[frame]).mean(-1)[inside]
        # The best four fifths of the frame: the rest may be occluded.
        kept = len(error) * 4 // 5
        assert np.sort(error)[:kept].mean() < 0.5 * np.sort(still)[:kept].mean()
        moved, _ = warped(clip.mask[frame + 1].astype(np.float32), clip.flow[frame])
        core = (cv2.erode(clip.mask[frame], np.ones((3, 3), np.uint8)) > 0) & inside
        assert moved[core].mean() > 0.85


@pytest.mark.parametrize("kind", ["fish", "snake"])
def test_flow_of_bending_bodies_is_exact(kind):
    config = SyntheticConfig(size=(128, 128), num_frames=4, texture_pool=1, object_kinds=(kind,),
                             object_area=(0.25, 0.25), object_offset=(0, 0), object_counts=(1.0,),
                             occluder_probability=0.0, deformation=(1.5, 1.5), contrast=(15, 15),
                             texture_families=("noise",), texture_mix_probability=0.0,
                             gait_frequency=(0.1, 0.1), camouflage_probability=0.0,
                             **STILL_CAMERA, **CLEAN)
    errors, stills = [], []
    for index in range(4):
        clip = generate_clip(config, 1, index)
        core = cv2.erode(clip.mask[1], np.ones((5, 5), np.uint8)) > 0
        image, inside = warped(clip.frames[2], clip.flow[1])
        for other, values in ((image, errors), (clip.frames[2], stills)):
            difference = np.abs(other.astype(float) - clip.frames[1]).mean(-1)
            values.append(difference[core & inside].mean())
    assert np.median(errors) < 0.4 * np.median(stills)


def test_only_the_object_moves_before_a_still_camera():
    config = SyntheticConfig(**TINY, **STILL_CAMERA, num_distractors=(3, 3), mover_probability=0.0,
                             drift_probability=0.0)
    for index in range(8):
        clip = generate_clip(config, 0, index)
        np.testing.assert_allclose(clip.flow[clip.mask == 0], 0, atol=1e-4)


def test_moving_distractors_move_and_are_not_in_the_mask():
    config = SyntheticConfig(**TINY, **STILL_CAMERA, mover_probability=1.0, drift_probability=0.0)
    moving = 0
    for index in range(8):
        actors = build_scene(config, np.random.default_rng(index)).actors
        primary = [actor.primary for actor in actors]
        assert primary == sorted(primary, reverse=True) and primary[0] and not primary[-1]
        clip = generate_clip(config, 0, index)
        moving += (np.abs(clip.flow[clip.mask == 0]) > 0.1).any()
    assert moving >= 5


def test_nearer_things_stand_at_the_sides_of_the_object():
    config = SyntheticConfig(**TINY, num_distractors=(0, 0), occluder_probability=0.0, num_nearer=(2, 4),
                             shadow_probability=0.0)
    for index in range(8):
        scene = build_scene(config, np.random.default_rng(index))
        things = [still.plane[:, 2] for still in scene.stills]
        assert 2 <= len(things) <= 4
        x, _, depth = np.array(things).T
        assert (depth < 0.95).all()  # the object is at 1
        aside = np.abs(x / depth - scene.actors[0].position[0]) * scene.camera.focal / config.size[1]
        assert (aside >= 0.2).all() and (aside <= 0.6).all()
        # Where none is asked for, the scene is the one that it was before there were any.
        none = build_scene(dataclasses.replace(config, num_nearer=(0, 0)), np.random.default_rng(index))
        assert not none.stills
        np.testing.assert_array_equal(none.actors[0].position, scene.actors[0].position)


def test_a_drifting_wall_flows_by_its_speed_and_stays_a_wall():
    scene, _ = pan_scene((0, 0))
    wall = dataclasses.replace(scene.backdrops[0], drift=3 * 2.0 / 40.0)  # 3 pixels at its depth
    drawn = render(dataclasses.replace(scene, backdrops=[wall]), 2.0, next_time=3.0)
    np.testing.assert_allclose(drawn.flow, np.broadcast_to([3.0, 0.0], drawn.flow.shape), atol=1e-5)
    np.testing.assert_allclose(drawn.inverse_depth, 0.5)
    still = render(scene, 2.0).image
    np.testing.assert_array_equal(drawn.image[:, 6:], still[:, :-6])  # two frames' way


def test_smaller_samples_are_the_frames_reduced():
    config = SyntheticConfig(**TINY)
    whole = SyntheticTrainSource(config, 4, 3, "dis")[1]
    smaller = dataclasses.replace(config, size=(24, 32))
    half = SyntheticTrainSource(smaller, 4, 3, "dis", render_scale=(2.0, 2.0))[1]
    for name in ("image", "flow", "depth"):  # bilinear at half the size: the mean of four pixels
        quarters = whole[name].reshape(24, 2, 32, 2, -1).mean((1, 3))
        np.testing.assert_allclose(half[name], quarters, atol=0.51 if name != "depth" else 1e-6)
    assert half["mask"].shape == (24, 32, 1) and set(np.unique(half["mask"])) <= {0, 1}
    assert half["mask"].mean() == pytest.approx(whole["mask"].mean(), abs=0.03)


def test_each_side_is_rendered_at_a_factor_of_its_own(monkeypatch):
    sizes = []

    class Recorded(ClipRenderer):
        def __init__(self, config, seed, index):
            sizes.append(config.size)
            super().__init__(config, seed, index)

    monkeypatch.setattr("input_pipeline.synthetic.source.ClipRenderer", Recorded)
    source = SyntheticTrainSource(SyntheticConfig(**TINY), 4, 12, "exact", render_scale=(1.0, 1.5))
    assert {source[index]["image"].shape for index in range(12)} == {(*TINY["size"], 3)}
    for factors in (np.array(sizes) / TINY["size"]).T:
        assert 1 <= factors.min() < 1.15 and 1.35 < factors.max() <= 1.51
    assert np.ptp([height / width for height, width in sizes]) > 0.2


def test_graphics_stand_still_and_leave_the_rest_of_the_clip_as_it_is():
    config = SyntheticConfig(**TINY | {"size": (96, 128)}, **CLEAN)
    printed = dataclasses.replace(config, graphics_probability=1.0)
    kinds = set()
    for index in range(8):
        renderer = ClipRenderer(printed, 4, index)
        graphics = renderer._effects.graphics
        plain, clip = generate_clip(config, 4, index), generate_clip(printed, 4, index)
        free, solid = graphics.opacity == 0, graphics.hidden
        assert 0.5 < free.mean() < 1
        np.testing.assert_array_equal(clip.frames[:, free], plain.frames[:, free])
        np.testing.assert_array_equal(clip.frames[:, solid], np.broadcast_to(
            graphics.colour[solid], clip.frames[:, solid].shape))
        for name in ("mask", "flow"):
            assert not getattr(clip, name)[:, solid].any()
            np.testing.assert_array_equal(getattr(clip, name)[:, ~solid], getattr(plain, name)[:, ~solid])
        kinds.add(bool(solid[0].all() or solid[-1].all() or solid[:, 0].all() or solid[:, -1].all()))
    assert kinds == {True, False}  # with bars and without


def test_motion_blur_keeps_the_labels_of_the_middle_instant():
    config = SyntheticConfig(**TINY, **CLEAN, object_speed=(0.1, 0.1), **STILL_CAMERA)
    blurred = dataclasses.replace(config, motion_blur_probability=1.0, shutter=(1, 1))
    sharp, smeared = generate_clip(config, 5, 1), generate_clip(blurred, 5, 1)
    for name in ("mask", "flow", "depth"):
        np.testing.assert_array_equal(getattr(sharp, name), getattr(smeared, name))
    changed = (sharp.frames != smeared.frames).any(-1)
    # Only where the object passes, and that reaches past its silhouette.
    assert changed[sharp.mask == 1].mean() > 0.2 > changed[sharp.mask == 0].mean() > 0


@pytest.mark.parametrize("kind", OBJECT_KINDS)
def test_every_kind_renders_and_shows_itself(kind):
    config = SyntheticConfig(**TINY, object_kinds=(kind,), occluder_probability=0.0,
                             object_area=(0.1, 0.1), object_offset=(0, 0), num_distractors=(0, 0))
    clips = [generate_clip(config, 2, index) for index in range(4)]
    assert 0.01 < np.mean([clip.mask.mean() for clip in clips]) < 0.3
    for clip in clips:
        assert clip.frames.shape == (3, 48, 64, 3) and clip.frames.dtype == np.uint8
        assert clip.mask.shape == (3, 48, 64) and clip.mask.dtype == np.uint8
        assert clip.flow.shape == (3, 48, 64, 2) and clip.flow.dtype == np.float32
        assert clip.depth.shape == (3, 48, 64) and clip.depth.dtype == np.float32
        assert set(np.unique(clip.mask)) <= {0, 1}
        assert np.isfinite(clip.flow).all()
        assert clip.depth.min() > 0
        np.testing.assert_array_equal(clip.depth.max((1, 2)), 1)


@pytest.mark.parametrize("kind", OBJECT_KINDS + DISTRACTOR_KINDS)
def test_parents_come_before_children_and_limbs_swing(kind):
    body = create_body(kind, np.random.default_rng(0))
    assert all(part.parent < index for index, part in enumerate(body.parts))
    rest, swung = pose_body(body, 0.0, 0.0, 1.0), pose_body(body, 0.25, 0.1, 1.0)
    assert (rest != swung) == (kind in OBJECT_KINDS and any(
        part.swing or part.roll for part in body.parts))


def test_a_halted_object_stands_still():
    config = SyntheticConfig(**TINY, stop_probability=1.0)
    actor = next(actor for seed in range(20)
                 for actor in build_scene(config, np.random.default_rng(seed)).actors
                 if np.isfinite(actor.halt))
    before = actor.location(actor.halt - 20) - actor.location(actor.halt - 19)
    after = actor.location(actor.halt + 41) - actor.location(actor.halt + 40)
    assert np.linalg.norm(after) < 1e-6 < np.linalg.norm(before)
    assert actor.cycles(actor.halt + 41) == pytest.approx(actor.cycles(actor.halt + 40))


def test_size_of_the_object_follows_its_field():
    def area(value):
        config = SyntheticConfig(**TINY, object_area=(value, value), occluder_probability=0.0,
                                 object_offset=(0, 0), object_counts=(1.0,),
                                 object_kinds=("car", "blob"))
        return np.mean([generate_clip(config, 0, index).mask[0].mean() for index in range(8)])

    assert area(0.03) == pytest.approx(0.03, rel=0.4)
    assert area(0.2) == pytest.approx(0.2, rel=0.4)


NO_EFFECTS = Effects(shutter=0, background_blur=0, blur=0, haze=0, airlight=np.array([200.0] * 3),
                     exposure=0, exposure_change=0, gamma=1, cast=np.ones(3), noise=0,
                     jpeg_quality=None, graphics=None)


def test_effects_have_closed_forms():
    image, rng = np.full((8, 8, 3), 100, np.uint8), np.random.default_rng(0)
    inverse_depth = np.full((8, 8), 0.5, np.float32)

    def value(frame=0, **fields):
        effects = dataclasses.replace(NO_EFFECTS, **fields)
        return apply_effects(effects, image, inverse_depth, frame, rng)[0, 0].tolist()

    assert value() == [100, 100, 100]
    assert value(exposure=1) == [200, 200, 200]
    assert value(frame=2, exposure_change=-0.5) == [50, 50, 50]
    assert value(cast=np.array([1.1, 1, 0.9])) == [110, 100, 90]
    assert value(gamma=2) == [round(255 * (100 / 255) ** 2)] * 3
    assert value(haze=0.5) == [round(200 - 100 * np.exp(-1.0))] * 3  # depth 2


def test_noise_has_the_asked_deviation():
    image, flat = np.full((64, 64, 3), 128, np.uint8), np.ones((64, 64), np.float32)
    noisy = apply_effects(dataclasses.replace(NO_EFFECTS, noise=5.0), image, flat, 0,
                          np.random.default_rng(0))
    assert noisy.std() == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize("family", TEXTURE_FAMILIES)
def test_patterns_are_normalised_and_have_fine_detail(family):
    image = pattern(family, 0).astype(float)
    assert image.mean() == pytest.approx(128, abs=6)
    assert 25 < image.std() < 45
    # Detail of a texel or two: without it the estimated flow is blurry.
    assert np.abs(np.diff(image, axis=1)).mean() > 2


def digest(clip):
    arrays = (clip.frames, clip.mask, clip.flow, clip.depth)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_clips_are_bit_identical_across_processes_and_differ_by_key():
    config = SyntheticConfig(**TINY)
    here = digest(generate_clip(config, 7, 3))
    generate_clip(config, 7, 5)
    assert digest(generate_clip(config, 7, 3)) == here
    assert len({here, digest(generate_clip(config, 8, 3)), digest(generate_clip(config, 7, 4))}) == 3
    code = ("from test_synthetic import *;"
            "print(digest(generate_clip(SyntheticConfig(**TINY), 7, 3)))")
    tests = Path(__file__).parent
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                             check=True, cwd=tests, env={"PYTHONPATH": f"{tests}:{tests.parent}"})
    assert process.stdout.strip() == here


def test_source_shows_a_frame_of_its_clip_with_its_labels():
    config = SyntheticConfig(**TINY)
    for index in range(3):
        clip = generate_clip(config, 4, index)
        sample = SyntheticTrainSource(config, 4, 3, "exact")[index]
        (frame,) = [t for t in range(3) if (clip.frames[t] == sample["image"]).all()]
        np.testing.assert_array_equal(sample["mask"][..., 0], clip.mask[frame])
        np.testing.assert_array_equal(sample["depth"][..., 0], clip.depth[frame])
        np.testing.assert_array_equal(sample["flow"], flow_to_rgb(clip.flow[frame]))
        assert [(key, value.shape, value.dtype) for key, value in sample.items()] == [
            ("image", (48, 64, 3), np.uint8), ("flow", (48, 64, 3), np.uint8),
            ("mask", (48, 64, 1), np.uint8), ("depth", (48, 64, 1), np.float32)]
        estimated = SyntheticTrainSource(config, 4, 3, "dis")[index]
        np.testing.assert_array_equal(estimated["image"], sample["image"])
        if frame < 2:
            flow = create_flow("dis")(clip.frames[frame], clip.frames[frame + 1])
            np.testing.assert_array_equal(estimated["flow"], flow_to_rgb(flow))


def test_source_estimates_each_gap_with_the_options_of_its_own():
    def flows(*options):
        source = SyntheticTrainSource(SyntheticConfig(**TINY), 4, 8, "dis", options, gaps=(1, -2))
        return np.stack([source[index]["flow"] for index in range(8)])

    small, large = flows({"side": 24}), flows({"side": 64})
    is_small, is_large = ((flows({"side": 24}, {"side": 64}) == x).all((1, 2, 3)) for x in (small, large))
    assert (is_small != is_large).all() and 0 < is_small.sum() < 8
    assert (flows({"side": 64}, {"side": 24}) == np.where(is_small[:, None, None, None], large, small)).all()


def test_source_draws_the_frame_that_the_flow_leads_to():
    config, seen = SyntheticConfig(**TINY | {"num_frames": 2}), set()
    source = SyntheticTrainSource(config, 4, 8, "dis", [{"stabilized": True}], gaps=(1, -2))
    method = create_flow("dis", stabilized=True)
    for index in range(8):
        renderer, sample = ClipRenderer(config, 4, index), source[index]
        frames = [renderer.frame(number)[0] for number in range(5)]
        (frame,) = [t for t in range(5) if (frames[t] == sample["image"]).all()]
        renderings = {other: flow_to_rgb(method(frames[frame], frames[other]))
                      for other in (frame + 1, frame - 2)}
        (other,) = [other for other in renderings if (renderings[other] == sample["flow"]).all()]
        seen.add((frame, other - frame))
    assert {gap for _, gap in seen} == {1, -2}
    assert {frame for frame, _ in seen} == {2, 3}  # as many as the clip has, none before its start


def test_source_gives_the_same_from_threads_and_after_pickling():
    source = SyntheticTrainSource(SyntheticConfig(**TINY), 1, 12, "dis")
    alone = [source[index] for index in range(12)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(pickle.loads(pickle.dumps(source)).__getitem__, range(12)))
    for one, other in zip(alone, together, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    with pytest.raises(IndexError):
        source[12]


def test_videos_are_a_sequence():
    config = SyntheticConfig(**TINY)
    videos = SyntheticVideos(config, 9, 2)
    assert len(videos) == 2 and videos.name(1) == "synthetic_00001"
    assert digest(videos[1]) == digest(generate_clip(config, 9, 1))
    with pytest.raises(IndexError):
        videos[2]
    assert len(list(videos)) == 2


def test_shifted_changes_appearance_but_not_the_scene():
    config = SyntheticConfig(**TINY)
    dark = shifted(config)
    assert not set(dark.texture_families) & set(config.texture_families)
    for field in ("object_area", "object_speed", "camera_pan", "tracking_probability", "size"):
        assert getattr(dark, field) == getattr(config, field)

    def brightness(domain):
        return np.mean([generate_clip(domain, 0, index).frames.mean() for index in range(6)])

    assert brightness(dark) < 0.75 * brightness(config)


def test_every_field_is_read():
    package = Path(sys.modules["input_pipeline.synthetic"].__file__).parent
    code = "".join(path.read_text() for path in package.glob("*.py") if path.name != "config.py")
    unread = [field.name for field in dataclasses.fields(SyntheticConfig)
              if f"config.{field.name}" not in code]
    assert not unread


@pytest.mark.parametrize(("fields", "message"), [
    ({"object_area": (0.6, 0.02)}, "synthetic.object_area"),
    ({"noise_std": (1.0, 2.0, 3.0)}, "synthetic.noise_std"),
    ({"object_speed": (0.0, 0.1)}, "synthetic.object_speed"),
    ({"stop_probability": 1.5}, "synthetic.stop_probability"),
    ({"object_kinds": ("unicorn",)}, "unicorn"),
    ({"texture_families": ()}, "synthetic.texture_families"),
    ({"size": (8, 64)}, "synthetic.size"),
    ({"num_frames": 0}, "synthetic.num_frames"),
    ({"object_counts": ()}, "synthetic.object_counts"),
])
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        SyntheticConfig(**fields)


def test_unknown_fields_fail_and_lists_are_taken():
    with pytest.raises(TypeError):
        SyntheticConfig(objekt_speed=(0.1, 0.2))
    assert SyntheticConfig(size=[48, 64]) == SyntheticConfig(size=(48, 64))
