"""What to do where a device runs out of memory."""

# --mode -> what to lower. The number of crops and the input size change results, the others do not.
_REMEDIES = {
    "train": "raise config.train.accumulation (the same gradients in smaller pieces), set "
             "config.model.remat=True, or lower config.train.batch_size or config.input_size",
    "prepare": "lower config.flow.batch_size or config.flow.volume_gib",
}
_REMEDY = ("lower config.ttt.batch_size, config.ttt.chunk, config.input_size or, with RAFT, "
           "config.flow.batch_size")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of JAX says that a device, or the host as one, has not enough memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory_line(mode: str) -> str:
    """One line that names the settings to change.

    Args:
        mode: `--mode`.
    """
    return f"the device is out of memory: {_REMEDIES.get(mode, _REMEDY)}"
