"""Frames on disk with random access, for strategies that pass over a video more than once."""

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from dattt_jax.errors import UserError
from input_pipeline.writers import is_disk_full


class FrameSpool:
    """A growing `[N, H, W, 3]` uint8 array in a temporary file; use as a context manager.

        with FrameSpool(folder) as spool:
            for frame in video:
                spool.append(frame)
            clip = spool[8:16]  # [8, H, W, 3]

    The file has no name in the folder, so that it vanishes even when the process is killed.
    """

    def __init__(self, folder: Path | str) -> None:
        """Makes an empty spool.

        Args:
            folder: where the temporary file is; it is made if missing and needs N H W 3 bytes.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see close
        self._count = 0
        self._frame_shape: tuple[int, ...] = ()
        self._frames: np.ndarray | None = None

    def __enter__(self) -> "FrameSpool":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def append(self, frame: np.ndarray) -> None:
        """Adds a frame at the end.

        Args:
            frame: `[H, W, 3]` uint8, of the same size as the frames before it.

        Raises:
            ValueError: the frame has another shape or type.
            UserError: the disk is full.
        """
        if self._count == 0:
            self._frame_shape = frame.shape
        if frame.shape != self._frame_shape or frame.dtype != np.uint8:
            raise ValueError(f"frame of {frame.dtype} {frame.shape} in a spool of "
                             f"uint8 {self._frame_shape}")
        left = memoryview(np.ascontiguousarray(frame)).cast("B")
        self._file.seek(self._count * left.nbytes)
        try:
            while left:  # a nearly full disk takes a part
                left = left[self._file.write(left):]
        except OSError as error:
            if is_disk_full(error):
                raise UserError(f"{self._folder}: the disk is full; make space here for "
                                "the frames of the whole video") from error
            raise
        self._count += 1
        self._frames = None

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Reads frames into memory.

        Args:
            index: an index, a slice or an integer array, as of a NumPy array.

        Returns:
            A copy: `[H, W, 3]` for an index, else `[n, H, W, 3]`; uint8.
        """
        if self._frames is None:
            if self._count == 0:
                raise IndexError("the spool is empty")
            self._frames = np.memmap(self._file, np.uint8, "r",
                                     shape=(self._count, *self._frame_shape))
        return np.array(self._frames[index])

    def close(self) -> None:
        """Removes the temporary file; the spool cannot be used any more."""
        self._frames = None
        self._file.close()
