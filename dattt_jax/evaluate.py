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
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.inference import Network, load_network, to_mask
from dattt_jax.metrics.protocols import get_protocol
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
    _check_settings(config, workdir)
    protocol = get_protocol(config.eval.protocol)
    network = load_network(config)
    strategies = {name: create_strategy(name, steps=config.ttt.steps, groups=config.ttt.groups)
                  for name in config.eval.strategies}
    adapts = any(strategy.steps for strategy in strategies.values())
    engine = network.engine(config.ttt, adapts=adapts, per_step=config.eval.curves)
    runner = _Runner(config, workdir, network, engine)
    scores = {name: {video.name: runner.scores(video, name, strategy) for video in eval_videos(config)}
              for name, strategy in strategies.items()}
    summaries = {name: summarize(per_video, protocol) for name, per_video in scores.items()}
    results = {"data": str(config.eval.data), "init": str(config.init), "strategies": summaries}
    if config.eval.curves:
        results["curves"] = {name: runner.curves(name, list(per_video)) for name, per_video in scores.items()
                             if strategies[name].steps}
    write_json(workdir / "results.json", results)
    _write_csv(workdir / "results.csv", summaries)
    first = next(iter(eval_videos(config)))
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

    def scores(self, video: EvalVideo, name: str, strategy: Strategy) -> dict[str, FrameScore]:
        """Scores of the annotated frames by name, under the strategy called `name`."""
        record = self._workdir / "videos" / name / f"{video.name}.json"
        if not record.exists():
            write_json(record, self._run(video, name, strategy))
        frames = json.loads(record.read_text())["frames"]
        return {frame: FrameScore(**score) for frame, score in frames.items()}

    def curves(self, name: str, videos: list[str]) -> dict[str, list[float]]:
        """Mean J and F over videos after each TTT epoch (the paper's Figure 5)."""
        records = [json.loads((self._workdir / "videos" / name / f"{video}.json").read_text())
                   for video in videos]
        return {measure: np.mean([record["curves"][measure] for record in records], axis=0).tolist()
                for measure in ("J", "F")}

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
                name, mask = video.frame_names[result.index], to_mask(result.probability)
                target = video.target(name)
                if target is not None:
                    scorer.submit(str(result.step), name, mask, target)
                if result.final:
                    losses[name] = [float(x) for x in result.losses]
                    write_mask(masks / f"{name}.png", mask)
            by_step = scorer.result()  # scores of every frame, by the frame's steps before the prediction
            scores = by_step.get(str(strategy.steps), {})
        with VideoWriter(self._workdir / "overlays" / strategy_name / f"{video.name}.mp4", video.fps,
                         mask.shape) as writer:
            for name, frame in zip(video.frame_names[: len(clip)], video.frames, strict=False):
                writer.write(overlay(frame, read_mask(masks / f"{name}.png")))
        record = {"frames": {name: dataclasses.asdict(scores[name]) for name in sorted(scores)},
                  "losses": {name: losses[name] for name in sorted(losses)},
                  "seconds": round(time.perf_counter() - start, 3)}
        if config.eval.curves:
            steps = [by_step[step].values() for step in sorted(by_step, key=int)]
            record["curves"] = {measure: [float(np.mean([getattr(score, measure) for score in step]))
                                          for step in steps] for measure in ("J", "F")}
        return record


def _check_settings(config: ConfigDict, workdir: Path) -> None:
    """Stores the settings in a new workdir; refuses one that holds results of other settings."""
    path = workdir / "settings.json"
    # Through JSON and back, so that tuples compare equal to the lists a file holds.
    settings = json.loads(json.dumps({name: config.to_dict()[name] for name in _SETTINGS}))
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
        values = [100 * summary[measure]["mean"] for measure in ("J", "F")]
        change = ["", ""]
        if base is not None and name != "base":
            change = [f"{value - 100 * base[measure]['mean']:+.2f}"
                      for value, measure in zip(values, ("J", "F"), strict=True)]
        lines.append(f"{name:<12} {values[0]:>7.2f} {values[1]:>7.2f} {change[0]:>7} {change[1]:>7}")
    return "\n".join(lines)
