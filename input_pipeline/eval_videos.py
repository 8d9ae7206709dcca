"""Videos with ground truth, for evaluation: what is known of one, and where they come from."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dattt_jax.errors import UserError
from dattt_jax.metrics.protocols import Protocol, decode_union, fit_target
from input_pipeline.datasets import VideoFiles, own_convention
from input_pipeline.flow.files import read_rendering
from input_pipeline.images import read_image, read_image_size
from input_pipeline.mask_folders import holds_numbers, read_target_file
from input_pipeline.synthetic import SyntheticConfig, SyntheticVideos

if TYPE_CHECKING:
    from input_pipeline.datasets.prepared import PreparedVideo, VideoEntry

_FPS = 24.0  # of overlays, where the data set is a folder of images
_HIGHEST_NUMBER = 31  # of an object, in grey ground truth


@dataclasses.dataclass(frozen=True)
class EvalVideo:
    """A video and what is known of it.

    Attributes:
        name: unique in its data set.
        frame_names: one per frame, in order.
        fps: frames per second.
        frames: uint8 [H, W, 3] RGB in order, as often as wanted.
        target: frame name -> bool [H, W], the union of the primary objects as the protocol decodes it, at
            the frames' size; or None if not annotated. Safe to call from other threads.
        annotated: names of the frames that have a target.
        flow: stored renderings of the forward flow, uint8 [h, w, 3] RGB in order, as often as wanted, one per
            frame or none of the last; None where flow is to be computed from the frames.
        category: class of the object where the data set has classes, else ''.
    """

    name: str
    frame_names: Sequence[str]
    fps: float
    frames: Iterable[np.ndarray]
    target: Callable[[str], np.ndarray | None]
    annotated: Sequence[str]
    flow: Iterable[np.ndarray] | None = None
    category: str = ""


@dataclasses.dataclass(frozen=True)
class EvalEntry:
    """A video of a data set that is not opened yet.

    Attributes:
        name: unique in its data set.
        num_frames: how many frames it has.
        num_annotated: how many of them have ground truth.
        open: gives the video; may take seconds and memory.
    """

    name: str
    num_frames: int
    num_annotated: int
    open: Callable[[], EvalVideo]


def synthetic_entries(config: SyntheticConfig, seed: int, count: int) -> list[EvalEntry]:
    """`count` synthetic clips; the same for the same (config, seed)."""
    videos = SyntheticVideos(config, seed, count)

    def render(index: int) -> EvalVideo:
        clip = videos[index]
        names = [f"{t:05d}" for t in range(len(clip.frames))]
        targets = dict(zip(names, clip.mask.astype(bool), strict=True))
        return EvalVideo(videos.name(index), names, _FPS, clip.frames, targets.get, names)

    return [EvalEntry(videos.name(i), config.num_frames, config.num_frames, partial(render, i))
            for i in range(count)]


def file_entries(videos: Sequence[VideoFiles], protocol: Protocol) -> list[EvalEntry]:
    """Videos of a data set as downloaded.

    Args:
        videos: their files.
        protocol: says how ground truth is decoded, and whether it may have another size than the frames.
    """
    masks = (path for video in videos for paths in video.masks.values() for path in paths)
    # Above 0 is above 0 whether it is a number or a grey level: nothing to find out then.
    numbers = protocol.target_above > 0 and holds_numbers(masks, _HIGHEST_NUMBER)
    return [EvalEntry(video.name, len(video.frames), len(video.masks),
                      partial(open_video_files, video, protocol, numbers)) for video in videos]


def open_video_files(video: VideoFiles, protocol: Protocol, numbers: bool) -> EvalVideo:
    """Opens a video of a data set.

    Stored flow is used if every frame has it, or every one but the last.

    Args:
        video: its files.
        protocol: see `file_entries`.
        numbers: grey ground truth holds object numbers, see `holds_numbers`.

    Returns:
        The video; images are read when they are asked for.

    Raises:
        UserError: a mask has another size than its frame, and the protocol does not allow it; or there is
            no frame.
    """
    if not video.frames:
        raise UserError(f"video {video.name} has no frame")
    size = read_image_size(next(iter(video.frames.values())))
    for path in (path for paths in video.masks.values() for path in paths):
        found = size if protocol.resolution != "native" else read_image_size(path)
        if found != size:
            raise UserError(f"{path} is {found[1]}x{found[0]} (width x height), its frame "
                            f"{size[1]}x{size[0]}; protocol {protocol.name} compares at native size")

    def target(name: str) -> np.ndarray | None:
        if name not in video.masks:
            return None
        stored = [_read_target(path, video.dataset, numbers) for path in video.masks[name]]
        return fit_target(decode_union(stored, protocol), size, protocol)

    names = list(video.frames)
    return EvalVideo(video.name, names, _FPS, ImageFiles(list(video.frames.values())), target,
                     [name for name in names if name in video.masks], _stored_flow(video.flows, names),
                     video.category)


def _read_target(path: Path, dataset: str, numbers: bool) -> tuple[np.ndarray, bool]:
    """A mask file and whether it holds object numbers, as `decode_union` takes them."""
    own = own_convention(path, dataset)
    if own is not None:
        return own, True
    image, is_palette = read_target_file(path)
    return image, is_palette or numbers


def _stored_flow(flows: Mapping[str, Path], names: Sequence[str]) -> "ImageFiles | None":
    """The renderings, if no frame but the last lacks its own."""
    if len(names) < 2 or any(name not in flows for name in names[:-1]):
        return None
    return ImageFiles([flows[name] for name in names if name in flows], read_rendering)


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files of one size as an iterable of uint8 [H, W, 3] RGB, one in memory at a time.

    Iterating raises a UserError that names the first file which is damaged or of another size.

    Attributes:
        paths: the files in order.
        read: one of them.
    """

    paths: Sequence[Path]
    read: Callable[[Path], np.ndarray] = read_image

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        size = None
        for path in self.paths:
            image = self.read(path)
            size = size or image.shape
            if image.shape != size:
                raise UserError(f"{path} is {image.shape[1]}x{image.shape[0]} (width x height), the files of "
                                f"this video before it {size[1]}x{size[0]}: all frames need one size")
            yield image


def prepared_entries(root: str | Path) -> list[EvalEntry]:
    """Videos of a folder that `--mode=prepare` wrote; their masks were decoded then.

    As of any data set, their stored flow is plain: without the camera's motion it is left there.

    Args:
        root: the `--workdir` of `--mode=prepare`.

    Raises:
        UserError: the folder is not one, or damaged.
    """
    # TensorFlow Datasets takes a second or two to load, which other sources need not wait for.
    from input_pipeline.datasets.prepared import PreparedData, prepared_videos

    data = PreparedData(root)

    def opened(video: "PreparedVideo", entry: "VideoEntry") -> EvalVideo:
        has_flow = not data.stabilized and len(entry.flow) >= max(len(entry.frame_names) - 1, 1)
        return EvalVideo(video.name, video.frame_names, video.fps, video.frames, video.target,
                         [video.frame_names[i] for i in entry.annotated],
                         _PreparedFlow(video, entry.flow) if has_flow else None, video.category)

    return [EvalEntry(video.name, len(video.frame_names), len(entry.annotated), partial(opened, video, entry))
            for video, entry in zip(prepared_videos(root), data.videos, strict=True)]


@dataclasses.dataclass(frozen=True)
class _PreparedFlow:
    """The stored renderings of a prepared video, decoded as they are asked for."""

    video: "PreparedVideo"
    indices: Sequence[int]

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.video.flow, self.indices)
