"""The mode `train`: data, start, and the loop around `train_step.train_step`."""

import contextlib
import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import ml_collections
import numpy as np
import optax
from absl import logging

from dattt_jax.augment import train_augment
from dattt_jax.checkpoints import CheckpointStore
from dattt_jax.convert import ENCODERS, from_torch_backbone
from dattt_jax.errors import UserError
from dattt_jax.estimators import flow_gaps, flow_settings
from dattt_jax.models import create_model
from dattt_jax.parallel import AXIS, StepFn, first_replica, parallel_step, place
from dattt_jax.progress import Progress
from dattt_jax.run_settings import claim_folder
from dattt_jax.signals import StopSignals
from dattt_jax.train_log import TrainLog
from dattt_jax.train_step import (
    Metrics,
    TrainState,
    create_learning_rate_fn,
    create_optimizer,
    create_train_state,
)
from dattt_jax.validation import Validation
from dattt_jax.variables import Variables, random_variables, variable_shapes
from dattt_jax.weight_files import read_state_dict
from dattt_jax.widen import load_or_widen
from input_pipeline.datasets.train_source import PreparedTrainSource
from input_pipeline.folder_lock import held
from input_pipeline.loader import SAMPLE, make_loader
from input_pipeline.processes import InProcesses
from input_pipeline.synthetic import SyntheticConfig, SyntheticTrainSource

_LOCK = ".train.lock"
SCHEDULES = ("epoch", "step")  # how often the learning rate changes

_ENDLESS = 2**31 - 1  # samples of the synthetic source; the order does not depend on how long a run is


