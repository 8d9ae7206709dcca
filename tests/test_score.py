"""Scoring folders of masks: layouts, encodings, and every defect named in the output."""

import csv
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from dattt_jax.errors import UserError
from dattt_jax.metrics.protocols import PROTOCOLS, Protocol
from dattt_jax.metrics.saliency import describe_profile, frame_profile
from dattt_jax.metrics.scoring import score_frame
from dattt_jax.score import format_defects, score
from dattt_jax.score_table import format_table
from input_pipeline.mask_folders import frame_key, holds_numbers, list_masks, read_mask_file

HEIGHT, WIDTH = 24, 32


def mask_of(left, height=HEIGHT, width=WIDTH):
    mask = np.zeros((height, width), bool)
    mask[6:16, left:left + 10] = True
    return mask


def save(path, image, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(image.astype(np.uint8) * 255 if image.dtype == bool else image)
    if palette:
        image.putpalette(palette)
    image.save(path)


def config_for(pred, gt, protocol="all", measures=()):
    config = ConfigDict()
    config.score = ConfigDict({"pred": str(pred), "gt": str(gt), "protocol": protocol, "measures": measures})
    return config


def folders(tmp_path, frames=5, videos=("ant", "bee")):
    """Ground truth, and predictions that are two pixels off in every frame."""
    for video in videos:
        for i in range(frames):
            save(tmp_path / "gt" / video / f"{i:05d}.png", mask_of(i + 3))
            save(tmp_path / "pred" / video / f"{i:05d}.png", mask_of(i + 5))
    return tmp_path / "pred", tmp_path / "gt"


DAVIS_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
J = 80 / 120  # of 10×10 squares two pixels apart
F = score_frame(mask_of(5), mask_of(3)).F


def test_clean_folders(tmp_path, capsys):
    pred, gt = folders(tmp_path)
    results = score(config_for(pred, gt, "davis16"), tmp_path / "out")
    assert results["frames"] == 6 and results["protocol"] == "davis16"
    assert results["defects"] == {}
    assert results["J"] == {"mean": pytest.approx(J), "recall": 1.0,
                            "decay": pytest.approx(0)}
    assert 0 < F < 1 and results["F"]["mean"] == pytest.approx(F)
    assert results["JF"]["mean"] == pytest.approx((J + F) / 2)
    assert results["videos"]["ant"]["frames"] == 3
    assert results["videos"]["bee"]["JF"] == pytest.approx(results["JF"])
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["protocol"], row["video"], row["frames"]) for row in rows] == [
        ("davis16", "ant", "3"), ("davis16", "bee", "3"), ("davis16", "*", "6")]
    assert float(rows[2]["J_mean"]) == pytest.approx(J)
    printed = capsys.readouterr().out
    assert "66.67" in printed and "mean (davis16)" in printed and "No defects" in printed


def test_every_protocol_side_by_side(tmp_path, capsys):
    pred, gt = folders(tmp_path)
    results = score(config_for(pred, gt, "every"), tmp_path / "out")
    assert set(results["protocols"]) == set(PROTOCOLS)
    assert results["J"] == results["protocols"]["all"]["J"] and results["protocol"] == "all"
    frames = {name: summary["frames"] for name, summary in results["protocols"].items()}
    assert frames == {"davis16": 6, "dattt": 10, "all": 10, "mtnet-davis": 8, "mtnet-fbms": 6,
                      "mtnet-longvideos": 8, "tmo-fbms": 10, "youtube-objects": 10}
    assert results["protocols"]["tmo-fbms"]["F"] is None
    printed = capsys.readouterr().out
    assert all(name in printed for name in PROTOCOLS)
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(PROTOCOLS)
    assert [row["F_mean"] for row in rows if row["protocol"] == "tmo-fbms"] == ["", "", ""]


def test_further_measures_of_soft_maps(tmp_path, capsys):
    pytest.importorskip("py_sod_metrics")
    soft = np.where(mask_of(4), 200, 55).astype(np.uint8)
    soft[0, 0] = 0
    for name in ("0", "1"):
        save(tmp_path / "gt" / "ant" / f"{name}.png", mask_of(3))
        save(tmp_path / "pred" / "ant" / f"{name}.png", soft)
    (tmp_path / "pred" / "ant" / "1.png").unlink()  # counts as a black map
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    results = score(config_for(pred, gt, "dattt", ("region_F", "saliency")), tmp_path / "out")
    black = frame_profile(np.zeros((HEIGHT, WIDTH), np.uint8), mask_of(3))
    expected = describe_profile((frame_profile(soft, mask_of(3)) + black) / 2)
    assert results["saliency"] == results["videos"]["ant"]["saliency"] == pytest.approx(expected)
    assert results["region_F"]["mean"] == pytest.approx((2 * 90 / 200 + 0) / 2)
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["region_F_mean"]) == pytest.approx(0.45)
    assert float(row["S"]) == pytest.approx(expected["S"]) and "region F mean" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"config\.score\.measures: 'MAE' is not one of"):
        score(config_for(pred, gt, "dattt", ("MAE",)), tmp_path / "other")


