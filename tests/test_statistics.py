"""Mean, recall and decay of videos, and means over videos and classes."""

import math

import numpy as np
import pytest

from dattt_jax.metrics.statistics import (
    Statistics,
    dataset_statistics,
    mean_over_videos,
    video_class,
    video_statistics,
)


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


def test_categories_come_before_names():
    videos = {"cat_1": np.array([0.2, 1.0]), "cat_2": np.array([0.4, 0.0]), "dog_1": np.array([0.9, 0.5])}
    np.testing.assert_allclose(mean_over_videos(videos, True), [(0.3 + 0.9) / 2, 0.5])
    np.testing.assert_allclose(mean_over_videos(videos, True, {"cat_2": "dog"}), [(0.2 + 0.65) / 2, 0.625])
    np.testing.assert_allclose(mean_over_videos(videos, False, {"cat_2": "dog"}), [0.5, 0.5])
    assert mean_over_videos({}) is None
