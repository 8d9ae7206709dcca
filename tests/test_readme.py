"""The README's example objective, run as it stands there."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from golden_model import random_variables

from configs import demo
from dattt_jax.inference import Network, depth_ttt_problem, prepare
from dattt_jax.models import create_model
from dattt_jax.ttt import Engine, create_strategy

README = (Path(__file__).parent.parent / "README.md").read_text()


class Frames:
    def __len__(self):
        return 2

    def read(self, indices):
        rng = np.random.default_rng(0)
        return {name: rng.integers(0, 255, (len(indices), 20, 30, 3), dtype=np.uint8)
                for name in ("image", "flow")}


def test_the_example_objective_runs_and_lowers_the_entropy():
    [example] = re.findall(r"```python\n(.*?)```", README, re.S)
    config = demo.get_config()
    config.input_size, config.model.decoder_features = (32, 32), 8
    network = Network(create_model(config.model), random_variables(config.model), config.input_size)
    example = example.replace("    ...  ", "    results.append(result)  ").replace("learning_rate=1e-5",
                                                                                 "learning_rate=1e-3")
    names = {"jax": jax, "jnp": jnp, "dataclasses": dataclasses, "prepare": prepare, "Engine": Engine,
             "depth_ttt_problem": depth_ttt_problem, "create_strategy": create_strategy, "config": config,
             "load_network": lambda config: network, "frames": Frames(), "results": []}
    exec(example, names)
    assert [r.index for r in names["results"]] == [0, 1]
    for r in names["results"]:
        assert r.applied.all()
    first = names["results"][0].losses
    assert first[-1] < first[0]


def test_every_command_names_a_real_mode_and_config():
    root = Path(__file__).parent.parent
    for mode in re.findall(r"--mode=(\w+)", README):
        assert f'"{mode}": ' in (root / "main.py").read_text()
    for path in re.findall(r"configs/\w+\.py", README):
        assert (root / path).exists()
