r"""DATTT with Swin-T.

Reference (paper, J / F): DAVIS-16 79.0 / 80.3, FBMS 76.6 / 79.3, Long-Videos 63.5 / 70.0, MCL 54.1 / 68.2,
SegTrackV2 64.0 / 70.7 without TTT; TTT-LTV adds 0.2 / 0.4, 2.6 / 2.0, 12.4 / 9.2, 12.0 / 8.1 and 1.5 / 0.8.

    python main.py --mode=train --config=configs/dattt_swin_t.py --workdir=runs/dattt_swin_t \
        --config.data.dataset=prepared --config.data.root=data/youtube_vos \
        --config.train.backbone=swin_tiny_patch4_window7_224.pth

The data is prepared as configs/dattt_mit_b1.py says.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration with the Swin-T backbone and its drop-path rate."""
    config = base.get_config()
    config.model.backbone = "swin_t"
    config.model.drop_path = 0.2
    return config
