"""Flow that another program wrote: Middlebury's .flo, KITTI's 16-bit PNG, and ready colour renderings."""

from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.flow.colorwheel import flow_to_rgb
from input_pipeline.images import IMAGE_SUFFIXES, read_image
from input_pipeline.writers import write_bytes

FLOW_SUFFIXES = (".flo", *IMAGE_SUFFIXES)
_FLO_MAGIC = np.float32(202021.25)  # the bytes "PIEH"
_FLO_UNKNOWN = 1e9  # larger components mean unknown
_FLO_LARGEST_SIDE = 100_000
_KITTI_ZERO, _KITTI_STEPS = 2**15, 64  # stored = 64 · pixels + 32768
_NAMES_SHOWN = 3


def read_flow(path: Path | str) -> np.ndarray:
    """Reads flow from a `.flo` file or a 16-bit PNG of KITTI.

    Args:
        path: the file.

    Returns:
        `[H, W, 2]` float32, (dx, dy) in pixels; NaN where the file says that it is unknown.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if path.suffix.lower() == ".flo":
        return _read_flo(path)
    stored = _read_kitti(path)
    if stored is None:
        raise UserError(f"{path}: not a flow of KITTI's format (PNG of three 16-bit channels)")
    return stored


def write_flow(path: Path | str, flow: np.ndarray) -> None:
    """Writes flow as `.flo` (exact) or as KITTI's `.png` (steps of 1/64 pixel, within ±512), atomically.

    Args:
        path: the file.
        flow: `[H, W, 2]` float32, (dx, dy) in pixels; not finite where unknown.

    Raises:
        UserError: the file cannot be written, or the suffix is another.
    """
    path, known = Path(path), np.isfinite(flow).all(-1)
    height, width = flow.shape[:2]
    if path.suffix.lower() == ".flo":
        values = np.where(known[..., None], flow, 2 * _FLO_UNKNOWN).astype("<f4")
        header = _FLO_MAGIC.astype("<f4").tobytes() + np.array([width, height], "<i4").tobytes()
        write_bytes(path, header + values.tobytes())
    elif path.suffix.lower() == ".png":
        steps = np.rint(np.where(known[..., None], flow, 0) * _KITTI_STEPS + _KITTI_ZERO)
        rgb = np.dstack([np.where(known[..., None], np.clip(steps, 0, 65535), 0), known]).astype(np.uint16)
        write_bytes(path, cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    else:
        raise UserError(f"{path}: flow is written as .flo or .png")


def read_rendering(path: Path | str) -> np.ndarray:
    """Reads a file of `FLOW_SUFFIXES` as a colour rendering; flow is rendered by `flow_to_rgb`.

    Returns:
        `[H, W, 3]` uint8 RGB.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = Path(path)
    if path.suffix.lower() == ".flo":
        return flow_to_rgb(_read_flo(path))
    flow = _read_kitti(path) if path.suffix.lower() == ".png" else None
    return read_image(path) if flow is None else flow_to_rgb(flow)


def _read_flo(path: Path) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) < 12 or np.frombuffer(content, "<f4", 1)[0] != _FLO_MAGIC:
        raise UserError(f"{path}: not a .flo file (it does not start with PIEH); replace it")
    width, height = np.frombuffer(content, "<i4", 2, 4).tolist()
    expected = 12 + 8 * width * height
    if not (0 < width < _FLO_LARGEST_SIDE and 0 < height < _FLO_LARGEST_SIDE and len(content) == expected):
        raise UserError(f"{path}: not a whole .flo file: its header says {width}x{height}, and it has "
                        f"{len(content)} bytes; replace it")
    flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)
    return np.where((np.abs(flow) < _FLO_UNKNOWN).all(-1, keepdims=True), flow, np.float32(np.nan))


def _read_kitti(path: Path) -> np.ndarray | None:
    """Flow of a 16-bit colour PNG; None if the file is an image of another type."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if image is None:
        raise UserError(f"{path}: not a whole PNG file; replace it")
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        return None
    valid, y, x = np.moveaxis(image.astype(np.float32), -1, 0)  # OpenCV gives BGR
    flow = (np.stack([x, y], -1) - _KITTI_ZERO) / _KITTI_STEPS
    return np.where(valid[..., None] > 0, flow, np.float32(np.nan))


class FlowFiles:
    """Flow files of videos, by the names of the frames.

    The flow of a frame to the next one is in `root/<video>/<frame>` with a suffix of `FLOW_SUFFIXES`, or in
    `root/<frame>` for a single video.

    Args:
        root: the folder.

    Attributes:
        identity: names the folder.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, *, root: str = "") -> None:
        if not root:
            raise UserError("config.flow.root is empty: name the folder of the flow files")
        if not Path(root).is_dir():
            raise UserError(f"config.flow.root={root}: no such folder")
        self.root, self.identity = Path(root), f"files({root})"

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        """Fails: files are found by the names of frames."""
        raise UserError("config.flow.method=files knows flow by the names of frames, and here frames have "
                        "none: use another method")

    def for_video(self, video: str, frame_names: Sequence[str]) -> "VideoFlowFiles":
        """The files of one video.

        Args:
            video: its name.
            frame_names: of all its frames, in order.
        """
        folder = self.root / video
        return VideoFlowFiles(folder if folder.is_dir() else self.root, frame_names)


class VideoFlowFiles:
    """Flow files of one video; a `RenderingSource`."""

    def __init__(self, folder: Path, frame_names: Sequence[str]) -> None:
        self.identity = f"files({folder})"
        self._folder, self._names = folder, list(frame_names)

    def renderings(self, frames: Iterable[np.ndarray], last_frame: str, wanted: Container[int] | None = None
                   ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `RenderingSource`. A file of the last frame comes before the rules "repeat" and "backward".

        Raises:
            UserError: files are missing or damaged, or of another size than their frame (while iterating).
        """
        files = self._files(last_frame)
        path = None
        for index, (name, frame) in enumerate(zip(self._names, frames, strict=True)):
            if name not in files and last_frame == "drop":
                return
            path = files.get(name, path)
            if wanted is not None and index not in wanted:
                continue
            rendering = read_rendering(path)
            if rendering.shape != frame.shape:
                sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (rendering.shape, frame.shape))
                raise UserError(f"{path}: flow and frame are of different size, {sizes} (width x height)")
            yield frame, rendering

    def _files(self, last_frame: str) -> dict[str, Path]:
        """The files by the names of their frames; every frame that needs one has one."""
        try:
            there = {path.name: path for path in self._folder.iterdir()}
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be read ({error.strerror})") from error
        files = {name: there[name + suffix] for name in self._names for suffix in reversed(FLOW_SUFFIXES)
                 if name + suffix in there}
        if last_frame == "drop":
            files.pop(self._names[-1], None)
        needed = self._names if last_frame == "backward" else self._names[:-1]
        missing = [name for name in needed if name not in files]
        if missing:
            shown = ", ".join(missing[:_NAMES_SHOWN]) + ", …" * (len(missing) > _NAMES_SHOWN)
            raise UserError(f"{self._folder}: no flow of {len(missing)} of {len(needed)} frames ({shown}); "
                            f"files are named like their frames, with {', '.join(FLOW_SUFFIXES)}")
        return files
