"""At which of several input sizes a video is seen: where the network is surest of the object."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny
from tiny_eval import folder_config, write_clip

from configs import base, dattt_synth_b0
from dattt_jax.checkpoints import save_variables
from dattt_jax.config_checks import check_numbers
from dattt_jax.errors import UserError
from dattt_jax.estimators import video_flow
from dattt_jax.eval_data import eval_entries
from dattt_jax.evaluate import evaluate
from dattt_jax.inference import load_network, to_mask
from dattt_jax.input_sizes import SizeCheck, Sized, size_check
from dattt_jax.segment import segment
from dattt_jax.sureness import probed_frames, sureness
from dattt_jax.ttt import SOURCE
from input_pipeline.clip import PairClip
from input_pipeline.eval_pairs import frame_pairs
from input_pipeline.images import read_mask

SIZES = ((32, 32), (32, 48), (48, 48))


def test_the_network_is_as_sure_as_the_formula_says():
    assert sureness(np.array([[0.9, 0.6], [0.0, 0.4]])) == pytest.approx((0.9 * 0.8 + 0.6 * 0.2) / 1.9)
    assert sureness(np.zeros((2, 2))) == 0
    assert sureness(np.ones((2, 2), np.float32)) == 1


@pytest.mark.parametrize(("indices", "count", "probed"), [
    (range(9), 3, {1, 4, 7}), (range(2), 8, {0, 1}), ([0, 2, 5, 8], 3, {0, 5, 8}), ([3], 8, {3})])
def test_probes_are_spread_over_the_frames(indices, count, probed):
    assert probed_frames(indices, count) == probed


@pytest.mark.parametrize(("maps", "best"), [
    (([0.7, 0.7], [0.9, 0.6]), 1),  # means of 0.4 and 0.4; of 0.8 and 0.2
    (([0.9, 0.6], [0.7, 0.6]), 0),
    (([0.7, 0.7], [0.7, 0.7]), 0),
    (([0.4, 0.4], [0.6, 0.4]), 1),
    (([0.6, 0.6], [np.nan, 0.9]), 0)])  # weights that overflow at a size are found out where they are used
def test_the_mean_over_the_probes_decides(maps, best):
    """Each probe, which tells its number, is a map of one place."""
    def scripted(probabilities):
        def logits(variables, image, renderings):
            assert variables == "variables" and image[0, 0, 0] == renderings[0, 0, 0]
            p = np.array([[probabilities[image[0, 0, 0]]]])
            return np.log(p / (1 - p))
        return logits

    check = SizeCheck([Sized(size, None, None, scripted(each))
                       for size, each in zip(SIZES, maps, strict=False)])
    probes = [np.full((8, 8, 3), number, np.uint8) for number in range(2)]
    assert check.best(zip(probes, probes, strict=True), "variables") is check.choices[best]


@pytest.mark.parametrize(("fields", "message"), [
    ({"input_sizes": ((32, 32), (32,))}, r"config\.input_sizes=\(\(32, 32\), \(32,\)\): give several"),
    ({"input_sizes": (384,)}, r"config\.input_sizes=\(384,\): give several"),
    ({"input_sizes": ((16, 16),), "input_size": (16, 16)}, r"config\.input_size=\(16, 16\): give")])
def test_what_does_not_work_is_said(fields, message):
    config = base.get_config()
    for name, value in fields.items():
        config[name] = value
    with pytest.raises(UserError, match=message):
        check_numbers(config)


def test_a_size_that_is_no_choice_is_refused():
    config = base.get_config()
    config.input_sizes = ((32, 32),)
    with pytest.raises(UserError, match=r"input_size=\(512, 512\) is none of config\.input_sizes=.* add it"):
        size_check(config, None, adapts=False)


def test_it_is_off():
    for config in (base.get_config(), dattt_synth_b0.get_config()):
        check_numbers(config)
        assert size_check(config, None, adapts=False) is None


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_backbones):
    """A network of random weights and four clips."""
    root = tmp_path_factory.mktemp("data")
    for number in range(4):
        write_clip(root, f"clip{number}", 4, masks=range(4), seed=number)
    config = folder_config(tiny.tiny_config(), root, strategies=("base",), overlays=False, devices=1)
    config.init = str(tmp_path_factory.mktemp("network"))
    save_variables(config.init, tiny.filled(config.model, kernels=3.0), config.model)
    config.input_size, config.input_sizes = SIZES[1], SIZES
    config.ttt.update({"objective": "self_training", "steps": 2, "learning_rate": 1e-3})
    return config


def test_evaluation_sees_every_video_at_its_size(config, tmp_path):
    evaluate(config, tmp_path)
    network, flow, taken = load_network(config), video_flow(config), set()
    networks = {size: dataclasses.replace(network, input_size=size) for size in SIZES}
    engines = {size: each.engine(config.ttt, adapts=False) for size, each in networks.items()}
    logits = {size: each.mask_logits() for size, each in networks.items()}
    for entry in eval_entries(config):
        video = entry.open()
        pairs = list(frame_pairs(video, range(4), flow, "repeat"))
        sure = {size: np.mean([sureness(1 / (1 + np.exp(-logits[size](network.variables, *pair))))
                               for pair in pairs]) for size in SIZES}
        size = max(sure, key=sure.get)
        record = json.loads((tmp_path / f"videos/base/{video.name}.json").read_text())
        assert record["input_size"] == list(size)
        with PairClip(pairs, 4) as clip:
            for name, result in zip(video.frame_names, engines[size].run(
                    network.variables, clip, SOURCE, jax.random.key(1)), strict=True):
                np.testing.assert_array_equal(read_mask(tmp_path / f"masks/base/{video.name}/{name}.png"),
                                              to_mask(result.probability, name))
        taken.add(size)
    assert len(taken) > 1


@pytest.mark.parametrize("chosen", SIZES)
def test_segment_learns_and_propagates_at_the_size(config, tmp_path, monkeypatch, chosen):
    config = config.copy_and_resolve_references()
    config.segment.update({"input": f"{config.data.root}/frames/clip0", "overlay": False})
    config.ttt.strategy, config.propagation = "n", 0.9
    monkeypatch.setattr(SizeCheck, "best", lambda check, probes, variables: next(
        choice for choice in check.choices if choice.input_size == chosen))
    summary = segment(config, tmp_path / "chosen")
    assert summary["input_size"] == list(chosen)
    config.input_size, config.input_sizes = chosen, ()
    alone = segment(config, tmp_path / "alone")
    assert alone["losses"] == summary["losses"] and size_check(config, None, adapts=True) is None
    for path in (tmp_path / "alone" / "masks").iterdir():
        np.testing.assert_array_equal(read_mask(path), read_mask(tmp_path / "chosen" / "masks" / path.name))
