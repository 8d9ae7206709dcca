"""The size at which the network sees a video: the one at which it is surest of the object. Not in the paper.

A small object shows in a large input alone, and a large one whole in a small input. Which size suits a video,
the network says itself: some frames are predicted at every size, and the one with the largest mean sureness
(`dattt_jax.sureness`) is the video's.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dattt_jax.inference import Network
from dattt_jax.propagation import Propagation
from dattt_jax.sureness import probed_frames, sureness
from dattt_jax.ttt import SOURCE, Engine
from dattt_jax.ttt.objectives import Variables
from input_pipeline.clip import Pair, PairClip

_PROBES = 8  # frames of a video that are predicted at every size, at most


@dataclasses.dataclass(frozen=True)
class Sized:
    """What runs videos at one input size.

    Attributes:
        input_size: (height, width) the network sees.
        engine: predicts and adapts.
        propagation: makes the masks of a video agree over time; None leaves them as predicted.
    """

    input_size: tuple[int, int]
    engine: Engine
    propagation: Propagation | None


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
        probes = list(probes)
        sure = [self._sureness(choice.engine, probes, variables) for choice in self.choices]
        best = self.choices[int(np.argmax(sure))]
        logging.info("seen at %dx%d, of %s", *best.input_size, ", ".join(
            f"{choice.input_size[0]}x{choice.input_size[1]} (sure by {each:.2f})"
            for choice, each in zip(self.choices, sure, strict=True)))
        return best

    @staticmethod
    def _sureness(engine: Engine, probes: Sequence[Pair], variables: Variables) -> float:
        with PairClip(probes, len(probes)) as clip:
            return float(np.mean([sureness(result.probability) for result in
                                  engine.run(variables, clip, SOURCE, jax.random.key(0))]))


def size_check(config: ConfigDict, network: Network, *, adapts: bool, per_step: bool = False
               ) -> SizeCheck | None:
    """The check of `config.input_sizes`; None where there are none, and every video is seen at one size.

    Args:
        config: the configuration.
        network: whose input size is to be chosen.
        adapts: see `Network.engine`.
        per_step: see `Engine`.

    Raises:
        UserError: as `Network.engine` and `Network.propagation`.
    """
    networks = [dataclasses.replace(network, input_size=tuple(size)) for size in config.input_sizes]
    choices = [Sized(each.input_size, each.engine(config.ttt, adapts=adapts, per_step=per_step),
                     each.propagation(config.propagation, config.primary_share)) for each in networks]
    return SizeCheck(choices) if choices else None
