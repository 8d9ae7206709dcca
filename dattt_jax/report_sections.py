"""The parts of an evaluation report, each a function from results to HTML. `report` puts them together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dattt_jax.metrics.protocols import Protocol, get_protocol
from dattt_jax.paper_numbers import DATA_SETS, GROUPED, data_set_key, paper_scores
from dattt_jax.report_charts import Series, line_chart, signed_number
from dattt_jax.report_template import Html, facts, join, section, table, tag
from dattt_jax.report_words import (
    change_text,
    color_numbers,
    data_name,
    label,
    main_measure,
    measure_name,
    number_text,
    percent,
    plain,
)
from dattt_jax.score_table import SALIENCY

_BACKBONES = {"swin_t": "Swin-T"} | {f"mit_b{i}": f"MiT-b{i}" for i in range(6)}
# What the paper's numbers were made with: (name, section of the settings, field, value).
_PAPER_RUN = (("input size", None, "input_size", [512, 512]), ("gradient steps", "ttt", "steps", 10),
              ("crops per step", "ttt", "batch_size", 8), ("learning rate", "ttt", "learning_rate", 1e-5),
              ("protocol", "eval", "protocol", "dattt"),
              ("frames", "eval", "frames", "annotated"))


def heading(results: Mapping[str, Any], settings: Mapping[str, Any]) -> Html:
    """Title, what was run, and the most important numbers."""
    strategies, model = results["strategies"], settings["model"]
    measure = main_measure(strategies)
    name = measure_name(measure)
    scores = {strategy: percent(summary, measure) for strategy, summary in strategies.items()}
    tiles = []
    base = scores.get("base")
    if base is not None:
        tiles.append((f"{base:.2f}", f"{name}, no TTT"))
    adapted = {strategy: score for strategy, score in scores.items()
               if strategy != "base" and score is not None}
    if adapted:
        best = max(adapted, key=adapted.__getitem__)
        change = "" if base is None else f" ({signed_number(adapted[best] - base)})"
        which = "best: " if len(adapted) > 1 else ""
        tiles.append((f"{adapted[best]:.2f}", f"{name}, {which}{label(best)}{change}"))
    summaries = list(strategies.values())
    tiles.append((str(max(len(summary["videos"]) for summary in summaries)), "videos"))
    tiles.append((str(max(summary["frames"] for summary in summaries)), "frames scored"))
    return join([
        tag("h1", f"Evaluation on {data_name(results['data'])}"),
        tag("p", f"DATTT with {_BACKBONES.get(model['backbone'], model['backbone'])}, "
                 f"{model['modulation'] + ' modulation' if model['depth'] else 'without depth'}; weights: "
                 f"{results['init'] or 'random'}; protocol: {settings['eval']['protocol']}.", class_="soft"),
        tag("div", *(tag("div", tag("b", value), tag("span", text, class_="soft"), class_="card")
                     for value, text in tiles), class_="tiles")])


def results_section(results: Mapping[str, Any], settings: Mapping[str, Any],
                    details: Mapping[str, Any]) -> Html:
    """Scores of the strategies, beside the paper's; recall and decay; times."""
    strategies = results["strategies"]
    measures = [measure for measure in ("J", "F", "JF", "region_F")
                if any(s.get(measure) for s in strategies.values())]
    paper = {name: paper_scores(results["data"], settings["model"], name) for name in strategies}
    return section("results", "Results", _score_table(strategies, measures, paper),
                   _paper_note(results, settings) if any(paper.values()) else None,
                   _saliency_table(strategies),
                   tag("div", _statistics_table(strategies, measures), _time_table(details),
                       class_="charts"))


