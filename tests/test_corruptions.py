"""Corruptions: operators against closed forms, the registry, and corrupted videos."""

import dataclasses

import av
import cv2
import numpy as np
import pytest
import scipy.ndimage
import skimage.color
import skimage.filters

from dattt_jax.errors import UserError
from input_pipeline.corruptions import (
    CORRUPTIONS,
    SUITES,
    clip_ops,
    corrupt_video,
    corruption_rng,
    frame_ops,
    parse_corruptions,
)
from input_pipeline.eval_videos import EvalVideo

_ALL = [(name, level) for name in CORRUPTIONS for level in range(1, len(CORRUPTIONS[name].levels) + 1)]


def _rng(seed=0):
    return np.random.default_rng(seed)


def _image(height=40, width=50, seed=1):
    """Coarse random colours, so that a video encoder has something to keep."""
    coarse = _rng(seed).integers(0, 256, (5, 5, 3)).astype(np.float32)
    return np.clip(np.rint(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)), 0, 255)


def _video(count=5, **changes):
    frames = np.stack([_image(seed=10 + i) for i in range(count)]).astype(np.uint8)
    masks = {f"{i:05d}": np.eye(40, 50, i, dtype=bool) for i in range(count)}
    video = EvalVideo("clip", list(masks), 24.0, frames, masks.__getitem__, list(masks))
    return dataclasses.replace(video, **changes)


def _corrupted(video, name, level=1, seed=0, consistent=False, **kwargs):
    return np.stack(list(corrupt_video(video, name, level, seed, consistent, **kwargs).frames))


def test_noise_has_the_sigma_the_mean_and_no_clipping():
    frame = np.full((480, 854, 3), 250, np.float32)
    for sigma in (5, 10, 30):
        noise = frame_ops.gaussian_noise(frame, _rng(), sigma) - frame
        assert noise.dtype == np.float32
        assert noise.std() == pytest.approx(sigma, rel=0.01)
        assert abs(noise.mean()) < 0.05
        assert noise.max() > 10 and noise.min() < -10
        # Channels and neighbours are drawn on their own: correlations are those of chance.
        for shifted in (noise[1:, :, :], noise[:, 1:, :], np.roll(noise, 1, axis=2)):
            same = noise[:shifted.shape[0], :shifted.shape[1]]
            assert abs(np.mean(same * shifted)) < 0.01 * sigma**2


def test_box_blur_on_hand_values_and_reflected_borders():
    rows, columns = np.mgrid[:5, :5]
    frame = np.repeat(((5 * rows + columns) ** 2)[..., None], 3, 2).astype(np.float32)
    wide = np.tile(np.arange(12, dtype=np.float32)[None, :, None] ** 2, (12, 1, 3))
    for image, kernel, row in ((frame, 3, [21.7778, 25, 34.6667]), (frame, 5, [66.4, 69.8]),
                               (wide, 9, [6.6667, 7.6667, 10.6667])):
        blurred = frame_ops.box_blur(image, _rng(), kernel)
        np.testing.assert_allclose(blurred[0, :len(row)].T, [row] * 3, atol=1e-4)


def test_salt_pepper_visits_in_order_and_the_last_visit_counts():
    frame = np.full((3, 4, 3), 128, np.float32)
    rows, columns = np.array([0, 1, 2, 0, 1, 1]), np.array([0, 1, 3, 0, 1, 1])
    result = frame_ops.put_salt_pepper(frame, rows, columns)
    # (0, 0): black, then white; (1, 1): white, black, white; (2, 3): black.
    expected = frame.copy()
    expected[0, 0], expected[1, 1], expected[2, 3] = 255, 255, 0
    np.testing.assert_array_equal(result, expected)
    assert (frame == 128).all()


@pytest.mark.parametrize(("points", "black", "white"), [(1000, 500, 500), (5000, 2484, 2482)])
def test_salt_pepper_counts_of_the_legacy_draw(points, black, white):
    legacy = np.random.RandomState(0)
    rows, columns = legacy.randint(0, 480, points), legacy.randint(0, 854, points)
    assert rows[:5].tolist() == [172, 47, 117, 192, 323]
    result = frame_ops.put_salt_pepper(np.full((480, 854, 3), 128, np.float32), rows, columns)
    assert [(result == value).all(-1).sum() for value in (0, 255, 128)] == [
        black, white, 480 * 854 - black - white]


