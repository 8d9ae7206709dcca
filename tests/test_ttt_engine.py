"""The engine and the strategies on a problem whose every step is known in closed form."""

import collections
import dataclasses

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


@pytest.mark.parametrize("name", ["base", "mwi"])
def test_what_no_step_will_change_is_not_carried(name):
    """A network's weights and the optimiser's moments, which would be copied for nothing."""
    shapes = Engine(problem(optimizer=optax.adam(RATE)), chunk=1).state_shapes(
        SOURCE, Video().read(np.array([0])), create_strategy(name, steps=3, groups=2))
    assert len(jax.tree.leaves(shapes.trainable)) == (0 if name == "base" else 1)
    assert len(jax.tree.leaves(shapes.opt_state)) == (1 if name == "base" else 3)  # the count of steps


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


def out_of_memory_above(engine, largest):
    """Lets the engine's programs fail as XLA's do where they are for more frames than that."""
    compiled, tried = engine._run_visit, []

    def run_visit(*, valid, **arguments):
        tried.append(len(valid))
        if len(valid) > largest:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return compiled(valid=valid, **arguments)

    engine._run_visit = run_visit
    return tried


@pytest.mark.parametrize("name", ["mwi", "grouped_ltv"])
def test_a_chunk_that_does_not_fit_is_halved_once_and_changes_no_bit(name):
    strategy = create_strategy(name, steps=3, groups=2)

    def bits(engine):
        return [(r.index, r.probability.tobytes(), r.losses.tobytes())
                for r in engine.run(SOURCE, Video(), strategy, jax.random.key(0))]

    noisy = problem(NoisyPull(), optax.adam(0.1))
    engine = Engine(noisy, chunk=16)
    tried = out_of_memory_above(engine, 2)
    assert bits(engine) == bits(Engine(noisy, chunk=2))
    assert tried[:4] == [16, 8, 4, 2] and set(tried[4:]) == {2}
    first = len(tried)
    bits(engine)
    assert set(tried[first:]) == {2}


def test_what_does_not_fit_in_any_chunk_and_what_is_another_error_is_raised():
    engine = Engine(problem(), chunk=4)
    out_of_memory_above(engine, 0)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        list(engine.run(SOURCE, Video(), create_strategy("mwi", steps=1, groups=1), jax.random.key(0)))
    broken = Engine(problem(), chunk=4)

    def run_visit(**arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    broken._run_visit = run_visit
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        list(broken.run(SOURCE, Video(), create_strategy("mwi", steps=1, groups=1), jax.random.key(0)))


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("name", ["base", "mwi", "window"])
def test_a_warm_engine_compiles_nothing_more(name, chunk):
    strategy = create_strategy(name, steps=2, groups=1, window=3)
    warm, cold = (Engine(problem(NoisyPull(), optax.adam(0.1)), chunk=chunk) for _ in range(2))
    shown = {"image": np.zeros((1, 2, 3), np.float32), "target": np.zeros(1, np.float32)}
    warm.warm_up(SOURCE, shown, strategy)
    assert warm.compile_count() == 1
    results = [list(e.run(SOURCE, Video(), strategy, jax.random.key(0))) for e in (warm, cold)]
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(ours.probability, expected.probability)
        np.testing.assert_array_equal(ours.losses, expected.losses)
    assert warm.seconds_per_prediction(SOURCE, shown, strategy) > 0
    assert warm.compile_count() == cold.compile_count() == 1


def counting(problem, calls):
    """The problem, with every run of its functions counted."""
    def counted(name, function):
        def run(*arguments):
            jax.debug.callback(lambda: calls.update([name]))
            return function(*arguments)
        return run

    return dataclasses.replace(problem, context=counted("context", problem.context),
                               predict=counted("predict", problem.predict))


@pytest.mark.parametrize("name", ["base", "mwi", "ltv"])
def test_a_frame_is_predicted_once_and_its_context_is_computed_once(name):
    calls = collections.Counter()
    engine = Engine(counting(problem(), calls), chunk=3)
    list(engine.run(SOURCE, Video(), create_strategy(name, steps=4, groups=1), jax.random.key(0)))
    jax.effects_barrier()
    assert calls == {"context": len(TARGETS), "predict": len(TARGETS)}


def test_predictions_between_steps_share_the_context():
    calls = collections.Counter()
    engine = Engine(counting(problem(), calls), chunk=3, per_step=True)
    list(engine.run(SOURCE, Video(), create_strategy("mwi", steps=4, groups=1), jax.random.key(0)))
    jax.effects_barrier()
    assert calls == {"context": len(TARGETS), "predict": 4 * len(TARGETS)}
