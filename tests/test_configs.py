"""The experiments: what each changes."""

import pytest

from configs import ablate_data, ablation, base, dattt_mit_b1, dattt_swin_t, dattt_synth_b0, train_synth
from dattt_jax.errors import UserError


def changed(config, reference):
    """Fields with another value, as `section.field`."""
    return {f"{section}.{name}": value for section, fields in config.to_dict().items()
            if isinstance(fields, dict) for name, value in fields.items()
            if reference.to_dict()[section][name] != value}


def test_paper_recipe():
    """Section 4.1 of the paper and the authors' code: the numbers a reproduction stands on."""
    config = dattt_mit_b1.get_config()
    assert changed(config, base.get_config()) == {}
    train = config.train
    assert (config.input_size, train.batch_size, train.epochs, train.depth_weight) == ((512, 512), 8, 10, 0.1)
    assert (train.learning_rate, train.final_learning_rate, train.weight_decay) == (6e-5, 1e-5, 0.01)
    assert (config.ttt.steps, config.ttt.batch_size, config.ttt.learning_rate) == (10, 8, 1e-5)
    model = config.model
    assert (model.backbone, model.modulation, model.drop_path) == ("mit_b1", "alpha+beta", 0.1)


@pytest.mark.parametrize(("network", "full"), [("mit_b1", dattt_mit_b1), ("swin_t", dattt_swin_t)])
@pytest.mark.parametrize(("variant", "difference"), [
    ("baseline", {"model.depth": False}), ("basic", {"model.modulation": "basic"}),
    ("alpha", {"model.modulation": "alpha"}), ("beta", {"model.modulation": "beta"})])
def test_an_ablation_takes_one_thing_away(network, full, variant, difference):
    assert changed(ablation.get_config(f"{network}-{variant}"), full.get_config()) == difference


def test_unknown_ablation_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'mit_b1-gamma' is not one of mit_b1-baseline, .*swin_t-beta"):
        ablation.get_config("mit_b1-gamma")


@pytest.mark.parametrize(("factor", "difference"), [
    ("still_camera", {"synthetic.static_camera_probability": 0.6, "synthetic.tracking_probability": 0.0}),
    ("one_flow_size", {"train.render_scale": (1.0, 1.0)}), ("camera_in_flow", {"flow.stabilized": False}),
    ("blobs", {"synthetic.object_kinds": ("blob",)}),
    ("nothing_else_moves", {"synthetic.mover_probability": 0.0, "synthetic.drift_probability": 0.0})])
def test_a_data_ablation_takes_one_factor_away(factor, difference):
    assert changed(ablate_data.get_config(factor), ablate_data.get_config()) == difference


def test_the_objective_of_the_box_comes_with_its_learning_rate():
    own = dattt_synth_b0.get_config()
    assert (own.ttt.objective, own.ttt.learning_rate) == ("self_training", 5e-5)
    assert changed(dattt_synth_b0.get_config("depth"), own) == {
        "ttt.objective": "depth", "ttt.learning_rate": 1e-5}


@pytest.mark.parametrize("module", [ablate_data, dattt_synth_b0, train_synth])
def test_an_unknown_variant_is_told_with_the_known_ones(module):
    name = module.__name__.split(".")[1]
    with pytest.raises(UserError, match=rf"configs/{name}\.py:none: the \w+ are \w+, "):
        module.get_config("none")