def test_every_defect_is_named(tmp_path, capsys):
    pred, gt = folders(tmp_path, frames=6, videos=("ant", "bee", "cow"))
    (pred / "ant" / "00001.png").unlink()  # missing prediction
    save(pred / "ant" / "00077.png", mask_of(0))  # extra prediction
    save(pred / "ant" / "2.png", mask_of(0))  # the same frame as 00002
    save(pred / "ant" / "00003.png", mask_of(8, 40, 50))  # wrong size
    numbers = np.where(mask_of(9), 2, 0).astype(np.uint8)
    save(pred / "ant" / "00004.png", numbers, DAVIS_PALETTE)  # palette
    broken = (pred / "bee" / "00002.png").read_bytes()
    (pred / "bee" / "00002.png").write_bytes(broken[:50])  # unreadable prediction
    (gt / "bee" / "00003.png").write_text("no image")  # unreadable ground truth
    for path in (pred / "cow").iterdir():  # empty folder: the video is missing
        path.unlink()
    save(pred / "dog" / "00000.png", mask_of(0))  # extra video
    save(pred / "overview.png", mask_of(0))  # neither layout
    results = score(config_for(pred, gt), tmp_path / "out")
    printed = capsys.readouterr().out
    expected = {
        "missing prediction": ["ant", "frame 00001", "counts as zero"],
        "extra prediction": ["ant/00077.png"],
        "file left out": ["ant/2.png", "00002.png"],
        "wrong size": ["ant/00003.png", "40x50", "24x32"],
        "palette": ["ant/00004.png"],
        "unreadable prediction": ["bee/00002.png"],
        "unreadable ground truth": ["bee/00003.png", "not scored"],
        "missing video": ["cow", "6 frames"],
        "extra video": ["dog", "1 predictions"],
    }
    assert set(results["defects"]) == set(expected)
    for kind, parts in expected.items():
        lines = [line for line in printed.splitlines() if line.startswith(f"{kind}: ")]
        assert [f"{kind}: {text}" for text in results["defects"][kind]] == lines
        assert all(any(part in line for line in lines) for part in parts), kind
    assert "overview.png" in results["defects"]["file left out"][0] + results["defects"][
        "file left out"][1]
    # ant: four good frames of six, the others count 0; bee: four of five; cow: nothing.
    assert results["videos"]["ant"]["J"]["mean"] == pytest.approx(4 / 6 * J)
    assert results["videos"]["bee"]["J"]["mean"] == pytest.approx(4 / 5 * J)
    assert results["videos"]["cow"]["J"]["mean"] == 0
    assert [results["videos"][video]["frames"] for video in ("ant", "bee", "cow")] == [6, 5, 6]
    assert "dog" not in results["videos"]


def test_missing_frames_do_not_shift_the_pairs(tmp_path):
    pred, gt = folders(tmp_path, videos=("ant",))
    for i in range(5):
        save(pred / "ant" / f"{i:05d}.png", mask_of(i + 3))
    (pred / "ant" / "00000.png").unlink()
    results = score(config_for(pred, gt), tmp_path / "out")
    assert results["J"]["mean"] == pytest.approx(4 / 5)


def test_a_frame_that_no_protocol_keeps_may_be_missing(tmp_path):
    pred, gt = folders(tmp_path, videos=("ant",))
    (pred / "ant" / "00004.png").unlink()  # the last frame has no forward flow
    assert score(config_for(pred, gt, "davis16"), tmp_path / "a")["defects"] == {}
    assert "missing prediction" in score(config_for(pred, gt, "all"), tmp_path / "b")["defects"]


