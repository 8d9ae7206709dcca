"""Whether a video's masks are to be made of flow without parallax, too. Not in the paper.

Where the camera travels, what stands still near to it moves in the image as an object would, and is taken for
one. Flow across the epipolar lines (`input_pipeline.flow.epipolar`) is free of that. It is a second look at
the motion: what is an object has to be seen in both (`forward.merge_looks`). But an object that moves along
those lines is not in the second look at all, and where a scene shows no depth the lines are arbitrary. So
some frames of the video are predicted from either look, and the second one counts if the network is surer of
what it sees there: without parallax one clear object is left, without the object only noise.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.estimators import flow_with_and_without_parallax
from dattt_jax.sureness import sureness
from dattt_jax.ttt import SOURCE, Engine
from dattt_jax.ttt.objectives import Variables
from input_pipeline.clip import Pair, PairClip
from input_pipeline.flow import FlowMethod, RenderingSource
from input_pipeline.flow.nearby import NearbyFlow


@dataclasses.dataclass(frozen=True)
class ParallaxCheck:
    """Finds out whether a video is to be looked at without parallax, too.

    Attributes:
        probes: how many frames of it are predicted for that, at most.
        both: the flow of both looks, that without parallax last.
        last_frame: the rule for the flow of the last frame, see `flow_renderings`.
    """

    probes: int
    both: NearbyFlow
    last_frame: str

    def flow(self, plain: FlowMethod | RenderingSource, frames: Iterable[np.ndarray], indices: Sequence[int],
             engine: Engine, variables: Variables) -> FlowMethod | RenderingSource:
        """The flow for a video: `both`, or `plain` where the second look shows nothing surer.

        The mean over the probes of how sure the network is of the object (`sureness`) decides; where no
        object is left, that is 0.

        Args:
            plain: the flow of the first look.
            frames: all frames of the video, uint8 [H, W, 3] RGB in order; read once.
            indices: numbers of the frames that are to be predicted, ascending.
            engine: predicts the probes, with the network as it is.
            variables: of the network.

        Raises:
            UserError: what is wrong with the frames.
        """
        count = min(self.probes, len(indices))
        probed = {indices[(2 * i + 1) * len(indices) // (2 * count)] for i in range(count)}
        with PairClip(self._looks(frames, probed), 2 * len(probed)) as clip:
            sure = [sureness(result.probability)
                    for result in engine.run(variables, clip, SOURCE, jax.random.key(0))]
        return self.both if sum(sure[1::2]) > sum(sure[::2]) else plain

    def _looks(self, frames: Iterable[np.ndarray], probed: set[int]) -> Iterator[Pair]:
        """Every probed frame with the flow of the first look, then again with that of the second."""
        for frame, renderings in self.both.renderings(frames, self.last_frame, probed):
            for look in np.split(renderings, 2):
                yield frame, look


def parallax_check(config: ConfigDict) -> ParallaxCheck | None:
    """The check of `config.flow.parallax_probes`; None where that is 0.

    Raises:
        UserError: it is below 0, or the flow of the config has no use for it.
    """
    probes = config.flow.parallax_probes
    if probes < 0:
        raise UserError(f"config.flow.parallax_probes={probes}: give a number of frames, 0 to leave it out")
    if not probes:
        return None
    return ParallaxCheck(probes, flow_with_and_without_parallax(config), config.flow.last_frame)
