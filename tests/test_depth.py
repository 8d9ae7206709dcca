"""Depth networks: equality with the authors', their weights, and what their outputs mean."""

import functools
import hashlib
import json

import jax
import numpy as np
import parity
import pytest
from golden import depth_recipe
from golden_model import FOLDER, load, nhwc
from PIL import Image

from dattt_jax.convert_networks import convert_network, read_parts, recognise_network, to_variables
from dattt_jax.errors import UserError
from dattt_jax.network_files import write_network
from input_pipeline.depth import create_depth
from input_pipeline.depth.lite_mono import LITE_MONO_SIZES
from input_pipeline.depth.network_depth import NetworkDepth, resize_map
from input_pipeline.depth.networks import depth_network, depth_shapes

GOLDEN = load("depth")
KEYS = json.loads((FOLDER / "depth_keys.json").read_text())
# Our name -> the golden's, the size compared, parameters of encoder and decoder that are used.
NETWORKS = {
    "lite_mono": ("lite-mono", "96x320"),
    "lite_mono_tiny": ("lite-mono-tiny", "96x320"),
    "lite_mono_small": ("lite-mono-small", "192x640"),
    "lite_mono_8m": ("lite-mono-8m", "192x640"),
    "monodepth2": ("monodepth2", "96x320"),
}


def parts(network):
    """(encoder, decoder): names to recipe weights."""
    keys = KEYS[NETWORKS[network][0]]
    return tuple(
        {name: depth_recipe.weight(name, shape) for name, shape in keys[part].items()}
        for part in ("encoder", "depth")
    )


@functools.cache
def weights(network):
    encoder, decoder = parts(network)
    return recognise_network(encoder | decoder, {})


@functools.cache
def variables(network):
    return to_variables(weights(network))


@functools.cache
def images(size):
    return depth_recipe.batch(size).astype(np.float32) / np.float32(255)


@functools.cache
def disparities(network, size, trained_at=(192, 640)):
    with jax.default_matmul_precision("highest"):
        return jax.device_get(
            jax.jit(depth_network(network, trained_at).apply)(variables(network), images(size))
        )


def test_the_recipe_gives_the_same_images_here():
    digest = hashlib.sha256(depth_recipe.batch("96x320").tobytes()).hexdigest()
    assert digest == "764d8fa736651ae43dd3d6d7f0a43b7ea11ac040d4e2b2d7947a611a25c08bc4"


@pytest.mark.parametrize("network", NETWORKS)
def test_inverse_depth_equals_the_authors(network):
    name, size = NETWORKS[network]
    found = disparities(network, size)
    assert len(found) == (4 if network == "monodepth2" else 3)
    for scale, disparity in enumerate(found):
        parity.check(
            f"{network}: inverse depth",
            disparity[:, ::3, ::3],
            nhwc(GOLDEN[f"{name}/{size}/disp{scale}_s3"]),
            atol=1e-5,
        )
    if f"{name}/{size}/depth_s16" in GOLDEN:
        depth = 1 / (0.01 + 9.99 * found[0])
        parity.check(
            f"{network}: depth", depth[:, ::16, ::16], nhwc(GOLDEN[f"{name}/{size}/depth_s16"]), rtol=1e-4
        )


def test_dilations_follow_the_size_of_the_training_images():
    found = disparities("lite_mono", "96x320", (320, 1024))[0]
    parity.check(
        "lite_mono made for 320x1024: inverse depth",
        found[:, ::3, ::3],
        nhwc(GOLDEN["lite-mono@320x1024/96x320/disp0_s3"]),
        atol=1e-5,
    )
    assert LITE_MONO_SIZES["lite_mono_small"].dilations((192, 640))[2] == (1, 2, 3, 2, 4, 6)
    assert LITE_MONO_SIZES["lite_mono_small"].dilations((320, 1024))[2] == (1, 2, 5, 2, 4, 10)
    assert LITE_MONO_SIZES["lite_mono_8m"].dilations((320, 1024))[2] == (1, 2, 3, 1, 2, 3, 2, 4, 6)


