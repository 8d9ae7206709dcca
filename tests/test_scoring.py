"""From masks to the summary of a data set, and scoring in the background."""

import math
import threading
from functools import partial

import numpy as np
import pytest

from dattt_jax.errors import UserError
from dattt_jax.metrics.background import FrameScorer
from dattt_jax.metrics.protocols import PROTOCOLS, Protocol
from dattt_jax.metrics.region import region_f
from dattt_jax.metrics.scoring import FrameScore, check_measures, score_frame, score_video, summarize


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


def test_region_f_comes_with_j_where_it_is_asked_for():
    rng = np.random.default_rng(6)
    masks = rng.random((2, 5, 12, 13)) < 0.4
    masks[:, 0] = False
    scores = {str(t): score_frame(*masks[:, t]) for t in range(5)}
    for t in range(5):
        assert scores[str(t)].region_F == pytest.approx(region_f(*masks[:, t]), abs=1e-15)
    summary = summarize({"v": scores}, PROTOCOLS["all"], measures=("region_F",))
    expected = np.mean([region_f(*masks[:, t]) for t in range(5)])
    assert summary["region_F"]["mean"] == pytest.approx(expected)
    assert summary["videos"]["v"]["region_F"] == pytest.approx(summary["region_F"])
    assert "region_F" not in summarize({"v": scores}, PROTOCOLS["all"])


def test_unknown_measures_are_told():
    check_measures(("region_F",), "config.eval.measures")
    with pytest.raises(UserError, match=r"config\.score\.measures: 'J' is not one of region_F, saliency"):
        check_measures(("J",), "config.score.measures")


def test_frame_scorer_equals_one_by_one():
    rng = np.random.default_rng(5)
    masks = rng.random((2, 12, 40, 50)) < 0.5
    with FrameScorer(threads=3, pending=2) as scorer:
        for i, (prediction, target) in enumerate(zip(*masks, strict=True)):
            scorer.submit(f"v{i % 3}", str(i), partial(score_frame, prediction, target))
        result = scorer.result()
    assert {video: list(frames) for video, frames in result.items()} == {
        f"v{v}": [str(i) for i in range(v, 12, 3)] for v in range(3)}
    for i in range(12):
        assert result[f"v{i % 3}"][str(i)] == score_frame(masks[0, i], masks[1, i])


def test_frames_are_scored_while_the_caller_goes_on():
    may_score, worked = threading.Event(), []

    def score(number):
        assert may_score.wait(30)
        worked.append(threading.current_thread())
        return FrameScore(number, number)

    with FrameScorer(threads=2) as scorer:
        for number in range(5):
            scorer.submit("v", str(number), partial(score, number))
        assert worked == []  # all five are taken, and this thread did not wait for any
        may_score.set()
        assert [score.J for score in scorer.result()["v"].values()] == list(range(5))
    assert threading.current_thread() not in worked and len(worked) == 5


def test_frame_scorer_raises_what_failed():
    with FrameScorer(threads=1, pending=1) as scorer:
        scorer.submit("v", "1", partial(score_frame, np.zeros((3, 4), bool), np.zeros((4, 3), bool)))
        scorer.submit("v", "2", partial(score_frame, np.zeros((3, 4), bool), np.zeros((3, 4), bool)))
        with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 3\)"):
            scorer.result()
