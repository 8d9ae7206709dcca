"""`--mode=eval`: a data set × a checkpoint × strategies, clean and corrupted -> scores, masks, a report."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.estimators import video_flow
from dattt_jax.eval_data import Corruption, Part, check_frames, data_name, eval_entries, parse_part
from dattt_jax.eval_results import collect, format_strategies, wait_for_records
from dattt_jax.eval_robustness import corrupted_folder, format_robustness, parse_sweep, write_robustness
from dattt_jax.eval_run import Job, VideoRunner, run_on_devices
from dattt_jax.inference import load_network
from dattt_jax.metrics.protocols import get_protocol
from dattt_jax.metrics.scoring import check_measures
from dattt_jax.parallax import parallax_check
from dattt_jax.progress import Progress
from dattt_jax.propagation import Propagation
from dattt_jax.report import report_of_run, strategy_sheet
from dattt_jax.run_settings import claim_folder
from dattt_jax.score_table import write_csv
from dattt_jax.ttt import Engine, Strategy, create_strategy
from dattt_jax.ttt.objectives import Variables
from dattt_jax.visualize import save_image
from dattt_jax.weights import weights_identity
from input_pipeline.eval_videos import EvalEntry
from input_pipeline.writers import remove_leftovers, write_json

# What a stored result depends on; a folder holds the results of one such setting.
_SETTINGS = ("seed", "input_size", "upsampling", "propagation", "primary_share", "init", "model", "ttt",
             "flow", "data", "eval", "synthetic")
# Fields that leave the results of a video under a strategy as they are.
_FREE = {"eval": ("strategies", "corruptions", "temporally_consistent", "devices", "part", "overlays"),
         "ttt": ("strategy", "chunk"), "flow": ("batch_size", "volume_gib")}
_RESULTS = ("settings.json", "results.json", "results.csv", "strategies.png", "robustness.json",
            "robustness.csv", "report.html")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        strategies: by name.
        part: the videos that this process does.
        corruptions: what the videos are evaluated under beside clean.
    """

    strategies: Mapping[str, Strategy]
    part: Part
    corruptions: Sequence[Corruption]


@dataclasses.dataclass(frozen=True)
class _Setting:
    """One pass over the data set: its folder, its videos and what runs them."""

    corruption: Corruption | None
    entries: list[EvalEntry]
    runner: VideoRunner

    @property
    def videos(self) -> list[str]:
        return [entry.name for entry in self.entries]


