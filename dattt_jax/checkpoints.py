"""Checkpoints on disk; the only module that knows Orbax.

One layout for every checkpoint, so that whatever reads weights reads them all:

    <folder>/checkpoints/<step>/variables   params and batch_stats
                                model       config.model as JSON
                                optimizer   step and optimiser state (training only)
                                data        position in the data as JSON (training only)
                                metrics     of the validation, where there was one
    <folder>/best               link to the step that was best in validation

`--mode=train` writes one per `config.train.save_steps`, `--mode=convert` writes step 0. Orbax
writes under a temporary name and renames when all is written, and what is not kept is renamed before
it is deleted: a step folder is whole or not there, whenever the process is killed.
Nothing in a checkpoint depends on the number of devices or processes. With several processes each
calls every method at the same step, on the same folder; the first one writes.
"""

import contextlib
import datetime
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import grain
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from dattt_jax.errors import UserError
from dattt_jax.log_filter import quiet_libraries
from dattt_jax.parallel import first_replica
from dattt_jax.variables import Variables, check_fit, leaf_shapes, variable_shapes

_FOLDER = "checkpoints"
_VARIABLES, _MODEL, _OPTIMIZER, _DATA = "variables", "model", "optimizer", "data"
_BEST = "best"
_DELETED = "deleted"  # where steps that are not kept wait until their files are removed
_STRAY_READS_S = 0.5  # how long reads of a damaged checkpoint may still run


