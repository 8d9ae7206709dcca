"""J, boundary F and region F against closed forms, the golden numbers and an independent reference."""

import math

import cv2
import numpy as np
import pytest
from mask_reference import GOLDEN, golden_pairs, random_mask, reference_boundary_f, reference_boundary_map
from skimage.morphology import disk

from dattt_jax.metrics.boundary import boundary_f, boundary_map, dilate_disk, tolerance_radius
from dattt_jax.metrics.protocols import PROTOCOLS, binarize, decode_target
from dattt_jax.metrics.region import jaccard, region_f
from dattt_jax.metrics.scoring import score_frame


def test_equal_to_the_authors_code():
    cases = list(golden_pairs())
    assert len(cases) == 22
    for name, prediction, target, j, f in cases:
        assert jaccard(prediction, target) == pytest.approx(j, abs=1e-12), name
        assert boundary_f(prediction, target) == pytest.approx(f, abs=1e-12), name


def test_golden_radius_and_boundary_counts():
    with np.load(GOLDEN / "metrics.npz") as data:
        radius, counts = data["radius"], data["n_boundary_gt_pred"]
    for i, (name, prediction, target, _, _) in enumerate(golden_pairs()):
        assert tolerance_radius(target.shape) == radius[i], name
        assert [boundary_map(target).sum(), boundary_map(prediction).sum()] == counts[i].tolist()


def test_golden_threshold_of_soft_maps():
    with np.load(GOLDEN / "metrics.npz") as data:
        prediction, target, expected = data["thr_pred"], data["thr_gt"], data["thr_JF"]
    score = score_frame(binarize(prediction[0, 0], PROTOCOLS["dattt"]),
                        decode_target(target[0, 0], False, PROTOCOLS["dattt"]))
    np.testing.assert_allclose([score.J, score.F], expected, atol=1e-12)


def test_golden_batch_mean():
    with np.load(GOLDEN / "metrics.npz") as data:
        names, expected = data["batch_120x160_names"].tolist(), data["batch_120x160_JF"]
    scores = [score_frame(p, t) for name, p, t, _, _ in golden_pairs() if name in names]
    assert len(scores) == 8
    np.testing.assert_allclose(np.mean([(s.J, s.F) for s in scores], axis=0), expected,
                               atol=1e-12)


def test_boundary_f_equals_the_reference_on_random_masks():
    rng = np.random.default_rng(0)
    values = set()
    for i in range(400):
        height, width = rng.integers(1, 150, 2) if i % 2 else (90, 120)
        prediction, target = random_mask(rng, height, width), random_mask(rng, height, width)
        if i % 5 == 0:
            prediction = np.roll(target, rng.integers(-3, 4, 2), (0, 1))
        expected = reference_boundary_f(prediction, target)
        assert boundary_f(prediction, target) == pytest.approx(expected, abs=1e-12)
        np.testing.assert_array_equal(boundary_map(target), reference_boundary_map(target))
        values.add(round(expected, 3))
    assert len(values) > 100 and {0.0, 1.0} <= values  # the masks reach many different scores


def test_boundary_f_at_full_size():
    rng = np.random.default_rng(1)
    for _ in range(2):
        noise = cv2.GaussianBlur(rng.standard_normal((2, 480, 854)).transpose(1, 2, 0), (0, 0), 20)
        prediction, target = noise[..., 0] > 0.01, noise[..., 1] > 0.01
        assert boundary_f(prediction, target) == reference_boundary_f(prediction, target)


@pytest.mark.parametrize("radius", range(26))
def test_dilation_is_the_disk(radius):
    point = np.zeros((60, 60), np.uint8)
    point[30, 30] = 1
    y, x = np.mgrid[-30:30, -30:30]
    np.testing.assert_array_equal(dilate_disk(point, radius), x * x + y * y <= radius * radius)
    np.testing.assert_array_equal(
        dilate_disk(point, radius)[30 - radius:31 + radius, 30 - radius:31 + radius], disk(radius))


def test_tolerance_radius():
    assert tolerance_radius((480, 854)) == 8
    assert tolerance_radius((512, 512)) == 6
    assert tolerance_radius((600, 800)) == 8  # 0.008 · 1000, no rounding up
    assert tolerance_radius((480, 854), 3) == 3  # 1 or more: pixels
    for height in range(1, 1100, 37):
        for width in range(1, 2000, 41):
            expected = math.ceil(0.008 * np.linalg.norm((height, width)))
            assert tolerance_radius((height, width)) == expected


def test_boundary_tolerance_is_inclusive():
    prediction, target = np.zeros((2, 100, 200), bool)
    prediction[50, 100], target[53, 104] = True, True
    assert boundary_f(prediction, target, tolerance=5) == 1.0  # every pixel has one 5 px away
    prediction[:] = False
    prediction[50, 100] = True
    target[:] = False
    target[50, 110] = True
    assert boundary_f(prediction, target, tolerance=5) == 0.0


def test_region_measures_in_closed_form():
    prediction, target = np.zeros((2, 10, 10), bool)
    prediction[:, :4], target[:, 2:8] = True, True  # 40 and 60 pixels, 20 shared
    assert jaccard(prediction, target) == 20 / 80
    assert region_f(prediction, target) == 2 * (20 / 40) * (20 / 60) / (20 / 40 + 20 / 60)
    empty = np.zeros((10, 10), bool)
    assert jaccard(empty, empty) == region_f(empty, empty) == boundary_f(empty, empty) == 1
    assert jaccard(empty, target) == region_f(empty, target) == boundary_f(empty, target) == 0
    full = ~empty
    assert boundary_f(full, full) == boundary_f(full, empty) == 1  # neither has a boundary
    assert jaccard(full, empty) == 0


@pytest.mark.parametrize("measure", [jaccard, region_f, boundary_f])
def test_not_a_pair_of_masks(measure):
    mask = np.zeros((4, 5), bool)
    for wrong in (np.zeros((5, 4), bool), mask.astype(np.uint8), mask[None], mask[:0]):
        with pytest.raises(ValueError, match="prediction"):
            measure(wrong, mask)


def test_views_are_scored_like_copies():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 60, 80)) < 0.3
    assert boundary_f(a[::2, ::-1], b[::2, ::-1]) == boundary_f(a[::2, ::-1].copy(),
                                                                b[::2, ::-1].copy())