def evaluate(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs every strategy of `config.eval.strategies` on every video of `config.data`.

    Writes under `workdir`:

        masks/<strategy>/<video>/<frame>.png   0 and 255
        overlays/<strategy>/<video>.mp4        the video with its masks, if `config.eval.overlays`
        videos/<strategy>/<video>.json         scores, losses and time of one video
        results.json, results.csv              J, F and J&F per video and overall, per strategy
        strategies.png                         frames of the first video × strategies
        report.html                            all of it on one page, see `dattt_jax.report`

    and for each of `config.eval.corruptions` the same but pictures and report under
    corrupted/<corruption>_<level>/, with robustness.json and robustness.csv beside report.html.

    A video that has its JSON file is not run again, so that an interrupted evaluation goes on. Videos are
    spread over the local devices, and over processes that share the folder (`config.eval.part`).

    Returns:
        What results.json holds: {'strategies': {name: summary of `metrics.scoring.summarize`}}; {} on a
        process that does not write the tables, which is every one but the first.

    Raises:
        UserError: whatever is wrong with the data, the weights, a field or the disk.
    """
    plan = make_plan(config)
    network = load_network(config)
    adapts = any(strategy.steps for strategy in plan.strategies.values())
    engine = network.engine(config.ttt, adapts=adapts, per_step=config.eval.curves)
    return run_plan(config, workdir, plan, engine, network.variables,
                    network.propagation(config.propagation, config.primary_share))


def run_plan(config: ConfigDict, workdir: str | Path, plan: Plan, engine: Engine,
             variables: Variables, propagation: Propagation | None = None) -> dict[str, Any]:
    """`evaluate` for any engine: it writes and returns the same.

    Args:
        config: the configuration; `config.init` must be a checkpoint, whose identity is kept.
        workdir: the folder.
        plan: what to run, `make_plan(config)`.
        engine: predicts and adapts; per step if `config.eval.curves`.
        variables: what it starts every video from.
        propagation: makes the masks of a video agree over time, if any does.

    Raises:
        UserError: whatever is wrong with the data, or the disk.
    """
    workdir = Path(workdir)
    runner = VideoRunner(
        workdir, plan.strategies, engine, get_protocol(config.eval.protocol), video_flow(config),
        config.flow.last_frame, config.eval.frames == "annotated", "saliency" in config.eval.measures,
        config.eval.overlays, config.eval.curves, config.seed, propagation, parallax_check(config))
    settings = [_Setting(corruption, eval_entries(config, corruption),
                         dataclasses.replace(runner, workdir=corrupted_folder(workdir, corruption)))
                for corruption in (None, *plan.corruptions)]
    for setting in settings:
        _claim(config, setting.runner.workdir, setting.corruption)
    devices = jax.local_devices()[: config.eval.devices or None]
    jobs = [(setting.runner, entry) for setting in settings for entry in plan.part.of(setting.entries)]
    if len(devices) > 1:  # the longest first, so that none is left to a single device at the end
        jobs.sort(key=lambda job: -job[1].num_frames)
    with Progress("eval", sum(map(_visits, jobs)), unit="visit") as progress:
        run_on_devices(jobs, variables, devices, progress.update)
    if plan.part.index:
        logging.info("part %d of %d is done; the first part writes the tables", plan.part.index + 1,
                     plan.part.count)
        return {}
    return _write_results(config, workdir, settings)


def make_plan(config: ConfigDict) -> Plan:
    """What `config.eval` asks for.

    Raises:
        UserError: a field of it is wrong; names it.
    """
    settings = config.eval
    if not settings.strategies:
        raise UserError("config.eval.strategies is empty: name at least one, for example ('base', 'mwi')")
    get_protocol(settings.protocol)
    check_measures(settings.measures, "config.eval.measures")
    if settings.curves and (config.propagation or config.primary_share):
        raise UserError("config.eval.curves scores each frame by itself: with config.propagation=0 and "
                        f"config.primary_share=0, not {config.propagation} and {config.primary_share}")
    check_frames(settings.frames)
    if not 0 <= settings.devices <= jax.local_device_count():
        raise UserError(f"config.eval.devices={settings.devices}: there are {jax.local_device_count()} here; "
                        "give 0 for all of them")
    strategies = {name: create_strategy(name, steps=config.ttt.steps, groups=config.ttt.groups,
                                        window=config.ttt.window, reset_every=config.ttt.reset_every,
                                        field="config.eval.strategies")
                  for name in settings.strategies}
    sweep = parse_sweep(settings.corruptions)
    if sweep and config.flow.method == "files":
        raise UserError("config.flow.method=files: stored flow shows the clean frames; name a method that "
                        "computes it, or no config.eval.corruptions")
    return Plan(strategies, parse_part(settings.part), sweep)


def _visits(job: Job) -> int:
    """Frames times passes of what is still to be done."""
    runner, entry = job
    frames = entry.num_annotated if runner.annotated_only else entry.num_frames
    missing = runner.missing(entry.name)
    passes = sum(runner.strategies[name].passes for name in missing) + runner.predicts_first(missing)
    return frames * passes


def _write_results(config: ConfigDict, workdir: Path, settings: list[_Setting]) -> dict[str, Any]:
    """Tables of every setting, the robustness table, pictures and the report; prints the tables."""
    remove_leftovers(workdir, *(setting.runner.workdir / name for setting in settings for name in _RESULTS))
    found = {}
    for setting in settings:
        wait_for_records(setting.runner, setting.videos)
        results = {"data": data_name(config), "init": str(config.init)}
        if setting.corruption:
            results["corruption"] = "{}:{}".format(*setting.corruption)
        results |= collect(setting.runner, setting.videos, config.eval.measures)
        write_json(setting.runner.workdir / "results.json", results)
        write_csv(setting.runner.workdir / "results.csv", "strategy", results["strategies"])
        found[setting.corruption] = results
    clean, *corrupted = settings
    print(format_strategies(found[None]["strategies"]))
    if corrupted:
        print(format_robustness(write_robustness(workdir, found)))
    flow = clean.runner.flow
    save_image(workdir / "strategies.png", strategy_sheet(
        config, workdir, clean.entries[0].open(), list(clean.runner.strategies), flow=flow))
    report_of_run(config, workdir, clean.entries, flow,
                  corrupted={"{}:{}".format(*each.corruption): each.entries for each in corrupted})
    logging.info("results in %s", workdir)
    return found[None]


def _claim(config: ConfigDict, workdir: Path, corruption: Corruption | None) -> None:
    """Keeps the settings in a new folder; refuses one that holds results of other settings."""
    claim_folder(workdir, _settings(config, corruption), "results", "give another folder or remove this one")


def _settings(config: ConfigDict, corruption: Corruption | None) -> dict[str, Any]:
    settings = {name: config.to_dict()[name] for name in _SETTINGS}
    settings["init"] = weights_identity(config.init)  # training may have gone on in the same folder
    for section, free in _FREE.items():
        settings[section] = {name: value for name, value in settings[section].items() if name not in free}
    if corruption:
        settings["eval"] |= {"corruption": "{}:{}".format(*corruption),
                             "temporally_consistent": config.eval.temporally_consistent}
    return settings
