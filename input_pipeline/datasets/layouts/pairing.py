"""Which mask, flow and depth file belongs to which frame: by name and number, never by position."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.images import IMAGE_SUFFIXES

MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".pbm")
DEPTH_SUFFIXES = (".png", ".npy")
# The last number of a flat name is the frame and what stands before it the video, so that
# bird_of_paradise_00001 is frame 00001 of bird_of_paradise.
_FLAT_NAME = re.compile(r"(?P<video>.+)[_-](?P<frame>\d+)")
_LAST_NUMBER = re.compile(r"(?P<before>|.*\D)(?P<number>\d+)\D*")

Folder = tuple[str, ...]  # of a file, relative to the folder that was searched


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found in the folder of a data set.

    Attributes:
        layout: in words, for people.
        videos: in the order of their names; only videos with frames.
        orphans: one line for each file that belongs to no frame: it is used by nobody.
        missing_videos: names the data set's own list has but the folder does not.
    """

    layout: str
    videos: tuple[VideoFiles, ...]
    orphans: tuple[str, ...] = ()
    missing_videos: tuple[str, ...] = ()


def files_below(folder: Path, suffixes: Iterable[str] = ("",), depth: int = 8) -> dict[Folder, list[Path]]:
    """Lists files, sorted by name; hidden files and folders are passed over.

    Args:
        folder: where to look; one that does not exist holds nothing.
        suffixes: lower case, with the dot; all files without it.
        depth: levels of sub-folders to enter.

    Returns:
        For every sub-folder with such files, as its path relative to `folder`, its files.
    """
    endings = tuple(suffixes)
    found: dict[Folder, list[Path]] = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        relative = Path(place).relative_to(folder).parts
        folders[:] = [] if len(relative) >= depth else sorted(n for n in folders if not n.startswith("."))
        files = [Path(place, name) for name in sorted(names)
                 if name.lower().endswith(endings) and not name.startswith(".")]
        if files:
            found[relative] = files
    return found


def direct_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files of `files_below` that lie in the folder itself."""
    return files_below(folder, suffixes, depth=0).get((), [])


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def split_flat_name(stem: str) -> tuple[str, str] | None:
    """(video, frame) of `name_00001`, or None if there is no number at its end."""
    match = _FLAT_NAME.fullmatch(stem)
    return (match["video"], match["frame"]) if match else None


def last_number(stem: str) -> tuple[str, int] | None:
    """(text before it, value) of the last number in a name, or None if there is none."""
    match = _LAST_NUMBER.fullmatch(stem)
    return (match["before"], int(match["number"])) if match else None


def order_frames(files: Iterable[tuple[str, Path]]) -> tuple[dict[str, Path], list[str]]:
    """Puts frames into temporal order.

    Args:
        files: (frame name, file).

    Returns:
        Frame name -> file by the number at the end of the name (frame2 before frame10), else by name; and
        a line for each file whose frame has one already.
    """
    frames: dict[str, Path] = {}
    doubled = []
    for name, path in sorted(files, key=lambda item: (*_frame_order(item[0]), item[1].name)):
        if name in frames:
            doubled.append(f"{path}: the same frame as {frames[name].name}, which is used")
        else:
            frames[name] = path
    return frames, doubled


def _frame_order(name: str) -> tuple[str, int, str]:
    before, number = last_number(name) or (name, -1)
    return before, number, name


class FramePairing:
    """Finds the frame that a mask, flow or depth file belongs to.

    A file has the frame's name, with or without an ending such as `_gt`; or the frame's number, whatever
    the zero padding: `1.png`, `frame0001.png` and `cars1_001_gt.pgm` may all be frame `cars1_01`.
    A number counts only if it is the last of the name and what stands before it is the frames' own
    prefix, the video's name, or free of digits, so that `00001_2` is not taken for frame 2.

    Args:
        video: name of the video.
        frames: names of its frames.
    """

    def __init__(self, video: str, frames: Iterable[str]) -> None:
        self._frames = set(frames)
        self._prefixes = {_bare(video)}
        numbers: dict[int, list[str]] = {}
        for name in self._frames:
            place = last_number(name)
            if place is not None:
                self._prefixes.add(_bare(place[0]))
                numbers.setdefault(place[1], []).append(name)
        self._by_number = {number: names[0] for number, names in numbers.items() if len(names) == 1}

    def find(self, stem: str) -> str | None:
        """The frame of a file with this stem, or None."""
        if stem in self._frames:
            return stem
        place = last_number(stem)
        if place is None:
            return None
        if any(map(str.isdigit, place[0])) and _bare(place[0]) not in self._prefixes:
            return None
        return self._by_number.get(place[1])


def _bare(prefix: str) -> str:
    return prefix.rstrip("_- .").lower()


def pair_files(video: str, frames: Mapping[str, Path],
               files: Iterable[tuple[str, Path]]) -> tuple[dict[str, tuple[Path, ...]], list[str]]:
    """Pairs the files of a video with its frames.

    Args:
        video: its name.
        frames: name -> file.
        files: (stem, file) of masks, or of flow or depth; files in different folders are different objects.

    Returns:
        Frame name -> files, one from each folder, in the order of the frames; and a line for each file that
        has no frame or is the second one of a frame in its folder.
    """
    pairing = FramePairing(video, frames)
    found: dict[str, dict[Path, Path]] = {}
    orphans = []
    # Exact names first: they win over other spellings of the same number.
    for stem, path in sorted(files, key=lambda item: (item[0] not in frames, item[1])):
        frame = pairing.find(stem)
        if frame is None:
            orphans.append(f"{path}: no frame of {video!r} has this name or number")
        elif path.parent in found.setdefault(frame, {}):
            orphans.append(f"{path}: the same frame as {found[frame][path.parent].name}, which is used")
        else:
            found[frame][path.parent] = path
    return {name: tuple(found[name].values()) for name in frames if name in found}, orphans


def only_files(paired: Mapping[str, tuple[Path, ...]]) -> dict[str, Path]:
    """Flow and depth have one file a frame: the first."""
    return {name: paths[0] for name, paths in paired.items()}
