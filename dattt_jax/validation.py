"""Validation during training: J and F of a few held-out samples, to watch a run and keep its best checkpoint.

For tables there is `evaluate.py`: this one scores single frames at the network's own input size, without
test-time training, and takes the mean over the frames.
"""

from typing import Any

import cv2
import jax
import numpy as np

from dattt_jax.forward import encode_flow, predict_probability
from dattt_jax.inference import to_mask
from dattt_jax.metrics.boundary import boundary_f
from dattt_jax.metrics.region import jaccard
from dattt_jax.models import DATTT
from dattt_jax.variables import Variables

Scores = dict[str, float]


class Validation:
    """J and F on samples that are kept in memory (3 MB each at 512 × 512).

    Args:
        model: the network.
        source: random access to samples as `input_pipeline.loader` takes; must not be what it trains on.
        num_samples: how many, spread evenly over the source; all of them if it has fewer.
        batch_size: frames per network call.

    Attributes:
        num_samples: samples in use.
    """

    def __init__(self, model: DATTT, source: Any, *, num_samples: int, batch_size: int) -> None:
        self.num_samples = min(num_samples, len(source))
        picked = np.linspace(0, len(source) - 1, self.num_samples).round().astype(int)
        samples = [source[i] for i in picked]
        self._batch_size = min(batch_size, self.num_samples)
        self._image, self._flow, self._mask = (np.stack([s[field] for s in samples])
                                               for field in ("image", "flow", "mask"))
        self._mask = self._mask[..., 0].astype(bool)
        size = self._image.shape[1:3]

        @jax.jit
        def predict(variables: Variables, image: jax.Array, flow: jax.Array) -> jax.Array:
            features = encode_flow(model, variables, flow, size)
            return predict_probability(model, variables, image, features, size)

        self._predict = predict

    def __call__(self, variables: Variables) -> Scores:
        """Scores weights.

        Args:
            variables: of the network, on one device or the host.

        Returns:
            {'J', 'F', 'JF'}: means over the frames, fractions.

        Raises:
            UserError: a prediction is not finite.
        """
        masks = []
        for start in range(0, self.num_samples, self._batch_size):
            # The last batch is filled up from the front, so that there is one program.
            rows = np.arange(start, start + self._batch_size) % self.num_samples
            probability = self._predict(variables, self._image[rows], self._flow[rows])
            masks += [to_mask(p, f"{i} of the validation") for i, p in
                      zip(rows, np.asarray(probability), strict=True)]
        return self._mean_scores(masks[: self.num_samples])

    def flow_threshold(self) -> Scores:
        """Scores masks that no network made: how far motion alone goes on these samples."""
        return self._mean_scores([threshold_flow(flow) for flow in self._flow])

    def _mean_scores(self, masks: list[np.ndarray]) -> Scores:
        pairs = list(zip(masks, self._mask, strict=True))
        j = float(np.mean([jaccard(mask, target) for mask, target in pairs]))
        f = float(np.mean([boundary_f(mask, target) for mask, target in pairs]))
        return {"J": j, "F": f, "JF": (j + f) / 2}


def threshold_flow(rendering: np.ndarray) -> np.ndarray:
    """A mask from one flow rendering: what moves unlike most of the frame.

    The median colour of a colour-wheel rendering is the camera's motion where the background is the
    larger part; the distance to it, cut at Otsu's threshold (Otsu, 1979), is the mask.

    Args:
        rendering: uint8 [H, W, 3] RGB.

    Returns:
        bool [H, W].
    """
    distance = np.linalg.norm(rendering - np.median(rendering, axis=(0, 1)), axis=-1)
    levels = np.rint(distance * (255 / max(distance.max(), 1e-6))).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return levels > threshold
