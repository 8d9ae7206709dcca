"""How the weights in the box were trained: on synthetic video alone, from random weights.

`dattt-synth-b0` in four stages, each from the weights of the one before:

    python main.py --mode=train --config=configs/train_synth.py:128 --workdir=runs/synth128
    python main.py --mode=train --config=configs/train_synth.py:256 --workdir=runs/synth256 \
        --config.init=runs/synth128
    python main.py --mode=train --config=configs/train_synth.py:more --workdir=runs/more \
        --config.init=runs/synth256
    python main.py --mode=train --config=configs/train_synth.py:scrambled --workdir=runs/scrambled \
        --config.init=runs/more
    python main.py --mode=export --config=configs/train_synth.py:scrambled --config.init=runs/scrambled \
        --workdir=OUT

`dattt-synth-b1` starts from those, widened, and goes into files small enough for the repository:

    python main.py --mode=train --config=configs/train_synth.py:b1 --workdir=runs/b1 \
        --config.init=runs/scrambled
    python main.py --mode=export --config=configs/train_synth.py:b1 --config.init=runs/b1 --workdir=OUT \
        --config.export.part_mb=16

To train what is in the box further, name it in `config.init`, with another `config.seed` for clips that it
has not seen.
"""

from ml_collections import ConfigDict

from configs import dattt_synth_b0, dattt_synth_b1
from dattt_jax.errors import UserError

# Name -> (side of the input, steps, learning rate at the start and at the end, rendered size over the side).
_STAGES = {"128": (128, 7000, 1e-3, 5e-5, 2.0), "256": (256, 1200, 2e-4, 1e-5, 1.5),
           "more": (256, 1600, 4e-4, 1e-5, 1.5), "scrambled": (256, 800, 3e-4, 1e-5, 1.5),
           "long": (192, 4800, 5e-4, 1e-4, 1.5), "last": (320, 1200, 3e-4, 5e-6, 1.5),
           "b1": (256, 300, 2e-4, 1e-5, 1.5)}


def get_config(stage: str = "scrambled") -> ConfigDict:
    """One of the stages of `_STAGES`; raises a UserError for another."""
    if stage not in _STAGES:
        raise UserError(f"configs/train_synth.py:{stage}: the stages are {', '.join(_STAGES)}")
    config = (dattt_synth_b1 if stage == "b1" else dattt_synth_b0).get_config()
    config.init = ""
    config.seed = {"more": 1, "scrambled": 3, "b1": 4, "long": 5, "last": 6}.get(stage, 0)
    config.train.scramble = 0.6 if stage in ("scrambled", "b1", "long", "last") else 0.0
    if stage in ("long", "last"):
        config.synthetic.object_area = (0.006, 0.6)
    config.synthetic.num_frames = 24
    side, steps, learning_rate, final_learning_rate, render_scale = _STAGES[stage]
    config.input_size = (side, side)
    config.train.batch_size = 8
    config.train.processes = True
    config.train.schedule = "step"
    config.train.steps = steps
    config.train.learning_rate, config.train.final_learning_rate = learning_rate, final_learning_rate
    config.train.render_scale = render_scale
    config.validation.dataset = "synthetic"
    config.validation.samples = 128
    return config
