"""From PyTorch files to variables: every layout, and every way a file can be wrong."""

import functools
import json
import re

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util
from golden_model import FOLDER, model_config, state_dict
from torch_layout import to_torch

from configs import base
from dattt_jax import checkpoints
from dattt_jax.convert import ENCODERS, convert, from_torch, from_torch_backbone
from dattt_jax.errors import UserError
from dattt_jax.torch_layouts import recognise
from dattt_jax.variables import random_variables, variable_shapes

ARCHITECTURES = ("alpha+beta", "alpha", "beta", "basic", "nodepth")
VARIANTS = [(backbone, arch) for backbone in ("mit_b1", "swin_tiny") for arch in ARCHITECTURES]
# Parameters of the published classes, counted by transformers 5.23; Swin-T without its final norm (1536).
ENCODER_PARAMETERS = {"mit_b0": 3319392, "mit_b1": 13151424, "mit_b2": 24196288, "mit_b3": 44072128,
                      "mit_b4": 60842688, "mit_b5": 81443008, "swin_t": 27519354 - 1536}


def parameter_count(tree):
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(tree))


def published_names(layout):
    """Names and shapes in files that transformers 5.23 and timm 1.0.31 write."""
    return json.loads((FOLDER / "published_names.json").read_text())[layout]


@functools.cache
def cached_state_dict(backbone, arch):
    return state_dict(backbone, arch)


def small_state():
    """A whole network, to be damaged by the tests."""
    return dict(cached_state_dict("mit_b1", "nodepth"))


def backbone_state(backbone):
    """One encoder as released."""
    whole = cached_state_dict(backbone, "nodepth")
    return {name.removeprefix("encoder_image."): value for name, value in whole.items()
            if name.startswith("encoder_image.")}


@functools.cache
def zeros(backbone):
    """Variables of the network without depth; not to be written to."""
    shapes = variable_shapes(model_config(backbone, "nodepth"))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def assert_same(actual, expected):
    actual, expected = (traverse_util.flatten_dict(tree) for tree in (actual, expected))
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(actual[key], value, err_msg="/".join(key))


SMALL = model_config("mit_b1", "nodepth")


@pytest.mark.parametrize(("backbone", "arch"), VARIANTS)
def test_every_variant_comes_through_exactly(backbone, arch):
    golden = json.loads((FOLDER / f"state_dict_{backbone}_{arch}.json").read_text())
    weights = state_dict(backbone, arch)
    variables = from_torch(weights, model_config(backbone, arch))
    returned = to_torch(variables, golden["entries"])
    assert returned.keys() == {name for name in weights if "num_batches_tracked" not in name}
    for name, value in returned.items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)
        assert value.dtype == np.float32
    counts = golden["param_counts"]
    assert parameter_count(variables["params"]) == counts["total"]
    for module in ("encoder_image", "encoder_flow", "decode_head"):
        assert parameter_count(variables["params"][module]) == counts[module]


@pytest.mark.parametrize("backbone", ENCODER_PARAMETERS)
def test_every_backbone_has_the_published_number_of_parameters(backbone):
    config = ml_collections.ConfigDict({**SMALL, "backbone": backbone})
    params = variable_shapes(config)["params"]
    assert parameter_count(params["encoder_image"]) == ENCODER_PARAMETERS[backbone]
    assert parameter_count(params["encoder_flow"]) == ENCODER_PARAMETERS[backbone]


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.encoder."])
def test_wrappers_prefix_is_dropped(prefix):
    weights = small_state()
    wrapped = {prefix + name: value for name, value in weights.items()}
    assert_same(from_torch(wrapped, SMALL), from_torch(weights, SMALL))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_float_type_becomes_float32(dtype):
    weights = {name: value.astype(dtype) for name, value in small_state().items()}
    bias = from_torch(weights, SMALL)["params"]["encoder_image"]["norm1"]["bias"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, weights["encoder_image.norm1.bias"].astype(np.float32))


