"""Which variables an objective trains: predicates on paths such as ('params', 'encoder_image', …)."""

from collections.abc import Callable

from dattt_jax.ttt.objectives import Path


def is_image_encoder(path: Path) -> bool:
    """The paper's filter: the image encoder and nothing else is trained at test time."""
    return path[:2] == ("params", "encoder_image")


def nothing(path: Path) -> bool:
    """No variable: adaptation without a gradient."""
    del path
    return False


def is_statistic(path: Path) -> bool:
    """Running mean or variance of a normalisation layer."""
    return path[0] == "batch_stats"


def affine_of(*norms: str) -> Callable[[Path], bool]:
    """Scale and bias of normalisation layers.

    Args:
        norms: prefixes of the names of such layers, e.g. 'bn', or 'norm' for `norm1`, `norm`, ….
    """
    def is_affine(path: Path) -> bool:
        return (path[0] == "params" and path[-1] in ("scale", "bias")
                and len(path) > 2 and path[-2].startswith(norms))

    return is_affine
