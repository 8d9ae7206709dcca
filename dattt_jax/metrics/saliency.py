"""Video salient object detection measures (MAE, S, F, E), computed by the pysodmetrics package."""

import numpy as np

from dattt_jax.errors import UserError


class SaliencyScorer:
    """MAE, S-measure, F-measure (β² = 0.3) and E-measure of soft maps, averaged over frames.

    As in the field's tools, every map is stretched to 0..1 by its own minimum and maximum first.

    Raises:
        UserError: pysodmetrics is not installed.
    """

    def __init__(self) -> None:
        try:
            import py_sod_metrics
        except ImportError as error:
            raise UserError("saliency measures need pysodmetrics: pip install pysodmetrics"
                            ) from error
        self._mae, self._s = py_sod_metrics.MAE(), py_sod_metrics.Smeasure()
        self._e = py_sod_metrics.Emeasure()
        handler = py_sod_metrics.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3)
        self._f = py_sod_metrics.FmeasureV2({"f": handler})

    def add(self, probability: np.ndarray, target: np.ndarray) -> None:
        """Takes one frame.

        Args:
            probability: `[H, W]` float 0..1, or uint8 holding 255 · p.
            target: `[H, W]` bool.
        """
        if probability.dtype != np.uint8:
            probability = np.round(probability * 255).astype(np.uint8)
        levels = target.astype(np.uint8) * np.uint8(255)
        for measure in (self._mae, self._s, self._f, self._e):
            measure.step(probability, levels)

    def result(self) -> dict[str, float]:
        """Means over the frames taken; at least one is needed.

        Returns:
            `MAE` (lower is better), `S`, `F_max` and `E_max` (maximum over thresholds of the mean
            curve), `F_adaptive` and `E_adaptive` (threshold: twice the mean of the map), all 0..1.
        """
        f, e = self._f.get_results()["f"], self._e.get_results()["em"]
        return {
            "MAE": float(self._mae.get_results()["mae"]),
            "S": float(self._s.get_results()["sm"]),
            "F_max": float(f["dynamic"].max()), "F_adaptive": float(f["adaptive"]),
            "E_max": float(e["curve"].max()), "E_adaptive": float(e["adp"]),
        }
