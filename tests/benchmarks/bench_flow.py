"""Frames per second of the flow methods, and their error on synthetic clips whose flow is known exactly.

    python tests/benchmarks/bench_flow.py [--raft-small=FILE] [--raft-large=FILE] [--size 480 854]
    [--out=FILE]

FILE is what `--mode=convert` made of published weights. Without one a network is timed with random weights,
which takes the same time, and its error is left out. Prints, and with --out writes, JSON: pairs per second
(median over `--pairs`, one at a time), and the mean end-point error in pixels over all pixels, over those of
the object, and the share of pixels that are off by more than 3, each the mean over `--clips` clips.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util
from machine import describe

from input_pipeline.flow import create_flow
from input_pipeline.flow.raft_flow import RaftFlow, raft_shapes
from input_pipeline.synthetic import SyntheticConfig, shifted
from input_pipeline.synthetic.clip import SyntheticVideos

SEED = 1000  # of the clips


def random_raft(network, **options):
    """The network with random weights."""
    rng = np.random.default_rng(0)
    flat = {}
    for name, shape in raft_shapes(network).items():
        offset = 1.0 if name.endswith(("scale", "var")) else 0.0
        spread = 1 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.1
        flat[name] = (offset + spread * rng.random(shape)).astype(np.float32)
    return RaftFlow(network, traverse_util.unflatten_dict(flat, sep="/"), "random", **options)


def speed(method, size, pairs):
    """Seconds of the first call, and of each of `pairs` more."""
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    seconds = []
    for _ in range(pairs + 1):
        start = time.perf_counter()
        method(*frames)
        seconds.append(time.perf_counter() - start)
    return {
        "first_call_s": round(seconds[0], 3),
        "fastest_pair_s": round(min(seconds[1:]), 4),
        "pair_s": round(statistics.median(seconds[1:]), 4),
        "pairs_per_s": round(1 / statistics.median(seconds[1:]), 2),
    }


def errors(method, videos):
    """Mean end-point error, of all pixels and of the object's, and the share above 3 pixels."""
    per_clip = []
    for video in videos:
        clip = []
        for index in range(len(video.frames) - 1):
            flow = method(video.frames[index], video.frames[index + 1])
            error = np.linalg.norm(flow - video.flow[index], axis=-1)
            mask = video.mask[index].astype(bool)
            clip.append((error.mean(), error[mask].mean() if mask.any() else np.nan, (error > 3).mean()))
        per_clip.append(np.nanmean(clip, axis=0))
    mean = np.mean(per_clip, axis=0).round(4).tolist()
    return dict(zip(("epe", "epe_object", "above_3px"), mean, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raft-small", default="")
    parser.add_argument("--raft-large", default="")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 854), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--clip-size", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=4, help="of a clip")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", default="")
    options = parser.parse_args()

    settings = {"iterations": options.iterations, "dtype": options.dtype, "batch_size": 0, "volume_gib": 6.0}
    plain = SyntheticConfig(size=tuple(options.clip_size), num_frames=options.frames)
    weights = {"raft_small": options.raft_small, "raft_large": options.raft_large}
    methods = {"dis": create_flow("dis")}
    for network, path in weights.items():
        methods[network] = (
            create_flow(network, weights=path, **settings) if path else random_raft(network, **settings)
        )
    report = {
        "benchmark": "flow", "machine": describe(),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "size": list(options.size),
        "iterations": options.iterations,
        "dtype": options.dtype,
        "clips": f"{options.clips} of {options.frames} frames, height and width {options.clip_size}, "
        f"seed {SEED}",
        "methods": {name: {"identity": method.identity, **speed(method, options.size, options.pairs)}
                    for name, method in methods.items()},
    }
    for name, method in methods.items():
        if name == "dis" or weights[name]:
            for kind, config in (("training_appearance", plain), ("shifted_appearance", shifted(plain))):
                videos = SyntheticVideos(config, SEED, options.clips)
                report["methods"][name][kind] = errors(method, videos)
    print(json.dumps(report, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
