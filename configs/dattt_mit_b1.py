r"""DATTT with MiT-b1, the paper's main model.

Reference (paper, J / F): DAVIS-16 77.1 / 78.4, FBMS 73.7 / 75.8, Long-Videos 65.2 / 68.0, MCL 53.5 / 66.2,
SegTrackV2 61.5 / 69.2 without TTT; TTT-LTV adds 0.4 / 0.4, 3.2 / 3.1, 7.9 / 7.7, 8.4 / 7.8 and 4.4 / 4.3.
One A40, batch 8, 512×512, 10 epochs of YouTube-VOS 2018 (3,471 videos), depth targets by MonoDepth2.

    python main.py --mode=prepare --config=configs/dattt_mit_b1.py --workdir=data/youtube_vos \
        --config.data.dataset=youtube_vos --config.data.root=YOUTUBE_VOS \
        --config.depth.method=monodepth2 --config.depth.weights=MONODEPTH2
    python main.py --mode=train --config=configs/dattt_mit_b1.py --workdir=runs/dattt_mit_b1 \
        --config.data.dataset=prepared --config.data.root=data/youtube_vos --config.train.backbone=mit_b1.pth
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration is this model."""
    return base.get_config()
