"""Data sets as they are downloaded: names, layouts, and the files of their videos.

`find_videos` reads the folder of any of them, in its official layout or in the processed one
(`frame/ flow/ mask/ depth/`); `decode_masks` its ground truth. A new data set is one entry of `DATASETS`
and, if it is laid out as no other is, a function in `layouts/`.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import logging

from dattt_jax.errors import UserError
from input_pipeline.datasets.layouts.davis import davis16, processed_davis16
from input_pipeline.datasets.layouts.pairing import Listing
from input_pipeline.datasets.layouts.parts import jpeg_images, processed
from input_pipeline.datasets.layouts.per_video import bare_folders, fbms, frames_and_masks
from input_pipeline.datasets.layouts.youtube_vos import youtube_vos
from input_pipeline.datasets.masks import decode_masks, own_convention
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.video_io import VIDEO_SUFFIXES

__all__ = [
    "DATASETS", "DatasetInfo", "Listing", "VideoFiles", "decode_masks", "find_videos", "list_videos",
    "own_convention",
]

Layout = Callable[[Path, str], Listing | None]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A data set.

    Attributes:
        title: its name for people.
        splits: its parts; the first is the usual one.
        video_counts: published number of videos of each split; none for folders of one's own.
        layouts: tried in this order.
        expected: what its official folder holds, for messages.
        classes: names of object classes that begin the names of videos.
    """

    title: str
    splits: tuple[str, ...]
    video_counts: Mapping[str, int]
    layouts: tuple[Layout, ...]
    expected: str
    classes: tuple[str, ...] = ()

    @property
    def default_split(self) -> str:
        """The split that '' stands for."""
        return self.splits[0]


_CLASSES = ("aeroplane", "bird", "boat", "car", "cat", "cow", "dog", "horse", "motorbike", "train")
_ALL = ("all",)

# Counts as the data sets' papers give them; YouTube-Objects' 126 are the annotated shots of Jain and Grauman
# (ECCV 2014).
DATASETS: Mapping[str, DatasetInfo] = {
    "youtube_vos": DatasetInfo(
        "YouTube-VOS 2018", ("train", "train_all_frames"), {"train": 3471, "train_all_frames": 3471},
        (processed, youtube_vos), "train/JPEGImages/<video>/ and train/Annotations/<video>/"),
    "davis16": DatasetInfo(
        "DAVIS-16", ("val", "train"), {"train": 30, "val": 20}, (processed_davis16, davis16),
        "JPEGImages/480p/<video>/ and Annotations/480p/<video>/"),
    "fbms": DatasetInfo(
        "FBMS-59", ("test", "train"), {"train": 29, "test": 30}, (processed, fbms),
        "Testset/<video>/ and Testset/<video>/GroundTruth/ (Trainingset/ for train)"),
    "long_videos": DatasetInfo(
        "Long-Videos", _ALL, {"all": 3}, (processed, jpeg_images),
        "JPEGImages/<video>/ and Annotations/<video>/"),
    "mcl": DatasetInfo(
        "MCL", _ALL, {"all": 9}, (processed, jpeg_images, frames_and_masks),
        "<video>/Imgs/ and <video>/ground-truth/"),
    "segtrack_v2": DatasetInfo(
        "SegTrackV2", _ALL, {"all": 14}, (processed, jpeg_images),
        "JPEGImages/<video>/ and GroundTruth/<video>/[<object>/]"),
    "youtube_objects": DatasetInfo(
        "YouTube-Objects", _ALL, {"all": 126}, (processed, jpeg_images, frames_and_masks),
        "<class>/data/<video>/shots/<shot>/images/ and …/labels/", _CLASSES),
    "folder": DatasetInfo(
        "folder of videos", _ALL, {}, (processed, jpeg_images, frames_and_masks, bare_folders),
        "frames/<video>/ and masks/<video>/, or <video>/ with frames"),
}


def find_videos(dataset: str, root: str | Path, split: str = "") -> list[VideoFiles]:
    """Finds the files of every video of a data set; reads none of them.

    Args:
        dataset: a name of `DATASETS`.
        root: the folder it was unpacked to.
        split: one of its splits; '' is the usual one.

    Returns:
        The videos by name. Files that belong to no frame are logged; `list_videos` gives them all.

    Raises:
        UserError: no such data set or split, no such folder, or no video in it.
    """
    listing = list_videos(dataset, root, split)
    if listing.orphans:
        logging.warning("%d files belong to no frame and are not used, the first: %s",
                        len(listing.orphans), listing.orphans[0])
    if listing.missing_videos:
        logging.warning("%s lacks %d of its videos, the first: %s", root, len(listing.missing_videos),
                        listing.missing_videos[0])
    return list(listing.videos)


def list_videos(dataset: str, root: str | Path, split: str = "") -> Listing:
    """`find_videos` with what else there is to say: the layout, files of no frame, missing videos.

    Raises:
        UserError: see `find_videos`.
    """
    info = _info(dataset)
    split = split or info.default_split
    if split not in info.splits:
        raise UserError(f"config.data.split={split!r}: {info.title} has {' and '.join(info.splits)}")
    expected = f"{info.title} needs {info.expected}, or frame/ and mask/, in it"
    if not str(root):
        raise UserError(f"config.data.root is empty: give the folder of the data set; {expected}")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"config.data.root={str(root)!r}: no such folder; {expected}")
    try:
        listing = next((found for layout in info.layouts if (found := layout(root, split)) is not None), None)
        if listing is None:
            raise UserError(_not_found(info, root, split, expected))
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be read ({error.strerror})") from error
    if not listing.videos:
        raise UserError(f"config.data.root={str(root)!r}: there are no frames of split {split!r} in it "
                        f"(layout: {listing.layout})")
    counts = collections.Counter(video.name for video in listing.videos)
    if len(counts) < len(listing.videos):
        name, count = counts.most_common(1)[0]
        raise UserError(f"{root}: there are {count} videos {name!r} (levels of folders are joined by _); "
                        "rename a folder")
    videos = tuple(
        dataclasses.replace(video, dataset=dataset, category=video.category or _category(video, info))
        for video in listing.videos)
    return dataclasses.replace(listing, videos=videos)


def _info(dataset: str) -> DatasetInfo:
    if dataset not in DATASETS:
        raise UserError(f"config.data.dataset={dataset!r} is not a data set of files; give one of "
                        f"{', '.join(sorted(DATASETS))}")
    return DATASETS[dataset]


def _category(video: VideoFiles, info: DatasetInfo) -> str:
    return next((name for name in info.classes if video.name.startswith(name)), "")


def _not_found(info: DatasetInfo, root: Path, split: str, expected: str) -> str:
    """Why no layout fits: the root is one folder too high, or holds video files."""
    children = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    film = next((path for path in children if path.suffix.lower() in VIDEO_SUFFIXES), None)
    if film:
        return (f"{film} is a video file: extract its frames to {root}/frames/{film.stem}/ (ffmpeg -i "
                f"{film.name} frames/{film.stem}/%05d.png), or give it to --mode=segment as it is")
    for folder in filter(Path.is_dir, children):
        if any(found.videos for layout in info.layouts if (found := layout(folder, split)) is not None):
            return f"config.data.root={str(root)!r}: the data set is one level below, give {folder}"
    return f"config.data.root={str(root)!r} has another layout: {expected}"
