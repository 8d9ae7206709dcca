r"""What depth and its modulation are worth: the networks of the paper's Table 1.

One variant per run, named after the colon: `mit_b1-` or `swin_t-` and
- `baseline`: no depth decoder, no depth loss (it cannot be adapted by depth consistency);
- `basic`: depth decoder and depth loss, the mask branch is not modulated;
- `alpha`, `beta`: modulated by a factor alone, by a summand alone (the full model has both).

Reference (paper, J / F): the MiT-b1 baseline has DAVIS-16 75.9 / 77.5, FBMS 75.1 / 76.5, Long-Videos
63.9 / 67.5, MCL 57.3 / 70.8, SegTrackV2 61.5 / 70.4. Recipe and data are those of the full model.

    python main.py --mode=train --config=configs/ablation.py:mit_b1-baseline --workdir=runs/mit_b1_baseline \
        --config.data.dataset=prepared --config.data.root=data/youtube_vos --config.train.backbone=mit_b1.pth
"""

from ml_collections import ConfigDict

from configs import dattt_mit_b1, dattt_swin_t

_NETWORKS = {"mit_b1": dattt_mit_b1, "swin_t": dattt_swin_t}
_VARIANTS = {
    "baseline": {"depth": False},
    "basic": {"modulation": "basic"},
    "alpha": {"modulation": "alpha"},
    "beta": {"modulation": "beta"},
}


def get_config(variant: str = "mit_b1-baseline") -> ConfigDict:
    """The full model's configuration with one thing taken away.

    Raises:
        ValueError: there is no such variant.
    """
    network, _, name = variant.partition("-")
    if network not in _NETWORKS or name not in _VARIANTS:
        raise ValueError(f"{variant!r} is not one of "
                         + ", ".join(f"{n}-{v}" for n in _NETWORKS for v in _VARIANTS))
    config = _NETWORKS[network].get_config()
    config.model.update(_VARIANTS[name])
    return config
