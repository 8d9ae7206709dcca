"""Samples per second of the training data, as the training loop gets them: decoded, resized, batched.

    python tests/benchmarks/bench_input_pipeline.py [--size=512] [--batch=8] [--out=FILE]

Prepared data of 854×480 JPEG frames (made here from synthetic video), and synthetic samples made on the fly,
with the flow that training uses (DIS), by threads and by processes; each with several numbers of them. With
--step_s from a training log, beside them what the training step would take.
"""

import argparse
import io
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

from absl import flags
from machine import describe
from PIL import Image

from input_pipeline.datasets.prepare import prepare_videos
from input_pipeline.datasets.train_source import PreparedTrainSource
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.flow import create_flow
from input_pipeline.loader import make_loader
from input_pipeline.processes import InProcesses
from input_pipeline.synthetic import SyntheticConfig, SyntheticTrainSource, generate_clip
from input_pipeline.writers import write_bytes, write_mask

_FRAMES = 16


def prepared_source(folder, size):
    """Two clips of 854×480 in JPEG as `--mode=prepare` leaves them."""
    videos = []
    for index in range(2):
        clip = generate_clip(SyntheticConfig(size=(480, 854), num_frames=_FRAMES), 0, index)
        frames, masks = {}, {}
        for t, (image, mask) in enumerate(zip(clip.frames, clip.mask, strict=True)):
            name = f"{t:05d}"
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "JPEG", quality=92)
            frames[name] = folder / f"{index}_{name}.jpg"
            write_bytes(frames[name], encoded.getvalue())
            masks[name] = (folder / f"{index}_{name}.png",)
            write_mask(masks[name][0], mask.astype(bool))
        videos.append(VideoFiles(str(index), frames, masks))
    settings = {"dataset": "folder", "root": "bench", "split": "all",
                "flow": {"method": "dis", "last_frame": "repeat"}, "depth": {"method": ""}}
    prepare_videos(videos, folder / "prepared", settings=settings, flow_method=create_flow("dis"))
    return PreparedTrainSource(folder / "prepared", (size, size), require_depth=False)


def samples_per_second(source, batch, threads, seconds=6.0, processes=False):
    """Steady rate of a loader, after its first batches."""
    if processes:
        with InProcesses(source, threads) as made:
            return samples_per_second(made, batch, threads, seconds)
    loader = make_loader(source, batch_size=batch, seed=0, num_threads=threads)
    for _ in itertools.islice(loader, threads + 2):
        pass
    times = [time.perf_counter()]
    while times[-1] - times[0] < seconds or len(times) < 4:
        next(loader)
        times.append(time.perf_counter())
    return batch * (len(times) - 1) / (times[-1] - times[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step_s", type=float, default=0.0, help="seconds of a training step, to compare")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    machine = describe()
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    with tempfile.TemporaryDirectory() as folder:
        synthetic = SyntheticTrainSource(SyntheticConfig(size=(options.size, options.size)), 0, 10**6, "dis")
        sources = {"prepared": (prepared_source(Path(folder), options.size), False),
                   "synthetic": (synthetic, False), "synthetic, processes": (synthetic, True)}
        rates = {name: {threads: statistics.median(samples_per_second(source, options.batch, int(threads),
                                                                      processes=processes)
                                                   for _ in range(options.rounds))
                        for threads in options.threads.split(",")}
                 for name, (source, processes) in sources.items()}
    report = {"benchmark": "input_pipeline", "machine": machine, "size": options.size, "batch": options.batch,
              "samples_per_s": {name: {threads: round(rate, 1) for threads, rate in row.items()}
                                for name, row in rates.items()}}
    if options.step_s:
        report["step_consumes_samples_per_s"] = round(options.batch / options.step_s, 2)
    print(json.dumps(report, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