def test_salt_pepper_draws_over_the_whole_frame():
    result = frame_ops.salt_pepper(np.full((6, 9, 3), 128, np.float32), _rng(), 2000)
    assert set(np.unique(result)) == {0, 255}
    assert (result == result[..., :1]).all()


def test_contrast_brightness_and_saturation_by_hand():
    frame = np.array([[[100, 50, 0], [200, 100, 80]]], np.float32)
    np.testing.assert_allclose(frame_ops.contrast(frame, _rng(), 0.2),
                               [[[140, 70, 32], [160, 80, 48]]], rtol=1e-6)
    # The largest channel grows by 51 or to 255, the others in proportion.
    np.testing.assert_allclose(frame_ops.brightness(frame, _rng(), 0.2),
                               [[[151, 75.5, 0], [251, 125.5, 100.4]]], atol=1e-3)
    np.testing.assert_allclose(frame_ops.brightness(frame, _rng(), 0.4)[0, 1], [255, 127.5, 102], atol=1e-3)
    # Saturation of the second pixel 0.6 -> 0.4: the distances to 200 shrink by 2 / 3.
    np.testing.assert_allclose(frame_ops.saturate(frame, _rng(), 0.5, 0.1)[0, 1],
                               [200, 200 - 200 / 3, 120], atol=1e-3)
    grey = np.full((1, 1, 3), 100, np.float32)
    np.testing.assert_allclose(frame_ops.saturate(grey, _rng(), 5, 0.1), [[[100, 90, 90]]], atol=1e-3)


@pytest.mark.parametrize("channel", ["brightness", "saturate"])
def test_colour_operators_are_those_of_skimage_hsv(channel):
    frame = _rng().integers(0, 256, (40, 50, 3)).astype(np.float32)
    frame[:2], frame[2:4] = 0, 77  # black and grey have no hue
    hsv = skimage.color.rgb2hsv(frame / 255)
    if channel == "brightness":
        result = frame_ops.brightness(frame, _rng(), 0.3)
        hsv[..., 2] = np.clip(hsv[..., 2] + 0.3, 0, 1)
    else:
        result = frame_ops.saturate(frame, _rng(), 5, 0.1)
        hsv[..., 1] = np.clip(hsv[..., 1] * 5 + 0.1, 0, 1)
    np.testing.assert_allclose(result, 255 * skimage.color.hsv2rgb(hsv), atol=2e-2)


def test_defocus_spreads_a_point_over_the_disc():
    frame = np.zeros((61, 61, 3), np.float32)
    frame[30, 30] = 1000
    sharp = frame_ops.defocus_blur(frame, _rng(), 3, 0.01)  # nearly no softening
    rows, columns = np.mgrid[-30:31, -30:31]
    disc = rows**2 + columns**2 <= 9
    np.testing.assert_allclose(sharp[..., 0], np.where(disc, 1000 / 29, 0), atol=1e-3)
    for radius, grid, reach, total in ((6, 8, 1, 1.0), (8, 8, 1, 1.01298), (10, 10, 2, 1.01079)):
        disc = (rows**2 + columns**2 <= radius**2)[30 - grid:31 + grid, 30 - grid:31 + grid]
        disc = scipy.ndimage.gaussian_filter(disc / disc.sum(), 0.5, mode="mirror", radius=reach)
        soft = frame_ops.defocus_blur(frame, _rng(), radius, 0.5)
        np.testing.assert_allclose(soft[..., 1], np.pad(1000 * disc, 30 - grid), atol=1e-3)
        assert soft[..., 2].sum() == pytest.approx(1000 * total, rel=1e-5)


