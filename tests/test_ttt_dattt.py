"""DATTT with auxiliary heads, and what the objectives ask of it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import traverse_util
from jax.extend.core import ClosedJaxpr, Jaxpr

from dattt_jax import guided
from dattt_jax.errors import UserError
from dattt_jax.forward import merge_flows, prepare
from dattt_jax.inference import Network
from dattt_jax.models import create_model
from dattt_jax.pretext import (
    auxiliary_losses,
    cross_entropy,
    hidden_blocks,
    masked_mse,
    reconstruct,
    rotate,
    rotation_logits,
)
from dattt_jax.train_step import loss_fn
from dattt_jax.ttt import adapt_step, create_objective, create_strategy, fresh_state
from dattt_jax.ttt.objectives.depth_consistency import DepthConsistency
from dattt_jax.ttt.objectives.filters import affine_of
from dattt_jax.ttt.task import Task
from dattt_jax.variables import variable_shapes

pytestmark = pytest.mark.usefixtures("tiny_backbone")

SIZE = (32, 32)
HEADS = ("rotation", "reconstruction")


def make(depth=True, heads=HEADS, drop_path=0.0):
    config = tiny.tiny_config().model
    config.depth, config.heads, config.drop_path = depth, heads, drop_path
    return create_model(config), tiny.filled(config)


def frame(seed=0):
    image, flow = np.random.default_rng(seed).integers(0, 255, (2, 40, 48, 3), dtype=np.uint8)
    return {"image": image, "flow": flow}


def random_features(height, width):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(2, -(-height // 2**i), -(-width // 2**i), c)).astype(np.float32)
                 for i, c in enumerate(tiny.SIZES.dims))


def paths(config):
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variable_shapes(config)).items()}


def test_heads_add_their_own_variables_and_no_others():
    config = tiny.tiny_config().model
    plain = paths(config)
    del config.heads  # a checkpoint from before there were heads
    assert paths(config) == plain
    config.heads = list(HEADS)  # as JSON gives it back
    more = paths(config)
    assert {path: more[path] for path in plain} == plain
    assert {path[1:]: shape for path, shape in more.items() if path not in plain} == {
        ("rotation_head", "linear", "kernel"): (32, 4), ("rotation_head", "linear", "bias"): (4,),
        ("reconstruction_head", "pixels", "kernel"): (64, 48),
        ("reconstruction_head", "pixels", "bias"): (48,),
        **{("reconstruction_head", f"scales_{i}", "kernel"): (c, 64) for i, c in enumerate(tiny.SIZES.dims)},
        **{("reconstruction_head", f"scales_{i}", "bias"): (64,) for i in range(4)}}


def test_unknown_heads_are_told():
    config = tiny.tiny_config().model
    config.heads = ("jigsaw",)
    with pytest.raises(UserError, match=r"config.model.heads: 'jigsaw' is not one of rotation, recon"):
        create_model(config)


def test_the_rotation_head_is_a_linear_map_of_the_mean_feature():
    model, variables = make()
    features = random_features(3, 5)
    head = variables["params"]["rotation_head"]["linear"]
    np.testing.assert_allclose(model.apply(variables, features, method=model.rotation_logits),
                               features[-1].mean((1, 2)) @ head["kernel"] + head["bias"],
                               rtol=1e-4, atol=1e-5)


def test_reconstruction_puts_each_patch_where_it_belongs():
    model, variables = make()
    pixels = variables["params"]["reconstruction_head"]["pixels"]
    pixels["kernel"][:], pixels["bias"][:] = 0, np.arange(48)
    out = model.apply(variables, random_features(9, 11), method=model.reconstruct)
    assert out.shape == (2, 36, 44, 3)
    np.testing.assert_array_equal(out[0, 4:8, 40:44], np.arange(48).reshape(4, 4, 3))


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    shape = (2, *SIZE)
    return {"image": rng.normal(size=(*shape, 3)).astype(np.float32),
            "flow": rng.normal(size=(*shape, 3)).astype(np.float32),
            "mask": rng.integers(0, 2, (*shape, 1)), "depth": rng.uniform(0.1, 1, (*shape, 1))}


def test_joint_training_adds_the_heads_losses_and_leaves_the_others_alone(batch):
    model, variables = make(drop_path=0.5)
    plain, _ = make(heads=(), drop_path=0.5)
    keys = jax.random.split(jax.random.key(0))

    def metrics(model):
        return jax.jit(lambda v: loss_fn(v["params"], v["batch_stats"], batch, keys, model=model,
                                         depth_weight=0.1)[1]["metrics"])(variables)

    joint, alone = metrics(model), metrics(plain)
    assert set(joint) - set(alone) == set(HEADS)
    for name in ("bce", "silog"):
        np.testing.assert_allclose(joint[name], alone[name], rtol=1e-6)
    np.testing.assert_allclose(joint["loss"], alone["loss"] + joint["rotation"] + joint["reconstruction"],
                               rtol=1e-6)


def test_a_samples_auxiliary_loss_depends_on_its_key_alone(batch):
    model, variables = make(drop_path=0.5)
    keys = jax.random.split(jax.random.key(0))
    losses = jax.jit(lambda images, keys: auxiliary_losses(model, variables, images, keys))
    whole = losses(batch["image"], keys)
    alone = [losses(batch["image"][i : i + 1], keys[i : i + 1]) for i in range(2)]
    for name in HEADS:
        np.testing.assert_allclose(whole[name], np.mean([a[name] for a in alone]), rtol=1e-5)


def test_auxiliary_losses_are_those_of_the_tasks(batch):
    model, variables = make()
    key = jax.random.key(5)
    choice = jax.random.split(key)[0]
    image = jnp.asarray(batch["image"][:1])
    turns = jax.random.randint(choice, (), 0, 4)[None]
    hidden = hidden_blocks(choice, SIZE)[None]

    @jax.jit
    def both_ways(variables):
        logits = rotation_logits(model, variables, rotate(image, turns))
        pixels = reconstruct(model, variables, jnp.where(hidden, 0.0, image))
        return (auxiliary_losses(model, variables, image, key[None]),
                {"rotation": cross_entropy(logits, turns),
                 "reconstruction": masked_mse(pixels, image, hidden)})

    found, expected = both_ways(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


@pytest.mark.parametrize("depth", [True, False])
def test_a_frames_statistics_make_evaluation_what_training_mode_is(depth):
    model, variables = make(depth, ())
    task = Task(model, SIZE, 2)
    shown = jax.tree.map(jnp.asarray, frame())

    @jax.jit
    def all_ways(variables):
        statistics = task.biased_statistics(variables, shown)
        ready = traverse_util.unflatten_dict({**traverse_util.flatten_dict(variables), **statistics})
        image, flow = (prepare(shown[name][None], SIZE) for name in ("image", "flow"))
        return (statistics, task.statistics(variables, shown), model.apply(ready, image, flow),
                task.train_mode_mask_logits(variables, shown))

    statistics, unbiased, evaluated, trained = all_ways(variables)
    [mean, var] = sorted(statistics)
    assert "depth_head" not in mean and mean[-1] == "mean" and var[-1] == "var"
    np.testing.assert_allclose(evaluated["mask"], trained, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unbiased[var], statistics[var] * 64 / 63, rtol=1e-6)


def test_the_filters_find_the_networks_layers():
    _, variables = make()
    params = [path for path in traverse_util.flatten_dict(variables) if path[0] == "params"]
    batch_norms = [path for path in params if affine_of("bn")(path)]
    assert sorted({path[1:-1] for path in batch_norms}) == [
        ("decode_head", "depth_head", "linear_fuse", "bn"), ("decode_head", "vos_head", "linear_fuse", "bn")]
    both = {path[:-1] for path in params if affine_of("bn", "norm")(path)}
    layer_norms = {path[:-1] for path in params if path[-1] == "scale"}
    assert both == layer_norms  # every scale is a norm's; the biases of linear layers are none of them
    assert all({"scale", "bias"} == {path[-1] for path in params if path[:-1] == layer} for layer in both)


def test_tent_moves_the_mask_decoders_batch_norm_by_nothing_else():
    """The depth decoder's BatchNorm is trained too, but the mask does not depend on it: exactly zero."""
    model, variables = make(heads=())
    config = tiny.tiny_config().ttt
    config.objective, config.steps, config.learning_rate = "tent_bn", 2, 0.01
    engine = Network(model, variables, SIZE).engine(config, adapts=True)
    states = []

    class Video:
        def __len__(self):
            return 1

        def read(self, indices):
            return {name: array[None] for name, array in frame().items()}

    [result] = engine.run(variables, Video(), create_strategy("mwi", steps=2, groups=1), jax.random.key(0),
                          on_progress=lambda p: states.append(jax.device_get(p.state.trainable)))
    assert result.losses[1] < result.losses[0]
    source = traverse_util.flatten_dict(variables)
    for path, value in states[-1].items():
        assert np.all(value == source[path]) if "depth_head" in path else np.all(value != source[path])


