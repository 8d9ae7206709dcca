"""Published weights of the flow and depth networks: recognised by their names, and put into our trees.

One rule names every parameter: a number that is a part of its own in a PyTorch name is joined to the part
before it (`layer2.0.downsample.1` -> `layer2_0/downsample_1`). The rest is as in `dattt_jax.convert`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import traverse_util

from dattt_jax.errors import UserError
from dattt_jax.network_files import Shapes, write_network
from dattt_jax.variables import Variables
from dattt_jax.weight_files import Numbers, read_checkpoint
from input_pipeline.depth.networks import depth_shapes
from input_pipeline.flow.raft_flow import raft_shapes

# torchvision's names of RAFT's parts -> the authors', applied in this order.
_FROM_TORCHVISION = (
    (r"^feature_encoder\.", "fnet."),
    (r"^context_encoder\.", "cnet."),
    (r"^([fc]net)\.convnormrelu\.0\.", r"\1.conv1."),
    (r"^([fc]net)\.convnormrelu\.1\.", r"\1.norm1."),
    (r"^([fc]net)\.conv\.", r"\1.conv2."),
    (r"\.convnormrelu(\d)\.0\.", r".conv\1."),
    (r"\.convnormrelu(\d)\.1\.", r".norm\1."),
    (r"motion_encoder\.convcorr(\d)\.0\.", r"encoder.convc\1."),
    (r"motion_encoder\.convflow(\d)\.0\.", r"encoder.convf\1."),
    (r"motion_encoder\.conv\.0\.", "encoder.conv."),
    (r"mask_predictor\.convrelu\.0\.", "update_block.mask.0."),
    (r"mask_predictor\.conv\.", "update_block.mask.2."),
)
# The depth networks are published as two files, of which no name occurs in both.
_ENCODER, _DECODER = "encoder", "depth"
# (widths of the stages, blocks of the last stage) -> variant
_LITE_MONO = {
    ((48, 80, 128), 10): "lite_mono",
    ((48, 80, 128), 7): "lite_mono_small",
    ((32, 64, 128), 7): "lite_mono_tiny",
    ((64, 128, 224), 10): "lite_mono_8m",
}
_MONODEPTH2_NOTICE = ("MonoDepth2's weights are published for non-commercial use only (Monodepth v2 License, "
                      "Niantic 2018); that binds your use of them and of the depth made with them")
# Buffers that training and profiling leave in state dicts.
_NOT_WEIGHTS = re.compile(r"num_batches_tracked$|total_(?:ops|params)$")
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_FIELDS = ("height", "width", "use_stereo")  # numbers beside the tensors that matter


@dataclasses.dataclass(frozen=True)
class NetworkWeights:
    """Weights of a flow or depth network under its authors' names.

    Attributes:
        network: our name of the network, for example `raft_small`.
        kind: what the weights are, for messages.
        tensors: names to arrays in PyTorch's layout, without entries that the network does not use.
        ignored: names of those entries.
        fields: what else the files say, for example the size of the training images.
        notice: what the user should be told; '' for nothing.
    """

    network: str
    kind: str
    tensors: Mapping[str, np.ndarray]
    ignored: tuple[str, ...]
    fields: Numbers = dataclasses.field(default_factory=dict)
    notice: str = ""


def read_parts(path: str) -> tuple[dict[str, np.ndarray], Numbers]:
    """`read_checkpoint` of a file, or of the two files that a depth network is published as.

    Args:
        path: a file, or the folder with `encoder.pth` and `depth.pth` (or `.safetensors`). One of these two
            names stands for both files where both are there.

    Raises:
        UserError: a file cannot be read, or the folder has no such files.
    """
    here = Path(path)
    if not here.is_dir() and here.stem not in (_ENCODER, _DECODER):
        return read_checkpoint(path)
    folder, suffixes = (here, (".pth", ".safetensors")) if here.is_dir() else (here.parent, (here.suffix,))
    files = [folder / f"{part}{suffix}" for part in (_ENCODER, _DECODER) for suffix in suffixes]
    files = [file for file in files if file.exists()]
    if not files:
        if not here.is_dir():
            return read_checkpoint(path)
        raise UserError(f"{path}: holds no {_ENCODER}.pth and {_DECODER}.pth; name a file of weights, or the "
                        "folder with these two of a depth network")
    tensors, numbers = {}, {}
    for file in files:
        more_tensors, more_numbers = read_checkpoint(str(file))
        tensors |= more_tensors
        numbers |= more_numbers
    return tensors, numbers


def recognise_network(state_dict: Mapping[str, np.ndarray], numbers: Numbers) -> NetworkWeights | None:
    """Tells which flow or depth network the weights are of, and gives them their authors' names.

    Args:
        state_dict: names to arrays in PyTorch's layout, perhaps all behind `module.`.
        numbers: what else the file holds, see `read_checkpoint`.

    Returns:
        The weights; None if they are of none of these networks.

    Raises:
        UserError: they are of one of them, but of a size that is not known.
    """
    state = {name.removeprefix("module."): value for name, value in state_dict.items()}
    if "feature_encoder.convnormrelu.0.weight" in state:
        return _raft({_from_torchvision(name): value for name, value in state.items()}, "RAFT (torchvision)")
    if "fnet.conv1.weight" in state:
        return _raft(state, "RAFT (authors)")
    if "downsample_layers.0.0.conv.weight" in state:
        return _lite_mono(state, numbers)
    if "encoder.layer1.0.conv1.weight" in state and "encoder.conv1.weight" in state:
        return _monodepth2(state, numbers)
    if "decoder.0.conv.conv.weight" in state:
        raise UserError(f"the decoder of a depth network alone; put its {_ENCODER}.pth beside it, and call "
                        f"this {_DECODER}.pth")
    return None


def _from_torchvision(name: str) -> str:
    for pattern, replacement in _FROM_TORCHVISION:
        name = re.sub(pattern, replacement, name)
    units = re.search(r"recurrent_block\.convgru(\d)\.(conv[zrq])\.", name)
    return name if units is None else name.replace(units[0], f"gru.{units[2]}{units[1]}.")


def _raft(state: Mapping[str, np.ndarray], kind: str) -> NetworkWeights:
    width = len(state["fnet.conv1.weight"])
    network = {64: "raft_large", 32: "raft_small"}.get(width)
    if network is None:
        raise UserError(f"a RAFT of width {width}; known are raft_large (64) and raft_small (32)")
    if network == "raft_small":  # one unit, which the authors do not number
        state = {re.sub(r"(gru\.conv[zrq])1\.", r"\1.", name): value for name, value in state.items()}
    # The authors' norm3 is a second name of downsample.1.
    return _named(network, f"{network} of {kind}", state, r"\.norm3\." if network == "raft_large" else "(?!)")


def _check_decoder(kind: str, state: Mapping[str, np.ndarray]) -> None:
    if not any(name.startswith("decoder.") for name in state):
        raise UserError(f"the encoder of {kind} alone; put its {_DECODER}.pth beside it, and call this "
                        f"{_ENCODER}.pth")


def _lite_mono(state: Mapping[str, np.ndarray], numbers: Numbers) -> NetworkWeights:
    downsampling = ("downsample_layers.0.0.conv", "downsample_layers.1.0.conv", "downsample_layers.2.0.conv")
    widths = tuple(len(state.get(f"{name}.weight", ())) for name in downsampling)
    blocks = len({name.split(".")[2] for name in state if name.startswith("stages.2.")})
    network = _LITE_MONO.get((widths, blocks))
    if network is None:
        raise UserError(f"a Lite-Mono of widths {widths} and {blocks} blocks in the last stage; known are "
                        f"{', '.join(_LITE_MONO.values())}")
    _check_decoder("Lite-Mono", state)
    # The LayerNorm of the dilated blocks is never used; that of the blocks with attention is.
    unused = [name for name in state if (block := re.match(r"(stages\.\d\.\d+\.)norm\.", name))
              and f"{block[1]}norm_xca.weight" not in state]
    state = {_unwrapped(name): value for name, value in state.items()}
    return _named(network, "Lite-Mono", state, "|".join(map(re.escape, unused)) or "(?!)", numbers)


def _unwrapped(name: str) -> str:
    """`decoder.0.conv.conv.weight` -> `decoder.0.weight`; the wrappers of a layer hold nothing else."""
    name = re.sub(r"(\.ddwconv)\.conv\.weight$", r"\1", name).replace(".bn_gelu.bn.", ".bn.")
    return re.sub(r"(stem2\.\d|downsample_layers\.[12]\.\d|decoder\.\d+)(?:\.conv)+\.", r"\1.", name)


def _monodepth2(state: Mapping[str, np.ndarray], numbers: Numbers) -> NetworkWeights:
    if "encoder.layer1.0.conv3.weight" in state:
        raise UserError("a MonoDepth2 with a ResNet-50; known is the one with a ResNet-18")
    _check_decoder("MonoDepth2", state)
    state = {_unwrapped(name): value for name, value in state.items()}
    return _named("monodepth2", "MonoDepth2 (ResNet-18)", state, r"encoder\.fc\.", numbers,
                  _MONODEPTH2_NOTICE)


def _named(network: str, kind: str, state: Mapping[str, np.ndarray], unused: str,
           numbers: Numbers | None = None, notice: str = "") -> NetworkWeights:
    """The weights without the entries that hold none or that match the pattern `unused`."""
    ignored = tuple(name for name in state if _NOT_WEIGHTS.search(name) or re.search(unused, name))
    tensors = {name: value for name, value in state.items() if name not in ignored}
    fields = {name: value for name, value in (numbers or {}).items() if name in _FIELDS}
    return NetworkWeights(network, kind, tensors, ignored, fields, notice)


def network_shapes(network: str) -> Shapes:
    """Shapes of a flow or depth network's variables by their paths."""
    return raft_shapes(network) if network.startswith("raft") else depth_shapes(network)