def _looped_scatter(image, offsets):
    """ImageNet-C's loop: every pixel in turn takes the value that its target has at that time."""
    image, margin = image.copy(), (image.shape[0] - offsets.shape[0]) // 2
    for row in range(image.shape[0] - margin, margin, -1):
        for column in range(image.shape[1] - margin, margin, -1):
            x, y = offsets[row - margin - 1, column - margin - 1]
            image[row, column] = image[row + y, column + x]
    return image


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_scatter_is_the_loop(distance):
    image = np.arange(23 * 31 * 3, dtype=np.float32).reshape(23, 31, 3)
    offsets = _rng().integers(-distance, distance, (23 - 2 * distance, 31 - 2 * distance, 2), np.int32)
    result = frame_ops.scatter(image, offsets)
    np.testing.assert_array_equal(result, _looped_scatter(image, offsets))
    assert (result != image).any(-1).mean() > 0.3


def test_scatter_follows_a_chain_to_its_end():
    image = np.arange(12 * 12 * 3, dtype=np.float32).reshape(12, 12, 3)
    right = np.zeros((6, 6, 2), np.int32)
    right[..., 0] = 1  # rows and columns 4..9: all take the value right of the last one
    expected = image.copy()
    expected[4:10, 4:10] = image[4:10, 10:11]
    np.testing.assert_array_equal(frame_ops.scatter(image, right), expected)


def test_glass_blur_blurs_as_skimage_and_scatters_in_between():
    frame, sigma = _image(), 1.1

    def blurred(image):
        return skimage.filters.gaussian(image.astype(np.float64), sigma, mode="nearest", channel_axis=-1)

    result = frame_ops.glass_blur(frame, _rng(), sigma, 3, 0)
    np.testing.assert_allclose(result, blurred(blurred(frame)), atol=1e-2)
    rng, expected = _rng(4), blurred(frame)
    for _ in range(2):
        expected = _looped_scatter(expected, rng.integers(-3, 3, (34, 44, 2), np.int32))
    result = frame_ops.glass_blur(frame, _rng(4), sigma, 3, 2)
    np.testing.assert_allclose(result, blurred(expected), atol=1e-2)


def test_pixelate_makes_blocks_of_their_mean():
    frame = np.arange(8 * 12 * 3, dtype=np.float32).reshape(8, 12, 3)
    blocks = frame.reshape(2, 4, 3, 4, 3).mean((1, 3))
    np.testing.assert_allclose(frame_ops.pixelate(frame, _rng(), 0.25),
                               blocks.repeat(4, 0).repeat(4, 1), rtol=1e-5)
    assert frame_ops.pixelate(np.zeros((33, 47, 3), np.float32), _rng(), 0.3).shape == (33, 47, 3)


def test_temporal_motion_blur_weights_the_newest_most():
    frames = [np.full((2, 2, 3), value, np.float32) for value in (10, 20, 60, 0, 100)]
    result = list(clip_ops.temporal_motion_blur(iter(frames), 3))
    np.testing.assert_allclose([frame[0, 0, 0] for frame in result],
                               [10, 50 / 3, 230 / 6, (20 + 120 + 0) / 6, (60 + 0 + 300) / 6], rtol=1e-6)
    assert all((frame == frame[0, 0]).all() and frame.dtype == np.float32 for frame in result)


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="this PyAV has no H.265 encoder")
@pytest.mark.parametrize("size", [(40, 50), (41, 53)])
def test_crf_compression_keeps_order_number_and_colour(size):
    # 30 frames: more than the encoder holds back before it says anything.
    frames = [np.clip(_image(*size) * (0.3 + 0.02 * i), 0, 255) for i in range(30)]
    error = {}
    for crf in (1, 40, 50):
        result = list(clip_ops.crf_compression(iter(frames), crf))
        assert len(result) == 30 and all(frame.shape == (*size, 3) for frame in result)
        error[crf] = np.mean([np.abs(a - b).mean() for a, b in zip(result, frames, strict=True)])
        again = list(clip_ops.crf_compression(iter(frames), crf))
        np.testing.assert_array_equal(result, again)
    assert error[1] < 4 and error[1] < error[40] < error[50]
    assert list(clip_ops.crf_compression(iter([]), 40)) == []


