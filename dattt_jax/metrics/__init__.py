"""Scores of predicted masks: J, boundary F, statistics, and the field's protocols as data.

Plain NumPy and OpenCV: nothing here knows jax, a model or a config.
"""