def to_variables(weights: NetworkWeights) -> Variables:
    """The weights as our network's variables.

    Returns:
        {'params': …} and, where the network has batch normalisation, 'batch_stats'; float32 NumPy leaves.

    Raises:
        UserError: names all missing, extra, wrong-shaped and unusable entries.
    """
    flat = {_path(name, value.ndim): (name, value) for name, value in weights.tensors.items()}
    shapes = network_shapes(weights.network)
    arrays = {path: np.ascontiguousarray(_to_flax(value), np.float32) for path, (_, value) in flat.items()
              if value.dtype.kind == "f"}
    problems = {
        "missing": sorted(_name(path) for path in shapes.keys() - flat.keys()),
        "not in the network": [name for path, (name, _) in flat.items() if path not in shapes],
        "wrong shape": [f"{flat[path][0]} {flat[path][1].shape}" for path, array in arrays.items()
                        if path in shapes and array.shape != shapes[path]],
        "not finite floating-point numbers": [name for path, (name, _) in flat.items()
                                              if path not in arrays or not np.isfinite(arrays[path]).all()],
    }
    report = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
    if report:
        raise UserError(f"{weights.kind} does not fit {weights.network}: {report}")
    return traverse_util.unflatten_dict(arrays, sep="/")


def _path(name: str, ndim: int) -> str:
    """`cnet.layer2.0.downsample.1.running_mean` -> `batch_stats/cnet/layer2_0/downsample_1/mean`."""
    *modules, leaf = re.sub(r"\.(\d+)(?=\.)", r"_\1", name).split(".")
    collection = "params"
    if leaf.startswith("running_"):
        collection, leaf = "batch_stats", leaf.removeprefix("running_")
    elif leaf == "weight":
        leaf = "scale" if ndim == 1 else "kernel"
    return "/".join((collection, *modules, leaf))


