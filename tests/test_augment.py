"""Augmentation against the original's recorded results, and the statistics of what is drawn."""

import random
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import recipe

from dattt_jax import augment

_GOLDEN = Path(__file__).parent / "golden"
PMD = np.load(_GOLDEN / "pmd.npz")
GEOMETRY = np.load(_GOLDEN / "geometry.npz")
SEQUENCE = np.load(_GOLDEN / "aug_sequence.npz")

_apply_photometric = jax.jit(augment.apply_photometric)
_apply_crops = jax.jit(augment.apply_crops, static_argnums=2)
_ttt_views = jax.jit(augment.ttt_views, static_argnums=(2, 3))


def _params(amounts, uniforms, batch_size, hue):
    """Parameters from the original's amounts and from its uniform numbers in the order drawn."""
    uniforms = list(uniforms)

    def coins():
        return jnp.asarray([uniforms.pop(0) < 0.5 for _ in range(batch_size)])

    brightness = coins()
    first = uniforms.pop(0) < 0.5
    contrast = coins() if first else None
    saturation = coins()
    hues = coins() if hue else None
    contrast = contrast if first else coins()
    assert not uniforms
    return augment.PhotometricParams(
        *(jnp.float32(amount) for amount in amounts[:3]), jnp.int32(amounts[3]) if hue else None,
        brightness, contrast, saturation, hues, jnp.asarray(first))


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation", "hue"])
def test_single_operations_equal_the_original_exactly(operation):
    adjust = jax.jit(getattr(augment, f"adjust_{operation}"))
    for i, amount in enumerate(PMD[f"{operation}_params"]):
        amount = jnp.asarray(amount, jnp.int32 if operation == "hue" else jnp.float32)
        np.testing.assert_array_equal(adjust(PMD["image"], amount), PMD[f"{operation}_{i}"])
    assert adjust._cache_size() == 1


def test_bgr_to_hsv_equals_opencv_exactly():
    b, g, r = np.moveaxis(PMD["hsv_in_rgb"].astype(np.int32), -1, 0)
    hsv = jnp.stack(jax.jit(augment._bgr_to_hsv)(b, g, r), axis=-1)
    np.testing.assert_array_equal(hsv, PMD["hsv_bgr2hsv"])


@pytest.mark.usefixtures("optimised")
def test_hsv_to_bgr_equals_opencv_exactly():
    h, s, v = np.moveaxis(PMD["hsv_in_hsv"].astype(np.int32), -1, 0)
    bgr = jnp.stack(jax.jit(augment._hsv_to_bgr)(h, s, v), axis=-1)
    np.testing.assert_array_equal(bgr, PMD["hsv_hsv2bgr"])


def _fused_hsv_to_bgr(h, s, v):
    """OpenCV's float32 operations, each rounded once; float64 holds the fused products exactly."""
    f32 = np.float32
    s, v = s.astype(f32) * f32(1 / 255), v.astype(f32) * f32(1 / 255)
    h = h.astype(f32) * f32(6 / 180)
    sector = np.floor(h).astype(int)
    f = h - sector.astype(f32)
    f = np.where(sector % 2 == 1, f, f32(1) - f)
    fused = (1 - s.astype(np.float64) * f.astype(np.float64)).astype(f32)
    low, middle, high = (np.floor(x * f32(255)).astype(int) for x in (v * (1 - s), v * fused, v))
    return (np.choose(sector, (low, low, middle, high, high, middle)),
            np.choose(sector, (middle, high, high, middle, low, low)),
            np.choose(sector, (high, middle, low, low, middle, high)))


@pytest.mark.usefixtures("optimised")
def test_hsv_to_bgr_for_every_saturation_and_value():
    h, s, v = np.meshgrid(np.arange(1, 180, 7), np.arange(256), np.arange(256), indexing="ij")
    result = jax.jit(augment._hsv_to_bgr)(h, s, v)
    np.testing.assert_array_equal(np.stack(result), np.stack(_fused_hsv_to_bgr(h, s, v)))


