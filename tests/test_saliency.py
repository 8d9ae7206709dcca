"""Saliency measures in closed form, and their means over frames and videos."""

import sys

import numpy as np
import pytest

from dattt_jax.errors import UserError
from dattt_jax.metrics.protocols import PROTOCOLS
from dattt_jax.metrics.saliency import describe_profile, frame_profile, require_pysodmetrics
from dattt_jax.metrics.scoring import FrameScore, score_frame, summarize

pytest.importorskip("py_sod_metrics")


def square(left):
    mask = np.zeros((20, 30), bool)
    mask[5:15, left: left + 10] = True
    return mask


def random_pair(rng):
    return rng.random((12, 17)).astype(np.float32), rng.random((12, 17)) < 0.3


def test_saliency_in_closed_form():
    target = square(5)
    result = describe_profile(frame_profile(target.astype(np.float32), target))
    assert result["MAE"] == 0
    for name in ("S", "F_max", "F_adaptive", "E_max", "E_adaptive"):
        assert result[name] == pytest.approx(1, abs=1e-2), name  # E divides by pixels - 1

    prediction = np.where(square(10), 255, 0).astype(np.uint8)
    prediction[0, 0] = 51
    result = describe_profile(frame_profile(prediction, target))
    assert result["MAE"] == pytest.approx((50 + 50 + 0.2) / 600)
    precision = recall = 0.5
    assert result["F_max"] == pytest.approx(1.3 * precision * recall / (0.3 * precision + recall))
    assert describe_profile(None) == dict.fromkeys(result)


def test_mean_profile_is_what_the_package_says_of_all_frames():
    import py_sod_metrics

    rng = np.random.default_rng(0)
    pairs = [random_pair(rng) for _ in range(6)]
    mae, s, e = py_sod_metrics.MAE(), py_sod_metrics.Smeasure(), py_sod_metrics.Emeasure()
    f = py_sod_metrics.FmeasureV2({"f": py_sod_metrics.FmeasureHandler(True, True, beta=0.3)})
    for probability, target in pairs:
        for measure in (mae, s, e, f):
            measure.step(np.round(probability * 255).astype(np.uint8), target.astype(np.uint8) * 255)
    curves, em = f.get_results()["f"], e.get_results()["em"]
    expected = {"MAE": mae.get_results()["mae"], "S": s.get_results()["sm"],
                "F_max": curves["dynamic"].max(), "F_adaptive": curves["adaptive"],
                "E_max": em["curve"].max(), "E_adaptive": em["adp"]}
    found = describe_profile(np.mean([frame_profile(*pair) for pair in pairs], axis=0))
    assert found == pytest.approx(expected, abs=1e-12)


def test_summary_averages_the_frames_a_protocol_keeps_and_then_videos():
    rng = np.random.default_rng(1)
    scores = {video: {str(t): score_frame(soft > 0.5, target, soft) for t in range(count)
                      for soft, target in [random_pair(rng)]} for video, count in (("a", 4), ("b", 3))}
    summary = summarize(scores, PROTOCOLS["davis16"], measures=("saliency",))
    first = np.mean([scores["a"][t].saliency for t in ("1", "2")], axis=0)
    second = scores["b"]["1"].saliency
    assert summary["videos"]["a"]["saliency"] == describe_profile(first)
    assert summary["saliency"] == pytest.approx(describe_profile((first + second) / 2))
    assert "saliency" not in summarize(scores, PROTOCOLS["davis16"])
    nothing = summarize({"a": {"0": FrameScore(0.5, 0.5)}}, PROTOCOLS["all"], measures=("saliency",))
    assert nothing["saliency"] == dict.fromkeys(summary["saliency"])


def test_saliency_names_the_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    with pytest.raises(UserError, match="pip install pysodmetrics"):
        require_pysodmetrics()
