"""Flow renderings on disk: found, missed, damaged and shared."""

import io
import threading

import numpy as np
import pytest
from PIL import Image
from video_trees import moving_frames

from dattt_jax.errors import UserError
from input_pipeline.flow import create_flow, flow_renderings, flow_to_rgb
from input_pipeline.flow.cache import CachedFlow, FlowCache
from input_pipeline.image_cache import ImageCache, encode_png

FRAMES = moving_frames(3)
CONTENT = [frame.tobytes() for frame in FRAMES]


def never():
    raise AssertionError("decoded although there is an entry")


def pair(first, second):
    return lambda: (FRAMES[first], FRAMES[second])


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def flow_cache(folder, method=None):
    """The cache of renderings, and of images below it, which counts."""
    images = ImageCache(folder)
    return FlowCache(images, method or create_flow("dis")), images


def entries(folder):
    return sorted(folder.rglob("*.png"))


def test_a_rendering_is_computed_once(tmp_path):
    method = create_flow("dis")
    cache, images = flow_cache(tmp_path)
    png = cache.rendering(CONTENT[0], CONTENT[1], pair(0, 1))
    np.testing.assert_array_equal(decoded(png), flow_to_rgb(method(FRAMES[0], FRAMES[1])))
    later, later_images = flow_cache(tmp_path)
    assert later.rendering(CONTENT[0], CONTENT[1], never) == png
    assert (images.misses, images.hits, later_images.misses, later_images.hits) == (1, 0, 0, 1)


def test_direction_frames_and_method_have_entries_of_their_own(tmp_path):
    cache, images = flow_cache(tmp_path)
    forward = cache.rendering(CONTENT[0], CONTENT[1], pair(0, 1))
    backward = cache.rendering(CONTENT[1], CONTENT[0], pair(1, 0))
    assert forward != backward
    cache.rendering(CONTENT[0], CONTENT[2], pair(0, 2))

    class Still:
        identity = "still"

        def __call__(self, image0, image1):
            return np.zeros((*image0.shape[:2], 2), np.float32)

    still, _ = flow_cache(tmp_path, Still())
    assert (decoded(still.rendering(CONTENT[0], CONTENT[1], pair(0, 1))) == 255).all()
    assert len(entries(tmp_path)) == 4 and images.misses == 3
    assert cache.rendering(CONTENT[0], CONTENT[1], never) == forward


@pytest.mark.parametrize("damage", [
    lambda content: content[:len(content) // 2],
    lambda content: content[:-12],  # without its end
    lambda content: b"",
    lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
])
def test_a_damaged_entry_is_computed_anew(tmp_path, damage):
    cache, images = flow_cache(tmp_path)
    png = cache.rendering(CONTENT[0], CONTENT[1], pair(0, 1))
    [entry] = entries(tmp_path)
    entry.write_bytes(damage(png))
    assert cache.rendering(CONTENT[0], CONTENT[1], pair(0, 1)) == png == entry.read_bytes()
    assert images.misses == 2


def test_threads_may_meet_at_one_entry(tmp_path):
    (cache, _), results = flow_cache(tmp_path), []
    barrier = threading.Barrier(6)

    def decode():
        barrier.wait(timeout=20)  # all have missed it before one writes it
        return FRAMES[0], FRAMES[1]

    def read():
        results.append(cache.rendering(CONTENT[0], CONTENT[1], decode))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6 and len(set(results)) == 1 and len(entries(tmp_path)) == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match=r"cache/.* cannot be written"):
        flow_cache(tmp_path / "cache")[0].rendering(CONTENT[0], CONTENT[1], pair(0, 1))


@pytest.mark.parametrize("image", [FRAMES[0], FRAMES[0][..., 0],
                                   np.arange(600, dtype=np.uint16).reshape(20, 30) * 109])
def test_png_is_lossless(image):
    np.testing.assert_array_equal(decoded(encode_png(image)), image)


@pytest.mark.parametrize("last_frame", ["repeat", "backward", "drop"])
def test_a_video_in_memory_gets_the_same_renderings_from_the_cache(tmp_path, last_frame):
    plain = list(flow_renderings(FRAMES, create_flow("dis"), last_frame))
    for misses in (3 if last_frame == "backward" else 2, 0):
        images = ImageCache(tmp_path)
        cached = CachedFlow(images, create_flow("dis"))
        assert cached.identity == create_flow("dis").identity
        for found, expected in zip(flow_renderings(FRAMES, cached, last_frame), plain, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert images.misses == misses


def test_images_of_the_same_bytes_and_another_shape_are_not_one(tmp_path):
    images = ImageCache(tmp_path)
    cached = CachedFlow(images, create_flow("dis"))
    wide = np.arange(32 * 64 * 3, dtype=np.uint8).reshape(32, 64, 3)
    assert cached.rendering(wide, wide).shape == (32, 64, 3)
    assert cached.rendering(wide.reshape(64, 32, 3), wide.reshape(64, 32, 3)).shape == (64, 32, 3)
    assert images.misses == 2
