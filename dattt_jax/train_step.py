"""One training step: the state, the schedule, the loss, and the step as a pure function.

`parallel.py` runs it on devices, `train.py` is the loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from dattt_jax import losses
from dattt_jax.image_ops import normalize, resize_bilinear
from dattt_jax.models import DATTT
from dattt_jax.models.encode import apply_in_pieces
from dattt_jax.pretext import auxiliary_losses
from dattt_jax.variables import Variables

Array = jax.Array
Batch = dict[str, Any]
Metrics = dict[str, Array]
Augment = Callable[[Array, Batch], Batch]

_AUXILIARY_WEIGHT = 1.0  # the heads' losses are added to the network's own (Sun et al., ICML 2020)


class TrainState(struct.PyTreeNode):
    """What one step turns into the next: a pytree of arrays."""

    step: Array  # optimiser steps done, int32 scalar
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> Variables:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def optimizer(self) -> dict[str, Any]:
        """The rest, as it is checkpointed."""
        return {"step": self.step, "opt_state": self.opt_state}


def create_learning_rate_fn(start: float, final: float, *, total_steps: int,
                            period: int) -> optax.Schedule:
    """Cosine decay in stairs of `period` steps.

    With a period of one epoch it is torch's CosineAnnealingLR stepped per epoch, as in the authors'
    code: lr(e) = final + (start - final) · (1 + cos(pi · e / epochs)) / 2 in epoch e = 0, 1, …

    Args:
        start: learning rate of the first step.
        final: the rate the cosine ends at.
        total_steps: optimiser steps of the run.
        period: steps with the same rate; 1 changes it at every step.

    Returns:
        Optimiser step -> learning rate.
    """
    periods = -(-total_steps // period)

    def schedule(step: Array | int) -> Array:
        done = jnp.minimum(step // period, periods)
        return final + (start - final) * (1 + jnp.cos(jnp.pi * done / periods)) / 2

    return schedule


def create_optimizer(learning_rate: optax.ScalarOrSchedule,
                     weight_decay: float) -> optax.GradientTransformation:
    """AdamW as torch's default, decaying every parameter: norms, biases and bias tables too."""
    return optax.adamw(learning_rate, weight_decay=weight_decay)


