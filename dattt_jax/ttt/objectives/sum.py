"""Several objectives at once: the weighted sum of their losses, over the union of what they train."""

import dataclasses
from typing import Any

import jax

from dattt_jax.ttt.objectives import Array, Frame, Objective, Path, Variables


@dataclasses.dataclass(frozen=True)
class Sum(Objective):
    """Σ weight · loss; every gradient reaches whatever any of the objectives trains.

    Each part has a memory and a random key of its own. Parts without a loss (BN adaptation) add 0.

    Attributes:
        objectives: the parts.
        weights: positive, one per part.
    """

    objectives: tuple[Objective, ...]
    weights: tuple[float, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """All heads that a part needs."""
        return tuple(dict.fromkeys(head for part in self.objectives for head in part.heads))

    @property
    def learns_predictions(self) -> bool:
        """Whether any part does."""
        return any(part.learns_predictions for part in self.objectives)

    def trainable(self, path: Path) -> bool:
        """Whether any part trains it."""
        return any(part.trainable(path) for part in self.objectives)

    def label(self, source: Variables, frame: Frame) -> Any:
        """One per part."""
        return tuple(part.label(source, frame) for part in self.objectives)

    def sample(self, frame: Frame, step: Array, key: Array) -> Any:
        """One batch per part."""
        keys = jax.random.split(key, len(self.objectives))
        return tuple(part.sample(frame | {"label": label}, step, k)
                     for part, label, k in zip(self.objectives, frame["label"], keys, strict=True))

    def loss(self, variables: Variables, batch: Any, key: Array) -> Array:
        """The weighted sum."""
        keys = jax.random.split(key, len(self.objectives))
        return sum(weight * part.loss(variables, b, k) for weight, part, b, k in
                   zip(self.weights, self.objectives, batch, keys, strict=True))

    def memory(self, variables: Variables) -> Any:
        """One memory per part."""
        return tuple(part.memory(variables) for part in self.objectives)

    def observe(self, memory: Any, variables: Variables, frame: Frame, step: Array) -> Any:
        """Each part's own."""
        return tuple(part.observe(m, variables, frame, step)
                     for part, m in zip(self.objectives, memory, strict=True))

    def ready(self, variables: Variables, memory: Any, frame: Frame) -> Variables:
        """What the parts make of the variables, one after the other; where two differ, the last decides."""
        for part, m in zip(self.objectives, memory, strict=True):
            variables = part.ready(variables, m, frame)
        return variables
