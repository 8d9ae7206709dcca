"""Depth targets of every kind of file, as 16-bit fractions."""

import numpy as np
import pytest
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.datasets.depth_maps import read_depth

EVERY_LEVEL = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(tmp_path, values):
    np.save(tmp_path / "depth.npy", values)
    return tmp_path / "depth.npy"


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_8_bits_are_fractions_of_255(tmp_path, mode):
    Image.fromarray(EVERY_LEVEL).convert(mode).save(tmp_path / "depth.png")
    depth = read_depth(tmp_path / "depth.png")
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, EVERY_LEVEL * np.uint16(257))
    np.testing.assert_array_equal(depth / np.float32(65535), EVERY_LEVEL / np.float32(255))


def test_16_bits_are_kept(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (9, 7)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "depth.png")
    np.testing.assert_array_equal(read_depth(tmp_path / "depth.png"), values)
    np.testing.assert_array_equal(read_depth(saved(tmp_path, values)), values)


def test_integer_arrays_are_like_images(tmp_path):
    np.testing.assert_array_equal(read_depth(saved(tmp_path, EVERY_LEVEL)), EVERY_LEVEL * np.uint16(257))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (1, 2, 3)])
def test_fractions_are_taken_as_they_are(tmp_path, shape):
    values = np.array([[0, 0.25, 0.5], [0.125, 0.2, 0.6]], np.float32).reshape(shape)
    expected = [[0, 16384, 32768], [8192, 13107, 39321]]  # 65535 · values, rounded (half to even)
    np.testing.assert_array_equal(read_depth(saved(tmp_path, values)), expected)


def test_metres_are_divided_by_the_largest_and_unknown_is_0(tmp_path):
    values = np.array([[20, 5, np.nan], [10, np.inf, 0]], np.float32)
    np.testing.assert_array_equal(read_depth(saved(tmp_path, values)), [[65535, 16384, 0], [32768, 0, 0]])


@pytest.mark.parametrize(("values", "message"), [
    (np.array([[1.0, -0.5]]), "negative values .down to -0.5"),
    (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\); give \[H, W\]"),
    (np.zeros((0, 3)), r"shape \(0, 3\)"),
    (np.zeros((2, 3), np.int64), "type int64"),
])
def test_other_arrays_are_refused(tmp_path, values, message):
    with pytest.raises(UserError, match=rf"depth\.npy: .*{message}"):
        read_depth(saved(tmp_path, values))


def test_other_files_are_refused(tmp_path):
    Image.fromarray(np.eye(3, dtype=np.uint8)[None].repeat(3, 0) * 255).save(tmp_path / "colour.png")
    for name in ("damaged.png", "damaged.npy"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(UserError, match=r"colour\.png: a depth map in colours"):
        read_depth(tmp_path / "colour.png")
    for name in ("damaged.png", "damaged.npy", "missing.png", "missing.npy"):
        with pytest.raises(UserError, match=rf"{name}: cannot be read"):
            read_depth(tmp_path / name)