@pytest.mark.parametrize(
    ("network", "count"),
    [
        ("lite_mono", 2848120 + 226627),
        ("lite_mono_small", 2250232 + 226627),
        ("lite_mono_tiny", 1955192 + 192467),
        ("lite_mono_8m", 8139960 + 635891),
        ("monodepth2", 11176512 + 3152724),
    ],
)
def test_number_of_parameters(network, count):
    """The published counts, less the dilated blocks' LayerNorm, which is in Lite-Mono's files and never
    used."""
    dead = 0
    if network != "monodepth2":
        sizes = LITE_MONO_SIZES[network]
        dead = sum(2 * width * (blocks - 1) for width, blocks in zip(sizes.widths, sizes.blocks, strict=True))
    shapes = depth_shapes(network)
    assert sum(np.prod(shape) for name, shape in shapes.items() if name.startswith("params/")) == count - dead


def save(folder, network, **numbers):
    """The two files as published."""
    torch = pytest.importorskip("torch")
    folder.mkdir(exist_ok=True)
    for name, state in zip(("encoder", "depth"), parts(network), strict=True):
        state = {key: torch.tensor(value) for key, value in state.items()}
        torch.save(state | (numbers if name == "encoder" else {}), folder / f"{name}.pth")
    return folder


def test_the_two_files_of_a_network_become_one(tmp_path):
    folder = save(tmp_path / "published", "lite_mono_tiny", height=320, width=1024, use_stereo=False)
    for path in (folder, folder / "encoder.pth", folder / "depth.pth"):
        found = recognise_network(*read_parts(str(path)))
        assert (found.network, found.notice) == ("lite_mono_tiny", "")
        assert found.fields == {"height": 320, "width": 1024, "use_stereo": False}
        assert jax.tree.map(np.shape, to_variables(found)) == jax.tree.map(
            np.shape, variables("lite_mono_tiny")
        )
    (line,) = convert_network(str(folder), found, tmp_path / "out")
    output = tmp_path / "out" / "lite_mono_tiny.safetensors"
    assert line.endswith(
        f"-> {output}; use --config.depth.method=lite_mono_tiny --config.depth.weights={output}"
    )
    method = create_depth("lite_mono_tiny", weights=str(output))
    assert method.kind == "inverse" and "size=320x1024" in method.identity


def test_monodepth2s_licence_is_told():
    assert "non-commercial use only" in weights("monodepth2").notice


@pytest.mark.parametrize(("stereo", "kind"), [(True, "metric"), (False, "inverse")])
def test_depth_of_stereo_training_is_metric(tmp_path, stereo, kind):
    """The outputs are between 1/100 and 1/0.1; the stereo networks' unit is 5.4 m (KITTI's 0.54 m as 0.1)."""
    path = tmp_path / "monodepth2.safetensors"
    write_network(
        path, "monodepth2", variables("monodepth2"), {"height": 96, "width": 320, "use_stereo": stereo}
    )
    method = create_depth("monodepth2", weights=str(path))
    frame = depth_recipe.images(96, 320, 1)[0]
    inverse = 0.01 + 9.99 * disparities("monodepth2", "96x320")[0][0, ..., 0]
    assert method.kind == kind
    np.testing.assert_allclose(method(frame), 5.4 / inverse if stereo else inverse, rtol=1e-4)


def network_method(network="monodepth2", **options):
    options = {"trained_at": (96, 320), "stereo": False, "dtype": "float32", "flip": False} | options
    return NetworkDepth(network, variables(network), "0123", **options)


def test_blending_with_the_mirrored_frame_equals_the_authors():
    method = network_method(flip=True)
    found = np.stack([method(frame) for frame in depth_recipe.images(96, 320, 2)])
    parity.check(
        "monodepth2: inverse depth with its mirror image's",
        found[:, ::3, ::3],
        GOLDEN["monodepth2/96x320/postprocessed_scaled_disp_s3"],
        atol=1e-4,
    )


