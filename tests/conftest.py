"""Four CPU devices, parsed absl flags, and the golden inputs for every test."""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

# Grain reads absl flags when it starts workers; under pytest nobody parses them.
flags.FLAGS.mark_as_parsed()

GOLDEN = Path(__file__).parent / "golden"
