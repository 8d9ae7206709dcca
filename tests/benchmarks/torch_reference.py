"""DATTT's network (CVPR 2024) in plain PyTorch: what our speed is compared with.

Written from the papers for this purpose: MiT (SegFormer, Xie et al., NeurIPS 2021), Swin-T (Liu et al., ICCV
2021), two SegFormer decoders with `alpha+beta` modulation. It computes what the authors' network computes, in
the same form: nothing of the algebra that saves work on our side is used here. Names of parameters are those
of a released checkpoint, so `dattt_jax.convert.from_torch` takes its `state_dict()`.
`tests/test_torch_reference.py` compares it with the authors' numbers.

All images and maps are float [B, C, H, W]; inside transformer blocks, tokens are [B, H·W, C].
"""

import torch
import torch.nn.functional as F
from torch import nn

_MIT_DIMS = (64, 128, 320, 512)
_MIT_HEADS = (1, 2, 5, 8)
_MIT_REDUCTION = (8, 4, 2, 1)
_SWIN_DIM, _SWIN_DEPTHS, _SWIN_HEADS = 96, (2, 2, 6, 2), (3, 6, 12, 24)
_WINDOW, _SHIFT = 7, 3
_MASKED = -100.0  # added to logits between regions that only the cyclic shift made neighbours
_FEATURES = 256  # embedding width of the decoders


def to_map(tokens, size):
    """[B, H·W, C] -> [B, C, H, W]."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


def to_tokens(x):
    """[B, C, H, W] -> [B, H·W, C]."""
    return x.flatten(2).transpose(1, 2)


def heads_first(x, heads):
    """[B, N, C] -> [B, heads, N, C / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def written_out(q, k, v, attn_mask=None):
    """Attention [B, heads, N, C], its matrix in memory."""
    logits = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    return (logits if attn_mask is None else logits + attn_mask).softmax(dim=-1) @ v


_attention = written_out


def use_fused_attention():
    """From now on attention is PyTorch's own kernel, in every network of the process."""
    global _attention
    _attention = F.scaled_dot_product_attention


class DropPath(nn.Module):
    """Stochastic depth: one coin per sample."""

    def __init__(self, rate):
        super().__init__()
        self.keep = 1.0 - rate

    def forward(self, x):
        if not self.training or self.keep == 1.0:
            return x
        coin = x.new_empty((len(x), *[1] * (x.ndim - 1))).bernoulli_(self.keep)
        return x * coin / self.keep


class MiTAttention(nn.Module):
    """Self-attention whose keys and values come from a map reduced `reduction` times per side."""

    def __init__(self, dim, heads, reduction):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim)

    def forward(self, x, size):
        reduced = x
        if self.reduction > 1:
            reduced = self.norm(to_tokens(self.sr(to_map(x, size))))
        k, v = (heads_first(t, self.heads) for t in self.kv(reduced).chunk(2, dim=-1))
        y = _attention(heads_first(self.q(x), self.heads), k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class Depthwise(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x, size):
        return to_tokens(self.dwconv(to_map(x, size)))


class MixFFN(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(dim, 4 * dim), Depthwise(4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x, size):
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), size)))


class MiTBlock(nn.Module):
    def __init__(self, dim, heads, reduction, drop_path):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), MiTAttention(dim, heads, reduction)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), MixFFN(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x, size):
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x), size))