# In chain 4 the coin for the place of contrast is exactly 0.5, where the original skips contrast.
@pytest.mark.parametrize("chain", [0, 1, 2, 3, 5, 6, 7])
def test_chains_equal_the_original_exactly(chain):
    kind, amounts, uniforms = re.fullmatch(
        r"(\w+) \((.*)\) uniforms=\[(.*)\] leftover=\[\]", str(PMD[f"chain_{chain}_spec"])).groups()
    amounts, uniforms = ([float(x) for x in text.split(",")] for text in (amounts, uniforms))
    params = _params(amounts, uniforms, 1, hue=kind == "train")
    result = _apply_photometric(PMD["image"][None], params)[0]
    np.testing.assert_array_equal(result, PMD[f"chain_{chain}"])


@pytest.mark.parametrize("kind", ["test", "train"])
def test_batches_equal_the_original_exactly(kind):
    frames = np.stack([recipe.frame(f"pmd_batch{i}", 48, 64) for i in range(8)])
    params = _params(PMD[f"batch_{kind}_params"], PMD[f"batch_{kind}_uniforms"], 8,
                     hue=kind == "train")
    np.testing.assert_array_equal(_apply_photometric(frames, params), PMD[f"batch_{kind}_seed0"])


def _one_crop(flip, size, top_left):
    return augment.Crops(jnp.asarray([flip]), jnp.asarray([size], jnp.int32),
                         jnp.asarray([top_left], jnp.int32))


@pytest.mark.parametrize("case", ["a", "b", "c", "d", "full"])
def test_crops_equal_opencv_but_for_ties(case):
    frame = recipe.frame(f"geo_{case}", *GEOMETRY[f"{case}_frame_hw"])
    crop_size = (int(GEOMETRY[f"{case}_inp"]),) * 2
    golden = GEOMETRY[f"{case}_crop"].astype(int)
    crop = _one_crop(False, GEOMETRY[f"{case}_hw"], GEOMETRY[f"{case}_topleft"])
    result = np.asarray(_apply_crops(frame, crop, crop_size))[0]
    assert result.dtype == np.uint8
    difference = np.abs(result - golden)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4
    flipped = _one_crop(True, GEOMETRY[f"{case}_hw"], GEOMETRY[f"{case}_topleft"])
    mirrored = np.asarray(_apply_crops(frame[:, ::-1], flipped, crop_size))[0]
    np.testing.assert_array_equal(mirrored, result)


def test_ttt_sequence_equals_the_original_but_for_ties_of_the_cubic_resize():
    """The original's generators seeded with 0, three steps: crops, then the two distortions."""
    frame = recipe.frame("ttt_aug", 120, 214)
    python, numpy = random.Random(0), np.random.RandomState(0)
    for step in range(3):
        rows = []
        for _ in range(8):
            flip = python.random() < 0.5
            size = [python.randint(100, 144), python.randint(100, 144)]
            rows.append((flip, size, [numpy.randint(0, side - 96 + 1) for side in size]))
        crops = augment.Crops(*(jnp.asarray(column) for column in zip(*rows, strict=True)))
        images = _apply_crops(frame, crops, (96, 96))
        if step == 0:
            wrong = np.abs(np.asarray(images).astype(int) - SEQUENCE["seq_step0_geometry"])
            assert wrong.max() <= 1 and (wrong > 0).mean() < 2e-4
        for view, name in enumerate(("image", "aug")):
            amounts = [python.uniform(-32, 32), python.uniform(0.5, 1.5),
                       python.uniform(0.5, 1.5), python.randint(-18, 18)]
            np.testing.assert_allclose(amounts, SEQUENCE[f"seq_step{step}_params"][view])
            params = _params(amounts, numpy.uniform(size=25), 8, hue=False)
            result = np.asarray(_apply_photometric(images, params)).astype(int)
            wrong = np.abs(result - SEQUENCE[f"seq_step{step}_{name}"])
            # A pixel off by one before the way through 8-bit HSV can be a few levels off after it.
            assert wrong.max() <= 6 and (wrong > 0).mean() < 4e-4


