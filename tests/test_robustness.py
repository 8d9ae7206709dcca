"""Robustness: accuracy after perturbation, drop and what is won back by hand, and the sweep of `eval`."""

import csv
import json

import numpy as np
import pytest
from tiny_eval import folder_config, tiny_config, tiny_evaluate, without_times, write_clip

from dattt_jax.errors import UserError
from dattt_jax.eval_data import eval_entries
from dattt_jax.eval_robustness import format_robustness
from dattt_jax.metrics.robustness import robustness_table
from dattt_jax.report_robustness import robustness_section
from input_pipeline.eval_pairs import frame_pairs
from input_pipeline.flow import create_flow, flow_renderings

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


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Config, workdir and results of a sweep on one clip of noise with a bright moving block."""
    folder = tmp_path_factory.mktemp("sweep")
    write_clip(folder / "data", "cat", 4, masks=range(4))
    config = folder_config(tiny_config(folder / "weights"), folder / "data",
                           corruptions=("gaussian_noise:3", "aoc:0", "contrast"))
    return config, folder / "out", tiny_evaluate(config, folder / "out")


def test_a_sweep_is_one_evaluation_per_setting_and_a_table(swept, capsys):
    config, workdir, clean = swept
    folders = ["contrast_1", "contrast_2", "contrast_3", "gaussian_noise_3"]
    assert sorted(path.name for path in (workdir / "corrupted").iterdir()) == folders
    scores = {}
    for folder in folders:
        results = json.loads((workdir / "corrupted" / folder / "results.json").read_text())
        corruption = (folder[:-2], int(folder[-1]))
        scores[corruption] = {name: summary["JF"]["mean"] for name, summary in results["strategies"].items()}
        assert results["corruption"] == "{}:{}".format(*corruption)
        entry, = eval_entries(config, corruption)
        for strategy in ("base", "n"):
            for name in entry.open().frame_names:
                assert (workdir / f"corrupted/{folder}/masks/{strategy}/cat/{name}.png").exists()
    table = json.loads((workdir / "robustness.json").read_text())
    means = {name: summary["JF"]["mean"] for name, summary in clean["strategies"].items()}
    expected = robustness_table(scores, means)
    assert table["measure"] == "JF"
    for name, values in expected["strategies"].items():
        assert table["strategies"][name] == pytest.approx(values)
    assert table["settings"] == {name: expected["settings"][name] for name in table["settings"]}
    assert list(table["settings"]) == ["gaussian_noise:3", "contrast:1", "contrast:2", "contrast:3"]
    assert table["strategies"]["base"]["PR"] > 0.01  # low contrast hides the block
    with open(workdir / "robustness.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["corruption"], row["level"], row["strategy"]) for row in rows[:3]] == [
        ("gaussian_noise", "3", "base"), ("gaussian_noise", "3", "n"), ("contrast", "1", "base")]
    assert float(rows[0]["drop"]) == table["settings"]["gaussian_noise:3"]["base"]["drop"]


def test_a_finished_sweep_goes_on_with_what_is_missing(swept):
    config, workdir, clean = swept
    record, kept = (workdir / f"corrupted/contrast_{level}/videos/n/cat.json" for level in (2, 3))
    before, stamp = record.read_text(), kept.stat().st_mtime_ns
    text = (workdir / "robustness.json").read_text()
    record.unlink()
    assert tiny_evaluate(config, workdir) == clean
    assert without_times(json.loads(record.read_text())) == without_times(json.loads(before))
    assert kept.stat().st_mtime_ns == stamp and (workdir / "robustness.json").read_text() == text
    other = config.copy_and_resolve_references()
    other.eval.temporally_consistent = True
    with pytest.raises(UserError, match=r"gaussian_noise_3 holds results of other settings "
                                        r"\(config\.eval\.temporally_consistent was False, now True\)"):
        tiny_evaluate(other, workdir)


def test_the_printed_and_the_shown_table(swept):
    _, workdir, clean = swept
    table = json.loads((workdir / "robustness.json").read_text())
    lines = [line.split() for line in format_robustness(table).splitlines()]
    assert lines[0] == ["J&F", "base", "drop", "n", "drop", "won", "back"]
    base = 100 * clean["strategies"]["base"]["JF"]["mean"]
    assert lines[1][:3] == ["clean", f"{base:.2f}", "0.00"]
    assert lines[-1][0] == "mean" and lines[-1][1] == f"{100 * table['strategies']['base']['mPA']:.2f}"
    assert [line[0] for line in lines[2:-1]] == list(table["settings"])
    page = (workdir / "report.html").read_text()
    assert 'id="robustness"' in page and "under every corruption" in page
    for values in table["settings"].values():
        assert f"{100 * values['n']['drop']:.2f}" in page
    assert robustness_section(None) is None
    nothing = {"measure": "JF", "strategies": {}, "settings": {}}
    assert robustness_section(nothing) is None


def test_the_network_sees_corrupted_frames_and_their_flow(swept):
    config, _, _ = swept
    clean, noisy = (eval_entries(config, each)[0].open() for each in (None, ("gaussian_noise", 3)))
    difference = np.stack(list(noisy.frames)).astype(float) - np.stack(list(clean.frames))
    assert 20 < difference.std() < 31  # sigma 30, less what clipping takes
    np.testing.assert_array_equal(clean.target("00001"), noisy.target("00001"))
    for video in (clean, noisy):
        pairs = list(frame_pairs(video, range(4), create_flow("dis"), "repeat"))
        expected = list(flow_renderings(video.frames, create_flow("dis"), "repeat"))
        np.testing.assert_array_equal(pairs, expected)


def test_a_sweep_without_scores_has_an_empty_table(swept, tmp_path):
    config, _, _ = swept
    config = config.copy_and_resolve_references()
    write_clip(tmp_path / "data", "dog", 2, masks=[0])
    config.data.root, config.eval.protocol = str(tmp_path / "data"), "davis16"  # keeps no frame
    config.eval.corruptions = ("box_blur:1",)
    tiny_evaluate(config, tmp_path / "out")
    assert json.loads((tmp_path / "out/robustness.json").read_text())["strategies"] == {}
