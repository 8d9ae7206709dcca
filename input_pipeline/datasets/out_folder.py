"""The folder that a data set is prepared in: whose it is, and what a killed run left there."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from dattt_jax.errors import UserError

_LOCK = ".prepare.lock"  # stays: it also says that the folder is ours


@contextlib.contextmanager
def claimed(out: Path, name: str) -> Iterator[None]:
    """Holds a folder for this process until the block ends, however it ends.

    Args:
        out: the folder; made if it does not exist.
        name: of the folder within it that `remove_unfinished` may later remove things from.

    Raises:
        UserError: another run holds it, it cannot be written, or it has a folder called `name` that no run of
            ours made.
    """
    if (out / name).exists() and not (out / _LOCK).exists():
        raise UserError(f"--workdir={out} holds a folder {name!r} that --mode=prepare did not write: give "
                        "another folder")
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((out / _LOCK).open("w"))
        except OSError as error:
            raise UserError(f"--workdir={out}: cannot be written ({error.strerror}); give another "
                            "folder") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the process ends
        except BlockingIOError:
            raise UserError(f"--workdir={out}: another run is preparing data there") from None
        except OSError as error:  # some network file systems
            logging.warning("%s: no locks on this file system (%s); do not start a second run there", out,
                            error.strerror)
        yield


def remove_unfinished(folder: Path, version: str) -> None:
    """Removes what a killed run left: TFDS' temporary folders, and a finished one without its index.

    Args:
        folder: of the data set, in a folder that is claimed.
        version: of its builder.
    """
    for path in (*folder.glob(f"incomplete.*_{version}"), folder / version):
        shutil.rmtree(path, ignore_errors=True)
