"""Flow to several frames: which pairs are estimated, at the ends of a video too."""

import numpy as np
import pytest

from configs import base
from dattt_jax.errors import UserError
from dattt_jax.estimators import flow_of_video, pair_flow, renderings_shape, video_flow
from dattt_jax.segment_progress import pairs_from
from input_pipeline.flow import flow_renderings, flow_to_rgb
from input_pipeline.flow.nearby import NearbyFlow


class PairNumbers:
    """A flow method whose rendering holds the numbers of both frames."""

    identity = "pair numbers"

    def __call__(self, image0, image1):
        raise AssertionError("the rendering is asked for")

    def rendering(self, image0, image1):
        return np.stack([image0[..., 0], image1[..., 0], image0[..., 2]], -1)


class BatchedPairs:
    """A flow method that takes three pairs at once: dx is the distance between their frames' numbers."""

    identity, batch_size = "batched pairs", 3

    def __init__(self):
        self.batches = []

    def __call__(self, image0, image1):
        raise AssertionError("pairs are given in batches")

    def batch(self, images0, images1):
        numbers = (images[:, 0, 0, 0].tolist() for images in (images0, images1))
        self.batches.append(list(zip(*numbers, strict=True)))
        flow = np.zeros((*images0.shape[:3], 2), np.float32)
        flow[..., 0] = images1[..., 0].astype(np.float32) - images0[..., 0]
        return flow


def video(count):
    return [np.full((2, 3, 3), number, np.uint8) for number in range(count)]


def pairs(count, gaps, last_frame="backward", wanted=None):
    """{frame: [the frames its flow leads to]}."""
    found = {}
    method = NearbyFlow([PairNumbers()], gaps)
    for frame, rendering in method.renderings(iter(video(count)), last_frame, wanted):
        assert (rendering[..., 0] == frame[0, 0, 0]).all()
        assert rendering.shape == (len(gaps), 2, 3, 3)
        found[int(frame[0, 0, 0])] = [int(n) for n in rendering[:, 0, 0, 1]]
    return found


def test_every_frame_has_flow_to_its_neighbours_and_at_the_ends_to_the_nearest():
    assert pairs(6, (1, -1, 2, -2)) == {0: [1, 1, 2, 2], 1: [2, 0, 3, 0], 2: [3, 1, 4, 0], 3: [4, 2, 5, 1],
                                        4: [5, 3, 5, 2], 5: [4, 4, 3, 3]}
    assert pairs(2, (1, -1, 2, -2)) == {0: [1, 1, 1, 1], 1: [0, 0, 0, 0]}
    assert pairs(4, (3,)) == {0: [3], 1: [3], 2: [3], 3: [0]}
    assert pairs(4, (-1,)) == {0: [1], 1: [0], 2: [1], 3: [2]}


def test_drop_leaves_out_the_last_frame_and_repeat_is_backward():
    gaps = (1, -2)
    whole = pairs(5, gaps)
    assert pairs(5, gaps, "repeat") == whole
    assert pairs(5, gaps, "drop") == {number: whole[number] for number in range(4)}


def test_only_wanted_frames_have_their_flow_estimated():
    whole = pairs(7, (1, -2))
    assert pairs(7, (1, -2), wanted={1, 5, 6}) == {number: whole[number] for number in (1, 5, 6)}
    resumed = pairs_from(4, iter(video(7)), 7, NearbyFlow([PairNumbers()], (1, -2)), "repeat")
    assert [int(rendering[1, 0, 0, 1]) for _, rendering in resumed] == [whole[n][1] for n in (4, 5, 6)]


def test_a_method_of_batches_is_given_the_pairs_of_a_frame_together():
    method = BatchedPairs()
    source = NearbyFlow([method], (1, -1, 2, -2))
    found = [rendering for _, rendering in source.renderings(video(5), "backward")]
    assert method.batches[4:6] == [[(2, 3), (2, 1), (2, 4)], [(2, 0)]]
    red, cyan = (flow_to_rgb(np.full((2, 3, 2), (dx, 0), np.float32)) for dx in (1, -1))
    np.testing.assert_array_equal(found[2], [red, cyan, red, cyan])


def test_each_gap_may_have_a_method_of_its_own():
    source = NearbyFlow([PairNumbers(), BatchedPairs()], (-1, 2))
    found = [rendering for _, rendering in source.renderings(video(4), "backward")]
    assert [int(both[0, 0, 0, 1]) for both in found] == [1, 0, 1, 2]  # number of the frame before
    red, cyan = (flow_to_rgb(np.full((2, 3, 2), (dx, 0), np.float32)) for dx in (1, -1))
    np.testing.assert_array_equal([both[1] for both in found], [red, red, red, cyan])
    assert source.identity == "pair numbers to frame -1; batched pairs to frame +2"


@pytest.mark.parametrize("gaps", [(1,), (1, -1, 2, -2)])
def test_one_frame_shows_no_motion(gaps):
    with pytest.raises(UserError, match="at least two frames"):
        pairs(1, gaps)


def config(**flow):
    config = base.get_config()
    config.flow.update(flow)
    return config


def test_the_config_chooses():
    plain = video_flow(config())
    several = flow_of_video(video_flow(config(gaps=(1, -1), stabilized=True)), "video", ["0", "1"])
    assert renderings_shape(plain, (4, 6)) == (4, 6, 3)
    assert renderings_shape(several, (4, 6)) == (2, 4, 6, 3)
    assert several.identity.endswith("to frames +1, -1")
    assert "stabilized" in several.identity
    frames = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), np.uint8)
    renderings = [rendering for _, rendering in flow_renderings(frames, several)]
    assert [r.shape for r in renderings] == [(2, 48, 64, 3)] * 3


def test_sides_are_those_of_the_gaps():
    frames = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), np.uint8)
    both = video_flow(config(gaps=(1, -1), sides=(32, 96)))
    for number, (gap, side) in enumerate(((1, 32), (-1, 96))):
        alone = video_flow(config(gaps=(gap,), sides=(side,)))
        for (_, several), (_, one) in zip(flow_renderings(frames, both), flow_renderings(frames, alone),
                                          strict=True):
            np.testing.assert_array_equal(several[number], one[0])
        assert alone.identity in both.identity.replace("to frame ", "to frames ")
    assert pair_flow(config(gaps=(1, -1), sides=(32, 96))).identity.endswith("side=32)")


@pytest.mark.parametrize(("flow", "message"), [
    ({"sides": (9,), "gaps": (1, -1)}, r"sides=\(9,\): give a whole number of pixels, 1 or more, for each"),
    ({"sides": (0,)}, r"config\.flow\.sides=\(0,\): give a whole number of pixels, 1 or more"),
    ({"sides": (9,), "method": "files", "root": "."}, r"sides=\(9,\) is of no use to .*files: set config"),
    ({"gaps": ()}, r"config\.flow\.gaps=\(\): give whole numbers"),
    ({"last_frame": "last"}, r"config\.flow\.last_frame='last': use one of repeat, backward, drop"),
    ({"gaps": (1, 0)}, r"config\.flow\.gaps=\(1, 0\): give whole numbers"),
    ({"gaps": (2,), "method": "files", "root": "."}, "flow files are of neighbours"),
    ({"stabilized": True, "method": "files", "root": "."}, r"config\.flow\.stabilized=True is of no use")])
def test_what_does_not_work_is_said(flow, message):
    with pytest.raises(UserError, match=message):
        video_flow(config(**flow))
