"""Computed images on disk, each named by what it was made from."""

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline.writers import write_bytes


class ImageCache:
    """PNG files by content: what is asked for twice is computed once.

    An entry never has to be invalidated, since its name is a hash of all it depends on. A damaged entry
    (cut off, changed bytes) is found by PNG's own checksums and computed anew. Safe to use from several
    threads, and the folder by several processes.

    Args:
        folder: of the entries; made when the first is written.

    Attributes:
        hits: entries found so far.
        misses: entries computed so far.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder).expanduser()
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def entry(self, made_from: Sequence[bytes], compute: Callable[[], np.ndarray]) -> bytes:
        """Gives the PNG file of an image.

        Args:
            made_from: all that the image depends on, the way it is computed included.
            compute: gives the image, see `encode_png`; called only if there is no entry.

        Returns:
            The file's content.

        Raises:
            UserError: the entry cannot be read or written.
        """
        path = self._path(made_from)
        content = _read(path)
        if content is not None:
            with self._lock:
                self.hits += 1
            return content
        content = encode_png(compute())
        # Videos that share frames may bring two threads to one entry, hence to one temporary file.
        with self._lock:
            self.misses += 1
            write_bytes(path, content)
        return content

    def _path(self, made_from: Sequence[bytes]) -> Path:
        key = hashlib.blake2b(digest_size=20)
        for part in made_from:
            key.update(hashlib.blake2b(part).digest())  # of one length each: parts cannot run together
        name = key.hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.png"


def _read(path: Path) -> bytes | None:
    """The entry's bytes, None if there is none or it is damaged."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give another folder "
                        "(config.estimates_dir)") from error
    except (OSError, SyntaxError, ValueError):  # Pillow's words for a broken PNG
        return None
    return content


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image as PNG, the same bytes each time.

    OpenCV's fast setting: 5 ms for a rendering of 854x480, where Pillow's default takes 33 ms and saves
    a sixth of the size.

    Args:
        image: uint8 [H, W, 3] RGB, or uint8 or uint16 [H, W].

    Returns:
        The file.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image)[1].tobytes()
