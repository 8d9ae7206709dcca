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

from dattt_jax.report_charts import MARKS
from dattt_jax.report_sections import (
    heading,
    label,
    main_measure,
    percent,
    ranked_videos,
    results_section,
    settings_section,
    sheets_section,
    ttt_section,
    videos_section,
)
from dattt_jax.report_template import page
from dattt_jax.visualize import contact_sheet, overlay
from input_pipeline.eval_videos import EvalVideo
from input_pipeline.flow import create_flow, flow_renderings
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
                 environment: Mapping[str, Any]) -> None:
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

    Raises:
        UserError: the disk is full, or the protocol in the settings is unknown.
    """
    strategies = results["strategies"]
    addresses, left_out = _embedded(sheets)
    anchored = {
        "Results": results_section(results, settings, details),
        "Videos": videos_section(strategies),
        "Test-time training": ttt_section(details, strategies, results.get("curves", {})),
        "Contact sheets": sheets_section(addresses, left_out),
        "Settings": settings_section(results, settings, environment),
    }
    ids = dict(zip(anchored, ("results", "videos", "ttt", "sheets", "settings"), strict=True))
    document = page(f"Evaluation on {results['data']}",
                    [(ids[name], name) for name, content in anchored.items() if content is not None],
                    heading(results, settings), *anchored.values(), MARKS)
    # A file name may hold bytes that are not UTF-8; Python keeps them as lone surrogates.
    write_bytes(path, document.encode("utf-8", "replace"))


def report_of_run(config: ConfigDict, workdir: str | Path, videos: Iterable[EvalVideo]) -> Path:
    """Writes `report.html` of a finished evaluation into its workdir.

    Args:
        config: the configuration of the run.
        workdir: its folder, with results.json, settings.json, videos/ and masks/.
        videos: the videos it was run on, for the contact sheets; a missing one has none.

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
    write_report(workdir / "report.html", results=results, details=details,
                 settings=json.loads((workdir / "settings.json").read_text()),
                 sheets=_run_sheets(config, workdir, strategies, videos), environment=run_environment())
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
                   num_frames: int = 4, cell_height: int = 160) -> np.ndarray:
    """Frames of a video × (frame, flow, ground truth, the mask of each strategy).

    The frames are spread evenly over those with ground truth.

    Args:
        config: `config.flow` is read.
        workdir: of the evaluation; its masks and the first strategy's record of the video are read.
        video: the video.
        strategies: names of the strategies, a column each.
        num_frames: rows, fewer if the video has fewer such frames.
        cell_height: height of each picture in pixels.

    Returns:
        `[h, w, 3]` uint8 RGB.

    Raises:
        UserError: a mask or the video cannot be read, or the video has a single frame.
    """
    count = len(video.frame_names) - (config.flow.last_frame == "drop")
    record = json.loads((Path(workdir) / "videos" / strategies[0] / f"{video.name}.json").read_text())
    names = [name for name in video.frame_names[:count] if name in record["frames"]]
    chosen = [names[i] for i in sorted(set(np.linspace(0, len(names) - 1, num_frames).round().astype(int)))]
    rows = []
    for name, frame, flow in _with_flow(video, chosen, config.flow.method, config.flow.last_frame):
        target = video.target(name)
        truth = frame if target is None else overlay(frame, target, color=(40, 200, 40))
        masks = [read_mask(Path(workdir) / "masks" / strategy / video.name / f"{name}.png")
                 for strategy in strategies]
        rows.append([frame, flow, truth, *(overlay(frame, mask) for mask in masks)])
    columns = ["frame", "flow", "ground truth", *map(label, strategies)]
    return contact_sheet(rows, chosen, columns, cell_height)


def _with_flow(video: EvalVideo, names: Sequence[str], method: str,
               last_frame: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, frame, flow rendering) of some frames, in order, computing no other flow."""
    flow, last, wanted = create_flow(method), len(video.frame_names) - 1, set(names)
    for (index, frame), (_, following) in itertools.pairwise(enumerate(video.frames)):
        here = video.frame_names[index : index + (2 if index + 1 == last else 1)]
        if wanted.isdisjoint(here):
            continue
        for name, pair in zip(here, flow_renderings([frame, following], flow, last_frame), strict=False):
            if name in wanted:
                yield name, *pair


def _run_sheets(config: ConfigDict, workdir: Path, strategies: Mapping[str, Any],
                videos: Iterable[EvalVideo]) -> Iterator[tuple[str, np.ndarray]]:
    """Titled sheets: the worst video, the best, the second worst, the second best, ….

    Only the sheets themselves are kept in memory while the videos are gone through in their own order.
    """
    ranked = [video for video, _ in ranked_videos(strategies)]
    order = [ranked[i // 2] if i % 2 == 0 else ranked[-1 - i // 2] for i in range(len(ranked))][:_SHEETS]
    sheets = {video.name: strategy_sheet(config, workdir, video, list(strategies), _SHEET_FRAMES, _SHEET_CELL)
              for video in videos if video.name in order}
    measure = main_measure(strategies)
    for name in (name for name in order if name in sheets):
        scores = [(label(strategy), percent(summary["videos"][name], measure))
                  for strategy, summary in strategies.items()]
        text = ", ".join(f"{strategy} {'–' if score is None else f'{score:.2f}'}"
                         for strategy, score in scores)
        yield (f"{name}, rank {len(ranked) - ranked.index(name)} of {len(ranked)}. "
               f"{measure.replace('JF', 'J&F')}: {text}", sheets[name])


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
            if encoded.tell() <= _IMAGE_BYTES // _SHEETS:
                break
        total += encoded.tell()
        if total > _IMAGE_BYTES:
            return found, True
        found.append((title, "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()))
    return found, False
