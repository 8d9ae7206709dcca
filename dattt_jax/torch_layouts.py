"""The PyTorch weights that are known, and the authors' names for each of them.

A file is recognised by its keys. Whatever stands before the keys of a layout (`module.`,
`backbone.`, `segformer.encoder.`) is a wrapper's prefix and is dropped. The names that come out are
those of the authors' network, which are those of the SegFormer release and of the Swin detection
backbone. The Hugging Face and timm files hold the same numbers under other names, Hugging Face with
the attention projections split.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

from dattt_jax.errors import UserError
from dattt_jax.models.mit import MIT_SIZES, MiTSizes
from dattt_jax.models.swin import SWIN_T

# Entries of a state dict that hold no weights: step counters, and buffers computed from sizes.
_NOT_WEIGHTS = ("num_batches_tracked", "relative_position_index", "attn_mask")
_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class TorchWeights:
    """Weights under the authors' names.

    Attributes:
        kind: which kind of file it is, for messages.
        whole: whether it is the whole network (`encoder_image.*`, `encoder_flow.*`,
            `decode_head.*`) or the entries of one encoder.
        tensors: names to arrays in PyTorch's layout.
        ignored: names in the file of what such files are known to hold and the network does not.
    """

    kind: str
    whole: bool
    tensors: Mapping[str, np.ndarray]
    ignored: tuple[str, ...]


def _from_hf_segformer(name: str) -> str:
    """`block.0.1.layer_norm_1.weight` -> `block1.1.norm1.weight`."""
    starts = {"patch_embeddings": "patch_embed", "block": "block", "layer_norm": "norm"}
    name = re.sub(rf"^({'|'.join(starts)})\.(\d)\.",
                  lambda found: f"{starts[found[1]]}{int(found[2]) + 1}.", name)
    return _replace(name, {
        "attention.self.query.": "attn.q.",
        "attention.self.": "attn.",
        "attention.output.dense.": "attn.proj.",
        "layer_norm.": "norm.",
        "layer_norm_": "norm",
        "mlp.dense": "mlp.fc",
    })


def _from_hf_swin(name: str) -> str:
    """`encoder.layers.0.blocks.1.intermediate.dense.bias` -> `layers.0.blocks.1.mlp.fc1.bias`."""
    return _replace(name, {
        "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
        "embeddings.norm.": "patch_embed.norm.",
        "encoder.layers.": "layers.",
        "attention.self.": "attn.",
        "attention.output.dense.": "attn.proj.",
        "layernorm_before.": "norm1.",
        "layernorm_after.": "norm2.",
        "intermediate.dense.": "mlp.fc1.",
        "output.dense.": "mlp.fc2.",
    })


def _from_timm_swin(name: str) -> str:
    """`layers.1.downsample` -> `layers.0.downsample`: the stage before the merging owns it."""
    return re.sub(r"layers\.(\d)(?=\.downsample\.)", lambda m: f"layers.{int(m[1]) - 1}", name)


def _replace(name: str, renames: Mapping[str, str]) -> str:
    for old, new in renames.items():
        name = name.replace(old, new)
    return name


@dataclasses.dataclass(frozen=True)
class _Layout:
    """One way of naming the weights.

    Attributes:
        kind: for messages.
        marker: pattern of keys that this layout has and none after it in `_LAYOUTS`.
        whole: see `TorchWeights`.
        extras: pattern of entries beside the encoder that published files have.
        rename: from this layout's name, without the prefix, to the authors'.
        merged: the authors' projection and the ordered parts this layout splits it into.
    """

    kind: str
    marker: str
    whole: bool = False
    extras: str = "(?!)"
    rename: Callable[[str], str] = str
    merged: tuple[str, tuple[str, ...]] | None = None


_LAYOUTS = (
    _Layout("DATTT checkpoint", r"encoder_(?:image|flow)\.", whole=True),
    _Layout("SegFormer backbone", r"patch_embed[1-4]\.(?:proj|norm)\.", extras=r"head\."),
    _Layout("Swin backbone (timm)", r"layers\.3\.downsample\.", extras=r"norm\.|head\.",
            rename=_from_timm_swin),
    _Layout("Swin backbone", r"layers\.\d\.blocks\.\d+\.attn\.relative_position_bias_table$",
            extras=r"norm\d?\.|head\."),
    _Layout("SegFormer backbone (Hugging Face)", r"patch_embeddings\.\d\.(?:proj|layer_norm)\.",
            rename=_from_hf_segformer, merged=("kv", ("key", "value"))),
    _Layout("Swin backbone (Hugging Face)",
            r"encoder\.layers\.\d\.blocks\.\d+\.attention\.self\.relative_position_bias_table$",
            extras=r"layernorm\.|hidden_states_norms\.|embeddings\.mask_token$",
            rename=_from_hf_swin, merged=("qkv", ("query", "key", "value"))),
)


def recognise(state_dict: Mapping[str, np.ndarray]) -> TorchWeights:
    """Tells what the weights are by their names, and gives them the authors' names.

    Args:
        state_dict: names to arrays in PyTorch's layout.

    Raises:
        UserError: the names are those of no known layout, hold more than one backbone, or lack a
            part of a split projection.
    """
    for layout in _LAYOUTS:
        marker = re.compile(rf"(|.*?\.){layout.marker}")
        prefixes = sorted({found[1] for found in map(marker.match, state_dict) if found})
        if len(prefixes) > 1:
            under = " and ".join(map(repr, prefixes))
            raise UserError(f"holds more than one {layout.kind}, under {under}; save one alone")
        if prefixes:
            return _read(layout, state_dict, prefixes[0])
    known = ", ".join([*(layout.kind for layout in _LAYOUTS), "RAFT, Lite-Mono, MonoDepth2"])
    raise UserError(f"weights of an unknown network (names such as "
                    f"{', '.join(list(state_dict)[:_NAMES_SHOWN])}); known are: {known}")


def _read(layout: _Layout, state_dict: Mapping[str, np.ndarray], prefix: str) -> TorchWeights:
    tensors, ignored = {}, []
    for name, value in state_dict.items():
        own = name.removeprefix(prefix)
        # What stands beside a wrapped backbone is the rest of that network: a head, a neck.
        beside = not layout.whole and own == name and prefix != ""
        if beside or own.endswith(_NOT_WEIGHTS) or re.match(layout.extras, own):
            ignored.append(name)
        else:
            tensors[layout.rename(own)] = value
    if layout.merged is not None:
        tensors = _merge(tensors, *layout.merged)
    return TorchWeights(layout.kind, layout.whole, tensors, tuple(ignored))


def _merge(tensors: Mapping[str, np.ndarray], whole: str,
           parts: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Joins split projections along the output axis, in the order of `parts`."""
    merged, groups = {}, {}
    for name, value in tensors.items():
        split = re.fullmatch(rf"(.+\.attn)\.({'|'.join(parts)})\.(\w+)", name)
        if split is None:
            merged[name] = value
        else:
            groups.setdefault(f"{split[1]}.{whole}.{split[3]}", {})[split[2]] = value
    for name, group in groups.items():
        lacking = [part for part in parts if part not in group]
        if lacking or len({value.shape for value in group.values()}) > 1:
            found = ", ".join(f"{part} {value.shape}" for part, value in group.items())
            raise UserError(f"{name} is joined from {', '.join(parts)} of one shape, and there are "
                            f"{found}; the file is incomplete")
        merged[name] = np.concatenate([group[part] for part in parts])
    return merged


