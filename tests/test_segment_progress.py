"""`--mode=segment` cut off and going on, and the adapted weights it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from video_trees import moving_frames

from dattt_jax import segment_run
from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.segment import segment
from dattt_jax.segment_progress import pairs_from
from input_pipeline.flow import create_flow, flow_renderings

pytestmark = pytest.mark.usefixtures("tiny_backbones", "shared_engines")

FRAMES = 6
CHILD = Path(__file__).parent / "segment_child.py"


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Of the config, flattened: BatchNorm's scale and bias are trained, fast enough to be seen."""
    folder = tmp_path_factory.mktemp("segment")
    write_clip(folder / "walk", FRAMES)
    model = tiny.tiny_config().model
    save_variables(folder / "weights", tiny.filled(model, kernels=3), model)
    return {"segment.input": str(folder / "walk"), "init": str(folder / "weights"),
            "ttt.objective": "tent_bn", "ttt.strategy": "mwi", "ttt.steps": 2, "ttt.groups": 2,
            "ttt.window": 3, "ttt.learning_rate": 0.05, "segment.overlay": False,
            "segment.save_probability": True, "segment.save_every_s": 1e-9}


def write_clip(folder, count):
    folder.mkdir()
    for t, frame in enumerate(moving_frames(count)):
        Image.fromarray(frame).save(folder / f"{t:02d}.png")


def run(fields, workdir, **changes):
    config = tiny.tiny_config()
    config.update_from_flattened_dict(fields | changes)
    return segment(config, workdir)


def cut_off(fields, workdir, after, **changes):
    """A run that ends with an error after so many masks."""
    made = []

    def to_mask(probability, name, original=segment_run.to_mask):
        if len(made) == after:
            raise RuntimeError("cut off")
        made.append(name)
        return original(probability, name)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="cut off"):
        patch.setattr(segment_run, "to_mask", to_mask)
        run(fields, workdir, **changes)


def written(workdir):
    """Bytes of all masks and probabilities by their paths."""
    return {str(p.relative_to(workdir)): p.read_bytes() for p in sorted(workdir.rglob("*.png"))}


@pytest.mark.parametrize(("strategy", "policy", "chunk"), [
    ("base", "off", 2), ("mwi", "watch", 1), ("window", "off", 1), ("grouped_ltv", "off", 1)])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(fields, tmp_path, caplog, strategy, policy, chunk):
    fields = fields | {"ttt.strategy": strategy, "ttt.policy": policy}
    whole = run(fields, tmp_path / "whole", **{"segment.save_every_s": 0.0})
    cut_off(fields, tmp_path / "cut", 2)
    assert (tmp_path / "cut" / "progress.npz").exists()
    with caplog.at_level("INFO"):
        again = run(fields, tmp_path / "cut", **{"ttt.chunk": chunk})
    [message] = [m for m in caplog.messages if "going on from" in m]
    assert ": 2 frames" in message
    assert again["losses"] == whole["losses"] and len(whole["losses"]) == FRAMES
    assert again["skipped_steps"] == whole["skipped_steps"] == 0
    assert (again["monitor"], again["adaptation"]) == (whole["monitor"], whole["adaptation"])
    assert len(whole["monitor"]) == (FRAMES if policy == "watch" else 0)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")
    assert not (tmp_path / "cut" / "progress.npz").exists()


@pytest.mark.parametrize(("objective", "after"), [  # while frames are predicted, and while masks propagate
    ("tent_bn", 3), ("self_training", 3), ("self_training", FRAMES + 2)])  # which learns what was propagated
def test_propagation_goes_on_too(fields, tmp_path, objective, after):
    fields = fields | {"propagation": 0.9, "primary_share": 0.2, "ttt.objective": objective}
    whole = run(fields, tmp_path / "whole")
    cut_off(fields, tmp_path / "cut", after)
    assert {"predictions.tmp", "progress.npz"} <= {p.name for p in (tmp_path / "cut").iterdir()}
    assert run(fields, tmp_path / "cut")["losses"] == whole["losses"]
    assert written(tmp_path / "cut") == written(tmp_path / "whole") != {}
    for name in ("cut", "whole"):
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["masks", "probability", "summary.json"]


@pytest.mark.parametrize("field", ["propagation", "primary_share"])
def test_without_what_was_gathered_a_run_starts_anew(fields, tmp_path, caplog, field):
    fields = fields | {field: 0.9}
    cut_off(fields, tmp_path / "cut", 3)
    (tmp_path / "cut" / "predictions.tmp").unlink()
    with caplog.at_level("INFO"):
        run(fields, tmp_path / "cut")
    assert "predictions.tmp is gone" in caplog.text
    run(fields, tmp_path / "whole")
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_a_run_in_the_folder_of_its_frames_goes_on(fields, tmp_path, caplog):
    for name in ("cut", "whole"):
        write_clip(tmp_path / name, FRAMES)
    whole = run(fields, tmp_path / "whole", **{"segment.input": str(tmp_path / "whole")})
    clip = {"segment.input": str(tmp_path / "cut")}
    cut_off(fields, tmp_path / "cut", 3, **clip)
    with caplog.at_level("INFO"):
        assert run(fields, tmp_path / "cut", **clip)["losses"] == whole["losses"]
    assert ": 3 frames have their masks" in caplog.text


