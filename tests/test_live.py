"""`--mode=live`: steps by the clock, masks as they come."""

import json
import os
import signal
import threading
import time

import jax
import numpy as np
import optax
import pytest
import tiny
import toy_network as toy
from PIL import Image
from video_trees import moving_frames

from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.live import live
from dattt_jax.segment import segment
from dattt_jax.ttt import Engine, Problem, create_strategy
from dattt_jax.ttt.budget import StepBudget
from dattt_jax.ttt.session import Session
from input_pipeline.images import read_mask

pytestmark = pytest.mark.usefixtures("shared_engines")

FRAMES = 5


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def frame(self, budget, *, before=0.0, step=0.0, rest=0.0):
        """Works on a frame; returns (steps taken, seconds)."""
        since, steps = self.now, 0
        self.now += before
        budget.begin(since)
        while budget.another():
            self.now += step
            budget.stepped()
            steps += 1
        self.now += rest
        return steps, budget.done()


def test_as_many_steps_as_there_is_time_for():
    clock = Clock()
    budget = StepBudget(1.0, 10, clock)
    # Nothing is known: steps are taken until they are measured to be too long.
    assert clock.frame(budget, step=0.25, rest=0.25) == (4, 1.25)
    assert clock.frame(budget, step=0.25, rest=0.25) == (3, 1.0)
    assert clock.frame(budget, before=0.3, step=0.25, rest=0.25) == (1, pytest.approx(0.8))
    assert clock.frame(budget, before=0.6, step=0.25, rest=0.25) == (0, pytest.approx(0.85))
    assert clock.frame(budget, before=2.0, step=0.25, rest=0.25) == (0, 2.25)  # late without a step
    assert clock.frame(budget, step=0.01, rest=0.25)[0] == 10  # no more than there are


def test_without_a_budget_all_steps_are_taken():
    clock = Clock()
    assert clock.frame(StepBudget(0, 7, clock), step=1000.0, rest=1.0) == (7, 7001.0)


def test_one_slow_moment_does_not_end_adaptation():
    clock = Clock()
    budget = StepBudget(1.0, 1, clock)
    taken = [clock.frame(budget, step=step, rest=0.1)[0] for step in (0.2, 0.2, 5.0, 0.2, 0.2, 0.2)]
    assert taken == [1, 1, 1, 0, 1, 1]
    slow = StepBudget(1.0, 10, clock)
    clock.frame(slow, step=3.0)
    assert [clock.frame(slow, step=3.0)[0] for _ in range(50)] == [0] * 50  # it never had time for one


def problem(name="depth"):
    return Problem(objective=toy.objectives()[name][0], context=lambda v, f: (), predict=toy.predict,
                   optimizer=optax.adam(0.01))


@pytest.mark.parametrize(("strategy", "settings"), [
    ("mwi", {}), ("n", {}), ("window", {"window": 3, "reset_every": 4})])
def test_a_session_is_the_engine_with_as_many_steps(strategy, settings):
    video, key = toy.Video(6), jax.random.key(3)
    strategy = create_strategy(strategy, steps=2, groups=1, **settings)
    expected = list(Engine(problem(), chunk=1).run(toy.VARIABLES, video, strategy, key))
    session = Session(problem(), toy.VARIABLES, strategy, key)
    for _ in range(2):  # started again it is as new
        session.restart()
        for index, result in enumerate(expected):
            session.enter({"image": video.images[index]})
            losses = [session.step()[0] for _ in range(2)]
            np.testing.assert_allclose(losses, result.losses, rtol=1e-5)
            np.testing.assert_allclose(session.predict(), result.probability, rtol=1e-4, atol=1e-6)
    assert session.compile_count() == 3


def test_the_number_of_steps_compiles_nothing():
    video = toy.Video(5)
    session = Session(problem(), toy.VARIABLES, create_strategy("mwi", steps=9, groups=1), jax.random.key(0))
    changes = []
    for index, steps in enumerate((0, 3, 1, 0, 7)):
        session.enter({"image": video.images[index]})
        before = session.predict()
        for _ in range(steps):
            session.step()
        changes.append(np.abs(session.predict() - before).max())
    assert session.compile_count() == 3
    assert [change > 0 for change in changes] == [False, True, True, False, True]


@pytest.fixture
def config(tmp_path, tiny_backbone):
    config = tiny.tiny_config()
    config.ttt.update({"objective": "bn", "steps": 2, "learning_rate": 0.05})
    config.segment.overlay = False
    config.live.update({"drop_frames": False, "budget_ms": 0.0, "idle_s": 0.5})
    config.segment.input = config.live.source = str(tmp_path / "walk")
    (tmp_path / "walk").mkdir()
    for t, frame in enumerate(moving_frames(FRAMES)):
        Image.fromarray(frame).save(tmp_path / "walk" / f"shot {t}.png")
    config.init = str(tmp_path / "weights")
    save_variables(config.init, tiny.filled(config.model, kernels=3), config.model)
    return config


def masks(workdir):
    return {p.stem: read_mask(p) for p in sorted((workdir / "masks").iterdir())}


