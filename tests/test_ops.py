"""The CPU forms of convolutions against XLA's plain ones, values and gradients."""

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
    "depthwise 1×1 map": (ops.depthwise_conv3x3, lambda x, k: plain(x, k, 1, 1, groups=6), (2, 1, 1, 6),
                          (3, 3, 1, 6)),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_plain_convolution(name):
    ours, reference, x_shape, kernel_shape = CASES[name]
    x = jax.random.normal(jax.random.key(0), x_shape)
    kernel = jax.random.normal(jax.random.key(1), kernel_shape)
    weight = jax.random.normal(jax.random.key(2), reference(x, kernel).shape)

    def value_and_grads(f):
        return jax.jit(jax.value_and_grad(lambda x, k: jnp.sum(f(x, k) * weight), (0, 1)))(x, kernel)

    for a, b in zip(jax.tree.leaves(value_and_grads(ours)), jax.tree.leaves(value_and_grads(reference)),
                    strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4)