def test_drawn_photometric_amounts_and_coins():
    params = jax.vmap(lambda k: augment.draw_photometric(k, 4, hue=True))(
        jax.random.split(jax.random.key(0), 2000))
    for amount, low, high in ((params.brightness, -32, 32), (params.contrast, 0.5, 1.5),
                              (params.saturation, 0.5, 1.5)):
        span = high - low
        assert low <= amount.min() < low + 0.01 * span
        assert high - 0.01 * span < amount.max() <= high
        # Four standard errors of the mean of a uniform variable.
        assert abs(amount.mean() - (low + high) / 2) < 4 * span / np.sqrt(12 * 2000)
    np.testing.assert_array_equal(np.unique(params.hue), np.arange(-18, 19))
    coins = [params.apply_brightness, params.apply_contrast, params.apply_saturation,
             params.apply_hue]
    flat = np.stack([np.asarray(c).ravel() for c in coins] +
                    [np.repeat(params.contrast_first, 4)]).astype(float)
    assert np.all(np.abs(flat.mean(axis=1) - 0.5) < 4 * 0.5 / np.sqrt(2000))
    assert np.all(np.abs(np.corrcoef(flat) - np.eye(5)) < 0.06)
    per_image = np.concatenate([np.asarray(c) for c in coins], axis=1).T.astype(float)
    assert np.all(np.abs(np.corrcoef(per_image) - np.eye(16)) < 0.1)


def test_without_hue_nothing_of_it_is_drawn():
    params = augment.draw_photometric(jax.random.key(0), 2, hue=False)
    assert params.hue is None and params.apply_hue is None


def test_drawn_crops_reach_their_ranges_and_stay_inside():
    crops = augment.draw_crops(jax.random.key(1), 4000, (20, 40))
    for axis, low, high, crop in ((0, 21, 30, 20), (1, 42, 60, 40)):
        size, start = np.asarray(crops.resized_size[:, axis]), np.asarray(crops.top_left[:, axis])
        np.testing.assert_array_equal(np.unique(size), np.arange(low, high + 1))
        for side in range(low, high + 1):
            starts = np.unique(start[size == side])
            np.testing.assert_array_equal(starts, np.arange(side - crop + 1))
    assert abs(np.corrcoef(crops.resized_size.T)[0, 1]) < 0.07
    assert abs(float(crops.flip.mean()) - 0.5) < 4 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("size, low, high", [(512, 537, 768), (96, 100, 144)])
def test_crop_sizes_have_the_original_ranges(size, low, high):
    sizes = augment.draw_crops(jax.random.key(2), 6000, (size, size)).resized_size
    assert (int(sizes.min()), int(sizes.max())) == (low, high)


def test_ttt_views_show_the_same_crops_in_other_colours_without_recompiling():
    frame, before = recipe.frame("views", 40, 60), _ttt_views._cache_size()
    results = [np.asarray(_ttt_views(jax.random.key(i), frame, 8, (32, 24))) for i in range(4)]
    assert _ttt_views._cache_size() == before + 1
    for result in results:
        assert result.shape == (2, 8, 32, 24, 3) and result.dtype == np.uint8
    assert any((r[0] != r[1]).any() for r in results)
    assert (results[0] != results[1]).any()
    np.testing.assert_array_equal(_ttt_views(jax.random.key(0), frame, 8, (32, 24)), results[0])


def test_ttt_views_of_one_colour_differ_by_colour_only():
    """A grey frame has no geometry: each image of a view is one grey, and saturation cannot move it."""
    result = _ttt_views(jax.random.key(5), jnp.full((9, 9, 3), 100, jnp.uint8), 8, (4, 4))
    np.testing.assert_array_equal(result, np.broadcast_to(result[:, :, :1, :1, :1], result.shape))
    greys = np.asarray(result)[:, :, 0, 0, 0]
    assert len(set(greys[0])) <= 4 and (greys[0] != greys[1]).any()