@pytest.mark.parametrize(("objective", "budget_ms", "steps", "strategy"), [
    ("tent_bn", 0.0, 2, "mwi"),
    ("bn", 1e-6, 0, "base"),  # there is no time for steps, not even for the prediction
])
def test_a_folder_gets_the_masks_that_segment_gives(config, tmp_path, objective, budget_ms, steps, strategy):
    config.ttt.objective, config.live.budget_ms = objective, budget_ms
    summary = live(config, tmp_path / "live")
    config.ttt.strategy = strategy
    segment(config, tmp_path / "segment")
    found, expected = masks(tmp_path / "live"), masks(tmp_path / "segment")
    assert list(found) == list(expected) == [f"shot {t}" for t in range(FRAMES)]
    assert all(np.mean(found[name] != expected[name]) < 0.005 for name in expected)  # rounding
    assert 0 < np.mean(list(expected.values())) < 1
    assert (summary["masks"], summary["received"], summary["dropped"]) == (FRAMES, FRAMES, 0)
    assert summary["frames_by_steps"] == {str(steps): FRAMES} and summary["steps_per_frame"] == steps
    assert summary["late"] == (0 if steps else FRAMES)
    assert summary["ended"] == "no frame for 0.5 s" and summary["finished"]
    assert 0 < summary["work_ms"]["median"] <= summary["work_ms"]["95%"]
    assert summary["frames_per_second"] > 0
    assert json.loads((tmp_path / "live" / "summary.json").read_text()) == summary


def test_a_signal_ends_it_with_a_summary(config, tmp_path, caplog):
    config.live.update({"idle_s": 0.0, "drop_frames": True})
    source = tmp_path / "walk"
    over = threading.Event()

    def camera():
        """Goes on until the run is over; a signal comes after its first masks."""
        frames, sent = list(moving_frames(FRAMES)), False
        for t in range(FRAMES, 100_000):
            if over.wait(0.05):
                return
            Image.fromarray(frames[t % FRAMES]).save(source / f"shot {t}.png")
            if not sent and len(list((tmp_path / "out").glob("masks/*.png"))) > 2:
                os.kill(os.getpid(), signal.SIGTERM)
                sent = True

    feeding = threading.Thread(target=camera)
    feeding.start()
    try:
        with caplog.at_level("INFO"):
            summary = live(config, tmp_path / "out")
    finally:
        over.set()
        feeding.join()
    assert summary["ended"] == "SIGTERM" and summary["finished"]
    assert summary["masks"] == len(masks(tmp_path / "out")) >= 3
    assert summary["dropped_in_warm_up"] >= FRAMES - 1  # those that were there before programs were compiled
    left = summary["received"] - summary["masks"] - summary["dropped"] - summary["dropped_in_warm_up"]
    assert 0 <= left <= 2  # come and neither dropped nor worked on when the signal came
    assert "frames/s" in caplog.messages[-1] and caplog.messages[-1].startswith("SIGTERM: ")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["finished"]


def test_a_signal_before_the_first_frame(config, tmp_path):
    os.mkfifo(tmp_path / "frames")
    config.live.update({"source": str(tmp_path / "frames"), "idle_s": 0.0})

    def interrupt():
        with open(tmp_path / "frames", "wb"):  # waits for the run to read
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    sender = threading.Thread(target=interrupt)
    sender.start()
    summary = live(config, tmp_path / "out")
    sender.join()
    assert (summary["ended"], summary["masks"], summary["frames_per_second"]) == ("SIGINT", 0, 0)
    assert summary["work_ms"] is None


def test_frames_that_come_too_early_are_told(config, tmp_path):
    config.live.drop_frames = True
    with pytest.raises(UserError, match="motion needs two frames, and fewer of 5 were left"):
        live(config, tmp_path / "out")


@pytest.mark.parametrize(("fields", "message"), [
    ({"live.source": "clip.mp4"}, "video files are for --mode=segment"),
    ({"ttt.strategy": "ltv"}, "strategy='ltv' goes through a video more than once: --mode=live takes base"),
    ({"ttt.policy": "watch"}, "--mode=live takes the policy off"),
    ({"live.budget_ms": -1.0}, "config.live.budget_ms=-1.0"),
    ({"live.idle_s": float("nan")}, "config.live.idle_s=nan: give 0"),
    ({"flow.method": "files", "flow.root": "."}, "config.flow.method=files knows flow by the names"),
])
def test_what_a_user_can_get_wrong_is_told(config, tmp_path, fields, message):
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        live(config, tmp_path / "out")


def test_an_empty_folder_and_a_used_workdir_are_told(config, tmp_path):
    config.live.source = str(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    start = time.monotonic()
    with pytest.raises(UserError, match=r"no frame came \(no frame for 0.5 s\)"):
        live(config, tmp_path / "out")
    assert time.monotonic() - start > 0.5
    (tmp_path / "out" / "masks").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "out" / "masks" / "0.png")
    with pytest.raises(UserError, match="holds the masks of another run"):
        live(config, tmp_path / "out")
