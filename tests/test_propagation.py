"""Masks that agree over time: the motion they follow, what a frame gathers in closed form."""

import errno
import os

import numpy as np
import pytest

from dattt_jax.errors import UserError
from dattt_jax.propagation import Propagation, follow
from dattt_jax.ttt import FrameResult
from input_pipeline.flow.neighbours import neighbour_motion

GRID = (24, 32)
SIZE = (96, 128)  # of frames: places of 4×4 pixels


def texture(low=0, high=255, seed=0):
    """A frame of soft spots of all colours in that range, [H, W, 3]; its ends fit together."""
    noise = np.random.default_rng(seed).normal(size=(*SIZE, 3))
    radius = np.hypot(np.fft.fftfreq(SIZE[0])[:, None], np.fft.fftfreq(SIZE[1]))
    spots = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * np.exp(-(radius / 0.07) ** 2)[..., None],
                         axes=(0, 1)).real
    return (low + (high - low) * (spots - spots.min()) / np.ptp(spots)).astype(np.uint8)


def propagate(predictions, frames, share, folder):
    """Logits of all frames, with no upsampling, in the order of the frames; predictions taken backwards."""
    propagation = Propagation(share, GRID, lambda frame, logits: logits)
    with propagation.of_video(len(frames), folder) as gathered:
        for t in reversed(range(len(frames))):
            gathered.take(t, predictions[t])
        return np.stack(list(gathered.results(lambda: iter(frames))))


def logit(p):
    return np.log(p / (1 - p))


def test_a_still_video_has_no_motion_and_all_trust():
    [motion] = neighbour_motion([texture(), texture()], GRID)
    assert motion.shape == (2, *GRID, 3) and motion.dtype == np.float32
    np.testing.assert_allclose(motion[..., :2], 0, atol=1e-3)
    np.testing.assert_allclose(motion[..., 2], 1, atol=1e-3)


def test_motion_is_in_places_of_the_grid_and_both_ways():
    """Four pixels to the right are one place; what comes in at the left was not there before."""
    moved = texture()
    moved[:, 4:], moved[:, :4] = texture()[:, :-4], texture(seed=1)[:, :4]
    [motion] = neighbour_motion([texture(), moved], GRID)
    inner = np.s_[3:-3, 3:-3]
    for direction, sign in enumerate((1, -1)):
        np.testing.assert_allclose(motion[direction][inner][..., 0], sign, atol=0.05)
        np.testing.assert_allclose(motion[direction][inner][..., 1], 0, atol=0.05)
        assert motion[direction][inner][..., 2].mean() > 0.9
    assert motion[0][:, -1, 2].mean() < 0.3  # leaves
    assert motion[1][:, 0, 2].mean() < 0.3  # came in


def test_frames_of_different_scenes_have_no_trust():
    [motion] = neighbour_motion([texture(0, 60), texture(190, 255, seed=1)], GRID)
    assert not motion[..., 2].any()


def test_colours_that_differ_take_trust_away():
    """The flow does not see that all of a frame becomes brighter; exp(-3 · 20² / 35²) is left."""
    [motion] = neighbour_motion([texture(0, 200), texture(0, 200) + 20], GRID)
    assert abs(np.median(motion[..., 2]) - np.exp(-3 * 20**2 / 35**2)) < 0.02


