"""DAVIS-16, from a DAVIS 2016 or DAVIS 2017 folder."""

from pathlib import Path

from input_pipeline.datasets.layouts.pairing import Listing
from input_pipeline.datasets.layouts.parts import Parts, processed, read_parts

# The data set's own lists (Perazzi et al., CVPR 2016), for folders that come without them.
VIDEOS = {
    "train": (
        "bear", "bmx-bumps", "boat", "breakdance-flare", "bus", "car-turn", "dance-jump", "dog-agility",
        "drift-turn", "elephant", "flamingo", "hike", "hockey", "horsejump-low", "kite-walk", "lucia",
        "mallard-fly", "mallard-water", "motocross-bumps", "motorbike", "paragliding", "rhino", "rollerblade",
        "scooter-gray", "soccerball", "stroller", "surf", "swing", "tennis", "train",
    ),
    "val": (
        "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows",
        "dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf",
        "libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox",
    ),
}
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")


def davis16(root: Path, split: str) -> Listing | None:
    """`JPEGImages/480p/<video>/`, `Annotations/480p/<video>/` and the split's list in `ImageSets/`.

    The list is `ImageSets/2016/<split>.txt` (DAVIS 2017: names) or `ImageSets/480p/<split>.txt` (DAVIS
    2016: pairs of files), else the published one; DAVIS 2017's own lists are other splits and not used.
    Its masks are palette files with a number for each object, 2016's are 0 and 255. What is in
    `Annotations_unsupervised` is the ground truth of another task, with places that do not count: not read.
    """
    resolution = next((name for name in _RESOLUTIONS if (root / "JPEGImages" / name).is_dir()), None)
    if resolution is None:
        return None
    masks = root / "Annotations" / resolution
    return read_parts(Parts(root / "JPEGImages" / resolution, masks if masks.is_dir() else None),
                      f"official (JPEGImages/{resolution}/ …)", _listed_videos(root, split))


def processed_davis16(root: Path, split: str) -> Listing | None:
    """`parts.processed`, of which the split's videos are kept."""
    return processed(root, split, VIDEOS[split])


def _listed_videos(root: Path, split: str) -> tuple[str, ...]:
    for folder in ("2016", "480p"):
        path = root / "ImageSets" / folder / f"{split}.txt"
        if path.is_file():
            first = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
            # '/JPEGImages/480p/bear/00000.jpg' or 'bear'
            return tuple(dict.fromkeys(Path(entry).parts[-2] if "/" in entry else entry for entry in first))
    return VIDEOS[split]
