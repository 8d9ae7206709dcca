"""What doctor finds in data with known defects, its verdicts and its exit status."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from video_trees import moving_frames, prepared, write_video

from configs import base
from dattt_jax.doctor import doctor
from dattt_jax.errors import UserError
from input_pipeline.datasets import find_videos
from input_pipeline.frame_checks import mask_kind

SIZE = (40, 48)


def write(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, **options)


def write_clip(root, name="a", count=4, seed=0, parts=("masks", "flows", "depths")):
    """A sound processed video: N - 1 flows, and everything else for every frame."""
    for index, frame in enumerate(moving_frames(count, SIZE, seed)):
        write(root / "frames" / name / f"{index:05d}.png", frame)
        for part in parts:
            if part != "flows" or index + 1 < count:
                values = np.zeros(SIZE, np.uint8)
                values[5:15, 5 + index:20] = 255
                write(root / part / name / f"{index:05d}.png",
                      np.stack([values] * 3, -1) if part == "flows" else values)


def run(root, workdir, dataset="folder", **fields):
    config = base.get_config()
    config.data.dataset, config.data.root = dataset, str(root)
    config.doctor.threads = 2
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return doctor(config, workdir)


def findings(root, tmp_path, **fields):
    return run(root, tmp_path / "out", **fields)["findings"]


def test_sound_data(tmp_path, capsys):
    write_clip(tmp_path / "data", "a")
    write_clip(tmp_path / "data", "b", count=5, seed=1)
    result = run(tmp_path / "data", tmp_path / "out")
    assert result["findings"] == {}
    assert result["verdicts"] == {"training": [], "evaluation": []}
    assert result["videos"][1] == {
        "name": "b", "category": "", "frames": 5, "annotated": 5, "with_flow": 4, "with_depth": 5,
        "size": SIZE, "masks": {"binary": 5}}
    text = capsys.readouterr().out
    assert "videos     2\n" in text
    assert "frames     9 (4 to 5 a video)\n" in text
    assert "sizes      48x40 (2)\n" in text
    assert "masks      binary (9)\n" in text
    assert "flow       7 of 9 frames\n" in text
    assert "training:   yes, after --mode=prepare\n" in text
    assert "evaluation: yes\n" in text
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["layout"] == "processed (frames/ …)"


def test_unreadable_files_are_decoded_to_find_them(tmp_path):
    data = tmp_path / "data"
    write_clip(data, count=6)
    for part, index in (("frames", 1), ("masks", 2), ("flows", 3), ("depths", 4)):
        path = data / part / "a" / f"{index:05d}.png"
        content = path.read_bytes()
        path.write_bytes(content[:-30])  # the header is sound
    with pytest.raises(UserError, match="neither training nor evaluation would work: 2 unreadable frames"):
        run(data, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "doctor.json").read_text())
    found = {key: [line.split(": ")[0] for line in lines] for key, lines in report["findings"].items()}
    assert found == {
        "unreadable": [f"{data}/frames/a/00001.png", f"{data}/masks/a/00002.png"],
        "unreadable_flow": [f"{data}/flows/a/00003.png"], "unreadable_depth": [f"{data}/depths/a/00004.png"]}
    assert report["videos"][0]["masks"] == {"binary": 5, "unreadable": 1}


@pytest.mark.parametrize("part, finding, uses", [
    ("frames", "frame_size", {"training", "evaluation"}), ("masks", "mask_size", {"training", "evaluation"}),
    ("flows", "flow_size", {"training"}), ("depths", None, set())])
def test_sizes(tmp_path, part, finding, uses):
    """Depth maps may have any size."""
    data = tmp_path / "data"
    write_clip(data)
    if part == "frames":  # with its mask and flow, so that nothing else is wrong
        for folder in ("frames", "masks", "flows"):
            write(data / folder / "a" / "00002.png", np.pad(np.ones((40, 40), np.uint8), 4))
    else:
        values = np.arange(20, dtype=np.uint8).reshape(4, 5)
        write(data / part / "a" / "00002.png", np.stack([values] * 3, -1) if part == "flows" else values)
    write_clip(data, "b", seed=1)
    if {"training", "evaluation"} <= uses:
        with pytest.raises(UserError):
            run(data, tmp_path / "out")
    else:
        run(data, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert {use for use, reasons in report["verdicts"].items() if reasons} == uses
    if finding is None:
        assert report["findings"] == {}
    else:
        assert list(report["findings"]) == [finding]
        assert len(report["findings"][finding]) == 1
        assert "00002" in report["findings"][finding][0]


def test_missing_parts_by_name(tmp_path):
    data = tmp_path / "data"
    write_clip(data, count=9)
    for name in ("masks/a/00000", "flows/a/00002", "depths/a/00003", "depths/a/00000"):
        (data / f"{name}.png").unlink()
    report = run(data, tmp_path / "out")
    assert report["findings"] == {"no_mask": ["a/00000"], "no_flow": ["a/00002"], "no_depth": ["a/00003"]}
    assert report["verdicts"]["evaluation"] == []
    assert report["verdicts"]["training"] == [
        "1 annotated frames have no depth map (set config.depth.method for --mode=prepare, or train with "
        "config.model.depth=False or config.train.depth_weight=0)"]
    for field, value in (("model.depth", False), ("train.depth_weight", 0.0), ("depth.method", "lite_mono")):
        assert run(data, tmp_path / "out", **{field: value})["verdicts"]["training"] == []


def test_long_lists_are_cut_in_print_only(tmp_path, capsys):
    write_clip(tmp_path / "data", count=12, parts=())
    write_clip(tmp_path / "data", "b", count=9, parts=("masks",), seed=2)
    for index in range(1, 9):
        (tmp_path / "data" / "masks" / "b" / f"{index:05d}.png").unlink()
    report = run(tmp_path / "data", tmp_path / "out")
    text = capsys.readouterr().out
    assert "- 8 frames without a mask (sparse annotation is normal)\n    b/00001\n" in text
    assert "    b/00005\n    … and 3 more\n" in text
    assert report["findings"] == {"no_masks": ["a"], "no_mask": [f"b/{i:05d}" for i in range(1, 9)]}
    assert "evaluation: yes; flow is computed on the way" in text


def test_duplicates_are_found_by_content(tmp_path):
    data = tmp_path / "data"
    write_clip(data)
    write_clip(data, "b", seed=1)
    shutil.copytree(data / "frames" / "a", data / "frames" / "copy")
    for path in (data / "frames" / "copy").iterdir():  # other bytes, same pixels
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    found = findings(data, tmp_path)
    assert found["duplicates"] == ["copy is a"]
    assert found["no_masks"] == ["copy"]


def test_gaps_respect_the_usual_step(tmp_path):
    data = tmp_path / "data"
    for video, numbers in (("dense", (0, 1, 2, 4, 5)), ("fifth", (0, 5, 10, 20, 25)), ("even", (1, 3, 5))):
        for number, frame in zip(numbers, moving_frames(len(numbers), SIZE, numbers[1]), strict=True):
            write(data / "frames" / video / f"{number:05d}.png", frame)
            write(data / "masks" / video / f"{number:05d}.png", np.eye(*SIZE) * 255)
    assert findings(data, tmp_path) == {"gaps": ["dense: 00002 is followed by 00004",
                                                 "fifth: 00010 is followed by 00020"]}


def test_strange_masks(tmp_path):
    data = tmp_path / "data"
    write_clip(data)
    write(data / "masks" / "a" / "00001.png", np.zeros(SIZE))
    write(data / "masks" / "a" / "00002.png", np.full(SIZE, 255))
    assert findings(data, tmp_path) == {
        "empty_masks": [f"{data}/masks/a/00001.png"],
        "full_masks": [f"{data}/masks/a/00002.png (100 % of the frame)"]}


def test_kinds_of_masks(tmp_path):
    data = tmp_path / "data"
    write_clip(data, count=4)
    levels = np.zeros(SIZE, np.uint8)
    levels[:10], levels[10:20] = 200, 255
    palette = Image.fromarray((levels // 100).astype(np.uint8))
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(data / "masks" / "a" / "00001.png")
    write(data / "masks" / "a" / "00002.png", levels)
    write(data / "masks" / "a" / "00003.png", np.stack([levels, levels * 0, levels * 0], -1))
    (video,) = run(data, tmp_path / "out")["videos"]
    assert video["masks"] == {"binary": 1, "palette": 1, "grey levels": 1, "colours": 1}


@pytest.mark.parametrize("count, size, finding", [(1, SIZE, "one_frame"), (4, (20, 48), "too_small")])
def test_videos_nothing_can_be_done_with(tmp_path, count, size, finding):
    for index, frame in enumerate(moving_frames(count, size)):
        write(tmp_path / "data" / "frames" / "a" / f"{index}.png", frame)
        write(tmp_path / "data" / "masks" / "a" / f"{index}.png", np.eye(*size) * 255)
    with pytest.raises(UserError, match="neither training nor evaluation would work"):
        run(tmp_path / "data", tmp_path / "out")
    assert list(json.loads((tmp_path / "out" / "doctor.json").read_text())["findings"]) == [finding]


def test_data_sets_lists_and_counts(tmp_path, capsys):
    data = tmp_path / "data"
    for video in ("camel", "goat"):
        for index, frame in enumerate(moving_frames(3, SIZE, len(video))):
            write(data / "JPEGImages" / "480p" / video / f"{index:05d}.jpg", frame)
            write(data / "Annotations" / "480p" / video / f"{index:05d}.png", np.eye(*SIZE) * 255)
    write(data / "Annotations" / "480p" / "goat" / "00003.png", np.eye(*SIZE) * 255)
    report = run(data, tmp_path / "out", dataset="davis16")
    assert len(report["findings"]["missing_videos"]) == 18
    assert [line.split(":")[0] for line in report["findings"]["orphans"]] == [
        f"{data}/Annotations/480p/goat/00003.png"]
    text = capsys.readouterr().out
    assert "videos     2 of DAVIS-16 val, 20 are published: numbers will not compare\n" in text


def test_complete_data_set_is_told(tmp_path, capsys):
    for video in ("blueboy", "dressage", "rat"):
        for index, frame in enumerate(moving_frames(2, SIZE, len(video))):
            write(tmp_path / "data" / "JPEGImages" / video / f"{index:05d}.jpg", frame)
        write(tmp_path / "data" / "Annotations" / video / "00000.png", np.eye(*SIZE) * 255)
    assert run(tmp_path / "data", tmp_path / "out", dataset="long_videos")["published_count"] == (
        "3 of Long-Videos all, as published")
    assert "videos     3 of Long-Videos all, as published\n" in capsys.readouterr().out


@pytest.mark.parametrize("use, parts, message", [
    ("train", ("masks", "depths"), None),
    ("train", ("masks",), "training would not work: 4 annotated frames have no depth map"),
    ("eval", ("masks",), None),
    ("any", ("masks",), None),
    ("eval", (), "evaluation would not work: no frame has a mask"),
    ("any", (), "neither training nor evaluation would work: no frame has a mask"),
])
def test_use(tmp_path, use, parts, message):
    write_clip(tmp_path / "data", parts=parts)
    if message is None:
        run(tmp_path / "data", tmp_path / "out", **{"doctor.use": use})
    else:
        with pytest.raises(UserError, match=message):
            run(tmp_path / "data", tmp_path / "out", **{"doctor.use": use})


def test_prepared_data(tmp_path, capsys):
    videos = [write_video(tmp_path / "tree", "a", count=4, masks=(0, 2)),
              write_video(tmp_path / "tree", "b", count=3, masks=(1,), seed=1)]
    prepared(tmp_path / "prepared", videos, last_frame="drop")
    report = run(tmp_path / "prepared", tmp_path / "out", dataset="prepared", **{"model.depth": False})
    assert report["verdicts"] == {"training": [], "evaluation": []}
    assert [(v["frames"], v["annotated"], v["with_flow"]) for v in report["videos"]] == [(4, 2, 3), (3, 1, 2)]
    text = capsys.readouterr().out
    assert "layout: prepared\n" in text and "training:   yes\n" in text
    report = run(tmp_path / "prepared", tmp_path / "out", dataset="prepared", **{"depth.method": "lite_mono"})
    assert "3 annotated frames have no depth map" in report["verdicts"]["training"][0]  # too late
    shard = next((tmp_path / "prepared").rglob("*.array_record*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        run(tmp_path / "prepared", tmp_path / "out", dataset="prepared")


@pytest.mark.parametrize("fields, message", [
    ({"data.dataset": "synthetic"}, "config.data.dataset='synthetic' has no files to examine; give prep"),
    ({"data.dataset": "prepared", "data.root": ""}, "config.data.root is empty"),
    ({"doctor.use": "both"}, "config.doctor.use='both': give one of any, train, eval"),
    ({"doctor.threads": 0}, "config.doctor.threads=0: give 1 or more"),
])
def test_wrong_fields(tmp_path, fields, message):
    config = base.get_config()
    config.data.dataset, config.data.root = "folder", str(tmp_path)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        doctor(config, tmp_path / "out")


def test_exit_status_of_the_command(tmp_path):
    write_clip(tmp_path / "data", parts=("masks",))
    assert len(find_videos("folder", tmp_path / "data")) == 1

    def status(use):
        return subprocess.run(
            [sys.executable, "main.py", "--mode=doctor", "--config=configs/base.py",
             "--config.data.dataset=folder", f"--config.data.root={tmp_path / 'data'}",
             f"--workdir={tmp_path / 'out'}", f"--config.doctor.use={use}", "--config.compile_cache_dir="],
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))), capture_output=True, text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=False)

    assert status("eval").returncode == 0
    failed = status("train")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("error: config.data: training would not work: 4 anno")
    assert "Traceback" not in failed.stderr


def test_a_mask_too_large_for_pillow_is_unreadable(tmp_path, monkeypatch):
    write(tmp_path / "mask.png", np.zeros(SIZE))
    assert mask_kind(tmp_path / "mask.png") == "binary"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZE[0] * SIZE[1] // 2 - 1)
    assert mask_kind(tmp_path / "mask.png") == "unreadable"