def create_train_state(variables: Variables,
                       optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, with these weights."""
    return TrainState(step=jnp.zeros((), jnp.int32), params=variables["params"],
                      batch_stats=variables["batch_stats"],
                      opt_state=optimizer.init(variables["params"]))


def loss_fn(params: Any, batch_stats: Any, batch: Batch, keys: Array, *, model: DATTT,
            depth_weight: float, iou_weight: float = 0.0, axis_name: str | None = None
            ) -> tuple[Array, dict[str, Any]]:
    """BCE of the mask + depth_weight · SILog of the depth (DATTT eq. 5), in training mode.

    With `iou_weight`, which the paper has not, iou_weight · soft Jaccard is added. Where the network has
    auxiliary heads (`config.model.heads`), their losses are added (`pretext.auxiliary_losses`).

    Logits are resized to the target before the sigmoid (authors' code). Under a pmap the SILog is
    that of the whole batch and the BCE that of the device's part, so the mean over the devices is
    the loss of the whole batch.

    Args:
        params: parameters.
        batch_stats: running statistics of BatchNorm.
        batch: `image` and `flow` float [B, H, W, 3], normalised; `mask` [B, H, W, 1] in {0, 1};
            `depth` [B, H, W, 1], read only where the model has a depth decoder and `depth_weight`
            is not 0.
        keys: PRNG keys [B], one per sample; they drive drop-path and the auxiliary tasks.
        model: the network.
        depth_weight: λ of equation 5; with 0 no depth targets are needed.
        iou_weight: of `losses.soft_jaccard`.
        axis_name: pmap axis.

    Returns:
        (loss, {'metrics': {'loss', 'bce', with a depth loss 'silog', with iou_weight 'iou', and those of the
        heads}, 'outputs': the model's logits at stride 4, 'batch_stats': updated}).
    """
    outputs, updates = apply_in_pieces(
        model, {"params": params, "batch_stats": batch_stats}, batch["image"], batch["flow"], keys)
    size = batch["mask"].shape[1:3]
    mask_logits = resize_bilinear(outputs["mask"], size)
    bce = losses.binary_cross_entropy(mask_logits, batch["mask"])
    metrics = {"loss": bce, "bce": bce}
    if model.depth and depth_weight:
        depth = jax.nn.sigmoid(resize_bilinear(outputs["depth"], size))
        metrics["silog"] = losses.silog(depth, batch["depth"], axis_name=axis_name)
        metrics["loss"] = metrics["loss"] + depth_weight * metrics["silog"]
    if iou_weight:
        metrics["iou"] = losses.soft_jaccard(mask_logits, batch["mask"])
        metrics["loss"] = metrics["loss"] + iou_weight * metrics["iou"]
    if model.heads:
        own_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)  # not those of drop-path
        auxiliary = auxiliary_losses(model, {"params": params, "batch_stats": batch_stats}, batch["image"],
                                     own_keys)
        metrics |= auxiliary
        metrics["loss"] = metrics["loss"] + _AUXILIARY_WEIGHT * sum(auxiliary.values())
    return metrics["loss"], {"metrics": metrics, "outputs": outputs, **updates}


def train_step(state: TrainState, batch: Batch, key: Array, *, model: DATTT,
               optimizer: optax.GradientTransformation, depth_weight: float, iou_weight: float,
               augment: Augment, accumulation: int, axis_name: str) -> tuple[TrainState, Metrics]:
    """One optimiser step, on each device of a pmap over `axis_name`.

    Every sample's randomness depends on `key`, the step and the sample's place in the whole batch
    alone: a resumed run draws what the interrupted one would have drawn, and any number of devices
    and processes draws the same.

    Args:
        state: donated under `parallel.parallel_step`; the same on all devices.
        batch: this device's part: `image`, `flow` uint8 [B, H, W, 3], `mask` uint8 [B, H, W, 1] in
            {0, 1}, `depth` float32 [B, H, W, 1], `position` int32 [B], the sample's place in the
            batch of all devices.
        key: the run's key.
        model: the network, made with `axis_name` for synchronised BatchNorm.
        optimizer: applied to the gradient's mean over the devices.
        depth_weight: λ of equation 5.
        iou_weight: see `loss_fn`.
        augment: (keys [B], batch) -> batch of the same shapes.
        accumulation: pieces of the device's part, worked through one after the other; a divisor of
            B. BatchNorm and the SILog's variance see one piece (of all devices) at a time.
        axis_name: the pmap axis.

    Returns:
        (state, metrics), the same on all devices; metrics are `loss_fn`'s and `grad_norm`.
    """
    step_key = jax.random.fold_in(key, state.step)
    keys = jax.vmap(lambda position: jax.random.split(jax.random.fold_in(step_key, position)))(
        batch["position"])
    batch = augment(keys[:, 0], batch)
    batch = batch | {"image": normalize(batch["image"]), "flow": normalize(batch["flow"])}
    gradient_fn = jax.grad(partial(loss_fn, model=model, depth_weight=depth_weight,
                                   iou_weight=iou_weight, axis_name=axis_name), has_aux=True)

    def add_piece(carry: tuple[Any, Any], piece: tuple[Batch, Array]) -> tuple[tuple, Metrics]:
        grads, batch_stats = carry
        new_grads, aux = gradient_fn(state.params, batch_stats, *piece)
        # Synchronised statistics are the same on all devices already; others are averaged at the end.
        return (jax.tree.map(jnp.add, grads, new_grads), aux["batch_stats"]), aux["metrics"]

    if accumulation == 1:
        grads, aux = gradient_fn(state.params, state.batch_stats, batch, keys[:, 1])
        batch_stats, metrics = aux["batch_stats"], aux["metrics"]
    else:
        pieces = jax.tree.map(lambda x: x.reshape(accumulation, -1, *x.shape[1:]),
                              (batch, keys[:, 1]))
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        (grads, batch_stats), metrics = jax.lax.scan(add_piece, (zeros, state.batch_stats), pieces)
        grads = jax.tree.map(lambda g: g / accumulation, grads)
        metrics = jax.tree.map(jnp.mean, metrics)
    # pmap transposes psum to psum, so each device holds its share of the gradient of the devices'
    # summed loss; the mean is the gradient of the loss over the whole batch.
    grads, metrics, batch_stats = jax.lax.pmean((grads, metrics, batch_stats), axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new_state = TrainState(step=state.step + 1, params=optax.apply_updates(state.params, updates),
                           batch_stats=batch_stats, opt_state=opt_state)
    return new_state, metrics | {"grad_norm": optax.tree.norm(grads)}
