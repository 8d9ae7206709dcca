"""DATTT behind plain functions: uint8 frames in, probabilities out, and the problem the TTT engine adapts."""

import dataclasses
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dattt_jax.augment import ttt_views
from dattt_jax.checkpoints import load_variables
from dattt_jax.errors import UserError
from dattt_jax.image_ops import normalize, resize_bilinear
from dattt_jax.models import DATTT, create_model
from dattt_jax.models.dattt import Features
from dattt_jax.models.encode import encode, images_per_call
from dattt_jax.ttt import Engine, Problem
from dattt_jax.ttt.objectives import Array, Frame, Variables
from dattt_jax.ttt.objectives.depth_consistency import DepthConsistency

Size = tuple[int, int]

# Frames per dispatch where config.ttt.chunk is 0. On a CPU a frame is worth its own dispatch, so that its
# mask is there as soon as it is computed; an accelerator should not wait for the host.
_CHUNK_CPU, _CHUNK_ACCELERATOR = 1, 16


def prepare(image: Array, input_size: Size) -> Array:
    """Network input from frames or flow renderings: uint8 [B, H, W, 3] -> normalised float32 [B, h, w, 3].

    Bilinear without antialiasing, as in the authors' evaluation and TTT (not their training).
    """
    return normalize(resize_bilinear(image.astype(jnp.float32), input_size))


def encode_flow(model: DATTT, variables: Variables, flow: Array, input_size: Size) -> Features:
    """Flow features of renderings uint8 [B, H, W, 3], in evaluation mode."""
    return model.apply(variables, prepare(flow, input_size), method=model.encode_flow)


def predict_probability(model: DATTT, variables: Variables, image: Array, flow_features: Features,
                        input_size: Size) -> Array:
    """Probability of the primary moving object at the frames' own size, in evaluation mode.

    Args:
        model: the network.
        variables: its variables.
        image: frames uint8 [B, H, W, 3].
        flow_features: what `encode_flow` gave for the same frames.
        input_size: (height, width) the network sees.

    Returns:
        float32 [B, H, W]: the logits resized bilinearly to the frames' size, then the sigmoid.
    """
    image_features = model.apply(variables, prepare(image, input_size), method=model.encode_image)
    logits = model.apply(variables, image_features, flow_features, method=model.mask_logits)
    return jax.nn.sigmoid(resize_bilinear(logits, image.shape[1:3])[..., 0])


def depth_of_views(model: DATTT, variables: Variables, views: Array, key: Array) -> Array:
    """Depth logits of both views in training mode, as the TTT loss needs them.

    One encoding serves both views (drop-path draws are per image, so they stay independent); the decoder
    runs per view, so that its BatchNorm normalises with each view's own batch, as the authors' two forward
    passes do.

    Args:
        model: the network; it must have the depth decoder.
        variables: its variables; the running statistics stay as they are.
        views: normalised images [2, B, h, w, 3].
        key: PRNG key of the drop-path coins.

    Returns:
        float32 [2, B, h/4, w/4, 1].
    """
    batch, height, width = views.shape[1:4]
    features = encode(model, variables, views.reshape(-1, height, width, 3), method=model.encode_image,
                      train=True, keys=jax.random.split(key, 2 * batch),
                      at_once=images_per_call(height, width))
    per_view = [tuple(f[i * batch : (i + 1) * batch] for f in features) for i in range(2)]
    return jnp.stack([model.apply(variables, f, train=True, method=model.depth_logits)
                      for f in per_view])


def is_image_encoder(path: tuple[str, ...]) -> bool:
    """The paper's parameter filter: the image encoder and nothing else is trained at test time."""
    return path[:2] == ("params", "encoder_image")


def depth_ttt_problem(model: DATTT, *, input_size: Size, batch_size: int, learning_rate: float) -> Problem:
    """The paper's test-time training: depth consistency, Adam on the image encoder.

    Frames given to the engine are {'image': uint8 [H, W, 3], 'flow': uint8 [H, W, 3]}.

    Args:
        model: a network with the depth decoder.
        input_size: (height, width) of the crops and of the network's input.
        batch_size: crops per step.
        learning_rate: of Adam, without weight decay.
    """
    objective = DepthConsistency(
        views=lambda key, image: normalize(ttt_views(key, image, batch_size, input_size)),
        depth_logits=partial(depth_of_views, model),
    )

    def context(variables: Variables, frame: Frame) -> Features:
        return encode_flow(model, variables, frame["flow"][None], input_size)

    def predict(variables: Variables, frame: Frame, flow_features: Features) -> Array:
        return predict_probability(model, variables, frame["image"][None], flow_features, input_size)[0]

    return Problem(objective=objective, trainable=is_image_encoder, context=context, predict=predict,
                   optimizer=optax.adam(learning_rate))


def to_mask(probability: np.ndarray, frame_name: str) -> np.ndarray:
    """Mask from a probability map: object where 255 · p > 128, the authors' threshold.

    Args:
        probability: float [H, W].
        frame_name: for the error.

    Returns:
        bool [H, W].

    Raises:
        UserError: the map is not finite.
    """
    if not np.isfinite(probability).all():
        raise UserError(f"the prediction of frame {frame_name} is not finite: the weights in config.init are "
                        "damaged, or config.model.dtype is too narrow for them")
    return probability * 255 > 128


def loss_values(losses: np.ndarray) -> list[float | None]:
    """Losses for JSON: six digits, None where a step was skipped because its loss was not finite."""
    return [round(float(x), 6) if np.isfinite(x) else None for x in losses]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its weights, ready for videos."""

    model: DATTT
    variables: Variables
    input_size: Size

    def engine(self, ttt: ConfigDict, *, adapts: bool, per_step: bool = False) -> Engine:
        """The engine of `config.ttt` for this network.

        Args:
            ttt: `config.ttt`.
            adapts: False if it will only run the strategy `base`, which needs no depth decoder.
            per_step: see `Engine`.

        Raises:
            UserError: adaptation needs a depth decoder and the network has none.
        """
        if adapts and not self.model.depth:
            raise UserError("test-time training needs the depth decoder, which this network has not "
                            "(config.model.depth=False): use the strategy base")
        chunk = ttt.chunk or (_CHUNK_CPU if jax.default_backend() == "cpu" else _CHUNK_ACCELERATOR)
        problem = depth_ttt_problem(self.model, input_size=self.input_size, batch_size=ttt.batch_size,
                                    learning_rate=ttt.learning_rate)
        return Engine(problem, chunk=chunk, per_step=per_step)

    def seconds_per_prediction(self, frame: np.ndarray) -> float:
        """Times one frame's prediction without adaptation, flow features included; uint8 [H, W, 3]."""
        @jax.jit
        def predict(variables: Variables, image: Array) -> Array:
            features = encode_flow(self.model, variables, image, self.input_size)
            return predict_probability(self.model, variables, image, features, self.input_size)

        image = jnp.asarray(frame)[None]
        predict(self.variables, image).block_until_ready()
        start = time.perf_counter()
        predict(self.variables, image).block_until_ready()
        return time.perf_counter() - start


def load_network(config: ConfigDict) -> Network:
    """The network of `config.model` with the weights of `config.init`.

    Raises:
        UserError: no weights are named, or they are not there, damaged, or of another network.
    """
    model = create_model(config.model)
    if not config.init:
        raise UserError("config.init is empty: name a folder of weights made by --mode=train or "
                        "--mode=convert")
    variables = jax.tree.map(jnp.asarray, load_variables(config.init, config.model))
    return Network(model, variables, tuple(config.input_size))
