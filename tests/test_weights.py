"""What `config.init` may name: a folder, an exported file, weights in the box; and the mode export."""

import hashlib

import ml_collections
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file
from tiny import filled, tiny_config

from configs import dattt_synth_b0
from dattt_jax import pretrained
from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.models import create_model
from dattt_jax.variables import leaf_shapes, variable_shapes
from dattt_jax.weights import (
    export,
    load_weights,
    save_weights,
    weights_identity,
    weights_model_config,
)


@pytest.fixture
def tiny(tiny_backbone):
    config = tiny_config()
    return config, filled(config.model)


def flat(variables):
    return traverse_util.flatten_dict(variables, sep="/")


def test_every_form_of_the_same_weights_gives_them_back(tiny, tmp_path):
    config, variables = tiny
    save_variables(tmp_path / "folder", variables, config.model)
    config.init, config.export.dtype = str(tmp_path / "folder"), "float32"
    [path] = export(config, tmp_path / "out")
    assert path == tmp_path / "out" / "weights.safetensors"
    for init in (tmp_path / "folder", path):
        for model_config in (config.model, None):
            loaded = flat(load_weights(init, model_config))
            assert loaded.keys() == flat(variables).keys()
            for name, value in flat(variables).items():
                np.testing.assert_array_equal(loaded[name], value)
        assert weights_model_config(init).to_dict()["backbone"] == "mit_b0"


@pytest.mark.parametrize("depth", [True, False])
def test_an_exported_mask_bias_moves_the_masks_logits_and_nothing_else(tiny, tmp_path, depth):
    config, _ = tiny
    config.model.depth, config.model.modulation = depth, "alpha+beta" if depth else "basic"
    variables = filled(config.model)
    save_variables(tmp_path / "folder", variables, config.model)
    config.init, config.export.dtype, config.export.mask_bias = str(tmp_path / "folder"), "float32", 0.75
    [path] = export(config, tmp_path / "out")
    image = np.random.default_rng(0).normal(size=(2, 1, 32, 32, 3)).astype(np.float32)
    before, after = (create_model(config.model).apply(weights, *image)
                     for weights in (variables, load_weights(path, config.model)))
    np.testing.assert_allclose(after["mask"], before["mask"] + 0.75, rtol=0, atol=1e-6)
    if depth:
        np.testing.assert_array_equal(after["depth"], before["depth"])


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
    assert all(path.stat().st_size < 16e6 for path in pretrained.pretrained_files(config.init))
    assert all(digest in weights_identity(config.init) for digest in pretrained.PRETRAINED[config.init])


def test_a_damaged_or_missing_box_is_told(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(UserError, match=r"b0\.safetensors: cannot be read .*install dattt_jax again"):
        load_weights("dattt-synth-b0")
    (tmp_path / "dattt-synth-b0.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"dattt-synth-b0\.safetensors is damaged .*SHA-256"):
        load_weights("dattt-synth-b0")
    with pytest.raises(UserError, match="'dattt-synth-b9': use one of dattt-synth-b0"):
        pretrained.pretrained_files("dattt-synth-b9")


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


@pytest.fixture
def parts(tiny, tmp_path):
    """Config, variables and the exported parts of at most 0.1 MB."""
    config, variables = tiny
    save_variables(tmp_path / "folder", variables, config.model)
    config.init, config.export.part_mb = str(tmp_path / "folder"), 0.1
    return config, variables, export(config, tmp_path / "out")


def test_an_export_in_parts_is_read_from_any_of_them(parts, tmp_path):
    config, variables, paths = parts
    count = len(paths)
    assert paths == [tmp_path / f"out/weights-{i}-of-{count}.safetensors" for i in range(1, count + 1)]
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes) <= 1e5 and count <= sum(sizes) / 1e5 * 1.5  # within the limit, and not needlessly many
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    save_weights(tmp_path / "whole.safetensors", variables, config.model, dtype="bfloat16")
    whole = flat(load_weights(tmp_path / "whole.safetensors"))
    (tmp_path / "plain").touch()
    for path in (paths[0], paths[-1]):
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode  # for others to read
        loaded = flat(load_weights(path, config.model))
        assert loaded.keys() == whole.keys()
        assert all(np.array_equal(loaded[name], whole[name]) for name in whole)
        assert weights_model_config(path).to_dict()["decoder_features"] == 8


def test_the_identity_of_parts_changes_with_any_of_them(parts):
    paths = parts[2]
    identity = weights_identity(paths[0])
    assert weights_identity(paths[1]) == identity
    paths[-1].write_bytes(paths[-1].read_bytes())
    assert weights_identity(paths[0]) != identity


def test_missing_damaged_and_impossible_parts_are_told(parts, tmp_path):
    config, variables, paths = parts
    count = len(paths)
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"weights-2-of-{count}\.safetensors is damaged"):
        load_weights(paths[0])
    paths[1].unlink()
    with pytest.raises(UserError, match=rf"1-of-{count}\.safetensors is one of {count} files that belong "
                                        rf"together: put weights-2-of-{count}\.safetensors beside it"):
        load_weights(paths[0])
    with pytest.raises(UserError, match=r"config\.export\.part_mb=0\.001 is too small for params/.* MB"):
        save_weights(tmp_path / "mine.safetensors", variables, config.model, part_mb=0.001)
    alone = tmp_path / "mine-1-of-1.safetensors"  # a name that only looks like a part's
    assert save_weights(alone, variables, config.model) == [alone]
    assert load_weights(alone, config.model).keys() == variables.keys()


def test_weights_in_the_box_may_have_parts(parts, tmp_path, monkeypatch):
    config, variables, paths = parts
    for path in paths:
        path.rename(path.with_name(path.name.replace("weights", "boxed")))
    paths = [path.with_name(path.name.replace("weights", "boxed")) for path in paths]
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "out" / "__init__.py"))
    monkeypatch.setitem(pretrained.PRETRAINED, "boxed", digests)
    assert flat(load_weights("boxed", config.model)).keys() == flat(variables).keys()
    assert weights_model_config("boxed").to_dict()["backbone"] == "mit_b0"
    assert all(digest in weights_identity("boxed") for digest in digests)
    paths[1].write_bytes(b"other")
    with pytest.raises(UserError, match=rf"boxed-2-of-{len(paths)}\.safetensors is damaged .*SHA-256"):
        load_weights("boxed")
