r"""Scoring a folder of masks: `--mode=score` needs no network; set `config.score.pred` and `.gt`.

    python main.py --mode=score --config=configs/score.py --config.score.pred=DIR --config.score.gt=DIR \
        --config.score.protocol=davis16 --workdir=OUT
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration; only its `score` section is read."""
    return base.get_config()
