"""The RAFT of the golden files: recipe weights under every published name, and as files of ours."""

import functools
import json

from golden import raft_recipe
from golden_model import FOLDER

from dattt_jax.convert_networks import recognise_network, to_variables
from dattt_jax.network_files import write_network


@functools.cache
def keys():
    """Names and shapes of the published files, and the map from the authors' names to torchvision's."""
    return json.loads((FOLDER / "raft_keys.json").read_text())


@functools.cache
def state_dict(network):
    """The authors' names to recipe weights; not to be written to."""
    return {name: raft_recipe.weight(name, shape) for name, shape in keys()[network].items()}


@functools.cache
def variables(network):
    """Recipe weights as our variables."""
    return to_variables(recognise_network(state_dict(network), {}))


def write(network, path):
    """Writes what `--mode=convert` makes of the recipe weights; returns the path."""
    write_network(path, network, variables(network), {})
    return str(path)
