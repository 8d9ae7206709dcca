"""Preparing data: what is stored, rules, interruption, and what is refused."""

import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from video_trees import prepared, settings, write_video

from dattt_jax.errors import UserError
from input_pipeline.datasets.prepare import prepare_videos
from input_pipeline.datasets.prepared import PreparedData
from input_pipeline.flow import create_flow, flow_to_rgb
from input_pipeline.flow.files import write_flow
from input_pipeline.images import read_image


def frames_of(out):
    data = PreparedData(out)
    return [data[index] for index in range(len(data))]


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def rendering(video, first, second):
    paths = list(video.frames.values())
    return flow_to_rgb(create_flow("dis")(read_image(paths[first]), read_image(paths[second])))


def test_videos_are_runs_in_order_with_every_part(tmp_path):
    depth_path, flow_path = tmp_path / "depth.npy", tmp_path / "flow.jpg"
    depth = np.random.default_rng(1).integers(0, 65536, (20, 24)).astype(np.uint16)
    np.save(depth_path, depth)
    Image.fromarray(np.full((40, 48, 3), (10, 200, 30), np.uint8)).save(flow_path)
    videos = [write_video(tmp_path, "b", 19, depths={"00003": depth_path}, flows={"00001": flow_path}),
              write_video(tmp_path, "a_01", 3, suffix=".png", masks=(1,), seed=1, category="cat"),
              write_video(tmp_path, "c", 2, suffix=".bmp", masks=(), seed=2)]
    index = prepared(tmp_path / "out", videos)

    frames = frames_of(tmp_path / "out")
    assert [(f.video, f.name) for f in frames] == [(v.name, name) for v in videos for name in v.frames]
    entries = PreparedData(tmp_path / "out").videos
    assert [(e.name, e.first, len(e.frame_names), e.category, e.size) for e in entries] == [
        ("b", 0, 19, "", (40, 48)), ("a_01", 19, 3, "cat", (40, 48)), ("c", 22, 2, "", (40, 48))]
    assert [e.annotated for e in entries] == [(0, 2), (1,), ()]
    assert [e.depth for e in entries] == [(3,), (), ()]
    assert [e.flow for e in entries] == [tuple(range(19)), (0, 1, 2), (0, 1)]

    for video, entry in zip(videos, entries, strict=True):
        for position, (name, path) in enumerate(video.frames.items()):
            frame = frames[entry.first + position]
            if path.suffix == ".bmp":
                assert frame.encoded["image"].startswith(b"\x89PNG")
            else:
                assert frame.encoded["image"] == path.read_bytes()
            np.testing.assert_array_equal(frame.image(), read_image(path))
            if (video.name, name) == ("b", "00001"):
                assert frame.encoded["flow"] == flow_path.read_bytes()
            else:
                last = len(video.frames) - 2
                expected = rendering(video, min(position, last), min(position, last) + 1)
                np.testing.assert_array_equal(decoded(frame.encoded["flow"]), expected)
                np.testing.assert_array_equal(frame.flow(), expected)
    union = np.zeros((40, 48), bool)
    union[4:10, 7:22] = union[8:14, 7:22] = True
    np.testing.assert_array_equal(decoded(frames[2].encoded["mask"]), union * np.uint8(255))
    np.testing.assert_array_equal(frames[2].mask(), union)
    np.testing.assert_array_equal(decoded(frames[3].encoded["depth"]), depth)
    np.testing.assert_array_equal(frames[3].depth(), depth / np.float32(65535))
    assert frames[1].mask() is None and frames[1].depth() is None

    assert json.loads((tmp_path / "out" / "videos.json").read_text()) == index
    assert index["flow"] == {"method": "dis", "last_frame": "repeat", "identity": create_flow("dis").identity,
                             "direction": "forward: to the next frame of the video"}
    assert (index["dataset"], index["root"], index["split"], index["given_flow"], index["given_depth"]) == (
        "folder", "tree", "train", 1, 1)
    assert not (tmp_path / "out" / "cache").exists()


