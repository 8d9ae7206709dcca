"""The part of an evaluation report on corrupted video: what it costs, and what TTT wins back."""

from collections.abc import Mapping
from typing import Any

from dattt_jax.report_charts import Series, bar_chart
from dattt_jax.report_template import Html, section, table, tag
from dattt_jax.report_words import color_numbers, label, measure_name, number_text


def robustness_section(robustness: Mapping[str, Any] | None) -> Html | None:
    """Scores under every corruption, their drop, and the share of it that each TTT strategy wins back.

    Args:
        robustness: what robustness.json holds, see `dattt_jax.eval_robustness`; None: nothing was corrupted.
    """
    if robustness is None or not robustness["strategies"]:
        return None
    strategies, settings = robustness["strategies"], robustness["settings"]
    measure = measure_name(robustness["measure"])
    drops = [Series(label(name), color, [100 * found[name]["drop"] for found in settings.values()])
             for name, color in color_numbers(strategies).items()]
    charts = [bar_chart(f"Drop of {measure} under each corruption", list(settings), drops,
                        f"clean minus corrupted {measure} (points)", signed=True)]
    adapted = {name: color for name, color in color_numbers(strategies).items() if name != "base"}
    if "base" in strategies and adapted:
        gains = [Series(label(name), color, [100 * found[name]["gain"] for found in settings.values()])
                 for name, color in adapted.items()]
        charts.append(bar_chart(f"{measure} that TTT adds under each corruption", list(settings), gains,
                                "TTT minus no TTT, both corrupted (points)", signed=True,
                                slots=len(strategies)))
    note = tag("p", "Frames are corrupted, flow is computed from the corrupted frames, ground truth stays. "
                    "A strategy's drop is against its own clean score. Won back is its gain over no TTT "
                    "under the same corruption, as a share of what no TTT lost there: 100 would be the clean "
                    "score of no TTT; a dash, that no TTT lost nothing.")
    return section("robustness", "Robustness", note, _means_table(strategies, measure),
                   tag("div", *charts, class_="charts"), _settings_table(strategies, settings, measure))


def _means_table(strategies: Mapping[str, Any], measure: str) -> Html:
    columns = {"Clean": "clean", "Corrupted (mPA)": "mPA", "Drop (PR)": "PR",
               "Drop, % of clean": "relative_drop", "Gain": "gain", "Won back, %": "won_back"}
    rows = [[label(name), *(_percent(values[column]) for column in columns.values())]
            for name, values in strategies.items()]
    return table([[(name, 1) for name in ("Strategy", *columns)]], rows,
                 f"Means of {measure} over all corruptions and levels, in percent and points.")


def _settings_table(strategies: Mapping[str, Any], settings: Mapping[str, Any], measure: str) -> Html:
    head, second, columns = [("", 1)], [("Corruption", 1)], []
    for name in strategies:
        own = {"score": measure, "drop": "Drop"} | ({} if name == "base" else {"won_back": "Won back, %"})
        head.append((label(name), len(own)))
        second += [(title, 1) for title in own.values()]
        columns += [(name, column) for column in own]
    rows = [[setting, *(_percent(found[name][column]) for name, column in columns)]
            for setting, found in settings.items()]
    return table([head, second], rows, f"{measure} under each corruption and level, in percent and points.",
                 sortable=True)


def _percent(value: float | None) -> str | None:
    return number_text(None if value is None else 100 * value)
