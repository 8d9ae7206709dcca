"""The decoders' folded, per-scale forms against the published ones: upsample, concatenate, convolve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dattt_jax.models.decoder import SegFormerHead
from dattt_jax.models.modulation import MODULATIONS, DepthAwareHead

CHANNELS, WIDTH = (4, 6, 8, 10), 12
SIZES = ((16, 24), (8, 12), (4, 6), (2, 3))


def features():
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, (2, *s, c)) for k, s, c in zip(keys, SIZES, CHANNELS, strict=True)]


def published(params, stats, maps, train):
    """SegFormer's decoder as its paper writes it."""
    up = []
    for i, x in enumerate(maps, 1):
        p = params[f"linear_c{i}"]["proj"]
        x = x @ p["kernel"] + p["bias"]
        up.append(jax.image.resize(x, (2, *SIZES[0], WIDTH), "bilinear", antialias=False))
    x = jnp.concatenate(up[::-1], axis=-1) @ params["linear_fuse"]["conv"]["kernel"]
    bn = params["linear_fuse"]["bn"]
    mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (stats["mean"], stats["var"])
    x = jax.nn.relu((x - mean) / jnp.sqrt(var + 1e-5) * bn["scale"] + bn["bias"])
    return x @ params["linear_pred"]["kernel"] + params["linear_pred"]["bias"]


def redrawn(variables):
    """Not the zeros and ones of the initialisation, which would hide a forgotten bias."""
    leaves, treedef = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [0.5 + jax.random.uniform(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, leaves)


@pytest.fixture(scope="module")
def head_and_variables():
    head = SegFormerHead(CHANNELS, WIDTH)
    return head, redrawn(head.init(jax.random.key(1), features(), train=False))


def folded(head, variables, maps, train):
    return head.apply(variables, maps, train=train)


def unfolded(head, variables, maps, train):
    return head.apply(variables, maps, train, method=lambda m, x, t: m.predict(m.fuse(m.project(x)), train=t))


def assert_equal_with_gradients(ours, reference, *arguments):
    def value_and_grads(f):
        weight = jax.random.normal(jax.random.key(3), jax.eval_shape(f, *arguments).shape)
        return jax.jit(jax.value_and_grad(lambda *a: jnp.sum(f(*a) * weight), tuple(range(len(arguments)))))(
            *arguments)

    np.testing.assert_allclose(ours(*arguments), reference(*arguments), rtol=1e-4, atol=1e-4)
    for a, b in zip(jax.tree.leaves(value_and_grads(ours)), jax.tree.leaves(value_and_grads(reference)),
                    strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("form", [folded, unfolded])
@pytest.mark.parametrize("train", [False, True])
def test_equals_the_published_form(head_and_variables, form, train):
    head, variables = head_and_variables
    stats = variables["batch_stats"]["linear_fuse"]["bn"]

    def ours(params, maps):
        return form(head, {**variables, "params": params}, maps, train)

    def reference(params, maps):
        return published(params, stats, maps, train)

    assert_equal_with_gradients(ours, reference, variables["params"], features())


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_modulation_equals_the_form_that_concatenates(modulation):
    width = 7  # of the four scales two have fewer channels and two more
    head = DepthAwareHead(CHANNELS, modulation, width)
    image, fused = features(), [jnp.sin(3 * x) for x in features()]

    def all_maps(head, image, fused):
        return (head.predict_depth(head.fuse_depth(image), train=False),
                head.predict_mask(head.fuse_mask(image, fused), train=False))

    variables = redrawn(head.init(jax.random.key(1), image, fused, method=all_maps))

    def ours(params, image, fused):
        return head.apply({**variables, "params": params}, image, fused, method=head.fuse_mask)

    def reference(params, image, fused):
        def linear(layer, x):
            return x @ layer["kernel"] + layer["bias"]

        masks = []
        for scale, (depth, mask) in enumerate(zip(image, fused, strict=True), 1):
            depth, mask = (linear(params[name][f"linear_c{scale}"]["proj"], x)
                           for name, x in (("depth_head", depth), ("vos_head", mask)))
            x = jnp.concatenate([depth, mask], -1)
            if modulation == "alpha+beta":
                x = jax.nn.relu(linear(params[f"shared{scale}_0"], x))
            if "alpha" in modulation:
                mask = linear(params[f"alpha{scale}"], x) * mask
            if "beta" in modulation:
                mask = mask + linear(params[f"beta{scale}"], x)
            masks.append(jax.image.resize(mask, (2, *SIZES[0], width), "bilinear", antialias=False))
        return jnp.concatenate(masks[::-1], -1) @ params["vos_head"]["linear_fuse"]["conv"]["kernel"]

    # Of mixed signs, so that the ReLU lets some through and some not.
    params = jax.tree.map(lambda x: x - 1, variables["params"])
    assert_equal_with_gradients(ours, reference, params, image, fused)


def test_running_statistics_are_torchs(head_and_variables):
    head, variables = head_and_variables
    _, updated = head.apply(variables, features(), train=True, mutable=["batch_stats"])
    old, new = (v["batch_stats"]["linear_fuse"]["bn"] for v in (variables, updated))
    params = variables["params"]
    up = []
    for i, x in enumerate(features(), 1):
        p = params[f"linear_c{i}"]["proj"]
        up.append(jax.image.resize(x @ p["kernel"] + p["bias"], (2, *SIZES[0], WIDTH), "bilinear",
                                   antialias=False))
    x = np.asarray(jnp.concatenate(up[::-1], -1) @ params["linear_fuse"]["conv"]["kernel"], np.float64)
    x = x.reshape(-1, WIDTH)
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * x.var(0, ddof=1), rtol=1e-3)