def test_crf_compression_without_an_encoder_says_so(monkeypatch):
    monkeypatch.setattr(clip_ops, "_ENCODER", "no such encoder")
    with pytest.raises(UserError, match="no such encoder"):
        list(clip_ops.crf_compression(iter([_image()]), 40))


def test_published_constants():
    def values(name, *parameters):
        picked = [tuple(level[parameter] for parameter in parameters) for level in CORRUPTIONS[name].levels]
        return [value[0] for value in picked] if len(parameters) == 1 else picked

    assert values("gaussian_noise", "sigma") == [5, 10, 30]
    assert values("box_blur", "kernel") == [3, 5, 9]
    assert values("salt_pepper", "points") == [1000, 2000, 5000]
    np.testing.assert_allclose(values("gaussian_noise_c", "sigma"), [45.9, 66.3, 96.9])
    assert values("contrast", "factor") == [0.2, 0.1, 0.05]
    assert values("brightness", "shift") == [0.3, 0.4, 0.5]
    assert values("saturate", "factor", "shift") == [(2, 0), (5, 0.1), (20, 0.2)]
    assert values("glass_blur", "sigma", "distance", "iterations") == [(1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]
    assert values("defocus_blur", "radius", "smooth") == [(6, 0.5), (8, 0.5), (10, 0.5)]
    assert values("pixelate", "factor") == [0.4, 0.3, 0.25]
    assert values("temporal_motion_blur", "length") == [2, 3, 4]
    assert values("crf_compression", "crf") == [40, 45, 50]


def test_names_levels_suites_and_aliases():
    assert parse_corruptions([f"aoc:{i}" for i in range(10)]) == [
        ("identity", 1), ("gaussian_noise", 1), ("gaussian_noise", 2), ("gaussian_noise", 3), ("box_blur", 1),
        ("box_blur", 2), ("box_blur", 3), ("salt_pepper", 1), ("salt_pepper", 2), ("salt_pepper", 3)]
    assert parse_corruptions(["aoc:5", "box_blur", "pixelate:3"]) == [
        ("box_blur", 2), ("box_blur", 1), ("box_blur", 3), ("pixelate", 3)]
    assert len(parse_corruptions(["robust_vos"])) == 9
    assert len(parse_corruptions(["davis_c"])) == 27
    assert {"identity", *SUITES["robust_vos"], *SUITES["davis_c"]} == set(CORRUPTIONS)
    assert {"identity", *SUITES["all"]} == set(CORRUPTIONS) and len(parse_corruptions(["all"])) == 36


@pytest.mark.parametrize(("text", "message"), [
    ("fog", "fog.*unknown.*gaussian_noise, box_blur.*robust_vos or davis_c"),
    ("box_blur:4", "box_blur has no level 4; use one of 1, 2, 3"),
    ("box_blur:", "level after the colon is a number"),
    ("box_blur:-1", "level after the colon is a number"),
    ("aoc:10", "aoc:0 … aoc:9"),
    ("aoc", "aoc:0 … aoc:9"),
])
def test_what_is_no_corruption_is_told(text, message):
    with pytest.raises(UserError, match=message):
        parse_corruptions([text])


def test_corrupt_video_refuses_unknown_names_and_levels_at_once():
    with pytest.raises(UserError, match="'fog' is unknown; use one of identity, gaussian_noise"):
        corrupt_video(_video(), "fog", 1, 0, False)
    for level in (0, 4):
        with pytest.raises(UserError, match=f"box_blur has no level {level}; use one of 1, 2, 3"):
            corrupt_video(_video(), "box_blur", level, 0, False)


@pytest.mark.parametrize(("name", "level"), _ALL)
def test_every_level_of_every_corruption_gives_a_video(name, level):
    video = _video()
    corrupted = corrupt_video(video, name, level, 3, False)
    first, second = np.stack(list(corrupted.frames)), np.stack(list(corrupted.frames))
    assert first.dtype == np.uint8 and first.shape == video.frames.shape
    np.testing.assert_array_equal(first, second)  # readable again, and the same
    assert (first != video.frames).any() == (name != "identity")
    stored = dataclasses.replace(video, flow=video.frames)
    assert corrupt_video(stored, "identity", 1, 0, False).flow is None  # it was computed from clean frames
    for field in ("name", "frame_names", "fps", "target", "annotated"):
        assert getattr(corrupted, field) is getattr(video, field)
    np.testing.assert_array_equal(video.frames, _video().frames)  # the clean video is as it was


# Not glass_blur: its weakest level scatters three times, the others twice.
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in ("identity", "glass_blur")])
def test_levels_grow(name):
    video = _video()
    weak, middle, strong = (np.abs(_corrupted(video, name, level).astype(float) - video.frames).mean()
                            for level in (1, 2, 3))
    assert weak < middle < strong


