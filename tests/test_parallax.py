"""Which videos are looked at without parallax, too: where the network is surer then; and what comes of it."""

import functools
import json

import jax
import numpy as np
import pytest
import tiny
from tiny_eval import folder_config, write_clip

from configs import base, dattt_synth_b0
from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.estimators import video_flow
from dattt_jax.eval_data import eval_entries
from dattt_jax.evaluate import make_plan, run_plan
from dattt_jax.forward import encode_flow, predict_probability
from dattt_jax.inference import load_network, to_mask
from dattt_jax.models import create_model
from dattt_jax.parallax import ParallaxCheck, parallax_check
from dattt_jax.segment import segment
from dattt_jax.ttt import SOURCE, FrameResult
from input_pipeline.clip import PairClip
from input_pipeline.images import read_mask

SIZE = (24, 32)


def flow_config(**flow):
    config = base.get_config()
    config.flow.update({"stabilized": True, "gaps": (1, -1), "parallax_probes": 3} | flow)
    return config


def video(count, seed=0):
    """Frames of noise, of which every tells its number in its first place."""
    frames = np.random.default_rng(seed).integers(0, 255, (count, *SIZE, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(count)
    return list(frames)


class Scripted:
    """An engine that predicts the given maps over and over; keeps what it is given."""

    def __init__(self, *maps):
        self.maps, self.seen = maps, []

    def run(self, variables, clip, strategy, key):
        assert strategy.steps == 0 and variables == "variables"
        for index in range(len(clip)):
            pair = clip.read(np.array([index]))
            self.seen.append((int(pair["image"][0, 0, 0, 0]), pair["flow"][0]))
            yield FrameResult(index, 0, self.maps[index % len(self.maps)], np.zeros(0), np.zeros(0, bool))


def maps(*values):
    return np.repeat(np.array(values, np.float32), 6).reshape(-1, 6)


@pytest.mark.parametrize(("first", "second", "taken"), [
    (maps(0.6, 0.0), maps(0.9, 0.0), True),  # |2p - 1| = 0.2 and 0.8
    (maps(0.9, 0.0), maps(0.6, 0.0), False),
    (maps(0.9, 0.6), maps(0.0, 0.8), True),  # (0.9 · 0.8 + 0.6 · 0.2) / 1.5 = 0.56 and 0.6
    (maps(0.9, 0.7), maps(0.0, 0.8), False),  # (0.9 · 0.8 + 0.7 · 0.4) / 1.6 = 0.625 and 0.6
    (maps(0.9, 0.0), maps(0.9, 0.0), False),
    (maps(0.9, 0.3), maps(0.001, 0.001), False),  # what is sure to be background is no object
    (maps(0.4, 0.001), maps(0.001, 0.001), False),
    (maps(0.0, 0.0), maps(0.0, 0.0), False)])
def test_the_second_look_counts_where_the_network_is_surer(first, second, taken):
    config = flow_config()
    check, plain = parallax_check(config), video_flow(config)
    flow = check.flow(plain, video(5), range(5), Scripted(first, second), "variables")
    assert flow is (check.both if taken else plain)


@pytest.mark.parametrize(("ahead", "taken"), [((0.4, 0.4, -0.6), True), ((0.4, -0.1, -0.4), False)])
def test_the_mean_of_the_probes_decides(ahead, taken):
    config = flow_config()
    check, plain = parallax_check(config), video_flow(config)
    # Of 0.5 the network is sure by 0, of 0.7 by 0.4.
    looks = [maps(0.5 + part / 2, 0.0) for each in ahead for part in (max(-each, 0), max(each, 0))]
    flow = check.flow(plain, video(9), range(9), Scripted(*looks), "variables")
    assert flow is (check.both if taken else plain)


@pytest.mark.parametrize(("count", "indices", "probed"), [
    (9, range(9), [1, 4, 7]), (30, range(30), [5, 15, 25]), (2, range(2), [0, 1]),
    (9, [0, 2, 5, 8], [0, 5, 8]), (9, range(8), [1, 4, 6])])
def test_frames_all_over_the_video_are_asked_from_both_looks(count, indices, probed):
    config, frames = flow_config(), video(count)
    engine = Scripted(maps(0.5), maps(0.5))
    parallax_check(config).flow(video_flow(config), frames, indices, engine, "variables")
    assert [number for number, _ in engine.seen] == sorted(2 * probed)
    first, second = (dict(engine.seen[look::2]) for look in range(2))
    renderings = list(video_flow(config).renderings(frames, "repeat"))
    for number in probed:
        np.testing.assert_array_equal(first[number], renderings[number][1])
        assert first[number].shape == second[number].shape and (first[number] != second[number]).any()


def test_both_looks_are_the_flows_of_each():
    config = flow_config(sides=(24, 48))
    both, frames = parallax_check(config).both, video(3)
    assert both.gaps == (1, -1, 1, -1)
    assert both.identity.count("across epipolar lines") == 2
    for (_, several), (_, plain) in zip(both.renderings(frames, "repeat"),
                                        video_flow(config).renderings(frames, "repeat"), strict=True):
        np.testing.assert_array_equal(several[:2], plain)


@pytest.mark.parametrize(("flow", "message"), [
    ({"parallax_probes": -1}, r"config\.flow\.parallax_probes=-1: give a number of frames, 0 to leave"),
    ({"method": "raft_small", "stabilized": False}, r"parallax_probes=3 is of no use to .*=raft_small: set"),
    ({"stabilized": False}, r"parallax_probes=3 needs config\.flow\.stabilized=True"),
    ({"method": "files", "root": "."}, r"parallax_probes=3 is of no use to config\.flow\.method=files: set")])
def test_what_does_not_work_is_said(flow, message):
    with pytest.raises(UserError, match=message):
        parallax_check(flow_config(**flow))


def test_it_is_off_but_for_the_weights_in_the_box():
    assert parallax_check(base.get_config()) is None
    assert parallax_check(dattt_synth_b0.get_config()).probes == 8


def test_what_either_look_takes_for_the_background_is_background(tiny_backbones):
    config = tiny.tiny_config().model
    model, variables, size = create_model(config), tiny.filled(config, kernels=3.0), (32, 48)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1, *size, 3), np.uint8)
    flows = rng.integers(0, 255, (4, *size, 3), np.uint8)

    @functools.partial(jax.jit, static_argnums=1)
    def probability(renderings, look):
        features = encode_flow(model, variables, renderings, size)
        return predict_probability(model, variables, image, features, size, look=look)[0]

    both, looks = probability(flows, 2), [probability(flows[:2], 2), probability(flows[2:], 2)]
    assert (looks[0] > looks[1] + 1e-4).any() and (looks[1] > looks[0] + 1e-4).any()
    # The least of the logits is upsampled, which is at most the least of what was upsampled.
    assert np.all(both <= np.minimum(*looks) + 1e-6)
    corners = np.s_[:: size[0] - 1, :: size[1] - 1]  # a corner is one logit alone
    np.testing.assert_allclose(both[corners], np.minimum(*looks)[corners], atol=1e-6)
    # Fewer flows than a look, as in --mode=live, are one.
    np.testing.assert_array_equal(probability(flows[:2], 4), looks[0])


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_backbones):
    """A network of random weights and four clips, each checked by two of its frames."""
    root = tmp_path_factory.mktemp("data")
    for number in range(4):
        write_clip(root, f"clip{number}", 4, masks=range(4), seed=number)
    config = folder_config(tiny.tiny_config(), root, strategies=("base",), overlays=False, devices=1)
    config.init = str(tmp_path_factory.mktemp("network"))
    save_variables(config.init, tiny.filled(config.model, kernels=3.0), config.model)
    config.flow.update({"stabilized": True, "gaps": (1, -1), "parallax_probes": 2})
    config.ttt.update({"objective": "self_training", "steps": 2, "learning_rate": 1e-3})
    return config


