"""Losses against closed forms and the authors' SILog (golden silog.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_model import load
from parity import check

from dattt_jax.losses import binary_cross_entropy, silog, soft_jaccard


def test_binary_cross_entropy_is_the_log_likelihood_and_never_overflows():
    logits = jnp.array([0.0, 2.0, -3.0, 500.0, -500.0])
    target = jnp.array([1.0, 0.0, 0.25, 1.0, 0.0])
    p = 1 / (1 + np.exp(-np.array([0.0, 2.0, -3.0])))
    t = np.array([1.0, 0.0, 0.25])
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum() / 5
    np.testing.assert_allclose(binary_cross_entropy(logits, target), expected, rtol=1e-6)


def test_soft_jaccard_is_that_of_hard_masks_and_every_object_counts_the_same():
    # Intersections 2, 1 and 0 of unions 4, 1 and 3; the fourth image has no object and costs nothing.
    target = jnp.zeros((4, 4, 4, 1)).at[0, 0, :3].set(1).at[1, 0, 0].set(1).at[2, 2, :2].set(1)
    predicted = jnp.zeros((4, 4, 4, 1)).at[0, 0, 1:].set(1).at[1, 0, 0].set(1).at[2, 3, 3].set(1).at[3].set(1)
    loss, gradient = jax.value_and_grad(soft_jaccard)(40 * predicted - 20, target)
    np.testing.assert_allclose(loss, (1 - 2 / 4 + 1 - 1 / 1 + 1 - 0 / 3) / 4, atol=1e-6)
    np.testing.assert_array_equal(gradient[3], 0)


def test_soft_jaccard_of_an_unsure_network():
    # p = 1/2 everywhere: intersection t/2, union 16/2 + t/2.
    target = jnp.zeros((1, 4, 4, 1)).at[0, 0].set(1)
    loss, gradient = jax.value_and_grad(soft_jaccard)(jnp.zeros((1, 4, 4, 1)), target)
    np.testing.assert_allclose(loss, 1 - 2 / 10, rtol=1e-6)
    # d(1 - I/U) = -(1/U)·p(1-p) inside, I/U²·p(1-p) outside.
    expected = np.where(target, -1 / 40, 2 / 100 / 4)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


CASES = ("plain", "masked30", "bicubic_overshoot", "close", "tiny_pred", "two_valid")


@pytest.mark.parametrize("case", CASES)
def test_silog_and_its_gradients_equal_the_authors(case):
    golden = load("silog")
    pred, target = golden[f"{case}/pred"], golden[f"{case}/target"]
    loss, (d_pred, d_target) = jax.jit(jax.value_and_grad(silog, (0, 1)))(pred, target)
    check("SILog", loss, golden[f"{case}/loss_f64"], rtol=2e-5)
    for ours, name in ((d_pred, "pred"), (d_target, "target")):
        reference = golden[f"{case}/grad_{name}_f64"]
        np.testing.assert_allclose(ours, reference, rtol=1e-3, atol=2e-5 * np.abs(reference).max())


@pytest.mark.parametrize("case", ["identical", "single_valid", "all_masked"])
def test_silog_where_the_authors_skip_or_get_nan_is_zero_with_zero_gradient(case):
    golden = load("silog")
    pred, target = golden[f"{case}/pred"], golden[f"{case}/target"]
    loss, gradients = jax.value_and_grad(silog, (0, 1))(pred, target)
    assert loss == 0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


def test_silog_of_a_constant_factor():
    # g is constant: no variance, sqrt(0.15) · |mean| remains.
    target = jnp.linspace(0.5, 1.0, 64)
    pred = (target + 1e-3) * 2 - 1e-3
    np.testing.assert_allclose(silog(pred, target), 0.15**0.5 * np.log(2), rtol=1e-5)
