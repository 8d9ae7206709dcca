"""A small network on synthetic video: to see training and evaluation at work in minutes on 2 CPU cores.

MiT-b0 with narrow decoders at 128×128, from random weights, with a learning rate for that. No numbers of
the paper apply to it.

    python main.py --mode=train --config=configs/demo.py --workdir=runs/small
    python main.py --mode=eval --config=configs/demo.py --config.init=runs/small --workdir=runs/small/eval
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration, made small."""
    config = base.get_config()
    config.input_size = (128, 128)
    config.model.backbone = "mit_b0"
    config.model.decoder_features = 64
    config.model.drop_path = 0.0  # the network is too small to need it
    config.synthetic.size = (128, 128)
    config.synthetic.num_frames = 6
    config.ttt.batch_size = 4
    config.eval.clips = 3
    config.train.batch_size = 8
    config.train.epochs = 3
    config.train.synthetic_samples = 1360
    config.train.learning_rate = 1e-3
    config.train.final_learning_rate = 1e-5
    config.train.save_steps = 85  # twice per epoch, each time with a validation of about two seconds
    config.validation.dataset = "synthetic"
    config.validation.samples = 64
    return config
