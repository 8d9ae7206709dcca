"""Arrays of one shape on disk, by number: what is known of each frame of a video too long for memory."""

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from dattt_jax.errors import UserError
from input_pipeline.writers import is_disk_full


class ArrayFile:
    """A `[count, *shape]` array in a file, read and written item by item; use as a context manager.

    Its room on disk is taken at once, so that a disk that is too small is found before the work.

    Args:
        folder: where the file is; made if missing.
        count: how many items there are.
        shape: of an item.
        dtype: of an item.
        name: of the file, which stays: one of the right size is gone on with, any other made anew. '' for a
            file without a name, which vanishes even when the process is killed.

    Raises:
        UserError: the disk is full.
    """

    def __init__(self, folder: Path, count: int, shape: tuple[int, ...], dtype: DTypeLike = np.float16, *,
                 name: str = "") -> None:
        self._folder, self._shape, self._dtype = folder, shape, np.dtype(dtype)
        self._item = math.prod(shape) * self._dtype.itemsize
        self._size, path = count * self._item, folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if name and path.exists() and path.stat().st_size == self._size:
            self._file = path.open("r+b")
            return
        self._file = path.open("w+b") if name else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        try:
            with self._full_disk_told():
                _take_room(self._file.fileno(), self._size)
        except BaseException:
            self._file.close()
            if name:
                path.unlink()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._file.close()

    def __setitem__(self, index: int, item: np.ndarray) -> None:
        """Raises a ValueError where the item has another shape."""
        if item.shape != self._shape:
            raise ValueError(f"an item of {item.shape} in a file of {self._shape}")
        data = memoryview(np.ascontiguousarray(item, self._dtype)).cast("B")
        end = (index + 1) * self._item
        with self._full_disk_told():
            while data:  # a nearly full disk takes a part
                data = data[os.pwrite(self._file.fileno(), data, end - len(data)):]

    def __getitem__(self, index: int) -> np.ndarray:
        data = os.pread(self._file.fileno(), self._item, index * self._item)
        return np.frombuffer(data, self._dtype).reshape(self._shape)

    @contextlib.contextmanager
    def _full_disk_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if is_disk_full(error):
                raise UserError(f"{self._folder}: the disk is full; make space here for "
                                f"{self._size / 2**20:.0f} MiB") from error
            raise


def _take_room(file: int, size: int) -> None:
    """Makes the file so large, zeros, on disk where the system can do that at once."""
    try:
        os.posix_fallocate(file, 0, size)
    except (AttributeError, OSError) as error:  # not on macOS, not on every file system
        if is_disk_full(error):
            raise
        os.ftruncate(file, size)
