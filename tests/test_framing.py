"""Padded frames, their sizes given as data, against the plain form that reads them from shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dattt_jax import framing
from dattt_jax.augment import ttt_views
from dattt_jax.forward import (
    encode_flow,
    merge_flows,
    merge_looks,
    predict_probability,
    prepare,
)
from dattt_jax.framing import OUTSIDE, Buckets, framing_of
from dattt_jax.inference import Network
from dattt_jax.models import create_model, mit
from dattt_jax.ttt import create_strategy
from dattt_jax.ttt.monitor import measure
from dattt_jax.ttt.task import Task

INPUT = (32, 48)
SIZES = ((45, 70), (32, 48), (90, 51), (64, 64), (128, 33))  # smaller, equal, larger, whole multiples


@pytest.fixture(autouse=True)
def _tiny(tiny_backbone, monkeypatch):
    monkeypatch.setattr(framing, "_BUCKET", 64)
    framing_of.cache_clear()
    yield
    framing_of.cache_clear()


def frames(size, count=1, seed=0):
    image, flow = np.random.default_rng(seed).integers(0, 256, (2, count, *size, 3), dtype=np.uint8)
    return {"image": image, "flow": flow}


def packed_frame(size):
    packed, unpack = Buckets(INPUT).pack(frames(size))
    return jax.tree.map(lambda x: x[0], packed), unpack


@pytest.mark.parametrize(("size", "upsampling"), [
    *((size, "bilinear") for size in SIZES), *((size, "guided") for size in SIZES[:2])])
def test_input_crops_and_probability_equal_the_plain_form(size, upsampling):
    config = tiny.tiny_config().model
    model, variables = create_model(config), tiny.filled(config)
    plain = jax.tree.map(lambda x: x[0], frames(size))
    frame, unpack = packed_frame(size)
    assert frame["image"].shape == (-(-size[0] // 64) * 64, -(-size[1] // 64) * 64, 3)
    key = jax.random.key(3)

    @jax.jit
    def all_of(variables, image, flow, framing):
        features = encode_flow(model, variables, flow[None], INPUT, framing)
        return (prepare(image[None], INPUT, framing),
                ttt_views(key, image, 3, INPUT, framing and framing.size),
                predict_probability(model, variables, image[None], features, INPUT, framing,
                                    upsampling=upsampling))

    expected = all_of(variables, plain["image"], plain["flow"], None)
    found = all_of(variables, frame["image"], frame["flow"], frame["framing"])
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=2e-6)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(unpack(np.asarray(found[2])), expected[2], rtol=0, atol=1e-5)
    outside = np.ones(found[2].shape[1:], bool)
    outside[: size[0], : size[1]] = False
    assert np.all(np.asarray(found[2])[0][outside] == OUTSIDE)


def test_sure_maps_count_more():
    def logit(p):
        return np.log(p / (1 - p))

    maps = np.stack([logit(np.full((2, 3, 1), p, np.float32)) for p in (0.9, 0.7)])
    maps[1, 1] = -40  # a place without object says nothing about how sure the map is of its object
    # Sure of what each takes for the object: |2 · 0.9 - 1| = 0.8 and |2 · 0.7 - 1| = 0.4: 16 to 1.
    np.testing.assert_allclose(merge_flows(maps), (16 * maps[0] + maps[1]) / 17, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(merge_flows(maps[:1]), maps[0])
    np.testing.assert_allclose(merge_flows(np.stack([maps[0]] * 3)), maps[0], rtol=1e-6)
    empty = np.full((2, 2, 3, 1), -200, np.float32)  # probabilities that are 0 in float32
    np.testing.assert_array_equal(merge_flows(empty), empty[0])
    undecided = np.zeros((2, 2, 3, 1), np.float32)
    np.testing.assert_array_equal(merge_flows(undecided), undecided[0])


def test_of_several_looks_the_least_is_taken():
    maps = np.random.default_rng(0).normal(size=(6, 2, 3, 1)).astype(np.float32)
    looks = np.stack([merge_flows(maps[:3]), merge_flows(maps[3:])])
    np.testing.assert_allclose(merge_looks(maps, 3), looks.min(0), rtol=1e-6)
    assert (looks[0] < looks[1]).any() and (looks[1] < looks[0]).any()
    for look in (0, 6, 9):
        np.testing.assert_array_equal(merge_looks(maps, look), merge_flows(maps))


def test_several_flows_of_a_frame_are_merged():
    config = tiny.tiny_config().model
    model, variables, size = create_model(config), tiny.filled(config), (45, 70)
    problem = Network(model, variables, INPUT).problem(tiny.tiny_config().ttt, adapts=True)
    image, flows = frames(size)["image"], np.stack([frames(size, seed=seed)["flow"] for seed in range(3)], 1)

    @jax.jit
    def probability(frame):
        return problem.predict(variables, frame, problem.context(variables, frame))

    def of(flow):
        batch, unpack = problem.pack({"image": image, "flow": flow})
        return unpack(np.asarray(probability(jax.tree.map(lambda x: x[0], batch)))).astype(np.float64)

    def logit(p):
        return np.log(p) - np.log1p(-p)

    # Upsampling is bilinear: weights of the small maps are those of the large ones.
    task = Task(model, INPUT, 1)
    packed, _ = problem.pack({"image": image, "flow": flows})
    small = jax.jit(task.mask_logits)(variables, jax.tree.map(lambda x: x[0], packed))
    p = np.asarray(jax.nn.sigmoid(small), np.float64)
    sure = np.sum(p * np.abs(2 * p - 1), axis=(1, 2, 3)) / np.sum(p, axis=(1, 2, 3))
    expected = np.tensordot(sure**4 / np.sum(sure**4), [logit(of(flows[:, i])) for i in range(3)], axes=1)
    np.testing.assert_allclose(logit(of(flows)), expected, rtol=0, atol=3e-6)
    # One flow alone gives something else, by far more than the tolerance.
    assert np.abs(logit(of(flows[:, 0])) - expected).max() > 2e-5


def engine(chunk=2, **fields):
    config = tiny.tiny_config()
    config.ttt.update({"batch_size": 2, "learning_rate": 1e-3, "chunk": chunk, **fields})
    model, variables = create_model(config.model), tiny.filled(config.model)
    return Network(model, variables, INPUT).engine(config.ttt, adapts=True), variables


class Video:
    def __init__(self, size, count=3):
        self.arrays = frames(size, count)

    def __len__(self):
        return len(self.arrays["image"])

    def read(self, indices):
        return jax.tree.map(lambda x: x[indices], self.arrays)


@pytest.fixture(scope="module")
def keeping():
    """(engine of the policy keep_better, variables), for the tests that run it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mit.MIT_SIZES, "mit_b0", tiny.SIZES)
        return engine(policy="keep_better")


