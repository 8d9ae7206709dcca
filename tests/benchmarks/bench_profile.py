"""Where the time of a step goes: XLA's own profile of one call, by kind of operation.

    python tests/benchmarks/bench_profile.py [--what=ttt_step] [--backbone=mit_b1] [--size=512] [--batch=8]
        [--out=FILE]

Operations run beside each other, so that their times add up to more than the call's: what is told is each
kind's share of the sum. A fused operation counts as what it ends with, by the name that JAX gave it, except
that whatever has a matrix product in it counts as one. Prints, and with --out writes, JSON: seconds of the
call, of all operations, and per kind those of the forward and the backward pass.
"""

import argparse
import gzip
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import measure_ours
from machine import describe
from workload import Options

from dattt_jax.host_memory import start_with_huge_pages, trim_around_compiling

PRODUCT, REST = "matrix products", "the rest"
# By the first pattern that is found in an operation's name, as `…/encoder_image/block1_0/mlp/dwconv/mul`.
_KINDS = {"depthwise convolutions": r"/dwconv/", "attention but its products": r"/attn/",
          "normalisation": r"norm\d*/|/bn/", "GELU and biases": r"/mlp/",
          "patch embeddings but their products": r"/patch_embed",
          "maps of the decoders": r"(depth|decode)_head"}


def kinds_of(dump):
    """{operation: (kind, whether it is of the backward pass)} of a compiled program, an XLA dump's text."""
    bodies = {name: body for name, body in re.findall(
        r"^(?:ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", dump, re.M | re.S)}
    found = {}
    for name, line in re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$", dump, re.M):
        called = re.search(r"calls=%?([\w.\-]+)", line)
        whole = line + (bodies.get(called.group(1), "") if called else "")
        named = re.search(r'op_name="([^"]*)"', line)
        path = named.group(1) if named else ""
        kind = next((kind for kind, pattern in _KINDS.items() if re.search(pattern, path)), REST)
        if re.search(r"[ )](dot|convolution)\(|__cublas|__cudnn", whole):
            kind = PRODUCT
        backward = "transpose(" in (path or " ".join(re.findall(r'op_name="([^"]*)"', whole)))
        found[name] = kind, backward
    return found


def shares(events, programs):
    """{kind: {"forward": seconds, "backward": seconds}} of a trace's events, the longest kind first.

    Args:
        events: of the trace, `dur` in µs.
        programs: {program: `kinds_of` it}.
    """
    seconds, names = Counter(), {}
    for event in events:
        arguments = event.get("args", {})
        operations = programs.get(arguments.get("hlo_module"), {})
        # Loops and calls last as long as what is in them, which has events of its own.
        if event.get("ph") == "X" and arguments.get("hlo_op") in operations \
                and not re.match(r"(while|call|conditional)\b", arguments["hlo_op"]):
            kind, backward = operations[arguments["hlo_op"]]
            seconds[kind, backward] += event["dur"] / 1e6
            names[kind] = names.get(kind, 0) + event["dur"]
    return {kind: {"forward": seconds[kind, False], "backward": seconds[kind, True]}
            for kind in sorted(names, key=names.get, reverse=True)}


def profile(work, folder):
    """Calls `work`, which has been called before.

    Args:
        work: does one unit and returns when it is done.
        folder: where this process dumps its programs (`--xla_dump_to`); the trace goes there, too.

    Returns:
        (seconds of the call, `shares`).
    """
    with jax.profiler.trace(folder / "trace", create_perfetto_trace=True):
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    trace, = folder.glob("trace/**/perfetto_trace.json.gz")
    programs = {}
    for path in folder.glob("*after_optimizations.txt"):
        dump = path.read_text()
        programs[re.match(r"HloModule ([\w.\-]+)", dump).group(1)] = kinds_of(dump)
    with gzip.open(trace) as file:
        found = shares(json.load(file)["traceEvents"], programs)
    if not found:
        sys.exit(f"error: no operation in the profile is of one of the programs {sorted(programs)}")
    return seconds, found


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="ttt_step", choices=("ttt_step", "train_step", "base_frame"))
    parser.add_argument("--backbone", default="mit_b1", choices=("mit_b1", "swin_t"))
    parser.add_argument("--size", type=int, default=512, help="height and width the network sees")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", default="", help="the JSON file to write")
    options = parser.parse_args()

    report = {"benchmark": "profile", "machine": describe()}
    with tempfile.TemporaryDirectory() as folder:
        # Read when JAX is first used, not when it is imported.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"
        trim_around_compiling()
        work, _ = measure_ours.WORK[options.what](Options(
            what=options.what, backbone=options.backbone, size=options.size, batch=options.batch, frames=1,
            steps=1, device=jax.default_backend()))
        work()
        work()
        seconds, found = profile(work, Path(folder))
    report["settings"] = {"what": options.what, "backbone": options.backbone, "size": options.size,
                          "batch": options.batch, "device": jax.devices()[0].device_kind}
    report |= {"seconds": seconds, "operations_s": sum(sum(row.values()) for row in found.values()),
               "kinds": found}
    print(json.dumps(report, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    start_with_huge_pages()
    main()
