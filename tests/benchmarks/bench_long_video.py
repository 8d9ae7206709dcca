"""Does a long video cost more memory, or more time per frame, than a short one? `--mode=segment` on both.

    python tests/benchmarks/bench_long_video.py [--frames=100,2000] [--strategies=base,mwi] [--out=FILE]

A tiny network on tiny frames, so that what grows with the video would show beside it. Each run is a process
of its own. Prints, and with --out writes, JSON: peak memory of the process (VmHWM), and milliseconds per
frame, from the times at which masks were written: over the whole video, and its first and last fifty frames.
`propagated` is base with config.propagation, whose milliseconds are those of the propagation alone: it writes
all masks anew.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tiny
from machine import describe, peak_memory_gib

from dattt_jax.checkpoints import save_variables
from dattt_jax.models import mit
from dattt_jax.segment import segment
from input_pipeline.writers import VideoWriter

_SIZE = (72, 128)
_WARM = 10  # frames at the start that are left out: programs may still be compiled
_PART = 50


def write_video(path, frames):
    """A bright square that moves over noise."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (*_SIZE, 3), dtype=np.uint8)
    with VideoWriter(path, fps=24, frame_size=_SIZE) as writer:
        for t in range(frames):
            frame, left = background.copy(), t % (_SIZE[1] - 20)
            frame[20:40, left : left + 20] = 250
            writer.write(frame)


def run(clip, strategy, folder):
    """In a process of its own: segments the clip, says what it took."""
    config = tiny.tiny_config()
    config.ttt.update({"strategy": strategy, "steps": 2, "batch_size": 2})
    if strategy == "propagated":
        config.ttt.strategy, config.propagation = "base", 0.93
    config.segment.input, config.init = clip, f"{folder}/weights"
    with mock.patch.dict(mit.MIT_SIZES, {"mit_b0": tiny.SIZES}):
        save_variables(config.init, tiny.filled(config.model), config.model)
        segment(config, f"{folder}/out")
    written = sorted(path.stat().st_mtime for path in Path(f"{folder}/out/masks").glob("*.png"))[_WARM:]

    def milliseconds(times):
        return round((times[-1] - times[0]) / (len(times) - 1) * 1e3, 2)

    return {"frames": len(written) + _WARM, "peak_gib": round(peak_memory_gib(), 3),
            "frame_ms": milliseconds(written), "first_frames_ms": milliseconds(written[:_PART]),
            "last_frames_ms": milliseconds(written[-_PART:])}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", default="100,2000")
    parser.add_argument("--strategies", default="base,mwi,propagated")
    parser.add_argument("--out", default="", help="the JSON file to write")
    parser.add_argument("--child", nargs=3, metavar=("CLIP", "STRATEGY", "FOLDER"), help="used by itself")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(*options.child)))
        return
    report = {"benchmark": "long_video", "machine": describe(), "runs": {}}
    for frames in map(int, options.frames.split(",")):
        with tempfile.TemporaryDirectory(prefix="long_video_") as folder:
            clip = f"{folder}/clip.mp4"
            write_video(clip, frames)
            for strategy in options.strategies.split(","):
                child = [sys.executable, __file__, "--child", clip, strategy, f"{folder}/{strategy}"]
                done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                report["runs"].setdefault(strategy, []).append(row)
                print(f"{strategy:12s} {json.dumps(row)}", flush=True)
    print(json.dumps(report, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
