"""Each objective's loss against closed forms and NumPy, and what it trains under every strategy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_network as toy

from dattt_jax.errors import UserError
from dattt_jax.pretext import BLOCK, cross_entropy, hidden_blocks, masked_mse, rotate
from dattt_jax.ttt import OBJECTIVES, STRATEGIES, Engine, Problem, create_objective, create_strategy
from dattt_jax.ttt.objectives import Plain
from dattt_jax.ttt.objectives.batch_norm import BatchNormAdaptation
from dattt_jax.ttt.objectives.rotation import Rotation
from dattt_jax.ttt.objectives.self_training import SelfTraining, balanced_loss
from dattt_jax.ttt.objectives.sum import Sum
from dattt_jax.ttt.objectives.tent import binary_entropy

NAMES = tuple(toy.objectives())


def engine(objective, optimizer=None, chunk=2):
    return Engine(Problem(objective=objective, context=lambda v, f: (), predict=toy.predict,
                          optimizer=optimizer or optax.adam(0.01)), chunk=chunk)


def final_state(runner, video, name, **kwargs):
    states, strategy = [], create_strategy(name, steps=2, groups=2, **kwargs)
    results = list(runner.run(toy.VARIABLES, video, strategy, jax.random.key(0),
                              on_progress=lambda p: states.append(jax.device_get(p.state))))
    return states[-1], results


@pytest.mark.parametrize(("name", "strategy"), list(itertools.product(NAMES, STRATEGIES)))
def test_what_moves_and_what_does_not(name, strategy):
    objective, expected = toy.objectives()[name]
    before = jax.tree.map(np.copy, toy.VARIABLES)
    runner = engine(objective)
    state, results = final_state(runner, toy.Video(3), strategy, window=2)
    # Nothing else is in the carry, so nothing else can move.
    assert set(state.trainable) == (expected if strategy != "base" else set())
    source = toy.flat(toy.VARIABLES)
    for path, value in state.trainable.items():
        assert np.all(value != source[path]), path
    jax.tree.map(np.testing.assert_array_equal, before, toy.VARIABLES)
    final_state(runner, toy.Video(5), strategy, window=2)
    assert runner.compile_count() == 1  # whatever the length
    if strategy != "base":
        assert all(r.applied.all() for r in results)


@pytest.mark.parametrize("name", NAMES)
def test_base_is_the_source_whatever_the_objective(name):
    video = toy.Video(2)
    _, results = final_state(engine(toy.objectives()[name][0]), video, "base")
    expected = toy.predict(toy.VARIABLES, {"image": video.images}, ())
    np.testing.assert_allclose([r.probability for r in results], expected, rtol=1e-6)


def test_the_registry_names_what_the_toy_covers():
    assert set(OBJECTIVES) == set(NAMES) - {"depth+tent_bn+bn"}


def test_self_training_counts_sure_places_and_both_classes_alike():
    label = np.float32([3, 0.5, -0.5, -2, -2, -2, -2, -2])  # sure: 1 of the object, 5 of the background
    loss = balanced_loss(jnp.zeros(8), jnp.asarray(label))
    damped = 8 / 64
    np.testing.assert_allclose(loss, np.log(2) * (1 / (1 + damped) + 5 / (5 + damped)), rtol=1e-6)
    far = np.float32([40, 0, 0, -40, -40, -40, -40, 40])  # right but for the last place
    wrong = balanced_loss(jnp.asarray(far), jnp.asarray(label))
    np.testing.assert_allclose(wrong, 40 / (5 + damped), rtol=1e-6)
    assert balanced_loss(jnp.ones(4), jnp.zeros(4)) == 0


def test_self_training_is_taught_by_what_is_known_of_a_frame():
    """Refined, and without asking the network."""
    objective = SelfTraining(None, None, lambda frame, logits: logits + frame["image"])
    known = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(objective.label(None, {"prediction": known, "image": 2.0}),
                                  known[..., None] + 2)
    assert objective.learns_predictions
    other, _ = toy.objectives()["mae"]
    sums = [Sum(parts, (1.0, 1.0)) for parts in ((other, objective), (other, other))]
    assert [each.learns_predictions for each in sums] == [True, False]


def test_self_training_is_taught_by_the_source_however_far_the_weights_have_moved():
    seen = []

    def logits(variables, frame):
        return toy.logits(variables, frame)[None]

    class Watched(SelfTraining):
        def loss(self, variables, batch, key):
            jax.debug.callback(lambda label: seen.append(label), batch[1])
            return super().loss(variables, batch, key)

    video = toy.Video(2)
    state, _ = final_state(engine(Watched(logits, toy.disturb), optax.adam(0.1)), video, "ltv")
    jax.effects_barrier()
    moved = toy.flat(toy.VARIABLES) | state.trainable
    assert any(np.abs(moved[path] - toy.flat(toy.VARIABLES)[path]).max() > 0.05 for path in toy.ENCODER)
    expected = np.asarray(toy.logits(toy.VARIABLES, {"image": video.images}))
    assert len(seen) == 4  # two passes over two frames
    for label in seen:
        assert min(np.abs(label - image).max() for image in expected) < 1e-5


@pytest.mark.parametrize(("strategy", "asked"), [("mwi", 3), ("ltv", 3), ("grouped_ltv", 3), ("base", 0)])
def test_the_source_is_asked_once_per_frame(strategy, asked):
    """However many steps or passes there are, and for no padding."""
    seen = []

    class Asking(SelfTraining):
        def label(self, source, frame):
            jax.debug.callback(lambda x: seen.append(x.copy()), frame["image"])
            return super().label(source, frame)

    objective = Asking(lambda variables, frame: toy.logits(variables, frame)[None], toy.disturb)
    video = toy.Video(3)
    final_state(engine(objective, chunk=2), video, strategy)
    jax.effects_barrier()
    assert len(seen) == asked
    assert all(any((image == x).all() for x in seen) for image in video.images[:asked])


def test_entropy_is_numpys_and_does_not_overflow():
    x = np.array([-3.0, -0.5, 0.0, 0.7, 4.0])
    p = 1 / (1 + np.exp(-x))
    expected = np.mean(-p * np.log(p) - (1 - p) * np.log(1 - p))
    np.testing.assert_allclose(binary_entropy(jnp.asarray(x)), expected, rtol=1e-6)
    np.testing.assert_allclose(binary_entropy(jnp.zeros(3)), np.log(2), rtol=1e-6)
    value, slope = jax.value_and_grad(binary_entropy)(jnp.float32([1e4, -1e4]))
    assert value == 0 and not np.any(slope)


def test_one_step_of_tent_has_the_known_answer():
    """dH/dlogit = -logit · p · (1 - p), so scale and bias move by its mean times x̂ and 1."""
    objective, _ = toy.objectives()["tent_bn"]
    video = toy.Video(1)
    states = []
    [result] = engine(objective, optax.sgd(0.5)).run(
        toy.VARIABLES, video, create_strategy("n", steps=1, groups=1), jax.random.key(0),
        on_progress=lambda p: states.append(jax.device_get(p.state)))
    x = np.asarray(toy.fused(toy.VARIABLES, {"image": video.images[0]}), np.float64)
    normal = (x - x.mean()) / np.sqrt(x.var() + toy.EPSILON)
    logit = 1.5 * normal - 0.2
    p = 1 / (1 + np.exp(-logit))
    slope = -logit * p * (1 - p)
    scale, bias = 1.5 - 0.5 * np.mean(slope * normal), -0.2 - 0.5 * np.mean(slope)
    np.testing.assert_allclose(states[-1].trainable["params", "head", "bn", "scale"], [scale], rtol=1e-5)
    np.testing.assert_allclose(states[-1].trainable["params", "head", "bn", "bias"], [bias], rtol=1e-5)
    np.testing.assert_allclose(result.losses, [np.mean(-p * np.log(p) - (1 - p) * np.log(1 - p))], rtol=1e-5)
    # The prediction, too, is with the frame's own statistics.
    np.testing.assert_allclose(result.probability, 1 / (1 + np.exp(-(scale * normal + bias))), rtol=1e-5)


@pytest.mark.parametrize("prior", [0.0, 2.0, 1e9])
@pytest.mark.parametrize(("strategy", "seen"), [
    ("n", lambda t: [t]), ("mwi", lambda t: range(t + 1)), ("ltv", lambda t: range(3)),
    ("window", lambda t: range(t + 1))])
def test_bn_adaptation_is_the_formula(prior, strategy, seen):
    """λ·source + (1-λ)·test with λ = N/(N+n), the variance unbiased over all positions of the n frames."""
    video = toy.Video(3)
    runner = engine(BatchNormAdaptation(toy.statistics, toy.SIZE**2, prior))
    x = np.asarray(toy.fused(toy.VARIABLES, {"image": video.images}), np.float64)
    for r in final_state(runner, video, strategy, window=2)[1]:
        pixels = x[list(seen(r.index))]
        part = prior / (prior + len(pixels))
        mean = part * 0.3 + (1 - part) * pixels.mean()
        var = part * 2.0 + (1 - part) * pixels.var(ddof=1)
        logit = (x[r.index] - mean) / np.sqrt(var + toy.EPSILON) * 1.5 - 0.2
        np.testing.assert_allclose(r.probability, 1 / (1 + np.exp(-logit)), rtol=2e-5)
        assert r.applied.all() and not r.losses.any()


def test_a_frame_that_is_not_finite_is_not_remembered():
    video = toy.Video(3)
    video.images[1, 0, 0] = np.nan
    runner = engine(BatchNormAdaptation(toy.statistics, toy.SIZE**2, 2.0))
    state, results = final_state(runner, video, "mwi")
    assert [r.applied.tolist() for r in results] == [[True, True], [False, True], [True, True]]
    assert state.memory.count == 2 and np.isfinite(results[2].probability).all()


def test_rotations_are_numpys():
    images = np.random.default_rng(0).random((4, 5, 5, 3)).astype(np.float32)
    turned = rotate(jnp.asarray(images), jnp.arange(4))
    for k in range(4):
        np.testing.assert_array_equal(turned[k], np.rot90(images[k], k))
    with pytest.raises(UserError, match=r"square config.input_size, not \(4, 5\)"):
        rotate(jnp.zeros((1, 4, 5, 3)), jnp.zeros(1, int))


def test_rotation_loss():
    image = np.random.default_rng(0).random((6, 6, 3)).astype(np.float32)
    objective = Rotation(lambda key, frame: jnp.stack([frame["image"], -frame["image"]]),
                         lambda net, images: net(images))
    batch = objective.sample({"image": image}, 0, jax.random.key(0))
    for k in range(4):
        np.testing.assert_array_equal(batch[2 * k], np.rot90(image, k))
        np.testing.assert_array_equal(batch[2 * k + 1], -np.rot90(image, k))
    blind = objective.loss(lambda x: jnp.zeros((len(x), 4)), batch, None)
    np.testing.assert_allclose(blind, np.log(4), rtol=1e-6)
    right = jnp.repeat(jnp.eye(4), 2, axis=0)  # the class of each image
    np.testing.assert_allclose(objective.loss(lambda x: 3 * right, batch, None), np.log(1 + 3 * np.exp(-3)),
                               rtol=1e-5)
    logits, labels = np.random.default_rng(1).normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), labels])
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-5)


@pytest.mark.parametrize(("size", "count"), [((128, 128), 12), ((64, 96), 4), ((100, 40), 6), ((32, 32), 1)])
def test_three_quarters_of_the_blocks_are_hidden_whole(size, count):
    hidden = np.asarray(hidden_blocks(jax.random.key(3), size))
    assert hidden.shape == (*size, 1)
    blocks = hidden[::BLOCK, ::BLOCK, 0]
    assert blocks.sum() == count
    whole = np.repeat(np.repeat(blocks, BLOCK, 0), BLOCK, 1)[: size[0], : size[1], None]
    np.testing.assert_array_equal(hidden, whole)
    if count > 1:
        assert np.any(hidden != hidden_blocks(jax.random.key(4), size))


def test_reconstruction_counts_hidden_pixels_alone():
    rng = np.random.default_rng(0)
    prediction, target = rng.random((2, 2, 4, 6, 3))
    hidden = rng.random((2, 4, 6, 1)) < 0.5
    expected = np.mean(((prediction - target) ** 2)[np.broadcast_to(hidden, target.shape)])
    np.testing.assert_allclose(masked_mse(prediction, target, hidden), expected, rtol=1e-6)
    elsewhere = np.where(hidden, prediction, 99.0)
    np.testing.assert_allclose(masked_mse(elsewhere, target, hidden), expected, rtol=1e-6)
    assert masked_mse(prediction, target, np.zeros_like(hidden)) == 0


def test_the_network_does_not_see_what_is_hidden():
    objective, _ = toy.objectives()["mae"]
    crops, hidden = objective.sample({"image": toy.Video(1).images[0]}, 0, jax.random.key(0))
    seen = []
    blind = type(objective)(None, lambda variables, images: seen.append(images) or images)
    loss = blind.loss(None, (crops, hidden), None)
    assert not np.any(np.where(hidden, seen[0], 0)) and hidden.any()
    expected = np.mean(np.square(crops)[np.broadcast_to(hidden, crops.shape)])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


class Distance:
    """Half the squared distance of one variable to a target."""

    def __init__(self, name, target):
        self.name, self.target = name, target

    def sample(self, frame, step, key):
        return self.target

    def loss(self, variables, batch, key):
        return 0.5 * (variables["params"][self.name] - batch) ** 2


def test_a_sum_weighs_its_losses_and_unites_what_is_trained():
    class Part(Plain):
        def trainable(self, path):
            return path[-1] == self.moved

    parts = []
    for name, target in (("a", 1.0), ("b", -1.0)):
        parts.append(Part(Distance(name, target)))
        parts[-1].moved = name
    variables = {"params": {"a": np.float32(3.0), "b": np.float32(2.0), "c": np.float32(5.0)}}
    problem = Problem(objective=Sum(tuple(parts), (1.0, 0.5)), context=lambda v, f: (),
                      optimizer=optax.sgd(0.1),
                      predict=lambda v, f, c: jnp.stack([v["params"][n] for n in "abc"])[None])
    once = create_strategy("mwi", steps=1, groups=1)
    [result] = Engine(problem, chunk=1).run(variables, toy.Video(1), once, jax.random.key(0))
    np.testing.assert_allclose(result.losses, [0.5 * 4 + 0.5 * 0.5 * 9])
    np.testing.assert_allclose(result.probability, [[3 - 0.1 * 2, 2 - 0.1 * 0.5 * 3, 5]], rtol=1e-6)


@pytest.mark.parametrize(("text", "message"), [
    ("dept", r"config.ttt.objective: 'dept' is not one of depth, tent_bn"),
    ("depth+entropy", r"'entropy' \(in 'depth\+entropy'\) is not one of"),
    ("-1*depth", r"'-1' in '-1\*depth' is not a positive number"),
    ("x*depth", r"'x' in .* is not a positive number"),
    ("", "'' is not one of"),
])
def test_wrong_objectives_are_told(text, message):
    with pytest.raises(UserError, match=message):
        create_objective(text, None)
