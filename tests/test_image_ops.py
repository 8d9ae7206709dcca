"""Resizes against PyTorch's and Pillow's recorded results, JAX's own resize, and closed forms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import recipe

from dattt_jax import image_ops

GEOMETRY = np.load(Path(__file__).parent / "golden" / "geometry.npz")


def _nhwc(array):
    return np.transpose(array, (0, 2, 3, 1))


def _jax_resize(image, size):
    shape = (*image.shape[:-3], *size, image.shape[-1])
    return jax.image.resize(image, shape, "bilinear", antialias=False)


def _cropped_to_all(image, size, kernel):
    """Both axes resized by the taps of a crop that is the whole."""
    for axis, out_size in enumerate(size):
        in_size = image.shape[axis]
        image = image_ops.resample(image, image_ops.crop_taps(out_size, in_size, kernel, out_size, 0), axis)
    return image


def _normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_normalize_is_zero_at_the_mean_and_one_a_deviation_above():
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = np.stack([255 * mean, 255 * (mean + std)])[None].astype(np.float32)
    np.testing.assert_allclose(
        image_ops.normalize(jnp.asarray(image))[0], [[0] * 3, [1] * 3], atol=1e-6)
    white = image_ops.normalize(jnp.full((2, 2, 3), 255, jnp.uint8))
    assert white.dtype == jnp.float32
    np.testing.assert_allclose(white[0, 0], (1 - mean) / std, rtol=1e-6)


@pytest.mark.parametrize("size", [(128, 128), (64, 48)])
def test_bilinear_frames_equal_torch(size):
    golden = GEOMETRY[f"interp_120x214_to_{size[0]}x{size[1]}"]
    result = image_ops.resize_bilinear(jnp.asarray(_nhwc(GEOMETRY["interp_in_norm"])), size)
    np.testing.assert_allclose(result, _nhwc(golden), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name, size", [("120x214", (120, 214)), ("128", (128, 128))])
def test_bilinear_logits_equal_torch(name, size):
    logits = jnp.asarray(_nhwc(recipe.field("interp_logits", (2, 1, 32, 32), cell=4)))
    result = image_ops.resize_bilinear(logits, size)
    golden = _nhwc(GEOMETRY[f"interp_logits_32_to_{name}"])
    np.testing.assert_allclose(result, golden, rtol=0, atol=1e-6)


def test_bicubic_depth_equals_torch():
    depth = jnp.asarray(recipe.frame("train_tf_depth", 120, 214)[:, :, :1] / 255, jnp.float32)
    result = _cropped_to_all(depth, (96, 96), "bicubic")
    golden = GEOMETRY["train_depth_bicubic_96"][0]
    # PyTorch rounds positions to float32, and these are exact: up to 5e-6.
    np.testing.assert_allclose(result[..., 0], golden, rtol=0, atol=1e-5)


def test_bicubic_step_overshoots_unclamped_in_closed_form():
    step = jnp.asarray([0.0, 0, 0, 1, 1, 1]).reshape(1, 6, 1)
    row = _cropped_to_all(step, (1, 12), "bicubic")[0, :, 0]
    far, near = 0.10546875, 0.03515625  # what Keys' kernel takes away at distances 1.25 and 1.75
    own = 0.26171875 - near  # of pixel 6's four taps, the two on the far side of the step
    expected = [0, 0, 0, -near, -far, own, 1 - own, 1 + far, 1 + near, 1, 1, 1]
    np.testing.assert_allclose(row, expected, atol=1e-6)


def test_nearest_mask_equals_pillow():
    mask = jnp.asarray(recipe.blobs("train_tf", 120, 214)[:, :, None])
    result = _cropped_to_all(mask, (96, 96), "nearest")
    np.testing.assert_array_equal(result[..., 0], GEOMETRY["train_gt_96"] > 0)


def test_crops_and_whole_frames_are_resized_alike():
    image = _normal((20, 11, 1))
    np.testing.assert_allclose(_cropped_to_all(image, (33, 7), "bilinear"),
                               image_ops.resize_bilinear(image, (33, 7)), atol=1e-5)


def test_bilinear_doubling_in_closed_form():
    row = image_ops.resize_bilinear(jnp.asarray([[[0.0], [4.0]]]), (1, 4))
    np.testing.assert_array_equal(row[0, :, 0], [0, 1, 3, 4])


SIZES = [((4, 5), (8, 10)), ((4, 5), (32, 40)), ((3, 3), (9, 21)), ((1, 1), (4, 2)),
         ((2, 1), (4, 3)), ((4, 7), (11, 9)), ((8, 6), (8, 12)), ((9, 11), (4, 5)),
         ((5, 4), (5, 4))]


@pytest.mark.parametrize("in_size, out_size", SIZES)
def test_bilinear_and_its_gradient_equal_jax(in_size, out_size):
    image, gradient = _normal((2, *in_size, 3)), _normal((2, *out_size, 3), seed=1)
    expected, expected_vjp = jax.vjp(lambda x: _jax_resize(x, out_size), image)
    result, vjp = jax.vjp(lambda x: image_ops.upsample_bilinear(x, out_size), image)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    np.testing.assert_allclose(vjp(gradient)[0], expected_vjp(gradient)[0], atol=1e-5)


def test_resizes_work_under_jit_vmap_and_without_batch_axes():
    image = _normal((3, 4, 5, 2))
    expected = image_ops.resize_bilinear(image, (7, 10))
    mapped = jax.jit(jax.vmap(lambda x: image_ops.resize_bilinear(x, (7, 10))))(image)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


@pytest.mark.parametrize("dtype, expected", [(jnp.bfloat16, jnp.bfloat16),
                                             (jnp.uint8, jnp.float32)])
def test_resize_keeps_float_dtypes_and_widens_integers(dtype, expected):
    image = jnp.full((4, 4, 1), 7, dtype)
    for size in ((8, 8), (5, 3)):
        result = image_ops.resize_bilinear(image, size)
        assert result.dtype == expected
        np.testing.assert_array_equal(result.astype(jnp.float32), np.full((*size, 1), 7))


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic"])
def test_taps_of_an_unresized_crop_are_the_pixels_themselves(kernel):
    taps = image_ops.crop_taps(5, 12, kernel, 12, 4)
    column = jnp.arange(12.0) ** 2
    np.testing.assert_array_equal(image_ops.resample(column, taps, 0), column[4:9])


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic"])
def test_a_crop_is_a_part_of_the_whole_resize_without_recompiling(kernel):
    image = _normal((20, 1, 1))
    crop = jax.jit(lambda size, offset: image_ops.resample(
        image, image_ops.crop_taps(8, 20, kernel, size, offset), 0))
    for size, offset in ((20, 12), (33, 0), (17, 9)):
        whole = _cropped_to_all(image, (size, 1), kernel)
        np.testing.assert_allclose(crop(size, offset), whole[offset:offset + 8], atol=1e-5)
    assert crop._cache_size() == 1
