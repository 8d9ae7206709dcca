"""Video salient object detection measures (MAE, S, F, E), computed by the pysodmetrics package.

A frame's measures are one vector, its profile: four numbers and two curves over the threshold. Profiles are
averaged over the frames of a video and over videos; the maxima of the curves are taken last, as in the
field's tools.
"""

import numpy as np

from dattt_jax.errors import UserError

_SCALARS = ("MAE", "S", "F_adaptive", "E_adaptive")
_THRESHOLDS = 256


def require_pysodmetrics() -> None:
    """Raises a UserError if pysodmetrics is not installed."""
    try:
        import py_sod_metrics  # noqa: F401
    except ImportError as error:
        raise UserError("saliency measures need pysodmetrics: pip install pysodmetrics") from error


def frame_profile(probability: np.ndarray, target: np.ndarray) -> np.ndarray:
    """MAE, S-measure, F-measure (β² = 0.3) and E-measure of one soft map.

    As in the field's tools, the map is stretched to 0..1 by its own minimum and maximum first.

    Args:
        probability: `[H, W]` float 0..1, or uint8 holding 255 · p.
        target: `[H, W]` bool.

    Returns:
        float64 [516]: MAE, S, adaptive F and adaptive E (threshold: twice the mean of the map), the F curve
        and the E curve over 256 thresholds.

    Raises:
        UserError: pysodmetrics is not installed.
    """
    require_pysodmetrics()
    import py_sod_metrics

    if probability.dtype != np.uint8:
        probability = np.round(probability * 255).astype(np.uint8)
    levels = target.astype(np.uint8) * np.uint8(255)
    mae, s, e = py_sod_metrics.MAE(), py_sod_metrics.Smeasure(), py_sod_metrics.Emeasure()
    handler = py_sod_metrics.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3)
    f = py_sod_metrics.FmeasureV2({"f": handler})
    for measure in (mae, s, f, e):
        measure.step(probability, levels)
    f_results, e_results = f.get_results()["f"], e.get_results()["em"]
    return np.concatenate([[mae.get_results()["mae"], s.get_results()["sm"], f_results["adaptive"],
                            e_results["adp"]], f_results["dynamic"], e_results["curve"]]).astype(np.float64)


def describe_profile(profile: np.ndarray | None) -> dict[str, float | None]:
    """The measures of a profile by name.

    Args:
        profile: `frame_profile`, or a mean of such; None: nothing was scored.

    Returns:
        `MAE` (lower is better), `S`, `F_max`, `F_adaptive`, `E_max` and `E_adaptive`, all 0..1; all None for
        None.
    """
    names = ("MAE", "S", "F_max", "F_adaptive", "E_max", "E_adaptive")
    if profile is None:
        return dict.fromkeys(names)
    found = dict(zip(_SCALARS, profile[: len(_SCALARS)].tolist(), strict=True))
    f_curve, e_curve = np.split(profile[len(_SCALARS):], [_THRESHOLDS])
    found |= {"F_max": float(f_curve.max()), "E_max": float(e_curve.max())}
    return {name: found[name] for name in names}
