"""DATTT ready for videos: a network with its weights, and the TTT engine that a config asks for."""

import dataclasses

import jax
import numpy as np
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.framing import STRIDE, Buckets
from dattt_jax.models import DATTT, create_model
from dattt_jax.propagation import Propagation
from dattt_jax.ttt import Engine, Policy, Problem, create_objective, create_policy
from dattt_jax.ttt.objectives import Variables
from dattt_jax.ttt.task import Task
from dattt_jax.weights import load_weights

Size = tuple[int, int]

# Frames per dispatch where config.ttt.chunk is 0. On a CPU a frame is worth its own dispatch, so that its
# mask is there as soon as it is computed; an accelerator should not wait for the host.
_CHUNK_CPU, _CHUNK_ACCELERATOR = 1, 16


def to_mask(probability: np.ndarray, frame_name: str) -> np.ndarray:
    """Mask from a probability map: object where 255 · p > 128, the authors' threshold.

    Args:
        probability: float [H, W].
        frame_name: for the error.

    Returns:
        bool [H, W].

    Raises:
        UserError: the map is not finite.
    """
    if not np.isfinite(probability).all():
        raise UserError(f"the prediction of frame {frame_name} is not finite: the weights in config.init are "
                        "damaged, config.model.dtype is too narrow for them, or config.ttt.learning_rate is "
                        "too high")
    return probability * 255 > 128


def loss_values(losses: np.ndarray) -> list[float | None]:
    """Losses for JSON: six digits, None where a step was skipped because its loss was not finite."""
    return [round(float(x), 6) if np.isfinite(x) else None for x in losses]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its weights, ready for videos; for the others see `forward.predict_probability`."""

    model: DATTT
    variables: Variables
    input_size: Size
    upsampling: str = "bilinear"
    look: int = 0

    def engine(self, ttt: ConfigDict, *, adapts: bool, per_step: bool = False) -> Engine:
        """The engine of `config.ttt` for this network.

        Args:
            ttt: `config.ttt`.
            adapts: False if it will only run the strategy `base`, which needs none of the heads.
            per_step: see `Engine`.

        Raises:
            UserError: a field is wrong, or the objective needs a part that the network has not.
        """
        policy = self.policy(ttt)
        if per_step and policy.watches:
            raise UserError(f"config.ttt.policy={ttt.policy!r} judges frames, config.eval.curves scores "
                            "steps: use one of them")
        chunk = ttt.chunk or (_CHUNK_CPU if jax.default_backend() == "cpu" else _CHUNK_ACCELERATOR)
        return Engine(self.problem(ttt, adapts=adapts), chunk=chunk, per_step=per_step, policy=policy)

    def problem(self, ttt: ConfigDict, *, adapts: bool) -> Problem:
        """What `config.ttt` adapts; arguments and errors as of `engine`."""
        task = Task(self.model, self.input_size, ttt.batch_size, ttt.bn_prior, self.upsampling,
                    self.look)
        objective = create_objective(ttt.objective, task)
        if adapts:
            task.check_heads(objective, ttt.objective)
        return task.problem(objective, ttt.learning_rate)

    def propagation(self, share: float, primary_share: float = 0.0) -> Propagation | None:
        """What makes masks agree over time, see `dattt_jax.propagation`; None where both are 0.

        Args:
            share: `config.propagation`.
            primary_share: `config.primary_share`.

        Raises:
            UserError: one of them is out of its range.
        """
        if not 0 <= share < 1:
            raise UserError(f"config.propagation={share}: give 0 (off) or more, and less than 1")
        if not 0 <= primary_share <= 1:
            raise UserError(f"config.primary_share={primary_share}: give 0 (off) to 1")
        if not (share or primary_share):
            return None
        buckets = Buckets(self.input_size)
        upsampled = jax.jit(Task(self.model, self.input_size, 1, upsampling=self.upsampling).upsampled)

        def upsample(image: np.ndarray, logits: np.ndarray) -> np.ndarray:
            packed, unpack = buckets.pack({"image": image[None]})
            return unpack(np.asarray(upsampled(jax.tree.map(lambda x: x[0], packed), logits))[None])[0]

        return Propagation(share, tuple(-(-side // STRIDE) for side in self.input_size), upsample,
                           primary_share)

    @staticmethod
    def policy(ttt: ConfigDict) -> Policy:
        """The policy of `config.ttt`; raises a UserError where there is no such policy."""
        return create_policy(ttt.policy, margin=ttt.policy_margin, source_weight=ttt.source_weight)


def load_network(config: ConfigDict) -> Network:
    """The network of `config.model` with the weights of `config.init`.

    Raises:
        UserError: no weights are named, or they are not there, damaged, or of another network.
    """
    model = create_model(config.model)
    if not config.init:
        raise UserError("config.init is empty: name weights, for example dattt-synth-b0 with "
                        "--config=configs/dattt_synth_b0.py")
    # Not `jnp.asarray`, which compiles a copy for each shape: most of a second.
    variables = jax.device_put(load_weights(config.init, config.model))
    return Network(model, variables, tuple(config.input_size), config.upsampling,
                   len(config.flow.gaps))
