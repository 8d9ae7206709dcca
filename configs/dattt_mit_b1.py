"""DATTT with MiT-b1, the paper's main model.

Reference (paper, J / F): DAVIS-16 77.1 / 78.4, FBMS 73.7 / 75.8, Long-Videos 65.2 / 68.0 without TTT;
TTT-LTV adds 0.4 / 0.4, 3.2 / 3.1 and 7.9 / 7.7. One A40, batch 8, 512×512, 10 epochs of YouTube-VOS.

    python main.py --mode=train --config=configs/dattt_mit_b1.py --workdir=runs/dattt_mit_b1
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration is this model."""
    return base.get_config()