def test_missing_extra_misshaped_and_unusable_entries_are_each_named():
    weights = small_state()
    del weights["decode_head.linear_pred.bias"]
    weights["decode_head.linear_pred.gain"] = np.ones(1, np.float32)
    weights["encoder_image.block1.0.attn.sr.weight"] = np.ones((64, 64, 4, 4), np.float32)
    weights["encoder_flow.norm1.bias"] = np.full(64, np.nan, np.float32)
    weights["encoder_flow.norm2.bias"] = np.ones(128, np.int8)
    with pytest.raises(UserError) as raised:
        from_torch(weights, SMALL)
    assert str(raised.value) == (
        "the DATTT checkpoint (mit_b1) does not fit config.model (backbone mit_b1, no depth): "
        "wrong shape: encoder_image.block1.0.attn.sr.weight (64, 64, 4, 4) instead of (64, 64, 8, 8); "
        "not finite floating-point numbers: encoder_flow.norm1.bias, encoder_flow.norm2.bias; "
        "missing: decode_head.linear_pred.bias; not in the network: decode_head.linear_pred.gain")


def test_missing_running_statistics_are_missed():
    weights = small_state()
    del weights["decode_head.linear_fuse.bn.running_var"]
    with pytest.raises(UserError, match=r"missing: decode_head\.linear_fuse\.bn\.running_var$"):
        from_torch(weights, SMALL)


def test_every_missing_name_is_listed():
    weights = {name: value for name, value in small_state().items() if "encoder_flow.block1" not in name}
    with pytest.raises(UserError, match=r"missing: (?:encoder_flow\.block1\.[\w.]+(?:, |$)){40}") as caught:
        from_torch(weights, SMALL)
    assert "\n" not in str(caught.value)


def test_not_strict_takes_missing_entries_from_the_initial_variables():
    weights = small_state()
    expected = from_torch(weights, SMALL)
    expected["params"]["encoder_flow"]["norm1"]["bias"] = np.zeros(64, np.float32)
    del weights["encoder_flow.norm1.bias"]
    weights["decode_head.unknown"] = np.ones(1, np.float32)
    assert_same(from_torch(weights, SMALL, strict=False, initial=zeros("mit_b1")), expected)
    with pytest.raises(UserError, match=r"missing: encoder_flow\.norm1\.bias$"):
        from_torch(weights, SMALL, strict=False)


def test_wrong_network_names_the_fields_to_change():
    with pytest.raises(UserError, match=re.escape(
            "has backbone mit_b1, depth False; config.model has backbone swin_t, depth True: "
            "use --config.model.backbone=mit_b1 --config.model.depth=False")):
        from_torch(small_state(), model_config("swin_tiny", "alpha"))


@pytest.mark.parametrize("held", ARCHITECTURES[:-1])
def test_wrong_modulation_is_told(held):
    asked = "basic" if held != "basic" else "alpha"
    with pytest.raises(UserError, match=re.escape(f"use --config.model.modulation={held}")):
        from_torch(state_dict("mit_b1", held), model_config("mit_b1", asked))


def test_a_backbone_that_is_not_offered_is_described():
    weights = {name: value for name, value in backbone_state("mit_b1").items() if "block4.1." not in name}
    with pytest.raises(UserError, match=re.escape(
            "(a MiT of widths (64, 128, 320, 512) and depths (2, 2, 2, 1)) does not fit")):
        from_torch_backbone(weights, SMALL, zeros("mit_b1"))


def hf_segformer(weights):
    """The inverse of the renaming, written from the names transformers has."""
    starts = {"patch_embed": "patch_embeddings", "block": "block", "norm": "layer_norm"}
    parts = {"norm1": "layer_norm_1", "norm2": "layer_norm_2", "norm": "layer_norm", "proj": "proj",
             "attn.q": "attention.self.query", "attn.sr": "attention.self.sr",
             "attn.norm": "attention.self.layer_norm", "attn.proj": "attention.output.dense",
             "mlp.fc1": "mlp.dense1", "mlp.dwconv.dwconv": "mlp.dwconv.dwconv", "mlp.fc2": "mlp.dense2"}
    renamed = {}
    for name, value in weights.items():
        start, stage, block, part, leaf = re.fullmatch(
            r"([a-z_]+)(\d)(\.\d+)?(?:\.(.+))?\.(\w+)", name).groups()
        base_name = f"segformer.encoder.{starts[start]}.{int(stage) - 1}{block or ''}"
        if part == "attn.kv":
            key, renamed[f"{base_name}.attention.self.value.{leaf}"] = np.split(value, 2)
            renamed[f"{base_name}.attention.self.key.{leaf}"] = key
        else:
            renamed[f"{base_name}.{parts[part]}.{leaf}" if part else f"{base_name}.{leaf}"] = value
    return renamed