def _score_table(strategies: Mapping[str, Any], measures: Sequence[str],
                 paper: Mapping[str, tuple[float, float] | None]) -> Html:
    base = strategies.get("base")
    changes = [measure for measure in measures if measure in ("J", "F")]
    changes = changes if base and len(strategies) > 1 else []
    head = [("This run", len(measures))]
    names = ["Strategy", *map(measure_name, measures), *(f"Δ{measure}" for measure in changes)]
    if changes:
        head.append(("Change by TTT", len(changes)))
    if any(paper.values()):
        head += [("Paper", 2), ("Paper, change", 2)]
        names += ["J", "F", "ΔJ", "ΔF"]
    rows = []
    for name, summary in strategies.items():
        row = [join([label(name), tag("code", name)]),
               *(number_text(percent(summary, measure)) for measure in measures)]
        row += [None if name == "base" else change_text(percent(summary, measure), percent(base, measure))
                for measure in changes]
        if any(paper.values()):
            row += [None if paper[name] is None else f"{value:.1f}" for value in paper[name] or (0, 0)]
            row += [None if name == "base" else change_text(own, reference, digits=1) for own, reference in
                    zip(paper[name] or (None, None), paper.get("base") or (None, None), strict=True)]
        rows.append(row)
    return table([[("", 1), *head], [(name, 1) for name in names]], rows,
                 "J (region), F (boundary) and their mean in percent; changes in points against no TTT. "
                 "Higher is better." + (" Region F is equation 6." if "region_F" in measures else ""))


def _paper_note(results: Mapping[str, Any], settings: Mapping[str, Any]) -> Html:
    """Where the run differs from the paper's, without which the numbers beside it mislead."""
    different = []
    for name, part, field, value in _PAPER_RUN:
        own = (settings[part] if part else settings)[field]
        if own != value:
            different.append(f"{name} {plain(own, ' × ')} (paper: {plain(value, ' × ')})")
    key = data_set_key(results["data"])
    text = f"Paper: DATTT, CVPR 2024, {DATA_SETS[key]}."
    if different:
        text += f" This run differs in {'; '.join(different)}."
    if key in GROUPED:
        text += " On this data set the paper adapts 10 interleaved groups of frames (grouped MWI and LTV)."
    return tag("p", text, class_="soft")


def _statistics_table(strategies: Mapping[str, Any], measures: Sequence[str]) -> Html:
    measures = [measure for measure in measures if measure in ("J", "F")]
    rows = [[label(name), *(number_text(percent(summary, measure, statistic))
                            for measure in measures for statistic in ("recall", "decay"))]
            for name, summary in strategies.items()]
    names = [f"{measure} {statistic}" for measure in measures for statistic in ("recall", "decay")]
    return table([[(name, 1) for name in ("Strategy", *names)]], rows,
                 "Recall: share of frames above 50, in percent. Decay: first quarter of a video minus its "
                 "last, in points.")


def _saliency_table(strategies: Mapping[str, Any]) -> Html | None:
    if not all("saliency" in summary for summary in strategies.values()):
        return None
    found = {name: summary["saliency"] for name, summary in strategies.items()}
    rows = [[label(name), *(number_text(None if values[each] is None else 100 * values[each])
                            for each in SALIENCY)] for name, values in found.items()]
    return table([[(name, 1) for name in ("Strategy", *(each.replace("_", " ") for each in SALIENCY))]], rows,
                 "Video salient object measures of the soft maps, times 100. Of MAE, lower is better.")


def _time_table(details: Mapping[str, Any]) -> Html:
    rows = []
    for name, videos in details.items():
        seconds, reading = (sum(record[part] for record in videos.values())
                            for part in ("seconds", "input_seconds"))
        frames = sum(len(record["losses"]) for record in videos.values())
        rows.append([label(name), str(frames), f"{seconds:.1f}", f"{reading:.1f}",
                     f"{seconds / frames:.3f}" if frames else None])
    head = ("Strategy", "Frames", "Seconds", "of which input", "s per frame")
    return table([[(name, 1) for name in head]], rows,
                 "Time of prediction, adaptation, scoring and writing, compilation included. Frames are "
                 "decoded and their flow is computed (input) for the first strategy; the others find them.")