def test_last_frame_rules(tmp_path):
    video = write_video(tmp_path, "v", 3)
    expected = {"repeat": rendering(video, 1, 2), "backward": rendering(video, 2, 1), "drop": None}
    for rule, flow in expected.items():
        prepared(tmp_path / rule, [video], rule)
        frames = frames_of(tmp_path / rule)
        assert len(frames) == 3 and frames[2].mask() is not None
        np.testing.assert_array_equal(frames[1].flow(), expected["repeat"])
        if flow is None:
            assert frames[2].flow() is None and PreparedData(tmp_path / rule).videos[0].flow == (0, 1)
        else:
            np.testing.assert_array_equal(frames[2].flow(), flow)


def test_repeat_takes_over_a_rendering_of_the_data_set(tmp_path):
    given = tmp_path / "flow.png"
    Image.fromarray(np.full((40, 48, 3), 99, np.uint8)).save(given)
    prepared(tmp_path / "out", [write_video(tmp_path, "v", 3, flows={"00001": given})])
    assert [frame.encoded["flow"] == given.read_bytes() for frame in frames_of(tmp_path / "out")] == [
        False, True, True]


class Gradient:
    """A depth method: the value grows with the row, in metres."""

    identity, kind = "gradient", "metric"

    def __call__(self, frame):
        return np.repeat(np.arange(1, len(frame) + 1, dtype=np.float32)[:, None], frame.shape[1], 1)


def test_depth_is_estimated_for_annotated_frames_without_it(tmp_path):
    given = tmp_path / "depth.png"
    Image.fromarray(np.full((40, 48), 51, np.uint8)).save(given)
    video = write_video(tmp_path, "v", 5, masks=(0, 2, 4), depths={"00002": given, "00003": given})
    index = prepared(tmp_path / "out", [video], depth_method=Gradient())
    depths = [frame.depth() for frame in frames_of(tmp_path / "out")]
    assert [depth is not None for depth in depths] == [True, False, True, True, True]
    for i in (2, 3):
        np.testing.assert_array_equal(depths[i], np.full((40, 48), 51 / np.float32(255)))
    # Inverse depth, 1 at the nearest: row r, counted from 1, is 1 / r.
    expected = np.repeat(1 / np.arange(1, 41)[:, None], 48, 1)
    for i in (0, 4):
        np.testing.assert_allclose(depths[i], expected, atol=0.51 / 65535)
    assert index["depth"]["identity"] == "gradient" and "inverse depth" in index["depth"]["stored"]
    assert index["given_depth"] == 2


@pytest.mark.parametrize("suffix", [".flo", ".png"])
def test_flow_itself_is_rendered(tmp_path, suffix):
    flow = np.zeros((40, 48, 2), np.float32)
    flow[:, 24:] = 3, -1
    write_flow(tmp_path / f"flow{suffix}", flow)
    prepared(tmp_path / "out", [write_video(tmp_path, "v", 2, flows={"00000": tmp_path / f"flow{suffix}"})])
    for frame in frames_of(tmp_path / "out"):  # the last one repeats it
        np.testing.assert_array_equal(frame.flow(), flow_to_rgb(flow))


def test_annotated_frames_alone_keep_their_own_flow(tmp_path):
    videos = [write_video(tmp_path, "none", 3, masks=()), write_video(tmp_path, "v", 21, masks=(0, 3, 20))]
    prepared(tmp_path / "out", videos, annotated_only=True)
    [entry] = PreparedData(tmp_path / "out").videos
    assert entry.frame_names == ("00000", "00003", "00020") and entry.annotated == entry.flow == (0, 1, 2)
    for frame, first in zip(frames_of(tmp_path / "out"), (0, 3, 19), strict=True):
        np.testing.assert_array_equal(frame.flow(), rendering(videos[1], first, first + 1))


def test_progress_counts_every_frame(tmp_path):
    counted = []
    prepared(tmp_path / "out", [write_video(tmp_path, "a", 11), write_video(tmp_path, "b", 2)],
             on_frame=lambda: counted.append(1))
    assert len(counted) == 13


def test_after_an_error_the_other_threads_stop_soon(tmp_path):
    video, calls = write_video(tmp_path, "v", 80), []
    third_run = read_image(video.frames["00016"])

    class Slow:
        identity = "slow"

        def __call__(self, image0, image1):
            calls.append(1)
            if (image0 == third_run).all():
                raise UserError("broken")
            time.sleep(0.2)
            return np.zeros((*image0.shape[:2], 2), np.float32)

    with pytest.raises(UserError, match="broken"):
        prepare_videos([video], tmp_path / "out", settings=settings(), flow_method=Slow(), threads=3)
    assert len(calls) <= 12  # far from the rest of the first two runs of eight, and the next ones