def test_videos_of_several_sizes_share_a_program(keeping):
    shared, variables = keeping
    strategy = create_strategy("mwi", steps=2, groups=1)
    for size in ((45, 60), (64, 50), (33, 64)):
        results = list(shared.run(variables, Video(size), strategy, jax.random.key(0)))
        assert [r.probability.shape for r in results] == [size] * 3
        assert all(np.all((r.probability >= 0) & (r.probability <= 1)) for r in results)
    assert shared.compile_count() == 1


def test_a_larger_video_has_a_program_of_its_own():
    alone, variables = engine()
    strategy = create_strategy("base", steps=1, groups=1)
    for size, count in (((64, 60), 1), ((65, 60), 2)):
        list(alone.run(variables, Video(size), strategy, jax.random.key(0)))
        assert alone.compile_count() == count


def test_adapting_padded_frames_equals_adapting_plain_ones(keeping):
    padded, variables = keeping
    plain, _ = engine(policy="keep_better")
    object.__setattr__(plain._problem, "pack", lambda batch: (batch, np.asarray))
    strategy = create_strategy("mwi", steps=2, groups=1)
    for found, expected in zip(*(list(e.run(variables, Video((45, 60)), strategy, jax.random.key(0)))
                                 for e in (padded, plain)), strict=True):
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
        np.testing.assert_allclose(found.probability, expected.probability, atol=2e-3)
        np.testing.assert_allclose(found.report.agreement, expected.report.agreement, atol=2e-3)


def test_padding_is_no_background_to_the_monitor():
    full = jnp.full((4, 4), OUTSIDE).at[:2, :3].set(0.9)
    part = full.at[0, 0].set(0.1)
    weights = {("params", "w"): jnp.ones(2)}
    for adapted, degenerate in ((full, True), (part, False)):
        report, _ = measure((adapted, adapted), (part, part), weights, weights, 0.0)
        cut = [p[:2, :3] for p in (adapted, part)]
        expected, _ = measure((cut[0], cut[0]), (cut[1], cut[1]), weights, weights, 0.0)
        assert report.agreement == expected.agreement == (0.0 if degenerate else 1.0)
        assert report.change == expected.change
