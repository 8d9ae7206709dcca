"""Which videos `--mode=eval` is about: `config.data`, clean or corrupted, and this process's part of them."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.metrics.protocols import get_protocol
from input_pipeline.corruptions import corrupt_video
from input_pipeline.datasets import find_videos
from input_pipeline.eval_pairs import FRAMES
from input_pipeline.eval_videos import EvalEntry, EvalVideo, file_entries, prepared_entries, synthetic_entries
from input_pipeline.synthetic import SyntheticConfig, shifted

Corruption = tuple[str, int]  # name and level


def data_name(config: ConfigDict) -> str:
    """The evaluated data set: `config.data.dataset`, or the folder where that says only the layout."""
    if config.data.dataset in ("folder", "prepared"):
        return str(config.data.root)
    return str(config.data.dataset)


def eval_entries(config: ConfigDict, corruption: Corruption | None = None) -> list[EvalEntry]:
    """The videos of `config.data`, those of `config.eval` if synthetic.

    Args:
        config: the configuration.
        corruption: name and level of what corrupts the frames; None leaves them clean.

    Raises:
        UserError: the data is not there, or not what `config.data` says.
    """
    entries = _clean_entries(config)
    if not entries:
        raise UserError(f"config.data: {config.data.dataset} in {config.data.root or '.'} holds no video")
    if not any(entry.num_annotated for entry in entries):
        raise UserError(f"config.data.root={config.data.root}: no frame of it is annotated, there is nothing "
                        "to compare with; --mode=segment needs no ground truth")
    if corruption is None:
        return entries

    def corrupted(entry: EvalEntry) -> EvalVideo:
        return corrupt_video(entry.open(), *corruption, config.eval.seed, config.eval.temporally_consistent,
                             Path(data_name(config)).name)

    return [dataclasses.replace(entry, open=partial(corrupted, entry)) for entry in entries]


def _clean_entries(config: ConfigDict) -> list[EvalEntry]:
    data = config.data
    if data.dataset == "synthetic":
        synthetic = SyntheticConfig(**config.synthetic)
        return synthetic_entries(shifted(synthetic) if config.eval.shifted else synthetic, config.eval.seed,
                                 config.eval.clips)
    if data.dataset == "prepared":
        if not data.root:
            raise UserError("config.data.root is empty: name the folder that --mode=prepare wrote")
        return prepared_entries(data.root)
    return file_entries(find_videos(data.dataset, data.root, data.split), get_protocol(config.eval.protocol))


def check_frames(frames: str) -> None:
    """Raises a UserError where `config.eval.frames` is no choice of frames."""
    if frames not in FRAMES:
        raise UserError(f"config.eval.frames={frames!r}: use one of {', '.join(FRAMES)}")


@dataclasses.dataclass(frozen=True)
class Part:
    """This process's share of the videos.

    Attributes:
        index: of the process, from 0; process 0 writes the tables.
        count: how many processes there are.
    """

    index: int
    count: int

    def of(self, entries: Sequence[EvalEntry]) -> list[EvalEntry]:
        """Every `count`-th video from `index` on."""
        return list(entries[self.index :: self.count])


def parse_part(text: str) -> Part:
    """This process's part.

    Args:
        text: `config.eval.part`, as in '2/4' for the second of four processes; '' for the part that
            `jax.distributed` gives, which is everything if it is not used.

    Raises:
        UserError: the text is no such part.
    """
    if not text:
        return Part(jax.process_index(), jax.process_count())
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"config.eval.part={text!r}: give which of how many, from '1/4' to '4/4', or '' for "
                        "all")
    return Part(int(index) - 1, int(count))
