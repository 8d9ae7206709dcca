"""What is measured of a frame, and each policy on a problem whose every step is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dattt_jax.errors import UserError
from dattt_jax.ttt import Engine, Problem, create_policy, create_strategy
from dattt_jax.ttt.monitor import OFF, mask_iou, measure, summarize

# A row of pixels; the mask is where position < w. A step of SGD with rate 1 puts w on the frame's target.
PLACES = (np.arange(10) + 0.5)[None] / 10
SOURCE = {"params": {"w": np.float32(0.5)}}


class Jump:
    def sample(self, frame, step, key):
        return frame["target"]

    def loss(self, variables, batch, key):
        return 0.5 * (variables["params"]["w"] - batch) ** 2


class Video:
    """Targets of w per frame, and how much the second view shrinks the mask when w is above 0.5."""

    def __init__(self, targets, shrink):
        self.target, self.shrink = np.float32(targets), np.float32(shrink)

    def __len__(self):
        return len(self.target)

    def read(self, indices):
        return {"target": self.target[indices], "shrink": self.shrink[indices],
                "seen": np.zeros(len(indices), np.float32)}


def predict(variables, frame, context):
    w = variables["params"]["w"]
    w = w - frame["seen"] * jnp.where(w > 0.5, frame["shrink"], 0.0)
    return (jnp.asarray(PLACES) < w).astype(jnp.float32)


PROBLEM = Problem(objective=Jump(), context=lambda v, f: (), predict=predict, optimizer=optax.sgd(1.0),
                  trainable=lambda path: True, view=lambda frame, key: frame | {"seen": jnp.ones(())})
# Frames 1 and 3 are bad: there the adapted mask of 0.9 has but a part of itself in the second view.
TARGETS, SHRINK = [0.7, 0.9, 0.8, 0.9], [0.0, 0.3, 0.0, 0.6]


def run(policy, strategy="mwi", chunk=3, **settings):
    engine = Engine(PROBLEM, chunk=chunk, policy=create_policy(policy, **settings))
    return list(engine.run(SOURCE, Video(TARGETS, SHRINK), create_strategy(strategy, steps=1, groups=1),
                           jax.random.key(0)))


def widths(results):
    return [int(r.probability.sum()) for r in results]


def test_masks_agree_as_sets_do():
    a, b = np.float32([[0.6, 0.9, 0.1, 0.2]]), np.float32([[0.6, 0.1, 0.9, 0.0]])
    np.testing.assert_allclose(mask_iou(a, b), 1 / 3)
    assert mask_iou(a, a) == 1 and mask_iou(0 * a, 0 * a) == 1 and mask_iou(a, 0 * a) == 0
    assert mask_iou(np.float32([[128 / 255]]), np.float32([[0.0]])) == 1  # 128 is not above 128


def test_what_is_measured():
    ones, half = np.ones((2, 4), np.float32), np.float32([[1, 1, 0, 0]] * 2)
    quarter = np.float32([[1, 0, 0, 0]] * 2)
    weights, source = {("a",): jnp.float32([3.0, 4.0])}, {("a",): jnp.float32([0.0, 4.0])}
    report, bad = measure((half, quarter), (half, half), weights, source, 0.1)
    assert (report.agreement, report.source_agreement, report.change) == (0.5, 1.0, 0.0) and bad
    np.testing.assert_allclose(report.drift, 3 / 4)
    assert not measure((half, quarter), (half, half), weights, source, 0.5)[1]
    report, bad = measure((quarter, quarter), (half, quarter), weights, source, 0.0)
    assert (report.agreement, report.source_agreement, report.change) == (1.0, 0.5, 0.5) and not bad
    for degenerate in (0 * ones, ones):  # they agree with themselves, and say nothing
        assert measure((degenerate, degenerate), (half, half), weights, source, 0.0)[0].agreement == 0
    assert measure((ones, ones), (ones, ones), weights, source, 0.0)[0].agreement == 1


def test_watch_changes_nothing():
    off, watched = run("off"), run("watch")
    assert widths(off) == widths(watched) == [7, 9, 8, 9]
    assert all(r.report is None for r in off) and all(r.report.kept for r in watched)
    np.testing.assert_allclose([r.report.agreement for r in watched], [1, 6 / 9, 1, 3 / 9])
    np.testing.assert_allclose([r.report.source_agreement for r in watched], 1)
    np.testing.assert_allclose([r.report.change for r in watched], [2 / 7, 4 / 9, 3 / 8, 4 / 9], rtol=1e-6)
    np.testing.assert_allclose([r.report.drift for r in watched], [0.4, 0.8, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal([r.losses for r in off], [r.losses for r in watched])


def test_keep_better_takes_the_sources_mask_of_bad_frames_and_goes_on():
    results = run("keep_better")
    assert widths(results) == [7, 5, 8, 5]
    assert [r.report.kept for r in results] == [True, False, True, False]
    np.testing.assert_allclose(results[2].losses, 0.5 * 0.1**2, rtol=1e-4)  # from 0.9, the bad frame's
    assert widths(run("keep_better", margin=0.5)) == [7, 9, 8, 5]


def test_reset_starts_afresh_after_a_bad_frame():
    results = run("reset")
    assert widths(results) == [7, 5, 8, 5]
    np.testing.assert_allclose(results[2].losses, 0.5 * 0.3**2, rtol=1e-5)  # from 0.5, the source's


def test_stop_early_stays_at_the_weights_before_the_bad_frame():
    results = run("stop_early")
    assert widths(results) == [7, 7, 7, 7]
    assert [r.report.kept for r in results] == [True, False, False, False]
    assert [r.report.stopped for r in results] == [False, False, True, True]
    assert [r.applied.tolist() for r in results] == [[True], [True], [False], [False]]
    # Every frame of n starts from the source, and so does what was stopped.
    assert widths(run("stop_early", "n")) == [7, 5, 8, 5]


def test_average_mixes_the_source_in():
    results = run("average", source_weight=0.5)
    assert widths(results) == [6, 7, 6, 7]  # (0.5 + target) / 2, to the pixel centres below it
    np.testing.assert_allclose([r.report.drift for r in results], [0.2, 0.4, 0.3, 0.4], rtol=1e-5)
    # The next frame starts from the mixture.
    np.testing.assert_allclose(results[1].losses, 0.5 * 0.3**2, rtol=1e-5)


@pytest.mark.parametrize("policy", ["watch", "stop_early", "reset", "average", "keep_better"])
def test_chunks_do_not_matter_and_one_program_serves(policy):
    whole = [r.probability.tobytes() for r in run(policy, chunk=4)]
    assert [r.probability.tobytes() for r in run(policy, chunk=1)] == whole
    assert [r.probability.tobytes() for r in run(policy, chunk=3)] == whole
    engine = Engine(PROBLEM, chunk=2, policy=create_policy(policy))
    for length in (1, 4):
        list(engine.run(SOURCE, Video(TARGETS[:length], SHRINK[:length]),
                        create_strategy("mwi", steps=1, groups=1), jax.random.key(0)))
    assert engine.compile_count() == 1


def test_later_passes_see_the_policy_too():
    # ltv with 2 passes: the bad frame 1 resets in both; the last pass reports.
    engine = Engine(PROBLEM, chunk=2, policy=create_policy("reset"))
    results = list(engine.run(SOURCE, Video(TARGETS, SHRINK), create_strategy("ltv", steps=2, groups=1),
                              jax.random.key(0)))
    assert widths(results) == [7, 5, 8, 5]
    np.testing.assert_allclose(results[0].losses, 2 * [0.5 * 0.2**2], rtol=1e-4)  # from the source both times


def test_the_summary_says_whether_adaptation_was_kept_and_why():
    def summary(policy, **settings):
        results = run(policy, **settings)
        return summarize(create_policy(policy, **settings), [r.report for r in results], 1)

    assert summary("off") == {"policy": "off", "kept": "all",
                              "why": "policy off: every frame is adapted, unjudged"}
    assert summarize(OFF, [None], 0)["kept"] == "none"
    assert summarize(create_policy("watch"), [], 1) == {"policy": "watch", "kept": "none",
                                                        "why": "there is no frame to adapt on"}
    found = summary("keep_better")
    values = [found[name] for name in ("kept", "frames_kept", "agreement", "source_agreement", "drift")]
    assert values == ["part", 2, 0.75, 1.0, 0.8]
    assert found["why"] == ("masks agree across two views by 0.75 adapted and by 1.0 with the source "
                            "weights: "
                            "2 frames are the source's")
    assert summary("stop_early")["why"].endswith("adaptation stopped at frame 1")
    assert summary("reset")["why"].endswith("2 resets to the source")
    assert summary("watch")["kept"] == "all"


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "stop"}, "config.ttt.policy: 'stop' is not one of off, watch, stop_early"),
    ({"name": "reset", "margin": -0.1}, "config.ttt.policy_margin=-0.1: give a number from 0 to 1"),
    ({"name": "average", "source_weight": 2}, "config.ttt.source_weight=2"),
])
def test_wrong_policies_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        create_policy(**arguments)


def test_a_policy_needs_a_view():
    problem = Problem(objective=Jump(), context=None, predict=predict, optimizer=optax.sgd(1.0))
    with pytest.raises(ValueError, match=r"needs Problem\.view"):
        Engine(problem, chunk=1, policy=create_policy("watch"))
