"""J, boundary F, statistics, protocols and scoring against closed forms and the golden numbers."""

import math
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.morphology import binary_dilation, disk

from dattt_jax.errors import UserError
from dattt_jax.metrics.boundary import boundary_f, boundary_map, dilate_disk, tolerance_radius
from dattt_jax.metrics.protocols import (
    PROTOCOLS,
    Protocol,
    binarize,
    decode_target,
    fit_target,
    get_protocol,
    grey_levels,
    kept_frames,
)
from dattt_jax.metrics.region import jaccard, region_f
from dattt_jax.metrics.saliency import SaliencyScorer
from dattt_jax.metrics.scoring import (
    FrameScore,
    FrameScorer,
    score_frame,
    score_video,
    summarize,
)
from dattt_jax.metrics.statistics import (
    Statistics,
    dataset_statistics,
    video_class,
    video_statistics,
)

GOLDEN = Path(__file__).parent / "golden"


# ------------------------------------------------------------------ independent reference

def reference_boundary_map(mask):
    """The toolkit's definition, pixel differences written out with its special cases."""
    mask = mask.astype(bool)
    edge = np.zeros(mask.shape, bool)
    inner = mask[:-1, :-1]
    edge[:-1, :-1] = ((inner != mask[:-1, 1:]) | (inner != mask[1:, :-1])
                      | (inner != mask[1:, 1:]))
    edge[-1, :-1] = mask[-1, :-1] != mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] != mask[1:, -1]
    return edge


def reference_dilation(edge, radius):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # scikit-image 0.26 renames it
        return binary_dilation(edge, disk(radius))


def reference_boundary_f(prediction, target):
    radius = math.ceil(0.008 * np.linalg.norm(prediction.shape))
    found, wanted = reference_boundary_map(prediction), reference_boundary_map(target)
    if not found.any() and not wanted.any():
        return 1.0
    if not found.any() or not wanted.any():
        return 0.0
    precision = (found & reference_dilation(wanted, radius)).sum() / found.sum()
    recall = (wanted & reference_dilation(found, radius)).sum() / wanted.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def random_mask(rng, height, width):
    """One of many kinds: empty, full, noise, blobs, thin lines, single pixels, border bands."""
    mask = np.zeros((height, width), np.uint8)
    kind = rng.integers(0, 8)
    if kind == 1:
        mask[:] = 1
    elif kind == 2:
        mask[:] = rng.random((height, width)) < rng.random()
    elif kind == 3:
        noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 4)
        mask[:] = noise > np.quantile(noise, rng.uniform(0.3, 0.98))
    elif kind == 4:
        ends = rng.integers(-5, max(height, width) + 5, (3, 4)).tolist()
        for x0, y0, x1, y1 in ends:
            cv2.line(mask, (x0, y0), (x1, y1), 1, 1)
    elif kind == 5:
        mask[rng.integers(0, height, 3), rng.integers(0, width, 3)] = 1
        mask[[0, -1], [-1, -1]] = rng.integers(0, 2, 2)
    elif kind == 6:
        band = [np.s_[:1], np.s_[-1:], np.s_[:, :1], np.s_[:, -1:], np.s_[-3:, -3:]]
        mask[band[rng.integers(0, 5)]] = 1
    elif kind == 7:
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top: top + 1 + height // 3, left: left + 1 + width // 3] = 1
    return mask.astype(bool)


# ------------------------------------------------------------------ J and F

def golden_pairs():
    with np.load(GOLDEN / "metrics.npz") as data:
        for name, j, f in zip(data["names"], data["J"], data["F"], strict=True):
            shape = data[f"shape_{name}"]
            count = int(np.prod(shape))
            masks = [np.unpackbits(data[f"{part}_{name}"])[:count].reshape(shape).astype(bool)
                     for part in ("pred", "gt")]
            yield str(name), *masks, float(j), float(f)


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


# ------------------------------------------------------------------ statistics

def toolkit_decay(values):
    """The toolkit's quarters, with wide integers."""
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    quarters = [values[edges[i]:edges[i + 1] + 1] for i in range(4)]
    return np.mean(quarters[0]) - np.mean(quarters[3])


