"""Checkpoints: round trips, what is kept, and every error a user can meet."""

import os
import shutil

import grain
import jax
import ml_collections
import numpy as np
import pytest

from dattt_jax import checkpoints
from dattt_jax.checkpoints import (
    CheckpointStore,
    load_model_config,
    load_variables,
    save_variables,
)
from dattt_jax.errors import UserError
from dattt_jax.models import mit
from dattt_jax.variables import variable_shapes


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    """One block per stage: the same names in a tenth of the arrays."""
    for name, last in (("mit_b0", 32), ("mit_b1", 64)):
        monkeypatch.setitem(mit.MIT_SIZES, name, mit.MiTSizes((8, 16, 20, last), (1, 1, 1, 1)))


def model_config(**changes):
    fields = {"backbone": "mit_b0", "depth": True, "modulation": "basic", "decoder_features": 4}
    return ml_collections.ConfigDict(fields | changes)


def filled(config, seed=0):
    """The model's variables with a random number in every place."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), variable_shapes(config))


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def numbers():
    """An endless iterator 0, 1, 2, …"""
    return iter(grain.MapDataset.range(100).repeat().to_iter_dataset())


@pytest.fixture
def converted(tmp_path):
    """A folder with weights, and the weights."""
    variables = filled(model_config())
    save_variables(tmp_path / "converted", variables, model_config())
    return tmp_path / "converted", variables


def test_weights_come_back_bit_for_bit(converted):
    folder, variables = converted
    for path in (folder, str(folder), folder / "checkpoints", folder / "checkpoints" / "0"):
        assert_equal_trees(load_variables(path, model_config()), variables)
    assert_equal_trees(load_variables(folder), variables)
    assert load_model_config(folder) == model_config()


def test_training_checkpoint_comes_back_whole(tmp_path):
    config, data = model_config(), numbers()
    states = {}
    with CheckpointStore(tmp_path / "run", config, keep=2) as store:
        assert store.latest is None
        for step in (1, 2, 3):
            next(data)
            states[step] = (filled(config, step), {"step": np.int32(step), "mu": np.arange(3.0)})
            store.save(step, *states[step], data)
            store.wait()
        store.save(3, *states[1], data)  # step 3 is on disk: not written again
    left = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["2", "3"]

    assert_equal_trees(load_variables(tmp_path / "run"), states[3][0])
    assert_equal_trees(load_variables(tmp_path / "run" / "checkpoints" / "2"), states[2][0])

    # A killed run leaves a half-written step behind; it is neither read nor kept.
    half = tmp_path / "run" / "checkpoints" / "4.orbax-checkpoint-tmp"
    half.mkdir()
    with CheckpointStore(tmp_path / "run", config, keep=2) as store:
        assert store.latest.name == "3"
        resumed = numbers()
        template = jax.eval_shape(lambda: states[3])
        assert_equal_trees(store.restore(*template, resumed), states[3])
        assert next(resumed) == 3  # after 0, 1, 2
        store.save(4, *states[1], resumed)
    assert not half.exists()


def test_a_deletion_that_is_cut_off_leaves_no_half_step(tmp_path, monkeypatch):
    config, variables = model_config(), filled(model_config())
    remove, removed = os.unlink, []

    def remove_one(path, **options):
        if removed:
            raise OSError("killed")
        removed.append(path)
        remove(path, **options)

    folder = tmp_path / "checkpoints"
    with CheckpointStore(tmp_path, config, keep=1) as store:
        store.save(1, variables)
        store.wait()
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", remove_one)
            store.save(2, variables)
            store.wait()
        left = {p.name for p in folder.iterdir()}
    assert removed
    assert left == {"2", "deleted"}
    with CheckpointStore(tmp_path, config, keep=1) as store:
        assert [p.name for p in folder.iterdir()] == ["2"]
        assert_equal_trees(load_variables(store.latest), variables)


def test_checkpoint_of_another_backbone(converted):
    folder, _ = converted
    asked = model_config(backbone="mit_b1")
    with pytest.raises(UserError, match=r"wrong checkpoint.*made with backbone mit_b0") as caught:
        load_variables(folder, asked)
    assert "\n" not in str(caught.value)
    assert "config.model.backbone is mit_b1" in str(caught.value)
    assert "modulation" not in str(caught.value)  # that is the same
    assert str(caught.value).endswith("; give the --config it was made with, or another checkpoint")


def test_checkpoint_of_another_modulation(converted):
    folder, _ = converted
    with pytest.raises(UserError, match=r"modulation basic, config\.model\.modulation is alpha; give"):
        load_variables(folder, model_config(modulation="alpha"))
    with pytest.raises(UserError, match=r"made with depth True, config\.model\.depth is False"):
        load_variables(folder, model_config(depth=False))


def test_checkpoint_that_should_fit_names_what_does_not(converted, monkeypatch):
    folder, _ = converted
    sizes = mit.MIT_SIZES["mit_b0"]
    monkeypatch.setitem(mit.MIT_SIZES, "mit_b0", mit.MiTSizes((*sizes.dims[:3], 128), sizes.depths))
    with pytest.raises(UserError, match=r"wrong shape: \S+ \(.*\) \(config\.model has .*128.* more; give"):
        load_variables(folder, model_config())
    monkeypatch.setitem(mit.MIT_SIZES, "mit_b0", mit.MiTSizes(sizes.dims, (2, 1, 1, 1)))
    with pytest.raises(UserError, match=r"missing: params/encoder_flow/block1_1/.* and \d+ more; give"):
        load_variables(folder, model_config())


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        load_variables(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no checkpoint"):
        load_model_config(tmp_path / "empty")
    (tmp_path / "weights.pth").write_bytes(b"torch")
    with pytest.raises(UserError, match=r"weights.pth holds no checkpoint"):
        load_variables(tmp_path / "weights.pth")


@pytest.mark.parametrize("damage", ["truncated", "no_arrays", "no_model"])
def test_damaged_checkpoint(converted, damage):
    folder, _ = converted
    step = folder / "checkpoints" / "0"
    if damage == "truncated":
        data = max((step / "variables").rglob("*"), key=lambda p: p.stat().st_size)
        data.write_bytes(data.read_bytes()[:100])
        for path in (step / "variables" / "d").iterdir():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "no_arrays":
        shutil.rmtree(step / "variables" / "d")
    else:
        (step / "model" / "metadata").write_text("{")
    with pytest.raises(UserError, match=f"checkpoint {step} is damaged"):
        load_variables(folder)


def test_training_does_not_resume_from_weights_alone(converted):
    folder, variables = converted
    with (CheckpointStore(folder, model_config(), keep=1) as store,
          pytest.raises(UserError, match=r"name it in config\.init")):
        store.restore(variables, {}, numbers())


def test_training_does_not_resume_another_network(tmp_path):
    data = numbers()
    with CheckpointStore(tmp_path, model_config(), keep=1) as store:
        store.save(1, filled(model_config()), {"step": np.int32(1)}, data)
    other = model_config(modulation="beta")
    with (CheckpointStore(tmp_path, other, keep=1) as store,
          pytest.raises(UserError, match=r"made with modulation basic")):
        store.restore(variable_shapes(other), {"step": np.int32(0)}, data)


def test_weights_are_not_overwritten(converted):
    folder, variables = converted
    with pytest.raises(UserError, match=r"already holds a checkpoint"):
        save_variables(folder, variables, model_config())
    assert_equal_trees(load_variables(folder), variables)


def test_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file: cannot make the folder"):
        CheckpointStore(tmp_path / "file", model_config(), keep=1)


def test_full_disk_is_told():
    # The words of Orbax 0.12 on a full file system.
    error = ValueError('RESOURCE_EXHAUSTED: Error writing "a/0": No space left on device [28]')
    with (pytest.raises(UserError, match=r"no space left on the disk of /run"),
          checkpoints._full_disk_told("/run")):
        raise error
    with pytest.raises(ValueError, match=r"else"), checkpoints._full_disk_told("/run"):
        raise ValueError("something else")
