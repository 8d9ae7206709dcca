"""One HTML file that shows an evaluation: scores beside the paper's, charts, contact sheets, settings.

`write_report` only renders. `report_of_run` collects what `--mode=eval` has left in its workdir.
"""

import base64
import importlib.metadata
import io
import itertools
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dattt_jax.estimators import flow_of_video
from dattt_jax.eval_robustness import corrupted_folder
from dattt_jax.report_charts import MARKS
from dattt_jax.report_robustness import robustness_section
from dattt_jax.report_sections import heading, results_section, settings_section, sheets_section, ttt_section
from dattt_jax.report_template import page
from dattt_jax.report_videos import videos_section
from dattt_jax.report_words import label, main_measure, percent, ranked_videos
from dattt_jax.visualize import contact_sheet, overlay
from input_pipeline.eval_pairs import evaluated_frames, frame_pairs
from input_pipeline.eval_videos import EvalEntry, EvalVideo
from input_pipeline.flow import FlowMethod
from input_pipeline.images import read_mask
from input_pipeline.writers import write_bytes

_PACKAGES = ("dattt_jax", "jax", "jaxlib", "flax", "optax", "numpy", "opencv-python-headless", "pillow", "av")
_SHEETS = 20  # videos in a report's contact sheets at most
_SHEET_FRAMES = 3  # of each
_SHEET_CELL = 120  # height in pixels
_SHEET_WIDTH = 1600  # pixels at most; a wider sheet is scaled down
_IMAGE_BYTES = 5_500_000  # of all sheets together, as JPEG
_QUALITIES = (85, 70, 55)  # of JPEG, tried in turn until a sheet has its share


def write_report(path: str | Path, *, results: Mapping[str, Any], settings: Mapping[str, Any],
                 details: Mapping[str, Mapping[str, Any]], sheets: Iterable[tuple[str, np.ndarray]],
                 environment: Mapping[str, Any], robustness: Mapping[str, Any] | None = None) -> None:
    """Writes a report, atomically. Equal arguments give equal files.

    Args:
        path: the `.html` file.
        results: what `results.json` holds; with 'curves', {strategy: {'J': […], 'F': […]}} of fractions after
            each TTT epoch, the report shows them too.
        settings: what `settings.json` holds.
        details: strategy -> video -> what `videos/<strategy>/<video>.json` holds.
        sheets: (title, uint8 [H, W, 3] RGB) in order. They are read only as far as the file stays small
            (below 8 MB).
        environment: names and values that say where the evaluation ran.
        robustness: what `robustness.json` holds; None where only clean video was evaluated.

    Raises:
        UserError: the disk is full, or the protocol in the settings is unknown.
    """
    strategies = results["strategies"]
    addresses, left_out = _embedded(sheets)
    anchored = {
        "Results": results_section(results, settings, details),
        "Videos": videos_section(strategies),
        "Robustness": robustness_section(robustness),
        "Test-time training": ttt_section(details, strategies, results.get("curves", {})),
        "Contact sheets": sheets_section(addresses, left_out),
        "Settings": settings_section(results, settings, environment),
    }
    ids = dict(zip(anchored, ("results", "videos", "robustness", "ttt", "sheets", "settings"), strict=True))
    document = page(f"Evaluation on {results['data']}",
                    [(ids[name], name) for name, content in anchored.items() if content is not None],
                    heading(results, settings), *anchored.values(), MARKS)
    # A file name may hold bytes that are not UTF-8; Python keeps them as lone surrogates.
    write_bytes(path, document.encode("utf-8", "replace"))


def report_of_run(config: ConfigDict, workdir: str | Path, entries: Sequence[EvalEntry], flow: FlowMethod,
                  corrupted: Mapping[str, Sequence[EvalEntry]] | None = None) -> Path:
    """Writes `report.html` of a finished evaluation into its workdir.

    Args:
        config: the configuration of the run.
        workdir: its folder, with results.json, settings.json, videos/ and masks/.
        entries: the videos it was run on, for the contact sheets; a missing one has none.
        flow: the method of `config.flow`.
        corrupted: the same videos under each corruption, if there were any, by `corruption:level`; their
            results are in robustness.json and corrupted/.

    Returns:
        The file.

    Raises:
        UserError: a mask or a video cannot be read, or the disk is full.
    """
    workdir = Path(workdir)
    results = json.loads((workdir / "results.json").read_text())
    strategies = results["strategies"]
    details = {name: {video: json.loads((workdir / "videos" / name / f"{video}.json").read_text())
                      for video in summary["videos"]} for name, summary in strategies.items()}
    sheets = itertools.chain(_run_sheets(config, workdir, strategies, entries, flow),
                             _corrupted_sheets(config, workdir, list(strategies), corrupted or {}, flow))
    write_report(workdir / "report.html", results=results, details=details, sheets=sheets,
                 settings=json.loads((workdir / "settings.json").read_text()), environment=run_environment(),
                 robustness=json.loads((workdir / "robustness.json").read_text()) if corrupted else None)
    return workdir / "report.html"


