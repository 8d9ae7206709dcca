r"""DATTT with MiT-b1 fine-tuned on the 30 training videos of DAVIS-16.

Reference (paper, Table 5, J / F): MiT-b1 86.0 / 87.9 on DAVIS-16 and Swin-T 85.8 / 88.5, after YouTube-VOS.
The paper does not say how long; the recipe is that of the training before it, with the cosine per step,
since an epoch is short.

    python main.py --mode=prepare --config=configs/finetune_davis16.py --workdir=data/davis16_train \
        --config.data.dataset=davis16 --config.data.root=DAVIS --config.data.split=train
    python main.py --mode=train --config=configs/finetune_davis16.py --workdir=runs/dattt_mit_b1_davis16 \
        --config.data.dataset=prepared --config.data.root=data/davis16_train --config.init=runs/dattt_mit_b1

For Swin-T add --config.model.backbone=swin_t --config.model.drop_path=0.2. Without depth maps add
--config.train.depth_weight=0.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration with a schedule for few samples."""
    config = base.get_config()
    config.train.schedule = "step"
    config.train.save_steps = 250  # about an epoch of 2,079 frames
    return config