class OverlapPatchEmbed(nn.Module):
    def __init__(self, inputs, dim, kernel, stride):
        super().__init__()
        self.proj = nn.Conv2d(inputs, dim, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        x = self.proj(x)
        return self.norm(to_tokens(x)), x.shape[2:]


class MiT(nn.Module):
    """MiT-b1: [B, 3, H, W] -> four maps at strides 4, 8, 16, 32."""

    dims = _MIT_DIMS

    def __init__(self, drop_path):
        super().__init__()
        rates = torch.linspace(0, drop_path, 8).tolist()
        for i, dim in enumerate(_MIT_DIMS):
            inputs, kernel, stride = (3, 7, 4) if i == 0 else (_MIT_DIMS[i - 1], 3, 2)
            setattr(self, f"patch_embed{i + 1}", OverlapPatchEmbed(inputs, dim, kernel, stride))
            setattr(self, f"block{i + 1}", nn.ModuleList(
                MiTBlock(dim, _MIT_HEADS[i], _MIT_REDUCTION[i], rates.pop(0)) for _ in range(2)))
            setattr(self, f"norm{i + 1}", nn.LayerNorm(dim, eps=1e-6))

    def forward(self, x):
        features = []
        for i in range(1, 5):
            tokens, size = getattr(self, f"patch_embed{i}")(x)
            for block in getattr(self, f"block{i}"):
                tokens = block(tokens, size)
            x = to_map(getattr(self, f"norm{i}")(tokens), size)
            features.append(x)
        return features


class WindowAttention(nn.Module):
    """Attention inside windows [B·windows, 49, C] with a learnt bias per relative position."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * _WINDOW - 1) ** 2, heads))
        row, col = torch.arange(_WINDOW**2) // _WINDOW, torch.arange(_WINDOW**2) % _WINDOW
        index = (row[:, None] - row + _WINDOW - 1) * (2 * _WINDOW - 1) + col[:, None] - col + _WINDOW - 1
        self.register_buffer("relative_position_index", index)

    def forward(self, x, mask):
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if mask is not None:  # [windows, 49, 49]; the windows of an image follow each other
            bias = (bias + mask[:, None]).repeat(len(x) // len(mask), 1, 1, 1)
        q, k, v = (heads_first(t, self.heads) for t in self.qkv(x).chunk(3, dim=-1))
        y = _attention(q, k, v, attn_mask=bias.to(q.dtype).expand(len(x), -1, -1, -1))
        return self.proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


def shift_mask(height, width, device):
    """Logit offsets of shifted windows [windows, 49, 49]; height and width are the padded ones."""
    def bands(side):
        place = torch.arange(side, device=device)
        return (place >= side - _WINDOW).long() + (place >= side - _SHIFT).long()

    region = to_windows((3 * bands(height)[:, None] + bands(width))[None, ..., None])[..., 0]
    return (region[:, :, None] != region[:, None, :]) * _MASKED


def to_windows(x):
    """[B, H, W, C] -> [B·windows, 49, C]."""
    x = x.unflatten(2, (-1, _WINDOW)).unflatten(1, (-1, _WINDOW))
    return x.transpose(2, 3).reshape(-1, _WINDOW**2, x.shape[-1])


def from_windows(x, height, width):
    """Inverse of `to_windows`."""
    x = x.reshape(-1, height // _WINDOW, width // _WINDOW, _WINDOW, _WINDOW, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, x.shape[-1])


class SwinBlock(nn.Module):
    """On maps [B, H, W, C]; padded after the norm, shifted windows even on small maps (authors' code)."""

    def __init__(self, dim, heads, shift, drop_path):
        super().__init__()
        self.shift = shift
        self.norm1, self.attn = nn.LayerNorm(dim), WindowAttention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), MLP(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        height, width = x.shape[1:3]
        y = F.pad(self.norm1(x), (0, 0, 0, -width % _WINDOW, 0, -height % _WINDOW))
        padded, mask = y.shape[1:3], None
        if self.shift:
            y, mask = y.roll((-self.shift, -self.shift), (1, 2)), shift_mask(*padded, x.device)
        y = from_windows(self.attn(to_windows(y), mask), *padded)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + self.drop_path(y[:, :height, :width])
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


class SwinStage(nn.Module):
    def __init__(self, dim, heads, rates, merge):
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, _SHIFT * (i % 2), rate) for i, rate in enumerate(rates))
        if merge:
            self.downsample = PatchMerging(dim)