def test_frames_are_resized_as_the_authors_do():
    image = Image.fromarray(depth_recipe.recipe.frame("depth/resize", 75, 131))
    resized = np.asarray(image.resize((96, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resized, GOLDEN["resize/lanczos_75x131_to_64x96"])
    found = resize_map(disparities("lite_mono", "96x320")[0][0, ..., 0], (75, 242))
    parity.check(
        "depth: resized inverse depth", found[:, ::3], GOLDEN["resize/disp0_to_75x242"][0, 0], atol=1e-5
    )
    frame = depth_recipe.images(96, 320, 1)[0]
    small = np.asarray(Image.fromarray(frame).resize((242, 75)))
    back = np.asarray(Image.fromarray(small).resize((320, 96), Image.Resampling.LANCZOS))
    method = network_method()
    depth = method(small)
    assert depth.shape == (75, 242) and depth.dtype == np.float32
    np.testing.assert_allclose(depth, resize_map(method(back), (75, 242)), rtol=1e-5)


def test_bfloat16_is_close():
    frame = depth_recipe.images(96, 320, 1)[0]
    exact = network_method()(frame)
    difference = np.abs(network_method(dtype="bfloat16")(frame) - exact).mean()
    assert 0 < difference < 0.03 * exact.mean()


def test_identity_tells_what_the_depth_depends_on():
    assert network_method().identity == "monodepth2(size=96x320, dtype=float32, flip=False, weights=0123)"


def told(call):
    with pytest.raises(UserError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_weights_that_are_not_whole_or_not_known():
    encoder, decoder = parts("lite_mono_tiny")
    assert told(lambda: recognise_network(decoder, {})) == (
        "the decoder of a depth network alone; put its encoder.pth beside it, and call this depth.pth"
    )
    assert told(lambda: recognise_network(encoder, {})) == (
        "the encoder of Lite-Mono alone; put its depth.pth beside it, and call this encoder.pth"
    )
    del decoder["decoder.0.conv.conv.bias"]
    message = told(lambda: to_variables(recognise_network(encoder | decoder, {})))
    assert message == (
        "Lite-Mono does not fit lite_mono_tiny: missing: decoder.0.bias"
    )
    wide = encoder | {"downsample_layers.0.0.conv.weight": np.zeros((50, 3, 3, 3), np.float32)}
    assert told(lambda: recognise_network(wide, {})) == (
        "a Lite-Mono of widths (50, 64, 128) and 7 blocks in the last stage; known are lite_mono, "
        "lite_mono_small, lite_mono_tiny, lite_mono_8m"
    )
    deep = parts("monodepth2")[0] | {"encoder.layer1.0.conv3.weight": np.zeros((1, 1, 1, 1), np.float32)}
    assert told(lambda: recognise_network(deep, {})) == (
        "a MonoDepth2 with a ResNet-50; known is the one with a ResNet-18"
    )


def test_folders_without_weights(tmp_path):
    assert told(lambda: read_parts(str(tmp_path))).startswith(
        f"{tmp_path}: holds no encoder.pth and depth.pth"
    )


def test_methods_and_options_are_checked_by_name():
    assert told(lambda: create_depth("lite_mono", size=3)) == (
        "depth method 'lite_mono' has no option 'size'; its options: weights, dtype, flip"
    )
    assert told(lambda: network_method(dtype="half")) == (
        "config.depth.dtype='half': use one of float32, bfloat16"
    )
    assert told(lambda: create_depth("midas")).startswith(
        "unknown depth method 'midas': use one of lite_mono, "
    )


def test_transformers_is_asked_for_when_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    assert told(lambda: create_depth("transformers", weights="a")) == (
        "config.depth.method=transformers needs the packages transformers and torch (transformers is "
        'missing): run `pip install "dattt_jax[depth]"`'
    )
    assert told(lambda: create_depth("transformers")).startswith(
        "config.depth.weights is empty: name a model of"
    )


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize(("estimation", "kind"), [("metric", "metric"), ("relative", "inverse")])
def test_a_model_of_transformers(tmp_path, estimation, kind):
    transformers = pytest.importorskip("transformers")
    backbone = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False)
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, depth_estimation_type=estimation)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path)
    transformers.DPTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(tmp_path)
    method = create_depth("transformers", weights=str(tmp_path))
    assert method.kind == kind
    assert method.identity.startswith(f"transformers(DepthAnythingForDepthEstimation, kind={kind}, weights=")
    depth = method(depth_recipe.images(40, 60, 1)[0])
    assert depth.shape == (40, 60) and depth.dtype == np.float32
    assert create_depth("transformers", weights=str(tmp_path), kind="relative").kind == "relative"
    assert "is no depth-estimation model that transformers can load" in told(
        lambda: create_depth("transformers", weights=str(tmp_path / "none")))
