"""The paper's Table 4 on a small scale: objectives × strategies on shifted synthetic video, in one command.

    python main.py --mode=compare --config=configs/compare_ttt.py --workdir=runs/compare

trains four networks (the paper's, its Baseline, one with each auxiliary head), all from the weights in the
box, and adapts them to held-out clips under three seeds, which choose the clips and the random numbers of
adaptation. Real clips, as one more shift: `--config.data.dataset=folder --config.data.root=DATA
--config.eval.frames=annotated`. No numbers of the paper apply.
"""

from ml_collections import ConfigDict

from configs import dattt_synth_b0


def get_config() -> ConfigDict:
    """The network in the box at 128×128; what is compared is in `config.compare`."""
    config = dattt_synth_b0.get_config()
    config.input_size = (128, 128)
    config.flow.sides, config.flow.parallax_probes = (), 0
    config.synthetic.size = (256, 256)
    config.synthetic.num_frames = 6
    config.eval.clips = 1
    config.eval.overlays = False
    config.ttt.steps = 3
    config.train.batch_size = 8
    config.train.render_scale = (2.0, 2.0)
    config.train.steps = 300
    config.train.save_steps = 300
    config.train.schedule = "step"
    config.train.learning_rate = 3e-4
    return config
