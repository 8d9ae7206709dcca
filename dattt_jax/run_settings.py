"""What the results in a workdir depend on, kept there, so that one folder never holds a mix of two runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dattt_jax.errors import UserError
from input_pipeline.writers import write_json

_FILE = "settings.json"


def claim_folder(workdir: Path, settings: Mapping[str, Any], holds: str, remedy: str) -> None:
    """Keeps the settings in a new folder; refuses one that holds results of other settings.

    Args:
        workdir: the folder.
        settings: plain values by the name of their field in `config`.
        holds: what the folder holds, for the error, for example 'results'.
        remedy: what to do, for the error.

    Raises:
        UserError: the settings are not those of the folder; names the first field that differs.
    """
    # Through JSON and back, so that tuples compare equal to the lists a file holds.
    settings = json.loads(json.dumps(settings))
    path = workdir / _FILE
    if not path.exists():
        write_json(path, settings)
        return
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from error
    difference = first_difference(stored, settings)
    if difference:
        field, was, now = difference
        raise UserError(f"--workdir={workdir} holds {holds} of other settings (config.{field} was {was!r}, "
                        f"now {now!r}): {remedy}")


def first_difference(stored: Any, wanted: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """(dotted name, stored value, wanted value) of the first thing that differs; plain values, nested."""
    if stored == wanted:
        return None
    if not isinstance(stored, Mapping) or not isinstance(wanted, Mapping):
        return field.lstrip("."), stored, wanted
    triples = ((stored.get(name), wanted.get(name), f"{field}.{name}") for name in (*wanted, *stored))
    return next(filter(None, (first_difference(*triple) for triple in triples)), None)