class CheckpointStore:
    """The checkpoints of one training run: saved in the background, the newest few and the best kept.

    Use as a context manager; leaving it waits for the last write.

    Args:
        workdir: the run's folder; made if it does not exist.
        model_config: `config.model`, stored with every checkpoint.
        keep: how many of the newest checkpoints stay on disk.
        best_by: the metric by whose largest value one more checkpoint stays.

    Raises:
        UserError: the folder cannot be made; a disk is full (from any method).
    """

    def __init__(self, workdir: str | Path, model_config: ml_collections.ConfigDict, *,
                 keep: int, best_by: str = "JF") -> None:
        self._folder = Path(workdir).absolute() / _FOLDER
        self._model_config, self._best_by = model_config, best_by
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise UserError(f"--workdir={workdir}: cannot make the folder ({reason})") from error
        if jax.process_index() == 0:
            # What a killed run leaves half-written. Orbax would remove it in a thread that nobody waits for.
            for half_written in self._folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
                shutil.rmtree(half_written, ignore_errors=True)
        self._remove_deleted()
        best = BestN(get_metric_fn=lambda metrics: metrics[best_by], n=1,
                     keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            best_fn=best.get_metric_fn, todelete_subdir=_DELETED)
        quiet_libraries()
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._link_best()

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if exc_type is None:
            self.wait()
        self._manager.close()

    @property
    def latest(self) -> Path | None:
        """Folder of the newest checkpoint (complete after `wait`), None where there is none."""
        step = self._manager.latest_step()
        return None if step is None else self._folder / str(step)

    @property
    def best(self) -> Path | None:
        """Folder of the checkpoint that was best in validation, None where none was validated."""
        steps = [step for step in self._manager.all_steps() if self._manager.metrics(step)]
        if not steps:
            return None
        return self._folder / str(max(steps, key=lambda s: self._manager.metrics(s)[self._best_by]))

    def save(self, step: int, variables: Variables, optimizer: Any = None,
             data: grain.DatasetIterator | None = None, metrics: dict[str, float] | None = None) -> None:
        """Saves one step; returns once the arrays are copied, and writes in the background.

        Without `optimizer` and `data` it is a checkpoint of weights alone.

        Args:
            step: optimiser steps done; a step that is already on disk is not written again.
            variables: {'params': …, 'batch_stats': …}, the same on all devices.
            optimizer: whatever else training needs, a pytree of arrays, the same on all devices.
            data: the iterator, positioned after the batch of this step; in the same position on all
                processes.
            metrics: of the validation of this step, among them `best_by`.
        """
        if step == self._manager.latest_step():
            return
        items = {_VARIABLES: ocp.args.StandardSave(_on_host(variables)),
                 _MODEL: ocp.args.JsonSave(self._model_config.to_dict())}
        if optimizer is not None:
            items[_OPTIMIZER] = ocp.args.StandardSave(_on_host(optimizer))
        if data is not None:
            items[_DATA] = ocp.args.JsonSave(data.get_state())
        with _full_disk_told(self._folder):
            self._manager.wait_until_finished()  # as `save` itself would
            self._remove_deleted()
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        with _full_disk_told(self._folder):
            self._manager.wait_until_finished()
            self._remove_deleted()
            self._link_best()

    def _remove_deleted(self) -> None:
        """Removes the files of steps that are not kept; called while nothing is being saved."""
        if jax.process_index() == 0:
            shutil.rmtree(self._folder / _DELETED, ignore_errors=True)

    def _link_best(self) -> None:
        """Makes `<workdir>/best` the best checkpoint."""
        best = self.best
        if best is None or jax.process_index() != 0:
            return
        link = self._folder.parent / _BEST
        temporary = link.with_name(f".{_BEST}.{os.getpid()}")
        temporary.symlink_to(best.relative_to(link.parent))
        os.replace(temporary, link)

    def restore(self, variables: Variables, optimizer: Any,
                data: grain.DatasetIterator) -> tuple[Variables, Any]:
        """Reads the newest checkpoint.

        Args:
            variables: shapes and dtypes of what was saved (for example from `jax.eval_shape`).
            optimizer: the same.
            data: an iterator over the same data; it is moved to the saved position.

        Returns:
            (variables, optimizer) with NumPy leaves.

        Raises:
            UserError: the checkpoint is damaged, of another network, or not made by training.
        """
        folder = self.latest
        if not (folder / _OPTIMIZER).is_dir():
            raise UserError(f"--workdir={self._folder.parent} holds weights from --mode=convert, "
                            "no training run: name it in config.init and give another --workdir")
        with _damage_told(folder):
            _check_fit(folder, self._model_config)
            restored = self._manager.restore(int(folder.name), args=ocp.args.Composite(**{
                _VARIABLES: ocp.args.StandardRestore(_as_numpy(variables)),
                _OPTIMIZER: ocp.args.StandardRestore(_as_numpy(optimizer)),
                _DATA: ocp.args.JsonRestore(),
            }))
            data.set_state(restored[_DATA])
        return restored[_VARIABLES], restored[_OPTIMIZER]


def save_variables(folder: str | Path, variables: Variables,
                   model_config: ml_collections.ConfigDict) -> Path:
    """Writes weights alone, for `config.init` and the modes that predict.

    Args:
        folder: where; made if it does not exist.
        variables: {'params': …, 'batch_stats': …}.
        model_config: `config.model` of the network.

    Returns:
        The folder of the checkpoint, inside `folder`.

    Raises:
        UserError: `folder` already holds a checkpoint, cannot be made, or the disk is full.
    """
    step = Path(folder).absolute() / _FOLDER / "0"
    if has_checkpoint(folder):
        raise UserError(f"{folder} already holds a checkpoint: give another folder, or delete "
                        f"{step.parent}")
    with CheckpointStore(folder, model_config, keep=1) as store:
        store.save(0, variables)
    return step


def has_checkpoint(folder: str | Path) -> bool:
    """Whether a complete checkpoint is in `folder`; one that was cut off while it was written is none."""
    steps = Path(folder).absolute() / _FOLDER
    return steps.is_dir() and bool(ocp.utils.checkpoint_steps(steps))


