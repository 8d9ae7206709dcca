"""Test-time training on video: objectives, strategies, policies and the engine that runs them."""

from dattt_jax.ttt.adapter import Adapter
from dattt_jax.ttt.budget import StepBudget
from dattt_jax.ttt.engine import Engine, FrameResult, Frames, Progress
from dattt_jax.ttt.monitor import POLICIES, Policy, Report, create_policy
from dattt_jax.ttt.objectives import OBJECTIVES, Objective, create_objective
from dattt_jax.ttt.session import Session
from dattt_jax.ttt.steps import AdaptState, Problem, adapt_step, fresh_state
from dattt_jax.ttt.strategies import SOURCE, STRATEGIES, Strategy, create_strategy

__all__ = ["OBJECTIVES", "POLICIES", "SOURCE", "STRATEGIES", "AdaptState", "Adapter", "Engine",
           "FrameResult", "Frames", "Objective", "Policy", "Problem", "Progress", "Report", "Session",
           "StepBudget", "Strategy", "adapt_step", "create_objective", "create_policy", "create_strategy",
           "fresh_state"]
