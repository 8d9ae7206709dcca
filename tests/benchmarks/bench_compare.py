"""Ours beside PyTorch: the same weights, the same work, processes in turns, medians and ratios.

    python tests/benchmarks/bench_compare.py --out=tests/benchmarks/results/compare_mit_b1_cpu.json
    python tests/benchmarks/bench_compare.py --measure=ttt_step,video,flow,metrics --size=128 --batch=2

Measurements (`--measure`, separated by commas):

    ttt_step     one gradient step of test-time training: augmentations, two views, backward, Adam. (The
                 authors' loop also predicts the frame after every step: that is `base_frame`, not in it.)
    train_step   one AdamW step; ours with its augmentation, PyTorch's without (its loader's work)
    base_frame   one frame and its flow rendering to a probability map, without adaptation
    video_<strategy>  a whole video under base, n, mwi, ltv, grouped_mwi or grouped_ltv; `video` for all six.
                 PyTorch goes in the authors' order, with a prediction after every step
    flow         one pair of 854×480 frames through RAFT (small, 12 iterations; torchvision's beside ours)
    metrics      J and boundary F of four pairs of 854×480 masks; scikit-image's dilation beside ours

Sides (`--sides`), each measurement in a process of its own, `--rounds` times in turns:

    ours, ours_bf16          float32 or bfloat16
    torch                    PyTorch as it is installed, attention written out as in the authors' code
    torch_best               the fastest found: PyTorch's fused attention; on a CPU MKL told to use AVX-512,
                             glibc to keep freed memory and to take it in huge pages; on a GPU torch.compile
                             and TF32
    torch_bf16               autocast, fused attention
    torch_compile(_bf16)     torch.compile, fused attention

The first process of ours compiles into an empty cache, the later ones find the programs there: both times are
reported. On a GPU, XLA's float32 products are TF32 by default and PyTorch's are not, but for `torch_best`.
Needs torch (for `flow` torchvision); without it, name sides of ours alone.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe
from workload import GOLDEN_NAMES, Options

FOLDER = Path(__file__).parent
STRATEGIES = ("base", "n", "mwi", "ltv", "grouped_mwi", "grouped_ltv")
VIDEOS = tuple(f"video_{name}" for name in STRATEGIES)
MEASUREMENTS = ("ttt_step", "train_step", "base_frame", *VIDEOS, "flow", "metrics")
# On a CPU neither torch.compile nor channels_last gained anything: MiT-b1, forward and backward.
_BEST = {
    "cpu": ({"fused": True}, {"MKL_ENABLE_INSTRUCTIONS": "AVX512", "MALLOC_MMAP_MAX_": "0",
                 "MALLOC_TRIM_THRESHOLD_": str(2**40), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
    "cuda": ({"compiled": True, "fused": True, "tuned": True}, {}),
}


def sides(device):
    """{side: (script, fields of `Options`, environment)}."""
    return {
        "ours": ("measure_ours.py", {}, {}),
        "ours_bf16": ("measure_ours.py", {"bfloat16": True}, {}),
        "torch": ("measure_torch.py", {}, {}),
        "torch_best": ("measure_torch.py", *_BEST[device]),
        "torch_bf16": ("measure_torch.py", {"bfloat16": True, "fused": True}, {}),
        "torch_compile": ("measure_torch.py", {"compiled": True, "fused": True}, {}),
        "torch_compile_bf16": ("measure_torch.py", {"compiled": True, "bfloat16": True, "fused": True}, {}),
    }


def run(script, options, environment):
    """One process; what it says."""
    done = subprocess.run([sys.executable, FOLDER / script, json.dumps(dataclasses.asdict(options))],
                          env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} failed on {options}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(answers):
    """Medians over the processes of one side."""
    if "skipped" in answers[0]:
        return answers[0]
    seconds = [second for answer in answers for second in answer["seconds"]]
    report = {"device": answers[0]["device"], "median_s": statistics.median(seconds),
              "seconds": [answer["seconds"] for answer in answers],
              "peak_gib": max(answer["peak_gib"] for answer in answers),
              # What the first call takes more than the others: tracing, compiling, warming up.
              "start_up_s": [max(a["first_s"] - statistics.median(a["seconds"]), 0.0) for a in answers]}
    if "matmul_flops_per_s" in answers[0]:
        report["matmul_flops_per_s"] = max(answer["matmul_flops_per_s"] for answer in answers)
    if "flops" in answers[0]:
        report["flops"] = answers[0]["flops"]
        report["share_of_matmul_peak"] = report["flops"] / report["median_s"] / report["matmul_flops_per_s"]
    return rounded(report)


def rounded(value):
    """Numbers to four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items()}
    if isinstance(value, list):
        return [rounded(x) for x in value]
    return value if isinstance(value, str) else float(f"{value:.4g}")


def compare(what, names, settings, rounds):
    """{side: its summary} of one measurement, processes in turns A B A B …"""
    known, answers = sides(settings["device"]), {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="programs_") as cache:
        platform = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PLATFORMS": settings["device"]}
        for number in range(rounds):
            for name in names:
                script, fields, environment = known[name]
                options = Options(what=what, flops=number == 0, **settings, **fields)
                answers[name].append(run(script, options, platform | environment))
                print(f"{what:18s} {name:18s} {text(answers[name][-1])}", flush=True)
    results = {name: summary(found) for name, found in answers.items()}
    first = results[names[0]].get("median_s")
    for name in names[1:]:
        if first and "median_s" in results[name]:
            ratio = results[name]["times_first"] = rounded(results[name]["median_s"] / first)
            print(f"{what:18s} {name} takes {ratio} times as long as {names[0]}", flush=True)
    return results


def text(answer):
    """One process's answer for people."""
    if "skipped" in answer:
        return f"skipped: {answer['skipped']}"
    return (f"{statistics.median(answer['seconds']):9.4f} s   first {answer['first_s']:7.2f} s   "
            f"{answer['peak_gib']:6.2f} GiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", default="ttt_step,train_step,base_frame")
    parser.add_argument("--sides", default="", help="the first is what the others are compared with; default "
                        "ours,torch,torch_best, on a GPU also ours_bf16, torch_bf16, torch_compile_bf16")
    parser.add_argument("--backbone", default="mit_b1", choices=GOLDEN_NAMES)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=2, help="of a video")
    parser.add_argument("--steps", type=int, default=2, help="TTT steps per frame of a video")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default="", help="the JSON file to write")
    arguments = parser.parse_args()

    default = "ours,torch,torch_best"
    if arguments.device == "cuda":
        default += ",ours_bf16,torch_bf16,torch_compile_bf16"
    names = (arguments.sides or default).split(",")
    measurements = [name for part in arguments.measure.split(",")
                    for name in (VIDEOS if part == "video" else (part,))]
    for value, offered in [*((m, MEASUREMENTS) for m in measurements), *((n, sides("cpu")) for n in names)]:
        if value not in offered:
            parser.error(f"{value!r} is not one of {', '.join(offered)}")
    settings = {key: getattr(arguments, key)
                for key in ("backbone", "size", "batch", "frames", "steps", "device")}
    report = {"benchmark": "compare", "machine": describe(),
              "settings": settings | {"rounds": arguments.rounds, "sides": names}, "measurements": {}}
    for what in measurements:
        report["measurements"][what] = compare(what, names, settings, arguments.rounds)
        if arguments.out:  # after each, so that an interrupted run is not lost
            Path(arguments.out).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
