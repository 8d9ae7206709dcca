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
    # How the mask gets to the frame's size: bilinear (authors' code), or guided by the frame's colours, which
    # moves its edges to the frame's (not in the paper, see dattt_jax/guided.py); validation is bilinear
    config.upsampling = "bilinear"
    # Share of what a frame's neighbours know that counts in its mask, passed on along optical flow both ways
    # through the video in segment, eval and compare; 0 = none (the paper), below 1 (dattt_jax/propagation.py)
    config.propagation = 0.0
    # Things in a frame's mask of which there is less over the video than this share of what there is most of
    # are left out, in segment, eval and compare; 0 = none (the paper), at most 1. See dattt_jax/tubes.py
    config.primary_share = 0.0
    # Weights to start from: a folder made by --mode=train or --mode=convert, a file made by --mode=export, or
    # the weights in the box, dattt-synth-b0 or -b1 (with configs/dattt_synth_b0.py or _b1.py); '' = random
    config.init = ""
    # Folder for compiled programs, reused by later runs; made readable to its user alone; '' = off.
    config.compile_cache_dir = "~/.cache/dattt_jax"
    # Folder of computed flow and depth, kept for later runs of prepare, segment and eval; '' = none are kept.
    config.estimates_dir = ""

    config.model = ConfigDict()
    config.model.backbone = "mit_b1"  # mit_b0 … mit_b5, swin_t; both encoders have it
    config.model.depth = True  # with the depth decoder; False is the paper's Baseline row
    config.model.modulation = "alpha+beta"  # alpha+beta, alpha, beta, basic (Table 1); unused if not depth
    config.model.decoder_features = 256  # embedding width of the decoders, channels (authors' code)
    config.model.drop_path = 0.1  # drop-path rate of the last block (MiT 0.1, Swin 0.2)
    config.model.remat = False  # recompute encoder blocks in the backward pass: less memory, more time
    config.model.dtype = "float32"  # compute type: float32 or bfloat16; parameters and losses stay float32
    # Auxiliary heads, trained jointly: rotation (for the objective of that name), reconstruction (for mae).
    config.model.heads = ()

    config.ttt = ConfigDict()
    # What is minimised (Table 4): depth (the paper's), tent_bn, tent_bn_ln, bn (no gradient), rotation, mae
    # (these two need their head, see config.model.heads), self_training (ours), or a weighted sum as in
    # "depth + 0.1*tent_bn".
    config.ttt.objective = "depth"
    config.ttt.strategy = "mwi"  # base, n, mwi, ltv, grouped_mwi, grouped_ltv (section 3.3), window
    config.ttt.steps = 10  # gradient steps per frame; for ltv: passes over the video (section 4.1)
    config.ttt.batch_size = 8  # crops per step; each is seen in two views (authors' code)
    config.ttt.learning_rate = 1e-5  # Adam, no weight decay (section 4.1)
    config.ttt.groups = 10  # interleaved groups of the grouped strategies (authors' code)
    config.ttt.window = 8  # frames that window draws its steps from: this one and those before
    config.ttt.reset_every = 0  # window: frames after which it starts from the source again; 0 = never
    config.ttt.bn_prior = 16.0  # bn: test frames that the source statistics count for, N of λ = N / (N + n)
    # What is done where adaptation hurts: off (the paper), watch (measured, nothing done), stop_early, reset,
    # average, keep_better; see dattt_jax/ttt/monitor.py. All but off cost up to five predictions per visit.
    config.ttt.policy = "off"
    # Agreement across two views (IoU) by which adaptation may fall below the source's.
    config.ttt.policy_margin = 0.0
    config.ttt.source_weight = 0.1  # average: part of the source weights that is mixed in after each visit
    config.ttt.chunk = 0  # frames per dispatch; 0 = 16 on an accelerator, 1 on a CPU; results do not change

    config.data = ConfigDict()  # the videos of train, eval, prepare and doctor
    # synthetic; prepared (a folder that --mode=prepare wrote); or the files of a data set as downloaded:
    # folder, davis16, fbms, long_videos, mcl, segtrack_v2, youtube_objects, youtube_vos
    config.data.dataset = "synthetic"
    config.data.root = ""  # folder of the data set; unused by synthetic
    config.data.split = ""  # part of the data set, for example val; '' = the data set's usual one

    config.doctor = ConfigDict()
    config.doctor.use = "any"  # exit 0 only if the data would work for this: train, eval, or any of them
    config.doctor.threads = 4  # files decoded at a time

    config.flow = ConfigDict()
    # dis, raft_small, raft_large (both need weights), files (needs root); for training on synthetic data also
    # exact: the rendered scene's own
    config.flow.method = "dis"
    # dis: take the camera's motion out. What networks in the box were trained on; published ones were not.
    config.flow.stabilized = False
    # The frames that flow is estimated to, so many later or (negative) earlier: the mask is made of the mean
    # of their logits, sure ones counting more. Training draws one of them for a synthetic sample.
    config.flow.gaps = (1,)
    # dis: shorter side, pixels, of the frames that flow is estimated from, for each gap; () = as they come
    config.flow.sides = ()
    # dis, stabilized: frames of a video by which it is found out whether masks are to be made of flow without
    # parallax, too (dattt_jax/parallax.py); 0 = never
    config.flow.parallax_probes = 0
    # Flow of the last frame: repeat, backward or drop. With other gaps repeat is backward.
    config.flow.last_frame = "repeat"
    config.flow.weights = ""  # raft: the file that --mode=convert made of published weights
    config.flow.iterations = 12  # raft: refinements of the flow; the authors test with 20 to 32
    config.flow.dtype = "float32"  # raft: compute type of encoders and update, float32 or bfloat16
    config.flow.batch_size = 0  # raft: pairs of frames at once; 0 = 4 on an accelerator, 1 on a CPU
    # raft: largest correlation held in memory, GiB (1920x1080: 5.3); above, computed anew in each iteration.
    config.flow.volume_gib = 6.0
    config.flow.root = ""  # files: folder with <video>/<frame>.flo, .png (KITTI's or a rendering) or .jpg

    config.depth = ConfigDict()  # depth targets that --mode=prepare makes
    # lite_mono, lite_mono_small, lite_mono_tiny, lite_mono_8m, monodepth2, transformers; '' = none
    config.depth.method = ""
    # The file that --mode=convert made of published weights; transformers: a model's name or folder.
    config.depth.weights = ""
    config.depth.dtype = "float32"  # compute type: float32 or bfloat16; not transformers
    config.depth.flip = False  # blend with the mirrored frame's depth: twice the time; not transformers
    config.depth.kind = ""  # transformers: what it predicts, inverse, relative or metric; '' = by its type

    config.prepare = ConfigDict()
    config.prepare.annotated_only = False  # keep only annotated frames (training needs no others): less disk
    config.prepare.threads = 4  # frames worked on at a time

    config.train = ConfigDict()
    # Published SegFormer or Swin weights (.pth, .safetensors) for both encoders, the decoders random;
    # config.init comes before it, and a checkpoint in the workdir before both.
    config.train.backbone = ""
    config.train.batch_size = 8  # samples per step over all devices and processes (section 4.1)
    config.train.accumulation = 1  # pieces of a batch worked through one after the other: less memory
    config.train.epochs = 10  # passes over the training data (section 4.1)
    config.train.steps = 0  # optimiser steps, in place of epochs; 0 = count in epochs
    config.train.synthetic_samples = 16000  # samples that make an epoch of the endless synthetic source
    # Synthetic frames are rendered, and their flow estimated, larger than input_size: each side by a factor
    # drawn from (low, high). Sharper flow, and video is reduced by various amounts.
    config.train.render_scale = (1.0, 1.0)
    config.train.learning_rate = 6e-5  # AdamW, at the start (section 4.1)
    config.train.final_learning_rate = 1e-5  # end of the cosine schedule (authors' code)
    config.train.schedule = "epoch"  # the cosine moves once per epoch (authors' code), or per step: step
    config.train.weight_decay = 0.01  # AdamW, on every parameter (authors' code)
    config.train.depth_weight = 0.1  # λ of BCE + λ·SILog (equation 5); 0 trains without depth targets
    config.train.iou_weight = 0.0  # of soft Jaccard beside them: every object counts the same; ours
    config.train.hue = True  # hue jitter of ±18 (of 180) among the photometric operations (authors' code)
    # Probability of patches of other places and colours in the image: against trust in drawn appearance; ours
    config.train.scramble = 0.0
    config.train.resize_crop = False  # random resize and crop; commented out in the authors' code
    config.train.sync_batchnorm = True  # batch statistics over all devices, else per device
    config.train.save_steps = 500  # optimiser steps between checkpoints
    config.train.keep = 2  # newest checkpoints kept
    config.train.log_steps = 20  # optimiser steps between log lines
    config.train.threads = 2  # batches made at a time, by host threads …
    # … or, with True, by as many processes: for synthetic video, where Python's lock would hold threads up.
    config.train.processes = False

    config.validation = ConfigDict()  # J and F of held-out frames at every checkpoint, to keep the best one
    config.validation.dataset = ""  # synthetic, prepared, or '' for no validation
    config.validation.root = ""  # folder of the prepared data
    config.validation.samples = 200  # frames, spread evenly over the data
    config.validation.seed = 1000  # of synthetic frames; never the training seed

    # Fields and their meaning: input_pipeline/synthetic.
    config.synthetic = ConfigDict(dataclasses.asdict(SyntheticConfig()))

    config.segment = ConfigDict()
    config.segment.input = ""  # video file (mp4, avi, mov, gif, …) or folder of frames
    config.segment.save_probability = False  # also write probability/ as 8-bit grey PNG, 255 · p
    config.segment.overlay = True  # write overlay.mp4
    # Seconds between saves of progress, from which the same command goes on after a crash; 0 = none.
    config.segment.save_every_s = 60.0
    # Write what adaptation made of the weights as adapted.npz: full (exact) or bfloat16 (the difference, half
    # the size); '' = not.
    config.segment.save_weights = ""
    config.segment.adapted = ""  # an adapted.npz of the same config.init to start from; '' = none

    config.live = ConfigDict()  # strategy and most steps per frame: config.ttt
    # camera:0; '-' (standard input) or a named pipe, with PPM images one after the other; or a folder where
    # frames appear.
    config.live.source = ""
    # Milliseconds for a frame: flow, steps, prediction, mask; 0 = no limit. More than the time between frames
    # buys steps with dropped frames.
    config.live.budget_ms = 100.0
    config.live.drop_frames = True  # where frames come faster, drop all but the newest; False keeps them all
    config.live.idle_s = 10.0  # seconds without a new frame after which the stream has ended; 0 = never

    config.eval = ConfigDict()  # of the videos in config.data
    config.eval.strategies = ("base", "n", "mwi", "ltv")  # each on every video; see config.ttt.strategy
    config.eval.protocol = "all"  # scoring preset, see dattt_jax/metrics/protocols.py
    # Frames that are adapted on and predicted: all, or only the annotated ones (authors' code), whose flow
    # still goes to the next frame of the video.
    config.eval.frames = "all"
    # Beside J and F: region_F (equation 6), saliency (MAE, S, F and E of the soft maps; needs pysodmetrics).
    config.eval.measures = ()
    config.eval.curves = False  # also score every frame after each TTT epoch (Figure 5); slower
    config.eval.overlays = True  # write overlays/<strategy>/<video>.mp4
    # Robustness: evaluate under these, too, flow computed from the corrupted frames. name:level as in
    # gaussian_noise:2, name for all its levels, robust_vos, davis_c or all; see input_pipeline/corruptions.
    config.eval.corruptions = ()
    config.eval.temporally_consistent = False  # one random draw per corrupted video instead of one per frame
    config.eval.clips = 4  # number of held-out synthetic clips
    config.eval.seed = 1000  # of the held-out synthetic clips and of corruptions; never the training seed
    config.eval.shifted = True  # shift the appearance of the synthetic clips away from training
    config.eval.devices = 0  # local devices the videos are spread over; 0 = all
    # Part of the videos this process does, as in 2/4, where several share --workdir without --coordinator;
    # part 1 waits for the others and writes the tables. '' = all, or as --coordinator gives it.
    config.eval.part = ""

    config.compare = ConfigDict()  # objectives × strategies, see configs/compare_ttt.py
    # (network, objective, learning rate of Adam): networks of dattt_jax/compare_ttt.py, config.ttt.objective.
    config.compare.objectives = (
        ("depth", "depth", 1e-4),
        ("baseline", "tent_bn", 1e-3),
        ("baseline", "tent_bn_ln", 1e-4),
        ("baseline", "bn", 1e-4),
        ("rotation", "rotation", 1e-4),
        ("mae", "mae", 1e-4),
        ("depth", "depth + 0.1*tent_bn", 1e-4),
    )
    config.compare.strategies = ("n", "mwi", "ltv", "window")  # beside base
    # none, appearance (see input_pipeline/synthetic), or corruptions as in config.eval.corruptions.
    config.compare.shifts = ("appearance", "gaussian_noise:3")
    config.compare.seeds = (0, 1, 2)

    config.score = ConfigDict()
    config.score.pred = ""  # folder of predicted masks
    config.score.gt = ""  # folder of ground-truth masks
    config.score.protocol = "davis16"  # scoring preset, or 'every' for all of them side by side
    config.score.measures = ()  # beside J and F, see config.eval.measures

    config.export = ConfigDict()  # the weights of config.init as one file or several
    config.export.dtype = "bfloat16"  # of the numbers in it: bfloat16 or float32
    config.export.mask_bias = 0.0  # added to the mask's logits: above 0 masks grow to what is less sure
    config.export.part_mb = 0.0  # the most a file may take, MB of 10^6 bytes; 0 = one file of any size

    config.convert = ConfigDict()
    config.convert.input = ""  # .pth or .safetensors file
    config.convert.strict = True  # fail on missing or extra entries
    return config
