"""The adapter on DATTT and on another network: streams, whole videos, memory."""

import gc
import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn
from video_trees import moving_frames

from dattt_jax.errors import UserError
from dattt_jax.inference import Network
from dattt_jax.models import create_model
from dattt_jax.ttt import STRATEGIES, Adapter, create_strategy
from dattt_jax.ttt.objectives.filters import affine_of
from input_pipeline.flow import create_flow, flow_renderings

HEIGHT, WIDTH = 12, 16


class Unrelated(nn.Module):
    """Grey-level images in, one logit per pixel out: not DATTT in any way."""

    @nn.compact
    def __call__(self, image):
        x = nn.Conv(4, (3, 3), name="first")(image)
        x = nn.relu(nn.GroupNorm(2, name="norm")(x))
        return nn.Conv(1, (1, 1), name="last")(x)[..., 0]


@pytest.fixture(scope="module")
def unrelated():
    network = Unrelated()
    variables = network.init(jax.random.key(0), jnp.zeros((1, HEIGHT, WIDTH, 1)))
    return (lambda variables, image: network.apply(variables, image[None])[0]), variables


def frames(count):
    for t in range(count):
        yield np.random.default_rng(t).normal(t % 7, 1.0, (HEIGHT, WIDTH, 1)).astype(np.float32)


def adapter(unrelated, strategy, **settings):
    apply, variables = unrelated
    return Adapter(apply, variables, objective="entropy", strategy=strategy, trainable=affine_of("norm"),
                   **({"steps": 2, "learning_rate": 0.05, "groups": 2, "window": 3} | settings))


def test_the_masks_are_the_networks_before_adaptation(unrelated):
    apply, variables = unrelated
    expected = [np.asarray(apply(variables, frame)) > 0 for frame in frames(3)]
    masks = list(adapter(unrelated, "base")(frames(3)))
    assert masks[0].dtype == bool
    for mask, logits in zip(masks, expected, strict=True):
        assert np.mean(mask != logits) < 0.02  # 255 · p > 128 is not quite p > 0.5
    assert 0 < np.mean(masks) < 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_yields_every_mask_in_order(unrelated, strategy):
    own = adapter(unrelated, strategy)
    results = list(own.results(list(frames(5))))
    assert [r.index for r in results] == [0, 1, 2, 3, 4]
    assert [len(r.losses) for r in results] == [0 if strategy == "base" else 2] * 5
    assert all(r.applied.all() for r in results)
    again = list(own(list(frames(5))))  # every call starts from the source
    np.testing.assert_array_equal([r.probability * 255 > 128 for r in results], again)
    assert own.compile_count() == 1
    if strategy != "base":
        assert results[0].losses[-1] < results[0].losses[0] or strategy.endswith("ltv")


