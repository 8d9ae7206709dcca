"""The decoder's per-scale form against the published one: upsample, concatenate, convolve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dattt_jax.models.decoder import SegFormerHead

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


@pytest.fixture(scope="module")
def head_and_variables():
    head = SegFormerHead(CHANNELS, WIDTH)
    variables = head.init(jax.random.key(1), features(), train=False)
    # Not the zeros and ones of the initialisation, which would hide a forgotten bias.
    leaves, treedef = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [0.5 + jax.random.uniform(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return head, jax.tree.unflatten(treedef, leaves)


def folded(head, variables, maps, train):
    return head.apply(variables, maps, train=train)


def unfolded(head, variables, maps, train):
    return head.apply(variables, maps, train, method=lambda m, x, t: m.predict(m.fuse(m.project(x)), train=t))


@pytest.mark.parametrize("form", [folded, unfolded])
@pytest.mark.parametrize("train", [False, True])
def test_equals_the_published_form(head_and_variables, form, train):
    head, variables = head_and_variables
    stats = variables["batch_stats"]["linear_fuse"]["bn"]

    def ours(params, maps):
        return form(head, {**variables, "params": params}, maps, train)

    def reference(params, maps):
        return published(params, stats, maps, train)

    def value_and_grads(f):
        weight = jax.random.normal(jax.random.key(3), (2, *SIZES[0], 1))
        return jax.jit(jax.value_and_grad(lambda p, m: jnp.sum(f(p, m) * weight), (0, 1)))(
            variables["params"], features())

    np.testing.assert_allclose(ours(variables["params"], features()),
                               reference(variables["params"], features()), rtol=1e-4, atol=1e-4)
    for a, b in zip(jax.tree.leaves(value_and_grads(ours)), jax.tree.leaves(value_and_grads(reference)),
                    strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


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
