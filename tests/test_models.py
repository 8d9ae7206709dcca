"""Networks against the authors' outputs (golden eval_*.npz), and what every backbone promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from golden import recipe
from golden_model import golden_model, load, nhwc
from ml_collections import ConfigDict

from dattt_jax.convert import variable_shapes
from dattt_jax.errors import UserError
from dattt_jax.models import BACKBONES, create_model

VARIANTS = [("mit_b1", arch) for arch in ("alpha+beta", "alpha", "beta", "basic", "nodepth")]
VARIANTS.append(("swin_tiny", "alpha+beta"))


@pytest.mark.parametrize(("backbone", "arch"), VARIANTS)
@pytest.mark.parametrize("shape", [(1, 3, 512, 512), (2, 3, 192, 256)])
def test_logits_equal_the_authors(backbone, arch, shape):
    model, variables = golden_model(backbone, arch)
    golden = load(f"eval_{backbone}_{arch}")
    tag = "{}x{}x{}".format(shape[0], *shape[2:])
    image, flow = (nhwc(x) for x in recipe.eval_input(shape))
    outputs = jax.jit(model.apply)(variables, image, flow)
    assert set(outputs) == ({"mask"} if arch == "nodepth" else {"mask", "depth"})
    for name, logits in outputs.items():
        # 1e-4 is what is promised; the original's own float32 noise is up to 1.5e-5 (Swin).
        np.testing.assert_allclose(logits, nhwc(golden[f"{tag}/{name}_f64"]), atol=3e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(64, 64), (50, 77)])
def test_any_size_gives_logits_at_a_quarter(backbone, size):
    config = ConfigDict({"backbone": backbone, "depth": True, "modulation": "alpha+beta"})
    model = create_model(config)
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    outputs = jax.eval_shape(model.apply, variable_shapes(config), image, image)
    quarter = tuple(-(-n // 4) for n in size)
    assert {name: x.shape for name, x in outputs.items()} == {
        "mask": (2, *quarter, 1), "depth": (2, *quarter, 1)}


@pytest.mark.parametrize(("backbone", "size"), [("mit_b0", (33, 47)), ("swin_t", (30, 45))])
def test_odd_sizes_run(backbone, size):
    config = ConfigDict({"backbone": backbone, "depth": True, "modulation": "basic"})
    model = create_model(config)
    image = jnp.ones((1, *size, 3))
    outputs = jax.jit(lambda key: model.init_with_output(key, image, image)[0])(jax.random.key(0))
    assert np.isfinite(outputs["mask"]).all()


@pytest.mark.parametrize("backbone", ["mit_b0", "swin_t"])
def test_bfloat16_computes_close_to_float32_on_float32_parameters(backbone):
    def run(dtype):
        config = ConfigDict({"backbone": backbone, "depth": True, "modulation": "alpha+beta",
                             "decoder_features": 32, "dtype": dtype})
        model = create_model(config)
        image = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
        outputs, variables = jax.jit(lambda key: model.init_with_output(key, image, image))(
            jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        assert outputs["mask"].dtype == jnp.float32
        return outputs["mask"]

    full, half = run("float32"), run("bfloat16")
    assert not np.array_equal(full, half)
    assert np.abs(full - half).max() < 0.05 * np.abs(full).max() + 0.02


def test_drop_path_is_active_in_training_and_drawn_per_sample():
    config = ConfigDict({"backbone": "mit_b0", "depth": True, "modulation": "basic", "drop_path": 0.9})
    model = create_model(config)
    image = jnp.tile(jax.random.normal(jax.random.key(1), (1, 32, 32, 3)), (4, 1, 1, 1))
    variables = jax.jit(model.init)(jax.random.key(0), image, image)

    @jax.jit
    def encode(key):
        return model.apply(variables, image, train=True, method=model.encode_image,
                           rngs={"drop_path": key})[3]

    features = encode(jax.random.key(2))
    assert not np.allclose(features[0], features[1])
    np.testing.assert_array_equal(features, encode(jax.random.key(2)))


def test_remat_changes_no_parameter_and_no_output():
    base = {"backbone": "mit_b0", "depth": True, "modulation": "basic", "decoder_features": 16}
    image = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    outputs = []
    for remat in (False, True):
        model = create_model(ConfigDict({**base, "remat": remat}))
        out, variables = jax.jit(lambda key, m=model: m.init_with_output(key, image, image))(
            jax.random.key(0))
        outputs.append((out["mask"], sorted(traverse_util.flatten_dict(variables))))
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])
    assert outputs[0][1] == outputs[1][1]


@pytest.mark.parametrize(("field", "value"), [("backbone", "resnet50"), ("modulation", "gamma"),
                                              ("dtype", "float16")])
def test_unknown_choices_are_told_with_the_valid_ones(field, value):
    config = ConfigDict({"backbone": "mit_b0", "depth": True, "modulation": "basic", field: value})
    with pytest.raises(UserError, match=rf"config\.model\.{field}: '{value}' is not one of .*,"):
        create_model(config)
