"""The CPU forms against the plain ones, values and gradients."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dattt_jax.models import ops


def plain(x, kernel, stride, padding, groups=1):
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((padding, padding),) * 2,
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)


CASES = {
    "patch 7/4": (lambda x, k: ops.patch_conv(x, k, stride=4, padding=3),
                  lambda x, k: plain(x, k, 4, 3), (2, 17, 22, 3), (7, 7, 3, 8)),
    "patch 3/2": (lambda x, k: ops.patch_conv(x, k, stride=2, padding=1),
                  lambda x, k: plain(x, k, 2, 1), (2, 9, 12, 6), (3, 3, 6, 8)),
    "block 4": (ops.block_conv, lambda x, k: plain(x, k, 4, 0), (2, 14, 19, 6), (4, 4, 6, 8)),
    "depthwise": (ops.depthwise_conv3x3, lambda x, k: plain(x, k, 1, 1, groups=6), (2, 7, 9, 6),
                  (3, 3, 1, 6)),
    "depthwise, blocks and a rest": (ops.depthwise_conv3x3, lambda x, k: plain(x, k, 1, 1, groups=6),
                                     (2, 35, 5, 6), (3, 3, 1, 6)),
    "depthwise 1×1 map": (ops.depthwise_conv3x3, lambda x, k: plain(x, k, 1, 1, groups=6), (2, 1, 1, 6),
                          (3, 3, 1, 6)),
}


def value_and_grads(f, *arguments):
    """The sum of an output's sines, and its gradient in every argument."""
    return jax.jit(jax.value_and_grad(lambda *a: jnp.sum(jnp.sin(f(*a).astype(jnp.float32))),
                                      tuple(range(len(arguments)))))(*arguments)


def assert_close(found, expected, rtol=2e-5, atol=2e-4):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def normal(*shapes):
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("name", CASES)
def test_equals_the_plain_convolution(name):
    ours, reference, x_shape, kernel_shape = CASES[name]
    x, kernel = normal(x_shape, kernel_shape)
    assert_close(value_and_grads(ours, x, kernel), value_and_grads(reference, x, kernel))


def test_matmul_equals_the_plain_product():
    x, kernel = normal((2, 3, 5, 6), (6, 4))
    assert_close(value_and_grads(ops.matmul, x, kernel),
                 value_and_grads(lambda x, k: jnp.einsum("...c,cd->...d", x, k), x, kernel))
    assert ops.matmul(x.astype(jnp.bfloat16), kernel).dtype == jnp.bfloat16


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the CPU's form")
def test_the_gradient_of_matmul_transposes_no_map():
    def gradients(x, kernel, g):
        return jax.vjp(ops.matmul, x, kernel)[1](jnp.sin(g))

    program = jax.jit(gradients).lower(*normal((1, 64, 64, 16), (16, 32), (1, 64, 64, 32))).compile()
    assert " transpose(" not in program.as_text()


def test_gelu_and_its_gradient_are_exact():
    (x,) = normal((3, 50))
    expected = [(0.5 * v * math.erfc(-v / 2**0.5),
                 0.5 * math.erfc(-v / 2**0.5) + v * math.exp(-v * v / 2) / (2 * math.pi) ** 0.5)
                for v in x.ravel().tolist()]
    value, gradient = jax.jit(ops.gelu)(x), jax.grad(lambda x: jnp.sum(ops.gelu(x)))(x)
    assert_close((value.ravel(), gradient.ravel()), tuple(np.float32(expected).T), atol=1e-6)


@pytest.mark.parametrize("bias", [None, (3, 6, 4), (2, 1, 1, 6, 4), (1, 1)])
def test_attention_equals_the_plain_form(bias, monkeypatch):
    """Over two axes of batches, with three heads, and with biases broadcast in every way."""
    arguments = normal((2, 5, 6, 3, 8), (2, 5, 4, 3, 8), (2, 5, 4, 3, 8), *([bias] if bias else []))
    found = value_and_grads(ops.attention, *arguments)
    monkeypatch.setattr(ops, "_on_cpu", lambda: False)
    assert "custom_vjp" not in str(jax.make_jaxpr(ops.attention)(*arguments))
    assert_close(found, value_and_grads(ops.attention, *arguments), atol=1e-5)


def test_attention_in_bfloat16_keeps_its_types(monkeypatch):
    arguments = [x.astype(jnp.bfloat16) for x in normal((2, 6, 3, 8), (2, 4, 3, 8), (2, 4, 3, 8))]
    found = value_and_grads(ops.attention, *arguments)
    assert ops.attention(*arguments).dtype == jnp.bfloat16
    assert {x.dtype for x in found[1]} == {jnp.dtype(jnp.bfloat16)}
    monkeypatch.setattr(ops, "_on_cpu", lambda: False)
    expected = value_and_grads(ops.attention, *arguments)
    assert_close(*(jax.tree.map(lambda x: x.astype(jnp.float32), x) for x in (found, expected)), rtol=0.05,
                 atol=0.05)


def test_layer_norm_equals_the_plain_form(monkeypatch):
    x, scale, bias = normal((2, 3, 5, 12), (12,), (12,))
    found = value_and_grads(partial(ops.layer_norm, epsilon=1e-6), 3 * x + 2, scale, bias)
    monkeypatch.setattr(ops, "_on_cpu", lambda: False)
    assert_close(found, value_and_grads(partial(ops.layer_norm, epsilon=1e-6), 3 * x + 2, scale, bias),
                 atol=1e-5)


def test_batch_norm_equals_the_plain_form():
    def plain_form(x, scale, bias):
        mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias

    x, scale, bias = normal((2, 5, 7, 6), (6,), (6,))
    found = value_and_grads(lambda *a: ops.batch_norm(*a, 1e-5, None)[0], 3 * x + 2, scale, bias)
    assert_close(found, value_and_grads(plain_form, 3 * x + 2, scale, bias), atol=1e-5)
    _, mean, variance = ops.batch_norm(x, scale, bias, 1e-5, None)
    assert_close((mean, variance), (jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))), atol=1e-6)