def test_flat_ground_truth_and_other_zero_padding(tmp_path):
    for i in (0, 9, 10):
        save(tmp_path / "gt" / f"bird_of_paradise_{i:05d}.png", mask_of(i))
        save(tmp_path / "pred" / "bird_of_paradise" / f"{i}.jpg", mask_of(i))
    results = score(config_for(tmp_path / "pred", tmp_path / "gt"), tmp_path / "out")
    assert results["videos"]["bird_of_paradise"]["frames"] == 3
    assert results["J"]["mean"] == 1
    assert set(results["defects"]) == {"layouts differ"}


@pytest.mark.parametrize("encode", [
    lambda mask: mask,
    lambda mask: mask.astype(np.uint8),
    lambda mask: np.where(mask, 129, 128).astype(np.uint8),  # soft: strictly above 128
    lambda mask: np.where(mask, 40000, 30000).astype(np.uint16),
    lambda mask: np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, axis=2),
], ids=["0/255", "0/1", "soft", "16 bit", "RGB"])
def test_encodings_of_predictions(tmp_path, encode):
    for i in range(3):
        save(tmp_path / "gt" / "ant" / f"{i}.png", mask_of(i))
        save(tmp_path / "pred" / "ant" / f"{i}.png", encode(mask_of(i)))
    results = score(config_for(tmp_path / "pred", tmp_path / "gt"), tmp_path / "out")
    assert results["J"]["mean"] == 1 and results["defects"] == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("suffix", "level"), [("jpg", 255), ("png", 255), ("png", 65535)])