def test_shards_hold_whole_videos(tmp_path, monkeypatch):
    monkeypatch.setattr("input_pipeline.datasets.prepare._SHARD_FRAMES", 5)
    index = prepared(tmp_path / "out", [write_video(tmp_path, f"v{count}", count) for count in (5, 3, 6, 2)])
    assert [file["name"][-14:] for file in index["files"] if "array_record" in file["name"]] == [
        "00000-of-00003", "00001-of-00003", "00002-of-00003"]
    info = json.loads((tmp_path / "out" / index["folder"] / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["5", "9", "2"]
    assert [frame.video for frame in frames_of(tmp_path / "out")] == [
        name for name, count in (("v5", 5), ("v3", 3), ("v6", 6), ("v2", 2)) for _ in range(count)]


def test_a_second_run_does_nothing_and_another_data_set_is_refused(tmp_path):
    video, out = write_video(tmp_path, "v", 3), tmp_path / "out"
    index = prepared(out, [video])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert prepared(out, [video]) == index
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert after | {out / ".prepare.lock": 0} == before | {out / ".prepare.lock": 0}
    with pytest.raises(UserError, match="out holds a data set prepared from other files or with other"):
        prepared(out, [video], "drop")
    write_video(tmp_path, "v", 3, seed=9)
    with pytest.raises(UserError, match="other files"):
        prepared(out, [video])


def test_somebody_elses_folder_is_refused_and_left_alone(tmp_path):
    video = write_video(tmp_path, "v", 3)
    precious = tmp_path / "out" / "folder" / "1.0.0" / "frame.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    for _ in range(2):
        with pytest.raises(UserError, match="holds a folder 'folder' that --mode=prepare did not write"):
            prepared(tmp_path / "out", [video])
    assert precious.read_text() == "precious"


def test_two_runs_do_not_share_a_folder(tmp_path):
    video = write_video(tmp_path, "v", 3)

    class Reentrant:
        identity = "reentrant"

        def __call__(self, image0, image1):
            with pytest.raises(UserError, match="another run is preparing data there"):
                prepared(tmp_path / "out", [video])
            return np.zeros((*image0.shape[:2], 2), np.float32)

    prepare_videos([video], tmp_path / "out", settings=settings(), flow_method=Reentrant())
    assert len(PreparedData(tmp_path / "out")) == 3


def break_size(video, tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(video.frames["00002"])


def break_frame(video, tmp_path):
    path = video.frames["00001"]
    path.write_bytes(path.read_bytes()[:-40])


def break_frame_with_flow(video, tmp_path):
    break_frame(video, tmp_path)
    for name in video.frames:  # nothing is left to estimate
        video.flows[name] = tmp_path / "flow.png"
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / "flow.png")


def remove_frame(video, tmp_path):
    video.frames["00001"].unlink()


def break_mask(video, tmp_path):
    for path in video.masks["00002"]:
        Image.fromarray(np.zeros((20, 48), np.uint8)).save(path)


def break_depth(video, tmp_path):
    video.depths["00001"] = tmp_path / "nowhere.png"


def break_flow(video, tmp_path):
    video.flows["00001"] = tmp_path / "flow.png"
    Image.fromarray(np.zeros((40, 47, 3), np.uint8)).save(tmp_path / "flow.png")


@pytest.mark.parametrize(("damage", "message"), [
    (break_size, r"00002\.jpg is 50x40 \(width x height\), the video's first frame 48x40"),
    (break_frame, r"00001\.jpg: cannot be read as an image"),
    (break_frame_with_flow, r"00001\.jpg: cannot be read as an image"),
    (remove_frame, r"00001\.jpg: cannot be read \(No such file"),
    (break_mask, r"1/00002\.png is 48x20 \(width x height\), its frame 48x40"),
    (break_depth, r"nowhere\.png: cannot be read"),
    (break_flow, r"flow\.png is 47x40 \(width x height\), its frame 48x40"),
])
def test_what_is_wrong_with_a_file_is_told_and_can_be_put_right(tmp_path, damage, message):
    video = write_video(tmp_path, "v", 4, flows={}, depths={})
    damage(video, tmp_path)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path / "out", [video])
    with pytest.raises(UserError, match="give the --workdir of --mode=prepare"):
        PreparedData(tmp_path / "out")
    prepared(tmp_path / "out", [write_video(tmp_path, "v", 4)])
    assert len(frames_of(tmp_path / "out")) == 4


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    with pytest.raises(UserError, match=r"video 'caf\\udce9': 'caf\\udce9' is not UTF-8; rename"):
        prepared(tmp_path / "out", [write_video(tmp_path, name, 2)])


def test_a_video_of_one_frame_has_no_motion(tmp_path):
    video = write_video(tmp_path, "v", 1, masks=(0,))
    with pytest.raises(UserError, match="only frame of video 'v'"):
        prepared(tmp_path / "out", [video])
    prepared(tmp_path / "out", [video], "drop")
    assert frames_of(tmp_path / "out")[0].flow() is None


@pytest.mark.parametrize(("videos", "arguments", "message"), [
    ([], {}, "'tree' has no frame"),
    ([{"masks": ()}], {"annotated_only": True}, "'tree' has no annotated frame"),
])
def test_nothing_to_prepare_is_told(tmp_path, videos, arguments, message):
    videos = [write_video(tmp_path, "v", 2, **fields) for fields in videos]
    with pytest.raises(UserError, match=message):
        prepared(tmp_path / "out", videos, **arguments)


def test_a_full_disk_is_told_and_a_later_run_goes_on(tmp_path):
    video = write_video(tmp_path, "v", 12)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # of one file: the shard is the only larger one
    try:
        with pytest.raises(UserError, match=r"1\.0\.0: cannot be written .*make space and run again"):
            prepared(tmp_path / "out", [video])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list((tmp_path / "out" / "cache").rglob("*.png"))) == 11
    prepared(tmp_path / "out", [video])
    assert len(frames_of(tmp_path / "out")) == 12


