"""The presets, and how they decode, threshold, resize and choose frames."""

import numpy as np
import pytest
from PIL import Image

from dattt_jax.errors import UserError
from dattt_jax.metrics.protocols import (
    PROTOCOLS,
    binarize,
    decode_target,
    decode_union,
    fit_target,
    get_protocol,
    grey_levels,
    kept_frames,
)

NAMES = ["00000", "00001", "00002", "00003", "00004"]
INNER, TAIL, HEAD = NAMES[1:-1], NAMES[1:], NAMES[:-1]


@pytest.mark.parametrize(("name", "frames", "object_levels", "resizes", "by", "metrics"), [
    ("davis16", INNER, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("dattt", NAMES, (129,), False, "video", ("J", "F")),
    ("all", NAMES, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("mtnet-davis", TAIL, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("mtnet-fbms", INNER, (129,), True, "video", ("J", "F")),
    ("mtnet-longvideos", HEAD, (1, 127, 128, 129), False, "video", ("J", "F")),
    ("tmo-fbms", NAMES, (128, 129), False, "video", ("J",)),
    ("youtube-objects", NAMES, (1, 127, 128, 129), False, "class", ("J", "F")),
])
def test_preset(name, frames, object_levels, resizes, by, metrics):
    protocol = get_protocol(name)
    assert kept_frames(protocol, NAMES[::-1]) == frames
    levels = np.array([[0, 1, 127, 128, 129]], np.uint8)
    assert tuple(levels[decode_target(levels, False, protocol)]) == object_levels
    assert tuple(levels[decode_target(levels / np.float32(255), False, protocol)]
                 ) == object_levels
    colour = np.repeat(levels[..., None], 3, axis=2)
    assert tuple(levels[decode_target(colour, False, protocol)]) == object_levels
    target = np.eye(4, dtype=bool)
    if resizes:
        np.testing.assert_array_equal(fit_target(target, (8, 8), protocol),
                                      np.kron(target, np.ones((2, 2), bool)))
    else:
        with pytest.raises(ValueError, match=r"8x6.*4x4"):
            fit_target(target, (8, 6), protocol)
    assert (protocol.aggregation, protocol.metrics) == (by, metrics)
    assert protocol.drop_empty_target == (name == "tmo-fbms")
    assert protocol.missing == "zero"


def test_every_preset_is_tested():
    tested = {parameters[0] for mark in test_preset.pytestmark for parameters in mark.args[1]}
    assert tested == set(PROTOCOLS) and all(PROTOCOLS[name].name == name for name in tested)


def test_unknown_protocol():
    with pytest.raises(UserError, match=r"davis17.*davis16"):
        get_protocol("davis17")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_palette_is_an_object_number(protocol):
    indices = np.array([[0, 1, 2, 3]], np.uint8)
    np.testing.assert_array_equal(decode_target(indices, True, protocol), [[False, True, True,
                                                                           True]])


def test_short_videos_may_lose_all_frames():
    assert kept_frames(PROTOCOLS["davis16"], ["1"]) == []
    assert kept_frames(PROTOCOLS["davis16"], ["1", "2"]) == []
    assert kept_frames(PROTOCOLS["davis16"], []) == []


def test_frames_are_in_order_of_time_not_of_text():
    assert kept_frames(PROTOCOLS["davis16"], ["10", "9", "100", "2"]) == ["9", "10"]
    assert kept_frames(PROTOCOLS["all"], ["f_10a", "f_9b"]) == ["f_9b", "f_10a"]


def test_threshold_is_strict_and_the_same_for_all_types():
    protocol = PROTOCOLS["dattt"]
    levels = np.arange(256, dtype=np.uint8)[None]
    expected = levels > 128
    for probability in (levels, levels / np.float32(255), levels.astype(np.float64) / 255,
                        np.repeat(levels[..., None], 3, 2), np.repeat(levels[..., None], 4, 2)):
        np.testing.assert_array_equal(binarize(probability, protocol), expected)
    np.testing.assert_array_equal(binarize(expected, protocol), expected)
    assert not binarize(np.array([[0.5]]), protocol)[0, 0]
    assert binarize(np.array([[0.502]]), protocol)[0, 0]
    with pytest.raises(ValueError, match="int64"):
        binarize(levels.astype(np.int64), protocol)


def test_grey_equals_pillow():
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(grey_levels(image),
                                  np.asarray(Image.fromarray(image).convert("L")))


def test_target_is_resized_like_pillow():
    target = np.random.default_rng(4).random((37, 53)) < 0.5
    for size in ((20, 31), (64, 64), (111, 53)):
        pillow = Image.fromarray(target.astype(np.uint8)).resize(size[::-1], Image.NEAREST)
        np.testing.assert_array_equal(fit_target(target, size, PROTOCOLS["mtnet-fbms"]),
                                      np.asarray(pillow))


def test_objects_of_several_files_are_united():
    levels = np.array([[0, 100, 200]], np.uint8)
    other = np.array([[1, 0, 0]], np.uint8)
    for name, expected in (("all", [[True, True, True]]), ("dattt", [[True, False, True]])):
        union = decode_union([(levels, False), (other, True)], PROTOCOLS[name])
        np.testing.assert_array_equal(union, expected)
    with pytest.raises(ValueError, match="differ in size: 1x3, 1x2"):
        decode_union([(levels, False), (other[:, :2], True)], PROTOCOLS["all"])


def test_masks_of_every_mode_have_the_threshold_of_the_presets():
    """`inference.to_mask`, which `eval` and `segment` write masks with, has the one threshold of them all."""
    from dattt_jax.inference import to_mask

    probability = np.linspace(0, 1, 2551, dtype=np.float32)[None]
    for protocol in PROTOCOLS.values():
        np.testing.assert_array_equal(to_mask(probability, "0"), binarize(probability, protocol))
