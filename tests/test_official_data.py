"""Every data set from its own official layout through `--mode=prepare` to the samples that are trained on."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import base
from dattt_jax.prepare import prepare
from input_pipeline.datasets import DATASETS
from input_pipeline.datasets.prepared import PreparedData
from input_pipeline.datasets.train_source import PreparedTrainSource

SIZE = (40, 48)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]


def objects():
    """Object numbers 0, 1 and 2; on JPEG's grid of 8 pixels, so that JPEG masks are exact."""
    numbers = np.zeros(SIZE, np.uint8)
    numbers[8:16, 8:24] = 1
    numbers[24:32, 32:40] = 2
    return numbers


def save(path, values, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image.putpalette(PALETTE)
    image.save(path)


def save_frames(root, *paths):
    for seed, path in enumerate(paths):
        save(root / path, np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)))


def davis16(root):
    """DAVIS 2017's folders with DAVIS 2016's list: palettes, and videos that are no part of 2016."""
    for video in ("camel", "bike-packing"):
        save_frames(root, *(f"JPEGImages/480p/{video}/{t:05d}.jpg" for t in range(3)))
        for t in range(3):
            save(root / f"Annotations/480p/{video}/{t:05d}.png", objects(), palette=True)
    (root / "ImageSets/2016").mkdir(parents=True)
    (root / "ImageSets/2016/val.txt").write_text("camel\n")
    return {"camel": (3, [0, 1, 2])}


def youtube_vos(root):
    """Palettes, every 5th frame, classes in meta.json."""
    save_frames(root, *(f"train/JPEGImages/003234408d/{t:05d}.jpg" for t in (0, 5, 10)))
    for t in (0, 5, 10):
        save(root / f"train/Annotations/003234408d/{t:05d}.png", objects(), palette=True)
    penguins = {number: {"category": "penguin"} for number in "12"}
    (root / "train/meta.json").write_text(json.dumps({"videos": {"003234408d": {"objects": penguins}}}))
    return {"003234408d": (3, [0, 1, 2])}


def fbms(root):
    """Both naming schemes, 1-based, sparse; a file of probabilities that is no mask."""
    new, old = root / "Testset/cats01", root / "Testset/marple2"
    save_frames(new, *(f"cats01_{t:04d}.jpg" for t in range(1, 5)))
    colors = np.array([(255, 255, 255), (255, 0, 0), (0, 0, 0)])[objects()]
    save(new / "GroundTruth/cats01_0001_gt.ppm", colors)
    save(new / "GroundTruth/cats01_0003_gt.ppm", colors)
    save(new / "GroundTruth/cats01_0002_PROB_gt.ppm", colors)
    save_frames(old, *(f"marple2_{t:02d}.jpg" for t in range(1, 4)))
    save(old / "GroundTruth/002_gt.pgm", np.array([0, 85, 255])[objects()])
    return {"cats01": (4, [0, 2]), "marple2": (3, [1])}


def long_videos(root):
    """Sparse masks."""
    save_frames(root, *(f"JPEGImages/blueboy/{t:05d}.jpg" for t in range(6)))
    for t in (0, 4):
        save(root / f"Annotations/blueboy/{t:05d}.png", objects(), palette=True)
    return {"blueboy": (6, [0, 4])}


def mcl(root):
    save_frames(root, *(f"boat/Imgs/{t:04d}.jpg" for t in range(3)))
    for t in (0, 2):
        save(root / f"boat/ground-truth/{t:04d}.png", 255 * (objects() > 0))
    return {"boat": (3, [0, 2])}


def segtrack_v2(root):
    """A folder per object, mixed formats; and a video with one object, without such folders."""
    save_frames(root, *(f"JPEGImages/bmx/bmx_0666{t}.png" for t in (8, 9)))
    for t in (8, 9):
        save(root / f"GroundTruth/bmx/1/bmx_0666{t}.png", 255 * (objects() == 1))
        save(root / f"GroundTruth/bmx/2/bmx_0666{t}.bmp", 255 * (objects() == 2))
    save_frames(root, *(f"JPEGImages/girl/5117-8_7016{t}.bmp" for t in (1, 2)))
    save(root / "GroundTruth/girl/5117-8_70162.bmp", 255 * (objects() > 0))
    return {"bmx": (2, [0, 1]), "girl": (2, [1])}


def youtube_objects(root):
    shot = "aeroplane/data/0012/shots/001"
    save_frames(root, *(f"{shot}/images/{t:05d}.jpg" for t in (1, 11, 21)))
    save(root / f"{shot}/labels/00011.jpg", 255 * (objects() > 0))
    return {"aeroplane_0012_001": (3, [1])}


def folder(root):
    """A frame's name may hold the separator of the flat layout."""
    save_frames(root, *(f"frame/bird_of_paradise_{t:05d}.png" for t in range(2)))
    save(root / "mask/bird_of_paradise_00001.png", 255 * (objects() > 0))
    return {"bird_of_paradise": (2, [1])}


TREES = (davis16, youtube_vos, fbms, long_videos, mcl, segtrack_v2, youtube_objects, folder)


def test_every_data_set_is_here():
    assert {tree.__name__ for tree in TREES} == set(DATASETS)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.__name__)
def test_from_the_official_layout_to_samples(tree, tmp_path):
    expected = tree(tmp_path / "official")
    config = base.get_config()
    config.data.update({"dataset": tree.__name__, "root": str(tmp_path / "official")})
    prepare(config, tmp_path / "prepared")
    data = PreparedData(tmp_path / "prepared")
    assert {video.name: (len(video.frame_names), list(video.annotated)) for video in data.videos} == expected
    for video in data.videos:
        assert video.size == SIZE and list(video.flow) == list(range(len(video.frame_names)))
        for index in video.annotated:
            np.testing.assert_array_equal(data[video.first + index].mask(), objects() > 0)
    source = PreparedTrainSource(tmp_path / "prepared", SIZE, require_depth=False)
    assert len(source) == sum(len(annotated) for _, annotated in expected.values())
    np.testing.assert_array_equal(source[0]["mask"][..., 0], objects() > 0)

