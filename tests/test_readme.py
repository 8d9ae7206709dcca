"""The README: its example objective, run as it stands there, and what it names."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import tiny

from dattt_jax.inference import Network
from dattt_jax.models import create_model
from dattt_jax.ttt import OBJECTIVES, create_strategy

README = (Path(__file__).parent.parent / "README.md").read_text()
IMPORTS = """
import jax
import jax.numpy as jnp

from dattt_jax.ttt.objectives import Objective
from dattt_jax.ttt.objectives.filters import is_image_encoder

"""


class Video:
    def __len__(self):
        return 2

    def read(self, indices):
        rng = np.random.default_rng(0)
        return {name: rng.integers(0, 255, (len(indices), 40, 48, 3), dtype=np.uint8)
                for name in ("image", "flow")}


def test_a_file_and_a_line_are_enough(tmp_path, monkeypatch, tiny_backbone):
    [example] = re.findall(r"```python\n(.*?)```", README, re.S)
    (tmp_path / "example_entropy.py").write_text(IMPORTS + example)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(OBJECTIVES, "entropy", "example_entropy:Entropy")
    config = tiny.tiny_config()
    config.ttt.update({"objective": "entropy", "steps": 2, "learning_rate": 1e-3})
    network = Network(create_model(config.model), tiny.filled(config.model), (32, 32))
    engine = network.engine(config.ttt, adapts=True)
    results = list(engine.run(network.variables, Video(), create_strategy("mwi", steps=2, groups=1),
                              jax.random.key(0)))
    sys.modules.pop("example_entropy")
    assert [r.index for r in results] == [0, 1] and all(r.applied.all() for r in results)
    first = results[0].losses
    assert 0 < first[1] < first[0] <= np.log(2)


def test_every_command_names_a_real_mode_and_config():
    root = Path(__file__).parent.parent
    for mode in re.findall(r"--mode=(\w+)", README):
        assert f'"{mode}": ' in (root / "main.py").read_text()
    for path in re.findall(r"configs/\w+\.py", README):
        assert (root / path).exists()