def network_fields(weights: TorchWeights) -> dict[str, str | bool | int]:
    """What the names and shapes say about the network, as fields of `config.model`.

    Returns:
        'backbone', which is a description where it is none of those that are offered; and for a
        whole network 'depth', 'modulation' (only with depth) and 'decoder_features'.
    """
    names = weights.tensors
    if not weights.whole:
        return {"backbone": _backbone(names)}
    fields = {"backbone": _backbone({name.removeprefix("encoder_image."): value
                                     for name, value in names.items()
                                     if name.startswith("encoder_image.")})}
    fuse = [name for name in names if name.endswith("linear_fuse.conv.weight")]
    if fuse:
        fields["decoder_features"] = names[fuse[0]].shape[0]
        fields["depth"] = any(name.startswith("decode_head.depth_head.") for name in names)
    if fields.get("depth"):
        maps = [what for what in ("alpha", "beta")
                if any(name.startswith(f"decode_head.{what}") for name in names)]
        fields["modulation"] = "+".join(maps) or "basic"
    return fields


def _backbone(encoder: Mapping[str, np.ndarray]) -> str:
    """The name of the backbone with these widths and depths; a description if there is none."""
    if any(name.startswith("layers.") for name in encoder):
        dim = _width(encoder, "patch_embed")
        depths = tuple(_depth(encoder, rf"layers\.{i}\.blocks") for i in range(4))
        if (dim, depths) == (SWIN_T["dim"], SWIN_T["depths"]):
            return "swin_t"
        return f"a Swin of width {dim} and depths {depths}"
    sizes = MiTSizes(tuple(_width(encoder, f"patch_embed{i}") for i in range(1, 5)),
                     tuple(_depth(encoder, f"block{i}") for i in range(1, 5)))
    for name, known in MIT_SIZES.items():
        if sizes == known:
            return name
    return f"a MiT of widths {sizes.dims} and depths {sizes.depths}"


def _width(encoder: Mapping[str, np.ndarray], embedding: str) -> int | None:
    projection = encoder.get(f"{embedding}.proj.weight")
    return None if projection is None else projection.shape[0]


def _depth(encoder: Mapping[str, np.ndarray], blocks: str) -> int:
    """How many numbered modules stand under the pattern `blocks`."""
    numbers = (re.match(rf"{blocks}\.(\d+)\.", name) for name in encoder)
    return len({found[1] for found in numbers if found})