def test_killed_it_goes_on(fields, tmp_path):
    """kill -9 of a real process in the middle of a video."""
    write_clip(tmp_path / "long", 60)
    fields = fields | {"segment.input": str(tmp_path / "long")}
    child = subprocess.Popen([sys.executable, CHILD, json.dumps(fields), tmp_path / "cut"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    masks, deadline = tmp_path / "cut" / "masks", time.monotonic() + 120
    while not (masks.exists() and len(list(masks.glob("*.png"))) > 4):
        assert time.monotonic() < deadline and child.poll() is None, child.communicate()[1]
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert len(list(masks.glob("*.png"))) < 60
    again = run(fields, tmp_path / "cut")
    assert again["losses"] == run(fields, tmp_path / "whole")["losses"]
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_progress_of_another_run_is_not_used(fields, tmp_path, caplog):
    expected = run(fields, tmp_path / "whole", seed=1)["losses"]
    cut_off(fields, tmp_path / "cut", 3)
    with caplog.at_level("INFO"):
        assert run(fields, tmp_path / "cut", seed=1)["losses"] == expected
    assert "config.seed was 0, now 1" in caplog.text
    cut_off(fields, tmp_path / "cut", 3, seed=1)
    (tmp_path / "cut" / "masks" / "01.png").unlink()
    with caplog.at_level("INFO"):
        run(fields, tmp_path / "cut", seed=1)
    assert "the mask of frame 01 is gone" in caplog.text
    assert written(tmp_path / "cut") == written(tmp_path / "whole")
    cut_off(fields, tmp_path / "cut", 3, seed=1)
    (tmp_path / "cut" / "progress.npz").write_bytes(b"half")
    run(fields, tmp_path / "cut", seed=1)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_progress_does_not_outlive_the_masks_it_counts_on(fields, tmp_path):
    """A run, then one of other settings that leaves no progress, then the first one again."""
    fields = fields | {"propagation": 0.9}
    run(fields, tmp_path / "whole")
    cut_off(fields, tmp_path / "cut", 4)
    cut_off(fields, tmp_path / "cut", 2, **{"segment.save_every_s": 0.0, "ttt.steps": 1})
    run(fields, tmp_path / "cut")
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_no_progress_is_saved_where_none_is_wanted(fields, tmp_path):
    cut_off(fields, tmp_path, 3, **{"segment.save_every_s": 0.0})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks", "probability", "summary.json"]


def test_adapted_weights_predict_what_they_predicted(fields, tmp_path):
    """Saved after the last frame, they give its mask without a step; another start, other losses."""
    first = run(fields, tmp_path / "first", **{"segment.save_weights": "full"})
    path = str(tmp_path / "first" / "adapted.npz")
    # The statistics of tent_bn are the frame's own in adaptation; with the objective depth nothing but
    # weights matters. It trains the image encoder.
    depth = {"ttt.objective": "depth", "ttt.learning_rate": 1e-2, "ttt.batch_size": 1, "ttt.steps": 1}
    run(fields, tmp_path / "a", **depth, **{"segment.save_weights": "full"})
    run(fields, tmp_path / "b", **depth, **{"segment.save_weights": "bfloat16"})
    last = f"probability/{FRAMES - 1:02d}.png"
    for name, tolerance in (("a", 1), ("b", 2)):
        run(fields, tmp_path / f"{name}_base", **{"ttt.strategy": "base", "segment.adapted":
                                                  str(tmp_path / name / "adapted.npz")})
        assert difference(tmp_path / f"{name}_base" / last, tmp_path / "a" / last) <= tolerance
    run(fields, tmp_path / "source", **{"ttt.strategy": "base"})
    assert difference(tmp_path / "source" / last, tmp_path / "a" / last) > 10
    sizes = [(tmp_path / name / "adapted.npz").stat().st_size for name in ("a", "b")]
    assert sizes[1] < 0.75 * sizes[0]

    onwards = run(fields, tmp_path / "onwards", **{"segment.adapted": path})
    assert onwards["adapted"] == path
    assert onwards["losses"]["00"] != first["losses"]["00"]
    again = run(fields, tmp_path / "again", **{"segment.adapted": path})  # same start, same seed
    assert again["losses"] == onwards["losses"]
    assert written(tmp_path / "again") == written(tmp_path / "onwards")


def difference(path, other):
    """Largest difference of two grey images."""
    return np.abs(np.asarray(Image.open(path), int) - np.asarray(Image.open(other), int)).max()


@pytest.mark.parametrize(("changes", "message"), [
    ({"segment.save_weights": "half"}, "config.segment.save_weights='half' is none of full, bfloat16"),
    ({"segment.save_weights": "full", "ttt.strategy": "base"}, "strategy='base' with .* trains no weights"),
    ({"segment.save_weights": "full", "ttt.objective": "bn"}, "objective='bn' trains no weights"),
    ({"segment.adapted": "nowhere.npz"}, "nowhere.npz does not exist"),
])
def test_what_a_user_can_get_wrong_is_told_before_the_work(fields, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(fields, tmp_path, **changes)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("last_frame", ["repeat", "backward", "drop"])
@pytest.mark.parametrize("size", [1, 3])
def test_pairs_from_the_middle_are_those_of_the_whole(last_frame, size):
    video, computed = moving_frames(7), []

    class Counted:
        identity = "counted"
        batch_size = size

        def __call__(self, image0, image1):
            computed.append(1)
            return create_flow("dis")(image0, image1)

        def batch(self, images0, images1):
            return np.stack([self(*pair) for pair in zip(images0, images1, strict=True)])

    whole = list(flow_renderings(video, Counted(), last_frame))
    for first in range(len(whole) + 1):
        computed.clear()
        rest = list(pairs_from(first, video, len(video), Counted(), last_frame))
        assert len(rest) == len(whole) - first
        for pair, expected in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(pair, expected)
        assert len(computed) <= len(rest) + size + 1
