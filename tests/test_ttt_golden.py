"""Test-time training against the authors' (golden ttt_*.npz): loss, gradients, Adam, predictions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from golden import recipe
from golden_model import golden_model, load, nhwc
from parity import check

from dattt_jax import forward
from dattt_jax.convert import torch_name
from dattt_jax.ttt import Problem, adapt_step, fresh_state
from dattt_jax.ttt.objectives.depth_consistency import DepthConsistency
from dattt_jax.ttt.objectives.filters import is_image_encoder

SHAPE = (2, 3, 128, 160)
# Parameters whose gradient is mathematically zero: Adam moves them by rounding noise.
ZERO_GRADIENT = 1e-12


class Given(DepthConsistency):
    """Depth consistency on views that come with the frame."""

    def sample(self, frame, step, key):
        return frame["views"]


def gradient_probe():
    """An optimiser that is Adam and keeps the gradient it was given."""
    adam = optax.adam(1e-5)

    def update(grads, state, params):
        updates, inner = adam.update(grads, state[0], params)
        return updates, (inner, grads)

    return optax.GradientTransformation(lambda p: (adam.init(p), jax.tree.map(jnp.zeros_like, p)), update)


@pytest.mark.parametrize("backbone", [pytest.param("mit_b1", marks=pytest.mark.exact), "swin_tiny"])
def test_three_steps_equal_the_authors(backbone, request):
    if backbone == "mit_b1":
        request.getfixturevalue("optimised")  # for one of them the programs that users get
    model, variables = golden_model(backbone, "alpha+beta")
    golden = load(f"ttt_{backbone}_alpha+beta_2x128x160")
    moving = golden["grad_norm_f64"][0] > ZERO_GRADIENT

    problem = Problem(
        objective=Given(views=None, depth_logits=partial(forward.depth_of_views, model)),
        trainable=is_image_encoder, context=None, predict=None, optimizer=gradient_probe())
    state, frozen = fresh_state(problem, variables)
    start = dict(state.trainable)
    by_name = {torch_name(key).removeprefix("encoder_image."): key for key in start}
    keys = [by_name[str(name).removeprefix("encoder_image.")] for name in golden["names"]]
    assert len(keys) == len(start)
    step = jax.jit(partial(adapt_step, problem))
    for k in range(3):
        views = nhwc(np.stack(recipe.ttt_pair(k, SHAPE)))
        state, (loss, applied) = step(state, frozen, {"views": views}, jnp.int32(0), jax.random.key(0))
        assert applied
        check(f"{backbone}: TTT loss, steps 1-3", loss, golden["loss_f64"][k], rtol=2e-5)
        norms = np.array([np.linalg.norm(state.opt_state[1][key]) for key in keys])
        reference = golden["grad_norm_f64"][k]
        # After the first Adam step the noise of its normalised update reaches the gradients.
        check(f"{backbone}: TTT gradient norms, step {1 if k == 0 else '2-3'}", norms[moving],
              reference[moving], rtol=2e-4 if k == 0 else 3e-3)
        if k != 1:
            moved = np.array([np.linalg.norm(state.trainable[key] - start[key]) for key in keys])
            reference = golden[f"delta_norm_step{k + 1}_f64"]
            check(f"{backbone}: norms of the weights' change after 1 and 3 Adam steps", moved[moving],
                  reference[moving], rtol=2e-2)

    adapted = traverse_util.unflatten_dict({**frozen, **state.trainable})
    image, flow = (nhwc(x) for x in recipe.eval_input((1, *SHAPE[1:])))
    mask = jax.jit(model.apply)(adapted, image, flow)["mask"]
    check(f"{backbone}: mask logits after 3 TTT steps", mask, nhwc(golden["eval_mask_after_step3_f64"]),
          atol=1e-4 if backbone == "mit_b1" else 2e-3)


@pytest.mark.parametrize("backbone", ["mit_b1"])
def test_train_mode_depth_logits_of_both_views_equal_the_authors(backbone):
    model, variables = golden_model(backbone, "alpha+beta")
    golden = load(f"ttt_{backbone}_alpha+beta_2x128x160")
    views = nhwc(np.stack(recipe.ttt_pair(0, SHAPE)))
    depth = jax.jit(partial(forward.depth_of_views, model))(variables, views, jax.random.key(0))
    np.testing.assert_allclose(depth[0], nhwc(golden["depth_ref_step1_f64"]), atol=2e-5)
    np.testing.assert_allclose(depth[1], nhwc(golden["depth_aug_step1_f64"]), atol=2e-5)


def test_running_statistics_after_both_views_equal_the_authors():
    model, variables = golden_model("mit_b1", "alpha+beta")
    golden = load("ttt_mit_b1_alpha+beta_2x128x160")

    @jax.jit
    def update(variables, image):
        features = model.apply(variables, image, train=False, method=model.encode_image)
        _, updated = model.apply(variables, features, train=True, method=model.depth_logits,
                                 mutable=["batch_stats"])
        return {**variables, "batch_stats": {**variables["batch_stats"], **updated["batch_stats"]}}

    for view in recipe.ttt_pair(0, SHAPE):
        variables = update(variables, nhwc(view))
    stats = variables["batch_stats"]["decode_head"]["depth_head"]["linear_fuse"]["bn"]
    np.testing.assert_allclose(stats["mean"], golden["depth_bn_running_mean_step1_f64"], atol=1e-5)
    np.testing.assert_allclose(stats["var"], golden["depth_bn_running_var_step1_f64"], rtol=1e-4)
