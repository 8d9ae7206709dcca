"""Lite-Mono and MonoDepth2 as depth methods: weights, sizes, and what the outputs mean."""

from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dattt_jax.errors import UserError
from dattt_jax.network_files import read_network
from input_pipeline.depth.networks import USUAL_SIZE, depth_network, depth_shapes

# The networks' outputs are shares of this range of inverse depth, between 1 / 100 and 1 / 0.1.
_FARTHEST, _NEAREST = 1 / 100, 1 / 0.1
# MonoDepth2's stereo training takes KITTI's distance between the cameras (0.54 m) as 0.1.
_STEREO_METRES = 5.4
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class NetworkDepth:
    """Depth by a network of `input_pipeline.depth.networks`, compiled once.

    A frame is resized to the size of the training images (Lanczos, as the authors do), and the inverse depth
    bilinearly back to the frame's.

    Args:
        network: see `depth_network`.
        variables: its weights.
        weights_digest: a hash of them.
        trained_at: (height, width) of the training images.
        stereo: whether it was trained with stereo pairs of KITTI, which makes its depth metric.
        dtype: compute type, "float32" (with products in full precision) or "bfloat16".
        flip: also run the mirrored frame and blend both, as the authors' post-processing does; twice the
            time.

    Attributes:
        identity: network, parameters and hash of the weights.
        kind: "metric" if trained with stereo pairs, else "inverse".

    Raises:
        UserError: a parameter is not one of those offered.
    """

    def __init__(self, network: str, variables: Any, weights_digest: str, *, trained_at: tuple[int, int],
                 stereo: bool, dtype: str, flip: bool) -> None:
        if dtype not in _DTYPES:
            raise UserError(f"config.depth.dtype={dtype!r}: use one of {', '.join(_DTYPES)}")
        self.kind = "metric" if stereo else "inverse"
        height, width = trained_at
        self.identity = (f"{network}(size={height}x{width}, dtype={dtype}, flip={flip}, "
                         f"weights={weights_digest})")
        self._size, self._stereo, self._flip = trained_at, stereo, flip
        self._variables = jax.device_put(variables)
        model = depth_network(network, trained_at, _DTYPES[dtype])
        precision = "highest" if dtype == "float32" else "default"

        def estimate(variables: Any, images: jax.Array) -> jax.Array:
            with jax.default_matmul_precision(precision):
                share = model.apply(variables, images.astype(jnp.float32) / 255)[0][..., 0]
            return _FARTHEST + (_NEAREST - _FARTHEST) * share

        self._estimate = jax.jit(estimate)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Computes the depth of a frame; see `DepthMethod`."""
        height, width = self._size
        image = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
        images = np.stack([image, image[:, ::-1]]) if self._flip else image[None]
        inverse = np.asarray(self._estimate(self._variables, images))
        inverse = blend_mirrored(inverse[0], inverse[1, :, ::-1]) if self._flip else inverse[0]
        inverse = resize_map(inverse, frame.shape[:2])
        return _STEREO_METRES / inverse if self._stereo else inverse


def resize_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a map: `[h, w]` float32 to `size` (height, width), bilinearly between pixel centres."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)


def blend_mirrored(plain: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Blends the maps of an image and of its mirror image (already mirrored back).

    At the left edge, where a plain map of a stereo-trained network is worst, the mirrored one is taken, at
    the right edge the plain one, between them the mean (Godard et al., CVPR 2017, section 3.4's
    post-processing).

    Args:
        plain: `[H, W]` float.
        mirrored: as `plain`.

    Returns:
        `[H, W]` of the inputs' type.
    """
    place = np.linspace(0, 1, plain.shape[1], dtype=plain.dtype)
    left = 1 - np.clip(20 * (place - 0.05), 0, 1).astype(plain.dtype)
    right = left[::-1]
    return right * plain + left * mirrored + (1 - left - right) * (plain + mirrored) / 2


def network_depth(network: str, *, weights: str = "", dtype: str = "float32",
                  flip: bool = False) -> NetworkDepth:
    """Lite-Mono or MonoDepth2 as a depth method.

    Args:
        network: see `depth_network`.
        weights: the file that `--mode=convert` made of the published `encoder.pth` and `depth.pth`.
        dtype: see `NetworkDepth`.
        flip: see `NetworkDepth`.

    Raises:
        UserError: the weights cannot be used, or a parameter is not one of those offered.
    """
    stored = read_network(weights, network, depth_shapes(network), field="config.depth.weights")
    size = (stored.fields.get("height", USUAL_SIZE[0]), stored.fields.get("width", USUAL_SIZE[1]))
    stereo = network == "monodepth2" and bool(stored.fields.get("use_stereo", False))
    return NetworkDepth(network, stored.variables, stored.digest, trained_at=size, stereo=stereo, dtype=dtype,
                        flip=flip)