@pytest.mark.parametrize("size", [(40, 1000), (1200, 20)])
def test_a_frames_short_side_stays_long_enough_for_flow(size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    [motion] = neighbour_motion([frame, frame], GRID)
    assert np.isfinite(motion).all()


def test_a_place_gathers_what_the_neighbour_had_where_the_flow_leads():
    own, before = np.zeros((*GRID, 2), np.float32), np.zeros((*GRID, 2), np.float32)
    own[...] = 1.0, 2.0  # logits of weight 2
    before[5, 8] = 4.0, 3.0
    motion = np.zeros((*GRID, 3), np.float32)
    motion[..., 0], motion[..., 2] = 2.0, 0.6  # two places to the right, trusted by (0.6 - 0.2) / 0.8
    expected = own.copy()
    weight = 0.8 * 0.5 * 3.0
    expected[5, 6] = (2.0 * 1.0 + weight * 4.0) / (2.0 + weight), 2.0 + weight
    np.testing.assert_allclose(follow(own, before, motion, 0.8), expected, atol=1e-6)
    motion[..., 2] = 0.2
    np.testing.assert_array_equal(follow(own, before, motion, 0.8), own)


@pytest.mark.parametrize("share", [0.93, 0.99])
def test_gathering_makes_nothing_up(share):
    """Camera shake of half a place, frames sure and unsure in turns: logits stay within the frames' own."""
    rng = np.random.default_rng(0)
    gathered = None
    for t in range(200):
        logits = rng.choice([0.4, 4.6], GRID).astype(np.float32)
        own = np.stack([logits, np.full(GRID, 1.0 if t % 2 else 0.008, np.float32)], axis=-1)
        motion = np.full((*GRID, 3), 0.5 if t % 2 else -0.5, np.float32)
        motion[..., 2] = 1.0
        gathered = own if gathered is None else follow(own, gathered, motion, share)
        assert gathered[..., 1].min() > 0 and gathered[..., 1].max() < 1 / (1 - share)
        assert gathered[..., 0][1:-1, 1:-1].min() > 0.39 and gathered[..., 0].max() < 4.61


def agreed(levels, share):
    """Logits [T] of a still video, Σ s^|t-u| c_u l_u / Σ s^|t-u| c_u; c = max(2p - 1, 0.3)^4."""
    times = np.arange(len(levels))
    weights = share ** np.abs(times[:, None] - times) * np.maximum(2 * levels - 1, 0.3) ** 4
    return weights @ logit(levels) / weights.sum(axis=1)


def everywhere(values, size):
    """[T] -> float32 [T, *size]."""
    return np.broadcast_to(values[:, None, None], (len(values), *size)).astype(np.float32)


LEVELS = np.array([0.9, 0.2, 0.6, 0.99, 0.4])


def test_still_frames_are_averaged_over_time_as_the_formula_says(tmp_path):
    found = propagate(everywhere(LEVELS, SIZE), [texture()] * 5, 0.7, tmp_path)
    np.testing.assert_allclose(found, everywhere(agreed(LEVELS, 0.7), GRID), atol=0.01)
    assert not list(tmp_path.iterdir())


class Numbers:
    """A clip of five frames that are their numbers."""

    def __len__(self):
        return 5

    def read(self, indices):
        return {"image": indices}


def test_what_the_source_predicts_comes_with_the_frames(tmp_path):
    frames, propagation = [texture()] * 5, Propagation(0.7, GRID, lambda frame, logits: logits)
    results = [FrameResult(t, 0, level, np.zeros(0), np.zeros(0))
               for t, level in enumerate(everywhere(LEVELS, SIZE))]
    with propagation.predicted(Numbers(), results, lambda: iter(frames), tmp_path) as clip:
        batch = clip.read(np.array([1, 3]))
        np.testing.assert_array_equal(batch["image"], [1, 3])
        assert len(clip) == 5 and batch["prediction"].dtype == np.float32
        np.testing.assert_allclose(batch["prediction"], everywhere(agreed(LEVELS, 0.7), GRID)[[1, 3]],
                                   atol=0.01)
    assert not list(tmp_path.iterdir())


def test_what_stands_out_once_is_found_where_it_moves_before_and_after(tmp_path):
    """A square that one of seven frames shows, on a texture that moves a place per frame."""
    frames = [np.roll(texture(), 4 * t, axis=1) for t in range(7)]
    predictions = np.full((7, *SIZE), 0.5, np.float32)
    predictions[3, 32:64, 48:80] = 0.999  # places 8 to 15 down, 12 to 19 across
    found = propagate(predictions, frames, 0.9, tmp_path)
    for t in range(7):
        assert found[t, 10:14, 11 + t : 15 + t].min() > 0.2
        found[t, 6:18, 7 + t : 19 + t] = 0
        assert np.abs(found[t]).max() < 0.1


def test_masks_propagate_on_four_places_for_one_of_the_networks(tmp_path):
    prediction = np.full(SIZE, 0.5, np.float32)
    prediction[::4], prediction[1::4] = 0.9, 0.9  # half of every place; not logit(0.7)
    for count in (1, 3):
        found = propagate([prediction] * count, [texture()] * count, 0.9, tmp_path)
        np.testing.assert_allclose(found, np.full((count, *GRID), logit(0.9) / 2), atol=2e-3)


def test_a_frames_weight_does_not_depend_on_how_small_the_object_is(tmp_path):
    """A small object, seen in all of nine frames; beside it one of them sees something large by mistake."""
    predictions = np.zeros((9, *SIZE), np.float32)
    predictions[:, 8:16, 8:16] = 0.98
    predictions[4, 40:80, 40:100] = 0.98
    found = propagate(predictions, [texture()] * 9, 0.93, tmp_path)
    assert (found[:, 2:4, 2:4] > 3).all()
    assert (found[:, 10:20, 10:25] < -3).all()


def test_what_is_seen_before_a_cut_is_not_seen_after_it(tmp_path):
    """Frames of the same colours, and no object in the second scene."""
    frames = [texture()] * 5 + [texture(seed=1)] * 5
    predictions = np.full((10, *SIZE), 0.02, np.float32)
    predictions[:5, 16:80, 16:112] = 0.98
    found = propagate(predictions, frames, 0.93, tmp_path)
    assert (found[:5, 5:19, 5:27] > 2).all()
    assert (found[5:] < -2).all()


def test_nothing_passes_a_cut_and_a_single_frame_keeps_its_own(tmp_path):
    predictions = np.stack([np.full(SIZE, p, np.float32) for p in (0.9, 0.1)])
    found = propagate(predictions, [texture(0, 60), texture(190, 255, seed=1)], 0.9, tmp_path)
    for own, gathered in zip((0.9, 0.1), found, strict=True):
        np.testing.assert_allclose(gathered, logit(own), atol=0.01)
    alone = propagate(predictions[:1], [texture()], 0.9, tmp_path)
    np.testing.assert_allclose(alone, np.full((1, *GRID), logit(0.9)), atol=2e-3)


def test_room_on_disk_is_taken_before_the_first_prediction(tmp_path, monkeypatch):
    """Not after hours of adaptation."""
    rooms = []
    monkeypatch.setattr(os, "posix_fallocate", lambda file, start, size: rooms.append(size), raising=False)
    with Propagation(0.9, GRID, lambda frame, logits: logits).of_video(3, tmp_path) as gathered:
        taken = sum(rooms)
        for t in range(3):
            gathered.take(t, np.full(SIZE, 0.5, np.float32))
        assert len(list(gathered.results(lambda: iter([texture()] * 3)))) == 3
        places, finer = GRID[0] * GRID[1], 4 * GRID[0] * GRID[1]
        assert taken == sum(rooms) == 3 * 2 * (places + finer * (1 + 2 * 3 + 2))


def test_a_disk_too_small_for_a_video_is_told_with_all_that_is_needed(tmp_path, monkeypatch):
    def small(file, start, size):
        if size == 1000 * 2 * 4 * GRID[0] * GRID[1]:  # of the file with a name, the last one
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", small, raising=False)
    room = 1000 * 2 * 24 * 32 * (1 + 4 * (1 + 2 * 3 + 2)) / 2**20
    with pytest.raises(UserError, match=f"{tmp_path}: the disk is full; make space .* {room:.0f} MiB, "), \
            Propagation(0.9, GRID, lambda frame, logits: logits).of_video(1000, tmp_path, "kept.tmp"):
        pass
    assert not list(tmp_path.iterdir())


def test_probabilities_of_zero_and_one_stay_finite(tmp_path):
    predictions = np.stack([np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32)])
    found = propagate(predictions, [texture()] * 2, 0.5, tmp_path)
    np.testing.assert_allclose(found, everywhere(agreed(np.array([0.001, 0.999]), 0.5), GRID), rtol=2e-3)
