"""Training: schedule, optimiser, devices, and runs that stop and go on."""

import json
import logging
import os
import signal

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from flax import traverse_util

from configs import base
from dattt_jax import train as train_module
from dattt_jax.checkpoints import CheckpointStore, load_variables, save_variables
from dattt_jax.errors import UserError
from dattt_jax.models import create_model, mit
from dattt_jax.signals import StopSignals
from dattt_jax.train import (
    TrainState,
    create_learning_rate_fn,
    create_optimizer,
    create_train_state,
    parallel_step,
    place,
    train,
)
from dattt_jax.train_log import TrainLog
from dattt_jax.variables import variable_shapes


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch):
    """The real network with one block per stage: it compiles in seconds."""
    monkeypatch.setitem(mit.MIT_SIZES, "mit_b0", mit.MiTSizes((8, 16, 20, 32), (1, 1, 1, 1)))


def tiny_config():
    config = base.get_config()
    config.input_size = (32, 32)
    config.model.backbone = "mit_b0"
    config.model.decoder_features = 8
    config.train.update({"batch_size": 4, "synthetic_samples": 12, "epochs": 2, "save_steps": 4,
                         "log_steps": 2})
    return config


def filled(model_config, seed=0):
    """Random variables of a sensible size, without compiling the initialisation."""
    rng = np.random.default_rng(seed)
    flat = {key: rng.normal(1.0 if key[-1] in ("scale", "var") else 0.0, 0.1, s.shape).astype(np.float32)
            for key, s in traverse_util.flatten_dict(variable_shapes(model_config)).items()}
    return traverse_util.unflatten_dict(flat)


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "train_log.jsonl").read_text().splitlines()]


def test_learning_rate_is_a_cosine_per_epoch():
    config = ml_collections.ConfigDict(
        {"learning_rate": 6e-5, "final_learning_rate": 1e-5, "epochs": 4})
    rates = [float(create_learning_rate_fn(config, 10)(step)) for step in range(50)]
    # 1e-5 + 2.5e-5 · (1 + cos(pi · e / 4)): cos is 1, 1/sqrt(2), 0, -1/sqrt(2), and -1 past the end.
    half = 2.5e-5 / np.sqrt(2)
    expected = np.repeat([6e-5, 3.5e-5 + half, 3.5e-5, 3.5e-5 - half, 1e-5], 10)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_weight_decay_reaches_every_parameter():
    params = {name: jnp.full(shape, 3.0) for name, shape in
              (("kernel", (2, 3)), ("bias", (3,)), ("scale", (3,)), ("bias_table", (4, 2)))}
    optimizer = create_optimizer(0.5, 0.01)
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    for update in updates.values():
        np.testing.assert_allclose(update, -0.5 * 0.01 * 3, rtol=1e-6)


def random_batch(seed, size):
    rng = np.random.default_rng(seed)
    shape = (size, 32, 32)
    depth = rng.uniform(0.1, 1.0, (*shape, 1)).astype(np.float32)
    depth[0] = 0  # one sample has no depth at all, so the devices count different pixels
    return {"image": rng.integers(0, 256, (*shape, 3), np.uint8),
            "flow": rng.integers(0, 256, (*shape, 3), np.uint8),
            "mask": rng.integers(0, 2, (*shape, 1), np.uint8), "depth": depth}


def test_four_devices_equal_one_and_compile_once(caplog):
    """With SGD, which shows a gradient's size as Adam does not."""
    model_config = tiny_config().model
    model_config.drop_path = 0.0  # drawn per device
    initial = filled(model_config)
    traces = []

    def augment(key, batch):
        traces.append(key)
        return batch

    results = {}
    for count in (1, 4):
        optimizer = optax.sgd(1.0)
        devices = jax.local_devices()[:count]
        step = parallel_step(devices, model=create_model(model_config, axis_name="batch"),
                             optimizer=optimizer, depth_weight=0.1, augment=augment)
        state = place(create_train_state(initial, optimizer), devices)
        results[count] = step(state, random_batch(0, 8), jax.random.key(0))
    (one, one_metrics), (four, four_metrics) = results[1], results[4]
    for name in ("loss", "bce", "silog", "grad_norm"):
        np.testing.assert_allclose(four_metrics[name], one_metrics[name], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
                 four.batch_stats, one.batch_stats)
    before = traverse_util.flatten_dict(initial["params"])
    grads = [{key: before[key] - np.asarray(value) for key, value
              in traverse_util.flatten_dict(state.params).items()} for state in (one, four)]
    for key in before:
        np.testing.assert_allclose(grads[1][key], grads[0][key], rtol=1e-3, atol=2e-6, err_msg=key)

    assert len(traces) == 2  # one per program
    with jax.log_compiles(), caplog.at_level(logging.DEBUG):
        for seed in (1, 2):
            four, _ = step(four, random_batch(seed, 8), jax.random.key(0))
        jax.block_until_ready(four)
    assert len(traces) == 2
    assert not [r.message for r in caplog.records if "ompil" in r.message]
    assert int(four.step) == 3


