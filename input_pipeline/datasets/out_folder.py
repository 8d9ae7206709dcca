"""The folder that a data set is prepared in: whose it is, and what a killed run left there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from dattt_jax.errors import UserError
from input_pipeline.folder_lock import held

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
    with held(out / _LOCK, "preparing data"):
        yield


def remove_unfinished(folder: Path, version: str) -> None:
    """Removes what a killed run left: TFDS' temporary folders, and a finished one without its index.

    Args:
        folder: of the data set, in a folder that is claimed.
        version: of its builder.
    """
    for path in (*folder.glob(f"incomplete.*_{version}"), folder / version):
        shutil.rmtree(path, ignore_errors=True)
