"""Reading what `--mode=prepare` wrote: frames, flow, masks and depth of any video, in any order."""

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.datasets.depth_maps import FULL
from input_pipeline.images import read_image

INDEX_NAME = "videos.json"  # written last: where it is, the folder is complete
FORMAT_VERSION = 1  # of the index and the features; raised when an older reader would go wrong
_KEYS = {"identity", "folder", "files", "videos"}  # what reading needs of it
_FPS = 24.0  # data sets of images do not say theirs


@dataclasses.dataclass(frozen=True)
class VideoEntry:
    """What the index says of a video; `data[first + i]` is its frame i.

    Attributes:
        name: unique in the data set.
        category: class of the object, '' where there are no classes.
        first: index of its first frame.
        frame_names: one per frame that was kept, in order.
        size: (height, width) in pixels.
        annotated, flow, depth: which of its frames, 0..len(frame_names) - 1, have a mask, a flow
            rendering and a depth target.
    """

    name: str
    category: str
    first: int
    frame_names: tuple[str, ...]
    size: tuple[int, int]
    annotated: tuple[int, ...]
    flow: tuple[int, ...]
    depth: tuple[int, ...]

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "VideoEntry":
        """The entry as the index holds it."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value
                      for key, value in entry.items()})


@dataclasses.dataclass(frozen=True)
class PreparedFrame:
    """One example; images are decoded when asked for.

    Attributes:
        video, name: of the video and the frame.
        encoded: 'image', 'flow', 'mask' and 'depth' as stored; empty where there is none.
    """

    video: str
    name: str
    encoded: dict[str, bytes]

    def image(self) -> np.ndarray:
        """The frame, uint8 [H, W, 3] RGB."""
        return self._decode("image", read_image)

    def flow(self) -> np.ndarray | None:
        """The flow's colour-wheel rendering, uint8 [H, W, 3] RGB; None where there is none."""
        return self._decode("flow", read_image)

    def mask(self) -> np.ndarray | None:
        """The union of the objects, bool [H, W]; None where not annotated."""
        return self._decode("mask", lambda file: _grey(file) != 0)

    def depth(self) -> np.ndarray | None:
        """The depth target, float32 [h, w] in [0, 1], 0 where unknown; None where there is none.

        Its size may differ from the frame's.
        """
        return self._decode("depth", lambda file: _grey(file).astype(np.float32) / np.float32(FULL))

    def _decode(self, part: str, decode: Callable[[io.BytesIO], np.ndarray]) -> np.ndarray | None:
        if not self.encoded[part]:
            return None
        try:
            return decode(io.BytesIO(self.encoded[part]))
        except (UserError, OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{part} of frame {self.video}/{self.name} is damaged; run --mode=prepare again "
                            "in an empty --workdir") from error


def _grey(file: io.BytesIO) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


class PreparedData:
    """Random access to prepared frames; `data[i]` is frame i over all videos, in order.

    Picklable, and safe to use from several threads and processes.

    Args:
        root: the `--workdir` of `--mode=prepare`.

    Attributes:
        root: the same.
        metadata: what is known of how it was made: source, flow method, last-frame rule, checksums.
        videos: the index.

    Raises:
        UserError: the folder is not prepared, incomplete, of another version, or a file is missing or cut
            off. What has changed within a file is found by `check_content`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.metadata = read_index(self.root)
        self.videos = tuple(VideoEntry.from_json(entry) for entry in self.metadata["videos"])
        self._folder = self.root / self.metadata["folder"]
        for file in self.metadata["files"]:
            path = self._folder / file["name"]
            size = path.stat().st_size if path.is_file() else None
            if size != file["bytes"]:
                state = "is missing" if size is None else f"has {size} bytes instead of {file['bytes']}"
                raise UserError(f"{path} {state}; remove {self.root} and run --mode=prepare again")

    @property
    def stabilized(self) -> bool:
        """Whether the camera's motion was taken out of the stored flow, as by `config.flow.stabilized`."""
        return self.metadata.get("flow", {}).get("stabilized", False)

    def __getstate__(self) -> Path:
        return self.root

    def __setstate__(self, root: Path) -> None:
        self.__init__(root)

    def __repr__(self) -> str:
        return f"PreparedData({str(self.root)!r})"

    def __len__(self) -> int:
        return sum(len(video.frame_names) for video in self.videos)

    def __getitem__(self, index: int) -> PreparedFrame:
        """Reads frame `index`, 0..len - 1.

        Raises:
            UserError: the data is damaged there.
        """
        index = int(index)
        if not 0 <= index < len(self._records):
            raise IndexError(f"frame {index} of {len(self._records)}")
        try:
            record = self._records[index]
        except (RuntimeError, ValueError) as error:  # array_record's and protobuf's words for damage
            reason = " ".join(str(error).split())
            raise UserError(f"{self._folder}: frame {index} cannot be read ({reason}); remove {self.root} "
                            "and run --mode=prepare again") from error
        encoded = {part: record[part] for part in ("image", "flow", "mask", "depth")}
        return PreparedFrame(record["video"].decode(), record["frame"].decode(), encoded)

    @functools.cached_property
    def _records(self) -> Sequence[dict[str, Any]]:
        builder = tfds.builder_from_directory(self._folder)
        [split] = builder.info.splits
        return builder.as_data_source(split)

    def check_content(self) -> None:
        """Reads every file through and compares checksums.

        Raises:
            UserError: a file is not what `--mode=prepare` wrote; names it.
        """
        for file in self.metadata["files"]:
            path = self._folder / file["name"]
            if file_checksum(path) != file["sha256"]:
                raise UserError(f"{path} is damaged: its checksum is not that of {self.root / INDEX_NAME}; "
                                f"remove {self.root} and run --mode=prepare again")


