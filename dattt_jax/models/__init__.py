"""DATTT networks in Flax linen. `create_model` is the one way to make one."""

import jax.numpy as jnp
import ml_collections

from dattt_jax.errors import UserError
from dattt_jax.models.auxiliary import HEADS
from dattt_jax.models.dattt import BACKBONES, DATTT
from dattt_jax.models.modulation import MODULATIONS

__all__ = ["BACKBONES", "DATTT", "HEADS", "MODULATIONS", "create_model"]

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_model(config: ml_collections.ConfigDict, *, axis_name: str | None = None) -> DATTT:
    """Makes the network `config.model` describes.

    Args:
        config: fields `backbone`, `depth`, `modulation`; optionally `decoder_features`, `drop_path`,
            `remat`, `heads` and `dtype` ('float32' or 'bfloat16'), with the defaults of `DATTT`.
        axis_name: pmap axis for synchronised BatchNorm.

    Raises:
        UserError: a field has a value that is not offered; the line lists those that are.
    """
    fields = dict(config)
    _check("backbone", fields["backbone"], BACKBONES)
    _check("modulation", fields["modulation"], MODULATIONS)
    dtype = fields.pop("dtype", "float32")
    _check("dtype", dtype, _DTYPES)
    fields["heads"] = tuple(fields.get("heads", ()))
    for name in fields["heads"]:
        _check("heads", name, HEADS)
    return DATTT(**fields, dtype=_DTYPES[dtype], axis_name=axis_name)


def _check(field: str, value: str, valid: object) -> None:
    if value not in valid:
        raise UserError(f"config.model.{field}: {value!r} is not one of {', '.join(valid)}")