def test_statistics_in_closed_form():
    statistics = video_statistics([1.0, 0.5, 0.75, 0.25, 0.0])  # quarters share their edges
    assert statistics == Statistics(mean=0.5, recall=0.4, decay=0.75 - 0.125)
    assert video_statistics([0.8]) == Statistics(0.8, 1.0, 0.0)
    assert video_statistics([0.9, 0.3]).decay == pytest.approx(0.6)


@pytest.mark.parametrize("length", [3, 4, 7, 50, 80, 255, 256, 257, 300, 1501, 2470])
def test_decay_at_any_length(length):
    values = np.random.default_rng(length).random(length)
    assert video_statistics(values).decay == pytest.approx(toolkit_decay(values), abs=1e-12)
    # A straight fall from 1 to 0 loses three quarters from first to last quarter.
    falling = video_statistics(np.linspace(1, 0, length)).decay
    assert falling == pytest.approx(0.75, abs=0.6 / length)


def test_frames_that_were_not_scored():
    nan = math.nan
    assert video_statistics([nan, 1.0, 0.5, nan, 0.75, 0.25, 0.0, nan]) == video_statistics(
        [1.0, 0.5, 0.75, 0.25, 0.0])
    for nothing in ([], [nan, nan]):
        statistics = video_statistics(nothing)
        assert all(math.isnan(v) for v in (statistics.mean, statistics.recall, statistics.decay))


def test_mean_over_videos_and_over_classes():
    nan = math.nan
    videos = {"cat_0001": Statistics(0.2, 0.0, 0.1), "cat_0002": Statistics(0.4, 1.0, 0.1),
              "dog_0001": Statistics(0.9, 1.0, 0.4), "dog_0002": Statistics(nan, nan, nan)}
    by_video = dataset_statistics(videos)
    assert by_video.mean == pytest.approx(0.5) and by_video.recall == pytest.approx(2 / 3)
    by_class = dataset_statistics(videos, by_class=True)
    assert by_class.mean == pytest.approx((0.3 + 0.9) / 2)
    assert by_class.recall == pytest.approx((0.5 + 1.0) / 2)
    assert by_class.decay == pytest.approx(0.25)
    assert math.isnan(dataset_statistics({}).mean)


@pytest.mark.parametrize(("video", "expected"), [
    ("aeroplane_0001", "aeroplane"), ("aeroplane0012", "aeroplane"), ("cat_0001_003", "cat"),
    ("bird-2", "bird"), ("train", "train"), ("0001", "0001")])
def test_class_of_a_video(video, expected):
    assert video_class(video) == expected


# ------------------------------------------------------------------ protocols

NAMES = ["00000", "00001", "00002", "00003", "00004"]
INNER, TAIL, HEAD = NAMES[1:-1], NAMES[1:], NAMES[:-1]


