"""The robustness benchmark: which corruptions are swept, and the table of what they cost."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dattt_jax.eval_data import Corruption
from dattt_jax.metrics.robustness import robustness_table
from dattt_jax.score_table import format_percent, format_rows
from input_pipeline.corruptions import parse_corruptions
from input_pipeline.writers import write_bytes, write_json

_COLUMNS = ("score", "drop", "gain", "won_back")


def parse_sweep(texts: Sequence[str]) -> list[Corruption]:
    """The corruptions that `config.eval.corruptions` names, see `parse_corruptions`; `identity` is left out.

    Raises:
        UserError: a text names none.
    """
    return [setting for setting in parse_corruptions(texts) if setting[0] != "identity"]


def corrupted_folder(workdir: Path, corruption: Corruption | None) -> Path:
    """Where the results under a corruption are; None is the clean evaluation."""
    return workdir if corruption is None else workdir / "corrupted" / "{}_{}".format(*corruption)


def write_robustness(workdir: Path, results: Mapping[Corruption | None, Mapping[str, Any]]) -> dict[str, Any]:
    """Writes robustness.json and robustness.csv.

    Args:
        workdir: their folder.
        results: what results.json holds, by corruption; None is clean.

    Returns:
        What robustness.json holds: `measure` ('JF', or 'J' under a protocol without F), whose mean over the
        data set is the score, and the `robustness_table` of it: `strategies` and `settings`. Fractions. A
        strategy without a score under some setting is left out.
    """
    strategies = results[None]["strategies"]
    measure = "JF" if all(summary["JF"] for summary in strategies.values()) else "J"
    scores = {corruption: {name: summary[measure]["mean"] for name, summary in each["strategies"].items()}
              for corruption, each in results.items()}
    scored = [name for name in strategies if all(each[name] is not None for each in scores.values())]
    table = {"measure": measure, "strategies": {}, "settings": {}}
    if scored:
        table |= robustness_table({corruption: each for corruption, each in scores.items() if corruption},
                                  {name: scores[None][name] for name in scored})
    write_json(workdir / "robustness.json", table)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["corruption", "level", "strategy", *_COLUMNS])
    for setting, found in table["settings"].items():
        for name, values in found.items():
            lines.writerow([*setting.rsplit(":", 1), name, *(values[column] for column in _COLUMNS)])
    write_bytes(workdir / "robustness.csv", text.getvalue().encode())
    return table


def format_robustness(table: Mapping[str, Any]) -> str:
    """What corruptions cost, as text in percent and points: a line per setting and one for their mean.

    Args:
        table: see `write_robustness`.

    Returns:
        The lines: score and drop of each strategy against its own clean score, and how much of the drop of
        `base` it wins back.
    """
    names = list(table["strategies"])
    measure = table["measure"].replace("JF", "J&F")
    head, rows = [measure], {}
    for name in names:
        head += [name, "drop", *([] if name == "base" else ["won back"])]
    clean = {name: {"score": each["clean"], "drop": 0.0, "won_back": None}
             for name, each in table["strategies"].items()}
    mean = {name: {"score": each["mPA"], "drop": each["PR"], "won_back": each["won_back"]}
            for name, each in table["strategies"].items()}
    for setting, found in {"clean": clean, **table["settings"], "mean": mean}.items():
        rows[setting] = []
        for name in names:
            columns = ["score", "drop", *([] if name == "base" else ["won_back"])]
            rows[setting] += [format_percent(found[name][column]) for column in columns]
    return format_rows(head, rows)
