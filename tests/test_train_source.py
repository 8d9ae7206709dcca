"""Samples of prepared data: Pillow's own resizing, what is left out, names, and Grain."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from golden import recipe
from PIL import Image
from video_trees import prepared, write_video

from dattt_jax.errors import UserError
from input_pipeline.datasets.prepared import PreparedData
from input_pipeline.datasets.train_source import PreparedTrainSource
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.loader import make_loader
from input_pipeline.synthetic import SyntheticConfig, SyntheticTrainSource

GEOMETRY = np.load(Path(__file__).parent / "golden" / "geometry.npz")


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """Two videos with 5 annotated frames, of which one, the last of 'b', has no flow."""
    folder = tmp_path_factory.mktemp("sparse")
    videos = [write_video(folder, "a", 6, masks=(0, 2, 5)), write_video(folder, "b", 4, masks=(1, 3), seed=1)]
    flow = folder / "flow.png"  # the data set's own flow of the last frame, which 'drop' does not drop
    Image.fromarray(np.full((40, 48, 3), 9, np.uint8)).save(flow)
    videos[0] = VideoFiles("a", videos[0].frames, videos[0].masks, flows={"00005": flow})
    prepared(folder / "out", videos, "drop")
    return folder / "out"


def test_samples_equal_the_authors_transforms(tmp_path):
    """Recorded results of Pillow and PyTorch on these very inputs."""
    inputs = {"frame": recipe.frame("train_tf", 120, 214),
              "mask": recipe.blobs("train_tf", 120, 214) * np.uint8(255),
              "depth": recipe.frame("train_tf_depth", 120, 214)[:, :, 0]}
    paths = {name: tmp_path / f"{name}.png" for name in inputs}
    for name, image in inputs.items():
        Image.fromarray(image).save(paths[name])
    video = VideoFiles("v", {"1": paths["frame"]}, {"1": (paths["mask"],)}, {"1": paths["frame"]},
                       {"1": paths["depth"]})
    prepared(tmp_path / "out", [video])
    sample = PreparedTrainSource(tmp_path / "out", (96, 96), require_depth=True)[0]
    assert {name: (value.shape, value.dtype) for name, value in sample.items()} == {
        "image": ((96, 96, 3), np.uint8), "flow": ((96, 96, 3), np.uint8), "mask": ((96, 96, 1), np.uint8),
        "depth": ((96, 96, 1), np.float32)}
    np.testing.assert_array_equal(sample["image"], GEOMETRY["train_image_96"])
    np.testing.assert_array_equal(sample["flow"], GEOMETRY["train_image_96"])
    np.testing.assert_array_equal(sample["mask"][..., 0], GEOMETRY["train_gt_96"] > 0)
    np.testing.assert_allclose(sample["depth"][..., 0], GEOMETRY["train_depth_bicubic_96"][0], atol=1e-5)


def test_depth_is_not_clamped(tmp_path):
    depth = tmp_path / "depth.npy"
    np.save(depth, np.repeat([[0.0, 1.0]], 40, 0).repeat(24, 1))
    video = write_video(tmp_path, "v", 2, masks=(0,), depths={"00000": depth})
    prepared(tmp_path / "out", [video])
    sample = PreparedTrainSource(tmp_path / "out", (40, 100), require_depth=True)[0]
    assert sample["depth"].min() < -0.05 and sample["depth"].max() > 1.05


def test_annotated_frames_with_flow_are_the_samples(sparse):
    source = PreparedTrainSource(sparse, (32, 64), require_depth=False)
    assert list(map(source.name, range(len(source)))) == ["a/00000", "a/00002", "a/00005", "b/00001"]
    data = PreparedData(sparse)
    for index, place in enumerate((0, 2, 5, 7)):
        sample = source[index]
        assert set(sample) == {"image", "flow", "mask"}
        image = Image.fromarray(data[place].image()).resize((64, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(sample["image"], np.asarray(image))
        mask = Image.fromarray(data[place].mask().astype(np.uint8)).resize((64, 32), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(sample["mask"][..., 0], np.asarray(mask))
        assert set(np.unique(sample["mask"])) == {0, 1}
    for index in (-1, 4):
        with pytest.raises(IndexError):
            source[index]


def test_missing_depth_and_missing_samples_are_told(sparse, tmp_path):
    with pytest.raises(UserError, match=r"a/00000 has no depth map: .*config\.train\.depth_weight=0"):
        PreparedTrainSource(sparse, (32, 32), require_depth=True)
    prepared(tmp_path / "out", [write_video(tmp_path, "v", 3, masks=(2,))], "drop")
    with pytest.raises(UserError, match="no frame has both a mask and flow"):
        PreparedTrainSource(tmp_path / "out", (32, 32), require_depth=False)


def test_grain_goes_on_with_exactly_the_next_batches(sparse):
    def loader():
        source = pickle.loads(pickle.dumps(PreparedTrainSource(sparse, (32, 32), require_depth=False)))
        return make_loader(source, batch_size=3, seed=2, num_threads=3)

    whole = list(itertools.islice(loader(), 9))
    part = loader()
    for batch in whole[:4]:
        np.testing.assert_equal(next(part), batch)
    resumed = loader()
    resumed.set_state(part.get_state())
    for batch in whole[4:]:
        np.testing.assert_equal(next(resumed), batch)
    assert whole[0]["image"].shape == (3, 32, 32, 3)


def test_synthetic_samples_are_named_by_clip_and_frame():
    source = SyntheticTrainSource(SyntheticConfig(size=(32, 32), num_frames=7), 3, 50, "exact")
    names = [source.name(index) for index in range(50)]
    assert names[12].startswith("synthetic_00012/")
    assert {int(name.split("/")[1]) for name in names} == set(range(7))
