"""Milliseconds per 854×480 frame: our J + boundary F against dilation with scikit-image's disk.

    python tests/benchmarks/bench_metrics.py [--out results.json] [--rounds 7]

Both sides score the same pairs of masks, must agree exactly, and are run in turns; medians count.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import describe
from mask_reference import reference_boundary_f

from dattt_jax.metrics.boundary import boundary_f
from dattt_jax.metrics.scoring import score_frame

HEIGHT, WIDTH = 480, 854


def blob(rng: np.random.Generator, smoothness: float, share: float) -> np.ndarray:
    """A mask with a natural outline: smoothed noise above the quantile that leaves `share`."""
    noise = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH)), (0, 0), smoothness)
    return noise > np.quantile(noise, 1 - share)


def object_mask(rng: np.random.Generator) -> np.ndarray:
    """One body with limbs, a rough outline and a hole, the size of a DAVIS object."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    centre = np.array([rng.integers(250, 600), rng.integers(150, 330)])
    cv2.ellipse(canvas, centre.tolist(), (110, 60), float(rng.uniform(0, 180)), 0, 360, 1, -1)
    for angle in rng.uniform(0, 2 * np.pi, 5):
        end = centre + np.round(150 * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        cv2.line(canvas, centre.tolist(), end.tolist(), 1, int(rng.integers(8, 30)))
    cv2.circle(canvas, (centre + 20).tolist(), 12, 0, -1)
    return (canvas.astype(bool) ^ (blob(rng, 3, 0.05) & cv2.dilate(canvas, np.ones((9, 9)))
                                   .astype(bool)))


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs (prediction, target), `[480, 854]` bool, by name."""
    rng = np.random.default_rng(0)
    target = object_mask(rng)
    pairs = {"object, shifted 5 px": (np.roll(target, (3, 4), (0, 1)), target)}
    pairs["object, other object"] = (object_mask(rng), target)
    pairs["smooth blobs 10 %"] = (blob(rng, 25, 0.1), blob(rng, 25, 0.1))
    pairs["rough blobs 30 %"] = (blob(rng, 8, 0.3), blob(rng, 8, 0.3))
    return pairs


def milliseconds(function: object, *arguments: np.ndarray, repeats: int) -> float:
    """Time of one call, averaged over `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        function(*arguments)
    return (time.perf_counter() - start) / repeats * 1e3


def main() -> None:
    """Runs, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="", help="path of the JSON file to write")
    parser.add_argument("--rounds", type=int, default=7, help="alternations per case")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # one thread on both sides
    warnings.simplefilter("ignore", FutureWarning)  # scikit-image renames its dilation
    report = {"benchmark": "metrics", "machine": describe(), "cases": {}}
    for name, (prediction, target) in cases().items():
        ours_f = boundary_f(prediction, target)
        if ours_f != reference_boundary_f(prediction, target):
            raise SystemExit(f"{name}: results differ")
        ours, both, reference = [], [], []
        for _ in range(arguments.rounds):
            ours.append(milliseconds(boundary_f, prediction, target, repeats=20))
            both.append(milliseconds(score_frame, prediction, target, repeats=20))
            reference.append(milliseconds(reference_boundary_f, prediction, target, repeats=1))
        row = {"F": ours_f, "ours_F_ms": statistics.median(ours),
               "ours_J_and_F_ms": statistics.median(both),
               "scikit_image_F_ms": statistics.median(reference)}
        row["ratio"] = row["scikit_image_F_ms"] / row["ours_F_ms"]
        report["cases"][name] = row
        print(f"{name:24s} F {ours_f:.4f}  ours {row['ours_F_ms']:.3f} ms (with J "
              f"{row['ours_J_and_F_ms']:.3f})  scikit-image {row['scikit_image_F_ms']:.1f} ms  "
              f"ratio {row['ratio']:.0f}")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
