"""All that concerns several devices and processes: where the batch goes, what is the same everywhere.

One `pmap` over all devices of all processes. The state has no device axis: each process holds it
replicated over its own devices, and feeds them its own part of the batch.
"""

import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from dattt_jax.errors import UserError
from dattt_jax.train_step import Batch, Metrics, TrainState, train_step

# (state, this process's batch, key, stop) -> (state, metrics, stop of any process)
StepFn = Callable[[TrainState, Batch, jax.Array, bool], tuple[TrainState, Metrics, jax.Array]]

AXIS = "batch"  # the pmap axis
_JOIN_S = 300.0  # how long processes wait for each other


def join_processes(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several that train together; before anything else uses a device.

    Args:
        coordinator: `host:port` of process 0, or 'auto' to ask the cluster for all three.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        UserError: an argument is wrong, or process 0 does not answer within five minutes.
    """
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
            return
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or num_processes is None or process_id is None:
            raise ValueError("give host:port, --num_processes and --process_id, or 'auto' on a cluster")
        if process_id > 0:
            _wait_for(host, int(port), _JOIN_S)
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if coordinator == "auto":
            reason = f"no cluster was found ({reason}); give host:port, --num_processes and --process_id"
        raise UserError(f"--coordinator={coordinator}: {reason}") from error


def _wait_for(host: str, port: int, seconds: float) -> None:
    """Waits until somebody listens there: JAX would end the process if nobody does."""
    deadline = time.monotonic() + seconds
    logging.info("waiting for process 0 at %s:%d", host, port)
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(f"process 0 does not answer ({error}); is it started, and the address "
                                 "right?") from error
            time.sleep(0.5)


def parallel_step(devices: list[jax.Device], **step_args: Any) -> StepFn:
    """`train_step` over `devices`.

    Args:
        devices: of all processes, as many of each; `jax.devices()` for all of them.
        step_args: the keyword arguments of `train_step` without `axis_name`.

    Returns:
        (state, batch, key, stop) -> (state, metrics, any_stop). The state is donated. The batch is this
        process's part, every n-th sample of the whole batch for n processes (as `input_pipeline.loader`
        hands them out), without `position`; it is split evenly over the process's devices. `any_stop` is
        true on every process if `stop` was on one, so that all of them stop after the same step.
    """
    def step_and_vote(state: TrainState, batch: Batch, key: jax.Array, stop: jax.Array
                      ) -> tuple[TrainState, Metrics, jax.Array]:
        new_state, metrics = train_step(state, batch, key, axis_name=AXIS, **step_args)
        return new_state, metrics, jax.lax.pmax(stop, AXIS)

    step = jax.pmap(step_and_vote, axis_name=AXIS, in_axes=(None, 0, None, None), out_axes=None,
                    donate_argnums=(0,), devices=devices)
    num_local = len(_local(devices))

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(num_local, x.shape[0] // num_local, *x.shape[1:])

    def run(state: TrainState, batch: Batch, key: jax.Array, stop: bool = False
            ) -> tuple[TrainState, Metrics, jax.Array]:
        position = np.arange(len(batch["image"]), dtype=np.int32)
        position = position * jax.process_count() + jax.process_index()
        return step(state, jax.tree.map(split, batch | {"position": position}), key, np.int32(stop))

    return run


def place(tree: Any, devices: list[jax.Device]) -> Any:
    """Copies every array of a pytree to this process's devices, laid out as `parallel_step` returns it."""
    mesh = jax.sharding.Mesh(np.array(_local(devices)), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def first_replica(tree: Any) -> Any:
    """One device's copy of every array of a pytree that is the same on all devices, without copying."""
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def _local(devices: list[jax.Device]) -> list[jax.Device]:
    return [device for device in devices if device.process_index == jax.process_index()]
