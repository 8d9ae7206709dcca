"""Names, numbers and colours that all parts of an evaluation report share."""

from collections.abc import Iterable, Mapping
from typing import Any

from dattt_jax.paper_numbers import DATA_SETS, data_set_key
from dattt_jax.report_charts import signed_number

_LABELS = {"base": "No TTT", "n": "TTT-N", "mwi": "TTT-MWI", "ltv": "TTT-LTV",
           "grouped_mwi": "TTT-MWI, grouped", "grouped_ltv": "TTT-LTV, grouped"}


def label(strategy: str) -> str:
    """Name of a strategy as the paper writes it; a name it does not have stays as it is."""
    return _LABELS.get(strategy, strategy)


def percent(summary: Mapping[str, Any], measure: str, statistic: str = "mean") -> float | None:
    """A statistic of `metrics.scoring.summarize`, in percent; None where there is none."""
    values = summary[measure]
    return None if values is None or values[statistic] is None else 100 * values[statistic]


def main_measure(strategies: Mapping[str, Any]) -> str:
    """The measure videos are compared by: `JF`, or `J` under a protocol without F."""
    return "JF" if all(summary["JF"] is not None for summary in strategies.values()) else "J"


def ranked_videos(strategies: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Videos from worst to best.

    Args:
        strategies: summaries by strategy.

    Returns:
        (video, mean of the main measure over the strategies in percent), without videos that no strategy has
        a score of. Equal scores are in order of name.
    """
    measure = main_measure(strategies)
    scores = []
    for video in sorted({video for summary in strategies.values() for video in summary["videos"]}):
        found = [percent(summary["videos"][video], measure) for summary in strategies.values()
                 if video in summary["videos"]]
        found = [score for score in found if score is not None]
        if found:
            scores.append((video, sum(found) / len(found)))
    return sorted(scores, key=lambda pair: pair[1])


def color_numbers(strategies: Iterable[str]) -> dict[str, int]:
    """Colour numbers: grey (0) for no TTT only, the others in order."""
    adapted = [name for name in strategies if name != "base"]
    return {name: 0 if name == "base" else 1 + adapted.index(name) % 6 for name in strategies}


def data_name(data: str) -> str:
    """The paper's name of a data set; others keep their own."""
    key = data_set_key(data)
    return DATA_SETS[key] if key else data


def measure_name(measure: str) -> str:
    """How a measure is written."""
    return {"JF": "J&F", "region_F": "region F"}.get(measure, measure)


def number_text(value: float | None) -> str | None:
    """A number with two decimals."""
    return None if value is None else f"{value:.2f}"


def change_text(own: float | None, base: float | None, digits: int = 2) -> str | None:
    """How far a number is from another, with its sign; None where one is missing."""
    return None if own is None or base is None else signed_number(own - base, digits)


def plain(value: Any, separator: str = ", ") -> str:
    """A value of a configuration as text."""
    if isinstance(value, list | tuple):
        return separator.join(map(plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
