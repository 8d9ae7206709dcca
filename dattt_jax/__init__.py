"""DATTT: depth-aware test-time training for zero-shot video object segmentation, in JAX."""