class PatchEmbed(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, dim, 4, stride=4), nn.LayerNorm(dim)

    def forward(self, x):
        x = self.proj(F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)))
        return self.norm(x.permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Swin-T: [B, 3, H, W] -> the raw output of each stage, four maps at strides 4, 8, 16, 32."""

    dims = tuple(_SWIN_DIM * 2**i for i in range(4))

    def __init__(self, drop_path):
        super().__init__()
        rates = torch.linspace(0, drop_path, sum(_SWIN_DEPTHS)).split(_SWIN_DEPTHS)
        self.patch_embed = PatchEmbed(_SWIN_DIM)
        self.layers = nn.ModuleList(SwinStage(dim, heads, r.tolist(), merge=i < 3) for i, (dim, heads, r) in
                                    enumerate(zip(self.dims, _SWIN_HEADS, rates, strict=True)))

    def forward(self, x):
        x, features = self.patch_embed(x), []
        for stage in self.layers:
            for block in stage.blocks:
                x = block(x)
            features.append(x.permute(0, 3, 1, 2))
            if hasattr(stage, "downsample"):
                x = stage.downsample(x)
        return features


class Projection(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Linear(dim, _FEATURES)

    def forward(self, x):
        return to_map(self.proj(to_tokens(x)), x.shape[2:])


class Fuse(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4 * _FEATURES, _FEATURES, 1, bias=False)
        self.bn = nn.BatchNorm2d(_FEATURES)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class SegFormerHead(nn.Module):
    def __init__(self, dims):
        super().__init__()
        for i, dim in enumerate(dims, 1):
            setattr(self, f"linear_c{i}", Projection(dim))
        self.linear_fuse, self.linear_pred = Fuse(), nn.Conv2d(_FEATURES, 1, 1)

    def project(self, features):
        return [getattr(self, f"linear_c{i}")(x) for i, x in enumerate(features, 1)]

    def fuse(self, maps):
        size = maps[0].shape[2:]
        resized = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in maps[:0:-1]]
        return self.linear_pred(self.linear_fuse(torch.cat([*resized, maps[0]], dim=1)))


class DepthAwareHead(nn.Module):
    """A decoder for depth, one for the mask, and the `alpha+beta` modulation of the second by the first."""

    def __init__(self, dims):
        super().__init__()
        self.depth_head, self.vos_head = SegFormerHead(dims), SegFormerHead(dims)
        for i in range(1, 5):
            setattr(self, f"shared{i}", nn.Sequential(nn.Conv2d(2 * _FEATURES, _FEATURES, 1), nn.ReLU()))
            setattr(self, f"alpha{i}", nn.Conv2d(_FEATURES, _FEATURES, 1))
            setattr(self, f"beta{i}", nn.Conv2d(_FEATURES, _FEATURES, 1))

    def forward(self, image_features, fused):
        depth, mask = self.depth_head.project(image_features), self.vos_head.project(fused)
        modulated = []
        for i, (d, v) in enumerate(zip(depth, mask, strict=True), 1):
            shared = getattr(self, f"shared{i}")(torch.cat([d, v], dim=1))
            modulated.append(getattr(self, f"alpha{i}")(shared) * v + getattr(self, f"beta{i}")(shared))
        return self.vos_head.fuse(modulated), self.depth_head.fuse(depth)


class DATTT(nn.Module):
    """The whole network; `backbone` is 'mit_b1' or 'swin_t', `drop_path` None for its published rate."""

    def __init__(self, backbone, drop_path=None):
        super().__init__()
        encoder, published = {"mit_b1": (MiT, 0.1), "swin_t": (Swin, 0.2)}[backbone]
        rate = published if drop_path is None else drop_path
        self.encoder_image, self.encoder_flow = encoder(rate), encoder(rate)
        self.decode_head = DepthAwareHead(encoder.dims)

    def forward(self, image, flow):
        """Normalised [B, 3, H, W] twice -> (mask, depth) logits [B, 1, H / 4, W / 4]."""
        image_features = self.encoder_image(image)
        fused = [v + f for v, f in zip(image_features, self.encoder_flow(flow), strict=True)]
        return self.decode_head(image_features, fused)

    def depth(self, image):
        """Depth logits [B, 1, H / 4, W / 4] of normalised images [B, 3, H, W]."""
        head = self.decode_head.depth_head
        return head.fuse(head.project(self.encoder_image(image)))


def load_numpy(model, state_dict):
    """Loads {name: array}; entries that are missing there must be buffers computed from sizes."""
    tensors = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    wrong = [name for name in missing if not name.endswith("relative_position_index")] + unexpected
    if wrong:
        raise ValueError(f"missing or unexpected entries: {', '.join(wrong)}")