def train(config: ml_collections.ConfigDict, workdir: str | Path) -> TrainState:
    """Trains `config.model` until its steps are done or a signal asks to stop.

    `workdir` then holds `checkpoints/` and `best` (see `dattt_jax.checkpoints`), and what
    `dattt_jax.train_log` writes. The same call on the same workdir goes on where the last one
    stopped, bit for bit as if it had not stopped. Several processes (`main.py --coordinator=…`) call
    it together, with a workdir they all see.

    Args:
        config: see `configs/base.py`.
        workdir: the run's folder; made if it does not exist.

    Returns:
        The last state.

    Raises:
        UserError: a config field does not work; a checkpoint does not fit; the loss is not finite.
    """
    settings, devices = config.train, jax.devices()
    _check_settings(settings, len(devices))
    source, epoch_samples = make_source(config)
    total_steps = planned_steps(settings, epoch_samples)
    learning_rate_fn = create_learning_rate_fn(
        settings.learning_rate, settings.final_learning_rate, total_steps=total_steps,
        period=epoch_samples // settings.batch_size if settings.schedule == "epoch" else 1)
    optimizer = create_optimizer(learning_rate_fn, settings.weight_decay)
    model = create_model(config.model, axis_name=AXIS if settings.sync_batchnorm else None)
    validation = make_validation(config)
    identity = getattr(source, "identity", "")  # before it goes into other processes
    alone = held(Path(workdir) / _LOCK, "training") if jax.process_index() == 0 else contextlib.nullcontext()
    maker = InProcesses(source, settings.threads) if settings.processes else contextlib.nullcontext(source)
    with (alone, maker as source, CheckpointStore(workdir, config.model, keep=settings.keep) as store,
          TrainLog(Path(workdir), log_steps=settings.log_steps, batch_size=settings.batch_size,
                   learning_rate_fn=learning_rate_fn, write=jax.process_index() == 0) as log):
        _claim(config, Path(workdir), identity)
        data = make_loader(source, batch_size=settings.batch_size // jax.process_count(),
                           seed=config.seed, num_threads=settings.threads,
                           shard_index=jax.process_index(), shard_count=jax.process_count())
        state = place(_start_state(config, optimizer, store, data), devices)
        log.start(int(state.step))
        run_step = parallel_step(
            devices, model=model, optimizer=optimizer, depth_weight=settings.depth_weight,
            iou_weight=settings.iou_weight, accumulation=settings.accumulation,
            augment=functools.partial(train_augment, hue=settings.hue,
                                      resize_crop=settings.resize_crop, scramble=settings.scramble))
        loop = _Loop(run_step, jax.random.key(config.seed), source, store, log, validation)
        return loop.run(state, data, total_steps, settings.save_steps)


def planned_steps(settings: ml_collections.ConfigDict, epoch_samples: int) -> int:
    """Optimiser steps of a whole run: `config.train.steps`, or its epochs of `epoch_samples` samples."""
    return settings.steps or settings.epochs * (epoch_samples // settings.batch_size)


def make_source(config: ml_collections.ConfigDict) -> tuple[Any, int]:
    """The training data `config.data` names.

    Returns:
        (random-access source of samples, samples of an epoch). The synthetic source draws each sample
        from its number and is practically endless: every epoch has samples of its own.

    Raises:
        UserError: there is no such source, it is not prepared, or it holds less than a batch.
    """
    settings = config.train
    if config.data.dataset == "synthetic":
        samples = settings.synthetic_samples
        source = _synthetic_source(config, config.seed, _ENDLESS)
        field = f"config.train.synthetic_samples={samples}"
    else:
        source = _prepared_source(config, config.data, "config.data")
        samples = len(source)
        field = f"config.data.root={config.data.root} holds {samples} samples"
    if samples < settings.batch_size:
        raise UserError(f"{field}: a batch alone takes config.train.batch_size={settings.batch_size}")
    return source, samples


def make_validation(config: ml_collections.ConfigDict) -> Validation | None:
    """What `config.validation` asks for; None where it names no data.

    Raises:
        UserError: as `make_source`.
    """
    settings = config.validation
    if not settings.dataset:
        return None
    if settings.dataset == "synthetic":
        source = _synthetic_source(config, settings.seed, settings.samples)
    else:
        source = _prepared_source(config, settings, "config.validation")
    return Validation(create_model(config.model), source, num_samples=settings.samples,
                      batch_size=config.train.batch_size)


def _synthetic_source(config: ml_collections.ConfigDict, seed: int,
                      length: int) -> SyntheticTrainSource:
    scale = tuple(config.train.render_scale)
    if len(scale) != 2 or not 1 <= scale[0] <= scale[1]:
        raise UserError(f"config.train.render_scale={scale}: give (low, high), 1 <= low <= high")
    fields = config.synthetic.to_dict() | {"size": tuple(config.input_size)}
    options = [{}] if config.flow.method == "exact" else flow_settings(config)
    return SyntheticTrainSource(SyntheticConfig(**fields), seed, length, config.flow.method, options, scale,
                                flow_gaps(config))


def _prepared_source(config: ml_collections.ConfigDict, data: ml_collections.ConfigDict,
                     field: str) -> PreparedTrainSource:
    if data.dataset != "prepared":
        raise UserError(f"{field}.dataset={data.dataset}: training takes synthetic or prepared data; run "
                        f"--mode=prepare, then give {field}.dataset=prepared and {field}.root=its workdir")
    if not data.root:
        raise UserError(f"{field}.root is empty: name the folder that --mode=prepare wrote")
    source = PreparedTrainSource(data.root, tuple(config.input_size),
                                 require_depth=config.model.depth and config.train.depth_weight > 0)
    if source.stabilized != config.flow.stabilized:
        raise UserError(f"{field}.root={data.root} was prepared with config.flow.stabilized="
                        f"{source.stabilized}, now it is {config.flow.stabilized}: prepare it again, in "
                        "another folder, or change the field")
    if flow_gaps(config) != (1,):
        logging.info("%s.root=%s has flow to the next frame; config.flow.gaps=%s is for segment and eval",
                     field, data.root, flow_gaps(config))
    return source


def _claim(config: ml_collections.ConfigDict, workdir: Path, identity: str = "") -> None:
    """Keeps what the samples depend on in a new workdir; refuses one that was trained on others.

    Args:
        config: of the run.
        workdir: of the run.
        identity: of prepared data; '' for samples that the config describes.
    """
    settings = {name: config.to_dict()[name] for name in ("seed", "input_size", "data")}
    if identity:
        settings["data"]["root (content)"] = identity
    settings["train"] = {"batch_size": config.train.batch_size}
    if config.data.dataset == "synthetic":
        settings |= {name: config.to_dict()[name] for name in ("synthetic", "flow")}
        settings["train"]["render_scale"] = config.train.render_scale
    if jax.process_index() == 0:
        claim_folder(workdir, settings, "a training run",
                     "give another folder, and this one in config.init to start from its weights")


def _check_settings(settings: ml_collections.ConfigDict, num_devices: int) -> None:
    for name in ("epochs", "save_steps", "log_steps", "keep", "accumulation"):
        if settings[name] < 1:
            raise UserError(f"config.train.{name}={settings[name]}: give 1 or more")
    if settings.steps < 0:
        raise UserError(f"config.train.steps={settings.steps}: give 0 or more; 0 counts in epochs")
    if not 0 <= settings.scramble <= 1:
        raise UserError(f"config.train.scramble={settings.scramble}: give a probability in 0..1")
    if settings.schedule not in SCHEDULES:
        raise UserError(f"config.train.schedule: {settings.schedule!r} is not one of "
                        f"{', '.join(SCHEDULES)}")
    pieces = num_devices * settings.accumulation
    if settings.batch_size % pieces:
        raise UserError(f"config.train.batch_size={settings.batch_size}: give a multiple of the "
                        f"{num_devices} devices × config.train.accumulation={settings.accumulation}")


def _start_state(config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation,
                 store: CheckpointStore, data: grain.DatasetIterator) -> TrainState:
    """The state to start from, and `data` moved to where it belongs.

    In order of precedence:
    1. resume: the workdir holds a checkpoint of this run; everything is taken from it;
    2. `config.init` names weights of the whole network, or of one that `widen` makes as wide; the
       optimiser and the data start afresh;
    3. `config.train.backbone` names a published backbone, which goes into both encoders, and the
       decoders are random;
    4. random weights from `config.seed`.
    """
    if store.latest is not None:
        template = jax.eval_shape(functools.partial(create_train_state, optimizer=optimizer),
                                  variable_shapes(config.model))
        variables, rest = store.restore(template.variables, template.optimizer, data)
        logging.info("resuming from %s", store.latest)
        return TrainState(**variables, **rest)
    return create_train_state(_start_variables(config), optimizer)


def _start_variables(config: ml_collections.ConfigDict) -> Variables:
    """Weights of a run that is not resumed."""
    if config.init:
        logging.info("starting from the weights of %s", config.init)
        return load_or_widen(config.init, config.model, seed=config.seed)
    path = config.train.backbone
    if path:
        logging.info("starting from the backbone of %s in both encoders", path)
        state_dict = read_state_dict(path)
        head = random_variables(config.model, config.seed, without=ENCODERS)
        try:
            return from_torch_backbone(state_dict, config.model, head)
        except UserError as error:
            raise UserError(f"config.train.backbone={path}: {error}") from error
    logging.info("starting from random weights")
    return random_variables(config.model, config.seed)


class _Unsettled(NamedTuple):
    """A step whose numbers the device may still be computing."""

    step: int
    metrics: Metrics
    data_wait_s: float
    samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The training loop and what it works with."""

    run_step: StepFn
    key: jax.Array
    source: Any
    store: CheckpointStore
    log: TrainLog
    validation: Validation | None

    def run(self, state: TrainState, data: grain.DatasetIterator, total_steps: int,
            save_steps: int) -> TrainState:
        """Steps until `total_steps` or a signal; saves every `save_steps` and at the end.

        The order matters: the checkpoint of step k holds the state after k steps and the data
        position after k batches; the next batch is taken only then. Batch k + 1 is made, and handed
        to the devices, while they compute step k.
        """
        step = first = int(state.step)
        if step == 0 and self.validation is not None and self.store.latest is None:
            self._validate_start(state, data)
        elif step >= total_steps:
            logging.info("nothing left to do: the run has %d of %d steps", step, total_steps)
        unsettled, any_stop, agreed, alone = None, False, False, jax.process_count() == 1
        with StopSignals() as stop, Progress("train", total_steps, unit="step", initial=step) as progress:
            # A process alone stops at once; several when all of them know that one was asked to.
            while step < total_steps and not (stop.received if alone else agreed):
                started = time.perf_counter()
                batch = next(data)
                data_wait_s = time.perf_counter() - started
                samples = batch.pop(SAMPLE)
                if step == first:
                    logging.info("compiling the training step; a stop is heard when its first step is done")
                before = any_stop
                state, metrics, any_stop = self.run_step(state, batch, self.key, stop.received is not None)
                step += 1
                self._settle(unsettled)  # the step before, while the devices compute this one
                agreed = bool(before)
                unsettled = _Unsettled(step, metrics, data_wait_s, samples)
                if step % save_steps == 0:
                    self._settle(unsettled)  # nothing that is not finite is saved
                    unsettled = None
                    self._save(state, data, validate=True)
                progress.update(note=self.log.note)
            self._settle(unsettled, last=True)
            if step == total_steps:
                self.log.finish()
            self._save(state, data, validate=step == total_steps)
            self.store.wait()
        if step < total_steps:
            logging.warning("stopped by %s after step %d of %d, which is saved: run the same command "
                            "again to go on", stop.received or "another process", step, total_steps)
        else:
            best = self.store.best
            logging.info("trained %d steps: %s%s", step, self.store.latest,
                         f"; best in validation: {best}" if best else "")
        return state

    def _save(self, state: TrainState, data: grain.DatasetIterator, *, validate: bool) -> None:
        step, scores = int(state.step), None
        if self.store.latest is not None and step == int(self.store.latest.name):
            return
        if validate and self.validation is not None:
            started = time.perf_counter()
            scores = self.validation(first_replica(state.variables))
            self.log.add_validation(step, scores, time.perf_counter() - started)
        self.store.save(step, state.variables, state.optimizer, data, scores)

    def _validate_start(self, state: TrainState, data: grain.DatasetIterator) -> None:
        """Scores the weights before the first step, and what the flow alone gives: what to beat.

        They are saved too: where training makes weights worse, the best ones are those of the start.
        """
        started = time.perf_counter()
        scores = self.validation(first_replica(state.variables))
        self.log.add_validation(0, scores, time.perf_counter() - started,
                                self.validation.flow_threshold())
        self.store.save(0, state.variables, state.optimizer, data, scores)

    def _settle(self, unsettled: _Unsettled | None, *, last: bool = False) -> None:
        """Waits for a step's numbers, checks that they are finite, and logs them."""
        if unsettled is None:
            return
        step = unsettled.step
        values = {name: float(value) for name, value in jax.device_get(unsettled.metrics).items()}
        if not np.isfinite(list(values.values())).all():
            self.store.wait()
            latest = self.store.latest
            saved = f"the last good checkpoint is {latest}" if latest else "none is saved"
            names = ", ".join(self.source.name(int(i)) for i in unsettled.samples)
            raise UserError(f"training diverged: loss {values['loss']}, gradient norm "
                            f"{values['grad_norm']} at step {step} (samples {names}); {saved}; lower "
                            "config.train.learning_rate (in a new --workdir, with config.init)")
        self.log.add(step, values, unsettled.data_wait_s, last=last)
