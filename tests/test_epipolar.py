"""Flow across the epipolar lines: exact on scenes that stand still, and on what moves in them."""

import numpy as np
import pytest
from test_stabilize import CAMERA, SIZE, planar

from input_pipeline.flow import create_flow
from input_pipeline.flow.epipolar import across_epipolar_lines
from input_pipeline.flow.stabilize import stabilized

BOX = np.s_[30:60, 50:90]


def places(size=SIZE):
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([(2 * x + 1 - width) / width, (2 * y + 1 - height) / width], -1)


def parallax(epipole, seed=0):
    """Flow of places at random depths before and behind a plane, along the lines to (a / c, b / c)."""
    depths = np.random.default_rng(seed).uniform(-3, 3, SIZE)
    towards = np.array(epipole[:2]) - epipole[2] * places()
    return (depths[..., None] * towards).astype(np.float32), towards


@pytest.mark.parametrize("epipole", [(0.1, -0.2, 1.0), (2.5, 0.4, 1.0), (1.0, 0.3, 0.0)])
def test_a_scene_that_stands_still_has_none(epipole):
    flow, _ = parallax(epipole)
    np.testing.assert_allclose(across_epipolar_lines(flow), 0, atol=1e-4)
    assert np.abs(flow).max() > 1


@pytest.mark.parametrize("epipole", [(0.1, -0.2, 1.0), (1.0, 0.3, 0.0)])
def test_of_what_moves_the_part_across_the_lines_is_left(epipole):
    flow, towards = parallax(epipole)
    flow[BOX] += (1.5, -4)
    normal = np.stack([-towards[..., 1], towards[..., 0]], -1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    expected = np.zeros_like(flow)
    expected[BOX] = (normal * (normal @ np.array([1.5, -4]))[..., None])[BOX]
    assert np.abs(expected[BOX]).max() > 3
    found = across_epipolar_lines(flow)
    nearly = np.linalg.norm(towards, axis=-1) > 0.1  # in the epipole itself no direction is along a line
    np.testing.assert_allclose(found[nearly], expected[nearly], atol=0.05)


@pytest.mark.parametrize("flow", [np.zeros((96, 128, 2)), np.full((5, 7, 2), 2.0), np.ones((1, 1, 2))])
def test_where_nothing_stands_out_the_flow_stays(flow):
    np.testing.assert_array_equal(across_epipolar_lines(flow.astype(np.float32)), flow)


def test_camera_and_parallax_are_taken_out_together():
    near, _ = parallax((1.0, 0.3, 0.0))
    near[np.random.default_rng(1).random(SIZE) < 0.7] = 0  # most places are in the plane
    flow = planar(CAMERA) + near
    assert np.abs(stabilized(flow)).max() > 1
    np.testing.assert_allclose(stabilized(flow, parallax=False), 0, atol=0.02)


def test_the_method_dis_takes_it_as_an_option():
    frames = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8)
    plain = create_flow("dis")
    with_it, without = (create_flow("dis", stabilized=True, parallax=parallax) for parallax in (True, False))
    assert with_it.identity == create_flow("dis", stabilized=True).identity != without.identity
    np.testing.assert_array_equal(without(*frames), stabilized(plain(*frames), parallax=False))
    assert np.abs(without(*frames) - with_it(*frames)).max() > 0.1
    assert create_flow("dis", parallax=False).identity == plain.identity
