"""Test-time training on video: objectives, strategies and the engine that runs one under the other."""

from dattt_jax.ttt.engine import AdaptState, Engine, FrameResult, Frames, Problem, adapt_step, fresh_state
from dattt_jax.ttt.objectives import Objective
from dattt_jax.ttt.strategies import STRATEGIES, Strategy, create_strategy

__all__ = ["STRATEGIES", "AdaptState", "Engine", "FrameResult", "Frames", "Objective", "Problem", "Strategy",
           "adapt_step", "create_strategy", "fresh_state"]
