"""The paper's results as data: J and F of DATTT (CVPR 2024) on the five data sets of its main table."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATA_SETS = {"davis16": "DAVIS-16", "fbms": "FBMS", "long_videos": "Long-Videos", "mcl": "MCL",
             "segtrackv2": "SegTrackV2"}
# On these the paper adapts 10 interleaved groups of frames, each on its own (section 4.1).
GROUPED = ("davis16", "segtrackv2")

_ALIASES = {"davis2016": "davis16", "longvideos": "long_videos", "segtrack": "segtrackv2",
            "segtrack2": "segtrackv2"}
# model -> strategy -> (J, F) in percent per data set, in the order of `DATA_SETS`. `base` is absolute, the
# others are changes against it, as the paper prints them.
_SCORES: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {
    "mit_b1": {
        "base": ((77.1, 78.4), (73.7, 75.8), (65.2, 68.0), (53.5, 66.2), (61.5, 69.2)),
        "n": ((0.3, 0.3), (0.1, 0.3), (1.3, 1.5), (1.9, 1.5), (1.0, 1.2)),
        "mwi": ((0.4, 0.5), (2.3, 2.1), (7.2, 7.5), (7.6, 6.9), (2.0, 4.0)),
        "ltv": ((0.4, 0.4), (3.2, 3.1), (7.9, 7.7), (8.4, 7.8), (4.4, 4.3)),
    },
    "swin_t": {
        "base": ((79.0, 80.3), (76.6, 79.3), (63.5, 70.0), (54.1, 68.2), (64.0, 70.7)),
        "ltv": ((0.2, 0.4), (2.6, 2.0), (12.4, 9.2), (12.0, 8.1), (1.5, 0.8)),
    },
    # The Baseline row: no depth decoder, hence no depth-aware training at test time.
    "mit_b1 without depth": {
        "base": ((75.9, 77.5), (75.1, 76.5), (63.9, 67.5), (57.3, 70.8), (61.5, 70.4)),
    },
}


def data_set_key(data: str) -> str | None:
    """The data set of the paper that an evaluation source is, told by its name.

    Args:
        data: a name or a folder, for example `DAVIS-16` or `/data/Long_Videos`. Case and punctuation do not
            count, only the last part of a path does.

    Returns:
        A key of `DATA_SETS`, or None if the paper has no such data set.
    """
    name = re.sub(r"[^a-z0-9]", "", Path(data).name.lower())
    name = _ALIASES.get(name, name)
    return name if name in DATA_SETS else None


def paper_scores(data: str, model: Mapping[str, Any], strategy: str) -> tuple[float, float] | None:
    """What the paper reports for a run.

    Args:
        data: name or folder of the data set, see `data_set_key`.
        model: `config.model`: `backbone`, `depth` and `modulation` count.
        strategy: a name of `dattt_jax.ttt.strategies`. The paper calls the grouped strategies, where it uses
            them (`GROUPED`), by the names of the plain ones; so both get its number there.

    Returns:
        (J, F) in percent, or None if the paper does not have it.
    """
    key = data_set_key(data)
    if model["depth"] and model["modulation"] != "alpha+beta":
        return None
    rows = _SCORES.get(model["backbone"] if model["depth"] else f"{model['backbone']} without depth", {})
    plain = strategy.removeprefix("grouped_") if key in GROUPED else strategy
    if key is None or plain not in rows:
        return None
    column = list(DATA_SETS).index(key)
    base, change = rows["base"][column], (0.0, 0.0) if plain == "base" else rows[plain][column]
    return round(base[0] + change[0], 1), round(base[1] + change[1], 1)
