"""RAFT: equality with the authors' network, and the two families of weights."""

import functools
import hashlib
import os

import jax
import numpy as np
import parity
import pytest
import raft_golden
from golden import raft_recipe
from golden_model import load, nhwc

from dattt_jax.convert_networks import read_parts, recognise_network, to_variables
from dattt_jax.errors import UserError
from input_pipeline.flow import correlation as corr
from input_pipeline.flow.raft import RAFT_SIZES, Raft, convex_upsample
from input_pipeline.flow.raft_flow import raft_shapes
from input_pipeline.nets import upsample

GOLDEN = load("raft")
NETWORKS = ("raft_small", "raft_large")
# Of the golden's README; the reference's own float noise is a third of it or less.
FLOW_LOW = {1: 1.5e-5, 4: 5e-5, 12: 3e-4}
FLOW_UP = 2e-3


@functools.cache
def program(network):
    """(variables, images0, images1, initial) -> (flow in pixels, flow in cells after each of 12
    iterations)."""
    model = Raft(RAFT_SIZES[network])

    @jax.jit
    def run(variables, images0, images1, initial):
        with jax.default_matmul_precision("highest"):
            (_, up), sown = model.apply(
                variables, images0, images1, iterations=12, initial=initial, mutable="intermediates"
            )
        return up, sown["intermediates"]["flows"][0]

    return run


