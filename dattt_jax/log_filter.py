"""Keeps what other libraries log for their own developers out of the log."""

import logging

from absl import logging as absl_logging

_CHATTY = ("/orbax/", "/tensorflow_datasets/")  # Orbax writes some fifty INFO lines per save
_VAIN = ("did not provide metrics",)  # Orbax's warning of a checkpoint that was not validated


def quiet_libraries() -> None:
    """Drops INFO lines of the libraries, here and in what is logged later."""
    absl_logging.get_absl_logger().addFilter(_worth_telling)
    logging.getLogger("jax").setLevel(logging.WARNING)  # else: that there is no TPU here
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # else: that it looked for fonts


def _worth_telling(record: logging.LogRecord) -> bool:
    if not any(name in record.pathname for name in _CHATTY):
        return True
    return record.levelno > logging.INFO and not any(text in record.getMessage() for text in _VAIN)
