"""How the weights in the box were trained: on synthetic video alone, from random weights.

`dattt-synth-b0` in ten stages, each from the weights of the one before:

    python main.py --mode=train --config=configs/train_synth.py:128 --workdir=runs/128
    python main.py --mode=train --config=configs/train_synth.py:256 --workdir=runs/256 --config.init=runs/128
    ...                                                        more, scrambled, long, last, varied, farther,
                                                               surer, steadier
    python main.py --mode=export --config=configs/train_synth.py --config.init=runs/steadier --workdir=OUT \
        --config.export.mask_bias=1.25

`dattt-synth-b1` starts from those of the stage `steadier`, widened, and goes into files small enough for the
repository:

    python main.py --mode=train --config=configs/train_synth.py:b1 --workdir=runs/b1 \
        --config.init=runs/steadier
    python main.py --mode=export --config=configs/train_synth.py:b1 --config.init=runs/b1 --workdir=OUT \
        --config.export.mask_bias=1.25 --config.export.part_mb=16

To train what is in the box further, name it in `config.init`, with another `config.seed` for clips that it
has not seen.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import dattt_synth_b0, dattt_synth_b1
from dattt_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Stage:
    """What tells the stages apart.

    Attributes:
        side: of the input, pixels.
        steps: of the cosine schedule.
        learning_rate: at the start.
        final_learning_rate: at the end.
        seed: of the clips.
        render_scale: frames are rendered so much larger than the input, (low, high).
        scramble: share of the images whose appearance is scrambled.
        smallest: object, fraction of the frame.
        iou_weight: of soft Jaccard beside the losses of the paper.
        graphics: share of the clips with bars, a logo or text on them.
        gaps: frames that flow leads to, one of them drawn for each sample.
        stabilized: whether the camera's motion is taken out of the flow.
    """

    side: int
    steps: int
    learning_rate: float
    final_learning_rate: float
    seed: int
    render_scale: tuple[float, float] = (1.5, 1.5)
    scramble: float = 0.0
    smallest: float = 0.02
    iou_weight: float = 0.0
    graphics: float = 0.0
    gaps: tuple[int, ...] = (1, -1, 2, -2)
    stabilized: bool = True


_STAGES = {
    "128": _Stage(128, 7000, 1e-3, 5e-5, 0, render_scale=(2.0, 2.0), gaps=(1,), stabilized=False),
    "256": _Stage(256, 1200, 2e-4, 1e-5, 0, gaps=(1,), stabilized=False),
    "more": _Stage(256, 1600, 4e-4, 1e-5, 1),
    "scrambled": _Stage(256, 800, 3e-4, 1e-5, 3, scramble=0.6),
    "long": _Stage(192, 4800, 5e-4, 1e-4, 5, scramble=0.6, smallest=0.006),
    "last": _Stage(320, 1200, 3e-4, 5e-6, 6, scramble=0.6, smallest=0.006),
    "varied": _Stage(288, 2600, 4e-4, 5e-6, 7, render_scale=(1.0, 2.2), scramble=0.6, smallest=0.006,
                     graphics=0.2),
    "farther": _Stage(288, 2600, 4e-4, 5e-6, 8, render_scale=(1.0, 2.2), scramble=0.6, smallest=0.003,
                      iou_weight=0.2, graphics=0.2, gaps=(1, -1, 3, -3)),
    "surer": _Stage(288, 3600, 4e-4, 5e-6, 9, render_scale=(1.0, 2.2), scramble=0.6, smallest=0.003,
                    iou_weight=0.5, graphics=0.2, gaps=(1, -1, 3, -3)),
    "steadier": _Stage(288, 1900, 4e-4, 5e-6, 10, render_scale=(1.0, 2.2), scramble=0.6, smallest=0.003,
                       iou_weight=0.5, graphics=0.2, gaps=(1, -1, 3, -3)),
    "b1": _Stage(288, 600, 3e-4, 5e-6, 11, render_scale=(1.0, 2.2), scramble=0.6, smallest=0.003,
                 iou_weight=0.5, graphics=0.2, gaps=(1, -1, 3, -3)),
}


def get_config(stage: str = "steadier") -> ConfigDict:
    """One of the stages of `_STAGES`; raises a UserError for another."""
    if stage not in _STAGES:
        raise UserError(f"configs/train_synth.py:{stage}: the stages are {', '.join(_STAGES)}")
    config, chosen = (dattt_synth_b1 if stage == "b1" else dattt_synth_b0).get_config(), _STAGES[stage]
    config.init = ""
    config.seed = chosen.seed
    config.flow.stabilized = chosen.stabilized
    config.flow.gaps = chosen.gaps
    config.flow.sides, config.flow.parallax_probes = (), 0
    config.input_size = (chosen.side, chosen.side)
    config.synthetic.num_frames = 24
    config.synthetic.object_area = (chosen.smallest, 0.6)
    config.synthetic.graphics_probability = chosen.graphics
    config.train.scramble = chosen.scramble
    config.train.iou_weight = chosen.iou_weight
    config.train.batch_size = 8
    config.train.processes = True
    config.train.schedule = "step"
    config.train.steps = chosen.steps
    config.train.learning_rate = chosen.learning_rate
    config.train.final_learning_rate = chosen.final_learning_rate
    config.train.render_scale = chosen.render_scale
    config.validation.dataset = "synthetic"
    config.validation.samples = 128
    return config