def _batch():
    """Four samples whose fields are functions of the image's red channel, a horizontal ramp."""
    ramp = np.broadcast_to(np.arange(48, dtype=np.uint8) * 4 + 20, (4, 32, 48))[..., None]
    return {"image": np.repeat(ramp, 3, -1), "flow": np.repeat(ramp, 3, -1),
            "mask": (ramp > 116).astype(np.uint8), "depth": ramp.astype(np.float32) / 255,
            "index": np.arange(4, dtype=np.int32)}


@pytest.mark.parametrize("resize_crop", [False, True])
def test_train_augment_moves_all_fields_alike(resize_crop):
    step = jax.jit(partial(augment.train_augment, hue=True, resize_crop=resize_crop))
    batch, flips, greys = _batch(), [], []
    for seed in range(6):
        keys = jax.random.split(jax.random.key(seed), 4)
        result = step(keys, batch)
        assert {k: (v.shape, v.dtype) for k, v in result.items()} == \
            {k: (v.shape, v.dtype) for k, v in batch.items()}
        np.testing.assert_array_equal(result["index"], batch["index"])
        flow = np.asarray(result["flow"]).astype(float)
        # The mask is sampled at pixel centres: half a source pixel of the ramp is 2 levels.
        sure = np.abs(flow[..., :1] - 118) > 2
        np.testing.assert_array_equal(result["mask"][sure], (flow[..., :1] > 118)[sure])
        np.testing.assert_allclose(result["depth"], flow[..., :1] / 255, atol=0.51 / 255)
        flips += list(flow[:, 0, 0, 0] > flow[:, 0, -1, 0])
        greys += list(np.asarray(result["image"]).reshape(4, -1).mean(axis=1) -
                      flow.reshape(4, -1).mean(axis=1))
        if not resize_crop:
            for sample, flipped in enumerate(flips[-4:]):
                expected = batch["flow"][sample][:, ::-1] if flipped else batch["flow"][sample]
                np.testing.assert_array_equal(flow[sample], expected)
    assert 0 < sum(flips) < len(flips)
    # Amounts are drawn per sample: distorted samples of a batch shift by different amounts.
    assert len(set(np.round(greys, 3))) > 12
    assert step._cache_size() == 1


def test_scrambling_changes_patches_of_the_image_or_all_of_it_to_one_colour():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    scramble = jax.jit(augment.scramble_appearance)
    shares, plain = [], 0
    for seed in range(24):
        result = np.asarray(scramble(jax.random.key(seed), image))
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
        if (result == result[0, 0]).all():
            plain += 1
        else:
            shares.append((result != image).any(-1).mean())
    assert 2 <= plain <= 11  # a quarter of 24, four standard deviations either way
    assert 0.02 < min(shares) < 0.4
    assert 0.4 < max(shares) < 0.9


def test_scrambling_leaves_the_other_fields_and_its_share_of_the_images_alone():
    keys, batch = jax.random.split(jax.random.key(0), 4), _batch()
    run = jax.jit(augment.train_augment, static_argnames=("hue", "resize_crop", "scramble"))
    never, always = (run(keys, batch, hue=True, resize_crop=False, scramble=p) for p in (0.0, 1.0))
    for name in ("flow", "mask", "depth", "index"):
        np.testing.assert_array_equal(always[name], never[name])
    assert all((always["image"][i] != never["image"][i]).any() for i in range(4))


def test_train_augment_works_without_depth_and_flow():
    batch = {name: _batch()[name] for name in ("image", "mask")}
    result = augment.train_augment(jax.random.split(jax.random.key(0), len(batch["image"])), batch, hue=False,
                                   resize_crop=False)
    assert set(result) == {"image", "mask"}
