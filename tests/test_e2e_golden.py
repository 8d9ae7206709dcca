"""The authors' whole MWI loop, fed with its recorded augmented batches (golden e2e.npz)."""

import copy
import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pytest
from golden import recipe
from golden_model import golden_model, load
from parity import check

from configs import base
from dattt_jax import forward
from dattt_jax.image_ops import normalize
from dattt_jax.inference import Network
from dattt_jax.metrics.boundary import boundary_f
from dattt_jax.metrics.region import jaccard
from dattt_jax.ttt import Engine, create_strategy
from dattt_jax.ttt.objectives.depth_consistency import DepthConsistency

pytestmark = pytest.mark.usefixtures("optimised")

INPUT_SIZE = (96, 96)
VIDEOS = (("ant", 3), ("bee", 4))


class Recorded(DepthConsistency):
    """Depth consistency on batches that come with the frame instead of being drawn."""

    def sample(self, frame, step, key):
        return normalize(frame["views"][step])


class Video:
    def __init__(self, name, first, count):
        golden = load("e2e")
        self.image = np.stack([np.roll(recipe.frame("e2e_" + name, 120, 160), 4 * i, axis=1)
                               for i in range(count)])
        self.flow = np.stack([recipe.frame(f"e2e_flow_{name}{i}", 120, 160, cell=24) for i in range(count)])
        self.mask = [np.roll(recipe.blobs("e2e_" + name, 120, 160), 4 * i, axis=1) for i in range(count)]
        views = np.stack([golden["videottt_ttt_mwi/aug_image_u8"],
                          golden["videottt_ttt_mwi/aug_image_aug_u8"]], axis=1)
        self.views = views.reshape(7, 2, *views.shape[1:])[first : first + count]

    def __len__(self):
        return len(self.image)

    def read(self, indices):
        return {"image": self.image[indices], "flow": self.flow[indices], "views": self.views[indices]}


@pytest.fixture(scope="module")
def network():
    model, variables = golden_model("mit_b1", "alpha+beta")
    variables = copy.deepcopy(variables)
    variables["params"]["decode_head"]["vos_head"]["linear_pred"]["bias"][:] = load("e2e")["mask_bias"]
    return model, variables


def run(network, strategy_name, per_step):
    model, variables = network
    ttt = base.get_config().ttt
    ttt.batch_size = 2
    problem = Network(model, variables, INPUT_SIZE).problem(ttt, adapts=True)
    problem = dataclasses.replace(problem, objective=Recorded(
        views=None, depth_logits=partial(forward.depth_of_views, model)), optimizer=optax.adam(1e-5))
    engine = Engine(problem, chunk=2, per_step=per_step)
    strategy = create_strategy(strategy_name, steps=2, groups=1)
    first = 0
    for name, count in VIDEOS:
        video = Video(name, first, count)
        first += count
        for result in engine.run(variables, video, strategy, jax.random.key(0)):
            mask = result.probability * 255 > 128
            target = video.mask[result.index]
            yield result, jaccard(mask, target), boundary_f(mask, target)


def test_mwi_gives_the_authors_losses_probabilities_and_scores(network):
    golden = load("e2e")
    results = list(run(network, "mwi", per_step=True))
    assert len(results) == 14
    losses = [r.losses[r.step - 1] for r, _, _ in results]
    check("whole MWI loop: losses", losses, golden["videottt_ttt_mwi/loss"], atol=1e-5)
    probability = np.stack([r.probability[::2, ::2] for r, _, _ in results])
    # Adam moves parameters whose gradient is mathematically zero by rounding noise of up to its rate.
    check("whole MWI loop: probabilities", probability, golden["videottt_ttt_mwi/prob"], atol=1e-4)
    check("whole MWI loop: J", [j for _, j, _ in results], golden["videottt_ttt_mwi/J_call_order"], atol=1e-4)
    # A pixel at the threshold moves J by 2e-5 and, as part of a boundary, F by up to 1e-3.
    check("whole MWI loop: F", [f for _, _, f in results], golden["videottt_ttt_mwi/F_call_order"], atol=3e-3)


def test_base_gives_the_authors_baseline(network):
    golden = load("e2e")
    results = list(run(network, "base", per_step=False))
    probability = np.stack([r.probability[::2, ::2] for r, _, _ in results])
    np.testing.assert_allclose(probability, golden["baseline/prob"], atol=5e-5)
    np.testing.assert_allclose([j for _, j, _ in results], golden["baseline/J_call_order"], atol=1e-4)
    np.testing.assert_allclose([f for _, _, f in results], golden["baseline/F_call_order"], atol=1e-4)
