"""The two-stream DATTT network (CVPR 2024, section 3.1)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dattt_jax.models.auxiliary import ReconstructionHead, RotationHead
from dattt_jax.models.decoder import SegFormerHead
from dattt_jax.models.mit import MIT_SIZES, MixTransformer
from dattt_jax.models.modulation import DepthAwareHead
from dattt_jax.models.swin import SWIN_T, SwinTransformer

Array = jax.Array
Dtype = Any
Features = tuple[Array, Array, Array, Array]

BACKBONES = (*MIT_SIZES, "swin_t")
_HEAD_METHODS = {"rotation": "rotation_logits", "reconstruction": "reconstruct"}


class DATTT(nn.Module):
    """Image encoder and flow encoder, summed per scale, and one or two SegFormer decoders.

    Attributes:
        backbone: one of `BACKBONES`; both encoders have this architecture and weights of their own.
        depth: with the depth decoder; without it the network is the paper's Baseline.
        modulation: how depth changes the mask branch, see `models.modulation`; unused without depth.
        decoder_features: embedding width of the decoders (256 in the paper, both backbones).
        drop_path: stochastic depth of the last block; None takes the backbone's published rate
            (MiT 0.1, Swin 0.2).
        remat: recompute each encoder block in the backward pass (less memory, more time).
        axis_name: pmap axis over which BatchNorm statistics are synchronised; None keeps them per device.
        dtype: compute type of the layers. Parameters, normalisation statistics, softmax and logits are
            float32 whatever it is.
        heads: auxiliary heads on the image features, of `models.auxiliary.HEADS`; without them the network
            has the paper's variables and no others.

    Random streams: `params`, and `drop_path` when `train` is true and the rate is not 0.
    """

    backbone: str = "mit_b1"
    depth: bool = True
    modulation: str = "alpha+beta"
    decoder_features: int = 256
    drop_path: float | None = None
    remat: bool = False
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    heads: tuple[str, ...] = ()

    def setup(self) -> None:
        """Creates the layers."""
        shared = {"remat": self.remat, "dtype": self.dtype}
        if self.drop_path is not None:
            shared["drop_path"] = self.drop_path
        if self.backbone == "swin_t":
            self.encoder_image = SwinTransformer(**SWIN_T, **shared)
            self.encoder_flow = SwinTransformer(**SWIN_T, **shared)
            channels = tuple(SWIN_T["dim"] * 2**i for i in range(4))
        else:
            sizes = MIT_SIZES[self.backbone]
            self.encoder_image = MixTransformer(sizes.dims, sizes.depths, **shared)
            self.encoder_flow = MixTransformer(sizes.dims, sizes.depths, **shared)
            channels = sizes.dims
        head = {"in_features": channels, "features": self.decoder_features,
                "axis_name": self.axis_name, "dtype": self.dtype}
        if self.depth:
            self.decode_head = DepthAwareHead(modulation=self.modulation, **head)
        else:
            self.decode_head = SegFormerHead(**head)
        if "rotation" in self.heads:
            self.rotation_head = RotationHead(channels[-1], dtype=self.dtype)
        if "reconstruction" in self.heads:
            self.reconstruction_head = ReconstructionHead(channels, dtype=self.dtype)

    def encode_image(self, image: Array, *, train: bool = False) -> Features:
        """Features of a normalised frame [B, H, W, 3]: four maps at strides 4, 8, 16, 32."""
        return self.encoder_image(image, train=train)

    def encode_flow(self, flow: Array, *, train: bool = False) -> Features:
        """Features of a normalised flow rendering [B, H, W, 3]: four maps at strides 4, 8, 16, 32."""
        return self.encoder_flow(flow, train=train)

    def fuse_depth(self, image_features: Features) -> Array:
        """What the depth is predicted from, image by image: [B, H/4, W/4, decoder_features]."""
        return self.decode_head.fuse_depth(image_features)

    def fuse_mask(self, image_features: Features, flow_features: Features) -> Array:
        """What the mask is predicted from, image by image: [B, H/4, W/4, decoder_features]."""
        fused = tuple(v + f for v, f in zip(image_features, flow_features, strict=True))
        if not self.depth:
            return self.decode_head.fuse_features(fused)
        return self.decode_head.fuse_mask(image_features, fused)

    def predict_depth(self, fused: Array, *, train: bool = False) -> Array:
        """Depth logits [B, H/4, W/4, 1]; sigmoid gives relative inverse depth, near = 1."""
        return self.decode_head.predict_depth(fused, train=train)

    def predict_mask(self, fused: Array, *, train: bool = False) -> Array:
        """Mask logits [B, H/4, W/4, 1]; sigmoid gives the probability of the primary moving object."""
        return (self.decode_head.predict_mask if self.depth else self.decode_head.predict)(fused, train=train)

    def depth_logits(self, image_features: Features, *, train: bool = False) -> Array:
        """`predict_depth` of `fuse_depth`."""
        return self.predict_depth(self.fuse_depth(image_features), train=train)

    def mask_logits(self, image_features: Features, flow_features: Features, *,
                    train: bool = False) -> Array:
        """`predict_mask` of `fuse_mask`."""
        return self.predict_mask(self.fuse_mask(image_features, flow_features), train=train)

    def rotation_logits(self, image_features: Features) -> Array:
        """Logits [B, 4] of the image's rotation; needs the head `rotation`."""
        return self.rotation_head(image_features)

    def reconstruct(self, image_features: Features) -> Array:
        """Normalised pixels [B, 4·h_1, 4·w_1, 3] of the image; needs the head `reconstruction`."""
        return self.reconstruction_head(image_features)

    def fuse(self, image_features: Features, flow_features: Features) -> dict[str, Array]:
        """All that is done image by image: {'mask': of `fuse_mask`, 'depth': of `fuse_depth`}.

        No 'depth' without the depth decoder.
        """
        fused = {"mask": self.fuse_mask(image_features, flow_features)}
        return fused | {"depth": self.fuse_depth(image_features)} if self.depth else fused

    def predict(self, fused: dict[str, Array], *, train: bool = False) -> dict[str, Array]:
        """{'mask': logits, 'depth': logits} of what `fuse` gave: where BatchNorm sees the batch."""
        outputs = {"mask": self.predict_mask(fused["mask"], train=train)}
        if self.depth:
            outputs["depth"] = self.predict_depth(fused["depth"], train=train)
        return outputs

    def __call__(self, image: Array, flow: Array, train: bool = False) -> dict[str, Array]:
        """Predicts the mask, and the depth where the network has a depth decoder.

        Args:
            image: frames [B, H, W, 3], normalised by `image_ops.normalize`.
            flow: flow renderings [B, H, W, 3], normalised the same way.
            train: drop-path on, BatchNorm with batch statistics (make `batch_stats` mutable to keep them).

        Returns:
            {'mask': logits, 'depth': logits}, each float32 [B, ceil(H/4), ceil(W/4), 1]; no 'depth' key
            without the depth decoder.
        """
        image_features = self.encode_image(image, train=train)
        if self.is_initializing():  # heads predict nothing here, but their variables are made here
            for predict in [getattr(self, _HEAD_METHODS[name]) for name in self.heads]:
                predict(image_features)
        return self.predict(self.fuse(image_features, self.encode_flow(flow, train=train)), train=train)
