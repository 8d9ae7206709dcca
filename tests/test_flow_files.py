"""Flow of files, forward-backward consistency, and the methods that a config names."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from configs import base
from dattt_jax.errors import UserError
from dattt_jax.estimators import depth_method, flow_of_video, video_flow
from input_pipeline.flow import create_flow, flow_renderings, flow_to_rgb
from input_pipeline.flow.consistency import consistent, forward_backward, warp
from input_pipeline.flow.files import read_flow, read_rendering, write_flow

UNKNOWN = 1.7e9  # Middlebury's


def some_flow(height=3, width=4, seed=0):
    """Multiples of 1/64 pixel, which both formats hold exactly."""
    return np.random.default_rng(seed).integers(-3000, 3000, (height, width, 2)).astype(np.float32) / 64


def test_flo_is_what_the_format_says(tmp_path):
    path = tmp_path / "a.flo"
    path.write_bytes(b"PIEH" + struct.pack("<ii4f", 2, 1, 1.5, -2.0, UNKNOWN, UNKNOWN))
    np.testing.assert_array_equal(read_flow(path), [[[1.5, -2.0], [np.nan, np.nan]]])


def test_kitti_is_what_the_format_says(tmp_path):
    """Red is x, green is y, blue says whether it is known; 64 steps a pixel from 32768."""
    path = tmp_path / "a.png"
    red, green, blue = [[32768 + 96, 0]], [[32768 - 128, 0]], [[1, 0]]
    cv2.imwrite(str(path), np.dstack([blue, green, red]).astype(np.uint16))
    np.testing.assert_array_equal(read_flow(path), [[[1.5, -2.0], [np.nan, np.nan]]])


@pytest.mark.parametrize("suffix", [".flo", ".png"])
def test_flow_comes_back(tmp_path, suffix):
    flow = some_flow()
    flow[1, 2] = np.nan
    write_flow(tmp_path / f"a{suffix}", flow)
    np.testing.assert_array_equal(read_flow(tmp_path / f"a{suffix}"), flow)
    np.testing.assert_array_equal(read_rendering(tmp_path / f"a{suffix}"), flow_to_rgb(flow))


def test_renderings_are_taken_as_they_are(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rendering(tmp_path / "a.png"), rgb)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.flo", None, "cannot be read (No such file or directory)"),
        ("a.flo", b"PIEX" + bytes(16), "not a .flo file (it does not start with PIEH); replace it"),
        (
            "a.flo",
            b"PIEH" + struct.pack("<ii", 2, 1) + bytes(15),
            "not a whole .flo file: its header says 2x1, and it has 27 bytes; replace it",
        ),
        (
            "a.flo",
            b"PIEH" + struct.pack("<ii", -2, -1) + bytes(16),
            "not a whole .flo file: its header says -2x-1, and it has 28 bytes; replace it",
        ),
        ("a.png", b"", "not a whole PNG file; replace it"),
        (
            "a.png",
            cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes(),
            "not a flow of KITTI's format (PNG of three 16-bit channels)",
        ),
    ],
)
def test_files_that_are_not_flow(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_flow(path)
    assert str(raised.value) == f"{path}: {message}"


NAMES = ["b_01", "b_02", "c_10"]
FRAMES = [np.full((3, 4, 3), k, np.uint8) for k in range(3)]


def stored(folder, count=3):
    """Flow files of the first frames, each of another kind, in the order of the names; and what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    flows = [some_flow(seed=k) for k in range(3)]
    write_flow(folder / "b_01.flo", flows[0])
    write_flow(folder / "b_02.png", flows[1])
    renderings = [flow_to_rgb(flow) for flow in flows]
    if count == 3:
        Image.fromarray(renderings[2]).save(folder / "c_10.png")
    return renderings


def of_files(root, rule, video="v", frames=FRAMES):
    method = flow_of_video(create_flow("files", root=str(root)), video, NAMES)
    return list(flow_renderings(iter(frames), method, rule))


