"""The robustness benchmark: a checkpoint under the corruptions of Robust-VOS and of DAVIS-C.

    python main.py --mode=eval --config=configs/robustness.py --config.init=WEIGHTS --workdir=OUT \
        --config.data.dataset=davis16 --config.data.root=DATA --config.data.split=val

36 settings beside the clean one, each as long as a clean evaluation;
`--config.eval.corruptions="('robust_vos',)"` has nine. No numbers of the paper apply: it evaluates
clean video.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration with a sweep over all corruptions and without an overlay video for each."""
    config = base.get_config()
    config.eval.corruptions = ("all",)
    config.eval.overlays = False
    return config
