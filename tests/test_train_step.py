"""The training step: schedule, optimiser, devices and pieces of a batch."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import traverse_util

from dattt_jax.augment import train_augment
from dattt_jax.models import create_model
from dattt_jax.parallel import AXIS, parallel_step, place
from dattt_jax.train_step import (
    TrainState,
    create_learning_rate_fn,
    create_optimizer,
    create_train_state,
)

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.mark.parametrize("period", [10, 1])
def test_learning_rate_is_a_cosine_in_stairs(period):
    schedule = create_learning_rate_fn(6e-5, 1e-5, total_steps=4 * period, period=period)
    # 1e-5 + 2.5e-5 · (1 + cos(pi · e / 4)): cos is 1, 1/sqrt(2), 0, -1/sqrt(2), and -1 past the end.
    half = 2.5e-5 / np.sqrt(2)
    expected = np.repeat([6e-5, 3.5e-5 + half, 3.5e-5, 3.5e-5 - half, 1e-5], period)
    np.testing.assert_allclose([schedule(step) for step in range(5 * period)], expected, rtol=1e-6)


def test_weight_decay_reaches_every_parameter():
    params = {name: jnp.full(shape, 3.0) for name, shape in
              (("kernel", (2, 3)), ("bias", (3,)), ("scale", (3,)), ("bias_table", (4, 2)))}
    optimizer = create_optimizer(0.5, 0.01)
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    for update in updates.values():
        np.testing.assert_allclose(update, -0.5 * 0.01 * 3, rtol=1e-6)


def test_state_is_a_pytree_of_arrays():
    state = TrainState(step=1, params={"a": 2}, batch_stats={}, opt_state=(3,))
    assert jax.tree.leaves(state) == [1, 2, 3]
    assert state.variables == {"params": {"a": 2}, "batch_stats": {}}


def random_batch(seed, size):
    rng = np.random.default_rng(seed)
    shape = (size, 32, 32)
    depth = rng.uniform(0.1, 1.0, (*shape, 1)).astype(np.float32)
    depth[0] = 0  # one sample has no depth at all, so the devices count different pixels
    return {"image": rng.integers(0, 256, (*shape, 3), np.uint8),
            "flow": rng.integers(0, 256, (*shape, 3), np.uint8),
            "mask": rng.integers(0, 2, (*shape, 1), np.uint8), "depth": depth}


def sgd_step(config, devices, *, accumulation=1, augment=lambda keys, batch: batch):
    """A step with SGD of rate 1, which shows a gradient's size as Adam does not."""
    return parallel_step(devices, model=create_model(config.model, axis_name=AXIS), optimizer=optax.sgd(1.0),
                         depth_weight=0.1, iou_weight=0.3, accumulation=accumulation, augment=augment)


def sgd_state(initial, devices):
    return place(create_train_state(initial, optax.sgd(1.0)), devices)


def gradients(initial, state):
    before = traverse_util.flatten_dict(initial["params"])
    after = traverse_util.flatten_dict(state.params)
    return {key: before[key] - np.asarray(after[key]) for key in before}


def test_four_devices_equal_one_and_compile_once(caplog):
    """Augmentation and drop-path included: every sample draws from a key of its own."""
    config = tiny.tiny_config()
    config.model.drop_path = 0.5
    initial, traces = tiny.filled(config.model), []

    def augment(keys, batch):
        traces.append(keys)
        return train_augment(keys, batch, hue=True, resize_crop=True)

    results = {}
    for count in (1, 4):
        devices = jax.local_devices()[:count]
        step = sgd_step(config, devices, augment=augment)
        results[count] = step(sgd_state(initial, devices), random_batch(0, 8), jax.random.key(0))
    (one, one_metrics, _), (four, four_metrics, _) = results[1], results[4]
    for name in ("loss", "bce", "silog", "grad_norm"):
        np.testing.assert_allclose(four_metrics[name], one_metrics[name], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
                 four.batch_stats, one.batch_stats)
    expected, found = gradients(initial, one), gradients(initial, four)
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-3, atol=2e-6, err_msg=key)

    assert len(traces) == 2  # one per program
    with jax.log_compiles(), caplog.at_level(logging.DEBUG):
        for seed in (1, 2):
            four, _, _ = step(four, random_batch(seed, 8), jax.random.key(0))
        jax.block_until_ready(four)
    assert len(traces) == 2
    assert not [r.message for r in caplog.records if "ompil" in r.message]
    assert int(four.step) == 3


def test_any_process_that_wants_to_stop_is_heard():
    config = tiny.tiny_config()
    devices = jax.local_devices()[:1]
    step, initial = sgd_step(config, devices), tiny.filled(config.model)
    for stop in (False, True):
        heard = step(sgd_state(initial, devices), random_batch(0, 4), jax.random.key(0), stop)[2]
        assert bool(heard) is stop


def test_pieces_of_a_batch_add_up_to_the_mean_of_their_gradients():
    """Two pieces of two samples: the gradient is the mean of what each gives by itself."""
    config = tiny.tiny_config()
    config.model.drop_path = 0.0
    initial, devices = tiny.filled(config.model), jax.local_devices()[:1]
    batch = random_batch(0, 4)
    halves = [jax.tree.map(lambda x, rows=rows: x[rows], batch) for rows in (slice(0, 2), slice(2, 4))]
    one_by_one = sgd_step(config, devices)
    expected = [gradients(initial, one_by_one(sgd_state(initial, devices), half, jax.random.key(0))[0])
                for half in halves]
    state, metrics, _ = sgd_step(config, devices, accumulation=2)(
        sgd_state(initial, devices), batch, jax.random.key(0))
    found = gradients(initial, state)
    for key in found:
        np.testing.assert_allclose(found[key], (expected[0][key] + expected[1][key]) / 2, rtol=1e-3,
                                   atol=2e-6, err_msg=key)
    losses = [float(one_by_one(sgd_state(initial, devices), half, jax.random.key(0))[1]["loss"])
              for half in halves]
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    # BatchNorm saw one half after the other: 0.9 · (0.9 · running + 0.1 · first) + 0.1 · second.
    stats = []
    for half in halves:
        after = one_by_one(sgd_state(initial, devices), half, jax.random.key(0))[0].batch_stats
        stats.append(jax.tree.map(lambda new, old: (np.asarray(new) - 0.9 * old) / 0.1, after,
                                  initial["batch_stats"]))
    expected_stats = jax.tree.map(lambda old, a, b: 0.9 * (0.9 * old + 0.1 * a) + 0.1 * b,
                                  initial["batch_stats"], *stats)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
                 jax.device_get(state.batch_stats), expected_stats)


def test_bfloat16_computes_but_does_not_store():
    config = tiny.tiny_config()
    config.model.dtype = "bfloat16"
    initial, devices = tiny.filled(config.model), jax.local_devices()[:1]
    state, metrics, _ = sgd_step(config, devices)(sgd_state(initial, devices), random_batch(0, 4),
                                                  jax.random.key(0))
    assert {x.dtype.name for x in jax.tree.leaves((state.params, state.batch_stats, metrics))} == {"float32"}
    config.model.dtype = "float32"
    exact = sgd_step(config, devices)(sgd_state(initial, devices), random_batch(0, 4), jax.random.key(0))[1]
    assert metrics["loss"] != exact["loss"]
    np.testing.assert_allclose(metrics["loss"], exact["loss"], rtol=0.02)
