"""Flow without the camera's motion: exact on fields that follow the model."""

import numpy as np
import pytest

from input_pipeline.flow import create_flow
from input_pipeline.flow.stabilize import stabilized

SIZE = (96, 128)


def planar(parameters, size=SIZE):
    """The eight-parameter motion of a plane."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = (2 * x + 1 - width) / width, (2 * y + 1 - height) / width
    a, b, c, d, e, f, g, h = parameters
    return np.stack([a + b * x + c * y + x * (g * x + h * y), d + e * x + f * y + y * (g * x + h * y)],
                    -1).astype(np.float32)


CAMERA = (6.0, -2.0, 0.5, -3.0, 1.0, 2.0, 0.8, -0.6)


def test_the_motion_of_a_plane_is_taken_out_whole():
    np.testing.assert_allclose(stabilized(planar(CAMERA)), 0, atol=1e-4)


def test_what_moves_by_itself_keeps_its_motion_and_the_rest_has_none():
    own = np.zeros((*SIZE, 2), np.float32)
    own[30:70, 20:60] = (4, -3)
    np.testing.assert_allclose(stabilized(planar(CAMERA) + own), own, atol=0.02)


def test_a_few_wrong_vectors_do_not_set_the_scale():
    own = np.zeros((*SIZE, 2), np.float32)
    own[30:70, 20:60] = (3, 0)
    wrong = own.copy()
    wrong[::48, ::64] = (300, 0)  # 4 of 12,288
    found = stabilized(planar(CAMERA) + wrong)
    assert np.hypot(*np.moveaxis(found, -1, 0)).max() < 3.1
    np.testing.assert_allclose(found[own[..., 0] > 0], own[own[..., 0] > 0], atol=0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (16, 16), (480, 854)])
def test_any_size_and_a_still_camera(size):
    still = stabilized(np.zeros((*size, 2), np.float32))
    assert still.shape == (*size, 2)
    np.testing.assert_array_equal(still, 0)


def test_the_method_dis_takes_it_as_an_option():
    frames = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8)
    plain, stable = create_flow("dis"), create_flow("dis", stabilized=True)
    assert plain.identity != stable.identity
    np.testing.assert_array_equal(stable(*frames), stabilized(plain(*frames)))
