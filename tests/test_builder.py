"""TFDS builders: what is written is read back exactly, without TensorFlow, network or noise."""

import itertools
import os
import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline.datasets import DATASETS
from input_pipeline.datasets.builder import BUILDERS, FEATURES


def example(number, video):
    rng = np.random.default_rng(number)
    image = rng.bytes(50 + 7 * number)
    return {"image": b"\xff\xd8\xff" + image, "flow": rng.bytes(30),
            "mask": b"" if number % 3 else b"\x00\xff",
            "depth": b"\x00" * number, "video": video, "frame": f"{10 * number:05d}", "index": number % 4}


EXAMPLES = [example(number, f"väg_{number // 4}") for number in range(12)]


def build(folder, name="folder", lengths=(4, 8), split="train", examples=EXAMPLES):
    builder = BUILDERS[name](data_dir=folder, split=split, shard_lengths=lengths, examples=examples)
    builder.download_and_prepare(download_dir=folder / "downloads",
                                 download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return builder.data_dir


def read(folder, split="train"):
    records = tfds.builder_from_directory(folder).as_data_source(split)
    return [{key: value.decode() if key in ("video", "frame") else value for key, value in records[i].items()}
            for i in range(len(records))]


def test_examples_come_back_bit_for_bit_and_in_order(tmp_path):
    assert read(build(tmp_path)) == EXAMPLES
    assert set(EXAMPLES[0]) == set(FEATURES)


def test_a_split_has_its_shards(tmp_path):
    folder = build(tmp_path, "davis16", (4, 4, 4), "val")
    info = tfds.builder_from_directory(folder).info
    assert folder == str(tmp_path / "davis16" / "1.0.0") and info.name == "davis16"
    assert info.splits["val"].shard_lengths == [4, 4, 4] and "Perazzi" in info.citation
    assert sorted(name for name in os.listdir(folder) if "array_record" in name) == [
        f"davis16-val.array_record-0000{shard}-of-00003" for shard in range(3)]
    assert read(folder, "val") == EXAMPLES
    assert [r["frame"] for r in read(folder, "val[4:8]")] == ["00040", "00050", "00060", "00070"]


def test_equal_examples_make_equal_files(tmp_path):
    contents = [{p.name: p.read_bytes() for p in (tmp_path / run / "folder/1.0.0").iterdir()}
                for run in "ab" if build(tmp_path / run)]
    assert contents[0] == contents[1] and len(contents[0]) == 4


def test_a_split_may_be_larger_than_tfds_keeps_in_memory(tmp_path, monkeypatch):
    """Above this size TFDS' own writer opens files through TensorFlow."""
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 100)
    assert read(build(tmp_path)) == EXAMPLES


def test_examples_are_not_collected(tmp_path):
    """An example is taken when the one before it is on its way to the file."""
    held = []

    def generate():
        for item in EXAMPLES:
            held.append(sum(path.stat().st_size for path in tmp_path.rglob("*array_record*")))
            yield item | {"image": b"x" * 10 ** 6}

    build(tmp_path, lengths=(3, 3, 6), examples=generate())
    assert held[3] > 0 and held[6] > held[3]


def test_nothing_is_printed_asked_for_or_left_behind(tmp_path, monkeypatch, capfd):
    def connect(*args):
        raise AssertionError(f"tried to connect to {args}")

    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    read(build(tmp_path / "out"))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert not list(temporary.iterdir())


def test_an_error_of_the_examples_is_passed_on_and_leaves_nothing(tmp_path):
    def generate():
        yield EXAMPLES[0]
        raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        build(tmp_path, examples=generate())
    assert not list((tmp_path / "folder").iterdir())


def test_each_data_set_has_its_name_and_its_text():
    assert set(BUILDERS) == set(DATASETS)
    for first, second in itertools.combinations(BUILDERS.values(), 2):
        assert first.__doc__ != second.__doc__
