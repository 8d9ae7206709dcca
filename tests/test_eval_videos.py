"""Videos for evaluation: ground truth as the protocol decodes it, flow of the frames that are seen."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from configs import base
from dattt_jax.errors import UserError
from dattt_jax.estimators import flow_of_video
from dattt_jax.eval_data import data_name, eval_entries
from dattt_jax.metrics.protocols import PROTOCOLS
from input_pipeline.datasets import VideoFiles
from input_pipeline.eval_pairs import evaluated_frames, frame_pairs, uses_stored_flow
from input_pipeline.eval_videos import ImageFiles, file_entries
from input_pipeline.flow import create_flow, flow_renderings
from input_pipeline.flow.colorwheel import flow_to_rgb
from input_pipeline.flow.files import write_flow
from input_pipeline.flow.nearby import NearbyFlow
from input_pipeline.frame_checks import check_files

HEIGHT, WIDTH = 40, 50


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def files(root, count=5, masks=(1, 3), flows=()):
    """A video of noise that moves, with one object of grey 100 and another of 200 in two files per frame."""
    texture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    names = [f"{t:02d}" for t in range(count)]
    frames = {name: save(root / "frames" / f"{name}.png", np.roll(texture, 2 * t, 1))
              for t, name in enumerate(names)}
    objects = {100: np.s_[:, :10], 200: np.s_[:, 20:]}
    found = {}
    for name in (names[t] for t in masks):
        paths = []
        for level, place in objects.items():
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[place] = level
            paths.append(save(root / f"mask{level}" / f"{name}.png", mask))
        found[name] = tuple(paths)
    stored = {names[t]: save(root / "flow" / f"{names[t]}.png", np.full((HEIGHT, WIDTH, 3), t, np.uint8))
              for t in flows}
    return VideoFiles("cat", frames, found, stored)


def opened(video, protocol="all"):
    entry, = file_entries([video], PROTOCOLS[protocol])
    assert (entry.name, entry.num_frames, entry.num_annotated) == ("cat", len(video.frames), len(video.masks))
    return entry.open()


def test_objects_of_all_files_are_united_as_the_protocol_decodes_them(tmp_path):
    video = files(tmp_path)
    columns = {protocol: np.flatnonzero(opened(video, protocol).target("01").all(0)).tolist()
               for protocol in ("all", "dattt")}
    assert columns == {"all": [*range(10), *range(20, WIDTH)], "dattt": [*range(20, WIDTH)]}
    assert opened(video).target("00") is None and list(opened(video).annotated) == ["01", "03"]


def test_object_numbers_are_objects_under_every_protocol(tmp_path):
    video = files(tmp_path)
    for paths in video.masks.values():
        for path, number in zip(paths, (1, 7), strict=True):
            save(path, (np.asarray(Image.open(path)) > 0).astype(np.uint8) * np.uint8(number))
    for protocol in ("all", "dattt"):
        assert opened(video, protocol).target("03").sum() == 40 * HEIGHT


def test_colours_of_fbms_are_read_by_its_own_convention(tmp_path):
    video = files(tmp_path, masks=())
    colours = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    colours[:5] = (0, 100, 0)  # white is the background there
    mask = {"02": (save(tmp_path / "02.ppm", colours),)}
    video = dataclasses.replace(video, masks=mask, dataset="fbms")
    for protocol in ("all", "dattt"):
        np.testing.assert_array_equal(opened(video, protocol).target("02"), colours[..., 0] == 0)


def test_ground_truth_of_another_size_is_brought_to_the_frame_where_the_protocol_says_so(tmp_path):
    video = files(tmp_path, masks=[1])
    for path in video.masks["01"]:
        save(path, np.kron(np.asarray(Image.open(path)), np.ones((2, 2), np.uint8)))
    assert opened(video, "mtnet-fbms").target("01").shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(opened(video, "mtnet-fbms").target("01").all(0), np.arange(WIDTH) >= 20)
    with pytest.raises(UserError, match=r"01\.png is 100x80 .*its frame 50x40; protocol all compares at"):
        opened(video)


@pytest.mark.parametrize("last_frame", ["repeat", "backward", "drop"])
@pytest.mark.parametrize("annotated_only", [False, True])
def test_computed_flow_is_that_between_neighbours(tmp_path, last_frame, annotated_only):
    video = opened(files(tmp_path, masks=(1, 3, 4)))
    wanted = evaluated_frames(video, last_frame, annotated_only)
    assert wanted == [t for t in ((1, 3, 4) if annotated_only else range(5)) if last_frame != "drop" or t < 4]
    method = create_flow("dis")
    everything = list(flow_renderings(video.frames, method, last_frame))
    found = list(frame_pairs(video, wanted, method, last_frame))
    assert len(found) == len(wanted)
    for index, pair in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(pair, everything[index])


def test_only_wanted_flow_is_computed(tmp_path):
    calls = []
    dis = create_flow("dis")

    class Counting:
        identity = "counting"

        def __call__(self, image0, image1):
            calls.append(None)
            return dis(image0, image1)

    video = opened(files(tmp_path, count=8))
    assert len(list(frame_pairs(video, [1, 5], Counting(), "repeat"))) == 2
    assert len(calls) == 2


@pytest.mark.parametrize(("flows", "last_frame", "wanted", "expected"), [
    (range(5), "repeat", range(5), [0, 1, 2, 3, 4]),
    (range(4), "repeat", range(5), [0, 1, 2, 3, 3]),
    (range(4), "drop", range(4), [0, 1, 2, 3]),
    (range(4), "repeat", [1, 4], [1, 3]),
    (range(5), "backward", [2, 4], [2, 4]),
])
def test_stored_flow_is_used_where_it_is_complete(tmp_path, flows, last_frame, wanted, expected):
    video = opened(files(tmp_path, flows=flows))
    pairs = list(frame_pairs(video, wanted, create_flow("dis"), last_frame))
    assert [int(flow[0, 0, 0]) for _, flow in pairs] == expected
    frames = list(video.frames)
    for index, (frame, _) in zip(wanted, pairs, strict=True):
        np.testing.assert_array_equal(frame, frames[index])


def test_flow_files_that_are_named_come_before_those_of_the_data_set(tmp_path):
    video = opened(files(tmp_path, flows=range(5)))
    for t in range(5):
        save(tmp_path / "other" / "cat" / f"{t:02d}.png", np.full((HEIGHT, WIDTH, 3), 50 + t, np.uint8))
    method = create_flow("files", root=str(tmp_path / "other"))
    assert uses_stored_flow(video, create_flow("dis")) and not uses_stored_flow(video, method)
    pairs = list(frame_pairs(video, [1, 4], flow_of_video(method, "cat", video.frame_names), "repeat"))
    assert [int(flow[0, 0, 0]) for _, flow in pairs] == [51, 54]


def test_stored_flow_has_its_limits(tmp_path):
    assert opened(files(tmp_path / "a", flows=(0, 1, 3))).flow is None  # frame 2 has none: all is computed
    video = opened(files(tmp_path / "b", flows=range(4)))
    with pytest.raises(UserError, match=r"cat: there is no stored flow of its last frame.*use 'repeat' or"):
        list(frame_pairs(video, range(5), create_flow("dis"), "backward"))
    assert len(list(frame_pairs(video, range(4), create_flow("dis"), "backward"))) == 4


def test_stored_flow_of_another_size_is_made_as_large_as_the_frames(tmp_path):
    video = files(tmp_path, flows=range(5))
    ramp = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[None, :, None], 3, 2)  # half as wide, and lower
    save(video.flows["01"], np.repeat(ramp, 8, 0))
    [(frame, flow)] = frame_pairs(opened(dataclasses.replace(video, flows={
        name: video.flows["01"] for name in video.frames})), [1], create_flow("dis"), "repeat")
    assert flow.shape == frame.shape
    between = np.broadcast_to([[97.5], [102.5], [107.5]], (HEIGHT, 3, 3))  # a quarter and three quarters
    np.testing.assert_allclose(flow[:, 20:23], between, atol=0.5)


def test_stored_flow_may_be_flow_itself(tmp_path):
    video = files(tmp_path, count=2, masks=(0,), flows=range(1))
    motion = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    motion[10:20, 10:20] = 6, -3
    expected = flow_to_rgb(motion)
    for suffix in (".flo", ".png"):
        path = tmp_path / f"motion{suffix}"
        write_flow(path, motion)
        flows = {"00": path}
        [(_, found)] = frame_pairs(opened(dataclasses.replace(video, flows=flows)), [0], create_flow("dis"),
                                   "repeat")
        np.testing.assert_array_equal(found, expected)
        assert check_files(dataclasses.replace(video, flows=flows, masks={}), "00").problems == ()


def test_a_video_of_one_frame_is_named(tmp_path):
    for method in (create_flow("dis"), NearbyFlow([create_flow("dis")], (1, -1))):
        with pytest.raises(UserError, match=r"^cat: a video of one frame shows no motion; leave it out"):
            frame_pairs(opened(files(tmp_path, count=1, masks=(0,))), [0], method, "repeat")


def test_images_of_another_size_are_named(tmp_path):
    paths = [save(tmp_path / f"{i}.png", np.zeros((4 + i, 5, 3), np.uint8)) for i in range(2)]
    with pytest.raises(UserError, match=r"1\.png is 5x5 .*before it 5x4"):
        list(ImageFiles(paths))


def test_prepared_videos_bring_their_flow_and_masks(tmp_path):
    from input_pipeline.datasets.prepare import prepare_videos

    video = dataclasses.replace(files(tmp_path / "raw"), category="cat")
    video = dataclasses.replace(video, masks={name: paths[1:] for name, paths in video.masks.items()})
    settings = {"dataset": "folder", "root": "raw", "split": "all", "depth": {"method": ""},
                "flow": {"method": "dis", "last_frame": "repeat", "stabilized": False}}
    prepare_videos([video], tmp_path / "out", settings=settings, flow_method=create_flow("dis"))
    config = base.get_config()
    config.data.dataset, config.data.root = "prepared", str(tmp_path / "out")
    entry, = eval_entries(config)
    found, raw = entry.open(), opened(video)
    assert (found.name, list(found.frame_names), found.category) == ("cat", raw.frame_names, "cat")
    assert (entry.num_annotated, list(found.annotated)) == (2, ["01", "03"])
    expected = list(flow_renderings(raw.frames, create_flow("dis"), "repeat"))
    pairs = list(frame_pairs(found, range(5), create_flow("dis"), "repeat"))
    assert found.flow is not None
    np.testing.assert_array_equal(pairs, expected)
    assert found.target("00") is None and found.target("01").shape == (HEIGHT, WIDTH)
    assert data_name(config) == str(tmp_path / "out")
    settings["flow"]["stabilized"] = True  # is not the plain flow that data sets bring
    prepare_videos([video], tmp_path / "still", settings=settings, flow_method=create_flow("dis"))
    config.data.root = str(tmp_path / "still")
    assert eval_entries(config)[0].open().flow is None