def test_self_training_is_taught_by_all_flows_and_sees_one():
    model, variables = make()
    task = Task(model, SIZE, 2)
    objective = create_objective("self_training", task)
    one, two = frame(0), frame(1)
    several = one | {"flow": np.stack([one["flow"], two["flow"]])}
    logits = jax.jit(task.mask_logits)
    alone = [logits(variables, one | {"flow": flow})[0] for flow in several["flow"]]
    label = jax.jit(objective.label)(variables, several)
    np.testing.assert_allclose(label, merge_flows(np.stack(alone)), rtol=1e-4, atol=1e-5)
    assert np.abs(alone[0] - label).max() > 1e-4
    looks = jax.jit(create_objective("self_training", Task(model, SIZE, 2, look=1)).label)(variables, several)
    np.testing.assert_allclose(looks, np.minimum(*alone), rtol=1e-4, atol=1e-5)
    guided_task = Task(model, SIZE, 2, upsampling="guided")
    guided_label = jax.jit(create_objective("self_training", guided_task).label)(variables, several)
    refined = guided.refine(prepare(several["image"][None], SIZE), jax.nn.sigmoid(label[None, ..., 0]))[0]
    np.testing.assert_allclose(jax.nn.sigmoid(guided_label[..., 0]), refined, atol=1e-5)
    assert np.std(refined - jax.nn.sigmoid(label[..., 0])) > 3e-4
    chosen = set()
    for seed in range(6):
        view, target = objective.sample(several | {"label": label}, np.int32(0), jax.random.key(seed))
        assert target is label
        assert view["image"].shape == one["image"].shape
        chosen.add(next(i for i in range(2) if (view["flow"] == several["flow"][i]).all()))
    assert chosen == {0, 1}


