"""What the crash test starts: `--mode=segment` with the tiny network in a process of its own.

Arguments: a config as JSON of flattened fields, and the workdir.
"""

import json
import os
import sys


def main(fields, workdir):
    import tiny

    from dattt_jax.models import mit
    from dattt_jax.segment import segment

    mit.MIT_SIZES["mit_b0"] = tiny.SIZES
    config = tiny.tiny_config()
    config.update_from_flattened_dict(fields)
    segment(config, workdir)


if __name__ == "__main__":
    sys.path[:0] = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    main(json.loads(sys.argv[1]), sys.argv[2])