@pytest.mark.parametrize(
    ("count", "rule", "expected"),
    [
        (2, "repeat", [0, 1, 1]),
        (2, "drop", [0, 1]),
        (3, "drop", [0, 1]),
        (3, "repeat", [0, 1, 2]),
        (3, "backward", [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("folder", ["v", "."])
def test_files_are_found_by_the_names_of_the_frames(tmp_path, folder, count, rule, expected):
    renderings = stored(tmp_path / folder, count)
    pairs = of_files(tmp_path, rule)
    assert len(pairs) == len(expected)
    for k, (frame, rendering) in enumerate(pairs):
        np.testing.assert_array_equal(frame, FRAMES[k])
        np.testing.assert_array_equal(rendering, renderings[expected[k]])


def test_missing_files_are_named(tmp_path):
    stored(tmp_path, 2)
    with pytest.raises(
        UserError, match=r"no flow of 1 of 3 frames \(c_10\); files are named like their frames"
    ):
        of_files(tmp_path, "backward")
    (tmp_path / "b_02.png").unlink()
    with pytest.raises(UserError, match=r"no flow of 1 of 2 frames \(b_02\)"):
        of_files(tmp_path, "repeat")


def test_flow_of_another_size_is_refused(tmp_path):
    stored(tmp_path)
    with pytest.raises(
        UserError, match=r"b_01.flo: flow and frame are of different size, 4x3 and 5x3 \(width x"
    ):
        of_files(tmp_path, "drop", frames=[np.zeros((3, 5, 3), np.uint8)] * 3)


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"config\.flow\.root is empty: name the folder of the flow files"):
        create_flow("files")
    with pytest.raises(UserError, match=r"config.flow.root=.*/none: no such folder"):
        create_flow("files", root=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"config\.flow\.method=files knows flow by the names of frames"):
        create_flow("files", root=str(tmp_path))(*FRAMES[:2])


def moving_square():
    """A square that moves 3 to the right over a still ground, and the flow both ways."""
    forward = np.zeros((12, 20, 2), np.float32)
    forward[4:8, 4:8] = 3, 0
    backward = np.zeros((12, 20, 2), np.float32)
    backward[4:8, 7:11] = -3, 0
    return forward, backward


def test_ground_that_gets_covered_is_inconsistent():
    """x = 8, 9, 10 of the ground are under the square in the second frame."""
    forward, backward = moving_square()
    expected = np.ones((12, 20), bool)
    expected[4:8, 8:11] = False
    np.testing.assert_array_equal(consistent(forward, backward), expected)


def test_what_leaves_the_frame_or_is_unknown_is_inconsistent():
    flow = np.full((5, 6, 2), (2.0, 0.0), np.float32)
    expected = np.ones((5, 6), bool)
    expected[:, 4:] = False
    np.testing.assert_array_equal(consistent(flow, -flow), expected)
    flow[2, 1] = np.nan
    expected[2, 1] = False
    np.testing.assert_array_equal(consistent(flow, -np.full_like(flow, (2, 0))), expected)


def test_what_leaves_the_frame_by_less_than_the_allowed_miss():
    flow = np.full((5, 6, 2), (0.4, -0.4), np.float32)
    expected = np.ones((5, 6), bool)
    expected[:, 5] = expected[0] = False
    np.testing.assert_array_equal(consistent(flow, -flow), expected)


@pytest.mark.parametrize(("miss", "agrees"), [(0.69, True), (0.74, False)])
def test_the_allowed_miss(miss, agrees):
    """At no motion back, |f + b|² = miss² must be below 0.01 · miss² + 0.5: 0.7107."""
    flow = np.zeros((5, 6, 2), np.float32)
    flow[..., 1] = miss
    assert consistent(flow, np.zeros_like(flow))[2, 2] == agrees


def test_warp_fetches_from_where_a_pixel_goes():
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    flow = np.full((4, 5, 2), (1.5, 1.0), np.float32)
    np.testing.assert_allclose(warp(values, flow)[:3, :3], values[1:, 1:4] + 0.5)


def test_forward_and_backward_flow():
    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8), (0, 0), 2
    )
    forward, backward = forward_backward(create_flow("dis"), image[8:72, 8:92], image[8:72, 5:89])
    for flow, shift in ((forward, 3), (backward, -3)):
        np.testing.assert_allclose(np.median(flow, (0, 1)), (shift, 0), atol=0.1)
    assert consistent(forward, backward)[8:-8, 8:-8].mean() > 0.95


def test_a_config_names_the_methods(tmp_path):
    config = base.get_config()
    method = video_flow(config)
    assert method.identity == create_flow("dis").identity and flow_of_video(method, "v", NAMES) is method
    assert depth_method(config) is None
    config.flow.method, config.flow.root = "files", str(tmp_path)
    assert video_flow(config).identity == f"files({tmp_path})"


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        (
            "flow",
            {"weights": "a"},
            "config.flow.weights=a is of no use to config.flow.method=dis: set it to '' or "
            "name another method",
        ),
        (
            "flow",
            {"method": "raft_small", "root": "a"},
            "config.flow.root=a is of no use to config.flow.method=raft_sm",
        ),
        (
            "flow",
            {"method": "raft"},
            "unknown flow method 'raft': use one of dis, raft_small, raft_large, files",
        ),
        ("flow", {"method": "raft_large"}, "config.flow.weights is empty: 'raft_large' needs weights"),
        (
            "depth",
            {"method": "lite_mono", "kind": "metric"},
            "config.depth.kind=metric is of no use to config.depth.me",
        ),
        (
            "depth",
            {"method": "zoe"},
            "unknown depth method 'zoe': use one of lite_mono, lite_mono_small, lite_mono_ti",
        ),
        ("depth", {"method": "monodepth2"}, "config.depth.weights is empty: 'monodepth2' needs weights"),
    ],
)
def test_what_a_config_can_get_wrong(section, fields, message):
    config = base.get_config()
    config[section].update(fields)
    with pytest.raises(UserError) as raised:
        {"flow": video_flow, "depth": depth_method}[section](config)
    assert str(raised.value).startswith(message)
