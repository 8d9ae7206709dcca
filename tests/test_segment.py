"""`--mode=segment` on real files, with a tiny network."""

import dataclasses
import json
import os
import shutil
import threading

import cv2
import jax
import numpy as np
import pytest
from golden_model import random_variables
from PIL import Image

from configs import demo
from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.forward import UPSAMPLINGS, encode_flow, predict_probability
from dattt_jax.inference import load_network, to_mask
from dattt_jax.segment import segment
from dattt_jax.ttt import SOURCE, create_strategy
from input_pipeline.flow import create_flow, flow_renderings
from input_pipeline.video_io import open_video
from input_pipeline.writers import VideoWriter

pytestmark = pytest.mark.usefixtures("shared_engines")

SIZE = (45, 70)
FRAMES = 5


def moving_square():
    """Frames of a bright square that moves over noise."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (*SIZE, 3), dtype=np.uint8)
    for t in range(FRAMES):
        frame = background.copy()
        frame[10:25, 5 + 4 * t : 20 + 4 * t] = 250
        yield frame


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_backbones):
    config = demo.get_config()
    config.input_size = (32, 32)
    config.model.decoder_features = 8
    config.ttt.steps, config.ttt.batch_size = 2, 2
    config.ttt.learning_rate = 1e-3  # large, so that adaptation shows in a mask
    config.init = str(tmp_path_factory.mktemp("weights"))
    save_variables(config.init, random_variables(config.model), config.model)
    return config


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "walk"
    folder.mkdir()
    for t, frame in enumerate(moving_square()):
        Image.fromarray(frame).save(folder / f"shot {t:03d}.png")
    return folder


def run(config, clip, workdir, **fields):
    config = config.copy_and_resolve_references()
    config.segment.input = str(clip)
    config.update_from_flattened_dict(fields)
    return segment(config, workdir)


def masks(workdir):
    return {p.stem: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((workdir / "masks").iterdir())}


def test_every_frame_gets_a_mask_of_its_name_and_size(config, clip, tmp_path):
    summary = run(config, clip, tmp_path, **{"ttt.strategy": "base", "segment.save_probability": True})
    written = masks(tmp_path)
    assert list(written) == [f"shot {t:03d}" for t in range(FRAMES)]
    for name, mask in written.items():
        assert mask.shape == SIZE
        assert set(np.unique(mask)) <= {0, 255}
        soft = cv2.imread(str(tmp_path / "probability" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask[soft > 129], 255)
        np.testing.assert_array_equal(mask[soft < 127], 0)
    assert len(open_video(tmp_path / "overlay.mp4")) == FRAMES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks", "overlay.mp4", "probability",
                                                          "summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    seconds = summary["seconds"]
    one_after_the_other = ["parallax", "source", "compile", "wait_input", "ttt", "predict", "wait_write",
                           "propagate", "overlay"]
    assert list(seconds) == [*one_after_the_other, "decode", "flow", "write", "total"]
    assert seconds["ttt"] == 0 and min(seconds.values()) >= 0
    assert sum(seconds[name] for name in one_after_the_other) <= seconds["total"] + 0.01


def test_another_clips_workdir_is_refused_and_the_same_clips_is_not(config, clip, tmp_path):
    fields = {"ttt.strategy": "base", "segment.overlay": False}
    run(config, clip, tmp_path, **fields)
    run(config, clip, tmp_path, **fields)
    run(config, os.path.relpath(clip), tmp_path, **fields)
    (tmp_path / "other").symlink_to(clip)
    with pytest.raises(UserError, match=r"holds the masks of .*walk"):
        run(config, tmp_path / "other", tmp_path, **fields)
    for damaged, told in (("{", "summary.json is damaged"), ("{}", "holds the masks of another run")):
        (tmp_path / "summary.json").write_text(damaged)
        with pytest.raises(UserError, match=told):
            run(config, clip, tmp_path, **fields)


def test_files_of_another_program_are_not_written_over(config, clip, tmp_path):
    shutil.copytree(clip, tmp_path / "a" / "masks")
    shutil.copytree(clip, tmp_path / "b" / "probability")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "overlay.mp4").write_bytes(b"mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for workdir, there in (("a", "masks"), ("b", "probability"), ("c", "overlay.mp4")):
        for source in (clip, tmp_path / "a" / "masks"):
            with pytest.raises(UserError, match=f"{workdir}/{there} is not of a run of --mode=segment: give"):
                run(config, source, tmp_path / workdir)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_mistake_costs_a_finished_run_nothing(config, clip, tmp_path):
    fields = {"ttt.strategy": "base"}
    run(config, clip, tmp_path, **fields)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert tmp_path / "overlay.mp4" in before
    for wrong in ({"segment.save_weights": "full"}, {"segment.save_weights": "foo"}, {"ttt.groups": 0}):
        with pytest.raises(UserError):
            run(config, clip, tmp_path, **fields | wrong)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_nothing_is_left_of_an_earlier_run_that_this_one_does_not_write(config, clip, tmp_path):
    fields = {"ttt.strategy": "base", "segment.overlay": False}
    run(config, clip, tmp_path, **fields | {"segment.save_probability": True, "segment.overlay": True})
    assert (tmp_path / "overlay.mp4").exists()
    (tmp_path / "masks" / ".shot 000.png.12.tmp").touch()
    (tmp_path / "masks" / "an older name.png").touch()
    run(config, clip, tmp_path, **fields, **{"flow.last_frame": "drop"})
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == [f"shot {t:03d}.png"
                                                                      for t in range(FRAMES - 1)]
    assert not list((tmp_path / "probability").iterdir())
    assert not (tmp_path / "overlay.mp4").exists()


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_base_is_the_network_applied_to_each_frame(config, clip, tmp_path, upsampling):
    summary = run(config, clip, tmp_path, **{"ttt.strategy": "base", "upsampling": upsampling})
    assert summary["upsampling"] == upsampling
    network = load_network(config)
    pairs = list(flow_renderings(moving_square(), create_flow("dis"), "repeat"))
    image, flow = (np.stack(x) for x in zip(*pairs, strict=True))

    @jax.jit
    def predict(variables, image, flow):
        features = encode_flow(network.model, variables, flow, network.input_size)
        return predict_probability(network.model, variables, image, features, network.input_size,
                                   upsampling=upsampling)

    expected = to_mask(np.asarray(predict(network.variables, image, flow)), "any")
    for mask, reference in zip(masks(tmp_path).values(), expected, strict=True):
        assert np.mean((mask == 255) != reference) < 0.002  # rounding at the threshold
    assert 0 < expected.mean() < 1


def test_propagated_masks_are_those_of_the_propagated_predictions(config, clip, tmp_path):
    fields = {"ttt.strategy": "base", "segment.overlay": False, "segment.save_probability": True}
    summary = run(config, clip, tmp_path / "on", **fields, **{"propagation": 0.8, "upsampling": "guided"})
    assert summary["propagation"] == 0.8 and summary["seconds"]["propagate"] > 0
    assert sorted(p.name for p in (tmp_path / "on").iterdir()) == ["masks", "probability", "summary.json"]
    network, frames = load_network(config), list(moving_square())
    image, flow = (np.stack(x) for x in zip(*flow_renderings(frames, create_flow("dis"), "repeat"),
                                            strict=True))
    features = encode_flow(network.model, network.variables, flow, network.input_size)
    predicted = predict_probability(network.model, network.variables, image, features, network.input_size,
                                    upsampling="guided")
    propagation = dataclasses.replace(network, upsampling="guided").propagation(0.8)
    with propagation.of_video(FRAMES, tmp_path) as gathered:
        for t, probability in enumerate(np.asarray(predicted)):
            gathered.take(t, probability)
        expected = np.stack(list(gathered.results(lambda: frames)))
    assert np.abs(expected - predicted).max() > 0.01
    for t, name in enumerate(masks(tmp_path / "on")):
        soft = cv2.imread(str(tmp_path / "on" / "probability" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(soft, 255 * expected[t], atol=0.6)
        np.testing.assert_array_equal(masks(tmp_path / "on")[name][soft > 129], 255)
        np.testing.assert_array_equal(masks(tmp_path / "on")[name][soft < 127], 0)


def test_what_the_source_predicts_is_learnt_once_it_agrees(config, clip, tmp_path):
    fields = {"ttt.strategy": "n", "ttt.objective": "self_training", "segment.overlay": False,
              "segment.save_probability": True, "propagation": 0.8}
    summary = run(config, clip, tmp_path / "run", **fields)
    assert summary["seconds"]["source"] > 0
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    network, frames = load_network(config), list(moving_square())
    engine, propagation = network.engine(config.ttt, adapts=True), network.propagation(0.8)
    image, flow = (np.stack(x) for x in zip(*flow_renderings(frames, create_flow("dis"), "repeat"),
                                            strict=True))

    class Clip:
        def __len__(self):
            return FRAMES

        def read(self, indices):
            return {"image": image[indices], "flow": flow[indices]}

    strategy, key = create_strategy("n", steps=2, groups=1), jax.random.key(config.seed)
    source = engine.run(network.variables, Clip(), SOURCE, key)
    with propagation.predicted(Clip(), source, lambda: frames, tmp_path) as predicted:
        results = list(engine.run(network.variables, predicted, strategy, key))
        with propagation.of_video(FRAMES, tmp_path) as gathered:
            for result in results:
                gathered.take(result.index, result.probability)
            expected = list(gathered.results(lambda: frames))
    for t, name in enumerate(masks(tmp_path / "run")):
        assert summary["losses"][name] == pytest.approx(results[t].losses, rel=1e-4)
        soft = cv2.imread(str(tmp_path / "run" / "probability" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(soft, 255 * expected[t], atol=0.6)


def test_the_same_seed_gives_the_same_masks(config, clip, tmp_path):
    """Whatever the chunk: tests/test_ttt_engine.py."""
    fields = {"ttt.strategy": "mwi", "segment.overlay": False}
    summary, again = (run(config, clip, tmp_path / name, **fields) for name in "ab")
    assert summary["steps"] == 2
    assert [len(losses) for losses in summary["losses"].values()] == [2] * FRAMES
    assert summary["losses"] == again["losses"]
    for name, mask in masks(tmp_path / "a").items():
        np.testing.assert_array_equal(mask, masks(tmp_path / "b")[name])


def test_several_passes_in_groups_leave_no_temporary_files(config, clip, tmp_path):
    summary = run(config, clip, tmp_path, **{"ttt.strategy": "grouped_ltv", "ttt.groups": 2,
                                             "segment.overlay": False})
    assert [len(losses) for losses in summary["losses"].values()] == [2] * FRAMES
    assert len({losses[0] for losses in summary["losses"].values()}) == FRAMES
    assert list(masks(tmp_path)) == [f"shot {t:03d}" for t in range(FRAMES)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks", "summary.json"]


def test_a_portrait_mp4_and_the_drop_rule(config, tmp_path):
    path = tmp_path / "phone.mp4"
    with VideoWriter(path, 30, (64, 36)) as writer:
        for t in range(4):
            frame = np.zeros((64, 36, 3), np.uint8)
            frame[8 + 6 * t : 30 + 6 * t, 10:20] = 255
            writer.write(frame)
    summary = run(config, path, tmp_path / "out", **{"ttt.strategy": "base", "flow.last_frame": "drop"})
    written = masks(tmp_path / "out")
    assert list(written) == ["00000", "00001", "00002"]
    assert {m.shape for m in written.values()} == {(64, 36)}
    assert summary["frames"] == len(open_video(tmp_path / "out" / "overlay.mp4")) == 3


def test_one_frame_is_refused(config, tmp_path):
    (tmp_path / "clip").mkdir()
    Image.fromarray(next(moving_square())).save(tmp_path / "clip" / "a.png")
    with pytest.raises(UserError, match="clip has one frame: motion needs at least two"):
        run(config, tmp_path / "clip", tmp_path / "out")


@pytest.mark.parametrize(("fields", "message"), [
    ({"segment.input": ""}, "config.segment.input is empty"),
    ({"segment.input": "missing.mp4"}, "missing.mp4"),
    ({"init": ""}, "config.init is empty"),
    ({"init": "nowhere"}, "nowhere does not exist"),
    ({"ttt.strategy": "fast"}, "config.ttt.strategy: 'fast' is not one of"),
    ({"propagation": 1.0}, r"config\.propagation=1\.0: give 0 \(off\) or more, and less than 1"),
    ({"primary_share": 1.5}, r"config\.primary_share=1\.5: give 0 \(off\) to 1"),
    ({"upsampling": "bicubic"}, "config.upsampling='bicubic' is not one of bilinear, guided"),
    ({"flow.method": "raft"}, "raft"),
    ({"model.backbone": "mit_b1"}, "made with backbone mit_b0, config.model.backbone is mit_b1"),
])
def test_what_a_user_can_get_wrong_is_told_in_one_line(config, clip, tmp_path, fields, message):
    with pytest.raises(UserError, match=message) as caught:
        run(config, clip, tmp_path, **fields)
    assert "\n" not in str(caught.value)


def test_a_damaged_frame_is_told_and_the_masks_before_it_are_whole(config, clip, tmp_path):
    damaged = tmp_path / "walk"
    shutil.copytree(clip, damaged)
    last = damaged / f"shot {FRAMES - 1:03d}.png"
    last.write_bytes(last.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"shot 004\.png"):
        run(config, damaged, tmp_path / "out", **{"ttt.strategy": "base"})
    written = masks(tmp_path / "out")
    # Two frames make a flow, and a frame's mask is written when the next is under way.
    assert list(written) == [f"shot {t:03d}" for t in range(len(written))] and len(written) >= 2
    assert {mask.shape for mask in written.values()} == {SIZE}
    assert not {"prefetch", "write"} & {thread.name for thread in threading.enumerate()}


def test_a_mask_that_cannot_be_written_ends_the_run(config, clip, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"input": os.path.abspath(clip)}))
    (tmp_path / "masks").write_text("in the way")
    with pytest.raises(UserError, match=r"masks.*cannot be written \(.*\); give another folder"):
        run(config, clip, tmp_path, **{"ttt.strategy": "base"})
    assert not {"prefetch", "write"} & {thread.name for thread in threading.enumerate()}


def test_adapting_without_a_depth_decoder_is_refused(config, clip, tmp_path):
    config = config.copy_and_resolve_references()
    config.model.depth = False
    config.init = str(tmp_path / "weights")
    save_variables(config.init, random_variables(config.model), config.model)
    with pytest.raises(UserError, match="needs the depth decoder"):
        run(config, clip, tmp_path / "out")
    run(config, clip, tmp_path / "out", **{"ttt.strategy": "base"})
    assert len(masks(tmp_path / "out")) == FRAMES


def test_weights_that_are_not_finite_are_told(config, clip, tmp_path):
    config = config.copy_and_resolve_references()
    config.init = str(tmp_path / "weights")
    variables = random_variables(config.model)
    variables["params"]["decode_head"]["vos_head"]["linear_pred"]["bias"][:] = np.nan
    save_variables(config.init, variables, config.model)
    with pytest.raises(UserError, match="prediction of frame shot 000 is not finite"):
        run(config, clip, tmp_path / "out", **{"ttt.strategy": "base"})
