"""Every field of every mode, once, with unit and source. The other configs override a few of them.

The default network and recipe are the paper's (DATTT, CVPR 2024) where the paper says it, else the
authors' code; `model` is filled in by the configs that name a network.
"""

import dataclasses

from ml_collections import ConfigDict

from input_pipeline.synthetic import SyntheticConfig


def get_config() -> ConfigDict:
    """The base configuration: MiT-b1 with the `alpha+beta` modulation."""
    config = ConfigDict()
    config.seed = 0  # integer; every random choice of a run derives from it
    config.input_size = (512, 512)  # (height, width) in pixels the network sees (section 4.1)
    config.init = ""  # weights to start from: a folder made by --mode=train or --mode=convert; '' = random
    # Folder for compiled programs, reused by later runs; made readable to its user alone; '' = off.
    config.compile_cache_dir = "~/.cache/dattt_jax"

    config.model = ConfigDict()
    config.model.backbone = "mit_b1"  # mit_b0 … mit_b5, swin_t; both encoders have it
    config.model.depth = True  # with the depth decoder; False is the paper's Baseline row
    config.model.modulation = "alpha+beta"  # alpha+beta, alpha, beta, basic (Table 1); unused if not depth
    config.model.decoder_features = 256  # embedding width of the decoders, channels (authors' code)
    config.model.drop_path = 0.1  # drop-path rate of the last block (MiT 0.1, Swin 0.2)
    config.model.remat = False  # recompute encoder blocks in the backward pass: less memory, more time
    config.model.dtype = "float32"  # compute type: float32 or bfloat16; parameters and losses stay float32

    config.ttt = ConfigDict()
    config.ttt.strategy = "mwi"  # base, n, mwi, ltv, grouped_mwi, grouped_ltv (section 3.3)
    config.ttt.steps = 10  # gradient steps per frame; for ltv: passes over the video (section 4.1)
    config.ttt.batch_size = 8  # crops per step; each is seen in two views (authors' code)
    config.ttt.learning_rate = 1e-5  # Adam, no weight decay (section 4.1)
    config.ttt.groups = 10  # interleaved groups of the grouped strategies (authors' code)
    config.ttt.chunk = 0  # frames per dispatch; 0 = 16 on an accelerator, 1 on a CPU; results do not change

    config.data = ConfigDict()  # the videos of train, eval, prepare and doctor
    # synthetic; prepared (a folder that --mode=prepare wrote); or the files of a data set as downloaded:
    # folder, davis16, fbms, long_videos, mcl, segtrack_v2, youtube_objects, youtube_vos
    config.data.dataset = "synthetic"
    config.data.root = ""  # folder of the data set; unused by synthetic
    config.data.split = ""  # part of the data set, for example val; '' = the data set's usual one

    config.flow = ConfigDict()
    config.flow.method = "dis"  # optical flow estimator, see input_pipeline/flow
    config.flow.last_frame = "repeat"  # flow of the last frame: repeat, backward or drop

    config.train = ConfigDict()
    config.train.data = "synthetic"  # training source
    config.train.batch_size = 8  # samples per step over all devices (section 4.1)
    config.train.epochs = 10  # passes over the training source (section 4.1)
    config.train.synthetic_samples = 16000  # samples that make an epoch of the endless synthetic source
    config.train.learning_rate = 6e-5  # AdamW, at the start (section 4.1)
    config.train.final_learning_rate = 1e-5  # end of the cosine schedule (authors' code)
    config.train.weight_decay = 0.01  # AdamW, on every parameter (authors' code)
    config.train.depth_weight = 0.1  # λ of BCE + λ·SILog (equation 5)
    config.train.hue = True  # hue jitter of ±18 (of 180) among the photometric operations (authors' code)
    config.train.resize_crop = False  # random resize and crop; commented out in the authors' code
    config.train.sync_batchnorm = True  # batch statistics over all devices, else per device
    config.train.save_steps = 500  # optimiser steps between checkpoints
    config.train.keep = 2  # newest checkpoints kept
    config.train.log_steps = 20  # optimiser steps between log lines
    config.train.threads = 2  # host threads that make samples

    # Fields and their meaning: input_pipeline/synthetic.
    config.synthetic = ConfigDict(dataclasses.asdict(SyntheticConfig()))

    config.segment = ConfigDict()
    config.segment.input = ""  # video file (mp4, avi, mov, gif, …) or folder of frames
    config.segment.save_probability = False  # also write probability/ as 8-bit grey PNG, 255 · p
    config.segment.overlay = True  # write overlay.mp4

    config.eval = ConfigDict()
    config.eval.data = "synthetic"  # evaluation source: synthetic, or a folder with frames/ and masks/
    config.eval.strategies = ("base", "n", "mwi", "ltv")  # each is run on every video
    config.eval.clips = 4  # number of held-out synthetic clips
    config.eval.seed = 1000  # of the held-out synthetic clips and of corruptions; never the training seed
    config.eval.shifted = True  # shift the appearance of the synthetic clips away from training
    # Corrupts the frames (flow is computed from the corrupted ones): name:level as in gaussian_noise:2, or
    # aoc:0 … aoc:9 of the Robust-VOS benchmark, see input_pipeline/corruptions; '' = clean.
    config.eval.corruption = ""
    config.eval.temporally_consistent = False  # one random draw per video instead of one per frame
    config.eval.curves = False  # also score every frame after each TTT epoch (Figure 5); slower
    config.eval.protocol = "all"  # scoring preset, see dattt_jax/metrics/protocols.py

    config.score = ConfigDict()
    config.score.pred = ""  # folder of predicted masks
    config.score.gt = ""  # folder of ground-truth masks
    config.score.protocol = "davis16"  # scoring preset, or 'every' for all of them side by side

    config.convert = ConfigDict()
    config.convert.input = ""  # .pth or .safetensors file
    config.convert.strict = True  # fail on missing or extra entries
    return config