def test_the_monitors_view_keeps_every_pixel_in_its_place():
    model, _ = make(heads=())
    problem = Task(model, SIZE, 2).problem(create_objective("depth", Task(model, SIZE, 2)), 1e-5)
    shown = frame()
    seen = [jax.device_get(problem.view(shown, jax.random.key(k))) for k in range(6)]
    assert any(np.any(view["image"] != shown["image"]) for view in seen)
    for view in seen:
        np.testing.assert_array_equal(view["flow"], shown["flow"])
        brighter, darker = (view["image"].sum(-1)[shown["image"].sum(-1) > 500].mean(),
                            view["image"].sum(-1)[shown["image"].sum(-1) < 200].mean())
        assert brighter > darker


@pytest.mark.parametrize(("text", "depth", "heads", "message"), [
    ("depth", False, (), "config.ttt.objective='depth' needs the depth decoder"),
    ("0.5*depth + bn", False, (), "needs the depth decoder"),
    ("mae", True, ("rotation",), "'mae' needs the head 'reconstruction'"),
])
def test_what_the_network_has_not_is_told(text, depth, heads, message):
    model, variables = make(depth, heads)
    config = tiny.tiny_config().ttt
    config.objective = text
    network = Network(model, variables, SIZE)
    with pytest.raises(UserError, match=message):
        network.engine(config, adapts=True)
    network.engine(config, adapts=False)


def test_curves_and_policies_exclude_each_other():
    config = tiny.tiny_config().ttt
    config.policy = "reset"
    with pytest.raises(UserError, match=r"config.ttt.policy='reset' judges frames"):
        Network(*make(heads=()), SIZE).engine(config, adapts=True, per_step=True)


def test_frozen_parts_get_no_weight_gradients():
    """A step's gradients are those of differentiating everything, without the work of the decoder's own."""
    model, variables = make(heads=(), drop_path=0.5)
    task, crops = Task(model, SIZE, 2), 2 * 2
    views = np.random.default_rng(2).normal(size=(2, 2, *SIZE, 3)).astype(np.float32)
    objective = DepthConsistency(lambda key, frame: views, task.depth_logits)
    # An optimiser whose state after a step is the step's gradients.
    keep = optax.GradientTransformation(lambda params: params, lambda grads, state, params: (grads, grads))
    problem = dataclasses.replace(task.problem(objective, 1e-5), optimizer=keep)
    step, key = np.int32(3), jax.random.key(0)

    def everything(variables):
        _, loss_key = jax.random.split(jax.random.fold_in(key, step))
        return jax.grad(objective.loss)(variables, views, loss_key)

    def of_a_step(state, frozen):
        return adapt_step(problem, state, frozen, {}, step, key)[0].opt_state

    whole = jax.jit(everything).trace(variables)
    state, frozen = fresh_state(problem, variables)
    ours = jax.jit(of_a_step).trace(state, frozen)
    found, expected = (program.lower().compile()(*arguments) for program, arguments
                       in ((ours, (state, frozen)), (whole, (variables,))))
    expected = traverse_util.flatten_dict(expected)
    assert set(found) == {path for path in expected if path[:2] == ("params", "encoder_image")}
    scale = max(float(jnp.max(jnp.abs(gradient))) for gradient in found.values())
    for path, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[path], rtol=1e-3, atol=1e-5 * scale)
    # At the least: features · gradient, the product that gives a scale's kernel, at strides 4, 8, 16 and 32.
    weights = sum(2 * crops * (SIZE[0] >> i) * (SIZE[1] >> i) * channels * model.decoder_features
                  for i, channels in enumerate(tiny.SIZES.dims, 2))
    assert product_flops(whole.jaxpr) - product_flops(ours.jaxpr) >= weights


def product_flops(jaxpr):
    """Of all matrix products, those of inner functions and loops' bodies (once) among them."""
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            rows = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * equation.outvars[0].aval.size * rows
        total += sum(product_flops(inner) for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr))
            if isinstance(inner, Jaxpr | ClosedJaxpr))
    return total