def test_lossy_and_16_bit_ground_truth(tmp_path, protocol, suffix, level):
    """A JPEG is not 0 around an object; 0 and 255 may be kept in 16 bits."""
    for i in range(4):
        save(tmp_path / "pred" / "ant" / f"{i}.png", mask_of(i))
        target = mask_of(i) * (np.uint8(level) if suffix == "jpg" else np.uint16(level))
        save(tmp_path / "gt" / "ant" / f"{i}.{suffix}", target)
    results = score(config_for(tmp_path / "pred", tmp_path / "gt", protocol), tmp_path / "out")
    assert results["J"]["mean"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_palette_ground_truth_with_several_objects(tmp_path, protocol):
    for i in range(4):
        numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
        numbers[6:16, i:i + 10], numbers[10:12, i:i + 10] = 1, 3
        save(tmp_path / "gt" / "ant" / f"{i}.png", numbers, DAVIS_PALETTE)
        save(tmp_path / "pred" / "ant" / f"{i}.png", mask_of(i))
    results = score(config_for(tmp_path / "pred", tmp_path / "gt", protocol), tmp_path / "out")
    assert results["J"]["mean"] == 1
    assert list(results["defects"]) == ["palette"]


def test_dark_soft_map_is_not_taken_for_labels(tmp_path):
    """A frame whose highest level is 1 is empty in a folder of soft maps."""
    for i, level in enumerate((200, 1)):
        save(tmp_path / "gt" / "ant" / f"{i}.png", mask_of(i))
        save(tmp_path / "pred" / "ant" / f"{i}.png", mask_of(i).astype(np.uint8) * np.uint8(level))
    results = score(config_for(tmp_path / "pred", tmp_path / "gt"), tmp_path / "out")
    assert results["J"]["mean"] == 0.5


def test_other_size_under_the_rule_that_resizes(tmp_path):
    for i in range(3):
        save(tmp_path / "gt" / "ant" / f"{i}.png", mask_of(2 * i))
        save(tmp_path / "pred" / "ant" / f"{i}.png", np.kron(mask_of(2 * i), np.ones((2, 2), bool)))
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    results = score(config_for(pred, gt, "mtnet-fbms"), tmp_path / "out")
    assert results["J"]["mean"] == 1 and results["frames"] == 1
    assert set(results["defects"]) == {"ground truth resized"}
    with pytest.raises(UserError, match=r"wrong size.*ant/0\.png.*48x64.*24x32"):
        score(config_for(pred, gt, "all"), tmp_path / "out")


def test_empty_frames_under_tmo(tmp_path):
    for i in range(3):
        save(tmp_path / "gt" / "ant" / f"{i}.png", mask_of(0) & (i != 1))
        save(tmp_path / "pred" / "ant" / f"{i}.png", mask_of(0))
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    assert score(config_for(pred, gt, "tmo-fbms"), tmp_path / "out")["J"]["mean"] == 1
    assert score(config_for(pred, gt, "all"), tmp_path / "out")["J"]["mean"] == pytest.approx(2 / 3)


def test_folders_without_any_object(tmp_path):
    for i in range(2):
        save(tmp_path / "gt" / "ant" / f"{i}.png", np.full((8, 8), 100, np.uint8))
        save(tmp_path / "pred" / "ant" / f"{i}.png", np.full((8, 8), 100, np.uint8))
    results = score(config_for(tmp_path / "pred", tmp_path / "gt", "dattt"), tmp_path / "out")
    assert set(results["defects"]) == {"empty predictions", "empty ground truth"}
    assert results["J"]["mean"] == 1


def test_video_too_short_for_the_protocol(tmp_path):
    pred, gt = folders(tmp_path, videos=("ant",))
    save(gt / "bee" / "0.png", mask_of(0))
    save(pred / "bee" / "0.png", mask_of(0))
    results = score(config_for(pred, gt, "davis16"), tmp_path / "out")
    assert results["defects"] == {"nothing to score": [
        "bee: davis16 keeps none of its 1 annotated frames"]}
    assert results["videos"]["bee"]["J"]["mean"] is None
    assert results["J"]["mean"] == pytest.approx(J)


def test_what_cannot_be_scored_is_one_line(tmp_path):
    pred, gt = folders(tmp_path, frames=2)
    (tmp_path / "empty").mkdir()
    cases = [
        (config_for(tmp_path / "nowhere", gt), "nowhere: no such folder"),
        (config_for(tmp_path / "empty", gt), "empty: holds no masks"),
        (config_for(pred, tmp_path), f"did you mean {tmp_path / 'gt'}"),
        (config_for("", gt), "config.score.pred"),
        (config_for(pred, gt, "davis2017"), "unknown protocol 'davis2017'"),
        (config_for(pred, gt, "davis16"), "nothing to score: ant"),
    ]
    save(tmp_path / "other" / "cow" / "0.png", mask_of(0))
    cases.append((config_for(tmp_path / "other", gt), r"missing video: ant.*videos there: cow"))
    for config, message in cases:
        with pytest.raises(UserError, match=message) as error:
            score(config, tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_missing_may_be_skipped(tmp_path, monkeypatch):
    pred, gt = folders(tmp_path, videos=("ant",))
    (pred / "ant" / "00001.png").unlink()
    monkeypatch.setitem(PROTOCOLS, "mine", Protocol("mine", missing="skip"))
    results = score(config_for(pred, gt, "mine"), tmp_path / "out")
    assert results["frames"] == 4 and results["J"]["mean"] == pytest.approx(J)
    assert "counts as skip" in results["defects"]["missing prediction"][0]


def test_long_lists_are_cut_in_print_only():
    lines = format_defects({"extra prediction": [f"{i}.png" for i in range(25)]}).splitlines()
    assert len(lines) == 21 and lines[-1] == "extra prediction: and 5 more, all in results.json"


def test_table_shows_what_was_not_scored():
    nothing = {"mean": None, "recall": None, "decay": None}
    table = format_table({"davis16": {"frames": 0, "J": nothing, "F": None, "JF": None,
                                      "videos": {}}})
    assert table.splitlines()[1].split() == ["mean", "(davis16)", "0", *"---------"]


def test_names_of_frames_and_videos(tmp_path):
    assert frame_key("00001") == frame_key("1") == 1 and frame_key("img_1") == "img_1"
    for name in ("a_b-07.png", "a_b_8_gt.pgm", "a_b_9_PROB.png", "c_1.png", ".d_1.png", "c_1.txt"):
        (tmp_path / name).touch()
    found = list_masks(tmp_path)
    assert {video: sorted(frames) for video, frames in found.videos.items()} == {
        "a_b": [7, 8], "c": [1]}
    assert found.flat and not found.problems


def test_stored_numbers(tmp_path):
    save(tmp_path / "index.png", np.array([[0, 3]], np.uint8), DAVIS_PALETTE)
    save(tmp_path / "dark.png", np.array([[0, 9]], np.uint8))
    save(tmp_path / "wide.png", np.array([[0, 9]], np.uint16))
    paths = [tmp_path / name for name in ("index.png", "dark.png", "wide.png")]
    image, numbers = read_mask_file(paths[0])
    assert image.tolist() == [[0, 3]] and numbers
    assert read_mask_file(paths[2])[1] and not read_mask_file(paths[1])[1]
    assert holds_numbers(paths, highest=9) and not holds_numbers(paths, highest=8)
    (tmp_path / "broken.png").write_bytes(b"")
    assert holds_numbers([tmp_path / "broken.png"], highest=1)
