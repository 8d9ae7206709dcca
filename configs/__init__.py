"""Experiments: `get_config()` of each file is what `--config` names."""
