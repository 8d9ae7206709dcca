"""DATTT's forward passes as plain functions: uint8 frames in, features, probabilities and depth out."""

import jax
import jax.numpy as jnp

from dattt_jax import guided
from dattt_jax.framing import OUTSIDE, Framing
from dattt_jax.image_ops import normalize, resize_bilinear
from dattt_jax.models import DATTT
from dattt_jax.models.dattt import Features
from dattt_jax.models.encode import encode_image, images_per_call
from dattt_jax.variables import Variables

Array = jax.Array
Size = tuple[int, int]

UPSAMPLINGS = ("bilinear", "guided")  # of the mask to the frame
_LEAST_OBJECT = 1e-12  # probability in all, where a map has none


def prepare(image: Array, input_size: Size, framing: Framing | None = None) -> Array:
    """Network input from frames or flow renderings: uint8 [B, H, W, 3] -> normalised float32 [B, h, w, 3].

    Bilinear without antialiasing, as in the authors' evaluation and TTT (not their training).

    Args:
        image: the frames.
        input_size: (h, w).
        framing: where the frames are in `image`, if they are padded.
    """
    image = image.astype(jnp.float32)
    return normalize(framing.resize_to_input(image) if framing else resize_bilinear(image, input_size))


def encode_flow(model: DATTT, variables: Variables, flow: Array, input_size: Size,
                framing: Framing | None = None) -> Features:
    """Flow features of renderings uint8 [B, H, W, 3], in evaluation mode; arguments as of `prepare`."""
    return model.apply(variables, prepare(flow, input_size, framing), method=model.encode_flow)


def predict_probability(model: DATTT, variables: Variables, image: Array, flow_features: Features,
                        input_size: Size, framing: Framing | None = None, *,
                        upsampling: str = "bilinear", look: int = 0) -> Array:
    """Probability of the primary moving object at the frames' own size, in evaluation mode.

    Args:
        model: the network.
        variables: its variables.
        image: frames uint8 [B, H, W, 3].
        flow_features: what `encode_flow` gave for the same frames, one flow each or several in a row, see
            `merge_looks`.
        input_size: (height, width) the network sees.
        framing: where the frames are in `image`, if they are padded.
        upsampling: one of `UPSAMPLINGS`: bilinear, of the logits, then the sigmoid (authors' code); or
            guided, of the sigmoid, by the frames' colours (`dattt_jax.guided`).
        look: flows of one look, see `merge_looks`.

    Returns:
        float32 [B, H, W]; `OUTSIDE` where there is padding.
    """
    network_input = prepare(image, input_size, framing)
    image_features = model.apply(variables, network_input, method=model.encode_image)
    flows = flow_features[0].shape[0] // image.shape[0]
    logits = model.apply(variables, repeat(image_features, flows), flow_features, method=model.mask_logits)
    logits = jax.vmap(lambda maps: merge_looks(maps, look))(logits.reshape(-1, flows, *logits.shape[1:]))
    return upsample(logits, image, network_input, framing, upsampling=upsampling)


def merge_looks(logits: Array, look: int) -> Array:
    """One map of logits from those of a frame's flows, which may be of several looks at the same motion.

    What one look takes for the background is background: an object moves by itself (`dattt_jax.parallax`).

    Args:
        logits: float [N, ...], one map per flow, those of a look in a row.
        look: how many flows make one look; 0, or as many as there are or more, for a single look.

    Returns:
        float [...], the least of what `merge_flows` makes of each look.
    """
    looks = max(len(logits) // look, 1) if look else 1
    return jnp.min(jax.vmap(merge_flows)(logits.reshape(looks, -1, *logits.shape[1:])), axis=0)


def merge_flows(logits: Array) -> Array:
    """One map of logits from those of a frame's several flows: their mean, the sure ones counting more.

    Where a pair of frames shows little motion, or too much for its flow to be found, the network is less
    sure of all that it takes for the object. A map counts with the fourth power of how sure it is there,
    Σ p · |2p - 1| / Σ p over its probabilities p. One map stays as it is. Not in the paper, which has one.

    Args:
        logits: float [N, ...], one map per flow.

    Returns:
        float [...].
    """
    probability = jax.nn.sigmoid(logits.astype(jnp.float32))
    places = tuple(range(1, logits.ndim))
    sure, size = (jnp.sum(x, axis=places, keepdims=True) + _LEAST_OBJECT
                  for x in (probability * jnp.abs(2 * probability - 1), probability))
    sure /= size
    count = (sure / jnp.max(sure)) ** 4
    return jnp.sum(count / jnp.sum(count) * logits, axis=0)


def upsample(logits: Array, image: Array, network_input: Array, framing: Framing | None = None, *,
             upsampling: str) -> Array:
    """Probability at the frames' own size from logits at the network's.

    Args:
        logits: float [B, h/4, w/4, 1].
        image: frames uint8 [B, H, W, 3].
        network_input: what `prepare` makes of them.
        framing: where the frames are in `image`, if they are padded.
        upsampling: one of `UPSAMPLINGS`.

    Returns:
        float32 [B, H, W]; `OUTSIDE` where there is padding.
    """
    def to_frame(maps: Array) -> Array:
        return framing.resize_to_frame(maps) if framing else resize_bilinear(maps, image.shape[1:3])

    if upsampling == "guided":
        functions = guided.linear_functions(network_input, jax.nn.sigmoid(logits[..., 0]))
        probability = guided.apply_functions(to_frame(functions), normalize(image))
    else:
        probability = jax.nn.sigmoid(to_frame(logits)[..., 0])
    return jnp.where(framing.inside(), probability, OUTSIDE) if framing else probability


def repeat(features: Features, count: int) -> Features:
    """Features of images [B, …], each for `count` flows in a row: [B · count, …]."""
    return tuple(jnp.repeat(f, count, axis=0) for f in features)


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
    features = encode_image(model, variables, views.reshape(-1, height, width, 3), train=True,
                            keys=jax.random.split(key, 2 * batch), at_once=images_per_call(height, width))
    per_view = [tuple(f[i * batch : (i + 1) * batch] for f in features) for i in range(2)]
    return jnp.stack([model.apply(variables, f, train=True, method=model.depth_logits)
                      for f in per_view])
