"""`--mode=prepare` from a config to the folder, the picture and the summary."""

import json

import numpy as np
import pytest
from PIL import Image
from video_trees import write_video

from configs import base
from dattt_jax.errors import UserError
from dattt_jax.prepare import prepare
from dattt_jax.train import make_source
from input_pipeline.datasets.prepared import PreparedData
from input_pipeline.datasets.train_source import PreparedTrainSource


@pytest.fixture
def tree(tmp_path):
    """Frames and masks of two videos; nothing else has the layout of frames/ and masks/."""
    for name, masks in (("a", (0, 1)), ("b", ())):
        video = write_video(tmp_path / "objects", name, 3, masks=masks)
        for frame, path in video.frames.items():
            target = tmp_path / "tree" / "frames" / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            if frame in video.masks:
                target = tmp_path / "tree" / "masks" / name / f"{frame}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(video.masks[frame][0].read_bytes())
    return tmp_path / "tree"


def config_of(root, **fields):
    config = base.get_config()
    config.data.dataset, config.data.root = "folder", str(root)
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return config


def summary(text):
    names = "videos", "frames", "annotated", "time"
    return dict(line.split(None, 1) for line in text.splitlines() if line.startswith(names))


def test_a_folder_becomes_prepared_data_a_picture_and_a_summary(tree, tmp_path, capsys):
    index = prepare(config_of(tree), tmp_path / "out")
    assert (index["dataset"], index["root"], index["split"], index["flow"]["last_frame"]) == (
        "folder", "tree", "all", "repeat")
    assert index == PreparedData(tmp_path / "out").metadata
    assert [video.annotated for video in PreparedData(tmp_path / "out").videos] == [(0, 1), ()]
    assert len(PreparedTrainSource(tmp_path / "out", (32, 32), require_depth=False)) == 2
    printed = summary(capsys.readouterr().out)
    assert (printed["videos"], printed["frames"], printed["annotated"]) == ("2", "6", "2")
    with Image.open(tmp_path / "out" / "prepare.png") as sheet:
        # A line of labels, and two rows of 160 pixels for the videos; frame, flow and mask, no depth.
        assert sheet.height == 32 + 2 * 168 and 3 * 200 < sheet.width < 4 * 200

    assert prepare(config_of(tree), tmp_path / "out") == index
    assert "prepared before" in summary(capsys.readouterr().out)["time"]


def test_training_takes_flow_of_the_kind_that_was_prepared(tree, tmp_path):
    prepare(config_of(tree, **{"flow.stabilized": True}), tmp_path / "out")
    fields = {"flow.stabilized": True, "flow.gaps": (1, 5), "model.depth": False, "train.batch_size": 2}
    config = config_of(tmp_path / "out", **fields | {"data.dataset": "prepared"})
    source, samples = make_source(config)
    assert (len(source), samples) == (2, 2)
    config.flow.stabilized = False
    with pytest.raises(UserError, match=r"out was prepared with .*stabilized=True, now it is False: "):
        make_source(config)


def test_annotated_frames_alone(tree, tmp_path, capsys):
    prepare(config_of(tree, **{"prepare.annotated_only": True, "estimates_dir": str(tmp_path / "cache")}),
            tmp_path / "out")
    assert summary(capsys.readouterr().out)["frames"] == "2"
    assert len(list((tmp_path / "cache").rglob("*.png"))) == 2  # kept, since it was named


@pytest.mark.parametrize(("fields", "message"), [
    ({"data.dataset": "synthetic"}, r"config\.data\.dataset='synthetic': nothing to prepare; give one of"),
    ({"flow.last_frame": "never"}, r"config\.flow\.last_frame='never': use one of repeat, backward, drop"),
    ({"flow.method": "magic"}, "unknown flow method 'magic'"),
    ({"depth.method": "magic"}, "unknown depth method 'magic'"),
    ({"prepare.threads": 0}, r"config\.prepare\.threads=0: give 1 or more"),
    ({"data.root": "/nowhere"}, r"config\.data\.root='/nowhere': no such folder"),
])
def test_wrong_fields_are_told(tree, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        prepare(config_of(tree, **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flow_files_belong_into_the_data_set(tree, tmp_path):
    fields = {"flow.method": "files", "flow.root": str(tmp_path)}
    with pytest.raises(UserError, match=r"config\.flow\.method='files': flow files are taken from the"):
        prepare(config_of(tree, **fields), tmp_path / "out")


def test_the_picture_marks_what_is_missing(tree, tmp_path):
    prepare(config_of(tree), tmp_path / "out")
    with Image.open(tmp_path / "out" / "prepare.png") as sheet:
        pixels = np.asarray(sheet)
    assert (pixels == 230).all(-1).sum() > 150 * 150  # the mask of video b


def test_steadiness_of_given_depth_is_written(tree, tmp_path):
    """Depth that moves with the picture is steadier than depth that jumps."""
    for name, jump in (("a", 0), ("b", 40)):
        for t in range(3):
            rows = np.arange(40, dtype=np.uint16)[:, None] + t + jump * t  # the picture moves up by a pixel
            target = tree / "depth" / name / f"{t:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.broadcast_to(2000 + 500 * rows, (40, 48)).astype(np.uint16)).save(target)
    prepare(config_of(tree), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "depth_steadiness.json").read_text())
    steady, jumping = (found["warped_difference"][name] for name in ("a", "b"))
    # A jump is 40 rows of 500 of 65535.
    assert steady < 0.004 and abs(jumping - 40 * 500 / 65535) < 0.01
    assert found["mean"] == pytest.approx((steady + jumping) / 2)
