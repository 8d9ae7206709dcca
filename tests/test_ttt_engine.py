"""The engine and the strategies on a problem whose every step is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dattt_jax.errors import UserError
from dattt_jax.ttt import STRATEGIES, Engine, Problem, create_strategy

RATE = 0.25
SOURCE = {"params": {"encoder": {"w": np.float32(2.0)}, "head": {"b": np.float32(10.0)}}}
TARGETS = np.array([1.0, -1.0, 4.0, 0.5, 3.0, -2.0, 7.0], np.float32)


class Pull:
    """Loss (w - target)² / 2: a step of SGD moves w towards the frame's target by RATE."""

    def sample(self, frame, step, key):
        return frame["target"]

    def loss(self, variables, batch, key):
        return 0.5 * (variables["params"]["encoder"]["w"] - batch) ** 2


class NoisyPull(Pull):
    """The same with a random target, to see which random numbers a step gets."""

    def sample(self, frame, step, key):
        return frame["target"] + jax.random.normal(key)


class Video:
    """Frames of 2×3 pixels with a target each."""

    def __init__(self, targets=TARGETS):
        self.targets = np.asarray(targets, np.float32)
        self.reads = []

    def __len__(self):
        return len(self.targets)

    def read(self, indices):
        self.reads.append(list(indices))
        return {"image": np.ones((len(indices), 2, 3), np.float32), "target": self.targets[indices]}


def problem(objective=None, optimizer=None):
    return Problem(
        objective=objective or Pull(),
        trainable=lambda path: path[:2] == ("params", "encoder"),
        context=lambda variables, frame: variables["params"]["head"]["b"],
        predict=lambda variables, frame, context: (
            frame["image"] * variables["params"]["encoder"]["w"] + context),
        optimizer=optimizer or optax.sgd(RATE),
    )


def run(name, *, steps=3, groups=2, chunk=3, video=None, per_step=False, **kwargs):
    engine = Engine(problem(**kwargs), chunk=chunk, per_step=per_step)
    strategy = create_strategy(name, steps=steps, groups=groups)
    return list(engine.run(SOURCE, video or Video(), strategy, jax.random.key(0)))


def after(w, target, steps):
    """w after `steps` steps, in closed form."""
    return target + (w - target) * (1 - RATE) ** steps


def expected(name, steps=3, groups=2):
    """{frame: w at its prediction} and {frame: losses}, from the definition of each strategy."""
    weights, losses = {}, {t: [] for t in range(len(TARGETS))}

    def step(w, t):
        losses[t].append(0.5 * (w - TARGETS[t]) ** 2)
        return after(w, TARGETS[t], 1)

    def carried(frames, ltv):
        w = 2.0
        for _ in range(steps if ltv else 1):
            for t in frames:
                for _ in range(1 if ltv else steps):
                    w = step(w, t)
                weights[t] = w

    everything = range(len(TARGETS))
    if name == "n":
        for t in everything:
            weights[t] = 2.0
            for _ in range(steps):
                weights[t] = step(weights[t], t)
    elif name == "base":
        weights = dict.fromkeys(everything, 2.0)
    elif name.startswith("grouped"):
        for g in range(groups):
            carried(everything[g::groups], name.endswith("ltv"))
    else:
        carried(everything, name == "ltv")
    return weights, losses


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_every_strategy_follows_its_definition(name, chunk):
    weights, losses = expected(name)
    results = run(name, chunk=chunk)
    assert sorted(r.index for r in results) == list(range(len(TARGETS)))
    for r in results:
        assert r.final
        np.testing.assert_allclose(r.probability, np.full((2, 3), weights[r.index] + 10), rtol=1e-6)
        np.testing.assert_allclose(r.losses, losses[r.index], rtol=1e-5)
        assert r.applied.all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_chunks_give_what_one_piece_gives_bit_for_bit(name):
    def bits(chunk):
        results = run(name, chunk=chunk, objective=NoisyPull(), optimizer=optax.adam(0.1))
        return [(r.index, r.probability.tobytes(), r.losses.tobytes()) for r in results]

    whole = bits(len(TARGETS))
    # 3 and 5 pad the last chunk, 16 pads more than there are frames.
    assert bits(3) == whole
    assert bits(5) == whole
    assert bits(16) == whole


def test_the_seed_decides():
    def losses(seed):
        engine = Engine(problem(NoisyPull()), chunk=4)
        strategy = create_strategy("mwi", steps=2, groups=1)
        return np.stack([r.losses for r in engine.run(SOURCE, Video(), strategy, jax.random.key(seed))])

    np.testing.assert_array_equal(losses(0), losses(0))
    assert not np.array_equal(losses(0), losses(1))


def test_a_step_gets_the_same_random_numbers_in_every_strategy():
    # With an optimiser that stands still, the losses show the random targets alone.
    still = {"objective": NoisyPull(), "optimizer": optax.sgd(0.0)}
    n = {r.index: r.losses for r in run("n", **still)}
    for name in ("mwi", "ltv", "grouped_ltv"):
        for r in run(name, **still):
            np.testing.assert_array_equal(r.losses, n[r.index])
    assert len({float(x) for losses in n.values() for x in losses}) == 3 * len(TARGETS)


