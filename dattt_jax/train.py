"""Training: the state, the pure step, its placement on devices, and the loop.

One host with any number of devices. All that concerns the device axis is in `parallel_step` and
`place`, and in the `axis_name` arguments of the loss and of BatchNorm.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from flax import struct

from dattt_jax import losses
from dattt_jax.augment import train_augment
from dattt_jax.checkpoints import CheckpointStore, load_variables
from dattt_jax.errors import UserError
from dattt_jax.image_ops import normalize, resize_bilinear
from dattt_jax.models import DATTT, create_model
from dattt_jax.models.encode import apply_in_pieces
from dattt_jax.progress import Progress
from dattt_jax.signals import StopSignals
from dattt_jax.train_log import TrainLog
from dattt_jax.variables import Variables, random_variables, variable_shapes
from input_pipeline.loader import make_loader
from input_pipeline.synthetic import SyntheticConfig, SyntheticTrainSource

Array = jax.Array
Batch = dict[str, Any]
Metrics = dict[str, Array]
Augment = Callable[[Array, Batch], Batch]
StepFn = Callable[["TrainState", Batch, Array], tuple["TrainState", Metrics]]

_AXIS = "batch"  # the pmap axis


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


def create_learning_rate_fn(config: ml_collections.ConfigDict,
                            steps_per_epoch: int) -> optax.Schedule:
    """Cosine decay that changes once per epoch (torch's CosineAnnealingLR stepped per epoch).

    lr(e) = final + (start - final) · (1 + cos(pi · e / epochs)) / 2 in epoch e = 0, 1, …

    Args:
        config: `config.train`: `learning_rate` (start), `final_learning_rate` and `epochs`.
        steps_per_epoch: optimiser steps.

    Returns:
        Optimiser step -> learning rate.
    """
    start, final = config.learning_rate, config.final_learning_rate
    epochs = config.epochs

    def schedule(step: Array | int) -> Array:
        epoch = jnp.minimum(step // steps_per_epoch, epochs)
        return final + (start - final) * (1 + jnp.cos(jnp.pi * epoch / epochs)) / 2

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


def loss_fn(params: Any, batch_stats: Any, batch: Batch, key: Array, *, model: DATTT,
            depth_weight: float, axis_name: str | None = None) -> tuple[Array, dict[str, Any]]:
    """BCE of the mask + depth_weight · SILog of the depth (DATTT eq. 5), in training mode.

    Logits are resized to the target before the sigmoid (authors' code). Under a pmap the SILog is
    that of the whole batch and the BCE that of the device's part, so the mean over the devices is
    the loss of the whole batch.

    Args:
        params: parameters.
        batch_stats: running statistics of BatchNorm.
        batch: `image` and `flow` float [B, H, W, 3], normalised; `mask` [B, H, W, 1] in {0, 1};
            `depth` [B, H, W, 1], read only where the model has a depth decoder.
        key: drives drop-path.
        model: the network.
        depth_weight: λ of equation 5.
        axis_name: pmap axis.

    Returns:
        (loss, {'metrics': {'loss', 'bce', and with depth 'silog'}, 'outputs': the model's logits at
        stride 4, 'batch_stats': updated}).
    """
    outputs, updates = apply_in_pieces(
        model, {"params": params, "batch_stats": batch_stats}, batch["image"], batch["flow"], key)
    size = batch["mask"].shape[1:3]
    bce = losses.binary_cross_entropy(resize_bilinear(outputs["mask"], size), batch["mask"])
    metrics = {"loss": bce, "bce": bce}
    if model.depth:
        depth = jax.nn.sigmoid(resize_bilinear(outputs["depth"], size))
        metrics["silog"] = losses.silog(depth, batch["depth"], axis_name=axis_name)
        metrics["loss"] = bce + depth_weight * metrics["silog"]
    return metrics["loss"], {"metrics": metrics, "outputs": outputs, **updates}


def train_step(state: TrainState, batch: Batch, key: Array, *, model: DATTT,
               optimizer: optax.GradientTransformation, depth_weight: float, augment: Augment,
               axis_name: str) -> tuple[TrainState, Metrics]:
    """One optimiser step, on each device of a pmap over `axis_name`.

    Randomness depends on `key`, the step and the device alone, so that a resumed run draws what the
    interrupted one would have drawn.

    Args:
        state: donated under `parallel_step`; the same on all devices.
        batch: this device's part: `image`, `flow` uint8 [B, H, W, 3], `mask` uint8 [B, H, W, 1] in
            {0, 1}, `depth` float32 [B, H, W, 1].
        key: the run's key.
        model: the network, made with `axis_name` for synchronised BatchNorm.
        optimizer: applied to the gradient's mean over the devices.
        depth_weight: λ of equation 5.
        augment: (key, batch) -> batch of the same shapes.
        axis_name: the pmap axis.

    Returns:
        (state, metrics), the same on all devices; metrics are `loss_fn`'s and `grad_norm`.
    """
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), jax.lax.axis_index(axis_name))
    augment_key, drop_path_key = jax.random.split(key)
    batch = augment(augment_key, batch)
    batch = batch | {"image": normalize(batch["image"]), "flow": normalize(batch["flow"])}
    gradient_fn = jax.grad(loss_fn, has_aux=True)
    grads, aux = gradient_fn(state.params, state.batch_stats, batch, drop_path_key, model=model,
                             depth_weight=depth_weight, axis_name=axis_name)
    # pmap transposes psum to psum, so each device holds its share of the gradient of the devices'
    # summed loss; the mean is the gradient of the loss over the whole batch.
    grads, metrics, batch_stats = jax.lax.pmean(
        (grads, aux["metrics"], aux["batch_stats"]), axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new_state = TrainState(step=state.step + 1, params=optax.apply_updates(state.params, updates),
                           batch_stats=batch_stats, opt_state=opt_state)
    return new_state, metrics | {"grad_norm": optax.tree.norm(grads)}


def parallel_step(devices: list[jax.Device], **step_args: Any) -> StepFn:
    """`train_step` over `devices`: (state, whole batch, key) -> (state, metrics).

    `step_args` are the keyword arguments of `train_step` without `axis_name`. The state has no
    device axis and is donated; the batch is split evenly.
    """
    step = jax.pmap(functools.partial(train_step, axis_name=_AXIS, **step_args), axis_name=_AXIS,
                    in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=(0,),
                    devices=devices)

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(devices), x.shape[0] // len(devices), *x.shape[1:])

    def run(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
        return step(state, jax.tree.map(split, batch), key)

    return run


def place(tree: Any, devices: list[jax.Device]) -> Any:
    """Copies every array of a pytree to all devices, laid out as `parallel_step` returns it."""
    mesh = jax.sharding.Mesh(np.array(devices), (_AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def make_source(config: ml_collections.ConfigDict) -> Any:
    """The training data `config.train.data` names: a random-access source of samples.

    Raises:
        UserError: there is no such source.
    """
    if config.train.data != "synthetic":
        raise UserError(f"config.train.data: {config.train.data!r} is not one of synthetic")
    fields = config.synthetic.to_dict() | {"size": tuple(config.input_size)}
    # Every epoch has samples of its own: new ones cost no more than old ones.
    return SyntheticTrainSource(SyntheticConfig(**fields), config.seed,
                                config.train.epochs * config.train.synthetic_samples,
                                config.flow.method)


def train(config: ml_collections.ConfigDict, workdir: str | Path) -> TrainState:
    """Trains `config.model` until `config.train.epochs` are done or a signal asks to stop.

    `workdir` then holds `checkpoints/` (see `dattt_jax.checkpoints`), `train_log.jsonl` and
    `train_loss.png`. The same call on the same workdir goes on where the last one stopped, bit for
    bit as if it had not stopped (on the same number of devices).

    Args:
        config: see `configs/base.py`.
        workdir: the run's folder; made if it does not exist.

    Returns:
        The last state.

    Raises:
        UserError: a config field does not work; a checkpoint does not fit; the loss is not finite.
    """
    devices, settings = jax.local_devices(), config.train
    steps_per_epoch = _checked_steps_per_epoch(settings, len(devices))
    learning_rate_fn = create_learning_rate_fn(settings, steps_per_epoch)
    optimizer = create_optimizer(learning_rate_fn, settings.weight_decay)
    model = create_model(config.model, axis_name=_AXIS if settings.sync_batchnorm else None)
    data = make_loader(make_source(config), batch_size=settings.batch_size, seed=config.seed,
                       num_threads=settings.threads, shard_index=0, shard_count=1)
    with CheckpointStore(workdir, config.model, keep=settings.keep) as store:
        state = place(_start_state(config, optimizer, store, data), devices)
        log = TrainLog(Path(workdir), start_step=int(state.step), log_steps=settings.log_steps,
                       batch_size=settings.batch_size, learning_rate_fn=learning_rate_fn)
        run_step = parallel_step(
            devices, model=model, optimizer=optimizer, depth_weight=settings.depth_weight,
            augment=functools.partial(train_augment, hue=settings.hue,
                                      resize_crop=settings.resize_crop))
        state = _loop(state, run_step, jax.random.key(config.seed), data, store, log,
                      total_steps=settings.epochs * steps_per_epoch,
                      save_steps=settings.save_steps)
    log.plot()
    return state


def _checked_steps_per_epoch(settings: ml_collections.ConfigDict, num_devices: int) -> int:
    if settings.batch_size % num_devices:
        raise UserError(f"config.train.batch_size={settings.batch_size}: give a multiple of the "
                        f"{num_devices} devices")
    for name in ("epochs", "save_steps", "log_steps", "keep"):
        if settings[name] < 1:
            raise UserError(f"config.train.{name}={settings[name]}: give 1 or more")
    if settings.synthetic_samples < settings.batch_size:
        raise UserError(f"config.train.synthetic_samples={settings.synthetic_samples}: give at "
                        f"least config.train.batch_size={settings.batch_size}")
    return settings.synthetic_samples // settings.batch_size


def _start_state(config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation,
                 store: CheckpointStore, data: grain.DatasetIterator) -> TrainState:
    """The state to start from, and `data` moved to where it belongs.

    In order of precedence:
    1. resume: the workdir holds a checkpoint of this run; everything is taken from it;
    2. config.init names weights: they are taken, the optimiser and the data start afresh;
    3. random weights from config.seed.
    """
    if store.latest is not None:
        template = jax.eval_shape(functools.partial(create_train_state, optimizer=optimizer),
                                  variable_shapes(config.model))
        variables, rest = store.restore(template.variables, template.optimizer, data)
        logging.info("resuming from %s", store.latest)
        return TrainState(**variables, **rest)
    if config.init:
        logging.info("starting from the weights of %s", config.init)
        return create_train_state(load_variables(config.init, config.model), optimizer)
    logging.info("starting from random weights")
    return create_train_state(random_variables(config.model, config.seed), optimizer)


def _loop(state: TrainState, run_step: StepFn, key: Array, data: grain.DatasetIterator,
          store: CheckpointStore, log: TrainLog, *, total_steps: int,
          save_steps: int) -> TrainState:
    """Steps until `total_steps` or a signal; saves every `save_steps` and at the end.

    The order matters: the checkpoint of step k holds the state after k steps and the data position
    after k batches; the next batch is taken only then.
    """
    step = int(state.step)
    unsettled = None  # the newest step: the device may still be computing it
    settle = functools.partial(_settle, log=log, store=store)
    progress = Progress("train", total_steps, unit="step", initial=step)
    with StopSignals() as stop, progress:
        while step < total_steps and stop.received is None:
            started = time.perf_counter()
            batch = next(data)
            data_wait_s = time.perf_counter() - started
            state, metrics = run_step(state, batch, key)
            step += 1
            settle(unsettled)  # the step before, while the device computes this one
            unsettled = (step, metrics, data_wait_s)
            if step % save_steps == 0:
                settle(unsettled)  # nothing that is not finite is saved
                unsettled = None
                store.save(step, state.variables, state.optimizer, data)
            progress.update(note=log.note)
        settle(unsettled)
        store.save(step, state.variables, state.optimizer, data)
        store.wait()
    if stop.received is not None:
        logging.warning("stopped by %s after step %d of %d, which is saved: run the same command "
                        "again to go on", stop.received, step, total_steps)
    else:
        logging.info("trained %d steps: %s", step, store.latest)
    return state


def _settle(unsettled: tuple[int, Metrics, float] | None, *, log: TrainLog,
            store: CheckpointStore) -> None:
    """Waits for a step's metrics, checks that they are finite, and logs them."""
    if unsettled is None:
        return
    step, metrics, data_wait_s = unsettled
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not np.isfinite(list(values.values())).all():
        store.wait()
        saved = f"the last good checkpoint is {store.latest}" if store.latest else "none is saved"
        raise UserError(f"training diverged: loss {values['loss']}, gradient norm "
                        f"{values['grad_norm']} at step {step}; {saved}; lower "
                        "config.train.learning_rate (in a new --workdir, with config.init)")
    log.add(step, values, data_wait_s)
