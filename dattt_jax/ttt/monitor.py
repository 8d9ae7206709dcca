"""Watching adaptation, and what to do where it hurts.

There is no ground truth at test time. What can be measured of a frame: whether the mask stays the same under
a second view of the frame (photometric), for the adapted weights and for the source's; how much the mask has
changed against the source's; and how far the weights have gone. A frame is bad where the adapted masks agree
less than the source's, by more than a margin. Policies:

    off           the paper: nothing is measured, nothing changes
    watch         measured, nothing changes
    stop_early    at the first bad frame the weights go back to those before it and stay (until the next start
                  from the source, of n, of a group, or of window)
    reset         at a bad frame the source predicts, and adaptation starts afresh from the source
    average       after each visit the weights are (1 − w)·adapted + w·source (weight averaging as in WiSE-FT,
                  Wortsman et al., CVPR 2022)
    keep_better   each frame is predicted by the adapted or the source weights, whichever agree better

An empty mask agrees with itself whatever the view. So an adapted mask that is empty, or full, where the
source's is not counts as an agreement of 0.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from dattt_jax.errors import UserError

Array = jax.Array

POLICIES = ("off", "watch", "stop_early", "reset", "average", "keep_better")
_THRESHOLD = 128 / 255  # object where 255 · p > 128


@dataclasses.dataclass(frozen=True)
class Policy:
    """What is done with a frame that adaptation made worse.

    Attributes:
        name: one of `POLICIES`.
        margin: agreement (IoU) that adaptation may lose before a frame is bad.
        source_weight: average: part of the source weights mixed in after each visit, 0..1.
    """

    name: str = "off"
    margin: float = 0.0
    source_weight: float = 0.1

    @property
    def watches(self) -> bool:
        """Whether frames are judged at all."""
        return self.name != "off"


OFF = Policy()


@struct.dataclass
class Report:
    """What was measured of a frame; scalars on the device, Python numbers in a `FrameResult`.

    Attributes:
        agreement: IoU of the adapted weights' masks under two views, 0..1.
        source_agreement: the same of the source weights.
        change: 1 − IoU of the adapted and the source's mask, 0..1.
        drift: ‖trained − source‖ / ‖source‖ over what is trained.
        kept: the reported mask is by the frame's own adapted weights.
        stopped: stop_early: no step was taken, adaptation had stopped before.
    """

    agreement: float | Array
    source_agreement: float | Array
    change: float | Array
    drift: float | Array
    kept: bool | Array
    stopped: bool | Array


def create_policy(name: str, *, margin: float = 0.0, source_weight: float = 0.1) -> Policy:
    """The policy of that name.

    Raises:
        UserError: there is no such policy, or a number is out of range.
    """
    if name not in POLICIES:
        raise UserError(f"config.ttt.policy: {name!r} is not one of {', '.join(POLICIES)}")
    for field, value in (("policy_margin", margin), ("source_weight", source_weight)):
        if not 0 <= value <= 1:
            raise UserError(f"config.ttt.{field}={value}: give a number from 0 to 1")
    return Policy(name, margin, source_weight)


def mask_iou(a: Array, b: Array) -> Array:
    """IoU of the masks of two probability maps [H, W], thresholded as masks are; 1 when both are empty."""
    a, b = a > _THRESHOLD, b > _THRESHOLD
    union = jnp.sum(a | b)
    return jnp.where(union > 0, jnp.sum(a & b) / jnp.maximum(union, 1), 1.0)


def measure(adapted: tuple[Array, Array], source: tuple[Array, Array], weights: dict, source_weights: dict,
            margin: float) -> tuple[Report, Array]:
    """Judges a frame.

    Args:
        adapted: probability [H, W] of the frame and of its second view, by the adapted weights; negative
            where a padded frame has no pixel.
        source: the same by the source weights.
        weights: trained variables, path -> array.
        source_weights: their source values.
        margin: see `Policy`.

    Returns:
        (report, whether the frame is bad).
    """
    here, there = adapted[0] > _THRESHOLD, source[0] > _THRESHOLD
    not_here, not_there = ((p >= 0) & (p <= _THRESHOLD) for p in (adapted[0], source[0]))
    degenerate = (jnp.any(there) & ~jnp.any(here)) | (jnp.any(not_there) & ~jnp.any(not_here))
    agreement = jnp.where(degenerate, 0.0, mask_iou(*adapted))
    source_agreement = mask_iou(*source)
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, weights, source_weights)) if weights else jnp.zeros(())
    size = optax.tree.norm(source_weights) if weights else jnp.ones(())
    report = Report(agreement, source_agreement, 1 - mask_iou(adapted[0], source[0]),
                    moved / jnp.maximum(size, 1e-12), jnp.bool_(True), jnp.bool_(False))
    return report, agreement < source_agreement - margin


def frame_report(report: Report) -> dict[str, float | bool]:
    """A frame's report for JSON, numbers with six digits."""
    return {name: value if isinstance(value, bool) else round(value, 6)
            for name, value in vars(report).items()}


def summarize(policy: Policy, reports: Sequence[Report | None], steps: int) -> dict[str, object]:
    """Whether the adaptation of a video was kept, and why: for summary.json.

    Args:
        policy: what was done.
        reports: of every frame in order; None where nothing was measured.
        steps: gradient steps per frame; 0 for no adaptation.

    Returns:
        {'policy', 'kept': 'all', 'part' or 'none', 'why': a sentence}, and where frames were judged
        {'frames_kept', 'agreement', 'source_agreement', 'change': means over frames, 'drift': the last}.
    """
    if not steps:
        return {"policy": policy.name, "kept": "none", "why": "the strategy base does not adapt"}
    if not policy.watches:
        return {"policy": policy.name, "kept": "all", "why": "policy off: every frame is adapted, unjudged"}
    if not reports:
        return {"policy": policy.name, "kept": "none", "why": "there is no frame to adapt on"}
    kept = [bool(report.kept) for report in reports]
    count = sum(kept)
    means = {name: round(float(np.mean([getattr(report, name) for report in reports])), 4)
             for name in ("agreement", "source_agreement", "change")}
    done = {"watch": "nothing is done about it", "average": "weights are averaged with the source",
            "stop_early": f"adaptation stopped at frame {kept.index(False) if count < len(kept) else 'none'}",
            "reset": f"{len(kept) - count} resets to the source",
            "keep_better": f"{len(kept) - count} frames are the source's"}[policy.name]
    return {"policy": policy.name, "kept": "all" if count == len(kept) else "part" if count else "none",
            "why": f"masks agree across two views by {means['agreement']} adapted and by "
                   f"{means['source_agreement']} with the source weights: {done}",
            "frames_kept": count, **means, "drift": round(float(reports[-1].drift), 6)}
