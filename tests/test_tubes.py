"""Which pieces of masks stay: those of the things that there is most of over the video."""

import numpy as np
import pytest

from dattt_jax.propagation import Propagation
from dattt_jax.tubes import Tubes

GRID = (12, 16)
AWAY = -3.0  # at most, where a piece was taken away


def mask(*boxes):
    """Logits: 2 in boxes of (top, bottom, left, right), else -1."""
    logits = np.full(GRID, -1, np.float32)
    for top, bottom, left, right in boxes:
        logits[top:bottom, left:right] = 2
    return logits


def still():
    return np.zeros((*GRID, 3), np.float32)


def primary(frames, share, motions=None):
    """What stays of each frame, logits [T, h, w]."""
    tubes = Tubes(share)
    for t, logits in enumerate(frames):
        tubes.add(logits, (motions[t - 1] if motions else still()) if t else None)
    return [tubes.primary(t, logits) for t, logits in enumerate(frames)]


def seen(logits):
    return logits > 0


BIG, SMALL = (1, 4, 1, 5), (6, 10, 9, 13)  # 12 and 16 places
ALONE, BOTH = mask(BIG), mask(BIG, SMALL)


def test_what_is_there_in_one_frame_is_left_out_though_it_is_larger_there():
    """Over four frames there are 48 places of the one and 16 of the other, a third."""
    frames = [ALONE, ALONE, BOTH, ALONE]
    found = primary(frames, 0.34)
    for logits in found:
        np.testing.assert_array_equal(seen(logits), seen(ALONE))
    for logits, kept in zip(primary(frames, 0.33), frames, strict=True):
        np.testing.assert_array_equal(logits, kept)


def test_around_what_is_left_out_two_places_go_with_it_and_one_around_what_stays_does_not():
    near = (1, 4, 7, 9)  # of 6 places, two places beside BIG
    [logits] = primary([mask(BIG, near)], 0.6)
    expected = mask(BIG)
    expected[0:5, 6:11] = expected[5, 5:11] = AWAY
    np.testing.assert_array_equal(logits, expected)


def test_logits_that_are_lower_already_stay():
    frame = mask(BIG, (6, 7, 9, 10))
    frame[8] = -5
    [logits] = primary([frame], 0.5)
    np.testing.assert_array_equal(logits[8], frame[8])
    assert logits[6, 9] == AWAY


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_thing_stays_as_it_is_and_so_does_nothing(share):
    frames = [ALONE, mask(), mask(SMALL)]
    for logits, kept in zip(primary(frames, share), frames, strict=True):
        np.testing.assert_array_equal(logits, kept)


def test_a_share_of_zero_keeps_all():
    frames = [BOTH, mask((0, 1, 0, 1), SMALL)]
    for logits, kept in zip(primary(frames, 0.0), frames, strict=True):
        np.testing.assert_array_equal(logits, kept)


def test_a_thing_is_followed_along_its_motion():
    """Five places to the right in every frame: beside itself, so that without the motion it is three things,
    each smaller than the one that stands still."""
    boxes = [(1, 4, 5 * t, 5 * t + 4) for t in range(3)]  # 12 places each
    other = (7, 10, 2, 7)  # 15 places, in one frame alone
    frames = [mask(boxes[0]), mask(boxes[1], other), mask(boxes[2])]
    along = still()
    along[..., 0] = 5
    np.testing.assert_array_equal(seen(primary(frames, 0.9, [along, along])[1]), seen(mask(boxes[1])))
    np.testing.assert_array_equal(seen(primary(frames, 0.9)[1]), seen(mask(other)))


def test_two_things_that_meet_later_are_one():
    """What comes apart and together, as behind a tree, is not cut."""
    apart, together = mask((1, 4, 1, 3), (1, 4, 5, 9)), mask((1, 4, 1, 9))
    for frames in ([apart, together], [together, apart]):
        for logits, kept in zip(primary(frames, 1.0), frames, strict=True):
            np.testing.assert_array_equal(logits, kept)
    np.testing.assert_array_equal(seen(primary([apart], 1.0)[0]), seen(mask((1, 4, 5, 9))))


def test_things_that_hardly_overlap_are_two():
    """A quarter of their places in common is too little, a half is enough."""
    for shift in (3, 2):
        frames = [mask(BIG), mask((1, 4, 1 + shift, 5 + shift), SMALL)]
        stays = seen(primary(frames, 1.0)[1])
        assert stays[7, 10] == (shift == 3) and stays[1, 5] == (shift == 2)


def test_a_video_of_propagated_masks_shows_the_primary_object_alone(tmp_path):
    """With `config.propagation` 0 every mask is its frame's own."""
    frames = [np.random.default_rng(0).integers(0, 256, (4 * GRID[0], 4 * GRID[1], 3), dtype=np.uint8)] * 4
    logits = [ALONE, ALONE, BOTH, mask((8, 10, 2, 5))]
    found = {}
    for share in (0.0, 0.5):
        propagation = Propagation(0.0, GRID, lambda frame, logits: logits, share)
        with propagation.of_video(4, tmp_path) as gathered:
            for t, shown in enumerate(logits):
                gathered.take(t, np.kron(1 / (1 + np.exp(-shown)), np.ones((4, 4), np.float32)))
            found[share] = list(gathered.results(lambda: iter(frames)))
    for t in range(4):
        np.testing.assert_allclose(found[0.0][t], logits[t], atol=0.01)
    np.testing.assert_array_equal(seen(found[0.5][2]), seen(ALONE))
    np.testing.assert_array_equal(seen(found[0.5][3]), seen(logits[3]))
    assert found[0.5][2].dtype == np.float32 and not list(tmp_path.iterdir())
