"""Every data set in its own official layout and quirks, and in the processed layouts."""

import json

import numpy as np
import pytest
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.datasets import DATASETS, decode_masks, find_videos, list_videos, own_convention
from input_pipeline.datasets.layouts.pairing import pair_files

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # DAVIS' first colours: background and three objects


def touch(folder, *names):
    """Empty files: finding reads none of them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def save(path, values, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image.putpalette(PALETTE)
    image.save(path)


def names(paths, root):
    return {key: tuple(str(p.relative_to(root)) for p in value) if isinstance(value, tuple)
            else str(value.relative_to(root)) for key, value in paths.items()}


def test_davis_2016(tmp_path):
    for video, split in (("bear", "train"), ("camel", "val"), ("goat", "val")):
        touch(tmp_path, f"JPEGImages/480p/{video}/00000.jpg", f"JPEGImages/1080p/{video}/00000.jpg",
              f"Annotations/480p/{video}/00000.png", f"Annotations/1080p/{video}/00000.png")
        path = tmp_path / "ImageSets" / "480p" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"/JPEGImages/480p/{video}/00000.jpg /Annotations/480p/{video}/00000.png \n")
    camel, goat = find_videos("davis16", tmp_path)
    assert (camel.name, goat.name) == ("camel", "goat")
    assert names(camel.frames, tmp_path) == {"00000": "JPEGImages/480p/camel/00000.jpg"}
    assert names(camel.masks, tmp_path) == {"00000": ("Annotations/480p/camel/00000.png",)}
    assert [video.name for video in find_videos("davis16", tmp_path, "train")] == ["bear"]


def test_davis_2017_has_numbers_and_lists_of_its_own(tmp_path):
    for video in ("bike-packing", "camel", "dog"):
        touch(tmp_path, f"JPEGImages/480p/{video}/00000.jpg")
        save(tmp_path / f"Annotations/480p/{video}/00000.png", [[0, 1, 2, 3]], palette=True)
    (tmp_path / "ImageSets" / "2016").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017").mkdir()
    (tmp_path / "ImageSets" / "2016" / "val.txt").write_text("camel\ndog\nsoapbox\n")
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("bike-packing\n")
    listing = list_videos("davis16", tmp_path, "val")
    assert [video.name for video in listing.videos] == ["camel", "dog"]
    assert listing.missing_videos == ("soapbox",)
    assert not listing.orphans  # bike-packing is another split's, not nobody's
    mask = decode_masks(listing.videos[0].masks["00000"], "davis16")
    assert mask.tolist() == [[False, True, True, True]]


def test_ground_truth_of_the_unsupervised_task_is_not_that_of_davis_16(tmp_path):
    touch(tmp_path, "JPEGImages/480p/camel/00000.jpg")
    save(tmp_path / "Annotations_unsupervised/480p/camel/00000.png", [[0, 1, 255, 255]], palette=True)
    [camel] = find_videos("davis16", tmp_path, "val")
    assert not camel.masks


def test_davis_without_lists_uses_the_published_ones(tmp_path):
    touch(tmp_path, *(f"JPEGImages/480p/{v}/00000.jpg" for v in ("bear", "camel", "bike-packing")))
    assert [video.name for video in find_videos("davis16", tmp_path, "val")] == ["camel"]
    assert [video.name for video in find_videos("davis16", tmp_path, "train")] == ["bear"]
    assert len(list_videos("davis16", tmp_path, "train").missing_videos) == 29


def youtube_vos_tree(root):
    for frame in range(0, 20, 5):
        touch(root / "train/JPEGImages", f"003234408d/{frame:05d}.jpg", f"0043f083b5/{frame:05d}.jpg")
        save(root / f"train/Annotations/003234408d/{frame:05d}.png", [[0, 1, 3]], palette=True)
    for frame in range(17):
        touch(root, f"train_all_frames/JPEGImages/003234408d/{frame:05d}.jpg")
    meta = {"videos": {
        "003234408d": {"objects": {str(i): {"category": "penguin", "frames": ["00000"]} for i in (1, 2)}},
        "0043f083b5": {"objects": {"1": {"category": "dog"}, "2": {"category": "person"}}},
        "fffe5f8df6": {"objects": {"1": {"category": "zebra"}}}}}
    (root / "train" / "meta.json").write_text(json.dumps(meta))


def test_youtube_vos(tmp_path):
    youtube_vos_tree(tmp_path)
    for root in (tmp_path, tmp_path / "train"):
        listing = list_videos("youtube_vos", root)
        first, second = listing.videos
        assert list(first.frames) == list(first.masks) == ["00000", "00005", "00010", "00015"]
        assert (first.category, second.category) == ("penguin", "")  # two classes are none
        assert not second.masks
        assert listing.missing_videos == ("fffe5f8df6",)
        assert decode_masks(first.masks["00005"], "youtube_vos").tolist() == [[False, True, True]]
        (video,) = find_videos("youtube_vos", root, "train_all_frames")
        assert len(video.frames) == 17
        assert list(video.masks) == ["00000", "00005", "00010", "00015"]


def test_youtube_vos_with_damaged_meta(tmp_path):
    youtube_vos_tree(tmp_path)
    (tmp_path / "train" / "meta.json").write_text('{"videos": ')
    with pytest.raises(UserError, match=r"meta\.json: damaged"):
        find_videos("youtube_vos", tmp_path)


def fbms_tree(root):
    """One video of each naming scheme, both 1-based."""
    new, old = root / "Testset" / "cats01", root / "Testset" / "marple2"
    touch(new, *(f"cats01_{i:04d}.jpg" for i in range(1, 42)), "GroundTruth/cats01Def.dat",
          "GroundTruth/cats01_0001_PROB_gt.ppm", "OchsBroxMalik8/cats01_0001.ppm")
    for frame, color in ((1, (255, 0, 0)), (20, (0, 0, 0)), (40, (128, 255, 255))):
        save(new / "GroundTruth" / f"cats01_{frame:04d}_gt.ppm", [[(255, 255, 255), color]])
    touch(old, *(f"marple2_{i:02d}.jpg" for i in range(1, 13)))
    for name in ("001_gt.pgm", "marple2_010.pgm"):
        save(old / "GroundTruth" / name, [[0, 85, 255]])
    touch(root, "Trainingset/bear01/bear01_0001.jpg")


def test_fbms(tmp_path):
    fbms_tree(tmp_path)
    for root in (tmp_path, tmp_path / "Testset"):
        listing = list_videos("fbms", root)
        new, old = listing.videos
        assert (new.name, old.name) == ("cats01", "marple2")
        assert len(new.frames) == 41 and len(old.frames) == 12
        assert list(old.frames)[:2] == ["marple2_01", "marple2_02"]
        # 1-based numbers are paired as they are, PROB files are no masks.
        assert {frame: paths[0].name for frame, paths in new.masks.items()} == {
            "cats01_0001": "cats01_0001_gt.ppm", "cats01_0020": "cats01_0020_gt.ppm",
            "cats01_0040": "cats01_0040_gt.ppm"}
        assert {frame: paths[0].name for frame, paths in old.masks.items()} == {
            "marple2_01": "001_gt.pgm", "marple2_10": "marple2_010.pgm"}
        assert not listing.orphans
    assert [video.name for video in find_videos("fbms", tmp_path, "train")] == ["bear01"]


def test_fbms_colours(tmp_path):
    fbms_tree(tmp_path)
    new, old = find_videos("fbms", tmp_path)
    for frame in ("cats01_0001", "cats01_0020", "cats01_0040"):  # white is background, even of a black object
        assert decode_masks(new.masks[frame], new.dataset).tolist() == [[False, True]]
    assert decode_masks(old.masks["marple2_01"], old.dataset).tolist() == [[False, True, True]]
    save(tmp_path / "processed.png", [[0, 255]])
    assert decode_masks((tmp_path / "processed.png",), "fbms").tolist() == [[False, True]]
    assert own_convention(tmp_path / "processed.png", "fbms") is None
    assert own_convention(old.masks["marple2_01"][0], "folder") is None


def test_long_videos_are_sparse(tmp_path):
    touch(tmp_path, *(f"JPEGImages/blueboy/{i:05d}.jpg" for i in range(200)),
          *(f"Annotations/blueboy/{i:05d}.png" for i in (0, 107, 199)))
    (video,) = find_videos("long_videos", tmp_path)
    assert (video.name, len(video.frames)) == ("blueboy", 200)
    assert list(video.masks) == ["00000", "00107", "00199"]


def test_mcl(tmp_path):
    touch(tmp_path, *(f"boat/Imgs/{i:04d}.jpg" for i in range(9)), "boat/ground-truth/0000.png",
          "boat/ground-truth/0008.png", "road/Imgs/0000.jpg", "road/ground-truth/0000.png")
    boat, road = find_videos("mcl", tmp_path)
    assert (boat.name, road.name) == ("boat", "road")
    assert list(boat.masks) == ["0000", "0008"]


def test_segtrack_v2_unites_objects_of_any_format(tmp_path):
    touch(tmp_path, "JPEGImages/bmx/bmx_06668.png", "JPEGImages/bmx/bmx_06669.png",
          "JPEGImages/girl/5117-8_70161.bmp", "JPEGImages/girl/5117-8_70162.bmp")
    save(tmp_path / "GroundTruth/bmx/1/bmx_06668.png", [[255, 0, 0]])
    save(tmp_path / "GroundTruth/bmx/2/bmx_06668.bmp", [[0, 255, 0]])
    save(tmp_path / "GroundTruth/girl/5117-8_70162.bmp", [[255]])
    bmx, girl = find_videos("segtrack_v2", tmp_path)
    assert names(bmx.masks, tmp_path) == {
        "bmx_06668": ("GroundTruth/bmx/1/bmx_06668.png", "GroundTruth/bmx/2/bmx_06668.bmp")}
    assert decode_masks(bmx.masks["bmx_06668"], "segtrack_v2").tolist() == [[True, True, False]]
    assert list(girl.masks) == ["5117-8_70162"]


def test_youtube_objects(tmp_path):
    shot = "aeroplane/data/0012/shots/001"
    touch(tmp_path, *(f"{shot}/images/{i:05d}.jpg" for i in (1, 11, 21)), f"{shot}/labels/00011.jpg",
          "car/data/0001/shots/002/frame0001.jpg", "car/data/0001/shots/002/frame0002.jpg",
          "car/data/0001/shots/002/labels/00002.jpg", "car/data/0001/shots/003/frame0001.jpg")
    plane, car = find_videos("youtube_objects", tmp_path)  # a shot without labels is no part of it
    assert (plane.name, plane.category) == ("aeroplane_0012_001", "aeroplane")
    assert list(plane.frames) == ["00001", "00011", "00021"]
    assert list(plane.masks) == ["00011"]
    assert (car.name, car.category) == ("car_0001_002", "car")
    assert names(car.masks, tmp_path) == {"frame0002": ("car/data/0001/shots/002/labels/00002.jpg",)}


def test_youtube_objects_in_two_folders(tmp_path):
    touch(tmp_path, "JPEGImages/cat0003/00001.jpg", "Annotations/cat0003/00001.png")
    (video,) = find_videos("youtube_objects", tmp_path)
    assert (video.name, video.category) == ("cat0003", "cat")


@pytest.mark.parametrize("plural", ["", "s"])
@pytest.mark.parametrize("flat", [True, False])
def test_processed(tmp_path, plural, flat):
    def put(part, frame, suffix):
        name = f"bird_of_paradise_{frame}" if flat else f"bird_of_paradise/{frame}"
        touch(tmp_path / (part + plural), name + suffix)

    for index in range(12):
        put("frame", f"{index:05d}", ".jpg")
    for index in range(11):
        if index != 3:  # one missing file shifts nothing
            put("flow", f"{index:05d}", ".png")
    put("mask", "00005", ".png")
    put("depth", "00004", ".npy")
    put("depth", "00005", ".png")
    for dataset in ("folder", "youtube_vos", "fbms", "segtrack_v2"):
        (video,) = find_videos(dataset, tmp_path)
        assert video.name == "bird_of_paradise"
        assert video.dataset == dataset
        assert list(video.frames) == [f"{i:05d}" for i in range(12)]
        assert list(video.flows) == [f"{i:05d}" for i in range(11) if i != 3]
        assert list(video.masks) == ["00005"]
        assert list(video.depths) == ["00004", "00005"]
        assert all(frame in path.stem for frame, path in {**video.flows, **video.depths}.items())


def test_processed_davis_keeps_the_split(tmp_path):
    touch(tmp_path, "frame/bear_00000.jpg", "frame/camel_00000.jpg", "mask/bear_00000.png",
          "mask/camel_00000.png")
    listing = list_videos("davis16", tmp_path, "val")
    assert [video.name for video in listing.videos] == ["camel"]
    assert not listing.orphans
    assert len(listing.missing_videos) == 19


def test_masks_of_videos_of_other_splits_are_no_orphans(tmp_path):
    touch(tmp_path, "frame/camel/00000.jpg", "mask/camel/00000.png", "mask/tuk-tuk/00000.png",
          "mask/goat/00000.png")
    (orphan,) = list_videos("davis16", tmp_path, "val").orphans
    assert "there is no video 'goat'" in orphan


def test_processed_fbms_skips_probabilities(tmp_path):
    touch(tmp_path, "frame/cats01_0001.jpg", "mask/cats01_0001.png", "mask/cats01_PROB_0001.png",
          "frame/dogs02/dogs02_0001.jpg", "mask/dogs02/dogs02_0001_PROB.pgm")
    listing = list_videos("fbms", tmp_path)
    cats, dogs = listing.videos
    assert names(cats.masks, tmp_path) == {"0001": ("mask/cats01_0001.png",)}
    assert not dogs.masks and not listing.orphans


def test_videos_of_one_name(tmp_path):
    touch(tmp_path, "frames/a/b/0.jpg", "frames/a_b/0.jpg")
    with pytest.raises(UserError, match=r"there are 2 videos 'a_b' \(levels of folders are joined by _\)"):
        find_videos("folder", tmp_path)


def test_processed_split_folders(tmp_path):
    touch(tmp_path, "train/frame/bear01_0001.jpg", "test/frame/cats01_0001.jpg")
    assert [video.name for video in find_videos("fbms", tmp_path, "train")] == ["bear01"]
    assert [video.name for video in find_videos("fbms", tmp_path)] == ["cats01"]


def test_frames_without_a_video_name_are_one_video(tmp_path):
    touch(tmp_path / "mine", "frame/1.jpg", "frame/2.jpg", "frame/10.jpg", "mask/2.png")
    (video,) = find_videos("folder", tmp_path / "mine")
    assert (video.name, list(video.frames), list(video.masks)) == ("mine", ["1", "2", "10"], ["2"])


def test_folder_of_videos_without_masks(tmp_path):
    touch(tmp_path, "b/frame2.png", "b/frame10.png", "a/x.jpg", "readme.txt")
    a, b = find_videos("folder", tmp_path)
    assert (a.name, b.name, list(b.frames), dict(b.masks)) == ("a", "b", ["frame2", "frame10"], {})
    (alone,) = find_videos("folder", tmp_path / "b")
    assert alone.name == "b"


def test_flow_comes_in_every_format_and_what_is_not_read_is_named(tmp_path):
    touch(tmp_path, "frames/a/00000.jpg", "frames/a/00001.jpg", "flow/a/00000.flo", "flow/a/00001.PNG",
          "depth/a/00000.tif", "depth/a/00001.npy", "flow/a/notes.txt")
    listing = list_videos("folder", tmp_path)
    (video,) = listing.videos
    assert names(video.flows, tmp_path) == {"00000": "flow/a/00000.flo", "00001": "flow/a/00001.PNG"}
    assert names(video.depths, tmp_path) == {"00001": "depth/a/00001.npy"}
    assert len(listing.orphans) == 2
    told = "\n".join(listing.orphans)
    assert f"{tmp_path}/depth/a/00000.tif: depth is read from .png, .npy" in told
    assert f"{tmp_path}/flow/a/notes.txt: flow is read from .flo, .png, .jpg" in told


def test_orphans_are_named(tmp_path):
    touch(tmp_path, "frames/a/00000.jpg", "frames/a/00001.jpg", "masks/a/00007.png", "masks/gone/00000.png",
          "masks/a/00001.png", "masks/a/1.png", "frames/a/00000.png", "masks/notes.png")
    listing = list_videos("folder", tmp_path)
    (video,) = listing.videos
    assert names(video.masks, tmp_path) == {"00001": ("masks/a/00001.png",)}
    assert names(video.frames, tmp_path)["00000"] == "frames/a/00000.jpg"
    told = "\n".join(listing.orphans)
    assert len(listing.orphans) == 5
    assert f"{tmp_path}/masks/a/00007.png: no frame of 'a' has this name or number" in told
    assert f"{tmp_path}/masks/gone/00000.png: there is no video 'gone'" in told
    assert f"{tmp_path}/masks/a/1.png: the same frame as 00001.png, which is used" in told
    assert f"{tmp_path}/frames/a/00000.png: the same frame as 00000.jpg, which is used" in told
    assert f"{tmp_path}/masks/notes.png: not <video>_<frame number>" in told


def test_names_without_numbers_and_with_the_same_number(tmp_path):
    frames = {name: tmp_path / f"{name}.jpg" for name in ("first", "a1", "b1")}
    paired, orphans = pair_files("clip", frames, [(s, tmp_path / f"{s}.png") for s in ("first", "b1", "c1")])
    assert list(paired) == ["first", "b1"]
    assert [line.split(":")[0] for line in orphans] == [str(tmp_path / "c1.png")]


def test_numbers_of_other_things_are_no_frames(tmp_path):
    frames = {"00001": tmp_path / "00001.jpg", "00002": tmp_path / "00002.jpg"}
    stems = ["00001_2", "take3_00002", "mask_00001", "clip7_2"]
    paired, orphans = pair_files("clip7", frames, [(stem, tmp_path / f"{stem}.png") for stem in stems])
    assert {frame: paths[0].stem for frame, paths in paired.items()} == {"00001": "mask_00001",
                                                                         "00002": "clip7_2"}
    assert [line.split(":")[0] for line in orphans] == [str(tmp_path / f"{s}.png") for s in
                                                        ("00001_2", "take3_00002")]


def test_masks_of_different_sizes_are_not_united(tmp_path):
    save(tmp_path / "a.png", [[0, 255]])
    save(tmp_path / "b.png", [[0], [255]])
    with pytest.raises(UserError, match=r"b\.png is 1x2 \(width x height\), .*a\.png of the same frame 2x1"):
        decode_masks((tmp_path / "a.png", tmp_path / "b.png"))


@pytest.mark.parametrize("arguments, message", [
    (("davis", "{}"), r"config.data.dataset='davis' is not a data set of files; give one of davis16, fbms,"),
    (("davis16", "{}", "test"), r"config.data.split='test': DAVIS-16 has val and train"),
    (("davis16", "{}/none"), r"config.data.root='.*none': no such folder; DAVIS-16 needs JPEGImages/480p/"),
    (("folder", ""), r"config.data.root is empty: give the folder"),
    (("davis16", "{}"), r"config.data.root='.*' has another layout: DAVIS-16 needs JPEGImages/480p/"),
    (("mcl", "{}/up"), r"the data set is one level below, give .*up/MCL"),
    (("folder", "{}/films"), r"films/a b.mp4 is a video file: extract its frames to .*/films/frames/a b/"),
    (("folder", "{}/empty"), r"there are no frames of split 'all' in it"),
])
def test_errors(tmp_path, arguments, message):
    touch(tmp_path, "up/MCL/JPEGImages/a/0.jpg", "films/a b.mp4", "empty/frames/a/readme.txt")
    dataset, root, *split = arguments
    with pytest.raises(UserError, match=message) as error:
        find_videos(dataset, root.format(tmp_path), *split)
    assert "\n" not in str(error.value)


def test_published_counts():
    counts = {name: dict(info.video_counts) for name, info in DATASETS.items()}
    assert counts["youtube_vos"]["train"] == 3471
    assert counts["davis16"] == {"train": 30, "val": 20}
    assert counts["fbms"]["test"] == 30
    assert [counts[name]["all"] for name in ("long_videos", "mcl", "segtrack_v2")] == [3, 9, 14]
