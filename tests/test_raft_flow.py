"""RAFT as a flow method: padding, batches, memory, files of weights, and what a user can get wrong."""

import functools

import numpy as np
import pytest
import raft_golden
from golden import raft_recipe
from golden_model import load

from configs import base
from dattt_jax.convert import convert
from dattt_jax.errors import UserError
from input_pipeline.flow import BatchFlowMethod, create_flow, flow_renderings, flow_to_rgb
from input_pipeline.flow.raft_flow import RaftFlow

GOLDEN = load("raft")


@functools.cache
def method(**options):
    options = {"iterations": 2, "dtype": "float32", "batch_size": 0, "volume_gib": 6.0} | options
    return RaftFlow("raft_small", raft_golden.variables("raft_small"), "0123", **options)


def frames(count, height=130, width=163, seed=0):
    """The same texture, moved by (3, 1) each time."""
    big = raft_recipe.recipe.frame(f"raft/{seed}", height + 8 * count, width + 8 * count)
    return np.stack([big[8 * count - k :, 8 * count - 3 * k :][:height, :width] for k in range(count)])


def test_a_frame_is_padded_by_its_edges_and_cropped_back():
    """13x21 -> 16x24 in the golden: [left, right, top, bottom] = [1, 2, 1, 2]; 130x163 has [2, 3, 3, 3]."""
    padded = np.pad(np.arange(273).reshape(13, 21), ((1, 2), (1, 2)), mode="edge")
    np.testing.assert_array_equal(padded, GOLDEN["unit/pad_13x21_sintel"])
    first, second = frames(2)
    by_hand = [np.pad(frame, ((3, 3), (2, 3), (0, 0)), mode="edge") for frame in (first, second)]
    np.testing.assert_allclose(method()(first, second), method()(*by_hand)[3:-3, 2:-3], atol=1e-4)


def test_compiled_once_for_every_padded_size():
    for size in ((130, 163), (136, 168), (129, 161)):
        assert method()(*frames(2, *size)).shape == (*size, 2)
    assert method()._estimate._cache_size() == 1


def test_a_batch_equals_its_pairs_and_the_last_one_is_filled_up():
    batched = method(batch_size=2)
    video = frames(4)
    flow = batched.batch(video[:-1], video[1:])
    assert flow.shape == (3, 130, 163, 2) and flow.dtype == np.float32
    for k in range(3):
        np.testing.assert_allclose(flow[k], method()(video[k], video[k + 1]), atol=1e-4)
    assert batched._estimate._cache_size() == 1


def test_correlation_in_parts_gives_the_same_flow():
    """Above `volume_gib` the correlation is computed anew in each iteration, by parts."""
    pair = frames(2)
    np.testing.assert_allclose(method(volume_gib=0.0)(*pair), method()(*pair), atol=1e-4)


def test_bfloat16_is_close():
    pair = frames(2)
    exact = method()(*pair)
    difference = np.abs(method(dtype="bfloat16")(*pair) - exact).mean()
    assert 0 < difference < 0.05 * np.abs(exact).mean()


def test_a_stream_is_given_in_batches():
    assert isinstance(method(batch_size=2), BatchFlowMethod)
    video, read = frames(4), []

    def stream():
        for k, frame in enumerate(video):
            read.append(k)
            yield frame

    renderings = flow_renderings(stream(), method(batch_size=2), "backward")
    first = next(renderings)
    assert read == [0, 1, 2]
    result = [first, *renderings]
    pairs = [(0, 1), (1, 2), (2, 3), (3, 2)]
    assert len(result) == 4
    for (frame, rendering), (k, other) in zip(result, pairs, strict=True):
        np.testing.assert_array_equal(frame, video[k])
        expected = flow_to_rgb(method()(video[k], video[other])).astype(int)
        assert np.abs(rendering - expected).max() <= 2


def test_identity_tells_what_the_flow_depends_on():
    assert method().identity == "raft_small(iterations=2, dtype=float32, weights=0123)"
    assert method(batch_size=2).identity == method(volume_gib=0.0).identity == method().identity
    assert create_flow("dis").identity.startswith("dis(preset=medium, opencv=")


def test_frames_that_are_too_small_or_differ():
    with pytest.raises(
        UserError, match=r"frames of 200x127 .* too small for flow 'raft_small'; it needs 128 pix"
    ):
        method()(*frames(2, 127, 200))
    with pytest.raises(
        UserError, match=r"two frames of different size, 163x130 and 160x130 \(width x height\)"
    ):
        method()(frames(1)[0], frames(1, 130, 160)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "config.flow.iterations=0: give 1 or more"),
        ({"dtype": "float16"}, "config.flow.dtype='float16': use one of float32, bfloat16"),
        ({"batch_size": -1}, "config.flow.batch_size=-1: give 0 or more"),
        ({"volume_gib": -1.0}, "config.flow.volume_gib=-1.0: give 0 or more"),
    ],
)
def test_parameters_out_of_range(options, message):
    with pytest.raises(UserError) as raised:
        method(**options)
    assert str(raised.value) == message


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return raft_golden.write("raft_small", tmp_path_factory.mktemp("raft") / "raft_small.safetensors")