def load_model_config(path: str | Path) -> ml_collections.ConfigDict:
    """`config.model` of the network a checkpoint holds, as it was when the checkpoint was made.

    Args:
        path: a folder made by `--mode=train` or `--mode=convert`, or one step's folder inside it.

    Raises:
        UserError: there is no checkpoint at `path`, or it is damaged.
    """
    folder = _step_folder(path)
    with _damage_told(folder):
        return ml_collections.ConfigDict(_read_model_config(folder))


def load_variables(path: str | Path,
                   model_config: ml_collections.ConfigDict | None = None) -> Variables:
    """Reads the weights of a checkpoint, without the optimiser.

    Args:
        path: a folder made by `--mode=train` (its newest step is read) or `--mode=convert`, or one
            step's folder inside it.
        model_config: `config.model`; None takes the network from the checkpoint.

    Returns:
        {'params': …, 'batch_stats': …} with NumPy leaves.

    Raises:
        UserError: there is no checkpoint at `path`; it is damaged; or it does not fit
            `model_config` (names what is missing, extra and of another shape).
    """
    folder = _step_folder(path)
    if model_config is None:
        model_config = load_model_config(folder)
    template = variable_shapes(model_config)
    with _damage_told(folder):
        _check_fit(folder, model_config)
        return ocp.StandardCheckpointHandler().restore(
            epath.Path(folder / _VARIABLES), args=ocp.args.StandardRestore(_as_numpy(template)))


def checkpoint_identity(path: str | Path) -> str:
    """Tells one checkpoint from another in the same place: its folder and when it was written.

    Args:
        path: as of `load_variables`.

    Raises:
        UserError: there is no checkpoint at `path`.
    """
    folder = _step_folder(path)
    written = datetime.datetime.fromtimestamp(folder.stat().st_mtime, datetime.UTC)
    return f"{folder} written {written.isoformat()}"


def _step_folder(path: str | Path) -> Path:
    """The step's folder that `path` means: itself, or the newest one below it."""
    quiet_libraries()
    path = Path(path).absolute()
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist: name a folder made by --mode=train or "
                        "--mode=convert in config.init")
    if (path / _VARIABLES).is_dir():
        return path
    steps = []
    if path.is_dir():
        folder = path / _FOLDER if (path / _FOLDER).is_dir() else path
        steps = ocp.utils.checkpoint_steps(folder)
    if not steps:
        raise UserError(f"{path} holds no checkpoint: name a folder made by --mode=train or "
                        "--mode=convert")
    return folder / str(max(steps))


def _read_model_config(folder: Path) -> dict[str, Any]:
    return ocp.JsonCheckpointHandler().restore(epath.Path(folder / _MODEL))


def _check_fit(folder: Path, model_config: ml_collections.ConfigDict) -> None:
    metadata = ocp.StandardCheckpointHandler().metadata(epath.Path(folder / _VARIABLES))
    check_fit(str(folder), leaf_shapes(metadata.tree), _read_model_config(folder), model_config)


def _on_host(tree: Any) -> Any:
    """NumPy copies: Orbax copies at once anyway, and cuts replicated arrays into a slice per device."""
    return jax.device_get(first_replica(tree))


def _as_numpy(template: Any) -> Any:
    """Makes Orbax restore NumPy arrays: no device layout of the saving machine is asked for."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)


@contextlib.contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    """Turns whatever a damaged checkpoint makes Orbax raise into one line."""
    report = sys.unraisablehook

    def drop_stray(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            report(unraisable)

    # At the first array that cannot be read Orbax closes its event loop; each read still under way
    # then complains of that on stderr.
    sys.unraisablehook = drop_stray
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # by the kind of damage ValueError, KeyError, OSError, …
        time.sleep(_STRAY_READS_S)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {folder} is damaged; delete it to use the one before, or make "
                        f"it again ({reason[:200]})") from error
    finally:
        sys.unraisablehook = report


@contextlib.contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # Orbax passes a full disk on as a ValueError
        if "No space left on device" not in str(error):
            raise
        raise UserError(f"no space left on the disk of {folder}: free some and run the same command"
                        " again, it goes on from the last complete checkpoint") from error
