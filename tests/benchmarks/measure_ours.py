"""One measurement of this project in a process of its own; `bench_compare.py` starts it."""

from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import workload
from workload import Options  # isort: split

from golden_model import state_dict  # found where `workload` looks

from configs import base
from dattt_jax.augment import train_augment
from dattt_jax.convert import from_torch
from dattt_jax.host_memory import start_with_huge_pages, trim_around_compiling
from dattt_jax.inference import Network
from dattt_jax.models import create_model, encode
from dattt_jax.parallel import AXIS, parallel_step, place
from dattt_jax.train_step import create_optimizer, create_train_state, loss_fn
from dattt_jax.ttt import adapt_step, create_strategy, fresh_state

_DEPTH_WEIGHT = 0.1


class Video:
    """A video as the engine reads it."""

    def __init__(self, frames):
        self._images, self._flows = workload.video(frames)

    def __len__(self):
        return len(self._images)

    def read(self, indices):
        return {"image": self._images[indices], "flow": self._flows[indices]}

    def frame(self):
        return {name: x[0] for name, x in self.read(np.array([0])).items()}


def settings(options):
    """The default configuration of this backbone and type."""
    config = base.get_config()
    config.model.backbone = options.backbone
    config.model.drop_path = 0.2 if options.backbone == "swin_t" else 0.1
    config.model.dtype = "bfloat16" if options.bfloat16 else "float32"
    config.ttt.batch_size, config.ttt.steps = options.batch, options.steps
    return config


def variables(config, options):
    weights = state_dict(workload.GOLDEN_NAMES[options.backbone], "alpha+beta")
    return jax.device_put(from_torch(weights, config.model))


def problem(config, options):
    network = Network(create_model(config.model), {}, (options.size, options.size))
    return network.problem(config.ttt, adapts=True)


def ttt_step(options):
    config = settings(options)
    task = problem(config, options)
    state, frozen = fresh_state(task, variables(config, options))
    carry, frame = [state], Video(1).frame()
    program = jax.jit(partial(adapt_step, task), donate_argnums=0)

    def work():
        carry[0], (loss, _) = program(carry[0], frozen, frame, jnp.int32(0), jax.random.key(0))
        loss.block_until_ready()

    return work, lambda: count(partial(adapt_step, task), carry[0], frozen, frame, jnp.int32(0),
                               jax.random.key(0))


def train_step(options):
    config = settings(options)
    optimizer = create_optimizer(config.train.learning_rate, config.train.weight_decay)
    devices = jax.devices()[:1]
    run_step = parallel_step(devices, model=create_model(config.model, axis_name=AXIS), optimizer=optimizer,
                             depth_weight=_DEPTH_WEIGHT, iou_weight=0.0, accumulation=1,
                             augment=partial(train_augment, hue=True, resize_crop=False))
    carry = [place(create_train_state(variables(config, options), optimizer), devices)]
    batch = workload.training_batch(options.batch, options.size)

    def work():
        carry[0], metrics, _ = run_step(carry[0], batch, jax.random.key(0))
        metrics["loss"].block_until_ready()

    def flops():
        """Of the gradient; augmentation and optimiser are left out."""
        inputs = jax.tree.map(jnp.float32, batch)
        gradient = jax.grad(partial(loss_fn, model=create_model(config.model), depth_weight=_DEPTH_WEIGHT),
                            has_aux=True)
        state = jax.device_get(carry[0])
        return count(gradient, state.params, state.batch_stats, inputs,
                     jax.random.split(jax.random.key(0), options.batch))

    return work, flops


def base_frame(options):
    config = settings(options)
    task, weights, frame = problem(config, options), variables(config, options), Video(1).frame()

    def predict(weights, frame):
        return task.predict(weights, frame, task.context(weights, frame))

    program = jax.jit(predict)
    return lambda: np.asarray(program(weights, frame)), lambda: count(predict, weights, frame)


def video(options):
    config = settings(options)
    network = Network(create_model(config.model), variables(config, options), (options.size, options.size))
    strategy = create_strategy(options.what.removeprefix("video_"), steps=options.steps,
                               groups=config.ttt.groups)
    engine, frames = network.engine(config.ttt, adapts=strategy.steps > 0), Video(options.frames)

    def work():
        for _ in engine.run(network.variables, frames, strategy, jax.random.key(0)):
            pass

    return work, None


def flow(options):
    """One pair of frames through RAFT (small)."""
    from raft_golden import variables as raft_variables

    from input_pipeline.flow.raft_flow import RaftFlow

    method = RaftFlow("raft_small", raft_variables("raft_small"), "recipe",
                      iterations=workload.RAFT_ITERATIONS, batch_size=1, volume_gib=6.0,
                      dtype="bfloat16" if options.bfloat16 else "float32")
    images, _ = workload.video(2)
    return lambda: method(*images), None


def metrics(options):
    """J and boundary F of four pairs of masks."""
    from bench_metrics import cases

    from dattt_jax.metrics.scoring import score_frame

    pairs = list(cases().values())

    def work():
        for prediction, target in pairs:
            score_frame(prediction, target)

    return work, None


def count(function, *arguments):
    """Operations of the compiled program, by XLA's own count.

    XLA counts the body of a loop once, so the program is compiled with all images in one call, as
    accelerators run it; what the CPU's pieces compute again in the backward pass is not counted.
    """
    with mock.patch.multiple(encode, _SMALL=2**62, _PIXELS=2**62):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


WORK = {"ttt_step": ttt_step, "train_step": train_step, "base_frame": base_frame, "flow": flow,
        "metrics": metrics}


def matrix_product(options):
    matrix = jax.random.normal(jax.random.key(0), (options.matrix, options.matrix),
                               jnp.bfloat16 if options.bfloat16 else jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: product(matrix, matrix).block_until_ready()


def main():
    options = Options.from_command_line()
    trim_around_compiling()
    work, flops = WORK.get(options.what, video)(options)
    device, on_host = jax.local_devices()[0], options.device == "cpu"
    workload.answer(options, work, flops=flops, device=device.device_kind,
                    matrix_product=partial(matrix_product, options),
                    peak_gib=None if on_host else lambda: device.memory_stats()["peak_bytes_in_use"] / 2**30)


if __name__ == "__main__":
    start_with_huge_pages()
    main()
