"""The part of an evaluation report on single videos: bars, changes by TTT, and the table."""

from collections.abc import Mapping, Sequence
from typing import Any

from dattt_jax.report_charts import Series, bar_chart
from dattt_jax.report_template import Html, section, table, tag
from dattt_jax.report_words import (
    color_numbers,
    label,
    main_measure,
    measure_name,
    number_text,
    percent,
    ranked_videos,
)

_CHART_VIDEOS = 40  # the bar charts show so many videos at most


def videos_section(strategies: Mapping[str, Any]) -> Html:
    """Scores of every video: bars, changes against no TTT, and the table."""
    ranked = [video for video, _ in ranked_videos(strategies)]
    shown, note = ranked, None
    if len(ranked) > _CHART_VIDEOS:
        half = _CHART_VIDEOS // 2
        shown = ranked[:half] + ranked[-half:]
        note = tag("p", f"The charts show the {half} worst and the {half} best of {len(ranked)} videos; the "
                        "table has all.", class_="soft")
    return section("videos", "Videos", tag("p", "From worst to best by the mean over the strategies."), note,
                   _video_charts(strategies, shown) if shown else None, _better_counts(strategies, ranked),
                   _video_table(strategies))


def _video_charts(strategies: Mapping[str, Any], videos: Sequence[str]) -> Html:
    measure = main_measure(strategies)
    name = measure_name(measure)
    scores = {strategy: [_video_score(summary, video, measure) for video in videos]
              for strategy, summary in strategies.items()}
    charts = [bar_chart(f"{name} of each video", videos, [Series(label(strategy), color, scores[strategy])
              for strategy, color in color_numbers(strategies).items()], f"{name} (percent)")]
    if "base" in scores and len(scores) > 1:
        changes = [Series(label(strategy), color, [
            None if own is None or base is None else own - base
            for own, base in zip(scores[strategy], scores["base"], strict=True)])
            for strategy, color in color_numbers(strategies).items() if strategy != "base"]
        charts.append(bar_chart(f"Change of {name} by TTT", videos, changes, f"change of {name} (points)",
                                signed=True, slots=len(strategies)))
    return tag("div", *charts, class_="charts")


def _better_counts(strategies: Mapping[str, Any], videos: Sequence[str]) -> Html | None:
    """On how many videos each strategy beats no TTT."""
    if "base" not in strategies or len(strategies) < 2:
        return None
    measure, items = main_measure(strategies), []
    for strategy, summary in strategies.items():
        pairs = [(_video_score(summary, video, measure), _video_score(strategies["base"], video, measure))
                 for video in videos]
        pairs = [(own, base) for own, base in pairs if own is not None and base is not None]
        if strategy != "base":
            better = sum(own > base for own, base in pairs)
            worse = sum(own < base for own, base in pairs)
            items.append(tag("li", f"{label(strategy)}: better than no TTT on {better} of {len(pairs)} "
                                   f"videos, worse on {worse}."))
    return tag("ul", *items)


def _video_table(strategies: Mapping[str, Any]) -> Html:
    measures = [measure for measure in ("J", "F") if any(s[measure] for s in strategies.values())]
    frames = {video: each["frames"] for summary in strategies.values()
              for video, each in summary["videos"].items()}
    rows = [[video, str(frames[video]), *(number_text(_video_score(summary, video, measure))
                                          for summary in strategies.values() for measure in measures)]
            for video in frames]
    head = [[("", 2), *((label(name), len(measures)) for name in strategies)],
            [("Video", 1), ("Frames", 1), *((measure, 1) for _ in strategies for measure in measures)]]
    return table(head, rows, "J and F of each video in percent.", sortable=True)


def _video_score(summary: Mapping[str, Any], video: str, measure: str) -> float | None:
    found = summary["videos"].get(video)
    return None if found is None else percent(found, measure)
