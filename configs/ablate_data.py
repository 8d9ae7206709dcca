"""What the synthetic data owes to one factor: the same short training without it.

    for factor in everything one_flow_size still_camera camera_in_flow blobs nothing_else_moves; do
        python main.py --mode=train --config=configs/ablate_data.py:$factor --workdir=runs/$factor
        python main.py --mode=eval --config=configs/ablate_data.py:$factor --config.init=runs/$factor \
            --workdir=runs/$factor/clips --config.data.dataset=folder --config.data.root=CLIPS \
            --config.eval.frames=annotated
    done

dattt_jax/pretrained/README.md has the table.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import dattt_synth_b0
from dattt_jax.errors import UserError


def _still_camera(config: ConfigDict) -> None:
    """Cameras as in the first version: most on a tripod, none that follows the object."""
    config.synthetic.static_camera_probability = 0.6
    config.synthetic.tracking_probability = 0.0


def _one_flow_size(config: ConfigDict) -> None:
    """Flow estimated at the size of the samples: blurred, where that of real video is sharp."""
    config.train.render_scale = (1.0, 1.0)


def _camera_in_flow(config: ConfigDict) -> None:
    """Flow as it is estimated, the camera's motion in it, in training and at inference."""
    config.flow.stabilized = False


def _blobs(config: ConfigDict) -> None:
    """Objects without limbs or parts."""
    config.synthetic.object_kinds = ("blob",)


def _nothing_else_moves(config: ConfigDict) -> None:
    """No plants in the wind, passers-by, water."""
    config.synthetic.mover_probability = 0.0
    config.synthetic.drift_probability = 0.0


def _everything(config: ConfigDict) -> None:
    """The data as they are."""


_FACTORS: dict[str, Callable[[ConfigDict], None]] = {
    "everything": _everything, "still_camera": _still_camera, "one_flow_size": _one_flow_size,
    "camera_in_flow": _camera_in_flow, "blobs": _blobs, "nothing_else_moves": _nothing_else_moves}


def get_config(factor: str = "everything") -> ConfigDict:
    """A short training from random weights at 96×96 without `factor`; raises a UserError for others."""
    if factor not in _FACTORS:
        raise UserError(f"configs/ablate_data.py:{factor}: the factors are {', '.join(_FACTORS)}")
    config = dattt_synth_b0.get_config()
    config.init = ""
    config.input_size = (96, 96)
    config.synthetic.num_frames = 24
    config.flow.gaps = (1, -1, 2, -2)
    config.flow.sides = ()
    config.train.batch_size = 8
    config.train.schedule = "step"
    config.train.steps = 400
    config.train.learning_rate, config.train.final_learning_rate = 1e-3, 5e-5
    config.train.render_scale = (2.0, 2.0)
    config.eval.strategies, config.eval.overlays = ("base",), False
    _FACTORS[factor](config)
    return config
