"""The size at which the network sees a video: the one at which it is surest of the object. Not in the paper.

Which size suits a video depends on more than the size of its object: on noise, blur, how far things move. So
the network is asked: some frames are predicted at every size, and the one with the largest mean sureness
(`dattt_jax.sureness`, of the network's own logits, before they are upsampled) is the video's.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.inference import Network
from dattt_jax.propagation import Propagation
from dattt_jax.sureness import probed_frames, sureness
from dattt_jax.ttt import Engine
from dattt_jax.ttt.objectives import Variables
from input_pipeline.clip import Pair

_PROBES = 8  # frames of a video that are predicted at every size, at most


@dataclasses.dataclass(frozen=True)
class Sized:
    """What runs videos at one input size.

    Attributes:
        input_size: (height, width) the network sees.
        engine: predicts and adapts.
        propagation: makes the masks of a video agree over time; None leaves them as predicted.
        mask_logits: see `Network.mask_logits`.
    """

    input_size: tuple[int, int]
    engine: Engine
    propagation: Propagation | None
    mask_logits: Callable[[Variables, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class SizeCheck:
    """Finds out at which of several input sizes a video is to be seen.

    Attributes:
        choices: one for every size.
    """

    choices: Sequence[Sized]

    @staticmethod
    def probed(indices: Sequence[int]) -> list[int]:
        """Numbers of the frames that `best` is to be given, of those that are to be predicted; ascending."""
        return sorted(probed_frames(indices, _PROBES))

    def best(self, probes: Iterable[Pair], variables: Variables) -> Sized:
        """The choice for a video.

        Args:
            probes: frames of it with their renderings, uint8 [H, W, 3] and [..., H, W, 3] RGB.
            variables: of the network.

        Returns:
            The one whose network is surest of the object in the mean over the probes; of equals the first.

        Raises:
            UserError: what is wrong with the frames.
        """
        seen = [[sureness(1 / (1 + np.exp(-choice.mask_logits(variables, *probe))))
                 for choice in self.choices] for probe in probes]
        sure = np.nan_to_num(np.mean(seen, axis=0), nan=-1.0)
        best = self.choices[int(np.argmax(sure))]
        logging.info("seen at %dx%d, of %s", *best.input_size, ", ".join(
            f"{choice.input_size[0]}x{choice.input_size[1]} (sure by {each:.2f})"
            for choice, each in zip(self.choices, sure, strict=True)))
        return best


def size_check(config: ConfigDict, network: Network, *, adapts: bool, per_step: bool = False
               ) -> SizeCheck | None:
    """The check of `config.input_sizes`; None where there are none, and every video is seen at one size.

    Args:
        config: the configuration.
        network: whose input size is to be chosen.
        adapts: see `Network.engine`.
        per_step: see `Engine`.

    Raises:
        UserError: `config.input_size` is none of them; or as `Network.engine` and `Network.propagation`.
    """
    size, sizes = tuple(config.input_size), tuple(map(tuple, config.input_sizes))
    if not sizes:
        return None
    if size not in sizes:
        raise UserError(f"config.input_size={size} is none of config.input_sizes={sizes}: add it, or set "
                        "config.input_sizes=() to see every video at that size")
    return SizeCheck([sized(config, dataclasses.replace(network, input_size=each), adapts=adapts,
                            per_step=per_step) for each in sizes])


def sized(config: ConfigDict, network: Network, *, adapts: bool, per_step: bool = False) -> Sized:
    """What runs videos at the network's input size; arguments and errors as of `size_check`."""
    return Sized(network.input_size, network.engine(config.ttt, adapts=adapts, per_step=per_step),
                 network.propagation(config.propagation, config.primary_share), network.mask_logits())