def test_evaluation_asks_of_every_video(config, tmp_path):
    network, check, plain = load_network(config), parallax_check(config), video_flow(config)
    engine, taken = network.engine(config.ttt, adapts=False), []
    run_plan(config, tmp_path, make_plan(config), engine, network.variables)
    for entry in eval_entries(config):
        video = entry.open()
        flow = check.flow(plain, video.frames, range(4), engine, network.variables)
        taken.append(flow is check.both)
        record = json.loads((tmp_path / f"videos/base/{video.name}.json").read_text())
        assert record["flow"] == flow.identity
        with PairClip(flow.renderings(video.frames, "repeat"), 4) as clip:
            for name, result in zip(video.frame_names, engine.run(
                    network.variables, clip, SOURCE, jax.random.key(1)), strict=True):
                np.testing.assert_array_equal(read_mask(tmp_path / f"masks/base/{video.name}/{name}.png"),
                                              to_mask(result.probability, name))
    assert set(taken) == {False, True}
    assert engine.compile_count() == 2  # for what has one look, the check included, and for what has two


def test_segment_learns_from_both_looks(config, tmp_path, monkeypatch):
    config = config.copy_and_resolve_references()
    config.segment.update({"input": f"{config.data.root}/frames/clip0", "overlay": False})
    config.ttt.strategy, config.propagation = "n", 0.9
    monkeypatch.setattr(ParallaxCheck, "flow", lambda check, plain, *rest: check.both)
    summary = segment(config, tmp_path)
    assert "across epipolar lines" in summary["flow"]["identity"]
    assert summary["skipped_steps"] == 0
    assert len(list((tmp_path / "masks").iterdir())) == len(summary["losses"]) == 4
    assert all(second != first for first, second in summary["losses"].values())
