"""PyTorch weights in, Flax variables out: renames and transposes. And the mode `convert`.

The rule: a number that is a part of its own in a PyTorch name is joined to the part before it
(`block1.0.attn.q` -> `block1_0/attn/q`, `layers.0.blocks.1` -> `layers_0/blocks_1`). PyTorch's
`weight` is `kernel` (linear [out, in] -> [in, out], convolution [out, in, kh, kw] ->
[kh, kw, in, out]) or `scale` (one axis); `running_mean` and `running_var` are `mean` and `var` in
the `batch_stats` collection.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from flax import traverse_util

from dattt_jax.checkpoints import save_variables
from dattt_jax.convert_networks import convert_network, read_parts, recognise_network
from dattt_jax.errors import UserError
from dattt_jax.models import BACKBONES
from dattt_jax.torch_layouts import TorchWeights, network_fields, recognise
from dattt_jax.variables import Variables, random_variables, variable_shapes

Key = tuple[str, ...]

ENCODERS = ("encoder_image", "encoder_flow")


def torch_name(key: Key) -> str:
    """The PyTorch name of a variable ('params' or 'batch_stats', module, …, leaf)."""
    collection, *modules, leaf = key
    if collection == "batch_stats":
        leaf = f"running_{leaf}"
    elif leaf in ("kernel", "scale"):
        leaf = "weight"
    return ".".join([*(re.sub(r"_(\d+)$", r".\1", module) for module in modules), leaf])


def from_torch(state_dict: Mapping[str, np.ndarray], model_config: ml_collections.ConfigDict, *,
               strict: bool = True, initial: Variables | None = None) -> Variables:
    """Variables of the model from the state dict of a whole DATTT network.

    Args:
        state_dict: names to arrays of any float type in PyTorch's layout: `encoder_image.*`,
            `encoder_flow.*` and `decode_head.*`, perhaps behind a common prefix such as `module.`.
        model_config: what `create_model` takes; it must describe the checkpoint's network.
        strict: fail on missing or extra entries. Otherwise extra ones are left out and missing
            ones taken from `initial`. Another backbone or a wrong shape always fails.
        initial: variables of the model; without them missing entries always fail.

    Returns:
        {'params': …, 'batch_stats': …} with float32 NumPy leaves.

    Raises:
        UserError: names the fields of `config.model` that the weights contradict, or the missing,
            extra, wrong-shaped and unusable entries (all of them).
    """
    weights = _recognise(state_dict, model_config, strict)
    if not weights.whole:
        raise UserError(f"the weights are a {weights.kind}, not a whole DATTT network; "
                        "from_torch_backbone puts them into both encoders")
    return _place(weights, model_config, strict, initial)


def from_torch_backbone(state_dict: Mapping[str, np.ndarray],
                        model_config: ml_collections.ConfigDict, initial: Variables, *,
                        strict: bool = True) -> Variables:
    """Variables of the model with a published backbone in both encoders (authors' code).

    Args:
        state_dict: names to arrays of any float type in PyTorch's layout: a SegFormer (MiT) or Swin
            backbone as released, or in the Hugging Face or timm layout. Heads are left out.
        model_config: what `create_model` takes; the backbone must be the same.
        initial: variables of the model; the decode head is taken from here, and without `strict`
            the missing entries of the encoders.
        strict: as in `from_torch`, for the entries of the backbone.

    Returns:
        {'params': …, 'batch_stats': …}; the encoders' leaves are float32 NumPy arrays.

    Raises:
        UserError: as `from_torch`.
    """
    weights = _recognise(state_dict, model_config, strict)
    if weights.whole:
        raise UserError(f"the weights are a {weights.kind}, not a backbone; from_torch takes them")
    return _place(weights, model_config, strict, initial)


def convert(config: ml_collections.ConfigDict, workdir: str) -> None:
    """The mode: PyTorch weights to a checkpoint that `config.init` can name, or a flow or depth network.

    A DATTT checkpoint becomes the whole network. A backbone goes into both encoders, and the decode
    head is the random initialisation of `config.seed`. Weights of RAFT, Lite-Mono or MonoDepth2
    become a file for `config.flow.weights` or `config.depth.weights`. What was made is printed.

    Args:
        config: fields `convert.input`, `convert.strict`, `model` and `seed`.
        workdir: folder of the checkpoint or file.

    Raises:
        UserError: the file cannot be read or does not fit `config.model`, or the checkpoint cannot
            be written.
    """
    path = config.convert.input
    if not path:
        raise UserError("config.convert.input is empty: name a .pth or .safetensors file, for "
                        "example --config.convert.input=mit_b1.pth")
    state_dict, numbers = read_parts(path)
    try:
        other = recognise_network(state_dict, numbers)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if other is not None:
        print("\n".join(convert_network(path, other, workdir)))
        return
    try:
        weights = _recognise(state_dict, config.model, config.convert.strict)
        initial = None
        if not config.convert.strict:
            initial = random_variables(config.model, config.seed)
        elif not weights.whole:
            initial = random_variables(config.model, config.seed, without=ENCODERS)
        variables = _place(weights, config.model, config.convert.strict, initial)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if weights.ignored:
        logging.info("%s: ignored %s", path, ", ".join(weights.ignored))
    folder = save_variables(workdir, variables, config.model)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    into = ""
    if not weights.whole:
        into = f" into both encoders, decode head random (seed {config.seed})"
    print(f"{path}: {weights.kind}, {len(weights.tensors)} tensors{into}, {len(weights.ignored)} "
          f"ignored; network of {parameters:,} parameters -> {folder}")


def _recognise(state_dict: Mapping[str, np.ndarray], model_config: ml_collections.ConfigDict,
               strict: bool) -> TorchWeights:
    """`recognise`, and a UserError that tells which fields of `config.model` the weights contradict.

    Without `strict` only the backbone must be right: parts of a decode head may then be missing.
    A backbone that is not offered is left to the comparison of names and shapes.
    """
    weights = recognise(state_dict)
    fields = {name: value for name, value in network_fields(weights).items()
              if strict or name == "backbone"}
    if fields["backbone"] not in BACKBONES:
        del fields["backbone"]
    wrong = {name: value for name, value in fields.items()
             if name in model_config and value != model_config[name]}
    if wrong:
        seen = ", ".join(f"{name} {value}" for name, value in wrong.items())
        set_to = ", ".join(f"{name} {model_config[name]}" for name in wrong)
        flags = " ".join(f"--config.model.{name}={value}" for name, value in wrong.items())
        raise UserError(f"the {weights.kind} has {seen}; config.model has {set_to}: use {flags}")
    return weights


def _place(weights: TorchWeights, model_config: ml_collections.ConfigDict, strict: bool,
           initial: Variables | None) -> Variables:
    """The one way from names to variables; a backbone's entry has a place in each encoder."""
    places = {}
    for key, leaf in traverse_util.flatten_dict(variable_shapes(model_config)).items():
        if weights.whole:
            places[key] = torch_name(key), leaf.shape
        elif key[1] in ENCODERS:
            places[key] = torch_name((key[0], *key[2:])), leaf.shape
    found, misshaped, unusable = {}, [], []
    for key, (name, shape) in places.items():
        if name not in weights.tensors:
            continue
        value = np.asarray(weights.tensors[name])
        array = _to_flax_layout(value, key, len(shape))
        if array.shape != shape:
            misshaped.append(f"{name} {value.shape} instead of {_torch_shape(key, shape)}")
        elif not jnp.issubdtype(value.dtype, jnp.floating) or not np.isfinite(array).all():
            unusable.append(name)
        else:
            found[key] = np.ascontiguousarray(array, np.float32)
    known = [name for name, _ in places.values()]
    fatal = {"wrong shape": misshaped, "not finite floating-point numbers": unusable}
    tolerated: dict[str, list[str]] = {}
    (fatal if strict or initial is None else tolerated)["missing"] = [
        name for name in known if name not in weights.tensors]
    (fatal if strict else tolerated)["not in the network"] = sorted(weights.tensors.keys() - set(known))
    if any(fatal.values()):
        raise UserError(f"the {weights.kind} ({network_fields(weights)['backbone']}) does not fit "
                        f"config.model ({_describe(model_config)}): {_report(fatal)}")
    if any(tolerated.values()):
        logging.warning("the %s fits config.model in part: %s", weights.kind, _report(tolerated))
    flat = {} if initial is None else traverse_util.flatten_dict(dict(initial))
    return traverse_util.unflatten_dict(flat | found)


def _to_flax_layout(value: np.ndarray, key: Key, ndim: int) -> np.ndarray:
    """Transposes a weight; a 1×1 convolution becomes a matrix where Flax has one."""
    if key[-1] != "kernel":
        return value
    if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
        return value[0, 0] if ndim == 2 and value.shape[:2] == (1, 1) else value
    return value.transpose()


def _torch_shape(key: Key, shape: tuple[int, ...]) -> tuple[int, ...]:
    """PyTorch's shape of a variable; of every matrix that of a linear layer."""
    if key[-1] != "kernel":
        return shape
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _report(problems: Mapping[str, list[str]]) -> str:
    """Every kind of problem there is, with all names of each."""
    parts = []
    for what, names in problems.items():
        names = list(dict.fromkeys(names))  # a backbone's entries have two places
        if names:
            parts.append(f"{what}: {', '.join(names)}")
    return "; ".join(parts)


def _describe(model_config: ml_collections.ConfigDict) -> str:
    modulation = f", modulation {model_config.modulation}" if model_config.depth else ", no depth"
    return f"backbone {model_config.backbone}{modulation}"
