"""Numbers in a config that no mode can work with."""

import math

from ml_collections import ConfigDict

from dattt_jax.errors import UserError

_LARGEST_BIAS = 100.0  # of logits: beyond it, all or nothing is object
# Field -> smallest value.
_AT_LEAST = {
    "model.decoder_features": 1, "model.drop_path": 0.0,
    "ttt.batch_size": 1, "ttt.chunk": 0, "ttt.learning_rate": 0.0, "ttt.bn_prior": 0.0,
    "eval.seed": 0, "train.batch_size": 1,
    "train.threads": 1, "train.learning_rate": 0.0, "train.final_learning_rate": 0.0,
    "train.weight_decay": 0.0, "train.depth_weight": 0.0, "train.iou_weight": 0.0,
    "eval.clips": 1, "export.part_mb": 0, "export.mask_bias": -_LARGEST_BIAS, "live.budget_ms": 0.0,
    "validation.samples": 1, "validation.seed": 0, "segment.save_every_s": 0.0,
}
_SMALLEST_SIDE = 32  # one token at the last stage


def check_numbers(config: ConfigDict) -> None:
    """Checks sizes and counts; fields with a meaning of their own are checked where they are read.

    Raises:
        UserError: names the first field that is out of range, and its range.
    """
    size = tuple(config.input_size)
    if len(size) != 2 or any(not isinstance(side, int) or side < _SMALLEST_SIDE for side in size):
        raise UserError(f"config.input_size={size}: give (height, width), both at least {_SMALLEST_SIDE}")
    if not 0 <= config.seed < 2**63:
        raise UserError(f"config.seed={config.seed}: give 0 or more, below 2**63")
    if config.model.drop_path >= 1:
        raise UserError(f"config.model.drop_path={config.model.drop_path}: give less than 1")
    for field, smallest in _AT_LEAST.items():
        section, name = field.split(".")
        value = config[section][name]
        if not smallest <= value < math.inf:
            raise UserError(f"config.{field}={value}: give {smallest} or more")