def test_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    config = tiny_config()
    save_variables(tmp_path / "weights", filled(config.model), config.model)
    config.init = str(tmp_path / "weights")
    # The runs share their compiled step, as they would share the compile cache.
    steps = []

    def shared_step(*args, **kwargs):
        if not steps:
            steps.append(parallel_step(*args, **kwargs))
        return steps[0]

    monkeypatch.setattr(train_module, "parallel_step", shared_step)
    whole = train(config, tmp_path / "whole")
    assert int(whole.step) == 6
    assert [line["step"] for line in lines(tmp_path / "whole")] == [2, 4, 6]
    assert sorted(p.name for p in (tmp_path / "whole" / "checkpoints").iterdir()) == ["4", "6"]
    assert (tmp_path / "whole" / "train_loss.png").read_bytes().startswith(b"\x89PNG")

    class ProgressWithSignal(train_module.Progress):
        def update(self, count=1, note=""):
            super().update(count, note)
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "Progress", ProgressWithSignal)
        stopped = train(config, tmp_path / "cut")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert int(stopped.step) == 1
    resumed = train(config, tmp_path / "cut")
    assert_equal_trees(resumed, whole)
    losses = [[line["loss"] for line in lines(tmp_path / name)][1:] for name in ("whole", "cut")]
    assert losses[0] == losses[1]

    # Where nothing is left to do, nothing is done, and the modes can read the weights.
    assert_equal_trees(load_variables(tmp_path / "cut", config.model), jax.device_get(whole.variables))
    assert_equal_trees(train(config, tmp_path / "cut"), whole)


def test_order_of_start_modes(tmp_path, monkeypatch):
    config, optimizer = tiny_config(), create_optimizer(1e-3, 0.0)
    monkeypatch.setattr(train_module, "random_variables", filled)

    def start(store):
        return train_module._start_state(config, optimizer, store, data=None)

    with CheckpointStore(tmp_path / "run", config.model, keep=1) as store:
        assert_equal_trees(start(store).variables, filled(config.model, config.seed))
        given = filled(config.model, 7)
        save_variables(tmp_path / "weights", given, config.model)
        config.init = str(tmp_path / "weights")
        state = start(store)
        assert_equal_trees(state.variables, given)
        assert int(state.step) == 0


def test_divergence_names_the_step_and_the_last_checkpoint(tmp_path):
    config = tiny_config()
    log = TrainLog(tmp_path, start_step=0, log_steps=1, batch_size=1, learning_rate_fn=lambda _: 0.0)
    bad = {"loss": jnp.float32(jnp.nan), "grad_norm": jnp.float32(1.0)}
    with CheckpointStore(tmp_path, config.model, keep=1) as store:
        with pytest.raises(UserError, match=r"diverged: loss nan, .* at step 7; none is saved"):
            train_module._settle((7, bad, 0.0), log=log, store=store)
        store.save(5, {"params": {"a": jnp.zeros(1)}})
        bad = {"loss": jnp.float32(1.0), "grad_norm": jnp.float32(jnp.inf)}
        with pytest.raises(UserError, match=r"gradient norm inf at step 9; .* is .*/checkpoints/5;"):
            train_module._settle((9, bad, 0.0), log=log, store=store)
    assert log.lines() == []


@pytest.mark.parametrize(("field", "value", "message"), [
    ("batch_size", 6, r"config\.train\.batch_size=6: give a multiple of the 4 devices"),
    ("epochs", 0, r"config\.train\.epochs=0: give 1 or more"),
    ("synthetic_samples", 3, r"config\.train\.synthetic_samples=3: give .*batch_size=4"),
    ("data", "davis", r"config\.train\.data: 'davis' is not one of synthetic"),
])
def test_fields_that_do_not_work(tmp_path, field, value, message):
    config = tiny_config()
    config.train[field] = value
    with pytest.raises(UserError, match=message):
        train(config, tmp_path)


def test_log_holds_means_and_forgets_what_is_done_again(tmp_path):
    def log(start_step):
        return TrainLog(tmp_path, start_step=start_step, log_steps=2, batch_size=8,
                        learning_rate_fn=lambda step: step / 10)

    first = log(0)
    for step, loss in enumerate((9.0, 2.0, 3.0, 5.0, 6.0), 1):
        first.add(step, {"loss": loss, "bce": loss, "grad_norm": 2 * loss}, 0.25)
    written = lines(tmp_path)
    # Step 1 compiles and is left out; step 5 has no line yet.
    assert [(line["step"], line["loss"], line["grad_norm"]) for line in written] == [
        (2, 2.0, 4.0), (4, 4.0, 8.0)]
    assert [line["learning_rate"] for line in written] == [0.1, 0.3]
    assert all(line["data_wait_s"] == 0.25 for line in written)
    assert all(abs(line["step_s"] * line["images_per_s"] - 8) < 1e-3 for line in written)
    assert first.note == "loss 6.0000"

    with (tmp_path / "train_log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    assert [line["step"] for line in log(3).lines()] == [2]


def test_second_signal_is_not_caught():
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_state_is_a_pytree_of_arrays():
    state = TrainState(step=1, params={"a": 2}, batch_stats={}, opt_state=(3,))
    assert jax.tree.leaves(state) == [1, 2, 3]
    assert state.variables == {"params": {"a": 2}, "batch_stats": {}}


@pytest.mark.parametrize(("field", "axis_name"), [(True, "batch"), (False, None)])
def test_synchronised_batchnorm_is_a_choice(tmp_path, monkeypatch, field, axis_name):
    config = tiny_config()
    config.train.sync_batchnorm = field

    def stop_here(model_config, *, axis_name):
        raise UserError(f"axis {axis_name}")

    monkeypatch.setattr(train_module, "create_model", stop_here)
    with pytest.raises(UserError, match=f"axis {axis_name}"):
        train(config, tmp_path)