def read_index(root: Path) -> dict[str, Any]:
    """Reads the index of a prepared folder.

    Raises:
        UserError: there is none, it is damaged, or of another version.
    """
    path = root / INDEX_NAME
    try:
        index = json.loads(path.read_text())
        version = index["format_version"]
    except FileNotFoundError:
        state = (f"holds no {INDEX_NAME}: nothing was prepared there, or not to its end" if root.is_dir() else
                 "does not exist")
        raise UserError(f"{root} {state}; give the --workdir of --mode=prepare, which is not the folder of "
                        "the data set itself") from None
    except NotADirectoryError:
        raise UserError(f"{root} is a file; give the --workdir of --mode=prepare") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged, or not written by --mode=prepare ({error}); remove {root} and run "
                        "--mode=prepare again") from error
    if version != FORMAT_VERSION:
        raise UserError(f"{path} is of format version {version}, this program reads {FORMAT_VERSION}; run "
                        "--mode=prepare again in another --workdir")
    missing = _KEYS - index.keys()
    if missing:
        raise UserError(f"{path}: damaged, it lacks {min(missing)!r}; remove {root} and run --mode=prepare "
                        "again")
    return index


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class PreparedVideo:
    """A video of prepared data, with `EvalVideo`'s fields and its stored flow.

    Attributes:
        name: unique in its data set.
        category: class of the object, '' where there are no classes.
        frame_names: one per frame.
        fps: frames per second; prepared data does not know it, 24.
        size: (height, width) in pixels.
    """

    name: str
    category: str
    frame_names: list[str]
    fps: float
    size: tuple[int, int]
    _data: PreparedData = dataclasses.field(repr=False)
    _first: int = dataclasses.field(repr=False)

    def frame(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 [H, W, 3] RGB."""
        return self._read(index).image()

    def flow(self, index: int) -> np.ndarray | None:
        """Its stored flow rendering, uint8 [H, W, 3] RGB; None for a last frame prepared with 'drop'."""
        return self._read(index).flow()

    def mask(self, index: int) -> np.ndarray | None:
        """Its ground truth, bool [H, W]; None if not annotated."""
        return self._read(index).mask()

    def target(self, name: str) -> np.ndarray | None:
        """The ground truth of the frame called `name`, bool [H, W]; None if not annotated."""
        return self.mask(self.frame_names.index(name))

    @property
    def frames(self) -> "FrameList":
        """All frames in order, read one at a time, as often as wanted."""
        return FrameList(self)

    def _read(self, index: int) -> PreparedFrame:
        if not 0 <= index < len(self.frame_names):
            raise IndexError(f"frame {index} of {len(self.frame_names)}")
        return self._data[self._first + index]


@dataclasses.dataclass(frozen=True)
class FrameList:
    """The frames of a video, decoded as they are asked for."""

    video: PreparedVideo

    def __len__(self) -> int:
        return len(self.video.frame_names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.video.frame(index)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.video.frame, range(len(self)))


def prepared_videos(root: str | Path) -> Iterator[PreparedVideo]:
    """The videos of prepared data, in order.

    Args:
        root: the `--workdir` of `--mode=prepare`.

    Raises:
        UserError: see `PreparedData`; at the first video.
    """
    data = PreparedData(root)
    for entry in data.videos:
        yield PreparedVideo(entry.name, entry.category, list(entry.frame_names), _FPS, entry.size, data,
                            entry.first)
