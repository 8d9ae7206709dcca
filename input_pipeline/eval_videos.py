"""Videos with ground truth, for evaluation."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.images import read_mask
from input_pipeline.synthetic import SyntheticConfig, SyntheticVideos
from input_pipeline.video_io import open_video


@dataclasses.dataclass(frozen=True)
class EvalVideo:
    """A video and what is known of it.

    Attributes:
        name: unique in its data set.
        frame_names: one per frame.
        fps: frames per second.
        frames: uint8 [H, W, 3] RGB in order, as often as wanted.
        target: frame name -> bool [H, W], the union of the primary objects, or None if not annotated.
    """

    name: str
    frame_names: list[str]
    fps: float
    frames: Iterable[np.ndarray]
    target: Callable[[str], np.ndarray | None]


def synthetic_videos(config: SyntheticConfig, seed: int, count: int) -> Iterator[EvalVideo]:
    """`count` synthetic clips; the same for the same (config, seed)."""
    videos = SyntheticVideos(config, seed, count)
    for i in range(count):
        clip = videos[i]
        names = [f"{t:05d}" for t in range(len(clip.frames))]
        targets = dict(zip(names, clip.mask.astype(bool), strict=True))
        yield EvalVideo(videos.name(i), names, 24.0, clip.frames, targets.__getitem__)


def folder_videos(root: str | Path) -> Iterator[EvalVideo]:
    """Videos of a folder: `root`/frames/<video>/<frame>.* and `root`/masks/<video>/<frame>.png.

    Masks may be sparse; they are paired with frames by name.

    Raises:
        UserError: a folder is missing or a mask has no frame; names it.
    """
    root = Path(root)
    for part in ("frames", "masks"):
        if not (root / part).is_dir():
            raise UserError(f"config.eval.data: {root / part} does not exist; expected "
                            f"{root}/frames/<video>/<frame> and {root}/masks/<video>/<frame>.png")
    folders = sorted(p for p in (root / "frames").iterdir() if p.is_dir())
    if not folders:
        raise UserError(f"config.eval.data: {root / 'frames'} holds no folder of frames")
    for folder in folders:
        video = open_video(folder)
        masks = {path.stem: path for path in (root / "masks" / folder.name).glob("*.png")}
        if not masks:
            raise UserError(f"{root / 'masks' / folder.name} holds no mask of {folder}")
        unpaired = sorted(set(masks) - set(video.frame_names))
        if unpaired:
            raise UserError(f"{masks[unpaired[0]]} has no frame in {folder} ({len(unpaired)} such masks): "
                            "masks are paired with frames by name")

        def target(name: str, masks: dict[str, Path] = masks,
                   size: tuple[int, int] = video.frame_size) -> np.ndarray | None:
            if name not in masks:
                return None
            mask = read_mask(masks[name])
            if mask.shape != size:
                raise UserError(f"{masks[name]} is {mask.shape[1]}x{mask.shape[0]} (width x height), "
                                f"its frame {size[1]}x{size[0]}")
            return mask

        yield EvalVideo(folder.name, video.frame_names, video.fps, video, target)
