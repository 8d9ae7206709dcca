"""The line that is printed where a device runs out of memory."""

import re

import jax
import pytest

from configs import base
from dattt_jax.device_memory import is_out_of_memory, out_of_memory_line


@pytest.mark.parametrize("mode", ["train", "segment", "eval", "prepare"])
def test_the_line_names_settings_that_there_are(mode):
    line, config = out_of_memory_line(mode), base.get_config()
    names = re.findall(r"config\.([\w.]+\w)", line)
    assert len(names) >= 2 and "\n" not in line
    for name in names:
        section = config
        for part in name.split("."):
            section = section[part]  # KeyError where there is no such setting


def test_what_xla_raises_is_recognised():
    assert is_out_of_memory(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"))
    assert not is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: cuDNN"))
