"""A tiny problem and tiny videos for tests of `--mode=eval`: no network, so nothing takes long to compile."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from configs import demo
from dattt_jax.evaluate import make_plan, run_plan
from dattt_jax.ttt import Engine, Problem

HEIGHT, WIDTH = 48, 64


class Levels:
    """Minimise the distance between a level and the brightness of a random half of the frame."""

    def sample(self, frame, step, key):
        keep = jax.random.bernoulli(key, shape=frame["image"].shape)
        return jnp.sum(frame["image"] / 255 * keep) / jnp.sum(keep)

    def loss(self, variables, batch, key):
        return (variables["params"]["level"] - batch) ** 2


def _predict(variables, frame, context):
    """Object where the frame is brighter than the level and the flow's rendering is not grey."""
    brightness, motion = frame["image"].mean(-1) / 255, context
    return jax.nn.sigmoid(20 * (brightness + 0.1 * motion - variables["params"]["level"]))


PROBLEM = Problem(objective=Levels(), trainable=lambda path: True,
                  context=lambda variables, frame: jnp.std(frame["flow"] / 255, axis=-1), predict=_predict,
                  optimizer=optax.adam(0.05))
VARIABLES = {"params": {"level": np.float32(0.3)}}


def tiny_config(weights):
    """A configuration of two synthetic clips of three frames, on one device; `weights` looks like some."""
    (weights / "variables").mkdir(parents=True, exist_ok=True)
    config = demo.get_config()
    config.synthetic.size, config.synthetic.num_frames = (HEIGHT, WIDTH), 3
    config.synthetic.texture_pool = 1
    config.ttt.steps = 1
    config.eval.strategies, config.eval.clips, config.eval.devices = ("base", "n"), 2, 1
    config.init = str(weights)
    return config


def tiny_evaluate(config, workdir, propagation=None, problem=PROBLEM):
    """`evaluate` of the tiny problem."""
    engine = Engine(problem, chunk=2, per_step=config.eval.curves)
    return run_plan(config, workdir, make_plan(config), engine, jax.tree.map(jnp.asarray, VARIABLES),
                    propagation)


def folder_config(config, root, **changes):
    """The configuration with the videos of a folder and changes of `config.eval`."""
    config = config.copy_and_resolve_references()
    config.data.dataset, config.data.root = "folder", str(root)
    config.eval.update(changes)
    return config


def write_clip(root, name, count, masks, level=255, seed=0):
    """A clip in `root`/frames and `root`/masks: noise that moves to the right, masks of some frames."""
    texture = np.random.default_rng(seed).integers(0, 150, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for part in ("frames", "masks"):
        (root / part / name).mkdir(parents=True, exist_ok=True)
    for t in range(count):
        frame, mask = np.roll(texture, t * (seed + 1), 1), np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[8:24, 5 + 2 * t : 25 + 2 * t] = level
        frame[10:24, 5 + 2 * t : 29 + 2 * t] += np.uint8(100)
        Image.fromarray(frame).save(root / "frames" / name / f"{t:05d}.png")
        if t in masks:
            Image.fromarray(mask).save(root / "masks" / name / f"{t:05d}.png")


def without_times(record):
    """A video's record without what differs from run to run."""
    return {key: value for key, value in record.items() if "seconds" not in key}
