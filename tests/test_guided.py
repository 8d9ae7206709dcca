"""Guided upsampling beside the definition, window by window, and on edges that bilinear upsampling misses."""

import jax
import numpy as np
import pytest

from dattt_jax.guided import apply_functions, linear_functions
from dattt_jax.image_ops import resize_bilinear


def random(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def window_means(maps):
    """Of [h, w, …] over 5×5 places, as far as they are inside."""
    return np.array([[maps[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean((0, 1))
                      for x in range(maps.shape[1])] for y in range(maps.shape[0])])


def test_functions_are_the_ridge_regressions_of_their_windows():
    """Each minimises the sum over a window of (a · colour + b - p)² + 0.002 · |a|²; their means are taken."""
    image, probability = 4 * random(2, 24, 36, 3) - 2, random(2, 6, 9, seed=1)
    found = jax.jit(linear_functions)(image, probability)
    for n in range(2):
        guide = np.array([[image[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean((0, 1)) for x in range(9)]
                          for y in range(6)])
        functions = np.empty((6, 9, 4))
        for y, x in np.ndindex(6, 9):
            window = np.s_[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            colours = guide[window].reshape(-1, 3).astype(float)
            p = probability[n][window].ravel().astype(float)
            design = np.concatenate([np.c_[colours, np.ones(len(p))],
                                     np.c_[np.sqrt(0.002 * len(p)) * np.eye(3), np.zeros(3)]])
            functions[y, x] = np.linalg.lstsq(design, np.r_[p, np.zeros(3)])[0]
        np.testing.assert_allclose(found[n], window_means(functions), rtol=2e-3, atol=2e-4)


def test_an_edge_is_where_the_frame_has_it():
    """Half covered places are in between in colour as in probability: the function of both is the mask."""
    mask = np.zeros((48, 64), np.float32)
    mask[13:30, 21:50] = 1  # none of the sides is where a place of the logits ends
    mask[30:44, 25:27] = mask[30:44, 37:38] = 1  # legs thinner than a place
    image = np.stack([2 * mask - 1, 0.5 - mask, np.zeros_like(mask)], axis=-1)[None]
    probability = mask.reshape(12, 4, 16, 4).mean((1, 3))[None]
    functions = linear_functions(image, probability)
    guided = apply_functions(resize_bilinear(functions, (48, 64)), image)[0]
    np.testing.assert_array_equal(guided > 0.5, mask > 0.5)
    bilinear = resize_bilinear(probability[..., None], (48, 64))[0, ..., 0]
    assert np.sum((bilinear > 0.5) != (mask > 0.5)) > 40


def test_without_colours_it_is_a_mean_of_means():
    probability = random(1, 5, 8)
    functions = linear_functions(np.full((1, 20, 32, 3), 1.5, np.float32), probability)
    np.testing.assert_allclose(functions[0, ..., :3], 0, atol=1e-4)
    np.testing.assert_allclose(functions[0, ..., 3], window_means(window_means(probability[0])), atol=2e-4)


@pytest.mark.parametrize("size", [(33, 46), (35, 45)])
def test_a_last_place_that_the_frame_cuts(size):
    """Its pixels are repeated up to a whole place."""
    image, probability = random(1, *size, 3), random(1, 9, 12, seed=1)
    whole = np.pad(image, ((0, 0), (0, 36 - size[0]), (0, 48 - size[1]), (0, 0)), mode="edge")
    np.testing.assert_array_equal(linear_functions(image, probability), linear_functions(whole, probability))
