"""Objective, strategy and policy of `--mode=segment`, and what its summary says of them."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.segment import segment

pytestmark = pytest.mark.usefixtures("shared_engines")


@pytest.fixture
def config(tmp_path, tiny_backbone):
    config = tiny.tiny_config()
    config.ttt.update({"objective": "bn", "strategy": "window", "steps": 2, "policy": "watch"})
    config.segment.overlay = False
    config.segment.input, config.init = str(tmp_path / "walk"), str(tmp_path / "weights")
    (tmp_path / "walk").mkdir()
    for t in range(3):
        frame = np.random.default_rng(t).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(frame).save(tmp_path / "walk" / f"{t}.png")
    save_variables(config.init, tiny.filled(config.model), config.model)
    return config


def test_the_summary_says_what_was_adapted_and_whether_it_was_kept(config, tmp_path):
    summary = segment(config, tmp_path / "out")
    assert (summary["objective"], summary["strategy"], summary["steps"]) == ("bn", "window", 2)
    assert summary["skipped_steps"] == 0
    assert list(summary["monitor"]) == ["0", "1", "2"]
    for report in summary["monitor"].values():
        assert set(report) == {"agreement", "source_agreement", "change", "drift", "kept", "stopped"}
        assert report["kept"] and not report["stopped"] and report["drift"] == 0  # bn trains nothing
    adaptation = summary["adaptation"]
    assert (adaptation["policy"], adaptation["kept"], adaptation["frames_kept"]) == ("watch", "all", 3)
    agreement = np.mean([report["agreement"] for report in summary["monitor"].values()])
    np.testing.assert_allclose(adaptation["agreement"], agreement, atol=1e-4)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["adaptation"] == adaptation


@pytest.mark.parametrize(("fields", "message"), [
    ({"objective": "dept"}, r"config.ttt.objective: 'dept' is not one of depth, tent_bn"),
    ({"objective": "rotation"}, r"needs the head 'rotation', which this network has not"),
    ({"policy": "stop"}, r"config.ttt.policy: 'stop' is not one of off"),
    ({"window": 0}, r"config.ttt.window \(0\) must be at least 1"),
])
def test_wrong_fields_are_told_in_one_line(config, tmp_path, fields, message):
    config.ttt.update(fields)
    with pytest.raises(UserError, match=message) as caught:
        segment(config, tmp_path / "out")
    assert "\n" not in str(caught.value)
