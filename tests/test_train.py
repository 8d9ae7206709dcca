"""Training runs: how they start, stop, go on, validate and fail."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import traverse_util
from safetensors.numpy import save_file

from dattt_jax import train as train_module
from dattt_jax.checkpoints import CheckpointStore, load_variables, save_variables
from dattt_jax.convert import torch_name
from dattt_jax.errors import UserError
from dattt_jax.parallel import parallel_step
from dattt_jax.signals import StopSignals
from dattt_jax.train import train
from dattt_jax.train_log import TrainLog
from dattt_jax.train_step import create_optimizer
from input_pipeline.folder_lock import held

pytestmark = pytest.mark.usefixtures("tiny_backbone")


_STEPS = []


@pytest.fixture
def shared_step(monkeypatch):
    """Runs, all of `started_config`, share their compiled step, as they would share the compile cache."""
    def shared(*args, **kwargs):
        if not _STEPS:
            _STEPS.append(parallel_step(*args, **kwargs))
        return _STEPS[0]

    monkeypatch.setattr(train_module, "parallel_step", shared)


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "train_log.jsonl").read_text().splitlines()]


def started_config(tmp_path):
    """A config that starts from weights on disk, which need no compiled initialisation."""
    config = tiny.tiny_config()
    save_variables(tmp_path / "weights", tiny.filled(config.model), config.model)
    config.init = str(tmp_path / "weights")
    return config


def test_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, shared_step):
    config = started_config(tmp_path)
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


def torch_tensors(params):
    """A backbone's parameters under their PyTorch names, in PyTorch's layout."""
    tensors = {}
    for key, value in traverse_util.flatten_dict({"params": params}).items():
        if key[-1] == "kernel":
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        tensors[torch_name(key)] = np.ascontiguousarray(value)
    return tensors


def test_order_of_start_modes(tmp_path, monkeypatch):
    """Resume > init > backbone > random."""
    config, optimizer = tiny.tiny_config(), create_optimizer(1e-3, 0.0)
    monkeypatch.setattr(train_module, "random_variables",
                        lambda model, seed, without=(): tiny.filled(model, seed))

    def start(store, data=None):
        return train_module._start_state(config, optimizer, store, data=data)

    with CheckpointStore(tmp_path / "run", config.model, keep=1) as store:
        assert_equal_trees(start(store).variables, tiny.filled(config.model, config.seed))

        published = tiny.filled(config.model, 5)["params"]["encoder_image"]
        save_file(torch_tensors(published), tmp_path / "backbone.safetensors")
        config.train.backbone = str(tmp_path / "backbone.safetensors")
        params = start(store).params
        assert_equal_trees(params["encoder_image"], published)
        assert_equal_trees(params["encoder_flow"], published)
        assert_equal_trees(params["decode_head"],
                           tiny.filled(config.model, config.seed)["params"]["decode_head"])

        given = tiny.filled(config.model, 7)
        save_variables(tmp_path / "weights", given, config.model)
        config.init = str(tmp_path / "weights")
        state = start(store)
        assert_equal_trees(state.variables, given)
        assert int(state.step) == 0

        class Position:
            """Where the data is, as a Grain iterator tells it."""

            def __init__(self, state):
                self.state = state

            def get_state(self):
                return self.state

            def set_state(self, state):
                self.state = state

        trained, data = tiny.filled(config.model, 8), Position({"next_index": 3})
        state = train_module.create_train_state(trained, optimizer)
        store.save(3, state.variables, state.optimizer | {"step": np.int32(3)}, data)
        store.wait()
        fresh = Position({"next_index": 0})
        resumed = start(store, fresh)
        assert_equal_trees(resumed.variables, trained)
        assert (int(resumed.step), fresh.state) == (3, {"next_index": 3})


def test_validation_keeps_the_best_checkpoint_beside_the_newest(tmp_path, monkeypatch, shared_step):
    config = started_config(tmp_path)
    config.train.update({"save_steps": 2, "keep": 1})
    config.validation.update({"dataset": "synthetic", "samples": 3})
    scores = iter([0.1, 0.4, 0.6, 0.5])  # before the run, and after steps 2, 4 and 6

    def falling_back(self, variables):
        value = next(scores)
        return {"J": value, "F": value, "JF": value}

    monkeypatch.setattr(train_module.Validation, "__call__", falling_back)
    train(config, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["4", "6"]
    assert (tmp_path / "run" / "best").resolve().name == "4"
    assert (tmp_path / "run" / "best").is_symlink()
    found = [(line["step"], line["validation"]["J"]) for line in lines(tmp_path / "run")
             if "validation" in line]
    assert found == [(0, 0.1), (2, 0.4), (4, 0.6), (6, 0.5)]
    assert 0 <= lines(tmp_path / "run")[0]["flow_threshold"]["J"] <= 1
    assert (tmp_path / "run" / "validation.png").read_bytes().startswith(b"\x89PNG")
    best = load_variables(tmp_path / "run" / "best", config.model)
    newest = load_variables(tmp_path / "run", config.model)
    assert not np.array_equal(best["params"]["encoder_image"]["norm1"]["scale"],
                              newest["params"]["encoder_image"]["norm1"]["scale"])


def test_weights_that_training_makes_worse_stay_the_best(tmp_path, monkeypatch, shared_step):
    config = started_config(tmp_path)
    config.train.update({"save_steps": 3, "keep": 1})
    config.validation.update({"dataset": "synthetic", "samples": 2})
    scores = iter([0.9, 0.4, 0.6])  # before the run, and after steps 3 and 6

    def worse(self, variables):
        value = next(scores)
        return {"J": value, "F": value, "JF": value}

    monkeypatch.setattr(train_module.Validation, "__call__", worse)
    train(config, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["0", "6"]
    assert_equal_trees(load_variables(tmp_path / "run" / "best", config.model),
                       load_variables(config.init, config.model))


@pytest.mark.parametrize(("field", "value", "message"), [
    ("seed", 5, r"holds a training run of other settings \(config\.seed was 0, now 5\): .*config\.init"),
    ("train.batch_size", 8, r"config\.train\.batch_size was 4, now 8"),
    ("synthetic.num_frames", 3, r"config\.synthetic\.num_frames was \d+, now 3"),
])
def test_a_run_is_not_continued_on_other_data(tmp_path, monkeypatch, field, value, message):
    config = tiny.tiny_config()
    train_module._claim(config, tmp_path)
    train_module._claim(config, tmp_path)
    section, _, name = field.rpartition(".")
    (config[section] if section else config)[name] = value
    with pytest.raises(UserError, match=message):
        train_module._claim(config, tmp_path)


def test_a_run_is_not_continued_on_other_content_of_the_same_folder(tmp_path):
    config = tiny.tiny_config()
    config.data.dataset, config.data.root = "prepared", "somewhere"
    train_module._claim(config, tmp_path, "0123")
    train_module._claim(config, tmp_path, "0123")
    with pytest.raises(UserError, match=r"config\.data\.root \(content\) was '0123', now '4567'"):
        train_module._claim(config, tmp_path, "4567")


def test_what_a_run_starts_from_is_validated_once(tmp_path, monkeypatch, shared_step):
    config = started_config(tmp_path)
    config.validation.update({"dataset": "synthetic", "samples": 2})
    monkeypatch.setattr(train_module.Validation, "__call__",
                        lambda self, variables: {"J": 0.5, "F": 0.5, "JF": 0.5})

    def killed(*args):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(train_module._Loop, "_settle", killed)
        train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run") if "validation" in line].count(0) == 1


def test_a_folder_that_a_run_trains_in_takes_no_second_one(tmp_path):
    with held(tmp_path / ".train.lock", "training"), \
            pytest.raises(UserError, match=r"--workdir=.*: another run is training there"):
        train(tiny.tiny_config(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".train.lock"]


def test_divergence_names_the_step_the_samples_and_the_last_checkpoint(tmp_path):
    config = tiny.tiny_config()
    source, _ = train_module.make_source(config)

    def settle(store, step, **metrics):
        log = TrainLog(tmp_path, log_steps=1, batch_size=1, learning_rate_fn=lambda _: 0.0)
        loop = train_module._Loop(None, None, source, store, log, None)
        values = {name: jnp.float32(value) for name, value in metrics.items()}
        loop._settle(train_module._Unsettled(step, values, 0.0, np.array([3, 11])))

    with CheckpointStore(tmp_path, config.model, keep=1) as store:
        with pytest.raises(UserError, match=r"diverged: loss nan, .* at step 7 \(samples .*3.*, .*11.*\); "
                                            r"none is saved"):
            settle(store, 7, loss=np.nan, grad_norm=1.0)
        store.save(5, {"params": {"a": jnp.zeros(1)}})
        with pytest.raises(UserError, match=r"gradient norm inf at step 9 .* is .*/checkpoints/5;"):
            settle(store, 9, loss=1.0, grad_norm=np.inf)
    assert not (tmp_path / "train_log.jsonl").exists()


@pytest.mark.parametrize(("field", "value", "message"), [
    ("train.batch_size", 6, r"config\.train\.batch_size=6: give a multiple of the 4 devices"),
    ("train.accumulation", 2, r"multiple of the 4 devices × config\.train\.accumulation=2"),
    ("train.epochs", 0, r"config\.train\.epochs=0: give 1 or more"),
    ("train.steps", -1, r"config\.train\.steps=-1: give 0 or more"),
    ("train.schedule", "never", r"config\.train\.schedule: 'never' is not one of epoch, step"),
    ("train.scramble", 1.5, r"config\.train\.scramble=1\.5: give a probability"),
    ("train.synthetic_samples", 3, r"config\.train\.synthetic_samples=3: .*batch_size=4"),
    ("train.backbone", "none.pth", r"none\.pth: cannot be read"),
    ("data.dataset", "davis16", r"config\.data\.dataset=davis16: .* run --mode=prepare"),
    ("data.dataset", "prepared", r"config\.data\.root is empty: name the folder"),
    ("validation.dataset", "fbms", r"config\.validation\.dataset=fbms: .* run --mode=prepare"),
])
def test_fields_that_do_not_work(tmp_path, monkeypatch, field, value, message):
    config = tiny.tiny_config()
    section, name = field.split(".")
    config[section][name] = value
    monkeypatch.setattr(train_module, "random_variables",
                        lambda model, seed, without=(): tiny.filled(model, seed))
    with pytest.raises(UserError, match=message):
        train(config, tmp_path)


@pytest.mark.parametrize(("settings", "steps"), [({"epochs": 2}, 6), ({"epochs": 9, "steps": 5}, 5)])
def test_durations_are_in_epochs_or_steps(tmp_path, monkeypatch, settings, steps):
    config = started_config(tmp_path)
    config.train.update(settings)  # 12 samples make an epoch, 4 a batch

    def durations(self, state, data, total_steps, save_steps):
        raise UserError(f"{total_steps} steps")

    monkeypatch.setattr(train_module._Loop, "run", durations)
    with pytest.raises(UserError, match=f"^{steps} steps$"):
        train(config, tmp_path / "run")


@pytest.fixture
def heeds_interrupts():
    """A shell's background jobs ignore SIGINT from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
def test_second_signal_is_not_caught():
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("field", "axis_name"), [(True, "batch"), (False, None)])
def test_synchronised_batchnorm_is_a_choice(tmp_path, monkeypatch, field, axis_name):
    config = tiny.tiny_config()
    config.train.sync_batchnorm = field

    def stop_here(model_config, *, axis_name):
        raise UserError(f"axis {axis_name}")

    monkeypatch.setattr(train_module, "create_model", stop_here)
    with pytest.raises(UserError, match=f"axis {axis_name}"):
        train(config, tmp_path)
