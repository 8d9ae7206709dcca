"""Layouts with one folder for all frames and one for all masks: the processed one, and JPEGImages/."""

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

from input_pipeline.datasets.layouts.pairing import (
    DEPTH_SUFFIXES,
    MASK_SUFFIXES,
    Folder,
    Listing,
    files_below,
    only_files,
    order_frames,
    pair_files,
    split_flat_name,
    subfolders,
)
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.flow.files import FLOW_SUFFIXES
from input_pipeline.images import IMAGE_SUFFIXES

FRAME_NAMES, FLOW_NAMES = ("frame", "frames"), ("flow", "flows")
MASK_NAMES, DEPTH_NAMES = ("mask", "masks"), ("depth", "depths")


@dataclasses.dataclass(frozen=True)
class Parts:
    """The folder of each kind of file; None where there is none."""

    frames: Path
    masks: Path | None = None
    flows: Path | None = None
    depths: Path | None = None


def child(folder: Path, names: Collection[str]) -> Path | None:
    """The sub-folder with one of these names, in any case; None if there is none."""
    return next((path for path in subfolders(folder) if path.name.casefold() in names), None)


def processed(root: Path, split: str, keep: Collection[str] | None = None) -> Listing | None:
    """The layout this field shares: `frame/ flow/ mask/ depth/`, each `name_00001.png` or `name/00001.png`.

    It is recognised by a sub-folder `frame` or `frames`, of the root or of a sub-folder whose name begins
    with the split's (`val/`, `Testset/`). Flat or one folder for each video is decided file by file.

    Args:
        root: folder of the data set.
        split: its part.
        keep: names of the videos of that part, where the data set has a list; None keeps all.

    Returns:
        The files, or None if the folder is laid out otherwise.
    """
    of_split = [path for path in subfolders(root) if path.name.casefold().startswith(split)]
    for folder in (*sorted(of_split, key=lambda path: len(path.name)), root):
        frames = child(folder, FRAME_NAMES)
        if frames is None:
            continue
        parts = Parts(frames, child(folder, MASK_NAMES), child(folder, FLOW_NAMES),
                      child(folder, DEPTH_NAMES))
        return read_parts(parts, f"processed ({frames.relative_to(root)}/ …)", keep)
    return None


def jpeg_images(root: Path, split: str) -> Listing | None:
    """`JPEGImages/<video>/<frame>` with `GroundTruth/` or `Annotations/<video>/[<object>/]<frame>`.

    SegTrackV2 has a folder for each object where there are several; they are united.
    """
    del split  # data sets of this layout have one part
    frames = child(root, ("jpegimages",))
    if frames is None:
        return None
    masks = child(root, ("groundtruth", "annotations"))
    return read_parts(Parts(frames, masks), f"official ({frames.name}/ …)")


def read_parts(parts: Parts, layout: str, keep: Collection[str] | None = None) -> Listing:
    """Reads mirrored folders.

    Args:
        parts: the folders. A folder in `frames` that holds images is a video, named by its path below with
            `_` for `/`; what the other parts hold in the same place, or below (one folder for each object),
            belongs to it.
        layout: how to call it.
        keep: names of the videos to read; None reads all.

    Returns:
        The files.
    """
    grouped: dict[Folder, list[tuple[str, Path]]] = {}
    orphans: list[str] = []
    for place, stem, path in _placed(parts.frames, IMAGE_SUFFIXES, parts.frames.parent.name, orphans):
        grouped.setdefault(place, []).append((stem, path))
    others: dict[str, dict[Folder, list[tuple[str, Path]]]] = {}
    for kind, folder, suffixes in (("mask", parts.masks, MASK_SUFFIXES),
                                   ("flow", parts.flows, FLOW_SUFFIXES),
                                   ("depth", parts.depths, DEPTH_SUFFIXES)):
        files = others.setdefault(kind, {})
        if folder is None:
            continue
        if kind != "mask":
            known = ", ".join(suffixes)
            orphans += [f"{path}: {kind} is read from {known}" for files_there in files_below(folder).values()
                        for path in files_there if path.suffix.lower() not in suffixes]
        for place, stem, path in _placed(folder, suffixes, parts.frames.parent.name, orphans):
            video = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in grouped), None)
            if video is not None:
                files.setdefault(video, []).append((stem, path))
            elif keep is None or place[0] in keep:
                orphans.append(f"{path}: there is no video {'_'.join(place)!r} in {parts.frames}")
    videos = []
    for place, files in grouped.items():
        name = "_".join(place)
        if keep is not None and name not in keep:
            continue
        frames, doubled = order_frames(files)
        orphans += doubled
        paired = {}
        for kind, of_videos in others.items():
            paired[kind], unpaired = pair_files(name, frames, of_videos.get(place, ()))
            orphans += unpaired
        videos.append(VideoFiles(name, frames, paired["mask"], only_files(paired["flow"]),
                                 only_files(paired["depth"])))
    missing = sorted(set(keep or ()) - {video.name for video in videos})
    videos.sort(key=lambda video: video.name)
    return Listing(layout, tuple(videos), tuple(orphans), tuple(missing))


def _placed(folder: Path, suffixes: tuple[str, ...], nameless: str,
            orphans: list[str]) -> Iterator[tuple[Folder, str, Path]]:
    """(video's place, frame name, file) of all files; adds those without a frame to `orphans`."""
    for place, files in files_below(folder, suffixes).items():
        for path in files:
            if "PROB" in path.stem:
                continue
            flat = None if place else split_flat_name(path.stem)
            if place:
                yield place, path.stem, path
            elif flat:
                yield (flat[0],), flat[1], path
            elif path.stem.isdecimal():  # frame/00001.png: the folder is one video
                yield (nameless,), path.stem, path
            else:
                orphans.append(f"{path}: not <video>_<frame number>, and in no video's folder")