SCRIPT = """
import sys
from pathlib import Path
from video_trees import prepared, write_video
tree, out, cache = map(Path, sys.argv[1:])
videos = [write_video(tree, f"v{number}", 9, size=(120, 160), seed=number) for number in range(6)]
print("ready", flush=True)
prepared(out, videos, cache=cache)
print("done", flush=True)
"""


def start(tmp_path, tree, out):
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, tree, out, tmp_path / "cache"], env=environment,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def files(out):
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def cached(run):
    """Entries of the flow cache and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (run / "cache").rglob("*.png")}


def test_killed_at_any_moment_it_goes_on_to_the_same_files(tmp_path):
    with start(tmp_path / "whole", tmp_path / "tree", tmp_path / "whole" / "out") as process:
        assert process.stdout.readline() == "done\n"
    whole = files(tmp_path / "whole" / "out")
    assert len(whole) == 5  # index, lock, shard, features, dataset_info

    run, draw, kills = tmp_path / "run", random.Random(), 0
    for entries in (*sorted(draw.sample(range(47), 6)), 48):
        with start(run, tmp_path / "tree", run / "out") as process:
            while process.poll() is None and len(cached(run)) < entries:
                pass
            time.sleep(draw.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (run / "out" / "videos.json").exists():
            break
        kills += 1
        with pytest.raises(UserError, match="nothing was prepared there, or not to its end"):
            PreparedData(run / "out")
    before = cached(run)
    with start(run, tmp_path / "tree", run / "out") as process:
        assert process.stdout.readline() == "done\n"
    assert files(run / "out") == whole
    assert kills >= 3
    assert len(cached(run)) == 6 * 8 and before.items() <= cached(run).items()  # nothing was computed twice


def test_colours_are_stored_in_the_right_order(tmp_path):
    """OpenCV, which encodes, has blue first."""
    video = write_video(tmp_path, "v", 2, suffix=".bmp")
    path = video.frames["00000"]
    Image.fromarray(np.full((40, 48, 3), (250, 120, 3), np.uint8)).save(path)
    prepared(tmp_path / "out", [video], "drop")
    content = frames_of(tmp_path / "out")[0].encoded["image"]
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[0, 0].tolist() == [3, 120, 250]
