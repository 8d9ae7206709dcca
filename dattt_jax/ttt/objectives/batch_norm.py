"""BN adaptation: normalisation statistics between the source's and the test frames', no gradient.

Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS
2020: mean = λ·source + (1−λ)·test, the same for the variance, λ = N / (N + n) after n test frames; their
variance is the unbiased one, over all their positions together.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import struct, traverse_util

from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables
from dattt_jax.ttt.objectives.filters import is_statistic, nothing

if TYPE_CHECKING:
    from dattt_jax.ttt.task import Task

Statistics = dict[Path, Array]  # ('batch_stats', …, 'mean' or 'var') -> [C]


@struct.dataclass
class Seen:
    """Moments of the frames seen, summed over frames; means are counted from the source's (rounding)."""

    count: Array  # frames, int32 scalar
    mean: Statistics
    square: Statistics  # of the means
    variance: Statistics


@dataclasses.dataclass(frozen=True)
class BatchNormAdaptation(Objective):
    """Statistics of the frames visited since the weights were last fresh, each counted once.

    Attributes:
        statistics: (variables, frame) -> mean and unbiased variance of one frame at every BatchNorm layer.
        positions: values per channel that one frame has at such a layer, h·w.
        prior: N, how many frames the source statistics count for; 0 forgets them.
        layers: path -> whether it is among what `statistics` returns.
    """

    statistics: Callable[[Variables, Frame], Statistics]
    positions: int
    prior: float = 16.0
    layers: Callable[[Path], bool] = is_statistic

    def trainable(self, path: Path) -> bool:
        """Nothing is trained."""
        return nothing(path)

    def sample(self, frame: Frame, step: Array, key: Array) -> tuple:
        """No batch: the frame itself is observed."""
        return ()

    def loss(self, variables: Variables, batch: tuple, key: Array) -> Array:
        """No loss."""
        return jnp.zeros(())

    def memory(self, variables: Variables) -> Seen:
        """Nothing seen yet."""
        flat = {p: x for p, x in traverse_util.flatten_dict(variables).items() if self.layers(p)}
        sums = [{p: jnp.zeros_like(x) for p, x in flat.items() if p[-1] == leaf}
                for leaf in ("mean", "mean", "var")]
        return Seen(jnp.zeros((), jnp.int32), *sums)

    def observe(self, memory: Seen, variables: Variables, frame: Frame, step: Array) -> Seen:
        """Counts the frame when it is visited for the first time."""
        def count(memory: Seen) -> Seen:
            found, source = self.statistics(variables, frame), traverse_util.flatten_dict(variables)
            shift = {p: found[p] - source[p] for p in memory.mean}
            return Seen(memory.count + 1, {p: x + shift[p] for p, x in memory.mean.items()},
                        {p: x + jnp.square(shift[p]) for p, x in memory.square.items()},
                        {p: x + found[p] for p, x in memory.variance.items()})

        return jax.lax.cond(step == 0, count, lambda memory: memory, memory)

    def ready(self, variables: Variables, memory: Seen, frame: Frame) -> Variables:
        """The variables with statistics between the source's and those seen."""
        flat, m = traverse_util.flatten_dict(variables), self.positions
        seen = jnp.maximum(memory.count, 1).astype(jnp.float32)
        source_part = jnp.where(memory.count > 0, self.prior / (self.prior + seen), 1.0)
        for path, total in memory.mean.items():
            variance_path = (*path[:-1], "var")
            shift = total / seen
            within = (m - 1) * memory.variance[variance_path]  # sums of squares, for the n·m - 1 below
            between = m * jnp.maximum(memory.square[path] - seen * jnp.square(shift), 0.0)
            variance = (within + between) / jnp.maximum(seen * m - 1, 1)
            flat[path] = flat[path] + (1 - source_part) * shift
            flat[variance_path] = source_part * flat[variance_path] + (1 - source_part) * variance
        return traverse_util.unflatten_dict(flat)


def batch_norm(task: "Task") -> BatchNormAdaptation:
    """BN adaptation of the mask decoder of DATTT; N is `config.ttt.bn_prior`."""
    return BatchNormAdaptation(task.statistics, task.positions, task.bn_prior, task.is_mask_statistic)
