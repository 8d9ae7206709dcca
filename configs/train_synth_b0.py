"""How the weights in the box, `dattt-synth-b0`, were trained: on synthetic video alone, from random weights.

Two stages, the second from the weights of the first at twice the size:

    python main.py --mode=train --config=configs/train_synth_b0.py:128 --workdir=runs/synth128
    python main.py --mode=train --config=configs/train_synth_b0.py:256 --workdir=runs/synth256 \
        --config.init=runs/synth128
    python main.py --mode=export --config=configs/train_synth_b0.py:256 --config.init=runs/synth256 \
        --workdir=OUT

To train the weights in the box further, on clips they have not seen:

    python main.py --mode=train --config=configs/train_synth_b0.py:more --workdir=runs/more --config.seed=2
"""

from ml_collections import ConfigDict

from configs import dattt_synth_b0
from dattt_jax.errors import UserError

# Name -> (side of the input, steps, learning rate at the start and at the end, rendered size over the side).
_STAGES = {"128": (128, 7000, 1e-3, 5e-5, 2.0), "256": (256, 1200, 2e-4, 1e-5, 1.5),
           "more": (256, 2600, 4e-4, 1e-5, 1.5)}


def get_config(stage: str = "more") -> ConfigDict:
    """The stage called `128`, `256` or `more`; raises a UserError for another."""
    if stage not in _STAGES:
        raise UserError(f"configs/train_synth_b0.py:{stage}: the stages are {', '.join(_STAGES)}")
    config = dattt_synth_b0.get_config()
    if stage == "more":
        config.seed = 1
    else:
        config.init = ""
    config.synthetic.num_frames = 24
    side, steps, learning_rate, final_learning_rate, render_scale = _STAGES[stage]
    config.input_size = (side, side)
    config.train.batch_size = 8
    config.train.schedule = "step"
    config.train.steps = steps
    config.train.learning_rate, config.train.final_learning_rate = learning_rate, final_learning_rate
    config.train.render_scale = render_scale
    config.validation.dataset = "synthetic"
    config.validation.samples = 128
    return config
