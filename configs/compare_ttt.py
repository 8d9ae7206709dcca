"""The paper's Table 4 on a small scale: objectives × strategies on shifted synthetic video, in one command.

    python main.py --mode=compare --config=configs/compare_ttt.py --workdir=runs/compare

trains four small networks (that of `configs/demo.py`: the paper's, its Baseline, one with each auxiliary
head) and adapts them to held-out clips under three seeds, which choose the clips and the random numbers of
adaptation. Real clips, as one more shift: `--config.data.dataset=folder --config.data.root=DATA`. No numbers
of the paper apply.
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """The demo's configuration, trained for the comparison; what is compared is in `config.compare`."""
    config = demo.get_config()
    config.train.steps = 510
    config.train.save_steps = 510
    config.validation.dataset = ""
    config.eval.clips = 3
    config.eval.overlays = False
    return config
