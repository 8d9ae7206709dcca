"""Widened weights: the same outputs, copies that learn differently, and training that starts from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict
from tiny import SIZES, filled, tiny_config

from dattt_jax import train as train_module
from dattt_jax.checkpoints import CheckpointStore, save_variables
from dattt_jax.errors import UserError
from dattt_jax.models import create_model, mit
from dattt_jax.train_step import create_optimizer
from dattt_jax.variables import leaf_shapes, variable_shapes
from dattt_jax.widen import widen


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    """Beside the tiny `mit_b0`, a `mit_b1` of twice and a `mit_b2` of three times its width."""
    for name, ratio in (("mit_b0", 1), ("mit_b1", 2), ("mit_b2", 3)):
        monkeypatch.setitem(mit.MIT_SIZES, name,
                            mit.MiTSizes(tuple(ratio * dim for dim in SIZES.dims), SIZES.depths))


def network(backbone="mit_b0", features=8, **fields):
    return ConfigDict(tiny_config().model.to_dict()
                      | {"backbone": backbone, "decoder_features": features, "drop_path": 0.0} | fields)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(2, 64, 64, 3)).astype(np.float32) for _ in range(2)]


def outputs(model_config, variables):
    """Everything the network computes: logits in both modes, new running statistics, auxiliary heads."""
    model, (image, flow) = create_model(model_config), inputs()

    @jax.jit
    def run(variables):
        logits = model.apply(variables, image, flow)
        in_training, updated = model.apply(variables, image, flow, train=True, mutable=["batch_stats"])
        features = model.apply(variables, image, method=model.encode_image)
        heads = [model.apply(variables, features, method=method)
                 for method in (model.rotation_logits, model.reconstruct) if model_config.heads]
        return {"evaluation": logits, "training": in_training, "heads": heads}, updated["batch_stats"]

    return jax.device_get(run(variables))


def assert_same(wide, narrow):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max()), wide, narrow)


@pytest.mark.parametrize(("wide", "fields"), [
    (("mit_b1", 16), {"heads": ("rotation", "reconstruction")}),
    (("mit_b2", 8), {"modulation": "alpha"}),
    (("mit_b1", 24), {"depth": False}),
])
def test_a_widened_network_computes_the_same(wide, fields):
    config, wide_config = network(**fields), network(*wide, **fields)
    variables = filled(config, kernels=3)
    widened = widen(variables, wide_config, seed=0)
    assert leaf_shapes(widened) == leaf_shapes(variable_shapes(wide_config))
    assert {leaf.dtype for leaf in jax.tree.leaves(widened)} == {np.dtype(np.float32)}
    expected, statistics = outputs(config, variables)
    found, wide_statistics = outputs(wide_config, widened)
    assert np.std(expected["evaluation"]["mask"]) > 0.01  # the logits depend on the input
    assert_same(found, expected)
    ratio = wide[1] // 8
    assert_same(wide_statistics, jax.tree.map(lambda value: np.repeat(value, ratio), statistics))


def test_the_seed_decides_the_shares_of_which_two_make_a_weight():
    variables = filled(network())
    first, again, other = (widen(variables, network("mit_b1", 16), seed=seed) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    weight, share, changed = (tree["params"]["encoder_image"]["block3_0"]["mlp"]["fc1"]["kernel"]
                              for tree in (variables, first, other))
    for copy in (0, 1):  # of the outputs
        np.testing.assert_allclose(share[::2, copy::2] + share[1::2, copy::2], weight, rtol=1e-5)
        part = share[::2, copy::2] / weight
        assert -0.5 < part.min() < -0.3 and 1.3 < part.max() < 1.5
    assert not np.allclose(changed, share)
    assert not np.allclose(share[:, ::2], share[:, 1::2])


def test_copies_have_gradients_of_their_own():
    config = network("mit_b1", 16)
    model, (image, flow) = create_model(config), inputs()
    variables = widen(filled(network(), kernels=3), config, seed=0)

    @jax.jit
    @jax.grad
    def gradient(params):
        logits = model.apply({**variables, "params": params}, image, flow, train=True,
                             mutable=["batch_stats"])[0]
        return sum(jnp.sum(jnp.square(value - 1)) for value in logits.values())

    for key, value in traverse_util.flatten_dict(jax.device_get(gradient(variables["params"]))).items():
        if key[-2] in ("linear_pred", "q"):
            continue  # one output; and the copies of a query meet equal keys before the first step
        if key[-1] == "bias" and np.abs(value).max() < 1e-4:
            continue  # nothing but rounding: BatchNorm takes what is added to all pixels away again
        if key[-2:] == ("kv", "kernel"):
            value = np.split(value, 2, -1)[0]  # the keys; without them the values would hide equal ones
        difference = np.abs(value[..., ::2] - value[..., 1::2]).max()
        assert difference > 1e-3 * np.abs(value).max(), key


def test_training_starts_from_narrower_weights(tmp_path, caplog):
    narrow, config = network(), tiny_config()
    config.model = network("mit_b1", 16)
    config.init = str(tmp_path / "weights")
    variables = filled(narrow, 7)
    save_variables(tmp_path / "weights", variables, narrow)
    with caplog.at_level("INFO"), CheckpointStore(tmp_path / "run", config.model, keep=1) as store:
        state = train_module._start_state(config, create_optimizer(1e-3, 0.0), store, data=None)
    jax.tree.map(np.testing.assert_array_equal, state.variables, widen(variables, config.model, seed=0))
    assert "weights is widened: backbone mit_b0 to mit_b1, decoder_features 8 to 16" in caplog.text


@pytest.mark.parametrize(("wanted", "message"), [
    (network(features=12), r"config\.init=.*weights: weights are widened by whole multiples, and "
                           r"batch_stats/.* \(8,\) would become \(12,\)"),
    (network(features=4), r"\(8,\) would become \(4,\)"),
    (network(features=16, modulation="beta"), r"wrong checkpoint: .*weights.* does not fit config\.model: .*"
                                              r"modulation alpha\+beta, config\.model\.modulation is beta"),
])
def test_what_cannot_be_widened_is_told(tmp_path, wanted, message):
    config = tiny_config()
    save_variables(tmp_path / "weights", filled(network()), network())
    config.model, config.init = wanted, str(tmp_path / "weights")
    with pytest.raises(UserError, match=message):
        train_module._start_variables(config)
