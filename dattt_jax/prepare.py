"""`--mode=prepare`: a data set as downloaded in, array_record files with flow, masks and depth out."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.estimators import depth_method, pair_flow
from dattt_jax.progress import Progress
from dattt_jax.visualize import contact_sheet, save_image
from input_pipeline.datasets import DATASETS, find_videos
from input_pipeline.datasets.builder import BUILDERS
from input_pipeline.datasets.prepare import prepare_videos
from input_pipeline.datasets.prepared import PreparedData, VideoEntry
from input_pipeline.datasets.steadiness import depth_steadiness
from input_pipeline.flow import FlowMethod
from input_pipeline.flow.files import FlowFiles
from input_pipeline.writers import write_json

_SHEET_VIDEOS = 6


def prepare(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Prepares the data set that `config.data` names, once, for training and evaluation.

    Writes under `workdir` what `input_pipeline.datasets.prepare` describes, prepare.png, a look at some of
    its frames, and where there is depth depth_steadiness.json, see `depth_steadiness`. To read it:
    `config.data.dataset="prepared"`, `config.data.root=workdir`. The same call goes on where an
    interrupted one stopped.

    Returns:
        The index that videos.json holds.

    Raises:
        UserError: whatever is wrong with the data, a field or the disk.
    """
    workdir, settings = Path(workdir), config.prepare
    if config.data.dataset not in BUILDERS:
        raise UserError(f"config.data.dataset={config.data.dataset!r}: nothing to prepare; give one of "
                        f"{', '.join(BUILDERS)}")
    if settings.threads < 1:
        raise UserError(f"config.prepare.threads={settings.threads}: give 1 or more")
    videos = find_videos(config.data.dataset, config.data.root, config.data.split)
    flow = pair_flow(config)
    if isinstance(flow, FlowFiles):
        raise UserError(f"config.flow.method={config.flow.method!r}: flow files are taken from the data "
                        "set's own folder, flow/; name the method that estimates what is missing there")
    start, made = time.perf_counter(), 0
    total = sum(len(video.masks if settings.annotated_only else video.frames) for video in videos)
    with Progress(f"prepare {config.data.dataset}", total) as progress:
        def on_frame() -> None:
            nonlocal made
            made += 1
            progress.update()

        index = prepare_videos(
            videos, workdir, flow_method=flow, depth_method=depth_method(config), cache=config.estimates_dir,
            annotated_only=settings.annotated_only, threads=settings.threads, on_frame=on_frame,
            settings={"dataset": config.data.dataset, "root": Path(config.data.root).resolve().name,
                      "split": config.data.split or DATASETS[config.data.dataset].default_split,
                      "flow": {"method": config.flow.method, "last_frame": config.flow.last_frame,
                               "stabilized": config.flow.stabilized},
                      "depth": {"method": config.depth.method}})
    data = PreparedData(workdir)
    _write_steadiness(workdir / "depth_steadiness.json", data, flow)
    save_image(workdir / "prepare.png", _sheet(data))
    print(_summary(data, made, time.perf_counter() - start))
    logging.info("prepared data in %s; to use it: --config.data.dataset=prepared --config.data.root=%s",
                 workdir, workdir)
    return index


def _write_steadiness(path: Path, data: PreparedData, flow: FlowMethod) -> None:
    if path.exists() or not any(video.depth for video in data.videos):
        return
    found = depth_steadiness(data, flow)
    known = [value for value in found.values() if value is not None]
    write_json(path, {"warped_difference": found, "flow": flow.identity,
                      "mean": float(np.mean(known)) if known else None})


def _sheet(data: PreparedData) -> np.ndarray:
    """Frame, flow, mask and depth of one frame of some of the videos, spread over the data set."""
    places = np.linspace(0, len(data.videos) - 1, min(_SHEET_VIDEOS, len(data.videos))).round().astype(int)
    rows, labels = [], []
    for video in (data.videos[place] for place in places):
        index = _telling_frame(video)
        frame = data[video.first + index]
        rows.append({"frame": frame.image(), "flow": frame.flow(), "mask": _grey(frame.mask()),
                     "depth": _grey(frame.depth())})
        labels.append(f"{video.name} / {video.frame_names[index]}")
    columns = [part for part in rows[0] if any(row[part] is not None for row in rows)]
    blank = np.full((1, 1), 230, np.uint8)
    images = [[blank if row[part] is None else row[part] for part in columns] for row in rows]
    return contact_sheet(images, labels, columns)


def _telling_frame(video: VideoEntry) -> int:
    """The middle one of the frames with a mask and flow, or of what there is."""
    complete = sorted(set(video.annotated) & set(video.flow))
    frames = complete or video.annotated or range(len(video.frame_names))
    return frames[len(frames) // 2]


def _grey(values: np.ndarray | None) -> np.ndarray | None:
    """A mask or a map in [0, 1] as uint8 grey."""
    return None if values is None else np.rint(values * 255.0).astype(np.uint8)


def _summary(data: PreparedData, made: int, seconds: float) -> str:
    videos, index = data.videos, data.metadata
    size = sum(file["bytes"] for file in index["files"])
    sizes = sorted({f"{video.size[1]}x{video.size[0]}" for video in videos})
    rows = {
        "videos": len(videos), "frames": len(data),
        "annotated": sum(len(video.annotated) for video in videos),
        "with flow": f"{sum(len(video.flow) for video in videos)} ({index['given_flow']} given, "
                     f"others {index['flow']['method']}, last frame {index['flow']['last_frame']})",
        "with depth": f"{sum(len(video.depth) for video in videos)} ({index['given_depth']} given, "
                      f"others {index['depth']['method'] or 'left out'})",
        "width x height": ", ".join(sizes[:4]) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""),
        "on disk": f"{size / 1e6:.1f} MB in {len(index['files'])} files, "
                   f"{size / len(data) / 1e3:.0f} kB a frame",
        "time": f"{seconds:.1f} s, {made / seconds:.1f} frames/s" if made else "none: it was prepared before",
    }
    return "\n".join(f"{name:<15} {value}" for name, value in rows.items())
