"""Adapted weights on disk: applied, refused, and a run that goes on after a crash."""

import jax
import numpy as np
import optax
import pytest
import toy_network as toy
from test_ttt_objectives import engine

from dattt_jax.errors import UserError
from dattt_jax.ttt import Progress, create_strategy
from dattt_jax.ttt.weights import load_adapted, load_progress, save_difference, save_progress

OPTIMIZER = optax.adam(0.01)


def setting(name, strategy):
    return (engine(toy.objectives()[name][0], OPTIMIZER),
            create_strategy(strategy, steps=2, groups=2, window=3))


def adapt(name="depth", strategy="mwi", *, start=None, length=5):
    """(results, progress after each visit)."""
    (runner, strategy), seen = setting(name, strategy), []
    results = list(runner.run(
        toy.VARIABLES, toy.Video(length), strategy, jax.random.key(0), start=start,
        on_progress=lambda p: seen.append(Progress(p.frames, jax.device_get(p.state), p.losses))))
    return results, seen


@pytest.mark.parametrize(("precision", "error"), [("full", 0.0), ("bfloat16", 2**-8)])
def test_what_was_saved_is_applied(tmp_path, precision, error):
    state = adapt()[1][-1].state
    save_difference(tmp_path / "walk.npz", state, toy.VARIABLES, precision=precision)
    adapted, source = toy.flat(load_adapted(tmp_path / "walk.npz", toy.VARIABLES)), toy.flat(toy.VARIABLES)
    assert set(adapted) == set(source)
    for path, value in adapted.items():
        if path in state.trainable:
            change = np.abs(state.trainable[path] - source[path])
            rounding = np.spacing(np.abs(source[path])) if error else 0
            assert np.all(change > 0)
            assert np.all(np.abs(value - state.trainable[path]) <= error * change + rounding)
        else:
            np.testing.assert_array_equal(value, source[path])


@pytest.mark.parametrize("name", ["depth", "self_training", "bn", "depth+tent_bn+bn"])
@pytest.mark.parametrize("strategy", ["mwi", "window", "ltv", "grouped_ltv"])
def test_after_a_crash_the_masks_are_those_of_a_run_without_one(tmp_path, name, strategy):
    whole, progress = adapt(name, strategy)
    middle = progress[len(progress) // 2]
    save_progress(tmp_path / "walk.npz", middle, toy.VARIABLES)
    runner, order = setting(name, strategy)
    template = runner.state_shapes(toy.VARIABLES, toy.Video(1).read(np.array([0])), order)
    restored = load_progress(tmp_path / "walk.npz", template, toy.VARIABLES)
    rest, _ = adapt(name, strategy, start=restored)
    assert 0 < len(rest) <= len(whole) and (strategy.endswith("ltv") or len(rest) < len(whole))
    for a, b in zip(rest, whole[-len(rest) :], strict=True):
        assert a.index == b.index
        np.testing.assert_array_equal(a.probability, b.probability)


def test_files_that_do_not_fit_are_told(tmp_path):
    state = adapt(length=1)[1][-1]
    path = tmp_path / "walk.npz"
    save_difference(path, state.state, toy.VARIABLES)
    other = jax.tree.map(lambda x: x + 1, toy.VARIABLES)
    with pytest.raises(UserError, match=r"walk\.npz was made from other source weights"):
        load_adapted(path, other)
    with pytest.raises(UserError, match=r"walk\.npz is damaged, or not what "
                                        r"config\.segment\.save_weights writes"):
        load_progress(path, state.state, toy.VARIABLES)
    save_progress(path, state, toy.VARIABLES)
    with pytest.raises(UserError, match="holds the progress of another objective or strategy"):
        load_progress(path, adapt("tent_bn", length=1)[1][-1].state, toy.VARIABLES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        load_adapted(path, toy.VARIABLES)
    with pytest.raises(UserError, match="does not exist"):
        load_adapted(tmp_path / "run.npz", toy.VARIABLES)
    with pytest.raises(UserError, match="precision 'half' is not one of full, bfloat16"):
        save_difference(path, state.state, toy.VARIABLES, precision="half")
