"""The benchmarks' PyTorch network and loops against the authors' numbers, and its names against ours."""

import json
import random
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from golden import recipe
from golden_model import FOLDER, golden_model, load, model_config
from parity import check

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import torch_loop  # noqa: E402
import torch_reference  # noqa: E402

from dattt_jax.convert import from_torch  # noqa: E402

GOLDEN_NAMES = {"mit_b1": "mit_b1", "swin_t": "swin_tiny"}
# Videos of the golden end-to-end run and how many frames each has.
VIDEOS = {"ant": 3, "bee": 4}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Several threads wait for each other in busy loops, which on a shared machine takes minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def _whole_vectors(monkeypatch):
    """Rows of 64 pixels for OpenCV's HSV, as whole vectors on any processor.

    In the last columns of other widths it rounds what its vector code cuts off; the goldens come from a
    processor whose vectors fit.
    """
    convert = torch_loop.cv2.cvtColor
    monkeypatch.setattr(torch_loop.cv2, "cvtColor", lambda image, code: convert(
        np.ascontiguousarray(image).reshape(-1, 64, 3), code).reshape(image.shape))


def model(backbone):
    """The network with recipe weights; drop-path is off in every golden."""
    network = torch_reference.DATTT(backbone, drop_path=0.0)
    weights = {name: recipe.fill(name, value.shape) for name, value in network.state_dict().items()}
    torch_reference.load_numpy(network, {n: value for n, value in weights.items() if value is not None})
    return network


def tensors(arrays):
    return [torch.from_numpy(x) for x in arrays]


@pytest.mark.parametrize("backbone", GOLDEN_NAMES)
@pytest.mark.parametrize("fused", [False, True])
def test_network_equals_the_authors(backbone, fused, monkeypatch):
    monkeypatch.setattr(torch_reference, "_attention", torch_reference.written_out)
    if fused:
        torch_reference.use_fused_attention()
    network, golden = model(backbone).eval(), load(f"eval_{GOLDEN_NAMES[backbone]}_alpha+beta")
    with torch.no_grad():
        logits = network(*tensors(recipe.eval_input((2, 3, 192, 256))))
    for name, value in zip(("mask", "depth"), logits, strict=True):
        check(f"PyTorch reference, {backbone}: {name} logits", value, golden[f"2x192x256/{name}_f64"],
              atol=3e-5)


@pytest.mark.parametrize("backbone", GOLDEN_NAMES)
def test_state_dict_is_a_released_checkpoint_and_becomes_our_variables(backbone):
    network, golden = model(backbone), GOLDEN_NAMES[backbone]
    entries = json.loads((FOLDER / f"state_dict_{golden}_alpha+beta.json").read_text())["entries"]
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    assert {e["name"]: tuple(e["shape"]) for e in entries} == {n: value.shape for n, value in state.items()}
    _, expected = golden_model(golden, "alpha+beta")
    found = from_torch(state, model_config(golden, "alpha+beta"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.usefixtures("_whole_vectors")
def test_views_equal_the_original_but_for_ties_of_the_cubic_resize():
    sequence, frame = load("aug_sequence"), recipe.frame("ttt_aug", 120, 214)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    for step in range(3):
        crops = [torch_loop.random_crop(frame, 96) for _ in range(8)]
        for name in ("image", "aug"):
            wrong = np.abs(torch_loop.photometric(crops).astype(int) - sequence[f"seq_step{step}_{name}"])
            assert wrong.max() <= 6 and (wrong > 0).mean() < 4e-4


def test_training_equals_the_authors():
    golden = load("train_mit_b1_alpha+beta_2x128x160")
    training = torch_loop.Training(torch_loop.Network(model("mit_b1"), 128))
    for k in range(2):
        loss = training.step(*tensors(recipe.train_batch(k, (2, 3, 128, 160))))
        np.testing.assert_allclose(loss, golden["loss_f64"][k], rtol=1e-5)


@pytest.mark.usefixtures("_whole_vectors")
@pytest.mark.parametrize(("strategy", "golden_name"), [
    ("base", "baseline"), ("n", "videottt_ttt_n"), ("mwi", "videottt_ttt_mwi"), ("ltv", "videottt_ttt_ltv"),
    ("grouped_mwi", "videottt_group_ttt_mwi"), ("grouped_ltv", "videottt_group_ttt_ltv")])
def test_loops_equal_the_authors(strategy, golden_name):
    """Losses and J of every step, in the order the authors' functions compute them."""
    golden, network = load("e2e"), model("mit_b1")
    torch.nn.init.constant_(network.decode_head.vos_head.linear_pred.bias, float(golden["mask_bias"]))
    adaptation = torch_loop.TestTimeTraining(torch_loop.Network(network, 96), batch=2)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    losses, overlaps = [], []
    for name, count in VIDEOS.items():
        images = [np.roll(recipe.frame(f"e2e_{name}", 120, 160), 4 * t, axis=1) for t in range(count)]
        flows = [recipe.frame(f"e2e_flow_{name}{t}", 120, 160, cell=24) for t in range(count)]
        for t, loss, probability in adaptation.video(images, flows, strategy, steps=2, groups=2):
            target = np.roll(recipe.blobs(f"e2e_{name}", 120, 160), 4 * t, axis=1)
            found = probability * 255 > 128
            losses.append(loss)
            overlaps.append((found & target).sum() / (found | target).sum())
    # One pixel that rounding moves over the threshold changes J by 1.4e-4.
    np.testing.assert_allclose(overlaps, golden[f"{golden_name}/J_call_order"], atol=3e-4)
    if strategy != "base":
        np.testing.assert_allclose(losses, golden[f"{golden_name}/loss"], rtol=1e-4)
