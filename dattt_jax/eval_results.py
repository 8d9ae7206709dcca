"""What an evaluation found: from the records of its videos to their summary and a printed table."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from dattt_jax.eval_run import Record, VideoRunner, read_record, scores_from_json
from dattt_jax.metrics.protocols import Protocol
from dattt_jax.metrics.scoring import summarize
from dattt_jax.score_table import SALIENCY, format_percent, format_rows

_POLL_S = 0.5
_LOG_EVERY_S = 30.0


def wait_for_records(runner: VideoRunner, videos: Sequence[str], *,
                     sleep: Callable[[float], None] = time.sleep) -> None:
    """Waits until other processes have finished their videos in the shared folder.

    Args:
        runner: knows the folder and the strategies.
        videos: names of all videos.
        sleep: waits for so many seconds.
    """
    logged = time.monotonic() - _LOG_EVERY_S
    while missing := [video for video in videos if runner.missing(video)]:
        if time.monotonic() - logged >= _LOG_EVERY_S:
            logged = time.monotonic()
            logging.info("%s: waiting for other processes, %d videos to come, the first is %s; should one "
                         "have died, run its command again", runner.workdir, len(missing), missing[0])
        sleep(_POLL_S)


def collect(runner: VideoRunner, videos: Sequence[str], measures: Sequence[str]) -> dict[str, Any]:
    """Summaries of a finished evaluation.

    Args:
        runner: knows the folder, the strategies and the protocol.
        videos: names of all videos, in the order of the tables.
        measures: beside J and F, of `EXTRA_MEASURES`.

    Returns:
        {'flow': [where flow came from], 'strategies': {name: summary of `metrics.scoring.summarize`},
        'adaptation': {name: {video: whether it was kept and why, see `ttt.monitor.summarize`}}}, and if the
        runner keeps curves {'curves': {name: {'J': […], 'F': […]}}} after each TTT epoch.
    """
    records = {name: {video: read_record(runner.record_path(name, video)) for video in videos}
               for name in runner.strategies}
    flow = sorted({record["flow"] for found in records.values() for record in found.values()})
    results = {"flow": flow, "strategies": {name: _summary(found, runner.protocol, measures)
                                            for name, found in records.items()},
               "adaptation": {name: {video: record["adaptation"] for video, record in found.items()}
                              for name, found in records.items()}}
    if runner.curves:
        results["curves"] = {name: _curves(found, runner.protocol) for name, found in records.items()
                             if runner.strategies[name].steps}
    return results


def _summary(records: Mapping[str, Record], protocol: Protocol, measures: Sequence[str]) -> dict[str, Any]:
    saliency = {video: None if record["saliency"] is None else np.asarray(record["saliency"])
                for video, record in records.items()}
    scores = {video: scores_from_json(record["frames"]) for video, record in records.items()}
    return summarize(scores, protocol, measures=measures, saliency=saliency, categories=_categories(records))


def _curves(records: Mapping[str, Record], protocol: Protocol) -> dict[str, list[float | None]]:
    """J and F of the data set after each TTT epoch (the paper's Figure 5); None where not scored."""
    steps = sorted({int(step) for record in records.values() for step in record["steps"]})
    summaries = [summarize({video: scores_from_json(record["steps"].get(str(step), {}))
                            for video, record in records.items()}, protocol, categories=_categories(records))
                 for step in steps]
    return {measure: [summary[measure] and summary[measure]["mean"] for summary in summaries]
            for measure in ("J", "F")}


def _categories(records: Mapping[str, Record]) -> dict[str, str]:
    return {video: record["category"] for video, record in records.items()}


def format_strategies(summaries: Mapping[str, Any]) -> str:
    """The strategies beside each other, in percent, with their change against `base` where it was run.

    Args:
        summaries: `metrics.scoring.summarize` by strategy.

    Returns:
        The lines of the table; `-` where nothing was scored, or there is nothing to compare with.
    """
    measures = [name for name in ("J", "F", "JF", "region_F")
                if any(summary.get(name) for summary in summaries.values())]
    pair = [name for name in measures if name in ("J", "F")]
    statistics = [(name, statistic) for name in pair for statistic in ("recall", "decay")]
    saliency = [] if "saliency" not in next(iter(summaries.values())) else SALIENCY
    base = summaries.get("base")
    rows = {}
    for name, summary in summaries.items():
        rows[name] = [format_percent(summary[measure] and summary[measure]["mean"]) for measure in measures]
        if base is not None:
            rows[name] += ["" if name == "base" else _change(summary, base, measure) for measure in pair]
        rows[name] += [format_percent(summary[measure] and summary[measure][statistic])
                       for measure, statistic in statistics]
        rows[name] += [format_percent(summary["saliency"][each]) for each in saliency]
    head = ["strategy", *(name.replace("JF", "J&F") for name in measures),
            *(f"Δ{name}" for name in pair if base is not None), *map(" ".join, statistics), *saliency]
    return format_rows(head, rows)


def _change(summary: Mapping[str, Any], base: Mapping[str, Any], measure: str) -> str:
    own, before = (each[measure] and each[measure]["mean"] for each in (summary, base))
    return "-" if own is None or before is None else f"{100 * (own - before):+.2f}"
