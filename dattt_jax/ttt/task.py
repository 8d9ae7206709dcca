"""DATTT as the objectives see it: what an objective may ask of the network, and the problem around it."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from dattt_jax import guided, pretext
from dattt_jax.augment import apply_photometric, draw_photometric, ttt_views
from dattt_jax.errors import UserError
from dattt_jax.forward import (
    UPSAMPLINGS,
    depth_of_views,
    encode_flow,
    merge_looks,
    predict_probability,
    prepare,
    repeat,
    upsample,
)
from dattt_jax.framing import Buckets, Framing
from dattt_jax.image_ops import normalize
from dattt_jax.models import DATTT
from dattt_jax.models.dattt import Features
from dattt_jax.models.layers import BatchNorm
from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables
from dattt_jax.ttt.steps import Problem

Size = tuple[int, int]

_LEAST = 1e-4  # probability, where a logit is taken of it


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, and frames {'image': uint8 [H, W, 3], 'flow': uint8 [H, W, 3]}. All methods are traced.

    A frame may also have several flows, [N, H, W, 3]: its logits are made of theirs by `forward.merge_looks`.

    Frames that come through the engine are padded and have a 'framing', see `dattt_jax.framing`; ask here for
    what is made of them. Without it a frame is as large as its arrays.

    Attributes:
        model: the network.
        input_size: (height, width) of crops and of the network's input.
        batch_size: crops per step.
        bn_prior: N of BN adaptation.
        upsampling: of the mask, see `forward.predict_probability`.
        look: flows of one look, see `forward.merge_looks`.
    """

    model: DATTT
    input_size: Size
    batch_size: int
    bn_prior: float = 16.0
    upsampling: str = "bilinear"
    look: int = 0

    def __post_init__(self) -> None:
        """Raises a UserError where there is no such upsampling."""
        if self.upsampling not in UPSAMPLINGS:
            raise UserError(f"config.upsampling={self.upsampling!r} is not one of {', '.join(UPSAMPLINGS)}")

    def views(self, key: Array, frame: Frame) -> Array:
        """Two photometric views of the same crops, normalised: [2, B, h, w, 3]."""
        framing = _framing(frame)
        return normalize(ttt_views(key, frame["image"], self.batch_size, self.input_size,
                                   framing and framing.size))

    def crops(self, key: Array, frame: Frame) -> Array:
        """One view of B crops: [B, h, w, 3]."""
        return self.views(key, frame)[0]

    def depth_logits(self, variables: Variables, views: Array, key: Array) -> Array:
        """Depth logits of both views in training mode, see `forward.depth_of_views`."""
        return depth_of_views(self.model, variables, views, key)

    def rotation_logits(self, variables: Variables, images: Array) -> Array:
        """Logits [B, 4] of normalised images [B, s, s, 3], in evaluation mode."""
        return pretext.rotation_logits(self.model, variables, images)

    def reconstruct(self, variables: Variables, images: Array) -> Array:
        """Pixels [B, h, w, 3] of images with hidden parts, in evaluation mode."""
        return pretext.reconstruct(self.model, variables, images)

    def view(self, frame: Frame, key: Array) -> Frame:
        """The frame with its colours disturbed, every pixel in its place."""
        image = frame["image"][None]
        return frame | {"image": apply_photometric(image, draw_photometric(key, 1, hue=False))[0]}

    def mask_logits(self, variables: Variables, frame: Frame) -> Array:
        """Mask logits [N, h/4, w/4, 1] of the plain frame's N flows, in evaluation mode."""
        return self.model.apply(variables, *self._features(variables, frame), method=self.model.mask_logits)

    def merged(self, logits: Array) -> Array:
        """Mask logits [h/4, w/4, 1] of a frame from those of its N flows, [N, h/4, w/4, 1]."""
        return merge_looks(logits, self.look)

    def refined(self, frame: Frame, logits: Array) -> Array:
        """Mask logits [h/4, w/4, 1] of the frame with its own edges, where masks are upsampled so."""
        if self.upsampling != "guided":
            return logits
        image = prepare(frame["image"][None], self.input_size, _framing(frame))
        probability = guided.refine(image, jax.nn.sigmoid(logits[None, ..., 0]))[0, ..., None]
        return jax.scipy.special.logit(jnp.clip(probability, _LEAST, 1 - _LEAST))

    def upsampled(self, frame: Frame, logits: Array) -> Array:
        """Probability [H, W] of mask logits [h/4, w/4] of the frame, whose flow is not needed."""
        image = frame["image"][None]
        network_input = prepare(image, self.input_size, _framing(frame))
        return upsample(logits[None, ..., None], image, network_input, _framing(frame),
                        upsampling=self.upsampling)[0]

    def train_mode_mask_logits(self, variables: Variables, frame: Frame) -> Array:
        """Mask logits [N, h/4, w/4, 1] of the plain frame's N flows, BatchNorm with their own statistics."""
        return self.model.apply(variables, *self._features(variables, frame), train=True,
                                method=self.model.mask_logits)

    def statistics(self, variables: Variables, frame: Frame) -> dict[Path, Array]:
        """Mean and unbiased variance of the plain frame at the BatchNorm layer of the mask decoder."""
        features = self._features(variables, frame)
        # Running statistics that start at zero hold (1 - momentum) · the frame's after one update.
        zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
        _, updated = self.model.apply({**variables, "batch_stats": zeros}, *features, train=True,
                                      method=self.model.mask_logits, mutable=["batch_stats"])
        return {path: value / (1 - BatchNorm.momentum)
                for path, value in traverse_util.flatten_dict(dict(updated)).items()
                if self.is_mask_statistic(path)}

    def biased_statistics(self, variables: Variables, frame: Frame) -> dict[Path, Array]:
        """The same with the biased variance, by which a layer in training mode normalises."""
        count = self.positions * (frame["flow"].size // frame["image"].size)
        biased = (count - 1) / count
        return {path: value * biased if path[-1] == "var" else value
                for path, value in self.statistics(variables, frame).items()}

    @property
    def positions(self) -> int:
        """Values per channel that a frame with one flow has at the BatchNorm layers: places at stride 4."""
        return -(-self.input_size[0] // 4) * -(-self.input_size[1] // 4)

    def is_mask_statistic(self, path: Path) -> bool:
        """Statistics that the mask depends on; the depth decoder's are never read by it."""
        return path[0] == "batch_stats" and "depth_head" not in path

    def _features(self, variables: Variables, frame: Frame) -> tuple[Features, Features]:
        image = prepare(frame["image"][None], self.input_size, _framing(frame))
        flow_features = self._flow_features(variables, frame)
        image_features = self.model.apply(variables, image, method=self.model.encode_image)
        return repeat(image_features, flow_features[0].shape[0]), flow_features

    def _flow_features(self, variables: Variables, frame: Frame) -> Features:
        flow = frame["flow"].reshape(-1, *frame["flow"].shape[-3:])
        return encode_flow(self.model, variables, flow, self.input_size, _framing(frame))

    def problem(self, objective: Objective, learning_rate: float,
                trainable: Callable[[Path], bool] | None = None) -> Problem:
        """Adapting this network with Adam without weight decay; `trainable` as of `Problem`."""
        def predict(variables: Variables, frame: Frame, flow_features: Features) -> Array:
            return predict_probability(self.model, variables, frame["image"][None], flow_features,
                                       self.input_size, _framing(frame), upsampling=self.upsampling,
                                       look=self.look)[0]

        return Problem(objective=objective, context=self._flow_features, predict=predict,
                       optimizer=optax.adam(learning_rate), trainable=trainable, view=self.view,
                       pack=Buckets(self.input_size).pack)

    def check_heads(self, objective: Objective, name: str) -> None:
        """Raises a UserError where the objective needs a part that the network has not.

        Args:
            objective: what will be minimised.
            name: `config.ttt.objective`, for the error.
        """
        if "depth" in objective.heads and not self.model.depth:
            raise UserError(f"test-time training with config.ttt.objective={name!r} needs the depth decoder, "
                            "which this network has not (config.model.depth=False): use another objective or "
                            "the strategy base")
        for head in objective.heads:
            if head != "depth" and head not in self.model.heads:
                raise UserError(f"config.ttt.objective={name!r} needs the head {head!r}, which this network "
                                f"has not: train one with --config.model.heads=\"('{head}',)\"")


def _framing(frame: Frame) -> Framing | None:
    return frame.get("framing")
