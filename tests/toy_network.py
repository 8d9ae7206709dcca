"""A network of a dozen numbers with every kind of variable an objective may train, and objectives on it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from dattt_jax.ttt.objectives.batch_norm import BatchNormAdaptation
from dattt_jax.ttt.objectives.depth_consistency import DepthConsistency
from dattt_jax.ttt.objectives.filters import affine_of
from dattt_jax.ttt.objectives.masked_reconstruction import MaskedReconstruction
from dattt_jax.ttt.objectives.rotation import Rotation
from dattt_jax.ttt.objectives.self_training import SelfTraining
from dattt_jax.ttt.objectives.sum import Sum
from dattt_jax.ttt.objectives.tent import Tent

SIZE = 64  # four blocks of masked reconstruction
EPSILON = 1e-5
ENCODER = {("params", "encoder_image", "w"), ("params", "encoder_image", "norm1", "scale"),
           ("params", "encoder_image", "norm1", "bias")}
BN = {("params", "head", "bn", "scale"), ("params", "head", "bn", "bias")}
LN = {("params", "encoder_image", "norm1", "scale"), ("params", "encoder_image", "norm1", "bias"),
      ("params", "encoder_flow", "norm1", "scale")}
VARIABLES = {
    "params": {
        "encoder_image": {"w": np.float32([0.9, -0.5, 0.4]), "norm1": {"scale": np.float32(1.2),
                                                                       "bias": np.float32(0.1)}},
        "encoder_flow": {"w": np.float32(0.3), "norm1": {"scale": np.float32(0.8)}},
        "head": {"bn": {"scale": np.float32([1.5]), "bias": np.float32([-0.2])},
                 "depth": np.float32(0.7), "rotation": np.float32([0.5, -0.5, 0.2, 0.1]),
                 "pixels": np.float32([1.0, 0.5, 0.2])},
    },
    "batch_stats": {"head": {"bn": {"mean": np.float32([0.3]), "var": np.float32([2.0])}}},
}


def encode(variables, image):
    """[..., 3] -> [...]."""
    encoder = variables["params"]["encoder_image"]
    return image @ encoder["w"] * encoder["norm1"]["scale"] + encoder["norm1"]["bias"]


def fused(variables, frame):
    flow = variables["params"]["encoder_flow"]
    return encode(variables, frame["image"]) + flow["w"] * flow["norm1"]["scale"]


def normalised(variables, x, mean, var):
    bn = variables["params"]["head"]["bn"]
    return (x - mean) * jax.lax.rsqrt(var + EPSILON) * bn["scale"][0] + bn["bias"][0]


def train_mode_logits(variables, frame):
    x = fused(variables, frame)
    return normalised(variables, x, jnp.mean(x), jnp.var(x))


def logits(variables, frame):
    bn = variables["batch_stats"]["head"]["bn"]
    return normalised(variables, fused(variables, frame), bn["mean"][0], bn["var"][0])


def predict(variables, frame, context):
    return jax.nn.sigmoid(logits(variables, frame))


def statistics(variables, frame, ddof=1):
    x = fused(variables, frame)
    return {("batch_stats", "head", "bn", "mean"): jnp.mean(x)[None],
            ("batch_stats", "head", "bn", "var"): jnp.var(x, ddof=ddof)[None]}


def disturb(key, frame):
    return frame | {"image": frame["image"] + 0.1 * jax.random.normal(key, frame["image"].shape)}


def crops(key, frame):
    image = frame["image"]
    return jnp.stack([image, image[::-1]]) + 0.01 * jax.random.normal(key, (2, *image.shape))


def rotation_logits(variables, images):
    """Depends on the place of brightness, or no rotation could be told from another."""
    place = jnp.linspace(-1, 1, SIZE)
    maps = encode(variables, images)
    moments = jnp.stack([jnp.mean(maps * place, (1, 2)), jnp.mean(maps, (1, 2)),
                         jnp.mean(maps * place[:, None], (1, 2)), jnp.zeros(len(maps))], axis=-1)
    return moments * variables["params"]["head"]["rotation"]


def reconstruct(variables, images):
    """Hidden pixels are told from the mean of the others."""
    maps = encode(variables, images)
    maps = maps + jnp.mean(maps, axis=(1, 2), keepdims=True)
    return maps[..., None] * variables["params"]["head"]["pixels"]


def objectives():
    """{name: (objective, the variables it trains)}, one of each."""
    depth = DepthConsistency(lambda key, frame: jnp.stack([crops(key, frame), 0.8 * crops(key, frame)]),
                             lambda v, views, key: encode(v, views) * v["params"]["head"]["depth"])
    tent = Tent(train_mode_logits, lambda v, f: statistics(v, f, ddof=0), affine_of("bn"))
    bn = BatchNormAdaptation(statistics, SIZE * SIZE, prior=2.0)
    return {
        "depth": (depth, ENCODER), "tent_bn": (tent, BN),
        "tent_bn_ln": (Tent(tent.logits, tent.statistics, affine_of("bn", "norm")), BN | LN),
        "bn": (bn, set()), "rotation": (Rotation(crops, rotation_logits), ENCODER),
        "self_training": (SelfTraining(lambda v, f: logits(v, f)[None], disturb), ENCODER),
        "mae": (MaskedReconstruction(crops, reconstruct), ENCODER),
        "depth+tent_bn+bn": (Sum((depth, tent, bn), (1.0, 0.1, 1.0)), ENCODER | BN),
    }


class Video:
    def __init__(self, length, seed=0):
        self.images = np.random.default_rng(seed).normal(1.0, 0.7, (length, SIZE, SIZE, 3)).astype(np.float32)

    def __len__(self):
        return len(self.images)

    def read(self, indices):
        return {"image": self.images[indices]}


def flat(variables):
    return traverse_util.flatten_dict(variables)
