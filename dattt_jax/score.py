"""Scores a folder of masks against a folder of ground truth: `--mode=score`."""

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.metrics.protocols import (
    PROTOCOLS,
    Protocol,
    binarize,
    decode_target,
    decode_union,
    fit_target,
    get_protocol,
    grey_levels,
    kept_frames,
)
from dattt_jax.metrics.scoring import FrameScore, check_measures, missing_score, score_frame, summarize
from dattt_jax.progress import Progress
from dattt_jax.score_table import format_table, write_csv
from input_pipeline.mask_folders import (
    MaskFolder,
    holds_numbers,
    list_masks,
    read_mask_file,
    read_target_file,
)
from input_pipeline.writers import write_json

EVERY = "every"  # value of config.score.protocol: all presets side by side
_SHOWN = 20  # defects of one kind that are printed; results.json has them all
# Kinds of defect that leave a frame without a score, the most telling first.
_FATAL = ("wrong size", "unreadable prediction", "unreadable ground truth", "missing prediction",
          "missing video", "nothing to score")


@dataclasses.dataclass(frozen=True)
class Defect:
    """Something about the folders that the user should know.

    Attributes:
        kind: For example `missing prediction`.
        text: One line that names the file or the video.
    """

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Job:
    """One annotated frame that some protocol scores; `prediction` is None if there is no file."""

    video: str
    frame: str
    target: Path
    prediction: Path | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one job.

    Attributes:
        scores: By protocol name.
        defects: What was wrong with its files.
        usable: At least one protocol could compare the prediction.
        empty: The prediction was readable and has no object.
        palettes: Whether (the prediction, the ground truth) is a file of object numbers.
    """

    scores: dict[str, FrameScore]
    defects: tuple[Defect, ...] = ()
    usable: bool = False
    empty: bool = False
    palettes: tuple[bool, bool] = (False, False)


def pair_frames(predictions: MaskFolder, targets: MaskFolder, protocols: Sequence[Protocol]
                ) -> tuple[list[Job], list[Defect]]:
    """Pairs the two folders by video name and frame key, never by position.

    Args:
        predictions: The folder to score.
        targets: The ground truth.
        protocols: Frames that none of them keeps are left out and may be missing.

    Returns:
        The frames to score, and every file or video that has no partner, by name.
    """
    jobs, defects = [], [Defect("file left out", line)
                         for line in (*predictions.problems, *targets.problems)]
    counts = "counts as " + " or ".join(sorted({protocol.missing for protocol in protocols}))
    if predictions.flat != targets.flat:
        flat, deep = (predictions, targets) if predictions.flat else (targets, predictions)
        defects.append(Defect("layouts differ", f"{flat.root} is flat (<video>_<frame>), "
                              f"{deep.root} has a folder per video: paired by name"))
    for video, annotated in targets.videos.items():
        names = {str(key): key for key in annotated}
        kept = dict.fromkeys(itertools.chain.from_iterable(
            kept_frames(protocol, list(names)) for protocol in protocols))
        found = predictions.videos.get(video, {})
        if kept and not found:
            defects.append(Defect("missing video", f"{video}: no prediction for any of its "
                                  f"{len(kept)} frames in {predictions.root} ({counts})"))
        for name in kept:
            target, prediction = annotated[names[name]], found.get(names[name])
            jobs.append(Job(video, name, target, prediction))
            if found and prediction is None:
                defects.append(Defect("missing prediction", f"{video}: no file for frame "
                                      f"{target.stem} in {predictions.root} ({counts})"))
        defects += [Defect("nothing to score", f"{video}: {protocol.name} keeps none of its "
                           f"{len(names)} annotated frames")
                    for protocol in protocols if not kept_frames(protocol, list(names))]
        defects += [Defect("extra prediction", f"{path}: frame has no ground truth")
                    for key, path in found.items() if key not in annotated]
    defects += [Defect("extra video", f"{video}: {len(frames)} predictions, no ground truth")
                for video, frames in predictions.videos.items() if video not in targets.videos]
    return jobs, defects


def score_job(job: Job, protocols: Sequence[Protocol], numbers: tuple[bool, bool],
              saliency: bool = False) -> Outcome:
    """Reads the two files of a frame and scores them under every protocol.

    Args:
        job: The frame.
        protocols: The protocols.
        numbers: Whether grey (predictions, ground truth) hold object numbers: `holds_numbers`.
        saliency: Also measure the saliency of the soft map; that of a mask is 0 and 1.

    Returns:
        The scores. A prediction that is missing, cannot be read, or has a wrong size counts as the
        protocol says (`Protocol.missing`); a frame whose ground truth cannot be read is not scored.
    """
    try:
        target_image, target_palette = read_target_file(job.target)
    except UserError as error:
        return Outcome({protocol.name: missing_score(None, protocol) for protocol in protocols},
                       (Defect("unreadable ground truth", f"{error}: frame not scored"),))
    defects: dict[Defect, None] = {}
    image, palette = None, False
    if job.prediction is not None:
        try:
            image, palette = read_mask_file(job.prediction)
        except UserError as error:
            defects[Defect("unreadable prediction", str(error))] = None
    scores: dict[str, FrameScore] = {}
    known: dict[tuple[int, str, int], FrameScore] = {}  # presets share most of their decoding
    usable = empty = False
    for protocol in protocols:
        target = decode_union([(target_image, target_palette or numbers[1])], protocol)
        if image is None:
            scores[protocol.name] = missing_score(target, protocol, saliency=saliency)
            continue
        prediction = (decode_target(image, True, protocol) if palette or numbers[0]
                      else binarize(image, protocol))
        empty = not prediction.any()
        how = (protocol.target_above, protocol.resolution, protocol.threshold)
        try:
            fitted = fit_target(target, prediction.shape, protocol)
        except ValueError as error:
            defects[Defect("wrong size", f"{job.prediction}: {error}")] = None
            scores[protocol.name] = missing_score(target, protocol, saliency=saliency)
            continue
        if fitted is not target:
            defects[Defect("ground truth resized", f"{job.target}: to the size of "
                           f"{job.prediction} under {protocol.name}")] = None
        if how not in known:
            soft = None
            if saliency:
                soft = prediction if palette or numbers[0] else grey_levels(image) / np.float32(255)
            known[how] = score_frame(prediction, fitted, soft)
        scores[protocol.name] = known[how]
        usable = True
    return Outcome(scores, tuple(defects), usable, empty, (palette, target_palette))


def _run_jobs(jobs: Sequence[Job], protocols: Sequence[Protocol], saliency: bool) -> list[Outcome]:
    """Outcomes in the order of the jobs."""
    # Predictions may be soft, so only 0 and 1 are sure to be numbers there; ground truth is not.
    numbers = (holds_numbers((job.prediction for job in jobs if job.prediction), highest=1),
               holds_numbers((job.target for job in jobs), highest=31))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool, \
            Progress("score", len(jobs)) as progress:
        outcomes = []
        for outcome in pool.map(lambda job: score_job(job, protocols, numbers, saliency), jobs):
            outcomes.append(outcome)
            progress.update()
    return outcomes


def _overall_defects(jobs: Sequence[Job], outcomes: Sequence[Outcome],
                     protocols: Sequence[Protocol], roots: tuple[Path, Path]) -> list[Defect]:
    """What only shows over all frames: palette files, and folders that decode to nothing at all."""
    defects = []
    for side, root in enumerate(roots):
        palettes = [(job.prediction, job.target)[side]
                    for job, outcome in zip(jobs, outcomes, strict=True) if outcome.palettes[side]]
        if palettes:
            names = ", ".join(str(path.relative_to(root)) for path in palettes[:3])
            more = f" and {len(palettes) - 3} more" if len(palettes) > 3 else ""
            defects.append(Defect("palette", f"{root}: {names}{more} hold object numbers: any "
                                  "number but 0 is object"))
    if all(outcome.empty for outcome in outcomes if outcome.usable):
        defects.append(Defect("empty predictions", f"{roots[0]}: no prediction has any object; "
                              "soft maps are object where 255 * p > 128"))
    for protocol in protocols:
        scores = [outcome.scores[protocol.name] for outcome in outcomes]
        if all(score.empty_target for score in scores if not math.isnan(score.J)):
            defects.append(Defect("empty ground truth", f"{roots[1]}: no frame has any object "
                                  f"under {protocol.name} (object above level "
                                  f"{protocol.target_above})"))
    return defects


def score(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Scores `config.score.pred` against `config.score.gt`; writes results.json and results.csv.

    Args:
        config: `config.score.pred` and `config.score.gt` are folders of masks (`list_masks` says in
            which layouts), `config.score.protocol` is a name in `PROTOCOLS`, or `every` for all
            of them side by side, `config.score.measures` names of `EXTRA_MEASURES`. Predictions may be
            0/1, 0/255, palette or soft.
        workdir: Folder for the results; made if needed.

    Returns:
        What results.json holds: the summary (`metrics.scoring.summarize`) of the protocol, with
        `pred`, `gt` and `defects` (`{kind: [line, ...]}`). For `every`, that of the preset `all`,
        and those of all presets by name under `protocols`.

    Raises:
        UserError: A folder is missing or empty, the protocol is unknown, no prediction can be
            compared at all, or the results cannot be written.
    """
    name = config.score.protocol
    protocols = list(PROTOCOLS.values()) if name == EVERY else [get_protocol(name)]
    check_measures(config.score.measures, "config.score.measures")
    for field in ("pred", "gt"):
        if not config.score[field]:
            raise UserError(f"config.score.{field} is empty: give a folder of masks")
    predictions, targets = list_masks(config.score.pred), list_masks(config.score.gt)
    jobs, defects = pair_frames(predictions, targets, protocols)
    outcomes = _run_jobs(jobs, protocols, "saliency" in config.score.measures)
    defects += [defect for outcome in outcomes for defect in outcome.defects]
    if not any(outcome.usable for outcome in outcomes):
        fatal = next(defect for kind in _FATAL for defect in defects if defect.kind == kind)
        raise UserError(f"no prediction can be scored; first reason: {fatal.kind}: {fatal.text} "
                        f"(videos there: {', '.join(list(predictions.videos)[:5])})")
    defects += _overall_defects(jobs, outcomes, protocols, (predictions.root, targets.root))

    summaries = {protocol.name: summarize(_scores(targets, jobs, outcomes, protocol), protocol,
                                          measures=config.score.measures) for protocol in protocols}
    results = dict(summaries["all" if name == EVERY else name])
    if name == EVERY:
        results["protocols"] = summaries
    by_kind: dict[str, list[str]] = {}
    for defect in defects:
        by_kind.setdefault(defect.kind, []).append(defect.text)
    results |= {"pred": str(predictions.root), "gt": str(targets.root), "defects": by_kind}
    workdir = Path(workdir)
    write_json(workdir / "results.json", results)
    write_csv(workdir / "results.csv", "protocol", summaries)
    print(format_table(summaries))
    print(format_defects(by_kind))
    return results


def _scores(targets: MaskFolder, jobs: Sequence[Job], outcomes: Sequence[Outcome],
            protocol: Protocol) -> dict[str, dict[str, FrameScore]]:
    """Scores of all annotated frames by video; NaN for those that no protocol keeps."""
    scores = {video: {str(key): missing_score(None, protocol) for key in frames}
              for video, frames in targets.videos.items()}
    for job, outcome in zip(jobs, outcomes, strict=True):
        scores[job.video][job.frame] = outcome.scores[protocol.name]
    return scores


def format_defects(by_kind: dict[str, list[str]]) -> str:
    """The defects as text, each named; of one kind at most 20, the rest is in results.json.

    Args:
        by_kind: Lines by kind of defect.

    Returns:
        The lines.
    """
    if not by_kind:
        return "No defects: every frame to score has one prediction of its size."
    lines = []
    for kind, texts in by_kind.items():
        lines += [f"{kind}: {text}" for text in texts[:_SHOWN]]
        if len(texts) > _SHOWN:
            lines.append(f"{kind}: and {len(texts) - _SHOWN} more, all in results.json")
    return "\n".join(lines)
