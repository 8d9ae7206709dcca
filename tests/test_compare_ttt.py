"""`--mode=compare`: the table, and a comparison of a tiny trained network to the last line."""

import json

import numpy as np
import pytest
import tiny
from flax import traverse_util

from configs import compare_ttt
from dattt_jax.checkpoints import load_variables, save_variables
from dattt_jax.compare_ttt import NETWORKS, compare, format_table, start_weights
from dattt_jax.errors import UserError
from dattt_jax.ttt import STRATEGIES, create_objective
from dattt_jax.ttt.task import Task

pytestmark = pytest.mark.usefixtures("shared_engines")


def tiny_config():
    config, small = compare_ttt.get_config(), tiny.tiny_config()
    config.init = ""
    config.input_size, config.model.decoder_features = small.input_size, small.model.decoder_features
    config.train.update({"steps": 1, "batch_size": 4, "synthetic_samples": 4, "save_steps": 1})
    config.synthetic.update({"size": (40, 48), "num_frames": 2})
    config.ttt.steps, config.eval.clips = 1, 1
    config.compare.update({"objectives": (("baseline", "bn", 1e-4),), "strategies": ("mwi",),
                           "shifts": ("appearance", "gaussian_noise:3"), "seeds": (0, 1)})
    return config


def test_every_line_of_the_config_is_possible():
    config = compare_ttt.get_config()
    for network, objective, rate in config.compare.objectives:
        assert rate > 0
        fields = {"depth": True, "heads": ()} | NETWORKS[network]
        model = type("Model", (), fields)
        task = Task(model, (128, 128), 4)
        task.check_heads(create_objective(objective, task), objective)
    assert set(config.compare.strategies) < set(STRATEGIES)


def test_the_table():
    scores = {"base": 50.0, "base_std": 1.25, "change": -0.5, "change_std": 0.0}
    line = {"shift": "none", "network": "depth", "objective": "depth", "strategy": "mwi",
            "learning_rate": 1e-4, "J": scores, "F": scores | {"change": 2.0}}
    assert format_table([line]).splitlines() == [
        "shift  network  objective  rate    strategy  J base        J change      F base        F change",
        "none   depth    depth      0.0001  mwi       50.00 ± 1.25  -0.50 ± 0.00  50.00 ± 1.25  +2.00 ± 0.00"]


def test_a_comparison_to_the_table(tmp_path, monkeypatch, tiny_backbone, capsys):
    config = tiny_config()
    # As training leaves it; compiling a training step would take longer than all the rest.
    model = config.model.copy_and_resolve_references()
    model.update(NETWORKS["baseline"])
    save_variables(tmp_path / "networks" / "baseline", tiny.filled(model), model)
    (tmp_path / "networks" / "baseline" / "trained.json").write_text('{"step": 1}')
    table = compare(config, tmp_path)
    assert [line["shift"] for line in table] == ["appearance", "gaussian_noise:3"]
    assert json.loads((tmp_path / "table.json").read_text()) == table
    assert (tmp_path / "table.txt").read_text() == capsys.readouterr().out[-len(format_table(table)) - 1 :]
    # Mean and deviation are over the seeds, from the records of the videos.
    changes = []
    for seed in "01":
        folder = tmp_path / "runs" / "appearance" / "baseline-bn-0.0001" / seed / "videos"
        means = {}
        for strategy in ("base", "mwi"):
            [record] = [json.loads(path.read_text()) for path in (folder / strategy).iterdir()]
            means[strategy] = 100 * np.mean([frame["F"] for frame in record["frames"].values()])
        changes.append(means["mwi"] - means["base"])
    np.testing.assert_allclose([table[0]["F"][name] for name in ("change", "change_std")],
                               [np.mean(changes), np.std(changes, ddof=1)], atol=1e-3)
    # Run again, nothing is trained or evaluated again.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json") if path.parent != tmp_path}
    assert compare(config, tmp_path) == table
    assert before == {path: path.stat().st_mtime_ns for path in before}
    config.ttt.steps = 2
    with pytest.raises(UserError, match=r"holds a comparison of other settings \(config\.ttt\.steps was 1"):
        compare(config, tmp_path)
    config.ttt.steps, config.seed = 1, 5
    with pytest.raises(UserError, match=r"other settings \(config\.seed was 0, now 5\)"):
        compare(config, tmp_path)


