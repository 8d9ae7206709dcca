"""Scoring a folder of masks: `--mode=score` needs no network, only two folders and a protocol.

    python main.py --mode=score --config=configs/score.py --workdir=OUT --config.score.pred=DIR ...

`config.score.gt` and `config.score.protocol` complete it.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration; only its `score` section is read."""
    return base.get_config()
