"""Flow methods, the colour wheel, and the rendering of a stream."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dattt_jax.errors import UserError
from input_pipeline.flow import create_flow, flow_renderings, flow_to_rgb
from input_pipeline.flow.colorwheel import COLORWHEEL
from input_pipeline.flow.neighbours import neighbour_motion

GOLDEN = Path(__file__).parent / "golden"


def textured(height, width, seed=0):
    """A smooth random RGB image with detail everywhere."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 2)
    return ((image - image.min()) * (255 / np.ptp(image))).astype(np.uint8)


def shifted_pair(height, width, dx, dy):
    """Two crops of one image, the second showing everything (dx, dy) further on."""
    image = textured(height + 16, width + 16)
    return (image[8:8 + height, 8:8 + width],
            image[8 - dy:8 - dy + height, 8 - dx:8 - dx + width])


@pytest.mark.parametrize("shift", [(3, -2), (-4, 1), (0, 5)])
def test_dis_finds_a_shift(shift):
    flow = create_flow("dis")(*shifted_pair(120, 160, *shift))
    assert flow.shape == (120, 160, 2) and flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow[8:-8, 8:-8], axis=(0, 1)), shift, atol=0.1)


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (48, 32), (33, 200), (12, 12)])
def test_dis_takes_small_frames(size):
    flow = create_flow()(*shifted_pair(*size, 1, 0))
    assert flow.shape == (*size, 2) and np.isfinite(flow).all()
    assert abs(np.median(flow[..., 0]) - 1) < 0.3 and abs(np.median(flow[..., 1])) < 0.3


def test_dis_refuses_tiny_frames():
    image = textured(8, 40)
    with pytest.raises(UserError, match=r"40x8 .*too small for flow 'dis'; it needs 12 pixels"):
        create_flow()(image, image)


@pytest.mark.parametrize("size", [(13, 1000), (12, 40), (15, 79), (15, 4000)])
def test_dis_refuses_frames_that_its_pyramid_has_no_room_for(size):
    """OpenCV reads beyond most of them, which may end the process, and tells the widest by an assertion."""
    image = textured(*size)
    with pytest.raises(UserError, match=rf"{size[1]}x{size[0]} .*too low for flow 'dis': crop their width"):
        create_flow()(image, image)


@pytest.mark.parametrize("size", [(16, 4000), (15, 39), (4000, 12), (31, 80)])
def test_dis_takes_frames_that_it_just_has_room_for(size):
    flow = create_flow()(*shifted_pair(*size, 1, 0))
    assert np.isfinite(flow).all()


def test_frames_are_not_made_too_low():
    pair = shifted_pair(31, 4000, 4, 0)
    assert abs(np.median(create_flow("dis", side=360)(*pair)[..., 0]) - 4) < 0.3


def test_motion_of_neighbours_is_not_estimated_on_frames_too_low():
    (motion,) = neighbour_motion(shifted_pair(31, 4000, 8, 0), (48, 48))
    assert abs(np.median(motion[0, ..., 0]) - 8 * 48 / 4000) < 0.02


@pytest.mark.parametrize("side", [60, 90, 240])
def test_dis_estimates_at_another_size_in_pixels_of_the_frames(side):
    pair = shifted_pair(120, 160, 4, -2)
    flow = create_flow("dis", side=side)(*pair)
    assert flow.shape == (120, 160, 2) and flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow[8:-8, 8:-8], axis=(0, 1)), (4, -2), atol=0.2)


def test_dis_at_the_size_that_frames_have_is_dis():
    pair = shifted_pair(48, 64, 2, 1)
    np.testing.assert_array_equal(create_flow("dis", side=48)(*pair), create_flow()(*pair))


def test_dis_makes_long_frames_at_most_four_times_as_long_as_the_side(monkeypatch):
    sizes, resize = [], cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda image, size, **way: sizes.append(tuple(size)) or resize(
        image, size, **way))
    assert create_flow("dis", side=50)(*shifted_pair(32, 400, 1, 0)).shape == (32, 400, 2)
    assert sizes == [(200, 16), (200, 16), (400, 32)]


def test_dis_forgets_what_came_before():
    """OpenCV's object changes its settings when it sees a small frame."""
    method, pair = create_flow(), shifted_pair(120, 160, 2, 1)
    before = method(*pair)
    method(*shifted_pair(16, 16, 1, 0))
    np.testing.assert_array_equal(method(*pair), before)


def test_unknown_method_names_the_valid_ones():
    with pytest.raises(UserError, match="unknown flow method 'magic': use one of dis"):
        create_flow("magic")


