"""`--mode=eval`: videos with ground truth × strategies -> J and F, masks, overlays and a picture."""

import csv
import dataclasses
import io
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.checkpoints import checkpoint_identity
from dattt_jax.errors import UserError
from dattt_jax.inference import Network, load_network, loss_values, to_mask
from dattt_jax.metrics.protocols import Protocol, get_protocol
from dattt_jax.metrics.scoring import FrameScore, FrameScorer, summarize
from dattt_jax.progress import Progress
from dattt_jax.report import report_of_run, strategy_sheet
from dattt_jax.ttt import Engine, Strategy, create_strategy
from dattt_jax.visualize import overlay, save_image
from input_pipeline.clip import FlowClip
from input_pipeline.corruptions import corrupt_video, parse_corruptions
from input_pipeline.eval_videos import EvalVideo, folder_videos, synthetic_videos
from input_pipeline.flow import create_flow
from input_pipeline.images import read_mask
from input_pipeline.synthetic import SyntheticConfig, shifted
from input_pipeline.writers import VideoWriter, write_bytes, write_json, write_mask

# What a stored result depends on; a workdir holds the results of one such setting.
_SETTINGS = ("seed", "input_size", "init", "model", "ttt", "flow", "eval", "synthetic")


def evaluate(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs every strategy of `config.eval.strategies` on every video.

    Writes under `workdir`:

        masks/<strategy>/<video>/<frame>.png   0 and 255
        overlays/<strategy>/<video>.mp4        the video with its masks
        videos/<strategy>/<video>.json         scores, losses and time of one video
        results.json, results.csv              J, F and J&F per video and overall, per strategy
        strategies.png                         frames of the first video × strategies
        report.html                            all of it on one page, see `dattt_jax.report`

    A video that has its JSON file is not run again, so that an interrupted evaluation goes on.

    Returns:
        What results.json holds: {'strategies': {name: summary of `metrics.scoring.summarize`}}.

    Raises:
        UserError: whatever is wrong with the data, the weights, a field or the disk.
    """
    workdir = Path(workdir)
    protocol = get_protocol(config.eval.protocol)
    if not config.eval.strategies:
        raise UserError("config.eval.strategies is empty: name at least one, for example ('base', 'mwi')")
    strategies = {name: create_strategy(name, steps=config.ttt.steps, groups=config.ttt.groups,
                                        field="config.eval.strategies")
                  for name in config.eval.strategies}
    network = load_network(config)
    first = next(iter(eval_videos(config)))
    _claim(config, workdir)
    adapts = any(strategy.steps for strategy in strategies.values())
    engine = network.engine(config.ttt, adapts=adapts, per_step=config.eval.curves)
    runner = _Runner(config, workdir, network, engine)
    records = {name: {} for name in strategies}
    for video in eval_videos(config):
        for name, strategy in strategies.items():
            records[name][video.name] = runner.record(video, name, strategy)
    scores = {name: {video: _scores(record["frames"]) for video, record in per_video.items()}
              for name, per_video in records.items()}
    summaries = {name: summarize(per_video, protocol) for name, per_video in scores.items()}
    results = {"data": str(config.eval.data), "init": str(config.init), "strategies": summaries}
    if config.eval.curves:
        results["curves"] = {name: _curves(per_video, protocol) for name, per_video in records.items()
                             if strategies[name].steps}
    write_json(workdir / "results.json", results)
    _write_csv(workdir / "results.csv", summaries)
    save_image(workdir / "strategies.png", strategy_sheet(config, workdir, first, list(strategies)))
    report_of_run(config, workdir, eval_videos(config))
    print(format_table(summaries))
    logging.info("results in %s", workdir)
    return results


def eval_videos(config: ConfigDict) -> Iterable[EvalVideo]:
    """The videos `config.eval` names, corrupted if it says so."""
    settings = config.eval
    videos = _clean_videos(config)
    if not settings.corruption:
        return videos
    (name, level), *more = parse_corruptions([settings.corruption])
    if more:
        raise UserError(f"config.eval.corruption={settings.corruption}: give one level, as in {name}:{level}")
    return (corrupt_video(video, name, level, settings.seed, settings.temporally_consistent,
                          Path(settings.data).name) for video in videos)


def _clean_videos(config: ConfigDict) -> Iterator[EvalVideo]:
    if config.eval.data == "synthetic":
        synthetic = SyntheticConfig(**config.synthetic)
        synthetic = shifted(synthetic) if config.eval.shifted else synthetic
        return synthetic_videos(synthetic, config.eval.seed, config.eval.clips)
    return folder_videos(config.eval.data)


class _Runner:
    """Runs strategies on videos, or reads what an earlier run found."""

    def __init__(self, config: ConfigDict, workdir: Path, network: Network, engine: Engine) -> None:
        self._config, self._workdir, self._network, self._engine = config, workdir, network, engine

    def record(self, video: EvalVideo, name: str, strategy: Strategy) -> dict[str, Any]:
        """Scores, losses and time of a video under the strategy called `name`."""
        path = self._workdir / "videos" / name / f"{video.name}.json"
        if not path.exists():
            write_json(path, self._run(video, name, strategy))
        return json.loads(path.read_text())

    def _run(self, video: EvalVideo, strategy_name: str, strategy: Strategy) -> dict[str, Any]:
        config, start = self._config, time.perf_counter()
        masks = self._workdir / "masks" / strategy_name / video.name
        losses = {}
        clip = FlowClip(video.frames, len(video.frame_names), create_flow(config.flow.method),
                        config.flow.last_frame, None if strategy.streams else self._workdir)
        # Every video has random numbers of its own, whatever was run before it.
        key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(video.name.encode()))
        with clip, FrameScorer() as scorer, \
                Progress(f"{strategy_name} {video.name}", len(clip) * strategy.passes) as progress:
            for result in self._engine.run(self._network.variables, clip, strategy, key,
                                           on_visited=progress.update):
                name = video.frame_names[result.index]
                mask = to_mask(result.probability, name)
                target = video.target(name)
                if target is not None:
                    scorer.submit(str(result.step), name, mask, target)
                if result.final:
                    losses[name] = loss_values(result.losses)
                    write_mask(masks / f"{name}.png", mask)
            by_step = scorer.result()  # {steps before the prediction: {frame: score}}
        with VideoWriter(self._workdir / "overlays" / strategy_name / f"{video.name}.mp4", video.fps,
                         mask.shape) as writer:
            for name, frame in zip(video.frame_names[: len(clip)], video.frames, strict=False):
                writer.write(overlay(frame, read_mask(masks / f"{name}.png")))
        steps = {step: {frame: dataclasses.asdict(scores[frame]) for frame in sorted(scores)}
                 for step, scores in by_step.items()}
        return {"frames": steps.get(str(strategy.steps), {}), "steps": steps if config.eval.curves else {},
                "losses": {name: losses[name] for name in sorted(losses)},
                "seconds": round(time.perf_counter() - start, 3)}


def _scores(frames: dict[str, Any]) -> dict[str, FrameScore]:
    """Scores of a record's frames."""
    return {name: FrameScore(**score) for name, score in frames.items()}


def _curves(records: dict[str, Any], protocol: Protocol) -> dict[str, list[float | None]]:
    """J and F of the data set after each TTT epoch (the paper's Figure 5); None where not scored."""
    steps = sorted({int(step) for record in records.values() for step in record["steps"]})
    summaries = [summarize({video: _scores(record["steps"].get(str(step), {}))
                            for video, record in records.items()}, protocol) for step in steps]
    return {measure: [summary[measure] and summary[measure]["mean"] for summary in summaries]
            for measure in ("J", "F")}


def _claim(config: ConfigDict, workdir: Path) -> None:
    """Stores the settings in a new workdir; refuses one that holds results of other settings."""
    path = workdir / "settings.json"
    # Through JSON and back, so that tuples compare equal to the lists a file holds.
    settings = json.loads(json.dumps({name: config.to_dict()[name] for name in _SETTINGS}))
    settings["init"] = checkpoint_identity(config.init)  # training may have gone on in the same folder
    settings["eval"].pop("strategies")  # each has results of its own
    if not path.exists():
        write_json(path, settings)
        return
    stored = json.loads(path.read_text())
    different = [name for name in settings if stored.get(name) != settings[name]]
    if different:
        raise UserError(f"--workdir={workdir} holds results of other settings (config.{different[0]} was "
                        f"{stored.get(different[0])}): give another folder or remove this one")


def _write_csv(path: Path, summaries: dict[str, Any]) -> None:
    """One line per strategy and video, and one (video `*`) for their mean; fractions."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["strategy", "video", "J", "F", "JF"])
    for name, summary in summaries.items():
        for video, row in (*summary["videos"].items(), ("*", summary)):
            lines.writerow([name, video, *(row[measure] and row[measure]["mean"]
                                           for measure in ("J", "F", "JF"))])
    write_bytes(path, text.getvalue().encode())


def format_table(summaries: dict[str, Any]) -> str:
    """J and F of each strategy in percent, and their change against `base` where it was run."""
    lines = [f"{'strategy':<12} {'J':>7} {'F':>7} {'ΔJ':>7} {'ΔF':>7}"]
    base = summaries.get("base")
    for name, summary in summaries.items():
        means = [_mean(summary, measure) for measure in ("J", "F")]
        before = [None, None] if base is None or name == "base" else [_mean(base, m) for m in ("J", "F")]
        cells = ["-" if mean is None else f"{mean:.2f}" for mean in means]
        cells += ["" if mean is None or old is None else f"{mean - old:+.2f}"
                  for mean, old in zip(means, before, strict=True)]
        lines.append(f"{name:<12} " + " ".join(f"{cell:>7}" for cell in cells))
    return "\n".join(lines)


def _mean(summary: dict[str, Any], measure: str) -> float | None:
    """Mean of a measure in percent; None where nothing was scored."""
    if summary[measure] is None or summary[measure]["mean"] is None:
        return None
    return 100 * summary[measure]["mean"]