def _name(path: str) -> str:
    """The inverse of `_path`."""
    _, *modules, leaf = path.split("/")
    leaf = _LEAVES.get(leaf, leaf)
    return ".".join([*(re.sub(r"_(\d+)", r".\1", module) for module in modules), leaf])


def _to_flax(value: np.ndarray) -> np.ndarray:
    """[out, in, kh, kw] -> [kh, kw, in, out] and [out, in] -> [in, out]."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.transpose() if value.ndim == 2 else value


def convert_network(path: str, weights: NetworkWeights, workdir: str | Path) -> list[str]:
    """Writes `workdir`/<network>.safetensors, for `config.flow.weights` or `config.depth.weights`.

    Args:
        path: where the weights come from, for messages.
        weights: see `recognise_network`.
        workdir: a folder.

    Returns:
        Lines for the user.

    Raises:
        UserError: the weights are not the whole network's, or the file cannot be written.
    """
    try:
        variables = to_variables(weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    output = Path(workdir) / f"{weights.network}.safetensors"
    write_network(output, weights.network, variables, weights.fields)
    section = "flow" if weights.network.startswith("raft") else "depth"
    line = (f"{path}: {weights.kind}, {len(weights.tensors)} tensors, {len(weights.ignored)} ignored -> "
            f"{output}; use --config.{section}.method={weights.network} --config.{section}.weights={output}")
    return [line, weights.notice] if weights.notice else [line]
