"""How the weights in the box, `dattt-synth-b0`, were trained: on synthetic video alone, from random weights.

Two stages, the second from the weights of the first at twice the size:

    python main.py --mode=train --config=configs/train_synth_b0.py:128 --workdir=runs/synth128
    python main.py --mode=train --config=configs/train_synth_b0.py:256 --workdir=runs/synth256 \
        --config.init=runs/synth128
    python main.py --mode=export --config=configs/train_synth_b0.py:256 --config.init=runs/synth256 \
        --workdir=OUT

To train them further, start the second stage from `--config.init=dattt-synth-b0`.
"""

from ml_collections import ConfigDict

from configs import dattt_synth_b0
from dattt_jax.errors import UserError

# Side of the input -> (steps, learning rate at the start and at the end, rendered size over it).
_STAGES = {"128": (7000, 1e-3, 5e-5, 2.0), "256": (1200, 2e-4, 1e-5, 1.5)}


def get_config(stage: str = "256") -> ConfigDict:
    """The stage at `128` or `256` pixels; raises a UserError for another."""
    if stage not in _STAGES:
        raise UserError(f"configs/train_synth_b0.py:{stage}: the stages are {' and '.join(_STAGES)}")
    config = dattt_synth_b0.get_config()
    config.init = ""
    config.synthetic.num_frames = 24
    config.input_size = (int(stage), int(stage))
    config.train.batch_size = 8
    config.train.schedule = "step"
    (config.train.steps, config.train.learning_rate, config.train.final_learning_rate,
     config.train.render_scale) = _STAGES[stage]
    config.validation.dataset = "synthetic"
    config.validation.samples = 128
    return config