def hf_swin(weights):
    """The inverse of the renaming, written from the names transformers has."""
    parts = {"norm1": "layernorm_before", "norm2": "layernorm_after",
             "attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense",
             "mlp.fc2": "output.dense"}
    renamed = {}
    for name, value in weights.items():
        head, leaf = name.rsplit(".", 1)
        block = re.fullmatch(r"(layers\.\d\.blocks\.\d+)\.(.+)", head)
        if head.startswith("patch_embed."):
            kind = {"proj": "patch_embeddings.projection", "norm": "norm"}[head.split(".")[1]]
            renamed[f"swin.embeddings.{kind}.{leaf}"] = value
        elif block is None:
            renamed[f"swin.encoder.{name}"] = value
        elif block[2] == "attn.qkv":
            for part, array in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                renamed[f"swin.encoder.{block[1]}.attention.self.{part}.{leaf}"] = array
        elif leaf == "relative_position_bias_table":
            renamed[f"swin.encoder.{block[1]}.attention.self.{leaf}"] = value
        else:
            renamed[f"swin.encoder.{block[1]}.{parts[block[2]]}.{leaf}"] = value
    return renamed


def timm_swin(weights):
    """Timm's patch merging belongs to the stage after it."""
    return {re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name): value
            for name, value in weights.items()}


@pytest.mark.parametrize(("backbone", "rename", "layout", "extras"), [
    ("mit_b1", hf_segformer, "segformer_b1", ["classifier.weight", "classifier.bias"]),
    ("swin_tiny", hf_swin, "swin_tiny", ["classifier.weight", "classifier.bias", "swin.layernorm.weight",
                                         "swin.layernorm.bias"]),
    ("swin_tiny", timm_swin, "timm_swin_tiny", ["head.fc.weight", "head.fc.bias", "norm.weight",
                                                "norm.bias"]),
])
def test_other_layouts_are_the_released_backbone(backbone, rename, layout, extras):
    native = backbone_state(backbone)
    renamed = rename(native)
    published = published_names(layout)
    assert renamed.keys() == published.keys() - set(extras)
    assert {name: list(value.shape) for name, value in renamed.items()} == {
        name: shape for name, shape in published.items() if name not in extras}
    renamed |= {name: np.ones(published[name], np.float32) for name in extras}
    weights = recognise(renamed)
    assert set(weights.ignored) == set(extras)
    assert weights.tensors.keys() == native.keys()
    for name, value in native.items():
        np.testing.assert_array_equal(weights.tensors[name], value, err_msg=name)


def test_hugging_face_names_need_no_prefix():
    named = {name.removeprefix("segformer."): value
             for name, value in hf_segformer(backbone_state("mit_b1")).items()}
    assert recognise(named).tensors.keys() == backbone_state("mit_b1").keys()


def test_half_a_split_projection_is_refused():
    weights = hf_segformer(backbone_state("mit_b1"))
    del weights["segformer.encoder.block.0.1.attention.self.value.weight"]
    with pytest.raises(UserError, match=r"block1\.1\.attn\.kv\.weight is joined from key, value"):
        recognise(weights)


@pytest.mark.parametrize(("backbone", "extras"), [
    ("mit_b1", ["head.weight", "head.bias"]),
    ("swin_tiny", ["norm0.weight", "norm3.bias", "norm.weight", "head.bias",
                   "layers.0.blocks.1.attn_mask", "layers.0.blocks.0.attn.relative_position_index"]),
])
def test_backbone_goes_into_both_encoders_and_its_head_is_left_out(backbone, extras):
    config = model_config(backbone, "nodepth")
    native = backbone_state(backbone)
    initial = zeros(backbone)
    variables = from_torch_backbone(native | dict.fromkeys(extras, np.ones(3, np.float32)), config, initial)
    whole = from_torch(cached_state_dict(backbone, "nodepth"), config)
    assert_same(variables["params"]["encoder_image"], whole["params"]["encoder_image"])
    assert_same(variables["params"]["encoder_flow"], whole["params"]["encoder_image"])
    assert_same(variables["params"]["decode_head"], initial["params"]["decode_head"])
    assert_same(variables["batch_stats"], initial["batch_stats"])


