"""Depth by the models of the `transformers` library: ZoeDepth, Depth Anything, DPT and others.

The one place where PyTorch computes; both are optional (`pip install "dattt_jax[depth]"`).
"""

import hashlib
from typing import Any

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.depth.targets import DEPTH_KINDS

# What the models of these types predict; Depth Anything's configuration says it by itself.
_KINDS = {"zoedepth": "metric", "depth_pro": "metric", "glpn": "metric", "dpt": "inverse"}


class TransformersDepth:
    """Depth by a model of `transformers`.

    Args:
        weights: a folder that the library saved, or the name of a model for it to find or download.
        kind: what the model predicts, one of `DEPTH_KINDS`; '' = known from the model's type.

    Attributes:
        identity: the model's class and a hash of its weights and of how it prepares images.
        kind: see `DepthMethod`.

    Raises:
        UserError: the library is not installed, there is no such model, or its kind is not known.
    """

    def __init__(self, *, weights: str = "", kind: str = "") -> None:
        if not weights:
            raise UserError("config.depth.weights is empty: name a model of the transformers library or a "
                            "folder that holds one")
        if kind and kind not in DEPTH_KINDS:
            raise UserError(f"config.depth.kind={kind!r}: use one of {', '.join(DEPTH_KINDS)}")
        try:
            import torch
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation
        except ImportError as error:
            raise UserError(f"config.depth.method=transformers needs the packages transformers and torch "
                            f"({error.name} is missing): run `pip install \"dattt_jax[depth]\"`") from error
        try:
            self._processor = AutoImageProcessor.from_pretrained(weights)
            self._model = AutoModelForDepthEstimation.from_pretrained(weights).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"config.depth.weights={weights} is no depth-estimation model that transformers "
                            f"can load ({reason})") from error
        self.kind = kind or _kind(self._model.config, weights)
        digest = hashlib.sha256(self._processor.to_json_string().encode())
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
        self.identity = (f"transformers({type(self._model).__name__}, kind={self.kind}, "
                         f"weights={digest.hexdigest()[:16]})")
        self._torch = torch

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Computes the depth of a frame; see `DepthMethod`."""
        with self._torch.inference_mode():
            inputs = self._processor(images=frame, return_tensors="pt")
            outputs = self._model(**inputs)
            found = self._processor.post_process_depth_estimation(outputs, target_sizes=[frame.shape[:2]])
        return found[0]["predicted_depth"].float().numpy()


def _kind(config: Any, weights: str) -> str:
    if hasattr(config, "depth_estimation_type"):
        return "metric" if config.depth_estimation_type == "metric" else "inverse"
    if config.model_type not in _KINDS:
        kinds = ", ".join(DEPTH_KINDS)
        raise UserError(f"config.depth.weights={weights} is of type {config.model_type!r}, which does not "
                        f"tell what its numbers are: set config.depth.kind to one of {kinds}")
    return _KINDS[config.model_type]
