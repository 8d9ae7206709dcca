"""What both sides of a comparison share: inputs, options, the clock and the form of the answer.

NumPy alone: neither side may carry the other's libraries in its memory.
"""

import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from golden import recipe
from machine import peak_memory_gib

FRAME = (480, 854)  # height and width of the video
GOLDEN_NAMES = {"mit_b1": "mit_b1", "swin_t": "swin_tiny"}
RAFT_ITERATIONS = 12
_REPEATS = {"ttt_step": 2, "train_step": 2, "base_frame": 5, "flow": 3, "metrics": 5}  # a whole video: 1
_MATRIX = {"cpu": 4096, "cuda": 8192}  # side of the product that tells the peak


@dataclasses.dataclass(frozen=True)
class Options:
    """What one process measures.

    Attributes:
        what: name of the measurement.
        backbone: mit_b1 or swin_t.
        size: height and width the network sees.
        batch: crops of a TTT step, samples of a training step.
        frames: of a video.
        steps: TTT steps per frame of a video.
        device: cpu or cuda.
        bfloat16: compute type; else float32.
        compiled: torch.compile.
        fused: PyTorch's own attention kernel instead of attention as the authors write it.
        tuned: the faster settings that change results (TF32).
        flops: also count the operations (ours).
    """

    what: str
    backbone: str
    size: int
    batch: int
    frames: int
    steps: int
    device: str
    bfloat16: bool = False
    compiled: bool = False
    fused: bool = False
    tuned: bool = False
    flops: bool = False

    @classmethod
    def from_command_line(cls):
        """Options of a child process, as its parent wrote them."""
        return cls(**json.loads(sys.argv[1]))

    @property
    def matrix(self):
        return _MATRIX[self.device]


def video(frames):
    """(frames, flow renderings), uint8 [T, H, W, 3]."""
    images = [np.roll(recipe.frame("bench", *FRAME), 4 * t, axis=1) for t in range(frames)]
    flows = [recipe.frame(f"bench_flow{t}", *FRAME, cell=24) for t in range(frames)]
    return np.stack(images), np.stack(flows)


def training_batch(batch, size):
    """{'image', 'flow': uint8 [B, S, S, 3], 'mask': uint8 [B, S, S, 1], 'depth': float32 [B, S, S, 1]}."""
    fields = [{"image": recipe.frame(f"train{i}", size, size),
               "flow": recipe.frame(f"flow{i}", size, size, cell=24),
               "mask": recipe.blobs(f"mask{i}", size, size)[..., None].astype(np.uint8),
               "depth": recipe.frame(f"depth{i}", size, size)[..., :1].astype(np.float32) / 255}
              for i in range(batch)]
    return {name: np.stack([sample[name] for sample in fields]) for name in fields[0]}


def answer(options, work, *, device, peak_gib, matrix_product, flops=None):
    """Times `work` and prints the child's one line of JSON.

    Args:
        options: of this process.
        work: does one unit and returns when it is done.
        device: its name.
        peak_gib: () -> most memory of the device so far; None for the process's.
        matrix_product: makes a square matrix of side `options.matrix`, and gives what multiplies it with
            itself; called after the peak of memory was taken.
        flops: () -> operations of a unit, counted last.
    """
    first = _seconds(work)
    times = [_seconds(work) for _ in range(_REPEATS.get(options.what, 1))]
    report = {"device": device, "first_s": first, "seconds": times,
              "peak_gib": (peak_gib or peak_memory_gib)()}
    if matrix_product:
        multiply = matrix_product()
        multiply()
        report["matmul_flops_per_s"] = 2 * options.matrix**3 / statistics.median(
            _seconds(multiply) for _ in range(3))
    if options.flops and flops:
        report["flops"] = flops()
    print(json.dumps(report))


def _seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
