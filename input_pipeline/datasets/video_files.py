"""What every data set is read into: the files of one video."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class VideoFiles:
    """The files of one video, paired by frame name.

    Attributes:
        name: unique in its data set.
        frames: frame name -> image file, in temporal order; the name is the file's stem, or what is left
            of it in the flat layout (`00001` of `name_00001.png`).
        masks: frame name -> mask files, whose objects are united. Frames may be missing (sparse
            annotation); every key is a frame.
        flows: frame name -> colour-wheel rendering of the forward flow; may be empty or sparse.
        depths: frame name -> depth map (grey .png of 8 or 16 bit, or .npy); may be empty or sparse.
        category: class of the primary object where the data set has classes, else ''.
        dataset: name in `DATASETS`; `decode_masks` follows its colour convention. '' has none of its own.
    """

    name: str
    frames: Mapping[str, Path]
    masks: Mapping[str, tuple[Path, ...]]
    flows: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    depths: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    category: str = ""
    dataset: str = ""
