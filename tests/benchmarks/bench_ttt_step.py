"""Time, memory and operations of one TTT step: augmentation, two views, backward, Adam.

    python tests/benchmarks/bench_ttt_step.py [--backbone=mit_b1] [--size=512] [--batch=8] [--out=FILE]

Prints, and with --out writes, JSON: seconds of compilation and of each step (median over `--steps`), bytes of
temporary memory of the program and peak of the process, device and versions.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dattt_jax.host_memory import keep_freed_memory
from dattt_jax.inference import depth_ttt_problem
from dattt_jax.models import create_model
from dattt_jax.ttt import adapt_step, fresh_state
from dattt_jax.variables import random_variables


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mit_b1")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", default="")
    options = parser.parse_args()

    keep_freed_memory((options.size, options.size))
    config = ConfigDict({"backbone": options.backbone, "depth": True, "modulation": "alpha+beta",
                         "dtype": options.dtype})
    problem = depth_ttt_problem(create_model(config), input_size=(options.size, options.size),
                                batch_size=options.batch, learning_rate=1e-5)
    state, frozen = fresh_state(problem, jax.tree.map(jnp.asarray, random_variables(config, 0)))
    frame = {"image": np.random.default_rng(0).integers(0, 256, (480, 854, 3), dtype=np.uint8)}
    step = jax.jit(partial(adapt_step, problem), donate_argnums=0)
    arguments = (frozen, frame, jnp.int32(0))
    start = time.perf_counter()
    program = step.lower(state, *arguments, jax.random.key(0)).compile()
    compiled = time.perf_counter() - start
    seconds = []
    for i in range(options.steps + 1):
        start = time.perf_counter()
        state, (loss, _) = program(state, *arguments, jax.random.key(i))
        loss.block_until_ready()
        seconds.append(time.perf_counter() - start)
    report = {
        **vars(options), "compile_s": round(compiled, 2), "first_step_s": round(seconds[0], 3),
        "step_s": round(statistics.median(seconds[1:]), 3), "steps_s": [round(s, 3) for s in seconds[1:]],
        "temporary_gib": round(program.memory_analysis().temp_size_in_bytes / 2**30, 2),
        "peak_process_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}", "machine": platform.processor(),
        "jax": jax.__version__, "python": platform.python_version(),
    }
    del report["out"]
    print(json.dumps(report, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