def test_values_are_rounded_and_clipped():
    frames = np.stack([np.full((40, 50, 3), value, np.uint8) for value in (0, 100, 255)])
    black, grey, white = _corrupted(_video(3, frames=frames), "gaussian_noise", 2).astype(float)
    # Half of a clipped N(0, σ²) is 0, the rest has the mean σ / √(2π) over all.
    assert black.mean() == pytest.approx(10 / np.sqrt(2 * np.pi), rel=0.05)
    assert 255 - white.mean() == pytest.approx(10 / np.sqrt(2 * np.pi), rel=0.05)
    assert grey.mean() == pytest.approx(100, abs=0.5)  # cutting off instead would make it 99.5
    rng = corruption_rng(0, "gaussian_noise", 2, "", "clip", "00001")
    noise = np.float32(10) * rng.standard_normal((40, 50, 3), np.float32)
    np.testing.assert_array_equal(grey, np.rint(100 + noise))


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if CORRUPTIONS[name].random])
def test_consistent_is_one_draw_for_all_frames_and_per_frame_is_not(name):
    still = _video(3, frames=np.stack([_image().astype(np.uint8)] * 3))
    frozen = _corrupted(still, name, consistent=True)
    np.testing.assert_array_equal(frozen[1:], frozen[:1].repeat(2, 0))
    moving = _corrupted(still, name)
    assert all((moving[i] != moving[j]).any() for i, j in ((0, 1), (1, 2), (0, 2)))


def test_a_frame_does_not_depend_on_the_frames_before_it():
    video = _video()
    tail = dataclasses.replace(video, frames=video.frames[3:], frame_names=video.frame_names[3:])
    for consistent in (False, True):
        np.testing.assert_array_equal(_corrupted(video, "salt_pepper", consistent=consistent)[3:],
                                      _corrupted(tail, "salt_pepper", consistent=consistent))


def test_random_numbers_differ_with_every_part_of_the_key_and_never_change():
    key = {"seed": 1, "name": "gaussian_noise", "level": 1, "dataset": "davis", "video": "bear",
           "frame_name": "00000"}
    keys = [key, *(key | change for change in (
        {"seed": 2}, {"name": "salt_pepper"}, {"level": 2}, {"dataset": "fbms"}, {"video": "cat"},
        {"frame_name": "00001"}, {"frame_name": None}, {"dataset": "davisbear", "video": ""}))]
    draws = [int(corruption_rng(**each).integers(0, 2**62)) for each in keys]
    assert len(set(draws)) == len(keys)
    assert draws[0] == 1014886777271396922  # on every machine


def test_seed_and_data_set_reach_the_frames():
    video = _video(2)
    draws = [_corrupted(video, "gaussian_noise", seed=0), _corrupted(video, "gaussian_noise", seed=1),
             _corrupted(video, "gaussian_noise", seed=0, dataset="davis"),
             _corrupted(dataclasses.replace(video, name="other"), "gaussian_noise", seed=0)]
    assert all((draws[i] != draws[j]).any() for i in range(4) for j in range(i))


def test_frames_are_read_when_they_are_wanted():
    read = []

    class Frames:
        def __iter__(self):
            for i in range(5):
                read.append(i)
                yield np.zeros((40, 50, 3), np.uint8)

    corrupted = corrupt_video(_video(frames=Frames()), "gaussian_noise", 1, 0, False)
    assert read == []
    next(iter(corrupted.frames))
    assert read == [0]
