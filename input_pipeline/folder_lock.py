"""A folder that one process at a time may work in."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from dattt_jax.errors import UserError


@contextlib.contextmanager
def held(lock: Path, doing: str) -> Iterator[None]:
    """Holds a folder for this process until the block ends, or the process does, however it ends.

    Args:
        lock: a file in the folder, which is made if it does not exist; the file stays.
        doing: what one run at a time does there, for the message: "training".

    Raises:
        UserError: another run holds the folder, or it cannot be written.
    """
    folder = lock.parent
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lock.open("w"))
        except OSError as error:
            raise UserError(f"--workdir={folder}: cannot be written ({error.strerror}); give another "
                            "folder") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the process ends
        except BlockingIOError:
            raise UserError(f"--workdir={folder}: another run is {doing} there") from None
        except OSError as error:  # some network file systems
            logging.warning("%s: no locks on this file system (%s); do not start a second run there", folder,
                            error.strerror)
        yield
