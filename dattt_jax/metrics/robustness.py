"""What corruptions cost, and how much of it test-time training wins back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Score = float | Sequence[float]


def robustness_table(results: Mapping[tuple[str, int], Mapping[str, Score]], clean: Mapping[str, float],
                     base: str = "base") -> dict[str, Any]:
    """Accuracy after perturbation, drop, and gain over the network without test-time training.

    With A(c, s) the score under corruption c at level s, the mean over seeds if there are several:
    mPA is the mean of A over all (c, s), each counting the same; PR = A(clean) - mPA; the relative drop
    is PR / A(clean). The names and the first two measures are the Robust-VOS benchmark's (arXiv
    2207.00887), whose published clean and perturbed scores fit this reading.

    A strategy's gain is its score minus the score of `base` under the same corruption, and what it wins
    back is the gain over the drop of `base`: 1 where it reaches the clean score of `base`, negative where
    it does harm. None where `base` was not run or lost nothing.

    Args:
        results: (corruption, level) -> strategy -> score, for example the mean of J&F over the data set;
            a sequence has one score per seed. Leave `identity` out: it would count as a corruption.
        clean: strategy -> score without corruption. Its strategies are those of the table.
        base: the strategy that the others are compared with.

    Returns:
        Ready for JSON, in the unit of the scores:
        {'strategies': {name: {'clean', 'mPA', 'PR', 'relative_drop', 'gain', 'won_back'}},
         'settings': {'corruption:level': {name: {'score', 'std', 'drop', 'gain', 'won_back'}}}}.
        'std' is that of a sample over the seeds, None for one seed. 'relative_drop' is None where the
        clean score is 0.

    Raises:
        ValueError: there are no results, or one lacks a strategy.
    """
    if not results:
        raise ValueError("robustness needs at least one corruption")
    scores: dict[str, dict[str, np.ndarray]] = {}
    for (corruption, level), row in results.items():
        missing = sorted(set(clean) - set(row))
        if missing:
            raise ValueError(f"{corruption}:{level} has no score of {', '.join(missing)}")
        scores[f"{corruption}:{level}"] = {name: np.atleast_1d(np.asarray(row[name], np.float64))
                                           for name in clean}
    means = {setting: {name: float(each.mean()) for name, each in row.items()}
             for setting, row in scores.items()}
    mpa = {name: float(np.mean([row[name] for row in means.values()])) for name in clean}
    strategies = {}
    for name, gain in _gains(mpa, clean, base).items():
        drop = clean[name] - mpa[name]
        strategies[name] = {"clean": float(clean[name]), "mPA": mpa[name], "PR": drop,
                            "relative_drop": drop / clean[name] if clean[name] else None, **gain}
    settings = {
        setting: {name: {"score": row[name], "std": _std(scores[setting][name]),
                         "drop": clean[name] - row[name], **gain}
                  for name, gain in _gains(row, clean, base).items()}
        for setting, row in means.items()
    }
    return {"strategies": strategies, "settings": settings}


def _gains(scores: Mapping[str, float], clean: Mapping[str, float],
           base: str) -> dict[str, dict[str, float | None]]:
    """Gain over `base` of each strategy, and the share of the drop of `base` that it is."""
    if base not in clean:
        return {name: {"gain": None, "won_back": None} for name in scores}
    drop = clean[base] - scores[base]
    gains = {name: score - scores[base] for name, score in scores.items()}
    return {name: {"gain": gain, "won_back": gain / drop if drop > 0 else None}
            for name, gain in gains.items()}


def _std(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
