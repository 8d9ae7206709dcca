"""`--mode=compare`: objectives × strategies beside each other, the paper's Table 4 in one command.

Trains a small network per kind that the objectives need, all from the weights of `config.init`, adapts each
to the same videos under the same seeds, and prints the unadapted scores and what adaptation changes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from flax import traverse_util
from ml_collections import ConfigDict

from dattt_jax.checkpoints import has_checkpoint, save_variables
from dattt_jax.errors import UserError
from dattt_jax.estimators import video_flow
from dattt_jax.eval_data import check_frames, data_name, eval_entries
from dattt_jax.eval_results import collect
from dattt_jax.eval_robustness import parse_sweep
from dattt_jax.eval_run import VideoRunner
from dattt_jax.inference import Network, load_network
from dattt_jax.metrics.protocols import get_protocol
from dattt_jax.models import create_model
from dattt_jax.parallax import parallax_check
from dattt_jax.progress import Progress
from dattt_jax.run_settings import claim_folder
from dattt_jax.train import planned_steps, train
from dattt_jax.ttt import Strategy, create_objective, create_strategy
from dattt_jax.ttt.engine import Engine
from dattt_jax.ttt.task import Task
from dattt_jax.variables import random_variables, variable_shapes
from dattt_jax.weights import load_weights, weights_identity
from input_pipeline.writers import write_bytes, write_json

# Network -> how `config.model` differs: the paper's, its Baseline row, and one per auxiliary task.
NETWORKS = {
    "depth": {},
    "baseline": {"depth": False},
    "rotation": {"depth": False, "heads": ("rotation",)},
    "mae": {"depth": False, "heads": ("reconstruction",)},
}
_BASE = "base"
_SYNTHETIC = ("none", "appearance")  # clips like those of training, and of another appearance
_DONE = "trained.json"
_FIELDS = ("seed", "data", "synthetic", "flow", "ttt", "eval", "compare", "train", "input_size", "upsampling",
           "propagation", "primary_share", "model")

Result = dict[str, Any]


def compare(config: ConfigDict, workdir: str | Path) -> list[Result]:
    """Trains what is missing, evaluates what is missing, prints and writes the table.

    Writes under `workdir`: networks/<network>/ (as `--mode=train`), runs/<shift>/<network, objective and
    learning rate>/<seed>/ (masks and scores of each video), table.json and table.txt. Run again with the same
    settings, it goes on.

    Args:
        config: see `configs/compare_ttt.py`.
        workdir: the folder.

    Returns:
        Lines of the table: 'shift', 'network', 'objective', 'learning_rate', 'strategy', and per measure 'J'
        and 'F' the means and standard deviations over the seeds in percent: 'base', 'base_std', 'change',
        'change_std'.

    Raises:
        UserError: a field is wrong (before anything is trained), or training or evaluation cannot go on.
    """
    workdir, settings = Path(workdir), config.compare
    _check(config)
    _claim(config, workdir)
    networks = dict.fromkeys(line[0] for line in settings.objectives)
    for name in networks:
        _train(config, workdir, name)
    shifts = [*settings.shifts, *([] if config.data.dataset == "synthetic" else [data_name(config)])]
    names = (_BASE, *settings.strategies)
    total = len(settings.objectives) * len(shifts) * len(settings.seeds)
    found = {}
    with Progress("compare", total, unit="evaluation") as progress:
        for network, objective, rate in settings.objectives:
            engine, loaded = _engine(config, workdir, network, objective, rate)
            for shift in shifts:
                for seed in settings.seeds:
                    folder = workdir / "runs" / _folder(shift, network, objective, rate) / str(seed)
                    found[shift, network, objective, rate, seed] = _evaluate(
                        config, folder, names, engine, loaded, shift, seed)
                    progress.update(1)
    table = [line for shift in shifts for line in _lines(settings, found, shift)]
    write_json(workdir / "table.json", table)
    text = format_table(table)
    write_bytes(workdir / "table.txt", (text + "\n").encode())
    print(text)
    return table


def _check(config: ConfigDict) -> None:
    settings = config.compare
    for network, objective, _ in settings.objectives:
        if network not in NETWORKS:
            raise UserError(f"config.compare.objectives: network {network!r} is not one of "
                            f"{', '.join(NETWORKS)}")
        model = config.model.copy_and_resolve_references()
        model.update(NETWORKS[network])
        task = Task(create_model(model), tuple(config.input_size), config.ttt.batch_size)
        task.check_heads(create_objective(objective, task, "config.compare.objectives"), objective)
    if not (settings.objectives and settings.strategies and settings.seeds):
        raise UserError("config.compare.objectives, strategies and seeds must each name at least one")
    if _BASE in settings.strategies:
        raise UserError("config.compare.strategies: base is always there, leave it out")
    for shift in settings.shifts:
        if shift not in _SYNTHETIC and len(parse_sweep((shift,))) != 1:
            raise UserError(f"config.compare.shifts: {shift!r} has several levels: give one, as in {shift}:2")
    _strategies(config, settings.strategies)
    check_frames(config.eval.frames)
    protocol = get_protocol(config.eval.protocol)
    if protocol.metrics != ("J", "F"):
        raise UserError(f"config.eval.protocol={protocol.name!r} has no F, which is compared as well: name "
                        "another")
    video_flow(config)
    if config.data.dataset != "synthetic":
        eval_entries(config)


def _claim(config: ConfigDict, workdir: Path) -> None:
    """Keeps the settings in a new folder; refuses one that holds a comparison of other settings."""
    settings = {name: config.to_dict()[name] for name in _FIELDS}
    settings["init"] = weights_identity(config.init) if config.init else ""
    claim_folder(workdir, settings, "a comparison", "give another folder")


def _network_config(config: ConfigDict, workdir: Path, network: str) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.model.update(NETWORKS[network])
    config.init = str(workdir / "networks" / network)
    return config


def _train(config: ConfigDict, workdir: Path, network: str) -> None:
    own = _network_config(config, workdir, network)
    folder = Path(own.init)
    if (folder / _DONE).exists():
        return
    logging.info("training the network %s", network)
    own.init, own.data.dataset = start_weights(config, own, folder), "synthetic"
    state = train(own, folder)
    if int(state.step) < planned_steps(own.train, own.train.synthetic_samples):
        raise UserError(f"training of {network} was stopped: run the same command again to go on")
    write_json(folder / _DONE, {"step": int(state.step)})


def start_weights(config: ConfigDict, own: ConfigDict, folder: Path) -> str:
    """Where a network's training starts: `config.init` in the parts it has, random numbers in the others.

    Returns:
        The folder of those weights; '' for random ones where `config.init` names none.
    """
    start = folder.with_name(f"{folder.name}_start")
    if not config.init or has_checkpoint(start):
        return str(start) if config.init else ""
    wanted = traverse_util.flatten_dict(variable_shapes(own.model))
    given = traverse_util.flatten_dict(load_weights(config.init))
    shared = {key: given[key] for key in wanted if key in given and given[key].shape == wanted[key].shape}
    whole = {module for _, module, *_ in wanted} - {module for _, module, *_ in wanted.keys() - shared.keys()}
    fresh = traverse_util.flatten_dict(random_variables(own.model, config.seed, without=whole))
    save_variables(start, traverse_util.unflatten_dict(fresh | shared), own.model)
    return str(start)


def _engine(config: ConfigDict, workdir: Path, network: str, objective: str, rate: float
            ) -> tuple[Engine, Network]:
    own = _network_config(config, workdir, network)
    own.ttt.objective, own.ttt.learning_rate = objective, rate
    loaded = load_network(own)
    return loaded.engine(own.ttt, adapts=True), loaded


def _evaluate(config: ConfigDict, folder: Path, names: Sequence[str], engine: Engine, network: Network,
              shift: str, seed: int) -> dict[str, Any]:
    """Scores {strategy: summary} of the clips of a seed, or of the data set, under a shift."""
    own = config.copy_and_resolve_references()
    corruption = None
    if shift != data_name(config):
        own.data.dataset, own.eval.shifted = "synthetic", shift == "appearance"
        own.eval.seed = config.eval.seed + seed
        if shift not in _SYNTHETIC:
            [corruption] = parse_sweep((shift,))
    runner = VideoRunner(folder, _strategies(config, names), engine, get_protocol(own.eval.protocol),
                         video_flow(own), own.flow.last_frame, own.eval.frames == "annotated", False, False,
                         False, seed, network.propagation(own.propagation, own.primary_share),
                         parallax_check(own))
    entries = eval_entries(own, corruption)
    for entry in entries:
        runner.run(entry, network.variables, lambda count: None)
    scores = collect(runner, [entry.name for entry in entries], ())["strategies"]
    if not scores[_BASE]["frames"]:
        raise UserError(f"config.eval.protocol={own.eval.protocol!r} counts no frame of {folder}: its clips "
                        "are too short, or show no object")
    return scores


def _strategies(config: ConfigDict, names: Sequence[str]) -> dict[str, Strategy]:
    ttt = config.ttt
    return {name: create_strategy(name, steps=ttt.steps, groups=ttt.groups, window=ttt.window,
                                  reset_every=ttt.reset_every, field="config.compare.strategies")
            for name in names}


def _folder(shift: str, network: str, objective: str, rate: float) -> Path:
    method = objective.replace(" ", "").replace("*", "x")
    return Path(Path(shift).name.replace(":", "_")) / f"{network}-{method}-{rate:g}"


def _lines(settings: ConfigDict, found: dict[tuple, dict[str, Any]], shift: str) -> Iterator[Result]:
    for network, objective, rate in settings.objectives:
        runs = [found[shift, network, objective, rate, seed] for seed in settings.seeds]
        for strategy in settings.strategies:
            line: Result = {"shift": shift, "network": network, "objective": objective, "learning_rate": rate,
                            "strategy": strategy}
            for measure in ("J", "F"):
                base = 100 * np.array([run[_BASE][measure]["mean"] for run in runs])
                change = 100 * np.array([run[strategy][measure]["mean"] for run in runs]) - base
                values = {"base": base.mean(), "base_std": _deviation(base),
                          "change": change.mean(), "change_std": _deviation(change)}
                line[measure] = {name: round(float(value), 3) for name, value in values.items()}
            yield line


def _deviation(values: np.ndarray) -> float:
    """Sample standard deviation over seeds; 0 for one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def format_table(table: Sequence[Result]) -> str:
    """The table in percent, `base` and change as mean ± standard deviation over the seeds."""
    body = [["shift", "network", "objective", "rate", "strategy", "J base", "J change", "F base", "F change"]]
    for line in table:
        scores = [f"{line[m][v]:{sign}.2f} ± {line[m][f'{v}_std']:.2f}"
                  for m in ("J", "F") for v, sign in (("base", ""), ("change", "+"))]
        body.append([line["shift"], line["network"], line["objective"], f"{line['learning_rate']:g}",
                     line["strategy"], *scores])
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
                     for cells in body)