def test_what_stands_beside_a_wrapped_backbone_is_left_out():
    native = backbone_state("mit_b1")
    weights = {f"backbone.{name}": value for name, value in native.items()}
    weights["decode_head.linear_c1.proj.weight"] = np.ones((256, 64), np.float32)
    assert recognise(weights).tensors.keys() == native.keys()
    assert recognise(weights).ignored == ("decode_head.linear_c1.proj.weight",)


def test_unknown_entries_of_a_backbone_are_named():
    weights = backbone_state("mit_b1") | {"pos_embed": np.ones(3, np.float32)}
    with pytest.raises(UserError, match=r"not in the network: pos_embed$"):
        from_torch_backbone(weights, SMALL, zeros("mit_b1"))


def test_two_backbones_in_one_file_are_refused():
    native = backbone_state("mit_b1")
    weights = native | {f"ema.{name}": value for name, value in native.items()}
    with pytest.raises(UserError, match=r"holds more than one SegFormer backbone, under '' and 'ema\.'"):
        recognise(weights)


def test_unknown_network_is_refused():
    with pytest.raises(UserError, match=r"unknown network \(names such as conv1.weight\)"):
        recognise({"conv1.weight": np.ones((64, 3, 7, 7), np.float32)})


def test_whole_and_backbone_are_not_mixed_up():
    with pytest.raises(UserError, match="from_torch_backbone puts them into both encoders"):
        from_torch(backbone_state("mit_b1"), SMALL)
    with pytest.raises(UserError, match="from_torch takes them"):
        from_torch_backbone(small_state(), SMALL, zeros("mit_b1"))


def convert_config(path, model=SMALL):
    config = base.get_config()
    config.model.update(model)
    config.convert.input = str(path)
    return config


def write_safetensors(path, weights):
    from safetensors.numpy import save_file
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, path)


def test_mode_converts_a_whole_network(tmp_path, capsys):
    path = tmp_path / "dattt.safetensors"
    write_safetensors(path, small_state())
    convert(convert_config(path), str(tmp_path / "out"))
    assert_same(checkpoints.load_variables(tmp_path / "out"), from_torch(small_state(), SMALL))
    total = json.loads((FOLDER / "state_dict_mit_b1_nodepth.json").read_text())["param_counts"]["total"]
    assert capsys.readouterr().out == (
        f"{path}: DATTT checkpoint, {len(small_state()) - 1} tensors, 1 ignored; network of "
        f"{total:,} parameters -> {tmp_path}/out/checkpoints/0\n")


def test_mode_converts_a_backbone(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    path = tmp_path / "mit_b1.pth"
    native = backbone_state("mit_b1")
    torch.save({name: torch.from_numpy(value) for name, value in native.items()}, path)
    config = convert_config(path)
    convert(config, str(tmp_path / "out"))
    head = random_variables(config.model, config.seed, without=ENCODERS)
    assert_same(checkpoints.load_variables(tmp_path / "out"), from_torch_backbone(native, SMALL, head))
    assert head["params"].keys() == {"decode_head"}
    assert head["params"]["decode_head"]["linear_fuse"]["conv"]["kernel"].std() > 0.01
    assert f"SegFormer backbone, {len(native)} tensors into both encoders" in capsys.readouterr().out


def test_mode_names_the_file_and_the_field(tmp_path):
    path = tmp_path / "mit_b1.safetensors"
    write_safetensors(path, backbone_state("mit_b1"))
    with pytest.raises(UserError, match=re.escape(f"{path}: the SegFormer backbone has backbone mit_b1; "
                                                  "config.model has backbone mit_b2: use "
                                                  "--config.model.backbone=mit_b1")):
        convert(convert_config(path, {"backbone": "mit_b2"}), str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"config\.convert\.input is empty"):
        convert(convert_config(""), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