def run(network, size, initial=None, variables=None):
    images = raft_recipe.batch(size)
    batch, height, width, _ = images[0].shape
    if initial is None:
        initial = np.zeros((batch, height // 8, width // 8, 2), np.float32)
    variables = raft_golden.variables(network) if variables is None else variables
    return jax.device_get(program(network)(variables, *images, initial))


def golden(network, size, key):
    return nhwc(GOLDEN[f"{network.removeprefix('raft_')}/{size}/{key}"])


def test_the_recipe_gives_the_same_frames_here():
    frames = raft_recipe.batch("184x248")[0]
    assert hashlib.sha256(frames.tobytes()).hexdigest().startswith("b7667ccef07c7bb39d0e620ab863434f")


@pytest.mark.parametrize("network", NETWORKS)
def test_flow_equals_the_authors(network):
    up, flows = run(network, "184x248")
    for iterations, atol in FLOW_LOW.items():
        parity.check(
            f"{network}: flow in cells after {iterations}",
            flows[iterations - 1],
            golden(network, "184x248", f"it{iterations}/flow_low"),
            atol=atol,
        )
    parity.check(
        f"{network}: flow in pixels after 12",
        up[:, 3::7, 2::7],
        golden(network, "184x248", "it12/flow_up_s7"),
        atol=FLOW_UP,
    )


def test_pairs_of_a_batch_do_not_mix():
    up, flows = run("raft_small", "128x160")
    parity.check(
        "raft_small: flow in cells after 12, batch of two",
        flows[11],
        golden("raft_small", "128x160", "it12/flow_low"),
        atol=FLOW_LOW[12],
    )
    parity.check(
        "raft_small: flow in pixels after 12, batch of two",
        up[:, 3::7, 2::7],
        golden("raft_small", "128x160", "it12/flow_up_s7"),
        atol=FLOW_UP,
    )


def test_start_from_a_given_flow():
    _, flows = run("raft_small", "128x160", nhwc(raft_recipe.flow_init()))
    parity.check(
        "raft_small: flow in cells after 4, warm start",
        flows[3],
        golden("raft_small", "128x160", "warm_it4/flow_low"),
        atol=FLOW_LOW[4],
    )


@pytest.mark.skipif("RAFT_SMALL" not in os.environ, reason="RAFT_SMALL names no published raft-small.pth")
@pytest.mark.parametrize("size", ["184x248", "128x160"])
def test_the_published_small_network(size):
    weights = recognise_network(*read_parts(os.environ["RAFT_SMALL"]))
    _, flows = run("raft_small", size, variables=to_variables(weights))
    for iterations in (1, 12):
        parity.check(
            f"raft_small, published weights: flow in cells after {iterations}",
            flows[iterations - 1],
            nhwc(GOLDEN[f"published_small/{size}/it{iterations}/flow_low"]),
            atol=1e-4,
        )


@functools.cache
def unit_lookup(radius):
    first, second, places = (nhwc(array) for array in raft_recipe.unit_lookup(radius))
    return first.reshape(1, -1, 64), corr.feature_pyramid(second), places.reshape(1, -1, 2)


@pytest.mark.parametrize("radius", [3, 4])
def test_lookup_equals_the_authors(radius):
    queries, levels, places = unit_lookup(radius)
    found = np.asarray(corr.lookup(corr.correlate(queries, levels), places, radius))
    found = np.moveaxis(found.reshape(17, 23, -1), -1, 0)[:, ::4, ::5]
    parity.check("RAFT: lookup", found, GOLDEN[f"unit/lookup_r{radius}"], atol=1e-5)


@pytest.mark.parametrize("part", [1, 50, 391, 1000])
def test_lookup_in_parts_is_the_same(part):
    """17·23 = 391 pixels: parts of one, parts that do not divide it, one part, a part too large."""
    queries, levels, places = unit_lookup(3)
    whole = corr.lookup(corr.correlate(queries, levels), places, 3)
    np.testing.assert_allclose(corr.lookup_in_parts(queries, levels, places, 3, part), whole, atol=1e-5)


def test_lookup_far_outside_is_zero():
    queries, levels, _ = unit_lookup(3)
    places = np.full((1, 391, 2), 1e6, np.float32) * np.array([1, -1])
    assert not np.asarray(corr.lookup(corr.correlate(queries, levels), places, 3)).any()


def test_upsampling_equals_the_authors():
    flow, weights = (nhwc(array) for array in raft_recipe.unit_upsample())
    parity.check(
        "RAFT: convex upsampling", convex_upsample(flow, weights), nhwc(GOLDEN["unit/convex_up"]), atol=1e-5
    )
    parity.check(
        "RAFT: bilinear upsampling",
        8 * upsample(flow, 8, align_corners=True),
        nhwc(GOLDEN["unit/upflow8"]),
        atol=1e-5,
    )


@pytest.mark.parametrize(("network", "count"), [("raft_large", 5257536), ("raft_small", 990162)])
def test_number_of_parameters(network, count):
    shapes = raft_shapes(network)
    assert sum(np.prod(shape) for name, shape in shapes.items() if name.startswith("params/")) == count


def assert_same_tree(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_both_families_of_weights_give_one_network(network):
    """The authors' files have `module.` before every name; torchvision's have other names."""
    state = raft_golden.state_dict(network)
    authors = recognise_network({f"module.{name}": value for name, value in state.items()}, {})
    names = raft_golden.keys()[f"author_to_torchvision_{network.removeprefix('raft_')}"]
    torchvision = recognise_network({names[name]: state[name] for name in names}, {})
    assert (authors.network, torchvision.network) == (network, network)
    assert "torchvision" in torchvision.kind and "torchvision" not in authors.kind
    assert set(names.values()) >= raft_golden.keys()[f"torchvision_{network}"].keys() - {
        name for name in raft_golden.keys()[f"torchvision_{network}"] if "num_batches_tracked" in name
    }
    assert_same_tree(to_variables(authors), raft_golden.variables(network))
    assert_same_tree(to_variables(torchvision), raft_golden.variables(network))


def test_incomplete_and_foreign_weights_are_told_by_name():
    state = dict(raft_golden.state_dict("raft_small"))
    del state["fnet.conv1.bias"]
    state["fnet.conv9.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    state["cnet.conv1.bias"] = np.zeros(7, np.float32)
    state["cnet.conv2.bias"] = np.full(160, np.nan, np.float32)
    with pytest.raises(UserError) as raised:
        to_variables(recognise_network(state, {}))
    assert str(raised.value) == (
        "raft_small of RAFT (authors) does not fit raft_small: missing: fnet.conv1.bias; not in the "
        "network: fnet.conv9.weight; wrong shape: cnet.conv1.bias (7,); not finite floating-point "
        "numbers: cnet.conv2.bias"
    )
    with pytest.raises(
        UserError, match=r"a RAFT of width 7; known are raft_large \(64\) and raft_small \(32\)"
    ):
        recognise_network({"fnet.conv1.weight": np.zeros((7, 3, 7, 7), np.float32)}, {})
    assert recognise_network({"encoder_image.norm1.weight": np.zeros(3, np.float32)}, {}) is None
