"""Self-training: what the unadapted network makes of all flows of a frame teaches it to see it in any one.

The source network predicts the frame from all its flows, with the frame's own edges where masks are upsampled
so. Where masks of a video agree over time (`dattt_jax.propagation`), what they agree on is the frame's
prediction: a frame whose flows show nothing is then taught by those around it. Where the prediction is sure,
it is the target of the adapted network on a disturbed view of the frame with one of the flows, drawn at
random. A flow that shows nothing, since the object stands still, has to be made up for by the object's
appearance, which the image encoder learns over the video. The target never moves: a teacher that learned
along would drift to an empty mask on real video. Object and background count alike, however small the object
is.

Pseudo-labels: Lee, "Pseudo-Label", ICML workshop 2013; a weakly disturbed view that teaches a strongly
disturbed one: Sohn et al., "FixMatch", NeurIPS 2020.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from dattt_jax.forward import merge_flows
from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables
from dattt_jax.ttt.objectives.filters import is_image_encoder

if TYPE_CHECKING:
    from dattt_jax.ttt.task import Task

_SURE = 0.7  # probability, of the object or of the background, from which a place has a target
_PRIOR = 1 / 64  # share of the places that each class is counted to have more: damps the weight of tiny masks


def balanced_loss(logits: Array, label: Array) -> Array:
    """Cross entropy where the label is sure; object and background weigh the same.

    Args:
        logits: float [...].
        label: logits of the teacher, of the same shape.

    Returns:
        Scalar, float32: Σ over both classes of the sum over its sure places, divided by their number and
        1/64 of all places. 0 where nothing is sure.
    """
    sign = jnp.where(label > 0, 1.0, -1.0)
    sure = jax.nn.sigmoid(jnp.abs(label)) > _SURE
    each = jax.nn.softplus(-sign * logits.astype(jnp.float32))
    total = jnp.zeros(())
    for members in (sure & (label > 0), sure & (label <= 0)):
        total += jnp.sum(jnp.where(members, each, 0.0)) / (jnp.sum(members) + _PRIOR * label.size)
    return total


@dataclasses.dataclass(frozen=True)
class SelfTraining(Objective):
    """Agreement with the source network's sure predictions.

    Attributes:
        logits: (variables, frame) -> mask logits [N, …], one map per flow of the frame.
        disturb: (key, frame) -> the frame as another camera might have seen it, with one of its flows.
        refine: (frame, mask logits of the source) -> those that teach.
        merge: mask logits [N, …] of a frame's flows -> those of the frame.
    """

    logits: Callable[[Variables, Frame], Array]
    disturb: Callable[[Array, Frame], Frame]
    refine: Callable[[Frame, Array], Array] = lambda frame, logits: logits
    merge: Callable[[Array], Array] = merge_flows
    learns_predictions = True

    def trainable(self, path: Path) -> bool:
        """The image encoder, as in the paper."""
        return is_image_encoder(path)

    def label(self, source: Variables, frame: Frame) -> Array:
        """The frame's prediction, else what the source's logits say over its flows; refined."""
        if "prediction" in frame:
            known = frame["prediction"][..., None]
        else:
            known = self.merge(self.logits(source, frame))
        return self.refine(frame, known)

    def sample(self, frame: Frame, step: Array, key: Array) -> tuple[Frame, Array]:
        """The disturbed frame, and the label."""
        del step
        return self.disturb(key, frame), frame["label"]

    def loss(self, variables: Variables, batch: tuple[Frame, Array], key: Array) -> Array:
        """See `balanced_loss`."""
        del key
        frame, label = batch
        return balanced_loss(self.logits(variables, frame)[0], label)


def self_training(task: "Task") -> SelfTraining:
    """Self-training of DATTT; colours are disturbed as in the paper's views, every pixel in its place."""
    def disturb(key: Array, frame: Frame) -> Frame:
        view_key, flow_key = jax.random.split(key)
        flows = frame["flow"].reshape(-1, *frame["flow"].shape[-3:])
        flow = flows[jax.random.randint(flow_key, (), 0, flows.shape[0])]
        return task.view(frame, view_key) | {"flow": flow}

    return SelfTraining(task.mask_logits, disturb, task.refined, task.merged)