def ttt_section(details: Mapping[str, Any], strategies: Mapping[str, Any],
                curves: Mapping[str, Any]) -> Html | None:
    """Loss over the gradient steps, and J and F over the TTT epochs if they were recorded."""
    colors, charts, note = color_numbers(strategies), [], None
    losses = {name: _mean_losses(details.get(name, {})) for name in strategies}
    series = [Series(label(name), colors[name], values) for name, values in losses.items() if values]
    if series:
        charts = [line_chart("TTT loss", series, "gradient step of a frame", "mean loss over all frames")]
        note = tag("p", "Each step's loss is taken before its update, on random crops of its own. Under "
                        "TTT-LTV a frame gets one step in each pass over the video.", class_="soft")
    for measure in ("J", "F"):
        series = [Series(label(name), colors[name], [100 * value for value in curves[name][measure]])
                  for name in strategies if curves.get(name, {}).get(measure)]
        if series:
            if "base" in strategies:
                level = [percent(strategies["base"], measure)] * len(series[0].values)
                series.insert(0, Series(label("base"), colors["base"], level))
            charts.append(line_chart(f"{measure} over TTT epochs", series, "TTT epoch",
                                     f"mean {measure} (percent)"))
    if not charts:
        return None
    return section("ttt", "Test-time training", note, tag("div", *charts, class_="charts"))


def _mean_losses(videos: Mapping[str, Any]) -> list[float]:
    """Mean over all frames of the loss of each gradient step; empty without steps."""
    frames = [losses for record in videos.values() for losses in record["losses"].values()]
    return [sum(step) / len(step) for step in zip(*frames, strict=True)]


def sheets_section(sheets: Iterable[tuple[str, str]], left_out: bool) -> Html | None:
    """Contact sheets.

    Args:
        sheets: (title, address of the image).
        left_out: there were more.
    """
    figures = [tag("figure", tag("figcaption", title), tag("div", tag(
        "img", src=address, alt=f"Contact sheet of {title}", loading="lazy"), class_="sheet", tabindex="0",
        role="region", aria_label=title)) for title, address in sheets]
    if not figures:
        return None
    more = "Further sheets are left out, to keep this file small." if left_out else None
    note = "Worst and best videos first, in turn. Ground truth is green, predictions are red."
    return section("sheets", "Contact sheets", tag("p", note), *figures,
                   tag("p", more, class_="soft") if more else None)


def settings_section(results: Mapping[str, Any], settings: Mapping[str, Any],
                     environment: Mapping[str, Any]) -> Html:
    """Protocol, device and versions, and every field of the configuration."""
    loose = [(name, plain(value)) for name, value in settings.items() if not isinstance(value, Mapping)]
    groups = {"general": loose} | {name: [(field, plain(value)) for field, value in value.items()]
                                   for name, value in settings.items() if isinstance(value, Mapping)}
    protocol = get_protocol(settings["eval"]["protocol"])
    return section(
        "settings", "Protocol, settings and versions", tag("h3", f"Protocol: {protocol.name}"),
        facts(_protocol_facts(protocol)), tag("h3", "Device and versions"),
        tag("p", "Of the process that wrote this report; videos finished by an earlier one may have run "
                 "elsewhere.", class_="soft"),
        facts([(name, plain(value)) for name, value in environment.items()]), tag("h3", "Configuration"),
        facts([("data", results["data"]), ("init", results["init"] or "random"),
               ("flow", ", ".join(results["flow"]))]),
        *(tag("details", tag("summary", name), facts(pairs)) for name, pairs in groups.items() if pairs))


def _protocol_facts(protocol: Protocol) -> list[tuple[str, str]]:
    rules = (("the first", protocol.drop_first), ("the last", protocol.drop_last),
             ("those without an object", protocol.drop_empty_target))
    dropped = [text for text, is_dropped in rules if is_dropped]
    average = "frames, then videos" + (" of a class, then classes" if protocol.aggregation == "class" else "")
    return [("Frames", "all annotated" + (f" but {', '.join(dropped)} of each video" if dropped else "")),
            ("Ground truth", "the union of all objects: numbers above 0, grey above "
                             f"{protocol.target_above}"),
            ("Compared at", "the size of the prediction, to which ground truth is brought (nearest)"
             if protocol.resolution == "prediction" else "the size of the ground truth"),
            ("Missing prediction", {"zero": "counts as 0", "skip": "not counted"}[protocol.missing]),
            ("Prediction", f"object where 255 · p > {protocol.threshold}"),
            ("Average", average), ("Measures", " and ".join(protocol.metrics))]
