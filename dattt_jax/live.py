"""`--mode=live`: masks of a camera, a pipe or a growing folder, in the time that there is for a frame."""

import collections
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.estimators import pair_flow
from dattt_jax.inference import load_network, to_mask
from dattt_jax.live_rates import Rates
from dattt_jax.signals import StopSignals
from dattt_jax.ttt import Session, StepBudget, Strategy, create_strategy
from input_pipeline.flow import FlowMethod, flow_renderings, flow_to_rgb
from input_pipeline.live_frames import LiveFrame, LiveFrames
from input_pipeline.live_sources import open_source
from input_pipeline.writers import write_json, write_mask

_WARM_UPS = 3  # timed rounds on the first frame, after the one that compiles


def live(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Segments the frames of `config.live.source` as they come.

    The flow of a frame goes to the frame after it, as in training, so its work begins when the next frame is
    there. It gets gradient steps, `config.ttt.steps` at most, as long as `config.live.budget_ms` has time for
    one more and for the prediction; none, if need be. Of frames that come faster than they are worked on only
    the newest is kept (`config.live.drop_frames`). Flow is between frames that were kept.

    Programs are compiled on the first frame, before the clock runs; with `drop_frames`, that frame and those
    that come in the meantime get no mask.

    It ends with the source, after `config.live.idle_s` without a frame, or by Ctrl-C or SIGTERM. Then there
    are under `workdir`

        masks/<frame>.png  0 and 255: 000000, … as counted by the source, or by the name of the folder's file
        summary.json       rates, steps, latency, what was dropped and why it ended (what is returned);
                           brought up to date while it runs

    Raises:
        UserError: what is wrong with the source, the weights, a field or the disk.
    """
    workdir = Path(workdir)
    if not (config.live.budget_ms >= 0 and config.live.idle_s >= 0):
        raise UserError(f"config.live.budget_ms={config.live.budget_ms}, config.live.idle_s="
                        f"{config.live.idle_s}: give 0 (no limit) or more")
    source = open_source(config.live.source)
    strategy = _streaming_strategy(config)
    network = load_network(config)
    if network.policy(config.ttt).watches:
        raise UserError(f"config.ttt.policy={config.ttt.policy!r} takes up to five predictions per frame: "
                        "--mode=live takes the policy off")
    if any((workdir / "masks").glob("*.png")):
        raise UserError(f"--workdir={workdir} holds the masks of another run: give another folder")
    session = Session(network.problem(config.ttt, adapts=strategy.steps > 0), network.variables, strategy,
                      jax.random.key(config.seed))
    budget = StepBudget(config.live.budget_ms / 1000, strategy.steps)
    settings = {
        "source": config.live.source, "init": str(config.init), "input_size": list(config.input_size),
        "upsampling": config.upsampling,
        "objective": config.ttt.objective, "strategy": config.ttt.strategy, "steps": strategy.steps,
        "budget_ms": config.live.budget_ms, "flow": config.flow.method, "seed": config.seed,
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}", "jax": jax.__version__,
    }
    with StopSignals() as signals, \
            LiveFrames(source, drop=config.live.drop_frames, idle_s=config.live.idle_s,
                       stopped=lambda: signals.received is not None) as frames:
        rates = Rates(config.live.budget_ms, frames)
        _segment(config, workdir, frames, session, budget, rates, settings)
    summary = settings | {"finished": True, "ended": signals.received or frames.ended} | rates.summary()
    write_json(workdir / "summary.json", summary)
    logging.info("%s: %s", summary["ended"], rates.line())
    return summary


def _streaming_strategy(config: ConfigDict) -> Strategy:
    strategy = create_strategy(config.ttt.strategy, steps=config.ttt.steps, groups=config.ttt.groups,
                               window=config.ttt.window, reset_every=config.ttt.reset_every)
    if not strategy.streams:
        raise UserError(f"config.ttt.strategy={config.ttt.strategy!r} goes through a video more than once: "
                        "--mode=live takes base, n, mwi or window")
    return strategy


def _live_flow(config: ConfigDict) -> FlowMethod:
    """The flow method of the config, pair by pair, and nothing of it kept: later frames are not there yet."""
    config = config.copy_and_resolve_references()
    config.flow.batch_size = 1  # a second pair would have to be waited for
    return pair_flow(config)


def _segment(config: ConfigDict, workdir: Path, frames: LiveFrames, session: Session, budget: StepBudget,
             rates: Rates, settings: dict[str, Any]) -> None:
    """Writes the masks of the frames; raises a UserError where there are fewer than two."""
    flow = _live_flow(config)
    first = next(frames, None)
    if first is None:
        return _too_few(config, frames, f"no frame came ({frames.ended})")
    logging.info("live: compiling on the first frame")
    _warm_up(first, flow, session, budget, settings["steps"])
    rates.warm(unused=int(config.live.drop_frames))
    logging.info("live: ready")
    begin = list(itertools.islice(frames if config.live.drop_frames else itertools.chain([first], frames), 2))
    if len(begin) < 2:
        left = " when programs were compiled (with config.live.drop_frames=False all are kept)"
        return _too_few(config, frames, f"motion needs two frames, and fewer of {frames.received} were left"
                        f"{left if config.live.drop_frames else ''}")
    waiting: collections.deque[LiveFrame] = collections.deque()  # taken, without a mask so far
    began = time.monotonic()

    def images() -> Iterator[np.ndarray]:
        nonlocal began
        for frame in itertools.chain(begin, frames):
            began = time.monotonic()
            waiting.append(frame)
            yield frame.image
        began = time.monotonic()

    for image, rendering in flow_renderings(images(), flow, config.flow.last_frame):
        frame, steps, skipped = waiting.popleft(), 0, 0
        session.enter({"image": image, "flow": rendering})
        budget.begin(began)
        while budget.another():
            _, applied = session.step()
            budget.stepped()
            steps, skipped = steps + 1, skipped + (not applied)
        mask = to_mask(session.predict(), frame.name)
        write_mask(workdir / "masks" / f"{frame.name}.png", mask)
        rates.add(frame, budget.done(), steps, skipped)
        if rates.due():
            write_json(workdir / "summary.json", settings | {"finished": False} | rates.summary())
            logging.info("%s", rates.line())


def _too_few(config: ConfigDict, frames: LiveFrames, why: str) -> None:
    """Raises a UserError, but where a signal ended the stream."""
    if frames.ended != "stopped":
        raise UserError(f"config.live.source={config.live.source}: {why}")


def _warm_up(frame: LiveFrame, flow: FlowMethod, session: Session, budget: StepBudget, steps: int) -> None:
    """Compiles every program, then measures them; the session's next frame is its first."""
    for measured in (StepBudget(0, steps), *[budget] * _WARM_UPS):
        session.restart()
        session.enter({"image": frame.image, "flow": flow_to_rgb(flow(frame.image, frame.image))})
        measured.begin(time.monotonic())
        if steps:
            session.step()
            measured.stepped()
        session.predict()
        measured.done()
    session.restart()
