"""The README's tables of speed and memory, made of `results/*.json`.

    python tests/benchmarks/make_tables.py            writes them between the two markers of README.md
    python tests/benchmarks/make_tables.py --check    fails if the README says something else
"""

import argparse
import json
import re
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"

_WORK = {
    "ttt_step": "TTT step", "train_step": "training step", "base_frame": "frame without TTT",
    "video_base": "video, `base`", "video_n": "video, `n`", "video_mwi": "video, `mwi`",
    "video_ltv": "video, `ltv`", "video_grouped_mwi": "video, `grouped_mwi`",
    "video_grouped_ltv": "video, `grouped_ltv`",
    "flow": "flow of a 854×480 pair, RAFT small", "metrics": "J and F of four 854×480 masks",
}
_SAVINGS = {
    "fuse": "decoder: fuse convolution at each scale's own resolution",
    "fold": "depth decoder: folded linear layers",
    "modulate": "mask decoder: modulation folded with the linear layers before it",
    "flow": "prediction after a step: flow features known",
    "predictions": "TTT step: no prediction after it",
    "frozen": "decoder: no weight gradients",
    "views": "TTT step: two views in one encoder call",
}
_SIDES = {
    "ours": "ours", "ours_bf16": "ours, bfloat16", "torch": "PyTorch, default", "torch_best": "PyTorch, best",
    "torch_bf16": "PyTorch, autocast", "torch_compile": "torch.compile",
    "torch_compile_bf16": "torch.compile, autocast",
}