def test_a_file_of_weights_comes_back(weights):
    created = create_flow("raft_small", weights=weights, iterations=2)
    again = create_flow("raft_small", weights=weights, iterations=3)
    assert created.identity != again.identity
    assert created.identity.split("weights=")[1] == again.identity.split("weights=")[1]
    pair = frames(2)
    np.testing.assert_array_equal(created(*pair), method()(*pair))


def test_the_mode_makes_what_the_config_names(tmp_path, weights, capsys):
    torch = pytest.importorskip("torch")
    named = raft_golden.state_dict("raft_small").items()
    state = {f"module.{name}": torch.tensor(array) for name, array in named}
    torch.save(state, tmp_path / "raft-small.pth")
    config = base.get_config()
    config.convert.input = str(tmp_path / "raft-small.pth")
    convert(config, str(tmp_path))
    output = tmp_path / "raft_small.safetensors"
    assert capsys.readouterr().out == (
        f"{config.convert.input}: raft_small of RAFT (authors), 106 tensors, 0 ignored -> {output}; use "
        f"--config.flow.method=raft_small --config.flow.weights={output}\n"
    )
    with open(weights, "rb") as expected:
        assert output.read_bytes() == expected.read()
    torch.save({name: state[name] for name in list(state)[1:]}, tmp_path / "raft-small.pth")
    with pytest.raises(UserError) as raised:
        convert(config, str(tmp_path))
    assert str(raised.value).startswith(f"{config.convert.input}: weights of an unknown network")
    state.pop("module.fnet.conv1.bias")
    torch.save(state, tmp_path / "raft-small.pth")
    with pytest.raises(UserError) as raised:
        convert(config, str(tmp_path))
    assert str(raised.value) == (
        f"{config.convert.input}: raft_small of RAFT (authors) does not fit raft_small: missing: "
        "fnet.conv1.bias"
    )


def damaged(weights, folder, change):
    path = folder / "damaged.safetensors"
    with open(weights, "rb") as file:
        path.write_bytes(change(file.read()))
    return str(path)


def test_files_that_hold_no_such_weights(weights, tmp_path):
    from safetensors.numpy import load_file, save_file

    def told(path, network="raft_small"):
        with pytest.raises(UserError) as raised:
            create_flow(network, weights=path)
        message = str(raised.value)
        assert "\n" not in message
        return message.replace(path, "FILE") if path else message

    assert told("") == (
        "config.flow.weights is empty: 'raft_small' needs weights; name the file that "
        "--mode=convert makes of the published ones (--config.convert.input=…)"
    )
    assert told("raft-small.pth").startswith("config.flow.weights=FILE is a PyTorch file: convert it once")
    assert told(str(tmp_path / "none.safetensors")) == (
        "config.flow.weights=FILE cannot be read (No such file or directory)"
    )
    assert told(damaged(weights, tmp_path, lambda content: content[:-9])).startswith(
        "config.flow.weights=FILE is not a whole safetensors file"
    )
    assert told(damaged(weights, tmp_path, lambda content: b"")).startswith(
        "config.flow.weights=FILE is not a whole safetensors file"
    )
    assert told(weights, "raft_large") == (
        "config.flow.weights=FILE holds weights of 'raft_small', and the method is 'raft_large': use "
        "config.flow.method=raft_small or other weights"
    )
    arrays = load_file(weights)
    save_file(arrays, tmp_path / "foreign.safetensors")
    assert told(str(tmp_path / "foreign.safetensors")).startswith(
        "config.flow.weights=FILE was not written by --mode=convert"
    )
    from dattt_jax.network_files import write_network

    write_network(tmp_path / "part.safetensors", "raft_small", {"params": {"a": np.zeros(1, np.float32)}}, {})
    assert "does not fit 'raft_small' (params/a, params/cnet/conv1/bias" in told(
        str(tmp_path / "part.safetensors")
    )


def test_options_are_checked_by_name():
    with pytest.raises(UserError, match="flow method 'dis' has no option 'weights'; its options: stabilized"):
        create_flow("dis", weights="a")
    with pytest.raises(
        UserError, match="'raft_small' has no option 'steps'; its options: weights, iterations, dt"
    ):
        create_flow("raft_small", steps=1)
