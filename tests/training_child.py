"""What the process tests start: training of the tiny network in a process of its own.

Arguments: settings as JSON: `workdir`, `init`, `steps`, `save_steps`, `devices`, `sgd` (in place of AdamW,
which makes whole steps of the rounding errors of gradients that are zero), and for several processes
`coordinator`, `processes`, `process`. With `serve` in place of settings it reads workdirs from standard input
and trains in a forked child for each, whose number it prints: modules are imported once, JAX starts in the
child.
"""

import json
import os
import sys


def train_tiny(settings):
    devices = f" --xla_force_host_platform_device_count={settings.get('devices', 1)}"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + devices
    sys.modules["tensorboardX"] = None  # as where it is not installed: it imports torch, for seconds
    import optax
    import tiny
    from absl import logging

    from dattt_jax import train as train_module
    from dattt_jax.models import mit
    from dattt_jax.parallel import join_processes

    logging.set_verbosity(logging.INFO)
    if "coordinator" in settings:
        os.environ["JAX_COORDINATOR_BIND_ADDRESS"] = settings["coordinator"]  # loopback only
        join_processes(settings["coordinator"], settings["processes"], settings["process"])
    mit.MIT_SIZES["mit_b0"] = tiny.SIZES
    config = tiny.tiny_config()
    config.init = settings["init"]
    config.model.drop_path = 0.2
    config.train.update({"steps": settings["steps"], "save_steps": settings.get("save_steps", 2),
                         "log_steps": 1})
    if settings.get("sgd"):
        train_module.create_optimizer = lambda learning_rate, weight_decay: optax.sgd(0.05)
    train_module.train(config, settings["workdir"])


def serve():
    import dattt_jax.train  # noqa: F401  imported before the fork

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            train_tiny(json.loads(line))
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    sys.path[:0] = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    serve() if sys.argv[1] == "serve" else train_tiny(json.loads(sys.argv[1]))
