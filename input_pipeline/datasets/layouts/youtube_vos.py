"""YouTube-VOS 2018, training part."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dattt_jax.errors import UserError
from input_pipeline.datasets.layouts.pairing import Listing
from input_pipeline.datasets.layouts.parts import Parts, read_parts


def youtube_vos(root: Path, split: str) -> Listing | None:
    """`train/JPEGImages/<video>/`, `train/Annotations/<video>/` (palette files) and `train/meta.json`.

    Split `train` has the annotated frames, every fifth of 30 a second; `train_all_frames` has all frames,
    from `train_all_frames/JPEGImages/`, with the same masks. The root may be `train/` itself. What
    `meta.json` lists and the folder lacks is missing; it also tells the objects' categories.
    """
    train = root / "train" if (root / "train").is_dir() else root
    frames = (train if split == "train" else train.parent / split) / "JPEGImages"
    if not frames.is_dir():
        return None
    annotations = train / "Annotations"
    meta = _read_meta(train / "meta.json")
    listing = read_parts(Parts(frames, annotations if annotations.is_dir() else None),
                         f"official ({frames.parent.name}/JPEGImages/ …)")
    videos = tuple(dataclasses.replace(video, category=_category(meta.get(video.name, {})))
                   for video in listing.videos)
    missing = sorted(set(meta) - {video.name for video in videos})
    return dataclasses.replace(listing, videos=videos, missing_videos=tuple(missing))


def _read_meta(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())["videos"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged, or not YouTube-VOS' meta.json ({error}); download it "
                        "again") from error


def _category(video: Mapping[str, Any]) -> str:
    """The class that all objects share, else ''."""
    categories = {thing.get("category", "") for thing in video.get("objects", {}).values()}
    return categories.pop() if len(categories) == 1 else ""
