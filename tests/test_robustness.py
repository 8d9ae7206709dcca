"""Accuracy after perturbation, drop and what is won back, by hand."""

import json

import pytest

from dattt_jax.metrics.robustness import robustness_table

_RESULTS = {("noise", 1): {"base": 0.7, "mwi": 0.75}, ("noise", 2): {"base": 0.5, "mwi": 0.6},
            ("blur", 1): {"base": 0.8, "mwi": 0.78}}
_CLEAN = {"base": 0.8, "mwi": 0.81}


def test_means_drops_and_gains():
    table = robustness_table(_RESULTS, _CLEAN)
    base, mwi = table["strategies"]["base"], table["strategies"]["mwi"]
    assert base == pytest.approx({"clean": 0.8, "mPA": 2 / 3, "PR": 0.8 - 2 / 3,
                                  "relative_drop": 1 / 6, "gain": 0.0, "won_back": 0.0})
    assert mwi == pytest.approx({"clean": 0.81, "mPA": 0.71, "PR": 0.1, "relative_drop": 0.1 / 0.81,
                                 "gain": 0.71 - 2 / 3, "won_back": (0.71 - 2 / 3) / (0.8 - 2 / 3)})
    noise = table["settings"]["noise:2"]["mwi"]
    assert noise == pytest.approx({"score": 0.6, "std": None, "drop": 0.21, "gain": 0.1, "won_back": 1 / 3})
    assert list(table["settings"]) == ["noise:1", "noise:2", "blur:1"]
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_nothing_is_won_back_where_base_lost_nothing():
    blur = robustness_table(_RESULTS, _CLEAN)["settings"]["blur:1"]["mwi"]
    assert blur["won_back"] is None and blur["gain"] == pytest.approx(-0.02)


def test_a_strategy_that_harms_wins_back_less_than_nothing():
    table = robustness_table({("blur", 3): {"base": 60, "n": 55}}, {"base": 80, "n": 80})
    assert table["strategies"]["n"]["won_back"] == pytest.approx(-0.25)


def test_without_base_there_are_drops_but_no_gains():
    table = robustness_table({("blur", 3): {"n": 0.5}}, {"n": 0.8})
    assert table["strategies"]["n"] == pytest.approx(
        {"clean": 0.8, "mPA": 0.5, "PR": 0.3, "relative_drop": 0.375, "gain": None, "won_back": None})


def test_seeds_are_averaged_within_a_setting_first():
    table = robustness_table({("noise", 1): {"base": [0.4, 0.5, 0.6]}, ("blur", 1): {"base": 0.9}},
                             {"base": 1.0})
    noise = table["settings"]["noise:1"]["base"]
    assert noise["score"] == pytest.approx(0.5) and noise["std"] == pytest.approx(0.1)
    assert table["strategies"]["base"]["mPA"] == pytest.approx(0.7)  # not 0.6, the mean of all four


def test_zero_clean_score_has_no_relative_drop():
    table = robustness_table({("blur", 1): {"base": 0.0}}, {"base": 0.0})
    assert table["strategies"]["base"]["relative_drop"] is None


def test_what_is_missing_is_told():
    with pytest.raises(ValueError, match="at least one corruption"):
        robustness_table({}, _CLEAN)
    with pytest.raises(ValueError, match="blur:2 has no score of mwi"):
        robustness_table({("blur", 2): {"base": 0.5}}, _CLEAN)
