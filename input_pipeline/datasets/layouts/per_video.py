"""Layouts with a folder for each video that holds its frames and its masks."""

import os
from collections.abc import Iterator
from pathlib import Path

from input_pipeline.datasets.layouts.pairing import (
    DEPTH_SUFFIXES,
    MASK_SUFFIXES,
    Listing,
    direct_files,
    files_below,
    only_files,
    order_frames,
    pair_files,
    subfolders,
)
from input_pipeline.datasets.layouts.parts import DEPTH_NAMES, FLOW_NAMES, FRAME_NAMES, MASK_NAMES, child
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.images import IMAGE_SUFFIXES

_FRAMES = (*FRAME_NAMES, "img", "imgs", "images")
_MASKS = (*MASK_NAMES, "groundtruth", "ground-truth", "gt", "gt_object_level", "labels")
_FILLERS = ("data", "shots")  # levels of YouTube-Objects that say nothing
_DEEPEST = 6


def fbms(root: Path, split: str) -> Listing | None:
    """FBMS-59: `Testset/<video>/*.jpg` with `Testset/<video>/GroundTruth/*`; 29 + 30 videos.

    Names carry 1-based numbers, in two schemes: `bear01_0001.jpg` with `bear01_0001_gt.ppm`, and those
    of the older BMS-26 videos, `marple13_20.jpg` with `020_gt.pgm` or `marple13_020.pgm`. Ground truth is
    sparse; its `PROB` files are probabilities and no masks. The root may be the split's folder itself.
    """
    folder = child(root, ("testset",) if split == "test" else ("trainingset",))
    if folder is None and not any(child(path, ("groundtruth",)) for path in subfolders(root)):
        return None
    return read_videos(folder or root, f"official ({(folder or root).name}/<video>/GroundTruth/)", bare=True)


def frames_and_masks(root: Path, split: str) -> Listing | None:
    """`…/<video>/images/` with `…/<video>/labels/`, and other names of the two.

    YouTube-Objects' masks come as `<class>/data/<video>/shots/<shot>/{images,labels}/00001.jpg`; sets of
    video saliency (MCL) as `<video>/Imgs/` with `<video>/ground-truth/`. A folder with a folder of masks may
    also hold its frames itself.
    """
    del split  # data sets of this layout have one part
    listing = read_videos(root, "a folder of frames and one of masks for each video", bare=False)
    return listing if listing.videos else None


def bare_folders(root: Path, split: str) -> Listing | None:
    """`<video>/<frame>` without any masks; or the root is the folder of frames of one video."""
    del split
    folders = [root] if direct_files(root, IMAGE_SUFFIXES) else subfolders(root)
    videos, orphans = [], []
    for folder in folders:
        frames, doubled = order_frames((path.stem, path) for path in direct_files(folder, IMAGE_SUFFIXES))
        orphans += doubled
        if frames:
            videos.append(VideoFiles(folder.name, frames, {}))
    return Listing("a folder of frames for each video", tuple(videos), tuple(orphans)) if videos else None


def read_videos(root: Path, layout: str, *, bare: bool) -> Listing:
    """Reads every video's folder below the root.

    Args:
        root: where to look.
        layout: how to call it.
        bare: take a folder with images for a video even if it has no folder of masks.
    """
    videos, orphans = [], []
    for folder, frame_folder in _video_folders(root, bare):
        name = "_".join(part for part in folder.relative_to(root).parts if part not in _FILLERS) or root.name
        frames, doubled = order_frames(
            (path.stem, path) for path in direct_files(frame_folder, IMAGE_SUFFIXES))
        orphans += doubled
        paired = []
        for names, suffixes in ((_MASKS, MASK_SUFFIXES), (FLOW_NAMES, IMAGE_SUFFIXES),
                                (DEPTH_NAMES, DEPTH_SUFFIXES)):
            part = child(folder, names)
            below = files_below(part, suffixes) if part else {}
            files = [(path.stem, path) for paths in below.values() for path in paths
                     if "PROB" not in path.stem]
            found, unpaired = pair_files(name, frames, files)
            orphans += unpaired
            paired.append(found)
        videos.append(VideoFiles(name, frames, paired[0], only_files(paired[1]), only_files(paired[2])))
    return Listing(layout, tuple(sorted(videos, key=lambda video: video.name)), tuple(orphans))


def _video_folders(root: Path, bare: bool) -> Iterator[tuple[Path, Path]]:
    """(video's folder, folder of its frames)."""
    for place, names, _ in os.walk(root, followlinks=True):
        folder = Path(place)
        names[:] = sorted(name for name in names if not name.startswith("."))
        if len(folder.relative_to(root).parts) >= _DEEPEST:
            names.clear()
        frames = child(folder, _FRAMES)
        if frames is None and direct_files(folder, IMAGE_SUFFIXES) and (bare or child(folder, _MASKS)):
            frames = folder
        if frames is not None and direct_files(frames, IMAGE_SUFFIXES):
            names.clear()
            yield folder, frames