def run_environment() -> dict[str, str]:
    """Device, platform and versions of this process."""
    devices = jax.devices()
    found = {"device": f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
             "platform": platform.platform(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout need not be installed
            continue
    return found


def strategy_sheet(config: ConfigDict, workdir: str | Path, video: EvalVideo, strategies: Sequence[str],
                   num_frames: int = 4, cell_height: int = 160, *, flow: FlowMethod) -> np.ndarray:
    """Frames of a video × (frame, flow, ground truth, the mask of each strategy).

    The frames are spread evenly over those with ground truth.

    Args:
        config: `config.flow` and `config.eval.frames` are read.
        workdir: of the evaluation; its masks are read.
        video: the video.
        strategies: names of the strategies, a column each.
        num_frames: rows, fewer if the video has fewer such frames.
        cell_height: height of each picture in pixels.
        flow: the method of `config.flow`.

    Returns:
        `[h, w, 3]` uint8 RGB.

    Raises:
        UserError: a mask or the video cannot be read, or the video has a single frame.
    """
    rows, names = _strategy_rows(config, workdir, video, strategies, num_frames, flow)
    columns = ["frame", "flow", "ground truth", *map(label, strategies)]
    return contact_sheet(rows, names, columns, cell_height)


def _strategy_rows(config: ConfigDict, workdir: str | Path, video: EvalVideo, strategies: Sequence[str],
                   num_frames: int, flow: FlowMethod) -> tuple[list[list[np.ndarray]], list[str]]:
    """Pictures and frame names of the rows of a `strategy_sheet`."""
    predicted = evaluated_frames(video, config.flow.last_frame, config.eval.frames == "annotated")
    annotated = set(video.annotated)
    shown = [i for i in predicted if video.frame_names[i] in annotated] or predicted
    chosen = [shown[i] for i in sorted(set(np.linspace(0, len(shown) - 1, num_frames).round().astype(int)))]
    pairs = frame_pairs(video, chosen, flow_of_video(flow, video.name, video.frame_names),
                        config.flow.last_frame)
    rows, names = [], [video.frame_names[i] for i in chosen]
    for name, (frame, rendering) in zip(names, pairs, strict=True):
        target = video.target(name)
        truth = frame if target is None else overlay(frame, target, color=(40, 200, 40))
        masks = [read_mask(Path(workdir) / "masks" / strategy / video.name / f"{name}.png")
                 for strategy in strategies]
        first = rendering.reshape(-1, *frame.shape)[0]  # of several flows
        rows.append([frame, first, truth, *(overlay(frame, mask) for mask in masks)])
    return rows, names


def _run_sheets(config: ConfigDict, workdir: Path, strategies: Mapping[str, Any],
                entries: Sequence[EvalEntry], flow: FlowMethod) -> Iterator[tuple[str, np.ndarray]]:
    """Titled sheets: the worst video, the best, the second worst, the second best, …."""
    ranked = [video for video, _ in ranked_videos(strategies)]
    order = [ranked[i // 2] if i % 2 == 0 else ranked[-1 - i // 2] for i in range(len(ranked))][:_SHEETS]
    by_name = {entry.name: entry for entry in entries}
    measure = main_measure(strategies)
    for name in (name for name in order if name in by_name):
        sheet = strategy_sheet(config, workdir, by_name[name].open(), list(strategies), _SHEET_FRAMES,
                               _SHEET_CELL, flow=flow)
        scores = [(label(strategy), percent(summary["videos"][name], measure))
                  for strategy, summary in strategies.items()]
        text = ", ".join(f"{strategy} {'–' if score is None else f'{score:.2f}'}"
                         for strategy, score in scores)
        yield (f"{name}, rank {len(ranked) - ranked.index(name)} of {len(ranked)}. "
               f"{measure.replace('JF', 'J&F')}: {text}", sheet)


def _corrupted_sheets(config: ConfigDict, workdir: Path, strategies: Sequence[str],
                      corrupted: Mapping[str, Sequence[EvalEntry]],
                      flow: FlowMethod) -> Iterator[tuple[str, np.ndarray]]:
    """One titled sheet: a frame of the first video under every corruption, at its highest level."""
    rows, names = [], []
    highest = {setting.rsplit(":", 1)[0]: setting for setting in corrupted}
    for setting in highest.values():
        entries = corrupted[setting]
        folder = corrupted_folder(workdir, tuple(setting.rsplit(":", 1)))
        row, _ = _strategy_rows(config, folder, entries[0].open(), strategies, 1, flow)
        rows, names = rows + row, [*names, setting]
    if rows:
        columns = ["frame", "flow", "ground truth", *map(label, strategies)]
        yield (f"{next(iter(corrupted.values()))[0].name}, its first evaluated frame under every corruption",
               contact_sheet(rows, names, columns, _SHEET_CELL))


def _embedded(sheets: Iterable[tuple[str, np.ndarray]]) -> tuple[list[tuple[str, str]], bool]:
    """(title, data address) of the sheets that fit into the size of a report, and whether some did not."""
    found, total = [], 0
    for title, sheet in sheets:
        image = Image.fromarray(sheet)
        if image.width > _SHEET_WIDTH:
            image.thumbnail((_SHEET_WIDTH, image.height), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            encoded = io.BytesIO()
            image.save(encoded, "JPEG", quality=quality, optimize=True)
            if encoded.tell() <= _IMAGE_BYTES // (_SHEETS + 1):  # and that of the corruptions
                break
        total += encoded.tell()
        if total > _IMAGE_BYTES:
            return found, True
        found.append((title, "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()))
    return found, False
