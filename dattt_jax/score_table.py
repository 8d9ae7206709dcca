"""Summaries of scores as text: a CSV file and lines for a terminal, of `score` and `eval` alike."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from input_pipeline.writers import write_bytes

Summary = Mapping[str, Any]  # of `metrics.scoring.summarize`, or of one of its videos

_STATISTICS = ("mean", "recall", "decay")
SALIENCY = ("MAE", "S", "F_max", "F_adaptive", "E_max", "E_adaptive")
"""Columns of `metrics.saliency`, in order."""


def columns(summary: Summary) -> list[str]:
    """Names of the values that `row` gives: `J_mean`, …, `JF_decay`, and those of further measures."""
    measures = ["J", "F", "JF", *(["region_F"] if "region_F" in summary else [])]
    names = [f"{measure}_{statistic}" for measure in measures for statistic in _STATISTICS]
    return names + (list(SALIENCY) if "saliency" in summary else [])


def row(summary: Summary) -> list[float | None]:
    """All values of a summary, fractions, in the order of `columns`; None where nothing was scored."""
    found = []
    for name in columns(summary):
        if name in SALIENCY:
            found.append(summary["saliency"][name])
        else:
            measure, statistic = name.rsplit("_", 1)
            found.append(summary[measure] and summary[measure][statistic])
    return found


def write_csv(path: Path, key: str, summaries: Mapping[str, Summary]) -> None:
    """Writes one line per summary and video, and one (video `*`) for their mean; fractions.

    Args:
        path: the file.
        key: what tells the summaries apart, the name of the first column.
        summaries: `metrics.scoring.summarize` by name, all with the same measures.

    Raises:
        UserError: the disk is full.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([key, "video", "frames", *columns(next(iter(summaries.values())))])
    for name, summary in summaries.items():
        for video, each in (*summary["videos"].items(), ("*", summary)):
            lines.writerow([name, video, each["frames"], *row(each)])
    write_bytes(path, text.getvalue().encode(errors="replace"))  # a name may be no UTF-8


def format_rows(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Lines up cells under their titles.

    Args:
        head: titles, the first that of the names.
        rows: cells by name, one less than the titles.

    Returns:
        The lines; names are on the left, cells on the right of their columns.
    """
    lines = [list(head), *([name, *cells] for name, cells in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) if i else cell.ljust(width)
                               for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
                     for line in lines)


def format_percent(value: float | None) -> str:
    """A fraction in percent with two decimals; `-` for None."""
    return "-" if value is None else f"{100 * value:.2f}"


def format_table(summaries: Mapping[str, Summary]) -> str:
    """The scores in percent: videos and their mean, or for several summaries the means.

    Args:
        summaries: `metrics.scoring.summarize` by name (a protocol).

    Returns:
        The lines of the table; `-` where nothing was scored.
    """
    rows = dict(summaries)
    if len(summaries) == 1:
        (name, summary), = summaries.items()
        rows = {**summary["videos"], f"mean ({name})": summary}
    head = ["", "frames", *(name.replace("_", " ") for name in columns(next(iter(summaries.values()))))]
    return format_rows(head, {name: [str(each["frames"]), *map(format_percent, row(each))]
                              for name, each in rows.items()})
