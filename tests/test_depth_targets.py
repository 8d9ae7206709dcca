"""Depth targets, and how steady the depth of a video is."""


import numpy as np
import pytest

from dattt_jax.errors import UserError
from input_pipeline.depth import depth_target, to_uint16
from input_pipeline.depth.consistency import warped_difference


def told(call):
    with pytest.raises(UserError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("kind", "depth", "expected"),
    [
        ("metric", [[2, 4, 8, 0]], [[1, 0.5, 0.25, 0]]),
        ("relative", [[0.5, 1, -1, np.nan]], [[1, 0.5, 0, 0]]),
        ("inverse", [[4, 2, np.inf, 1]], [[1, 0.5, 0, 0.25]]),
        ("inverse", [[4, 0, -3, np.nan]], [[1, 1 / 65535, 1 / 65535, 0]]),  # far, and unknown
        ("metric", [[0, np.nan]], [[0, 0]]),
    ],
)
def test_targets_are_relative_inverse_depth(kind, depth, expected):
    target = depth_target(np.array(depth), kind)
    assert target.dtype == np.float32
    np.testing.assert_allclose(target, expected, rtol=1e-6)
    stored = to_uint16(target)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, np.rint(65535 * np.array(expected)))


def test_unknown_kinds_are_refused():
    assert told(lambda: depth_target(np.ones((2, 2)), "disparity")) == (
        "unknown kind of depth 'disparity': use one of inverse, relative, metric"
    )


def test_steady_depth_has_no_warped_difference():
    """A ramp that moves 2 to the right with its content; then one that also gets 0.1 nearer."""
    ramp = np.broadcast_to(np.linspace(0.2, 0.6, 12, dtype=np.float32), (5, 12))
    moved = np.empty_like(ramp)
    moved[:, 2:], moved[:, :2] = ramp[:, :-2], 0.9
    flow = np.full((5, 12, 2), (2.0, 0.0), np.float32)
    assert warped_difference([ramp, moved], [(flow, -flow)]) == pytest.approx(0, abs=1e-6)
    assert warped_difference([ramp, moved + 0.1], [(flow, -flow)]) == pytest.approx(0.1, abs=1e-6)
    assert warped_difference(
        [ramp, moved, moved + 0.1], [(flow, -flow), (0 * flow, 0 * flow)]
    ) == pytest.approx(0.1 * 60 / (50 + 60), abs=1e-6)  # the pair that moves has 10 pixels leaving the frame


def test_unknown_depth_does_not_count():
    target = np.full((4, 6), 0.5, np.float32)
    hole = target.copy()
    hole[1, 2] = 0
    still = np.zeros((4, 6, 2), np.float32)
    for pair in ((target, hole), (hole, target)):
        assert warped_difference(pair, [(still, still)]) == pytest.approx(0)
    assert warped_difference([target, 0 * target], [(still, still)]) is None
    assert warped_difference([target], []) is None