@pytest.mark.exact
@pytest.mark.parametrize("strategy", ["mwi", "window", "n"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_a_stream_gives_what_the_whole_video_gives(unrelated, strategy, chunk):
    """Bit for bit, though the stream does not know its length."""
    streamed = list(adapter(unrelated, strategy, chunk=chunk).results(frames(7)))
    whole = list(adapter(unrelated, strategy).results(list(frames(7))))
    for a, b in zip(streamed, whole, strict=True):
        np.testing.assert_array_equal(a.probability, b.probability)
        np.testing.assert_array_equal(a.losses, b.losses)


def test_a_mask_comes_before_the_next_frame_is_taken(unrelated):
    taken = []

    def camera():
        for t, frame in enumerate(itertools.cycle(frames(3))):
            taken.append(t)
            yield frame

    masks = adapter(unrelated, "mwi")(camera())
    for t in range(4):
        next(masks)
        assert taken == list(range(t + 1))


@pytest.mark.exact
def test_a_window_of_one_is_mwi_and_a_longer_one_is_not(unrelated):
    def losses(strategy, **settings):
        return np.array([r.losses for r in adapter(unrelated, strategy, **settings).results(frames(6))])

    np.testing.assert_array_equal(losses("window", window=1), losses("mwi"))
    assert np.any(losses("window") != losses("mwi"))
    # Started afresh at each frame it is n.
    np.testing.assert_array_equal(losses("window", reset_every=1), losses("n"))
    schedule = create_strategy("window", steps=1, groups=1, window=3, reset_every=2).schedule(5, 4)
    assert np.concatenate([visit.fresh for visit in schedule]).tolist() == [True, False, True, False, True]


def test_a_window_holds_the_last_frames_and_each_step_is_on_one_of_them():
    class Pull:
        def sample(self, frame, step, key):
            return frame["image"]

        def loss(self, variables, batch, key):
            return batch[0, 0] + 0 * variables["params"]["w"]  # shows which frame it was

    own = Adapter(lambda variables, image: image + variables["params"]["w"], {"params": {"w": np.float32(0)}},
                  objective=Pull(), strategy="window", trainable=lambda path: True, steps=40, window=4)
    numbers = (np.full((1, 1), t + 1, np.float32) for t in range(9))
    for t, result in enumerate(own.results(numbers)):
        assert set(result.losses.astype(int)) == set(range(max(1, t - 2), t + 2))


@pytest.mark.parametrize("strategy", ["mwi", "window"])
def test_memory_does_not_grow_with_the_stream(unrelated, strategy):
    def peak(count):
        """Largest of what Python and NumPy hold, bytes, and of the number of live device arrays."""
        own, arrays = adapter(unrelated, strategy, steps=1), 0
        stream, size = own(frames(count)), 0
        next(stream)
        tracemalloc.start()
        for number, _ in enumerate(stream):
            if number % 50 == 0:
                gc.collect()
                size = max(size, tracemalloc.get_traced_memory()[0])
                arrays = max(arrays, len(jax.live_arrays()))
        tracemalloc.stop()
        return size, arrays

    peak(20)  # what is cached once
    (short, short_arrays), (long, long_arrays) = peak(60), peak(600)
    print(f"{strategy}: {short} and {long} bytes, {short_arrays} and {long_arrays} arrays")
    assert long < short + 128 * 1024  # the 540 more would be 0.4 MB
    assert long_arrays <= short_arrays + 8


def test_policies_work_on_any_network(unrelated):
    results = list(adapter(unrelated, "mwi", policy="keep_better").results(frames(4)))
    assert all(0 <= r.report.agreement <= 1 and r.report.drift > 0 for r in results)


@pytest.mark.parametrize(("settings", "message"), [
    ({"objective": "depth"}, "objective='depth' is one of DATTT's"),
    ({"objective": "entropy", "trainable": None}, "objective='entropy' needs trainable"),
    ({"strategy": "fast"}, "strategy: 'fast' is not one of"),
    ({"policy": "fast"}, "'fast' is not one of off, watch"),
])
def test_what_a_caller_can_get_wrong_is_told(unrelated, settings, message):
    apply, variables = unrelated
    with pytest.raises(UserError, match=message):
        Adapter(apply, variables, **({"objective": "entropy", "trainable": affine_of("norm")} | settings))


def test_several_passes_need_a_sequence(unrelated):
    with pytest.raises(UserError, match="goes through the video more than once"):
        adapter(unrelated, "ltv")(frames(3))


@pytest.fixture
def dattt(tiny_backbone):
    config = tiny.tiny_config()
    config.ttt.objective = "bn"  # no gradient: compiled in a moment
    return config, Network(create_model(config.model), tiny.filled(config.model), (32, 32))


@pytest.mark.exact
def test_dattt_streams_pairs_and_gives_what_the_engine_gives(dattt):
    config, network = dattt
    pairs = np.random.default_rng(0).integers(0, 255, (2, 4, 40, 48, 3), dtype=np.uint8)
    own = Adapter(network.model, network.variables, objective="bn", strategy="mwi", steps=2,
                  input_size=(32, 32))

    class Video:
        def __len__(self):
            return 4

        def read(self, indices):
            return {"image": pairs[0][indices], "flow": pairs[1][indices]}

    expected = network.engine(config.ttt, adapts=True).run(
        network.variables, Video(), create_strategy("mwi", steps=2, groups=1), jax.random.key(0))
    for a, b in zip(own.results(zip(*pairs, strict=True)), expected, strict=True):
        np.testing.assert_array_equal(a.probability, b.probability)
        np.testing.assert_array_equal(a.losses, b.losses)
    with pytest.raises(UserError, match="a frame of DATTT is a pair"):
        next(own([pairs[0][0]]))
    with pytest.raises(UserError, match="both must be uint8"):
        next(own([(pairs[0][0] / 255, pairs[1][0])]))
    with pytest.raises(UserError, match=r"needs the head 'rotation'.*--config.model.heads="):
        Adapter(network.model, network.variables, objective="rotation")


@pytest.mark.parametrize("strategy", ["mwi", "grouped_ltv"])
def test_plain_frames_are_given_their_flow(dattt, strategy):
    video = moving_frames(5)
    settings = {"objective": "bn", "strategy": strategy, "steps": 2, "groups": 2, "input_size": (32, 32)}
    _, network = dattt
    pairs = Adapter(network.model, network.variables, **settings)
    plain = Adapter(network.model, network.variables, **settings, flow="dis")
    expected = list(pairs.results(list(flow_renderings(video, create_flow("dis")))))
    for a, b in zip(plain.results(video), expected, strict=True):
        np.testing.assert_array_equal(a.probability, b.probability)
    if strategy == "mwi":
        taken = []
        masks = plain(taken.append(t) or frame for t, frame in enumerate(video))
        next(masks)
        assert taken == [0, 1]  # a mask waits for the frame that its flow goes to
    with pytest.raises(UserError, match="takes frames alone, uint8"):
        list(plain([(frame, frame) for frame in video]))


def test_flow_is_for_dattt_alone(unrelated):
    with pytest.raises(UserError, match="flow is for DATTT"):
        adapter(unrelated, "mwi", flow="dis")