def test_colorwheel_equals_the_reference():
    golden = np.load(GOLDEN / "flow_colorwheel.npz")
    np.testing.assert_array_equal(COLORWHEEL, golden["colorwheel"])


def test_rendering_equals_the_reference():
    golden = np.load(GOLDEN / "flow_colorwheel.npz")["grid_rgb"].astype(int)
    dx, dy = np.meshgrid(np.arange(41) - 20, np.arange(31) - 15)
    difference = np.abs(flow_to_rgb(np.stack([dx, dy], -1).astype(np.float32)) - golden)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.005


def test_rendering_of_known_motions():
    """Right is wheel entry 0, left is entry 27, down and up are halfway between two entries."""
    flow = np.array([[[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0], [0.5, 0]]], np.float32)
    expected = [[255, 0, 0], COLORWHEEL[27], COLORWHEEL[13:15].mean(0), COLORWHEEL[40:42].mean(0),
                [255, 255, 255], [255, 127.5, 127.5]]
    rgb = flow_to_rgb(flow)
    assert rgb.dtype == np.uint8 and rgb.shape == (1, 6, 3)
    # One level for rounding down, one for the small number added to the largest speed.
    np.testing.assert_allclose(rgb[0], expected, atol=1)


def test_rendering_is_scaled_by_its_own_maximum():
    flow = np.random.default_rng(0).normal(size=(20, 30, 2)).astype(np.float32)
    np.testing.assert_allclose(flow_to_rgb(flow).astype(int), flow_to_rgb(8 * flow), atol=1)


def test_fastest_pixel_does_not_wrap():
    """At full speed a channel is 0; the speed of this flow over itself is rounded to above 1."""
    flow = np.array([[[-66.82637786865234, -266.3765869140625]]], np.float32)
    assert flow_to_rgb(flow).min() == 0
    assert flow_to_rgb(flow / 2).min() == 0


def test_negative_zero_is_on_the_same_side_of_the_seam():
    right = np.array([[[1, 0.0]]], np.float32)
    np.testing.assert_array_equal(flow_to_rgb(right * [1, -1]), flow_to_rgb(right))


def test_values_that_are_not_finite_do_not_move():
    flow = np.ones((2, 3, 2), np.float32)
    flow[0, 0, 0], flow[1, 1, 1], flow[1, 2] = np.nan, np.inf, -np.inf
    rgb = flow_to_rgb(flow)
    assert (rgb[[0, 1, 1], [0, 1, 2]] == 255).all()
    np.testing.assert_array_equal(rgb[0, 1], flow_to_rgb(np.ones((1, 1, 2), np.float32))[0, 0])


def test_no_motion_is_white():
    assert (flow_to_rgb(np.zeros((4, 5, 2), np.float32)) == 255).all()


def brightness_flow(image0, image1):
    """A flow to count with: dx is the brightness gained."""
    dx = image1[..., 0].astype(np.float32) - image0[..., 0]
    return np.stack([dx, np.zeros_like(dx)], -1)


RIGHT, LEFT = [255, 0, 0], [0, 208, 255]


@pytest.mark.parametrize(("rule", "colors"), [
    ("repeat", [RIGHT, RIGHT, RIGHT]), ("backward", [RIGHT, RIGHT, LEFT]), ("drop", [RIGHT] * 2)])
def test_last_frame_rules(rule, colors):
    frames = [np.full((2, 2, 3), 10 * k, np.uint8) for k in range(3)]
    pairs = list(flow_renderings(iter(frames), brightness_flow, rule))
    assert len(pairs) == len(colors)
    for (frame, rendering), expected, color in zip(pairs, frames, colors, strict=False):
        np.testing.assert_array_equal(frame, expected)
        np.testing.assert_allclose(rendering, np.broadcast_to(color, (2, 2, 3)), atol=1)


def test_rendering_a_stream_holds_two_frames():
    read = []

    def stream():
        for k in range(4):
            read.append(k)
            yield np.full((2, 2, 3), k, np.uint8)

    renderings = flow_renderings(stream(), brightness_flow, "repeat")
    for wanted in ([0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3]):
        next(renderings)
        assert read == wanted


@pytest.mark.parametrize("count", [0, 1])
def test_one_frame_has_no_motion(count):
    frames = [np.zeros((2, 2, 3), np.uint8)] * count
    with pytest.raises(UserError, match="at least two frames are needed"):
        list(flow_renderings(frames, brightness_flow, "drop"))


def test_unknown_rule_is_refused_at_the_call():
    with pytest.raises(UserError, match="'mirror': use one of repeat, backward, drop"):
        flow_renderings([], brightness_flow, "mirror")
