"""What `config.init` may name: a folder, an exported file, weights in the box; and the mode export."""

import ml_collections
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file
from tiny import SIZES, filled, tiny_config

from configs import dattt_synth_b0
from dattt_jax import pretrained
from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.models import mit
from dattt_jax.variables import leaf_shapes, variable_shapes
from dattt_jax.weights import (
    export,
    load_weights,
    save_weights,
    weights_identity,
    weights_model_config,
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(mit.MIT_SIZES, "mit_b0", SIZES)
    config = tiny_config()
    return config, filled(config.model)


def flat(variables):
    return traverse_util.flatten_dict(variables, sep="/")


def test_every_form_of_the_same_weights_gives_them_back(tiny, tmp_path):
    config, variables = tiny
    save_variables(tmp_path / "folder", variables, config.model)
    config.init, config.export.dtype = str(tmp_path / "folder"), "float32"
    path = export(config, tmp_path / "out")
    assert path == tmp_path / "out" / "weights.safetensors"
    for init in (tmp_path / "folder", path):
        for model_config in (config.model, None):
            loaded = flat(load_weights(init, model_config))
            assert loaded.keys() == flat(variables).keys()
            for name, value in flat(variables).items():
                np.testing.assert_array_equal(loaded[name], value)
        assert weights_model_config(init).to_dict()["backbone"] == "mit_b0"


def test_bfloat16_halves_the_file_and_rounds_to_the_nearest(tiny, tmp_path):
    config, variables = tiny
    for dtype in ("float32", "bfloat16"):
        save_weights(tmp_path / f"{dtype}.safetensors", variables, config.model, dtype=dtype)
    numbers = sum(value.size for value in flat(variables).values())
    for dtype, width in (("float32", 4), ("bfloat16", 2)):  # after the header, whose length comes first
        content = (tmp_path / f"{dtype}.safetensors").read_bytes()
        assert len(content) - 8 - int.from_bytes(content[:8], "little") == width * numbers
    loaded = flat(load_weights(tmp_path / "bfloat16.safetensors", config.model))
    for name, value in flat(variables).items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], value.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_weights_in_the_box_are_whole_and_of_their_config():
    config = dattt_synth_b0.get_config()
    variables = load_weights(config.init, config.model)
    assert leaf_shapes(variables) == leaf_shapes(variable_shapes(config.model))
    assert all(np.isfinite(value).all() for value in flat(variables).values())
    path = pretrained.pretrained_file(config.init)
    assert path.stat().st_size < 16e6
    assert pretrained.PRETRAINED[config.init] in weights_identity(config.init)


def test_a_damaged_or_missing_box_is_told(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(UserError, match=r"b0\.safetensors: cannot be read .*install dattt_jax again"):
        load_weights("dattt-synth-b0")
    (tmp_path / "dattt-synth-b0.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"dattt-synth-b0\.safetensors is damaged .*SHA-256"):
        load_weights("dattt-synth-b0")
    with pytest.raises(UserError, match="'dattt-synth-b9': use one of dattt-synth-b0"):
        pretrained.pretrained_file("dattt-synth-b9")


def test_wrong_weights_are_told(tiny, tmp_path):
    config, variables = tiny
    path = tmp_path / "mine.safetensors"
    save_weights(path, variables, config.model)
    wide = ml_collections.ConfigDict(config.model.to_dict() | {"decoder_features": 12})
    with pytest.raises(UserError, match=r"mine\.safetensors does not fit config\.model: it was made with "
                                        r"decoder_features 8, config\.model\.decoder_features is 12"):
        load_weights(path, wide)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"mine\.safetensors is damaged"):
        load_weights(path, config.model)
    save_file({"a": np.zeros(2)}, tmp_path / "torch.safetensors")
    with pytest.raises(UserError, match=r"not made by --mode=export: .*--mode=convert"):
        load_weights(tmp_path / "torch.safetensors", config.model)
    with pytest.raises(UserError, match=r"nowhere does not exist: .*--mode=export, or dattt-synth-b0"):
        load_weights("nowhere", config.model)
    with pytest.raises(UserError, match=r"config\.export\.dtype='float8': use one of bfloat16, float32"):
        save_weights(path, variables, config.model, dtype="float8")
    config.init = ""
    with pytest.raises(UserError, match=r"config\.init is empty"):
        export(config, tmp_path)


def test_an_exported_file_changes_its_identity_with_its_content(tiny, tmp_path):
    config, variables = tiny
    path = tmp_path / "mine.safetensors"
    save_weights(path, variables, config.model)
    first = weights_identity(path)
    assert weights_identity(path) == first
    save_weights(path, variables, config.model, dtype="bfloat16")
    assert weights_identity(path) != first