def table(header, rows):
    """A Markdown table of texts."""
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def seconds(value):
    """Three digits, in the unit that suits."""
    if value is None:
        return ""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def machine_line(machine):
    """What a table was measured on."""
    versions = machine["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("jax", "torch") if name in versions)
    return (f"{machine['cores']} cores of {machine['cpu']}, load {machine['load_at_start'][0]} at the start, "
            f"{libraries}")


def compare(report):
    """Time, ratio and memory per measurement and side; then what is known of our programs."""
    settings, results = report["settings"], report["measurements"]
    first, *others = names = settings["sides"]
    clip = f"video of {settings['frames']} frames, {settings['steps']} steps each"
    rows = [[_WORK[what].replace("video", clip), *(side(row[name]) for name in names)]
            for what, row in results.items()]
    device = next(iter(results.values()))[first]["device"]
    text = [f"{settings['backbone']} at {settings['size']}×{settings['size']}, batch {settings['batch']}, on "
            f"{'' if device == 'cpu' else device + ' and '}{machine_line(report['machine'])}; medians of "
            f"{settings['rounds']} process{'es' * (settings['rounds'] > 1)} in turns, peak memory"
            + (f", and how many times as long as {_SIDES[first]}:" if others else ":"),
            table(["", *(_SIDES[name] for name in names)], rows)]
    counted = {what: row[first] for what, row in results.items() if "flops" in row[first]}
    return text + programs(counted) if counted else text


def side(result):
    """A cell of the comparison."""
    if "skipped" in result:
        return result["skipped"]
    cell = f"{seconds(result['median_s'])}, {result['peak_gib']:.1f} GiB"
    return f"{cell}, ×{result['times_first']:.2f}" if "times_first" in result else cell


def programs(results):
    """Compilation, operations and share of the peak of our programs."""
    rows = []
    for what, result in results.items():
        cold, *cached = result["start_up_s"]
        rows.append([_WORK[what], seconds(cold), seconds(cached[-1] if cached else None),
                     f"{result['flops'] / 1e9:.4g}", f"{result['share_of_matmul_peak']:.0%}"])
    return ["Our programs: what the first call takes more (tracing, compiling), operations, and the share of "
            "what a large matrix product reached in the same processes:",
            table(["", "cold", "from the cache", "GFLOP", "of the peak"], rows)]


def savings(report):
    """The plain form of each exact saving beside ours."""
    settings = report["settings"]
    rows = [[_SAVINGS[name], seconds(row["plain"]["median_s"]), seconds(row["ours"]["median_s"]),
             f"×{row['ratio']:.2f}", *(f"{row[form]['flops'] / 1e9:.4g}" for form in ("plain", "ours")),
             *(seconds(row[form]["compile_s"]) for form in ("plain", "ours"))]
            for name, row in report["savings"].items()]
    device = "" if settings["device"] == "cpu" else f"{settings['device']} and "
    return [f"What each exact saving gains: {settings['backbone']} at {settings['size']}×{settings['size']}, "
            f"batch {settings['batch']}, on {device}{machine_line(report['machine'])}; the plain form and "
            f"ours in turns in one process, medians of {settings['rounds']} rounds:",
            table(["", "plain", "ours", "", "GFLOP, plain", "GFLOP, ours", "compiling, plain",
                   "compiling, ours"], rows)]


def profile(report):
    """Shares of the time of a step's operations."""
    settings, total = report["settings"], report["operations_s"]
    rows = [[kind, *(f"{row[way] / total:.0%}" for way in ("forward", "backward"))]
            for kind, row in report["kinds"].items()]
    device = "" if settings["device"] == "cpu" else f"{settings['device']} and "
    return [f"Where the time of a {_WORK[settings['what']]} goes: {settings['backbone']} at "
            f"{settings['size']}×{settings['size']}, batch {settings['batch']}, on {device}"
            f"{machine_line(report['machine'])}; shares of the {seconds(total)} that the operations take, "
            f"beside each other, in one call of {seconds(report['seconds'])}:",
            table(["", "forward", "backward"], rows)]


def long_video(report):
    """Memory and time per frame by the video's length."""
    rows = [[f"`{strategy}`", str(run["frames"]), f"{run['peak_gib']:.2f} GiB", f"{run['frame_ms']:.1f} ms",
             f"{run['first_frames_ms']:.1f} ms", f"{run['last_frames_ms']:.1f} ms"]
            for strategy, runs in report["runs"].items() for run in runs]
    return ["Long videos (`--mode=segment`, a tiny network, " + machine_line(report["machine"]) + "):",
            table(["strategy", "frames", "peak memory", "per frame", "first 50", "last 50"], rows)]


def flow(report):
    """Speed of the flow methods, and their error where the weights are known."""
    def errors(method, kind, name):
        return f"{method[kind][name]:.2f}" if kind in method else ""

    rows = [[f"`{name}`", f"{method['pairs_per_s']:.3g}", errors(method, "training_appearance", "epe"),
             errors(method, "shifted_appearance", "epe"), errors(method, "training_appearance", "epe_object")]
            for name, method in report["methods"].items()]
    height, width = report["size"]
    return [f"Optical flow at {width}×{height}, {report['dtype']}, {report['iterations']} iterations, on "
            f"{machine_line(report['machine'])}: pairs per second, and mean end-point error in pixels over "
            f"synthetic clips whose flow is known ({report['clips']}); networks without an error have random "
            "weights:",
            table(["method", "pairs/s", "error", "shifted appearance", "the object alone"], rows)]


def input_pipeline(report):
    """Samples per second by source and number of loader threads."""
    sources = report["samples_per_s"]
    threads = list(next(iter(sources.values())))
    rows = [[name, *(f"{row[count]:.3g}" for count in threads)] for name, row in sources.items()]
    return [f"Training samples per second at {report['size']}×{report['size']} on "
            f"{machine_line(report['machine'])}, by threads or processes:", table(["source", *threads], rows)]


def metrics(report):
    """Scoring one frame beside scikit-image."""
    rows = [[name, f"{row['ours_F_ms']:.2f} ms", f"{row['ours_J_and_F_ms']:.2f} ms",
             f"{row['scikit_image_F_ms']:.1f} ms", f"×{row['ratio']:.0f}"]
            for name, row in report["cases"].items()]
    return [f"Scoring a pair of 854×480 masks on one core of {report['machine']['cpu']}, beside dilation "
            "with scikit-image's disk:", table(["masks", "F", "J and F", "scikit-image, F", ""], rows)]


_TABLES = {"compare": compare, "savings": savings, "profile": profile, "long_video": long_video, "flow": flow,
           "input_pipeline": input_pipeline, "metrics": metrics}


def all_tables(folder):
    """The text between the markers."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        if report.get("benchmark") in _TABLES:
            parts += _TABLES[report["benchmark"]](report)
    return "\n\n".join(parts)


def with_tables(readme, tables):
    """The README with the tables in their place; without tables it needs no place.

    Raises:
        ValueError: it does not have both markers, once each and in order.
    """
    if not tables and BEGIN not in readme:
        return readme
    replaced, count = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{tables}\n{END}", readme, flags=re.S)
    if count != 1 or readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must have one {BEGIN} and, after it, one {END}")
    return replaced


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the README would change")
    options = parser.parse_args()
    old = README.read_text()
    try:
        new = with_tables(old, all_tables(RESULTS))
    except ValueError as error:
        sys.exit(f"error: {error}")
    if options.check and new != old:
        sys.exit("error: README.md does not say what tests/benchmarks/results/*.json say: run "
                 "tests/benchmarks/make_tables.py")
    if not options.check:
        README.write_text(new)


if __name__ == "__main__":
    main()
