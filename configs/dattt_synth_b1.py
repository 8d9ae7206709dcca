"""The larger network in the box: MiT-b1 at 384×384, twice as wide as that of `dattt_synth_b0`.

    python main.py --mode=segment --config=configs/dattt_synth_b1.py --workdir=OUT \
        --config.segment.input=clip.mp4

What it reaches: dattt_jax/pretrained/README.md.
"""

from ml_collections import ConfigDict

from configs import dattt_synth_b0


def get_config(objective: str = "self_training") -> ConfigDict:
    """The configuration of the smaller network with the larger one and its weights; `objective` as there."""
    config = dattt_synth_b0.get_config(objective)
    config.init = "dattt-synth-b1"
    config.model.backbone = "mit_b1"
    config.model.decoder_features = 256
    return config
