"""Augmentation on the accelerator, for test-time training and for the training step.

The operations and their order are those of DATTT's released code, 8-bit rounding included, and the
photometric ones give its results bit for bit on a CPU. All functions are pure and can be jitted with
traced keys and parameters; sizes and the number of samples are static.

The distortion is computed on 8-bit values held in int32, one array per channel. Two habits of the
original are kept: RGB values are converted to HSV as if they were BGR, and HSV is OpenCV's 8-bit one,
hue in 0..179, so that converting there and back moves a pixel by up to 5 grey levels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dattt_jax.image_ops import Kernel, crop_taps, resample, resize_bilinear

BRIGHTNESS = 32.0  # added: -32..32
CONTRAST = SATURATION = (0.5, 1.5)  # multiplied
HUE = 18  # added: -18..18, in units of 2 degrees
ENLARGEMENT = (1.05, 1.5)  # a frame is resized to 1.05..1.5 times the crop, each axis by itself

# Fields of a training batch, and how each is resized.
_PATCHES = 8  # nodes per side of the smooth field whose high parts are the patches of `scramble_appearance`
_KERNELS: dict[str, Kernel] = {
    "image": "bicubic", "flow": "bicubic", "mask": "nearest", "depth": "bicubic"}

_Channels = tuple[jax.Array, jax.Array, jax.Array]


class PhotometricParams(NamedTuple):
    """One photometric distortion: amounts shared by all images, and coins per image.

    Attributes:
        brightness, contrast, saturation: [] float32, added, multiplied, multiplied.
        hue: [] int32, added, in units of 2 degrees; None without hue.
        apply_brightness, apply_contrast, apply_saturation: [B] bool, one coin per image.
        apply_hue: [B] bool; None without hue.
        contrast_first: [] bool, contrast before saturation and hue instead of after them.
    """

    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array | None
    apply_brightness: jax.Array
    apply_contrast: jax.Array
    apply_saturation: jax.Array
    apply_hue: jax.Array | None
    contrast_first: jax.Array


class Crops(NamedTuple):
    """Random crops of an image: flipped left to right, then resized, then cropped.

    Attributes:
        flip: [N] bool.
        resized_size: [N, 2] int32, (height, width) of the whole image after resizing.
        top_left: [N, 2] int32, (row, column) of the crop in the resized image.
    """

    flip: jax.Array
    resized_size: jax.Array
    top_left: jax.Array


def draw_photometric(key: jax.Array, batch_size: int, hue: bool) -> PhotometricParams:
    """Draws a photometric distortion for `batch_size` images.

    Brightness ±32, contrast and saturation 0.5..1.5, hue ±18; each is applied to each image with
    probability 0.5, and contrast comes first with probability 0.5, for all images alike.

    Args:
        key: typed random key.
        batch_size: number of images.
        hue: whether to jitter the hue: in training, not at test time.

    Returns:
        The drawn parameters.
    """
    amounts, coins, order = jax.random.split(key, 3)
    amount_keys = jax.random.split(amounts, 4)
    coin = jax.random.bernoulli(coins, 0.5, (4, batch_size))
    return PhotometricParams(
        brightness=jax.random.uniform(amount_keys[0], minval=-BRIGHTNESS, maxval=BRIGHTNESS),
        contrast=jax.random.uniform(amount_keys[1], minval=CONTRAST[0], maxval=CONTRAST[1]),
        saturation=jax.random.uniform(amount_keys[2], minval=SATURATION[0], maxval=SATURATION[1]),
        hue=jax.random.randint(amount_keys[3], (), -HUE, HUE + 1) if hue else None,
        apply_brightness=coin[0], apply_contrast=coin[1], apply_saturation=coin[2],
        apply_hue=coin[3] if hue else None,
        contrast_first=jax.random.bernoulli(order))


def apply_photometric(images: jax.Array, params: PhotometricParams) -> jax.Array:
    """Distorts images: brightness, [contrast], saturation, hue, [contrast].

    Args:
        images: [B, H, W, 3] uint8 RGB.
        params: from `draw_photometric` for B images.

    Returns:
        [B, H, W, 3] uint8.
    """
    def maybe(coin: jax.Array, new: _Channels, old: _Channels) -> _Channels:
        coin = coin[:, None, None]
        return tuple(jnp.where(coin, n, o) for n, o in zip(new, old, strict=True))

    p = params
    c = _split(images)
    c = maybe(p.apply_brightness, _brightness(c, p.brightness), c)
    c = maybe(p.apply_contrast & p.contrast_first, _contrast(c, p.contrast), c)
    c = maybe(p.apply_saturation, _saturation(c, p.saturation), c)
    if p.hue is not None:
        c = maybe(p.apply_hue, _hue(c, p.hue), c)
    c = maybe(p.apply_contrast & ~p.contrast_first, _contrast(c, p.contrast), c)
    return _merge(c)


def adjust_brightness(image: jax.Array, delta: jax.Array | float) -> jax.Array:
    """Adds `delta` grey levels, clips, and cuts the fraction off.

    Args:
        image: [..., 3] uint8 RGB.
        delta: scalar.

    Returns:
        [..., 3] uint8.
    """
    return _merge(_brightness(_split(image), delta))


def adjust_contrast(image: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """Multiplies the values by `alpha`; otherwise as `adjust_brightness`."""
    return _merge(_contrast(_split(image), alpha))


def adjust_saturation(image: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """Multiplies the 8-bit HSV saturation by `alpha`; otherwise as `adjust_brightness`.

    Factor 1 is not the identity: the way to 8-bit HSV and back rounds.
    """
    return _merge(_saturation(_split(image), alpha))


def adjust_hue(image: jax.Array, delta: jax.Array | int) -> jax.Array:
    """Turns the 8-bit HSV hue by 2 * `delta` degrees, `delta` an integer in -180..180.

    As the channels are taken for BGR, an RGB image's hue turns the other way. Otherwise as
    `adjust_brightness`.
    """
    return _merge(_hue(_split(image), delta))


def draw_crops(key: jax.Array, num: int, crop_size: tuple[int, int]) -> Crops:
    """Draws random flips, sizes and places of crops.

    A flip has probability 0.5. Height and width after resizing are independent integers, uniform
    from int(1.05 * crop) to int(1.5 * crop), both included; the place is uniform.

    Args:
        key: typed random key.
        num: number of crops.
        crop_size: (height, width) of each crop.

    Returns:
        `num` crops.
    """
    flip_key, size_key, place_key = jax.random.split(key, 3)
    crop = np.asarray(crop_size, np.int32)
    low, high = ((ENLARGEMENT[i] * crop).astype(np.int32) for i in range(2))
    resized_size = jax.random.randint(size_key, (num, 2), low, high + 1)
    return Crops(flip=jax.random.bernoulli(flip_key, 0.5, (num,)), resized_size=resized_size,
                 top_left=jax.random.randint(place_key, (num, 2), 0, resized_size - crop + 1))


def apply_crops(frame: jax.Array, crops: Crops, crop_size: tuple[int, int],
                frame_size: jax.Array | None = None) -> jax.Array:
    """Cuts all crops out of one frame, resizing bicubically as OpenCV's INTER_CUBIC does.

    Only the pixels of the crops are computed.

    Args:
        frame: [H, W, 3] uint8 RGB.
        crops: N crops drawn for `crop_size`.
        crop_size: (height, width) of each crop.
        frame_size: [2] int32, (height, width) of the frame where `frame` is padded below and to the right;
            may be traced.

    Returns:
        [N, height, width, 3] uint8. In 1 to 30 of 10**5 values a grey level off OpenCV, where the
        exact value is halfway between two levels.
    """
    return jax.vmap(lambda crop: _crop(frame, crop, crop_size, "bicubic", frame_size))(crops)


def ttt_views(key: jax.Array, frame: jax.Array, num: int, crop_size: tuple[int, int],
              frame_size: jax.Array | None = None) -> jax.Array:
    """The two views of one frame that test-time training compares.

    Both show the same crops, and both are distorted, independently and without hue jitter.

    Args:
        key: typed random key.
        frame: [H, W, 3] uint8 RGB at native size.
        num: number of crops; 8 in the paper.
        crop_size: (height, width) of each crop; 512 x 512 in the paper.
        frame_size: see `apply_crops`.

    Returns:
        [2, num, height, width, 3] uint8; view 0 plays the target.
    """
    crop_key, *view_keys = jax.random.split(key, 3)
    crops = apply_crops(frame, draw_crops(crop_key, num, crop_size), crop_size, frame_size)
    params = jax.vmap(lambda k: draw_photometric(k, num, hue=False))(jnp.stack(view_keys))
    return jax.vmap(apply_photometric, in_axes=(None, 0))(crops, params)


def scramble_appearance(key: jax.Array, image: jax.Array) -> jax.Array:
    """Patches of the image show other places of it in other colours, or all of it is one colour.

    Edges and textures that have nothing to do with objects, so that a network trained on drawn appearance
    does not trust appearance over motion. In the spirit of CutMix (Yun et al., ICCV 2019) and of the domain
    randomisation of Tobin et al. (IROS 2017).

    Args:
        key: PRNG key.
        image: uint8 [H, W, 3] RGB.

    Returns:
        uint8 [H, W, 3]: one colour in a quarter of the draws; else smooth patches over a random share of the
        image, 30 to 100 % opaque.
    """
    height, width, _ = image.shape
    keys = jax.random.split(key, 7)
    shift = jax.random.randint(keys[0], (2,), 0, jnp.array([height, width]))
    other = jnp.roll(image[::-1], shift, axis=(0, 1))[..., jax.random.permutation(keys[1], 3)]
    other = jnp.where(jax.random.bernoulli(keys[2]), 255 - other, other).astype(jnp.float32)
    field = resize_bilinear(jax.random.normal(keys[3], (_PATCHES, _PATCHES, 1)), (height, width))
    covered = field > jax.random.uniform(keys[4], minval=-0.3, maxval=0.9)
    opacity = jax.random.uniform(keys[5], minval=0.3)
    patched = jnp.where(covered, image + opacity * (other - image), image)
    plain_key, colour_key = jax.random.split(keys[6])
    colour = jax.random.uniform(colour_key, (3,), maxval=255.0)
    result = jnp.where(jax.random.bernoulli(plain_key, 0.25), colour, patched)
    return jnp.round(result).astype(jnp.uint8)


def train_augment(keys: jax.Array, batch: dict[str, jax.Array], *, hue: bool, resize_crop: bool,
                  scramble: float = 0.0) -> dict[str, jax.Array]:
    """Augments a training batch: geometry on all fields alike, colours on the image alone.

    The original's training flips (probability 0.5) and distorts; its resize and crop are commented
    out, though the paper names them. Everything is drawn per sample, as the original distorts each
    sample by itself, before batching; so a sample's augmentation depends on its key alone, not on the
    batch or the device it is in. A flow rendering is flipped as any image: its colours keep showing
    the directions before the flip, as in the original.

    Args:
        keys: typed random keys [B], one per sample.
        batch: fields [B, H, W, C] of one height and width: `image` uint8 RGB, and any of `flow`
            uint8, `mask` and `depth`. Other fields are left alone.
        hue: whether the distortion jitters the hue.
        resize_crop: whether to also resize by 1.05..1.5 and crop back to H x W: the image, flow
            and depth bicubically (depth unclamped), the mask by nearest neighbour.
        scramble: probability of `scramble_appearance`, not in the original.

    Returns:
        The batch with the same fields, shapes and dtypes.
    """
    def augment(key: jax.Array, sample: dict[str, jax.Array]) -> dict[str, jax.Array]:
        geometry_key, colour_key = jax.random.split(key)
        size = sample["image"].shape[:2]
        if resize_crop:
            crop = jax.tree.map(lambda x: x[0], draw_crops(geometry_key, 1, size))
            sample = {name: _crop(x, crop, size, _KERNELS[name]) for name, x in sample.items()}
        else:
            flip = jax.random.bernoulli(geometry_key)
            sample = {name: jnp.where(flip, x[:, ::-1], x) for name, x in sample.items()}
        image = apply_photometric(sample["image"][None], draw_photometric(colour_key, 1, hue))[0]
        if scramble:
            coin_key, scramble_key = jax.random.split(jax.random.fold_in(colour_key, 1))
            image = jnp.where(jax.random.bernoulli(coin_key, scramble),
                              scramble_appearance(scramble_key, image), image)
        return sample | {"image": image}

    fields = {name: batch[name] for name in _KERNELS if name in batch}
    return batch | jax.vmap(augment)(keys, fields)


def _crop(image: jax.Array, crop: Crops, crop_size: tuple[int, int], kernel: Kernel,
          image_size: jax.Array | None = None) -> jax.Array:
    """One crop, of scalar `flip` and [2] sizes, of an image [H, W, C], in its dtype."""
    height, width = crop_size
    in_height, in_width = image.shape[:2] if image_size is None else image_size
    rows = crop_taps(height, in_height, kernel, crop.resized_size[0], crop.top_left[0])
    index, weight = crop_taps(width, in_width, kernel, crop.resized_size[1], crop.top_left[1])
    columns = jnp.where(crop.flip, in_width - 1 - index, index), weight
    result = resample(resample(image, columns, axis=1), rows, axis=0)
    if image.dtype == jnp.uint8:
        result = jnp.clip(jnp.round(result), 0, 255)
    return result.astype(image.dtype)


def _split(image: jax.Array) -> _Channels:
    return tuple(image[..., i].astype(jnp.int32) for i in range(3))


def _merge(channels: _Channels) -> jax.Array:
    """Channels in 0..255 as one uint8 image.

    They are packed into one integer per pixel and cut into bytes: stacking them instead makes XLA on
    a CPU compute everything before it once per channel, ten times slower in all.
    """
    first, second, third = channels
    packed = first | (second << 8) | (third << 16)
    return jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :3]


def _linear(channel: jax.Array, alpha: jax.Array | float, beta: jax.Array | float) -> jax.Array:
    """Alpha * channel + beta in float32, clipped to 0..255, fraction cut off; int32."""
    return jnp.clip(channel.astype(jnp.float32) * alpha + beta, 0, 255).astype(jnp.int32)


def _brightness(channels: _Channels, delta: jax.Array | float) -> _Channels:
    return tuple(_linear(c, 1.0, delta) for c in channels)


def _contrast(channels: _Channels, alpha: jax.Array | float) -> _Channels:
    return tuple(_linear(c, alpha, 0.0) for c in channels)


def _saturation(channels: _Channels, alpha: jax.Array | float) -> _Channels:
    hue, saturation, value = _bgr_to_hsv(*channels)
    return _hsv_to_bgr(hue, _linear(saturation, alpha, 0.0), value)


def _hue(channels: _Channels, delta: jax.Array | int) -> _Channels:
    hue, saturation, value = _bgr_to_hsv(*channels)
    hue = hue + delta
    hue = jnp.where(hue < 0, hue + 180, jnp.where(hue >= 180, hue - 180, hue))
    return _hsv_to_bgr(hue, saturation, value)


def _bgr_to_hsv(b: jax.Array, g: jax.Array, r: jax.Array) -> _Channels:
    """OpenCV's 8-bit COLOR_BGR2HSV: divisions are products with reciprocals of 12 fractional bits.

    The reciprocals never come near half an integer, so float32 finds OpenCV's rounded ones.
    """
    value = jnp.maximum(jnp.maximum(b, g), r)
    chroma = value - jnp.minimum(jnp.minimum(b, g), r)

    def over(numerator: int, divisor: jax.Array) -> jax.Array:
        quotient = float(numerator << 12) / jnp.maximum(divisor, 1).astype(jnp.float32)
        return jnp.round(quotient).astype(jnp.int32)

    saturation = (chroma * over(255, value) + 2048) >> 12
    sector = jnp.where(value == r, g - b,
                       jnp.where(value == g, b - r + 2 * chroma, r - g + 4 * chroma))
    hue = (sector * over(30, chroma) + 2048) >> 12
    return hue + jnp.where(hue < 0, 180, 0), saturation, value


def _hsv_to_bgr(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> _Channels:
    """OpenCV's 8-bit COLOR_HSV2BGR, as its vector code has it: float32, and fractions cut off.

    Where a result is a whole number, its last float bit decides. So each `minimum` below, which
    changes no value, keeps the compiler from fusing a product that OpenCV rounds with the
    subtraction after it; 1 - s * f is fused in both. Without fused multiply-adds (old CPUs, TPUs)
    1 of 10**4 values is a grey level off.
    """
    h = jnp.minimum(hue.astype(jnp.float32) * np.float32(1 / 30), 6.0)
    s = jnp.minimum(saturation.astype(jnp.float32) * np.float32(1 / 255), 1.0)
    v = value.astype(jnp.float32) * np.float32(1 / 255)
    sector = h.astype(jnp.int32)
    f = h - sector.astype(jnp.float32)
    f = jnp.where(sector & 1 == 1, f, 1 - f)
    low = (v * (1 - s) * 255).astype(jnp.int32)
    middle = (v * (1 - s * f) * 255).astype(jnp.int32)

    def where(low_at: tuple[int, int], middle_at: tuple[int, int]) -> jax.Array:
        in_low = (sector == low_at[0]) | (sector == low_at[1])
        in_middle = (sector == middle_at[0]) | (sector == middle_at[1])
        return jnp.where(in_low, low, jnp.where(in_middle, middle, value))

    return where((0, 1), (2, 5)), where((4, 5), (0, 3)), where((2, 3), (1, 4))