def test_a_network_starts_from_what_it_shares_with_the_given_weights(tmp_path, monkeypatch, tiny_backbone):
    config = tiny_config()
    given = tiny.filled(config.model)
    save_variables(tmp_path / "given", given, config.model)
    config.init = str(tmp_path / "given")
    own = config.copy_and_resolve_references()
    own.model.update(NETWORKS["rotation"])
    (tmp_path / "net_start" / "checkpoints").mkdir(parents=True)  # as a run that was killed leaves it
    start = traverse_util.flatten_dict(load_variables(start_weights(config, own, tmp_path / "net")), sep="/")
    given = traverse_util.flatten_dict(given, sep="/")
    shared = {name for name in start if "/encoder" in name}
    assert shared == {name for name in given if "/encoder" in name}
    for name in shared:
        np.testing.assert_array_equal(start[name], given[name])
    assert {"params/rotation_head/linear/kernel", "params/rotation_head/linear/bias"} <= start.keys() - shared
    config.init = ""
    assert start_weights(config, own, tmp_path / "random") == ""


def test_what_is_compared_was_trained_here(tmp_path, monkeypatch, tiny_backbone):
    config = tiny_config()
    config.model.update(NETWORKS["baseline"])
    save_variables(tmp_path / "given", tiny.filled(config.model), config.model)
    config.init = str(tmp_path / "given")
    config.compare.update({"shifts": ("none",), "seeds": (0,)})
    [line] = compare(config, tmp_path / "out")
    assert (line["network"], line["strategy"]) == ("baseline", "mwi")
    networks = tmp_path / "out" / "networks"
    assert json.loads((networks / "baseline" / "trained.json").read_text()) == {"step": 1}
    given, trained = (traverse_util.flatten_dict(load_variables(path), sep="/")
                      for path in (tmp_path / "given", networks / "baseline"))
    moved = [np.abs(trained[name] - given[name]).max() for name in given if name.startswith("params")]
    assert 0 < max(moved) < 3 * config.train.learning_rate  # one step of AdamW


@pytest.mark.parametrize(("fields", "message"), [
    ({"objectives": (("deep", "depth", 1e-4),)}, r"network 'deep' is not one of depth, baseline"),
    ({"strategies": ("base", "mwi")}, r"base is always there"),
    ({"seeds": ()}, r"must each name at least one"),
    ({"shifts": ("gaussian_noise",)}, r"'gaussian_noise' has several levels: give one, as in gaussian_"),
    ({"shifts": ("fog_of_war",)}, r"fog_of_war"),
    ({"objectives": (("depth", "deep", 1e-4),)}, r"config\.compare\.objectives: 'deep' is not one of"),
    ({"objectives": (("baseline", "depth", 1e-4),)}, r"'depth' needs the depth decoder"),
    ({"strategies": ("often",)}, r"config\.compare\.strategies.*often"),
])
def test_wrong_comparisons_are_told(tmp_path, fields, message):
    config = tiny_config()
    config.compare.update(fields)
    with pytest.raises(UserError, match=message):
        compare(config, tmp_path)


@pytest.mark.parametrize(("field", "value", "message"), [
    ("eval.frames", "anotated", r"config\.eval\.frames='anotated': use one of all, annotated"),
    ("eval.protocol", "tmo-fbms", r"config\.eval\.protocol='tmo-fbms' has no F"),
    ("flow.method", "magic", r"unknown flow method 'magic'"),
    ("data.dataset", "davis16", r"config\.data\.root is empty"),
])
def test_what_would_fail_after_training_is_told_before(tmp_path, field, value, message):
    config = tiny_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        compare(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_learning_rates_can_be_compared(tmp_path, monkeypatch, tiny_backbone):
    config = tiny_config()
    model = config.model.copy_and_resolve_references()
    model.update(NETWORKS["baseline"])
    save_variables(tmp_path / "networks" / "baseline", tiny.filled(model), model)
    (tmp_path / "networks" / "baseline" / "trained.json").write_text('{"step": 1}')
    config.compare.update({"objectives": (("baseline", "tent_bn", 1e-4), ("baseline", "tent_bn", 1.0)),
                           "shifts": ("none",), "seeds": (0,)})
    config.ttt.steps = 2
    assert [line["learning_rate"] for line in compare(config, tmp_path)] == [1e-4, 1.0]
    losses = []
    for rate in ("0.0001", "1"):
        [path] = (tmp_path / "runs" / "none" / f"baseline-tent_bn-{rate}").glob("0/videos/mwi/*.json")
        losses.append(json.loads(path.read_text())["losses"]["00000"])
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]