@pytest.mark.parametrize(("name", "frames", "object_levels", "resizes", "by", "metrics"), [
    ("davis16", INNER, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("dattt", NAMES, (129,), False, "video", ("J", "F")),
    ("all", NAMES, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("mtnet-davis", TAIL, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("mtnet-fbms", INNER, (129,), True, "video", ("J", "F")),
    ("mtnet-longvideos", HEAD, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("tmo-fbms", NAMES, (128, 129), False, "video", ("J",)),
    ("youtube-objects", NAMES, (1, 127, 128, 129), False, "class", ("J", "F")),
])
def test_preset(name, frames, object_levels, resizes, by, metrics):
    protocol = get_protocol(name)
    assert kept_frames(protocol, NAMES[::-1]) == frames
    levels = np.array([[0, 1, 127, 128, 129]], np.uint8)
    assert tuple(levels[decode_target(levels, False, protocol)]) == object_levels
    assert tuple(levels[decode_target(levels / np.float32(255), False, protocol)]
                 ) == object_levels
    colour = np.repeat(levels[..., None], 3, axis=2)
    assert tuple(levels[decode_target(colour, False, protocol)]) == object_levels
    target = np.eye(4, dtype=bool)
    if resizes:
        np.testing.assert_array_equal(fit_target(target, (8, 8), protocol),
                                      np.kron(target, np.ones((2, 2), bool)))
    else:
        with pytest.raises(ValueError, match=r"8x6.*4x4"):
            fit_target(target, (8, 6), protocol)
    assert (protocol.aggregation, protocol.metrics) == (by, metrics)
    assert protocol.drop_empty_target == (name == "tmo-fbms")
    assert protocol.missing == "zero"


def test_every_preset_is_tested():
    tested = {parameters[0] for mark in test_preset.pytestmark for parameters in mark.args[1]}
    assert tested == set(PROTOCOLS) and all(PROTOCOLS[name].name == name for name in tested)


def test_unknown_protocol():
    with pytest.raises(UserError, match=r"davis17.*davis16"):
        get_protocol("davis17")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_palette_is_an_object_number(protocol):
    indices = np.array([[0, 1, 2, 3]], np.uint8)
    np.testing.assert_array_equal(decode_target(indices, True, protocol), [[False, True, True,
                                                                           True]])


def test_short_videos_may_lose_all_frames():
    assert kept_frames(PROTOCOLS["davis16"], ["1"]) == []
    assert kept_frames(PROTOCOLS["davis16"], ["1", "2"]) == []
    assert kept_frames(PROTOCOLS["davis16"], []) == []


def test_frames_are_in_order_of_time_not_of_text():
    assert kept_frames(PROTOCOLS["davis16"], ["10", "9", "100", "2"]) == ["9", "10"]
    assert kept_frames(PROTOCOLS["all"], ["f_10a", "f_9b"]) == ["f_9b", "f_10a"]


def test_threshold_is_strict_and_the_same_for_all_types():
    protocol = PROTOCOLS["dattt"]
    levels = np.arange(256, dtype=np.uint8)[None]
    expected = levels > 128
    for probability in (levels, levels / np.float32(255), levels.astype(np.float64) / 255,
                        np.repeat(levels[..., None], 3, 2), np.repeat(levels[..., None], 4, 2)):
        np.testing.assert_array_equal(binarize(probability, protocol), expected)
    np.testing.assert_array_equal(binarize(expected, protocol), expected)
    assert not binarize(np.array([[0.5]]), protocol)[0, 0]
    assert binarize(np.array([[0.502]]), protocol)[0, 0]
    with pytest.raises(ValueError, match="int64"):
        binarize(levels.astype(np.int64), protocol)


def test_grey_equals_pillow():
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(grey_levels(image),
                                  np.asarray(Image.fromarray(image).convert("L")))


def test_target_is_resized_like_pillow():
    target = np.random.default_rng(4).random((37, 53)) < 0.5
    for size in ((20, 31), (64, 64), (111, 53)):
        pillow = Image.fromarray(target.astype(np.uint8)).resize(size[::-1], Image.NEAREST)
        np.testing.assert_array_equal(fit_target(target, size, PROTOCOLS["mtnet-fbms"]),
                                      np.asarray(pillow))


# ------------------------------------------------------------------ scoring

def square(left):
    mask = np.zeros((20, 30), bool)
    mask[5:15, left: left + 10] = True
    return mask


def test_score_video_pairs_by_name():
    targets = {"2": square(0), "10": square(10), "3": square(5)}
    predictions = {"10": square(10), "2": square(5), "99": square(0)}
    scores = score_video(predictions, targets, PROTOCOLS["all"])
    assert set(scores) == {"2", "3", "10"}
    assert scores["10"] == FrameScore(1.0, 1.0)
    assert scores["2"].J == 50 / 150
    assert scores["3"] == FrameScore(0.0, 0.0)
    skipping = score_video(predictions, targets, Protocol("mine", missing="skip"))
    assert math.isnan(skipping["3"].J)
    with pytest.raises(ValueError, match=r"10x30.*20x30"):
        score_video({"2": square(0)[:10]}, targets, PROTOCOLS["all"])


def test_summary_by_hand():
    scores = {
        "cat_01": {"1": FrameScore(1.0, 0.8), "2": FrameScore(0.6, 0.4), "3": FrameScore(0.4, 0.4),
                   "4": FrameScore(0.0, 0.0)},
        "cat_02": {"1": FrameScore(0.0, 0.0, empty_target=True), "2": FrameScore(0.9, 0.7),
                   "3": FrameScore(0.7, 0.9)},
        "dog_01": {"7": FrameScore(0.2, 0.4)},
    }
    everything = summarize(scores, PROTOCOLS["all"])
    assert everything["frames"] == 8
    assert everything["videos"]["cat_01"]["J"]["mean"] == pytest.approx(0.5)
    assert everything["videos"]["cat_01"]["JF"]["recall"] == pytest.approx(0.25)
    assert everything["J"]["mean"] == pytest.approx((0.5 + 1.6 / 3 + 0.2) / 3)
    assert everything["JF"]["mean"] == pytest.approx(
        (everything["J"]["mean"] + everything["F"]["mean"]) / 2)

    official = summarize(scores, PROTOCOLS["davis16"])
    assert official["frames"] == 3
    assert official["J"]["mean"] == pytest.approx((0.5 + 0.9) / 2)
    assert official["videos"]["dog_01"] == {
        "frames": 0, **{m: {"mean": None, "recall": None, "decay": None} for m in ("J", "F", "JF")}}

    by_class = summarize(scores, PROTOCOLS["youtube-objects"])
    assert by_class["J"]["mean"] == pytest.approx(((0.5 + 1.6 / 3) / 2 + 0.2) / 2)

    only_j = summarize(scores, PROTOCOLS["tmo-fbms"])
    assert only_j["F"] is None and only_j["JF"] is None
    assert only_j["videos"]["cat_02"]["J"]["mean"] == pytest.approx(0.8)  # empty frame left out


def test_frame_scorer_equals_one_by_one():
    rng = np.random.default_rng(5)
    masks = rng.random((2, 12, 40, 50)) < 0.5
    with FrameScorer(threads=3, pending=2) as scorer:
        for i, (prediction, target) in enumerate(zip(*masks, strict=True)):
            scorer.submit(f"v{i % 3}", str(i), prediction, target)
        result = scorer.result()
    assert {video: list(frames) for video, frames in result.items()} == {
        f"v{v}": [str(i) for i in range(v, 12, 3)] for v in range(3)}
    for i in range(12):
        assert result[f"v{i % 3}"][str(i)] == score_frame(masks[0, i], masks[1, i])


def test_frame_scorer_raises_what_failed():
    with FrameScorer(threads=1, pending=1) as scorer:
        scorer.submit("v", "1", np.zeros((3, 4), bool), np.zeros((4, 3), bool))
        scorer.submit("v", "2", np.zeros((3, 4), bool), np.zeros((3, 4), bool))
        with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 3\)"):
            scorer.result()


# ------------------------------------------------------------------ saliency

def test_saliency_in_closed_form():
    pytest.importorskip("py_sod_metrics")
    target = square(5)
    perfect = SaliencyScorer()
    perfect.add(target.astype(np.float32), target)
    result = perfect.result()
    assert result["MAE"] == 0
    for name in ("S", "F_max", "F_adaptive", "E_max", "E_adaptive"):
        assert result[name] == pytest.approx(1, abs=1e-2), name  # E divides by pixels - 1

    scorer = SaliencyScorer()
    prediction = np.where(square(10), 255, 0).astype(np.uint8)
    prediction[0, 0] = 51
    scorer.add(prediction, target)
    result = scorer.result()
    assert result["MAE"] == pytest.approx((50 + 50 + 0.2) / 600)
    precision = recall = 0.5
    assert result["F_max"] == pytest.approx(1.3 * precision * recall / (0.3 * precision + recall))


def test_saliency_names_the_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    with pytest.raises(UserError, match="pip install pysodmetrics"):
        SaliencyScorer()