@pytest.mark.parametrize("name", ["n", "mwi", "ltv"])
def test_per_step_predictions(name):
    results = run(name, per_step=True, chunk=2)
    assert len(results) == 3 * len(TARGETS)
    weights, _ = expected(name)
    for r in results:
        if name == "n":
            np.testing.assert_allclose(r.probability[0, 0] - 10, after(2.0, TARGETS[r.index], r.step),
                                       rtol=1e-5)
        if r.final:
            np.testing.assert_allclose(r.probability[0, 0] - 10, weights[r.index], rtol=1e-5)
    order = [(r.index, r.step) for r in results]
    assert order == sorted(order, key=lambda x: (x[1], x[0]) if name == "ltv" else x)


def test_the_source_and_what_is_not_trained_stay():
    before = jax.tree.map(np.array, SOURCE)
    run("mwi")
    jax.tree.map(np.testing.assert_array_equal, before, SOURCE)


def test_videos_do_not_see_each_other():
    engine = Engine(problem(), chunk=3)
    strategy = create_strategy("ltv", steps=3, groups=1)
    first = list(engine.run(SOURCE, Video(), strategy, jax.random.key(0)))
    list(engine.run(SOURCE, Video(-TARGETS), strategy, jax.random.key(0)))
    again = list(engine.run(SOURCE, Video(), strategy, jax.random.key(0)))
    np.testing.assert_array_equal([r.probability for r in first], [r.probability for r in again])


def test_one_compilation_per_shape_and_steps_whatever_the_length():
    engine = Engine(problem(), chunk=3)
    for length in (1, 2, 3, 4, 7):
        for name in ("n", "mwi", "grouped_mwi"):
            strategy = create_strategy(name, steps=3, groups=2)
            list(engine.run(SOURCE, Video(TARGETS[:length]), strategy, jax.random.key(length)))
    assert engine.compile_count() == 1
    for name in ("ltv", "grouped_ltv"):
        list(engine.run(SOURCE, Video(), create_strategy(name, steps=3, groups=2), jax.random.key(0)))
    assert engine.compile_count() == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing(bad):
    targets = np.array([1.0, bad, 3.0], np.float32)
    results = run("mwi", video=Video(targets), optimizer=optax.adam(0.1))
    clean = run("mwi", video=Video(targets[[0, 0, 2]]), optimizer=optax.adam(0.1))
    assert [r.applied.tolist() for r in results] == [[True] * 3, [False] * 3, [True] * 3]
    assert np.isfinite([r.probability for r in results]).all()
    np.testing.assert_array_equal(results[1].probability, results[0].probability)
    np.testing.assert_array_equal(clean[0].probability, results[0].probability)


def test_a_loss_of_zero_changes_nothing_even_with_momentum():
    # Frame 0 gives Adam momentum; at frame 1 the loss is exactly 0, so w must stay.
    results = run("mwi", steps=1, video=Video([5.0, 5.0]), optimizer=optax.sgd(1.0, momentum=0.9))
    assert results[1].losses == [0.0]
    assert not results[1].applied.any()
    np.testing.assert_array_equal(results[0].probability, results[1].probability)


def test_streaming_strategies_read_in_order_and_once():
    for name in STRATEGIES:
        video = Video()
        run(name, video=video, chunk=2)
        in_order = [i for read in video.reads for i in read] == list(range(len(TARGETS)))
        assert in_order == create_strategy(name, steps=3, groups=2).streams


def test_more_groups_than_frames():
    results = run("grouped_mwi", groups=10, video=Video(TARGETS[:3]))
    np.testing.assert_allclose([r.probability[0, 0] - 10 for r in results],
                               [after(2.0, t, 3) for t in TARGETS[:3]], rtol=1e-6)


def test_on_visited_counts_every_pass():
    counts = []
    engine = Engine(problem(), chunk=4)
    list(engine.run(SOURCE, Video(), create_strategy("ltv", steps=3, groups=1), jax.random.key(0),
                    on_visited=counts.append))
    assert sum(counts) == 3 * len(TARGETS)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "ltw", "steps": 1, "groups": 1}, "config.ttt.strategy: 'ltw' is not one of base, n, mwi"),
    ({"name": "mwi", "steps": 0, "groups": 1}, "config.ttt.steps"),
    ({"name": "mwi", "steps": 1, "groups": 0}, "config.ttt.groups"),
])
def test_wrong_strategies_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        create_strategy(**arguments)


def test_programs_hold_no_copy_of_the_weights():
    engine = Engine(problem(), chunk=2)
    list(engine.run(SOURCE, Video(), create_strategy("mwi", steps=1, groups=1), jax.random.key(0)))
    other = jax.tree.map(lambda x: x + np.float32(1), SOURCE)
    results = list(engine.run(other, Video(), create_strategy("mwi", steps=1, groups=1), jax.random.key(0)))
    assert engine.compile_count() == 1
    np.testing.assert_allclose(results[0].probability, after(3.0, TARGETS[0], 1) + 11 + jnp.zeros((2, 3)),
                               rtol=1e-6)
