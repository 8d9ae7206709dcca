"""Reading prepared data: what is there, and what is damaged."""

import json
import pickle
import threading

import numpy as np
import pytest
from video_trees import prepared, write_video

from dattt_jax.errors import UserError
from input_pipeline.datasets.prepared import PreparedData, prepared_videos
from input_pipeline.eval_videos import EvalVideo
from input_pipeline.images import read_image


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(prepared folder, its videos' files)."""
    folder = tmp_path_factory.mktemp("prepared")
    videos = [write_video(folder, "first", 5, masks=(0, 3)),
              write_video(folder, "second", 3, masks=(1,), seed=1, category="cow")]
    prepared(folder / "out", videos, "drop")
    return folder / "out", videos


def copied(made, tmp_path):
    copy = tmp_path / "copy"
    for path in made[0].rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(made[0])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    [shard] = copy.rglob("*array_record*")
    return copy, shard


def test_videos_have_what_evaluation_reads(made):
    root, files = made
    videos = list(prepared_videos(root))
    assert [(v.name, v.category, v.frame_names, v.size) for v in videos] == [
        ("first", "", [f"{i:05d}" for i in range(5)], (40, 48)),
        ("second", "cow", [f"{i:05d}" for i in range(3)], (40, 48))]
    for video, source in zip(videos, files, strict=True):
        evaluated = EvalVideo(video.name, video.frame_names, video.fps, video.frames, video.target,
                              list(source.masks))
        for _ in range(2):  # as often as wanted
            for index, (frame, path) in enumerate(zip(evaluated.frames, source.frames.values(), strict=True)):
                np.testing.assert_array_equal(frame, read_image(path))
                np.testing.assert_array_equal(frame, video.frame(index))
        assert [evaluated.target(name) is not None for name in video.frame_names] == [
            name in source.masks for name in source.frames]
        assert [video.flow(index) is not None for index in range(len(video.frame_names))] == [
            True] * (len(video.frame_names) - 1) + [False]
    np.testing.assert_array_equal(videos[1].target("00001"), videos[1].mask(1))
    assert videos[1].mask(1).sum() == 15 * 10  # two overlapping objects of 6 x 15, 4 rows apart


def test_a_video_ends_where_the_next_begins(made):
    first, second = prepared_videos(made[0])
    for video, index in ((first, 5), (second, -1)):
        with pytest.raises(IndexError):
            video.frame(index)
    with pytest.raises(IndexError):
        PreparedData(made[0])[8]
    with pytest.raises(ValueError, match="list"):
        first.target("nowhere")


def test_pickling_and_threads(made):
    data = pickle.loads(pickle.dumps(PreparedData(made[0])))
    assert len(pickle.dumps(data)) < 1000  # no file is in it
    alone = [data[index].encoded for index in range(len(data))]
    shared, results = PreparedData(made[0]), {}

    def read(thread):
        order = np.random.default_rng(thread).permutation(len(shared)).tolist() * 20
        results[thread] = all(shared[index].encoded == alone[index] for index in order)

    threads = [threading.Thread(target=read, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


def test_the_folder_can_be_moved(made, tmp_path):
    copy, _ = copied(made, tmp_path)
    moved = copy.rename(tmp_path / "moved")
    np.testing.assert_array_equal(PreparedData(moved)[0].image(), PreparedData(made[0])[0].image())
    PreparedData(moved).check_content()


def test_what_is_no_prepared_folder_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, message in (("nowhere", "nowhere does not exist; give the --workdir of --mode=prepare"),
                          ("empty", r"empty holds no videos\.json: nothing was prepared there"),
                          ("file", "file is a file; give the --workdir of --mode=prepare")):
        with pytest.raises(UserError, match=message):
            PreparedData(tmp_path / name)


@pytest.mark.parametrize(("content", "message"), [
    ("{", r"videos\.json: damaged, or not written by --mode=prepare"),
    ("[]", "damaged, or not written"), ("{}", "damaged, or not written"),
    ('{"format_version": 1, "identity": "", "folder": "", "videos": []}', "damaged, it lacks 'files'"),
    ('{"format_version": 99}', "format version 99, this program reads 1; run --mode=prepare again in"),
])
def test_an_index_that_cannot_be_used_is_told(made, tmp_path, content, message):
    copy, _ = copied(made, tmp_path)
    (copy / "videos.json").write_text(content)
    with pytest.raises(UserError, match=message):
        PreparedData(copy)


def test_damaged_shards_are_told(made, tmp_path):
    copy, shard = copied(made, tmp_path)
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{shard.name} has {len(content) - 1} bytes instead of"):
        PreparedData(copy)

    damaged = bytearray(content)
    damaged[content.index(b"\x89PNG") + 200] ^= 1
    shard.write_bytes(damaged)
    data = PreparedData(copy)
    with pytest.raises(UserError, match=rf"{shard.name} is damaged: its checksum"):
        data.check_content()
    with pytest.raises(UserError, match=r"frame \d cannot be read .* run --mode=prepare again"):
        for index in range(len(data)):
            data[index]

    shard.write_bytes(content)
    (shard.parent / "features.json").unlink()
    with pytest.raises(UserError, match=r"features\.json is missing"):
        PreparedData(copy)

    copy, shard = copied(made, tmp_path / "again")
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name} is missing"):
        PreparedData(copy)


def test_a_damaged_image_is_told_by_name(made):
    frame = PreparedData(made[0])[1]
    frame.encoded["image"] = frame.encoded["image"][:200]
    with pytest.raises(UserError, match="image of frame first/00001 is damaged"):
        frame.image()


def test_the_index_has_a_line_for_a_video(made):
    lines = (made[0] / "videos.json").read_text().splitlines()
    lines = [line for line in lines if line.startswith('    {"name"') and "category" in line]
    assert [json.loads(line.rstrip(","))["name"] for line in lines] == ["first", "second"]
