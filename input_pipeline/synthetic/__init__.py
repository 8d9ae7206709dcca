"""Procedural clips of moving objects with exact mask, flow and depth.

Layered 2.5-D scenes seen by a pinhole camera: articulated creatures and vehicles move in front of
walls, ground, hedges and static things, under a camera that pans, travels, zooms, rolls, shakes and
often follows the object. Every factor is a field of `SyntheticConfig`, every clip is reproducible
from (config, seed, index), and nothing is downloaded.
"""

from input_pipeline.synthetic.clip import SyntheticClip, SyntheticVideos, generate_clip
from input_pipeline.synthetic.config import SyntheticConfig, shifted
from input_pipeline.synthetic.source import SyntheticTrainSource

__all__ = ["SyntheticClip", "SyntheticConfig", "SyntheticTrainSource", "SyntheticVideos",
           "generate_clip", "shifted"]
